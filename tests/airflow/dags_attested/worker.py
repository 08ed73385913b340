"""DAGs whose tasks call with attested tokens in every way that a worker has, and for longer than a token lives."""

import json
import os
import time
from datetime import UTC, datetime

from airflow.providers.http.hooks.http import HttpHook
from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import DAG, BaseHook, task

from airgate_provider.hooks import AirgateHook
from airgate_provider.operators import AirgateOperator

START = datetime(2026, 1, 1, tzinfo=UTC)
GET = {"method": "GET", "http_conn_id": "attested"}


def page(name):
    return f"v1/attested/worker/{name}"


with DAG("worker", schedule=None, start_date=START, tags=["finance"]):
    HttpOperator(task_id="stock", endpoint=page("stock"), **GET)
    HttpOperator(
        task_id="pages",
        endpoint=page("pages"),
        deferrable=True,
        pagination_function=lambda response: None if "page=2" in response.text else {"data": {"page": "2"}},
        **GET,
    )
    AirgateOperator(task_id="ours", endpoint=page("ours"), roles=["airflow-task"], **GET)
    HttpOperator(task_id="denied", endpoint="v1/entries", http_conn_id="attested", data="{}")

    @task
    def stock_hook():
        hook = HttpHook(method="GET", http_conn_id="attested_stock")
        return hook.run(page("stock_hook")).json()["headers"]

    @task
    def careless():
        """Prints what it should not."""
        attested = BaseHook.get_connection("attested")
        plain = BaseHook.get_connection("attested_stock")
        print(attested.password, attested.extra, attested.get_uri())
        print(plain.extra, plain.extra_dejson, plain.get_uri())
        print(
            json.dumps(
                HttpHook(http_conn_id="attested_stock").get_conn().headers.copy().__dict__, default=str
            )
        )

    @task
    def past_the_server():
        """Has a connection of that identity in its own environment, where no API server puts a token in."""
        own = {
            "conn_type": "airgate",
            "host": "http://127.0.0.1:1",
            "extra": {"upstream": "x", "identity": "attested"},
        }
        os.environ["AIRFLOW_CONN_OWN"] = json.dumps(own)
        AirgateHook("GET", "own").run("v1/x")

    stock_hook()
    careless()
    past_the_server()


with DAG(
    "worker_denied", schedule=None, start_date=START, tags=[f"{number:02}-{'x' * 90}" for number in range(80)]
):
    # So many tags make no token.
    HttpOperator(task_id="stock", endpoint=page("denied"), **GET)
    HttpOperator(task_id="deferred", endpoint=page("denied"), deferrable=True, **GET)
    AirgateOperator(task_id="ours", endpoint=page("denied"), **GET)


with DAG("worker_long", schedule=None, start_date=START, tags=["finance"]):
    # Never there: it asks until its time is over, which is longer than a token lives.
    HttpSensor(
        task_id="waits",
        endpoint=page("waits/status/404"),
        deferrable=True,
        poke_interval=5,
        timeout=100,
        **GET,
    )

    HttpSensor(
        task_id="arrives",
        endpoint=page("arrives/ready"),
        request_params={"ms": "75000"},
        deferrable=True,
        poke_interval=5,
        timeout=150,
        **GET,
    )

    @task
    def works():
        hook = AirgateHook("GET", "attested")
        hook.run(page("works"))
        time.sleep(70)
        hook.run(page("works"))

    works()
