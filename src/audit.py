"""Audit events: one decision for every request, written before any effect, and one outcome for every forwarded call.

Each event is one line of JSON. Tokens, secrets, bodies and query strings are never in it, and a path only where its
upstream opted in: paths hold secrets and people.
"""

import json
from datetime import UTC, datetime
from typing import Any

from model import Caller, Decision, Denied, Inbound, Reason, Target

SCHEMA = 1
LONGEST = 512  # characters of a value that comes from outside
MOST = 100  # entries of a list that comes from outside

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cut(names: Any) -> list[str]:
    return sorted(names)[:MOST]


class Record:
    """What is known of one request so far; `gateway.handle` fills it in as stages pass."""

    __slots__ = ("bundle", "caller", "decision", "inbound", "log_path", "note", "sequence", "target")

    def __init__(self, inbound: Inbound) -> None:
        self.inbound = inbound
        self.target: Target | None = None
        self.caller: Caller | None = None
        self.decision: Decision | None = None
        self.bundle: str | None = None
        self.sequence: int | None = None
        self.log_path = False
        self.note: str | None = None  # why a caller of a public page was not told more

    def decided(self, denied: Denied | None) -> str:
        """The decision event, as the line to be written."""
        inbound, target, caller, decision = self.inbound, self.target, self.caller, self.decision
        event: dict[str, Any] = {
            "event": "decision",
            "schema": SCHEMA,
            "time": timestamp(inbound.received_at),
            "request_id": inbound.request_id,
            "decision": "deny" if denied else "permit",
            "reason": denied.reason if denied else None,
            "detail": ((denied.detail if denied else self.note) or "")[:LONGEST] or None,
            "method": inbound.method[:16],
            "upstream": target.upstream[:64] if target else None,
            "route": decision.route if decision else None,
            "policies": decision.policies[:MOST] if decision else (),
            "shadow": decision.shadow[:MOST] if decision else (),
            "bundle": self.bundle,
            "sequence": self.sequence,
            "client": inbound.headers.get("cf-connecting-ip"),
        }
        if caller is not None:
            identity = caller.identity
            event["issuer"] = identity.issuer
            event["subject"] = identity.subject
            event["kind"] = identity.kind
            event["roles"] = {
                "granted": _cut(identity.granted),
                "tagged": caller.tagged,
                "effective": _cut(caller.effective),
            }
            event["workload"] = {
                field: {"value": fact.value[:MOST] if isinstance(fact.value, tuple) else fact.value, "attested": fact.attested}
                for field, fact in caller.workload.items()
            }
        if target is not None and self.log_path:
            event["path"] = target.path[:1024]
        return _encode(event)

    def ended(self, now: float, result: str, status: int | None, sent_at: float, detail: str = "") -> str:
        """The outcome event: how the upstream took the call. `result`: answered, unreachable, timeout or internal."""
        return _encode(
            {
                "event": "outcome",
                "schema": SCHEMA,
                "time": timestamp(now),
                "request_id": self.inbound.request_id,
                "upstream": self.target.upstream if self.target else None,
                "result": result,
                "detail": detail[:LONGEST] or None,
                "status": status,
                "upstream_ms": round((now - sent_at) * 1000, 1),
            }
        )


def bundle_event(now: float, result: str, detail: str, bundle: str | None, sequence: int | None) -> str:
    """A change of policy, or a failure to read it, as this isolate saw it. `result`: loaded or refused."""
    return _encode(
        {
            "event": "bundle",
            "schema": SCHEMA,
            "time": timestamp(now),
            "result": result,
            "detail": detail[:LONGEST] or None,
            "bundle": bundle,
            "sequence": sequence,
        }
    )


def crash_event(now: float, request_id: str, kind: str) -> str:
    """The decision event of a request that could not even be read."""
    return _encode(
        {
            "event": "decision",
            "schema": SCHEMA,
            "time": timestamp(now),
            "request_id": request_id,
            "decision": "deny",
            "reason": Reason.INTERNAL,
            "detail": kind,
        }
    )
