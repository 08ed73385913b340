"""Access tokens: strict parsing (RFC 7515, RFC 8725) and claim validation (RFC 7519, RFC 9068).

The order keeps refusals cheap and safe: length, characters, depth, strict JSON, issuer, key, signature, claims.
Nothing of a token is believed before its signature has been checked, except which issuer to ask for keys.
"""

import re
from binascii import a2b_base64
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from claims import Path, said, texts
from document import Work, read_object
from model import Denied, Reason

MAX_TOKEN = 8192  # characters
MAX_HEADER = 1024  # characters of its first part
MAX_TEXT = 512  # characters of a claim that names somebody
MAX_TIME = 2**53  # a NumericDate past this is a mistake or an attack

WORK = Work(strings=640, names=128, structure=512, escapes=640)  # in its header, and in its claims

_BASE64URL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_STANDARD = bytes.maketrans(b"-_", b"+/")
# RFC 4648 §3.5, by the length of a part modulo 4: the padding, and which letters may be the last: unused bits are zero.
_PADDING = (b"", b"", b"==", b"=")
_LAST = (_BASE64URL, b"", b"AQgw", b"AEIMQUYcgkosw048")
# Parameters that would change what is signed or name a key of the sender's choice.
_HEADER_REFUSED = frozenset({"b64", "crit", "enc", "jku", "jwk", "x5c", "x5u", "zip"})

# What may be a JWS, wherever it stands. Each place is looked at once: nothing is given back, or begins inside a word.
_COMPACT = re.compile(r"(?<![\w-])[\w-]++\.[\w-]++\.[\w-]++", re.ASCII)

_ACCESS_TOKEN = frozenset({"at+jwt", "application/at+jwt"})
_PLAIN = frozenset({None, "jwt", "application/jwt"})
# What a plain JWT is for, where its header does not say. Only ID tokens have these claims (OpenID Connect Core §2,
# §3.3.2.11); only security events, logout tokens among them, have `events` (RFC 8417 §2.2).
_ID_TOKEN_CLAIMS = frozenset({"at_hash", "c_hash", "nonce", "s_hash"})
# Keycloak writes what a token is for into the claim `typ`, Cognito into `token_use`.
_PURPOSES = ("typ", "token_use")
_FOR_LOGIN = frozenset({"id"})
_FOR_ACCESS = frozenset({"access", "bearer", "dpop"})
_FOR_NEITHER = frozenset({"logout", "offline", "refresh"})


class Jws(NamedTuple):
    """A compact JWS that is well formed. Nothing of it is believed yet."""

    algorithm: str
    kid: str | None
    type: str | None  # lower case
    payload: bytes
    signed: bytes  # what the signature covers
    signature: bytes


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
    type: str  # "at+jwt": RFC 9068 is promised; "any": a plain JWT will do, no ID token; "id_token": nothing else
    max_lifetime: int  # seconds from iat to exp
    clock_skew: int  # seconds
    authorized_parties: frozenset[str] = frozenset()  # clients whose tokens may be meant for others as well
    require: tuple[
        tuple[Path, frozenset[str]], ...
    ] = ()  # claims, and the values of which each must have one


def presented(headers: dict[str, str]) -> tuple[str, str]:
    """The token that names the caller, and the scheme it came under: `bearer`, `dpop`, or none in `Airgate-Token`.

    `Airgate-Token`, else the credential of `Authorization` (RFC 6750 §2.1, RFC 9449 §7.1). Raises Denied
    `token.missing`, and `token.malformed` for one that is too long to be looked at.
    """
    token, scheme = headers.get("airgate-token"), ""
    if token is None:
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        scheme = scheme.lower()
        if scheme not in ("bearer", "dpop") or not credential:
            raise Denied(Reason.TOKEN_MISSING)
        token = credential.strip(" ")
    return _refuse_long(token), scheme


def own(headers: dict[str, str]) -> str | None:
    """The caller's own `Authorization`, which is not the one that names the caller here; None when there is none."""
    return headers.get("authorization") if "airgate-token" in headers else None


def _refuse_long(token: str) -> str:
    if len(token) > MAX_TOKEN:
        raise Denied(Reason.TOKEN_MALFORMED, f"longer than {MAX_TOKEN} characters")
    return token


def _octets(part: bytes) -> bytes:
    """What a part says. Its characters have been looked at, and are those of plain base64 by now."""
    tail = len(part) % 4
    if tail and part[-1] not in _LAST[tail]:
        raise Denied(Reason.TOKEN_MALFORMED, "not canonical base64url")
    return a2b_base64(part + _PADDING[tail])


@lru_cache(maxsize=64)
def _header(part: bytes) -> tuple[str, str | None, str | None]:
    """Algorithm, kid and type. An issuer writes the same header on all of its tokens, so it is read once."""
    try:
        header = read_object(_octets(part), limit=MAX_TOKEN, work=WORK)
    except ValueError as error:
        raise Denied(Reason.TOKEN_MALFORMED, str(error)) from None
    if not _HEADER_REFUSED.isdisjoint(header):
        raise Denied(Reason.TOKEN_MALFORMED, "a header parameter that is never accepted")
    algorithm, kid, type_ = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str):
        raise Denied(Reason.TOKEN_ALGORITHM, "no algorithm")
    if kid is not None and (not isinstance(kid, str) or len(kid) > 256):
        raise Denied(Reason.TOKEN_MALFORMED, "kid is not a short string")
    if type_ is not None and not isinstance(type_, str):
        raise Denied(Reason.TOKEN_TYPE, "typ is not a string")
    return algorithm, kid, None if type_ is None else type_.lower()


def read_jws(token: str) -> Jws:
    """Split a compact JWS and read its header (RFC 7515 §5.2). Raises Denied; looks nothing up, believes nothing."""
    octets = token.encode("ascii") if _refuse_long(token).isascii() else b""
    if octets.translate(None, _BASE64URL) != b"..":
        raise Denied(Reason.TOKEN_MALFORMED, "not three parts of base64url")
    first, middle, last = octets.translate(_STANDARD).split(b".")
    # RFC 7515 §3.1: an empty payload is a JWS, if no JWT; an empty signature is nothing.
    if not first or not last:
        raise Denied(Reason.TOKEN_MALFORMED, "no header, or no signature")
    if len(first) > MAX_HEADER:
        raise Denied(Reason.TOKEN_MALFORMED, f"a header of more than {MAX_HEADER} characters")
    payload, signature = _octets(middle), _octets(last)
    algorithm, kid, type_ = _header(first)
    return Jws(algorithm, kid, type_, payload, octets[: -len(last) - 1], signature)


def parse(token: str) -> Unverified:
    """Read a JWT (RFC 7519 §7.2) as far as that is possible without its key. Raises Denied; believes nothing."""
    jws = read_jws(token)
    try:
        claims = read_object(jws.payload, limit=MAX_TOKEN, work=WORK)
    except ValueError as error:
        raise Denied(Reason.TOKEN_MALFORMED, str(error)) from None
    issuer = claims.get("iss")
    if not isinstance(issuer, str):
        raise Denied(Reason.TOKEN_ISSUER, "no issuer")
    return Unverified(jws.algorithm, jws.kid, jws.type, issuer, claims, jws.signed, jws.signature)


def _time(claims: dict[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value: Any = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_TIME:
        raise Denied(Reason.TOKEN_CLAIMS, f"{name} is not a NumericDate")
    return value


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT:
        raise Denied(Reason.TOKEN_CLAIMS, f"{name} is missing or not a short string")
    return value


def _refuse_type(token: Unverified, rules: Rules) -> None:
    """Whether it is the kind of token that the issuer's are to be (RFC 8725 §3.11, RFC 9068 §4)."""
    if token.type in _ACCESS_TOKEN:
        accepted = rules.type != "id_token"
    elif rules.type == "at+jwt" or token.type not in _PLAIN:
        accepted = False
    else:
        claims = token.claims
        said = [claims.get(name) for name in _PURPOSES]
        purposes = {purpose.lower() for purpose in said if isinstance(purpose, str)}
        if rules.type == "id_token":
            accepted = _FOR_ACCESS.isdisjoint(purposes)
        else:
            accepted = _FOR_LOGIN.isdisjoint(purposes) and _ID_TOKEN_CLAIMS.isdisjoint(claims)
        accepted = accepted and _FOR_NEITHER.isdisjoint(purposes) and "events" not in claims
    if not accepted:
        raise Denied(Reason.TOKEN_TYPE, f"typ {token.type!r:.40}, which is not what type {rules.type} takes")


def _refuse_audience(claims: dict[str, Any], rules: Rules) -> None:
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not all([isinstance(item, str) for item in audiences]):
        raise Denied(Reason.TOKEN_AUDIENCE, "aud is missing or not strings")
    if rules.audiences.isdisjoint(audiences):
        raise Denied(Reason.TOKEN_AUDIENCE, "meant for somebody else")
    if not rules.audiences.issuperset(audiences):
        # Each of the others could send it on to us: the client must be one that is known not to give it to them.
        # RFC 9068 §2.2 and RFC 8693 §4.3 say client_id where OpenID Connect Core §2 says azp.
        party = claims.get("azp", claims.get("client_id"))
        if not isinstance(party, str) or party not in rules.authorized_parties:
            raise Denied(Reason.TOKEN_AUDIENCE, "meant for others as well, and not from an authorized party")


def for_gate(text: str, rules: Callable[[str], Rules | None]) -> bool:
    """Whether a header's value holds a token for this gate, or is too long to be looked at. `rules` by exact iss."""
    if len(text) > 2 * MAX_TOKEN:
        return True
    for found in _COMPACT.finditer(text):
        try:
            token = parse(found[0])
        except Denied:
            continue
        known = rules(token.issuer)
        audience = token.claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if known is not None and any(
            [item in known.audiences for item in audiences if isinstance(item, str)]
        ):
            return True
    return False


def refuse_others(claims: dict[str, Any], rules: Rules) -> None:
    """Refuse tokens that the issuer gives to people who are nobody here: another tenant's, another domain's."""
    for path, accepted in rules.require:
        found = texts(said(claims, path))
        if found is None or accepted.isdisjoint(found):
            raise Denied(Reason.TOKEN_CLAIMS, f"{'.'.join(path)} is not one that is required")


def validate(token: Unverified, rules: Rules, now: float) -> tuple[str, float]:
    """Check a token whose signature holds. Returns its subject and the end of its life (seconds since the epoch)."""
    claims = token.claims
    _refuse_type(token, rules)
    _refuse_audience(claims, rules)
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
    if rules.type != "any" and issued is None:  # OpenID Connect Core §2 asks for it too
        raise Denied(Reason.TOKEN_CLAIMS, "iat is missing")
    subject = _text(claims, "sub")
    refuse_others(claims, rules)
    return subject, end
