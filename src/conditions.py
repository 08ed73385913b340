"""Conditions: the closed set of tests that a policy may make of a call. Each is true, false or unknown (None).

Unknown means that what a test asks for is not there, or is there in more than one reading. No test raises, none takes
longer than its operands and the value are long, and none calls code that a policy could choose.
"""

import ipaddress
import re
from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple, Protocol
from urllib.parse import unquote, unquote_plus

from model import Caller, Fact, Target

Truth = bool | None
Values = tuple[str, ...]

QUANTIFIERS = ("any", "all", "none")
MOST_ADDRESSES = 256  # of clients, whose text has been read and is kept
RESOURCE = "resource:"  # what the upstream's name of a Target begins with when it is an AuthZEN resource


class Glob:
    """A text in which `*` stands for any run of characters. Linear in the text, whatever the pattern."""

    __slots__ = ("_first", "_last", "_middle", "_whole", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        first, *rest = pattern.split("*")
        self._whole = not rest
        self._first = first
        self._middle = tuple(part for part in rest[:-1] if part)
        self._last = rest[-1] if rest else ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Glob) and other.pattern == self.pattern

    def __hash__(self) -> int:
        return hash(self.pattern)

    def __repr__(self) -> str:
        return f"Glob({self.pattern!r})"

    def matches(self, text: str) -> bool:
        if self._whole:
            return text == self._first
        at, end = len(self._first), len(text) - len(self._last)
        if end < at or not text.startswith(self._first) or not text.endswith(self._last):
            return False
        for part in self._middle:
            found = text.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True


class Call:
    """What is asked: who, what, when, from where. What few conditions look at is read when the first one does."""

    __slots__ = ("_address", "_query", "caller", "client", "country", "now", "route", "target")

    def __init__(
        self,
        caller: Caller,
        target: Target,
        now: float,  # seconds since the epoch
        client: str | None = None,  # the client's address as text
        country: str | None = None,  # ISO 3166-1 alpha-2, in capitals
    ) -> None:
        self.caller = caller
        self.target = target
        self.now = now
        self.client = client
        self.country = country
        self.route = ""  # the path pattern by which the policy in hand was found
        self._query: _Parameters | bool | None = False  # False: not looked at yet
        self._address: tuple[int, int] | bool | None = False

    def parameter(self, name: str) -> Values | None:
        """The decoded values of a query parameter, none or several. None when there is more than one way to read it."""
        if isinstance(self._query, bool):
            self._query = _parameters(self.target.query)
        if self._query is None:
            return None
        found = self._query.get(name.lower(), ())
        # To some servers the case of a name counts, to others not.
        return tuple([value for _, value in found]) if all([given == name for given, _ in found]) else None

    @property
    def address(self) -> tuple[int, int] | None:
        """The client's address: version and number. An IPv4 address written as IPv6 is what it stands for."""
        if isinstance(self._address, bool):
            self._address = _address(self.client)
        return self._address

    def placeholder(self, name: str) -> str | None:
        """The segment that `{name}` of the route stands for."""
        patterns, segments, wanted = self.route.split("/")[1:], self.target.segments, "{" + name + "}"
        place = patterns.index(wanted) if wanted in patterns else len(segments)
        return segments[place] if place < len(segments) else None


_Parameters = dict[str, list[tuple[str, str]]]  # by name in lower case: names and values as they are


_HIDDEN = re.compile(r"%[01][0-9A-Fa-f]|%7[Ff]|(?:^\?|[&=])(?:\+|%20)|(?:\+|%20)(?:[&=]|$)")


def _parameters(query: str) -> _Parameters | None:
    if ";" in query:  # to some servers a separator, to others not
        return None
    parameters: _Parameters = {}
    if _HIDDEN.search(query) is not None:  # characters that some servers cut off, or cut there
        return None
    for part in query[1:].split("&"):
        name, _, value = part.partition("=")
        values = [value]
        if "%" in part or "+" in part:
            try:
                name = unquote(name, errors="strict")
                # A plus is a space to some servers and a plus to others: then there are two values, one too many.
                values = sorted({unquote(value, errors="strict"), unquote_plus(value, errors="strict")})
            except UnicodeDecodeError:
                return None
            if "+" in name:
                return None
        pairs = [(name, value) for value in values]
        # `name[]` and `name[0]` are `name` to some servers, and to others not.
        for key in {name.lower(), name.lower().partition("[")[0]}:
            parameters.setdefault(key, []).extend(pairs)
    return parameters


@lru_cache(maxsize=MOST_ADDRESSES)
def _address(client: str | None) -> tuple[int, int] | None:
    try:
        address = ipaddress.ip_address((client or "")[:64])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        address = mapped
    return address.version, int(address)


class Condition(Protocol):
    """One test of a policy."""

    @property
    def name(self) -> str:
        """Where the seed says it, such as `subject.roles.any`."""

    def truth(self, call: Call, used: frozenset[str]) -> Truth:
        """`used`: the roles that `any` and `all` may read. Forbids read all that are granted."""

    def seen(self, call: Call, used: frozenset[str]) -> str | Values | None:
        """The value that was tested; None when there is none."""


def _held(quantifier: str, asked: frozenset[str], values: frozenset[str]) -> bool:
    if quantifier == "any":
        return not asked.isdisjoint(values)
    return asked <= values if quantifier == "all" else asked.isdisjoint(values)


SINGLE: dict[str, Callable[[Call], str | None]] = {
    "subject.issuer": attrgetter("caller.identity.issuer"),
    "subject.id": attrgetter("caller.identity.subject"),
    "subject.kind": attrgetter("caller.identity.kind"),
    "when.country": attrgetter("country"),
}


class Among(NamedTuple):
    """A single attribute is one of the values."""

    name: str  # one of SINGLE
    values: frozenset[str]

    def truth(self, call: Call, used: frozenset[str]) -> Truth:
        value = SINGLE[self.name](call)
        return None if value is None else value in self.values

    def seen(self, call: Call, used: frozenset[str]) -> str | None:
        return SINGLE[self.name](call)


FLAGS: dict[str, Callable[[Call], str | None]] = {
    "subject.dpop": attrgetter("caller.identity.jkt"),
    "subject.delegated": attrgetter("caller.identity.actor"),
}


class Flag(NamedTuple):
    """Something is there, or is not: what binds the token to a key, who acts for the subject.

    Unknown only where the token is not at hand, in AuthZEN questions about others.
    """

    name: str  # one of FLAGS
    expected: bool

    def truth(self, call: Call, used: frozenset[str]) -> Truth:
        if self.name in call.caller.identity.untold:
            return None
        return (FLAGS[self.name](call) is not None) is self.expected

    def seen(self, call: Call, used: frozenset[str]) -> str | None:
        return FLAGS[self.name](call)


class Roles(NamedTuple):
    """The roles in use hold `any` or `all` of the values; or, of all that are granted, `none`.

    A role is unknown when it could have been granted by a claim that the token does not carry.
    """

    quantifier: str
    values: frozenset[str]

    @property
    def name(self) -> str:
        return f"subject.roles.{self.quantifier}"

    def truth(self, call: Call, used: frozenset[str]) -> Truth:
        identity, values = call.caller.identity, self.values
        if self.quantifier == "any":
            if not values.isdisjoint(used):
                return True
            return None if not values.isdisjoint(identity.unknown) else False
        if self.quantifier == "all":
            if values <= used:
                return True
            return None if values <= used | identity.unknown else False
        if not values.isdisjoint(identity.granted):
            return False
        return None if not values.isdisjoint(identity.unknown) else True

    def seen(self, call: Call, used: frozenset[str]) -> Values:
        return tuple(sorted(call.caller.identity.granted if self.quantifier == "none" else used))


class Claim(NamedTuple):
    """A claim of the token, at `path`, holds any, all or none of the values. Unknown when it is not there."""

    quantifier: str
    path: Values
    values: frozenset[str]

    @property
    def name(self) -> str:
        return f"subject.claims.{'.'.join(self.path)}.{self.quantifier}"

    def truth(self, call: Call, used: frozenset[str]) -> Truth:
        held = call.caller.identity.claims.get(self.path)
        return None if held is None else _held(self.quantifier, self.values, frozenset(held))

    def seen(self, call: Call, used: frozenset[str]) -> Values | None:
        return call.caller.identity.claims.get(self.path)


def _fact(call: Call, field: str, attested: bool) -> Fact | None:
    fact = call.caller.workload.get(field)
    return None if fact is None or (attested and not fact.attested) else fact


NAMED = ("dag", "task", "run_type", "triggered_by", "environment")


class Named(NamedTuple):
    """A fact of the task behind the call matches one of the patterns. False for a human: there is no task.

    `triggered_by` is unknown for a run that nobody triggered, too: the token doesn't tell that from not saying it.
    """

    field: str  # one of NAMED
    globs: tuple[Glob, ...]
    attested: bool  # only what the token's claims say counts

    @property
    def name(self) -> str:
        return f"workload.{self.field}"

    def truth(self, call: Call, used: frozenset[str]) -> Truth:
        if call.caller.identity.kind == "human":
            return False
        fact = _fact(call, self.field, self.attested)
        if fact is None:
            return None
        return any([glob.matches(str(fact.value)) for glob in self.globs])

    def seen(self, call: Call, used: frozenset[str]) -> str | None:
        fact = _fact(call, self.field, self.attested)
        return None if fact is None else str(fact.value)


class Tags(NamedTuple):
    """The tags of the DAG behind the call hold any, all or none of the values. False for a human."""

    quantifier: str
    values: frozenset[str]
    attested: bool

    @property
    def name(self) -> str:
        return f"workload.tags.{self.quantifier}"

    def truth(self, call: Call, used: frozenset[str]) -> Truth:
        if call.caller.identity.kind == "human":
            return False
        fact = _fact(call, "tags", self.attested)
        return None if fact is None else _held(self.quantifier, self.values, frozenset(fact.value))

    def seen(self, call: Call, used: frozenset[str]) -> Values | None:
        fact = _fact(call, "tags", self.attested)
        return None if fact is None else tuple(fact.value)


class Query(NamedTuple):
    """A parameter of the query. The query is known as a whole, so one that is not there is no value, not unknown.

    Sent twice, or as a list (`name[]`), it is unknown: servers take the first, the last, both or none.
    """

    quantifier: str
    parameter: str
    values: frozenset[str]

    @property
    def name(self) -> str:
        return f"target.query.{self.parameter}.{self.quantifier}"

    def truth(self, call: Call, used: frozenset[str]) -> Truth:
        held = self.seen(call, used)
        return None if held is None or len(held) > 1 else _held(self.quantifier, self.values, frozenset(held))

    def seen(self, call: Call, used: frozenset[str]) -> Values | None:
        return call.parameter(self.parameter)


class Property(NamedTuple):
    """A property of an AuthZEN resource. Unknown when the question does not carry it."""

    quantifier: str
    member: str
    values: frozenset[str]

    @property
    def name(self) -> str:
        return f"target.properties.{self.member}.{self.quantifier}"

    def truth(self, call: Call, used: frozenset[str]) -> Truth:
        held = self.seen(call, used)
        return None if held is None else _held(self.quantifier, self.values, frozenset(held))

    def seen(self, call: Call, used: frozenset[str]) -> Values | None:
        return call.target.properties.get(self.member)


class Ids(NamedTuple):
    """The id of an AuthZEN resource matches one of the patterns."""

    globs: tuple[Glob, ...]

    @property
    def name(self) -> str:
        return "target.ids"

    def truth(self, call: Call, used: frozenset[str]) -> Truth:
        return any([glob.matches(call.target.segments[0]) for glob in self.globs])

    def seen(self, call: Call, used: frozenset[str]) -> str:
        return call.target.segments[0]


class Network(NamedTuple):
    """The client's address is in one of the ranges. Unknown when the runtime does not say it."""

    ranges: Values  # CIDR notation (RFC 4632, RFC 4291)
    bounds: tuple[tuple[int, int, int], ...]  # the same as (version, lowest, highest)

    @classmethod
    def of(cls, ranges: Values) -> "Network":
        """Raises ValueError for a range that is not written as CIDR, or has bits set behind its prefix.

        Also for IPv4 written as IPv6: no address would be in it, for those are read as IPv4.
        """
        networks = [ipaddress.ip_network(text) for text in ranges]
        if any([getattr(net.network_address, "ipv4_mapped", None) is not None for net in networks]):
            raise ValueError("IPv4 written as IPv6")
        bounds = tuple(
            (net.version, int(net.network_address), int(net.broadcast_address)) for net in networks
        )
        return cls(ranges, bounds)

    @property
    def name(self) -> str:
        return "when.ip"

    def truth(self, call: Call, used: frozenset[str]) -> Truth:
        address = call.address
        if address is None:
            return None
        version, number = address
        return any([version == of and low <= number <= high for of, low, high in self.bounds])

    def seen(self, call: Call, used: frozenset[str]) -> str | None:
        return call.client


EQUATED = ("subject", "workload", "resource", "query")  # what the name of an attribute begins with
_WORKLOAD = frozenset({*NAMED, "run"})


class Equal(NamedTuple):
    """Two attributes have the same value. Unknown when one is not there, or has several.

    `subject.id`, `subject.issuer`, `subject.kind`, and `subject.NAME`: the token's claim NAME. `workload.dag`, `.task`,
    `.run`, `.run_type`, `.triggered_by`, `.environment`. `resource.NAME`: the segment that `{NAME}` of the path pattern
    stands for; of an AuthZEN resource its property NAME or its `id`. `query.NAME`: that parameter.
    """

    left: str
    right: str
    attested: bool

    @property
    def name(self) -> str:
        return f"when.equals.{self.left}={self.right}"

    def truth(self, call: Call, used: frozenset[str]) -> Truth:
        if call.caller.identity.kind == "human" and (
            self.left.startswith("workload.") or self.right.startswith("workload.")
        ):
            return False
        left, right = self._read(self.left, call), self._read(self.right, call)
        if left is None or right is None or len(left) > 1 or len(right) > 1:
            return None
        return bool(left) and left == right

    def seen(self, call: Call, used: frozenset[str]) -> Values | None:
        left, right = self._read(self.left, call), self._read(self.right, call)
        return None if left is None or right is None else (*left, *right)

    def _read(self, attribute: str, call: Call) -> Values | None:
        space, _, name = attribute.partition(".")
        identity = call.caller.identity
        value: str | None = None
        if space == "subject":
            if name not in ("id", "issuer", "kind"):
                return identity.claims.get((name,))
            value = {"id": identity.subject, "issuer": identity.issuer, "kind": identity.kind}[name]
        elif space == "workload":
            fact = _fact(call, name, self.attested)
            value = None if fact is None else str(fact.value)
        elif space == "query":
            return call.parameter(name)
        elif call.target.upstream.startswith(RESOURCE):
            if name != "id":
                return call.target.properties.get(name)
            value = call.target.segments[0]
        else:
            value = call.placeholder(name)
        return None if value is None else (value,)


def equated(attribute: str) -> bool:
    """Whether `equals` may name this attribute."""
    space, dot, name = attribute.partition(".")
    return bool(dot and name) and space in EQUATED and (space != "workload" or name in _WORKLOAD)
