"""Airflow 3.3 that attests its tasks, beside a gate that takes its word for them."""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from airgate.dev.airflow import Airflow, free_port
from airgate.dev.stack import AUDIENCE, LocalStack, Ports, Stack
from airgate.policy.publish import publish_local
from airgate.policy.seed import STARTER

DAGS = Path(__file__).resolve().parent.parent / "dags_attested"
USERS = ("ada", "grace")
LIFETIME = 60  # seconds of an attested token

ISSUER = """
issuers:
  airflow:
    issuer: {issuer}
    audiences: ["{audience}"]
    algorithms: [ES256]
    type: at+jwt
    max_lifetime: 10m
    kind: {{default: workload}}
    attested:
      dag: [airflow, dag]
      task: [airflow, task]
      run: [airflow, run]
      try: [airflow, try]
      map_index: [airflow, map_index]
      tags: [airflow, tags]
      environment: [airflow, environment]
      run_type: [airflow, run_type]
      triggered_by: [airflow, triggered_by]
      owners: [airflow, owners]
      dag_bundle: [airflow, dag_bundle]
      session: [sid]
"""

ROLES = """
roles:
  airflow-task:
    description: Is a task of our Airflow
    granted_to:
      - {issuer: airflow, kind: workload}
  adjusts-by-hand:
    description: May start the runs that adjust the ledger
    granted_to:
      - {issuer: airflow, claim: [airflow, triggered_by], value: grace}
"""

POLICIES = """
policies:
  - id: attested-publish
    description: Only the task finance_close.publish, and that it is this one is Airflow's word
    owner: finance-data@example.com
    effect: permit
    subject: {issuer: airflow, roles: {any: [airflow-task]}}
    workload: {dag: [finance_close], task: [publish], attested: true}
    target: {upstream: ledger, methods: [POST], paths: ["/v1/entries"]}
  - id: attested-by-hand
    description: Adjustments, in runs that somebody has started who may
    owner: finance-data@example.com
    effect: permit
    subject: {issuer: airflow, roles: {any: [adjusts-by-hand]}}
    workload: {dag: [finance_adjust], run_type: manual, attested: true}
    target: {upstream: ledger, methods: [POST], paths: ["/v1/entries"]}
  - id: attested-pages
    description: Pages for every task
    owner: finance-data@example.com
    effect: permit
    subject: {issuer: airflow, roles: {any: [airflow-task]}}
    workload: {dag: ["*"], attested: true}
    target: {upstream: ledger, methods: [GET], paths: ["/v1/attested/**"]}
"""


@dataclass
class Attested:
    """The running Airflow and gate, and what the tests ask of both."""

    airflow: Airflow
    stack: Stack
    keys: Path  # [airgate] attest_keys_file
    told: Path  # where the DAG `held` and the tests leave each other word
    issuer: str

    def kept(self, run: str, attempt: int = 1, seconds: float = 60.0) -> dict[str, Any]:
        """What the task held.hold has left: token, until, session, pid, environment."""
        file = self.told / f"{run}.{attempt}.json"
        deadline = time.monotonic() + seconds
        while not file.exists():
            assert time.monotonic() < deadline, self.airflow.log("held", "hold")[-6000:]
            time.sleep(0.02)
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    def then(self, run: str, what: str, attempt: int = 1) -> None:
        """Let held.hold end: success, fail, retry or skip."""
        (self.told / f"{run}.{attempt}.then").write_text(what, encoding="utf-8")

    def call(
        self, token: str, *, method: str = "GET", path: str = "/v1/attested/x", **headers: str
    ) -> httpx.Response:
        """One call of the ledger with a token. Headers: `Airgate_Dag_Id="other"`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.request(
            method,
            f"{self.stack.gate}/ledger{path}",
            headers={"Authorization": f"Bearer {token}", **named},
            timeout=30,
            trust_env=False,
        )

    def dies(self, kept: Mapping[str, Any], code: str, seconds: float = 30.0) -> float:
        """Call with a task's token until the gate refuses it with a code.

        Returns the seconds since Airflow's database has said that the task's session is over.
        """
        deadline = time.monotonic() + seconds
        over = 0.0
        headers = {"Authorization": f"Bearer {kept['token']}"}
        with httpx.Client(base_url=self.stack.gate, timeout=30, trust_env=False) as client:
            while True:
                if not over and not self.lives(kept["session"]):
                    over = time.monotonic()
                answer = client.get("/ledger/v1/attested/x", headers=headers)
                if answer.status_code != httpx.codes.OK:
                    assert answer.json()["code"] == code, answer.text
                    return time.monotonic() - over if over else 0.0
                assert time.monotonic() < deadline, f"permitted; over for {time.monotonic() - over:.1f} s"
                time.sleep(0.02)

    def lives(self, session: str) -> bool:
        """Whether a session is running or deferred, as the database has it."""
        rows = self.airflow.rows("SELECT state FROM task_instance WHERE id = ?", session.replace("-", ""))
        return bool(rows) and rows[0][0] in ("running", "deferred")

    def execution_token(self, session: str, scope: str = "execution") -> str:
        """What Airflow gives a task to call its Execution API with. A task has no way to read its own."""
        secret = (self.airflow.home / "jwt-secret").read_text(encoding="utf-8")
        now = int(time.time())
        claims = {"sub": session, "scope": scope, "aud": "urn:airflow.apache.org:task"}
        times = {"iat": now, "nbf": now, "exp": now + 600, "jti": f"{now}-{session}"}
        return jwt.encode({**claims, **times}, secret, "HS512", {"kid": "not-used"})

    def fetch(
        self, execution_token: str = "", *, connection: str = "attested", **options: Any
    ) -> httpx.Response:
        """Fetch a connection over the Execution API, as the process does that looks after a task."""
        headers = {"Authorization": f"Bearer {execution_token}"} if execution_token else {}
        headers |= options.pop("headers", {})
        return httpx.get(
            f"{self.airflow.url}/execution/connections/{connection}",
            headers=headers,
            timeout=30,
            trust_env=False,
            **options,
        )

    def decision(self, request_id: str, seconds: float = 10.0) -> dict[str, Any]:
        """The gate's decision about one request. The log is written a moment after the answer."""
        deadline = time.monotonic() + seconds
        while True:
            for event in self._events():
                if event["event"] == "decision" and event["request_id"] == request_id:
                    return event
            assert time.monotonic() < deadline, request_id
            time.sleep(0.05)

    def decisions(self, **wanted: str) -> list[dict[str, Any]]:
        """The gate's decisions, in order, by workload values: `decisions(dag="held", task="hold")`."""
        found = []
        for event in self._events():
            said = {name: fact["value"] for name, fact in event.get("workload", {}).items()}
            if event["event"] == "decision" and wanted.items() <= said.items():
                found.append(event)
        return found

    def _events(self) -> Iterator[dict[str, Any]]:
        with self.stack.audit.open(encoding="utf-8") as file:
            for line in file:
                with suppress(ValueError):  # the last line may be half written
                    yield json.loads(line)


def new_key(kid: str) -> dict[str, Any]:
    """A private ES256 JWK."""
    jwk: dict[str, Any] = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)
    return {**{name: value for name, value in jwk.items() if name != "key_ops"}, "alg": "ES256", "kid": kid}


def write_keys(file: Path, *keys: dict[str, Any]) -> None:
    """Put keys into the file that the API server reads, newest first."""
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps({"keys": keys}), encoding="utf-8")
    fresh.chmod(0o600)
    fresh.replace(file)


@contextmanager
def running(folder: Path, parallelism: int = 8) -> Iterator[Attested]:
    """Start both, below a folder."""
    port = free_port()
    issuer = f"http://127.0.0.1:{port}/airgate"
    seed = folder / "kv-seed"
    shutil.copytree(STARTER, seed)
    (seed / "issuers" / "airflow.yaml").write_text(
        ISSUER.format(issuer=issuer, audience=AUDIENCE), encoding="utf-8"
    )
    (seed / "attested-roles.yaml").write_text(ROLES, encoding="utf-8")
    (seed / "policies" / "attested.yaml").write_text(POLICIES, encoding="utf-8")
    told = folder / "told"
    told.mkdir()
    keys = folder / "attest-keys.json"
    write_keys(keys, new_key("airflow-1"))
    # What a deferral carries is sealed with it. Tasks, which could read the trigger, don't have it.
    fernet = {"AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode()}
    with (
        LocalStack(
            folder / "stack",
            ports=Ports(0, 0, 0),
            publish=lambda started: publish_local(seed, started, "tests"),
        ) as stack,
        Airflow(
            "3.3",
            folder / "home",
            dags=DAGS,
            variables={
                "AIRGATE_TESTS_FOLDER": str(told),
                # A task outlives the restart of an API server, on a slow machine too.
                "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "60",
            },
            api_variables={**_api_variables(folder, stack, issuer, keys), **fernet},
            triggerer_variables=fernet,
            port=port,
            users=USERS,
            parallelism=parallelism,
        ) as airflow,
    ):
        yield Attested(airflow, stack, keys, told, issuer)


def _api_variables(folder: Path, stack: Stack, issuer: str, keys: Path) -> dict[str, str]:
    attested = {
        "conn_type": "airgate",
        "host": stack.gate,
        "extra": {"upstream": "ledger", "identity": "attested"},
    }
    stock = {**attested, "extra": {**attested["extra"], "stock_hooks": True}}
    connections = folder / "connections.json"
    elsewhere = {**attested, "host": "https://gate.example.org"}
    connections.write_text(
        json.dumps({"attested": attested, "attested_stock": stock, "attested_elsewhere": elsewhere}),
        encoding="utf-8",
    )
    wrapped = {
        "backend": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
        "backend_kwargs": {"connections_file_path": str(connections)},
    }
    return {
        "AIRFLOW__SECRETS__BACKEND": "airgate_provider.backend.AirgateSecretsBackend",
        "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps(wrapped),
        "AIRFLOW__AIRGATE__ATTEST": "True",
        "AIRFLOW__AIRGATE__ATTEST_ISSUER": issuer,
        "AIRFLOW__AIRGATE__ATTEST_AUDIENCE": AUDIENCE,
        "AIRFLOW__AIRGATE__ATTEST_KEYS_FILE": str(keys),
        "AIRFLOW__AIRGATE__ATTEST_LIFETIME": str(LIFETIME),
        "AIRFLOW__AIRGATE__ATTEST_ENVIRONMENT": "tests",
        "AIRFLOW__AIRGATE__ATTEST_GATES": stack.gate,
    }
