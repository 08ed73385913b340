"""`airgate audit why`: what became of one request, and why, in sentences; with what the policy of that time looked at.

Exit codes: 0 told; 1 the logs hold no such request; 2 a log, a seed or an environment can't be used.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from airgate.audit.lookup import NotFoundError, Searched, Story, look_up, normal
from airgate.audit.retold import Told, headline, retold
from airgate.configuration import LOCAL
from airgate.dev.stack import StackError, read_stack
from airgate.environment import EnvironmentMissing, open_environment
from airgate.node import NodeMissing, WranglerFailed
from airgate.policy.check import report
from airgate.policy.compile import StandIns, compile_folder
from airgate.policy.explain import Policies, explained, print_branch, recorded_question
from airgate.policy.explanation import WAYS, Branch
from airgate.policy.gate import Gate, upstream_of
from airgate.policy.live import Live, LiveError
from airgate.policy.output import console, printable, shown
from airgate.policy.publish import progress
from airgate.policy.recorded import Recorded, RecordError
from airgate.policy.request import InvalidRequest, Request
from airgate.policy.seed import SeedError, label
from airgate.policy.words import quoted

TOLD, MISSING, INVALID = 0, 1, 2

Logs = Annotated[
    list[Path] | None,
    typer.Option(
        "--log",
        metavar="FILE",
        help="An audit log, or a folder of them, in any form; - is standard input. Repeat it. "
        "The running local stack's when left out.",
    ),
]


@dataclass
class Explanation:
    """What policy looked at; or why nobody can say."""

    branch: Branch | None = None
    notes: tuple[str, ...] = ()
    missing: str = ""
    owner: str | None = None  # whom to ask

    @property
    def ways(self) -> list[Branch]:
        """What it would take to be permitted."""
        found = [] if self.branch is None else self.branch.branches
        return [way for each in found if each.text == WAYS for way in each.branches]


def why(
    request_id: Annotated[
        str,
        typer.Argument(metavar="REQUEST_ID", help="From the answer's Airgate-Request-Id, or its beginning."),
    ],
    logs: Logs = None,
    env: Annotated[
        str | None,
        typer.Option(
            "--env",
            metavar="NAME",
            help="Whose KV holds the policy of that time: local (the running stack; when left out), production, …",
        ),
    ] = None,
    seed: Annotated[
        Path | None, typer.Option("--seed", metavar="DIR", help="Explain with this policy seed instead.")
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(metavar="/UPSTREAM/PATH", help="What was called, where the log doesn't hold it."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every policy about the target, however many don't match.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Tell what became of a request: who called what, what was decided and why, what was missing, what came back.

    Exits with 0 when it's told, 1 when the logs hold no such request, 2 when something can't be used.
    """
    try:
        if env is not None and seed is not None:
            raise RecordError("--env and --seed both say what to explain with; leave one of them out")
        name = normal(request_id)
        story = look_up(name, Searched(own_logs(logs, env)))
        explanation = _explanation(story, env, seed, path, everything)
    except NotFoundError as error:
        typer.echo(error_text(error), err=True)
        raise typer.Exit(MISSING) from None
    except SeedError as error:
        report(error, "Nothing can be explained by it.")
        raise typer.Exit(INVALID) from None
    except InvalidRequest as invalid:
        for flaw in invalid.flaws:
            typer.echo(f"--path: {printable(flaw.text)}", err=True)
        raise typer.Exit(INVALID) from None
    except RecordError as error:
        typer.echo(error_text(error), err=True)
        raise typer.Exit(INVALID) from None
    if as_json:
        typer.echo(json.dumps(_document(story, explanation), ensure_ascii=True))
    else:
        _show(story, explanation, console())


def own_logs(logs: list[Path] | None, env: str | None = None) -> list[Path]:
    """Logs to read: those that are named, else the running local stack's. Raises RecordError."""
    if logs:
        return logs
    if env not in (None, LOCAL):
        raise RecordError(
            f"The logs of {env} are not on this machine: name them, --log FILE. They are where Logpush or R2 puts "
            f"them; `airgate audit tail --env {env} --json > FILE` writes down what comes from now on"
        )
    try:
        return [read_stack().audit]
    except StackError as error:
        raise RecordError(f"{error} Or name a log: --log FILE") from None


def error_text(error: Exception) -> str:
    """A message of several lines, without what a terminal would obey."""
    return "\n".join(printable(line) if line.strip() else "" for line in str(error).split("\n"))


def _explanation(
    story: Story, env: str | None, seed: Path | None, path: str | None, everything: bool
) -> Explanation:
    """Raises RecordError, SeedError and InvalidRequest."""
    record = story.decision
    if not record.decided:
        return Explanation()
    if record.delegated:
        return Explanation(
            missing="What each policy looked at can't be told: an agent made the call for somebody, and the log "
            "doesn't hold which roles are whose"
        )
    known = path if path is not None else record.path
    if known is None:
        upstream = record.event.get("upstream")
        return Explanation(
            missing=f"What each policy looked at can't be told, for the log doesn't hold the path: {upstream} has no "
            f"`log_path: true`. Say what was called: --path /{upstream}/…"
        )
    request = record.request(known)
    if upstream_of(request) != record.event.get("upstream"):
        raise RecordError(f"--path: {quoted(path)}: the request went to {record.event.get('upstream')}")
    try:
        policies = _of_seed(seed) if seed is not None else _of_that_time(record, request, env or LOCAL)
    except (LiveError, EnvironmentMissing, NodeMissing, WranglerFailed) as error:
        return Explanation(
            missing="What each policy looked at can't be told, for the policy of that time, bundle "
            f"{record.bundle}, is not at hand: {str(error).rstrip('.')}. Name the environment whose gate this is "
            "(--env NAME), or the seed that it was published from (--seed DIR)"
        )
    question = recorded_question(record, request, policies)
    branch, answer = explained(question, policies, everything)
    owner = answer.decision.owner if answer.decision is not None else None
    return Explanation(branch, tuple(question.notes), owner=owner)


def _of_seed(seed: Path) -> Policies:
    try:
        stack = read_stack()
    except StackError:
        stack = None
    compiled = compile_folder(seed, StandIns(stack.provider, stack.sample) if stack is not None else None)
    return Policies(Gate(compiled.engine), compiled.shards, f"of {label(seed)}")


def _of_that_time(record: Recorded, request: Request, env: str) -> Policies:
    """Raises LiveError, and as Environment does."""
    with progress() as say:
        environment = open_environment(env)
        say(f"Reading policy {record.bundle} from KV of {env}")
        live = Live.at(environment, record.bundle or "")
        policies, shards = live.policies(upstream_of(request))
    return Policies(Gate(policies), shards, f"of that time, from KV of {env}")


def _show(story: Story, explanation: Explanation, screen: Console) -> None:
    style = "bold green" if story.decision.permit else "bold red"
    screen.print(Text(printable(headline(story)), style), soft_wrap=not screen.is_terminal)
    screen.print()
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    last = ""
    for heading, sentence in _told(story, explanation):
        text = Text(printable(sentence), "yellow" if heading == "To do" else "")
        grid.add_row(heading if heading != last else "", text)
        last = heading
    print_grid(grid, screen)
    if explanation.branch is None and not explanation.missing:
        return
    screen.print()
    if explanation.branch is None:
        screen.print(Text(printable(explanation.missing)), soft_wrap=not screen.is_terminal)
        return
    screen.print(
        Text(
            "By the policy of that time:"
            if not explanation.notes[0].startswith("It was")
            else "By the policy that was named:",
            "bold",
        )
    )
    for note in explanation.notes:
        screen.print(Text(printable(note), "dim"), soft_wrap=not screen.is_terminal)
    print_branch(_printable(explanation.branch), screen)


def _told(story: Story, explanation: Explanation) -> Iterator[Told]:
    """The story, with what policy says of a way out."""
    for heading, sentence in retold(story, explanation.owner):
        yield heading, sentence
        if heading == "To do":
            for way in explanation.ways:
                inner = "; ".join(each.text for each in way.branches)
                yield heading, f"What it would take: {way.text}{f': {inner}' if inner else ''}."


def print_grid(grid: Table, screen: Console) -> None:
    """A table, without the blanks that fill its last column."""
    with screen.capture() as captured:
        screen.print(grid)
    for line in captured.get().splitlines():
        screen.file.write(line.rstrip() + "\n")


def _printable(branch: Branch) -> Branch:
    return Branch(
        shown(branch.text).replace("\n", " "), branch.style, [_printable(inner) for inner in branch.branches]
    )


def _document(story: Story, explanation: Explanation) -> dict[str, Any]:
    told: dict[str, list[str]] = {}
    for heading, sentence in _told(story, explanation):
        told.setdefault(heading.lower().replace(" ", "_"), []).append(sentence)
    return {
        "request_id": story.event["request_id"],
        "trace_id": story.event.get("trace_id"),
        "decision": story.event["decision"],
        "reason": story.event.get("reason"),
        "owner": explanation.owner,
        "headline": headline(story),
        "sentences": told,
        "explanation": None if explanation.branch is None else _tree(explanation.branch),
        "notes": list(explanation.notes),
        "not_explained": explanation.missing or None,
        "events": list(_events(story)),
    }


def _tree(branch: Branch) -> dict[str, Any]:
    return {"text": branch.text, "branches": [_tree(inner) for inner in branch.branches]}


def _events(story: Story) -> Iterator[dict[str, Any]]:
    yield story.event
    yield from story.decision.questions
    yield from story.outcomes
    yield from story.acts.values()
    if story.bundle is not None:
        yield story.bundle
