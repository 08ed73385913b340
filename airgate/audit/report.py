"""`airgate audit report`: who called what, what was denied and why, what nobody uses, what was changed or is missing.

Exit codes: 0 the report is made; 2 a log, a seed or an environment can't be used, or the logs hold no event.
"""

import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from airgate.audit.figures import Figures, Origin, Permit, Permits, figures
from airgate.audit.page import page
from airgate.audit.source import Tally, called, events
from airgate.audit.summary import Summary
from airgate.audit.tables import render
from airgate.dev.stack import StackError, read_stack
from airgate.environment import EnvironmentMissing, open_environment
from airgate.in_force import InForce, NotReadable
from airgate.policy import traffic
from airgate.policy.check import report as report_seed
from airgate.policy.compile import compile_folder
from airgate.policy.output import console
from airgate.policy.recorded import RecordError
from airgate.policy.rules import upstreams
from airgate.policy.seed import STARTER, SeedError, label

INVALID = 2

Logs = Annotated[
    list[Path] | None,
    typer.Option(
        "--log",
        metavar="FILE",
        help="An audit log, or a folder of them, in any form; - is standard input. Repeat it. "
        "The running local stack's when left out.",
    ),
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="WHEN", help="Leave out what is older: 7d, 2026-11-14 or a moment."),
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="WHEN", help="Leave out what is from then on, said likewise.")
]


def report(
    logs: Logs = None,
    since: Since = None,
    until: Until = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write it as a page that needs nothing else."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    seed: Annotated[
        Path | None,
        typer.Option(
            "--seed", metavar="DIR", help="Whose permits may be unused; kv-seed of the project when left out."
        ),
    ] = None,
    env: Annotated[
        str | None,
        typer.Option(
            "--env", metavar="NAME", help="Instead of a seed, the policy in force in that environment."
        ),
    ] = None,
) -> None:
    """Count what audit logs say of a time, for an auditor: at the terminal, as JSON, or as an HTML page."""
    now = time.time()
    try:
        if seed is not None and env is not None:
            raise RecordError("--seed and --env are one too many: say whose permits may be unused")
        files = chosen(logs)
        found = Summary(moment("--since", since, now), moment("--until", until, now))
        permits = of_environment(env) if env is not None else of_seed(seed)
        told = counted(files, found, permits, now)
        if html is not None:
            written(html, page(told))
    except SeedError as error:
        report_seed(error, "There is no report. Name another seed: --seed DIR")
        raise typer.Exit(INVALID) from None
    except (RecordError, EnvironmentMissing, NotReadable) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(INVALID) from None
    if as_json:
        typer.echo(json.dumps(told))
    elif html is None:
        render(told, console())
    else:
        typer.echo(
            f"{html}: {told['totals']['decisions']:,} decisions. Open it in a browser; it needs nothing else."
        )


def chosen(logs: list[Path] | None) -> list[Path]:
    """The logs that were named, or the running local stack's. Raises RecordError."""
    if logs:
        return logs
    try:
        return [read_stack().audit]
    except StackError as error:
        raise RecordError(f"{error} Or name a log: --log FILE") from None


def moment(option: str, text: str | None, now: float) -> float | None:
    """Seconds since the epoch. Raises RecordError."""
    try:
        return None if text is None else traffic.since(text, now)
    except ValueError as error:
        raise RecordError(f"{option}: {error}") from None


def counted(logs: list[Path], found: Summary, permits: Permits | None, now: float) -> Figures:
    """Read the logs, and say what is in them. Raises RecordError."""
    if found.since is not None and found.until is not None and found.since >= found.until:
        raise RecordError("--until: that is before --since; nothing lies between them")
    tally = Tally()
    found.add_all(events(logs, tally))
    if not tally.events:
        raise RecordError(
            "No event of the gate is in the logs: " + "; ".join(map(str.strip, tally.sentences())) + ". "
            "docs/audit.md says where they are"
        )
    return figures(
        found, Origin([called(log) for log in logs], tally.sentences(), now, version("airgate")), permits
    )


def of_seed(directory: Path | None) -> Permits | None:
    """The permits of a seed. None: nobody named one, and the project has none that could be used. Raises SeedError."""
    root = directory or STARTER
    try:
        policies = compile_folder(root).seed.policies
    except SeedError:
        if directory is None:
            return None
        raise
    return Permits(
        label(root),
        [
            Permit(name, entry.data["owner"], tuple(upstreams(entry.data)))
            for name, entry in policies.items()
            if entry.data["effect"] == "permit" and entry.data.get("mode", "enforce") == "enforce"
        ],
    )


def of_environment(name: str) -> Permits:
    """The permits in force. Raises EnvironmentMissing and NotReadable."""
    typer.echo(f"Reading the policy in force in {name}", err=True)
    policies = InForce.read(open_environment(name)).policies()
    return Permits(
        f"the policy in force in {name}",
        [
            Permit(policy, rule.owner, tuple(where))
            for policy, (rule, where) in policies.items()
            if rule.effect == "permit" and not rule.shadow
        ],
    )


def written(file: Path, text: str) -> None:
    """Write a file, whole or not at all. Raises RecordError."""
    beside = file.with_name(f".{file.name}.part")
    try:
        beside.write_text(text, "utf-8")
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise RecordError(
            f"{file}: can't be written: {error.strerror}. Name another file, in a folder that is there"
        ) from None
