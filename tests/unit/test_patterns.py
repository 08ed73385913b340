"""What patterns have in common is what a look at every text and every path would find."""

from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airgate.engine import EMPTY_SEGMENT, ENCODED_SLASH, Denied, parse_target
from airgate.policy import patterns
from airgate.policy.index import segments
from airgate.policy.patterns import (
    ODD,
    ExhaustedError,
    exactly,
    glob,
    meet,
    path,
    path_pattern,
    within,
)
from airgate.policy.patterns import (
    SEGMENTS as SORTS,
)

MEETINGS = [
    # two patterns, and whether one path matches both
    ("/v1/entries", "/v1/entries", True),
    ("/v1/entries", "/v1/entries/", True),
    ("/v1/entries", "/v1/reports", False),
    ("/v1/{id}", "/v1/entries", True),
    ("/v1/{id}", "/v1", False),
    ("/v1/{id}", "/v1/a/b", False),
    ("/**", "/", True),
    ("/v1/**", "/v1", True),
    ("/v1/**", "/v2/**", False),
    ("/v1/**", "/{version}/x/{y}/z", True),
    ("/a*/x", "/*b/x", True),
    ("/a*", "/b*", False),
    ("/*a", "/*b", False),
    ("/a*c/**", "/abc", True),
    ("/team1*", "/team2*", False),
    ("/{a}/{b}", "/**", True),
]


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        pytest.param(one, other, meets, id=f"{one} {'meets' if meets else 'never meets'} {other}")
        for one, other, meets in MEETINGS
    ],
)
def test_patterns_that_meet(one: str, other: str, together: bool) -> None:
    assert meet(one, other) is together
    assert meet(other, one) is together


WITHIN = [
    # inner patterns, outer patterns, and whether the outer ones match all that the inner ones do
    (["/v1/entries"], ["/v1/**"], True),
    (["/v1"], ["/v1/**"], True),
    (["/v1/**"], ["/v1", "/v1/{id}"], False),
    (["/v1/{id}"], ["/v1/*"], True),
    (["/v1/{id}"], ["/v1/a*"], False),
    (["/v1/ab*"], ["/v1/a*"], True),
    (["/v1/a*"], ["/v1/ab*", "/v1/a"], False),
    (["/v1/a*"], ["/v1/ab*", "/v1/a", "/v1/a*"], True),
    (["/**"], ["/", "/{a}", "/{a}/{b}/**"], True),
    (["/**"], ["/", "/{a}/{b}/**"], False),
    (["/{a}/x", "/{a}/y"], ["/{b}/{c}"], True),
    (["/*a*"], ["/*"], True),
    (["/*"], ["/a*", "/*a"], False),
]


@pytest.mark.parametrize(
    ("inner", "outer", "whole"),
    [
        pytest.param(inner, outer, whole, id=f"{inner} {'is' if whole else 'is not'} within {outer}")
        for inner, outer, whole in WITHIN
    ],
)
def test_patterns_within_others(inner: list[str], outer: list[str], whole: bool) -> None:
    assert within(inner, outer) is whole


def like(pattern: str, text: str) -> bool:
    """What a glob means, said as plainly as it can be."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return like(pattern[1:], text) or (text != "" and like(pattern, text[1:]))
    return text != "" and text[0] == pattern[0] and like(pattern[1:], text[1:])


def along(pattern: str, parts: tuple[str, ...]) -> bool:
    """What a path pattern means, said as plainly as it can be."""
    wanted = segments(pattern)
    if wanted[-1:] == ["**"]:
        return len(parts) >= len(wanted) - 1 and along_all(wanted[:-1], parts)
    return len(parts) == len(wanted) and along_all(wanted, parts)


def along_all(wanted: list[str], parts: tuple[str, ...]) -> bool:
    return all(part.startswith("{") or like(part, given) for part, given in zip(wanted, parts, strict=False))


WORDS = [
    "".join(letters) for length in (1, 2, 3) for letters in product("abx", repeat=length) if letters[0] != "x"
] + ["x"]
PARTS = [parts for length in range(4) for parts in product(WORDS[::2], repeat=length)][:1500]

SEGMENTS = st.sampled_from(["a", "b", "ab", "{id}", "*", "a*", "*b", "a*b", "*a*"])
PATTERN = st.builds(
    lambda parts, deep: "/" + "/".join([*parts, *(["**"] if deep else [])]),
    st.lists(SEGMENTS, max_size=3),
    st.booleans(),
)
PATTERNS = st.lists(PATTERN, min_size=1, max_size=3)


@given(PATTERNS, PATTERNS, st.lists(PATTERN, max_size=3))
@settings(max_examples=150)
def test_a_path_is_found_where_there_is_one(one: list[str], other: list[str], none: list[str]) -> None:
    groups = frozenset(frozenset(map(path_pattern, group)) for group in (one, other))
    found = path(groups, frozenset(map(path_pattern, none)))

    def fits(parts: tuple[str, ...]) -> bool:
        return (
            all(any(along(pattern, parts) for pattern in group) for group in (one, other))
            and not any(along(pattern, parts) for pattern in none)
        )  # fmt: skip

    if found is None:
        assert not [parts for parts in PARTS if fits(parts)]
    else:
        assert fits(found)


@given(PATTERNS, PATTERNS)
@settings(max_examples=150)
def test_within_means_every_path(inner: list[str], outer: list[str]) -> None:
    astray = [
        parts
        for parts in PARTS
        if any(along(pattern, parts) for pattern in inner)
        and not any(along(pattern, parts) for pattern in outer)
    ]
    if within(inner, outer):
        assert not astray


def read(raw: list[str]) -> tuple[tuple[str, ...], int] | None:
    """The segments of an address, and what is odd about them, as the gate reads it. None: no gate takes it."""
    # Behind an empty segment there have to be two slashes: one at the end means nothing.
    slash = "/" if raw[-1:] == [""] else ""
    try:
        target = parse_target("GET", "https://gate/up/" + "/".join(raw) + slash)
    except Denied:
        return None
    return target.segments, target.odd


RAW = [
    "",
    "a",
    "b",
    ".",
    "%2f",
    "a%2F",
    "%2Fb",
    "a%2Fb",
    "a%2f.",
    "b%2F..%2fa",
    "a%2F%2Fb",
    "b%2Fa%2Fb",
    "ab",
]
ODD_PARTS = [
    found for length in range(4) for raw in product(RAW, repeat=length) if (found := read([*raw])) is not None
]
ODD_SEGMENTS = st.sampled_from(
    ["a", "b", "{id}", "*", "a*", "*b", "a%2Fb", "a%2F*", "*%2fb", "*%2F*", "b%2F*%2Fb"]
)
ODD_PATTERNS = st.lists(
    st.builds(
        lambda parts, deep: "/" + "/".join([*parts, *(["**"] if deep else [])]),
        st.lists(ODD_SEGMENTS, max_size=3),
        st.booleans(),
    ),
    min_size=1,
    max_size=3,
)


def test_the_addresses_that_are_tried_have_all_that_is_odd() -> None:
    assert {odd for _, odd in ODD_PARTS} == {0, ENCODED_SLASH, EMPTY_SEGMENT, ODD}
    assert not [parts for parts, _ in ODD_PARTS if {".", "/", "a/", "/b", "a//b", "a/."} & {*parts}]


@example(
    ["/**"], [], ODD, frozenset({ENCODED_SLASH, EMPTY_SEGMENT})
)  # in two segments, of which no pattern speaks
@given(
    ODD_PATTERNS,
    st.lists(ODD_SEGMENTS.map(lambda part: f"/{part}/**"), max_size=3),
    st.sampled_from([0, ENCODED_SLASH, EMPTY_SEGMENT, ODD]),
    st.frozensets(st.sampled_from([ENCODED_SLASH, EMPTY_SEGMENT, ODD]), max_size=2),
)
@settings(max_examples=300)
def test_a_path_with_odd_segments_is_found_where_the_gate_takes_one(
    any_of: list[str], none: list[str], odd: int, needed: frozenset[int]
) -> None:
    needed = frozenset(each for each in needed if each & odd)
    found = path(
        frozenset({frozenset(map(path_pattern, any_of))}), frozenset(map(path_pattern, none)), odd, needed
    )

    def fits(parts: tuple[str, ...], of: int) -> bool:
        return (
            any(along(pattern, parts) for pattern in any_of)
            and not any(along(pattern, parts) for pattern in none)
            and not of & ~odd
            and all(of & each & odd for each in needed)
        )

    if found is None:
        assert not [parts for parts, of in ODD_PARTS if fits(parts, of)]
    else:
        again = read([part.replace("/", "%2F") for part in found])
        assert again is not None
        assert again[0] == found
        assert fits(*again)


@given(ODD_PATTERNS, ODD_PATTERNS, st.sampled_from([0, ENCODED_SLASH, EMPTY_SEGMENT, ODD]))
@settings(max_examples=150)
def test_within_means_every_path_that_an_upstream_takes(inner: list[str], outer: list[str], odd: int) -> None:
    if within(inner, outer, odd):
        assert not [
            parts
            for parts, of in ODD_PARTS
            if not of & ~odd
            and any(along(pattern, parts) for pattern in inner)
            and not any(along(pattern, parts) for pattern in outer)
        ]


ODD_MEETINGS = [
    # two patterns, what their upstream takes, and whether one path matches both
    ("/a%2Fb", "/{id}", ENCODED_SLASH, True),
    ("/a%2Fb", "/{id}", 0, False),
    ("/a%2fb", "/a%2Fb", ENCODED_SLASH, True),
    ("/a%2Fb", "/a/b", ENCODED_SLASH, False),
    ("/a%2F*", "/*%2Fc", ENCODED_SLASH, True),
    ("/a*c", "/*%2F*", ENCODED_SLASH, True),
    ("/a*c", "/*%2F*", EMPTY_SEGMENT, False),
]


@pytest.mark.parametrize(("one", "other", "odd", "together"), ODD_MEETINGS)
def test_patterns_with_slashes_that_meet(one: str, other: str, odd: int, together: bool) -> None:
    assert meet(one, other, odd) is together
    assert meet(other, one, odd) is together


GLOB = st.text(alphabet="ab*", min_size=1, max_size=5)
TEXTS = ["".join(letters) for length in range(6) for letters in product("abx", repeat=length)]


@given(
    st.lists(st.lists(GLOB, min_size=1, max_size=3), max_size=3),
    st.lists(GLOB, max_size=3),
    st.lists(st.sampled_from(TEXTS), max_size=2),
)
@settings(max_examples=150)
def test_a_text_is_found_where_there_is_one(
    any_of: list[list[str]], none_of: list[str], not_: list[str]
) -> None:
    found = patterns.text(
        frozenset(frozenset(map(glob, group)) for group in any_of),
        frozenset([*map(glob, none_of), *map(exactly, not_)]),
    )

    def fits(text: str) -> bool:
        return (
            all(any(like(pattern, text) for pattern in group) for group in any_of)
            and not any(like(pattern, text) for pattern in none_of)
            and text not in not_
        )  # fmt: skip

    if found is None:
        assert not [text for text in TEXTS if fits(text)]
    else:
        assert fits(found)


@pytest.mark.parametrize("refused", ["a/b", "a%41", "a;b", "..", ". .", "a\\b", "a\x7f"])
def test_no_segment_is_made_up_that_the_gate_refuses(refused: str) -> None:
    assert patterns.text(frozenset({frozenset({exactly(refused)})}), frozenset(), SORTS[0]) is None


@pytest.mark.parametrize(
    "refused", ["a//b", "/a", "a/", "a/..", ". /a", "a%41", "a;b", "..", "a\\b", "a\x7f"]
)
def test_none_is_made_up_that_no_gate_takes(refused: str) -> None:
    for sort in SORTS:
        assert patterns.text(frozenset({frozenset({exactly(refused)})}), frozenset(), sort) is None


def test_a_search_is_given_up_in_time_and_not_begun_again() -> None:
    hostile = frozenset(frozenset({glob(f"*{letter}*" * 12)}) for letter in "abcdef")
    for _ in range(50):
        with pytest.raises(ExhaustedError):
            patterns.text(hostile, frozenset())
