"""JSON from outside, read strictly: bounded before it is parsed, and with only one possible reading.

`json.loads` alone takes the last of two equal keys, NaN and lone surrogates, and on some runtimes deep nesting
ends the whole isolate. RFC 8259 §4 leaves duplicate names open, RFC 7493 (I-JSON) §2.3 forbids them.
"""

import json
import math
import re
from base64 import urlsafe_b64decode
from typing import Any, NamedTuple

_SQUARE = bytes.maketrans(b"{}", b"[]")
_BESIDE = bytes(sorted(set(range(256)) - set(b'[]{}"')))  # all but quotes and brackets

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")  # of an issuer, a role, an upstream


class Work(NamedTuple):
    """How much there may be to read.

    However short a text is, whoever writes it chooses what is slow to read: a list of empty objects takes ten times as
    long as a list of words, and names can be chosen to collide, since every isolate hashes alike.
    """

    strings: int  # names and values
    names: int  # of members, in all objects together
    structure: int  # characters outside of strings, white space and commas not counted
    escapes: int  # such as \u00e9, in strings


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name appears twice in one object")
    return members


def _finite(literal: str) -> float:
    number = float(literal)
    if not math.isfinite(number):
        raise ValueError("a number is out of range")
    return number


def _no_constant(literal: str) -> float:
    raise ValueError(f"{literal} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)


def _deeper(text: str, depth: int) -> bool:
    """Whether arrays and objects are nested more than `depth` levels deep, or not closed."""
    octets = text.encode("utf-8", "surrogatepass")
    if b"\\" in octets:  # a quote behind a backslash ends no string; outside of strings there is no backslash
        octets = octets.replace(b"\\\\", b"").replace(b'\\"', b"")
    bare = octets.translate(_SQUARE, _BESIDE).replace(b'""', b"")
    if b'"' in bare:  # every second part is a string with brackets in it
        bare = b"".join(bare.split(b'"')[::2])
    for _ in range(depth):  # each round takes the innermost level away
        outer = bare.replace(b"[]", b"")
        if len(outer) == len(bare):
            break
        bare = outer
    return bool(bare)


def _refuse_laborious(octets: bytes, work: Work) -> None:
    if len(octets) <= work.structure:
        return
    # As in `_deeper`: a quote behind a backslash ends no string; every second part stands outside of strings.
    if octets.count(b"\\u") > work.escapes:
        raise ValueError(f"more than {work.escapes} escaped characters")
    plain = octets.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in octets else octets
    if plain.count(b'"') > 2 * work.strings:
        raise ValueError(f"more than {work.strings} strings")
    structure = b"".join(plain.split(b'"')[::2]).translate(None, b" \t\r\n,")
    if len(structure) > work.structure or structure.count(b":") > work.names:
        raise ValueError("more members or values than are read")


# RFC 4648 §3.5: unused trailing bits must be zero, or one value has several spellings.
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
_LAST = {2: frozenset("AQgw"), 3: frozenset("AEIMQUYcgkosw048")}


def read_base64url(text: str) -> bytes:
    """Decode base64url without padding (RFC 7515 §2) that has only one spelling; ValueError otherwise.

    The standard library's decoder leaves out characters that it does not know.
    """
    tail = len(text) % 4
    if tail == 1 or (tail and text[-1] not in _LAST[tail]) or _BASE64URL.fullmatch(text) is None:
        raise ValueError("not canonical base64url")
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _bounded(text: bytes | str, limit: int, depth: int) -> str:
    if len(text) > limit:
        raise ValueError(f"longer than {limit} bytes")
    if isinstance(text, bytes):
        text = text.decode(
            "utf-8"
        )  # UnicodeDecodeError is a ValueError; UTF-16, UTF-32, BOMs fail here or below
    # Depth comes first: some runtimes die of deep nesting instead of raising. Few brackets cannot be deep.
    if text.count("[") + text.count("{") > depth and _deeper(text, depth):
        raise ValueError(f"nested more than {depth} levels deep, or brackets do not match")
    return text


def _object(value: Any, text: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    if "\\ud" in text or "\\uD" in text:
        # A lone surrogate cannot be encoded; UnicodeEncodeError is a ValueError.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def read_object(
    text: bytes | str, *, limit: int, depth: int = 16, work: Work | None = None
) -> dict[str, Any]:
    """One JSON object of at most `limit` bytes (characters, for a str) and `depth` levels; ValueError otherwise."""
    if work is not None and len(text) <= limit:
        _refuse_laborious(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"), work)
    text = _bounded(text, limit, depth).strip(" \t\r\n")
    value, end = _DECODER.raw_decode(text)
    if end != len(text):
        raise ValueError("more than one value")
    return _object(value, text)


def read_compiled(text: str, *, limit: int, depth: int) -> dict[str, Any]:
    """As `read_object`, but of two equal names the last counts, and numbers may be NaN: three times as fast.

    For what is found by its own hash and read by nothing else, and whose reader checks every type.
    """
    text = _bounded(text, limit, depth)
    return _object(json.loads(text), text)


class Reader:
    """A JSON object being taken apart: says where it stands, knows what it has been asked for, refuses the rest."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: not an object")
        self._members = value
        self._left = set(value)
        self.where = where

    def _take(self, name: str) -> Any:
        if name not in self._members:
            raise ValueError(f"{self.where}.{name}: missing")
        self._left.discard(name)
        return self._members[name]

    def wrong(self, name: str, expected: str) -> ValueError:
        return ValueError(f"{self.where}.{name}: expected {expected}")

    def one_of(self, name: str, *choices: str) -> str:
        value = self._take(name)
        if value not in choices or not isinstance(value, str):
            raise self.wrong(name, " or ".join(choices))
        return value

    def text(self, name: str) -> str:
        value = self._take(name)
        if not isinstance(value, str):
            raise self.wrong(name, "a string")
        return value

    def number(self, name: str, least: float, most: float) -> float:
        value = self._take(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self.wrong(name, f"a number from {least} to {most}")
        return value

    def whole(self, name: str, least: int, most: int) -> int:
        value = self.number(name, least, most)
        if not isinstance(value, int):
            raise self.wrong(name, "a whole number")
        return value

    def flag(self, name: str) -> bool:
        value = self._take(name)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._take(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(name, "a list of strings")
        return tuple(value)

    def some(self, name: str) -> tuple[str, ...]:
        value = self.texts(name)
        if not value:
            raise self.wrong(name, "at least one")
        return value

    def some_or_null(self, name: str) -> tuple[str, ...] | None:
        return None if self.null(name) else self.some(name)

    def null(self, name: str) -> bool:
        if self._members.get(name, False) is None:
            self._left.discard(name)
            return True
        return False

    def within(self, name: str) -> "Reader":
        return Reader(self._take(name), f"{self.where}.{name}")

    def has(self, name: str) -> bool:
        return name in self._members

    def value(self, name: str) -> Any:
        return self._take(name)

    def array(self, name: str) -> list[Any]:
        value = self._take(name)
        if not isinstance(value, list):
            raise self.wrong(name, "a list")
        return value

    def wholes(self, name: str, least: int, most: int) -> tuple[int, ...]:
        values = self.array(name)
        if not all(type(value) is int and least <= value <= most for value in values):
            raise self.wrong(name, f"whole numbers from {least} to {most}")
        return tuple(values)

    def paths(self, name: str) -> tuple[tuple[str, ...], ...]:
        """A list of lists of names that lead somewhere."""
        value = self._take(name)
        if not isinstance(value, list):
            raise self.wrong(name, "a list")
        for item in value:
            if not isinstance(item, list) or not item or not all(isinstance(part, str) for part in item):
                raise self.wrong(name, "lists of strings, each with at least one")
        return tuple(tuple(item) for item in value)

    def all_names(self) -> list[str]:
        return list(self._members)

    def names(self) -> list[str]:
        for name in self._members:
            if NAME.fullmatch(name) is None:
                raise ValueError(f"{self.where}.{name!r:.80}: not a name")
        return list(self._members)

    def items(self, name: str) -> list["Reader"]:
        value = self._take(name)
        if not isinstance(value, list):
            raise self.wrong(name, "a list")
        return [Reader(item, f"{self.where}.{name}[{number}]") for number, item in enumerate(value)]

    def done(self) -> None:
        if self._left:
            raise ValueError(f"{self.where}.{min(self._left)}: not known to this version")
