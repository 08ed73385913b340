"""DAGs as they were before the gate: stock operators, and a connection's name. Only the connections have changed."""

import os
import time
from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor

ONCE = {
    "schedule": "@once",
    "start_date": datetime(2026, 1, 1),
    "catchup": False,
    "tags": ["finance", "close"],
}
STUBBORN = {"retries": 3, "retry_delay": timedelta(seconds=1)}
ENTRY = '{"account": "4711", "amount": "250.00"}'
JSON = {"Content-Type": "application/json", "X-Team": "finance"}


def next_of(pages, pause=0.0):
    """A pagination function that asks for so many pages."""

    def following(response):
        number = int(response.json()["query"].partition("page=")[2] or 1)
        if number >= pages():
            return None
        time.sleep(pause)
        return {"data": {"page": str(number + 1)}}

    return following


with DAG("finance_stock", **ONCE):
    HttpOperator(
        task_id="post_entry",
        http_conn_id="ledger",
        endpoint="v1/entries?close=2026-10&dry=a%20b",
        data=ENTRY,
        headers=JSON,
    )
    HttpOperator(
        task_id="upstream_fails",
        http_conn_id="ledger",
        endpoint="v1/reports/status/418",
        method="GET",
    )

with DAG("finance_denied", default_args=STUBBORN, **ONCE):
    HttpOperator(task_id="post_entry", http_conn_id="ledger_as_sales", endpoint="v1/entries", data=ENTRY)
    HttpOperator(
        task_id="deferred",
        http_conn_id="ledger_as_sales",
        endpoint="v1/entries/deferred/reversal",
        data=ENTRY,
        deferrable=True,
    )
    HttpOperator(
        task_id="with_tenacity",
        http_conn_id="ledger_as_sales",
        endpoint="v1/entries/tenacity/reversal",
        data=ENTRY,
        retry_args={},
    )

with DAG("finance_throttled", default_args=STUBBORN, **ONCE):
    HttpOperator(
        task_id="read",
        http_conn_id="ledger",
        endpoint="v1/limited",
        method="GET",
        data={"page": "1"},
        priority_weight=100,  # it waits for a minute; all others can run meanwhile
        # The first try asks for more than the limit, the second one has learnt.
        pagination_function=next_of(lambda: 12 if os.environ["AIRFLOW_CTX_TRY_NUMBER"] == "1" else 1),
    )

with DAG("finance_expiring", **ONCE):
    HttpOperator(
        task_id="read",
        http_conn_id="ledger_expiring",
        endpoint="v1/pages",
        method="GET",
        data={"page": "1"},
        pagination_function=next_of(lambda: 2, pause=8),
    )

with DAG("finance_pages", **ONCE):
    HttpOperator(
        task_id="read",
        http_conn_id="ledger_paged",
        endpoint="v1/pages",
        method="GET",
        data={"page": "1"},
        pagination_function=next_of(lambda: 5),
    )

with DAG("finance_deferred", **ONCE):
    HttpOperator(
        task_id="post_entry",
        http_conn_id="ledger",
        endpoint="v1/entries",
        data=ENTRY,
        headers=JSON,
        deferrable=True,
    )
    HttpOperator(
        task_id="pages",
        http_conn_id="ledger",
        endpoint="v1/pages",
        method="GET",
        data={"page": "1"},
        pagination_function=next_of(lambda: 2),
        deferrable=True,
    )
    HttpOperator.partial(task_id="mapped", http_conn_id="ledger", method="GET", deferrable=True).expand(
        endpoint=["v1/entries/1", "v1/entries/2"]
    )
    HttpSensor(task_id="wait", http_conn_id="ledger", endpoint="v1/pages", poke_interval=1, timeout=60)

with DAG("finance_mapped", max_active_tasks=16, **ONCE):
    HttpOperator.partial(task_id="read", http_conn_id="ledger_shared", method="GET").expand(
        endpoint=[f"v1/entries/{number}" for number in range(100)]
    )

with DAG("finance_broken", default_args=STUBBORN, **ONCE):
    HttpOperator(task_id="no_token_url", http_conn_id="ledger_incomplete", endpoint="v1/entries")

with DAG("finance_gate_down", **ONCE):
    HttpOperator(task_id="post_entry", http_conn_id="ledger_down", endpoint="v1/entries", data=ENTRY)

with DAG("finance_bound", **ONCE):
    HttpOperator(task_id="post_entry", http_conn_id="ledger_bound", endpoint="v1/entries", data=ENTRY)
    HttpOperator(
        task_id="deferred", http_conn_id="ledger_bound", endpoint="v1/entries", data=ENTRY, deferrable=True
    )
