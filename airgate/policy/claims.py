"""The claims of a token that says what a request describes: its roles, its kind, its context."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from airgate.engine import KIND, LISTS, SCOPE, Grant, Issuer, claim_at
from airgate.policy.bounds import THUMBPRINT
from airgate.policy.callers import ACTOR, JKT, PLACES
from airgate.policy.request import Flaw, InvalidRequest, Request, no_such
from airgate.policy.seed import either, quoted

Settled = Mapping[tuple[str, ...] | None, str]  # what a caller is already, by the claim of a grant


def claims_of(request: Request, issuer: Issuer, known: frozenset[str]) -> tuple[str, dict[str, Any]]:
    """The subject, and the claims as the issuer would write them. `known`: all roles. Raises InvalidRequest."""
    subject = request.subject or _holder(issuer, request.roles or ()) or "somebody"
    claims: dict[str, Any] = {}
    flaws: list[Flaw] = []
    caller: dict[tuple[str, ...] | None, str] = {None: subject, KIND: _kind(request, issuer)}
    if request.actor is not None:
        caller[PLACES[ACTOR]] = request.actor
        _put(claims, PLACES[ACTOR], request.actor)
    facts = {path: name for name, path in issuer.mapping.attested if name not in LISTS}
    caller |= {path: str(request.workload[name]) for path, name in facts.items() if name in request.attested}
    single = frozenset({*PLACES.values(), *facts})
    roles = request.roles
    if roles is None and request.claims is None:
        roles = ()
    if roles is not None:
        flaws += _put_roles(claims, roles, caller, issuer, known, single)
    if issuer.dpop == "required" if request.dpop is None else request.dpop:
        _put(claims, PLACES[JKT], THUMBPRINT)
    flaws += _put_kind(claims, request.kind, issuer)
    flaws += _put_context(claims, request, issuer)
    if flaws:
        raise InvalidRequest(*flaws)
    return subject, _merged(claims, request.claims or {})


def _holder(issuer: Issuer, roles: tuple[str, ...]) -> str | None:
    """The subject that a role is granted to, when there's no other way to hold it."""
    for role in roles:
        grants = [grant for grant in issuer.mapping.grants if grant.role == role]
        if grants and all(grant.claim is None for grant in grants):
            return grants[0].value
    return None


def _kind(request: Request, issuer: Issuer) -> str:
    """What the token will say."""
    said = claim_at(dict(request.claims or {}), issuer.mapping.kind_claim or ("",))
    if said is not None:
        return issuer.mapping.kind_values.get(str(said), str(said))
    return request.kind or issuer.mapping.kind_default


def _put_roles(
    claims: dict[str, Any],
    roles: tuple[str, ...],
    caller: Settled,
    issuer: Issuer,
    known: frozenset[str],
    single: frozenset[tuple[str, ...]],
) -> list[Flaw]:
    """Every claim that grants roles, so that a role that isn't asked for is known not to be held.

    `single`: claims that are one text or not there.
    """
    flaws = []
    held: dict[tuple[str, ...], list[str]] = {
        path: [] for grant in issuer.mapping.grants if (path := grant.claim)
    }
    for number, role in enumerate(roles):
        try:
            grant = _grant(role, frozenset(roles), caller, issuer, known)
        except ValueError as error:
            flaws.append(Flaw(("roles", number), str(error)))
            continue
        if grant.claim and grant.value not in held[grant.claim]:
            held[grant.claim].append(grant.value)
    # First those that have to hold something: where one claim is within another, only one of them can be there.
    for path, values in sorted(held.items(), key=lambda item: (not item[1], item[0])):
        if path == SCOPE:
            _put(claims, path, " ".join(values))
        elif path not in single:
            _put(claims, path, values)
        elif values:
            _put(claims, path, values[0])
    return flaws


def _grant(
    role: str, wanted: frozenset[str], caller: Settled, issuer: Issuer, known: frozenset[str]
) -> Grant:
    """The way to a role that brings the fewest others along. Raises ValueError."""
    mapping = issuer.mapping
    if role not in known:
        raise ValueError(no_such("role", role, known))
    grants = [grant for grant in mapping.grants if grant.role == role]
    for grant in grants:
        if grant.value == caller.get(grant.claim):
            return grant
    by_claim = [grant for grant in grants if grant.claim not in caller]
    if by_claim:
        return min(by_claim, key=lambda grant: len(_granted_with(grant, mapping.grants) - wanted))
    if grants:
        subjects = [grant.value for grant in grants if grant.claim is None]
        kinds = [grant.value for grant in grants if grant.claim == KIND]
        whom = [f"the subject {either(subjects)}"] if subjects else []
        whom += [f"callers of kind {either(kinds)}"] if kinds else []
        actors = [grant.value for grant in grants if grant.claim]
        whom += [f"those for whom {either(actors)} acts"] if actors else []
        raise ValueError(f"{quoted(role)}: issuer {mapping.id} grants it to {' and '.join(whom)} only")
    others = ", ".join(sorted({grant.role for grant in mapping.grants})) or "none"
    raise ValueError(f"{quoted(role)}: issuer {mapping.id} grants it to nobody; it grants {others}")


def _granted_with(one: Grant, grants: tuple[Grant, ...]) -> set[str]:
    return {grant.role for grant in grants if (grant.claim, grant.value) == (one.claim, one.value)}


def _put_kind(claims: dict[str, Any], kind: str | None, issuer: Issuer) -> list[Flaw]:
    mapping = issuer.mapping
    if kind is None or (mapping.kind_claim is None and kind == mapping.kind_default):
        return []
    values = sorted(value for value, meant in mapping.kind_values.items() if meant == kind)
    if mapping.kind_claim is not None and (values or not mapping.kind_values):
        _put(claims, mapping.kind_claim, values[0] if values else kind)
        return []
    if kind == mapping.kind_default:
        return []
    kinds = either(sorted({*mapping.kind_values.values(), mapping.kind_default}))
    return [Flaw(("kind",), f"{quoted(kind)}: every caller of issuer {mapping.id} is of kind {kinds}")]


def _put_context(claims: dict[str, Any], request: Request, issuer: Issuer) -> list[Flaw]:
    flaws = []
    attesting = dict(issuer.mapping.attested)
    for name in sorted(request.attested):
        if name in attesting:
            _put(claims, attesting[name], request.workload[name])
            continue
        known = f"it attests {', '.join(sorted(attesting))}" if attesting else "it attests nothing"
        text = f"{quoted(name)}: no claim of issuer {issuer.mapping.id} attests it; {known}"
        flaws.append(Flaw(("workload", name), text))
    return flaws


def _put(claims: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set a claim. One that is a value already can't hold others; then this one is left out."""
    for name in path[:-1]:
        inner = claims.setdefault(name, {})
        if not isinstance(inner, dict):
            return
        claims = inner
    claims.setdefault(path[-1], value)


def _merged(claims: dict[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """What is said wins over what follows from roles, kind and context."""
    merged = dict(claims)
    for name, value in said.items():
        under = merged.get(name)
        both = isinstance(under, dict) and isinstance(value, Mapping)
        merged[name] = _merged(under, value) if both and under is not None else deepcopy(value)
    return merged
