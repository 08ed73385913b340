"""The gate's signed statement to an upstream: who calls, acting as what, for which task, permitted by which policy.

A JWT in `Airgate-Assertion`, for one call to one upstream and for at most a minute (docs/assertion.md). It is on the
path of every call to an upstream that wants it, so what doesn't change is made once, and the rest is written out field
by field. Nothing is cut short that names somebody: two callers could have one name then.
"""

import json
from base64 import urlsafe_b64encode
from json.encoder import encode_basestring_ascii as _quote
from typing import Any, NamedTuple, Protocol

from document import Work, read_object
from keys import Key, fetchable, read_key
from model import Caller, Decision, Denied, Fact, Identity, Reason
from signing import MAX_KID, SigningKey, base64url, compact, public_jwk, read_private

SECRET = "ASSERTION_KEYS"
HEADER = "airgate-assertion"
JWKS = "/-/jwks.json"
TYPE = "airgate-assertion+jwt"  # RFC 8725 §3.11: or it could be taken for another kind of token
LIFE = 60  # seconds
LIMIT = 65_536  # characters of the secret
WORK = Work(strings=512, names=256, structure=2048, escapes=256)
MOST_KEYS = 8
MOST_ROLES = 100
MOST_POLICIES = 16
LONGEST = 512  # characters of a subject, an actor, an actor's issuer
LONGEST_FACT = 256  # characters of a DAG, a task, a run
FACTS = ("dag", "task", "run")

_ALGORITHMS = frozenset({"ES256", "EdDSA"})


class Sign(Protocol):
    """Signs by a private key; raises Denied or ValueError."""

    async def __call__(self, key: SigningKey, data: bytes) -> bytes: ...


class AssertionKeys(NamedTuple):
    """What the gate signs with, and what it publishes."""

    issuer: str
    key: SigningKey  # the first private one
    head: bytes  # the header of everything it signs, encoded, and a dot
    jwks: str  # the document at JWKS: every public key
    public: tuple[Key, ...]  # the same, as they verify


def read_keys(text: str) -> AssertionKeys:
    """The keys in the secret's text: {"issuer": ..., "keys": [JWK, ...]}, newest first, old ones may be public only.

    ValueError says what is wrong, never what is there.
    """
    try:
        members = read_object(text, limit=LIMIT, depth=4, work=WORK)
    except ValueError:  # some of its messages hold a part of the text
        raise ValueError("not a JSON object that can be read") from None
    issuer, jwks = members.get("issuer"), members.get("keys")
    try:
        fetchable(issuer)
    except ValueError:
        raise ValueError("issuer is not an https address") from None
    if not isinstance(jwks, list) or not 0 < len(jwks) <= MOST_KEYS:
        raise ValueError(f"keys is not a list of 1 to {MOST_KEYS}")
    signer: SigningKey | None = None
    published, verifying = [], []
    for number, jwk in enumerate(jwks):
        try:
            kid, algorithm, public, private = _read(jwk)
        except ValueError as error:
            raise ValueError(f"keys[{number}]: {error}") from None
        published.append(public_jwk(public.jwk, algorithm, kid))
        verifying.append(read_key(published[-1]))
        signer = signer or private
    if signer is None:
        raise ValueError("no key is private")
    if len({jwk["kid"] for jwk in published}) < len(published):
        raise ValueError("two keys have the same kid")
    header = {"alg": signer.algorithm, "kid": signer.kid, "typ": TYPE}
    head = base64url(json.dumps(header, separators=(",", ":")).encode("ascii")).encode("ascii") + b"."
    jwks = json.dumps({"keys": published}, separators=(",", ":"))
    return AssertionKeys(str(issuer), signer, head, jwks, tuple(verifying))


def _read(jwk: Any) -> tuple[str, str, Key, SigningKey | None]:
    """Id, algorithm and public key of a JWK, and the private one if it has that. Raises ValueError."""
    kid = jwk.get("kid") if isinstance(jwk, dict) else None
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID:
        raise ValueError(f"kid is not a string of 1 to {MAX_KID} characters")
    if "d" in jwk:
        private = read_private(jwk)
        algorithm, public = private.algorithm, read_key(private.public)
    else:
        private, public = None, read_key(jwk)
        algorithm = min(public.algorithms)
    if algorithm not in _ALGORITHMS:
        raise ValueError("neither P-256 nor Ed25519")
    return kid, algorithm, public, private


def _bounded(text: str, longest: int) -> str:
    if len(text) > longest:
        raise Denied(Reason.UPSTREAM_CREDENTIAL, "the caller's name or task is too long for an assertion")
    return _quote(text)


def _texts(values: tuple[str, ...] | list[str], most: int) -> str:
    return "[" + ",".join([_bounded(value, LONGEST) for value in values[:most]]) + "]"


def _actors(identity: Identity) -> str:
    """Who acts for the subject (RFC 8693 §4.1), and inside of it who did before, by the word of the subject's issuer.

    `sub` alone names nobody: actor and subject may have different issuers.
    """
    if identity.actor is None:
        return ""
    exchanged = identity.exchanged
    earlier = _actors(exchanged.alone[0][1].identity) if exchanged is not None and exchanged.alone else ""
    issuer = f'"iss":{_bounded(identity.actor_issuer, LONGEST)},' if identity.actor_issuer is not None else ""
    return f',"act":{{{issuer}"sub":{_bounded(identity.actor, LONGEST)}{earlier}}}'


def _fact(name: str, fact: Fact) -> str:
    value = (
        _bounded(fact.value, LONGEST_FACT) if isinstance(fact.value, str) else _texts(fact.value, MOST_ROLES)
    )
    return f',"{name}":{{"value":{value},"attested":{"true" if fact.attested else "false"}}}'


def claims(
    keys: AssertionKeys, caller: Caller, decision: Decision, upstream: str, request_id: str, now: float
) -> str:
    """The claims of one call, as the text that is signed. Raises Denied."""
    identity, issued = caller.identity, int(now)
    facts = "".join([_fact(name, fact) for name in FACTS if (fact := caller.workload.get(name)) is not None])
    more = ',"more_roles":true' if len(caller.effective) > MOST_ROLES else ""
    return (
        f'{{"iss":{_quote(keys.issuer)},"aud":{_quote(upstream)},"sub":{_bounded(identity.subject, LONGEST)}'
        f'{_actors(identity)},"iat":{issued},"exp":{issued + LIFE},"jti":{_bounded(request_id, LONGEST)}'
        f',"airgate":{{"issuer":{_quote(identity.issuer)},"kind":{_quote(identity.kind)}'
        f',"roles":{_texts(sorted(caller.effective), MOST_ROLES)}{more}{facts}'
        f',"policy":{_texts(decision.permits, MOST_POLICIES)},"bundle":{_quote(decision.bundle)}}}}}'
    )


async def assertion(
    keys: AssertionKeys,
    caller: Caller,
    decision: Decision,
    upstream: str,
    request_id: str,
    now: float,
    sign: Sign,
) -> str:
    """The assertion for one call. `upstream`: its name here. Raises Denied, and what `sign` raises."""
    text = claims(keys, caller, decision, upstream, request_id, now)
    signed = keys.head + urlsafe_b64encode(text.encode("ascii")).rstrip(b"=")
    return compact(signed, await sign(keys.key, signed))
