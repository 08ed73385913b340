"""The key that whoever publishes, or changes who has access, signs with: Ed25519, in a file of its own.

The file holds one private JWK (RFC 7517, RFC 8037) with `kid`, `name` and `may`: what a gate's TRUSTED_KEYS says of it,
and `d`, the private part. A command is told of it by --key FILE, by the variable AIRGATE_KEY (a file's name), or by
AIRGATE_KEY_JSON (the text itself, for pipelines that hand secrets over as variables).
"""

import json
import os
import stat
import time
from base64 import urlsafe_b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from airgate.engine import (
    MAY,
    MAY_GRANT,
    MAY_PUBLISH,
    pae,
    read_base64url,
    read_object,
    read_private,
    read_trusted,
    thumbprint,
)

FILE_VARIABLE = "AIRGATE_KEY"
TEXT_VARIABLE = "AIRGATE_KEY_JSON"
LIMIT = 16_384  # characters of a key file
TRUSTED_MEMBERS = ("kty", "crv", "x", "kid", "name", "may")
PUBLISH, GRANT = MAY_PUBLISH, MAY_GRANT  # what a key may be for

KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help=f"The key to sign with, made by `airgate keys new`; {FILE_VARIABLE} names it when left out.",
    ),
]


class KeyMissing(Exception):
    """There is no key to sign with, or not one that can be used. The message says what to do."""


@dataclass(frozen=True)
class SigningKey:
    """A private Ed25519 key, and what a gate is to know of it."""

    kid: str
    name: str  # who signs, as history and audit show it
    may: tuple[str, ...]  # publish, grant
    made_at: int | None  # seconds since the epoch
    private: Ed25519PrivateKey = field(repr=False, compare=False)

    @classmethod
    def new(cls, name: str, may: Collection[str], now: float | None = None) -> "SigningKey":
        """A key that nobody had before. ValueError says what is wrong with its name or purposes."""
        if name != name.strip():
            raise ValueError("the name begins or ends with a blank")
        private = Ed25519PrivateKey.generate()
        made = int(time.time() if now is None else now)
        kid = f"{datetime.fromtimestamp(made, UTC):%Y%m%d}-{thumbprint(_public(private))[:8]}"
        key = cls(kid, name, tuple(purpose for purpose in MAY if purpose in may), made, private)
        read_public(key.public)
        return key

    @classmethod
    def given(cls, path: Path | None = None) -> "SigningKey | None":
        """As `read`, but None when no key is named anywhere. Raises KeyMissing for one that can't be used."""
        named = path is not None or os.environ.get(FILE_VARIABLE) or os.environ.get(TEXT_VARIABLE)
        return cls.read(path) if named else None

    @classmethod
    def read(cls, path: Path | None = None) -> "SigningKey":
        """The key in a file: `path`, else what AIRGATE_KEY names, else the text in AIRGATE_KEY_JSON.

        Raises KeyMissing.
        """
        file = path or (Path(name) if (name := os.environ.get(FILE_VARIABLE)) else None)
        if file is not None:
            return read_file(file)
        if text := os.environ.get(TEXT_VARIABLE):
            return _loaded(text, f"the variable {TEXT_VARIABLE}")
        raise KeyMissing(
            f"This has to be signed, and no key is named. Give --key FILE, or name the file in {FILE_VARIABLE} "
            f"(or its text in {TEXT_VARIABLE}).\nThere is none yet? Make one: "
            'airgate keys new --name "release pipeline" --may publish'
        )

    @property
    def public(self) -> dict[str, Any]:
        """What TRUSTED_KEYS holds of it."""
        return {**_public(self.private), "kid": self.kid, "name": self.name, "may": list(self.may)}

    @property
    def text(self) -> str:
        """The file's text, private part and all."""
        made = {} if self.made_at is None else {"iat": self.made_at}
        secret = urlsafe_b64encode(self.private.private_bytes_raw()).rstrip(b"=").decode("ascii")
        return json.dumps({**self.public, **made, "d": secret}, indent=2) + "\n"

    def sign(self, kind: str, document: str) -> str:
        """The signature of a document of that type, in base64url without padding."""
        return urlsafe_b64encode(self.private.sign(pae(kind, document))).rstrip(b"=").decode("ascii")


def without_key() -> dict[str, str]:
    """The environment's variables for a program that has no business with the key: all but the key's text."""
    return {name: value for name, value in os.environ.items() if name != TEXT_VARIABLE}


def read_file(file: Path) -> SigningKey:
    """The key in a file. Raises KeyMissing."""
    try:
        text = file.read_text("utf-8")
        mode = stat.S_IMODE(file.stat().st_mode)
    except FileNotFoundError:
        raise KeyMissing(
            f"{file}: no such file. Make one: airgate keys new --name NAME --may publish --out {file}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise KeyMissing(f"{file}: can't be read: {why}") from None
    key = _loaded(text, str(file))
    if mode & 0o077:
        typer.echo(f"Others than you can read or write {file} ({mode:03o}): chmod 600 {file}", err=True)
    return key


def read_public(members: Mapping[str, Any]) -> dict[str, Any]:
    """What TRUSTED_KEYS holds of a key, out of a JWK with or without its private part. Raises ValueError."""
    public = {name: members[name] for name in TRUSTED_MEMBERS if name in members}
    try:
        read_trusted(json.dumps({"keys": [public]}))
    except ValueError as error:
        raise ValueError(str(error).removeprefix("keys[0]: ")) from None
    return {**public, "may": [purpose for purpose in MAY if purpose in public["may"]]}


def _public(private: Ed25519PrivateKey) -> dict[str, str]:
    x = urlsafe_b64encode(private.public_key().public_bytes_raw()).rstrip(b"=").decode("ascii")
    return {"kty": "OKP", "crv": "Ed25519", "x": x}


def _loaded(text: str, where: str) -> SigningKey:
    """Raises KeyMissing, whose message holds nothing of what is there."""
    try:
        members = read_object(text, limit=LIMIT, depth=3)
    except ValueError:
        raise KeyMissing(f"{where}: not a key: it isn't one JSON object. {_MAKE}") from None
    if "keys" in members and "issuer" in members:
        raise KeyMissing(f"{where}: holds assertion keys, which upstreams check. {_MAKE}")
    if "d" not in members:
        raise KeyMissing(f"{where}: holds no private key, so nothing can be signed with it. {_MAKE}")
    try:
        public = read_public(members)
        read_private(members)
    except ValueError as error:
        raise KeyMissing(f"{where}: not a key: {error}. {_MAKE}") from None
    made = members.get("iat")
    return SigningKey(
        public["kid"],
        public["name"],
        tuple(public["may"]),
        made if type(made) is int and 0 <= made < 2**32 else None,
        Ed25519PrivateKey.from_private_bytes(read_base64url(members["d"])),
    )


_MAKE = "A signing key is made by: airgate keys new --name NAME --may publish"
