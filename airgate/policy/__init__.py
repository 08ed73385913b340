"""`airgate policy`: check a policy seed, and publish it to a gate."""

import typer

from airgate.policy import check, publish

app = typer.Typer(help="Check policy, and publish it.", no_args_is_help=True)
app.command("check")(check.check)
app.command("publish")(publish.publish)
