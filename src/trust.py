"""Whose word counts at the gate: public Ed25519 keys with a name, and what each of them may sign.

They are the Worker's own variable, so that whoever can write KV or D1 can't add one. What is signed is a document's
text together with its kind, as DSSE v1 has it ("Pre-Authentication Encoding"), so that nothing signed as one kind can
be shown as another; and every document names its gate, so that nothing signed for one can be shown to another.
"""

from typing import Any, NamedTuple

from document import read_base64url, read_object
from keys import Key, Verify, read_key
from model import Denied

VARIABLE = "TRUSTED_KEYS"
POINTER = "application/vnd.airgate.pointer+json"
ACT = "application/vnd.airgate.act+json"
PUBLISH, GRANT = "publish", "grant"
MAY = (PUBLISH, GRANT)
ALGORITHM = "EdDSA"
LIMIT = 16_384  # characters of the variable
MOST_KEYS = 16
LONGEST_NAME = 80  # characters
LONGEST_KID = 128  # characters

_MEMBERS = frozenset({"kty", "crv", "x", "kid", "name", "may"})


class Signer(NamedTuple):
    """A key that counts, and the actor whose it is."""

    key: Key
    kid: str
    name: str
    may: frozenset[str]


class Signed(NamedTuple):
    """A document as it is stored: its text, the `kid` of the key and the signature in base64url. Both may be empty."""

    document: str
    key: str
    signature: str


class Untrusted(ValueError):
    """A document that nobody who may has signed. The message says why."""


Trusted = dict[str, Signer]  # by kid


def pae(kind: str, document: str) -> bytes:
    """What a signature covers (DSSE v1, PAE)."""
    named, text = kind.encode("utf-8"), document.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(named), named, len(text), text)


def read_trusted(text: str) -> Trusted:
    """The keys in the variable's text: {"keys": [JWK with `kid`, `name` and `may`, ...]}. Raises ValueError."""
    members = read_object(text, limit=LIMIT, depth=5)
    jwks = members.get("keys")
    if members.keys() != {"keys"} or not isinstance(jwks, list) or not 0 < len(jwks) <= MOST_KEYS:
        raise ValueError(f"not an object with 1 to {MOST_KEYS} keys in the list `keys`, and nothing else")
    trusted: Trusted = {}
    for number, jwk in enumerate(jwks):
        try:
            signer = _signer(jwk)
        except ValueError as error:
            raise ValueError(f"keys[{number}]: {error}") from None
        if signer.kid in trusted:
            raise ValueError(f"keys[{number}]: another key has the same kid")
        trusted[signer.kid] = signer
    return trusted


def _signer(jwk: Any) -> Signer:
    key = read_key(jwk)
    if key.algorithms != {ALGORITHM}:
        raise ValueError("not an Ed25519 key")
    if unknown := jwk.keys() - _MEMBERS:
        raise ValueError(f"{min(unknown)!r:.40} is not known to this version")
    kid, name, may = key.kid, jwk.get("name"), jwk.get("may")
    if not kid or len(kid) > LONGEST_KID:
        raise ValueError("kid is missing, or too long")
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise ValueError(f"name is not 1 to {LONGEST_NAME} printable characters")
    if not isinstance(may, list) or not may or not all(one in MAY for one in may):
        raise ValueError(f"may is not a list of some of {', '.join(MAY)}")
    return Signer(key, kid, name, frozenset(may))


async def signer(signed: Signed, kind: str, right: str, trusted: Trusted, verify: Verify) -> Signer:
    """Who has signed a document of that kind, and may. Raises Untrusted."""
    if not signed.signature:
        raise Untrusted("not signed")
    known = trusted.get(signed.key)
    if known is None:
        raise Untrusted(f"signed by a key that is not trusted here, {signed.key!r:.80}")
    if right not in known.may:
        raise Untrusted(f"signed by {known.name}, who may not {right}")
    try:
        signature = read_base64url(signed.signature)
        right_one = known.key.fits(ALGORITHM, signature) and await verify(
            known.key, ALGORITHM, signature, pae(kind, signed.document)
        )
    except (ValueError, Denied):
        right_one = False
    if not right_one:
        raise Untrusted(f"the signature under the name of {known.name} is wrong")
    return known
