"""The register of chains in real SQLite: what its statements say there, and that the fake of the tests agrees."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isolate import Isolate
from world import NOW, Database

from journal import FORMER, MARK, MARKED, REGISTER, REGISTERED, USUAL_SECONDS

MIGRATIONS = sorted((Path(__file__).resolve().parents[2] / "migrations").glob("*.sql"))
COLUMNS = ("chain", "opened_at", "keys", "position", "document", "key", "signature")


class Register:
    """D1 with its real tables, as the Worker's port asks it."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        for migration in MIGRATIONS:
            self.connection.executescript(migration.read_text("utf-8"))

    def answer(self, sql: str, values: tuple[Any, ...]) -> str | None:
        cursor = self.connection.execute(sql, values)
        assert [column[0] for column in cursor.description] == ["value"]
        row = cursor.fetchone()
        cursor.close()
        assert row is None or isinstance(row[0], str)  # or worker.py would take it for no row
        return None if row is None else str(row[0])

    @property
    def chains(self) -> dict[int, dict[str, Any]]:
        rows = self.connection.execute(f"SELECT number, {', '.join(COLUMNS)} FROM chains").fetchall()
        return {row[0]: dict(zip(COLUMNS, row[1:], strict=True)) for row in rows}

    def delete(self, number: int) -> None:
        self.connection.execute("DELETE FROM chains WHERE number = ?", (number,))


@pytest.fixture
def register() -> Iterator[Register]:
    register = Register()
    yield register
    register.connection.close()


def opened(register: Register, chain: str, keys: str = "{}") -> str | None:
    return register.answer(REGISTER, (chain, int(NOW), keys))


def test_numbers_are_given_out_without_gaps_however_often_a_chain_is_registered(register: Register) -> None:
    """A gap is a row that somebody has deleted: nothing else may make one."""
    assert [opened(register, chain) for chain in "aababaac"] == ["1", None, "2", None, None, None, None, "3"]
    assert [register.answer(REGISTERED, (chain,)) for chain in "abcd"] == ["1", "2", "3", None]


def test_a_number_is_not_used_again(register: Register) -> None:
    for chain in "abc":
        opened(register, chain)
    register.delete(3)
    assert register.answer(REGISTERED, ("c",)) is None
    assert opened(register, "c") == "4"
    assert list(register.chains) == [1, 2, 4]


def test_the_keys_of_the_chain_before_are_told(register: Register) -> None:
    for chain, keys in (("a", "A"), ("b", "B"), ("c", "C")):
        opened(register, chain, keys)
    assert [register.answer(FORMER, (number,)) for number in (1, 2, 3, 9)] == [None, "A", "B", "C"]
    register.delete(2)
    assert register.answer(FORMER, (3,)) == "A"


def test_a_later_checkpoint_is_never_replaced_by_an_earlier_one(register: Register) -> None:
    opened(register, "a")
    opened(register, "b")
    assert register.answer(MARK, ("a", 1, 5, "five", "k", "s")) == "1"
    assert register.answer(MARK, ("a", 1, 4, "four", "k", "s")) is None
    assert register.answer(MARK, ("a", 1, 5, "five again", "k", "s")) is None
    assert register.answer(MARKED, ("a", 1)) == "5"
    assert register.answer(MARK, ("a", 1, 9, "nine", "k", "s")) == "1"
    assert register.chains[1]["document"] == "nine"
    assert register.chains[2]["document"] == ""


@pytest.mark.parametrize(("chain", "number"), [("b", 1), ("a", 2), ("", 1), ("a", -1)])
def test_nobody_marks_the_row_of_another_chain(register: Register, chain: str, number: int) -> None:
    opened(register, "a")
    assert register.answer(MARK, (chain, number, 5, "d", "k", "s")) is None
    assert register.answer(MARKED, (chain, number)) is None
    assert register.chains[1]["position"] == -1


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE chains; --", '"\\[]{}', "\n\x01\x7f", "\U0001f600 \u2028", "?1 :a", ""]
)
def test_what_is_registered_is_kept_character_by_character(register: Register, text: str) -> None:
    assert opened(register, text, text) == "1"
    assert register.answer(MARK, (text, 1, 0, text, text, text)) == "1"
    row = register.chains[1]
    assert [row[name] for name in COLUMNS if name not in ("opened_at", "position")] == [text] * 5


def test_statements_find_their_row_by_an_index(register: Register) -> None:
    for sql, values in (
        (REGISTERED, ("a",)),
        (FORMER, (7,)),
        (MARK, ("a", 7, 5, "d", "k", "s")),
        (MARKED, ("a", 7)),
    ):
        plan = [row[3] for row in register.connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
        assert any("SEARCH chains" in step for step in plan), plan
        assert not any("SCAN" in step or "TEMP B-TREE" in step for step in plan), plan


CHAINS = st.sampled_from("abc")
NUMBERS = st.integers(0, 5)
STATEMENTS = st.one_of(
    st.tuples(st.just(REGISTER), st.tuples(CHAINS, st.just(int(NOW)), st.sampled_from(["{}", "x"]))),
    st.tuples(st.just(REGISTERED), st.tuples(CHAINS)),
    st.tuples(st.just(FORMER), st.tuples(NUMBERS)),
    st.tuples(
        st.just(MARK),
        st.tuples(CHAINS, NUMBERS, st.integers(-1, 3), st.sampled_from("xy"), st.just("k"), st.just("s")),
    ),
    st.tuples(st.just(MARKED), st.tuples(CHAINS, NUMBERS)),
    st.tuples(st.just("delete"), NUMBERS),
)


@given(st.lists(STATEMENTS, max_size=25))
@settings(max_examples=200)
def test_the_fake_register_of_the_unit_tests_says_what_sqlite_says(statements: list[Any]) -> None:
    register, fake = Register(), Database()
    for sql, values in statements:
        if sql == "delete":
            register.delete(values)
            fake.chains.pop(values, None)
        else:
            assert fake.answer(sql, values) == register.answer(sql, values)
        assert fake.chains == register.chains
    register.connection.close()


def test_a_journal_on_sqlite(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two isolates, one of them cut out of the register and back in it."""
    isolates = []
    for _ in range(2):
        isolate = Isolate()
        monkeypatch.setattr(isolate.d1, "answer", register.answer)
        isolate.begin()
        isolate.finish()
        isolates.append(isolate)
    register.delete(1)
    for isolate in isolates:
        isolate.clock += USUAL_SECONDS
        isolate.say(3)
        isolate.finish()
        isolate.check()
    assert [len(isolate.events("register")) for isolate in isolates] == [1, 0]
    chains = [isolate.journal.chain.id for isolate in isolates if isolate.journal.chain is not None]
    assert {number: row["chain"] for number, row in register.chains.items()} == {2: chains[1], 3: chains[0]}
    for number, isolate in ((3, isolates[0]), (2, isolates[1])):
        assert register.chains[number]["document"] == isolate.events("checkpoint")[-1]["document"]
