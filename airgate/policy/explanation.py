"""An answer of the gate, taken apart: which policies looked at the request, what each saw, and what would change it.

What is said of a policy is what the engine says: `Policy.matches`, `Condition.truth` and `seen`. Words come on top.
"""

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from airgate.engine import (
    ANSWERS,
    OWN,
    RESOURCE,
    Call,
    Candidate,
    Condition,
    Decision,
    Identity,
    Policy,
    Reason,
    Target,
    Truth,
    Upstream,
)
from airgate.policy import index, limits, patterns
from airgate.policy.cases import came
from airgate.policy.gate import Answer
from airgate.policy.index import Rule
from airgate.policy.phrases import asks, joined, moment, saw, title, to_fail, to_hold
from airgate.policy.request import UNKNOWN_QUERY
from airgate.policy.seed import either

SHOWN = 10  # policies that don't match are named up to this many
NEAREST = 3  # permits or targets that are proposed
WAYS = "To be permitted"  # the branch of what it would take
SIMILAR = 0.6  # of two segments, from which on one is taken for the other misspelt

_WORD = {True: "true", False: "false", None: "unknown"}
_STYLE = {True: "green", False: "red", None: "yellow"}
# How far a caller is from meeting a condition: another kind of caller is farther than another header.
_DISTANCE = {
    "subject.issuer": 4,
    "subject.id": 4,
    "subject.kind": 3,
    "subject.delegated": 3,
    "subject.dpop": 2,
}


@dataclass
class Branch:
    """A line, and what belongs to it."""

    text: str
    style: str = ""
    branches: "list[Branch]" = field(default_factory=list)

    def add(self, text: str, style: str = "") -> "Branch":
        branch = Branch(text, style)
        self.branches.append(branch)
        return branch


def explain_answer(
    answer: Answer, shards: Mapping[str, str], version: str, *, everything: bool = False
) -> Branch:
    """The whole story of an answer. `shards`: their texts by upstream; `everything`: no policy is left out."""
    root = Branch(verdict(answer), "bold green" if answer.permit else "bold red")
    call, decision = answer.call, answer.decision
    if call is None or decision is None:
        root.add("Policy wasn't asked: the request is refused before", "bold")
        if answer.identity is not None:
            _add_identity(root, answer.identity)
    else:
        _add_request(root, call)
        considered = _once(answer.considered, call)
        _add_considered(root, considered, call, everything=everything)
        if answer.reason in (Reason.POLICY_NO_MATCH, Reason.POLICY_FORBIDDEN):
            text = shards.get(call.target.upstream)
            known = index.rules(json.loads(text)) if text is not None else []
            _add_ways(root, considered, call, [rule for rule in known if not rule.shadow])
        _add_obligations(root, decision)
        if answer.permit and answer.upstream is not None:
            root.add(_way(answer.upstream, decision.obligations.credential))
        _add_shadow(root, considered, call, decision)
    root.add(f"Policy bundle {version}", "dim")
    return root


def _way(upstream: Upstream, named: str | None) -> str:
    """Where a call goes, and what the gate shows there."""
    name = named or upstream.credential
    credential = None if name is None else upstream.credentials.get(name)
    if credential is None:
        shown = "without a credential" if name is None else f"for which it has no credential {name}: refused"
    elif (secret := getattr(credential, "secret", None)) is None:
        shown = f"with the credential {name}: the caller's own Authorization"
    else:
        shown = f"with the credential {name}, from the secret {secret}"
    through = f" by way of {upstream.via}" if upstream.via is not None else ""
    return f"Goes to {upstream.base}{through}, {shown}"


def verdict(answer: Answer) -> str:
    """The first line: `DENY policy.no_match: No policy permits this call. Ask finance-data@example.com`"""
    word, _, rest = came(answer).partition(" ")
    text = f"{word.upper()} {rest}".strip()
    if answer.reason is None:
        return text
    text += f": {ANSWERS[answer.reason].title}."
    if answer.detail:
        text += f" In detail: {answer.detail}."
    if answer.hint:
        text += f" What to do: {answer.hint}."
    owner = answer.decision.owner if answer.decision is not None else None
    return text + (f" Ask {owner}." if owner else "")


def _add_request(root: Branch, call: Call) -> None:
    target, caller = call.target, call.caller
    identity = caller.identity
    if target.upstream.startswith(RESOURCE):
        what = f"{target.method} on {target.upstream.removeprefix(RESOURCE)} {target.segments[0]}"
    else:
        query = ", with a query that isn't known" if target.query == UNKNOWN_QUERY else target.query
        what = f"{target.method} {_address(target)}{query}"
    asked = root.add(what)
    if target.properties:
        asked.add(
            "; ".join(f"{name}: {joined(values)}" for name, values in sorted(target.properties.items()))
        )
    if target.upstream == OWN and target.segments == ("health",):
        asked.add("everyone is answered; policy says who is told more than ok or failing")
    _add_identity(asked, identity, caller.tagged)
    for name, fact in caller.workload.items():
        value = fact.value if isinstance(fact.value, str) else joined(fact.value)
        source = "attested by the token" if fact.attested else "asserted: a header says so"
        asked.add(f"{name}: {value} ({source})")
    whence = [f"from {call.client}" if call.client else "", f"in {call.country}" if call.country else ""]
    asked.add(" ".join(["at", moment(call.now), *filter(None, whence)]))


def _add_identity(branch: Branch, identity: Identity, tagged: tuple[str, ...] | None = None) -> None:
    # Of a recorded call the subject may be unknown (recorded.Recorded.caller).
    branch.add(
        f"by {identity.subject or 'a subject that the log does not name,'} of issuer {identity.issuer}, {identity.kind}"
    )
    if identity.actor is not None:
        branch.add(f"{identity.actor} acts for it")
    if identity.jkt is not None:
        branch.add("its token is bound to a key (DPoP)")
    roles = joined(sorted(identity.granted)) or "none"
    if tagged is not None:
        roles += f"; permits read only those in Airgate-Role: {joined(tagged)}"
    branch.add(f"roles: {roles}")
    if identity.unknown:
        unknown = joined(sorted(identity.unknown))
        branch.add(f"roles not known, for lack of the claims that could grant them: {unknown}", "yellow")


def _address(target: Target) -> str:
    """As the caller writes it."""
    if target.upstream != OWN:
        return f"/{target.upstream}{target.path}"
    first = "" if target.segments[:1] == ("access",) else "/-"
    return f"{first}/{'/'.join(target.segments)}"


def _used(policy: Policy, call: Call) -> frozenset[str]:
    """The roles that a policy's `any` and `all` read."""
    return call.caller.identity.granted if policy.forbids else call.caller.effective


def _truths(policy: Policy, call: Call, route: str) -> list[tuple[Condition, Truth]]:
    call.route = route
    used = _used(policy, call)
    return [(condition, condition.truth(call, used)) for condition in policy.conditions]


def _distance(candidate: Candidate, call: Call) -> int:
    """How much a caller lacks for a permit to match."""
    policy, route = candidate
    return sum(
        _DISTANCE.get(condition.name, 1)
        for condition, truth in _truths(policy, call, route)
        if truth is not True
    )


def _once(considered: list[Candidate], call: Call) -> list[Candidate]:
    """Each policy with one of its paths that lead here: one by which it matches, if there is one."""
    by_id: dict[str, Candidate] = {}
    for policy, route in considered:
        known = by_id.get(policy.id)
        if known is None or (policy.matches(call, route) and not policy.matches(call, known[1])):
            by_id[policy.id] = (policy, route)
    return list(by_id.values())


def _add_considered(root: Branch, considered: list[Candidate], call: Call, *, everything: bool) -> None:
    if not considered:
        root.add("No policy is about this target", "bold")
        return
    listed = root.add(f"Policies about this target: {len(considered)}", "bold")
    matching = [candidate for candidate in considered if candidate[0].matches(call, candidate[1])]
    others = [candidate for candidate in considered if candidate not in matching]
    matching.sort(key=lambda candidate: (candidate[0].shadow, not candidate[0].forbids))
    others.sort(key=lambda candidate: _distance(candidate, call))
    shown = others if everything else others[:SHOWN]
    for candidate in (*matching, *shown):
        _add_policy(listed, candidate, call)
    if len(others) > len(shown):
        listed.add(f"… {len(others) - len(shown)} more that don't match; --all shows them", "dim")


def _add_policy(listed: Branch, candidate: Candidate, call: Call) -> None:
    policy, route = candidate
    truth = policy.truth(call, route)
    matches = policy.matches(call, route)
    effect = "forbid" if policy.forbids else "permit"
    how = "matches" if matches else "doesn't match"
    if matches and truth is None:
        how = "matches, since what isn't known counts against the caller"
    trial = ", in shadow: it isn't applied" if policy.shadow else ""
    style = ("red" if policy.forbids else "green") if matches and not policy.shadow else "dim"
    branch = listed.add(f"{effect} {policy.id} {how} ({route}{trial})", style)
    if not policy.conditions:
        branch.add("true     it has no conditions", "green")
    for condition, holds in _truths(policy, call, route):
        text = f"{title(condition)} asks {asks(condition)}; saw {saw(condition, call, _used(policy, call))}"
        branch.add(f"{_WORD[holds]:<8} {text}", _STYLE[holds])


def _add_ways(root: Branch, considered: list[Candidate], call: Call, known: Iterable[Rule]) -> None:
    """What the caller would have to be or to do for the call to be permitted."""
    enforced = [candidate for candidate in considered if not candidate[0].shadow]
    forbids = [each for each in enforced if each[0].forbids and each[0].matches(call, each[1])]
    permits = [each for each in enforced if not each[0].forbids]
    ways = root.add(WAYS, "bold")
    for policy, route in forbids:
        truths = _truths(policy, call, route)
        if not truths:
            ways.add(f"nothing helps against {policy.id}: it forbids this to everyone")
            continue
        unknown_first = sorted(truths, key=lambda pair: pair[1] is True)
        words = [to_fail(condition, call, _used(policy, call)) for condition, _ in unknown_first]
        if len(words) == 1:
            ways.add(f"for {policy.id} not to forbid it: {words[0]}")
            continue
        branch = ways.add(f"for {policy.id} not to forbid it, any one of these")
        for each in words:
            branch.add(each)
    if any(policy.matches(call, route) for policy, route in permits):
        return
    if not permits:
        _add_near(ways, call, known)
        return
    permits.sort(key=lambda candidate: _distance(candidate, call))
    also = "besides, " if forbids else ""
    nearest = [each for each in permits if _distance(each, call) == _distance(permits[0], call)][:NEAREST]
    for number, (policy, route) in enumerate(nearest):
        lacking = [condition for condition, truth in _truths(policy, call, route) if truth is not True]
        words = [to_hold(condition, call, _used(policy, call)) for condition in lacking]
        start = "or for" if number else f"{also}for"
        if len(words) == 1:
            ways.add(f"{start} {policy.id} to match: {words[0]}")
            continue
        branch = ways.add(f"{start} {policy.id} to match, all of these")
        for each in words:
            branch.add(each)


def _add_near(ways: Branch, call: Call, known: Iterable[Rule]) -> None:
    """No permit is about the target: those about one like it."""
    target = call.target
    permits = [rule for rule in known if rule.effect == "permit"]
    if not permits:
        upstream = target.upstream
        noun = "resource type" if upstream.startswith(RESOURCE) else "upstream"
        ways.add(f"somebody has to write a permit: none names the {noun} {upstream.removeprefix(RESOURCE)}")
        return
    ways.add("somebody has to write a permit for this target, or the call has another target than was meant")
    by_method = [rule for rule in permits if any(_fits(path, target) == 1 for path in rule.paths)]
    if by_method:
        for rule in by_method[:NEAREST]:
            ways.add(f"{rule.id} permits {either(rule.methods)} here, not {target.method}")
        return
    scored = [(_fits(path, target), rule, path) for rule in permits for path in rule.paths]
    close = sorted((each for each in scored if each[0] >= SIMILAR), key=lambda each: (-each[0], each[1].id))
    for _, rule, path in close[:NEAREST]:
        ways.add(f"{rule.id} is near: {either(rule.methods)} {path}")


def _fits(pattern: str, target: Target) -> float:
    """How much of a target a path pattern matches: 1 for all of it, 0 for nothing like it."""
    if target.upstream.startswith(RESOURCE):
        return 1.0
    parts, deep = patterns.path_pattern(pattern)
    segments = target.segments
    score = 0.0
    for pieces, segment in zip(parts, segments, strict=False):
        if patterns.matches(pieces, segment):
            score += 1
            continue
        alike = difflib.SequenceMatcher(None, "*".join(pieces), segment).ratio()
        if alike < SIMILAR:
            break
        score += alike
    length = max(len(parts), len(segments)) if not deep else max(len(parts), 1)
    if deep and score == len(parts):
        return 1.0 if len(segments) >= len(parts) else score / length
    return 1.0 if not length else score / length


def _add_obligations(root: Branch, decision: Decision) -> None:
    asked = decision.obligations
    if asked.conflict:
        root.add(f"Obligations conflict: {asked.conflict}", "red")
    words = [
        f"at most {limit.limit} calls in {limit.per} seconds by {' and '.join(limit.by)}"
        + (f", for {limit.policy} alone" if limit.policy else "")
        for limit in asked.limits
    ]
    if asked.credential is not None:
        words.append(f"the upstream's credential {asked.credential}")
    if asked.max_body is not None:
        words.append(f"a body of at most {limits.written(asked.max_body)}")
    if asked.headers:
        words.append(f"the header{'s' if len(asked.headers) > 1 else ''} {joined(asked.headers)}")
    if asked.justification:
        words.append("a reason, in Airgate-Justification")
    words += [f"{name}: {value}" for name, value in asked.others]
    if words:
        branch = root.add("Obligations of the permits that match", "bold")
        for each in words:
            branch.add(each)


def _add_shadow(root: Branch, considered: list[Candidate], call: Call, decision: Decision) -> None:
    if not decision.shadow:
        return
    named: Iterable[str] = dict.fromkeys(
        f"{'forbid' if policy.forbids else 'permit'} {policy.id}"
        for policy, route in considered
        if policy.shadow and policy.matches(call, route)
    )
    now, then = _decided(decision.permit), _decided(decision.would)
    change = f"it would be {then}" if now != then else f"it would be {then}, too"
    root.add(f"Were policies in shadow enforced, {change}: {joined(named)}", "magenta" if now != then else "")


def _decided(permit: bool) -> str:
    return "permitted" if permit else "denied"
