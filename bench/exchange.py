"""`make bench-exchange`: what exchanging a token at /-/token costs, beside a plain permitted call to the same gate."""

import json
import signal
import statistics
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

import httpx
import typer
import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from airgate.engine import OWN
from airgate.environment import LocalStores
from airgate.node import NodeMissing, WranglerFailed
from airgate.policy.compile import compile_folder
from airgate.policy.publish import publish_to
from bench import policy
from bench.__main__ import GENERATIONS, POOL, WARM_UP, Rig, machine
from bench.rig import HERE, BenchError, Load, Server

ASKED = 3.0  # times the CPU of a plain call

BEGIN = "<!-- results: written by make bench-exchange -->\n"
END = "<!-- end of results -->\n"

TOKEN = "/-/token"
_KIND = "urn:ietf:params:oauth:token-type:access_token"
FORM = (
    f"grant_type={quote('urn:ietf:params:oauth:grant-type:token-exchange', '')}&subject_token_type={quote(_KIND, '')}"
    "&audience=ledger&scope=finance&subject_token="
)
_PERMIT = {
    "id": "finance-exchange",
    "description": "Month-end DAGs get tokens for the ledger",
    "owner": "platform@example.com",
    "effect": "permit",
    "subject": {"issuer": "company", "roles": {"any": ["finance"]}},
    "target": {"upstream": OWN, "methods": ["POST"], "paths": [TOKEN.removeprefix("/-")]},
    "exchange": {"upstreams": ["ledger"], "lifetime": "10m"},
}


class Case(NamedTuple):
    """One row of the results."""

    name: str
    title: str
    exchanges: bool = False
    new_tokens: bool = False
    of_the_gate: bool = False  # the token that is sent is one that the gate has given


CASES = (
    Case("call", "Plain call, token seen before"),
    Case("exchange", "Exchange, token seen before", exchanges=True),
    Case("exchange-new", "Exchange, new token each time", exchanges=True, new_tokens=True),
    Case("call-new", "Plain call, new token each time", new_tokens=True),
    Case("call-gate", "Plain call, gate token seen before", of_the_gate=True),
)


def _publish(rig: Rig) -> int:
    """Put the set of the other measurements in force, and a permit to exchange. Returns the number of policies."""
    folder = rig.state / "seed"
    (folder / "exchange.yaml").write_text(yaml.safe_dump({"policies": [_PERMIT]}), encoding="utf-8")
    publish_to(LocalStores(rig.state), compile_folder(folder), "bench")
    return rig.policies + 1


def _given(server: Server, rig: Rig) -> Path:
    """A file with a gate token."""
    answer = httpx.post(
        server.origin + TOKEN,
        content=FORM + rig.token,
        # The context stays with the token.
        headers={
            "content-type": "application/x-www-form-urlencoded",
            "airgate-dag-id": "finance_month_end",
        },
        timeout=30,
        trust_env=False,
    )
    if answer.status_code != httpx.codes.OK:
        raise BenchError(f"the exchange answered {answer.status_code}: {answer.text[:300]}")
    file = rig.scratch / "given"
    file.write_text(answer.json()["access_token"] + "\n", encoding="ascii")
    return file


def _load(case: Case, server: Server, rig: Rig, given: Path, amount: int) -> Load:
    return server.load(
        TOKEN if case.exchanges else policy.PATH,
        amount,
        given if case.of_the_gate else rig.pool,
        first=1 if case.new_tokens else 0,
        count=POOL if case.new_tokens else 1,
        form=FORM if case.exchanges else None,
    )


def measure(rig: Rig, rounds: int, requests: int, progress: Progress) -> dict[str, list[Load]]:
    """Every case's loads, of interleaved rounds against one gate."""
    task = progress.add_task("Starting everything", total=GENERATIONS * len(CASES) * (rounds + 1))
    loads: dict[str, list[Load]] = {case.name: [] for case in CASES}
    for generation in range(1, GENERATIONS + 1):
        with rig.server("gate") as server:
            server.first_answer(policy.PATH, rig.token)
            server.refuse(policy.PATH + "/lines", rig.token)
            for number in range(rounds + 1):
                given = _given(server, rig)
                for case in CASES:
                    what = f"Round {number}" if number else "Warming up"
                    progress.update(task, description=f"Start {generation}: {what}")
                    load = _load(case, server, rig, given, requests if number else max(requests, WARM_UP))
                    if number:
                        loads[case.name].append(load)
                    progress.advance(task)
    return loads


def rows(loads: Mapping[str, list[Load]]) -> list[dict[str, Any]]:
    """Each case's median CPU time, and how many times that of a plain call in the same round."""
    cpu = {name: [load.cpu for load in each if load.cpu is not None] for name, each in loads.items()}
    if not all(cpu.values()):
        raise BenchError("CPU time can be measured on Linux only.")
    found = []
    for case in CASES:
        times = [one / other for one, other in zip(cpu[case.name], cpu["call"], strict=True)]
        found.append(
            {
                "name": case.name,
                "title": case.title,
                "cpu_ms": round(statistics.median(cpu[case.name]), 3),
                "times": round(statistics.median(times), 2),
                "times_rounds": [round(one, 2) for one in times],
                "p50_ms": round(statistics.median(load.p50 for load in loads[case.name]), 2),
            }
        )
    return found


def note(results: Mapping[str, Any]) -> str:
    facts = results["machine"]
    return (
        f"{results['date']}, {facts['system']}, {facts['cores']} cores, embedded workerd, {results['policies']} "
        f"policies, RS256 tokens, an ES256 key of the gate's, 8 connections"
    )


def write(results: Mapping[str, Any]) -> None:
    """exchange.json, and the table in README.md."""
    (HERE / "exchange.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    lines = [f"{note(results)}.", "", "| | CPU ms | times a plain call | p50 ms |", "|---|--:|--:|--:|"]
    lines += [
        f"| {row['title']} | {row['cpu_ms']:.3f} | {row['times']:.2f} | {row['p50_ms']:.1f} |"
        for row in results["cases"]
    ]
    readme = HERE / "README.md"
    before, begin, rest = readme.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"{readme.name} has no place for the results: {BEGIN.strip()}")
    readme.write_text(before + begin + "\n".join(lines) + "\n" + end + after, encoding="utf-8")


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds of each start.")] = 3,
    requests: Annotated[int, typer.Option(min=500, help="Requests of each case in each round.")] = 4000,
    keep: Annotated[bool, typer.Option(help="Write bench/exchange.json and the table.")] = True,
) -> None:
    """Measure what an exchange costs, and write bench/exchange.json and the table in README.md."""
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
            policies = _publish(rig)
            results = {
                "date": datetime.now(UTC).date().isoformat(),
                "machine": machine(),
                "policies": policies,
                "starts": GENERATIONS,
                "rounds_a_start": rounds,
                "requests_a_round": requests,
                "asked_times": ASKED,
                "cases": rows(measure(rig, rounds, requests, progress)),
            }
        if keep:
            write(results)
    except (BenchError, NodeMissing, WranglerFailed) as error:
        console.print(f"The measurement failed. {error}", markup=False, style="red")
        raise typer.Exit(1) from None
    shown = Table(box=SIMPLE_HEAD)
    for number, name in enumerate(("Case", "CPU ms", "times a call", "p50 ms")):
        shown.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in results["cases"]:
        shown.add_row(row["title"], f"{row['cpu_ms']:.3f}", f"{row['times']:.2f}", f"{row['p50_ms']:.1f}")
    console.print(note(results), highlight=False)
    console.print(shown)
    if keep:
        console.print("Written: bench/exchange.json, the table in bench/README.md")


if __name__ == "__main__":
    typer.run(main)
