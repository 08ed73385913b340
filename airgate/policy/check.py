"""`airgate policy check`: is this seed valid, and is anything in it worth a second look?

Exit codes: 0 clean, 1 findings, 2 invalid (nothing could be published). Notes change none of them.
"""

import json
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from airgate.policy.compile import compile_folder
from airgate.policy.finding import Finding
from airgate.policy.findings import findings
from airgate.policy.seed import STARTER, Problem, Seed, SeedError, label

CLEAN, FINDINGS, INVALID = 0, 1, 2


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


Folder = Annotated[
    Path | None,
    typer.Argument(
        metavar="DIR", help="The folder that holds the seed; kv-seed of the project when left out."
    ),
]


def check(
    directory: Folder = None,
    notes: Annotated[
        bool,
        typer.Option("--notes/--no-notes", help="Say also what is as it must be, but easily overlooked."),
    ] = True,
    form: Annotated[
        Format, typer.Option("--format", help="json: one object a line, for annotations in reviews.")
    ] = Format.TEXT,
) -> None:
    """Check a policy seed. Exits with 0 when it's clean, 1 when it has findings, 2 when it's invalid."""
    root = directory or STARTER
    try:
        compiled = compile_folder(root)
    except SeedError as error:
        if form is Format.JSON:
            for problem in error.problems:
                typer.echo(_json(problem, "problem"))
        else:
            report(error)
        raise typer.Exit(INVALID) from None
    found = findings(compiled)
    serious = [finding for finding in found if not finding.note]
    told = [finding for finding in found if finding.note] if notes else []
    for finding in sorted(serious + told):
        typer.echo(
            _text(finding) if form is Format.TEXT else _json(finding.problem, _level(finding), finding)
        )
    if form is Format.TEXT:
        outcome = counted(len(serious), "finding") if serious else "clean"
        outcome += f"; {counted(len(told), 'note')}" if told else ""
        typer.echo(f"{label(root)}: {summary(compiled.seed)}; {outcome}")
    raise typer.Exit(FINDINGS if serious else CLEAN)


def _level(finding: Finding) -> str:
    return "note" if finding.note else "finding"


def _text(finding: Finding) -> str:
    """`file:line:column: note: path: text`, as compilers write it; a finding without `note: `."""
    problem = finding.problem
    place = f"{problem.file}:{problem.line}:{problem.column}: "
    return place + ("note: " if finding.note else "") + str(problem).removeprefix(place)


def _json(problem: Problem, level: str, finding: Finding | None = None) -> str:
    return json.dumps(
        {
            "level": level,
            "code": finding.code if finding is not None else "invalid",
            "file": problem.file,
            "line": problem.line,
            "column": problem.column,
            "policy": finding.policy or None if finding is not None else None,
            "path": problem.path,
            "text": problem.text,
        },
        ensure_ascii=False,
    )


def report(error: SeedError, outcome: str = "Nothing is published from a seed like this.") -> None:
    """Print what makes a seed invalid, how much of it there is, and what that means."""
    for problem in error.problems:
        typer.echo(str(problem))
    typer.echo(f"Invalid: {counted(len(error.problems), 'problem')}. {outcome}")


def summary(seed: Seed) -> str:
    """A seed in numbers: `1 issuer, 7 roles, 5 upstreams, 13 policies (10 permit, 3 forbid; 1 in shadow)`."""
    policies = [entry.data for entry in seed.policies.values()]
    effects = Counter(policy["effect"] for policy in policies)
    shadow = sum(policy.get("mode") == "shadow" for policy in policies)
    kinds = f"{effects['permit']} permit, {effects['forbid']} forbid" + (
        f"; {shadow} in shadow" if shadow else ""
    )
    parts = [
        counted(len(seed.issuers), "issuer"),
        counted(len(seed.roles), "role"),
        counted(len(seed.upstreams), "upstream"),
        f"{counted(len(policies), 'policy')} ({kinds})",
    ]
    return ", ".join(parts)


def counted(number: int, noun: str) -> str:
    """`1 policy`, `2 policies`, `2 keys`."""
    plural = noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeou" else noun + "s"
    return f"{number:,} {noun if number == 1 else plural}"
