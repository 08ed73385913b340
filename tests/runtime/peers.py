"""The issuer and the upstream that the Worker calls, in one small HTTP server."""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

PUBLIC = ("kty", "n", "e", "crv", "x", "y", "alg", "use", "kid")


class Peers:
    """Serves the discovery document, the JWKS, and below /ledger an upstream that remembers what reached it."""

    def __init__(self, keys: dict[str, Any]) -> None:
        self.reached: list[dict[str, Any]] = []
        self.fetched = 0  # how often the JWKS was
        self._jwks = [{name: key[name] for name in PUBLIC if name in key} for key in keys["keys"]]
        peers = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                peers.answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 - http.server's names

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
                """Nothing: tests look at `reached`."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> "Peers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        if path == "/.well-known/openid-configuration":
            self._json(request, {"issuer": self.origin, "jwks_uri": f"{self.origin}/jwks"})
        elif path == "/jwks":
            self.fetched += 1
            self._json(request, {"keys": self._jwks})
        else:
            self._upstream(request, path)

    def _upstream(self, request: BaseHTTPRequestHandler, path: str) -> None:
        body = _body(request)
        self.reached.append(
            {
                "method": request.command,
                "path": request.path,
                "headers": {name.lower(): value for name, value in request.headers.items()},
                "body": body,
                "at": time.time(),
            }
        )
        if path.endswith("/slow"):
            time.sleep(4)
        status = {"/ledger/v1/moved": 302, "/ledger/v1/empty": 204, "/ledger/v1/missing": 404}.get(path, 200)
        request.send_response(status)
        request.send_header("Content-Type", "application/octet-stream")
        request.send_header("Set-Cookie", "a=1")
        request.send_header("Set-Cookie", "b=2, still b")
        request.send_header("Airgate-Decision", "deny")
        request.send_header("Airgate_Policy", "spoofed")
        if status == 302:
            request.send_header("Location", f"{self.origin}/ledger/v1/elsewhere")
        if status != 204:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if status != 204 and request.command != "HEAD":
            request.wfile.write(body)

    def _json(self, request: BaseHTTPRequestHandler, value: Any) -> None:
        text = json.dumps(value).encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)


def _body(request: BaseHTTPRequestHandler) -> bytes:
    if (length := request.headers.get("Content-Length")) is not None:
        return request.rfile.read(int(length))
    if request.headers.get("Transfer-Encoding") != "chunked":
        return b""
    body = b""
    while size := int(request.rfile.readline(), 16):
        body += request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()
    return body
