"""What is done to the gate, in the classes that OCSF has for it."""

from airgate.audit.control import change, document
from airgate.audit.fields import Event, clean, members, moment, text, texts, uid, whole
from airgate.audit.ocsf.envelope import (
    FAILURE,
    HEAD,
    HIGH,
    INFORMATIONAL,
    LOW,
    MEDIUM,
    OTHER,
    SUCCESS,
    UNKNOWN,
    Mapped,
    base,
    rest,
)


def _by(name: str | None) -> Mapped | None:
    return None if name is None else {"user": {"name": name, "type_id": UNKNOWN, "type": "Unknown"}}


def _told(event: Event) -> tuple[str, str | None, str | None]:
    """In words what happened, who did it, and why."""
    found = change(event)
    return (found.what, found.by, found.why) if found is not None else ("?", None, None)


def bundle(event: Event) -> Mapped:
    what, by, why = _told(event)
    loaded = event.get("result") == "loaded"
    bundle, sequence = text(event, "bundle") or "none", whole(event, "sequence")
    version = {} if sequence is None else {"version": str(sequence)}
    return base(
        event,
        3004,
        10,
        what,
        severity=INFORMATIONAL if loaded else MEDIUM,
        status=SUCCESS if loaded else FAILURE,
        status_detail=why,
        actor=_by(by),
        comment=text(event, "action", 64),
        entity={
            "name": "policy bundle",
            "type_id": 5,
            "type": "Policy",
            "uid": bundle,
            **version,
            "policy": {"name": "policy bundle", "uid": bundle, "is_applied": loaded, **version},
        },
        unmapped=rest(event, HEAD | {"result", "detail", "bundle", "sequence", "by"}),
    )


def act(event: Event) -> Mapped:
    what, by, why = _told(event)
    known, act = event.get("result") == "known", document(event)
    action = text(event, "action", 64) or text(act, "act", 64) or "act"
    subject = text(members(act, "match"), "subject") or text(members(act, "to"), "subject")
    issuer = text(members(act, "match"), "issuer") or text(members(act, "to"), "issuer")
    more: Mapped = {
        "severity": (LOW if action in ("revoke", "grant") else INFORMATIONAL) if known else MEDIUM,
        "status": SUCCESS if known else FAILURE,
        "status_detail": text(event, "detail"),
        "actor": _by(by),
        "unmapped": rest(event, HEAD | {"result", "detail"}),
    }
    if subject is not None and action in ("revoke", "grant"):
        gives = members(act, "gives")
        gift = (
            [f"{name} {text(gives, name) or '?'}" for name in list(gives)[:5]]
            if action == "grant"
            else ["all"]
        )
        user: Mapped = {"uid": subject, "name": subject} | ({} if issuer is None else {"domain": issuer})
        return base(
            event, 3005, 1 if action == "grant" else 2, what, user=user, privileges=gift or ["?"], **more
        )
    activity = {"revoke": 1, "grant": 1, "lift": 4, "end": 4}.get(action, OTHER)
    entity: Mapped = {"name": action, "type_id": OTHER, "type": "act", "uid": text(event, "id", 64) or "?"}
    if act:
        entity["data"] = clean(act)
    return base(event, 3004, activity, what, entity=entity, comment=why, **more)


def keys(event: Event) -> Mapped:
    what, _, _ = _told(event)
    of, issuer = text(event, "of", 64) or "?", text(event, "issuer")
    return base(
        event,
        3004,
        3,
        what,
        severity=LOW,
        entity={
            "name": f"keys of {issuer or of}",
            "type_id": OTHER,
            "type": "signing keys",
            "data": {"added": list(texts(event, "added")), "removed": list(texts(event, "removed"))},
        },
        unmapped=rest(event, HEAD | {"added", "removed"}),
    )


def lifecycle(event: Event, activity: int, message: str, name: str | None = None) -> Mapped:
    """An isolate began, or a checkpoint was signed."""
    version = text(members(event, "worker"), "version", 128)
    return base(
        event,
        6002,
        activity,
        message,
        activity_name=name,
        app={"name": "Airgate", "vendor_name": "Airgate"}
        | ({} if (gate := text(event, "gate")) is None else {"uid": gate})
        | ({} if version is None else {"version": version}),
        unmapped=rest(event, HEAD | {"worker", "gate"}),
    )


def register(event: Event) -> Mapped:
    what, _, _ = _told(event)
    when = round((moment(event) or 0.0) * 1000)
    return base(
        event,
        2004,
        1,
        what,
        severity=HIGH,
        status=UNKNOWN,
        is_alert=True,
        finding_info={
            "uid": uid(event),
            "title": "A row of the audit register is missing",
            "desc": f"{what}. Whoever can write D1 may have deleted it, to hide that a chain was there.",
            "created_time": when,
            "types": ["log tampering"],
        },
        unmapped=rest(event, HEAD),
    )
