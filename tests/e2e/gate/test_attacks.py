"""Addresses and requests made to be read in two ways: by policy in one, by the upstream in the other."""

from typing import Any
from urllib.parse import unquote

import pytest

OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"

# Below this address everything is permitted to the caller; nothing else of the ledger that stands here is.
BASE = "/ledger/v1/reports/"

AMBIGUOUS, MALFORMED = "route.path_ambiguous", "route.malformed"
REFUSED: dict[str, tuple[str | bytes, str]] = {
    "dots, encoded": (BASE + "%2e%2e/secrets", AMBIGUOUS),
    "dots, encoded in capitals": (BASE + "%2E%2E/secrets", AMBIGUOUS),
    "dots, the second encoded": (BASE + ".%2e/secrets", AMBIGUOUS),
    "dots, the first encoded": (BASE + "%2E./secrets", AMBIGUOUS),
    "dots, encoded, last": (BASE + "a/%2e%2e", AMBIGUOUS),
    "one dot, encoded": (BASE + "%2e/x", AMBIGUOUS),
    "dots with an encoded slash": (BASE + "..%2f..%2fsecrets", AMBIGUOUS),
    "an encoded slash": (BASE + "a%2fb", AMBIGUOUS),
    "an encoded slash in capitals": (BASE + "a%2Fb", AMBIGUOUS),
    "an encoded backslash": (BASE + "a%5cb", AMBIGUOUS),
    "an encoded backslash in capitals": (BASE + "..%5C..%5Csecrets", AMBIGUOUS),
    "a backslash": (BASE + "a\\b", AMBIGUOUS),
    "dots with a backslash": (BASE + "..\\..\\secrets", AMBIGUOUS),
    "an empty segment": ("/ledger//v1/reports/x", AMBIGUOUS),
    "an empty segment inside": (BASE + "a//b", AMBIGUOUS),
    "two slashes last": (BASE + "a//", AMBIGUOUS),
    "a path parameter": (BASE + "x;a=b", AMBIGUOUS),
    "dots with a path parameter": (BASE + "..;/secrets", AMBIGUOUS),
    "dots encoded twice": (BASE + "%252e%252e/secrets", AMBIGUOUS),
    "a slash encoded twice": (BASE + "a%252fb", AMBIGUOUS),
    "a slash encoded three times": (BASE + "a%25252fb", AMBIGUOUS),
    "NUL": (BASE + "x%00.json", AMBIGUOUS),
    "a line feed": (BASE + "x%0aX: 1", AMBIGUOUS),
    "CR and LF": (BASE + "x%0d%0aX-Injected:1", AMBIGUOUS),
    "DEL": (BASE + "%7f", AMBIGUOUS),
    "C1 control": (BASE + "%c2%85", AMBIGUOUS),
    "overlong dots": (BASE + "%c0%ae%c0%ae/secrets", AMBIGUOUS),
    "an overlong slash": (BASE + "a%c0%afb", AMBIGUOUS),
    "a three-byte overlong slash": (BASE + "a%e0%80%afb", AMBIGUOUS),
    "a lone surrogate": (BASE + "%ed%a0%80", AMBIGUOUS),
    "half a character": (BASE + "%c3", AMBIGUOUS),
    "not UTF-8": (BASE + "%ff", AMBIGUOUS),
    "dots before the upstream": ("/%2e%2e/ledger/v1/reports/x", AMBIGUOUS),
    "dots for an upstream": ("/%2e%2e", AMBIGUOUS),
    "an encoded slash in the upstream": ("/crm%2f..%2fledger/v1/reports/x", AMBIGUOUS),
    "a fragment": (BASE + "x#y", MALFORMED),
    "a fragment behind dots": (BASE + "../secrets#/v1/reports/x", MALFORMED),
    "a fragment in the query": (BASE + "x?a=b#c", MALFORMED),
    "bare UTF-8": ((BASE + "é").encode(), MALFORMED),
    "a bare byte": (BASE.encode() + b"\xff", MALFORMED),
    "half an escape": (BASE + "x%2", MALFORMED),
    "an escape that is none": (BASE + "x%zz", MALFORMED),
    "an escape as scripts write it": (BASE + "x%u002e", MALFORMED),
    "a pipe": (BASE + "C|/x", MALFORMED),
    "markup": (BASE + "<script>", MALFORMED),
    "three dots": (BASE + "...", "route.path_ambiguous"),
    "an encoded semicolon": (BASE + "x%3by", "route.path_ambiguous"),
    "a quote in the query": (BASE + 'x?q="', MALFORMED),
    "a user and a host": ("/ledger@127.0.0.1:1/v1/reports/x", "route.unknown_upstream"),
    "a host behind two slashes": ("//ledger/v1/reports/x", "route.unknown_upstream"),
    "an upstream in capitals": ("/LEDGER/v1/reports/x", "route.unknown_upstream"),
    "an upstream with a port": ("/ledger:80/v1/reports/x", "route.unknown_upstream"),
    "an upstream with a space": ("/ledger%20/v1/reports/x", "route.unknown_upstream"),
    "an upstream with a query": ("/ledger?/v1/reports/x", "policy.no_match"),
    "65 segments": (BASE + "a/" * 65, MALFORMED),
    "over 8 KB": (BASE + "a" * 8200, MALFORMED),
    "over 8 KB of query": (BASE + "x?" + "a" * 8200, MALFORMED),
    "dots that stay inside, to what isn't permitted": (BASE + "../secrets", "policy.no_match"),
    "dots that leave the upstream": (BASE + "../../../crm/v1/accounts", "policy.no_match"),
    "dots that leave everything": (BASE + "../" * 9 + "etc/passwd", "route.unknown_upstream"),
}  # fmt: skip

# What policy and the upstream both see, to the letter.
SAME: dict[str, tuple[str, str]] = {
    "a plain address": (BASE + "x", "/v1/reports/x"),
    "dots that the runtime resolves, for both": (BASE + "a/../b", "/v1/reports/b"),
    "a dot that the runtime resolves, for both": ("/ledger/v1/./reports/x", "/v1/reports/x"),
    "dots into a permitted place": ("/crm/../ledger/v1/reports/x", "/v1/reports/x"),
    "a fragment that the runtime resolves away, for both": (BASE + "x#/../y", "/v1/reports/y"),
    "dots that are part of a name": (BASE + "..a/b..", "/v1/reports/..a/b.."),
    "letters that needn't be encoded": (BASE + "%41%7e%2d", "/v1/reports/A~-"),
    "a permitted place in escapes": ("/ledger/%76%31/reports/x", "/v1/reports/x"),
    "an upstream in escapes": ("/%6cedger/v1/reports/x", "/v1/reports/x"),
    "escapes in small letters": (BASE + "%c3%a9%3f", "/v1/reports/%C3%A9%3F"),
    "an encoded question mark": (BASE + "x%3fa=b", "/v1/reports/x%3Fa=b"),
    "an encoded number sign": (BASE + "x%23y", "/v1/reports/x%23y"),
    "a user and a host": (BASE + "x@evil.example/y", "/v1/reports/x@evil.example/y"),
    "an address in the path": (BASE + "http:", "/v1/reports/http:"),
    "punctuation": (BASE + "!$&'()*+,=:@-._~", "/v1/reports/!$&'()*+,=:@-._~"),
    "wide dots": (BASE + "%ef%bc%8e%ef%bc%8e/x", "/v1/reports/%EF%BC%8E%EF%BC%8E/x"),
    "a wide slash": (BASE + "a%ef%bc%8fb", "/v1/reports/a%EF%BC%8Fb"),
    "a slash last": (BASE + "x/", "/v1/reports/x/"),
    "dots in the query": (BASE + "x?/../../secrets", "/v1/reports/x"),
    "64 segments": (BASE + "a/" * 62, "/v1/reports/" + "a/" * 62),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_address_with_two_readings_is_refused(lab: Any, reader: str, case: str) -> None:
    path, code = REFUSED[case]
    answer = lab.call(path, token=reader)
    assert (answer.status, answer.code) == (
        {"route.unknown_upstream": 404, "policy.no_match": 403}.get(code, 400),
        code,
    )
    [decision] = lab.events(answer)
    assert decision["reason"] == code


@pytest.mark.parametrize("case", SAME)
def test_policy_and_the_upstream_see_the_same_address(lab: Any, reader: str, case: str) -> None:
    path, expected = SAME[case]
    answer = lab.call(path, token=reader)
    assert answer.status == 200
    decision = lab.events(answer)[0]
    assert (decision["path"], decision["route"], decision["upstream"]) == (
        expected,
        "/v1/reports/**",
        "ledger",
    )
    seen = answer.json()["path"]
    assert seen == "/ledger" + expected
    assert unquote(seen).startswith("/ledger/v1/reports/")
    assert not {".", ".."} & set(unquote(seen).split("/"))


# What no HTTP server should take. The runtime answers these before the gate is asked.
NOT_HTTP: dict[str, bytes] = {
    "an absolute address of another host": b"GET http://evil.example/ledger/v1/reports/x HTTP/1.1\r\nHost: g\r\n",
    "an address without a slash": b"GET ledger/v1/reports/x HTTP/1.1\r\nHost: g\r\n",
    "a star": b"OPTIONS * HTTP/1.1\r\nHost: g\r\n",
    "a tunnel": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: g\r\n",
    "a method in small letters": b"get /hostile/x HTTP/1.1\r\nHost: g\r\n",
    "a method nobody knows": b"BREW /hostile/x HTTP/1.1\r\nHost: g\r\n",
    "a NUL in the address": b"GET /hostile/x\x00y HTTP/1.1\r\nHost: g\r\n",
    "a NUL in a header": b"GET /hostile/x HTTP/1.1\r\nHost: g\r\nX-A: a\x00b\r\n",
    "two Host headers": b"GET /hostile/x HTTP/1.1\r\nHost: g\r\nHost: evil.example\r\n",
    "a path in Host": b"GET /secrets HTTP/1.1\r\nHost: g/hostile/x?\r\n",
    "no Host": b"GET /hostile/x HTTP/1.1\r\n",
    "two lengths": b"PUT /hostile/x HTTP/1.1\r\nHost: g\r\nContent-Length: 4\r\nContent-Length: 5\r\n",
    "a length that is no number": b"PUT /hostile/x HTTP/1.1\r\nHost: g\r\nContent-Length: 4x\r\n",
    "a header of 200 KB": b"GET /hostile/x HTTP/1.1\r\nHost: g\r\nX-A: " + b"a" * 200_000 + b"\r\n",
}


@pytest.mark.parametrize("case", NOT_HTTP)
def test_what_is_no_request_gets_nowhere(lab: Any, hostile: Any, reader: str, case: str) -> None:
    hostile.answer = OK
    hostile.got.clear()
    answer = lab.send(NOT_HTTP[case] + f"Authorization: Bearer {reader}\r\n\r\n".encode() + b"abcde")
    assert answer.status >= 400
    assert len(answer.body) < 100
    assert lab.call("/lab/x", token=reader).status == 200  # and the gate lives
    assert hostile.got == []


@pytest.mark.parametrize("method", ["TRACE", "PURGE", "PROPFIND", "SEARCH", "REPORT"])
def test_a_method_that_policy_has_no_word_for_is_refused(
    lab: Any, hostile: Any, reader: str, method: str
) -> None:
    hostile.got.clear()
    answer = lab.call("/hostile/x", method, token=reader)
    assert (answer.status, answer.code) == (400, "request.method")
    assert hostile.got == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "framing", ["Content-Length: 4\r\n\r\nabcd", "Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"]
)
def test_a_body_where_none_belongs_is_refused(
    lab: Any, hostile: Any, reader: str, method: str, framing: str
) -> None:
    hostile.got.clear()
    head = f"{method} /hostile/x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {reader}\r\n"
    answer = lab.send((head + framing).encode(), method)
    assert answer.status == 400
    assert lab.events(answer)[0]["reason"] == "request.body_not_allowed"
    assert hostile.got == []


def test_no_request_hides_in_another(lab: Any, hostile: Any, reader: str) -> None:
    """Length and chunks at once: who believes the other of the two sees a second request. It must be judged as one."""
    hostile.answer = OK
    hostile.got.clear()
    before = len(lab.decisions())
    smuggled = b"0\r\n\r\nGET /hostile/smuggled HTTP/1.1\r\nHost: g\r\nX-A: "
    head = f"PUT /hostile/x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {reader}\r\n"
    head += f"Content-Length: {len(smuggled)}\r\nTransfer-Encoding: chunked\r\n\r\n"
    with lab.connected() as connection:
        connection.sendall(head.encode() + smuggled)
        lab.receive(connection, "PUT")
    after = lab.call("/hostile/after", token=reader)
    assert after.status == 200
    lab.events(after)
    permitted = [event for event in lab.decisions()[before:] if event["decision"] == "permit"]
    assert len(hostile.got) == len(permitted)
    assert not any(b"smuggled" in got for got in hostile.got)


def test_white_space_around_a_name_hides_no_header(lab: Any, hostile: Any, reader: str) -> None:
    hostile.answer = OK
    hostile.got.clear()
    planted = [
        ("X-Forwarded-For ", "planted"),
        ("Airgate-Token ", "planted"),
        ("X-A", "1\r\n X-Forwarded-Host: folded"),
    ]
    lab.call("/hostile/x", token=reader, headers=planted)
    assert not any(b"planted" in got or b"\nX-Forwarded" in got for got in hostile.got)


def test_pipelined_requests_are_judged_one_by_one(lab: Any, reader: str) -> None:
    first = f"GET /lab/x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {reader}\r\n\r\n"
    second = "GET /lab/x HTTP/1.1\r\nHost: g\r\n\r\n"
    with lab.connected() as connection:
        connection.sendall(first.encode())
        assert lab.receive(connection).status == 200
        connection.sendall(second.encode())
        assert lab.receive(connection).code == "token.missing"


# Answers that an upstream may give by mistake or by malice. None may show more than "unreachable".
ODD_ANSWERS: dict[str, bytes] = {
    "nothing": b"",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "a header of 300 KB": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 300_000 + b"\r\n\r\n",
    "status 600": b"HTTP/1.1 600 Odd\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "status 999": b"HTTP/1.1 999 Odd\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
    "another protocol offered": b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
}


@pytest.mark.parametrize("case", ODD_ANSWERS)
def test_an_answer_that_is_none_is_an_upstream_that_cannot_be_reached(
    lab: Any, hostile: Any, reader: str, case: str
) -> None:
    hostile.answer = ODD_ANSWERS[case]
    answer = lab.call("/hostile/x", token=reader)
    assert (answer.status, answer.code) == (502, "upstream.unreachable")
    decision, outcome = lab.events(answer, 2)
    assert (decision["decision"], outcome["result"]) == ("permit", "unreachable")
