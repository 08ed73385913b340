"""An `airgate` connection, read and checked."""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
import logging
import os
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airgate_provider.errors import ConnectionInvalid
from airgate_provider.fields import (
    ATTESTED_SEALED,
    ATTESTED_UNTIL,
    CLIENT_AUTHENTICATIONS,
    FIELDS,
    IDENTITIES,
    LABELS,
    REQUEST_OPTIONS,
)

if TYPE_CHECKING:
    from airflow.sdk import Connection

CONN_TYPE = "airgate"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
DEFAULT_PORTS = {"https": 443, "http": 80}
KUBERNETES_FILE = "/var/run/secrets/tokens/airgate"

# What each identity can't do without.
REQUIRED = {
    "client_credentials": ("token_url", "login", "password"),
    "attested": (),  # but a token, which comes with the connection
    "kubernetes": (),
    "aws": ("audience",),
    "gcp": ("audience",),
    "token_file": ("token_file",),
    "token": ("password",),
}

# What else decides whose token it is, outside of the connection.
SURROUNDINGS = {
    "aws": (
        "AWS_ACCESS_KEY_ID", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE",
    ),
    "gcp": ("GCE_METADATA_HOST",),
}  # fmt: skip

# Of plain characters alone: what two libraries could read in two ways is none.
_ORIGIN = re.compile(r"(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII | re.IGNORECASE)

log = logging.getLogger(__name__)
_warned: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Settings:
    """What a connection says, checked. Texts are stripped; what is left out is empty."""

    conn_id: str
    gate: str  # scheme, host and port; no slash at the end
    upstream: str
    identity: str
    client_id: str = ""
    secret: str = field(default="", repr=False)
    token_url: str = ""
    scope: str = ""
    audience: str = ""
    resource: str = ""
    client_authentication: str = "basic"
    dpop: bool = False
    token_file: str = ""
    region: str = ""
    roles: tuple[str, ...] = ()
    environment: str = ""
    cache_file: str = ""
    request_page: str = ""
    stock_hooks: bool = False
    session: str = ""  # attested: whose the token is, one try of one task instance
    received: float = 0.0  # attested: when the token came, by this machine's clock (time.time())
    sealed: str = field(default="", repr=False)  # attested: the connection as a trigger carries it
    options: dict[str, Any] = field(default_factory=dict, compare=False)  # for requests, as in the stock hook

    @property
    def base_url(self) -> str:
        """Where the upstream's own address would begin."""
        return f"{self.gate}/{quote(self.upstream, safe='')}"

    @property
    def cache_key(self) -> str:
        """One for each way to a token: no two connections that could get different ones share it.

        Attested tokens are the task's own: two tasks in one process have two.
        """
        if self.identity == "attested":
            return hashlib.sha256(f"attested\0{self.conn_id}\0{self.session}".encode()).hexdigest()
        parts = (
            self.identity, self.token_url, self.client_id, self.secret, self.scope, self.audience, self.resource,
            self.client_authentication, str(self.dpop), self.token_file, self.region,
            *(os.environ.get(name, "") for name in SURROUNDINGS.get(self.identity, ())),
        )  # fmt: skip
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read(
    connection: Connection, extra: dict[str, Any], upstream: str | None = None, *, tokenless: bool = False
) -> Settings:
    """The settings of a connection, whose extra is given apart. `upstream` replaces the connection's own.

    `tokenless`: an attested connection is read also where no token came with it. Raises ConnectionInvalid, naming the
    field as the form shows it.
    """
    conn_id = connection.conn_id or "?"

    def wrong(name: str, problem: str) -> ConnectionInvalid:
        return ConnectionInvalid(f'Connection "{conn_id}": the field "{LABELS[name]}" {problem}')

    if connection.conn_type != CONN_TYPE:
        raise ConnectionInvalid(
            f'Connection "{conn_id}" is of type {connection.conn_type!r}. Set its type to Airgate ({CONN_TYPE}).'
        )
    values = {}
    for each in FIELDS:
        if each.kind == "switch":
            continue
        given = extra.get(each.name)
        if each.name == "roles" and isinstance(given, list) and all(isinstance(role, str) for role in given):
            given = ",".join(given)
        # To leave out what can't be read would widen what a task may do.
        if given is not None and not isinstance(given, str):
            raise wrong(each.name, f"is no text, but a {type(given).__name__}.")
        values[each.name] = _text(given)
    values |= {"host": _text(connection.host), "login": _text(connection.login)}
    values["password"] = (connection.password or "").strip()
    identity = _choice(values["identity"], IDENTITIES)
    if identity is None:
        raise wrong("identity", _not_one_of(values["identity"], IDENTITIES))
    authentication = _choice(values["client_authentication"], CLIENT_AUTHENTICATIONS)
    if authentication is None:
        raise wrong(
            "client_authentication", _not_one_of(values["client_authentication"], CLIENT_AUTHENTICATIONS)
        )
    name = _text(upstream) or values["upstream"]
    if not values["host"]:
        raise wrong("host", "is empty. It is the gate's address, such as https://gate.example.com.")
    if not name:
        raise wrong("upstream", "is empty. It is the name of the API behind the gate, such as ledger.")
    if name.startswith("-") or "/" in name:
        raise wrong("upstream", f"is {name!r}. It is one name, such as ledger, not a path.")
    for required in REQUIRED[identity]:
        if not values[required]:
            raise wrong(required, f"is empty. Identity {identity} needs it.")
    switches = {each.name: _switch(extra.get(each.name)) for each in FIELDS if each.kind == "switch"}
    for switch, on in switches.items():
        if on is None:
            raise wrong(switch, f"is {extra.get(switch)!r}. It is true or false.")
    dpop = bool(switches["dpop"])
    if dpop and identity != "client_credentials":
        raise wrong("dpop", f"is on, but identity {identity} cannot bind a token to a key. Switch it off.")
    if identity == "token" and not sendable(values["password"]):
        raise wrong("password", "holds no token: a blank, a line break or a letter beyond ASCII is in it.")
    gate = _gate(values["host"], connection.schema, connection.port)
    if (problem := _unsafe(gate)) is not None:
        raise wrong("host", problem)
    if identity == "client_credentials" and (problem := _unsafe(values["token_url"])) is not None:
        raise wrong("token_url", problem)
    if identity == "attested":
        parts = urlsplit(gate)
        if parts.path or parts.query:  # the API server posts to an address below it
            raise wrong(
                "host", "has a path or a query. Where tasks are attested it is the gate's own: https://host."
            )
        if values["cache_file"]:
            raise wrong("cache_file", "is set, but an attested token is for one task alone. Leave it empty.")
        if (problem := _unattested(conn_id, values["password"], extra)) is not None and not tokenless:
            raise ConnectionInvalid(problem)
    if values["request_page"] and not values["request_page"].startswith(("https://", "http://")):
        raise wrong(
            "request_page", "is no address. It looks like https://logs.example.com/?query={request_id}."
        )
    _warn_of_unknown(conn_id, extra)
    return Settings(
        conn_id=conn_id,
        gate=gate,
        upstream=name,
        identity=identity,
        client_id=values["login"],
        secret=values["password"],
        token_url=values["token_url"],
        scope=values["scope"],
        audience=values["audience"],
        resource=values["resource"],
        client_authentication=authentication,
        dpop=dpop,
        token_file=values["token_file"] or (KUBERNETES_FILE if identity == "kubernetes" else ""),
        region=values["region"],
        roles=tuple(role for part in values["roles"].split(",") if (role := part.strip())),
        environment=values["environment"],
        cache_file=values["cache_file"],
        request_page=values["request_page"],
        stock_hooks=bool(switches["stock_hooks"]),
        session=_session(values["password"]) if identity == "attested" else "",
        received=time.time() if identity == "attested" else 0.0,
        sealed=_text(extra.get(ATTESTED_SEALED)) if identity == "attested" else "",
        options={option: extra[option] for option in REQUEST_OPTIONS if option in extra},
    )


def is_attested(extra: dict[str, Any]) -> bool:
    """Whether a connection of our type with this extra has the identity attested."""
    return _choice(_text(extra.get("identity")), IDENTITIES) == "attested"


def origin(address: str) -> str | None:
    """Scheme, host in lower case, and port where it isn't the scheme's own (RFC 6454 §6.2). None if it is no more."""
    found = _ORIGIN.fullmatch(address)
    if found is None:
        return None
    scheme, host = found[1].lower(), found[2].lower()
    port = int(found[3]) if found[3] else DEFAULT_PORTS[scheme]
    if not 0 < port < 65_536:
        return None
    return f"{scheme}://{host}" + ("" if port == DEFAULT_PORTS[scheme] else f":{port}")


def sendable(token: str) -> bool:
    """Whether a token can be sent. Libraries quote a header that can't be, and with it the token."""
    return bool(token) and token.isascii() and token.isprintable() and " " not in token


def claims(token: str) -> dict[str, Any] | None:
    """What a JWT says, unverified: it is ours to send, and the gate's to check. None when it is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        value = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _session(token: str) -> str:
    """Whose token it is. One that does not say is shared with nobody either."""
    session = (claims(token) or {}).get("sid")
    return session if isinstance(session, str) and session else hashlib.sha256(token.encode()).hexdigest()


def _unattested(conn_id: str, token: str, extra: dict[str, Any]) -> str | None:
    """Why an attested connection has no token, and what to do; None when it has one."""
    until = extra.get(ATTESTED_UNTIL)
    if sendable(token) and isinstance(until, int | float) and not isinstance(until, bool):
        return None
    from airgate_provider import compat

    said = f'Connection "{conn_id}" has the identity attested, but came without a token.'
    if not compat.ATTESTS:
        return (
            f"{said} Only Airflow 3.3 and newer can attest, with this provider on its API server; this is "
            f"{compat.AIRFLOW}. Choose another identity."
        )
    if (name := f"AIRFLOW_CONN_{conn_id.upper()}") in os.environ:
        return (
            f"{said} Airflow's API server puts one in, and this connection does not come from there: this process "
            f"has it in its environment. Remove {name} here, and give the connection to the API server."
        )
    return (
        f"{said} Airflow's API server puts one in when a running task reads the connection; a triggerer gets none. Is "
        "[airgate] attest on there, and airgate_provider.backend.AirgateSecretsBackend its [secrets] backend? A "
        "connection from a secrets backend of the worker's own does not pass by there: take it out of that."
    )


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _choice(value: str, choices: tuple[str, ...]) -> str | None:
    said = value.lower().replace("-", "_").replace(" ", "_") or choices[0]
    return said if said in choices else None


def _switch(value: Any) -> bool | None:
    """A connection that was written as a URI holds texts."""
    if isinstance(value, bool):
        return value
    return {"": False, "none": False, "false": False, "0": False, "true": True, "1": True}.get(
        str(value if value is not None else "").strip().lower()
    )


def _not_one_of(value: str, choices: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(value.lower(), choices, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"is {value!r}.{hint} It is one of {', '.join(choices)}."


def _gate(host: str, schema: str | None, port: int | None) -> str:
    address = host if "://" in host else f"{schema or 'https'}://{host}"
    address = address.rstrip("/")
    return f"{address}:{port}" if port else address


def _unsafe(url: str) -> str | None:
    """What is wrong with an address that a secret is sent to; None when nothing is."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("https", "http") or parts.username is not None or parts.fragment:
        return "is no address. It looks like https://host/path."
    if parts.scheme == "http" and host not in LOOPBACK:
        return (
            f"begins with http://. Secrets go over https:// (http:// only to this machine): https://{host}…"
        )
    return None


def _warn_of_unknown(conn_id: str, extra: dict[str, Any]) -> None:
    known = {each.name for each in FIELDS} | set(REQUEST_OPTIONS) | {ATTESTED_UNTIL, ATTESTED_SEALED}
    for name in sorted(set(extra) - known):
        if (conn_id, name) not in _warned:
            _warned.add((conn_id, name))
            near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.7)
            hint = f" Did you mean {near[0]}?" if near else " Headers belong into the DAG."
            log.warning(
                'Connection "%s": extra has %s, which means nothing here and is not sent.%s',
                conn_id,
                name,
                hint,
            )
