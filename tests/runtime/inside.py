"""The unit tables and Wycheproof's vectors, run by whatever Python imports this; `matrix.py` starts each of them.

It needs src/ and tests/unit on the path, pytest and hypothesis, and nothing else: no process, thread or event loop of
its own.
"""

import importlib
import io
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from types import ModuleType
from typing import Any


class _Ticking(ModuleType):
    """The module `time` for tables where the clock stands still: each look at it is a microsecond after the last."""

    def __init__(self, looked_at: Callable[[], None]) -> None:
        super().__init__("time")
        self._looked_at = looked_at
        self._now = 0.0

    def _tick(self) -> float:
        self._looked_at()
        self._now += 1e-6
        return self._now

    def __getattr__(self, name: str) -> Any:
        clocks = ("monotonic", "perf_counter", "process_time", "time")
        return self._tick if name in clocks else getattr(time, name)


class Cases:
    """A pytest plug-in: how each case ended, and which of them looked at a clock that stands still."""

    def __init__(self) -> None:
        self.ended: dict[str, str] = {}
        self.untimed: list[str] = []
        self._current = ""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        began = time.perf_counter()
        sum(range(1_000_000))
        if time.perf_counter() > began:
            return
        # A Worker's time is that of its last input or output: what runs in between takes no time.
        clock = _Ticking(self._note_untimed)
        for module in {item.module for item in items}:
            if getattr(module, "time", None) is time:
                module.time = clock

    def pytest_runtest_setup(self, item: Any) -> None:
        self._current = item.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.outcome != "passed":
            self.ended[report.nodeid] = "not collected"

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.outcome != "passed":
            self.ended[report.nodeid] = report.outcome
        elif report.when == "call":
            self.ended[report.nodeid] = "passed"

    def _note_untimed(self) -> None:
        if self._current not in self.untimed[-1:]:
            self.untimed.append(self._current)


async def run(order: str, find_verify: Callable[[], Any], promises: bool = False) -> str:
    """Carry out an order, JSON in and JSON out.

    order    {"root": folder with tests/unit, "scratch": folder to write to, "tables": [paths], "vectors": text or null}
    result   {"python": version, "status": pytest's, "cases": {id: "passed" | "failed" | "skipped" | "not collected"},
              "untimed": [ids of cases whose clock stood still], "said": pytest's last words,
              "vectors": how many or null, "disagreements": [lines], "promises": {case: "passed" | what went wrong}}

    `find_verify` brings the port that checks signatures here (keys.Verify), once src/ can be imported. `promises`:
    whether there is JavaScript here, and so promises to wait for.
    """
    given = json.loads(order)
    # Plug-ins of the desk need what is not here: threads, sockets.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = given["scratch"]
    os.chdir(given["root"])
    import pytest

    cases, said = Cases(), io.StringIO()
    with redirect_stdout(said):
        status = pytest.main(
            ["-q", "-p", "no:cacheprovider", "--capture=sys", "--color=no", *given["tables"]], plugins=[cases]
        )
    result: dict[str, Any] = {
        "python": platform.python_version(),
        "status": int(status),
        "cases": cases.ended,
        "untimed": cases.untimed,
        "said": said.getvalue().partition("\n=")[2][-8000:],  # without the dots
        "vectors": None,
        "disagreements": [],
        "promises": {},
    }
    if promises:
        result["promises"] = await importlib.import_module("promises").results()
    if given["vectors"] is not None:
        vectors = importlib.import_module("vectors")
        result["vectors"] = len(vectors.read(given["vectors"]))
        result["disagreements"] = await vectors.disagreements(given["vectors"], find_verify())
    return json.dumps(result)


if __name__ == "__main__":
    import asyncio

    def _desk() -> Any:
        return importlib.import_module("verifier").verify

    sys.stdout.write(asyncio.run(run(sys.stdin.read(), _desk)))
