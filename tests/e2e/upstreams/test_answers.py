"""Answers that are wrong, odd or a lie: each gives one answer, which never looks better than it is."""

from http.client import HTTPException
from typing import Any
from urllib.parse import quote

import pytest

# Every answer of these ends its connection: what is left on it must not be the next call's answer.
OK = "HTTP/1.1 200 OK\r\nConnection: close\r\n"
CHUNKED = OK + "Transfer-Encoding: chunked\r\n\r\n"
TWO = "Content-Length: 2\r\n\r\nok"


# The embedded runtime is two years older than the current one, which was seen to do this right.
EMBEDDED = pytest.mark.xfail(reason="the embedded runtime")


def ask(lab: Any, text: str, path: str = "/plain/x") -> Any:
    return lab.ask(f"{path}?play=raw&to={quote(text, encoding='latin-1')}")[0]


def still_works(lab: Any) -> None:
    answer, _ = lab.ask("/plain/x")
    assert (answer.status, b'"target": "/plain/x"' in answer.body) == (200, True)


@pytest.mark.parametrize(
    ("text", "body"),
    [
        pytest.param(OK + TWO, b"ok", id="a good one"),
        pytest.param("HTTP/1.1 200\r\nConnection: close\r\n" + TWO, b"ok", id="no phrase"),
        pytest.param("HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end", id="HTTP/1.0"),
        pytest.param(OK + "\r\nuntil the end", b"until the end", id="no length"),
        pytest.param(CHUNKED + "2\r\nok\r\n0\r\nX-Trailer: x\r\n\r\n", b"ok", id="a trailer"),
        pytest.param(CHUNKED + "1;a=b\r\no\r\n1\r\nk\r\n0\r\n\r\n", b"ok", id="chunk extensions", marks=EMBEDDED),
        pytest.param(OK + "X-A: \xe9\xff\r\n" + TWO, b"ok", id="a header in Latin-1"),
        pytest.param(OK + "Content-Encoding: gzip\r\n" + TWO, b"ok", id="a coding that it does not have"),
        pytest.param(CHUNKED[:-2] + "Content-Length: 9\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok", id="chunks and a length"),
    ],
)  # fmt: skip
def test_odd_answers_that_can_be_passed_on(lab: Any, text: str, body: bytes) -> None:
    answer = ask(lab, text)
    assert (answer.status, answer.body, answer.headers["Airgate-Decision"]) == (200, body, "permit")
    still_works(lab)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("HTTP/1.1 200 OK\r\nContent-Le", id="half a header"),
        pytest.param("not http at all\r\n\r\n", id="another protocol"),
        pytest.param("\x15\x03\x03\x00\x02\x02\x28", id="TLS"),
        pytest.param("<html>HTTP/0.9</html>", id="HTTP/0.9"),
        pytest.param("HTTP/1.1 099 Low\r\nConnection: close\r\n" + TWO, id="a status below all"),
        pytest.param(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", id="an upgrade"
        ),
        pytest.param("HTTP/1.1 100 Continue\r\n\r\n", id="100 and no more"),
        pytest.param("HTTP/1.1 600 High\r\nConnection: close\r\n" + TWO, id="a status above all"),
        pytest.param("HTTP/1.1 999 High\r\nConnection: close\r\n" + TWO, id="the highest status"),
        pytest.param("HTTP/1.1 1000 High\r\nConnection: close\r\n" + TWO, id="a status of four digits"),
        pytest.param(OK + "no colon here\r\n" + TWO, id="a header without a colon"),
        pytest.param(OK + "Bad Name: x\r\n" + TWO, id="a header's name with a space"),
        pytest.param(OK + ": x\r\n" + TWO, id="a header without a name"),
        pytest.param(OK + "X-A: a\x00b\r\n" + TWO, id="a null in a header"),
        pytest.param(OK + "Content-Length: 5\r\n" + TWO, id="two lengths"),
        pytest.param(
            OK + "Transfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", id="a coding that nobody knows"
        ),
    ],
)
def test_answers_that_are_none(lab: Any, text: str) -> None:
    answer = ask(lab, text)
    assert (answer.status, answer.code) == (502, "upstream.unreachable")
    assert (answer.headers["Airgate-Error"], answer.json()["retryable"]) == ("gate", True)
    assert lab.events(answer, 2)[1]["result"] == "unreachable"
    still_works(lab)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(OK + "Content-Length: 100\r\n\r\nonly this", id="shorter than it says"),
        pytest.param(OK + "Content-Length: -2\r\n\r\nok", id="a length below nothing"),
        pytest.param(OK + "Content-Length: 99999999999999999999999\r\n\r\nok", id="a length beyond everything"),
        # The embedded runtime ends these as if they were whole.
        pytest.param(CHUNKED + "5\r\nok", id="half a chunk", marks=EMBEDDED),
        pytest.param(CHUNKED + "2\r\nok\r\n", id="no last chunk", marks=EMBEDDED),
        pytest.param(CHUNKED + "zz\r\nok\r\n", id="no chunk", marks=EMBEDDED),
    ],
)  # fmt: skip
def test_answers_that_break_off_never_look_whole(lab: Any, text: str) -> None:
    with pytest.raises((HTTPException, ConnectionError, OverflowError)):
        ask(lab, text)
    still_works(lab)


@EMBEDDED
@pytest.mark.parametrize(
    "interim", ["100 Continue\r\n", "102 Processing\r\n", "103 Early Hints\r\nLink: </x>\r\n"]
)
def test_interim_answers_are_read_over(lab: Any, interim: str) -> None:
    assert ask(lab, f"HTTP/1.1 {interim}\r\n{OK}{TWO}").body == b"ok"


@pytest.mark.parametrize(("kilobytes", "may"), [(16, True), (64, True), (2000, False)])
def test_headers_without_measure(lab: Any, kilobytes: int, may: bool) -> None:
    answer, _ = lab.ask(f"/plain/x?play=huge_head&n={kilobytes}")
    if may:
        assert (answer.status, answer.body, len(answer.headers["X-Huge-1"])) == (200, b"after all", 10_000)
    else:
        assert (answer.status, answer.code) == (502, "upstream.unreachable")
    still_works(lab)


def test_an_answer_before_the_body_has_come(lab: Any, hostile: Any) -> None:
    answer, call = lab.ask("/plain/x?play=early", "POST", body=b"a" * 100_000)
    assert (answer.status, answer.body) == (413, b"too much")
    assert len(hostile.arrivals(call)) == 1


@pytest.mark.parametrize(
    ("to", "becomes"),
    [
        pytest.param("{base}/again?a=/../b#c", "/plain/again?a=/../b#c", id="into itself"),
        pytest.param("/plain/again/", "/plain/again/", id="a path of its own"),
        pytest.param("again", "again", id="a name beside"),
        pytest.param("https://login.example.com/?to=/plain", "https://login.example.com/?to=/plain", id="elsewhere"),
        pytest.param("http://gate.example.com/plain/again", "/plain/again", id="by the gate's name"),
        pytest.param("http://gate.example.com/again/x", None, id="another upstream, by the gate's name"),
        pytest.param("http://127.0.0.1:{port}/again/x", None, id="another part of its host"),
        pytest.param("http://127.0.0.1:1/plain/x", None, id="another port of its host"),
        pytest.param("/again/x", None, id="another upstream's path"),
        pytest.param("/plain/../again/x", None, id="another upstream's path, behind dots"),
        pytest.param("../again/x", None, id="another upstream, relatively"),
        pytest.param("/\\evil.example.net", None, id="a backslash"),
        pytest.param("///evil.example.net", None, id="three slashes"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [201, 302])
def test_where_an_answer_points_to(lab: Any, hostile: Any, to: str, becomes: str | None, status: int) -> None:
    to = to.format(base=f"http://127.0.0.1:{hostile.port}/plain", port=hostile.port)
    answer, call = lab.ask(f"/plain/x?play=redirect&status={status}&to={quote(to)}")
    assert answer.status == status
    assert answer.headers["Location"] == answer.headers["Content-Location"] == becomes
    assert str(hostile.port) not in str(answer.headers)
    assert len(hostile.arrivals(call)) == 1  # nobody followed it


@pytest.mark.parametrize("status", [200, 204, 301, 304, 399])
def test_an_upstreams_good_answer_is_no_error(lab: Any, status: int) -> None:
    answer, _ = lab.ask(f"/plain/x?play=headed&status={status}&to={quote('Airgate-Error: gate')}")
    assert (answer.status, answer.headers["Airgate-Error"]) == (status, None)


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503, 599])
def test_an_upstreams_error_is_told_from_the_gates(lab: Any, status: int) -> None:
    answer, _ = lab.ask(f"/plain/x?play=headed&status={status}&to={quote('Airgate-Error: gate')}")
    assert (answer.status, answer.headers.get_all("Airgate-Error"), answer.body) == (
        status,
        ["upstream"],
        b"said",
    )
