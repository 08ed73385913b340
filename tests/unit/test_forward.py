"""One reading of a URL or none, and an outbound call by an allow rule. Cases are named after what broke others."""

import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import NOW, inbound

import escapes
from forward import (
    LONGEST_KEPT,
    MAX_SEGMENTS,
    MAX_URL,
    fits,
    outbound,
    parse_target,
    refuse_unsendable,
)
from model import EMPTY_SEGMENT, ENCODED_SLASH, Denied, Inbound, Outbound, Reason, Target
from traceparent import read
from upstream import Upstream

GATE = "https://gate.example.com"


def parsed(url: str, method: str = "GET") -> Target:
    return parse_target(method, url)


def refused(url: str, method: str = "GET") -> Reason:
    with pytest.raises(Denied) as caught:
        parse_target(method, url)
    return caught.value.reason


READ = [
    # the URL after the origin; upstream, segments, path, query
    pytest.param("", "", (), "", "", id="nothing"),
    pytest.param("/", "", (), "", "", id="a slash"),
    pytest.param("//l", "", ("l",), "/l", "", id="no name before the path, which no upstream has"),
    pytest.param("/ledger", "ledger", (), "", "", id="an upstream alone"),
    pytest.param("/ledger/", "ledger", (), "/", "", id="an upstream and a slash"),
    pytest.param("/ledger/v1", "ledger", ("v1",), "/v1", "", id="one segment"),
    pytest.param("/ledger/v1/", "ledger", ("v1",), "/v1/", "", id="a slash at the end stays on the way out"),
    pytest.param("/ledger/v1?", "ledger", ("v1",), "/v1", "?", id="an empty query"),
    pytest.param("/ledger?a=/../x", "ledger", (), "", "?a=/../x", id="dots in a query are text"),
    pytest.param(
        "/ledger/v1?a=b?c=%41&d", "ledger", ("v1",), "/v1", "?a=b?c=%41&d", id="a query is left as it is"
    ),
    pytest.param("?a", "", (), "", "?a", id="a query alone"),
    pytest.param("/-/health", "-", ("health",), "/health", "", id="the gate's own page"),
    pytest.param("/l/%41%2d%7e", "l", ("A-~",), "/A-~", "", id="escapes that nothing needs are undone"),
    pytest.param("/l/%c3%a4", "l", ("ä",), "/%C3%A4", "", id="escapes are written in upper case"),
    pytest.param("/l/%C3%A4", "l", ("ä",), "/%C3%A4", "", id="lower-case and upper-case hex are one path"),
    pytest.param("/l/a%20b", "l", ("a b",), "/a%20b", "", id="a space"),
    pytest.param(
        "/l/%3f%23%40", "l", ("?#@",), "/%3F%23%40", "", id="delimiters that were escaped stay escaped"
    ),
    pytest.param(
        "/l/a@b:c=d,e+f!$&'()*", "l", ("a@b:c=d,e+f!$&'()*",), "/a@b:c=d,e+f!$&'()*", "", id="sub-delims"
    ),
    pytest.param(
        "/l/.well-known/a..b", "l", (".well-known", "a..b"), "/.well-known/a..b", "", id="dots in names"
    ),
    pytest.param(
        "/l/100%25", "l", ("100%",), "/100%25", "", id="an escaped percent sign with nothing after it"
    ),
    pytest.param(
        "/l/100%25zz", "l", ("100%zz",), "/100%25zz", "", id="an escaped percent sign before no hex"
    ),
    pytest.param(
        "/%6cedger/v1", "ledger", ("v1",), "/v1", "", id="an upstream with an escape that nothing needs"
    ),
    pytest.param(
        "/l" + "/a" * MAX_SEGMENTS, "l", ("a",) * MAX_SEGMENTS, "/a" * MAX_SEGMENTS, "", id="many segments"
    ),
]


@pytest.mark.parametrize(("rest", "upstream", "segments", "path", "query"), READ)
def test_the_one_reading(rest: str, upstream: str, segments: tuple[str, ...], path: str, query: str) -> None:
    assert parsed(GATE + rest) == Target("GET", upstream, segments, path, query)


AMBIGUOUS = [
    # Istio #27409, Oathkeeper GHSA-p224-6x5r-fjpm, Envoy CVE-2023-27487: the path that policy saw was not
    # the path that the upstream saw.
    pytest.param("/l/a/../b", id="a dot segment"),
    pytest.param("/l/..", id="a dot segment at the end"),
    pytest.param("/l/../", id="a dot segment and a slash"),
    pytest.param("/../l", id="a dot segment for an upstream"),
    pytest.param("/./l", id="a single dot for an upstream"),
    pytest.param("/l/./a", id="a single dot"),
    pytest.param("/l/.", id="a single dot at the end"),
    pytest.param("/l/%2e%2e/b", id="an encoded dot segment"),
    pytest.param("/l/%2E%2E/b", id="an encoded dot segment in upper case"),
    pytest.param("/l/.%2e/b", id="a half encoded dot segment"),
    pytest.param("/l/%2e./b", id="the other half encoded"),
    pytest.param("/l/%2e/b", id="an encoded single dot"),
    pytest.param("/%2e%2e/l", id="an encoded dot segment for an upstream"),
    pytest.param("/l%2fa", id="an encoded slash in an upstream"),
    pytest.param("/l/a%5cb", id="an encoded backslash"),
    pytest.param("/l/a%5Cb", id="an encoded backslash in upper case"),
    pytest.param("/l/a\\b", id="a backslash"),
    pytest.param("/l/..\\b", id="a dot segment with a backslash"),
    pytest.param("/l/a;b=c", id="a path parameter"),
    pytest.param("/l/..;/a", id="a dot segment with a parameter"),
    pytest.param("/l/%3b", id="an encoded path parameter"),
    pytest.param("/l/..%3b/a", id="a dot segment with an encoded parameter"),
    pytest.param("/l/...", id="three dots, which some servers cut"),
    pytest.param("/l/..%20/a", id="a dot segment with a space behind it"),
    pytest.param("/l/%20", id="only a space"),
    pytest.param("/l;x/a", id="an upstream with a parameter"),
    pytest.param("/l/%252e%252e", id="a dot segment encoded twice"),
    pytest.param("/l/a%252fb", id="a slash encoded twice"),
    pytest.param("/l/a%2541", id="a letter encoded twice"),
    pytest.param("/l/%25%34%31", id="a letter encoded twice, piece by piece"),
    pytest.param("/l/a%00", id="an encoded NUL"),
    pytest.param("/l/a\x00", id="a NUL"),
    pytest.param("/l/a%0d%0ab", id="an encoded line break"),
    pytest.param("/l/a%09", id="an encoded tab"),
    pytest.param("/l/%7f", id="an encoded DEL"),
    pytest.param("/l/%c2%85", id="an encoded C1 control character"),
    pytest.param("/l/%c0%ae%c0%ae/a", id="an overlong dot"),
    pytest.param("/l/a%c0%afb", id="an overlong slash"),
    pytest.param("/l/%e0%80%af", id="a longer overlong slash"),
    pytest.param("/l/%ed%a0%80", id="an encoded surrogate"),
    pytest.param("/l/%ff", id="an octet that is not UTF-8"),
    pytest.param("/l/%c3", id="half a character"),
]


@pytest.mark.parametrize("rest", AMBIGUOUS)
def test_a_path_with_two_readings_is_refused(rest: str) -> None:
    assert refused(GATE + rest) is Reason.ROUTE_PATH_AMBIGUOUS


MALFORMED = [
    pytest.param(GATE + "/l/a#b", id="a fragment"),
    pytest.param(GATE + "/l#", id="an empty fragment"),
    pytest.param(GATE + "/l?a#b", id="a fragment after the query, as in oauth2-proxy CVE-2025-54576"),
    pytest.param(GATE + "#/l", id="a fragment before the path"),
    pytest.param(GATE + "/l/a b", id="a space"),
    pytest.param(GATE + "/l/ä", id="a letter outside ASCII"),
    pytest.param(GATE + "/l/a\tb", id="a tab"),
    pytest.param(GATE + "/l/a\n", id="a line feed"),
    pytest.param(GATE + '/l/"', id="a quote"),
    pytest.param(GATE + "/l/<a>", id="angle brackets"),
    pytest.param(GATE + "/l/[a]", id="square brackets"),
    pytest.param(GATE + "/l/{a}", id="braces"),
    pytest.param(GATE + "/l/a|b", id="a bar"),
    pytest.param(GATE + "/l/a^b", id="a caret"),
    pytest.param(GATE + "/l/%", id="a percent sign alone"),
    pytest.param(GATE + "/l/%4", id="half an escape"),
    pytest.param(GATE + "/l/%zz", id="an escape that is not hex"),
    pytest.param(GATE + "/l/%u002e", id="an escape of another kind"),
    pytest.param(GATE + "/l?a b", id="a space in the query"),
    pytest.param(GATE + "/l?ä", id="a letter outside ASCII in the query"),
    pytest.param(GATE + "/l?a\r\nHost: b", id="a line break in the query"),
    pytest.param(GATE + "/l?a\x00", id="a NUL in the query"),
    pytest.param(GATE + '/l?"', id="a quote in the query"),
    pytest.param(GATE + "/l?<a>", id="angle brackets in the query"),
    pytest.param(GATE + "/l?%", id="a percent sign alone in the query"),
    pytest.param(GATE + "/l?%4", id="half an escape in the query"),
    pytest.param(GATE + "/l?%zz", id="an escape that is not hex in the query"),
    pytest.param("/l/a", id="no origin"),
    pytest.param("", id="nothing"),
    pytest.param("ftp://gate/l", id="another scheme"),
    pytest.param("HTTPS://gate/l", id="a scheme that the runtime would have written small"),
    pytest.param("*", id="the asterisk form"),
    pytest.param("gate.example.com:443", id="the authority form"),
    pytest.param(GATE + "/l/" + "a" * MAX_URL, id="a long address"),
    pytest.param(GATE + "/l" + "/a" * (MAX_SEGMENTS + 1), id="one segment too many"),
]


@pytest.mark.parametrize("url", MALFORMED)
def test_an_address_that_cannot_be_read_is_refused(url: str) -> None:
    assert refused(url) is Reason.ROUTE_MALFORMED


@pytest.mark.parametrize("first", ["l", "%C3%A9"])
def test_a_path_may_have_so_many_escapes(first: str) -> None:
    url = f"{GATE}/{first}/" + "%C3%A9" * ((escapes.MOST - first.count("%")) // 2)
    assert parsed(url).segments == ("é" * ((escapes.MOST - first.count("%")) // 2),)
    assert refused(url + "%41") is Reason.ROUTE_MALFORMED
    assert parsed(url + "?" + "%41" * 100).segments


def test_readings_of_long_addresses_are_not_remembered() -> None:
    short = f"{GATE}/l/".ljust(LONGEST_KEPT, "b")
    assert parsed(short) is parsed(short)
    assert parsed(short + "b") == parsed(short + "b")
    assert parsed(short + "b") is not parsed(short + "b")


def test_the_longest_address_is_read() -> None:
    url = f"{GATE}/l/".ljust(MAX_URL, "a")
    assert len(parsed(url).segments) == 1
    assert refused(url + "a") is Reason.ROUTE_MALFORMED


@pytest.mark.parametrize("tail", ['"', "%", " "])
@pytest.mark.parametrize("unit", ["%41", "%", "a", "/a", "/", "%2541"])
@pytest.mark.parametrize("start", ["/l/", "/l?"])
def test_a_long_address_that_is_refused_at_its_end_is_refused_at_once(
    start: str, unit: str, tail: str
) -> None:
    long = unit * 24  # where a pattern reads one escape in two ways, 24 of them are read in 16 million
    begun = time.process_time()
    with pytest.raises(Denied):
        parsed(GATE + start + long + tail)
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_methods_that_are_passed_on(method: str) -> None:
    assert parsed(GATE + "/l", method).method == method


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "get", "", "PROPFIND", "GET ", "*"])
def test_methods_that_are_not(method: str) -> None:
    assert refused(GATE + "/l", method) is Reason.REQUEST_METHOD


@given(st.text(alphabet="ab/.%2eEfF5cC;\\?#@~ä \x00", max_size=30))
def test_what_is_read_is_canonical(rest: str) -> None:
    """Parsing what goes out again gives the same target: there is nothing left to be read in another way."""
    try:
        target = parsed(GATE + "/" + rest)
    except Denied:
        return
    assert parsed(f"{GATE}/{quote(target.upstream)}{target.path}{target.query}") == target
    assert not {".", ".."} & {part for segment in target.segments for part in segment.split("/")}
    assert not any(character in segment for segment in target.segments for character in "\\\0")
    assert bool(target.odd & EMPTY_SEGMENT) is ("" in target.segments)
    assert bool(target.odd & ENCODED_SLASH) is any("/" in segment for segment in target.segments)
    assert target.path.removesuffix("/").count("/") == len(target.segments)


SEGMENT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="/\\%;"), min_size=1
)


@given(st.lists(SEGMENT.filter(lambda text: text.strip(". ")), max_size=5))
def test_every_name_can_be_said(segments: list[str]) -> None:
    escaped = ["".join(f"%{octet:02x}" for octet in segment.encode()) for segment in segments]
    if sum([len(segment.encode()) for segment in segments]) <= escapes.MOST:
        assert parsed("/".join([GATE, "l", *escaped])).segments == tuple(segments)


@pytest.mark.parametrize(
    ("method", "body", "sendable"),
    [
        pytest.param("GET", False, True, id="GET"),
        pytest.param("GET", True, False, id="GET with a body"),
        pytest.param("HEAD", False, True, id="HEAD"),
        pytest.param("HEAD", True, False, id="HEAD with a body"),
        pytest.param("POST", True, True, id="POST with a body"),
        pytest.param("POST", False, True, id="POST without a body"),
        pytest.param("DELETE", True, True, id="DELETE with a body"),
    ],
)
def test_bodies(method: str, body: bool, sendable: bool) -> None:
    request = inbound(method=method, body=body)
    if sendable:
        refuse_unsendable(request)
    else:
        with pytest.raises(Denied) as caught:
            refuse_unsendable(request)
        assert caught.value.reason is Reason.REQUEST_BODY_NOT_ALLOWED


UPSTREAM = Upstream("https://ledger.example.com/api", "o@example.com", 2.5, True, forwarded=False)


def sent(headers: dict[str, str], rest: str = "/ledger/v1") -> Outbound:
    request = Inbound("f" * 32, NOW, "POST", GATE + rest, headers, False)
    return outbound(request, parsed(request.url, "POST"), UPSTREAM, read(headers, request.request_id))


def test_the_call_is_made_of_the_target_and_the_upstream() -> None:
    call = sent({"accept": "a/b", "authorization": "Bearer x", "host": "gate"}, "/ledger/v1/%41/?q=%41")
    trace = {"traceparent": f"00-{'f' * 32}-{'f' * 16}-00"}
    url = "https://ledger.example.com/api/v1/A/?q=%41"
    assert call == Outbound("POST", url, {"accept": "a/b", **trace}, 2.5)


@pytest.mark.parametrize(
    "rest", ["/ledger", "/ledger/", "/ledger?a", "/ledger/@evil.example", "/ledger/:1@b"]
)
def test_a_path_cannot_change_the_host(rest: str) -> None:
    url = sent({}, rest).url
    assert url == "https://ledger.example.com/api" + rest.removeprefix("/ledger")


KINDS = {
    "plain": UPSTREAM,
    "slashes": UPSTREAM._replace(encoded_slash=True),
    "empty": UPSTREAM._replace(empty_segments=True),
}


@pytest.mark.parametrize(
    ("rest", "segments", "path", "fitting"),
    [
        pytest.param("/l/a/b", ("a", "b"), "/a/b", "plain slashes empty", id="nothing odd"),
        pytest.param("/l/a%2fb", ("a/b",), "/a%2Fb", "slashes", id="an encoded slash"),
        pytest.param("/l/a%2Fb/c", ("a/b", "c"), "/a%2Fb/c", "slashes", id="one in upper case"),
        pytest.param("/l//a", ("", "a"), "//a", "empty", id="an empty segment"),
        pytest.param("/l/a//", ("a", ""), "/a//", "empty", id="an empty segment at the end"),
        pytest.param("/l//", ("",), "//", "empty", id="only an empty segment"),
        pytest.param("/l/a//b%2Fc", ("a", "", "b/c"), "/a//b%2Fc", "", id="both"),
    ],
)
def test_some_upstreams_take_what_others_refuse(
    rest: str, segments: tuple[str, ...], path: str, fitting: str
) -> None:
    target = parsed(GATE + rest)
    assert (target.segments, target.path) == (segments, path)
    for kind, upstream in KINDS.items():
        if kind in fitting.split():
            fits(target, upstream)
        else:
            with pytest.raises(Denied) as caught:
                fits(target, upstream)
            assert caught.value.reason is Reason.ROUTE_PATH_AMBIGUOUS


def test_the_gates_own_pages_have_no_odd_addresses() -> None:
    for rest in ("/-/health%2F", "/-//health", "/-/a%2Fb"):
        with pytest.raises(Denied):
            fits(parsed(GATE + rest), None)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        pytest.param("upgrade", "websocket", Reason.REQUEST_UPGRADE, id="WebSocket"),
        pytest.param("upgrade", "h2c, websocket", Reason.REQUEST_UPGRADE, id="WebSocket among others"),
        pytest.param("upgrade", "", Reason.REQUEST_UPGRADE, id="an upgrade to nothing"),
        pytest.param("upgrade", "h2c", None, id="an offer of HTTP/2, which nobody need take"),
        pytest.param("content-type", "application/grpc", Reason.REQUEST_GRPC, id="gRPC"),
        pytest.param("content-type", "application/grpc-web+proto", Reason.REQUEST_GRPC, id="gRPC for pages"),
        pytest.param("content-type", "Application/GRPC+proto", Reason.REQUEST_GRPC, id="gRPC in capitals"),
        pytest.param("content-type", "application/json", None, id="JSON"),
    ],
)
def test_protocols_that_are_not_passed_on(name: str, value: str, reason: Reason | None) -> None:
    request = Inbound("f" * 32, NOW, "POST", GATE + "/l", {name: value}, False)
    if reason is None:
        refuse_unsendable(request)
    else:
        with pytest.raises(Denied) as caught:
            refuse_unsendable(request)
        assert caught.value.reason is reason


def test_the_upstream_is_told_who_called_and_how() -> None:
    request = Inbound(
        "f" * 32,
        NOW,
        "GET",
        GATE + "/ledger/v1",
        {"cf-connecting-ip": "192.0.2.1", "x-forwarded-for": "1.1.1.1", "forwarded": "for=1.1.1.1"},
        False,
    )
    upstream = UPSTREAM._replace(forwarded=True, set_headers=(("x-version", "2"),))
    trace = read(request.headers, request.request_id)
    told = outbound(request, parsed(request.url), upstream, trace).headers
    assert (
        told["forwarded"] == f"for=192.0.2.1;host={GATE.partition('://')[2]};proto={GATE.partition(':')[0]}"
    )
    assert told["x-forwarded-for"] == "192.0.2.1"
    assert told["x-forwarded-prefix"] == "/ledger"
    assert told["x-version"] == "2"
