"""`make bench-airflow`: what the provider costs a task, beside the stock hook to the same address, in each Airflow.

Exit codes: 0 within the limits; 1 not.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from airgate.dev.airflow import VERSIONS, Environment
from airgate.dev.stack import AUDIENCE, LocalStack, Ports, Stack
from airgate.dev.token import fetch_token
from airgate.policy.publish import publish_local
from airgate.policy.seed import STARTER

ROUNDS = 400
MOST_EXTRA, MOST_IMPORT = 5.0, 50.0  # milliseconds


def measure(version: str, stack: Stack, home: Path) -> dict[str, float]:
    """The figures of one version, as calls.py prints them."""
    client = stack.clients["finance-etl"]
    task = {
        f"Airgate-{name}": value
        for name, value in {"Dag-Id": "finance_close", "Task-Id": "read", "Run-Id": "manual__1"}.items()
    }
    stock = {
        "conn_type": "http",
        "host": f"{stack.gate}/ledger",
        "extra": {"Authorization": f"Bearer {fetch_token(stack, 'finance-etl')}", **task},
    }
    ours = {
        "conn_type": "airgate",
        "host": stack.gate,
        "login": client["client_id"],
        "password": client["client_secret"],
        "extra": {"upstream": "ledger", "token_url": f"{stack.provider}/token", "resource": AUDIENCE},
    }
    variables = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW_CONN_STOCK": json.dumps(stock),
        "AIRFLOW_CONN_OURS": json.dumps(ours),
        "AIRFLOW_CTX_DAG_ID": "finance_close",
        "AIRFLOW_CTX_TASK_ID": "read",
        "AIRFLOW_CTX_DAG_RUN_ID": "manual__1",
    }
    done = subprocess.run(
        [
            str(Environment(version).python),
            "-W",
            "ignore",
            str(Path(__file__).with_name("calls.py")),
            str(ROUNDS),
        ],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"The measurement failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> int:
    """Both versions, one after the other."""
    table = Table(
        "Airflow",
        "stock hook",
        "through ours",
        "extra",
        f"≤ {MOST_EXTRA:.0f} ms",
        "import",
        f"≤ {MOST_IMPORT:.0f} ms",
    )
    good = True
    with tempfile.TemporaryDirectory(prefix="airgate-bench-") as name:
        folder = Path(name)
        with LocalStack(
            folder / "stack",
            ports=Ports(0, 0, 0),
            publish=lambda stack: publish_local(STARTER, stack, "bench"),
        ) as stack:
            for version in VERSIONS:
                found = measure(version, stack, folder / version)
                within = [found["extra"] <= MOST_EXTRA, found["import"] <= MOST_IMPORT]
                good &= all(within)
                marks = ["yes" if each else "NO" for each in within]
                table.add_row(
                    version, f"{found['stock']:.2f} ms", f"{found['ours']:.2f} ms", f"{found['extra']:.2f} ms",
                    marks[0], f"{found['import']:.1f} ms", marks[1],
                )  # fmt: skip
    Console().print(table)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
