"""A gate for the tests: the Worker on a Pyodide in Node, its KV and D1 in files, and what it prints."""

import json
import socket
import sqlite3
import subprocess
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

from peers import Peers

from access import act_id
from airgate.dev.signing import ALGORITHMS, new_audit_keys, sign
from airgate.dev.stack import AUDIENCE
from airgate.engine import AUDIT_KEY
from airgate.environment import quote
from airgate.node import PROJECT, node
from airgate.policy.compile import compile_folder
from airgate.policy.index import canonical
from airgate.policy.publish import publish_to
from airgate.signing_key import SigningKey
from trust import ACT, MAY, Trusted, read_trusted

HERE = Path(__file__).resolve().parent
MIGRATIONS = sorted((PROJECT / "migrations").glob("*.sql"))

SEED = """
issuers:
  company:
    issuer: {origin}
    audiences: ["{audience}"]
    algorithms: [{algorithms}]
    type: at+jwt
    max_lifetime: 1h
    clock_skew: 60s
    kind: {{claim: airgate_kind, default: workload}}
roles:
  reader: {{description: Reads, granted_to: [{{issuer: company, claim: groups, value: readers}}]}}
  writer: {{description: Writes, granted_to: [{{issuer: company, claim: groups, value: writers}}]}}
upstreams:
  ledger: {{base: "{origin}/ledger", owner: finance@example.com, timeout: 2s, log_path: true}}
  nowhere: {{base: "http://127.0.0.1:{closed}", owner: finance@example.com}}
policies:
  - id: read
    description: Readers read
    owner: finance@example.com
    effect: permit
    subject: {{issuer: company, roles: {{any: [reader]}}}}
    target: {{upstream: [ledger, nowhere], methods: [GET, HEAD], paths: ["/**"]}}
  - id: write
    description: Writers write
    owner: finance@example.com
    effect: permit
    subject: {{issuer: company, roles: {{any: [writer]}}}}
    target: {{upstream: ledger, methods: [POST, PUT, DELETE], paths: ["/v1/**"]}}
  - id: health
    description: Readers see how the gate is
    owner: finance@example.com
    effect: permit
    subject: {{issuer: company, roles: {{any: [reader]}}}}
    target: {{upstream: "-", methods: [GET], paths: [/health]}}
"""

FREEZE = """
  - id: freeze
    description: Nobody calls during the freeze
    owner: change-board@example.com
    effect: forbid
    target: {upstream: ledger, methods: ["*"], paths: ["/**"]}
"""


class FileStores:
    """A gate's KV, as JSON, and its D1, as SQLite, in two files, for publishing to."""

    name, gate, address = "runtime", "airgate-runtime", None

    def __init__(self, kv: Path, d1: Path, trusted: Trusted) -> None:
        self._kv, self._d1, self.trusted = kv, d1, trusted
        self._write({})
        for migration in MIGRATIONS:
            self._execute(migration.read_text("utf-8"))

    def kv_get(self, key: str) -> str | None:
        value: str | None = json.loads(self._kv.read_text("utf-8")).get(key)
        return value

    def kv_names(self, prefix: str) -> set[str]:
        return {name for name in json.loads(self._kv.read_text("utf-8")) if name.startswith(prefix)}

    def kv_put(self, values: Mapping[str, str]) -> None:
        self._write(json.loads(self._kv.read_text("utf-8")) | values)

    def d1(self, sql: str) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self._d1, timeout=30)) as database, database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(sql).fetchall()]

    def act(self, key: SigningKey, **members: Any) -> str:
        """Write an act, signed. Returns its id."""
        now = int(time.time())
        usual = {"gate": self.gate, "at": now, "until": now + 600, "by": key.name, "reason": "a test"}
        document = canonical({**usual, **members})
        name, signature = act_id(document), key.sign(ACT, document)
        values = ", ".join(map(quote, (name, members["act"], str(now + 600), document, key.kid, signature)))
        self.d1(f"INSERT INTO acts (id, act, until, document, key, signature) VALUES ({values})")
        return name

    def clear(self) -> None:
        """Take everything away."""
        self._write({})
        self._execute("DELETE FROM pointers; DELETE FROM acts;")

    def _execute(self, script: str) -> None:
        with closing(sqlite3.connect(self._d1, timeout=30)) as database, database:
            database.executescript(script)

    def _write(self, values: Mapping[str, str]) -> None:
        fresh = self._kv.with_suffix(".new")
        fresh.write_text(json.dumps(values), encoding="utf-8")
        fresh.replace(self._kv)


class Gate:
    """A running Worker: where it is, what it has printed, and its stores. It takes signed policy only."""

    def __init__(self, pyodide: str, folder: Path, peers: Peers, keys: Path) -> None:
        self.peers = peers
        self.key = SigningKey.new("runtime tests", MAY)
        trusted = json.dumps({"keys": [self.key.public]})
        self.store = FileStores(folder / "kv.json", folder / "d1.sqlite", read_trusted(trusted))
        private, public = new_audit_keys()
        self.audit_keys = folder / "audit-keys.json"
        self.audit_keys.write_text(public, encoding="utf-8")
        self.texts: list[str] = []  # of the lines, as they were written
        self.lines: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self._seed = folder / "seed"
        self._seed.mkdir()
        self._keys = keys
        port = _free_port()
        self.origin = f"http://127.0.0.1:{port}"
        settings = {
            "pyodide": pyodide,
            "project": str(PROJECT),
            "port": port,
            "kv": str(folder / "kv.json"),
            "d1": str(folder / "d1.sqlite"),
            "variables": {
                "GATE": self.store.gate,
                "TRUSTED_KEYS": trusted,
                "VERSION": "of a test",
                AUDIT_KEY: private,
                "AUDIT_SECONDS": "1",
            },
        }
        self._process = subprocess.Popen(
            [
                str(node()),
                "--disable-warning=ExperimentalWarning",
                "--experimental-wasm-jspi",
                str(HERE / "serve.mjs"),
                json.dumps(settings),
            ],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [Thread(target=self._read_lines), Thread(target=self._read_complaints)]
        for reader in self._readers:
            reader.start()

    def wait(self) -> dict[str, Any]:
        """What the Worker's host said when it was ready."""
        deadline = time.monotonic() + 60
        while not self.lines:
            assert self._process.poll() is None, "".join(self.complaints)[-3000:]
            assert time.monotonic() < deadline, "the Worker did not start within 60 s"
            time.sleep(0.02)
        return self.lines[0]

    def stop(self) -> None:
        """End the process. Harmless when it has ended."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(10)
        for reader in self._readers:
            reader.join(10)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def publish(self, more: str = "") -> int:
        """Put the seed, with more policies, in force. Returns its number."""
        text = SEED.format(
            origin=self.peers.origin,
            audience=AUDIENCE,
            algorithms=", ".join(ALGORITHMS),
            closed=_free_port(),
        )
        (self._seed / "seed.yaml").write_text(text + more, encoding="utf-8")
        return publish_to(self.store, compile_folder(self._seed), "test", self.key).sequence

    def token(self, algorithm: str = "RS256", headers: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A token of a reader and writer, signed by the issuer. What is given replaces a claim; None leaves it out."""
        now = int(time.time())
        usual = {
            "iss": self.peers.origin,
            "sub": "finance-etl",
            "aud": AUDIENCE,
            "client_id": "finance-etl",
            "jti": str(time.monotonic_ns()),
            "iat": now,
            "exp": now + 300,
            "groups": ["readers", "writers"],
        }
        kept = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        return sign(self._keys, kept, algorithm=algorithm, headers=headers)

    def events(self, request_id: str, count: int) -> list[dict[str, Any]]:
        """The audit events of one request: waits up to 5 s for `count`, then for one that must not come."""
        deadline = time.monotonic() + 5
        while len(self._events(request_id)) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        return self._events(request_id)

    def _events(self, request_id: str) -> list[dict[str, Any]]:
        return [line for line in list(self.lines) if line.get("request_id") == request_id]

    def _read_lines(self) -> None:
        for line in self._process.stdout or ():
            self.texts.append(line)
            self.lines.append(json.loads(line))

    def _read_complaints(self) -> None:
        self.complaints.extend(self._process.stderr or ())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
