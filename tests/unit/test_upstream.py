"""Upstreams as the bundle names them: which addresses are refused, and what the rest of the settings becomes."""

from typing import Any

import pytest
from world import upstream

from breaker import Settings
from cors import Cors
from document import Reader
from headers import Rule
from upstream import Upstream, inside, load_upstream

HEADER = {"kind": "header", "secret": "UPSTREAM_A", "header": "x_api_key", "format": "{secret}"}


def load(**changes: Any) -> Upstream:
    return load_upstream(Reader(upstream(**changes), "it"))


def test_the_plain_one() -> None:
    assert load() == Upstream(
        "https://upstream.example.com", "ledger@example.com", 30, False, forwarded=False
    )


def test_everything_at_once() -> None:
    cors = {
        "origins": ["https://a.example"],
        "headers": ["x-a"],
        "expose": ["etag"],
        "credentials": True,
        "max_age": 60,
    }
    read = load(
        via="VIA_LEDGER",
        hosts=["ledger.example.com", "[::1]:8443"],
        encoded_slash="segment",
        empty_segments=True,
        request_headers=["accept", "x-*"],
        set_headers={"x-version": "2"},
        forwarded=True,
        cors=cors,
        assertion=True,
        max_body=10,
        total_timeout=60,
        retries=2,
        concurrency=3,
        breaker={"failures": 2, "ratio": 0.25, "open": 5},
        credential="main",
        credentials={"main": HEADER, "aws": {"kind": "caller"}},
    )
    assert read._replace(credentials={}) == Upstream(
        base="https://upstream.example.com",
        owner="ledger@example.com",
        timeout=30,
        log_path=False,
        via="VIA_LEDGER",
        hosts=("ledger.example.com", "[::1]:8443"),
        encoded_slash=True,
        empty_segments=True,
        rule=Rule(("accept", "x-*"), frozenset({"x-version", "x-api-key", "authorization"})),
        set_headers=(("x-version", "2"),),
        forwarded=True,
        cors=Cors(("https://a.example",), ("x-a",), ("etag",), True, 60),
        assertion=True,
        max_body=10,
        total_timeout=60,
        retries=2,
        limits=Settings(2, 0.25, 5, 3),
        credential="main",
    )
    assert set(read.credentials) == {"main", "aws"}


def test_what_a_signature_would_cover_is_not_the_callers_to_choose() -> None:
    aws = {
        "kind": "sigv4",
        "secret": "UPSTREAM_A",
        "region": "eu-central-1",
        "service": "s3",
        "payload": "signed",
    }
    assert load(credentials={"aws": aws}).rule.named_only == ("x-amz-",)
    assert load(credentials={"main": HEADER}).rule.named_only == ()


def test_without_a_breaker_the_cap_stays() -> None:
    assert load(breaker=None, concurrency=3).limits == Settings(failures=None, concurrency=3)


@pytest.mark.parametrize(
    "base",
    [
        "https://ledger.example.com",
        "https://ledger.example.com:8443/api/v1",
        "https://8.8.8.8",
        "https://[2606:4700::1111]:443",
        "http://127.0.0.1:9500/ledger",
        "http://localhost",
        "http://[::1]:80",
        "https://127.0.0.1",
    ],
)
def test_addresses_that_may_be_called(base: str) -> None:
    assert load(base=base).base == base


# What only this machine or its network reaches, in the spellings that have carried others past a check.
INSIDE = [
    "10.0.0.1", "172.16.3.4", "192.168.1.1", "127.0.0.2", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "192.0.2.1", "240.0.0.1", "[fe80::1]", "[fc00::1]", "[fd12::1]", "[::]", "[ff02::1]",
    "[::ffff:10.0.0.1]", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[2002:a00:1::1]", "[::7f00:1]",
    "db", "metadata.google.internal", "printer.local", "a.b.internal.", "nas.lan", "x.home.arpa", "API.LOCALHOST",
]  # fmt: skip


@pytest.mark.parametrize("host", INSIDE)
def test_private_addresses_must_be_allowed(host: str) -> None:
    assert inside(host)
    with pytest.raises(ValueError, match="private: true"):
        load(base=f"https://{host}/x")
    assert load(base=f"https://{host}/x", private=True).base == f"https://{host}/x"


@pytest.mark.parametrize(
    "host", ["example.com", "internal.example.com", "8.8.8.8", "[2606:4700::1111]", "a.co", "xn--a.example"]
)
def test_public_addresses(host: str) -> None:
    assert not inside(host)


@pytest.mark.parametrize(
    "base",
    [
        "http://ledger.example.com",
        "ftp://ledger.example.com",
        "ledger.example.com",
        "//ledger.example.com",
        "https://",
        "https://ledger.example.com/",
        "https://ledger.example.com/a//b",
        "https://ledger.example.com/.",
        "https://ledger.example.com/../a",
        "https://ledger.example.com/.well-known",
        "https://ledger.example.com/a%2Fb",
        "https://ledger.example.com?a",
        "https://ledger.example.com#a",
        "https://user@ledger.example.com",
        "https://user:pass@ledger.example.com",
        "https://ledger.example.com\\@evil.example",
        "https://ledger.example.com:port",
        "https://ledger.example.com:123456",
        "https://lädger.example.com",
        "https://ledger.example.com\n",
        "https://2130706433",
        "https://0x7f.1",
        "https://127.1",
        "https://0177.0.0.1",
        "https://1.2.3.4.5",
        "https://[::1",
        "https://[12345::1]",
        "https://[fe80::1%25eth0]",
    ],
)
def test_addresses_that_are_refused_whatever_is_allowed(base: str) -> None:
    for private in (False, True):
        with pytest.raises(ValueError, match=r"^it\.base"):
            load(base=base, private=private)


def test_a_binding_may_lead_to_a_network_of_its_own() -> None:
    assert load(base="http://ledger.internal:8080", via="VIA_LEDGER").via == "VIA_LEDGER"
    with pytest.raises(ValueError, match=r"^it\.base"):
        load(base="http://a@ledger.internal", via="VIA_LEDGER")


CORS = {
    "origins": ["https://a.example"],
    "headers": [],
    "expose": [],
    "credentials": False,
    "max_age": 60,
}


@pytest.mark.parametrize(
    ("member", "given"),
    [
        ("via", "LEDGER"),
        ("via", "VIA_ledger"),
        ("hosts", ["Ledger.example.com"]),
        ("hosts", ["a b"]),
        ("hosts", ["a/b"]),
        ("hosts", ["a:port"]),
        ("encoded_slash", "allow"),
        ("request_headers", ["X-A"]),
        ("request_headers", ["x a"]),
        ("request_headers", ["x-*-y "]),
        ("set_headers", {"authorization": "Basic abc"}),
        ("set_headers", {"host": "evil.example"}),
        ("set_headers", {"x-forwarded-for": "1.1.1.1"}),
        ("set_headers", {"x-a": "1\r\nx-b: 2"}),
        ("set_headers", {"x-a": ""}),
        ("cors", {**CORS, "origins": []}),
        ("cors", {**CORS, "origins": ["*"]}),
        ("cors", {**CORS, "origins": ["null"]}),
        ("cors", {**CORS, "max_age": 86_401}),
        ("max_body", -1),
        ("timeout", 0),
        ("timeout", 3601),
        ("total_timeout", 0),
        ("retries", 6),
        ("retries", -1),
        ("concurrency", 0),
        ("breaker", {"failures": 0, "ratio": 0.5, "open": 10}),
        ("breaker", {"failures": 5, "ratio": 0, "open": 10}),
        ("breaker", {"failures": 5, "ratio": 1.1, "open": 10}),
        ("breaker", {"failures": 5, "ratio": 0.5, "open": 0}),
        ("credential", "main"),
        ("credentials", {"Main": HEADER}),
    ],
)
def test_settings_that_are_refused(member: str, given: Any) -> None:
    with pytest.raises(ValueError, match=rf"^it\.{member}"):
        load(**{member: given})
