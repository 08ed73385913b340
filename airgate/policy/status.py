"""`airgate policy status`: what is in force where, and whether it is what the repository says.

Exit codes: 0 ledger, KV, gate and repository agree; 1 something differs, or can't be reached (it is said what, and what
to do); 2 the seed is invalid.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.text import Text

from airgate.configuration import LOCAL
from airgate.environment import DONE, FAILED, Environment, EnvOption, open_environment
from airgate.moments import span
from airgate.policy.check import Folder, counted
from airgate.policy.compile import Compiled, compile_folder
from airgate.policy.history import gap
from airgate.policy.ledger import Entry, Ledger
from airgate.policy.output import console, printable, show, table
from airgate.policy.publish import progress, stand_ins, suspicion, told
from airgate.policy.release import Plan, Release, plan
from airgate.policy.seed import STARTER, label

HEALTH = "/-/health"
TIMEOUT = 10.0  # seconds
MOST_NAMED = 5  # differences


@dataclass(frozen=True)
class Said:
    """One line: about what, what is so, and what to do if that isn't as it should be."""

    about: str
    text: str
    mend: str = ""


def status(
    directory: Folder = None,
    env: EnvOption = LOCAL,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="A token that the gate's policy lets see its health report: which number this gate has.",
        ),
    ] = None,
) -> None:
    """Show what is in force, on which gate, for how long, and whether it is what the repository says.

    Exits with 0 when ledger, KV, gate and repository agree, 1 when something differs or can't be reached.
    """
    root = directory or STARTER
    with told(), progress() as say:
        environment = open_environment(env)
        compiled = compile_folder(root, stand_ins(environment))
        say(f"Reading what is in force on {env}")
        planned = plan(environment, Release(compiled))
        say("Asking the gate")
        answer = asked(environment.address, _token(token_file))
    lines = [
        *of_ledger(environment, planned.ledger, planned.at),
        *of_copy(environment, planned.ledger),
        *of_gate(environment, planned.ledger, answer),
        *of_repository(environment, planned, compiled, root),
    ]
    grid = table("", "")
    grid.show_header = False
    for line in lines:
        grid.add_row(Text(line.about), Text(line.text, "yellow" if line.mend else ""))
    screen = console()
    screen.print(Text(f"{env}: gate {environment.gate}", "bold"), soft_wrap=True)
    show(grid, screen)
    for mend in dict.fromkeys(line.mend for line in lines if line.mend):
        screen.print(Text(mend), soft_wrap=True)
    raise typer.Exit(FAILED if any(line.mend for line in lines) else DONE)


def of_ledger(env: Environment, ledger: Ledger, now: float) -> Iterator[Said]:
    """What the ledger says is in force, and what in it doesn't count."""
    publish = f"Publish: airgate policy publish --env {env.name}"
    for entry in ledger.entries:
        if entry.counts:
            break
        yield Said(
            "ledger",
            f"number {entry.number} doesn't count: {entry.doubt}",
            f"{suspicion(entry)} Then publish above it: airgate policy publish --env {env.name}",
        )
    if ledger.lost and ledger.copy is not None:
        yield Said(
            "ledger", f"ends with {ledger.newest}; D1 has lost rows up to {ledger.copy.number}", publish
        )
    if ledger.in_force is not None:
        yield Said("in force", _entry(ledger.in_force, now))
        if env.trusted is None:
            yield Said(
                "",
                f"{env.gate} trusts no keys: whoever can write to D1 can publish",
                "Trust a key: airgate keys trust --help, then airgate deploy",
            )
    else:
        yield Said("in force", "nothing", publish)
    numbers = [entry.number for entry in ledger.entries]
    missing = [gap(other + 1, one - 1) for one, other in pairwise(numbers) if one - other > 1]
    if missing:
        yield Said("", f"numbers that the ledger lacks, of the newest {len(numbers)}: {', '.join(missing)}")


def of_copy(env: Environment, ledger: Ledger) -> Iterator[Said]:
    """Whether KV's copy is the newest row."""
    again = f"Publish again; it writes the copy: airgate policy publish --env {env.name}"
    if not ledger.entries:
        return
    if ledger.copied:
        yield Said("KV's copy", "the same")
    elif ledger.copy is None:
        yield Said("KV's copy", "not there, or unreadable", again)
    elif not ledger.copy.counts:
        yield Said("KV's copy", f"doesn't count: {ledger.copy.doubt}", again)
    elif ledger.copy.verified and ledger.copy.number == ledger.newest and ledger.entries[0].counts:
        yield Said(
            "KV's copy",
            f"another document of number {ledger.newest}, and rightly signed as well",
            "Two were signed for one number, and somebody has put the second in the place of the first: find out who. "
            f"Then publish what is meant: airgate policy publish --env {env.name}",
        )
    else:
        yield Said("KV's copy", f"number {ledger.copy.number}", again)


def of_gate(env: Environment, ledger: Ledger, answer: dict[str, Any] | str | None) -> Iterator[Said]:
    """What the gate itself says. `answer`: of its health page; a text: why there is none; None: it wasn't asked."""
    if answer is None:
        yield Said("gate", "not asked: wrangler.toml doesn't say where it answers (ADDRESS)")
        return
    if isinstance(answer, str):
        yield Said("gate", answer, f"Look whether {env.address} is the gate, and runs.")
        return
    version = f", version {printable(str(answer['version']))}" if answer.get("version") else ""
    state = printable(str(answer.get("status")))
    wrong = "" if state == "ok" else "The gate can't decide: look at its log for events `bundle` and `view`."
    yield Said("gate", f"{state}{version}, at {env.address}", wrong)
    bundle, view = answer.get("bundle"), answer.get("view")
    if not isinstance(bundle, dict):
        yield Said("", "which number it has, it tells only with --token-file, to whom policy lets see it")
        return
    entry = ledger.in_force
    behind = entry is not None and bundle.get("sequence") != entry.number
    age = f", its view {view['age']} s old" if isinstance(view, dict) and view.get("age") is not None else ""
    yield Said(
        "",
        printable(f"has number {bundle.get('sequence')}, bundle {bundle.get('version')}{age}"),
        "The gate has another number than the ledger: ask again in 10 s. If it stays so, look at its log."
        if behind
        else "",
    )
    if bundle.get("error"):
        yield Said(
            "", printable(str(bundle["error"])), "The gate says what is wrong with what it reads, above."
        )
    for warning in answer.get("warnings") or ():
        yield Said("", printable(str(warning)))


def of_repository(env: Environment, planned: Plan, compiled: Compiled, root: Path) -> Iterator[Said]:
    """Whether the repository's policy is the one in force."""
    name, entry = label(root), planned.ledger.in_force
    folder = "" if root == STARTER else f" {shlex.quote(name)}"
    if entry is None:
        return
    if planned.unread:
        yield Said(
            name,
            f"can't be compared: {planned.unread}",
            f"Publish again: airgate policy publish --env {env.name}",
        )
    elif entry.bundle == compiled.sha256:
        yield Said(name, "the same as in force")
    else:
        changes = [str(change) for change in planned.changes] or ["only in how it is written down"]
        more = f", and {len(changes) - MOST_NAMED} more" if len(changes) > MOST_NAMED else ""
        yield Said(
            name,
            f"differs from what is in force ({counted(len(changes), 'difference')}): "
            + "; ".join(changes[:MOST_NAMED])
            + more,
            f"What publishing would change: airgate policy publish{folder} --env {env.name} --dry-run",
        )


def asked(address: str | None, token: str | None) -> dict[str, Any] | str | None:
    """The gate's health page; a text says why there is none, None that nobody knows where it is."""
    if address is None:
        return None
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    try:
        answer = httpx.get(address.rstrip("/") + HEALTH, headers=headers, timeout=TIMEOUT)
        document = answer.json()
    except httpx.HTTPError as error:
        return f"{address} can't be reached: {error or type(error).__name__}"
    except ValueError:
        return f"{address}{HEALTH} answers {answer.status_code}, and not as a gate does"
    if not isinstance(document, dict) or "status" not in document:
        return f"{address}{HEALTH} answers {answer.status_code}, and not as a gate does"
    return document


def _entry(entry: Entry, now: float) -> str:
    why = f": {entry.why}" if entry.why else ""
    commit = f", commit {entry.commit}" if entry.commit else ""
    signed = "signed by" if entry.verified else "published by"
    return (
        f"number {entry.number}, bundle {entry.bundle[:12]}, {signed} {entry.by} {span(now - entry.at)} ago"
        f"{commit}{why}"
    )


def _token(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text("utf-8").strip()
    except OSError as error:
        raise typer.BadParameter(f"{file}: can't be read: {error.strerror}") from None
