"""`airgate audit pseudonym`: what the log calls a subject, where it is not to hold who that is.

Exit codes: 0 printed; 2 there is no key.
"""

import os
from typing import Annotated

import typer

import airgate.engine  # noqa: F401  the gate's own code can be imported from here on
from pseudonym import KEY, read_names

UNKNOWN = 2


def pseudonym(
    issuer: Annotated[str, typer.Argument(metavar="ISSUER", help="The issuer's id in the policy set.")],
    subject: Annotated[
        str, typer.Argument(metavar="SUBJECT", help="The token's subject, as the issuer has it.")
    ],
) -> None:
    """Print what the audit log calls a subject under AUDIT_SUBJECTS = "pseudonym".

    The gate's key is taken from the environment variable AUDIT_PSEUDONYM_KEY: others could read a command line.
    """
    names = read_names("pseudonym", os.environ.get(KEY))
    if names.error:
        typer.echo(f"Put the gate's key into the environment variable {KEY}: {names.error}.", err=True)
        raise typer.Exit(UNKNOWN)
    typer.echo(names.of(issuer, subject))
