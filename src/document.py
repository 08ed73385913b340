"""JSON from outside, read strictly: bounded before it is parsed, and with only one possible reading.

`json.loads` alone takes the last of two equal keys, NaN and lone surrogates, and on some runtimes deep nesting
ends the whole isolate. RFC 8259 §4 leaves duplicate names open, RFC 7493 (I-JSON) §2.3 forbids them.
"""

import json
import math
import re
from base64 import urlsafe_b64decode
from typing import Any

# Possessive, and content with a string that never ends: linear whatever the text.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


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


def _depth(text: str) -> int:
    deepest = depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


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


def read_object(text: bytes | str, *, limit: int, depth: int = 16) -> dict[str, Any]:
    """One JSON object of at most `limit` bytes (characters, for a str) and `depth` levels; ValueError otherwise."""
    if len(text) > limit:
        raise ValueError(f"longer than {limit} bytes")
    if isinstance(text, bytes):
        text = text.decode(
            "utf-8"
        )  # UnicodeDecodeError is a ValueError; UTF-16, UTF-32 and BOMs fail here or below
    # Depth comes first: some runtimes die of deep nesting instead of raising. Few brackets cannot be deep.
    if text.count("[") + text.count("{") > depth and _depth(text) > depth:
        raise ValueError(f"nested more than {depth} levels deep")
    value = _DECODER.decode(text)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    if "\\u" in text:
        # A lone surrogate cannot be encoded; UnicodeEncodeError is a ValueError.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value
