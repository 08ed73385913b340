"""Signing keys: what is made, read, trusted and shown; whose signatures the gate's own code accepts."""

import asyncio
import json
import stat
import time
import tomllib
from pathlib import Path
from typing import Any

import jwt
import pytest
from typer.testing import CliRunner
from world import ABSENT, without

from airgate.issuer.signature import verify
from airgate.keys import app
from airgate.keys.variable import with_variable
from airgate.signing_key import KeyMissing, SigningKey
from trust import ACT, POINTER, Signed, Untrusted, read_trusted, signer

TOML = """name = "airgate" # the Worker
main = "src/worker.py"

[vars] # told to the Worker
GATE = "airgate"
TRUSTED_KEYS = ""
ADDRESS = ""

[[kv_namespaces]]
binding = "POLICY"

[env.staging]
name = "airgate-staging"

[env.staging.vars]
GATE = "airgate-staging"
"""


def keys(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wrangler.toml that counts."""
    file = tmp_path / "wrangler.toml"
    file.write_text(TOML, "utf-8")
    monkeypatch.setenv("AIRGATE_CONFIG", str(file))
    monkeypatch.delenv("AIRGATE_KEY", raising=False)
    monkeypatch.delenv("AIRGATE_KEY_JSON", raising=False)
    return file


@pytest.fixture
def file(tmp_path: Path, toml: Path) -> Path:
    """A key that may publish."""
    made = tmp_path / "signing-key.json"
    assert keys("new", "--name", "release pipeline", "--may", "publish", "--out", made)[0] == 0
    return made


def variable(toml: Path, env: str | None = None) -> str:
    settings = tomllib.loads(toml.read_text("utf-8"))
    section = settings if env is None else settings["env"][env]
    return str(section["vars"].get("TRUSTED_KEYS", ""))


def who(signed: Signed, kind: str, right: str, trusted: str) -> str:
    """The name of who signed, as the gate has it. Raises Untrusted."""
    return asyncio.run(signer(signed, kind, right, read_trusted(trusted), verify)).name


def signed(file: Path, kind: str = POINTER) -> Signed:
    key = SigningKey.read(file)
    return Signed("{}", key.kid, key.sign(kind, "{}"))


def test_the_gate_believes_what_a_trusted_key_has_signed(file: Path, toml: Path) -> None:
    assert keys("trust", file, "--write")[0] == 0
    assert who(signed(file), POINTER, "publish", variable(toml)) == "release pipeline"
    for document, kind, right in (
        (signed(file, ACT), POINTER, "publish"),  # signed as something else
        (signed(file, ACT), ACT, "grant"),  # what it may not
        (signed(file)._replace(document="{ }"), POINTER, "publish"),
        (signed(file)._replace(key="other"), POINTER, "publish"),
    ):
        with pytest.raises(Untrusted):
            who(document, kind, right, variable(toml))


def test_a_key_signs_as_an_independent_library_does(file: Path) -> None:
    key, jwk = SigningKey.read(file), json.loads(file.read_text("utf-8"))
    private = jwt.PyJWK({**jwk, "alg": "EdDSA"}).key
    covered = b"DSSEv1 5 t/key 9 docum\xc3\xa9nt"
    assert key.sign("t/key", "documént") == jwt.utils.base64url_encode(private.sign(covered)).decode()


def test_only_its_owner_can_read_it(file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "chmod" not in keys("show", file)[1]
    file.chmod(0o644)
    assert f"chmod 600 {file}" in keys("show", file)[1]


def test_nothing_is_overwritten(file: Path) -> None:
    before = file.read_bytes()
    code, output = keys("new", "--name", "other", "--may", "grant", "--out", file)
    assert code == 2
    assert "is there already, and is left as it is" in output
    assert file.read_bytes() == before


def test_nothing_private_is_printed_but_where_it_is_asked_for(file: Path) -> None:
    private = json.loads(file.read_text("utf-8"))["d"]
    for arguments in (
        ["show", file],
        ["show", file, "--public"],
        ["trust", file],
        ["trust", file, "--write"],
    ):
        code, output = keys(*arguments)
        assert code == 0
        assert private not in output
    code, output = keys("new", "--name", "x", "--may", "grant", "--out", "-")
    assert code == 0
    assert "d" in json.loads(output)


def test_a_key_s_purposes_and_name(tmp_path: Path, toml: Path) -> None:
    both = tmp_path / "both.json"
    assert keys("new", "--name", "on call", "--may", "grant", "--may", "publish", "--out", both)[0] == 0
    key = SigningKey.read(both)
    assert (key.name, key.may) == ("on call", ("publish", "grant"))
    assert abs(time.time() - (key.made_at or 0)) < 60
    for name in ("", " on call", "x" * 81, "a\x1b[31m", "a\nb"):
        code, _ = keys("new", "--name", name, "--may", "grant", "--out", tmp_path / "other.json")
        assert code == 2
    assert keys("new", "--name", "x", "--may", "everything", "--out", tmp_path / "other.json")[0] == 2
    assert keys("new", "--name", "x", "--out", tmp_path / "other.json")[0] == 2
    assert not (tmp_path / "other.json").exists()


def test_where_the_key_is_looked_for(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SigningKey.given() is None
    with pytest.raises(KeyMissing, match="AIRGATE_KEY"):
        SigningKey.read()
    monkeypatch.setenv("AIRGATE_KEY_JSON", SigningKey.new("from the text", ["grant"]).text)
    assert SigningKey.read().name == "from the text"
    monkeypatch.setenv("AIRGATE_KEY", str(file))
    assert SigningKey.read().name == "release pipeline"
    other = tmp_path / "other.json"
    other.write_text(SigningKey.new("from the option", ["grant"]).text, "utf-8")
    assert SigningKey.read(other).name == "from the option"
    monkeypatch.setenv("AIRGATE_KEY", str(tmp_path / "nowhere.json"))
    with pytest.raises(KeyMissing, match="no such file"):  # never silently unsigned
        SigningKey.given()


GOOD: dict[str, Any] = json.loads(SigningKey.new("good", ["publish"]).text)
UNUSABLE = [
    pytest.param("hunter2", "isn't one JSON object", id="not JSON"),
    pytest.param("[]", "isn't one JSON object", id="a list"),
    pytest.param(
        '{"issuer":"https://gate.example.com","keys":[{"d":"hunter2"}]}',
        "assertion keys",
        id="assertion keys",
    ),
    pytest.param(json.dumps(without(GOOD, d=ABSENT)), "no private key", id="only the public part"),
    pytest.param(json.dumps(without(GOOD, d="hunter2")), "not a key", id="half a key"),
    pytest.param(
        json.dumps(without(GOOD, x=SigningKey.new("b", ["grant"]).public["x"])), "not", id="two keys"
    ),
    pytest.param(json.dumps(without(GOOD, crv="X25519")), "not a key", id="another curve"),
    pytest.param(json.dumps(without(GOOD, may=["all"])), "may is not", id="an unknown purpose"),
    pytest.param(json.dumps(without(GOOD, may=[])), "may is not", id="no purpose"),
    pytest.param(json.dumps(without(GOOD, name=ABSENT)), "name is not", id="no name"),
    pytest.param(json.dumps(without(GOOD, kid=ABSENT)), "kid", id="no id"),
]


@pytest.mark.parametrize(("text", "said"), UNUSABLE)
def test_a_file_that_holds_no_signing_key(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "key.json"
    file.write_text(text, "utf-8")
    with pytest.raises(KeyMissing) as caught:
        SigningKey.read(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert GOOD["d"] not in str(caught.value)


def test_a_key_that_is_not_there(tmp_path: Path, toml: Path) -> None:
    for command in (["show"], ["trust"]):
        code, output = keys(*command, tmp_path / "nowhere.json")
        assert code == 2
        assert "airgate keys new" in output
        assert keys(*command, tmp_path)[0] == 2


def test_a_key_s_text_and_values_are_not_in_its_repr() -> None:
    assert GOOD["d"] not in repr(SigningKey.new("x", ["grant"]))
    key = SigningKey.new("x", ["grant"])
    assert json.loads(key.text)["d"] not in repr(key)


def test_trust_is_only_printed_unless_it_is_to_be_written(file: Path, toml: Path) -> None:
    code, output = keys("trust", file)
    assert (code, toml.read_text("utf-8")) == (0, TOML)
    (text,) = [output[output.index("TRUSTED_KEYS = ") : output.rindex("'''") + 3]]
    printed = tomllib.loads(text)["TRUSTED_KEYS"]
    assert list(read_trusted(printed)) == [SigningKey.read(file).kid]
    assert keys("trust", file, "--write")[0] == 0
    assert variable(toml) == printed


def test_trust_leaves_everything_else_of_the_file_as_it_is(file: Path, toml: Path) -> None:
    assert keys("trust", file, "--write")[0] == 0
    lines = toml.read_text("utf-8").splitlines()
    kept = [line for line in TOML.splitlines() if not line.startswith("TRUSTED_KEYS")]
    assert [line for line in lines if line in kept] == kept
    assert tomllib.loads(toml.read_text("utf-8"))["vars"]["ADDRESS"] == ""
    assert keys("trust", file, "--env", "staging", "--write")[0] == 0
    assert variable(toml) == variable(toml, "staging")
    assert "production, staging" in keys("show", file)[1]
    kid = SigningKey.read(file).kid
    assert keys("trust", "--remove", kid, "--write")[0] == 0
    assert keys("trust", "--remove", kid, "--env", "staging", "--write")[0] == 0
    assert toml.read_text("utf-8") == TOML.replace(
        "[env.staging.vars]\n", '[env.staging.vars]\nTRUSTED_KEYS = ""\n'
    )


def test_keys_are_rotated_one_beside_the_other(file: Path, tmp_path: Path, toml: Path) -> None:
    second, public = tmp_path / "second.json", tmp_path / "second.public.json"
    assert keys("new", "--name", "o'hara", "--may", "publish", "--out", second)[0] == 0
    keys("trust", file, "--write")
    public.write_text(keys("show", second, "--public")[1], "utf-8")  # the private part stays where it is
    assert keys("trust", public, "--write")[0] == 0
    for key in (file, second):
        assert who(signed(key), POINTER, "publish", variable(toml))
    assert keys("trust", public, "--write")[0] == 0  # once more changes nothing
    assert len(read_trusted(variable(toml))) == 2
    code, output = keys("trust", "--remove", SigningKey.read(file).kid, "--write")
    assert code == 0
    assert output.index("publish once more with a key that stays") < output.index("airgate deploy")
    assert who(signed(second), POINTER, "publish", variable(toml)) == "o'hara"
    with pytest.raises(Untrusted):
        who(signed(file), POINTER, "publish", variable(toml))


def test_what_a_removed_key_has_granted_ends(toml: Path, tmp_path: Path) -> None:
    granting = tmp_path / "granting.json"
    keys("new", "--name", "on call", "--may", "grant", "--out", granting)
    keys("trust", granting, "--write")
    output = keys("trust", "--remove", SigningKey.read(granting).kid)[1]
    assert "airgate grant list" in output
    assert "publish once more" not in output


def test_who_is_trusted_now(file: Path, toml: Path) -> None:
    assert "trusts nobody" in keys("trust")[1]
    keys("trust", file, "--write")
    code, output = keys("trust")
    assert code == 0
    assert "release pipeline" in output
    assert "airgate deploy" not in output


REFUSED = [
    pytest.param(["--remove", "{kid}x"], "is not trusted; did you mean", id="a misspelt id"),
    pytest.param(["--env", "local"], "a key of its own", id="the local stack"),
    pytest.param(["--env", "prod"], "production", id="an unknown environment"),
    pytest.param(["{toml}"], "isn't one JSON object", id="another file"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED)
def test_what_can_not_be_trusted(file: Path, toml: Path, arguments: list[str], said: str) -> None:
    keys("trust", file, "--write")
    before = toml.read_text("utf-8")
    kid = SigningKey.read(file).kid
    code, output = keys("trust", *[each.format(kid=kid, toml=toml) for each in arguments], "--write")
    assert code == 2
    assert said in output
    assert toml.read_text("utf-8") == before


def test_the_file_keeps_its_line_ends_and_permissions_and_is_written_as_a_whole(
    file: Path, toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml.write_bytes(TOML.replace("\n", "\r\n").encode())
    toml.chmod(0o664)
    before = toml.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        code, output = keys("trust", file, "--write")
    assert (code, toml.read_bytes()) == (2, before)
    assert "No space left on device" in output
    assert sorted(path.name for path in toml.parent.iterdir()) == ["signing-key.json", "wrangler.toml"]
    assert keys("trust", file, "--write")[0] == 0
    assert b'main = "src/worker.py"\r\n' in toml.read_bytes()
    assert stat.S_IMODE(toml.stat().st_mode) == 0o664
    assert len(read_trusted(variable(toml))) == 1


def test_no_more_keys_than_a_gate_reads(toml: Path, tmp_path: Path) -> None:
    files = []
    for number in range(17):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(SigningKey.new(f"key {number}", ["publish"]).text, "utf-8")
    assert keys("trust", *files[:16], "--write")[0] == 0
    assert len(read_trusted(variable(toml))) == 16
    before = toml.read_text("utf-8")
    code, output = keys("trust", files[16], "--write")
    assert code == 2
    assert "--remove KID" in output
    assert toml.read_text("utf-8") == before


FILES = [
    pytest.param("[vars]\nA = 1\n", "[vars]\n", id="first of a table"),
    pytest.param("name = 'x'\n", "\n[vars]\n", id="a table that isn't there"),
    pytest.param("[vars]\nTRUSTED_KEYS = '''\n{\"keys\":[\n]}\n'''\n[other]\n", "[other]", id="many lines"),
    pytest.param('[vars]\nTRUSTED_KEYS = "{\\"keys\\":[]}" # old\n', "# old", id="escaped"),
    pytest.param("[vars]\nTRUSTED_KEYS = '{}'\nB = 2\n", "B = 2", id="one line"),
]


@pytest.mark.parametrize(("before", "kept"), FILES)
def test_a_variable_is_set_where_it_stands(before: str, kept: str) -> None:
    after = with_variable(before, None, "TRUSTED_KEYS", '\n{"keys":[1]}\n')
    assert tomllib.loads(after)["vars"]["TRUSTED_KEYS"] == '{"keys":[1]}\n'
    assert kept in after
    assert after.count("TRUSTED_KEYS") == 1


def test_a_file_that_is_written_otherwise_is_left_to_a_person() -> None:
    for text in ("vars = { GATE = 'x' }\n", "vars.GATE = 'x'\n", "[env.a]\nvars = { GATE = 'x' }\n"):
        with pytest.raises(ValueError, match="by hand"):
            with_variable(text, "a" if "env" in text else None, "TRUSTED_KEYS", "\n{}\n")
