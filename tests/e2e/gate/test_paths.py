"""Hostile paths through the running gate: refused, or the upstream gets to the letter what policy has seen.

`OPEN` is all that is permitted of each of three upstreams: one that takes plain paths only, one for which %2F is data
inside a segment (`encoded_slash: segment`), one that takes empty segments.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

AMBIGUOUS, MALFORMED = "route.path_ambiguous", "route.malformed"
NOWHERE, NOT_PERMITTED = "route.unknown_upstream", "policy.no_match"
STATUS = {AMBIGUOUS: 400, MALFORMED: 400, NOWHERE: 404, NOT_PERMITTED: 403}

OPEN = {"plain": "/ledger/v1/reports/", "segments": "/segments/open/", "empties": "/empties/open/"}


class Row(NamedTuple):
    """A path behind OPEN, and what becomes of it: a code, or the path below OPEN that the upstream gets."""

    path: str
    plain: str
    segments: str | None = None  # None: as plain
    empties: str | None = None


A, M = AMBIGUOUS, MALFORMED
ROWS = [
    # Up, and out of what is permitted: every spelling of two dots, alone, before, between and behind.
    *[Row(dots + rest, A) for dots in ("%2e%2e", "%2E%2E", "%2e%2E", ".%2e", ".%2E", "%2e.", "%2E.")
      for rest in ("", "/", "/secrets", "/x/..%2e", "%20", ";/x", "%00", "/%2e%2e/x")],
    *[Row("a/" + dots, A) for dots in ("%2e%2e", ".%2E", "%2E.", "%2e", "%2E", "%2e/", "%2e/b")],
    *[Row(dots + slash + "x", A) for dots in ("..", "%2e%2e", ".%2e")
      for slash in ("%2f", "%2F", "%5c", "%5C", "\\", "%252f", "%255c", "%c0%af", "%e0%80%af", "%f0%80%80%af")],
    # More than two dots, and dots with blanks, are names to some servers and places to others.
    *[Row(dots, A) for dots in ("...", "....", ".%20", "%20.", "..%20", "%20%20", "..%20/x", "%2e%20%2e", "...%20")],
    # Dots that are part of a name.
    Row("..a", "..a"), Row("a..", "a.."), Row("a..b/c", "a..b/c"), Row(".a", ".a"), Row("a.", "a."),
    Row("%2ea", ".a"), Row("a%2e%2eb", "a..b"), Row(".well-known/x", ".well-known/x"),
    # Slashes that are data, or not.
    Row("a%2fb", A, "a%2Fb"), Row("a%2Fb/c", A, "a%2Fb/c"), Row("%2F", A, A), Row("%2fa", A, A), Row("a%2f", A, A),
    Row("a%2F%2Fb", A, A), Row("a%2f..%2fb", A, A), Row("a%2f%2e%2e%2fb", A, A), Row("..%2fa", A, A),
    Row("a%2F..", A, A), Row("a%2f.%2fb", A, A), Row("a%2F%20%2Fb", A, A), Row("a%2F...%2Fb", A, A),
    Row("a%2fb%2Fc%2fd", A, "a%2Fb%2Fc%2Fd"), Row("a%2f..b", A, "a%2F..b"), Row("a%2Fb/", A, "a%2Fb/"),
    Row("a%252fb", A, A), Row("a%252Fb", A, A), Row("a%25252fb", A, A), Row("a%c0%afb", A, A),
    Row("a%2f%00", A, A),
    Row("a%2f/b", A, A), Row("a/%2Fb", A, A), Row("a%2fb;c", A, A), Row("a%2fb%5cc", A, A),
    # Backslashes, which some servers read as slashes.
    *[Row(path, A) for path in ("a\\b", "a%5cb", "a%5Cb", "\\", "%5c", "a\\..\\b", "a%5c..%5cb", "a\\/b", "a/\\b")],
    # Segments of nothing.
    Row("a//b", A, A, "a//b"), Row("/", A, A, "/"), Row("//", A, A, "//"), Row("a//", A, A, "a//"),
    Row("/a", A, A, "/a"), Row("a///b", A, A, "a///b"), Row("a//%2e%2e/b", A, A, A), Row("a//b%2Fc", A, A, A),
    Row("a/", "a/"), Row("", ""),
    # Path parameters, which some servers cut off.
    *[Row(path, A) for path in (
        ";", "a;b", "a;/b", ";a/b", "..;/b", "a%3bb", "a%3Bb", ".;/x", "a;..", "%3b", "a;b=c",
    )],
    # What ends a string, a line or a request somewhere.
    *[Row(f"a{octet}b", A) for octet in (
        "%00", "%01", "%08", "%09", "%0a", "%0A", "%0d", "%0D%0A", "%1b", "%1f", "%7f", "%7F", "%c2%80", "%c2%85",
    )],
    Row("%00", A), Row("x%00.json", A), Row("x%0d%0aX-Injected:%201", A), Row("x%0AHTTP/1.1", A),
    # Encoded twice, and more often.
    *[Row(path, A) for path in (
        "%252e%252e", "%252e%252e/x", "%25%32%65", "%2525", "%25%32%35", "a%2541", "a%253fb", "%25%35%43", "%2500",
    )],
    Row("%252", "%252"), Row("100%25", "100%25"), Row("%25zz", "%25zz"), Row("%25", "%25"),
    # What is no UTF-8: overlong forms, halves, surrogates, beyond the last character.
    *[Row(path, A) for path in (
        "%c0%ae", "%c0%ae%c0%ae", "%c0%80", "%e0%80%ae", "%f0%80%80%ae", "%c1%9c", "%c0%2f", "%ff", "%fe%fe", "%80",
        "%c3", "%e2%82", "%ed%a0%80", "%ed%bf%bf", "%f4%90%80%80", "%f8%88%80%80%80", "%c3%28", "a%c3/b",
    )],
    # Characters that look like others, and are none of them.
    Row("%ef%bc%8e%ef%bc%8e", "%EF%BC%8E%EF%BC%8E"), Row("a%ef%bc%8fb", "a%EF%BC%8Fb"), Row("%e2%80%a5", "%E2%80%A5"),
    Row("a%e2%88%95b", "a%E2%88%95b"), Row("%e2%80%ae", "%E2%80%AE"), Row("a%e2%81%84b", "a%E2%81%84b"),
    Row("%cc%81", "%CC%81"), Row("%c3%a9", "%C3%A9"), Row("%ef%bb%bf", "%EF%BB%BF"), Row("%c2%a0", "%C2%A0"),
    # Escapes that need not be, and how they are spelled.
    Row("%41", "A"), Row("%61%7a%30%2d%5f%7e", "az0-_~"), Row("%c3%A9", "%C3%A9"), Row("a%20b", "a%20b"),
    Row("%3f", "%3F"), Row("a%23b", "a%23b"), Row("a%3fb=c", "a%3Fb=c"), Row("%40", "%40"),
    Row("%21%24%26", "%21%24%26"),
    Row("a+b", "a+b"),
    # What could name another host.
    Row("@evil.example/x", "@evil.example/x"), Row("http:", "http:"), Row(":80", ":80"), Row("a@b:1", "a@b:1"),
    Row("user:pass@evil.example", "user:pass@evil.example"), Row("%40evil.example", "%40evil.example"),
    # What is no path.
    *[Row(path, M) for path in (
        "a%", "a%2", "a%zz", "%u002e", "a%2g", "%%32e", "a<b", "a>b", 'a"b', "a{b", "a}b", "a|b", "a^b", "a`b", "a[b",
    )],
    *[Row(text * count, M) for text, count in (("%41", 513), ("a/", 66), ("a", 8200))],
]  # fmt: skip


def _case(row: Row) -> str:
    return row.path if len(row.path) < 40 else f"{row.path[:12]}... of {len(row.path)}"


def test_the_table_is_long_enough_and_says_nothing_twice() -> None:
    assert len(ROWS) >= 150
    assert len({row.path for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("upstream", OPEN)
@pytest.mark.parametrize("row", ROWS, ids=_case)
def test_a_hostile_path(lab: Any, reader: str, row: Row, upstream: str) -> None:
    path = OPEN[upstream] + row.path
    mine: str | None = getattr(row, upstream)
    expected = row.plain if mine is None else mine
    answer = lab.call(path, token=reader)
    decision = lab.events(answer)[0]
    if expected in STATUS:
        assert (answer.status, answer.code, decision["reason"]) == (STATUS[expected], expected, expected)
    else:
        name, _, below = OPEN[upstream][1:].partition("/")
        assert answer.status == 200, answer.body
        assert decision["path"] == f"/{below}{expected}"
        assert answer.json()["path"] == f"/{name}/{below}{expected}"


# Servers that stand behind gates, and how they have been known to read a path.
READINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda path: path,
    "decoded": unquote,
    "decoded twice": lambda path: unquote(unquote(path)),
    "slashes merged": lambda path: re.sub("/+", "/", unquote(path)),
    "backslashes as slashes": lambda path: unquote(path).replace("\\", "/"),
    "without parameters": lambda path: re.sub(";[^/]*", "", unquote(path)),
    "up to a NUL": lambda path: unquote(path).partition("\0")[0],
    "overlong forms allowed": lambda path: unquote(re.sub("%[cC]0%[aA][eE]", ".", path)),
    "blanks and dots trimmed": lambda path: "/".join(part.rstrip(" ") for part in unquote(path).split("/")),
}


def _resolved(path: str) -> str:
    """Where the dot segments lead (RFC 3986 §5.2.4)."""
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del kept[-1:]
        elif part != ".":
            kept.append(part)
    return "/".join(kept)


PIECES = [
    "a", "B", "/", "//", ".", "..", "%2e", "%2E", "%2f", "%2F", "%5c", "\\", "%25", "%252e", "%252f", ";", "%3b", "%00",
    "%c0", "%ae", "%af", "%20", "%09", "%41", "é", "@", ":", "*", "~", "%", "%c3%a9", "...", "+", "x.y",
]  # fmt: skip


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(upstream=st.sampled_from(sorted(OPEN)), pieces=st.lists(st.sampled_from(PIECES), max_size=8))
@example(upstream="segments", pieces=["a", "%2f", "%2e", "%2e", "%2f", "a"])
@example(upstream="empties", pieces=["//", "..", "//"])
def test_whatever_is_let_through_is_below_what_policy_permits(
    lab: Any, reader: str, upstream: str, pieces: list[str]
) -> None:
    """For every generated path: policy's path and the upstream's are one, and no reading of it leads elsewhere."""
    answer = lab.call((OPEN[upstream] + "".join(pieces)).encode(), token=reader)
    decision = lab.events(answer)[0]
    if answer.status != 200:
        assert (decision["decision"], decision["reason"]) == ("deny", answer.code)
        assert answer.code in STATUS
        return
    name, _, below = OPEN[upstream][1:].partition("/")
    got = answer.json()["path"]
    assert got == f"/{name}{decision['path']}"
    for reading in READINGS.values():
        assert f"{_resolved(reading(got))}/".startswith(f"/{name}/{below}")
