"""The settings of the issuer and its keys: what is refused and how it is named, what is published, how keys rotate."""

import json
import logging
import os
import re
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
        pytest.param({"attest_audience": None}, "attest_audience", "is missing", id="no audience"),
        pytest.param({"attest_audience": "a b"}, "attest_audience", "no audience", id="two audiences"),
        pytest.param({"attest_lifetime": "59"}, "attest_lifetime", "60 to 600", id="too short a life"),
        pytest.param({"attest_lifetime": "601"}, "attest_lifetime", "60 to 600", id="too long a life"),
        pytest.param(
            {"attest_lifetime": "5m"}, "attest_lifetime", "60 to 600", id="a life that is no number"
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


def test_a_command_that_fails_is_named_and_not_quoted(
    configured: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.configuration import conf
    from airflow.providers_manager import ProvidersManager

    ProvidersManager().initialize_providers_configuration()
    assert ("airgate", "attest_keys") in conf.sensitive_config_values
    configured(attest_keys=None)
    monkeypatch.setenv("AIRFLOW__AIRGATE__ATTEST_KEYS_CMD", "false")
    with pytest.raises(AttestInvalid, match="attest_keys"):
        attest_keys.settings()
    monkeypatch.setenv("AIRFLOW__AIRGATE__ATTEST_KEYS_CMD", f"echo '{keys_of(key('told'))}'")
    assert attest_keys.settings().keys.kid == "told"


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
