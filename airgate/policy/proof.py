"""Whether an invariant holds for every call there could be."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from airgate.policy.enforced import Enforced, clashes, may_meet
from airgate.policy.evidence import Engine, Evidence
from airgate.policy.index import Rule
from airgate.policy.invariants import NEVER, Invariant
from airgate.policy.regions import empty
from airgate.policy.search import Net, Part, Search, Unknown

PROVED, COUNTEREXAMPLE, UNKNOWN = "proved", "counterexample", "unknown"


@dataclass(frozen=True)
class Proof:
    """What was found out about an invariant."""

    invariant: Invariant
    verdict: str
    example: Evidence | None  # a call that breaks it
    why: str  # it is not known; or, if it is proved, why it says nothing


class Prover:
    """Proves invariants of one policy set. `since`: seconds since the epoch, from which on calls count."""

    def __init__(self, enforced: Enforced, since: float) -> None:
        self.enforced = enforced
        self.since = since
        self._engine = Engine(enforced.compiled, since)

    def prove(self, invariant: Invariant) -> Proof:
        why = ""
        for search in self._searches(invariant):
            found = search.answer()
            if isinstance(found, Unknown):
                why = why or found.why
            elif found is not None:
                shown = self._engine.evidence(found)
                if shown is not None and shown.decision.permit is (invariant.kind == NEVER):
                    return Proof(invariant, COUNTEREXAMPLE, shown, "")
                why = why or "a call was found that the gate decides in another way than the analysis"
        return (
            Proof(invariant, UNKNOWN, None, why)
            if why
            else Proof(invariant, PROVED, None, self._hollow(invariant))
        )

    def _hollow(self, invariant: Invariant) -> str:
        """Why there is nothing to prove; empty when there is."""
        why = ""
        for upstream, rule in invariant.rules.items():
            part = self._part(invariant, rule, upstream)
            if Search([part], Net(upstream, []), self.since).answer() is not None:
                return ""
            why = empty(rule, upstream, invariant.zones[upstream], self.enforced.callers)
        return why or "its time is over"

    def _searches(self, invariant: Invariant) -> Iterator[Search]:
        """Each way for the invariant to be broken."""
        for upstream, rule in invariant.rules.items():
            about = self._part(invariant, rule, upstream)
            exceptions = [
                self._part(invariant, exception, upstream, held=True)
                for name, exception in invariant.exceptions.items()
                if name == upstream
            ]
            permits, forbids = (
                self.enforced.permits.get(upstream, []),
                self.enforced.forbids.get(upstream, []),
            )
            if invariant.kind == NEVER:
                outside = Net(upstream, [(part,) for part in (*forbids, *exceptions)], permits)
                for permit in permits:
                    if may_meet(about, permit):
                        yield Search([about, permit], outside, self.since)
            else:
                yield Search([about], self._net(upstream, [*permits, *exceptions]), self.since)
                outside = self._net(upstream, exceptions)
                near = [part for part in (*forbids, *permits) if may_meet(about, part)]
                for forbid in (part for part in near if part.rule.effect == "forbid"):
                    yield Search([about, forbid], outside, self.since)
                for pair in clashes(part for part in near if part.rule.effect == "permit"):
                    yield Search([about, *pair], outside, self.since)

    def _part(self, invariant: Invariant, rule: Rule, upstream: str, *, held: bool = False) -> Part:
        return Part(rule, upstream, invariant.zones[upstream], self.enforced.callers, held)

    def _net(self, upstream: str, parts: Iterable[Part]) -> Net:
        return Net(upstream, [(part,) for part in parts])
