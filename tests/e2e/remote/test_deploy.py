"""Deploying with the real wrangler, to a stand-in for Cloudflare: from nothing, again, and when steps fail."""

import re

import httpx
import pytest
from cloudflare import ACCOUNT, Effect
from project import Site

from airgate.node import PROJECT
from airgate.version import Version

ACCOUNT_CHECKS = ("account", "KV POLICY", "D1 STATE", "secrets")


def outcomes(output: str) -> dict[str, str]:
    """The outcome of each check in a printed table."""
    rows = re.findall(
        r"^(ok|to do|warning|not checked|failed) +(\S+(?: POLICY| STATE)?)  +", output, re.MULTILINE
    )
    return {name: outcome for outcome, name in rows}


def shown(site: Site) -> str:
    """The version that the gate's health page shows."""
    return str(httpx.get(site.cloudflare.gate("airgate") + "/-/health", trust_env=False).json()["version"])


def changed(site: Site) -> list[str]:
    """The lines of wrangler.toml that are others than the project's."""
    old, new = (file.read_text("utf-8").splitlines() for file in (PROJECT / "wrangler.toml", site.toml))
    assert len(old) == len(new)
    return [after for before, after in zip(old, new, strict=True) if before != after]


def test_a_gate_is_deployed_from_nothing_and_then_again(site: Site) -> None:
    cloudflare = site.cloudflare

    # Without being asked for it, and nobody there to ask, it changes nothing.
    refused = site.airgate("deploy")
    assert refused.returncode == 3, refused.stdout + refused.stderr
    assert "Add --yes" in refused.stderr
    assert {each.method for each in cloudflare.asked} == {"GET"}
    assert changed(site) == []

    # Its address is a new one, which nothing answers at: what was done is told, and written down.
    done = site.airgate("deploy", "--yes", "--wait", "0")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "The upload itself is done" in done.stderr
    (namespace,) = cloudflare.namespaces
    (database,) = cloudflare.databases
    assert changed(site) == [
        'ADDRESS = "https://airgate.example.workers.dev"',
        f'id = "{namespace}"',
        f'database_id = "{database}"',
    ]
    tables = {
        name for (name,) in cloudflare.rows("airgate", "SELECT name FROM sqlite_master WHERE type = 'table'")
    }
    assert {"pointers", "acts", "proofs"} <= tables
    worker = cloudflare.workers["airgate"]
    (upload,) = worker.deployed
    source = {file.name: file.read_bytes() for file in (site.folder / "src").glob("*.py")}
    assert upload.modules == source
    assert upload.variable("GATE") == "airgate"
    label = upload.variable("VERSION")
    assert Version.read(label) is not None
    assert f"the Worker airgate is uploaded: {label}" in done.stdout
    assert "npx wrangler secret put UPSTREAM_LEDGER_TOKEN" in done.stdout
    assert "airgate policy publish --env production" in done.stdout

    # And a newer version: nothing is made a second time, and secrets stay.
    worker.secrets["UPSTREAM_LEDGER_TOKEN"] = "hush"
    site.set("https://airgate.example.workers.dev", cloudflare.gate("airgate"))
    before = len(cloudflare.asked)
    again = site.airgate("deploy", "--yes")
    assert again.returncode == 0, again.stdout + again.stderr
    assert (list(cloudflare.namespaces), list(cloudflare.databases)) == ([namespace], [database])
    written = {
        each.path.removeprefix(f"/client/v4/accounts/{ACCOUNT}").partition("?")[0]
        for each in cloudflare.asked[before:]
        if each.method != "GET" and not each.path.endswith("/query")
    }
    assert written == {
        f"/workers/scripts/airgate/{each}"
        for each in ("versions", "deployments", "script-settings", "subdomain")
    }
    assert worker.secrets == {"UPSTREAM_LEDGER_TOKEN": "hush"}
    assert shown(site) == worker.deployed[-1].variable("VERSION") != label
    assert set(outcomes(again.stdout).values()) == {"ok", "warning"}


def test_a_deployment_that_fails_again_and_again_goes_on_where_it_stopped(site: Site) -> None:
    cloudflare = site.cloudflare
    site.set('ADDRESS = ""', f'ADDRESS = "{cloudflare.gate("airgate")}"')

    def fails(*said: str) -> None:
        done = site.airgate("deploy", "--yes")
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Run the same command again" in done.stderr
        for text in said:
            assert text in done.stderr
        cloudflare.mend()

    cloudflare.fail("POST", "/storage/kv/namespaces$", times=3)
    fails("So far: nothing is known to have changed")
    assert changed(site) == [f'ADDRESS = "{cloudflare.gate("airgate")}"']

    # It is made, and nobody is told.
    cloudflare.fail("POST", "/d1/database$", status=0, times=3, effect=Effect.ALL)
    fails("the KV namespace airgate-policy is there")
    (namespace,) = cloudflare.namespaces
    (database,) = cloudflare.databases
    assert f'id = "{namespace}"' in changed(site)
    assert f'database_id = "{database}"' not in changed(site)

    cloudflare.fail("POST", "/query$", skip=2, times=9)  # after the table of migrations, and what it holds
    fails("the D1 database airgate is there")
    assert f'database_id = "{database}"' in changed(site)
    assert cloudflare.rows("airgate", "SELECT name FROM sqlite_master WHERE name = 'pointers'") == []

    cloudflare.fail("PUT", r"/scripts/airgate\?", times=9)
    fails("all migrations are applied")
    assert "airgate" not in cloudflare.workers

    done = site.airgate("deploy", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (list(cloudflare.namespaces), list(cloudflare.databases)) == ([namespace], [database])
    assert shown(site) == cloudflare.workers["airgate"].deployed[-1].variable("VERSION")


def test_the_doctor_says_what_it_could_not_check_and_never_that_it_is_well(site: Site) -> None:
    offline = site.airgate("doctor", CLOUDFLARE_API_BASE_URL="http://127.0.0.1:9/client/v4")
    assert offline.returncode == 1, offline.stdout + offline.stderr
    assert {outcomes(offline.stdout)[name] for name in ACCOUNT_CHECKS} == {"not checked"}
    assert offline.stdout.count("no connection") == len(ACCOUNT_CHECKS)
    assert outcomes(offline.stdout)["policy"] == "ok"


def test_stores_that_are_not_in_the_account_are_told(site: Site) -> None:
    site.provide()
    site.cloudflare.namespaces.clear()
    site.cloudflare.databases.clear()
    done = site.airgate("doctor")
    assert done.returncode == 2, done.stdout + done.stderr
    said = outcomes(done.stdout)
    assert (said["KV POLICY"], said["D1 STATE"], said["ledger"]) == ("failed", "failed", "not checked")
    assert done.stdout.count("The account has none with the id") == 2


def test_with_a_login_that_is_turned_down_nothing_is_changed(site: Site) -> None:
    done = site.airgate("deploy", "--yes", CLOUDFLARE_API_TOKEN="wrong")
    assert done.returncode == 2, done.stdout + done.stderr
    assert outcomes(done.stdout)["account"] == "failed"
    assert {outcomes(done.stdout)[name] for name in ACCOUNT_CHECKS[1:]} == {"not checked"}
    assert "D1: Edit" in done.stdout
    assert "Nothing was changed" in done.stderr
    assert {each.method for each in site.cloudflare.asked} == {"GET"}


@pytest.mark.parametrize("env", ["production", "staging"])
def test_a_dry_run_needs_no_account_and_says_what_would_be_made(site: Site, env: str) -> None:
    worker = "airgate" if env == "production" else "airgate-staging"
    done = site.airgate("deploy", "--dry-run", "--env", env, CLOUDFLARE_API_TOKEN="")
    assert done.returncode == 0, done.stderr
    assert f"create the KV namespace {worker}-policy" in done.stdout
    assert f"create the D1 database {worker}" in done.stdout
    assert f"upload the Worker {worker}: " in done.stdout
    assert site.cloudflare.asked == []
    assert changed(site) == []
