"""How the figures of a report are said, at a terminal and on the page. Texts from the log become harmless here."""

from collections.abc import Iterable, Mapping
from typing import Any

from airgate.policy.output import printable

LONGEST = 200  # characters of a name that is shown
NOBODY = "not authenticated"

Figures = Mapping[str, Any]


def shown(text: str | None, longest: int = LONGEST) -> str:
    """A text from the log, on one line, without what a terminal or a reader could be led astray by."""
    told = printable(text or "")
    return told if len(told) <= longest else told[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"


def caller(row: Figures) -> str:
    """`finance-etl`, or `alice for bob` where one acts for another."""
    if row["subject"] is None:
        return NOBODY
    name = shown(row["subject"]) or "(empty)"
    return f"{name}, for whom {shown(row['actor'])} acts" if row["actor"] else name


def sort(row: Figures) -> str:
    """What kind of caller, by which issuer."""
    return " of ".join(shown(row[name], 80) for name in ("kind", "issuer") if row[name])


def dag(row: Figures) -> str:
    """The DAG, with a star where only a header said so."""
    if row["dag"] is None:
        return ""
    return f"{shown(row['dag'])}{'' if row['attested'] else '*'}"


def target(row: Figures) -> str:
    """`POST /ledger/v1/entries`, with the pattern of the policy that decided."""
    method, upstream, route = row["method"], row["upstream"], row["route"]
    if method is None and upstream is None:
        return "-"
    if upstream == "-":
        return f"{shown(method)} {shown(route)}".strip() if route else f"{shown(method)} a page of the gate"
    if upstream is None:
        return f"{shown(method)} of what can't be read"
    if not (route or "").startswith("/"):
        return f"{shown(method)} /{shown(upstream)}/\N{HORIZONTAL ELLIPSIS}"
    return f"{shown(method)} /{shown(upstream)}{shown(route)}"


def answers(row: Figures) -> str:
    """`2xx 1,204, 5xx 3, none 1`."""
    told = [f"{name} {number:,}" for name, number in row["answers"].items()]
    return ", ".join(told + ([f"open {row['open']:,}"] if row.get("open") else []))


def milliseconds(times: Figures) -> str:
    """`12 / 48`: median and 95th percentile."""
    return "" if times["median"] is None else f"{times['median']:,} / {times['p95']:,}"


def share(part: int, whole: int) -> str:
    """`0 %`, `<1 %`, `37 %`."""
    if not part or not whole:
        return "0 %"
    percent = 100 * part / whole
    return "<1 %" if percent < 1 else ">99 %" if 99 < percent < 100 else f"{percent:.0f} %"


def clock(written: str | None) -> str:
    """`2026-11-22 09:30`, of UTC."""
    return "" if written is None else f"{written[:10]} {written[11:16]}"


def named(rows: Iterable[Figures], more: int) -> str:
    """`finance-etl 12, sales-sync 3 and 4 more`."""
    told = [f"{caller(row) if 'subject' in row else shown(row['name'], 80)} {row['calls']:,}" for row in rows]
    return ", ".join(told) + (f" and {more:,} more" if more else "")


def joined(names: Iterable[str], more: int = 0) -> str:
    return ", ".join(shown(name, 80) for name in names) + (f" and {more:,} more" if more else "")


def window(told: Figures) -> str:
    """The time that was asked for, and the time of what is in it."""
    begin, end = clock(told["since"]), clock(told["until"])
    asked = f"from {begin} " if begin else ""
    asked += f"until {end} " if end else ""
    if told["first"] is None:
        return f"{asked}no decision".strip().capitalize()
    within = f"{clock(told['first'])} to {clock(told['last'])} UTC ({told['span']})"
    return f"{within}; asked for: {asked.strip()} UTC" if asked else within


def length(seconds: int) -> str:
    """How long a bar is: `15 minutes`, `1 day`."""
    for unit, noun in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds % unit == 0:
            number = seconds // unit
            return f"{number:,} {noun}{'' if number == 1 else 's'}"
    return f"{seconds:,} seconds"


def notices(told: Figures) -> list[tuple[bool, str]]:
    """What whoever relies on the log should know first, and whether it is an alarm."""
    gaps, said = told["gaps"], []
    if lines := gaps["missing_lines"]:
        where = (
            "one chain"
            if gaps["chains_with_missing_lines"] == 1
            else f"{gaps['chains_with_missing_lines']:,} chains"
        )
        said.append(
            (
                True,
                f"{_lines(lines)} missing in the middle of {where}: run airgate audit verify on the same logs",
            )
        )
    for change in told["changes"]:
        if change["kind"] == "register":
            said.append(
                (True, f"{change['what']}, {clock(change['at'])} UTC: somebody or something deleted it")
            )
    if late := gaps["open"] - gaps["running"]:
        noun = "1 permitted call has" if late == 1 else f"{late:,} permitted calls have"
        said.append((True, f"{noun} no outcome: cut off, or their lines are not in these logs"))
    if gaps["running"]:
        number = (
            "1 more" if late and gaps["running"] == 1 else f"{gaps['running']:,}{' more' if late else ''}"
        )
        said.append((False, f"{number} may have been on their way when the log ended"))
    if gaps["lost"]:
        said.append(
            (False, f"{_number(gaps['lost'], 'answer')} came and could not be handed to the caller (lost)")
        )
    if gaps["strays"]:
        said.append(
            (False, f"{_number(gaps['strays'], 'outcome')} of calls that are not in this time or these logs")
        )
    if begun := gaps["chains_begun_before"]:
        said.append((False, f"{_number(begun, 'chain')} of {gaps['chains']:,} began before these logs do"))
    if gaps["unchained"]:
        said.append(
            (
                False,
                f"{_number(gaps['unchained'], 'event')} of an older gate, in no chain: nothing proves them",
            )
        )
    if gaps["odd"]:
        said.append((True, f"{_number(gaps['odd'], 'event')} left out: not as any gate writes them"))
    if silences := gaps["silences"]:
        told_so = (f"{one['span']} from {clock(one['from'])}" for one in silences)
        said.append((False, f"The longest times without a decision: {', '.join(told_so)} UTC"))
    return said + [(False, text) for text in told["folded"]]


def _lines(number: int) -> str:
    return "1 line is" if number == 1 else f"{number:,} lines are"


def _number(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
