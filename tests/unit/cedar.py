"""Policies and questions in Cedar's language (https://docs.cedarpolicy.com), from the gate's compiled ones.

Cedar knows true and false only, and skips a policy that reads what is not there. So the third value is said in full:
a permit must have every value that it reads, and a forbid also matches where one is missing.
"""

import json
from calendar import monthrange
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from airgate.policy.index import Rule, segments
from conditions import Call
from model import Caller, Fact, Identity, Target

# A zone whose clocks are put forward once, and which is known from START on until END.
START, FORWARD, END = 1_000_000, 1_300_000, 1_600_000
ZONE = {"starts": [START, FORWARD], "offsets": [3600, 7200], "until": END}


def _of_month(day: datetime) -> list[int]:
    return [day.day, day.day - monthrange(day.year, day.month)[1] - 1]


class Question(NamedTuple):
    """A call, in plain values. What a mapping lacks is not known."""

    upstream: str
    method: str
    segments: tuple[str, ...]
    query: dict[str, tuple[str, ...]]  # every parameter that a policy names, as often as it is sent
    issuer: str
    subject: str
    kind: str
    jkt: str | None  # thumbprint of the token's key
    actor: str | None
    effective: frozenset[str]
    granted: frozenset[str]
    unknown: frozenset[str]
    claims: dict[tuple[str, ...], tuple[str, ...]]
    workload: dict[str, tuple[str, bool]]  # value, and whether it is attested
    tags: tuple[tuple[str, ...], bool] | None
    now: int
    client: str | None
    country: str | None

    def call(self) -> Call:
        """As the gate takes it."""
        workload = {name: Fact(value, attested) for name, (value, attested) in self.workload.items()}
        if self.tags is not None:
            workload["tags"] = Fact(*self.tags)
        identity = Identity(
            self.issuer,
            self.subject,
            self.kind,
            self.granted,
            {},
            self.unknown,
            self.claims,
            self.jkt,
            self.actor,
        )
        query = "&".join([f"{name}={value}" for name, values in self.query.items() for value in values])
        target = Target(self.method, self.upstream, self.segments, "", "?" + query)
        caller = Caller(identity, tuple(sorted(self.effective)), self.effective, workload)
        return Call(caller, target, self.now, self.client, self.country)

    def request(self) -> dict[str, Any]:
        """As Cedar takes it."""
        context: dict[str, Any] = {
            "upstream": self.upstream,
            "method": self.method,
            "depth": len(self.segments),
            **{f"s{number}": segment for number, segment in enumerate(self.segments)},
            "query": {name: _several(self.query[name]) for name in self.query},
            "issuer": self.issuer,
            "id": self.subject,
            "kind": self.kind,
            "dpop": self.jkt is not None,
            "delegated": self.actor is not None,
            "effective": sorted(self.effective),
            "granted": sorted(self.granted),
            "unknown": sorted(self.unknown),
            "claims": {".".join(path): _several(values) for path, values in self.claims.items()},
            **{name: {"value": value, "attested": sure} for name, (value, sure) in self.workload.items()},
            "now": self.now,
        }
        if self.tags is not None:
            context["tags"] = {"values": list(self.tags[0]), "attested": self.tags[1]}
        if self.client is not None:
            context["ip"] = {"__extn": {"fn": "ip", "arg": self.client}}
        if self.country is not None:
            context["country"] = self.country
        if START <= self.now < END:
            wall = datetime.fromtimestamp(self.now, UTC) + timedelta(hours=1 if self.now < FORWARD else 2)
            context["minute"] = wall.hour * 60 + wall.minute
            context["day"] = wall.strftime("%a").lower()
            context["yesterday"] = (wall - timedelta(days=1)).strftime("%a").lower()
            context["month_day"] = _of_month(wall)
            context["yesterday_of_month"] = _of_month(wall - timedelta(days=1))
        return {
            "principal": 'Caller::"it"',
            "action": 'Action::"call"',
            "resource": 'Upstream::"it"',
            "context": context,
        }


def _several(values: tuple[str, ...]) -> dict[str, Any]:
    return {"values": list(values), "count": len(values)}


def text(value: str | bool) -> str:
    return json.dumps(value)  # for these letters Cedar's strings are JSON's


def texts(values: Iterable[str]) -> str:
    return "[" + ", ".join([text(value) for value in values]) + "]"


def like(attribute: str, globs: list[str]) -> str:
    return "(" + " || ".join([f"{attribute} like {text(glob)}" for glob in globs]) + ")"


def held(quantifier: str, have: str, values: list[str]) -> str:
    if quantifier == "all":
        return f"{have}.containsAll({texts(values)})"
    return f"{'!' if quantifier == 'none' else ''}{have}.containsAny({texts(values)})"


class Meaning(NamedTuple):
    """A condition in Cedar: when its value is known, and what it says then. False whenever `never` holds."""

    known: str
    holds: str
    never: str = "false"


HUMAN = 'context.kind == "human"'


class Translation:
    """From a policy to Cedar. `forbids` decides what an unknown value does."""

    def policy(self, rule: Rule, upstreams: tuple[str, ...]) -> str:
        forbids = rule.effect == "forbid"
        scope = [f"{texts(upstreams)}.contains(context.upstream)"]
        if rule.methods != ["*"]:
            scope.append(f"{texts(rule.methods)}.contains(context.method)")
        routes = []
        for path in rule.paths:
            conditions = [self.condition(row, path, forbids) for row in rule.conditions]
            routes.append(" && ".join([self.path(path), *conditions]))
        when = " && ".join([*scope, "(" + " || ".join([f"({route})" for route in routes]) + ")"])
        return f"@id({text(rule.id)}) {rule.effect} (principal, action, resource) when {{ {when} }};\n"

    def path(self, pattern: str) -> str:
        wanted = segments(pattern)
        below = wanted[-1:] == ["**"]
        wanted = wanted[: len(wanted) - below]
        tests = [f"context.depth {'>=' if below else '=='} {len(wanted)}"]
        for number, segment in enumerate(wanted):
            if segment != "*" and not segment.startswith("{"):
                tests.append(f"context.s{number} like {text(segment)}")
        return " && ".join(tests)

    def condition(self, row: list[Any], path: str, forbids: bool) -> str:
        if row[0].startswith("subject.roles."):
            return "(" + self.roles(row[0].rpartition(".")[2], row[1], forbids) + ")"
        meaning = self.meaning(row, path)
        if forbids:
            return f"(!({meaning.never}) && (!({meaning.known}) || {meaning.holds}))"
        return f"(!({meaning.never}) && {meaning.known} && {meaning.holds})"

    def roles(self, quantifier: str, values: list[str], forbids: bool) -> str:
        """A forbid takes a role that is unknown for held, and its absence as well."""
        if quantifier == "none":
            absent = held("none", "context.granted", values)
            return absent if forbids else f"{absent} && {held('none', 'context.unknown', values)}"
        if not forbids:
            return held(quantifier, "context.effective", values)
        each = [
            f"(context.granted.contains({text(v)}) || context.unknown.contains({text(v)}))" for v in values
        ]
        return (" || " if quantifier == "any" else " && ").join(each)

    def meaning(self, row: list[Any], path: str) -> Meaning:
        name, _, quantifier = row[0].rpartition(".")
        match row:
            case ["subject.issuer" | "subject.id" | "subject.kind", values]:
                return Meaning("true", f"{texts(values)}.contains(context.{quantifier})")
            case ["subject.dpop" | "subject.delegated", expected]:
                return Meaning("true", f"context.{quantifier} == {text(expected)}")
            case ["when.country", values]:
                return Meaning("context has country", f"{texts(values)}.contains(context.country)")
            case [
                "workload.dag" | "workload.task" | "workload.environment" | "workload.run_type"
                | "workload.triggered_by", globs, attested,
            ]:  # fmt: skip
                return Meaning(
                    self.fact(quantifier, attested), like(f"context.{quantifier}.value", globs), HUMAN
                )
            case ["when.dates", start, until]:
                from_ = "true" if start is None else f"context.now >= {start}"
                return Meaning("true", from_ if until is None else f"({from_} && {self.until(until)})")
            case ["when.ip", ranges]:
                within = [f"context.ip.isInRange(ip({text(one)}))" for one in ranges]
                return Meaning("context has ip", "(" + " || ".join(within) + ")")
            case ["when.time", _, days, start, end, *month_days]:
                return Meaning("context has minute", self.window(texts(days), start, end, *month_days))
            case ["when.equals", left, right, attested]:
                return self.equal(left, right, path, attested)
        if name == "subject.claims":
            claim = text(".".join(row[1]))
            return Meaning(
                f"context.claims has {claim}", held(quantifier, f"context.claims[{claim}].values", row[2])
            )
        if name == "workload.tags":
            return Meaning(self.fact("tags", row[2]), held(quantifier, "context.tags.values", row[1]), HUMAN)
        assert name == "target.query", row
        parameter = f"context.query.{row[1]}"
        return Meaning(f"{parameter}.count < 2", held(quantifier, f"{parameter}.values", row[2]))

    def fact(self, field: str, attested: bool) -> str:
        return f"context has {field}" + (f" && context.{field}.attested" if attested else "")

    def until(self, moment: int) -> str:
        return f"context.now < {moment}"

    def window(self, days: str, start: int, end: int, month_days: Sequence[int] = ()) -> str:
        today, before = f"{days}.contains(context.day)", f"{days}.contains(context.yesterday)"
        if month_days:
            today = f"({today} && context.month_day.containsAny({list(month_days)}))"
            before = f"({before} && context.yesterday_of_month.containsAny({list(month_days)}))"
        if start < end:
            return f"({today} && context.minute >= {start} && context.minute < {end})"
        return f"(({today} && context.minute >= {start}) || ({before} && context.minute < {end}))"

    def equal(self, left: str, right: str, path: str, attested: bool) -> Meaning:
        reads = [self.attribute(name, path, attested) for name in (left, right)]
        never = HUMAN if "workload." in left + right else "false"
        known = " && ".join([known for known, _, _ in reads])
        some = " && ".join([some for _, some, _ in reads])
        return Meaning(f"({known})", f"({some} && {reads[0][2]} == {reads[1][2]})", never)

    def attribute(self, name: str, path: str, attested: bool) -> tuple[str, str, str]:
        """When it is known, when it has a value, and the set of its values."""
        space, _, member = name.partition(".")
        if space == "workload":
            return self.fact(member, attested), "true", f"[context.{member}.value]"
        if space == "resource":
            # Which segment the placeholder stands for is known here, unlike what it holds.
            at = segments(path).index("{" + member + "}") if "{" + member + "}" in path else None
            return ("false", "false", "[]") if at is None else ("true", "true", f"[context.s{at}]")
        if space == "subject" and member in ("id", "issuer", "kind"):
            return "true", "true", f"[context.{member}]"
        holder = f"context.{'query' if space == 'query' else 'claims'}"
        one = f"{holder}.{member}.count"
        return f"{holder} has {member} && {one} < 2", f"{one} == 1", f"{holder}.{member}.values"
