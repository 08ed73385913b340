"""`airgate doctor`: is everything there that a gate needs? Nothing is changed.

Exit codes: 0 all is well, or there are warnings; 1 something could not be checked; 2 something is wrong.
"""

from collections.abc import Iterable
from typing import Annotated

import typer

from airgate.checks import Check, Examination, Outcome
from airgate.configuration import LOCAL, PRODUCTION, ConfigurationError, read_configuration
from airgate.policy.check import Folder, counted
from airgate.policy.output import console, show, table
from airgate.policy.seed import STARTER

FINE, UNKNOWN, WRONG = 0, 1, 2

DeployedOption = Annotated[
    str, typer.Option("--env", metavar="NAME", help="production, or another environment of wrangler.toml.")
]


def doctor(directory: Folder = None, env: DeployedOption = PRODUCTION) -> None:
    """Look whether a deployed gate, or one that is to be deployed, has what it needs. Changes nothing."""
    if env == LOCAL:
        typer.echo("[env.local] is this machine: `make dev` says what it lacks.", err=True)
        raise typer.Exit(WRONG)
    try:
        examination = Examination(read_configuration(env), directory or STARTER)
    except ConfigurationError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(WRONG) from None
    checks = examination.run()
    tell(checks)
    outcomes = {check.outcome for check in checks}
    if Outcome.FAILED in outcomes:
        raise typer.Exit(WRONG)
    raise typer.Exit(UNKNOWN if Outcome.UNKNOWN in outcomes else FINE)


def tell(checks: Iterable[Check]) -> None:
    """Print the table, each check with what to do below it, and a line that counts them."""
    listed = list(checks)
    grid = table("", "Check", "")
    for check in listed:
        grid.add_row(check.outcome, check.name, check.said)
        if check.next and check.outcome is not Outcome.OK:
            grid.add_row("", "", f"→ {check.next}")
    show(grid, console())
    numbers = {outcome: sum(check.outcome is outcome for check in listed) for outcome in reversed(Outcome)}
    said = [
        counted(number, "warning") if outcome is Outcome.WARNING else f"{number} {outcome}"
        for outcome, number in numbers.items()
        if number
    ]
    typer.echo(", ".join(said))
