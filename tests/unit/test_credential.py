"""Credentials as the bundle names them: what is read, what is refused, and what a secret becomes."""

from base64 import b64decode
from typing import Any

import pytest
from world import without

import credential
from credential import (
    Basic,
    ClientCredentials,
    Header,
    JwtBearer,
    Login,
    Own,
    SigV4,
    fixed,
    load_credential,
    read,
    taken,
    value,
)
from document import Reader
from model import Denied, Reason

SECRET = "UPSTREAM_LEDGER_TOKEN"
PLAIN: dict[str, dict[str, Any]] = {
    "header": {"kind": "header", "secret": SECRET, "header": "x-api-key", "format": "{secret}"},
    "basic": {"kind": "basic", "secret": SECRET, "user": "svc"},
    "client_credentials": {
        "kind": "client_credentials",
        "secret": SECRET,
        "token_url": "https://login.example.com/token",
        "client_id": "gate",
        "authentication": "basic",
        "scope": "a b",
        "audience": None,
        "resource": None,
        "header": "authorization",
        "format": "Bearer {token}",
    },
    "jwt_bearer": {
        "kind": "jwt_bearer",
        "secret": SECRET,
        "algorithm": "RS256",
        "issuer": "gate@example.com",
        "subject": None,
        "audience": None,
        "scope": None,
        "lifetime": 3600,
        "key_id": None,
        "token_url": None,
        "header": "authorization",
        "format": "Bearer {token}",
    },
    "login": {
        "kind": "login",
        "secret": SECRET,
        "url": "https://airflow.example.com/auth/token",
        "fields": {"username": "gate", "password": "{secret}"},
        "encoding": "json",
        "token": ["access_token"],
        "lifetime": None,
        "header": "authorization",
        "format": "Bearer {token}",
    },
    "sigv4": {
        "kind": "sigv4",
        "secret": SECRET,
        "region": "eu-central-1",
        "service": "s3",
        "payload": "signed",
    },
    "caller": {"kind": "caller"},
}
READ = {
    "header": Header(SECRET, "x-api-key", "{secret}"),
    "basic": Basic("svc", SECRET),
    "client_credentials": ClientCredentials(
        SECRET, "https://login.example.com/token", "gate", "basic", "a b", None, None, "authorization",
        "Bearer {token}",
    ),
    "jwt_bearer": JwtBearer(
        SECRET, "RS256", "gate@example.com", None, None, None, 3600, None, None, "authorization", "Bearer {token}"
    ),
    "login": Login(
        SECRET, "https://airflow.example.com/auth/token", (("password", "{secret}"), ("username", "gate")), "json",
        ("access_token",), None, "authorization", "Bearer {token}",
    ),
    "sigv4": SigV4(SECRET, "eu-central-1", "s3", "signed"),
    "caller": Own(),
}  # fmt: skip


def load(kind: str, **changes: Any) -> credential.Credential:
    return load_credential(Reader(without(PLAIN[kind], **changes), "it"))


@pytest.mark.parametrize("kind", PLAIN)
def test_each_kind_is_read(kind: str) -> None:
    assert load(kind) == READ[kind]
    assert len({load(kind), load(kind)}) == 1  # a key of what isolates remember


@pytest.mark.parametrize(
    ("kind", "member"), [(kind, member) for kind, members in PLAIN.items() for member in members]
)
def test_a_member_that_is_missing_or_of_another_type_is_refused(kind: str, member: str) -> None:
    members = dict(PLAIN[kind])
    del members[member]
    for changed in (members, {**members, member: [7]}, {**members, member: 7.5}):
        with pytest.raises(ValueError, match=rf"^it\.{member}|^it\.token"):
            load_credential(Reader(changed, "it"))


@pytest.mark.parametrize("kind", PLAIN)
def test_a_member_that_is_not_known_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"it\.when: not known"):
        load(kind, when="06:00")


@pytest.mark.parametrize(
    ("kind", "member", "given"),
    [
        pytest.param("header", "kind", "headers", id="a kind that is none"),
        pytest.param("header", "secret", "ASSERTION_KEYS", id="a secret of the gate's own"),
        pytest.param("header", "secret", "UPSTREAM_", id="a secret without a name"),
        pytest.param("header", "secret", "UPSTREAM_a", id="a secret in lower case"),
        pytest.param("header", "secret", "UPSTREAM_" + "A" * 65, id="a secret with a long name"),
        pytest.param("header", "secret", "UPSTREAM_A\n", id="a secret with a line feed"),
        pytest.param("header", "header", "X-Api-Key", id="a header in capitals"),
        pytest.param("header", "header", "host", id="a header of the connection"),
        pytest.param("header", "header", "airgate-token", id="a header of the gate's own"),
        pytest.param("header", "format", "Bearer", id="a format without the secret"),
        pytest.param("header", "format", "{secret}{secret}", id="a format with the secret twice"),
        pytest.param("header", "format", "{secret}\r\nx: y", id="a format of two lines"),
        pytest.param("header", "format", "{token}", id="a format with a token"),
        pytest.param("basic", "user", "a:b", id="a user with a colon"),
        pytest.param("client_credentials", "token_url", "http://login.example.com", id="a token URL in the clear"),
        pytest.param("client_credentials", "authentication", "none", id="a client without a password"),
        pytest.param("jwt_bearer", "algorithm", "HS256", id="an algorithm with a shared key"),
        pytest.param("jwt_bearer", "lifetime", 59, id="a life too short"),
        pytest.param("jwt_bearer", "token_url", "ftp://login.example.com", id="a token URL of another kind"),
        pytest.param("login", "url", "http://airflow.example.com", id="a login in the clear"),
        pytest.param("login", "fields", {"username": "gate"}, id="fields without the secret"),
        pytest.param("login", "fields", {"a": "{secret}", "b": "{secret}"}, id="fields with the secret twice"),
        pytest.param("login", "fields", {"a": "{secret}", "b": 7}, id="a field that is a number"),
        pytest.param("login", "token", [], id="a token nowhere"),
        pytest.param("sigv4", "region", "eu central", id="a region that is none"),
        pytest.param("sigv4", "service", "S3", id="a service in capitals"),
        pytest.param("sigv4", "payload", "none", id="a payload that is neither"),
    ],
)  # fmt: skip
def test_refused(kind: str, member: str, given: Any) -> None:
    with pytest.raises(ValueError, match=rf"^it\.{member}"):
        load_credential(Reader({**PLAIN[kind], member: given}, "it"))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("header", {"x-api-key"}),
        ("basic", {"authorization"}),
        ("client_credentials", {"authorization"}),
        ("jwt_bearer", {"authorization"}),
        ("login", {"authorization"}),
        ("sigv4", {"authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"}),
        ("caller", {"authorization"}),
    ],
)
def test_what_a_credential_sets_no_caller_sets(kind: str, names: set[str]) -> None:
    assert taken(load(kind)) == names


def test_a_header_is_compared_as_servers_do_that_make_no_difference() -> None:
    assert taken(load("header", header="x_api.key")) == {"x-api-key"}


def held(**secrets: str) -> Any:
    return secrets.__getitem__


def test_a_secret_becomes_a_header() -> None:
    one = Header(SECRET, "authorization", "Bearer {secret}")
    assert fixed(one, held(UPSTREAM_LEDGER_TOKEN="abc\n")) == ("authorization", "Bearer abc")


@pytest.mark.parametrize(
    ("user", "secret", "pair"),
    [
        pytest.param("svc", "pässword", "svc:pässword", id="a user by name"),
        pytest.param("svc", "a:b", "svc:a:b", id="a password with a colon"),
        pytest.param(None, "svc:password", "svc:password", id="both in the secret"),
    ],
)
def test_user_and_password(user: str | None, secret: str, pair: str) -> None:
    name, text = fixed(Basic(user, SECRET), held(UPSTREAM_LEDGER_TOKEN=secret))
    assert name == "authorization"
    assert b64decode(text.removeprefix("Basic ")).decode() == pair


@pytest.mark.parametrize(
    ("one", "secret"),
    [
        pytest.param(Header(SECRET, "x", "{secret}"), "", id="an empty secret"),
        pytest.param(Header(SECRET, "x", "{secret}"), " \n", id="a secret of white space"),
        pytest.param(Header(SECRET, "x", "{secret}"), "a\r\nHost: b", id="a secret of two lines"),
        pytest.param(Header(SECRET, "x", "{secret}"), "geheim-ä", id="a secret beyond ASCII"),
        pytest.param(Header(SECRET, "x", "{secret}"), "a" * 16_385, id="a secret too long"),
        pytest.param(Basic(None, SECRET), "hunter2", id="a password without a user"),
    ],
)
def test_a_secret_that_fits_no_header_is_not_sent_and_not_told(one: Header | Basic, secret: str) -> None:
    with pytest.raises(Denied) as caught:
        fixed(one, held(UPSTREAM_LEDGER_TOKEN=secret))
    assert caught.value.reason is Reason.UPSTREAM_CREDENTIAL
    assert SECRET in caught.value.detail
    assert not secret.strip() or secret.strip() not in str(caught.value)
    assert caught.value.hint == ""


def test_a_secret_that_is_not_there_is_named_in_the_log_only() -> None:
    with pytest.raises(Denied) as caught:
        read(SECRET, held())
    assert (caught.value.detail, caught.value.hint) == (f"no secret {SECRET}", "")


def test_a_value_takes_its_place_once() -> None:
    assert value("{token}", SECRET, "Bearer {token}", "{token}") == "Bearer {token}"
