"""DAGs that name what they need of the gate, and stock hooks behind the secrets backend."""

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, task
from airflow.providers.http.hooks.http import HttpHook
from airflow.providers.http.sensors.http import HttpSensor

from airgate_provider.operators import AirgateOperator
from airgate_provider.sensors import AirgateSensor

ONCE = {"schedule": "@once", "start_date": datetime(2026, 1, 1), "catchup": False, "tags": ["finance"]}

with DAG("finance_own", default_args={"http_conn_id": "ledger", "roles": ["finance-reader"]}, **ONCE) as dag:
    AirgateOperator(task_id="justified", upstream="warehouse", endpoint="v1/justified", method="GET",
                    justification="Checked for {{ dag.dag_id }}, month-end")  # fmt: skip
    AirgateOperator(task_id="wrong_role", endpoint="v1/entries", roles=["finance-reader"])
    AirgateOperator(task_id="deferred", upstream="ledger", endpoint="v1/pages", method="GET", deferrable=True)
    AirgateSensor(task_id="wait", endpoint="v1/pages", poke_interval=1, timeout=60)
    AirgateSensor(task_id="wait_deferred", endpoint="v1/pages", poke_interval=1, timeout=60, deferrable=True)
    AirgateSensor(task_id="wait_denied", endpoint="v1/secret", poke_interval=1, timeout=60)

with DAG("finance_backend", **ONCE):

    @task
    def stock_hook():
        """A hook that is made by hand, as in many DAGs."""
        return HttpHook(method="POST", http_conn_id="ledger_plain").run("v1/entries", data="{}").json()

    stock_hook()
    HttpSensor(
        task_id="stock_sensor", http_conn_id="ledger_plain", endpoint="v1/pages", poke_interval=1, timeout=60
    )
