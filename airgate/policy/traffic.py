"""Decisions out of the gate's audit logs: read fast, checked, and equal ones kept once.

A log holds the same few calls again and again. They differ in time, request, client, token, run, path, query and their
place in the log, and in nothing else that policy could see. So a line is cut into those values and the rest, and only a
rest that is new is read as JSON. Lines are data from outside: each member is checked, and a line that is broken is
counted, never guessed.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from airgate.engine import METHODS
from airgate.policy.lines import batches, parted
from airgate.policy.recorded import Recorded, RecordError
from airgate.policy.words import quoted

LONGEST_TEXT = 2048  # characters of a member
MOST_NAMES = 1000  # members of a list
MOST_GROUPS = 500_000
MOST_RESTS = 100_000  # rests of lines that are remembered
MOST_TOLD = 5  # broken lines whose place is kept
CUT_PATH = 1024  # characters of a path that the gate writes; a longer one was cut
CUT_LIST = 100  # the same, of a list's items

_DAY = 86_400
_SINCE = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": _DAY}
_REASON = re.compile(r"[a-z][a-z._ -]{0,63}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)

SCHEMAS = (1, 2)  # of events, that are read here

# How the gate begins a decision event, and the values in it that change from call to call.
_HEADS = tuple(b'{"event":"decision","schema":%d,"time":"' % schema for schema in SCHEMAS)
_FROM, _TO = len(_HEADS[0]), len(_HEADS[0]) + 24  # where the time stands
_ID, _TRACE = b'","request_id":"', b'","trace_id":"'
_SECONDS = {b":%02d." % second: second for second in range(60)}
_CLIENT, _TOKEN, _WORKLOAD, _PATH = b',"client":', b',"token_id":"', b'"workload":{', b',"path":"'
_FACTS = {name: b'"%b":{"value":"' % name.encode() for name in ("run", "try", "map_index", "session")}
# From schema 2 on: how a decision ends. What of it policy can tell apart: whether there is a query, and what was cut.
_QUERY, _SIZE, _TOOK, _WORKER = b',"query":{', b',"request_bytes":', b',"gate_ms":', b',"worker":{'
_DIGITS = 16  # of a number, at most
_VALUES = rb'(?:null|\[(?:"[^"]*"(?:,"[^"]*")*)?\])'
_TAIL = re.compile(
    rb'(?P<query>,"query":\{(?:"[^"]*":%b(?:,"[^"]*":%b)*)?\})?' % (_VALUES, _VALUES)
    + rb'(?:,"request_bytes":[0-9]+)?(?:,"gate_ms":[0-9]+)?'
    + rb',"worker":\{"location":(?:null|"[^"]*"),"version":(?:null|"[^"]*")\}(?P<cut>,"cut":\[[a-z_",]*\])?'
    + rb',"chain":"[^"]{32}","position":[0-9]+,"previous":"[^"]{64}","hash":"[^"]{64}"\}\Z'
)
_LOGPUSH = b"<<<Logpush:"  # where Logpush has cut a text
_OTHER_EVENTS = tuple(
    b'{"event":"%b"' % kind
    for kind in (b"outcome", b"checkpoint", b"opening", b"bundle", b"act", b"keys", b"register")
)

# What of an event tells groups of calls apart.
_TELLING = (
    "decision", "reason", "method", "upstream", "route", "permits", "forbids", "shadow", "would", "bundle",
    "issuer", "subject", "kind", "roles", "actor", "grants", "country", "page",
)  # fmt: skip


class Group:
    """Calls that policy can tell apart by time, client and path only."""

    __slots__ = ("caller", "permit", "record", "with_path")

    def __init__(self, record: Recorded) -> None:
        self.record = record  # one of them
        self.with_path = "path" not in record.cut
        self.caller = record.caller()
        self.permit = record.permitted


class Call(NamedTuple):
    """One recorded call that policy was asked about."""

    group: Group
    now: int  # seconds since the epoch
    client: str | None
    path: str | None  # as the upstream saw it; None: not in the log


Found = tuple[Group | str, int, str | None, str | None]  # a Call; or why policy wasn't asked
_NOTHING: Found = ("", 0, None, None)  # a line that is not to be looked at


@dataclass
class Traffic:
    """What logs hold. Read it by going through `calls` once; the numbers are right after that."""

    logs: list[Path]
    since: float | None = None  # seconds since the epoch; what is older is left out
    keep_run: bool = False  # a policy compares the run, so calls of two runs are not alike
    groups: list[Group] = field(default_factory=list)
    decided: int = 0  # calls that policy was asked about
    unasked: Counter[str] = field(default_factory=Counter)  # refused or answered before that, by reason
    questions: int = 0  # of other gateways and applications (AuthZEN): they are not calls
    asked: dict[str, int] = field(default_factory=dict)  # when each policy last had a part in one of those
    older: int = 0
    events: int = 0  # of other kinds
    foreign: int = 0  # of somebody else's
    broken: int = 0
    told: list[str] = field(default_factory=list)  # the first broken lines, with what is wrong
    first: int | None = None  # seconds since the epoch, of all decisions
    last: int | None = None

    def __post_init__(self) -> None:
        from airgate.audit.source import Tally  # late, as in lines.py

        self._tally = Tally()
        self._rests: dict[tuple[bytes, ...], Group | str | None] = {}
        self._known: dict[str, Group] = {}
        self._minutes: dict[bytes, int] = {}
        self._cut = tuple(form for name, form in _FACTS.items() if not (self.keep_run and name == "run"))
        since = self.since
        self._since = b"" if since is None else _written(since).encode()

    @property
    def others(self) -> int:
        """Lines that are none of the gate's."""
        return self.foreign + self._tally.foreign

    @property
    def damaged(self) -> list[str]:
        """Packed files that end too early."""
        return self._tally.damaged

    @property
    def days(self) -> float:
        """How long the log is, from its first decision to its last."""
        return 0.0 if self.first is None or self.last is None else (self.last - self.first) / _DAY

    @property
    def span(self) -> str:
        """The same in words: `7 days`."""
        return span(0 if self.first is None or self.last is None else self.last - self.first)

    def calls(self) -> Iterator[Call]:
        """Every call that policy was asked about, in the order of the logs. Raises RecordError."""
        quick = self._quick
        for name, lines in batches(self.logs, self._tally):
            for number, line in lines:
                found = quick(line)
                if found is _NOTHING:
                    continue
                for group, now, client, path in (
                    (found,) if found is not None else self._parted(line, name, number)
                ):
                    if self.first is None or self.last is None:
                        self.first = self.last = now
                    elif now > self.last:
                        self.last = now
                    elif now < self.first:
                        self.first = now
                    if isinstance(group, str):
                        self.unasked[group] += 1
                        continue
                    self.decided += 1
                    yield Call(group, now, client, path if group.with_path else None)

    def _parted(self, line: bytes, name: str, number: int) -> list[Found]:
        """What the events of a line say, of which there may be several."""
        read = [self._slow(text, name, number) for text in parted(line)]
        return [found for found in read if found is not None]

    def _quick(self, line: bytes) -> Found | None:
        """A line whose rest is known. None: it has to be read as JSON."""
        if not line.startswith(_HEADS) or line[_TO : _TO + 16] != _ID or not line.isascii():
            return None
        time = line[_FROM:_TO]
        now = self._seconds(time)
        if now is not None and time < self._since:
            self.older += 1
            return _NOTHING
        find = line.find
        end = find(b'"', _TO + 16)
        if line.startswith(_TRACE, end):
            end = find(b'"', end + 14)
        at = find(_CLIENT, end)
        if now is None or at < 0:
            return None
        parts = [line[end:at]]
        client: bytes | None = None
        at += 10
        if line.startswith(b'"', at):
            end = find(b'"', at + 1)
            client = line[at + 1 : end]
            parts.append(b'"')
        elif line[at : at + 4] == b"null":
            end = at + 4
        else:
            return None
        last = _last(line, end)
        at = find(_TOKEN, end, last)
        if at >= 0:
            parts.append(line[end : at + 13])
            end = find(b'"', at + 13)
        start = find(_WORKLOAD, end, last)
        if start >= 0:
            # Headers are told in another order than what a token attests.
            for at, form in sorted([(find(form, start, last), form) for form in self._cut]):
                if at >= end:
                    at += len(form)
                    parts.append(line[end:at])
                    end = find(b'"', at)
        if last < len(line):
            tail = _TAIL.match(line, last)
            if tail is None:
                return None
            query, cut = tail.groups()
            parts.append(b"?" if query else b"")
            parts.append(cut or b"")
        path: bytes | None = None
        at = line.rfind(_PATH, end, last)
        if at >= 0:
            parts.append(line[end : at + 9])
            end = find(b'"', at + 9)
            path = line[at + 9 : end]
        parts.append(line[end:last])
        # What was cut out must be text as it stands: with a backslash in it, a quote may not be its end.
        if b"\\" in line and line.count(b"\\") != sum([part.count(b"\\") for part in parts]):
            return None
        group = self._rests.get(rest := tuple(parts))
        if group is None:
            if rest not in self._rests:
                self._learn(rest, line, time, client, path)
                group = self._rests[rest]
            if group is None:
                return None
        return group, now, _decoded(client), _decoded(path)

    def _learn(
        self, rest: tuple[bytes, ...], line: bytes, time: bytes, client: bytes | None, path: bytes | None
    ) -> None:
        """See to it that the line was cut where JSON would cut it, and remember what its rest says."""
        if len(self._rests) >= MOST_RESTS:
            self._rests.clear()
        self._rests[rest] = None
        try:
            event = _object(line)
            if (
                event["time"] == time.decode()
                and event.get("client") == _decoded(client)
                and event.get("path") == _decoded(path)
            ):
                self._rests[rest] = self._group(event)
        except ValueError:  # it will be read once more, and told
            return

    def _seconds(self, time: bytes) -> int | None:
        minute = self._minutes.get(time[:16])
        if minute is None:
            try:
                minute = _seconds(time[:16].decode() + ":00.000Z")
            except ValueError:
                return None
            self._minutes[time[:16]] = minute
        second = _SECONDS.get(time[16:20])
        if second is None or time[23] != 90 or not time[20:23].isdigit():  # 90 is "Z"
            return None
        return minute + second

    def _slow(self, line: bytes, name: str, number: int) -> Found | None:
        if line.startswith(_OTHER_EVENTS):
            self.events += 1
            return None
        try:
            event = _object(line)
            kind = event.get("event")
            if kind not in ("decision", "evaluation"):
                self.events += isinstance(kind, str)
                self.foreign += not isinstance(kind, str)
                return None
            if event.get("schema") not in SCHEMAS:
                raise ValueError(
                    f"schema {event.get('schema')!r:.20}: written by another gate than this airgate knows"
                )
            now = _seconds(_text(event, "time"))
            if event["time"].encode() < self._since:
                self.older += 1
                return None
            if kind == "evaluation":
                self._question(event, now)
                return None
            group = self._group(event)
        except ValueError as error:
            self.broken += 1
            if len(self.told) < MOST_TOLD:
                why = (
                    "cut by Logpush, which keeps 16,384 characters of a call"
                    if _LOGPUSH in line
                    else str(error)
                )
                self.told.append(f"{name}:{number}: {why}")
            return None
        return group, now, event.get("client"), event.get("path")

    def _question(self, event: dict[str, Any], now: int) -> None:
        self.questions += 1
        for name in ("permits", "forbids", "shadow"):
            for policy in _texts(event, name):
                self.asked[policy] = max(now, self.asked.get(policy, 0))

    def _group(self, event: dict[str, Any]) -> Group | str:
        """The calls like this one; of one that policy wasn't asked about, why. Raises ValueError."""
        check(event)
        record = Recorded(event)
        if not record.decided:
            why = event.get("reason") or f"page {event.get('page') or 'of the gate'}"
            if _REASON.fullmatch(why) is None:
                raise ValueError(f"reason: {quoted(why)} is none of the gate's")
            return str(why)
        workload = {
            name: fact
            for name, fact in event["workload"].items()
            if name not in _FACTS or (self.keep_run and name == "run")
        }
        clash = event.get("detail") if event.get("reason") == "policy.obligation" else None
        there = (
            "jkt" in event,
            record.exchanged,
            record.delegated,
            "path" in event,
            record.query == "",
            sorted(record.cut),
            [event["issued"][name] for name in ("upstream", "roles")] if "issued" in event else None,
        )
        telling = json.dumps([[event.get(name) for name in _TELLING], workload, clash, there], sort_keys=True)
        group = self._known.get(telling)
        if group is None:
            if len(self.groups) >= MOST_GROUPS:
                raise RecordError(
                    f"The logs hold more than {MOST_GROUPS:,} kinds of calls; take less of them: --since"
                )
            group = self._known[telling] = Group(record)
            self.groups.append(group)
        return group


def check(event: dict[str, Any]) -> None:
    """See that a decision event has the shape that the gate writes. Raises ValueError, which says where it hasn't."""
    _text(event, "time")
    for name in (
        "reason",
        "detail",
        "upstream",
        "route",
        "bundle",
        "client",
        "country",
        "page",
        "path",
        "would",
    ):
        if event.get(name) is not None:
            _text(event, name)
    for name in ("actor", "jkt", "issuer", "subject", "kind"):
        if name in event:
            _text(event, name)
    if event.get("decision") not in ("permit", "deny"):
        raise ValueError("decision: neither permit nor deny")
    if "cut" in event:
        _texts(event, "cut")
    query = event.get("query", {})
    if not isinstance(query, dict) or len(query) > MOST_NAMES:
        raise ValueError("query: not an object, or too long")
    for name, values in query.items():
        if values is not None:
            _texts(query, name)
    if "permits" not in event or "subject" not in event:
        return
    if _text(event, "method") not in METHODS:
        raise ValueError("method: not one of the gate's")
    for name in ("upstream", "issuer", "kind"):
        _text(event, name)
    for name in ("permits", "forbids", "shadow"):
        _texts(event, name)
    if "grants" in event:
        _texts(event, "grants")
    if not isinstance(event.get("exchanged", {}), dict):
        raise ValueError("exchanged: not an object")
    if "issued" in event:
        if not isinstance(event["issued"], dict):
            raise ValueError("issued: not an object")
        _text(event["issued"], "upstream")
        _texts(event["issued"], "roles")
    if event["shadow"] and event.get("would") not in ("permit", "deny"):
        raise ValueError("would: neither permit nor deny")
    path = event.get("path")
    if path is not None and path[:1] not in ("/", ""):
        raise ValueError("path: doesn't begin with a slash")
    roles, workload = event.get("roles"), event.get("workload")
    if not isinstance(roles, dict) or not isinstance(workload, dict) or len(workload) > MOST_NAMES:
        raise ValueError("roles or workload: not an object, or too long")
    for name in ("granted", "effective"):
        _texts(roles, name)
    if roles.get("tagged", "") is not None:
        _texts(roles, "tagged")
    for name in {"unknown", "lent"} & roles.keys():
        _texts(roles, name)
    for name, fact in workload.items():
        if not isinstance(fact, dict) or not isinstance(fact.get("attested"), bool):
            raise ValueError(f"workload.{name:.40}: not a value with where it is from")
        if isinstance(fact.get("value"), list):
            _texts(fact, "value")
        else:
            _text(fact, "value")


def _last(line: bytes, start: int) -> int:
    """Where in a decision that begins which is not from its caller: its query, if it has one."""
    last = line.rfind(_WORKER, start)
    if last < 0:
        return len(line)
    for form in (_TOOK, _SIZE):
        at = line.rfind(form, last - len(form) - _DIGITS, last)
        if at >= start:
            last = at
    if line[last - 1] == 125:  # a closing brace
        at = line.find(_QUERY, start, last)
        if at >= 0:
            last = at
    return last


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _text(event: dict[str, Any], name: str) -> str:
    value = event.get(name)
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise ValueError(f"{name}: is missing, not text, or too long")
    return value


def _texts(event: dict[str, Any], name: str) -> list[str]:
    value = event.get(name)
    if (
        not isinstance(value, list)
        or len(value) > MOST_NAMES
        or not all(isinstance(one, str) for one in value)
    ):
        raise ValueError(f"{name}: is missing, not a list of texts, or too long")
    return value


def _object(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        raise ValueError("not JSON; it may have been cut off") from None
    if not isinstance(event, dict):
        raise ValueError("not a JSON object")
    return event


def _seconds(time: str) -> int:
    if _TIME.fullmatch(time) is None:
        raise ValueError(f"time: {quoted(time)} isn't a time as the gate writes it")
    return int(datetime.fromisoformat(time).timestamp())


def _written(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def length(text: str) -> int:
    """A length of time such as `30d` or `12h`, in seconds. Raises ValueError."""
    found = _SINCE.fullmatch(text)
    if found is None:
        raise ValueError(f"{quoted(text)}: write a length of time such as 7d, 12h or 30m")
    return int(found[1]) * _UNITS[found[2]]


def since(text: str, now: float) -> float:
    """`7d`, `2026-11-14` or `2026-11-14T09:30:00Z`, in seconds since the epoch. Raises ValueError."""
    if _SINCE.fullmatch(text):
        return now - length(text)
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None and len(text) > 10:
            raise ValueError
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        example = "7d, 2026-11-14 or 2026-11-14T09:30:00Z"
        raise ValueError(f"{quoted(text)}: write how long ago, a day or a moment: {example}") from None


def span(seconds: float) -> str:
    """A length of time in words, rounded up: `7 days`, `5 hours`, `12 minutes`."""
    for unit, noun in ((_DAY, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= unit or unit == 60:
            number = max(1, -int(-seconds // unit))
            return f"{number:,} {noun}{'s' * (number != 1)}"
    raise AssertionError("a minute is the shortest")


def printable(text: str) -> str:
    """Text with names from a log in it: on one line, and nothing that a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


def day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
