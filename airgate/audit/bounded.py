"""Tables that stay small however much is counted in them, and times of which only quantiles are asked.

What is rare is folded into one row for the rest, so sums stay right; a row that was folded and comes again begins anew,
so a kept row may say too little once anything has been folded, and never too much.
"""

from collections.abc import Callable, Hashable, Iterator
from itertools import pairwise
from typing import Generic, Protocol, Self, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Mergeable(Protocol):
    """What a row can do."""

    @property
    def weight(self) -> int:
        """How many it stands for."""

    def merge(self, other: Self) -> None:
        """Take another row's numbers in."""


Row = TypeVar("Row", bound=Mergeable)


class Bounded(Generic[Key, Row]):
    """Rows by key: the heaviest `limit` of them, and twice as many while it counts."""

    def __init__(self, limit: int, new: Callable[[], Row]) -> None:
        self.limit = limit
        self.rest = new()  # what was folded
        self.folded = 0  # rows that were folded; one that came again counts again
        self._new = new
        self._rows: dict[Key, Row] = {}

    def __getitem__(self, key: Key) -> Row:
        """The row of a key, made when there is none."""
        row = self._rows.get(key)
        if row is None:
            if len(self._rows) >= 2 * self.limit:
                self._fold()
            row = self._rows[key] = self._new()
        return row

    def held(self, key: Key) -> Row:
        """The row of a key that had one; the one for the rest when it has been folded."""
        return self._rows.get(key, self.rest)

    def __len__(self) -> int:
        return len(self._rows)

    def heaviest(self) -> Iterator[tuple[Key, Row]]:
        """The rows, the heaviest first, after folding what is over the limit."""
        if len(self._rows) > self.limit:
            self._fold()
        return iter(sorted(self._rows.items(), key=_order))

    def _fold(self) -> None:
        ordered = sorted(self._rows.items(), key=_order)
        for _, row in ordered[self.limit :]:
            self.rest.merge(row)
        self.folded += len(ordered) - self.limit
        self._rows = dict(ordered[: self.limit])


def _order(item: tuple[Hashable, Mergeable]) -> tuple[int, str]:
    return -item[1].weight, repr(item[0])


class Times:
    """Lengths of time in whole milliseconds: exact below 128, at most 1.6 % too low above."""

    __slots__ = ("_buckets", "count")

    def __init__(self) -> None:
        self.count = 0
        self._buckets: dict[int, int] = {}  # at most 128, and 64 for each doubling after that

    def add(self, milliseconds: int) -> None:
        shift = max(0, milliseconds.bit_length() - 7)
        bucket = milliseconds >> shift << shift
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self.count += 1

    def merge(self, other: "Times") -> None:
        for bucket, number in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + number
        self.count += other.count

    def quantile(self, part: float) -> int | None:
        """The smallest time that at least this part of all is not above; None when there are none."""
        wanted, seen = part * self.count, 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return bucket
        return None


class Number:
    """A row that is nothing but a number."""

    __slots__ = ("weight",)

    def __init__(self) -> None:
        self.weight = 0

    def merge(self, other: "Number") -> None:
        self.weight += other.weight


class Bins:
    """Permits and denials over time, in bins as wide as they have to be."""

    _WIDTHS = (60, 300, 900, 3600, 10_800, 21_600, 86_400, 604_800, 2_592_000, 31_536_000)

    def __init__(self, most: int = 2000) -> None:
        self._most = most
        self.width = self._WIDTHS[0]  # seconds
        self._bins: dict[int, list[int]] = {}  # by their beginning: permits, denials

    def add(self, when: float, permit: bool) -> None:
        start = int(when) // self.width * self.width
        found = self._bins.get(start)
        if found is None:
            if len(self._bins) >= self._most and self.width < self._WIDTHS[-1]:
                self._widen(next(width for width in self._WIDTHS if width > self.width))
                self.add(when, permit)
                return
            found = self._bins[start] = [0, 0]
        found[0 if permit else 1] += 1

    def _widen(self, width: int) -> None:
        before, self.width, self._bins = self._bins, width, {}
        for start, numbers in before.items():
            found = self._bins.setdefault(start // width * width, [0, 0])
            found[0] += numbers[0]
            found[1] += numbers[1]

    def bars(self, most: int) -> tuple[int, list[tuple[int, int, int]]]:
        """How many seconds a bar stands for, and each bar's beginning, permits and denials; empty ones too."""
        if not self._bins:
            return self.width, []
        first, last = min(self._bins), max(self._bins)
        widths = [width for width in self._WIDTHS if width >= self.width]
        width = next((one for one in widths if (last // one - first // one) < most), widths[-1])
        while last // width - first // width >= most:  # a clock that was centuries ahead
            width *= 10
        summed: dict[int, list[int]] = {}
        for start, numbers in self._bins.items():
            found = summed.setdefault(start // width * width, [0, 0])
            found[0] += numbers[0]
            found[1] += numbers[1]
        starts = range(first // width * width, last // width * width + 1, width)
        return width, [(start, *summed.get(start, [0, 0])) for start in starts]  # type: ignore[misc]

    def silences(self, shortest: int, most: int) -> list[tuple[int, int]]:
        """The longest times without a decision: when each began and ended, to the width of a bin."""
        starts = sorted(self._bins)
        found = [
            (before + self.width, after)
            for before, after in pairwise(starts)
            if after - before - self.width >= shortest
        ]
        return sorted(found, key=lambda one: one[0] - one[1])[:most]
