"""The stand-in against the real wrangler: what operators run by hand does there what it does at Cloudflare."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

from cloudflare import Upload, Worker
from project import Site

from airgate.node import wrangler


def run(site: Site, *arguments: str, given: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        wrangler([*arguments, "--config", str(site.toml), "--env", ""]),
        cwd=site.folder,
        env=site.variables(**more),
        input=given,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def test_keys_secrets_tables_and_versions_are_kept_and_shown(site: Site) -> None:
    site.provide()
    (namespace,), (database,) = site.cloudflare.namespaces, site.cloudflare.databases
    bindings = [{"name": "VERSION", "type": "plain_text", "text": "1"}]
    version = Upload({"main_module": "worker.py", "bindings": bindings}, {}, deployed_at=1.0)
    site.cloudflare.workers["airgate"] = Worker([version])
    remote = ("--binding", "POLICY", "--remote")
    statement = "INSERT INTO pointers VALUES (1, 'a', '', '') RETURNING sequence"
    execute = ("d1", "execute", "STATE", "--remote", "--json", "--command")

    def told(*arguments: str, given: str = "") -> str:
        done = run(site, *arguments, given=given)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    with ThreadPoolExecutor(3) as pool:
        put, secret, inserted, whoami, listed, created, info, deployments, pending = [
            pool.submit(told, *arguments, given="hush")
            for arguments in (
                ("kv", "key", "put", "policy/ä", "€", *remote),
                ("secret", "put", "UPSTREAM_A"),
                (*execute, statement),
                ("whoami", "--json"),
                ("kv", "namespace", "list"),
                ("kv", "namespace", "create", "other"),
                ("d1", "info", "airgate", "--json"),
                ("deployments", "list", "--json"),
                ("d1", "migrations", "list", "STATE", "--remote"),
            )
        ]
    assert "policy/ä" in put.result()
    assert site.cloudflare.workers["airgate"].secrets == {"UPSTREAM_A": "hush"}
    assert "Success" in secret.result()
    assert json.loads(inserted.result())[0]["results"] == [{"sequence": 1}]
    assert json.loads(whoami.result())["accounts"][0]["name"] == "Example account"
    assert {"id": namespace, "title": "airgate-policy"}.items() <= json.loads(listed.result())[0].items()
    assert "Success" in created.result()
    assert json.loads(info.result())["uuid"] == database
    assert [each["id"] for each in json.loads(deployments.result())] == [version.id]
    assert "No migrations to apply" in pending.result()

    with ThreadPoolExecutor(3) as pool:
        value, missing, names, secrets, again, stranger = [
            pool.submit(run, site, *arguments, **more)
            for arguments, more in (
                (("kv", "key", "get", "policy/ä", "--text", *remote), {}),
                (("kv", "key", "get", "policy/b", "--text", *remote), {}),
                (("kv", "key", "list", "--prefix", "policy/", *remote), {}),
                (("secret", "list"), {}),
                ((*execute, statement), {}),
                (("kv", "key", "list", *remote), {"CLOUDFLARE_API_TOKEN": "wrong"}),
            )
        ]
    assert (value.result().returncode, value.result().stdout.rstrip("\n")) == (0, "€")
    assert missing.result().returncode == 1
    assert [each["name"] for each in json.loads(names.result().stdout)] == ["policy/ä"]
    assert [each["name"] for each in json.loads(secrets.result().stdout)] == ["UPSTREAM_A"]
    assert again.result().returncode == 1
    assert "UNIQUE constraint failed: pointers.sequence" in again.result().stdout
    assert stranger.result().returncode == 1
    assert "Authentication error" in stranger.result().stdout + stranger.result().stderr
