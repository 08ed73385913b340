"""The connection form: every field of an `airgate` connection, once, for both major versions of Airflow.

Imports nothing of Airflow's: discovering the provider must stay cheap.
"""

from typing import Any, Literal, NamedTuple

IDENTITIES = ("client_credentials", "attested", "kubernetes", "aws", "gcp", "token_file", "token")
CLIENT_AUTHENTICATIONS = ("basic", "post")


class Field(NamedTuple):
    """One field that is kept in the connection's extra."""

    name: str
    label: str
    description: str
    kind: Literal["text", "choice", "switch"] = "text"
    choices: tuple[str, ...] = ()


# The standard fields that the form keeps, under the names that it shows.
STANDARD = {"host": "Gate", "port": "Port", "login": "Client id", "password": "Client secret or token"}

FIELDS = (
    Field("upstream", "Upstream", "The API behind the gate that this connection stands for, such as ledger."),
    Field(
        "identity",
        "Identity",
        "How a task gets its token: client_credentials (Token URL, Client id, Client secret), attested (Airflow's "
        "API server says who the task is; needs no other field), kubernetes (a projected token file), aws (STS web "
        "identity), gcp (metadata server), token_file, or token "
        "(the fixed one in the password field, for trying things).",
        "choice",
        IDENTITIES,
    ),
    Field("token_url", "Token URL", "The identity provider's token endpoint (client_credentials)."),
    Field(
        "scope", "Scope", "Scopes to ask the token endpoint for, separated by blanks (client_credentials)."
    ),
    Field(
        "audience", "Audience", "The gate's audience. Required for aws and gcp; sent as audience otherwise."
    ),
    Field("resource", "Resource", "The gate's address as the token endpoint knows it (RFC 8707)."),
    Field(
        "client_authentication",
        "Client authentication",
        "How the client secret is sent: basic (a header) or post (a form field).",
        "choice",
        CLIENT_AUTHENTICATIONS,
    ),
    Field("dpop", "DPoP", "Bind the token to a key that never leaves the process (RFC 9449).", "switch"),
    Field("token_file", "Token file", "The file that holds the token (kubernetes, token_file)."),
    Field("region", "AWS region", "The region of the STS endpoint (aws); the environment's when left out."),
    Field(
        "roles", "Role tags", "The roles that tasks act under, separated by commas. Narrows, never widens."
    ),
    Field("environment", "Environment", "The name of this Airflow, such as production."),
    Field(
        "cache_file", "Token cache file", "Share tokens between the processes of a worker. Off when empty."
    ),
    Field("request_page", "Request page", "Where a request can be looked up; {request_id} is filled in."),
    Field(
        "stock_hooks",
        "For stock hooks",
        "With the secrets backend of this provider: hand this connection out as a plain http one, with a "
        "fresh token.",
        "switch",
    ),
)

LABELS = {**STANDARD, **{field.name: field.label for field in FIELDS}}

# What the stock hook reads from extra to send a request. It never becomes a header.
REQUEST_OPTIONS = (
    "allow_redirects", "cert", "check_response", "max_redirects", "proxies", "proxy", "stream", "timeout", "trust_env",
    "verify", "verify_ssl",
)  # fmt: skip

# What the API server adds to an attested connection as a task reads it: when its token ends (seconds since the epoch,
# by the server's clock), and the whole connection, sealed for a deferral.
ATTESTED_UNTIL, ATTESTED_SEALED = "attested_until", "attested_sealed"

HIDDEN = ["schema", "extra"]
PLACEHOLDERS = {
    "host": "https://gate.example.com",
    "login": "finance-etl",
    "upstream": "ledger",
    "identity": "client_credentials",
    "token_url": "https://login.example.com/token",
    "request_page": "https://logs.example.com/?query={request_id}",
}


def behaviour() -> dict[str, Any]:
    """What the form does to the standard fields, as Airflow's `ui-field-behaviour`."""
    relabeling = {name: label for name, label in STANDARD.items() if name != "port"}
    return {"hidden-fields": HIDDEN, "relabeling": relabeling, "placeholders": PLACEHOLDERS}


def schema(field: Field) -> dict[str, Any]:
    """A field as Airflow's `conn-fields` has it: label, description and JSON Schema."""
    value: dict[str, Any] = {"type": ["string", "null"]}
    if field.kind == "choice":
        value = {"type": ["string", "null"], "enum": list(field.choices), "default": field.choices[0]}
    elif field.kind == "switch":
        value = {"type": ["boolean", "null"], "default": False}
    return {"label": field.label, "description": field.description, "schema": value}
