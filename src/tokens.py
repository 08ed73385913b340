"""Access tokens: strict parsing (RFC 7515, RFC 8725) and claim validation (RFC 7519, RFC 9068).

The order keeps refusals cheap and safe: length, characters, depth, strict JSON, issuer, key, signature, claims.
Nothing of a token is believed before its signature has been checked, except which issuer to ask for keys.
"""

import re
from typing import Any, NamedTuple

from document import read_base64url, read_object
from model import Denied, Reason

MAX_TOKEN = 8192  # characters
MAX_TIME = 2**53  # a NumericDate past this is a mistake or an attack

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# Parameters that would change what is signed or name a key of the sender's choice.
_HEADER_REFUSED = frozenset({"b64", "crit", "enc", "jku", "jwk", "x5c", "x5u", "zip"})
_ACCESS_TOKEN = frozenset({"at+jwt", "application/at+jwt"})
_PLAIN = frozenset({"jwt", "application/jwt"}) | _ACCESS_TOKEN


class Unverified(NamedTuple):
    """A token that is well formed. Its claims are not yet believed."""

    algorithm: str
    kid: str | None
    type: str | None  # lower case
    issuer: str
    claims: dict[str, Any]
    signed: bytes  # what the signature covers
    signature: bytes


class Rules(NamedTuple):
    """What one issuer's tokens must look like."""

    audiences: frozenset[str]
    algorithms: frozenset[str]
    type: str  # "at+jwt": RFC 9068 is promised; "any": a plain JWT will do
    max_lifetime: int  # seconds from iat to exp
    clock_skew: int  # seconds


def bearer(headers: dict[str, str]) -> str:
    """The token that names the caller: `Airgate-Token`, else the Bearer of `Authorization` (RFC 6750 §2.1)."""
    own = headers.get("airgate-token")
    if own is not None:
        return own
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not credential:
        raise Denied(Reason.TOKEN_MISSING)
    return credential.strip(" ")


def parse(token: str) -> Unverified:
    """Split and read a compact JWS (RFC 7515 §3.1). Raises Denied; looks nothing up and believes nothing."""
    if len(token) > MAX_TOKEN:
        raise Denied(Reason.TOKEN_MALFORMED, f"longer than {MAX_TOKEN} characters")
    if _COMPACT.fullmatch(token) is None:
        raise Denied(Reason.TOKEN_MALFORMED, "not three parts of base64url")
    signed, _, last = token.rpartition(".")
    first, _, middle = signed.partition(".")
    try:
        header = read_object(read_base64url(first), limit=MAX_TOKEN)
        claims = read_object(read_base64url(middle), limit=MAX_TOKEN)
        signature = read_base64url(last)
    except ValueError as error:
        raise Denied(Reason.TOKEN_MALFORMED, str(error)) from None
    if not _HEADER_REFUSED.isdisjoint(header):
        raise Denied(Reason.TOKEN_MALFORMED, "a header parameter that is never accepted")
    algorithm, kid, type_, issuer = header.get("alg"), header.get("kid"), header.get("typ"), claims.get("iss")
    if not isinstance(algorithm, str):
        raise Denied(Reason.TOKEN_ALGORITHM, "no algorithm")
    if kid is not None and (not isinstance(kid, str) or len(kid) > 256):
        raise Denied(Reason.TOKEN_MALFORMED, "kid is not a short string")
    if type_ is not None and not isinstance(type_, str):
        raise Denied(Reason.TOKEN_TYPE, "typ is not a string")
    if not isinstance(issuer, str):
        raise Denied(Reason.TOKEN_ISSUER, "no issuer")
    return Unverified(
        algorithm, kid, type_.lower() if type_ else None, issuer, claims, signed.encode("ascii"), signature
    )


def _time(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_TIME:
        raise Denied(Reason.TOKEN_CLAIMS, f"{name} is not a NumericDate")
    return value


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value or len(value) > 512:
        raise Denied(Reason.TOKEN_CLAIMS, f"{name} is missing or not a short string")
    return value


def validate(token: Unverified, rules: Rules, now: float) -> tuple[str, float]:
    """Check a token whose signature holds. Returns its subject and the end of its life (seconds since the epoch)."""
    claims = token.claims
    if token.type not in _ACCESS_TOKEN and (rules.type == "at+jwt" or token.type not in _PLAIN | {None}):
        raise Denied(Reason.TOKEN_TYPE, f"typ {token.type!r:.40}")
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not all(isinstance(item, str) for item in audiences):
        raise Denied(Reason.TOKEN_AUDIENCE, "aud is missing or not strings")
    if rules.audiences.isdisjoint(audiences):
        raise Denied(Reason.TOKEN_AUDIENCE, "meant for somebody else")
    expires, begins, issued = _time(claims, "exp"), _time(claims, "nbf"), _time(claims, "iat")
    if expires is None:
        raise Denied(Reason.TOKEN_CLAIMS, "exp is missing")
    end = expires + rules.clock_skew
    if now >= end:
        raise Denied(Reason.TOKEN_EXPIRED, f"{now - expires:.0f} s ago")
    if begins is not None and begins > now + rules.clock_skew:
        raise Denied(Reason.TOKEN_NOT_YET_VALID, f"in {begins - now:.0f} s")
    if issued is not None and issued > now + rules.clock_skew:
        raise Denied(Reason.TOKEN_NOT_YET_VALID, f"issued in {issued - now:.0f} s")
    # Without iat the lifetime is counted from now: what is left of it must not pass the cap either.
    if expires - (issued if issued is not None else now) > rules.max_lifetime:
        raise Denied(Reason.TOKEN_LIFETIME, f"over {rules.max_lifetime} s")
    if rules.type == "at+jwt":  # RFC 9068 §2.2
        _text(claims, "client_id")
        _text(claims, "jti")
        if issued is None:
            raise Denied(Reason.TOKEN_CLAIMS, "iat is missing")
    return _text(claims, "sub"), end
