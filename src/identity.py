"""From a verified token to a caller: its kind, the roles it grants, the roles it acts under, the task it speaks for."""

import re
from typing import Any, NamedTuple

from model import Caller, Denied, Fact, Identity, Reason

KINDS = ("workload", "human", "agent")
WORKLOAD = ("dag", "task", "run", "try", "map_index", "tags", "environment")
MOST_ROLES = 32  # in one role tag
MOST_GROUPS = 1000  # in one claim
MOST_TAGS = 64
LONGEST = 256  # characters of a workload value
LONGEST_HEADER = 1024  # characters of a list of them

_HEADERS = {
    "dag": "airgate-dag-id",
    "task": "airgate-task-id",
    "run": "airgate-run-id",
    "try": "airgate-try-number",
    "map_index": "airgate-map-index",
    "tags": "airgate-dag-tags",
    "environment": "airgate-environment",
}
_SINGLE = frozenset({"dag", "task", "try", "map_index", "environment"})
SAID = ("airgate-role", *_HEADERS.values())  # every header that act() reads
_ROLE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Grant(NamedTuple):
    """One way to a role: a claim that is, or holds, a value; or an exact subject."""

    role: str
    claim: tuple[str, ...] | None
    value: str


class Mapping(NamedTuple):
    """How one issuer's claims are read."""

    id: str
    kind_claim: tuple[str, ...] | None
    kind_default: str
    attested: tuple[tuple[str, tuple[str, ...]], ...]  # (workload field, claim path)
    grants: tuple[Grant, ...]
    claims: tuple[tuple[str, ...], ...] = ()  # paths of those that policies ask for


def _at(claims: dict[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = claims
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _strings(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if len(values) > MOST_GROUPS or not all(isinstance(item, str) for item in values):
        raise Denied(Reason.TOKEN_CLAIMS, "a claim that grants roles is not strings, or holds too many")
    return tuple(values)


def _texts(value: Any) -> tuple[str, ...] | None:
    """A claim as conditions compare it: true, false and whole numbers as JSON writes them. None: not to be compared."""
    values = value if isinstance(value, list) else [value]
    if len(values) > MOST_GROUPS:
        return None
    texts = []
    for item in values:
        if isinstance(item, bool):
            texts.append("true" if item else "false")
        elif isinstance(item, str | int) and len(text := str(item)) <= LONGEST:
            texts.append(text)
        else:
            return None
    return tuple(texts)


def _attested(field: str, value: Any) -> Fact:
    if field == "tags":
        return Fact(_strings(value), True)
    if isinstance(value, bool) or not isinstance(value, str | int) or not 0 < len(str(value)) <= LONGEST:
        raise Denied(Reason.TOKEN_CLAIMS, f"the attested {field} is not a short string")
    return Fact(str(value), True)


def _elsewhere(claims: dict[str, Any], mapping: Mapping) -> dict[str, Any]:
    """The claims of which the token says that they are to be fetched. Raises Denied `token.claims`.

    Some issuers leave long lists out: what is not there must not open a forbid.
    """
    named = claims.get("_claim_names")
    elsewhere = named if isinstance(named, dict) else {}
    if claims.get("hasgroups") or any(
        grant.claim and grant.claim[0] in elsewhere for grant in mapping.grants
    ):
        raise Denied(Reason.TOKEN_CLAIMS, "the token does not hold all of its groups")
    return elsewhere


def identify(claims: dict[str, Any], subject: str, mapping: Mapping) -> Identity:
    """Read a verified token's claims by its issuer's mapping. Raises Denied `token.claims`."""
    elsewhere = _elsewhere(claims, mapping)
    kind = mapping.kind_default
    if mapping.kind_claim is not None:
        claimed = _at(claims, mapping.kind_claim)
        if claimed is not None:
            kind = claimed
        if kind not in KINDS:
            raise Denied(Reason.TOKEN_CLAIMS, "kind is not one of " + ", ".join(KINDS))
    held: dict[tuple[str, ...] | None, frozenset[str] | None] = {None: frozenset((subject,))}
    granted, unknown = set(), set()
    for grant in mapping.grants:
        if grant.claim not in held and grant.claim is not None:
            value = _at(claims, grant.claim)
            held[grant.claim] = None if value is None else frozenset(_strings(value))
        values = held[grant.claim]
        if values is None:
            unknown.add(grant.role)
        elif grant.value in values:
            granted.add(grant.role)
    attested = {
        field: _attested(field, value)
        for field, path in mapping.attested
        if (value := _at(claims, path)) is not None
    }
    asked = {
        path: texts
        for path in mapping.claims
        if path[0] not in elsewhere
        and (value := _at(claims, path)) is not None
        and (texts := _texts(value)) is not None
    }
    return Identity(
        mapping.id, subject, kind, frozenset(granted), attested, frozenset(unknown - granted), asked
    )


def _asserted(headers: dict[str, str]) -> dict[str, Fact]:
    workload: dict[str, Fact] = {}
    for field, header in _HEADERS.items():
        if (text := headers.get(header)) is None:
            continue
        # A header that is sent twice arrives joined by a comma; no DAG's or task's name has one.
        if len(text) > LONGEST_HEADER or ("," in text and field in _SINGLE):
            raise Denied(Reason.REQUEST_HEADER_INVALID, header)
        values = tuple([tag.strip(" ") for tag in text.split(",")]) if field == "tags" else (text,)
        for value in values:
            if not value or len(value) > LONGEST or not value.isprintable():
                raise Denied(Reason.REQUEST_HEADER_INVALID, header)
        if len(values) > MOST_TAGS:
            raise Denied(Reason.REQUEST_HEADER_INVALID, header)
        workload[field] = Fact(values if field == "tags" else text, False)
    return workload


def act(identity: Identity, headers: dict[str, str]) -> Caller:
    """The identity as it acts in this request.

    A role tag only narrows: naming a role that the token does not grant is refused, not ignored. Context from the
    token's claims wins over the header of the same name; context from headers is only what the caller says.
    """
    tagged: tuple[str, ...] | None = None
    effective = identity.granted
    if (tag := headers.get("airgate-role")) is not None:
        if len(tag) > LONGEST_HEADER:
            raise Denied(Reason.ROLE_MALFORMED)
        tagged = tuple(role.strip(" ") for role in tag.split(","))
        if len(tagged) > MOST_ROLES or not all(_ROLE.fullmatch(role) for role in tagged):
            raise Denied(Reason.ROLE_MALFORMED)
        effective = frozenset(tagged)
        if not effective <= identity.granted:
            raise Denied(Reason.ROLE_NOT_GRANTED, ", ".join(sorted(effective - identity.granted))[:200])
    workload = _asserted(headers)
    if identity.attested:
        workload |= identity.attested
    return Caller(identity, tagged, effective, workload)
