"""From compiled policies to the shard of one upstream: what they share is written once, and a tree finds them by path.

The tree: segment by segment of the path patterns, then the method, then the role without which a policy can't match.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

FORMAT = 5  # of bundles and shards; a Worker reads this one and the one before

Row = list[Any]
Node = list[Any]  # [literal | None, one | None, globs | None, ends here | None, ends below | None]


@dataclass(frozen=True)
class Rule:
    """One policy, compiled: what a shard holds of it, in the words of docs/kv-schema.md."""

    id: str
    owner: str
    effect: str  # permit | forbid
    shadow: bool
    methods: list[str]  # actions, for an AuthZEN resource
    paths: list[str]
    conditions: list[Row]  # subject, workload, target, when
    obligations: dict[str, Any] | None = None


_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: object) -> str:
    """JSON with one spelling: keys sorted, no spaces, characters as they are. Its UTF-8 bytes are hashed."""
    return _JSON.encode(value)


_ENCODED_SLASH = re.compile("%2[fF]")


def decoded(segment: str) -> str:
    """A segment of a pattern as it is compared: %2F, the only octet that may be encoded there, is a slash."""
    return _ENCODED_SLASH.sub("/", segment)


def segments(pattern: str) -> list[str]:
    """A path pattern's segments, decoded; `/` has none, and one slash at the end means nothing."""
    bare = pattern.removesuffix("/")
    parts = bare.split("/")[1:] if bare else []
    return [decoded(part) for part in parts] if "%" in bare else parts


def shard(upstream: str, rules: Iterable[Rule], zones: dict[str, Any]) -> dict[str, Any]:
    """The document that the gate decides calls to `upstream` by. `zones`: those that the rules name, at least."""
    ordered = sorted(rules, key=lambda rule: rule.id)
    owners = {owner: number for number, owner in enumerate(sorted({rule.owner for rule in ordered}))}
    conditions = _Table(row for rule in ordered for row in rule.conditions)
    obligations = _Table(rule.obligations for rule in ordered if rule.obligations)
    named = {row[1] for row in conditions.values if row[0] == "when.time"}
    return {
        "format": FORMAT,
        "upstream": upstream,
        "owners": list(owners),
        "zones": {name: zones[name] for name in sorted(named)},
        "conditions": conditions.values,
        "obligations": obligations.values,
        "policies": [
            [
                rule.id,
                owners[rule.owner],
                rule.effect + "?" * rule.shadow,
                rule.methods,
                rule.paths,
                [conditions.number(row) for row in rule.conditions],
                obligations.number(rule.obligations) if rule.obligations else None,
            ]
            for rule in ordered
        ],
        "index": tree(ordered),
    }


def rules(document: dict[str, Any]) -> list[Rule]:
    """The rules that a shard holds: what `shard` was made from."""
    owners, conditions, obligations = (document[name] for name in ("owners", "conditions", "obligations"))
    return [
        Rule(
            id,
            owners[owner],
            effect.removesuffix("?"),
            effect.endswith("?"),
            methods,
            paths,
            [conditions[number] for number in numbers],
            None if obliged is None else obligations[obliged],
        )
        for id, owner, effect, methods, paths, numbers, obliged in document["policies"]  # noqa: A001
    ]


@dataclass
class _Table:
    """Values written once, in the order of their JSON."""

    each: Iterable[Any]
    values: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        by_text = {canonical(value): value for value in self.each}
        texts = sorted(by_text)
        self.values = [by_text[text] for text in texts]
        self._numbers = {text: number for number, text in enumerate(texts)}

    def number(self, value: object) -> int:
        return self._numbers[canonical(value)]


def tree(rules: Sequence[Rule]) -> Node:
    """The rules by path, method and role. Their numbers are their places in the list."""
    root: Node = [None] * 5
    for number, rule in enumerate(rules):
        roles = _roles(rule)
        for place, path in enumerate(rule.paths):
            ends = _ends(root, segments(path))
            for method in rule.methods:
                by_role = ends.setdefault(method, {})
                for role in roles:
                    by_role.setdefault(role, []).extend((number, place))
    return root


def _ends(root: Node, patterns: list[str]) -> dict[str, dict[str, list[int]]]:
    node = root
    for pattern in patterns:
        if pattern == "**":
            node[4] = node[4] or {}
            below: dict[str, dict[str, list[int]]] = node[4]
            return below
        if pattern == "*" or pattern.startswith("{"):
            node[1] = node[1] or [None] * 5
            node = node[1]
            continue
        branch = 2 if "*" in pattern else 0
        node[branch] = node[branch] or {}
        node = node[branch].setdefault(pattern, [None] * 5)
    node[3] = node[3] or {}
    here: dict[str, dict[str, list[int]]] = node[3]
    return here


def _roles(rule: Rule) -> list[str]:
    """Roles of which a caller must hold one for the rule to be able to match; [""]: none is needed."""
    asked = {row[0]: row[1] for row in rule.conditions if row[0].startswith("subject.roles.")}
    if any_of := asked.get("subject.roles.any"):
        return list(any_of)
    if all_of := asked.get("subject.roles.all"):
        return [min(all_of)]
    return [""]
