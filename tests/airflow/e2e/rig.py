"""One version of Airflow beside the gate, and what its calls met on their way."""

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Collection
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from airgate.dev.airflow import Airflow
from airgate.dev.signing import sign
from airgate.dev.stack import AUDIENCE, Stack


class TokenEndpoint:
    """Stands before the provider's token endpoint and counts: POST /<label>/token goes to the provider's /token.

    The first token under the label `expiring` is one that the gate takes for a few more seconds only.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.fetched: Counter[str] = Counter()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status, headers, body = endpoint.answer(
                    self.path.split("/")[1],
                    self.rfile.read(int(self.headers["Content-Length"])),
                    {
                        name: value
                        for name, value in self.headers.items()
                        if name.lower() in ("authorization", "content-type", "dpop")
                    },
                )
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def answer(self, label: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        self.fetched[label] += 1
        if label == "expiring" and self.fetched[label] == 1:
            document = {"access_token": self._expiring(), "token_type": "Bearer", "expires_in": 3600}
            return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()
        answer = httpx.post(
            self.stack.provider + "/token", content=body, headers=headers, timeout=30, trust_env=False
        )
        return answer.status_code, {"Content-Type": answer.headers["Content-Type"]}, answer.content

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _expiring(self) -> str:
        now = int(time.time())
        claims = {
            "iss": self.stack.provider,
            "sub": "finance-etl",
            "aud": AUDIENCE,
            "client_id": "finance-etl",
            "jti": f"expiring-{now}",
            "iat": now - 600,
            "exp": now - 54,  # the gate allows a clock to be 60 s off
            "groups": ["finance-publishers", "finance-readers"],
            "airgate_kind": "workload",
        }
        return sign(self.stack.provider_keys, claims)


class Rig:
    """One version of Airflow, whose DAGs all run at once, and what its calls met on their way."""

    def __init__(self, version: str, airflow: Airflow, tokens: TokenEndpoint, stack: Stack) -> None:
        self.version = version
        self.airflow = airflow
        self.tokens = tokens
        self.stack = stack
        self.since = stack.audit.stat().st_size

    def ended(
        self, dag: str, *, failing: Collection[str] = (), seconds: float = 180.0
    ) -> dict[str, tuple[str, int]]:
        """Wait until a DAG's run is over, and return state and number of tries by task.

        All tasks have to succeed but those in `failing`, which have to fail, and the run with them. Raises
        AssertionError with what is known of each that ended otherwise: a machine where it happened may be gone.
        """
        state = self.airflow.wait(dag, seconds=seconds)[dag]
        tries = self.airflow.tries(dag)
        wanted = {task: "failed" if task in failing else "success" for task in {*tries, *failing}}
        others = [task for task, end in wanted.items() if tries.get(task, ("absent", 0))[0] != end]
        told = "\n\n".join(self.story(dag, task) for task in others[:3])
        assert (others, state) == ([], "failed" if failing else "success"), (
            f"{dag} is {state}; these tasks ended as they should not: {others}\n\n{told}"
        )
        return tries

    def story(self, dag: str, task: str, lines: int = 60) -> str:
        """What Airflow did with a task (`task[0]` if mapped), the end of its log, and what the gate decided."""
        name, _, index = task.removesuffix("]").partition("[")
        with closing(
            sqlite3.connect(f"file:{self.airflow.database}?mode=ro", uri=True, timeout=30)
        ) as connection:
            events = connection.execute(
                "SELECT dttm, event, extra FROM log WHERE dag_id = ? AND task_id = ? AND ifnull(map_index, -1) = ? "
                "ORDER BY dttm",
                (dag, name, int(index or -1)),
            ).fetchall()
        log = self.airflow.log(dag, f"{name}/map_index={index}" if index else name).splitlines()
        decided = [
            f"{event['time']} {event['decision']} {event['reason']} {event['request_id']}"
            for event in self.decisions(dag, name)
            if not index or event["workload"]["map_index"]["value"] == index
        ]
        return "\n".join(
            [
                f"--- {dag}.{task}: {self.airflow.tries(dag).get(task, 'there is no such task')}",
                *(" ".join(str(value) for value in event if value) for event in events),
                f"--- its log, the last of {len(log)} lines",
                *log[-lines:],
                "--- the gate's decisions",
                *decided[-lines:],
            ]
        )

    def decisions(self, dag: str, task: str | None = None) -> list[dict[str, Any]]:
        """The gate's decisions about the calls of a DAG, in order."""
        found = []
        with self.stack.audit.open(encoding="utf-8") as file:
            file.seek(self.since)
            for line in file:
                with suppress(ValueError):  # the last line may be half written
                    event = json.loads(line)
                    workload = {name: fact["value"] for name, fact in event.get("workload", {}).items()}
                    asked = workload.get("dag") == dag and task in (None, workload.get("task"))
                    if event["event"] == "decision" and asked:
                        found.append(event)
        return found
