"""The runtimes that verification is measured on, and what each of its steps takes there, in microseconds."""

import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from airgate.node import PROJECT, node
from bench.rig import LINUX, BenchError, Server

HERE = Path(__file__).resolve().parent
PYODIDES = ("pyodide-313", "pyodide-314")
AT_ONCE = {"bare": 3000, "verify": 3000, "seen": 40_000, "parse": 6000, "port": 3000}  # steps a request


class Steps(NamedTuple):
    """One runtime's figures: microseconds of each step, medians of rounds."""

    title: str
    bare: float
    verify: float
    seen: float
    parse: float
    port: float
    ratio: float  # verify to bare, in the same round


def _steps(title: str, rounds: dict[str, list[float]]) -> Steps:
    medians = {name: round(statistics.median(rounds[name]), 1) for name in AT_ONCE}
    ratios = [verify / bare for verify, bare in zip(rounds["verify"], rounds["bare"], strict=True)]
    return Steps(title, **medians, ratio=round(statistics.median(ratios), 2))


def on_pyodide(package: str, given: Path, rounds: int) -> Steps:
    """Raises BenchError."""
    settings = {"pyodide": package, "project": str(PROJECT), "given": str(given), "rounds": rounds}
    done = subprocess.run(
        [str(node()), str(HERE / "pyodide.mjs"), json.dumps(settings)],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{package}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    python = found["python"].rpartition(".")[0]
    return _steps(f"Pyodide {found['version']}, Python {python}", found["steps"])


class _Workerd(Server):
    """steps.py. What it takes is read from its process: inside, the clock stands still."""

    def ask(self, **what: Any) -> float:
        """Microseconds of processor time of one request."""
        before = self._cpu_seconds()
        answer = httpx.post(self.origin, json=what, timeout=300, trust_env=False)
        after = self._cpu_seconds()
        if answer.status_code != 200:
            raise BenchError(f"{self.name}: {answer.text[:1000]}")
        if before is None or after is None:
            raise BenchError(f"{self.name} is gone")
        return 1e6 * (after - before)

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(self.origin, timeout=60, trust_env=False)
            except httpx.TransportError as error:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise BenchError(f"{self.name} did not start: {self._log.read_text()[-2000:]}") from error
                time.sleep(0.05)
            else:
                return


def on_workerd(given: Path, rounds: int, scratch: Path) -> Steps | None:
    """None where a process' time cannot be read. Raises BenchError."""
    if not LINUX:
        return None
    found: dict[str, list[float]] = {name: [] for name in AT_ONCE}
    server = _Workerd("workerd", HERE / "workerd.mjs", {"root": str(PROJECT)}, scratch)
    with server:
        server.wait()
        server.ask(given=json.loads(given.read_text("utf-8")))
        for turn in range(rounds + 1):
            for step, times in AT_ONCE.items():
                took = server.ask(step=step, times=times) / times
                if turn:  # the first time nothing is compiled yet
                    found[step].append(took)
    manifest = PROJECT / "node_modules/wrangler-embedded/node_modules/workerd/package.json"
    version = json.loads(manifest.read_text("utf-8"))["version"]
    return _steps(f"workerd {version}, Python 3.12", found)
