"""`airgate audit trace`: all that one DAG run did through the gate, or one trace, as a timeline.

Exit codes: 0 shown; 1 the logs hold nothing of it; 2 a log can't be used.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from airgate.audit.fields import text, whole
from airgate.audit.lookup import Searched
from airgate.audit.retold import RESULTS, reason
from airgate.audit.timeline import Asked, Attempt, Call, NoCallsError, Timeline, read, trace_id
from airgate.audit.why import INVALID, MISSING, Logs, error_text, own_logs, print_grid
from airgate.engine import OWN
from airgate.policy.check import counted
from airgate.policy.lines import STANDARD_INPUT
from airgate.policy.output import console, printable
from airgate.policy.phrases import joined
from airgate.policy.recorded import RecordError

SHOWN = 0
SHOWN_ID = 8  # digits of a request's id
WIDEST = 150  # columns of a table


def trace(
    dag: Annotated[str | None, typer.Option("--dag", metavar="ID", help="The DAG.")] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="Its run; the run id as Airflow shows it.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", metavar="ID", help="One task only.")] = None,
    trace_: Annotated[
        str | None,
        typer.Option("--trace-id", metavar="ID", help="Instead: one W3C trace, by its id or a traceparent."),
    ] = None,
    logs: Logs = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show all that a DAG run did through the gate: its calls by task and try, in order, and what came of each.

    Exits with 0 when it's shown, 1 when the logs hold nothing of it, 2 when a log can't be used.
    """
    try:
        if trace_ is not None:
            if dag is not None or run is not None or task is not None:
                raise RecordError("--trace-id says which calls are meant; leave --dag, --run and --task out")
            asked = Asked(trace_id=trace_id(trace_))
        elif dag is None or run is None:
            raise RecordError(
                "Say which run: --dag ID --run ID, both as Airflow shows them; or --trace-id ID"
            )
        else:
            asked = Asked(dag, run, task)
        own = own_logs(logs)
        timeline = read(asked, Searched(own), STANDARD_INPUT not in own)
    except NoCallsError as error:
        typer.echo(error_text(error), err=True)
        raise typer.Exit(MISSING) from None
    except RecordError as error:
        typer.echo(error_text(error), err=True)
        raise typer.Exit(INVALID) from None
    if as_json:
        typer.echo(json.dumps(_document(timeline)))
    else:
        _show(timeline, console())


def _show(timeline: Timeline, screen: Console) -> None:
    folded = not screen.is_terminal
    screen.print(Text(printable(_title(timeline.asked)), "bold"), soft_wrap=folded)
    for line in _overview(timeline):
        screen.print(Text(printable(line)), soft_wrap=folded)
    widest = max(len(place(call)) for call in timeline.calls)
    for attempt in timeline.attempts:
        screen.print()
        screen.print(Text(printable(_heading(timeline, attempt)), "bold"), soft_wrap=folded)
        print_grid(_table(timeline, attempt, screen, widest), screen)
    screen.print()
    for line, style in _summary(timeline):
        screen.print(Text(printable(line), style), soft_wrap=folded)


def _title(asked: Asked) -> str:
    return asked.words[:1].upper() + asked.words[1:]


def _overview(timeline: Timeline) -> Iterator[str]:
    calls = timeline.calls
    span = _span(calls[-1].at - calls[0].at + (calls[-1].took or 0) / 1000)
    yield f"{counted(len(calls), 'call')} in {span}, from {_clock(calls[0].at)} UTC"
    callers = Counter(_caller(call) for call in calls)
    yield f"By {joined(who if number == len(calls) else f'{who} ({number})' for who, number in callers.most_common())}"
    if timeline.asked.trace_id is not None:
        runs = {(call.named("dag"), call.named("run")) for call in calls} - {(None, None)}
        yield (
            f"Of {joined(f'DAG {dag}, run {run}' for dag, run in sorted(runs, key=str))}"
            if runs
            else "Of no DAG"
        )
    yield _vouched(calls)


def _vouched(calls: Iterable[Call]) -> str:
    found = Counter(call.attested for call in calls)
    asserted = "only claimed: headers say so, and whoever holds the token can write them"
    if not found[True]:
        return f"DAG and run are {asserted}" if found[False] else "No DAG or run is named"
    if not found[False]:
        return "DAG and run are attested by the token"
    return f"DAG and run are attested by the token in {counted(found[True], 'call')}; in {found[False]} (*) {asserted}"


def _caller(call: Call) -> str:
    event = call.event
    if "subject" not in event:
        return "somebody whose token was not believed"
    actor = f", for whom {event['actor']} acts" if event.get("actor") else ""
    return f"{event['subject']} of {event.get('issuer')}{actor}"


def _heading(timeline: Timeline, attempt: Attempt) -> str:
    whose = f"DAG {attempt.dag}, " if timeline.asked.trace_id is not None and attempt.dag is not None else ""
    failed = sum(call.failed for call in attempt.calls)
    how = f", {failed} of them without success" if failed and len(attempt.calls) > 1 else ""
    return f"{whose}{attempt.title}: {counted(len(attempt.calls), 'call')}{how}"


def _table(timeline: Timeline, attempt: Attempt, screen: Console, widest: int) -> Table:
    wide = min(screen.width, WIDEST)
    grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(justify="right", no_wrap=True, min_width=9)
    grid.add_column(no_wrap=True, style="dim", min_width=SHOWN_ID)
    # What is left beside offset, id and time taken is shared by the call and what came of it.
    room = max(20, min(widest, (wide - 9 - SHOWN_ID - 9 - 8) * 55 // 100))
    grid.add_column(overflow="fold", min_width=room, max_width=room if screen.is_terminal else None)
    grid.add_column(justify="right", no_wrap=True, min_width=8)
    grid.add_column(overflow="fold")
    mixed = len({call.attested for call in timeline.calls}) > 1
    gaps = dict(attempt.gaps())
    before: Call | None = None
    for number, call in enumerate(attempt.calls):
        mark = " *" if mixed and call.attested is False else ""
        said, style = result(call)
        if before is not None and before.failed and place(before) == place(call):
            said += "; the same call again"
        took = "" if call.took is None or not call.permit else f"{call.took:,} ms"
        name = str(call.event.get("request_id"))[:SHOWN_ID]
        grid.add_row(
            f"+{_offset(call.at - timeline.begin)}",
            name,
            printable(place(call)) + mark,
            took,
            Text(printable(said), style),
        )
        if number in gaps:
            grid.add_row("", "", Text(f"… {_span(gaps[number])} until the next call", "dim"), "", "")
        before = call
    return grid


def place(call: Call) -> str:
    """`GET ledger /v1/entries/77`, with the route where the path isn't logged."""
    event = call.event
    upstream, path = event.get("upstream"), event.get("path")
    if upstream == OWN:
        return f"{event.get('method')} the gate's {event.get('page') or 'page'}"
    where = path if isinstance(path, str) else text(event, "route")
    query = event.get("query")
    names = f"?{'&'.join(query)}" if isinstance(query, dict) and query else ""
    return f"{event.get('method') or '?'} {upstream or '?'}{f' {where}{names}' if where else ''}"


def result(call: Call) -> tuple[str, str]:
    """What came of a call, in words, and a style."""
    event, outcome = call.event, call.outcome
    if not call.permit:
        detail = f": {event['detail']}" if text(event, "detail") else ""
        return f"DENIED: {reason(event)}{detail}", "red"
    questions = f"{counted(call.questions, 'question')} asked" if call.questions else ""
    if outcome is None:
        if event.get("page"):
            return questions or "answered by the gate itself", "green"
        return "permitted; no outcome in the log", "yellow"
    result = text(outcome, "result")
    if result != "answered":
        said, style = f"upstream {RESULTS.get(result or '', result)}", "yellow"
    else:
        said, style = f"{outcome.get('status')}", "green" if (call.status or 0) < 400 else "yellow"
        if (call.status or 0) >= 400:
            said += " from the upstream"
    if (tries := whole(outcome, "tries")) is not None:
        said += f" at the {tries}. try of the gate"
    if call.lost:
        said += "; the caller had left"
    return said, style


def _summary(timeline: Timeline) -> Iterator[tuple[str, str]]:
    calls = timeline.calls
    denied = [call for call in calls if not call.permit]
    statuses = Counter(call.status for call in calls if call.permit and call.status is not None)
    unheard = [call for call in calls if call.permit and call.failed and call.status is None]
    upstream = sum(whole(call.outcome, "upstream_ms") or 0 for call in calls if call.outcome is not None)
    gate = sum(whole(call.event, "gate_ms") or 0 for call in calls)
    answers = ", ".join(f"{status} ({number})" for status, number in sorted(statuses.items()))
    yield (
        f"{len(calls) - len(denied):,} permitted, {len(denied):,} denied. Upstream answers: {answers or 'none'}",
        "bold",
    )
    yield f"Time spent: {_span(gate / 1000)} in the gate, {_span(upstream / 1000)} upstream", ""
    if denied:
        reasons = ", ".join(f"{code} ({number})" for code, number in timeline.reasons.most_common())
        yield f"Denied: {reasons}", "red"
    if unheard:
        yield f"{counted(len(unheard), 'call')} without an answer from the upstream", "yellow"
    if timeline.more:
        yield f"{timeline.more:,} more calls are not shown: take less of them, --task", "yellow"
    if timeline.broken:
        yield f"{counted(timeline.broken, 'line')} about it can't be read", "yellow"
    told = next((call for call in denied), next((call for call in calls if call.failed), calls[0]))
    yield f"More about one of them: airgate audit why {str(told.event['request_id'])[:SHOWN_ID]}", "dim"


def _offset(seconds: float) -> str:
    """`0.125 s`, `12.3 s`, `4:05`, `1:04:05`: time since the first call."""
    if seconds < 10:
        return f"{seconds:.3f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _span(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min{f' {rest} s' if rest else ''}"
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    words = (f"{days} d" if days else "", f"{hours} h" if hours else "", f"{minutes} min" if minutes else "")
    return " ".join(word for word in words if word)


def _clock(seconds: float) -> str:
    return f"{datetime.fromtimestamp(int(seconds), UTC):%A %Y-%m-%d %H:%M:%S}"


def _document(timeline: Timeline) -> dict[str, Any]:
    calls, asked = timeline.calls, timeline.asked
    return {
        "dag": asked.dag,
        "run": asked.run,
        "task": asked.task,
        "trace_id": asked.trace_id,
        "first": calls[0].event["time"],
        "last": calls[-1].event["time"],
        "calls": len(calls),
        "permitted": sum(call.permit for call in calls),
        "denied": dict(timeline.reasons),
        "not_shown": timeline.more,
        "broken": timeline.broken,
        "attempts": [
            {
                "dag": attempt.dag,
                "task": attempt.task,
                "map_index": attempt.map_index,
                "try": attempt.number,
                "calls": [
                    {
                        "offset_ms": round((call.at - timeline.begin) * 1000),
                        "attested": call.attested,
                        "failed": call.failed,
                        "decision": call.event,
                        "outcomes": call.outcomes,
                        "questions": call.questions,
                    }
                    for call in attempt.calls
                ],
            }
            for attempt in timeline.attempts
        ],
    }
