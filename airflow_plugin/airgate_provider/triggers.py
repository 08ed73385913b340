"""Triggers: the calls of deferred tasks, through the gate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import aiohttp
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from airflow.providers.http.triggers.http import HttpResponseSerializer, HttpSensorTrigger, HttpTrigger
from airflow.triggers.base import TriggerEvent

from airgate_provider import compat, identity, sealed, tokens
from airgate_provider.errors import GateBusy, TokenEnded
from airgate_provider.hooks import AirgateAsyncHook
from airgate_provider.settings import Settings
from airgate_provider.workload import Workload

CALLS = 3  # how often one is tried, as in the stock hook
MOST_RENEWALS = 2  # in a row, without a call that the gate took

RENEW = "renew"  # the event's status: the task fetches a new token, and defers again


class _Carrying:
    """What a trigger carries of its task. Never a token in the clear: that is asked for in the triggerer.

    The triggerer gets no attested one, which only a running task does. So the task sends its own along, sealed. When it
    has ended, the trigger fires an event that makes the task fetch a new one and defer again.
    """

    http_conn_id: str
    method: str
    task_instance: Any

    def _carry(
        self,
        upstream: str | None,
        roles: Sequence[str] | None,
        justification: str | None,
        workload: dict[str, Any] | None,
        number: int = 1,
        attested: dict[str, Any] | None = None,
    ) -> None:
        self.upstream = upstream
        self.roles = list(roles or ())
        self.justification = justification
        self.workload = workload
        self.number = number
        self.attested = attested
        self._renewals: int = (attested or {}).get("renewals", 0)
        self._tries: int = (attested or {}).get("tries", 0)
        self._opened: Settings | None = None

    def _arguments(self, *names: str) -> dict[str, Any]:
        """As Airflow keeps them: those that are named, and what is carried."""
        carried = ("http_conn_id", "method", "upstream", "roles", "justification", "workload")
        arguments = {name: getattr(self, name) for name in (*names, *carried)}
        return arguments if self.attested is None else {**arguments, "attested": self.attested}

    async def _open(self) -> None:
        """Raises ConnectionInvalid."""
        if self.attested is None or self._opened is not None:
            return
        session = str(getattr(self.task_instance, "id", ""))
        said = await asyncio.to_thread(sealed.opened, self.attested["sealed"], session, self.upstream)
        await asyncio.to_thread(tokens.mask, said.secret)
        self._opened = replace(said, received=self.attested["received"])

    def _check_fresh(self) -> None:
        token = None if self._opened is None else identity.handed(self._opened)
        if token is not None and not token.fresh:
            raise TokenEnded

    def _taken(self) -> None:
        """The gate took the token, whatever else it said."""
        self._renewals = 0

    def _renewal(self, ended: TokenEnded) -> dict[str, Any]:
        """The event that asks for a new token; the error's own when new ones are of no use either."""
        if self._renewals >= MOST_RENEWALS:
            return failure(ended.refused or ended)
        return {"status": RENEW, "renewals": self._renewals + 1, "tries": self._tries}

    def _get_async_hook(self) -> AirgateAsyncHook:
        return AirgateAsyncHook(
            carried=self._opened,
            retry_limit=max(1, CALLS - self._tries),
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
    :param attested: The task's own token: `sealed` (sealed.py), `received` (when, time.time()), and how often it was
        renewed in a row (`renewals`), and the call tried (`tries`).
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
        attested: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            http_conn_id=http_conn_id,
            method=method,
            endpoint=endpoint,
            headers=headers,
            data=data,
            extra_options=extra_options,
        )
        self._carry(upstream, roles, justification, workload, number, attested)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, as Airflow keeps them."""
        arguments = self._arguments("endpoint", "headers", "data", "extra_options", "number")
        return f"{AirgateTrigger.__module__}.AirgateTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event: `status` success with the `response`, or error with a `message` and what to do (see failure()).

        Or renew, for a new token.
        """
        started = time.monotonic()
        try:
            await self._open()
            hook = self._get_async_hook()
            # Airflow has no annotations for this one.
            response = await self._get_response(hook)  # type: ignore[no-untyped-call]
            event = {"status": "success", "response": HttpResponseSerializer.serialize(response)}
        except TokenEnded as ended:
            if hook.tries:
                self._taken()
                self._tries += hook.tries
            event = self._renewal(ended)
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
        attested: dict[str, Any] | None = None,
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
        self._carry(upstream, roles, justification, workload, attested=attested)

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
                await self._open()
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
            except TokenEnded as ended:
                event = self._renewal(ended)
                break
            except AirflowException as error:
                if not str(error).startswith("404:"):
                    event = failure(error)
                    break
            except Exception as error:
                event = failure(error)
                break
            self._taken()
            await asyncio.sleep(wait)
            try:
                self._check_fresh()
            except TokenEnded as ended:
                event = self._renewal(ended)
                break
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
