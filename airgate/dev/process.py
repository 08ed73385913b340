"""One child process of the local stack: started in a group of its own, logged line by line, ended for certain."""

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

GRACE = 5.0  # seconds between asking a process to end and ending it


class Process:
    """A running child. Its output goes to a log file; `on_line` is called with each line, from a thread.

    Its standard input stays open until stop(), and closes when this process dies, however it dies: a child that watches
    for that never outlives its parent.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        cwd: Path,
        env: Mapping[str, str],
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._last: deque[str] = deque(maxlen=20)
        self._on_line = on_line
        self._popen = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # a group of its own: stop() reaches its children, Ctrl-C doesn't reach it first
        )
        self._reader = threading.Thread(target=self._read, name=f"{name} log", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id, and id of the process group."""
        return self._popen.pid

    @property
    def status(self) -> int | None:
        """Exit status (negative: the signal that ended it), None while it runs."""
        return self._popen.poll()

    def last_lines(self) -> list[str]:
        """What it said last, at most 20 lines."""
        if self.status is not None:
            self._reader.join(GRACE)
        return list(self._last)

    def ask_to_end(self) -> None:
        """Send SIGTERM to the whole group."""
        if self.status is None:
            self._signal(signal.SIGTERM)

    def stop(self) -> None:
        """End the whole group and wait until it's gone: SIGTERM, after 5 s SIGKILL. Harmless when it has ended."""
        self.ask_to_end()
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(GRACE)
        # The group may hold grandchildren (workerd) when the child itself is gone already.
        deadline = time.monotonic() + GRACE
        while self._signal(0) and time.monotonic() < deadline:
            self._popen.poll()
            time.sleep(0.02)
        self._signal(signal.SIGKILL)
        self._popen.wait()
        self._reader.join(GRACE)
        # Somebody who left the group may hold the other end yet: then the thread goes on reading.
        read = None if self._reader.is_alive() else self._popen.stdout
        for stream in (self._popen.stdin, read):
            if stream is not None:
                stream.close()

    def _signal(self, number: int) -> bool:
        try:
            os.killpg(self._popen.pid, number)
        except ProcessLookupError:
            return False
        except PermissionError:  # macOS, when only zombies are left in the group
            return False
        return True

    def _read(self) -> None:
        output: IO[str] | None = self._popen.stdout
        if output is None:
            return
        with self.log.open("w", encoding="utf-8", buffering=1) as log:
            for line in output:
                log.write(line)
                self._last.append(line.rstrip("\n"))
                if self._on_line is not None:
                    self._on_line(line)
