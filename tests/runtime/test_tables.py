"""The unit tables of src/ and Wycheproof's vectors, on this Python and on every one that Cloudflare runs: matrix.py."""

import re
from collections.abc import Mapping

import pytest
from matrix import CORPORA, DESK, HERE, RUNTIMES, TABLES, VECTORS, Result

from airgate.node import PROJECT

PROMISES = re.findall(r"^async def test_", (HERE / "promises.py").read_text("utf-8"), re.MULTILINE)


@pytest.fixture(params=[pytest.param(runtime.id, id=runtime.id) for runtime in RUNTIMES])
def result(request: pytest.FixtureRequest, results: Mapping[str, Result]) -> Result:
    """What came out of one runtime."""
    result = results[request.param]
    assert result.status is not None, f"{result.runtime.title} did not run:\n{result.said}"
    return result


def test_every_module_of_the_core_has_tables() -> None:
    """Or the selection has left something out."""
    core = {module.stem for module in (PROJECT / "src").glob("*.py")} - {
        "worker",
        "javascript",
        "promise",
        "model",
    }
    assert {f"tests/unit/test_{name}.py" for name in core} <= set(TABLES)


def test_it_is_the_python_that_it_should_be(result: Result) -> None:
    assert result.python.startswith(result.runtime.python + ".")


def test_every_case_passes(result: Result) -> None:
    """A case that is skipped has not passed."""
    assert (result.status, result.wrong[:20]) == (0, []), result.said


def test_the_same_cases_run_everywhere(result: Result, results: Mapping[str, Result]) -> None:
    assert {case.partition("::")[0] for case in result.cases} == set(TABLES)
    assert set(result.cases) ^ set(results[DESK.id].cases) == set()


def test_what_a_case_measures_is_measured(result: Result) -> None:
    """Except where the clock stands still; and there it is known which cases measure nothing."""
    assert bool(result.untimed) is not result.runtime.clock


def test_promises_are_kept(result: Result) -> None:
    """Where there is JavaScript."""
    assert len(result.promises) == (0 if result.runtime is DESK else len(PROMISES))
    assert {case: ended for case, ended in result.promises.items() if ended != "passed"} == {}


@pytest.mark.skipif(not VECTORS.is_file(), reason=f"no vectors in {CORPORA}: published ones, kept elsewhere")
def test_every_vector_is_judged_as_it_has_to_be(result: Result) -> None:
    assert (result.vectors, result.disagreements) == (401, [])
