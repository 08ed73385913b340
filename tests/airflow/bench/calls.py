"""Run inside an Airflow environment: the stock hook and ours, one call each in turn, to the same address at the gate.

    python calls.py ROUNDS  →  {"stock": median ms, "ours": median ms, "extra": median of the differences, "import": ms}

AIRFLOW_CONN_STOCK and AIRFLOW_CONN_OURS are the two connections. Both send a token and the same headers.
"""

import json
import statistics
import subprocess
import sys
import time
from typing import Any

ROUNDS = int(sys.argv[1])
IMPORT = """
import airflow.providers.http.operators.http, airflow.providers.http.sensors.http, airflow.plugins_manager, time
start = time.perf_counter()
import airgate_provider.operators, airgate_provider.sensors, airgate_provider.policy, airgate_provider.plugin
print("import", (time.perf_counter() - start) * 1000)
"""


def milliseconds(hook: Any) -> float:
    start = time.perf_counter()
    answer = hook.run("v1/entries/4711")
    took = time.perf_counter() - start
    if answer.status_code != 200:
        raise SystemExit(f"The call should be permitted, but: {answer.status_code}")
    return took * 1000


def imports() -> float:
    """What the provider adds to a DAG file that imports the stock operator; the best of five, each in a new process."""
    times = []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", IMPORT], capture_output=True, text=True, check=True
        )
        times.append(float(done.stdout.splitlines()[-1].split()[1]))
    return min(times)


def main() -> None:
    import logging

    from airflow.providers.http.hooks.http import HttpHook

    from airgate_provider.hooks import AirgateHook

    logging.disable(logging.INFO)
    stock, ours, extra = [], [], []
    for number in range(ROUNDS + 20):
        # A hook for each call, as HttpOperator makes them.
        pair = [HttpHook("GET", http_conn_id="stock"), AirgateHook("GET", http_conn_id="ours")]
        order = pair if number % 2 else pair[::-1]
        took = {id(hook): milliseconds(hook) for hook in order}
        if number >= 20:  # the first ones warm up: imports, the token
            stock.append(took[id(pair[0])])
            ours.append(took[id(pair[1])])
            extra.append(ours[-1] - stock[-1])
    figures = {"stock": stock, "ours": ours, "extra": extra}
    medians = {name: round(statistics.median(values), 2) for name, values in figures.items()}
    print(json.dumps({**medians, "import": round(imports(), 1)}))


if __name__ == "__main__":
    main()
