"""Policies: which of them a call meets, what they decide together, and that the index decides as a plain scan does."""

import ipaddress
from calendar import monthrange
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from language import SCENES, Dice, Scene, examples, load
from world import NOW, ZONES, rule, shards

from clock import DAYS
from conditions import Call, Truth
from model import Caller, Decision, Identity, Reason, Target
from obligations import NOTHING, Limit, Obligations
from policy import METHODS, MOST_FOUND, Index, Node, Policy, decide

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
    ("/team1*/**", ["/team1", "/team10/x/y"], ["/team2/x"]),
    ("/team1/**", ["/team1", "/team1/x"], ["/team10", "/team10/x"]),
    ("/a*c/d", ["/ac/d", "/abc/d"], ["/ab/d", "/abc"]),
    ("/report.*", ["/report.csv", "/report."], ["/report", "/reportxcsv"]),
]


def call(path: str = "/v1/a", method: str = "GET", roles: str = "") -> Call:
    held = frozenset(roles)
    target = Target(method, "ledger", tuple(path.split("/")[1:]) if path != "/" else (), path, "")
    return Call(Caller(Identity("company", "etl", "workload", held, {}), None, held, {}), target, NOW)


def plain(name: str = "p", *conditions: list[Any], **changes: Any) -> dict[str, Any]:
    """A policy for the ledger: for everything, if nothing else is said."""
    target = {"upstreams": ["ledger"], "methods": ["*"], "paths": ["/**"]}
    target |= {member: changes.pop(member) for member in ("methods", "paths") if member in changes}
    return rule(id=name, owner="o@example.com", conditions=list(conditions), target=target, **changes)


def found(asked: Call, *policies: dict[str, Any]) -> list[tuple[str, str]]:
    """The policies whose target matches, by id, each with the pattern that does."""
    index = load("ledger", *policies).lookup
    reached = [(policy.id, route) for policy, route in index.reachable(asked.target)]
    assert [(policy.id, route) for policy, route in index.candidates(asked.target, "")] == reached
    return reached


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
    assert found(call(path), plain(paths=[pattern])) == [("p", pattern)] * matches
    assert along(pattern, call(path).target.segments) is matches


def test_a_slash_inside_a_segment_separates_nothing() -> None:
    """Segments are what was decoded, so a pattern of two can't match one with a slash in it."""
    asked = Call(call().caller, Target("GET", "ledger", ("a/b",), "/a%2Fb", ""), NOW)
    assert found(asked, plain(paths=["/a/b", "/a/*", "/a*/b"])) == []
    assert found(asked, plain(paths=["/{id}", "/a*"])) == [("p", "/{id}"), ("p", "/a*")]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_star_is_every_method(method: str) -> None:
    assert found(call(method=method), plain("a"), plain("b", methods=["GET"])) == (
        [("a", "/**"), ("b", "/**")] if method == "GET" else [("a", "/**")]
    )


def test_every_pattern_that_matches_is_found_in_the_order_of_ids_and_of_the_author() -> None:
    everywhere = ["/v1/a", "/**", "/v1/*", "/v1/{id}", "/v1/a*", "/v1/**", "/*/a", "/v1/a/"]
    asked = call("/v1/a")
    assert found(asked, plain("b", paths=everywhere), plain("a", paths=everywhere[::-1])) == [
        *(("a", path) for path in everywhere[::-1]),
        *(("b", path) for path in everywhere),
    ]


ROLES = [
    # conditions on roles, the roles among which one must be held for the policy to be looked at
    pytest.param([], [""], id="none asked: looked at for everyone"),
    pytest.param([["subject.roles.any", ["a", "b"]]], ["a", "b"], id="any: for each of them"),
    pytest.param([["subject.roles.all", ["b", "c"]]], ["b"], id="all: for the first of them"),
    pytest.param([["subject.roles.none", ["a"]]], [""], id="none: for everyone"),
    pytest.param(
        [["subject.roles.all", ["a"]], ["subject.roles.any", ["b", "c"]]],
        ["b", "c"],
        id="any comes before all",
    ),
]


@pytest.mark.parametrize("effect", ["permit", "forbid"])
@pytest.mark.parametrize(("rows", "roles"), ROLES)
def test_a_policy_that_asks_for_a_role_costs_nobody_else(
    rows: list[Any], roles: list[str], effect: str
) -> None:
    index = load("ledger", plain("p", *rows, effect=effect)).lookup
    assert [role for role in ("", *"abcd") if index.candidates(call().target, [role])] == (
        ["", *"abcd"] if roles == [""] else roles
    )
    assert len(index.candidates(call().target, "abcd")) == 1
    assert len(index.reachable(call().target)) == 1


def decided(*policies: dict[str, Any], roles: str = "", path: str = "/v1/a", method: str = "GET") -> Decision:
    return load("ledger", *policies).decide(call(path, method, roles))


NOBODY = Decision(False, Reason.POLICY_NO_MATCH)


@pytest.mark.parametrize(
    "policies",
    [
        pytest.param([], id="no policy"),
        pytest.param([rule(target=plain()["target"] | {"upstreams": ["crm"]})], id="for another upstream"),
        pytest.param([plain(methods=["POST"])], id="for another method"),
        pytest.param([plain(paths=["/v2/**"])], id="for another path"),
        pytest.param([plain("p", ["subject.kind", ["human"]])], id="for another kind of caller"),
        pytest.param([plain("p", ["subject.roles.any", ["a"]])], id="for a role that is not held"),
        pytest.param(
            [plain("p", ["subject.claims.any", ["dep"], ["x"]])], id="for a claim that is not there"
        ),
        pytest.param(
            [plain("p", ["subject.kind", ["human"]], effect="forbid")], id="a forbid that does not match"
        ),
    ],
)
def test_deny_by_default(policies: list[dict[str, Any]]) -> None:
    assert decided(*policies) == NOBODY


def test_permits_are_named_in_order_and_the_first_has_the_route_and_the_owner() -> None:
    policies = [
        plain("b") | {"owner": "b@example.com"},
        plain("a", paths=["/v2", "/v1/a", "/v1/*", "/**"]) | {"owner": "a@example.com"},
        plain("c", ["subject.kind", ["human"]]),
    ]
    expected = Decision(True, None, ("a", "b"), (), "/v1/a", "a@example.com", (), True)
    assert decided(*policies) == decided(*policies[::-1]) == expected
    assert expected.policies == ("a", "b")


def test_a_forbid_wins_over_any_permit() -> None:
    forbid = plain("z", effect="forbid") | {"owner": "z@example.com"}
    policies = [plain("a", obligations={"max_body": 1}), forbid, plain("b")]
    decision = decided(*policies)
    assert decision == Decision(
        False, Reason.POLICY_FORBIDDEN, ("a", "b"), ("z",), "/**", "z@example.com", (), False, NOTHING
    )
    assert decision.policies == ("z",)


SHADOWS = [
    # effects in force, effects in shadow; permitted, and would be with the shadows in force
    pytest.param([], ["permit"], False, True, id="a permit to come"),
    pytest.param([], ["forbid"], False, False, id="a forbid to come, where nothing is permitted"),
    pytest.param([], ["permit", "forbid"], False, False, id="both to come"),
    pytest.param(["permit"], ["forbid"], True, False, id="a forbid to come against a permit"),
    pytest.param(["permit"], ["permit"], True, True, id="a permit to come beside another"),
    pytest.param(["permit"], ["permit", "forbid"], True, False, id="both to come beside a permit"),
    pytest.param(["forbid"], ["permit"], False, False, id="a permit to come against a forbid"),
    pytest.param(["permit", "forbid"], ["permit"], False, False, id="a permit to come against both"),
    pytest.param(["permit"], [], True, True, id="no shadow"),
    pytest.param([], [], False, False, id="nothing at all"),
]


@pytest.mark.parametrize(("enforced", "shadows", "permit", "would"), SHADOWS)
def test_a_shadow_policy_is_named_and_changes_nothing(
    enforced: list[str], shadows: list[str], permit: bool, would: bool
) -> None:
    policies = [plain(f"e{number}", effect=effect) for number, effect in enumerate(enforced)]
    trial = [plain(f"s{number}", effect=effect, mode="shadow") for number, effect in enumerate(shadows)]
    decision = decided(*policies, *trial)
    assert (decision.permit, decision.would) == (permit, would)
    assert decision.shadow == tuple(f"s{number}" for number in range(len(shadows)))
    assert decision._replace(shadow=(), would=permit) == decided(*policies)


def test_obligations_of_a_shadow_are_not_asked() -> None:
    decision = decided(plain("a"), plain("b", mode="shadow", obligations={"max_body": 1}))
    assert decision.permit
    assert decision.obligations == NOTHING


CREDENTIALS = [plain(name, obligations={"credential": name}) for name in ("c", "d")]


def test_permits_whose_obligations_exclude_each_other_let_nothing_through() -> None:
    decision = decided(*CREDENTIALS)
    assert (decision.permit, decision.reason, decision.would) == (False, Reason.POLICY_OBLIGATION, False)
    assert (decision.permits, decision.obligations.conflict) == (("c", "d"), "credentials c, d")
    forbidden = decided(*CREDENTIALS, plain("f", effect="forbid"))
    assert (forbidden.reason, forbidden.obligations) == (Reason.POLICY_FORBIDDEN, NOTHING)


@pytest.mark.parametrize(
    ("policies", "permit"),
    [
        pytest.param(
            [CREDENTIALS[0], CREDENTIALS[1] | {"mode": "shadow"}], True, id="one in force, one in shadow"
        ),
        pytest.param([each | {"mode": "shadow"} for each in CREDENTIALS], False, id="both in shadow"),
    ],
)
def test_shadows_that_would_exclude_each_other_would_let_nothing_through(
    policies: list[dict[str, Any]], permit: bool
) -> None:
    decision = decided(*policies)
    assert (decision.permit, decision.would) == (permit, False)


def test_obligations_of_all_permits_that_match_are_merged() -> None:
    decision = decided(
        plain("a", obligations={"max_body": 9, "credential": "c"}),
        plain("b", obligations={"max_body": 5}),
        plain("c", ["subject.kind", ["human"]], obligations={"max_body": 1}),
    )
    assert decision.obligations == Obligations(credential="c", max_body=5)


def test_addresses_that_an_index_keeps_are_bounded() -> None:
    walked: list[str] = []

    class Watched(Index):
        def _walk(self, method: str, segments: tuple[str, ...]) -> Any:
            walked.append(segments[0])
            return super()._walk(method, segments)

    root: Node = [None, [None, None, None, {"GET": {"": [0, 0]}}, None], None, None, None]
    built: list[int] = []

    def build(number: int) -> Policy:
        built.append(number)
        return Policy("p", "", False, False, ("GET",), ("/{id}",), (), None)

    index = Watched(root, {}, build)
    for _ in range(2):
        assert len(index.candidates(call("/0").target, "")) == 1
    assert walked == ["0"]
    for number in range(1, MOST_FOUND + 1):
        assert decide(index, call(f"/{number}")).permit
    assert len(walked) == MOST_FOUND + 1
    assert decide(index, call("/0")).permit
    assert walked[-1] == "0"  # it had to make room
    assert built == [0]  # a policy is built once


# From here on: a plain scan over all policies, written from the reference and not from the code.


def like(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return like(pattern[1:], text) or (text != "" and like(pattern, text[1:]))
    return text != "" and text[0] == pattern[0] and like(pattern[1:], text[1:])


def along(pattern: str, segments: tuple[str, ...]) -> bool:
    parts = [part for part in pattern.split("/") if part]
    if parts and parts[-1] == "**":
        parts.pop()
        segments = segments[: len(parts)]
    return len(parts) == len(segments) and all(
        part.startswith("{") or like(part, segment) for part, segment in zip(parts, segments, strict=True)
    )


def holds(quantifier: str, asked: list[str], held: Any) -> bool:
    if quantifier == "any":
        return any(value in held for value in asked)
    if quantifier == "all":
        return all(value in held for value in asked)
    return not any(value in held for value in asked)


class Scan:
    """The oracle: every policy, every path, every condition, and nothing remembered."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.caller, self.target = scene.caller, scene.target
        self.identity = scene.caller.identity

    def decide(self) -> Decision:
        matching = [
            (policy, path)
            for policy in sorted(self.scene.policies, key=lambda each: str(each["id"]))
            for path in self.routes(policy)
            if self.truth(policy, path) in ((True, None) if policy["effect"] == "forbid" else (True,))
        ]
        shadows = [policy for policy, _ in matching if policy["mode"] == "shadow"]
        permits, forbids = (
            [pair for pair in matching if (pair[0]["effect"], pair[0]["mode"]) == (effect, "enforce")]
            for effect in ("permit", "forbid")
        )
        effects = {policy["effect"] for policy, _ in matching}
        every = self.obliged([policy for policy, _ in matching if policy["effect"] == "permit"])
        asked = self.obliged([policy for policy, _ in permits]) if not forbids else NOTHING
        nobody: list[tuple[dict[str, Any], Any]] = [({"owner": None}, None)]
        policy, route = (forbids or permits or nobody)[0]
        return Decision(
            bool(permits) and not forbids and not asked.conflict,
            Reason.POLICY_FORBIDDEN
            if forbids
            else Reason.POLICY_NO_MATCH
            if not permits
            else Reason.POLICY_OBLIGATION
            if asked.conflict
            else None,
            tuple(sorted({each["id"] for each, _ in permits})),
            tuple(sorted({each["id"] for each, _ in forbids})),
            route,
            policy["owner"],
            tuple(sorted({each["id"] for each in shadows})),
            effects == {"permit"} and not every.conflict,
            asked,
        )

    def routes(self, policy: dict[str, Any]) -> list[str]:
        target = policy["target"]
        if "*" not in target["methods"] and self.target.method not in target["methods"]:
            return []
        return [path for path in target["paths"] if along(path, self.target.segments)]

    def truth(self, policy: dict[str, Any], route: str) -> Truth:
        truths = [self.meaning(row, policy["effect"] == "forbid", route) for row in policy["conditions"]]
        return False if False in truths else None if None in truths else True

    @staticmethod
    def obliged(permits: list[dict[str, Any]]) -> Obligations:
        asked = [(each["id"], each["obligations"]) for each in permits if each["obligations"]]
        limits: dict[Any, set[int]] = {}
        for name, each in asked:
            for limit in each.get("rate_limit", []):
                key = (limit["per"], tuple(limit["by"]), name if "policy" in limit["by"] else "")
                limits.setdefault(key, set()).add(limit["limit"])
        credentials = {each["credential"] for _, each in asked if "credential" in each}
        required = [each["require"] for _, each in asked if "require" in each]
        known = {"rate_limit", "credential", "max_body", "require"}
        spelled = {"asking": '{"about":"any","trust":["claims","roles"]}'}
        others = {
            (name, spelled.get(name, {list: '["a",{"b":null}]', bool: "true"}.get(type(value), "")))
            for _, each in asked
            for name, value in each.items()
            if name not in known
        }
        return Obligations(
            tuple(Limit(min(limits[key]), *key) for key in sorted(limits)),
            credentials.pop() if len(credentials) == 1 else None,
            min((each["max_body"] for _, each in asked if "max_body" in each), default=None),
            tuple(sorted({name.lower() for each in required for name in each["headers"]})),
            any(each["justification"] for each in required),
            tuple(sorted(others)),
            "credentials reader, writer" if len(credentials) == 2 else "",
        )

    def meaning(self, row: list[Any], forbids: bool, route: str) -> Truth:
        held: Any
        match row[0].split("."), row[1:]:
            case ["subject", "roles", quantifier], [asked]:
                return self.roles(quantifier, asked, forbids)
            case ["subject", "claims", quantifier], [path, asked]:
                held = self.identity.claims.get(tuple(path))
                return None if held is None else holds(quantifier, asked, held)
            case ["subject", "dpop"], [asked]:
                return bool(self.identity.jkt) is asked
            case ["subject", "delegated"], [asked]:
                return bool(self.identity.actor) is asked
            case ["subject", name], [asked]:
                identity = self.identity
                value = {"issuer": identity.issuer, "id": identity.subject, "kind": identity.kind}[name]
                return value in asked
            case ["workload", name, *quantifier], [asked, attested]:
                if self.identity.kind == "human":
                    return False
                fact = self.fact(name, attested)
                if fact is None:
                    return None
                if quantifier:
                    return holds(quantifier[0], asked, fact)
                return any(like(pattern, str(fact)) for pattern in asked)
            case ["target", "query", quantifier], [name, asked]:
                held = self.parameter(name)
                return None if held is None else holds(quantifier, asked, held)
            case ["target", "properties", quantifier], [name, asked]:
                held = self.target.properties.get(name)
                return None if held is None else holds(quantifier, asked, held)
            case ["target", "ids"], [asked]:
                return any(like(pattern, self.target.segments[0]) for pattern in asked)
            case ["when", "time"], [zone, days, start, end, *month_days]:
                return self.time(ZONES[zone], days, start, end, *month_days)
            case ["when", "dates"], [start, until]:
                return not (start and self.scene.now < start) and not (until and self.scene.now >= until)
            case ["when", "ip"], [ranges]:
                return self.ip(ranges)
            case ["when", "country"], [asked]:
                return None if self.scene.country is None else self.scene.country in asked
            case ["when", "equals"], [left, right, attested]:
                if self.identity.kind == "human" and "workload" in (left + right):
                    return False
                pair = [self.attribute(name, attested, route) for name in (left, right)]
                if any(values is None or len(values) > 1 for values in pair):
                    return None
                return pair[0] == pair[1] != []
        raise AssertionError(row)

    def roles(self, quantifier: str, asked: list[str], forbids: bool) -> Truth:
        used = self.identity.granted if forbids or quantifier == "none" else self.caller.effective
        certain = holds(quantifier, asked, used)
        # Were the unknown ones held, would it be another answer?
        return certain if holds(quantifier, asked, used | self.identity.unknown) is certain else None

    def fact(self, name: str, attested: bool) -> Any:
        fact = self.caller.workload.get(name)
        return None if fact is None or (attested and not fact.attested) else fact.value

    def parameter(self, wanted: str) -> list[str] | None:
        query = self.target.query[1:]
        if ";" in query:
            return None
        try:
            readings = [
                parse_qsl(text, keep_blank_values=True, errors="strict")
                for text in (query, query.replace("+", "%2B"))
            ]
        except UnicodeDecodeError:
            return None
        if any("+" in name for name, _ in readings[1]):
            return None
        alike = [
            [pair for pair in reading if pair[0].lower().split("[")[0] == wanted.lower()]
            for reading in readings
        ]
        if alike[0] != alike[1] or len(alike[0]) > 1 or any(name != wanted for name, _ in alike[0]):
            return None
        return [value for _, value in alike[0]]

    def time(
        self, zone: dict[str, Any], days: list[str], start: int, end: int, month_days: list[int] | None = None
    ) -> Truth:
        offset = None
        for begin, seconds in zip(zone["starts"], zone["offsets"], strict=True):
            if begin <= self.scene.now < zone["until"]:
                offset = seconds
        if offset is None:
            return None
        wall = datetime(1970, 1, 1) + timedelta(seconds=self.scene.now + offset)  # noqa: DTZ001 - a clock on the wall
        for back in (0, 1):  # a window that began today, or yesterday
            begun = wall.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=back)
            length = end - start if end > start else end - start + 1440
            begin = begun + timedelta(minutes=start)
            last = monthrange(begun.year, begun.month)[1]
            if month_days and not {begun.day, begun.day - last - 1} & {*month_days}:
                continue
            if DAYS[begun.weekday()] in days and begin <= wall < begin + timedelta(minutes=length):
                return True
        return False

    def ip(self, ranges: list[str]) -> Truth:
        try:
            address = ipaddress.ip_address(self.scene.client or "")
        except ValueError:
            return None
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in ipaddress.ip_network(text) for text in ranges)

    def attribute(self, attribute: str, attested: bool, route: str) -> list[str] | None:
        values: Any
        match attribute.split("."):
            case ["query", name]:
                return self.parameter(name)
            case ["workload", name]:
                value = self.fact(name, attested)
                values = None if value is None else [value]
            case ["subject", ("id" | "issuer" | "kind") as name]:
                values = [getattr(self.identity, {"id": "subject"}.get(name, name))]
            case ["subject", name]:
                values = self.identity.claims.get((name,))
            case ["resource", name] if self.target.upstream.startswith("resource:"):
                values = [self.target.segments[0]] if name == "id" else self.target.properties.get(name)
            case ["resource", name]:
                parts = dict(zip(route.split("/")[1:], self.target.segments, strict=False))
                values = [parts["{" + name + "}"]] if "{" + name + "}" in parts else None
            case _:
                raise AssertionError(attribute)
        return None if values is None else list(values)


# Two permits whose obligations exclude each other are none; with one of them left, there is one again.
CONFLICT = Reason.POLICY_OBLIGATION


@given(SCENES)
@settings(max_examples=examples(3000))
def test_the_index_decides_what_a_plain_scan_decides(scene: Scene) -> None:
    """And every condition of every policy means what the scan says, whether or not it counts."""
    scan, call, shard = Scan(scene), scene.call, load(scene.upstream, *scene.policies)
    assert shard.decide(call) == scan.decide()
    assert [
        (policy.id, route, policy.truth(call, route)) for policy, route in shard.lookup.reachable(call.target)
    ] == [
        (policy["id"], route, scan.truth(policy, route))
        for policy in sorted(scene.policies, key=lambda each: str(each["id"]))
        for route in scan.routes(policy)
    ]


@given(SCENES)
@settings(max_examples=examples(1000))
def test_one_more_permit_that_asks_nothing_never_takes_access_away(scene: Scene) -> None:
    before = scene.decide()
    after = scene.decide(scene.more | {"effect": "permit", "obligations": None})
    assert after.permit or not before.permit
    assert after.would or not before.would
    assert after.obligations == before.obligations


@given(SCENES)
@settings(max_examples=examples(1000))
def test_one_more_forbid_never_gives_access(scene: Scene) -> None:
    before = scene.decide()
    after = scene.decide(scene.more | {"effect": "forbid", "obligations": None})
    assert before.permit or not after.permit
    assert before.would or not after.would
    assert set(before.forbids) <= set(after.forbids)


@given(SCENES)
@settings(max_examples=examples(1000))
def test_a_role_tag_never_widens(scene: Scene) -> None:
    identity = scene.caller.identity
    untagged = scene._replace(caller=scene.caller._replace(effective=identity.granted))
    before, after = untagged.decide(), scene.decide()
    assert before.permit or not after.permit or before.reason is CONFLICT
    assert set(after.permits) <= set(before.permits)
    assert after.forbids == before.forbids  # dropping a role never escapes a forbid


@given(SCENES)
@settings(max_examples=examples(1000))
def test_shadow_policies_never_change_a_decision(scene: Scene) -> None:
    enforced = scene._replace(policies=[each for each in scene.policies if each["mode"] == "enforce"])
    every = scene._replace(policies=[each | {"mode": "enforce"} for each in scene.policies])
    decision, without = scene.decide(), enforced.decide()
    assert decision._replace(shadow=(), would=without.would) == without
    assert without.would is without.permit
    assert decision.would is every.decide().permit  # and say what they would do


@given(SCENES, st.binary(min_size=4, max_size=4))
@settings(max_examples=examples(1000))
def test_order_means_nothing(scene: Scene, seed: bytes) -> None:
    """Neither that of the policies, nor that of one's conditions and methods."""
    random = Random(seed)
    shuffled = [each | {"conditions": list(each["conditions"])} for each in scene.policies]
    random.shuffle(shuffled)
    assert shards(*shuffled) == shards(*scene.policies)
    for each in shuffled:
        random.shuffle(each["conditions"])
        each["target"] = each["target"] | {"methods": each["target"]["methods"][::-1]}
    assert scene._replace(policies=shuffled).decide() == scene.decide()


@given(SCENES)
@settings(max_examples=examples(500))
def test_the_order_of_paths_means_nothing_but_for_the_route_that_is_named(scene: Scene) -> None:
    turned = [
        each | {"target": each["target"] | {"paths": each["target"]["paths"][::-1]}}
        for each in scene.policies
    ]
    decision = scene.decide()
    assert scene._replace(policies=turned).decide()._replace(route=decision.route) == decision


def without(scene: Scene, dice: Dice) -> Scene:
    """The call, with something left out that is not known as a whole."""
    caller, target = scene.caller, scene.target
    identity = caller.identity
    role = dice.of("abc")
    leave: list[Callable[[], Scene]] = [
        lambda: scene._replace(client=None),
        lambda: scene._replace(country=None),
        lambda: scene._replace(now=4e9, policies=[each for each in scene.policies if not dated(each)]),
        lambda: scene._replace(target=target._replace(properties={})),
        lambda: scene._replace(caller=caller._replace(workload={})),
        lambda: scene._replace(caller=caller._replace(identity=identity._replace(claims={}))),
        lambda: scene._replace(
            caller=caller._replace(
                identity=identity._replace(
                    granted=identity.granted - {role}, unknown=identity.unknown | {role}
                ),
                effective=caller.effective - {role},
            )
        ),
    ]
    for name in caller.workload:
        rest = {field: fact for field, fact in caller.workload.items() if field != name}
        leave.append(lambda rest=rest: scene._replace(caller=caller._replace(workload=rest)))  # type: ignore[misc]
    return dice.of(leave)()


def dated(policy: dict[str, Any]) -> bool:
    return any(row[0] == "when.dates" for row in policy["conditions"])


@given(SCENES, st.binary(min_size=2, max_size=2))
@settings(max_examples=examples(1000))
def test_what_is_left_out_never_opens_the_gate(scene: Scene, choices: bytes) -> None:
    after = without(scene, Dice(choices))
    before, left = scene._replace(policies=after.policies).decide(), after.decide()
    assert before.permit or not left.permit or before.reason is CONFLICT
    assert set(left.permits) <= set(before.permits)
    assert set(before.forbids) <= set(left.forbids)


# What a grant lends.

NAMING = ("subject.issuer", "subject.id", "subject.kind")
NAMING += tuple(
    f"subject.{what}.{quantifier}" for what in ("roles", "claims") for quantifier in ("any", "all")
)


def for_whomever(policy: dict[str, Any]) -> dict[str, Any]:
    """A policy without what it says of who it is for."""
    return policy | {"conditions": [row for row in policy["conditions"] if row[0] not in NAMING]}


def lending(scene: Scene, *names: str) -> Decision:
    return load(scene.upstream, *scene.policies).decide(scene.call, frozenset(names))


@given(SCENES, st.integers(0, 3))
@settings(max_examples=examples(1000))
def test_a_lent_permit_is_one_that_says_nothing_of_who_it_is_for(scene: Scene, count: int) -> None:
    names = [str(policy["id"]) for policy in scene.policies][:count]
    changed = [
        for_whomever(policy)
        if policy["id"] in names and (policy["effect"], policy["mode"]) == ("permit", "enforce")
        else policy
        for policy in scene.policies
    ]
    expected, found = scene._replace(policies=changed).decide(), lending(scene, *names)
    assert set(found.permits) == set(expected.permits)
    assert len(found.permits) == len(expected.permits)
    assert (found.reason, found.forbids, found.shadow, found.would, found.obligations) == (
        expected.reason,
        expected.forbids,
        expected.shadow,
        expected.would,
        expected.obligations,
    )


@given(SCENES)
@settings(max_examples=examples(500))
def test_lending_every_policy_never_lifts_a_forbid(scene: Scene) -> None:
    before, after = scene.decide(), lending(scene, *[str(policy["id"]) for policy in scene.policies])
    assert after.forbids == before.forbids
    assert set(before.permits) <= set(after.permits)
    assert after.permit or not before.permit or after.reason is CONFLICT
    assert lending(scene, "unheard-of") == before
