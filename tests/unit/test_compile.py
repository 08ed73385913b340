"""Compiling a seed: what it says is checked for meaning, and the gate's own reader has the last word."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from airgate.engine import load_bundle
from airgate.policy import app
from airgate.policy.compile import StandIns, compile_folder, path_pattern
from airgate.policy.seed import STARTER, SeedError

ISSUER = "{issuer: https://login.example.com, audiences: [https://gate.example.com], algorithms: [RS256]}"
SEED = f"""\
issuers:
  company: {ISSUER}
roles:
  publisher: {{description: d, granted_to: [{{issuer: company, claim: groups, value: publishers}}]}}
upstreams:
  ledger: {{base: https://ledger.example.com, owner: o@example.com}}
policies:
  - id: publish
    description: d
    owner: o@example.com
    effect: permit
    subject: {{issuer: company, roles: {{any: [publisher]}}}}
    target: {{upstream: ledger, methods: [POST], paths: [/v1/entries]}}
"""


def write(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    monkeypatch.chdir(folder)
    (folder / "seed").mkdir()
    (folder / "seed" / "a.yaml").write_text(text, "utf-8")
    return folder / "seed"


def problems(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> list[str]:
    with pytest.raises(SeedError) as caught:
        compile_folder(write(folder, monkeypatch, text))
    return [str(problem) for problem in caught.value.problems]


# name, what to replace, with what, the problem
MISTAKES: list[tuple[str, str, str, str]] = [
    (
        "an unknown role",
        "[publisher]",
        "[publsher]",
        '12:46: subject.roles.any: "publsher": no such role; did you mean "publisher"?',
    ),
    (
        "an unknown issuer",
        "subject: {issuer: company",
        "subject: {issuer: okta",
        '12:23: subject.issuer: "okta": no such issuer; known: company',
    ),
    (
        "a grant by an unknown issuer",
        "[{issuer: company",
        "[{issuer: compny",
        '4:53: roles.publisher.granted_to.issuer: "compny": no such issuer; did you mean "company"?',
    ),
    (
        "an unknown upstream",
        "upstream: ledger",
        "upstream: ledgr",
        '13:24: target.upstream: "ledgr": no such upstream; did you mean "ledger"?',
    ),
    (
        "a page the gate has not",
        "upstream: ledger",
        'upstream: "-"',
        '13:54: target.paths: "/v1/entries": the gate has no such page; it has /health',
    ),
    (
        "a method the gate's pages have not",
        "upstream: ledger",
        'upstream: "-"',
        '13:39: target.methods: "POST": the gate\'s own pages answer GET only',
    ),
    (
        "the gate among upstreams",
        "upstream: ledger",
        'upstream: ["-", ledger]',
        '13:24: target.upstream: "-" is the gate itself',
    ),
    (
        "a path that begins nowhere",
        "/v1/entries",
        "v1/entries",
        '13:57: target.paths: "v1/entries": begins without a slash',
    ),
    (
        "a password in an address",
        "https://ledger",
        "https://u:secret@ledger",
        "6:18: upstreams.ledger.base: holds a user name or password",
    ),
    ("a query in an address", "ledger.example.com", "ledger.example.com/?a=b", "has a query or fragment"),
    (
        "a slash at an address's end",
        "ledger.example.com",
        "ledger.example.com/",
        'ends with a slash; write "https://ledger.example.com"',
    ),
    ("http to elsewhere", "https://ledger", "http://ledger", "http would send tokens and data in the clear"),
    ("a wildcard host", "https://ledger", "https://*", '"*.example.com" is not a host name'),
    ("a host in capitals", "https://ledger", "https://Ledger", "is not a host name in small letters"),
    ("another scheme", "https://ledger", "ftp://ledger", "expected an address such as https://"),
    ("no host", "https://ledger.example.com", "https:///x", "expected an address such as https://"),
    (
        "a port out of range",
        "ledger.example.com",
        "ledger.example.com:99999",
        "not an address: Port out of range",
    ),
    ("dots in an address", "ledger.example.com", "ledger.example.com/../x", "no segment begins with a dot"),
    (
        "an issuer by http",
        "https://login",
        "http://login",
        '2:21: issuers.company.issuer: "http://login.example.com": http would',
    ),
    (
        "too much patience",
        "owner: o@example.com}",
        "owner: o@example.com, timeout: 2h}",
        '6:77: upstreams.ledger.timeout: "2h": must be from 1s to 1h',
    ),
    (
        "an everlasting token",
        "algorithms: [RS256]}",
        "algorithms: [RS256], max_lifetime: 48h}",
        '"48h": must be from 1s to 24h',
    ),
    (
        "a DAG id with a space",
        "    target:",
        "    workload: {dag: a b, attested: false}\n    target:",
        '13:21: workload.dag: "a b": can\'t match',
    ),
    (
        "a tag with a comma",
        "    target:",
        '    workload: {tags: {any: ["a,b"]}, attested: false}\n    target:',
        '13:29: workload.tags.any: "a,b": can\'t match',
    ),
    (
        "two issuers with one address",
        "roles:\n",
        f"  other: {ISSUER}\nroles:\n",
        '3:19: issuers.other.issuer: "https://login.example.com": only one issuer may have it; seed/a',
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "expected"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES]
)
def test_a_mistake_is_named_with_its_place(
    old: str, new: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert old in SEED
    found = problems(tmp_path, monkeypatch, SEED.replace(old, new, 1))
    assert [line for line in found if expected in line], found


def test_no_password_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hunter2" not in "\n".join(
        problems(tmp_path, monkeypatch, SEED.replace("https://ledger", "https://u:hunter2@ledger"))
    )


def test_all_problems_are_named_at_once_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        SEED.replace("[POST]", "POST")
        .replace("[publisher]", "[nobody]")
        .replace("https://ledger", "http://ledger")
    )
    found = problems(tmp_path, monkeypatch, text)
    assert [line.split(":")[1] for line in found] == ["6", "12", "13"]


def test_a_file_that_cannot_be_read_makes_no_names_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, monkeypatch, SEED.replace("[publisher]", "[defined-in-b]"))
    (folder / "b.yaml").write_text("roles: [", "utf-8")
    with pytest.raises(SeedError) as caught:
        compile_folder(folder)
    assert [problem.file for problem in caught.value.problems] == ["seed/b.yaml"]


PATTERNS: list[tuple[str, str]] = [
    ("/", ""),
    ("/**", ""),
    ("/v1/entries", ""),
    ("/v1/entries/{id}", ""),
    ("/v1/{a}/x/{b_2}/**", ""),
    ("/v1/*/x", ""),
    ("/report-*.csv", ""),
    ("/Orders(1)/$metadata", ""),
    ("/Q1 2026/Überblick", ""),
    ("v1", "begins without a slash"),
    ("", "begins without a slash"),
    ("/a/", "ends with a slash"),
    ("//", "ends with a slash"),
    ("/a//b", "an empty segment"),
    ("/a/./b", 'the segment "."'),
    ("/a/..", 'the segment ".."'),
    ("/a/**/b", '"**" stands alone, and last'),
    ("/a**", '"**" stands alone, and last'),
    ("/***", '"**" stands alone, and last'),
    ("/{id", "unbalanced brace"),
    ("/id}", "unbalanced brace"),
    ("/{}", "not a whole {name}"),
    ("/{a}{b}", "not a whole {name}"),
    ("/x-{id}", "not a whole {name}"),
    ("/{2a}", "not a whole {name}"),
    ("/a?b=c", "a query or fragment"),
    ("/a#b", "a query or fragment"),
    ("/.*", "reads like a regular expression"),
    ("/^a", "reads like a regular expression"),
    ("/a$", "reads like a regular expression"),
    ("/team[0-9]", "reads like a regular expression"),
    ("/(a|b)", "reads like a regular expression"),
    ("/a\\d", "reads like a regular expression"),
    ("/a%20b", "percent-encoded"),
    ("/%2e%2e", "percent-encoded"),
    ("/a;b", "semicolon"),
]


@pytest.mark.parametrize(("pattern", "wrong"), PATTERNS, ids=[pattern or "empty" for pattern, _ in PATTERNS])
def test_path_patterns(pattern: str, wrong: str) -> None:
    said = path_pattern(pattern)
    assert wrong in said
    assert bool(said) == bool(wrong)


def test_the_bundle_of_a_small_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = compile_folder(write(tmp_path, monkeypatch, SEED))
    assert compiled.bundle == {
        "format": 1,
        "issuers": {
            "company": {
                "issuer": "https://login.example.com",
                "jwks_uri": None,
                "audiences": ["https://gate.example.com"],
                "algorithms": ["RS256"],
                "type": "at+jwt",
                "max_lifetime": 3600,
                "clock_skew": 60,
                "kind": {"claim": None, "default": "workload"},
                "attested": {},
            }
        },
        "roles": {"publisher": [{"issuer": "company", "claim": ["groups"], "value": "publishers"}]},
        "upstreams": {
            "ledger": {
                "base": "https://ledger.example.com",
                "owner": "o@example.com",
                "timeout": 30,
                "log_path": False,
            }
        },
        "policies": [
            {
                "id": "publish",
                "description": "d",
                "owner": "o@example.com",
                "effect": "permit",
                "mode": "enforce",
                "subject": {
                    "issuers": ["company"],
                    "ids": None,
                    "kinds": None,
                    "roles": {"any": ["publisher"], "all": [], "none": []},
                },
                "workload": None,
                "target": {"upstreams": ["ledger"], "methods": ["POST"], "paths": ["/v1/entries"]},
            }
        ],
    }


def test_a_workload_block_is_carried_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = SEED.replace("permit", "forbid") + "    workload: {dag: finance_*, tags: {none: [x]}}\n"
    compiled = compile_folder(write(tmp_path, monkeypatch, text))
    assert compiled.bundle["policies"][0]["workload"] == {
        "dag": ["finance_*"],
        "task": None,
        "tags": {"any": [], "all": [], "none": ["x"]},
        "attested": False,
    }


def test_the_text_is_canonical_and_its_hash_is_that_of_its_bytes() -> None:
    compiled = compile_folder(STARTER)
    assert compiled.text == json.dumps(
        json.loads(compiled.text), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert compiled.sha256 == hashlib.sha256(compiled.text.encode("utf-8")).hexdigest()
    assert compile_folder(STARTER).sha256 == compiled.sha256


def test_policies_are_sorted_so_that_moving_them_changes_nothing() -> None:
    ids = [policy["id"] for policy in compile_folder(STARTER).bundle["policies"]]
    assert ids == sorted(ids)


def test_the_gate_reads_the_starter_bundle() -> None:
    compiled = compile_folder(STARTER, StandIns("http://127.0.0.1:9400", "http://127.0.0.1:9500"))
    bundle = load_bundle(compiled.text)
    assert set(bundle.issuers) == {"http://127.0.0.1:9400"}
    assert {upstream.base for upstream in bundle.upstreams.values()} == {
        f"http://127.0.0.1:9500/{name}" for name in compiled.seed.upstreams
    }
    assert compiled.sha256.startswith(bundle.version)


def test_without_stand_ins_the_marks_mean_nothing() -> None:
    compiled = compile_folder(STARTER)
    assert compiled.bundle["issuers"]["company"]["issuer"] == "https://login.example.com"
    assert "127.0.0.1" not in compiled.text


# name, what to replace, with what, exit status, a line of the output
CHECKS: list[tuple[str, str, str, int, str]] = [
    ("clean", "POST", "POST", 0, "seed: 1 issuer, 1 role, 1 upstream, 1 policy (1 permit, 0 forbid); clean"),
    (
        "a role that nobody uses",
        "roles: {any: [publisher]}",
        "kind: human",
        1,
        "seed/a.yaml:4:3: roles.publisher: no policy uses",
    ),
    (
        "an upstream that nobody names",
        "upstream: ledger, methods: [POST], paths: [/v1/entries]",
        'upstream: "-", methods: [GET], paths: [/health]',
        1,
        "seed/a.yaml:6:3: upstreams.ledger: no policy names",
    ),
    (
        "every method",
        "[POST]",
        '["*"]',
        1,
        'seed/a.yaml:13:42: target.methods: "*": permits every way of writing',
    ),
    (
        "writes to every path",
        "[/v1/entries]",
        '["/**"]',
        1,
        'seed/a.yaml:13:57: target.paths: "/**": permits writing to every path',
    ),
    ("reads of every path", "[POST], paths: [/v1/entries]", '[GET], paths: ["/**"]', 0, "clean"),
    ("a forbid of everything", "effect: permit", "effect: forbid", 0, "clean"),
    ("invalid", "[publisher]", "[nobody]", 2, "Invalid: 1 problem."),
]


@pytest.mark.parametrize(
    ("old", "new", "status", "expected"), [row[1:] for row in CHECKS], ids=[row[0] for row in CHECKS]
)
def test_check(
    old: str, new: str, status: int, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert old in SEED
    folder = write(tmp_path, monkeypatch, SEED.replace(old, new, 1))
    result = CliRunner().invoke(app, ["check", str(folder)])
    assert result.exit_code == status
    assert expected in result.output


def test_the_starter_seed_is_clean() -> None:
    result = CliRunner().invoke(app, ["check"])
    assert result.exit_code == 0
    assert result.output.strip().endswith("clean")


def places(value: object, found: list[tuple[Any, Any]]) -> None:
    """Every place in a document that holds a value: its container and its key or index."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        found.append((value, key))
        places(inner, found)


@pytest.mark.parametrize(
    "wrong", [None, True, 3, 1.5, "", "*", "-", [], {}, [None], [[]], {"any": 1}], ids=repr
)
def test_whatever_stands_anywhere_is_compiled_or_refused(wrong: object, tmp_path: Path) -> None:
    text = SEED + "    workload: {dag: [a], task: b, tags: {any: [c]}, attested: false}\n"
    found: list[tuple[Any, Any]] = []
    document = yaml.safe_load(text)
    places(document, found)
    for container, key in found:
        before = container[key]
        container[key] = wrong
        (tmp_path / "a.yaml").write_text(yaml.safe_dump(document), "utf-8")
        try:
            assert load_bundle(compile_folder(tmp_path).text)
        except SeedError as error:
            assert all("the gate would refuse" not in problem.text for problem in error.problems)  # noqa: PT017
        container[key] = before
    assert len(found) > 40
