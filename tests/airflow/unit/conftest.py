"""Fixtures for the provider's unit tests, which run inside each version's own environment: small real HTTP servers."""

import atexit
import base64
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from typing import Any

import pytest

# Before Airflow is imported: it makes its home then, and reads its settings.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airgate-unit-")
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__TEST_CONNECTION"] = "Enabled"
os.environ["AIRFLOW__USAGE_DATA_COLLECTION__ENABLED"] = "False"
for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
    os.environ.pop(name, None)

# Only Airflow 3.3's API server attests tasks. (Asked of the installed package: Airflow is not imported yet.)
collect_ignore_glob = (
    [] if tuple(map(int, version("apache-airflow").split(".")[:2])) >= (3, 3) else ["test_attest_api*.py"]
)


@dataclass
class Request:
    """What reached a server. Header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    port: int  # the client's: one for each connection


@dataclass
class Answer:
    """What a server says."""

    status: int = 200
    body: bytes | str = b""
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0
    hang_up: bool = False


@dataclass
class Server:
    """A server on 127.0.0.1. It gives its answers one after the other, and the last one again and again."""

    url: str
    host: str
    answers: list[Answer | Callable[[Request], Answer]]
    requests: list[Request] = field(default_factory=list)

    def says(self, *answers: Answer | Callable[[Request], Answer]) -> "Server":
        self.answers[:] = answers
        return self

    def next(self, request: Request) -> Answer:
        self.requests.append(request)
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        return answer(request) if callable(answer) else answer


def serve() -> tuple[Server, ThreadingHTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = server.next(Request(self.command, self.path, headers, body, self.client_address[1]))
            time.sleep(answer.pause)
            if answer.hang_up:
                self.close_connection = True
                return
            text = answer.body.encode() if isinstance(answer.body, str) else answer.body
            self.send_response_only(answer.status)
            for name, value in {"Content-Length": str(len(text)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = do_PATCH = respond  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    host = f"127.0.0.1:{listening.server_address[1]}"
    server = Server(f"http://{host}", host, [Answer()])
    threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
    return server, listening


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that does as it is told."""
    made, listening = serve()
    yield made
    listening.shutdown()
    listening.server_close()


@pytest.fixture
def other() -> Iterator[Server]:
    """Another one."""
    made, listening = serve()
    yield made
    listening.shutdown()
    listening.server_close()


@pytest.fixture(autouse=True)
def forget_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test meets the tokens and calls of another one, nor a proxy."""
    from airgate_provider import call, tokens
    from airgate_provider.workload import Calls

    tokens.clear()
    monkeypatch.setattr(call, "_calls", Calls())
    monkeypatch.setenv("no_proxy", "*")


def jwt(seconds: float = 3600, *, issued: float | None = None, **claims: Any) -> str:
    """A token that looks like one; nobody here checks signatures."""
    now = time.time() if issued is None else issued
    payload = {"iss": "https://login.example.com", "iat": int(now), "exp": int(now + seconds), **claims}

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'RS256'})}.{part(payload)}.c2lnbmVk"


REQUEST_ID = "13f1d91360a9db0b8225424a5daed2c3"


def refused(status: int, code: str, retry_after: float | None = None, **headers: str) -> Answer:
    """What the gate says when it refuses. `retry_after`: seconds; None: trying again changes nothing."""
    problem = {
        "type": f"urn:airgate:reason:{code}",
        "title": "Because",
        "status": status,
        "code": code,
        "request_id": REQUEST_ID,
        "retryable": retry_after is not None,
        "contact": "finance-data@example.com",
    }
    told = {
        "Content-Type": "application/problem+json",
        "Airgate-Error": "gate",
        "Airgate-Request-Id": REQUEST_ID,
        "Airgate-Decision": "deny",
    }
    if retry_after is not None:
        problem["retry_after"] = retry_after
        told["Retry-After"] = str(retry_after)
    return Answer(status, json.dumps(problem), {**told, **headers})


def passed_on(status: int = 200, body: str = "{}", **headers: str) -> Answer:
    """What an upstream says, as the gate hands it on."""
    told = {"Airgate-Request-Id": REQUEST_ID, "Airgate-Decision": "permit", "Airgate-Policy": "p@b"}
    if status >= 400:
        told["Airgate-Error"] = "upstream"
    return Answer(status, body, {**headers, **told})


def copied(refusal: Answer) -> Answer:
    """The same from an upstream that copies a refusal, headers and all: the gate's own headers replace these."""
    return passed_on(refusal.status, str(refusal.body), **refusal.headers)


def granted(token: str | None = None, **more: Any) -> Answer:
    """What a token endpoint says (RFC 6749 §5.1)."""
    document = {"access_token": token or jwt(), "token_type": "Bearer", "expires_in": 3600, **more}
    return Answer(
        body=json.dumps({name: value for name, value in document.items() if value is not None}),
        headers={"Content-Type": "application/json"},
    )


@pytest.fixture
def connection(server: Server) -> Callable[..., Any]:
    """connection(identity=…, **extra): a connection of our type; `host`, `login`, `password` go where they belong."""
    from airgate_provider import compat

    def make(**values: Any) -> Any:
        own = {
            name: values.pop(name)
            for name in ("conn_id", "conn_type", "host", "login", "password", "schema", "port")
            if name in values
        }
        extra = {"upstream": "ledger", "token_url": f"{server.url}/token", **values}
        return compat.make_connection(
            **{
                "conn_id": "ledger",
                "conn_type": "airgate",
                "host": server.url,
                "login": "finance-etl",
                "password": "s3cret-of-finance",
                "extra": json.dumps(extra),
                **own,
            }
        )

    return make


@pytest.fixture
def settings(connection: Callable[..., Any]) -> Callable[..., Any]:
    """settings(**as for connection): what is read from it."""
    from airgate_provider import settings as module

    def make(**values: Any) -> Any:
        made = connection(**values)
        return module.read(made, made.extra_dejson)

    return make
