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
    "Airgate-Error": "gate",
    "Airgate-Request-Id": "13f1d91360a9db0b8225424a5daed2c3",
    "Airgate-Decision": "deny",
    "Airgate-Policy": "ledger-closed@e2fe26b74426",
}
PERMITTED = {**HEADERS, "Airgate-Decision": "permit"}
URL = "https://gate.example.com/ledger/v1/entries?x=1"


def without(headers: dict[str, str], *names: str) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key not in names}


def found(headers: dict[str, str], status: int = 403, problem: Any = PROBLEM) -> refusal.Refusal:
    assert refusal.is_refusal(status, headers)
    body = problem if isinstance(problem, bytes) else json.dumps(problem).encode()
    return refusal.read("POST", URL, status, headers, body)


@pytest.mark.parametrize(
    ("headers", "status", "is_one"),
    [
        pytest.param(HEADERS, 403, True, id="the gate says no"),
        pytest.param(without(HEADERS, "Airgate-Decision"), 401, True, id="before there is a decision"),
        pytest.param(PERMITTED, 429, True, id="what a permit asks for"),
        pytest.param(PERMITTED, 503, True, id="after a permit"),
        pytest.param({**HEADERS, "Content-Type": "text/html"}, 503, True, id="another media type"),
        pytest.param({**PERMITTED, "Airgate-Error": "upstream"}, 403, False, id="an upstream that copies"),
        pytest.param({**HEADERS, "Airgate-Error": "upstream"}, 503, False, id="whatever else is there"),
        pytest.param({**HEADERS, "Airgate-Error": "gate, upstream"}, 503, False, id="both at once"),
        pytest.param({**HEADERS, "Airgate-Error": ""}, 403, False, id="neither"),
        pytest.param(without(HEADERS, "Airgate-Request-Id"), 403, False, id="no gate's request id"),
        pytest.param(HEADERS, 200, False, id="a success"),
    ],
)
def test_the_gate_says_which_errors_are_its_own(headers: dict[str, str], status: int, is_one: bool) -> None:
    assert refusal.is_refusal(status, headers) is is_one


@pytest.mark.parametrize(
    ("headers", "status", "is_one"),
    [
        pytest.param(HEADERS, 403, True, id="a denial"),
        pytest.param(without(HEADERS, "Airgate-Decision"), 401, True, id="before there is a decision"),
        pytest.param(PERMITTED, 503, False, id="after a permit: it could be the upstream's"),
        pytest.param(PERMITTED, 403, False, id="an upstream that copies"),
        pytest.param({**HEADERS, "Content-Type": "application/json"}, 403, False, id="another media type"),
        pytest.param(without(HEADERS, "Airgate-Request-Id"), 403, False, id="nothing of the gate in it"),
    ],
)
def test_a_gate_that_does_not_say_is_believed_where_no_upstream_was_asked(
    headers: dict[str, str], status: int, is_one: bool
) -> None:
    assert refusal.is_refusal(status, without(headers, "Airgate-Error")) is is_one


@pytest.mark.parametrize(
    "problem",
    [
        pytest.param({"type": "about:blank", "retryable": True, "code": "x"}, id="another problem"),
        pytest.param(b"<html>", id="no JSON"),
        pytest.param([PROBLEM], id="no object"),
        pytest.param(b'{"type": "urn:airgate:rea', id="cut off"),
        pytest.param(b"", id="empty"),
    ],
)
@pytest.mark.parametrize(
    ("more", "kind"),
    [
        pytest.param({}, GateDenied, id="for good"),
        pytest.param({"Retry-After": "7"}, GateBusy, id="for now"),
    ],
)
def test_a_refusal_whose_body_was_lost_is_one_all_the_same(
    problem: Any, more: dict[str, str], kind: type
) -> None:
    error = found({**HEADERS, **more}, 503, problem).error()
    assert type(error) is kind
    assert "it did not say why" in str(error)
    assert HEADERS["Airgate-Request-Id"] in str(error)
    assert getattr(error, "retry_after", 7) == 7


def test_a_denial_says_why_whom_to_ask_and_what_to_run() -> None:
    refused = found(HEADERS)
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
    error = refused.error()
    assert isinstance(error, GateBusy)
    assert error.retry_after == wait


def test_what_a_person_reads_has_no_control_characters() -> None:
    refused = found(HEADERS, 403, {**PROBLEM, "detail": "a\n\x1b[31mb", "contact": ["x"]})
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
    assert type(refused.error()) is kind
    assert "an answer to HEAD has no room for it" in str(refused.error())
    assert HEADERS["Airgate-Request-Id"] in str(refused.error())
