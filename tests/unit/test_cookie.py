"""Cookies: an upstream's come back to it, and to no other behind the same host."""

from http.cookiejar import CookieJar
from types import SimpleNamespace
from typing import Any, cast
from urllib.request import Request

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookie import LONGEST, scoped
from model import Target

TARGET = Target("GET", "ledger", ("v1",), "/v1", "")
BASE = "https://ledger.example.com/api"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("a=b", "a=b; Path=/ledger", id="a plain one"),
        pytest.param("a=b; Path=/", "a=b; Path=/ledger", id="for the whole host"),
        pytest.param("a=b; path=/api", "a=b; Path=/ledger", id="for the whole upstream"),
        pytest.param("a=b; Path=/api/v1/", "a=b; Path=/ledger/v1", id="for a part of it"),
        pytest.param("a=b; Path=/apis", "a=b; Path=/ledger", id="for a path that begins alike"),
        pytest.param("a=b; Path=/crm", "a=b; Path=/ledger", id="for another's"),
        pytest.param("a=b; Path=/api/../crm", "a=b; Path=/ledger", id="for another's by dots"),
        pytest.param("a=b; Path=/api//x", "a=b; Path=/ledger", id="for a path of nothing"),
        pytest.param("a=b; Path=v1", "a=b; Path=/ledger", id="for no path"),
        pytest.param("a=b; Path=/api/v1; Path=/api/v2", "a=b; Path=/ledger/v2", id="twice: the last counts"),
        pytest.param("a=b; Domain=example.com", "a=b; Path=/ledger", id="for a domain"),
        pytest.param("a=b; DOMAIN = example.com ; PATH =/", "a=b; Path=/ledger", id="in capitals"),
        pytest.param(
            "a=b; Secure; HttpOnly; SameSite=Lax; Max-Age=5",
            "a=b; Secure; HttpOnly; SameSite=Lax; Max-Age=5; Path=/ledger",
            id="with attributes",
        ),
        pytest.param("a=b; Expires=Wed, 21 Oct 2026 07:28:00 GMT", None, id="with a date"),
        pytest.param("", "; Path=/ledger", id="nothing"),
    ],
)
def test_a_cookie_is_its_upstreams(value: str, expected: str | None) -> None:
    assert scoped(value, TARGET, BASE) == (expected if expected is not None else f"{value}; Path=/ledger")


@pytest.mark.parametrize("value", ["a=\r\nX: y", "a=\x00", "a=" + "b" * LONGEST])
def test_what_cannot_be_read_is_left_out(value: str) -> None:
    assert scoped(value, TARGET, BASE) is None


PIECES = [
    "a=b",
    "Path",
    "path",
    "Domain",
    "=",
    ";",
    "; ",
    "/",
    "/api",
    "/crm",
    "..",
    " ",
    "example.com",
    ",",
    "%2e",
]


@given(st.lists(st.sampled_from(PIECES), max_size=8))
def test_whatever_an_upstream_says_no_other_gets_its_cookie(pieces: list[str]) -> None:
    jar = CookieJar()
    value = scoped("a=b;" + "".join(pieces), TARGET, BASE)
    assert value is not None
    answer = SimpleNamespace(
        info=lambda: SimpleNamespace(get_all=lambda name, other: [value] * (name == "Set-Cookie"))
    )
    jar.extract_cookies(cast(Any, answer), Request("https://gate.example.com/ledger/v1"))
    for other in (
        "https://gate.example.com/crm/v1",
        "https://gate.example.com/",
        "https://example.com/ledger",
    ):
        request = Request(other)
        jar.add_cookie_header(request)
        assert not request.has_header("Cookie"), value
