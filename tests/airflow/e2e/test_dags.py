"""Unchanged DAGs and our own through the real gate, in a real Airflow of each version."""

import json
from typing import Any

import pytest

from rig import Rig

ENTRY = '{"account": "4711", "amount": "250.00"}'
MAPPED = 100


def problem(text: str, *words: str) -> list[str]:
    """Which of these words a log lacks."""
    return [word for word in words if word not in text]


def test_an_unchanged_task_goes_through_the_gate(rig: Rig) -> None:
    rig.ended("finance_stock", failing={"upstream_fails"})
    seen = json.loads(rig.airflow.xcom("finance_stock", "post_entry"))
    assert (seen["method"], seen["path"], seen["query"]) == (
        "POST",
        "/ledger/v1/entries",
        "close=2026-10&dry=a%20b",
    )
    assert seen["body"] == ENTRY
    [decision] = rig.decisions("finance_stock", "post_entry")
    assert decision["decision"] == "permit"
    said = {name: fact["value"] for name, fact in decision["workload"].items()}
    run = said.pop("run")
    assert run.startswith("scheduled__2026-01-01")
    assert said == {
        "dag": "finance_stock",
        "task": "post_entry",
        "try": "1",
        "tags": ["close", "finance"],
        "environment": "tests",
    }
    request_id = rig.airflow.xcom("finance_stock", "post_entry", "airgate_request_id")
    assert request_id == decision["request_id"]
    assert request_id in rig.airflow.log("finance_stock", "post_entry")
    assert (
        rig.airflow.xcom("finance_stock", "post_entry", "airgate_request_url")
        == f"https://logs.example.com/?query={request_id}"
    )


def test_the_upstream_sees_what_the_dag_wrote_and_nothing_of_the_connection(rig: Rig) -> None:
    rig.ended("finance_stock", failing={"upstream_fails"})
    seen = json.loads(rig.airflow.xcom("finance_stock", "post_entry"))
    headers = seen["headers"]
    assert headers["content-type"] == "application/json"
    assert headers["x-team"] == "finance"
    # The gate's own credential for the ledger, in place of the task's token.
    assert headers["authorization"] == f"Bearer {rig.stack.secrets['UPSTREAM_LEDGER_TOKEN']}"
    assert headers["x-forwarded-prefix"] == "/ledger"
    assert set(headers) == {
        "accept", "accept-encoding", "authorization", "cache-control", "content-length", "content-type", "forwarded",
        "host", "idempotency-key", "pragma", "traceparent", "user-agent", "x-forwarded-host", "x-forwarded-prefix",
        "x-forwarded-proto", "x-team",
    }  # fmt: skip
    text = json.dumps(seen)
    secrets = [client["client_secret"] for client in rig.stack.clients.values()]
    assert not [secret for secret in [*secrets, "left-over-from-before", "eyJhbGci"] if secret in text]


def test_no_secret_is_in_any_log(rig: Rig) -> None:
    rig.airflow.wait("finance_stock", "finance_deferred", "finance_denied")
    secrets = [client["client_secret"] for client in rig.stack.clients.values()]
    found = [
        file.name
        for file in rig.airflow.home.rglob("*.log")
        for text in [file.read_text(encoding="utf-8", errors="replace")]
        if "eyJhbGci" in text or any(secret in text for secret in secrets)
    ]
    assert found == []


def test_the_upstreams_own_error_is_as_with_the_stock_hook(rig: Rig) -> None:
    tries = rig.ended("finance_stock", failing={"upstream_fails"})
    assert tries["upstream_fails"] == ("failed", 1)
    assert "418:I'm a Teapot" in rig.airflow.log("finance_stock", "upstream_fails")


@pytest.mark.parametrize("task", ["post_entry", "deferred", "with_tenacity"])
def test_a_denial_fails_at_once_after_one_call_and_says_what_to_do(rig: Rig, task: str) -> None:
    tries = rig.ended("finance_denied", failing={"post_entry", "deferred", "with_tenacity"})
    assert tries[task] == ("failed", 1)
    [decision] = rig.decisions("finance_denied", task)
    assert decision["reason"] == "policy.no_match"
    request_id = decision["request_id"]
    log = rig.airflow.log("finance_denied", task)
    assert not problem(
        log,
        "No policy permits this call",
        "policy.no_match",
        "finance-data@example.com",
        f"airgate policy explain --request-id {request_id}",
    )
    assert rig.airflow.xcom("finance_denied", task, "airgate_request_id") == request_id


def test_a_throttled_task_is_tried_again_no_sooner_than_the_gate_says(rig: Rig) -> None:
    assert rig.ended("finance_throttled") == {"read": ("success", 2)}
    decisions = rig.decisions("finance_throttled")
    refused = [index for index, event in enumerate(decisions) if event["reason"] == "limit.rate"]
    assert len(refused) == 1
    before, after = decisions[refused[0]], decisions[refused[0] + 1]
    assert seconds(after) - seconds(before) >= 60
    assert len(decisions) == refused[0] + 2


def test_a_token_that_expires_on_the_way_is_renewed_once(rig: Rig) -> None:
    assert rig.ended("finance_expiring") == {"read": ("success", 1)}
    assert rig.tokens.fetched["expiring"] == 2
    assert len(rig.airflow.xcom("finance_expiring", "read")) == 2


def test_all_pages_of_a_task_share_one_token(rig: Rig) -> None:
    rig.ended("finance_pages")
    pages = [json.loads(page) for page in rig.airflow.xcom("finance_pages", "read")]
    assert [page["query"] for page in pages] == [f"page={number}" for number in range(1, 6)]
    assert len({page["headers"]["idempotency-key"] for page in pages}) == 5
    assert rig.tokens.fetched["paged"] == 1


def test_deferred_tasks_go_through_the_gate_from_the_triggerer(rig: Rig) -> None:
    rig.ended("finance_deferred")
    decisions = rig.decisions("finance_deferred")
    counted = [(event["workload"]["task"]["value"], event["decision"]) for event in decisions]
    assert sorted(counted) == sorted(
        [("post_entry", "permit"), ("wait", "permit")] + [("pages", "permit"), ("mapped", "permit")] * 2
    )
    assert {
        event["workload"]["map_index"]["value"]
        for event in decisions
        if event["workload"]["task"]["value"] == "mapped"
    } == {"0", "1"}
    seen = json.loads(rig.airflow.xcom("finance_deferred", "post_entry"))
    assert seen["body"] == ENTRY
    assert "aiohttp" in seen["headers"]["user-agent"]
    assert "idempotency-key" in seen["headers"]
    [posted] = rig.decisions("finance_deferred", "post_entry")
    assert rig.airflow.xcom("finance_deferred", "post_entry", "airgate_request_id") == posted["request_id"]


def test_a_hundred_mapped_tasks_with_a_cache_file_ask_for_two_tokens_at_most(rig: Rig) -> None:
    rig.ended("finance_mapped", seconds=400)
    decisions = rig.decisions("finance_mapped")
    assert {event["workload"]["map_index"]["value"] for event in decisions} == {
        str(index) for index in range(MAPPED)
    }
    assert len(decisions) == MAPPED
    keys = {
        json.loads(rig.airflow.xcom("finance_mapped", "read", map_index=index))["headers"]["idempotency-key"]
        for index in range(MAPPED)
    }
    assert len(keys) == MAPPED
    assert 1 <= rig.tokens.fetched["shared"] <= 2


def test_a_connection_that_lacks_something_fails_at_once_and_names_the_field(rig: Rig) -> None:
    assert rig.ended("finance_broken", failing={"no_token_url"}) == {"no_token_url": ("failed", 1)}
    log = rig.airflow.log("finance_broken", "no_token_url").replace('\\"', '"')
    assert 'Connection "ledger_incomplete": the field "Token URL" is empty.' in log
    assert rig.tokens.fetched["incomplete"] == 0


def test_a_gate_that_is_down_is_named(rig: Rig) -> None:
    assert rig.ended("finance_gate_down", failing={"post_entry"}) == {"post_entry": ("failed", 1)}
    log = rig.airflow.log("finance_gate_down", "post_entry")
    assert "The gate at http://127.0.0.1:9 cannot be reached" in log


def test_tokens_that_are_bound_to_a_key_work_in_both_ways(rig: Rig) -> None:
    rig.ended("finance_bound")
    decisions = rig.decisions("finance_bound")
    assert [event["decision"] for event in decisions] == ["permit", "permit"]
    assert all(event["jkt"] for event in decisions)


def test_our_own_operators_say_upstream_roles_and_reason(rig: Rig) -> None:
    tries = rig.ended("finance_own", failing={"wrong_role", "wait_denied"})
    assert set(tries) == {"justified", "deferred", "wrong_role", "wait", "wait_deferred", "wait_denied"}
    [justified] = rig.decisions("finance_own", "justified")
    assert justified["justification"] == "Checked for finance_own, month-end"
    assert justified["upstream"] == "warehouse"
    assert justified["roles"]["tagged"] == ["finance-reader"]
    assert len(rig.decisions("finance_own", "wait_denied")) == 1
    [deferred] = rig.decisions("finance_own", "deferred")
    assert deferred["roles"]["tagged"] == ["finance-reader"]
    assert rig.airflow.xcom("finance_own", "deferred", "airgate_request_id") == deferred["request_id"]


def test_stock_hooks_get_a_fresh_token_from_the_secrets_backend(rig: Rig) -> None:
    rig.ended("finance_backend")
    seen: dict[str, Any] = rig.airflow.xcom("finance_backend", "stock_hook")
    assert not [name for name in seen["headers"] if name.startswith("airgate")]
    assert seen["headers"]["authorization"] == f"Bearer {rig.stack.secrets['UPSTREAM_LEDGER_TOKEN']}"
    assert [event["decision"] for event in rig.decisions("finance_backend", "stock_hook")] == ["permit"]
    assert [event["decision"] for event in rig.decisions("finance_backend", "stock_sensor")] == ["permit"]


def test_the_example_dag_runs(rig: Rig) -> None:
    dag = "finance_example_airgate"
    if rig.version == "2.11":
        rig.airflow.run("dags", "trigger", dag)
    else:
        answer = rig.airflow.api("POST", f"/api/v2/dags/{dag}/dagRuns", json={"logical_date": None})
        assert answer.status_code == 200, answer.text
    assert rig.ended(dag)


def seconds(event: dict[str, Any]) -> float:
    """When an event was, in seconds."""
    from datetime import datetime

    return datetime.fromisoformat(event["time"]).timestamp()
