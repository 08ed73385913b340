"""The gate's audit events on this machine: one JSON object a line, in the stack's `audit.ndjson`."""

import json
import time
from pathlib import Path
from typing import Any

EVENTS = ("decision", "evaluation", "outcome")


class AuditFile:
    """Keeps the gate's audit events out of everything else that the runtime prints."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self, line: str) -> None:
        """Append the line when it is an audit event."""
        if not line.startswith('{"event":'):
            return
        try:
            event = json.loads(line)
        except ValueError:
            return
        if event["event"] in EVENTS:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)


def events(audit: Path, request_id: str, *, count: int = 1, seconds: float = 5.0) -> list[dict[str, Any]]:
    """The events of one request, in the order they were written.

    They come through a pipe and a file, so this waits up to `seconds` for `count` of them, and returns what there is.
    """
    deadline = time.monotonic() + seconds
    while True:
        # The last line may be half written.
        lines = audit.read_text(encoding="utf-8").split("\n")[:-1]
        found = [event for event in map(json.loads, lines) if event["request_id"] == request_id]
        if len(found) >= count or time.monotonic() >= deadline:
            return found
        time.sleep(0.02)
