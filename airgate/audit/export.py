"""`airgate audit export`: the log in the words of others, an object a line, for a SIEM or a broker.

Exit codes: 0 exported; 2 a log or the file can't be used, or the logs hold no event.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from urllib.parse import urlsplit

import typer

from airgate.audit import cloudevents, ocsf
from airgate.audit.fields import Event, moment, text
from airgate.audit.report import INVALID, Logs, Since, Until, chosen
from airgate.audit.report import moment as moment_of
from airgate.audit.source import Tally, events
from airgate.policy.output import printable
from airgate.policy.recorded import RecordError

MOST_WAITING = 20_000  # permitted calls that wait for their outcome, before they go without one


class Form(StrEnum):
    OCSF = "ocsf"
    CLOUDEVENTS = "cloudevents"


@dataclass
class Exported:
    """How much was written, and what of it lacks what."""

    lines: int = 0
    joined: int = 0  # decisions that have their outcome in them
    open: int = 0  # permitted calls without one: their status is unknown
    outside: int = 0  # before or after the time
    odd: int = 0  # not as any gate writes it


def export(
    form: Annotated[
        Form, typer.Option("--format", help="ocsf: OCSF 1.8. cloudevents: CloudEvents 1.0, structured.")
    ],
    logs: Logs = None,
    since: Since = None,
    until: Until = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where to write; standard output when left out."),
    ] = None,
    source: Annotated[
        str, typer.Option("--source", metavar="URI", help="What tells this gate from others, in CloudEvents.")
    ] = cloudevents.SOURCE,
) -> None:
    """Write audit logs as OCSF or CloudEvents, one object a line."""
    now = time.time()
    tally, done = Tally(), Exported()
    try:
        _refuse_no_uri(source)
        begin, end = moment_of("--since", since, now), moment_of("--until", until, now)
        read = within(events(chosen(logs), tally), begin, end if form is Form.CLOUDEVENTS else None, done)
        lines = as_ocsf(read, end, done) if form is Form.OCSF else as_cloudevents(read, source, done)
        with _opened(out) as file:
            for line in lines:
                file.write(line + b"\n")
                done.lines += 1
        if not tally.events:
            raise RecordError(
                "No event of the gate is in the logs: " + "; ".join(map(str.strip, tally.sentences())) + ". "
                "docs/audit.md says where they are"
            )
    except BrokenPipeError:  # whoever read it has enough
        sys.stderr.close()
        raise typer.Exit(0) from None
    except RecordError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(INVALID) from None
    for sentence in (*sentences(done, form), *tally.sentences()):
        typer.echo(printable(sentence), err=True)


def within(
    read: Iterable[dict[str, Any]], begin: float | None, end: float | None, done: Exported
) -> Iterator[dict[str, Any]]:
    """The events of a time."""
    for event in read:
        when = moment(event)
        if when is None:
            done.odd += 1
        elif (begin is not None and when < begin) or _over(when, end):
            done.outside += 1
        else:
            yield event


def _over(when: float | None, end: float | None) -> bool:
    return when is not None and end is not None and when >= end


def as_ocsf(read: Iterable[Event], end: float | None, done: Exported) -> Iterator[bytes]:
    """OCSF events of the time before `end`; an outcome belongs to its decision, so it may be after that.

    A permitted call is held back until its outcome is there, or many others have come.
    """
    waiting: dict[str, Event] = {}
    for event in read:
        request = text(event, "request_id", 64) or ""
        if event["event"] == "outcome" and event.get("result") != "lost" and request in waiting:
            done.joined += 1
            yield from _ocsf(waiting.pop(request), event, done)
        elif _over(moment(event), end):
            done.outside += 1
        elif not _awaits(event):
            yield from _ocsf(event, None, done)
        else:
            if request in waiting:  # two requests with one id are none of a gate's
                yield from _ocsf(waiting.pop(request), None, done)
            waiting[request] = event
            if len(waiting) > MOST_WAITING:
                yield from _ocsf(waiting.pop(next(iter(waiting))), None, done)
    for event in waiting.values():
        yield from _ocsf(event, None, done)


def _awaits(event: Event) -> bool:
    """Whether an outcome should follow."""
    return event["event"] == "decision" and event.get("decision") == "permit" and event.get("page") is None


def _ocsf(event: Event, outcome: Event | None, done: Exported) -> Iterator[bytes]:
    done.open += outcome is None and _awaits(event)
    found = ocsf.mapped(event, outcome)
    if found is None:
        done.odd += 1
    else:
        yield json.dumps(found, separators=(",", ":")).encode("ascii")


def as_cloudevents(read: Iterable[Event], source: str, done: Exported) -> Iterator[bytes]:
    for event in read:
        line = cloudevents.enveloped(event, source)
        if line is None:
            done.odd += 1
        else:
            yield line


def sentences(done: Exported, form: Form) -> Iterator[str]:
    """For a person, what came of it."""
    yield f"{done.lines:,} lines written as {'OCSF ' + ocsf.VERSION if form is Form.OCSF else 'CloudEvents 1.0'}"
    if form is Form.OCSF and done.joined + done.open:
        yield (
            f"{done.joined:,} permitted calls have their outcome in them; {done.open:,} have none, and status Unknown"
        )
    if done.outside:
        yield f"{done.outside:,} events are before or after the time, and were left out"
    if done.odd:
        yield f"{done.odd:,} events are not as any gate writes them, and were left out"


def _refuse_no_uri(source: str) -> None:
    try:
        whole = bool(source) and source.isascii() and source.isprintable() and " " not in source
        urlsplit(source)
    except ValueError:
        whole = False
    if not whole:
        raise RecordError(
            "--source: that is no URI reference; write one such as https://gate.example.com or airgate"
        )


@contextmanager
def _opened(out: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that is there only once all of it is. Raises RecordError."""
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    beside = out.with_name(f".{out.name}.part")
    try:
        with beside.open("wb") as file:
            yield file
        beside.replace(out)
    except OSError as error:
        raise RecordError(
            f"{out}: can't be written: {error.strerror}. Name another file, in a folder that is there"
        ) from None
    finally:
        beside.unlink(missing_ok=True)
