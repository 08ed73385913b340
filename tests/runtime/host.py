"""A gate for the tests: the Worker on a Pyodide in Node, its KV in a file, and what it prints."""

import json
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from typing import Any

from peers import Peers

from airgate.dev.signing import ALGORITHMS, sign
from airgate.dev.stack import AUDIENCE
from airgate.node import PROJECT, node
from airgate.policy.compile import compile_folder
from airgate.policy.publish import publish_to

HERE = Path(__file__).resolve().parent

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


class FileStore:
    """A KV namespace in a file, for publishing to."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.clear()

    def get(self, key: str) -> str | None:
        value: str | None = json.loads(self._file.read_text("utf-8")).get(key)
        return value

    def names(self, prefix: str) -> set[str]:
        return {name for name in json.loads(self._file.read_text("utf-8")) if name.startswith(prefix)}

    def put(self, values: Mapping[str, str]) -> None:
        self._write(json.loads(self._file.read_text("utf-8")) | values)

    def clear(self) -> None:
        self._write({})

    def _write(self, values: Mapping[str, str]) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(values), encoding="utf-8")
        fresh.replace(self._file)


class Gate:
    """A running Worker: where it is, what it has printed, and its KV."""

    def __init__(self, pyodide: str, folder: Path, peers: Peers, keys: Path) -> None:
        self.peers = peers
        self.store = FileStore(folder / "kv.json")
        self.lines: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self._seed = folder / "seed"
        self._seed.mkdir()
        self._keys = keys
        port = _free_port()
        self.origin = f"http://127.0.0.1:{port}"
        settings = {"pyodide": pyodide, "project": str(PROJECT), "port": port, "kv": str(folder / "kv.json")}
        self._process = subprocess.Popen(
            [str(node()), str(HERE / "serve.mjs"), json.dumps(settings)],
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
        return publish_to(self.store, compile_folder(self._seed), "test").sequence

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
            self.lines.append(json.loads(line))

    def _read_complaints(self) -> None:
        self.complaints.extend(self._process.stderr or ())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
