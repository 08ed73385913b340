"""Tokens that the gate gets for itself: what is asked, what is made of the answer, and how they are kept."""

import json
from base64 import b64decode
from collections.abc import Coroutine, Generator
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_signing import ED25519_PEM, P256, P256_PEM, RSA_PEM, account
from world import ABSENT, NOW, b64, run

import credential
from credential import ClientCredentials, JwtBearer, Login
from document import read_base64url
from minted import (
    CLAIM,
    EARLY,
    FORCED,
    LIFE,
    LIMIT,
    LONGEST,
    MARGIN,
    MOST,
    MOST_FETCHES,
    MOST_LIFE,
    PAUSE,
    SHARE,
    TIMEOUT,
    Minted,
)
from model import Denied, Reason
from signing import SigningKey, read_secret

TOKEN_URL = "https://login.example.com/token"
LOGIN_URL = "https://airflow.example.com/auth/token"
SECRET = "s3cr:t/+ä"
CLIENT = ClientCredentials(
    secret="UPSTREAM_LEDGER_CLIENT",
    token_url=TOKEN_URL,
    client_id="gate:1",
    authentication="basic",
    scope=None,
    audience=None,
    resource=None,
    header="authorization",
    format="Bearer {token}",
)
BEARER = JwtBearer(
    secret="UPSTREAM_SNOWFLAKE_KEY",
    algorithm="RS256",
    issuer="gate@example.com",
    subject=None,
    audience=None,
    scope=None,
    lifetime=3600,
    key_id=None,
    token_url=None,
    header="authorization",
    format="Bearer {token}",
)
LOGIN = Login(
    secret="UPSTREAM_AIRFLOW_PASSWORD",
    url=LOGIN_URL,
    fields=(("password", "{secret}"), ("username", "gate")),
    encoding="json",
    token=("access_token",),
    lifetime=None,
    header="authorization",
    format="Bearer {token}",
)

Answer = tuple[int, bytes] | Exception


class Once:
    """Something to wait for, once."""

    def __await__(self) -> Generator[None, None, None]:
        yield


def answer(text: str = "t1", status: int = 200, **members: Any) -> tuple[int, bytes]:
    return status, json.dumps(
        {"access_token": text, "token_type": "Bearer", "expires_in": 3600, **members}
    ).encode()


class Outside:
    """The ports, with a clock to set, a list of answers of which the last one stays, and what was asked."""

    def __init__(self, *answers: Answer, secret: str = SECRET) -> None:
        self.clock = NOW
        self.answers = list(answers or (answer(),))
        self.secrets = {of.secret: secret for of in (CLIENT, BEARER, LOGIN)}
        self.posts: list[tuple[str, dict[str, str], bytes]] = []
        self.signed: list[bytes] = []
        self.refuses: Exception | None = None
        self.deferred: list[Coroutine[Any, Any, Any]] = []
        self.lasted = 0
        self.slow = False

    def now(self) -> float:
        return self.clock

    def defer(self, work: Coroutine[Any, Any, Any]) -> None:
        self.deferred.append(work)

    def settle(self) -> int:
        works, self.deferred = self.deferred, []
        for work in works:
            run(work)
        return len(works)

    async def last(self, work: Coroutine[Any, Any, bool]) -> bool:
        self.lasted += 1
        return await work

    def secret(self, name: str) -> str:
        return self.secrets[name]

    async def post(
        self, url: str, headers: dict[str, str], body: bytes, timeout: float, limit: int
    ) -> tuple[int, bytes]:
        assert (timeout, limit) == (TIMEOUT, LIMIT)
        self.posts.append((url, headers, body))
        given = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if self.slow:
            await Once()
        if isinstance(given, Exception):
            raise given
        return given

    async def sign(self, key: SigningKey, data: bytes) -> bytes:
        self.signed.append(data)
        if self.refuses is not None:
            raise self.refuses
        return b"\xff" * 64


def refused(work: Coroutine[Any, Any, Any]) -> str:
    """What the audit log says of why there is no token."""
    with pytest.raises(Denied) as caught:
        run(work)
    assert caught.value.reason is Reason.UPSTREAM_CREDENTIAL
    return caught.value.detail


def form(body: bytes) -> dict[str, str]:
    parsed = parse_qs(body.decode("ascii"), strict_parsing=True, keep_blank_values=True)
    assert all(len(values) == 1 for values in parsed.values())
    return {name: values[0] for name, values in parsed.items()}


def jwt(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims, signature = text.split(".")
    assert read_base64url(signature) == b"\xff" * 64
    return json.loads(read_base64url(header)), json.loads(read_base64url(claims))


# What is asked.


def test_client_credentials_by_basic() -> None:
    outside = Outside()
    assert run(Minted().token(CLIENT, outside)) == "t1"
    ((url, headers, body),) = outside.posts
    assert url == TOKEN_URL
    # RFC 6749 §2.3.1: both are encoded first, or the colon would be in the wrong place.
    assert b64decode(headers.pop("authorization").removeprefix("Basic ")) == b"gate%3A1:s3cr%3At%2F%2B%C3%A4"
    assert headers == {"accept": "application/json", "content-type": "application/x-www-form-urlencoded"}
    assert form(body) == {"grant_type": "client_credentials"}


def test_client_credentials_by_post() -> None:
    outside = Outside()
    more = CLIENT._replace(
        authentication="post", scope="a b", audience="x", resource="https://y.example.com/"
    )
    run(Minted().token(more, outside))
    ((_, headers, body),) = outside.posts
    assert "authorization" not in headers
    assert form(body) == {
        "grant_type": "client_credentials",
        "client_id": "gate:1",
        "client_secret": SECRET,
        "scope": "a b",
        "audience": "x",
        "resource": "https://y.example.com/",
    }


def test_white_space_around_a_secret_is_not_part_of_it() -> None:
    outside = Outside(secret=f"{SECRET}\n")
    run(Minted().token(CLIENT._replace(authentication="post"), outside))
    assert form(outside.posts[0][2])["client_secret"] == SECRET


LOGINS = [
    pytest.param(
        "json", b'{"password":"s3cr:t/+\\u00e4","username":"gate"}', "application/json", id="as JSON"
    ),
    pytest.param(
        "form",
        b"password=s3cr%3At%2F%2B%C3%A4&username=gate",
        "application/x-www-form-urlencoded",
        id="as a form",
    ),
]


@pytest.mark.parametrize(("encoding", "body", "kind"), LOGINS)
def test_a_login(encoding: str, body: bytes, kind: str) -> None:
    outside = Outside((201, b'{"access_token":"t1"}'))
    assert run(Minted().token(LOGIN._replace(encoding=encoding), outside)) == "t1"
    ((url, headers, sent),) = outside.posts
    assert (url, headers) == (LOGIN_URL, {"accept": "application/json", "content-type": kind})
    assert sent.replace(b'": "', b'":"').replace(b", ", b",") == body


def test_a_login_s_token_stands_where_the_settings_say() -> None:
    outside = Outside((200, b'{"data":{"token":"t1"}}'))
    assert run(Minted().token(LOGIN._replace(token=("data", "token")), outside)) == "t1"
    assert "no token" in refused(Minted().token(LOGIN._replace(token=("data", "key")), outside))


BEARERS = [
    pytest.param(
        BEARER,
        RSA_PEM,
        {"alg": "RS256", "typ": "JWT"},
        {"iss": "gate@example.com", "sub": "gate@example.com"},
        id="a subject is the issuer, if nothing else is said",
    ),
    pytest.param(
        BEARER._replace(
            subject="me", audience="https://api.example.com", scope="a b", key_id="k2", lifetime=60
        ),
        RSA_PEM,
        {"alg": "RS256", "typ": "JWT", "kid": "k2"},
        {"iss": "gate@example.com", "sub": "me", "aud": "https://api.example.com", "scope": "a b"},
        id="all that settings can say",
    ),
    pytest.param(
        BEARER._replace(algorithm="ES256"),
        json.dumps({**P256, "kid": "k3"}),
        {"alg": "ES256", "typ": "JWT", "kid": "k3"},
        {"iss": "gate@example.com", "sub": "gate@example.com"},
        id="a JWK's own id",
    ),
    pytest.param(
        BEARER._replace(issuer="ACCOUNT.USER.{fingerprint}", subject="ACCOUNT.USER"),
        RSA_PEM,
        {"alg": "RS256", "typ": "JWT"},
        {"iss": f"ACCOUNT.USER.{read_secret(RSA_PEM).fingerprint}", "sub": "ACCOUNT.USER"},
        id="as Snowflake wants it",
    ),
    pytest.param(
        BEARER._replace(issuer=None, audience="https://api.example.com/"),
        json.dumps(account(token_uri=ABSENT)),
        {"alg": "RS256", "typ": "JWT", "kid": "k1"},
        {"iss": "gate@example.com", "sub": "gate@example.com", "aud": "https://api.example.com/"},
        id="a service account's own JWT",
    ),
]


@pytest.mark.parametrize(("of", "secret", "header", "claims"), BEARERS)
def test_a_jwt_that_is_the_token(
    of: JwtBearer, secret: str, header: dict[str, str], claims: dict[str, str]
) -> None:
    outside = Outside(secret=secret)
    text = run(Minted().token(of, outside))
    times = {"iat": int(NOW), "exp": int(NOW) + of.lifetime}
    assert jwt(text) == (header, claims | times)
    assert outside.signed == [text.rpartition(".")[0].encode()]
    assert outside.posts == []


def test_a_jwt_that_is_good_for_a_token() -> None:
    outside = Outside(secret=P256_PEM)
    of = BEARER._replace(algorithm="ES256", token_url=TOKEN_URL, scope="a b", lifetime=300)
    assert run(Minted().token(of, outside)) == "t1"
    ((url, headers, body),) = outside.posts
    assert url == TOKEN_URL
    assert headers == {"accept": "application/json", "content-type": "application/x-www-form-urlencoded"}
    sent = form(body)
    claims = jwt(sent.pop("assertion"))[1]
    assert sent == {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "scope": "a b"}
    assert (claims["aud"], claims["sub"], claims["exp"] - claims["iat"]) == (
        TOKEN_URL,
        "gate@example.com",
        300,
    )


def test_a_service_account_says_where_its_tokens_are_and_acts_for_nobody() -> None:
    outside = Outside(secret=json.dumps(account()))
    assert run(Minted().token(BEARER._replace(issuer=None, scope="a"), outside)) == "t1"
    url, _, body = outside.posts[0]
    assert url == "https://oauth2.example.com/token"
    header, claims = jwt(form(body)["assertion"])
    assert header["kid"] == "k1"
    assert (claims["iss"], claims["aud"], claims["scope"]) == ("gate@example.com", url, "a")
    assert "sub" not in claims
    run(Minted().token(BEARER._replace(issuer=None, subject="person@example.com"), outside))
    assert jwt(form(outside.posts[1][2])["assertion"])[1]["sub"] == "person@example.com"


def test_a_key_is_read_once() -> None:
    """Or what the runtime keeps with it, its imported form, would be made again for every token."""
    outside, minted, used = Outside(secret=RSA_PEM), Minted(), []

    async def sign(key: SigningKey, data: bytes) -> bytes:
        used.append(key)
        return b"\xff" * 64

    outside.sign = sign  # type: ignore[method-assign]  # to see the keys
    for _ in range(3):
        run(minted.token(BEARER, outside))
        outside.clock += 3600
    assert len(used) == 3
    assert used[0] is used[1] is used[2]
    outside.secrets[BEARER.secret] = json.dumps(account())
    run(minted.token(BEARER._replace(token_url=TOKEN_URL), outside))
    assert used[3] is not used[0]


# What is made of the answer.

ENDS = int(NOW) + 200


def claiming(text: str) -> str:
    """Something of a JWT's form, with these claims."""
    return f"{b64(b'{}')}.{b64(text.encode())}.{b64(b'x')}"


JWT = claiming(f'{{"exp":{ENDS}}}')
LIVES = [
    pytest.param(LOGIN._replace(lifetime=60), {"expires_in": 900}, 60, id="as the settings say"),
    pytest.param(LOGIN, {"expires_in": 900}, 900, id="a login's answer says it"),
    pytest.param(CLIENT, {"expires_in": 900}, 900, id="as the answer says"),
    pytest.param(CLIENT, {"expires_in": 899.5}, 899.5, id="as the answer says, in fractions"),
    pytest.param(CLIENT, {"expires_in": "900"}, 900, id="as the answer says, in a text"),
    pytest.param(CLIENT, {"expires_in": 900, "access_token": JWT}, 900, id="sooner than the token says"),
    pytest.param(CLIENT, {"access_token": JWT, "expires_in": None}, 200, id="as the token itself says"),
    pytest.param(LOGIN, {"access_token": JWT, "expires_in": "soon"}, 200, id="a login's token says it"),
    pytest.param(CLIENT, {"expires_in": None}, LIFE, id="nobody says"),
    pytest.param(CLIENT, {"expires_in": True}, LIFE, id="true is no number"),
    pytest.param(CLIENT, {"expires_in": [900]}, LIFE, id="a list is no number"),
    pytest.param(CLIENT, {"expires_in": "-900"}, LIFE, id="a text that is no number"),
    pytest.param(CLIENT, {"expires_in": "9" * 11}, LIFE, id="a text that is too long"),
    pytest.param(CLIENT, {"expires_in": None, "access_token": "a.b.c"}, LIFE, id="not a JWT"),
    pytest.param(CLIENT, {"expires_in": None, "access_token": "a.b.c.d.e"}, LIFE, id="an encrypted JWT"),
    pytest.param(CLIENT, {"expires_in": None, "access_token": claiming("[]")}, LIFE, id="a JWT without claims"),
    pytest.param(CLIENT, {"expires_in": None, "access_token": claiming("{}")}, LIFE, id="a JWT without exp"),
    pytest.param(
        CLIENT, {"expires_in": None, "access_token": claiming('{"exp":"9"}')}, LIFE, id="a JWT with an odd exp"
    ),
    pytest.param(CLIENT, {"expires_in": 10**9}, MOST_LIFE, id="for ever is a day"),
    pytest.param(CLIENT, {"expires_in": 10**400}, MOST_LIFE, id="a number past all others is a day"),
    pytest.param(
        CLIENT,
        {"expires_in": None, "access_token": claiming('{"exp":1' + "0" * 400 + "}")},
        MOST_LIFE,
        id="a JWT for ever is a day",
    ),
    pytest.param(CLIENT, {"expires_in": 10}, 10, id="ten seconds"),
    pytest.param(CLIENT, {"expires_in": 1}, 1, id="one second"),
]  # fmt: skip


@pytest.mark.parametrize(("of", "members", "life"), LIVES)
def test_how_long_a_token_lives(of: credential.Minted, members: dict[str, Any], life: float) -> None:
    outside, minted = Outside(answer(**members)), Minted()
    run(minted.token(of, outside))
    outside.clock = NOW + max(SHARE * life, life - EARLY) - 0.001
    run(minted.token(of, outside))
    assert len(outside.deferred) == 0
    outside.clock = NOW + max(SHARE * life, life - EARLY) + 0.001
    run(minted.token(of, outside))
    assert (len(outside.deferred), len(outside.posts)) == (1, 1)
    outside.clock = NOW + life - min(MARGIN, life / 10) - 0.001
    run(minted.token(of, outside))
    assert len(outside.posts) == 1
    outside.clock += 0.002
    outside.answers = [answer("t2")]
    assert run(minted.token(of, outside)) == "t2"
    for work in outside.deferred:
        work.close()


BAD = [
    pytest.param((500, b"oops SECRETBODY"), "answered 500", id="a mistake of the server's"),
    pytest.param((302, b""), "answered 302", id="a redirect"),
    pytest.param((401, b'{"error":"invalid_client"}'), "answered 401, invalid_client", id="a wrong password"),
    pytest.param((400, b'{"error":"SECRETBODY"}'), "answered 400", id="an error of its own making"),
    pytest.param((400, b'{"error":["invalid_client"]}'), "answered 400", id="an error that is no text"),
    pytest.param((400, b'[' * 5000), "answered 400", id="an error that is nested deeply"),
    pytest.param((200, b""), "not a JSON object", id="nothing"),
    pytest.param((200, b"<html>SECRETBODY"), "not a JSON object", id="a page for people"),
    pytest.param((200, b'["SECRETBODY"]'), "not a JSON object", id="a list"),
    pytest.param((200, b'{"a":' * 17 + b"1" + b"}" * 17), "not a JSON object", id="nested deeply"),
    pytest.param((200, b'{"access_token":"t1","access_token":"t2"}'), "not a JSON object", id="a name twice"),
    pytest.param((200, b'{"a":[' + b'"",' * 4000 + b'""]}'), "not a JSON object", id="much to read"),
    pytest.param((200, b'{"access_token":"SECRETBODY' + b" " * LIMIT + b'"}'), "not a JSON object", id="too long"),
    pytest.param((200, b'{"access_token":"SECRETBODY\xff"}'), "not a JSON object", id="not UTF-8"),
    pytest.param((200, b"{}"), "no token", id="no token"),
    pytest.param(answer(""), "no token", id="an empty token"),
    pytest.param(answer("SECRET BODY"), "no token", id="a token with a space"),
    pytest.param(answer("SECRETBODY\r\nx: y"), "no token", id="a token with a line break"),
    pytest.param(answer("SECRETBODY\u00e4"), "no token", id="a token outside of ASCII"),
    pytest.param(answer("S" * (LONGEST + 1)), "no token", id="a token that is too long"),
    pytest.param(answer(access_token=7), "no token", id="a token that is a number"),
    pytest.param(answer(access_token={"a": "SECRETBODY"}), "no token", id="a token that is an object"),
    pytest.param(answer(token_type="DPoP"), "not a bearer token", id="a token that is bound to a key"),
    pytest.param(answer(token_type="mac"), "not a bearer token", id="a MAC token"),
    pytest.param(answer(token_type=None), "not a bearer token", id="no type at all"),
    pytest.param(answer(expires_in=0), "expired already", id="a token without any life"),
    pytest.param(answer(expires_in=-10), "expired already", id="a token that has ended"),
    pytest.param(answer(JWT.replace("x", "y"), expires_in="0"), "expired already", id="no life, as a text"),
    pytest.param(OSError("SECRETBODY"), "OSError", id="no connection"),
    pytest.param(TimeoutError("SECRETBODY"), "TimeoutError", id="no answer in time"),
    pytest.param(UnicodeError("SECRETBODY"), "UnicodeError", id="an error that quotes"),
]  # fmt: skip


@pytest.mark.parametrize(("given_", "said"), BAD)
def test_an_answer_that_brings_no_token(given_: Answer, said: str) -> None:
    detail = refused(Minted().token(CLIENT, Outside(given_)))
    assert said in detail
    assert detail.startswith("UPSTREAM_LEDGER_CLIENT: ")
    assert not [word for word in ("SECRET", SECRET, "s3cr", "t1", JWT[:8]) if word in detail]


@pytest.mark.parametrize("kind", ["Bearer", "bearer", "BEARER", "BearerToken", "JWT"])
def test_a_type_of_token_that_needs_nothing_else(kind: str) -> None:
    assert run(Minted().token(CLIENT, Outside(answer(token_type=kind)))) == "t1"


def test_a_login_has_no_type_of_token() -> None:
    assert run(Minted().token(LOGIN, Outside(answer(token_type="session")))) == "t1"


def test_a_connection_that_breaks_costs_nobody_a_call() -> None:
    outside = Outside(ConnectionError("idle"), answer())
    assert run(Minted().token(CLIENT, outside)) == "t1"
    assert len(outside.posts) == 2
    assert "ConnectionError" in refused(Minted().token(CLIENT, Outside(ConnectionError("idle"))))


KEYS_AMISS = [
    pytest.param(BEARER, "hunter2", "neither a PEM key nor JSON", id="no key"),
    pytest.param(BEARER, P256_PEM, "the key is for ES256, and the settings say RS256", id="another algorithm"),
    pytest.param(BEARER, ED25519_PEM, "the key is for EdDSA, and the settings say RS256", id="EdDSA"),
    pytest.param(BEARER._replace(issuer=None), RSA_PEM, "the settings say no issuer", id="no issuer"),
    pytest.param(BEARER, "", "no secret UPSTREAM_SNOWFLAKE_KEY", id="an empty secret"),
    pytest.param(CLIENT, "\n", "no secret UPSTREAM_LEDGER_CLIENT", id="a secret of white space"),
    pytest.param(
        CLIENT._replace(token_url="http://login.example.com/"), "x", "not an https address", id="over plain http"
    ),
]  # fmt: skip


@pytest.mark.parametrize(("of", "secret", "said"), KEYS_AMISS)
def test_settings_and_secrets_that_do_not_fit(of: credential.Minted, secret: str, said: str) -> None:
    outside = Outside(secret=secret)
    detail = refused(Minted().token(of, outside))
    assert said in detail
    assert of.secret in detail
    assert outside.posts == []


def test_a_secret_that_is_not_there() -> None:
    outside = Outside()
    outside.secrets.clear()
    assert refused(Minted().token(CLIENT, outside)) == "no secret UPSTREAM_LEDGER_CLIENT"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        pytest.param(Denied(Reason.INTERNAL, "no WebCrypto"), "no WebCrypto", id="with a detail"),
        pytest.param(Denied(Reason.INTERNAL), "UPSTREAM_SNOWFLAKE_KEY: internal", id="without one"),
        pytest.param(ValueError("DataError"), "UPSTREAM_SNOWFLAKE_KEY: DataError", id="not a Denied"),
    ],
)
def test_a_runtime_that_refuses_a_key(error: Exception, said: str) -> None:
    outside = Outside(secret=RSA_PEM)
    outside.refuses = error
    assert refused(Minted().token(BEARER, outside)) == said


# How they are kept.


def test_one_token_serves_all_calls_until_it_ends() -> None:
    outside, minted = Outside(answer("t1"), answer("t2")), Minted()
    for second in (0, 1, 3000, 3539):
        outside.clock = NOW + second
        assert run(minted.token(CLIENT, outside)) == "t1"
    assert (len(outside.posts), outside.deferred) == (1, [])
    outside.clock = NOW + 3600
    assert run(minted.token(CLIENT, outside)) == "t2"


def test_a_hang_up_does_not_lose_the_token() -> None:
    outside = Outside()
    run(Minted().token(CLIENT, outside))
    assert outside.lasted == 1


def test_a_token_is_replaced_in_the_background_by_one_request() -> None:
    outside, minted = Outside(answer("t1"), answer("t2")), Minted()
    run(minted.token(CLIENT, outside))
    outside.clock = NOW + 3550
    for _ in range(5):
        assert run(minted.token(CLIENT, outside)) == "t1"
    assert outside.settle() == 1
    assert run(minted.token(CLIENT, outside)) == "t2"
    assert len(outside.posts) == 2
    outside.clock = NOW + 3550 + 3500
    assert run(minted.token(CLIENT, outside)) == "t2"
    assert outside.deferred == []


def test_a_claim_that_was_lost_ends() -> None:
    outside, minted = Outside(), Minted()
    run(minted.token(CLIENT, outside))
    outside.clock = NOW + 3545
    run(minted.token(CLIENT, outside))
    outside.deferred.pop().close()  # whatever ran it is gone, and it never began
    outside.clock += CLAIM - 1
    run(minted.token(CLIENT, outside))
    assert outside.deferred == []
    outside.clock += 1
    run(minted.token(CLIENT, outside))
    assert outside.settle() == 1


def test_a_token_stays_in_use_while_no_other_can_be_had() -> None:
    outside, minted = Outside(answer("t1"), (503, b"")), Minted()
    run(minted.token(CLIENT, outside))
    asked = 0
    for second in range(3541, 3595):
        outside.clock = NOW + second
        assert run(minted.token(CLIENT, outside)) == "t1"
        asked += outside.settle()
    assert asked == 54 // PAUSE
    outside.clock = NOW + 3596
    assert "answered 503" in refused(minted.token(CLIENT, outside))


def test_an_issuer_that_is_down_is_not_stormed() -> None:
    outside, minted = Outside((503, b"")), Minted()
    for tenth in range(100):
        outside.clock = NOW + tenth / 10
        assert "answered 503" in refused(minted.token(CLIENT, outside))
    assert len(outside.posts) == 10 / PAUSE
    outside.answers = [answer()]
    outside.clock = NOW + 10 + PAUSE
    assert run(minted.token(CLIENT, outside)) == "t1"


def begin(work: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
    """Run a request up to where it waits."""
    work.send(None)
    return work


def finish(work: Coroutine[Any, Any, Any]) -> str:
    with pytest.raises(StopIteration) as end:
        work.send(None)
    text = end.value.value
    assert isinstance(text, str)
    return text


def test_with_no_token_every_request_fetches_for_itself_up_to_a_number() -> None:
    outside, minted = Outside(*[answer(f"t{number}") for number in range(20)]), Minted()
    outside.slow = True
    waiting = [begin(minted.token(CLIENT, outside)) for _ in range(MOST_FETCHES)]
    assert "too many requests" in refused(minted.token(CLIENT, outside))
    assert len(outside.posts) == MOST_FETCHES
    # The first answer is there for all who come later, whatever becomes of the others.
    assert finish(waiting[0]) == "t0"
    assert run(minted.token(CLIENT, outside)) == "t0"
    for number, work in enumerate(waiting[1:], 1):
        assert finish(work) == f"t{number}"


def test_a_request_that_ends_makes_room_for_another() -> None:
    outside, minted = Outside((500, b"")), Minted()
    outside.slow = True
    waiting = [begin(minted.token(CLIENT, outside)) for _ in range(MOST_FETCHES)]
    waiting.pop().close()  # the client hung up, and nothing kept the work alive
    waiting.append(begin(minted.token(CLIENT, outside)))
    for work in waiting:
        work.close()


def test_room_that_was_lost_comes_back() -> None:
    outside, minted = Outside(), Minted()
    outside.slow = True
    lost = [begin(minted.token(CLIENT, outside)) for _ in range(MOST_FETCHES)]
    outside.clock += CLAIM
    assert finish(begin(minted.token(CLIENT, outside))) == "t1"
    for work in lost:
        work.close()


def test_an_older_fetch_that_ends_later_replaces_nothing() -> None:
    outside, minted = Outside(answer("old"), answer("new")), Minted()
    outside.slow = True
    late = begin(minted.token(CLIENT, outside))
    outside.clock += 1
    assert finish(begin(minted.token(CLIENT, outside))) == "new"
    assert finish(late) == "new"
    assert run(minted.token(CLIENT, outside)) == "new"


def test_credentials_have_tokens_of_their_own() -> None:
    outside, minted = Outside(answer("t1"), answer("t2")), Minted()
    assert run(minted.token(CLIENT, outside)) == "t1"
    assert run(minted.token(CLIENT._replace(scope="more"), outside)) == "t2"
    assert run(minted.token(CLIENT, outside)) == "t1"


def test_what_is_kept_is_bounded() -> None:
    outside, minted = Outside(), Minted()
    for number in range(MOST + 10):
        run(minted.token(CLIENT._replace(scope=str(number)), outside))
    assert len(minted) == MOST


# What the upstream refuses.


def test_a_refused_token_is_replaced() -> None:
    outside, minted = Outside(answer("t1"), answer("t2")), Minted()
    run(minted.token(CLIENT, outside))
    assert minted.forget(CLIENT, "t1", outside.clock)
    assert run(minted.token(CLIENT, outside)) == "t2"
    # Others whose calls went out with the first one get the second, and it stays.
    assert minted.forget(CLIENT, "t1", outside.clock)
    assert run(minted.token(CLIENT, outside)) == "t2"
    assert len(outside.posts) == 2


def test_an_upstream_that_refuses_every_token_does_not_storm_who_gives_them() -> None:
    outside, minted = Outside(*[answer(f"t{number}") for number in range(1000)]), Minted()
    given_again = 0
    for second in range(300):
        outside.clock = NOW + second
        given_again += minted.forget(CLIENT, run(minted.token(CLIENT, outside)), outside.clock)
    assert given_again == 300 / FORCED
    assert len(outside.posts) == 1 + given_again


def test_what_was_never_held_need_not_be_forgotten() -> None:
    minted = Minted()
    assert minted.forget(CLIENT, "t1", NOW)
    assert len(minted) == 0


def test_a_token_that_was_on_its_way_when_another_was_refused_is_not_kept() -> None:
    outside, minted = Outside(answer("t1"), answer("late"), answer("t3")), Minted()
    run(minted.token(CLIENT, outside))
    outside.clock, outside.slow = NOW + 3550, True
    run(minted.token(CLIENT, outside))
    renewal = begin(outside.deferred.pop())
    outside.clock += 1
    assert minted.forget(CLIENT, "t1", outside.clock)
    with pytest.raises(StopIteration):
        renewal.send(None)
    outside.slow = False
    assert run(minted.token(CLIENT, outside)) == "t3"


def test_a_fetch_for_which_all_was_in_vain_has_the_token_that_is_there() -> None:
    outside, minted = Outside(answer("late"), answer("t2")), Minted()
    outside.slow = True
    late = begin(minted.token(CLIENT, outside))
    outside.clock += 1
    assert finish(begin(minted.token(CLIENT, outside))) == "t2"
    outside.clock += 1
    assert minted.forget(CLIENT, "t2", outside.clock)
    assert finish(late) == "t2"


def test_a_refused_token_stays_where_no_other_can_be_had() -> None:
    """A caller can make an upstream say 401; that must not take the token away from all others."""
    outside, minted = Outside(answer("t1"), (503, b"")), Minted()
    run(minted.token(CLIENT, outside))
    assert minted.forget(CLIENT, "t1", NOW)
    for _ in range(10):
        assert run(minted.token(CLIENT, outside)) == "t1"
    assert len(outside.posts) == 2
    outside.clock += PAUSE
    outside.answers = [answer("t2")]
    assert run(minted.token(CLIENT, outside)) == "t2"


def test_a_refused_token_serves_those_for_whom_there_is_no_room() -> None:
    outside, minted = Outside(answer("t1"), answer("t2")), Minted()
    run(minted.token(CLIENT, outside))
    assert minted.forget(CLIENT, "t1", NOW)
    outside.slow = True
    waiting = [begin(minted.token(CLIENT, outside)) for _ in range(MOST_FETCHES)]
    assert run(minted.token(CLIENT, outside)) == "t1"
    assert minted.forget(CLIENT, "t1", NOW)  # another one is on its way
    assert [finish(work) for work in waiting] == ["t2"] * MOST_FETCHES


def test_a_token_that_ends_before_it_is_here() -> None:
    outside = Outside(answer(expires_in=1))
    outside.slow = True
    work = begin(Minted().token(CLIENT, outside))
    outside.clock += 1
    assert refused(work) == "UPSTREAM_LEDGER_CLIENT: the token ended before it was here"


@given(st.lists(st.tuples(st.floats(0, 400), st.sampled_from(["ask", "refuse", "settle"])), max_size=40))
def test_whatever_happens_a_token_is_used_only_while_it_is_good(steps: list[tuple[float, str]]) -> None:
    outside, minted, made = Outside(), Minted(), {}

    async def post(*_: Any) -> tuple[int, bytes]:
        text = f"t{len(made)}"
        made[text] = outside.clock + 100
        return answer(text, expires_in=100)

    outside.post = post  # type: ignore[method-assign]  # each answer is another token
    last = ""
    for seconds, step in steps:
        outside.clock += seconds
        if step == "settle":
            outside.settle()
        elif step == "refuse":
            minted.forget(CLIENT, last, outside.clock)
        else:
            last = run(minted.token(CLIENT, outside))
            assert outside.clock < made[last]
    outside.settle()
