"""`airgate policy replay`: what other policy would have said to the calls in the gate's audit log.

Exit codes: 0 no recorded call would get another answer, for certain; 1 some would, or nobody can tell; 2 invalid.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from airgate.dev.stack import StackError, read_stack
from airgate.engine import Reason
from airgate.policy import traffic
from airgate.policy.check import counted, report
from airgate.policy.compile import Compiled, StandIns, compile_folder
from airgate.policy.judgement import Case, Judge, Judgement, Known
from airgate.policy.output import console, watched
from airgate.policy.phrases import joined
from airgate.policy.recorded import RecordError
from airgate.policy.revision import RevisionError, compiled, seed_folder
from airgate.policy.seed import SeedError
from airgate.policy.traffic import Call, Group, Traffic

NO_CHANGE, CHANGE, INVALID = 0, 1, 2

LOSE, GAIN = "lose", "gain"
MOST_SUBJECTS = 3  # named of those behind one line
MOST_WHY = 4  # reasons for "perhaps" under one line

Logs = Annotated[
    list[Path], typer.Option("--log", metavar="FILE", help="An audit log; - is standard input. Repeat it.")
]
Since = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Leave out what is older: 7d, 2026-11-14 or a moment.")
]


@dataclass
class Count:
    """How many calls, and from when until when."""

    example: Call
    calls: int = 0
    first: int = 0
    last: int = 0

    def add(self, now: int) -> None:
        if not self.calls or now < self.first:
            self.first = now
        if not self.calls or now > self.last:
            self.last = now
        self.calls += 1


@dataclass
class Change:
    """Calls of one DAG to one place that would get another answer, or may."""

    change: str  # lose | gain
    certain: bool
    dag: str | None
    attested: bool
    method: str
    where: str
    policies: tuple[str, ...]
    cause: str
    example: str | None  # a path that was called; None: not in the log
    calls: int = 0
    first: int = 0
    last: int = 0
    subjects: set[str] = field(default_factory=set)
    why: dict[str, None] = field(default_factory=dict)

    def add(self, count: Count, why: Iterable[str]) -> None:
        self.first = min(self.first or count.first, count.first)
        self.last = max(self.last, count.last)
        self.calls += count.calls
        self.subjects.add(str(count.example.group.record.event["subject"]))
        self.why.update(dict.fromkeys(why))

    def sentence(self, span: str) -> str:
        """`sales_sync` would lose POST /crm/v1/orders: 214 calls in 7 days"""
        verb = "would" if self.certain else "may"
        return f"{self.who} {verb} {self.change} {self.method} {self.where}: {counted(self.calls, 'call')} in {span}"

    @property
    def who(self) -> str:
        if self.dag is not None:
            return f"`{self.dag}`"
        more = len(self.subjects) - MOST_SUBJECTS
        shown = ", ".join(sorted(self.subjects)[:MOST_SUBJECTS])
        return shown + (f" and {more:,} more" if more > 0 else "")


@dataclass
class Replay:
    """What came of it."""

    traffic: Traffic
    changes: list[Change]
    same: int = 0  # calls whose answer stays, for certain

    def calls(self, certain: bool) -> int:
        return sum(change.calls for change in self.changes if change.certain is certain)


def replay(
    logs: Logs,
    candidate: Annotated[
        Path | None, typer.Option("--candidate", metavar="DIR", help="The policy seed that is to answer.")
    ] = None,
    shadow: Annotated[
        bool,
        typer.Option(
            "--shadow", help="What enforcing the policies in shadow would change, by the log itself."
        ),
    ] = False,
    before: Annotated[
        str | None,
        typer.Option(
            metavar="OLD",
            help="The policy that was in force then, a folder or a git revision. It makes more answers certain.",
        ),
    ] = None,
    since: Since = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Answer the calls in audit logs with other policy, and list what would change.

    Exits with 0 when no call would get another answer, 1 when some would or nobody can tell, 2 when the seed or a log
    can't be used.
    """
    try:
        if shadow == (candidate is not None) or (shadow and before is not None):
            raise RecordError(
                "Say what is to answer: --candidate DIR, with or without --before OLD, or --shadow alone"
            )
        log = opened(logs, since)
        if candidate is None:
            found = by_shadow(log)
        else:
            judge = _judge(candidate, before)
            found = by_candidate(log, judge)
        if not log.decided:
            raise RecordError(
                f"No call that policy decided is in the logs: {log.unasked.total():,} were refused before, "
                f"{log.older:,} are older, {log.broken:,} lines are broken, and {log.others:,} are none of the gate's. "
                "Is it the gate's log? docs/replay.md says what it looks like"
            )
    except SeedError as error:
        report(error, "Nothing was replayed.")
        raise typer.Exit(INVALID) from None
    except (RecordError, RevisionError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(INVALID) from None
    if as_json:
        typer.echo(json.dumps(_document(found), ensure_ascii=False))
    else:
        screen = console()
        for line, style in lines(found, shadow, judge if candidate is not None else None):
            screen.print(Text(traffic.printable(line), style), soft_wrap=True)
    raise typer.Exit(CHANGE if found.changes else NO_CHANGE)


def opened(logs: list[Path], since: str | None) -> Traffic:
    """Logs, from a time on. Raises RecordError."""
    try:
        return Traffic(logs, None if since is None else traffic.since(since, time.time()))
    except ValueError as error:
        raise RecordError(f"--since: {error}") from None


def by_candidate(log: Traffic, judge: Judge) -> Replay:
    """What a policy set would change. Raises RecordError."""
    log.keep_run = judge.compares_run
    cases: dict[Case, Count] = {}
    for call in log.calls():
        case = judge.case(call)
        count = cases.get(case)
        if count is None:
            count = cases[case] = Count(call)
        count.add(call.now)
    judge.learn(log.groups)
    judged = ((count, judge.judge(case, count.example)) for case, count in watched(cases.items(), "deciding"))
    return _gathered(log, judged)


def by_shadow(log: Traffic) -> Replay:
    """What enforcing all policies would change that were in shadow. Raises RecordError."""
    groups: dict[Group, Count] = {}
    for call in log.calls():
        count = groups.get(call.group)
        if count is None:
            count = groups[call.group] = Count(call)
        count.add(call.now)
    return _gathered(log, ((count, _enforced(group)) for group, count in groups.items()))


def _enforced(group: Group) -> Judgement:
    event = group.record.event
    if not event["shadow"]:
        return Judgement(group.permit)
    return Judgement(event["would"] == "permit", tuple(event["shadow"]), event.get("route"))


def _gathered(log: Traffic, judged: Iterable[tuple[Count, Judgement]]) -> Replay:
    changes: dict[tuple[object, ...], Change] = {}
    same = 0
    for count, judgement in judged:
        group = count.example.group
        if judgement.permits is group.permit:
            same += count.calls
            continue
        event = group.record.event
        lost = group.permit
        dag = event["workload"].get("dag")
        route = event.get("route") if lost else judgement.route
        upstream = event["upstream"]
        place = f"/{upstream}{route}" if route else f"/{upstream}/..."
        policies = judgement.policies or tuple(event["permits"] if lost else ())
        key = (
            lost, judgement.permits is None, dag and (dag["value"], dag["attested"]), event["method"], place,
            policies, judgement.reason,
        )  # fmt: skip
        change = changes.get(key)
        if change is None:
            change = changes[key] = Change(
                LOSE if lost else GAIN,
                judgement.permits is not None,
                dag["value"] if dag else None,
                bool(dag and dag["attested"]),
                event["method"],
                place,
                policies,
                _cause(judgement, event, lost),
                None if count.example.path is None else f"/{upstream}{count.example.path}",
            )
        change.add(count, judgement.why)
    ordered = sorted(
        changes.values(),
        key=lambda each: (
            not each.certain,
            each.dag or "",
            -each.calls,
            each.where,
            each.method,
            each.policies,
        ),
    )
    return Replay(log, ordered, same)


def _cause(judgement: Judgement, event: dict[str, Any], lost: bool) -> str:
    was = joined(event["permits"] if lost else event["forbids"])
    if event["shadow"] and judgement.policies == tuple(event["shadow"]):
        return f"with {joined(judgement.policies)} enforced"
    if judgement.permits is None:
        return (
            f"was permitted by {was}"
            if lost
            else f"was forbidden by {was}"
            if was
            else "was permitted by none"
        )
    if not lost:
        return f"permitted by {joined(judgement.policies)}; was " + (
            f"forbidden by {was}" if was else "permitted by none"
        )
    if judgement.reason is Reason.POLICY_FORBIDDEN:
        return f"forbidden by {joined(judgement.policies)}; was permitted by {was}"
    if judgement.reason is Reason.POLICY_NO_MATCH:
        return f"no policy permits it; was permitted by {was}"
    if judgement.reason is Reason.POLICY_OBLIGATION:
        return f"{joined(judgement.policies)} ask for different credentials; was permitted by {was}"
    return f"refused before policy is asked, {judgement.reason}; was permitted by {was}"


def _judge(candidate: Path, before: str | None) -> Judge:
    """Raises SeedError and RevisionError."""
    new = compile_folder(candidate)
    known = [Known(new, _versions(new, candidate))]
    if before is not None:
        with seed_folder(before, candidate) as (folder, name):
            old = compiled(folder, name)
            known.append(Known(old, _versions(old, folder)))
    return Judge(new, known)


def _versions(seed: Compiled, folder: Path) -> set[str]:
    """What a gate calls a bundle of this seed; the local stack's holds its own addresses."""
    versions = {seed.engine.bundle.version}
    try:
        stack = read_stack()
    except StackError:
        return versions
    local = compile_folder(folder, StandIns(stack.provider, stack.sample))
    return versions | {local.engine.bundle.version}


def lines(found: Replay, shadow: bool, judge: Judge | None) -> Iterator[tuple[str, str]]:
    """The report, line by line, each with its style."""
    log = found.traffic
    yield from _read(log, judge)
    for certain in (True, False):
        changes = [change for change in found.changes if change.certain is certain]
        if changes:
            yield "", ""
            yield ("For certain:" if certain else "Perhaps, for the log doesn't hold enough to tell:"), "bold"
        for change in changes:
            style = "" if not certain else "red" if change.change == GAIN else "yellow"
            yield f"  {change.sentence(log.span)}", style
            such = f"; such as {change.example}" if change.example and change.where.endswith("/...") else ""
            yield f"      {change.cause}{such}", ""
            for why in list(change.why)[:MOST_WHY]:
                yield f"      {why}", ""
            if len(change.why) > MOST_WHY:
                yield f"      and {counted(len(change.why) - MOST_WHY, 'reason')} more", ""
    if found.changes:
        yield "", ""
        yield "By policy:", "bold"
        for line in by_policy(found.changes):
            yield f"  {line}", ""
    yield "", ""
    yield _conclusion(found, shadow), ""


def _read(log: Traffic, judge: Judge | None) -> Iterator[tuple[str, str]]:
    reach = f" from {traffic.day(log.first)} to {traffic.day(log.last)}" if log.first and log.last else ""
    yield f"{counted(log.decided, 'recorded call')}{reach} ({log.span})", ""
    if log.unasked:
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in log.unasked.most_common())
        yield (
            f"Left out: {counted(log.unasked.total(), 'request')} of which policy wasn't asked: {reasons}",
            "",
        )
    if log.questions:
        yield f"Left out: {counted(log.questions, 'question')} at /access/v1/, which are not calls", ""
    if log.older:
        yield f"Left out: {counted(log.older, 'older decision')}", ""
    if log.others:
        yield f"Left out: {counted(log.others, 'line')} of something else than the gate", ""
    if log.broken:
        more = f", and {log.broken - len(log.told):,} more" if log.broken > len(log.told) else ""
        yield f"Left out: {counted(log.broken, 'broken line')}: {'; '.join(log.told)}{more}", "yellow"
    for name in log.damaged:
        yield f"Not read to its end: {name}", "yellow"
    if not log.decided:
        yield "No call is in the logs. What they look like: docs/replay.md", "yellow"
    if judge is None or not log.decided:
        return
    decided_by = Counter(str(group.record.bundle) for group in log.groups)
    known = {version for each in judge.known for version in each.versions}
    strangers = [version for version in decided_by if version not in known]
    if strangers and len(judge.known) == 1:
        yield (
            "Who holds which role is as the log has it. With the policy of that time (--before OLD) more is certain, "
            "and roles that are granted in another way are seen",
            "",
        )
    elif strangers:
        yield f"Of bundle {joined(strangers)} nothing is known: --before is another one", "yellow"


def by_policy(changes: Iterable[Change]) -> list[str]:
    """The same changes, by the policies that make them."""
    calls: Counter[tuple[str, bool, str]] = Counter()
    for change in changes:
        for policy in change.policies:
            calls[policy, change.certain, change.change] += change.calls
    said = []
    for (policy, certain, way), number in sorted(calls.items()):
        verb = "would" if certain else "may"
        said.append(f"{policy}: {counted(number, 'call')} {verb} be {'lost' if way == LOSE else 'gained'}")
    return said


def _conclusion(found: Replay, shadow: bool) -> str:
    what = "Enforced, the policies in shadow" if shadow else "The candidate"
    changed, unsure = found.calls(True), found.calls(False)
    if not found.changes:
        return f"{what} would change nothing: all {found.same:,} calls get the answer that they got."
    return (
        f"{what} would change {counted(changed, 'answer')} for certain, and perhaps {unsure:,} more; "
        f"{found.same:,} stay as they are."
    )


def _document(found: Replay) -> dict[str, Any]:
    log = found.traffic
    return {
        "logs": [str(path) for path in log.logs],
        "from": log.first,
        "to": log.last,
        "calls": log.decided,
        "same": found.same,
        "changed": found.calls(True),
        "unsure": found.calls(False),
        "left_out": {
            "unasked": dict(log.unasked),
            "questions": log.questions,
            "older": log.older,
            "other_lines": log.others,
            "broken": log.broken,
            "broken_lines": log.told,
            "damaged_files": log.damaged,
        },
        "changes": [
            {
                "change": change.change,
                "certain": change.certain,
                "dag": change.dag,
                "attested": change.attested,
                "subjects": sorted(change.subjects),
                "method": change.method,
                "where": change.where,
                "policies": list(change.policies),
                "cause": change.cause,
                "example": change.example,
                "why": list(change.why),
                "calls": change.calls,
                "first": change.first,
                "last": change.last,
            }
            for change in found.changes
        ],
    }
