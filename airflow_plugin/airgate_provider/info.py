"""What Airflow asks of every provider (`apache_airflow_provider`)."""

from typing import Any

from airgate_provider import __version__
from airgate_provider.fields import FIELDS, behaviour, schema

PACKAGE = "airflow-provider-airgate"
_NAME = "Airgate"


def _modules(module: str) -> list[dict[str, Any]]:
    return [{"integration-name": _NAME, "python-modules": [f"airgate_provider.{module}"]}]


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
        "plugins": [{"name": "airgate", "plugin-class": "airgate_provider.plugin.AirgatePlugin"}],
    }
