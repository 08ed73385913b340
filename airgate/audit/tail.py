"""`airgate audit tail`: the gate's decisions as they are made, a line each with what came of it.

Exit codes: 0 ended with Ctrl-C; 1 wrangler ended by itself; 2 there is nothing to follow.
"""

import signal
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from airgate.audit.control import KINDS, change
from airgate.audit.fields import fact, moment, text
from airgate.audit.following import File, Log, Tail
from airgate.audit.lookup import Event
from airgate.audit.source import parsed
from airgate.audit.timeline import Call
from airgate.audit.trace import place, result
from airgate.configuration import LOCAL, ConfigurationError, read_configuration
from airgate.dev.stack import StackError, read_stack
from airgate.environment import EnvOption
from airgate.node import NodeMissing
from airgate.policy.output import console, printable
from airgate.policy.recorded import RecordError

ENDED, BROKE_OFF, INVALID = 0, 1, 2

WAIT = 3.0  # seconds that a line waits for its outcome
MOST_WAITING = 10_000
LOOK = 0.25  # seconds
LEGEND = "A DAG with ? behind it is only claimed by its caller"
NARROW = 140  # columns, below which a reason is told by its code alone
CRAMPED = 110  # columns, below which of a DAG's call nobody but the DAG is told
BEFORE = 20  # lines of the log that are read first


@dataclass(frozen=True)
class Filter:
    """Which calls are shown. Names may hold `*`."""

    denied: bool = False
    dag: str | None = None
    upstream: str | None = None
    subject: str | None = None

    @property
    def everything(self) -> bool:
        return self == Filter()

    def wants(self, event: Event) -> bool:
        """Whether a decision is one of them."""
        dag = fact(event, "dag")
        pairs = (
            (self.dag, None if dag is None else dag[0]),
            (self.upstream, text(event, "upstream")),
            (self.subject, text(event, "subject")),
        )
        if self.denied and event.get("decision") != "deny":
            return False
        return all(
            wanted is None or (value is not None and fnmatchcase(value, wanted)) for wanted, value in pairs
        )


@dataclass
class Board:
    """Decisions that wait for their outcome, so that both stand on one line."""

    chosen: Filter
    waiting: dict[str, tuple[float, Call]] = field(default_factory=dict)  # by request: since when, and which
    shown: dict[str, Call] = field(default_factory=dict)  # without their outcome, which may still come

    def take(self, event: Event, now: float) -> list[tuple[Call, bool]]:
        """What is to be shown after an event: calls, and whether it's only the outcome that is new."""
        name, at = text(event, "request_id"), moment(event)
        if name is None or at is None:
            return []
        if event["event"] == "decision" and self.chosen.wants(event):
            call = Call(event, at)
            if not call.permit or event.get("page") or len(self.waiting) >= MOST_WAITING:
                return [(call, False)]
            self.waiting[name] = now, call
        elif event["event"] == "outcome":
            if name in self.waiting:
                _, call = self.waiting.pop(name)
                call.outcomes.append(event)
                return [(call, False)]
            if name in self.shown and event.get("result") != "lost":
                call = self.shown.pop(name)
                call.outcomes.append(event)
                return [(call, True)]
        return []

    def late(self, now: float, wait: float = WAIT) -> list[Call]:
        """Calls whose outcome is taking its time."""
        found = [(name, call) for name, (since, call) in self.waiting.items() if now - since >= wait]
        for name, call in found:
            del self.waiting[name]
            if len(self.shown) >= MOST_WAITING:
                self.shown.pop(next(iter(self.shown)))
            self.shown[name] = call
        return [call for _, call in found]


def tail(
    env: EnvOption = LOCAL,
    denied: Annotated[bool, typer.Option("--denied", help="Only what was denied.")] = False,
    dag: Annotated[
        str | None, typer.Option("--dag", metavar="ID", help="Only this DAG's; * stands for any text.")
    ] = None,
    upstream: Annotated[
        str | None,
        typer.Option("--upstream", metavar="NAME", help="Only what went to this upstream; likewise."),
    ] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="SUB", help="Only this caller's; likewise.")
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="The gate's own lines instead; without a filter all of them, as a log."),
    ] = False,
) -> None:
    """Watch the gate decide: a line for each call, with who called what, the decision, and what came back.

    Ctrl-C ends it. Of a deployed gate it shows what `wrangler tail` shows; under much traffic that is only a part.
    """
    chosen = Filter(denied, dag, upstream, subject)
    try:
        log = _opened(env)
    except (RecordError, StackError, ConfigurationError, NodeMissing) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(INVALID) from None
    screen = console()
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        if not as_json and screen.is_terminal:
            screen.print(Text(f"Following the log of {env}; Ctrl-C ends it. {LEGEND}", "dim"))
        (_raw if as_json else _watch)(log, chosen, screen)
        status = BROKE_OFF
    except KeyboardInterrupt:
        status = ENDED
    except BrokenPipeError:  # whoever read this has enough
        sys.stdout = None  # nothing is left to be flushed at exit
        status = ENDED
    finally:
        log.close()
        signal.signal(signal.SIGTERM, before)
    raise typer.Exit(status)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _opened(env: str) -> Log:
    """Raises RecordError, StackError, ConfigurationError and NodeMissing."""
    if env == LOCAL:
        return File(read_stack().audit, BEFORE)
    return Tail(read_configuration(env).selected())


def _watch(log: Log, chosen: Filter, screen: Console) -> None:
    board = Board(chosen)
    while (lines := log.read(LOOK)) is not None:
        _tell(log, screen)
        now = time.monotonic()
        for line in lines:
            event = parsed(line)
            if not isinstance(event, dict) or not isinstance(event.get("event"), str):
                continue
            for call, only_outcome in board.take(event, now):
                _print(_line(call, screen, only_outcome=only_outcome), screen)
            if chosen.everything and event["event"] in KINDS and (told := change(event)) is not None:
                by = f", by {told.by}" if told.by else ""
                style = "red" if told.alarm else "cyan"
                _print(Text(f"{_time(moment(event))}  {printable(told.what + by)}", style), screen)
        for call in board.late(time.monotonic()):
            _print(_line(call, screen), screen)
    for call in board.late(time.monotonic(), 0):
        _print(_line(call, screen), screen)
    _tell(log, screen)


def _raw(log: Log, chosen: Filter, screen: Console) -> None:
    """Lines as the gate wrote them."""
    wanted: dict[str, None] = {}
    while (lines := log.read(LOOK)) is not None:
        _tell(log, screen)
        for line in lines:
            if not chosen.everything:
                event = parsed(line)
                if not isinstance(event, dict):
                    continue
                name = text(event, "request_id") or ""
                if event.get("event") == "decision" and chosen.wants(event):
                    wanted[name] = None
                    if len(wanted) > MOST_WAITING:
                        del wanted[next(iter(wanted))]
                if name not in wanted:
                    continue
            sys.stdout.write(line.decode("utf-8", "replace") + "\n")
        sys.stdout.flush()
    _tell(log, screen)


def _tell(log: Log, screen: Console) -> None:
    for notice in log.notices:
        for line in notice.split("\n"):
            typer.echo(printable(line), err=True)
    if screen.is_terminal:
        screen.file.flush()
    log.notices.clear()


def _print(line: Text, screen: Console) -> None:
    screen.print(line, soft_wrap=True)
    screen.file.flush()


def _line(call: Call, screen: Console, *, only_outcome: bool = False) -> Text:
    """Time, decision, caller and DAG, the call, what came of it."""
    event = call.event
    said, style = result(call)
    wide = screen.width if screen.is_terminal else 160
    who = event.get("subject") or "-"
    dag, task = fact(event, "dag"), fact(event, "task")
    if dag is not None:
        who = "" if wide < CRAMPED else f"{who} "
        who += f"{dag[0]}{f'/{task[0]}' if task is not None else ''}{'' if dag[1] else '?'}"
    caller, what = max(14, wide * 26 // 100), max(18, wide * 30 // 100)
    took = f"{call.took:,} ms" if call.took is not None and call.permit else ""
    word = ("…" if only_outcome else "permit") if call.permit else "DENY"
    if not call.permit and wide < NARROW:
        said = text(event, "reason") or said
    line = Text(f"{_time(call.at)}  ")
    line.append(f"{word:<6}", "green" if call.permit else "bold red")
    line.append(f"  {_fitted(str(who), caller)}  {_fitted(place(call), what)}  ")
    line.append(printable(said.removeprefix("DENIED: ")), style)
    if took:
        line.append(f"  {took}", "dim")
    line.append(f"  {str(event.get('request_id'))[:8]}", "dim")
    return line


def _fitted(words: str, wide: int) -> str:
    """Just so wide: cut in the middle, for beginnings and ends tell most."""
    words = printable(words)
    if len(words) > wide:
        first = (wide - 1) // 2
        words = words[:first] + "\N{HORIZONTAL ELLIPSIS}" + words[len(words) - (wide - 1 - first) :]
    return words.ljust(wide)


def _time(seconds: float | None) -> str:
    """Of the day, in UTC."""
    return "-" * 8 if seconds is None else f"{datetime.fromtimestamp(int(seconds), UTC):%H:%M:%S}"
