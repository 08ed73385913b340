"""What an upstream is told of the call as it reached the gate, and that nobody else gets a word in."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from language import examples

from forwarded import LONGEST, told

GATE = "https://gate.example.com"

# RFC 7239 §4: an element is pairs of a token and a token or a quoted string.
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
ELEMENT = re.compile(rf'{_TOKEN}=(?:{_TOKEN}|"[^"\\]*")(?:;{_TOKEN}=(?:{_TOKEN}|"[^"\\]*"))*')


@pytest.mark.parametrize(
    ("client", "origin", "expected"),
    [
        pytest.param(
            "192.0.2.60",
            GATE,
            {
                "forwarded": "for=192.0.2.60;host=gate.example.com;proto=https",
                "x-forwarded-for": "192.0.2.60",
                "x-forwarded-host": "gate.example.com",
                "x-forwarded-proto": "https",
            },
            id="all plain",
        ),
        pytest.param(
            "2001:DB8::17",
            "http://localhost:8787",
            {
                "forwarded": 'for="[2001:db8::17]";host="localhost:8787";proto=http',
                "x-forwarded-for": "2001:db8::17",
                "x-forwarded-host": "localhost:8787",
                "x-forwarded-proto": "http",
            },
            id="an address of IPv6, and a port",
        ),
        pytest.param(
            "::1",
            "http://[::1]:8787",
            {
                "forwarded": 'for="[::1]";host="[::1]:8787";proto=http',
                "x-forwarded-for": "::1",
                "x-forwarded-host": "[::1]:8787",
                "x-forwarded-proto": "http",
            },
            id="a gate at an address of IPv6",
        ),
        pytest.param(
            None,
            GATE,
            {
                "forwarded": "for=unknown;host=gate.example.com;proto=https",
                "x-forwarded-host": "gate.example.com",
                "x-forwarded-proto": "https",
            },
            id="a caller without an address",
        ),
    ],
)
def test_what_is_told(client: str | None, origin: str, expected: dict[str, str]) -> None:
    assert dict(told(client, origin, "ledger")) == {**expected, "x-forwarded-prefix": "/ledger"}


@pytest.mark.parametrize(
    "client",
    [
        "", "unknown", "192.0.2.1, 198.51.100.1", "192.0.2.1:80", "[2001:db8::1]", "fe80::1%eth0",
        'fe80::1%";for=x', "fe80::1%\n", "192.0.2.1\n", "192.0.2.256", "0300.0.2.1", "1", "localhost",
        "::1" + " " * 100,
    ],
)  # fmt: skip
def test_a_caller_whose_address_is_none_is_unknown(client: str) -> None:
    headers = dict(told(client, GATE, "ledger"))
    assert headers["forwarded"].startswith("for=unknown;")
    assert "x-forwarded-for" not in headers


@pytest.mark.parametrize(
    "origin",
    [
        pytest.param("", id="nothing"),
        pytest.param("https://", id="no host"),
        pytest.param('https://gate.example.com";for=10.0.0.1', id="a quote"),
        pytest.param("https://gate.example.com;for=10.0.0.1", id="a semicolon"),
        pytest.param("https://gate.example.com,for=10.0.0.1", id="a comma"),
        pytest.param("https://gate.example.com\r\nx: y", id="a line break"),
        pytest.param("https://gate.example.com\n", id="a line feed at the end"),
        pytest.param("https://user@gate.example.com", id="a user"),
        pytest.param("https://gate.example.com:", id="a colon without a port"),
        pytest.param("https://gate.example.com:123456", id="a port that there is not"),
        pytest.param("https://g\u00e4te.example.com", id="another script"),
        pytest.param("https://" + "g" * (LONGEST + 1), id="too long a name"),
        pytest.param("https://[::1", id="half a bracket"),
        pytest.param("https://[0]", id="brackets without an address"),
        pytest.param("ftp://gate.example.com", id="another scheme"),
    ],
)
def test_a_host_that_is_not_plainly_one_is_left_out(origin: str) -> None:
    expected = {"forwarded": "for=192.0.2.1", "x-forwarded-for": "192.0.2.1", "x-forwarded-prefix": "/ledger"}
    assert dict(told("192.0.2.1", origin, "ledger")) == expected


_HOSTS = st.text('ag.:[]0-_/@";,=\\ \n\u00fc', max_size=20)


@given(
    st.none() | st.ip_addresses().map(str) | st.text("0123456789abcdef.:%\";\n", max_size=40),
    st.sampled_from(["http://", "https://", ""]).flatmap(lambda scheme: _HOSTS.map(lambda host: scheme + host)),
)  # fmt: skip
@settings(max_examples=examples(2000))
def test_whatever_is_said_of_a_call_it_is_one_element(client: str | None, origin: str) -> None:
    headers = dict(told(client, origin, "ledger"))
    assert ELEMENT.fullmatch(headers["forwarded"])
    pairs = dict(pair.split("=", 1) for pair in headers["forwarded"].split(";"))
    assert pairs.keys() <= {"for", "host", "proto"}
    assert pairs.get("host", "").strip('"') == headers.get("x-forwarded-host", "")
    assert pairs["for"].strip('"[]') == headers.get("x-forwarded-for", "unknown")
    for value in headers.values():
        assert value.isascii()
        assert value.isprintable()
        assert not set(value) & set(",\\ ")
