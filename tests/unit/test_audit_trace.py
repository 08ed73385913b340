"""A DAG run as a timeline: its calls by task and try, in order, and help where there is none."""

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import logged
import pytest
import typer
from test_audit_why import CALL, SEED
from typer.testing import CliRunner

from airgate.audit import trace
from airgate.audit.lookup import Searched
from airgate.audit.timeline import Asked, read, trace_id
from airgate.policy.compile import Compiled
from airgate.policy.recorded import RecordError

APP = typer.Typer()
APP.command("trace")(trace.trace)
RUN = "scheduled__2026-11-17T00:00:00+00:00"
BEGIN = datetime(2026, 11, 17, 9, 30, 2, tzinfo=UTC)
ASKED = Asked("close", RUN)


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiled:
    monkeypatch.setenv("AIRGATE_DIR", str(tmp_path / "nothing"))
    return logged.seed(tmp_path / "seed", SEED)


def at(
    seconds: float, task: str = "pull", number: str = "1", index: str = "-1", **changes: Any
) -> dict[str, Any]:
    """A call of the run, so many seconds after its first one."""
    moment = (BEGIN + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    context = {"dag": "close", "task": task, "run": RUN, "try": number, "map_index": index}
    workload = context | changes.pop("workload", {})
    return CALL | {"at": moment, "workload": workload} | changes


def run(*options: object) -> tuple[int, str]:
    result = CliRunner().invoke(APP, [str(option) for option in options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def a_run(compiled: Compiled) -> list[str]:
    """A run with all that there can be."""
    calls = [
        logged.call(at(0, "extract"), compiled, 200, took=0.25),
        logged.call(at(0.3, "extract", path="/crm/v1/accounts/7"), compiled, 200),
        logged.call(at(1, "post", index="0", method="POST", roles=["publisher"]), compiled, 201),
        logged.call(at(1.1, "post", index="1", method="POST", roles=["publisher"]), compiled, 201),
        logged.call(at(2, "report"), compiled, 503),
        logged.call(at(3, "report"), compiled, 503),
        logged.call(at(93, "report", "2"), compiled, result="timeout", took=30.0),
        logged.call(at(200, "report", "2", subject="other"), compiled),
        logged.call(at(300, "clean", method="DELETE"), compiled),
        logged.call(at(301, "clean", path="/nowhere/v1"), compiled),
    ]
    return [line for lines in calls for line in lines]


OUTPUT = """\
DAG close, run scheduled__2026-11-17T00:00:00+00:00
10 calls in 5 min 1 s, from Tuesday 2026-11-17 09:30:02 UTC
By svc of company (9), other of company (1)
DAG and run are only claimed: headers say so, and whoever holds the token can write them

task extract try 1: 2 calls
 +0.000 s  ID        GET ledger /v1/entries            250 ms  200
 +0.300 s  ID        GET crm /v1/accounts/{account}     50 ms  200

task post [0] try 1: 1 call
 +1.000 s  ID        POST ledger /v1/entries            50 ms  201

task post [1] try 1: 1 call
 +1.100 s  ID        POST ledger /v1/entries            50 ms  201

task report try 1: 2 calls, 2 of them without success
 +2.000 s  ID        GET ledger /v1/entries             50 ms  503 from the upstream
 +3.000 s  ID        GET ledger /v1/entries             50 ms  503 from the upstream; the same call again

task report try 2: 2 calls, 2 of them without success
    +1:33  ID        GET ledger /v1/entries            30,000 ms  upstream did not answer in time
                     … 1 min 17 s until the next call
    +3:20  ID        GET ledger /v1/entries                       permitted; no outcome in the log; the same call again

task clean try 1: 2 calls, 2 of them without success
    +5:00  ID        DELETE ledger /v1/entries                 DENIED: No policy permits this call (policy.no_match)
    +5:01  ID        GET nowhere                               DENIED: No such upstream (route.unknown_upstream)

8 permitted, 2 denied. Upstream answers: 200 (2), 201 (2), 503 (2)
Time spent: 0 ms in the gate, 30.5 s upstream
Denied: policy.no_match (1), route.unknown_upstream (1)
2 calls without an answer from the upstream
More about one of them: airgate audit why"""


def test_a_run_is_a_timeline(tmp_path: Path, compiled: Compiled) -> None:
    lines = [logged.event(CALL, compiled), *a_run(compiled), logged.event(CALL, compiled)]
    code, output = run("--dag", "close", "--run", RUN, "--log", logged.write(tmp_path / "log", lines))
    assert code == trace.SHOWN
    for line in lines:
        output = output.replace(f"{json.loads(line)['request_id'][:8]}", "ID      ")
    said = [line.rstrip() for line in output.splitlines()]
    said[-1] = said[-1].removesuffix(" ID")
    assert "\n".join(said) == OUTPUT


def test_the_order_of_a_log_makes_no_difference(tmp_path: Path, compiled: Compiled) -> None:
    lines = a_run(compiled)
    ordered = read(ASKED, Searched([logged.write(tmp_path / "log", lines)]), True)
    random.Random(3).shuffle(lines)
    mixed = read(ASKED, Searched([logged.write(tmp_path / "mixed", lines)]), True)
    assert [(call.event, call.outcomes) for call in mixed.calls] == [
        (call.event, call.outcomes) for call in ordered.calls
    ]
    assert sum(len(call.outcomes) for call in mixed.calls) == 7


def test_what_was_delivered_twice_is_shown_once(tmp_path: Path, compiled: Compiled) -> None:
    lines = a_run(compiled)
    found = read(ASKED, Searched([logged.write(tmp_path / "log", [*lines, *lines])]), True)
    assert (len(found.calls), sum(len(call.outcomes) for call in found.calls)) == (10, 7)


def test_one_task_of_a_run(tmp_path: Path, compiled: Compiled) -> None:
    log = logged.write(tmp_path / "log", a_run(compiled))
    code, output = run("--dag", "close", "--run", RUN, "--task", "post", "--log", log)
    assert code == trace.SHOWN
    assert "2 calls in 150 ms" in output
    assert "report" not in output


def test_calls_whose_dag_is_attested_are_told_from_those_that_claim_it(tmp_path: Path) -> None:
    attesting = SEED.replace("attested: {environment: env}", "attested: {dag: dag, run: run}")
    compiled = logged.seed(tmp_path / "seed", attesting)
    sure = at(0, workload={"attested": ["dag", "run"]})
    both = [*logged.call(sure, compiled, 200), *logged.call(at(1), compiled, 200)]
    _, output = run("--dag", "close", "--run", RUN, "--log", logged.write(tmp_path / "log", both))
    assert "DAG and run are attested by the token in 1 call; in 1 (*) only claimed: headers say so" in output
    assert [line.count("entries *") for line in output.splitlines() if "ledger" in line] == [0, 1]
    log = logged.write(tmp_path / "log", both[:2])
    assert "DAG and run are attested by the token\n" in run("--dag", "close", "--run", RUN, "--log", log)[1]


def test_a_trace_is_all_that_has_its_id(tmp_path: Path, compiled: Compiled) -> None:
    name = "0af7651916cd43dd8448eb211c80319c"
    lines = [
        *logged.call(at(0), compiled, 200, trace=name),
        *logged.call(at(1, workload={"dag": "other"}), compiled, 200, trace=name),
        *logged.call(at(2), compiled, 200, trace="1" * 32),
    ]
    log = logged.write(tmp_path / "log", lines)
    _, output = run("--trace-id", f"00-{name.upper()}-b7ad6b7169203331-01", "--log", log)
    assert output.startswith(f"Trace {name}\n2 calls in")
    assert f"Of DAG close, run {RUN}, DAG other, run {RUN}" in output
    assert "DAG other, task pull try 1: 1 call" in output


def test_json_holds_every_call_with_its_lines(tmp_path: Path, compiled: Compiled) -> None:
    lines = a_run(compiled)
    _, output = run("--dag", "close", "--run", RUN, "--json", "--log", logged.write(tmp_path / "log", lines))
    document = json.loads(output)
    assert (document["calls"], document["permitted"]) == (10, 8)
    assert document["denied"] == {"policy.no_match": 1, "route.unknown_upstream": 1}
    calls = [call for attempt in document["attempts"] for call in attempt["calls"]]
    assert [event for call in calls for event in (call["decision"], *call["outcomes"])] == list(
        map(json.loads, lines)
    )
    assert [call["offset_ms"] for call in calls][:3] == [0, 300, 1000]
    assert [attempt["map_index"] for attempt in document["attempts"]] == ["-1", "0", "1", "-1", "-1", "-1"]


MISSING = [
    ("a DAG that is misspelt", ["--dag", "clos", "--run", RUN], 'did you mean "close"?'),
    ("a run that is misspelt", ["--dag", "close", "--run", RUN[:-1]], f'other runs: "{RUN}"; did you mean'),
    (
        "a task that isn't there",
        ["--dag", "close", "--run", RUN, "--task", "repor"],
        'did you mean "report"?',
    ),
    ("a trace", ["--trace-id", "2" * 32], "the answer's request id is one"),
]


@pytest.mark.parametrize(
    ("options", "said"), [each[1:] for each in MISSING], ids=[each[0] for each in MISSING]
)
def test_what_is_not_there_is_told_with_the_nearest_names(
    tmp_path: Path, compiled: Compiled, options: list[str], said: str
) -> None:
    log = logged.write(tmp_path / "log", a_run(compiled))
    code, output = run(*options, "--log", log)
    assert code == trace.MISSING
    assert said in output
    assert "17 events from 2026-11-17 09:30 to 2026-11-17 09:35 UTC" in output


def test_a_log_without_any_dag_says_so(tmp_path: Path, compiled: Compiled) -> None:
    log = logged.write(tmp_path / "log", [logged.event(CALL | {"workload": {"task": "x"}}, compiled)])
    assert "No call there names a DAG" in run("--dag", "a", "--run", "b", "--log", log)[1]


REFUSED = [
    ("nothing", [], "Say which run: --dag ID --run ID"),
    ("no run", ["--dag", "close"], "Say which run: --dag ID --run ID"),
    ("both", ["--dag", "close", "--trace-id", "a" * 32], "leave --dag, --run and --task out"),
    ("no trace's id", ["--trace-id", "abc"], '--trace-id: "abc": write the 32 hex digits'),
    ("a log that isn't there", ["--trace-id", "a" * 32, "--log", "nowhere"], "nowhere: can't be read"),
]


@pytest.mark.parametrize(
    ("options", "said"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED]
)
def test_what_cannot_be_used_is_refused(compiled: Compiled, options: list[str], said: str) -> None:
    code, output = run(*options)
    assert code == trace.INVALID
    assert said in output


def test_lines_about_it_that_are_broken_are_counted(tmp_path: Path, compiled: Compiled) -> None:
    lines = a_run(compiled)
    lines[2] = lines[2].replace('"decision":"permit"', '"decision":permit')
    lines[4] = lines[4].replace('"time":"2026-11-17T', '"time":"yesterday T')
    log = logged.write(tmp_path / "log", lines)
    assert "2 lines about it can't be read" in run("--dag", "close", "--run", RUN, "--log", log)[1]


def test_more_calls_than_fit_are_said(
    tmp_path: Path, compiled: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airgate.audit.timeline.MOST_CALLS", 4)
    log = logged.write(tmp_path / "log", a_run(compiled))
    output = run("--dag", "close", "--run", RUN, "--log", log)[1]
    assert "6 more calls are not shown: take less of them, --task" in output


def test_nothing_of_a_log_is_obeyed_by_the_terminal(tmp_path: Path, compiled: Compiled) -> None:
    event = json.loads(logged.event(at(0), compiled))
    event |= {"path": "/v1/\x1b[2J", "subject": "s\x9b1mvc", "query": {"\x07": None}, "method": "G\nT"}
    log = logged.write(tmp_path / "log", [json.dumps(event)])
    code, output = run("--dag", "close", "--run", RUN, "--log", log)
    assert code == trace.SHOWN
    assert not set(output) & set("\x1b\x9b\x07")
    assert "G T ledger /v1/\ufffd[2J?\ufffd" in output


@pytest.mark.parametrize("text", ["", "x" * 32, "a" * 31, "00-" + "a" * 31 + "-" + "b" * 16 + "-01"])
def test_what_is_no_trace_id_is_refused(text: str) -> None:
    with pytest.raises(RecordError):
        trace_id(text)
