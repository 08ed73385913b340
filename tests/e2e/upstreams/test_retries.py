"""What is tried again, what never is, and how often: counted where it arrives."""

import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

import pytest

# Ten retries are allowed on a quiet upstream in 30 s, so these tests share several.
KEY = {"Idempotency-Key": "7f3a"}
MB = 1024 * 1024


@pytest.mark.parametrize(
    ("method", "headers", "body"),
    [
        pytest.param("GET", {}, b"", id="GET"),
        pytest.param("HEAD", {}, b"", id="HEAD"),
        pytest.param("OPTIONS", {}, b"", id="OPTIONS"),
        pytest.param("DELETE", {}, b"", id="DELETE"),
        pytest.param("PUT", {}, b"", id="PUT without a body"),
        pytest.param("PUT", {}, b"\x00the body\xff" * 1000, id="PUT"),
        pytest.param("PUT", {}, b"b" * MB, id="PUT with as much as is kept"),
        pytest.param("POST", KEY, b"the body", id="POST with an Idempotency-Key"),
        pytest.param("PATCH", KEY, b"the body", id="PATCH with an Idempotency-Key"),
    ],
)
def test_what_may_be_tried_again_is(
    lab: Any, hostile: Any, method: str, headers: dict[str, str], body: bytes
) -> None:
    answer, call = lab.ask("/again/x?play=reset&n=1", method, headers, body)
    assert (answer.status, answer.body) == (200, b"" if method == "HEAD" else b"at last")
    first, second = hostile.arrivals(call)
    assert first.body == second.body == body
    assert first._replace(number=2) == second  # headers and all
    assert second.headers.get("idempotency-key") == headers.get("Idempotency-Key")
    [decision, outcome] = lab.events(answer, 2)
    assert (decision["event"], outcome["result"], outcome["tries"]) == ("decision", "answered", 2)


@pytest.mark.parametrize(
    ("path", "method", "headers", "body", "status"),
    [
        pytest.param("/again/x?play=reset&n=1", "POST", {}, b"the body", 502, id="POST"),
        pytest.param("/again/x?play=reset&n=1", "POST", {}, b"", 502, id="POST without a body"),
        pytest.param("/again/x?play=reset&n=1", "PATCH", {}, b"the body", 502, id="PATCH"),
        pytest.param("/again/x?play=reset&n=1", "PUT", {}, b"b" * (MB + 1), 502, id="more than is kept"),
        pytest.param("/plain/x?play=reset&n=1", "GET", {}, b"", 502, id="where settings don't ask for it"),
        pytest.param("/again/x?play=silent", "GET", {}, b"", 504, id="a time limit"),
        pytest.param("/again/x?play=failing&to=503", "POST", {}, b"", 503, id="503 to a POST"),
        pytest.param("/again/x?play=failing&to=500", "GET", {}, b"", 500, id="500"),
        pytest.param("/again/x?play=failing&to=501", "GET", {}, b"", 501, id="501"),
        pytest.param("/again/x?play=failing&to=429", "GET", {}, b"", 429, id="429"),
        pytest.param("/again/x?play=failing&to=408", "GET", {}, b"", 408, id="408"),
        pytest.param("/again/x?play=failing&to=503&after=100", "GET", {}, b"", 503, id="503 that asks for patience"),
        pytest.param("/again/x?play=failing&to=503&after=soon", "GET", {}, b"", 503, id="503 that nobody understands"),
    ],
)  # fmt: skip
def test_what_may_not_be_tried_again_is_not(
    lab: Any, hostile: Any, path: str, method: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    answer, call = lab.ask(path, method, headers, body)
    assert answer.status == status
    assert len(hostile.arrivals(call)) == 1
    assert "tries" not in lab.events(answer, 2)[1]


def test_a_body_of_unknown_length_is_not_sent_again(lab: Any, hostile: Any) -> None:
    head = f"PUT /again/x?play=reset&n=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {lab.token}\r\n"
    chunked = b"X-Call: chunked\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nthe body\r\n0\r\n\r\n"
    assert lab.send(head.encode() + chunked).status == 502
    [request] = hostile.arrivals("chunked")
    assert request.body == b"the body"


def test_an_answer_that_breaks_off_is_not_asked_for_again(lab: Any, hostile: Any) -> None:
    with pytest.raises((HTTPException, ConnectionError)):
        lab.ask("/again/x?play=reset_within", headers={"X-Call": "within"})
    assert len(hostile.arrivals("within")) == 1


@pytest.mark.parametrize("status", [502, 503, 504])
def test_an_upstream_in_trouble_is_asked_again(lab: Any, hostile: Any, status: int) -> None:
    answer, call = lab.ask(f"/busy/x?play=failing&to={status}")
    assert (answer.status, answer.body, len(hostile.arrivals(call))) == (200, b"at last", 2)
    answer, call = lab.ask(f"/busy/x?play=failing&to={status}&n=9")
    assert (answer.status, answer.body, len(hostile.arrivals(call))) == (status, b"not now", 3)
    assert (answer.code, answer.headers["Airgate-Error"]) == ("", "upstream")
    assert lab.events(answer, 2)[1]["tries"] == 3


def test_an_upstream_that_says_when_is_asked_then(lab: Any, hostile: Any) -> None:
    begun = time.monotonic()
    answer, call = lab.ask("/ending/x?play=failing&to=503&after=1")
    assert (answer.status, len(hostile.arrivals(call))) == (200, 2)
    assert 1 <= time.monotonic() - begun < 3


def test_retries_end(lab: Any, hostile: Any) -> None:
    answer, call = lab.ask("/ending/x?play=reset&n=9")
    assert (answer.status, answer.code, len(hostile.arrivals(call))) == (502, "upstream.unreachable", 3)
    outcome = lab.events(answer, 2)[1]
    assert (outcome["result"], outcome["tries"]) == ("unreachable", 3)


def test_an_upstream_that_fails_altogether_is_not_asked_many_times_over(lab: Any, hostile: Any) -> None:
    """Twelve calls, up to five retries for each: ten in all are allowed on a quiet upstream, and no more."""
    with ThreadPoolExecutor(12) as pool:
        asked = list(pool.map(lambda _: lab.ask("/budget/x?play=reset&n=9"), range(12)))
    assert {answer.code for answer, _ in asked} == {"upstream.unreachable"}
    assert sum(len(hostile.arrivals(call)) for _, call in asked) == 12 + 10


def test_an_upstream_that_ends_connections_it_promised_to_keep(lab: Any, hostile: Any) -> None:
    for _ in range(20):
        answer, call = lab.ask("/ending/x?play=one_each")
        assert (answer.status, answer.body) == (200, b"fine")
        assert len(hostile.arrivals(call)) == 1


def test_a_refused_token_is_replaced_once(lab: Any, hostile: Any) -> None:
    """Whoever says 401 has not acted: even a POST goes out again, with a new token."""
    answer, call = lab.ask("/guarded/x?play=private", "POST", body=b"the body")
    assert (answer.status, answer.body, hostile.tokens) == (200, b"yours", 1)
    hostile.tokens = 7  # the one that the gate has is none any more
    answer, call = lab.ask("/guarded/x?play=private", "POST", body=b"the body")
    assert (answer.status, answer.body, hostile.tokens) == (200, b"yours", 8)
    first, second = hostile.arrivals(call)
    assert (first.headers["authorization"], second.headers["authorization"]) == (
        "Bearer token-1",
        "Bearer token-8",
    )
    assert first.body == second.body == b"the body"
    for _ in range(3):  # refused whatever the token: it is not replaced with every call
        answer, call = lab.ask("/guarded/x?play=private&n=0", "POST", body=b"the body")
        assert (answer.status, answer.body, answer.headers["Airgate-Error"]) == (
            401,
            b"who are you?",
            "upstream",
        )
        assert (len(hostile.arrivals(call)), hostile.tokens) == (1, 8)


def test_a_secret_that_is_not_there(lab: Any, hostile: Any) -> None:
    answer, call = lab.ask("/keyless/x")
    assert (answer.status, answer.code) == (503, "upstream.credential")
    assert (answer.headers["Airgate-Error"], answer.json()["retryable"]) == ("gate", True)
    assert "UPSTREAM_NOT_THERE" not in str(answer.headers) + answer.body.decode()
    assert "UPSTREAM_NOT_THERE" in lab.events(answer, 2)[1]["detail"]
    assert hostile.arrivals(call) == []


def test_a_body_that_does_not_come_is_not_waited_for(lab: Any, hostile: Any) -> None:
    """It would be kept to be sent again, so nothing goes out before all of it is here."""
    head = f"PUT /again/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {lab.token}\r\nX-Call: trickle\r\n"
    begun = time.monotonic()
    answer = lab.send(head.encode() + b"Content-Length: 10\r\n\r\nonly")
    assert (answer.status, answer.code) == (400, "request.body_invalid")
    assert 0.9 < time.monotonic() - begun < 3
    assert hostile.arrivals("trickle") == []
