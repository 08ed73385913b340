"""Whatever is done to a log is found, and named: which chain, which position, which line. Untouched ones verify."""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from audit_logs import CARRIERS, START, Isolate, Signer, isolate, raw, register, rewritten, together
from hypothesis import given, settings
from hypothesis import strategies as st

from airgate.audit.findings import Finding
from airgate.audit.proof import prove
from airgate.audit.register import Register
from chain import Chain

GATE, STRANGER = Signer(), Signer()
_PLACE = re.compile(
    r',"chain":"([0-9a-f]{32})","position":(\d+),"previous":"[0-9a-f]{64}","hash":"[0-9a-f]{64}"\}$'
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@dataclass
class Verified:
    findings: list[Finding]
    proved: int

    @property
    def failures(self) -> list[Finding]:
        return [each for each in self.findings if each.failure]

    def has(self, kind: str, chain: str | None = None, position: int | None = None) -> bool:
        return any(
            each.kind == kind
            and (chain is None or each.chain == chain)
            and (position is None or each.position == position)
            for each in self.findings
        )

    def at(self, where: str) -> set[str]:
        return {each.kind for each in self.findings if each.where == where}


Window = tuple[float | None, float | None]
ALL_DAY = START - 3600, START + 3600  # what somebody says who knows which time the logs are of


def verified(
    folder: Path, *logs: bytes, known: Register | None = None, window: Window = (None, None)
) -> Verified:
    paths = []
    for number, log in enumerate(logs):
        path = folder / f"{number}.log"
        path.write_bytes(log)
        paths.append(path)
    with prove(paths, GATE.keys(), register=known, window=window, jobs=1) as proof:
        return Verified(proof.findings, proof.proved)


def place(line: str) -> tuple[str, int]:
    found = _PLACE.search(line)
    assert found is not None
    return found[1], int(found[2])


@st.composite
def gates(draw: st.DrawFn) -> list[Isolate]:
    """Isolates of one gate, which all live at the same time."""
    return [
        isolate(
            GATE,
            number,
            draw(st.integers(8, 30)),
            draw(st.integers(2, 9)),
            START + 2 * number,
            draw(st.integers(0, 3)),
        )
        for number in range(1, draw(st.integers(2, 4)) + 1)
    ]


chances = st.integers(0, 2**32).map(random.Random)


# --- untouched -----------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(gates(), st.lists(st.sampled_from(sorted(CARRIERS)), min_size=1, max_size=4), chances)
def test_untouched_logs_verify_in_any_order_split_and_wrapping(
    folder: Path, isolates: list[Isolate], carriers: list[str], chance: random.Random
) -> None:
    lines = together(isolates)
    if chance.random() < 0.5:
        chance.shuffle(lines)
    cuts = sorted(chance.randrange(len(lines) + 1) for _ in carriers[1:])
    parts = [lines[one:other] for one, other in zip([0, *cuts], [*cuts, len(lines)], strict=True)]
    logs = [CARRIERS[carrier](part) for carrier, part in zip(carriers, parts, strict=True)]
    logs += [log for log in logs if chance.random() < 0.3]  # delivered twice
    chance.shuffle(logs)
    found = verified(folder, *logs, known=register(isolates))
    assert found.failures == []
    # All but the tails, and the checkpoint that covers what comes before it.
    assert found.proved == sum(json.loads(made.row.document)["position"] + 1 for made in isolates if made.row)


@settings(max_examples=50)
@given(gates())
def test_a_log_as_it_was_written_has_nothing_to_say_but_its_open_ends(
    folder: Path, isolates: list[Isolate]
) -> None:
    found = verified(folder, raw(together(isolates)), known=register(isolates))
    assert {each.kind for each in found.findings} <= {"open end"}


# --- tampered ------------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(gates(), chances)
def test_an_altered_byte_is_named_wherever_it_is(
    folder: Path, isolates: list[Isolate], chance: random.Random
) -> None:
    lines = [line.encode() for line in together(isolates)]
    at = chance.randrange(len(lines))
    line = bytearray(lines[at])
    byte = chance.randrange(len(line)) if chance.random() < 0.5 else len(line) - 1 - chance.randrange(230)
    byte = max(0, byte)
    line[byte] = chance.choice([each for each in range(256) if each != line[byte]])
    chain, position = place(lines[at].decode())
    found = verified(folder, b"\n".join([*lines[:at], bytes(line), *lines[at + 1 :]]) + b"\n")
    assert found.at(f"{folder / '0.log'}:{at + 1}") & {"altered", "half-written", "unplaced"}
    kinds = {each.kind for each in found.findings if (each.chain, each.position) == (chain, position)}
    last = position == max(place(each.decode())[1] for each in lines if place(each.decode())[0] == chain)
    assert kinds & {"altered", "missing"} or (position == 0 and "begins before" in kinds) or last


@settings(max_examples=50)
@given(gates(), chances)
def test_a_line_that_is_gone_is_named(folder: Path, isolates: list[Isolate], chance: random.Random) -> None:
    made = chance.choice(isolates)
    position = chance.randrange(len(made.lines) - 1)
    lines = [line for line in together(isolates) if line != made.lines[position]]
    found = verified(folder, raw(lines))
    if position:
        assert [(each.kind, each.chain, each.position, each.count) for each in found.failures] == [
            ("missing", made.name, position, 1)
        ]
    else:
        assert found.has("begins before", made.name, 0)


@settings(max_examples=50)
@given(gates(), chances)
def test_a_line_that_is_there_twice_is_named_and_is_no_failure(
    folder: Path, isolates: list[Isolate], chance: random.Random
) -> None:
    lines = together(isolates)
    at = chance.randrange(len(lines))
    again = chance.randrange(at + 1, len(lines) + 1)
    chain, position = place(lines[at])
    found = verified(folder, raw([*lines[:again], lines[at], *lines[again:]]))
    assert found.failures == []
    assert found.has("doubled", chain, position)
    assert "doubled" in found.at(f"{folder / '0.log'}:{again + 1}")


@settings(max_examples=50)
@given(gates(), chances)
def test_lines_that_changed_places_are_named_and_are_no_failure(
    folder: Path, isolates: list[Isolate], chance: random.Random
) -> None:
    made = chance.choice(isolates)
    one, other = sorted(chance.sample(range(len(made.lines)), 2))
    lines = together(isolates)
    first, second = lines.index(made.lines[one]), lines.index(made.lines[other])
    lines[first], lines[second] = lines[second], lines[first]
    found = verified(folder, raw(lines))
    assert found.failures == []
    assert any(each.kind == "reordered" and each.chain == made.name for each in found.findings)


@settings(max_examples=50)
@given(gates(), chances)
def test_a_log_that_was_cut_ends_before_the_register_does(
    folder: Path, isolates: list[Isolate], chance: random.Random
) -> None:
    made = chance.choice(isolates)
    assert made.row is not None
    keep = chance.randrange(1, made.row.position)
    lines = [line for line in together(isolates) if line not in made.lines[keep:]]
    others = [each for each in isolates if each is not made]
    others[0].now = max(others[0].now, made.now)  # another isolate goes on
    lines += [others[0].decide(), others[0].checkpoint()]
    found = verified(folder, raw(lines), known=register(isolates))
    assert found.has("cut", made.name, keep)


@settings(max_examples=50)
@given(gates(), chances)
def test_a_log_cut_at_any_byte_says_how_much_nobody_signed(
    folder: Path, isolates: list[Isolate], chance: random.Random
) -> None:
    log = raw(together(isolates))
    at = chance.randrange(1, len(log))
    found = verified(folder, log[:at])
    assert found.failures == []
    whole = log[:at].decode().split("\n")
    kept = [line for line in whole if _PLACE.search(line)]
    assert found.has("half-written") == bool(whole[-1] and not _PLACE.search(whole[-1]))
    for made in isolates:
        mine = [line for line in kept if place(line)[0] == made.name]
        checkpoints = [line for line in mine if '"event":"checkpoint"' in line]
        covered = json.loads(json.loads(checkpoints[-1])["document"])["position"] if checkpoints else -1
        open_lines = sum('"event":"checkpoint"' not in line for line in mine[covered + 1 :])
        kind = "open end" if checkpoints else "not yet signed"
        told = [each.count for each in found.findings if each.kind == kind and each.chain == made.name]
        assert told == ([open_lines] if open_lines else [])


@settings(max_examples=50)
@given(gates(), chances)
def test_a_line_of_another_chain_does_not_fit(
    folder: Path, isolates: list[Isolate], chance: random.Random
) -> None:
    made, other = chance.sample(isolates, 2)
    position = chance.randrange(1, min(len(made.lines), len(other.lines)) - 1)
    moved = other.lines[position].replace(other.name, made.name)
    lines = [moved if line == made.lines[position] else line for line in together(isolates)]
    found = verified(folder, raw(lines))
    assert found.has("altered", made.name, position)


@settings(max_examples=50)
@given(gates(), chances)
def test_two_chains_spliced_with_new_hashes_break_where_they_meet(
    folder: Path, isolates: list[Isolate], chance: random.Random
) -> None:
    made, other = chance.sample(isolates, 2)
    position = chance.randrange(1, min(len(made.lines), len(other.lines)))
    chain = Chain(made.name)
    rewritten(made.lines[:position], chain)
    lines = [*made.lines[:position], *rewritten(other.lines[position:], chain)]
    rest = [line for line in together(isolates) if line not in made.lines]
    found = verified(folder, raw([*lines, *rest]))
    checkpoints = [at for at, line in enumerate(lines) if at >= position and '"checkpoint"' in line]
    if checkpoints:
        assert found.has("spliced", made.name, checkpoints[0])
    else:
        assert found.has("open end", made.name) or found.has("not yet signed", made.name)


@settings(max_examples=50)
@given(gates(), chances)
def test_a_line_that_was_rewritten_with_its_hash_does_not_link(
    folder: Path, isolates: list[Isolate], chance: random.Random
) -> None:
    made = chance.choice(isolates)
    position = chance.choice([at for at in range(1, len(made.lines) - 1) if '"decision"' in made.lines[at]])
    chain = Chain(made.name)
    rewritten(made.lines[:position], chain)
    text = made.lines[position]
    other = chain.link(text[: text.rindex(',"chain":"')].replace('"decision"', '"decisiom"', 1) + "}")
    lines = [other if line == text else line for line in together(isolates)]
    assert verified(folder, raw(lines)).has("unlinked", made.name, position + 1)
    # The same where two files meet.
    mine = [other if line == text else line for line in made.lines]
    rest = [line for line in lines if line not in mine]
    found = verified(folder, raw(mine[: position + 1]), raw(mine[position + 1 :]), raw(rest))
    assert found.has("unlinked", made.name, position + 1)


@settings(max_examples=50)
@given(gates(), chances)
def test_a_tail_that_was_renumbered_and_hashed_anew_contradicts_its_checkpoints(
    folder: Path, isolates: list[Isolate], chance: random.Random
) -> None:
    made = chance.choice(isolates)
    assert made.row is not None
    gone = chance.choice([at for at in range(1, made.row.position) if '"decision"' in made.lines[at]])
    chain = Chain(made.name)
    rewritten(made.lines[:gone], chain)
    lines = [*made.lines[:gone], *rewritten(made.lines[gone + 1 :], chain)]
    rest = [line for line in together(isolates) if line not in made.lines]
    found = verified(folder, raw([*lines, *rest]))
    named = [each for each in found.failures if each.chain == made.name]
    assert {each.kind for each in named} == {"contradicted"}
    assert all(each.position is not None and each.position >= gone for each in named)
    # Without the checkpoints as well, only the register knows.
    bare = [line for line in lines[gone:] if '"event":"checkpoint"' not in line]
    chain = Chain(made.name)
    rewritten(made.lines[:gone], chain)
    log = raw([*made.lines[:gone], *rewritten(bare, chain), *rest])
    found = verified(folder, log, known=register(isolates), window=ALL_DAY)
    assert found.has("contradicted", made.name) or found.has("cut", made.name)


@settings(max_examples=50)
@given(gates(), chances)
def test_lines_that_were_rewritten_with_all_hashes_after_them_contradict_the_next_checkpoint(
    folder: Path, isolates: list[Isolate], chance: random.Random
) -> None:
    made = chance.choice(isolates)
    assert made.row is not None
    changed = chance.choice([at for at in range(1, made.row.position + 1) if '"decision"' in made.lines[at]])
    lines = list(made.lines)
    lines[changed] = lines[changed].replace('"decision"', '"decisiom"', 1)
    chain = Chain(made.name)
    lines = rewritten(lines[:changed], chain) + rewritten(lines[changed:], chain)
    covered = [json.loads(json.loads(line)["document"])["position"] for line in lines if '"document"' in line]
    rest = [line for line in together(isolates) if line not in made.lines]
    chance.shuffle(rest)
    found = verified(folder, raw([*lines, *rest]))
    assert [(each.kind, each.chain, each.position) for each in found.failures] == [
        ("contradicted", made.name, min(each for each in covered if each >= changed))
    ]


FORGERIES: dict[str, Callable[[str, str], str]] = {
    "forged": lambda document, line: STRANGER.sign(document),
    "unknown key": lambda document, line: STRANGER.sign(document),
}


@pytest.mark.parametrize("kind", FORGERIES)
@settings(max_examples=50)
@given(gates(), chances)
def test_a_checkpoint_that_another_key_has_signed_is_named(
    folder: Path, kind: str, isolates: list[Isolate], chance: random.Random
) -> None:
    made = chance.choice(isolates)
    position = chance.choice([at for at, line in enumerate(made.lines) if '"event":"checkpoint"' in line])
    chain = Chain(made.name)
    rewritten(made.lines[:position], chain)
    line = made.lines[position]
    event = json.loads(line)
    forged = line.replace(event["signature"], FORGERIES[kind](event["document"], line))
    if kind == "unknown key":
        forged = forged.replace(f'"key":"{event["key"]}"', f'"key":"{STRANGER.kid}"')
    rest = [line for line in together(isolates) if line not in made.lines]
    lines = [*made.lines[:position], *rewritten([forged, *made.lines[position + 1 :]], chain)]
    found = verified(folder, raw([*lines, *rest]))
    assert found.has(kind, made.name, position)


@settings(max_examples=50)
@given(st.integers(1, 5), st.integers(20, 40))
def test_an_old_checkpoint_in_the_place_of_a_newer_one_is_named(folder: Path, old: int, between: int) -> None:
    made = Isolate("ab" * 16, 1, GATE)
    for _ in range(old):
        made.decide()
    document = made.document()
    made.checkpoint(document)
    for _ in range(between):
        made.decide()
    made.checkpoint(document)
    found = verified(folder, raw(made.lines))
    assert found.has("replayed", made.name, old + between + 2)


@settings(max_examples=50)
@given(gates(), chances)
def test_a_chain_that_vanished_is_named_by_the_register_and_its_number_lacks_without_it(
    folder: Path, isolates: list[Isolate], chance: random.Random
) -> None:
    number = chance.randrange(len(isolates))
    made = isolates[number]
    lines = [line for line in together(isolates) if line not in made.lines]
    known = register(isolates)
    assert verified(folder, raw(lines), known=known, window=ALL_DAY).has("vanished", made.name)
    by_itself = verified(folder, raw(lines), known=known)
    assert by_itself.has("vanished", made.name) or by_itself.has("perhaps vanished", made.name)
    assert verified(folder, raw(lines)).has("number skipped") == (0 < number < len(isolates) - 1)


@settings(max_examples=50)
@given(gates(), chances)
def test_a_row_that_was_deleted_leaves_a_gap_and_a_chain_without_a_row(
    folder: Path, isolates: list[Isolate], chance: random.Random
) -> None:
    made = chance.choice(isolates)
    known = register([each for each in isolates if each is not made])
    found = verified(folder, raw(together(isolates)), known=known)
    assert found.has("unregistered", made.name)
    gaps = [each for each in found.failures if each.kind == "register gap"]
    assert len(gaps) == 1
    assert f"number {made.number} " in gaps[0].text


def both(isolates: Sequence[Isolate]) -> tuple[Isolate, list[str]]:
    made = isolates[0]
    fork = Chain(made.name)
    lines = rewritten(made.lines[:3], fork)
    assert lines == made.lines[:3]
    return made, [fork.link('{"event":"decision","schema":2,"time":"2026-11-18T11:06:41.500Z","fork":true}')]


@settings(max_examples=50)
@given(gates())
def test_two_lines_of_one_place_are_in_conflict(folder: Path, isolates: list[Isolate]) -> None:
    made, other = both(isolates)
    found = verified(folder, raw([*together(isolates), *other]))
    assert [(each.kind, each.chain, each.position) for each in found.failures] == [
        ("conflicting", made.name, 3)
    ]


# --- what nobody signed for, and says what it likes -----------------------------------------------------------------


@settings(max_examples=50)
@given(gates(), chances, st.sampled_from(["z" * 23 + "Z", "!" * 23 + "Z", "2999-01-01T00:00:00.000Z", "now"]))
def test_a_forged_line_behind_the_last_checkpoint_does_not_move_the_time_that_the_register_is_asked_about(
    folder: Path, isolates: list[Isolate], chance: random.Random, time: str
) -> None:
    made = isolates[1]
    rest = [line for line in together(isolates) if line not in made.lines]
    known = register(isolates)
    plain = verified(folder, raw(rest), known=known)
    chain = isolates[0].chain
    forged = chain.link(f'{{"event":"bundle","schema":2,"time":"{time}","result":"loaded"}}')
    found = verified(folder, raw([*rest, forged]), known=known)
    for kind in ("vanished", "perhaps vanished"):
        assert found.has(kind, made.name) == plain.has(kind, made.name)
    assert plain.has("vanished", made.name) or plain.has("perhaps vanished", made.name)
    if time[0] != "2":
        assert found.at(f"{folder / '0.log'}:{len(rest) + 1}") >= {"no time"}
