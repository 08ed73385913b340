"""The policy set of the measurements: a company of 100 policies, published the way any set is."""

from pathlib import Path
from typing import Any

import yaml

from airgate.dev.stack import AUDIENCE
from airgate.environment import LocalStores
from airgate.policy.compile import compile_folder
from airgate.policy.publish import publish_to

ENTRY = "/v1/entries/2026-10"
PATH = f"/ledger{ENTRY}"  # permitted by finance-read, and looked at by the forbid beside it
KEYED = f"/ledger-keyed{ENTRY}"  # the same, with a credential of the gate's
SIGNED = f"/ledger-signed{ENTRY}"  # the same, with an assertion
HOST = "ledger.internal.example.com"  # of the requests that a proxy asks about
CREDENTIAL = "UPSTREAM_LEDGER_TOKEN"
TEAMS = 7
LEDGERS = ("ledger", "ledger-keyed", "ledger-signed")
SERVICES = tuple(f"service-{number}" for number in range(1, 10))
UPSTREAMS = (*LEDGERS, *SERVICES)


def seed(issuer: str, upstream: str) -> dict[str, Any]:
    """A seed of exactly 100 policies over 12 upstreams and 8 roles."""
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
                "upstream": list(LEDGERS),
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
            "target": {"upstream": list(LEDGERS), "methods": ["*"], "paths": ["/**"]},
        },
        *(
            {
                "id": f"team-{number % TEAMS}-service-{number}",
                "description": f"Team {number % TEAMS} uses collection {number}",
                "owner": owner,
                "effect": "permit",
                "subject": {"issuer": "company", "roles": {"any": [f"team-{number % TEAMS}"]}},
                "target": {
                    "upstream": SERVICES[number % 10 - 1] if number % 10 else list(LEDGERS),
                    "methods": ["GET", "POST", "PUT"],
                    "paths": [f"/v1/collection-{number}/{{item}}", f"/v2/collection-{number}/**"],
                },
            }
            for number in range(98)
        ),
    ]
    more: dict[str, dict[str, Any]] = {
        "ledger": {"hosts": [HOST]},
        "ledger-keyed": {"credentials": {"main": {"kind": "header", "secret": CREDENTIAL}}},
        "ledger-signed": {"assertion": True},
    }
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
        "upstreams": {
            name: {"base": upstream, "owner": owner, "timeout": "30s", **more.get(name, {})}
            for name in UPSTREAMS
        },
        "policies": policies,
    }


def publish(state: Path, issuer: str, upstream: str) -> int:
    """Put the set in force for a gate with that state folder. Returns the number of policies."""
    folder, written = state / "seed", seed(issuer, upstream)
    folder.mkdir(parents=True)
    (folder / "bench.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    publish_to(LocalStores(state), compile_folder(folder), "bench")
    return len(written["policies"])
