"""Tells the gate when a task is over, so that its tokens die with it. Runs in Airflow's API server, which made them.

    sessions.start()                             # when the API server starts
    sessions.minted(session_id, gate, expires)   # for each token that is handed out
    sessions.changed(session_id)                 # when a task has reported its state: look now, not within POLL seconds

A session is one try of a task instance; its id is TaskInstance.id, which every try has anew. The database alone says
whether it goes on: a listener would run in the task's own process, which holds no credential, which the task controls,
and which nobody can ask once it is killed.

The gate hears of an end by a security event token (RFC 8417), pushed (RFC 8935) as CAEP's session-revoked. An Airflow
or a gate that is down can't keep a token alive: it expires.
"""

from __future__ import annotations

import heapq
import json
import logging
import os
import queue
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from secrets import token_hex
from uuid import UUID

import requests

from airgate_provider import attest_keys

log = logging.getLogger(__name__)

POLL = 0.5  # seconds between two looks into the database
PAUSE = 0.05  # seconds between two looks at least, however many tasks report at once
# Seconds for which a gate may take a token that has expired by the clock here: it allows a clock_skew of 300 at most,
# its clock may be behind by as much, and the event takes a moment.
SKEW = 2 * 300 + 60
BATCH = 1000  # ids in one query
PUSHERS = 4  # threads for each gate at most: one that hangs holds up no other
MOST_GATES = 16  # that are told at a time; whoever may edit connections can name more
IDLE = 60.0  # seconds without anything to tell, after which a gate's thread ends
TIMEOUT = 5.0  # seconds to wait for the gate, and for the rest of its answer
LONGEST_ANSWER = 4096  # bytes that are looked at
BACKOFF = (0.5, 15.0)  # seconds until the second attempt; most between two

_ERR = re.compile(r"[a-z_]{1,40}")

SESSION_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
ENDED = "ended"
SUPERSEDED = "superseded"

# In all other states a try goes on, or will under the same id: it runs, waits for a trigger, for somebody's input, or
# for its next poke (a sensor in mode "reschedule"), or is about to be resumed.
OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed", "up_for_retry", "restarting"})

WAITING = ("deferred", "up_for_reschedule", "awaiting_input")

States = Callable[[Collection[str]], Mapping[str, str | None]]
Alive = Callable[[], Iterable[tuple[str, float]]]


@dataclass
class Session:
    """One that tokens were made for, or may have been. `gates` that took them; `told` of its end."""

    until: float  # Unix seconds
    gates: set[str] = field(default_factory=set)
    adopted: bool = False  # alive when this process started: which gates took its tokens isn't known
    result: str = ""  # ENDED or SUPERSEDED; empty while it goes on
    told: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Notice:
    """What one gate has to be told."""

    gate: str
    session: str
    result: str
    at: int  # when it was seen, Unix seconds
    until: float
    attempts: int = 0


class Watcher:
    """Watches the sessions of one process.

    `states` finds the states of those ids that are in task_instance; `alive` all that may hold a token, as (id, until);
    `send` tells a gate, returns False for "later", and doesn't raise.
    """

    def __init__(
        self,
        states: States,
        alive: Alive,
        send: Callable[[Notice], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._states, self._alive, self._send, self._clock = states, alive, send, clock
        self._sessions: dict[str, Session] = {}
        self._gates: set[str] = set()
        self._waiting: list[tuple[float, int, Notice]] = []  # a heap, by when they are due
        self._number = count()
        self._due: dict[str, queue.SimpleQueue[Notice | None]] = {}  # by gate
        self._pushers: Counter[str] = Counter()  # threads, by gate; those that hang are among them
        self._condition = threading.Condition()
        self._woken = self._adopting = self._away = self._stopped = self._many = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Take over what a process before this one may have left."""
        with self._condition:
            self._adopting = True
            self._go()

    def minted(self, session_id: str, gate: str, expires: float) -> None:
        """Remember a session until its last token has expired."""
        with self._condition:
            session = self._sessions.setdefault(session_id, Session(0.0))
            session.until = max(session.until, expires + SKEW)
            session.gates.add(gate)
            self._gates.add(gate)
            self._go()

    def changed(self, session_id: str) -> None:
        """Look now whether it goes on."""
        with self._condition:
            if session_id in self._sessions:
                self._woken = True
                self._condition.notify()

    def stop(self) -> None:
        """End the threads."""
        with self._condition:
            self._stopped = True
            self._condition.notify()
            for due in self._due.values():
                for _ in range(PUSHERS):
                    due.put(None)

    def look(self) -> None:
        """Ask the database once, and hand out what is due. Called by the watching thread."""
        now = self._clock()
        with self._condition:
            adopting, self._adopting = self._adopting, False
            for session_id in [each for each, session in self._sessions.items() if session.until <= now]:
                del self._sessions[session_id]
            asked = [each for each, session in self._sessions.items() if not session.result]
        try:
            adopted = list(self._alive()) if adopting else []
            found = self._states(asked) if asked else {}
            self._away = False
        except Exception as error:
            # Nothing was found out: neither that sessions go on nor that they don't.
            asked, adopted, found, self._adopting = [], [], {}, self._adopting or adopting
            if not self._away:  # once, not twice a second
                log.warning("Airgate can't see which tasks have ended, and looks again: %s", error)
            self._away = True
        with self._condition:
            for session_id, until in adopted:
                session = self._sessions.setdefault(session_id, Session(until))
                session.until, session.adopted = max(session.until, until), True
            for session_id in asked:
                self._sessions[session_id].result = _result(found, session_id)
            self._hand_out(now)

    def _hand_out(self, now: float) -> None:
        for session_id, session in list(self._sessions.items()):
            if not session.result:
                continue
            for gate in (self._gates if session.adopted else session.gates) - session.told:
                self._put(Notice(gate, session_id, session.result, int(now), session.until))
                session.told.add(gate)
            if not session.adopted:  # of an adopted one a gate may have to hear that isn't known yet
                del self._sessions[session_id]
        due = []
        while self._waiting and self._waiting[0][0] <= now:
            due.append(heapq.heappop(self._waiting)[2])
        for notice in due:
            self._put(notice)

    def _put(self, notice: Notice) -> None:
        gate = notice.gate
        if gate not in self._due:
            if len(self._due) >= MOST_GATES:
                if not self._many:
                    log.error(
                        "Tasks are attested for more than %d gates: %s and others are not told yet when one has ended. "
                        "Look at the hosts of the connections, and set [airgate] attest_gates.",
                        MOST_GATES, gate,
                    )  # fmt: skip
                self._many = True
                self._put_off(notice)
                return
            self._due[gate] = queue.SimpleQueue()
        due = self._due[gate]
        try:
            while self._pushers[gate] < PUSHERS:
                self._run(partial(self._keep_pushing, gate, due))
                self._pushers[gate] += 1
        except RuntimeError as error:  # there can't be more threads: those that are there will do
            if not self._pushers[gate]:
                log.error("The gate at %s is not told yet that a task has ended: %s", gate, error)
                del self._due[gate]
                self._put_off(notice)
                return
        due.put(notice)

    def push(self, notice: Notice) -> None:
        """Tell a gate, or put it off. Called by the pushing threads."""
        if self._clock() >= notice.until or not self._send(notice):
            self._put_off(notice)

    def _put_off(self, notice: Notice) -> None:
        """Until later, and later each time; not beyond the moment when no token can live any more."""
        first, most = BACKOFF
        due = self._clock() + min(first * 2**notice.attempts, most)
        if due >= notice.until:
            log.warning(
                "The gate at %s was never told that session %s is over; its tokens have expired.",
                notice.gate, notice.session,
            )  # fmt: skip
            return
        later = replace(notice, attempts=notice.attempts + 1)
        with self._condition:
            heapq.heappush(self._waiting, (due, next(self._number), later))
            self._condition.notify()

    def _go(self) -> None:
        """Have the threads run: those of a process that was forked off are not."""
        if not self._threads:
            self._run(self._watch)
        self._condition.notify()

    def _run(self, loop: Callable[[], None]) -> None:
        """Raises RuntimeError where the system has no more threads."""
        thread = threading.Thread(target=loop, name="airgate sessions", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _watch(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(self._is_busy)
                self._condition.wait_for(lambda: self._woken or self._stopped, POLL)
                if self._stopped:
                    return
                self._woken = False
            try:
                self.look()
            except Exception:  # without this thread no gate would hear of an end any more
                log.exception("Airgate could not look which tasks have ended, and looks again")
            time.sleep(PAUSE)

    def _is_busy(self) -> bool:
        return bool(self._sessions or self._waiting or self._adopting or self._stopped)

    def _keep_pushing(self, gate: str, due: queue.SimpleQueue[Notice | None]) -> None:
        while True:
            try:
                notice = due.get(timeout=IDLE)
            except queue.Empty:
                if self._let_go(gate, due):
                    return
                continue
            if notice is None:
                return
            try:
                self.push(notice)
            except Exception:  # a thread that is gone would be counted for ever
                log.exception("Airgate could not tell the gate at %s that a task has ended", gate)
                self._put_off(notice)

    def _let_go(self, gate: str, due: queue.SimpleQueue[Notice | None]) -> bool:
        """End a thread that has nothing to do. With a gate's last one there is room for another gate."""
        with self._condition:
            if not due.empty():
                return False
            self._pushers[gate] -= 1
            if not self._pushers[gate]:
                del self._due[gate], self._pushers[gate]
                self._many = False
            current = threading.current_thread()
            self._threads = [each for each in self._threads if each is not current]
            return True


def _result(found: Mapping[str, str | None], session_id: str) -> str:
    if session_id not in found:
        return SUPERSEDED  # Airflow has moved the try to its history: retried, or cleared
    return ENDED if found[session_id] in OVER else ""


def states(ids: Collection[str]) -> dict[str, str | None]:
    """The states of those task instances that are there, by id; one query for every BATCH."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    wanted = [UUID(each) for each in ids]
    found: dict[str, str | None] = {}
    with create_session() as session:
        for first in range(0, len(wanted), BATCH):
            query = select(TaskInstance.id, TaskInstance.state)
            rows = session.execute(query.where(TaskInstance.id.in_(wanted[first : first + BATCH])))
            found |= {str(row.id): row.state for row in rows}
    return found


def alive() -> list[tuple[str, float]]:
    """Ids of all task instances that may hold a token which was made before now, and until when one may be valid."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import and_, or_, select

    longest = attest_keys.settings().lifetime + SKEW
    resumed = TaskInstance.next_method.is_not(None)
    query = select(TaskInstance.id).where(
        TaskInstance.state.in_((*WAITING, "running", "scheduled", "queued")),
        or_(
            TaskInstance.state == "running",
            and_(
                TaskInstance.updated_at > datetime.now(UTC) - timedelta(seconds=longest),
                or_(TaskInstance.state.in_(WAITING), resumed),
            ),
        ),
    )
    with create_session() as session:
        ids = [str(row.id) for row in session.execute(query)]
    until = time.time() + longest
    return [(each, until) for each in ids]


def event(notice: Notice, now: float) -> str:
    """The signed security event token (RFC 8417 §2.2). Raises AttestInvalid."""
    attest = attest_keys.settings()
    revoked = {
        "event_timestamp": notice.at,
        "initiating_entity": "system",
        "reason_admin": {"en": notice.result},
    }
    claims = {
        "iss": attest.issuer,
        "iat": int(now),
        "jti": token_hex(16),
        "aud": attest.audience_at(notice.gate),
        "sub_id": {"format": "complex", "session": {"format": "opaque", "id": notice.session}},
        "events": {SESSION_REVOKED: revoked},
    }
    return attest_keys.sign(claims, "secevent+jwt")


class Push:
    """Pushes events to gates (RFC 8935 §2), over connections that each thread keeps. Says once what is wrong."""

    def __init__(self) -> None:
        self._connections = threading.local()
        self._said: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def __call__(self, notice: Notice) -> bool:
        """Whether that's done with: taken, or no event as the gate has it. All else may be otherwise later: a key that
        it doesn't know yet, a policy on its way, something before it."""
        try:
            connection = self._connections.value
        except AttributeError:
            connection = self._connections.value = requests.Session()
        try:
            # A callable for auth: without one, requests would look for a password in ~/.netrc.
            with connection.post(
                f"{notice.gate}/-/events",
                data=event(notice, time.time()),
                headers={
                    "Content-Type": "application/secevent+jwt",
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                },
                auth=_as_it_is,
                timeout=TIMEOUT,
                allow_redirects=False,
                stream=True,
            ) as answer:
                status: int = answer.status_code
                body = _beginning(answer)
        except Exception as error:  # the network, and every way to be without a usable key
            self._say(notice.gate, f"{type(error).__name__}: {error}")
            return False
        if status == requests.codes.accepted:  # RFC 8935 §2.2: nothing else means that it was taken
            with self._lock:
                self._said = {each for each in self._said if each[0] != notice.gate}
            return True
        said = _error(body)
        self._say(notice.gate, f"{status} {said}")
        return status == requests.codes.bad_request and said == "invalid_request"

    def _say(self, gate: str, what: str) -> None:
        with self._lock:
            new = (gate, what[:40]) not in self._said
            self._said.add((gate, what[:40]))
        if new:
            log.error(
                "The gate at %s does not take it that a task has ended (%s): tokens live there until it does, or they "
                "expire. Is [airgate] attest_issuer an issuer of the gate's policy, and attest_audience, or without "
                "that this address, one of its audiences?",
                gate, what,
            )  # fmt: skip


def _beginning(answer: requests.Response) -> bytes:
    """Of the body what comes within TIMEOUT, LONGEST_ANSWER bytes at most. A connection is kept when that is all."""
    body, end = b"", time.monotonic() + TIMEOUT
    # Byte by byte: the time limit of requests is for each reading, and one of many bytes waits for all of them.
    while len(body) < LONGEST_ANSWER and time.monotonic() < end:
        if not (byte := answer.raw.read(1, decode_content=False)):
            break
        body += byte
    return body


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _error(body: bytes) -> str:
    """What RFC 8935 §2.4 calls `err`, where there is one."""
    try:
        said = json.loads(body)["err"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return said if isinstance(said, str) and _ERR.fullmatch(said) else ""


def _new() -> Watcher:
    return Watcher(states, alive, Push())


_watcher = _new()


def _forget() -> None:
    global _watcher
    _watcher = _new()


# A forked process has none of the threads, and maybe a lock that one of them held.
os.register_at_fork(after_in_child=_forget)


def start() -> None:
    """Watch what was running already when this API server started: another one may have made tokens for it."""
    _watcher.start()


def minted(session_id: str, gate: str, expires: float) -> None:
    """A token was made for a session, to be used at a gate (scheme, host and port); `expires`: Unix seconds."""
    _watcher.minted(session_id, gate, expires)


def changed(session_id: str) -> None:
    """A task has reported its state."""
    _watcher.changed(session_id)


def stop() -> None:
    """The API server ends."""
    _watcher.stop()
    _forget()
