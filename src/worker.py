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

import js
from js import (
    AbortController,
    AbortSignal,
    Array,
    Headers,
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
import gateway
import headers
import problem
import traceparent
from keys import Key
from model import Denied, Inbound, Outbound, Reason, Refusal, Relay, UpstreamAnswer
from signing import SigningKey
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
_secrets: dict[
    str, str
] = {}  # those that have been asked for; a new value is a new version of the Worker, and of this


def _plain(members: dict[str, Any]) -> Any:
    return to_js(members, dict_converter=Object.fromEntries)


def _function(method: Any) -> Any:
    """A method as a plain function, whose first argument is the object."""
    return method.call.bind(method)


class _Script:
    """JavaScript functions, each looked up once: a look-up is a crossing too."""

    def __init__(self) -> None:
        self.log = console.log
        self.check = crypto.subtle.verify
        self.sign = crypto.subtle.sign
        self.verifying = {name: _plain(verifying) for name, (_, verifying) in _ALGORITHMS.items()}
        self.new_controller = AbortController.new
        self.new_response = Response.new
        self.array_from = getattr(Array, "from")
        self.from_entries = Object.fromEntries
        # Methods as plain functions: one that is looked up on an object is a new proxy each time.
        self.join = _function(Array.prototype.join)
        self.keys = _function(Headers.prototype.keys)
        self.set_header = _function(Headers.prototype.set)
        # And a timer can call this one without a proxy of ours.
        self.abort = _function(AbortController.prototype.abort)


@functools.cache
def _script() -> _Script:
    return _Script()


def _object(members: dict[str, Any]) -> Any:
    return to_js(members, dict_converter=_script().from_entries)


def _present(value: Any) -> bool:
    """Newer Pyodides have a value of its own for null, older ones None."""
    return value is not None and type(value).__name__ != "JsNull"


def _value(headers: Any, name: str) -> str | None:
    """The value of a header; None when there is none."""
    value = headers.get(name)
    return value if isinstance(value, str) else None


def _name(error: JsException) -> str:
    """The error's name, such as TypeError; JavaScript may throw anything, so it may have none."""
    return str(getattr(error, "name", "unnamed"))


async def _read(stream: Any, limit: int) -> bytes | None:
    """All of a stream; None when that is more than `limit` bytes."""
    reader = stream.getReader()
    parts, size = [], 0
    while not (chunk := await reader.read()).done:
        parts.append(part := chunk.value.to_bytes())
        size += len(part)
        if size > limit:
            await reader.cancel()
            return None
    return b"".join(parts)


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

    __slots__ = ("_body", "_ctx", "_env", "_held", "_request", "_script")

    def __init__(self, request: Any, env: Any, ctx: Any) -> None:
        self._request = request
        self._env = env
        self._ctx = ctx
        self._body: Any = None
        self._held = False  # whether the body is here, to be sent as often as need be
        self._script = _script()

    def read(self, request_id: str) -> Inbound:
        request = self._request
        if _present(body := request.body):
            self._body = body
        # All names and values in one crossing. Neither can hold a line feed, and a name no comma (RFC 9110 §5).
        lines = self._script.join(self._script.array_from(request.headers), "\n")
        headers = dict([line.split(",", 1) for line in lines.split("\n")]) if lines else {}
        return Inbound(request_id, time.time(), request.method, request.url, headers, self._body is not None)

    def now(self) -> float:
        return time.time()

    def log(self, line: str) -> None:
        journal = _state.journal
        self._script.log(journal.take(line))
        if (wait := journal.due(time.time())) is not None:
            self.defer(_state.settle(wait, self))

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
        # The header of the same meaning is not always set there, so a client could.
        return self._edge("country")

    def location(self) -> str | None:
        return self._edge("colo")

    def _edge(self, name: str) -> str | None:
        """What the edge says of a request, which no client can set."""
        edge: Any = getattr(self._request, "cf", None)
        value = getattr(edge, name, None) if _present(edge) else None
        return value if isinstance(value, str) else None

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

    def secret(self, name: str) -> str:
        held = _secrets.get(name)
        if held is None:
            held = getattr(self._env, name, None)
            if not _present(held):
                raise LookupError(name)
            if not isinstance(held, str):  # a number or an object of wrangler.toml's
                raise ValueError(f"{name} is not a text")
            _secrets[name] = held
        return held

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def random(self) -> float:
        return int.from_bytes(os.urandom(4), "big") / 2**32

    async def kv(self, key: str, timeout: float) -> str | None:
        try:
            value = await asyncio.wait_for(self._env.POLICY.get(key), timeout)
        except (JsException, AttributeError) as error:
            raise OSError(f"KV: {type(error).__name__}") from error
        return value if isinstance(value, str) else None

    async def database(self, sql: str, values: tuple[int | str, ...], timeout: float) -> str | None:
        try:
            statement = self._env.STATE.prepare(sql).bind(*values)
            found = await asyncio.wait_for(statement.first("value"), timeout)
        except (JsException, AttributeError) as error:
            # Its message is of SQL and tables, never of a value.
            told = getattr(error, "message", None)
            raise OSError(f"D1: {told[:160] if isinstance(told, str) else 'no binding STATE'}") from error
        return found if isinstance(found, str) else None

    def stores(self) -> bool:
        return _present(getattr(self._env, "AUDIT", None))

    async def store(self, name: str, text: str, timeout: float) -> None:
        try:
            await asyncio.wait_for(self._env.AUDIT.put(name, text), timeout)
        except (JsException, AttributeError) as error:
            raise OSError(_name(error) if isinstance(error, JsException) else "AUDIT is no bucket") from error

    async def fetch(self, url: str, timeout: float, limit: int) -> bytes:
        try:
            signal = AbortSignal.timeout(int(timeout * 1000))
            options = {"redirect": "manual", "signal": signal, "cache": "no-store"}
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

    async def post(
        self, url: str, headers: dict[str, str], body: bytes, timeout: float, limit: int
    ) -> tuple[int, bytes]:
        status, text, _ = await self.tell(url, headers, body, timeout, limit)
        return status, text

    async def tell(
        self, url: str, headers: dict[str, str], body: bytes, timeout: float, limit: int
    ) -> tuple[int, bytes, str | None]:
        options = {
            "method": "POST",
            "headers": headers,
            "body": to_js(body),
            "redirect": "manual",
            "signal": AbortSignal.timeout(int(timeout * 1000)),
        }
        try:
            answer = await js_fetch(url, _object(options))
            text = await _read(answer.body, limit) if _present(answer.body) else b""
        except JsException as error:
            name = _name(error)
            timed_out = name in ("AbortError", "TimeoutError")
            raise (TimeoutError if timed_out else ConnectionError)(name) from error
        if text is None:
            raise OSError(f"longer than {limit} bytes")
        return answer.status, text, _value(answer.headers, "retry-after")

    async def sign(self, key: SigningKey, signed: bytes) -> bytes:
        name, script = key.algorithm, _script()
        handle = key.handles.get(name)
        try:
            if handle is None:
                handle = await crypto.subtle.importKey(
                    "jwk", _object(key.jwk), _object(_ALGORITHMS[name][0]), False, to_js(["sign"])
                )
                key.handles[name] = handle
            signature = await script.sign(script.verifying[name], handle, to_js(signed))
        except JsException as error:
            raise Denied(
                Reason.UPSTREAM_CREDENTIAL, f"the runtime refused the key: {_name(error)}"
            ) from error
        return bytes(signature.to_bytes())

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

    async def hold(self, limit: int, timeout: float) -> None:
        declared = _value(self._request.headers, "content-length")
        try:
            # Bytes of a known number never enter Python.
            if declared is not None and declared.isdigit() and len(declared) < 16 and int(declared) <= limit:
                work = self._script.new_response(self._body).arrayBuffer()
            else:
                work = _read(self._body, limit)
            body = await asyncio.wait_for(work, timeout)
        except TimeoutError:
            raise Denied(Reason.REQUEST_BODY_INVALID, hint=f"send it within {timeout:.0f} s") from None
        except JsException as error:
            raise Denied(Reason.REQUEST_BODY_INVALID, _name(error)) from error
        if body is None:
            raise Denied(Reason.REQUEST_BODY_TOO_LARGE, hint=f"at most {limit} bytes")
        self._body = to_js(body) if isinstance(body, bytes) else body
        self._held = True

    def held(self) -> bytes:
        return bytes(self._body.to_bytes()) if self._held else b""

    async def send(self, call: Outbound) -> UpstreamAnswer:
        # The first limit is on the answer's headers only: AbortSignal.timeout() would cut a long body off as well.
        script = self._script
        controller = script.new_controller()
        timer = setTimeout(script.abort, int(call.timeout * 1000), controller)
        options = {
            "method": call.method,
            "headers": call.headers,
            "redirect": "manual",
            "signal": controller.signal,
            # The edge's cache knows addresses, and not who calls, or as what.
            "cache": "no-store",
        }
        if self._body is not None:
            options["body"] = self._body
            if not self._held:
                options["duplex"] = "half"
        last = None
        if call.total_timeout is not None:
            # It ends with the request at the latest, so nobody has to take it back.
            last = setTimeout(script.abort, int(call.total_timeout * 1000), controller)
        try:
            native = await self._fetch(call.via)(call.url, _object(options))
        except JsException as error:
            timed_out = _name(error) in ("AbortError", "TimeoutError")
            raise Denied(Reason.UPSTREAM_TIMEOUT if timed_out else Reason.UPSTREAM_UNREACHABLE) from error
        finally:
            clearTimeout(timer)
        # 101, or a status that HTTP does not have: the runtime cannot build such an answer.
        status = native.status
        if not 200 <= status <= 599:
            raise Denied(Reason.UPSTREAM_UNREACHABLE, f"answered {status}")
        body = native.body
        if last is not None and _present(body):
            if (_value(native.headers, "content-type") or "").lower().startswith("text/event-stream"):
                clearTimeout(last)  # events may go on for ever
            else:
                body = _limited(native, controller.signal)
        return UpstreamAnswer(status, native, body)

    def _fetch(self, via: str | None) -> Any:
        if via is None:
            return js_fetch
        binding: Any = getattr(self._env, via, None)
        if not _present(binding):
            raise Denied(Reason.UPSTREAM_UNREACHABLE, f"no binding {via}")
        return binding.fetch

    def header(self, answer: UpstreamAnswer, name: str) -> str | None:
        return _value(answer.native.headers, name)

    async def discard(self, answer: UpstreamAnswer) -> None:
        if _present(body := answer.body):
            await body.cancel()  # or it would hold its connection


def _limited(native: Any, signal: Any) -> Any:
    """The body of an answer, cut off when the signal says so: one that is handed on as it is, nothing can stop."""
    told = native.headers
    length = _value(told, "content-length")
    if (
        length is not None
        and length.isdigit()
        and len(length) < 16
        and _value(told, "content-encoding") is None
    ):
        through = js.FixedLengthStream.new(int(length))  # keeps the length declared
    else:
        through = js.IdentityTransformStream.new()
    return native.body.pipeThrough(through, _object({"signal": signal}))


def _respond(result: Refusal | Relay) -> Any:
    if isinstance(result, Refusal):
        return Response.new(result.body, _object({"status": result.status, "headers": result.headers}))
    native = result.answer.native
    script = _script()
    response = script.new_response(result.answer.body, native)  # the stream is handed on, never read here
    told = response.headers
    for name in headers.concerning(script.join(script.array_from(script.keys(told)), ",")):
        values = native.headers.getSetCookie() if name == "set-cookie" else [told.get(name)]
        told.delete(name)
        for value in values:
            if (passed := result.passed(name, value)) is not None:
                told.append(name, passed)
    for name, value in result.headers.items():
        script.set_header(told, name, value)
    return response


async def on_fetch(request: Any, env: Any, ctx: Any) -> Any:
    """Answer one request: one decision line before any effect, and never a stack trace."""
    request_id = _request_id()
    runtime = Runtime(request, env, ctx)
    if _state.journal.chain is None:
        _state.begin(runtime)
    try:
        inbound = runtime.read(request_id)
    except Exception as error:
        runtime.log(audit.crash_event(runtime.now(), request_id, type(error).__name__))
        _state.telemetry.crashed()
        return _respond(problem.broken(request_id))
    result = await gateway.handle(inbound, _state, runtime)
    try:
        return _respond(result)
    except Exception as error:
        # Everything is on record by now; the caller gets an answer with its request id all the same.
        trace = traceparent.read(inbound.headers, request_id).trace_id
        runtime.log(audit.lost_event(runtime.now(), request_id, trace, type(error).__name__))
        return _respond(problem.broken(request_id))
