"""`airgate audit`: is the log whole, what does it say of a call, and how does it reach those who read it."""

import typer

from airgate.audit import export, pseudonym, register, report, schema, tail, trace, verify, why

app = typer.Typer(
    help="Prove the audit log, and read it: from one request, one DAG run or a month to what was decided and why.",
    no_args_is_help=True,
)
app.command("verify")(verify.verify)
app.command("register")(register.register)
app.command("report")(report.report)
app.command("export")(export.export)
app.command("schema")(schema.schema)
app.command("why")(why.why)
app.command("pseudonym")(pseudonym.pseudonym)
app.command("trace")(trace.trace)
app.command("tail")(tail.tail)
