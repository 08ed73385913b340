"""A rule printed as a policy: whoever compiles the text gets the rule back, whatever the policy says."""

import json
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from airgate.engine import BY, DAYS
from airgate.policy import limits
from airgate.policy.compile import Compiled, compile_folder
from airgate.policy.index import Rule, rules
from airgate.policy.source import UNSEEN
from airgate.policy.text import as_yaml

SEED: dict[str, Any] = {
    "issuers": {
        name: {
            "issuer": f"https://{name}.example.com",
            "audiences": ["https://gate.example.com"],
            "algorithms": ["RS256"],
        }
        for name in ("company", "partner")
    },
    "roles": {
        name: {"description": "d", "granted_to": [{"issuer": "company", "subject": name}]}
        for name in ("reader", "writer", "true")
    },
    "upstreams": {
        name: {
            "base": f"https://{name}.example.com",
            "owner": "o",
            "credentials": {"ledger-writer": {"kind": "caller"}, "true": {"kind": "caller"}},
        }
        for name in ("ledger", "crm", "null")
    },
}

# Words that mean something else without quotes, to this reader or to others.
AWKWARD = [
    "true", "no", "On", "null", "~", "12", "007", "1.5", "+.5", "1.5e3", "1e5", "0x10", "0o7", "1_000", "12:30",
    "2026-01-31", "=", "<<", "-", "- a", "a: b", "a:", ":a", "a #b", "#a", "{a}", "[a", "a]", "*a", "&a", "!a", "%a",
    "@a", "`a", "'a'", "'", '"a"', '"', "\\", "|", ">", "?", "? a", "---", "...", "a, b", "a,", "10s", "1MB", "é", "😀",
    "\u202e", "\ufeff", "\u00a0a", "\u0085", "\ufffe", "//", "a  b", " a", "a ",
]  # fmt: skip
LETTERS = st.characters(codec="utf-8", exclude_characters="".join(map(chr, [*range(0x20), 0x7F])))


def some(values: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=1, max_size=most, unique_by=json.dumps)


def one_or(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return values | some(values)


def mapping(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


def filled(optional: dict[str, Any], required: dict[str, Any] | None = None) -> st.SearchStrategy[Any]:
    """With at least one of the members that may be left out."""
    return mapping(required or {}, optional).filter(lambda found: any(name in found for name in optional))


def quantified(values: st.SearchStrategy[Any], **required: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return filled(dict.fromkeys(("any", "all", "none"), some(values)), required)


def apart(items: st.SearchStrategy[Any], member: str) -> st.SearchStrategy[list[Any]]:
    """A list of items that are about different things."""
    return st.lists(
        items, min_size=1, max_size=3, unique_by=lambda item: json.dumps(item[member]).strip("[]").lower()
    )


LINES = st.sampled_from(AWKWARD) | st.text(LETTERS, min_size=1, max_size=12)
LINES = LINES.filter(lambda text: text.strip() != "")
VALUES = LINES | st.just("") | st.booleans() | st.integers(-(10**17), 10**17)
GLOBS = st.sampled_from(["*", "finance_*", "x", "*_close", "a.b-*"])
NAMES = st.sampled_from(["reader", "writer", "true"])
PATHS = st.sampled_from(
    ["/", "/**", "/v1/{owner}", "/v1/{owner}/**", "/v1/team*/x", "/Q1 2026/Über blick", "/{owner}/{id}"]
)
CLAIMS = one_or(st.sampled_from(["department", "a.b", "true", "https://example.com/claim", "12"]))
CLOCK = st.builds(lambda hour, minute: f"{hour:02}:{minute:02}", st.integers(0, 23), st.integers(0, 59))
SPANS = st.sampled_from(DAYS) | st.sampled_from(["mon-fri", "sat-sun", "sat-mon", "sun-sat", "wed-thu"])
DATES = st.dates(min_value=date(2000, 1, 1), max_value=date(2499, 12, 31)).map(str)
MOMENTS = DATES.map(lambda day: f"{day}T08:30:01+05:30") | DATES
LATER = st.dates(min_value=date(2500, 1, 1), max_value=date(2999, 12, 31)).map(str)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"])
NETWORKS = st.sampled_from(
    ["198.51.100.0/24", "203.0.113.7", "0.0.0.0/0", "2001:db8::/32", "::1", "2001:DB8:0::/48"]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False)
    | LINES | st.just(""),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(LINES, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip

SUBJECT = filled(
    {
        "kind": one_or(st.sampled_from(["workload", "human", "agent"])),
        "id": one_or(LINES),
        "dpop": st.booleans(),
        "delegated": st.booleans(),
        "roles": quantified(NAMES),
        "claims": apart(quantified(VALUES, claim=CLAIMS), "claim"),
    },
    {"issuer": one_or(st.sampled_from(["company", "partner"]))},
)
WORKLOAD = filled(
    {
        "dag": one_or(GLOBS),
        "task": one_or(GLOBS),
        "environment": one_or(GLOBS),
        "run_type": one_or(GLOBS),
        "triggered_by": one_or(GLOBS),
        "tags": quantified(LINES.filter(lambda tag: "," not in tag and tag == tag.strip())),
    },
    {"attested": st.booleans()},
)
OF_CALLS = filled(
    {
        "query": apart(
            quantified(VALUES, parameter=st.sampled_from(["format", "F[x]", "true", "12"])), "parameter"
        )
    },
    {
        "upstream": one_or(st.sampled_from(["ledger", "crm", "null"])),
        "methods": some(st.sampled_from(["GET", "POST", "DELETE"])) | st.sampled_from(["*", ["*"]]),
        "paths": some(PATHS),
    },
)
OF_RESOURCES = mapping(
    {"resource": one_or(st.sampled_from(["todo", "a:b", "12", "true"])), "actions": some(LINES)},
    {"ids": some(LINES), "properties": apart(quantified(VALUES, property=LINES), "property")},
)
MONTH_DAYS = st.sampled_from(
    [1, 15, 31, -1, "-5", "28-31", "last", "last 3", "-9--4", "3-27"]
)  # never all days
TIME = filled(
    {
        "days": SPANS | some(SPANS),
        "month_days": MONTH_DAYS | some(MONTH_DAYS),
        "from": CLOCK,
        "to": CLOCK | st.just("24:00"),
    },
    {"zone": ZONES},
).filter(lambda time: time.get("from") != time.get("to") or "from" not in time)
SPAN = mapping({"from": MOMENTS, "until": LATER}, {"zone": ZONES}) | filled(
    {"from": DATES, "until": DATES}, {"zone": ZONES}
).filter(lambda dates: len(dates) == 2)
EQUAL = st.sampled_from(
    [["subject.email", "subject.id"], ["query.account", "subject.true"], ["workload.dag", "subject.dag"],
     ["subject.a.b", "workload.run"], ["subject.kind", "subject.issuer"], ["subject.id", "workload.triggered_by"],
     ["workload.run_type", "workload.dag"]]
)  # fmt: skip
EQUAL_OF_RESOURCES = EQUAL.filter(lambda pair: "query.account" not in pair) | st.sampled_from(
    [["resource.id", "subject.id"], ["resource.owner", "subject.email"]]
)


def when(equal: st.SearchStrategy[list[str]]) -> st.SearchStrategy[Any]:
    return filled(
        {
            "time": TIME,
            "dates": SPAN,
            "ip": one_or(NETWORKS).map(
                lambda found: found if isinstance(found, str) else list(dict.fromkeys(found))
            ),
            "country": one_or(st.sampled_from(["DE", "NO", "XK"])),
            "equals": equal | some(equal),
        }
    )


def limit(per: str, seconds: int) -> st.SearchStrategy[Any]:
    by = st.sets(st.sampled_from(BY), max_size=4).map(lambda names: sorted({*names, "subject"}))
    return st.fixed_dictionaries(
        {"limit": st.sampled_from(limits.LADDER[seconds]), "per": st.just(per), "by": by | st.just("policy")}
    )


LIMITS = limit("minute", 60) | limit("10s", 10)
OBLIGATIONS = st.builds(
    dict.__or__,
    st.dictionaries(st.sampled_from(["x-own", "true", "notify", "a_b"]), ANYTHING, max_size=2),
    mapping(
        {},
        {
            "rate_limit": LIMITS
            | st.lists(
                LIMITS, min_size=1, max_size=3, unique_by=lambda each: (each["per"], json.dumps(each["by"]))
            ),
            "credential": st.sampled_from(["ledger-writer", "true"]),
            "max_body": st.sampled_from(["0B", "1MB", "1000KB", "64KiB", "1024KiB", "999999999MiB", "7B"]),
            "require": mapping(
                {"headers": one_or(st.sampled_from(["X-Change-Id", "true"]))},
                {"justification": st.booleans()},
            )
            | st.just({"justification": True}),
        },
    ),
).filter(bool)


def policies(target: Any, equal: Any) -> st.SearchStrategy[dict[str, Any]]:
    common = {"description": st.just("d"), "owner": LINES, "target": target}
    optional = {"mode": st.sampled_from(["enforce", "shadow"]), "workload": WORKLOAD, "when": when(equal)}
    permits = mapping(
        {**common, "effect": st.just("permit"), "subject": SUBJECT}, {**optional, "obligations": OBLIGATIONS}
    )
    forbids = mapping({**common, "effect": st.just("forbid")}, {**optional, "subject": SUBJECT})
    return permits | forbids


ASKING = mapping(
    {
        "description": st.just("d"),
        "owner": LINES,
        "effect": st.just("permit"),
        "subject": SUBJECT,
        "target": mapping(
            {
                "upstream": st.just("-"),
                "methods": st.just(["POST"]),
                "paths": some(st.sampled_from(["/access/v1/evaluation", "/access/v1/evaluations"])),
            },
            {},
        ),
        "asking": mapping(
            {"about": st.just("any")},
            {"trust": some(st.sampled_from(["roles", "claims", "workload", "client"]))},
        )
        | st.just({"about": "self"}),
    },
    {"obligations": st.just({"rate_limit": {"limit": 60, "per": "minute", "by": "subject"}})},
)
EXCHANGING = mapping(
    {
        "description": st.just("d"),
        "owner": LINES,
        "effect": st.just("permit"),
        "subject": SUBJECT,
        "target": st.just({"upstream": "-", "methods": ["POST"], "paths": ["/token"]}),
        "exchange": mapping(
            {"upstreams": one_or(st.sampled_from(["ledger", "crm"]))},
            {
                "roles": one_or(NAMES),
                "lifetime": st.sampled_from(["1s", "90s", "5m", "10m"]),
                "bound": st.booleans(),
            },
        ),
    },
    {"workload": WORKLOAD, "when": when(EQUAL.filter(lambda pair: "query.account" not in pair))},
)
POLICIES = policies(OF_CALLS, EQUAL) | policies(OF_RESOURCES, EQUAL_OF_RESOURCES) | ASKING | EXCHANGING


def vouched(policy: dict[str, Any]) -> dict[str, Any]:
    """With `attested` where a permit compares the workload and doesn't say it, or where only a token says it."""
    compared = json.dumps(policy.get("when", {}))
    of_a_run = [name for name in ("run_type", "triggered_by") if f"workload.{name}" in compared]
    if of_a_run or not {"run_type", "triggered_by"}.isdisjoint(policy.get("workload", {})):
        return {**policy, "workload": {**policy.get("workload", {}), "attested": True}}
    if policy["effect"] == "permit" and "workload." in json.dumps(policy.get("when", {})):
        return {**policy, "workload": {"attested": True, **policy.get("workload", {})}}
    return policy


def written(policies: list[dict[str, Any]]) -> str:
    """JSON is YAML, once it says what can't be seen in other characters."""
    numbered = [{"id": f"p{number}", **vouched(policy)} for number, policy in enumerate(policies)]
    text = json.dumps({**SEED, "policies": numbered}, ensure_ascii=False)
    return UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def compiled(text: str) -> Compiled:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "seed.yaml").write_text(text, "utf-8")
        return compile_folder(Path(folder), now=1_800_000_000)


def printed(found: Compiled) -> str:
    """The same seed, with every policy printed from its rule."""
    upstreams: dict[str, list[str]] = {}
    by_id: dict[str, Rule] = {}
    for upstream, each in found.rules.items():
        for rule in each:
            by_id[rule.id] = rule
            upstreams.setdefault(rule.id, []).append(upstream)
    policies = "".join(as_yaml(rule, upstreams[name]) for name, rule in by_id.items())
    return yaml.safe_dump(SEED) + "policies:\n" + policies


@settings(max_examples=150)
@given(st.lists(POLICIES, min_size=1, max_size=4))
def test_compiling_what_is_printed_gives_the_same_rules(policies: list[dict[str, Any]]) -> None:
    first = compiled(written(policies))
    again = compiled(printed(first))
    assert again.rules == first.rules
    assert again.text == first.text
    assert again.shards == first.shards
    assert printed(again) == printed(first)
    assert {upstream: rules(json.loads(text)) for upstream, text in first.shards.items()} == first.rules


# name, a policy as its author may have written it, how it's printed
PRINTED: list[tuple[str, dict[str, Any], str]] = [
    (
        "a permit with everything in its place",
        {
            "description": "d",
            "owner": "finance-data@example.com",
            "effect": "permit",
            "mode": "enforce",
            "subject": {
                "issuer": ["company"],
                "roles": {"none": ["true"], "any": ["writer", "reader"]},
                "claims": [{"claim": ["department"], "any": ["treasury", 7]}],
            },
            "workload": {"dag": "finance_*", "attested": True},
            "target": {"upstream": ["ledger"], "methods": "*", "paths": ["/v1/{owner}"]},
            "when": {
                "time": {
                    "zone": "Europe/Berlin",
                    "days": ["sun", "mon", "tue", "fri"],
                    "from": "22:00",
                    "to": "00:00",
                },
                "dates": {"from": "2026-01-01", "until": "2026-03-31"},
                "equals": [["resource.owner", "subject.email"]],
            },
            "obligations": {
                "max_body": "1000KB",
                "rate_limit": {"limit": 60, "per": "minute", "by": ["dag", "subject"]},
                "note": None,
            },
        },
        """\
  - id: p0
    description: descriptions are not published
    owner: finance-data@example.com
    effect: permit
    subject:
      issuer: company
      roles: {any: [reader, writer], none: ["true"]}
      claims: [{claim: department, any: ["7", treasury]}]
    workload:
      dag: "finance_*"
      attested: true
    target:
      upstream: ledger
      methods: ["*"]
      paths: ["/v1/{owner}"]
    when:
      time: {zone: Europe/Berlin, days: [mon-tue, fri, sun], from: "22:00", to: "24:00"}
      dates: {from: "2026-01-01", until: "2026-03-31"}
      equals: [resource.owner, subject.email]
    obligations:
      max_body: 1MB
      rate_limit: {limit: 60, per: minute, by: [subject, dag]}
      note: null
""",
    ),
    (
        "a forbid in shadow, with more paths than a line holds",
        {
            "description": "d",
            "owner": "on call",
            "effect": "forbid",
            "mode": "shadow",
            "target": {
                "upstream": ["ledger", "crm"],
                "methods": ["GET"],
                "paths": [f"/v1/entries/archived/{name}" for name in ("first", "second", "third", "fourth")],
            },
        },
        """\
  - id: p0
    description: descriptions are not published
    owner: on call
    effect: forbid
    mode: shadow
    target:
      upstream: [crm, ledger]
      methods: [GET]
      paths:
        - /v1/entries/archived/first
        - /v1/entries/archived/second
        - /v1/entries/archived/third
        - /v1/entries/archived/fourth
""",
    ),
    (
        "a permit to ask",
        {
            "description": "d",
            "owner": "o",
            "effect": "permit",
            "subject": {"kind": "workload"},
            "target": {"upstream": "-", "methods": ["POST"], "paths": ["/access/v1/evaluation"]},
            "asking": {"about": "self"},
        },
        """\
  - id: p0
    description: descriptions are not published
    owner: o
    effect: permit
    subject:
      kind: workload
    target:
      upstream: "-"
      methods: [POST]
      paths: [/access/v1/evaluation]
    asking:
      about: self
""",
    ),
]


@pytest.mark.parametrize(("policy", "text"), [row[1:] for row in PRINTED], ids=[row[0] for row in PRINTED])
def test_a_policy_is_printed_as_a_person_would_write_it(policy: dict[str, Any], text: str) -> None:
    assert printed(compiled(written([policy]))).partition("policies:\n")[2] == text


def test_the_description_is_printed_where_it_is_known() -> None:
    [rule] = compiled(written([PRINTED[2][1]])).rules["-"]
    assert 'description: "Asks: itself"\n' in as_yaml(rule, ["-"], "Asks: itself")
