"""Events of logs as they were written, many at a time, numbered; whatever carried them was taken off.

Lines that begin with an event and end with one are handed on as they are; only the others are looked into
(airgate.audit.source).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airgate.audit.source import Tally

STANDARD_INPUT = Path("-")
EVENT = b'{"event":"'


def batches(logs: list[Path], tally: "Tally | None" = None) -> Iterator[tuple[str, list[tuple[int, bytes]]]]:
    """What may be events of each log, with the numbers of their lines; foreign lines are counted in the tally.

    A bar is shown at a terminal when it takes longer than a second. Raises RecordError.
    """
    from airgate.audit import source  # late, for the commands of airgate.audit use airgate.policy

    counts = source.Tally() if tally is None else tally
    with source.watched(source.paths(logs)) as files:
        for name, chunks in files:
            counts.files += 1
            base = 0
            for chunk in chunks(counts):
                lines = chunk.split(b"\n")
                yield name, list(_events(lines, base, counts))
                base += len(lines) - (not lines[-1])
            counts.lines += base


def parted(line: bytes) -> list[bytes]:
    """The events of a line that holds several, one behind the other."""
    from airgate.audit import source

    if line.find(EVENT, 1) < 0:
        return [line]
    return [text for _, text in source.texts(line, source.Tally())]


def _events(lines: list[bytes], base: int, tally: "Tally") -> Iterator[tuple[int, bytes]]:
    from airgate.audit import source

    other: list[bytes] = []  # lines that come one after the other, for an object may extend over many
    begun = base
    for number, line in enumerate(lines, base + 1):
        if not (line.startswith(EVENT) and line.endswith(b'"}')):
            if not other:
                begun = number - 1
            other.append(line)
            continue
        if other:
            yield from ((begun + at, text) for at, text in source.texts(b"\n".join(other), tally))
            other = []
        yield number, line
    if other:
        yield from ((begun + at, text) for at, text in source.texts(b"\n".join(other), tally))
