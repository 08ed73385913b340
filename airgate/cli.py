"""The `airgate` command."""

import typer

from airgate import audit, demo, deploy, doctor, grant, issuer, keys, policy, revoke
from airgate.dev import command, token

app = typer.Typer(
    help="The identity-aware gate between Apache Airflow and the APIs it calls.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals can hold tokens
)
app.command("dev")(command.dev)
app.command("token")(token.token)
app.command("demo")(demo.demo)
app.command("deploy")(deploy.deploy)
app.command("doctor")(doctor.doctor)
app.add_typer(policy.app, name="policy")
app.add_typer(issuer.app, name="issuer")
app.add_typer(keys.app, name="keys")
app.add_typer(revoke.app, name="revoke")
app.add_typer(grant.app, name="grant")
app.add_typer(audit.app, name="audit")
