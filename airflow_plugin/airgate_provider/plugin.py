"""The plugin: an extra link on every task that goes through the gate, and the issuer that attests tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow.plugins_manager import AirflowPlugin
from airflow.providers.common.compat.sdk import BaseOperatorLink

from airgate_provider import compat


class AirgateRequestLink(BaseOperatorLink):
    """Opens the request that a task made: the connection's "Request page", else the task's XComs, where its id is."""

    name = "Airgate request"

    @property
    def operators(self) -> list[type]:  # type: ignore[override]  # an attribute there, read where we import late
        """Read where links are shown. Imported then: a DAG file without HTTP tasks should not wait for it."""
        from airflow.providers.http.operators.http import HttpOperator
        from airflow.providers.http.sensors.http import HttpSensor

        from airgate_provider.operators import AirgateOperator
        from airgate_provider.sensors import AirgateSensor

        return [HttpOperator, HttpSensor, AirgateOperator, AirgateSensor]

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address, or nothing for a task that made no request through the gate."""
        if page := compat.get_xcom(ti_key, "airgate_request_url"):
            return page
        return compat.task_page(ti_key) if compat.get_xcom(ti_key, "airgate_request_id") else ""


class _Attesting:
    """A list that only the API server reads of the plugin's class: made then, and empty unless tasks are attested."""

    def __init__(self, make: Callable[[], list[Any]]) -> None:
        self.make = make

    def __get__(self, instance: object, owner: type) -> list[Any]:
        from airgate_provider import attest_keys

        return self.make() if attest_keys.on() else []


def _apps() -> list[Any]:
    from airgate_provider import attest_keys, issuer

    return [{"app": issuer.app(), "url_prefix": attest_keys.MOUNT, "name": "Airgate issuer"}]


def _middlewares() -> list[Any]:
    from airgate_provider.execution import ExecutionMiddleware

    return [{"middleware": ExecutionMiddleware, "name": "Airgate sessions"}]


class AirgatePlugin(AirflowPlugin):
    """What Airflow finds under `airflow.plugins`."""

    name = "airgate"
    operator_extra_links: list[Any] = [AirgateRequestLink()]  # noqa: RUF012  # the base class has it so
    fastapi_apps: Any = _Attesting(_apps)
    fastapi_root_middlewares: Any = _Attesting(_middlewares)
