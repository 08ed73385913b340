"""Values for two attributes that a policy compares, so that they are equal, or not, or can't be compared.

Some are tried, not all: where none of them will do, nothing is proved.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from airgate.engine import KINDS
from airgate.policy import bounds
from airgate.policy.bounds import MISSING, ONE, SEVERAL, THERE, Key
from airgate.policy.callers import ID, SUBJECT, Alternative, Clause, Tokens
from airgate.policy.patterns import exactly

_NEW = ("one", "two")


@dataclass(frozen=True)
class Pins:
    """Ways to pin attributes to values. `values`: those that they have already."""

    tokens: Tokens
    values: Mapping[Key, Any]
    attested: bool  # of the workload, only what is attested counts

    def ways(self, left: str, right: str, answer: str) -> Iterator[Alternative]:
        """`answer`: true, false or unknown."""
        if answer == "unknown":
            for attribute in (left, right):
                yield from self._missing(attribute)
            return
        held = [value for value in (self._value(left), self._value(right)) if value]
        kinds = KINDS if "subject.kind" in (left, right) else ()
        for one, other in product(dict.fromkeys([*held, *kinds, *_NEW]), repeat=2):
            if (one == other) is (answer == "true"):
                for first, second in product(self._is(left, one), self._is(right, other)):
                    yield (*first, *second)

    def _keys(self, attribute: str) -> list[tuple[Key, Alternative]]:
        """Where the attribute's value can stand, and what holds if it does; nowhere, if it is the issuer's name."""
        space, _, name = attribute.partition(".")
        if attribute == "subject.id":
            return [(SUBJECT, ())]
        if attribute == "subject.kind":
            return [(self.tokens.kinds(())[0], ())]
        if attribute == "subject.issuer":
            return []
        if space == "subject":
            key = self.tokens.claim((name,))
            return [(key, ((key, bounds.state(THERE)), (key, ("single",))))]
        if space == "workload":
            return self.tokens.sources(name, self.attested)
        if space == "query":
            return [(("query", name), ((("query", name), bounds.state(ONE)),))]
        if space == "segment":
            return [(("path",), ())]
        if attribute == "resource.id":
            return [(ID, ())]
        key = ("property", name)
        return [(key, ((key, bounds.state(THERE)), (key, ("single",))))]

    def _value(self, attribute: str) -> str | None:
        """The value that the attribute has already, if it is one."""
        if attribute == "subject.issuer":
            return self.tokens.mapping.id
        for key, _ in self._keys(attribute):
            value = self.values.get(key)
            if attribute == "subject.kind":
                return self.tokens.kind(value or "")
            if key == ("path",) and value is not None:
                place = int(attribute.partition(".")[2])
                return str(value[place]) if place < len(value) else None
            if isinstance(value, tuple):
                value = value[1]
            if isinstance(value, tuple):
                value = value[0] if len(value) == 1 else None
            if value:
                return str(value)
        return None

    def _is(self, attribute: str, value: str) -> Clause:
        if attribute == "subject.issuer":
            return ((),) if value == self.tokens.mapping.id else ()
        return tuple(
            (*there, (key, self._demand(attribute, key, value))) for key, there in self._keys(attribute)
        )

    def _demand(self, attribute: str, key: Key, value: str) -> bounds.Demand:
        if key == ("path",):
            return "segment", int(attribute.partition(".")[2]), value
        if key[0] in ("claim", "groups", "property"):
            return "has", value
        return bounds.one_of(self.tokens.kinds([value])[1] if key[0] == "kind" else [exactly(value)])

    def _missing(self, attribute: str) -> Clause:
        space, _, name = attribute.partition(".")
        if space == "workload":
            return (self.tokens.missing(name, self.attested),)
        return tuple(
            ((key, bounds.state(SEVERAL if key[0] == "query" else MISSING)),)
            for key, _ in self._keys(attribute)
            if key[0] in ("claim", "claimed", "groups", "property", "query")
        )
