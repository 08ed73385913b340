"""A chain of lines: anything that is done to one of them shows, and one JSON object stays one."""

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain import GENESIS, ROOM, Chain

NAME = "0123456789abcdef" * 2
EVENTS = st.lists(
    st.dictionaries(
        st.text(min_size=1), st.none() | st.integers() | st.text() | st.lists(st.text()), min_size=1
    ),
    min_size=1,
    max_size=8,
)


def first_wrong(lines: list[str]) -> int | None:
    """The number of the first line that does not follow from the one before."""
    head = GENESIS
    for number, line in enumerate(lines):
        covered, _, said = line.rpartition(',"hash":"')
        head_of_line = sha256(covered.encode()).hexdigest()
        place = f',"chain":"{NAME}","position":{number},"previous":"{head}"'
        if said != f'{head_of_line}"}}' or not covered.endswith(place):
            return number
        head = head_of_line
    return None


def test_a_line_ends_with_its_place() -> None:
    chain = Chain(NAME)
    line = chain.link('{"event":"opening"}')
    covered = f'{{"event":"opening","chain":"{NAME}","position":0,"previous":"{"0" * 64}"'
    digest = sha256(covered.encode()).hexdigest()
    assert line == f'{covered},"hash":"{digest}"}}'
    assert (chain.length, chain.head) == (1, digest)
    second = json.loads(chain.link('{"event":"decision"}'))
    assert (second["position"], second["previous"]) == (1, digest)
    assert chain.head == second["hash"] != digest


@given(EVENTS)
def test_events_stay_what_they_are_and_each_line_follows_from_the_one_before(
    events: list[dict[str, object]],
) -> None:
    chain = Chain(NAME)
    lines = [chain.link(json.dumps(event)) for event in events]
    assert first_wrong(lines) is None
    for event, line in zip(events, lines, strict=True):
        assert line.startswith(json.dumps(event)[:-1])
        assert line.isascii()
        assert line.isprintable()


@given(EVENTS, st.data())
def test_whatever_is_done_to_a_line_shows_there_or_at_the_next(
    events: list[dict[str, object]], data: st.DataObject
) -> None:
    chain = Chain(NAME)
    lines = [chain.link(json.dumps(event)) for event in events]
    number = data.draw(st.integers(0, len(lines) - 1))
    line, done = lines[number], data.draw(st.sampled_from(["alter", "drop", "double", "swap"]))
    last = number == len(lines) - 1
    if done == "alter":
        place = data.draw(st.integers(0, len(line) - 1))
        other = data.draw(st.characters(codec="ascii").filter(lambda letter: letter != line[place]))
        assert (
            first_wrong([*lines[:number], line[:place] + other + line[place + 1 :], *lines[number + 1 :]])
            == number
        )
    elif done == "drop":
        assert first_wrong(lines[:number] + lines[number + 1 :]) == (None if last else number)
    elif done == "double":
        assert first_wrong([*lines[: number + 1], *lines[number:]]) == number + 1
    elif not last:
        assert first_wrong([*lines[:number], lines[number + 1], line, *lines[number + 2 :]]) == number


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**53])
def test_a_place_takes_no_more_than_its_room(length: int) -> None:
    chain = Chain(NAME)
    chain.length = length
    assert len(chain.link('{"a":1}')) - len('{"a":1}') <= ROOM


def test_what_is_not_ascii_is_refused_and_changes_nothing() -> None:
    chain = Chain(NAME)
    with pytest.raises(UnicodeEncodeError):
        chain.link('{"a":"\u00e9"}')
    assert (chain.length, chain.head) == (0, GENESIS)


@pytest.mark.parametrize("gate", ["airgate", 'a"b\\', "a\nb", "\u00e9\U0001f600", "\ud800"])
@pytest.mark.parametrize("number", [None, 7])
def test_a_checkpoint_says_how_far_the_chain_has_come(gate: str, number: int | None) -> None:
    chain = Chain(NAME)
    chain.link('{"a":1}')
    chain.link('{"a":2}')
    text = chain.checkpoint(gate, "2027-01-15T08:00:00.000Z", number)
    assert text.isascii()
    assert text.isprintable()
    assert list(json.loads(text)) == ["gate", "chain", "position", "hash", "time", "number"]
    assert json.loads(text) == {
        "gate": gate,
        "chain": NAME,
        "position": 1,
        "hash": chain.head,
        "time": "2027-01-15T08:00:00.000Z",
        "number": number,
    }
