"""Reading audit logs: the quick way reads what the slow one reads, and nothing that is broken counts as a call."""

import gzip
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from language import examples

from airgate.audit import source
from airgate.policy import traffic
from airgate.policy.lines import STANDARD_INPUT
from airgate.policy.recorded import RecordError
from airgate.policy.traffic import Traffic
from chain import Chain

EVENT: dict[str, Any] = {
    "event": "decision", "schema": 1, "time": "2026-11-21T10:00:00.500Z", "request_id": "0" * 32,
    "decision": "permit", "reason": None, "detail": None, "method": "GET", "upstream": "ledger",
    "route": "/v1/entries/{id}", "permits": ["read"], "forbids": [], "shadow": [], "bundle": "0" * 12, "sequence": 1,
    "client": "198.51.100.7", "issuer": "company", "subject": "svc", "kind": "workload",
    "roles": {"granted": ["reader"], "tagged": None, "effective": ["reader"]},
    "workload": {"dag": {"value": "close", "attested": False}},
}  # fmt: skip
NOW = 1_795_255_200  # EVENT's time, in whole seconds
CHAIN = Chain("c" * 32)
# Of a decision of schema 2, what stands behind all that its caller and policy have to do with.
TAIL: dict[str, Any] = {
    "query": ..., "request_bytes": ..., "gate_ms": 1, "worker": {"location": "FRA", "version": "v1"}, "cut": ...,
}  # fmt: skip


def line(**changes: Any) -> str:
    """An event as a gate of schema 1 writes it, with changes; `...` leaves a member out."""
    event = {name: value for name, value in {**EVENT, **changes}.items() if value is not ...}
    return json.dumps(event, separators=(",", ":"))


def chained(**changes: Any) -> str:
    """The same, as a gate of schema 2 writes it."""
    tail = {name: changes.pop(name, value) for name, value in TAIL.items()}
    event = json.loads(line(**changes)) | {"schema": 2}
    head = {name: event.pop(name) for name in ("event", "schema", "time", "request_id")}
    head["trace_id"] = changes.get("trace_id", "7" * 32)
    event.pop("trace_id", None)
    whole = head | event | {name: value for name, value in tail.items() if value is not ...}
    return CHAIN.link(json.dumps(whole, separators=(",", ":")))


def read(tmp_path: Path, *lines: str | bytes, **settings: Any) -> tuple[Traffic, list[Any]]:
    log = tmp_path / "audit.ndjson"
    log.write_bytes(b"".join((each if isinstance(each, bytes) else each.encode()) + b"\n" for each in lines))
    read_one = Traffic([log], **settings)
    return read_one, list(read_one.calls())


def said(call: Any) -> tuple[Any, ...]:
    """All that a call says, less what makes no difference to policy."""
    event = call.group.record.event
    workload = {
        name: fact for name, fact in event["workload"].items() if name not in ("run", "try", "map_index")
    }
    left_out = (
        "time",
        "request_id",
        "client",
        "token_id",
        "path",
        "workload",
        "detail",
        "sequence",
        "justification",
        *("trace_id", "request_bytes", "gate_ms", "worker", "chain", "position", "previous", "hash"),
        *("query", "schema"),
    )
    event = event | {"without a query": call.group.record.query == ""}
    rest = {name: value for name, value in event.items() if name not in left_out}
    return call.now, call.client, call.path, json.dumps([rest, workload], sort_keys=True)


TEXT = st.text(max_size=8) | st.sampled_from(
    ['a"b', "a\\", "\\", '","client":"x', "é", "{", ",", '"run":{"value":"']
)
NAMES = st.lists(st.sampled_from(["read", "write", "x"]) | TEXT, max_size=3)
FACT = st.fixed_dictionaries({"value": TEXT, "attested": st.booleans()})
EVENTS = st.fixed_dictionaries(
    {
        "time": st.sampled_from(
            ["2026-11-21T10:00:00.500Z", "2026-11-21T10:00:59.999Z", "2026-02-28T23:59:07.000Z"]
        ),
        "request_id": st.sampled_from(["0" * 32, "f" * 32]) | TEXT,
        "decision": st.sampled_from(["permit", "deny"]),
        "client": st.none() | st.sampled_from(["198.51.100.7", "2001:db8::1"]) | TEXT,
        "subject": TEXT,
        "permits": NAMES,
        "forbids": NAMES,
        "workload": st.dictionaries(
            st.sampled_from(["dag", "task", "run", "try", "map_index", "environment"]), FACT
        ),
    },
    optional={
        "token_id": TEXT,
        "path": TEXT.map("/".__add__),
        "justification": TEXT,
        "country": st.sampled_from(["DE", "FR"]),
        "jkt": st.just("J" * 43),
        "actor": TEXT,
        "grants": NAMES,
    },
)
QUERIES = st.dictionaries(TEXT, st.none() | NAMES, max_size=3)
TAILS = st.fixed_dictionaries(
    {"trace_id": st.sampled_from(["7" * 32, "8" * 32]) | TEXT, "gate_ms": st.integers(0, 9) | st.just(...)},
    optional={
        "query": QUERIES,
        "request_bytes": st.integers(0, 10**9),
        "worker": st.fixed_dictionaries(
            {"location": st.none() | st.sampled_from(["FRA", "AMS"]), "version": st.none() | TEXT}
        ),
        "cut": st.lists(st.sampled_from(["path", "roles", "workload"]), max_size=2),
    },
)


@settings(max_examples=examples(300))
@given(events=st.lists(st.tuples(EVENTS, st.none() | TAILS), max_size=8), keep_run=st.booleans())
def test_the_quick_way_reads_what_json_reads(
    tmp_path_factory: Any, events: list[tuple[dict[str, Any], dict[str, Any] | None]], keep_run: bool
) -> None:
    folder = tmp_path_factory.mktemp("log")
    # Each twice: the second time its rest is known.
    lines = [
        line(**event) if tail is None else chained(**event, **tail) for event, tail in (*events, *events)
    ]
    # With blanks in it a line is never read the quick way.
    slow = [json.dumps(json.loads(each)) for each in lines]
    quick_log, quick_calls = read(folder, *lines, keep_run=keep_run)
    slow_log, slow_calls = read(folder, *slow, keep_run=keep_run)
    assert list(map(said, quick_calls)) == list(map(said, slow_calls))
    assert len(quick_calls) == len(lines)
    assert quick_log.broken == slow_log.broken == 0
    assert (quick_log.first, quick_log.last) == (slow_log.first, slow_log.last)
    assert len(quick_log.groups) == len(slow_log.groups)


def test_calls_that_differ_in_time_client_token_and_run_are_one_group(tmp_path: Path) -> None:
    calls = [
        line(
            time=f"2026-11-21T10:00:0{number}.000Z",
            request_id=f"{number:032}",
            client=f"198.51.100.{number}",
            token_id=f"token-{number}",
            workload={**EVENT["workload"], "run": {"value": f"run {number}", "attested": False}},
            path=f"/v1/entries/{number}",
        )
        for number in range(9)
    ]
    log, found = read(tmp_path, *calls)
    assert [(call.now, call.client, call.path) for call in found] == [
        (NOW + number, f"198.51.100.{number}", f"/v1/entries/{number}") for number in range(9)
    ]
    assert len(log.groups) == 1
    assert (log.first, log.last) == (NOW, NOW + 8)


def test_chained_calls_that_differ_in_nothing_policy_sees_are_one_group(tmp_path: Path) -> None:
    calls = [
        chained(
            trace_id=f"{number:032}",
            path=f"/v1/entries/{number}",
            query={"page": [str(number)]},
            request_bytes=number,
            gate_ms=number,
            worker={"location": f"F{number}", "version": None},
        )
        for number in range(9)
    ]
    log, found = read(tmp_path, *calls, chained(path="/v1/entries/9"))
    assert [call.path for call in found] == [f"/v1/entries/{number}" for number in range(10)]
    assert len(log.groups) == 2  # the last one has no query, which is known of it


def test_a_chained_line_whose_rest_is_known_is_not_read_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_as_json = []
    monkeypatch.setattr(traffic, "_object", lambda text: read_as_json.append(text) or json.loads(text))
    lines = [chained(path=f"/v1/{number}", query={"a": None}, request_bytes=7) for number in range(50)]
    assert len(read(tmp_path, *lines)[1]) == 50
    assert len(read_as_json) == 1


def test_what_was_cut_makes_another_group_and_a_path_that_was_cut_is_none(tmp_path: Path) -> None:
    lines = [chained(path="/v1/x"), chained(path="/v1/x", cut=["roles"]), chained(path="/v1/x", cut=["path"])]
    log, calls = read(tmp_path, *lines)
    assert [call.path for call in calls] == ["/v1/x", "/v1/x", None]
    assert [sorted(group.record.cut) for group in log.groups] == [[], ["roles"], ["path"]]


def test_logs_are_read_as_they_come(tmp_path: Path) -> None:
    lines = [chained(path=f"/v1/{number}") for number in range(4)]
    tail = json.dumps({"logs": [{"message": [lines[1]], "level": "log"}], "outcome": "ok"}, indent=2)
    pushed = json.dumps({"EventTimestampMs": 1, "Logs": [{"Message": [lines[2]], "Level": "log"}]})
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "1").write_text(f"{lines[0]}\n{tail}\n{pushed}\nelse\n", "utf-8")
    (folder / "2.gz").write_bytes(gzip.compress(f"gate | {lines[3]}{lines[3]}\n".encode()))
    log = Traffic([folder])
    assert [call.path for call in log.calls()] == [f"/v1/{number}" for number in (0, 1, 2, 3, 3)]
    assert log.others == 1


def test_a_packed_file_that_ends_too_early_is_told(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(chained(path=f"/{n}").encode() + b"\n" for n in range(500)))
    (tmp_path / "log").write_bytes(whole[: len(whole) // 2])
    log = Traffic([tmp_path / "log"])
    assert 0 < len(list(log.calls())) < 500
    assert "ends in the middle" in log.damaged[0]


def test_runs_are_told_apart_where_a_policy_compares_them(tmp_path: Path) -> None:
    runs = [line(workload={"run": {"value": run, "attested": False}}) for run in ("one", "two", "two")]
    assert len(read(tmp_path, *runs)[0].groups) == 1
    log, calls = read(tmp_path, *runs, keep_run=True)
    assert [call.group.caller.workload["run"].value for call in calls] == ["one", "two", "two"]
    assert len(log.groups) == 2


def test_what_is_no_call_is_counted_by_its_kind(tmp_path: Path) -> None:
    log, calls = read(
        tmp_path,
        "[wrangler:info] Ready on http://127.0.0.1:8787",
        "",
        line(),
        '{"event":"outcome","schema":1,"time":"2026-11-21T10:00:01.000Z"}',
        '{"event":"bundle","schema":1,"time":"2026-11-21T10:00:01.000Z"}',
        "2026-11-21 gate-1 | " + line(request_id="1" * 32),
        line(event="evaluation", permits=["todo-read"], shadow=["todo-log"]),
        line(decision="deny", reason="token.expired", permits=..., forbids=..., shadow=..., subject=...),
        line(decision="deny", reason="token.expired", permits=..., forbids=..., shadow=..., subject=...),
        line(page="jwks", permits=..., forbids=..., shadow=..., subject=...),
        '{"level":"info","text":"hello"}',
    )  # fmt: skip
    assert len(calls) == log.decided == 2
    assert log.others == 2
    assert log.events == 2
    assert log.questions == 1
    assert log.asked == {"todo-read": NOW, "todo-log": NOW}
    assert log.unasked == {"token.expired": 2, "page jwks": 1}
    assert log.broken == 0


BROKEN: list[tuple[str, str | bytes]] = [
    ("is cut off", line()[:-40]),
    ("is cut off in the middle of a value that changes", line()[: line().index("198.51") + 3]),
    ("is cut off before the client's address", line()[: line().index('"client":') + 9]),
    ("isn't UTF-8", line().encode().replace(b"svc", b"\xff\xfe")),
    ("has a time that is none", line(time="2026-13-45T99:00:00.000Z")),
    ("has a second too many", line(time="2026-11-21T10:00:60.000Z")),
    ("has a time without milliseconds", line(time="2026-11-21T10:00:00Z")),
    ("has a number for a time", line(time=5)),
    ("has no method", line(method=...)),
    ("has a method that the gate doesn't know", line(method="BREW")),
    ("has permits that are no list", line(permits="read")),
    ("has permits that are no text", line(permits=[1])),
    ("has no forbids", line(forbids=...)),
    ("has too many permits", line(permits=["p"] * 1001)),
    ("has a subject that is too long", line(subject="s" * 3000)),
    ("has roles that are a list", line(roles=[])),
    ("has no roles that were in use", line(roles={"granted": [], "tagged": None})),
    ("has a tag that is text", line(roles={"granted": [], "tagged": "x", "effective": []})),
    ("has a fact without where it is from", line(workload={"dag": {"value": "x"}})),
    ("has a fact that is a number", line(workload={"dag": {"value": 1, "attested": True}})),
    ("has a path that is none", line(path="v1/entries")),
    ("has a shadow that would do nothing", line(shadow=["x"])),
    ("has a decision that is neither", line(decision="maybe")),
    ("has a client that is a number", line(client=7)),
    ("has a reason that is none", line(reason="\x1b[2J", permits=...)),
    ("has a schema that is newer", line(schema=3)),
    ("has a query that is a list", chained(query=["a"])),
    ("has a query with a number in it", chained(query={"a": [1]})),
    ("has cut something that has no name", chained(cut=[1])),
    ("was cut by Logpush", chained()[:300] + "<<<Logpush: fieldsize exceeded>>>"),
    ("is nested too deeply", '{"event":"decision","time":' + "[" * 100_000),
]  # fmt: skip


@pytest.mark.parametrize("broken", [each for _, each in BROKEN], ids=[name for name, _ in BROKEN])
def test_a_line_that_is_broken_is_counted_and_told(tmp_path: Path, broken: str | bytes) -> None:
    log, calls = read(tmp_path, line(), broken, broken, line())
    assert len(calls) == 2
    assert log.broken == 2
    assert [told.rpartition("audit.ndjson:")[2].partition(": ")[0] for told in log.told] == ["2", "3"]


def test_a_value_with_a_backslash_in_it_is_read_as_json_reads_it(tmp_path: Path) -> None:
    escaped = line(token_id="tokenX", path="/v1/x")
    lines = [escaped, escaped.replace("/v1/x", "/v1/\\u0078"), escaped.replace("tokenX", 'to\\"ken')]
    assert [call.path for call in read(tmp_path, *lines)[1]] == ["/v1/x"] * 3
    # With the backslash gone, what is left is no JSON, though its rest is that of a line before.
    log, calls = read(tmp_path, lines[2], lines[2].replace("\\", ""))
    assert (len(calls), log.broken) == (1, 1)


def test_more_kinds_of_calls_than_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "MOST_GROUPS", 3)
    assert len(read(tmp_path, *[line(subject=f"s{number}") for number in range(3)])[1]) == 3
    with pytest.raises(RecordError, match="more than 3 kinds of calls; take less of them: --since"):
        read(tmp_path, *[line(subject=f"s{number}") for number in range(4)])


def test_names_are_shown_without_what_a_terminal_obeys() -> None:
    assert traffic.printable("a\x1b[2Jb\nc\u202ed é") == "a?[2Jb?c?d é"


def test_of_many_broken_lines_the_first_are_told(tmp_path: Path) -> None:
    log, _ = read(tmp_path, *['{"event":"decision","'] * 20)
    assert log.broken == 20
    assert len(log.told) == traffic.MOST_TOLD


def test_a_line_without_an_end_costs_no_memory(tmp_path: Path) -> None:
    log, calls = read(tmp_path, line(), '{"event":"decision",' + "x" * (2 * source.LONGEST), line())
    assert len(calls) == 2
    assert log.broken >= 1


def test_lines_that_run_over_the_end_of_a_chunk_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "BLOCK", 100)
    log, calls = read(tmp_path, *[line(path=f"/v1/{number}") for number in range(30)])
    assert [call.path for call in calls] == [f"/v1/{number}" for number in range(30)]
    assert log.broken == 0


def test_a_last_line_without_its_end_counts_when_it_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "audit.ndjson"
    log.write_text(line() + "\n" + line(), "utf-8")
    assert len(list(Traffic([log]).calls())) == 2


def test_standard_input_is_a_log_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(line().encode())))
    assert len(list(Traffic([STANDARD_INPUT]).calls())) == 1


def test_a_log_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"nowhere: can't be read: No such file"):
        list(Traffic([tmp_path / "nowhere"]).calls())


def test_what_is_older_is_left_out_and_counted(tmp_path: Path) -> None:
    lines = [line(time=f"2026-11-{day}T10:00:00.000Z") for day in (19, 20, 21)]
    for form in (lines, [json.dumps(json.loads(each)) for each in lines]):
        log, calls = read(tmp_path, *form, since=float(NOW - 86_400))
        assert len(calls) == 2
        assert log.older == 1
        assert log.first == NOW - 86_400


SINCE = [
    ("7d", NOW - 7 * 86_400),
    ("12h", NOW - 12 * 3600),
    ("30m", NOW - 1800),
    ("45s", NOW - 45),
    ("2026-11-21", NOW - 36_000),
    ("2026-11-21T10:00:00Z", NOW),
    ("2026-11-21T12:00:00+02:00", NOW),
]  # fmt: skip


@pytest.mark.parametrize(("text", "seconds"), SINCE, ids=[text for text, _ in SINCE])
def test_since_is_a_length_of_time_a_day_or_a_moment(text: str, seconds: float) -> None:
    assert traffic.since(text, NOW) == seconds


@pytest.mark.parametrize(
    "text", ["", "7", "d", "0d", "7w", "yesterday", "2026-11-21T10:00:00", "2026-99-01", "-1d"]
)
def test_since_is_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match="write how long ago, a day or a moment"):
        traffic.since(text, NOW)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "1 minute"), (60, "1 minute"), (61, "2 minutes"), (3700, "2 hours"), (604_795, "7 days"), (86_401, "2 days")],
)  # fmt: skip
def test_lengths_of_time_are_rounded_up(seconds: float, words: str) -> None:
    assert traffic.span(seconds) == words
