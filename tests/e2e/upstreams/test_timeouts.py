"""Slow upstreams: what is waited for, for how long, and that nothing is held for a caller who has left."""

import time
from http.client import HTTPException
from itertools import pairwise
from typing import Any

import pytest

BROKEN_OFF = (HTTPException, ConnectionError)


def within(hostile: Any, call: str, seconds: float) -> str:
    """How the upstream's connection of a call ended; empty when it has not, by then."""
    end = time.monotonic() + seconds
    while call not in hostile.left and time.monotonic() < end:
        time.sleep(0.02)
    return str(hostile.left.get(call, ""))


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/hurried/x?play=silent", id="nothing is said"),
        pytest.param("/hurried/x?play=slow_head", id="headers come byte by byte, without end"),
        pytest.param("/total/x?play=silent", id="nothing is said, and there is a limit on all of it too"),
    ],
)
def test_headers_that_dont_come_in_time(lab: Any, hostile: Any, path: str) -> None:
    begun = time.monotonic()
    answer, call = lab.ask(path)
    assert (answer.status, answer.code) == (504, "upstream.timeout")
    assert 0.9 < time.monotonic() - begun < 2.5
    assert (answer.json()["retryable"], answer.headers["Airgate-Error"]) == (True, "gate")
    assert len(hostile.arrivals(call)) == 1
    [decision, outcome] = lab.events(answer, 2)
    assert (decision["decision"], outcome["result"], outcome["status"]) == ("permit", "timeout", None)
    if "silent" in path:
        assert within(hostile, call, 2) == "gone"  # the gate has hung up


def test_a_body_may_take_longer_than_its_headers(lab: Any) -> None:
    answer, _ = lab.ask("/hurried/x?play=slow_body&n=15")
    assert (answer.status, answer.body) == (200, b"a" * 15)


def test_a_whole_call_has_a_limit_where_settings_say_so(lab: Any) -> None:
    answer, _ = lab.ask("/total/x?play=slow_body&n=12")  # longer than its headers may take, and in time
    assert (answer.status, answer.headers["Content-Length"], answer.body) == (200, "12", b"a" * 12)
    begun = time.monotonic()
    with pytest.raises(BROKEN_OFF):
        lab.ask("/total/x?play=slow_body&n=60")
    assert 1.5 < time.monotonic() - begun < 4


def test_events_have_no_limit_and_arrive_one_by_one(lab: Any) -> None:
    """Longer than the whole call might take, each as it is sent."""
    arrived: list[float] = []
    lines: list[bytes] = []
    with lab.connected() as connection, connection.makefile("rb") as incoming:
        head = f"GET /total/x?play=events&n=15 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {lab.token}\r\n"
        connection.sendall(head.encode() + b"Accept: text/event-stream\r\nX-Call: events\r\n\r\n")
        headers = []
        while (line := incoming.readline()) != b"\r\n":
            headers.append(line.lower().strip())
        assert b"content-type: text/event-stream; charset=utf-8" in headers
        while (line := incoming.readline()) != b"0\r\n":
            assert line, "the events broke off"
            if line.startswith(b"data: "):
                arrived.append(time.monotonic())
                lines.append(line)
    assert lines == [b"data: %d\n" % number for number in range(15)]
    assert arrived[-1] - arrived[0] > 2.5
    gaps = [later - earlier for earlier, later in pairwise(arrived)]
    assert max(gaps) < 1.5
    assert sum(gap > 0.1 for gap in gaps) > 7  # they did not come in heaps


@pytest.mark.parametrize(
    ("path", "play"),
    [
        pytest.param("/hurried", "endless", id="in the middle of an answer"),
        pytest.param("/measured", "endless", id="in the middle of an answer with a limit"),
        pytest.param("/hurried", "silent", id="before the answer"),
    ],
)
def test_a_caller_who_leaves_is_not_waited_for(lab: Any, hostile: Any, path: str, play: str) -> None:
    name = f"left-{path}-{play}"
    with lab.connected() as connection:
        head = f"GET {path}/x?play={play} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {lab.token}\r\n"
        connection.sendall(f"{head}X-Call: {name}\r\n\r\n".encode())
        while not hostile.arrivals(name):
            time.sleep(0.01)
        if play == "endless":
            assert connection.recv(65536)
    assert within(hostile, name, 5) == "gone"


def test_slow_calls_dont_hold_up_others(lab: Any) -> None:
    with lab.connected() as connection:
        head = f"GET /hurried/x?play=slow_body&n=100 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {lab.token}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(1)
        begun = time.monotonic()
        for _ in range(5):
            assert lab.ask("/hurried/x")[0].status == 200
        assert time.monotonic() - begun < 2
