"""Calls through Airgate, from the connection `airgate_default`: the unchanged way, and the ways that say more."""

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.http.operators.http import HttpOperator

from airgate_provider.operators import AirgateOperator
from airgate_provider.sensors import AirgateSensor

with DAG(
    "finance_example_airgate",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["finance", "example"],
    default_args={"http_conn_id": "airgate_default"},
):
    # A stock operator: only the type of its connection is another one.
    post_entry = HttpOperator(
        task_id="post_entry",
        endpoint="v1/entries",
        method="POST",
        data='{"account": "4711", "amount": "250.00"}',
        headers={"Content-Type": "application/json"},
    )

    # Acts under one role only, whatever else the token grants.
    read_entry = AirgateOperator(
        task_id="read_entry",
        upstream="ledger",
        endpoint="v1/entries/4711",
        method="GET",
        roles=["finance-reader"],
    )

    # Waits in the triggerer, without a worker slot.
    report_is_there = AirgateSensor(
        task_id="report_is_there",
        endpoint="v1/reports/2026/10",
        roles=["finance-reader"],
        deferrable=True,
        poke_interval=30,
        timeout=3600,
    )

    post_entry >> read_entry >> report_is_there
