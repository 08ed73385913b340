"""`make bench-attest`: what it costs to fetch a connection with a token in it, beside one without.

Two API servers of one Airflow, on one database: one attests its tasks, the other one knows nothing of it. A task that
runs fetches the same connection of both in turn, over the Execution API, as the process does that looks after it.

Exit codes: 0 within the limit; 1 not.
"""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from airgate.dev.airflow import free_port
from airgate.dev.process import Process
from airgate.node import PROJECT
from attested import Attested, running

MOST_EXTRA = 10.0  # milliseconds
WARM_UP = 30
README, RESULTS = PROJECT / "bench" / "README.md", PROJECT / "bench" / "attest.json"
BEGIN = "<!-- results: written by make bench-attest -->\n"
END = "<!-- end of results -->\n"


def plain(attested: Attested, port: int) -> Process:
    """A second API server, which hands connections out as they are stored."""
    airflow = attested.airflow
    backend = json.loads(airflow.own_variables["api-server"]["AIRFLOW__SECRETS__BACKEND_KWARGS"])
    variables = {
        "AIRFLOW__SECRETS__BACKEND": backend["backend"],
        "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps(backend["backend_kwargs"]),
    }
    return Process(
        "plain",
        airflow.environment.command("api-server", "--host", "127.0.0.1", "--port", str(port)),
        log=airflow.home / "plain.log",
        cwd=airflow.home,
        env={**airflow.process_environment(), **variables},
    )


def milliseconds(client: httpx.Client, token: str, attested: bool) -> float:
    """One fetch. Exits when it isn't what it should be."""
    start = time.perf_counter()
    answer = client.get("/execution/connections/attested", headers={"Authorization": f"Bearer {token}"})
    took = time.perf_counter() - start
    if answer.status_code != httpx.codes.OK or bool(answer.json()["password"]) is not attested:
        raise SystemExit(f"The fetch should have been answered, but: {answer.status_code} {answer.text}")
    return took * 1000


def measure(attested: Attested, rounds: int) -> dict[str, Any]:
    """Medians in milliseconds; `extra` is the median of the differences of each pair."""
    run = attested.airflow.trigger("held")
    token = attested.execution_token(attested.kept(run)["session"])
    port = free_port()
    other = plain(attested, port)
    figures: dict[str, list[float]] = {"without": [], "with": [], "extra": []}
    try:
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as without,
            httpx.Client(base_url=attested.airflow.url, timeout=30, trust_env=False) as own,
        ):
            _wait(without, other)
            for number in range(rounds + WARM_UP):
                pair = [(without, False), (own, True)]
                order = pair if number % 2 else pair[::-1]
                took = {each: milliseconds(client, token, each) for client, each in order}
                if number >= WARM_UP:
                    figures["without"].append(took[False])
                    figures["with"].append(took[True])
                    figures["extra"].append(took[True] - took[False])
    finally:
        other.stop()
    attested.then(run, "success")
    return {name: round(statistics.median(values), 2) for name, values in figures.items()}


def _wait(client: httpx.Client, process: Process) -> None:
    deadline = time.monotonic() + 120
    while process.status is None and time.monotonic() < deadline:
        try:
            if client.get("/execution/health").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise SystemExit("The second API server doesn't start:\n" + "\n".join(process.last_lines()))


def table(results: dict[str, Any]) -> str:
    """The part of README.md that is written here."""
    return (
        f"{results['date']}, {results['system']}, {results['cores']} cores, Airflow 3.3, SQLite, ES256, "
        f"{results['rounds']} pairs of fetches.\n\n"
        "| One fetch of a connection | median ms |\n|---|--:|\n"
        f"| as it is stored | {results['without']:.1f} |\n"
        f"| with an attested token | {results['with']:.1f} |\n"
        f"| difference of a pair, at most {MOST_EXTRA:.0f} asked | {results['extra']:.1f} |\n"
    )


def main(
    rounds: Annotated[int, typer.Option(min=10, help="Pairs of fetches.")] = 400,
    write: Annotated[
        bool, typer.Option(help="Write bench/attest.json and the table in bench/README.md.")
    ] = True,
) -> None:
    """Measure what attestation adds to fetching a connection. Exits with 1 when that is too much."""
    with tempfile.TemporaryDirectory(prefix="airgate-bench-") as name, running(Path(name)) as attested:
        figures = measure(attested, rounds)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "rounds": rounds,
        **figures,
    }
    print(table(results))
    if write:
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        before, begin, rest = README.read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise SystemExit(f"{README.name} has no place for the results: {BEGIN.strip()}")
        README.write_text(before + begin + table(results) + end + after, encoding="utf-8")
        print("Written: bench/attest.json, the table in bench/README.md")
    sys.exit(figures["extra"] > MOST_EXTRA)


if __name__ == "__main__":
    typer.run(main)
