"""Forty callers at once, and an upstream that comes and goes: every request gets one answer and leaves one decision."""

import json
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

CALLERS = 40
CALLS = 15  # of each caller
WAYS: list[tuple[str, dict[str, str], bytes, bool]] = [
    # how it is called, and whether that may be tried again
    ("GET", {}, b"", True),
    ("POST", {}, b"the body", False),
    ("POST", {"Idempotency-Key": "1"}, b"the body", True),
    ("PUT", {}, b"the body", True),
    ("PATCH", {}, b"", False),
]
CODES = {"", "upstream.unreachable", "upstream.timeout", "upstream.circuit_open"}


@pytest.mark.parametrize("path", ["/flapping", "/restless"])
def test_forty_callers_of_an_upstream_that_flaps(lab: Any, hostile: Any, path: str) -> None:
    over = threading.Event()

    def flap() -> None:
        while not over.wait(0.3):
            hostile.broken = not hostile.broken

    def caller(number: int) -> list[tuple[Any, str, bool]]:
        answers = []
        for count in range(CALLS):
            method, headers, body, again = WAYS[(number + count) % len(WAYS)]
            answer, call = lab.ask(f"{path}/x?play=flap", method, headers, body)
            answers.append((answer, call, again))
            time.sleep(random.uniform(0, 0.3))
        return answers

    flapping = threading.Thread(target=flap)
    flapping.start()
    try:
        with ThreadPoolExecutor(CALLERS) as pool:
            answers = [answer for each in pool.map(caller, range(CALLERS)) for answer in each]
    finally:
        over.set()
        flapping.join()

    ids = [answer.id for answer, _, _ in answers]
    assert len(set(ids)) == len(ids) == CALLERS * CALLS
    seen = Counter(answer.code or answer.status for answer, _, _ in answers)
    assert {answer.code for answer, _, _ in answers} <= CODES
    assert seen[200] > 20
    assert seen["upstream.unreachable"] + seen[503] > 0
    assert (seen["upstream.circuit_open"] > 0) is (path == "/flapping")

    for answer, call, again in answers:
        arrived = len(hostile.arrivals(call))
        assert arrived <= (3 if again else 1), f"{call} was forwarded {arrived} times"
        assert arrived > 0 or answer.code == "upstream.circuit_open"
        if answer.status == 200:
            assert answer.body == b"fine"
        if answer.code == "upstream.circuit_open" and not again:
            assert arrived == 0

    def events() -> Counter[tuple[str, str]]:
        lines = lab.audit.read_text("utf-8").split("\n")[:-1]
        read = [event for event in map(json.loads, lines) if event.get("request_id") in expected]
        return Counter((event["request_id"], event["event"]) for event in read)

    expected, end = set(ids), time.monotonic() + 5
    while events().total() < 2 * len(ids) and time.monotonic() < end:
        time.sleep(0.1)
    assert events() == {(one, kind): 1 for one in ids for kind in ("decision", "outcome")}

    # And it comes back.
    hostile.broken = False
    end = time.monotonic() + 65
    while lab.ask(f"{path}/x")[0].status != 200:
        assert time.monotonic() < end
        time.sleep(0.2)
    assert all(lab.ask(f"{path}/x")[0].status == 200 for _ in range(20))
