"""A stand-in for Cloudflare's API on this machine: what the real wrangler asks of it while it deploys and publishes.

    with Cloudflare() as cloudflare:
        subprocess.run([...wrangler, "deploy"], env={**os.environ, **cloudflare.variables()})

State is real: KV namespaces hold bytes, a D1 database is SQLite, a Worker keeps every upload with its modules and
metadata. As at Cloudflare, an upload that binds what doesn't exist is refused. The gate's address serves /-/health
with the variable VERSION of the newest upload; nothing else of a Worker runs.

Faults are planned with `fail`: the nth request that fits is answered with a status, or has its effect and no answer.
Whatever is asked and isn't known here is answered 404, and kept in `unknown`.
"""

import json
import re
import secrets
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

ACCOUNT = "0123456789abcdef0123456789abcdef"
LONGEST_KEY = 512  # bytes: developers.cloudflare.com/kv/platform/limits
LONGEST_VALUE = 25 * 1024 * 1024
LONGEST_STATEMENT = 100_000  # bytes: developers.cloudflare.com/d1/platform/limits
MOST_AT_ONCE = 10_000  # pairs in a bulk write
PAGE = 1000  # names in a list
LONGEST_HOLD = 170.0  # seconds
PASSES = 200  # the status of a fault that only holds a request up


class Refused(Exception):
    """An answer other than success: its status, and Cloudflare's code and message."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass
class Asked:
    """A request, and how it was answered: 0 when the connection was closed instead."""

    method: str
    path: str
    status: int

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.status}"


class Effect(Enum):
    """What a request does before it fails."""

    NONE = 0
    HALF = 1  # of a bulk write: half of its pairs are written
    ALL = 2


@dataclass
class Fault:
    """What happens to requests that fit, after `skip` of them, `times` times."""

    method: str
    path: re.Pattern[str]
    body: bytes  # only requests that hold this
    skip: int
    times: int
    status: int  # 0: the connection is closed without an answer; PASSES: nothing goes wrong
    effect: Effect
    held: bool  # nothing comes of the request before `released` is set
    happened: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def hold(self) -> None:
        """Wait until the test lets the request go on, if it's one that waits."""
        self.reached.set()
        if self.held:
            self.released.wait(LONGEST_HOLD)


@dataclass
class Namespace:
    """A KV namespace."""

    title: str
    values: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Database:
    """A D1 database."""

    name: str
    created_at: str
    connection: sqlite3.Connection
    statements: list[str] = field(default_factory=list)


@dataclass
class Upload:
    """One version of a Worker. An upload deploys it at once, or another request does, or nothing ever."""

    metadata: dict[str, Any]
    modules: dict[str, bytes]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    deployed_at: float | None = None

    def variable(self, name: str) -> str | None:
        """The text of a plain variable."""
        for each in self.metadata["bindings"]:
            if each["name"] == name and each["type"] == "plain_text":
                return str(each["text"])
        return None


@dataclass
class Worker:
    """A Worker, its versions, oldest first, and its secrets."""

    uploads: list[Upload] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    subdomain: bool = False
    tags: list[str] = field(default_factory=list)

    @property
    def deployed(self) -> list[Upload]:
        """The versions that were ever deployed; the last one serves."""
        return [each for each in self.uploads if each.deployed_at is not None]


class Cloudflare:
    """The account. `slow`: seconds until the gate's address shows a new version."""

    def __init__(self, *, slow: float = 0) -> None:
        self.token = "test-" + secrets.token_urlsafe(24)
        self.slow = slow
        self.away = False  # the gates' addresses answer 502
        self.namespaces: dict[str, Namespace] = {}
        self.databases: dict[str, Database] = {}
        self.workers: dict[str, Worker] = {}
        self.asked: list[Asked] = []
        self.unknown: list[str] = []
        self._faults: list[Fault] = []
        self._lock = threading.RLock()
        handler = type("Handler", (_Handler,), {"cloudflare": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> "Cloudflare":
        self._thread.start()
        return self

    def mend(self) -> None:
        """Forget all faults."""
        for fault in self._faults:
            fault.released.set()
        self._faults.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.mend()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for database in self.databases.values():
            database.connection.close()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def gate(self, worker: str) -> str:
        """The address of a Worker's gate."""
        return f"{self.address}/gates/{worker}"

    def variables(self) -> dict[str, str]:
        """The environment variables that lead wrangler here."""
        return {
            "CLOUDFLARE_API_BASE_URL": f"{self.address}/client/v4",
            "CLOUDFLARE_API_TOKEN": self.token,
            "CLOUDFLARE_ACCOUNT_ID": ACCOUNT,
        }

    def fail(
        self,
        method: str,
        path: str,
        *,
        body: str = "",
        status: int = 500,
        skip: int = 0,
        times: int = 1,
        effect: Effect = Effect.NONE,
        held: bool = False,
    ) -> Fault:
        """Plan a fault: requests whose path `path`, an expression, is found in. Wrangler asks KV three times."""
        fault = Fault(method, re.compile(path), body.encode(), skip, times, status, effect, held)
        self._faults.append(fault)
        return fault

    def namespace(self, title: str) -> Namespace:
        """The namespace of that title."""
        return next(each for each in self.namespaces.values() if each.title == title)

    def database(self, name: str) -> Database:
        """The database of that name."""
        return next(each for each in self.databases.values() if each.name == name)

    def rows(self, name: str, statement: str) -> list[tuple[Any, ...]]:
        """What a statement finds in a database."""
        with self._lock:
            return self.database(name).connection.execute(statement).fetchall()

    # Requests

    def fault(self, method: str, path: str, body: bytes) -> Fault | None:
        """The fault that this request meets."""
        with self._lock:
            for each in self._faults:
                if method == each.method and each.path.search(path) and each.body in body:
                    each.happened += 1
                    if each.skip < each.happened <= each.skip + each.times:
                        return each
            return None

    def answer(self, method: str, path: str, query: Mapping[str, str], body: bytes, headers: Message) -> Any:
        """The result of a request below /accounts/ID, or bytes for a raw value. Raises Refused."""
        with self._lock:
            for verb, pattern, act in _ROUTES:
                match = pattern.fullmatch(path)
                if verb == method and match:
                    parts = [unquote(part) for part in match.groups()]
                    return act(self, *parts, query=query, body=body, headers=headers)
        self.unknown.append(f"{method} {path}")
        raise Refused(404, 7000, "No route for that URI")

    def health(self, name: str) -> dict[str, Any]:
        """What the gate's health page says. Raises Refused while there is no Worker."""
        with self._lock:
            worker = self.workers.get(name)
            seen = time.monotonic() - self.slow
            shown = [each for each in worker.deployed if (each.deployed_at or 0) <= seen] if worker else []
            if self.away or not shown:
                raise Refused(502 if self.away else 404, 1042, "error code: 1042")
            return {"status": "ok", "version": shown[-1].variable("VERSION")}


class _Handler(BaseHTTPRequestHandler):
    cloudflare: Cloudflare
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        url = urlsplit(self.path)
        body = self._body()
        asked = Asked(self.command, self.path, 0)
        self.cloudflare.asked.append(asked)
        fault = self.cloudflare.fault(self.command, self.path, body)
        result: Any = _failure(10013, "An unknown error has occurred. (planned)")
        if fault is not None and fault.status == PASSES:
            fault.hold()
            fault = None
        if fault is None or fault.effect is not Effect.NONE:
            wanted = body if fault is None or fault.effect is Effect.ALL else _half(body)
            asked.status, outcome = self._result(url.path, dict(parse_qsl(url.query)), wanted)
            result = outcome if fault is None else result
        if fault is not None:
            asked.status = fault.status
            fault.hold()
        if not asked.status:
            self.close_connection = True
            return
        kind = "application/octet-stream" if isinstance(result, bytes) else "application/json"
        content = result if isinstance(result, bytes) else json.dumps(result).encode()
        with suppress(ConnectionError):  # whoever has asked may have been ended meanwhile
            self.send_response(asked.status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = _serve  # noqa: N815

    def _result(self, path: str, query: Mapping[str, str], body: bytes) -> tuple[int, Any]:
        try:
            if path.startswith("/gates/"):
                name, _, rest = path.removeprefix("/gates/").partition("/")
                if rest != "-/health":
                    raise Refused(404, 1042, "error code: 1042")
                return 200, self.cloudflare.health(name)
            if self.headers.get("Authorization") != f"Bearer {self.cloudflare.token}":
                raise Refused(403, 10000, "Authentication error")
            result = self.cloudflare.answer(
                self.command, path.removeprefix("/client/v4"), query, body, self.headers
            )
        except Refused as refusal:
            return refusal.status, _failure(refusal.code, str(refusal))
        if isinstance(result, bytes):
            return 200, result
        more = {}
        if isinstance(result, _Page):
            more = {"result_info": result.info}
            result = result.items
        return 200, {"success": True, "errors": [], "messages": [], "result": result, **more}

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, *arguments: object) -> None:
        """Requests are kept in `asked`."""


def _half(body: bytes) -> bytes:
    """The first half of a bulk write."""
    pairs = json.loads(body)
    return json.dumps(pairs[: len(pairs) // 2]).encode()


def _failure(code: int, message: str) -> dict[str, Any]:
    return {"success": False, "errors": [{"code": code, "message": message}], "messages": [], "result": None}


@dataclass
class _Page:
    items: list[Any]
    info: dict[str, Any]


def _page(items: list[Any], query: Mapping[str, str]) -> _Page:
    """One page of a list, as `page` and `per_page` ask."""
    page, size = int(query.get("page", 1)), int(query.get("per_page", 20))
    shown = items[(page - 1) * size : page * size]
    return _Page(shown, {"page": page, "per_page": size, "count": len(shown), "total_count": len(items)})


_ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Any]]] = []


def _route(method: str, path: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A request's handler. `path` is below the account, unless it begins with //; {} is one segment."""
    full = path[1:] if path.startswith("//") else f"/accounts/{ACCOUNT}{path}"
    pattern = re.compile(re.escape(full).replace(r"\{\}", "([^/]+)"))

    def register(act: Callable[..., Any]) -> Callable[..., Any]:
        _ROUTES.append((method, pattern, act))
        return act

    return register


def _parts(headers: Message, body: bytes) -> dict[str, tuple[str, bytes]]:
    """The parts of a multipart form: file name, or "", and contents, by name."""
    boundary = headers.get_param("boundary")
    parts = {}
    for piece in body.split(f"--{boundary}".encode())[1:-1]:
        head, _, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        disposition = next(
            line for line in head.decode().split("\r\n") if line.lower().startswith("content-disp")
        )
        said = dict(re.findall(r'(\w+)="([^"]*)"', disposition))
        parts[said["name"]] = (said.get("filename", ""), content.removesuffix(b"\r\n"))
    return parts


def _now() -> str:
    return datetime.now(UTC).isoformat()


# The account


@_route("GET", "//user")
def _user(cloudflare: Cloudflare, **_: Any) -> Any:
    raise Refused(403, 9109, "Unauthorized to access requested resource")  # as an API token is told


@_route("GET", "//user/tokens/verify")
def _verify(cloudflare: Cloudflare, **_: Any) -> Any:
    return {"id": "f" * 32, "status": "active"}


@_route("GET", "//accounts")
def _accounts(cloudflare: Cloudflare, query: Mapping[str, str], **_: Any) -> Any:
    return _page([{"id": ACCOUNT, "name": "Example account"}], query)


@_route("GET", "//memberships")
def _memberships(cloudflare: Cloudflare, query: Mapping[str, str], **_: Any) -> Any:
    return _page([{"id": "m", "account": {"id": ACCOUNT, "name": "Example account"}}], query)


@_route("POST", "//graphql")
def _statistics(cloudflare: Cloudflare, **_: Any) -> Any:
    raise Refused(403, 10000, "Authentication error")  # a token that may not read analytics


# KV


def _namespace(cloudflare: Cloudflare, which: str) -> Namespace:
    if which not in cloudflare.namespaces:
        raise Refused(404, 10013, "get namespace: 'namespace not found'")
    return cloudflare.namespaces[which]


def _check_pair(key: str, value: bytes) -> None:
    if not 0 < len(key.encode()) <= LONGEST_KEY or len(value) > LONGEST_VALUE:
        raise Refused(414 if len(value) <= LONGEST_VALUE else 413, 10147, "key or value too long")


@_route("GET", "/storage/kv/namespaces")
def _list_namespaces(cloudflare: Cloudflare, query: Mapping[str, str], **_: Any) -> Any:
    return _page([{"id": which, "title": each.title} for which, each in cloudflare.namespaces.items()], query)


@_route("POST", "/storage/kv/namespaces")
def _create_namespace(cloudflare: Cloudflare, body: bytes, **_: Any) -> Any:
    title = json.loads(body)["title"]
    if any(each.title == title for each in cloudflare.namespaces.values()):
        raise Refused(
            400, 10014, "create namespace: 'a namespace with this account ID and title already exists'"
        )
    which = secrets.token_hex(16)
    cloudflare.namespaces[which] = Namespace(title)
    return {"id": which, "title": title, "supports_url_encoding": True}


@_route("GET", "/storage/kv/namespaces/{}")
def _get_namespace(cloudflare: Cloudflare, which: str, **_: Any) -> Any:
    return {"id": which, "title": _namespace(cloudflare, which).title, "supports_url_encoding": True}


@_route("GET", "/storage/kv/namespaces/{}/values/{}")
def _get_value(cloudflare: Cloudflare, which: str, key: str, **_: Any) -> Any:
    values = _namespace(cloudflare, which).values
    if key not in values:
        raise Refused(404, 10009, "get: 'key not found'")
    return values[key]


@_route("PUT", "/storage/kv/namespaces/{}/values/{}")
def _put_value(cloudflare: Cloudflare, which: str, key: str, body: bytes, headers: Message, **_: Any) -> Any:
    if headers.get_content_type() == "multipart/form-data":
        body = _parts(headers, body)["value"][1]
    _check_pair(key, body)
    _namespace(cloudflare, which).values[key] = body
    return {}


@_route("DELETE", "/storage/kv/namespaces/{}/values/{}")
def _delete_value(cloudflare: Cloudflare, which: str, key: str, **_: Any) -> Any:
    _namespace(cloudflare, which).values.pop(key, None)
    return {}


@_route("GET", "/storage/kv/namespaces/{}/keys")
def _keys(cloudflare: Cloudflare, which: str, query: Mapping[str, str], **_: Any) -> Any:
    names = sorted(
        key for key in _namespace(cloudflare, which).values if key.startswith(query.get("prefix", ""))
    )
    start = int(query.get("cursor") or 0)
    end = start + min(int(query.get("limit", PAGE)), PAGE)
    cursor = str(end) if end < len(names) else ""
    items = [{"name": name} for name in names[start:end]]
    return _Page(items, {"count": len(items), "cursor": cursor})


@_route("PUT", "/storage/kv/namespaces/{}/bulk")
def _bulk(cloudflare: Cloudflare, which: str, body: bytes, **_: Any) -> Any:
    pairs = {each["key"]: each["value"].encode() for each in json.loads(body)}
    if len(pairs) > MOST_AT_ONCE:
        raise Refused(400, 10047, "too many pairs")
    for key, value in pairs.items():
        _check_pair(key, value)
    _namespace(cloudflare, which).values.update(pairs)
    return {"successful_key_count": len(pairs), "unsuccessful_keys": []}


# D1


def _database(cloudflare: Cloudflare, which: str) -> tuple[str, Database]:
    for number, each in cloudflare.databases.items():
        if which in (number, each.name):
            return number, each
    raise Refused(404, 7404, f"The database {which} could not be found")


def _described(number: str, database: Database) -> dict[str, Any]:
    (tables,) = database.connection.execute(
        "SELECT count(*) FROM sqlite_master WHERE type = 'table'"
    ).fetchone()
    return {
        "uuid": number,
        "name": database.name,
        "created_at": database.created_at,
        "version": "production",
        "num_tables": tables,
        "file_size": 12288,
        "read_replication": {"mode": "disabled"},
    }


@_route("GET", "/d1/database")
def _list_databases(cloudflare: Cloudflare, query: Mapping[str, str], **_: Any) -> Any:
    items = [
        _described(number, each)
        for number, each in cloudflare.databases.items()
        if query.get("name", each.name) in each.name
    ]
    return _page(items, query)


@_route("POST", "/d1/database")
def _create_database(cloudflare: Cloudflare, body: bytes, **_: Any) -> Any:
    name = json.loads(body)["name"]
    if any(each.name == name for each in cloudflare.databases.values()):
        raise Refused(400, 7502, f"A database with name '{name}' already exists")
    connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    number = str(uuid.uuid4())
    cloudflare.databases[number] = Database(name, _now(), connection)
    return _described(number, cloudflare.databases[number])


@_route("GET", "/d1/database/{}")
def _get_database(cloudflare: Cloudflare, which: str, **_: Any) -> Any:
    return _described(*_database(cloudflare, which))


@_route("POST", "/d1/database/{}/query")
def _query(cloudflare: Cloudflare, which: str, body: bytes, **_: Any) -> Any:
    database = _database(cloudflare, which)[1]
    given = json.loads(body)
    with _transaction(database.connection) as connection:
        return [_run(connection, each, given.get("params") or (), database) for each in _split(given["sql"])]


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of a request's statements, or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except sqlite3.Error as error:
        connection.execute("ROLLBACK")
        kind = getattr(error, "sqlite_errorname", "SQLITE_ERROR").split("_", 2)[:2]
        raise Refused(400, 7500, f"{error}: {'_'.join(kind)}") from None
    connection.execute("COMMIT")


def _run(connection: sqlite3.Connection, sql: str, params: Any, database: Database) -> dict[str, Any]:
    if len(sql.encode()) > LONGEST_STATEMENT:
        raise sqlite3.OperationalError("statement too long")
    before = connection.total_changes
    begin = time.perf_counter()
    cursor = connection.execute(sql, params)
    names = [each[0] for each in cursor.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    database.statements.append(sql)
    changes = connection.total_changes - before
    meta = {
        "changed_db": changes > 0,
        "changes": changes,
        "duration": 1000 * (time.perf_counter() - begin),
        "last_row_id": cursor.lastrowid or 0,
        "rows_read": len(rows),
        "rows_written": changes,
        "served_by": "v3-prod",
        "size_after": 12288,
    }
    return {"results": rows, "success": True, "meta": meta}


def _split(sql: str) -> Iterator[str]:
    """The statements of a text."""
    statement = ""
    for piece in re.split(r"(?<=;)", sql):
        statement += piece
        if sqlite3.complete_statement(statement):
            if re.sub(r"--[^\n]*|\s|;", "", statement):
                yield statement
            statement = ""
    if re.sub(r"--[^\n]*|\s|;", "", statement):
        yield statement


# Workers


def _worker(cloudflare: Cloudflare, name: str) -> Worker:
    worker = cloudflare.workers.get(name)
    if worker is None:
        raise Refused(404, 10007, "This Worker does not exist on your account.")
    return worker


@_route("GET", "/workers/services/{}")
def _service(cloudflare: Cloudflare, name: str, **_: Any) -> Any:
    if name not in cloudflare.workers:
        raise Refused(404, 10090, "This service does not exist on your account.")
    script = {"last_deployed_from": "wrangler", "tag": name}
    return {"id": name, "default_environment": {"environment": "production", "script": script}}


@_route("PUT", "/workers/scripts/{}")
def _upload(cloudflare: Cloudflare, name: str, body: bytes, headers: Message, **_: Any) -> Any:
    upload = _uploaded(cloudflare, name, body, headers)
    upload.deployed_at = time.monotonic()
    return {
        "id": name,
        "tag": name,
        "pipeline_hash": "0" * 64,
        "mutable_pipeline_id": None,
        "deployment_id": upload.id,
        "created_on": _now(),
        "startup_time_ms": 1200,
        "available_on_subdomain": cloudflare.workers[name].subdomain,
        "has_preview": False,
        "etag": upload.id,
    }


@_route("POST", "/workers/scripts/{}/versions")
def _new_version(cloudflare: Cloudflare, name: str, body: bytes, headers: Message, **_: Any) -> Any:
    _worker(cloudflare, name)
    upload = _uploaded(cloudflare, name, body, headers)
    return _version(cloudflare, name, upload.id) | {"startup_time_ms": 1200}


def _uploaded(cloudflare: Cloudflare, name: str, body: bytes, headers: Message) -> Upload:
    parts = _parts(headers, body)
    metadata = json.loads(parts.pop("metadata")[1])
    for each in metadata["bindings"]:
        if each["type"] == "kv_namespace" and each["namespace_id"] not in cloudflare.namespaces:
            raise Refused(400, 10041, f"KV namespace '{each['namespace_id']}' not found.")
        if each["type"] == "d1" and each["id"] not in cloudflare.databases:
            raise Refused(
                400, 10181, f"D1 binding '{each['name']}' references a database which was not found."
            )
    if metadata["main_module"] not in parts:
        raise Refused(400, 10021, f"No such module: {metadata['main_module']}")
    worker = cloudflare.workers.setdefault(name, Worker())
    if "secret_text" not in metadata.get("keep_bindings", ()):
        worker.secrets.clear()
    upload = Upload(metadata, {module: contents for module, (_, contents) in parts.items()})
    worker.uploads.append(upload)
    return upload


@_route("GET", "/workers/scripts/{}/deployments")
def _deployments(cloudflare: Cloudflare, name: str, **_: Any) -> Any:
    deployed = [_deployment(each) for each in reversed(_worker(cloudflare, name).deployed)]
    return {"deployments": deployed}


@_route("POST", "/workers/scripts/{}/deployments")
def _deploy(cloudflare: Cloudflare, name: str, body: bytes, **_: Any) -> Any:
    (chosen,) = json.loads(body)["versions"]
    for each in _worker(cloudflare, name).uploads:
        if each.id == chosen["version_id"]:
            each.deployed_at = time.monotonic()
            return _deployment(each)
    raise Refused(404, 10068, "version not found")


def _deployment(upload: Upload) -> dict[str, Any]:
    return {
        "id": upload.id,
        "source": "wrangler",
        "strategy": "percentage",
        "author_email": "someone@example.com",
        "annotations": {"workers/triggered_by": "upload"},
        "created_on": _now(),
        "versions": [{"version_id": upload.id, "percentage": 100}],
    }


@_route("GET", "/workers/scripts/{}/versions/{}")
def _version(cloudflare: Cloudflare, name: str, which: str, **_: Any) -> Any:
    for number, each in enumerate(_worker(cloudflare, name).uploads, 1):
        if each.id == which:
            secret = [{"name": name, "type": "secret_text"} for name in cloudflare.workers[name].secrets]
            return {
                "id": which,
                "number": number,
                "metadata": {
                    "created_on": _now(),
                    "author_email": "someone@example.com",
                    "source": "wrangler",
                },
                "resources": {
                    "bindings": [*each.metadata["bindings"], *secret],
                    "script": {"etag": which},
                    "script_runtime": {},
                },
            }
    raise Refused(404, 10068, "version not found")


@_route("GET", "/workers/scripts/{}/settings")
def _settings(cloudflare: Cloudflare, name: str, **_: Any) -> Any:
    worker = _worker(cloudflare, name)
    return {"bindings": worker.deployed[-1].metadata["bindings"], "tags": worker.tags}


@_route("PATCH", "/workers/scripts/{}/script-settings")
def _script_settings(cloudflare: Cloudflare, name: str, body: bytes, **_: Any) -> Any:
    worker = _worker(cloudflare, name)
    worker.tags = json.loads(body).get("tags") or worker.tags
    return {"tags": worker.tags}


@_route("GET", "/workers/workers/{}")
def _described_worker(cloudflare: Cloudflare, name: str, **_: Any) -> Any:
    return {"id": name, "name": name, "subdomain": _subdomain(cloudflare, name)}


@_route("GET", "/workers/scripts/{}/secrets")
def _secrets(cloudflare: Cloudflare, name: str, **_: Any) -> Any:
    return [{"name": each, "type": "secret_text"} for each in _worker(cloudflare, name).secrets]


@_route("PUT", "/workers/scripts/{}/secrets")
def _put_secret(cloudflare: Cloudflare, name: str, body: bytes, **_: Any) -> Any:
    given = json.loads(body)
    _worker(cloudflare, name).secrets[given["name"]] = given["text"]
    return {"name": given["name"], "type": "secret_text"}


@_route("GET", "/workers/subdomain")
def _account_subdomain(cloudflare: Cloudflare, **_: Any) -> Any:
    return {"subdomain": "example"}


@_route("GET", "/workers/scripts/{}/subdomain")
def _subdomain(cloudflare: Cloudflare, name: str, **_: Any) -> Any:
    return {"enabled": _worker(cloudflare, name).subdomain, "previews_enabled": False}


@_route("POST", "/workers/scripts/{}/subdomain")
def _enable_subdomain(cloudflare: Cloudflare, name: str, body: bytes, **_: Any) -> Any:
    _worker(cloudflare, name).subdomain = json.loads(body)["enabled"]
    return {"enabled": _worker(cloudflare, name).subdomain, "previews_enabled": False}
