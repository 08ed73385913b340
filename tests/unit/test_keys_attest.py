"""`airgate keys attest`: the same as for assertions, in the words of those who run Airflow."""

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from airgate.cli import app

ISSUER = "https://airflow.example.com/airgate"


def keys(*arguments: str | Path) -> tuple[int, str]:
    told = ["keys", "attest", *(str(argument) for argument in arguments)]
    done = CliRunner().invoke(app, told, env={"COLUMNS": "200"})
    return done.exit_code, done.output


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with one key."""
    path = tmp_path / "keys.json"
    assert keys("new", "--issuer", ISSUER, "--out", path)[0] == 0
    return path


def jwks(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))["keys"]
    return found


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_a_new_key_comes_with_what_airflow_and_the_gate_have_to_be_told(
    tmp_path: Path, algorithm: str
) -> None:
    file = tmp_path / "keys.json"
    code, output = keys("new", "--issuer", ISSUER, "--algorithm", algorithm, "--out", file)
    assert code == 0
    (key,) = jwks(file)
    assert (key["kty"], "d" in key, key["kid"] != "") == ("EC" if algorithm == "ES256" else "OKP", True, True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert key["d"] not in output
    settings = dict(re.findall(r"^ *(\w+) = (.*)$", output, re.MULTILINE))
    assert settings == {
        "backend": "airgate_provider.backend.AirgateSecretsBackend",
        "attest": "True",
        "attest_issuer": ISSUER,
        "attest_gates": "https://gate.example.com",
        "attest_keys_file": str(file),
    }
    command = (
        "airgate issuer add airflow --base https://airflow.example.com --audience https://gate.example.com"
    )
    assert f"{command} --algorithm {algorithm}" in output


def test_a_file_that_is_named_from_here_is_told_as_airflow_can_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, output = keys("new", "--issuer", ISSUER)
    assert f"attest_keys_file = {tmp_path / 'attest-keys.json'}\n" in output


def test_printed_keys_are_all_that_is_printed() -> None:
    code, output = keys("new", "--issuer", ISSUER, "--out", "-")
    assert code == 0
    assert json.loads(output)["keys"][0]["d"]


def test_no_step_of_a_rotation_speaks_of_the_gate_s_own_secrets(file: Path) -> None:
    """Who follows such words would put Airflow's keys in place of the gate's."""
    said = keys("new", "--issuer", ISSUER, "--out", file)[1]  # refused: it is there already
    steps: list[list[str | Path]] = [
        ["rotate", file, "--announce"], ["rotate", file], ["retire", file], ["retire", file],
        ["rotate", file], ["retire", file], ["show", file],
    ]  # fmt: skip
    for step in steps:
        code, output = keys(*step)
        assert code == 0
        said += output
    said += keys("retire", file, "--kid", jwks(file)[0]["kid"])[1]
    said += keys("show", file.with_name("other.json"))[1]
    for word in ("wrangler", "ASSERTION", "assertion", "upstream"):
        assert word not in said
    assert f"airgate keys attest rotate {file}" in said
    assert f"airgate keys attest retire {file}" in said
    assert "airgate keys attest new --issuer URL" in said
    assert "attest_keys_file" in said
    assert f"keys at {ISSUER}/jwks.json" in said


def test_rotation_is_that_of_assertion_keys(file: Path) -> None:
    (first,) = jwks(file)
    assert keys("rotate", file, "--announce")[0] == 0
    old, announced = jwks(file)
    assert (old, "d" in announced) == (first, True)
    assert keys("rotate", file)[0] == 0
    assert jwks(file) == [announced, first]
    assert keys("retire", file)[0] == 0
    assert jwks(file) == [announced, {name: value for name, value in first.items() if name != "d"}]
    assert keys("retire", file)[0] == 0
    assert jwks(file) == [announced]


@pytest.mark.parametrize(
    "issuer",
    [
        pytest.param("https://airflow.example.com", id="without the path"),
        pytest.param("https://airflow.example.com/airgate/", id="a slash at the end"),
        pytest.param("https://airflow.example.com/airgate?", id="a query"),
        pytest.param("https://u@airflow.example.com/airgate", id="a user"),
        pytest.param("http://airflow.example.com/airgate", id="plain http"),
        pytest.param("airflow.example.com/airgate", id="no scheme"),
    ],
)
def test_an_issuer_that_no_airflow_can_be_is_refused(tmp_path: Path, issuer: str) -> None:
    code, output = keys("new", "--issuer", issuer, "--out", tmp_path / "keys.json")
    assert code == 2
    assert "https://airflow.example.com/airgate" in output
    assert list(tmp_path.iterdir()) == []


def test_an_issuer_may_lie_deeper_and_on_this_machine(tmp_path: Path) -> None:
    for number, issuer in enumerate(("https://example.com/airflow/airgate", "http://127.0.0.1:8080/airgate")):
        code, output = keys("new", "--issuer", issuer, "--out", tmp_path / f"{number}.json")
        assert code == 0
        assert f"--base {issuer.removesuffix('/airgate')} " in output
