"""Audit logs as they come: raw, packed, or wrapped by what carried them; read in one pass, in flat memory.

    tally = Tally()
    for event in events([Path("audit.ndjson"), Path("logpush/")], tally):
        ...
    print(*tally.sentences(), sep="\n")

What a file is, its content tells and not its name:

- raw: an event a line, with or without text before it (R2 batches, `audit.ndjson`, what was copied off a terminal);
- `wrangler tail --format json`: objects with `logs[].message[]`, each over many lines or on one;
- Logpush (workers_trace_events): one object a line with `Logs[].Message[]`, where long texts may be cut;
- any of these in gzip, on standard input (`-`), or in a folder.

All of it is outside input. Lines, objects and nesting have a limit before anything is parsed, and nothing is unpacked
into memory as a whole. What can't be read is counted, never guessed, and nothing is left out in silence.
"""

import json
import re
import sys
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import IO, Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from airgate.policy.output import PATIENCE, printable
from airgate.policy.recorded import RecordError

STANDARD_INPUT = Path("-")
LONGEST = 8 << 20  # bytes of a line, or of an object over many lines; a Worker's call logs 256 KB at most
LONGEST_EVENT = (
    1 << 18
)  # bytes of one event; the gate's own are 8 KB at most, and older ones a few times that
MOST_TOLD = 5  # places that are kept of what is broken
MOST_LINES = 65_536  # of an object over many lines, as far as its beginning is looked for
MOST_SPANS = 500_000  # of places in chains that are remembered to find doubles

BLOCK = 1 << 20  # bytes that are read at once
HEAD = b'{"event":"'  # how the gate begins every event
GZIP = b"\x1f\x8b"
CUT = "<<<Logpush:"  # where Logpush has cut a text

_INSIDE = b" \t}\r\n"  # how a line begins that may be inside of an object over many lines
_KEPT = 64  # bytes that stand for a line that is too long
_DEEPEST = 64  # levels of what only the general parser reads
_PLACE = re.compile(
    rb',"chain":"([0-9a-f]{32})","position":(0|[1-9][0-9]{0,15}),"previous":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"\}'
)


class SourceError(RecordError):
    """A log can't be read at all. The message says why."""


@dataclass
class Tally:
    """What was read, and what of it was none of the gate's or broken."""

    files: int = 0
    lines: int = 0
    events: int = 0
    unchained: int = 0  # of these: events without a place in a chain (schema 1)
    foreign: int = 0  # lines of something else
    broken: int = 0  # events that are cut, half-written or no JSON
    cut: int = 0  # of these: cut by Logpush
    doubled: int = 0  # events that were there before, by chain and position; only the first one counts
    unasked: int = 0  # events that were not looked at for doubles, for there was no more room to remember
    damaged: list[str] = field(
        default_factory=list
    )  # packed files that end too early, or are no gzip any more
    told: list[str] = field(default_factory=list)  # the first broken events: place, and what is wrong

    def sentences(self) -> list[str]:
        """For a person: first what was read, then what isn't in it."""
        said = [
            f"{_counted(self.events, 'event')} in {_counted(self.files, 'file')} ({_counted(self.lines, 'line')})"
        ]
        if self.unchained:
            said.append(
                f"{_counted(self.unchained, 'event')} of an older gate without a place in a chain (unchained)"
            )
        if self.doubled:
            said.append(f"{_counted(self.doubled, 'event')} had been there before; the first one counts")
        if self.unasked:
            said.append(
                f"{_counted(self.unasked, 'event')} not looked at for doubles: the logs are in too little order"
            )
        if self.foreign:
            said.append(f"{_counted(self.foreign, 'line')} of something else")
        if self.broken:
            said.append(f"{_counted(self.broken, 'broken or half-written event')}{':' if self.told else ''}")
            said += [f"  {printable(place)}" for place in self.told]
        if self.cut:
            said.append(
                f"{_counted(self.cut, 'event')} cut by Logpush, which keeps 16,384 characters of one call; R2 keeps all"
            )
        said += [f"{printable(name)}" for name in self.damaged]
        return said

    def broke(self, name: str, number: int, why: str, text: bytes = b"") -> None:
        """Count an event that can't be read."""
        self.broken += 1
        if CUT.encode() in text:
            self.cut += 1
            why = "cut by Logpush"
        if len(self.told) < MOST_TOLD:
            self.told.append(f"{name}:{number}: {why}")


def events(logs: Sequence[Path], tally: Tally) -> Iterator[dict[str, Any]]:
    """Every event of the gate, in the order of the logs; each has texts `event` and `time`. Raises SourceError.

    An event whose place in a chain was there before is counted, and left out: whatever delivers logs may deliver twice.
    """
    seen = _Seen()
    with watched(paths(logs)) as files:
        for name, chunks in files:
            tally.files += 1
            base = 0
            for chunk in chunks(tally):
                for number, text, event in _read(chunk, tally):
                    if isinstance(event, str):
                        tally.broke(name, base + number, event, text)
                    elif event is not None:
                        place = event.get("chain"), event.get("position")
                        if isinstance(place[0], str) and type(place[1]) is int:
                            if not seen.new(place[0], place[1]):
                                tally.doubled += 1
                                continue
                        else:
                            tally.unchained += 1
                        tally.events += 1
                        yield event
                    else:
                        tally.foreign += 1
                lines = chunk.count(b"\n") + (not chunk.endswith(b"\n"))
                base += lines
                tally.lines += lines
    tally.unasked = seen.unasked


def paths(logs: Sequence[Path]) -> list[Path]:
    """The files: those that are named, and all below a folder, by name. Raises SourceError."""
    found: list[Path] = []
    for log in logs:
        if log != STANDARD_INPUT and log.is_dir():
            below = sorted(
                path for path in log.rglob("*") if path.is_file() and not path.name.startswith(".")
            )
            if not below:
                raise SourceError(f"{log}: there is no file in this folder")
            found += below
        elif log == STANDARD_INPUT and log in found:
            raise SourceError("Standard input (-) can be read once only; name it once")
        else:
            found.append(log)
    return found


class Chunks:
    """A log in pieces that end where a line ends, and no object over many lines is torn."""

    def __init__(self, name: str, path: Path, bar: "Bar") -> None:
        self._name, self._path, self._bar = name, path, bar

    def __call__(self, tally: Tally) -> Iterator[bytes]:
        """Raises SourceError."""
        if self._path == STANDARD_INPUT:
            yield from pieces(self._blocks(sys.stdin.buffer, tally))
            return
        try:
            with self._path.open("rb") as file:
                yield from pieces(self._blocks(file, tally))
        except OSError as error:
            raise SourceError(f"{self._name}: can't be read: {error.strerror}") from None

    def _blocks(self, file: IO[bytes], tally: Tally) -> Iterator[bytes]:
        try:
            yield from unpacked(file, self._bar.advance)
        except Damaged as error:
            tally.damaged.append(f"{self._name}: {error}")


@contextmanager
def watched(files: Sequence[Path]) -> Iterator[list[tuple[str, Chunks]]]:
    """The files with their names, and a bar on a terminal when they take longer than a second. Raises SourceError."""
    total = 0
    for path in files:
        if path != STANDARD_INPUT:
            try:
                total += path.stat().st_size
                if path.is_file():  # a pipe can be opened once only
                    path.open("rb").close()
            except OSError as error:
                raise SourceError(f"{path}: can't be read: {error.strerror}") from None
    with Bar(None if STANDARD_INPUT in files else total) as bar:
        yield [(called(path), Chunks(called(path), path, bar)) for path in files]


def called(path: Path) -> str:
    return "standard input" if path == STANDARD_INPUT else str(path)


class Damaged(Exception):
    """A packed file ends too early, or is no gzip from some byte on. The message says which."""


def unpacked(file: IO[bytes], advance: Callable[[int], None] | None = None) -> Iterator[bytes]:
    """The bytes of a file, a block at a time, out of gzip if they are in it. Raises Damaged, after what could be read.

    `advance` is told how many bytes of the file were read.
    """
    block = file.read(BLOCK)
    while block and len(block) < len(GZIP) and (more := file.read(BLOCK)):  # of a pipe
        block += more
    if not block.startswith(GZIP):
        while block:
            yield block
            if advance is not None:
                advance(len(block))
            block = file.read(BLOCK)
        return
    stream = zlib.decompressobj(wbits=31)
    while block:
        size = len(block)
        while block:
            if stream.eof:  # another member may follow, and zeros that fill up a block
                block = block.lstrip(b"\0")
                if not block:
                    break
                stream = zlib.decompressobj(wbits=31)
            try:
                data = stream.decompress(block, BLOCK)
            except zlib.error:
                raise Damaged("is no gzip from some byte on; what comes before it was read") from None
            block = stream.unused_data if stream.eof else stream.unconsumed_tail
            if data:
                yield data
        if advance is not None:
            advance(size)
        block = file.read(BLOCK)
    if not stream.eof:
        if data := stream.flush():
            yield data
        raise Damaged(
            "the gzip file ends in the middle, or something stands behind it; what is there was read"
        )


def pieces(blocks: Iterator[bytes], size: int = 1 << 22) -> Iterator[bytes]:
    """The same bytes in pieces of about `size` that begin and end with a line. Of a line that is longer than LONGEST
    only the beginning is kept."""
    rest, skipping = b"", False
    for block in blocks:
        if skipping:
            end = block.find(b"\n")
            if end < 0:
                continue
            block, skipping = block[end:], False
        rest += block
        if len(rest) < size:
            continue
        at = boundary(rest)
        if not at and len(rest) > LONGEST:
            at = rest.rfind(b"\n") + 1
            if not at:
                rest, skipping = rest[:_KEPT], True
        if at:
            yield rest[:at]
            rest = rest[at:]
    if rest:
        yield rest


def boundary(data: bytes) -> int:
    """Where the last line begins that is no part of an object over many lines.

    0 when there is none but the first, or none in the last MOST_LINES lines.
    """
    at = data.rfind(b"\n", 0, len(data) - 1)
    for _ in range(MOST_LINES):
        if at < 0 or data[at + 1] not in _INSIDE:
            return at + 1
        at = data.rfind(b"\n", 0, at)
    return 0


def texts(chunk: bytes, tally: Tally) -> Iterator[tuple[int, bytes]]:
    """What may be events in a piece of a log, each with the number of its line in the piece, from 1 on.

    A text begins where an event begins, unless its beginning is broken, and ends where one ends or with the line. Lines
    of something else are counted. A text that can't be read may be several events on one line: see parted().
    """
    opened: list[bytes] = []  # lines of an object over many lines
    begun = number = 0
    for line in chunk.split(b"\n"):
        number += 1
        if line.startswith(HEAD) and not opened:
            if line.endswith(b'"}'):
                yield number, line
            else:
                yield from ((number, text) for text in parted(line))
            continue
        if opened:
            if line[:1] in (b" ", b"\t"):
                opened.append(line)
                continue
            if line[:1] == b"}":
                opened.append(line)
                yield from ((begun, text) for text in _unwrapped(b"\n".join(opened), tally))
                opened = []
                continue
            tally.foreign += len(opened)  # it ends before it is complete
            opened = []
        if not line or line.isspace():
            continue
        if line.rstrip() == b"{":
            opened, begun = [line], number
        elif HEAD in line or HEAD.startswith(line) or _PLACE.search(line[-320:]):
            yield from ((number, text) for text in parted(line))
        elif line.startswith(b"{"):
            yield from ((number, text) for text in _unwrapped(line, tally))
        else:
            tally.foreign += 1
    tally.foreign += len(opened)


def parted(line: bytes) -> Iterator[bytes]:
    """The events of one line, for there may be several; what stands before the first and after the last is left out,
    unless it holds the beginning of an event."""
    whole = line.strip()
    if isinstance(parsed(whole), dict):
        yield whole
        return
    at = 0
    for found in _PLACE.finditer(line):
        first, head = line.find(HEAD, at, found.end()), line.rfind(HEAD, at, found.end())
        if first < head:  # something that was cut off, and no line's end after it
            yield line[first:head]
        yield line[at if head < 0 else head : found.end()]
        at = found.end()
    head = 0 if HEAD.startswith(line) else line.find(HEAD, at)
    while head >= 0:
        following = line.find(HEAD, head + 1)
        yield line[head : following if following > 0 else len(line)].rstrip()
        head = following


def _unwrapped(text: bytes, tally: Tally) -> Iterator[bytes]:
    """What may be events in an object that carries them; or the object itself, when it is one, written otherwise."""
    document = parsed(text, LONGEST)
    if not isinstance(document, dict):
        tally.foreign += 1
        return
    entries = document.get("logs") or document.get("Logs")
    if isinstance(entries, list):
        for entry in entries:
            messages = (entry.get("message") or entry.get("Message")) if isinstance(entry, dict) else None
            for message in messages if isinstance(messages, list) else [messages]:
                if isinstance(message, str):
                    for line in message.encode("utf-8", "surrogatepass").split(b"\n"):
                        if HEAD in line:
                            yield from parted(line)
    elif isinstance(document.get("event"), str) and "schema" in document:
        yield text
    elif not ({"logs", "Logs"} & document.keys()):
        tally.foreign += 1


def parsed(text: bytes, longest: int = LONGEST_EVENT) -> Any:
    """What a JSON text says; None when it is none, too long or nested too deeply."""
    if len(text) > longest:
        return None
    try:
        return orjson.loads(text)  # no deeper than 1,024 levels
    except ValueError:
        pass
    # Half of a character pair is what a caller may send, and only the general parser reads it.
    if b"\\ud" not in text.lower() or _depth(text) > _DEEPEST:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _depth(text: bytes) -> int:
    """How deep a text could be nested, at most."""
    deep = deepest = 0
    for byte in text:
        if byte in b"[{":
            deep += 1
            deepest = max(deepest, deep)
        elif byte in b"]}":
            deep -= 1
    return deepest


def _read(chunk: bytes, tally: Tally) -> Iterator[tuple[int, bytes, dict[str, Any] | str | None]]:
    """The events in a piece of a log, as `_event` reads them."""
    for number, text in texts(chunk, tally):
        event = _event(text)
        if isinstance(event, str) and len(parts := list(parted(text))) > 1:
            yield from ((number, part, _event(part)) for part in parts)
        else:
            yield number, text, event


def _event(text: bytes) -> dict[str, Any] | str | None:
    """An event of the gate; what is wrong with one; or None: it is somebody else's."""
    event = parsed(text)
    if event is None:
        return "too long for an event" if len(text) > LONGEST_EVENT else "not JSON; it may have been cut off"
    if not isinstance(event, dict) or not isinstance(event.get("event"), str) or "schema" not in event:
        return None
    if not isinstance(event.get("time"), str):
        return "holds no time"
    return event


class _Seen:
    """Which places in chains were there already: spans of positions, so that logs in order take no room."""

    def __init__(self) -> None:
        self._spans: dict[str, list[int]] = {}  # first, last + 1, first, last + 1, … in order
        self._room = MOST_SPANS
        self.unasked = 0

    def new(self, chain: str, position: int) -> bool:
        """Whether the place wasn't there before; from now on it is."""
        spans = self._spans.get(chain)
        if spans is None:
            spans = self._spans[chain] = []
        if spans and spans[-1] == position:  # the usual case: the next one
            spans[-1] = position + 1
            return True
        at = bisect_right(spans, position)
        if at % 2:
            return False
        before = at > 0 and spans[at - 1] == position
        after = at < len(spans) and spans[at] == position + 1
        if before and after:
            del spans[at - 1 : at + 1]
            self._room += 1
        elif before:
            spans[at - 1] = position + 1
        elif after:
            spans[at] = position
        elif self._room > 0:
            spans[at:at] = [position, position + 1]
            self._room -= 1
        else:
            self.unasked += 1
        return True


class Bar:
    """A bar on standard error at a terminal, once there is reason for one. `total`: bytes, if they are known."""

    def __init__(self, total: int | None, what: str = "reading") -> None:
        self._total, self._what = total, what
        self._begin = monotonic()
        self._progress: Progress | None = None
        self._done = 0

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def advance(self, size: int) -> None:
        self._done += size
        if self._progress is None:
            screen = Console(stderr=True)
            if not screen.is_terminal or monotonic() - self._begin < PATIENCE:
                return
            self._progress = Progress(
                TextColumn(self._what), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
                console=screen, transient=True,
            )  # fmt: skip
            self._progress.start()
            self._task = self._progress.add_task(self._what, total=self._total)
        self._progress.update(self._task, completed=self._done)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
