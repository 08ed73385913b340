"""Each identity against a server that speaks its protocol, and what a person reads when it fails."""

import base64
import json
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from airgate_provider import identity
from airgate_provider.errors import TokenRefused, TokenUnavailable
from conftest import Answer, Request, Server, granted, jwt

SECRET = "s3cret-of-finance"
BODY = "marker-in-the-body"
OAUTH = {"Content-Type": "application/json"}


def form(request: Request) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(request.body.decode()).items()}


def payload(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    value: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return value


def test_client_credentials_send_the_secret_as_a_header(server: Server, settings: Any) -> None:
    token = jwt()
    server.says(granted(token))
    found = identity.fetch(settings(scope="a b", audience="https://gate.example.com"))
    assert found.value == token
    [request] = server.requests
    assert (request.method, request.path) == ("POST", "/token")
    expected = base64.b64encode(f"finance-etl:{SECRET}".encode()).decode()
    assert request.headers["authorization"] == f"Basic {expected}"
    assert form(request) == {
        "grant_type": "client_credentials",
        "scope": "a b",
        "audience": "https://gate.example.com",
    }


def test_client_id_and_secret_are_form_urlencoded_before_they_are_joined(
    server: Server, settings: Any
) -> None:
    server.says(granted())
    identity.fetch(settings(login="a:b c", password="p%+ä"))
    sent = base64.b64decode(server.requests[0].headers["authorization"].removeprefix("Basic ")).decode()
    assert sent == "a%3Ab+c:p%25%2B%C3%A4"


def test_client_credentials_can_go_into_the_form(server: Server, settings: Any) -> None:
    server.says(granted())
    identity.fetch(settings(client_authentication="post", resource="https://gate.example.com"))
    [request] = server.requests
    assert "authorization" not in request.headers
    assert form(request) == {
        "grant_type": "client_credentials",
        "client_id": "finance-etl",
        "client_secret": SECRET,
        "resource": "https://gate.example.com",
    }


def test_a_password_file_of_the_machine_is_not_read(
    server: Server, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server.says(granted())
    identity.fetch(settings(client_authentication="post"))
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        pytest.param(
            Answer(200, f"<html>{BODY}</html>", {"Content-Type": "text/html; charset=utf-8"}),
            TokenUnavailable,
            "answered text/html, not JSON",
            id="a page instead of a token",
        ),
        pytest.param(
            Answer(200, BODY, {"Content-Type": BODY * 3}),
            TokenUnavailable,
            "answered something, not JSON",
            id="an odd type of content is not repeated",
        ),
        pytest.param(Answer(500, BODY), TokenUnavailable, "failed with status 500", id="status 500"),
        pytest.param(Answer(503, BODY), TokenUnavailable, "failed with status 503", id="status 503"),
        pytest.param(Answer(429, BODY), TokenUnavailable, "failed with status 429", id="too many requests"),
        pytest.param(Answer(hang_up=True), TokenUnavailable, "without an answer", id="nothing at all"),
        pytest.param(Answer(pause=1.2), TokenUnavailable, "did not answer within", id="an answer too late"),
        pytest.param(Answer(404, BODY), TokenRefused, "status 404", id="not found"),
        pytest.param(
            Answer(302, BODY, {"Location": "https://elsewhere.example.com"}),
            TokenRefused,
            "redirects (302)",
            id="a redirect is not followed with a secret",
        ),
        pytest.param(Answer(401, BODY), TokenRefused, 'Check "Client id"', id="401 without a reason"),
        pytest.param(
            Answer(401, json.dumps({"error": "invalid_client", "error_description": BODY}), OAUTH),
            TokenRefused,
            "refused: invalid_client (401)",
            id="a wrong secret",
        ),
        pytest.param(
            Answer(400, json.dumps({"error": "invalid_scope"}), OAUTH),
            TokenRefused,
            'Check "Scope"',
            id="a wrong scope",
        ),
        pytest.param(
            Answer(400, json.dumps({"error": BODY}), OAUTH),
            TokenRefused,
            "status 400",
            id="a made-up error code is not repeated",
        ),
        pytest.param(
            Answer(200, json.dumps({"token": BODY}), OAUTH),
            TokenUnavailable,
            "without an access_token",
            id="JSON without a token",
        ),
        pytest.param(
            Answer(200, json.dumps([BODY]), OAUTH),
            TokenUnavailable,
            "not JSON",
            id="JSON that is no object",
        ),
        pytest.param(
            Answer(200, json.dumps({"access_token": f"{BODY}\r\nX: 1", "token_type": "Bearer"}), OAUTH),
            TokenUnavailable,
            "without an access_token",
            id="a token that would end its header",
        ),
        pytest.param(
            Answer(200, '{"access_token": "' + "a" * 70_000 + '"}', OAUTH),
            TokenUnavailable,
            "not JSON",
            id="an endless answer",
        ),
    ],
)
def test_a_failing_token_endpoint_is_named_and_neither_its_answer_nor_our_secret(
    server: Server, settings: Any, monkeypatch: pytest.MonkeyPatch, answer: Answer, error: type, said: str
) -> None:
    monkeypatch.setattr(identity, "ANSWER_SECONDS", 0.6)
    server.says(answer)
    with pytest.raises(error) as raised:
        identity.fetch(settings())
    text = str(raised.value)
    assert said in text
    assert server.host in text
    assert BODY not in text
    assert SECRET not in text


def test_a_token_endpoint_that_is_away_is_named(settings: Any) -> None:
    with pytest.raises(TokenUnavailable, match=r"127\.0\.0\.1:9 cannot be reached"):
        identity.fetch(settings(token_url="http://127.0.0.1:9/token"))


@pytest.mark.parametrize(
    ("token", "expires_in", "lives"),
    [
        pytest.param(jwt(60), 3600, 3600, id="expires_in counts, whatever the token says"),
        pytest.param(jwt(600, issued=time.time() - 86_400), None, 600, id="else its own life, on any clock"),
        pytest.param(jwt(600), "soon", 600, id="else its own life, when expires_in is no number"),
        pytest.param("opaque", None, None, id="else nobody knows"),
    ],
)
def test_the_life_of_a_token_does_not_depend_on_the_providers_clock(
    server: Server, settings: Any, token: str, expires_in: Any, lives: float | None
) -> None:
    server.says(granted(token, expires_in=expires_in))
    found = identity.fetch(settings())
    if lives is None:
        assert (found.expires, found.refresh) == (None, None)
    else:
        assert found.expires == pytest.approx(time.time() + lives, abs=3)
        assert found.refresh == pytest.approx(time.time() + lives - min(300, lives * 0.2), abs=3)


def test_a_bound_token_comes_for_a_proof(server: Server, settings: Any) -> None:
    server.says(granted(token_type="DPoP"))
    found = identity.fetch(settings(dpop=True))
    proof = server.requests[0].headers["dpop"]
    claims = payload(proof)
    assert (claims["htm"], claims["htu"]) == ("POST", f"{server.url}/token")
    assert found.key is not None
    assert "ath" in payload(found.key.proof("GET", "https://gate.example.com/x?y=1", found.value))


def test_a_provider_may_ask_for_a_nonce(server: Server, settings: Any) -> None:
    asked = Answer(400, json.dumps({"error": "use_dpop_nonce"}), {**OAUTH, "DPoP-Nonce": "n-1"})
    server.says(asked, granted(token_type="DPoP"))
    identity.fetch(settings(dpop=True))
    assert "nonce" not in payload(server.requests[0].headers["dpop"])
    assert payload(server.requests[1].headers["dpop"])["nonce"] == "n-1"


@pytest.mark.parametrize("off", [3600, -3600], ids=["an hour behind", "an hour ahead"])
def test_a_clock_that_is_off_is_corrected_by_the_providers(server: Server, settings: Any, off: int) -> None:
    date = {"Date": formatdate(time.time() + off, usegmt=True)}
    refused = Answer(400, json.dumps({"error": "invalid_dpop_proof"}), {**OAUTH, **date})
    server.says(refused, granted(token_type="DPoP"))
    found = identity.fetch(settings(dpop=True))
    assert found.key is not None
    assert payload(server.requests[1].headers["dpop"])["iat"] == pytest.approx(time.time() + off, abs=3)
    assert payload(found.key.proof("GET", server.url, found.value))["iat"] == pytest.approx(
        time.time() + off, abs=3
    )


@pytest.mark.parametrize(
    ("dpop", "kind", "said"),
    [
        pytest.param(True, "Bearer", 'Switch "DPoP" off', id="asked to bind, and did not"),
        pytest.param(False, "DPoP", 'Switch "DPoP" on', id="bound, unasked"),
    ],
)
def test_a_token_of_the_other_kind_is_refused(
    server: Server, settings: Any, dpop: bool, kind: str, said: str
) -> None:
    server.says(granted(token_type=kind))
    with pytest.raises(TokenRefused, match=said):
        identity.fetch(settings(dpop=dpop))


def test_a_projected_token_is_read_from_its_file(settings: Any, tmp_path: Path) -> None:
    file = tmp_path / "token"
    token = jwt(3600, aud=["https://gate.example.com"])
    file.write_text(token + "\n")
    said = settings(identity="kubernetes", token_file=str(file), audience="https://gate.example.com")
    found = identity.fetch(said)
    assert found.value == token
    assert found.refresh == pytest.approx(time.time() + 60, abs=3)


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        pytest.param(None, TokenUnavailable, "There is no file", id="no file"),
        pytest.param("", TokenUnavailable, "holds no token", id="an empty file"),
        pytest.param("two words", TokenUnavailable, "holds no token", id="not a token"),
        pytest.param("tökén", TokenUnavailable, "cannot be read", id="not ASCII"),
        pytest.param(
            jwt(aud="https://other.example.com"), TokenRefused, "another audience", id="for another"
        ),
    ],
)
def test_a_bad_token_file_is_named(
    settings: Any, tmp_path: Path, content: str | None, error: type, said: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(error, match=said) as raised:
        identity.fetch(
            settings(identity="kubernetes", token_file=str(file), audience="https://gate.example.com")
        )
    assert str(file) in str(raised.value)
    assert not content or content not in str(raised.value)


def test_an_expired_token_in_a_file_is_read_again_every_time(settings: Any, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(jwt(60, issued=time.time() - 120))
    found = identity.fetch(settings(identity="token_file", token_file=str(file)))
    assert found.refresh is not None
    assert found.refresh <= time.time()


def test_a_fixed_token_is_sent_as_it_is(settings: Any) -> None:
    found = identity.fetch(settings(identity="token", password="opaque-token"))
    assert (found.value, found.expires) == ("opaque-token", None)


STS = "https://sts.amazonaws.com/doc/2011-06-15/"


def sts(token: str) -> Answer:
    """What the query protocol of AWS STS says."""
    return Answer(
        body=f'<GetWebIdentityTokenResponse xmlns="{STS}"><GetWebIdentityTokenResult>'
        f"<WebIdentityToken>{token}</WebIdentityToken><Expiration>2030-01-01T00:00:00Z</Expiration>"
        "</GetWebIdentityTokenResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>"
        "</GetWebIdentityTokenResponse>",
        headers={"Content-Type": "text/xml"},
    )


def sts_error(status: int, code: str) -> Answer:
    return Answer(
        status,
        f'<ErrorResponse xmlns="{STS}"><Error><Type>Sender</Type><Code>{code}</Code><Message>{BODY}</Message>'
        "</Error><RequestId>1</RequestId></ErrorResponse>",
        {"Content-Type": "text/xml"},
    )


@pytest.fixture
def aws(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return server


def test_aws_signs_a_token_that_says_who_the_role_is(aws: Server, settings: Any) -> None:
    token = jwt(900)
    aws.says(sts(token))
    said = settings(identity="aws", audience="https://gate.example.com", region="eu-central-1")
    found = identity.fetch(said)
    assert found.value == token
    assert found.expires == pytest.approx(time.time() + 900, abs=3)
    [request] = aws.requests
    sent = form(request)
    assert sent["Action"] == "GetWebIdentityToken"
    assert sent["Audience.member.1"] == "https://gate.example.com"
    assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/eu-central-1/sts/aws4_request" in request.headers["authorization"]


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        pytest.param(
            sts_error(403, "AccessDenied"), TokenRefused, "AccessDenied", id="the role is not allowed to"
        ),
        pytest.param(sts_error(503, "ServiceUnavailable"), TokenUnavailable, "503", id="STS is away"),
        pytest.param(Answer(200, "not xml"), TokenUnavailable, "AWS STS", id="no answer of STS"),
    ],
)
def test_a_failing_sts_is_named(aws: Server, settings: Any, answer: Answer, error: type, said: str) -> None:
    aws.says(answer)
    with pytest.raises(error, match=said) as raised:
        identity.fetch(settings(identity="aws", audience="https://gate.example.com", region="eu-central-1"))
    assert BODY not in str(raised.value)
    assert "aws-secret" not in str(raised.value)


def test_a_task_without_a_role_is_told_so(
    aws: Server, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(TokenUnavailable, match="that the task has a role"):
        identity.fetch(settings(identity="aws", audience="https://gate.example.com", region="eu-central-1"))
    assert aws.requests == []


@pytest.fixture
def metadata(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("GCE_METADATA_HOST", server.host)
    return server


def test_gcp_gives_an_identity_token_for_the_audience(
    metadata: Server, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = jwt(3600)

    def answer(request: Request) -> Answer:
        if request.headers.get("metadata-flavor") != "Google":
            return Answer(403)
        return Answer(body=token, headers={"Metadata-Flavor": "Google"})

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # never asked: this is the machine's own
    monkeypatch.delenv("no_proxy")
    metadata.says(answer)
    found = identity.fetch(settings(identity="gcp", audience="https://gate.example.com"))
    assert found.value == token
    [request] = metadata.requests
    assert request.path == (
        "/computeMetadata/v1/instance/service-accounts/default/identity"
        "?audience=https%3A%2F%2Fgate.example.com&format=full"
    )


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        pytest.param(Answer(body=jwt()), TokenUnavailable, "lacks Metadata-Flavor", id="somebody else"),
        pytest.param(
            Answer(404, BODY, {"Metadata-Flavor": "Google"}), TokenRefused, "status 404", id="no account"
        ),
        pytest.param(
            Answer(500, BODY, {"Metadata-Flavor": "Google"}), TokenUnavailable, "status 500", id="fails"
        ),
        pytest.param(
            Answer(200, BODY, {"Metadata-Flavor": "Google"}),
            TokenUnavailable,
            "without a token",
            id="no token",
        ),
        pytest.param(Answer(hang_up=True), TokenUnavailable, "Google Cloud", id="nothing"),
    ],
)
def test_a_failing_metadata_server_is_named(
    metadata: Server, settings: Any, answer: Answer, error: type, said: str
) -> None:
    metadata.says(answer)
    with pytest.raises(error, match=said) as raised:
        identity.fetch(settings(identity="gcp", audience="https://gate.example.com"))
    assert metadata.host in str(raised.value)
    assert BODY not in str(raised.value)


def test_no_token_is_in_a_representation(settings: Any) -> None:
    said = settings(identity="token", password="opaque-token")
    assert "opaque-token" not in repr(identity.fetch(said))
    assert "opaque-token" not in repr(said)
