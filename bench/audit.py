"""`make bench-audit`: what the audit log costs a request: the gate beside itself without the chain, and without a log.

The same gate runs three times, from copies of src/ with a few lines at the end that take a part of it away. CPU time is
that of each one's workerd; what that writes goes nowhere, and through a pipe to Node, which throws it away.
"""

import json
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from airgate.node import PROJECT, NodeMissing, WranglerFailed
from bench import policy
from bench.__main__ import GENERATIONS, WARM_UP, Rig, machine
from bench.rig import HERE, BenchError, Load, Server

ASKED = 130  # microseconds a request

BEGIN = "<!-- results: written by make bench-audit -->\n"
END = "<!-- end of results -->\n"

_UNCHAINED = """
from journal import Journal
Journal.take = lambda self, event: event
Journal.due = lambda self, now: None
"""
# The lines are not even put together. What is on record is what is compared, so the calls are the same.
_MUTE = """
Runtime.log = lambda self, line: None
audit.Record.decided = lambda self, denied, now: ""
audit.Record.ended = lambda self, *_, **__: ""
"""


class Case(NamedTuple):
    """One row of the results: the gate, less what `without` takes away."""

    name: str
    title: str
    without: str
    unread: bool


CASES = (
    Case("whole", "Gate", "", True),
    Case("unchained", "Gate, without chain and checkpoints", _UNCHAINED, True),
    Case("mute", "Gate, without an audit log", _MUTE, True),
    Case("whole-read", "Gate, log through a pipe", "", False),
    Case("mute-read", "Gate, without an audit log, with the pipe", _MUTE, False),
)


def _server(case: Case, rig: Rig) -> Server:
    root = rig.scratch / case.name
    if not root.exists():
        shutil.copytree(PROJECT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("node_modules", "wrangler.toml"):
            (root / name).symlink_to(PROJECT / name)
        with (root / "src" / "worker.py").open("a", encoding="utf-8") as worker:
            worker.write(case.without)
    settings = {"root": str(root), "state": str(rig.state), "secrets": rig.secrets}
    script = PROJECT / "airgate" / "dev" / "gate.mjs"
    return Server(case.name, script, settings, rig.scratch, unread=case.unread)


def measure(rig: Rig, rounds: int, requests: int, progress: Progress) -> dict[str, list[Load]]:
    """Every case's loads, of interleaved rounds."""
    task = progress.add_task("Starting everything", total=GENERATIONS * len(CASES) * (rounds + 1))
    loads: dict[str, list[Load]] = {case.name: [] for case in CASES}
    for generation in range(1, GENERATIONS + 1):
        with ExitStack() as running:
            servers = {case.name: running.enter_context(_server(case, rig)) for case in CASES}
            for server in servers.values():
                server.first_answer(policy.PATH, rig.token)
                server.refuse(policy.PATH + "/lines", rig.token)
            for number in range(rounds + 1):
                for case in CASES:
                    what = f"Round {number}" if number else "Warming up"
                    progress.update(task, description=f"Start {generation}: {what}")
                    amount = requests if number else max(requests, WARM_UP)
                    load = servers[case.name].load(policy.PATH, amount, rig.pool)
                    if number:
                        loads[case.name].append(load)
                    progress.advance(task)
    return loads


def rows(loads: Mapping[str, list[Load]]) -> list[dict[str, Any]]:
    """Each case's median CPU time, and what it costs more than the gate without a log beside it, in microseconds."""
    cpu = {name: [load.cpu for load in each if load.cpu is not None] for name, each in loads.items()}
    if not all(cpu.values()):
        raise BenchError("CPU time can be measured on Linux only.")
    found = []
    for case in CASES:
        beside = cpu["mute" if case.unread else "mute-read"]
        more = [1000 * (one - other) for one, other in zip(cpu[case.name], beside, strict=True)]
        found.append(
            {
                "name": case.name,
                "title": case.title,
                "cpu_ms": round(statistics.median(cpu[case.name]), 3),
                "audit_us": round(statistics.median(more)),
                "audit_us_rounds": [round(one) for one in more],
            }
        )
    return found


def note(results: Mapping[str, Any]) -> str:
    facts = results["machine"]
    return (
        f"{results['date']}, {facts['system']}, {facts['cores']} cores, embedded workerd, {results['policies']} "
        f"policies, token seen before, 8 connections"
    )


def write(results: Mapping[str, Any]) -> None:
    """audit.json, and the table in README.md."""
    (HERE / "audit.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    lines = [f"{note(results)}.", "", "| Worker | CPU ms | of it for the log, µs |", "|---|--:|--:|"]
    lines += [f"| {row['title']} | {row['cpu_ms']:.3f} | {row['audit_us']} |" for row in results["workers"]]
    readme = HERE / "README.md"
    before, begin, rest = readme.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"{readme.name} has no place for the results: {BEGIN.strip()}")
    readme.write_text(before + begin + "\n".join(lines) + "\n" + end + after, encoding="utf-8")


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds of each start.")] = 3,
    requests: Annotated[int, typer.Option(min=1000, help="Requests of each gate in each round.")] = 4000,
) -> None:
    """Measure what the audit log costs, and write bench/audit.json and the table in README.md."""
    console = Console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything started here is ended
    columns = (TextColumn("{task.description:26}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with (
            tempfile.TemporaryDirectory(prefix="airgate-") as scratch,
            ExitStack() as stack,
            Progress(*columns, console=console) as progress,
        ):
            rig = Rig(Path(scratch), stack)
            results = {
                "date": datetime.now(UTC).date().isoformat(),
                "machine": machine(),
                "policies": rig.policies,
                "starts": GENERATIONS,
                "rounds_a_start": rounds,
                "requests_a_round": requests,
                "asked_us": ASKED,
                "workers": rows(measure(rig, rounds, requests, progress)),
            }
        write(results)
    except (BenchError, NodeMissing, WranglerFailed) as error:
        console.print(f"The measurement failed. {error}", markup=False, style="red")
        raise typer.Exit(1) from None
    shown = Table(box=SIMPLE_HEAD)
    for number, name in enumerate(("Worker", "CPU ms", "of it for the log, µs")):
        shown.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in results["workers"]:
        shown.add_row(row["title"], f"{row['cpu_ms']:.3f}", str(row["audit_us"]))
    console.print(note(results), highlight=False)
    console.print(shown)
    console.print("Written: bench/audit.json, the table in bench/README.md")


if __name__ == "__main__":
    typer.run(main)
