"""Policies: patterns, three-valued conditions, and that the index decides what a plain scan decides."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import Caller, Decision, Fact, Identity, Reason, Target
from policy import METHODS, MOST_FOUND, Choice, Glob, Index, Policy, Workload, decide

GLOBS = [
    # pattern, matches, does not match
    ("", [""], ["a", "*"]),
    ("a", ["a"], ["", "A", "aa", "a*"]),
    ("*", ["", "a", "a/b", "*", "\n"], []),
    ("**", ["", "a"], []),
    ("a*", ["a", "ab", "a*"], ["", "ba", "A"]),
    ("*a", ["a", "ba"], ["", "ab"]),
    ("a*a", ["aa", "aba", "aaa"], ["a", "ab"]),
    ("a*b*c", ["abc", "axbxc", "abbc", "abcbc"], ["ac", "acb", "abcx", "cab"]),
    ("*a*", ["a", "xax"], ["", "b"]),
    ("ab*ba", ["abba", "abxba"], ["aba", "ab", "ba"]),
    ("a*ab*b", ["aabb", "aab" + "b", "axabxb"], ["aab", "abb"]),
    ("finance_*", ["finance_", "finance_close"], ["finance", "xfinance_"]),
    ("a?", ["a?"], ["ab"]),
    ("[ab]", ["[ab]"], ["a"]),
    ("a.c", ["a.c"], ["abc"]),
]


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        pytest.param(
            pattern, text, matches, id=f"{pattern!r} {'matches' if matches else 'does not match'} {text!r}"
        )
        for pattern, good, bad in GLOBS
        for matches, texts in ((True, good), (False, bad))
        for text in texts
    ],
)
def test_a_glob(pattern: str, text: str, matches: bool) -> None:
    assert Glob(pattern).matches(text) is matches


def like(pattern: str, text: str) -> bool:
    """What a glob means, said as plainly as it can be."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return like(pattern[1:], text) or (text != "" and like(pattern, text[1:]))
    return text != "" and text[0] == pattern[0] and like(pattern[1:], text[1:])


@given(st.text(alphabet="ab*", max_size=8), st.text(alphabet="ab*", max_size=10))
@settings(max_examples=500)
def test_a_glob_is_the_plain_meaning(pattern: str, text: str) -> None:
    assert Glob(pattern).matches(text) is like(pattern, text)


def test_a_hostile_glob_is_linear() -> None:
    assert not Glob("a*" * 2000 + "b").matches("a" * 200_000)


NOBODY = Choice()


def policy(id_: str = "p", **changes: Any) -> Policy:
    made = Policy(
        id=id_,
        owner="o@example.com",
        forbids=False,
        shadow=False,
        issuers=None,
        ids=None,
        kinds=None,
        roles=NOBODY,
        workload=None,
        upstreams=("up",),
        methods=("GET",),
        paths=("/**",),
    )
    return made._replace(**changes)


def who(
    kind: str = "workload",
    granted: str = "",
    effective: str | None = None,
    issuer: str = "company",
    subject: str = "etl",
    **workload: Fact,
) -> Caller:
    """A caller; roles are single letters."""
    held = frozenset(granted)
    return Caller(
        Identity(issuer, subject, kind, held, {}),
        None,
        held if effective is None else frozenset(effective),
        workload,
    )


def to(path: str, method: str = "GET", upstream: str = "up") -> Target:
    return Target(method, upstream, tuple(path.split("/")[1:]) if path != "/" else (), path, "")


PATHS = [
    # pattern, matches, does not match
    ("/", ["/"], ["/a"]),
    ("/**", ["/", "/a", "/a/b/c"], []),
    ("/*", ["/a", "/*"], ["/", "/a/b"]),
    ("/{id}", ["/a", "/{id}"], ["/", "/a/b"]),
    ("/v1", ["/v1"], ["/", "/v", "/v11", "/V1", "/v1/a"]),
    ("/v1/", ["/v1"], ["/", "/v1/a"]),
    ("/v1/**", ["/v1", "/v1/a", "/v1/a/b"], ["/", "/v11", "/v11/a", "/v2/a"]),
    ("/v1/{id}", ["/v1/7"], ["/v1", "/v1/7/x"]),
    ("/v1/{id}/lines", ["/v1/7/lines"], ["/v1/7", "/v1/7/line", "/v1/7/8/lines"]),
    ("/v1/*/lines/**", ["/v1/7/lines", "/v1/7/lines/1/2"], ["/v1/lines", "/v1/7/x/lines"]),
    ("/team1*", ["/team1", "/team10", "/team1-a"], ["/team2", "/team10/x", "/team1/x"]),
    ("/team1*/x", ["/team1/x", "/team10/x"], ["/team10/y", "/team10/x/y"]),
    ("/team1/**", ["/team1", "/team1/x"], ["/team10", "/team10/x"]),
    ("/a*c/d", ["/ac/d", "/abc/d"], ["/ab/d", "/abc"]),
    ("/report.*", ["/report.csv", "/report."], ["/report", "/reportxcsv"]),
]


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        pytest.param(
            pattern, path, matches, id=f"{pattern} {'matches' if matches else 'does not match'} {path}"
        )
        for pattern, good, bad in PATHS
        for matches, paths in ((True, good), (False, bad))
        for path in paths
    ],
)
def test_a_path_pattern(pattern: str, path: str, matches: bool) -> None:
    found = list(Index([policy(paths=(pattern,))]).candidates(to(path)))
    assert [pair[1] for pair in found] == [pattern] * matches
    assert along(pattern, to(path).segments) is matches


def test_a_slash_inside_a_segment_separates_nothing() -> None:
    """Segments are what was decoded, so a pattern of two can't match one with a slash in it."""
    target = Target("GET", "up", ("a/b",), "/a%2Fb", "")
    assert list(Index([policy(paths=("/a/b",))]).candidates(target)) == []
    assert len(list(Index([policy(paths=("/{id}",))]).candidates(target))) == 1


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_star_is_every_method(method: str) -> None:
    assert len(list(Index([policy(methods=("*",))]).candidates(to("/a", method)))) == 1
    assert len(list(Index([policy(methods=("GET",))]).candidates(to("/a", method)))) == (method == "GET")


CHOICES = [
    # any, all, none; the roles granted, those in use; whether it holds
    pytest.param("", "", "", "", "", True, id="nothing asked"),
    pytest.param("ab", "", "", "b", "b", True, id="one of any"),
    pytest.param("ab", "", "", "c", "c", False, id="none of any"),
    pytest.param("", "ab", "", "abc", "abc", True, id="every one of all"),
    pytest.param("", "ab", "", "ac", "ac", False, id="one of all is missing"),
    pytest.param("", "", "x", "a", "a", True, id="none of none"),
    pytest.param("", "", "x", "ax", "ax", False, id="one of none"),
    pytest.param("a", "", "", "ab", "b", False, id="any does not see a role put aside"),
    pytest.param("", "ab", "", "ab", "b", False, id="all does not see a role put aside"),
    pytest.param("", "", "x", "ax", "a", False, id="none sees a role put aside"),
    pytest.param("a", "b", "x", "ab", "ab", True, id="all three at once"),
]


@pytest.mark.parametrize(("any_", "all_", "none", "granted", "used", "holds"), CHOICES)
def test_roles_of_a_permit(any_: str, all_: str, none: str, granted: str, used: str, holds: bool) -> None:
    choice = Choice(frozenset(any_), frozenset(all_), frozenset(none))
    assert policy(roles=choice).matches(who(granted=granted, effective=used)) is holds


@pytest.mark.parametrize(
    ("choice", "matches"),
    [
        pytest.param(Choice(any=frozenset("a")), True, id="any sees a role put aside"),
        pytest.param(Choice(all=frozenset("ab")), True, id="all sees a role put aside"),
        pytest.param(Choice(none=frozenset("a")), False, id="none sees a role put aside"),
        pytest.param(Choice(none=frozenset("x")), True, id="none of another role"),
    ],
)
def test_roles_of_a_forbid_are_all_those_granted(choice: Choice, matches: bool) -> None:
    assert policy(forbids=True, roles=choice).matches(who(granted="ab", effective="b")) is matches


@pytest.mark.parametrize("forbids", [False, True], ids=["permit", "forbid"])
@pytest.mark.parametrize(
    ("asked", "matches"),
    [
        pytest.param({"issuers": {"company"}}, True, id="its issuer"),
        pytest.param({"issuers": {"partner"}}, False, id="another issuer"),
        pytest.param({"ids": {"etl", "x"}}, True, id="its subject"),
        pytest.param({"ids": {"et"}}, False, id="another subject"),
        pytest.param({"kinds": {"workload"}}, True, id="its kind"),
        pytest.param({"kinds": {"human", "agent"}}, False, id="other kinds"),
        pytest.param({"issuers": {"company"}, "ids": {"x"}}, False, id="its issuer, another subject"),
        pytest.param({"issuers": {"partner"}, "kinds": {"workload"}}, False, id="its kind, another issuer"),
    ],
)
def test_subjects(asked: dict[str, set[str]], matches: bool, forbids: bool) -> None:
    made = policy(forbids=forbids, **{name: frozenset(values) for name, values in asked.items()})
    assert made.matches(who()) is matches


def workload(attested: bool = False, tags: Choice | None = None, **names: str) -> Workload:
    return Workload(
        tuple(
            (name, tuple(Glob(pattern) for pattern in patterns.split())) for name, patterns in names.items()
        ),
        tags,
        attested,
    )


GOOD, BAD = Fact("finance_close", True), Fact("sales_sync", True)
FINANCE = Choice(any=frozenset({"finance"}))

KLEENE = [
    # what is asked, what is known, and: true, false or unknown
    pytest.param(workload(dag="finance_*"), {"dag": GOOD}, True, id="true"),
    pytest.param(workload(dag="finance_*"), {"dag": BAD}, False, id="false"),
    pytest.param(workload(dag="finance_*"), {}, None, id="missing"),
    pytest.param(workload(dag="x finance_*"), {"dag": GOOD}, True, id="one of two patterns"),
    pytest.param(workload(dag="x y"), {"dag": GOOD}, False, id="none of two patterns"),
    pytest.param(workload(dag="*"), {}, None, id="missing, though anything would do"),
    pytest.param(
        workload(dag="finance_*"), {"dag": Fact("finance_x", False)}, True, id="asserted, and that is enough"
    ),
    pytest.param(workload(True, dag="finance_*"), {"dag": GOOD}, True, id="attested, as asked"),
    pytest.param(
        workload(True, dag="finance_*"), {"dag": Fact("finance_x", False)}, None, id="true but only asserted"
    ),
    pytest.param(
        workload(True, dag="finance_*"), {"dag": Fact("sales", False)}, None, id="false but only asserted"
    ),
    pytest.param(
        workload(dag="finance_*", task="post"), {"dag": GOOD, "task": Fact("post", True)}, True, id="T and T"
    ),
    pytest.param(workload(dag="finance_*", task="post"), {"dag": GOOD}, None, id="T and U"),
    pytest.param(workload(dag="finance_*", task="post"), {"task": Fact("post", True)}, None, id="U and T"),
    pytest.param(workload(dag="finance_*", task="post"), {"dag": BAD}, False, id="F and U"),
    pytest.param(workload(dag="finance_*", task="post"), {"task": Fact("x", True)}, False, id="U and F"),
    pytest.param(workload(dag="finance_*", task="post"), {}, None, id="U and U"),
    pytest.param(
        workload(dag="finance_*", task="post"), {"dag": GOOD, "task": Fact("x", True)}, False, id="T and F"
    ),
    pytest.param(workload(tags=FINANCE), {"tags": Fact(("finance",), False)}, True, id="a tag"),
    pytest.param(workload(tags=FINANCE), {"tags": Fact(("sales",), False)}, False, id="another tag"),
    pytest.param(workload(tags=FINANCE), {"tags": Fact((), True)}, False, id="no tags, and that is known"),
    pytest.param(workload(tags=FINANCE), {}, None, id="tags are missing"),
    pytest.param(
        workload(True, tags=FINANCE), {"tags": Fact(("finance",), False)}, None, id="tags only asserted"
    ),
    pytest.param(workload(True, tags=FINANCE), {"tags": Fact(("finance",), True)}, True, id="tags attested"),
    pytest.param(
        workload(tags=Choice(none=frozenset({"pii"}))),
        {},
        None,
        id="a tag that must not be there, and no tags known",
    ),
    pytest.param(workload(tags=FINANCE, dag="x"), {"dag": GOOD}, False, id="tags unknown, dag false"),
    pytest.param(
        workload(tags=FINANCE, dag="x"), {"tags": Fact(("sales",), True)}, False, id="tags false, dag unknown"
    ),
    pytest.param(workload(), {}, True, id="nothing asked"),
]


@pytest.mark.parametrize("kind", ["workload", "agent"])
@pytest.mark.parametrize(("asked", "known", "truth"), KLEENE)
def test_conditions_on_the_workload(
    asked: Workload, known: dict[str, Fact], truth: bool | None, kind: str
) -> None:
    """Unknown makes a permit not match and a forbid match: a value left out can never open the gate."""
    caller = who(kind, **known)
    assert policy(workload=asked).matches(caller) is (truth is True)
    assert policy(workload=asked, forbids=True).matches(caller) is (truth is not False)


@pytest.mark.parametrize("forbids", [False, True], ids=["permit", "forbid"])
@pytest.mark.parametrize("known", [{}, {"dag": GOOD}, {"dag": BAD}], ids=["unknown", "true", "false"])
def test_for_a_human_conditions_on_the_workload_are_false(known: dict[str, Fact], forbids: bool) -> None:
    made = policy(workload=workload(dag="finance_*"), forbids=forbids)
    assert made.matches(who("human", **known)) is False


def decided(policies: list[Policy], caller: Caller | None = None, path: str = "/v1/a") -> Decision:
    return decide(Index(policies).candidates(to(path)), caller or who())


def test_deny_by_default() -> None:
    nothing = Decision(False, Reason.POLICY_NO_MATCH, (), None, None)
    assert decided([]) == nothing
    assert decided([policy(upstreams=("other",))]) == nothing
    assert decided([policy(methods=("POST",))]) == nothing
    assert decided([policy(paths=("/v2/**",))]) == nothing
    assert decided([policy(kinds=frozenset({"human"}))]) == nothing


def test_permits_are_named_in_order_and_the_first_has_the_route_and_the_owner() -> None:
    policies = [
        policy("b", owner="b@example.com"),
        policy("a", owner="a@example.com", paths=("/v1/a", "/v1/*", "/**")),
    ]
    expected = Decision(True, None, ("a", "b"), "/**", "a@example.com")
    assert decided(policies) == expected
    assert decided(policies[::-1]) == expected
    reordered = policies[1]._replace(paths=("/**", "/v1/*", "/v1/a"))
    assert decided([reordered, policies[0]]) == expected


def test_a_forbid_wins_over_any_permit() -> None:
    policies = [policy("a"), policy("z", forbids=True, owner="z@example.com"), policy("b")]
    assert decided(policies) == Decision(False, Reason.POLICY_FORBIDDEN, ("z",), "/**", "z@example.com")


def test_a_shadow_policy_is_named_and_changes_nothing() -> None:
    shadows = [policy("z", shadow=True), policy("s", shadow=True, forbids=True)]
    assert decided(shadows) == Decision(False, Reason.POLICY_NO_MATCH, (), None, None, ("s", "z"))
    assert decided([*shadows, policy("p")]) == Decision(
        True, None, ("p",), "/**", "o@example.com", ("s", "z")
    )


# From here on: a plain scan over all policies, written from the reference and not from the code.


def along(pattern: str, segments: tuple[str, ...]) -> bool:
    parts = [part for part in pattern.split("/") if part]
    if parts and parts[-1] == "**":
        parts.pop()
        segments = segments[: len(parts)]
    return len(parts) == len(segments) and all(
        part.startswith("{") or like(part, segment) for part, segment in zip(parts, segments, strict=True)
    )


@dataclass
class Scan:
    """The oracle."""

    policies: list[Policy]

    def decide(self, caller: Caller, target: Target) -> Decision:
        matching = [
            each
            for each in self.policies
            if target.upstream in each.upstreams
            and (target.method in each.methods or "*" in each.methods)
            and any(along(path, target.segments) for path in each.paths)
            and self.applies(each, caller)
        ]
        shadow = tuple(sorted({each.id for each in matching if each.shadow}))
        enforced = [each for each in matching if not each.shadow]
        forbids = [each for each in enforced if each.forbids]
        deciding = sorted(forbids or enforced, key=lambda each: each.id)
        if not deciding:
            return Decision(False, Reason.POLICY_NO_MATCH, (), None, None, shadow)
        return Decision(
            not forbids,
            Reason.POLICY_FORBIDDEN if forbids else None,
            tuple(each.id for each in deciding),
            min(path for path in deciding[0].paths if along(path, target.segments)),
            deciding[0].owner,
            shadow,
        )

    def applies(self, each: Policy, caller: Caller) -> bool:
        granted = caller.identity.granted
        used = granted if each.forbids else caller.effective
        conditions: list[bool | None] = [
            each.issuers is None or caller.identity.issuer in each.issuers,
            each.ids is None or caller.identity.subject in each.ids,
            each.kinds is None or caller.identity.kind in each.kinds,
            not each.roles.any or bool(each.roles.any & used),
            not each.roles.all - used,
            not each.roles.none & granted,
        ]
        if each.workload is not None:
            if caller.identity.kind == "human":
                conditions.append(False)
            for name, globs in each.workload.names:
                known = self.known(caller, name, each.workload.attested)
                conditions.append(
                    None if known is None else any(like(glob.pattern, str(known.value)) for glob in globs)
                )
            if (tags := each.workload.tags) is not None:
                known = self.known(caller, "tags", each.workload.attested)
                conditions.append(
                    None
                    if known is None
                    else (not tags.any or any(tag in known.value for tag in tags.any))
                    and all(tag in known.value for tag in tags.all)
                    and not any(tag in known.value for tag in tags.none)
                )
        if False in conditions:
            return False
        return each.forbids if None in conditions else True

    @staticmethod
    def known(caller: Caller, name: str, attested: bool) -> Fact | None:
        fact = caller.workload.get(name)
        return fact if fact is not None and (fact.attested or not attested) else None


LETTERS = st.frozensets(st.sampled_from("abc"), max_size=2)
FEW = st.frozensets(st.sampled_from("abc"), max_size=1)
CHOICE = st.builds(Choice, LETTERS, FEW, FEW)
SEGMENT = st.sampled_from(["v1", "v10", "a", "b", "ab"])
PATTERN = st.builds(
    lambda parts, end: "/" + "/".join([*parts, *end]),
    st.lists(st.sampled_from(["v1", "v1*", "a", "*b", "a*b", "*", "{id}"]), max_size=3),
    st.sampled_from([[], ["**"]]),
)
GLOB = st.sampled_from(["x*", "y", "*", "xy"]).map(Glob)
PATTERNS = st.lists(GLOB, min_size=1, max_size=2).map(tuple)
WORKLOAD = st.builds(
    Workload,
    st.lists(
        st.tuples(st.sampled_from(["dag", "task"]), PATTERNS), max_size=2, unique_by=lambda pair: pair[0]
    ).map(tuple),
    st.none() | CHOICE,
    st.booleans(),
)
POLICY = st.builds(
    policy,
    st.none(),
    forbids=st.booleans(),
    shadow=st.sampled_from([False, False, False, True]),
    owner=st.sampled_from(["o@example.com", "q@example.com"]),
    issuers=st.none() | st.just(frozenset({"company"})),
    ids=st.none() | st.just(frozenset({"etl"})),
    kinds=st.none() | st.just(frozenset({"workload", "agent"})) | st.just(frozenset({"human"})),
    roles=st.just(NOBODY) | CHOICE,
    workload=st.none() | WORKLOAD,
    upstreams=st.sampled_from([("up",), ("up",), ("other", "up"), ("other",)]),
    methods=st.sampled_from([("*",), ("GET",), ("POST",), ("GET", "POST")]),
    paths=st.lists(PATTERN, min_size=1, max_size=3).map(tuple),
)
POLICIES = st.lists(POLICY, max_size=5).map(
    lambda policies: [each._replace(id=f"p{number}") for number, each in enumerate(policies)]
)
TARGET = st.builds(
    Target,
    st.sampled_from(["GET", "POST", "DELETE"]),
    st.sampled_from(["up", "up", "other", "none"]),
    st.lists(SEGMENT, max_size=4).map(tuple),
    st.just("/"),
    st.just(""),
)
NAME = st.builds(Fact, st.sampled_from(["x", "xy", "y", "z"]), st.booleans())
TAGS = st.builds(Fact, LETTERS.map(lambda tags: tuple(sorted(tags))), st.booleans())
CALLER = st.builds(
    lambda kind, issuer, subject, granted, dropped, known: Caller(
        Identity(issuer, subject, kind, granted, {}), None, granted - dropped, known
    ),
    st.sampled_from(["workload", "human", "agent"]),
    st.sampled_from(["company", "partner"]),
    st.sampled_from(["etl", "other"]),
    st.frozensets(st.sampled_from("abc")),
    LETTERS,
    st.fixed_dictionaries({}, optional={"dag": NAME, "task": NAME, "tags": TAGS}),
)


@given(POLICIES, CALLER, TARGET)
@settings(max_examples=200)
def test_the_index_decides_what_a_plain_scan_decides(
    policies: list[Policy], caller: Caller, target: Target
) -> None:
    expected = Scan(policies).decide(caller, target)
    assert decide(Index(policies).candidates(target), caller) == expected
    assert decide(Index(policies[::-1]).candidates(target), caller) == expected


@given(POLICIES, CALLER, TARGET, LETTERS)
@settings(max_examples=60)
def test_narrowing_roles_never_turns_a_deny_into_a_permit(
    policies: list[Policy], caller: Caller, target: Target, dropped: frozenset[str]
) -> None:
    index = Index(policies)
    before = decide(index.candidates(target), caller)
    narrowed = caller._replace(effective=caller.effective - dropped)
    after = decide(index.candidates(target), narrowed)
    assert before.permit or not after.permit
    if before.reason is Reason.POLICY_FORBIDDEN:
        assert after == before  # dropping a role never escapes a forbid


@given(POLICIES, CALLER, TARGET, st.sampled_from(["dag", "task", "tags"]))
@settings(max_examples=60)
def test_leaving_context_out_never_turns_a_deny_into_a_permit(
    policies: list[Policy], caller: Caller, target: Target, name: str
) -> None:
    index = Index(policies)
    silent = caller._replace(workload={key: fact for key, fact in caller.workload.items() if key != name})
    before, after = decide(index.candidates(target), caller), decide(index.candidates(target), silent)
    assert before.permit or not after.permit


@settings(max_examples=60)
@given(POLICIES, CALLER, TARGET, POLICY.map(lambda each: each._replace(id="new", forbids=True)))
def test_one_more_forbid_never_turns_a_deny_into_a_permit(
    policies: list[Policy], caller: Caller, target: Target, forbid: Policy
) -> None:
    before = decide(Index(policies).candidates(target), caller)
    after = decide(Index([*policies, forbid]).candidates(target), caller)
    assert before.permit or not after.permit


def test_every_row_of_two_conditions_has_been_thought_of() -> None:
    """Kleene's AND over two conditions, each true, false or unknown."""
    facts = {True: {"dag": GOOD}, False: {"dag": BAD}, None: {}}
    others = {True: {"task": Fact("post", True)}, False: {"task": Fact("x", True)}, None: {}}
    asked = workload(dag="finance_*", task="post")
    for left, right in product(facts, others):
        truth = False if False in (left, right) else None if None in (left, right) else True
        caller = who(**facts[left], **others[right])
        assert policy(workload=asked).matches(caller) is (truth is True)
        assert policy(workload=asked, forbids=True).matches(caller) is (truth is not False)


def test_addresses_that_an_index_keeps_are_bounded() -> None:
    index = Index([policy(paths=("/{id}",))])
    kept = index.candidates(to("/0"))
    assert index.candidates(to("/0")) is kept
    for number in range(1, MOST_FOUND + 1):
        assert len(index.candidates(to(f"/{number}"))) == 1
    assert index.candidates(to("/0")) == kept
    assert index.candidates(to("/0")) is not kept  # it had to make room
