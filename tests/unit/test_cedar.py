"""The gate decides what Cedar decides: the same policies in both languages, and the same questions to both engines."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from cedar import ZONE, Meaning, Question, Translation
from cedarpy import Decision, PolicySet, is_authorized_batch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from airgate.policy.index import Rule, canonical, segments, shard
from clock import DAYS
from conditions import NAMED
from shard import load_shard

UPSTREAMS = ("ledger", "crm")
ISSUERS = ("company", "partner")
SUBJECTS = ("etl", "bot", "a")
KINDS = ("workload", "human", "agent")
ROLES = ("reader", "writer", "auditor", "owner")
METHODS = ("GET", "POST", "DELETE")
CLAIMS = (("department",), ("org", "unit"))
VALUES = ("a", "b", "ab")
PARAMETERS = ("format", "page")
QUANTIFIERS = ("any", "all", "none")
SEGMENTS = ("a", "ab", "abb", "b", "reports")
RANGES = ("198.51.100.0/24", "198.51.100.128/25", "203.0.113.7/32", "2001:db8::/32", "0.0.0.0/0", "::/0")
CLIENTS = ("198.51.100.7", "198.51.100.200", "203.0.113.7", "203.0.113.8", "2001:db8::1", "2001:db9::1")
EQUATED = (
    "subject.id", "subject.issuer", "subject.kind", "subject.department", "workload.dag", "workload.task",
    "workload.environment", "workload.run", "workload.run_type", "workload.triggered_by", "resource.s0",
    "resource.s1", "query.format", "query.page",
)  # fmt: skip
MOMENTS = range(
    950_400, 1_650_000, 24_000
)  # seconds; coarse, so that what is asked about is often a limit itself


def some(values: Iterable[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(list(values)), min_size=1, max_size=2, unique=True).map(sorted)


GLOBS = st.lists(st.text("ab*", max_size=3), min_size=1, max_size=2)
ATTESTED = st.sampled_from([False, False, True])
MINUTES = st.sampled_from(range(20, 1440, 20))  # the MOMENTS are among them
OPEN = st.none() | st.sampled_from(MOMENTS)
# The MOMENTS are from the 11th to the 20th of a month of 31 days.
MONTH_DAYS = st.lists(
    st.sampled_from([*range(12, 20), *range(-20, -12)]), min_size=1, max_size=4, unique=True
).map(sorted)


@st.composite
def paths(draw: st.DrawFn) -> str:
    segment = st.sampled_from([*SEGMENTS, "{}", "{}", "{}", "*", "*", "a*", "*b", "a*b"])
    parts = draw(st.lists(segment, max_size=2))
    named = [part.replace("{}", "{s" + str(number) + "}") for number, part in enumerate(parts)]
    return "/" + "/".join([*named, *draw(st.sampled_from([[], ["**"], ["**"]]))])


def row(name: str, *values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.tuples(st.just(name), *values).map(list)


def quantified(name: str, *values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.one_of([row(f"{name}.{quantifier}", *values) for quantifier in QUANTIFIERS])


# By what the conditions are about.
ROWS = {
    "caller": st.one_of(
        row("subject.issuer", some(ISSUERS)), row("subject.id", some(SUBJECTS)), row("subject.kind", some(KINDS)),
        row("subject.dpop", st.booleans()), row("subject.delegated", st.booleans()),
    ),
    "roles": quantified("subject.roles", some(ROLES)),
    "claims": quantified("subject.claims", st.sampled_from([list(path) for path in CLAIMS]), some(VALUES)),
    "workload": st.one_of([row(f"workload.{name}", GLOBS, ATTESTED) for name in NAMED]),
    "tags": quantified("workload.tags", some(VALUES), ATTESTED),
    "query": quantified("target.query", st.sampled_from(PARAMETERS), some(VALUES)),
    "time": st.one_of(
        row("when.time", st.just("Here"), some(DAYS), MINUTES, MINUTES),
        row("when.time", st.just("Here"), st.just(DAYS), MINUTES, MINUTES, MONTH_DAYS),
    ).filter(lambda row: row[3] != row[4]),
    "dates": row("when.dates", OPEN, OPEN),
    "from": st.one_of(row("when.ip", some(RANGES)), row("when.country", some(["DE", "FR"]))),
    "equals": row("when.equals", st.sampled_from(EQUATED), st.sampled_from(EQUATED), ATTESTED),
}  # fmt: skip


@dataclass(frozen=True)
class Written:
    """A policy, with the upstreams that it is written for."""

    rule: Rule
    upstreams: tuple[str, ...]


@st.composite
def written(draw: st.DrawFn, number: int, rows: st.SearchStrategy[list[Any]]) -> Written:
    rule = Rule(
        id=f"p{number}",
        owner="o@example.com",
        effect=draw(st.sampled_from(["permit", "permit", "forbid"])),
        shadow=draw(st.sampled_from([False] * 5 + [True])),
        methods=draw(st.sampled_from([["*"], ["GET"], ["GET", "POST"]])),
        paths=sorted(set(draw(st.lists(paths(), min_size=1, max_size=2)))),
        conditions=draw(st.lists(rows, max_size=3, unique_by=lambda made: canonical(made[:-1]))),
    )
    return Written(rule, tuple(draw(some(UPSTREAMS))))


Case = tuple[tuple[Written, ...], Random]


def cases(*about: str) -> st.SearchStrategy[Case]:
    """Policy sets, and where their questions come from. `about`: what the conditions are about."""
    rows = st.one_of([ROWS[name] for name in about])
    policies = st.integers(1, 6).flatmap(
        lambda many: st.tuples(*[written(number, rows) for number in range(many)])
    )
    return st.tuples(policies, st.randoms(use_true_random=True))


def question(random: Random) -> Question:
    """Plain random values: hundreds of these are quick to make, where hypothesis takes a second for them."""

    def subset(values: Iterable[str], most: int = 4) -> tuple[str, ...]:
        chosen = [value for value in values if random.random() < 0.5]
        return tuple(chosen[:most])

    def word() -> str:
        return "".join(random.choices("ab", k=random.randint(0, 3)))

    granted = frozenset(subset(ROLES))
    fields = subset((*NAMED, "run"))
    return Question(
        upstream=random.choice(UPSTREAMS),
        method=random.choice(METHODS),
        segments=tuple(random.choices(SEGMENTS, k=random.randint(0, 4))),
        query={name: tuple(random.choices(VALUES, k=random.randint(0, 2))) for name in PARAMETERS},
        issuer=random.choice(ISSUERS),
        subject=random.choice(SUBJECTS),
        kind=random.choice(("workload", *KINDS)),
        jkt=random.choice((None, "k" * 43)),
        actor=random.choice((None, "bot")),
        effective=granted & frozenset(subset(ROLES)),
        granted=granted,
        unknown=frozenset(subset(ROLES, 2)) - granted,
        claims={path: subset(VALUES) for path in CLAIMS if random.random() < 0.7},
        workload={name: (word(), random.random() < 0.5) for name in fields},
        tags=(subset(VALUES), random.random() < 0.5) if random.random() < 0.7 else None,
        now=random.choice(MOMENTS),
        client=random.choice((None, *CLIENTS)),
        country=random.choice((None, "DE", "FR", "PL")),
    )


def ours(policies: tuple[Written, ...], asked: list[Question]) -> list[tuple[bool, list[str]]]:
    """The gate's answer to each question: whether, and by which policies."""
    shards = {}
    for name in UPSTREAMS:
        document = shard(name, [one.rule for one in policies if name in one.upstreams], {"Here": ZONE})
        shards[name] = load_shard(canonical(document), name)
    answers = [shards[question.upstream].decide(question.call()) for question in asked]
    return [(answer.permit, sorted(answer.policies)) for answer in answers]


def theirs(
    policies: tuple[Written, ...], asked: list[Question], translation: Translation
) -> list[tuple[bool, list[str], list[str]]]:
    """Cedar's answers, with what it says went wrong. A policy in shadow is none to Cedar."""
    applied = [translation.policy(one.rule, one.upstreams) for one in policies if not one.rule.shadow]
    answers = is_authorized_batch(
        [question.request() for question in asked], PolicySet.from_str("".join(applied)), "[]"
    )
    return [
        (
            answer.decision is Decision.Allow,
            sorted(answer.diagnostics.id_annotations_by_reason.values()),
            answer.diagnostics.errors,
        )
        for answer in answers
    ]


def compare(case: Case, translation: Translation) -> None:
    policies, random = case
    asked = [question(random) for _ in range(60)]
    answers = zip(asked, ours(policies, asked), theirs(policies, asked, translation), strict=True)
    for one, gate, cedar in answers:
        assert (*gate, []) == cedar, one


@given(cases(*ROWS))
@settings(max_examples=150)
def test_the_gate_decides_as_cedar_does(case: Case) -> None:
    compare(case, Translation())


class SkippedForbids(Translation):
    def condition(self, row: list[Any], path: str, forbids: bool) -> str:
        return super().condition(row, path, False)


class UnknownIsHeld(Translation):
    def condition(self, row: list[Any], path: str, forbids: bool) -> str:
        return super().condition(row, path, True)


class LongerNames(Translation):
    def path(self, pattern: str) -> str:
        return super().path(pattern.removesuffix("/**") + "*/**" if pattern.endswith("a/**") else pattern)


class OnlyBelow(Translation):
    def path(self, pattern: str) -> str:
        least = len(segments(pattern))
        return super().path(pattern) + (f" && context.depth >= {least}" if pattern.endswith("**") else "")


class NarrowedForbids(Translation):
    def roles(self, quantifier: str, values: list[str], forbids: bool) -> str:
        return super().roles(quantifier, values, forbids).replace("granted", "effective")


class AnyIsAll(Translation):
    def roles(self, quantifier: str, values: list[str], forbids: bool) -> str:
        return super().roles("all" if quantifier == "any" else quantifier, values, forbids)


class HeadersCount(Translation):
    def fact(self, field: str, attested: bool) -> str:
        return super().fact(field, False)


class HumansHaveDags(Translation):
    def meaning(self, row: list[Any], path: str) -> Meaning:
        return super().meaning(row, path)._replace(never="false")


class UntilItself(Translation):
    def until(self, moment: int) -> str:
        return f"context.now <= {moment}"


class NightsOfTheirOwn(Translation):
    def window(self, days: str, start: int, end: int, month_days: Sequence[int] = ()) -> str:
        text = super().window(days, start, end, month_days)
        return text.replace("yesterday_of_month", "month_day").replace("yesterday", "day")


class OneOfSeveral(Translation):
    def attribute(self, name: str, path: str, attested: bool) -> tuple[str, str, str]:
        known, some, values = super().attribute(name, path, attested)
        return known.replace("< 2", "< 3"), some.replace("== 1", "> 0"), values


WRONG = [
    (SkippedForbids, "workload", "a forbid that reads what is not there is skipped, as Cedar would"),
    (UnknownIsHeld, "claims", "a permit takes a claim that is not there for what it asks for"),
    (LongerNames, "caller", "/a/** matches /ab"),
    (OnlyBelow, "caller", "/a/** does not match /a"),
    (NarrowedForbids, "roles", "a caller escapes a forbid by not naming the role"),
    (AnyIsAll, "roles", "any of two roles means both"),
    (HeadersCount, "tags", "a header counts where only the token should"),
    (HumansHaveDags, "workload", "a human has a DAG"),
    (UntilItself, "dates", "the moment until which a policy holds still belongs to it"),
    (NightsOfTheirOwn, "time", "the hours after midnight belong to the day that they are in"),
    (OneOfSeveral, "equals", "a claim with two values is equal to another with the same two"),
]


@pytest.mark.parametrize(("wrong", "about"), [pytest.param(*case, id=says) for *case, says in WRONG])
def test_a_wrong_translation_is_noticed(wrong: type[Translation], about: str) -> None:
    """Or the test above could not fail."""

    @given(cases(about))
    @settings(max_examples=1000, derandomize=True, database=None, phases=[Phase.generate])
    def agree(case: Case) -> None:
        compare(case, wrong())

    with pytest.raises(AssertionError):
        agree()
