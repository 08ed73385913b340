"""What the policy commands print: for a person at a terminal, or in plain lines for whatever reads them."""

import sys
import time
from collections.abc import Collection, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

PATIENCE = 1.0  # seconds before a bar says how far it is
WIDE = 10_000  # columns: a line for a program is one line

Item = TypeVar("Item")


def console() -> Console:
    """On standard output. Away from a terminal no line is folded, cut or coloured."""
    plain = not sys.stdout.isatty()
    return Console(highlight=False, width=WIDE if plain else None, no_color=True if plain else None)


def table(*columns: str) -> Table:
    """A table without lines, whose long cells are folded."""
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for column in columns:
        grid.add_column(column, overflow="fold")
    return grid


def show(grid: Table, screen: Console) -> None:
    """Print a table and an empty line, without the blanks that fill its last column."""
    with screen.capture() as captured:
        screen.print(grid)
    for line in captured.get().splitlines():
        screen.file.write(line.rstrip() + "\n")
    screen.file.write("\n")


def printable(text: str) -> str:
    """A text that somebody else wrote, on one line and without what a terminal would obey."""
    return "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(text.split())
    )


def shown(text: str) -> str:
    """A message of several lines, with what somebody else wrote in it, without what a terminal would obey."""
    return "".join(
        char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text
    )


def watched(items: Collection[Item], what: str) -> Iterator[Item]:
    """The items, with a bar on standard error once they take longer than a second; only at a terminal."""
    begin = time.monotonic()
    screen = Console(stderr=True)
    bar: Progress | None = None
    try:
        for number, item in enumerate(items):
            if bar is None and screen.is_terminal and time.monotonic() - begin > PATIENCE:
                bar = Progress(
                    TextColumn(what),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TimeRemainingColumn(),
                    console=screen,
                    transient=True,
                )
                bar.start()
                task = bar.add_task(what, total=len(items))
            if bar is not None:
                bar.update(task, completed=number)
            yield item
    finally:
        if bar is not None:
            bar.stop()
