"""What an attacker has: a socket that sends any bytes at all, an upstream that answers with any bytes at all, and gates
of one's own to break, beside the session's stack."""

import json
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from email.message import Message
from http.client import HTTPResponse
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

import httpx
import pytest

from airgate.dev.audit import AuditFile, events
from airgate.dev.process import Process
from airgate.dev.stack import HERE, Stack
from airgate.engine import ACT_TYPE, HEAD, POINTER_TYPE, act_id
from airgate.environment import Conflict, LocalEnvironment
from airgate.node import PROJECT, environment, node
from airgate.policy.compile import StandIns, compile_folder
from airgate.policy.index import canonical
from airgate.policy.ledger import read_ledger
from airgate.policy.publish import publish_to
from airgate.policy.seed import STARTER
from airgate.signing_key import SigningKey

# Beside the starter set: upstreams behind which anything goes, for every reader of finance.
LAB = """
upstreams:
  lab: {{base: "https://lab.example.com", local: sample, owner: lab@example.com, log_path: true}}
  impatient: {{base: "https://lab.example.com", local: sample, owner: lab@example.com, timeout: 1s}}
  hostile: {{base: "http://127.0.0.1:{hostile}/base", owner: lab@example.com, timeout: 5s, breaker: false}}
  gone: {{base: "http://127.0.0.1:{gone}/secret-base", owner: lab@example.com, timeout: 5s, breaker: false}}
  segments:
    {{base: "https://lab.example.com", local: sample, owner: lab@example.com, log_path: true, encoded_slash: segment}}
  empties:
    {{base: "https://lab.example.com", local: sample, owner: lab@example.com, log_path: true, empty_segments: true}}
policies:
  - id: lab-below-open
    description: Finance readers may do anything below /open
    owner: lab@example.com
    effect: permit
    subject: {{roles: {{any: [finance-reader]}}}}
    target: {{upstream: [segments, empties], methods: ["*"], paths: ["/open/**"]}}
  - id: lab-open
    description: Finance readers may do anything in the lab
    owner: lab@example.com
    effect: permit
    subject: {{roles: {{any: [finance-reader]}}}}
    target: {{upstream: [lab, impatient, hostile, gone], methods: ["*"], paths: ["/**"]}}
"""


# Shorter than in production, so that a test needn't wait.
QUICK = {"VIEW_REFRESH": "0.3", "VIEW_WAIT": "1.5", "VIEW_STALE": "4"}


class Reply(NamedTuple):
    """An answer as it came over the wire: nothing decoded, repeated headers kept apart."""

    status: int
    headers: Message
    body: bytes

    @property
    def id(self) -> str:
        return str(self.headers["Airgate-Request-Id"])

    @property
    def code(self) -> str:
        """The refusal's code; empty when the answer is no refusal of the gate."""
        if self.headers["Content-Type"] != "application/problem+json":
            return ""
        return str(json.loads(self.body)["code"])

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A gate's address, and ways to send it bytes."""

    def __init__(self, url: str) -> None:
        self.url = url

    @contextmanager
    def connected(self, seconds: float = 20) -> Iterator[socket.socket]:
        url = httpx.URL(self.url)
        with socket.create_connection((url.host, url.port or 80), timeout=seconds) as connection:
            yield connection

    @staticmethod
    def receive(connection: socket.socket, method: str = "GET") -> Reply:
        """Read one answer. Raises http.client.IncompleteRead for one that breaks off."""
        with HTTPResponse(connection, method=method) as response:
            response.begin()
            return Reply(response.status, response.headers, response.read())

    def send(self, request: bytes, method: str = "GET") -> Reply:
        """Send bytes as they are and read one answer."""
        with self.connected() as connection:
            # An answer may begin before its request has ended.
            sender = threading.Thread(target=connection.sendall, args=(request,))
            sender.start()
            reply = self.receive(connection, method)
            sender.join(20)
            return reply

    def call(
        self,
        path: str | bytes,
        method: str = "GET",
        *,
        token: str | None = None,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Reply:
        """Send one request exactly as given. Only Host, and for a body Content-Length, are added."""
        fields = [
            ("Host", "gate.example.com"),
            *(headers.items() if isinstance(headers, Mapping) else headers),
        ]
        if token is not None:
            fields.append(("Authorization", f"Bearer {token}"))
        if body:
            fields.append(("Content-Length", str(len(body))))
        target = path.encode("latin-1") if isinstance(path, str) else path
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields).encode("latin-1")
        return self.send(method.encode() + b" " + target + b" HTTP/1.1\r\n" + lines + b"\r\n" + body, method)


class Gate(Wire):
    """A gate of a test's own: its own workerd, and a KV namespace that is the stack's unless another is given."""

    def __init__(
        self,
        folder: Path,
        state: Path,
        secrets: Mapping[str, str] | None = None,
        services: Mapping[str, str] | None = None,
        buckets: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        state.mkdir(exist_ok=True)
        self.state = state
        self.log = folder / "gate.log"
        self.audit = folder / "audit.ndjson"
        self.audit.touch()
        port = free_port()
        super().__init__(f"http://127.0.0.1:{port}")
        settings = {
            "root": str(PROJECT),
            "port": port,
            "state": str(state),
            "secrets": {"UPSTREAM_LEDGER_TOKEN": "of-a-test", **(secrets or {})},
            "services": {**(services or {})},
            "buckets": {**(buckets or {})},
        }
        file = folder / "gate.json"  # others of this machine can read a command line
        file.write_text(json.dumps(settings), encoding="utf-8")
        self.process = Process(
            "gate",
            [str(node()), str(HERE / "gate.mjs"), str(file)],
            log=self.log,
            cwd=PROJECT,
            env=environment(folder / "home"),
            on_line=AuditFile(self.audit).take,
        )

    def wait(self) -> None:
        """Until it listens. Nothing is asked of it: its first request is still to come."""
        until(lambda: self.log.exists() and f"listening on {self.url}" in self.log.read_text("utf-8"), 30)

    def events(self, answer: Reply | str, count: int = 1) -> list[dict[str, Any]]:
        return events(self.audit, answer if isinstance(answer, str) else answer.id, count=count)

    def decisions(self) -> list[dict[str, Any]]:
        """All decisions so far."""
        lines = self.audit.read_text("utf-8").split("\n")[:-1]
        return [event for event in map(json.loads, lines) if event["event"] == "decision"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def until(true: Callable[[], object], seconds: float) -> float:
    """Wait until something holds; returns how long that took, and fails the test when it never does."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds, f"not within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - begun


class Site:
    """A running gate, its KV and its D1. `gate` has call(), events() and log; see conftest.Gate."""

    def __init__(self, stack: Stack, gate: Any, start: Callable[..., Any]) -> None:
        self.gate = gate
        self.stack = replace(stack, state=gate.state)
        self.env = LocalEnvironment(self.stack)
        self.key = SigningKey.read(stack.signing_key)
        self._start = start

    def another(self, **variables: str) -> Any:
        """An isolate that has just begun, on the same stores."""
        gate = self._start(self.gate.state, {"TRUSTED_KEYS": self.stack.trusted, **QUICK, **variables})
        gate.wait()
        return gate

    until = staticmethod(until)

    def as_stack(self, folder: Path) -> Path:
        """A folder that commands take for a running stack's, with AIRGATE_DIR: this gate, and its stores."""
        stack = replace(self.stack, gate=self.gate.url)
        (folder / "stack.json").write_text(json.dumps(asdict(stack), default=str), encoding="utf-8")
        return folder

    # What somebody could do who can write to D1 and KV, and has no key. SQLite's file is the local D1 itself.

    def sql(self, statement: str, *values: Any) -> list[Any]:
        [file] = (Path(self.gate.state) / "v3/d1").glob("*/*.sqlite")
        with closing(sqlite3.connect(file, timeout=10)) as database, database:
            return database.execute(statement, values).fetchall()

    def head(self) -> tuple[int, dict[str, Any], str, str]:
        """The highest row of the ledger: number, document, key, signature."""
        [row] = self.sql("SELECT * FROM pointers ORDER BY sequence DESC LIMIT 1")
        return row[0], json.loads(row[1]), row[2], row[3]

    def append(self, document: Mapping[str, Any], key: SigningKey | None, /, **row: Any) -> None:
        """Add a row to the ledger, signed by `key`; `row` says what its columns hold instead."""
        text = canonical(document)
        usual = {
            "sequence": document["sequence"],
            "document": text,
            "key": key.kid if key is not None else "",
            "signature": key.sign(POINTER_TYPE, text) if key is not None else "",
        }
        columns = {**usual, **row}
        self.sql("INSERT INTO pointers VALUES (?, ?, ?, ?)", *columns.values())

    def act(self, key: SigningKey | None = None, **members: Any) -> str:
        """Add an act to D1, signed by `key`. Returns its id."""
        now = int(time.time())
        usual = {"gate": self.env.gate, "at": now, "until": now + 600, "by": "somebody", "reason": "a test"}
        text = canonical({**usual, **members})
        name = act_id(text)
        signature = key.sign(ACT_TYPE, text) if key is not None else ""
        self.sql(
            "INSERT INTO acts (id, act, until, document, key, signature) VALUES (?, ?, ?, ?, ?, ?)",
            name,
            members["act"],
            members.get("until", now + 600),
            text,
            key.kid if key is not None else "",
            signature,
        )
        return name

    def copy_head(self) -> None:
        """Write KV's copy of the head, as publishing does."""
        row = self.sql("SELECT document, key, signature FROM pointers ORDER BY sequence DESC LIMIT 1")[0]
        self.env.kv_put({HEAD: canonical(dict(zip(("document", "key", "signature"), row, strict=True)))})

    # What the gate says.

    def version(self, token: str, gate: Any = None) -> str:
        """The version of the bundle that answers a call; the refusal's code when no policy has."""
        answer = (gate or self.gate).call("/ledger/v1/entries", token=token)
        return str(answer.headers["Airgate-Policy"] or f"@{answer.code}").rpartition("@")[2]

    def told(self, event: str, gate: Any = None) -> list[dict[str, Any]]:
        """The events of that kind in the log: bundle, act."""
        lines = (gate or self.gate).log.read_text("utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith(f'{{"event":"{event}"')]

    def report(self, token: str, gate: Any = None) -> dict[str, Any]:
        """Health, for somebody who may see it."""
        report: dict[str, Any] = (gate or self.gate).call("/-/health", token=token).json()
        return report


class Hostile:
    """An upstream that keeps the bytes it gets, and answers with the bytes it is told to, then closes."""

    def __init__(self) -> None:
        self.answer = b""
        self.got: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):  # the listener has been closed
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(OSError):
                    connection.settimeout(5)
                    got = b""
                    while not got.endswith(b"\r\n\r\n") and (part := connection.recv(65536)):
                        got += part
                    self.got.append(got)
                    connection.sendall(self.answer)
                    connection.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="session")
def hostile() -> Iterator[Hostile]:
    server = Hostile()
    yield server
    server.close()


@pytest.fixture(scope="session")
def tables(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores that hold nothing but D1's tables, to be copied: they take wrangler as long as all else of a publish."""
    state = tmp_path_factory.mktemp("tables")
    assert read_ledger(LocalEnvironment(replace(stack, state=state))).entries == []  # which makes them
    return state


@pytest.fixture(scope="session")
def start_gate(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Gate]]:
    """start_gate(state=None, secrets={}, buckets={}, bare=False): another gate, ended with the session.

    Without `state` its stores are empty; `bare`: its D1 has no tables either.
    """
    gates: list[Gate] = []

    def start(
        state: Path | None = None,
        secrets: Mapping[str, str] | None = None,
        buckets: Mapping[str, str] | None = None,
        *,
        bare: bool = False,
    ) -> Gate:
        folder = tmp_path_factory.mktemp("gate")
        if state is None:
            state = folder / "state"
            if not bare:
                shutil.copytree(tables, state)
        gates.append(Gate(folder, state, secrets, buckets=buckets))
        return gates[-1]

    yield start
    for gate in gates:
        gate.process.ask_to_end()
    for gate in gates:
        gate.process.stop()


class Files(LocalEnvironment):
    """A gate's stores, read and written in Miniflare's own files: wrangler takes a second and more for each command.

    The files must be there, as in `tables`. What wrangler does is tested where commands are, not wherever a gate needs
    a policy.
    """

    def kv_get(self, key: str) -> str | None:
        found = self._sql("kv", "SELECT blob_id FROM _mf_entries WHERE key = ?", key)
        return (self._blobs / found[0]["blob_id"]).read_text("utf-8") if found else None

    def kv_put(self, values: Mapping[str, str]) -> None:
        self._blobs.mkdir(parents=True, exist_ok=True)
        for key, value in values.items():
            blob = token_hex(40)
            (self._blobs / blob).write_text(value, encoding="utf-8")
            self._sql("kv", "INSERT OR REPLACE INTO _mf_entries (key, blob_id) VALUES (?, ?)", key, blob)

    def kv_names(self, prefix: str) -> set[str]:
        found = self._sql(
            "kv", "SELECT key FROM _mf_entries WHERE substr(key, 1, ?) = ?", len(prefix), prefix
        )
        return {row["key"] for row in found}

    def d1(self, sql: str) -> list[dict[str, Any]]:
        try:
            return self._sql("d1", sql)
        except sqlite3.IntegrityError as error:
            raise Conflict(str(error)) from None

    @property
    def _blobs(self) -> Path:
        return self._state / "v3/kv/local/blobs"

    def _sql(self, store: str, statement: str, *values: Any) -> list[dict[str, Any]]:
        [file] = (self._state / "v3" / store).glob("*/*.sqlite")
        with closing(sqlite3.connect(file, timeout=10)) as database, database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(statement, values).fetchall()]


@pytest.fixture(scope="session")
def publish(stack: Stack) -> Callable[..., Any]:
    """publish(seed, gate, provider=None): put the seed in a folder in force on a gate that start_gate() began."""
    key = SigningKey.read(stack.signing_key)

    def put(seed: Path, gate: Gate, provider: str | None = None) -> Any:
        compiled = compile_folder(seed, StandIns(provider or stack.provider, stack.sample))
        return publish_to(Files(replace(stack, state=gate.state)), compiled, "tests", key)

    return put


@pytest.fixture(scope="module")
def site(
    stack: Stack,
    start_gate: Callable[..., Gate],
    publish: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Site:
    """A gate with stores of its own, which trusts the stack's key. Its policy: the starter set, and attested DAGs."""
    seed = tmp_path_factory.mktemp("seed") / "kv-seed"
    shutil.copytree(STARTER, seed)
    issuer = seed / "issuers" / "company.yaml"
    attested = "\n    attested:\n      dag: [airflow, dag_id]\n      run: [airflow, run_id]\n"
    issuer.write_text(issuer.read_text("utf-8").rstrip() + attested, encoding="utf-8")
    gate = start_gate(None, {"TRUSTED_KEYS": stack.trusted, **QUICK})
    publish(seed, gate)
    gate.wait()
    return Site(stack, gate, start_gate)


@pytest.fixture(scope="session")
def lab_seed(tmp_path_factory: pytest.TempPathFactory, hostile: Hostile) -> Path:
    """The starter set and the lab's upstreams."""
    seed = tmp_path_factory.mktemp("seed") / "kv-seed"
    shutil.copytree(STARTER, seed)
    (seed / "lab.yaml").write_text(LAB.format(hostile=hostile.port, gone=free_port()))
    return seed


@pytest.fixture(scope="session")
def lab(start_gate: Callable[..., Gate], publish: Callable[..., Any], lab_seed: Path) -> Gate:
    """A gate with the lab's policy, where a call can reach any path by any method."""
    gate = start_gate()
    publish(lab_seed, gate)
    gate.wait()
    return gate


@pytest.fixture(scope="session")
def reader(token: Callable[..., str]) -> str:
    """A token that the lab lets do anything."""
    return token("finance-etl")


@pytest.fixture(scope="session")
def wire(stack: Stack) -> Wire:
    """The session's gate, for requests of one's own making."""
    return Wire(stack.gate)
