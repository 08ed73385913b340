"""Which answers are the gate's own refusals, and the sentence that is made of one."""

import json
from typing import Any

import pytest

from airgate_provider import refusal
from airgate_provider.errors import GateBusy, GateDenied

PROBLEM = {
    "type": "urn:airgate:reason:policy.no_match",
    "title": "No policy permits this call",
    "status": 403,
    "code": "policy.no_match",
    "request_id": "13f1d91360a9db0b8225424a5daed2c3",
    "retryable": False,
    "contact": "finance-data@example.com",
}
HEADERS = {
    "Content-Type": "application/problem+json",
    "Airgate-Request-Id": "13f1d91360a9db0b8225424a5daed2c3",
    "Airgate-Decision": "deny",
    "Airgate-Policy": "ledger-closed@e2fe26b74426",
}
URL = "https://gate.example.com/ledger/v1/entries?x=1"


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in HEADERS.items() if key != name}


def found(headers: dict[str, str], status: int = 403, problem: Any = PROBLEM) -> refusal.Refusal | None:
    body = problem if isinstance(problem, bytes) else json.dumps(problem).encode()
    if not refusal.is_refusal(status, headers):
        return None
    return refusal.read("POST", URL, status, headers, body)


@pytest.mark.parametrize(
    ("headers", "status", "problem", "is_one"),
    [
        pytest.param(HEADERS, 403, PROBLEM, True, id="the gate says no"),
        pytest.param(without("Airgate-Decision"), 401, PROBLEM, True, id="before there is a decision"),
        pytest.param(
            {**HEADERS, "Airgate-Decision": "permit"}, 429, PROBLEM, True, id="what a permit asks for"
        ),
        pytest.param(
            {**HEADERS, "Airgate-Decision": "permit"}, 403, PROBLEM, False, id="an upstream that copies"
        ),
        pytest.param(
            {**HEADERS, "Airgate-Decision": "permit"}, 401, PROBLEM, False, id="an upstream's own 401"
        ),
        pytest.param(without("Airgate-Request-Id"), 403, PROBLEM, False, id="nothing of the gate in it"),
        pytest.param({**HEADERS, "Content-Type": "application/json"}, 403, PROBLEM, False, id="another type"),
        pytest.param(HEADERS, 200, PROBLEM, False, id="a success"),
        pytest.param(HEADERS, 403, {"type": "about:blank"}, False, id="somebody else's problem"),
        pytest.param(HEADERS, 403, b"<html>", False, id="no JSON"),
        pytest.param(HEADERS, 403, [PROBLEM], False, id="no object"),
    ],
)
def test_what_is_a_refusal(headers: dict[str, str], status: int, problem: Any, is_one: bool) -> None:
    assert (found(headers, status, problem) is not None) is is_one


def test_a_denial_says_why_whom_to_ask_and_what_to_run() -> None:
    refused = found(HEADERS)
    assert refused is not None
    error = refused.error()
    assert isinstance(error, GateDenied)
    assert str(error).splitlines() == [
        "The gate refused POST /ledger/v1/entries: No policy permits this call.",
        "  code        policy.no_match",
        "  policy      ledger-closed@e2fe26b74426",
        "  request id  13f1d91360a9db0b8225424a5daed2c3",
        "  ask         finance-data@example.com",
        "  explain     airgate policy explain --request-id 13f1d91360a9db0b8225424a5daed2c3 --path /ledger/v1/entries",
    ]


@pytest.mark.parametrize(
    ("said", "header", "wait"),
    [
        pytest.param(60, None, 60, id="in the problem"),
        pytest.param(None, "30", 30, id="in the header"),
        pytest.param(10, "30", 30, id="the longer one"),
        pytest.param(None, None, 5, id="nobody says"),
        pytest.param(None, "Wed, 21 Oct 2026 07:28:00 GMT", 5, id="a date is not one of ours"),
        pytest.param(-5, None, 5, id="the past"),
        pytest.param(10**9, None, 3600, id="for ever"),
    ],
)
def test_how_long_a_task_has_to_wait(said: Any, header: str | None, wait: float) -> None:
    headers = HEADERS if header is None else {**HEADERS, "Retry-After": header}
    refused = found(headers, 429, {**PROBLEM, "retryable": True, "retry_after": said})
    assert refused is not None
    error = refused.error()
    assert isinstance(error, GateBusy)
    assert error.retry_after == wait


def test_what_a_person_reads_has_no_control_characters() -> None:
    refused = found(HEADERS, 403, {**PROBLEM, "detail": "a\n\x1b[31mb", "contact": ["x"]})
    assert refused is not None
    assert "\x1b" not in refused.sentence()
    assert "(a  [31mb)" in refused.sentence()
    assert refused.contact == ""


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        pytest.param(403, HEADERS, GateDenied, id="a denial"),
        pytest.param(429, {**HEADERS, "Retry-After": "30"}, GateBusy, id="a limit"),
    ],
)
def test_an_answer_to_head_has_no_body_and_is_a_refusal_all_the_same(
    status: int, headers: dict[str, str], kind: type
) -> None:
    refused = refusal.read("HEAD", URL, status, headers, b"")
    assert refused is not None
    assert type(refused.error()) is kind
    assert "an answer to HEAD has no room for it" in str(refused.error())
    assert HEADERS["Airgate-Request-Id"] in str(refused.error())
