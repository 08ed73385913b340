"""An upstream that fails is left alone, is tried by one call, and is back; and never gets too many at once."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def held_back(lab: Any, hostile: Any, path: str, most: int) -> None:
    """The gate itself refuses, says when to come back, and nothing arrives."""
    answer, call = lab.ask(path)
    assert (answer.status, answer.code) == (503, "upstream.circuit_open")
    wait = int(answer.headers["Retry-After"])
    assert max(1, most - 1) <= wait <= most
    problem = answer.json()
    assert (problem["retryable"], problem["retry_after"], problem["contact"]) == (
        True,
        wait,
        "lab@example.com",
    )
    assert answer.headers["Airgate-Error"] == "gate"
    assert hostile.arrivals(call) == []
    [decision, outcome] = lab.events(answer, 2)
    assert (decision["decision"], outcome["result"]) == ("permit", "circuit_open")


def test_a_circuit_opens_is_probed_and_closes(lab: Any, hostile: Any) -> None:
    for _ in range(3):
        assert lab.ask("/fragile/x?play=reset")[0].code == "upstream.unreachable"
    held_back(lab, hostile, "/fragile/x", 1)
    time.sleep(1.05)
    answer, call = lab.ask("/fragile/x?play=silent")  # the probe, which fails
    assert (answer.code, len(hostile.arrivals(call))) == ("upstream.timeout", 1)
    held_back(lab, hostile, "/fragile/x", 2)
    time.sleep(2.05)
    hostile.let_go.clear()
    with ThreadPoolExecutor(5) as pool:
        probe = pool.submit(lab.ask, "/fragile/x?play=hold")
        while not hostile.waiting:
            time.sleep(0.01)
        others = [answer for answer, _ in pool.map(lambda _: lab.ask("/fragile/x"), range(4))]
        hostile.let_go.set()
        assert probe.result()[0].status == 200
    assert [answer.code for answer in others] == ["upstream.circuit_open"] * 4
    for _ in range(5):
        assert lab.ask("/fragile/x")[0].status == 200


def test_a_circuit_opens_when_half_of_the_calls_fail(lab: Any, hostile: Any) -> None:
    for number in range(20):
        status = 503 if number % 2 else 200
        assert lab.ask(f"/ratio/x?play=failing&to={status}")[0].status == status
    held_back(lab, hostile, "/ratio/x", 2)


def test_what_an_upstream_says_of_the_call_is_no_failure_of_its_own(lab: Any) -> None:
    for status in (400, 401, 403, 404, 409, 422, 429, 500, 501) * 3:
        answer, _ = lab.ask(f"/healed/x?play=failing&to={status}&n=9")
        assert (answer.status, answer.headers["Airgate-Error"]) == (status, "upstream")
    assert lab.ask("/healed/x")[0].status == 200


def test_a_retry_that_works_keeps_the_circuit_closed_and_one_that_fails_opens_it(
    lab: Any, hostile: Any
) -> None:
    for _ in range(4):
        answer, call = lab.ask("/healed/x?play=reset&n=1")
        assert (answer.status, len(hostile.arrivals(call))) == (200, 2)
    answer, call = lab.ask("/healed/x?play=reset&n=9")
    # The third try would be held back: the caller is told of the second.
    assert (answer.code, len(hostile.arrivals(call))) == ("upstream.unreachable", 2)
    held_back(lab, hostile, "/healed/x", 1)


def test_calls_above_the_cap_are_refused_at_once(lab: Any, hostile: Any) -> None:
    hostile.let_go.clear()
    with ThreadPoolExecutor(3) as pool:
        held = [pool.submit(lab.ask, "/narrow/x?play=hold") for _ in range(3)]
        while hostile.waiting < 3:
            time.sleep(0.01)
        begun = time.monotonic()
        answer, call = lab.ask("/narrow/x")
        assert time.monotonic() - begun < 1
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (
            503,
            "upstream.overloaded",
            "1",
        )
        assert (answer.json()["retryable"], hostile.arrivals(call)) == (True, [])
        assert lab.events(answer, 2)[1]["result"] == "overloaded"
        assert lab.ask("/plain/x")[0].status == 200  # others are not concerned
        hostile.let_go.set()
        assert [answer.result()[0].status for answer in held] == [200] * 3
    for _ in range(5):
        assert lab.ask("/narrow/x")[0].status == 200


def test_places_are_free_again_after_calls_of_any_end(lab: Any) -> None:
    for play in ("reset", "close", "reset_within", "failing&to=503", "redirect&to=/"):
        for _ in range(3):
            try:
                lab.ask(f"/narrow/x?play={play}")
            except Exception:
                assert play == "reset_within"
            assert lab.ask("/narrow/x")[0].code == ""


def test_writes_open_a_circuit_as_reads_do(lab: Any, hostile: Any) -> None:
    for _ in range(3):
        assert lab.ask("/written/x?play=reset", "POST", body=b"{}")[0].code == "upstream.unreachable"
    held_back(lab, hostile, "/written/x", 5)


def test_a_caller_whose_body_does_not_come_opens_no_circuit(lab: Any) -> None:
    """Or any one who may call an upstream could close it to all others."""
    head = (
        f"POST /trickled/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {lab.token}\r\nX-Call: never-ends\r\n"
    )
    for length, code in (("100", "request.body_invalid"), ("100000", "upstream.timeout")):
        assert lab.send(f"{head}Content-Length: {length}\r\n\r\nabc".encode()).code == code
        with lab.connected() as connection:  # and one who leaves
            connection.sendall(f"{head}Content-Length: {length}\r\n\r\nabc".encode())
        time.sleep(0.2)
    assert lab.ask("/trickled/x")[0].status == 200
