"""What Airflow asks of every provider (`apache_airflow_provider`)."""

from typing import Any

from airgate_provider import __version__
from airgate_provider.fields import FIELDS, behaviour, schema

PACKAGE = "airflow-provider-airgate"
_NAME = "Airgate"


def _modules(module: str) -> list[dict[str, Any]]:
    return [{"integration-name": _NAME, "python-modules": [f"airgate_provider.{module}"]}]


def _option(kind: str, description: str, example: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": __version__,
        "type": kind,
        "example": example,
        "default": None,
        **more,
    }


# Set for the API server alone: whoever reads attest_keys can say of any task that it is another one.
_CONFIG = {
    "airgate": {
        "description": "Attested tasks: the API server says who a task is (Airflow 3.3 or later). Set this for the API "
        "server alone, and the keys out of reach of tasks.",
        "options": {
            "attest": _option(
                "boolean",
                "Whether the API server attests tasks. It does not start when the rest is wrong.",
                default="False",
            ),
            "attest_issuer": _option(
                "string",
                "The address that the gate knows this Airflow by: the API server's own, and /airgate.",
                "https://airflow.example.com/airgate",
            ),
            "attest_audience": _option(
                "string",
                "The audience that every gate expects in a token. The address of the gate it is for, when it is empty.",
                "https://gate.example.com",
            ),
            "attest_keys": _option(
                "string",
                "The keys that tokens are signed with, newest first: a JWK Set with private parts. Read again every 30 "
                "seconds.",
                '{"keys": [{"kid": "…", "kty": "EC", …}]}',
                sensitive=True,
            ),
            "attest_keys_file": _option(
                "string",
                "A file with the same, instead of attest_keys. Read again when it changes.",
                "/run/secrets/attest-keys.json",
            ),
            "attest_lifetime": _option(
                "integer", "How many seconds a token is good for: 60 to 600.", default="300"
            ),
            "attest_environment": _option(
                "string", "The name of this Airflow, as policies know it.", "production"
            ),
            "attest_gates": _option(
                "string",
                "The gates that tasks are attested for, with commas or blanks between them. A connection that leads "
                "elsewhere is not handed out. All gates, when it is empty.",
                "https://gate.example.com",
            ),
        },
    }
}


def get_provider_info() -> dict[str, Any]:
    """The provider's parts, after Airflow's provider_info.schema.json."""
    return {
        "package-name": PACKAGE,
        "name": _NAME,
        "description": "Calls to APIs through Airgate, the identity-aware gate.",
        "versions": [__version__],
        "integrations": [{"integration-name": _NAME, "tags": ["protocol"]}],
        "hooks": _modules("hooks"),
        "operators": _modules("operators"),
        "sensors": _modules("sensors"),
        "triggers": _modules("triggers"),
        "connection-types": [
            {
                "connection-type": "airgate",
                "hook-class-name": "airgate_provider.hooks.AirgateHook",
                "hook-name": _NAME,
                "ui-field-behaviour": behaviour(),
                "conn-fields": {field.name: schema(field) for field in FIELDS},
            }
        ],
        "secrets-backends": ["airgate_provider.backend.AirgateSecretsBackend"],
        "config": _CONFIG,
        "plugins": [{"name": "airgate", "plugin-class": "airgate_provider.plugin.AirgatePlugin"}],
    }
