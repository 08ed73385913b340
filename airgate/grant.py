"""`airgate grant`: lend a role or a permit for a time, without a new policy."""

import time
from typing import Annotated, Any

import typer

from airgate import acts
from airgate.act_command import (
    AllOption,
    ByOption,
    ForOption,
    IdArgument,
    JsonOption,
    ReasonOption,
    UntilOption,
    end_of,
    print_list,
    progress,
    put,
    refuse_no_reason,
    take_back,
    written_by,
)
from airgate.acts import EXPECTED, ActInvalid
from airgate.configuration import LOCAL
from airgate.engine import LONGEST_GRANT, Act
from airgate.environment import Environment, EnvOption, YesOption, open_environment
from airgate.in_force import InForce, NotReadable
from airgate.moments import ahead, clock, moment, span
from airgate.policy.index import Rule
from airgate.policy.output import printable
from airgate.policy.text import policy as written
from airgate.policy.words import either, nearest
from airgate.signing_key import KeyOption

MOST_OPENED = 8  # policies that a role opens, in the plan
ASKED_ANYWAY = ("dpop", "delegated")  # of a lent permit's subject

app = typer.Typer(
    invoke_without_command=True,
    no_args_is_help=True,
    subcommand_metavar="[list | end ID]",
)


@app.callback()
def grant(
    context: typer.Context,
    subject: Annotated[str, typer.Option(metavar="SUB", help="To whom: `sub` of its tokens.")] = "",
    issuer: Annotated[
        str,
        typer.Option(metavar="ID", help="Whose tokens: the issuer's id in policy; needed if it has several."),
    ] = "",
    to_role: Annotated[str, typer.Option(metavar="ROLE", help="Or to whom: everybody with this role.")] = "",
    role: Annotated[
        str, typer.Option(metavar="ROLE", help="What: this role. With --policy and no --subject: to whom.")
    ] = "",
    policy: Annotated[str, typer.Option(metavar="ID", help="What: this permit, whoever it names.")] = "",
    for_: ForOption = "",
    until: UntilOption = "",
    begins: Annotated[
        str, typer.Option("--from", metavar="TIME", help="From when on, with its zone; now when left out.")
    ] = "",
    reason: ReasonOption = "",
    by: ByOption = "",
    env: EnvOption = LOCAL,
    key: KeyOption = None,
    yes: YesOption = False,
) -> None:
    """Lend somebody a role or a permit for a time, at most 7 days, without a new policy.

    It must be signed, by a key that may grant. A grant never gets past a forbid, and leaves hours, addresses and
    limits of a permit as they are.
    """
    if context.invoked_subcommand is not None:
        given = [subject, issuer, to_role, role, policy, for_, until, begins, reason, by, key, yes]
        if any(given) or env != LOCAL:
            raise typer.BadParameter(f"options go behind `{context.invoked_subcommand}`, not before it")
        return
    try:
        refuse_no_reason(reason)
        if policy and role and not subject and not to_role:
            to_role, role = role, ""
        _refuse_unclear(subject, issuer, to_role, role, policy)
        now = time.time()
        start, end = _times(begins, for_, until, int(now))
        at = open_environment(env)
        signing = acts.signing_key(at, key, opens=True)
        issuer, opened = _look_up(at, issuer, subject, to_role, role, policy)
        to = {"role": to_role} if to_role else {"issuer": issuer, "subject": subject}
        gives = {"role": role} if role else {"policy": policy}
        author = acts.author(at, signing, by)
        members = {
            "from": start,
            "until": end,
            "by": author,
            "reason": reason.strip(),
            "to": to,
            "gives": gives,
        }
        document = acts.compose(at, "grant", now, members)
        plan = {
            "give": _gift(role, policy),
            "to": _holder(to),
            "from": "now" if start == int(now) else ahead(start, now),
            "until": ahead(end, now),
            "reason": reason.strip(),
            "by": written_by(author, signing),
            "opens": opened,
        }
        put(at, "Grant", plan, document, signing, yes, lambda name: _undo(at, name))
    except EXPECTED as error:
        acts.fail(error)


@app.command("end")
def end_(
    id_: IdArgument,
    reason: ReasonOption = "",
    by: ByOption = "",
    env: EnvOption = LOCAL,
    key: KeyOption = None,
    yes: YesOption = False,
) -> None:
    """End a grant before its time. It needs no signature."""
    try:
        take_back("grant", id_, reason, by, env, key, yes, _words)
    except EXPECTED as error:
        acts.fail(error)


@app.command("list")
def list_(env: EnvOption = LOCAL, every: AllOption = False, as_json: JsonOption = False) -> None:
    """Show what is granted, newest first: to whom, until when, by whom and why."""
    try:
        stored = acts.read(open_environment(env), time.time(), over=every)
    except EXPECTED as error:
        acts.fail(error)
    print_list(stored, "grant", _words, every=every, as_json=as_json)


def _undo(env: Environment, name: str) -> str:
    return f"To end it before its time: airgate grant end {name} --env {env.name} --reason TEXT"


def _words(act: Act) -> str:
    return f"{_gift(printable(act.role), printable(act.policy))} to {_holder(dict(act.to))}"


def _gift(role: str, policy: str) -> str:
    return f"the role {role}" if role else f"the permit {policy}"


def _holder(to: dict[str, str]) -> str:
    if "role" in to:
        return f"everybody with the role {printable(to['role'])}"
    return f"{printable(to['subject'])} (issuer {printable(to['issuer'])})"


def _refuse_unclear(subject: str, issuer: str, to_role: str, role: str, policy: str) -> None:
    """Raises ActInvalid unless it's said to whom, and what."""
    if not subject and not to_role:
        raise ActInvalid("Say to whom: --subject SUB --issuer ID, or --to-role ROLE.")
    if subject and to_role:
        raise ActInvalid("--subject and --to-role are one too many: give one of them.")
    if issuer and to_role:
        raise ActInvalid("--issuer goes with --subject; who has a role has it from any issuer.")
    if bool(role) == bool(policy):
        raise ActInvalid("Say what: --role ROLE or --policy ID; one of them.")


def _times(begins: str, for_: str, until: str, now: int) -> tuple[int, int]:
    """Beginning and end. Raises ActInvalid."""
    try:
        start = moment(begins) if begins else now
    except ValueError as error:
        raise ActInvalid(f"--from: {error}") from None
    end = end_of(for_, until, start)
    if end is None:
        raise ActInvalid("Say for how long: --for 4h, or --until 2026-11-22T08:00+01:00.")
    if end <= now:
        raise ActInvalid(f"That would be over since {clock(end)}.")
    if end - start > LONGEST_GRANT:
        raise ActInvalid(
            f"{span(end - start)} is too long: a grant lasts {span(LONGEST_GRANT)} at most. "
            "What is needed for longer belongs into policy, where it is reviewed and tested."
        )
    return start, end


def _look_up(
    env: Environment, issuer: str, subject: str, to_role: str, role: str, policy: str
) -> tuple[str, str]:
    """The issuer's id, and what the grant opens. Raises ActInvalid for what isn't in the policy in force."""
    progress("Reading the policy in force …")
    try:
        live = InForce.read(env)
        rules = live.policies()
    except NotReadable as error:
        if subject and not issuer:
            raise ActInvalid(
                f"Say whose tokens: --issuer ID. The policy in force, which would tell, can't be read: {error}"
            ) from None
        return issuer, f"the policy in force can't be read, so nothing was looked up in it: {error}"
    for noun, name, known in (
        ("role", to_role, live.bundle.roles),
        ("role", role, live.bundle.roles),
        ("policy", policy, rules.keys()),
    ):
        if name and name not in known:
            raise ActInvalid(
                f"The policy in force at {env.gate} has no {noun} {name!r:.200}{nearest(name, known) or '.'}"
            )
    if subject:
        issuer = _issuer(live, issuer)
    if role:
        return issuer, _opened_by_role(role, rules)
    rule, upstreams = rules[policy]
    if rule.effect != "permit":
        raise ActInvalid(f"{policy} is a forbid: it can't be given, nor does any grant get past it.")
    if rule.shadow:
        raise ActInvalid(
            f"{policy} is in shadow: it permits nothing, so it can't be given. Enforce it in policy first."
        )
    return issuer, _permitted(rule, upstreams)


def _issuer(live: InForce, named: str) -> str:
    """The issuer's id; the only one when none is named. Raises ActInvalid."""
    ids = live.issuers
    for name, iss in ids.items():
        if named in (name, iss):
            return name
    if named:
        raise ActInvalid(
            f"The policy in force has no issuer {named!r:.200}{nearest(named, ids) or '.'} "
            f"It has {either(sorted(ids))}."
        )
    if len(ids) > 1:
        raise ActInvalid(
            f"Say whose tokens: --issuer {either(sorted(ids))}. "
            "Elsewhere a subject of the same name may be somebody else."
        )
    return next(iter(ids))


def _permitted(rule: Rule, upstreams: list[str]) -> str:
    """What a lent permit permits, and what it asks all the same."""
    said = written(rule, upstreams)
    subject = said.get("subject", {})
    kept: dict[str, Any] = {name: subject[name] for name in ASKED_ANYWAY if name in subject}
    if "none" in subject.get("roles", {}):
        kept["roles"] = {"none": subject["roles"]["none"]}
    if shut_out := [
        {"claim": each["claim"], "none": each["none"]} for each in subject.get("claims", ()) if "none" in each
    ]:
        kept["claims"] = shut_out
    lines = [_calls(rule, upstreams)]
    for name in ("workload", "when", "obligations", "asking"):
        if name in said:
            lines.append(f"as ever, {name}: {_flow(said[name])}")
    query = {name: said["target"][name] for name in ("query", "ids", "properties") if name in said["target"]}
    if query:
        lines.append(f"as ever, {_flow(query)}")
    if kept:
        lines.append(f"as ever, of the caller: {_flow(kept)}")
    return "\n".join(lines)


def _opened_by_role(role: str, rules: dict[str, tuple[Rule, list[str]]]) -> str:
    """The permits that ask for a role, and the forbids that hit who has it."""
    permits: list[str] = []
    forbids: list[str] = []
    for name, (rule, upstreams) in sorted(rules.items()):
        asked = {
            each
            for row in rule.conditions
            if row[0] in ("subject.roles.any", "subject.roles.all")
            for each in row[1]
        }
        if role in asked and not rule.shadow:
            (permits if rule.effect == "permit" else forbids).append(f"{name}: {_calls(rule, upstreams)}")
    lines = permits[:MOST_OPENED]
    if len(permits) > MOST_OPENED:
        lines.append(f"and {len(permits) - MOST_OPENED} more permits")
    if not permits:
        lines.append("nothing by itself: no permit asks for this role")
    lines += [f"forbids apply to it, too: {each.partition(':')[0]}" for each in forbids]
    return "\n".join(lines)


def _calls(rule: Rule, upstreams: list[str]) -> str:
    return f"{', '.join(rule.methods)} on {', '.join(upstreams)}: {', '.join(rule.paths)}"


def _flow(value: Any) -> str:
    """On one line, as policy is written."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_flow(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else printable(str(value))
