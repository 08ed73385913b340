"""Refusals: every reason is a problem document, dull and complete."""

import json

import pytest

import problem
from model import ANSWERS, Reason


@pytest.mark.parametrize("reason", list(Reason))
def test_every_refusal_is_a_problem_document(reason: Reason) -> None:
    told = ANSWERS[reason]
    headers = {"airgate-request-id": "r" * 32}
    refusal = problem.refusal(reason, "r" * 32, headers, "o@example.com", retry_after=told.retry_after)
    document = json.loads(refusal.body)
    expected = {
        "type": f"urn:airgate:reason:{reason}",
        "title": told.title,
        "status": told.status,
        "code": str(reason),
        "request_id": "r" * 32,
        "retryable": told.status in (429, 502, 503, 504),
        "contact": "o@example.com",
    }
    headers = {
        "content-type": "application/problem+json",
        "cache-control": "no-store",
        "airgate-error": "gate",
        "airgate-request-id": "r" * 32,
    }
    if told.status in (429, 502, 503, 504):
        expected["retry_after"] = told.retry_after
        headers["retry-after"] = str(told.retry_after)
    assert (document, refusal.headers, refusal.status) == (expected, headers, told.status)


def test_every_reason_has_the_status_of_its_family() -> None:
    families = {"token": {401}, "role": {403}, "policy": {403, 503}, "route": {400, 404}, "exchange": {400}}
    families |= {
        "request": {400, 411, 413, 501},
        "limit": {429},
        "issuer": {503},
        "state": {503},
        "upstream": {502, 503, 504},
        "proxy": {403},
        "internal": {503},
    }
    assert set(ANSWERS) == set(Reason)
    for reason, told in ANSWERS.items():
        assert told.status in families[reason.partition(".")[0]]


def test_what_a_caller_has_to_do_is_told_and_nothing_else() -> None:
    document = json.loads(problem.refusal(Reason.REQUEST_HEADER_REQUIRED, "r" * 32, {}, hint="send X-A").body)
    assert (document["detail"], "contact" in document, document["retryable"]) == ("send X-A", False, False)


def test_the_answer_to_what_could_not_be_read() -> None:
    broken = problem.broken("r" * 32)
    assert (broken.status, broken.headers["airgate-request-id"]) == (503, "r" * 32)
    assert json.loads(broken.body)["code"] == "internal"
