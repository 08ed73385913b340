"""The log as a chain: whatever happens to requests, every line has its place, and checkpoints sign for it."""

import gzip
import json
import re
import secrets
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner, Result

from airgate.cli import app
from airgate.dev.signing import new_audit_keys
from airgate.dev.stack import Stack
from airgate.engine import AUDIT_KEY
from airgate.node import PROJECT

Token = Callable[..., str]
PLACE = re.compile(
    r'(.*),"chain":"([0-9a-f]{32})","position":([0-9]+),"previous":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"\}'
)
SCHEMA = PROJECT / "airgate" / "audit" / "event.schema.json"
EVERY = 1.0  # seconds between checkpoints here
PLANTED = "planted-" + secrets.token_hex(8)


class Logged:
    """A gate, the lines it has written, and the public keys that its checkpoints are verified with."""

    def __init__(self, gate: Any, keys: Path) -> None:
        self.gate = gate
        self.keys = keys

    @property
    def lines(self) -> list[str]:
        return [
            line for line in self.gate.log.read_text("utf-8").split("\n")[:-1] if line.startswith('{"event"')
        ]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    def told(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.events if each["event"] == event]

    def settled(self) -> list[dict[str, Any]]:
        """All events, once a checkpoint covers every line that is none."""

        def covered() -> bool:
            events = self.events
            last = max(one["position"] for one in events if one["event"] != "checkpoint")
            signed = [
                json.loads(one["document"])["position"] for one in events if one["event"] == "checkpoint"
            ]
            return max(signed, default=-1) >= last

        end = time.monotonic() + 20
        while not covered():
            assert time.monotonic() < end, "lines stay without a checkpoint"
            time.sleep(0.1)
        return self.events

    def row(self) -> dict[str, Any] | None:
        """The chain's row in the register."""
        rows = self.sql("SELECT * FROM chains WHERE chain = ?", self.events[0]["chain"])
        return rows[0] if rows else None

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        [file] = (Path(self.gate.state) / "v3/d1").glob("*/*.sqlite")
        with closing(sqlite3.connect(file, timeout=10)) as database, database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(statement, values).fetchall()]

    def objects(self) -> dict[str, str]:
        """The objects in the bucket, by name: Miniflare keeps names in SQLite and contents in files."""
        found = {}
        for file in (Path(self.gate.state) / "v3/r2").glob("*/*.sqlite"):
            with closing(sqlite3.connect(file, timeout=10)) as database:
                for key, blob in database.execute("SELECT key, blob_id FROM _mf_objects"):
                    [content] = (Path(self.gate.state) / "v3/r2").glob(f"*/blobs/{blob}")
                    found[key] = content.read_text("utf-8")
        return found

    def verify(self, *arguments: str, log: Path | None = None) -> Result:
        return CliRunner().invoke(
            app, ["audit", "verify", str(log or self.gate.log), "--keys", str(self.keys), *arguments]
        )


def chained(lines: list[str]) -> None:
    """See by other code than the command's that every line has its place, and holds on to the one before."""
    previous, position = "0" * 64, 0
    for line in lines:
        assert len(line) <= 8192
        assert line.isascii()
        found = PLACE.fullmatch(line)
        assert found is not None, line
        assert (found[3], found[4]) == (str(position), previous)
        covered = line[: line.rindex(',"hash":"')]
        assert found[5] == sha256(covered.encode()).hexdigest()
        previous, position = found[5], position + 1


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    private, public = new_audit_keys()
    file = tmp_path_factory.mktemp("keys") / "audit-keys.json"
    file.write_text(public, encoding="utf-8")
    return private, file


@pytest.fixture(scope="module")
def start(
    stack: Stack, start_gate: Any, publish: Any, lab_seed: Path, keys: tuple[str, Path]
) -> Callable[..., Logged]:
    """start(state=None, **variables): a gate with the lab's policy, a signing key, and quick checkpoints."""

    def begin(state: Path | None = None, buckets: dict[str, str] | None = None, **variables: str) -> Logged:
        usual = {"TRUSTED_KEYS": stack.trusted, AUDIT_KEY: keys[0], "AUDIT_SECONDS": str(EVERY)}
        gate = start_gate(state, {**usual, **variables}, buckets)
        if state is None:
            publish(lab_seed, gate)
        gate.wait()
        return Logged(gate, keys[1])

    return begin


@pytest.fixture(scope="module")
def logged(start: Callable[..., Logged]) -> Logged:
    return start(buckets={"AUDIT": "audit"})


def test_every_request_of_every_kind_leaves_one_decision_and_the_chain_holds(
    logged: Logged, reader: str, hostile: Any
) -> None:
    gate, wire = logged.gate, logged.gate
    hostile.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    gate.call("/lab/v1/first", token=reader)
    answered = {"permit": "/lab/v1/things", "hostile": "/hostile/x"}
    kinds: dict[str, Callable[[], Any]] = {
        "permit": lambda: gate.call(answered["permit"], token=reader),
        "hostile": lambda: gate.call(answered["hostile"], token=reader),
        "deny": lambda: gate.call("/crm/v1/accounts", token=reader),
        "anonymous": lambda: gate.call("/lab/x"),
        "malformed path": lambda: gate.call("/lab/%2e%2e/x", token=reader),
        "malformed token": lambda: gate.call("/lab/x", token="junk"),
        "no upstream": lambda: gate.call("/nowhere", token=reader),
        "unreachable": lambda: gate.call("/gone/x", token=reader),
        "late": lambda: gate.call("/impatient/reports/slow?ms=3000", token=reader),
        "health": lambda: gate.call("/-/health"),
    }
    times = 12
    with ThreadPoolExecutor(32) as pool:
        calls = [pool.submit(kinds[name]) for name in list(kinds) * times]
        replies = [call.result() for call in calls]
    assert len({reply.id for reply in replies}) == len(kinds) * times
    gone = 20
    for number in range(gone):
        with wire.connected() as connection:
            connection.sendall(
                f"GET /lab/reports/slow?ms=200&gone={number} HTTP/1.1\r\nHost: gate.example.com\r\n"
                f"Authorization: Bearer {reader}\r\n\r\n".encode()
            )
            time.sleep(0.02)
    # The one that an answer's lines are looked up for may be followed by others' lines.
    logged.gate.events(replies[0])
    logged_before = time.monotonic()
    while (
        len(logged.told("decision")) < 1 + len(kinds) * times + gone and time.monotonic() - logged_before < 20
    ):
        time.sleep(0.1)
    events = logged.settled()
    decisions = Counter(event["request_id"] for event in events if event["event"] == "decision")
    assert set(decisions.values()) == {1}
    assert len(decisions) == 1 + len(kinds) * times + gone
    outcomes = Counter(event["request_id"] for event in events if event["event"] == "outcome")
    assert set(outcomes.values()) == {1}
    called = {
        event["request_id"]
        for event in events
        if event["event"] == "decision" and event["decision"] == "permit"
    }
    called -= {event["request_id"] for event in events if "page" in event}
    assert set(outcomes) == called
    results = Counter(event["result"] for event in events if event["event"] == "outcome")
    assert results["unreachable"] == times
    assert results["timeout"] == times
    chained(logged.lines)
    result = logged.verify()
    assert result.exit_code == 0, result.output
    form = Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))
    for event in events:
        form.validate(event)


def test_a_chain_opens_with_what_its_isolate_is(logged: Logged, keys: tuple[str, Path]) -> None:
    logged.gate.call("/-/health")
    opening = logged.events[0]
    assert opening["event"] == "opening"
    assert [event["event"] for event in logged.events].count("opening") == 1
    assert opening["gate"] == "airgate-local"
    assert opening["keys"]["audit"] == json.loads(keys[0])["kid"]
    assert opening["keys"]["trusted"] == [key["kid"] for key in json.loads(logged_trusted(logged))["keys"]]


def logged_trusted(logged: Logged) -> str:
    settings = json.loads((Path(logged.gate.log).parent / "gate.json").read_text("utf-8"))
    return str(settings["secrets"]["TRUSTED_KEYS"])


def test_the_register_has_the_chain_and_its_newest_checkpoint(logged: Logged) -> None:
    logged.gate.call("/-/health")
    events = logged.settled()
    last = [event for event in events if event["event"] == "checkpoint"][-1]
    document = json.loads(last["document"])
    logged_row = logged.row()
    end = time.monotonic() + 5
    while (logged_row is None or logged_row["position"] < document["position"]) and time.monotonic() < end:
        time.sleep(0.1)
        logged_row = logged.row()
    assert logged_row is not None
    assert logged_row["document"] == last["document"]
    assert (logged_row["key"], logged_row["signature"]) == (last["key"], last["signature"])
    assert document["number"] == logged_row["number"]


def test_checkpoints_come_by_number_of_lines_too(
    start: Callable[..., Logged], logged: Logged, reader: str
) -> None:
    many = start(logged.gate.state, AUDIT_SECONDS="10", AUDIT_EVENTS="10")
    begun = time.monotonic()
    for _ in range(30):
        assert many.gate.call("/lab/v1/things", token=reader).status == 200
    many.gate.events(many.gate.call("/-/health"))
    taken = time.monotonic() - begun
    assert taken < 9, "too slow to tell them from those by time"
    assert len(many.told("checkpoint")) >= 4
    chained(many.lines)


def test_alterations_of_the_file_are_found_and_named(logged: Logged, tmp_path: Path) -> None:
    logged.gate.call("/-/health")
    logged.settled()
    lines = logged.lines
    number = next(n for n, line in enumerate(lines) if '"decision":"deny"' in line)
    position = json.loads(lines[number])["position"]

    def of(changed: list[str], packed: bool = False) -> Result:
        file = tmp_path / "log"
        text = "\n".join(changed).encode() + b"\n"
        file.write_bytes(gzip.compress(text) if packed else text)
        return logged.verify(log=file)

    assert of(lines).exit_code == 0
    assert of(lines, packed=True).exit_code == 0
    for changed in (
        [
            line.replace('"decision":"deny"', '"decision":"permit"') if n == number else line
            for n, line in enumerate(lines)
        ],
        lines[:number] + lines[number + 1 :],
    ):
        result = of(changed)
        assert result.exit_code == 1, result.output
        assert str(position) in result.output


def test_no_secret_is_anywhere_in_what_is_kept(
    start: Callable[..., Logged], logged: Logged, mint: Token, reader: str
) -> None:
    gate = logged.gate
    token = mint(jti="harmless")
    # Where a caller could put one, and where the gate has some of its own.
    gate.call(f"/lab/v1/x?key={PLANTED}&limit=1", token=token)
    gate.call(f"/lab/v1/x?{PLANTED}", token=token)
    gate.call(f"/lab/v1/x?a=1;{PLANTED}=2", token=token)
    gate.call(f"/ledger/v1/{PLANTED}?access_token={PLANTED}")
    gate.call(f"/impatient/{PLANTED}", token=token)  # its paths are not on record
    gate.call("/lab/v1/x", token=f"{PLANTED}.{PLANTED}.{PLANTED}")
    gate.call("/lab/v1/x", method="POST", token=token, body=PLANTED.encode())
    for name in (
        "Cookie",
        "X-Api-Key",
        "Proxy-Authorization",
        "Airgate-Token",
        "DPoP",
        "Airgate-Proxy",
        "Idempotency-Key",
    ):
        gate.call("/lab/v1/x", token=token, headers={name: PLANTED})
    gate.call("/-/authz/nginx", headers={"Airgate-Proxy": PLANTED, "X-Original-URI": "/"})
    logged.settled()
    settings = json.loads((Path(gate.log).parent / "gate.json").read_text("utf-8"))
    private = json.loads(settings["secrets"][AUDIT_KEY])["d"]
    kept = {"log": gate.log.read_bytes(), "audit": gate.audit.read_bytes()}
    for file in Path(gate.state).rglob("*"):
        if file.is_file():
            kept[str(file.relative_to(gate.state))] = file.read_bytes()
    for what in (PLANTED, token, token.rpartition(".")[2], reader, private, "of-a-test"):
        assert not [name for name, text in kept.items() if what.encode() in text], what
    assert any(b'"harmless"' in text for text in kept.values())  # the scan does find what is there


def test_values_of_a_query_are_on_record_where_policy_says_so(
    stack: Stack, start_gate: Any, publish: Any, lab_seed: Path, reader: str, tmp_path: Path
) -> None:
    seed = tmp_path / "kv-seed"
    shutil.copytree(lab_seed, seed)
    text = (seed / "lab.yaml").read_text("utf-8")
    (seed / "lab.yaml").write_text(
        text.replace("lab@example.com, log_path: true}", "lab@example.com, log_query: [limit]}", 1)
    )
    gate = start_gate(None, {"TRUSTED_KEYS": stack.trusted})
    publish(seed, gate)
    gate.wait()
    decision, _ = gate.events(gate.call("/lab/v1/x?limit=10&cursor=abc&limit=20&word", token=reader), count=2)
    assert decision["query"] == {"limit": ["10", "20"], "cursor": None, "?": None}
    assert "path" not in decision


def test_lines_are_stored_in_batches_whose_names_sort_by_time(logged: Logged, reader: str) -> None:
    for _ in range(5):
        logged.gate.call("/lab/v1/x", token=reader)
    logged.settled()
    end = time.monotonic() + 10

    def stored() -> list[str]:
        return [line for _, text in sorted(logged.objects().items()) for line in text.split("\n")[:-1]]

    # A checkpoint's own line goes with the next batch.
    while len(stored()) < len(logged.lines) - 1 and time.monotonic() < end:
        time.sleep(0.2)
    assert stored() == logged.lines[: len(stored())]
    assert len(stored()) >= len(logged.lines) - 1
    chain = logged.events[0]["chain"]
    for name in logged.objects():
        assert re.fullmatch(
            rf"airgate-local/\d{{4}}/\d\d/\d\d/\d\d-\d\d-\d\d\.\d{{3}}Z-{chain}-\d{{9}}\.ndjson", name
        ), name


def test_a_sink_that_is_lost_costs_no_answer_and_is_counted(
    start: Callable[..., Logged], logged: Logged, token: Token, reader: str
) -> None:
    broken = start(logged.gate.state, AUDIT="a text, and no bucket")
    for _ in range(5):
        assert broken.gate.call("/lab/v1/x", token=reader).status == 200
    broken.settled()
    end = time.monotonic() + 10
    while True:
        report = broken.gate.call("/-/health", token=token("oncall")).json()["audit"]
        if report["failed"]["r2"] or time.monotonic() > end:
            break
        time.sleep(0.2)
    assert report["failed"]["r2"] >= 1
    assert report["r2"]["waiting"] > 0  # and they go with the next batch
    assert report["failed"]["register"] == 0


def test_a_row_that_vanishes_from_the_register_is_on_record(
    start: Callable[..., Logged], logged: Logged, reader: str
) -> None:
    other = start(logged.gate.state)
    other.gate.call("/lab/v1/x", token=reader)
    other.settled()
    [row] = other.sql("SELECT number FROM chains WHERE chain = ?", other.events[0]["chain"])
    other.sql("DELETE FROM chains WHERE number = ?", row["number"])
    end = time.monotonic() + 15
    while not other.told("register") and time.monotonic() < end:
        other.gate.call("/lab/v1/x", token=reader)
        time.sleep(0.3)
    [missing] = other.told("register")
    assert missing["number"] == row["number"]
    end = time.monotonic() + 15
    while other.row() is None and time.monotonic() < end:
        other.gate.call("/lab/v1/x", token=reader)
        time.sleep(0.3)
    new = other.row()
    assert new is not None
    assert new["number"] > row["number"]  # the gap stays, for whoever verifies


def test_a_register_that_is_away_costs_no_answer(
    start_gate: Any, keys: tuple[str, Path], publish: Any, lab_seed: Path
) -> None:
    gate = start_gate(None, {AUDIT_KEY: keys[0], "AUDIT_SECONDS": "1"}, bare=True)  # a D1 without any table
    gate.wait()
    logged = Logged(gate, keys[1])
    assert gate.call("/-/health").status == 503  # for want of policy
    events = logged.settled()
    assert json.loads(events[-1]["document"])["number"] is None
    chained(logged.lines)


def test_another_key_is_an_event_of_its_own(
    start: Callable[..., Logged], logged: Logged, keys: tuple[str, Path]
) -> None:
    logged.gate.call("/-/health")
    logged.settled()
    private, _ = new_audit_keys()
    rotated = start(logged.gate.state, **{AUDIT_KEY: private})
    rotated.gate.call("/-/health")
    rotated.settled()
    [event] = [event for event in rotated.told("keys") if event["of"] == "audit"]
    assert event["added"] == [json.loads(private)["kid"]]
    assert event["removed"] == [json.loads(keys[0])["kid"]]
    result = rotated.verify()
    assert result.exit_code == 1  # signed by a key that these public keys don't hold
    assert json.loads(private)["kid"] in result.output


def test_subjects_can_be_pseudonyms(
    stack: Stack, start: Callable[..., Logged], logged: Logged, reader: str, token: Token
) -> None:
    secret = secrets.token_hex(32)
    private = start(logged.gate.state, AUDIT_SUBJECTS="pseudonym", AUDIT_PSEUDONYM_KEY=secret)
    names = set()
    for name in ("finance-etl", "finance-etl", "oncall"):
        [decision] = private.gate.events(private.gate.call("/-/health", token=token(name)))
        names.add(decision["subject"])
    assert len(names) == 2
    assert all(re.fullmatch(r"pseudonym:[0-9a-f]{32}", name) for name in names)
    assert private.events[0]["subjects"] == "pseudonym"
    said = private.gate.log.read_text("utf-8")
    assert "finance-etl" not in said
    assert secret not in said


def test_pseudonyms_without_a_key_let_nobody_through(
    start: Callable[..., Logged], logged: Logged, reader: str
) -> None:
    gate = start(logged.gate.state, AUDIT_SUBJECTS="pseudonym").gate
    answer = gate.call("/lab/v1/x", token=reader)
    assert (answer.status, answer.code) == (503, "internal")
    assert "finance-etl" not in gate.log.read_text("utf-8")


def test_without_a_signing_key_health_warns_and_the_chain_goes_on(
    stack: Stack, start_gate: Any, logged: Logged, token: Token
) -> None:
    gate = start_gate(logged.gate.state, {"TRUSTED_KEYS": stack.trusted})
    gate.wait()
    unsigned = Logged(gate, logged.keys)
    oncall = token("oncall")
    gate.call("/-/health", token=oncall)
    end = time.monotonic() + 15
    while True:
        report = gate.call("/-/health", token=oncall).json()
        if any(AUDIT_KEY in warning for warning in report["warnings"]) or time.monotonic() > end:
            break
        time.sleep(0.2)
    assert any(AUDIT_KEY in warning for warning in report["warnings"])
    assert unsigned.told("checkpoint") == []
    chained(unsigned.lines)


def test_answers_do_not_wait_for_the_journal(
    start: Callable[..., Logged], logged: Logged, reader: str
) -> None:
    """A D1 that is locked for seconds: no call is later for the register's sake."""
    other = start(logged.gate.state)
    other.gate.call("/lab/v1/x", token=reader)
    other.settled()
    [file] = (Path(other.gate.state) / "v3/d1").glob("*/*.sqlite")

    def lock() -> Iterator[None]:
        with closing(sqlite3.connect(file, timeout=10, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            yield
            database.execute("ROLLBACK")

    locked = lock()
    next(locked)
    slowest = 0.0
    begun = time.monotonic()
    while time.monotonic() - begun < 3:
        at = time.monotonic()
        assert other.gate.call("/lab/v1/x", token=reader).status == 200
        slowest = max(slowest, time.monotonic() - at)
    next(locked, None)
    assert slowest < 1.5
    other.settled()
    chained(other.lines)
