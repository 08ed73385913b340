"""DPoP (RFC 9449): a token that is bound to a key counts only beside a proof that the caller holds the key.

A proof is a JWT that the caller signs for one request: where it goes (`htm`, `htu`), when (`iat`), beside which token
(`ath`), and once (`jti`). All of that is checked before the signature, and the signature before the proof is used up,
so nobody without the key can use up its proofs or fill the memory of them. A nonce is neither asked for nor given.
"""

import json
import math
import re
from base64 import urlsafe_b64encode
from contextlib import suppress
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

import escapes
from document import Work, read_base64url, read_object
from keys import ALGORITHMS as _SIGNED_BY
from keys import Key, read_key
from model import Denied, Reason

MAX_PROOF = 4096  # characters
MAX_JTI = 256  # characters
WORK = Work(strings=64, names=32, structure=96, escapes=256)  # in its header, and in its claims
PAST = 60.0  # seconds for which a proof holds
FUTURE = 5.0  # seconds by which a caller's clock may be ahead

MOST = 65_536  # proofs remembered; 100 bytes each
SHARE = MOST // 4  # of them, one caller's: others' calls don't fail because of a flood of its own
TIMEOUT = 2.0  # seconds for D1 to tell whether a proof is new
FORGET = 60.0  # seconds between two times that an isolate clears D1 up
SLOT = 10  # seconds of proofs that are forgotten together

# RFC 9864 calls EdDSA with Ed25519 by the curve's name.
ALGORITHMS = tuple(sorted({*_SIGNED_BY, "Ed25519"}))

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
# Parameters that would change what is signed, or name a key that is not in the proof.
_HEADER_REFUSED = frozenset({"b64", "crit", "enc", "jku", "x5c", "x5u", "zip"})
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")

_URL = re.compile(
    r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{0,5}))?(/[^?#]*)?(?:[?#].*)?",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)
_PORT = {"http": 80, "https": 443}


class Binding:
    """The key that a token is bound to, and what is kept from one of its proofs to the next."""

    __slots__ = ("ath", "header", "jkt", "known", "owner", "strict")

    def __init__(self, jkt: str, token: str, owner: bytes, strict: bool = False) -> None:
        self.jkt = jkt  # thumbprint of the key (RFC 7638)
        self.ath = _digest(token.encode("ascii"))
        self.owner = owner  # stands for issuer and subject, who may have many keys
        self.strict = strict  # whether its proofs are used up for all isolates
        self.header = ""  # of the last proof that was believed, encoded: a client's is always the same
        self.known: tuple[str, Key] | None = None  # what that header says: algorithm and key

    def keep(self, proof: "Proof") -> None:
        """Keep the header of a proof whose signature is right, so that the next one need not be read again."""
        self.header, self.known = proof.header, (proof.algorithm, proof.key)


class Proof(NamedTuple):
    """A proof that is right for its request. Its signature has not been checked, nor that it is the first use."""

    header: str  # encoded
    algorithm: str
    key: Key
    signed: bytes  # what the signature covers
    signature: bytes
    owner: bytes  # stands for the token's issuer and subject
    use: bytes  # stands for the key and `jti`: no two proofs may have the same
    until: float  # seconds since the epoch, from which on the proof is too old anyway


def _digest(data: bytes) -> str:
    return urlsafe_b64encode(sha256(data).digest()).rstrip(b"=").decode("ascii")


def _invalid(why: str) -> Denied:
    return Denied(Reason.TOKEN_PROOF_INVALID, why)


def thumbprint(jwk: dict[str, str]) -> str:
    """RFC 7638 §3 of a JWK that has its required members only, as `Key.jwk` does."""
    return _digest(json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode("utf-8"))


def confirmed(claims: dict[str, Any]) -> str | None:
    """The thumbprint of the key that a token is bound to (RFC 7800 §3.1, RFC 9449 §6.1). None: it is a bearer token.

    Raises Denied `token.claims` for any other way of binding, such as a client certificate's (RFC 8705): a gate that
    did not look at it would make a bearer token of it.
    """
    if "cnf" not in claims:
        return None
    confirmation = claims["cnf"]
    if not isinstance(confirmation, dict) or confirmation.keys() != {"jkt"}:
        raise Denied(Reason.TOKEN_CLAIMS, "cnf is not jkt alone: bound in a way that cannot be checked here")
    jkt = confirmation["jkt"]
    if not isinstance(jkt, str) or _THUMBPRINT.fullmatch(jkt) is None:
        raise Denied(Reason.TOKEN_CLAIMS, "cnf.jkt is not a SHA-256 thumbprint")
    return jkt


def binding(jkt: str, issuer: str, subject: str, token: str, strict: bool = False) -> Binding:
    """What is kept of a token that is bound to a key. `strict`: see `claim_everywhere`."""
    return Binding(jkt, token, owner(issuer, subject), strict)


def owner(issuer: str, subject: str) -> bytes:
    """What stands for an issuer's subject, who may have many keys."""
    return sha256(f"{issuer}\n{subject}".encode()).digest()[:8]


def refuse_unbound(scheme: str, headers: dict[str, str]) -> None:
    """A token that is bound to no key is no DPoP token, and a proof beside it proves nothing: say so."""
    if scheme == "dpop":
        raise Denied(Reason.TOKEN_SCHEME, "a bearer token under the scheme DPoP")
    if "dpop" in headers:
        raise _invalid("beside a token that is bound to no key")


def read(bound: Binding, scheme: str, headers: dict[str, str], method: str, url: str, now: float) -> Proof:
    """The proof that came with a bound token, checked against its request (RFC 9449 §4.3, §7.1). No I/O.

    `scheme`: of Authorization, in lower case; empty when the token came in `Airgate-Token`. `url`: the request's own.
    What is left to do: verify the signature with `Proof.key`, then `Replays.claim` and `Binding.keep`. Raises Denied
    `token.scheme`, `token.proof_missing` or `token.proof_invalid`.
    """
    if scheme == "bearer":  # RFC 9449 §7.2: or whoever steals the token could drop the proof
        raise Denied(Reason.TOKEN_SCHEME, "a bound token under the scheme Bearer")
    text = headers.get("dpop")
    if text is None:
        raise Denied(Reason.TOKEN_PROOF_MISSING)
    return _checked(text, bound, bound.owner, method, url, now)[0]


def read_any(
    headers: dict[str, str], whose: bytes, method: str, url: str, now: float
) -> tuple[Proof, str] | None:
    """The proof that came with a request for a token, of whichever key (RFC 9449 §5), and the key's thumbprint.

    None: there is none. It says nothing of a token: `ath` is not looked at. `whose`: see `owner`. What is left to do:
    see `read`. Raises Denied `token.proof_invalid`.
    """
    text = headers.get("dpop")
    return None if text is None else _checked(text, None, whose, method, url, now)


def _checked(
    text: str, bound: Binding | None, whose: bytes, method: str, url: str, now: float
) -> tuple[Proof, str]:
    """A proof that is right for its request, and its key's thumbprint. `bound`: None takes any key. Raises Denied."""
    if len(text) > MAX_PROOF:
        raise _invalid(f"longer than {MAX_PROOF} characters")
    parts = _COMPACT.fullmatch(text)
    if parts is None:  # two headers arrive joined by a comma
        raise _invalid("not one of three parts of base64url")
    first, middle, last = parts.groups()
    try:
        known = bound.known if bound is not None and bound.header == first else None
        algorithm, key = known or _header(_read(first), None if bound is None else bound.jkt)
        claims = _read(middle)
        signature = read_base64url(last)
    except ValueError as error:
        raise _invalid(str(error)) from None
    if not key.fits(algorithm, signature):
        raise _invalid("the algorithm is not the key's, or the signature has another length than its")
    jkt, ath = (thumbprint(key.jwk), None) if bound is None else (bound.jkt, bound.ath)
    use, until = _claims(claims, jkt, ath, method, url, now)
    signed = text[: len(first) + 1 + len(middle)].encode("ascii")
    return Proof(first, algorithm, key, signed, signature, whose, use, until), jkt


def _read(part: str) -> dict[str, Any]:
    """A JSON object that takes little work to read; ValueError otherwise."""
    return read_object(read_base64url(part), limit=MAX_PROOF, depth=4, work=WORK)


def _header(header: dict[str, Any], jkt: str | None) -> tuple[str, Key]:
    """The algorithm and the key of a proof's header. `jkt`: which it has to be. Raises Denied and ValueError."""
    if header.get("typ") != "dpop+jwt":
        raise _invalid("typ is not dpop+jwt")
    if not _HEADER_REFUSED.isdisjoint(header):
        raise _invalid("a header parameter that is never accepted")
    algorithm, jwk = header.get("alg"), header.get("jwk")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise _invalid("alg is not accepted")
    key = read_key(jwk)
    if jkt is not None and thumbprint(key.jwk) != jkt:
        raise _invalid("by another key than the one that the token is bound to")
    return "EdDSA" if algorithm == "Ed25519" else algorithm, key


def _claims(
    claims: dict[str, Any], jkt: str, ath: str | None, method: str, url: str, now: float
) -> tuple[bytes, float]:
    """What the proof's single use is known by, and when it ends. Raises Denied."""
    jti, htm, htu = claims.get("jti"), claims.get("htm"), claims.get("htu")
    if not isinstance(jti, str) or not 0 < len(jti) <= MAX_JTI:
        raise _invalid("jti is missing or not a short string")
    if htm != method:
        raise _invalid("htm is another method")
    if not isinstance(htu, str) or (named := _address(htu)) is None:
        raise _invalid("htu is missing or not an http address")
    if named != (asked := _address(url)):
        same_path = asked is not None and named[1] == asked[1]
        raise _invalid(
            f"htu is of another origin, {named[0]!r:.80}" if same_path else "htu is another address"
        )
    issued, expires, begins = _time(claims, "iat"), _time(claims, "exp"), _time(claims, "nbf")
    if issued is None or issued > now + FUTURE or now > issued + PAST:
        raise _invalid("iat is missing" if issued is None else f"made {now - issued:.0f} s ago")
    # RFC 9449 does not ask for these two, but what a signer says of its JWT holds (RFC 7519 §4.1.4, §4.1.5).
    if (expires is not None and now >= expires) or (begins is not None and begins > now + FUTURE):
        raise _invalid("outside of its own exp or nbf")
    if ath is not None and claims.get("ath") != ath:
        raise _invalid("ath is missing or another token's")
    return sha256(f"{jkt}.{jti}".encode()).digest()[:16], issued + PAST


def _time(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        raise _invalid(f"{name} is not a NumericDate")
    return value


def _address(url: str) -> tuple[str, str] | None:
    """Origin and path of an http address, each in one spelling (RFC 3986 §6.2.2, §6.2.3). None: it is not one."""
    parts = _URL.fullmatch(url)
    if parts is None:
        return None
    scheme, host, port, path = parts.groups()
    scheme, path = scheme.lower(), path or "/"
    number = int(port) if port else _PORT[scheme]
    if "%" in path:
        if path.count("%") > escapes.MOST:
            return None
        path = escapes.normal(path)
    if "/." in path:
        path = _without_dots(path)
    return f"{scheme}://{host.lower()}:{number}", path


def _without_dots(path: str) -> str:
    """RFC 3986 §5.2.4, for a path that begins with a slash."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


class Replays:
    """Which proofs this isolate has seen, for as long as each could be used again.

    Another isolate does not know of them: for that there is `claim_everywhere`.
    """

    def __init__(self) -> None:
        # By when the proofs end: their uses, and how many of them are whose. Nine slots at most.
        self._slots: dict[int, tuple[set[bytes], dict[bytes, int]]] = {}
        self._forgot_at = 0.0

    def due(self, now: float) -> bool:
        """Whether it is time for this isolate to `forget`: once in a while, and not by two requests at once."""
        due = now - self._forgot_at >= FORGET
        if due:
            self._forgot_at = now
        return due

    def __len__(self) -> int:
        return sum([len(uses) for uses, _ in self._slots.values()])

    def claim(self, proof: Proof, now: float) -> None:
        """Use a proof up, at once: nothing is awaited between looking and noting.

        Raises Denied `token.proof_replayed`, and `limit.proofs` when there is no room: what is not remembered could be
        replayed. An issuer's subject has one share of the room, however many keys it has.
        """
        # A slot stays for one longer, since a request that came earlier may be a little late here.
        for number in [number for number in self._slots if (number + 2) * SLOT <= now]:
            del self._slots[number]
        if any([proof.use in uses for uses, _ in self._slots.values()]):
            raise Denied(Reason.TOKEN_PROOF_REPLAYED)
        if sum([whose.get(proof.owner, 0) for _, whose in self._slots.values()]) >= SHARE:
            raise Denied(Reason.LIMIT_PROOFS, "the caller's share of the memory is full")
        if len(self) >= MOST:
            raise Denied(Reason.LIMIT_PROOFS, "the memory is full")
        uses, whose = self._slots.setdefault(int(proof.until // SLOT), (set(), {}))
        uses.add(proof.use)
        whose[proof.owner] = whose.get(proof.owner, 0) + 1


class Database(Protocol):
    """Where all isolates look: D1."""

    async def database(self, sql: str, values: tuple[int | str, ...], timeout: float) -> str | None:
        """The text `value` of the first row that is returned, None without a row. Raises OSError."""


# Both are one statement, so of two isolates with the same proof one finds it new.
_CLAIM = "INSERT INTO proofs (proof, until) VALUES (?1, ?2) ON CONFLICT DO NOTHING RETURNING 'new' AS value"
_FORGET = "DELETE FROM proofs WHERE until < ?1"


async def claim_everywhere(proof: Proof, database: Database) -> None:
    """Use a proof up for all isolates. Raises Denied `token.proof_replayed`, `state.unavailable` when D1 can't tell."""
    try:
        new = await database.database(_CLAIM, (proof.use.hex(), math.ceil(proof.until) + SLOT), TIMEOUT)
    except OSError as error:
        raise Denied(Reason.STATE_UNAVAILABLE, f"{error}"[:200]) from None
    if new is None:
        raise Denied(Reason.TOKEN_PROOF_REPLAYED, "at another isolate")


async def forget(now: float, database: Database) -> None:
    """Take away what D1 need not remember any more. Never raises: the next one will."""
    with suppress(OSError):
        await database.database(_FORGET, (int(now),), TIMEOUT)
