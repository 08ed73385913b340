"""A retry policy, which only Airflow 3.3 and later have: nothing else may import this module."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy

from airgate_provider.errors import GateBusy


class GateRetryPolicy(RetryPolicy):
    """No sooner than the gate said; everything else as the task's own policy, or Airflow, has it."""

    def __init__(self, other: RetryPolicy | None = None) -> None:
        self.other = other

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Any = None
    ) -> RetryDecision:
        """A delay for a busy gate, unless the task's own is longer."""
        decision = (
            self.other.evaluate(exception, try_number, max_tries, context)
            if self.other is not None
            else RetryDecision.default()
        )
        if not isinstance(exception, GateBusy) or decision.action.value == "fail":
            return decision
        wanted = timedelta(seconds=exception.retry_after)
        usual = decision.retry_delay or getattr((context or {}).get("task"), "retry_delay", None)
        if isinstance(usual, timedelta) and usual >= wanted:
            return decision
        return RetryDecision.retry(
            delay=wanted, reason=f"the gate asks to wait {exception.retry_after:.0f} s"
        )

    def serialize(self) -> dict[str, Any]:
        """Nothing to keep: the policy is set anew wherever the DAG is parsed."""
        return {}
