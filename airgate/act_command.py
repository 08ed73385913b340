"""What `airgate revoke` and `airgate grant` have in common: times, the plan that is shown first, lists, taking back.

Exit codes of both: 0 done; 1 failed, and says what is written already; 2 invalid, 3 refused: nothing was written.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from airgate import acts
from airgate.acts import SHOWN_ID, ActInvalid, Standing, Stored
from airgate.engine import Act
from airgate.environment import Environment, confirm, open_environment
from airgate.moments import ahead, clock, length, moment
from airgate.policy.output import console, printable, show, table
from airgate.signing_key import SigningKey

ForOption = Annotated[str, typer.Option("--for", metavar="TIME", help="For how long: 90m, 4h, 2d.")]
UntilOption = Annotated[
    str, typer.Option("--until", metavar="TIME", help="Or until when, with its zone: 2026-11-22T08:00+01:00.")
]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why. It stays on record.")]
ByOption = Annotated[
    str,
    typer.Option("--by", metavar="NAME", help="For whom you do it; stands behind the key's or your name."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs: a list of objects.")]
AllOption = Annotated[bool, typer.Option("--all", help="Those that are over, or were taken back, too.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Its id, or how that begins.")]

Rows = Callable[[Act], str]


def end_of(for_: str, until: str, begins: int) -> int | None:
    """The end that --for and --until say; None when neither is given. Raises ActInvalid."""
    if for_ and until:
        raise ActInvalid("--for and --until are one too many: give one of them.")
    try:
        end = begins + length(for_) if for_ else moment(until) if until else None
    except ValueError as error:
        raise ActInvalid(f"{'--for' if for_ else '--until'}: {error}") from None
    if end is not None and end <= begins:
        raise ActInvalid(f"--until: {until} is over already.")
    return end


def refuse_no_reason(reason: str) -> None:
    """Raises ActInvalid."""
    if not reason.strip():
        raise ActInvalid("Say why: --reason TEXT. It stays on record, with who did it.")


def progress(text: str) -> None:
    """What takes a second or two now."""
    typer.echo(text, err=True)


def put(
    env: Environment,
    title: str,
    plan: Mapping[str, str],
    document: str,
    key: SigningKey | None,
    yes: bool,
    undo: Callable[[str], str] = lambda _: "",
) -> None:
    """Say what will be done, ask, and do it. `undo`: how to take back the act of an id. Raises acts.EXPECTED."""
    typer.echo(f"{title} at {env.gate} ({env.name}):")
    width = max(map(len, plan)) + 2
    for label, value in plan.items():
        first, *more = value.splitlines()
        typer.echo(f"  {label + ':':<{width}}{first}")
        for line in more:
            typer.echo(" " * (width + 2) + line)
    confirm(env, "Do it?", yes)
    progress("Writing to D1 …")
    name = acts.write(env, document, key)
    try:
        typer.echo(f"\nDone: {name[:SHOWN_ID]}.\n{acts.soon(env)}\n{undo(name[:SHOWN_ID])}".rstrip())
        progress("Writing the copy in KV …")
        warning = acts.write_copy(env, time.time())
    except KeyboardInterrupt:
        raise acts.CopyFailed(acts.without_copy(env, "interrupted")) from None
    if warning:
        typer.echo(warning, err=True)


def written_by(by: str, key: SigningKey | None) -> str:
    """Who does it, for the plan."""
    return f"{by} (signed: {key.kid})" if key else f"{by} (not signed)"


def take_back(
    kind: str, beginning: str, reason: str, by: str, env_name: str, key: Path | None, yes: bool, says: Rows
) -> None:
    """Lift a revocation, or end a grant. Raises acts.EXPECTED."""
    refuse_no_reason(reason)
    env, now = open_environment(env_name), time.time()
    signing = acts.signing_key(env, key, opens=kind == "revoke")
    progress("Reading D1 …")
    act = acts.named(acts.read(env, now), beginning, kind, now)
    author = acts.author(env, signing, by)
    verb, title = ("lift", "Lift the revocation") if kind == "revoke" else ("end", "End the grant")
    document = acts.compose(
        env, verb, now, {"of": act.id, "until": act.until, "by": author, "reason": reason.strip()}
    )
    plan = {
        "what": f"{act.id[:SHOWN_ID]}: {says(act)}",
        "which was": f"until {ahead(act.until, now)}, by {printable(act.by)}: {printable(act.reason)}",
        "reason": reason.strip(),
        "by": written_by(author, signing),
    }
    put(env, title, plan, document, signing, yes)


def print_list(stored: Sequence[Stored], kind: str, says: Rows, *, every: bool, as_json: bool) -> None:
    """The acts of a kind, newest first; those that count, or all."""
    now = time.time()
    kept = [
        one
        for one in reversed(stored)
        if (every if one.act is None else one.act.act == kind)
        and (every or one.standing(now) in (Standing.IN_FORCE, Standing.TO_COME, Standing.REFUSED))
    ]
    if as_json:
        typer.echo(json.dumps([_members(one, now) for one in kept], indent=2, ensure_ascii=False))
        return
    noun = "revocation" if kind == "revoke" else "grant"
    if not kept:
        typer.echo(f"No {noun}{' was ever made' if every else ' is in force'}.")
        return
    grid = table("id", "standing", noun, "until", "by", "reason")
    for one in kept:
        grid.add_row(*map(Text, _cells(one, now, says)))
    show(grid, console())


def _cells(one: Stored, now: float, says: Rows) -> tuple[str, ...]:
    if one.act is None:
        return one.id[:SHOWN_ID], f"refused: can't be read: {printable(one.refused)}", "", "", "", ""
    by = printable(one.act.by)
    return (
        one.id[:SHOWN_ID],
        _standing(one, now),
        says(one.act),
        clock(one.act.until),
        by if one.by_key and by.startswith(one.by_key) else f"{by} ({one.by_key or 'not signed'})",
        printable(one.act.reason),
    )


def _standing(one: Stored, now: float) -> str:
    standing = one.standing(now)
    if standing is Standing.REFUSED:
        return f"refused: {printable(one.refused)}"
    if one.undone is not None and one.undone.act is not None:
        undone = one.undone.act
        verb = "lifted" if undone.act == "lift" else "ended"
        return f"{verb} {clock(undone.at)} by {printable(undone.by)}: {printable(undone.reason)}"
    if standing is Standing.TO_COME and one.act is not None:
        return f"from {clock(one.act.begins)}"
    return str(standing)


def _members(one: Stored, now: float) -> dict[str, Any]:
    return {
        "id": one.id,
        "standing": str(one.standing(now)),
        "signed_by": one.by_key or None,
        "refused": one.refused or None,
        "document": one.document,
        "taken_back": None if one.undone is None else {"id": one.undone.id, **one.undone.document},
    }
