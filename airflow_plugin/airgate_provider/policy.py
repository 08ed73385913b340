"""The cluster policy (`airflow.policy`): unchanged stock tasks go through the gate also when they defer or poke.

It is called for every task of every DAG, wherever a DAG file is parsed: it imports nothing until it meets a task that
matters, and looks at connections only when such a task runs.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from functools import cache
from types import MethodType
from typing import Any

from airflow.policies import hookimpl

OPERATORS, SENSORS = "airflow.providers.http.operators.http", "airflow.providers.http.sensors.http"


@hookimpl
def task_policy(task: Any) -> None:
    """Make a stock HTTP task ask, when it runs, whether its connection is an `airgate` one."""
    stock = _stock_class(task)
    if stock is None:
        return
    if isinstance(task, stock):
        own: Any = type(task)
        for name, function in _methods(own).items():
            setattr(task, name, MethodType(function, task))
    else:  # mapped: the task itself is made when it runs, from this class
        task.operator_class = _subclass(task.operator_class)
    from airgate_provider import retries

    if retries.POLICIES and not retries.has_policy(task):
        task.retry_policy = retries.make_policy(task.retry_policy)


def _stock_class(task: Any) -> type | None:
    """HttpOperator or HttpSensor, when the task is one. A task can't be one while nobody has imported it."""
    made_of = task if isinstance(task, type) else getattr(task, "operator_class", None) or type(task)
    if not isinstance(made_of, type):  # a mapped task that was read from the database
        return None
    for module, name in ((OPERATORS, "HttpOperator"), (SENSORS, "HttpSensor")):
        stock = getattr(sys.modules.get(module), name, None)
        if stock is not None and issubclass(made_of, stock):
            # Ours do by themselves what is added here.
            return None if made_of.__module__.startswith("airgate_provider.") else stock
    return None


@cache
def _subclass(base: type) -> type:
    """A class of the same name, so that nothing which shows, keeps or links tasks sees a difference."""
    names = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    return type(base)(base.__name__, (base,), {**names, **_methods(base)})


@cache
def _methods(base: Any) -> dict[str, Any]:
    """Methods in place of the base's: each does as the base does unless the connection is ours."""

    def defer(
        self: Any,
        *,
        trigger: Any,
        method_name: str,
        kwargs: dict[str, Any] | None = None,
        timeout: timedelta | int | float | None = None,
    ) -> None:
        from airgate_provider import gated

        arguments = {"trigger": trigger, "method_name": method_name, "kwargs": kwargs, "timeout": timeout}
        base.defer(self, **(gated.deferral(self, **arguments) if gated.is_gated(self) else arguments))

    def execute_complete(self: Any, context: Any, event: Any = None, **kwargs: Any) -> Any:
        from airgate_provider import gated

        if gated.AGAIN in kwargs or gated.was_gated(self):
            return gated.complete(self, MethodType(base.execute_complete, self), context, event, kwargs)
        return base.execute_complete(self, context, event, **kwargs)

    def execute_sync(self: Any, context: Any) -> Any:
        from airgate_provider import gated

        try:
            return base.execute_sync(self, context)
        except PermissionError:
            gated.connection(self.http_conn_id)  # if that is what is denied, this says what to do
            raise

    methods: dict[str, Any] = {"defer": defer, "execute_complete": execute_complete}
    if hasattr(base, "execute_sync"):
        methods["execute_sync"] = execute_sync
    stock = getattr(sys.modules.get(SENSORS), "HttpSensor", None)
    if (
        stock is not None and getattr(base, "poke", None) is stock.poke
    ):  # a sensor with a poke of its own keeps it

        def poke(self: Any, context: Any) -> Any:
            from airgate_provider import gated

            return gated.poke(self, context) if gated.is_gated(self) else base.poke(self, context)

        methods["poke"] = poke
    return methods
