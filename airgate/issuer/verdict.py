"""What a gate would say of one token, step by step, by the gate's own code. The token itself is never shown."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from airgate.engine import (
    KINDS,
    Bundle,
    Denied,
    Identity,
    Issuer,
    Keyring,
    Reason,
    Rules,
    Unverified,
    claim_at,
    claim_said,
    claim_texts,
    identify,
    parse_token,
    validate_token,
)
from airgate.issuer.document import Documents
from airgate.issuer.signature import verify
from airgate.issuer.words import duration, listing, shown
from airgate.policy.words import nearest, several

STEPS = ("form", "issuer", "algorithm", "key", "signature", "type", "audience", "claims", "roles", "binding")
_AT = {
    Reason.TOKEN_ISSUER: "issuer",
    Reason.TOKEN_ALGORITHM: "algorithm",
    Reason.TOKEN_KEY: "key",
    Reason.ISSUER_UNAVAILABLE: "key",
    Reason.TOKEN_SIGNATURE: "signature",
    Reason.TOKEN_TYPE: "type",
    Reason.TOKEN_AUDIENCE: "audience",
    Reason.TOKEN_UNBOUND: "binding",
}


@dataclass
class Verdict:
    """How far a token came."""

    passed: dict[str, str] = field(default_factory=dict)  # what is said of each step that it passed
    refused_at: str = ""  # the step at which it was refused; empty when it is accepted
    reason: Reason | None = None
    detail: str = ""
    to_do: str = ""
    issuer: Issuer | None = None
    identity: Identity | None = None


def recognise(token: str, bundle: Bundle) -> tuple[Verdict, Unverified | None]:
    """The steps that need no key: is it a token, and whose? Nothing of it is believed yet."""
    verdict = Verdict()
    try:
        unverified = parse_token(token)
    except Denied as denied:
        return _refused(verdict, "form", denied, _form(token)), None
    kid = "no kid" if unverified.kid is None else f"kid {shown(unverified.kid)}"
    typ = "no typ" if unverified.type is None else f"typ {listing(unverified.type)}"
    verdict.passed["form"] = f"{len(token)} characters; alg {listing(unverified.algorithm)}, {kid}, {typ}"
    verdict.issuer = bundle.issuers.get(unverified.issuer)
    if verdict.issuer is None:
        unknown = Denied(Reason.TOKEN_ISSUER, f"iss is {shown(unverified.issuer)}")
        return _refused(verdict, "issuer", unknown, _whose(unverified.issuer, bundle)), None
    verdict.passed["issuer"] = f"{verdict.issuer.mapping.id}, {verdict.issuer.source.issuer}"
    return verdict, unverified


def judge(verdict: Verdict, token: Unverified, issuer: Issuer, keyring: Keyring, now: float) -> Verdict:
    """The other steps, with the issuer's keys as they were just fetched."""
    rules, step = issuer.rules, ""
    try:
        key = asyncio.run(keyring.verify(token, rules.algorithms, Documents(), verify, now))
        verdict.passed["algorithm"] = token.algorithm
        verdict.passed["key"] = f"kid {shown(key.kid)}"
        verdict.passed["signature"] = "it holds"
        subject, _ = validate_token(token, rules, now)
        _say_valid(verdict, token, now)
        step = "roles"
        verdict.identity = identity = identify(token.claims, subject, issuer.mapping)
        verdict.passed["roles"] = _roles(identity, issuer)
        if identity.jkt is None and issuer.dpop == "required":
            step = ""
            raise Denied(Reason.TOKEN_UNBOUND, "policy says dpop: required, and the token has no cnf.jkt")
        bound = f"to a key ({identity.jkt}): every call brings a proof (DPoP)"
        verdict.passed["binding"] = "none: whoever has it can use it" if identity.jkt is None else bound
    except Denied as denied:
        step = step or _AT.get(denied.reason, "claims")
        _say_before(verdict, step, token)
        return _refused(verdict, step, denied, _remedy(step, denied, token, issuer, keyring, now))
    return verdict


def _refused(verdict: Verdict, step: str, denied: Denied, to_do: str) -> Verdict:
    verdict.refused_at, verdict.reason, verdict.detail, verdict.to_do = (
        step,
        denied.reason,
        denied.detail,
        to_do,
    )
    return verdict


def _say_valid(verdict: Verdict, token: Unverified, now: float) -> None:
    claims = token.claims
    verdict.passed["type"] = f"typ {shown(token.type)}"
    verdict.passed["audience"] = listing(claims["aud"])
    left, lives = claims["exp"] - now, _lives(claims, now)
    ends = f"{duration(left)} left" if left >= 0 else f"expired {duration(left)} ago, which clock_skew bears"
    verdict.passed["claims"] = f"sub {shown(claims['sub'])}; lives {duration(lives)}, {ends}"


def _say_before(verdict: Verdict, refused_at: str, token: Unverified) -> None:
    """What is known of the steps before the one that failed."""
    said = {
        "algorithm": token.algorithm,
        "key": f"kid {shown(token.kid)}",
        "signature": "it holds",
        "type": f"typ {shown(token.type)}",
        "audience": listing(token.claims.get("aud")),
    }
    for step in STEPS[: STEPS.index(refused_at)]:
        verdict.passed.setdefault(step, said.get(step, ""))


def _roles(identity: Identity, issuer: Issuer) -> str:
    text = f"{identity.kind}; roles: {several(identity.granted)}"
    if identity.unknown:
        text += f"; not known, for the claim isn't there: {several(identity.unknown)}"
    if not issuer.mapping.grants:
        text += f". No role is granted to {issuer.mapping.id} yet"
    elif not identity.granted:
        read = {".".join(grant.claim) if grant.claim else "sub or kind" for grant in issuer.mapping.grants}
        text += f". Grants to {issuer.mapping.id} look at {several(read)}"
    if identity.attested:
        facts = [f"{name} {listing(_listed(fact.value))}" for name, fact in sorted(identity.attested.items())]
        text += "; attested: " + ", ".join(facts)
    return text


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple) else [value]


def _form(token: str) -> str:
    if token.count(".") == 4:
        return "Five parts: an encrypted token. Tell the provider not to encrypt those for the gate."
    if token.count(".") != 2:
        return "An opaque token, or another text. Ask the provider for a JWT: often by naming the audience."
    return ""


def _whose(issuer: str, bundle: Bundle) -> str:
    """Which issuer of policy was probably meant."""
    for known in bundle.issuers:
        if known.rstrip("/").lower() == issuer.rstrip("/").lower():
            return f"Policy has {shown(known)}: they differ by a slash at the end, or by capitals. Write iss as it is."
    if "sts.windows.net" in issuer or "login.microsoftonline.com" in issuer:
        other = "entra-v1" if "sts.windows.net" in issuer else "entra-v2"
        return f"Entra tokens of this version and tenant: airgate issuer add {other}. See docs/issuers.md."
    return f"Policy has: {several(bundle.issuers)}{nearest(issuer, bundle.issuers)}"


def _remedy(
    step: str, denied: Denied, token: Unverified, issuer: Issuer, keyring: Keyring, now: float
) -> str:
    rules, claims = issuer.rules, token.claims
    if step == "algorithm":
        allowed = f"Policy allows {', '.join(sorted(rules.algorithms))}."
        if token.algorithm.upper().startswith("HS"):
            return f"{allowed} HS* means a secret shared with the provider: switch it to keys of its own."
        return (
            f"{allowed} Switch the provider to one of these; or, if it is a good one, add it to algorithms."
        )
    if step == "key":
        kids = [shown(key.kid) for key in keyring.keys if token.algorithm in key.algorithms]
        return f"Keys for {token.algorithm}: {', '.join(sorted(kids)) or 'none'}."
    if step == "type":
        return _other_type(token, rules, now)
    if step == "audience":
        text = f"The token is for {listing(claims.get('aud'))}; the gate is {several(rules.audiences)}."
        if "others as well" in denied.detail:
            party = claims.get("azp", claims.get("client_id"))
            return f"{text} Its client is {shown(party)}: if that one may, add it to authorized_parties."
        return f"{text} Let the client ask for the gate's audience. Add none that is also another service's."
    if denied.reason is Reason.TOKEN_EXPIRED:
        return "Fetch a new one."
    if denied.reason is Reason.TOKEN_NOT_YET_VALID:
        return f"The provider's clock is ahead of this machine's; policy bears {rules.clock_skew} s (clock_skew)."
    if denied.reason is Reason.TOKEN_LIFETIME:
        return " ".join(_too_long(claims, rules, now))
    if step == "claims":
        return " ".join(_required(claims, rules)) or f"It has the claims {listing(sorted(claims))}."
    if denied.reason is Reason.TOKEN_INCOMPLETE:
        return (
            "Grant by something short instead: app roles, or groups that the provider filters for the gate."
        )
    if step == "roles" and issuer.mapping.kind_claim is not None and "kind" in denied.detail:
        said = shown(claim_at(claims, issuer.mapping.kind_claim))
        known = ", ".join(issuer.mapping.kind_values or KINDS)
        return f"The claim {'.'.join(issuer.mapping.kind_claim)} is {said}; it has to be {known}."
    if step == "binding":
        return "Let the client ask for its token with a DPoP proof."
    return ""


def _lives(claims: dict[str, Any], now: float) -> float:
    """Seconds from iat, or from now where there is none, to exp."""
    issued = claims.get("iat")
    ends: float = claims["exp"]
    return ends - (now if issued is None else issued)


def _too_long(claims: dict[str, Any], rules: Rules, now: float) -> Iterator[str]:
    yield f"It lives {duration(_lives(claims, now))}; max_lifetime is {duration(rules.max_lifetime)}."
    yield "Shorten it at the provider; a stolen token works until it ends."


def _required(claims: dict[str, Any], rules: Rules) -> Iterator[str]:
    """Each claim that is not as policy requires it, beside what the token has."""
    for path, accepted in rules.require:
        has = claim_said(claims, path)
        if accepted.isdisjoint(claim_texts(has) or ()):
            shows = "not there" if has is None else shown(has)
            yield f"{'.'.join(path)}: {shows}; required: {several(accepted)}."


def _other_type(token: Unverified, rules: Rules, now: float) -> str:
    """Which `type` of an issuer would take it."""
    for other in ("any", "id_token"):
        try:
            validate_token(token, rules._replace(type=other), now)
        except Denied as denied:
            if denied.reason is Reason.TOKEN_TYPE:
                continue
        if other == "id_token":
            return "It is an ID token, made for a client's login. Let the client send its access token."
        return "It isn't marked as an access token. If the provider can't mark them (typ at+jwt), write type: any."
    return "It is made for something else. Let the client send its access token."
