"""The long run of the tokens' fuzzing: `make fuzz`. What an input is, and what must never happen: odd_tokens.py.

hypothesis draws the seeds, each for a batch of inputs. An input that takes far longer to read than the longest honest
token is measured again, and fails the run if it stays slow: nothing may cost quadratic time.
"""

import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Annotated

import typer
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from odd_tokens import Subject, mutated
from world import token

from model import Denied, Reason
from tokens import parse

BATCH = 100  # inputs for each seed
ROUND = 200  # seeds after which hypothesis starts anew: it remembers all that it has drawn
SLOW = 7  # times the longest honest token


def cost(text: str, times: int) -> float:
    """Seconds to read an input, the least of so many times."""
    least = 1.0
    for _ in range(times):
        began = time.perf_counter()
        with suppress(Denied):
            parse(text)
        least = min(least, time.perf_counter() - began)
    return least


class Run:
    """What has been found so far."""

    def __init__(self) -> None:
        self.subjects = (Subject("any"), Subject("at+jwt"))
        self.reasons: Counter[Reason | None] = Counter()
        longest = token(groups=[f"finance-publishers-{n:03}" for n in range(200)])
        assert parse(longest)
        self.honest = cost(longest, 50)
        self.slowest = 0.0
        self.text = ""  # the last input

    def take(self, text: str) -> None:
        """Present one input. AssertionError says what it did that it must not."""
        spent = cost(text, 1)
        if spent > self.slowest:
            self.slowest = max(self.slowest, cost(text, 20))
            assert self.slowest < SLOW * self.honest, f"{1e6 * self.slowest:.0f} µs to read it"
        wide, narrow = (subject.judge(text) for subject in self.subjects)
        assert narrow is not None or wide is None, "the stricter type accepts more"
        self.reasons[wide] += 1


def main(
    inputs: Annotated[int, typer.Option(min=BATCH, help="How many inputs.")] = 1_000_000,
    start: Annotated[int, typer.Option(help="The first seed; the same one gives the same inputs.")] = 0,
) -> None:
    """Present mutated tokens to the gate. Exit 1 when one does what it must never do. Ctrl-C ends it early."""
    console = Console()
    run = Run()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    failed = ""
    began = time.monotonic()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("Mutated tokens", total=inputs)
        for number in range(-(-inputs // (BATCH * ROUND))):
            left = inputs - number * BATCH * ROUND

            @seed(start + number)
            @settings(
                max_examples=min(ROUND, -(-left // BATCH)),
                phases=[Phase.generate],
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(st.integers(0, 2**64 - 1))
            def batch(drawn: int) -> None:
                random = Random(drawn)
                for _ in range(BATCH):
                    run.text = mutated(random)
                    run.take(run.text)
                progress.advance(task, BATCH)

            try:
                batch()
            except Exception as error:  # parse raises nothing but Denied
                failed = f"{type(error).__name__}: {error}"
                break
            except KeyboardInterrupt:
                break
    _tell(console, run, time.monotonic() - began)
    if failed:
        console.print(f"Found, with --start {start + number}: {failed}", style="red", markup=False)
        console.print(f"The input: {run.text!r}", markup=False)
        raise typer.Exit(1)


def _tell(console: Console, run: Run, seconds: float) -> None:
    table = Table("outcome", "inputs", box=SIMPLE_HEAD)
    table.columns[1].justify = "right"
    for reason, count in run.reasons.most_common():
        table.add_row("accepted" if reason is None else reason, f"{count:,}")
    console.print(table)
    console.print(
        f"{run.reasons.total():,} inputs in {seconds:.0f} s. The slowest took {1e6 * run.slowest:.0f} µs to read, "
        f"{run.slowest / run.honest:.1f} times the longest honest token.",
        highlight=False,
    )


if __name__ == "__main__":
    typer.run(main)
