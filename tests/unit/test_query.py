"""Queries on record: names, and values only where policy lists them. No other character of a query is ever told."""

import json
import re
from base64 import urlsafe_b64encode
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query import LONGEST, LONGEST_KEPT, MOST, MOST_VALUES, OTHER, told

NONE: frozenset[str] = frozenset()
LIMIT = frozenset({"limit"})


@pytest.mark.parametrize(
    ("query", "shown", "expected"),
    [
        pytest.param("?", NONE, {}, id="nothing"),
        pytest.param("?a=1", NONE, {"a": None}, id="one name"),
        pytest.param("?a=1&b=2&a=3", NONE, {"a": None, "b": None}, id="a name twice"),
        pytest.param("?limit=1&q=2&limit=3", LIMIT, {"limit": ["1", "3"], "q": None}, id="listed values"),
        pytest.param("?limit=", LIMIT, {"limit": [""]}, id="a listed name with an empty value"),
        pytest.param("?limit", LIMIT, {"limit": [""]}, id="a listed word"),
        pytest.param("?limit=a=b", LIMIT, {"limit": ["a=b"]}, id="an equals sign in a value"),
        pytest.param("?limits=1&Limit=2&xlimit=3", LIMIT, {"limits": None, "Limit": None, "xlimit": None},
                     id="names that are like a listed one"),
        pytest.param("?%6cimit=1", LIMIT, {OTHER: None}, id="a listed name, encoded"),
        pytest.param("?&&a=1&", NONE, {"a": None}, id="empty parts"),
        pytest.param("?=secret", NONE, {OTHER: None}, id="a value without a name"),
        pytest.param("?secret", NONE, {OTHER: None}, id="a bare word"),
        pytest.param("?c2VjcmV0=", NONE, {OTHER: None}, id="base64 with one sign of padding"),
        pytest.param("?c2VjcmV0LXR==", NONE, {OTHER: None}, id="base64 with two"),
        pytest.param("?a=1;secret=2", NONE, {"a": None}, id="a semicolon"),
        pytest.param("?limit=1;secret=2", LIMIT, {"limit": ["1"]}, id="a semicolon in a listed value"),
        pytest.param("?a;secret=2", NONE, {OTHER: None}, id="a semicolon in a name"),
        pytest.param("?a=1&amp;secret=2", NONE, {"a": None, OTHER: None}, id="an entity of HTML"),
        pytest.param("?a%3dsecret", NONE, {OTHER: None}, id="an encoded equals sign"),
        pytest.param("?a=1%26secret=2", NONE, {"a": None}, id="an encoded ampersand"),
        pytest.param("?a+secret=2", NONE, {OTHER: None}, id="a space in a name"),
        pytest.param("?a?secret=2", NONE, {OTHER: None}, id="a second question mark"),
        pytest.param("?a/secret=2", NONE, {OTHER: None}, id="a path in a name"),
        pytest.param("?9f86d081=2", NONE, {OTHER: None}, id="a name that begins with a digit"),
        pytest.param("?filter[id]=2&x[]=3", NONE, {"filter[id]": None, "x[]": None}, id="brackets"),
        pytest.param("?f[a][b]=2", NONE, {OTHER: None}, id="more brackets"),
        pytest.param("?" + "a" * 40 + "=1", NONE, {"a" * 40: None}, id="the longest name"),
        pytest.param("?" + "a" * 41 + "=1", NONE, {OTHER: None}, id="a longer one"),
        pytest.param('?"},"decision":"deny=1', NONE, {OTHER: None}, id="JSON"),
        pytest.param("?limit=\\", LIMIT, {"limit": ["\\"]}, id="a backslash"),
        pytest.param("?\u00e9=1&limit=\u00e9\n", LIMIT, {OTHER: None, "limit": ["\u00e9\n"]},
                     id="what no address has"),
        pytest.param("?secret&?=1", frozenset({"?"}), {"?": None}, id="a listed name that stands for others"),
    ],
)  # fmt: skip
def test_a_query_on_record(query: str, shown: frozenset[str], expected: dict[str, Any]) -> None:
    text = told(query, shown)
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text) == expected


def test_the_first_names_and_values_are_told() -> None:
    many = "?" + "&".join([f"n{number}={number}" for number in range(1000)])
    assert json.loads(told(many, NONE)) == {f"n{number}": None for number in range(MOST)}
    values = "?" + "&".join([f"limit={number}" for number in range(1000)])
    assert json.loads(told(values, LIMIT)) == {"limit": [str(number) for number in range(MOST_VALUES)]}
    assert json.loads(told("?limit=" + "x" * 5000, LIMIT)) == {"limit": ["x" * LONGEST]}


def test_the_same_text_under_other_settings_is_another_one() -> None:
    """A query that is remembered is remembered with what may be shown of it."""
    assert json.loads(told("?limit=7", LIMIT)) == {"limit": ["7"]}
    assert json.loads(told("?limit=7", NONE)) == {"limit": None}
    assert json.loads(told("?limit=7", LIMIT)) == {"limit": ["7"]}


ODD = st.text(st.characters(), max_size=12)
PARTS = st.lists(
    st.tuples(
        ODD | st.sampled_from(["limit", "q", "", "a[b]"]), st.sampled_from(["=", "", "==", "%3D"]), ODD
    ),
    max_size=50,
)


@given(PARTS, st.booleans())
def test_nothing_but_names_and_listed_values_is_told(parts: list[tuple[str, str, str]], padded: bool) -> None:
    query = "?" + "&".join(["".join(part) for part in parts]) + ("x" * LONGEST_KEPT if padded else "")
    text = told(query, LIMIT)
    assert text.isascii()
    assert text.isprintable()
    read = json.loads(text)
    assert len(read) <= MOST
    for name, values in read.items():
        if name == "limit":
            assert 0 < len(values) <= MOST_VALUES
            assert all(len(value) <= LONGEST and value in query for value in values)
        else:
            assert values is None
            assert name == OTHER or re.fullmatch(
                r"[A-Za-z_][\w.\-]{0,39}(\[[\w.\-]{0,39}\])?", name, re.ASCII
            )


@given(st.binary(min_size=9, max_size=30), st.sampled_from(["hex", "upper", "base64", "percent", "plain"]))
def test_a_secret_is_told_in_no_encoding_wherever_it_stands_but_as_a_name(secret: bytes, how: str) -> None:
    text = {
        "hex": secret.hex(),
        "upper": secret.hex().upper(),
        "base64": urlsafe_b64encode(secret + bytes(3 - len(secret) % 3 + 1)).decode(),
        "percent": quote(secret, safe=""),
        "plain": "s-" + secret.hex(),
    }[how]
    for query in (
        f"?q={text}",
        f"?{text}",
        f"?q=1&{text}&r=2",
        f"?={text}",
        f"?q=1;{text}",
        f"?q={text}&limit=1",
    ):
        assert text.rstrip("=") not in told(query, LIMIT)
