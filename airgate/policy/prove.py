"""`airgate policy prove`: do the invariants hold for every call there could be?

Exit codes: 0 all are proved; 1 there is a counterexample, or one can't be proved; 2 invalid.
"""

import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from airgate.policy import invariants
from airgate.policy.check import Folder, counted, report
from airgate.policy.compile import compile_folder
from airgate.policy.enforced import Enforced
from airgate.policy.evidence import Evidence
from airgate.policy.output import console, watched
from airgate.policy.proof import COUNTEREXAMPLE, PROVED, UNKNOWN, Proof, Prover
from airgate.policy.seed import STARTER, SeedError, label

ALL_PROVED, NOT_PROVED, INVALID = 0, 1, 2

_STYLE = {PROVED: "green", COUNTEREXAMPLE: "bold red", UNKNOWN: "yellow"}


def prove(
    directory: Folder = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--invariants", metavar="FILE", help="The invariants; DIR/invariants.yaml when left out."
        ),
    ] = None,
) -> None:
    """Prove that the invariants hold for every call there could be, or show a call that breaks one.

    Exits with 0 when all are proved, 1 when one isn't, 2 when the seed or the invariants are invalid.
    """
    root = directory or STARTER
    try:
        compiled = compile_folder(root)
    except SeedError as error:
        report(error)
        raise typer.Exit(INVALID) from None
    try:
        stated = invariants.read(file or root / invariants.FILE, compiled)
    except SeedError as error:
        typer.echo(f"{error}\nInvalid: {counted(len(error.problems), 'problem')}. Nothing was proved.")
        raise typer.Exit(INVALID) from None
    since = int(time.time())
    prover = Prover(Enforced.of(compiled, [rule for each in stated for rule in each.all_rules]), since)
    proofs = [prover.prove(invariant) for invariant in watched(stated, "proving")]
    screen = console()
    for proof in proofs:
        _show(proof, screen, "" if directory is None else label(root))
    verdicts = Counter(proof.verdict for proof in proofs)
    policies = counted(len(compiled.seed.policies), "policy")
    screen.print(
        f"{label(root)}: {counted(len(proofs), 'invariant')} over {policies}: {verdicts[PROVED]} proved, "
        f"{counted(verdicts[COUNTEREXAMPLE], 'counterexample')}, {verdicts[UNKNOWN]} unknown",
        soft_wrap=True,
    )
    raise typer.Exit(ALL_PROVED if verdicts[PROVED] == len(proofs) else NOT_PROVED)


def _show(proof: Proof, screen: Console, seed: str) -> None:
    head = Text()
    head.append(f"{proof.verdict:<15}", _STYLE[proof.verdict]).append(proof.invariant.name)
    screen.print(head, soft_wrap=True)
    if proof.verdict == PROVED and not proof.why:
        return
    lines = [proof.invariant.place]
    if proof.verdict == PROVED:
        lines.append(f"but it says nothing, for no call can be like that: {proof.why}")
    elif proof.example is not None:
        lines += account(proof.example, seed)
    else:
        lines.append(f"neither proved nor broken: {proof.why}")
    for line in lines:
        screen.print(Text(f"    {line}"), soft_wrap=True)


def account(example: Evidence, seed: str = "") -> list[str]:
    """A call, what the gate says to it, and how to repeat that."""
    lines = [f"{example.title}: {example.decided}", *(f"  {line}" for line in example.lines())]
    command = example.command(seed)
    return [*lines, f"  {command}"] if command else lines
