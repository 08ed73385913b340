"""Lines of logs, many at a time, numbered, with a bar at a terminal while that takes longer than a second."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from airgate.policy.output import PATIENCE
from airgate.policy.recorded import RecordError

STANDARD_INPUT = Path("-")
LONGEST_LINE = 1 << 18  # bytes; the gate's own come to a few thousand

_CHUNK = 1 << 20  # bytes that are read at once
_KEPT = 32  # bytes of a line that is too long: enough to tell whether it was one of the gate's


def batches(logs: list[Path]) -> Iterator[tuple[str, list[tuple[int, bytes]]]]:
    """Numbered lines of each log, many at a time, with a bar at a terminal when it takes longer than a second."""
    total = 0
    with ExitStack() as stack:
        files: list[tuple[str, IO[bytes]]] = []
        for log in logs:
            if log == STANDARD_INPUT:
                files.append(("standard input", sys.stdin.buffer))
                continue
            try:
                files.append((str(log), stack.enter_context(log.open("rb"))))
                total += log.stat().st_size
            except OSError as error:
                raise RecordError(f"{log}: can't be read: {error.strerror}") from None
        bar = stack.enter_context(_Bar(None if STANDARD_INPUT in logs else total))
        for name, file in files:
            number, rest = 0, b""
            while True:
                try:
                    chunk = file.read(_CHUNK)
                except OSError as error:
                    raise RecordError(f"{name}: can't be read: {error.strerror}") from None
                lines = (rest + chunk).split(b"\n")
                rest = lines.pop() if chunk else b""
                if len(rest) > LONGEST_LINE:
                    # Something that is no log. What was read of it stands for a broken line.
                    lines.append(rest[:_KEPT])
                    rest = b""
                yield name, list(enumerate(lines, number + 1))
                number += len(lines)
                bar.advance(len(chunk))
                if not chunk:
                    break


class _Bar:
    """A bar on standard error, once there is reason for one."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._begin = monotonic()
        self._progress: Progress | None = None
        self._done = 0

    def __enter__(self) -> "_Bar":
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
                TextColumn("reading"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
                console=screen, transient=True,
            )  # fmt: skip
            self._progress.start()
            self._task = self._progress.add_task("reading", total=self._total)
        self._progress.update(self._task, completed=self._done)
