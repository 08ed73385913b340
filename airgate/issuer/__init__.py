"""`airgate issuer`: connect an identity provider, and see what it really publishes."""

import typer

from airgate.issuer import add, check

app = typer.Typer(help="Add issuers from presets, and check what they publish.", no_args_is_help=True)
app.command("presets")(add.listing)
app.add_typer(add.commands(), name="add")
app.command("check")(check.check)
