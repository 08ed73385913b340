"""Revocations and grants: in force at once, on real D1, and what somebody can do who may write D1 but has no key."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from airgate.cli import app
from airgate.engine import ACTS
from airgate.policy.index import canonical
from airgate.signing_key import SigningKey

Token = Callable[..., str]
ENTRIES = "/ledger/v1/entries"
SOON = 8.0  # seconds; how soon it is in force is measured elsewhere


@pytest.fixture(scope="module")
def oncall(token: Token) -> str:
    return token("oncall")


@pytest.fixture
def airgate(site: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """airgate(*arguments): run the command on the site's stores."""
    folder = site.as_stack(tmp_path)
    monkeypatch.setenv("AIRGATE_DIR", str(folder))

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result

    return run


def code(site: Any, token: str, path: str = ENTRIES, gate: Any = None, **headers: str) -> str:
    """The refusal's code, or the status where there is none."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = (gate or site.gate).call(path, token=token, headers=named)
    return answer.code or str(answer.status)


def becomes(expected: str, site: Any, token: str, **more: Any) -> None:
    site.until(lambda: code(site, token, **more) == expected, SOON)


def stays(expected: str, site: Any, token: str) -> None:
    """For longer than a view is used without being read again."""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        assert code(site, token) == expected
        time.sleep(0.1)


def test_a_token_is_revoked_by_its_id_and_no_other(site: Any, mint: Token, airgate: Any) -> None:
    leaked, another = mint(jti="leaked-one"), mint(jti="another-one")
    assert (code(site, leaked), code(site, another)) == ("200", "200")
    airgate(
        "revoke", "--token-id", "leaked-one", "--issuer", "company", "--for", "1h", "--reason", "in a log"
    )
    becomes("token.revoked", site, leaked)
    assert code(site, another) == "200"
    answer = site.gate.call(ENTRIES, token=leaked)
    assert (answer.status, answer.json()["retryable"]) == (401, False)
    assert "invalid_token" in answer.headers["WWW-Authenticate"]
    [decision] = site.gate.events(answer)
    assert (decision["reason"], decision["token_id"]) == ("token.revoked", "leaked-one")
    assert "in a log" in decision["detail"]
    # An isolate that has just begun knows it, though D1 has lost the row: KV has a copy.
    site.sql("DELETE FROM acts")
    fresh = site.another()
    assert (code(site, leaked, gate=fresh), code(site, another, gate=fresh)) == ("token.revoked", "200")
    assert code(site, leaked) == "token.revoked"


def test_a_subject_is_revoked_and_the_revocation_is_lifted(
    site: Any, mint: Token, airgate: Any, oncall: str
) -> None:
    token = mint(sub="runaway", client_id="runaway")
    assert code(site, token) == "200"
    said = airgate("revoke", "--subject", "runaway", "--for", "1h", "--reason", "it runs wild")
    becomes("policy.revoked", site, token)
    assert site.report(oncall)["view"]["revocations"] >= 1
    name = site.sql("SELECT id FROM acts ORDER BY number DESC LIMIT 1")[0][0]
    assert name[:12] in said.output
    airgate("revoke", "lift", name, "--reason", "it has been mended")
    becomes("200", site, token)


def test_a_dag_is_revoked_by_what_its_tokens_attest(site: Any, mint: Token, airgate: Any) -> None:
    attested = mint(sub="wild", client_id="wild", airflow={"dag_id": "wild_dag", "run_id": "r1"})
    asserting = mint(sub="tame", client_id="tame")
    assert code(site, attested) == "200"
    airgate("revoke", "--dag", "wild_dag", "--for", "1h", "--reason", "it deletes what it should not")
    becomes("policy.revoked", site, attested)
    # Who merely says so is not believed, to his own harm or anybody's.
    assert code(site, asserting, Airgate_Dag_Id="wild_dag") == "200"
    airgate("revoke", "--dag", "said", "--subject", "tame", "--for", "1h", "--reason", "as far as it says so")
    becomes("policy.revoked", site, asserting, Airgate_Dag_Id="said")
    assert code(site, asserting, Airgate_Dag_Id="another") == "200"


def test_a_grant_lends_a_role_until_it_ends(site: Any, mint: Token, airgate: Any) -> None:
    token = mint(sub="deputy", client_id="deputy", groups=["nobody"])
    assert code(site, token) == "policy.no_match"
    airgate(
        "grant", "--subject", "deputy", "--issuer", "company", "--role", "finance-reader", "--for", "1h",
        "--reason", "month-end close",
    )  # fmt: skip
    becomes("200", site, token)
    answer = site.gate.call(ENTRIES, token=token)
    decision = site.gate.events(answer)[0]
    name = site.sql("SELECT id FROM acts ORDER BY number DESC LIMIT 1")[0][0]
    assert (decision["grants"], decision["roles"]["granted"]) == ([name], ["finance-reader"])
    assert code(site, token, Airgate_Role="finance-reader") == "200"
    airgate("grant", "end", name, "--reason", "closed")
    becomes("policy.no_match", site, token)
    assert code(site, token, Airgate_Role="finance-reader") == "role.not_granted"


def test_a_grant_lends_a_permit_and_its_conditions_stay(site: Any, mint: Token, airgate: Any) -> None:
    token = mint(sub="writer", client_id="writer", groups=["nobody"])

    def post(dag: str) -> str:
        answer = site.gate.call(ENTRIES, "POST", token=token, headers={"Airgate-Dag-Id": dag}, body=b"{}")
        return answer.code or str(answer.status)

    assert post("finance_close") == "policy.no_match"
    airgate(
        "grant", "--subject", "writer", "--issuer", "company", "--policy", "finance-data-publish", "--for", "1h",
        "--reason", "month-end close",
    )  # fmt: skip
    site.until(lambda: post("finance_close") == "200", SOON)
    assert post("sales_sync") == "policy.no_match"


def test_a_grant_overrides_no_forbid(site: Any, mint: Token, airgate: Any) -> None:
    agent = mint(sub="agent-one", client_id="agent-one", groups=["nobody"], airgate_kind="agent")
    airgate(
        "grant", "--subject", "agent-one", "--issuer", "company", "--role", "finance-reader", "--for", "1h",
        "--reason", "to look",
    )  # fmt: skip
    airgate(
        "grant", "--subject", "agent-one", "--issuer", "company", "--policy", "finance-data-publish", "--for", "1h",
        "--reason", "to write",
    )  # fmt: skip
    becomes("200", site, agent)
    answer = site.gate.call(
        ENTRIES, "POST", token=agent, headers={"Airgate-Dag-Id": "finance_close"}, body=b"{}"
    )
    assert answer.code == "policy.forbidden"


@pytest.mark.parametrize("how", ["unsigned", "key not trusted", "name of a trusted key", "too long", "gate"])
def test_a_grant_that_nobody_vouches_for_opens_nothing(site: Any, mint: Token, how: str) -> None:
    token = mint(sub=f"forger-{how}", client_id="forger", groups=["nobody"])
    now = int(time.time())
    members = {
        "act": "grant",
        "from": now,
        "to": {"issuer": "company", "subject": f"forger-{how}"},
        "gives": {"role": "finance-reader"},
    }
    mallory = SigningKey.new("local developer", ("publish", "grant"))
    if how == "unsigned":
        name = site.act(None, **members)
    elif how == "key not trusted":
        name = site.act(mallory, **members)
    elif how == "name of a trusted key":
        name = site.act(mallory, **members)
        site.sql("UPDATE acts SET key = ? WHERE id = ?", site.key.kid, name)
    elif how == "too long":
        name = site.act(site.key, **members, until=now + 8 * 86_400)
    else:
        name = site.act(site.key, **members, gate="airgate")
    site.until(lambda: code(site, token) and name in [line["id"] for line in site.told("act")], SOON)
    [told] = [line for line in site.told("act") if line["id"] == name]
    assert told["result"] == "refused"
    assert code(site, token) == "policy.no_match"
    site.sql("DELETE FROM acts WHERE id = ?", name)


def test_a_lift_that_nobody_vouches_for_opens_nothing(site: Any, mint: Token, airgate: Any) -> None:
    token = mint(sub="shut-out", client_id="shut-out")
    airgate("revoke", "--subject", "shut-out", "--for", "1h", "--reason", "a test")
    becomes("policy.revoked", site, token)
    name = site.sql("SELECT id FROM acts ORDER BY number DESC LIMIT 1")[0][0]
    site.act(None, act="lift", of=name)
    # Nor does it help to write it, or to leave the revocation out, in one of the two stores.
    lift = canonical(
        {"act": "lift", "gate": site.env.gate, "at": 1, "until": 2**40, "by": "x", "reason": "x", "of": name}
    )
    copy = site.env.kv_get(ACTS)
    site.env.kv_put({ACTS: canonical({"acts": [[lift, "", ""]]})})
    stays("policy.revoked", site, token)
    assert code(site, token, gate=site.another()) == "policy.revoked"
    site.env.kv_put({ACTS: copy})


def test_an_act_ends_by_itself(site: Any, mint: Token) -> None:
    token = mint(sub="for-a-while", client_id="for-a-while")
    until = int(time.time()) + 4
    site.act(None, act="revoke", match={"subject": "for-a-while"}, until=until)
    becomes("policy.revoked", site, token)
    becomes("200", site, token)
    assert time.time() >= until
