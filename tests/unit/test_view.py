"""An isolate's view of D1: what counts of it, what is remembered when rows are lost or altered, and its variables."""

import json
from typing import Any

import pytest
from world import (
    ABSENT,
    ACTS,
    ED25519,
    HEAD,
    ISSUER,
    NOW,
    OPERATOR,
    ROWS,
    World,
    canonical,
    digest,
    document,
    entry,
    grant,
    number,
    revocation,
    rule,
    run,
    signed,
    trusting,
    undoing,
)

from access import MOST, act_id
from ledger import FEW, MANY, PAGE
from model import Denied, Reason
from view import MOST_PAGES, MOST_TOLD, RECENT, UNNAMED, Ages, View, read_ages, read_gate, read_keys

PUBLISHER = {
    **ED25519,
    "x": number(7, 32),
    "kid": "publisher",
    "name": "Release pipeline",
    "may": ["publish"],
}
TEXT = canonical(document())


class Isolate:
    """A view and the world that it is read from: one that takes signed policy only, if nothing else is said."""

    def __init__(self, world: World | None = None, **secrets: str) -> None:
        self.world = world or World()
        self.world.secrets = {**trusting(OPERATOR, PUBLISHER), **secrets} if world is None else world.secrets
        self.view = View()

    def fresh(self) -> "Isolate":
        """Another isolate of the same Worker, which has just begun."""
        return Isolate(self.world)

    def read(self) -> tuple[int | None, str]:
        """The number that is in force, and what is wrong."""
        pointer, wrong = run(self.view.read(self.world, 5.0))
        return (None if pointer is None else pointer.sequence), wrong

    def point(self, sequence: int, row: int | None = None, kid: str = "operator", **changes: Any) -> ROWS:
        """Put a pointer into the ledger, under its number or another. Returns the row."""
        made = signed("pointer", canonical(entry(TEXT, sequence, **changes)), kid)
        self.world.d1.pointers[row or sequence] = made
        return made

    def copy_head(self, row: ROWS) -> None:
        self.world.values[HEAD] = canonical({"document": row[0], "key": row[1], "signature": row[2]})

    def copy_acts(self, *rows: ROWS) -> None:
        self.world.values[ACTS] = canonical({"acts": rows})

    @property
    def counts(self) -> tuple[int, int, int]:
        """Revocations, grants, and acts that don't count."""
        report = self.view.report(NOW)
        return report["revocations"], report["grants"], report["refused"]


@pytest.fixture
def isolate() -> Isolate:
    return Isolate()


# The Worker's variables.


def test_the_usual_ages() -> None:
    assert read_ages({}.__getitem__) == Ages() == Ages(2.0, 10.0, 0.5, 60.0)


@pytest.mark.parametrize(
    ("secrets", "ages"),
    [
        pytest.param({"VIEW_REFRESH": "0.1"}, Ages(refresh=0.1), id="often"),
        pytest.param({"VIEW_WAIT": "60"}, Ages(wait=60), id="as late as it is too old"),
        pytest.param({"VIEW_WAIT": "2"}, Ages(wait=2), id="always before deciding"),
        pytest.param({"VIEW_PATIENCE": "3600"}, Ages(patience=3600), id="patiently"),
        pytest.param({"VIEW_STALE": "3600"}, Ages(stale=3600), id="an hour without D1"),
        pytest.param({"VIEW_STALE": " 1e1 "}, Ages(stale=10), id="as numbers may be written"),
        pytest.param(
            {"VIEW_REFRESH": "1", "VIEW_WAIT": "2", "VIEW_PATIENCE": "3", "VIEW_STALE": "4"}, Ages(1, 2, 3, 4), id="all"
        ),
    ],
)  # fmt: skip
def test_ages_may_be_others(secrets: dict[str, str], ages: Ages) -> None:
    assert read_ages(secrets.__getitem__) == ages


@pytest.mark.parametrize("name", ["VIEW_REFRESH", "VIEW_WAIT", "VIEW_PATIENCE", "VIEW_STALE"])
@pytest.mark.parametrize(
    "value",
    ["", " ", "x", "2s", "0", "0.09", "-1", "3600.1", "nan", "inf", "-inf", "1e999", "0x2", "2,5", "é"],
)
def test_an_age_that_cannot_be_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected seconds, from 0.1 to 3600$"):
        read_ages({name: value}.__getitem__)


@pytest.mark.parametrize(
    "secrets", [{"VIEW_REFRESH": "11"}, {"VIEW_WAIT": "1"}, {"VIEW_WAIT": "61"}, {"VIEW_STALE": "9"}], ids=str
)
def test_ages_that_do_not_rise(secrets: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="expected to rise in this order"):
        read_ages(secrets.__getitem__)


def test_a_gate_has_a_name() -> None:
    assert read_gate({}.__getitem__) == UNNAMED == "airgate"
    assert read_gate({"GATE": "airgate-staging"}.__getitem__) == "airgate-staging"


def test_keys_that_are_trusted() -> None:
    assert read_keys({}.__getitem__) is None
    for empty in ("", " ", "\n"):
        assert read_keys({"TRUSTED_KEYS": empty}.__getitem__) is None
    known = read_keys(trusting().__getitem__)
    assert known is not None
    assert list(known) == ["operator"]


@pytest.mark.parametrize("text", ["{}", "null", '{"keys":[]}', "operator", '{"keys":[{}]}'])
def test_keys_that_cannot_be_read_are_not_none(text: str) -> None:
    """Or a slip in the variable would let anybody publish."""
    with pytest.raises(ValueError, match=r"^TRUSTED_KEYS: "):
        read_keys({"TRUSTED_KEYS": text}.__getitem__)


def test_variables_are_read_once_and_before_anything_is_asked(isolate: Isolate) -> None:
    isolate.world.secrets["VIEW_STALE"] = "x"
    for _ in range(2):
        with pytest.raises(ValueError, match="VIEW_STALE"):
            isolate.read()
    assert isolate.world.happened == []
    isolate.world.secrets["VIEW_STALE"] = "30"
    isolate.read()
    isolate.world.secrets = {}
    isolate.read()
    assert (isolate.view.ages.stale, isolate.view.trusted is None) == (30, False)


# The head of the ledger.


def test_what_one_reading_asks(isolate: Isolate) -> None:
    assert isolate.read() == (1, "")
    assert isolate.world.of("database") == [("SELECT", (0, int(NOW), 0), 5.0)]
    assert isolate.world.of("kv") == [(HEAD, 5.0), (ACTS, 5.0)]
    isolate.world.clock += 3
    isolate.read()
    assert isolate.world.of("database")[1:] == [("SELECT", (0, int(NOW) + 3, 0), 5.0)]
    assert len(isolate.world.of("kv")) == 2  # the copies are for those that have just begun


def test_a_slow_reading_has_less_time_left_for_the_rest() -> None:
    class Slow(World):
        async def database(self, sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
            self.clock += 3
            return await super().database(sql, values, timeout)

    isolate = Isolate(Slow())
    isolate.read()
    isolate.world.d1.acts += [(each, signed("act", REVOCATION)) for each in range(1, PAGE + 2)]
    isolate.read()
    assert [timeout for _, _, timeout in isolate.world.of("database")] == [5.0, 5.0, 2.0]
    assert isolate.view.read_at == NOW + 3  # as old as its beginning: what came after it may be missing


@pytest.mark.parametrize(
    ("kid", "name"),
    [("operator", "Operator"), ("publisher", "Release pipeline")],
    ids=["operator", "publisher"],
)
def test_a_signed_head_counts(isolate: Isolate, kid: str, name: str) -> None:
    isolate.point(2, kid=kid, published_by="somebody else")
    pointer, _ = run(isolate.view.read(isolate.world, 5.0))
    assert (pointer.sequence, pointer.by) == (2, name)


BAD_HEADS = [
    pytest.param(lambda row: (row[0], "", ""), "not signed", id="nobody has signed"),
    pytest.param(lambda row: (row[0] + " ", *row[1:]), "is wrong", id="another text"),
    pytest.param(lambda row: (row[0].replace(":2,", ":3,"), *row[1:]), "is wrong", id="another number"),
    pytest.param(
        lambda row: (row[0].replace(digest(TEXT), digest("{}")), *row[1:]), "is wrong", id="another bundle"
    ),
    pytest.param(
        lambda row: signed("pointer", row[0], "mallory"), "not trusted here", id="a key of nobody's"
    ),
    pytest.param(lambda row: signed("act", row[0]), "is wrong", id="signed as an act"),
    pytest.param(
        lambda row: signed("pointer", row[0].replace('"airgate"', '"airgate-staging"')),
        "it is for another gate, 'airgate-staging'",
        id="another gate's",
    ),
    pytest.param(lambda row: signed("pointer", "{}"), "pointer.format: missing", id="no pointer"),
    pytest.param(lambda row: signed("pointer", ""), "Expecting value", id="nothing"),
    pytest.param(
        lambda row: signed("pointer", canonical(entry(TEXT, 1, note="replayed"))),
        "it is the document of number 1",
        id="an old one under a new number",
    ),
    pytest.param(
        lambda row: signed("pointer", canonical(entry(TEXT, 9))),
        "it is the document of number 9",
        id="a newer one under an old number",
    ),
]


@pytest.mark.parametrize(("change", "why"), BAD_HEADS)
def test_a_head_that_does_not_count_changes_nothing(isolate: Isolate, change: Any, why: str) -> None:
    isolate.read()
    good = isolate.point(2)
    isolate.world.d1.pointers[2] = change(good)
    for _ in range(2):
        sequence, wrong = isolate.read()
        assert sequence == 1
        assert "number 2 of the ledger does not count" in wrong
        assert why in wrong
    # One that has just begun goes by the newest of the others that counts, unless KV knows better.
    sequence, wrong = isolate.fresh().read()
    assert (sequence, "number 2 of the ledger does not count" in wrong) == (1, True)
    isolate.copy_head(good)
    sequence, wrong = isolate.fresh().read()
    assert (sequence, "does not count" in wrong) == (2, True)
    isolate.point(3)
    assert isolate.read() == isolate.fresh().read() == (3, "")


def test_heads_that_do_not_count_hide_those_below_them_only_for_so_long(isolate: Isolate) -> None:
    """Whoever can put one there can take away those below it just as well."""
    for garbage, counts in ((1, 1), (2, 1), (3, None)):
        isolate.world.d1.pointers[1 + garbage] = ("{", "", "")
        sequence, wrong = isolate.fresh().read()
        assert (sequence, f"number {1 + garbage} of the ledger does not count" in wrong) == (counts, True)
    isolate.point(9)
    assert isolate.fresh().read() == (9, "")


def test_a_key_that_is_not_trusted_yet_takes_nobody_off_what_is_in_force(isolate: Isolate) -> None:
    """It was made known in a file, published with, and not deployed: all isolates stay with the last good one."""
    isolate.read()
    isolate.copy_head(isolate.point(2, kid="made yesterday"))
    for each in (isolate, isolate.fresh()):
        sequence, wrong = each.read()
        assert (sequence, "not trusted here" in wrong) == (1, True)


def test_two_documents_under_one_number_are_told_of(isolate: Isolate) -> None:
    """The one that lost may be rightly signed: whoever can write D1 could choose, so the one that is known stays."""
    winner, loser = isolate.point(2), signed("pointer", canonical(entry("{}", 2)))
    isolate.copy_head(winner)
    assert isolate.read() == (2, "")
    isolate.world.d1.pointers[2] = loser
    for each in (isolate, isolate.fresh()):
        for _ in range(2):
            pointer, wrong = run(each.view.read(each.world, 5.0))
            assert (pointer.sequence, "another document has number 2 now" in wrong) == (2, True)
            assert pointer.bundle == digest(TEXT)


def test_what_is_published_while_others_read_is_no_alarm(isolate: Isolate) -> None:
    """A reading that began before a publish and ends after another one has learnt of it."""
    isolate.read()
    view, point = isolate.view, isolate.point

    class Busy(World):
        async def database(self, sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
            value = await super().database(sql, values, timeout)
            if 2 not in self.d1.pointers:
                point(2)
                later, wrong = await view.read(self, 5.0)
                assert (later.sequence, wrong) == (2, "")
            return value

    world = Busy()
    world.d1 = isolate.world.d1
    pointer, wrong = run(view.read(world, 5.0))
    assert (pointer.sequence, wrong) == (2, "")


def test_a_copy_that_is_written_while_one_begins_is_no_alarm(isolate: Isolate) -> None:
    """It is written after the row, so it is read before the row."""
    point, copy_head = isolate.point, isolate.copy_head

    class Busy(World):
        async def kv(self, key: str, timeout: float) -> str | None:
            if key == HEAD:
                copy_head(point(2))
            return await super().kv(key, timeout)

    world = Busy()
    world.secrets, world.d1 = isolate.world.secrets, isolate.world.d1
    isolate.world.values = world.values
    assert Isolate(world).read() == (2, "")


def test_a_key_that_the_runtime_will_not_have_signs_no_head(isolate: Isolate) -> None:
    isolate.world.broken["verify"] = Denied(Reason.TOKEN_KEY, "refused")
    assert isolate.read()[0] is None


def test_a_head_that_was_believed_is_not_verified_again(isolate: Isolate) -> None:
    for _ in range(3):
        isolate.read()
    assert isolate.world.of("verify") == ["operator"]


LOST = [
    pytest.param(lambda isolate: isolate.world.d1.pointers.clear(), id="all rows are gone"),
    pytest.param(lambda isolate: isolate.world.d1.pointers.pop(7), id="the newest row is gone"),
    pytest.param(
        lambda isolate: isolate.world.d1.pointers.update({9: isolate.world.d1.pointers[1]}),
        id="the oldest is replayed under a new number",
    ),
    pytest.param(
        lambda isolate: isolate.point(7, note="another", bundle=digest("{}")),
        id="another rightly signed one has its number",
    ),
]


@pytest.mark.parametrize("lose", LOST)
def test_rows_that_are_lost_take_nobody_back_who_knew_them(isolate: Isolate, lose: Any) -> None:
    good = isolate.point(7)
    isolate.copy_head(good)
    assert isolate.read() == (7, "")
    lose(isolate)
    for _ in range(2):
        sequence, wrong = isolate.read()
        assert sequence == 7
        assert wrong
    pointer, _ = run(isolate.view.read(isolate.world, 5.0))
    assert pointer.bundle == digest(TEXT)
    isolate.point(10)
    assert isolate.read() == (10, "")


@pytest.mark.parametrize("lose", LOST[:3])
def test_nor_one_that_has_just_begun_while_kv_has_the_copy(isolate: Isolate, lose: Any) -> None:
    isolate.copy_head(isolate.point(7))
    lose(isolate)
    fresh = isolate.fresh()
    sequence, wrong = fresh.read()
    assert sequence == 7
    assert wrong
    assert fresh.read()[0] == 7


def test_an_older_copy_changes_nothing(isolate: Isolate) -> None:
    """KV shows what was written a minute ago."""
    isolate.copy_head(isolate.point(6))
    isolate.point(7)
    assert isolate.read() == (7, "")


@pytest.mark.parametrize(
    "row",
    [
        pytest.param((canonical(entry(TEXT, 9)), "", ""), id="nobody has signed"),
        pytest.param(signed("pointer", canonical(entry(TEXT, 9)), "mallory"), id="a key of nobody's"),
        pytest.param(signed("act", canonical(entry(TEXT, 9))), id="signed as an act"),
        pytest.param(signed("pointer", canonical(entry(TEXT, 9, gate="airgate-staging"))), id="another gate's"),
        pytest.param(("{", "", ""), id="nonsense"),
    ],
)  # fmt: skip
def test_a_forged_copy_counts_for_nothing_and_is_not_heard_of(isolate: Isolate, row: ROWS) -> None:
    isolate.copy_head(row)
    assert isolate.read() == (1, "")


def test_a_copy_that_cannot_be_had_is_no_reason_to_go_on_without_it(isolate: Isolate) -> None:
    """Or whoever takes KV away would take an isolate that begins back in time."""
    for name in (HEAD, ACTS):
        isolate.world.values = {name: OSError("away")}
        with pytest.raises(OSError, match="away"):
            isolate.read()
    assert isolate.view.stale(isolate.world.clock)
    isolate.world.values = {}
    assert isolate.read() == (1, "")


def test_a_rightly_signed_copy_counts_though_d1_has_never_had_it(isolate: Isolate) -> None:
    isolate.copy_head(isolate.point(9))
    del isolate.world.d1.pointers[9]
    sequence, wrong = isolate.read()
    assert (sequence, "9 stays in force" in wrong) == (9, True)


def test_a_gate_without_keys_takes_what_is_in_d1_and_no_copy() -> None:
    isolate = Isolate()
    isolate.world.secrets = {}
    isolate.world.d1.pointers = {3: (canonical(entry(TEXT, 3)), "", "")}
    isolate.copy_head((canonical(entry(TEXT, 9)), "", ""))
    assert isolate.read() == (3, "")
    assert [key for key, _ in isolate.world.of("kv")] == [ACTS]
    isolate.world.d1.pointers = {4: (canonical(entry(TEXT, 4, gate="airgate-staging")), "", "")}
    assert isolate.read()[0] == 3
    isolate.world.d1.pointers.clear()
    assert isolate.read()[0] == 3


def test_nothing_published_is_no_mistake(isolate: Isolate) -> None:
    isolate.world.d1.pointers.clear()
    assert isolate.read() == (None, "")


def test_another_gate_reads_its_own(isolate: Isolate) -> None:
    isolate = Isolate(GATE="airgate-staging")
    assert isolate.read()[0] is None
    isolate.point(2, gate="airgate-staging")
    isolate.world.act(revocation())
    isolate.world.act(revocation(gate="airgate-staging"))
    assert isolate.read() == (2, "")
    assert isolate.counts == (1, 0, 1)


# Acts.


def stored(world: World, row: ROWS) -> None:
    world.d1.acts.append((len(world.d1.acts) + 1, row))


def unsigned(document: dict[str, Any]) -> ROWS:
    return canonical(document), "", ""


REVOCATION, GRANT = canonical(revocation()), canonical(grant())
ACT_ROWS = [
    pytest.param(signed("act", REVOCATION), (1, 0), id="a revocation, signed"),
    pytest.param((REVOCATION, "", ""), (1, 0), id="a revocation that nobody signed"),
    pytest.param((REVOCATION, "mallory", "AAAA"), (1, 0), id="a revocation, wrongly signed"),
    pytest.param(signed("act", GRANT), (0, 1), id="a grant, signed"),
    pytest.param((GRANT, "", ""), (0, 0), id="a grant that nobody signed"),
    pytest.param(signed("act", GRANT, "publisher"), (0, 0), id="a grant by a key that may only publish"),
    pytest.param(signed("act", GRANT, "mallory"), (0, 0), id="a grant by a key of nobody's"),
    pytest.param(signed("pointer", GRANT), (0, 0), id="a grant signed as a pointer"),
    pytest.param((GRANT + " ", *signed("act", GRANT)[1:]), (0, 0), id="a grant of another text"),
    pytest.param(
        (GRANT.replace("closer", "admin"), *signed("act", GRANT)[1:]), (0, 0), id="a grant of another role"
    ),
    pytest.param(signed("act", canonical(grant(gate="other"))), (0, 0), id="another gate's grant"),
    pytest.param(signed("act", canonical(revocation(gate="other"))), (0, 0), id="another gate's revocation"),
    pytest.param(signed("act", canonical(grant(until=int(NOW) + 10**6))), (0, 0), id="a grant for too long"),
    pytest.param(signed("act", '{"until":9999999999}'), (0, 0), id="no act at all"),
]


@pytest.mark.parametrize(("row", "counts"), ACT_ROWS)
@pytest.mark.parametrize("place", ["D1", "KV", "both"])
def test_which_acts_count(isolate: Isolate, row: ROWS, counts: tuple[int, int], place: str) -> None:
    if place != "KV":
        stored(isolate.world, row)
    if place != "D1":
        isolate.copy_acts(row)
    for _ in range(2):
        isolate.read()
        assert isolate.counts == (*counts, 1 - sum(counts))


@pytest.mark.parametrize("forged", [False, True], ids=["rightly signed", "forged"])
@pytest.mark.parametrize("place", ["D1", "KV"])
def test_a_lift_counts_if_it_is_rightly_signed(isolate: Isolate, forged: bool, place: str) -> None:
    text = isolate.world.act(revocation())
    isolate.read()
    assert isolate.counts[0] == 1
    lift = canonical(undoing("lift", text))
    row = signed("act", lift, "mallory" if forged else "operator")
    if place == "D1":
        stored(isolate.world, row)
    else:
        isolate.copy_acts(row)
        isolate = isolate.fresh()
    isolate.read()
    assert isolate.counts[0] == (1 if forged else 0)


def test_an_end_need_not_be_signed(isolate: Isolate) -> None:
    text = isolate.world.act(grant())
    isolate.read()
    assert isolate.counts == (0, 1, 0)
    stored(isolate.world, unsigned(undoing("end", text)))
    isolate.read()
    assert isolate.counts == (0, 0, 0)


def test_a_gate_without_keys_takes_no_grants_and_no_lifts() -> None:
    isolate = Isolate()
    isolate.world.secrets = {}
    text = isolate.world.act(revocation())
    isolate.world.act(undoing("lift", text))
    isolate.world.act(grant())
    isolate.read()
    assert isolate.counts == (1, 0, 2)


def test_only_what_is_new_is_asked_for_and_told(isolate: Isolate) -> None:
    isolate.world.act(revocation(at=int(NOW) - int(RECENT)))
    isolate.read()
    assert isolate.world.lines("act") == []  # others have said it
    text = isolate.world.act(revocation(match={"subject": "another"}))
    granted = isolate.world.act(grant(reason="by the wrong key"), "publisher")
    opened = isolate.world.act(grant())
    isolate.read()
    isolate.read()
    assert [values[0] for _, values, _ in isolate.world.of("database")] == [0, 1, 4]
    assert [(line["result"], line["id"], line["act"]) for line in isolate.world.lines("act")] == [
        ("known", act_id(text), text),
        ("refused", act_id(granted), granted),
        ("known", act_id(opened), opened),
    ]
    assert isolate.world.lines("act")[1]["detail"] == "signed by Release pipeline, who may not grant"


def test_one_that_begins_tells_what_may_have_had_no_other_witness(isolate: Isolate) -> None:
    for age in (0, RECENT - 1, RECENT, 10 * RECENT):
        isolate.world.act(revocation(at=int(NOW - age), match={"token_id": f"{age}"}))
    isolate.world.act(grant(), "mallory")
    isolate.read()
    told = [json.loads(line["act"]) for line in isolate.world.lines("act")]
    assert [NOW - act["at"] for act in told] == [0, RECENT - 1]


def test_one_document_rightly_signed_counts_beside_the_same_one_forged(isolate: Isolate) -> None:
    """Or whoever can write first would keep an operator's grant from counting."""
    isolate.read()
    stored(isolate.world, (GRANT, "operator", "AAAA"))
    isolate.read()
    assert isolate.counts == (0, 0, 1)
    isolate.world.d1.acts = [(2, signed("act", GRANT))]
    isolate.read()
    assert isolate.counts == (0, 1, 1)
    assert [line["detail"] for line in isolate.world.lines("act")] == [
        "the signature under the name of Operator is wrong",
        "signed by Operator",
    ]


def test_a_flood_of_acts_is_not_told_of_one_by_one(isolate: Isolate) -> None:
    """A runtime keeps only so much of what one request logs, and the decision comes last."""
    isolate.read()
    for each in range(MOST_TOLD + 30):
        isolate.world.act(grant(reason=f"{each}"), "mallory")
    isolate.read()
    assert len(isolate.world.lines("act")) == MOST_TOLD
    assert isolate.counts == (0, 0, MOST_TOLD + 30)


def test_what_is_remembered_of_acts_that_do_not_count_is_bounded(
    isolate: Isolate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("view.MOST_REFUSED", 3)
    for each in range(5):
        isolate.world.act(grant(reason=f"{each}"), "mallory")
    isolate.world.act(revocation())
    isolate.read()
    assert isolate.counts == (1, 0, 3)


def test_rows_that_are_gone_from_d1_are_still_known(isolate: Isolate) -> None:
    isolate.world.act(revocation())
    isolate.read()
    isolate.world.d1.acts.clear()
    isolate.read()
    assert isolate.counts[0] == 1
    # One that has just begun knows of them by KV's copy, and by that alone.
    assert run_counts(isolate.fresh()) == (0, 0, 0)
    isolate.copy_acts(unsigned(revocation()), signed("act", GRANT), (GRANT + " ", "", ""))
    assert run_counts(isolate.fresh()) == (1, 1, 1)


def run_counts(isolate: Isolate) -> tuple[int, int, int]:
    isolate.read()
    return isolate.counts


def test_acts_of_d1_and_of_the_copy_count_together(isolate: Isolate) -> None:
    """Whichever of them a store has lost."""
    text = isolate.world.act(revocation())
    isolate.world.act(grant())
    isolate.copy_acts(
        unsigned(undoing("end", GRANT)),
        signed("act", canonical(undoing("lift", text))),
        unsigned(revocation()),
    )
    isolate.read()
    assert isolate.counts == (0, 0, 0)


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_numbers_that_start_again_hide_nothing_new(isolate: Isolate, lost: int) -> None:
    """D1 was taken back in time, and numbers that were known are given anew."""
    for each in range(3):
        isolate.world.act(revocation(match={"token_id": f"{each}"}))
    isolate.read()
    del isolate.world.d1.acts[-lost:]
    for each in range(7, 7 + lost):
        isolate.world.act(revocation(match={"token_id": f"{each}"}))
        isolate.read()
        assert isolate.counts[0] == 3 + each - 6


def test_a_revocation_is_not_lost_between_two_readings_at_once(isolate: Isolate) -> None:
    """D1 has lost all acts; one reading learns so, while another has asked for what is new, and there is something."""
    for each in range(5):
        isolate.world.act(revocation(match={"token_id": f"{each}"}))
    isolate.read()
    view = isolate.view

    class Busy(World):
        asked = 0

        async def database(self, sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
            self.asked += 1
            if self.asked == 1:  # of the reading that began first, before the other one has come to its end
                self.d1.acts.clear()
                earlier = self.d1.answer(sql, (0, *values[1:]))
                self.act(revocation(match={"token_id": "new"}))
                later = self.d1.answer(sql, values)
                self.d1.says = earlier
                await view.read(self, 5.0)
                self.d1.says = ABSENT
                return later
            return await super().database(sql, values, timeout)

    world = Busy()
    run(view.read(world, 5.0))
    run(view.read(world, 5.0))
    assert view.report(NOW)["revocations"] == 6


@pytest.mark.parametrize("count", [PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 1200])
def test_many_acts_are_told_in_pages(isolate: Isolate, count: int) -> None:
    for each in range(count):
        isolate.world.act(revocation(match={"token_id": f"{each}"}))
    isolate.read()
    assert isolate.counts[0] == count
    assert [values[0] for _, values, _ in isolate.world.of("database")] == list(range(0, count + 1, PAGE))
    isolate.world.act(revocation())
    isolate.read()
    assert isolate.counts[0] == count + 1
    assert isolate.world.of("database")[-1][1][0] == count


def test_pages_that_take_too_long_are_not_read_from_the_start_again() -> None:
    """Or a gate with many acts, and a D1 that is far away, would never open."""

    class Far(World):
        left = 3

        async def database(self, sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
            self.left -= 1
            if self.left < 0:
                raise TimeoutError
            return await super().database(sql, values, timeout)

    world = Far()
    for each in range(5 * PAGE):
        world.act(revocation(match={"token_id": f"{each}"}))
    isolate = Isolate(world)
    with pytest.raises(TimeoutError):
        isolate.read()
    assert isolate.view.stale(NOW)
    world.left = 3
    assert isolate.read()[0] == 1
    assert isolate.counts[0] == 5 * PAGE
    assert not isolate.view.stale(NOW)


def test_too_many_acts_close_the_gate(isolate: Isolate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("access.MOST", 10)
    for each in range(11):
        isolate.world.act(revocation(match={"token_id": f"{each}"}, until=int(NOW) + 100 + each))
    for _ in range(2):
        with pytest.raises(ValueError, match="more than 10 acts"):
            isolate.read()
    assert isolate.view.stale(NOW)
    isolate.world.clock += 100  # one of them is over
    assert isolate.read() == (1, "")
    assert isolate.counts[0] == 10


def test_a_store_that_tells_of_acts_without_end_is_not_listened_to_for_ever() -> None:
    class Endless(World):
        async def database(self, sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
            self._enter("database", (sql.split()[0], values, timeout))
            rows = [[values[0] + each, "{}", "", ""] for each in range(1, PAGE + 1)]
            told = {"heads": [], "acts": rows, "at": None, "last": [9**9, "x"], "sessions": None}
            return canonical(told)

    isolate = Isolate(Endless())
    with pytest.raises(ValueError, match="more than"):
        isolate.read()
    assert len(isolate.world.of("database")) == MOST_PAGES
    assert MOST_PAGES * PAGE > MOST


def test_acts_that_are_over_are_not_asked_for(isolate: Isolate) -> None:
    isolate.world.act(revocation(until=int(NOW)))
    isolate.world.act(revocation(until=int(NOW) + 1))
    isolate.read()
    assert isolate.counts == (1, 0, 0)
    isolate.world.clock += 1
    isolate.read()
    assert isolate.counts == (0, 0, 0)


# Sessions that have ended.


def ended(isolate: Isolate, *sessions: str, until: float = NOW + 600) -> None:
    """Let D1 know of them."""
    rows = isolate.world.d1.sessions
    assert rows is not None
    for session in sessions:
        isolate.world.d1.given += 1
        rows.append([isolate.world.d1.given, ISSUER, session, "ended", int(until)])


def refused(isolate: Isolate, session: str) -> Reason | None:
    try:
        isolate.view.sessions.refuse(ISSUER, session, isolate.world.clock)
    except Denied as denied:
        return denied.reason
    return None


def test_a_session_that_has_ended_is_learnt_with_the_rest(isolate: Isolate) -> None:
    isolate.read()
    ended(isolate, "a", "b")
    assert refused(isolate, "a") is None
    isolate.read()
    assert refused(isolate, "a") is refused(isolate, "b") is Reason.TOKEN_SESSION_ENDED
    assert refused(isolate, "c") is None
    assert [values[2] for _, values, _ in isolate.world.of("database")] == [0, 0]
    isolate.read()
    assert [values[2] for _, values, _ in isolate.world.of("database")] == [0, 0, 2]


@pytest.mark.parametrize("count", [FEW - 1, FEW, FEW + 1, FEW + MANY - 1, FEW + MANY, FEW + MANY + 1])
def test_many_sessions_are_told_in_pages(isolate: Isolate, count: int) -> None:
    ended(isolate, *[f"{number}" for number in range(count)])
    isolate.read()
    assert len(isolate.view.sessions) == count
    assert refused(isolate, f"{count - 1}") is Reason.TOKEN_SESSION_ENDED
    assert refused(isolate, "x") is None
    ended(isolate, "x")
    isolate.read()
    assert refused(isolate, "x") is Reason.TOKEN_SESSION_ENDED


def test_pages_of_sessions_that_take_too_long_are_not_read_from_the_start_again() -> None:
    class Far(World):
        left = 3

        async def database(self, sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
            self.left -= 1
            if self.left < 0:
                raise TimeoutError
            return await super().database(sql, values, timeout)

    world = Far()
    isolate = Isolate(world)
    ended(isolate, *[f"{number}" for number in range(FEW + 3 * MANY)])
    with pytest.raises(TimeoutError):
        isolate.read()
    assert isolate.view.stale(NOW)  # so nothing is decided by what is known of sessions
    world.left = 3
    assert isolate.read()[0] == 1
    assert len(isolate.view.sessions) == FEW + 3 * MANY
    assert refused(isolate, "another") is None


def test_while_further_pages_are_read_what_was_whole_goes_on(isolate: Isolate) -> None:
    """Or whenever many sessions end at once, everybody's callers would be refused for as long as that takes."""
    isolate.read()
    ended(isolate, *[f"{number}" for number in range(FEW + MANY)])
    seen: list[Reason | None] = []
    real = isolate.world.database

    async def between(sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
        seen.append(refused(isolate, "another"))
        return await real(sql, values, timeout)

    isolate.world.database = between  # type: ignore[method-assign]
    isolate.read()
    assert seen == [None] * 3  # asked before each of the pages, the last of them empty
    assert refused(isolate, "0") is Reason.TOKEN_SESSION_ENDED


def test_more_sessions_than_one_reading_takes_close_the_gate_to_sessions_alone(
    isolate: Isolate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has no session goes on; and the next reading goes on where this one ended."""
    monkeypatch.setattr("view.MOST_PAGES", 2)
    ended(isolate, *[f"{number}" for number in range(FEW + 2 * MANY)])
    assert isolate.read() == (1, "")
    assert not isolate.view.stale(NOW)
    assert refused(isolate, "another") is Reason.STATE_STALE
    assert refused(isolate, "0") is Reason.STATE_STALE
    assert isolate.read() == (1, "")
    assert refused(isolate, "another") is None
    assert refused(isolate, "0") is Reason.TOKEN_SESSION_ENDED
    assert len(isolate.view.sessions) == FEW + 2 * MANY


def test_without_the_table_the_rest_is_read_and_what_is_known_stays_known(isolate: Isolate) -> None:
    ended(isolate, "a")
    isolate.read()
    isolate.world.d1.sessions = None
    isolate.world.act(revocation())
    assert isolate.read() == (1, "")
    assert isolate.counts[0] == 1
    assert isolate.view.sessions.missing
    assert refused(isolate, "a") is Reason.TOKEN_SESSION_ENDED
    isolate.world.d1.sessions, isolate.world.d1.given = [], 0
    ended(isolate, "b")
    isolate.read()
    assert not isolate.view.sessions.missing
    assert refused(isolate, "b") is Reason.TOKEN_SESSION_ENDED


def test_another_failure_of_d1_is_no_missing_table(isolate: Isolate) -> None:
    isolate.world.broken["database"] = OSError("D1: no such table: acts")
    with pytest.raises(OSError, match="acts"):
        isolate.read()
    assert len(isolate.world.of("database")) == 1


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_numbers_of_sessions_that_start_again_hide_nothing_new(isolate: Isolate, lost: int) -> None:
    """D1 was taken back in time, and numbers that were known are given anew."""
    ended(isolate, "a", "b", "c")
    isolate.read()
    rows = isolate.world.d1.sessions
    assert rows is not None
    del rows[-lost:]
    isolate.world.d1.given -= lost
    for name in ("d", "e", "f")[:lost]:
        ended(isolate, name)
        isolate.read()
        assert refused(isolate, name) is Reason.TOKEN_SESSION_ENDED
    assert all(refused(isolate, name) for name in "abc")


def test_rows_that_d1_has_forgotten_in_time_are_no_reason_to_read_all_again(isolate: Isolate) -> None:
    ended(isolate, "short", until=NOW + 1)
    ended(isolate, "long")
    ended(isolate, "last", until=NOW + 2)
    isolate.read()
    rows = isolate.world.d1.sessions
    assert rows is not None
    del rows[2], rows[0]
    isolate.world.clock += 3
    ended(isolate, "new")
    asked = len(isolate.world.of("database"))
    isolate.read()
    assert len(isolate.world.of("database")) == asked + 1
    assert refused(isolate, "long") is refused(isolate, "new") is Reason.TOKEN_SESSION_ENDED


def test_two_readings_at_once_lose_no_session(isolate: Isolate) -> None:
    """One that was answered earlier comes to its end later."""
    isolate.read()
    view = isolate.view

    class Busy(World):
        asked = 0

        async def database(self, sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
            self.asked += 1
            found = await super().database(sql, values, timeout)
            if self.asked == 1:
                ended(isolate, "in between")
                await view.read(self, 5.0)
            return found

    world = Busy()
    world.secrets = isolate.world.secrets
    isolate.world = world
    ended(isolate, "before")
    run(view.read(world, 5.0))
    assert refused(isolate, "in between") is refused(isolate, "before") is Reason.TOKEN_SESSION_ENDED
    ended(isolate, "behind")
    run(view.read(world, 5.0))
    assert refused(isolate, "behind") is Reason.TOKEN_SESSION_ENDED


# When it is read, and how old it is.


def test_a_view_that_was_never_read_is_too_old() -> None:
    view = View()
    assert view.stale(NOW)
    assert not view.fresh(NOW)
    assert view.report(NOW)["age"] is None


@pytest.mark.parametrize(
    ("age", "asked", "fresh"),
    [
        pytest.param(0, 0, True, id="just read"),
        pytest.param(2, 2, True, id="two seconds"),
        pytest.param(2.1, 2.1, False, id="a little more"),
        pytest.param(2.1, 0, True, id="a little more, but asked for again just now"),
        pytest.param(10, 2, True, id="ten seconds, and asked for again"),
        pytest.param(10, 2.1, False, id="ten seconds, and asked for a while ago"),
        pytest.param(10.1, 0, False, id="more than ten: nobody may use it, whoever has asked"),
    ],
)
def test_how_old_a_view_may_be(age: float, asked: float, fresh: bool) -> None:
    view = View()
    view.read_at, view.asked_at = NOW - age, NOW - asked
    assert view.fresh(NOW) is fresh
    assert not view.stale(NOW)
    assert view.report(NOW)["age"] == age


def test_a_clock_that_was_ahead_is_not_believed_for_long(isolate: Isolate) -> None:
    isolate.world.clock = NOW + 9999
    isolate.read()
    isolate.world.clock = NOW
    isolate.read()
    assert isolate.view.read_at == NOW
    assert isolate.view.stale(NOW + 61)


def test_a_view_that_was_read_in_the_future_is_read_again(isolate: Isolate) -> None:
    """Or nothing would be learnt until the clock is there again."""
    isolate.world.clock = NOW + 9999
    isolate.read()
    view = isolate.view
    view.asked_at = view.deferred_at = NOW + 9999
    assert view.fresh(NOW + 9999 - view.ages.wait)  # a request that has come a little earlier
    assert not view.fresh(NOW)
    assert view.stale(NOW)
    isolate.world.clock = NOW
    isolate.read()
    assert view.fresh(NOW)
    assert not view.stale(NOW)


def test_a_session_that_was_dropped_by_a_clock_that_was_ahead_is_learnt_again(isolate: Isolate) -> None:
    ended(isolate, "a")
    isolate.read()
    isolate.world.clock = NOW + 9999
    isolate.read()
    assert len(isolate.view.sessions) == 0
    isolate.world.clock = NOW
    isolate.view.fresh(NOW)
    isolate.read()
    assert refused(isolate, "a") is Reason.TOKEN_SESSION_ENDED


def test_a_reading_that_fails_makes_no_view_younger(isolate: Isolate) -> None:
    isolate.read()
    isolate.world.clock += 30
    for failure in (OSError("away"), TimeoutError()):
        isolate.world.broken["database"] = failure
        with pytest.raises(OSError, match=r"away|^$"):
            isolate.read()
    isolate.world.broken.clear()
    odd = {"heads": [], "acts": [[]], "at": None, "last": None, "sessions": None}
    for says in ("{", None, json.dumps(odd)):
        isolate.world.d1.says = says
        with pytest.raises(ValueError, match=r"."):
            isolate.read()
    assert isolate.view.read_at == NOW
    isolate.world.clock += 31
    assert isolate.view.stale(isolate.world.clock)


def test_of_two_readings_at_once_both_count(isolate: Isolate) -> None:
    """What the one has learnt is not lost with the other, whichever ends first."""
    view = isolate.view

    class Busy(World):
        async def kv(self, key: str, timeout: float) -> str | None:
            if key == ACTS and 2 not in self.d1.pointers:
                self.d1.pointers[2] = signed("pointer", canonical(entry(TEXT, 2)))
                self.act(revocation(match={"subject": "second"}))
                self.clock += 1
                pointer, _ = await view.read(self, 5.0)
                assert pointer.sequence == 2
            return await super().kv(key, timeout)

    world = Busy(document(rule()))
    world.secrets = isolate.world.secrets
    world.act(revocation(match={"subject": "first"}))
    pointer, _ = run(view.read(world, 5.0))
    assert pointer.sequence == 2
    assert view.report(NOW)["revocations"] == 2
    assert view.read_at == NOW + 1
    run(view.read(world, 5.0))
    assert view.report(NOW)["revocations"] == 2
