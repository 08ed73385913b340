"""The hooks: an unchanged HttpOperator whose connection has the type `airgate` uses the first one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import requests
from airflow.providers.http.hooks.http import HttpAsyncHook, HttpHook, SessionConfig
from requests.auth import AuthBase
from requests.exceptions import UnrewindableBodyError
from requests.utils import rewind_body
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, SSLError

from airgate_provider import call as calls
from airgate_provider import compat, form, identity, refusal, settings, tokens
from airgate_provider.call import Call
from airgate_provider.errors import (
    ConnectionInvalid,
    GateBusy,
    GateConnectionError,
    GateDenied,
    GateUnreachable,
    TokenEnded,
    TokenRefused,
    TokenUnavailable,
)
from airgate_provider.identity import Token
from airgate_provider.refusal import Refusal
from airgate_provider.retries import Pause
from airgate_provider.settings import Settings
from airgate_provider.workload import Workload

if TYPE_CHECKING:
    from airflow.sdk import Connection

log = logging.getLogger(__name__)

REQUEST_ID = "airgate_request_id"
REQUEST_URL = "airgate_request_url"

_remembered: Workload | None = None  # whose request id is in XCom; a process runs one task


class AirgateHook(HttpHook):
    """Calls an API through the gate, with the stock hook's own interface.

    :param method: The HTTP method, as in HttpHook.
    :param http_conn_id: A connection of type `airgate`.
    :param upstream: The API behind the gate; the connection's when left out.
    :param roles: The roles to act under; the connection's when left out.
    :param justification: Why, where a policy asks for it.
    :param retries_itself: The caller waits before it calls again, so the hook need not.
    """

    conn_name_attr = "http_conn_id"
    default_conn_name = "airgate_default"
    conn_type = settings.CONN_TYPE
    hook_name = "Airgate"

    def __init__(
        self,
        method: str = "POST",
        http_conn_id: str = default_conn_name,
        auth_type: Any = None,  # the stock operator hands it over; who calls is the connection's to say
        *,
        upstream: str | None = None,
        roles: Sequence[str] | None = None,
        justification: str | None = None,
        retries_itself: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(method=method, http_conn_id=http_conn_id, auth_type=None, **kwargs)
        if auth_type is not None:
            log.warning(
                "auth_type is not used: the connection's identity is what the gate asks for. What the API itself asks "
                "for goes into the task's headers."
            )
        self.retries_itself = retries_itself
        self.upstream = upstream
        self.roles = tuple(roles or ())
        self.justification = justification or ""
        self._call: Call | None = None
        self._context: dict[str, Any] | None = None

    @staticmethod
    def get_ui_field_behaviour() -> dict[str, Any]:
        """What the form does to the standard fields (Airflow 2.11)."""
        return form.behaviour()

    @staticmethod
    def get_connection_form_widgets() -> dict[str, Any]:
        """The form's own fields (Airflow 2.11)."""
        return form.widgets()

    @classmethod
    def get_connection(cls, conn_id: str) -> Connection:
        """As in the stock hook. Raises TokenUnavailable where Airflow's API server does not hand it out."""
        try:
            return super().get_connection(conn_id)
        except PermissionError:
            raise identity.denied(conn_id) from None

    def run_and_check(
        self,
        session: requests.Session,
        prepped_request: requests.PreparedRequest,
        extra_options: dict[Any, Any],
    ) -> Any:
        """Send a request through the gate. Raises GateDenied, GateBusy, GateUnreachable.

        An answer of the upstream, whatever its status, is treated as in the stock hook. A refusal by the gate is not
        the upstream's answer, so it raises also where the DAG looks at statuses itself.
        """
        unchecked = {**extra_options, "check_response": False}
        credential = session.auth
        if isinstance(credential, _Credential) and credential.token is None:
            credential(prepped_request)  # `auth` among the DAG's request_kwargs has taken its place
        response = self._send(session, prepped_request, unchecked)
        refused = self._refusal(response)
        if (
            refused is not None
            and isinstance(credential, _Credential)
            and self._renew(refused, credential, response)
        ):
            if _rewound(prepped_request):
                credential(prepped_request)
                response = self._send(session, prepped_request, unchecked)
                refused = self._refusal(response)
            else:  # the next try of the task can
                refused = replace(refused, retryable=True, retry_after=0.0)
        self._record(response, refused)
        if refused is not None:
            error = refused.error()
            if not self.retries_itself:
                Pause.before_retry(error, self._context)
            raise error
        if extra_options.get("check_response", True):
            self.check_response(response)
        return response

    def run_with_advanced_retry(self, _retry_args: dict[Any, Any], *args: Any, **kwargs: Any) -> Any:
        """As in the stock hook, but a denial is never tried again, and nothing sooner than the gate allows."""
        return super().run_with_advanced_retry(Pause.within(_retry_args), *args, **kwargs)

    def test_connection(self) -> tuple[bool, str]:
        """What the Test button asks: is the gate there, does it take our token, does it know the upstream?"""
        try:
            connection = self.get_connection(self.http_conn_id)
            said = settings.read(connection, connection.extra_dejson, self.upstream, tokenless=True)
            with requests.Session() as session:
                session.trust_env = bool(said.options.get("trust_env", True))
                answer = session.get(
                    f"{said.base_url}/",
                    auth=_Credential(Call(said)) if said.identity != "attested" else _no_credential,
                    timeout=20,
                    verify=said.options.get("verify", said.options.get("verify_ssl", True)),
                    cert=said.options.get("cert"),
                    proxies=said.options.get("proxies", said.options.get("proxy")),
                    allow_redirects=False,
                )
        except (ConnectionInvalid, TokenRefused, TokenUnavailable) as error:
            return False, str(error)
        except requests.RequestException:
            return False, f"The gate at {said.gate} cannot be reached."
        return _tested(said, answer)

    def _set_base_url(self, connection: Connection) -> None:
        said = settings.read(connection, connection.extra_dejson, self.upstream)
        self._context = compat.current_context()
        workload = Workload.from_context(self._context)
        self._call = Call(said, workload, self.roles, self.justification)
        self.base_url = said.base_url
        self._base_url_initialized = True

    def _configure_session_from_auth(
        self, session: requests.Session, connection: Connection
    ) -> requests.Session:
        credential = _Credential(self._known_call())
        session.auth = credential
        # After a redirect requests would send everything but Authorization to wherever it leads. The stock hook makes
        # the session, so its method is put in place here instead of in a class of ours.
        session.rebuild_auth = credential.rebuild  # type: ignore[method-assign]
        return session

    def _configure_session_from_extra(
        self, session: requests.Session, connection: Connection, extra_options: dict[str, Any]
    ) -> requests.Session:
        # The stock hook makes a header of every name that it doesn't know. It gets to see only those that it knows.
        known = SimpleNamespace(extra_dejson=self._known_call().settings.options, host=connection.host)
        configured: requests.Session = super()._configure_session_from_extra(session, known, extra_options)
        return configured

    def _known_call(self) -> Call:
        if self._call is None:
            raise ConnectionInvalid(f'Connection "{self.http_conn_id}" has not been read yet.')
        return self._call

    def _send(
        self, session: requests.Session, request: requests.PreparedRequest, options: dict[Any, Any]
    ) -> requests.Response:
        try:
            answer: requests.Response = super().run_and_check(session, request, options)
        except requests.exceptions.ConnectionError as error:
            call = self._known_call()
            if error.request is not None and not call.goes_to_gate(str(error.request.url)):
                raise  # a redirect led elsewhere
            reason = getattr(error.args[0] if error.args else None, "reason", None)
            raise GateConnectionError(
                _unreachable(
                    call.settings,
                    made=not isinstance(reason, NewConnectionError | ConnectTimeoutError | SSLError),
                )
            ) from error
        return answer

    def _refusal(self, response: requests.Response) -> Refusal | None:
        if not self._known_call().goes_to_gate(response.url) or not refusal.is_refusal(
            response.status_code, response.headers
        ):
            return None
        method = response.request.method or self.method
        return refusal.read(method, response.url, response.status_code, response.headers, response.content)

    def _renew(self, refused: Refusal, credential: _Credential, response: requests.Response) -> bool:
        """Whether another credential may do: the token expired on the way, or our clock is off."""
        if (token := credential.token) is None:
            return False
        if refused.stale:
            self.log.info(
                "The gate says %s; asking for a new token. Request id: %s", refused.code, refused.request_id
            )
            return renewed(self._known_call().settings, token).value != token.value
        if refused.code in refusal.UNPROVEN and token.key is not None:
            token.key.correct(response.headers.get("Date"))
            return True
        return False

    def _record(self, response: requests.Response, refused: Refusal | None) -> None:
        """The request id, in the log and in XCom: there once for a task, or each page would cost a call to Airflow."""
        global _remembered
        call = self._known_call()
        if not call.goes_to_gate(response.url):
            return  # a redirect led elsewhere, and who answers there is no witness
        method, status = response.request.method or "", response.status_code
        record(call.settings, method, response.url, status, response.headers, self.log)
        request_id = response.headers.get("Airgate-Request-Id")
        if self._context is None or not request_id:
            return
        if refused is not None or call.workload != _remembered:
            remember(self._context, request_id, call.settings.request_page)
            _remembered = call.workload


class _Credential(AuthBase):
    """Puts the token and the task's context on a request, at the very end, when method and address are settled."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._ours: set[str] = set()
        self.token: Token | None = None

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        method, url = request.method or "", request.url or ""
        for name in self._ours:
            request.headers.pop(name, None)
        self.token = tokens.get(self._call.settings)
        given = {name: str(value) for name, value in request.headers.items()}
        added = self._call.headers(method, url, request.body, given)
        added |= calls.credential(self.token, method, url, given)
        request.headers.update(added)
        self._ours = set(added)
        return request

    def rebuild(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """After a redirect: a fresh proof within the gate, nothing of ours anywhere else.

        Nor on the way back: whoever answers there would have the task call the gate in its name.
        """
        if self._call.goes_to_gate(response.url) and self._call.goes_to_gate(prepared_request.url or ""):
            self(prepared_request)
        else:
            for name in self._ours:
                prepared_request.headers.pop(name, None)
            calls.strip(prepared_request.headers)


class AirgateAsyncHook(HttpAsyncHook):
    """The same for triggers, without blocking. `workload` comes along: a triggerer has no context to read it from."""

    conn_name_attr = "http_conn_id"
    default_conn_name = "airgate_default"
    conn_type = settings.CONN_TYPE
    hook_name = "Airgate"

    def __init__(
        self,
        method: str = "POST",
        http_conn_id: str = default_conn_name,
        retry_limit: int = 3,
        retry_delay: float = 1.0,
        *,
        upstream: str | None = None,
        roles: Sequence[str] | None = None,
        justification: str | None = None,
        workload: Workload | None = None,
        number: int | None = None,
        carried: Settings
        | None = None,  # attested: in place of the connection, which a triggerer gets no token with
    ) -> None:
        super().__init__(
            method=method, http_conn_id=http_conn_id, retry_limit=retry_limit, retry_delay=retry_delay
        )
        self.carried = carried
        self.tries = 0  # calls that were made, or tried
        self.upstream = upstream
        self.roles = tuple(roles or ())
        self.justification = justification or ""
        self.workload = workload
        self.number = number
        self._call: Call | None = None

    async def config(self) -> SessionConfig:
        """Where to call, and with which of requests' options; no credential and no header comes from here."""
        if self._config is None:
            said = self.carried or await self._looked_up()
            self._call = Call(said, self.workload, self.roles, self.justification, self.number)
            options = _for_aiohttp(said)
            self._config = SessionConfig(base_url=said.base_url, headers={}, auth=None, extra_options=options)
        return self._config

    async def _looked_up(self) -> Settings:
        from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson

        try:
            connection = await get_async_connection(conn_id=self.http_conn_id, hook=self)
        except PermissionError:
            raise identity.denied(self.http_conn_id) from None
        return settings.read(connection, await get_async_extra_dejson(connection), self.upstream)

    def _get_request_func(
        self, session: aiohttp.ClientSession, method: str | None = None
    ) -> Callable[..., Any]:
        stock: Callable[..., Awaitable[aiohttp.ClientResponse]] = super()._get_request_func(session, method)

        async def send(*arguments: Any, **options: Any) -> aiohttp.ClientResponse:
            self.tries += 1
            try:
                return await stock(*arguments, **options, middlewares=(partial(self._through_the_gate, []),))
            except TokenEnded:
                self.tries -= 1
                raise

        async def patiently(*arguments: Any, **options: Any) -> aiohttp.ClientResponse:
            # Out here no timeout of a request runs while the gate is given the time that it asks for.
            for _ in range(1, self.retry_limit):
                try:
                    return await send(*arguments, **options)
                except GateBusy as error:
                    await asyncio.sleep(max(self.retry_delay, error.retry_after))
            return await send(*arguments, **options)

        return patiently

    async def _through_the_gate(
        self, elsewhere: list[str], request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Called for each request that goes out, redirects included. Raises GateDenied, GateBusy, GateUnreachable.

        `elsewhere`: where redirects have led. After that nothing of ours goes along, nor on the way back: whoever
        answers there would have the task call the gate in its name.
        """
        if self._call is None:
            raise ConnectionInvalid(f'Connection "{self.http_conn_id}" has not been read yet.')
        call, url = self._call, str(request.url)
        if not call.goes_to_gate(url):
            elsewhere.append(url)
        if elsewhere:
            calls.strip(request.headers)
            return await handler(request)
        given = dict(request.headers)
        body = await request.body.as_bytes() if isinstance(request.body, aiohttp.Payload) else b""
        request.headers.update(call.headers(request.method, url, body, given))
        token = await self._token(call.settings)
        again = True
        while True:
            request.headers.update(calls.credential(token, request.method, url, given))
            try:
                response = await handler(request)
            except aiohttp.ClientConnectionError as error:
                not_made = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
                raise GateUnreachable(_unreachable(call.settings, made=not not_made)) from error
            refused = await self._refusal(request, response)
            record(call.settings, request.method, url, response.status, response.headers, self.log)
            if refused is None:
                return response
            other = await self._another(call.settings, token, refused, response) if again else None
            if other is None:
                raise refused.error()
            token, again = other, False

    async def _token(self, said: Settings) -> Token:
        if self.carried is None:
            return await asyncio.to_thread(tokens.get, said)
        token = identity.handed(said)
        if token is None or not token.holds:
            raise TokenEnded
        return token

    async def _another(
        self, said: Settings, token: Token, refused: Refusal, response: aiohttp.ClientResponse
    ) -> Token | None:
        """A token, or the same with another proof, that may do better. None when there is none."""
        if refused.stale and self.carried is not None:
            raise TokenEnded(GateDenied(refused.sentence(), refused.request_id))
        if refused.stale:
            other = await asyncio.to_thread(renewed, said, token)
            return other if other.value != token.value else None
        if refused.code in refusal.UNPROVEN and token.key is not None:
            token.key.correct(response.headers.get("Date"))
            return token
        return None

    async def _refusal(
        self, request: aiohttp.ClientRequest, response: aiohttp.ClientResponse
    ) -> Refusal | None:
        if not refusal.is_refusal(response.status, response.headers):
            return None
        return refusal.read(
            request.method, str(request.url), response.status, response.headers, await response.read()
        )


def renewed(said: Settings, refused: Token) -> Token:
    """Another token in place of one that the gate refused. The same one where there is no other, as in a file."""
    tokens.forget(said, refused)
    return tokens.get(said)


def _rewound(request: requests.PreparedRequest) -> bool:
    """Whether a request can be sent again: a body that was streamed from somewhere may be used up."""
    if request.body is None or isinstance(request.body, str | bytes):
        return True
    try:
        rewind_body(request)
    except UnrewindableBodyError:
        return False
    return True


def _for_aiohttp(said: Settings) -> dict[str, Any]:
    """The connection's options for requests under the names that aiohttp has for them."""
    options = {name: value for name, value in said.options.items() if name not in ("cert", "stream")}
    if "verify" in options:
        options["verify_ssl"] = options.pop("verify")
    proxy = options.pop("proxies", options.pop("proxy", None))
    if isinstance(proxy, dict):
        scheme = said.gate.partition("://")[0]
        proxy = proxy.get(scheme) or proxy.get("all")
    return options | ({"proxy": proxy} if proxy else {})


def record(said: Settings, method: str, url: str, status: int, headers: Any, log: Any) -> None:
    """One log line for each answer that came through the gate."""
    if request_id := headers.get("Airgate-Request-Id"):
        decided = " by ".join(
            filter(None, (headers.get("Airgate-Decision", "refused"), headers.get("Airgate-Policy", "")))
        )
        path = url.removeprefix(said.gate).partition("?")[0]
        whose = f" of the {error}" if (error := headers.get("Airgate-Error")) in ("gate", "upstream") else ""
        log.info("Airgate: %s %s: %s%s, %s. Request id: %s", method, path, status, whose, decided, request_id)


def remember(context: dict[str, Any], request_id: str, page: str) -> None:
    """Leave the request id in XCom, and the page that the task's extra link opens."""
    try:
        compat.set_xcom(context, REQUEST_ID, request_id)
        if page:
            compat.set_xcom(context, REQUEST_URL, page.replace("{request_id}", quote(request_id, safe="")))
    except (
        Exception
    ) as error:  # the call is made: it must not be made again, nor a denial be hidden, for this
        log.warning("Request id %s could not be left in XCom: %s", request_id, type(error).__name__)


def _unreachable(said: Settings, *, made: bool) -> str:
    happened = (
        "broke the connection off; the call may have been made"
        if made
        else "cannot be reached; the call was not made"
    )
    return f"The gate at {said.gate} {happened}. Ask who runs the gate."


def settings_of(conn_id: str) -> Settings | None:
    """A connection's settings; None when it can't be read."""
    try:
        connection = AirgateHook.get_connection(conn_id)
        return settings.read(connection, connection.extra_dejson)
    except Exception:
        return None


def _no_credential(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """A callable, or requests would look for a password in ~/.netrc."""
    return request


def _tested(said: Settings, answer: requests.Response) -> tuple[bool, str]:
    request_id = answer.headers.get("Airgate-Request-Id")
    if not request_id:
        return (
            False,
            f"Something answers at {said.gate}, but it is no gate: there is no Airgate-Request-Id in its answer.",
        )
    refused = (
        refusal.read("GET", answer.url, answer.status_code, answer.headers, answer.content)
        if refusal.is_refusal(answer.status_code, answer.headers)
        else None
    )
    if said.identity == "attested":
        return (
            True,
            f"The gate at {said.gate} answers. With identity attested only a running task gets a token, so whether it "
            f"is taken there can't be tried from here. Request id: {request_id}",
        )
    if refused is None or (refused.code.startswith("policy.") and refused.status == 403):
        return (
            True,
            f"The gate at {said.gate} takes the token and knows the upstream {said.upstream}. Request id: {request_id}",
        )
    if refused.code == "route.unknown_upstream":
        return (
            False,
            f'The gate takes the token, but knows no upstream {said.upstream!r} (field "Upstream"). '
            f"Request id: {request_id}",
        )
    return False, refused.sentence()
