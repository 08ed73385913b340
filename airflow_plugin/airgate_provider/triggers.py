"""Triggers: the calls of deferred tasks, through the gate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from airflow.providers.http.triggers.http import HttpResponseSerializer, HttpSensorTrigger, HttpTrigger
from airflow.triggers.base import TriggerEvent

from airgate_provider import compat
from airgate_provider.errors import GateBusy
from airgate_provider.hooks import AirgateAsyncHook
from airgate_provider.workload import Workload


class _Carrying:
    """What a trigger carries of its task. Never a token: that is asked for in the triggerer."""

    http_conn_id: str
    method: str

    def _carry(
        self,
        upstream: str | None,
        roles: Sequence[str] | None,
        justification: str | None,
        workload: dict[str, Any] | None,
        number: int = 1,
    ) -> None:
        self.upstream = upstream
        self.roles = list(roles or ())
        self.justification = justification
        self.workload = workload
        self.number = number

    def _arguments(self, *names: str) -> dict[str, Any]:
        """As Airflow keeps them: those that are named, and what is carried."""
        carried = ("http_conn_id", "method", "upstream", "roles", "justification", "workload")
        return {name: getattr(self, name) for name in (*names, *carried)}

    def _get_async_hook(self) -> AirgateAsyncHook:
        return AirgateAsyncHook(
            method=self.method,
            http_conn_id=self.http_conn_id,
            upstream=self.upstream,
            roles=self.roles,
            justification=self.justification,
            workload=Workload.from_dict(self.workload),
            number=self.number,
        )


class AirgateTrigger(_Carrying, HttpTrigger):
    """One call through the gate, made in the triggerer.

    :param upstream: As in AirgateHook; so are `roles` and `justification`.
    :param workload: Workload.to_dict() of the task.
    :param number: Which of the task's calls this is, from 1.
    """

    def __init__(
        self,
        http_conn_id: str = AirgateAsyncHook.default_conn_name,
        method: str = "POST",
        endpoint: str | None = None,
        headers: dict[str, str] | None = None,
        data: dict[str, Any] | str | None = None,
        extra_options: dict[str, Any] | None = None,
        upstream: str | None = None,
        roles: Sequence[str] | None = None,
        justification: str | None = None,
        workload: dict[str, Any] | None = None,
        number: int = 1,
    ) -> None:
        super().__init__(
            http_conn_id=http_conn_id,
            method=method,
            endpoint=endpoint,
            headers=headers,
            data=data,
            extra_options=extra_options,
        )
        self._carry(upstream, roles, justification, workload, number)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, as Airflow keeps them."""
        arguments = self._arguments("endpoint", "headers", "data", "extra_options", "number")
        return f"{AirgateTrigger.__module__}.AirgateTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event: `status` success with the `response`, or error with a `message` and what to do (see failure())."""
        started = time.monotonic()
        try:
            # Airflow has no annotations for this one.
            response = await self._get_response(self._get_async_hook())  # type: ignore[no-untyped-call]
            event = {"status": "success", "response": HttpResponseSerializer.serialize(response)}
        except Exception as error:
            event = failure(error)
        await settle(started)
        yield TriggerEvent(event)


class AirgateSensorTrigger(_Carrying, HttpSensorTrigger):
    """Asks through the gate until the answer is not 404 any more."""

    def __init__(
        self,
        endpoint: str | None = None,
        http_conn_id: str = AirgateAsyncHook.default_conn_name,
        method: str = "GET",
        data: dict[str, Any] | str | None = None,
        headers: dict[str, str] | None = None,
        extra_options: dict[str, Any] | None = None,
        poke_interval: float = 5.0,
        upstream: str | None = None,
        roles: Sequence[str] | None = None,
        justification: str | None = None,
        workload: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            endpoint=endpoint,
            http_conn_id=http_conn_id,
            method=method,
            data=data,
            headers=headers,
            extra_options=extra_options,
            poke_interval=poke_interval,
        )
        self._carry(upstream, roles, justification, workload)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, as Airflow keeps them."""
        arguments = self._arguments("endpoint", "data", "headers", "extra_options", "poke_interval")
        return f"{AirgateSensorTrigger.__module__}.AirgateSensorTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event, as AirgateTrigger's but without a response."""
        started = time.monotonic()
        event: dict[str, Any] = {"status": "success"}
        while True:
            wait = self.poke_interval
            try:
                async with aiohttp.ClientSession() as session:
                    await self._get_async_hook().run(
                        session=session,
                        endpoint=self.endpoint,
                        data=self.data,
                        headers=self.headers,
                        extra_options=self.extra_options,
                    )
                break
            except GateBusy as error:  # not there yet either
                wait = max(wait, error.retry_after)
            except AirflowException as error:
                if not str(error).startswith("404:"):
                    event = failure(error)
                    break
            except Exception as error:
                event = failure(error)
                break
            await asyncio.sleep(wait)
        await settle(started)
        yield TriggerEvent(event)


def failure(error: Exception) -> dict[str, Any]:
    """An error as an event: `final` when trying again changes nothing, `retry_after` when it has to wait."""
    event: dict[str, Any] = {"status": "error", "message": str(error) or type(error).__name__}
    if isinstance(error, AirflowFailException):
        event["final"] = True
    if isinstance(error, GateBusy):
        event["retry_after"] = error.retry_after
    if request_id := getattr(error, "request_id", ""):
        event["request_id"] = request_id
    return event


async def settle(started: float) -> None:
    """Don't fire before the scheduler knows that the task has deferred."""
    await asyncio.sleep(max(0.0, compat.settle_seconds() - (time.monotonic() - started)))
