"""The local stack: one real provider, one sample upstream, one gate; started together, ended together.

    with LocalStack(Path(".airgate")) as stack:
        httpx.get(stack.gate + "/-/health")

What other commands need to know about a running stack is in `DIR/stack.json`, which read_stack() reads.
"""

import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from secrets import token_urlsafe
from types import TracebackType
from typing import Any

import httpx

from airgate.dev.audit import AuditFile
from airgate.dev.process import Process
from airgate.dev.signing import new_audit_keys, new_keys
from airgate.engine import AUDIT_KEY, MAY, TRUSTED_KEYS
from airgate.node import PROJECT, environment, node
from airgate.signing_key import SigningKey

HERE = Path(__file__).resolve().parent
AUDIENCE = "https://gate.example.com"
TOKEN_SECONDS = 3600
START_SECONDS = 60.0
DEFAULT_DIRECTORY = Path(".airgate")

# Who can ask the local provider for a token: groups (the claim that kv-seed maps to roles) and kind of caller.
CALLERS: Mapping[str, tuple[str, list[str]]] = {
    "finance-etl": ("workload", ["finance-publishers", "finance-readers"]),
    "sales-sync": ("workload", ["sales-readers"]),
    "feature-builder": ("workload", ["data-science"]),
    "oncall": ("human", ["oncall"]),
    "assistant": ("agent", ["assistants", "finance-readers"]),
}


# The Worker's secrets that kv-seed's upstreams name. Those of a policy of your own stand in .dev.vars.
SECRETS = ("UPSTREAM_LEDGER_TOKEN",)


def new_secrets(but_for: Collection[str] = ()) -> dict[str, str]:
    """Values for SECRETS, which mean something to nobody."""
    return {name: f"local-{token_urlsafe(24)}" for name in SECRETS if name not in but_for}


class StackError(Exception):
    """The stack can't start or isn't there. The message says why, and what to do."""


@dataclass(frozen=True)
class Stack:
    """A running stack, as `DIR/stack.json` holds it (0600: it has the clients' secrets and the Worker's)."""

    gate: str
    provider: str
    sample: str
    state: Path
    log: Path
    audit: Path
    provider_keys: Path
    clients: Mapping[str, Mapping[str, str]] = field(repr=False)
    secrets: Mapping[str, str] = field(repr=False)
    signing_key: Path  # may publish and grant
    audit_keys: Path  # public keys that checkpoints of the audit log are signed with
    trusted: str  # TRUSTED_KEYS, with the public part of that key
    pids: Mapping[str, int]

    @property
    def directory(self) -> Path:
        """The folder that holds everything of this stack."""
        return self.log.parent


def default_directory() -> Path:
    """Where the stack lives unless a command says otherwise: AIRGATE_DIR, else .airgate in the current folder."""
    return Path(os.environ.get("AIRGATE_DIR") or DEFAULT_DIRECTORY)


def read_stack(directory: Path | None = None) -> Stack:
    """The stack that runs in a folder (default_directory() when left out). Raises StackError when there is none."""
    folder = directory or default_directory()
    try:
        values = json.loads((folder / "stack.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StackError(f"No local stack runs in {folder}. Start one with `make dev`.") from None
    paths = {
        name: Path(values[name])
        for name in ("state", "log", "audit", "provider_keys", "signing_key", "audit_keys")
    }
    stack = Stack(**{**values, **paths})
    if not _listens(stack.gate):
        raise StackError(f"The local stack in {folder} has ended. Start it again with `make dev`.")
    return stack


@dataclass(frozen=True)
class Ports:
    """Ports to listen on. None: the usual one, or the next free one. 0: any free one."""

    gate: int | None = None
    provider: int | None = None
    sample: int | None = None


USUAL = {"gate": 8787, "provider": 9400, "sample": 9500}
OPTION = {"gate": "--port", "provider": "--provider-port", "sample": "--sample-port"}


class LocalStack:
    """Starts the stack on enter and ends all of it on exit, also when starting fails halfway.

    `secrets` are the Worker's, new_secrets() when left out; those of .dev.vars count beside them. `publish` fills the
    policy store before the gate starts; `say` is told what is being done, a line at a time. Raises StackError (on
    enter).
    """

    def __init__(
        self,
        directory: Path,
        *,
        ports: Ports | None = None,
        secrets: Mapping[str, str] | None = None,
        publish: Callable[[Stack], object] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.directory = directory.resolve()
        self.processes: list[Process] = []
        self.moved: dict[str, int] = {}  # role -> usual port that was taken
        self._ports = ports or Ports()
        self._secrets = new_secrets() if secrets is None else secrets
        self._publish = publish
        self._say = say

    def __enter__(self) -> Stack:
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process this stack started, and take stack.json away. Harmless when called twice."""
        if not self.processes:
            return
        with _uninterrupted():
            for process in self.processes:
                process.ask_to_end()
            for process in self.processes:
                process.stop()
            self.processes.clear()
            (self.directory / "stack.json").unlink(missing_ok=True)

    def dead(self) -> Process | None:
        """The first process that has ended by itself."""
        return next((process for process in self.processes if process.status is not None), None)

    def _start(self) -> Stack:
        self._refuse_second_stack()
        ports = {name: self._port(name) for name in USUAL}
        stack = self._lay_out(ports)
        self._say("Starting the OpenID provider and the sample upstream")
        self._run("provider", HERE / "provider.mjs", str(self._provider_config(stack, ports["provider"])))
        self._run("sample", HERE / "upstream.mjs", str(ports["sample"]))
        if self._publish is not None:
            self._say("Publishing kv-seed to the local Workers KV")
            self._publish(stack)
        self._say("Starting the gate")
        gate = str(self._gate_config(stack, ports["gate"]))
        self._run("gate", HERE / "gate.mjs", gate, on_line=AuditFile(stack.audit).take)
        stack = replace(stack, pids={"airgate": os.getpid(), **{p.name: p.pid for p in self.processes}})
        self._wait_for("provider", stack.provider + "/.well-known/openid-configuration")
        self._wait_for("sample", stack.sample + "/")
        self._wait_for("gate", stack.gate + "/-/health", header="Airgate-Request-Id")
        _write_private(self.directory / "stack.json", asdict(stack))
        return stack

    def _refuse_second_stack(self) -> None:
        try:
            running = read_stack(self.directory)
        except StackError:
            return
        owner, gate = running.pids["airgate"], running.pids["gate"]
        raise StackError(
            f"A stack runs in {self.directory} already: its gate is {running.gate}. End it first "
            f"(kill {owner}; if that process is gone, kill -- -{gate}), or start this one elsewhere: --dir OTHER."
        )

    def _port(self, name: str) -> int:
        wanted: int | None = getattr(self._ports, name)
        if wanted is not None:
            port = _free_port(wanted)
            if port is None:
                raise StackError(
                    f"Port {wanted} is taken. Choose another with {OPTION[name]}, or leave it out."
                )
            return port
        usual = USUAL[name]
        for candidate in range(usual, usual + 100):
            port = _free_port(candidate)
            if port is not None:
                if port != usual:
                    self.moved[name] = usual
                return port
        raise StackError(f"No port from {usual} to {usual + 99} is free. Choose one with {OPTION[name]}.")

    def _lay_out(self, ports: Mapping[str, int]) -> Stack:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        state = self.directory / "state"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir()
        address = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        clients = {name: {"client_id": name, "client_secret": token_urlsafe(32)} for name in CALLERS}
        key = SigningKey.new("local developer", MAY)
        audit_key, audit_keys = new_audit_keys()
        stack = Stack(
            **address,
            state=state,
            log=self.directory / "gate.log",
            audit=self.directory / "audit.ndjson",
            provider_keys=self.directory / "provider-keys.json",
            clients=clients,
            secrets={AUDIT_KEY: audit_key, **self._secrets},
            signing_key=self.directory / "signing-key.json",
            audit_keys=self.directory / "audit-keys.json",
            trusted=json.dumps({"keys": [key.public]}),
            pids={},
        )
        stack.audit.write_text("", encoding="utf-8")
        _write_private(stack.provider_keys, new_keys())
        _write_private(stack.signing_key, json.loads(key.text))
        stack.audit_keys.write_text(audit_keys, encoding="utf-8")
        return stack

    def _provider_config(self, stack: Stack, port: int) -> Path:
        clients = {
            name: {**client, "kind": CALLERS[name][0], "groups": CALLERS[name][1]}
            for name, client in stack.clients.items()
        }
        config = {
            "port": port,
            "issuer": stack.provider,
            "audience": AUDIENCE,
            "token_seconds": TOKEN_SECONDS,
            "jwks": json.loads(stack.provider_keys.read_text(encoding="utf-8")),
            "clients": clients,
        }
        file = self.directory / "provider.json"
        _write_private(file, config)
        return file

    def _gate_config(self, stack: Stack, port: int) -> Path:
        secrets = {**stack.secrets, TRUSTED_KEYS: stack.trusted}
        config = {"root": str(PROJECT), "port": port, "state": str(stack.state), "secrets": secrets}
        file = self.directory / "gate.json"
        _write_private(file, config)
        return file

    def _run(
        self, name: str, script: Path, argument: str, *, on_line: Callable[[str], None] | None = None
    ) -> None:
        process = Process(
            name,
            [str(node()), str(script), argument],
            log=self.directory / f"{name}.log",
            cwd=PROJECT,
            env=environment(self.directory / "home"),
            on_line=on_line,
        )
        self.processes.append(process)

    def _wait_for(self, name: str, url: str, *, header: str | None = None) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            dead = self.dead()
            if dead is not None:
                raise StackError(ended(dead))
            with suppress(httpx.TransportError):
                answer = httpx.get(url, timeout=5, trust_env=False)
                if header is None or header in answer.headers:
                    return
            time.sleep(0.05)
        process = next(process for process in self.processes if process.name == name)
        said = "\n".join(process.last_lines())
        raise StackError(
            f"The {name} did not answer at {url} within {START_SECONDS:.0f} s. Its log, {process.log}:\n{said}"
        )


def ended(process: Process) -> str:
    """What to tell a person when a process of the stack has ended by itself."""
    said = "\n".join(process.last_lines()) or "(it said nothing)"
    return (
        f"The {process.name} ended with status {process.status}. Its log, {process.log}, ends with:\n{said}"
    )


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C must not leave half of the stack running. (Only the main thread may, or need, say so.)"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {
        number: signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def _free_port(port: int) -> int | None:
    """The port itself, or any free one for 0; None when it's taken."""
    with socket.socket() as probe:
        # A port whose last connections are still closing is free; one that somebody listens on isn't.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return None
        number: int = probe.getsockname()[1]
        return number


def _listens(address: str) -> bool:
    url = httpx.URL(address)
    try:
        socket.create_connection((url.host, url.port or 80), timeout=1).close()
    except OSError:
        return False
    return True


def _write_private(file: Path, value: Mapping[str, Any]) -> None:
    """Write JSON that only its owner can read, whatever the umask and whatever was there before."""
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(
        os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as output:
        json.dump(value, output, default=str, indent=2)
    fresh.replace(file)
