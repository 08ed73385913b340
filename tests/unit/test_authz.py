"""A proxy's checks: who may ask, what the original request was, and what the proxy is answered."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz import (
    LONGEST,
    PROXY,
    SHORTEST,
    believe,
    dialect,
    permitted,
    read,
    refuse_stray,
    refuse_unenforceable,
    refused,
)
from forward import parse_target
from identity import SAID
from model import Caller, Denied, Fact, Identity, Inbound, Reason, Refusal, Target
from obligations import NOTHING, Limit, Obligations

GATE = "https://gate.example.com"
HOST = "ledger.internal.example.com"
OLD, NEW = "o" * SHORTEST, "n" * SHORTEST
SAID_ALWAYS = {"airgate-request-id": "f" * 32, "airgate-decision": "permit", "airgate-policy": "publish@1"}
CALLER = Caller(
    Identity("company", "finance-etl", "workload", frozenset({"reader", "publisher"}), {}),
    None,
    frozenset({"reader", "publisher"}),
    {"dag": Fact("close", False)},
)


def told(kind: str, address: str = "/v1/entries?q=1", method: str = "POST", **changes: str | None) -> Inbound:
    """A check of this kind of proxy. A change of None leaves a header out; "_" stands for "-"."""
    if kind == "traefik":
        headers = {
            "x-forwarded-method": method,
            "x-forwarded-uri": address,
            "x-forwarded-host": HOST,
            "x-forwarded-proto": "https",
            "x-forwarded-for": "198.51.100.7",
        }
    else:
        headers = {"x-original-host": HOST, "x-original-proto": "https", "airgate-client": "198.51.100.7"}
    if kind == "nginx":
        headers |= {"x-original-method": method, "x-original-uri": address}
    changed = {PROXY: OLD, **headers, **{name.replace("_", "-"): value for name, value in changes.items()}}
    headers = {name: value for name, value in changed.items() if value is not None}
    if kind == "envoy":
        return inbound(f"{GATE}/-/authz/envoy{address}", method, headers)
    return inbound(f"{GATE}/-/authz/{kind}", "GET", headers)


def inbound(url: str, method: str, headers: dict[str, str]) -> Inbound:
    return Inbound("f" * 32, 1_800_000_000.0, method, url, headers, False)


def outcome(parse: Callable[[], Target]) -> Target | Reason:
    """The target, under no upstream's name; or why there is none."""
    try:
        return parse()._replace(upstream="")
    except Denied as denied:
        return denied.reason


KINDS = pytest.mark.parametrize("kind", ["envoy", "nginx", "traefik"])


def wrong(kind: str, *arguments: Any, **changes: Any) -> Reason:
    with pytest.raises(Denied) as caught:
        read(told(kind, *arguments, **changes))
    return caught.value.reason


# Which requests are checks


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/-/authz/envoy", "envoy"),
        ("/-/authz/envoy/v1/entries", "envoy"),
        ("/-/authz/nginx", "nginx"),
        ("/-/authz/traefik?a", "traefik"),
        ("/-/authz/", ""),
        ("/-/authz/Envoy/x", ""),
        ("/-/authz", None),
        ("/-/authzen/envoy", None),
        ("/-/health", None),
        ("/ledger/-/authz/envoy/x", None),
        ("/ledger?/-/authz/envoy/", None),
        ("/%2D/authz/envoy/", None),
        ("//-/authz/envoy/", None),
    ],
)
def test_the_dialect_of_a_url(path: str, expected: str | None) -> None:
    assert dialect(GATE + path) == expected


# Who may ask


@pytest.mark.parametrize(
    ("secrets", "shown"),
    [
        pytest.param(OLD, OLD, id="the only one"),
        pytest.param(f"{OLD} {NEW}", OLD, id="the first of two"),
        pytest.param(f"{OLD}\n{NEW}\n", NEW, id="the second of two, in lines"),
        pytest.param("ä" * SHORTEST, "ä" * SHORTEST, id="beyond ASCII"),
    ],
)
def test_a_proxy_that_shows_a_secret_is_believed(secrets: str, shown: str) -> None:
    believe({PROXY: shown}, secrets)


@pytest.mark.parametrize(
    ("secrets", "headers"),
    [
        pytest.param(OLD, {}, id="none shown"),
        pytest.param(OLD, {PROXY: ""}, id="an empty one"),
        pytest.param(OLD, {PROXY: NEW}, id="another"),
        pytest.param(OLD, {PROXY: OLD + "x"}, id="a longer one"),
        pytest.param(OLD, {PROXY: OLD[:-1]}, id="a shorter one"),
        pytest.param(f"{OLD} {NEW}", {PROXY: f"{OLD} {NEW}"}, id="both at once"),
        pytest.param(OLD, {PROXY: f"{OLD}, {OLD}"}, id="twice"),
        pytest.param(OLD, {"airgate_proxy": OLD}, id="under another name"),
        pytest.param(OLD, {PROXY: "\ud800"}, id="no text"),
        pytest.param(None, {PROXY: OLD}, id="no secret is set"),
        pytest.param("", {PROXY: ""}, id="an empty secret is set"),
        pytest.param(" \n", {PROXY: ""}, id="white space is set"),
        pytest.param(OLD[1:], {PROXY: OLD[1:]}, id="the secret is too short"),
        pytest.param(f"{OLD} short", {PROXY: OLD}, id="one of two is too short"),
        pytest.param(f"{OLD} {NEW} {'x' * SHORTEST}", {PROXY: OLD}, id="three are set"),
    ],
)
def test_nobody_else_is(secrets: str | None, headers: dict[str, str]) -> None:
    with pytest.raises(Denied) as caught:
        believe(headers, secrets)
    assert caught.value.reason is Reason.PROXY_UNKNOWN
    assert OLD not in str(caught.value)


def test_a_proxy_gets_no_answer_from_another_page() -> None:
    refuse_stray({"authorization": "Bearer x"})
    with pytest.raises(Denied) as caught:
        refuse_stray({PROXY: OLD})
    assert caught.value.reason is Reason.PROXY_UNKNOWN


# What the original request was


@KINDS
def test_the_original_request(kind: str) -> None:
    check = read(told(kind, authorization="Bearer x", airgate_dag_id="close", x_change_id="7"))
    assert (check.dialect, check.host) == (kind, HOST)
    target = check.target
    assert (target.method, target.upstream, target.segments) == ("POST", "", ("v1", "entries"))
    assert (target.path, target.query) == ("/v1/entries", "?q=1")
    original = check.inbound
    assert (original.method, original.url) == ("POST", f"https://{HOST}/v1/entries?q=1")
    assert (original.request_id, original.has_body) == ("f" * 32, False)
    expected = {"authorization": "Bearer x", "airgate-dag-id": "close", "x-change-id": "7"}
    client = {} if kind == "traefik" else {"cf-connecting-ip": "198.51.100.7"}
    assert original.headers == expected | client


@KINDS
@given(path=st.text("/.%25efF~a;\\?#@: é", max_size=12))
def test_a_check_reads_a_path_as_a_call_does(kind: str, path: str) -> None:
    """Or refuses it for the same reason."""
    assert outcome(lambda: read(told(kind, "/" + path)).target) == outcome(
        lambda: parse_target("POST", f"{GATE}/ledger/{path}")
    )


@KINDS
@pytest.mark.parametrize(
    ("text", "scheme", "expected"),
    [
        ("Ledger.Internal.example.com", "https", HOST),
        (f"{HOST}:443", "https", HOST),
        (f"{HOST}:80", "http", HOST),
        (f"{HOST}:80", "https", f"{HOST}:80"),
        (f"{HOST}:08443", "https", f"{HOST}:8443"),
        (f"{HOST}:443", "wss", HOST),
        ("[2001:DB8::1]:8443", "https", "[2001:db8::1]:8443"),
        (f"{HOST}.", "https", f"{HOST}."),
    ],
)
def test_the_original_host(kind: str, text: str, scheme: str, expected: str) -> None:
    words = ("x_forwarded_host", "x_forwarded_proto")
    names = words if kind == "traefik" else ("x_original_host", "x_original_proto")
    check = read(told(kind, **dict(zip(names, (text, scheme), strict=True))))
    assert check.host == expected
    assert check.inbound.url.startswith(f"{scheme.replace('ws', 'http')}://{expected}/")


@KINDS
@pytest.mark.parametrize(
    "host",
    [
        "",
        "a b",
        "a/b",
        f"{HOST}, {HOST}",
        f"user@{HOST}",
        "a:123456",
        "a:b",
        "münchen.example",
        "a" * 254,
        "a:",
    ],
)
def test_a_host_that_is_none(kind: str, host: str) -> None:
    name = "x_forwarded_host" if kind == "traefik" else "x_original_host"
    assert wrong(kind, **{name: host}) is Reason.ROUTE_MALFORMED


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("envoy", name) for name in ("x_original_host", "x_original_proto", "airgate_client")),
        *(
            ("nginx", name)
            for name in (
                "x_original_method",
                "x_original_uri",
                "x_original_host",
                "x_original_proto",
                "airgate_client",
            )
        ),
        *(("traefik", f"x_forwarded_{name}") for name in ("method", "uri", "host", "proto")),
    ],
)
def test_a_proxy_that_does_not_set_all_of_its_headers(kind: str, name: str) -> None:
    """It would pass on what its client writes there."""
    assert wrong(kind, **{name: None}) is Reason.ROUTE_MALFORMED


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        pytest.param("/-/authz/envoy", Reason.ROUTE_MALFORMED, id="no path"),
        pytest.param("/-/authz/envoy?a=1", Reason.ROUTE_MALFORMED, id="a query only"),
        pytest.param(
            "/-/authz/envoy*", Reason.ROUTE_MALFORMED, id="an asterisk: OPTIONS for the whole server"
        ),
        pytest.param("/-/authz/envoyage", Reason.ROUTE_MALFORMED, id="a longer dialect"),
        pytest.param("/-/authz/caddy/v1", Reason.ROUTE_MALFORMED, id="an unknown dialect"),
        pytest.param("/-/authz/nginx/v1", Reason.ROUTE_MALFORMED, id="a path, where a header tells it"),
        pytest.param("/-/authz/traefik?a=1", Reason.ROUTE_MALFORMED, id="a query, where a header tells it"),
        pytest.param("/-/authz/envoy/../../-/health", Reason.ROUTE_PATH_AMBIGUOUS, id="a way out"),
        pytest.param("/-/authz/envoy/..%2f..%2fhealth", Reason.ROUTE_PATH_AMBIGUOUS, id="a way out, encoded"),
        pytest.param("/-/authz/envoy/" + "x" * 8192, Reason.ROUTE_MALFORMED, id="too long"),
    ],
)
def test_the_address_of_a_check(url: str, reason: Reason) -> None:
    headers = {name: value for kind in ("nginx", "traefik") for name, value in told(kind).headers.items()}
    with pytest.raises(Denied) as caught:
        read(inbound(GATE + url, "GET", headers))
    assert caught.value.reason is reason


@pytest.mark.parametrize("kind", ["nginx", "traefik"])
@pytest.mark.parametrize("address", ["", "v1", "?a=1", "*", "https://other.example.com/v1"])
def test_an_address_that_is_no_path(kind: str, address: str) -> None:
    assert wrong(kind, address) is Reason.ROUTE_MALFORMED


@KINDS
@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "get", "GET, POST", ""])
def test_a_method_that_no_call_may_have(kind: str, method: str) -> None:
    assert wrong(kind, "/v1", method) is Reason.REQUEST_METHOD


@KINDS
def test_a_scheme_of_something_else(kind: str) -> None:
    name = "x_forwarded_proto" if kind == "traefik" else "x_original_proto"
    assert wrong(kind, **{name: "ftp"}) is Reason.ROUTE_MALFORMED


@KINDS
def test_an_empty_segment_is_seen(kind: str) -> None:
    """Whether it may be there is for `forward.fits` to say, of the upstream."""
    assert read(told(kind, "//v1")).target == parse_target("POST", f"{GATE}/x//v1")._replace(upstream="")


@KINDS
def test_what_a_proxy_says_does_not_pass_for_what_its_client_says(kind: str) -> None:
    said = (
        "cf_connecting_ip",
        "cf_ipcountry",
        "x_real_ip",
        "x_envoy_internal",
        "x_forwarded_for",
        "x_original_url",
    )
    check = read(told(kind, airgate_client="", **dict.fromkeys((*said, "content_length", "host"), "7")))
    assert check.inbound.headers == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2001:DB8::1", "2001:db8::1"),
        ("unix:", None),
        ("", None),
        ("198.51.100.7, 203.0.113.1", None),
        ("198.51.100.7:1234", None),
    ],
)
def test_the_clients_address(text: str, expected: str | None) -> None:
    check = read(told("nginx", airgate_client=text, cf_connecting_ip="203.0.113.9"))
    assert check.inbound.headers.get("cf-connecting-ip") == expected


def test_a_client_behind_traefik_does_not_choose_its_own_address() -> None:
    check = read(told("traefik", airgate_client="198.51.100.7", cf_connecting_ip="203.0.113.9"))
    assert "cf-connecting-ip" not in check.inbound.headers


# What a check cannot do


@pytest.mark.parametrize(
    ("obligations", "named"),
    [(Obligations(credential="main"), "credential"), (Obligations(max_body=0), "max_body")],
)
def test_what_only_a_gate_that_forwards_can_do(obligations: Obligations, named: str) -> None:
    with pytest.raises(Denied) as caught:
        refuse_unenforceable(obligations)
    assert caught.value.reason is Reason.POLICY_OBLIGATION
    assert named in caught.value.detail
    assert named in caught.value.hint


@pytest.mark.parametrize(
    "obligations",
    [
        NOTHING,
        Obligations(limits=(Limit(5, 10, ("subject",), ""),), headers=("x-change-id",), justification=True),
    ],
)
def test_what_a_check_can_do(obligations: Obligations) -> None:
    refuse_unenforceable(obligations)


# The answers


def answer(kind: str = "nginx", caller: Caller = CALLER, assertion: str | None = None) -> Refusal:
    return permitted(read(told(kind)), caller, SAID_ALWAYS, assertion)


@KINDS
def test_a_permit_says_who_called(kind: str) -> None:
    permit = answer(kind)
    assert (permit.status, permit.body) == (200, "")
    expected = {
        "cache-control": "no-store",
        **SAID_ALWAYS,
        "airgate-issuer": "company",
        "airgate-subject": "finance-etl",
        "airgate-roles": "publisher,reader",
    }
    told_to_remove = permit.headers.pop("x-envoy-auth-headers-to-remove", None)
    assert permit.headers == expected
    assert (told_to_remove is not None) == (kind == "envoy")


def test_the_roles_are_those_of_the_tag() -> None:
    assert answer(caller=CALLER._replace(effective=frozenset())).headers["airgate-roles"] == ""
    tagged = CALLER._replace(tagged=("reader",), effective=frozenset({"reader"}))
    assert answer(caller=tagged).headers["airgate-roles"] == "reader"


def test_envoy_takes_out_what_the_gate_has_read() -> None:
    named = answer("envoy").headers["x-envoy-auth-headers-to-remove"].split(",")
    assert {"authorization", "dpop", "airgate-token", PROXY, "airgate-client", *SAID} <= set(named)
    assert "airgate-assertion" in named


def test_an_assertion_is_passed_on() -> None:
    headers = answer("envoy", assertion="a.b.c").headers
    assert headers["airgate-assertion"] == "a.b.c"
    assert "airgate-assertion" not in headers["x-envoy-auth-headers-to-remove"].split(",")


@given(st.text(max_size=80))
def test_any_subject_is_safe_in_a_header_and_reads_back(subject: str) -> None:
    identity = CALLER.identity._replace(subject=subject)
    text = answer(caller=CALLER._replace(identity=identity)).headers["airgate-subject"]
    assert all("!" <= character <= "~" and character not in ',"\\<>' for character in text)
    assert unquote(text) == subject


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("auth0|5f7c8ec7c33c6c004bbafe82", "auth0|5f7c8ec7c33c6c004bbafe82"),
        ("https://login.example.com/u@1", "https://login.example.com/u@1"),
        ("a\r\nAirgate-Roles: admin", "a%0D%0AAirgate-Roles:%20admin"),
        ("100 %, ja", "100%20%25%2C%20ja"),
        ("Müller", "M%C3%BCller"),
        ("\ud800", "%ED%A0%80"),
    ],
)
def test_how_a_subject_is_written(subject: str, expected: str) -> None:
    identity = CALLER.identity._replace(subject=subject)
    assert answer(caller=CALLER._replace(identity=identity)).headers["airgate-subject"] == expected


def test_a_name_without_room_is_refused_and_never_cut() -> None:
    long = CALLER.identity._replace(subject="ä" * (LONGEST // 6 + 1))
    many = frozenset(f"role-{number:05}" for number in range(LONGEST // 10))
    for caller in (CALLER._replace(identity=long), CALLER._replace(effective=many)):
        with pytest.raises(Denied) as caught:
            answer(caller=caller)
        assert caught.value.reason is Reason.POLICY_OBLIGATION
    assert len(answer(caller=CALLER._replace(identity=long._replace(subject="x" * LONGEST))).headers) == 7


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, 403),
        (401, 401),
        (403, 403),
        (404, 403),
        (411, 403),
        (413, 403),
        (429, 503),
        (501, 503),
        (503, 503),
    ],
)
def test_a_refusal_for_nginx_has_a_status_that_nginx_knows(status: int, expected: int) -> None:
    body = json.dumps({"code": "limit.rate", "status": status})
    refusal = Refusal(status, {"airgate-request-id": "f" * 32, "retry-after": "60"}, body)
    said = refused("nginx", refusal)
    assert (said.status, said.body) == (expected, body)
    assert said.headers == {**refusal.headers, "airgate-status": str(status), "airgate-reason": "limit.rate"}
    for other in ("envoy", "traefik", ""):
        assert refused(other, refusal) == refusal
