"""`airgate policy history`: who has put what in force, when and why, newest first. Every signature is checked.

Exit codes: 0 shown, also when some of it can't be verified (which is said); 1 the store can't be reached.
"""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from airgate.configuration import LOCAL
from airgate.environment import Environment, EnvOption, open_environment
from airgate.moments import clock
from airgate.policy.check import counted
from airgate.policy.ledger import Entry, read_entries
from airgate.policy.output import console, show, table
from airgate.policy.publish import progress, told


def history(
    env: EnvOption = LOCAL,
    number: Annotated[
        int, typer.Option("-n", "--number", min=1, help="How many entries, from the newest.")
    ] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One object a line.")] = False,
) -> None:
    """Show who has put what in force, when and why, and which entries nobody vouches for."""
    with told(), progress() as say:
        environment = open_environment(env)
        say(f"Reading the ledger of {env}")
        entries = read_entries(environment, number + 1)
    older = entries[number:]
    entries = entries[:number]
    if as_json:
        for entry in entries:
            typer.echo(json.dumps(described(environment, entry), ensure_ascii=False))
        return
    show_history(environment, entries, bool(older), console())


def show_history(env: Environment, entries: list[Entry], more: bool, screen: Console) -> None:
    """Print entries, newest first. `more`: there are older ones."""
    if not entries:
        typer.echo(f"The ledger of {env.name} is empty: airgate policy publish --env {env.name}")
        return
    grid = table("number", "published", "by", "policies", "commit", "why")
    expected = entries[0].number
    for entry in entries:
        if entry.number < expected:
            grid.add_row(gap(entry.number + 1, expected), "", "", "", "", Text("not there", "yellow"))
        expected = entry.number - 1
        grid.add_row(*_row(env, entry))
    show(grid, screen)
    for text in notes(env, entries):
        screen.print(Text(text, "yellow"), soft_wrap=True)
    if more:
        screen.print(f"Older ones: airgate policy history --env {env.name} -n {len(entries) * 5}")


def _row(env: Environment, entry: Entry) -> list[str | Text]:
    if entry.pointer is None:
        return [_number(entry), "", "", "", "", Text(_doubt(entry), "red")]
    document = entry.document
    why = entry.why
    if not entry.counts:
        why = f"{_doubt(entry)}{f' ({why})' if why else ''}"
    by = entry.by
    if env.trusted is not None and not entry.verified:
        by += " (not verified)"
    return [
        _number(entry),
        clock(entry.at),
        by,
        f"{document['policies']}{_changed(document)}",
        entry.commit,
        Text(why, "" if entry.counts else "red"),
    ]


def notes(env: Environment, entries: list[Entry]) -> Iterator[str]:
    """What a reader should know of the list as a whole."""
    if env.trusted is None:
        yield f"{env.gate} trusts no keys: nobody vouches for who published. See airgate keys trust --help"
    elif unverified := [entry for entry in entries if not entry.verified]:
        yield (
            f"{counted(len(unverified), 'entry')} can't be verified (!). Such a row was written beside the command, or "
            "signed with a key that isn't trusted any more."
        )
    if any(one.number - other.number > 1 for one, other in pairwise(entries)):
        yield "Numbers are missing: D1 has lost rows, or somebody has deleted them."


def gap(first: int, last: int) -> str:
    """Numbers that aren't there."""
    return str(first) if first == last else f"{first}-{last}"


def described(env: Environment, entry: Entry) -> dict[str, Any]:
    """An entry for a program: the document's members, and what was found out about it."""
    document = {name: value for name, value in entry.document.items() if name not in ("format", "sequence")}
    return {
        "sequence": entry.number,
        **document,
        "env": env.name,
        "key": entry.signed.key or None,
        "verified": entry.verified,
        "counts": entry.counts,
        "doubt": entry.doubt or None,
    }


def _changed(document: dict[str, Any]) -> str:
    """Policies added, changed and removed: `  +1 ~2`."""
    signs = (("+", "added"), ("~", "changed"), ("-", "removed"))
    parts = [f"{sign}{document[name]}" for sign, name in signs if document[name]]
    return "  " + " ".join(parts) if parts else ""


def _number(entry: Entry) -> Text:
    return Text(f"{entry.number}" + ("" if entry.counts else " !"), "" if entry.counts else "red")


def _doubt(entry: Entry) -> str:
    return f"doesn't count: {entry.doubt}"
