"""Compiling a seed: what it says is checked for meaning, and the gate's own reader has the last word."""

import hashlib
import json
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import every_setting
import pytest
import yaml
from typer.testing import CliRunner

from airgate.engine import (
    KIND,
    KINDS,
    SCOPE,
    Bundle,
    Call,
    Caller,
    Fact,
    Identity,
    Target,
    load_bundle,
    load_pointer,
    load_shard,
    parse_target,
    read_copy,
    read_head,
)
from airgate.node import PROJECT
from airgate.policy import app, index
from airgate.policy.addresses import path_pattern
from airgate.policy.compile import StandIns, compile_folder, compile_seed
from airgate.policy.limits import LADDER
from airgate.policy.policyset import PolicySet
from airgate.policy.seed import STARTER, SeedError
from airgate.policy.seed import read as read_seed

ISSUER = "{issuer: https://login.example.com, audiences: [https://gate.example.com], algorithms: [RS256]}"
WORKDAY = datetime(2026, 11, 18, 12, tzinfo=UTC).timestamp()
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
        "a grant by the claim that holds scopes",
        "claim: groups, value: publishers",
        "claim: scope, value: ledger.write",
        '4:69: roles.publisher.granted_to.claim: "scope": may be one text that holds many scopes; write '
        "scope: ledger.write in place of claim and value",
    ),
    (
        "a grant by the claim that holds scopes, under its other name",
        "claim: groups, value: publishers",
        "claim: [scp], value: a b",
        '4:69: roles.publisher.granted_to.claim: "scp": may be one text that holds many scopes; write scope: …',
    ),
    (
        "values of no claim",
        "algorithms: [RS256]}",
        "algorithms: [RS256], kind: {values: {app: workload}}}",
        "2:123: issuers.company.kind.values: says what a claim's values mean; write which: claim",
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
        '13:54: target.paths: "/v1/entries": the gate has no such page; it has /health, /token,',
    ),
    (
        "a method the gate's pages have not",
        "upstream: ledger, methods: [POST], paths: [/v1/entries]",
        'upstream: "-", methods: [POST], paths: [/health]',
        '13:39: target.methods: "POST": these pages answer GET only',
    ),
    (
        "a page by another method",
        "upstream: ledger, methods: [POST], paths: [/v1/entries]",
        'upstream: "-", methods: [GET], paths: [/health, /access/v1/evaluation]',
        '13:62: target.paths: "/access/v1/evaluation": answers POST only',
    ),
    (
        "a page misspelt",
        "upstream: ledger, methods: [POST], paths: [/v1/entries]",
        'upstream: "-", methods: [POST], paths: [/access/v1/evalution]',
        '13:54: target.paths: "/access/v1/evalution": the gate has no such page; did you mean "/access/v1/evaluation"?',
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
        '"48h": must be from 1s to 25h',
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
        "a claim twice",
        "subject: {issuer: company,",
        "subject: {issuer: company, claims: [{claim: a, any: [x]}, {claim: [a], none: [y]}],",
        '12:71: subject.claims.claim: ["a"]: stands here twice; write its any, all and none side by side',
    ),
    (
        "a claim without a value",
        "subject: {issuer: company,",
        "subject: {issuer: company, claims: [{claim: a}],",
        "12:41: subject.claims: says nothing; write any, all or none",
    ),
    (
        "an obligation on a forbid",
        "effect: permit",
        "effect: forbid\n    obligations: {max_body: 1MB}",
        "12:18: obligations: a forbid lets nothing through, so it has no obligations; write them on the permits",
    ),
    (
        "asking on a forbid",
        "effect: permit",
        "effect: forbid\n    asking: {about: self}",
        "12:13: asking: only a permit says what may be asked",
    ),
    (
        "an exchange on a forbid",
        "effect: permit",
        "effect: forbid\n    exchange: {upstreams: ledger}",
        "12:15: exchange: only a permit says what may be exchanged",
    ),
    (
        "an upstream with the gate's own name",
        "  ledger:",
        "  access:",
        '6:3: upstreams.access: "access": is where the gate answers AuthZEN questions; choose another name',
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


def test_there_is_an_end_to_the_problems_that_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = SEED.partition("policies:\n")[2].replace("[publisher]", "[nobody]")
    text = SEED + "".join(again.replace("id: publish", f"id: p{number}") for number in range(600))
    found = problems(tmp_path, monkeypatch, text)
    assert len(found) == 501
    assert "seed: 500 problems and more; the rest is not looked at" in found


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
        "format": 5,
        "issuers": {
            "company": {
                "issuer": "https://login.example.com",
                "jwks_uri": None,
                "audiences": ["https://gate.example.com"],
                "authorized_parties": [],
                "algorithms": ["RS256"],
                "type": "at+jwt",
                "max_lifetime": 3600,
                "clock_skew": 60,
                "dpop": "optional",
                "dpop_replay": "isolate",
                "role_tag": "optional",
                "require": [],
                "truncates": [],
                "kind": {"claim": None, "default": "workload", "values": {}},
                "attested": {},
            }
        },
        "roles": {"publisher": [{"issuer": "company", "claim": ["groups"], "value": "publishers"}]},
        "upstreams": {
            "ledger": {
                "base": "https://ledger.example.com",
                "owner": "o@example.com",
                **every_setting.USUAL,
            }
        },
        "claims": [],
        "shards": {"ledger": hashlib.sha256(compiled.shards["ledger"].encode()).hexdigest()},
        "zones_until": None,
    }
    assert json.loads(compiled.shards["ledger"]) == {
        "format": 5,
        "upstream": "ledger",
        "owners": ["o@example.com"],
        "zones": {},
        "conditions": [["subject.issuer", ["company"]], ["subject.roles.any", ["publisher"]]],
        "obligations": [],
        "policies": [["publish", 0, "permit", ["POST"], ["/v1/entries"], [0, 1], None]],
        "index": [
            {
                "v1": [
                    {"entries": [None, None, None, {"POST": {"publisher": [0, 0]}}, None]},
                    None,
                    None,
                    None,
                    None,
                ]
            },
            None,
            None,
            None,
            None,
        ],
    }


TARGET = "target: {upstream: ledger, methods: [POST], paths: [/v1/entries]}"
ASKS = 'target: {upstream: "-", methods: [POST], paths: [/access/v1/evaluation]}'
EXCHANGES = 'target: {upstream: "-", methods: [POST], paths: [/token]}'
TOKEN_PAGE = Target("POST", "-", ("token",), "/token", "")
QUERIED = "target: {upstream: ledger, methods: [GET], paths: [/x], query: [%s]}"
TODO = "target: {resource: todo, actions: [read]}"


def extended(target: str, extra: str) -> str:
    """The seed, with another target for its policy, and more members of it from line 14 on."""
    assert TARGET in SEED
    return SEED.replace(TARGET, target or TARGET) + "".join(f"    {line}\n" for line in extra.splitlines())


# name, target (empty: as it is), more of the policy, the problem
LANGUAGE: list[tuple[str, str, str, str]] = [
    (
        "a zone misspelt",
        "",
        "when: {time: {zone: Europe/Berlim, days: mon}}",
        '14:25: when.time.zone: "Europe/Berlim": no such time zone; did you mean "Europe/Berlin"?',
    ),
    (
        "a zone in small letters",
        "",
        "when: {time: {zone: europe/berlin, days: mon}}",
        'did you mean "Europe/Berlin"?',
    ),
    (
        "a zone with a space",
        "",
        "when: {time: {zone: America/New York, days: mon}}",
        'mean "America/New_York"?',
    ),
    (
        "a city for a zone",
        "",
        "when: {time: {zone: new york, days: mon}}",
        'no such time zone; did you mean "America/New_York"?',
    ),
    (
        "a city of another continent",
        "",
        "when: {time: {zone: Asia/Sydney, days: mon}}",
        'did you mean "Australia/Sydney"?',
    ),
    (
        "a zone that nothing is like",
        "",
        "when: {time: {zone: X, days: mon}}",
        "write one such as Europe/Berlin or UTC",
    ),
    ("no zone", "", "when: {time: {days: mon}}", '14:18: when.time: "zone" is missing'),
    (
        "a zone alone",
        "",
        "when: {time: {zone: UTC}}",
        "14:18: when.time: says nothing; write days, month_days, from or to",
    ),
    (
        "a day in full",
        "",
        "when: {time: {zone: UTC, days: monday}}",
        '14:36: when.time.days: "monday": days are mon, tue, wed, thu, fri, sat, sun, and runs such as mon-fri; '
        'did you mean "mon"?',
    ),
    (
        "a day of another language in a run",
        "",
        "when: {time: {zone: UTC, days: [mon, sat-son]}}",
        '14:42: when.time.days: "sat-son": days are',
    ),
    (
        "a run from a day to itself",
        "",
        "when: {time: {zone: UTC, days: mon-mon}}",
        '"mon-mon": runs from a day to itself; write "mon"',
    ),
    (
        "an hour that there isn't",
        "",
        'when: {time: {zone: UTC, from: "25:00"}}',
        '14:36: when.time.from: "25:00": a time from 00:00 to 23:59',
    ),
    (
        "an hour with one digit",
        "",
        'when: {time: {zone: UTC, from: "6:00"}}',
        '"6:00": a time from 00:00 to 23:59; did you mean "06:00"?',
    ),
    (
        "a day's end as its beginning",
        "",
        'when: {time: {zone: UTC, from: "24:00"}}',
        '"24:00": a time from 00:00 to 23:59',
    ),
    (
        "hours that end when they begin",
        "",
        'when: {time: {zone: UTC, from: "06:00", to: "06:00"}}',
        '14:49: when.time.to: "06:00": ends when it begins; for whole days leave from and to out',
    ),
    ("a 32nd", "", "when: {time: {zone: UTC, month_days: 32}}", "month_days: 32: more than 31"),
    (
        "a day before the first",
        "",
        "when: {time: {zone: UTC, month_days: 0}}",
        "month_days: 0: days of a month are 1 to 31",
    ),
    (
        "a 32nd in a run",
        "",
        "when: {time: {zone: UTC, month_days: [1, 28-32]}}",
        '"28-32": days of a month are 1 to 31',
    ),
    (
        "the last 32 days",
        "",
        "when: {time: {zone: UTC, month_days: last 32}}",
        '"last 32": days of a month are',
    ),
    (
        "the first days",
        "",
        "when: {time: {zone: UTC, month_days: first 3}}",
        '"first 3": days of a month are',
    ),
    (
        "days backwards",
        "",
        "when: {time: {zone: UTC, month_days: 31-28}}",
        'doesn\'t run from an earlier day to a later one; write "28-31"',
    ),
    (
        "days from the end backwards",
        "",
        "when: {time: {zone: UTC, month_days: -1--3}}",
        'later one; write "-3--1"',
    ),
    (
        "days from one end to the other",
        "",
        "when: {time: {zone: UTC, month_days: 28--1}}",
        "count both from one end, or write two",
    ),
    (
        "a day to itself",
        "",
        "when: {time: {zone: UTC, month_days: 7-7}}",
        '"7-7": runs from a day to itself; write 7',
    ),
    (
        "every day of the month",
        "",
        "when: {time: {zone: UTC, month_days: 1-31}}",
        "is every day of the month; leave month_days out",
    ),
    (
        "every day of the month in two runs",
        "",
        "when: {time: {zone: UTC, month_days: [1-15, 16-31]}}",
        'time.month_days: ["1-15", "16-31"]: is every day of the month',
    ),
    (
        "no day of the month",
        "",
        "when: {time: {zone: UTC, month_days: []}}",
        "month_days: is empty; leave the key out",
    ),
    (
        "a month's day that is true",
        "",
        "when: {time: {zone: UTC, month_days: true}}",
        "month_days: true: expected",
    ),
    (
        "two windows",
        "",
        "when: {time: [{zone: UTC, days: mon}]}",
        '14:18: when.time: [{"zone": "UTC", "days": "mon"}]: expected a mapping',
    ),
    (
        "a day that February has not",
        "",
        "when: {dates: {from: 2026-02-30}}",
        '14:26: when.dates.from: "2026-02-30": there is no such day or time; the month ends on 2026-02-28',
    ),
    (
        "a thirteenth month",
        "",
        "when: {dates: {from: 2026-13-01}}",
        '"2026-13-01": there is no such day or time; months',
    ),
    (
        "a date of another country",
        "",
        "when: {dates: {until: 31.12.2026}}",
        '14:27: when.dates.until: "31.12.2026": no date; write a day such as 2026-01-31, or',
    ),
    (
        "a moment without its offset",
        "",
        "when: {dates: {until: 2026-01-31T08:00:00}}",
        '"2026-01-31T08:00:00": no date; write a day such as 2026-01-31, or a moment such as "2026-01-31T08:00:00Z"',
    ),
    (
        "a year long ago",
        "",
        "when: {dates: {from: 1926-01-01}}",
        '"1926-01-01": out of range; years go from 2000 to',
    ),
    (
        "dates the wrong way round",
        "",
        "when: {dates: {from: 2026-03-31, until: 2026-01-01}}",
        '14:45: when.dates.until: "2026-01-01": is not after from, "2026-03-31"; nothing lies between them',
    ),
    (
        "moments the wrong way round in spite of their looks",
        "",
        'when: {dates: {from: "2026-01-01T02:00:00+01:00", until: "2026-01-01T02:00:00+02:00"}}',
        "is not after from",
    ),
    (
        "a zone for moments",
        "",
        "when: {dates: {from: 2026-01-01T00:00:00Z, zone: Europe/Berlin}}",
        '14:54: when.dates.zone: "Europe/Berlin": is not used, since moments say their offset themselves',
    ),
    (
        "a zone of dates misspelt",
        "",
        "when: {dates: {from: 2026-01-01, zone: utc}}",
        'zone; did you mean "UTC"?',
    ),
    (
        "dates that say nothing",
        "",
        "when: {dates: {zone: UTC}}",
        "14:19: when.dates: says nothing; write from or until",
    ),
    (
        "a network with bits behind its prefix",
        "",
        "when: {ip: [198.51.100.7/24]}",
        '14:17: when.ip: "198.51.100.7/24": has bits set behind the prefix; write "198.51.100.0/24"',
    ),
    (
        "an IPv6 network with bits behind its prefix",
        "",
        'when: {ip: "2001:db8::1/32"}',
        '14:16: when.ip: "2001:db8::1/32": has bits set behind the prefix; write "2001:db8::/32"',
    ),
    (
        "an IPv4 network written as IPv6",
        "",
        'when: {ip: "::ffff:198.51.100.0/120"}',
        'is compared as IPv4; write "198.51.100.0/24"',
    ),
    ("a netmask", "", "when: {ip: 198.51.100.0/255.255.255.0}", "no range of addresses; write one such as"),
    ("a prefix too long", "", "when: {ip: 198.51.100.0/33}", "no range of addresses"),
    ("an interface", "", 'when: {ip: "fe80::1%eth0"}', "no range of addresses"),
    (
        "a host's name for a network",
        "",
        "when: {ip: office.example.com}",
        '"office.example.com": no range of addresses',
    ),
    (
        "a country that goes by another code",
        "",
        "when: {country: [DE, UK]}",
        '14:26: when.country: "UK": no country of ISO 3166-1; did you mean "GB"?',
    ),
    (
        "a country in small letters",
        "",
        "when: {country: de}",
        '"de": no country of ISO 3166-1; did you mean "DE"?',
    ),
    (
        "a country in full",
        "",
        "when: {country: Germany}",
        '"Germany": no country of ISO 3166-1; write two capitals',
    ),
    (
        "an attribute of nothing",
        "",
        "when: {equals: [ressource.owner, subject.email]}",
        '14:21: when.equals: "ressource.owner": attributes begin with subject., workload., resource. or query.; '
        'did you mean "resource"?',
    ),
    (
        "an attribute without a name",
        "",
        "when: {equals: [subject, query.a]}",
        '14:21: when.equals: "subject": which one? Write a name behind the dot, such as subject.email',
    ),
    (
        "a workload's attribute that can't be compared",
        "",
        "when: {equals: [workload.tags, subject.email]}\nworkload: {attested: true}",
        '14:21: when.equals: "workload.tags": of the workload dag, task, run_type, triggered_by, environment or run '
        "can be compared; "
        'did you mean "task"?',
    ),
    (
        "a placeholder that one of the paths has not",
        "target: {upstream: ledger, methods: [GET], paths: ['/v1/{owner}', '/v1/x/{other}']}",
        "when: {equals: [resource.owner, subject.id]}",
        '14:21: when.equals: "resource.owner": the path "/v1/x/{other}" has no {owner}; write "{owner}" for',
    ),
    (
        "a placeholder misspelt",
        "target: {upstream: ledger, methods: [GET], paths: ['/v1/{owner}']}",
        "when: {equals: [subject.id, resource.ownr]}",
        '14:33: when.equals: "resource.ownr": the path "/v1/{owner}" has no {ownr}; did you mean "owner"?',
    ),
    (
        "a query of a resource",
        TODO,
        "when: {equals: [query.owner, subject.id]}",
        '"query.owner": an AuthZEN resource has no query; its properties are resource.NAME',
    ),
    (
        "a pair of one",
        "",
        "when: {equals: [subject.id]}",
        '14:20: when.equals: ["subject.id"]: two attributes, such as [resource.owner, subject.email]',
    ),
    (
        "a pair of three",
        "",
        "when: {equals: [[query.a, query.b, query.c]]}",
        '14:21: when.equals: ["query.a", "query.b", "query.c"]: longer than 2',
    ),
    (
        "an attribute compared with itself",
        "",
        "when: {equals: [subject.id, subject.id]}",
        '14:20: when.equals: "subject.id": is compared with itself',
    ),
    (
        "a pair twice, the other way round",
        "",
        "when: {equals: [[subject.id, query.a], [query.a, subject.id]]}",
        '14:44: when.equals: ["query.a", "subject.id"]: stands here twice',
    ),
    (
        "a workload compared by a permit that hides who vouches for it",
        "",
        "when: {equals: [workload.dag, subject.dag]}",
        "14:20: when.equals: looks at the workload, so the permit says who vouches for it; write",
    ),
    (
        "a user compared whom a header could name",
        "",
        "when: {equals: [workload.triggered_by, subject.id]}\nworkload: {attested: false}",
        "14:20: when.equals: only a token says workload.triggered_by, no header can; write attested: true",
    ),
    (
        "a run's type that is compared, and nobody vouches for it",
        "",
        "when: {equals: [[workload.dag, subject.dag], [query.a, workload.run_type]]}",
        "14:20: when.equals: only a token says workload.run_type, no header can; write attested: true",
    ),
    (
        "a workload that is attested and not looked at",
        "",
        "workload: {attested: true}",
        "14:15: workload: says nothing; write dag, task, run_type, triggered_by, environment or tags",
    ),
    (
        "a run's type that a header could say",
        "",
        "workload: {run_type: manual, attested: false}",
        "14:26: workload.run_type: only a token says this, no header can; write attested: true",
    ),
    (
        "a user that a header could say",
        "",
        "workload: {dag: x, triggered_by: ada, attested: false}",
        "14:38: workload.triggered_by: only a token says this, no header can; write attested: true",
    ),
    (
        "an environment with a comma",
        "",
        'workload: {environment: "a,b", attested: true}',
        '14:29: workload.environment: "a,b": can\'t match',
    ),
    (
        "a parameter twice, in other letters",
        QUERIED % "{parameter: a, any: [x]}, {parameter: A, any: [y]}",
        "",
        '13:107: target.query.parameter: "A": stands here twice; write its any, all and none side by side',
    ),
    (
        "a parameter that no query could have",
        QUERIED % "{parameter: a+b, any: [x]}",
        "",
        '13:81: target.query.parameter: "a+b": holds + or ;',
    ),
    (
        "a parameter percent-encoded",
        QUERIED % "{parameter: a%5Bb%5D, any: [x]}",
        "",
        "is percent-encoded; names are compared decoded, so write the character",
    ),
    (
        "a property twice",
        "target: {resource: todo, actions: [a], properties: [{property: a, any: [x]}, {property: a, none: [y]}]}",
        "",
        'target.properties.property: "a": stands here twice',
    ),
    (
        "a resource's type with a slash",
        "target: {resource: a/b, actions: [read]}",
        "",
        '13:24: target.resource: "a/b": a resource\'s type is 1 to 64 letters, digits and _ . : -',
    ),
    (
        "a call as a resource",
        "target: {resource: route, actions: [GET]}",
        "",
        '13:24: target.resource: "route": stands for a call in questions',
    ),
    (
        "an upstream and a resource at once",
        "target: {upstream: ledger, methods: [GET], paths: [/x], resource: todo, actions: [read]}",
        "",
        "13:24: target.upstream: a target is an upstream with methods and paths, or a resource with actions; write one",
    ),
    (
        "ids of an upstream",
        "target: {upstream: ledger, methods: [GET], paths: [/x], ids: [a]}",
        "",
        "13:66: target.ids: a target is an upstream",
    ),
    (
        "a resource without actions",
        "target: {resource: todo}",
        "",
        '13:13: target: "actions" is missing; an AuthZEN target says which resource and which actions',
    ),
    (
        "a target that says nothing",
        "target: {}",
        "",
        '13:13: target: "upstream" and "methods" and "paths" are missing; a target says which upstream',
    ),
    (
        "more segments than the gate takes",
        f"target: {{upstream: ledger, methods: [GET], paths: [{'/a' * 65}]}}",
        "",
        "has more than 64 segments, and the gate refuses requests that do",
    ),
    (
        "a limit between the rungs",
        "",
        "obligations: {rate_limit: {limit: 7, per: 10s, by: subject}}",
        "14:39: obligations.rate_limit.limit: 7: not a limit that can be counted per 10s; write 5 or 10 (of 5, 10, 20, "
        "50, 100)",
    ),
    (
        "a limit above the rungs",
        "",
        "obligations: {rate_limit: {limit: 5000, per: minute, by: subject}}",
        "5000: not a limit that can be counted per minute; write 1200 (of 10, 30,",
    ),
    (
        "no calls at all",
        "",
        "obligations: {rate_limit: {limit: 0, per: 10s, by: subject}}",
        "limit: 0: less than 1",
    ),
    (
        "a limit for an hour",
        "",
        "obligations: {rate_limit: {limit: 60, per: hour, by: subject}}",
        '14:48: obligations.rate_limit.per: "hour": expected minute or 10s',
    ),
    (
        "a limit by what callers choose",
        "",
        "obligations: {rate_limit: {limit: 60, per: minute, by: [dag, policy]}}",
        '14:60: obligations.rate_limit.by: ["dag", "policy"]: callers can choose these as they like; put subject',
    ),
    (
        "a limit twice",
        "",
        "obligations: {rate_limit: [{limit: 60, per: minute, by: subject}, {limit: 10, per: minute, by: [subject]}]}",
        "14:71: obligations.rate_limit: another limit counts the same calls; write the lower one only",
    ),
    (
        "a size in words",
        "",
        "obligations: {max_body: 1 megabyte}",
        '14:29: obligations.max_body: "1 megabyte": how long the body may be',
    ),
    ("a size with a space", "", "obligations: {max_body: 1 MB}", 'such as 1MB; did you mean "1MB"?'),
    (
        "a size without a unit",
        "",
        "obligations: {max_body: 1000}",
        "14:29: obligations.max_body: 1000: expected text",
    ),
    (
        "a justification as a header",
        "",
        "obligations: {require: {headers: Airgate-Justification}}",
        '14:38: obligations.require.headers: "Airgate-Justification": write "justification: true"',
    ),
    (
        "a header twice, in other letters",
        "",
        "obligations: {require: {headers: [X-Change, x-change]}}",
        '14:49: obligations.require.headers: "x-change": stands here twice; letters\' case means nothing',
    ),
    (
        "a header with a colon",
        "",
        'obligations: {require: {headers: "X-Change:"}}',
        '"X-Change:": the name of a header, such as X-Change-Id',
    ),
    (
        "nothing required",
        "",
        "obligations: {require: {justification: false}}",
        "14:28: obligations.require: asks for nothing; leave it out",
    ),
    (
        "an obligation in capitals",
        "",
        "obligations: {Notify: true}",
        '14:19: obligations.Notify: "Notify": the name of an obligation begins with a-z',
    ),
    (
        "asking among the obligations",
        "",
        "obligations: {asking: {about: self}}",
        "14:27: obligations.asking: asking stands beside obligations, not in it",
    ),
    (
        "asking about calls",
        "",
        "asking: {about: any}",
        '14:13: asking: goes with the upstream "-" and the paths /access/v1/evaluation or /access/v1/evaluations',
    ),
    (
        "asking for the gate's health",
        'target: {upstream: "-", methods: [GET], paths: [/health]}',
        "asking: {about: any}",
        '14:13: asking: goes with the upstream "-" and the paths',
    ),
    (
        "a permit to exchange that doesn't say for what",
        EXCHANGES,
        "",
        '13:53: target.paths: a permit for "/token" says for which upstreams; write "exchange: {upstreams: [...]}"',
    ),
    (
        "exchanging beside another page",
        'target: {upstream: "-", methods: [POST], paths: [/token, /access/v1/evaluation]}',
        "exchange: {upstreams: ledger}",
        '13:53: target.paths: "/token" stands alone',
    ),
    (
        "exchanging for calls",
        "",
        "exchange: {upstreams: ledger}",
        '14:15: exchange: goes with the upstream "-" and the path /token, and nothing else',
    ),
    (
        "exchanging among the obligations",
        EXCHANGES,
        "obligations: {exchange: {upstreams: ledger}}",
        "14:29: obligations.exchange: exchange stands beside obligations, not in it",
    ),
    (
        "exchanging for nothing",
        EXCHANGES,
        "exchange: {lifetime: 5m}",
        '14:15: exchange: "upstreams" is missing',
    ),
    (
        "exchanging for an upstream that there isn't",
        EXCHANGES,
        "exchange: {upstreams: [legder]}",
        '14:28: exchange.upstreams: "legder": no such upstream; did you mean "ledger"?',
    ),
    (
        "exchanging for a role that there isn't",
        EXCHANGES,
        "exchange: {upstreams: ledger, roles: publishr}",
        '14:42: exchange.roles: "publishr": no such role; did you mean "publisher"?',
    ),
    (
        "exchanged tokens that live too long",
        EXCHANGES,
        "exchange: {upstreams: ledger, lifetime: 11m}",
        '14:45: exchange.lifetime: "11m": must be from 1s to 10m',
    ),
    (
        "events, about which policy isn't asked",
        'target: {upstream: "-", methods: [POST], paths: [/events]}',
        "",
        '"/events": policy isn\'t asked; only issuers of this seed are heard there',
    ),
    (
        "trusting what is said about oneself",
        ASKS,
        "asking: {trust: [roles]}",
        "14:21: asking.trust: about self the caller's own token says it all; write about: any, or leave trust out",
    ),
    ("trusting what there isn't", ASKS, "asking: {about: any, trust: [role]}", 'did you mean "roles"?'),
    (
        "a credential for the gate itself",
        ASKS,
        "obligations: {credential: x}",
        "14:31: obligations.credential: the gate's own pages are no upstream",
    ),
]


@pytest.mark.parametrize(
    ("target", "extra", "expected"), [row[1:] for row in LANGUAGE], ids=[row[0] for row in LANGUAGE]
)
def test_a_condition_that_cannot_be_meant_is_named_with_its_place(
    target: str, extra: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = problems(tmp_path, monkeypatch, extended(target, extra))
    assert [line for line in found if expected in line], found


MON_FRI = ["mon", "tue", "wed", "thu", "fri"]
DAYS = [*MON_FRI, "sat", "sun"]
SUBJECT: list[Any] = [["subject.issuer", ["company"]], ["subject.roles.any", ["publisher"]]]
OWNED = "target: {upstream: ledger, methods: [GET], paths: ['/v1/{owner}']}"

# name, target, more of the policy, the rows it becomes besides issuer and role
ROWS: list[tuple[str, str, str, list[Any]]] = [
    (
        "working hours",
        "",
        'when: {time: {zone: Europe/Berlin, days: mon-fri, from: "06:00", to: "20:00"}}',
        [["when.time", "Europe/Berlin", MON_FRI, 360, 1200]],
    ),
    (
        "hours over midnight",
        "",
        'when: {time: {zone: UTC, days: [fri, sat], from: "22:00", to: "06:30"}}',
        [["when.time", "UTC", ["fri", "sat"], 1320, 390]],
    ),
    (
        "until midnight, by either name",
        "",
        'when: {time: {zone: UTC, from: "20:00", to: "00:00"}}',
        [["when.time", "UTC", DAYS, 1200, 1440]],
    ),
    (
        "whole days",
        "",
        "when: {time: {zone: UTC, days: sat-mon}}",
        [["when.time", "UTC", ["mon", "sat", "sun"], 0, 1440]],
    ),
    (
        "days in any order, some twice",
        "",
        'when: {time: {zone: UTC, days: [wed, mon-wed], from: "06:00"}}',
        [["when.time", "UTC", ["mon", "tue", "wed"], 360, 1440]],
    ),
    *[
        (
            f"days of the month: {said}",
            "",
            f"when: {{time: {{zone: UTC, month_days: {said}}}}}",
            [["when.time", "UTC", DAYS, 0, 1440, meant]],
        )
        for said, meant in (
            ("15", [15]),
            ("last", [-1]),
            ("-1", [-1]),
            ("last 3", [-3, -2, -1]),
            ("-3--1", [-3, -2, -1]),
            ("28-31", [28, 29, 30, 31]),
        )
    ],
    (
        "days of the month in any order, some twice, at night",
        "",
        'when: {time: {zone: UTC, days: fri, month_days: [28-31, 1, "30", last, -1], from: "22:00", to: "02:00"}}',
        [["when.time", "UTC", ["fri"], 1320, 120, [-1, 1, 28, 29, 30, 31]]],
    ),
    (
        "a run's type and who started it",
        "",
        "workload: {triggered_by: [ada, b*], run_type: manual, attested: true}",
        [["workload.run_type", ["manual"], True], ["workload.triggered_by", ["ada", "b*"], True]],
    ),
    ("a day, which is over at its end", "", "when: {dates: {until: 2026-03-31}}", [["when.dates", None, 1775001600]]),
    (
        "days of a zone",
        "",
        "when: {dates: {from: 2026-01-01, until: 2026-03-31, zone: Europe/Berlin}}",
        [["when.dates", 1767222000, 1774994400]],
    ),
    (
        "moments",
        "",
        'when: {dates: {from: "2026-01-01T08:00:00Z", until: 2026-01-01T10:00+01:00}}',
        [["when.dates", 1767254400, 1767258000]],
    ),
    (
        "networks in their one spelling",
        "",
        'when: {ip: ["2001:DB8:0::/48", 203.0.113.7, 198.51.100.0/24]}',
        [["when.ip", ["198.51.100.0/24", "2001:db8::/48", "203.0.113.7/32"]]],
    ),
    ("countries", "", "when: {country: [FR, DE]}", [["when.country", ["DE", "FR"]]]),
    (
        "a placeholder",
        OWNED,
        "when: {equals: [resource.owner, subject.email]}",
        [["when.equals", "resource.owner", "subject.email", False]],
    ),
    (
        "pairs, of which one looks at the workload",
        OWNED,
        "when: {equals: [[resource.owner, subject.id], [query.a, workload.dag]]}\nworkload: {attested: true}",
        [
            ["when.equals", "resource.owner", "subject.id", False],
            ["when.equals", "query.a", "workload.dag", True],
        ],
    ),
    (
        "who started the run, by whatever type it is of",
        OWNED,
        "when: {equals: [[workload.triggered_by, subject.id], [resource.owner, workload.run_type]]}\n"
        "workload: {attested: true}",
        [
            ["when.equals", "workload.triggered_by", "subject.id", True],
            ["when.equals", "resource.owner", "workload.run_type", True],
        ],
    ),
    (
        "the workload",
        "",
        "workload: {task: [b, a], dag: finance_*, environment: prod, tags: {none: [y, x], any: [z]}, attested: false}",
        [
            ["workload.dag", ["finance_*"], False],
            ["workload.task", ["b", "a"], False],
            ["workload.environment", ["prod"], False],
            ["workload.tags.any", ["z"], False],
            ["workload.tags.none", ["x", "y"], False],
        ],
    ),
    (
        "a query",
        QUERIED % "{parameter: size, none: [1000], any: [10, 2]}",
        "",
        [["target.query.any", "size", ["10", "2"]], ["target.query.none", "size", ["1000"]]],
    ),
    (
        "a resource",
        "target: {resource: todo, actions: [read], ids: [a*, '*'], properties: [{property: open, any: [true]}]}",
        "",
        [["target.properties.any", "open", ["true"]], ["target.ids", ["a*", "*"]]],
    ),
    ("everything, in one order", "", 'when: {country: DE, ip: "::1"}\nworkload: {dag: x, attested: true}', [
        ["workload.dag", ["x"], True],
        ["when.ip", ["::1/128"]],
        ["when.country", ["DE"]],
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("target", "extra", "rows"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_conditions_become_rows(
    target: str, extra: str, rows: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = compile_folder(write(tmp_path, monkeypatch, extended(target, extra)))
    [rule] = [rule for rules in compiled.rules.values() for rule in rules]
    assert rule.conditions == SUBJECT + rows


# name, what stands in the subject, the rows
SUBJECTS: list[tuple[str, str, list[Any]]] = [
    ("all of it", "{delegated: true, dpop: false, kind: [human, agent], id: b, issuer: company}", [
        ["subject.issuer", ["company"]], ["subject.id", ["b"]], ["subject.kind", ["agent", "human"]],
        ["subject.dpop", False], ["subject.delegated", True],
    ]),
    ("roles", "{roles: {none: [publisher], all: [publisher]}}", [
        ["subject.roles.all", ["publisher"]], ["subject.roles.none", ["publisher"]],
    ]),
    ("claims", "{claims: [{claim: [org, unit], any: [b, a]}, {claim: level, none: [3, 12, true, x]}]}", [
        ["subject.claims.any", ["org", "unit"], ["a", "b"]],
        ["subject.claims.none", ["level"], ["12", "3", "true", "x"]],
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("said", "rows"), [row[1:] for row in SUBJECTS], ids=[row[0] for row in SUBJECTS])
def test_a_subject_becomes_rows(
    said: str, rows: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SEED.replace("{issuer: company, roles: {any: [publisher]}}", said)
    compiled = compile_folder(write(tmp_path, monkeypatch, text))
    assert compiled.rules["ledger"][0].conditions == rows


# name, what stands in the policy, what its obligations become
OBLIGATIONS: list[tuple[str, str, dict[str, Any]]] = [
    (
        "a rate",
        "obligations: {rate_limit: {limit: 60, per: minute, by: [dag, subject]}}",
        {"rate_limit": [{"limit": 60, "per": 60, "by": ["subject", "dag"]}]},
    ),
    (
        "several rates, in any order",
        "obligations: {rate_limit: [{limit: 600, per: minute, by: policy}, {limit: 20, per: 10s, by: subject}]}",
        {
            "rate_limit": [
                {"limit": 20, "per": 10, "by": ["subject"]},
                {"limit": 600, "per": 60, "by": ["policy"]},
            ]
        },
    ),
    ("a size in thousands", "obligations: {max_body: 64KB}", {"max_body": 64_000}),
    ("a size in powers of two", "obligations: {max_body: 2MiB}", {"max_body": 2_097_152}),
    (
        "headers",
        "obligations: {require: {headers: [X-Ticket, A-Change]}}",
        {"require": {"headers": ["a-change", "x-ticket"], "justification": False}},
    ),
    (
        "a justification",
        "obligations: {require: {justification: true}}",
        {"require": {"headers": [], "justification": True}},
    ),
    (
        "what this gate does not know",
        "obligations: {redact: [iban, {deep: 1.5}], notify: null}",
        {"redact": ["iban", {"deep": 1.5}], "notify": None},
    ),
]


@pytest.mark.parametrize(
    ("said", "obligations"), [row[1:] for row in OBLIGATIONS], ids=[row[0] for row in OBLIGATIONS]
)
def test_obligations_are_carried_over(
    said: str, obligations: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = compile_folder(write(tmp_path, monkeypatch, extended("", said)))
    assert compiled.rules["ledger"][0].obligations == obligations
    assert json.loads(compiled.shards["ledger"])["obligations"] == [obligations]


# name, what stands in the policy, the obligation
QUESTIONS: list[tuple[str, str, dict[str, Any] | None]] = [
    ("nothing said", "", None),
    ("about oneself", "asking: {about: self}", {"asking": {"about": "self", "trust": []}}),
    (
        "about anybody",
        "asking: {about: any, trust: [roles, client]}",
        {"asking": {"about": "any", "trust": ["client", "roles"]}},
    ),
]


@pytest.mark.parametrize(
    ("said", "exchange"),
    [
        (
            "exchange: {upstreams: ledger}",
            {"bound": False, "lifetime": 300, "roles": None, "upstreams": ["ledger"]},
        ),
        (
            "exchange: {upstreams: [ledger], roles: publisher, lifetime: 10m, bound: true}",
            {"bound": True, "lifetime": 600, "roles": ["publisher"], "upstreams": ["ledger"]},
        ),
    ],
)
def test_what_may_be_exchanged_is_an_obligation(
    said: str, exchange: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = compile_folder(write(tmp_path, monkeypatch, extended(EXCHANGES, said)))
    assert compiled.rules["-"][0].obligations == {"exchange": exchange}
    [read] = [policy.obligations for policy, _ in compiled.engine.shards["-"].lookup.reachable(TOKEN_PAGE)]
    assert read is not None
    assert read.others == (("exchange", json.dumps(exchange, separators=(",", ":"), sort_keys=True)),)


@pytest.mark.parametrize(
    ("said", "obligation"), [row[1:] for row in QUESTIONS], ids=[row[0] for row in QUESTIONS]
)
def test_what_may_be_asked_is_an_obligation(
    said: str, obligation: dict[str, Any] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = compile_folder(write(tmp_path, monkeypatch, extended(ASKS, said)))
    assert compiled.rules["-"][0].obligations == obligation


# name, target, more of the policy, the claims that the bundle asks tokens for
CLAIMS: list[tuple[str, str, str, list[list[str]]]] = [
    ("none", "", "", []),
    ("of a pair", OWNED, "when: {equals: [resource.owner, subject.email]}", [["email"]]),
    (
        "a name with a dot, which is no path",
        OWNED,
        "when: {equals: [resource.owner, subject.a.b]}",
        [["a.b"]],
    ),
    ("none of a token's own fields", OWNED, "when: {equals: [resource.owner, subject.issuer]}", []),
]


@pytest.mark.parametrize(
    ("target", "extra", "claims"), [row[1:] for row in CLAIMS], ids=[row[0] for row in CLAIMS]
)
def test_the_bundle_names_the_claims_that_conditions_read(
    target: str, extra: str, claims: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = extended(target, extra)
    assert compile_folder(write(tmp_path, monkeypatch, text)).bundle["claims"] == claims


def test_paths_of_claims_are_sorted_and_each_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "{claims: [{claim: [org, unit], any: [b]}, {claim: email, none: [x]}]}"
    text = SEED.replace("{issuer: company, roles: {any: [publisher]}}", said)
    text = text.replace(TARGET, OWNED) + "    when: {equals: [resource.owner, subject.email]}\n"
    assert compile_folder(write(tmp_path, monkeypatch, text)).bundle["claims"] == [["email"], ["org", "unit"]]


def test_a_policy_stands_in_the_shard_of_each_of_its_upstreams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SEED.replace("policies:\n", "  crm: {base: https://crm.example.com, owner: o}\npolicies:\n", 1)
    text = text.replace("upstream: ledger", "upstream: [ledger, crm]") + POLICIES
    compiled = compile_folder(write(tmp_path, monkeypatch, text))
    assert {name: [rule.id for rule in rules] for name, rules in compiled.rules.items()} == {
        "-": ["ask"],
        "crm": ["publish"],
        "ledger": ["publish"],
        "resource:doc": ["todo"],
        "resource:todo": ["todo"],
    }
    assert compiled.bundle["shards"].keys() == compiled.rules.keys() == compiled.engine.shards.keys()
    assert compiled.rules["resource:todo"][0].methods == ["*"]
    assert compiled.rules["resource:todo"][0].paths == ["/*"]


POLICIES = """\
  - id: todo
    description: d
    owner: o
    effect: permit
    subject: {kind: human}
    target: {resource: [todo, doc], actions: [read, "*"]}
  - id: ask
    description: d
    owner: o
    effect: permit
    subject: {kind: human}
    target: {upstream: "-", methods: [POST], paths: [/access/v1/evaluations]}
"""


def test_all_methods_by_one_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = compile_folder(write(tmp_path, monkeypatch, SEED.replace("[POST]", '"*"')))
    assert compiled.rules["ledger"][0].methods == ["*"]


def test_zones_are_worked_out_around_the_year_of_compiling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, monkeypatch, extended("", "when: {time: {zone: Europe/Berlin, days: mon}}"))
    in_2026 = compile_folder(folder, now=1_767_225_600)
    assert in_2026.bundle["zones_until"] == 2_082_758_400  # 2036-01-01
    assert in_2026.text == compile_folder(folder, now=1_798_761_599).text  # the year's last second
    assert in_2026.text != compile_folder(folder, now=1_798_761_600).text
    assert json.loads(in_2026.shards["ledger"])["zones"].keys() == {"Europe/Berlin"}


def call(method: str, path: str, *, roles: frozenset[str] = frozenset({"publisher"}), now: float = 0) -> Call:
    identity = Identity("company", "s", "workload", roles, {})
    return Call(Caller(identity, None, roles, {}), parse_target(method, f"https://gate{path}"), now)


def test_what_is_compiled_decides_with_the_gates_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = extended("", "when: {dates: {from: 2026-01-01}}\nobligations: {max_body: 1MB}")
    compiled = compile_folder(write(tmp_path, monkeypatch, text))
    permitted = compiled.engine.decide(call("POST", "/ledger/v1/entries", now=1_800_000_000))
    assert (permitted.permit, permitted.permits, permitted.obligations.max_body) == (
        True,
        ("publish",),
        1_000_000,
    )
    assert permitted.bundle == compiled.sha256[:12]
    early = compiled.engine.decide(call("POST", "/ledger/v1/entries"))
    assert (early.permit, early.reason, early.owner) == (False, "policy.no_match", "o@example.com")
    nowhere = compiled.engine.decide(call("POST", "/crm/v1"))
    assert (nowhere.permit, nowhere.reason, nowhere.owner) == (False, "policy.no_match", None)


def test_a_policy_set_is_loaded_whole_or_not_at_all() -> None:
    compiled = compile_folder(STARTER)
    loaded = PolicySet.load(compiled.text, compiled.stored)
    assert loaded.bundle == compiled.engine.bundle
    assert loaded.shards.keys() == compiled.shards.keys()
    digest = compiled.bundle["shards"]["ledger"]
    other = compiled.bundle["shards"]["crm"]
    with pytest.raises(ValueError, match="the shard of ledger is missing"):
        PolicySet.load(compiled.text, {key: text for key, text in compiled.stored.items() if key != digest})
    with pytest.raises(ValueError, match="the shard of ledger is not the one that was named"):
        PolicySet.load(compiled.text, {**compiled.stored, digest: compiled.stored[other]})


def test_the_documented_values_are_ones_that_the_gate_reads() -> None:
    """A pointer, copies of two documents, a bundle, and a shard, the last just as the compiler writes it."""
    [pointer, *_], [head, acts, bundle, document] = (
        [json.loads(part.partition("```")[0]) for part in text.split("```json\n")[1:]]
        for text in (
            (PROJECT / "docs" / name).read_text("utf-8") for name in ("d1-schema.md", "kv-schema.md")
        )
    )
    assert load_pointer(json.dumps({**pointer, "bundle": "3f8a" * 16})).sequence == 8
    assert read_head(json.dumps(head)) == tuple(head.values())
    assert read_copy(json.dumps(acts)) == list(map(tuple, acts["acts"]))
    shards = dict.fromkeys(bundle["shards"], "0" * 64)
    assert load_bundle(json.dumps({**bundle, "shards": shards})).shards == shards
    assert load_shard(json.dumps(document), "ledger").policies == 1
    assert index.shard("ledger", index.rules(document), document["zones"]) == document


def test_the_rungs_of_the_ladder_are_the_bindings_of_every_environment() -> None:
    settings = tomllib.loads((PROJECT / "wrangler.toml").read_text("utf-8"))
    ladder = {
        f"LIMIT_{limit}_PER_{period}S": (limit, period) for period, steps in LADDER.items() for limit in steps
    }
    local, staging = settings["env"]["local"], settings["env"]["staging"]
    older = [each for each in local["unsafe"]["bindings"] if each["type"] == "ratelimit"]
    for bindings in (settings["ratelimits"], staging["ratelimits"], older):
        bound = {each["name"]: (each["simple"]["limit"], each["simple"]["period"]) for each in bindings}
        assert bound == ladder
    # A number is a counter of the account's: two gates that shared one would use up each other's calls.
    assert not {each["namespace_id"] for each in settings["ratelimits"]} & {
        each["namespace_id"] for each in staging["ratelimits"]
    }


def test_an_issuers_name_may_be_no_address_where_its_keys_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = SEED.replace("issuer: https://login.example.com", "issuer: accounts.google.com")
    keys = named.replace("audiences:", "jwks_uri: https://www.googleapis.com/oauth2/v3/certs, audiences:", 1)
    compiled = compile_folder(write(tmp_path, monkeypatch, keys))
    assert set(load_bundle(compiled.text).issuers) == {"accounts.google.com"}
    (tmp_path / "seed" / "a.yaml").write_text(named, "utf-8")
    with pytest.raises(SeedError, match="or write jwks_uri, where the keys are"):
        compile_folder(tmp_path / "seed")


def test_an_issuers_settings_are_carried_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = (
        "dpop: required, dpop_replay: strict, role_tag: required, "
        "kind: {claim: idtyp, values: {app: workload, user: human}}, "
        "require: [{claim: hd, any: [b, a]}, {claim: [a, b], any: [true, 7]}], truncates: [{claim: groups, at: 100}], "
        "algorithms:"
    )
    compiled = compile_folder(write(tmp_path, monkeypatch, SEED.replace("algorithms:", settings, 1)))
    assert (
        compiled.bundle["issuers"]["company"]
        | {
            "dpop": "required",
            "dpop_replay": "strict",
            "role_tag": "required",
            "kind": {
                "claim": ["idtyp"],
                "default": "workload",
                "values": {"app": "workload", "user": "human"},
            },
            "require": [{"claim": ["hd"], "any": ["a", "b"]}, {"claim": ["a", "b"], "any": ["7", "true"]}],
            "truncates": [{"claim": ["groups"], "at": 100}],
        }
        == compiled.bundle["issuers"]["company"]
    )
    read = load_bundle(compiled.text).issuers["https://login.example.com"]
    assert (read.dpop, read.strict) == ("required", True)


FORMAT_5 = ("workload.run_type", "workload.triggered_by")  # what no shard of format 4 holds


def older(text: str) -> str:
    """A bundle or a shard as the version before wrote it: format 4."""
    document = json.loads(text)
    assert document["format"] == 5
    assert not any(row[0] in FORMAT_5 or len(row) == 6 for row in document.get("conditions", ()))
    return index.canonical({**document, "format": 4})


def calls(bundle: Bundle, upstream: str, shard: dict[str, Any]) -> Iterator[Call]:
    """A caller with each role, of each kind, at each path that the shard's policies name."""
    paths = sorted({path for row in shard["policies"] for path in row[4]})
    methods = sorted({method for row in shard["policies"] for method in row[3]} - {"*"} | {"DELETE"})
    facts = {"dag": Fact("finance_close", False), "environment": Fact("production", False)}
    issuer = bundle.issuers["https://login.example.com"]
    for role, kind, path, method in product(sorted(bundle.roles), KINDS, paths, methods):
        identity = Identity(issuer.mapping.id, "s", kind, frozenset({role}), {})
        segments = tuple(path.replace("**", "x").replace("*", "x").strip("/").split("/"))
        caller = Caller(identity, None, identity.granted, facts if kind == "workload" else {})
        yield Call(caller, Target(method, upstream, segments, path, ""), WORKDAY, "198.51.100.7", "DE")


def test_a_bundle_of_the_format_before_decides_as_the_same_one_of_this_format() -> None:
    """The starter policies that format 4 could say, as both; a bundle of either format may name shards of either."""
    seed = read_seed(STARTER)
    for name, entry in list(seed.policies.items()):
        if not {"run_type", "triggered_by"}.isdisjoint(entry.data.get("workload", {})):
            del seed.policies[name]
    compiled = compile_seed(seed, now=WORKDAY)
    new, old = (load_bundle(text) for text in (compiled.text, older(compiled.text)))
    assert new._replace(version="") == old._replace(version="")
    decided = []
    for upstream, text in compiled.shards.items():
        one, other = load_shard(text, upstream), load_shard(older(text), upstream)
        for call in calls(old, upstream, json.loads(text)):
            decision = one.decide(call)
            assert decision == other.decide(call)
            decided.append(decision.permit)
    assert sum(decided) > 20
    assert len(decided) - sum(decided) > 500


def test_grants_are_carried_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grants = "{issuer: company, scope: a.b}, {issuer: company, kind: agent}, {issuer: company, subject: s}"
    compiled = compile_folder(
        write(
            tmp_path,
            monkeypatch,
            SEED.replace("[{issuer: company, claim", f"[{grants}, {{issuer: company, claim"),
        )
    )
    by_claim = {"issuer": "company", "claim": ["groups"], "value": "publishers"}
    assert sorted(compiled.bundle["roles"]["publisher"], key=len) == [
        {"issuer": "company", "scope": "a.b"},
        {"issuer": "company", "kind": "agent"},
        {"issuer": "company", "subject": "s"},
        by_claim,
    ]
    assert [grant.claim for issuer in compiled.engine.bundle.issuers.values() for grant in issuer.mapping.grants] == [
        SCOPE, KIND, None, ("groups",)
    ]  # fmt: skip


def test_the_text_is_canonical_and_its_hash_is_that_of_its_bytes() -> None:
    compiled = compile_folder(STARTER)
    assert compiled.text == json.dumps(
        json.loads(compiled.text), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert compiled.sha256 == hashlib.sha256(compiled.text.encode("utf-8")).hexdigest()
    assert compile_folder(STARTER).sha256 == compiled.sha256


def test_policies_are_sorted_so_that_moving_them_changes_nothing() -> None:
    for rules in compile_folder(STARTER).rules.values():
        ids = [rule.id for rule in rules]
        assert ids == sorted(ids)


def test_the_gate_reads_the_starter_bundle() -> None:
    compiled = compile_folder(STARTER, StandIns("http://127.0.0.1:9400", "http://127.0.0.1:9500"))
    bundle = load_bundle(compiled.text)
    assert set(bundle.issuers) == {"http://127.0.0.1:9400", "https://airflow.example.com/airgate"}
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
    assert "; clean" in result.output


EVERY = "  ledger:\n" + every_setting.indented(4)


def places(value: object, found: list[tuple[Any, Any]]) -> None:
    """Every place in a document that holds a value: its container and its key or index."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        found.append((value, key))
        places(inner, found)


WHOLE = (
    SEED.replace("  ledger: {base: https://ledger.example.com, owner: o@example.com}\n", EVERY)
    + """\
    workload: {dag: [a], task: b, environment: c, tags: {any: [c]}, attested: false}
    when:
      time: {zone: Europe/Berlin, days: [mon-fri, sun], from: "06:00", to: "20:00"}
      dates: {from: 2026-01-01, until: 2026-03-31, zone: Europe/Berlin}
      ip: ["198.51.100.0/24"]
      country: [DE]
      equals: [[query.account, subject.account], [workload.dag, subject.dag]]
    obligations:
      rate_limit: [{limit: 60, per: minute, by: [subject, dag]}]
      credential: plain
      max_body: 1MB
      require: {headers: [X-Change-Id], justification: true}
      other: [1]
  - id: todo
    description: d
    owner: o
    effect: forbid
    subject: {id: [a], issuer: [company], dpop: true, delegated: false,
              claims: [{claim: [a, b], any: [1]}, {claim: c, none: [x]}]}
    target: {resource: todo, actions: [read], ids: ["*"], properties: [{property: p, all: [true]}]}
    when: {equals: [resource.owner, subject.email]}
  - id: ask
    description: d
    owner: o
    effect: permit
    subject: {kind: agent}
    target: {upstream: "-", methods: [POST], paths: [/access/v1/evaluation]}
    asking: {about: any, trust: [roles]}
"""
)


def test_the_whole_language_is_compiled(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(WHOLE, "utf-8")
    assert compile_folder(tmp_path).rules.keys() == {"-", "ledger", "resource:todo"}


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        True,
        3,
        -1.5,
        "",
        "*",
        "-",
        ".",
        "{a",
        [],
        {},
        [None],
        [[]],
        [["a", 1], ["b", {}]],
        {"any": 1},
        "subject.",
    ],
    ids=repr,
)
def test_whatever_stands_anywhere_is_compiled_or_refused(wrong: object, tmp_path: Path) -> None:
    """A third of all places for each value, and other ones for the next."""
    found: list[tuple[Any, Any]] = []
    document = yaml.safe_load(
        WHOLE.replace("2026-01-01", '"2026-01-01"').replace("2026-03-31", '"2026-03-31"')
    )
    places(document, found)
    for container, key in found[len(repr(wrong)) % 3 :: 3]:
        before = container[key]
        container[key] = wrong
        (tmp_path / "a.yaml").write_text(json.dumps(document), "utf-8")
        try:
            assert load_bundle(compile_folder(tmp_path).text)
        except SeedError as error:
            assert all("the gate would refuse" not in problem.text for problem in error.problems)  # noqa: PT017
        container[key] = before
    assert len(found) > 250
