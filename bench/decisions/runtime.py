"""The Pythons that the gate's engine is measured on: this one, and both of production's, as processes of their own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from airgate.node import PROJECT, environment, node
from bench.decisions.policies import Question, policies, questions, shard_of
from bench.rig import BenchError

HERE = Path(__file__).resolve().parent
NEW = 2048  # different addresses, in turn: eight times as many as the index remembers
WHOLE = "all"  # the upstream of a shard of all policies


class Kind(NamedTuple):
    """A Python to measure on."""

    name: str
    title: str
    pyodide: str | None  # the npm package


KINDS = (
    Kind("cpython", "CPython", None),
    Kind("pyodide-313", "Pyodide", "pyodide-313"),
    Kind("pyodide-314", "Pyodide", "pyodide-314"),
)


class Runtime:
    """A running gate.py. Use it in a with statement: it ends with the block. Raises BenchError for what goes wrong."""

    def __init__(self, kind: Kind, scratch: Path) -> None:
        self.kind, self.scratch = kind, scratch
        command = [sys.executable, str(HERE / "gate.py")]
        if kind.pyodide is not None:
            settings = {"pyodide": kind.pyodide, "project": str(PROJECT), "scratch": str(scratch)}
            command = [str(node()), str(HERE / "pyodide.mjs"), json.dumps(settings)]
        self._errors = (scratch / f"{kind.name}.log").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=environment(scratch / "home"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.versions = self._answer()
        python = ".".join(self.versions["python"].split(".")[:2])
        self.title = f"{kind.title} {self.versions.get('pyodide', python)}"

    def __enter__(self) -> "Runtime":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def order(self, do: str, **details: Any) -> dict[str, Any]:
        """Have gate.py do something, and wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **details}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise BenchError(f"{self.kind.name} ended. It said:\n{self._errors.read()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{self.kind.name}: {answer['error']}")
        return answer


class Gate:
    """The gate's engine as one of the engines that are compared."""

    def __init__(self, runtime: Runtime, *, whole: bool = False) -> None:
        """`whole`: all policies are in one shard, as if there were one upstream."""
        self._runtime, self._whole = runtime, whole
        self.name = f"airgate-{runtime.kind.name}" + "-whole" * whole
        self.title = f"Airgate, {runtime.title}" + ", one shard" * whole
        self.how = (
            "one shard of all policies" if whole else "the shard of the call's upstream, as in production"
        )

    def load(self, size: int) -> float:
        """Read the shard. Returns the seconds that it took."""
        upstream = questions(size)[0].upstream
        file = self._runtime.scratch / f"{size}-{'whole' if self._whole else upstream}.json"
        if self._whole:
            upstream = WHOLE
            held = [one._replace(prefix=f"/{one.upstream}{one.prefix}") for one in policies(size)]
        else:
            held = [one for one in policies(size) if one.upstream == upstream]
        if not file.exists():
            file.write_text(shard_of(held, upstream), encoding="utf-8")
        return float(
            self._runtime.order("load", name=self.name, upstream=upstream, file=str(file))["seconds"]
        )

    def answers(self, asked: Sequence[Question]) -> list[bool]:
        said = self._runtime.order("ask", name=self.name, questions=[self._said(one) for one in asked])
        return list(said["permits"])

    def time(self, question: Question) -> float:
        """Microseconds a decision, each for an address that is not remembered."""
        return float(
            self._runtime.order("time", name=self.name, question=self._said(question), paths=NEW)["us"]
        )

    def forget(self) -> None:
        self._runtime.order("forget", name=self.name)

    def _said(self, question: Question) -> Question:
        if not self._whole:
            return question
        return question._replace(upstream=WHOLE, path=f"/{question.upstream}{question.path}")
