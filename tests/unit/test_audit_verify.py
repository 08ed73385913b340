"""`airgate audit verify` and `register`: what is said of which log, with which exit code, and with what to do next."""

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import audit_logs
import pytest
from audit_logs import (
    CARRIERS,
    GATE,
    START,
    STEP,
    Isolate,
    Signer,
    isolate,
    pushed,
    raw,
    register,
    rewritten,
    tailed,
    together,
)
from typer.testing import CliRunner

from airgate.audit import app, proof
from airgate.audit.findings import KINDS
from airgate.audit.register import Register, Row, read_environment, read_file
from airgate.audit.source import Tally, events
from airgate.audit.trusted import AuditKey, parse_keys, written
from airgate.environment import LocalStores
from audit import checkpoint_event, opening_event, timestamp
from chain import Chain
from pseudonym import PLAIN

SIGNER, STRANGER = Signer(), Signer()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the gate's public keys, in which commands run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audit-keys.json").write_text(written(SIGNER.keys()))
    return tmp_path


def audit(*arguments: str, stdin: bytes | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(app, arguments, input=stdin, env={"COLUMNS": "200"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def told(*logs: bytes | Iterable[str], options: Iterable[str] = (), known: Register | None = None) -> Any:
    """What --json says of logs, with the exit code in it."""
    names = []
    for number, log in enumerate(logs):
        names.append(f"{number}.log")
        Path(names[-1]).write_bytes(log if isinstance(log, bytes) else raw(list(log)))
    if known is not None:
        Path("register.json").write_text(known.text)
        options = [*options, "--register", "register.json"]
    code, output = audit("verify", *names, "--json", *options)
    assert output.startswith("{"), output
    return {**json.loads(output), "code": code}


def kinds(said: Any, *, failures: bool = True) -> list[str]:
    return [each["kind"] for each in said["findings"] if each["failure"] or not failures]


def findings(said: Any) -> list[tuple[str, str | None, int | None]]:
    return [(each["kind"], each["chain"], each["position"]) for each in said["findings"]]


# --- what is proved --------------------------------------------------------------------------------------------------


def test_a_whole_log_is_proved() -> None:
    said = told(together([isolate(SIGNER, 1), isolate(SIGNER, 2)]), options=["--strict"])
    assert (said["code"], said["result"], said["findings"]) == (0, "proved", [])
    assert (said["checkpoints"], said["gates"], said["read"]["events"]) == (6, [GATE], 24)
    assert [(chain["first"], chain["last"], chain["proved_to"]) for chain in said["chains"]] == [
        (0, 11, 10)
    ] * 2


def test_standard_input_is_verified() -> None:
    code, output = audit("verify", "-", stdin=tailed(isolate(SIGNER, 1).lines))
    assert code == 0
    assert "Proved: 11 events" in output


def test_a_pipe_is_verified() -> None:
    os.mkfifo("pipe")
    with ThreadPoolExecutor(1) as writer:
        writer.submit(Path("pipe").write_bytes, raw(isolate(SIGNER, 1).lines))
        code, output = audit("verify", "pipe")
    assert code == 0
    assert "Proved: 11 events" in output


def test_several_processes_find_what_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "PART", 4_000)
    lines = together([isolate(SIGNER, 1, 60), isolate(SIGNER, 2, 60)])
    altered = [*lines[:70], lines[70].replace("of 1", "of 7"), *lines[71:]]
    alone, beside = told(altered), told(altered, options=["--jobs", "2"])
    assert alone == beside
    assert [(each["kind"], each["where"]) for each in alone["findings"]] == [("altered", "0.log:71")]


def test_parts_of_a_log_are_joined_wherever_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = together([isolate(SIGNER, 1, 30), isolate(SIGNER, 2, 30)])
    for log in (raw(lines), tailed(lines)):
        for part in (700, 1_500, 9_000):
            monkeypatch.setattr(proof, "PART", part)
            said = told(log, options=["--strict"])
            assert (said["code"], said["read"]["lines"]) == (0, log.count(b"\n"))


def test_a_clock_that_jumps_back_breaks_no_chain() -> None:
    made = Isolate("ab" * 16, 1, SIGNER)
    made.decide()
    made.now -= 7200
    made.decide()
    made.checkpoint()
    assert told(made.lines, options=["--strict"])["code"] == 0


def test_checkpoints_that_were_made_at_once_are_no_replay() -> None:
    made = Isolate("ab" * 16, 1, SIGNER)
    made.decide()
    document = made.document()
    made.checkpoint(document)
    made.decide()
    made.checkpoint(document)
    later = made.document()
    made.decide()
    made.checkpoint()
    made.checkpoint(later)  # signed before, and written after
    assert told(made.lines)["code"] == 0


def test_a_log_of_one_day_says_that_its_chains_began_before() -> None:
    made = isolate(SIGNER, 1, 40)
    said = told(made.lines[17:])
    assert said["code"] == 0
    assert findings(said) == [("begins before", made.name, 0)]
    assert "positions 0 to 16 aren't here" in said["findings"][0]["text"]
    assert said["chains"][0]["proved_to"] == 38
    assert told(made.lines[17:], options=["--strict"])["code"] == 1


def test_a_beginning_that_the_logs_should_hold_is_missing() -> None:
    long, short = Isolate("ab" * 16, 1, SIGNER), isolate(SIGNER, 2, 12, start=START + 4 * 3600)
    for _ in range(9):  # every half hour
        long.now += 1800
        long.decide()
        long.checkpoint()
    assert findings(told(long.lines, short.lines[3:])) == [("beginning missing", short.name, 0)]
    assert findings(told(short.lines[3:])) == [("begins before", short.name, 0)]


def test_the_register_decides_whether_a_beginning_is_missing() -> None:
    before, within = isolate(SIGNER, 1, 12, start=START), isolate(SIGNER, 2, 12, start=START + 300)
    known = register([before, within])
    said = told(before.lines[4:], within.lines[3:], known=known)
    assert findings(said) == [("beginning missing", within.name, 0), ("begins before", before.name, 0)]


def test_events_of_an_older_gate_are_counted_as_unchained() -> None:
    old = '{"event":"decision","schema":1,"time":"2026-11-18T00:00:00.000Z","request_id":"1"}'
    said = told([old, *isolate(SIGNER, 1).lines])
    assert (said["code"], said["read"]["unchained"]) == (0, 1)
    assert findings(said) == [("unchained", None, None)]


def test_an_open_end_is_told_with_its_length_and_time() -> None:
    made = isolate(SIGNER, 1, 12, tail=3)
    said = told(made.lines)
    assert said["code"] == 0
    open_end = said["findings"][0]
    assert (open_end["kind"], open_end["chain"], open_end["count"]) == ("open end", made.name, 3)
    assert f"since {timestamp(START + 9 * STEP)}" in open_end["text"]
    assert told(made.lines, options=["--strict"])["code"] == 1


# --- what isn't ------------------------------------------------------------------------------------------------------


def test_a_tail_that_nobody_signed_for_minutes_is_overdue() -> None:
    made = isolate(SIGNER, 1)
    made.decide()
    made.now += 300
    made.decide()
    assert findings(told(made.lines)) == [("overdue", made.name, 11)]


def test_an_hour_without_calls_is_not_overdue() -> None:
    made = isolate(SIGNER, 1)
    made.now += 3600
    made.decide()
    assert kinds(told(made.lines)) == []


def test_a_chain_of_a_gate_without_a_key_is_unsigned() -> None:
    chain = Chain("ab" * 16)
    keys = {"audit": None, "trusted": [], "assertion": []}
    lines = [
        chain.link(opening_event(START, GATE, None, None, keys, PLAIN)),
        chain.link('{"event":"decision","schema":2,"time":"2026-11-18T11:06:40.500Z"}'),
    ]
    said = told(lines)
    assert (said["code"], findings(said)) == (1, [("unsigned", chain.id, 0)])


@pytest.mark.parametrize(("after", "code", "found"), [(-1, 1, ["retired key"]), (+60, 0, [])])
def test_a_retired_key_signs_until_it_is_retired(here: Path, after: int, code: int, found: list[str]) -> None:
    made = isolate(SIGNER, 1)
    keys = SIGNER.keys(until=int(START + after))
    Path("audit-keys.json").write_text(written({**keys, **STRANGER.keys()}))
    said = told(made.lines)
    assert (said["code"], [kind for kind in kinds(said) if kind != "overdue"]) == (code, found)


def test_both_keys_verify_while_one_follows_the_other() -> None:
    Path("audit-keys.json").write_text(written({**SIGNER.keys(), **STRANGER.keys()}))
    assert told(isolate(SIGNER, 1).lines, isolate(STRANGER, 2).lines, options=["--strict"])["code"] == 0


def test_an_opening_in_the_middle_is_misplaced() -> None:
    made = Isolate("ab" * 16, 1, SIGNER)
    made.put(opening_event(made.now, GATE, None, None, {"audit": SIGNER.kid}, PLAIN))
    made.checkpoint()
    assert findings(told(made.lines)) == [("misplaced", made.name, 1)]


def test_a_chain_that_begins_with_anything_else_is_misplaced() -> None:
    chain = Chain("ab" * 16)
    lines = [chain.link('{"event":"decision","schema":2,"time":"2026-11-18T11:06:40.500Z"}')]
    document = chain.checkpoint(GATE, "2026-11-18T11:06:41.000Z", 1)
    lines.append(chain.link(checkpoint_event(START, document, SIGNER.kid, SIGNER.sign(document))))
    assert findings(told(lines)) == [("misplaced", chain.id, 0)]


def test_a_checkpoint_of_what_is_yet_to_come_contradicts_the_chain() -> None:
    made, ahead = Isolate("ab" * 16, 1, SIGNER), Isolate("ab" * 16, 1, SIGNER)
    for _ in range(5):
        ahead.decide()
    made.checkpoint(ahead.document())
    made.decide()
    assert ("contradicted", made.name, 1) in findings(told(made.lines))


def _spaced(line: str) -> str:
    return json.dumps(json.loads(line))


def _escaped(line: str) -> str:
    return line.replace('"decision"', '"\\u0064ecision"')


def _doubled_member(line: str) -> str:
    return line.replace('"schema":2', '"schema":2,"schema":2')


def _longer(line: str) -> str:
    return line[:-1] + ',"more":1}'


def _nested(line: str) -> str:
    return f'{{"event":"decision","schema":2,"of":{line}}}'


def _leading_zero(line: str) -> str:
    return line.replace('"position":1,', '"position":01,')


def _hash_in_a_text(line: str) -> str:
    """The hash of a part of the line, in a text that ends as a line does."""
    covered = line[: line.index(',"detail"')]
    return f'{covered},"hash":"{sha256(covered.encode()).hexdigest()}","detail":"x"{line[-300:]}'


ATTACKS = [_spaced, _escaped, _doubled_member, _longer, _leading_zero, _hash_in_a_text]


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_means_the_same_and_isnt_what_was_written_is_altered(attack: Callable[[str], str]) -> None:
    made = isolate(SIGNER, 1)
    said = told([made.lines[0], attack(made.lines[1]), *made.lines[2:]])
    assert said["code"] == 1
    named = {each["kind"] for each in said["findings"] if each["where"] == "0.log:2"}
    assert named == {"half-written" if attack is _leading_zero else "altered"}  # 01 is no number in JSON


def test_the_bytes_that_a_hash_covers_end_at_its_own_name_only() -> None:
    made = Isolate("ab" * 16, 1, SIGNER)
    made.decide(detail='","hash":"' + "0" * 64 + '"}', path=',"chain":"' + "ab" * 16 + '","position":9')
    made.checkpoint()
    assert told(made.lines, options=["--strict"])["code"] == 0


def test_what_stands_around_an_event_on_its_line_is_none_of_it() -> None:
    one, *rest = isolate(SIGNER, 1).lines
    log = f"text {one} more text\r\n".encode() + "".join(rest[:2]).encode() + b" and more\n" + raw(rest[2:])
    assert told(log)["code"] == 0


def test_an_event_inside_of_another_is_not_the_one_that_readers_see() -> None:
    made = isolate(SIGNER, 1)
    said = told([made.lines[0], _nested(made.lines[1]), *made.lines[2:]])
    assert sorted((each["kind"], each["where"]) for each in said["findings"]) == [
        ("missing", "0.log:3"),
        ("unplaced", "0.log:2"),
    ]


def test_an_event_behind_one_that_was_cut_off_is_itself() -> None:
    made = isolate(SIGNER, 1)
    half = '{"event":"decision","schema":2,"time":"2026-'
    said = told([made.lines[0], half + made.lines[1], *made.lines[2:]])
    assert said["code"] == 0
    assert [(each["kind"], each["where"]) for each in said["findings"]] == [("half-written", "0.log:2")]


def test_an_event_without_a_place_is_anybodys() -> None:
    loose = '{"event":"decision","schema":2,"time":"2026-11-18T11:06:41.000Z","decision":"permit"}'
    said = told([*isolate(SIGNER, 1).lines, loose])
    assert [(each["kind"], each["where"]) for each in said["findings"]] == [("unplaced", "0.log:13")]


def test_a_line_with_its_hash_that_is_no_json_is_altered() -> None:
    made = Isolate("ab" * 16, 1, SIGNER)
    made.put('{"event":"decision","schema":2,"time":"2026-11-18T11:06:41.000Z","x":nothing}')
    made.checkpoint()
    assert ("altered", made.name, 1) in findings(told(made.lines))


def test_a_half_written_line_is_said_and_its_position_missed_when_others_follow() -> None:
    made = isolate(SIGNER, 1)
    last = told(raw(made.lines)[:-30])
    assert (last["code"], last["read"]["half_written"]) == (0, 1)
    middle = told(raw(made.lines[:3]) + made.lines[3].encode()[:100] + b"\n" + raw(made.lines[4:]))
    named = sorted((each["kind"], each["where"]) for each in middle["findings"])
    assert named == [("half-written", "0.log:4"), ("missing", "0.log:5")]


def test_what_logpush_has_cut_is_missing_and_said_to_be_cut_by_it() -> None:
    made = isolate(SIGNER, 1)
    lines = [*made.lines[:3], made.lines[3][:50] + "<<<Logpush: message truncated>>>", *made.lines[4:]]
    said = told(pushed(lines))
    assert said["read"]["cut_by_logpush"] == 1
    assert sorted((each["kind"], each["text"]) for each in said["findings"]) == [
        ("half-written", "cut by Logpush"),
        ("missing", "position 3, between 0.log:1 and 0.log:2"),
    ]


# --- the register ----------------------------------------------------------------------------------------------------


def test_logs_that_agree_with_the_register_are_proved() -> None:
    both = [isolate(SIGNER, 1), isolate(SIGNER, 2)]
    assert told(together(both), known=register(both), options=["--strict"])["code"] == 0


def test_chains_of_another_time_are_not_asked_for() -> None:
    days = [isolate(SIGNER, number, start=START + number * 86_400) for number in (1, 2, 3)]
    known = register(days, read_at=START + 9 * 86_400)
    assert told(days[1].lines, known=known, options=["--strict"])["code"] == 0
    said = told(
        days[1].lines,
        known=known,
        options=["--since", timestamp(START), "--until", timestamp(START + 2.5 * 86_400)],
    )
    assert findings(said) == [("vanished", days[0].name, 0)]


def test_the_end_of_a_log_may_be_before_the_registers() -> None:
    made = isolate(SIGNER, 1, 40)
    assert kinds(told(made.lines[:20], known=register([made]))) == []
    said = told(made.lines[:20], known=register([made]), options=["--until", timestamp(START + 3600)])
    assert ("cut", made.name, 20) in findings(said)


def _renumbered(row: Row) -> Row:
    return replace(row, number=row.number + 5)


def _other_document(row: Row) -> Row:
    return replace(row, document=row.document.replace(GATE, "airgate-tess"))


def _unsigned_by_us(row: Row) -> Row:
    return replace(row, key=STRANGER.kid, signature=STRANGER.sign(row.document))


def _set_back(row: Row) -> Row:
    return replace(row, position=row.position - 1)


@pytest.mark.parametrize("change", [_renumbered, _other_document, _unsigned_by_us, _set_back])
def test_a_row_that_the_gate_did_not_write_is_named(change: Callable[[Row], Row]) -> None:
    both = [isolate(SIGNER, 1), isolate(SIGNER, 2)]
    known = register(both)
    known = Register(GATE, known.read_at, known.newest, [known.rows[0], change(known.rows[1])])
    assert ("register wrong", both[1].name, None) in findings(told(together(both), known=known))


def test_rows_that_were_deleted_from_the_end_are_known_by_what_was_given_out() -> None:
    both = [isolate(SIGNER, 1), isolate(SIGNER, 2)]
    known = register(both)
    lacking = Register(GATE, known.read_at, 2, known.rows[:1])
    assert [each["text"] for each in told(both[0].lines, known=lacking)["findings"]] == [
        "number 2 at its end"
    ]


def test_the_register_contradicts_a_tail_that_was_written_anew() -> None:
    made = isolate(SIGNER, 1, 12, 20)
    chain = Chain(made.name)
    lines = rewritten(made.lines[:3], chain)
    lines += rewritten([line.replace("of 1", "of 2") for line in made.lines[3:11]], chain)
    said = told(lines, known=register([made]))
    assert ("contradicted", made.name, 10) in findings(said)


def test_a_chain_that_began_after_the_register_was_read_is_not_in_it_yet() -> None:
    first, second = isolate(SIGNER, 1), isolate(SIGNER, 2, start=START + 600)
    later = Isolate("cd" * 16, None, SIGNER, START + 700)
    later.checkpoint()
    known = register([first, second], read_at=START + 650)
    said = told(together([first, second, later]), known=known)
    assert (said["code"], kinds(said, failures=False)) == (0, ["not registered"])


def test_a_chain_that_the_gate_says_it_could_not_register_is_its_own() -> None:
    first, second = isolate(SIGNER, 1), Isolate("cd" * 16, None, SIGNER)
    second.checkpoint()
    said = told(together([first, second]), known=register([first, second]))
    assert (said["code"], findings(said)) == (0, [("not registered", second.name, None)])


def test_a_chain_that_nobody_signed_and_no_register_knows_may_be_made_up() -> None:
    first, second = isolate(SIGNER, 1), Isolate("cd" * 16, None, SIGNER)
    second.decide()
    said = told(together([first, second]), known=register([first]))
    assert ("unregistered", second.name, None) in findings(said)
    assert said["code"] == 1


def test_a_register_that_is_older_than_the_chains_does_not_lack_them() -> None:
    old, new = isolate(SIGNER, 1), isolate(SIGNER, 2, start=START + 7200)
    known = register([old], read_at=START + 3600)
    said = told(together([old, new]), known=known)
    assert (said["code"], findings(said)) == (0, [("not registered", new.name, None)])


def test_a_row_that_was_set_back_is_behind_the_log() -> None:
    made = isolate(SIGNER, 1, 12, 4)
    known = register([made])
    made.checkpoint()
    said = told(made.lines, known=known)
    assert (said["code"], findings(said)) == (0, [("register behind", made.name, 10)])
    bare = replace(known.rows[0], key="", signature="")
    said = told(made.lines, known=Register(GATE, known.read_at, 1, [bare]))
    assert ("register wrong", made.name, None) in findings(said)


def test_a_chain_that_nobody_signed_is_not_believed_to_be_another_gates() -> None:
    chain = Chain("ef" * 16)
    keys = {"audit": STRANGER.kid, "trusted": [], "assertion": []}
    made_up = [chain.link(opening_event(START, "another", None, None, keys, PLAIN))]
    made = isolate(SIGNER, 1)
    assert ("unregistered", chain.id, None) in findings(told(made.lines, made_up, known=register([made])))


def test_a_register_of_another_gate_says_nothing_of_these_chains() -> None:
    made = isolate(SIGNER, 1)
    said = told(made.lines, known=Register("another", int(START + 9), 0, []))
    assert [each["text"] for each in said["findings"]] == [
        f"it is of the gate {GATE}, the register of another"
    ]


def test_the_gates_own_word_that_its_row_is_gone_is_passed_on() -> None:
    made = Isolate("ab" * 16, 1, SIGNER)
    made.put(
        f'{{"event":"register","schema":2,"time":"{timestamp(made.now)}","result":"missing","number":1}}'
    )
    made.checkpoint()
    assert findings(told(made.lines)) == [("register cut", made.name, 1)]


class Stores(LocalStores):
    """D1 as it answers, in pages."""

    def __init__(self, rows: list[dict[str, Any]], newest: int) -> None:
        self._rows, self._newest = rows, newest
        self.name, self.gate = "production", GATE

    def d1(self, sql: str) -> list[dict[str, Any]]:
        if "sqlite_sequence" in sql:
            return [{"seq": self._newest}]
        after = int(sql.partition("number > ")[2].split()[0])
        return [row for row in self._rows if row["number"] > after][:1000]


def test_a_register_is_read_in_pages_and_comes_back_from_its_file() -> None:
    rows = [
        {"number": number, "chain": f"{number:032x}", "opened_at": 5, "keys": "{}", "position": -1,
         "document": "", "key": "", "signature": ""}
        for number in range(1, 2_501)
    ]  # fmt: skip
    found = read_environment(Stores(rows, 2_502), now=9)
    assert (len(found.rows), found.newest, found.gate, found.read_at) == (2_500, 2_502, GATE, 9)
    Path("r.json").write_text(found.text)
    assert read_file(Path("r.json")) == found


# --- what the logs alone, or D1, could be made to say ----------------------------------------------------------------


def test_a_log_that_nobody_signed_is_never_proved() -> None:
    long, brief = Isolate("ab" * 16, None, SIGNER), Isolate("cd" * 16, None, SIGNER)
    for _ in range(100):
        long.decide()
    brief.decide()
    said = told(together([long, brief]))
    assert (said["code"], said["proved"]) == (1, 0)
    assert findings(said) == [("never signed", long.name, 0), ("not yet signed", brief.name, 0)]
    alone = told(brief.lines)
    assert (alone["code"], alone["result"], alone["proved"]) == (2, "nothing proved", 0)
    code, output = audit("verify", "0.log")
    assert code == 2
    assert "Nothing is proved" in output
    assert "Proved:" not in output


def test_made_up_chains_are_not_proved_by_rows_without_checkpoints() -> None:
    made_up = [Isolate(f"{number:032x}", number, SIGNER) for number in (1, 2)]
    for each in made_up:
        for _ in range(100):
            each.decide()
    said = told(together(made_up), known=register(made_up))
    assert (said["code"], set(kinds(said))) == (1, {"never signed"})


def test_an_isolate_that_ended_at_once_is_told_beside_what_is_proved() -> None:
    made, brief = isolate(SIGNER, 1), Isolate("cd" * 16, 2, SIGNER)
    said = told(together([made, brief]), known=register([made, brief]))
    assert (said["code"], findings(said)) == (0, [("not yet signed", brief.name, 0)])


def test_a_tail_whose_time_nobody_can_read_is_overdue() -> None:
    made = isolate(SIGNER, 1)
    made.put('{"event":"decision","schema":2,"time":"2026-11-22T09:30:00Z"}')
    made.now += 50 * 86_400
    made.decide()
    assert kinds(told(made.lines)) == ["no time", "overdue"]


def test_a_checkpoint_that_is_repeated_in_a_tail_does_not_make_it_younger() -> None:
    made = isolate(SIGNER, 1)
    event = json.loads(made.lines[-1])
    made.decide()
    made.now += 86_400
    made.put(checkpoint_event(made.now, event["document"], event["key"], event["signature"]))
    assert ("replayed", made.name, 13) in findings(told(made.lines))


def test_packed_lines_that_readers_see_are_verified_up_to_the_damage() -> None:
    made, other = isolate(SIGNER, 1), isolate(SIGNER, 2)
    forged = [line.replace("of 2", "by me") for line in other.lines]
    damaged = gzip.compress(raw(forged)) + b"x"
    said = told(made.lines, damaged)
    tally = Tally()
    assert len(list(events([Path("0.log"), Path("1.log")], tally))) == said["read"]["events"] == 24
    assert said["code"] == 1
    assert {"altered", "damaged"} <= set(kinds(said))
    cut = gzip.compress(raw(other.lines))
    said = told(made.lines, cut[: len(cut) * 2 // 3])
    assert (said["code"], "damaged" in kinds(said)) == (1, True)
    assert said["read"]["events"] > 12


@pytest.mark.parametrize("damage", [False, True])
@pytest.mark.parametrize("carrier", CARRIERS)
def test_verifying_and_reading_see_the_same_events_in_every_form(carrier: str, damage: bool) -> None:
    log = CARRIERS[carrier](isolate(SIGNER, 1, 60).lines)
    if damage:
        log = log[: len(log) * 2 // 3]
    said, tally = told(log)["read"], Tally()
    assert len(list(events([Path("0.log")], tally))) == said["events"] > 0
    assert (tally.broken, tally.foreign, tally.lines) == (
        said["half_written"],
        said["foreign"],
        said["lines"],
    )


def test_a_row_that_was_made_harmless_is_named() -> None:
    three = [isolate(SIGNER, number, 40, start=START + number) for number in (1, 2, 3)]
    known = register(three)
    bare = replace(known.rows[1], position=-1, document="", key="", signature="")
    lines = together([three[0], three[2]])
    old = Register(GATE, known.read_at, 3, [known.rows[0], replace(bare, opened_at=1), known.rows[2]])
    said = told(lines, known=old)
    assert (said["code"], kinds(said)) == (1, ["register wrong"])
    assert ("perhaps vanished", three[1].name, None) in findings(said)
    # All rows before it, too: then the chains in the logs say when they were opened.
    rows = [replace(known.rows[0], opened_at=1), replace(bare, opened_at=1), known.rows[2]]
    said = told(lines, known=Register(GATE, known.read_at, 3, rows))
    assert findings(said)[0] == ("register wrong", three[0].name, None)
    # Or a time after the logs: it is told all the same.
    late = replace(known.rows[2], number=3, opened_at=int(START) + 9_000)
    rows = [known.rows[0], replace(bare, opened_at=int(START) + 9_000), late]
    said = told(lines, known=Register(GATE, known.read_at, 3, rows))
    assert ("perhaps vanished", three[1].name, None) in findings(said)


def _hourly(number: int, start: float, hours: float) -> Isolate:
    """An isolate that says something every ten minutes, and signs for it."""
    made = Isolate(f"{number:032x}", number, SIGNER, start)
    while made.now < start + hours * 3600:
        made.decide()
        made.checkpoint()
        made.now += 600
    return made


def test_a_beginning_that_the_hours_before_should_hold_is_missing_with_a_register_as_well() -> None:
    one, two = _hourly(1, START - 3600, 8), _hourly(2, START, 7)
    late = [line for line in one.lines if json.loads(line)["time"] >= timestamp(START + 5 * 3600)]
    said = told(two.lines, late, known=register([one, two]))
    assert (said["code"], kinds(said)) == (1, ["beginning missing"])
    assert any("at their beginning" in sentence for sentence in said["unprovable"])


def test_a_chain_that_lives_on_after_the_logs_was_perhaps_cut() -> None:
    one, two = _hourly(1, START, 7), _hourly(2, START + 5, 20)
    kept = [line for line in two.lines if json.loads(line)["time"] < timestamp(START + 2 * 3600)]
    known = register([one, two])
    said = told(one.lines, kept, known=known)
    assert (said["code"], [kind for kind, *_ in findings(said)]) == (0, ["perhaps cut"])
    assert told(one.lines, kept, known=known, options=["--strict"])["code"] == 1
    whole = [line for line in two.lines if json.loads(line)["time"] < timestamp(START + 7 * 3600)]
    assert told(one.lines, whole, known=known)["findings"] == []


def test_a_row_that_was_set_back_or_is_gone_is_named_by_an_older_copy() -> None:
    one, two = isolate(SIGNER, 1, 40), isolate(SIGNER, 2, 40)
    Path("old.json").write_text(register([one, two], read_at=START + 600).text)
    signed = [json.loads(line) for line in two.lines if '"event":"checkpoint"' in line][1]
    position = json.loads(signed["document"])["position"]
    known = register([one, two])
    back = replace(
        known.rows[1], position=position, document=signed["document"], signature=signed["signature"]
    )
    set_back = Register(GATE, known.read_at, 2, [known.rows[0], back])
    lines = [*one.lines, *two.lines[: position + 2]]
    assert told(lines, known=set_back)["code"] == 0
    said = told(lines, known=set_back, options=["--register", "old.json"])
    assert (said["code"], said["register"]["copies"]) == (1, 1)
    assert [("register set back", two.name, None), ("cut", two.name, position + 2)] == findings(said)[:2]
    gone = Register(GATE, known.read_at, 1, known.rows[:1])
    assert told(one.lines, known=gone)["code"] == 0
    said = told(one.lines, known=gone, options=["--register", "old.json"])
    assert {("register set back", two.name, None), ("vanished", two.name, 0)} <= set(findings(said))
    same = told(together([one, two]), known=known, options=["--register", "old.json", "--strict"])
    assert (same["code"], same["findings"]) == (0, [])


def test_what_a_register_can_not_tell_is_said() -> None:
    made = isolate(SIGNER, 1)
    said = " ".join(told(made.lines, known=register([made]))["unprovable"])
    assert "never got a number" in said
    assert "set their rows back" in said
    assert "lived on after these logs" in said


def test_a_number_that_two_chains_have_is_a_finding_with_a_register_and_without() -> None:
    four = [isolate(SIGNER, 4), isolate(SIGNER, 5), Isolate("ab" * 16, 5, SIGNER), isolate(SIGNER, 6)]
    four[2].checkpoint()
    said = told(together(four))
    assert (said["code"], findings(said)) == (1, [("register wrong", four[2].name, None)])
    known = register([isolate(SIGNER, number) for number in (1, 2, 3)] + four)
    assert "two rows have number 5" in {
        each["text"] for each in told(together(four), known=known)["findings"]
    }


def test_chains_of_another_gate_are_findings_when_the_gate_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made = isolate(SIGNER, 1)
    monkeypatch.setattr(audit_logs, "GATE", "airgate-staging")
    staging = isolate(STRANGER, 2)
    Path("audit-keys.json").write_text(written({**SIGNER.keys(), **STRANGER.keys()}))
    both = together([made, staging])
    said = told(both)
    assert (said["code"], findings(said)) == (0, [("several gates", None, None)])
    named = told(both, options=["--gate", GATE])
    assert (named["code"], findings(named)) == (1, [("other gate", staging.name, None)])
    assert told(made.lines, options=["--gate", GATE, "--strict"])["code"] == 0


def test_what_is_dated_before_its_key_was_made_does_not_count() -> None:
    made = isolate(SIGNER, 1)
    for after, code in ((3600, 1), (60, 0)):
        key = SIGNER.public._replace(made_at=int(START) + after)
        Path("audit-keys.json").write_text(written({SIGNER.kid: key}))
        assert told(made.lines)["code"] == code
    key = SIGNER.public._replace(made_at=int(START) + 3600)
    Path("audit-keys.json").write_text(written({SIGNER.kid: key}))
    assert kinds(told(made.lines)) == ["backdated"]


def test_a_retired_key_can_be_dated_back_and_this_is_said() -> None:
    Path("audit-keys.json").write_text(written(SIGNER.keys(until=int(START) + 3600)))
    said = told(isolate(SIGNER, 1).lines)
    assert any("dated before it was retired" in sentence for sentence in said["unprovable"])


@pytest.mark.parametrize(
    ("schema", "time", "kind"),
    [
        ("1", timestamp(START + 1), "unplaced"),
        ("true", timestamp(START - 1), "unplaced"),
        ("1.0", timestamp(START - 1), "unplaced"),
        ("1", "z" * 23 + "Z", "no time"),
    ],
)
def test_an_event_without_a_chain_among_chains_is_anybodys(schema: str, time: str, kind: str) -> None:
    old = f'{{"event":"decision","schema":{schema},"time":"{time}","decision":"permit"}}'
    said = told([*isolate(SIGNER, 1).lines, old])
    assert (said["code"], kinds(said)) == (1, [kind])
    assert said["findings"][0]["where"] == "0.log:13"


@pytest.mark.parametrize("doubles", [10, 1_500])
def test_another_line_behind_any_number_of_doubles_is_in_conflict(doubles: int) -> None:
    made = isolate(SIGNER, 1, 6, tail=2)
    fork = Chain(made.name)
    rewritten(made.lines[:-1], fork)
    other = fork.link(f'{{"event":"decision","schema":2,"time":"{timestamp(START + 3)}","forged":true}}')
    said = told([*made.lines, *[made.lines[-1]] * doubles, other])
    assert (said["code"], kinds(said)) == (1, ["conflicting"])


def test_findings_of_a_kind_are_kept_to_a_limit_and_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "MOST_ALIKE", 25)
    lines = [Isolate(f"{number:032x}", None, SIGNER).lines[0] for number in range(40)]
    made = isolate(SIGNER, 1_000)
    said = told(lines, made.lines)
    assert (said["code"], len(said["findings"]), said["findings_left_out"]) == (0, 25, 15)
    code, output = audit("verify", "0.log", "1.log", "--strict")
    assert code == 1
    assert "Not proved: 40 findings" in output
    assert "and 20 more like these; --json lists the first 25" in output
    monkeypatch.setattr(proof, "MOST_CHAINS", 30)
    code, output = audit("verify", "0.log", "1.log")
    assert code == 2
    assert "more than 30 chains" in output


# --- the command as a person meets it --------------------------------------------------------------------------------


def test_findings_are_told_with_their_place_and_what_they_mean() -> None:
    made = isolate(SIGNER, 1, 12, tail=2)
    Path("a.log").write_bytes(raw([line for line in made.lines if line != made.lines[3]]))
    code, output = audit("verify", "a.log")
    assert code == 1
    assert f"a.log:4, chain {made.name} position 3: position 3, between a.log:3 and a.log:4" in output
    assert "missing: Lines were there, and aren't any more." in output
    assert f"chain {made.name} position 9: no checkpoint covers what comes after position 8" in output
    assert "Whether somebody who had the gate's private key" in output


def test_what_a_log_says_does_not_reach_the_terminal_as_it_is() -> None:
    made = isolate(SIGNER, 1)
    forged = made.lines[4].replace(SIGNER.kid, "\\u001b[31mkey\\u0007")
    chain = Chain(made.name)
    rewritten(made.lines[:4], chain)
    Path("a\x1b[31m.log").write_bytes(raw([*made.lines[:4], *rewritten([forged], chain)]))
    code, output = audit("verify", "a\x1b[31m.log")
    assert code == 1
    assert "\x1b" not in output
    assert "\x07" not in output


def test_without_keys_nothing_is_proved_unless_that_is_wanted() -> None:
    Path("audit-keys.json").unlink()
    made = isolate(SIGNER, 1)
    Path("a.log").write_bytes(raw(made.lines))
    code, output = audit("verify", "a.log")
    assert code == 2
    assert "Give the gate's public keys: --keys audit-keys.json (or say --no-keys)" in output
    assert audit("verify", "a.log", "--no-keys")[0] == 0
    Path("a.log").write_bytes(raw(made.lines[:3] + made.lines[4:]))
    assert audit("verify", "a.log")[0] == 1


MISTAKES: dict[str, tuple[list[str], str]] = {
    "a log that isn't there": (["none.log"], "none.log: can't be read: No such file"),
    "a log without events": (["audit-keys.json"], "No event of a gate is in these logs."),
    "keys that aren't there": (["a.log", "--keys", "none.json"], "none.json: no such file."),
    "a private key": (["a.log", "--keys", "private.json"], "holds the private key"),
    "a log as keys": (["a.log", "--keys", "a.log"], "a.log: not a file of audit keys"),
    "a register that isn't there": (["a.log", "--register", "none.json"], "Make it: airgate audit register"),
    "keys as a register": (["a.log", "--register", "audit-keys.json"], "audit-keys.json: not a register"),
    "a time without a register": (["a.log", "--since", "7d"], "--since and --until say what the register"),
    "no time": (["a.log", "--register", "r.json", "--since", "soon"], '--since: "soon"'),
    "keys, and none": (["a.log", "--no-keys", "--keys", "audit-keys.json"], "not both"),
    "two gates' registers": (["a.log", "--register", "r.json", "--register", "s.json"], "of different gates"),
    "standard input twice": (["-", "-"], "name it once"),
    "an environment that isn't there": (["a.log", "--env", "nowhere"], "nowhere"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_with_what_to_do(mistake: str) -> None:
    arguments, said = MISTAKES[mistake]
    Path("a.log").write_bytes(raw(isolate(SIGNER, 1).lines))
    Path("private.json").write_text(SIGNER.text)
    Path("r.json").write_text(register([isolate(SIGNER, 1)]).text)
    Path("s.json").write_text(Register("another", int(START), 0, []).text)
    code, output = audit("verify", *arguments)
    assert code == 2
    assert said in output
    assert json.loads(SIGNER.text)["d"] not in output


REFUSED = {
    "no object": "[]",
    "no keys": '{"keys":[]}',
    "a private key": json.dumps({"keys": [json.loads(SIGNER.text)]}),
    "another kind of key": json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "kid": "a"}]}),
    "a key twice": json.dumps({"keys": [SIGNER.public.jwk, SIGNER.public.jwk]}),
    "no kid": json.dumps({"keys": [{k: v for k, v in SIGNER.public.jwk.items() if k != "kid"}]}),
    "an unknown member": json.dumps({"keys": [{**SIGNER.public.jwk, "untill": 5}]}),
    "a time that is none": json.dumps({"keys": [{**SIGNER.public.jwk, "until": "2026"}]}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_of_keys_that_is_none_is_refused(what: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_keys(REFUSED[what])


def test_a_file_of_keys_comes_back_as_it_was_written() -> None:
    keys: dict[str, AuditKey] = {**SIGNER.keys(until=5_000_000_000), **STRANGER.keys()}
    assert parse_keys(written(keys)) == keys


DOCUMENT = (Path(__file__).parents[2] / "docs" / "audit-proof.md").read_text("utf-8")


def _documented(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_shell_that_is_documented_finds_what_was_altered() -> None:
    made = isolate(SIGNER, 1, 8)
    Path("audit.ndjson").write_bytes(raw(made.lines))
    done = _run("sh", "-c", _documented("sh"))
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    Path("audit.ndjson").write_bytes(raw([made.lines[0], _spaced(made.lines[1]), *made.lines[2:]]))
    assert _run("sh", "-c", _documented("sh")).stdout.startswith("altered: ")


@pytest.mark.parametrize(
    "what", ["nothing", "altered", "missing", "rewritten", "InvalidSignature", "retired key"]
)
def test_the_python_that_is_documented_finds_it_too(what: str) -> None:
    made = isolate(SIGNER, 1)
    lines = list(made.lines)
    if what == "altered":
        lines[1] = lines[1].replace("of 1", "of 2")
    elif what == "missing":
        del lines[2]
    elif what == "retired key":
        Path("audit-keys.json").write_text(written(SIGNER.keys(until=int(START))))
    elif what != "nothing":
        chain = Chain(made.name)
        rewritten(lines[:1], chain)
        forged = json.loads(lines[4])["signature"]
        of = ("of 1", "of 2") if what == "rewritten" else (forged, STRANGER.sign(made.document()))
        lines = [lines[0], *rewritten([line.replace(*of) for line in lines[1:]], chain)]
    Path("a.log").write_bytes(raw(lines))
    done = _run(sys.executable, "-c", _documented("python"), "a.log")
    assert (what if what != "nothing" else "") in done.stderr
    assert bool(done.returncode) == (what != "nothing"), done.stderr
    if what == "nothing":
        assert done.stdout == f"{made.name}: 0 to 11, of which a checkpoint covers those to 10\n"


def test_every_kind_of_finding_is_documented() -> None:
    assert [kind for kind in KINDS if f"`{kind}`" not in DOCUMENT] == []
