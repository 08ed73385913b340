"""Obligations: the strictest of each kind is asked, whatever the order in which the permits come."""

import json
from itertools import permutations
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from language import SCENES, Scene, examples

from obligations import BY, NOTHING, PERIODS, Limit, Obligations, canonical, merge

SIXTY, TEN, BURST = (
    Limit(60, 60, ("subject",), ""),
    Limit(10, 60, ("subject",), ""),
    Limit(100, 10, ("subject",), ""),
)

MERGED = [
    pytest.param([], NOTHING, id="nobody asks anything"),
    pytest.param([NOTHING, NOTHING], NOTHING, id="two that ask nothing"),
    pytest.param(
        [Obligations((SIXTY,)), NOTHING], Obligations((SIXTY,)), id="one that asks, one that does not"
    ),
    pytest.param([Obligations((SIXTY,)), Obligations((TEN,))], Obligations((TEN,)), id="the lower limit"),
    pytest.param(
        [Obligations((SIXTY,)), Obligations((BURST,))],
        Obligations((BURST, SIXTY)),
        id="limits in two periods",
    ),
    pytest.param(
        [Obligations((SIXTY,)), Obligations((TEN._replace(by=("dag",)),))],
        Obligations((TEN._replace(by=("dag",)), SIXTY)),
        id="limits by two things",
    ),
    pytest.param(
        [Obligations((SIXTY._replace(policy="a"),)), Obligations((TEN._replace(policy="b"),))],
        Obligations((SIXTY._replace(policy="a"), TEN._replace(policy="b"))),
        id="limits of two policies",
    ),
    pytest.param([Obligations((SIXTY, TEN))], Obligations((TEN,)), id="two limits of one policy"),
    pytest.param(
        [Obligations(max_body=5), Obligations(), Obligations(max_body=0)],
        Obligations(max_body=0),
        id="the smaller body",
    ),
    pytest.param(
        [Obligations(headers=("x-b", "x-a")), Obligations(headers=("x-c", "x-a"))],
        Obligations(headers=("x-a", "x-b", "x-c")),
        id="all headers",
    ),
    pytest.param(
        [Obligations(justification=True), NOTHING], Obligations(justification=True), id="a justification"
    ),
    pytest.param(
        [Obligations(credential="c"), Obligations(credential="c"), NOTHING],
        Obligations(credential="c"),
        id="one credential, named twice",
    ),
    pytest.param(
        [Obligations(credential="d"), Obligations(credential="c")],
        Obligations(conflict="credentials c, d"),
        id="two credentials conflict, and neither is used",
    ),
    pytest.param(
        [Obligations(others=(("b", "1"), ("a", "1"))), Obligations(others=(("a", "2"), ("b", "1")))],
        Obligations(others=(("a", "1"), ("a", "2"), ("b", "1"))),
        id="what is unknown, every value of it",
    ),
]


@pytest.mark.parametrize(("each", "merged"), MERGED)
def test_merged(each: list[Obligations], merged: Obligations) -> None:
    for order in permutations(each):
        assert merge(order) == merged
    assert merge(iter(each)) == merged


LIMITS = st.builds(
    Limit,
    st.integers(1, 5),
    st.sampled_from(PERIODS),
    st.sampled_from([("subject",), ("dag",), ("subject", "dag"), ("policy",)]),
    st.sampled_from(["", "a", "b"]),
)
OBLIGATIONS = st.builds(
    Obligations,
    st.lists(LIMITS, max_size=3).map(tuple),
    st.none() | st.sampled_from(["c", "d"]),
    st.none() | st.integers(0, 5),
    st.lists(st.sampled_from(["x-a", "x-b", "x-c"]), max_size=2).map(tuple),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("12")), max_size=2).map(tuple),
    st.just(""),
)


@given(st.lists(OBLIGATIONS, max_size=4), st.integers(0, 4), st.binary(min_size=4, max_size=4))
@settings(max_examples=examples(500))
def test_merging_is_a_union_with_the_least_of_each_number(
    each: list[Obligations], at: int, seed: bytes
) -> None:
    merged = merge(each)
    shuffled = list(each)
    Random(seed).shuffle(shuffled)
    assert merge(shuffled) == merged
    assert merge([*each, *each]) == merge([merged]) == merged
    parts = merge([merge(each[:at]), merge(each[at:])])
    assert bool(parts.conflict) is bool(merged.conflict)  # in other words, perhaps
    assert parts._replace(conflict=merged.conflict) == merged

    bodies = [one.max_body for one in each if one.max_body is not None]
    assert merged.max_body == (min(bodies) if bodies else None)
    assert set(merged.headers) == {name for one in each for name in one.headers}
    assert set(merged.others) == {other for one in each for other in one.others}
    assert merged.justification == any(one.justification for one in each)
    credentials = {one.credential for one in each} - {None}
    assert {merged.credential} == (credentials if len(credentials) == 1 else {None})
    assert bool(merged.conflict) is (len(credentials) > 1)
    groups = {limit[1:] for one in each for limit in one.limits}
    assert [limit[1:] for limit in merged.limits] == sorted(groups)
    for limit in merged.limits:
        assert limit.limit == min(
            other.limit for one in each for other in one.limits if other[1:] == limit[1:]
        )


def as_strict(asked: Obligations, before: Obligations) -> bool:
    """Whether nothing of what was asked before has been loosened."""
    return (
        (before.max_body is None or (asked.max_body is not None and asked.max_body <= before.max_body))
        and set(before.headers) <= set(asked.headers)
        and set(before.others) <= set(asked.others)
        and asked.justification >= before.justification
        and bool(asked.conflict) >= bool(before.conflict)
        and (before.credential in (None, asked.credential) or bool(asked.conflict))
        and all(
            any(limit[1:] == other[1:] and limit.limit <= other.limit for limit in asked.limits)
            for other in before.limits
        )
    )


@given(SCENES)
@settings(max_examples=examples(1000))
def test_one_more_permit_never_loosens_what_others_ask(scene: Scene) -> None:
    before, after = scene.decide(), scene.decide(scene.more | {"effect": "permit"})
    assert as_strict(after.obligations, before.obligations)


def test_documents() -> None:
    asked = Obligations(
        (SIXTY, BURST._replace(by=("dag", "policy"), policy="p")),
        "writer",
        1_000_000,
        ("x-change-id",),
        True,
        (("notify", '{"by":[null,1.5,"ä"]}'), ("notify", "true")),
    )
    assert asked.documents() == [
        {"id": name + number, "type": name, "properties": properties}
        for name, number, properties in (
            ("rate_limit", "", {"limit": 60, "per": 60, "by": ["subject"]}),
            ("rate_limit", "-2", {"limit": 100, "per": 10, "by": ["dag", "policy"]}),
            ("credential", "", {"name": "writer"}),
            ("max_body", "", {"bytes": 1_000_000}),
            ("require", "", {"headers": ["x-change-id"], "justification": True}),
            ("notify", "", {"value": {"by": [None, 1.5, "ä"]}}),
            ("notify", "-2", {"value": True}),
        )
    ]
    assert NOTHING.documents() == []


@pytest.mark.parametrize(
    ("asked", "documents"),
    [
        pytest.param(
            Obligations(max_body=0), [("max_body", {"bytes": 0})], id="a body of nothing is asked for"
        ),
        pytest.param(
            Obligations(justification=True),
            [("require", {"headers": [], "justification": True})],
            id="a justification and no header",
        ),
        pytest.param(
            Obligations(headers=("x-a",)),
            [("require", {"headers": ["x-a"], "justification": False})],
            id="a header and no justification",
        ),
    ],
)
def test_documents_of_one_kind(asked: Obligations, documents: list[tuple[str, Any]]) -> None:
    assert [(each["type"], each["properties"]) for each in asked.documents()] == documents


def test_a_limit_names_the_binding_that_counts_it() -> None:
    assert [limit.binding for limit in (SIXTY, BURST)] == ["LIMIT_60_PER_60S", "LIMIT_100_PER_10S"]
    assert {*SIXTY.by} <= {*BY}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None, 1.5]}, '{"a":[true,null,1.5],"b":1}'),
        ("ä\n", '"ä\\n"'),
        ({}, "{}"),
    ],
)
def test_equal_values_are_equal_texts(value: Any, text: str) -> None:
    assert canonical(value) == text
    assert json.loads(text) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_what_is_no_json_has_no_text(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical(value)
