"""One version of Airflow beside the gate, and what its calls met on their way."""

import json
import threading
import time
from collections import Counter
from contextlib import suppress
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
