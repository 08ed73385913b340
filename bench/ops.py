"""`make bench-ops`: how soon a publish, a rollback and a revocation count, on a local stack, with the commands that
people run.

A row of D1 is seen by watching its file; a gate's answers by asking it 50 times a second, or, idle, once.
"""

import json
import os
import platform
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import httpx
import jwt
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from airgate.dev.stack import LocalStack, Ports, Stack, StackError
from airgate.dev.token import fetch_token
from airgate.engine import TRUSTED_KEYS
from airgate.node import PROJECT, NodeMissing, WranglerFailed
from airgate.policy.publish import PublishError, publish_local
from airgate.policy.seed import STARTER
from bench.rig import HERE, BenchError, Server

PATH = "/ledger/v1/entries"
CLIENT = "finance-etl"
EVERY = 0.02  # seconds between two calls of the traffic
LOOK = 0.003  # seconds between two looks at D1's file
PATIENCE = 30.0  # seconds for a gate to do as it is told
WAITS = (5.0, 8.0, 9.5, 10.0)  # seconds from a revocation to the only call that an idle gate gets
QUICK = 0.1  # seconds after which the gate of `refreshes` reads D1 again before it answers
PAIRS = 100

BEGIN = "<!-- results: written by make bench-ops -->\n"
END = "<!-- end of results -->\n"


class Answer(NamedTuple):
    at: float  # when it was there, by time.monotonic
    status: int
    code: str  # of a refusal
    version: str  # of the bundle that decided; empty in refusals that policy has no part in


class Happened(NamedTuple):
    """When a command began, when its row was in D1, when the first answer followed, when the command had ended."""

    began: float
    stored: float
    followed: float
    ended: float


class Caller:
    """One connection to a gate."""

    def __init__(self, gate: str) -> None:
        self._client = httpx.Client(base_url=gate, timeout=PATIENCE, trust_env=False)

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(self, token: str) -> Answer:
        """One call. Raises httpx.TransportError."""
        answer = self._client.get(PATH, headers={"authorization": f"Bearer {token}"})
        code = "" if answer.is_success else str(answer.json().get("code", ""))
        version = answer.headers.get("airgate-policy", "").rpartition("@")[2]
        return Answer(time.monotonic(), answer.status_code, code, version)


@contextmanager
def traffic(gate: str, token: str) -> Iterator[list[Answer]]:
    """Ask 50 times a second, for as long as the block takes. The list grows."""
    answers: list[Answer] = []
    over = threading.Event()
    failed: list[httpx.TransportError] = []

    def ask() -> None:
        with Caller(gate) as caller:
            while not over.wait(EVERY):
                try:
                    answers.append(caller.ask(token))
                except httpx.TransportError as error:
                    failed.append(error)
                    return

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()
    if failed:
        raise BenchError(f"The gate went away: {failed[0]!r}")


class Operations:
    """A local stack with the starter policies, and the commands that change what holds there."""

    def __init__(self, stack: Stack, scratch: Path) -> None:
        self.stack = stack
        self._seed = Path(shutil.copytree(STARTER, scratch / "seed"))
        [self._database] = (stack.state / "v3" / "d1").rglob("*.sqlite")
        self._published = 0
        self._running = ThreadPoolExecutor(1)

    def publish(self) -> Happened:
        """Publish a set that differs from the one in force in one policy, of the upstream that is called."""
        self._published += 1
        number = self._published
        (self._seed / "policies" / "bench.yaml").write_text(
            "policies:\n"
            "  - id: bench\n"
            "    description: Makes this set another one\n"
            "    owner: platform@example.com\n"
            "    effect: permit\n"
            "    subject: {issuer: company, roles: {any: [finance-reader]}}\n"
            f"    target: {{upstream: ledger, methods: [GET], paths: [/v1/bench-{number}]}}\n",
            "utf-8",
        )
        return self._followed("policy", "publish", str(self._seed), "--note", f"round {number}", "--yes")

    def rollback(self) -> Happened:
        return self._followed("policy", "rollback", "--note", "back", "--yes")

    def revoke(self, token: str) -> Happened:
        """Revoke a token that calls go on with."""
        with traffic(self.stack.gate, token) as answers:
            self._until(lambda: bool(answers), "an answer")
            if any(answer.status != 200 for answer in answers):
                raise BenchError(f"The gate refused a token before it was revoked: {answers[-1]}")
            began = time.monotonic()
            running = self._start(*revocation(token))
            stored = self._stored(running)
            followed = self._first(answers, lambda answer: answer.code == "token.revoked")
            ended = running.result()
        _refuse_relapse([answer.code == "token.revoked" for answer in answers])
        return Happened(began, stored, followed, ended)

    def revoke_idle(self, token: str, wait: float) -> bool:
        """Revoke a token while a gate reads D1 all the time, and leave it alone from the moment that it could know.

        Whether the first call that it gets then, `wait` seconds later, is refused.
        """
        with traffic(self.stack.gate, token) as answers:
            self._until(lambda: bool(answers), "an answer")
            running = self._start(*revocation(token))
            stored = self._stored(running)
        if any(answer.code for answer in answers):
            return True  # it has known at once
        time.sleep(max(0.0, stored + wait - time.monotonic()))
        with Caller(self.stack.gate) as caller:
            refused = caller.ask(token).code == "token.revoked"
            self._until(lambda: caller.ask(token).code == "token.revoked", "a refusal")
        running.result()
        return refused

    def refreshes(self, scratch: Path) -> tuple[list[float], list[float]]:
        """Milliseconds of a call before which D1 is read, and of the next one, before which it isn't; in pairs."""
        variables = {
            **self.stack.secrets,
            TRUSTED_KEYS: self.stack.trusted,
            "VIEW_REFRESH": str(QUICK),
            "VIEW_WAIT": str(QUICK),
        }
        settings = {"root": str(PROJECT), "state": str(self.stack.state), "secrets": variables}
        token = fetch_token(self.stack, CLIENT)
        read: list[float] = []
        known: list[float] = []
        with Server("gate", PROJECT / "airgate" / "dev" / "gate.mjs", settings, scratch) as gate:
            gate.first_answer(PATH, token)
            with Caller(gate.origin) as caller:
                for number in range(-20, PAIRS):  # the first ones warm it up
                    time.sleep(QUICK * 1.5)
                    for times in (read, known):
                        asked = time.monotonic()
                        answer = caller.ask(token)
                        if answer.status != 200:
                            raise BenchError(f"The gate refused a call: {answer}")
                        if number >= 0:
                            times.append((answer.at - asked) * 1000)
        return read, known

    def _followed(self, *command: str) -> Happened:
        """Run a command that puts another policy set in force, while calls are made."""
        with traffic(self.stack.gate, fetch_token(self.stack, CLIENT)) as answers:
            self._until(lambda: bool(answers), "an answer")
            before = answers[-1].version
            began = time.monotonic()
            running = self._start(*command)
            stored = self._stored(running)
            followed = self._first(answers, lambda answer: answer.version not in ("", before))
            ended = running.result()
            digest = self.in_force()["bundle"]
        if {answer.status for answer in answers} != {200}:
            raise BenchError(f"A call was refused: {next(each for each in answers if each.status != 200)}")
        _refuse_relapse([digest.startswith(answer.version) for answer in answers])
        return Happened(began, stored, followed, ended)

    def in_force(self) -> dict[str, Any]:
        """The newest document of the ledger."""
        text = self._value("SELECT document FROM pointers ORDER BY sequence DESC LIMIT 1")
        document: dict[str, Any] = json.loads(text)
        return document

    def _start(self, *command: str) -> "Future[float]":
        """Run a command. Returns when it had ended, later; raises BenchError then, when it failed."""
        self._rows = self._newest()
        return self._running.submit(self._run, *command)

    def _run(self, *command: str) -> float:
        done = subprocess.run(
            [sys.executable, "-m", "airgate", *command],
            cwd=PROJECT,
            env={**os.environ, "AIRGATE_DIR": str(self.stack.directory)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        ended = time.monotonic()
        if done.returncode != 0:
            raise BenchError(f"airgate {command[0]} failed with {done.returncode}:\n{done.stdout[-2000:]}")
        return ended

    def _stored(self, command: "Future[float]") -> float:
        """Wait for a row that wasn't there when the command began. Returns when it was."""
        while self._newest() == self._rows:
            if command.done() and self._newest() == self._rows:
                command.result()
                raise BenchError("The command has written nothing to D1.")
            time.sleep(LOOK)
        return time.monotonic()

    def _newest(self) -> tuple[int, int]:
        """The last row of the ledger, and the last act."""
        sql = "SELECT coalesce(max({}), 0) FROM {}".format
        return self._value(sql("sequence", "pointers")), self._value(sql("number", "acts"))

    def _value(self, sql: str) -> Any:
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, timeout=5)) as database:
            return database.execute(sql).fetchone()[0]

    def _first(self, answers: list[Answer], wanted: Callable[[Answer], bool]) -> float:
        """When the first such answer was there."""
        seen = 0
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            while seen < len(answers):
                if wanted(answers[seen]):
                    return answers[seen].at
                seen += 1
            time.sleep(EVERY)
        raise BenchError(f"The gate had not followed after {PATIENCE:.0f} s: {answers[-1]}")

    @staticmethod
    def _until(holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > deadline:
                raise BenchError(f"The gate gave no sign of {what} in {PATIENCE:.0f} s.")
            time.sleep(EVERY)


def revocation(token: str) -> tuple[str, ...]:
    """The command that revokes this one token."""
    claims = jwt.decode(token, options={"verify_signature": False})
    return ("revoke", "--token-id", claims["jti"], "--for", "1h", "--reason", "measured", "--yes")


def _refuse_relapse(follows: list[bool]) -> None:
    """A gate that has followed once must not go back: there is one isolate."""
    if follows != sorted(follows):
        raise BenchError("The gate followed, and then went back to what was before.")


def measure(operations: Operations, rounds: int, scratch: Path, progress: Progress) -> dict[str, Any]:
    """Seconds of everything, round by round."""
    task = progress.add_task("Publish, roll back, revoke", total=rounds * (3 + len(WAITS)) + 1)
    happened: dict[str, list[Happened]] = {"publish": [], "rollback": [], "revoke": []}
    idle: dict[float, list[bool]] = {wait: [] for wait in WAITS}
    for number in range(1, rounds + 1):
        for name, run in (
            ("publish", operations.publish),
            ("rollback", operations.rollback),
            ("revoke", lambda: operations.revoke(fetch_token(operations.stack, CLIENT))),
        ):
            progress.update(task, description=f"Round {number}: {name}")
            happened[name].append(run())
            progress.advance(task)
        for wait in WAITS:
            progress.update(task, description=f"Round {number}: revoke, idle for {wait:g} s")
            idle[wait].append(operations.revoke_idle(fetch_token(operations.stack, CLIENT), wait))
            progress.advance(task)
    progress.update(task, description="Reading D1")
    read, known = operations.refreshes(scratch)
    progress.advance(task)
    return {
        **{name: _seconds(each) for name, each in happened.items()},
        "idle": [
            {"wait_s": wait, "refused": sum(refused), "of": len(refused)} for wait, refused in idle.items()
        ],
        "view_ms": {
            "read_before": _spread(read, 2),
            "not_read": _spread(known, 2),
            "refresh_median": round(statistics.median(read) - statistics.median(known), 2),
            "pairs": PAIRS,
        },
    }


def _seconds(happened: list[Happened]) -> dict[str, Any]:
    return {
        "command": _spread([each.ended - each.began for each in happened]),
        "until_stored": _spread([each.stored - each.began for each in happened]),
        "stored_to_followed": _spread([each.followed - each.stored for each in happened]),
        "ended_to_followed": _spread([each.followed - each.ended for each in happened]),
        "rounds": [
            {name: round(getattr(each, name) - each.began, 3) for name in ("stored", "followed", "ended")}
            for each in happened
        ],
    }


def _spread(values: list[float], digits: int = 3) -> dict[str, float]:
    return {"median": round(statistics.median(values), digits), "worst": round(max(values), digits)}


def table(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """The head and the rows of the table, as text."""
    rows: list[tuple[str, ...]] = [("What", "median", "worst", "asked")]

    def add(what: str, spread: dict[str, float], asked: str = "") -> None:
        rows.append((what, f"{spread['median']:.2f} s", f"{spread['worst']:.2f} s", asked))

    for name in ("publish", "rollback"):
        add(f"`airgate policy {name}`, all of it", results[name]["command"])
        add("… until it is in D1, and so in force", results[name]["until_stored"])
        add("… from there to the first answer by it", results[name]["stored_to_followed"])
        add("… from the end of the command to that answer", results[name]["ended_to_followed"])
    add("`airgate revoke`, all of it", results["revoke"]["command"])
    add("… until it is in D1", results["revoke"]["until_stored"])
    add("… from there to the first refusal, under traffic", results["revoke"]["stored_to_followed"], "≤ 3 s")
    add("… from the end of the command to that refusal", results["revoke"]["ended_to_followed"])
    passed = [row["wait_s"] for row in results["idle"] if row["refused"] < row["of"]]
    latest = f"{max(passed):g} s" if passed else "none"
    rows.append(("… idle: the latest call that still passed", "", latest, "≤ 10 s"))
    view = results["view_ms"]
    rows.append(
        (
            "one reading of D1 by the gate, before an answer",
            f"{view['refresh_median']:.1f} ms",
            f"{view['read_before']['worst'] - view['not_read']['median']:.1f} ms",
            "",
        )
    )
    return rows


def idle(results: dict[str, Any]) -> str:
    """A sentence on the idle gate."""
    said = ", ".join(f"{row['refused']} of {row['of']} after {row['wait_s']:g} s" for row in results["idle"])
    return f"Idle, the first call after a revocation was refused: {said}."


def note(results: dict[str, Any]) -> str:
    return (
        f"{results['date']}, {platform.system()} {platform.machine()}, {results['cores']} cores, embedded workerd, "
        f"local D1, {results['policies']} policies, {results['rounds']} rounds"
    )


def write(results: dict[str, Any]) -> None:
    """ops.json, and the table in README.md."""
    (HERE / "ops.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    readme = HERE / "README.md"
    before, begin, rest = readme.read_text("utf-8").partition(BEGIN)
    if not begin:
        raise BenchError(f"{readme.name} has no place for the table: {BEGIN.strip()}")
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}{section(results)}{END}{after}", encoding="utf-8")


def section(results: dict[str, Any]) -> str:
    """What README.md says of the results."""
    head, *rows = table(results)
    lines = [f"{note(results)}.", "", "| " + " | ".join(head) + " |", "|---|--:|--:|--:|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", idle(results), ""])


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each command is run.")] = 5,
) -> None:
    """Measure how soon commands count, and write bench/ops.json and the table in bench/README.md."""
    console = Console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything started here is ended
    columns = (TextColumn("{task.description:30}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with (
            tempfile.TemporaryDirectory(prefix="airgate-") as scratch,
            ExitStack() as running,
            Progress(*columns, console=console) as progress,
        ):
            local = LocalStack(
                Path(scratch) / "stack",
                ports=Ports(0, 0, 0),
                publish=lambda stack: publish_local(STARTER, stack, "bench"),
            )
            operations = Operations(running.enter_context(local), Path(scratch))
            results = {
                "date": datetime.now(UTC).date().isoformat(),
                "cores": os.cpu_count(),
                "policies": operations.in_force()["policies"],
                "rounds": rounds,
                **measure(operations, rounds, Path(scratch), progress),
            }
        write(results)
    except (BenchError, StackError, PublishError, NodeMissing, WranglerFailed) as error:
        console.print(f"The measurement failed. {error}", markup=False, style="red")
        raise typer.Exit(1) from None
    head, *rows = table(results)
    shown = Table(box=SIMPLE_HEAD)
    for number, name in enumerate(head):
        shown.add_column(name, justify="right" if number else "left", no_wrap=number > 0)
    for row in rows:
        shown.add_row(*row)
    console.print(note(results), highlight=False)
    console.print(shown)
    console.print(idle(results), highlight=False)
    console.print("Written: bench/ops.json, the table in bench/README.md")


if __name__ == "__main__":
    typer.run(main)
