"""Credentials of every kind: the gate shows the upstream its own, and each is checked by somebody else's code.

Client credentials come from the real provider. Signed JWTs are checked by PyJWT, AWS signatures by botocore, as the
servers that want them would.
"""

import json
import shutil
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from typer.testing import CliRunner

from airgate import keys
from airgate.dev.stack import Stack

AWS = {"access_key_id": "AKIAEXAMPLE", "secret_access_key": "an/example+secret", "session_token": "a-session"}
ISSUER = "https://gate.example.com"
PASSWORD = "correct horse battery staple"


class Upstream:
    """An API, its token endpoint and its login: keeps what came, and answers as it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, dict[str, str], bytes]] = []
        self.grants: list[dict[str, list[str]]] = []
        self.logins: list[tuple[str, bytes]] = []
        self.refused: set[str] = set()  # tokens that the API does not take any more
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, answer = outer.answer(self.command, self.path, headers, body)
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = _answer  # noqa: N815 - the names that http.server looks for

            def log_message(self, *_: object) -> None:
                """Nothing: tests look at what came."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        if path == "/token":
            self.grants.append(parse_qs(body.decode()))
            return 200, {"access_token": f"granted-{len(self.grants)}", "expires_in": 3600}
        if path == "/login":
            self.logins.append((headers["content-type"], body))
            return 201, {"session": {"jwt": f"session-{len(self.logins)}"}}
        self.calls.append((method, path, headers, body))
        if any(token in headers.get("authorization", "") for token in self.refused):
            return 401, {"error": "expired"}
        return 200, {}


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: Any) -> str:
    form = serialization.PrivateFormat.PKCS8
    text: bytes = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return text.decode()


@pytest.fixture(scope="module")
def assertion_keys(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two keys, made by the command: the second signs, the first is still published."""
    file = tmp_path_factory.mktemp("keys") / "assertion-keys.json"
    for arguments in (
        ["assertion", "new", "--issuer", ISSUER, "--out", str(file)],
        ["assertion", "rotate", str(file)],
    ):
        assert CliRunner().invoke(keys.app, arguments).exit_code == 0
    return file.read_text("utf-8")


@pytest.fixture(scope="module")
def api() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


SEED = """
upstreams:
  fixed: {{base: "{api}/fixed", owner: o@example.com, credentials: {{main: {{kind: header, secret: UPSTREAM_KEY, \
header: x-api-key, format: "Key {{secret}}"}}}}}}
  basic: {{base: "{api}/basic", owner: o@example.com, credentials: {{main: {{kind: basic, user: svc, \
secret: UPSTREAM_PASSWORD}}}}}}
  oauth:
    base: "{api}/oauth"
    owner: o@example.com
    credentials:
      main: {{kind: client_credentials, token_url: "{provider}/token", client_id: finance-etl, secret: UPSTREAM_CLIENT,
        resource: "https://gate.example.com"}}
  grant:
    base: "{api}/grant"
    owner: o@example.com
    credentials:
      main: {{kind: jwt_bearer, secret: UPSTREAM_ACCOUNT, algorithm: RS256, scope: [a, b], token_url: "{api}/token"}}
  snow:
    base: "{api}/snow"
    owner: o@example.com
    set_headers: {{x-snowflake-authorization-token-type: KEYPAIR_JWT}}
    credentials:
      main: {{kind: jwt_bearer, secret: UPSTREAM_RSA, algorithm: RS256, issuer: "ACCOUNT.USER.{{fingerprint}}",
        subject: ACCOUNT.USER, lifetime: 10m}}
  elliptic:
    base: "{api}/elliptic"
    owner: o@example.com
    credentials:
      main: {{kind: jwt_bearer, secret: UPSTREAM_EC, algorithm: ES256, issuer: gate, audience: elliptic, key_id: k1}}
  login:
    base: "{api}/login-api"
    owner: o@example.com
    credentials:
      main: {{kind: login, url: "{api}/login", secret: UPSTREAM_PASSWORD, token: [session, jwt], lifetime: 30m,
        fields: {{username: gate, password: "{{secret}}"}}, encoding: json}}
  aws:
    base: "{api}/aws"
    owner: o@example.com
    credentials:
      main: {{kind: sigv4, secret: UPSTREAM_AWS, region: eu-central-1, service: execute-api}}
  own: {{base: "{api}/own", owner: o@example.com, credentials: {{main: {{kind: caller}}}}}}
  bare: {{base: "{api}/bare", owner: o@example.com}}
  vouched: {{base: "{api}/vouched", owner: o@example.com, assertion: true}}
policies:
  - id: open
    description: Finance readers may do anything here
    owner: o@example.com
    effect: permit
    subject: {{roles: {{any: [finance-reader]}}}}
    target:
      upstream: [fixed, basic, oauth, grant, snow, elliptic, login, aws, own, bare, vouched]
      methods: ["*"]
      paths: ["/**"]
"""


@pytest.fixture(scope="module")
def keyed(
    stack: Stack,
    api: Upstream,
    rsa_key: rsa.RSAPrivateKey,
    ec_key: ec.EllipticCurvePrivateKey,
    start_gate: Callable[..., Any],
    publish: Callable[..., Any],
    lab_seed: Path,
    assertion_keys: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """A gate that holds a secret of each kind."""
    seed = tmp_path_factory.mktemp("credentials") / "kv-seed"
    seed.mkdir()
    shutil.copytree(lab_seed / "issuers", seed / "issuers")
    shutil.copy(lab_seed / "roles.yaml", seed)
    (seed / "upstreams.yaml").write_text(SEED.format(api=api.url, provider=stack.provider))
    account = {
        "type": "service_account",
        "client_email": "gate@project.iam.gserviceaccount.com",
        "private_key_id": "key-1",
        "private_key": pem(rsa_key),
        "token_uri": f"{api.url}/token",
    }
    gate = start_gate(
        None,
        {
            "UPSTREAM_KEY": "sesame",
            "UPSTREAM_PASSWORD": PASSWORD + "\n",
            "UPSTREAM_CLIENT": stack.clients["finance-etl"]["client_secret"],
            "UPSTREAM_ACCOUNT": json.dumps(account),
            "UPSTREAM_RSA": pem(rsa_key),
            "UPSTREAM_EC": pem(ec_key),
            "UPSTREAM_AWS": json.dumps(AWS),
            "ASSERTION_KEYS": assertion_keys,
        },
    )
    publish(seed, gate)
    gate.wait()
    return gate


@pytest.fixture
def call(keyed: Any, api: Upstream, reader: str) -> Callable[..., dict[str, str]]:
    """call(path, …): make a call that is answered with 200, and return the headers that the API got."""

    def make(path: str, **more: Any) -> dict[str, str]:
        api.calls.clear()
        answer = keyed.call(path, token=reader, **more)
        assert answer.status == 200, answer.body
        assert reader.rpartition(".")[2] not in str(api.calls)
        return api.calls[-1][2]

    return make


def test_without_a_credential_nothing_is_shown(call: Any) -> None:
    assert not {"authorization", "x-api-key"} & set(call("/bare/x"))


def test_a_header(call: Any) -> None:
    assert (
        call("/fixed/x", headers={"X-Api-Key": "forged", "X_Api_Key": "forged"})["x-api-key"] == "Key sesame"
    )


def test_user_and_password(call: Any) -> None:
    assert call("/basic/x")["authorization"] == "Basic " + b64encode(f"svc:{PASSWORD}".encode()).decode()


def test_client_credentials_of_the_real_provider(call: Any, stack: Stack) -> None:
    shown = [call("/oauth/x")["authorization"] for _ in range(3)]
    assert len(set(shown)) == 1  # one token for all
    claims = jwt.decode(shown[0].removeprefix("Bearer "), options={"verify_signature": False})
    assert (claims["iss"], claims["client_id"]) == (stack.provider, "finance-etl")


def test_a_signed_grant(call: Any, api: Upstream, rsa_key: rsa.RSAPrivateKey) -> None:
    assert call("/grant/x")["authorization"].startswith("Bearer granted-")
    grant = api.grants[-1]
    assert grant["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    claims = jwt.decode(grant["assertion"][0], rsa_key.public_key(), ["RS256"], audience=f"{api.url}/token")
    assert (claims["iss"], claims["scope"]) == ("gate@project.iam.gserviceaccount.com", "a b")
    assert jwt.get_unverified_header(grant["assertion"][0])["kid"] == "key-1"


def test_a_signed_token_names_its_key_as_snowflake_wants_it(call: Any, rsa_key: rsa.RSAPrivateKey) -> None:
    got = call("/snow/x", headers={"X-Snowflake-Authorization-Token-Type": "OAUTH"})
    assert got["x-snowflake-authorization-token-type"] == "KEYPAIR_JWT"
    claims = jwt.decode(got["authorization"].removeprefix("Bearer "), rsa_key.public_key(), ["RS256"])
    public = rsa_key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert claims["iss"] == "ACCOUNT.USER.SHA256:" + b64encode(sha256(public).digest()).decode()
    assert (claims["sub"], claims["exp"] - claims["iat"]) == ("ACCOUNT.USER", 600)


def test_a_signed_token_by_a_curve(call: Any, ec_key: ec.EllipticCurvePrivateKey) -> None:
    token = call("/elliptic/x")["authorization"].removeprefix("Bearer ")
    jwt.decode(token, ec_key.public_key(), ["ES256"], audience="elliptic", issuer="gate")
    assert jwt.get_unverified_header(token)["kid"] == "k1"


def test_a_login(call: Any, api: Upstream) -> None:
    first = call("/login/x")["authorization"]
    assert first.startswith("Bearer session-")
    assert call("/login/y")["authorization"] == first
    kind, body = api.logins[-1]
    assert kind.startswith("application/json")
    assert json.loads(body) == {"username": "gate", "password": PASSWORD}


def test_a_refused_token_is_replaced_once(call: Any, api: Upstream, keyed: Any, reader: str) -> None:
    old = call("/login/x")["authorization"]
    api.refused.add(old.removeprefix("Bearer "))
    assert call("/login/x", method="POST", body=b"{}")["authorization"] != old
    assert [body for *_, body in api.calls] == [
        b"{}",
        b"{}",
    ]  # the refused call, and the one that took its place


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("GET", "/x/y?b=2&a=1&a=0", b"", id="a query"),
        pytest.param("GET", "/caf%C3%A9/a%20b?q=%2F%20x&empty=&bare", b"", id="escapes"),
        pytest.param("POST", "/x", b'{"amount":1}', id="a body"),
        pytest.param("PUT", "/a:b@c,d/~x", b"\x00\xff" * 1000, id="bytes"),
    ],
)
def test_a_signature_that_aws_would_take(
    call: Any, api: Upstream, method: str, path: str, body: bytes
) -> None:
    got = call("/aws" + path, method=method, body=body, headers={"Content-Type": "application/json"})
    _, target, _, received = api.calls[-1]
    assert received == body
    signed = dict(
        part.partition("=")[::2]
        for part in got["authorization"].removeprefix("AWS4-HMAC-SHA256 ").split(", ")
    )
    names = signed["SignedHeaders"].split(";")
    assert {"host", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"} <= set(names)
    request = AWSRequest(method, api.url + target, data=body)
    for name in names:
        request.headers[name] = got[name]
    request.context["timestamp"] = got["x-amz-date"]
    held = Credentials(AWS["access_key_id"], AWS["secret_access_key"], AWS["session_token"])
    auth = SigV4Auth(held, "execute-api", "eu-central-1")
    expected = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    assert signed["Signature"] == expected
    assert got["x-amz-content-sha256"] == sha256(body).hexdigest()


def test_who_calls_is_signed_and_the_keys_are_published(call: Any, keyed: Any, reader: str) -> None:
    published = jwt.PyJWKSet.from_dict(keyed.call("/-/jwks.json").json())
    assert len(published.keys) == 2
    headers = {"Airgate-Dag-Id": "finance_close", "Airgate-Assertion": "forged"}
    first, second = (call("/vouched/x", headers=headers)["airgate-assertion"] for _ in range(2))
    assert first != second  # each is for one request
    key = published[jwt.get_unverified_header(first)["kid"]]
    claims = jwt.decode(first, key, ["ES256"], audience="vouched", issuer=ISSUER)
    assert (claims["sub"], claims["exp"] - claims["iat"]) == ("finance-etl", 60)
    assert claims["airgate"]["dag"] == {"value": "finance_close", "attested": False}
    assert claims["airgate"]["policy"] == ["open"]
    assert keyed.events(claims["jti"])[0]["decision"] == "permit"
    assert "airgate-assertion" not in call("/bare/x", headers=headers)


def test_a_body_too_long_to_be_signed(keyed: Any, reader: str, api: Upstream) -> None:
    api.calls.clear()
    answer = keyed.call("/aws/x", "POST", token=reader, body=b"a" * (1024 * 1024 + 1))
    assert (answer.status, answer.code) == (413, "request.body_too_large")
    assert api.calls == []


def test_the_callers_own(keyed: Any, reader: str, api: Upstream) -> None:
    headers = {"Airgate-Token": reader, "Authorization": "Basic YTpi"}
    assert keyed.call("/own/x", headers=headers).status == 200
    assert api.calls[-1][2]["authorization"] == "Basic YTpi"
    assert keyed.call("/bare/x", headers=headers).status == 200
    assert "authorization" not in api.calls[-1][2]
    headers["Authorization"] = f"Bearer {reader}"
    assert keyed.call("/own/x", headers=headers).code == "request.header_invalid"


def test_a_secret_is_rotated_under_traffic_and_no_call_fails(
    keyed: Any, start_gate: Callable[..., Any], api: Upstream, reader: str
) -> None:
    """A new version of the Worker has the new secret while the old one still answers; the policy stays as it is."""
    old, new = keyed, start_gate(keyed.state, {"UPSTREAM_KEY": "open"})
    statuses, ended = [], threading.Event()

    def call_both() -> None:
        while not ended.is_set():
            statuses.extend([gate.call("/fixed/x", token=reader).status for gate in (old, new)])

    new.wait()
    api.calls.clear()
    callers = [threading.Thread(target=call_both) for _ in range(4)]
    for caller in callers:
        caller.start()
    ended.wait(2)
    ended.set()
    for caller in callers:
        caller.join(20)
    assert set(statuses) == {200}
    assert {headers["x-api-key"] for _, _, headers, _ in api.calls} == {"Key sesame", "Key open"}
    bundles = {gate.decisions()[-1]["bundle"] for gate in (old, new)}
    assert len(bundles) == 1


def test_no_log_holds_a_secret(keyed: Any, api: Upstream) -> None:
    log = keyed.log.read_text("utf-8")
    for secret in (
        "sesame",
        PASSWORD,
        "PRIVATE KEY",
        AWS["secret_access_key"],
        "session-",
        "granted-",
        "YTpi",
    ):
        assert secret not in log
