"""`airgate policy rollback`: put back in force what was in force before, under a new number.

Exit codes: 0 it is in force, or was already; 1 the store can't be reached, or lacks some of it; 2 there is no such
number, or no key; 3 refused: asked and answered no, somebody else was first, or nobody vouches for that entry.
"""

from typing import Annotated

import typer

from airgate.configuration import LOCAL
from airgate.environment import INVALID, REFUSED, Environment, EnvOption, YesOption, confirm, open_environment
from airgate.moments import clock
from airgate.policy.ledger import Entry, Ledger, read_entries, read_entry, read_ledger
from airgate.policy.output import console
from airgate.policy.publish import (
    UNWRITTEN,
    NoteOption,
    PublishError,
    conclude_publish,
    progress,
    show_plan,
    signing_key,
    told,
)
from airgate.policy.release import Release, plan, put_in_force
from airgate.policy.stored import StoredError, read_stored
from airgate.signing_key import KeyOption


def rollback(
    number: Annotated[
        int | None,
        typer.Argument(
            metavar="[NUMBER]",
            help="The number to go back to, from `airgate policy history`; the one before when left out.",
        ),
    ] = None,
    env: EnvOption = LOCAL,
    note: NoteOption = "",
    key: KeyOption = None,
    yes: YesOption = False,
) -> None:
    """Put back in force what was in force before: the same bundle, under a new number.

    Nothing is compiled: what was signed and stored then counts again. All of it has to be in KV still, whole, and
    such that the gate takes it.
    """
    with told(UNWRITTEN), progress() as say:
        environment = open_environment(env)
        signing = signing_key(environment, key)
        say(f"Reading the ledger of {env}")
        ledger = read_ledger(environment)
        target = chosen(environment, ledger, number)
        current = ledger.in_force
        if current is not None and target.number == current.number == ledger.newest:
            say("")
            typer.echo(f"Nothing changed: number {target.number} is in force already.")
            return
        say(f"Reading number {target.number}")
        planned = plan(environment, release(environment, target, note), ledger)
        say("")
        screen = console()
        typer.echo(
            f"Back to number {target.number}, of {target.by}, {clock(target.at)}"
            + (f": {target.why}" if target.why else "")
        )
        if not planned.nothing_new(signing):
            show_plan(environment, planned, screen, None)
            confirm(environment, f"Put number {target.number} back in force on {env}?", yes)
        published = put_in_force(environment, planned, signing, say)
    conclude_publish(environment, published, signing, screen)


def chosen(env: Environment, ledger: Ledger, number: int | None) -> Entry:
    """The entry to go back to. Without a number: the newest one with another bundle than the one in force.

    Raises PublishError.
    """
    current = ledger.in_force
    if current is None:
        raise PublishError(
            f"Nothing is in force on {env.name}, so there is nothing to go back from.", INVALID
        )
    if number is None:
        before = _before(current, ledger.entries) or _before(current, read_entries(env))
        if before is not None:
            return before
        raise PublishError(
            f"Nothing but bundle {current.bundle[:12]} has ever been in force on {env.name}.", INVALID
        )
    known = [current, *ledger.entries]  # KV's copy may be all there is of the one in force
    found = next((entry for entry in known if entry.number == number), None) or read_entry(env, number)
    if found is None:
        raise PublishError(
            f"The ledger of {env.name} has no number {number}. What it has: airgate policy history --env {env.name}",
            INVALID,
        )
    if not found.counts:
        raise PublishError(
            f"Number {number} doesn't count: {found.doubt}. So nobody vouches for what it names.{_instead(found)}",
            REFUSED,
        )
    return found


def _before(current: Entry, entries: list[Entry]) -> Entry | None:
    return next(
        (
            entry
            for entry in entries
            if entry.counts and entry.number < current.number and entry.bundle != current.bundle
        ),
        None,
    )


def release(env: Environment, target: Entry, note: str) -> Release:
    """What was in force under an entry, read back from KV. Raises PublishError unless all of it is there, and whole."""
    try:
        compiled = read_stored(env, target.bundle)
    except StoredError as error:
        raise PublishError(f"Number {target.number} can't be put back: {error}.{_instead(target)}") from None
    return Release(compiled, note, target.document["commit"], target.number, stored=True)


def _instead(entry: Entry) -> str:
    return f" Publish it from git instead: commit {entry.commit}." if entry.commit else ""
