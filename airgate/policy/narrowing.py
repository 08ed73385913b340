"""The narrowest policies that still permit what DAGs were seen to call.

Each is a permit of the seed, less what wasn't used of it: other DAGs, tasks, types of run, users, roles, methods and
paths, and what nobody exchanged a token for. What a permit asks for beside that stays as it is, so nothing passes by
the narrower one that the wider one would refuse.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from airgate.engine import Denied, Glob, Target, parse_target
from airgate.policy import patterns
from airgate.policy.index import segments
from airgate.policy.rules import NEVER_ASSERTED
from airgate.policy.traffic import CUT_PATH, Call
from airgate.policy.words import listed

MOST_TASKS = 50  # named in one policy; and types of run, users
MOST_TAILS = 20_000  # paths that are looked at below one `**`
MOST_WORDS = 10  # literal segments at one place; of more, each is taken for a value
LONGEST_ID = 63
_KEPT = ("when", "obligations", "asking")  # of a permit, as it is

_LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()+,=:@-]+")
_NOT_IN_ID = re.compile(r"[^a-z0-9]+")
_RESOURCE = re.compile(r"resource\.(.+)")


@dataclass
class Use:
    """What calls of one DAG used of one permit, at one upstream."""

    permit: dict[str, Any] | None  # as the seed has it; None: no policy permitted them
    dag: str | None
    upstream: str
    calls: int = 0
    asserted: int = 0  # of which the token doesn't attest all that is asked of the workload
    first: int = 0
    last: int = 0
    issuers: set[str] = field(default_factory=set)
    kinds: set[str] = field(default_factory=set)
    subjects: set[str] = field(default_factory=set)
    methods: set[str] = field(default_factory=set)
    tasks: set[tuple[str, bool] | None] = field(default_factory=set)  # each with whether it's attested
    roles: set[frozenset[str]] = field(default_factory=set)  # in use, of each kind of call
    routes: dict[str, "Paths"] = field(default_factory=dict)
    runs: dict[str, set[str | None]] = field(
        default_factory=dict
    )  # what tokens say of them, by NEVER_ASSERTED
    issued: set[str] = field(default_factory=set)  # upstreams that tokens were exchanged for
    issued_roles: set[str] = field(default_factory=set)  # of such tokens, by any use of the permit
    unnamed: bool = False  # the log has pseudonyms

    @property
    def attested(self) -> bool:
        """Whether only what tokens say of the workload counts: the permit wants it so, or all calls were like that."""
        return by_token(self.permit) or not self.asserted

    @property
    def whose(self) -> str:
        if self.dag is not None:
            return f"DAG {self.dag}"
        return "without an attested DAG" if by_token(self.permit) else "without a DAG"

    def add(
        self, call: Call, routes: Iterable[str], found: tuple[str, ...] | None, *, attested: bool
    ) -> None:
        """`routes`: patterns of the permit that the call went by; `found`: its path, where the log has it.

        `attested`: the token says so, of all that is asked of the workload.
        """
        self.first = min(self.first or call.now, call.now)
        self.last = max(self.last, call.now)
        self.calls += 1
        self.asserted += not attested
        event, caller = call.group.record.event, call.group.caller
        self.issuers.add(caller.identity.issuer)
        self.kinds.add(caller.identity.kind)
        self.subjects.add(event["subject"])
        self.unnamed = self.unnamed or bool(call.group.record.unnamed)
        self.methods.add(event["method"])
        self.roles.add(caller.effective)
        task = caller.workload.get("task")
        self.tasks.add(None if task is None else (str(task.value), task.attested))
        for name in NEVER_ASSERTED:
            fact = caller.workload.get(name)
            self.runs.setdefault(name, set()).add(None if fact is None else str(fact.value))
        if (issued := event.get("issued")) is not None:
            self.issued.add(issued["upstream"])
            self.issued_roles.update(issued["roles"])
        for route in routes:
            self.routes.setdefault(route, Paths(route)).add(found)


@dataclass
class Paths:
    """Paths that were called by one pattern."""

    route: str
    unlogged: bool = False
    values: dict[int, set[str]] = field(default_factory=dict)  # by place, before a `**`
    tails: set[tuple[str, ...]] = field(default_factory=set)  # what stands for the `**`

    def add(self, found: tuple[str, ...] | None) -> None:
        if found is None:
            self.unlogged = True
            return
        pattern = patterns.path_pattern(self.route)
        for place, segment in enumerate(found[: len(pattern.segments)]):
            seen = self.values.setdefault(place, set())
            if len(seen) < 2:  # more tell nothing new
                seen.add(segment)
        if pattern.deep and len(self.tails) <= MOST_TAILS:
            self.tails.add(found[len(pattern.segments) :])

    def narrowed(self, kept: frozenset[str] = frozenset()) -> list[str]:
        """Patterns that match these paths, and nothing that the route doesn't match. `kept`: names that must stay."""
        if self.unlogged:
            return [self.route]
        pattern = patterns.path_pattern(self.route)
        parts = segments(self.route)
        before = []
        for place, part in enumerate(parts[: len(pattern.segments)]):
            seen = self.values.get(place, set())
            [only] = seen if len(seen) == 1 else [""]
            fixed = len(pattern.segments[place]) > 1 and part[1:-1] not in kept and _LITERAL.fullmatch(only)
            before.append(only if fixed else part.replace("/", "%2F"))
        head = "".join(f"/{part}" for part in before)
        if not pattern.deep:
            return [head or "/"]
        if len(self.tails) > MOST_TAILS:
            return [f"{head}/**"]
        return sorted({head + tail or "/" for tail in generalised(self.tails)})


def generalised(paths: Iterable[tuple[str, ...]]) -> list[str]:
    """Patterns for paths, each `/a/{id}` or empty: where segments vary like values they become a name.

    Words that vary stay words: `/reports` and `/entries` are two patterns.
    """
    found: list[str] = []
    level = [("", 0, set(paths))]
    while level:
        head, names, tails = level.pop()
        if () in tails:
            found.append(head)
        by_first: dict[str, set[tuple[str, ...]]] = {}
        for tail in tails:
            if tail:
                by_first.setdefault(tail[0], set()).add(tail[1:])
        words = {word for word in by_first if _LITERAL.fullmatch(word) and not any(map(str.isdigit, word))}
        if len(words) > MOST_WORDS:
            words = set()
        values = by_first.keys() - words
        if len(values) == 1 and all(map(_LITERAL.fullmatch, values)):
            words |= values
            values = set()
        level += [(f"{head}/{word}", names, by_first[word]) for word in words]
        if values:
            rest = {tail for value in values for tail in by_first[value]}
            level.append((f"{head}/{{id{names + 1 if names else ''}}}", names + 1, rest))
    return sorted(found)


@dataclass
class Names:
    """Ids of policies, each given once."""

    taken: set[str]

    def of(self, *words: str) -> str:
        base = _NOT_IN_ID.sub("-", "-".join(words).lower()).strip("-")[:LONGEST_ID].strip("-") or "policy"
        name, number = base, 1
        while name in self.taken:
            number += 1
            name = f"{base[: LONGEST_ID - len(str(number)) - 1]}-{number}"
        self.taken.add(name)
        return name


def narrowed(use: Use, names: Names) -> dict[str, Any]:
    """A permit as one DAG uses it."""
    permit = deepcopy(use.permit)
    assert permit is not None
    policy = {
        "id": names.of(permit["id"], use.dag or "without-a-dag"),
        "description": _described(permit["description"], use),
        "owner": permit["owner"],
        "effect": "permit",
        "subject": _subject(permit.get("subject", {}), use),
    }
    workload = _workload(permit.get("workload", {}), use)
    if workload:
        policy["workload"] = workload
    kept = compares_names(permit)
    target = permit["target"] | {
        "upstream": use.upstream,
        "methods": sorted(use.methods),
        "paths": sorted({path for paths in use.routes.values() for path in paths.narrowed(kept)}),
    }
    policy["target"] = target
    policy |= {name: permit[name] for name in _KEPT if name in permit}
    return policy | ({"exchange": _exchange(permit["exchange"], use)} if "exchange" in permit else {})


def opened(use: Use, owner: str, names: Names) -> dict[str, Any]:
    """A permit for calls that no policy permitted, in shadow: whether they should pass, somebody has to say."""
    subject: dict[str, Any] = {"issuer": _one_or_all(use.issuers), "kind": _one_or_all(use.kinds)}
    common = frozenset.intersection(*use.roles)
    if common:
        subject["roles"] = {"all": sorted(common)}
    else:
        subject["id"] = sorted(use.subjects)
    policy = {
        "id": names.of("denied", use.upstream, use.dag or "without-a-dag"),
        "description": _described("Calls that no policy permitted", use),
        "owner": owner,
        "effect": "permit",
        "mode": "shadow",
        "subject": subject,
    }
    workload = _workload({}, use)
    if workload:
        types = use.runs.get("run_type", set())
        if use.attested and (named := _plain_names(types)):
            workload["run_type"] = named
        policy["workload"] = workload
    paths = sorted({path for one in use.routes.values() for path in one.narrowed()})
    return policy | {"target": {"upstream": use.upstream, "methods": sorted(use.methods), "paths": paths}}


def plain(dag: str) -> bool:
    """Whether a name can stand in a policy for itself alone."""
    return "*" not in dag and dag == dag.strip() and bool(dag)


def asked_of_workload(permit: Mapping[str, Any]) -> set[str]:
    """Which facts of the workload a permit asks for."""
    names = set(permit.get("workload", {})) - {"attested"}
    for pair in _pairs(permit.get("when", {}).get("equals", [])):
        names |= {name.partition(".")[2] for name in pair if name.startswith("workload.")}
    return names


def compares_names(permit: Mapping[str, Any]) -> frozenset[str]:
    """The names in its path patterns that a permit compares with something."""
    pairs = _pairs(permit.get("when", {}).get("equals", []))
    return frozenset(found[1] for pair in pairs for name in pair if (found := _RESOURCE.fullmatch(name)))


def located(method: str, upstream: str, path: str) -> Target | None:
    """Where a logged path leads. None: the log has cut it, or it leads nowhere."""
    if len(path) >= CUT_PATH:
        return None
    try:
        return parse_target(method, f"https://gate/{upstream}{path}")
    except Denied:
        return None


def by_token(permit: Mapping[str, Any] | None) -> bool:
    """Whether a permit goes by what tokens attest of the workload, and by nothing that a header says."""
    return permit is not None and permit.get("workload", {}).get("attested") is True


def _described(text: str, use: Use) -> str:
    return f"{text} ({use.whose})"[:2000]


def _one_or_all(names: set[str]) -> str | list[str]:
    return min(names) if len(names) == 1 else sorted(names)


def _pairs(equals: list[Any]) -> list[list[str]]:
    return [equals] if equals and isinstance(equals[0], str) else equals


def _subject(permit: Mapping[str, Any], use: Use) -> dict[str, Any]:
    subject: dict[str, Any] = {"issuer": _one_or_all(use.issuers), "kind": _one_or_all(use.kinds)}
    subject |= {name: value for name, value in permit.items() if name not in subject}
    if "id" in permit and not use.unnamed:
        subject["id"] = sorted(set(listed(permit["id"])) & use.subjects)
    roles = permit.get("roles", {})
    if "any" in roles:
        subject["roles"] = roles | {"any": _covering(set(roles["any"]), use.roles)}
    return subject


def _covering(asked: set[str], used: set[frozenset[str]]) -> list[str]:
    """Few of the roles such that every call had one of them."""
    left = [roles & asked for roles in used]
    chosen: list[str] = []
    while left := [roles for roles in left if roles and roles.isdisjoint(chosen)]:
        counts = Counter(role for roles in left for role in roles)
        chosen.append(min(counts, key=lambda role: (-counts[role], role)))
    return sorted(chosen) or sorted(asked)


def _workload(permit: Mapping[str, Any], use: Use) -> dict[str, Any]:
    permit = {**permit, **{name: _seen(name, permit[name], use) for name in NEVER_ASSERTED if name in permit}}
    if use.dag is None:
        return permit
    workload: dict[str, Any] = {"dag": [use.dag]}
    tasks = {task[0] for task in use.tasks if task is not None}
    # A task that only a header says is unknown to a policy that goes by what the token attests.
    told = not use.attested or all(task is not None and task[1] for task in use.tasks)
    if told and None not in use.tasks and len(tasks) <= MOST_TASKS and all(map(plain, tasks)):
        workload["task"] = sorted(tasks)
    workload |= {name: value for name, value in permit.items() if name not in ("dag", "task", "attested")}
    if "task" in permit and "task" not in workload:
        workload["task"] = permit["task"]
    return workload | {"attested": use.attested}


def _seen(name: str, patterns: str | list[str], use: Use) -> str | list[str]:
    """The types of run, or the users, that were seen, of those that a permit names; else what it says."""
    globs = [Glob(pattern) for pattern in listed(patterns)]
    named = _plain_names(use.runs.get(name, set()))
    return [value for value in named if any(glob.matches(value) for glob in globs)] or patterns


def _plain_names(values: set[str | None]) -> list[str]:
    """Names that can stand in a policy for themselves; none if one of them can't, or they are many."""
    named = sorted(value for value in values if value is not None and plain(value))
    return named if len(named) == len(values) <= MOST_TASKS else []


def _exchange(permit: Mapping[str, Any], use: Use) -> dict[str, Any]:
    """What tokens may be exchanged for, less the upstreams and roles that none was.

    The roles are those of all uses of the permit: of several policies that match a caller the fewest roles count.
    """
    upstreams = sorted(use.issued.intersection(listed(permit["upstreams"])))
    roles = use.issued_roles.intersection(listed(permit["roles"])) if "roles" in permit else use.issued_roles
    return {**permit, "upstreams": upstreams, **({"roles": sorted(roles)} if roles else {})}
