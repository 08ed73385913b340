"""Whose Execution API request is being answered: the root middleware of Airflow's API server.

Airflow tells a secrets backend which connection is asked for, and not who asks. So this looks at the request before
Airflow does, has the task's own token checked by Airflow's validator, and keeps the session's id in a context
variable, which goes along into the thread that reads the connection. The token itself is kept nowhere.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CONNECTIONS = "/execution/connections/"
# The one route by which a task ends, defers or reschedules itself, whatever it says of how.
STATE = re.compile(r"/execution/task-instances/([0-9A-Fa-f-]{32,36})/state")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Caller:
    """Who asks for a connection: the id of a session whose token Airflow's validator took, or None for nobody."""

    session: UUID | None


_caller: ContextVar[Caller | None] = ContextVar("airgate_caller", default=None)


def caller() -> Caller | None:
    """Who asks for a connection over the Execution API. None wherever nothing is asked for over it."""
    return _caller.get()


class ExecutionMiddleware:
    """Pure ASGI: it neither reads bodies nor holds answers back."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _path(scope) if scope["type"] == "http" else ""
        if path.startswith(CONNECTIONS):
            mark = _caller.set(Caller(await _session(scope)))
            try:
                await self.app(scope, receive, send)
            finally:
                _caller.reset(mark)
        elif scope.get("method") == "PATCH" and (found := STATE.fullmatch(path)):
            await self._changing(found[1], scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _changing(self, said: str, scope: Scope, receive: Receive, send: Send) -> None:
        status = 0

        async def watch(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self.app(scope, receive, watch)
        if 200 <= status < 300:
            from airgate_provider import sessions

            sessions.changed(str(UUID(said)))


def _path(scope: Scope) -> str:
    """The path below the one that the API server itself is served under ([api] base_url)."""
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    return str(path[len(root) :] if root and path.startswith(f"{root}/") else path)


async def _session(scope: Scope) -> UUID | None:
    """The session whose token a request carries; the token must be good for more than to start the task."""
    # The first, which is what Airflow goes by: its simple auth manager adds one of its own where everybody is an admin.
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    scheme, _, token = given.decode("latin-1").partition(" ")
    if scheme.lower() != "bearer":
        return None
    try:
        claims = await _validator().avalidated_claims(token.strip(), {})
        if claims.get("scope", "execution") != "execution":
            return None
        return UUID(claims["sub"])
    except Exception:  # as Airflow has it: whatever is wrong with a token, it is none
        log.debug("The token of an Execution API request is not valid", exc_info=True)
        return None


@cache
def _validator() -> Any:
    """As the Execution API makes its own; kept, for it keeps the keys that it fetches ([api_auth] trusted_jwks_url)."""
    from airflow.api_fastapi.auth.tokens import JWTValidator, get_sig_validation_args
    from airflow.configuration import conf

    issuer = conf.get("api_auth", "jwt_issuer", fallback=None)
    return JWTValidator(
        required_claims=frozenset({"aud", "exp", "iat", "sub"} | ({"iss"} if issuer else set())),
        issuer=issuer,
        audience=conf.get_mandatory_list_value("execution_api", "jwt_audience"),
        **get_sig_validation_args(make_secret_key_if_needed=False),
    )
