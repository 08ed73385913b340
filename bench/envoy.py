"""Envoy on the same way: deciding by itself (jwt_authn and rbac), and asking the gate as docs/envoy.md shows it.

One thread of Envoy's serves. Deciding by itself, it holds the issuer's keys, and the bench's policies as rbac rules.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from airgate.dev.envoy import Envoy, EnvoyError
from airgate.dev.stack import AUDIENCE
from airgate.node import PROJECT
from bench.policy import HOST
from bench.rig import LINUX, BenchError, Serving

_TYPE = "type.googleapis.com/envoy.extensions.filters"
_CLAIMS = "envoy.filters.http.jwt_authn"


class EnvoyServer(Serving):
    """A running Envoy whose listener is called `clients`. Use it in a with statement. Raises BenchError on enter."""

    def __init__(
        self,
        name: str,
        configuration: Mapping[str, Any],
        scratch: Path,
        *,
        host: str | None = None,
        beside: tuple[Serving, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.host = host
        self.beside = beside
        self._envoy = Envoy(name, configuration, scratch, environment=environment)

    def __enter__(self) -> "EnvoyServer":
        try:
            self._envoy.__enter__()
        except EnvoyError as error:
            raise BenchError(str(error)) from None
        self.port = self._envoy.port("clients")
        return self

    def __exit__(self, *_: object) -> None:
        self._envoy.stop()

    def worker(self) -> int | None:
        return self._envoy.pid if LINUX else None


def asking(gate: int, upstream: int) -> dict[str, Any]:
    """The page's configuration on this machine, without TLS on the way to the gate."""
    page = (PROJECT / "docs" / "envoy.md").read_text("utf-8")
    found = re.search(r"^```yaml\n(admin:.*?)^```$", page, re.MULTILINE | re.DOTALL)
    if found is None:
        raise BenchError("docs/envoy.md has no configuration")
    configuration: dict[str, Any] = yaml.safe_load(found[1])
    resources = configuration["static_resources"]
    listener = resources["listeners"][0]
    listener["address"] = _address(0)
    listener["filter_chains"][0]["filters"][0]["typed_config"]["access_log"] = _access_log()
    [host] = listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    if host["domains"] != [HOST]:
        raise BenchError("docs/envoy.md is about another host than the measured policies")
    ports = {"gate": gate, "ledger": upstream}
    resources["clusters"] = [
        _cluster(cluster["name"], ports[cluster["name"]]) if cluster["name"] in ports else cluster
        for cluster in resources["clusters"]
    ]
    return configuration


def alone(issuer: str, jwks: Mapping[str, Any], upstream: int, seed: Mapping[str, Any]) -> dict[str, Any]:
    """Envoy that checks tokens and policies itself, and forwards what may pass, without the upstream's name."""
    provider = {
        "issuer": issuer,
        "audiences": [AUDIENCE],
        "local_jwks": {"inline_string": json.dumps(jwks)},
        "payload_in_metadata": "claims",
        "clock_skew_seconds": 60,
    }
    authn = {
        "@type": f"{_TYPE}.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"company": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "company"}}],
    }
    filters = [("jwt_authn", authn), ("forbid", _rules(seed, "forbid")), ("permit", _rules(seed, "permit"))]
    manager = {
        "@type": f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "clients",
        "access_log": _access_log(),
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "http_filters": [
            *({"name": name, "typed_config": settings} for name, settings in filters),
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}.http.router.v3.Router"},
            },
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "request_headers_to_remove": [
                        f"airgate-{name}" for name in ("dag-id", "task-id", "run-id", "try-number")
                    ],
                    "routes": [
                        {
                            "match": {"prefix": f"/{name}/"},
                            "route": {"cluster": "upstream", "prefix_rewrite": "/", "timeout": "30s"},
                        }
                        for name in seed["upstreams"]
                    ],
                }
            ]
        },
    }
    listener = {
        "name": "clients",
        "address": _address(0),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [_cluster("upstream", upstream)]}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name: str, port: int) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}]
    return {"name": name, "load_assignment": {"cluster_name": name, "endpoints": endpoints}}


def _access_log() -> list[dict[str, Any]]:
    """One line a request, to nobody: as the gate's go here."""
    kind = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
    return [{"name": "envoy.access_loggers.file", "typed_config": {"@type": kind, "path": "/dev/null"}}]


def _rules(seed: Mapping[str, Any], effect: str) -> dict[str, Any]:
    """The seed's policies of one effect, as Envoy says them."""
    groups = {name: [grant["value"] for grant in role["granted_to"]] for name, role in seed["roles"].items()}
    policies = {
        policy["id"]: {
            "permissions": [{"and_rules": {"rules": [*_target(policy)]}}],
            "principals": [{"and_ids": {"ids": [*_subject(policy, groups)]}}],
        }
        for policy in seed["policies"]
        if policy["effect"] == effect
    }
    action = "DENY" if effect == "forbid" else "ALLOW"
    return {"@type": f"{_TYPE}.http.rbac.v3.RBAC", "rules": {"action": action, "policies": policies}}


def _target(policy: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    target = policy["target"]
    names = target["upstream"] if isinstance(target["upstream"], list) else [target["upstream"]]
    paths = [{"url_path": {"path": _path(name, path)}} for name in names for path in target["paths"]]
    yield {"or_rules": {"rules": paths}}
    if target["methods"] != ["*"]:
        methods = [
            {"header": {"name": ":method", "string_match": {"exact": method}}} for method in target["methods"]
        ]
        yield {"or_rules": {"rules": methods}}
    for dag in policy.get("workload", {}).get("dag", ()):
        match = {"prefix": dag.removesuffix("*")}
        yield {"header": {"name": "airgate-dag-id", "string_match": match}}


def _path(upstream: str, pattern: str) -> dict[str, Any]:
    whole = f"/{upstream}{pattern}"
    if whole.endswith("/**"):
        return {"prefix": whole.removesuffix("**")}
    if "{" not in whole:
        return {"exact": whole}
    return {"safe_regex": {"regex": re.sub(r"\{[a-z]+\}", "[^/]+", whole)}}


def _subject(policy: Mapping[str, Any], groups: Mapping[str, list[str]]) -> Iterator[dict[str, Any]]:
    subject = policy["subject"]
    if "kind" in subject:
        yield _claim("airgate_kind", {"string_match": {"exact": subject["kind"]}})
    for role in subject.get("roles", {}).get("any", ()):
        for group in groups[role]:
            yield _claim("groups", {"list_match": {"one_of": {"string_match": {"exact": group}}}})


def _claim(name: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"filter": _CLAIMS, "path": [{"key": "claims"}, {"key": name}], "value": value}}
