"""When a task may try again: never after a denial, and no sooner than the gate said."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from airgate_provider import compat
from airgate_provider.errors import GateBusy

log = logging.getLogger(__name__)


class Pause:
    """The same rule for the three that retry: Airflow with a retry policy, Airflow without one, and tenacity."""

    @staticmethod
    def before_retry(error: BaseException, context: dict[str, Any] | None) -> None:
        """Stay until Airflow's own delay is enough, where no retry policy will see to that (before Airflow 3.3)."""
        if not isinstance(error, GateBusy) or context is None:
            return
        task, ti = context.get("task"), context.get("ti")
        if getattr(task, "retry_args", None) or not _tries_left(ti) or has_policy(task):
            return
        delay = getattr(task, "retry_delay", None)
        short = error.retry_after - (delay.total_seconds() if isinstance(delay, timedelta) else 0.0)
        if short > 0:
            log.info("The gate asks to wait %.0f s before the next try.", error.retry_after)
            time.sleep(short)

    @staticmethod
    def within(retry_args: dict[Any, Any]) -> dict[Any, Any]:
        """Tenacity's arguments, so that it leaves a denial alone and waits as long as the gate asks for."""
        from airflow.providers.common.compat.sdk import AirflowFailException
        from tenacity import retry_if_exception_type, wait_none

        again: Callable[[Any], Any] = retry_args.get("retry") or retry_if_exception_type()
        wait: Callable[[Any], float] = retry_args.get("wait") or wait_none()

        def worth_it(state: Any) -> bool:
            failed = state.outcome.exception() if state.outcome.failed else None
            return not isinstance(failed, AirflowFailException) and bool(again(state))

        def long_enough(state: Any) -> float:
            failed = state.outcome.exception() if state.outcome.failed else None
            least = failed.retry_after if isinstance(failed, GateBusy) else 0.0
            return max(float(wait(state)), least)

        return {"reraise": True, **retry_args, "retry": worth_it, "wait": long_enough}


def has_policy(task: Any) -> bool:
    """Whether this task's retries are timed by our policy."""
    return type(getattr(task, "retry_policy", None)).__name__ == "GateRetryPolicy"


def make_policy(other: Any) -> Any:
    """A retry policy (Airflow 3.3) that asks `other`, the DAG's own or None, about everything but a busy gate."""
    from airgate_provider.retry_policy import GateRetryPolicy

    return GateRetryPolicy(other)


def _tries_left(ti: Any) -> bool:
    most = getattr(ti, "max_tries", 0) or 0
    return bool(getattr(ti, "try_number", 1) <= most)


POLICIES = compat.VERSION >= (3, 3)
