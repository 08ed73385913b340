"""A rule printed back as the policy that a person would have written. Compiling that gives the same rule."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from airgate.engine import BY, DAYS, NAMED, RESOURCE
from airgate.policy import limits, when
from airgate.policy.index import Row, Rule
from airgate.policy.source import UNSEEN, plain

WIDTH = 110
NOT_PUBLISHED = "descriptions are not published"

_BARE = re.compile(r"[A-Za-z_/]([A-Za-z0-9 _./@()'-]*[A-Za-z0-9_/@)])?|[1-9][0-9]*(s|[KM]?i?B)")
_OTHERWISE = frozenset({"yes", "no", "on", "off", "y", "n"})  # text here, and something else to older readers
_DAY = 86_400
_PERIODS = {seconds: word for word, seconds in limits.PERIODS.items()}

Policy = dict[str, Any]


def as_yaml(rule: Rule, upstreams: Sequence[str], description: str = NOT_PUBLISHED) -> str:
    """One item of a seed's `policies`, indented as it stands there. `upstreams`: those whose shards hold the rule."""
    lines = []
    for key, value in policy(rule, upstreams, description).items():
        lines += _member(key, value, "    ", nested=True)
    lines[0] = "  - " + lines[0].lstrip()
    return "\n".join(lines) + "\n"


def policy(rule: Rule, upstreams: Sequence[str], description: str = NOT_PUBLISHED) -> Policy:
    """A rule as the value that a seed holds."""
    rows: dict[str, list[Row]] = {}
    for row in rule.conditions:
        name = row[0]
        for several in ("subject.claims", "target.query", "target.properties"):
            name = several if name.startswith(several + ".") else name
        rows.setdefault(name, []).append(row)
    obligations = dict(rule.obligations or {})
    asking, exchange = obligations.pop("asking", None), obligations.pop("exchange", None)
    said: Policy = {
        "id": rule.id,
        "description": description,
        "owner": rule.owner,
        "effect": rule.effect,
        "mode": "shadow" if rule.shadow else None,
        "subject": {
            **{
                name: _one(rows[f"subject.{name}"])
                for name in ("issuer", "id", "kind")
                if f"subject.{name}" in rows
            },
            **{
                name: rows[f"subject.{name}"][0][1]
                for name in ("dpop", "delegated")
                if f"subject.{name}" in rows
            },
            **_quantified("roles", "subject.roles", rows),
            "claims": _items("claim", rows.get("subject.claims")),
        },
        "workload": _workload(rows),
        "target": _target(rule, upstreams, rows),
        "when": _when(rows),
        "obligations": _obligations(obligations),
        "asking": asking and {"about": asking["about"], "trust": asking["trust"]},
        "exchange": exchange and _exchange(exchange),
    }
    # An obligation's value may be anything, nothing included.
    kept = {key: value if key == "obligations" else _without_nothing(value) for key, value in said.items()}
    return {key: value for key, value in kept.items() if value}


def _without_nothing(value: Any) -> Any:
    """A section without members that say nothing."""
    if not isinstance(value, dict):
        return value
    return {key: inner for key, inner in value.items() if inner not in (None, [], {})}


def _one(rows: list[Row]) -> str | list[str]:
    values: list[str] = rows[0][1]
    return values[0] if len(values) == 1 else values


def _quantified(key: str, name: str, rows: Mapping[str, list[Row]]) -> Policy:
    found = {
        each: rows[f"{name}.{each}"][0][1] for each in ("any", "all", "none") if f"{name}.{each}" in rows
    }
    return {key: found} if found else {}


def _items(member: str, rows: list[Row] | None) -> list[Policy]:
    """Rows about one claim, parameter or property after the other."""
    listed = []
    for which, group in groupby(rows or [], key=lambda row: row[1]):
        name = which[0] if isinstance(which, list) and len(which) == 1 else which
        listed.append({member: name, **{row[0].rpartition(".")[2]: row[2] for row in group}})
    return listed


def _workload(rows: Mapping[str, list[Row]]) -> Policy:
    asked = {
        **{name: _one(rows[f"workload.{name}"]) for name in NAMED if f"workload.{name}" in rows},
        **_quantified("tags", "workload.tags", rows),
    }
    looked_at = [row for name, each in rows.items() if name.startswith("workload.") for row in each]
    looked_at += [row for row in rows.get("when.equals", []) if when.asks_workload(row[1:3])]
    return {**asked, "attested": looked_at[0][-1]} if looked_at else {}


def _target(rule: Rule, upstreams: Sequence[str], rows: Mapping[str, list[Row]]) -> Policy:
    if upstreams[0].startswith(RESOURCE):
        types = [name.removeprefix(RESOURCE) for name in upstreams]
        return {
            "resource": types[0] if len(types) == 1 else types,
            "actions": rule.methods,
            "ids": rows["target.ids"][0][1] if "target.ids" in rows else None,
            "properties": _items("property", rows.get("target.properties")),
        }
    return {
        "upstream": upstreams[0] if len(upstreams) == 1 else list(upstreams),
        "methods": rule.methods,
        "paths": rule.paths,
        "query": _items("parameter", rows.get("target.query")),
    }


def _when(rows: Mapping[str, list[Row]]) -> Policy:
    said: Policy = {}
    for _, zone, days, start, end, *of_month in rows.get("when.time", []):
        said["time"] = {"zone": zone, "days": _runs(days), "from": _clock(start), "to": _clock(end)}
        if of_month:
            words = when.month_words(of_month[0])
            said["time"]["month_days"] = words[0] if len(words) == 1 else words
    for _, start, until in rows.get("when.dates", []):
        dates = {"from": _moment(start, 0), "until": _moment(until, _DAY)}
        said["dates"] = _without_nothing(dates)
    for name in ("ip", "country"):
        if f"when.{name}" in rows:
            said[name] = rows[f"when.{name}"][0][1]
    pairs = [row[1:3] for row in rows.get("when.equals", [])]
    return {**said, "equals": pairs[0] if len(pairs) == 1 else pairs}


def _runs(days: list[str]) -> str | list[str]:
    """Days with those that follow one another joined: `mon-fri`."""
    numbered = [(DAYS.index(day) - place, day) for place, day in enumerate(days)]
    words = []
    for _, group in groupby(numbered, key=lambda pair: pair[0]):
        each = [day for _, day in group]
        words.append(each[0] if len(each) == 1 else f"{each[0]}-{each[-1]}")
    return words[0] if len(words) == 1 else words


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _moment(seconds: int | None, included: int) -> str | None:
    """As a day where it is one in UTC. `included`: how long the last day is that still counts."""
    if seconds is None or seconds % _DAY:
        return None if seconds is None else when.written(seconds)
    return datetime.fromtimestamp(seconds - included, UTC).strftime("%Y-%m-%d")


def _obligations(compiled: Policy) -> Policy:
    said = dict(compiled)
    if "rate_limit" in said:
        listed = [
            {"limit": each["limit"], "per": _PERIODS[each["per"]], "by": sorted(each["by"], key=BY.index)}
            for each in said["rate_limit"]
        ]
        said["rate_limit"] = listed[0] if len(listed) == 1 else listed
    if "max_body" in said:
        said["max_body"] = limits.written(said["max_body"])
    if "require" in said:
        said["require"] = {key: value for key, value in said["require"].items() if value}
    return said


def _exchange(compiled: Policy) -> Policy:
    said = {**compiled, "lifetime": f"{compiled['lifetime']}s"}
    return {name: said[name] for name in ("upstreams", "roles", "lifetime", "bound")}


def _member(key: str, value: Any, indent: str, *, nested: bool) -> list[str]:
    """A member of a mapping: on one line, or a mapping or list whose parts have lines of their own."""
    one = f"{indent}{_scalar(key)}: {_flow(value)}"
    if nested and isinstance(value, dict):
        inner = [_member(name, each, indent + "  ", nested=False) for name, each in value.items()]
        return [f"{indent}{_scalar(key)}:", *[line for lines in inner for line in lines]]
    if len(one) > WIDTH and isinstance(value, list):
        return [f"{indent}{_scalar(key)}:", *[f"{indent}  - {_flow(item)}" for item in value]]
    return [one]


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: object) -> str:
    if isinstance(value, float):
        digits, exponent, power = repr(value).partition("e")
        return f"{digits if '.' in digits else digits + '.0'}{exponent}{power}"
    if not isinstance(value, str):
        return json.dumps(value)
    if _BARE.fullmatch(value) and plain(value) == value and value.lower() not in _OTHERWISE:
        return value
    return UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False))
