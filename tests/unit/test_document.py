"""Strict JSON: what is refused, how deep is too deep, and that what is accepted is read as it was written."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from document import read_base64url, read_object

REFUSED = [
    pytest.param(b'{"a":1,"a":2}', "twice", id="a name appears twice"),
    pytest.param(b'{"a":1,"a":1}', "twice", id="a name appears twice with one value"),
    pytest.param(b'{"o":[{"a":1,"a":2}]}', "twice", id="a name appears twice further down"),
    pytest.param(b'{"a":1,"\\u0061":2}', "twice", id="a name appears twice in two spellings"),
    pytest.param(b'{"a":NaN}', "not JSON", id="NaN is not JSON"),
    pytest.param(b'{"a":Infinity}', "not JSON", id="Infinity is not JSON"),
    pytest.param(b'{"a":-Infinity}', "not JSON", id="minus Infinity is not JSON"),
    pytest.param(b'{"a":1e999}', "out of range", id="1e999 is out of range"),
    pytest.param(b'{"a":-1e999}', "out of range", id="minus 1e999 is out of range"),
    pytest.param(b'{"a":' + b"9" * 5000 + b"}", None, id="an integer of 5,000 digits"),
    pytest.param(b'\xef\xbb\xbf{"a":1}', None, id="a byte order mark comes first"),
    pytest.param('{"a":1}'.encode("utf-16"), None, id="UTF-16 with a mark"),
    pytest.param('{"a":1}'.encode("utf-16-le"), None, id="UTF-16 without a mark"),
    pytest.param('{"a":1}'.encode("utf-32-be"), None, id="UTF-32"),
    pytest.param(b'{"a":"\xc0\x80"}', "utf-8", id="an overlong octet sequence"),
    pytest.param(b'{"a":"\xed\xa0\x80"}', "utf-8", id="a surrogate encoded as UTF-8"),
    pytest.param(b'{"a":"\\ud800"}', "surrogates", id="a lone surrogate in a value"),
    pytest.param(b'{"\\udc00":1}', "surrogates", id="a lone surrogate in a name"),
    pytest.param(b'{"a":["\\udc00\\ud800"]}', "surrogates", id="a surrogate pair the wrong way round"),
    pytest.param(b"[]", "not an object", id="an array is not an object"),
    pytest.param(b'"a"', "not an object", id="a string is not an object"),
    pytest.param(b"1", "not an object", id="a number is not an object"),
    pytest.param(b"null", "not an object", id="null is not an object"),
    pytest.param(b"", None, id="nothing at all"),
    pytest.param(b'{"a":1}{"a":1}', None, id="two objects side by side"),
    pytest.param(b'{"a":1}x', None, id="text after the object"),
    pytest.param(b'{"a":1,}', None, id="a comma before the end"),
    pytest.param(b"{'a':1}", None, id="single quotes"),
    pytest.param(b'{"a":1/**/}', None, id="a comment"),
    pytest.param(b'{"a":01}', None, id="a number with a leading zero"),
    pytest.param(b'{"a":"\x00"}', None, id="a raw control character in a string"),
    pytest.param(b'{"a":"\\x41"}', None, id="an escape that JSON does not have"),
]


@pytest.mark.parametrize(("text", "complaint"), REFUSED)
def test_refused(text: bytes, complaint: str | None) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_object(text, limit=10_000)


ACCEPTED = [
    pytest.param(b"{}", {}, id="an empty object"),
    pytest.param(b' \t\r\n{"a":1} \n', {"a": 1}, id="white space around it"),
    pytest.param(b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}, id="a surrogate pair is one character"),
    pytest.param(b'{"a":{"a":1},"b":{"a":2}}', {"a": {"a": 1}, "b": {"a": 2}}, id="one name in two objects"),
    pytest.param(b'{"a":[1,2.5,-3e2,true,null]}', {"a": [1, 2.5, -300.0, True, None]}, id="plain values"),
    pytest.param('{"ä":"ß"}', {"ä": "ß"}, id="a str instead of bytes"),
    pytest.param(b'{"a":1e308}', {"a": 1e308}, id="a number just within range"),
]


@pytest.mark.parametrize(("text", "value"), ACCEPTED)
def test_accepted(text: bytes | str, value: dict[str, Any]) -> None:
    assert read_object(text, limit=1000) == value


def nested(levels: int) -> str:
    return '{"a":' + "[" * (levels - 1) + "]" * (levels - 1) + "}"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(nested(17), id="one level more than allowed"),
        pytest.param(nested(5001), id="5,000 brackets"),
        pytest.param(nested(400_000), id="400,000 brackets"),
        pytest.param('{"a":' + "[" * 5000, id="5,000 brackets that nobody closes"),
        pytest.param('{"a":' * 5000, id="5,000 objects that nobody closes"),
        pytest.param('{"a":"\\"",' + nested(17)[1:], id="an escaped quote does not hide brackets"),
        pytest.param(
            '{"a":"\\\\","b":' + nested(17) + ',"c":""}', id="an escaped backslash does not hide brackets"
        ),
        pytest.param('{"a":[],"b":' + nested(16) + "}", id="brackets closed before do not make room"),
    ],
)
def test_too_deep(text: str) -> None:
    with pytest.raises(ValueError, match="nested more than 16"):
        read_object(text, limit=1_000_000)


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        pytest.param(nested(16), 16, id="exactly as deep as allowed"),
        pytest.param(nested(24), 24, id="as deep as this caller allows"),
        pytest.param('{"a":"' + "[" * 5000 + '"}', 16, id="brackets in a string are text"),
        pytest.param('{"a":"\\"' + "{" * 5000 + '"}', 16, id="brackets after an escaped quote are text"),
        pytest.param('{"a":[' + ",".join(["[]"] * 5000) + "]}", 16, id="many brackets side by side"),
    ],
)
def test_not_too_deep(text: str, depth: int) -> None:
    assert read_object(text, limit=1_000_000, depth=depth) == json.loads(text)


def test_the_limit_counts_bytes_before_anything_is_parsed() -> None:
    text = '{"a":"ä"}'.encode()
    assert read_object(text, limit=len(text)) == {"a": "ä"}
    with pytest.raises(ValueError, match="longer than 9 bytes"):
        read_object(text, limit=len(text) - 1)
    with pytest.raises(ValueError, match="longer than"):
        read_object(b"\xff" * 11, limit=10)


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def levels(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(levels, value), default=0) if isinstance(value, list) else 0


@given(st.dictionaries(st.text(), VALUES, max_size=4), st.booleans())
def test_reading_undoes_writing(value: dict[str, Any], ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert read_object(text.encode(), limit=len(text.encode()), depth=levels(value)) == value
    assert read_object(text, limit=len(text), depth=levels(value)) == value


@given(st.dictionaries(st.text(), VALUES, min_size=1, max_size=3))
def test_one_level_too_many_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="levels deep"):
        read_object(json.dumps(value), limit=100_000, depth=levels(value) - 1)


@given(st.text(alphabet='{}[]"\\:,a1', max_size=200))
def test_any_text_is_an_object_or_a_value_error(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None
    try:
        value = read_object(text, limit=1000, depth=1000)
    except ValueError:
        return  # stricter than json.loads is fine
    assert value == expected


# RFC 4648 §10, without padding.
VECTORS = {
    "": b"",
    "Zg": b"f",
    "Zm8": b"fo",
    "Zm9v": b"foo",
    "Zm9vYg": b"foob",
    "Zm9vYmE": b"fooba",
    "-_-_": b"\xfb\xff\xbf",
}


@pytest.mark.parametrize(("text", "value"), VECTORS.items())
def test_base64url(text: str, value: bytes) -> None:
    assert read_base64url(text) == value


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Z", id="a length of 4n+1"),
        pytest.param("Zm9vY", id="a longer length of 4n+1"),
        pytest.param("Zh", id="trailing bits of two characters"),
        pytest.param("Zm9", id="trailing bits of three characters"),
        pytest.param("Zg==", id="padding"),
        pytest.param("Zm8=", id="padding of one"),
        pytest.param("+/+/", id="the characters of base64"),
        pytest.param("Zm9v!!!!", id="characters that a lax decoder leaves out"),
        pytest.param("Zm\n9v ==", id="white space"),
        pytest.param("Zm9v\n", id="a line feed at the end"),
        pytest.param("Zm9é", id="a letter outside ASCII"),
    ],
)
def test_base64url_that_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="base64url"):
        read_base64url(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 17 + '"\\' * 30_000, id="escapes in a string that never ends"),
        pytest.param("[" * 17 + '"' * 60_001, id="quotes"),
        pytest.param("[" * 17 + '"a' * 30_000, id="a string that never ends after many"),
        pytest.param("[" * 17 + "\\" * 60_000, id="backslashes"),
    ],
)
def test_a_text_is_measured_in_one_pass(text: str) -> None:
    """Quadratic, this would take minutes; linear, it takes milliseconds."""
    begun = time.process_time()
    with pytest.raises(ValueError):  # noqa: PT011 - refused, whatever is wrong with it first
        read_object(text, limit=100_000)
    assert time.process_time() - begun < 5
