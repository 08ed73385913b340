"""`airgate issuer check [NAME ...]`: what do the issuers of the seed publish, and what would a gate say of a token?

Exit codes: 0 fine, 1 problems (or the token is refused), 2 the question can't be answered. Notes change none of them.
"""

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from airgate.dev.stack import StackError, read_stack
from airgate.engine import Bundle, Issuer
from airgate.issuer.advice import Level, advise
from airgate.issuer.provider import Provider, ask
from airgate.issuer.verdict import STEPS, Verdict, judge, recognise
from airgate.policy.check import counted, report
from airgate.policy.compile import StandIns, compile_folder
from airgate.policy.seed import STARTER, SeedError, nearest, quoted

FINE, PROBLEMS, UNUSABLE = 0, 1, 2
MOST_TOKEN = 100_000  # characters that are read; the gate says itself what is too long


class Unanswerable(Exception):
    """The command can't do what it was asked. The message says what to write instead."""


def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Issuers of the seed; all of them when left out."),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Ask the running local stack's provider, which stands in.")
    ] = False,
    token: Annotated[
        str,
        typer.Option(
            "--token", metavar="FILE", help="Also judge the token in a file; - reads it from a pipe."
        ),
    ] = "",
    seed: Annotated[
        Path, typer.Option("--seed", metavar="DIR", help="The folder that holds the seed.")
    ] = STARTER,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="With --local: the stack's folder, as given to `airgate dev`."),
    ] = None,
) -> None:
    """Fetch what issuers publish, as a gate would, and say what is good about it and what isn't."""
    try:
        bundle, stood_in = _bundle(seed, local, directory)
        text = _token(token) if token else ""
    except SeedError as error:
        report(error, "No issuer is asked while the seed is invalid.")
        raise typer.Exit(UNUSABLE) from None
    except (StackError, Unanswerable) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(UNUSABLE) from None
    verdict, unverified = recognise(text, bundle) if text else (Verdict(), None)
    try:
        issuers = _chosen(names or [], bundle, stood_in, verdict if text else None)
    except Unanswerable as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(UNUSABLE) from None
    providers = {issuer.mapping.id: _ask(issuer) for issuer in issuers}
    problems = [_say(provider) for provider in providers.values()]
    if verdict.issuer is not None and unverified is not None:
        keyring = providers[verdict.issuer.mapping.id].keyring
        judge(verdict, unverified, verdict.issuer, keyring, time.time())
    if text:
        _say_verdict(verdict)
    raise typer.Exit(PROBLEMS if any(problems) or verdict.refused_at else FINE)


def _bundle(seed: Path, local: bool, directory: Path | None) -> tuple[Bundle, str]:
    """The compiled seed, and the local provider's address if that stands in. Raises SeedError and StackError."""
    if not local:
        return compile_folder(seed).engine.bundle, ""
    stack = read_stack(directory)
    return compile_folder(seed, StandIns(stack.provider, stack.sample)).engine.bundle, stack.provider


def _token(file: str) -> str:
    """The token in a file, or from standard input. Raises Unanswerable."""
    try:
        if file == "-":
            text = sys.stdin.read(MOST_TOKEN)
        else:
            with Path(file).open(encoding="utf-8") as source:
                text = source.read(MOST_TOKEN)
    except OSError as error:
        raise Unanswerable(f"{file}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Unanswerable(f"{file}: is not text; a token is") from None
    # Files have a line's end, and whoever copies a header has its first word too.
    bare = text.strip().removeprefix("Authorization:").strip()
    for scheme in ("Bearer ", "DPoP "):
        bare = bare.removeprefix(scheme)
    if not bare.strip():
        raise Unanswerable(f"{'standard input' if file == '-' else file}: is empty; expected one token")
    return bare.strip()


def _chosen(names: Sequence[str], bundle: Bundle, stood_in: str, verdict: Verdict | None) -> list[Issuer]:
    """The issuers to ask: those named and the token's, or else all. Raises Unanswerable."""
    by_name = {issuer.mapping.id: issuer for issuer in bundle.issuers.values()}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        known = ", ".join(sorted(by_name))
        raise Unanswerable(
            f"{quoted(unknown[0])}: no such issuer{nearest(unknown[0], by_name)}\nThe seed has: {known}"
        )
    chosen = [by_name[name] for name in dict.fromkeys(names)]
    if verdict is not None:
        own = [] if verdict.issuer is None or verdict.issuer in chosen else [verdict.issuer]
        return chosen + own
    if chosen:
        return chosen
    every = [by_name[name] for name in sorted(by_name)]
    if not stood_in:
        return every
    standing_in = [issuer for issuer in every if issuer.source.issuer == stood_in]
    if not standing_in:
        raise Unanswerable(
            "No issuer of this seed is marked with `local: provider`, so nothing stands in for one."
        )
    return standing_in


def _ask(issuer: Issuer) -> Provider:
    with _busy(f"Asking {issuer.source.issuer}"):
        return asyncio.run(ask(issuer, time.time()))


@contextmanager
def _busy(what: str) -> Iterator[None]:
    """Say at a terminal what is being waited for."""
    screen = Console(stderr=True)
    if not screen.is_terminal:
        yield
        return
    with screen.status(what):
        yield


def _say(provider: Provider) -> int:
    """Print what there is to say of one issuer. Returns how many problems there are."""
    name = provider.issuer.mapping.id
    typer.echo(f"{name}  {provider.issuer.source.issuer}")
    found = advise(provider)
    for advice in found:
        typer.echo(f"  {advice.level:<8} {advice.text}")
        if advice.to_do:
            typer.echo(f"  {'':<8}   {advice.to_do}")
    problems = sum(advice.level is Level.PROBLEM for advice in found)
    notes = sum(advice.level is Level.NOTE for advice in found)
    said = counted(problems, "problem") if problems else "fine"
    typer.echo(f"{name}: {said}" + (f"; {counted(notes, 'note')}" if notes else "") + "\n")
    return problems


def _say_verdict(verdict: Verdict) -> None:
    typer.echo("the token")
    for step in STEPS:
        if step == verdict.refused_at:
            said = f"{verdict.reason}: {verdict.detail}" if verdict.detail else str(verdict.reason)
            typer.echo(f"  {'REFUSED':<8} {step:<10} {said}")
            if verdict.to_do:
                typer.echo(f"  {'':<8}   {verdict.to_do}")
        elif step in verdict.passed:
            typer.echo(f"  {'ok':<8} {step:<10} {verdict.passed[step]}")
        else:
            typer.echo(f"  {'-':<8} {step:<10} not looked at")
    refused = f"refused: {verdict.reason}" if verdict.refused_at else "accepted"
    typer.echo(f"the token is {refused}")
