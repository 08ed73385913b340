"""A real Airflow beside the local stack: environments made by uv from committed freezes, and its processes.

    with Airflow("3.3", folder, dags=Path("tests/airflow/dags"), variables={"AIRFLOW_CONN_LEDGER": "{…}"}) as airflow:
        airflow.wait("finance_close")

What only the API server may know, such as the keys that it attests tasks with, is given apart:

    port = free_port()
    variables = {"AIRFLOW__AIRGATE__ATTEST_ISSUER": f"http://127.0.0.1:{port}/airgate", …}
    with Airflow("3.3", folder, dags=…, variables={}, api_variables=variables, port=port, users=["ada"]) as airflow:
        airflow.ended("finance_close", airflow.trigger("finance_close", user="ada"))

The tests of the provider and `make demo-airflow` use it. Nothing listens on anything but 127.0.0.1.
"""

import hashlib
import json
import os
import secrets
import shlex
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from airgate.dev.process import Process
from airgate.node import PROJECT

PLUGIN = PROJECT / "airflow_plugin"
ENVIRONMENTS = PROJECT / ".airflow"
VERSIONS = ("3.3", "2.11")
START_SECONDS = 120.0
FINAL = frozenset({"success", "failed"})


class AirflowError(Exception):
    """Airflow can't be set up, doesn't start, or doesn't get done. The message says why."""


@dataclass(frozen=True)
class Environment:
    """An installed Airflow of one version, below the project's folder .airflow."""

    version: str

    @property
    def folder(self) -> Path:
        """Where it is."""
        return ENVIRONMENTS / self.version

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def freeze(self) -> Path:
        """The lock file that it is made from."""
        return PLUGIN / f"requirements-airflow-{self.version}.txt"

    def make(self, say: Callable[[str], None] = lambda _: None) -> None:
        """Install it, when it is missing or its lock file has changed. Raises AirflowError."""
        stamp = self.folder / ".made-from"
        wanted = hashlib.sha256(
            self.freeze.read_bytes() + (PLUGIN / "pyproject.toml").read_bytes()
        ).hexdigest()
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
            return
        say(f"Setting up Airflow {self.version} in {self.folder.relative_to(PROJECT)}")
        uv = [str(Path(sysconfig.get_path("scripts")) / "uv")]
        install = [*uv, "pip", "install", "--quiet", "--python", str(self.python)]
        _run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(self.folder)])
        _run([*install, "--require-hashes", "--requirement", str(self.freeze)])
        _run([*install, "--no-build-isolation", "--no-deps", "--editable", str(PLUGIN)])
        _run([str(self.python), "-m", "compileall", "-q", str(self.folder / "lib")], check=False)
        stamp.write_text(wanted, encoding="utf-8")

    def command(self, *arguments: str) -> list[str]:
        """The command line of `airflow …`."""
        return [str(self.python), "-m", "airflow", *arguments]


class Airflow:
    """Scheduler, triggerer and what else the version needs, in a folder of their own; all ended on exit.

    `dags` is the folder of DAG files, `variables` are added to the environment (connections are), `api_variables` and
    `triggerer_variables` to that of the API server (Airflow 3) or the triggerer alone. `port` is the API server's; any
    free one when left out. `users` may log in there, as admins; with none, nobody has to. DAGs that are scheduled @once
    start by themselves. Raises AirflowError.
    """

    def __init__(
        self,
        version: str,
        home: Path,
        *,
        dags: Path,
        variables: Mapping[str, str],
        api_variables: Mapping[str, str] | None = None,
        triggerer_variables: Mapping[str, str] | None = None,
        port: int | None = None,
        users: Sequence[str] = (),
        parallelism: int = 4,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.version = version
        self.environment = Environment(version)
        self.home = home.resolve()
        self.database = self.home / "airflow.db"
        self.processes: list[Process] = []
        self._say = say
        self._api = port or free_port()
        self._passwords = {user: secrets.token_urlsafe(12) for user in users}
        self.variables = {**self._settings(dags, parallelism), **variables}
        self.own_variables = {"api-server": api_variables or {}, "triggerer": triggerer_variables or {}}

    def __enter__(self) -> "Airflow":
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process that was started here. Harmless when called twice."""
        for process in self.processes:
            process.ask_to_end()
        for process in self.processes:
            process.stop()
        self.processes.clear()

    def run(self, *arguments: str, seconds: float = 120.0) -> str:
        """The output of `airflow …`. Raises AirflowError when it fails."""
        return _run(self.environment.command(*arguments), env=self.process_environment(), seconds=seconds)

    def python(self, *arguments: str, seconds: float = 120.0) -> str:
        """The output of `python …` in this Airflow's environment. Raises AirflowError when it fails."""
        return _run(
            [str(self.environment.python), *arguments], env=self.process_environment(), seconds=seconds
        )

    @property
    def url(self) -> str:
        """Where the API server listens."""
        return f"http://127.0.0.1:{self._api}"

    def process_environment(self, name: str = "") -> dict[str, str]:
        """The environment variables of a process of this Airflow: one like a task's when left out."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        path = f"{self.environment.folder / 'bin'}{os.pathsep}{kept.get('PATH', '')}"
        return {
            **kept,
            "PATH": path,
            "VIRTUAL_ENV": str(self.environment.folder),
            "NO_COLOR": "1",
            **self.variables,
            **self.own_variables.get(name, {}),
        }

    def api(self, method: str, path: str, *, user: str = "", **options: Any) -> httpx.Response:
        """Call the REST API (Airflow 3): `api("GET", "/api/v2/dags")`. `user`: the first one when left out."""
        with httpx.Client(base_url=self.url, timeout=30, trust_env=False) as client:
            if self._passwords:
                user = user or next(iter(self._passwords))
                login = client.post("/auth/token", json={"username": user, "password": self._passwords[user]})
            else:
                login = client.get("/auth/token")
            token = login.raise_for_status().json()["access_token"]
            return client.request(method, path, headers={"Authorization": f"Bearer {token}"}, **options)

    def trigger(self, dag: str, *, user: str = "", **body: Any) -> str:
        """Start a manual run as a user, and return its id. `body`: what else the REST API takes (conf, dag_run_id)."""
        return str(
            self._asked("POST", f"dags/{dag}/dagRuns", {"logical_date": None, **body}, user)["dag_run_id"]
        )

    def backfill(self, dag: str, first: str, last: str) -> list[str]:
        """Run the intervals between two dates as a backfill, and return the ids of its runs.

        By the command line: over the REST API, which logs the action in a transaction of its own, SQLite is locked. It
        often is here, too, while the scheduler writes; Airflow then leaves nothing behind.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.run("backfill", "create", "--dag-id", dag, "--from-date", first, "--to-date", last)
                break
            except AirflowError as error:
                if "database is locked" not in str(error) or time.monotonic() > deadline:
                    raise
        return [
            run
            for (run,) in self.rows(
                "SELECT run_id FROM dag_run WHERE dag_id = ? AND backfill_id = (SELECT max(id) FROM backfill "
                "WHERE dag_id = dag_run.dag_id) ORDER BY id",
                dag,
            )
        ]

    def clear(self, dag: str, run: str, *tasks: str, user: str = "") -> None:
        """Clear tasks of a run, whatever their state: they run again, a running one is ended first."""
        body = {"dry_run": False, "only_failed": False, "dag_run_id": run, "task_ids": list(tasks)}
        self._asked("POST", f"dags/{dag}/clearTaskInstances", body, user)

    def mark(self, dag: str, run: str, task: str, state: str, *, user: str = "") -> None:
        """Mark a task instance as success, failed or skipped, as the button in the UI does."""
        self._asked("PATCH", f"dags/{dag}/dagRuns/{run}/taskInstances/{task}", {"new_state": state}, user)

    def restart(self, name: str) -> None:
        """End one process and start it anew: `restart("api-server")`."""
        [old] = [process for process in self.processes if process.name == name]
        old.stop()
        self.processes[self.processes.index(old)] = self._run_process(name)
        self._wait_until(self._ready)

    def state(self, dag: str, run: str | None = None) -> str | None:
        """The state of a DAG's run, of its first one when left out; None before there is one."""
        rows = self.rows(
            "SELECT state FROM dag_run WHERE dag_id = ? AND ifnull(?, run_id) = run_id ORDER BY id LIMIT 1",
            dag,
            run,
        )
        return rows[0][0] if rows else None

    def ended(self, dag: str, run: str, seconds: float = 180.0) -> str:
        """Wait until a run is over, and return its state."""
        deadline = time.monotonic() + seconds
        while (state := self.state(dag, run)) not in FINAL:
            self._check_alive()
            if time.monotonic() > deadline:
                raise AirflowError(f"{dag}, {run}: not done within {seconds:.0f} s, but {state}")
            time.sleep(0.1)
        return str(state)

    def wait(self, *dags: str, seconds: float = 180.0) -> dict[str, str]:
        """Wait until the first run of each of these DAGs is over, and return their states."""
        deadline = time.monotonic() + seconds
        while True:
            states = {dag: self.state(dag) for dag in dags}
            if all(state in FINAL for state in states.values()):
                return {dag: str(state) for dag, state in states.items()}
            self._check_alive()
            if time.monotonic() > deadline:
                left = ", ".join(f"{dag}: {state}" for dag, state in states.items() if state not in FINAL)
                raise AirflowError(f"Not done within {seconds:.0f} s: {left}")
            time.sleep(0.25)

    def tries(self, dag: str) -> dict[str, tuple[str, int]]:
        """State and number of tries by task (mapped ones as task[0])."""
        rows = self.rows(
            "SELECT task_id, map_index, state, try_number FROM task_instance WHERE dag_id = ?", dag
        )
        return {
            task if index < 0 else f"{task}[{index}]": (state, tries) for task, index, state, tries in rows
        }

    def xcom(self, dag: str, task: str, key: str = "return_value", map_index: int = -1) -> Any:
        """An XCom's value; None when there is none."""
        rows = self.rows(
            "SELECT value FROM xcom WHERE dag_id = ? AND task_id = ? AND key = ? AND map_index = ?",
            dag, task, key, map_index,
        )  # fmt: skip
        if not rows:
            return None
        value = rows[0][0]
        value = value.decode("utf-8") if isinstance(value, bytes) else value
        try:
            return json.loads(value)
        except ValueError:
            return value

    def rows(self, query: str, *values: Any) -> list[Any]:
        """What a query finds in Airflow's database, which is only read."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(query, values).fetchall()

    def log(self, dag: str, task: str) -> str:
        """Everything that the tries of a task have logged."""
        folders = sorted((self.home / "logs").glob(f"dag_id={dag}/run_id=*/task_id={task}"))
        return "\n".join(
            file.read_text(encoding="utf-8", errors="replace")
            for folder in folders
            for file in sorted(folder.rglob("*.log*"))
            if file.is_file()
        )

    def _start(self) -> "Airflow":
        self.environment.make(self._say)
        self.home.mkdir(parents=True, exist_ok=True)
        self._say(f"Starting Airflow {self.version}")
        self._write("jwt-secret", secrets.token_urlsafe(48))
        self._write("passwords.json", json.dumps(self._passwords))
        self.run("db", "migrate")
        names = ["triggerer", "scheduler"]
        if self.version != "2.11":
            names = ["api-server", "dag-processor", *names]
        for name in names:
            if name == "scheduler":  # what it starts at once fails without an API server
                self._wait_until(self._api_answers)
            self.processes.append(self._run_process(name))
        self._wait_until(self._ready)
        return self

    def _write(self, name: str, text: str) -> None:
        file = self.home / name
        file.write_text(text, encoding="utf-8")
        file.chmod(0o600)

    def _run_process(self, name: str) -> Process:
        more = {
            "api-server": ["--host", "127.0.0.1", "--port", str(self._api)],
            "scheduler": ["--skip-serve-logs"],
            "triggerer": ["--skip-serve-logs"],
        }.get(name, [])
        return Process(
            name,
            self.environment.command(name, *more),
            log=self.home / f"{name}.log",
            cwd=self.home,
            env=self.process_environment(name),
        )

    def _wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self._check_alive()
            if holds():
                return
            time.sleep(0.25)
        raise AirflowError(f"Airflow {self.version} did not start within {START_SECONDS:.0f} s.")

    def _ready(self) -> bool:
        """Each process but the API server leaves a heartbeat in the database."""
        running = self.rows("SELECT DISTINCT job_type FROM job WHERE state = 'running'")
        return len(running) >= len(self.processes) - (self.version != "2.11") and self._api_answers()

    def _api_answers(self) -> bool:
        if self.version == "2.11":
            return True
        try:
            return self.api("GET", "/api/v2/dags").is_success
        except httpx.HTTPError:
            return False

    def _check_alive(self) -> None:
        for process in self.processes:
            if process.status is not None:
                said = "\n".join(process.last_lines())
                raise AirflowError(f"Airflow's {process.name} ended with status {process.status}:\n{said}")

    def _asked(self, method: str, path: str, body: Mapping[str, Any], user: str) -> Any:
        answer = self.api(method, f"/api/v2/{path}", user=user, json=body)
        if not answer.is_success:
            raise AirflowError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def _settings(self, dags: Path, parallelism: int) -> dict[str, str]:
        settings = {
            "CORE__DAGS_FOLDER": str(dags.resolve()),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": str(parallelism),
            "CORE__MAX_ACTIVE_TASKS_PER_DAG": str(parallelism),
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "CORE__TEST_CONNECTION": "Enabled",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": str(not self._passwords),
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "API__BASE_URL": self.url,
            "API__WORKERS": "1",
            # Not the secret itself: every task would find it in its environment.
            "API_AUTH__JWT_SECRET_CMD": f"cat {shlex.quote(str(self.home / 'jwt-secret'))}",
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}",
            "LOGGING__LOGGING_LEVEL": "INFO",
            "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
            "SCHEDULER__MAX_TIS_PER_QUERY": "32",
            "USAGE_DATA_COLLECTION__ENABLED": "False",
            "WORKERS__EXECUTION_API_TIMEOUT": "60",
        }
        if self._passwords:
            settings |= {
                "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:admin" for user in self._passwords),
                "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            }
        named = {f"AIRFLOW__{name}": value for name, value in settings.items()}
        # SQLite is for trying things, and that is what this is.
        return {
            "AIRFLOW_HOME": str(self.home),
            "_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1",
            **named,
        }


def _run(
    command: list[str], *, env: Mapping[str, str] | None = None, seconds: float = 600.0, check: bool = True
) -> str:
    done = subprocess.run(
        command,
        env=env,
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=seconds,
        check=False,
    )
    if check and done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise AirflowError(f"{' '.join(command[:6])} … ended with status {done.returncode}:\n{said}")
    return done.stdout


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def main() -> int:
    """`python -m airgate.dev.airflow`: make the environments of all versions, where that has to be done."""
    try:
        for version in VERSIONS:
            Environment(version).make(print)
    except AirflowError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
