"""Policies: what one says, how those that could match are found, and the decision.

Deny by default; a forbid that matches wins over any permit; order does not matter. A policy joins its conditions by
Kleene's AND, and unknown makes a permit not match and a forbid match, so a value left out can never open the gate.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from conditions import Among, Call, Claim, Condition, Roles, Truth
from model import Decision, Reason, Target
from obligations import NOTHING, Obligations, merge

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

MOST_FOUND = 256  # addresses whose places an index keeps


class Policy(NamedTuple):
    """One policy, its upstream aside: that is the index's."""

    id: str
    owner: str
    forbids: bool
    shadow: bool  # evaluated and logged, never applied
    methods: tuple[str, ...]  # ("*",): all
    paths: tuple[str, ...]
    conditions: tuple[Condition, ...]
    obligations: Obligations | None  # merged

    def truth(self, call: Call, route: str) -> Truth:
        """Whether it applies to a call whose target one of its path patterns, the route, matches."""
        call.route = route
        # Dropping a role must never escape a forbid, so only permits see the narrowed roles.
        used = call.caller.identity.granted if self.forbids else call.caller.effective
        truth: Truth = True
        for condition in self.conditions:
            holds = condition.truth(call, used)
            if holds is False:
                return False
            if holds is None:
                truth = None
        return truth

    def lent(self, call: Call, route: str) -> bool:
        """Whether a permit applies to somebody whom a grant lends it: all holds but who it is for."""
        call.route = route
        if self.forbids or self.shadow:
            return False
        used = call.caller.effective
        return all([condition.truth(call, used) for condition in self.conditions if not _names(condition)])

    def matches(self, call: Call, route: str) -> bool:
        truth = self.truth(call, route)
        return self.forbids if truth is None else truth


def _names(condition: Condition) -> bool:
    """Whether a condition says who a policy is for. Who is shut out, and how a token must be bound, it doesn't."""
    if isinstance(condition, Roles | Claim):
        return condition.quantifier != "none"
    return isinstance(condition, Among) and condition.name.startswith("subject.")


Candidate = tuple[Policy, str]  # a policy whose target matches, with the path pattern that does

# Where policies end, by method ("*": all) and by role ("": whatever the roles): number of a policy, of its path, ...
Ends = dict[str, dict[str, list[int]]]

# A place in the tree of path patterns: literal segments, {name} or * as a whole segment, patterns with * inside one,
# policies that end here, policies that hold for everything from here on.
Node = list[Any]  # [dict[str, Node] | None, Node | None, dict[str, Node] | None, Ends | None, Ends | None]

Places = list[dict[str, list[int]]]


class Index:
    """One upstream's policies by path, method and role, so that a decision costs what matches and not what exists.

    The tree is the compiler's. `policy` builds the policy of a number; it is asked once for each that is a candidate.
    """

    def __init__(
        self, root: Node, globs: dict[str, Callable[[str], bool]], policy: Callable[[int], Policy]
    ) -> None:
        self._root = root
        self._globs = globs  # what the patterns with * inside a segment match
        self._policy = policy
        self._built: dict[int, Policy] = {}
        self._found: dict[tuple[str, tuple[str, ...]], Places] = {}

    def candidates(self, target: Target, roles: Iterable[str]) -> list[Candidate]:
        """The policies whose target matches and that these roles leave possible, in the order of their ids."""
        numbers: list[int] = []
        for by_role in self._places(target.method, target.segments):
            if "" in by_role:
                numbers += by_role[""]
            for role in roles:
                if role in by_role:
                    numbers += by_role[role]
        if len(numbers) == 2:
            return [self._candidate(numbers[0], numbers[1])]
        pairs = sorted(set(zip(numbers[::2], numbers[1::2], strict=True)))
        return [self._candidate(policy, path) for policy, path in pairs]

    def reachable(self, target: Target) -> list[Candidate]:
        """All policies whose target matches, whatever the caller's roles."""
        roles = {role for by_role in self._places(target.method, target.segments) for role in by_role}
        return self.candidates(target, roles - {""})

    def _candidate(self, number: int, path: int) -> Candidate:
        policy = self._built.get(number)
        if policy is None:
            policy = self._built[number] = self._policy(number)
        return policy, policy.paths[path]

    def _places(self, method: str, segments: tuple[str, ...]) -> Places:
        """Kept by address: tasks call the same few again and again, and an index never changes."""
        address = (method, segments)
        found = self._found.get(address)
        if found is None:
            found = self._walk(method, segments)
            if len(self._found) >= MOST_FOUND:
                self._found.clear()
            self._found[address] = found
        return found

    def _walk(self, method: str, segments: tuple[str, ...]) -> Places:
        """Level by level, without recursion."""
        nodes = [self._root]
        ends: list[Ends] = []
        for segment in segments:
            reached: list[Node] = []
            for literal, one, globs, _, below in nodes:
                if below is not None:
                    ends.append(below)
                if literal is not None and segment in literal:
                    reached.append(literal[segment])
                if one is not None:
                    reached.append(one)
                if globs is not None:
                    reached += [node for pattern, node in globs.items() if self._globs[pattern](segment)]
            nodes = reached
        for _, _, _, here, below in nodes:
            if here is not None:
                ends.append(here)
            if below is not None:
                ends.append(below)
        places = []
        for end in ends:
            if method in end:
                places.append(end[method])
            if "*" in end:
                places.append(end["*"])
        return places


def decide(index: Index, call: Call, lent: frozenset[str] = frozenset()) -> Decision:
    """Decide a call to the index's upstream. Permits whose obligations exclude each other let nothing through.

    `lent`: ids of permits that a grant lends to the caller.
    """
    identity = call.caller.identity
    roles = identity.granted | identity.unknown if identity.unknown else identity.granted
    permits: list[Candidate] = []
    forbids: list[Candidate] = []
    shadow: list[Candidate] = []
    for candidate in index.candidates(call.target, roles):
        policy, route = candidate
        if policy.matches(call, route):
            (shadow if policy.shadow else forbids if policy.forbids else permits).append(candidate)
    if lent:
        found = [each for each in index.reachable(call.target) if each[0].id in lent and each not in permits]
        permits += [(policy, route) for policy, route in found if policy.lent(call, route)]
    reason = Reason.POLICY_FORBIDDEN if forbids else None if permits else Reason.POLICY_NO_MATCH
    obligations = NOTHING if forbids else _obligations(permits)
    if obligations.conflict:
        reason = Reason.POLICY_OBLIGATION
    first, route = (forbids or permits or _NONE)[0]
    would = reason is None
    if shadow:
        against = forbids or any([policy.forbids for policy, _ in shadow])
        would = not against and not _obligations([*permits, *shadow]).conflict
    return Decision(
        reason is None,
        reason,
        _ids(permits),
        _ids(forbids),
        route or None,
        first.owner or None,
        _ids(shadow),
        would,
        obligations,
    )


_NONE: list[Candidate] = [(Policy("", "", False, False, (), (), (), None), "")]


def _ids(candidates: list[Candidate]) -> tuple[str, ...]:
    if len(candidates) <= 1:
        return (candidates[0][0].id,) if candidates else ()
    return tuple(dict.fromkeys([policy.id for policy, _ in candidates]))  # several of its paths may match


def _obligations(permits: list[Candidate]) -> Obligations:
    asked = [policy.obligations for policy, _ in permits if policy.obligations is not None]
    return merge(asked) if len(asked) > 1 else asked[0] if asked else NOTHING
