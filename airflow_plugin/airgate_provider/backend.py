"""A secrets backend around the user's own: stock hooks and sensors get a plain `http` connection with a fresh token.

    [secrets]
    backend = airgate_provider.backend.AirgateSecretsBackend
    backend_kwargs = {"backend": "path.to.YourBackend", "backend_kwargs": {…}}

Only connections with "For stock hooks" on are handed out so. In Airflow's API server, where it attests its tasks, also
those with the identity attested get a token: one for the task that asks. All others pass through as they are.
"""

from __future__ import annotations

import json
import logging
from importlib import import_module
from typing import Any

from airflow.secrets.base_secrets import BaseSecretsBackend

from airgate_provider import compat, execution

NOWHERE = "https://connection-not-valid.invalid"  # a name that nobody can have (RFC 2606 §2)

log = logging.getLogger(__name__)


class AirgateSecretsBackend(BaseSecretsBackend):
    """Asks the wrapped backend first, then those that Airflow has behind this one.

    :param backend: The class path of the user's own backend; none when left out.
    :param backend_kwargs: Its arguments.
    """

    def __init__(
        self, backend: str | None = None, backend_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._wrapped: Any = None
        if backend:
            module, _, name = backend.rpartition(".")
            self._wrapped = getattr(import_module(module), name)(**(backend_kwargs or {}))

    def get_connection(self, conn_id: str, team_name: str | None = None) -> Any:
        """The connection, with a token in it where it is for stock hooks, or attested.

        Raises PermissionError where an attested one is not for whoever asks.
        """
        found = compat.ask(self._wrapped, conn_id, team_name) if self._wrapped is not None else None
        if found is None:
            found = self._behind(conn_id, team_name)
        if found is None or found.conn_type != "airgate":
            # Found elsewhere and not ours: whoever holds it answers for it.
            return found
        if _attested(found):
            if (caller := execution.caller()) is not None:
                from airgate_provider import attest

                return attest.hand_out(found, caller, plain=_switched_on(found))
            # Nobody attests in this process. Where it is a task's, the API server is one of those behind.
            if (asked := self._behind(conn_id, team_name)) is not None:
                found = asked
        return _plain(found) if found.conn_type == "airgate" and _switched_on(found) else found

    def get_variable(self, key: str, *args: Any, **kwargs: Any) -> str | None:
        """The wrapped backend's."""
        found: str | None = (
            self._wrapped.get_variable(key, *args, **kwargs) if self._wrapped is not None else None
        )
        return found

    def get_config(self, key: str) -> str | None:
        """The wrapped backend's."""
        found: str | None = self._wrapped.get_config(key) if self._wrapped is not None else None
        return found

    def _behind(self, conn_id: str, team_name: str | None) -> Any:
        for backend in compat.other_backends(type(self)):
            try:
                if (found := compat.ask(backend, conn_id, team_name)) is not None:
                    return found
            except PermissionError:  # Airflow 3: a denial that no other backend may soften
                raise
            except Exception:
                log.debug("%s has no connection %s", type(backend).__name__, conn_id, exc_info=True)
        return None


def _switched_on(connection: Any) -> bool:
    said = str(connection.extra_dejson.get("stock_hooks") or "").strip().lower()
    # What can't be read counts as on: settings.read() names it, and no stock hook gets the secret meanwhile.
    return said not in ("", "false", "0", "none")


def _attested(connection: Any) -> bool:
    return str(connection.extra_dejson.get("identity") or "").strip().lower() == "attested"


def _plain(connection: Any) -> Any:
    """An `http` connection to the gate whose only header is the token, with the task's context beside it.

    Without a token it is handed out without one, and the gate says so; one that can't be read leads nowhere. To raise
    would make Airflow take it from the next backend, as it is: stock hooks would send the client's secret.
    """
    from airgate_provider import settings, tokens
    from airgate_provider.call import Call, credential
    from airgate_provider.errors import ConnectionInvalid
    from airgate_provider.workload import Workload

    try:
        said = settings.read(connection, connection.extra_dejson)
    except ConnectionInvalid as error:
        log.error("%s", error)
        return compat.make_connection(conn_id=connection.conn_id, conn_type="http", host=NOWHERE)
    headers = dict(said.options)
    try:
        if said.dpop:
            raise ConnectionInvalid(
                'A stock hook cannot make proofs. Switch "DPoP" off, or "For stock hooks".'
            )
        call = Call(said, Workload.from_context(compat.current_context()))
        headers |= call.context()
        headers |= credential(tokens.get(said), "", "", {})
    except Exception as error:
        log.error("No token for connection %s: %s", said.conn_id, error)
    return compat.make_connection(
        conn_id=connection.conn_id, conn_type="http", host=said.base_url, extra=json.dumps(headers)
    )
