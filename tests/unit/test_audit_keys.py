"""`airgate keys audit`: what is made, what verifies after each step, what is refused, and never shown."""

import json
import re
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from airgate.audit.trusted import read_keys
from airgate.keys.audit import app, new_key
from signing import read_secret

PRIVATE, PUBLIC = Path("audit-key.json"), Path("audit-keys.json")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def keys(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def private(file: Path = PRIVATE) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_the_first_key_is_one_that_the_gate_takes_and_its_public_part_one_that_verifies() -> None:
    code, output = keys("new")
    assert code == 0
    assert "npx wrangler secret put AUDIT_KEY < audit-key.json" in output
    assert stat.S_IMODE(PRIVATE.stat().st_mode) == 0o600
    key = read_secret(PRIVATE.read_text())
    assert key.algorithm == "EdDSA"
    assert list(read_keys(PUBLIC)) == [key.kid]
    assert '"d"' not in PUBLIC.read_text()
    assert private()["d"] not in output


def test_a_key_is_not_written_over() -> None:
    keys("new")
    before = PRIVATE.read_text(), PUBLIC.read_text()
    code, output = keys("new")
    assert code == 2
    assert "airgate keys audit rotate --key audit-key.json" in output
    assert (PRIVATE.read_text(), PUBLIC.read_text()) == before


def test_another_gate_has_its_own_private_key_and_shares_the_public_file() -> None:
    keys("new")
    assert keys("new", "--key", "audit-key-staging.json")[0] == 0
    assert list(read_keys(PUBLIC)) == [private()["kid"], private(Path("audit-key-staging.json"))["kid"]]


def test_after_a_rotation_both_keys_verify_and_the_new_one_signs() -> None:
    keys("new")
    old = private()["kid"]
    code, output = keys("rotate")
    assert code == 0
    assert f"airgate keys audit retire {old}" in output
    assert private()["kid"] != old
    assert stat.S_IMODE(PRIVATE.stat().st_mode) == 0o600
    assert {kid: key.until for kid, key in read_keys(PUBLIC).items()} == {old: None, private()["kid"]: None}


def test_a_rotation_works_without_the_old_private_key() -> None:
    keys("new")
    old = private()["kid"]
    PRIVATE.unlink()
    code, output = keys("rotate")
    assert code == 0
    assert f"airgate keys audit retire {old}" in output
    assert stat.S_IMODE(PRIVATE.stat().st_mode) == 0o600


def test_a_retired_key_stays_in_the_file_with_the_moment() -> None:
    keys("new")
    old = private()["kid"]
    keys("rotate")
    assert keys("retire", old)[0] == 0
    until = read_keys(PUBLIC)[old].until
    assert until is not None
    assert abs(until - time.time()) < 30
    assert read_keys(PUBLIC)[private()["kid"]].until is None


def test_the_moment_of_retirement_can_be_made_earlier_and_not_later() -> None:
    text, key = new_key(now=1_000_000_000)
    PUBLIC.write_text(json.dumps({"keys": [key.jwk]}))
    assert keys("retire", key.kid, "--until", "2020-01-01T00:00Z")[0] == 0
    code, output = keys("retire", key.kid, "--until", "2021-01-01T00:00Z")
    assert (code, "can be made earlier, not later" in output) == (2, True)
    assert keys("retire", key.kid, "--until", "2019-01-01T00:00Z")[0] == 0
    assert read_keys(PUBLIC)[key.kid].until == 1_546_300_800
    assert text


REFUSED = {
    "the key that signs": (["retire", "OWN"], "First: airgate keys audit rotate"),
    "a key that isn't there": (["retire", "nobody"], "has no key nobody"),
    "a day without its hour": (["retire", "OLD", "--until", "2026-11-22"], "says no time of day"),
    "before it was made": (["retire", "OLD", "--until", "2001-11-22T08:00Z"], "was made at"),
    "no public file": (["rotate", "--keys", "none.json"], "airgate keys audit new --keys none.json"),
    "a private file as the public one": (["show", "--keys", "audit-key.json"], "holds the private key"),
    "a public file as the private one": (["rotate", "--key", "audit-keys.json"], "not a private audit key"),
    "a folder": (["new", "--key", "."], "is there already"),
    "nowhere": (["new", "--key", "none/a.json"], "can't be written"),
    "a public file nowhere": (["new", "--key", "b.json", "--keys", "none/a.json"], "can't be written"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_makes_no_sense_changes_nothing_and_says_what_would(what: str) -> None:
    keys("new")
    old = private()["kid"]
    keys("rotate")
    before = {file.name: file.read_text() for file in Path().iterdir()}
    arguments, said = REFUSED[what]
    code, output = keys(*({"OWN": private()["kid"], "OLD": old}.get(each, each) for each in arguments))
    assert code == 2
    assert said in output
    assert {file.name: file.read_text() for file in Path().iterdir()} == before
    assert private()["d"] not in output


def test_what_is_shown_holds_nothing_private() -> None:
    keys("new")
    old = private()["kid"]
    keys("rotate")
    keys("retire", old)
    keys("new", "--key", "audit-key-b.json")
    code, output = keys("show")
    assert code == 0
    assert re.search(rf"{old} +retired", output)
    assert re.search(rf"{private()['kid']} +in audit-key\.json", output)
    assert private()["d"] not in output


def test_a_private_file_that_others_can_read_is_told() -> None:
    keys("new")
    PRIVATE.chmod(0o644)
    assert "chmod 600 audit-key.json" in keys("show")[1]


def test_a_private_key_whose_public_part_is_lost_is_told() -> None:
    keys("new")
    keys("new", "--key", "other.json", "--keys", "other-keys.json")
    assert "nothing that it signs is verified" in keys("show", "--key", "other.json")[1]


def test_no_id_of_a_key_looks_like_an_option() -> None:
    assert not any(new_key()[1].kid.startswith("-") for _ in range(300))
