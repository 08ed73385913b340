"""The policy set of the measurements: a company of 100 policies, published the way any set is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from airgate.dev.stack import AUDIENCE
from airgate.kv import BINDING
from airgate.node import run_wrangler
from airgate.policy.compile import compile_folder
from airgate.policy.publish import publish_to

PATH = "/ledger/v1/entries/2026-10"  # permitted by finance-read, and looked at by the forbid beside it
TEAMS = 7
UPSTREAMS = ("ledger", *(f"service-{number}" for number in range(1, 10)))


def seed(issuer: str, upstream: str) -> dict[str, Any]:
    """A seed of exactly 100 policies over 10 upstreams and 8 roles."""
    owner = "platform@example.com"
    policies = [
        {
            "id": "finance-read",
            "description": "Month-end DAGs read the ledger",
            "owner": owner,
            "effect": "permit",
            "subject": {"issuer": "company", "kind": "workload", "roles": {"any": ["finance"]}},
            "workload": {"dag": ["finance_*"], "attested": False},
            "target": {
                "upstream": "ledger",
                "methods": ["GET"],
                "paths": ["/v1/entries", "/v1/entries/{period}"],
            },
        },
        {
            "id": "agents-stay-out",
            "description": "AI agents never see the ledger",
            "owner": owner,
            "effect": "forbid",
            "subject": {"kind": "agent"},
            "target": {"upstream": "ledger", "methods": ["*"], "paths": ["/**"]},
        },
        *(
            {
                "id": f"team-{number % TEAMS}-service-{number}",
                "description": f"Team {number % TEAMS} uses collection {number}",
                "owner": owner,
                "effect": "permit",
                "subject": {"issuer": "company", "roles": {"any": [f"team-{number % TEAMS}"]}},
                "target": {
                    "upstream": UPSTREAMS[number % len(UPSTREAMS)],
                    "methods": ["GET", "POST", "PUT"],
                    "paths": [f"/v1/collection-{number}/{{item}}", f"/v2/collection-{number}/**"],
                },
            }
            for number in range(98)
        ),
    ]
    groups = {"finance": "finance-readers"} | {f"team-{number}": f"team-{number}" for number in range(TEAMS)}
    return {
        "issuers": {
            "company": {
                "issuer": issuer,
                "audiences": [AUDIENCE],
                "algorithms": ["RS256", "ES256"],
                "type": "at+jwt",
                "max_lifetime": "1h",
                "clock_skew": "60s",
                "kind": {"claim": "airgate_kind", "default": "workload"},
            }
        },
        "roles": {
            role: {
                "description": f"Members of {group}",
                "granted_to": [{"issuer": "company", "claim": "groups", "value": group}],
            }
            for role, group in groups.items()
        },
        "upstreams": {name: {"base": upstream, "owner": owner, "timeout": "30s"} for name in UPSTREAMS},
        "policies": policies,
    }


class _Fresh:
    """An empty KV namespace on this machine."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def get(self, key: str) -> str | None:
        return None

    def names(self, prefix: str) -> set[str]:
        return set()

    def put(self, values: Mapping[str, str]) -> None:
        file = self._state / "entries.json"
        file.write_text(json.dumps([{"key": key, "value": value} for key, value in values.items()]))
        where = ["--binding", BINDING, "--env", "local", "--local", "--persist-to", str(self._state)]
        run_wrangler(["kv", "bulk", "put", str(file), *where], home=self._state, embedded=True)


def publish(state: Path, issuer: str, upstream: str) -> int:
    """Put the set in force for a gate with that state folder. Returns the number of policies."""
    folder = state / "seed"
    folder.mkdir(parents=True)
    (folder / "bench.yaml").write_text(yaml.safe_dump(seed(issuer, upstream)), encoding="utf-8")
    compiled = compile_folder(folder)
    publish_to(_Fresh(state), compiled, "bench")
    return sum(len(rules) for rules in compiled.rules.values())
