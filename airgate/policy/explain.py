"""`airgate policy explain`: why one request is permitted or denied, and what would change that.

Exit codes: 0 permitted; 1 denied; 2 the question can't be answered (what is wrong with it is said).
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from airgate.configuration import LOCAL
from airgate.dev.stack import StackError, read_stack
from airgate.engine import Caller, Denied, parse_token, validate_token
from airgate.environment import EnvironmentMissing, open_environment
from airgate.node import NodeMissing, WranglerFailed
from airgate.policy import cases, recorded
from airgate.policy.check import report
from airgate.policy.compile import Compiled, StandIns, compile_folder
from airgate.policy.explanation import Branch, explain_answer
from airgate.policy.gate import Answer, Gate, upstream_of
from airgate.policy.live import Live, LiveError
from airgate.policy.output import console
from airgate.policy.recorded import Recorded, RecordError
from airgate.policy.request import Flaw, InvalidRequest, Request
from airgate.policy.seed import STARTER, SeedError, label
from airgate.policy.words import nearest, quoted

PERMITTED, DENIED, INVALID = 0, 1, 2

# The option that says what a description has at a key.
_OPTIONS = {
    "method": "METHOD",
    "path": "URL",
    "roles": "--role",
    "claims": "--claim",
    "headers": "--header",
    "resource": "--resource",
    "workload.tags": "--dag-tag",
    "workload.run_type": "--run-type",
    "workload.triggered_by": "--triggered-by",
}


class _StopError(Exception):
    """There is nothing to explain. The message says what is wrong, and what to do."""


@dataclass
class Question:
    """A request, and what is to be said beside the explanation of its answer."""

    request: Request
    caller: Caller | None = None  # None: as the request describes it
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Policies:
    """What decides."""

    gate: Gate
    shards: Mapping[str, str]  # texts by upstream
    origin: str  # where they are from, for a person


def explain(
    method: Annotated[str | None, typer.Argument(metavar="METHOD", help="GET when left out.")] = None,
    url: Annotated[
        str | None, typer.Argument(metavar="URL", help="/UPSTREAM/PATH?QUERY, or the address at the gate.")
    ] = None,
    seed: Annotated[
        Path | None, typer.Option("--seed", metavar="DIR", help="The policy seed; kv-seed when left out.")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="What the local stack has in force, instead.")] = False,
    issuer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose token; may be left out when there is one.")
    ] = None,
    subject: Annotated[str | None, typer.Option(metavar="SUB", help="The token's sub.")] = None,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="workload, human or agent.")] = None,
    dpop: Annotated[bool, typer.Option("--dpop", help="The token is bound to a key.")] = False,
    actor: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who acts for the subject (the token's act.sub).")
    ] = None,
    role: Annotated[
        list[str] | None, typer.Option(metavar="ROLE", help="A role that the token grants. Repeat it.")
    ] = None,
    claim: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Another claim; JSON or text. Repeat it.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="ROLE", help="A role named in Airgate-Role. Repeat it.")
    ] = None,
    dag: Annotated[str | None, typer.Option(metavar="ID", help="The DAG behind the call.")] = None,
    task: Annotated[str | None, typer.Option(metavar="ID", help="The task.")] = None,
    run_type: Annotated[
        str | None, typer.Option(metavar="TYPE", help="scheduled, manual, backfill; with --attested.")
    ] = None,
    triggered_by: Annotated[
        str | None, typer.Option(metavar="USER", help="Who started the run; with --attested.")
    ] = None,
    environment: Annotated[str | None, typer.Option(metavar="NAME", help="The Airflow environment.")] = None,
    dag_tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="A tag of the DAG. Repeat it.")
    ] = None,
    attested: Annotated[
        bool, typer.Option("--attested", help="All that is said of the task stands in the token.")
    ] = False,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME:VALUE", help="Another header. Repeat it.")
    ] = None,
    body: Annotated[
        int | None, typer.Option(min=0, metavar="BYTES", help="The size of the body, in bytes.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When, such as 2026-03-02T09:30:00Z; now when left out."),
    ] = None,
    client: Annotated[str | None, typer.Option("--from", metavar="IP", help="The client's address.")] = None,
    country: Annotated[
        str | None, typer.Option(metavar="CODE", help="The client's country, such as DE.")
    ] = None,
    resource: Annotated[
        str | None, typer.Option(metavar="TYPE", help="An AuthZEN resource, in place of METHOD and URL.")
    ] = None,
    resource_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="The resource's id.")] = None,
    action: Annotated[str | None, typer.Option(metavar="NAME", help="The action on the resource.")] = None,
    prop: Annotated[
        list[str] | None,
        typer.Option("--property", metavar="NAME=VALUE", help="A property of the resource. Repeat it."),
    ] = None,
    case: Annotated[str | None, typer.Option(metavar="NAME", help="The request of one of the cases.")] = None,
    token: Annotated[
        str | None, typer.Option(metavar="FILE", help="The caller of this token; - is standard input.")
    ] = None,
    request_id: Annotated[
        str | None, typer.Option(metavar="ID", help="A request that the gate has decided.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The audit log; the local stack's when left out.")
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(metavar="/UPSTREAM/PATH", help="With --request-id: what the log doesn't hold."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every policy about the target, however many don't match.")
    ] = False,
) -> None:
    """Explain a decision: which policies looked at a request, what each saw, and what it would take to be permitted."""
    if method is not None and url is None and ("/" in method):
        method, url = None, method
    said: dict[str, Any] = {
        "method": method,
        "path": url,
        "issuer": issuer,
        "subject": subject,
        "kind": kind,
        "dpop": dpop or None,
        "actor": actor,
        "roles": role or None,
        "tag": tag or None,
        "body": body,
        "at": at,
        "from": client,
        "country": country,
        "action": action,
    }
    try:
        facts = {"dag": dag, "task": task, "run_type": run_type, "triggered_by": triggered_by}
        workload = _given({**facts, "environment": environment, "tags": dag_tag or None})
        if workload:
            said["workload"] = workload | {"attested": attested}
        elif attested:
            raise _StopError("--attested says that the token has what is said of the task, such as --dag")
        said["claims"] = _members(claim, "--claim")
        said["headers"] = _lines(header)
        if resource is not None or resource_id is not None:
            properties = _members(prop, "--property") or {}
            said["resource"] = {"type": resource or "", "id": resource_id or "", "properties": properties}
        elif prop:
            raise _StopError("--property says something of a resource; name it: --resource TYPE --id ID")
        if live and (seed is not None or case is not None):
            raise _StopError("--live is about what is in force, so leave --seed and --case out")
        description = _given(said)
        root = seed or STARTER
        one_of = {"--case": case, "--token": token, "--request-id": request_id}
        _refuse_mixtures(one_of, description)
        if (log is not None and request_id is None) or (path is not None and request_id is None):
            raise _StopError("--log and --path belong to --request-id")
        screen = console()
        if request_id is not None:
            status = _explain_recorded(request_id, log, path, root, live, everything, screen)
        elif case is not None:
            status = _explain_case(case, root, everything, screen)
        elif token is not None:
            status = _explain_token(token, description, root, live, everything, screen)
        else:
            question = Question(Request.read(description))
            policies = _live(question.request) if live else _seed(root)
            status = _show(question, policies, everything, screen)
    except SeedError as error:
        report(error, "Nothing can be explained by it.")
        status = INVALID
    except InvalidRequest as invalid:
        for flaw in invalid.flaws:
            typer.echo(f"{_option(flaw)}: {flaw.text}", err=True)
        status = INVALID
    except (
        _StopError,
        RecordError,
        LiveError,
        StackError,
        EnvironmentMissing,
        NodeMissing,
        WranglerFailed,
    ) as error:
        typer.echo(str(error), err=True)
        status = INVALID
    raise typer.Exit(status)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _members(pairs: list[str] | None, option: str) -> dict[str, Any] | None:
    """`NAME=VALUE`s; a value that is JSON stands for that."""
    members: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        if not name or not equals:
            raise _StopError(f"{option}: {quoted(pair)}: write NAME=VALUE")
        try:
            members[name] = json.loads(text)
        except ValueError:
            members[name] = text
    return members or None


def _lines(headers: list[str] | None) -> dict[str, str] | None:
    read: dict[str, str] = {}
    for line in headers or ():
        name, colon, value = line.partition(":")
        if not name.strip() or not colon:
            raise _StopError(f"--header: {quoted(line)}: write NAME:VALUE")
        read[name.strip()] = value.strip()
    return read or None


def _option(flaw: Flaw) -> str:
    """The option or argument that a flaw is about."""
    first = str(flaw.keys[0])
    if first == "workload" and len(flaw.keys) > 1:
        return _OPTIONS.get(f"workload.{flaw.keys[1]}", f"--{flaw.keys[1]}")
    return _OPTIONS.get(first, f"--{first}")


def _refuse_mixtures(one_of: Mapping[str, str | None], description: Mapping[str, Any]) -> None:
    """A case or a record says all of the request, a token all of the caller."""
    given = [name for name, value in one_of.items() if value is not None]
    if len(given) > 1:
        raise _StopError(f"{' and '.join(given)}: only one of them says which request is meant")
    if given in (["--case"], ["--request-id"]) and description:
        names = ", ".join(_option(Flaw((name,), "")) for name in description)
        raise _StopError(f"{given[0]} says all of the request; leave {names} out")
    of_caller = ("issuer", "subject", "kind", "dpop", "actor", "roles", "claims")
    caller = [name for name in of_caller if name in description]
    if given == ["--token"] and caller:
        names = ", ".join(_option(Flaw((name,), "")) for name in caller)
        raise _StopError(f"--token says all of the caller; leave {names} out")
    if not given and not description.keys() & {"path", "resource"}:
        raise _StopError(
            "Say which request: airgate policy explain --role ROLE METHOD /UPSTREAM/PATH; "
            "or --case, --token or --request-id (see --help)"
        )


def _seed(root: Path, stand_ins: StandIns | None = None) -> Policies:
    compiled = compile_folder(root, stand_ins)
    return _compiled(compiled, root)


def _compiled(compiled: Compiled, root: Path) -> Policies:
    return Policies(Gate(compiled.engine), compiled.shards, f"of {label(root)}")


def _live(request: Request) -> Policies:
    """What the local stack has in force, as far as the request needs it."""
    live = Live.read(open_environment(LOCAL))
    policies, shards = live.policies(upstream_of(request))
    return Policies(Gate(policies), shards, "in force on the local stack")


def _explain_case(name: str, root: Path, everything: bool, screen: Console) -> int:
    compiled = compile_folder(root)
    policies = _compiled(compiled, root)
    known = {case.name: case for case in cases.read(compiled, policies.gate)}
    if name not in known:
        hint = nearest(name, known) or f"; {label(root)} has {len(known)} cases"
        raise _StopError(f"--case: {quoted(name)}: no such case{hint}")
    case = known[name]
    found = cases.differences(case.expected, policies.gate.answer(case.request))
    said = [f"{each.what}: expected {each.expected}, came {each.came}" for each in found]
    notes = [f"Case {case.place}: {case.name}", *([f"It fails. {each}" for each in said] or ["It passes."])]
    return _show(Question(case.request, notes=notes), policies, everything, screen)


def _explain_token(
    file: str, description: dict[str, Any], root: Path, live: bool, everything: bool, screen: Console
) -> int:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _StopError(f"--token: {file}: can't be read: {error}") from None
    try:
        unverified = parse_token(text.strip().removeprefix("Bearer "))
    except Denied as denied:
        raise _StopError(f"--token: the gate refuses it, {denied}") from None
    subject = unverified.claims.get("sub")
    if not isinstance(subject, str) or not subject:
        raise _StopError("--token: has no sub, so the gate refuses it")
    asked = Request.read(description)
    policies = _live(asked) if live else _seed(root, _stand_ins(unverified.issuer))
    issuer = policies.gate.bundle.issuers.get(unverified.issuer)
    if issuer is None:
        known = ", ".join(f"{url} ({each.mapping.id})" for url, each in policies.gate.bundle.issuers.items())
        raise _StopError(
            f"--token: {quoted(unverified.issuer)}: no issuer {policies.origin} has this iss; known: {known}"
        )
    notes = ["The token was only decoded: nobody checked its signature."]
    now = asked.at if asked.at is not None else time.time()
    if unverified.algorithm not in issuer.rules.algorithms:
        notes.append(f"The gate would refuse it before policy: token.algorithm, {unverified.algorithm}.")
    try:
        validate_token(unverified, issuer.rules, now)
    except Denied as denied:
        notes.append(f"The gate would refuse it before policy: {denied}.")
    said = {"issuer": issuer.mapping.id, "subject": subject, "dpop": False, "claims": unverified.claims}
    request = Request.read(description | said)
    return _show(Question(request, notes=notes), policies, everything, screen)


def _stand_ins(issuer: str) -> StandIns | None:
    """The local stack's, when its provider has issued the token."""
    try:
        stack = read_stack()
    except StackError:
        return None
    return StandIns(stack.provider, stack.sample) if issuer == stack.provider else None


def _explain_recorded(
    request_id: str,
    log: Path | None,
    path: str | None,
    root: Path,
    live: bool,
    everything: bool,
    screen: Console,
) -> int:
    stack = read_stack() if log is None else None
    record = recorded.find(stack.audit if stack is not None else log or Path(), request_id)
    known = path if path is not None else record.path
    if known is None or not record.decided or record.delegated:
        print_branch(_only_recorded(record), screen)
        return PERMITTED if record.permit else DENIED
    request = record.request(known)
    if path is not None and record.path is None and upstream_of(request) != record.event.get("upstream"):
        raise _StopError(f"--path: {quoted(path)}: the request went to {record.event.get('upstream')}")
    if live:
        policies = _live(request)
    else:
        policies = _seed(root, StandIns(stack.provider, stack.sample) if stack is not None else None)
    question = recorded_question(record, request, policies)
    question.notes[:0] = [f"Recorded: {record.lines[0]}", *record.answers]
    return _show(question, policies, everything, screen)


def recorded_question(record: Recorded, request: Request, policies: Policies) -> Question:
    """A recorded request, to be decided again."""
    notes = []
    version = policies.gate.bundle.version
    if record.bundle != version:
        notes.append(f"It was decided by bundle {record.bundle}; this is {version}, {policies.origin}.")
    return Question(request, record.caller(policies.gate.bundle.roles), notes + record.unknown)


def _only_recorded(record: Recorded) -> Branch:
    """What the log holds, when that is too little to decide again."""
    branch = Branch(f"Recorded: {record.lines[0]}", "bold green" if record.permit else "bold red")
    for line in record.lines[1:]:
        branch.add(line)
    if not record.decided:
        branch.add("Policy wasn't asked: the request was refused before", "bold")
    elif record.delegated:
        branch.add(
            "An agent made it for somebody, and the log doesn't hold which roles are whose, so only the recorded "
            "decision can be shown",
            "bold",
        )
    else:
        upstream = record.event.get("upstream")
        branch.add(
            "The log doesn't hold the path, so only the recorded decision can be shown. "
            f"To explain it, say what was called: --path /{upstream}/…",
            "bold",
        )
    return branch


def _show(question: Question, policies: Policies, everything: bool, screen: Console) -> int:
    branch, answer = explained(question, policies, everything)
    for note in question.notes:
        screen.print(Text(note), soft_wrap=True)
    print_branch(branch, screen)
    return PERMITTED if answer.permit else DENIED


def explained(question: Question, policies: Policies, everything: bool) -> tuple[Branch, Answer]:
    """Why a request gets its answer, and that. Raises InvalidRequest."""
    gate = policies.gate
    if flaws := gate.unknown_names(question.request, question.caller):
        raise InvalidRequest(*flaws)
    recorded_one = question.caller is not None
    answer = gate.answer(question.request, question.caller, now=time.time(), obliged=not recorded_one)
    version = f"{gate.bundle.version} {policies.origin}"
    return explain_answer(answer, policies.shards, version, everything=everything), answer


def print_branch(branch: Branch, screen: Console) -> None:
    """A tree at a terminal, and lines set in elsewhere."""
    if not screen.is_terminal:
        _print_plain(branch, screen, 0)
        return
    tree = Tree(Text(branch.text, branch.style), guide_style="dim")
    _grow(tree, branch)
    screen.print(tree)


def _grow(tree: Tree, branch: Branch) -> None:
    for inner in branch.branches:
        _grow(tree.add(Text(inner.text, inner.style)), inner)


def _print_plain(branch: Branch, screen: Console, depth: int) -> None:
    screen.print(Text("  " * depth + branch.text), soft_wrap=True)
    for inner in branch.branches:
        _print_plain(inner, screen, depth + 1)
