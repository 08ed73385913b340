"""nginx before an API, asking the real gate, as docs/envoy.md shows it. Only where this machine has an nginx."""

import os
import shutil
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from airgate.dev.envoy import Envoy
from airgate.dev.process import Process
from airgate.dev.stack import Stack
from forward import parse_target

NGINX = os.environ.get("NGINX") or shutil.which("nginx", path=f"{os.environ.get('PATH')}:/usr/sbin")
LEDGER = "ledger.internal.example.com"
READ = "/v1/entries"
Token = Callable[..., str]

pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx here")

AROUND = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {server}
}}
"""


def nginx(
    server: str, folder: Path, sample: int, edge: int, authority: Path, secret: str, port: int
) -> Process:
    """Start nginx with the page's server block, but for addresses, ports and the secret."""
    for before, after in (
        ("listen 80;", f"listen 127.0.0.1:{port};"),
        ("http://ledger.example.com:8000;", f"http://127.0.0.1:{sample};"),
        ("https://gate.example.com/-/", f"https://127.0.0.1:{edge}/-/"),
        ("proxy_ssl_server_name on;", "proxy_ssl_server_name on; proxy_ssl_name gate.example.com;"),
        ("/etc/ssl/certs/ca-certificates.crt", str(authority)),
        ("<secret>", secret),
    ):
        assert before in server
        server = server.replace(before, after)
    file = folder / f"nginx-{port}.conf"
    file.write_text(AROUND.format(folder=folder, server=server), "utf-8")
    return Process(
        "nginx",
        [str(NGINX), "-p", str(folder), "-e", "stderr", "-c", str(file)],
        log=folder / f"nginx-{port}.log",
        cwd=folder,
        env=os.environ,
    )


@pytest.fixture(scope="module")
def start(
    folder: Path,
    stack: Stack,
    asked: Any,
    certificate: tuple[Path, Path],
    nginx_server: str,
    free: Callable[[], int],
    answering: Callable[[httpx.Client, str], None],
) -> Iterator[Callable[[int], httpx.Client]]:
    """start(port): a client of nginx before the sample upstream, asking a gate whose edge is on that port."""
    running: list[Process] = []
    clients: list[httpx.Client] = []
    sample = httpx.URL(stack.sample).port or 0

    def begin(edge: int) -> httpx.Client:
        port, secret = free(), asked.secrets["old"]
        running.append(nginx(nginx_server, folder, sample, edge, certificate[0], secret, port))
        url = f"http://127.0.0.1:{port}"
        clients.append(httpx.Client(base_url=url, headers={"Host": LEDGER}, timeout=30, trust_env=False))
        answering(clients[-1], "/")
        return clients[-1]

    yield begin
    for client in clients:
        client.close()
    for process in running:
        process.stop()


@pytest.fixture(scope="module")
def client(start: Callable[[int], httpx.Client], edge: Envoy) -> httpx.Client:
    return start(edge.port("edge"))


def bearer(token: str, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", **{k.replace("_", "-"): v for k, v in headers.items()}}


def test_a_permitted_request_arrives_with_the_callers_name_and_without_its_token(
    client: httpx.Client, asked: Any, token: Token
) -> None:
    forged = {"Airgate_Subject": "admin", "Airgate.Subject": "admin", "Airgate-Roles": "admin"}
    forged |= {"X-Original-URI": "/v1/reports/x", "X-Original-Host": "lab.internal.example.com"}
    answer = client.post(
        READ + "?limit=1", content=b"hello", headers=bearer(token(), Airgate_Dag_Id="finance_close") | forged
    )
    assert answer.status_code == 200
    seen = answer.json()
    assert (seen["method"], seen["path"], seen["query"]) == ("POST", READ, "limit=1")
    assert seen["body"] == "hello"
    own = {name: value for name, value in seen["headers"].items() if name.startswith("airgate")}
    assert own.pop("airgate-assertion").count(".") == 2
    assert own.pop("airgate-policy").startswith("finance-data-publish@")
    assert own == {
        "airgate-dag-id": "finance_close",  # what names the task is the client's own, and stays
        "airgate-decision": "permit",
        "airgate-issuer": "company",
        "airgate-request-id": answer.headers["Airgate-Request-Id"],
        "airgate-roles": "finance-publisher,finance-reader",
        "airgate-subject": "finance-etl",
    }
    assert "authorization" not in seen["headers"]
    [decision] = asked.events(answer)
    assert (decision["client"], decision["path"]) == ("127.0.0.1", READ)


def test_refusals(client: httpx.Client, token: Token) -> None:
    answer = client.get(READ)
    assert (answer.status_code, answer.headers["Airgate-Reason"]) == (401, "token.missing")
    assert "Bearer" in answer.headers["WWW-Authenticate"]
    answer = client.get(READ, headers=bearer(token("sales-sync")))
    assert (answer.status_code, answer.headers["Airgate-Reason"]) == (403, "policy.no_match")
    answer = client.get(READ, headers=bearer(token(), Airgate_Role="a,,b"))
    assert (answer.status_code, answer.headers["Airgate-Reason"]) == (403, "role.malformed")


def test_what_may_pass_later(start: Callable[[int], httpx.Client], broken_edge: Envoy, token: Token) -> None:
    answer = start(broken_edge.port("edge")).get(READ, headers=bearer(token()))
    assert answer.status_code == 503


def test_without_the_gate_nothing_passes(
    start: Callable[[int], httpx.Client], free: Callable[[], int], token: Token
) -> None:
    assert start(free()).get(READ, headers=bearer(token())).status_code == 503


@pytest.mark.parametrize(
    "path",
    ["/a/../v1/entries", "//v1/entries", "/v1%2fentries", "/v1/entries;x", "/v1/./entries", "/-ask-the-gate"],
)
def test_an_ambiguous_path_is_refused(client: httpx.Client, token: Token, path: str) -> None:
    url = client.base_url
    connection = HTTPConnection(url.host, url.port, timeout=30)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", LEDGER)
    connection.putheader("Authorization", f"Bearer {token()}")
    connection.endheaders()
    assert connection.getresponse().status in (400, 403, 404)
    connection.close()


@pytest.mark.parametrize("path", ["/v1/%65ntries", "/v1/entries/", "/v1/entries?x=/../y"])
def test_the_path_that_was_decided_is_the_path_that_arrives(
    client: httpx.Client, asked: Any, token: Token, path: str
) -> None:
    answer = client.get(path, headers=bearer(token()))
    [decision] = asked.events(answer)
    assert decision["path"] == parse_target("GET", f"https://gate/x{answer.json()['path']}").path
