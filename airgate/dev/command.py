"""`airgate dev`: start the local stack and stay until Ctrl-C."""

import re
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from airgate.dev.stack import DEFAULT_DIRECTORY, LocalStack, Ports, Stack, StackError, ended, new_secrets
from airgate.node import PROJECT, NodeMissing, WranglerFailed
from airgate.policy.publish import PublishError, publish_local
from airgate.policy.seed import STARTER, SeedError

console = Console(highlight=False)

Directory = Annotated[
    Path,
    typer.Option("--dir", envvar="AIRGATE_DIR", help="Where the stack keeps its state, logs and secrets."),
]
Port = Annotated[
    int | None, typer.Option(min=1, max=65535, help="The gate's port; 8787 or the next free one.")
]
ProviderPort = Annotated[
    int | None, typer.Option(min=1, max=65535, help="The OpenID provider's; 9400 or the next free one.")
]
SamplePort = Annotated[
    int | None, typer.Option(min=1, max=65535, help="The sample upstream's; 9500 or the next free one.")
]


def dev(
    directory: Directory = DEFAULT_DIRECTORY,
    port: Port = None,
    provider_port: ProviderPort = None,
    sample_port: SamplePort = None,
) -> None:
    """Start the gate, an OpenID provider and a sample upstream on this machine, and stay until Ctrl-C."""
    end_on_signals()
    local = LocalStack(
        directory,
        ports=Ports(port, provider_port, sample_port),
        secrets=new_secrets(but_for=_own_secrets()),
        publish=lambda stack: publish_local(STARTER, stack, "airgate dev"),
        say=lambda line: console.print(f"[dim]{line} …[/]"),
    )
    try:
        with local as stack:
            _welcome(stack, local.moved)
            while (dead := local.dead()) is None:
                time.sleep(0.2)
            raise StackError(ended(dead))
    except KeyboardInterrupt:
        console.print("\nThe stack has ended.")
    except (StackError, NodeMissing, WranglerFailed, SeedError, PublishError) as error:
        console.print(f"[bold red]The local stack can't run.[/] {escape(str(error))}")
        raise typer.Exit(1) from None


def _own_secrets() -> list[str]:
    """The names of the secrets in .dev.vars, which wrangler reads."""
    file = PROJECT / ".dev.vars"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return re.findall(r"^\s*(?:export\s+)?(\w+)\s*=", text, re.MULTILINE)


def end_on_signals() -> None:
    """Let SIGTERM and a closed terminal do what Ctrl-C does: raise KeyboardInterrupt, so that cleaning up happens."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _welcome(stack: Stack, moved: Mapping[str, int]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    notes = {name: f"[yellow]port {usual} was taken[/]" for name, usual in moved.items()}
    table.add_row("gate", f"[bold]{stack.gate}[/]", notes.get("gate", ""))
    table.add_row("OpenID provider", stack.provider, notes.get("provider", ""))
    table.add_row("sample upstream", stack.sample, notes.get("sample", ""))
    table.add_row("gate's log", str(stack.log), "")
    table.add_row("audit events", str(stack.audit), "")
    folder = "" if stack.directory == DEFAULT_DIRECTORY.resolve() else f"AIRGATE_DIR={stack.directory} "
    token = f"$({folder}.venv/bin/airgate token --client finance-etl)"
    console.print("\n[bold green]The gate is up.[/] Ctrl-C ends it.\n")
    console.print(table)
    entries = f"{stack.gate}/ledger/v1/entries"
    bearer = f'-H "Authorization: Bearer {token}"'
    console.print("\nTry:\n")
    for remark, command in (
        ("without a token: 401", f"curl -i {entries}"),
        ("with one: 200, and what reached the upstream", f"curl -i {bearer} \\\n    {entries}"),
        (
            "a write from a DAG that may not: 403",
            f'curl -i -X POST {bearer} \\\n    -H "Airgate-Dag-Id: sales_sync" {entries}',
        ),
        (
            "why was it denied? The answer's request_id tells",
            f"{folder}.venv/bin/airgate audit why REQUEST_ID",
        ),
        ("watch the gate decide, in another terminal", f"{folder}.venv/bin/airgate audit tail"),
    ):
        console.print(f"  # {remark}", style="dim")
        console.print(f"  {command}\n", soft_wrap=True, markup=False)
