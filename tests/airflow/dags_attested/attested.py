"""DAGs whose tasks hold attested tokens: the same connection for all of them, and no credential on the worker."""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk import DAG, BaseHook, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airgate_provider.hooks import AirgateHook

START = datetime(2026, 1, 1, tzinfo=UTC)
WIDE = 200


def facts(dag_id: str, **more: Any) -> None:
    """Every manner of task, each with one call: /v1/attested/<dag>/<task>."""
    with DAG(dag_id, start_date=START, catchup=False, tags=["finance", "close"], **more):
        asked: dict[str, Any] = {"http_conn_id": "attested", "method": "GET", "owner": "ada", "retries": 0}
        page = f"v1/attested/{dag_id}"
        HttpOperator(task_id="plain", endpoint=f"{page}/plain", **asked)
        HttpOperator.partial(task_id="mapped", **asked).expand(
            endpoint=[f"{page}/mapped{index}" for index in range(3)]
        )
        HttpOperator(
            task_id="retried",
            endpoint=f"{page}/retried",
            response_check=lambda response, ti: ti.try_number > 1,
            **{**asked, "retries": 1, "retry_delay": timedelta(seconds=1)},
        )
        HttpOperator(task_id="deferred", endpoint=f"{page}/deferred", deferrable=True, **asked)


facts("facts_scheduled", schedule="@once")
facts("facts_manual", schedule=None)
facts("facts_backfill", schedule="@daily", end_date=datetime(2026, 1, 5, tzinfo=UTC))

# DAGs whose tasks do the same over the same connection: the first one may, the second one may not, and the third one
# may when one of two users has started its run.
for name in ("finance_close", "finance_report", "finance_adjust"):
    with DAG(name, schedule=None, start_date=START, tags=["finance"]):
        HttpOperator(
            task_id="publish", http_conn_id="attested", method="POST", endpoint="v1/entries", data="{}"
        )


def told() -> Path:
    """The folder in which the tests and a task leave each other word."""
    return Path(os.environ["AIRGATE_TESTS_FOLDER"])


with DAG("held", schedule=None, start_date=START, tags=["held"]):

    @task(retries=1, retry_delay=timedelta(seconds=1))
    def hold() -> None:
        """Leave the token to the tests, and end as they say: <run>.<try>.json, <run>.<try>.then."""
        ti = get_current_context()["ti"]
        mine = told() / f"{ti.run_id}.{ti.try_number}"
        connection = BaseHook.get_connection("attested")
        kept = {
            "token": connection.password,
            "until": connection.extra_dejson.get("attested_until"),
            "session": str(ti.id),
            "pid": os.getpid(),
            "environment": dict(os.environ),
        }
        mine.with_name(mine.name + ".new").write_text(json.dumps(kept), encoding="utf-8")
        mine.with_name(mine.name + ".new").rename(mine.with_name(mine.name + ".json"))
        then = mine.with_name(mine.name + ".then")
        while not then.exists():
            if os.getppid() == 1:  # whoever looked after this task is gone
                return
            time.sleep(0.05)
        match then.read_text(encoding="utf-8"):
            case "fail":
                raise AirflowFailException("as asked")
            case "retry":
                raise RuntimeError("as asked")
            case "skip":
                raise AirflowSkipException("as asked")

    hold()


with DAG("poked", schedule=None, start_date=START, tags=["finance"]):

    @task.sensor(mode="reschedule", poke_interval=1, timeout=60)
    def poke() -> bool:
        """Call once, give the worker back, and call again: one try."""
        AirgateHook("GET", http_conn_id="attested").run("v1/attested/poked")
        again = told() / get_current_context()["ti"].run_id
        if again.exists():
            return True
        again.touch()
        return False

    poke()


with DAG("wide", schedule=None, start_date=START, max_active_tasks=WIDE, tags=["finance"]):
    HttpOperator.partial(task_id="each", http_conn_id="attested", method="GET").expand(
        endpoint=[f"v1/attested/wide/{index}" for index in range(WIDE)]
    )
