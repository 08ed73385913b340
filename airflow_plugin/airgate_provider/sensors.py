"""AirgateSensor: an HttpSensor through the gate."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NoReturn

from airflow.providers.http.sensors.http import HttpSensor

from airgate_provider import gated
from airgate_provider.hooks import AirgateHook


class AirgateSensor(HttpSensor):
    """Waits until an API behind the gate answers as it should. Everything of HttpSensor works.

    A denial fails the task at once; a gate that is busy, and a rate limit, count as not yet.

    :param upstream: The API behind the gate; the connection's when left out. (templated)
    :param roles: The roles to act under, a list or a text with commas; the connection's when left out. (templated)
    :param justification: Why, where a policy asks for it. (templated)
    :param http_conn_id: A connection of type `airgate`. (templated)
    """

    template_fields: Sequence[str] = (*HttpSensor.template_fields, "upstream", "roles", "justification")
    ui_color = "#dfeae1"

    def __init__(
        self,
        *,
        endpoint: str,
        upstream: str | None = None,
        roles: Sequence[str] | str | None = None,
        justification: str | None = None,
        http_conn_id: str = AirgateHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(endpoint=endpoint, http_conn_id=http_conn_id, **kwargs)
        self.upstream = upstream
        self.roles = roles
        self.justification = justification

    def poke(self, context: Any) -> Any:
        """Ask once."""
        return gated.poke(self, context)

    def defer(
        self,
        *,
        trigger: Any,
        method_name: str,
        kwargs: dict[str, Any] | None = None,
        timeout: timedelta | int | float | None = None,
    ) -> NoReturn:
        """Defer to our trigger."""
        super().defer(
            **gated.deferral(self, trigger=trigger, method_name=method_name, kwargs=kwargs, timeout=timeout)
        )

    def execute_complete(self, context: Any, event: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """What the trigger brought. Raises GateDenied when the gate said no."""
        gated.complete(self, super().execute_complete, context, event, kwargs)
