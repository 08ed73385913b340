"""`airgate deploy`: upload the gate with current wrangler, or show what would be uploaded."""

import subprocess
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from airgate.node import PROJECT, NodeMissing, environment, wrangler


def deploy(
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only list the modules that would be uploaded. Needs no account and no network."
        ),
    ] = False,
    env: Annotated[
        str, typer.Option(help="An environment of wrangler.toml; its top level when left out.")
    ] = "",
) -> None:
    """Upload the gate to Cloudflare. The account is wrangler's own: CLOUDFLARE_API_TOKEN, or `npx wrangler login`."""
    if env == "local":
        typer.echo(
            "[env.local] is this machine: `make dev` runs it. Leave --env out to deploy to production.",
            err=True,
        )
        raise typer.Exit(2)
    # An explicit empty name says "the top level" and keeps wrangler from asking which environment is meant.
    arguments = ["deploy", "--config", str(PROJECT / "wrangler.toml"), "--env", env]
    try:
        with tempfile.TemporaryDirectory(prefix="airgate-") as scratch:
            if dry_run:
                arguments += ["--dry-run", "--outdir", str(Path(scratch) / "bundle")]
            home = Path(scratch) if dry_run else None
            status = subprocess.run(
                wrangler(arguments), cwd=PROJECT, env=environment(home), check=False
            ).returncode
    except NodeMissing as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(status)
