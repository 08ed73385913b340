"""A gate that proxies ask, and the real Envoy before an API, with the configuration of docs/envoy.md.

Between the two stands what stands before every Worker: an edge that has a certificate, and knows the gate by its name.
"""

import json
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from airgate.dev.audit import AuditFile, events
from airgate.dev.envoy import Envoy
from airgate.dev.process import Process
from airgate.dev.signing import new_keys
from airgate.dev.stack import HERE, Stack
from airgate.node import PROJECT, environment, node
from airgate.policy.publish import publish_local
from airgate.policy.seed import STARTER

PAGE = PROJECT / "docs" / "envoy.md"
GATE, LEDGER, LAB = "gate.example.com", "ledger.internal.example.com", "lab.internal.example.com"

# Beside the starter set: an API behind which anything goes, for every reader of finance, and what a check must look at.
LAB_SEED = """
upstreams:
  lab:
    base: https://lab.example.com/api
    local: sample
    owner: lab@example.com
    log_path: true
    hosts: [lab.internal.example.com]
policies:
  - id: lab-open
    description: Finance readers may do anything in the lab
    owner: lab@example.com
    effect: permit
    subject: {roles: {any: [finance-reader]}}
    target: {upstream: lab, methods: ["*"], paths: ["/**"]}
  - id: lab-outside
    description: Nobody from that network goes in here
    owner: lab@example.com
    effect: forbid
    target: {upstream: lab, methods: ["*"], paths: ["/inside"]}
    when: {ip: ["127.0.0.0/8"]}
  - id: lab-slow
    description: Sales goes slowly
    owner: lab@example.com
    effect: permit
    subject: {roles: {any: [sales-reader]}}
    target: {upstream: lab, methods: [GET], paths: ["/slowly"]}
    obligations: {rate_limit: {limit: 5, per: 10s, by: subject}}
  - id: lab-why
    description: Sales says why
    owner: lab@example.com
    effect: permit
    subject: {roles: {any: [sales-reader]}}
    target: {upstream: lab, methods: [GET], paths: ["/why"]}
    obligations: {require: {justification: true}}
  - id: lab-small
    description: Sales sends little
    owner: lab@example.com
    effect: permit
    subject: {roles: {any: [sales-reader]}}
    target: {upstream: lab, methods: [POST], paths: ["/small"]}
    obligations: {max_body: 1KB}
"""


class Gate:
    """A gate of one's own, whose secrets are known here. Its KV is its own, too."""

    def __init__(self, folder: Path, stack: Stack) -> None:
        self.seed = folder / "kv-seed"
        self.audit = folder / "audit.ndjson"
        self.audit.touch()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.secrets = {"old": secrets.token_hex(32), "new": secrets.token_hex(32)}
        self._stack = replace(stack, state=folder / "state")
        (folder / "state").mkdir()
        settings = {
            "root": str(PROJECT),
            "port": self.port,
            "state": str(folder / "state"),
            "secrets": {
                "PROXY_SECRETS": f"{self.secrets['old']} {self.secrets['new']}",
                "ASSERTION_KEYS": json.dumps({"issuer": f"https://{GATE}", "keys": _assertion_keys()}),
            },
        }
        self.process = Process(
            "gate",
            [str(node()), str(HERE / "gate.mjs"), json.dumps(settings)],
            log=folder / "gate.log",
            cwd=PROJECT,
            env=environment(folder / "home"),
            on_line=AuditFile(self.audit).take,
        )
        self._lay_out_seed()  # it takes a while to start
        self.publish()

    def _lay_out_seed(self) -> None:
        shutil.copytree(STARTER, self.seed)
        file = self.seed / "upstreams.yaml"
        before, found, after = file.read_text("utf-8").partition("  ledger:\n")
        assert found
        more = f"    hosts: [{LEDGER}]\n    assertion: true\n"
        file.write_text(before + found + more + after, "utf-8")
        (self.seed / "lab.yaml").write_text(LAB_SEED, "utf-8")

    def publish(self) -> None:
        """Put what the seed's folder says in force."""
        publish_local(self.seed, self._stack, "tests")

    def events(self, answer: httpx.Response, count: int = 1) -> list[dict[str, Any]]:
        return events(self.audit, answer.headers["Airgate-Request-Id"], count=count)


def _assertion_keys() -> list[dict[str, Any]]:
    return [key for key in new_keys()["keys"] if key["alg"] == "ES256"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def block(language: str, holding: str) -> str:
    """The code block of the page that holds a text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    [found] = [text for text in blocks if holding in text]
    return str(found)


def address(cluster: dict[str, Any]) -> dict[str, Any]:
    """Where a cluster's only endpoint is."""
    [endpoint] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    found: dict[str, Any] = endpoint["endpoint"]["address"]["socket_address"]
    return found


def documented(edge: int, authority: Path, sample: int) -> dict[str, Any]:
    """The page's configuration on this machine: other addresses and ports, and the lab beside the ledger."""
    configuration: dict[str, Any] = yaml.safe_load(block("yaml", "bootstrap_extensions"))
    resources = configuration["static_resources"]
    clients = resources["listeners"][0]
    clients["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
    clusters = {cluster["name"]: cluster for cluster in resources["clusters"]}
    address(clusters["ledger"]).update(address="127.0.0.1", port_value=sample)
    address(clusters["gate"]).update(address="127.0.0.1", port_value=edge)
    tls = clusters["gate"]["transport_socket"]["typed_config"]["common_tls_context"]
    tls["validation_context"]["trusted_ca"]["filename"] = str(authority)
    manager = clients["filter_chains"][0]["filters"][0]["typed_config"]
    [ledger] = manager["route_config"]["virtual_hosts"]
    lab = {**deepcopy(ledger), "name": "lab", "domains": [LAB]}
    manager["route_config"]["virtual_hosts"].append(lab)
    return configuration


def edge_before(gate: int, certificate: Path, key: Path) -> dict[str, Any]:
    """An edge: TLS, and one name. Paths go on as they come."""
    http = "type.googleapis.com/envoy.extensions.filters"
    route = {"match": {"prefix": "/"}, "route": {"cluster": "gate", "timeout": "30s"}}
    manager = {
        "@type": f"{http}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{http}.http.router.v3.Router"},
            }
        ],
        "route_config": {"virtual_hosts": [{"name": "gate", "domains": [GATE], "routes": [route]}]},
    }
    files = {"certificate_chain": {"filename": str(certificate)}, "private_key": {"filename": str(key)}}
    context = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificates": [files]},
    }
    here = {"socket_address": {"address": "127.0.0.1", "port_value": gate}}
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "edge",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": "envoy.filters.network.http_connection_manager",
                                    "typed_config": manager,
                                }
                            ],
                            "transport_socket": {
                                "name": "envoy.transport_sockets.tls",
                                "typed_config": context,
                            },
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "gate",
                    "load_assignment": {
                        "cluster_name": "gate",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": here}}]}],
                    },
                }
            ],
        }
    }


def certify(folder: Path) -> tuple[Path, Path]:
    """A certificate for the gate's name, and its key, in files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, GATE)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(GATE)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / "edge.pem", folder / "edge.key"
    private.touch(mode=0o600)
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return chain, private


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("envoy")


@pytest.fixture(scope="session")
def asked(folder: Path, stack: Stack) -> Iterator[Gate]:
    """The gate that proxies ask."""
    gate = Gate(folder, stack)
    try:
        with httpx.Client(base_url=gate.url, timeout=60, trust_env=False) as client:
            wait_for(client, "/-/health")
        yield gate
    finally:
        gate.process.stop()


def wait_for(client: httpx.Client, path: str) -> None:
    """Until something answers there."""
    deadline = time.monotonic() + 60
    while True:
        try:
            client.get(path)
            return
        except httpx.TransportError:
            assert time.monotonic() < deadline, f"nothing answers at {client.base_url}"
            time.sleep(0.05)


@pytest.fixture(scope="session")
def nginx_server() -> str:
    """The page's server block for nginx."""
    return block("nginx", "auth_request")


@pytest.fixture(scope="session")
def free() -> Callable[[], int]:
    """free(): a port that nothing listens on."""
    return free_port


@pytest.fixture(scope="session")
def answering() -> Callable[[httpx.Client, str], None]:
    """answering(client, path): wait until something answers there."""
    return wait_for


@pytest.fixture(scope="session")
def certificate(folder: Path) -> tuple[Path, Path]:
    """The edge's certificate, and its key."""
    return certify(folder)


@pytest.fixture(scope="session")
def edge(folder: Path, asked: Gate, certificate: tuple[Path, Path]) -> Iterator[Envoy]:
    """What the gate is reached through."""
    with Envoy("edge", edge_before(asked.port, *certificate), folder) as envoy:
        yield envoy


@pytest.fixture(scope="session")
def broken_edge(folder: Path, certificate: tuple[Path, Path]) -> Iterator[Envoy]:
    """An edge that answers 503 to everything, with a document that looks like one of the gate's."""
    configuration = edge_before(1, *certificate)
    [listener] = configuration["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    [route] = manager["route_config"]["virtual_hosts"][0]["routes"]
    del route["route"]
    route["direct_response"] = {"status": 503, "body": {"inline_string": '{"code": "policy.unavailable"}'}}
    with Envoy("broken-edge", configuration, folder) as envoy:
        yield envoy


@pytest.fixture(scope="session")
def before(
    folder: Path, stack: Stack, asked: Gate, certificate: tuple[Path, Path]
) -> Iterator[Callable[..., Envoy]]:
    """before(port): the page's Envoy before the sample upstream, asking a gate whose edge is on that port."""
    started: list[Envoy] = []
    sample = httpx.URL(stack.sample).port or 0

    def start(port: int, environment: Mapping[str, str] | None = None) -> Envoy:
        known = {"AIRGATE_PROXY_SECRET": asked.secrets["new"]} if environment is None else environment
        configuration = documented(port, certificate[0], sample)
        started.append(Envoy(f"envoy-{len(started)}", configuration, folder, environment=known))
        return started[-1].__enter__()

    yield start
    for envoy in started:
        envoy.stop()


@pytest.fixture(scope="session")
def envoy(before: Callable[..., Envoy], edge: Envoy) -> Envoy:
    """The page's Envoy."""
    return before(edge.port("edge"))


@pytest.fixture(scope="session")
def client(envoy: Envoy) -> Iterator[httpx.Client]:
    """A client of the ledger behind Envoy. Another `Host` is another API."""
    url = f"http://127.0.0.1:{envoy.port('clients')}"
    with httpx.Client(base_url=url, headers={"Host": LEDGER}, timeout=30, trust_env=False) as client:
        yield client
