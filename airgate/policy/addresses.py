"""Addresses that the gate may call, path patterns, and patterns for ids: each function says what is wrong with one.

An empty answer: nothing is.
"""

import re
from urllib.parse import urlsplit

from airgate.engine import MAX_SEGMENTS
from airgate.policy import hosts
from airgate.policy.index import decoded
from airgate.policy.words import quoted

LONGEST = 1000  # characters of a path pattern

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_ENCODED_SLASH = re.compile(r"%2[Ff]")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_REGEX = re.compile(r"^\^|\$$|\.[*+]|\[.*\]|\||\(\?|[)\]][*+?]|\\")
_IDENTIFIER = re.compile(r"[\w.*-]+")  # Airflow's own rule for ids of DAGs and tasks, and *


def address(url: str, *, clear: bool = False) -> str:
    """What is wrong with a URL that the gate would call; empty when nothing is. `clear`: http is as good as https."""
    shown = quoted(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"{shown}: not an address: {error}"
    if (
        any(character <= " " for character in url)
        or parts.scheme not in ("https", "http")
        or not parts.netloc
    ):
        return f"{shown}: expected an address such as https://api.example.com"
    if "@" in parts.netloc:
        return "holds a user name or password; secrets never stand in policy, so write the address without it"
    if "?" in url or "#" in url:
        return f"{shown}: has a query or fragment; write the address without it"
    host = parts.netloc.rpartition(":")[0] if port is not None else parts.netloc
    if parts.scheme == "http" and host not in hosts.LOOPBACK and not clear:
        return (
            f"{shown}: http would send tokens and data in the clear; write https (http only for this machine)"
        )
    if wrong := hosts.host(host):
        return f"{shown}: {wrong}"
    if not _PREFIX.fullmatch(parts.path.removesuffix("/")) or "/." in parts.path:
        return f"{shown}: a path here is letters, digits and . _ ~ -, and no segment begins with a dot"
    return ""


def private_address(url: str) -> str:
    """What keeps a URL, which `address` has found nothing wrong with, from being a public one; empty: nothing does."""
    host = authority(url).rpartition(":")[0] if urlsplit(url).port is not None else authority(url)
    if host in hosts.LOOPBACK:
        return ""
    wrong = hosts.private(host)
    return f"{quoted(url)}: {wrong}" if wrong else ""


def authority(url: str) -> str:
    """Host and port of a URL, as they are written there."""
    return urlsplit(url).netloc


def path_pattern(pattern: str, refused: str = "") -> str:
    """What is wrong with a path pattern; empty when nothing is.

    `refused`: the name of an upstream of the policy's that refuses encoded slashes; empty: all take them.
    """
    shown = quoted(pattern)
    if len(pattern) > LONGEST:
        return f"{shown}: longer than {LONGEST} characters"
    if not pattern.startswith("/"):
        return f"{shown}: begins without a slash; write {quoted('/' + pattern)}"
    if "?" in pattern or "#" in pattern:
        return f"{shown}: holds a query or fragment; a pattern matches the path only, so end it before that"
    if pattern == "/":
        return ""
    segments = pattern[1:].split("/")
    if segments[-1] == "":
        return f"{shown}: ends with a slash; write {quoted(pattern.rstrip('/'))}, which also matches with one"
    for number, segment in enumerate(segments, 1):
        if segment == "**" and number == len(segments):
            continue
        if wrong := _encoded_slash(segment, refused) or _segment(decoded(segment)):
            return f"{shown}: {wrong}"
    if len(segments) - (segments[-1] == "**") > MAX_SEGMENTS:
        return f"{shown}: has more than {MAX_SEGMENTS} segments, and the gate refuses requests that do"
    names = placeholders(pattern)
    if twice := next((name for name in names if names.count(name) > 1), None):
        return f"{shown}: {{{twice}}} stands there twice; give each segment a name of its own"
    return ""


def _encoded_slash(segment: str, refused: str) -> str:
    if not refused or _ENCODED_SLASH.search(segment) is None:
        return ""
    return (
        f"{quoted(segment)} holds an encoded slash, and calls of {refused} with one are refused; "
        f'write "encoded_slash: segment" there if its API takes them for data'
    )


def placeholders(pattern: str) -> list[str]:
    """The names in braces of a path pattern."""
    return [match[1] for segment in pattern.split("/") if (match := _PLACEHOLDER.fullmatch(segment))]


def _segment(segment: str) -> str:
    if segment == "":
        return "holds an empty segment (//), which the gate refuses in requests; write one slash"
    if segment in (".", ".."):
        return f"holds the segment {quoted(segment)}, which the gate refuses; write the path it leads to"
    if "/" in segment and any(not part.strip(". ") for part in segment.split("/")):
        return (
            f"{quoted(segment)} holds nothing, or dots only, beside an encoded slash, which the gate refuses"
        )
    if "**" in segment:
        return '"**" stands alone, and last, as in "/v1/reports/**"; elsewhere write * for one segment'
    if "{" in segment or "}" in segment:
        if _PLACEHOLDER.fullmatch(segment):
            return ""
        if segment.count("{") != segment.count("}"):
            return f"{quoted(segment)} has an unbalanced brace; write a whole segment such as {{id}}"
        return (
            f"{quoted(segment)} is not a whole {{name}} of letters, digits and _; * matches inside a segment"
        )
    if _REGEX.search(segment):
        return (
            f"{quoted(segment)} reads like a regular expression; there are none, * matches inside one segment"
        )
    if "%" in segment:
        return f"{quoted(segment)} is percent-encoded; segments are matched decoded, so write the character"
    if ";" in segment:
        return f"{quoted(segment)} holds a semicolon, which the gate refuses in requests"
    return ""


def identifier(pattern: str) -> str:
    """What is wrong with a pattern for DAG or task ids; empty when nothing is."""
    if _IDENTIFIER.fullmatch(pattern) and "**" not in pattern:
        return ""
    hint = "ids of DAGs and tasks hold letters, digits and _ . -; * matches any run of them"
    return f"{quoted(pattern)}: can't match; {hint}"
