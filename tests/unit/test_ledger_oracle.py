"""The SQL that the gate asks D1, on SQLite with the real tables: what it tells, in which order, and not."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import (
    ISSUER,
    NOW,
    ROWS,
    World,
    canonical,
    digest,
    document,
    entry,
    revocation,
    run,
    signed,
    undoing,
)

from access import LIMIT as ACT_LIMIT
from access import act_id, load_act
from bundle import load_bundle
from dpop import PAST, SLOT, Proof, claim_everywhere, forget
from keys import read_key
from ledger import (
    FEW,
    LIMIT,
    MANY,
    MORE,
    NO_SESSIONS,
    PAGE,
    VIEW,
    WITHOUT_SESSIONS,
    Sessions,
    View,
    load_pointer,
    read_more,
    read_view,
)
from model import Denied, Reason
from secevent import _FORGET as FORGET_SESSIONS
from secevent import _INSERT as TELL
from secevent import KEPT, note
from secevent import Ended as Ending
from secevent import forget as forget_sessions
from sessions import Ended
from sessions import Sessions as Known
from state import State
from trust import Signed

from world import ED25519  # isort: skip

TABLES = sorted((Path(__file__).resolve().parents[2] / "migrations").glob("*.sql"))
LATER = int(NOW) + 3600
NONE = Sessions([], None, (0, "", 0))


class Lite:
    """D1, as the Worker's port asks it: the column `value` of the first row."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        for tables in TABLES:
            self.connection.executescript(tables.read_text("utf-8"))

    async def database(self, sql: str, values: tuple[int | str, ...], timeout: float) -> str | None:
        cursor = self.connection.execute(sql, values)
        if cursor.description is None:
            return None
        assert [column[0] for column in cursor.description] == ["value"]
        row = cursor.fetchone()
        cursor.close()
        return None if row is None else row[0]

    def view(self, after: int = 0, now: float = NOW, since: int = 0) -> View:
        return read_view(run(self.database(VIEW, (after, int(now), since), 1.0)))

    def more(self, since: int, now: float = NOW) -> Sessions:
        return read_more(run(self.database(MORE, (0, int(now), since), 1.0)))

    def end(self, session: str, *, until: int = LATER, issuer: str = ISSUER, result: str = "ended") -> None:
        self.connection.execute(
            "INSERT INTO sessions (issuer, session, result, until) VALUES (?, ?, ?, ?)",
            (issuer, session, result, until),
        )

    def point(self, sequence: int, *row: str) -> None:
        self.connection.execute("INSERT INTO pointers VALUES (?, ?, ?, ?)", (sequence, *row))

    def act(self, document: str, *, until: int = LATER, key: str = "", signature: str = "") -> None:
        self.connection.execute(
            "INSERT INTO acts (id, act, until, document, key, signature) VALUES (?, ?, ?, ?, ?, ?)",
            (act_id(document), "revoke", until, document, key, signature),
        )

    def count(self, table: str) -> int:
        (count,) = self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(count)


@pytest.fixture
def lite() -> Iterator[Lite]:
    lite = Lite()
    yield lite
    lite.connection.close()


def revoke(number: int, **changes: Any) -> str:
    return canonical(revocation(match={"token_id": f"t-{number}"}, **changes))


def test_empty_tables_tell_of_nothing(lite: Lite) -> None:
    assert lite.view() == lite.view(7) == lite.view(0, NOW, 7) == View([], [], None, (0, ""), NONE)
    assert lite.more(0) == lite.more(7) == NONE


def test_the_head_is_the_row_with_the_highest_number(lite: Lite) -> None:
    for sequence in (2, 10, 9):  # in whatever order, and as numbers, not as texts
        lite.point(sequence, *signed("pointer", canonical(entry("{}", sequence))))
    assert lite.view().heads == [
        (sequence, Signed(*signed("pointer", canonical(entry("{}", sequence))))) for sequence in (10, 9, 2)
    ]
    lite.point(11, "{", "", "")
    assert [number for number, _ in lite.view().heads] == [11, 10, 9]
    assert load_pointer(lite.view().heads[1][1].document).sequence == 10


def test_a_row_of_the_ledger_that_is_too_long_hides_none_below_it(lite: Lite) -> None:
    """The longest that a gate reads is told, in any language."""
    longest = canonical(entry("{}", 2, note="\U0001f600" * 3600))
    assert len(longest) <= LIMIT
    lite.point(1, canonical(entry("{}")), "", "")
    lite.point(2, longest, "", "")
    lite.point(3, "x" * 1_000_000, "", "")
    lite.point(4, "x", "k" * 129, "")
    lite.point(5, "x", "", "s" * 129)
    assert [number for number, _ in lite.view().heads] == [2, 1]


def test_of_two_publishers_one_gets_the_number(lite: Lite) -> None:
    """As docs/d1-schema.md has it: append where nobody was first."""
    append = (
        "INSERT INTO pointers (sequence, document, key, signature) SELECT ?1, ?2, '', '' "
        "WHERE (SELECT coalesce(max(sequence), 0) FROM pointers) = ?1 - 1 RETURNING sequence"
    )
    assert lite.connection.execute(append, (1, "a")).fetchall() == [(1,)]
    assert lite.connection.execute(append, (1, "b")).fetchall() == []
    assert lite.connection.execute(append, (3, "c")).fetchall() == []
    assert lite.connection.execute(append, (2, "d")).fetchall() == [(2,)]
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        lite.point(2, "e", "", "")


ODD = [
    pytest.param("'; DROP TABLE acts; --", id="an end of the statement"),
    pytest.param('"\\\\"[]{},:', id="JSON's own characters"),
    pytest.param("a\nb\r\tc\x01\x1f\x7f", id="control characters"),
    pytest.param("é ж 漢 \U0001f600 \u2028\u2029\ufeff", id="many languages"),
    pytest.param("null", id="the word null"),
    pytest.param('["a"]', id="a list, encoded"),
    pytest.param("?1 ?2 :a @b $c %s %%", id="what stands for values"),
    pytest.param("7", id="digits"),
    pytest.param("", id="nothing"),
]


@pytest.mark.parametrize("text", ODD)
def test_what_is_stored_is_told_character_by_character(lite: Lite, text: str) -> None:
    lite.point(1, text, text, text)
    lite.act(text, key=text, signature=text)
    assert lite.view() == View(
        [(1, Signed(text, text, text))], [(1, Signed(text, text, text))], None, (1, act_id(text)), NONE
    )
    assert lite.view(1).at == act_id(text)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=60))
@settings(max_examples=50)
def test_whatever_is_stored_is_told_character_by_character(text: str) -> None:
    lite = Lite()
    lite.act(text, key=text[:20])
    assert lite.view().acts == [(1, Signed(text, text[:20], ""))]
    lite.connection.close()


def test_acts_are_told_in_pages_by_rising_number_and_each_once(lite: Lite) -> None:
    texts = [revoke(number) for number in range(1200)]
    for text in texts:
        lite.act(text)
    told: list[tuple[int, Signed]] = []
    pages = 0
    view = lite.view()
    while view.acts:
        assert view.last == (1200, act_id(texts[-1]))
        told += view.acts
        pages += 1
        if len(view.acts) < PAGE:
            break
        view = lite.view(view.acts[-1][0])
    assert [signed_.document for _, signed_ in told] == texts
    assert [number for number, _ in told] == list(range(1, 1201))
    assert pages == -(-1200 // PAGE) + (1200 % PAGE == 0) - (not view.acts)


def test_only_what_is_new_and_not_over_is_told(lite: Lite) -> None:
    for number, until in enumerate((NOW - 1, NOW, NOW + 1, LATER), 1):
        lite.act(revoke(number), until=int(until))
    assert [number for number, _ in lite.view().acts] == [3, 4]
    assert [number for number, _ in lite.view(3).acts] == [4]
    assert lite.view(4).acts == []
    assert lite.view(99).acts == []
    # The newest is known by its number, though it may be over.
    lite.act(revoke(5), until=1)
    assert lite.view(4) == View([], [], act_id(revoke(4)), (5, act_id(revoke(5))), NONE)


def test_an_act_that_is_asked_about_and_is_not_there_any_more_has_no_id(lite: Lite) -> None:
    for number in range(3):
        lite.act(revoke(number))
    assert lite.view(2).at == act_id(revoke(1))
    lite.connection.execute("DELETE FROM acts WHERE number >= 2")
    assert lite.view(2) == View([], [], None, (1, act_id(revoke(0))), NONE)
    # A restore takes the counter back as well: another act gets the number.
    lite.connection.execute("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'acts'")
    lite.act(revoke(7))
    assert lite.view(2).at == lite.view(2).last[1] == act_id(revoke(7))


def test_numbers_of_acts_are_not_used_again(lite: Lite) -> None:
    lite.act(revoke(1))
    lite.connection.execute("DELETE FROM acts")
    lite.act(revoke(2))
    assert lite.view().last[0] == 2


def test_the_same_act_is_stored_once(lite: Lite) -> None:
    lite.act(revoke(1))
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        lite.act(revoke(1))


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        pytest.param("x" * ACT_LIMIT, True, id="as long as an act may be"),
        pytest.param("x" * (ACT_LIMIT + 1), False, id="a character more"),
        pytest.param("\U0001f600" * (ACT_LIMIT // 4), True, id="as many bytes"),
        pytest.param("\U0001f600" * (ACT_LIMIT // 4) + "x", False, id="a byte more"),
        pytest.param("x" * 1_000_000, False, id="a megabyte"),
    ],
)
def test_what_is_too_long_is_passed_over_and_hides_nothing(lite: Lite, text: str, heard: bool) -> None:
    lite.act(text)
    lite.act(revoke(1))
    assert [number for number, _ in lite.view().acts] == ([1, 2] if heard else [2])


@pytest.mark.parametrize("column", ["key", "signature"])
def test_a_long_key_or_signature_is_passed_over_too(lite: Lite, column: str) -> None:
    lite.act(revoke(1), **{column: "k" * 128})
    lite.act(revoke(2), **{column: "k" * 129})
    lite.act(revoke(3))
    assert [number for number, _ in lite.view().acts] == [1, 3]


@pytest.mark.parametrize("letter", ["x", "é", "漢", "\U0001f600", '"', "\x01"])
def test_every_act_that_can_be_read_is_told(lite: Lite, letter: str) -> None:
    """Or a command would write a revocation, see it read back, and no gate would ever hear of it."""
    for length in range(4, 513, 4):
        match = {"subject": letter * length, "token_id": letter * length}
        text = canonical(revocation(reason=letter * length, by=letter * length, match=match))
        try:
            load_act(text)
        except ValueError:
            continue
        lite.act(text)
    assert 0 < len(lite.view().acts) == lite.count("acts")


@pytest.mark.parametrize("letter", ["x", "漢", '"'])
def test_a_page_of_the_longest_acts_fits_into_what_d1_returns(lite: Lite, letter: str) -> None:
    """A text of D1 has at most 2,000,000 bytes."""
    length = 480
    while True:
        text = canonical(revocation(reason=letter * length, match={"subject": letter * length}))
        if len(text.encode()) <= ACT_LIMIT:
            break
        length -= 8
    for number in range(PAGE + 1):
        lite.act(text.replace("oncall", f"{number:06}"), key="k" * 128, signature="s" * 86)
    lite.point(1, canonical(entry("{}", note="x" * (LIMIT - 400))), "k" * 128, "s" * 86)
    longest = (letter * 256)[: 1024 // len(letter.encode())]
    for number in range(MANY + 1):
        lite.end(f"{number:06}{longest[6:]}", issuer="https://" + "i" * 504)
    told = run(lite.database(VIEW, (0, int(NOW), 0), 1.0))
    assert len(read_view(told).acts) == PAGE
    assert len(told.encode()) <= 2_000_000
    more = run(lite.database(MORE, (0, int(NOW), 0), 1.0))
    assert len(read_more(more).rows) == MANY
    assert len(more.encode()) <= 2_000_000


@pytest.mark.parametrize(
    "row",
    [
        pytest.param("INSERT INTO pointers VALUES (1, x'ff', '', '')", id="a head that is no text"),
        pytest.param(
            f"INSERT INTO acts (id, act, until, document, key, signature) VALUES ('', '', {LATER}, x'ff', '', '')",
            id="an act that is no text",
        ),
    ],
)
def test_a_row_that_is_no_text_closes_the_gate_and_opens_nothing(lite: Lite, row: str) -> None:
    lite.connection.execute(row)
    with pytest.raises(sqlite3.OperationalError, match="BLOB"):
        lite.view()


@pytest.mark.parametrize("until", ["'forever'", "NULL", "x'ff'", "9e99"])
def test_an_act_whose_column_says_nonsense_hides_no_other(lite: Lite, until: str) -> None:
    columns = "id, act, until, document, key, signature"
    statement = f"INSERT INTO acts ({columns}) VALUES ('', '', {until}, '{{}}', '', '')"
    try:
        lite.connection.execute(statement)
    except sqlite3.IntegrityError:
        assert until == "NULL"
    lite.act(revoke(1))
    assert lite.view().acts[-1][1].document == revoke(1)


# Sessions that have ended.


def test_sessions_are_told_by_rising_number_and_each_once(lite: Lite) -> None:
    names = [f"s-{number}" for number in range(FEW + MANY + 5)]
    for name in names:
        lite.end(name)
    told = lite.view().sessions
    assert told is not None
    rows = told.rows
    assert len(rows) == FEW
    while len(told.rows) in (FEW, MANY):
        assert told.last == (len(names), names[-1], LATER)
        told = lite.more(rows[-1].number)
        rows = rows + told.rows
    assert rows == [Ended(number, ISSUER, name, "ended", LATER) for number, name in enumerate(names, 1)]


def test_only_sessions_that_are_new_and_not_over_are_told(lite: Lite) -> None:
    for number, until in enumerate((NOW - 1, NOW, NOW + 1, LATER), 1):
        lite.end(f"s-{number}", until=int(until))
    for since, numbers in ((0, [3, 4]), (3, [4]), (4, []), (99, [])):
        for told in (lite.view(0, NOW, since).sessions, lite.more(since)):
            assert told is not None
            assert [row.number for row in told.rows] == numbers
            assert told.at == (f"s-{since}" if 0 < since < 5 else None)
            assert told.last == (4, "s-4", LATER)


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE sessions; --", '"\\\\[]{}', "\U0001f600 \u2028", "?1 :a", "null", "7"]
)
def test_a_session_is_told_character_by_character(lite: Lite, text: str) -> None:
    lite.end(text, issuer=text)
    told = lite.more(0)
    assert [(row.issuer, row.session) for row in told.rows] == [(text, text)]
    assert told.last[1] == lite.more(1).at == text


def test_a_session_that_is_too_long_hides_no_other(lite: Lite) -> None:
    lite.end("x" * 1_000_000)
    lite.end("y", issuer="i" * 513)
    lite.end("\U0001f600" * 256)
    assert [row.number for row in lite.more(0).rows] == [3]


@pytest.mark.parametrize("until", ["'forever'", "NULL", "x'ff'", "9e99"])
def test_nonsense_is_no_row_of_sessions(lite: Lite, until: str) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        lite.connection.execute(
            f"INSERT INTO sessions (issuer, session, result, until) VALUES ('', '', '', {until})"
        )


def test_a_database_without_the_table_says_so_and_tells_the_rest(lite: Lite) -> None:
    lite.act(revoke(1))
    lite.connection.execute("DROP TABLE sessions")
    with pytest.raises(sqlite3.OperationalError, match=f"^{NO_SESSIONS}$"):
        lite.view()
    told = read_view(run(lite.database(WITHOUT_SESSIONS, (0, int(NOW)), 1.0)))
    assert (len(told.acts), told.sessions) == (1, None)


COMPANY = load_bundle(canonical(document())).issuers[ISSUER]
HOUR = COMPANY.rules.max_lifetime + 2 * COMPANY.rules.clock_skew  # that a token can be accepted for


def tell(
    lite: Lite, session: str, result: str = "ended", now: float = NOW, sessions: Known | None = None
) -> None:
    run(
        note(
            Ending(session, result, "1"),
            ISSUER,
            COMPANY,
            Known() if sessions is None else sessions,
            now,
            lite,
        )
    )


def rows(lite: Lite) -> list[tuple[int, str, str, int]]:
    return lite.connection.execute("SELECT number, session, result, until FROM sessions").fetchall()


def test_a_session_is_written_once_for_as_long_as_its_tokens_could_be_accepted(lite: Lite) -> None:
    tell(lite, "a")
    tell(lite, "b", "superseded")
    expected = [(1, "a", "ended", NOW + HOUR + 60), (2, "b", "superseded", NOW + HOUR + 60)]
    assert rows(lite) == expected
    for later in (0, 1, 59):  # another isolate is told the same, or something else
        tell(lite, "a", "superseded", NOW + later)
    assert rows(lite) == expected


@pytest.mark.parametrize("later", [60, HOUR, 2 * HOUR, 9 * HOUR])
def test_a_session_that_is_told_again_later_is_written_anew_for_everybody_to_read(
    lite: Lite, later: int
) -> None:
    """A token may have been made since, and the row may be over."""
    tell(lite, "a")
    tell(lite, "b")
    tell(lite, "a", "superseded", NOW + later)
    assert rows(lite)[-1] == (3, "a", "superseded", NOW + later + HOUR + 60)
    assert lite.count("sessions") == 2


def test_what_an_isolate_knows_to_have_ended_is_not_asked_of_d1_again(lite: Lite) -> None:
    known = Known()
    tell(lite, "a", sessions=known)
    lite.connection.execute("DELETE FROM sessions")
    tell(lite, "a", now=NOW + 59, sessions=known)
    assert rows(lite) == []
    tell(lite, "a", now=NOW + 61, sessions=known)
    assert len(rows(lite)) == 1


def test_rows_are_forgotten_long_after_they_are_over(lite: Lite) -> None:
    for number, until in enumerate((NOW - KEPT - 1, NOW - KEPT, NOW - 1, NOW, LATER), 1):
        lite.end(f"s-{number}", until=int(until))
    run(forget_sessions(NOW, lite))
    assert [number for number, *_ in rows(lite)] == [2, 3, 4, 5]


def test_numbers_of_sessions_are_not_used_again(lite: Lite) -> None:
    lite.end("a", until=1)
    run(forget_sessions(NOW, lite))
    lite.end("b")
    assert [number for number, *_ in rows(lite)] == [2]


# An isolate, its D1 being SQLite.


class OnLite(World):
    """The world, with SQLite for a D1."""

    def __init__(self, lite: Lite) -> None:
        self.lite = lite
        super().__init__()
        for sequence, row in self.d1.pointers.items():
            lite.point(sequence, *row)

    async def database(self, sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
        self._enter("database", (sql.split()[0], values, timeout))
        return await self.lite.database(sql, values, timeout)


def test_an_isolate_learns_1200_acts_in_pages_and_then_only_what_is_new(lite: Lite) -> None:
    world, state = OnLite(lite), State()
    for number in range(1200):
        lite.act(revoke(number))
    run(state.current(world))
    asked = [values[0] for _, values, _ in world.of("database")]
    assert asked == list(range(0, 1201, PAGE))
    assert state.view.access.revocations == 1200
    lite.act(revoke(1200))
    world.happened.clear()
    world.clock += state.view.ages.wait + 1
    run(state.current(world))
    assert [values[0] for _, values, _ in world.of("database")] == [1200]
    assert state.view.access.revocations == 1201


def test_an_isolate_learns_what_has_ended_in_pages_and_then_only_what_is_new(lite: Lite) -> None:
    world, state = OnLite(lite), State()
    for number in range(FEW + MANY + 1):
        lite.end(f"s-{number}")
    run(state.current(world))
    assert [values[2] for _, values, _ in world.of("database")] == [0, FEW, FEW + MANY]
    assert len(state.view.sessions) == FEW + MANY + 1
    lite.end("s")
    world.happened.clear()
    world.clock += state.view.ages.wait + 1
    run(state.current(world))
    assert [values[2] for _, values, _ in world.of("database")] == [FEW + MANY + 1]
    assert state.view.sessions.knows(ISSUER, "s", LATER)


def test_an_isolate_hears_of_what_has_ended_after_a_restore(lite: Lite) -> None:
    """The numbers that it knows are given anew."""
    world, state = OnLite(lite), State()
    for name in "abc":
        lite.end(name)
    run(state.current(world))
    lite.connection.execute("DELETE FROM sessions WHERE number > 1")
    lite.connection.execute("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'sessions'")
    for name in "de":
        lite.end(name)
        world.clock += state.view.ages.wait + 1
        run(state.current(world))
    assert all(state.view.sessions.knows(ISSUER, name, LATER) for name in "abcde")


def test_an_isolate_hears_of_what_has_ended_after_its_rows_were_forgotten(lite: Lite) -> None:
    world, state = OnLite(lite), State()
    lite.end("a", until=int(NOW) + 5)
    run(state.current(world))
    world.clock += KEPT + 100
    run(forget_sessions(world.clock, lite))
    assert rows(lite) == []
    lite.end("b", until=int(world.clock) + 60)
    run(state.current(world))
    assert state.view.sessions.knows(ISSUER, "b", world.clock)
    assert len(state.view.sessions) == 1


def test_an_isolate_hears_of_what_has_ended_after_its_clock_was_ahead(lite: Lite) -> None:
    """What it took for over then, and has dropped, is not."""
    world, state = OnLite(lite), State()
    lite.end("a")
    run(state.current(world))
    world.clock += 2 * 86_400
    lite.end("b")
    run(state.view.read(world, 5.0))
    assert len(state.view.sessions) == 0
    world.clock = NOW + 20
    run(state.view.read(world, 5.0))
    assert len(state.view.sessions) == 2


def test_an_isolate_hears_of_what_is_revoked_after_a_restore(lite: Lite) -> None:
    """The numbers that it knows are given anew."""
    world, state = OnLite(lite), State()
    for number in range(3):
        lite.act(revoke(number))
    run(state.current(world))
    lite.connection.execute("DELETE FROM acts WHERE number > 1")
    lite.connection.execute("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'acts'")
    for number in (7, 8):
        lite.act(revoke(number))
        world.clock += state.view.ages.wait + 1
        run(state.current(world))
    named = {dict(one.match)["token_id"] for one in state.view.access.listed()}
    assert named == {"t-0", "t-1", "t-2", "t-7", "t-8"}


def test_the_fake_d1_of_the_unit_tests_tells_what_sqlite_tells(lite: Lite) -> None:
    """What the other tests say of the core they say by it."""
    world = World()
    rows: list[ROWS] = [
        signed("act", revoke(number, until=until))
        for number, until in enumerate((LATER, int(NOW), int(NOW) + 1, LATER))
    ]
    rows.append(signed("act", canonical(undoing("lift", rows[0][0]))))
    for sequence, row in world.d1.pointers.items():
        lite.point(sequence, *row)
    for number, row in enumerate(rows, 1):
        world.d1.acts.append((number, row))
        until = json.loads(row[0])["until"]
        lite.act(row[0], until=until, key=row[1], signature=row[2])
    for number, later in enumerate((0, 5, 70, 7300)):  # written by the code under test, to both
        for each in (world, lite):
            ending = Ending(f"s-{number % 3}", "ended", "1")
            run(note(ending, ISSUER, COMPANY, Known(), NOW - HOUR - 60 + later, each))
            run(forget_sessions(NOW + later, each))
    for after in range(7):
        for now in (NOW, NOW + 1, NOW + 7200):
            values = (after, int(now), after)
            for sql, reads in ((VIEW, read_view), (MORE, read_more)):
                assert reads(world.d1.answer(sql, values)) == reads(run(lite.database(sql, values, 1.0)))
    lite.connection.execute("DROP TABLE sessions")
    world.d1.sessions = None
    assert read_view(world.d1.answer(WITHOUT_SESSIONS, (0, int(NOW)))) == read_view(
        run(lite.database(WITHOUT_SESSIONS, (0, int(NOW)), 1.0))
    )


# Proofs.

KEY = read_key(ED25519)


def proof(name: str, until: float = NOW + PAST) -> Proof:
    return Proof("", "EdDSA", KEY, b"", b"", bytes(8), bytes.fromhex(digest(name)[:32]), until)


def claim(lite: Lite, made: Proof) -> Reason | None:
    try:
        run(claim_everywhere(made, lite))
    except Denied as refused:
        return refused.reason
    return None


def test_a_proof_is_new_once(lite: Lite) -> None:
    assert [claim(lite, proof(name)) for name in ("a", "a", "b", "b", "a")] == [
        None,
        Reason.TOKEN_PROOF_REPLAYED,
        None,
        Reason.TOKEN_PROOF_REPLAYED,
        Reason.TOKEN_PROOF_REPLAYED,
    ]
    assert claim(lite, proof("a", NOW + 1000)) is Reason.TOKEN_PROOF_REPLAYED  # the same under another iat
    assert lite.count("proofs") == 2


def test_what_is_over_is_forgotten_and_nothing_else(lite: Lite) -> None:
    for number in range(1000):
        assert claim(lite, proof(f"{number}", NOW + number)) is None
    run(forget(NOW + 500, lite))
    assert lite.count("proofs") == 500 + SLOT
    run(forget(NOW + 500, lite))  # nothing to be done is no mistake
    assert claim(lite, proof("999", NOW + 999)) is Reason.TOKEN_PROOF_REPLAYED
    assert claim(lite, proof("499", NOW + 499)) is Reason.TOKEN_PROOF_REPLAYED  # it may be a little late
    assert claim(lite, proof("489", NOW + 489)) is None


def test_the_columns_that_are_searched_by_have_an_index(lite: Lite) -> None:
    """Or every request's share of a reading would grow with what has ever been revoked."""

    def plan(sql: str, values: tuple[Any, ...]) -> str:
        rows = lite.connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)
        return "\n".join([row[3] for row in rows])

    view = plan(VIEW, (7, int(NOW), 7))
    assert "SEARCH sessions USING INTEGER PRIMARY KEY (rowid>?)" in view
    assert "SEARCH acts USING INTEGER PRIMARY KEY (rowid>?)" in view
    assert "TEMP B-TREE" not in view  # the newest rows are the first of the table, backwards
    assert "SEARCH sessions USING INTEGER PRIMARY KEY (rowid>?)" in plan(MORE, (0, int(NOW), 7))
    assert "SEARCH sessions USING" in plan(FORGET_SESSIONS, (1,))
    told = plan(TELL, (ISSUER, "s", "ended", LATER, LATER))
    assert "SEARCH sessions USING INDEX" in told
    assert "SCAN sessions" not in told
    assert "SEARCH proofs" in plan("DELETE FROM proofs WHERE until < ?1", (1,))
