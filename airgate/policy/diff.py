"""`airgate policy diff`: which calls are permitted now that were not, and the other way round.

Exit codes: 0 no new access, which is proved; 1 new access, or nobody can tell; 2 invalid.
"""

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from airgate.policy.changes import Change, Comparison, Difference
from airgate.policy.check import counted, report
from airgate.policy.evidence import Evidence
from airgate.policy.output import console, watched
from airgate.policy.revision import RevisionError, compiled, seed_folder
from airgate.policy.seed import STARTER, SeedError, label

NO_NEW_ACCESS, NEW_ACCESS, INVALID = 0, 1, 2

_STYLE = {"added": "green", "removed": "red", "changed": "yellow"}


def diff(
    old: Annotated[
        str, typer.Argument(metavar="OLD", help="A folder, or a git revision such as HEAD~1 or main.")
    ],
    new: Annotated[
        str | None, typer.Argument(metavar="[NEW]", help="The same; the folder as it is, when left out.")
    ] = None,
) -> None:
    """Compare two policy sets by the calls they permit, and show a call for every policy that permits more or less.

    Exits with 0 when there is no new access, which is proved; 1 when there is, or when nobody can tell; 2 when a
    seed is invalid.
    """
    folders = [Path(name) for name in (new, old) if name is not None and Path(name).is_dir()]
    beside = folders[0] if folders else STARTER
    since = int(time.time())
    try:
        with (
            seed_folder(old, beside) as (old_folder, old_name),
            seed_folder(str(beside) if new is None else new, beside) as (new_folder, new_name),
        ):
            before, after = compiled(old_folder, old_name), compiled(new_folder, new_name)
    except RevisionError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(INVALID) from None
    except SeedError as error:
        report(error)
        raise typer.Exit(INVALID) from None
    changes = Comparison(before, after, since).changes(lambda questions: watched(questions, "comparing"))
    screen = console()
    seed = None if new is not None and not Path(new).is_dir() else "" if beside == STARTER else label(beside)
    screen.print(Text(f"{old_name} → {new_name}"), soft_wrap=True)
    for change in changes:
        show_change(change, screen, seed)
    raise typer.Exit(conclude(changes, screen))


def show_change(change: Change, screen: Console, seed: str | None) -> None:
    """Print a change. `seed`: the folder of the newer policies, empty for kv-seed; None: there is none to `explain`."""
    head = Text("\n")
    head.append(f"{change.what:<9}", _STYLE[change.what]).append(f"{change.section} {change.name}", "bold")
    screen.print(head, soft_wrap=True)
    details = change.details or ["the words are the same; roles or issuers give them another meaning"]
    for detail in details:
        _line(screen, f"  {detail}")
    for why in change.opens:
        _line(screen, f"  + {why}", "red")
    if change.gained is not None:
        _line(screen, f"  + permits more: {change.gained.known.title}", "red")
        _difference(change.gained, screen, seed)
    for why in dict.fromkeys(change.unknown):
        _line(screen, f"  ? whether it permits more is not known: {why}", "yellow")
    if change.lost is not None:
        _line(screen, f"  - permits less: {change.lost.known.title}", "green")
        _difference(change.lost, screen, seed)


def _line(screen: Console, text: str, style: str = "") -> None:
    screen.print(Text(text, style), soft_wrap=True)


def _difference(difference: Difference, screen: Console, seed: str | None) -> None:
    known = difference.known
    for line in known.lines():
        _line(screen, f"      {line}")
    if not difference.of_one_caller:
        _line(screen, f"      token: {json.dumps(difference.request.claims, ensure_ascii=False)}")
    _line(screen, f"      was {_decided(difference.before)}; is {_decided(difference.after)}")
    if seed is not None and (command := known.command(seed, by_roles=difference.of_one_caller)):
        _line(screen, f"      {command}")


def _decided(side: Evidence | None) -> str:
    return "refused before policy was asked" if side is None else side.decided


def _policies(number: int, verb: str) -> str:
    return counted(number, "policy") + (f" {verb}s" if number == 1 else f" {verb}")


def conclude(changes: list[Change], screen: Console) -> int:
    """Print what the changes come to. Returns NO_NEW_ACCESS or NEW_ACCESS."""
    gained = sum(change.gained is not None for change in changes)
    opened = sum(bool(change.opens) for change in changes)
    unknown = sum(bool(change.unknown) and change.gained is None for change in changes)
    lost = sum(change.lost is not None for change in changes)
    parts = []
    if gained:
        parts.append(f"New access: {_policies(gained, 'let')} calls through that were denied.")
    if opened:
        parts.append(f"New access by {counted(opened, 'change')} beside the conditions of policies (+).")
    if unknown:
        parts.append(f"Not known of {counted(unknown, 'policy')}: look at what is permitted there.")
    if not parts:
        parts.append("No new access: proved for every call there could be.")
    if lost:
        parts.append(f"Less access: by {counted(lost, 'policy')}.")
    if not changes:
        parts = ["No difference, so no new access."]
    screen.print(Text("\n" + " ".join(parts)), soft_wrap=True)
    return NEW_ACCESS if gained or opened or unknown else NO_NEW_ACCESS
