"""Cases: requests in `*.cases.yaml` beside the policies, and what the gate must say to each.

A case names policies and reasons, never a mere yes or no: what is permitted by the wrong policy is a failure too.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from airgate.engine import NOTHING, Obligations, Reason, Target, load_shard
from airgate.policy import index, rules
from airgate.policy.compile import Compiled
from airgate.policy.gate import Answer, Gate
from airgate.policy.request import Flaw, InvalidRequest, Request
from airgate.policy.seed import (
    SCHEMA,
    STARTER,
    Keys,
    Problem,
    SeedError,
    Source,
    label,
    nearest,
    parse,
    quoted,
    structure,
)

CASES_SCHEMA = STARTER / "schema" / "cases.schema.json"
PATTERN = "*.cases.yaml"
_ADDRESS = frozenset({"method", "path"})
_QUESTION = frozenset({"resource", "action"})


@dataclass(frozen=True)
class Expectation:
    """What a case says about the answer. None: it doesn't say."""

    permit: bool
    policies: frozenset[str] | None
    reason: str | None
    shadow: frozenset[str] | None
    would: str | None  # permit | deny
    obligations: Obligations | None


@dataclass(frozen=True)
class Difference:
    """Where an answer isn't the one expected."""

    what: str  # decision | shadow | would | obligations
    expected: str
    came: str


@dataclass(frozen=True)
class Case:
    """One request and what is expected."""

    name: str
    request: Request
    expected: Expectation
    file: str
    line: int
    column: int

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


def read(compiled: Compiled, gate: Gate) -> list[Case]:
    """Every case below the seed's folder, in the order of files. Raises SeedError with all that is wrong."""
    root = compiled.seed.root
    cases: list[Case] = []
    problems: list[Problem] = []
    names: dict[str, str] = {}
    for path in files(root):
        source = Source(label(path))
        found = parse(path, source)
        if not found:
            found = list(structure(source, _validator()))
        if found:
            problems += found
            continue
        for case, wrong in _File(source, compiled, gate).cases():
            problems += wrong
            if case is None:
                continue
            if case.name in names:
                text = f"{quoted(case.name)}: this name is taken, by {names[case.name]}; choose another"
                problems.append(Problem(case.file, case.line, case.column, "name", text))
            names.setdefault(case.name, case.place)
            cases.append(case)
    if problems:
        raise SeedError(problems)
    return cases


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob(PATTERN) if path.is_file())


@functools.cache
def _validator() -> Draft202012Validator:
    # Obligations are written as in policies, so their schema is the policies'.
    policies = Resource.from_contents(json.loads(SCHEMA.read_text("utf-8")))
    return Draft202012Validator(
        json.loads(CASES_SCHEMA.read_text("utf-8")), registry=Registry().with_resource(SCHEMA.name, policies)
    )


class _File:
    """One file whose structure is right."""

    def __init__(self, source: Source, compiled: Compiled, gate: Gate) -> None:
        self._source = source
        self._compiled = compiled
        self._gate = gate
        self._defaults: dict[str, Any] = source.data.get("defaults", {})

    def cases(self) -> Iterator[tuple[Case | None, list[Problem]]]:
        for number, data in enumerate(self._source.data["cases"]):
            keys: Keys = ("cases", number)
            said = _with_defaults(data["request"], self._defaults)
            try:
                expected = self._expected(data["expect"])
                request = Request.read(said)
                if flaws := self._refused(request, expected):
                    raise InvalidRequest(*flaws)
                self._gate.answer(request)
            except InvalidRequest as invalid:
                yield None, [self._problem(keys, flaw, data) for flaw in invalid.flaws]
                continue
            line, column = self._source.values[(*keys, "name")]
            yield Case(data["name"], request, expected, self._source.file, line, column), []

    def _problem(self, case: Keys, flaw: Flaw, data: Mapping[str, Any]) -> Problem:
        """At the value, or where a default says it, or at the case that leaves it out."""
        inner = flaw.keys if flaw.keys[0] == "expect" else ("request", *flaw.keys)
        keys: Keys = (*case, *inner)
        if inner[0] == "request" and flaw.keys[0] not in data["request"] and flaw.keys[0] in self._defaults:
            keys = ("defaults", *flaw.keys)
        while keys not in self._source.values:
            keys = keys[:-1]
        problem = self._source.problem(keys, f"{flaw.text} (case {quoted(data['name'])})")
        return replace(problem, path=".".join(key for key in inner if isinstance(key, str)))

    def _refused(self, request: Request, expected: Expectation) -> list[Flaw]:
        """Names that don't exist, unless that is what the case is about."""
        about = {"tag": Reason.ROLE_NOT_GRANTED, "path": Reason.ROUTE_UNKNOWN_UPSTREAM}
        return [
            flaw
            for flaw in self._gate.unknown_names(request)
            if expected.reason is None or expected.reason != about.get(str(flaw.keys[0]))
        ]

    def _expected(self, data: Mapping[str, Any]) -> Expectation:
        flaws = []
        known = self._compiled.seed.policies
        for member in ("policies", "shadow"):
            for number, name in enumerate(data.get(member, ())):
                if name not in known:
                    text = f"{quoted(name)}: no such policy{nearest(name, known)}"
                    flaws.append(Flaw(("expect", member, number), text))
        reason = data.get("reason")
        if reason is not None and reason not in list(Reason):
            hint = nearest(reason, Reason) or "; docs/reasons.md lists them"
            flaws.append(Flaw(("expect", "reason"), f"{quoted(reason)}: no such reason{hint}"))
        if flaws:
            raise InvalidRequest(*flaws)
        return Expectation(
            permit=data["decision"] == "permit",
            policies=frozenset(data["policies"]) if "policies" in data else None,
            reason=reason,
            shadow=frozenset(data["shadow"]) if "shadow" in data else None,
            would=data.get("would"),
            obligations=_obligations(data["obligations"]) if "obligations" in data else None,
        )


def _obligations(data: Mapping[str, Any]) -> Obligations:
    """Obligations as the gate reads them, for a permit that asks for these."""
    target = {"upstream": "x", "methods": "*", "paths": ["/"]}
    rule = rules.rule({"id": "x", "owner": "", "effect": "permit", "target": target, "obligations": data})
    [(policy, _)] = load_shard(index.canonical(index.shard("x", [rule], {})), "x").lookup.reachable(
        Target("GET", "x", (), "/", "")
    )
    return policy.obligations or NOTHING


def _asked(obligations: Obligations) -> list[dict[str, Any]]:
    """What is asked of the gate and of the caller. What a caller may ask for or exchange isn't among it."""
    asked = [each for each in obligations.documents() if each["type"] not in ("asking", "exchange")]
    return sorted(asked, key=index.canonical)


def _with_defaults(request: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The request, with what it doesn't say. A call has no resource, and a question about one no address."""
    left_out = (
        _ADDRESS if request.keys() & _QUESTION else _QUESTION if request.keys() & _ADDRESS else frozenset()
    )
    return {key: value for key, value in defaults.items() if key not in left_out} | dict(request)


def differences(expected: Expectation, answer: Answer) -> list[Difference]:
    """Where the answer isn't as expected; none: the case passes."""
    decision = answer.decision
    found = []
    policies = frozenset(decision.policies) if decision is not None else frozenset()
    same = (
        expected.permit == answer.permit
        and expected.policies in (None, policies)
        and (expected.permit or expected.reason == answer.reason)
    )
    if not same:
        wanted = _said(expected.permit, expected.reason, expected.policies or ())
        found.append(Difference("decision", wanted, came(answer)))
    shadow = frozenset(decision.shadow) if decision is not None else frozenset()
    if expected.shadow not in (None, shadow):
        found.append(Difference("shadow", _names(expected.shadow or ()), _names(shadow)))
    would = _word(decision.would if decision is not None else False)
    if expected.would not in (None, would):
        found.append(Difference("would", str(expected.would), would))
    if expected.obligations is not None and decision is not None:
        wanted_list, came_list = _asked(expected.obligations), _asked(decision.obligations)
        if wanted_list != came_list:
            found.append(Difference("obligations", index.canonical(wanted_list), index.canonical(came_list)))
    return found


def came(answer: Answer) -> str:
    """An answer in a line: `deny policy.forbidden by agents-never-write-ledger`."""
    return _said(answer.permit, answer.reason, answer.decision.policies if answer.decision else ())


def _word(permit: bool) -> str:
    return "permit" if permit else "deny"


def _said(permit: bool, reason: str | None, policies: "frozenset[str] | tuple[str, ...]") -> str:
    parts = [_word(permit), str(reason) if reason else "", f"by {_names(policies)}" if policies else ""]
    return " ".join(part for part in parts if part)


def _names(names: "frozenset[str] | tuple[str, ...]") -> str:
    return ", ".join(sorted(names)) or "none"
