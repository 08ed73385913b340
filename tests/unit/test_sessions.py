"""Ended sessions as one isolate knows them: which are refused, how long, and what happens when there are too many."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sessions
from identity import Mapping, identify
from model import Denied, Reason
from sessions import AGAIN, ENDED, LONGEST, MOST, SUPERSEDED, SWEEP, Ended, Sessions

NOW = 1_800_000_000.0
ONE, OTHER = "https://one.example.com", "https://other.example.com"


def row(session: str = "s", *, issuer: str = ONE, result: str = ENDED, until: float = NOW + 3600) -> Ended:
    return Ended(0, issuer, session, result, int(until))


def knowing(*rows: Ended, now: float = NOW) -> Sessions:
    known = Sessions()
    known.add(rows, now)
    return known


def refusal(known: Sessions, session: str = "s", issuer: str = ONE, now: float = NOW) -> Reason | None:
    try:
        known.refuse(issuer, session, now)
    except Denied as denied:
        return denied.reason
    return None


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (ENDED, Reason.TOKEN_SESSION_ENDED),
        (SUPERSEDED, Reason.TOKEN_SESSION_SUPERSEDED),
        ("a word of a later version", Reason.TOKEN_SESSION_ENDED),
    ],
)
def test_a_session_that_has_ended_is_refused_and_no_other(result: str, reason: Reason) -> None:
    known = knowing(row(result=result))
    assert refusal(known) is reason
    assert refusal(known, "t") is None
    assert refusal(known, "S") is None
    assert refusal(known, "") is None
    assert refusal(known, issuer=OTHER) is None
    assert refusal(Sessions()) is None


@pytest.mark.parametrize("session", ["x" * LONGEST, "\U0001f600" * LONGEST, "a b/c", '"\\', "\ud800", "0"])
def test_a_session_may_be_called_anything(session: str) -> None:
    assert refusal(knowing(row(session)), session) is Reason.TOKEN_SESSION_ENDED


def test_a_session_is_refused_in_its_time() -> None:
    known = knowing(row(until=NOW + 10))
    assert refusal(known, now=NOW + 9.9) is Reason.TOKEN_SESSION_ENDED
    assert refusal(known, now=NOW + 10) is None


def test_rows_that_are_over_are_not_taken_in() -> None:
    assert len(knowing(row("a", until=NOW), row("b", until=NOW - 1), row("c", until=NOW + 1))) == 1


def test_rows_that_are_over_are_dropped_now_and_then() -> None:
    known = knowing(row("a", until=NOW + 10), row("b"), row("c", issuer=OTHER, until=NOW + 10))
    known.add([], NOW + SWEEP - 1)
    assert len(known) == 3
    known.add([], NOW + SWEEP)
    assert len(known) == 1
    assert refusal(known, "b", now=NOW + SWEEP) is Reason.TOKEN_SESSION_ENDED


def test_a_row_that_is_known_counts_once() -> None:
    known = knowing(row(), row(), row(until=NOW + 7200))
    assert len(known) == 1
    assert refusal(known, now=NOW + 7199) is Reason.TOKEN_SESSION_ENDED


def test_while_not_all_is_read_nobody_can_tell() -> None:
    known = knowing(row())
    known.whole = False
    assert refusal(known, "another", OTHER) is Reason.STATE_STALE
    known.whole = True
    assert refusal(known, "another", OTHER) is None


@pytest.mark.parametrize(
    ("later", "knows"),
    [(-3600, True), (0, True), (AGAIN - 1, True), (AGAIN, False), (AGAIN + 1, False), (9999, False)],
)
def test_what_is_known_is_known_until_then_and_a_little_longer(later: int, knows: bool) -> None:
    known = knowing(row(until=NOW + 3600))
    assert known.knows(ONE, "s", NOW + 3600 + later) is knows
    assert not known.knows(ONE, "t", NOW)
    assert not known.knows(OTHER, "s", NOW)


def test_d1_is_cleared_up_once_in_a_while_and_not_by_two_at_once() -> None:
    known = Sessions()
    assert [known.due(NOW), known.due(NOW), known.due(NOW + SWEEP - 1), known.due(NOW + SWEEP)] == [
        True, False, False, True,
    ]  # fmt: skip


# Too many of them.


def test_as_many_as_are_remembered_are_known_one_by_one() -> None:
    known = knowing(*[row(f"{number}") for number in range(MOST)])
    assert len(known) == MOST
    assert refusal(known, "not ended") is None
    assert refusal(known, "0") is refusal(known, f"{MOST - 1}") is Reason.TOKEN_SESSION_ENDED
    assert known.report(NOW) == {"ended": MOST, "full": []}


def test_of_an_issuer_with_more_every_session_is_refused_and_no_other_issuers() -> None:
    known = knowing(row("its", issuer=OTHER), *[row(f"{number}") for number in range(MOST)])
    assert refusal(known, "not ended") is refusal(known, "0") is Reason.STATE_STALE
    assert refusal(known, "its", OTHER) is Reason.TOKEN_SESSION_ENDED
    assert refusal(known, "another", OTHER) is None
    assert known.full(ONE, NOW)
    assert not known.full(OTHER, NOW)
    assert known.report(NOW) == {"ended": 1, "full": [ONE]}


def test_an_issuer_with_too_many_is_refused_until_the_last_of_them_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "MOST", 3)
    known = knowing(*[row(f"{number}", until=NOW + 100 + number) for number in range(4)])
    known.add([row("more", until=NOW + 500), row("less", until=NOW + 50)], NOW)  # that were on their way
    assert refusal(known, "x", now=NOW + 102) is Reason.STATE_STALE
    assert refusal(known, "x", now=NOW + 103) is None
    assert refusal(known, "more", now=NOW + 103) is Reason.TOKEN_SESSION_ENDED
    known.add([row("new", until=NOW + 900)], NOW + 500)
    assert refusal(known, "new", now=NOW + 500) is Reason.TOKEN_SESSION_ENDED
    assert known.report(NOW + 500) == {"ended": 1, "full": []}


def test_an_issuer_that_had_too_many_is_served_again_though_its_sessions_go_on_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "MOST", 100)
    known = knowing(*[row(f"{number}", until=NOW + 700) for number in range(101)])
    for minute in range(1, 30):
        now = NOW + 60 * minute
        known.add([row(f"{minute}-{number}", until=now + 700) for number in range(6)], now)
        assert refusal(known, "goes on", now=now) is (Reason.STATE_STALE if now < NOW + 700 else None)
        if now >= NOW + 700:
            assert refusal(known, f"{minute - 11}-0", now=now) is Reason.TOKEN_SESSION_ENDED


def test_those_that_are_over_make_room_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST", 3)
    known = knowing(*[row(f"{number}", until=NOW + 10) for number in range(3)])
    known.add([row("new")], NOW + 10)
    assert refusal(known, "new", now=NOW + 10) is Reason.TOKEN_SESSION_ENDED
    assert refusal(known, "x", now=NOW + 10) is None


def test_many_issuers_with_too_many_are_all_issuers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can write D1 can make issuers up."""
    monkeypatch.setattr(sessions, "MOST", 1)
    monkeypatch.setattr(sessions, "MOST_FULL", 5)
    known = Sessions()
    for number in range(200):
        known.add([row("a", issuer=f"i-{number}"), row("b", issuer=f"i-{number}")], NOW)
        assert len(known) <= 1
        assert len(known.report(NOW)["full"]) <= 6
    assert refusal(known, "x", "https://nobody.example.com") is Reason.STATE_STALE
    assert "*" in known.report(NOW)["full"]


ISSUERS = [ONE, OTHER, "https://third.example.com"]
NAMES = [f"s-{number}" for number in range(6)]
ROWS = st.builds(
    row,
    st.sampled_from(NAMES),
    issuer=st.sampled_from(ISSUERS),
    result=st.sampled_from([ENDED, SUPERSEDED]),
    until=st.integers(int(NOW) - 5, int(NOW) + 400),
)
STEPS = st.lists(st.tuples(st.floats(0, 200), st.lists(ROWS, max_size=8)), max_size=12)


@given(STEPS, st.integers(1, 12))
@settings(max_examples=300)
def test_whatever_is_told_and_when_nothing_that_has_ended_is_let_through(
    steps: list[tuple[float, list[Ended]]], most: int
) -> None:
    """And where there is room for all, nothing else is refused: the oracle is a plain list of what was told."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, "MOST", most)
        known, told, now, overflown = Sessions(), list[Ended](), NOW, False
        for seconds, rows in steps:
            now += seconds
            known.add(rows, now)
            # The last that is told of a session is what counts, as it is in D1.
            told = [one for one in told if one[1:3] not in [each[1:3] for each in rows if now < each.until]]
            told += [each for number, each in enumerate(rows) if now < each.until and not any(
                now < later.until and later[1:3] == each[1:3] for later in rows[number + 1 :])]  # fmt: skip
            assert len(known) <= most
            overflown = overflown or bool(known.report(now)["full"])
            check(known, told, now, overflown)


def check(known: Sessions, told: list[Ended], now: float, overflown: Any) -> None:
    for issuer in ISSUERS:
        for name in NAMES:
            reason = refusal(known, name, issuer, now)
            if any(one[1:3] == (issuer, name) and now < one.until for one in told):
                assert reason is not None
            elif not overflown:
                assert reason is None


@given(STEPS, st.integers(1, 12))
def test_an_issuer_that_keeps_to_its_share_is_never_refused_for_others(
    steps: list[tuple[float, list[Ended]]], most: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, "MOST", most)
        known, now = Sessions(), NOW
        named = {(one.issuer, one.session) for _, rows in steps for one in rows}
        for seconds, rows in steps:
            now += seconds
            known.add(rows, now)
            for issuer in ISSUERS:
                if len([name for of, name in named if of == issuer]) <= most // len(ISSUERS):
                    assert not known.full(issuer, now)


@pytest.mark.parametrize("sid", [5, True, "", ["s-1"], {"id": "s-1"}, "s" * 257, "s\n1"], ids=str)
def test_a_session_that_could_not_be_told_to_have_ended_is_no_session(sid: Any) -> None:
    with pytest.raises(Denied) as raised:
        identify({"sid": sid}, "close/publish", Mapping("airflow", None, "workload", (), ()))
    assert raised.value.reason is Reason.TOKEN_CLAIMS
