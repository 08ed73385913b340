"""`airgate policy`: check it, try it, prove it, publish it, look back and go back."""

import typer

from airgate.policy import (
    check,
    diff,
    explain,
    history,
    migrate,
    prove,
    publish,
    replay,
    rollback,
    status,
    suggest,
    testing,
)

app = typer.Typer(
    help="Check, test, explain, compare, prove and publish policy; look back, and go back.",
    no_args_is_help=True,
)
app.command("check")(check.check)
app.command("test")(testing.run)
app.command("explain")(explain.explain)
app.command("diff")(diff.diff)
app.command("prove")(prove.prove)
app.command("replay")(replay.replay)
app.command("suggest")(suggest.suggest)
app.command("migrate")(migrate.migrate)
app.command("publish")(publish.publish)
app.command("history")(history.history)
app.command("rollback")(rollback.rollback)
app.command("status")(status.status)
