"""What an airgate connection may say, and the field that is named when it says something else."""

import logging
from typing import Any

import pytest

from airgate_provider import settings as module
from airgate_provider.errors import ConnectionInvalid
from airgate_provider.fields import FIELDS, LABELS


@pytest.mark.parametrize(
    ("values", "label", "said"),
    [
        pytest.param({"host": ""}, "Gate", "is empty", id="no gate"),
        pytest.param({"host": "http://gate.example.com"}, "Gate", "https://", id="a gate in the clear"),
        pytest.param({"host": "ftp://gate.example.com"}, "Gate", "no address", id="another scheme"),
        pytest.param({"host": "https://a:b@gate.example.com"}, "Gate", "no address", id="a password in it"),
        pytest.param({"host": "https://gate.example.com:x"}, "Gate", "no address", id="a port in letters"),
        pytest.param({"upstream": ""}, "Upstream", "is empty", id="no upstream"),
        pytest.param({"upstream": "ledger/v1"}, "Upstream", "not a path", id="a path as upstream"),
        pytest.param({"upstream": "-"}, "Upstream", "not a path", id="the gate's own pages"),
        pytest.param({"identity": "kubernets"}, "Identity", "Did you mean kubernetes?", id="a typing error"),
        pytest.param(
            {"identity": "airgate_provider.identity.fetch"},
            "Identity",
            "one of client_credentials",
            id="a class path",
        ),
        pytest.param({"token_url": ""}, "Token URL", "is empty", id="no token endpoint"),
        pytest.param(
            {"token_url": "http://login.example.com/token"},
            "Token URL",
            "https://",
            id="a secret in the clear",
        ),
        pytest.param({"token_url": "login"}, "Token URL", "no address", id="half a token endpoint"),
        pytest.param({"login": None}, "Client id", "is empty", id="no client id"),
        pytest.param({"password": None}, "Client secret or token", "is empty", id="no secret"),
        pytest.param(
            {"identity": "token", "password": ""}, "Client secret or token", "is empty", id="no token"
        ),
        pytest.param({"identity": "token_file"}, "Token file", "is empty", id="no token file"),
        pytest.param({"identity": "aws"}, "Audience", "is empty", id="aws without an audience"),
        pytest.param({"identity": "gcp"}, "Audience", "is empty", id="gcp without an audience"),
        pytest.param({"request_page": "javascript:x"}, "Request page", "no address", id="a script as a link"),
        pytest.param({"roles": ["a", 1]}, "Role tags", "but a list", id="roles that are no texts"),
        pytest.param({"scope": ["a"]}, "Scope", "but a list", id="a list where a text belongs"),
        pytest.param({"environment": 7}, "Environment", "but a int", id="a number where a text belongs"),
        pytest.param({"stock_hooks": "perhaps"}, "For stock hooks", "true or false", id="half a switch"),
        pytest.param(
            {"identity": "token", "password": "tok\nen"},
            "Client secret or token",
            "holds no token",
            id="a token in two lines",
        ),
        pytest.param({"dpop": "perhaps"}, "DPoP", "true or false", id="a switch between on and off"),
        pytest.param(
            {"identity": "token", "dpop": True}, "DPoP", "Switch it off", id="binding a fixed token"
        ),
        pytest.param(
            {"client_authentication": "jwt"}, "Client authentication", "one of basic, post", id="another way"
        ),
    ],
)
def test_a_bad_connection_names_the_field_as_the_form_shows_it(
    settings: Any, values: dict[str, Any], label: str, said: str
) -> None:
    with pytest.raises(ConnectionInvalid) as raised:
        settings(**values)
    text = str(raised.value)
    assert text.startswith(f'Connection "ledger": the field "{label}"')
    assert said in text
    assert "s3cret-of-finance" not in text


def test_another_type_of_connection_is_named(settings: Any) -> None:
    with pytest.raises(ConnectionInvalid, match="of type 'http'"):
        settings(conn_type="http")


@pytest.mark.parametrize(
    ("values", "base"),
    [
        ({"host": "https://gate.example.com"}, "https://gate.example.com/ledger"),
        ({"host": "gate.example.com"}, "https://gate.example.com/ledger"),
        ({"host": "gate.example.com", "port": 8443}, "https://gate.example.com:8443/ledger"),
        ({"host": "gate.example.com", "schema": "https"}, "https://gate.example.com/ledger"),
        ({"host": "https://gate.example.com/"}, "https://gate.example.com/ledger"),
        ({"host": "127.0.0.1", "schema": "http", "port": 8787}, "http://127.0.0.1:8787/ledger"),
        ({"upstream": "feature store"}, "feature%20store"),
    ],
)
def test_the_address_of_an_upstream(settings: Any, values: dict[str, Any], base: str) -> None:
    assert settings(**values).base_url.endswith(base)


@pytest.mark.parametrize(
    ("said", "meant"), [(True, True), ("true", True), ("False", False), ("", False), (None, False)]
)
def test_switches_may_be_texts_as_in_a_uri(settings: Any, said: Any, meant: bool) -> None:
    assert settings(dpop=said).dpop is meant


def test_unknown_names_are_left_out_and_said_once(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    module._warned.clear()
    with caplog.at_level(logging.WARNING, "airgate_provider.settings"):
        found = settings(**{"X-Api-Key": "k", "token-url": "x", "timeout": 7})
        settings(**{"X-Api-Key": "k"})
    assert found.options == {"timeout": 7}
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert "Headers belong into the DAG" in texts[0]
    assert "Did you mean token_url?" in texts[1]


def test_different_ways_to_a_token_never_share_one(settings: Any) -> None:
    ways = [
        settings(),
        settings(password="other"),
        settings(login="other"),
        settings(scope="other"),
        settings(audience="other"),
        settings(resource="other"),
        settings(token_url="http://127.0.0.1:1/token"),
        settings(dpop=True),
        settings(identity="token"),
        settings(client_authentication="post"),
    ]
    assert len({each.cache_key for each in ways}) == len(ways)
    assert settings(upstream="crm", environment="x").cache_key == ways[0].cache_key


def test_every_field_has_a_label_of_its_own() -> None:
    assert len(set(LABELS.values())) == len(LABELS) == len(FIELDS) + 4


@pytest.mark.parametrize(
    "said", ["a, b", ["a", "b"], [" a", "b ", ""]], ids=["a text", "a list", "odd blanks"]
)
def test_roles_may_be_a_list(settings: Any, said: Any) -> None:
    assert settings(roles=said).roles == ("a", "b")


@pytest.mark.parametrize(
    ("identity", "variable"),
    [("aws", "AWS_ROLE_ARN"), ("aws", "AWS_PROFILE"), ("gcp", "GCE_METADATA_HOST")],
)
def test_who_the_surroundings_say_we_are_is_part_of_the_key(
    settings: Any, monkeypatch: pytest.MonkeyPatch, identity: str, variable: str
) -> None:
    said = settings(identity=identity, audience="https://gate.example.com")
    before = said.cache_key
    monkeypatch.setenv(variable, "another")
    assert said.cache_key != before
