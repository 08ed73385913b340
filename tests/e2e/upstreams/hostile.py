"""An upstream that misbehaves on purpose, and remembers what reached it.

Each request says with `?play=NAME` what is to happen to it; `&n=…` and `&to=…` are for the play. It is known by its
`X-Call`: a test counts how often a call arrived.
"""

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

KB, MB = 1024, 1024 * 1024
PIECE = b"a" * MB


class Request(NamedTuple):
    """A request as it came, its body read where the play reads one."""

    call: str  # its X-Call
    number: int  # how many of the same call came until now, itself included
    method: str
    target: str
    headers: dict[str, str]
    options: dict[str, str]  # of the query
    body: bytes = b""

    @property
    def n(self) -> int:
        return int(self.options.get("n", "1"))


class Stream:
    """Its connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def send(self, data: bytes | str) -> None:
        self._writer.write(data.encode("latin-1") if isinstance(data, str) else data)
        await self._writer.drain()

    async def answer(
        self, status: int, body: bytes = b"", headers: str = "", phrase: str = "Said So"
    ) -> None:
        await self.send(
            f"HTTP/1.1 {status} {phrase}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body
        )

    def reset(self) -> None:
        """End the connection with RST, whatever is under way."""
        connection: socket.socket = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def close(self) -> None:
        self._writer.close()

    async def gone(self, seconds: float) -> bool:
        """Whether the other side ends the connection within so many seconds."""
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(seconds):
                return await self.reader.read(1) == b""
            return False
        return False


Play = Callable[["Hostile", Request, Stream], Awaitable[None]]
PLAYS: dict[str, Play] = {}


def play(function: Play) -> Play:
    PLAYS[function.__name__] = function
    return function


class Hostile:
    """The server, in a thread of its own."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.requests: list[Request] = []
        self.broken = False  # what `flap` does: resets connections while this is set
        self.waiting = 0  # calls of `hold` under way
        self.most_waiting = 0
        self.let_go = threading.Event()
        self.left: dict[str, str] = {}  # how a call's connection ended, where a play waited for that
        self.tokens = 0  # given out so far; only the last one is good
        self.asked: list[bytes] = []  # for tokens
        self._lock = threading.Lock()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._thread.start()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        self._loop.close()

    async def _run(self) -> None:
        server = await asyncio.start_server(self._serve, sock=self._listener, limit=MB)
        await self._over.wait()
        server.close()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0.1)  # connections that were closed are gone only then

    def arrivals(self, call: str) -> list[Request]:
        """What reached it of one call, in order."""
        with self._lock:
            return [request for request in self.requests if request.call == call]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = Stream(reader, writer)
        try:
            while (request := await self._read(reader)) is not None:
                name = "token" if request.target == "/token" else request.options.get("play", "ok")
                await PLAYS[name](self, request, stream)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Request | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.split("\r\n")[:-2]
        method, target, _ = first.split(" ")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            name = name.lower()
            headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
        options = {
            name: values[0]
            for name, values in parse_qs(
                urlsplit(target).query, keep_blank_values=True, encoding="latin-1"
            ).items()
        }
        call = headers.get("x-call", "")
        with self._lock:
            number = 1 + sum(request.call == call for request in self.requests)
            request = Request(call, number, method, target, headers, options)
            self.requests.append(request)
        return request

    async def body(self, request: Request, stream: Stream) -> bytes:
        """All of a small body. It is remembered with its request."""
        body = b""
        if request.headers.get("transfer-encoding") == "chunked":
            while size := int(await stream.reader.readline(), 16):
                body += await stream.reader.readexactly(size)
                await stream.reader.readline()
            await stream.reader.readline()
        else:
            body = await stream.reader.readexactly(int(request.headers.get("content-length", "0")))
        with self._lock:
            self.requests[self.requests.index(request)] = request._replace(body=body)
        return body


@play
async def ok(server: Hostile, request: Request, stream: Stream) -> None:
    body = await server.body(request, stream)
    seen: dict[str, Any] = {
        "method": request.method,
        "target": request.target,
        "headers": request.headers,
        "body": body.decode("latin-1"),
    }
    sent = json.dumps(seen).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
    await stream.send(head.encode() + (b"" if request.method == "HEAD" else sent))


@play
async def reset(server: Hostile, request: Request, stream: Stream) -> None:
    """Nothing is said: the connection is reset. Only the first n times that a call comes."""
    await server.body(request, stream)
    if request.number <= request.n:
        stream.reset()
    else:
        await stream.answer(200, b"" if request.method == "HEAD" else b"at last")


@play
async def close(server: Hostile, request: Request, stream: Stream) -> None:
    """Nothing is said: the connection ends."""
    stream.close()


@play
async def reset_within(server: Hostile, request: Request, stream: Stream) -> None:
    """Reset in the middle of the body."""
    await stream.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
    await asyncio.sleep(0.1)
    stream.reset()


@play
async def failing(server: Hostile, request: Request, stream: Stream) -> None:
    """The status `to`, the first n times that a call comes."""
    await server.body(request, stream)
    said = f"Retry-After: {request.options['after']}\r\n" if "after" in request.options else ""
    if request.number <= request.n:
        await stream.answer(int(request.options["to"]), b"not now", said)
    else:
        await stream.answer(200, b"at last")


@play
async def flap(server: Hostile, request: Request, stream: Stream) -> None:
    """Works, or resets, or says 503: as the test has it at the moment."""
    await server.body(request, stream)
    if server.broken:
        stream.reset() if request.number % 2 else await stream.answer(503, b"not now")
    else:
        await stream.answer(200, b"fine")


@play
async def raw(server: Hostile, request: Request, stream: Stream) -> None:
    """The bytes `to`, in Latin-1; then the connection ends."""
    await stream.send(request.options["to"])
    stream.close()


@play
async def stays(server: Hostile, request: Request, stream: Stream) -> None:
    """The bytes `to`, in Latin-1; the connection stays open."""
    await stream.send(request.options["to"])


@play
async def silent(server: Hostile, request: Request, stream: Stream) -> None:
    """Nothing is said, and the connection stays open."""
    server.left[request.call] = "gone" if await stream.gone(30) else "stayed"


@play
async def slow_head(server: Hostile, request: Request, stream: Stream) -> None:
    """Headers without end, one byte after the other."""
    await stream.send("HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(600):
        await stream.send("a")
        await asyncio.sleep(0.05)


@play
async def slow_body(server: Hostile, request: Request, stream: Stream) -> None:
    """n bytes, ten a second; its kind is `to`."""
    kind = request.options.get("to", "text/plain")
    await stream.send(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {request.n}\r\n\r\n")
    for _ in range(request.n):
        await stream.send("a")
        await asyncio.sleep(0.1)


@play
async def events(server: Hostile, request: Request, stream: Stream) -> None:
    """n server-sent events, five a second."""
    kind = "Content-Type: text/event-stream; charset=utf-8\r\n"
    await stream.send(f"HTTP/1.1 200 OK\r\n{kind}Transfer-Encoding: chunked\r\n\r\n")
    for number in range(request.n):
        event = f"id: {number}\ndata: {number}\n\n"
        await stream.send(f"{len(event):x}\r\n{event}\r\n")
        await asyncio.sleep(0.2)
    await stream.send("0\r\n\r\n")


@play
async def endless(server: Hostile, request: Request, stream: Stream) -> None:
    """A body without end, until the other side has had enough."""
    await stream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    try:
        while True:
            await stream.send(b"10000\r\n" + b"a" * 65536 + b"\r\n")
    finally:
        server.left[request.call] = "gone"


@play
async def huge_head(server: Hostile, request: Request, stream: Stream) -> None:
    """n KB of headers."""
    lines = "".join(f"X-Huge-{number}: {'a' * 10_000}\r\n" for number in range(request.n // 10 + 1))
    await stream.answer(200, b"after all", lines)


@play
async def source(server: Hostile, request: Request, stream: Stream) -> None:
    """n MB."""
    await stream.send(f"HTTP/1.1 200 OK\r\nContent-Length: {request.n * MB}\r\n\r\n")
    for _ in range(request.n):
        await stream.send(PIECE)


@play
async def sink(server: Hostile, request: Request, stream: Stream) -> None:
    """Reads a body of any length, and says how long it was."""
    left = length = int(request.headers["content-length"])
    while left:
        left -= len(await stream.reader.read(min(left, MB))) or left
    await stream.answer(200, str(length).encode())


@play
async def early(server: Hostile, request: Request, stream: Stream) -> None:
    """An answer before the body is here; then the connection ends."""
    await stream.answer(413, b"too much", "Connection: close\r\n")
    await asyncio.sleep(0.2)
    stream.close()


@play
async def one_each(server: Hostile, request: Request, stream: Stream) -> None:
    """A good answer that promises to keep the connection, and ends it."""
    await stream.answer(200, b"fine", "Connection: keep-alive\r\nKeep-Alive: timeout=60\r\n")
    stream.close()


@play
async def redirect(server: Hostile, request: Request, stream: Stream) -> None:
    """The status `status`, which points `to`."""
    to = request.options["to"]
    status = int(request.options.get("status", "302"))
    await stream.answer(status, b"", f"Location: {to}\r\nContent-Location: {to}\r\n")


@play
async def headed(server: Hostile, request: Request, stream: Stream) -> None:
    """The status `status`, with the header lines `to`."""
    status = int(request.options.get("status", "200"))
    await stream.answer(status, b"" if status in (204, 304) else b"said", request.options["to"] + "\r\n")


@play
async def hold(server: Hostile, request: Request, stream: Stream) -> None:
    """Waits until the test lets it go."""
    server.waiting += 1
    server.most_waiting = max(server.most_waiting, server.waiting)
    while not server.let_go.is_set():
        await asyncio.sleep(0.01)
    server.waiting -= 1
    await stream.answer(200, b"fine")


@play
async def token(server: Hostile, request: Request, stream: Stream) -> None:
    """A token endpoint: each token that it gives replaces the one before."""
    server.asked.append(await server.body(request, stream))
    server.tokens += 1
    given = {"access_token": f"token-{server.tokens}", "token_type": "Bearer", "expires_in": 3600}
    await stream.answer(200, json.dumps(given).encode(), "Content-Type: application/json\r\n")


@play
async def private(server: Hostile, request: Request, stream: Stream) -> None:
    """401 for everybody without the last token; with n=0 for everybody."""
    await server.body(request, stream)
    good = request.headers.get("authorization") == f"Bearer token-{server.tokens}" and request.n
    await stream.answer(200 if good else 401, b"yours" if good else b"who are you?")
