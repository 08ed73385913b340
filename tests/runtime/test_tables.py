"""The unit tables of src/, run by the Python versions that Cloudflare runs."""

import json
import re
import subprocess
import sysconfig
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from airgate.node import PROJECT, node

HERE = Path(__file__).resolve().parent
UNIT = PROJECT / "tests" / "unit"
# The rest test the command-line tool, which runs on a desk: its libraries have no place in a Worker.
TABLES = sorted(
    file.relative_to(PROJECT).as_posix()
    for file in UNIT.glob("test_*.py")
    if not re.search(r"^(from|import) airgate\b", file.read_text("utf-8"), re.MULTILINE)
)


def test_every_module_of_the_core_has_tables() -> None:
    """Or the selection above has left something out."""
    core = {module.stem for module in (PROJECT / "src").glob("*.py")} - {"worker", "model"}
    assert {f"tests/unit/test_{name}.py" for name in core} <= set(TABLES)


@pytest.mark.parametrize(
    ("pyodide", "python"),
    [("pyodide-313", "3.13"), ("pyodide-314", "3.14")],
    ids=["python 3.13", "python 3.14"],
)
def test_tables(pyodide: str, python: str, tmp_path: Path) -> None:
    settings = {
        "pyodide": pyodide,
        "project": str(PROJECT),
        "packages": sysconfig.get_path("purelib"),
        "out": str(tmp_path),
        "arguments": ["-q", "-p", "no:cacheprovider", "--junitxml=/out/results.xml", *TABLES],
    }
    done = subprocess.run(
        [str(node()), str(HERE / "tables.mjs"), json.dumps(settings)],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    [suite] = ET.parse(tmp_path / "results.xml").getroot()
    ran = {case.get("classname", "").rpartition(".")[2] for case in suite.iter("testcase")}
    assert ran == {Path(table).stem for table in TABLES}
    assert suite.get("skipped") == "0"
