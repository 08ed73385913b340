"""The search for a request inside some regions and outside others.

A candidate is made that is inside. Where the gate's own index says that it is in a region to be avoided, it is led out
by each of the ways there are, one after the other. When no way is left there is no such request: that is a proof.
The work is bounded, and whatever is found has passed the gate's own code.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

from airgate.engine import Call, Denied, Shard, Zone, load_shard
from airgate.policy import bounds
from airgate.policy.bounds import Demands, Key
from airgate.policy.callers import USED, Alternative, Callers, Clause, base
from airgate.policy.formulas import Box, Formula, boxes
from airgate.policy.index import Rule, canonical, shard
from airgate.policy.patterns import ExhaustedError
from airgate.policy.pins import Pins
from airgate.policy.witness import ContradictoryError, Draft, Witness

MOST_STEPS = 1_000  # candidates made in one search
MOST_CHOICES = 100_000  # alternatives tried in one

Store = dict[Key, Demands]


@dataclass(frozen=True)
class Unknown:
    """Neither an example was found nor a proof that there is none."""

    why: str


@dataclass(frozen=True, eq=False)
class Part:
    """A rule, of one upstream, as one policy set has it."""

    rule: Rule
    upstream: str
    zones: dict[str, Zone]
    callers: Callers
    held: bool = False  # it reads all roles that are granted, in use or not

    @property
    def credential(self) -> str | None:
        """Of a permit. Two that ask for different ones deny together what each of them permits."""
        credential: str | None = (self.rule.obligations or {}).get("credential")
        return credential

    @cached_property
    def boxes(self) -> list[Box]:
        return boxes(self.rule, self.upstream, self.zones, self.held, self.callers.odd(self.upstream))

    @cached_property
    def net(self) -> "Net":
        """The rule alone, as the gate would load it."""
        return Net(self.upstream, [(self,)])

    @cached_property
    def _formulas(self) -> dict[tuple[str, int], tuple[Formula, list[Formula]]]:
        return {}

    def inside(self, box: Box, issuer: str) -> Formula:
        return self._of(box, issuer)[0]

    def outside(self, box: Box, issuer: str) -> list[Formula]:
        return self._of(box, issuer)[1]

    def _of(self, box: Box, issuer: str) -> tuple[Formula, list[Formula]]:
        key = issuer, id(box)
        if key not in self._formulas:
            tokens = self.callers.tokens[issuer]
            self._formulas[key] = box.inside(tokens), box.outside(tokens)
        return self._formulas[key]


Match = list[tuple[Part, Box]]


class Net:
    """Regions of one upstream, loaded as the gate would load policies, to say which of them a request is in.

    A region is the calls that all of its parts match. `permits`: two of them that ask for different credentials are a
    region, too.
    """

    def __init__(
        self, upstream: str, regions: Iterable[tuple[Part, ...]], permits: Iterable[Part] = ()
    ) -> None:
        regions = list(regions)
        self._asking = {id(part): part for part in permits if part.credential is not None}
        named_parts = {id(part): part for region in regions for part in region}
        parts = list((named_parts | self._asking).values())
        self.reads = frozenset(row[0] for part in parts for row in part.rule.conditions)
        self._regions: dict[int, list[tuple[Part, ...]]] = {}
        for region in regions:
            self._regions.setdefault(id(region[0]), []).append(region)
        self._loaded: dict[tuple[Callers, bool], tuple[Shard, dict[str, tuple[Part, Box]]]] = {}
        for reading in {(part.callers, part.held): None for part in parts}:
            named: dict[str, tuple[Part, Box]] = {}
            zones: dict[str, Zone] = {}
            for part in parts:
                if (part.callers, part.held) == reading:
                    zones |= part.zones
                    for box in part.boxes:
                        named[f"{len(named):07}"] = part, box
            rules = [
                replace(box.rule, id=name, paths=list(box.paths), shadow=False, obligations=None)
                for name, (_, box) in named.items()
            ]
            document = shard(upstream, rules, {name: _zone(zone) for name, zone in zones.items()})
            self._loaded[reading] = load_shard(canonical(document), upstream), named

    def matching(self, calls: "Calls") -> list[Match]:
        """For each region that the request is in: its parts, by the boxes that match."""
        matched: dict[int, Match] = {}
        for (callers, held), (loaded, named) in self._loaded.items():
            call = calls.by(callers, held)
            if call is None:
                continue
            decision = loaded.decide(call)
            for name in (*decision.forbids, *decision.permits):
                part, box = named[name]
                matched.setdefault(id(part), []).append((part, box))
        found = [
            [pair for part in region for pair in matched[id(part)]]
            for first in matched
            for region in self._regions.get(first, ())
            if all(id(part) in matched for part in region)
        ]
        by_credential = {
            self._asking[each].credential: matched[each] for each in matched if each in self._asking
        }
        if len(by_credential) > 1:
            one, other, *_ = by_credential.values()
            found.append([*one, *other])
        return found


class Calls:
    """What each policy set makes of a request."""

    def __init__(self, request: Witness, since: float) -> None:
        self.request = request
        self._since = since
        self._calls: dict[Callers, Call | None] = {}

    def by(self, callers: Callers, held: bool = False) -> Call | None:
        """`held`: as if the caller had all its roles in use."""
        if callers not in self._calls:
            self._calls[callers] = self.request.call(callers, self._since)
        call = self._calls[callers]
        if call is None or not held:
            return call
        caller = call.caller._replace(effective=call.caller.identity.granted)
        return Call(caller, call.target, call.now, call.client, call.country)


def _zone(zone: Zone) -> dict[str, Any]:
    return {"starts": list(zone.starts), "offsets": list(zone.offsets), "until": zone.until}


class Search:
    """One question: is there a request that all of `inside` match, and none of `outside`?"""

    def __init__(self, inside: list[Part], outside: Net, since: float = 0, most: int = MOST_STEPS) -> None:
        self.upstream = inside[0].upstream
        self.inside = inside
        self.outside = outside
        self.since = since
        self.reads = outside.reads.union(*(part.net.reads for part in inside))
        self._steps = most
        self._choices = MOST_CHOICES
        self._why = ""

    def answer(self) -> Witness | Unknown | None:
        """A request; None, which is a proof that there is none; or neither."""
        try:
            found = self._over_issuers()
        except (ExhaustedError, RecursionError):
            return Unknown("the search was given up, for it would take too long")
        if found is not None:
            return found
        return Unknown(self._why) if self._why else None

    def _over_issuers(self) -> Witness | None:
        for issuer in self.inside[0].callers.tokens:
            if any(issuer not in part.callers.tokens for part in self.inside):
                continue
            for chosen in product(*(part.boxes for part in self.inside)):
                found = _OfIssuer(self, issuer, chosen).search()
                if found is not None:
                    return found
        return None

    def step(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise ExhaustedError

    def choice(self) -> None:
        self._choices -= 1
        if self._choices < 0:
            raise ExhaustedError

    def unsure(self, why: str) -> None:
        self._why = self._why or why

    def is_inside(self, calls: Calls) -> bool:
        return all(part.net.matching(calls) for part in self.inside)


class _OfIssuer:
    """The search among the callers of one issuer, by one box of each part."""

    def __init__(self, question: Search, issuer: str, chosen: tuple[Box, ...]) -> None:
        self.question = question
        self.issuer = issuer
        self.chosen = chosen
        self.tokens = question.inside[0].callers.tokens[issuer]
        self.base: dict[Key, Demands] = {}

    def _start(self, key: Key) -> Demands:
        found = self.base.get(key)
        if found is None:
            found = base(key)
            if key == ("now",):
                found |= {("since", int(self.question.since))}
            self.base[key] = found
        return found

    def meet(self, store: Store, key: Key) -> Any:
        return bounds.meet(key, store.get(key) or self._start(key))

    def search(self) -> Witness | None:
        clauses: list[Clause] = []
        for part, box in zip(self.question.inside, self.chosen, strict=True):
            clauses += part.inside(box, self.issuer)
        return self._descend({}, clauses, frozenset())

    def _descend(self, store: Store, clauses: list[Clause], left: frozenset[int]) -> Witness | None:
        """`left`: the boxes that were left already."""
        self.question.step()
        settled = self._settle(store, clauses)
        if settled is None:
            return None
        store, clauses = settled
        found = self._choose(store, clauses)
        if found is None:
            return None
        matching = self.question.outside.matching(found)
        if not matching:
            return found.request
        for box in (box for region in matching for _, box in region):
            if id(box) in left:
                self.question.unsure(_entangled(box.rule.id))
                return None
        ways = self._fewest_ways(store, matching)
        for box, way in ways:
            request = self._descend(store, [*clauses, *way], left | {id(box)})
            if request is not None:
                return request
        return None

    def _fewest_ways(self, store: Store, matching: list[Match]) -> list[tuple[Box, Formula]]:
        """The ways out of the region that has the fewest."""
        fewest: list[tuple[Box, Formula]] | None = None
        for region in matching:
            ways = [*self._ways_out(store, region)]
            if fewest is None or len(ways) < len(fewest):
                fewest = ways
            if len(fewest) <= 1:
                break
        return fewest or []

    def _ways_out(self, store: Store, region: Match) -> Iterator[tuple[Box, Formula]]:
        for part, box in region:
            for way in part.outside(box, self.issuer):
                if all(self._can_meet(store, clause) for clause in way):
                    yield box, way

    def _can_meet(self, store: Store, clause: Clause) -> bool:
        """Whether that isn't barred at first sight."""
        return any(self._with(store, alternative) is not None for alternative in clause)

    def _with(self, store: Store, alternative: Alternative) -> Store | None:
        """The store with the demands of an alternative; None when they can't be met together."""
        self.question.choice()
        changed = store
        for key, demand in alternative:
            held = changed.get(key) or self._start(key)
            if demand in held:
                continue
            more = held | {demand}
            if bounds.meet(key, more) is None:
                return None
            if changed is store:
                changed = dict(store)
            changed[key] = more
        return changed

    def _settle(self, store: Store, clauses: list[Clause]) -> tuple[Store, list[Clause]] | None:
        """Meet the clauses that leave no choice. None when one can't be met."""
        while True:
            left: list[Clause] = []
            before = store
            for clause in clauses:
                possible = [
                    (alternative, changed)
                    for alternative in clause
                    if (changed := self._with(store, alternative)) is not None
                ]
                if not possible:
                    return None
                if any(changed is store for _, changed in possible):
                    continue
                if len(possible) == 1:
                    store = possible[0][1]
                else:
                    left.append(tuple(alternative for alternative, _ in possible))
            if store is before:
                return store, left
            clauses = left

    def _choose(self, store: Store, clauses: list[Clause], pinned: bool = False) -> Calls | None:
        """A request that is inside: one alternative of each clause, as far as they go together."""
        self.question.choice()
        for number, clause in enumerate(clauses):
            stores = [self._with(store, alternative) for alternative in clause]
            if any(changed is store for changed in stores):
                continue
            for changed in stores:
                if changed is not None:
                    request = self._choose(changed, clauses[number + 1 :], pinned)
                    if request is not None:
                        return request
            return None
        if not pinned and (pins := self._pins(store)):
            request = self._choose(store, pins, pinned=True)
            if request is None:
                self.question.unsure("no two values were found that are equal, or not, as a policy asks")
            return request
        return self._request(store)

    def _request(self, store: Store) -> Calls | None:
        try:
            calls = self._tagged(store)
        except ContradictoryError:
            self.question.unsure("values that come from one place would have to differ")
            return None
        if calls is not None and not self.question.is_inside(calls):
            self.question.unsure(_entangled(*(part.rule.id for part in self.question.inside)))
            return None
        return calls

    def _draft(self, store: Store) -> Draft:
        return Draft(
            store,
            lambda key: self.meet(store, key),
            self.tokens,
            self.question.upstream,
            self.question.reads,
        )

    def _tagged(self, store: Store) -> Calls | None:
        """With a role tag, if the caller has to act under fewer roles than the token grants."""
        draft = self._draft(store)
        calls = self._calls(draft.request())
        used, unused = draft.unused()
        granted = self._granted(calls.request) if unused or self.tokens.mapping.must_tag else frozenset()
        if not (granted & unused or self.tokens.mapping.must_tag):
            return calls
        if used:
            return self._calls(draft.request(tuple(sorted(used))))
        if kept := granted - unused:
            return self._calls(draft.request((min(kept),)))
        # A tag names at least one role: another one has to be granted.
        for role in sorted(self.tokens.grants.keys() - unused):
            for way in self.tokens.granted(role):
                changed = self._with(store, (*way, (USED, ("in", role))))
                if changed is not None:
                    return self._calls(self._draft(changed).request((role,)))
        return None

    def _granted(self, request: Witness) -> frozenset[str]:
        """The roles of the caller, who may have to name some of them."""
        try:
            return request.caller(self.tokens).identity.granted
        except Denied:
            return frozenset()

    def _calls(self, request: Witness) -> Calls:
        return Calls(request, self.question.since)

    def _pins(self, store: Store) -> list[Clause]:
        """Values for the attributes that are compared."""
        clauses: list[Clause] = []
        for key in sorted(store):
            if key[0] == "equals":
                _, left, right, attested, *_ = key
                values = {each: self.meet(store, each) for each in store}
                pins = Pins(self.tokens, values, bool(attested))
                allowed = self.meet(store, key)
                clauses.append(tuple(way for answer in allowed for way in pins.ways(left, right, answer)))
        return clauses


def _entangled(*names: str) -> str:
    return f"{', '.join(dict.fromkeys(names))}: the conditions hang together in a way that the analysis doesn't see"
