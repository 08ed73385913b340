"""From a seed to a bundle: the one JSON document that the gate decides by (shape: docs/kv-schema.md).

Here everything that a seed says is checked for what it means: that names exist, that addresses are ones the
gate may call, that patterns can match something. The last word is the gate's own reader of bundles.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airgate.engine import Bundle, load_bundle
from airgate.policy.seed import Entry, Keys, Problem, Seed, SeedError, either, nearest, quoted, read

FORMAT = 1
OWN = "-"  # the upstream that stands for the gate's own pages
OWN_PAGES = {"/health": "GET"}

_DURATION = re.compile(r"[1-9][0-9]{0,5}[smh]")
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_HOST = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:.]+\]"
)
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_PLACEHOLDER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")
_REGEX = re.compile(r"^\^|\$$|\.[*+]|\[.*\]|\||\(\?|[)\]][*+?]|\\")
_IDENTIFIER = re.compile(r"[\w.*-]+")  # Airflow's own rule for ids of DAGs and tasks, and *


@dataclass(frozen=True)
class StandIns:
    """The local stack's servers, which take the place of everything that a seed marks with `local`."""

    provider: str  # issuer URL
    sample: str  # base URL; an upstream's name is added as a path


@dataclass(frozen=True)
class Compiled:
    """A bundle, as it's written to KV."""

    bundle: dict[str, Any]
    text: str
    seed: Seed
    engine: Bundle  # the same, loaded by the gate's own code

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()


def compile_folder(root: Path, stand_ins: StandIns | None = None) -> Compiled:
    """Read the seed below `root` and compile it. Raises `SeedError` with every problem there is."""
    return compile_seed(read(root), stand_ins)


def compile_seed(seed: Seed, stand_ins: StandIns | None = None) -> Compiled:
    """Compile a seed that has been read. Raises `SeedError` with every problem there is."""
    # What is wrong in structure at some place needs no second problem about its meaning.
    places = {(problem.file, problem.line, problem.column) for problem in seed.problems}
    meaning = [
        problem for problem in _meaning(seed) if (problem.file, problem.line, problem.column) not in places
    ]
    if seed.problems or meaning:
        raise SeedError([*seed.problems, *meaning])
    bundle = {
        "format": FORMAT,
        "issuers": {name: _issuer(entry.data, stand_ins) for name, entry in seed.issuers.items()},
        "roles": {
            name: [_grant(item) for item in entry.data["granted_to"]] for name, entry in seed.roles.items()
        },
        "upstreams": {name: _upstream(name, entry.data, stand_ins) for name, entry in seed.upstreams.items()},
        "policies": [_policy(seed.policies[name].data) for name in sorted(seed.policies)],
    }
    text = canonical(bundle)
    try:
        engine = load_bundle(text)
    except ValueError as error:
        raise SeedError(
            [Problem(str(seed.root), 0, 0, "", f"the gate would refuse this policy: {error}")]
        ) from error
    return Compiled(bundle, text, seed, engine)


def canonical(value: object) -> str:
    """JSON with one spelling: keys sorted, no spaces, characters as they are. Its UTF-8 bytes are hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def seconds(duration: str) -> int:
    """`30s`, `5m` and `1h` in seconds."""
    return int(duration[:-1]) * _SECONDS[duration[-1]]


def listed(value: str | list[str]) -> list[str]:
    """Seeds allow one name in place of a list of one."""
    return [value] if isinstance(value, str) else value


def _issuer(data: dict[str, Any], stand_ins: StandIns | None) -> dict[str, Any]:
    local = stand_ins is not None and data.get("local") == "provider"
    kind = data.get("kind", {})
    return {
        "issuer": stand_ins.provider if stand_ins is not None and local else data["issuer"],
        "jwks_uri": None if local else data.get("jwks_uri"),
        "audiences": data["audiences"],
        "algorithms": data["algorithms"],
        "type": data.get("type", "at+jwt"),
        "max_lifetime": seconds(data.get("max_lifetime", "1h")),
        "clock_skew": seconds(data.get("clock_skew", "60s")),
        "kind": {
            "claim": listed(kind["claim"]) if "claim" in kind else None,
            "default": kind.get("default", "workload"),
        },
        "attested": {name: listed(claim) for name, claim in data.get("attested", {}).items()},
    }


def _grant(item: dict[str, Any]) -> dict[str, Any]:
    if "subject" in item:
        return {"issuer": item["issuer"], "subject": item["subject"]}
    return {"issuer": item["issuer"], "claim": listed(item["claim"]), "value": item["value"]}


def _upstream(name: str, data: dict[str, Any], stand_ins: StandIns | None) -> dict[str, Any]:
    local = stand_ins is not None and data.get("local") == "sample"
    return {
        "base": f"{stand_ins.sample}/{name}" if stand_ins is not None and local else data["base"],
        "owner": data["owner"],
        "timeout": seconds(data.get("timeout", "30s")),
        "log_path": data.get("log_path", False),
    }


def _choice(data: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: data.get(name, []) for name in ("any", "all", "none")}


def _policy(data: dict[str, Any]) -> dict[str, Any]:
    subject, workload, target = data.get("subject", {}), data.get("workload"), data["target"]
    return {
        "id": data["id"],
        "description": data["description"],
        "owner": data["owner"],
        "effect": data["effect"],
        "mode": data.get("mode", "enforce"),
        "subject": {
            "issuers": listed(subject["issuer"]) if "issuer" in subject else None,
            "ids": listed(subject["id"]) if "id" in subject else None,
            "kinds": listed(subject["kind"]) if "kind" in subject else None,
            "roles": _choice(subject.get("roles", {})),
        },
        "workload": None
        if workload is None
        else {
            "dag": listed(workload["dag"]) if "dag" in workload else None,
            "task": listed(workload["task"]) if "task" in workload else None,
            "tags": _choice(workload["tags"]) if "tags" in workload else None,
            "attested": workload.get("attested", False),
        },
        "target": {
            "upstreams": listed(target["upstream"]),
            "methods": target["methods"],
            "paths": target["paths"],
        },
    }


def _meaning(seed: Seed) -> Iterator[Problem]:
    """What is wrong apart from the structure. Entries may have any structure here."""
    for entry in seed.issuers.values():
        yield from _issuer_problems(entry)
    for entry in seed.roles.values():
        grants = entry.at("granted_to")
        for number in range(len(grants) if isinstance(grants, list) else 0):
            yield from _known(seed, "issuer", seed.issuers, entry, ("granted_to", number, "issuer"))
    for entry in seed.upstreams.values():
        yield from _upstream_problems(entry)
    for entry in seed.policies.values():
        yield from _policy_problems(seed, entry)
    # Two issuers with one URL: whose rules would a token follow?
    for member in ("issuer", "local"):
        first: dict[str, Entry] = {}
        for entry in seed.issuers.values():
            for keys, value in entry.names(member):
                if first.setdefault(value, entry) is not entry:
                    yield entry.problem(
                        keys, f"{quoted(value)}: only one issuer may have it; {first[value].place} does"
                    )


def _issuer_problems(entry: Entry) -> Iterator[Problem]:
    for member in ("issuer", "jwks_uri"):
        for keys, url in entry.names(member):
            if wrong := _address(url):
                yield entry.problem(keys, wrong)
    yield from _within(entry, "max_lifetime", "1s", "24h")
    yield from _within(entry, "clock_skew", "1s", "5m")


def _upstream_problems(entry: Entry) -> Iterator[Problem]:
    for keys, base in entry.names("base"):
        if wrong := _address(base):
            yield entry.problem(keys, wrong)
        elif base.endswith("/"):
            yield entry.problem(keys, f"{quoted(base)}: ends with a slash; write {quoted(base.rstrip('/'))}")
    yield from _within(entry, "timeout", "1s", "1h")


def _policy_problems(seed: Seed, entry: Entry) -> Iterator[Problem]:
    yield from _known(seed, "issuer", seed.issuers, entry, ("subject", "issuer"))
    for quantifier in ("any", "all", "none"):
        yield from _known(seed, "role", seed.roles, entry, ("subject", "roles", quantifier))
        for keys, tag in entry.names("workload", "tags", quantifier):
            if "," in tag or tag != tag.strip():
                yield entry.problem(
                    keys, f"{quoted(tag)}: can't match; a tag has no comma and no space around it"
                )
    for member in ("dag", "task"):
        for keys, pattern in entry.names("workload", member):
            if wrong := _identifier(pattern):
                yield entry.problem(keys, wrong)
    upstreams = [name for _, name in entry.names("target", "upstream")]
    if OWN in upstreams:
        if len(upstreams) > 1:
            text = f'"{OWN}" is the gate itself; give it a policy of its own'
            yield entry.problem(("target", "upstream"), text)
        yield from _own_pages(entry)
        return
    yield from _known(seed, "upstream", seed.upstreams, entry, ("target", "upstream"))
    for keys, pattern in entry.names("target", "paths"):
        if wrong := path_pattern(pattern):
            yield entry.problem(keys, wrong)


def _own_pages(entry: Entry) -> Iterator[Problem]:
    """The gate's own pages are few, so a policy for them can be checked to the letter."""
    for keys, path in entry.names("target", "paths"):
        if path not in OWN_PAGES:
            yield entry.problem(
                keys, f"{quoted(path)}: the gate has no such page; it has {either(list(OWN_PAGES))}"
            )
    for keys, method in entry.names("target", "methods"):
        if method not in OWN_PAGES.values():
            answers = either(list(OWN_PAGES.values()))
            yield entry.problem(keys, f"{quoted(method)}: the gate's own pages answer {answers} only")


def _known(seed: Seed, noun: str, known: dict[str, Entry], entry: Entry, keys: Keys) -> Iterator[Problem]:
    """Names at `keys` that nothing defines. A file that can't be read may define them: no word then."""
    for place, name in entry.names(*keys) if seed.complete else ():
        if name not in known:
            hint = nearest(name, known) or f"; known: {', '.join(sorted(known)) or 'none'}"
            yield entry.problem(place, f"{quoted(name)}: no such {noun}{hint}")


def _within(entry: Entry, member: str, least: str, most: str) -> Iterator[Problem]:
    for keys, value in entry.names(member):
        if _DURATION.fullmatch(value) and not seconds(least) <= seconds(value) <= seconds(most):
            yield entry.problem(keys, f"{quoted(value)}: must be from {least} to {most}")


def _address(url: str) -> str:
    """What is wrong with a URL that the gate would call; empty when nothing is."""
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
    if parts.scheme == "http" and host not in _LOOPBACK:
        return (
            f"{shown}: http would send tokens and data in the clear; write https (http only for this machine)"
        )
    if not _HOST.fullmatch(host) or host != host.lower():
        return f"{shown}: {quoted(host)} is not a host name in small letters (no wildcards)"
    if not _PREFIX.fullmatch(parts.path.removesuffix("/")) or "/." in parts.path:
        return f"{shown}: a path here is letters, digits and . _ ~ -, and no segment begins with a dot"
    return ""


def path_pattern(pattern: str) -> str:
    """What is wrong with a path pattern; empty when nothing is."""
    shown = quoted(pattern)
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
        if wrong := _segment(segment):
            return f"{shown}: {wrong}"
    return ""


def _segment(segment: str) -> str:
    if segment == "":
        return "holds an empty segment (//), which the gate refuses in requests; write one slash"
    if segment in (".", ".."):
        return f"holds the segment {quoted(segment)}, which the gate refuses; write the path it leads to"
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


def _identifier(pattern: str) -> str:
    """What is wrong with a pattern for DAG or task ids; empty when nothing is."""
    if _IDENTIFIER.fullmatch(pattern) and "**" not in pattern:
        return ""
    hint = "ids of DAGs and tasks hold letters, digits and _ . -; * matches any run of them"
    return f"{quoted(pattern)}: can't match; {hint}"
