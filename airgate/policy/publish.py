"""`airgate policy publish`: compile a seed, show what it changes, sign it, and put it in force on a gate.

Exit codes: 0 published, or nothing to publish; 1 the store can't be reached, or broke off; 2 invalid, or no key to sign
with: nothing written; 3 refused: asked and answered no, somebody else was first, or the key isn't trusted.
"""

import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from airgate import acts  # which imports this package: nothing of it is there yet when this is read
from airgate.configuration import LOCAL
from airgate.dev.stack import Stack
from airgate.environment import (
    DONE,
    FAILED,
    INVALID,
    REFUSED,
    Environment,
    EnvironmentMissing,
    EnvOption,
    LocalEnvironment,
    YesOption,
    confirm,
    open_environment,
)
from airgate.moments import ahead
from airgate.node import NodeMissing, WranglerFailed
from airgate.policy import cases
from airgate.policy.changes import Comparison
from airgate.policy.check import Folder, counted, report, summary
from airgate.policy.compile import Compiled, StandIns, compile_folder
from airgate.policy.diff import conclude, show_change
from airgate.policy.findings import findings
from airgate.policy.gate import Gate
from airgate.policy.ledger import Entry, NotTrusted, require_trusted
from airgate.policy.output import console, printable, shown, watched
from airgate.policy.release import (
    Plan,
    Published,
    PublishError,
    Release,
    Say,
    commit_of,
    plan,
    policies,
    put_in_force,
    refuse_note,
)
from airgate.policy.seed import STARTER, SeedError, label
from airgate.policy.stored import alike
from airgate.signing_key import KeyMissing, KeyOption, SigningKey

__all__ = ["PublishError", "Published", "publish", "publish_local"]

UNWRITTEN = "Nothing was written. Run the same command again."

NoteOption = Annotated[
    str, typer.Option("--note", "--reason", help="Why, for whoever looks at the history later.")
]


def publish(
    directory: Folder = None,
    env: EnvOption = LOCAL,
    note: NoteOption = "",
    key: KeyOption = None,
    yes: YesOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what it would change, and write nothing. Needs no key.")
    ] = False,
) -> None:
    """Check and test a policy seed, show what it changes and which new access arises, and put it in force.

    Exits with 0 when it is in force; 1 when a store can't be reached; 2 when the seed is invalid or a case fails; 3
    when it is refused. Broken off at any point, it goes on when run again.
    """
    root = directory or STARTER
    with told(UNWRITTEN), progress() as say, ThreadPoolExecutor(1) as pool:
        refuse_note(note)
        environment = open_environment(env)
        signing = None if dry_run else signing_key(environment, key)
        in_force = pool.submit(acts.read, environment, time.time())  # takes a second, as compiling does
        compiled = _checked(root, stand_ins(environment), say)
        say(f"Reading what is in force on {env}")
        planned = plan(environment, Release(compiled, note, commit_of(root)))
        nothing = planned.nothing_new(signing)
        if not nothing:
            say("")
            seed = "" if root == STARTER else label(root)
            show_plan(environment, planned, console(), seed)
            for text in without_effect(in_force.result(), compiled, planned.at):
                _line(console(), text, "yellow")
        if dry_run:
            typer.echo("Nothing is written: this is what would happen." if not nothing else _same(planned))
            raise typer.Exit(DONE)
        if not nothing:
            confirm(environment, f"Publish number {planned.ledger.next} to {env}?", yes)
        published = put_in_force(environment, planned, signing, say)
    conclude_publish(environment, published, signing, console())


def publish_local(seed: Path, stack: Stack, note: str = "", *, say: Say = lambda _: None) -> Published:
    """Publish the seed in a folder to a local stack, whose servers stand in for what it marks with `local`.

    Signed with the stack's key. Raises SeedError (nothing is written then), PublishError, NodeMissing, WranglerFailed.
    """
    compiled = compile_folder(seed, StandIns(stack.provider, stack.sample))
    try:
        environment = LocalEnvironment(stack)
        signing = SigningKey.read(stack.signing_key)
    except (EnvironmentMissing, KeyMissing) as error:
        raise PublishError(str(error)) from None
    return publish_to(environment, compiled, note, signing, commit=commit_of(seed), say=say)


def publish_to(
    env: Environment,
    compiled: Compiled,
    note: str = "",
    key: SigningKey | None = None,
    *,
    commit: str = "",
    say: Say = lambda _: None,
) -> Published:
    """Put a compiled seed in force, asking nobody. Raises PublishError, NodeMissing and WranglerFailed."""
    return put_in_force(env, plan(env, Release(compiled, note, commit)), key, say)


def stand_ins(env: Environment) -> StandIns | None:
    """The servers that stand in for what a seed marks with `local`; only the local stack has any."""
    return StandIns(env.stack.provider, env.stack.sample) if isinstance(env, LocalEnvironment) else None


def signing_key(env: Environment, path: Path | None) -> SigningKey | None:
    """The key to sign with, and that the gate believes; None: it takes what is unsigned, and no key is named.

    Raises PublishError.
    """
    try:
        if isinstance(env, LocalEnvironment):  # AIRGATE_KEY is for elsewhere
            path = path or env.stack.signing_key
        key = SigningKey.read(path) if env.trusted is not None else SigningKey.given(path)
        require_trusted(env, key)
    except KeyMissing as error:
        raise PublishError(str(error), INVALID) from None
    except NotTrusted as error:
        raise PublishError(str(error), REFUSED) from None
    return key


def _checked(root: Path, local: StandIns | None, say: Say) -> Compiled:
    """The seed, compiled, after its findings were shown and all of its cases passed. Raises SeedError, PublishError."""
    compiled = compile_folder(root, local)  # which shows a bar of its own
    say(f"Checking {label(root)}")
    serious = sorted(finding for finding in findings(compiled) if not finding.note)
    say("")
    for finding in serious:
        typer.echo(str(finding.problem), err=True)
    gate = Gate(compiled.engine)
    failed = 0
    tried = cases.read(compiled, gate)
    for case in watched(tried, "Cases"):
        if found := cases.differences(case.expected, gate.answer(case.request)):
            failed += 1
            typer.echo(f"{case.place}: {case.name}")
            for each in found:
                typer.echo(f"  {each.what}: expected {each.expected}, came {each.came}")
    if failed:
        folder = "" if root == STARTER else f" {shlex.quote(label(root))}"
        raise PublishError(
            f"{failed} of {counted(len(tried), 'case')} failed, so nothing was written. "
            f"To look closer: airgate policy test{folder}",
            INVALID,
        )
    if not tried:
        typer.echo(f"{label(root)} holds no cases, so nothing was tried (docs/testing-policy.md).", err=True)
    return compiled


def show_plan(env: Environment, planned: Plan, screen: Console, seed: str | None) -> None:
    """Print what is in force, what would change, and which calls would be permitted that were not.

    `seed`: the folder for `airgate policy explain`, empty for kv-seed; None: there is none.
    """
    ledger, compiled = planned.ledger, planned.release.compiled
    _line(screen, f"{env.name}, number {ledger.next}: {_what(compiled)}", "bold")
    _line(screen, before(planned))
    for text in complaints(planned):
        _line(screen, text, "yellow")
    if planned.unread:
        _line(screen, f"It can't be compared: {planned.unread}. What access is new isn't known.", "yellow")
    elif planned.before is None:
        _line(screen, "So all access is new.")
    elif planned.before is compiled:
        _line(screen, "It is the same policy; the row in the ledger will be new, and so will its signature.")
    else:
        old, new = alike(planned.before, compiled)
        changes = Comparison(old, new, planned.at).changes(lambda asked: watched(asked, "Comparing"))
        for change in changes:
            show_change(change, screen, seed)
        for other in planned.changes:
            if other.noun == "time zone":
                _line(screen, f"\nchanged  time zone {other.name}: its offsets are worked out anew")
        conclude(changes, screen)


def without_effect(stored: Iterable["acts.Stored"], compiled: Compiled, now: float) -> Iterator[str]:
    """The acts in force that name what a policy set lacks: they do nothing while it is in force."""
    bundle = compiled.bundle
    names = {rule.id for rules in compiled.rules.values() for rule in rules}
    known = {"issuer": bundle["issuers"], "role": bundle["roles"], "policy": names}
    for one in stored:
        if one.act is None or one.standing(now) not in (acts.Standing.IN_FORCE, acts.Standing.TO_COME):
            continue
        named = [*one.act.match, *one.act.to, ("role", one.act.role), ("policy", one.act.policy)]
        lacking = [
            f"{noun} {name}" for noun, name in named if name and noun in known and name not in known[noun]
        ]
        if lacking:
            what, command = ("revocation", "revoke") if one.act.act == "revoke" else ("grant", "grant")
            yield (
                f"The {what} {one.id[: acts.SHOWN_ID]} will have no effect: this policy has no "
                f"{printable(lacking[0])}. See airgate {command} list"
            )


def before(planned: Plan) -> str:
    """What is in force, in a sentence."""
    entry = planned.ledger.in_force
    if entry is not None:
        why = f": {entry.why}" if entry.why else ""
        return f"In force: number {entry.number}, of {entry.by}, {ahead(entry.at, planned.at)}{why}"
    return "Nothing is in force yet."


def complaints(planned: Plan) -> Iterator[str]:
    """What is wrong with the ledger, and what becomes of it."""
    ledger = planned.ledger
    for entry in ledger.entries:
        if entry.counts:
            break
        yield (
            f"Number {entry.number} of the ledger doesn't count: {entry.doubt}. Gates refuse it, and "
            f"publishing writes number {ledger.next} above it. {suspicion(entry)}"
        )
    if ledger.lost and ledger.copy is not None:
        yield (
            f"D1 has lost rows: it ends with number {ledger.newest}, and KV has a signed copy of "
            f"{ledger.copy.number}. Publishing goes on with number {ledger.next}."
        )


def suspicion(entry: Entry) -> str:
    """What to make of an entry that doesn't count."""
    if entry.pointer is None:
        unless = ""
    else:
        before = (
            "its key was trusted then"
            if entry.signed.key
            else "it was published before keys were trusted here"
        )
        unless = f"Unless {before}, "
    text = f"{unless}somebody has written to D1 beside these commands: find out who."
    return text[0].upper() + text[1:]


def conclude_publish(env: Environment, published: Published, key: SigningKey | None, screen: Console) -> None:
    """Print what came of it."""
    version = f"bundle {published.bundle[:12]}"
    if not published.written:
        _line(screen, f"Nothing changed: number {published.sequence}, {version}, is in force already.")
        if published.mended:
            _line(screen, f"What was missing in KV is written: {', '.join(published.mended)}")
        return
    signed = f"signed by {key.name}" if key is not None else "not signed"
    _line(screen, f"Published number {published.sequence} to {env.name}: {version}, {signed}.", "bold")
    _line(screen, "Gates that are in use have it within seconds, others with their next call.")
    if env.trusted is None:
        _line(
            screen,
            f"{env.gate} trusts no keys, so whoever can write to D1 can publish: airgate keys trust --help",
            "yellow",
        )


def _same(planned: Plan) -> str:
    return f"Nothing would change: number {planned.ledger.newest} is this very policy."


def _what(compiled: Compiled) -> str:
    if compiled.seed.policies:
        return summary(compiled.seed)
    return f"{counted(policies(compiled), 'policy')}, bundle {compiled.sha256[:12]}"


def _line(screen: Console, text: str, style: str = "") -> None:
    screen.print(Text(text, style), soft_wrap=True)


@contextmanager
def told(otherwise: str = "") -> Iterator[None]:
    """Say what is wrong in place of a traceback, and exit as commands that write do.

    `otherwise`: what to add when a store can't be read.
    """
    try:
        yield
    except SeedError as error:
        report(error, "Nothing was written.")
        raise typer.Exit(INVALID) from None
    except PublishError as error:
        typer.echo(shown(str(error)), err=True)
        raise typer.Exit(error.status) from None
    except WranglerFailed as error:
        typer.echo(shown("\n".join(filter(None, [str(error), otherwise]))), err=True)
        raise typer.Exit(FAILED) from None
    except (EnvironmentMissing, NodeMissing) as error:
        typer.echo(shown(str(error)), err=True)
        raise typer.Exit(FAILED) from None


@contextmanager
def progress() -> Iterator[Say]:
    """Something to say with what is being done: on one line of a terminal, in lines of standard error elsewhere.

    An empty text takes the line away.
    """
    screen = Console(stderr=True, highlight=False)
    if not screen.is_terminal:
        yield lambda text: print(text, file=sys.stderr) if text else None
        return
    status = screen.status("")

    def say(text: str) -> None:
        status.update(Text(f"{text} …", "dim"))
        status.start() if text else status.stop()

    try:
        yield say
    finally:
        status.stop()
