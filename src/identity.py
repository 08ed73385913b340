"""From a verified token to a caller: its kind, the roles it grants, the roles it acts under, the task it speaks for."""

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any, NamedTuple

import dpop
from claims import Path, at, said, strings, texts
from model import Caller, Denied, Fact, Identity, Reason

KINDS = ("workload", "human", "agent")
_ITSELF = {kind: kind for kind in KINDS}
LISTS = frozenset({"tags", "owners"})  # of them, those that are several texts
WORKLOAD = (
    *("dag", "task", "run", "try", "map_index", "tags", "environment"),
    *("run_type", "triggered_by", "owners", "dag_bundle", "session"),  # these no header says
)
MOST_ROLES = 32  # in one role tag
MOST_TAGS = 64
LONGEST = 256  # characters of a workload value
LONGEST_SUBJECT = 512  # characters
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
_NOWHERE: frozenset[str] = frozenset()
SUBJECT = None
KIND = ()
SCOPE = ("scope",)

_SINGLE = frozenset({"dag", "task", "try", "map_index", "environment"})
SAID = ("airgate-role", *_HEADERS.values())  # every header that act() reads
_ROLE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Shared(frozenset[str]):
    """Roles that are unknown to all tokens without the same claims: held once for all of them."""


@lru_cache(16)
def _shared(roles: frozenset[str]) -> Shared:
    return Shared(roles)


class Grant(NamedTuple):
    """One way to a role: a claim that is, or holds, a value; a scope; the caller's kind; an exact subject."""

    role: str
    claim: Path | None  # SUBJECT, KIND, SCOPE or a claim's path
    value: str


class Mapping(NamedTuple):
    """How one issuer's claims are read."""

    id: str
    kind_claim: Path | None
    kind_default: str
    attested: tuple[tuple[str, Path], ...]  # by workload field
    grants: tuple[Grant, ...]
    claims: tuple[Path, ...] = ()  # those that policies ask for
    kind_values: dict[str, str] = {}  # noqa: RUF012  kinds by what the claim says; empty: it says the kind itself
    must_tag: bool = False  # callers have to say which roles they act under
    truncates: tuple[
        tuple[Path, int], ...
    ] = ()  # lists that the issuer cuts silently, and how long they are then


def _attested(field: str, value: Any) -> Fact:
    if field in LISTS:
        return Fact(strings(value), True)
    if isinstance(value, bool) or not isinstance(value, str | int) or not 0 < len(str(value)) <= LONGEST:
        raise Denied(Reason.TOKEN_CLAIMS, f"the attested {field} is not a short string")
    return Fact(str(value), True)


def _elsewhere(claims: dict[str, Any], mapping: Mapping) -> frozenset[str]:
    """The claims of which the token says that they are to be fetched. Raises Denied `token.incomplete`.

    What is not in the token must not open a forbid. Entra leaves long lists out and says where they are: `_claim_names`
    (OpenID Connect Core §5.6.2), or `hasgroups`; an address in a token is never called. Okta just cuts them.
    """
    named = claims.get("_claim_names")
    elsewhere = frozenset(named) if isinstance(named, dict) else _NOWHERE
    if claims.get("hasgroups"):
        elsewhere |= {"groups"}
    if elsewhere:
        read = [path for grant in mapping.grants if (path := grant.claim)]
        read += [path for _, path in mapping.attested] + [mapping.kind_claim or ("",)]
        if missing := sorted({path[0] for path in read} & elsewhere):
            raise Denied(Reason.TOKEN_INCOMPLETE, f"{missing[0]!r:.80} is not in it")
    for path, longest in mapping.truncates:
        value = said(claims, path)
        if isinstance(value, list) and len(value) >= longest:
            raise Denied(
                Reason.TOKEN_INCOMPLETE, f"{'.'.join(path)} holds {len(value)}: it may have been cut"
            )
    return elsewhere


def _kind(claims: dict[str, Any], mapping: Mapping) -> str:
    claimed = at(claims, mapping.kind_claim) if mapping.kind_claim is not None else None
    if claimed is None:
        return mapping.kind_default
    known = mapping.kind_values or _ITSELF
    if not isinstance(claimed, str) or claimed not in known:
        raise Denied(Reason.TOKEN_CLAIMS, "kind is not one of " + ", ".join(known))
    return known[claimed]


def _actor(claims: dict[str, Any]) -> tuple[str | None, str | None]:
    """Who acts for the subject, and whose name that is (RFC 8693 §4.1). Without `iss` it is the token's issuer's.

    Earlier actors, nested in it, have no part in what is allowed.
    """
    if "act" not in claims:
        return None, None
    actor = at(claims, ("act", "sub"))
    if not isinstance(actor, str) or not 0 < len(actor) <= LONGEST_SUBJECT:
        raise Denied(Reason.TOKEN_CLAIMS, "act names nobody")
    issuer = at(claims, ("act", "iss"))
    if issuer is None:
        return actor, claims.get("iss")
    if not isinstance(issuer, str) or not 0 < len(issuer) <= LONGEST_SUBJECT:
        raise Denied(Reason.TOKEN_CLAIMS, "act.iss is not a short text")
    return actor, issuer


def identify(claims: dict[str, Any], subject: str, mapping: Mapping) -> Identity:
    """Read a verified token's claims by its issuer's mapping. Raises Denied `token.claims`, `token.incomplete`."""
    elsewhere = _elsewhere(claims, mapping)
    kind = _kind(claims, mapping)
    held: dict[Path | None, Collection[str] | None] = {SUBJECT: (subject,), KIND: (kind,)}
    granted, unknown = set(), set()
    for role, claim, wanted in mapping.grants:
        if claim in held:
            values = held[claim]
        else:
            value = said(claims, claim or ())
            values = held[claim] = None if value is None else frozenset(strings(value))
        if values is None:
            unknown.add(role)
        elif wanted in values:
            granted.add(role)
    attested = {
        field: _attested(field, value)
        for field, path in mapping.attested
        if (value := at(claims, path)) is not None
    }
    asked = {
        path: found
        for path in mapping.claims
        if path[0] not in elsewhere
        and (value := said(claims, path)) is not None
        and (found := texts(value)) is not None
    }
    actor, actor_issuer = _actor(claims)
    return Identity(
        mapping.id,
        subject,
        kind,
        frozenset(granted),
        attested,
        frozenset(unknown - granted) if unknown & granted else _shared(frozenset(unknown)),
        asked,
        dpop.confirmed(claims),
        actor,
        mapping.must_tag,
        token_id=_token_id(claims),
        session=_session(claims),
        actor_issuer=actor_issuer,
    )


def _token_id(claims: dict[str, Any]) -> str | None:
    value = claims.get("jti")
    return value if isinstance(value, str) and 0 < len(value) <= LONGEST_SUBJECT else None


def _session(claims: dict[str, Any]) -> str | None:
    """What ends with the token, where it says so. One that could not be told to have ended is refused."""
    value = claims.get("sid")
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST or not value.isprintable():
        raise Denied(Reason.TOKEN_CLAIMS, "sid is not a short text")
    return value


def asserted(headers: dict[str, str]) -> dict[str, Fact]:
    """The context that a request's headers assert. Raises Denied `request.header_invalid`."""
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
    token's claims wins over the header of the same name; context from headers is only what the caller says. A gate
    token has its roles and its context with it: a tag narrows them further, and headers with context say nothing.
    """
    tagged: tuple[str, ...] | None = None
    granted = effective = identity.granted
    exchanged = identity.exchanged
    if exchanged is not None:  # as if its roles were named in every request
        granted = effective = granted & exchanged.roles
        tagged = tuple(sorted(effective))
    if (tag := headers.get("airgate-role")) is not None:
        if len(tag) > LONGEST_HEADER:
            raise Denied(Reason.ROLE_MALFORMED)
        tagged = tuple(role.strip(" ") for role in tag.split(","))
        if len(tagged) > MOST_ROLES or not all(_ROLE.fullmatch(role) for role in tagged):
            raise Denied(Reason.ROLE_MALFORMED)
        effective = frozenset(tagged)
        if not effective <= granted:
            raise Denied(Reason.ROLE_NOT_GRANTED, ", ".join(sorted(effective - granted))[:200])
    workload = asserted(headers) if exchanged is None else {**exchanged.workload}
    if identity.attested:
        workload |= identity.attested
    return Caller(identity, tagged, effective, workload)
