"""The gate's entry point on Cloudflare Workers: the only file that touches JavaScript.

It turns the runtime's objects into plain values, hands them to `gateway.handle`, and turns the result back. Every
crossing costs microseconds, so each thing is read once. At module level nothing of JavaScript is created: production
snapshots the interpreter after this import.
"""

import asyncio
import functools
import os
import time
from collections.abc import Coroutine
from typing import Any

from js import (
    AbortController,
    AbortSignal,
    Array,
    Object,
    Response,
    clearTimeout,
    console,
    crypto,
    setTimeout,
)
from js import fetch as js_fetch
from pyodide.ffi import JsException, create_proxy, to_js

import audit
import forward
import gateway
from keys import Key
from model import Denied, Inbound, Outbound, Reason, Refusal, Relay, UpstreamAnswer
from state import State

# WebCrypto's names for RFC 7518's algorithms: what importKey needs, and what verify needs.
_ALGORITHMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "RS256": ({"name": "RSASSA-PKCS1-v1_5", "hash": "SHA-256"}, {"name": "RSASSA-PKCS1-v1_5"}),
    "PS256": ({"name": "RSA-PSS", "hash": "SHA-256"}, {"name": "RSA-PSS", "saltLength": 32}),
    "ES256": ({"name": "ECDSA", "namedCurve": "P-256"}, {"name": "ECDSA", "hash": "SHA-256"}),
    "ES384": ({"name": "ECDSA", "namedCurve": "P-384"}, {"name": "ECDSA", "hash": "SHA-384"}),
    "ES512": ({"name": "ECDSA", "namedCurve": "P-521"}, {"name": "ECDSA", "hash": "SHA-512"}),
    "EdDSA": ({"name": "Ed25519"}, {"name": "Ed25519"}),
}

BODY = 5.0  # seconds that a body which the gate itself reads may take

_state = State()


def _plain(members: dict[str, Any]) -> Any:
    return to_js(members, dict_converter=Object.fromEntries)


class _Script:
    """JavaScript functions, each looked up once: a look-up is a crossing too."""

    def __init__(self) -> None:
        self.log = console.log
        self.check = crypto.subtle.verify
        self.verifying = {name: _plain(verifying) for name, (_, verifying) in _ALGORITHMS.items()}
        self.new_controller = AbortController.new
        self.new_response = Response.new
        self.array_from = getattr(Array, "from")
        self.from_entries = Object.fromEntries
        # abort() as a plain function of the controller, so that a timer can call it without a proxy of ours.
        method = AbortController.prototype.abort
        self.abort = method.call.bind(method)


@functools.cache
def _script() -> _Script:
    return _Script()


def _object(members: dict[str, Any]) -> Any:
    return to_js(members, dict_converter=_script().from_entries)


def _present(value: Any) -> bool:
    """Newer Pyodides have a value of its own for null, older ones None."""
    return value is not None and type(value).__name__ != "JsNull"


def _name(error: JsException) -> str:
    """The error's name, such as TypeError; JavaScript may throw anything, so it may have none."""
    return str(getattr(error, "name", "unnamed"))


async def _read(stream: Any, limit: int) -> bytes | None:
    """All of a stream; None when that is more than `limit` bytes."""
    reader = stream.getReader()
    text = b""
    while not (chunk := await reader.read()).done:
        text += chunk.value.to_bytes()
        if len(text) > limit:
            await reader.cancel()
            return None
    return text


_random = ""  # hex digits that no request has used yet


def _request_id() -> str:
    """128 random bits in hex, drawn for 64 requests at once: a draw is a crossing too."""
    global _random
    if not _random:
        _random = os.urandom(16 * 64).hex()
    request_id, _random = _random[:32], _random[32:]
    return request_id


class Runtime:
    """The pipeline's ports, for one request."""

    __slots__ = ("_body", "_ctx", "_env", "_request", "_script")

    def __init__(self, request: Any, env: Any, ctx: Any) -> None:
        self._request = request
        self._env = env
        self._ctx = ctx
        self._body: Any = None
        self._script = _script()

    def read(self, request_id: str) -> Inbound:
        request = self._request
        if _present(body := request.body):
            self._body = body
        # All names and values in one crossing. Neither can hold a line feed, and a name no comma (RFC 9110 §5).
        lines = self._script.array_from(request.headers).join("\n")
        headers = dict([line.split(",", 1) for line in lines.split("\n")]) if lines else {}
        return Inbound(request_id, time.time(), request.method, request.url, headers, self._body is not None)

    def now(self) -> float:
        return time.time()

    def log(self, line: str) -> None:
        self._script.log(line)

    def _promise(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Future[Any]":
        # The promise must own its proxy, or the runtime takes it away when the handler returns.
        task = asyncio.ensure_future(work)
        proxy = create_proxy(task)
        task.add_done_callback(lambda _: proxy.destroy())
        self._ctx.waitUntil(proxy)
        return task

    def defer(self, work: Coroutine[Any, Any, Any]) -> None:
        self._promise(work)

    async def last(self, work: Coroutine[Any, Any, bool]) -> bool:
        # A client that hangs up ends its handler, but not what the runtime was asked to wait for.
        return bool(await asyncio.shield(self._promise(work)))

    def country(self) -> str | None:
        # Of the edge's own making. The header of the same meaning is not always set there, so a client could.
        country = getattr(self._request.cf, "country", None) if _present(self._request.cf) else None
        return country if isinstance(country, str) else None

    async def allow(self, binding: str, key: str) -> bool:
        limiter: Any = getattr(self._env, binding, None)
        if not _present(limiter):
            raise LookupError(binding)
        return bool((await limiter.limit(_object({"key": key}))).success)

    async def body(self, limit: int) -> bytes:
        if self._body is None:
            return b""
        try:
            text = await asyncio.wait_for(_read(self._body, limit), BODY)
        except TimeoutError:
            raise Denied(Reason.REQUEST_BODY_INVALID, hint=f"send it within {BODY:.0f} s") from None
        if text is None:
            raise Denied(Reason.REQUEST_BODY_TOO_LARGE, hint=f"at most {limit} bytes")
        return text

    async def kv(self, key: str, timeout: float) -> str | None:
        try:
            value = await asyncio.wait_for(self._env.POLICY.get(key), timeout)
        except (JsException, AttributeError) as error:
            raise OSError(f"KV: {type(error).__name__}") from error
        return value if isinstance(value, str) else None

    async def fetch(self, url: str, timeout: float, limit: int) -> bytes:
        try:
            options = {"redirect": "manual", "signal": AbortSignal.timeout(int(timeout * 1000))}
            answer = await js_fetch(url, _object(options))
            if answer.status != 200:
                if _present(answer.body):
                    await answer.body.cancel()  # or it would hold its connection
                raise OSError(f"answered {answer.status}")
            if not _present(answer.body):
                raise OSError("answered nothing")
            text = await _read(answer.body, limit)
            if text is None:
                raise OSError(f"longer than {limit} bytes")
            return text
        except JsException as error:
            name = _name(error)
            timed_out = name in ("AbortError", "TimeoutError")
            raise (TimeoutError if timed_out else ConnectionError)(name) from error

    async def verify(self, key: Key, algorithm: str, signature: bytes, signed: bytes) -> bool:
        handle, script = key.handles.get(algorithm), _script()
        try:
            if handle is None:
                handle = await crypto.subtle.importKey(
                    "jwk", _object(key.jwk), _object(_ALGORITHMS[algorithm][0]), False, to_js(["verify"])
                )
                key.handles[algorithm] = handle
            how = script.verifying[algorithm]
            return bool(await script.check(how, handle, to_js(signature), to_js(signed)))
        except JsException as error:
            raise Denied(Reason.TOKEN_KEY, f"the runtime refused the key: {_name(error)}") from error

    async def send(self, call: Outbound) -> UpstreamAnswer:
        # The limit is on the answer's headers only: AbortSignal.timeout() would cut a long body off as well.
        controller = self._script.new_controller()
        timer = setTimeout(self._script.abort, int(call.timeout * 1000), controller)
        options = {
            "method": call.method,
            "headers": call.headers,
            "redirect": "manual",
            "signal": controller.signal,
        }
        if self._body is not None:
            options |= {"body": self._body, "duplex": "half"}
        try:
            native = await js_fetch(call.url, _object(options))
        except JsException as error:
            timed_out = _name(error) in ("AbortError", "TimeoutError")
            raise Denied(Reason.UPSTREAM_TIMEOUT if timed_out else Reason.UPSTREAM_UNREACHABLE) from error
        finally:
            clearTimeout(timer)
        # 101, or a status that HTTP does not have: the runtime cannot build such an answer.
        if not 200 <= native.status <= 599:
            raise Denied(Reason.UPSTREAM_UNREACHABLE, f"answered {native.status}")
        return UpstreamAnswer(native.status, native)


def _respond(result: Refusal | Relay) -> Any:
    if isinstance(result, Refusal):
        return Response.new(result.body, _object({"status": result.status, "headers": result.headers}))
    native = result.answer.native
    script = _script()
    response = script.new_response(native.body, native)  # the stream is handed on, never read here
    headers = response.headers
    if "airgate" in ",".join(headers.keys()):
        for name in list(headers.keys()):
            if forward.reserved(name):
                headers.delete(name)
    for name, value in result.headers.items():
        headers.set(name, value)
    return response


async def on_fetch(request: Any, env: Any, ctx: Any) -> Any:
    """Answer one request: one decision line before any effect, and never a stack trace."""
    request_id = _request_id()
    runtime = Runtime(request, env, ctx)
    try:
        inbound = runtime.read(request_id)
    except Exception as error:
        runtime.log(audit.crash_event(runtime.now(), request_id, type(error).__name__))
        return _respond(gateway.refusal(Reason.INTERNAL, request_id, {"airgate-request-id": request_id}))
    result = await gateway.handle(inbound, _state, runtime)
    try:
        return _respond(result)
    except Exception as error:
        # Everything is on record by now; the caller gets an answer with its request id all the same.
        runtime.log(audit.lost_event(runtime.now(), request_id, type(error).__name__))
        return _respond(gateway.refusal(Reason.INTERNAL, request_id, {"airgate-request-id": request_id}))
