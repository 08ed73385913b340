"""`airgate keys assertion`: what is made, what signs after each step, what is published, refused, and never shown."""

import json
import re
import stat
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from test_assertion import DECISION, caller
from typer.testing import CliRunner
from world import ABSENT, run, without

from airgate.keys.assertion import app
from assertion import AssertionKeys, assertion, read_keys
from signing import SigningKey

ISSUER = "https://gate.example.com"


def keys(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    return done.exit_code, done.output


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with one key."""
    path = tmp_path / "keys.json"
    assert keys("new", "--issuer", ISSUER, "--out", path)[0] == 0
    return path


def held(file: Path) -> AssertionKeys:
    """As the gate reads it."""
    return read_keys(file.read_text("utf-8"))


def jwks(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))["keys"]
    return found


def published(file: Path) -> list[str]:
    return [jwk["kid"] for jwk in json.loads(held(file).jwks)["keys"]]


def private(file: Path) -> list[str]:
    return [jwk["kid"] for jwk in jwks(file) if "d" in jwk]


async def sign(key: SigningKey, data: bytes) -> bytes:
    """WebCrypto's part."""
    loaded = jwt.PyJWK(key.jwk, key.algorithm).key
    if key.algorithm == "EdDSA":
        done: bytes = loaded.sign(data)
        return done
    pair = decode_dss_signature(loaded.sign(data, ec.ECDSA(SHA256())))
    return b"".join([number.to_bytes(32, "big") for number in pair])


def check(text: str, document: str, upstream: str = "ledger") -> dict[str, Any]:
    """As docs/assertion.md says: with the keys that the gate publishes."""
    header = jwt.get_unverified_header(text)
    if header["typ"] != "airgate-assertion+jwt":
        raise jwt.InvalidTokenError("another kind of token")
    key = jwt.PyJWKSet.from_json(document)[header["kid"]]
    required = ["iss", "aud", "sub", "iat", "exp", "jti"]
    return jwt.decode(
        text,
        key,
        ["ES256", "EdDSA"],
        audience=upstream,
        issuer=ISSUER,
        leeway=5,
        options={"require": required},
    )


def assert_by(file: Path) -> str:
    text = run(assertion(held(file), caller(), DECISION, "ledger", "f" * 32, time.time(), sign))
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_a_new_key_signs_what_the_published_one_verifies(tmp_path: Path, algorithm: str) -> None:
    file = tmp_path / "keys.json"
    code, output = keys("new", "--issuer", ISSUER, "--algorithm", algorithm, "--out", file)
    assert code == 0
    assert f"npx wrangler secret put ASSERTION_KEYS < {file}" in output
    assert f"{ISSUER}/-/jwks.json" in output
    assert held(file).key.algorithm == algorithm
    claims = check(assert_by(file), held(file).jwks)
    assert (claims["sub"], claims["airgate"]["roles"]) == ("etl", ["publisher", "reader"])
    with pytest.raises(jwt.InvalidAudienceError):
        check(assert_by(file), held(file).jwks, "crm")


def test_only_its_owner_can_read_it(file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    assert f"chmod 600 {file}" in keys("show", file)[1]
    keys("rotate", file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "chmod" not in keys("show", file)[1]
    assert [path.name for path in file.parent.iterdir()] == [file.name]  # nothing is left beside it


def test_nothing_private_is_printed_but_where_it_is_asked_for(file: Path) -> None:
    printed = keys("show", file)[1]
    for arguments in (["rotate", file], ["rotate", file, "--announce"], ["rotate", file], ["retire", file]):
        secrets = [jwk["d"] for jwk in jwks(file) if "d" in jwk]
        code, output = keys(*arguments)
        printed += output + keys("show", file)[1]
        assert code == 0
        secrets += [jwk["d"] for jwk in jwks(file) if "d" in jwk]
        assert not [secret for secret in secrets if secret in printed]
    code, output = keys("new", "--issuer", ISSUER, "--out", "-")
    assert code == 0
    assert read_keys(output).key.jwk["d"] in output


def test_rotation_keeps_what_was_signed_before(file: Path) -> None:
    before, (first,) = assert_by(file), published(file)
    code, output = keys("rotate", file)
    assert code == 0
    second, other = published(file)
    assert (other, held(file).key.kid, private(file)) == (first, second, [second, first])
    assert f"{second} signs from now on; {first} stays published" in output
    assert f"npx wrangler secret put ASSERTION_KEYS < {file}" in output
    for text in (before, assert_by(file)):
        assert check(text, held(file).jwks)["sub"] == "etl"
    # First the old one can't sign any more; in a second step it is gone.
    assert keys("retire", file)[0] == 0
    assert (published(file), private(file)) == ([second, first], [second])
    assert check(before, held(file).jwks)["sub"] == "etl"
    assert keys("retire", file)[0] == 0
    assert (published(file), private(file)) == ([second], [second])
    with pytest.raises(KeyError):
        check(before, held(file).jwks)


def test_a_key_that_is_published_before_it_signs(file: Path) -> None:
    (first,) = published(file)
    old = held(file).jwks
    assert keys("rotate", file, "--announce", "--algorithm", "EdDSA")[0] == 0
    signing, announced = published(file)
    assert (signing, held(file).key.kid) == (first, first)
    assert check(assert_by(file), old)["sub"] == "etl"  # who has the keys of before needs no others
    between = held(file).jwks
    assert keys("rotate", file)[0] == 0
    assert (published(file), held(file).key.kid) == ([announced, first], announced)
    assert check(assert_by(file), between)["sub"] == "etl"


def test_the_new_key_is_of_the_old_one_s_algorithm_unless_another_is_asked_for(file: Path) -> None:
    for asked, expected in ((None, "ES256"), ("EdDSA", "EdDSA"), (None, "EdDSA"), ("ES256", "ES256")):
        assert keys("rotate", file, *(["--algorithm", asked] if asked else []))[0] == 0
        assert held(file).key.algorithm == expected


def test_one_key_is_retired_by_its_id(file: Path) -> None:
    (first,) = published(file)
    keys("rotate", file)
    second = published(file)[0]
    keys("rotate", file)
    assert keys("retire", file, "--kid", second)[0] == 0
    assert first in private(file)
    assert second not in private(file)
    assert keys("retire", file, "--kid", second)[0] == 0
    assert second not in published(file)
    assert first in private(file)


def test_an_announced_key_can_be_taken_back(file: Path) -> None:
    keys("rotate", file, "--announce")
    first, announced = published(file)
    assert keys("retire", file)[0] == 2
    assert keys("retire", file, "--kid", announced)[0] == 0
    assert published(file) == [first]


def test_what_is_shown(file: Path) -> None:
    text = json.loads(file.read_text("utf-8"))
    text["keys"][0]["iat"] -= 10 * 86_400
    file.write_text(json.dumps(text), "utf-8")
    keys("rotate", file)
    keys("rotate", file, "--announce")
    code, output = keys("show", file)
    assert code == 0
    assert output.splitlines()[:2] == [ISSUER, f"keys at {ISSUER}/-/jwks.json"]
    rows = {row.split()[0]: row for row in output.splitlines()[4:] if row}
    assert list(rows) == published(file)
    for row, words in zip(rows.values(), ("signs", "announced", "replaced"), strict=True):
        assert words in row
    assert "10 days" in rows[published(file)[2]]
    assert held(file).key.thumbprint in rows[published(file)[0]]


def test_keys_made_by_other_means_are_shown_too(file: Path) -> None:
    text = json.loads(file.read_text("utf-8"))
    text["keys"] = [without(text["keys"][0], iat=iat) for iat in (ABSENT, "soon", True, -1, 10**30)]
    for number, jwk in enumerate(text["keys"]):
        jwk["kid"] = f"k{number}"
    file.write_text(json.dumps(text), "utf-8")
    assert keys("show", file)[0] == 0


def test_too_many_keys(file: Path) -> None:
    for _ in range(7):
        assert keys("rotate", file)[0] == 0
    before = file.read_bytes()
    assert len(before) < 5000  # Cloudflare takes no longer secret
    code, output = keys("rotate", file)
    assert code == 2
    assert f"airgate keys assertion retire {file}" in output
    assert file.read_bytes() == before


def test_a_link_stays_one(file: Path) -> None:
    link = file.parent / "link.json"
    link.symlink_to(file)
    assert keys("rotate", link)[0] == 0
    assert link.is_symlink()
    assert len(published(file)) == 2


ISSUERS = [
    pytest.param("http://gate.example.com", "give the gate's address", id="plain http"),
    pytest.param("gate.example.com", "give the gate's address", id="no scheme"),
    pytest.param("https://", "give the gate's address", id="no host"),
    pytest.param("ftp://gate.example.com", "give the gate's address", id="another scheme"),
    pytest.param("https://gate.example.com/", "such as https://gate.example.com\n", id="a slash"),
    pytest.param("https://gate.example.com/ledger", "such as https://gate.example.com\n", id="a path"),
    pytest.param("https://gate.example.com?a", "such as https://gate.example.com\n", id="a query"),
    pytest.param("https://a:b@gate.example.com", "without slash or path", id="a user"),
]


@pytest.mark.parametrize(("issuer", "said"), ISSUERS)
def test_an_issuer_that_no_gate_has(tmp_path: Path, issuer: str, said: str) -> None:
    code, output = keys("new", "--issuer", issuer, "--out", tmp_path / "keys.json")
    assert code == 2
    assert said in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("issuer", ["http://127.0.0.1:8787", "http://localhost:8787", "http://[::1]:8787"])
def test_an_issuer_on_this_machine(tmp_path: Path, issuer: str) -> None:
    assert keys("new", "--issuer", issuer, "--out", tmp_path / "keys.json")[0] == 0
    assert held(tmp_path / "keys.json").issuer == issuer


def test_nothing_is_overwritten(file: Path) -> None:
    before = file.read_bytes()
    code, output = keys("new", "--issuer", ISSUER, "--out", file)
    assert code == 2
    assert "is there already, and is left as it is" in output
    assert file.read_bytes() == before


FILES = [
    pytest.param("hunter2", "not a JSON object", id="not JSON"),
    pytest.param("[]", "not a JSON object", id="a list"),
    pytest.param("{}", "issuer is not", id="an empty object"),
    pytest.param('{"issuer":"https://gate.example.com","keys":[]}', "keys is not a list", id="no keys"),
    pytest.param(
        '{"issuer":"https://gate.example.com","keys":[{"kid":"a","kty":"EC","d":"hunter2"}]}',
        "keys[0]",
        id="no key",
    ),
    pytest.param("\udcff", "not UTF-8", id="not text"),
]


@pytest.mark.parametrize(("text", "said"), FILES)
@pytest.mark.parametrize("command", ["rotate", "retire", "show"])
def test_a_file_that_holds_no_keys(tmp_path: Path, command: str, text: str, said: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(text, "utf-8", errors="surrogateescape")
    before = file.read_bytes()
    code, output = keys(command, file)
    assert code == 2
    assert output.startswith(f"{file}: ")
    assert said in output
    assert "hunter2" not in output
    assert file.read_bytes() == before


@pytest.mark.parametrize("command", ["rotate", "retire", "show"])
def test_a_file_that_is_not_there(tmp_path: Path, command: str) -> None:
    code, output = keys(command, tmp_path / "keys.json")
    assert code == 2
    assert "no such file. Make one: airgate keys assertion new" in output
    code, output = keys(command, tmp_path)
    assert code == 2
    assert "can't be read: Is a directory" in output


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    code, output = keys("new", "--issuer", ISSUER, "--out", tmp_path / "a" / "keys.json")
    assert code == 2
    assert "can't be written: No such file or directory" in output


REFUSED = [
    pytest.param(["retire", "--kid", "{first}x"], 'did you mean "{first}"?', id="a misspelt id"),
    pytest.param(["retire", "--kid", "nope"], "has no key nope. It has {first}.", id="an unknown id"),
    pytest.param(["retire", "--kid", "{first}"], "is what signs", id="the key that signs"),
    pytest.param(["retire"], "no key that was replaced", id="nothing to retire"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED)
def test_what_would_leave_a_gate_without_its_key(file: Path, arguments: list[str], said: str) -> None:
    before, (first,) = file.read_bytes(), published(file)
    command, *options = [argument.format(first=first) for argument in arguments]
    code, output = keys(command, file, *options)
    assert code == 2
    assert said.format(first=first) in output
    assert file.read_bytes() == before


def test_one_key_is_announced_at_a_time(file: Path) -> None:
    keys("rotate", file, "--announce")
    before = file.read_bytes()
    assert "announced already" in keys("rotate", file, "--announce")[1]
    assert "Leave --algorithm out" in keys("rotate", file, "--algorithm", "EdDSA")[1]
    assert file.read_bytes() == before


def test_a_disk_that_is_full_leaves_the_file_as_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    code, output = keys("rotate", file)
    assert code == 2
    assert "can't be written: No space left on device" in output
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def documented(document: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The function of docs/assertion.md, with this set of keys where it would fetch one."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "assertion.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    asked = []

    def fetch(client: jwt.PyJWKClient) -> Any:
        asked.append(client.uri)
        return json.loads(document)

    monkeypatch.setattr(jwt.PyJWKClient, "fetch_data", fetch)
    names: dict[str, Any] = {}
    exec(code, names)

    def caller(text: str) -> Any:
        claims = names["caller"](text)
        assert set(asked) == {f"{ISSUER}/-/jwks.json"}
        return claims

    return caller


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_the_documented_check(tmp_path: Path, algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys.json"
    keys("new", "--issuer", ISSUER, "--algorithm", algorithm, "--out", file)
    caller = documented(held(file).jwks, monkeypatch)
    text = assert_by(file)
    assert caller(text) == check(text, held(file).jwks)
    private_key = jwt.PyJWK(held(file).key.jwk, algorithm).key
    header, claims = jwt.get_unverified_header(text), jwt.decode(text, options={"verify_signature": False})
    forged = {
        "another service's": jwt.encode({**claims, "aud": "crm"}, private_key, algorithm, header),
        "another gate's": jwt.encode(
            {**claims, "iss": "https://other.example.com"}, private_key, algorithm, header
        ),
        "old": jwt.encode({**claims, "exp": int(time.time()) - 6}, private_key, algorithm, header),
        "without an end": jwt.encode(without(claims, exp=ABSENT), private_key, algorithm, header),
        "another kind": jwt.encode(claims, private_key, algorithm, {**header, "typ": "at+jwt"}),
        "signed by nobody": jwt.encode(claims, None, "none", {**header, "alg": "none"}),
        "an unknown key's": jwt.encode(claims, private_key, algorithm, {**header, "kid": "other"}),
        "changed": text[:-8] + ("A" * 8 if text[-8:] != "A" * 8 else "B" * 8),
    }
    for token in forged.values():
        with pytest.raises(jwt.PyJWTError):
            caller(token)
