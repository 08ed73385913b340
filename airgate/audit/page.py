"""A report as one HTML page: no scripts, nothing from elsewhere, and a policy (CSP) that forbids both.

Whatever stands in a log may be written by an attacker: all of it goes through the template's escaping, and through
`wording.shown` before, which takes out what would change how a text reads.
"""

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from airgate.audit import wording
from airgate.audit.figures import Figures

HERE = Path(__file__).resolve().parent
MOST_ROWS = 300  # of a table
MOST_CALLERS = 10  # in the chart
HEIGHT = 100.0  # of the chart over time, in its own units; a page stretches it
FEWEST = 12  # bars, as to their width
STEP, BAR = 10.0, 8.0  # how far bars are from each other, and how wide they are, likewise


@dataclass(frozen=True)
class Bar:
    """One bar of the chart over time: permits at the bottom, denials on them."""

    x: float
    permitted: float  # heights
    denied: float
    title: str


@dataclass(frozen=True)
class OverTime:
    """The chart, and what its axes say."""

    bars: Sequence[Bar]
    width: float
    top: int  # what the full height stands for
    ticks: Sequence[str]  # from the first bar to the last
    each: str  # how long a bar is: `hour`


def page(told: Figures) -> str:
    """The page, as HTML."""
    style = (HERE / "page.css").read_text("utf-8")
    return _template().render(
        told=told,
        style=Markup(style),
        policy=_policy(style),
        over_time=over_time(told["over_time"]),
        notices=wording.notices(told),
        heaviest=max((row["calls"] for row in told["callers"]), default=0),
        most=MOST_ROWS,
        most_callers=MOST_CALLERS,
    )


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["wording"] = wording
    environment.filters["shown"] = wording.shown
    environment.filters["number"] = _number
    return environment.get_template("page.html.j2")


def _policy(style: str) -> str:
    """The page's Content-Security-Policy: its own style, to the letter, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _number(value: int) -> str:
    return f"{value:,}"


def over_time(figures: Mapping[str, Any]) -> OverTime:
    """Where each bar stands, and how high."""
    rows = figures["bars"]
    top = _round(max((row["permitted"] + row["denied"] for row in rows), default=0))
    bars = [
        Bar(
            round(number * STEP + (STEP - BAR) / 2, 2),
            _height(row["permitted"], top),
            _height(row["denied"], top),
            f"{wording.clock(row['at'])} UTC: {row['permitted']:,} permitted, {row['denied']:,} denied",
        )
        for number, row in enumerate(rows)
    ]
    times = [wording.clock(row["at"]) for row in rows]
    if len(times) >= FEWEST:
        ticks = [times[0], times[len(times) // 2], times[-1]]
    else:  # they stand on the left
        ticks = [" to ".join(dict.fromkeys([*times[:1], *times[-1:]]))]
    width = max(len(rows), FEWEST) * STEP
    return OverTime(bars, width, top, ticks, wording.length(figures["seconds"]))


def _height(number: int, top: int) -> float:
    """Never so small that it can't be seen."""
    return 0.0 if not number else max(1.0, round(HEIGHT * number / top, 2))


def _round(number: int) -> int:
    """The next number with a half that is easy to read."""
    if number <= 10:
        return max(2, number + number % 2)
    power = 1
    while True:
        for tenths in (10, 12, 14, 16, 18, 20, 24, 28, 32, 40, 50, 60, 80):
            if tenths * power >= number:
                return tenths * power
        power *= 10
