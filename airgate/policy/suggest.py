"""`airgate policy suggest`: the narrowest policies that cover what the audit log saw, and permits that nobody uses.

Exit codes: 0 printed, and checked by a replay; 1 the check failed, so nothing is printed; 2 invalid.
"""

import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from airgate.engine import EMPTY, OWN, Target
from airgate.policy import traffic
from airgate.policy.check import Folder, counted, report
from airgate.policy.compile import Compiled, compile_folder
from airgate.policy.judgement import Case, Judge, Known
from airgate.policy.lines import STANDARD_INPUT
from airgate.policy.narrowing import (
    Names,
    Use,
    asked_of_workload,
    by_token,
    compares_names,
    located,
    narrowed,
    opened,
    plain,
)
from airgate.policy.output import watched
from airgate.policy.phrases import joined
from airgate.policy.recorded import RecordError
from airgate.policy.replay import Logs, Since
from airgate.policy.replay import opened as opened_logs
from airgate.policy.rules import upstreams
from airgate.policy.seed import STARTER, SeedError, label
from airgate.policy.traffic import Call, Traffic
from airgate.policy.words import listed

DONE, FAILED, INVALID = 0, 1, 2

UNUSED_FOR = "30d"
_DAY = 86_400
# Without all of one of these nobody can say what a policy would have to cover.
_NEEDED = frozenset({"issuer", "upstream", "roles", "permits", "forbids", "route", "path", "workload"})


@dataclass
class Observed:
    """What the logs say of a seed's policies."""

    seed: Compiled
    uses: dict[tuple[object, ...], Use] = field(default_factory=dict)
    denied: dict[tuple[object, ...], Use] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)  # when each policy last had a part, by its id
    left_out: dict[str, int] = field(default_factory=dict)  # calls that can't be covered, by why

    def __post_init__(self) -> None:
        self._permits = {
            name: entry.data
            for name, entry in self.seed.seed.policies.items()
            if entry.data["effect"] == "permit" and entry.data.get("mode", "enforce") == "enforce"
        }
        self._asked = {name: asked_of_workload(permit) for name, permit in self._permits.items()}
        self._issued: dict[str, set[str]] = {name: set() for name in self._permits}

    def add(self, call: Call, *, denied: bool) -> None:
        """Take a call into account; `denied`: also one that no policy permitted."""
        group = call.group
        event = group.record.event
        for name in ("permits", "forbids", "shadow"):
            for policy in event[name]:
                self.last[policy] = max(call.now, self.last.get(policy, 0))
        if group.record.cut & _NEEDED:
            self._leave("their lines were too long for the log, which holds only a part")
        elif group.record.lent:
            self._leave("a temporary grant had a part in it")
        elif group.record.delegated:
            self._leave("an agent made them for somebody")
        elif group.permit and _in_vain(event):
            self._leave("policy let them exchange a token, and none was issued")
        elif group.permit:
            self._add_permitted(call)
        elif denied and not event["forbids"] and not event["permits"]:
            self._add_denied(call)

    def _add_permitted(self, call: Call) -> None:
        event = call.group.record.event
        upstream = event["upstream"]
        known = _used(event, self._permits)
        if not known:
            self._leave(f"permitted by {joined(event['permits'])}, which {label(self.seed.seed.root)} hasn't")
        target = self._target(call)
        for name in known:
            permit = self._permits[name]
            paths = permit["target"].get("paths", [])
            if target is not None:
                shard = self.seed.engine.shards.get(upstream, EMPTY)
                routes = [route for policy, route in shard.lookup.reachable(target) if policy.id == name]
            else:
                routes = [event["route"]] if event.get("route") in paths else paths
            if not routes or upstream not in upstreams(permit):
                self._leave(f"permitted by {name}, which is about other paths now")
                continue
            use = self._use(self.uses, call, name, permit)
            # By one pattern it was permitted; by which, only what is compared with a name in it could tell.
            by_one = target is not None and not compares_names(permit)
            use.add(
                call,
                routes[:1] if by_one else routes,
                None if target is None else target.segments,
                attested=_attested(call, self._asked[name]),
            )

    def _add_denied(self, call: Call) -> None:
        target = self._target(call)
        if target is None:
            self._leave("denied, and the path is not in the log")
            return
        use = self._use(self.denied, call, "", None)
        use.add(call, ["/**"], target.segments, attested=_attested(call, set()))

    def _use(
        self, uses: dict[tuple[object, ...], Use], call: Call, name: str, permit: dict[str, Any] | None
    ) -> Use:
        caller, upstream = call.group.caller, call.group.record.event["upstream"]
        dag = _dag(call, permit)
        key: tuple[object, ...] = (dag or "", upstream, name)
        if permit is None:
            key = (*key, caller.identity.issuer, caller.identity.kind, caller.effective)
        use = uses.get(key)
        if use is None:
            use = uses[key] = Use(permit, dag, upstream, issued_roles=self._issued.get(name, set()))
        return use

    def _target(self, call: Call) -> Target | None:
        event = call.group.record.event
        if event["upstream"] == OWN:
            page = call.group.record.path or ""
            segments = tuple(page.removeprefix("/-/").strip("/").split("/"))
            return Target(event["method"], OWN, segments, page, "")
        return None if call.path is None else located(event["method"], event["upstream"], call.path)

    def _leave(self, why: str) -> None:
        self.left_out[why] = self.left_out.get(why, 0) + 1

    def unused(self, before: float) -> Iterator[tuple[str, int | None]]:
        """Permits that had no part in a decision since then, and when they last had one, if the log says."""
        for name in sorted(self._permits):
            last = self.last.get(name)
            if last is None or last < before:
                yield name, last


def _dag(call: Call, permit: dict[str, Any] | None) -> str | None:
    """The DAG that a policy can name. To policy there is none behind a person, nor one that only a header says where
    the permit goes by tokens."""
    caller = call.group.caller
    fact = caller.workload.get("dag")
    if fact is None or caller.identity.kind == "human" or not plain(str(fact.value)):
        return None
    return str(fact.value) if fact.attested or not by_token(permit) else None


def _used(event: Mapping[str, Any], permits: Mapping[str, dict[str, Any]]) -> list[str]:
    """The permits by which a call passed, or a token was issued, of those that there are."""
    known = [name for name in event["permits"] if name in permits]
    if "issued" not in event:
        return known
    offers = {name: listed(permits[name].get("exchange", {}).get("upstreams", [])) for name in known}
    return [name for name in known if event["issued"]["upstream"] in offers[name]]


def _in_vain(event: Mapping[str, Any]) -> bool:
    """Whether policy let a token be exchanged, but not for what was asked."""
    return event.get("page") == "token" and "issued" not in event


def _attested(call: Call, asked: set[str]) -> bool:
    facts = [call.group.caller.workload.get(name) for name in {"dag", *asked}]
    return all(fact is not None and fact.attested for fact in facts)


def suggest(
    logs: Logs,
    directory: Folder = None,
    unused_for: Annotated[
        str,
        typer.Option("--unused-for", metavar="TIME", help="List permits that no call has used for so long."),
    ] = UNUSED_FOR,
    denied: Annotated[
        bool, typer.Option("--denied", help="Also propose, in shadow, what would let denied calls pass.")
    ] = False,
    since: Since = None,
) -> None:
    """Print the narrowest policies that cover the calls of audit logs, by DAG, and the permits that no call has used.

    Each is one of DIR's permits, less what wasn't used of it. Nothing is written: the YAML goes to standard output.
    """
    root = directory or STARTER
    try:
        try:
            idle = traffic.length(unused_for)
        except ValueError as error:
            raise RecordError(f"--unused-for: {error}") from None
        seed = compile_folder(root)
        with _again(logs) as files:
            log = opened_logs(files, since)
            observed = Observed(seed)
            for call in log.calls():
                observed.add(call, denied=denied)
            policies = written(observed)
            text = "\n".join(_file(observed, log, policies, idle))
            failures = flaws(policies, seed, opened_logs(files, since))
    except SeedError as error:
        report(error, "Nothing was suggested.")
        raise typer.Exit(INVALID) from None
    except RecordError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(INVALID) from None
    if failures:
        typer.echo("\n".join(map(traffic.printable, failures)), err=True)
        raise typer.Exit(FAILED)
    typer.echo(text)
    raise typer.Exit(DONE)


@contextmanager
def _again(logs: list[Path]) -> Iterator[list[Path]]:
    """Logs that can be read twice: standard input is copied into a file that nobody else can read."""
    if STANDARD_INPUT not in logs:
        yield logs
        return
    with tempfile.TemporaryDirectory(prefix="airgate-") as folder:
        copy = Path(folder) / "audit.ndjson"
        with copy.open("wb") as file:
            while chunk := sys.stdin.buffer.read(1 << 20):
                file.write(chunk)
        yield [copy if log == STANDARD_INPUT else log for log in logs]


def written(observed: Observed) -> list[tuple[Use, dict[str, Any]]]:
    """The policies, by DAG; those in shadow for denied calls last."""
    names = Names(set(observed.seed.seed.policies))
    found = [(use, narrowed(use, names)) for use in sorted(observed.uses.values(), key=_order)]
    owners = {name: entry.data["owner"] for name, entry in observed.seed.seed.upstreams.items()}
    for use in sorted(observed.denied.values(), key=_order):
        if use.upstream in owners:
            found.append((use, opened(use, owners[use.upstream], names)))
    return found


def _order(use: Use) -> tuple[bool, str, str]:
    return use.dag is None, use.dag or "", use.upstream


def candidate(policies: Iterable[dict[str, Any]], seed: Compiled, folder: Path) -> Compiled:
    """The seed with these policies in place of its permits. Raises SeedError."""
    sections = seed.seed
    document = {
        "issuers": {name: entry.data for name, entry in sections.issuers.items()},
        "roles": {name: entry.data for name, entry in sections.roles.items()},
        "upstreams": {name: entry.data for name, entry in sections.upstreams.items()},
        "policies": [
            *(entry.data for entry in sections.policies.values() if entry.data["effect"] == "forbid"),
            *policies,
        ],
    }
    (folder / "suggested.yaml").write_text(
        _yaml({name: part for name, part in document.items() if part}), "utf-8"
    )
    return compile_folder(folder)


def flaws(policies: list[tuple[Use, dict[str, Any]]], seed: Compiled, log: Traffic) -> list[str]:
    """What a replay says against a suggestion: calls that it refuses and the seed doesn't, or the other way round.

    Raises SeedError and RecordError.
    """
    with tempfile.TemporaryDirectory(prefix="airgate-") as folder:
        new = candidate([policy for _, policy in policies], seed, Path(folder))
    known = [Known(seed, {seed.engine.bundle.version})]
    judges = [Judge(seed, known), Judge(new, known)]
    log.keep_run = any(judge.compares_run for judge in judges)
    cases: dict[tuple[Case, ...], Call] = {}
    for call in log.calls():
        cases.setdefault(tuple(judge.case(call) for judge in judges), call)
    for judge in judges:
        judge.learn(log.groups)
    covered = {use.permit["id"]: use.permit for use, _ in policies if use.permit is not None}
    found = set()
    for of_each, call in watched(cases.items(), "checking"):
        event = call.group.record.event
        before, after = (judge.judge(case, call).permits for judge, case in zip(judges, of_each, strict=True))
        meant = (
            call.group.permit and not call.group.record.lent and not _in_vain(event) and _used(event, covered)
        )
        if (before is False and after) or (before and after is False and meant):
            way = "lets pass" if after else "refuses"
            found.add(
                f"The suggestion {way} {event['method']} {event.get('route') or call.path} of {event['upstream']}, "
                f"called by {event['subject']}, unlike {label(seed.seed.root)}; nothing is printed"
            )
    return sorted(found)


def _file(
    observed: Observed, log: Traffic, policies: list[tuple[Use, dict[str, Any]]], idle: int
) -> Iterator[str]:
    reach = f", {traffic.day(log.first)} to {traffic.day(log.last)}" if log.first and log.last else ""
    origin = label(observed.seed.seed.root)
    yield f"# Suggested from {counted(log.decided, 'recorded call')}{reach}, and the permits of {origin}."
    yield "# They take the place of those permits, for calls like these. Forbids, roles, issuers and upstreams stay."
    for why, number in sorted(observed.left_out.items()):
        yield traffic.printable(f"# Not covered: {counted(number, 'call')}: {why}.")
    if log.broken:
        yield traffic.printable(f"# Not read: {counted(log.broken, 'broken line')}; {joined(log.told)}.")
    yield ""
    yield "policies:" if policies else "policies: []"
    for use, policy in policies:
        yield ""
        yield from (f"  # {traffic.printable(line)}" for line in _comments(use))
        yield from (f"  {line}" for line in _yaml([policy]).splitlines())
    yield ""
    yield from _unused(observed, log, idle)


def _comments(use: Use) -> Iterator[str]:
    who = f"Calls {use.whose}" if use.dag is None else f"{use.whose}, {_vouched(use)}"
    what = "denied" if use.permit is None else f"permitted by {use.permit['id']}"
    yield f"{who}: {counted(use.calls, 'call')} {what}, {traffic.day(use.first)} to {traffic.day(use.last)}"
    yield f"by {joined(sorted(use.subjects))}"
    if use.permit is None:
        yield "New access, so it's in shadow: airgate policy replay --shadow says what it would do."
    if any(paths.unlogged for paths in use.routes.values()):
        yield "The log doesn't hold the paths, so these are the patterns of the permit."


def _vouched(use: Use) -> str:
    if use.attested:
        return "attested by the token"
    if use.asserted == use.calls:
        return "asserted by a header"
    return f"attested by the token or, in {counted(use.asserted, 'call')}, asserted by a header"


def _unused(observed: Observed, log: Traffic, idle: int) -> Iterator[str]:
    end = time.time()
    for name, when in log.asked.items():
        observed.last[name] = max(when, observed.last.get(name, 0))
    span = traffic.span(idle)
    found = list(observed.unused(end - idle))
    reached = log.first is not None and log.first <= end - idle
    if found:
        yield f"# Permits that no call has used for {span}:"
        for name, moment in found:
            yield f"#   {name}: {'not in this log' if moment is None else f'last used {traffic.day(moment)}'}"
    else:
        yield f"# Every permit has been used in the last {span}."
    if not reached:
        begin = "holds no calls" if log.first is None else f"reaches back to {traffic.day(log.first)} only"
        yield f"# The log {begin}: whether they were used before that, in those {span}, it can't say."


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)
