"""`airgate keys`: the keys that operators sign with, those that a gate signs assertions and its audit log with, and
those that Airflow attests its tasks with."""

import typer

from airgate.keys.assertion import app as assertion_app
from airgate.keys.attest import app as attest_app
from airgate.keys.audit import app as audit_app
from airgate.keys.signing import new, show_, trust

app = typer.Typer(
    help="Make the keys that policy and access are signed with, and say which of them a gate trusts.",
    no_args_is_help=True,
)
app.command("new")(new)
app.command("show")(show_)
app.command("trust")(trust)
app.add_typer(assertion_app, name="assertion")
app.add_typer(attest_app, name="attest")
app.add_typer(audit_app, name="audit")
