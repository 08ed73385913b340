"""The Worker on both of Cloudflare's newer Pythons, with an issuer and an upstream of its own, all on 127.0.0.1."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from airgate.dev.signing import new_keys

# For the modules here, however pytest was told to import.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from host import Gate
from matrix import Result, run_all
from peers import Peers

RESULTS = pytest.StashKey[list[Result]]()


@pytest.fixture(scope="session")
def results(pytestconfig: pytest.Config) -> Mapping[str, Result]:
    """What came out of each runtime, by its id."""
    results = pytestconfig.stash[RESULTS] = run_all()
    return {result.runtime.id: result for result in results}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line for each runtime."""
    if results := config.stash.get(RESULTS, []):
        terminalreporter.section("runtimes")
        for result in results:
            terminalreporter.write_line(result.line(), red="FAILED" in result.line())


@pytest.fixture(scope="session", params=["pyodide-313", "pyodide-314"], ids=["python 3.13", "python 3.14"])
def pyodide(request: pytest.FixtureRequest) -> str:
    """The npm package of the Pyodide to run on."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def start(pyodide: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Gate]]:
    """start(): one more Worker, with empty stores. It ends with the session, and must have complained of nothing."""
    gates: list[Gate] = []
    folder = tmp_path_factory.mktemp(pyodide)
    keys = new_keys()
    private = folder / "keys.json"
    private.write_text(json.dumps(keys), encoding="utf-8")

    def one() -> Gate:
        own = folder / str(len(gates))
        own.mkdir()
        gates.append(Gate(pyodide, own, peers, private))
        gates[-1].wait()
        return gates[-1]

    with Peers(keys) as peers:
        yield one
        for gate in gates:
            gate.stop()
    assert [line for gate in gates for line in gate.complaints] == []


@pytest.fixture(scope="session")
def gate(start: Callable[[], Gate]) -> Gate:
    """A Worker with host.py's policy set in force."""
    gate = start()
    gate.publish()
    return gate
