"""Issuers as they are at night: keys that change under traffic, servers that are down, or slow, or lie.

One gate knows many issuers, and each test has issuers of its own, which the gate has not asked anything yet. What an
issuer was asked is counted where it is answered.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from airgate.dev.stack import AUDIENCE
from keys import LIMIT, MOST_LOOKING, TIMEOUT

SEED = """
issuers:
  {name}:
    issuer: {issuer}
    {keys}
    audiences: ["{audience}"]
    algorithms: [ES256]
    kind: {{default: workload}}
"""
ROLES = """
roles:
  reader:
    description: Reads
    granted_to: [{grants}]
upstreams:
  lab: {{base: "https://lab.example.com", local: sample, owner: lab@example.com}}
policies:
  - id: read
    description: Readers read
    owner: lab@example.com
    effect: permit
    subject: {{roles: {{any: [reader]}}}}
    target: {{upstream: lab, methods: [GET], paths: ["/**"]}}
"""
READ = "/lab/v1/entries"
Answer = Callable[[BaseHTTPRequestHandler], None]


class SigningKey:
    """A key of an issuer: signs tokens, and shows its public half."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self._private = ec.generate_private_key(ec.SECP256R1())

    @property
    def jwk(self) -> dict[str, Any]:
        public = ECAlgorithm.to_jwk(self._private.public_key(), as_dict=True)
        return {name: public[name] for name in ("kty", "crv", "x", "y")} | {"kid": self.kid, "alg": "ES256"}

    def token(self, issuer: str, kid: str | None = None) -> str:
        now = int(time.time())
        claims = {
            "iss": issuer,
            "sub": "etl",
            "aud": AUDIENCE,
            "client_id": "etl",
            "jti": str(time.monotonic_ns()),
            "iat": now,
            "exp": now + 300,
            "groups": ["readers"],
        }
        return jwt.encode(claims, self._private, "ES256", {"kid": kid or self.kid, "typ": "at+jwt"})


class Issuer:
    """A server of a discovery document and keys, which counts who asks, and can be made to misbehave."""

    def __init__(self) -> None:
        self.published: list[SigningKey] = [SigningKey("first")]
        self.asked: list[str] = []
        self.discovered_as: str | None = None  # None: its own name
        self.keys_answer: Answer | None = None  # None: the keys
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                if self.path == "/keys" and issuer.keys_answer is not None:
                    issuer.keys_answer(self)
                elif self.path == "/keys":
                    document(self, {"keys": [key.jwk for key in issuer.published]})
                elif self.path == "/.well-known/openid-configuration":
                    name = issuer.discovered_as or issuer.url
                    document(self, {"issuer": name, "jwks_uri": issuer.url + "/keys"})
                else:
                    self.send_error(404)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
                """Nothing: tests look at `asked`."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

        self._server: ThreadingHTTPServer | None = None
        self._start = lambda port: Server(("127.0.0.1", port), Handler)
        self.start(0)
        assert self._server is not None
        self._port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self._port}"

    @property
    def keys_fetched(self) -> int:
        return self.asked.count("/keys")

    def start(self, port: int | None = None) -> None:
        self._server = self._start(self._port if port is None else port)
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def token(self, **which: Any) -> str:
        return self.published[0].token(self.url, **which)


def document(request: BaseHTTPRequestHandler, value: Any) -> None:
    body = json.dumps(value).encode()
    request.send_response(200)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


DISCOVERED, DIRECT = 9, 10  # issuers whose keys are found by discovery, and those whose jwks_uri policy says


class Town(NamedTuple):
    """A gate, and the issuers that no test has used yet."""

    gate: Any
    discovered: list[Issuer]
    direct: list[Issuer]


@pytest.fixture(scope="module")
def town(
    start_gate: Callable[..., Any], publish: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Town]:
    issuers = [Issuer() for _ in range(DISCOVERED + DIRECT)]
    seed = tmp_path_factory.mktemp("town")
    for number, each in enumerate(issuers):
        keys = f"jwks_uri: {each.url}/keys" if number >= DISCOVERED else ""
        text = SEED.format(name=f"i{number}", issuer=each.url, keys=keys, audience=AUDIENCE)
        (seed / f"i{number}.yaml").write_text(text)
    grants = ", ".join(
        f"{{issuer: i{number}, claim: groups, value: readers}}" for number in range(len(issuers))
    )
    (seed / "roles.yaml").write_text(ROLES.format(grants=grants))
    gate = start_gate()
    publish(seed, gate)
    gate.wait()
    yield Town(gate, issuers[:DISCOVERED], issuers[DISCOVERED:])
    for each in issuers:
        each.stop()


@pytest.fixture
def gate(town: Town) -> Any:
    return town.gate


@pytest.fixture
def issuer(town: Town) -> Issuer:
    """An issuer of the test's own, found by discovery."""
    return town.discovered.pop()


@pytest.fixture
def direct(town: Town) -> Issuer:
    """An issuer of the test's own, of which policy says where its keys are."""
    return town.direct.pop()


class Traffic:
    """Calls that go on in the background, each with a new token by the key that the issuer signs with just then."""

    def __init__(self, gate: Any, token: Callable[[], str]) -> None:
        self.answers: list[tuple[int, str]] = []
        self._gate, self._token = gate, token
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(4)]

    def _call(self) -> None:
        while not self._over.is_set():
            answer = self._gate.call(READ, token=self._token())
            self.answers.append((answer.status, answer.code))

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def more(self, count: int) -> None:
        """Wait for that many more answers."""
        wanted, deadline = len(self.answers) + count, time.monotonic() + 30
        while len(self.answers) < wanted:
            assert time.monotonic() < deadline, "the traffic has stopped"
            time.sleep(0.01)


def test_a_key_is_rotated_while_traffic_flows_and_no_call_fails(gate: Any, issuer: Issuer) -> None:
    """As issuers do it: the new key is published, then used, then the old one goes. No call may notice."""
    signs = [issuer.published[0]]
    with Traffic(gate, lambda: signs[0].token(issuer.url)) as traffic:
        traffic.more(50)
        new = SigningKey("second")
        issuer.published = [signs[0], new]
        traffic.more(50)
        signs[0] = new  # from here on, with a key that the gate has never seen
        traffic.more(100)
        issuer.published = [new]
        traffic.more(50)
    assert set(traffic.answers) == {(200, "")}
    assert 2 <= issuer.keys_fetched <= 2 + 2 * MOST_LOOKING


def test_a_key_that_is_used_before_anybody_could_know_it_is_found_at_once(gate: Any, issuer: Issuer) -> None:
    assert gate.call(READ, token=issuer.token()).status == 200
    issuer.published = [SigningKey("sudden")]
    assert gate.call(READ, token=issuer.token()).status == 200
    assert issuer.keys_fetched == 2


def test_an_issuer_is_down_for_the_length_of_the_test_and_its_tokens_are_still_believed(
    gate: Any, issuer: Issuer
) -> None:
    assert gate.call(READ, token=issuer.token()).status == 200
    known, asked = issuer.published[0], len(issuer.asked)
    issuer.stop()
    with Traffic(gate, lambda: known.token(issuer.url)) as traffic:
        traffic.more(100)
        later = SigningKey("later")
        unknown = gate.call(READ, token=later.token(issuer.url))
        assert (unknown.status, unknown.code) == (503, "issuer.unavailable")
        assert int(unknown.headers["Retry-After"]) > 0
        forged = later.token(issuer.url, kid=known.kid)
        assert gate.call(READ, token=forged).code == "token.signature"
        traffic.more(50)
        issuer.published = [later, known]
        issuer.start()
        time.sleep(5.1)  # what a failing issuer is spared (keys.RETRY)
        assert gate.call(READ, token=later.token(issuer.url)).status == 200
        traffic.more(10)
    assert set(traffic.answers) == {(200, "")}
    assert len(issuer.asked) > asked


def test_a_flood_of_unknown_key_ids_asks_the_issuer_but_a_few_times(gate: Any, direct: Issuer) -> None:
    assert gate.call(READ, token=direct.token()).status == 200
    stranger = SigningKey("stranger")
    tokens = [stranger.token(direct.url, kid=f"made-up-{number}") for number in range(400)]
    with ThreadPoolExecutor(40) as pool:
        codes = {answer.code for answer in pool.map(lambda token: gate.call(READ, token=token), tokens)}
    assert codes <= {"token.key", "issuer.unavailable"}
    assert direct.keys_fetched <= 1 + MOST_LOOKING
    assert (
        gate.call(READ, token=direct.token()).status == 200
    )  # and the keys that it has are as good as before
    one_more = gate.call(READ, token=stranger.token(direct.url, kid="made-up-too"))
    assert one_more.code == "token.key"
    assert direct.keys_fetched <= 1 + MOST_LOOKING


def redirected(to: Issuer) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", to.url + "/keys")
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def oversized(request: BaseHTTPRequestHandler) -> None:
    """Good keys, in a document that is a byte too long."""
    body = json.dumps({"keys": [SigningKey("first").jwk]}).encode()
    request.send_response(200)
    request.end_headers()
    request.wfile.write(body + b" " * (LIMIT + 1 - len(body)))


def endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        for _ in range(40):
            request.wfile.write(b" " * 65_536)
    except OSError:
        return  # the gate has had enough


def slow(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        for _ in range(40):
            request.wfile.write(b" ")
            request.wfile.flush()
            time.sleep(0.25)
    except OSError:
        return


def html(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(b"<!doctype html><title>Sign in</title>")


def broken(request: BaseHTTPRequestHandler) -> None:
    request.send_error(500)


def nested(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(b'{"keys":' + b"[" * 60_000 + b"]" * 60_000 + b"}")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(oversized, id="longer than is read"),
        pytest.param(endless, id="without end"),
        pytest.param(slow, id="a byte at a time"),
        pytest.param(html, id="a page for people"),
        pytest.param(broken, id="status 500"),
        pytest.param(nested, id="nested 60,000 deep"),
    ],
)
def test_keys_that_cannot_be_had(gate: Any, direct: Issuer, answer: Answer) -> None:
    direct.keys_answer = answer
    begun = time.monotonic()
    refused = gate.call(READ, token=direct.token())
    assert (refused.status, refused.code) == (503, "issuer.unavailable")
    assert time.monotonic() - begun < TIMEOUT + 2
    (decision,) = gate.events(refused)
    assert decision["detail"]
    direct.keys_answer = None
    time.sleep(5.1)  # what a failing issuer is spared (keys.RETRY)
    assert gate.call(READ, token=direct.token()).status == 200


def test_a_redirect_to_somebody_elses_keys_is_not_followed(gate: Any, direct: Issuer, issuer: Issuer) -> None:
    direct.keys_answer = redirected(issuer)
    forged = issuer.published[0].token(direct.url)
    assert gate.call(READ, token=forged).code == "issuer.unavailable"
    assert issuer.asked == []


def test_good_keys_stay_while_their_address_redirects(gate: Any, direct: Issuer, issuer: Issuer) -> None:
    assert gate.call(READ, token=direct.token()).status == 200
    direct.keys_answer = redirected(issuer)
    stranger = issuer.published[0]
    assert gate.call(READ, token=stranger.token(direct.url, kid="new")).code == "issuer.unavailable"
    assert gate.call(READ, token=direct.token()).status == 200
    assert issuer.asked == []


def test_a_discovery_document_that_speaks_for_another_issuer_is_not_believed(
    gate: Any, issuer: Issuer
) -> None:
    issuer.discovered_as = "https://login.example.com"
    refused = gate.call(READ, token=issuer.token())
    assert refused.code == "issuer.unavailable"
    assert "another issuer" in gate.events(refused)[0]["detail"]
    assert issuer.keys_fetched == 0


def test_one_issuers_key_is_nothing_to_andirect_even_under_the_same_id(
    gate: Any, direct: Issuer, issuer: Issuer
) -> None:
    assert direct.published[0].kid == issuer.published[0].kid
    assert gate.call(READ, token=issuer.token()).status == 200
    assert gate.call(READ, token=direct.token()).status == 200
    assert gate.call(READ, token=direct.published[0].token(issuer.url)).code == "token.signature"


def test_a_refused_caller_is_led_to_the_issuers(gate: Any, issuer: Issuer) -> None:
    challenge = gate.call(READ).headers["WWW-Authenticate"]
    about = challenge.partition('resource_metadata="')[2].partition('"')[0]
    assert about == "http://gate.example.com/.well-known/oauth-protected-resource"
    answer = gate.call(about.removeprefix("http://gate.example.com"))
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    said = answer.json()
    assert said["resource"] == "http://gate.example.com"
    assert issuer.url in said["authorization_servers"]
    assert gate.events(answer)[0]["page"] == "oauth-protected-resource"
    assert issuer.asked == []
