"""`airgate revoke`: shut out a token, session, subject, DAG, task, run or issuer, at once and for a time."""

import shlex
import sys
import time
from collections.abc import Mapping
from getpass import getpass
from pathlib import Path
from typing import Annotated

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
from airgate.acts import EXPECTED, SHOWN_ID, ActInvalid
from airgate.configuration import LOCAL
from airgate.dev.stack import StackError, read_stack
from airgate.engine import Denied, parse_token
from airgate.environment import Environment, EnvOption, YesOption, confirm, open_environment
from airgate.in_force import InForce, NotReadable
from airgate.moments import ahead, span
from airgate.policy.output import printable
from airgate.policy.recorded import RecordError, find
from airgate.policy.words import either, nearest
from airgate.signing_key import KeyOption

STANDARD_INPUT = "-"
SKEW = 300  # seconds that a gate may go on accepting a token after its `exp`
TERMINAL_LINE = 4095  # characters that a terminal hands over at once
LONG = 30 * 86_400  # seconds; from here on policy is the better place
CONTEXT = {"dag": "DAG", "task": "task", "run": "run"}

app = typer.Typer(
    invoke_without_command=True,
    no_args_is_help=True,
    subcommand_metavar="[list | lift ID]",
)


@app.callback()
def revoke(
    context: typer.Context,
    subject: Annotated[str, typer.Option(metavar="SUB", help="Who: `sub` of its tokens.")] = "",
    issuer: Annotated[
        str, typer.Option(metavar="ID", help="Of this issuer: its id in policy, or `iss`.")
    ] = "",
    token_id: Annotated[str, typer.Option(metavar="JTI", help="One token: its `jti`.")] = "",
    token: Annotated[
        str, typer.Option(metavar="-", help="One token, read whole from standard input and never shown: -")
    ] = "",
    dag: Annotated[
        str, typer.Option(metavar="DAG", help="A DAG. Give --subject too, where no token says it.")
    ] = "",
    task: Annotated[str, typer.Option(metavar="TASK", help="A task, of --dag; as that.")] = "",
    run: Annotated[str, typer.Option(metavar="RUN", help="A DAG run; as --dag.")] = "",
    session: Annotated[
        str, typer.Option(metavar="SID", help="One session, a try of a task, say: `sid` of its tokens.")
    ] = "",
    request_id: Annotated[
        str, typer.Option(metavar="ID", help="The token of a request in the audit log (--log).")
    ] = "",
    log: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The audit log, as JSON lines; the local stack has its own."),
    ] = None,
    for_: ForOption = "",
    until: UntilOption = "",
    reason: ReasonOption = "",
    by: ByOption = "",
    env: EnvOption = LOCAL,
    key: KeyOption = None,
    yes: YesOption = False,
) -> None:
    """Shut out a token, session, subject, DAG, task, run or issuer, at once and for a time.

    Of several that are given, all must match a call. No signature is needed; with a key (--key, AIRGATE_KEY) it's
    signed, and the record proves who it was.
    """
    if context.invoked_subcommand is not None:
        given = [
            subject,
            issuer,
            token_id,
            token,
            dag,
            task,
            run,
            session,
            request_id,
            for_,
            until,
            reason,
            by,
            log,
            key,
            yes,
        ]
        if any(given) or env != LOCAL:
            raise typer.BadParameter(f"options go behind `{context.invoked_subcommand}`, not before it")
        return
    try:
        refuse_no_reason(reason)
        now = time.time()
        match = {"token_id": token_id, "session": session, "issuer": issuer, "subject": subject}
        match |= {"dag": dag, "task": task, "run": run}
        match = {name: value for name, value in match.items() if value}
        end = end_of(for_, until, int(now))
        at = open_environment(env)
        signing = acts.signing_key(at, key, opens=False)
        if token:
            expires = _from_token(token, match)
            end = end or expires
        if request_id:
            _from_log(request_id, log, at.name, match)
        if not match:
            raise ActInvalid(
                "Say what: --subject, --token-id, --token -, --session, --dag, --task, --run, --issuer or --request-id."
            )
        if end is None:
            raise ActInvalid("Say for how long: --for 4h, or --until 2026-11-22T08:00+01:00.")
        notes = _look_up(at, match)
        author = acts.author(at, signing, by)
        document = acts.compose(
            at, "revoke", now, {"match": match, "until": end, "by": author, "reason": reason.strip()}
        )
        plan = {
            "refuse": _words(match)
            + (
                "\n(all of it has to match)"
                if len(match) > 1 and match.keys() != {"issuer", "subject"}
                else ""
            ),
            "until": ahead(end, now),
            "reason": reason.strip(),
            "by": written_by(author, signing),
        }
        if end - now > LONG:
            notes.append(
                f"That is {span(end - now)}: a forbid in policy is reviewed, tested, and seen by who reads policy."
            )
        if notes:
            plan["note"] = "\n".join(notes)
        put(at, "Revoke", plan, document, signing, yes, lambda name: _undo(at, name))
    except EXPECTED as error:
        acts.fail(error)


@app.command("lift")
def lift(
    id_: IdArgument,
    reason: ReasonOption = "",
    by: ByOption = "",
    env: EnvOption = LOCAL,
    key: KeyOption = None,
    yes: YesOption = False,
) -> None:
    """Take a revocation back. It must be signed, by a key that may grant: it opens what was shut."""
    try:
        take_back("revoke", id_, reason, by, env, key, yes, lambda act: _words(dict(act.match)))
    except EXPECTED as error:
        acts.fail(error)


@app.command("list")
def list_(
    env: EnvOption = LOCAL,
    every: AllOption = False,
    as_json: JsonOption = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="First write to D1 and to KV's copy what each lacks, grants too."),
    ] = False,
    yes: YesOption = False,
) -> None:
    """Show what is revoked, newest first: until when, who did it and why."""
    try:
        at, now = open_environment(env), time.time()
        if repair:
            _repair(at, now, yes)
        stored = acts.read(at, now, over=every)
    except EXPECTED as error:
        acts.fail(error)
    print_list(stored, "revoke", lambda act: _words(dict(act.match)), every=every, as_json=as_json)


def _repair(env: Environment, now: float, yes: bool) -> None:
    """Raises acts.EXPECTED."""
    progress("Comparing D1 and KV's copy …")
    found = acts.compare(env, now)
    for one in found.lost:
        what = one.refused or f"{one.document['act']}, by {one.document['by']}: {one.document['reason']}"
        typer.echo(f"D1 lacks {one.id[:SHOWN_ID]}: {printable(what)}", err=True)
    if found.lacking:
        typer.echo(f"KV's copy lacks {found.lacking}.", err=True)
    if not found.lost and not found.lacking:
        typer.echo("D1 and KV's copy have the same acts: nothing to repair.", err=True)
        return
    if any(not one.by_key for one in found.lost):
        typer.echo("Not all of them are signed: whoever can write KV may have made them up.", err=True)
    confirm(env, "Write to each what it lacks?", yes)
    acts.repair(env, found, now)


def _undo(env: Environment, name: str) -> str:
    if env.trusted is None:
        return "This gate trusts no keys, so nothing can lift it: it ends with its time."
    return f"To take it back: airgate revoke lift {name} --env {env.name} --reason TEXT"


def _words(match: Mapping[str, str]) -> str:
    """What a revocation hits, as a phrase."""
    shown = {name: printable(value) for name, value in match.items()}
    words = ["calls"]
    if "token_id" in shown:
        words.append(f"with the token {shown['token_id']}")
    if "session" in shown:
        words.append(f"for the session {shown['session']}")
    issuer = f"issuer {shown['issuer']}" if "issuer" in shown else ""
    if "subject" in shown:
        words.append(f"of {shown['subject']}" + (f" ({issuer})" if issuer else ", whatever the issuer,"))
    elif issuer:
        words.append(f"({issuer})" if "session" in shown else f"of everybody ({issuer})")
    words += [f"in {what} {shown[name]}" for name, what in CONTEXT.items() if name in shown]
    return " ".join(words).rstrip(",")


def _from_token(token: str, match: dict[str, str]) -> int:
    """Add a token's id, issuer and subject, and return when no gate accepts it any more. Raises ActInvalid."""
    if token != STANDARD_INPUT:
        raise ActInvalid(
            "A token on a command line can be read by others, and stays in the shell's history. "
            "Hand it over on standard input: airgate revoke --token - < FILE. Treat it as leaked."
        )
    text = (
        getpass("Paste the token, then Enter (it isn't shown): ") if sys.stdin.isatty() else sys.stdin.read()
    )
    if sys.stdin.isatty() and len(text) >= TERMINAL_LINE:
        raise ActInvalid(
            f"A terminal cuts a line after {TERMINAL_LINE} characters, so this may not be all of the token. "
            "Hand it over in a file: airgate revoke --token - < FILE"
        )
    try:
        claims = parse_token(text.strip().removeprefix("Bearer ").strip()).claims
    except Denied as error:
        raise ActInvalid(f"Standard input holds no token that a gate would read: {error.detail}") from None
    found = {"token_id": claims.get("jti"), "issuer": claims["iss"], "subject": claims.get("sub")}
    if not isinstance(found["token_id"], str) or not found["token_id"]:
        who = (
            _option("subject", found["subject"]) + _option("issuer", claims["iss"])
            if found["subject"]
            else ""
        )
        raise ActInvalid(
            f"This token has no jti, so it can't be told from others. Shut out its subject:{who or ' --subject'}"
        )
    for name, value in found.items():
        if isinstance(value, str) and match.setdefault(name, value) != value:
            raise ActInvalid(f"The token says another {name} than the command does. Leave one of them out.")
    expires = claims.get("exp")
    if not isinstance(expires, int | float) or expires + SKEW <= time.time():
        raise ActInvalid("This token is over: no gate accepts it any more. Nothing was written.")
    return int(expires) + SKEW


def _from_log(request_id: str, log: Path | None, env: str, match: dict[str, str]) -> None:
    """Add the token's id, issuer and subject of a request in the audit log. Raises ActInvalid."""
    try:
        if log is None and env != LOCAL:
            raise ActInvalid(f"Say where the audit log of {env} is: --log FILE, with one event a line.")
        record = find(log or read_stack().audit, request_id)
        event = record.event
    except (RecordError, StackError) as error:
        raise ActInvalid(str(error)) from None
    if not event.get("subject"):
        raise ActInvalid(
            f"Nobody was known when that request was refused ({event.get('reason')}): there is nothing to revoke."
        )
    if record.unnamed and not event.get("token_id"):
        raise ActInvalid(
            f"The token of that request has no jti, and {record.unnamed}, which no token carries. Find out "
            f"who it is, and shut out that: --subject SUB{_option('issuer', event['issuer'])}"
        )
    if not event.get("token_id"):
        raise ActInvalid(
            "The token of that request has no jti, so it can't be told from others. Shut out its subject:"
            f"{_option('subject', event['subject'])}{_option('issuer', event['issuer'])}"
        )
    # A pseudonym is nobody's subject: a revocation that asked for it, too, would hit nothing.
    for name in ("token_id", "issuer") if record.unnamed else ("token_id", "issuer", "subject"):
        if match.setdefault(name, event[name]) != event[name]:
            raise ActInvalid(f"The request has another {name} than the command says. Leave one of them out.")


def _option(name: str, value: object) -> str:
    """An option of a command that a person may paste, whoever wrote its value."""
    return f" --{name} {shlex.quote(printable(str(value)))}"


def _look_up(env: Environment, match: dict[str, str]) -> list[str]:
    """Put the issuer's id in place of its `iss`, and say what a match on a session, a DAG, a task or a run is worth.

    Raises ActInvalid when it would match nothing.
    """
    context = [name for name in CONTEXT if name in match]
    if not context and "issuer" not in match:
        return _again(match)
    progress("Reading the policy in force …")
    try:
        policy = InForce.read(env)
    except NotReadable as error:
        if "://" in match.get("issuer", ""):
            if match.keys() == {"issuer"}:
                raise ActInvalid(
                    f"Which issuer {match['issuer']!r:.200} is in policy can't be read ({error}). Give its id there."
                ) from None
            del match["issuer"]
        return [f"The policy in force can't be read, so nothing was looked up in it: {error}"]
    notes = _again(match)
    if "issuer" in match:
        match["issuer"] = _issuer(policy, match["issuer"])
    if context:
        notes += _worth(policy, match, context)
    return notes


def _issuer(policy: InForce, named: str) -> str:
    """An issuer's id. Raises ActInvalid for one that this gate doesn't know."""
    ids = policy.issuers
    for name, iss in ids.items():
        if named in (name, iss):
            return name
    raise ActInvalid(
        f"This gate knows no issuer {named!r:.200}{nearest(named, ids) or ','} its tokens are refused anyway. "
        f"It knows {either(sorted(ids))}."
    )


def _worth(policy: InForce, match: Mapping[str, str], context: list[str]) -> list[str]:
    """What is to be known of a revocation of a DAG, a task or a run. Raises ActInvalid when it would match nothing."""
    what = either(CONTEXT[name] for name in context)
    options = " and ".join(f"--{name}" for name in context)
    attesting = set.intersection(*[set(policy.attests(name)) for name in context])
    asked = {match["issuer"]} if "issuer" in match else set(policy.issuers)
    if "subject" in match:
        if asked <= attesting:
            return []
        return [
            f"The {what} is what the caller says: whoever holds the token can say another. A caller that wants to get\n"
            f"round this can; to shut it out for certain, leave {options} away."
        ]
    if not asked & attesting:
        raise ActInvalid(
            f"This would match nothing: no token of {either(sorted(asked))} says its {what}, and what a caller says\n"
            f"of itself counts only together with its subject. Add --subject: whose tokens the {what} uses stands as\n"
            f"`subject` in the audit log. Or shut that subject out as a whole, without {options}."
        )
    return [
        f"Only tokens that say their {what} are hit: those of {either(sorted(asked & attesting))}."
        + ("" if asked <= attesting else f" Calls of {either(sorted(asked - attesting))} go on.")
    ]


def _again(match: Mapping[str, str]) -> list[str]:
    """What goes on by another token, or for another session."""
    notes = [_NEW_TOKEN] if "token_id" in match else []
    notes += [_NEW_SESSION] if "session" in match else []
    return notes + ([_EVERY_DAG] if "task" in match and not {"dag", "run"} & match.keys() else [])


_NEW_SESSION = (
    "A session is one try of one task, say: the next try has another. To shut all out: --dag and --task."
)
_EVERY_DAG = "Other DAGs may have a task of that name: add --dag where one DAG's is meant."
_NEW_TOKEN = (
    "Whoever can get a token can get another: shut out the subject too, or change its password or key."
)
