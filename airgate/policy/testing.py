"""`airgate policy test`: do the cases beside the policies get the answers that they expect?

Exit codes: 0 all pass; 1 some don't, or too little is covered; 2 invalid (no case was tried).
"""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from airgate.policy.cases import PATTERN, Case, Difference, differences, files, read
from airgate.policy.check import Folder, counted, report
from airgate.policy.compile import compile_folder
from airgate.policy.coverage import COUNTED, Coverage
from airgate.policy.gate import Answer, Gate
from airgate.policy.output import console, show, table, watched
from airgate.policy.seed import STARTER, SeedError, label

PASSED, FAILED, INVALID = 0, 1, 2


def run(
    directory: Folder = None,
    least: Annotated[
        float | None,
        typer.Option(
            "--coverage-min", metavar="PERCENT", min=0, max=100, help="Fail when less than this is covered."
        ),
    ] = None,
) -> None:
    """Try the cases beside the policies. Exits with 0 when all pass, 1 when some fail, 2 when something is invalid."""
    root = directory or STARTER
    try:
        compiled = compile_folder(root)
        gate = Gate(compiled.engine)
        cases = read(compiled, gate)
    except SeedError as error:
        report(error, "No case was tried.")
        raise typer.Exit(INVALID) from None
    if not cases:
        typer.echo(
            f"{label(root)}: holds no {PATTERN}. Write cases beside the policies (docs/testing-policy.md)."
        )
        raise typer.Exit(INVALID)
    coverage = Coverage(compiled, gate)
    failures: list[tuple[Case, list[Difference]]] = []
    for case in watched(cases, "Cases"):
        answer: Answer = gate.answer(case.request)
        coverage.add(answer)
        if found := differences(case.expected, answer):
            failures.append((case, found))
    screen = console()
    if failures:
        _show_failures(failures, directory, screen)
    _show_coverage(coverage, screen)
    passed = f"{len(cases) - len(failures)} of {len(cases)} cases passed" if failures else "all passed"
    typer.echo(
        f"{label(root)}: {counted(len(cases), 'case')} in {counted(len(files(root)), 'file')}, {passed}"
        if not failures
        else f"{label(root)}: {passed}, {len(failures)} failed"
    )
    low = least is not None and coverage.percent < least
    if low:
        typer.echo(f"Coverage is below {least:g} %, which --coverage-min asks for.")
    raise typer.Exit(FAILED if failures or low else PASSED)


def _show_failures(
    failures: list[tuple[Case, list[Difference]]], directory: Path | None, screen: Console
) -> None:
    for case, found in failures:
        screen.print(Text(f"{case.place}: {case.name}", "bold"), soft_wrap=True)
        grid = table("", "expected", "came")
        for difference in found:
            grid.add_row(f"  {difference.what}", Text(difference.expected), Text(difference.came, "red"))
        show(grid, screen)
    where = ["--seed", str(directory)] if directory is not None else []
    again = shlex.join(["airgate", "policy", "explain", *where, "--case", failures[0][0].name])
    screen.print(Text(f"To see why: {again}\n"), soft_wrap=True)


def _show_coverage(coverage: Coverage, screen: Console) -> None:
    if coverage.missed:
        grid = table("policy", "covered", "not covered")
        for name, touched in sorted(coverage.policies.items()):
            if touched.missed:
                shown = f"{touched.total - touched.missed} of {touched.total}"
                grid.add_row(name, shown, Text("\n".join(touched.gaps)))
        show(grid, screen)
    matched = len(coverage.policies) - len(coverage.unmatched)
    screen.print(
        f"Coverage {_percent(coverage.percent)} %: {coverage.total - coverage.missed} of {coverage.total} points; "
        f"{matched} of {counted(len(coverage.policies), 'policy')} matched.",
        soft_wrap=True,
    )
    screen.print(f"Points are {COUNTED}, where that is possible.", style="dim", soft_wrap=True)


def _percent(value: float) -> str:
    """Never 100 before it is."""
    return "100" if value == 100 else f"{int(value * 10) / 10:g}"
