"""Escapes in a path: one spelling for each octet, and nothing else is touched."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escapes import normal


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("", "", id="nothing"),
        pytest.param("/v1/entries", "/v1/entries", id="no escape"),
        pytest.param("/%c3%a9", "/%C3%A9", id="in upper case"),
        pytest.param("/%41%7e%2D%2e%5F", "/A~-._", id="none for what needs none"),
        pytest.param("/%2f%3A%20%25", "/%2F%3A%20%25", id="reserved ones stay"),
        pytest.param("/%2541", "/%2541", id="what comes out is not read again"),
        pytest.param("%41%41", "AA", id="side by side, from the beginning to the end"),
        pytest.param("/%4", "/%4", id="cut short"),
        pytest.param("/%", "/%", id="a percent sign alone"),
        pytest.param("/%%41", "/%A", id="a percent sign before one"),
        pytest.param("/%zz%4g", "/%zz%4g", id="no hex digits"),
        pytest.param("/%\u0664\u0661", "/%\u0664\u0661", id="digits of another script"),
    ],
)
def test_one_spelling(path: str, expected: str) -> None:
    assert normal(path) == expected


@given(st.text("%/4aAfF09zé~-", max_size=40))
def test_as_a_careful_reader_would(path: str) -> None:
    def spelt(match: re.Match[str]) -> str:
        octet = chr(int(match[1], 16))
        return octet if re.fullmatch(r"[A-Za-z0-9._~-]", octet) else match[0].upper()

    assert normal(path) == re.sub("%([0-9A-Fa-f]{2})", spelt, path)
