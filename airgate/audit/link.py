"""Chains out of segments: where a line is missing, doubled, out of order or contradicted, and how far each is proved.

Segments of one chain are joined in the order of their positions. Where whole ones follow each other, only their ends
are compared. Where some overlap, or aren't whole, their lines are merged one by one.
"""

import heapq
import os
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from airgate.audit.examine import ALTERED, FIRST, HEAD, LATE, LINE, NUMBER, Opened, Place, Sign, Stated
from airgate.audit.trusted import seconds

LONGEST_TAIL = (
    120  # seconds that lines may wait for a checkpoint; the gate takes 12, or a few when it is busy
)
BRIEF = 30  # seconds that an isolate may have lived which has signed nothing
BESIDE = 16  # lines between two checkpoints that say the same because they were made at once
MOST_RIVALS = 1000  # different lines of one place that are looked at
ROOM = 32 << 20  # bytes that are read ahead of all segments that are merged

Read = Callable[[int, int, int], bytes]  # file, offset, size


class Segment(NamedTuple):
    """Lines of one chain in one piece of a log."""

    file: int
    offset: int  # of its body
    first: int
    last: int
    lines: int
    whole: bool
    checkpoint: int  # position + 1 of the last one in it; 0: none
    previous: bytes
    hash: bytes
    task: int
    begun: str
    ended: str
    since: str  # time of the first line after the last checkpoint; "": none, or not known

    @classmethod
    def read(cls, read: Read, file: int, offset: int) -> "Segment":
        first, last, count, whole, checkpoint, previous, own, task, *times = HEAD.unpack(
            read(file, offset, HEAD.size)
        )
        begun, ended, since = (time.rstrip(b"\0").decode() for time in times)
        return cls(
            file, offset + HEAD.size, first, last, count, bool(whole), checkpoint,
            previous, own, task, begun, ended, since,
        )  # fmt: skip


class Line(NamedTuple):
    """One line of a chain."""

    position: int
    previous: bytes
    hash: bytes
    number: int  # of the line in its task's part of the log, with flags
    time: str
    task: int

    @property
    def altered(self) -> bool:
        return bool(self.number & ALTERED)

    @property
    def late(self) -> bool:
        return bool(self.number & LATE)

    @property
    def place(self) -> Place:
        return Place(self.task, self.number & NUMBER)


@dataclass
class Held:
    """What was seen of one chain."""

    segments: "array[int]" = field(
        default_factory=lambda: array("Q")
    )  # file and offset, as located() packs them
    stated: list[Stated] = field(default_factory=list)
    opened: Opened | None = None


@dataclass
class Linked:
    """One chain, as far as the logs hold it."""

    id: str
    first: int = 0
    last: int = -1
    count: int = 0  # lines, doubles and altered ones not counted
    begun: str = ""  # time of the first line that is here; "" when it isn't known
    ended: str = ""
    opened: Opened | None = None
    proved: int = -1  # the last position that a checkpoint covers
    proved_at: str = ""  # when that was signed
    checkpoints: int = 0
    tail: int = 0  # lines that no checkpoint covers, checkpoints themselves not counted
    since: str = ""  # the time of the first of them
    numbers: tuple[int, ...] = ()  # in the register, as checkpoints name them
    gate: str = ""
    begin: str = ""  # where its first line is
    end: str = ""  # and its last
    overdue: bool = False  # whether lines have waited for a checkpoint longer than the gate lets them wait
    signs: list[Sign] = field(default_factory=list)

    def sign(self, kind: str, position: int | None, place: Place, text: str, count: int = 1) -> None:
        for known in self.signs:
            if known.kind == kind:
                known.count += count
                return
        self.signs.append(Sign(kind, self.id, position, place, text, count))


def located(file: int, offset: int) -> int:
    """Where a segment is, in one number."""
    return file << 42 | offset


def unpacked(at: int) -> tuple[int, int]:
    """File and offset of a segment."""
    return at >> 42, at & (1 << 42) - 1


class Linking:
    """One chain's lines, joined. `where`: a place in words; `log`: which one a task is of."""

    def __init__(
        self, name: str, held: Held, read: Read, where: Callable[[Place], str], log: Callable[[int], int]
    ) -> None:
        self._held, self._read, self._where, self._log = held, read, where, log
        segments = [Segment.read(read, *unpacked(at)) for at in held.segments]
        self._segments = sorted(segments, key=lambda each: (each.first, each.last, each.task))
        self._reach: list[int] = []  # the last position of the segments up to this one
        reach = -1
        for segment in self._segments:
            reach = max(reach, segment.last)
            self._reach.append(reach)
        self.chain = Linked(name, opened=held.opened)
        self._heads: set[bytes] | None = None  # hashes that the next line may name; None: not known
        self._before: Place | None = None  # the line before
        self._begin_at: Place | None = None
        self._filled: list[range] = []  # positions of altered lines since the last good one
        # Lines that a checkpoint covers which was read apart from them; filled in while lines are merged.
        self._covered: dict[int, list[Line]] = {each.covers: [] for each in held.stated if not each.held}
        self._latest: dict[int, Place] = {}  # of each log: where the whole segment before ended

    def linked(self) -> Linked | None:
        """None: there is no line of this chain that is as it was written."""
        for cluster in _clusters(self._segments):
            first = cluster[0]
            alike = all(
                each.whole
                and (each.first, each.last, each.previous, each.hash)
                == (first.first, first.last, first.previous, first.hash)
                for each in cluster
            )
            if alike:
                self._whole(first)
                if len(cluster) == 1:
                    self._ordered(first)
                for double in cluster[1:]:
                    self._doubled(
                        first.first,
                        self._at(first, first.first),
                        self._at(double, double.first),
                        double.lines,
                    )
            else:
                self._merged(cluster)
        chain = self.chain
        if chain.last < 0:
            return None
        self._checkpoints()
        return chain

    def hashes(self, position: int) -> list[Line]:
        """The lines at a position that are as they were written: none, one, or several that contradict each other."""
        found = []
        for index in range(self._reaching(position), len(self._segments)):
            segment = self._segments[index]
            if segment.first > position:
                break
            if segment.last >= position:
                found += [line for line in self._lines(segment, position) if not line.altered]
        return found

    # --- walking along the chain ---------------------------------------------------------------------------------

    def _whole(self, segment: Segment) -> None:
        chain = self.chain
        place = self._at(segment, segment.first)
        self._step(segment.first, place, segment.begun)
        if self._heads is not None and segment.previous not in self._heads:
            self._unlinked(segment.first, place)
        chain.last = segment.last
        chain.count += segment.lines
        chain.ended = segment.ended or chain.ended
        if segment.checkpoint:
            chain.since = segment.since
        elif not chain.since:
            chain.since = segment.begun
        self._heads = {segment.hash}
        self._before = self._at(segment, segment.last)
        self._filled.clear()

    def _merged(self, cluster: Sequence[Segment]) -> None:
        checkpoints = {each.checkpoint - 1 for each in cluster if each.checkpoint}
        newest = max(checkpoints, default=-1)
        room = max(LINE.size, ROOM // len(cluster))
        lines = heapq.merge(
            *(self._stream(each, room) for each in cluster), key=lambda line: (line.position, line.place)
        )
        for position, alike in groupby(lines, key=lambda line: line.position):
            self._group(position, alike, newest)

    def _group(self, position: int, group: Iterator[Line], newest: int) -> None:
        """All lines of one position. `newest`: of a checkpoint; the time of what comes after is kept."""
        chain = self.chain
        good: dict[bytes, Line] = {}
        more = 0  # that contradict those, and are only counted
        for line in group:
            if line.altered:
                continue
            known = good.get(line.hash)
            if known is not None:
                self._doubled(position, known.place, line.place, 1)
                if not known.time:
                    good[line.hash] = known._replace(time=line.time)
            elif len(good) == MOST_RIVALS:
                more += 1
            else:
                good[line.hash] = line
                if line.late:
                    chain.sign("reordered", position, line.place, "it came after lines that follow it")
        if not good:
            if self._filled and self._filled[-1].stop == position:
                self._filled[-1] = range(self._filled[-1].start, position + 1)
            else:
                self._filled.append(range(position, position + 1))
            return
        lines = list(good.values())
        first = lines[0]
        if position in self._covered:
            self._covered[position] = lines
        self._step(position, first.place, first.time)
        if len(lines) > 1:
            chain.sign(
                "conflicting",
                position,
                lines[1].place,
                f"another line than at {self._where(first.place)} has this place; both have their hash",
                len(lines) - 1 + more,
            )
        heads = self._heads
        fitting = [line for line in lines if heads is None or line.previous in heads]
        if not fitting:
            self._unlinked(position, first.place)
        if position == newest:
            chain.since = ""
        elif not chain.since:
            chain.since = first.time
        chain.last = position
        chain.count += 1
        chain.ended = first.time or chain.ended
        self._heads = {line.hash for line in fitting or lines}
        self._before = (fitting or lines)[0].place
        self._filled.clear()

    def _step(self, position: int, place: Place, time: str) -> None:
        """To the next position that there is a line at, which may not be the next one."""
        chain = self.chain
        if chain.last < 0:
            chain.first, chain.begun = position, time
            self._heads = {FIRST} if position == 0 else None
            self._begin_at = place
            return
        if not chain.begun:
            chain.begun = time
        if position == chain.last + 1:
            return
        self._heads = None
        expected = chain.last + 1
        for there in [*self._filled, range(position, position + 1)]:
            if there.start > expected:
                between = f"between {self._where(self._before)} and" if self._before is not None else "before"
                last = f" to {there.start - 1}" if there.start - 1 > expected else ""
                chain.sign(
                    "missing",
                    expected,
                    place,
                    f"position {expected}{last}, {between} {self._where(place)}",
                    there.start - expected,
                )
            expected = there.stop

    def _unlinked(self, position: int, place: Place) -> None:
        if position == 0:
            self.chain.sign("unlinked", 0, place, "the first line names one before it")
            return
        before = self._where(self._before) if self._before is not None else "the one before"
        self.chain.sign(
            "unlinked",
            position,
            place,
            f"it doesn't follow the line at {before}: one of the two was rewritten, and hashed anew",
        )

    def _doubled(self, position: int, one: Place, other: Place, count: int) -> None:
        self.chain.sign("doubled", position, other, f"the same as {self._where(one)}", count)

    def _ordered(self, segment: Segment) -> None:
        """See whether a whole segment stands in its log where it should."""
        begin = self._at(segment, segment.first)
        log = self._log(begin.task)
        if begin < self._latest.get(log, begin):
            self.chain.sign("reordered", segment.first, begin, "it came after lines that follow it")
        self._latest[log] = max(self._at(segment, segment.last), self._latest.get(log, begin))

    # --- what is said of the chain as a whole ---------------------------------------------------------------------

    def _checkpoints(self) -> None:
        chain = self.chain
        stated = sorted(self._held.stated, key=lambda each: (each.position, each.covers, each.place))
        seen: dict[tuple[int, bytes, str], Stated] = {}
        positions: set[int] = set()
        contradicted = False
        for each in stated:
            said = each.covers, each.hash, each.time
            before = seen.setdefault(said, each)
            if each.position - before.position > BESIDE:
                chain.sign(
                    "replayed", each.position, each.place, f"the same as in {self._where(before.place)}"
                )
                continue
            positions.add(each.position)
            lines = [] if each.held else self._covered[each.covers] or self.hashes(each.covers)
            if each.held or any(line.hash == each.hash for line in lines):
                if each.covers > chain.proved:
                    chain.proved, chain.proved_at = each.covers, each.time
            elif lines and not contradicted:
                contradicted = True
                after = f"after position {chain.proved:,} and " if chain.proved >= 0 else ""
                chain.sign(
                    "contradicted",
                    each.covers,
                    lines[0].place,
                    f"the checkpoint at {self._where(each.place)} says otherwise: what stands {after}up to here "
                    "was rewritten",
                )
        chain.checkpoints = len(positions)
        chain.gate = stated[-1].gate if stated else (chain.opened.gate if chain.opened else "")
        chain.numbers = tuple(dict.fromkeys(each.number for each in stated if each.number is not None))
        own = sum(each > chain.proved for each in positions)
        chain.tail = max(0, chain.last - max(chain.proved, chain.first - 1) - own)
        if not chain.tail:
            chain.since = ""
        elif chain.last > max((each.position for each in stated), default=-1):
            since, until = seconds(chain.since), seconds(chain.ended)
            chain.overdue = since < 0 or until - since > LONGEST_TAIL
        chain.begin = "" if self._begin_at is None else self._where(self._begin_at)
        chain.end = "" if self._before is None else self._where(self._before)

    # --- reading what was kept ------------------------------------------------------------------------------------

    def _reaching(self, position: int) -> int:
        """The first segment that may reach as far as a position."""
        return bisect_right(self._reach, position - 1)

    def _at(self, segment: Segment, position: int) -> Place:
        """Where a line of a whole segment is."""
        at = segment.offset + segment.lines * 32 + (position - segment.first) * 8
        number = int.from_bytes(self._read(segment.file, at, 8), "little")
        return Place(segment.task, number & NUMBER)

    def _lines(self, segment: Segment, position: int) -> list[Line]:
        """The lines of a segment at one position."""
        if segment.whole:
            at = position - segment.first
            own = self._read(segment.file, segment.offset + at * 32, 32)
            return [Line(position, b"", own, self._at(segment, position).line, "", segment.task)]
        low, high = 0, segment.lines
        while low < high:
            middle = (low + high) // 2
            if self._line(segment, middle).position < position:
                low = middle + 1
            else:
                high = middle
        found = []
        while low < segment.lines and (line := self._line(segment, low)).position == position:
            found.append(line)
            low += 1
        return found

    def _line(self, segment: Segment, index: int) -> Line:
        data = self._read(segment.file, segment.offset + index * LINE.size, LINE.size)
        return _line(LINE.unpack(data), segment.task)

    def _stream(self, segment: Segment, room: int) -> Iterator[Line]:
        """All lines of a segment, by position."""
        if not segment.whole:
            many = max(1, room // LINE.size)
            for index in range(0, segment.lines, many):
                size = min(many, segment.lines - index) * LINE.size
                data = self._read(segment.file, segment.offset + index * LINE.size, size)
                for fields in LINE.iter_unpack(data):
                    yield _line(fields, segment.task)
            return
        many, head = max(1, room // 40), segment.previous
        for index in range(0, segment.lines, many):
            size = min(many, segment.lines - index)
            hashes = self._read(segment.file, segment.offset + index * 32, size * 32)
            numbers = array(
                "Q", self._read(segment.file, segment.offset + segment.lines * 32 + index * 8, size * 8)
            )
            for step in range(size):
                own = hashes[step * 32 : step * 32 + 32]
                position = segment.first + index + step
                time = ""
                if position == segment.first:
                    time = segment.begun
                elif position == segment.last:
                    time = segment.ended
                elif position == segment.checkpoint:
                    time = segment.since
                yield Line(position, head, own, numbers[step], time, segment.task)
                head = own


def _line(fields: tuple[int, bytes, bytes, int, bytes], task: int) -> Line:
    position, previous, own, number, time = fields
    return Line(position, previous, own, number, time.rstrip(b"\0").decode(), task)


def _clusters(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Segments that have positions in common, together; those that aren't whole are joined with what they touch."""
    cluster: list[Segment] = []
    reach = -1
    for segment in segments:
        if cluster and segment.first > reach:
            yield cluster
            cluster = []
        cluster.append(segment)
        reach = max(reach, segment.last)
    if cluster:
        yield cluster


class Files:
    """The segments' files, open for reading."""

    def __init__(self) -> None:
        self._open: dict[int, int] = {}

    def add(self, number: int, path: str) -> None:
        self._open[number] = os.open(path, os.O_RDONLY)

    def read(self, file: int, offset: int, size: int) -> bytes:
        return os.pread(self._open[file], size, offset)

    def close(self) -> None:
        for number in self._open.values():
            os.close(number)
        self._open.clear()
