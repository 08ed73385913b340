"""From an upstream as its owner wrote it to what the gate holds of it: all said, in one spelling (docs/kv-schema.md).

The seed has been found to be right by then; nothing is checked here.
"""

from typing import Any

from airgate.policy import limits
from airgate.policy.durations import seconds
from airgate.policy.words import listed

HEADER = "authorization"
FORMATS = {"header": "Bearer {secret}"}  # of the other kinds: "Bearer {token}"
CONTACTS = {
    "client_credentials": "token_url",
    "jwt_bearer": "token_url",
    "login": "url",
}  # called for a token


def binding(via: Any) -> str | None:
    """The binding that leads to an upstream, by what its `via` says; None: the public network."""
    return via if isinstance(via, str) and via != "public" else None


def upstream(data: dict[str, Any], stand_in: str | None = None) -> dict[str, Any]:
    """One upstream, compiled. `stand_in`: the base of the server that takes its place."""
    credentials = data.get("credentials", {})
    return {
        "base": data["base"] if stand_in is None else stand_in,
        "owner": data["owner"],
        "log_path": data.get("log_path", False),
        "via": binding(data.get("via")) if stand_in is None else None,
        "private": data.get("private", False),
        "hosts": _lower(data.get("hosts", [])),
        "encoded_slash": data.get("encoded_slash", "refuse"),
        "empty_segments": data.get("empty_segments", False),
        "request_headers": _lower(data["request_headers"]) if "request_headers" in data else None,
        "set_headers": {name.lower(): value for name, value in data.get("set_headers", {}).items()},
        "forwarded": data.get("forwarded", True),
        "cors": _cors(data["cors"]) if "cors" in data else None,
        "assertion": data.get("assertion", False),
        "max_body": limits.size(data["max_body"]) if "max_body" in data else None,
        "timeout": seconds(data.get("timeout", "30s")),
        "total_timeout": seconds(data["total_timeout"]) if "total_timeout" in data else None,
        "retries": int(data.get("retries", 0)),
        "concurrency": int(data["concurrency"]) if "concurrency" in data else None,
        "breaker": _breaker(data.get("breaker", {})),
        "credential": usual_credential(data),
        "credentials": {name: credential(each) for name, each in credentials.items()},
        # Only where it says something: Workers of before do not know the member.
        **({"log_query": sorted(data["log_query"])} if data.get("log_query") else {}),
    }


def usual_credential(data: dict[str, Any]) -> str | None:
    """The credential that is used where no policy's obligation names one."""
    credentials = data.get("credentials", {})
    only: str | None = next(iter(credentials)) if len(credentials) == 1 else None
    name: str | None = data.get("credential", only)
    return name


def credential(data: dict[str, Any]) -> dict[str, Any]:
    """One credential, compiled."""
    kind = data["kind"]
    shown = {"header": data.get("header", HEADER).lower(), "format": data.get("format", _usual_format(kind))}
    match kind:
        case "header":
            said: dict[str, Any] = {"secret": data["secret"], **shown}
        case "basic":
            said = {"user": data.get("user"), "secret": data["secret"]}
        case "client_credentials":
            said = {
                "secret": data["secret"],
                "token_url": data["token_url"],
                "client_id": data["client_id"],
                "authentication": data.get("authentication", "basic"),
                "scope": _scope(data),
                "audience": data.get("audience"),
                "resource": data.get("resource"),
                **shown,
            }
        case "jwt_bearer":
            optional = ("issuer", "subject", "audience", "key_id", "token_url")
            said = {
                "secret": data["secret"],
                "algorithm": data.get("algorithm", "RS256"),
                **{name: data.get(name) for name in optional},
                "scope": _scope(data),
                "lifetime": seconds(data.get("lifetime", "1h")),
                **shown,
            }
        case "login":
            said = {
                "secret": data["secret"],
                "url": data["url"],
                "fields": data["fields"],
                "encoding": data.get("encoding", "json"),
                "token": listed(data.get("token", "access_token")),
                "lifetime": seconds(data["lifetime"]) if "lifetime" in data else None,
                **shown,
            }
        case "sigv4":
            said = {name: data[name] for name in ("secret", "region", "service")}
            said["payload"] = data.get("payload", "signed")
        case _:
            said = {}
    return {"kind": kind, **said}


def header_of(data: dict[str, Any]) -> str:
    """The header that a credential sets, in lower case."""
    shows = data.get("kind") in ("header", *CONTACTS)
    header = data.get("header", HEADER) if shows else HEADER
    return header.lower() if isinstance(header, str) else HEADER


def _usual_format(kind: str) -> str:
    return FORMATS.get(kind, "Bearer {token}")


def _scope(data: dict[str, Any]) -> str | None:
    return " ".join(listed(data["scope"])) if "scope" in data else None


def _cors(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "origins": sorted(data["origins"]),
        "headers": _lower(data.get("headers", [])),
        "expose": _lower(data.get("expose", [])),
        "credentials": data.get("credentials", False),
        "max_age": seconds(data.get("max_age", "10m")),
    }


def _breaker(data: dict[str, Any] | bool) -> dict[str, Any] | None:
    if isinstance(data, bool):
        return None
    return {
        "failures": int(data.get("failures", 5)),
        "ratio": data.get("ratio", 0.5),
        "open": seconds(data.get("open", "10s")),
    }


def _lower(names: list[str]) -> list[str]:
    return sorted({name.lower() for name in names})
