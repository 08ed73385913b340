"""From a bundle and its shards back to a seed: what somebody could have written to get them.

It is for comparing with what is in force, of which only the bundle is at hand. Names of files, descriptions and the
spelling that an author has chosen are not in a bundle.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from airgate.engine import RESOURCE
from airgate.policy import limits
from airgate.policy.index import Rule
from airgate.policy.seed import Entry, Seed
from airgate.policy.source import Source
from airgate.policy.text import policy

_LENGTHS = frozenset(
    {"max_lifetime", "clock_skew", "timeout", "total_timeout", "max_age", "open", "lifetime"}
)


def decompile(
    bundle: Mapping[str, Any], rules: Mapping[str, Iterable[Rule]], descriptions: Mapping[str, str]
) -> Seed:
    """`rules`: by upstream. `descriptions`: by `policy NAME` and `role NAME`; a bundle has none."""
    sections: dict[str, dict[str, dict[str, Any]]] = {
        "issuers": {name: issuer(each) for name, each in bundle["issuers"].items()},
        "roles": {
            name: {"description": descriptions.get(f"role {name}", ""), "granted_to": grants}
            for name, grants in bundle["roles"].items()
        },
        "upstreams": {name: upstream(each) for name, each in bundle["upstreams"].items()},
        "policies": {
            name: policy(rule, where, descriptions.get(f"policy {name}", ""))
            for name, (rule, where) in _by_name(rules).items()
        },
    }
    source = Source("bundle")
    entries = {
        section: {name: Entry(source, (section, name), data) for name, data in each.items()}
        for section, each in sections.items()
    }
    return Seed(Path(), entries["issuers"], entries["roles"], entries["upstreams"], entries["policies"])


def summaries(rules: Mapping[str, Iterable[Rule]]) -> dict[str, str]:
    """Of policies that have no description at hand, what they are about: `POST on ledger /v1/entries`."""
    return {f"policy {name}": _summary(rule, where) for name, (rule, where) in _by_name(rules).items()}


def issuer(compiled: Mapping[str, Any]) -> dict[str, Any]:
    """An issuer as it could have been written."""
    written = _written(compiled)
    written["kind"] = {name: value for name, value in compiled["kind"].items() if value}
    return written


def upstream(compiled: Mapping[str, Any]) -> dict[str, Any]:
    """An upstream as it could have been written."""
    written = _written(compiled)
    written["breaker"] = _written(compiled["breaker"]) if compiled["breaker"] is not None else False
    if compiled["cors"] is not None:
        written["cors"] = _written(compiled["cors"])
    if compiled["max_body"] is not None:
        written["max_body"] = limits.written(compiled["max_body"])
    if compiled["credentials"]:
        written["credentials"] = {name: _credential(each) for name, each in compiled["credentials"].items()}
    return written


def _credential(compiled: Mapping[str, Any]) -> dict[str, Any]:
    written = _written(compiled)
    if "scope" in written:
        written["scope"] = written["scope"].split(" ")
    return written


def _by_name(rules: Mapping[str, Iterable[Rule]]) -> dict[str, tuple[Rule, list[str]]]:
    """Each rule, and the upstreams in whose shards it is."""
    named: dict[str, tuple[Rule, list[str]]] = {}
    for where, each in sorted(rules.items()):
        for rule in each:
            named.setdefault(rule.id, (rule, []))[1].append(where)
    return named


def _summary(rule: Rule, upstreams: list[str]) -> str:
    what = "" if upstreams[0].startswith(RESOURCE) else f" {', '.join(rule.paths)}"
    return f"{', '.join(rule.methods)} on {', '.join(upstreams)}{what}"


def _written(compiled: Mapping[str, Any]) -> dict[str, Any]:
    """Members that say something, with lengths of time in seconds."""
    return {
        name: f"{value}s" if name in _LENGTHS and type(value) is int else value
        for name, value in compiled.items()
        if value is not None and value not in ([], {})
    }
