"""What the upstream gets and what the caller gets back: call and answer, whole, and nothing of the gate's own."""

import gzip
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import IncompleteRead
from typing import Any

import pytest

BODY = b'{"amount": 12.5, "text": "\xc3\xa9\x00\xff"}\r\n\r\nGET /lab/smuggled HTTP/1.1\r\n\r\n'
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
MB = 1024 * 1024


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_body_arrives_as_it_was_sent(lab: Any, reader: str, method: str) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    answer = lab.call("/lab/v1/things", method, token=reader, headers=headers, body=BODY)
    seen = answer.json()
    assert (answer.status, seen["method"], seen["path"]) == (200, method, "/lab/v1/things")
    assert (seen["body"], seen["body_bytes"]) == (BODY.decode("utf-8", "replace"), len(BODY))
    assert seen["headers"]["content-type"] == headers["Content-Type"]
    assert lab.call("/lab/echo", method, token=reader, body=BODY).body == BODY


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_chunked_body_arrives_whole(lab: Any, reader: str, method: str) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(BODY), BODY) for _ in range(3)) + b"0\r\n\r\n"
    head = f"{method} /lab/echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {reader}\r\n"
    answer = lab.send(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert (answer.status, answer.body) == (200, BODY * 3)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_no_body_stays_no_body(lab: Any, reader: str, method: str) -> None:
    seen = lab.call("/lab/x", method, token=reader).json()
    assert (seen["method"], seen["body_bytes"]) == (method, 0)


QUERIES = (
    "a=1&a=2&b", "q=%20+%2B%26%3D%23&r=%C3%A9", "path=/../x/./y//z&u=http://h/?x", "%2e%2e=%2F", "?", "a=1?b",
    "a;b=c,d:e@f!$()*~",
)  # fmt: skip


@pytest.mark.parametrize("query", QUERIES)
def test_the_query_arrives_as_it_was_sent(lab: Any, reader: str, query: str) -> None:
    answer = lab.call(f"/lab/x?{query}", token=reader)
    assert (answer.status, answer.json()["query"]) == (200, query)


def test_ordinary_headers_arrive(lab: Any, reader: str) -> None:
    sent = {
        "Accept": "application/vnd.api+json;q=0.9, */*",
        "Accept-Encoding": "gzip, br",
        "Accept-Language": "de",
        "Cookie": "a=1; b=2",
        "Idempotency-Key": "7f3a",
        "If-None-Match": 'W/"1"',
        "Range": "bytes=0-1",
        "Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "User-Agent": "airflow/3.0",
        "X-Api-Key": "the upstream's own",
        "X-Empty": "",
    }
    seen = lab.call("/lab/x", token=reader, headers=sent).json()["headers"]
    assert {name: seen.get(name.lower()) for name in sent} == sent


# Each is on the way of one attack or other; none may reach an upstream.
KEPT_BACK = [
    "Airgate-Role", "Airgate-Dag-Id", "Airgate-Task-Id", "Airgate-Run-Id",
    "Airgate-Try-Number", "Airgate-Map-Index", "Airgate-Dag-Tags", "Airgate-Anything", "airgate_role",
    "AIRGATE.ROLE", "X-Airgate-Subject", "Proxy-Authorization",
    "Proxy-Authenticate", "Proxy-Connection", "TE", "Trailer", "Keep-Alive", "Upgrade", "X-Named",
    "Forwarded", "Via", "X-Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
    "X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-User", "X-Forwarded-Client-Cert", "x_forwarded_for",
    "X.Forwarded.For", "X-Original-URL", "X-Original-Method", "X-Original-Host", "X-Rewrite-URL",
    "X-HTTP-Method", "X-HTTP-Method-Override", "x_http_method_override", "X-Method-Override", "X-Real-IP",
    "X_Real.IP", "X-Client-IP", "X-Cluster-Client-IP", "True-Client-IP", "Fastly-Client-IP",
    "CF-Connecting-IP", "CF-Access-Jwt-Assertion", "Cf-Worker", "X-Envoy-Original-Path",
    "X-Envoy-External-Address", "X-Auth-Request-User", "X-Remote-User", "Remote-User", "X-Host",
]  # fmt: skip
IN_THEIR_PLACE = {
    "Airgate-Role": "finance-reader",
    "Airgate-Dag-Tags": "a, b",
    "Airgate-Try-Number": "1",
    "TE": "trailers",
    "Upgrade": "h2c",
}


def test_nothing_of_the_gate_and_nothing_that_only_a_proxy_may_say_reaches_an_upstream(
    lab: Any, hostile: Any, reader: str
) -> None:
    hostile.answer = OK + b"Content-Length: 0\r\n\r\n"
    hostile.got.clear()
    headers = [(name, IN_THEIR_PLACE.get(name, "planted")) for name in KEPT_BACK]
    kept = [
        ("X-Kept", "1"),
        ("Connection", "x-named , keep-alive"),
        ("Connection", "X-Also-Named"),
        ("X-Also-Named", "planted"),
    ]
    answer = lab.call("/hostile/x", token=reader, headers=[*headers, *kept, ("Airgate-Token", reader)])
    assert answer.status == 200
    [got] = hostile.got
    head = got.decode("latin-1").split("\r\n")
    assert head[0] == "GET /base/x HTTP/1.1"
    told = {
        "cache-control",
        "pragma",
        "forwarded",
        "traceparent",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-prefix",
    }
    assert {line.partition(":")[0].lower() for line in head[1:] if line} - told == {"host", "x-kept"}
    assert "planted" not in got.decode("latin-1")
    assert reader.rpartition(".")[2] not in got.decode("latin-1")


@pytest.mark.parametrize("own", [None, "max-age=60"])
def test_the_edges_cache_is_told_to_stay_out_of_the_way(lab: Any, reader: str, own: str | None) -> None:
    """It knows addresses, and not who calls: one caller's answer could be another's."""
    seen = lab.call("/lab/x", token=reader, headers={"Cache-Control": own} if own else {}).json()["headers"]
    assert seen["cache-control"] == (own or "no-cache")


def test_the_host_an_upstream_sees_is_its_own(lab: Any, hostile: Any, reader: str) -> None:
    hostile.answer = OK + b"Content-Length: 0\r\n\r\n"
    hostile.got.clear()
    lab.call("/hostile/x", token=reader)
    assert f"\r\nHost: 127.0.0.1:{hostile.port}\r\n".encode() in hostile.got[0]


def test_an_upstream_cant_speak_for_the_gate(lab: Any, reader: str) -> None:
    answer = lab.call("/lab/headers", token=reader)
    names = sorted({name.lower() for name in answer.headers if name.lower().startswith("airgate")})
    assert names == ["airgate-decision", "airgate-policy", "airgate-request-id"]
    assert answer.headers.get_all("Airgate-Decision") == ["permit"]
    assert "spoofed" not in str(answer.headers)
    assert answer.headers["X-Sample"] == "kept"
    assert answer.headers.get_all("Set-Cookie") == ["first=1; Path=/lab", "second=2; HttpOnly; Path=/lab"]


def test_an_upstream_cant_speak_for_the_gate_under_another_spelling(
    lab: Any, hostile: Any, reader: str
) -> None:
    names = (
        "AIRGATE-DECISION",
        "airgate_decision",
        "Airgate.Policy",
        "aIrGaTe-Request-Id",
        "Airgate_New-One",
    )
    planted = "".join(f"{name}: planted\r\n" for name in names).encode()
    hostile.answer = OK + planted + b"X-Kept: 1\r\nContent-Length: 0\r\n\r\n"
    answer = lab.call("/hostile/x", token=reader)
    assert (answer.status, answer.headers["X-Kept"]) == (200, "1")
    assert "planted" not in str(answer.headers)


def test_a_compressed_answer_arrives_byte_for_byte(lab: Any, hostile: Any, reader: str) -> None:
    packed = gzip.compress(b"a ledger " * 10_000, 1)
    hostile.answer = (
        OK + b'Content-Encoding: gzip\r\nETag: "1"\r\nContent-Length: %d\r\n\r\n' % len(packed) + packed
    )
    for headers in ({"Accept-Encoding": "gzip"}, {}):
        answer = lab.call("/hostile/x", token=reader, headers=headers)
        assert (answer.headers["Content-Encoding"], answer.headers["ETag"]) == ("gzip", '"1"')
        assert answer.body == packed


@pytest.mark.parametrize(
    "status", [200, 201, 202, 206, 400, 401, 403, 404, 409, 418, 422, 429, 500, 503, 599]
)
def test_the_upstreams_own_status_is_passed_on(lab: Any, reader: str, status: int) -> None:
    answer = lab.call(f"/lab/status/{status}", token=reader)
    assert (answer.status, answer.code, answer.json()["path"]) == (status, "", f"/lab/status/{status}")
    assert answer.headers["Airgate-Decision"] == "permit"


@pytest.mark.parametrize("status", [204, 205, 304])
def test_an_answer_without_a_body_stays_without(lab: Any, hostile: Any, reader: str, status: int) -> None:
    hostile.answer = b'HTTP/1.1 %d Fine\r\nConnection: close\r\nETag: "1"\r\n' % status
    hostile.answer += b"Content-Length: 0\r\n\r\n" if status == 205 else b"\r\n"
    answer = lab.call("/hostile/x", token=reader)
    assert (answer.status, answer.body, answer.headers["ETag"]) == (status, b"", '"1"')


def test_head_tells_the_length_and_sends_nothing(lab: Any, reader: str) -> None:
    answer = lab.call("/lab/bytes?n=12345", "HEAD", token=reader)
    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "12345")


def test_a_redirect_is_the_callers_to_follow(lab: Any, hostile: Any, reader: str) -> None:
    hostile.got.clear()
    again = f"http://127.0.0.1:{hostile.port}/base/again".encode()
    hostile.answer = (
        b"HTTP/1.1 307 Over There\r\nConnection: close\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % again
    )
    answer = lab.call("/hostile/x", token=reader)
    assert (answer.status, answer.headers["Location"]) == (307, "/hostile/again")
    assert len(hostile.got) == 1


def test_an_answer_that_breaks_off_never_looks_whole(lab: Any, hostile: Any, reader: str) -> None:
    hostile.answer = OK + b"Content-Length: 1000\r\n\r\nonly this"
    with pytest.raises((IncompleteRead, ConnectionError)):
        lab.call("/hostile/x", token=reader)


def test_both_ways_are_streams(lab: Any, reader: str) -> None:
    """Each piece comes back before the next is sent, so neither the request nor the answer can have been complete."""
    with lab.connected() as connection, connection.makefile("rb") as incoming:
        head = f"POST /lab/echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {reader}\r\n"
        connection.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n5\r\npiece\r\n")
        assert incoming.readline() == b"HTTP/1.1 200 OK\r\n"
        while incoming.readline() != b"\r\n":
            pass
        for _ in range(3):
            assert (incoming.readline(), incoming.read(5), incoming.readline()) == (
                b"5\r\n",
                b"piece",
                b"\r\n",
            )
            connection.sendall(b"5\r\npiece\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert incoming.readline() == b"5\r\n"


def test_five_megabytes_go_there_and_come_back(lab: Any, reader: str) -> None:
    body = os.urandom(5 * MB)
    answer = lab.call("/lab/echo", "PUT", token=reader, body=body)
    assert (answer.status, answer.body == body) == (200, True)


def resident(group: int) -> float:
    """Megabytes of memory of the workerd in a process group."""
    table = subprocess.run(
        ["ps", "-ww", "-e", "-o", "pgid=", "-o", "rss=", "-o", "args="],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = [line.split(None, 2) for line in table.splitlines()]
    [kilobytes] = [
        int(rss) for pgid, rss, args in rows if int(pgid) == group and args.split()[0].endswith("workerd")
    ]
    return kilobytes / 1024


@contextmanager
def flat(group: int, most: float) -> Iterator[None]:
    """The workerd of a process group must not grow by more than `most` MB meanwhile, looked at ten times a second."""
    before, peak, over = resident(group), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.1):
            peak = max(peak, resident(group))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    assert peak > 0, "too fast to look at"
    assert peak - before < most, f"grew from {before:.0f} to {peak:.0f} MB"


def test_a_long_answer_begins_at_once_and_is_never_held(lab: Any, reader: str) -> None:
    size = 200 * MB
    lab.call(f"/lab/bytes?n={MB}", token=reader)
    with flat(lab.process.pid, 60), lab.connected() as connection, connection.makefile("rb") as incoming:
        begun = time.monotonic()
        connection.sendall(
            f"GET /lab/bytes?n={size} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {reader}\r\n\r\n".encode()
        )
        while incoming.readline() != b"\r\n":
            pass
        assert len(incoming.read(MB)) == MB
        assert time.monotonic() - begun < 2
        time.sleep(1)  # a caller that doesn't read must hold the upstream back, not fill the gate
        left = size - MB
        while left and (part := incoming.read(min(left, MB))):
            left -= len(part)
        assert left == 0


def test_a_long_request_is_never_held(lab: Any, reader: str) -> None:
    count, chunk = 100, b"a" * MB
    with flat(lab.process.pid, 60), lab.connected() as connection:
        head = f"PUT /lab/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {reader}\r\n"
        connection.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % (count * MB))
        for _ in range(count):
            connection.sendall(chunk)
        assert lab.receive(connection).json()["body_bytes"] == count * MB


def test_a_long_answer_isnt_cut_off_by_the_limit_on_its_beginning(lab: Any, reader: str) -> None:
    size = 30 * MB
    with lab.connected() as connection, connection.makefile("rb") as incoming:
        connection.sendall(
            f"GET /impatient/bytes?n={size} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {reader}\r\n\r\n".encode()
        )
        while incoming.readline() != b"\r\n":
            pass
        time.sleep(1.5)  # the limit is 1 s
        assert len(incoming.read(size)) == size
