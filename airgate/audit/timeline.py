"""All that one DAG run did, or one trace: its calls in order, by task and try, with what came of them."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from airgate.audit.fields import fact, moment, text, whole
from airgate.audit.lookup import Event, Searched
from airgate.audit.source import parsed
from airgate.policy.lines import parted
from airgate.policy.recorded import RecordError
from airgate.policy.words import nearest, quoted

GAP = 60.0  # seconds without a call that are said
MOST_CALLS = 20_000
MOST_NAMES = 5_000  # of DAGs and runs that are remembered, to say which one may have been meant


@dataclass(frozen=True)
class Asked:
    """Which calls are meant: those of a run, or those of a trace."""

    dag: str | None = None
    run: str | None = None
    task: str | None = None
    trace_id: str | None = None

    def wanted(self) -> list[bytes]:
        """Texts that a line about such a call has in it, whatever else is there."""
        if self.trace_id is not None:
            return [f'"trace_id":"{self.trace_id}"'.encode()]
        facts = {"dag": self.dag, "run": self.run, "task": self.task}
        return [
            f'"{name}":{{"value":{json.dumps(value)}'.encode()
            for name, value in facts.items()
            if value is not None
        ]

    def means(self, event: Event) -> bool:
        if self.trace_id is not None:
            return event.get("trace_id") == self.trace_id
        facts = {"dag": self.dag, "run": self.run, "task": self.task}
        return all(
            value is None or ((found := fact(event, name)) is not None and found[0] == value)
            for name, value in facts.items()
        )

    @property
    def words(self) -> str:
        if self.trace_id is not None:
            return f"trace {self.trace_id}"
        parts = (("DAG", self.dag), ("run", self.run), ("task", self.task))
        return ", ".join(f"{noun} {value}" for noun, value in parts if value is not None)


@dataclass
class Call:
    """One request and what came of it."""

    event: Event
    at: float  # seconds since the epoch
    outcomes: list[Event] = field(default_factory=list)
    questions: int = 0  # that it asked (AuthZEN)

    def add(self, outcomes: Iterable[Event]) -> None:
        """Take outcomes in; what delivers logs may deliver one twice."""
        self.outcomes += [one for one in outcomes if one and one not in self.outcomes]

    @property
    def permit(self) -> bool:
        return self.event.get("decision") == "permit"

    @property
    def outcome(self) -> Event | None:
        return next((one for one in self.outcomes if one.get("result") != "lost"), None)

    @property
    def lost(self) -> bool:
        """The caller had left when the answer came."""
        return any(one.get("result") == "lost" for one in self.outcomes)

    @property
    def took(self) -> int | None:
        """Milliseconds in the gate and upstream; None: not known."""
        gate = whole(self.event, "gate_ms")
        upstream: int | None = 0
        if self.outcome is not None:
            upstream = whole(self.outcome, "upstream_ms")
        elif self.permit and not self.event.get("page"):
            upstream = None
        return None if gate is None or upstream is None else gate + upstream

    @property
    def status(self) -> int | None:
        return None if self.outcome is None else whole(self.outcome, "status")

    @property
    def failed(self) -> bool:
        """Denied, or permitted and then not answered well."""
        if not self.permit:
            return True
        if self.outcome is None:
            return not self.event.get("page")
        return self.status is None or self.status >= 400

    def named(self, name: str) -> str | None:
        found = fact(self.event, name)
        return None if found is None else found[0]

    @property
    def attested(self) -> bool | None:
        """Whether the token says which DAG and run it was; None: neither it nor a header does."""
        found = [fact(self.event, name) for name in ("dag", "run")]
        told = [each[1] for each in found if each is not None]
        return all(told) if told else None


@dataclass
class Attempt:
    """The calls of one try of one task, or of one of its mapped instances."""

    dag: str | None
    task: str | None
    map_index: str | None
    number: str | None  # of the try
    calls: list[Call] = field(default_factory=list)

    @property
    def title(self) -> str:
        parts = [
            f"task {self.task}" if self.task is not None else "no task named",
            f"[{self.map_index}]" if self.map_index not in (None, "-1") else "",
            f"try {self.number}" if self.number is not None else "",
        ]
        return " ".join(part for part in parts if part)

    def gaps(self) -> Iterator[tuple[int, float]]:
        """Where nothing was called for long: after which call, and for how many seconds."""
        for place, (one, other) in enumerate(pairwise(self.calls)):
            quiet = other.at - one.at - (one.took or 0) / 1000
            if quiet >= GAP:
                yield place, quiet


@dataclass
class Timeline:
    """What the logs hold of a run or a trace."""

    asked: Asked
    calls: list[Call]
    more: int = 0  # calls that there was no room for
    broken: int = 0  # lines about it that can't be read

    @property
    def begin(self) -> float:
        return self.calls[0].at

    @property
    def attempts(self) -> list[Attempt]:
        """By their first call."""
        found: dict[tuple[str | None, ...], Attempt] = {}
        for call in self.calls:
            dag, task, index, number = (call.named(name) for name in ("dag", "task", "map_index", "try"))
            attempt = found.setdefault((dag, task, index, number), Attempt(dag, task, index, number))
            attempt.calls.append(call)
        return list(found.values())

    @property
    def reasons(self) -> Counter[str]:
        """Why calls were denied."""
        return Counter(text(call.event, "reason") or "?" for call in self.calls if not call.permit)


class NoCallsError(Exception):
    """The logs hold nothing of it. The message says what was searched, and what may have been meant."""


def read(asked: Asked, searched: Searched, again: bool) -> Timeline:
    """`again`: the logs can be read twice. Raises NoCallsError and RecordError."""
    wanted = asked.wanted()
    calls: dict[str, Call] = {}
    early: dict[str, list[Event]] = {}  # outcomes that stand before their decision, by request
    names = _Names(asked)
    timeline = Timeline(asked, [])
    for lines in searched.batches():
        for line in lines:
            if line.startswith(_OUTCOME):
                name = _request(line)
                if name in calls:
                    calls[name].add(map(_event, parted(line)))
            elif line.startswith(_ASKED):
                if all(form in line for form in wanted):
                    for event in map(_event, parted(line)):
                        _take(event, timeline, calls)
                else:
                    names.take(line)
    if not calls:
        raise NoCallsError(_nothing(asked, searched, names, timeline.broken))
    if again and any(not call.outcomes and call.permit for call in calls.values()):
        # Logs may come in any order, so an outcome may stand before its decision.
        for lines in Searched(searched.logs).batches():
            for line in lines:
                if (
                    line.startswith(_OUTCOME)
                    and (name := _request(line)) in calls
                    and not calls[name].outcomes
                ):
                    early.setdefault(name, []).append(_event(line))
        for name, outcomes in early.items():
            calls[name].add(outcomes)
    timeline.calls = sorted(calls.values(), key=lambda call: call.at)
    return timeline


_OUTCOME = b'{"event":"outcome"'
_ASKED = (b'{"event":"decision"', b'{"event":"evaluation"')
_REQUEST = b'"request_id":"'


def _take(event: Event, timeline: Timeline, calls: dict[str, Call]) -> None:
    name, at = text(event, "request_id"), moment(event)
    if not event or name is None or at is None:
        timeline.broken += 1
        return
    if event["event"] == "evaluation":
        if name in calls:
            calls[name].questions += 1
    elif timeline.asked.means(event):
        if len(calls) >= MOST_CALLS:
            timeline.more += name not in calls
        else:
            calls.setdefault(name, Call(event, at))


def _event(line: bytes) -> Event:
    event = parsed(line)
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else {}


def _request(line: bytes) -> str:
    at = line.find(_REQUEST)
    return line[at + len(_REQUEST) : at + len(_REQUEST) + 32].decode("ascii", "replace") if at >= 0 else ""


class _Names:
    """DAGs and runs that there are in the logs, for whoever has misspelt one."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self.dags: dict[str, None] = {}
        self.runs: dict[str, None] = {}  # of the DAG that was asked for
        self.tasks: dict[str, None] = {}  # of the run that was asked for

    def take(self, line: bytes) -> None:
        dag = _fact(line, b'"dag":{"value":')
        if dag is None or len(self.dags) + len(self.runs) >= MOST_NAMES:
            return
        self.dags[dag] = None
        if dag == self._asked.dag and (run := _fact(line, b'"run":{"value":')) is not None:
            self.runs[run] = None
            if run == self._asked.run and (task := _fact(line, b'"task":{"value":')) is not None:
                self.tasks[task] = None


def _fact(line: bytes, form: bytes) -> str | None:
    at = line.find(form)
    if at < 0:
        return None
    end = line.find(b',"attested"', at)
    value: Any = parsed(line[at + len(form) : end])
    return value if isinstance(value, str) else None


def _nothing(asked: Asked, searched: Searched, names: _Names, broken: int) -> str:
    said = [f"No call of {asked.words} is in {searched.sentence}."]
    if asked.trace_id is not None:
        said.append(
            "A trace's id has 32 hex digits; the answer's request id is one, where the caller began no trace."
        )
    elif asked.task is not None and names.tasks:
        said.append(f"That run has calls of other tasks: {_listed(asked.task, names.tasks)}")
    elif asked.run is not None and names.runs:
        said.append(f"The DAG has calls of other runs: {_listed(asked.run, names.runs)}")
    elif names.dags:
        said.append(f"There are calls of these DAGs: {_listed(asked.dag or '', names.dags)}")
    else:
        said.append(
            "No call there names a DAG. The provider's connection sends Airgate-Dag-Id and its like; other clients "
            "don't, unless they are told to."
        )
    if broken:
        said.append(f"{broken:,} lines about it can't be read.")
    if not searched.lines:
        said.append("Is it the gate's log?")
    return "\n".join(said)


def _listed(word: str, names: dict[str, None]) -> str:
    """The newest names, and which one was probably meant."""
    newest = list(names)[::-1][:5]
    more = f", and {len(names) - len(newest):,} more" if len(names) > len(newest) else ""
    return f"{', '.join(map(quoted, newest))}{more}{nearest(word, names)}"


def trace_id(given: str) -> str:
    """A trace's id, out of a traceparent if it's one. Raises RecordError."""
    parts = given.strip().lower().split("-")
    name = parts[1] if len(parts) >= 4 and len(parts[0]) == 2 else "".join(parts)
    if len(name) != 32 or not all(digit in "0123456789abcdef" for digit in name):
        raise RecordError(
            f"--trace-id: {quoted(given)}: write the 32 hex digits of a trace, or a whole traceparent"
        )
    return name
