"""Calls from pages in a browser: which origins may make them, with which headers, and what they may read."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from language import examples

from cors import LONGEST, MOST_NAMES, Cors, asks, preflight, shown, valid
from policy import METHODS

APP = "https://app.example.com"
CORS = Cors((APP, "http://localhost:3000"), ("x-custom",), ("etag",), False, 600)
ANY = CORS._replace(headers=("*",))


def asked(origin: str = APP, method: str | None = "POST", headers: str | None = None) -> dict[str, str]:
    sent = {"origin": origin}
    if method is not None:
        sent["access-control-request-method"] = method
    if headers is not None:
        sent["access-control-request-headers"] = headers
    return sent


@pytest.mark.parametrize(
    ("method", "headers", "is_one"),
    [
        pytest.param("OPTIONS", asked(), True, id="a preflight"),
        pytest.param("OPTIONS", asked(method=None), False, id="OPTIONS from a page"),
        pytest.param("OPTIONS", {}, False, id="OPTIONS from anywhere"),
        pytest.param("OPTIONS", {"access-control-request-method": "GET"}, False, id="without an origin"),
        pytest.param("GET", asked(), False, id="another method"),
    ],
)
def test_what_a_preflight_is(method: str, headers: dict[str, str], is_one: bool) -> None:
    assert asks(method, headers) is is_one


def test_the_answer_to_a_preflight() -> None:
    assert preflight(CORS, asked(headers="authorization,content-type,x-custom")) == {
        "access-control-allow-origin": APP,
        "access-control-allow-methods": "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT",
        "access-control-allow-headers": "authorization, content-type, x-custom",
        "access-control-max-age": "600",
        "vary": "origin, access-control-request-method, access-control-request-headers",
    }


def test_the_answer_to_a_preflight_that_asks_for_no_headers_and_may_send_cookies() -> None:
    answer = preflight(CORS._replace(credentials=True), asked())
    assert answer is not None
    assert answer["access-control-allow-credentials"] == "true"
    assert "access-control-allow-headers" not in answer


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_that_policy_knows_may_be_asked_for(method: str) -> None:
    assert preflight(CORS, asked(method=method)) is not None


@pytest.mark.parametrize("method", ["", "post", "TRACE", "CONNECT", "*", "POST, PUT", "POST\n"])
def test_no_other_method_may_be(method: str) -> None:
    assert preflight(CORS, asked(method=method)) is None


@pytest.mark.parametrize(
    "headers",
    [
        "",
        " ",
        "authorization",
        "AUTHORIZATION",
        "x-custom",
        " X-Custom\t,\tdpop ",
        "airgate-role,airgate-dag-id,airgate-anything",
        "idempotency-key,traceparent,tracestate,if-match,range,accept",
    ],
)
def test_headers_that_may_be_sent(headers: str) -> None:
    answer = preflight(CORS, asked(headers=headers))
    assert answer is not None
    names = answer.get("access-control-allow-headers", "").split(", ")
    assert {name.strip().lower() for name in headers.split(",")} == set(names)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param("x-other", id="one that is not on the list"),
        pytest.param("authorization,x-other", id="one of two"),
        pytest.param("x-custom2", id="that only begins like one on the list"),
        pytest.param("x-airgate-role", id="that only looks like the gate's own"),
        pytest.param("*", id="an asterisk, where there is none on the list"),
        pytest.param("cookie", id="a cookie"),
        pytest.param("authorization,,dpop", id="an empty name"),
        pytest.param("authorization\nset-cookie", id="a line feed"),
        pytest.param("airgate-\u00fc", id="a character that names have not"),
        pytest.param("airgate-role: x", id="a header and not a name"),
    ],
)
def test_headers_that_may_not_be_sent(headers: str) -> None:
    assert preflight(CORS, asked(headers=headers)) is None


def test_an_asterisk_lets_all_headers_through_unless_cookies_are() -> None:
    answer = preflight(ANY, asked(headers="x-a,authorization,x-b"))
    assert answer is not None
    assert answer["access-control-allow-headers"] == "x-a, authorization, x-b"
    assert preflight(ANY._replace(credentials=True), asked(headers="x-a")) is None
    assert preflight(ANY, asked(headers="x a")) is None


def test_what_a_preflight_asks_for_is_bounded() -> None:
    names = [f"x-{number}" for number in range(MOST_NAMES)]
    assert preflight(ANY, asked(headers=",".join(names))) is not None
    assert preflight(ANY, asked(headers=",".join([*names, "x"]))) is None
    assert preflight(ANY, asked(headers="x" * LONGEST)) is not None
    assert preflight(ANY, asked(headers="x" * (LONGEST + 1))) is None


ORIGINS = [
    # as sent; whether it is one at all
    pytest.param(APP, True, id="a name"),
    pytest.param("http://app.example.com:8080", True, id="a port"),
    pytest.param("http://localhost", True, id="this machine"),
    pytest.param("http://127.0.0.1:3000", True, id="an address"),
    pytest.param("https://[2001:db8::1]:8443", True, id="an address of IPv6"),
    pytest.param("http://app.example.com:443", True, id="another scheme's port"),
    pytest.param("https://app.example.com:65535", True, id="the highest port"),
    pytest.param("null", False, id="null"),
    pytest.param("", False, id="nothing"),
    pytest.param("*", False, id="an asterisk"),
    pytest.param("https://*.example.com", False, id="an asterisk in a name"),
    pytest.param("HTTPS://app.example.com", False, id="a scheme in upper case"),
    pytest.param("https://App.example.com", False, id="a name in upper case"),
    pytest.param("https://app.example.com/", False, id="a path"),
    pytest.param("https://app.example.com.", False, id="a dot at the end"),
    pytest.param("https://app.example.com:443", False, id="the usual port, written down"),
    pytest.param("http://app.example.com:80", False, id="http's usual port"),
    pytest.param("https://app.example.com:0443", False, id="a port with a zero in front"),
    pytest.param("https://app.example.com:65536", False, id="a port that there is not"),
    pytest.param("https://app.example.com:", False, id="a colon without a port"),
    pytest.param("https://user@app.example.com", False, id="a user"),
    pytest.param("https://app.example.com?x", False, id="a query"),
    pytest.param("https://app.example.com#x", False, id="a fragment"),
    pytest.param("https://app..example.com", False, id="an empty label"),
    pytest.param("https://app.example.com https://b.example.com", False, id="two of them"),
    pytest.param("https://app.example.com\n", False, id="a line feed"),
    pytest.param(" https://app.example.com", False, id="white space"),
    pytest.param("https://\uff41pp.example.com", False, id="another letter a"),
    pytest.param("ftp://app.example.com", False, id="another scheme"),
    pytest.param("chrome-extension://abc", False, id="a browser's extension"),
    pytest.param("//app.example.com", False, id="no scheme"),
    pytest.param("app.example.com", False, id="a host only"),
]


@pytest.mark.parametrize(("origin", "is_one"), ORIGINS)
def test_what_an_origin_is(origin: str, is_one: bool) -> None:
    assert valid(origin) is is_one


@pytest.mark.parametrize(("origin", "is_one"), ORIGINS)
def test_an_origin_is_answered_only_when_it_is_on_the_list(origin: str, is_one: bool) -> None:
    """Even a list that holds what it should not hold matches no more than an origin."""
    listed = CORS._replace(origins=(origin,))
    for cors, may in ((listed, is_one), (CORS._replace(origins=("https://other.example.com",)), False)):
        answer = preflight(cors, asked(origin))
        assert (answer is not None) is may
        assert ("access-control-allow-origin" in shown(cors, origin)) is may
        if answer is not None:
            assert answer["access-control-allow-origin"] == origin


@pytest.mark.parametrize(
    "origin",
    [
        "http://app.example.com", "https://app.example.com:8443", "https://app.example.com.evil.example.com",
        "https://evilapp.example.com", "https://app.example.co", "https://example.com", "http://localhost",
        "http://localhost:30000",
    ],
)  # fmt: skip
def test_origins_are_compared_whole(origin: str) -> None:
    assert preflight(CORS, asked(origin)) is None
    assert shown(CORS, origin) == {"vary": "origin"}


def test_an_answer_that_a_page_may_read() -> None:
    assert shown(CORS._replace(credentials=True), APP) == {
        "access-control-allow-origin": APP,
        "access-control-allow-credentials": "true",
        "access-control-expose-headers": "airgate-decision, airgate-error, airgate-policy, airgate-request-id, "
        "location, retry-after, www-authenticate, etag",
        "vary": "origin",
    }
    assert "access-control-allow-credentials" not in shown(CORS, APP)


@pytest.mark.parametrize("origin", [None, "null", "https://other.example.com"])
def test_an_answer_for_anybody_else_says_only_what_it_hangs_on(origin: str | None) -> None:
    assert shown(CORS, origin) == {"vary": "origin"}


@pytest.mark.parametrize(
    ("vary", "after"),
    [
        pytest.param("accept", "accept, origin", id="another header"),
        pytest.param("Accept,  Origin", "Accept,  Origin", id="there already"),
        pytest.param("origin-trial", "origin-trial, origin", id="a name that begins like it"),
        pytest.param("*", "*", id="everything"),
        pytest.param("accept, *", "accept, *", id="everything, among others"),
        pytest.param("", "origin", id="nothing"),
        pytest.param(" ", "origin", id="white space"),
    ],
)
def test_what_a_cache_must_tell_apart_is_added_to(vary: str, after: str) -> None:
    assert shown(CORS, APP, vary)["vary"] == after
    assert shown(CORS, None, vary)["vary"] == after


@given(
    st.text(st.characters(codec="latin-1"), max_size=40) | st.sampled_from([APP, "null"]),
    st.sampled_from(["GET", "POST", "TRACE", ""]),
    st.text(st.sampled_from("axz-,* \n:*\u00fc"), max_size=12),
    st.booleans(),
)
@settings(max_examples=examples(1000))
def test_nothing_but_what_is_listed_is_ever_said(
    origin: str, method: str, names: str, credentials: bool
) -> None:
    cors = ANY._replace(credentials=credentials)
    for answer in (preflight(cors, asked(origin, method, names)), shown(cors, origin)):
        if answer is not None and answer != {"vary": "origin"}:
            assert origin == APP
            assert answer["access-control-allow-origin"] == APP
            assert all(value.isprintable() and value.isascii() for value in answer.values())
            assert "*" not in answer["access-control-allow-origin"]
