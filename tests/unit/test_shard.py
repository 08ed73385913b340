"""Shards: a good one is what was compiled; a wrong one is refused, with the place, and never half used."""

import json
import time
from collections.abc import Callable
from copy import deepcopy
from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from language import (
    OBLIGATIONS,
    REQUEST_ROWS,
    RESOURCE,
    RESOURCE_ROWS,
    SCENES,
    Dice,
    Scene,
    caller,
    examples,
    load,
    target,
)
from language import scene as made
from mutation import NAN, STRANGE, mutate
from world import ABSENT, BERLIN, NOW, canonical, rule, shards

import shard as engine
from clock import DAYS, Dates, Window
from conditions import (
    Among,
    Call,
    Claim,
    Condition,
    Equal,
    Flag,
    Ids,
    Named,
    Network,
    Property,
    Query,
    Roles,
    Tags,
)
from model import Target
from obligations import BY, Limit, Obligations
from policy import METHODS, Policy
from shard import DEPTH, EMPTY, LIMIT, MOST_POLICIES, load_shard

ROWS = {"ledger": REQUEST_ROWS, RESOURCE: RESOURCE_ROWS}


def whole(upstream: str = "ledger") -> dict[str, Any]:
    """A good shard's document: with every kind of condition, every obligation, and every branch of the tree."""
    methods = ["read", "write"] if upstream == RESOURCE else ["GET", "POST"]
    paths = [["/*"]] if upstream == RESOURCE else [["/v1/{id}", "/**"], ["/v1/x", "/x*/y"], ["/"]]
    policies = [
        rule(
            id=f"p{number}",
            owner=f"o{number % 3}@example.com",
            effect="forbid" if number % 4 == 3 else "permit",
            mode="shadow" if number % 5 == 4 else "enforce",
            target={
                "upstreams": [upstream],
                "methods": methods[: 1 + number % 2],
                "paths": paths[number % len(paths)],
            },
            conditions=[kind[number % len(kind)] for kind in kinds],
            obligations=None if number % 4 == 3 else OBLIGATIONS[number % len(OBLIGATIONS)],
        )
        for number, kinds in enumerate(
            [[first, second] for first, second in product(ROWS[upstream], repeat=2)][::3]
        )
    ]
    document: dict[str, Any] = json.loads(shards(*policies)[upstream])
    return document


WHOLE = {upstream: whole(upstream) for upstream in ROWS}


def complaint(document: Any, upstream: str = "ledger") -> str:
    """Why it is refused. `document`: one, or its text."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what is looked at
        load_shard(document if isinstance(document, str) else json.dumps(document), upstream)
    return str(caught.value)


def test_whole_shards_have_every_kind_of_condition() -> None:
    for upstream, document in WHOLE.items():
        kinds = {row[0] for kind in ROWS[upstream] for row in kind}
        assert len({row[0] for row in document["conditions"]}) > 0.6 * len(kinds)
        assert {row[0].split(".")[1] for row in document["conditions"]} == {
            kind.split(".")[1] for kind in kinds
        }
        assert len(document["policies"]) > 50
        loaded = load_shard(canonical(document), upstream)
        assert (loaded.policies, loaded.size) == (len(document["policies"]), len(canonical(document)))
        assert loaded.asks_country


def test_of_an_upstream_that_no_policy_names_the_shard_is_empty() -> None:
    asked = Call(caller(Dice(b"")), Target("GET", "ledger", ("v1",), "/v1", ""), NOW)
    assert not EMPTY.decide(asked).permit
    assert EMPTY.lookup.reachable(asked.target) == []
    nothing = load_shard(canonical(WHOLE["ledger"] | {"policies": [], "index": [None] * 5}), "ledger")
    assert nothing.decide(asked) == EMPTY.decide(asked)
    assert nothing.policies == EMPTY.policies == 0


def test_whether_the_country_is_asked_for() -> None:
    assert not load("ledger", rule()).asks_country
    assert load("ledger", rule(), rule(id="q", conditions=[["when.country", ["DE"]]])).asks_country


# What was compiled comes back.


def written(condition: Condition) -> list[Any]:
    """The row that a condition was read from."""
    match condition:
        case Among(name, values):
            return [name, sorted(values)]
        case Flag(name, expected):
            return [name, expected]
        case Roles(quantifier, values):
            return [f"subject.roles.{quantifier}", sorted(values)]
        case Claim(quantifier, path, values):
            return [f"subject.claims.{quantifier}", list(path), sorted(values)]
        case Named(field, globs, attested):
            return [f"workload.{field}", [glob.pattern for glob in globs], attested]
        case Tags(quantifier, values, attested):
            return [f"workload.tags.{quantifier}", sorted(values), attested]
        case Query(quantifier, name, values):
            return [f"target.query.{quantifier}", name, sorted(values)]
        case Property(quantifier, name, values):
            return [f"target.properties.{quantifier}", name, sorted(values)]
        case Ids(globs):
            return ["target.ids", [glob.pattern for glob in globs]]
        case Window(zone, days, start, end, month_days):
            of_month = [sorted(month_days)] if month_days else []
            return ["when.time", zone.name, [DAYS[day] for day in sorted(days)], start, end, *of_month]
        case Dates(start, until):
            return ["when.dates", start, until]
        case Network(ranges):
            return ["when.ip", list(ranges)]
        case Equal(left, right, attested):
            return ["when.equals", left, right, attested]
    raise AssertionError(condition)


def asked_by(policy: Policy) -> dict[str, Any] | None:
    """The obligations that a policy was read with, as far as they keep their shape."""
    asked = policy.obligations
    if asked is None:
        return None
    limits = [{"limit": limit.limit, "per": limit.per, "by": list(limit.by)} for limit in asked.limits]
    assert all(limit.policy == (policy.id if "policy" in limit.by else "") for limit in asked.limits)
    require = {"headers": list(asked.headers), "justification": asked.justification}
    members = {
        "rate_limit": limits or ABSENT,
        "credential": ABSENT if asked.credential is None else asked.credential,
        "max_body": ABSENT if asked.max_body is None else asked.max_body,
        "require": require if any(require.values()) else ABSENT,
        **{name: json.loads(value) for name, value in asked.others},
    }
    return {name: value for name, value in members.items() if value is not ABSENT}


def expected(obligations: dict[str, Any] | None) -> dict[str, Any] | None:
    """The same, of what was written: the order of limits and the case of headers don't count."""
    if obligations is None:
        return None
    made = deepcopy(obligations)
    if "rate_limit" in made:
        lowest: dict[Any, Any] = {}
        for limit in made["rate_limit"]:
            key = (limit["per"], limit["by"])
            lowest[str(key)] = min([limit, lowest.get(str(key), limit)], key=lambda each: int(each["limit"]))
        made["rate_limit"] = sorted(lowest.values(), key=lambda each: (each["per"], each["by"]))
    if "require" in made:
        made["require"]["headers"] = sorted(name.lower() for name in made["require"]["headers"])
    return made


@given(SCENES)
@settings(max_examples=examples(1000))
def test_every_policy_is_read_as_it_was_written(scene: Scene) -> None:
    shard = load(scene.upstream, *scene.policies)
    assert shard.policies == len(scene.policies)
    for each in scene.policies:
        for path in each["target"]["paths"]:
            segments = [
                "q" if part.startswith("{") or part == "*" else part.replace("*", "")
                for part in path.split("/")[1:]
            ]
            method = each["target"]["methods"][0].replace("*", "DELETE")
            there = Target(method, scene.upstream, tuple(part for part in segments if part), path, "")
            ((policy, route),) = [
                pair
                for pair in shard.lookup.reachable(there)
                if pair == (pair[0], path) and pair[0].id == each["id"]
            ][:1]
            assert route == path
            assert (policy.id, policy.owner, policy.forbids, policy.shadow) == (
                each["id"], each["owner"], each["effect"] == "forbid", each["mode"] == "shadow",
            )  # fmt: skip
            assert (list(policy.methods), list(policy.paths)) == (
                each["target"]["methods"],
                each["target"]["paths"],
            )
            assert [written(condition) for condition in policy.conditions] == each["conditions"]
            assert asked_by(policy) == expected(each["obligations"])


def test_obligations_are_read_as_they_are_written() -> None:
    document = {
        "rate_limit": [
            {"limit": 60, "per": 60, "by": list(BY)},
            {"limit": 5, "per": 10, "by": ["dag"]},
        ],
        "credential": "writer",
        "max_body": 1_000_000,
        "require": {"headers": ["X-Change-Id", "x-b"], "justification": True},
        "notify": {"b": [1, None], "a": "ä"},
    }
    shard = load("ledger", rule(id="mine", conditions=[], obligations=document))
    decision = shard.decide(Call(caller(Dice(b"")), Target("GET", "ledger", ("v1",), "/v1", ""), NOW))
    assert decision.obligations == Obligations(
        (Limit(5, 10, ("dag",), ""), Limit(60, 60, BY, "mine")),
        "writer",
        1_000_000,
        ("x-b", "x-change-id"),
        True,
        (("notify", '{"a":"ä","b":[1,null]}'),),
    )


def test_a_path_as_long_as_a_calls_can_be() -> None:
    for segment in ("a", "{id}", "a*"):
        path = f"/{segment}" * 64
        shard = load(
            "ledger", rule(conditions=[], target={"upstreams": ["ledger"], "methods": ["*"], "paths": [path]})
        )
        there = Target("GET", "ledger", ("a",) * 64, "/", "")
        assert shard.decide(Call(caller(Dice(b"")), there, NOW)).permit
        assert not shard.decide(Call(caller(Dice(b"")), there._replace(segments=("a",) * 63), NOW)).permit


# What is wrong is refused.

OBJECTS: list[tuple[str, tuple[Any, ...]]] = [
    ("shard", ()),
    ("shard.zones.Europe/Berlin", ("zones", "Europe/Berlin")),
    ("shard.obligations[0].require", ("obligations", 0, "require")),
    ("shard.obligations[0].rate_limit[0]", ("obligations", 0, "rate_limit", 0)),
]
ASKED = {
    "rate_limit": [{"limit": 60, "per": 60, "by": ["subject"]}],
    "credential": "writer",
    "max_body": 1,
    "require": {"headers": ["x-a"], "justification": False},
}


def good() -> dict[str, Any]:
    """A small one, with one of everything that has members."""
    rows = [["when.time", "Europe/Berlin", ["mon"], 0, 60], ["subject.kind", ["human"]]]
    document: dict[str, Any] = json.loads(shards(rule(conditions=rows, obligations=ASKED))["ledger"])
    return document


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def changed(*path: Any, value: Any) -> dict[str, Any]:
    document = good()
    at(document, path[:-1])[path[-1]] = value
    return document


MEMBERS = [
    pytest.param(where, (*path, name), id=f"{where}.{name}")
    for where, path in OBJECTS
    for name in at(good(), path)
]


def test_the_small_one_is_good() -> None:
    assert load_shard(json.dumps(good()), "ledger").policies == 1


@pytest.mark.parametrize(("where", "path"), [pytest.param(*each, id=each[0]) for each in OBJECTS])
def test_a_member_that_is_not_known_is_refused(where: str, path: tuple[Any, ...]) -> None:
    assert complaint(changed(*path, "more", value=1)) == f"{where}.more: not known to this version"


@pytest.mark.parametrize(("where", "path"), MEMBERS)
def test_a_member_that_is_missing_is_refused(where: str, path: tuple[Any, ...]) -> None:
    document = good()
    del at(document, path[:-1])[path[-1]]
    assert complaint(document) == f"{where}.{path[-1]}: missing"


@pytest.mark.parametrize("value", STRANGE, ids=json.dumps)
@pytest.mark.parametrize(("where", "path"), MEMBERS)
def test_a_member_of_another_type_is_refused(where: str, path: tuple[Any, ...], value: Any) -> None:
    fine: dict[str, list[Any]] = {
        "justification": [True],
        "headers": [[], ["x"]],
        "owners": [["x"]],
        "obligations": [[{}]],  # one that asks nothing
    }
    document = changed(*path, value=value)
    if value in fine.get(path[-1], []) and type(value) in {type(each) for each in fine[path[-1]]}:
        load_shard(json.dumps(document), "ledger")
    else:
        assert complaint(document).startswith(where)


ACCEPTED = [
    pytest.param(("obligations", 0, "max_body"), 2**53, id="the largest body"),
    pytest.param(("obligations", 0, "rate_limit", 0, "limit"), 2**31, id="the largest limit"),
    pytest.param(
        ("zones", "Europe/Berlin", "offsets"), [86_400, -86_400] * 3 + [0], id="a day east and west"
    ),
    pytest.param(("zones", "Europe/Berlin", "until"), 0, id="a zone that was known once"),
    pytest.param(("conditions", 1), ["when.dates", 0, 2**53], id="the first and the last moment"),
]


@pytest.mark.parametrize(("path", "value"), ACCEPTED)
def test_accepted(path: tuple[Any, ...], value: Any) -> None:
    assert load_shard(json.dumps(changed(*path, value=value)), "ledger").policies == 1


def test_a_policy_for_every_method() -> None:
    target = {"upstreams": ["ledger"], "methods": [*sorted(METHODS), "*"], "paths": ["/"]}
    shard = load("ledger", rule(conditions=[], target=target))
    for method in METHODS:
        assert shard.decide(Call(caller(Dice(b"")), Target(method, "ledger", (), "/", ""), NOW)).permit


REFUSED = [
    pytest.param(("format",), 3, "shard.format", id="an older format"),
    pytest.param(("format",), 6, "shard.format", id="a newer format"),
    pytest.param(("format",), 5.0, "shard.format", id="a format with a point"),
    pytest.param(("upstream",), "crm", "shard.upstream: expected ledger", id="another upstream's shard"),
    pytest.param(("owners",), [], "shard.policies: owners", id="no owner"),
    pytest.param(("zones",), {}, "shard.conditions (when.time)", id="a zone that is not there"),
    pytest.param(("zones", "Europe/Berlin", "starts"), [], "shard.zones.Europe/Berlin.starts", id="a zone of nothing"),
    pytest.param(
        ("zones", "Europe/Berlin", "starts"), [0] * 7, "shard.zones.Europe/Berlin.starts", id="moments that don't rise"
    ),
    pytest.param(
        ("zones", "Europe/Berlin", "starts"), BERLIN["starts"][1:], "shard.zones.Europe/Berlin.starts", id="one too few"
    ),
    pytest.param(
        ("zones", "Europe/Berlin", "offsets"), [86_401] * 7, "shard.zones.Europe/Berlin.offsets", id="over a day east"
    ),
    pytest.param(("zones", "Europe/Berlin", "until"), 2**53 + 1, "shard.zones.Europe/Berlin.until", id="too late"),
    pytest.param(("zones", "Europe/Berlin", "until"), 1.5, "shard.zones.Europe/Berlin.until", id="half a second"),
    pytest.param(("conditions",), [[]], "shard.conditions (None)", id="a condition without a name"),
    pytest.param(("conditions",), [[7]], "shard.conditions (7)", id="a condition with a number for a name"),
    pytest.param(("conditions",), [[["x"]]], "shard.conditions (['x'])", id="a condition with a list for a name"),
    pytest.param(("conditions",), [], "shard.policies: conditions", id="no condition, though one is used"),
    pytest.param(("obligations",), [], "shard.policies: obligations", id="no obligation, though one is used"),
    pytest.param(("obligations", 0, "credential"), 7, "shard.obligations[0].credential", id="a credential of 7"),
    pytest.param(("obligations", 0, "max_body"), -1, "shard.obligations[0].max_body", id="a body of -1"),
    pytest.param(("obligations", 0, "max_body"), True, "shard.obligations[0].max_body", id="a body of true"),
    pytest.param(("obligations", 0, "max_body"), 1.5, "shard.obligations[0].max_body", id="a body of one and a half"),
    pytest.param(("obligations", 0, "max_body"), NAN, "shard.obligations[0].max_body", id="a body of NaN"),
    pytest.param(("obligations", 0, "require"), [], "shard.obligations[0].require", id="require of a list"),
    pytest.param(("obligations", 0, "rate_limit"), {}, "shard.obligations[0].rate_limit", id="a limit of an object"),
    pytest.param(("obligations", 0, "rate_limit"), [[]], "shard.obligations[0].rate_limit[0]", id="a limit of lists"),
    pytest.param(("obligations", 0, "notify"), NAN, "", id="an unknown obligation of NaN"),
    pytest.param(
        ("obligations", 0, "rate_limit", 0, "limit"), 0, "shard.obligations[0].rate_limit[0].limit", id="a limit of 0"
    ),
    pytest.param(
        ("obligations", 0, "rate_limit", 0, "limit"), 2**31 + 1, "shard.obligations[0].rate_limit[0].limit", id="more"
    ),
    pytest.param(("obligations", 0, "max_body"), 2**53 + 1, "shard.obligations[0].max_body", id="too large a body"),
    pytest.param(
        ("obligations", 0, "rate_limit", 0, "per"), 30, "shard.obligations[0].rate_limit[0].by", id="in half a minute"
    ),
    pytest.param(
        ("obligations", 0, "rate_limit", 0, "by"), ["x"], "shard.obligations[0].rate_limit[0].by", id="by nothing known"
    ),
    pytest.param(
        ("obligations", 0, "rate_limit", 0, "by"), ["dag", "subject"], "shard.obligations[0].rate_limit[0].by",
        id="by two things in another order",
    ),
    pytest.param(
        ("obligations", 0, "rate_limit", 0, "by"), ["dag", "dag"], "shard.obligations[0].rate_limit[0].by",
        id="by one thing twice",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "where"), REFUSED)
def test_refused(path: tuple[Any, ...], value: Any, where: str) -> None:
    assert complaint(changed(*path, value=value)).startswith(where)


# Of each kind of condition one row, and what each of its members is.
SHAPES: list[tuple[list[Any], list[str]]] = [
    (["subject.issuer", ["x"]], ["texts"]),
    (["subject.id", ["x"]], ["texts"]),
    (["subject.kind", ["human"]], ["texts"]),
    (["subject.dpop", True], ["flag"]),
    (["subject.delegated", False], ["flag"]),
    (["subject.roles.any", ["x"]], ["texts"]),
    (["subject.roles.all", ["x"]], ["texts"]),
    (["subject.roles.none", ["x"]], ["texts"]),
    (["subject.claims.any", ["x"], ["x"]], ["texts", "texts"]),
    (["workload.dag", ["x"], False], ["texts", "flag"]),
    (["workload.task", ["x"], False], ["texts", "flag"]),
    (["workload.environment", ["x"], True], ["texts", "flag"]),
    (["workload.run_type", ["x"], True], ["texts", "flag"]),
    (["workload.triggered_by", ["x"], True], ["texts", "flag"]),
    (["workload.tags.none", ["x"], False], ["texts", "flag"]),
    (["target.query.any", "x", ["x"]], ["text", "texts"]),
    (["target.properties.all", "x", ["x"]], ["text", "texts"]),
    (["target.ids", ["x"]], ["texts"]),
    (["when.time", "Europe/Berlin", ["mon"], 60, 120], ["other text", "other texts", "minute", "minute"]),
    (
        ["when.time", "Europe/Berlin", ["mon"], 60, 120, [28, -1]],
        ["other text", "other texts", "minute", "minute", "days"],
    ),
    (["when.dates", 5, None], ["moment", "moment"]),
    (["when.ip", ["10.0.0.0/8"]], ["other texts"]),
    (["when.country", ["DE"]], ["texts"]),
    (["when.equals", "subject.id", "query.x", False], ["other text", "other text", "flag"]),
]
FINE: dict[str, list[str]] = {  # the strange values that such a member may have, as JSON
    "texts": ['["x"]'],
    "text": ['"x"'],
    "other texts": [],
    "other text": [],
    "flag": ["true"],
    "minute": [],
    "days": ["[-1]"],
    "moment": ["null"],
}


def with_row(row: Any) -> tuple[dict[str, Any], str]:
    of_resource = isinstance(row[0], str) and row[0].startswith(("target.ids", "target.properties"))
    upstream = RESOURCE if of_resource else "ledger"
    return good() | {"upstream": upstream, "conditions": [["subject.kind", ["human"]], row]}, upstream


@pytest.mark.parametrize(("row", "kinds"), [pytest.param(*shape, id=str(shape[0][0])) for shape in SHAPES])
def test_conditions_of_another_shape_are_refused(row: list[Any], kinds: list[str]) -> None:
    load_shard(json.dumps(with_row(row)[0]), with_row(row)[1])
    where = "shard.conditions ("
    shorter = row[:-1] if len(row) < 6 else row[:-2]  # days of the month may be left out
    for wrong in (shorter, [*row, None], [*row, ["x"]]):
        assert complaint(*with_row(wrong)).startswith(where)
    for number, kind in enumerate(kinds, 1):
        for value in STRANGE:
            document, upstream = with_row([*row[:number], value, *row[number + 1 :]])
            if json.dumps(value) in FINE[kind]:
                load_shard(json.dumps(document), upstream)
            else:
                assert complaint(document, upstream).startswith(where)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(["subject.shoe_size", ["x"]], id="an attribute that is not known"),
        pytest.param(["subject.roles", ["x"]], id="roles without a quantifier"),
        pytest.param(["subject.roles.some", ["x"]], id="a quantifier that is not known"),
        pytest.param(["subject.roles.any.any", ["x"]], id="two quantifiers"),
        pytest.param(["subject.kind.any", ["x"]], id="a quantifier where there is none"),
        pytest.param(["subject.dpop", "true"], id="a word for a flag"),
        pytest.param(["subject.delegated", None], id="null for a flag"),
        pytest.param(["subject.Kind", ["x"]], id="a name in another case"),
        pytest.param(["target.properties", "x", ["x"]], id="properties without a quantifier"),
        pytest.param(["workload.run", ["x"], False], id="a fact that is not tested"),
        pytest.param(["when", ["x"]], id="half a name"),
        pytest.param(["", ["x"]], id="no name"),
        pytest.param([None, ["x"]], id="null for a name"),
        pytest.param(["x" * 100_000, ["x"]], id="a long name"),
        pytest.param(["target.ids", ["x"]], id="the id of a resource, of a request"),
        pytest.param(["target.properties.any", "x", ["x"]], id="a property of a resource, of a request"),
        pytest.param(["when.time", "Mars/Olympus", ["mon"], 0, 60], id="a zone that the shard has not"),
        pytest.param(["when.time", "Europe/Berlin", ["mon", "Tue"], 0, 60], id="a day that is none"),
        pytest.param(["when.time", "Europe/Berlin", ["mon"], 1440, 60], id="from midnight after the day"),
        pytest.param(["when.time", "Europe/Berlin", ["mon"], 60, 0], id="to the day's first minute"),
        pytest.param(["when.time", "Europe/Berlin", ["mon"], 0, 1441], id="to a minute after midnight"),
        pytest.param(["when.time", "Europe/Berlin", ["mon"], 60, 60], id="a window of nothing"),
        pytest.param(["when.time", "Europe/Berlin", ["mon"], 0.0, 60], id="from a minute with a point"),
        pytest.param(["when.time", "Europe/Berlin", ["mon"], 0, 60, []], id="no days of the month"),
        pytest.param(["when.time", "Europe/Berlin", ["mon"], 0, 60, [0]], id="the day before the first"),
        pytest.param(["when.time", "Europe/Berlin", ["mon"], 0, 60, [1, 32]], id="a 32nd of the month"),
        pytest.param(
            ["when.time", "Europe/Berlin", ["mon"], 0, 60, [-32]], id="32 days before the month's end"
        ),
        pytest.param(
            ["when.time", "Europe/Berlin", ["mon"], 0, 60, [True]], id="true for a day of the month"
        ),
        pytest.param(["when.time", "Europe/Berlin", ["mon"], 0, 60, [1.0]], id="a day with a point"),
        pytest.param(["when.time", "Europe/Berlin", ["mon"], 0, 60, 28], id="one day outside of a list"),
        pytest.param(["when.dates", 2**53 + 1, None], id="a date past exact numbers"),
        pytest.param(["when.ip", ["10.0.0.0/8", "10.0.0.1/8"]], id="a range with bits behind its prefix"),
        pytest.param(["when.ip", ["example.com"]], id="a name for a range"),
        pytest.param(["when.ip", ["::ffff:10.0.0.0/104"]], id="a range that no address is in"),
        pytest.param(
            ["when.equals", "subject.id", "header.x", False], id="an attribute that can't be compared"
        ),
        pytest.param(["when.equals", "workload.tags", "subject.id", False], id="tags can't be compared"),
        pytest.param(["when.equals", "subject.id", "resource.", False], id="an attribute without a name"),
    ],
)
def test_conditions_that_mean_nothing_are_refused(row: list[Any]) -> None:
    document = good() | {"conditions": [["subject.kind", ["human"]], row]}
    assert complaint(document).startswith("shard.conditions (")
    assert len(complaint(document)) < 500


def test_a_resource_has_no_query() -> None:
    document = good() | {
        "upstream": RESOURCE,
        "conditions": [["target.query.any", "x", ["x"]], ["target.ids", ["x"]]],
    }
    assert complaint(document, RESOURCE).startswith("shard.conditions ('target.query.any')")


# In a policy's row: number of the value, its name in messages, and the strange values that it may have.
COLUMNS = [
    (0, "ids", ['""', '"x"']),
    (1, "owners", []),
    (2, "effects", []),
    (3, "methods", []),
    (4, "paths", []),
    (5, "conditions", ["[]"]),
    (6, "obligations", ["null"]),
]


@pytest.mark.parametrize("value", STRANGE, ids=json.dumps)
@pytest.mark.parametrize(("column", "name", "fine"), [pytest.param(*each, id=each[1]) for each in COLUMNS])
def test_policies_of_another_shape_are_refused(column: int, name: str, fine: list[str], value: Any) -> None:
    document = changed("policies", 0, column, value=value)
    if json.dumps(value) in fine:
        load_shard(json.dumps(document), "ledger")
    elif (column, json.dumps(value)) == (3, '["x"]'):
        assert complaint(document).startswith(
            ("shard.policies: expected only methods", "shard.index: a method")
        )
    elif (column, json.dumps(value)) == (4, '["x"]'):
        load_shard(json.dumps(document), "ledger")  # which paths there are is the tree's
    else:
        assert complaint(document).startswith("shard.policies: ")


def row(name: str, **changes: Any) -> list[Any]:
    members = {
        "owner": 0,
        "effect": "permit",
        "methods": ["*"],
        "paths": ["/v1/**"],
        "conditions": [],
        "asks": None,
    }
    return [name, *(members | changes).values()]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param([row("a"), row("a")], "ids are not in order, or one appears twice", id="an id twice"),
        pytest.param([row("b"), row("a")], "ids are not in order", id="ids out of order"),
        pytest.param([row("a")[:-1]], "seven values", id="a value too few"),
        pytest.param([[*row("a"), None]], "seven values", id="a value too many"),
        pytest.param([row("a"), {}], "expected list", id="an object among them"),
        pytest.param([[]], "seven values", id="an empty one"),
        pytest.param(
            [row("a", owner=1)], "owners: a number that stands for nothing", id="an owner that is not there"
        ),
        pytest.param(
            [row("a", owner=-1)], "owners: a number that stands for nothing", id="the owner before the first"
        ),
        pytest.param([row("a", owner=0.0)], "owners: expected int", id="an owner's number with a point"),
        pytest.param([row("a", owner=False)], "owners: expected int", id="false for an owner's number"),
        pytest.param(
            [row("a", conditions=[9])], "conditions: a number that", id="a condition that is not there"
        ),
        pytest.param(
            [row("a", conditions=[-1])], "conditions: a number that", id="the condition before the first"
        ),
        pytest.param(
            [row("a", conditions=[True])], "conditions: expected int", id="true for a condition's number"
        ),
        pytest.param([row("a", asks=9)], "obligations: a number that", id="an obligation that is not there"),
        pytest.param([row("a", asks=-1)], "obligations: a number that", id="the obligation before the first"),
        pytest.param([row("a", effect="allow")], "an effect is one of", id="an effect that is not known"),
        pytest.param([row("a", effect="permit??")], "an effect is one of", id="two question marks"),
        pytest.param([row("a", effect=["permit"])], "effects: expected str", id="an effect in a list"),
        pytest.param([row("a", methods=[])], "no methods", id="no method"),
        pytest.param([row("a", methods=["get"])], "only methods of", id="a method in small letters"),
        pytest.param([row("a", methods=["TRACE"])], "only methods of", id="a method that the gate refuses"),
        pytest.param([row("a", paths=[])], "no paths", id="no path"),
        pytest.param([row("a", paths=["/", 7])], "paths: expected str", id="a number for a path"),
    ],
)
def test_policies_that_mean_nothing_are_refused(rows: list[Any], message: str) -> None:
    ends = {"*": {"": [number for place in range(len(rows)) for number in (place, 0)]}}
    index = [{"v1": [None, None, None, None, ends]}, None, None, None, None]
    assert message in complaint(good() | {"policies": rows, "index": index})


def test_actions_on_a_resource_are_any_text() -> None:
    target = {"upstreams": [RESOURCE], "methods": ["can_read", "*"], "paths": ["/*"]}
    shard = load(RESOURCE, rule(conditions=[], target=target))
    assert shard.decide(Call(caller(Dice(b"")), Target("any", RESOURCE, ("7",), "/", ""), NOW)).permit


LEAF = [None, None, None, {"*": {"": [0, 0]}}, None]


def ending(ends: Any) -> list[Any]:
    return [{"v1": [None, None, None, None, ends]}, None, None, None, None]


INDEXES = [
    pytest.param([None] * 5, "nowhere in the tree", id="an empty tree"),
    pytest.param([None] * 4, "five values", id="a node of four"),
    pytest.param([None] * 6, "five values", id="a node of six"),
    pytest.param([], "five values", id="a node of none"),
    pytest.param({}, "expected list", id="an object for a node"),
    pytest.param(None, "expected list", id="null for the tree"),
    pytest.param([{"v1": None}, None, None, None, None], "expected list", id="null for a branch"),
    pytest.param([{"v1": 7}, None, None, None, None], "expected list", id="a number for a branch"),
    pytest.param([[LEAF], None, None, None, None], "expected dict", id="a list of branches"),
    pytest.param([None, LEAF[:4], None, None, None], "five values", id="a branch of four"),
    pytest.param([None, {"v1": LEAF}, None, None, None], "expected list", id="names where there are none"),
    pytest.param([None, None, [LEAF], None, None], "expected dict", id="a list of patterns"),
    pytest.param([None, None, None, [0, 0], None], "expected dict", id="ends without methods"),
    pytest.param(ending({"*": [0, 0]}), "expected dict", id="ends without roles"),
    pytest.param(ending({"*": {"": {}}}), "expected list", id="an object for the numbers"),
    pytest.param(ending({"*": {"": [0]}}), "without the number of its path", id="an odd count of numbers"),
    pytest.param(ending({"GET": {"": [0, 0]}}), "a method that no policy names", id="a method of nobody"),
    pytest.param(
        ending({"*": {"": [1, 0]}}), "policies: a number that stands", id="a policy that is not there"
    ),
    pytest.param(
        ending({"*": {"": [-1, 0]}}), "policies: a number that stands", id="the policy before the first"
    ),
    pytest.param(
        ending({"*": {"": [0, 1]}}), "a path that its policy does not have", id="a path that is not there"
    ),
    pytest.param(
        ending({"*": {"": [0, -1]}}), "a path that its policy does not have", id="the path before the first"
    ),
    pytest.param(ending({"*": {"": [0, True]}}), "paths: expected int", id="true for a path's number"),
    pytest.param(ending({"*": {"": [False, 0]}}), "policies: expected int", id="false for a policy's number"),
    pytest.param(ending({"*": {"": [0, 0.0]}}), "paths: expected int", id="a path's number with a point"),
    pytest.param(ending({"*": {"": ["0", 0]}}), "policies: expected int", id="a policy's number in quotes"),
    pytest.param(ending({"*": {"": [NAN, 0]}}), "policies: expected int", id="NaN for a policy's number"),
    pytest.param(ending({"*": {"": []}}), "nowhere in the tree", id="no numbers"),
    pytest.param(ending({"*": {}}), "nowhere in the tree", id="no roles"),
    pytest.param(ending({}), "nowhere in the tree", id="no methods"),
]


@pytest.mark.parametrize(("index", "message"), INDEXES)
def test_indexes_that_are_refused(index: Any, message: str) -> None:
    found = complaint(changed("index", value=index))
    assert found.startswith("shard.index: ")
    assert message in found


def test_an_index_that_leaves_one_path_of_many_out_is_refused() -> None:
    for upstream, document in WHOLE.items():
        taken = deepcopy(document)
        ends = [taken["index"]]
        while not isinstance(ends[-1], dict) or not {"POST", "write"} & ends[-1].keys():
            node = ends.pop(0)
            if isinstance(node, list):
                ends += [
                    branch
                    for part in node[:3]
                    if part
                    for branch in (part.values() if isinstance(part, dict) else [part])
                ]
                ends += [part for part in node[3:] if part]
        by_role = next(iter(ends[-1].values()))
        role = min(by_role)
        by_role[role] = by_role[role][2:]
        assert complaint(taken, upstream).startswith("shard.index: a path of a policy is nowhere")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("null", id="null"),
        pytest.param("[]", id="a list"),
        pytest.param("2", id="a number"),
        pytest.param(canonical(good())[:-1], id="cut short"),
        pytest.param(canonical(good())[: len(canonical(good())) // 2], id="cut in half"),
        pytest.param(canonical(good()) + "}", id="one bracket more"),
        pytest.param(canonical(good()).replace("finance@", "\\ud800"), id="a lone surrogate"),
        pytest.param("\ufeff" + canonical(good()), id="a byte order mark"),
        pytest.param(
            canonical(good()).replace('"format":5', '"format":' + "2" * 5000), id="a number of 5,000 digits"
        ),
        pytest.param(
            canonical(good()).replace('"format":5', '"format":1e999'), id="a number past all numbers"
        ),
    ],
)
def test_text_that_is_no_shard(text: str) -> None:
    assert complaint(text)


def quickly(work: Callable[[], Any], seconds: float = 3) -> Any:
    begun = time.process_time()
    result = work()
    assert time.process_time() - begun < seconds
    return result


DEEP = 100_000


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("[" * DEEP + "]" * DEEP, id="lists"),
        pytest.param('{"a":' * DEEP + "1" + "}" * DEEP, id="objects"),
        pytest.param("[null," * DEEP + "null" + ",null,null,null]" * DEEP, id="nodes"),
        pytest.param("[" * DEEP, id="lists that nobody closes"),
        pytest.param("[" * (DEPTH + 1) + "]" * (DEPTH + 1), id="one level too many"),
        pytest.param('["\\"",' + "[" * DEEP + '"\\\\"' + "]" * DEEP + "]", id="lists between escapes"),
    ],
)
def test_deep_nesting_is_refused_before_it_is_parsed(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(changed("index", value="HERE")).replace('"HERE"', value)
    monkeypatch.setattr("json.loads", None)  # it would be called in vain
    assert quickly(lambda: complaint(text)).startswith(f"nested more than {DEPTH} levels deep")


def test_a_million_policies_are_refused() -> None:
    ids = (f"p{number:06}" for number in range(1_000_000))
    text = '{"policies":[' + ",".join(f'["{name}",0,"permit",["*"],["/"],[],null]' for name in ids) + "]}"
    assert quickly(lambda: complaint(text)) == f"longer than {LIMIT} bytes"


def many(count: int) -> str:
    """A shard of so many policies for everything."""
    rows = [row(f"{number:06}", paths=["/"]) for number in range(count)]
    ends = {"*": {"": [number for place in range(count) for number in (place, 0)]}}
    return canonical(good() | {"policies": rows, "index": [None, None, None, ends, None]})


def test_policies_are_counted() -> None:
    assert complaint(many(MOST_POLICIES + 1)) == f"shard.policies: more than {MOST_POLICIES}"


def test_nodes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MOST_NODES", 1)
    assert complaint(good()).startswith("shard.index: a node is five values, or there are too many")


def test_loading_takes_as_long_as_the_shard_is() -> None:
    load_shard(many(1000), "ledger")
    times = []
    for count in (5_000, 40_000):
        text, begun = many(count), time.process_time()
        assert load_shard(text, "ledger").policies == count
        times.append(time.process_time() - begun)
    assert times[1] < 8 * 4 * times[0] + 0.5


HUGE = "x" * 5_000_000


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        pytest.param(("upstream",), True, id="the upstream"),
        pytest.param(("owners", 0), False, id="an owner"),
        pytest.param(("conditions", 0, 0), True, id="a condition's name"),
        pytest.param(("conditions", 0, 1, 0), False, id="a condition's value"),
        pytest.param(("policies", 0, 0), False, id="an id"),
        pytest.param(("policies", 0, 2), True, id="an effect"),
        pytest.param(("policies", 0, 3, 0), True, id="a method"),
        pytest.param(("policies", 0, 4, 0), False, id="a path"),
        pytest.param(("format",), True, id="the format"),
        pytest.param(("index",), True, id="the tree"),
    ],
)
def test_huge_strings_are_read_or_refused_in_no_time(path: tuple[Any, ...], refused: bool) -> None:
    text = json.dumps(changed(*path, value=HUGE))
    if refused:
        assert len(quickly(lambda: complaint(text))) < 1000
    else:
        shard = quickly(lambda: load_shard(text, "ledger"))
        asked = Call(caller(Dice(b"")), Target("GET", "ledger", ("v1", HUGE), "/", ""), NOW)
        quickly(lambda: shard.decide(asked))


# Whatever is done to a good shard, it's refused with a ValueError, or decides without raising.


def use(text: str, upstream: str, dice: Dice) -> bool:
    """Load it and decide with it. Whether it was accepted."""
    try:
        shard = load_shard(text, upstream)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - or it is used
        return False
    for _ in range(3):
        asked = Call(caller(dice), target(dice, upstream), NOW, dice.of([None, "198.51.100.7"]), "DE")
        shard.decide(asked)
        for policy, route in shard.lookup.reachable(asked.target):
            policy.truth(asked, route)
            for condition in policy.conditions:
                assert condition.name
                condition.seen(asked, frozenset())
    return True


def changed_at_random(scene: Scene, dice: Dice) -> bool:
    document = json.loads(shards(*scene.policies, scene.more)[scene.upstream])
    for _ in range(dice.of([1, 1, 2, 3])):
        mutate(document, dice)
    return use(json.dumps(document), scene.upstream, dice)


@given(SCENES, st.binary(min_size=40, max_size=40))
@settings(max_examples=examples(1500))
def test_a_shard_that_was_changed_is_refused_or_decides(scene: Scene, choices: bytes) -> None:
    changed_at_random(scene, Dice(choices))


def test_of_such_changes_most_are_refused_and_some_accepted() -> None:
    random = Random(1)
    accepted = [
        changed_at_random(made(random.randbytes(160)), Dice(random.randbytes(40)))
        for _ in range(examples(500))
    ]
    assert 0.05 < sum(accepted) / len(accepted) < 0.5


@given(st.sampled_from(sorted(ROWS)), st.binary(min_size=40, max_size=40))
@settings(max_examples=examples(200))
def test_a_large_shard_that_was_changed_is_refused_or_decides(upstream: str, choices: bytes) -> None:
    dice = Dice(choices)
    document = deepcopy(WHOLE[upstream])
    mutate(document, dice)
    use(json.dumps(document), upstream, dice)


@given(
    SCENES,
    st.integers(0),
    st.integers(0, 5),
    st.text(alphabet='{}[]",:\\01a-e.', max_size=4),
    st.binary(min_size=9, max_size=9),
)
@settings(max_examples=examples(500))
def test_a_text_that_was_changed_is_refused_or_decides(
    scene: Scene, place: int, length: int, instead: str, choices: bytes
) -> None:
    text = shards(scene.more)[scene.upstream]
    place %= len(text)
    use(text[:place] + instead + text[place + length :], scene.upstream, Dice(choices))
