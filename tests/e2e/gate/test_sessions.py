"""Sessions that end before their tokens: an issuer with keys of its own tells it by a security event token, real D1
keeps it, and every gate on that D1 refuses the session's tokens."""

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from airgate.dev.stack import AUDIENCE
from airgate.environment import LOCAL_GATE
from airgate.node import PROJECT
from secevent import REVOKED, TYPE
from sessions import ENDED, SUPERSEDED

MIGRATION = PROJECT / "migrations" / "0003_sessions.sql"
SOON = 3.0  # seconds until every gate that has traffic refuses a session that has ended
READ = "/lab/v1/entries"
ISSUER = """
issuers:
  {name}:
    issuer: {issuer}
    audiences: ["{audience}"]
    algorithms: [ES256]
    kind: {{default: workload}}
    attested: {{dag: [airflow, dag], task: [airflow, task], run: [airflow, run]}}
"""
RULES = """
roles:
  reader:
    description: Reads
    granted_to: [{grants}]
upstreams:
  lab: {{base: "https://lab.example.com", local: sample, owner: lab@example.com}}
policies:
  - id: read
    description: Readers read
    owner: lab@example.com
    effect: permit
    subject: {{roles: {{any: [reader]}}}}
    target: {{upstream: lab, methods: [GET], paths: ["/**"]}}
  - id: health
    description: Readers see how the gate is
    owner: lab@example.com
    effect: permit
    subject: {{roles: {{any: [reader]}}}}
    target: {{upstream: "-", methods: [GET], paths: [/health]}}
"""


class Airflow:
    """An issuer of tokens that are for a session, which tells when one has ended. It counts who asks for its keys."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.kid = secrets.token_hex(8)
        self.asked = 0
        public = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        keys = {"keys": [{**{name: public[name] for name in ("kty", "crv", "x", "y")}, "kid": self.kid}]}
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                metadata = {"issuer": issuer.url, "jwks_uri": issuer.url + "/keys"}
                body = json.dumps(keys if self.path == "/keys" else metadata).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
                """Nothing: tests look at `asked`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def access(self, session: str | None, **changes: Any) -> str:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": "finance_close/publish",
            "aud": AUDIENCE,
            "client_id": "airflow",
            "jti": secrets.token_hex(16),
            "iat": now,
            "exp": now + 300,
            "groups": ["readers"],
            "sid": session,
            "airflow": {"dag": "finance_close", "task": "publish", "run": "scheduled__1", "try": 1},
        }
        return self.signed({**claims, **changes}, "at+jwt")

    def event(self, session: str, result: str = ENDED, **changes: Any) -> str:
        """A security event token: a session has ended."""
        now = int(time.time())
        reason = {"event_timestamp": now, "initiating_entity": "system", "reason_admin": {"en": result}}
        claims = {
            "iss": self.url,
            "iat": now,
            "jti": secrets.token_hex(16),
            "aud": AUDIENCE,
            "sub_id": {"format": "complex", "session": {"format": "opaque", "id": session}},
            "events": {REVOKED: reason},
        }
        return self.signed({**claims, **changes}, "secevent+jwt")

    def signed(self, claims: dict[str, Any], typ: str | None, **header: Any) -> str:
        kept = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(kept, self.private, "ES256", {"kid": self.kid, "typ": typ, **header})


class Place(NamedTuple):
    """Two gates on one D1, as old as a view may be in production, and two issuers that both trust."""

    gate: Any
    another: Any
    airflow: Airflow
    other: Airflow


@pytest.fixture(scope="module")
def place(
    start_gate: Callable[..., Any], publish: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    issuers = {"airflow": Airflow(), "other": Airflow()}
    seed = tmp_path_factory.mktemp("sessions")
    for name, each in issuers.items():
        (seed / f"{name}.yaml").write_text(ISSUER.format(name=name, issuer=each.url, audience=AUDIENCE))
    grants = ", ".join(f"{{issuer: {name}, claim: groups, value: readers}}" for name in issuers)
    (seed / "roles.yaml").write_text(RULES.format(grants=grants))
    gate = start_gate()
    publish(seed, gate)
    gate.wait()
    another = start_gate(gate.state)
    another.wait()
    yield Place(gate, another, **issuers)
    for each in issuers.values():
        each.stop()


def push(gate: Any, event: str | bytes, media: str = TYPE) -> Any:
    body = event.encode() if isinstance(event, str) else event
    return gate.call("/-/events", "POST", headers={"Content-Type": media}, body=body)


def code(gate: Any, token: str) -> str:
    answer = gate.call(READ, token=token)
    return answer.code or str(answer.status)


def session() -> str:
    """The id of a new one, as Airflow makes them."""
    return secrets.token_hex(16)


@pytest.mark.parametrize("result", [ENDED, SUPERSEDED])
def test_a_token_dies_with_its_session_everywhere(place: Place, result: str) -> None:
    gate, another, airflow, _ = place
    task, next_task = session(), session()
    token, later, goes_on = airflow.access(task), airflow.access(task), airflow.access(next_task)
    assert [code(gate, token), code(another, token), code(gate, goes_on)] == ["200", "200", "200"]

    answer = push(gate, airflow.event(task, result))
    told = time.monotonic()
    assert (answer.status, answer.body) == (202, b"")
    expected = f"token.session_{result}"
    assert [code(gate, token), code(gate, later)] == [expected, expected]
    while (found := code(another, token)) != expected:  # its traffic
        assert found == "200"
        assert time.monotonic() - told < SOON
        time.sleep(0.02)
    assert code(another, later) == expected
    assert [code(gate, goes_on), code(another, goes_on)] == ["200", "200"]

    refused = another.call(READ, token=token)
    assert (refused.status, refused.json()["retryable"]) == (401, False)
    assert 'error="invalid_token"' in refused.headers["WWW-Authenticate"]
    [decision] = another.events(refused)
    assert (decision["reason"], decision["subject"]) == (expected, "finance_close/publish")
    assert task in decision["detail"]
    [decision] = gate.events(answer)
    assert (decision["decision"], decision["page"], decision["reason"]) == ("permit", "events", None)
    event_id = decision["ended"].pop("event_id")
    assert decision["ended"] == {"issuer": "airflow", "session": task, "result": result}
    assert len(event_id) == 32


def sql(gate: Any, statement: str, *values: Any) -> list[Any]:
    """On the gate's D1, which is a file of SQLite's here."""
    [file] = (Path(gate.state) / "v3/d1").glob("*/*.sqlite")
    with closing(sqlite3.connect(file, timeout=10)) as database, database:
        return database.execute(statement, values).fetchall()


def test_a_gate_that_begins_afterwards_knows_it_with_its_first_request(
    place: Place, start_gate: Callable[..., Any]
) -> None:
    gate, _, airflow, _ = place
    over, goes_on = session(), session()
    # More than one statement tells of.
    for ended in [*[session() for _ in range(80)], over]:
        assert push(gate, airflow.event(ended)).status == 202
    fresh = start_gate(gate.state)
    fresh.wait()
    assert code(fresh, airflow.access(over)) == "token.session_ended"
    token = airflow.access(goes_on)
    assert code(fresh, token) == "200"
    report = fresh.call("/-/health", token=token).json()
    assert report["view"]["sessions"]["ended"] >= 81
    assert report["view"]["sessions"]["full"] == []


def test_a_session_may_be_called_anything_that_can_be_printed(place: Place) -> None:
    gate, another, airflow, _ = place
    for task in ("'; DROP TABLE sessions; --", '"\\[]{}', "é ж 漢 \U0001f600", "x" * 256, "\U0001f600" * 256):
        token = airflow.access(task)
        assert code(another, token) == "200"
        assert push(gate, airflow.event(task)).status == 202
        assert code(gate, token) == "token.session_ended"
        began = time.monotonic()
        while code(another, token) != "token.session_ended":
            assert time.monotonic() - began < SOON
            time.sleep(0.02)


def test_an_issuer_ends_its_own_sessions_only(place: Place) -> None:
    gate, another, airflow, other = place
    task = session()
    its, theirs = airflow.access(task), other.access(task)
    assert push(gate, other.event(task)).status == 202
    assert [code(gate, theirs), code(gate, its)] == ["token.session_ended", "200"]
    assert code(another, its) == "200"
    for forged in (
        other.event(task, iss=airflow.url),  # by a key that the issuer has not
        other.signed(jwt.decode(airflow.event(task), options={"verify_signature": False}), "secevent+jwt",
                     kid=airflow.kid),  # or says that it has
    ):  # fmt: skip
        answer = push(gate, forged)
        assert (answer.status, answer.json()["err"]) in ((400, "invalid_key"), (400, "authentication_failed"))
    assert code(gate, its) == "200"


def test_an_event_that_is_replayed_changes_nothing(place: Place) -> None:
    gate, another, airflow, _ = place
    task = session()
    event = airflow.event(task)
    row = "SELECT * FROM sessions WHERE session = ?"
    assert push(gate, event).status == 202
    before = sql(gate, row, task)
    for each in (gate, another, gate, another):
        assert push(each, event).status == 202
    assert sql(gate, row, task) == before
    assert [tuple(each)[2:4] for each in before] == [(task, "ended")]


def test_what_is_refused_says_why_as_the_standard_has_it(place: Place) -> None:
    gate, _, airflow, _ = place
    task = session()
    token, now = airflow.access(task), int(time.time())
    header, claims, signature = airflow.event(task).split(".")
    wrong = ("B" if signature[0] == "A" else "A") + signature[1:]
    cases: list[tuple[str, str, str]] = [
        ("hello", "invalid_request", "token.malformed"),
        ("x" * 8193, "invalid_request", "request.body_too_large"),
        (token, "invalid_request", "token.type"),  # an access token ends nothing
        (airflow.event(task, sub="finance_close/publish"), "invalid_request", "token.claims"),
        (airflow.event(task, iat=now - 700), "invalid_request", "token.expired"),
        (airflow.event(task, aud="https://other.example.com"), "invalid_audience", "token.audience"),
        (airflow.event(task, iss="https://nobody.example.com"), "invalid_issuer", "token.issuer"),
        (f"{header}.{claims}.{wrong}", "authentication_failed", "token.signature"),
    ]
    for body, error, reason in cases:
        answer = push(gate, body)
        assert (answer.status, answer.json()["err"]) == (400, error)
        assert answer.headers["Content-Type"] == "application/json"
        [decision] = gate.events(answer)
        assert (decision["decision"], decision["reason"], decision["page"]) == ("deny", reason, "events")
    answer = push(gate, airflow.event(task), "application/json")
    assert (answer.status, answer.json()["err"]) == (400, "invalid_request")
    assert code(gate, token) == "200"
    # Nor is an event a token for anything.
    for event in (airflow.event(task), airflow.event(task, sub="x", exp=now + 60, client_id="airflow")):
        assert code(gate, event) == "token.type"


def test_many_sessions_end_at_once(place: Place) -> None:
    """As many tasks as one scheduler ends in a second or two, told by several senders."""
    gate, another, airflow, _ = place
    tasks = [session() for _ in range(200)]
    events = [airflow.event(task) for task in tasks]
    headers = {"Content-Type": TYPE}
    with (
        httpx.Client(base_url=gate.url, timeout=30, trust_env=False) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        begun = time.monotonic()
        answers = list(
            pool.map(lambda event: client.post("/-/events", content=event, headers=headers), events)
        )
        took = time.monotonic() - begun
    assert {answer.status_code for answer in answers} == {202}
    last = airflow.access(tasks[-1])
    ended = time.monotonic()
    while code(another, last) != "token.session_ended":
        assert time.monotonic() - ended < SOON
        time.sleep(0.02)
    tokens = [airflow.access(task) for task in tasks]
    assert {code(another, token) for token in tokens} == {"token.session_ended"}
    assert took < 60


def test_events_cost_no_fetch_of_keys_that_are_not_the_issuers(place: Place) -> None:
    gate, _, airflow, _ = place
    push(gate, airflow.event(session()))
    asked = airflow.asked
    for number in range(20):
        forged = airflow.signed(
            jwt.decode(airflow.event("x"), options={"verify_signature": False}),
            "secevent+jwt",
            kid=f"k-{number}",
        )
        assert push(gate, forged).json()["err"] == "invalid_key"
        push(gate, airflow.event("x", iss=f"{airflow.url}/{number}"))
    assert (
        airflow.asked - asked <= 2
    )  # one look for all of them: a document that names the keys, and the keys


def test_a_session_is_revoked_by_hand(place: Place) -> None:
    gate, _, airflow, _ = place
    task = session()
    token, goes_on = airflow.access(task), airflow.access(session())
    now = int(time.time())
    act = {
        "act": "revoke", "gate": LOCAL_GATE, "at": now, "until": now + 600, "by": "somebody", "reason": "a test",
        "match": {"session": task},
    }  # fmt: skip
    text = json.dumps(act, sort_keys=True, separators=(",", ":"))
    sql(
        gate,
        "INSERT INTO acts (id, act, until, document, key, signature) VALUES (?, 'revoke', ?, ?, '', '')",
        secrets.token_hex(16), now + 600, text,
    )  # fmt: skip
    began = time.monotonic()
    while code(gate, token) != "policy.revoked":
        assert time.monotonic() - began < SOON
        time.sleep(0.02)
    assert code(gate, goes_on) == "200"


def test_without_the_table_a_gate_goes_on_and_says_so(place: Place) -> None:
    """A Worker that was uploaded before its migration."""
    gate, another, airflow, _ = place
    task = session()
    token = airflow.access(task)
    sql(gate, "DROP TABLE sessions")
    try:
        time.sleep(2.5)  # so that the view is read anew
        assert [code(gate, token), code(another, token)] == ["200", "200"]
        answer = push(gate, airflow.event(task))
        assert (answer.status, answer.code) == (503, "state.unavailable")
        assert answer.headers["Retry-After"]
        [decision] = gate.events(answer)
        assert "no such table: sessions" in decision["detail"]
        deadline = time.monotonic() + 5
        while True:
            report = gate.call("/-/health", token=token).json()
            if any("lacks the table sessions" in warning for warning in report["warnings"]):
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert report["status"] == "ok"
        assert report["bundle"]["error"] is None
    finally:
        [file] = (Path(gate.state) / "v3/d1").glob("*/*.sqlite")
        with closing(sqlite3.connect(file, timeout=10)) as database, database:
            database.executescript(MIGRATION.read_text("utf-8"))
    assert push(gate, airflow.event(task)).status == 202
    assert code(gate, token) == "token.session_ended"
    began = time.monotonic()
    while code(another, token) != "token.session_ended":
        assert time.monotonic() - began < SOON
        time.sleep(0.02)
