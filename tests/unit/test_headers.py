"""Which headers pass in either direction. Cases are named after what broke others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headers import Rule, concerning, passes, passing, reserved, sendable, settable, valid

PASSED = [
    "accept",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "content-encoding",
    "content-language",
    "content-type",
    "cookie",
    "date",
    "dnt",
    "etag",
    "idempotency-key",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "origin",
    "pragma",
    "prefer",
    "range",
    "referer",
    "user-agent",
    "x-api-key",
    "x-csrf-token",
    "x-request-id",
    "x-team-cf-zone",
    "cfx",
    "authorization-info",
    "x-forwardxed",
    "hostname",
    "x-tea",
]

HOP_BY_HOP = (
    "connection keep-alive proxy-connection te trailer transfer-encoding upgrade content-length expect host"
)
# oauth2-proxy CVE-2026-40575 and its like: only a proxy may say these.
SPOOFABLE = """
    forwarded via x-real-ip x-client-ip x-cluster-client-ip true-client-ip fastly-client-ip x-host
    x-http-method x-http-method-override x-method-override remote-user x-forwarded-for x-forwarded-host
    x-forwarded-proto x-forwarded-uri x-forwarded-method x-forwarded-prefix x-forwarded x-original-url
    x-original-uri x-original-host x-rewrite-url x-envoy-original-path x-envoy-external-address
    x-auth-request-user x-auth-request-email x-remote-user remote-groups remote-name remote-email
    x-webauth-groups x-authenticated-groups x-consumer-username x-amzn-mtls-clientcert-subject
    x-arr-clientcert x-ms-token-aad-id-token x-azure-clientip x-endpoint-api-userinfo
    x-apigateway-api-userinfo x-serverless-authorization x-appengine-user-email x-userinfo
    x-pomerium-jwt-assertion tailscale-user-login oidc-claim-sub impersonate-user
    x-middleware-subrequest x-originating-ip x-url-scheme x-jwt-assertion http2-settings
    cf-connecting-ip cf-ray cf-access-jwt-assertion cf-ipcountry
"""
OWN = """authorization dpop proxy-authorization proxy-authenticate airgate-token airgate-role airgate-dag-id
    airgate-anything x-airgate-user traceparent tracestate"""
KEPT_BACK = f"{HOP_BY_HOP} {SPOOFABLE} {OWN}".split()


@pytest.mark.parametrize("name", PASSED)
def test_headers_that_are_passed_on(name: str) -> None:
    assert passes(name, Rule())


# Traefik CVE-2026-39858: some servers read x_user and x.user as x-user.
@pytest.mark.parametrize("spelling", ["-", "_", "."], ids=["as they are", "with _ for -", "with . for -"])
@pytest.mark.parametrize("name", KEPT_BACK)
def test_headers_that_are_kept_back(name: str, spelling: str) -> None:
    assert not passes(name.replace("-", spelling), Rule())


@pytest.mark.parametrize(
    "name", ["", "a b", "a:b", "a\nb", "a\x00", "ä", "Accept", "a,b", "a/b", "a(b)", 'a"b']
)
def test_names_that_are_no_header_names_are_kept_back(name: str) -> None:
    assert not passes(name, Rule())


@pytest.mark.parametrize(
    ("connection", "passed"),
    [
        pytest.param("close", {"x-a", "x-b"}, id="it names nothing else"),
        pytest.param("x-a", {"x-b"}, id="it names one"),
        pytest.param("X-A", {"x-b"}, id="it names one in upper case"),
        pytest.param("close, x-a,\tx-b", set(), id="it names two"),
        pytest.param("x-a , x-c", {"x-b"}, id="it names one that is not there"),
        pytest.param("", {"x-a", "x-b"}, id="it is empty"),
    ],
)
def test_headers_named_by_connection_are_for_this_connection_only(connection: str, passed: set[str]) -> None:
    assert set(passing({"connection": connection, "x-a": "1", "x-b": "2"}, Rule())) == passed


def test_only_what_is_allowed_is_passed_on_however_often_it_is_asked() -> None:
    for value in ("first", "second"):
        headers = dict.fromkeys([*PASSED, *KEPT_BACK], value)
        assert passing(headers, Rule()) == dict.fromkeys(PASSED, value)
        assert passing({**headers, "connection": "cookie"}, Rule()).keys() == set(PASSED) - {"cookie"}
        assert passing({}, Rule()) == {}


@pytest.mark.parametrize(
    ("name", "gate_only"),
    [
        pytest.param("airgate-decision", True, id="airgate-decision"),
        pytest.param("airgate_decision", True, id="airgate_decision"),
        pytest.param("airgate.decision", True, id="airgate.decision"),
        pytest.param("airgate-anything-else", True, id="airgate-anything-else"),
        pytest.param("airgate", False, id="airgate alone"),
        pytest.param("x-airgate-decision", False, id="x-airgate-decision"),
        pytest.param("access-control-allow-origin", True, id="access-control-allow-origin"),
        pytest.param("strict-transport-security", True, id="strict-transport-security"),
        pytest.param("alt-svc", True, id="alt-svc"),
        pytest.param("clear-site-data", True, id="clear-site-data"),
        pytest.param("refresh", True, id="refresh"),
        pytest.param("content-type", False, id="content-type"),
    ],
)
def test_headers_of_an_answer_that_only_the_gate_may_set(name: str, gate_only: bool) -> None:
    assert reserved(name) is gate_only
    assert concerning(f"etag,{name},vary") == ((name,) if gate_only else ())


def test_headers_that_name_places_at_the_gate_are_looked_at() -> None:
    names = "etag,location,set-cookie,set-cookie,content-location,vary"
    assert concerning(names) == ("location", "set-cookie", "content-location")
    assert concerning("") == ()
    assert concerning(",".join(["x" * 3000, "location"])) == ("location",)


def test_what_is_remembered_of_names_is_bounded() -> None:
    long = {"x" * 3000: "1", "cookie": "2", "host": "3"}
    assert set(passing(long, Rule())) == {"x" * 3000, "cookie"}


@pytest.mark.parametrize(
    ("name", "passed"),
    [
        pytest.param("accept", True, id="one that is named"),
        pytest.param("x-team", True, id="one of a family"),
        pytest.param("x-", True, id="the shortest of a family"),
        pytest.param("content-type", False, id="one that isn't"),
        pytest.param("accept-encoding", False, id="one that begins with a name"),
        pytest.param("x-forwarded-for", False, id="of the family, but kept back from all"),
        pytest.param("x_original_url", False, id="of no family, and kept back from all"),
    ],
)
def test_an_upstream_may_name_the_headers_that_it_gets(name: str, passed: bool) -> None:
    assert passes(name, Rule(("accept", "x-*"))) is passed


def test_every_header_may_be_named_at_once() -> None:
    assert set(passing(dict.fromkeys(PASSED + KEPT_BACK, "1"), Rule(("*",)))) == set(PASSED)
    assert passing(dict.fromkeys(PASSED, "1"), Rule(())) == {}


@pytest.mark.parametrize("name", ["x-api-key", "x_api_key", "x.api.key", "x-api_key"])
def test_what_the_gate_sets_no_caller_sets(name: str) -> None:
    rule = Rule(None, frozenset({"x-api-key"}))
    assert passing({name: "forged", "x-api": "1"}, rule) == {"x-api": "1"}


@pytest.mark.parametrize(
    ("only", "passed"),
    [
        pytest.param(None, {"x-a"}, id="nothing is named"),
        pytest.param(("x-*",), {"x-a"}, id="a family is named"),
        pytest.param(("x-amz-acl",), {"x-amz-acl"}, id="one of them is named"),
    ],
)
def test_what_would_be_signed_passes_by_its_whole_name_only(
    only: tuple[str, ...] | None, passed: set[str]
) -> None:
    """A signature with the gate's key must not cover what no policy has read (x-amz-copy-source, x-amz-target)."""
    names = ["x-a", "x-amz-acl", "x-amz-copy-source", "x_amz_target", "x.amz.meta"]
    assert set(passing(dict.fromkeys(names, "1"), Rule(only, named_only=("x-amz-",)))) == passed


@pytest.mark.parametrize(
    ("name", "may"),
    [
        pytest.param("x-api-key", True, id="an API key"),
        pytest.param("authorization", True, id="authorization"),
        pytest.param("cookie", True, id="cookie"),
        pytest.param("cf-access-client-id", True, id="what Cloudflare Access asks for"),
        pytest.param("host", False, id="host"),
        pytest.param("content-length", False, id="content-length"),
        pytest.param("transfer_encoding", False, id="transfer_encoding"),
        pytest.param("forwarded", False, id="forwarded"),
        pytest.param("x-forwarded-for", False, id="x-forwarded-for"),
        pytest.param("traceparent", False, id="traceparent"),
        pytest.param("airgate-assertion", False, id="airgate-assertion"),
        pytest.param("airgate_assertion", False, id="airgate_assertion"),
        pytest.param("proxy-authorization", False, id="proxy-authorization"),
        pytest.param("X-Api-Key", False, id="in capitals"),
        pytest.param("x api", False, id="no name"),
        pytest.param("", False, id="nothing"),
    ],
)
def test_headers_that_settings_may_set(name: str, may: bool) -> None:
    assert settable(name) is may


@given(st.text(st.characters(max_codepoint=300), max_size=6))
def test_a_value_is_printable_without_white_space_around_it(text: str) -> None:
    assert sendable(text) is (text != "" and text.strip() == text and text.isascii() and text.isprintable())


@given(st.text(st.characters(max_codepoint=300), max_size=4))
def test_a_name_is_a_token_in_lower_case(text: str) -> None:
    token = text != "" and all(
        character.isascii() and (character.isalnum() or character in "!#$%&'*+-.^_`|~") for character in text
    )
    assert valid(text) is (token and text == text.lower())
