"""What a measurement needs running: an upstream, Workers on embedded workerd, proxies, a load generator; on 127.0.0.1.

CPU time, memory and start time are those of the process that serves (a Worker's own workerd), and come from /proc: on
Linux only.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from airgate.node import PROJECT, environment, node

HERE = Path(__file__).resolve().parent
LINUX = sys.platform == "linux"
START_SECONDS = 60.0
GRACE = 5.0  # seconds between asking a process to end and ending it


class BenchError(Exception):
    """The measurement can't go on. The message says why."""


class Load(NamedTuple):
    """One run of load."""

    per_second: float
    p50: float  # milliseconds
    p99: float
    cpu: float | None  # milliseconds a request of all that serve it; None where it can't be measured


class Serving:
    """Something that serves on a port of its own, alone or with others whose time counts too."""

    name: str
    port: int
    host: str | None = None  # of the requests that are sent to it; None: the address
    beside: "Sequence[Serving]" = ()  # that have a part in every request

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def worker(self) -> int | None:
        """The process that serves; None where it can't be known."""
        raise NotImplementedError

    def answer(self, path: str, token: str) -> httpx.Response:
        """Send one request. Raises httpx.TransportError."""
        headers = {"authorization": f"Bearer {token}", "airgate-dag-id": "finance_month_end"}
        if self.host is not None:
            headers["host"] = self.host
        return httpx.get(self.origin + path, headers=headers, timeout=START_SECONDS, trust_env=False)

    def first_answer(self, path: str, token: str) -> float | None:
        """Ask until it answers. Returns the seconds since its process started, None where unknown."""
        answer = self.answer(path, token)
        if answer.status_code != 200:
            raise BenchError(f"{self.name} answered {answer.status_code}: {answer.text[:300]}")
        return None

    def refuse(self, path: str, token: str) -> None:
        """See that it does decide. Raises BenchError when it lets this through."""
        if (status := self.answer(path, token).status_code) != 403:
            raise BenchError(f"{self.name} should have refused {path} and answered {status}")

    def load(
        self, path: str, amount: int, tokens: Path, *, first: int = 0, count: int = 1, form: str | None = None
    ) -> Load:
        """Send `amount` requests over 8 connections. Raises BenchError unless every answer is 200.

        `form`: what is posted, as a form, before the token, which is then in no header.
        """
        settings = {
            "port": self.port,
            "path": path,
            "amount": amount,
            "tokens": str(tokens),
            "from": first,
            "count": count,
            "host": self.host,
            "form": form,
        }
        before = self._all_cpu_seconds()
        done = subprocess.run(
            [str(node()), str(HERE / "load.mjs"), json.dumps(settings)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        after = self._all_cpu_seconds()
        if done.returncode != 0:
            raise BenchError(f"The load generator failed:\n{done.stderr[-2000:]}")
        result = json.loads(done.stdout.splitlines()[-1])
        if "error" in result:
            raise BenchError(f"{self.name}: {result['error']}")
        cpu = None if before is None or after is None else (after - before) / amount * 1000
        return Load(amount / result["seconds"], result["p50"], result["p99"], cpu)

    def _cpu_seconds(self) -> float | None:
        worker = self.worker()
        if worker is None:
            return None
        user, system = _stat(worker)[11:13]
        return (int(user) + int(system)) / _TICKS

    def _all_cpu_seconds(self) -> float | None:
        known = [each for one in (self, *self.beside) if (each := one._cpu_seconds()) is not None]
        return sum(known) if len(known) == 1 + len(self.beside) else None


class Server(Serving):
    """A Node process that serves on a port of its own. Use it in a with statement: it ends with the block."""

    def __init__(
        self, name: str, script: Path, settings: dict[str, Any], scratch: Path, *, unread: bool = False
    ) -> None:
        """`unread`: what its workerd says goes nowhere at once, and not through a pipe to Node first."""
        self.name = name
        self.port = _free_port()
        variables = {"MINIFLARE_WORKERD_PATH": str(_unread(scratch))} if unread else {}
        self._workerd: int | None = None
        self._log = scratch / f"{name}.log"
        with self._log.open("w") as log:
            # Audit lines go nowhere: reading them here would take time from the Worker that writes them.
            self._process = subprocess.Popen(
                [str(node()), str(script), json.dumps({**settings, "port": self.port})],
                cwd=PROJECT,
                env={**environment(scratch / "home"), **variables},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + GRACE
        group = self._process.pid
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGTERM)
            while time.monotonic() < deadline:
                self._process.poll()
                os.killpg(group, 0)
                time.sleep(0.02)
            os.killpg(group, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def first_answer(self, path: str, token: str) -> float | None:
        """Ask until it answers. Returns the seconds since its workerd process started, None where unknown."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(httpx.TransportError):
                super().first_answer(path, token)
                now = time.clock_gettime(time.CLOCK_BOOTTIME) if LINUX else 0.0
                if (worker := self.worker()) is None:
                    return None
                return now - int(_stat(worker)[19]) / _TICKS
            time.sleep(0.01)
        raise BenchError(f"{self.name} did not start. It said:\n{self._log.read_text('utf-8')[-2000:]}")

    def memory(self) -> float | None:
        """Resident memory of the Worker's process in MiB."""
        worker = self.worker()
        if worker is None:
            return None
        return int(_stat(worker)[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def worker(self) -> int | None:
        """The workerd process of this server, found by its process group."""
        if not LINUX:
            return None
        if self._workerd is None:
            for folder in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    name = (folder / "comm").read_text("utf-8").strip()
                    if name == "workerd" and int(_stat(int(folder.name))[2]) == self._process.pid:
                        self._workerd = int(folder.name)
        return self._workerd


def _unread(scratch: Path) -> Path:
    """The embedded workerd, writing to nobody."""
    packages = PROJECT / "node_modules" / "wrangler-embedded" / "node_modules" / "@cloudflare"
    [program] = packages.glob("workerd-*/bin/workerd")
    script = scratch / "workerd-unread"
    script.write_text(f'#!/bin/sh\nexec "{program}" "$@" >/dev/null\n', encoding="utf-8")
    script.chmod(0o700)
    return script


_TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> Sequence[str]:
    """The fields of /proc/PID/stat from the third one, the state, on: field n of proc(5) is [n - 3]."""
    return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
