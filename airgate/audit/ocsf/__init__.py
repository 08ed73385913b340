"""Audit events in the words of the Open Cybersecurity Schema Framework (OCSF) 1.8: docs/audit-export.md has the table.

A decision is API Activity (6003), with its outcome where that is at hand. What OCSF has no member for goes into
`unmapped`, under its own name. Workload context goes into `enrichments`, with the token or the header as provider.
"""

from airgate.audit.fields import Event, moment
from airgate.audit.ocsf import calls, changes
from airgate.audit.ocsf.envelope import OTHER, VERSION, Mapped

__all__ = ["VERSION", "Mapped", "mapped"]


def mapped(event: Event, outcome: Event | None = None) -> Mapped | None:
    """An event as OCSF has it; `outcome`: that of a decision, where it is known. None: it isn't one of the gate's."""
    if moment(event) is None:
        return None
    match event.get("event"):
        case "decision":
            return calls.decision(event, outcome)
        case "evaluation":
            return calls.evaluation(event)
        case "outcome":
            return calls.stray(event)
        case "bundle":
            return changes.bundle(event)
        case "act":
            return changes.act(event)
        case "keys":
            return changes.keys(event)
        case "opening":
            return changes.lifecycle(event, 3, "An isolate of the gate began")
        case "checkpoint":
            return changes.lifecycle(
                event, OTHER, "The gate signed how far its audit log has come", "Checkpoint"
            )
        case "register":
            return changes.register(event)
    return None
