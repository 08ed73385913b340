"""Conditions in words: what one asks, what it saw, and what would make it true or false."""

from collections.abc import Iterable
from datetime import UTC, datetime

from airgate.engine import (
    DAYS,
    Among,
    Call,
    Claim,
    Condition,
    Dates,
    Equal,
    Flag,
    Ids,
    Named,
    Network,
    Property,
    Query,
    Roles,
    Tags,
    Window,
    equated,
)
from airgate.policy.request import UNKNOWN_QUERY
from airgate.policy.seed import either
from airgate.policy.when import month_words

MOST = 8  # values that are named; of more only their number

_NOUNS = {
    "dag": "DAG",
    "task": "task",
    "run": "run",
    "run_type": "run's type",
    "triggered_by": "user who started the run",
    "environment": "environment",
    "subject.issuer": "issuer",
    "subject.id": "subject",
    "subject.kind": "kind",
    "when.country": "country",
}
_OF_A_RUN = {"run_type": "a run of type", "triggered_by": "a run that was started by"}
_OF_ANOTHER_RUN = {
    "run_type": "a run of another type than",
    "triggered_by": "a run that was started by another user than",
}
HEADERS = {
    "dag": "Airgate-Dag-Id",
    "task": "Airgate-Task-Id",
    "run": "Airgate-Run-Id",
    "environment": "Airgate-Environment",
    "tags": "Airgate-Dag-Tags",
}


def joined(values: Iterable[str], most: int = MOST) -> str:
    """`a, b, c`, or of many the first ones and their number."""
    listed = list(values)
    more = f", … ({len(listed)} in all)" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def _one_of(values: Iterable[str]) -> str:
    listed = sorted(values)
    return either(listed) if len(listed) <= MOST else f"one of {joined(listed)}"


def _every(values: Iterable[str]) -> str:
    listed = sorted(values)
    return " and ".join(part for part in (", ".join(listed[:-1]), listed[-1]) if part)


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def moment(seconds: float) -> str:
    """RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _hours(window: Window) -> str:
    ends = " of the next day" if window.end <= window.start else ""
    return f"from {clock(window.start)} to {clock(window.end)}{ends}"


def _days(window: Window) -> str:
    """`every day`, `mon-fri` or `mon, wed-fri`; `on days 1, 15 of the month`, `mon-fri on the last 3 days of ...`."""
    of_month = _month_days(window.month_days)
    if len(window.days) == 7:
        return of_month or "every day"
    runs: list[list[int]] = []
    for day in sorted(window.days):
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    days = ", ".join("-".join(dict.fromkeys([DAYS[run[0]], DAYS[run[-1]]])) for run in runs)
    return f"{days} {of_month}".rstrip()


def _month_days(days: frozenset[int]) -> str:
    """`on days 1, 28-31 and the last 3 days of the month`; empty for any day."""
    words = month_words(days)
    last = [f"the {word} day{'s' * (word != 'last')}" for word in words if str(word).startswith("last")]
    others = [str(word) for word in words if not str(word).startswith("last")]
    said = [f"day{'s' * (len(days) > 1)} {', '.join(others)}"] * bool(others) + last
    return f"on {' and '.join(said)} of the month" if said else ""


def asks(condition: Condition) -> str:
    """What a condition compares with, as the policy writes it."""
    match condition:
        case Named() | Ids():
            return joined(glob.pattern for glob in condition.globs)
        case Window():
            return f"{_days(condition)}, {_hours(condition)}, {condition.zone.name}"
        case Dates():
            return _period(condition)
        case Network():
            return joined(condition.ranges)
        case Equal():
            return f"{condition.left} is {condition.right}"
        case Flag(expected=expected):
            return "true" if expected else "false"
        case Among() | Roles() | Claim() | Tags() | Query() | Property():
            return joined(sorted(condition.values))
    return ""


def _period(dates: Dates) -> str:
    start = f"from {moment(dates.start)}" if dates.start is not None else ""
    until = f"before {moment(dates.until)}" if dates.until is not None else ""
    return " ".join(part for part in (start, until) if part)


def title(condition: Condition) -> str:
    """The condition's name where the policy has it; `equals` says what it compares by itself."""
    return "when.equals" if isinstance(condition, Equal) else condition.name


def saw(condition: Condition, call: Call, used: frozenset[str]) -> str:
    """The value that was looked at; or why there is none."""
    if isinstance(condition, Named | Tags) and call.caller.identity.kind == "human":
        return "a human: there is no DAG"
    if isinstance(condition, Equal):
        return _saw_equal(condition, call)
    if isinstance(condition, Dates):
        return moment(call.now)
    if isinstance(condition, Flag):
        return _saw_flag(condition, call)
    seen = condition.seen(call, used)
    if isinstance(condition, Roles):
        unknown = sorted(condition.values & call.caller.identity.unknown)
        return (joined(seen or ()) or "none") + (f"; not known: {joined(unknown)}" if unknown else "")
    if seen is not None and not (isinstance(condition, Query) and len(seen) > 1):
        text = seen if isinstance(seen, str) else joined(seen)
        return text + _provenance(condition, call) if text else "none"
    match condition:
        case Named(field=field):
            return _missing_fact(field, condition, call)
        case Tags():
            return _missing_fact("tags", condition, call)
        case Claim():
            return "nothing: the token has no such claim, or one that can't be compared"
        case Query():
            if call.target.query == UNKNOWN_QUERY:
                return "nothing: the query isn't known"
            return "more than one reading: servers would differ"
        case Property():
            return "nothing: the question has no such property, or one that can't be compared"
        case Window():
            return "nothing: the zone's table ends before, or begins after"
        case Network():
            return (
                f"{call.client}, which is no address" if call.client else "nothing: the address isn't known"
            )
    return "nothing: it isn't known"


def _saw_flag(condition: Flag, call: Call) -> str:
    seen = condition.seen(call, frozenset())
    if condition.name == "subject.dpop":
        return "a bearer token" if seen is None else "a token that is bound to a key"
    return "nobody who acts for the subject" if seen is None else f"{seen}, who acts for the subject"


def _flagged(name: str, so: bool) -> str:
    """What a caller does for a flag to be so, or not."""
    if name == "subject.dpop":
        return "come with a token that is bound to a key (DPoP)" if so else "come with a bearer token"
    if so:
        return "come with a token that says who acts for the subject (act)"
    return "come with the subject's own token, for which nobody else acts (no act)"


def _provenance(condition: Condition, call: Call) -> str:
    if not isinstance(condition, Named | Tags):
        return ""
    fact = call.caller.workload["tags" if isinstance(condition, Tags) else condition.field]
    return " (attested)" if fact.attested else " (asserted)"


def _missing_fact(field: str, condition: "Named | Tags", call: Call) -> str:
    fact = call.caller.workload.get(field)
    if fact is not None:  # and there is no reading it: only attested ones count
        value = fact.value if isinstance(fact.value, str) else joined(fact.value)
        return f"{value}, but only asserted: the token doesn't attest it"
    where = "the token doesn't attest it" if condition.attested else "neither token nor header says it"
    return f"nothing: {where}"


def _saw_equal(condition: Equal, call: Call) -> str:
    if call.caller.identity.kind == "human" and "workload." in f"{condition.left} {condition.right}":
        return "a human: there is no DAG"
    sides = []
    for attribute in (condition.left, condition.right):
        # Compared with itself, an attribute tells whether it has one value.
        value = Equal(attribute, attribute, condition.attested).seen(call, frozenset())
        half = (value or ())[: len(value or ()) // 2]
        sides.append(f"{attribute} is {joined(half) if half else 'not there'}")
    return ", ".join(sides)


def to_hold(condition: Condition, call: Call, used: frozenset[str]) -> str:
    """What a caller would have to do for the condition to be true: `hold the role finance-publisher`."""
    match condition:
        case Among(name="subject.id", values=values):
            return f"be the subject {_one_of(values)}"
        case Among(name="subject.issuer", values=values):
            return f"come with a token of issuer {_one_of(values)}"
        case Among(name="when.country", values=values):
            return f"call from {_one_of(values)}" + ("" if call.country else " (the country isn't known)")
        case Among(values=values):
            return f"be of kind {_one_of(values)}"
        case Flag(name=name, expected=expected):
            return _flagged(name, expected)
        case Roles():
            return _hold_roles(condition, call, used)
        case Claim(quantifier=quantifier, path=path, values=values):
            return f"have {_choice(quantifier, values)} in the token's claim {'.'.join(path)}"
        case Named(field=field, globs=globs, attested=attested):
            patterns = _one_of(glob.pattern for glob in globs)
            of = _OF_A_RUN.get(field) or f"the {_NOUNS[field]}"
            return f"come from {of} {patterns}" + _said(field, attested)
        case Tags(quantifier=quantifier, values=values, attested=attested):
            return f"come from a DAG with {_choice(quantifier, values)} among its tags" + _said(
                "tags", attested
            )
        case Query(quantifier=quantifier, parameter=parameter, values=values):
            return f"send {_choice(quantifier, values)} as the query's {parameter}, once"
        case Property(quantifier=quantifier, member=member, values=values):
            return f"ask about a resource whose {member} has {_choice(quantifier, values)}"
        case Ids(globs=globs):
            return f"ask about the id {_one_of(glob.pattern for glob in globs)}"
        case Window():
            return f"call {_days(condition)} {_hours(condition)} ({condition.zone.name})"
        case Dates():
            return f"call {_period(condition)}"
        case Network(ranges=ranges):
            return f"call from {_one_of(ranges)}"
        case Equal(left=left, right=right):
            return f"have {_attribute(left)} and {_attribute(right)} be the same"
    return condition.name


def to_fail(condition: Condition, call: Call, used: frozenset[str]) -> str:
    """What would make the condition false, so that a forbid doesn't match: `not hold the role contractor`."""
    match condition:
        case Among(name="subject.id", values=values):
            return f"be another subject than {_one_of(values)}"
        case Among(name="subject.issuer", values=values):
            return f"come with a token of another issuer than {_one_of(values)}"
        case Among(name="when.country", values=values):
            known = "" if call.country else ", known to the gate"
            return f"call from another country than {_one_of(values)}{known}"
        case Among(values=values):
            return f"be of another kind than {_one_of(values)}"
        case Flag(name=name, expected=expected):
            return _flagged(name, not expected)
        case Roles(quantifier="none", values=values):
            return f"hold the role {_one_of(values)}"
        case Roles(quantifier=quantifier, values=values):
            which = _one_of(values) if quantifier == "any" else f"every one of {_every(values)}"
            unknown = sorted(values & call.caller.identity.unknown)
            known = (
                f", and a token that says so (it lacks the claim that could grant {unknown[0]})"
                if unknown
                else ""
            )
            return f"not hold {which}{known}"
        case Claim(quantifier=quantifier, path=path, values=values):
            return f"have {_other(quantifier, values)} in the token's claim {'.'.join(path)}"
        case Named(field=field, globs=globs, attested=attested):
            patterns = _one_of(glob.pattern for glob in globs)
            other = _OF_ANOTHER_RUN.get(field) or f"another {_NOUNS[field]} than"
            return f"come from {other} {patterns}" + _said(field, attested)
        case Tags(quantifier=quantifier, values=values, attested=attested):
            return f"come from a DAG with {_other(quantifier, values)} among its tags" + _said(
                "tags", attested
            )
        case Query(quantifier=quantifier, parameter=parameter, values=values):
            return (
                f"send {_other(quantifier, values)} as the query's {parameter}, once and in this letter case"
            )
        case Property(quantifier=quantifier, member=member, values=values):
            return f"ask about a resource whose {member} has {_other(quantifier, values)}"
        case Ids(globs=globs):
            return f"ask about another id than {_one_of(glob.pattern for glob in globs)}"
        case Window():
            apart = "at another time than" if condition.month_days else "outside of"
            return f"call {apart} {_days(condition)} {_hours(condition)} ({condition.zone.name})"
        case Dates():
            return f"call outside of the time {_period(condition)}"
        case Network(ranges=ranges):
            return f"call from another address than {_one_of(ranges)}"
        case Equal(left=left, right=right):
            return f"have {_attribute(left)} and {_attribute(right)}, and not be the same"
    return condition.name


def _hold_roles(condition: Roles, call: Call, used: frozenset[str]) -> str:
    identity, values = call.caller.identity, condition.values
    if condition.quantifier == "none":
        held = sorted(values & identity.granted) or sorted(values & identity.unknown)
        known = "" if values & identity.granted else ", and a token that says so"
        return f"not hold the role {_one_of(held)}{known}"
    lacking = values - used
    untagged = sorted(lacking & identity.granted)
    if untagged and (condition.quantifier == "any" or lacking <= identity.granted):
        which = untagged[:1] if condition.quantifier == "any" else untagged
        return f"name {_every(which)} in Airgate-Role too: it's granted, but the tag leaves it out"
    if condition.quantifier == "any":
        text = f"hold the role {_one_of(values)}"
    else:
        text = f"hold the role{'s' if len(lacking) > 1 else ''} {_every(lacking)}"
    unknown = sorted(lacking & identity.unknown)
    return text + (f" (the token lacks the claim that could grant {_every(unknown)})" if unknown else "")


def _said(field: str, attested: bool) -> str:
    told = attested or field not in HEADERS
    return ", attested by the token" if told else f", and say so ({HEADERS[field]})"


def _choice(quantifier: str, values: frozenset[str]) -> str:
    if quantifier == "none":
        return f"none of {joined(sorted(values))}" if len(values) > 1 else f"no {min(values)}"
    return _one_of(values) if quantifier == "any" else _every(values)


def _other(quantifier: str, values: frozenset[str]) -> str:
    """What makes `_choice` false."""
    if quantifier == "none":
        return _one_of(values)
    if quantifier == "any":
        return f"none of {joined(sorted(values))}" if len(values) > 1 else f"no {min(values)}"
    return f"not all of {_every(values)}" if len(values) > 1 else f"no {min(values)}"


def _attribute(name: str) -> str:
    """An attribute of `equals` in words: `the token's claim email`."""
    assert equated(name)
    space, _, member = name.partition(".")
    if space == "subject":
        return (
            f"the {_NOUNS[f'subject.{member}']}"
            if f"subject.{member}" in _NOUNS
            else f"the token's claim {member}"
        )
    if space == "workload":
        return f"the {_NOUNS[member]}"
    return f"the query's {member}" if space == "query" else f"the resource's {member}"
