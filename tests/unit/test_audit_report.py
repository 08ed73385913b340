"""Reports: counted as a plain count does, small whatever is in the log, and harmless whoever wrote into it."""

import io
import json
import math
import random
import re
import tracemalloc
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import odd_events
import pytest
import week
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner, Result

from airgate.audit import app, summary, wording
from airgate.audit.bounded import Bins, Bounded, Number, Times
from airgate.audit.figures import Figures, Origin, Permit, Permits, figures
from airgate.audit.page import over_time, page
from airgate.audit.summary import Summary
from airgate.audit.tables import render
from airgate.engine import ANSWERS

NOW = 1_795_245_261.0  # 2026-11-21T07:14:21Z


def told(*events: dict[str, Any], permits: Permits | None = None, **window: float) -> Figures:
    found = Summary(**window)
    found.add_all(events)
    return figures(found, Origin(["audit.ndjson"], ["some events"], NOW, "0.1"), permits)


def at(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"2026-11-21T{int(minutes) // 60:02}:{int(minutes) % 60:02}:{rest:06.3f}Z"


def decision(number: int = 0, seconds: float = 0, **members: Any) -> dict[str, Any]:
    plain = {
        "event": "decision",
        "schema": 2,
        "time": at(seconds),
        "request_id": f"{number:032x}",
        "decision": "permit",
        "reason": None,
        "method": "GET",
        "upstream": "ledger",
        "route": "/v1/entries",
        "permits": ["read"],
        "forbids": [],
        "shadow": [],
        "issuer": "company",
        "subject": "etl",
        "kind": "workload",
        "workload": {},
        "gate_ms": 2,
        "chain": "a" * 32,
        "position": number,
    }
    return plain | members


def denial(number: int = 0, reason: str = "policy.no_match", **members: Any) -> dict[str, Any]:
    return decision(number, **{"decision": "deny", "reason": reason, "permits": [], "route": None, **members})


def outcome(number: int = 0, status: int | None = 200, **members: Any) -> dict[str, Any]:
    plain = {
        "event": "outcome",
        "schema": 2,
        "time": at(1),
        "request_id": f"{number:032x}",
        "upstream": "ledger",
        "result": "answered" if status else "timeout",
        "status": status,
        "upstream_ms": 30,
        "chain": "b" * 32,
        "position": number,
    }
    return plain | members


# Counting

CALLERS = ["etl", "sync", "<b>", None]
UPSTREAMS = ["ledger", "crm"]


@st.composite
def logs(draw: st.DrawFn) -> list[dict[str, Any]]:
    events = []
    for number in range(draw(st.integers(1, 40))):
        subject = draw(st.sampled_from(CALLERS))
        permit = subject is not None and draw(st.booleans())
        members: dict[str, Any] = {
            "seconds": draw(st.integers(0, 80_000)),
            "upstream": draw(st.sampled_from(UPSTREAMS)),
            "gate_ms": draw(st.integers(0, 100)),
        }
        if subject is None:
            event = denial(number, draw(st.sampled_from(["token.missing", "token.expired"])), **members)
            for name in ("subject", "issuer", "kind", "permits", "forbids", "shadow", "route"):
                event.pop(name)
        else:
            members["subject"] = subject
            dag = draw(st.sampled_from([None, ("close", True), ("close", False), ("open", False)]))
            if dag is not None:
                members["workload"] = {"dag": {"value": dag[0], "attested": dag[1]}}
            if draw(st.booleans()):
                members |= {"shadow": ["s"], "would": draw(st.sampled_from(["permit", "deny"]))}
            event = decision(number, **members) if permit else denial(number, **members, forbids=["closed"])
        events.append(event)
        if permit and draw(st.integers(0, 3)):
            status = draw(st.sampled_from([200, 204, 301, 404, 500, None]))
            events.append(outcome(number, status, upstream_ms=draw(st.integers(0, 100))))
    draw(st.randoms(use_true_random=False)).shuffle(events)
    return events


def quantile(values: list[int], part: float) -> int | None:
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)] if values else None


@given(logs())
def test_a_report_counts_as_a_plain_count_does(events: list[dict[str, Any]]) -> None:
    found = told(*events)
    decisions = [event for event in events if event["event"] == "decision"]
    outcomes = {event["request_id"]: event for event in events if event["event"] == "outcome"}
    permitted = [event for event in decisions if event["decision"] == "permit"]
    totals = found["totals"]
    assert (totals["decisions"], totals["permitted"]) == (len(decisions), len(permitted))
    assert totals["gate_ms"]["median"] == quantile([event["gate_ms"] for event in decisions], 0.5)
    assert totals["upstream_ms"]["p95"] == quantile([one["upstream_ms"] for one in outcomes.values()], 0.95)
    assert found["gaps"]["open"] == len(permitted) - len(outcomes)
    assert found["gaps"]["strays"] == 0
    assert {row["reason"]: row["calls"] for row in found["denials"]} == Counter(
        event["reason"] for event in decisions if event["decision"] == "deny"
    )

    def row(event: dict[str, Any]) -> tuple[Any, ...]:
        if "subject" not in event:
            return (None, None, False, None)
        dag = event["workload"].get("dag", {"value": None, "attested": False})
        return event["subject"], dag["value"], dag["attested"], event["upstream"]

    expected: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for event in decisions:
        expected.setdefault((*row(event), event.get("route")), []).append(event)
    assert len(found["calls"]) == len(expected)
    for line in found["calls"]:
        key = line["subject"], line["dag"], line["attested"], line["upstream"], line["route"]
        same = expected[key]
        joined = [outcomes[event["request_id"]] for event in same if event["request_id"] in outcomes]
        assert line["calls"] == len(same)
        assert line["denied"] == sum(event["decision"] == "deny" for event in same)
        assert (line["first"], line["last"]) == tuple(
            f"{edge(event['time'] for event in same)[:19]}Z" for edge in (min, max)
        )
        assert line["answers"] == Counter(
            f"{one['status'] // 100}xx" if one["status"] else "none" for one in joined
        )
        assert line["upstream_ms"]["median"] == quantile([one["upstream_ms"] for one in joined], 0.5)
    assert sum(bar["permitted"] + bar["denied"] for bar in found["over_time"]["bars"]) == len(decisions)
    changed = [event for event in decisions if event.get("shadow") and event["would"] != event["decision"]]
    assert sum(one["would_deny"] + one["would_permit"] for one in found["shadow"]) == len(changed)
    asserted = {event["subject"] for event in decisions if row(event)[1] and not row(event)[2]}
    attested = {event["subject"] for event in decisions if row(event)[1] and row(event)[2]}
    assert {one["subject"] for one in found["asserted"]} == asserted - attested


@given(st.lists(st.integers(0, 3_000_000), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_quantile_is_at_most_1_6_percent_too_low(values: list[int], part: float) -> None:
    times, half = Times(), Times()
    for number, value in enumerate(values):
        (times if number % 2 else half).add(value)
    times.merge(half)
    found, exact = times.quantile(part), quantile(values, part)
    assert found is not None
    assert exact is not None
    assert exact * (1 - 1 / 64) <= found <= exact
    if exact < 128:
        assert found == exact


@given(st.lists(st.integers(0, 60)), st.integers(1, 5))
def test_folding_loses_no_call_and_adds_none(keys: list[int], limit: int) -> None:
    table: Bounded[int, Number] = Bounded(limit, Number)
    for key in keys:
        table[key].weight += 1
    rows = dict(table.heaviest())
    exact = Counter(keys)
    assert len(rows) <= limit
    assert sum(row.weight for row in rows.values()) + table.rest.weight == len(keys)
    assert all(row.weight <= exact[key] for key, row in rows.items())
    if len(exact) <= limit:
        assert {key: row.weight for key, row in rows.items()} == exact
        assert not table.folded


@given(st.lists(st.tuples(st.integers(0, 10**9), st.booleans()), max_size=300), st.integers(1, 40))
def test_bars_hold_every_call_and_are_few(calls: list[tuple[int, bool]], most: int) -> None:
    bins = Bins(50)
    for when, permit in calls:
        bins.add(when, permit)
    width, bars = bins.bars(most)
    assert len(bars) <= most
    assert sum(permits for _, permits, _ in bars) == sum(permit for _, permit in calls)
    assert sum(denials for *_, denials in bars) == sum(not permit for _, permit in calls)
    assert all(later[0] - earlier[0] == width for earlier, later in pairwise(bars))


@given(st.lists(odd_events.twisted(), max_size=20))
def test_whatever_stands_in_a_log_there_is_a_report(events: list[dict[str, Any]]) -> None:
    found = told(*events)
    json.dumps(found, allow_nan=False)
    parsed(page(found))
    screen = Console(width=80, file=io.StringIO())
    render(found, screen)


def test_many_callers_are_folded_and_the_heavy_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "MOST_ROWS", 10)
    events = [
        decision(number, subject="etl" if number % 2 else f"stranger-{number}") for number in range(400)
    ]
    found = told(*events)
    assert found["totals"]["decisions"] == 400
    assert found["calls"][0]["subject"] == "etl"
    assert found["calls"][0]["calls"] == 200
    assert len(found["calls"]) == 10
    assert any(
        "rare rows of calls were folded together, 191 calls in all" in text for text in found["folded"]
    )
    assert found["gaps"]["open"] == 400


def test_memory_stays_flat_whoever_floods_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOST_ROWS", "MOST_NAMES", "MOST_POLICIES", "MOST_CHANGES", "MOST_PENDING"):
        monkeypatch.setattr(summary, name, 100)

    def flood(begin: int, number: int) -> None:
        for one in range(begin, begin + number):
            name = f"{one}-{'x' * 400}"
            found.add(decision(one, one / 100, subject=name, upstream=name[:60], request_id=f"{one:032x}"))
            found.add(denial(one, subject=name, forbids=[name], shadow=[name], would="permit"))
            found.add(
                {
                    "event": "keys",
                    "time": at(1),
                    "of": "issuer",
                    "issuer": name,
                    "added": [name],
                    "removed": [],
                }
            )

    found = Summary()
    flood(0, 1000)
    tracemalloc.start()
    flood(1000, 1000)
    small = tracemalloc.get_traced_memory()[0]
    flood(2000, 3000)
    large = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert large < 1.5 * small + 100_000  # and three times that, if anything were kept of each


def test_waiting_for_outcomes_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "MOST_PENDING", 5)
    found = told(*[decision(number) for number in range(20)], *[outcome(number) for number in range(20)])
    assert found["gaps"]["open"] == 15
    assert found["totals"]["answers"] == {"2xx": 5}
    assert found["gaps"]["strays"] == 15
    assert any("15 permitted calls were counted as without an outcome" in text for text in found["folded"])


# What a report says


def test_an_outcome_before_its_decision_is_found() -> None:
    found = told(outcome(1, 201), decision(1))
    assert found["calls"][0]["answers"] == {"2xx": 1}
    assert found["gaps"]["open"] == 0


def test_a_time_has_its_decisions_with_their_outcomes_and_no_others() -> None:
    second = NOW - 7 * 3600 - 14 * 60 - 21  # of midnight
    events = [
        decision(1, 10),
        outcome(1, time=at(11)),
        decision(2, 20),
        outcome(2, time=at(40)),
        decision(3, 30),
        outcome(3, time=at(41)),
    ]
    found = told(*events, since=second + 20, until=second + 30)
    assert found["totals"]["decisions"] == 1
    assert found["totals"]["answers"] == {"2xx": 1}
    assert (found["gaps"]["open"], found["gaps"]["strays"], found["gaps"]["outside"]) == (0, 0, 4)
    assert (found["since"], found["until"]) == ("2026-11-21T00:00:20Z", "2026-11-21T00:00:30Z")


def test_a_call_at_the_end_of_the_log_may_be_on_its_way() -> None:
    found = told(decision(1, 0), decision(2, 1000))
    assert (found["gaps"]["open"], found["gaps"]["running"]) == (2, 1)
    said = [text for _, text in wording.notices(found)]
    assert "1 permitted call has no outcome: cut off, or their lines are not in these logs" in said
    assert "1 more may have been on their way when the log ended" in said


def test_pages_of_the_gate_await_no_outcome() -> None:
    found = told(decision(1, page="health", upstream="-", permits=["health"]))
    assert (found["totals"]["pages"], found["gaps"]["open"]) == (1, 0)
    assert wording.target(found["calls"][0]) == "GET page health"


def test_every_reason_is_told_with_what_it_means() -> None:
    found = told(
        *[denial(number, str(reason)) for number, reason in enumerate(ANSWERS)], denial(99, "new.reason")
    )
    means = {row["reason"]: (row["means"], row["status"]) for row in found["denials"]}
    assert means.pop("new.reason") == ("A reason that this version doesn't know", None)
    assert means == {str(reason): (answer.title, answer.status) for reason, answer in ANSWERS.items()}


def test_a_denial_names_who_and_by_which_policies() -> None:
    found = told(
        *[denial(number, "policy.forbidden", forbids=["closed"]) for number in range(3)],
        *[
            denial(number, "policy.forbidden", forbids=["closed", "night"], subject=f"s{number}")
            for number in range(9)
        ],
    )
    (row,) = found["denials"]
    assert row["callers"][0]["subject"] == "etl"
    assert (len(row["callers"]), row["more_callers"]) == (5, 5)
    assert [(one["name"], one["calls"]) for one in row["policies"]] == [("closed", 12), ("night", 9)]
    assert wording.named(row["policies"], 0) == "closed 12, night 9"


def test_what_a_stranger_asked_for_is_not_told_as_an_upstream() -> None:
    stranger = denial(1, "token.missing", upstream="invented-by-me")
    for name in ("subject", "issuer", "kind", "permits", "forbids", "shadow", "route"):
        stranger.pop(name)
    found = told(stranger)
    assert "invented-by-me" not in json.dumps(found)
    assert wording.caller(found["calls"][0]) == "not authenticated"


PERMITS = Permits(
    "kv-seed",
    [
        Permit(name, "owner@example.com", ("ledger",))
        for name in ("read", "write", "asked", "limited", "overruled")
    ],
)


def test_a_permit_that_let_nothing_pass_is_unused() -> None:
    found = told(
        decision(1),
        denial(2, "limit.rate", permits=["limited"]),  # policy let it pass
        denial(3, "policy.forbidden", permits=["overruled"], forbids=["closed"]),
        {**decision(4, permits=["asked"]), "event": "evaluation"},
        decision(5, permits=["another"]),
        permits=PERMITS,
    )
    unused = found["unused"]
    assert [row["id"] for row in unused["unused"]] == ["overruled", "write"]
    assert unused["strangers"] == ["another"]
    assert found["totals"]["questions"] == {"permitted": 1, "denied": 0}


def test_a_dag_that_was_attested_once_is_not_listed_as_asserted() -> None:
    def dag(attested: bool) -> dict[str, Any]:
        return {"dag": {"value": "close", "attested": attested}}

    found = told(
        decision(1, workload=dag(True)),
        decision(2, workload=dag(False)),
        decision(3, workload=dag(False), subject="sync"),
    )
    assert [(row["subject"], row["calls"]) for row in found["asserted"]] == [("sync", 1)]
    assert sorted((row["subject"], wording.dag(row)) for row in found["calls"]) == [
        ("etl", "close"),
        ("etl", "close*"),
        ("sync", "close*"),
    ]


def test_a_change_that_many_isolates_learnt_is_told_once() -> None:
    lines = {name: json.loads(line) for name, line in odd_events.lines().items()}
    names = (
        "a publish",
        "a rollback",
        "an act: revoke",
        "an act: grant",
        "an act: lift",
        "new keys",
        "a missing row",
    )
    events = [lines[name] | {"position": n, "chain": c * 32} for n, name in enumerate(names) for c in "ab"]
    found = told(*events)
    assert [(row["kind"], row["times"]) for row in found["changes"]] == [
        (kind, 2) for kind in ("publish", "rollback", "revoke", "grant", "lift", "keys", "register")
    ]
    said = [row["what"] for row in found["changes"]]
    assert said[0] == "Policy abc was published as number 8"
    assert said[1] == "Rolled back: policy abc of number 7 is in force again as number 9"
    assert said[2] == "Access was revoked: issuer company, subject etl, until 2026-11-21 08:14 UTC"
    assert said[3] == "etl of company was lent role reader, until 2026-11-21 08:14 UTC"
    assert said[4] == f"The revocation {'a' * 12} was lifted"
    assert found["changes"][2]["why"] == "leak"
    alarms = [text for alarm, text in wording.notices(found) if alarm]
    assert any("A chain's row is gone from the register in D1 (number 7)" in text for text in alarms)


def test_lines_that_are_missing_in_a_chain_are_an_alarm() -> None:
    found = told(
        *[decision(number) for number in (0, 1, 4, 7)], *[outcome(number) for number in (0, 1, 4, 7)]
    )
    gaps = found["gaps"]
    assert (gaps["missing_lines"], gaps["chains_with_missing_lines"]) == (8, 2)
    assert (
        True,
        "8 lines are missing in the middle of 2 chains: run airgate audit verify on the same logs",
    ) in (wording.notices(found))


def test_a_long_silence_is_told() -> None:
    found = told(decision(1, 0), decision(2, 30_000), outcome(1), outcome(2))
    assert [row["span"] for row in found["gaps"]["silences"]] == ["9 hours"]


# Harmless

VOID = {"meta", "rect", "path", "br", "link", "img", "input"}
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "div", "p", "span", "b",
    "i", "small", "bdi", "code", "h1", "h2", "ul", "ol", "li", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th",
    "td", "figure", "details", "summary", "svg", "g", "rect", "path",
}  # fmt: skip


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: set[tuple[str, str]] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {(name, value or "") for name, value in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def parsed(text: str) -> Page:
    """The page, seen to be whole, and to have nothing in it that could run or be fetched."""
    found = Page()
    found.feed(text)
    found.close()
    assert not found.open
    assert set(found.tags) <= ALLOWED
    names = {name for name, _ in found.attributes}
    assert not names & {
        "src",
        "href",
        "srcset",
        "action",
        "style",
        "xlink:href",
        "onload",
        "onerror",
        "onclick",
    }
    assert "url(" not in text
    assert "@import" not in text
    return found


def hostile() -> list[dict[str, Any]]:
    events = []
    for number, name in enumerate(odd_events.HOSTILE):
        dag = {"dag": {"value": name, "attested": False}}
        events += [
            decision(2 * number, subject=name, upstream=name, route=name, method=name, workload=dag, kind=name),
            denial(
                2 * number + 1, name, subject=name, actor=name, forbids=[name], permits=[name], shadow=[name],
                would="permit", issuer=name, worker={"location": name, "version": name},
            ),
            {"event": "bundle", "time": at(1), "result": "loaded", "bundle": name, "by": name, "detail": name},
            {"event": "bundle", "time": at(1), "result": "refused", "detail": name + str(number)},
            {"event": "act", "time": at(1), "result": "known", "id": name, "act": odd_events.act(reason=name, by=name)},
            {"event": "keys", "time": at(1), "of": name, "issuer": name, "added": [name], "removed": []},
        ]  # fmt: skip
    return events


BAD = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def test_a_page_stays_a_page_whatever_the_log_says() -> None:
    text = page(told(*hostile(), permits=PERMITS))
    found = parsed(text)
    assert "<script>alert" in found.text  # as text, and as nothing else
    assert found.tags["script"] == found.tags["img"] == 0
    assert "{{ 7 * 7 }}" in found.text
    assert BAD.search(text) is None
    text.encode("utf-8")


def test_the_page_forbids_scripts_and_all_that_is_elsewhere() -> None:
    found = parsed(page(told(decision())))
    (policy,) = [value for name, value in found.attributes if name == "content" and "default-src" in value]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; base-uri 'none'; form-action 'none'",
        policy,
    )
    assert ("name", "viewport") in found.attributes
    assert ("lang", "en") in found.attributes


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_terminal_is_not_led_astray(width: int) -> None:
    screen = Console(width=width, file=io.StringIO(), force_terminal=False, highlight=False)
    render(told(*hostile(), permits=PERMITS), screen)
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert BAD.search(text) is None
    assert "admin\N{REPLACEMENT CHARACTER}gnp.exe" in text


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_into_a_terminal(width: int) -> None:
    found = told(*[json.loads(line) for line in week.lines(400)], permits=PERMITS)
    screen = Console(width=width, file=io.StringIO(), highlight=False, no_color=True)
    render(found, screen)
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    for title in ("Who called what", "Denials by reason", "What was done to the gate", "Policies in shadow"):
        assert title in text


def test_names_are_shown_whole_or_cut_with_a_sign() -> None:
    assert wording.shown("a" * 200) == "a" * 200
    assert wording.shown("a" * 201) == "a" * 199 + "\N{HORIZONTAL ELLIPSIS}"
    assert wording.shown("tab\there\x1b[31m") == "tab here\N{REPLACEMENT CHARACTER}[31m"


# The charts


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)), max_size=60))
def test_bars_stay_within_their_chart(numbers: list[tuple[int, int]]) -> None:
    bars = [{"at": None, "permitted": permitted, "denied": denied} for permitted, denied in numbers]
    chart = over_time({"seconds": 3600, "bars": bars})
    assert chart.top >= max((sum(one) for one in numbers), default=0)
    assert chart.top % 2 == 0
    for bar, (permitted, denied) in zip(chart.bars, numbers, strict=True):
        assert 0 <= bar.permitted + bar.denied <= 102
        assert (bar.permitted > 0, bar.denied > 0) == (permitted > 0, denied > 0)
        assert 0 <= bar.x <= chart.width - 8


def test_the_chart_is_told_in_numbers_too() -> None:
    found = parsed(page(told(decision(1, 0), decision(2, 3600), denial(3, seconds=3600))))
    assert any(
        name == "aria-label" and "Permitted and denied calls" in value for name, value in found.attributes
    )
    assert "2026-11-21 01:00 UTC: 1 permitted, 1 denied" in found.text
    assert "The numbers" in found.text


# The command


def run(*options: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, options)])


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRGATE_DIR", str(tmp_path / "nothing"))
    lines = week.lines(300)
    random.Random(1).shuffle(lines)
    file = tmp_path / "audit.ndjson"
    file.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return file


def test_a_log_in_any_order_makes_the_same_report(log: Path) -> None:
    shuffled = json.loads(run("--log", log, "--json").stdout)
    log.write_text("".join(f"{line}\n" for line in week.lines(300)), "utf-8")
    ordered = json.loads(run("--log", log, "--json").stdout)
    assert {**shuffled, "made_at": 0} == {**ordered, "made_at": 0}
    assert ordered["totals"]["decisions"] > 300


def test_the_page_is_written_whole(log: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    result = run("--log", log, "--html", file)
    assert result.exit_code == 0, result.output
    assert "needs nothing else" in result.stdout
    parsed(file.read_text("utf-8"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.ndjson", "report.html"]


def test_the_seed_of_the_project_is_asked_unless_another_one_is_named(log: Path, tmp_path: Path) -> None:
    told_so = json.loads(run("--log", log, "--json").stdout)
    assert told_so["unused"]["of"].endswith("kv-seed")
    assert "envoy-asks" in {row["id"] for row in told_so["unused"]["unused"]}
    (tmp_path / "seed").mkdir()
    (tmp_path / "seed" / "bad.yaml").write_text("policies: nonsense\n", "utf-8")
    result = run("--log", log, "--seed", tmp_path / "seed")
    assert result.exit_code == 2
    assert "Name another seed: --seed DIR" in result.output


def test_a_day_can_be_asked_for(log: Path) -> None:
    found = json.loads(run("--log", log, "--json", "--since", "2026-11-18", "--until", "2026-11-19").stdout)
    assert found["first"].startswith("2026-11-18")
    assert found["last"].startswith("2026-11-18")
    assert [row["kind"] for row in found["changes"]] == ["revoke"]
    empty = run("--log", log, "--since", "2027-01-01")
    assert empty.exit_code == 0
    assert "no decision" in empty.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--since", "soon"], "--since: "),
        (["--since", "2026-11-19", "--until", "2026-11-18"], "--until: that is before --since"),
        (["--html", "/nowhere/at/all.html"], "can't be written"),
        (["--seed", "kv-seed", "--env", "local"], "--seed and --env are one too many"),
        (["--env", "local"], "make dev"),
    ],
)
def test_what_can_t_be_done_is_said(log: Path, options: list[str], said: str) -> None:
    result = run("--log", log, *options)
    assert result.exit_code == 2
    assert said in result.stderr


def test_without_a_log_the_local_stack_is_asked_for(log: Path) -> None:
    result = run()
    assert result.exit_code == 2
    assert "Or name a log: --log FILE" in result.stderr
