"""A log as it grows: a file of this machine, or what `wrangler tail` prints of a deployed gate.

Both hand over whole events, as they were written, and beside them what somebody who watches ought to know.
"""

import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

from airgate.audit.source import LONGEST, Tally, texts
from airgate.node import LINES, PROJECT, environment, said, wrangler
from airgate.policy.lines import EVENT
from airgate.policy.recorded import RecordError

PAUSE = 0.1  # seconds between two looks at a file
GRACE = 8.0  # seconds that wrangler has to take its tail off
MOST_WAITING = 10_000  # objects that were read and not shown yet; then reading waits


class Log(Protocol):
    """A log that is being followed."""

    notices: list[str]  # not shown yet; whoever shows them takes them away

    def read(self, seconds: float) -> list[bytes] | None:
        """Events that are new, after `seconds` perhaps none. None: no more will come; the notices say why."""

    def close(self) -> None:
        """Leave it alone."""


class File:
    """A file, also when it's moved away and begun anew, or emptied."""

    def __init__(self, path: Path, before: int = 0) -> None:
        """`before`: how many lines from its end are read first. Raises RecordError."""
        self.notices: list[str] = []
        self._path = path
        self._rest = b""
        try:
            self._file: IO[bytes] = path.open("rb")
        except OSError as error:
            raise RecordError(f"{path}: can't be read: {error.strerror}") from None
        self._file.seek(_beginning(self._file, before))

    def read(self, seconds: float) -> list[bytes] | None:
        end = time.monotonic() + seconds
        while True:
            lines = self._lines()
            if lines or time.monotonic() >= end:
                return lines
            time.sleep(min(PAUSE, max(0.0, end - time.monotonic())))

    def close(self) -> None:
        self._file.close()

    def _lines(self) -> list[bytes]:
        data = self._file.read(LONGEST)
        if not data and self._moved():
            data = self._file.read(LONGEST)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            self._rest = b""
        return [line for line in lines if line.startswith(EVENT)]

    def _moved(self) -> bool:
        """Whether there is another file now, or less in it; if so, it's read from its beginning."""
        try:
            now, had = self._path.stat(), os.fstat(self._file.fileno())
        except OSError:  # it's away, and may come again
            return False
        if (now.st_dev, now.st_ino) == (had.st_dev, had.st_ino):
            if now.st_size >= self._file.tell():
                return False
            self._file.seek(0)
        else:
            with suppress(OSError):
                fresh = self._path.open("rb")
                self._file.close()
                self._file = fresh
        self._rest = b""
        self.notices.append(f"{self._path} was begun anew")
        return True


def _beginning(file: IO[bytes], lines: int) -> int:
    """Where the last so many lines of a file begin."""
    at = size = file.seek(0, os.SEEK_END)
    data = b""
    while at > 0 and data.count(b"\n") <= lines:
        step = min(at, 1 << 16)
        at -= step
        file.seek(at)
        data = file.read(step) + data
        if len(data) > LONGEST:
            break
    kept = data.split(b"\n")[-lines - 1 :]
    return size - len(b"\n".join(kept))


class Objects:
    """JSON objects out of a stream of lines, each on one line or on many; what stands between them is left out."""

    def __init__(self) -> None:
        self._open: list[bytes] = []
        self._size = 0

    def take(self, line: bytes) -> bytes | None:
        """The object that ends with this line, if one does."""
        if not self._open:
            if line.rstrip() == b"{":
                self._open, self._size = [line], len(line)
                return None
            return line if line.startswith(b"{") else None
        self._open.append(line)
        self._size += len(line)
        if line[:1] == b"}":
            found, self._open = b"".join(self._open), []
            return found
        if line[:1] not in (b" ", b"\t") or self._size > LONGEST:
            self._open = []
        return None


class Tail:
    """`wrangler tail` of a deployed gate, as a child process."""

    def __init__(self, selected: Sequence[str]) -> None:
        """`selected`: wrangler's arguments that say which Worker. Raises NodeMissing."""
        self.notices: list[str] = []
        self.tally = Tally()
        self._stopping = False
        self._said: list[str] = []
        self._objects: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        self._child = subprocess.Popen(
            wrangler(["tail", "--format", "json", *selected]),
            cwd=PROJECT,
            env=environment(None),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the child
        )
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._read, self._listen)]
        for thread in self._threads:
            thread.start()

    def read(self, seconds: float) -> list[bytes] | None:
        found: list[bytes] = []
        with suppress(queue.Empty):
            one = self._objects.get(timeout=seconds)
            while one is not None:
                found += self._events(one)
                one = self._objects.get_nowait()
            self._objects.put(None)  # whoever asks again is told again
            if not found:
                self._tell_end()
                return None
        return found

    def close(self) -> None:
        """End the child: asked to, it takes its tail off the Worker; else it is ended."""
        self._stopping = True
        for number, patience in ((signal.SIGINT, GRACE), (signal.SIGKILL, GRACE)):
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(patience)
                break
        while self._threads[0].is_alive():  # it may wait for room
            with suppress(queue.Empty):
                self._objects.get(timeout=PAUSE)
        for thread, pipe in zip(self._threads, (self._child.stdout, self._child.stderr), strict=True):
            thread.join(GRACE)
            if pipe is not None:
                pipe.close()

    def _events(self, text: bytes) -> list[bytes]:
        told = _notice(text)
        if told:
            self.notices.append(told)
        return [event for _, event in texts(text, self.tally)]

    def _read(self) -> None:
        objects, output = Objects(), self._child.stdout
        for line in output if output is not None else ():
            if (found := objects.take(line)) is not None:
                self._objects.put(found)
        self._objects.put(None)

    def _listen(self) -> None:
        errors = self._child.stderr
        for line in errors if errors is not None else ():
            if text := said(line.decode("utf-8", "replace")):
                self._said = [*self._said, *text][-LINES:]

    def _tell_end(self) -> None:
        status = self._child.wait()
        if self._stopping or self.notices[-1:] == [_END]:
            return
        self._threads[1].join(GRACE)
        told = "\n".join([":", *self._said]) if self._said else ""
        self.notices += [f"wrangler tail ended by itself, with status {status}{told}", _END]


_END = "What comes from now on isn't shown; run the command again"
_OVERLOAD = (
    "There are so many calls that Cloudflare shows only some of them now (sampling). The log itself, by Logpush or in "
    "R2, has them all"
)


def _notice(text: bytes) -> str:
    """What an object says of the tail itself, or of a call whose logs it doesn't hold as a whole."""
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(document, dict):
        return ""
    event = document.get("event")
    kind = event.get("type") if isinstance(event, dict) else None
    if kind == "overload":
        return _OVERLOAD
    if kind == "overload-stop":
        return "All calls are shown again"
    return (
        "A call's logs were cut by Cloudflare: not all of its events are here"
        if document.get("truncated")
        else ""
    )
