"""The ledger's documents: every member of a pointer, what D1 tells, and copies in KV that can't be read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import ABSENT, NOW, ROWS, canonical, entry, signed

from access import MOST
from bundle import Pointer
from ledger import (
    HEAD_LIMIT,
    LIMIT,
    PAGE,
    VIEW_LIMIT,
    Sessions,
    View,
    load_pointer,
    read_acts,
    read_head,
    read_more,
    read_view,
)
from sessions import Ended
from trust import Signed

TEXT = "{}"


def test_a_pointer_is_read() -> None:
    read = load_pointer(canonical(entry(TEXT, 8)))
    bundle = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert read == Pointer(8, bundle, NOW - 60, "airgate", "ci")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"sequence": 2**53}, id="the highest number"),
        pytest.param({"published_at": 0}, id="as old as time"),
        pytest.param({"published_at": NOW + 0.5}, id="within a second"),
        pytest.param({"note": "x" * 3000}, id="a long note"),
        pytest.param({"note": "für März\n\U0001f600", "published_by": "Zoë"}, id="in any language"),
        pytest.param({"commit": "3f2a+"}, id="a tree that is not clean"),
        pytest.param({"of": 7}, id="a rollback"),
        pytest.param({"policies": 0, "added": 2**31, "changed": 1, "removed": 20}, id="any counts"),
        pytest.param({"published_by": ""}, id="by nobody"),
    ],
)
def test_a_pointer_that_is_accepted(changes: dict[str, Any]) -> None:
    read, made = load_pointer(canonical(entry(TEXT, **changes))), entry(TEXT, **changes)
    assert [read.sequence, read.published_at, read.by] == [
        made[name] for name in ("sequence", "published_at", "published_by")
    ]


@pytest.mark.parametrize("name", sorted(entry(TEXT)))
def test_every_member_of_a_pointer_is_required(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^pointer\.{name}: missing"):
        load_pointer(canonical(entry(TEXT, **{name: ABSENT})))


WRONG: list[tuple[str, list[Any]]] = [
    ("format", [0, 3, 5, 4.0, "4", True, None]),
    ("gate", [None, 7, ["airgate"]]),
    ("sequence", [0, -1, 2**53 + 1, 1.0, "1", True, None]),
    ("bundle", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, 7, None]),
    ("published_at", [-1, 2**53 + 1, "1", True, None]),
    ("published_by", [None, 7]),
    ("note", [None, 7, ["note"]]),
    ("commit", [None, 7]),
    *[(name, [-1, 2**31 + 1, 1.0, "1", True, None]) for name in ("policies", "added", "changed", "removed")],
    ("of", [0, -1, 2**53 + 1, 1.0, "1", True]),
]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name} {json.dumps(value):.12}")
        for name, values in WRONG
        for value in values
    ],
)
def test_a_member_of_a_pointer_that_is_wrong(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^pointer\.{name}: "):
        load_pointer(canonical(entry(TEXT, **{name: value})))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("[]", id="a list"),
        pytest.param("null", id="null"),
        pytest.param(canonical(entry(TEXT))[:-1], id="cut short"),
        pytest.param(canonical(entry(TEXT)) + canonical(entry(TEXT)), id="two of them"),
        pytest.param(canonical(entry(TEXT, more=1)), id="a member more"),
        pytest.param(canonical(entry(TEXT)).replace('"sequence":1', '"sequence":1,"sequence":2'), id="a name twice"),
        pytest.param(canonical(entry(TEXT, note="\\ud800")).replace("\\\\", "\\"), id="a lone surrogate"),
        pytest.param(canonical(entry(TEXT)) + " " * LIMIT, id="too long"),
        pytest.param(canonical(entry(TEXT, note="x" * LIMIT)), id="too long a note"),
        pytest.param(canonical(entry(TEXT, note=[[[]]])), id="too deep"),
    ],
)  # fmt: skip
def test_a_text_that_is_no_pointer(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        load_pointer(text)


# What D1 tells.

HEAD = signed("pointer", canonical(entry(TEXT)))


def told(**changes: Any) -> str:
    """What D1 tells of one pointer and two acts, with changes."""
    whole = {
        "heads": [[8, *HEAD], [7, "{", "", ""]],
        "acts": [[3, "a", "", ""], [7, "b", "k", "s"]],
        "at": None,
        "last": [9, "id"],
        "sessions": {"rows": [[4, "i", "s", "ended", 7]], "at": None, "last": [5, "t", 8]},
        **changes,
    }
    return json.dumps({name: value for name, value in whole.items() if value is not ABSENT})


def test_what_d1_tells_is_read() -> None:
    assert read_view(told()) == View(
        [(8, Signed(*HEAD)), (7, Signed("{", "", ""))],
        [(3, Signed("a", "", "")), (7, Signed("b", "k", "s"))],
        None,
        (9, "id"),
        Sessions([Ended(4, "i", "s", "ended", 7)], None, (5, "t", 8)),
    )
    nothing = {"rows": [], "at": "t", "last": None}
    assert read_view(told(heads=[], acts=[], at="x", last=None, sessions=nothing)) == View(
        [], [], "x", (0, ""), Sessions([], "t", (0, "", 0))
    )
    assert read_view(told(sessions=None)).sessions is None


def ending(**changes: Any) -> dict[str, Any]:
    """What D1 tells of sessions, with changes."""
    whole = {"rows": [[4, "i", "s", "ended", 7]], "at": None, "last": [5, "t", 8], **changes}
    return {name: value for name, value in whole.items() if value is not ABSENT}


VIEWS = [
    pytest.param(None, id="no row"),
    pytest.param("", id="an empty text"),
    pytest.param("null", id="null"),
    pytest.param("[]", id="a list"),
    pytest.param(told()[:-1], id="cut short"),
    pytest.param(told(heads=ABSENT), id="no heads"),
    pytest.param(told(heads=None), id="heads that are null"),
    pytest.param(told(heads=""), id="heads that are a text"),
    pytest.param(told(heads={"8": HEAD}), id="heads that are an object"),
    pytest.param(told(heads=[8, *HEAD]), id="a head that is not in a list"),
    pytest.param(told(heads=[[]]), id="an empty head"),
    pytest.param(told(heads=[None]), id="a head that is null"),
    pytest.param(told(heads=[HEAD]), id="a head without its number"),
    pytest.param(told(heads=[["8", *HEAD]]), id="a head whose number is a text"),
    pytest.param(told(heads=[[True, *HEAD]]), id="a head whose number is true"),
    pytest.param(told(heads=[[8, "", ""]]), id="a head without a signature"),
    pytest.param(told(heads=[[8, *HEAD, ""]]), id="a head with more"),
    pytest.param(told(heads=[[8, "", "", None]]), id="a signature that is null"),
    pytest.param(told(heads=[[8, 7, "", ""]]), id="a document that is a number"),
    pytest.param(told(heads=[[8, *HEAD], []]), id="a second head that is empty"),
    pytest.param(told(head=[8, *HEAD]), id="a single head, too"),
    pytest.param(told(acts=ABSENT), id="no acts"),
    pytest.param(told(acts=None), id="acts that are null"),
    pytest.param(told(acts={}), id="acts that are an object"),
    pytest.param(told(acts=[None]), id="an act that is null"),
    pytest.param(told(acts=[[]]), id="an empty act"),
    pytest.param(told(acts=[["a", "", ""]]), id="an act without its number"),
    pytest.param(told(acts=[["3", "a", "", ""]]), id="a number that is a text"),
    pytest.param(told(acts=[[True, "a", "", ""]]), id="a number that is true"),
    pytest.param(told(acts=[[3.0, "a", "", ""]]), id="a number with a point"),
    pytest.param(told(acts=[[3, "a", ""]]), id="an act without a signature"),
    pytest.param(told(acts=[[3, "a", "", "", ""]]), id="an act with more"),
    pytest.param(told(acts=[[3, "a", "", 7]]), id="an act's signature that is a number"),
    pytest.param(told(acts=[[3, {}, "", ""]]), id="an act that is not encoded"),
    pytest.param(told(at=ABSENT), id="not what it was asked about"),
    pytest.param(told(at=7), id="a number for an id"),
    pytest.param(told(last=ABSENT), id="no last number"),
    pytest.param(told(last=9), id="a last number without an id"),
    pytest.param(told(last=[]), id="an empty last one"),
    pytest.param(told(last=[9, None]), id="a last one whose id is null"),
    pytest.param(told(last=["9", "id"]), id="a last one whose number is a text"),
    pytest.param(told(last=[9.5, "id"]), id="a last one with a point"),
    pytest.param(told(last=[True, "id"]), id="a last one that is true"),
    pytest.param(told(last=[9, "id", 1]), id="a last one with more"),
    pytest.param(told(more=1), id="more than is known"),
    pytest.param(told(sessions=ABSENT), id="no sessions"),
    pytest.param(told(sessions=[]), id="sessions that are a list"),
    pytest.param(told(sessions=ending(rows=ABSENT)), id="sessions without rows"),
    pytest.param(told(sessions=ending(rows=None)), id="rows of sessions that are null"),
    pytest.param(told(sessions=ending(rows=[[4, "i", "s", "ended"]])), id="a session without an end"),
    pytest.param(told(sessions=ending(rows=[[4, "i", "s", "ended", 7, 1]])), id="a session with more"),
    pytest.param(
        told(sessions=ending(rows=[["4", "i", "s", "ended", 7]])), id="a session's number that is a text"
    ),
    pytest.param(
        told(sessions=ending(rows=[[True, "i", "s", "ended", 7]])), id="a session's number that is true"
    ),
    pytest.param(told(sessions=ending(rows=[[4, None, "s", "ended", 7]])), id="a session of nobody"),
    pytest.param(told(sessions=ending(rows=[[4, "i", 3, "ended", 7]])), id="a session that is a number"),
    pytest.param(told(sessions=ending(rows=[[4, "i", "s", None, 7]])), id="a session without a result"),
    pytest.param(
        told(sessions=ending(rows=[[4, "i", "s", "ended", 7.5]])), id="a session's end with a point"
    ),
    pytest.param(
        told(sessions=ending(rows=[[4, "i", "s", "ended", True]])), id="a session's end that is true"
    ),
    pytest.param(told(sessions=ending(at=ABSENT)), id="sessions: not what was asked about"),
    pytest.param(told(sessions=ending(at=5)), id="sessions: a number for a session"),
    pytest.param(told(sessions=ending(last=ABSENT)), id="no last session"),
    pytest.param(told(sessions=ending(last=[5, "t"])), id="a last session without its end"),
    pytest.param(told(sessions=ending(last=[5, None, 8])), id="a last session that is null"),
    pytest.param(told(sessions=ending(last=[True, "t", 8])), id="a last session whose number is true"),
    pytest.param(told(sessions=ending(more=1)), id="more of sessions than is known"),
    pytest.param(told(heads=[[8, "x" * VIEW_LIMIT, "", ""]]), id="too long"),
    pytest.param(told(acts=[[3, [["a"]], "", ""]]), id="too deep"),
    pytest.param(told().replace('"last"', '"at": null, "last"'), id="a name twice"),
]


@pytest.mark.parametrize("value", [None, "", "null", "[]", {}, ending(rows=7), ending(last=7)], ids=str)
def test_what_d1_tells_of_sessions_alone_is_read_or_refused(value: Any) -> None:
    assert read_more(json.dumps(ending())).last == (5, "t", 8)
    with pytest.raises(ValueError, match=r"."):
        read_more(json.dumps(value) if isinstance(value, dict) else value)


@pytest.mark.parametrize("text", VIEWS)
def test_what_d1_tells_and_cannot_be_read_tells_nothing(text: str | None) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_view(text)


def test_a_page_of_the_longest_acts_can_be_read() -> None:
    row = [2**53, canonical({"reason": '"' * 1017}), "k" * 128, "s" * 86]
    assert len(row[1]) == 2047
    assert len(read_view(told(acts=[row] * PAGE)).acts) == PAGE


# The copies in KV.


def copied(row: ROWS, **changes: Any) -> str:
    whole = {"document": row[0], "key": row[1], "signature": row[2], **changes}
    return json.dumps({name: value for name, value in whole.items() if value is not ABSENT})


def test_the_copy_of_the_head_is_read() -> None:
    assert read_head(copied(HEAD)) == Signed(*HEAD)
    assert read_head(copied(("{", "", ""))) == Signed(
        "{", "", ""
    )  # what it says is not its reader's business


def test_the_copy_of_the_longest_head_is_read_in_any_language() -> None:
    """However the command has escaped it."""
    document = canonical(entry(TEXT, note="ж" * 3500))
    assert len(document) <= LIMIT
    load_pointer(document)
    row = (document, "k" * 128, "s" * 86)
    assert read_head(canonical({"document": row[0], "key": row[1], "signature": row[2]})) == Signed(*row)
    assert read_head(copied(row)) == Signed(*row)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="there is none"),
        pytest.param("", id="it is empty"),
        pytest.param("null", id="null"),
        pytest.param(json.dumps(HEAD), id="a list"),
        pytest.param(copied(HEAD)[:-1], id="cut short"),
        pytest.param(copied(HEAD, document=ABSENT), id="no document"),
        pytest.param(copied(HEAD, key=ABSENT), id="no key"),
        pytest.param(copied(HEAD, signature=ABSENT), id="no signature"),
        pytest.param(copied(HEAD, document=None), id="a document that is null"),
        pytest.param(copied(HEAD, signature=7), id="a signature that is a number"),
        pytest.param(copied(HEAD, more=1), id="more than is known"),
        pytest.param(copied(HEAD) + " " * (8 * HEAD_LIMIT), id="too long"),
        pytest.param("[" * 5000, id="5,000 brackets"),
    ],
)
def test_a_copy_of_the_head_that_cannot_be_read_is_none(text: str | None) -> None:
    assert read_head(text) is None


def acts(*rows: Any, **changes: Any) -> str:
    return json.dumps({"acts": rows, **changes})


def test_the_copy_of_as_many_acts_as_count_can_be_read() -> None:
    row = ("x" * 1000, "k" * 21, "s" * 86)
    assert len(read_acts(acts(*[row] * MOST))) == MOST


def test_the_copy_of_the_acts_is_read() -> None:
    assert read_acts(acts(("a", "", ""), ("b", "k", "s"))) == [Signed("a", "", ""), Signed("b", "k", "s")]
    assert read_acts(acts()) == []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="there is none"),
        pytest.param("", id="it is empty"),
        pytest.param("{}", id="no acts"),
        pytest.param("[]", id="a list"),
        pytest.param('{"acts":null}', id="acts that are null"),
        pytest.param(acts(("a", "", ""))[:-1], id="cut short"),
        pytest.param(acts(("a", "", ""), more=1), id="more than is known"),
        pytest.param(acts(("a", "", ""), ("b", "")), id="one without a signature"),
        pytest.param(acts(("a", "", ""), (1, "b", "", "")), id="one with its number"),
        pytest.param(acts(("a", "", ""), "b"), id="one that is a text"),
        pytest.param("[" * 5000, id="5,000 brackets"),
    ],
)
def test_a_copy_of_the_acts_that_cannot_be_read_is_empty(text: str | None) -> None:
    assert read_acts(text) == []


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["heads", "acts", "at", "last", "sessions", "rows", "document", "key", "signature"]
                ),
                inner,
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_a_store_tells_it_is_read_or_refused(value: Any) -> None:
    text = json.dumps(value)
    read_head(text)
    read_acts(text)
    for reader in (read_view, read_more, load_pointer):
        try:
            reader(text)
        except ValueError:
            continue
        assert isinstance(value, dict)
