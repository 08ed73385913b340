"""What logs say of a time, counted: who called what, what was denied and why, what was changed, what is missing.

Events come in any order, one at a time, and none is kept: tables are bounded (`bounded`), and what didn't fit is said.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from airgate.audit.bounded import Bins, Bounded, Number, Times
from airgate.audit.control import KINDS, Change, change
from airgate.audit.fields import Event, fact, members, moment, text, texts, whole

MOST_ROWS = 2_000  # callers with what they called
MOST_NAMES = 200  # of callers, policies or upstreams under one line
MOST_POLICIES = 20_000
MOST_CHANGES = 1_000
MOST_CHAINS = 50_000
MOST_PENDING = 100_000  # permitted calls whose outcome has not been read yet, and outcomes whose call hasn't
RUNNING = 120.0  # seconds before the end of the log in which a call may still have been on its way
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")


class Caller(NamedTuple):
    """Who called, by the token. All None: somebody whom the gate didn't get to know."""

    issuer: str | None
    subject: str | None
    kind: str | None
    actor: str | None  # who acts for the subject

    @property
    def known(self) -> bool:
        return self.subject is not None


class Call(NamedTuple):
    """What tells rows apart."""

    caller: Caller
    dag: str | None
    attested: bool  # the DAG, by the token; else a header asserted it
    upstream: str | None
    method: str | None
    route: str | None  # the pattern of the policy that decided; of a page its name


class Answers:
    """What became of permitted calls."""

    __slots__ = ("classes", "failed", "upstream")

    def __init__(self) -> None:
        self.classes = [0] * len(CLASSES)
        self.failed = 0  # the upstream gave no answer
        self.upstream = Times()

    @property
    def weight(self) -> int:
        return sum(self.classes) + self.failed

    def add(self, event: Event) -> None:
        status = whole(event, "status")
        if status is not None and 100 <= status < 600 and event.get("result") == "answered":
            self.classes[status // 100 - 1] += 1
        else:
            self.failed += 1
        taken = whole(event, "upstream_ms")
        if taken is not None:
            self.upstream.add(taken)

    def merge(self, other: "Answers") -> None:
        self.classes = [one + more for one, more in zip(self.classes, other.classes, strict=True)]
        self.failed += other.failed
        self.upstream.merge(other.upstream)


class Calls:
    """Decisions about calls that are alike, and what became of them."""

    __slots__ = ("answers", "denied", "first", "gate", "last", "open", "permitted")

    def __init__(self) -> None:
        self.gate = Times()  # until it was decided
        self.permitted = 0
        self.denied = 0
        self.first: float | None = None
        self.last: float | None = None
        self.open = 0  # permitted, to be forwarded, and without an outcome
        self.answers = Answers()

    @property
    def weight(self) -> int:
        return self.permitted + self.denied

    def add(self, when: float, permit: bool, taken: int | None) -> None:
        if permit:
            self.permitted += 1
        else:
            self.denied += 1
        if taken is not None:
            self.gate.add(taken)
        self.first = when if self.first is None else min(self.first, when)
        self.last = when if self.last is None else max(self.last, when)

    def merge(self, other: "Calls") -> None:
        self.permitted += other.permitted
        self.denied += other.denied
        self.open += other.open
        self.gate.merge(other.gate)
        self.answers.merge(other.answers)
        for when in (other.first, other.last):
            if when is not None:
                self.first = when if self.first is None else min(self.first, when)
                self.last = when if self.last is None else max(self.last, when)


class Denials:
    """Denials for one reason."""

    __slots__ = ("callers", "first", "last", "policies", "upstreams", "weight")

    def __init__(self) -> None:
        self.weight = 0
        self.first: float | None = None
        self.last: float | None = None
        self.callers: Bounded[Caller, Number] = Bounded(MOST_NAMES, Number)
        self.policies: Bounded[str, Number] = Bounded(MOST_NAMES, Number)
        self.upstreams: Bounded[str, Number] = Bounded(MOST_NAMES, Number)

    def add(self, when: float, event: Event, caller: Caller) -> None:
        self.weight += 1
        self.first = when if self.first is None else min(self.first, when)
        self.last = when if self.last is None else max(self.last, when)
        self.callers[caller].weight += 1
        for policy in texts(event, "forbids"):
            self.policies[policy].weight += 1
        # An upstream's name is the caller's own text until policy has been asked about it.
        if "permits" in event:
            self.upstreams[text(event, "upstream") or "?"].weight += 1

    def merge(self, other: "Denials") -> None:
        self.weight += other.weight


class Shadowed:
    """Decisions in which the same policies in shadow had a part."""

    __slots__ = ("callers", "denies", "permits", "same")

    def __init__(self) -> None:
        self.denies = 0  # calls that were permitted, and would be denied
        self.permits = 0  # calls that were denied, and would be permitted
        self.same = 0
        self.callers: Bounded[Caller, Number] = Bounded(MOST_NAMES, Number)  # of those that would change

    @property
    def weight(self) -> int:
        return self.denies + self.permits + self.same

    def add(self, permit: bool, would: bool, caller: Caller) -> None:
        if permit == would:
            self.same += 1
            return
        self.callers[caller].weight += 1
        if permit:
            self.denies += 1
        else:
            self.permits += 1

    def merge(self, other: "Shadowed") -> None:
        self.denies += other.denies
        self.permits += other.permits
        self.same += other.same


class Use:
    """What a policy had a part in."""

    __slots__ = ("last", "permitted", "weight")

    def __init__(self) -> None:
        self.weight = 0
        self.permitted = 0  # calls and questions that it let pass, whatever refused them after that
        self.last: float | None = None

    def merge(self, other: "Use") -> None:
        self.weight += other.weight
        self.permitted += other.permitted


class Vouched:
    """How one caller's DAG was known."""

    __slots__ = ("asserted", "attested", "dags")

    def __init__(self) -> None:
        self.asserted = 0
        self.attested = 0
        self.dags: Bounded[str, Number] = Bounded(MOST_NAMES, Number)  # those that were only asserted

    @property
    def weight(self) -> int:
        return self.asserted + self.attested

    def merge(self, other: "Vouched") -> None:
        self.asserted += other.asserted
        self.attested += other.attested


@dataclass
class Noted:
    """A change, and by how many isolates and when it was first written down."""

    change: Change
    first: float
    times: int = 1


class Line(NamedTuple):
    """What is known of a chain."""

    lines: int
    lowest: int
    highest: int


class Waiting(NamedTuple):
    """A permitted call whose outcome is to come."""

    call: Call
    when: float


@dataclass
class Summary:
    """Counts of the events from `since` up to, and without, `until` (seconds since the epoch)."""

    since: float | None = None
    until: float | None = None
    first: float | None = None  # of all decisions
    last: float | None = None
    permitted: int = 0
    denied: int = 0
    pages: int = 0  # of the decisions: answered by the gate itself
    questions: list[int] = field(default_factory=lambda: [0, 0])  # AuthZEN: permitted, denied
    outside: int = 0  # events before or after the time
    odd: int = 0  # events that aren't what a gate writes
    calls: Bounded[Call, Calls] = field(default_factory=lambda: Bounded(MOST_ROWS, Calls))
    upstreams: Bounded[str, Calls] = field(default_factory=lambda: Bounded(MOST_NAMES, Calls))
    denials: Bounded[str, Denials] = field(default_factory=lambda: Bounded(MOST_NAMES, Denials))
    shadows: Bounded[tuple[str, ...], Shadowed] = field(default_factory=lambda: Bounded(MOST_NAMES, Shadowed))
    uses: Bounded[str, Use] = field(default_factory=lambda: Bounded(MOST_POLICIES, Use))
    vouched: Bounded[Caller, Vouched] = field(default_factory=lambda: Bounded(MOST_ROWS, Vouched))
    results: Bounded[str, Number] = field(default_factory=lambda: Bounded(MOST_NAMES, Number))
    bins: Bins = field(default_factory=Bins)
    changes: dict[tuple[str, ...], Noted] = field(default_factory=dict)
    more_changes: int = 0  # lines about changes that didn't fit
    versions: dict[str, float] = field(default_factory=dict)  # of the Worker, and when each was first seen
    locations: Bounded[str, Number] = field(default_factory=lambda: Bounded(MOST_NAMES, Number))
    isolates: int = 0  # that began
    checkpoints: int = 0
    chains: dict[str, Line] = field(default_factory=dict)
    more_chains: int = 0  # lines of chains that didn't fit
    unchained: int = 0  # events without a place in a chain, of older gates
    lost: int = 0  # answers that came and could not be handed on
    strays: int = 0  # outcomes whose decision isn't in the time or the logs
    given_up: int = 0  # permitted calls that waited too long for their outcome to be looked for any longer

    def __post_init__(self) -> None:
        self._waiting: dict[str, Waiting] = {}
        self._early: dict[str, tuple[Event, bool]] = {}  # outcomes before their decision; whether in the time

    def add(self, event: Event) -> None:
        """Count one event."""
        when = moment(event)
        kind = event.get("event")
        if when is None:
            self.odd += 1
            return
        self._chained(event)
        inside = (self.since is None or when >= self.since) and (self.until is None or when < self.until)
        if kind == "outcome" and (self.since is None or when >= self.since):
            self._outcome(event, inside)  # it belongs to its decision, which may be within the time
        elif not inside:
            self.outside += 1
        elif kind == "decision":
            self._decision(event, when)
        elif kind == "evaluation":
            self._question(event, when)
        elif kind in KINDS:
            self._change(event, when)
        elif kind == "opening":
            self.isolates += 1
            self._ran(event, when)
        elif kind == "checkpoint":
            self.checkpoints += 1
        else:
            self.odd += 1

    def add_all(self, events: Iterable[Event]) -> None:
        for event in events:
            self.add(event)
        self._end()

    def _decision(self, event: Event, when: float) -> None:
        ruling = event.get("decision")
        if ruling not in ("permit", "deny"):
            self.odd += 1
            return
        permit = ruling == "permit"
        self.first = when if self.first is None else min(self.first, when)
        self.last = when if self.last is None else max(self.last, when)
        if permit:
            self.permitted += 1
        else:
            self.denied += 1
        self.bins.add(when, permit)
        self._ran(event, when)
        who, page = caller(event), text(event, "page", 64)
        call = _call(event, who, page)
        taken = whole(event, "gate_ms")
        self.calls[call].add(when, permit, taken)
        if "permits" in event:
            self.upstreams[call.upstream or "?"].add(when, permit, taken)
            self._policies(event, when, permit, who)
        dag = fact(event, "dag")
        if dag is not None and who.known:
            self._vouch(who, *dag)
        if not permit:
            self.denials[text(event, "reason", 64) or "?"].add(when, event, who)
        elif page is not None:
            self.pages += 1
        else:
            self._await(text(event, "request_id", 64) or "", Waiting(call, when))

    def _policies(self, event: Event, when: float, permit: bool, who: Caller) -> None:
        permits, forbids, shadow = (texts(event, name) for name in ("permits", "forbids", "shadow"))
        reason = text(event, "reason") or ""
        passed = permit or not (forbids or reason.startswith("policy."))
        for name in (*permits, *forbids, *shadow):
            use = self.uses[name]
            use.weight += 1
            use.last = when if use.last is None else max(use.last, when)
        if passed:
            for name in permits:
                self.uses[name].permitted += 1
        would = event.get("would")
        if shadow and would in ("permit", "deny"):
            self.shadows[shadow].add(permit, would == "permit", who)

    def _question(self, event: Event, when: float) -> None:
        ruling = event.get("decision")
        if ruling not in ("permit", "deny"):
            self.odd += 1
            return
        self.questions[0 if ruling == "permit" else 1] += 1
        self._policies(event, when, ruling == "permit", caller(event))

    def _vouch(self, who: Caller, dag: str, attested: bool) -> None:
        row = self.vouched[who]
        if attested:
            row.attested += 1
        else:
            row.asserted += 1
            row.dags[dag].weight += 1

    def _await(self, request: str, waiting: Waiting) -> None:
        early = self._early.pop(request, None)
        if early is not None:
            self._answered(waiting, early[0])
            return
        if len(self._waiting) >= MOST_PENDING:  # the oldest one: in a log an outcome is not far from its call
            oldest = self._waiting.pop(next(iter(self._waiting)))
            self._held(oldest)
            self.given_up += 1
        self._waiting[request] = waiting

    def _outcome(self, event: Event, inside: bool) -> None:
        if event.get("result") == "lost":  # stands beside the one that says how the answer came
            self.lost += inside
            return
        request = text(event, "request_id", 64) or ""
        waiting = self._waiting.pop(request, None)
        if waiting is not None:
            self._answered(waiting, event)
            return
        if len(self._early) >= MOST_PENDING:
            self._stray(self._early.pop(next(iter(self._early)))[1])
        told = {name: event[name] for name in ("result", "status", "upstream_ms") if name in event}
        self._early[request] = told, inside

    def _stray(self, inside: bool) -> None:
        if inside:
            self.strays += 1
        else:
            self.outside += 1

    def _answered(self, waiting: Waiting, event: Event) -> None:
        self.results[text(event, "result", 64) or "?"].weight += 1
        self.calls.held(waiting.call).answers.add(event)
        self.upstreams.held(waiting.call.upstream or "?").answers.add(event)

    def _held(self, waiting: Waiting) -> None:
        self.calls.held(waiting.call).open += 1
        self.upstreams.held(waiting.call.upstream or "?").open += 1

    def _change(self, event: Event, when: float) -> None:
        found = change(event)
        if found is None:
            return
        noted = self.changes.get(found.key)
        if noted is not None:
            noted.first = min(noted.first, when)
            noted.times += 1
        elif len(self.changes) < MOST_CHANGES:
            self.changes[found.key] = Noted(found, when)
        else:
            self.more_changes += 1

    def _ran(self, event: Event, when: float) -> None:
        worker = members(event, "worker")
        version, location = text(worker, "version", 128), text(worker, "location", 64)
        if version is not None and (version in self.versions or len(self.versions) < MOST_CHANGES):
            self.versions[version] = min(when, self.versions.get(version, when))
        if location is not None:
            self.locations[location].weight += 1

    def _chained(self, event: Event) -> None:
        chain, position = text(event, "chain", 64), whole(event, "position")
        if chain is None or position is None:
            self.unchained += 1
            return
        known = self.chains.get(chain)
        if known is not None:
            self.chains[chain] = Line(
                known.lines + 1, min(known.lowest, position), max(known.highest, position)
            )
        elif len(self.chains) < MOST_CHAINS:
            self.chains[chain] = Line(1, position, position)
        else:
            self.more_chains += 1

    def _end(self) -> None:
        for waiting in self._waiting.values():
            self._held(waiting)
        for _, inside in self._early.values():
            self._stray(inside)
        self._early = {}

    @property
    def decisions(self) -> int:
        return self.permitted + self.denied

    @property
    def open(self) -> int:
        """Permitted calls that should have an outcome and have none."""
        return len(self._waiting) + self.given_up

    @property
    def running(self) -> int:
        """Those of them that were so late in the log that they may have been on their way."""
        end = self.last
        return 0 if end is None else sum(one.when > end - RUNNING for one in self._waiting.values())

    @property
    def holes(self) -> tuple[int, int]:
        """Lines that are missing between the first and the last one of a chain, and in how many chains."""
        missing = [line.highest - line.lowest + 1 - line.lines for line in self.chains.values()]
        found = [number for number in missing if number > 0]
        return sum(found), len(found)

    @property
    def begun_before(self) -> int:
        """Chains whose first lines aren't in the logs."""
        return sum(line.lowest > 0 for line in self.chains.values())


def caller(event: Event) -> Caller:
    """Who called, or in an evaluation about whom was asked."""
    subject = text(event, "subject")
    if subject is None:
        return Caller(None, None, None, None)
    return Caller(text(event, "issuer"), subject, text(event, "kind", 64), text(event, "actor"))


def _call(event: Event, who: Caller, page: str | None) -> Call:
    if page is not None:
        return Call(who, None, False, "-", text(event, "method", 16), f"page {page}")
    if not who.known:  # what it asked for are its own words, and nothing came of them
        return Call(who, None, False, None, None, None)
    dag = fact(event, "dag")
    return Call(
        who,
        None if dag is None else dag[0],
        dag is not None and dag[1],
        text(event, "upstream", 128),
        text(event, "method", 16),
        text(event, "route"),
    )
