"""The gate's entry point on Cloudflare Workers: with javascript.py, all that touches JavaScript.

It turns the runtime's objects into plain values, hands them to `gateway.handle`, and turns the result back. Every
crossing costs microseconds, so each thing is read once. At module level nothing of JavaScript is created: production
snapshots the interpreter after this import.
"""

import os
import time
from collections.abc import Coroutine
from typing import Any, NamedTuple

from js import AbortSignal, Response
from pyodide.ffi import JsException, to_js

import audit
import gateway
import headers
import problem
import promise
import traceparent
from javascript import ALGORITHMS, javascript, present
from keys import Key
from model import Denied, Inbound, Outbound, Reason, Refusal, Relay, UpstreamAnswer
from promise import begin, begin_applied, called, settled, within
from signing import SigningKey
from state import State

# At every request the runtime asks this module whether it is a promise: an answer is quicker than an AttributeError.
then = None

BODY = 5.0  # seconds that a body which the gate itself reads may take
MOST_CHUNKS = 16_384  # each takes some memory while a stream is read

_state = State()
_secrets: dict[
    str, str
] = {}  # those that have been asked for; a new value is a new version of the Worker, and of this


def _value(headers: Any, name: str) -> str | None:
    """The value of a header; None when there is none."""
    value = javascript().get_header(headers, name)
    return value if isinstance(value, str) else None


def _name(error: JsException) -> str:
    """The error's name, such as TypeError; JavaScript may throw anything, so it may have none."""
    return str(getattr(error, "name", "unnamed"))


async def _read(stream: Any, limit: int, seconds: float | None = None) -> bytes | None:
    """All of a stream; None when that is more than `limit` bytes, or comes in more than MOST_CHUNKS.

    Raises TimeoutError after `seconds`, if given.
    """
    reader = stream.getReader()
    time_limit = promise.Limit(seconds) if seconds is not None else None
    wait = settled if time_limit is None else time_limit.settled
    parts, size = [], 0
    try:
        while not (chunk := await wait(begin(reader.read, reader))).done:
            parts.append(part := chunk.value.to_bytes())
            size += len(part)
            if size > limit or len(parts) > MOST_CHUNKS:
                await called(reader.cancel, reader)
                return None
    finally:
        if time_limit is not None:
            time_limit.end()
    return b"".join(parts)


_random = ""  # hex digits that no request has used yet


def _request_id() -> str:
    """128 random bits in hex, drawn for 64 requests at once: a draw is a crossing too."""
    global _random
    if not _random:
        _random = os.urandom(16 * 64).hex()
    request_id, _random = _random[:32], _random[32:]
    return request_id


class _Answer(NamedTuple):
    """An upstream's answer, as the runtime has it."""

    native: Any
    headers: Any
    names: str  # of its headers, in lower case, with commas between


class Runtime:
    """The pipeline's ports, for one request."""

    __slots__ = ("_body", "_ctx", "_env", "_held", "_js", "_request")

    def __init__(self, request: Any, env: Any, ctx: Any) -> None:
        self._request = request
        self._env = env
        self._ctx = ctx
        self._body: Any = None
        self._held = False  # whether the body is here, to be sent as often as need be
        self._js = javascript()

    def read(self, request_id: str) -> Inbound:
        request, js = self._request, self._js
        if present(body := js.request_body(request)):
            self._body = body
        # All names and values in one crossing. Neither can hold a line feed, and a name no comma (RFC 9110 §5).
        lines = js.join(js.array_from(js.request_headers(request)), "\n")
        headers = dict([line.split(",", 1) for line in lines.split("\n")]) if lines else {}
        method, url = js.method(request), js.url(request)
        return Inbound(request_id, time.time(), method, url, headers, self._body is not None)

    def now(self) -> float:
        return time.time()

    def log(self, line: str) -> None:
        journal = _state.journal
        self._js.log(journal.take(line))
        if (wait := journal.due(time.time())) is not None:
            self.defer(_state.settle(wait, self))

    def defer(self, work: Coroutine[Any, Any, Any]) -> None:
        self._ctx.waitUntil(promise.promised(promise.later(work)))

    async def last(self, work: Coroutine[Any, Any, bool]) -> bool:
        # A client that hangs up ends its handler, but not what the runtime was asked to wait for.
        raised: list[Exception] = []

        async def kept() -> bool:
            try:
                return await work
            except Exception as error:
                raised.append(error)
                raise

        self._ctx.waitUntil(result := promise.promised(kept()))
        try:
            return bool(await settled(result))
        except OSError:  # a promise holds no exception of Python's
            raise raised[0] if raised else OSError("the work is lost") from None

    def country(self) -> str | None:
        # The header of the same meaning is not always set there, so a client could.
        return self._edge("country")

    def location(self) -> str | None:
        return self._edge("colo")

    def _edge(self, name: str) -> str | None:
        """What the edge says of a request, which no client can set."""
        edge: Any = getattr(self._request, "cf", None)
        value = getattr(edge, name, None) if present(edge) else None
        return value if isinstance(value, str) else None

    async def allow(self, binding: str, key: str) -> bool:
        limiter: Any = getattr(self._env, binding, None)
        if not present(limiter):
            raise LookupError(binding)
        return bool((await called(limiter.limit, limiter, {"key": key})).success)

    async def body(self, limit: int) -> bytes:
        if self._body is None:
            return b""
        try:
            text = await _read(self._body, limit, BODY)
        except TimeoutError:
            raise Denied(Reason.REQUEST_BODY_INVALID, hint=f"send it within {BODY:.0f} s") from None
        if text is None:
            raise Denied(Reason.REQUEST_BODY_TOO_LARGE, hint=f"at most {limit} bytes")
        return text

    def secret(self, name: str) -> str:
        held = _secrets.get(name)
        if held is None:
            held = getattr(self._env, name, None)
            if not present(held):
                raise LookupError(name)
            if not isinstance(held, str):  # a number or an object of wrangler.toml's
                raise ValueError(f"{name} is not a text")
            _secrets[name] = held
        return held

    async def sleep(self, seconds: float) -> None:
        await promise.sleep(seconds)

    def random(self) -> float:
        return int.from_bytes(os.urandom(4), "big") / 2**32

    async def kv(self, key: str, timeout: float) -> str | None:
        try:
            namespace = self._env.POLICY
            value = await within(timeout, begin(namespace.get, namespace, key))
        except (JsException, AttributeError) as error:
            raise OSError(f"KV: {type(error).__name__}") from error
        return value if isinstance(value, str) else None

    async def database(self, sql: str, values: tuple[int | str, ...], timeout: float) -> str | None:
        try:
            statement = self._env.STATE.prepare(sql).bind(*values)
            found = await within(timeout, begin(statement.first, statement, "value"))
        except (JsException, AttributeError) as error:
            # Its message is of SQL and tables, never of a value.
            told = getattr(error, "message", None)
            raise OSError(f"D1: {told[:160] if isinstance(told, str) else 'no binding STATE'}") from error
        return found if isinstance(found, str) else None

    def stores(self) -> bool:
        return present(getattr(self._env, "AUDIT", None))

    async def store(self, name: str, text: str, timeout: float) -> None:
        try:
            bucket = self._env.AUDIT
            await within(timeout, begin(bucket.put, bucket, name, text))
        except (JsException, AttributeError) as error:
            raise OSError(_name(error) if isinstance(error, JsException) else "AUDIT is no bucket") from error

    async def fetch(self, url: str, timeout: float, limit: int) -> bytes:
        try:
            signal = AbortSignal.timeout(int(timeout * 1000))
            options = {"redirect": "manual", "signal": signal, "cache": "no-store"}
            answer = await settled(begin_applied(javascript().fetch, url, options))
            if answer.status != 200:
                if present(answer.body):
                    await called(answer.body.cancel, answer.body)  # or it would hold its connection
                raise OSError(f"answered {answer.status}")
            if not present(answer.body):
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
            "body": body,
            "redirect": "manual",
            "signal": AbortSignal.timeout(int(timeout * 1000)),
        }
        try:
            answer = await settled(begin_applied(javascript().fetch, url, options))
            text = await _read(answer.body, limit) if present(answer.body) else b""
        except JsException as error:
            name = _name(error)
            timed_out = name in ("AbortError", "TimeoutError")
            raise (TimeoutError if timed_out else ConnectionError)(name) from error
        if text is None:
            raise OSError(f"longer than {limit} bytes")
        return answer.status, text, _value(answer.headers, "retry-after")

    async def sign(self, key: SigningKey, signed: bytes) -> bytes:
        name, js = key.algorithm, javascript()
        handle = key.handles.get(name)
        try:
            if handle is None:
                handle = await _imported(key.jwk, name, "sign")
                key.handles[name] = handle
            how = js.verifying[name]
            signature = await settled(begin_applied(js.sign, how, handle, signed))
        except JsException as error:
            raise Denied(
                Reason.UPSTREAM_CREDENTIAL, f"the runtime refused the key: {_name(error)}"
            ) from error
        return bytes(signature.to_bytes())

    async def verify(self, key: Key, algorithm: str, signature: bytes, signed: bytes) -> bool:
        handle, js = key.handles.get(algorithm), javascript()
        try:
            if handle is None:
                handle = await _imported(key.jwk, algorithm, "verify")
                key.handles[algorithm] = handle
            how = js.verifying[algorithm]
            right = await settled(begin_applied(js.verify, how, handle, signature, signed))
            return bool(right)
        except JsException as error:
            raise Denied(Reason.TOKEN_KEY, f"the runtime refused the key: {_name(error)}") from error

    async def hold(self, limit: int, timeout: float) -> None:
        declared = _value(self._request.headers, "content-length")
        try:
            # Bytes of a known number never enter Python.
            if declared is not None and declared.isdigit() and len(declared) < 16 and int(declared) <= limit:
                whole = self._js.new_response(self._body)
                body = await within(timeout, begin(whole.arrayBuffer, whole))
            else:
                body = await _read(self._body, limit, timeout)
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
        js = self._js
        controller = js.new_controller()
        timer = js.set_timeout(js.abort, int(call.timeout * 1000), controller)
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
            last = js.set_timeout(js.abort, int(call.total_timeout * 1000), controller)
        try:
            fetch = js.fetch if call.via is None else self._bound(call.via)
            native = await settled(begin_applied(fetch, call.url, options))
        except JsException as error:
            timed_out = _name(error) in ("AbortError", "TimeoutError")
            raise Denied(Reason.UPSTREAM_TIMEOUT if timed_out else Reason.UPSTREAM_UNREACHABLE) from error
        finally:
            js.clear_timeout(timer)
        # 101, or a status that HTTP does not have: the runtime cannot build such an answer.
        status = js.status(native)
        if not 200 <= status <= 599:
            raise Denied(Reason.UPSTREAM_UNREACHABLE, f"answered {status}")
        body, told = js.body(native), js.headers(native)
        if last is not None and present(body):
            if (_value(told, "content-type") or "").lower().startswith("text/event-stream"):
                js.clear_timeout(last)  # events may go on for ever
            else:
                body = _limited(body, told, controller.signal)
        names = js.join(js.array_from(js.keys(told)), ",")
        return UpstreamAnswer(status, _Answer(native, told, names), body)

    def _bound(self, via: str) -> Any:
        """The `fetch` of a service binding. Raises Denied."""
        binding: Any = getattr(self._env, via, None)
        if not present(binding):
            raise Denied(Reason.UPSTREAM_UNREACHABLE, f"no binding {via}")
        return javascript().applied(binding.fetch, binding)

    def header(self, answer: UpstreamAnswer, name: str) -> str | None:
        told: _Answer = answer.native
        return _value(told.headers, name) if name in told.names.split(",") else None

    async def discard(self, answer: UpstreamAnswer) -> None:
        if present(body := answer.body):
            await called(body.cancel, body)  # or it would hold its connection


async def _imported(jwk: dict[str, str], algorithm: str, use: str) -> Any:
    """The runtime's own form of a key."""
    subtle, how = javascript().subtle, ALGORITHMS[algorithm][0]
    return await called(subtle.importKey, subtle, "jwk", jwk, how, False, [use])


def _limited(body: Any, told: Any, signal: Any) -> Any:
    """The body of an answer, cut off when the signal says so: one that is handed on as it is, nothing can stop.

    `told`: the answer's headers.
    """
    length = _value(told, "content-length")
    if (
        length is not None
        and length.isdigit()
        and len(length) < 16
        and _value(told, "content-encoding") is None
    ):
        through = javascript().fixed_length(int(length))  # keeps the length declared
    else:
        through = javascript().identity()
    return body.pipeThrough(through, javascript().plain({"signal": signal}))


def _respond(result: Refusal | Relay) -> Any:
    if isinstance(result, Refusal):
        return Response.new(
            result.body, javascript().plain({"status": result.status, "headers": result.headers})
        )
    answer: _Answer = result.answer.native
    js = javascript()
    response = js.new_response(result.answer.body, answer.native)  # the stream is handed on, never read here
    told = js.headers(response)
    for name in headers.concerning(answer.names):
        values = answer.headers.getSetCookie() if name == "set-cookie" else [told.get(name)]
        told.delete(name)
        for value in values:
            if (passed := result.passed(name, value)) is not None:
                told.append(name, passed)
    for name, value in result.headers.items():
        js.set_header(told, name, value)
    return response


def on_fetch(request: Any, env: Any, ctx: Any) -> Any:
    """Answer one request: with a Response, or a promise of one."""
    return promise.run(_answer(request, env, ctx))


async def _answer(request: Any, env: Any, ctx: Any) -> Any:
    """One decision line before any effect, and never a stack trace."""
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
