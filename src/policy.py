"""Policies: what one says, how those that could match are found, and the decision.

Deny by default; a forbid that matches wins over any permit; order does not matter. A condition is true, false or
unknown (None): the value it asks for is not there. A policy joins its conditions by Kleene's AND, and unknown makes a
permit not match and a forbid match, so a value left out can never open the gate.
"""

from collections.abc import Iterable
from typing import NamedTuple

from model import Caller, Decision, Reason, Target

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

MOST_FOUND = 512  # addresses whose candidates an index keeps

Truth = bool | None


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


class Choice(NamedTuple):
    """A test on a set of names: at least one of `any`, every one of `all`, not one of `none`."""

    any: frozenset[str] = frozenset()
    all: frozenset[str] = frozenset()
    none: frozenset[str] = frozenset()

    def holds(self, used: frozenset[str], held: frozenset[str]) -> bool:
        """`any` and `all` read the names in use; `none` reads every name held, used or not."""
        return (
            (not self.any or not self.any.isdisjoint(used))
            and self.all <= used
            and self.none.isdisjoint(held)
        )


class Workload(NamedTuple):
    """What a policy asks of the task behind a call."""

    names: tuple[tuple[str, tuple[Glob, ...]], ...]  # (dag or task, patterns of which one must match)
    tags: Choice | None  # None: nothing asked
    attested: bool  # only values from the token's claims count


class Policy(NamedTuple):
    """One policy. None in a field: nothing asked."""

    id: str
    owner: str
    forbids: bool
    shadow: bool  # evaluated and logged, never applied
    issuers: frozenset[str] | None
    ids: frozenset[str] | None
    kinds: frozenset[str] | None
    roles: Choice
    workload: Workload | None
    upstreams: tuple[str, ...]
    methods: tuple[str, ...]  # ("*",): all
    paths: tuple[str, ...]

    def matches(self, caller: Caller) -> bool:
        """Whether this policy applies to a caller, its target having been matched already."""
        identity = caller.identity
        if (
            (self.issuers is not None and identity.issuer not in self.issuers)
            or (self.ids is not None and identity.subject not in self.ids)
            or (self.kinds is not None and identity.kind not in self.kinds)
            # Dropping a role must never escape a forbid, so only permits see the narrowed roles.
            or not self.roles.holds(identity.granted if self.forbids else caller.effective, identity.granted)
        ):
            return False
        truth = _workload(self.workload, caller) if self.workload is not None else True
        return self.forbids if truth is None else truth


def _workload(asked: Workload, caller: Caller) -> Truth:
    if caller.identity.kind == "human":
        return False  # there is no task to be unknown about
    truth: Truth = True
    for name, globs in asked.names:
        fact = caller.workload.get(name)
        if fact is None or (asked.attested and not fact.attested):
            truth = None
        elif not any(glob.matches(str(fact.value)) for glob in globs):
            return False
    if asked.tags is not None:
        fact = caller.workload.get("tags")
        if fact is None or (asked.attested and not fact.attested):
            truth = None
        elif not asked.tags.holds(tags := frozenset(fact.value), tags):
            return False
    return truth


Candidates = tuple[
    tuple[Policy, str], ...
]  # policies whose target matches, each with the path pattern that does


class _Node:
    """A place in the tree of path patterns below one upstream and method."""

    __slots__ = ("below", "deeper", "ends", "literal", "named")

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        self.named: list[tuple[Glob, _Node]] = []  # patterns with a wildcard inside the segment
        self.deeper: _Node | None = None  # {name} or *: any one segment
        self.ends: list[tuple[Policy, str]] = []
        self.below: list[tuple[Policy, str]] = []  # ** from here on

    def child(self, pattern: str) -> "_Node":
        if pattern == "*" or pattern.startswith("{"):
            self.deeper = self.deeper or _Node()
            return self.deeper
        if "*" not in pattern:
            return self.literal.setdefault(pattern, _Node())
        for glob, node in self.named:
            if glob.pattern == pattern:
                return node
        self.named.append((Glob(pattern), _Node()))
        return self.named[-1][1]


def _insert(root: _Node, policy: Policy, path: str) -> None:
    node = root
    # Without a trailing slash, as the target's segments are.
    for pattern in path.rstrip("/").split("/")[1:]:
        if pattern == "**":
            node.below.append((policy, path))
            return
        node = node.child(pattern)
    node.ends.append((policy, path))


def _collect(root: _Node, segments: tuple[str, ...]) -> list[tuple[Policy, str]]:
    """The policies whose path patterns match, each with the pattern: level by level, without recursion."""
    found = list(root.below)
    nodes = [root]
    for segment in segments:
        reached: list[_Node] = []
        for node in nodes:
            if (literal := node.literal.get(segment)) is not None:
                reached.append(literal)
            if node.deeper is not None:
                reached.append(node.deeper)
            for glob, named in node.named:
                if glob.matches(segment):
                    reached.append(named)
        for node in reached:
            if node.below:
                found += node.below
        nodes = reached
    for node in nodes:
        found += node.ends
    return found


class Index:
    """Policies by upstream, method and path, so that a decision costs what matches and not what exists."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        self._roots: dict[tuple[str, str], _Node] = {}
        self._found: dict[tuple[str, str, tuple[str, ...]], Candidates] = {}
        for policy in policies:
            methods = METHODS if policy.methods == ("*",) else policy.methods
            for upstream in policy.upstreams:
                for method in methods:
                    root = self._roots.setdefault((upstream, method), _Node())
                    for path in policy.paths:
                        _insert(root, policy, path)

    def candidates(self, target: Target) -> Candidates:
        """The policies whose target matches: each once, with the first pattern that does, in the order of their ids.

        Kept by address: tasks call the same few again and again, and an index never changes.
        """
        address = (target.upstream, target.method, target.segments)
        found = self._found.get(address)
        if found is None:
            root = self._roots.get(address[:2])
            matching = sorted(_collect(root, target.segments), key=_by_name) if root is not None else []
            once = {candidate[0].id: candidate for candidate in reversed(matching)}
            found = tuple(reversed(once.values()))
            if len(self._found) >= MOST_FOUND:
                self._found.clear()
            self._found[address] = found
        return found


def _by_name(candidate: tuple[Policy, str]) -> tuple[str, str]:
    return candidate[0].id, candidate[1]


def decide(candidates: Candidates, caller: Caller) -> Decision:
    """Decide among the policies whose target matches, as `Index.candidates` lists them."""
    permits: list[tuple[Policy, str]] = []
    forbids: list[tuple[Policy, str]] = []
    shadow: list[tuple[Policy, str]] = []
    for candidate in candidates:
        policy = candidate[0]
        if policy.matches(caller):
            (shadow if policy.shadow else forbids if policy.forbids else permits).append(candidate)
    silent = tuple([policy.id for policy, _ in shadow])
    deciding = forbids or permits
    if not deciding:
        return Decision(False, Reason.POLICY_NO_MATCH, (), None, None, silent)
    first, path = deciding[0]
    reason = Reason.POLICY_FORBIDDEN if forbids else None
    return Decision(
        reason is None, reason, tuple([policy.id for policy, _ in deciding]), path, first.owner, silent
    )
