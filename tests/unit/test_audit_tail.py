"""Following a log: a file that grows, is moved or emptied; wrangler's tail; and one line for each call."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import logged
import pytest
from rich.console import Console
from test_audit_trace import at
from test_audit_why import CALL, SEED

from airgate.audit import following, tail
from airgate.audit.following import File, Objects, Tail
from airgate.audit.tail import Board, Filter
from airgate.dev.stack import PROJECT
from airgate.policy.compile import Compiled
from airgate.policy.recorded import RecordError
from audit import bundle_event

EVENTS = [f'{{"event":"decision","schema":2,"number":{number}}}' for number in range(9)]


@pytest.fixture
def compiled(tmp_path: Path) -> Compiled:
    return logged.seed(tmp_path / "seed", SEED)


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    path = tmp_path / "audit.ndjson"
    path.write_text("", "utf-8")
    return path


@pytest.fixture
def follow(audit: Path) -> Iterator[Callable[..., File]]:
    """follow(before=0): the log, followed until the test ends."""
    logs: list[File] = []

    def begin(before: int = 0) -> File:
        logs.append(File(audit, before))
        return logs[-1]

    yield begin
    for log in logs:
        log.close()


def add(path: Path, *lines: str, end: str = "\n") -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(f"{line}{end}" for line in lines))


def numbers(lines: list[bytes] | None) -> list[int]:
    return [json.loads(line)["number"] for line in lines or ()]


def test_a_file_is_read_from_its_end_on(audit: Path, follow: Callable[..., File]) -> None:
    add(audit, *EVENTS[:3])
    log = follow()
    assert log.read(0) == []
    add(audit, EVENTS[3], "something else", EVENTS[4])
    assert numbers(log.read(1)) == [3, 4]


@pytest.mark.parametrize(("before", "found"), [(0, []), (1, [2]), (2, [1, 2]), (99, [0, 1, 2])])
def test_the_last_lines_may_be_read_first(
    audit: Path, follow: Callable[..., File], before: int, found: list[int]
) -> None:
    add(audit, *EVENTS[:3])
    assert numbers(follow(before).read(0)) == found


def test_the_last_of_many_lines_are_found(audit: Path, follow: Callable[..., File]) -> None:
    add(audit, *[f'{{"event":"decision","number":{number},"x":"{"x" * 4000}"}}' for number in range(200)])
    assert numbers(follow(30).read(0)) == list(range(170, 200))


def test_a_line_that_is_half_written_waits_for_its_end(audit: Path, follow: Callable[..., File]) -> None:
    log = follow()
    add(audit, EVENTS[0][:20], end="")
    assert log.read(0) == []
    add(audit, EVENTS[0][20:])
    assert numbers(log.read(1)) == [0]


def test_a_file_that_is_moved_away_is_read_to_its_end_and_then_the_new_one(
    audit: Path, follow: Callable[..., File]
) -> None:
    log = follow()
    add(audit, EVENTS[0])
    audit.rename(audit.with_suffix(".1"))
    assert numbers(log.read(0)) == [0]
    assert log.read(0) == []  # there is none for the moment
    add(audit, EVENTS[1])
    assert numbers(log.read(1)) == [1]
    assert log.notices == [f"{audit} was begun anew"]


def test_a_file_that_is_emptied_is_read_from_its_beginning(audit: Path, follow: Callable[..., File]) -> None:
    log = follow()
    add(audit, *EVENTS[:3])
    assert numbers(log.read(0)) == [0, 1, 2]
    audit.write_text(EVENTS[3] + "\n", "utf-8")
    assert numbers(log.read(1)) == [3]


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="can't be read: No such file"):
        File(tmp_path / "nowhere")


OBJECTS = [
    ("pretty", json.dumps({"a": {"b": [1, {"c": "}"}]}}, indent=2) + "\n", 1),
    ("on a line each", '{"a":1}\n{"a":2}\n', 2),
    ("with text between them", 'hello\n{\n  "a": 1\n}\nhello\n{"a":2}\n', 2),
    ("broken off", '{\n  "a": 1,\n{\n  "a": 1\n}\n', 0),
    ("none", "hello\n", 0),
]


@pytest.mark.parametrize(("text", "count"), [each[1:] for each in OBJECTS], ids=[each[0] for each in OBJECTS])
def test_objects_are_taken_out_of_a_stream(text: str, count: int) -> None:
    objects = Objects()
    found = [objects.take(line + b"\n") for line in text.encode().split(b"\n")]
    whole = [json.loads(one) for one in found if one is not None]
    assert len(whole) == count


# In place of wrangler: it prints what its first argument says, and ends as its second one does.
CHILD = """
import signal, sys, time
def end(number, frame):
    print("took the tail off", file=sys.stderr, flush=True)
    open(sys.argv[3], "w").close()
    sys.exit(0)
signal.signal(signal.SIGINT, end)
sys.stdout.write(open(sys.argv[1]).read())
sys.stdout.flush()
if sys.argv[2] == "ends":
    sys.stderr.write("You are not authenticated\\n")
    sys.exit(1)
time.sleep(60)
"""


@pytest.fixture
def wrangler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """wrangler(text, ends): makes Tail start a child that prints the text. What it was asked is in `asked`."""
    asked: list[list[str]] = []

    def stand_in(text: str, ends: str = "stays") -> Tail:
        (tmp_path / "text").write_text(text, "utf-8")

        def command(arguments: Any, *, embedded: bool = False) -> list[str]:
            asked.append(list(arguments))
            return [sys.executable, "-c", CHILD, str(tmp_path / "text"), ends, str(tmp_path / "ended")]

        monkeypatch.setattr(following, "wrangler", command)
        return Tail(["--config", "x.toml", "--env", "staging"])

    stand_in.asked = asked  # type: ignore[attr-defined]
    return stand_in


def told(*events: str, **more: Any) -> str:
    return (
        json.dumps({"outcome": "ok", "logs": [{"message": [one]} for one in events], **more}, indent=4) + "\n"
    )


def all_of(log: Tail, count: int) -> list[bytes]:
    found: list[bytes] = []
    end = time.monotonic() + 10
    while len(found) < count and time.monotonic() < end:
        found += log.read(0.1) or []
    return found


def test_what_wrangler_prints_is_unwrapped_as_it_comes(wrangler: Any, tmp_path: Path) -> None:
    log = wrangler(told(EVENTS[0], "hello", EVENTS[1]) + told() + told(EVENTS[2]))
    assert numbers(all_of(log, 3)) == [0, 1, 2]
    assert wrangler.asked == [["tail", "--format", "json", "--config", "x.toml", "--env", "staging"]]
    log.close()
    assert (tmp_path / "ended").exists()  # it was asked to end, so that it takes its tail off the Worker
    assert log.notices == []


def test_what_cloudflare_leaves_out_is_said(wrangler: Any) -> None:
    overload = {"type": "overload", "message": "\x1b[2JTail is currently in sampling mode"}
    text = (
        told(event=overload) + told(EVENTS[0]) + told(event={"type": "overload-stop"}) + told(truncated=True)
    )
    log = wrangler(text)
    assert numbers(all_of(log, 1)) == [0]
    all_of(log, 1) if len(log.notices) < 3 else None
    log.close()
    assert [notice.split(".")[0] for notice in log.notices] == [
        "There are so many calls that Cloudflare shows only some of them now (sampling)",
        "All calls are shown again",
        "A call's logs were cut by Cloudflare: not all of its events are here",
    ]


def test_wrangler_ending_by_itself_is_said(wrangler: Any) -> None:
    log = wrangler(told(EVENTS[0]), "ends")
    assert numbers(all_of(log, 1)) == [0]
    end = time.monotonic() + 10
    while log.read(0.1) is not None and time.monotonic() < end:
        pass
    assert log.read(0) is None
    assert log.notices == [
        "wrangler tail ended by itself, with status 1:\nYou are not authenticated",
        "What comes from now on isn't shown; run the command again",
    ]
    log.close()


def shown(board: Board, lines: list[str], now: float = 0.0) -> list[str]:
    return [
        tail._line(call, Console(width=200, no_color=True), only_outcome=only).plain
        for line in lines
        for call, only in board.take(json.loads(line), now)
    ]


def test_a_call_and_its_outcome_are_one_line(compiled: Compiled) -> None:
    lines = logged.call(at(0), compiled, 200, took=0.25)
    [line] = shown(Board(Filter()), lines)
    assert " ".join(line.split()) == (
        f"09:30:02 permit svc close/pull? GET ledger /v1/entries 200 250 ms {json.loads(lines[0])['request_id'][:8]}"
    )


def test_a_denial_waits_for_nothing(compiled: Compiled) -> None:
    [line] = shown(Board(Filter()), logged.call(at(0, method="DELETE"), compiled))
    assert "DENY" in line
    assert "No policy permits this call (policy.no_match)" in line


def test_a_call_that_takes_long_is_shown_twice(compiled: Compiled) -> None:
    decision, outcome = logged.call(at(0), compiled, 200, took=9.0)
    board = Board(Filter())
    assert shown(board, [decision], 100.0) == []
    assert board.late(101.0) == []
    [late] = board.late(103.5)
    assert late.outcome is None
    [line] = shown(board, [outcome])
    assert "…" in line.split("svc")[0]
    assert "9,000 ms" in line
    assert shown(board, [outcome]) == []


FILTERS = [
    ("all", Filter(), True, True),
    ("denied", Filter(denied=True), False, True),
    ("a DAG", Filter(dag="close"), True, True),
    ("DAGs that begin so", Filter(dag="clo*"), True, True),
    ("another DAG", Filter(dag="lose"), False, False),
    ("an upstream", Filter(upstream="ledger"), True, False),
    ("a caller", Filter(subject="svc"), True, False),
    ("several", Filter(denied=True, upstream="crm", subject="o*"), False, True),
]


@pytest.mark.parametrize(
    ("chosen", "permit", "deny"), [each[1:] for each in FILTERS], ids=[each[0] for each in FILTERS]
)
def test_only_what_is_wanted_is_shown(compiled: Compiled, chosen: Filter, permit: bool, deny: bool) -> None:
    permitted = logged.call(at(0), compiled, 200)
    denied = logged.call(at(0, path="/crm/v1/x", subject="other"), compiled)
    assert (bool(shown(Board(chosen), permitted)), bool(shown(Board(chosen), denied))) == (permit, deny)


def test_a_line_fits_a_narrow_terminal_and_nothing_in_it_is_obeyed(compiled: Compiled) -> None:
    event = json.loads(logged.call(at(0, "t" * 99, method="DELETE"), compiled)[0])
    event |= {"subject": "a\x1b[2Jb", "upstream": "c\x9bd", "detail": "\x07"}
    [(call, _)] = Board(Filter()).take(event, 0)
    screen = Console(width=80, no_color=True, force_terminal=True)
    line = tail._line(call, screen).plain
    assert not set(line) & set("\x1b\x9b\x07")
    assert len(line) <= 96  # and folds once, where the code is long
    assert "close/t" in line


def write_stack(folder: Path, audit: Path, port: int) -> None:
    """A stack.json whose gate is at that port."""
    keys = ("state", "log", "provider_keys", "signing_key", "audit_keys")
    told = {
        "gate": f"http://127.0.0.1:{port}", "provider": "x", "sample": "x", "clients": {},
        "secrets": {}, "trusted": "", "pids": {}, "audit": str(audit), **{name: str(folder / name) for name in keys},
    }  # fmt: skip
    (folder / "stack.json").write_text(json.dumps(told), "utf-8")


def watched(folder: Path, audit: Path, lines: list[str], *options: str) -> tuple[int, str, str]:
    """What the command prints while lines are written, until Ctrl-C."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        write_stack(folder, audit, listener.getsockname()[1])
        child = subprocess.Popen(
            [sys.executable, "-m", "airgate", "audit", "tail", *options],
            cwd=PROJECT,
            env={**os.environ, "AIRGATE_DIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as a terminal starts it
        )
        with child:
            assert child.stdout is not None
            assert child.stderr is not None
            printed: list[str] = []
            reader = threading.Thread(target=printed.extend, args=(child.stdout,))
            reader.start()
            end = time.monotonic() + 30
            while not printed and time.monotonic() < end:  # it reads what is there already, once it has begun
                time.sleep(0.05)
            add(audit, *lines)
            while len(printed) < 2 and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(0.3)
            child.send_signal(signal.SIGINT)
            status = child.wait(30)
            reader.join()
            return status, "".join(printed), child.stderr.read()


def test_the_command_follows_the_running_stack_until_ctrl_c(
    tmp_path: Path, audit: Path, compiled: Compiled
) -> None:
    add(audit, logged.link(bundle_event(1_794_000_000, "loaded", "", "0" * 12, 7, "ann\x1b[2J")))
    status, output, errors = watched(tmp_path, audit, logged.call(at(0), compiled, 200))
    assert (status, errors) == (0, "")
    first, second = output.splitlines()
    assert first == "21:20:00  Policy 000000000000 was published as number 7, by ann\ufffd[2J"
    assert "GET ledger /v1/entries" in second


def test_json_is_the_log_itself(tmp_path: Path, audit: Path, compiled: Compiled) -> None:
    first = logged.event(CALL, compiled)
    add(audit, first)
    lines = logged.call(at(0), compiled, 200)
    status, output, _ = watched(tmp_path, audit, lines, "--json")
    assert status == 0
    assert output.splitlines() == [first, *lines]
