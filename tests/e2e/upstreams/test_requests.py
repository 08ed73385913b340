"""What goes out to an upstream, and what never does: bodies that are too large, upgrades, gRPC, preflights of pages."""

import json
from typing import Any
from urllib.parse import quote

import pytest

APP = "https://app.example.com"


def sent(lab: Any, path: str, method: str = "GET", **headers: str) -> Any:
    """The request as the upstream saw it."""
    answer, _ = lab.ask(path, method, {name.replace("_", "-"): value for name, value in headers.items()})
    assert answer.status == 200
    return json.loads(answer.body)


@pytest.mark.parametrize(
    ("head", "body", "status", "code"),
    [
        pytest.param("Content-Length: 1000", b"a" * 1000, 200, "", id="as much as may be"),
        pytest.param("Content-Length: 1001", b"a" * 1001, 413, "request.body_too_large", id="one byte more"),
        pytest.param("Content-Length: 99999999999", b"", 413, "request.body_too_large", id="far more, by its own word"),
        pytest.param("Transfer-Encoding: chunked", b"0\r\n\r\n", 411, "request.length_required", id="who knows"),
    ],
)  # fmt: skip
def test_bodies_are_bounded_before_they_are_sent(
    lab: Any, hostile: Any, head: str, body: bytes, status: int, code: str
) -> None:
    name = f"small-{head}"
    lines = f"POST /small/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {lab.token}\r\nX-Call: {name}\r\n"
    answer = lab.send(f"{lines}{head}\r\n\r\n".encode() + body)
    assert (answer.status, answer.code, len(hostile.arrivals(name))) == (status, code, int(status == 200))
    if code:
        assert (answer.headers["Airgate-Error"], answer.json()["retryable"]) == ("gate", False)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        pytest.param({"Connection": "Upgrade", "Upgrade": "websocket"}, "request.upgrade", id="a WebSocket"),
        pytest.param({"Content-Type": "application/grpc"}, "request.grpc", id="gRPC"),
        pytest.param({"Content-Type": "Application/gRPC+proto"}, "request.grpc", id="gRPC with protobuf"),
        pytest.param({"Content-Type": "application/grpc-web"}, "request.grpc", id="gRPC-Web"),
    ],
)
def test_what_the_gate_cannot_pass_on(lab: Any, hostile: Any, headers: dict[str, str], code: str) -> None:
    method = "POST" if "Content-Type" in headers else "GET"
    answer, call = lab.ask("/plain/x", method, headers, b"a" if method == "POST" else b"")
    assert (answer.status, answer.code, hostile.arrivals(call)) == (501, code, [])
    assert (answer.headers["Airgate-Error"], answer.json()["retryable"]) == ("gate", False)
    [decision] = lab.events(answer)
    assert (decision["decision"], decision["reason"]) == ("deny", code)


def test_an_offer_of_another_protocol_goes_no_further(lab: Any, hostile: Any) -> None:
    """RFC 9110 §7.8: a server may answer as if nobody had offered it."""
    seen = sent(
        lab, "/plain/x", Connection="Upgrade, HTTP2-Settings", Upgrade="h2c", HTTP2_Settings="AAMAAABk"
    )
    assert not {"upgrade", "http2-settings", "connection"} & set(seen["headers"])


def test_head_and_options(lab: Any, hostile: Any) -> None:
    answer, call = lab.ask("/plain/x", "HEAD")
    [request] = hostile.arrivals(call)
    assert (answer.status, answer.body, request.method) == (200, b"", "HEAD")
    assert int(answer.headers["Content-Length"]) > 100
    assert sent(lab, "/plain/x", "OPTIONS")["method"] == "OPTIONS"


def test_an_upstream_at_an_address_of_ipv6(lab: Any, hostile_six: Any) -> None:
    if hostile_six is None:
        pytest.skip("this machine has no ::1")
    seen = sent(lab, "/six/v1/x?a=b")
    assert (seen["target"], seen["headers"]["host"]) == ("/six/v1/x?a=b", f"[::1]:{hostile_six.port}")


def test_an_upstream_behind_a_binding(lab: Any, hostile: Any) -> None:
    """Its name is its own: nothing out there has it, and the upstream sees it as its host."""
    seen = sent(lab, "/bound/v1/x?a=b")
    assert (seen["target"], seen["headers"]["host"]) == ("/base/v1/x?a=b", "bound.internal")
    answer, _ = lab.ask(f"/bound/x?play=redirect&to={quote('http://bound.internal/base/y')}")
    assert (answer.status, answer.headers["Location"]) == (302, "/bound/y")
    answer, call = lab.ask("/bound/x", "POST", body=b"the body")
    assert (answer.status, hostile.arrivals(call)[0].body) == (200, b"the body")


def test_a_binding_that_is_not_there(lab: Any) -> None:
    answer, _ = lab.ask("/unbound/x")
    assert (answer.status, answer.code) == (502, "upstream.unreachable")
    assert "VIA_NOBODY" not in str(answer.headers) + answer.body.decode()


def test_what_an_upstream_is_told_of_the_call(lab: Any) -> None:
    planted = {
        "Forwarded": "for=10.0.0.1",
        "X-Forwarded-For": "10.0.0.1",
        "X_Forwarded_Host": "evil.example.net",
    }
    told = sent(lab, "/plain/x", **planted)["headers"]
    assert told["forwarded"] == "for=unknown;host=gate.example.com;proto=http"
    assert {name: value for name, value in told.items() if name.startswith("x-forwarded")} == {
        "x-forwarded-host": "gate.example.com",
        "x-forwarded-proto": "http",
        "x-forwarded-prefix": "/plain",
    }


def test_a_trace_goes_on_or_begins_with_the_requests_id(lab: Any) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    seen = sent(lab, "/plain/x", traceparent=trace, tracestate="a=1")["headers"]
    assert (seen["traceparent"], seen["tracestate"]) == (trace, "a=1")
    answer, _ = lab.ask("/plain/x", headers={"Traceparent": trace + "\u00e9", "Tracestate": "a=1"})
    seen = json.loads(answer.body)["headers"]
    assert seen["traceparent"].split("-")[1] == answer.headers["Airgate-Request-Id"]
    assert "tracestate" not in seen


def preflight(lab: Any, path: str, **headers: str) -> Any:
    asked = {"Origin": APP, "Access-Control-Request-Method": "POST"}
    asked |= {name.replace("_", "-"): value for name, value in headers.items()}
    return lab.call(path, "OPTIONS", headers=asked)  # browsers send no credentials with it


def allowed(answer: Any) -> dict[str, str]:
    return {
        name.lower(): value
        for name, value in answer.headers.items()
        if name.lower().startswith("access-control-")
    }


def test_a_preflight_is_answered_by_the_gate_itself(lab: Any, hostile: Any) -> None:
    before = len(hostile.requests)
    answer = preflight(lab, "/page/x", Access_Control_Request_Headers="authorization,airgate-role,x-custom")
    assert (answer.status, answer.body) == (204, b"")
    assert allowed(answer) == {
        "access-control-allow-origin": APP,
        "access-control-allow-methods": "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT",
        "access-control-allow-headers": "authorization, airgate-role, x-custom",
        "access-control-max-age": "600",
    }
    assert len(hostile.requests) == before
    assert len(lab.events(answer)) == 1


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        pytest.param("/page/x", {"Origin": "https://evil.example.net"}, id="another origin"),
        pytest.param("/page/x", {"Origin": "null"}, id="null"),
        pytest.param("/page/x", {"Access_Control_Request_Headers": "x-other"}, id="another header"),
        pytest.param("/page/x", {"Access_Control_Request_Method": "TRACE"}, id="another method"),
        pytest.param("/plain/x", {}, id="an upstream that is for no page"),
        pytest.param("/nowhere/x", {}, id="no upstream at all"),
    ],
)
def test_a_preflight_that_is_refused_looks_like_any_call_without_a_token(
    lab: Any, path: str, headers: dict[str, str]
) -> None:
    answer = preflight(lab, path, **headers)
    assert (answer.status, answer.code) == (401, "token.missing")
    assert "access-control-allow-methods" not in allowed(answer)
    if headers.get("Origin", APP) != APP or path != "/page/x":
        assert allowed(answer) == {}


def test_a_page_may_read_its_answers_and_refusals(lab: Any) -> None:
    planted = quote(
        "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nVary: Accept"
    )
    answer, _ = lab.ask(f"/page/x?play=headed&to={planted}", headers={"Origin": APP})
    assert (answer.status, answer.headers["Vary"].lower()) == (200, "accept, origin")
    assert answer.headers.get_all("Access-Control-Allow-Origin") == [APP]
    assert "Access-Control-Allow-Credentials" not in answer.headers
    exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"airgate-request-id", "x-shown"} < set(exposed)
    refused = lab.call("/page/x", headers={"Origin": APP})
    assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (401, APP)
    failed, _ = lab.ask("/page/x?play=reset&n=9", headers={"Origin": APP})
    assert (failed.status, failed.headers["Access-Control-Allow-Origin"]) == (502, APP)


@pytest.mark.parametrize(
    "origin", ["https://evil.example.net", "null", "https://app.example.com.evil.example.net"]
)
def test_another_page_may_not(lab: Any, origin: str) -> None:
    planted = quote(f"Access-Control-Allow-Origin: {origin}")
    answer, _ = lab.ask(f"/page/x?play=headed&to={planted}", headers={"Origin": origin})
    assert (answer.status, allowed(answer), answer.headers["Vary"].lower()) == (200, {}, "origin")
    answer, _ = lab.ask(f"/plain/x?play=headed&to={planted}", headers={"Origin": APP})
    assert (answer.status, allowed(answer)) == (200, {})
