"""When a task is over the gate hears of it: which sessions are watched, what is told, and what if it can't be."""

import base64
import json
import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from airgate_provider import attest_keys, compat, sessions
from airgate_provider.sessions import ENDED, SUPERSEDED, Notice, Watcher
from conftest import Answer, Request, Server

needs_3_3 = pytest.mark.skipif(not compat.ATTESTS, reason="tasks are attested from Airflow 3.3 on")
GATE, OTHER = "https://gate.example.com", "https://other.example.com"
ONE, TWO = (str(uuid.UUID(int=number)) for number in (1, 2))


class Airflow:
    """A database that says what it is told to, a gate that takes what it is told, and a clock."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.rows: dict[str, str | None] = {}
        self.asked: list[list[str]] = []
        self.lives: list[tuple[str, float]] = []
        self.down = False
        self.takes = True
        self.told: list[Notice] = []
        self.watcher = Watcher(self.states, lambda: self.lives, self.send, lambda: self.now)

    def states(self, ids: Collection[str]) -> Mapping[str, str | None]:
        if self.down:
            raise OSError("the database is away")
        self.asked.append(sorted(ids))
        return {each: self.rows[each] for each in ids if each in self.rows}

    def send(self, notice: Notice) -> bool:
        self.told.append(notice)
        return self.takes

    def look(self, later: float = 0.0) -> list[tuple[str, str, str]]:
        """One look and all that is due then: (gate, session, result), as the gates were told now."""
        self.now += later
        before = len(self.told)
        self.watcher.look()
        for due in list(self.watcher._due.values()):
            while not due.empty():
                notice = due.get()
                assert notice is not None
                self.watcher.push(notice)
        return sorted((each.gate, each.session, each.result) for each in self.told[before:])


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    """Without threads: each look is made by the test."""
    made = Airflow()
    monkeypatch.setattr(made.watcher, "_run", lambda loop: None)
    return made


STATES: list[tuple[str | None, str]] = [
    ("running", ""),
    ("deferred", ""),
    ("awaiting_input", ""),
    ("up_for_reschedule", ""),
    ("scheduled", ""),
    ("queued", ""),
    (None, ""),
    ("success", ENDED),
    ("failed", ENDED),
    ("skipped", ENDED),
    ("upstream_failed", ENDED),
    ("removed", ENDED),
    ("up_for_retry", ENDED),
    ("restarting", ENDED),
]


@pytest.mark.parametrize(("state", "result"), STATES)
def test_a_state_says_whether_a_session_goes_on(airflow: Airflow, state: str | None, result: str) -> None:
    airflow.watcher.minted(ONE, GATE, airflow.now + 300)
    airflow.rows[ONE] = state
    assert airflow.look() == ([(GATE, ONE, result)] if result else [])


@needs_3_3
def test_every_state_of_airflow_is_one_of_them() -> None:
    from airflow.utils.state import TaskInstanceState

    assert {state.value for state in TaskInstanceState} <= {state for state, _ in STATES}


def test_an_id_that_has_moved_to_the_history_is_superseded(airflow: Airflow) -> None:
    airflow.watcher.minted(ONE, GATE, airflow.now + 300)
    assert airflow.look() == [(GATE, ONE, SUPERSEDED)]


def test_the_database_is_asked_once_for_all_sessions(airflow: Airflow) -> None:
    for each in (ONE, TWO):
        airflow.watcher.minted(each, GATE, airflow.now + 300)
        airflow.rows[each] = "running"
    airflow.look()
    assert airflow.asked == [[ONE, TWO]]


def test_each_gate_is_told_once(airflow: Airflow) -> None:
    for gate in (GATE, OTHER, GATE):
        airflow.watcher.minted(ONE, gate, airflow.now + 300)
    airflow.rows[ONE] = "success"
    assert airflow.look() == [(GATE, ONE, ENDED), (OTHER, ONE, ENDED)]
    assert airflow.look(1) == []


def test_a_session_is_remembered_until_its_last_token_has_expired_everywhere(airflow: Airflow) -> None:
    airflow.watcher.minted(ONE, GATE, airflow.now + 300)
    airflow.watcher.minted(ONE, GATE, airflow.now + 200)
    airflow.rows[ONE] = "running"
    airflow.look(300 + sessions.SKEW - 1)
    assert airflow.asked == [[ONE]]
    airflow.rows[ONE] = "success"
    assert airflow.look(2) == []
    assert airflow.asked == [[ONE]]


def test_nothing_is_concluded_from_a_database_that_is_away(
    airflow: Airflow, caplog: pytest.LogCaptureFixture
) -> None:
    airflow.watcher.minted(ONE, GATE, airflow.now + 300)
    airflow.rows[ONE] = "success"
    airflow.down = True
    with caplog.at_level(logging.WARNING):
        assert [airflow.look(0.5), airflow.look(0.5)] == [[], []]
    assert len(caplog.records) == 1
    airflow.down = False
    assert airflow.look(0.5) == [(GATE, ONE, ENDED)]


def test_a_gate_that_is_away_is_told_later_and_later(airflow: Airflow) -> None:
    airflow.watcher.minted(ONE, GATE, airflow.now + 300)
    airflow.rows[ONE] = "failed"
    airflow.takes = False
    told = []
    for _ in range(int((300 + sessions.SKEW) / 0.25) + 100):
        if airflow.look(0.25):
            told.append(airflow.now)
    pauses = [later - sooner for sooner, later in pairwise(told)]
    assert pauses[:6] == [0.5, 1, 2, 4, 8, 15]
    assert set(pauses[6:]) == {15}
    assert 1_000_300 + sessions.SKEW - 15 <= told[-1] < 1_000_300 + sessions.SKEW


def test_an_end_is_told_for_as_long_as_any_gate_may_take_the_token(airflow: Airflow) -> None:
    allowed = 300  # seconds: the most that a policy may say of clock_skew
    airflow.watcher.minted(ONE, GATE, airflow.now + 300)
    airflow.rows[ONE] = "running"
    assert (
        airflow.look(300 + 2 * allowed) == []
    )  # its clock may be as far behind as it allows others to be ahead
    airflow.rows[ONE] = "success"
    assert airflow.look(1) == [(GATE, ONE, ENDED)]


def test_what_has_waited_until_no_token_lives_is_told_no_more(
    airflow: Airflow, caplog: pytest.LogCaptureFixture
) -> None:
    airflow.watcher.push(Notice(GATE, ONE, ENDED, int(airflow.now), airflow.now))
    assert airflow.told == []
    assert "never told" in caplog.text


def test_a_gate_that_is_back_is_told_once(airflow: Airflow) -> None:
    airflow.watcher.minted(ONE, GATE, airflow.now + 300)
    airflow.takes = False
    airflow.look()
    airflow.takes = True
    assert [bool(airflow.look(0.5)) for _ in range(40)].count(True) == 1


def test_what_ran_when_the_api_server_started_is_watched_for_every_gate_that_shows_up(
    airflow: Airflow,
) -> None:
    airflow.lives = [(ONE, airflow.now + 360)]
    airflow.rows[ONE] = "running"
    airflow.watcher.start()
    assert airflow.look() == []
    airflow.rows[ONE] = "success"
    assert airflow.look(1) == []  # no gate is known yet
    for gate in (GATE, OTHER):
        airflow.rows[TWO] = "running"
        airflow.watcher.minted(TWO, gate, airflow.now + 300)
        assert airflow.look(1) == [(gate, ONE, ENDED)]
    assert airflow.look(300 + sessions.SKEW) == []
    assert airflow.watcher._sessions == {}


def test_a_start_without_a_database_is_made_up_for(airflow: Airflow) -> None:
    airflow.lives = [(ONE, airflow.now + 360)]
    airflow.rows[ONE] = "running"
    airflow.down = True
    airflow.watcher.start()

    def away() -> list[tuple[str, float]]:
        raise OSError("the database is away")

    airflow.watcher._alive = away
    airflow.look()
    airflow.down, airflow.watcher._alive = False, lambda: airflow.lives
    airflow.look()
    assert list(airflow.watcher._sessions) == [ONE]


def until(holds: Callable[[], object], seconds: float = 5.0) -> float:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds
        time.sleep(0.01)
    return time.monotonic() - began


@pytest.fixture
def threaded() -> Iterator[Airflow]:
    """With its threads, and the real clock."""
    made = Airflow()
    made.watcher._clock = time.time
    yield made
    made.watcher.stop()
    for thread in made.watcher._threads:
        thread.join(5)
        assert not thread.is_alive()


def test_no_thread_runs_before_there_is_a_session(threaded: Airflow) -> None:
    assert threaded.watcher._threads == []
    threaded.rows[ONE] = "running"
    threaded.watcher.minted(ONE, GATE, time.time() + 300)
    until(lambda: threaded.asked)


def test_a_change_is_looked_for_at_once(threaded: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "POLL", 60.0)
    threaded.rows[ONE] = "success"
    threaded.watcher.minted(ONE, GATE, time.time() + 300)
    threaded.watcher.changed(TWO)
    time.sleep(0.3)
    assert threaded.told == []
    threaded.watcher.changed(ONE)
    until(lambda: threaded.told)


def test_nothing_is_asked_when_no_session_is_left(threaded: Airflow) -> None:
    threaded.rows[ONE] = "success"
    threaded.watcher.minted(ONE, GATE, time.time() + 300)
    until(lambda: threaded.told)
    asked = len(threaded.asked)
    time.sleep(1.2)
    assert len(threaded.asked) == asked


def test_a_thousand_sessions_that_end_at_once_are_all_told(threaded: Airflow) -> None:
    ids = [str(uuid.UUID(int=number)) for number in range(1000)]
    for each in ids:
        threaded.rows[each] = "success"
        threaded.watcher.minted(each, GATE, time.time() + 300)
    until(lambda: len(threaded.told) == 1000)
    assert {each.session for each in threaded.told} == set(ids)


def test_a_forked_process_watches_nothing_of_its_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Airflow()
    monkeypatch.setattr(sessions, "_watcher", mine.watcher)
    sessions._forget()
    assert sessions._watcher is not mine.watcher
    assert sessions._watcher._sessions == {}
    assert sessions._watcher._threads == []


# The event itself, and how it is pushed.

NOTICE = Notice("", ONE, SUPERSEDED, 1_000_000, 1_000_300.0)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A configured issuer."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from jwt.algorithms import ECAlgorithm

    jwk = {**ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True), "kid": "one"}
    for name, value in {
        "ATTEST": "True",
        "ATTEST_ISSUER": "https://airflow.example.com/airgate",
        "ATTEST_AUDIENCE": GATE,
        "ATTEST_KEYS": json.dumps({"keys": [jwk]}),
    }.items():
        monkeypatch.setenv(f"AIRFLOW__AIRGATE__{name}", value)
    attest_keys.forget()
    yield
    attest_keys.forget()


def part(token: str, number: int) -> dict[str, object]:
    text = token.split(".")[number]
    found: dict[str, object] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return found


def test_an_event_says_what_the_gate_reads(keys: None) -> None:
    token = sessions.event(NOTICE, 1_000_007.9)
    assert part(token, 0) == {"alg": "ES256", "kid": "one", "typ": "secevent+jwt"}
    claims = part(token, 1)
    assert len(str(claims.pop("jti"))) == 32
    assert claims == {
        "iss": "https://airflow.example.com/airgate",
        "iat": 1_000_007,
        "aud": GATE,
        "sub_id": {"format": "complex", "session": {"format": "opaque", "id": ONE}},
        "events": {
            "https://schemas.openid.net/secevent/caep/event-type/session-revoked": {
                "event_timestamp": 1_000_000,
                "initiating_entity": "system",
                "reason_admin": {"en": "superseded"},
            }
        },
    }


def test_an_event_is_pushed_as_rfc_8935_has_it(keys: None, server: Server) -> None:
    server.says(Answer(202))
    push = sessions.Push()
    assert push(Notice(server.url, ONE, ENDED, 1_000_000, 1_000_300.0))
    [request] = server.requests
    assert (request.method, request.path) == ("POST", "/-/events")
    assert request.headers["content-type"] == "application/secevent+jwt"
    assert "authorization" not in request.headers
    assert part(request.body.decode(), 1)["sub_id"] == {
        "format": "complex",
        "session": {"format": "opaque", "id": ONE},
    }


@pytest.mark.parametrize(
    ("answer", "done"),
    [
        (Answer(202), True),
        (Answer(429), False),
        (Answer(500), False),
        (Answer(503), False),
        (Answer(hang_up=True), False),
        (Answer(400, json.dumps({"err": "invalid_request"})), True),
        (Answer(400, json.dumps({"err": "invalid_key"})), False),  # it may not look for a new one just then
        (Answer(400, json.dumps({"err": "invalid_issuer"})), False),  # the policy that names it is on its way
        (Answer(400, json.dumps({"err": "invalid_audience"})), False),
        (Answer(400, json.dumps({"err": "authentication_failed"})), False),
        (Answer(403, json.dumps({"err": "invalid_request"})), False),  # RFC 8935 §2.3: errors are 400
        (Answer(401, "<html>"), False),
        (Answer(404, "<html>"), False),
        (Answer(400, "[]"), False),
        (Answer(400, "[" * 4096), False),
        (Answer(307, headers={"Location": "http://127.0.0.1:9/-/events"}), False),
        (Answer(200, "<html>Sign in"), False),  # of something that stands before the gate
    ],
)
def test_an_answer_says_whether_to_try_again(keys: None, server: Server, answer: Answer, done: bool) -> None:
    server.says(answer)
    assert sessions.Push()(Notice(server.url, ONE, ENDED, 1_000_000, 1_000_300.0)) is done
    assert len(server.requests) == 1


def test_what_a_gate_says_of_an_error_is_a_word_or_nothing(
    keys: None, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    for said in (["invalid_issuer"], "two words", "a\nline of its own", "x" * 4000):
        server.says(Answer(400, json.dumps({"err": said})))
        assert not sessions.Push()(Notice(server.url, ONE, ENDED, 1_000_000, 1_000_300.0))
    assert {record.getMessage().partition("(")[2].partition(")")[0] for record in caplog.records} == {"400 "}


def test_a_gate_that_refuses_is_complained_of_once(
    keys: None, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.says(Answer(400, json.dumps({"err": "invalid_audience"})))
    push = sessions.Push()
    for each in (ONE, TWO):
        push(Notice(server.url, each, ENDED, 1_000_000, 1_000_300.0))
    [record] = caplog.records
    assert "400 invalid_audience" in record.getMessage()
    assert "attest_audience" in record.getMessage()


def test_an_end_that_was_signed_with_a_key_that_is_not_known_yet_is_told_again(
    keys: None, server: Server, airflow: Airflow, caplog: pytest.LogCaptureFixture
) -> None:
    server.says(*[Answer(400, json.dumps({"err": "invalid_key"}))] * 5, Answer(202))
    airflow.watcher._send = sessions.Push()
    airflow.watcher.minted(ONE, server.url, airflow.now + 300)
    airflow.rows[ONE] = "success"
    for _ in range(1200):
        airflow.look(0.25)
    assert [part(each.body.decode(), 1)["sub_id"]["session"]["id"] for each in server.requests] == [ONE] * 6  # type: ignore[index]
    assert len(caplog.records) == 1


def test_one_connection_serves_for_many_events(keys: None, server: Server) -> None:
    ports = set()

    def says(request: Request) -> Answer:
        ports.add(request.port)
        return Answer(202) if len(server.requests) % 2 else Answer(400, json.dumps({"err": "invalid_key"}))

    server.says(says)
    push = sessions.Push()
    for _ in range(4):
        push(Notice(server.url, ONE, ENDED, 1_000_000, 1_000_300.0))
    assert len(server.requests) == 4
    assert len(ports) == 1


def test_without_an_audience_in_the_settings_an_event_is_for_the_gate_that_is_told(
    keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW__AIRGATE__ATTEST_AUDIENCE")
    attest_keys.forget()
    notice = Notice("https://Gate.example.com:443", ONE, ENDED, 1_000_000, 1_000_300.0)
    assert part(sessions.event(notice, 1_000_000), 1)["aud"] == GATE


def test_without_a_usable_key_it_is_tried_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW__AIRGATE__ATTEST_KEYS", raising=False)
    attest_keys.forget()
    assert not sessions.Push()(Notice(server.url, ONE, ENDED, 1_000_000, 1_000_300.0))
    assert server.requests == []


def test_threads_keep_connections_of_their_own(keys: None, server: Server) -> None:
    server.says(Answer(202))
    push = sessions.Push()
    notice = Notice(server.url, ONE, ENDED, 1_000_000, 1_000_300.0)
    threads = [threading.Thread(target=push, args=(notice,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 4


# Airflow's own database.

LIFETIME = 300


@pytest.fixture
def tries(keys: None) -> Iterator[Callable[..., str]]:
    """tries("running", …): a task instance in that state; its id."""
    from airflow import settings
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session
    from sqlalchemy import delete, insert

    settings.initialize()
    initdb()
    now = datetime.now(UTC)

    def make(state: str | None, *, seconds_ago: float = 0.0, next_method: str | None = None) -> str:
        made = uuid.uuid4()
        values = {"dag_id": "watched", "run_id": "one", "span_status": "not_started"}
        with create_session() as session:
            if not session.query(DagRun).filter_by(dag_id="watched").count():
                run = {**values, "run_type": "manual", "state": "running", "run_after": now}
                session.execute(insert(DagRun.__table__).values(run))
            ti = {**values, "id": made, "task_id": made.hex, "map_index": -1, "try_number": 1, "state": state}
            ti |= {"pool": "default_pool", "pool_slots": 1, "next_method": next_method}
            ti["updated_at"] = now - timedelta(seconds=seconds_ago)
            session.execute(insert(TaskInstance.__table__).values(ti))
        return str(made)

    yield make
    with create_session() as session:
        for model in (TaskInstance, DagRun):
            session.execute(delete(model))


@needs_3_3
def test_states_are_read_by_the_id_that_tokens_hold(
    tries: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "BATCH", 2)
    wanted = {tries(state): state for state in ("running", "success", None)}
    tries("failed")
    assert sessions.states([*wanted, ONE]) == wanted


@needs_3_3
def test_what_may_hold_a_token_is_found_again(tries: Callable[..., str]) -> None:
    wanted = {
        tries("running", seconds_ago=86_400),
        tries("deferred", seconds_ago=LIFETIME + sessions.SKEW - 60, next_method="execute_complete"),
        tries("queued", next_method="execute_complete"),
        tries("up_for_reschedule"),
        tries("awaiting_input"),
    }
    for state in ("success", "failed", "restarting", "up_for_retry", None, "scheduled", "queued"):
        tries(state)
    tries("deferred", seconds_ago=LIFETIME + sessions.SKEW + 60, next_method="execute_complete")
    found = sessions.alive()
    assert {each for each, _ in found} == wanted
    assert all(abs(until - time.time() - LIFETIME - sessions.SKEW) < 10 for _, until in found)


def test_a_gate_that_hangs_holds_up_no_other() -> None:
    hung, told = threading.Event(), threading.Semaphore(0)

    def send(notice: Notice) -> bool:
        if notice.gate == "https://hangs.example.com":
            hung.wait(30)
        else:
            told.release()
        return True

    names = [f"{number:08d}-0000-7000-8000-000000000000" for number in range(24)]
    watcher = Watcher(lambda ids: dict.fromkeys(ids, "success"), lambda: [], send)
    try:
        for each in names:
            for gate in ("https://hangs.example.com", GATE):
                watcher.minted(each, gate, time.time() + 300)
        for _ in names:
            assert told.acquire(timeout=10)
    finally:
        hung.set()
        watcher.stop()


def test_a_gate_with_nothing_to_be_told_makes_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "IDLE", 0.05)
    monkeypatch.setattr(sessions, "MOST_GATES", 1)
    told: list[str] = []
    watcher = Watcher(
        lambda ids: dict.fromkeys(ids, "success"), lambda: [], lambda notice: not told.append(notice.gate)
    )
    try:
        for gate in ("https://decoy.example.com", GATE, "https://decoy.example.com"):
            watcher.minted(str(uuid.uuid4()), gate, time.time() + 300)
            until(lambda gate=gate: told[-1:] == [gate])
            until(lambda: watcher._due == {})
        until(lambda: len([each for each in watcher._threads if each.is_alive()]) == 1)
    finally:
        watcher.stop()


def test_no_more_gates_are_told_than_it_has_threads_for_and_the_others_once_there_is_room(
    airflow: Airflow, caplog: pytest.LogCaptureFixture
) -> None:
    gates = [f"https://{number:02d}.example.com" for number in range(sessions.MOST_GATES + 2)]
    for gate in gates:
        airflow.watcher.minted(ONE, gate, airflow.now + 300)
    airflow.rows[ONE] = "success"
    told = {gate for gate, *_ in airflow.look()}
    assert len(told) == sessions.MOST_GATES
    assert airflow.look(100) == []
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    for gate in sorted(told)[:2]:
        for _ in range(sessions.PUSHERS):
            assert airflow.watcher._let_go(gate, airflow.watcher._due[gate])
    assert {gate for gate, *_ in airflow.look(15)} == set(gates) - told


@pytest.fixture
def dripping() -> Iterator[Callable[[bytes], str]]:
    """dripping(begin): the address of a host whose answers begin so, and go on with a byte every 50 ms."""
    over = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def answer(client: socket.socket, begin: bytes) -> None:
        with client, suppress(OSError):
            client.recv(65_536)
            client.sendall(begin)
            while not over.wait(0.05):
                client.sendall(b"x")

    def accept(begin: bytes) -> None:
        with suppress(OSError):
            while not over.is_set():
                client, _ = listening.accept()
                threads.append(threading.Thread(target=answer, args=(client, begin)))
                threads[-1].start()

    def make(begin: bytes) -> str:
        threads.append(threading.Thread(target=accept, args=(begin,)))
        threads[0].start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield make
    over.set()
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("begin", "done"),
    [
        (b"HTTP/1.1 202 Accepted\r\nContent-Length: 4096\r\n\r\n", True),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 4096\r\n\r\n", False),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
    ],
)
def test_a_body_that_drips_is_not_waited_for(
    keys: None,
    dripping: Callable[[bytes], str],
    monkeypatch: pytest.MonkeyPatch,
    begin: bytes,
    done: bool,
) -> None:
    monkeypatch.setattr(sessions, "TIMEOUT", 0.5)
    began = time.monotonic()
    assert sessions.Push()(Notice(dripping(begin), ONE, ENDED, 1_000_000, 1_000_300.0)) is done
    assert time.monotonic() - began < 3


def test_a_gate_that_never_stops_answering_has_four_threads_at_most_and_is_told_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "IDLE", 0.05)
    over = threading.Event()
    told: list[str] = []

    def send(notice: Notice) -> bool:
        told.append(notice.session)
        return over.wait(30)

    watcher = Watcher(lambda ids: dict.fromkeys(ids, "success"), lambda: [], send)
    try:
        for rounds, (hang, wait) in enumerate([(2, 0), (4, 0), (4, 2), (4, 4)], 1):
            for _ in range(2):
                watcher.minted(str(uuid.uuid4()), GATE, time.time() + 300)
            until(lambda hang=hang: len(told) == hang)
            until(lambda wait=wait: watcher._due[GATE].qsize() == wait)
            time.sleep(0.3)  # for those to end that have nothing to do
            assert len([each for each in watcher._threads[1:] if each.is_alive()]) == hang, rounds
        over.set()
        until(lambda: len(set(told)) == 8)
        until(lambda: watcher._due == {})
    finally:
        over.set()
        watcher.stop()


@pytest.fixture
def exhausted(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """exhausted(left): so many threads more can be started; None: as many as anybody likes."""
    start, remaining = threading.Thread.start, [0]

    def limited(thread: threading.Thread) -> None:
        if remaining[0] == 0:
            raise RuntimeError("can't start new thread")
        remaining[0] -= 1
        start(thread)

    def limit(left: int | None) -> None:
        remaining[0] = -1 if left is None else left
        monkeypatch.setattr(threading.Thread, "start", limited)

    return limit


def test_an_end_is_told_though_no_thread_could_be_started_at_first(
    threaded: Airflow, exhausted: Callable[[int | None], None], caplog: pytest.LogCaptureFixture
) -> None:
    threaded.rows |= {ONE: "success", TWO: "success"}
    exhausted(1)  # the one that watches
    threaded.watcher.minted(ONE, GATE, time.time() + 300)
    until(lambda: "can't start new thread" in caplog.text)
    assert threaded.told == []
    exhausted(1)
    until(lambda: [each.session for each in threaded.told] == [ONE])
    exhausted(0)
    threaded.watcher.minted(TWO, GATE, time.time() + 300)  # the one that is there will do
    until(lambda: [each.session for each in threaded.told] == [ONE, TWO])
    assert len(threaded.watcher._threads) == 2


def test_a_token_is_not_handed_out_while_nobody_can_watch_its_session(
    threaded: Airflow, exhausted: Callable[[int | None], None]
) -> None:
    threaded.rows[ONE] = "success"
    exhausted(0)
    with pytest.raises(RuntimeError, match="thread"):
        threaded.watcher.minted(ONE, GATE, time.time() + 300)
    exhausted(None)
    threaded.watcher.minted(ONE, GATE, time.time() + 300)
    until(lambda: threaded.told)


def test_whatever_goes_wrong_in_telling_it_is_told_again(
    threaded: Airflow, caplog: pytest.LogCaptureFixture
) -> None:
    def send(notice: Notice) -> bool:
        threaded.told.append(notice)
        if len(threaded.told) <= sessions.PUSHERS:  # each thread may fail once
            raise ValueError("unforeseen")
        return True

    threaded.watcher._send = send
    for each in (str(uuid.UUID(int=number)) for number in range(sessions.PUSHERS)):
        threaded.rows[each] = "success"
        threaded.watcher.minted(each, GATE, time.time() + 300)
    until(lambda: len(threaded.told) == 2 * sessions.PUSHERS)
    assert "unforeseen" in caplog.text


def test_whatever_goes_wrong_in_a_look_there_is_another(
    threaded: Airflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    look, failed = threaded.watcher.look, []

    def once() -> None:
        if not failed:
            failed.append(True)
            raise ValueError("unforeseen")
        look()

    monkeypatch.setattr(threaded.watcher, "look", once)
    threaded.rows[ONE] = "success"
    threaded.watcher.minted(ONE, GATE, time.time() + 300)
    until(lambda: threaded.told)
    assert "unforeseen" in caplog.text
