"""What changes between two policy sets: calls that are permitted in one and denied in the other, and the text.

A call is newly permitted when a permit matches and nothing denies it, and before either no permit did, or something
denied it: a forbid, or two permits that ask for different credentials. So what has to be searched is: permits that are
new or changed, forbids that are gone or changed, and such pairs.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from airgate.engine import KIND, KINDS
from airgate.policy import upstreams
from airgate.policy.callers import Tokens
from airgate.policy.compile import Compiled
from airgate.policy.durations import seconds
from airgate.policy.enforced import Enforced, clashes, may_meet
from airgate.policy.evidence import Engine, Evidence
from airgate.policy.index import canonical
from airgate.policy.rules import EXCHANGED_FOR
from airgate.policy.search import Net, Part, Search, Unknown
from airgate.policy.witness import Witness
from airgate.policy.words import listed

ADDED, REMOVED, CHANGED = "added", "removed", "changed"

Watch = Callable[[list["Question"]], Iterable["Question"]]


@dataclass(frozen=True)
class Difference:
    """A call that is decided in two ways."""

    request: Witness
    before: Evidence | None  # None: refused before policy was asked
    after: Evidence | None

    @property
    def known(self) -> Evidence:
        """One of the two: a call that both refuse before policy is no difference."""
        known = self.after or self.before
        assert known is not None
        return known

    @property
    def of_one_caller(self) -> bool:
        """Whether the token means the same in both."""
        one, other = self.before, self.after
        if one is None or other is None:
            return False
        # Each reads the claims that its own policies ask for.
        return one.call.caller.identity == other.call.caller.identity._replace(
            claims=one.call.caller.identity.claims
        )


@dataclass
class Change:
    """An issuer, role, upstream or policy that isn't what it was."""

    section: str  # issuer | role | upstream | policy
    name: str
    what: str  # added | removed | changed
    details: list[str]
    opens: list[str] = field(default_factory=list)  # why it is new access whatever the policies say
    gained: Difference | None = None
    lost: Difference | None = None
    unknown: list[str] = field(default_factory=list)  # why it isn't known whether it permits more


@dataclass(frozen=True)
class Question:
    """Is there a call that one policy set permits because of `cause`, and the other doesn't?"""

    cause: Part
    gain: bool  # the set that permits it is the newer one
    inside: list[list[Part]]  # it has to be inside one of these
    outside: Net
    least: list[
        Part
    ]  # a part of each of them: often there is no call that is inside that and outside the rest

    def found(self, since: float) -> Iterator[Witness | Unknown]:
        """Calls that may be it, and what stood in the way of knowing."""
        if len(self.inside) > 1 and Search(self.least, self.outside, since).answer() is None:
            return
        for parts in self.inside:
            found = Search(parts, self.outside, since).answer()
            if found is not None:
                yield found


class Comparison:
    """Two policy sets. `since`: seconds since the epoch, from which on calls count."""

    def __init__(self, old: Compiled, new: Compiled, since: float) -> None:
        self.old, self.new, self.since = old, new, since
        self._engines = Engine(old, since), Engine(new, since)

    def changes(self, watch: Watch = list) -> list[Change]:
        """All that differs, with a call for each policy that permits more or less, if there is one."""
        old, new = Enforced.of(self.old, beside=self.new), Enforced.of(self.new, beside=self.old)
        changes = {(change.section, change.name): change for change in _texts(self.old, self.new)}
        asked = [*questions(old, new, gain=True), *questions(new, old, gain=False)]
        for question in watch(asked):
            name = question.cause.rule.id
            change = changes.get(("policy", name))
            if change is None:  # its words are the same: what they mean has changed with roles or issuers
                change = changes["policy", name] = Change("policy", name, CHANGED, [])
            if (change.gained if question.gain else change.lost) is None:
                self._answer(question, change)
        meant = [
            change
            for change in changes.values()
            if change.details or change.gained or change.lost or change.unknown
        ]
        return sorted(meant, key=lambda change: (_SECTIONS.index(change.section), change.name))

    def _answer(self, question: Question, change: Change) -> None:
        for found in question.found(self.since):
            why = found.why if isinstance(found, Unknown) else _DISAGREE
            if isinstance(found, Witness):
                before, after = (engine.evidence(found) for engine in self._engines)
                permits = [each is not None and each.decision.permit for each in (before, after)]
                if permits == [not question.gain, question.gain]:
                    difference = Difference(found, before, after)
                    if question.gain:
                        change.gained = difference
                    else:
                        change.lost = difference
                    return
            if question.gain:
                change.unknown.append(why)


_DISAGREE = "a call was found that the gate decides in another way than the analysis"
_SECTIONS = ("issuer", "role", "upstream", "policy")


def questions(before: Enforced, after: Enforced, gain: bool) -> Iterator[Question]:
    """All that has to be answered to know every call that `after` permits and `before` doesn't.

    `gain`: as `Question.gain`. What is the same in both needs no question.
    """
    for upstream in after.upstreams:
        permits, forbids = after.permits.get(upstream, []), after.forbids.get(upstream, [])
        permitted = before.permits.get(upstream, [])
        known = {_meaning(part) for part in permitted}
        asked = [part for part in permits if _meaning(part) not in known]
        if asked:
            outside = _net(upstream, [*forbids, *permitted], permits)
            for part in asked:
                yield Question(part, gain, [[part]], outside, [part])
        denied: list[tuple[Part, tuple[Part, ...]]] = []  # what denied some calls before, and does no more
        known = {_meaning(part) for part in forbids}
        denied += [
            (part, (part,)) for part in before.forbids.get(upstream, []) if _meaning(part) not in known
        ]
        asking = {_asking(part) for part in permits}
        for pair in clashes(permitted):
            if gone := [part for part in pair if _asking(part) not in asking]:
                denied.append((gone[0], pair))
        outside = _net(upstream, forbids, permits)
        for cause, parts in denied:
            near = [permit for permit in permits if all(may_meet(permit, part) for part in parts)]
            yield Question(cause, gain, [[permit, *parts] for permit in near], outside, [*parts])


def _net(upstream: str, parts: Iterable[Part], permits: Iterable[Part]) -> Net:
    return Net(upstream, [(part,) for part in parts], permits)


def _asking(part: Part) -> tuple[str, str | None]:
    return _meaning(part), part.credential


def _meaning(part: Part) -> str:
    """A text that two parts share only if they match the same calls: what the rule says, and what that rests on."""
    rule = part.rule
    roles = {name for row in rule.conditions if row[0].startswith("subject.roles.") for name in row[1]}
    conditions = canonical(rule.conditions)
    # Whether a caller is human matters to conditions on the workload, too.
    of_a_task = "workload." in conditions
    by_kind = of_a_task or "subject.kind" in conditions

    def rests_on(tokens: Tokens) -> list[Any]:
        mapping = tokens.mapping
        grants = [grant for grant in mapping.grants if grant.role in roles]
        by_its_kind = by_kind or any(grant.claim == KIND for grant in grants)
        return [
            sorted(map(canonical, grants)),
            [mapping.kind_claim, mapping.kind_default, mapping.kind_values] if by_its_kind else None,
            sorted(mapping.attested) if of_a_task else None,
            tokens.bound and "subject.dpop" in conditions,
        ]

    issuers = {name: rests_on(tokens) for name, tokens in part.callers.tokens.items()}
    odd = part.callers.odd(part.upstream)
    return canonical([rule.effect, rule.methods, rule.paths, conditions, issuers, odd])


def _texts(old: Compiled, new: Compiled) -> Iterator[Change]:
    """What was written differently."""
    for section, member in zip(_SECTIONS, ("issuers", "roles", "upstreams", "policies"), strict=True):
        before = {name: entry.data for name, entry in getattr(old.seed, member).items()}
        after = {name: entry.data for name, entry in getattr(new.seed, member).items()}
        for name in sorted({*before, *after}):
            one, other = before.get(name), after.get(name)
            if one == other:
                continue
            what = ADDED if one is None else REMOVED if other is None else CHANGED
            details = list(_details(one, other)) if one and other else [_title(section, one or other or {})]
            change = Change(section, name, what, details)
            if other is not None:
                change.opens = list(_OPENS[section](one, other))
            if section == "policy":
                change.opens += _released(name, one, after)
            yield change


def _title(section: str, data: dict[str, Any]) -> str:
    if section == "policy":
        shadow = ", in shadow" if data.get("mode") == "shadow" else ""
        return f"{data['effect']}{shadow}: {data['description']}"
    return str(data.get("description") or data.get("issuer") or data.get("base") or "")


def _details(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Each value that differs, by the way to it."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            if one.get(key) != other.get(key):
                yield from _details(one.get(key), other.get(key), f"{path}.{key}" if path else key)
    else:
        yield f"{path}: {_turned(one, other)}"


def _turned(one: Any, other: Any) -> str:
    """Both values, or of long lists what has gone and what has come."""
    text = f"{_shown(one)} → {_shown(other)}"
    if len(text) <= 80 or not (isinstance(one, list) and isinstance(other, list)):
        return text
    gone = [f"- {_shown(item)}" for item in one if item not in other]
    come = [f"+ {_shown(item)}" for item in other if item not in one]
    return "  ".join([*gone, *come]) or "in another order"


def _shown(value: Any) -> str:
    if value is None:
        return "(nothing)"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(item)}" for key, item in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _role_opens(one: dict[str, Any] | None, other: dict[str, Any]) -> Iterator[str]:
    known = [] if one is None else one["granted_to"]
    for grant in other["granted_to"]:
        if grant not in known:
            yield f"granted to {_shown(grant)}: new access wherever a policy asks for the role"


def _issuer_opens(one: dict[str, Any] | None, other: dict[str, Any]) -> Iterator[str]:
    if one is None:
        yield "its tokens were refused: new access for its callers wherever a policy lets them"
        return
    for member in ("issuer", "jwks_uri"):
        if one.get(member) != other.get(member):
            yield f"{member}: other tokens are accepted"
    for member in ("audiences", "algorithms", "authorized_parties"):
        if more := [each for each in other.get(member, []) if each not in one.get(member, [])]:
            yield f"{member}: tokens with {_shown(more)} were refused"
    if one.get("type", "at+jwt") != other.get("type", "at+jwt") != "at+jwt":
        yield "type: tokens that aren't marked as access tokens were refused"
    if (claim := _kind_claim(one)) is not None:
        words = sorted(_kind_words(other) - _kind_words(one))
        if claim != _kind_claim(other):
            yield "kind: tokens in which the claim said something else were refused"
        elif words:
            yield f"kind: tokens with {_shown(words)} were refused"
    if one.get("dpop") == "required" != other.get("dpop"):
        yield "dpop: tokens that are bound to no key were refused"
    if one.get("dpop_replay") == "strict" != other.get("dpop_replay"):
        yield "dpop_replay: a proof that was used at one isolate was refused at all others"
    if one.get("role_tag") == "required" != other.get("role_tag"):
        yield "role_tag: calls that name no role were refused"
    if any(item not in other.get("require", []) for item in one.get("require", [])):
        yield "require: tokens without these claims, or with other values, were refused"
    if any(item not in other.get("truncates", []) for item in one.get("truncates", [])):
        yield "truncates: tokens whose lists may have been cut were refused"
    for member, usual in (("max_lifetime", "1h"), ("clock_skew", "60s")):
        if seconds(one.get(member, usual)) < seconds(other.get(member, usual)):
            yield f"{member}: tokens that were refused may be accepted"


def _kind_claim(issuer: dict[str, Any]) -> Any:
    claim = issuer.get("kind", {}).get("claim")
    return [claim] if isinstance(claim, str) else claim


def _kind_words(issuer: dict[str, Any]) -> set[str]:
    """What the claim may say."""
    return set(issuer.get("kind", {}).get("values", KINDS))


def _policy_opens(one: dict[str, Any] | None, other: dict[str, Any]) -> Iterator[str]:
    """Obligations that ask less than they did. Those of a new permit come with its calls."""
    yield from _exchange_opens(one, other)
    if one is None or one["effect"] != "permit" or other["effect"] != "permit":
        return
    before, after = one.get("obligations", {}), other.get("obligations", {})
    for name, value in before.items():
        if after.get(name) != value:
            yield f"obligations.{name}: calls that it stopped may pass"
    if one.get("asking") != other.get("asking") and "asking" in other:
        yield "asking: other questions may be asked"


def _exchange_opens(policy: dict[str, Any] | None, changed: dict[str, Any]) -> Iterator[str]:
    """What may be got now for a token. Another permit may have let the call through, for fewer upstreams."""
    if "exchange" not in changed or changed.get("mode") == "shadow":
        return
    one, other = (policy or {}).get("exchange"), changed["exchange"]
    if policy is None or one is None or any(policy.get(name) != changed.get(name) for name in _WHOSE):
        yield f"exchange: its callers may get tokens for {_shown(listed(other['upstreams']))}"
        return
    if more := _more(listed(one["upstreams"]), listed(other["upstreams"])):
        yield f"exchange.upstreams: tokens for {_shown(more)} were not to be had"
    before, after = (listed(each["roles"]) if "roles" in each else None for each in (one, other))
    if more := _more(before, after):
        yield f"exchange.roles: tokens with {_shown(more)} were not to be had"
    lifetimes = [seconds(each.get("lifetime", EXCHANGED_FOR)) for each in (one, other)]
    if lifetimes[0] < lifetimes[1]:
        yield f"exchange.lifetime: tokens were good for {lifetimes[0]} seconds, and are for {lifetimes[1]}"
    if one.get("bound", False) and not other.get("bound", False):
        yield "exchange.bound: tokens were bound to a key, and needn't be any more"


def _released(name: str, policy: dict[str, Any] | None, after: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What a permit held back of tokens that others let be had: of several for one upstream the strictest counts."""
    gone = _exchanged(policy) - _exchanged(after.get(name))
    others = {each for other, data in after.items() if other != name for each in _exchanged(data)}
    if released := sorted(gone & others):
        yield f"exchange: it holds back nothing any more of tokens for {_shown(released)}"


def _exchanged(policy: dict[str, Any] | None) -> set[str]:
    """The upstreams for which a permit that is in force lets tokens be exchanged."""
    if policy is None or "exchange" not in policy or policy.get("mode") == "shadow":
        return set()
    return set(listed(policy["exchange"]["upstreams"]))


_WHOSE = ("mode", "subject", "workload", "when")  # the members that say whom a policy of one target is about


def _upstream_opens(one: dict[str, Any] | None, other: dict[str, Any]) -> Iterator[str]:
    """Where calls and secrets go, and what of them passes: nothing of it is a matter of policies."""
    if one is None:  # that it can be reached comes with the policies
        return
    before, after = upstreams.upstream(one), upstreams.upstream(other)
    yield from (
        words
        for name, words in _ELSEWHERE.items()
        if before[name] != after[name] and after[name] != _CLOSED[name]
    )
    for name, what in (
        ("hosts", "calls to %s are this upstream's"),
        ("request_headers", "%s of callers pass"),
    ):
        if more := _more(before[name], after[name]):
            yield f"{name}: {what % _shown(more)}"
    origins = (after["cors"] or {}).get("origins", [])
    if more := _more((before["cors"] or {}).get("origins", []), origins):
        yield f"cors: pages of {_shown(more)} may read answers"
    if before["assertion"] and not after["assertion"]:
        yield "assertion: calls don't say any more who calls, so the upstream can't tell"
    yield from _credential_opens(before, after)


_ELSEWHERE = {
    "base": "base: calls, and the secrets that they carry, go to another place",
    "via": "via: calls, and the secrets that they carry, go another way",
    "private": "private: it may be an address inside of a private network",
    "encoded_slash": "encoded_slash: calls with an encoded slash were refused",
    "empty_segments": "empty_segments: calls with an empty segment were refused",
}
# What lets nothing more through.
_CLOSED = {"base": "", "via": "", "private": False, "encoded_slash": "refuse", "empty_segments": False}


def _more(before: list[str] | None, after: list[str] | None) -> list[str]:
    """What has come. None: all that may pass at all."""
    if before is None:
        return []
    return ["all others"] if after is None else [name for name in after if name not in before]


def _credential_opens(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    usual = [each["credentials"].get(each["credential"]) for each in (before, after)]
    if usual[0] != usual[1] and usual[1] is not None:
        was, now = (_credential(each) for each in usual)
        yield f"credential: calls carry {now}, and carried {was}"
    for name, each in after["credentials"].items():
        was = before["credentials"].get(name)
        if was is not None and was != each and name not in (before["credential"], after["credential"]):
            yield f"credentials.{name}: calls carry {_credential(each)}, and carried {_credential(was)}"


def _credential(data: dict[str, Any] | None) -> str:
    if data is None:
        return "none"
    members = [
        f"{name}: {_shown(value)}" for name, value in data.items() if name != "kind" and value is not None
    ]
    return f"{data['kind']} ({', '.join(members)})" if members else str(data["kind"])


_OPENS: dict[str, Callable[[dict[str, Any] | None, dict[str, Any]], Iterator[str]]] = {
    "issuer": _issuer_opens,
    "role": _role_opens,
    "upstream": _upstream_opens,
    "policy": _policy_opens,
}
