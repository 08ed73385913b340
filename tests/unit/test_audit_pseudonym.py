"""`airgate audit pseudonym`: the command finds the name that the gate writes."""

import pytest
from typer.testing import CliRunner

from airgate.cli import app
from airgate.engine import Identity
from audit import describe
from model import Caller
from pseudonym import KEY, read_names

SECRET = "0123456789abcdef" * 2


def test_it_is_the_name_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET + "\n")
    done = CliRunner().invoke(app, ["audit", "pseudonym", "company", "jörg@example.com"])
    assert done.exit_code == 0, done.output
    identity = Identity("company", "jörg@example.com", "human", frozenset(), {})
    written = describe(Caller(identity, None, frozenset(), {}), read_names("pseudonym", SECRET))
    assert f'"subject":"{done.output.strip()}"' in written
    assert "example.com" not in written


@pytest.mark.parametrize("key", [None, "short"])
def test_without_the_key_it_says_which_it_wants(monkeypatch: pytest.MonkeyPatch, key: str | None) -> None:
    monkeypatch.delenv(KEY, raising=False)
    if key is not None:
        monkeypatch.setenv(KEY, key)
    done = CliRunner().invoke(app, ["audit", "pseudonym", "company", "x"])
    assert done.exit_code == 2
    assert KEY in done.output
