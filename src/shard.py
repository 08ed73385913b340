"""A shard: the policies of one upstream with their index, compiled by the command, read whole or not at all.

A shard can hold many thousands of policies and is read on the way of a request. So its parts are checked a column at
a time, by functions of the interpreter's own, and a policy is built when it is first a candidate.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, groupby
from operator import lt
from typing import Any, NamedTuple

from bundle import read_format
from clock import DAYS, MONTH_DAYS, Dates, Window, Zone
from conditions import (
    FLAGS,
    NAMED,
    QUANTIFIERS,
    RESOURCE,
    SINGLE,
    Among,
    Call,
    Claim,
    Condition,
    Equal,
    Flag,
    Glob,
    Ids,
    Named,
    Network,
    Property,
    Query,
    Roles,
    Tags,
    equated,
)
from document import Reader, read_compiled
from model import Decision
from obligations import BY, PERIODS, Limit, Obligations, canonical, merge
from policy import METHODS, Index, Policy, decide

LIMIT = 20_000_000  # characters
DEPTH = 160  # a path of 64 segments takes two levels for each
MOST_POLICIES = 200_000
MOST_NODES = 1_000_000

Column = Sequence[Any]
Check = Callable[[Column, str], None]

_EFFECTS = {
    "permit": (False, False),
    "forbid": (True, False),
    "permit?": (False, True),
    "forbid?": (True, True),
}


class Shard(NamedTuple):
    """The policies of one upstream, ready to decide by."""

    lookup: Index
    policies: int  # how many
    size: int  # characters of its text
    asks_country: bool  # whether a condition looks at the client's country

    def decide(self, call: Call, lent: frozenset[str] = frozenset()) -> Decision:
        return decide(self.lookup, call, lent)


_NONE: tuple[Policy, ...] = ()
EMPTY = Shard(Index([None] * 5, {}, _NONE.__getitem__), 0, 0, False)  # of an upstream that no policy names


def _typed(values: Iterable[Any], kinds: set[type], where: str) -> None:
    if not set(map(type, values)) <= kinds:
        raise ValueError(f"{where}: expected {' or '.join(sorted(kind.__name__ for kind in kinds))}")


# What a member of a condition's row can be. Each checks a column of them.


def _text(column: Column, where: str) -> None:
    _typed(column, {str}, where)
    if not all(column):
        raise ValueError(f"{where}: an empty string")


def _texts(column: Column, where: str) -> None:
    _typed(column, {list}, where)
    if not all(column):
        raise ValueError(f"{where}: an empty list")
    _typed(chain.from_iterable(column), {str}, where)


def _flag(column: Column, where: str) -> None:
    _typed(column, {bool}, where)


def _whole(column: Column, where: str) -> None:
    _typed(column, {int}, where)
    if not 0 <= min(column) <= max(column) <= 2**53:
        raise ValueError(f"{where}: a number out of range")


def _month_days(column: Column, where: str) -> None:
    _typed(column, {list}, where)
    _typed(chain.from_iterable(column), {int}, where)
    if not all([days and MONTH_DAYS.issuperset(days) for days in column]):
        raise ValueError(f"{where}: no days, or one that no month has")


def _whole_or_null(column: Column, where: str) -> None:
    _whole([value for value in column if value is not None] or [0], where)


_SHAPES: dict[str, tuple[Check, ...]] = {
    **dict.fromkeys(SINGLE, (_texts,)),
    **dict.fromkeys(FLAGS, (_flag,)),
    **dict.fromkeys([f"workload.{name}" for name in NAMED], (_texts, _flag)),
    "target.ids": (_texts,),
    "when.time": (_text, _texts, _whole, _whole),
    "when.dates": (_whole_or_null, _whole_or_null),
    "when.ip": (_texts,),
    "when.equals": (_text, _text, _flag),
}
_QUANTIFIED: dict[str, tuple[Check, ...]] = {
    "subject.roles": (_texts,),
    "subject.claims": (_texts, _texts),
    "workload.tags": (_texts, _flag),
    "target.query": (_text, _texts),
    "target.properties": (_text, _texts),
}
_SHAPES |= {f"{name}.{q}": shape for name, shape in _QUANTIFIED.items() for q in QUANTIFIERS}


class _Conditions:
    """The conditions as the shard writes them: one row each. All are checked; one is built when first asked for."""

    def __init__(self, rows: list[Any], zones: dict[str, Zone], upstream: str) -> None:
        self._rows, self._zones = rows, zones
        _typed(rows, {list}, "shard.conditions")
        self.names: set[str] = set()
        for (name, length), group in groupby(rows, key=lambda row: (row[0] if row else None, len(row))):
            where = f"shard.conditions ({name!r:.80})"
            if not isinstance(name, str) or name not in _SHAPES:
                raise ValueError(f"{where}: not known to this version")
            shape = _SHAPES[name]
            if name == "when.time" and length == 6:  # on some days of the month only
                shape += (_month_days,)
            of_resource = name == "target.ids" or name.startswith("target.properties.")
            if name.startswith("target.") and of_resource != upstream.startswith(RESOURCE):
                raise ValueError(f"{where}: not what {upstream:.80} has")
            if length != 1 + len(shape):
                raise ValueError(f"{where}: expected {len(shape)} values")
            same = list(group)
            _, *columns = zip(*same, strict=True)
            for check, column in zip(shape, columns, strict=True):
                check(column, where)
            if name.startswith("when."):
                for row in same:  # they are few, and say more than their shape does
                    _condition(row, zones)
            self.names.add(name)
        self._built: list[Condition | None] = [None] * len(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Condition:
        built = self._built[number]
        if built is None:
            built = self._built[number] = _condition(self._rows[number], self._zones)
        return built


def _condition(row: list[Any], zones: dict[str, Zone]) -> Condition:
    """`row` has the shape of its name. ValueError when its values mean nothing."""
    full, *values = row
    name, _, quantifier = full.rpartition(".")
    if full in SINGLE:
        return Among(full, frozenset(values[0]))
    if full in FLAGS:
        return Flag(full, values[0])
    if name == "subject.roles":
        return Roles(quantifier, frozenset(values[0]))
    if name == "subject.claims":
        return Claim(quantifier, tuple(values[0]), frozenset(values[1]))
    if name == "workload.tags":
        return Tags(quantifier, frozenset(values[0]), values[1])
    if name == "workload":
        return Named(quantifier, tuple([Glob(pattern) for pattern in values[0]]), values[1])
    if name == "target.query":
        return Query(quantifier, values[0], frozenset(values[1]))
    if name == "target.properties":
        return Property(quantifier, values[0], frozenset(values[1]))
    if full == "target.ids":
        return Ids(tuple([Glob(pattern) for pattern in values[0]]))
    if full == "when.time":
        return _window(zones, *values)
    if full == "when.dates":
        return Dates(*values)
    if full == "when.ip":
        try:
            return Network.of(tuple(values[0]))
        except ValueError as error:
            raise ValueError(f"shard.conditions ({full}): {error!s:.200}") from error
    left, right, attested = values
    if not (equated(left) and equated(right)):
        raise ValueError(f"shard.conditions ({full}): expected attributes that can be compared")
    return Equal(left, right, attested)


def _window(
    zones: dict[str, Zone], zone: str, days: list[str], start: int, end: int, month_days: Iterable[int] = ()
) -> Window:
    if zone not in zones or not set(days) <= set(DAYS):
        raise ValueError("shard.conditions (when.time): expected a zone of the shard, and days")
    if not (start <= 1439 and 1 <= end <= 1440 and start != end):
        raise ValueError(
            "shard.conditions (when.time): expected minutes of a day, and an end other than the beginning"
        )
    return Window(zones[zone], frozenset(map(DAYS.index, days)), start, end, frozenset(month_days))


def _zone(name: str, reader: Reader) -> Zone:
    starts, offsets = reader.wholes("starts", -(2**53), 2**53), reader.wholes("offsets", -86_400, 86_400)
    if not starts or len(starts) != len(offsets) or not all(map(lt, starts, starts[1:])):
        raise reader.wrong("starts", "rising moments, as many as offsets")
    zone = Zone(name, starts, offsets, reader.whole("until", 0, 2**53))
    reader.done()
    return zone


def _obligations(reader: Reader) -> Obligations:
    limits: list[Limit] = []
    credential: str | None = None
    max_body: int | None = None
    headers: tuple[str, ...] = ()
    justification = False
    others: list[tuple[str, str]] = []
    for name in reader.all_names():
        if name == "rate_limit":
            limits = [_limit(item) for item in reader.items(name)]
        elif name == "credential":
            credential = reader.text(name)
        elif name == "max_body":
            max_body = reader.whole(name, 0, 2**53)
        elif name == "require":
            require = reader.within(name)
            headers, justification = require.texts("headers"), require.flag("justification")
            require.done()
        else:
            others.append((name, canonical(reader.value(name))))
    return Obligations(
        tuple(limits), credential, max_body, tuple(map(str.lower, headers)), justification, tuple(others)
    )


def _limit(reader: Reader) -> Limit:
    limit, per, by = reader.whole("limit", 1, 2**31), reader.whole("per", 1, 86_400), reader.some("by")
    if per not in PERIODS or not set(by) <= set(BY) or tuple(sorted(set(by), key=BY.index)) != by:
        raise reader.wrong("by", f"some of {', '.join(BY)}, in that order, in {PERIODS} seconds")
    reader.done()
    return Limit(limit, per, by, "")


class _Rows:
    """The policies as the shard writes them: one row each."""

    def __init__(
        self,
        rows: list[Any],
        owners: tuple[str, ...],
        conditions: _Conditions,
        obligations: list[Obligations],
    ) -> None:
        self._rows, self._owners, self._conditions, self._obligations = rows, owners, conditions, obligations
        if len(rows) > MOST_POLICIES:
            raise ValueError(f"shard.policies: more than {MOST_POLICIES}")
        _typed(rows, {list}, "shard.policies")
        if set(map(len, rows)) - {7}:
            raise ValueError("shard.policies: a policy is seven values")
        columns: Any = zip(*rows, strict=True) if rows else ((),) * 7
        ids, owned, effects, methods, paths, held, obliged = columns
        _typed(ids, {str}, "shard.policies: ids")
        if not all(map(lt, ids, ids[1:])):
            raise ValueError("shard.policies: ids are not in order, or one appears twice")
        _typed(effects, {str}, "shard.policies: effects")
        if not set(effects) <= _EFFECTS.keys():
            raise ValueError(f"shard.policies: an effect is one of {', '.join(_EFFECTS)}")
        for column, what in ((methods, "methods"), (paths, "paths"), (held, "conditions")):
            _typed(column, {list}, f"shard.policies: {what}")
        for column, what in ((methods, "methods"), (paths, "paths")):
            _typed(chain.from_iterable(column), {str}, f"shard.policies: {what}")
            if not all(column):
                raise ValueError(f"shard.policies: a policy has no {what}")
        self.paths = list(map(len, paths))
        self.methods = set(chain.from_iterable(methods))
        _numbers(owned, len(owners), "shard.policies: owners")
        _numbers(chain.from_iterable(held), len(conditions), "shard.policies: conditions")
        _numbers(
            [number for number in obliged if number is not None],
            len(obligations),
            "shard.policies: obligations",
        )

    def __call__(self, number: int) -> Policy:
        name, owner, effect, methods, paths, conditions, obligation = self._rows[number]
        forbids, shadow = _EFFECTS[effect]
        obligations = None if obligation is None else self._obligations[obligation]
        if obligations is not None:
            own = [
                limit._replace(policy=name) if "policy" in limit.by else limit for limit in obligations.limits
            ]
            obligations = merge([obligations._replace(limits=tuple(own))])
        return Policy(
            name, self._owners[owner], forbids, shadow, tuple(methods), tuple(paths),
            tuple([self._conditions[condition] for condition in conditions]), obligations,
        )  # fmt: skip


def _numbers(values: Iterable[Any], below: int, where: str) -> None:
    values = list(values)
    _typed(values, {int}, where)
    if values and not 0 <= min(values) <= max(values) < below:
        raise ValueError(f"{where}: a number that stands for nothing")


def _tree(root: Any, rows: _Rows, methods: set[str]) -> dict[str, Any]:
    """Check the tree, level by level. Returns what each pattern in it matches."""
    level: list[Any] = [root]
    ends: list[Any] = []
    patterns: set[str] = set()
    nodes = 0
    while level:
        nodes += len(level)
        _typed(level, {list}, "shard.index")
        if nodes > MOST_NODES or set(map(len, level)) != {5}:
            raise ValueError("shard.index: a node is five values, or there are too many")
        literal, one, globs, here, below = zip(*level, strict=True)
        branches = [branch for branch in literal + globs if branch is not None]
        _typed(branches, {dict}, "shard.index")
        patterns.update(chain.from_iterable(branch for branch in globs if branch is not None))
        ends += [end for end in here + below if end is not None]
        level = list(chain.from_iterable(map(dict.values, branches))) + [
            node for node in one if node is not None
        ]
    _typed(ends, {dict}, "shard.index")
    if not set(chain.from_iterable(ends)) <= methods:
        raise ValueError("shard.index: a method that no policy names")
    by_role = list(chain.from_iterable(map(dict.values, ends)))
    _typed(by_role, {dict}, "shard.index")
    found = list(chain.from_iterable(map(dict.values, by_role)))
    _typed(found, {list}, "shard.index")
    if any([len(numbers) % 2 for numbers in found]):
        raise ValueError("shard.index: a policy without the number of its path")
    flat = list(chain.from_iterable(found))
    policies, paths = flat[::2], flat[1::2]
    _numbers(policies, len(rows.paths), "shard.index: policies")
    _typed(paths, {int}, "shard.index: paths")
    if paths and (min(paths) < 0 or not all(map(lt, paths, map(rows.paths.__getitem__, policies)))):
        raise ValueError("shard.index: a path that its policy does not have")
    if len(set(zip(policies, paths, strict=True))) != sum(rows.paths):
        raise ValueError("shard.index: a path of a policy is nowhere in the tree")
    return {pattern: Glob(pattern).matches for pattern in patterns}


def load_shard(text: str, upstream: str) -> Shard:
    """Read the JSON of an upstream's shard. ValueError says where it is wrong; nothing of a wrong shard is used."""
    root = Reader(read_compiled(text, limit=LIMIT, depth=DEPTH), "shard")
    read_format(root)  # 4 and 5 are read alike: what came with 5 is in no shard of 4
    if root.text("upstream") != upstream:
        raise root.wrong("upstream", upstream)
    zones_reader = root.within("zones")
    zones = {name: _zone(name, zones_reader.within(name)) for name in zones_reader.all_names()}
    conditions = _Conditions(root.array("conditions"), zones, upstream)
    rows = _Rows(
        root.array("policies"),
        root.texts("owners"),
        conditions,
        [_obligations(item) for item in root.items("obligations")],
    )
    known = METHODS | {"*"}
    if not (upstream.startswith(RESOURCE) or rows.methods <= known):
        raise root.wrong("policies", "only methods of " + ", ".join(sorted(known)))
    index = Index(tree := root.value("index"), _tree(tree, rows, rows.methods), rows)
    root.done()
    return Shard(
        lookup=index,
        policies=len(rows.paths),
        size=len(text),
        asks_country="when.country" in conditions.names,
    )
