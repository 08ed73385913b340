"""What the spans of a request tell, and what they never do."""

import json

import pytest
from observed import CLIENT, LOGGED, PARENT, REQUEST, SAMPLED, SERVER, TRACE, Scene

import traceparent
from bundle import OWN
from model import Denied, Reason


def test_a_permitted_call_is_two_spans_of_the_callers_trace() -> None:
    scene = Scene()
    record = scene.known(headers={**SAMPLED, "tracestate": "a=1"})
    assert traceparent.written(record.trace, REQUEST)["traceparent"] == f"00-{TRACE}-{CLIENT}-01"
    scene.forwarded(record)
    server, client = scene.export().spans
    assert server == {
        "traceId": TRACE,
        "spanId": SERVER,
        "parentSpanId": PARENT,
        "name": "GET /ledger/v1/entries/{id}",
        "kind": 2,
        "startTimeUnixNano": "1800000000000000000",
        "endTimeUnixNano": "1800000000250000000",
        "flags": 0x301,
        "traceState": "a=1",
        "attributes": {
            "http.request.method": "GET",
            "http.response.status_code": 200,
            "http.route": "/ledger/v1/entries/{id}",
            "url.scheme": "https",
            "server.address": "gate.example.com",
            "server.port": 443,
            "airgate.request_id": REQUEST,
            "airgate.decision": "permit",
            "airgate.upstream": "ledger",
            "airgate.bundle": "0123456789ab",
            "airgate.sequence": 7,
            "airgate.permits": ["publish", "read"],
            "airgate.shadow": ["try-out"],
            "airgate.issuer": "company",
            "airgate.subject": "finance-etl",
            "airgate.kind": "workload",
            "airgate.roles": ["publisher"],
            "airgate.dag": "close",
            "airgate.run": "r1",
            "airgate.attested": ["dag"],
        },
    }
    assert client == {
        "traceId": TRACE,
        "spanId": CLIENT,
        "parentSpanId": SERVER,
        "name": "GET /v1/entries/{id}",
        "kind": 3,
        "startTimeUnixNano": "1800000000062500000",
        "endTimeUnixNano": "1800000000250000000",
        "flags": 0x101,
        "traceState": "a=1",
        "attributes": {
            "http.request.method": "GET",
            "http.response.status_code": 200,
            "url.scheme": "https",
            "url.template": "/v1/entries/{id}",
            "server.address": "ledger.example.com",
            "server.port": 443,
            "airgate.request_id": REQUEST,
            "airgate.upstream": "ledger",
            "airgate.result": "answered",
        },
    }


def test_a_call_without_a_trace_begins_one_that_has_its_id() -> None:
    scene = Scene()
    scene.forwarded(scene.known())
    server, client = scene.export().spans
    assert server["traceId"] == client["traceId"] == REQUEST
    assert "parentSpanId" not in server
    assert server["flags"] == 0x101


def test_a_path_is_told_where_its_upstream_opted_in_and_a_query_never() -> None:
    scene = Scene()
    scene.forwarded(scene.known(log_path=True), upstream=LOGGED)
    server, client = scene.export().spans
    assert server["attributes"]["url.path"] == "/ledger/v1/entries/7"
    assert client["attributes"]["url.full"] == "https://ledger.example.com/api/v1/entries/7"
    assert "planted" not in json.dumps([body for *_, body in scene.ports.posted])


@pytest.mark.parametrize(
    ("reason", "status", "error"),
    [
        (Reason.TOKEN_EXPIRED, 401, None),
        (Reason.POLICY_NO_MATCH, 403, None),
        (Reason.LIMIT_RATE, 429, None),
        (Reason.ISSUER_UNAVAILABLE, 503, "issuer.unavailable"),
        (Reason.INTERNAL, 503, "internal"),
    ],
)
def test_a_denial_is_one_span_and_an_error_only_where_it_is_the_gates(
    reason: Reason, status: int, error: str | None
) -> None:
    scene = Scene()
    scene.answered(scene.record(), status, Denied(reason, "planted"))
    (server,) = scene.export().spans
    told = server["attributes"]
    assert (told["airgate.decision"], told["airgate.reason"]) == ("deny", str(reason))
    assert (told.get("error.type"), server.get("status")) == (error, error and {"code": 2})
    assert told["http.response.status_code"] == status
    assert "http.route" not in told
    assert server["name"] == "GET"


@pytest.mark.parametrize(
    ("status", "result", "failure", "tries", "server_error", "client_error"),
    [
        (404, "answered", None, 1, None, "404"),
        (500, "answered", None, 1, "500", "500"),
        (504, "timeout", Reason.UPSTREAM_TIMEOUT, 1, "upstream.timeout", "timeout"),
        (502, "unreachable", Reason.UPSTREAM_UNREACHABLE, 3, "upstream.unreachable", "unreachable"),
        (503, "circuit_open", Reason.UPSTREAM_CIRCUIT_OPEN, 0, "upstream.circuit_open", None),
        (403, "revoked", Reason.POLICY_REVOKED, 0, None, None),
    ],
)
def test_a_call_that_failed(
    status: int,
    result: str,
    failure: Reason | None,
    tries: int,
    server_error: str | None,
    client_error: str | None,
) -> None:
    scene = Scene()
    denied = None if failure is None else Denied(failure, "planted")
    scene.forwarded(scene.known(tries=tries), status, result, denied)
    server, *clients = scene.export().spans
    assert server["attributes"].get("error.type") == server_error
    assert server["attributes"].get("airgate.failure") == (None if failure is None else str(failure))
    assert server["attributes"]["airgate.decision"] == "permit"
    assert len(clients) == (1 if tries else 0)
    for client in clients:
        told = client["attributes"]
        assert (told["error.type"], client["status"]) == (client_error, {"code": 2})
        assert told.get("http.response.status_code") == (status if result == "answered" else None)
        assert told.get("http.request.resend_count") == (tries - 1 or None)


def test_a_page_of_the_gates_own() -> None:
    scene = Scene()
    scene.answered(scene.record(page="health", upstream=OWN, url="http://127.0.0.1:8787/-/health"), 200)
    (server,) = scene.export().spans
    told = server["attributes"]
    assert server["name"] == "GET health"
    assert (told["airgate.page"], told["server.address"], told["server.port"]) == (
        "health",
        "127.0.0.1",
        8787,
    )
    assert "airgate.upstream" not in told


def test_a_proxys_question_has_the_paths_of_the_upstream_itself() -> None:
    scene = Scene()
    scene.answered(scene.known(page="authz", log_path=True), 200)
    (server,) = scene.export().spans
    assert server["attributes"]["http.route"] == "/v1/entries/{id}"
    assert server["attributes"]["url.path"] == "/v1/entries/7"
    assert server["attributes"]["airgate.upstream"] == "ledger"
