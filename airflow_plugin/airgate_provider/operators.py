"""AirgateOperator: an HttpOperator that says in the DAG under which roles, to which upstream, and why it calls."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NoReturn

from airflow.providers.http.operators.http import HttpOperator

from airgate_provider import gated
from airgate_provider.hooks import AirgateHook


class AirgateOperator(HttpOperator):
    """Calls an API through the gate. Everything of HttpOperator works, `deferrable` and pagination included.

        AirgateOperator(
            task_id="post_entry",
            upstream="ledger",
            endpoint="v1/entries",
            method="POST",
            data='{"account": "4711"}',
            roles=["finance-publisher"],
        )

    :param upstream: The API behind the gate; the connection's when left out. (templated)
    :param roles: The roles to act under, a list or a text with commas; the connection's when left out. (templated)
    :param justification: Why, where a policy asks for it; 10 to 500 characters, kept in the audit log. (templated)
    :param http_conn_id: A connection of type `airgate`. (templated)
    """

    template_fields: Sequence[str] = (*HttpOperator.template_fields, "upstream", "roles", "justification")
    ui_color = "#cfe3d4"

    def __init__(
        self,
        *,
        upstream: str | None = None,
        roles: Sequence[str] | str | None = None,
        justification: str | None = None,
        http_conn_id: str = AirgateHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(http_conn_id=http_conn_id, **kwargs)
        self.upstream = upstream
        self.roles = roles
        self.justification = justification

    @property
    def hook(self) -> AirgateHook:
        """A hook for this task's upstream and roles."""
        return AirgateHook(
            method=self.method,
            http_conn_id=self.http_conn_id,
            upstream=self.upstream,
            roles=gated.roles(self.roles),
            justification=self.justification,
            tcp_keep_alive=self.tcp_keep_alive,
            tcp_keep_alive_idle=self.tcp_keep_alive_idle,
            tcp_keep_alive_count=self.tcp_keep_alive_count,
            tcp_keep_alive_interval=self.tcp_keep_alive_interval,
        )

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

    def execute_complete(
        self, context: Any, event: dict[str, Any], paginated_responses: list[Any] | None = None, **kwargs: Any
    ) -> Any:
        """What the trigger brought. Raises GateDenied, GateBusy, or as HttpOperator does."""
        kwargs["paginated_responses"] = paginated_responses
        return gated.complete(self, super().execute_complete, context, event, kwargs)
