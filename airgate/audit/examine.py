"""What each line of a log says by itself: whether its bytes have the hash it names, and where it stands in its chain.

Pieces of logs are examined side by side, by processes that know nothing of each other. What the chains are joined from
later (link.py) goes into files of their own, so that it takes no memory however long the logs are: of every piece, the
lines of one chain are a segment, sorted by position. One whose lines follow each other without a gap is whole, and
needs only its ends to be joined; all others hold each line's own place.
"""

import itertools
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from re import compile as pattern
from typing import IO, Any, NamedTuple

import orjson

from airgate.audit.source import (
    CUT,
    Damaged,
    SourceError,
    Tally,
    parsed,
    parted,
    pieces,
    texts,
    unpacked,
)
from airgate.audit.trusted import SLACK, Checker, Keys, Wrong, seconds
from chain import GENESIS

LATE, ALTERED = (
    1 << 62,
    1 << 63,
)  # of a line's number: it came after one that follows it; its hash isn't its own
NUMBER = LATE - 1
MOST_KINDS = 10_000  # of findings, by chain, that one piece of work keeps apart
NO_TIME = b"\0" * 24

FIRST = bytes.fromhex(GENESIS)

_PLACE = pattern(
    rb',"chain":"([0-9a-f]{32})","position":(0|[1-9][0-9]{0,15}),"previous":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"\}\Z'
)
_CHAIN = pattern("[0-9a-f]{32}")
_TIME = pattern(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z")
_ROOM = 224  # bytes that the place takes, at most
_HASH = 75  # bytes of the place that the hash doesn't cover

# A segment's beginning: positions of the first and last line; how many; whether it is whole; of the last checkpoint
# in it the position + 1; `previous` of the first line; hash of the last; the task that its lines' numbers are of; times
# of its first line, its last, and the first after the last checkpoint.
HEAD = struct.Struct("<QQQBQ32s32sQ24s24s24s")
LINE = struct.Struct(
    "<Q32s32sQ24s"
)  # position, previous, hash, number and time of a line; of a whole one see below


class Task(NamedTuple):
    """A part of one log for one process. `end`: None for a packed log, which is read as a whole."""

    number: int
    log: int  # which one of those that were given
    name: str
    path: Path
    start: int
    end: int | None


class Place(NamedTuple):
    """A line: which one of the task's."""

    task: int
    line: int


@dataclass
class Sign:
    """Something that is wrong with lines of one chain, or of none: where first, and how often."""

    kind: str
    chain: str | None
    position: int | None
    place: Place
    text: str
    count: int = 1

    def add(self, other: "Sign") -> None:
        """Count another one; the first by position, then by place, is the one that is kept."""
        if _order(other) < _order(self):
            self.position, self.place, self.text = other.position, other.place, other.text
        self.count += other.count


def _order(sign: Sign) -> tuple[float, Place]:
    return (-1 if sign.position is None else sign.position, sign.place)


class Stated(NamedTuple):
    """A checkpoint that counts, in the line at `position`."""

    position: int
    covers: int
    hash: bytes
    number: int | None
    time: str
    gate: str
    place: Place
    held: bool  # the line it covers was seen beside it, and is as it says


@dataclass
class Opened:
    """A chain's first line."""

    key: str | None  # id of the key that signs its checkpoints
    time: str
    gate: str


@dataclass
class Examined:
    """What came of one task."""

    number: int
    tally: Tally = field(default_factory=Tally)
    segments: dict[str, "array[int]"] = field(default_factory=dict)  # where they begin in the process's file
    spill: int = 0  # which process's file
    stated: dict[str, list[Stated]] = field(default_factory=dict)
    opened: dict[str, Opened] = field(default_factory=dict)
    signs: dict[tuple[str, str | None], Sign] = field(default_factory=dict)
    earliest: str = ""  # of all lines that are as they were written
    latest: str = ""
    hours: set[str] = field(default_factory=set)  # that there are events of: 2026-11-22T09
    unchained: tuple[str, Place] | None = None  # time and place of the latest event without a chain

    def sign(self, kind: str, chain: str | None, position: int | None, line: int, text: str) -> None:
        note(self.signs, Sign(kind, chain, position, Place(self.number, line), text))


def note(signs: dict[tuple[str, str | None], Sign], sign: Sign) -> None:
    """Keep a sign, or count it with those like it."""
    known = signs.get((sign.kind, sign.chain))
    if known is None and len(signs) >= MOST_KINDS:
        sign.chain = None
        known = signs.get((sign.kind, None))
    if known is None:
        signs[sign.kind, sign.chain] = sign
    else:
        known.add(sign)


Row = tuple[int, bytes, bytes, int, bytes]  # position, previous, hash, number, time


class Examiner:
    """Examines tasks one after the other, and writes segments to its own file. `spill`: that file, and its number."""

    def __init__(self, keys: Keys | None, spill: IO[bytes], number: int) -> None:
        self._checker = Checker(keys)
        self._spill = spill
        self._number = number
        self._offset = spill.tell()

    def examine(self, task: Task) -> Examined:
        """Raises SourceError, and OSError when there is no room for the segments."""
        found = Examined(task.number, spill=self._number)
        base = 0
        for piece in _pieces(task, found.tally):
            self._piece(piece, base, found)
            base += piece.count(b"\n") + (not piece.endswith(b"\n"))
        found.tally.lines = base
        self._spill.flush()
        return found

    def _piece(self, piece: bytes, base: int, found: Examined) -> None:
        """The lines of a piece that begins behind `base` lines."""
        tally = found.tally
        chains: dict[str, list[Row]] = {}
        stated: dict[str, list[Stated]] = {}
        earliest, latest = found.earliest, found.latest
        loads, digest, unhex = orjson.loads, sha256, bytes.fromhex
        events, hour = 0, ""
        more: list[tuple[int, bytes]] = []  # of lines that hold several; they are read after all others
        ordered = True
        for line, text in itertools.chain(texts(piece, tally), _drained(more)):
            number = base + line
            try:
                event = loads(text)
            except ValueError:
                event = parsed(text)
            try:
                chain, position, head = event["chain"], event["position"], event["previous"]
                own, previous = digest(text[:-_HASH]), unhex(head)
                place = f',"chain":"{chain}","position":{position},"previous":"{head}","hash":"{own.hexdigest()}"}}'
                right = text.endswith(place.encode()) and type(position) is int and len(previous) == 32
            except (TypeError, LookupError, ValueError):
                right = False
            if not right or not (chain in chains or _CHAIN.fullmatch(chain)) or not 0 <= position < LATE:
                if event is None and len(parts := list(parted(text))) > 1:
                    more += [(line, part) for part in parts]
                    ordered = False
                    continue
                if (claimed := self._odd(text, event, number, found)) is not None:
                    row = claimed[1], b"", b"", number | ALTERED, NO_TIME
                    chains.setdefault(claimed[0], []).append(row)
                continue
            events += 1
            rows = chains.get(chain)
            if rows is None:
                rows = chains[chain] = []
            time = event.get("time")
            if isinstance(time, str) and _TIME.fullmatch(time) and (time[:13] == hour or seconds(time) >= 0):
                if time > latest:
                    latest = time
                if time < earliest or not earliest:
                    earliest = time
                if time[:13] != hour:
                    hour = time[:13]
                    found.hours.add(hour)
            else:
                time = ""
                found.sign("no time", chain, position, number, "its time isn't written as the gate writes it")
            kind = event.get("event")
            if kind == "checkpoint":
                self._checkpoint(event, chain, position, time, number, found, stated)
            elif position == 0 or kind == "opening":
                self._opening(event, chain, position, number, found)
            elif kind == "register":
                found.sign("register cut", chain, position, number, "the gate has found its own row gone")
            rows.append((position, previous, own.digest(), number, time.encode()))
        tally.events += events
        found.earliest, found.latest = earliest, latest
        for chain, rows in chains.items():
            if not ordered:
                rows.sort(key=lambda row: row[3] & NUMBER)
            said = stated.get(chain, [])
            found.segments.setdefault(chain, array("Q")).append(self._offset)
            self._write(rows, max((each.position + 1 for each in said), default=0), found.number)
            if said:
                held = {row[0]: row[2] for row in rows if not row[3] & ALTERED}
                found.stated.setdefault(chain, []).extend(
                    each._replace(held=held.get(each.covers) == each.hash) for each in said
                )

    def _write(self, rows: list[Row], checkpoint: int, task: int) -> None:
        """One segment. `checkpoint`: the position of the last one in it, + 1."""
        position, head = rows[0][0], rows[0][1]
        for row in rows:
            if row[0] != position or row[1] != head or row[3] & ALTERED:
                break
            position += 1
            head = row[2]
        else:
            first, last = rows[0], rows[-1]
            at = checkpoint - first[0]
            since = rows[at][4] if 0 < at < len(rows) else NO_TIME
            body = b"".join([row[2] for row in rows]) + array("Q", [row[3] for row in rows]).tobytes()
            self._put(
                HEAD.pack(
                    first[0], last[0], len(rows), 1, checkpoint, first[1], last[2], task,
                    first[4], last[4], since,
                ) + body
            )  # fmt: skip
            return
        latest = -1
        marked: list[Row] = []
        for position, previous, own, number, time in rows:
            if position < latest:
                number |= LATE
            elif not number & ALTERED:
                latest = position
            marked.append((position, previous, own, number, time))
        marked.sort(key=lambda row: (row[0], row[3] & NUMBER))
        body = b"".join([LINE.pack(*row) for row in marked])
        first, last = marked[0], marked[-1]
        self._put(
            HEAD.pack(
                first[0],
                last[0],
                len(rows),
                0,
                checkpoint,
                first[1],
                last[2],
                task,
                NO_TIME,
                NO_TIME,
                NO_TIME,
            )
            + body
        )

    def _put(self, data: bytes) -> None:
        self._spill.write(data)
        self._offset += len(data)

    def _checkpoint(
        self,
        event: dict[str, Any],
        chain: str,
        position: int,
        time: str,
        line: int,
        found: Examined,
        stated: dict[str, list[Stated]],
    ) -> None:
        said = self._checker.check(event.get("document"), event.get("key"), event.get("signature"))
        if isinstance(said, Wrong):
            found.sign(said.kind, chain, position, line, said.text)
        elif said.chain != chain:
            found.sign("spliced", chain, position, line, f"a checkpoint of the chain {said.chain}")
        elif said.position >= position:
            why = f"this checkpoint covers position {said.position}, which comes after it: lines before it are gone"
            found.sign("contradicted", chain, position, line, why)
        else:
            if time and abs(seconds(time) - seconds(said.time)) > SLACK:
                why = f"signed at {said.time}, in a line of {time}"
                found.sign("replayed", chain, position, line, why)
            stated.setdefault(chain, []).append(
                Stated(
                    position,
                    said.position,
                    said.hash,
                    said.number,
                    said.time,
                    said.gate,
                    Place(found.number, line),
                    held=False,
                )
            )

    def _opening(self, event: dict[str, Any], chain: str, position: int, line: int, found: Examined) -> None:
        if event.get("event") != "opening":
            found.sign("misplaced", chain, position, line, "a chain's first line is not its opening")
        elif position:
            found.sign("misplaced", chain, position, line, "an opening in the middle of a chain")
        else:
            keys = event.get("keys")
            key = keys.get("audit") if isinstance(keys, dict) else None
            found.opened[chain] = Opened(
                key if isinstance(key, str) else None, str(event.get("time")), str(event.get("gate"))
            )

    def _odd(self, text: bytes, event: Any, line: int, found: Examined) -> tuple[str, int] | None:
        """A text that isn't a line of a chain as a gate writes it. Which place it claims all the same."""
        place = _PLACE.search(text, max(0, len(text) - _ROOM))
        if place is not None:
            right = sha256(text[:-_HASH]).hexdigest().encode() == place[4]
            why = "its bytes aren't those that its hash covers"
            if right:
                why = "no gate has written it, though its hash is right: it isn't one JSON object"
            return self._altered(place[1].decode(), int(place[2]), line, why, found)
        if event is None:
            cut = CUT.encode() in text
            found.tally.broken += 1
            found.tally.cut += cut
            why = "cut by Logpush" if cut else "the line is cut off, or isn't JSON any more"
            found.sign("half-written", None, None, line, why)
        elif not isinstance(event, dict) or not isinstance(event.get("event"), str) or "schema" not in event:
            found.tally.foreign += 1
        elif type(event["schema"]) is int and event["schema"] == 1 and "chain" not in event:
            found.tally.events += 1
            found.tally.unchained += 1
            time = str(event.get("time"))
            if seconds(time) < 0:
                found.sign("no time", None, None, line, "its time isn't written as the gate writes it")
            elif found.unchained is None or time > found.unchained[0]:
                found.unchained = time, Place(found.number, line)
        else:
            chain, position = event.get("chain"), event.get("position")
            known = isinstance(chain, str) and _CHAIN.fullmatch(chain)
            if known and type(position) is int and 0 <= position < LATE:
                why = "it isn't written as a gate writes events"
                return self._altered(str(chain), position, line, why, found)
            found.tally.events += 1
            found.sign("unplaced", None, None, line, "an event without a place in a chain")
        return None

    def _altered(self, chain: str, position: int, line: int, why: str, found: Examined) -> tuple[str, int]:
        found.tally.events += 1
        found.sign("altered", chain, position, line, why)
        return chain, position


def _drained(more: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """What has come together until now, and while it is gone through."""
    while more:
        yield more.pop(0)


def _pieces(task: Task, tally: Tally) -> Iterator[bytes]:
    """The task's part of its log, in pieces. Raises SourceError."""
    try:
        with task.path.open("rb") as file:
            if task.end is None:
                yield from pieces(_unpacked(file, task, tally))
                return
            file.seek(task.start)
            yield from pieces(_blocks(file, task.end - task.start))
    except OSError as error:
        raise SourceError(f"{task.name}: can't be read: {error.strerror}") from None


def _unpacked(file: IO[bytes], task: Task, tally: Tally) -> Iterator[bytes]:
    """What a packed file holds, up to where it is damaged."""
    try:
        yield from unpacked(file)
    except Damaged as error:
        tally.damaged.append(f"{task.name}: {error}")


def _blocks(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0 and (block := file.read(min(size, 4 << 20))):
        size -= len(block)
        yield block
