"""The settings of the issuer and its keys: what is refused and how it is named, what is published, how keys rotate."""

import json
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from airgate_provider import attest_keys, compat
from airgate_provider.attest_keys import AttestInvalid

ISSUER = "https://airflow.example.com/airgate"
AUDIENCE = "https://gate.example.com"


def rsa_key(bits: int = 2048) -> dict[str, Any]:
    return RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, bits), as_dict=True)


def ec_key(curve: Any = ec.SECP256R1) -> dict[str, Any]:
    return ECAlgorithm.to_jwk(ec.generate_private_key(curve()), as_dict=True)


def okp_key() -> dict[str, Any]:
    return OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate(), as_dict=True)


MAKERS: dict[str, Callable[[], dict[str, Any]]] = {"RS256": rsa_key, "ES256": ec_key, "EdDSA": okp_key}


def key(kid: str, algorithm: str = "ES256", **more: Any) -> dict[str, Any]:
    """A private JWK."""
    made = MAKERS[algorithm]()
    made.pop("key_ops", None)
    return {**made, "kid": kid, **more}


def public(jwk: dict[str, Any]) -> dict[str, Any]:
    return {name: jwk[name] for name in ("kid", "kty", "crv", "x", "y", "n", "e") if name in jwk}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    attest_keys.forget()
    yield
    attest_keys.forget()


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """configured(attest_…="…"): everything right, but for what is given; None takes a setting away."""

    def configure(**given: str | None) -> None:
        values = {
            "attest": "True",
            "attest_issuer": ISSUER,
            "attest_audience": AUDIENCE,
            "attest_keys": json.dumps({"keys": [key("one")]}) if "attest_keys_file" not in given else None,
            **given,
        }
        for name, value in values.items():
            variable = f"AIRFLOW__AIRGATE__{name.upper()}"
            if value is None:
                monkeypatch.delenv(variable, raising=False)
            else:
                monkeypatch.setenv(variable, value)

    return configure


def keys_of(*members: Any) -> str:
    return json.dumps({"keys": list(members)})


@pytest.mark.parametrize(
    ("given", "names", "says"),
    [
        pytest.param({"attest": "perhaps"}, "attest", "True or False", id="a switch that is none"),
        pytest.param({"attest_issuer": None}, "attest_issuer", "is missing", id="no issuer"),
        pytest.param(
            {"attest_issuer": "airflow"}, "attest_issuer", "no address", id="an issuer without a host"
        ),
        pytest.param({"attest_issuer": ISSUER + "/"}, "attest_issuer", "/airgate", id="a slash at the end"),
        pytest.param({"attest_issuer": "https://a.example.com"}, "attest_issuer", "/airgate", id="no mount"),
        pytest.param({"attest_issuer": ISSUER + "?"}, "attest_issuer", "/airgate", id="a query"),
        pytest.param(
            {"attest_issuer": "https://u@a.example.com/airgate"}, "attest_issuer", "no address", id="a user"
        ),
        pytest.param(
            {"attest_issuer": "http://a.example.com/airgate"}, "attest_issuer", "https://", id="plain http"
        ),
        pytest.param({"attest_audience": "a b"}, "attest_audience", "no audience", id="two audiences"),
        pytest.param({"attest_lifetime": "59"}, "attest_lifetime", "60 to 600", id="too short a life"),
        pytest.param({"attest_lifetime": "601"}, "attest_lifetime", "60 to 600", id="too long a life"),
        pytest.param(
            {"attest_lifetime": "0000003000"}, "attest_lifetime", "60 to 600", id="a long life after noughts"
        ),
        pytest.param(
            {"attest_lifetime": "5m"}, "attest_lifetime", "60 to 600", id="a life that is no number"
        ),
        *(
            pytest.param({"attest_gates": given}, "attest_gates", says, id=f"a list with {name}")
            for name, given, says in (
                ("no gate", " , ", "names no gate"),
                ("a host alone", "gate.example.com", "gate 1 is no origin"),
                ("a slash", "https://gate.example.com/", "gate 1 is no origin"),
                ("a path", "https://a.example.com, https://gate.example.com/ledger", "gate 2 is no origin"),
                ("a user", "https://u:p@gate.example.com", "gate 1 is no origin"),
                ("a star", "https://*.example.com", "gate 1 is no origin"),
                ("a port that is none", "https://gate.example.com:65536", "gate 1 is no origin"),
                ("letters that look alike", "https://g\u0430te.example.com", "gate 1 is no origin"),
                ("another scheme", "https://a.example.com ftp://gate.example.com", "gate 2 is no origin"),
                ("plain http", "http://gate.example.com", "gate 1 begins with http://"),
            )
        ),
        pytest.param({"attest_keys": None}, "attest_keys", "attest_keys_file", id="no keys"),
        pytest.param({"attest_keys": "{"}, "attest_keys", "JSON", id="keys that are no JSON"),
        pytest.param({"attest_keys": "[]"}, "attest_keys", "JSON", id="keys that are no set"),
        pytest.param({"attest_keys": '{"keys": []}'}, "attest_keys", "JSON", id="an empty set"),
        pytest.param({"attest_keys": keys_of(1)}, "attest_keys", "key 1 is no", id="a key that is no object"),
        pytest.param(
            {"attest_keys": keys_of(public(key("a")))}, "attest_keys", "private", id="public keys alone"
        ),
        pytest.param(
            {"attest_keys": keys_of(key("a"), key("a"))}, "attest_keys", "key 2 has the kid", id="a kid twice"
        ),
        pytest.param({"attest_keys": keys_of(ec_key())}, "attest_keys", 'no "kid"', id="no kid"),
        pytest.param(
            {"attest_keys": keys_of({**ec_key(ec.SECP384R1), "kid": "a"})},
            "attest_keys",
            "is none of",
            id="another curve",
        ),
        pytest.param(
            {"attest_keys": keys_of({"kty": "oct", "k": "c2VjcmV0", "kid": "a"})},
            "attest_keys",
            "is none of",
            id="a secret that both sides know",
        ),
        pytest.param(
            {"attest_keys": keys_of({**rsa_key(1024), "kid": "a"})},
            "attest_keys",
            "2048",
            id="a short RSA key",
        ),
        pytest.param(
            {"attest_keys": keys_of(key("a", alg="RS256"))}, "attest_keys", "not for ES256", id="another alg"
        ),
        pytest.param(
            {"attest_keys": keys_of(key("a", use="enc"))}, "attest_keys", "not for", id="to encrypt with"
        ),
        *(
            pytest.param(
                {"attest_keys": keys_of(key("a", algorithm) | {"x": key("b", algorithm)["x"]})},
                "attest_keys",
                "key 1",
                id=f"a private part of another key, {algorithm}",
            )
            for algorithm in ("ES256", "EdDSA")
        ),
        pytest.param(
            {"attest_keys_file": "/nowhere/keys"}, "attest_keys_file", "/nowhere/keys", id="no file"
        ),
        pytest.param(
            {"attest_keys_file": "/dev/null", "attest_keys": "{}"}, "attest_keys", "both", id="file and text"
        ),
        pytest.param({"attest_keys_file": "/dev/null"}, "attest_keys_file", "JSON", id="an empty file"),
    ],
)
def test_what_is_missing_or_wrong_is_named(
    configured: Callable[..., None], given: dict[str, str | None], names: str, says: str
) -> None:
    configured(**given)
    with pytest.raises(AttestInvalid) as raised:
        attest_keys.settings()
    assert str(raised.value).startswith(f"[airgate] {names} (AIRFLOW__AIRGATE__{names.upper()})")
    assert says in str(raised.value)
    assert raised.value.__cause__ is None
    for secret in re.findall(r'"[dk]": "([^"]+)"', given.get("attest_keys") or ""):
        assert secret not in str(raised.value)


def test_the_audience_is_one_for_all_gates_or_each_gates_own(configured: Callable[..., None]) -> None:
    gates = ("https://Gate.Example.com:443", "https://gate.example.com:8443", "https://gäte.example.com")
    configured(attest_audience=AUDIENCE)
    assert {attest_keys.settings().audience_at(gate) for gate in gates} == {AUDIENCE}
    for unset in (None, ""):
        configured(attest_audience=unset)
        attest_keys.forget()
        assert [attest_keys.settings().audience_at(gate) for gate in gates] == [
            "https://gate.example.com",
            "https://gate.example.com:8443",
            "https://gäte.example.com",
        ]


def test_no_gates_are_all_gates(configured: Callable[..., None]) -> None:
    for unset in (None, "", " "):
        configured(attest_gates=unset)
        attest_keys.forget()
        assert attest_keys.settings().gates == frozenset()


def test_gates_are_known_by_their_origins(configured: Callable[..., None]) -> None:
    configured(
        attest_gates=" https://Gate.Example.COM:443,HTTPS://two.example.com:8443\n https://[2001:DB8::1] ,"
        "http://127.0.0.1:80, http://localhost:8787 http://[::1]:8787"
    )
    assert attest_keys.settings().gates == {
        "https://gate.example.com",
        "https://two.example.com:8443",
        "https://[2001:db8::1]",
        "http://127.0.0.1",
        "http://localhost:8787",
        "http://[::1]:8787",
    }


def test_gates_that_can_no_longer_be_read_leave_those_of_before_in_force(
    configured: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    configured(attest_gates="https://gate.example.com")
    now = time.monotonic()
    assert attest_keys.settings().gates == {"https://gate.example.com"}
    configured(attest_gates="gate.example.com")
    monkeypatch.setattr(attest_keys.time, "monotonic", lambda: now + 31)
    with caplog.at_level(logging.ERROR):
        assert attest_keys.settings().gates == {"https://gate.example.com"}
    assert "attest_gates" in caplog.text


COMMAND = "AIRFLOW__AIRGATE__ATTEST_KEYS_CMD"


def test_airflow_takes_attest_keys_for_a_secret(configured: Callable[..., None]) -> None:
    from airflow.configuration import conf
    from airflow.providers_manager import ProvidersManager

    ProvidersManager().initialize_providers_configuration()
    assert ("airgate", "attest_keys") in conf.sensitive_config_values


def test_keys_may_come_from_a_command(
    configured: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(attest_keys=None)
    monkeypatch.setenv(COMMAND, f"echo '{keys_of(key('told'))}'")
    assert attest_keys.settings().keys.kid == "told"


@pytest.mark.parametrize("where", ["environment", "file"])
def test_what_airflow_would_find_before_a_command_is_found_before_it(
    configured: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    from airflow.providers.common.compat.sdk import conf

    ran = tmp_path / "ran"
    command = f"touch {ran}"
    set_keys = {"attest_keys_cmd": command, "attest_keys": keys_of(key("clear"))}
    if where == "environment":
        configured(attest_keys=set_keys["attest_keys"])
        monkeypatch.setenv(COMMAND, command)
    else:
        configured(attest_keys=None)
        conf.read_dict({"airgate": set_keys})
    try:
        assert attest_keys.settings().keys.kid == "clear"
        assert not ran.exists()
    finally:
        if where == "file":
            conf.remove_section("airgate")


def test_a_command_in_airflows_file_is_run(
    configured: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from airflow.providers.common.compat.sdk import conf

    (tmp_path / "keys.json").write_text(keys_of(key("told")))
    configured(attest_keys=None)
    conf.read_dict({"airgate": {"attest_keys_cmd": f"cat {tmp_path / 'keys.json'}"}})
    try:
        assert attest_keys.settings().keys.kid == "told"
    finally:
        conf.remove_section("airgate")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        pytest.param("false", "exit code 1", id="that fails"),
        pytest.param("sh -c 'echo s3cret; echo s3cret >&2; exit 7'", "exit code 7", id="that says why"),
        pytest.param("true", "prints nothing", id="that says nothing"),
        pytest.param("/nowhere/s3cret", "can't be run: FileNotFoundError", id="that is not there"),
        pytest.param("echo 's3cret", "can't be run: ValueError", id="with an open quote"),
    ],
)
def test_a_command_that_fails_is_named_and_not_quoted(
    configured: Callable[..., None], monkeypatch: pytest.MonkeyPatch, command: str, says: str
) -> None:
    configured(attest_keys=None)
    monkeypatch.setenv(COMMAND, command)
    with pytest.raises(AttestInvalid) as raised:
        attest_keys.settings()
    assert str(raised.value).startswith(f"[airgate] attest_keys_cmd ({COMMAND}) ")
    assert says in str(raised.value)
    assert "s3cret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_command_and_a_file_are_one_too_many_and_it_is_not_run(
    configured: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configured(attest_keys_file="/dev/null")
    monkeypatch.setenv(COMMAND, f"touch {tmp_path / 'ran'}")
    with pytest.raises(AttestInvalid, match="both set"):
        attest_keys.settings()
    assert list(tmp_path.iterdir()) == []


def hanging(file: Path) -> str:
    """A command that prints something, and then hangs, as does what it has started. Leaves their process ids."""
    script = f"echo s3cret; sleep 600 & echo $! $$ >> {file}; wait"
    return f"sh -c {shlex.quote(script)}"


def living(file: Path) -> list[int]:
    """Those of the processes that have not ended."""
    found = []
    for pid in map(int, file.read_text().split()):
        try:
            os.kill(pid, 0)
            state = (
                Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
                if sys.platform == "linux"
                else ""
            )
        except OSError:
            continue
        if state != "Z":
            found.append(pid)
    return found


def test_a_command_that_hangs_is_killed_with_all_that_it_has_started(
    configured: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert attest_keys.COMMAND_SECONDS == 10
    monkeypatch.setattr(attest_keys, "COMMAND_SECONDS", 0.5)
    configured(attest_keys=None)
    monkeypatch.setenv(COMMAND, hanging(tmp_path / "pids"))
    began = time.monotonic()
    with pytest.raises(AttestInvalid, match=r"attest_keys_cmd .*within 0\.5 seconds.*killed") as raised:
        attest_keys.settings()
    assert 0.5 <= time.monotonic() - began < 5
    assert "s3cret" not in str(raised.value)
    assert len((tmp_path / "pids").read_text().split()) == 2
    while living(tmp_path / "pids"):
        assert time.monotonic() - began < 5
        time.sleep(0.01)


def test_a_command_whose_pipe_is_held_by_what_has_got_away_does_not_hold_us(
    configured: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(attest_keys, "COMMAND_SECONDS", 0.5)
    configured(attest_keys=None)
    start = "import subprocess, sys; subprocess.Popen(['sleep', '5'], start_new_session=True)"
    monkeypatch.setenv(COMMAND, f"{sys.executable} -c {shlex.quote(start)}")
    began = time.monotonic()
    with pytest.raises(AttestInvalid, match="within"):
        attest_keys.settings()
    assert time.monotonic() - began < 4


def test_keys_of_before_stay_in_force_while_their_command_hangs(
    configured: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(attest_keys, "COMMAND_SECONDS", 0.3)
    configured(attest_keys=None)
    monkeypatch.setenv(COMMAND, f"echo '{keys_of(key('one'))}'")
    now = time.monotonic()
    assert attest_keys.settings().keys.kid == "one"
    monkeypatch.setenv(COMMAND, hanging(tmp_path / "pids"))
    with caplog.at_level(logging.ERROR):
        for seconds in (31, 62, 62, 62):  # it is run again after half a minute, and not for every token
            monkeypatch.setattr(attest_keys.time, "monotonic", lambda seconds=seconds: now + seconds)
            token = attest_keys.sign({"sub": "x"}, "at+jwt")
            assert jwt.get_unverified_header(token)["kid"] == "one"
    assert caplog.text.count("attest_keys_cmd") == 1
    assert "key one signs" in caplog.text
    assert len((tmp_path / "pids").read_text().splitlines()) == 2
    monkeypatch.setenv(COMMAND, f"echo '{keys_of(key('two'))}'")
    monkeypatch.setattr(attest_keys.time, "monotonic", lambda: now + 93)
    assert attest_keys.settings().keys.kid == "two"


@pytest.mark.parametrize("algorithm", list(MAKERS))
def test_what_is_signed_can_be_checked_by_what_is_published(
    configured: Callable[..., None], algorithm: str
) -> None:
    signing = key("new", algorithm)
    old = key("old", "RS256")
    configured(attest_keys=keys_of(signing, old, public(key("older", "EdDSA"))))
    token = attest_keys.sign({"iss": ISSUER, "sid": "x"}, "at+jwt")
    assert jwt.get_unverified_header(token) == {"alg": algorithm, "kid": "new", "typ": "at+jwt"}
    published = attest_keys.jwks()["keys"]
    assert [each["kid"] for each in published] == ["new", "old", "older"]
    found = jwt.PyJWK(published[0])
    assert jwt.decode(token, found.key, algorithms=[algorithm]) == {"iss": ISSUER, "sid": "x"}
    for each in published:
        assert each.keys() <= {"kty", "kid", "alg", "use", "crv", "x", "y", "n", "e"}
    document = attest_keys.metadata()
    assert document["issuer"] == ISSUER
    assert document["jwks_uri"] == f"{ISSUER}/jwks.json"
    assert document["id_token_signing_alg_values_supported"] == sorted({algorithm, "RS256", "EdDSA"})


def test_nothing_of_a_private_key_is_shown(configured: Callable[..., None]) -> None:
    signing = key("one", "RS256")
    configured(attest_keys=keys_of(signing))
    shown = repr(attest_keys.settings()) + json.dumps(attest_keys.jwks())
    for name in ("d", "p", "q", "dp", "dq", "qi"):
        assert signing[name] not in shown


def test_public_keys_before_the_first_private_one_do_not_sign(configured: Callable[..., None]) -> None:
    configured(attest_keys=keys_of(public(key("announced")), key("signing")))
    assert attest_keys.settings().keys.kid == "signing"
    assert [each["kid"] for each in attest_keys.jwks()["keys"]] == ["announced", "signing"]


def test_what_airgate_keys_attest_writes_beside_the_keys_is_not_read(
    configured: Callable[..., None], tmp_path: Path
) -> None:
    made = key("20261122-abcdefgh", iat=1795305600)
    (tmp_path / "keys.json").write_text(
        json.dumps({"issuer": "https://other.example.com", "keys": [made]}, indent=2)
    )
    configured(attest_keys_file=str(tmp_path / "keys.json"))
    assert attest_keys.metadata()["issuer"] == ISSUER
    assert [each.keys() for each in attest_keys.jwks()["keys"]] == [
        {"kty", "kid", "alg", "use", "crv", "x", "y"}
    ]


def test_a_file_that_changes_is_read_again_at_once(configured: Callable[..., None], tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    first, second = key("one"), key("two")
    file.write_text(keys_of(first))
    configured(attest_keys_file=str(file))
    before = attest_keys.sign({"sub": "x"}, "at+jwt")
    file.write_text(keys_of(second, public(first)))
    after = attest_keys.sign({"sub": "x"}, "at+jwt")
    assert [jwt.get_unverified_header(token)["kid"] for token in (before, after)] == ["one", "two"]
    published = {each["kid"]: jwt.PyJWK(each).key for each in attest_keys.jwks()["keys"]}
    for token in (before, after):  # with overlap: both can be checked
        kid = jwt.get_unverified_header(token)["kid"]
        assert jwt.decode(token, published[kid], algorithms=["ES256"]) == {"sub": "x"}


def test_a_mounted_secret_that_is_swapped_is_read_again(
    configured: Callable[..., None], tmp_path: Path
) -> None:
    """As Kubernetes does it: the file is a link through a directory that is replaced as a whole."""
    for number in ("one", "two"):
        (tmp_path / number).mkdir()
        (tmp_path / number / "keys.json").write_text(keys_of(key(number)))
        os.utime(tmp_path / number / "keys.json", (1, 1))
    (tmp_path / "data").symlink_to("one")
    configured(attest_keys_file=str(tmp_path / "data" / "keys.json"))
    assert attest_keys.settings().keys.kid == "one"
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "data")
    assert attest_keys.settings().keys.kid == "two"


def test_what_is_set_otherwise_is_read_again_every_30_seconds(
    configured: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(attest_keys=keys_of(key("one")))
    now = time.monotonic()
    assert attest_keys.settings().keys.kid == "one"
    configured(attest_keys=keys_of(key("two")), attest_lifetime="60")
    monkeypatch.setattr(attest_keys.time, "monotonic", lambda: now + 29)
    assert attest_keys.settings().keys.kid == "one"
    monkeypatch.setattr(attest_keys.time, "monotonic", lambda: now + 31)
    assert (attest_keys.settings().keys.kid, attest_keys.settings().lifetime) == ("two", 60)


@pytest.mark.parametrize(
    "broken", ["", "{", '{"keys": []}', None], ids=["empty", "no JSON", "no keys", "gone"]
)
def test_keys_that_can_no_longer_be_read_leave_those_of_before_in_force(
    configured: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str | None
) -> None:
    file = tmp_path / "keys.json"
    file.write_text(keys_of(key("one")))
    configured(attest_keys_file=str(file))
    assert attest_keys.settings().keys.kid == "one"
    if broken is None:
        file.unlink()
    else:
        file.write_text(broken)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert attest_keys.settings().keys.kid == "one"
    assert caplog.text.count("attest_keys_file") == 1
    file.write_text(keys_of(key("two")))
    assert attest_keys.settings().keys.kid == "two"


@pytest.mark.parametrize("said", ["", "False", "0", "off", "no"], ids=repr)
def test_it_is_off_unless_it_is_switched_on(configured: Callable[..., None], said: str) -> None:
    configured(attest=said)
    assert not attest_keys.on()


@pytest.mark.parametrize("said", ["True", "1", "perhaps"])
def test_it_is_on_where_airflow_can_attest_and_elsewhere_it_says_that_it_cannot(
    configured: Callable[..., None], caplog: pytest.LogCaptureFixture, said: str
) -> None:
    configured(attest=said)
    with caplog.at_level(logging.ERROR):
        assert attest_keys.on() is compat.ATTESTS
    assert ("from 3.3 on" in caplog.text) is not compat.ATTESTS


def test_the_plugin_offers_nothing_of_it_where_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from airgate_provider.plugin import AirgatePlugin

    monkeypatch.delenv("AIRFLOW__AIRGATE__ATTEST", raising=False)
    assert AirgatePlugin.fastapi_apps == []
    assert AirgatePlugin.fastapi_root_middlewares == []
