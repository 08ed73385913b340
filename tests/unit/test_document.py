"""Strict JSON: what is refused, how deep is too deep, and that what is accepted is read as it was written."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from language import examples

from document import Reader, Work, _deeper, read_base64url, read_compiled, read_object

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


def counted(text: str) -> tuple[int, bool, bool]:
    """Character by character: how deep it gets, whether all is closed, and whether a backslash is outside of strings.

    What is behind such a backslash isn't counted: no parser reads on.
    """
    deepest = depth = 0
    closed, inside, escaped = True, False, False
    for character in text:
        if inside:
            inside = escaped or character != '"'
            escaped = not escaped and character == "\\"
        elif character == "\\":
            return deepest, closed and depth == 0, True
        elif character == '"':
            inside = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
            closed = closed and depth >= 0
    return deepest, closed and depth == 0, False


TOKENS = ['"', "\\", "[", "]", "{", "}", '""', '\\"', "\\\\", "[]", '["', '"]', "a", ",", "\ud800"]
PARTS = ["[", "[", "]", "1", ",", '""', '"["', '"]}"', '"\\""', '"\\\\"', '"a\\\\\\"[["', '"\\\\","]"']


def jumble(choices: bytes) -> str:
    return "".join([TOKENS[choice % len(TOKENS)] for choice in choices])


def balanced(choices: bytes) -> str:
    """Whole strings, and brackets that match."""
    text, opened = [], 0
    for choice in choices:
        part = PARTS[choice % len(PARTS)]
        if part != "]" or opened:
            text.append(part)
            opened += {"[": 1, "]": -1}.get(part, 0)
    return "".join(text) + "]" * opened


@given(st.binary(max_size=40).map(jumble) | st.binary(max_size=40).map(balanced), st.integers(0, 6))
@settings(max_examples=examples(2000))
def test_depth_is_what_a_plain_counter_says(text: str, depth: int) -> None:
    deepest, closed, outside = counted(text)
    if outside:  # then the parser stops there, and must not have been too deep before
        assert _deeper(text, depth) or deepest <= depth
    else:
        assert _deeper(text, depth) is (deepest > depth or not closed)


LONG = 1_000_000
HOSTILE = {
    "brackets that nobody closes": "[" * LONG,
    "brackets that nobody opened": "]" * LONG,
    "brackets the wrong way round": "][" * (LONG // 2),
    "pairs of brackets": "[]" * (LONG // 2),
    "as deep as it is long": "[" * (LONG // 2) + "]" * (LONG // 2),
    "just as deep as allowed, again and again": ("[" * 160 + "]" * 160) * (LONG // 320),
    "one level too many, again and again": ("[" * 161 + "]" * 161) * (LONG // 322),
    "escapes in a string that never ends": "[" * 17 + '"\\' * (LONG // 2),
    "quotes": "[" * 17 + '"' * LONG,
    "a string that never ends after many": "[" * 17 + '"a' * (LONG // 2),
    "backslashes": "[" * 17 + "\\" * LONG,
    "backslashes in a string": '"' + "\\" * LONG,
    "strings with brackets": '"["' * (LONG // 3),
    "strings with escaped quotes": '"\\"["' * (LONG // 5),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_text_is_measured_in_linear_time(text: str) -> None:
    """Quadratic, this would take many minutes; linear, it takes a fraction of a second."""
    begun = time.process_time()
    _deeper(text, 160)
    assert time.process_time() - begun < 5
    with pytest.raises(ValueError):  # noqa: PT011 - refused, whatever is wrong with it first
        read_object(text, limit=2 * LONG)
    assert time.process_time() - begun < 8


COMPILED = [
    pytest.param('{"a":[1,"x",null]}', {"a": [1, "x", None]}, id="plain values"),
    pytest.param('{"a":1,"a":2}', {"a": 2}, id="of two equal names the last counts"),
    pytest.param('{"a":1e999}', {"a": float("inf")}, id="a number past all numbers"),
]


@pytest.mark.parametrize(("text", "value"), COMPILED)
def test_what_is_compiled_is_read_more_quickly(text: str, value: dict[str, Any]) -> None:
    assert read_compiled(text, limit=100, depth=2) == value


def test_what_is_compiled_may_hold_nan() -> None:
    assert str(read_compiled('{"a":NaN}', limit=100, depth=2)) == "{'a': nan}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param('{"a":"' + "a" * 100 + '"}', "longer than 100", id="longer than allowed"),
        pytest.param('{"a":[[]]}', "nested more than 2", id="deeper than allowed"),
        pytest.param("[]", "not an object", id="a list"),
        pytest.param("", "Expecting value", id="nothing"),
        pytest.param('{"a":"\\ud800"}', "surrogates", id="a lone surrogate"),
    ],
)
def test_what_is_compiled_is_bounded(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_compiled(text, limit=100, depth=2)


STRANGE: list[Any] = [
    None,
    True,
    0,
    7,
    -1,
    1.5,
    "x",
    "",
    [],
    ["x"],
    [0],
    [7],
    [True],
    [["x"]],
    [[]],
    {},
    {"x": 1},
]
READ = [
    # the method, its other arguments, what it accepts and returns
    pytest.param("one_of", ("x", "y"), [("x", "x")], id="one of some texts"),
    pytest.param("text", (), [("x", "x"), ("", "")], id="a text"),
    pytest.param("number", (0, 7), [(0, 0), (7, 7), (1.5, 1.5)], id="a number"),
    pytest.param("whole", (0, 7), [(0, 0), (7, 7)], id="a whole number"),
    pytest.param("flag", (), [(True, True)], id="true or false"),
    pytest.param("texts", (), [([], ()), (["x"], ("x",))], id="texts"),
    pytest.param("some", (), [(["x"], ("x",))], id="one text at least"),
    pytest.param("some_or_null", (), [(["x"], ("x",)), (None, None)], id="one text at least, or null"),
    pytest.param("array", (), [([], []), (["x"], ["x"]), ([0], [0]), ([7], [7]), ([True], [True]), ([["x"]], [["x"]]),
                                     ([[]], [[]])], id="a list"),
    pytest.param("wholes", (0, 7), [([], ()), ([0], (0,)), ([7], (7,))], id="whole numbers"),
    pytest.param("paths", (), [([], ()), ([["x"]], (("x",),))], id="paths"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "arguments", "accepted"), READ)
def test_a_member_is_what_it_should_be_or_refused(
    method: str, arguments: tuple[Any, ...], accepted: list[tuple[Any, Any]]
) -> None:
    fine = {json.dumps(value): result for value, result in accepted}
    for value in STRANGE:
        reader = Reader({"m": value}, "here")
        if json.dumps(value) in fine:
            assert getattr(reader, method)("m", *arguments) == fine[json.dumps(value)]
            reader.done()
        else:
            with pytest.raises(ValueError, match=r"^here\.m: expected "):
                getattr(reader, method)("m", *arguments)
    with pytest.raises(ValueError, match=r"^here\.m: missing$"):
        getattr(Reader({}, "here"), method)("m", *arguments)


def test_a_reader_says_where_it_stands() -> None:
    reader = Reader({"o": {"l": [{"a": 1}, {"a": "x"}]}, "n": None}, "here")
    first, second = reader.within("o").items("l")
    assert first.number("a", 0, 1) == 1
    with pytest.raises(ValueError, match=r"^here\.o\.l\[1\]\.a: expected a number"):
        second.number("a", 0, 1)
    with pytest.raises(ValueError, match=r"^here\.o: expected a list"):
        reader.items("o")
    with pytest.raises(ValueError, match=r"^here\.n: not an object"):
        reader.within("n")
    assert reader.null("n")
    assert not reader.null("o")
    assert not reader.null("more")
    assert (reader.has("n"), reader.has("more")) == (True, False)
    assert reader.value("n") is None
    reader.done()


def test_what_nobody_asked_for_is_refused() -> None:
    reader = Reader({"a": 1, "c": 1, "b": 1}, "here")
    assert reader.value("a") == 1
    with pytest.raises(ValueError, match=r"^here\.b: not known to this version$"):
        reader.done()


@pytest.mark.parametrize("name", ["a", "0", "a-b", "a" * 63])
def test_names(name: str) -> None:
    assert Reader({name: 1}, "here").names() == [name]


@pytest.mark.parametrize("name", ["", "A", "-a", "a_b", "a.b", "a b", "ä", "a\n", "a" * 64])
def test_names_that_are_refused(name: str) -> None:
    reader = Reader({name: 1}, "here")
    assert reader.all_names() == [name]
    with pytest.raises(ValueError, match="not a name"):
        reader.names()


WORK = Work(strings=8, names=4, structure=32, escapes=8)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        pytest.param('{"a":"b"}', True, id="little"),
        pytest.param('{"a":' + '"' + "b" * 500 + '"}', True, id="a long string is one"),
        pytest.param('{"a":["b","b","b","b","b","b","b"]}     ', True, id="as many strings as there may be"),
        pytest.param('{"a":["b","b","b","b","b","b","b","b"]}', False, id="one string more"),
        pytest.param('{"a":1,"b":1,"c":1,"d":"' + "x" * 50 + '"}', True, id="as many names as there may be"),
        pytest.param('{"a":1,"b":1,"c":1,"d":{"e":"' + "x" * 50 + '"}}', False, id="one name more"),
        pytest.param('{"a":[' + "1," * 23 + '1, "b"]}', True, id="as much else as there may be"),
        pytest.param('{"a":[' + "1," * 30 + '1, "b"]}', False, id="more than that"),
        pytest.param('{"a":"' + r"\"" * 40 + '"}', True, id="quotes in a string are no strings"),
        pytest.param('{"a":"' + r"\\" * 40 + '"}', True, id="backslashes in a string"),
        pytest.param('{"a":"' + r"\u00e9" * 8 + '"}', True, id="as many escapes as there may be"),
        pytest.param('{"a":"' + r"\u00e9" * 9 + '"}', False, id="one escape more"),
        pytest.param('{"a":"' + "{[:" * 40 + '"}', True, id="brackets and colons in a string"),
        pytest.param('{"a":1}' + " " * 90, True, id="white space is nothing"),
    ],
)
def test_there_may_be_only_so_much_to_read(text: str, read: bool) -> None:
    for form in (text, text.encode()):
        assert isinstance(read_object(form, limit=1000), dict)
        if read:
            assert read_object(form, limit=1000, work=WORK) == read_object(form, limit=1000)
        else:
            with pytest.raises(ValueError, match="more"):
                read_object(form, limit=1000, work=WORK)


def test_what_is_too_long_is_not_looked_through() -> None:
    with pytest.raises(ValueError, match="longer than"):
        read_object('{"a":["b","b","b","b","b","b","b","b"]}', limit=10, work=WORK)
