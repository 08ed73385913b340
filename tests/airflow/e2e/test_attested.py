"""Each try of a task is a session: what the gate reads of it is what the database says, and its tokens end with it."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from attested import Attested, new_key, write_keys

AT_ONCE = 3.0  # seconds until a token is refused whose task is over

TRIES = """
SELECT ti.id, ti.task_id, ti.map_index, ti.try_number, v.bundle_name, v.bundle_version FROM (
  SELECT id, task_id, map_index, try_number, dag_version_id, dag_id, run_id FROM task_instance
  UNION ALL
  SELECT task_instance_id, task_id, map_index, try_number, dag_version_id, dag_id, run_id FROM task_instance_history
) AS ti LEFT JOIN dag_version AS v ON v.id = ti.dag_version_id WHERE ti.dag_id = ? AND ti.run_id = ?
"""


def in_the_database(attested: Attested, dag: str, run: str) -> list[dict[str, Any]]:
    """Every try of a run as the gate's log should have it."""
    rows = attested.airflow.rows
    [(run_type, user)] = rows(
        "SELECT run_type, triggering_user_name FROM dag_run WHERE dag_id = ? AND run_id = ?", dag, run
    )
    [(owners,)] = rows("SELECT owners FROM dag WHERE dag_id = ?", dag)
    common = {
        "dag": dag,
        "run": run,
        "run_type": run_type,
        "tags": sorted(tag for (tag,) in rows("SELECT name FROM dag_tag WHERE dag_id = ?", dag)),
        "owners": sorted(owners.split(", ")),
        "environment": "tests",
        **({"triggered_by": user} if user else {}),
    }
    tries = []
    for session, task, index, number, bundle, version in rows(TRIES, dag, run):
        said = {**common, "task": task, "try": str(number), "session": dashed(session)}
        said["dag_bundle"] = f"{bundle}@{version}" if version else bundle
        if index >= 0:
            said["map_index"] = str(index)
        tries.append(said)
    return tries


def dashed(session: str) -> str:
    return "-".join(session[a:b] for a, b in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))


def in_the_log(attested: Attested, dag: str, run: str) -> list[dict[str, Any]]:
    """What the gate's log has attested of each call of a run. Nothing in it may be asserted."""
    found = []
    for event in attested.decisions(dag=dag, run=run):
        assert event["decision"] == "permit", event
        assert all(fact["attested"] for fact in event["workload"].values()), event["workload"]
        found.append({name: fact["value"] for name, fact in event["workload"].items()})
    return found


def ordered(tries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(tries, key=lambda each: (each["task"], int(each.get("map_index", -1)), int(each["try"])))


def payload(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def altered(token: str, **claims: Any) -> str:
    """A token whose claims say something else than what was signed."""
    header, body, signature = token.split(".")
    said = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    said["airflow"] = {**said["airflow"], **claims}
    text = base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode()
    return f"{header}.{text}.{signature}"


def held(attested: Attested, **options: Any) -> tuple[str, dict[str, Any]]:
    """A task that runs and has left its token, which the gate takes."""
    run = attested.airflow.trigger("held", **options)
    kept = attested.kept(run)
    assert attested.call(kept["token"]).status_code == 200
    return run, kept


# What the gate reads is what the database says.


@pytest.mark.parametrize("manner", ["scheduled", "manual", "backfill"])
def test_claims_equal_the_database(attested: Attested, manner: str) -> None:
    dag = f"facts_{manner}"
    if manner == "scheduled":
        runs = ["scheduled__2026-01-01T00:00:00+00:00"]
    elif manner == "manual":
        runs = [attested.airflow.trigger(dag, user="grace")]
    else:
        runs = attested.airflow.backfill(dag, "2026-01-02", "2026-01-03")
        assert len(runs) == 2
    for run in runs:
        assert attested.airflow.ended(dag, run) == "success"
        found, wanted = in_the_log(attested, dag, run), in_the_database(attested, dag, run)
        assert ordered(found) == ordered(wanted)
        assert {each["run_type"] for each in found} == {manner}
        assert {(each["task"], each.get("map_index"), each["try"]) for each in found} == {
            ("plain", None, "1"),
            *(("mapped", str(index), "1") for index in range(3)),
            *(("retried", None, number) for number in "12"),
            ("deferred", None, "1"),
        }
        assert len({each["session"] for each in found}) == 7
        if manner == "manual":
            assert {each["triggered_by"] for each in found} == {"grace"}
        elif manner == "scheduled":
            assert not any("triggered_by" in each for each in found)


def test_a_cleared_task_is_a_session_anew(attested: Attested) -> None:
    run = attested.airflow.trigger("finance_close", user="ada")
    assert attested.airflow.ended("finance_close", run) == "success"
    attested.airflow.clear("finance_close", run, "publish", user="grace")
    deadline = time.monotonic() + 60
    while len(in_the_log(attested, "finance_close", run)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert attested.airflow.ended("finance_close", run) == "success"
    found = ordered(in_the_log(attested, "finance_close", run))
    first, second = ordered(in_the_database(attested, "finance_close", run))
    # Who has cleared it the database doesn't say, and who had started it before counts no more.
    assert second.pop("triggered_by") == "ada"
    assert found == [first, second]
    assert [each["try"] for each in found] == ["1", "2"]


def test_a_sensor_that_gives_its_worker_back_goes_on_under_the_same_session(attested: Attested) -> None:
    run = attested.airflow.trigger("poked")
    assert attested.airflow.ended("poked", run) == "success"
    found = in_the_log(attested, "poked", run)
    assert len(found) == 2
    assert [found[0], found[0]] == found
    assert [found[0]] == in_the_database(attested, "poked", run)


# Who may what.


def test_only_the_one_dag_may_and_headers_change_nothing(attested: Attested) -> None:
    may = attested.airflow.trigger("finance_close")
    may_not = attested.airflow.trigger("finance_report")
    assert attested.airflow.ended("finance_close", may) == "success"
    assert attested.airflow.ended("finance_report", may_not) == "failed"
    [refused] = attested.decisions(dag="finance_report", run=may_not)
    assert (refused["decision"], refused["reason"]) == ("deny", "policy.no_match")
    run, kept = held(attested)
    answer = attested.call(
        kept["token"],
        method="POST",
        path="/v1/entries",
        Airgate_Dag_Id="finance_close",
        Airgate_Task_Id="publish",
        Airgate_Run_Id=may,
    )
    assert answer.json()["code"] == "policy.no_match"
    tried = attested.decision(answer.headers["Airgate-Request-Id"])
    assert tried["workload"]["run"] == {"value": run, "attested": True}
    assert tried["workload"]["task"] == {"value": "hold", "attested": True}
    attested.then(run, "success")


@pytest.mark.parametrize(("user", "state"), [("grace", "success"), ("ada", "failed")])
def test_a_manual_run_may_when_the_one_who_started_it_may(attested: Attested, user: str, state: str) -> None:
    run = attested.airflow.trigger("finance_adjust", user=user)
    assert attested.airflow.ended("finance_adjust", run) == state
    [decision] = attested.decisions(dag="finance_adjust", run=run)
    assert decision["decision"] == ("permit" if state == "success" else "deny")


# Nobody gets, or is, somebody else.


def test_a_task_that_asks_for_anothers_token_gets_its_own(attested: Attested) -> None:
    (mine, me), (other, them) = held(attested), held(attested)
    answer = attested.fetch(
        attested.execution_token(me["session"]),
        params={"task_instance_id": them["session"], "ti_id": them["session"], "sub": them["session"]},
        headers={
            "X-Task-Instance-Id": them["session"],
            "Airgate-Run-Id": other,
            "Airflow-Task": them["session"],
        },
    )
    assert answer.status_code == 200, answer.text
    claims = payload(answer.json()["password"])
    assert (claims["sid"], claims["airflow"]["run"]) == (me["session"], mine)
    # And it can't say that the other one is over.
    ended = httpx.patch(
        f"{attested.airflow.url}/execution/task-instances/{them['session']}/state",
        json={"state": "failed", "end_date": "2026-01-01T00:00:00Z"},
        headers={"Authorization": f"Bearer {attested.execution_token(me['session'])}"},
        trust_env=False,
    )
    assert ended.status_code == 403
    time.sleep(1)
    assert attested.call(them["token"]).status_code == 200
    for run in (mine, other):
        attested.then(run, "success")


def reason(answer: httpx.Response) -> str:
    """The word in a refusal of the Execution API."""
    detail = answer.json()["detail"]
    return str(detail["reason"]) if isinstance(detail, dict) else str(detail)


def test_the_api_server_hands_nothing_out_to_who_has_no_running_session(attested: Attested) -> None:
    run, kept = held(attested)
    session = kept["session"]
    unknown = attested.fetch(attested.execution_token("01990000-0000-7000-8000-000000000000"))
    assert (unknown.status_code, reason(unknown)) == (403, "attest.no_session")
    queued = attested.fetch(attested.execution_token(session, scope="workload"))
    assert queued.status_code == 403
    forged = attested.fetch(attested.execution_token(session)[:-4] + "AAAA")
    assert forged.status_code == 403
    assert attested.fetch().status_code == 401
    attested.then(run, "success")
    assert attested.airflow.ended("held", run) == "success"
    over = attested.fetch(attested.execution_token(session))
    assert (over.status_code, reason(over)) == (403, "attest.not_running")
    for answer in (unknown, queued, forged, over):
        assert "eyJ" not in answer.text


def test_a_connection_that_leads_to_no_gate_of_ours_is_not_handed_out(attested: Attested) -> None:
    run, kept = held(attested)
    token = attested.execution_token(kept["session"])
    elsewhere = attested.fetch(token, connection="attested_elsewhere")
    assert (elsewhere.status_code, reason(elsewhere)) == (403, "attest.gate_not_listed")
    assert "eyJ" not in elsewhere.text
    assert payload(attested.fetch(token).json()["password"])["sid"] == kept["session"]
    attested.then(run, "success")


def test_altered_claims_are_refused(attested: Attested) -> None:
    run, kept = held(attested)
    for claims in ({"dag": "finance_close"}, {"task": "publish"}, {"try": 2}, {"triggered_by": "grace"}):
        answer = attested.call(altered(kept["token"], **claims), method="POST", path="/v1/entries")
        assert (answer.status_code, answer.json()["code"]) == (401, "token.signature")
    attested.then(run, "success")


def test_the_last_trys_token_is_of_no_use_to_the_next(attested: Attested) -> None:
    run, first = held(attested)
    attested.then(run, "retry")
    second = attested.kept(run, 2)
    assert first["session"] != second["session"]
    answer = attested.call(first["token"])
    assert (answer.status_code, answer.json()["code"]) == (401, "token.session_superseded")
    assert answer.json()["retryable"] is False
    assert attested.call(second["token"]).status_code == 200
    gone = attested.fetch(attested.execution_token(first["session"]))
    assert (gone.status_code, reason(gone)) == (403, "attest.no_session")
    attested.then(run, "success", 2)


# A token dies with its task.

ENDS = ["success", "fail", "skip", "retry", "cleared", "marked failed", "marked success", "killed"]


@pytest.mark.parametrize("end", ENDS)
def test_a_token_dies_with_its_task(attested: Attested, end: str, record_property: Any) -> None:
    run, kept = held(attested)
    code = "token.session_superseded" if end in ("retry", "cleared", "killed") else "token.session_ended"
    if end == "cleared":
        attested.airflow.clear("held", run, "hold")
    elif end.startswith("marked"):
        attested.airflow.mark("held", run, "hold", end.removeprefix("marked "))
    elif end == "killed":
        os.kill(kept["pid"], signal.SIGKILL)  # the task's process: there is one try left
    else:
        attested.then(run, end)
    seconds = attested.dies(kept, code)
    record_property("seconds", round(seconds, 2))
    print(f"{end}: refused {seconds:.2f} s after the database said that it is over")
    assert seconds < AT_ONCE
    if end in ("retry", "cleared", "killed"):
        again = attested.kept(run, 2)
        assert attested.call(again["token"]).status_code == 200
        attested.then(run, "success", 2)
    attested.airflow.ended("held", run)


def test_what_ran_when_the_api_server_was_restarted_dies_too(attested: Attested) -> None:
    run, kept = held(attested)
    attested.airflow.restart("api-server")
    attested.then(run, "success")
    attested.airflow.ended("held", run)
    # Which gates there are, the API server learns by the first token that it makes.
    other, _ = held(attested)
    assert attested.dies(kept, "token.session_ended") < AT_ONCE
    attested.then(other, "success")


# Keys, credentials, revocation.


def test_keys_can_be_rotated_while_tasks_run(attested: Attested) -> None:
    run, kept = held(attested)
    [old] = json.loads(attested.keys.read_text(encoding="utf-8"))["keys"]
    new = new_key("airflow-2")
    public = {name: value for name, value in old.items() if name != "d"}
    write_keys(attested.keys, new, public)
    token = attested.fetch(attested.execution_token(kept["session"])).json()["password"]
    assert jwt.get_unverified_header(kept["token"])["kid"] == old["kid"]
    assert jwt.get_unverified_header(token)["kid"] == "airflow-2"
    published = httpx.get(f"{attested.issuer}/jwks.json", trust_env=False).json()["keys"]
    assert [key["kid"] for key in published] == ["airflow-2", old["kid"]]
    assert not any("d" in key for key in published)
    for each in (kept["token"], token):
        answer = attested.call(each)
        assert answer.status_code == 200, answer.text
    attested.then(run, "success")
    for each in (kept["token"], token):
        assert attested.dies({**kept, "token": each}, "token.session_ended") < AT_ONCE


def test_no_credential_is_in_a_workers_environment(attested: Attested) -> None:
    run, kept = held(attested)
    supervisor = int(Path(f"/proc/{kept['pid']}/stat").read_text().rsplit(")", 1)[1].split()[1])
    outside = Path(f"/proc/{supervisor}/environ").read_text(encoding="utf-8", errors="replace")
    own = attested.airflow.own_variables["api-server"]
    secrets = [
        (attested.airflow.home / "jwt-secret").read_text(encoding="utf-8"),
        own["AIRFLOW__CORE__FERNET_KEY"],
        *(key["d"] for key in json.loads(attested.keys.read_text())["keys"] if "d" in key),
        kept["token"],
    ]
    environment = json.dumps(kept["environment"])
    assert not [secret for secret in secrets if secret in environment or secret in outside]
    assert not [name for name in kept["environment"] if name.startswith("AIRFLOW__AIRGATE__") or name in own]
    assert not [name for name in own if name in outside]
    attested.then(run, "success")


def test_a_revoked_dag_is_shut_out_whatever_headers_say(attested: Attested) -> None:
    run, kept = held(attested)
    airgate(attested, "revoke", "--dag", "held", "--for", "10m", "--reason", "tests", "--yes")
    try:
        deadline = time.monotonic() + 15
        while (answer := attested.call(kept["token"], Airgate_Dag_Id="finance_close")).status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert (answer.status_code, answer.json()["code"]) == (403, "policy.revoked")
    finally:
        [act] = json.loads(airgate(attested, "revoke", "list", "--json"))
        airgate(attested, "revoke", "lift", act["id"], "--reason", "tests are done", "--yes")
    attested.then(run, "success")


def airgate(attested: Attested, *arguments: str) -> str:
    """What the command says."""
    done = subprocess.run(
        [sys.executable, "-m", "airgate", *arguments],
        env={**os.environ, "AIRGATE_DIR": str(attested.stack.directory), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Many at once.


def test_two_hundred_mapped_tasks_are_two_hundred_sessions(attested: Attested) -> None:
    run = attested.airflow.trigger("wide")
    assert attested.airflow.ended("wide", run, seconds=900) == "success"
    found = in_the_log(attested, "wide", run)
    assert ordered(found) == ordered(in_the_database(attested, "wide", run))
    assert sorted(int(each["map_index"]) for each in found) == list(range(200))
    assert len({each["session"] for each in found}) == 200
