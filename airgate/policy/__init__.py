"""`airgate policy`: check it, try it, prove it, publish it."""

import typer

from airgate.policy import check, diff, explain, prove, publish, testing

app = typer.Typer(help="Check, test, explain, compare, prove and publish policy.", no_args_is_help=True)
app.command("check")(check.check)
app.command("test")(testing.run)
app.command("explain")(explain.explain)
app.command("diff")(diff.diff)
app.command("prove")(prove.prove)
app.command("publish")(publish.publish)
