"""Policies and calls over the whole policy language, for hypothesis. Values are few, so that they meet.

Hypothesis draws bytes, and every byte chooses: thousands of policy sets are made in the time that strategies put
together of hundreds of parts need for a few. Smaller bytes choose plainer things, so that it shrinks all the same.
"""

import sys
from collections.abc import Sequence
from itertools import combinations, product
from typing import Any, NamedTuple, TypeVar

from hypothesis import strategies as st
from world import NOW, rule, shards

from conditions import Call
from model import Caller, Decision, Fact, Identity, Target
from shard import EMPTY, Shard, load_shard

RESOURCE = "resource:todo"
DAY = 86_400
QUANTIFIERS = ("any", "all", "none")
BOTH = (False, True)


def examples(number: int) -> int:
    """How many of them hypothesis is to try: inside a Worker's Python, which is slow here, a tenth."""
    return number // 10 if sys.platform == "emscripten" else number


def load(upstream: str, *policies: dict[str, Any]) -> Shard:
    """The policies as the gate has them in force for one upstream."""
    text = shards(*policies).get(upstream)
    return EMPTY if text is None else load_shard(text, upstream)


def some(values: str) -> list[list[str]]:
    """One or two of the letters, in order."""
    return [list(chosen) for size in (1, 2) for chosen in combinations(values, size)]


def quantified(name: str, *between: Any, sets: list[list[str]]) -> list[list[Any]]:
    return [[f"{name}.{each}", *between, values] for each, values in product(QUANTIFIERS, sets)]


def attested(*rows: list[Any]) -> list[list[Any]]:
    return [[*row, flag] for row, flag in product(rows, BOTH)]


GLOBS = [["x"], ["x*"], ["*"], ["y", "*z"], ["x*z*"]]
WORKLOAD = ("dag", "task", "environment")
VOUCHED = ("run_type", "triggered_by")  # which only a token says
COMPARED = [
    *map("subject.".__add__, ("id", "issuer", "kind", "dep")),
    *map("workload.".__add__, (*WORKLOAD, *VOUCHED)),
]
OF_REQUESTS = ["resource.id", "resource.owner", "query.format", "query.F", "workload.run"]
OF_RESOURCES = ["resource.id", "resource.owner", "workload.run"]


def equals(right: list[str]) -> list[list[Any]]:
    return attested(*(["when.equals", *pair] for pair in product(COMPARED, right + COMPARED)))


ROWS: list[list[list[Any]]] = [  # each kind of condition with its variants
    [["subject.issuer", names] for names in (["company"], ["partner"], ["company", "x"])],
    [["subject.id", names] for names in some("xyz")],
    [["subject.kind", kinds] for kinds in (["human"], ["workload"], ["agent", "workload"])],
    [[name, flag] for name, flag in product(("subject.dpop", "subject.delegated"), BOTH)],
    quantified("subject.roles", sets=some("abc")),
    quantified("subject.claims", ["dep"], sets=[*some("xy"), ["1", "true"]]),
    quantified("subject.claims", ["org", "unit"], sets=some("xy")),
    [
        row
        for path in (["scope"], ["scp"], ["act", "sub"])
        for row in quantified("subject.claims", path, sets=some("xy"))
    ],
    quantified("subject.claims", ["cnf", "jkt"], sets=[["J" * 43], ["J" * 43, "x"]]),
    attested(*([f"workload.{name}", globs] for name, globs in product(WORKLOAD, GLOBS))),
    [[f"workload.{name}", globs, True] for name, globs in product(VOUCHED, GLOBS)],
    attested(*quantified("workload.tags", sets=some("xy"))),
    [
        ["when.time", zone, days, *times]
        for zone, days, times in product(
            ("Etc/UTC", "Europe/Berlin"),
            (["fri"], ["sun"], ["mon", "tue", "wed", "thu", "fri"], ["mon", "sat"]),
            ((0, 1440), (480, 540), (540, 480), (1320, 120), (120, 180), (1380, 1440)),
        )
    ],
    [
        ["when.time", zone, days, *times, month_days]
        for zone, days, times, month_days in product(
            ("Etc/UTC", "Europe/Berlin"),
            (["fri"], ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]),
            ((0, 1440), (1320, 120), (0, 120)),
            ([15], [-1], [-3, -2, -1], [1, 15, 31], [-17, 16]),
        )
    ],
    [["when.dates", *dates] for dates in ((None, int(NOW)), (int(NOW), None), (int(NOW), int(NOW) + DAY))],
    [
        ["when.ip", ranges]
        for ranges in (
            ["198.51.100.0/24"],
            ["198.51.100.7/32"],
            ["2001:db8::/32"],
            ["0.0.0.0/0"],
            ["198.51.100.0/25", "2001:db8::/33"],
        )
    ],
    [["when.country", countries] for countries in (["DE"], ["FR"], ["DE", "FR"])],
]
REQUEST_ROWS = [
    *ROWS,
    equals(OF_REQUESTS),
    quantified("target.query", "format", sets=[["csv"], ["csv", "json"], ["a b", "ä"], [""]]),
    quantified("target.query", "F", sets=[["csv"], ["1"]]),
]
RESOURCE_ROWS = [
    *ROWS,
    equals(OF_RESOURCES),
    quantified("target.properties", "owner", sets=some("xy")),
    [["target.ids", globs] for globs in GLOBS],
]
PATHS = [
    "/**", "/", "/v1", "/v1/", "/v1/**", "/v1/{id}", "/v1/{owner}/**", "/{owner}/x", "/{id}/{owner}", "/v1*/{id}",
    "/v1*/**", "/x*z/*", "/*", "/*/y*", "/{owner}/**", "/*/*/{id}", "/x", "/x/y",
]  # fmt: skip
LIMITS = [
    {"limit": limit, "per": per, "by": by}
    for limit, per, by in product((10, 60), (10, 60), (["subject"], ["subject", "dag"], ["policy"]))
]
OBLIGATIONS: list[dict[str, Any] | None] = [
    None,
    *({"rate_limit": [limit]} for limit in LIMITS),
    {"rate_limit": LIMITS[::3]},
    {"credential": "reader"},
    {"credential": "writer", "max_body": 1000},
    {"max_body": 0},
    {"require": {"headers": ["X-Change-Id", "x-ticket"], "justification": False}},
    {"require": {"headers": [], "justification": True}, "max_body": 10**9},
    {"asking": {"about": "any", "trust": ["claims", "roles"]}},
    {"notify": ["a", {"b": None}], "max_body": 5},
    {"notify": True},
]
FACTS = [Fact(value, flag) for value, flag in product(("x", "xyz", "y", "z"), BOTH)]
TAGS = [Fact(value, flag) for value, flag in product(((), ("x",), ("x", "y")), BOTH)]
ACTORS = [None, "x", "y", "xz"]
KEYS = [None, "J" * 43, "K" * 43]  # their thumbprints
HELD = [("x",), ("y",), ("x", "y"), ("1",), ("true", "z"), ()]
SEGMENTS = ["v1", "x", "y", "xz", "v10", "x/y"]
QUERIES = [
    "", "?", "?format", "?format=", "?format=csv", "?format=json", "?Format=csv", "?f=1", "?F=1", "?F=csv&f=csv",
    "?format=csv&format=csv", "?format=csv&format=json", "?format=csv&FORMAT=csv", "?format=csv;format=json",
    "?x=1&format=csv&", "?format=a+b", "?format=a%20b", "?format=%C3%A4", "?format=ä", "?format=%E4", "?x=%E4",
    "?f%6Frmat=csv", "?form+at=1", "?form%2Bat=1", "?format=csv%2B", "?format==csv", "?&&", "?=csv", "?format[]=csv",
    "?format%5B0%5D=csv&F=1",
]  # fmt: skip
CLIENTS = [
    None, "198.51.100.7", "198.51.100.200", "203.0.113.1", "::ffff:198.51.100.7", "::ffff:c633:64c8", "2001:db8::1",
    "2001:db8:ffff::1", "2001:DB8:0:0:0:0:0:1", "198.51.100.07", "198.51.100", "", "localhost", "198.51.100.7, 10.0.0.1"
]  # fmt: skip
MOMENTS = [
    NOW, NOW - 1, NOW + 0.5, NOW + DAY - 1, NOW + DAY, NOW + 2 * DAY,  # a Friday, 08:00 UTC
    NOW - 8 * 3600, NOW - 8 * 3600 - 0.5, NOW - 7 * 3600, NOW + 3600, NOW + 1799, NOW + 14 * 3600, NOW + 18 * 3600,
    1_806_195_599.0, 1_806_195_600.0, 1_824_944_399.5, 1_824_944_400.0,  # Berlin's clocks change
    NOW + 16 * DAY, NOW + 16 * DAY + 15 * 3600, NOW + 17 * DAY - 7 * 3600,  # the month's last day, and the first
    0.0, 1_861_916_399.0, 1_861_916_400.0, 1_893_455_999.0, 1_893_456_000.0,  # where the tables end
]  # fmt: skip

Choice = TypeVar("Choice")


class Dice:
    """Choices by the bytes of a text; after its end, always the first."""

    def __init__(self, text: bytes) -> None:
        self._text = iter(text)

    def of(self, choices: Sequence[Choice]) -> Choice:
        number = next(self._text, 0)
        if len(choices) > 256:
            number = number << 8 | next(self._text, 0)
        return choices[number % len(choices)]

    def several(self, choices: Sequence[Choice]) -> list[Choice]:
        """Each of them or not."""
        bits = next(self._text, 0)
        return [choice for number, choice in enumerate(choices) if bits >> number & 1]


def policy(dice: Dice, upstream: str, name: str) -> dict[str, Any]:
    of_resource = upstream.startswith("resource:")
    effect = dice.of(["permit", "permit", "forbid"])
    methods = ["read", "write"] if of_resource else ["GET", "POST"]
    return rule(
        id=name,
        owner=dice.of(["o@example.com", "q@example.com"]),
        effect=effect,
        mode=dice.of(["enforce", "enforce", "enforce", "shadow"]),
        target={
            "upstreams": [upstream],
            "methods": dice.several(methods) or ["*"],
            "paths": ["/*"]
            if of_resource
            else ["/**" if dice.of(BOTH) else dice.of(PATHS) for _ in range(dice.of([1, 1, 2]))],
        },
        conditions=[
            dice.of(dice.of(RESOURCE_ROWS if of_resource else REQUEST_ROWS))
            for _ in range(dice.of([0, 1, 1, 0, 1, 2, 3]))
        ],
        obligations=dice.of(OBLIGATIONS) if effect == "permit" else None,
    )


def _as_identified(
    claims: dict[tuple[str, ...], tuple[str, ...]], actor: str | None, jkt: str | None, *, long: bool
) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Claims that follow from others. `long`: the actor's name is too long to be compared."""
    followed: dict[tuple[str, ...], tuple[str, ...]] = {}
    if ("scope",) in claims:
        followed["scp",] = claims["scope",]
    if actor is not None and not long:
        followed["act", "sub"] = (actor,)
    if jkt is not None:
        followed["cnf", "jkt"] = (jkt,)
    return followed


def caller(dice: Dice) -> Caller:
    granted, dropped, unknown = (frozenset(dice.several("abc")) for _ in range(3))
    claims = {path: dice.of(HELD) for path in dice.several([("dep",), ("org", "unit"), ("scope",)])}
    actor, jkt = dice.of(ACTORS), dice.of(KEYS)
    identity = Identity(
        dice.of(["company", "company", "partner"]),
        dice.of("xyz"),
        dice.of(["workload", "workload", "human", "agent"]),
        granted,
        {},
        unknown - granted,
        claims | _as_identified(claims, actor, jkt, long=dice.of(BOTH)),
        jkt,
        actor,
    )
    facts = {name: dice.of(FACTS) for name in dice.several(["dag", "task", "run", "environment"])}
    tags = {name: dice.of(TAGS) for name in dice.several(["tags"])}
    vouched = {name: dice.of(FACTS)._replace(attested=True) for name in dice.several(VOUCHED)}
    return Caller(identity, None, granted - dropped, facts | tags | vouched)


def target(dice: Dice, upstream: str) -> Target:
    if upstream.startswith("resource:"):
        action, name = dice.of(["read", "write", "share"]), dice.of(["x", "xz", "y", "", "x/y"])
        return Target(action, upstream, (name,), "/", "", {"owner": dice.of(HELD)} if dice.of(BOTH) else {})
    segments = tuple([dice.of(SEGMENTS) for _ in range(dice.of([2, 1, 2, 3, 0]))])
    return Target(dice.of(["GET", "POST", "DELETE"]), upstream, segments, "/", dice.of(QUERIES))


class Scene(NamedTuple):
    """A policy set of one upstream, a call to it, and one policy more."""

    upstream: str
    policies: list[dict[str, Any]]
    caller: Caller
    target: Target
    now: float
    client: str | None
    country: str | None
    more: dict[str, Any]

    @property
    def call(self) -> Call:
        return Call(self.caller, self.target, self.now, self.client, self.country)

    def decide(self, *more: dict[str, Any]) -> Decision:
        """What the gate decides, the policies and these being in force."""
        return load(self.upstream, *self.policies, *more).decide(self.call)


def scene(text: bytes) -> Scene:
    dice = Dice(text)
    upstream = dice.of(["ledger", "ledger", "-", RESOURCE])
    names = [f"p{number * 7 % 10}" for number in range(dice.of([1, 2, 3, 4, 5, 6, 0]))]  # in no order
    policies = [policy(dice, upstream, name) for name in names]
    clock, client, country = dice.of(MOMENTS), dice.of(CLIENTS), dice.of([None, "DE", "FR", "XX"])
    return Scene(
        upstream,
        policies,
        caller(dice),
        target(dice, upstream),
        clock,
        client,
        country,
        policy(dice, upstream, "new"),
    )


SCENES = st.binary(min_size=160, max_size=160).map(scene)
