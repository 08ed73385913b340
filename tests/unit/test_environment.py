"""Environments: what is asked of wrangler, how its answers are read, and what is said where nothing can be asked."""

import json
import re
import shlex
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from airgate import configuration, environment
from airgate.environment import (
    Conflict,
    EnvironmentMissing,
    LocalStores,
    by_hand,
    confirm,
    open_environment,
    quote,
    read_all,
)
from airgate.node import WranglerFailed
from airgate.signing_key import SigningKey

KEY = SigningKey.new("release pipeline", ["publish"])
ID, DATABASE = "1" * 32, "22222222-2222-2222-2222-222222222222"
TOML = f"""
name = "airgate"
[[kv_namespaces]]
binding = "POLICY"
id = "{ID}"
[[d1_databases]]
binding = "STATE"
database_name = "airgate"
database_id = "{DATABASE}"
[vars]
GATE = "airgate"
TRUSTED_KEYS = '''{json.dumps({"keys": [KEY.public]})}'''
ADDRESS = "https://gate.example.com/"
[env.staging.vars]
GATE = "airgate-staging"
"""


class Wrangler:
    """What was run, and what it answers: a text, or an error."""

    def __init__(self) -> None:
        self.ran: list[Sequence[str]] = []
        self.files: list[Any] = []
        self.answers: list[str | WranglerFailed] = []

    def __call__(
        self, arguments: Sequence[str], *, home: Path | None, embedded: bool = False, **_: object
    ) -> str:
        self.ran.append(arguments)
        if arguments[:3] == ["kv", "bulk", "put"]:
            self.files.append(json.loads(Path(arguments[3]).read_text("utf-8")))
        answer = self.answers.pop(0) if self.answers else "[]"
        if isinstance(answer, WranglerFailed):
            raise answer
        return answer


@pytest.fixture
def wrangler(monkeypatch: pytest.MonkeyPatch) -> Wrangler:
    made = Wrangler()
    monkeypatch.setattr(environment, "run_wrangler", made)
    monkeypatch.setattr(configuration, "run_wrangler", made)
    return made


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """toml(text): the wrangler.toml that counts."""

    def write(text: str) -> None:
        (tmp_path / "wrangler.toml").write_text(text, "utf-8")
        monkeypatch.setenv("AIRGATE_CONFIG", str(tmp_path / "wrangler.toml"))

    return write


@given(st.text())
def test_a_quoted_text_is_that_text_to_sqlite(text: str) -> None:
    text = text.encode("utf-8", "replace").decode("utf-8")
    with sqlite3.connect(":memory:") as database:
        [(value,)] = database.execute(f"SELECT {quote(text)}").fetchall()
    database.close()
    assert value == text


@pytest.mark.parametrize(
    "text", ["BEGIN TRANSACTION", "a;b", "it's", "--", "a--b", "/*", "?1", "", "20261121-ab12cd34"]
)
def test_what_is_quoted_holds_nothing_that_wrangler_would_take_for_sql(text: str) -> None:
    assert re.fullmatch(r"CAST\(X'[0-9a-f]*' AS TEXT\)|'[A-Za-z0-9_.-]*'", quote(text))
    assert "--" not in quote(text)


def test_production_is_the_top_level(wrangler: Wrangler, toml: Callable[[str], None], tmp_path: Path) -> None:
    toml(TOML)
    env = open_environment("production")
    assert (env.name, env.gate, env.address) == ("production", "airgate", "https://gate.example.com")
    assert env.trusted is not None
    assert env.trusted[KEY.kid].name == "release pipeline"
    wrangler.answers = ['[{"results": [{"a": 1}], "success": true}]']
    assert env.d1("SELECT 1 AS a") == [{"a": 1}]
    chosen = ["--remote", "--config", str(tmp_path / "wrangler.toml"), "--env", ""]
    assert wrangler.ran == [["d1", "execute", "STATE", "--json", "--command", "SELECT 1 AS a", *chosen]]


def test_values_are_written_in_one_command_in_their_order(
    wrangler: Wrangler, toml: Callable[[str], None]
) -> None:
    toml(TOML)
    open_environment("production").kv_put({"b": "ä\n", "a": "2"})
    assert wrangler.files == [[{"key": "b", "value": "ä\n"}, {"key": "a", "value": "2"}]]
    assert len(wrangler.ran) == 1


MISSING: list[tuple[str, str, str, str]] = [
    ("never deployed", "production", TOML.replace(ID, "0" * 32),
     r"has no id for POLICY yet, so production hasn't been deployed\. Run `airgate deploy --env production` first\."),
    ("without a database", "staging", TOML + f'[[env.staging.kv_namespaces]]\nbinding = "POLICY"\nid = "{ID}"\n',
     r"\[env\.staging\] of .+ has no id for STATE yet, so staging hasn't been deployed"),
    ("nowhere", "test", TOML, "has no environment test; there are production, staging"),
    ("with keys that nobody can read", "production", TOML.replace("TRUSTED_KEYS = '''{", "TRUSTED_KEYS = '''["),
     "TRUSTED_KEYS, at the top level of .+, can't be read, and the gate can't either: "),
    ("local, and not running", "local", TOML, r"No local stack runs in .+\. Start one with `make dev`\."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "said"), [row[1:] for row in MISSING], ids=[row[0] for row in MISSING]
)
def test_an_environment_that_is_not_ready_says_what_to_do(
    name: str,
    text: str,
    said: str,
    toml: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRGATE_DIR", str(tmp_path / "none"))
    toml(text)
    with pytest.raises(EnvironmentMissing, match=said):
        open_environment(name)


def failed(text: str) -> WranglerFailed:
    return WranglerFailed("wrangler d1 failed:\n" + json.dumps({"error": {"text": text}}, indent=2))


def test_a_row_that_stands_in_the_way_is_a_conflict(wrangler: Wrangler, tmp_path: Path) -> None:
    wrangler.answers = [failed("UNIQUE constraint failed: pointers.sequence: SQLITE_CONSTRAINT")]
    with pytest.raises(Conflict):
        LocalStores(tmp_path).d1("INSERT")


def test_what_wrangler_says_of_a_failure_is_told_without_its_braces(
    wrangler: Wrangler, tmp_path: Path
) -> None:
    wrangler.answers = [failed('no "such" thing')]
    with pytest.raises(WranglerFailed, match=r'^D1: no "such" thing$'):
        LocalStores(tmp_path).d1("SELECT")
    wrangler.answers = [WranglerFailed("wrangler d1 failed:\nno network")]
    with pytest.raises(WranglerFailed, match="no network"):
        LocalStores(tmp_path).d1("SELECT")


def test_a_local_database_gets_its_tables_when_they_are_first_asked_for(
    wrangler: Wrangler, tmp_path: Path
) -> None:
    wrangler.answers = [failed("no such table: pointers"), "done", '[{"results": []}]']
    assert LocalStores(tmp_path).d1("SELECT") == []
    assert [list(arguments[:3]) for arguments in wrangler.ran] == [
        ["d1", "execute", "STATE"],
        ["d1", "migrations", "apply"],
        ["d1", "execute", "STATE"],
    ]


def test_a_deployed_database_gets_its_tables_from_deploy(
    wrangler: Wrangler, toml: Callable[[str], None]
) -> None:
    toml(TOML)
    wrangler.answers = [failed("no such table: pointers")]
    with pytest.raises(EnvironmentMissing, match=r"lacks tables\. Run `airgate deploy --env production`"):
        open_environment("production").d1("SELECT")


VALUE = f"https://api.example.com/accounts/a/storage/kv/namespaces/{ID}/values/policy%2Fhead"
NOT_THERE = f"X Failed to fetch {VALUE} - 404: "

VALUES: list[tuple[str, str | WranglerFailed, str | None]] = [
    ("a value", "text\n", "text"),
    ("one that ends with a line break", "text\n\n", "text\n"),
    ("none, locally", "Value not found\n", None),
    ("none, at Cloudflare", WranglerFailed(NOT_THERE + "Not Found"), None),
]


@pytest.mark.parametrize(("answer", "value"), [row[1:] for row in VALUES], ids=[row[0] for row in VALUES])
def test_a_key_has_a_value_or_none(
    answer: str | WranglerFailed, value: str | None, wrangler: Wrangler, tmp_path: Path
) -> None:
    wrangler.answers = [answer]
    assert LocalStores(tmp_path).kv_get("policy/head") == value


@pytest.mark.parametrize("text", [NOT_THERE.replace("404", "403"), "namespace not found", "404"])
def test_what_fails_otherwise_is_no_missing_value(text: str, wrangler: Wrangler, tmp_path: Path) -> None:
    wrangler.answers = [WranglerFailed(text)]
    with pytest.raises(WranglerFailed):
        LocalStores(tmp_path).kv_get("policy/head")


def test_several_values_are_read_side_by_side_and_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stores = LocalStores(tmp_path)
    monkeypatch.setattr(stores, "kv_get", lambda key: None if key == "k3" else f"of {key}")
    keys = [f"k{number}" for number in range(10)]
    assert read_all(stores, keys) == {key: None if key == "k3" else f"of {key}" for key in keys}


def test_what_a_person_is_to_run_by_hand_means_the_same_database(
    toml: Callable[[str], None], tmp_path: Path
) -> None:
    toml(TOML)
    for env, where in (
        (
            open_environment("production"),
            ["--remote", "--config", str(tmp_path / "wrangler.toml"), "--env", ""],
        ),
        (LocalStores(tmp_path), ["--local", "--env", "local", "--persist-to", str(tmp_path)]),
    ):
        words = shlex.split(by_hand(env, "DELETE FROM acts WHERE id = 'a'"))
        assert words[words.index("d1") :] == [
            "d1", "execute", "STATE", *where, "--command", "DELETE FROM acts WHERE id = 'a'"
        ]  # fmt: skip


def test_the_local_stack_is_changed_without_a_question(tmp_path: Path) -> None:
    confirm(LocalStores(tmp_path), "Sure?", yes=False)


def test_elsewhere_a_person_is_asked_and_no_means_no(monkeypatch: pytest.MonkeyPatch) -> None:
    env: Any = SimpleNamespace(name="production")
    confirm(env, "Sure?", yes=True)
    with pytest.raises(typer.Exit) as refused:
        confirm(env, "Sure?", yes=False)  # no terminal
    assert refused.value.exit_code == 3
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    for answer, code in ((True, None), (False, 3)):
        monkeypatch.setattr(typer, "confirm", lambda what, answer=answer: answer)
        if code is None:
            confirm(env, "Sure?", yes=False)
        else:
            with pytest.raises(typer.Exit) as refused:
                confirm(env, "Sure?", yes=False)
            assert refused.value.exit_code == code
