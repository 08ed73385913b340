"""The public keys that a gate's checkpoints are checked with: `audit-keys.json`, and what a checkpoint has to be.

    {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": ..., "kid": ..., "iat": seconds, "until": seconds}]}

`iat` says when a key was made, and `until` when it was retired: what is dated before or after that doesn't count. The
date is what the checkpoint says itself: who has the key writes any.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from airgate.engine import pae, read_base64url, read_key, read_object
from airgate.policy.words import quoted
from chain import CHECKPOINT

FILE = Path("audit-keys.json")
LIMIT = 262_144  # characters of a key file
MOST_KEYS = 500
LATEST = 2**40  # seconds; years that a calendar can show
SLACK = 300  # seconds that clocks may differ by

_MEMBERS = frozenset({"kty", "crv", "x", "kid", "iat", "until"})
_STATED = {"gate", "chain", "position", "hash", "time", "number"}
_LONGEST = 2048  # characters of a document; the gate's own are about 300


class KeysRefused(Exception):
    """A key file can't be used. The message says why, and what to do."""


class AuditKey(NamedTuple):
    """A public key, as the file holds it."""

    kid: str
    x: str
    made_at: int | None  # seconds since the epoch
    until: int | None  # seconds since the epoch; None: it still signs

    @property
    def jwk(self) -> dict[str, Any]:
        members: dict[str, Any] = {"kty": "OKP", "crv": "Ed25519", "x": self.x, "kid": self.kid}
        if self.made_at is not None:
            members["iat"] = self.made_at
        if self.until is not None:
            members["until"] = self.until
        return members

    @property
    def verifier(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(read_base64url(self.x))


Keys = Mapping[str, AuditKey]  # by kid


@dataclass(frozen=True)
class Statement:
    """What a checkpoint says: that the chain's line at `position` has this hash."""

    gate: str
    chain: str
    position: int
    hash: bytes
    time: str
    number: int | None  # of the chain in the register


class Wrong(NamedTuple):
    """Why a checkpoint doesn't count."""

    kind: str  # forged, unknown key, retired key, backdated
    text: str


class Checker:
    """Checks signatures, each of them once however often it is shown."""

    def __init__(self, keys: Keys | None) -> None:
        """`keys`: None when there are none to check with; then all signatures pass, and prove nothing."""
        self._keys = keys
        self._verifiers = {kid: key.verifier for kid, key in (keys or {}).items()}
        self._known: dict[tuple[str, str, str], Statement | Wrong] = {}

    def check(self, document: Any, kid: Any, signature: Any) -> Statement | Wrong:
        if not (isinstance(document, str) and isinstance(kid, str) and isinstance(signature, str)):
            return Wrong("forged", "its document, key or signature is no text")
        found = self._known.get((document, kid, signature))
        if found is None:
            if len(self._known) >= 4096:
                self._known.clear()
            found = self._known[document, kid, signature] = self._check(document, kid, signature)
        return found

    def _check(self, document: str, kid: str, signature: str) -> Statement | Wrong:
        try:
            statement = stated(document)
        except ValueError as error:
            return Wrong("forged", f"its document {error}")
        if self._keys is None:
            return statement
        key = self._keys.get(kid)
        if key is None:
            return Wrong("unknown key", f"signed by the key {quoted(kid)}, which isn't in the key file")
        try:
            self._verifiers[kid].verify(read_base64url(signature), pae(CHECKPOINT, document))
        except (InvalidSignature, ValueError, UnicodeEncodeError):
            return Wrong("forged", f"its signature under the name of the key {quoted(kid)} is wrong")
        if key.made_at is not None and seconds(statement.time) < key.made_at - SLACK:
            return Wrong("backdated", f"dated {statement.time}, before the key {quoted(kid)} was made")
        if key.until is not None and seconds(statement.time) > key.until:
            return Wrong("retired key", f"signed by the key {quoted(kid)} after it was retired")
        return statement


def stated(document: str) -> Statement:
    """A checkpoint's document. ValueError says what is wrong with it: "is …"."""
    try:
        members = read_object(document, limit=_LONGEST, depth=2)
    except ValueError:
        raise ValueError("is not one JSON object") from None
    gate, chain, position = members.get("gate"), members.get("chain"), members.get("position")
    own, time, number = members.get("hash"), members.get("time"), members.get("number")
    if members.keys() != _STATED:
        raise ValueError("holds other members than a checkpoint's")
    if not (isinstance(gate, str) and _hexadecimal(chain, 32) and _hexadecimal(own, 64)):
        raise ValueError("names no gate, chain or hash")
    if type(position) is not int or not _natural(position) or not (number is None or _natural(number)):
        raise ValueError("has a position or number that isn't one")
    if not isinstance(time, str) or seconds(time) < 0:
        raise ValueError("has a time that isn't one")
    return Statement(gate, str(chain), position, bytes.fromhex(str(own)), time, number)


def seconds(time: str) -> float:
    """A moment as the gate writes it, in seconds since the epoch; -1 when it isn't one."""
    if len(time) != 24 or not time.endswith("Z") or not time.isascii():
        return -1
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return -1


def read_keys(file: Path) -> dict[str, AuditKey]:
    """The keys of a file, by kid. Raises KeysRefused."""
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        raise KeysRefused(
            f"{file}: no such file. It is what `airgate keys audit new` has made beside the private key, and what "
            "stands in the repository of whoever runs the gate."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise KeysRefused(f"{file}: can't be read: {why}") from None
    try:
        return parse_keys(text)
    except ValueError as error:
        raise KeysRefused(f"{file}: {error}") from None


def parse_keys(text: str) -> dict[str, AuditKey]:
    """The same, of a file's text. Raises ValueError."""
    try:
        members = read_object(text, limit=LIMIT, depth=4)
    except ValueError:
        raise ValueError("not a file of audit keys: it isn't one JSON object") from None
    if "d" in members:
        raise ValueError(
            "holds the private key. Verifying takes the public file (audit-keys.json); keep this one to yourself."
        )
    jwks = members.get("keys")
    if members.keys() != {"keys"} or not isinstance(jwks, list) or not 0 < len(jwks) <= MOST_KEYS:
        raise ValueError(f'not a file of audit keys: expected {{"keys": [...]}} with 1 to {MOST_KEYS} keys')
    keys: dict[str, AuditKey] = {}
    for number, jwk in enumerate(jwks):
        try:
            key = _key(jwk)
        except ValueError as error:
            raise ValueError(f"keys[{number}]: {error}") from None
        if key.kid in keys:
            raise ValueError(f"keys[{number}]: another key has the same kid")
        keys[key.kid] = key
    return keys


def written(keys: Keys) -> str:
    """The text of the file."""
    return json.dumps({"keys": [key.jwk for key in keys.values()]}, indent=2) + "\n"


def _key(jwk: Any) -> AuditKey:
    if isinstance(jwk, dict) and "d" in jwk:
        raise ValueError("holds a private key, which has no business in this file")
    if not isinstance(jwk, dict) or jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519":
        raise ValueError("not an Ed25519 key")
    if unknown := jwk.keys() - _MEMBERS:
        raise ValueError(f"{quoted(str(min(unknown)))} is not known to this version")
    key = read_key(jwk)
    made, until = jwk.get("iat"), jwk.get("until")
    for name, moment in (("iat", made), ("until", until)):
        if moment is not None and not (_natural(moment) and moment < LATEST):
            raise ValueError(f"{name} is not a number of seconds")
    if not key.kid or len(key.kid) > 128:
        raise ValueError("kid is missing, or too long")
    return AuditKey(key.kid, str(jwk["x"]), made, until)


def _natural(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _hexadecimal(value: Any, length: int) -> bool:
    return isinstance(value, str) and len(value) == length and not set(value) - set("0123456789abcdef")
