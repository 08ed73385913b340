"""The runtimes that the tables and the vectors must hold on, and what each of them said."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import files
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, NamedTuple

from airgate.node import PROJECT, environment, node

HERE = Path(__file__).resolve().parent
UNIT = PROJECT / "tests" / "unit"
CORPORA = PROJECT / os.environ.get("AIRGATE_CORPORA", "../shared/corpora")
VECTORS = CORPORA / "wycheproof" / "json_web_signature_test.json"
# The rest test the command-line tool, which runs on a desk: its libraries have no place in a Worker.
TABLES = sorted(
    file.relative_to(PROJECT).as_posix()
    for file in UNIT.glob("test_*.py")
    # Nor those that compare with a library which exists on a desk only.
    if not re.search(
        r"^(from|import) (airgate|botocore|cryptography|google|sqlite3)\b",
        file.read_text("utf-8"),
        re.MULTILINE,
    )
)
# pytest and hypothesis, and what they need: all of it pure Python.
PACKAGES = ("hypothesis", "iniconfig", "packaging", "pluggy", "pygments", "pytest", "sortedcontainers")
LONGEST = 900  # seconds


class Runtime(NamedTuple):
    """A Python that the gate runs on, or is developed on."""

    id: str
    python: str  # what its version begins with
    title: str
    package: str = ""  # npm's, which has its version
    clock: bool = True  # whether time passes while Python computes

    def named(self, python: str) -> str:
        if not self.package:
            return f"{self.title} {python}"
        manifest = PROJECT / "node_modules" / self.package / "package.json"
        version = json.loads(manifest.read_text("utf-8"))["version"]
        return f"{self.title} {version}, Python {python}"


DESK = Runtime("desk", ".".join(map(str, sys.version_info[:2])), "CPython")
EMBEDDED = Runtime("workerd", "3.12", "workerd", "wrangler-embedded/node_modules/workerd", clock=False)
RUNTIMES = (
    DESK,
    EMBEDDED,
    Runtime("pyodide 3.13", "3.13", "Pyodide", "pyodide-313"),
    Runtime("pyodide 3.14", "3.14", "Pyodide", "pyodide-314"),
)


class Result(NamedTuple):
    """What came out of one runtime."""

    runtime: Runtime
    said: str  # for whoever has to find out what went wrong
    python: str = "?"
    status: int | None = None  # pytest's; None: it did not get that far
    cases: Mapping[str, str] = MappingProxyType({})  # how each ended, by its id
    untimed: Sequence[str] = ()  # those that ask how long something took, where the clock stands still
    vectors: int | None = None
    disagreements: Sequence[str] = ()
    promises: Mapping[str, str] = MappingProxyType({})  # what became of the cases of promises.py

    @property
    def wrong(self) -> list[str]:
        """What did not pass: cases and vectors."""
        failed = [f"{case}: {ended}" for case, ended in self.cases.items() if ended != "passed"]
        return [*failed, *[f"vector {line}" for line in self.disagreements]]

    def line(self) -> str:
        """The result in one line."""
        name = self.runtime.named(self.python)
        if self.status is None:
            return f"{name:36} FAILED to run"
        ran = f"{len(self.cases):,} cases, " + (
            f"{self.vectors} vectors" if self.vectors is not None else f"no vectors in {CORPORA}"
        )
        verdict = f"{len(self.wrong) or ''} FAILED".strip() if self.status or self.wrong else "passed"
        note = f" (the clock stands still there: {len(self.untimed)} measure nothing)" if self.untimed else ""
        return f"{name:36} {ran}: {verdict}{note}"


def _modules() -> dict[str, str]:
    """The modules of the Worker that runs the tables: its names for them, and where they are."""
    found = {file.name: file for file in (PROJECT / "src").glob("*.py")}
    found |= {name: HERE / name for name in ("inside.py", "promises.py")}
    for name in ("pyproject.toml", "airgate/policy/index.py"):
        found[name] = PROJECT / name
    for file in UNIT.glob("*.py"):
        name = file.relative_to(PROJECT).as_posix()
        if name in TABLES or not file.name.startswith("test_"):
            found[name] = file
    for package in PACKAGES:
        for listed in files(package) or ():
            if listed.suffix == ".py" and ".." not in listed.parts:
                found[listed.as_posix()] = Path(str(listed.locate()))
    return {name: str(file) for name, file in found.items()}


def _command(runtime: Runtime) -> list[str]:
    if runtime is DESK:
        return [sys.executable, str(HERE / "inside.py")]
    if runtime is EMBEDDED:
        settings = {
            "root": str(PROJECT),
            "main": str(HERE / "tables_worker.py"),
            "modules": _modules(),
            "seconds": LONGEST,
        }
        return [str(node()), str(HERE / "embedded.mjs"), json.dumps(settings)]
    settings = {
        "pyodide": runtime.package,
        "project": str(PROJECT),
        "packages": sysconfig.get_path("purelib"),
    }
    return [str(node()), str(HERE / "tables.mjs"), json.dumps(settings)]


def _order(runtime: Runtime, scratch: str) -> dict[str, Any]:
    here = runtime is DESK
    return {
        "root": str(PROJECT) if here else "/project",
        "scratch": scratch if here else "/tmp/hypothesis",  # in a memory of its own
        "tables": TABLES,
        "vectors": VECTORS.read_text("utf-8") if VECTORS.is_file() else None,
    }


def run(runtime: Runtime) -> Result:
    """The tables and the vectors on one runtime."""
    with TemporaryDirectory(prefix="airgate-") as scratch:
        path = os.pathsep.join([str(PROJECT / "src"), str(UNIT)])
        try:
            done = subprocess.run(
                ["nice", *_command(runtime)],  # tests that run beside it wait for answers
                input=json.dumps(_order(runtime, scratch)),
                cwd=PROJECT,
                env={**environment(Path(scratch)), "PYTHONPATH": path},
                capture_output=True,
                text=True,
                timeout=LONGEST + 30,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Result(runtime, f"It did not end within {LONGEST + 30} s.")
    try:
        result = json.loads(done.stdout)
    except ValueError:
        return Result(runtime, (done.stdout + done.stderr)[-8000:])
    return Result(runtime, **result)


def run_all(runtimes: Sequence[Runtime] = RUNTIMES) -> list[Result]:
    """As many runtimes at a time as there are processors."""
    with ThreadPoolExecutor(min(len(runtimes), os.cpu_count() or 1)) as pool:
        return list(pool.map(run, runtimes))


if __name__ == "__main__":
    # The unit tests that are no tables: what `make test` has to run beside these.
    tests = {file.relative_to(PROJECT).as_posix() for file in UNIT.glob("test_*.py")}
    print(*sorted(tests - set(TABLES)))
