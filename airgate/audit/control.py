"""What is done to a gate, as its log has it: policy published, access taken and lent, keys exchanged, retold in words.

Every isolate writes down what it learns, so one change stands in the log as often as there are isolates. `Change.key`
is the same in all of them.
"""

import json
from dataclasses import dataclass
from typing import Any

from airgate.audit.fields import Event, members, text, texts, whole
from airgate.moments import clock
from airgate.policy.words import quoted

KINDS = ("bundle", "act", "keys", "register")


@dataclass(frozen=True)
class Change:
    """One change, or one that the gate refused to make."""

    key: tuple[str, ...]
    kind: str  # publish | rollback | policy | revoke | lift | grant | end | act | keys | register
    what: str  # a sentence without its full stop
    by: str | None
    why: str | None
    alarm: bool  # somebody should look at it


def change(event: Event) -> Change | None:
    """What a bundle, act, keys or register event tells; None for any other."""
    match event.get("event"):
        case "bundle":
            return _bundle(event)
        case "act":
            return _act(event)
        case "keys":
            return _keys(event)
        case "register":
            number = whole(event, "number")
            what = f"A chain's row is gone from the register in D1{'' if number is None else f' (number {number})'}"
            return Change(("register", str(number)), "register", what, None, None, True)
    return None


def _bundle(event: Event) -> Change:
    bundle, sequence = text(event, "bundle"), whole(event, "sequence")
    detail, action, of = text(event, "detail"), text(event, "action"), whole(event, "of")
    if event.get("result") != "loaded":
        why = detail or "no reason given"
        return Change(("refused", str(sequence), why), "policy", "Newer policy was refused", None, why, True)
    what = f"Policy {bundle or '?'} came into force" + ("" if sequence is None else f" as number {sequence}")
    if action == "rollback":
        what = f"Rolled back: policy {bundle or '?'}" + ("" if of is None else f" of number {of}")
        what += "" if sequence is None else f" is in force again as number {sequence}"
    elif action == "publish":
        what = f"Policy {bundle or '?'} was published" + (
            "" if sequence is None else f" as number {sequence}"
        )
    kind = action if action in ("publish", "rollback") else "policy"
    return Change(("loaded", str(sequence), str(bundle)), kind, what, text(event, "by"), detail, False)


def document(event: Event) -> dict[str, Any]:
    """The act that an act event holds; empty when it can't be read."""
    try:
        read = json.loads(text(event, "act", 4096) or "")
    except (ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}


def _act(event: Event) -> Change:
    name, act = text(event, "id") or "?", document(event)
    action = text(event, "action") or text(act, "act") or "act"
    if action not in ("revoke", "lift", "grant", "end"):
        action = "act"
    by, why = text(act, "by"), text(act, "reason")
    if event.get("result") != "known":
        what = f"Refused: {_said(action, act)}"
        return Change(("act refused", name), action, what, by, text(event, "detail") or why, True)
    return Change(("act", name), action, _said(action, act), by, why, False)


def _said(action: str, act: Event) -> str:
    until = whole(act, "until")
    end = "" if until is None else f", until {clock(until)}"
    match action:
        case "revoke":
            matched = members(act, "match")
            whom = ", ".join(f"{name} {text(matched, name) or '?'}" for name in list(matched)[:5])
            return f"Access was revoked: {whom or '?'}{end}"
        case "grant":
            gives, to = members(act, "gives"), members(act, "to")
            gift = " and ".join(f"{name} {text(gives, name) or '?'}" for name in list(gives)[:2])
            whom = text(to, "subject") or (f"holders of role {text(to, 'role')}" if text(to, "role") else "?")
            issuer = f" of {text(to, 'issuer')}" if text(to, "issuer") else ""
            return f"{whom}{issuer} was lent {gift or '?'}{end}"
        case "lift":
            return f"The revocation {(text(act, 'of') or '?')[:12]} was lifted"
        case "end":
            return f"The grant {(text(act, 'of') or '?')[:12]} was ended"
    return "An act that can't be read"


def _keys(event: Event) -> Change:
    of, issuer = text(event, "of") or "?", text(event, "issuer")
    whose = {
        "audit": "The key of the audit log",
        "trusted": "The keys whose word counts for policy",
        "assertion": "The keys of assertions",
        "issuer": f"The keys of issuer {issuer or '?'}",
    }.get(of, f"The keys of {quoted(of)}")
    added, removed = texts(event, "added"), texts(event, "removed")
    said = [
        f"{verb} {', '.join(_brief(kid) for kid in kids)}"
        for verb, kids in (("new:", added), ("gone:", removed))
        if kids
    ]
    what = f"{whose} changed" + (f"; {'; '.join(said)}" if said else "")
    return Change(
        ("keys", of, str(issuer), *sorted(added), "-", *sorted(removed)), "keys", what, None, None, False
    )


def _brief(kid: str) -> str:
    return kid if len(kid) <= 16 else kid[:12] + "\N{HORIZONTAL ELLIPSIS}"
