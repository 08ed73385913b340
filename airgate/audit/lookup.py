"""One request, looked up in audit logs: its events, and what else happened that may have had a part in it.

Logs are gone through as bytes; only lines that name the request, and the few about policy and access, are parsed.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airgate.audit.fields import text
from airgate.audit.source import Tally, parsed
from airgate.policy import traffic
from airgate.policy.lines import EVENT, batches, parted
from airgate.policy.recorded import Recorded, RecordError
from airgate.policy.words import quoted

Event = dict[str, Any]

SHORTEST_ID = 6  # characters of a request's id that are enough, where they mean one request only
MOST_NAMED = 10  # requests that are named where several are meant
MOST_ACTS = 20_000

_ID = re.compile(r"[0-9a-f]{6,32}")
_TIME = re.compile(rb'"time":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)"')
_ACT, _BUNDLE = b'{"event":"act"', b'{"event":"bundle"'


@dataclass
class Searched:
    """What was looked through."""

    logs: Sequence[Path]
    tally: Tally = field(default_factory=Tally)
    lines: int = 0  # that may be events
    first: str = ""  # time of an event near the beginning of the oldest log
    last: str = ""

    def batches(self) -> Iterator[list[bytes]]:
        """All lines that may be events, many at a time. Raises RecordError."""
        for _, lines in batches(list(self.logs), self.tally):
            self.lines += len(lines)
            for line in (lines[0][1], lines[-1][1]) if lines else ():
                if found := _TIME.search(line):
                    time = found[1].decode()
                    self.first = min(self.first or time, time)
                    self.last = max(self.last, time)
            yield [line if line.startswith(EVENT) else _compact(line) for _, line in lines]

    @property
    def sentence(self) -> str:
        """`audit.ndjson: 34 events from 2026-11-22 02:13 to 2026-11-22 02:14 UTC`"""
        names = ", ".join("standard input" if log == Path("-") else str(log) for log in self.logs)
        reach = f" from {minute(self.first)} to {minute(self.last)} UTC" if self.first else ""
        return f"{names}: {self.lines:,} event{'s' * (self.lines != 1)}{reach}"


@dataclass
class Story:
    """What logs hold of one request."""

    decision: Recorded
    outcomes: list[Event]
    acts: dict[str, Event]  # revocations and grants that it names, by id
    bundle: Event | None  # how the policy came into force that decided

    @property
    def event(self) -> Event:
        return self.decision.event


class NotFoundError(Exception):
    """The logs hold no such request. The message says what was searched, and what to do."""


def normal(given: str) -> str:
    """A request's id as the log has it, or its beginning. Raises RecordError."""
    name = given.strip().lower().removeprefix("airgate-request-id:").strip().replace("-", "")
    if _ID.fullmatch(name) is None:
        raise RecordError(
            f"{quoted(given)} is no request's id: it has 32 digits of 0-9 and a-f, of which {SHORTEST_ID} are enough. "
            "The answer's header Airgate-Request-Id has it, and so has the problem document (request_id)"
        )
    return name


def look_up(given: str, searched: Searched) -> Story:
    """What the logs hold of a request. Raises NotFoundError and RecordError."""
    name = normal(given)
    wanted = f'"request_id":"{name}'.encode()
    trace = f'"trace_id":"{name}'.encode()
    events: list[Event] = []
    acts: dict[str, Event] = {}
    bundles: list[Event] = []
    traced = 0
    for lines in searched.batches():
        for line in lines:
            if wanted in line:
                events += [event for event in map(_event, parted(line)) if _means(event, name)]
            elif line.startswith(_ACT) and len(acts) < MOST_ACTS:
                event = _event(line)
                acts.setdefault(text(event, "id") or "", event)
            elif line.startswith(_BUNDLE):
                bundles.append(_event(line))
            elif trace in line:
                traced += 1
    # What delivers logs may deliver twice.
    events = [event for place, event in enumerate(events) if event not in events[:place]]
    ids = {str(event["request_id"]): None for event in events}
    if len(ids) > 1:
        several = "\n".join(f"  {_brief(events, one)}" for one in list(ids)[:MOST_NAMED])
        raise NotFoundError(f"{len(ids):,} requests begin with {name}; say more of it:\n{several}")
    of_kind: dict[str, list[Event]] = {}
    for event in events:
        of_kind.setdefault(str(event["event"]), []).append(event)
    decisions = of_kind.get("decision", [])
    if not decisions:
        raise NotFoundError(_nothing(name, searched, traced, bool(events)))
    decision = decisions[0]
    try:
        traffic.check(decision)
    except ValueError as error:
        raise RecordError(f"What the log holds of {name} is broken: {error}") from None
    told = {name for name in acts if name and name in f"{decision.get('detail')} {decision.get('grants')}"}
    version, sequence = decision.get("bundle"), decision.get("sequence")
    bundle = [each for each in bundles if each.get("bundle") == version and each.get("sequence") == sequence]
    evaluations = tuple(of_kind.get("evaluation", ()))
    return Story(
        Recorded(decision, evaluations),
        of_kind.get("outcome", []),
        {name: acts[name] for name in sorted(told)},
        bundle[0] if bundle else None,
    )


def minute(time: str) -> str:
    """A time of an event, to the minute: `2026-11-22 02:13`"""
    return time[:16].replace("T", " ")


def _compact(line: bytes) -> bytes:
    """An event that something has written anew, as the gate writes them."""
    event = _event(line)
    if not event:
        return line
    return json.dumps({"event": event["event"], **event}, separators=(",", ":")).encode()


def _means(event: Event, name: str) -> bool:
    found = event.get("request_id")
    return isinstance(found, str) and found.startswith(name)


def _event(line: bytes) -> Event:
    """An event; empty when it can't be read."""
    event = parsed(line)
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else {}


def _brief(events: list[Event], name: str) -> str:
    for event in events:
        if event.get("request_id") == name and event["event"] == "decision":
            words = (
                name,
                event.get("time"),
                event.get("decision"),
                event.get("method"),
                event.get("upstream"),
            )
            return " ".join(str(word) for word in words)
    return name


def _nothing(name: str, searched: Searched, traced: int, others: bool) -> str:
    said = [f"No decision about the request {name} is in {searched.sentence}."]
    if others:
        said.append("Its outcome is there: the decision stands in an older log. Name that, too (--log).")
    elif traced:
        said.append(
            f"It is the id of a trace, with {traced:,} event{'s' * (traced != 1)}: "
            f"airgate audit trace --trace-id {name}"
        )
    elif len(name) < 32:
        said.append("Ids are read from their beginning; give all 32 digits if you have them.")
    else:
        said.append(
            "Each gate has its own log, and logs reach back as far as they are kept: name the one of the gate and of "
            "the time in question (--log FILE; gzip, Logpush and `wrangler tail` are read as they are)."
        )
    if searched.tally.broken:
        said.append(f"{searched.tally.broken:,} lines there are broken; it may be one of them.")
    return "\n".join(said)
