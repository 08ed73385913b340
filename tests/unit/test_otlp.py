"""Where telemetry goes, how it is written there, and what is read of an answer."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

import otlp
from otlp import LONGEST, MOST_HEADERS, SERVER, Settings, read_settings

NOW = 1_800_000_000.125
TRACE, PARENT, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "0af7651916cd43dd"


def settings(**variables: str) -> Settings | None:
    return read_settings(Variables(variables))


class Variables:
    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def __call__(self, name: str) -> str:
        return self._variables[name]


def test_nothing_is_exported_unless_somebody_says_where_to() -> None:
    assert settings() is None
    assert settings(OTLP_ENDPOINT=" ", OTLP_HEADERS="a=b", OTLP_RATIO="7") is None


@pytest.mark.parametrize(
    ("text", "endpoint", "host"),
    [
        ("https://collector.example.com", "https://collector.example.com", "collector.example.com"),
        ("https://collector.example.com/", "https://collector.example.com", "collector.example.com"),
        (" https://c.example:4318/otlp/ \n", "https://c.example:4318/otlp", "c.example:4318"),
        ("https://[2001:db8::1]:4318", "https://[2001:db8::1]:4318", "[2001:db8::1]:4318"),
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318", "127.0.0.1:4318"),
        ("http://localhost:4318/a", "http://localhost:4318/a", "localhost:4318"),
        ("http://[::1]:4318", "http://[::1]:4318", "[::1]:4318"),
    ],
)
def test_an_endpoint(text: str, endpoint: str, host: str) -> None:
    assert settings(OTLP_ENDPOINT=text) == Settings(endpoint, host, 1.0, {})


@pytest.mark.parametrize(
    "text",
    [
        "collector.example.com",
        "ftp://collector.example.com",
        "http://collector.example.com",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com:4318",
        "https://user:word@collector.example.com",
        "https://collector.example.com/?key=secret",
        "https://collector.example.com/#a",
        "https://collector.example.com:4318:4318",
        "https://",
        "https://a b",
        "https://collector.example.com/\u00e4",
    ],
)
def test_an_endpoint_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"\AOTLP_ENDPOINT: expected ") as caught:
        settings(OTLP_ENDPOINT=text)
    assert "word" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "ratio"), [("", 1.0), ("0", 0.0), (" 0.25 ", 0.25), ("1", 1.0), ("1e-3", 0.001)]
)
def test_a_ratio(text: str, ratio: float) -> None:
    found = settings(OTLP_ENDPOINT="https://c.example", OTLP_RATIO=text)
    assert found is not None
    assert found.ratio == ratio


@pytest.mark.parametrize("text", ["-0.1", "1.1", "nan", "inf", "half", "50%"])
def test_a_ratio_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"\AOTLP_RATIO: expected a number from 0 to 1\Z"):
        settings(OTLP_ENDPOINT="https://c.example", OTLP_RATIO=text)


def test_a_variable_that_is_a_number_is_to_be_written_in_quotes() -> None:
    def secret(name: str) -> str:
        if name == "OTLP_RATIO":
            raise ValueError("OTLP_RATIO is not a text")
        return {"OTLP_ENDPOINT": "https://c.example"}[name]

    with pytest.raises(ValueError, match=r"\AOTLP_RATIO: write it in quotes\Z"):
        read_settings(secret)


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ("", {}),
        ("api-key=abc", {"api-key": "abc"}),
        ("Authorization=Basic%20dTpw%3D%3D", {"authorization": "Basic dTpw=="}),
        ("authorization=Basic dTpw==", {"authorization": "Basic dTpw=="}),
        (" x-a = 1 , x-b=2,", {"x-a": "1", "x-b": "2"}),
        ("x-a=1%2C2", {"x-a": "1,2"}),
        ("x-a=a+b", {"x-a": "a+b"}),
        ("x-a=1,X-A=2", {"x-a": "2"}),
    ],
)
def test_headers(text: str, headers: dict[str, str]) -> None:
    found = settings(OTLP_ENDPOINT="https://c.example", OTLP_HEADERS=text)
    assert found is not None
    assert found.headers == headers


@pytest.mark.parametrize(
    "text",
    [
        "planted",
        "=planted",
        "planted=",
        "planted=%20",
        "plan ted=1",
        "x-a=planted%0D%0Ax-b: 1",
        "x-a=planted\u00e4",
        "x-a=planted%00",
        "x%0Aa=planted",
        "Host=planted",
        "content-type=planted",
        "Content-Length=planted",
        ",".join(f"x-{number}=planted" for number in range(MOST_HEADERS + 1)),
    ],
)
def test_headers_that_cannot_be_sent_are_not_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=r"\AOTLP_HEADERS: ") as caught:
        settings(OTLP_ENDPOINT="https://c.example", OTLP_HEADERS=text)
    assert "planted" not in str(caught.value)


def test_a_clock_that_was_set_back_ends_nothing_before_its_start() -> None:
    made = json.loads(otlp.span(TRACE, SPAN, None, "GET", SERVER, NOW, NOW - 5, "", flags=1))
    assert made["endTimeUnixNano"] == made["startTimeUnixNano"] == "1800000000125000000"
    [point] = json.loads(otlp.total("a", "1", "", [({}, 1)], NOW, NOW - 5).text)["sum"]["dataPoints"]
    assert point["timeUnixNano"] == point["startTimeUnixNano"]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("text", {"stringValue": "text"}),
        ('"\\\n', {"stringValue": '"\\\n'}),
        ("\u00fc\U0001f600", {"stringValue": "\u00fc\U0001f600"}),
        ("a\ud800b", {"stringValue": "a?b"}),
        ("x" * (LONGEST + 1), {"stringValue": "x" * LONGEST}),
        ("\u00fc" * (LONGEST + 1), {"stringValue": "\u00fc" * LONGEST}),
        (True, {"boolValue": True}),
        (False, {"boolValue": False}),
        (0, {"intValue": "0"}),
        (2**60, {"intValue": str(2**60)}),
        (["a", "b"], {"arrayValue": {"values": [{"stringValue": "a"}, {"stringValue": "b"}]}}),
        (("a",), {"arrayValue": {"values": [{"stringValue": "a"}]}}),
    ],
)
def test_a_value(value: Any, written: dict[str, Any]) -> None:
    assert json.loads(otlp.attributes({"a": value})) == {"key": "a", "value": written}


def test_attributes_that_say_nothing_are_left_out() -> None:
    told: dict[str, Any] = {"a": None, "b": "", "c": [], "d": (), "e": "x", "f": 0}
    assert [one["key"] for one in json.loads(f"[{otlp.attributes(told)}]")] == ["e", "f"]
    assert otlp.joined("", otlp.attributes({"a": 1}), "", otlp.attributes({"b": 2})) == otlp.attributes(
        {"a": 1, "b": 2}
    )
    assert otlp.joined("", "") == otlp.attributes({}) == ""


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"", 0),
        (b"{}", 0),
        (b'{"partialSuccess":{}}', 0),
        (b'{"partialSuccess":null}', 0),
        (b'{"partialSuccess":{"rejectedSpans":"3","errorMessage":"no"}}', 3),
        (b'{"partialSuccess":{"rejectedSpans":3}}', 3),
        (b'{"partialSuccess":{"rejectedDataPoints":"2"}}', 2),
        (b'{"partialSuccess":{"rejectedSpans":"-1"}}', 0),
        (b'{"partialSuccess":{"rejectedSpans":"many"}}', 0),
        (b'{"partialSuccess":{"rejectedSpans":[1]}}', 0),
        (b'{"partialSuccess":{"rejectedSpans":true}}', 1),
        (b'{"partialSuccess":{"rejectedSpans":"' + b"9" * 5000 + b'"}}', 0),
        (b'{"partialSuccess":{"rejectedSpans":1e300}}', 2**53),
        (b"[]", 0),
        (b"OK", 0),
        (b"\xff", 0),
        (b"[" * 20_000, 0),
    ],
)
def test_what_a_collector_did_not_take(body: bytes, count: int) -> None:
    assert otlp.rejected(body) == count


def test_messages_are_compact_ascii() -> None:
    made = otlp.span(
        TRACE, SPAN, PARENT, "GET \u00fc", SERVER, NOW, NOW, otlp.attributes({"a": "\u00fc"}), flags=1
    )
    told = otlp.histogram("a", '"', [0.5, 1], [({"a": "x"}, 1.5, [1, 0, 2])], NOW, NOW)
    assert told.points == 1
    for body in (otlp.traces({"r": "\u00fc"}, "7", [made, made]), otlp.metrics({}, "", [told, told])):
        assert body.isascii()
        assert body == json.dumps(json.loads(body), separators=(",", ":")).encode()
