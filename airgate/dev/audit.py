"""The gate's audit log on this machine: the event lines as the gate wrote them, in the stack's `audit.ndjson`."""

import json
import time
from pathlib import Path
from typing import Any

_BEGIN, _END = '{"event":"', "}\n"


class AuditFile:
    """Keeps the gate's audit events out of everything else that the runtime prints."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self, line: str) -> None:
        """Append the line, with the line break at its end, when it is an event: byte for byte, for it is signed."""
        if line.startswith(_BEGIN) and line.endswith(_END):
            with self._path.open("a", encoding="utf-8", newline="") as file:
                file.write(line)


def events(audit: Path, request_id: str, *, count: int = 1, seconds: float = 5.0) -> list[dict[str, Any]]:
    """The events of one request, in the order they were written.

    They come through a pipe and a file, so this waits up to `seconds` for `count` of them, and returns what there is.
    """
    deadline = time.monotonic() + seconds
    member = f'"request_id":{json.dumps(request_id)}'
    while True:
        # The last line may be half written.
        lines = audit.read_text(encoding="utf-8").split("\n")[:-1]
        found = [json.loads(line) for line in lines if member in line]
        found = [event for event in found if event.get("request_id") == request_id]
        if len(found) >= count or time.monotonic() >= deadline:
            return found
        time.sleep(0.02)
