"""What Airflow itself says of the provider, and what its pages get: the list, the form, the Test button, the link."""

import json
import os
import subprocess
import sys

import pytest

from rig import Rig

LINK = "Airgate request"

# Airflow 2.11's pages come from a webserver, which asks the link like this.
LINK_OF = """
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.plugins_manager import get_plugin_info
from airgate_provider.plugin import AirgateRequestLink
key = TaskInstanceKey(dag_id={dag!r}, task_id={task!r}, run_id={run!r}, try_number=1, map_index=-1)
print("link", AirgateRequestLink().get_link(None, ti_key=key))
print("plugin", [plugin["name"] for plugin in get_plugin_info(["operator_extra_links"])])
"""


def only_on(rig: Rig, version: str) -> None:
    if rig.version != version:
        pytest.skip(f"Airflow {version} only")


def test_the_provider_is_listed(rig: Rig) -> None:
    found = json.loads(rig.airflow.run("providers", "list", "--output", "json"))
    [ours] = [row for row in found if row["package_name"] == "airflow-provider-airgate"]
    assert ours["version"] == "0.1.0"


def test_the_link_of_a_task_opens_its_request(rig: Rig) -> None:
    rig.airflow.wait("finance_stock", "finance_denied")
    request_id = rig.airflow.xcom("finance_stock", "post_entry", "airgate_request_id")
    page = f"https://logs.example.com/?query={request_id}"
    run = "scheduled__2026-01-01T00:00:00+00:00"
    if rig.version == "2.11":
        said = rig.airflow.python("-c", LINK_OF.format(dag="finance_stock", task="post_entry", run=run))
        assert f"link {page}" in said
        assert "plugin ['airgate']" in said
        return
    path = "/api/v2/dags/{}/dagRuns/{}/taskInstances/post_entry/links"
    answer = rig.airflow.api("GET", path.format("finance_stock", run))
    assert answer.json()["extra_links"] == {LINK: page}
    answer = rig.airflow.api("GET", path.format("finance_denied", run))
    assert answer.json()["extra_links"][LINK].endswith("/tasks/post_entry/xcom")


def test_the_form_is_served(rig: Rig) -> None:
    only_on(rig, "3.3")
    answer = rig.airflow.api("GET", "/ui/connections/hook_meta")
    [form] = [entry for entry in answer.json() if entry["connection_type"] == "airgate"]
    assert form["hook_name"] == "Airgate"
    assert form["standard_fields"]["host"]["title"] == "Gate"
    assert form["extra_fields"]["identity"]["schema"]["enum"][0] == "client_credentials"


@pytest.mark.parametrize(
    ("change", "works", "said"),
    [
        ({}, True, "takes the token and knows the upstream ledger"),
        ({"upstream": "legder"}, False, "knows no upstream 'legder'"),
        ({"token_url": ""}, False, 'the field "Token URL" is empty'),
    ],
)
def test_the_test_button_works(rig: Rig, change: dict[str, str], works: bool, said: str) -> None:
    only_on(rig, "3.3")
    client = rig.stack.clients["finance-etl"]
    extra = {"upstream": "ledger", "token_url": f"{rig.stack.provider}/token", **change}
    body = {
        "connection_id": "tried",
        "conn_type": "airgate",
        "host": rig.stack.gate,
        "login": client["client_id"],
        "password": client["client_secret"],
        "extra": json.dumps(extra),
    }
    answer = rig.airflow.api("POST", "/api/v2/connections/test", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["status"], said in found["message"]) == (works, True), found


def test_the_explain_line_of_a_denial_can_be_run(rig: Rig) -> None:
    rig.airflow.wait("finance_denied")
    request_id = rig.airflow.xcom("finance_denied", "post_entry", "airgate_request_id")
    line = f"airgate policy explain --request-id {request_id} --path /ledger/v1/entries"
    assert line in rig.airflow.log("finance_denied", "post_entry")
    done = subprocess.run(
        [sys.executable, "-m", *line.split()],
        env={**os.environ, "AIRGATE_DIR": str(rig.stack.directory), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert "DENY policy.no_match" in done.stdout
