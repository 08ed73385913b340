"""The compiler's side of a shard: what policies share is written once, and every path of theirs is in the tree."""

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from language import SCENES, Scene
from world import ZONES

from airgate.policy.index import Rule, canonical, rules, segments, shard, tree


def policy(name: str = "p", **changes: Any) -> Rule:
    members: dict[str, Any] = {
        "owner": "o@example.com",
        "effect": "permit",
        "shadow": False,
        "methods": ["GET"],
        "paths": ["/v1"],
        "conditions": [],
    }
    return Rule(name, **(members | changes))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/", []),
        ("/**", ["**"]),
        ("/v1", ["v1"]),
        ("/v1/", ["v1"]),
        ("/v1//", ["v1", ""]),
        ("/v1/{id}/*", ["v1", "{id}", "*"]),
    ],
)
def test_segments(pattern: str, expected: list[str]) -> None:
    assert segments(pattern) == expected


HERE, LEAF = {"GET": {"": [0, 0]}}, [None, None, None, {"GET": {"": [0, 0]}}, None]
ROLES = "subject.roles."
TREES = [
    pytest.param(policy(paths=["/"]), [None, None, None, HERE, None], id="the root"),
    pytest.param(policy(paths=["/**"]), [None, None, None, None, HERE], id="everything"),
    pytest.param(policy(paths=["/v1"]), [{"v1": LEAF}, None, None, None, None], id="a literal segment"),
    pytest.param(policy(paths=["/{id}"]), [None, LEAF, None, None, None], id="a placeholder"),
    pytest.param(policy(paths=["/*"]), [None, LEAF, None, None, None], id="a star"),
    pytest.param(policy(paths=["/a*"]), [None, None, {"a*": LEAF}, None, None], id="a star inside a segment"),
    pytest.param(
        policy(paths=["/v1/**"]),
        [{"v1": [None, None, None, None, HERE]}, None, None, None, None],
        id="everything below a segment",
    ),
    pytest.param(
        policy(paths=["/v1", "/v1/"]),
        [{"v1": [None, None, None, {"GET": {"": [0, 0, 0, 1]}}, None]}, None, None, None, None],
        id="two paths that end in one place",
    ),
    pytest.param(
        policy(paths=["/"], methods=["GET", "PUT"]),
        [None, None, None, {"GET": {"": [0, 0]}, "PUT": {"": [0, 0]}}, None],
        id="two methods",
    ),
    pytest.param(
        policy(paths=["/"], conditions=[[f"{ROLES}any", ["a", "b"]], [f"{ROLES}all", ["c"]]]),
        [None, None, None, {"GET": {"a": [0, 0], "b": [0, 0]}}, None],
        id="any of two roles",
    ),
    pytest.param(
        policy(paths=["/"], conditions=[[f"{ROLES}all", ["c", "d"]], [f"{ROLES}none", ["e"]]]),
        [None, None, None, {"GET": {"c": [0, 0]}}, None],
        id="all of two roles: the first will do",
    ),
    pytest.param(
        policy(paths=["/"], conditions=[[f"{ROLES}none", ["e"]], ["subject.kind", ["human"]]]),
        [None, None, None, HERE, None],
        id="no role needed",
    ),
]


@pytest.mark.parametrize(("rule", "expected"), TREES)
def test_trees(rule: Rule, expected: Any) -> None:
    assert tree([rule]) == expected


def test_what_policies_share_is_written_once() -> None:
    human, night = ["subject.kind", ["human"]], ["when.time", "Europe/Berlin", ["mon"], 1320, 360]
    made = shard(
        "ledger",
        [
            policy("b", owner="b@example.com", conditions=[night, human], obligations={"max_body": 1}),
            policy("a", effect="forbid", shadow=True, conditions=[human], paths=["/**", "/v1"]),
            policy("c", owner="b@example.com", obligations={"max_body": 1}, methods=["*"]),
            policy("d", obligations={}),
        ],
        ZONES,
    )
    ends = {"GET": {"": [0, 1, 1, 0, 3, 0]}, "*": {"": [2, 0]}}
    assert made == {
        "format": 5,
        "upstream": "ledger",
        "owners": ["b@example.com", "o@example.com"],
        "zones": {"Europe/Berlin": ZONES["Europe/Berlin"]},
        "conditions": [human, night],
        "obligations": [{"max_body": 1}],
        "policies": [
            ["a", 1, "forbid?", ["GET"], ["/**", "/v1"], [0], None],
            ["b", 0, "permit", ["GET"], ["/v1"], [1, 0], 0],
            ["c", 0, "permit", ["*"], ["/v1"], [], 0],
            ["d", 1, "permit", ["GET"], ["/v1"], [], None],
        ],
        "index": [{"v1": [None, None, None, ends, None]}, None, None, None, {"GET": {"": [0, 0]}}],
    }


def test_of_no_policies_there_is_a_shard_too() -> None:
    made = shard("-", [], ZONES)
    assert (made["policies"], made["zones"], made["index"]) == ([], {}, [None] * 5)


def places(node: Any, way: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str, str, int, int]]:
    """Everything that a tree holds: the way to it, method, role, number of the policy and of its path."""
    literal, one, globs, here, below = node
    found = [
        ((*way, *beyond), method, role, number, path)
        for ends, beyond in ((here, ()), (below, ("**",)))
        for method, by_role in (ends or {}).items()
        for role, numbers in by_role.items()
        for number, path in zip(numbers[::2], numbers[1::2], strict=True)
    ]
    for segment, branch in {**(literal or {}), **(globs or {}), **({"*": one} if one else {})}.items():
        found += places(branch, (*way, segment))
    return found


def ruled(scene: Scene) -> list[Rule]:
    return [
        Rule(
            each["id"],
            each["owner"],
            each["effect"],
            each["mode"] == "shadow",
            each["target"]["methods"],
            each["target"]["paths"],
            each["conditions"],
            each["obligations"],
        )
        for each in scene.policies
    ]


@given(SCENES)
@settings(max_examples=1000)
def test_every_path_of_every_policy_is_in_its_place(scene: Scene) -> None:
    ordered = sorted(ruled(scene), key=lambda rule: rule.id)
    expected = []
    for number, rule in enumerate(ordered):
        asked = {row[0]: row[1] for row in rule.conditions}
        roles = asked.get("subject.roles.any") or asked.get("subject.roles.all", [""])[:1]
        for place, path in enumerate(rule.paths):
            way = tuple("*" if part.startswith("{") else part for part in path.split("/") if part)
            expected += [(way, method, role, number, place) for method in rule.methods for role in roles]
    assert sorted(places(tree(ordered))) == sorted(expected)


@given(SCENES)
@settings(max_examples=500)
def test_a_shard_holds_the_rules_it_was_made_from_in_any_order(scene: Scene) -> None:
    made = ruled(scene)
    written = shard(scene.upstream, made, ZONES)
    assert rules(written) == sorted(made, key=lambda rule: rule.id)
    Random(len(made)).shuffle(made)
    assert canonical(shard(scene.upstream, iter(made), ZONES)) == canonical(written)


def test_json_has_one_spelling() -> None:
    assert canonical({"b": [1, True, None], "ä": "\n", "a": {}}) == '{"a":{},"b":[1,true,null],"ä":"\\n"}'
    with pytest.raises(ValueError, match="JSON"):
        canonical(float("nan"))
