"""The audit log of an isolate: its opening, when checkpoints are due, and what is left when work behind answers fails.

Jobs are stepped by hand (isolate.py), so that they meet in every order, and end in the middle.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isolate import BEFORE, BEHIND, ODD, PRIVATE, Isolate, Job
from world import NOW, P256, RSA, number, run

import journal
from journal import (
    EVENTS,
    GRACE,
    KEY,
    LONGEST_NAME,
    LONGEST_SECONDS,
    LONGEST_WORK,
    MOST_KIDS,
    SECONDS,
    USUAL_EVENTS,
    USUAL_SECONDS,
)
from model import Denied, Reason
from pseudonym import KEY as PSEUDONYM_KEY
from pseudonym import SUBJECTS
from state import State

AWAY = OSError("D1: away")


@pytest.fixture
def isolate() -> Iterator[Isolate]:
    isolate = Isolate().begin()
    yield isolate
    isolate.check()
    isolate.close()


def settled(isolate: Isolate) -> Isolate:
    """Let what is due be done, and a window pass: no line waits any more."""
    isolate.finish()
    isolate.clock += USUAL_SECONDS
    return isolate


def waits(isolate: Isolate) -> list[float]:
    return [job.wait for job in isolate.jobs]


def until(isolate: Isolate, job: Job, place: str) -> None:
    """Step a job until it waits at a place."""
    for _ in range(50):
        if job.place == place:
            return
        assert isolate.step(job), f"it ended before {place}"
    raise AssertionError(f"it never came to {place}")


# The opening.


def test_a_chain_opens_with_its_isolate_and_is_signed_and_registered_at_once() -> None:
    isolate = Isolate(GATE="airgate-prod", VERSION="0.3.0", TRUSTED_KEYS='{"keys":[{"kid":"op"}]}')
    isolate.at = "FRA"
    isolate.begin()
    assert waits(isolate) == [0.0]
    isolate.finish()
    opening, checkpoint = (json.loads(line) for line in isolate.written)
    assert opening["gate"] == "airgate-prod"
    assert opening["worker"] == {"location": "FRA", "version": "0.3.0"}
    assert opening["keys"] == {"audit": "audit-1", "trusted": ["op"], "assertion": []}
    assert opening["subjects"] == "plain"
    document = json.loads(checkpoint["document"])
    assert document == {
        "gate": "airgate-prod",
        "chain": opening["chain"],
        "position": 0,
        "hash": opening["hash"],
        "time": "2027-01-15T08:00:00.000Z",
        "number": 1,
    }
    assert isolate.d1.chains == {
        1: {
            "chain": opening["chain"],
            "opened_at": int(NOW),
            "keys": json.dumps(opening["keys"], separators=(",", ":")),
            "position": 0,
            "document": checkpoint["document"],
            "key": "audit-1",
            "signature": checkpoint["signature"],
        }
    }
    assert isolate.check() == 0
    assert isolate.jobs == []


def test_two_isolates_have_two_chains() -> None:
    one, two = Isolate().begin(), Isolate().begin()
    assert one.journal.chain is not None
    assert two.journal.chain is not None
    assert one.journal.chain.id != two.journal.chain.id
    one.close()
    two.close()


SETTINGS: list[Any] = [
    None,
    "",
    "x",
    7,
    {"a": 1},
    "\ud800",
    "\x00",
    "[" * 9000,
    "9" * 9000,
    '{"keys":[{"kid":7},3]}',
]
NAMES = ["VERSION", "GATE", KEY, "TRUSTED_KEYS", "ASSERTION_KEYS", EVENTS, SECONDS, SUBJECTS, PSEUDONYM_KEY]


@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(SETTINGS) | st.text(st.characters())))
def test_a_chain_opens_whatever_the_environment_holds(secrets: dict[str, Any]) -> None:
    isolate = Isolate(signs=False, **secrets)
    isolate.at = secrets.get("VERSION") if isinstance(secrets.get("VERSION"), str) else None
    isolate.begin()
    isolate.say(3)
    isolate.finish()
    isolate.check()
    assert isolate.events("checkpoint") == []
    assert isolate.journal.report(NOW)["signed"] is False
    assert isolate.journal.warnings()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["\U0001f600" * 20_000, "x" * 100_000])
def test_a_long_setting_makes_no_line_too_long(name: str, value: str) -> None:
    isolate = Isolate(**{name: value}).begin()
    isolate.finish()
    isolate.check()
    assert len(isolate.journal.gate) <= LONGEST_NAME


def test_of_many_keys_some_are_named_and_no_other_member_of_any() -> None:
    keys = {"keys": [{"kid": f"{number}" + "k" * 500, "d": "hush", "name": "hush"} for number in range(50)]}
    isolate = Isolate(TRUSTED_KEYS=json.dumps(keys), ASSERTION_KEYS=json.dumps(keys)).begin()
    isolate.finish()
    isolate.check()
    (opening,) = isolate.events("opening")
    assert opening["keys"]["trusted"] == opening["keys"]["assertion"]
    assert len(opening["keys"]["trusted"]) == MOST_KIDS
    assert {len(kid) for kid in opening["keys"]["trusted"]} == {128}
    assert "hush" not in str(isolate.written) + str(isolate.d1.chains)
    isolate.close()


BROKEN_KEYS = [
    pytest.param(None, id="none"),
    pytest.param("", id="an empty text"),
    pytest.param("hush", id="no JSON"),
    pytest.param('{"kty":"OKP"', id="half of it"),
    pytest.param(7, id="a number"),
    pytest.param(json.dumps({**PRIVATE, "kid": None}), id="no kid"),
    pytest.param(json.dumps({**PRIVATE, "kid": ""}), id="an empty kid"),
    pytest.param(json.dumps({**PRIVATE, "kid": "k" * 300}), id="a long kid"),
    pytest.param(json.dumps({**PRIVATE, "x": PRIVATE["d"]}), id="the public key of another"),
    pytest.param(json.dumps({**PRIVATE, "d": "hush"}), id="a private key that is none"),
    pytest.param(json.dumps({"keys": [PRIVATE]}), id="a set of keys"),
    pytest.param(json.dumps({**RSA, "kid": "r", "d": number(3)}), id="an RSA key"),
    pytest.param(json.dumps({**P256, "kid": "p", "d": number(1, 32)}), id="a P-256 key"),
    pytest.param("-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----", id="a PEM key that is none"),
]


@pytest.mark.parametrize("key", BROKEN_KEYS)
def test_without_a_key_that_signs_the_log_goes_on_and_health_warns(key: Any) -> None:
    isolate = Isolate(signs=False, **({} if key is None else {KEY: key})).begin()
    isolate.say(5)
    isolate.finish()
    isolate.check()
    assert isolate.events("checkpoint") == []
    (row,) = isolate.rows()  # the register has it all the same
    assert (row["key"], row["signature"]) == ("", "")
    assert json.loads(row["document"])["position"] == row["position"] == 5
    (warning,) = isolate.journal.warnings()
    assert warning.startswith(f"{KEY}: ")
    told = warning + str(isolate.written) + str(isolate.rows()) + str(isolate.journal.report(NOW))
    assert "hush" not in told
    assert PRIVATE["d"] not in told


@pytest.mark.parametrize(
    ("events", "seconds"),
    [("0", "10"), ("100001", "10"), ("-1", "10"), ("ten", "10"), ("1e3", "10"), (7, "10"), ("9" * 5000, "10")]
    + [("10", text) for text in ("0", "0.09", "10.1", "nan", "inf", "-inf", "-1", "soon", 7)],
)
def test_a_pace_that_cannot_be_is_the_usual_one_and_health_warns(events: Any, seconds: Any) -> None:
    isolate = settled(Isolate(**{EVENTS: events, SECONDS: seconds}).begin())
    (warning,) = isolate.journal.warnings()
    assert warning.startswith(f"{EVENTS}, {SECONDS}: expected ")
    isolate.say()
    assert waits(isolate) == [USUAL_SECONDS]
    isolate.say(USUAL_EVENTS - 1)
    assert waits(isolate) == [USUAL_SECONDS, 0.0]
    isolate.close()


@pytest.mark.parametrize(("events", "seconds"), [("1", "0.1"), ("100000", "10"), ("", ""), (" 20 ", " 1.5 ")])
def test_a_pace_is_what_it_is_set_to(events: str, seconds: str) -> None:
    isolate = settled(Isolate(**{EVENTS: events, SECONDS: seconds}).begin())
    assert isolate.journal.warnings() == []
    isolate.say()
    asked = int(events or USUAL_EVENTS)
    assert waits(isolate)[-1] == (0.0 if asked == 1 else float(seconds or USUAL_SECONDS))
    isolate.close()


# When a checkpoint is due.


def test_the_first_lines_are_covered_at_once_and_later_ones_by_one_job_a_window(isolate: Isolate) -> None:
    isolate.say(2)
    assert waits(isolate) == [0.0, USUAL_SECONDS]  # the other one for what comes while the first signs
    settled(isolate)
    assert (isolate.check(), len(isolate.events("checkpoint"))) == (2, 1)
    isolate.say(50)
    assert waits(isolate) == [USUAL_SECONDS]
    settled(isolate)
    assert isolate.check() == len(isolate.written) - 2
    assert len(isolate.events("checkpoint")) == 2
    isolate.say()
    assert waits(isolate) == [USUAL_SECONDS]


def test_a_thousand_lines_are_not_waited_with(isolate: Isolate) -> None:
    settled(isolate)
    isolate.say(USUAL_EVENTS - 1)
    assert waits(isolate) == [USUAL_SECONDS]
    isolate.say(1)
    assert waits(isolate) == [USUAL_SECONDS, 0.0]
    isolate.say(5000)
    assert waits(isolate) == [USUAL_SECONDS, 0.0]
    until(isolate, isolate.jobs[1], "database: behind")
    assert isolate.check() == len(isolate.written) - 2


def test_a_checkpoint_asks_for_no_other(isolate: Isolate) -> None:
    settled(isolate)
    before = isolate.begun
    for _ in range(5):
        isolate.clock += 100
        assert isolate.journal.due(isolate.clock) is None
        isolate.finish()
    assert isolate.begun == before
    assert len(isolate.events("checkpoint")) == 1


def test_a_job_that_finds_all_lines_covered_signs_nothing(isolate: Isolate) -> None:
    isolate.say()
    first, second = isolate.jobs
    while isolate.step(first):
        pass
    while isolate.step(second):
        pass
    assert len(isolate.events("checkpoint")) == 1


@pytest.mark.parametrize("place", ["sign: before", "sign: behind", "database: behind"])
def test_lines_that_come_while_a_checkpoint_is_made_are_covered_without_another_line(place: str) -> None:
    isolate = Isolate().begin()
    (job,) = isolate.jobs
    until(isolate, job, place)
    while isolate.step(job) and job.place != place:
        pass
    isolate.say(3)
    settled(isolate)
    last = max(line["position"] for line in isolate.events("decision"))
    assert isolate.check() >= last
    assert isolate.journal.report(NOW)["unsigned"] == 0


def test_two_checkpoints_under_way_cover_each_line_once(isolate: Isolate) -> None:
    """Or lines that came after both would count as covered."""
    settled(isolate)
    isolate.say(5)
    (one,) = isolate.jobs
    until(isolate, one, "sign: before")
    isolate.say(2)
    two = isolate.jobs[-1]
    assert two is not one
    until(isolate, two, "sign: before")
    isolate.say(3)
    while isolate.step(one):
        pass
    while isolate.step(two):
        pass
    assert isolate.journal.report(NOW)["unsigned"] == 3
    settled(isolate)
    assert isolate.journal.report(NOW)["unsigned"] == 0
    assert isolate.check() >= max(line["position"] for line in isolate.events("decision"))


def test_a_slower_checkpoint_takes_nothing_back(isolate: Isolate) -> None:
    settled(isolate)
    isolate.say(5)
    (one,) = isolate.jobs
    until(isolate, one, "sign: before")
    isolate.say(2)
    two = isolate.jobs[-1]
    while isolate.step(two):
        pass
    (row,) = isolate.rows()
    newest, report = dict(row), isolate.journal.report(NOW)
    while isolate.step(one):
        pass
    assert isolate.rows() == [newest]
    assert isolate.journal.report(NOW)["checkpoint"] == report["checkpoint"]
    assert isolate.events("register") == []
    assert isolate.journal.failed["register"] == 0


@pytest.mark.parametrize("jump", [-86_400.0, -1.0, 1.0, 86_400.0])
@pytest.mark.parametrize("lines", [1, USUAL_EVENTS])
def test_a_clock_that_jumps_begins_one_job_more_at_most(isolate: Isolate, jump: float, lines: int) -> None:
    settled(isolate)
    isolate.say(lines)
    before = isolate.begun
    isolate.clock += jump
    isolate.say(500)
    assert isolate.begun - before <= 2  # one of either kind
    isolate.say(500)
    assert isolate.begun - before <= 3
    settled(isolate)
    assert isolate.check() >= max(line["position"] for line in isolate.events("decision"))


@pytest.mark.parametrize("place", ["begun", "sleep", "sign: before", "sign: behind", "database: before"])
def test_a_job_that_is_lost_is_followed_by_another(isolate: Isolate, place: str) -> None:
    settled(isolate)
    isolate.say()
    (job,) = isolate.jobs
    until(isolate, job, place)
    isolate.lose(job)
    isolate.clock += USUAL_SECONDS + GRACE + 1
    isolate.say()
    assert waits(isolate) == [USUAL_SECONDS]
    settled(isolate)
    assert isolate.check() >= max(line["position"] for line in isolate.events("decision"))


def test_a_job_at_once_that_is_lost_does_not_hold_up_the_others(isolate: Isolate) -> None:
    isolate.lose(isolate.jobs[0])
    isolate.say()
    assert waits(isolate) == [USUAL_SECONDS]
    settled(isolate)
    assert isolate.check() == 1
    assert len(isolate.rows()) == 1


# Failures, which are counted, and tried again with the next lines.


@pytest.mark.parametrize(
    "fault", [OSError("D1: no such table: chains"), TimeoutError(), KeyError("hush"), TypeError()]
)
@pytest.mark.parametrize("where", [BEFORE, BEHIND])
def test_without_d1_checkpoints_are_signed_all_the_same(where: str, fault: Exception) -> None:
    isolate = Isolate().begin()
    isolate.faults["database"] = where, fault
    isolate.say(3)
    settled(isolate)
    assert isolate.check() == 3
    assert json.loads(isolate.events("checkpoint")[-1]["document"])["number"] is None
    assert isolate.journal.report(NOW)["number"] is None
    assert isolate.journal.error
    assert "hush" not in isolate.journal.error
    if isinstance(fault, OSError):
        assert isolate.journal.failed["register"] > 0
    isolate.faults.clear()
    isolate.say()
    settled(isolate)
    (row,) = isolate.rows()
    assert list(isolate.d1.chains) == [1]  # a number was given out once, though nobody heard of it
    assert row["document"] == isolate.events("checkpoint")[-1]["document"]
    assert json.loads(row["document"])["number"] == 1
    assert isolate.journal.error == ""


@pytest.mark.parametrize("told", ["", "x", "null", "1.5", "[1]", '{"a":1}', "9" * 5000, "\ud800"])
def test_a_d1_that_tells_nonsense_costs_nothing_but_the_register(told: str) -> None:
    isolate = Isolate().begin()
    isolate.faults["database"] = ODD, told
    for _ in range(5):
        isolate.say()
        settled(isolate)
    assert isolate.check() >= max(line["position"] for line in isolate.events("decision"))
    assert isolate.journal.number is None
    assert isolate.journal.failed["register"] > 0
    assert isolate.begun <= 12


def test_a_d1_that_gives_a_number_and_then_knows_of_nothing_makes_no_endless_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    isolate = Isolate().begin()
    answer = isolate.d1.answer

    def forgets(sql: str, values: tuple[Any, ...]) -> str | None:
        return None if sql in (journal.MARK, journal.MARKED) else answer(sql, values)

    monkeypatch.setattr(isolate.d1, "answer", forgets)
    isolate.say()
    settled(isolate)
    assert len(isolate.events("register")) == 1
    assert isolate.check() >= isolate.events("register")[0]["position"]
    for _ in range(5):
        isolate.say()
        settled(isolate)
    assert len(isolate.events("register")) <= 6
    assert isolate.journal.failed["register"] > 0


@pytest.mark.parametrize(
    "fault", [Denied(Reason.UPSTREAM_CREDENTIAL, "x"), ValueError("x"), KeyError("hush")]
)
@pytest.mark.parametrize("where", [BEFORE, BEHIND])
def test_a_signature_that_fails_is_counted_and_tried_again_with_the_next_lines(
    where: str, fault: Exception
) -> None:
    isolate = settled(Isolate().begin())
    (row,) = isolate.rows()
    signed = dict(row)
    isolate.faults["sign"] = where, fault
    for expected in (1, 2, 3):
        isolate.say()
        settled(isolate)
        assert isolate.journal.failed["sign"] == expected
        assert isolate.journal.report(NOW)["unsigned"] == expected
        assert "hush" not in isolate.journal.error
    assert isolate.rows() == [signed]  # what was signed before stays in the register
    assert len(isolate.events("checkpoint")) == 1
    isolate.faults.clear()
    isolate.say()
    settled(isolate)
    assert isolate.journal.report(NOW)["unsigned"] == 0
    assert isolate.check() == len(isolate.written) - 2


@pytest.mark.parametrize("port", ["sign", "database", "store"])
@pytest.mark.parametrize("fault", [OSError("away"), KeyError("a mistake of ours")])
def test_under_failures_there_is_no_more_work_than_without(port: str, fault: Exception) -> None:
    def work(fails: bool) -> int:
        isolate = Isolate(**{EVENTS: "10"})
        isolate.bucket = {}
        isolate.begin()
        if fails:
            isolate.faults[port] = BEFORE, fault
        for _ in range(200):
            isolate.say()
            isolate.finish()
            isolate.clock += 0.01
        isolate.check()
        return isolate.begun

    assert work(True) <= work(False) + 2


# The register.


def test_a_row_that_is_gone_is_on_record_and_the_chain_is_registered_anew(isolate: Isolate) -> None:
    settled(isolate)
    isolate.d1.chains.clear()
    isolate.say()
    settled(isolate)
    (missing,) = isolate.events("register")
    assert (missing["result"], missing["number"]) == ("missing", 1)
    assert list(isolate.d1.chains) == [2]  # and the gap stays
    assert isolate.check() >= missing["position"]
    assert json.loads(isolate.rows()[0]["document"])["number"] == 2


def test_two_jobs_that_find_the_row_gone_say_so_once(isolate: Isolate) -> None:
    settled(isolate)
    isolate.say()
    (one,) = isolate.jobs
    until(isolate, one, "sign: behind")
    isolate.say()
    two = isolate.jobs[-1]
    until(isolate, two, "sign: behind")
    isolate.d1.chains.clear()
    jobs = [one, two]
    while jobs:
        jobs = [job for job in jobs if isolate.step(job)]
    assert isolate.journal.failed["register"] == 0
    settled(isolate)
    assert len(isolate.events("register")) == 1
    assert list(isolate.d1.chains) == [2]


def test_two_jobs_that_register_get_one_number(isolate: Isolate) -> None:
    isolate.say()
    jobs = list(isolate.jobs)
    for job in jobs:
        until(isolate, job, "database: before")
    while jobs:
        jobs = [job for job in jobs if isolate.step(job)]
    assert list(isolate.d1.chains) == [1]
    assert isolate.journal.failed["register"] == 0


def before(isolate: Isolate, keys: str) -> None:
    """Another chain was opened, with these keys."""
    isolate.d1.answer(journal.REGISTER, ("0" * 32, int(NOW) - 60, keys))


def test_other_keys_than_the_chain_before_has_are_events_of_their_own(isolate: Isolate) -> None:
    keys = {"audit": "audit-0", "trusted": ["a", "b"], "assertion": []}
    before(isolate, json.dumps(keys))
    settled(isolate)
    told = [(line["of"], line["issuer"], line["added"], line["removed"]) for line in isolate.events("keys")]
    assert told == [("audit", None, ["audit-1"], ["audit-0"]), ("trusted", None, [], ["a", "b"])]
    assert isolate.check() == len(isolate.written) - 2  # and the first checkpoint covers them
    for _ in range(3):
        isolate.say()
        settled(isolate)
    isolate.d1.chains.clear()
    isolate.say()
    settled(isolate)
    assert len(isolate.events("keys")) == 2


def test_the_same_keys_are_no_event(isolate: Isolate) -> None:
    before(isolate, json.dumps({"audit": "audit-1", "trusted": [], "assertion": []}))
    settled(isolate)
    assert isolate.events("keys") == []


ODD_KEYS = [
    "",
    "x",
    "[]",
    "null",
    '{"audit":7}',
    '{"audit":{"a":1},"trusted":"x"}',
    '{"trusted":[[["x"]]]}',
    "9" * 70_000,
]


@pytest.mark.parametrize("keys", ODD_KEYS)
def test_what_the_register_says_of_keys_before_is_input_like_any_other(isolate: Isolate, keys: str) -> None:
    before(isolate, keys)
    settled(isolate)
    assert isolate.journal.number == 2
    assert isolate.check() == len(isolate.written) - 2
    assert all(line["of"] in ("audit", "trusted") for line in isolate.events("keys"))


def test_long_and_many_keys_of_before_make_no_line_too_long(isolate: Isolate) -> None:
    before(isolate, json.dumps({"trusted": [f"{number}" + "\U0001f600" * 200 for number in range(20)]}))
    settled(isolate)
    isolate.check()
    assert len(isolate.events("keys")[-1]["removed"]) > 0


def test_keys_are_compared_though_d1_failed_after_the_number_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    isolate = Isolate().begin()
    before(isolate, '{"audit":"audit-0"}')
    answer = isolate.d1.answer
    fails = True

    def away(sql: str, values: tuple[Any, ...]) -> str | None:
        if sql == journal.FORMER and fails:
            raise AWAY
        return answer(sql, values)

    monkeypatch.setattr(isolate.d1, "answer", away)
    settled(isolate)
    assert (isolate.journal.number, isolate.events("keys")) == (2, [])
    fails = False
    isolate.say()
    settled(isolate)
    assert [line["added"] for line in isolate.events("keys")] == [["audit-1"]]


def test_two_jobs_tell_of_other_keys_once(isolate: Isolate) -> None:
    before(isolate, '{"audit":"audit-0"}')
    isolate.say()
    jobs = list(isolate.jobs)
    for job in jobs:  # both have asked what keys there were, and none has heard
        until(isolate, job, "database: before")
        while not isolate.of("database")[-1][0].startswith("SELECT keys"):
            isolate.step(job)
        isolate.happened.clear()
    while jobs:
        jobs = [job for job in jobs if isolate.step(job)]
    assert len(isolate.events("keys")) == 1


# Batches for R2.


@pytest.fixture
def storing() -> Iterator[Isolate]:
    isolate = Isolate(GATE="airgate-prod")
    isolate.bucket = {}
    isolate.begin()
    yield isolate
    isolate.check()
    isolate.close()


def test_lines_are_stored_in_objects_whose_names_sort_by_time(storing: Isolate) -> None:
    for _ in range(3):
        storing.say(2)
        settled(storing)
    assert storing.bucket is not None
    names = list(storing.bucket)
    assert names == sorted(names)
    assert len(names) == 3
    assert storing.journal.chain is not None
    chain = storing.journal.chain.id
    assert names[0] == f"airgate-prod/2027/01/15/08-00-00.000Z-{chain}-000000000.ndjson"
    assert "".join([storing.bucket[name] for name in names]) == "".join(
        [line + "\n" for line in storing.written]
    )
    lines = len(storing.written)
    assert storing.journal.report(NOW)["r2"] == {"objects": 3, "lines": lines, "lost": 0, "waiting": 0}


def test_without_a_bucket_no_line_is_kept(isolate: Isolate) -> None:
    settled(isolate)
    assert isolate.journal.report(NOW)["r2"] is None
    assert isolate.of("store") == []


@pytest.mark.parametrize("fault", [OSError("R2: away"), TimeoutError(), AttributeError("put")])
@pytest.mark.parametrize("where", [BEFORE, BEHIND])
def test_lines_stay_while_r2_is_away(storing: Isolate, where: str, fault: Exception) -> None:
    storing.faults["store"] = where, fault
    for _ in range(3):
        storing.say()
        settled(storing)
    assert storing.journal.failed["r2"] >= 3
    assert storing.journal.report(NOW)["r2"]["waiting"] == len(storing.written)
    storing.faults.clear()
    storing.say()
    settled(storing)
    assert storing.bucket is not None
    assert len(storing.bucket) == 2  # what was tried first, and the rest
    names = sorted(storing.bucket)
    assert "".join([storing.bucket[name] for name in names]) == "".join(
        [f"{line}\n" for line in storing.written]
    )
    assert storing.stored() == set(storing.written)
    assert storing.journal.report(NOW)["r2"]["waiting"] == 0


def test_what_no_room_is_left_for_is_counted(storing: Isolate, monkeypatch: pytest.MonkeyPatch) -> None:
    room = 100_000
    monkeypatch.setattr(journal, "MOST_KEPT", room)
    storing.faults["store"] = BEFORE, OSError("away")
    size = 0
    while size < room + 50_000:
        storing.log(f'{{"event":"decision","time":"2027-01-15T08:00:00.000Z","x":"{"x" * 7000}"}}')
        size += len(storing.written[-1]) + 1
        storing.clock += 0.01
        storing.finish()
    report = storing.journal.report(NOW)["r2"]
    assert report["lost"] > 0
    assert report["lost"] + report["waiting"] == len(storing.written)
    storing.faults.clear()
    storing.clock += 60
    storing.say()
    settled(storing)
    assert storing.bucket is not None
    assert max(map(len, storing.bucket.values())) <= room
    after = storing.journal.report(NOW)["r2"]
    assert after["lost"] + after["lines"] + after["waiting"] == len(storing.written)
    storing.say(5)
    settled(storing)
    assert set(storing.written[-5:]) & storing.stored()


def test_lines_that_come_while_others_are_stored_are_stored_after_them(storing: Isolate) -> None:
    (job,) = storing.jobs
    until(storing, job, "store: behind")
    storing.say(3)
    settled(storing)
    assert storing.stored() == set(storing.written)


def test_a_job_that_finds_another_storing_leaves_it_the_rest(storing: Isolate) -> None:
    settled(storing)
    storing.say()
    (one,) = storing.jobs
    until(storing, one, "store: behind")
    storing.say(3)
    while storing.step(storing.jobs[-1]):
        pass
    while storing.step(one):
        pass
    assert storing.stored() == set(storing.written)
    assert storing.journal.report(NOW)["r2"]["waiting"] == 0


def test_a_try_that_comes_through_late_takes_no_line_away(storing: Isolate) -> None:
    """It was given up, and its object is written when another try has long been stored."""
    settled(storing)
    storing.say(2)
    (late,) = storing.jobs
    until(storing, late, "store: before")
    storing.clock += GRACE + 1
    storing.say(3)
    while storing.step(storing.jobs[-1]):
        pass
    while storing.step(late):
        pass
    settled(storing)
    assert storing.stored() == set(storing.written)


def test_one_that_was_given_up_and_comes_back_takes_no_line_away(storing: Isolate) -> None:
    """It was frozen for so long that another one has stored its lines, and more came since."""
    settled(storing)
    storing.say(5)
    (one,) = storing.jobs
    until(storing, one, "store: behind")
    storing.clock += GRACE + 1
    storing.say(2)
    while storing.step(storing.jobs[-1]):
        pass
    storing.say(4)
    while storing.step(one):
        pass
    report = storing.journal.report(NOW)["r2"]
    assert report["waiting"] == 4
    settled(storing)
    assert storing.stored() == set(storing.written)
    assert storing.journal.report(NOW)["r2"]["lines"] == len(storing.written)


# Everything at once.

PORTS = ("database", "sign", "store")
FAULTS: list[tuple[str, Any]] = [
    (BEFORE, OSError("away")),
    (BEHIND, TimeoutError()),
    (BEHIND, KeyError("a mistake of ours")),
]
ACTIONS = st.one_of(
    st.tuples(st.just("say"), st.integers(1, 12)),
    st.tuples(st.just("step"), st.integers(0, 5), st.integers(1, 9)),
    st.tuples(st.just("lose"), st.integers(0, 5)),
    st.tuples(st.just("pass"), st.sampled_from([0.01, 1.0, 9.0, 30.0])),
    st.tuples(st.just("jump"), st.sampled_from([-3600.0, -20.0, 3600.0])),
    st.tuples(st.just("break"), st.sampled_from(PORTS), st.sampled_from(FAULTS)),
    st.tuples(st.just("mend"), st.sampled_from(PORTS)),
    st.tuples(st.just("delete")),
)


@given(st.lists(ACTIONS, max_size=40), st.sampled_from(["1", "5", "1000"]))
@settings(max_examples=200)
def test_whatever_happens_lines_are_chained_covered_and_stored_in_the_end(
    actions: list[Any], events: str
) -> None:
    isolate = Isolate(**{EVENTS: events})
    isolate.bucket = {}
    isolate.begin()
    calm = True  # no job was lost and no clock jumped
    latest = isolate.clock
    for name, *values in actions:
        match name, values:
            case "say", [times]:
                begun = isolate.begun
                isolate.say(times)
                assert isolate.begun - begun <= 2  # however many lines: one that waits, one at once
            case "step", [which, times]:
                for _ in range(times):
                    if isolate.jobs:
                        isolate.step(isolate.jobs[which % len(isolate.jobs)])
            case "lose", [which]:
                if isolate.jobs:
                    isolate.lose(isolate.jobs[which % len(isolate.jobs)])
                    calm = False
            case "pass", [seconds]:
                isolate.clock += seconds
                calm = calm and seconds < 9
            case "jump", [seconds]:
                isolate.clock += seconds
                calm = False
            case "break", [port, fault]:
                isolate.faults[port] = fault
            case "mend", [port]:
                isolate.faults.pop(port, None)
            case _:
                isolate.d1.chains.clear()
        latest = max(latest, isolate.clock)
        if calm:
            assert len([job for job in isolate.jobs if job.wait and job.place in ("begun", "sleep")]) <= 1
            assert len([job for job in isolate.jobs if not job.wait]) <= 1
    isolate.faults.clear()
    for _ in range(2):  # the register hears of it when lines come after it has answered
        isolate.clock = latest = latest + LONGEST_SECONDS + 2 * GRACE
        begun = isolate.begun
        isolate.say()
        settled(isolate)
        assert isolate.begun - begun <= 4
    assert isolate.check() >= max(line["position"] for line in isolate.events("decision"))
    report = isolate.journal.report(isolate.clock)
    assert report["unsigned"] == 0
    assert isolate.stored() == set(isolate.written)
    assert report["r2"]["lost"] == 0
    (row,) = isolate.rows()
    assert row["document"] == isolate.events("checkpoint")[-1]["document"]
    assert json.loads(row["document"])["number"] == isolate.journal.number
    isolate.close()


def test_an_isolate_opens_its_log_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    state, world = State(), Isolate(**{SUBJECTS: "pseudonym", PSEUDONYM_KEY: "k" * 32})
    world.journal = state.journal
    state.begin(world)
    assert world.events("opening")[0]["subjects"] == "pseudonym"
    assert state.view.names is state.journal.names
    assert state.view.names.of("company", "alice") != "alice"
    assert state.report(NOW)["audit"]["lines"] == 1
    world.close()


def test_health_tells_how_the_log_is_doing(isolate: Isolate) -> None:
    assert isolate.journal.chain is not None
    chain = isolate.journal.chain.id
    nothing: dict[str, Any] = {
        "chain": chain,
        "lines": 1,
        "number": None,
        "signed": False,
        "unsigned": 1,
        "checkpoint": None,
        "failed": {"sign": 0, "register": 0, "r2": 0},
        "r2": None,
        "error": None,
    }
    assert isolate.journal.report(NOW) == nothing
    settled(isolate)
    isolate.say()
    done = {"lines": 3, "number": 1, "signed": True, "checkpoint": {"position": 0, "age": 7.5}}
    assert isolate.journal.report(NOW + 7.5) == nothing | done
    assert isolate.journal.report(NOW - 7.5)["checkpoint"]["age"] == 0.0


def test_a_wait_that_fails_is_followed_by_what_it_was_for(
    isolate: Isolate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_: float) -> None:
        raise RuntimeError("no timers")

    settled(isolate)
    monkeypatch.setattr(isolate, "sleep", fails)
    isolate.say()
    settled(isolate)
    assert isolate.check() == len(isolate.written) - 2


def test_nothing_is_done_before_there_is_a_chain() -> None:
    isolate = Isolate()
    run(isolate.journal.settle(0.0, isolate))
    assert isolate.happened == []
    assert isolate.journal.due(NOW) is None


@pytest.mark.parametrize("answer", ["", "0", "-1", "1.5", "seven", "9" * 17, "9" * 4000, str(2**53 + 1)])
def test_a_number_that_is_none_is_not_taken(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate = Isolate()

    async def odd(sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
        return answer

    monkeypatch.setattr(isolate, "database", odd)
    settled(isolate.begin())
    assert isolate.journal.number is None
    assert any("register" in warning for warning in isolate.journal.warnings())
    assert all(len(line) <= 8192 for line in isolate.written)
    isolate.close()


def test_no_step_is_begun_when_the_work_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate = Isolate()

    async def slow(sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
        isolate.clock += LONGEST_WORK
        raise TimeoutError("D1")

    monkeypatch.setattr(isolate, "database", slow)
    settled(isolate.begin())
    assert isolate.events("checkpoint") == []
    monkeypatch.undo()
    isolate.say()
    settled(isolate)
    assert len(isolate.events("checkpoint")) == 1  # with the next lines
    isolate.close()
