"""What a condition of a policy demands of a call for it to be true, or false, or not true, or not false.

A formula is a list of clauses, all of which must hold; a clause is a list of alternatives; an alternative, of demands.
No clause: it holds anyway. A clause without alternatives: it can't hold.
"""

from collections.abc import Iterable
from itertools import product
from typing import NamedTuple

from airgate.engine import DAYS as WEEKDAYS
from airgate.engine import RESOURCE, Dates, Network, Truth, Window, Zone
from airgate.policy import bounds
from airgate.policy.bounds import MISSING, ONE, SEVERAL, THERE, UNREADABLE, Demand, Key
from airgate.policy.callers import (
    ACTION,
    ACTOR,
    JKT,
    METHOD,
    SUBJECT,
    Alternative,
    Clause,
    Tokens,
    single,
)
from airgate.policy.index import Row, Rule, canonical, segments
from airgate.policy.patterns import ODD, Pieces, exactly, glob, path_pattern

Formula = tuple[Clause, ...]
Answers = tuple[Clause, Clause, Clause]  # the ways to be true, to be false, to be unknown

TRUE, FALSE, NOT_TRUE, NOT_FALSE = "true", "false", "not true", "not false"

NEVER: Formula = ((),)

_FLAGGED = {"subject.dpop": JKT, "subject.delegated": ACTOR}


class Box(NamedTuple):
    """A rule as it applies by one of its paths, or by all when no condition asks which."""

    rule: Rule
    upstream: str
    paths: tuple[str, ...]
    zones: dict[str, Zone]
    held: bool  # all roles that are granted count, whether in use or not
    odd: int = 0  # what segments of the upstream's paths may hold: ENCODED_SLASH, EMPTY_SEGMENT

    @property
    def forbids(self) -> bool:
        return self.rule.effect == "forbid"

    @property
    def _key(self) -> Key:
        return ACTION if self.upstream.startswith(RESOURCE) else METHOD

    def inside(self, tokens: Tokens) -> Formula:
        """The call is one that the rule matches."""
        wanted = NOT_FALSE if self.forbids else TRUE
        return (
            *self.target(),
            *(((atom,),) for atom in tokens.accepted),
            *(clause for row in self.rule.conditions for clause in self.row(row, wanted, tokens)),
        )

    def target(self) -> Formula:
        clauses: list[Clause] = []
        if "*" not in self.rule.methods:
            clauses.append((((self._key, bounds.one_of(map(exactly, self.rule.methods))),),))
        if not self.upstream.startswith(RESOURCE):
            clauses.append((((("path",), bounds.one_of([path_pattern(path) for path in self.paths])),),))
            clauses.append((((("path",), bounds.plain_path(self.odd)),),))
        return tuple(clauses)

    def outside(self, tokens: Tokens) -> list[Formula]:
        """The ways for a call to be one that the rule doesn't match."""
        ways: list[Formula] = []
        if "*" not in self.rule.methods:
            ways.append(((((self._key, bounds.none_of(map(exactly, self.rule.methods))),),),))
        ways += [(((atom,),),) for atom in tokens.refused]  # inside no rule
        unwanted = FALSE if self.forbids else NOT_TRUE
        ways += [self.row(row, unwanted, tokens) for row in self.rule.conditions]
        if not self.upstream.startswith(RESOURCE):
            ways.append(((((("path",), bounds.none_of([path_pattern(path) for path in self.paths])),),),))
            if self.odd != ODD:  # a call that the gate refuses is inside no rule
                ways.append(((((("path",), bounds.odd_path(self.odd)),),),))
        return [way for way in ways if () not in way]

    def row(self, row: Row, wanted: str, tokens: Tokens) -> Formula:
        """What a condition demands to be `wanted`."""
        name, _, quantifier = row[0].rpartition(".")
        if name == "subject.roles":
            return _roles(quantifier, row[1], wanted, tokens, used=not self.held)
        if row[0] == "subject.issuer":
            return () if (tokens.mapping.id in row[1]) is (wanted in (TRUE, NOT_FALSE)) else NEVER
        if row[0] == "subject.id":
            return _text(SUBJECT, map(exactly, row[1]), wanted)
        if row[0] == "subject.kind":
            return _text(*tokens.kinds(row[1]), wanted)
        if row[0] in _FLAGGED:
            is_so, is_not = (_is(_FLAGGED[row[0]], *states) for states in ((THERE, UNREADABLE), (MISSING,)))
            return _wanted(is_so, is_not, (), wanted) if row[1] else _wanted(is_not, is_so, (), wanted)
        if name == "subject.claims" and row[1] == ["sub"]:  # RFC 7519 §4.1.2: the subject itself
            return _subject(quantifier, [exactly(value) for value in row[2]], wanted)
        if name == "subject.claims":
            key = tokens.claim(tuple(row[1]))
            if single(key):
                return _one_text(key, quantifier, row[2], wanted)
            return _values(key, quantifier, row[2], wanted, (MISSING, UNREADABLE))
        if name == "workload.tags":
            each = [
                _quantified(key, quantifier, row[1], there) for key, there in tokens.sources("tags", row[2])
            ]
            return _of_a_task(_joined(each, tokens.missing("tags", row[2])), wanted, tokens)
        if name == "workload":
            patterns = [glob(pattern) for pattern in row[1]]
            each = [
                (((*there, (key, bounds.one_of(patterns))),), ((*there, (key, bounds.none_of(patterns))),))
                for key, there in tokens.sources(quantifier, row[2])
            ]
            return _of_a_task(_joined(each, tokens.missing(quantifier, row[2])), wanted, tokens)
        if name == "target.query":
            return _query(quantifier, row[1], row[2], wanted)
        if name == "target.properties":
            return _values(("property", row[1]), quantifier, row[2], wanted, (MISSING,))
        if row[0] == "target.ids":
            patterns = [glob(pattern) for pattern in row[1]]
            return _wanted(
                (((("id",), bounds.one_of(patterns)),),),
                (((("id",), bounds.none_of(patterns)),),),
                (),
                wanted,
            )
        if row[0] == "when.country":
            return _known(
                "country", bounds.one_of(map(exactly, row[1])), bounds.none_of(map(exactly, row[1])), wanted
            )
        if row[0] == "when.ip":
            network = Network.of(tuple(row[1]))
            return _known("client", ("in", network), ("out", network), wanted)
        if row[0] == "when.equals":
            return self._equal(row[1], row[2], row[3], wanted, tokens)
        if row[0] == "when.dates":
            return _when(Dates(row[1], row[2]), wanted)
        if row[0] == "when.time":
            _, zone, days, start, end, *of_month = row
            on = frozenset(map(WEEKDAYS.index, days))
            return _when(Window(self.zones[zone], on, start, end, *map(frozenset, of_month)), wanted)
        raise ValueError(f"policy {self.rule.id}: {row[0]} is not known to this version")

    def _equal(self, left: str, right: str, attested: bool, wanted: str, tokens: Tokens) -> Formula:
        """The same pair always has the same answer; what else the values are, is left to the search."""
        pair = sorted((self._attribute(left), self._attribute(right)))
        spaces = {name.partition(".")[0] for name in pair}
        # Two policy sets may read an attribute from two places; then it is another pair.
        places = [canonical(_place(name, tokens)) for name in pair]
        key = ("equals", *pair, "attested" if attested and "workload" in spaces else "", *places)
        answers: Answers
        if "" in pair:  # the path has no such placeholder
            answers = (), (), ((),)
        elif pair[0] == pair[1] in ("subject.id", "subject.issuer", "subject.kind"):
            answers = ((),), (), ()
        else:
            true: Clause = tuple(
                ((key, bounds.state("true")), *one, *other)
                for one, other in product(*(_there(name, tokens, attested) for name in pair))
            )
            answers = true, _is(key, "false"), _is(key, "unknown")
        yes, no, unknown = answers
        return (
            _of_a_task(answers, wanted, tokens) if "workload" in spaces else _wanted(yes, no, unknown, wanted)
        )

    def _attribute(self, name: str) -> str:
        """An attribute that `equals` names; a placeholder by its place in the path, empty when it has none."""
        space, _, rest = name.partition(".")
        if space != "resource" or self.upstream.startswith(RESOURCE):
            return name
        places = segments(self.paths[0])
        return f"segment.{places.index(wanted)}" if (wanted := "{" + rest + "}") in places else ""


def boxes(rule: Rule, upstream: str, zones: dict[str, Zone], held: bool, odd: int = 0) -> list[Box]:
    """The rule in parts that don't depend on which of their paths the gate found them by.

    `held`: it reads all roles that are granted, as forbids do, in place of those in use. `odd`: see `Box`.
    """
    by_route = not upstream.startswith(RESOURCE) and any(
        attribute.startswith("resource.")
        for row in rule.conditions
        if row[0] == "when.equals"
        for attribute in row[1:3]
    )
    split = [(path,) for path in rule.paths] if by_route else [tuple(rule.paths)]
    return [Box(rule, upstream, paths, zones, held or rule.effect == "forbid", odd) for paths in split]


def _there(attribute: str, tokens: Tokens, attested: bool) -> Clause:
    """What a comparison takes for granted."""
    space, _, name = attribute.partition(".")
    if space == "workload":
        return tuple(there for _, there in tokens.sources(name, attested))
    if space == "query":
        return (((("query", name), bounds.state(ONE)),),)
    if space == "subject" and name not in ("id", "issuer", "kind"):
        key = tokens.claim((name,))
        return (((key, bounds.state(THERE)), (key, ("single",))),)
    return ((),)


def _place(attribute: str, tokens: Tokens) -> list[str | None]:
    """Where an issuer's tokens have an attribute, as far as that is the issuer's to say."""
    space, _, name = attribute.partition(".")
    if attribute == "subject.kind":
        mapping = tokens.mapping
        return [mapping.kind_default, *(mapping.kind_claim or ()), canonical(mapping.kind_values)]
    sources = tokens.sources(name, False) if space == "workload" else []
    return [*sources[0][0]] if sources else []  # nowhere, where only a token says it, and none of these does


def _is(key: Key, *states: str) -> Clause:
    return (((key, bounds.state(*states)),),)


def _wanted(true: Clause, false: Clause, unknown: Clause, wanted: str) -> Formula:
    """`true`, ...: the ways to be that."""
    if wanted == TRUE:
        return (true,)
    if wanted == FALSE:
        return (false,)
    return ((*true, *unknown),) if wanted == NOT_FALSE else ((*false, *unknown),)


def _of_a_task(answers: Answers, wanted: str, tokens: Tokens) -> Formula:
    """Behind a human's call there is no task: what is asked of it is false."""
    key, human = tokens.kinds(["human"])
    true, false, unknown = answers
    if wanted in (TRUE, NOT_FALSE):
        return ((((key, bounds.none_of(human)),),), *_wanted(true, false, unknown, wanted))
    return _wanted(true, (*false, ((key, bounds.one_of(human)),)), unknown, wanted)


def _joined(each: Iterable[tuple[Clause, Clause]], missing: Alternative) -> Answers:
    """The answers by each source that a value can have."""
    each = list(each)
    true = tuple(way for yes, _ in each for way in yes)
    return true, tuple(way for _, no in each for way in no), (missing,)


def _text(key: Key, values: Iterable[Pieces], wanted: str) -> Formula:
    pieces = list(values)
    return _wanted((((key, bounds.one_of(pieces)),),), (((key, bounds.none_of(pieces)),),), (), wanted)


def _subject(quantifier: str, values: list[Pieces], wanted: str) -> Formula:
    among: Clause = (((SUBJECT, bounds.one_of(values)),),)
    beside: Clause = (((SUBJECT, bounds.none_of(values)),),)
    if quantifier == "all" and len(values) > 1:  # one value is never all of several
        among, beside = (), ((),)
    true, false = (beside, among) if quantifier == "none" else (among, beside)
    return _wanted(true, false, (), wanted)


def _known(attribute: str, yes: Demand, no: Demand, wanted: str) -> Formula:
    key, there = (attribute,), bounds.state(THERE)
    return _wanted(
        (((key, there), (key, yes)),),
        (((key, there), (key, no)),),
        (((key, bounds.state(MISSING)),),),
        wanted,
    )


def _quantified(key: Key, quantifier: str, values: list[str], there: Alternative) -> tuple[Clause, Clause]:
    """The ways to be true and to be false. `there`: what holds if there are values at all."""
    every_one: Clause = ((*there, *((key, ("has", value)) for value in values)),)
    not_one: Clause = ((*there, *((key, ("lacks", value)) for value in values)),)
    a_one: Clause = tuple((*there, (key, ("has", value))) for value in values)
    not_all: Clause = tuple((*there, (key, ("lacks", value))) for value in values)
    return {"any": (a_one, not_one), "all": (every_one, not_all), "none": (not_one, a_one)}[quantifier]


def _values(key: Key, quantifier: str, values: list[str], wanted: str, missing: tuple[str, ...]) -> Formula:
    true, false = _quantified(key, quantifier, values, ((key, bounds.state(THERE)),))
    return _wanted(true, false, (((key, bounds.state(*missing)),),), wanted)


def _one_text(key: Key, quantifier: str, values: list[str], wanted: str) -> Formula:
    """Of a claim that is never a list."""
    pieces, there = [exactly(value) for value in values], (key, bounds.state(THERE))
    among: Clause = ((there, (key, bounds.one_of(pieces))),)
    beside: Clause = ((there, (key, bounds.none_of(pieces))),)
    if quantifier == "all" and len(values) > 1:  # one value is never all of several
        among, beside = (), ((there,),)
    true, false = (beside, among) if quantifier == "none" else (among, beside)
    return _wanted(true, false, _is(key, MISSING, UNREADABLE), wanted)


def _query(quantifier: str, parameter: str, values: list[str], wanted: str) -> Formula:
    key: Key = ("query", parameter)
    pieces = [exactly(value) for value in values]
    one, absent = (key, bounds.state(ONE)), (key, bounds.state(MISSING))
    several: Clause = (((key, bounds.state(SEVERAL)),),)
    among: Clause = ((one, (key, bounds.one_of(pieces))),)
    beside: Clause = ((absent,), (one, (key, bounds.none_of(pieces))))
    if quantifier == "all" and len(values) > 1:  # one value is never all of several
        among, beside = (), ((absent,), (one,))
    true, false = (beside, among) if quantifier == "none" else (among, beside)
    return _wanted(true, false, several, wanted)


def _when(test: Window | Dates, wanted: str) -> Formula:
    true, false, unknown = (((((("now",), ("when", test, frozenset({truth}))),),)) for truth in _TRUTHS)
    return _wanted(true, false, unknown, wanted)


_TRUTHS: tuple[Truth, ...] = (True, False, None)


def _roles(quantifier: str, roles: list[str], wanted: str, tokens: Tokens, used: bool) -> Formula:
    """`used`: `any` and `all` read the roles in use, as they do in permits, not all that are granted."""
    if quantifier == "none":
        if wanted in (TRUE, NOT_FALSE):
            without = tokens.not_held if wanted == TRUE else tokens.not_granted
            return tuple((without(role),) for role in roles)
        ways = tokens.granted if wanted == FALSE else tokens.not_unheld
        return (tuple(way for role in roles for way in ways(role)),)
    if wanted in (TRUE, NOT_FALSE):
        ways = tokens.used if used else tokens.granted if wanted == TRUE else tokens.not_unheld
        each = tuple(ways(role) for role in roles)
    elif used:
        each = tuple(tokens.unused(role) for role in roles)
    else:
        without = tokens.not_held if wanted == FALSE else tokens.not_granted
        each = tuple((without(role),) for role in roles)
    # Of "any", one has to hold or each has to fail; of "all", the other way round.
    if (quantifier == "any") is (wanted in (TRUE, NOT_FALSE)):
        return (tuple(way for clause in each for way in clause),)
    return each
