"""A report at a terminal: a few tables that stay readable at 80 columns, and use the room where there is more."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from airgate.audit import wording
from airgate.audit.wording import Figures, shown
from airgate.policy.output import show, table

MOST = 15  # rows of a table
ROOMY = 150  # columns from which on a caller and what it called have columns of their own

Line = Sequence[str | Text]


def render(told: Figures, screen: Console) -> None:
    """Print all of a report."""
    _head(told, screen)
    if not told["totals"]["decisions"]:
        return
    _calls(told, screen)
    _upstreams(told, screen)
    _denials(told, screen)
    _shadow(told, screen)
    _asserted(told, screen)
    _unused(told, screen)
    _changes(told, screen)
    _notices(told, screen)


def _head(told: Figures, screen: Console) -> None:
    totals = told["totals"]
    screen.print(Text("Audit report: " + wording.window(told), "bold"))
    for sentence in told["read"]:
        screen.print(Text(shown(sentence)))
    decided = (
        f"{totals['decisions']:,} decisions: {totals['permitted']:,} permitted, {totals['denied']:,} denied "
        f"({wording.share(totals['denied'], totals['decisions'])})"
    )
    asked = sum(totals["questions"].values())
    if asked:
        decided += f"; {asked:,} questions answered, {totals['questions']['denied']:,} of them with deny"
    screen.print(Text(decided))
    if totals["gate_ms"]["median"] is not None:
        screen.print(
            Text(
                f"Median / p95: {wording.milliseconds(totals['gate_ms'])} ms in the gate, "
                f"{wording.milliseconds(totals['upstream_ms']) or '-'} ms upstream"
            ),
        )
    screen.print()


def _section(title: str, note: str, screen: Console) -> None:
    screen.print(Text(title, "bold underline"))
    if note:
        screen.print(Text(note, "dim"))


def _grid(screen: Console, columns: Sequence[str], rows: Iterable[Line], right: Collection[str] = ()) -> None:
    grid = table(*columns)
    for column in grid.columns:
        if str(column.header) in right:
            column.justify = "right"
            column.no_wrap = True
    for row in rows:
        grid.add_row(*[cell if isinstance(cell, Text) else Text(cell) for cell in row])
    show(grid, screen)


def _more(rows: Sequence[Any]) -> str:
    left = len(rows) - MOST
    return f"The first {MOST} of {len(rows):,}; --json and --html have more" if left > 0 else ""


def _denied(row: Figures) -> Text:
    number = row["denied"]
    return Text(f"{number:,}" if number else "-", "red" if number else "dim")


def _calls(told: Figures, screen: Console) -> None:
    rows = told["calls"]
    stars = any(row["dag"] is not None and not row["attested"] for row in rows[:MOST])
    roomy = screen.width >= ROOMY
    notes = [
        _more(rows),
        "" if roomy else "ms: median / p95 upstream",
        "* the DAG by a header only, which the caller can write as it likes" if stars else "",
    ]
    _section("Who called what", "; ".join(filter(None, notes)), screen)
    if roomy:
        columns = ("caller", "DAG", "call", "calls", "denied", "answers", "gate ms", "upstream ms", "last")
        _grid(
            screen,
            columns,
            (_roomy(row) for row in rows[:MOST]),
            ("calls", "denied", "gate ms", "upstream ms"),
        )
    else:
        _grid(
            screen,
            ("who and what", "calls", "denied"),
            (_narrow(row) for row in rows[:MOST]),
            ("calls", "denied"),
        )


def _roomy(row: Figures) -> Line:
    return (
        "\n".join(filter(None, (wording.caller(row), wording.sort(row)))),
        wording.dag(row),
        wording.target(row),
        f"{row['calls']:,}",
        _denied(row),
        wording.answers(row),
        wording.milliseconds(row["gate_ms"]),
        wording.milliseconds(row["upstream_ms"]),
        wording.clock(row["last"])[5:],
    )


def _narrow(row: Figures) -> Line:
    who = Text(wording.caller(row), "bold")
    if row["dag"] is not None:
        who.append(f"  {wording.dag(row)}", "not bold")
    who.append(f"\n  {wording.target(row)}", "not bold")
    took = wording.milliseconds(row["upstream_ms"])
    if said := "; ".join(filter(None, (wording.answers(row), took and f"{took} ms"))):
        who.append(f"\n  {said}", "dim not bold")
    return who, f"{row['calls']:,}", _denied(row)


def _upstreams(told: Figures, screen: Console) -> None:
    rows = told["upstreams"]
    if not rows:
        return
    _section("Upstreams", _more(rows), screen)
    _grid(
        screen,
        ("upstream", "calls", "denied", "answers", "upstream ms"),
        (
            (
                shown(row["upstream"], 80),
                f"{row['calls']:,}",
                _denied(row),
                wording.answers(row) or "-",
                wording.milliseconds(row["upstream_ms"]) or "-",
            )
            for row in rows[:MOST]
        ),
        ("calls", "denied", "upstream ms"),
    )


def _denials(told: Figures, screen: Console) -> None:
    rows = told["denials"]
    if not rows:
        return
    _section("Denials by reason", _more(rows), screen)
    _grid(screen, ("reason", "denials", "what it means, and who"), map(_denial, rows[:MOST]), ("denials",))


def _denial(row: Figures) -> Line:
    status = f" ({row['status']})" if row["status"] else ""
    said = [f"{row['means']}{status}", wording.named(row["callers"], row["more_callers"])]
    if row["policies"]:
        said.append(f"by {wording.named(row['policies'], row['more_policies'])}")
    if row["upstreams"]:
        said.append(f"at {wording.named(row['upstreams'], row['more_upstreams'])}")
    return shown(row["reason"], 80), f"{row['calls']:,}", "\n".join(said)


def _shadow(told: Figures, screen: Console) -> None:
    rows = told["shadow"]
    if not rows:
        return
    _section("Policies in shadow: what enforcing them would have changed", _more(rows), screen)
    _grid(
        screen,
        ("policies", "would deny", "would permit", "no change", "whose calls"),
        (
            (
                wording.joined(row["policies"]),
                f"{row['would_deny']:,}",
                f"{row['would_permit']:,}",
                f"{row['same']:,}",
                wording.named(row["callers"], row["more_callers"]) or "-",
            )
            for row in rows[:MOST]
        ),
        ("would deny", "would permit", "no change"),
    )


def _asserted(told: Figures, screen: Console) -> None:
    rows = told["asserted"]
    if not rows:
        return
    note = "Whoever holds their token can name any DAG. docs/issuers.md has how tokens attest it"
    _section("Callers whose DAG no token ever attested", "; ".join(filter(None, (_more(rows), note))), screen)
    _grid(
        screen,
        ("caller", "calls", "DAGs they named"),
        (
            (wording.caller(row), f"{row['calls']:,}", wording.named(row["dags"], row["more_dags"]))
            for row in rows[:MOST]
        ),
        ("calls",),
    )


def _unused(told: Figures, screen: Console) -> None:
    unused = told["unused"]
    if unused is None:
        return
    rows = unused["unused"]
    title = f"Permits of {shown(unused['of'])} that let no call pass: {len(rows):,} of {unused['permits']:,}"
    _section(title, _more(rows), screen)
    if rows:
        _grid(
            screen,
            ("permit", "owner", "upstreams"),
            (
                (shown(row["id"], 80), shown(row["owner"], 80), wording.joined(row["upstreams"]))
                for row in rows[:MOST]
            ),
        )
    if unused["strangers"]:
        names = wording.joined(unused["strangers"], unused["more_strangers"])
        screen.print(
            Text(f"Calls were permitted by policies that {shown(unused['of'])} hasn't: {names}", "yellow"),
        )
    if not rows or unused["strangers"]:
        screen.print()


def _changes(told: Figures, screen: Console) -> None:
    rows = told["changes"]
    if not rows:
        return
    _section(
        "What was done to the gate, UTC",
        f"The last {MOST} of {len(rows):,}" if len(rows) > MOST else "",
        screen,
    )
    _grid(
        screen,
        ("when", "what", "by"),
        (
            (
                wording.clock(row["at"]),
                Text(
                    shown(row["what"]) + (f"\n{shown(row['why'], 500)}" if row["why"] else ""),
                    "red" if row["alarm"] else "",
                ),
                shown(row["by"], 80) or "-",
            )
            for row in rows[-MOST:]
        ),
    )


def _notices(told: Figures, screen: Console) -> None:
    notices = wording.notices(told)
    _section("What is missing, and what to know of these logs", "", screen)
    for alarm, text in notices:
        screen.print(Text(shown(text, 500), "red" if alarm else ""))
    screen.print(
        Text("Figures are no proof that nothing was removed or altered. airgate audit verify is.", "dim"),
    )
