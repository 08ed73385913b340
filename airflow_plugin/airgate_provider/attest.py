"""Attested tokens: what Airflow's database says of a running session, signed (RFC 9068), for the session alone.

Runs in Airflow's API server, while it answers a task that fetches a connection. Nothing that the task says is in here.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from airflow.models.dag import DagModel, DagTag
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowSecretsBackendAccessDenied
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from fastapi import HTTPException
from sqlalchemy import and_, bindparam, select

from airgate_provider import attest_keys, sealed, sessions, settings
from airgate_provider.call import Call
from airgate_provider.errors import ConnectionInvalid
from airgate_provider.execution import Caller
from airgate_provider.fields import ATTESTED_UNTIL
from airgate_provider.settings import Settings

LONGEST = 6000  # characters; the gate takes 8 KB
TYPE = "at+jwt"  # RFC 9068 §2.1
KEPT = ("conn_id", "conn_type", "description", "host", "schema", "login", "port")  # of a connection, as it is

log = logging.getLogger(__name__)


class NotAttested(HTTPException, AirflowSecretsBackendAccessDenied):
    """Why a connection is not handed out, in a stable word. As a denial no other secrets backend is asked after it."""

    def __init__(self, reason: str, message: str, status: int = 403) -> None:
        super().__init__(status, {"reason": f"attest.{reason}", "message": message})
        self.reason, self.message = f"attest.{reason}", message


class HandedOut(Connection):
    """A connection with a token in it. Airflow keeps connections as URIs in a cache that all sessions share, so its
    URI is without the token, as is what a log might show of it."""

    def get_uri(self) -> str:
        return f"{self.conn_type}://"

    def __repr__(self) -> str:
        return f"HandedOut(conn_id={self.conn_id!r})"


@dataclass(frozen=True)
class Facts:
    """One session as the database has it."""

    session: str
    dag: str
    task: str
    run: str
    try_number: int
    map_index: int
    tags: tuple[str, ...]
    owners: tuple[str, ...]
    run_type: str
    triggered_by: str
    dag_bundle: str

    @classmethod
    def of(cls, session: uuid.UUID) -> Facts:
        """Of a session that is running. Raises NotAttested."""
        rows = _rows(session)
        if not rows:
            raise NotAttested(
                "no_session", "No try of a task has this id: it is over, and another one may be running."
            )
        row = rows[0]
        if row.state != TaskInstanceState.RUNNING:
            raise NotAttested("not_running", f"The task is not running: its state is {row.state}.")
        return cls(
            session=str(session),
            dag=row.dag_id,
            task=row.task_id,
            run=row.run_id,
            try_number=row.try_number,
            map_index=row.map_index,
            tags=tuple(sorted(each.tag for each in rows if each.tag is not None)),
            owners=tuple(sorted({each for part in (row.owners or "").split(",") if (each := part.strip())})),
            run_type=str(row.run_type),
            # Of a run that was cleared nobody knows who wanted it to run again: the name would be somebody else's.
            triggered_by="" if row.clear_number else row.triggering_user_name or "",
            dag_bundle="@".join(part for part in (row.bundle_name, row.bundle_version) if part),
        )

    def claims(self, environment: str) -> dict[str, Any]:
        """The claim `airflow`."""
        told: dict[str, Any] = {
            "dag": self.dag,
            "task": self.task,
            "run": self.run,
            "try": self.try_number,
            "tags": list(self.tags),
            "owners": list(self.owners),
            "run_type": self.run_type,
        }
        if self.map_index >= 0:
            told["map_index"] = self.map_index
        optional = {
            "triggered_by": self.triggered_by, "dag_bundle": self.dag_bundle, "environment": environment,
        }  # fmt: skip
        return told | {name: value for name, value in optional.items() if value}


def hand_out(connection: Any, caller: Caller, *, plain: bool) -> Any:
    """The connection with a fresh token for the session that asks. `plain`: as an `http` one, for stock hooks.

    A connection that can't be read is handed out as it is to any task, without one: whoever uses it names the field.
    Raises NotAttested.
    """
    try:
        if caller.session is None:
            raise NotAttested("no_session", "The request carries no token of a task.")
        try:
            said = settings.read(connection, connection.extra_dejson, tokenless=True)
        except ConnectionInvalid as error:
            log.warning("%s", error)
            return connection
        _check_gate(said)
        token, expires = mint(caller.session, said.gate)
        sessions.minted(str(caller.session), said.gate, expires)
        return _plain(said, token) if plain else _with_token(connection, token, expires)
    except NotAttested as refusal:
        log.warning(
            "Connection %r is not handed out to session %s: %s. %s",
            connection.conn_id,
            caller.session,
            refusal.reason,
            refusal.message,
        )
        raise
    except attest_keys.AttestInvalid as error:
        log.error("Connection %r is not handed out: %s", connection.conn_id, error)
        raise NotAttested(
            "misconfigured", "Airflow can't attest its tasks; the API server's log says why."
        ) from None
    except Exception as error:
        # Left to itself, Airflow would hand the connection out by the next backend, without a token. The worker asks
        # again after a 503.
        log.exception("Connection %r is not handed out", connection.conn_id)
        raise NotAttested("unavailable", "Airflow can't attest the task at the moment.", 503) from error


def mint(session: uuid.UUID, gate: str) -> tuple[str, int]:
    """A token for a running session, to be used at a gate (scheme, host and port), and when it expires (epoch seconds).

    Raises NotAttested, AttestInvalid.
    """
    facts, said = Facts.of(session), attest_keys.settings()
    now = int(time.time())
    claims = {
        "iss": said.issuer,
        "sub": f"{quote(facts.dag, safe='')}/{quote(facts.task, safe='')}",
        "aud": said.audience_at(gate),
        "client_id": "airflow",
        "iat": now,
        "exp": now + said.lifetime,
        "jti": uuid.uuid4().hex,
        "sid": facts.session,
        "airflow": facts.claims(said.environment),
    }
    token = attest_keys.sign(claims, TYPE)
    if len(token) > LONGEST:
        raise NotAttested(
            "too_long",
            f"The token would have {len(token)} characters, of {LONGEST} at most: the DAG has too many tags or owners.",
        )
    return token, now + said.lifetime


def _check_gate(said: Settings) -> None:
    """Raises NotAttested where a connection, which not only administrators may be able to change, leads elsewhere than
    to a gate of [airgate] attest_gates. AttestInvalid."""
    gates = attest_keys.settings().gates
    if not gates:
        return
    if settings.origin(said.gate) not in gates:
        raise NotAttested(
            "gate_not_listed",
            f"The connection's gate, {said.gate!r}, is none of [airgate] attest_gates. Correct the connection, or add "
            "the gate there if it is one of yours.",
        )
    # Else a proxy that the connection names could pass itself off as the gate.
    verify = [each for name in ("verify", "verify_ssl") if (each := said.options.get(name)) is not None]
    if any(each is not True and not (isinstance(each, str) and each) for each in verify):
        raise NotAttested(
            "gate_unverified",
            "The connection's extra switches off that the gate's certificate is checked, and [airgate] attest_gates is "
            "set. Take verify out of it, or let it name a file with the certificates to trust.",
        )
    if not said.options.keys() & {"proxies", "proxy"}:
        return
    if said.gate.lower().startswith("http://"):
        raise NotAttested(
            "gate_unverified",
            f"The connection's extra has a proxy, which could read what is sent to {said.gate}, and "
            "[airgate] attest_gates is set. Take the proxy out of it.",
        )
    if any(isinstance(each, str) for each in verify):  # a task may have written that file
        raise NotAttested(
            "gate_unverified",
            "The connection's extra has a proxy and says which certificates to trust, and [airgate] attest_gates is "
            "set. Take one of them out of it: the worker's environment can have it (HTTPS_PROXY, REQUESTS_CA_BUNDLE).",
        )


# One row for each tag of the DAG, and one without a tag when it has none. All joins are by primary or unique keys.
FACTS = (
    select(
        TaskInstance.state,
        TaskInstance.dag_id,
        TaskInstance.task_id,
        TaskInstance.run_id,
        TaskInstance.try_number,
        TaskInstance.map_index,
        DagRun.run_type,
        DagRun.triggering_user_name,
        DagRun.clear_number,
        DagRun.bundle_version,
        DagModel.bundle_name,
        DagModel.owners,
        DagTag.name.label("tag"),
    )
    .select_from(TaskInstance)
    .join(DagRun, and_(TaskInstance.dag_id == DagRun.dag_id, TaskInstance.run_id == DagRun.run_id))
    .join(DagModel, TaskInstance.dag_id == DagModel.dag_id)
    .outerjoin(DagTag, TaskInstance.dag_id == DagTag.dag_id)
    .where(TaskInstance.id == bindparam("session"))
)


def _rows(session: uuid.UUID) -> list[Any]:
    # Not the thread's own database session: whoever asks for a connection may be in the middle of using that.
    with create_session(scoped=False) as database:
        return list(database.execute(FACTS, {"session": session}).all())


def _with_token(connection: Any, token: str, expires: int) -> Any:
    made = HandedOut(
        **{name: getattr(connection, name) for name in KEPT},
        password=token,
        extra=json.dumps({**connection.extra_dejson, ATTESTED_UNTIL: expires}),
    )
    sealed.attach(made)
    return made


def _plain(said: Settings, token: str) -> Any:
    headers = {**said.options, **Call(said).context(), "Authorization": f"Bearer {token}"}
    return HandedOut(conn_id=said.conn_id, conn_type="http", host=said.base_url, extra=json.dumps(headers))
