"""`airgate policy check`: is this seed valid, and is anything in it worth a second look?

Exit codes: 0 clean, 1 findings, 2 invalid (nothing could be published).
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from airgate.policy.compile import compile_folder, listed
from airgate.policy.seed import STARTER, Entry, Problem, Seed, SeedError, label

CLEAN, FINDINGS, INVALID = 0, 1, 2
READS = frozenset({"GET", "HEAD", "OPTIONS"})

Folder = Annotated[
    Path | None,
    typer.Argument(
        metavar="DIR", help="The folder that holds the seed; kv-seed of the project when left out."
    ),
]


def check(directory: Folder = None) -> None:
    """Check a policy seed. Exits with 0 when it's clean, 1 when it has findings, 2 when it's invalid."""
    root = directory or STARTER
    try:
        compiled = compile_folder(root)
    except SeedError as error:
        report(error)
        raise typer.Exit(INVALID) from None
    found = sorted(findings(compiled.seed))
    for finding in found:
        typer.echo(str(finding))
    typer.echo(
        f"{label(root)}: {summary(compiled.seed)}; {counted(len(found), 'finding') if found else 'clean'}"
    )
    raise typer.Exit(FINDINGS if found else CLEAN)


def report(error: SeedError) -> None:
    """Print what makes a seed invalid, and how much of it there is."""
    for problem in error.problems:
        typer.echo(str(problem))
    typer.echo(
        f"Invalid: {counted(len(error.problems), 'problem')}. Nothing is published from a seed like this."
    )


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
    """`1 policy`, `2 policies`."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number} {noun if number == 1 else plural}"


def findings(seed: Seed) -> Iterator[Problem]:
    """What is valid and still deserves a second look."""
    yield from _unused(seed)
    for entry in seed.policies.values():
        yield from _broad(entry)


def _unused(seed: Seed) -> Iterator[Problem]:
    roles: set[str] = set()
    upstreams: set[str] = set()
    for policy in (entry.data for entry in seed.policies.values()):
        for names in policy.get("subject", {}).get("roles", {}).values():
            roles.update(names)
        upstreams.update(listed(policy["target"]["upstream"]))
    for name, entry in seed.roles.items():
        if name not in roles:
            yield entry.source.problem(
                entry.keys, "no policy uses this role; remove it, or write the policy", at_key=True
            )
    for name, entry in seed.upstreams.items():
        if name not in upstreams:
            text = "no policy names this upstream, so nobody can reach it; remove it, or write the policy"
            yield entry.source.problem(entry.keys, text, at_key=True)


def _broad(entry: Entry) -> Iterator[Problem]:
    """A permit that lets writes through should say which, and where."""
    target = entry.data["target"]
    if entry.data["effect"] != "permit" or READS.issuperset(target["methods"]):
        return
    for number, method in enumerate(target["methods"]):
        if method == "*":
            yield entry.problem(
                ("target", "methods", number), '"*": permits every way of writing; name the methods'
            )
    for number, path in enumerate(target["paths"]):
        if path == "/**":
            text = f'"{path}": permits writing to every path of the upstream; name the paths'
            yield entry.problem(("target", "paths", number), text)
