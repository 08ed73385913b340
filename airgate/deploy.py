"""`airgate deploy`: make what a gate needs in the account, and upload it; or show what would be uploaded.

Every step leaves what it made where the next run finds it, so a deployment that was interrupted is run again.

Exit codes: 0 done; 1 a step failed, or something could not be checked; 2 something is wrong, and nothing was changed;
3 not agreed to.
"""

import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from airgate.account import Account
from airgate.checks import Examination, Facts, Outcome, health
from airgate.configuration import (
    LOCAL,
    PRODUCTION,
    Configuration,
    ConfigurationError,
    read_configuration,
)
from airgate.doctor import tell
from airgate.environment import DONE, FAILED, INVALID, REFUSED, YesOption
from airgate.node import PROJECT, NodeMissing, WranglerFailed, environment, wrangler
from airgate.policy.check import Folder
from airgate.policy.seed import STARTER
from airgate.version import Version

PATIENCE = 120.0  # seconds until the gate's address shows what was uploaded
BETWEEN = 1.0  # seconds between looks at it


def deploy(
    directory: Folder = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only list the modules that would be uploaded, and what would be made. Needs no account.",
        ),
    ] = False,
    env: Annotated[
        str,
        typer.Option("--env", metavar="NAME", help="production, or another environment of wrangler.toml."),
    ] = PRODUCTION,
    yes: YesOption = False,
    wait: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, help="How long the gate's address may take to show the new version."
        ),
    ] = PATIENCE,
) -> None:
    """Make what the gate needs at Cloudflare, and upload it. Run it again after a failure: it goes on from there.

    The account is wrangler's own: CLOUDFLARE_API_TOKEN, or `npx wrangler login`.
    """
    if env == LOCAL:
        typer.echo(
            "[env.local] is this machine: `make dev` runs it. Leave --env out to deploy to production.",
            err=True,
        )
        raise typer.Exit(INVALID)
    if not env:
        typer.echo("--env is empty. Say production, or another environment of wrangler.toml.", err=True)
        raise typer.Exit(INVALID)
    try:
        configuration = read_configuration(env)
        if dry_run:
            raise typer.Exit(_dry_run(configuration))
        examination = _examined(configuration, directory or STARTER)
        version = Version.of_tree(datetime.now(UTC))
        deployment = Deployment(configuration, examination.facts, version, wait)
        _agree(configuration, deployment.plan(), yes)
        deployment.run()
    except ConfigurationError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(INVALID) from None
    except NodeMissing as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(FAILED) from None


def _dry_run(configuration: Configuration) -> int:
    """List the modules, then what a deployment would make. The status of wrangler."""
    with tempfile.TemporaryDirectory(prefix="airgate-") as scratch:
        folder = str(Path(scratch) / "bundle")
        arguments = ["deploy", *configuration.selected(), "--dry-run", "--outdir", folder]
        status = subprocess.run(
            wrangler(arguments), cwd=PROJECT, env=environment(Path(scratch)), check=False
        ).returncode
    if status == 0:
        typer.echo(f"\nA deployment of {configuration.env} would")
        for step in Deployment(configuration, Facts(), Version.of_tree(datetime.now(UTC)), 0).plan():
            typer.echo(f"  {step}")
        if configuration.database_id is not None:
            typer.echo("  and apply the migrations that the database lacks, which only the account can tell")
    return status


def _examined(configuration: Configuration, seed: Path) -> Examination:
    """Every check, told. Exits when one stands in the way."""
    typer.echo(f"Looking at {configuration.env}: {configuration.label} and the account ...", err=True)
    examination = Examination(configuration, seed)
    checks = examination.run()
    tell(
        check._replace(outcome=Outcome.TO_DO) if check.passable and check.outcome is Outcome.FAILED else check
        for check in checks
    )
    blocking = {check.outcome for check in checks if not check.passable}
    if Outcome.FAILED in blocking:
        typer.echo("Nothing was changed. Put right what failed, and run the command again.", err=True)
        raise typer.Exit(INVALID)
    if Outcome.UNKNOWN in blocking:
        typer.echo("Nothing was changed, since not everything could be checked. Try again.", err=True)
        raise typer.Exit(FAILED)
    return examination


def _agree(configuration: Configuration, steps: list[str], yes: bool) -> None:
    """Say what is going to happen, and ask. Exits with REFUSED unless it's agreed to."""
    typer.echo(f"\nThis will, for {configuration.env},")
    for step in steps:
        typer.echo(f"  {step}")
    typer.echo()
    if yes:
        return
    if not sys.stdin.isatty():
        typer.echo(
            f"Nothing was changed: {configuration.env} is changed only when asked. Add --yes.", err=True
        )
        raise typer.Exit(REFUSED)
    if not typer.confirm("Go on?"):
        typer.echo("Nothing was changed.", err=True)
        raise typer.Exit(REFUSED)


class Deployment:
    """What there is to do, and what of it is done."""

    def __init__(self, configuration: Configuration, facts: Facts, version: Version, wait: float) -> None:
        self._configuration = configuration
        self._facts = facts
        self._version = version
        self._wait = wait
        self._done: list[str] = []

    @property
    def _title(self) -> str:
        return f"{self._configuration.worker}-policy"

    def plan(self) -> list[str]:
        """The steps, in words that follow "this will"."""
        this = self._configuration
        steps = []
        if this.namespace is None:
            found = _named(self._facts.namespaces, self._title)
            steps.append(
                f"use the KV namespace {self._title} that is there, {found}"
                if found
                else f"create the KV namespace {self._title}"
            )
        if this.database_id is None:
            found = _named(self._facts.databases, this.database)
            steps.append(
                f"use the D1 database {this.database} that is there, {found}"
                if found
                else f"create the D1 database {this.database}"
            )
        if steps:
            steps.append(f"write their ids into {this.label}")
        if this.database_id is None:
            steps.append("apply the migrations that the database lacks")
        elif self._facts.pending:
            steps.append(f"apply the migrations {', '.join(self._facts.pending)}")
        steps.append(f"upload the Worker {this.worker}: {self._version}")
        return steps

    def run(self) -> None:
        """Do it, and wait until the gate shows it. Exits with FAILED when a step fails."""
        try:
            self._make()
            self._migrate()
            self._upload()
        except (WranglerFailed, ConfigurationError, KeyboardInterrupt) as error:
            typer.echo(str(error) or "Interrupted.", err=True)
            so_far = "; ".join(self._done) if self._done else "nothing is known to have changed"
            typer.echo(f"So far: {so_far}. Run the same command again: it goes on from there.", err=True)
            raise typer.Exit(FAILED) from None
        shown = self._shown()
        self._say_what_next()
        raise typer.Exit(DONE if shown else FAILED)

    def _make(self) -> None:
        this = self._configuration
        account = Account(this)
        if this.namespace is None:
            found = _named(self._facts.namespaces, self._title)
            number = found or account.create_namespace(self._title)
            self._did(f"the KV namespace {self._title} is there, {number}")
            self._configuration = this = this.write_namespace(number)
        if this.database_id is None and this.database is not None:
            found = _named(self._facts.databases, this.database)
            number = found or account.create_database(this.database)
            self._did(f"the D1 database {this.database} is there, {number}")
            self._configuration = this.write_database(number)

    def _migrate(self) -> None:
        if self._facts.pending == []:
            return
        Account(self._configuration).migrate()
        self._did("all migrations are applied")

    def _upload(self) -> None:
        this = self._configuration
        uploaded = Account(this).upload(str(self._version))
        self._did(f"the Worker {this.worker} is uploaded: {self._version}")
        if this.address is None and uploaded.addresses and "ADDRESS" in this.vars:
            self._configuration = this.write_address(uploaded.addresses[0])
            self._did(f"ADDRESS = {uploaded.addresses[0]}, in {this.label}")

    def _shown(self) -> bool:
        """Wait until the gate's address shows the new version. False when it doesn't in time."""
        address = self._configuration.address
        if address is None:
            typer.echo(
                f"Nobody knows where the gate answers. Write ADDRESS under the vars of {self._configuration.table} of "
                f"{self._configuration.label}, and commands can ask it."
            )
            return True
        begin = time.monotonic()
        typer.echo(f"Waiting until {address}/-/health shows it ...", err=True)
        while True:
            report = health(address)
            if report is not None and report.get("version") == str(self._version):
                typer.echo(f"{address} runs it, after {time.monotonic() - begin:.0f} s.")
                return True
            if time.monotonic() - begin >= self._wait:
                break
            time.sleep(BETWEEN)
        shows = f"shows {report.get('version')!r}" if report is not None else "gives no answer of a gate's"
        typer.echo(
            f"After {self._wait:.0f} s {address}/-/health {shows}. The upload itself is done. A new address can take "
            "some minutes; else look whether ADDRESS is right, and at `npx wrangler deployments list`. "
            f"`airgate doctor {self._configuration.option()}` tells how it stands.",
            err=True,
        )
        return False

    def _say_what_next(self) -> None:
        this, facts = self._configuration, self._facts
        env = "" if this.env == PRODUCTION else f" --env {this.env}"
        steps = [f"npx wrangler secret put {name}{env}" for name in facts.lacking]
        if facts.ledger is None or facts.ledger.in_force is None:
            steps.append(f"airgate policy publish --env {this.env}")
        typer.echo("Next:" if steps else "Nothing else is to be done.")
        for step in steps:
            typer.echo(f"  {step}")

    def _did(self, what: str) -> None:
        self._done.append(what)
        typer.echo(f"  {what}")


def _named(there: object, name: str | None) -> str | None:
    """The id of what has that name in the account, as an interrupted run leaves it."""
    if not isinstance(there, dict):
        return None
    return next((number for number, title in there.items() if title == name), None)
