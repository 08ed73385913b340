"""The local stack's audit file: every event of the gate, as it was written, and nothing else."""

from pathlib import Path

import pytest

from airgate.dev.audit import AuditFile, events
from chain import Chain

CHAIN = Chain("a" * 32)
LINES = [
    CHAIN.link('{"event":"opening","schema":2,"time":"2026-11-22T10:00:00.000Z"}'),
    CHAIN.link(
        '{"event":"decision","schema":2,"time":"2026-11-22T10:00:01.000Z","request_id":"7","detail":"\\u001b"}'
    ),
    CHAIN.link('{"event":"outcome","schema":2,"time":"2026-11-22T10:00:02.000Z","request_id":"7"}'),
    CHAIN.link('{"event":"checkpoint","schema":2,"time":"2026-11-22T10:00:03.000Z","document":"\\"7\\""}'),
]
OTHER = [
    ("what the runtime says", "[wrangler:info] Ready on http://127.0.0.1:8787\n"),
    ("an object of somebody else", '{"level":"info","event":"x"}\n'),
    ("an event that the runtime broke off", LINES[1][:80]),
    ("an empty line", "\n"),
]


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    path = tmp_path / "audit.ndjson"
    path.touch()
    return path


def test_every_event_is_kept_as_it_was_written(audit: Path) -> None:
    file = AuditFile(audit)
    for line in LINES:
        file.take(f"{line}\n")
    assert audit.read_text("utf-8") == "".join(f"{line}\n" for line in LINES)


@pytest.mark.parametrize("line", [line for _, line in OTHER], ids=[name for name, _ in OTHER])
def test_what_is_no_event_is_left_out(audit: Path, line: str) -> None:
    AuditFile(audit).take(line)
    assert audit.read_text("utf-8") == ""


def test_a_file_that_was_moved_away_is_begun_anew(audit: Path) -> None:
    file = AuditFile(audit)
    file.take(LINES[0] + "\n")
    audit.rename(audit.with_suffix(".1"))
    file.take(LINES[1] + "\n")
    assert audit.read_text("utf-8") == LINES[1] + "\n"


def test_the_events_of_a_request_are_found_among_those_that_have_none(audit: Path) -> None:
    audit.write_text("\n".join(LINES) + "\n" + LINES[1][:90], "utf-8")
    assert [event["event"] for event in events(audit, "7", count=2)] == ["decision", "outcome"]
    assert events(audit, "8", seconds=0) == []
