"""The bundle: read whole, or refused with the place where it is wrong."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from language import Dice, examples
from mutation import mutate
from world import (
    ABSENT,
    AUDIENCE,
    ISSUER,
    JWKS_URI,
    canonical,
    contents,
    digest,
    document,
    rule,
    shards,
)

from bundle import Issuer, Upstream, load_bundle, pinned
from identity import WORKLOAD, Grant, Mapping
from keys import ALGORITHMS, Source
from shard import load_shard
from tokens import Rules


def test_a_good_bundle() -> None:
    policies = [
        rule(
            conditions=[
                ["subject.claims.any", ["org", "unit"], ["x"]],
                ["when.equals", "subject.email", "query.x", False],
            ]
        ),
        rule(
            id="ask",
            target={"upstreams": ["-", "resource:todo"], "methods": ["*"], "paths": ["/*"]},
            conditions=[
                ["when.time", "Europe/Berlin", ["mon"], 0, 60],
                ["when.time", "Etc/UTC", ["mon"], 0, 60],
            ],
        ),
    ]
    text, parts = contents(*policies)
    bundle = load_bundle(text)
    assert bundle.version == digest(text)[:12]
    assert bundle.issuers == {
        ISSUER: Issuer(
            Source(ISSUER, JWKS_URI),
            Rules(
                frozenset({AUDIENCE}), frozenset({"EdDSA"}), "at+jwt", 3600, 60, frozenset({"finance-etl"})
            ),
            Mapping(
                "company",
                ("airgate_kind",),
                "workload",
                (("dag", ("airflow", "dag")),),
                (
                    Grant("publisher", ("groups",), "finance-publishers"),
                    Grant("reader", ("groups",), "finance-readers"),
                    Grant("reader", None, "auditor"),
                ),
                (("email",), ("org", "unit")),
            ),
        )
    }
    assert bundle.upstreams == {
        "ledger": Upstream("https://ledger.example.com/api", "ledger@example.com", 30, True, forwarded=False),
        "crm": Upstream("https://crm.example.com", "crm@example.com", 2.5, False, forwarded=False),
    }
    assert bundle.shards == {name: digest(part) for name, part in shards(*policies).items()}
    assert set(bundle.shards) == {"ledger", "-", "resource:todo"}
    assert set(bundle.shards.values()) == set(parts)
    assert bundle.roles == {"publisher", "reader"}
    assert bundle.zones_until == 1_861_916_400  # Berlin's, the earlier of the two


Change = Callable[[dict[str, Any]], Any]


def put(*path: Any, value: Any) -> Change:
    """A change: set the member at the end of the path, or take it away when it is ABSENT."""

    def change(bundle: dict[str, Any]) -> None:
        place: Any = bundle
        for step in path[:-1]:
            place = place[step]
        if value is ABSENT:
            del place[path[-1]]
        else:
            place[path[-1]] = value

    return change


def company(*path: Any, value: Any) -> Change:
    return put("issuers", "company", *path, value=value)


def ledger(*path: Any, value: Any) -> Change:
    return put("upstreams", "ledger", *path, value=value)


def grant(**by: str) -> dict[str, str]:
    return {"issuer": "company", **by}


def second_issuer(**changes: Any) -> Change:
    def change(bundle: dict[str, Any]) -> None:
        bundle["issuers"]["partner"] = {**bundle["issuers"]["company"], **changes}

    return change


ACCEPTED = [
    pytest.param(company("jwks_uri", value=None), id="an issuer found by discovery"),
    pytest.param(
        company("kind", "values", value={"app": "workload", "": "agent"}), id="kinds in an issuer's own words"
    ),
    pytest.param(company("kind", "claim", value=None), id="an issuer without a claim for the kind"),
    pytest.param(company("attested", value={}), id="an issuer that attests nothing"),
    pytest.param(company("algorithms", value=sorted(ALGORITHMS)), id="an issuer with every algorithm"),
    pytest.param(company("max_lifetime", value=1), id="the shortest lifetime"),
    pytest.param(company("max_lifetime", value=90_000), id="the longest lifetime"),
    pytest.param(company("clock_skew", value=0), id="no skew"),
    pytest.param(company("dpop", value="required"), id="an issuer whose tokens must be bound to a key"),
    pytest.param(company("dpop_replay", value="strict"), id="an issuer whose proofs all isolates know"),
    pytest.param(
        company("require", value=[{"claim": ["hd"], "any": ["a", "b"]}]), id="a claim that must be there"
    ),
    pytest.param(
        company("truncates", value=[{"claim": ["a", "b"], "at": 10_000}]), id="an issuer that cuts lists"
    ),
    pytest.param(put("roles", "reader", 0, value=grant(scope="ledger.read")), id="a grant by scope"),
    pytest.param(put("roles", "reader", 0, value=grant(kind="agent")), id="a grant by kind"),
    pytest.param(company("clock_skew", value=300), id="the largest skew"),
    pytest.param(second_issuer(issuer=ISSUER + "/"), id="a second issuer, one slash apart"),
    pytest.param(put("roles", value={}), id="no roles"),
    pytest.param(put("roles", "publisher", value=[]), id="a role that nothing grants"),
    pytest.param(ledger("base", value="http://127.0.0.1:9500/ledger"), id="an upstream on this machine"),
    pytest.param(ledger("base", value="https://[2606:4700::1111]:8443"), id="an upstream by its address"),
    pytest.param(
        company("attested", value={field: ["airflow", field] for field in WORKLOAD}),
        id="an issuer that attests all",
    ),
    pytest.param(put("claims", value=[]), id="no claims that are asked for"),
    pytest.param(put("claims", value=[["email"], ["org", "unit"]]), id="claims that are asked for"),
    pytest.param(put("shards", value={}), id="no shards: no policies"),
    pytest.param(put("shards", "-", value="0" * 64), id="a shard of the gate's own"),
    pytest.param(put("shards", "resource:todo", value="0" * 64), id="a shard of a resource"),
    pytest.param(put("shards", "resource:Bücher und so", value="0" * 64), id="a shard of any resource"),
    pytest.param(put("zones_until", value=0), id="zones that end with the epoch"),
    pytest.param(put("zones_until", value=2**53), id="zones that end late"),
]


@pytest.mark.parametrize("change", ACCEPTED)
def test_accepted(change: Change) -> None:
    bundle = document()
    change(bundle)
    load_bundle(canonical(bundle))


EVERY_OBJECT: list[tuple[str, tuple[Any, ...]]] = [
    ("bundle", ()),
    ("bundle.issuers.company", ("issuers", "company")),
    ("bundle.issuers.company.kind", ("issuers", "company", "kind")),
    ("bundle.roles.publisher[0]", ("roles", "publisher", 0)),
    ("bundle.roles.reader[1]", ("roles", "reader", 1)),
    ("bundle.upstreams.ledger", ("upstreams", "ledger")),
]


def whole() -> dict[str, Any]:
    return copy.deepcopy(document())


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


MEMBERS = [
    pytest.param(where, (*path, name), id=f"{where}.{name}")
    for where, path in EVERY_OBJECT
    for name in at(whole(), path)
]


def complaint(bundle: Any) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what is looked at
        load_bundle(bundle if isinstance(bundle, str) else canonical(bundle))
    return str(caught.value)


@pytest.mark.parametrize(
    ("where", "path"), [pytest.param(where, path, id=where) for where, path in EVERY_OBJECT]
)
def test_a_member_that_is_not_known_is_refused(where: str, path: tuple[Any, ...]) -> None:
    bundle = whole()
    at(bundle, path)["when"] = {"time": "06:00"}
    assert complaint(bundle) == f"{where}.when: not known to this version"


@pytest.mark.parametrize(("where", "path"), MEMBERS)
def test_a_member_that_is_missing_is_refused(where: str, path: tuple[Any, ...]) -> None:
    bundle = whole()
    del at(bundle, path[:-1])[path[-1]]
    instead = (
        "claim" if path[-1] == "subject" and "roles" in path else path[-1]
    )  # a grant has one or the other
    assert complaint(bundle) == f"{where}.{instead}: missing"


NUMBERS = (
    "timeout", "total_timeout", "max_body", "concurrency", "max_lifetime", "clock_skew", "zones_until",
    "failures", "open",
)  # fmt: skip


@pytest.mark.parametrize("value", [7, {"a": 1}, [1], [[]]], ids=["a number", "an object", "[1]", "[[]]"])
@pytest.mark.parametrize(("where", "path"), MEMBERS)
def test_a_member_of_another_type_is_refused(where: str, path: tuple[Any, ...], value: Any) -> None:
    if path[-1] in NUMBERS and value == 7:
        value = "7"
    if path[-1] in ("issuers", "roles") and value == {"a": 1}:
        value = "none"
    bundle = whole()
    at(bundle, path[:-1])[path[-1]] = value
    assert complaint(bundle).startswith(f"{where}.{path[-1]}")


NULLABLE = {("jwks_uri",), ("zones_until",), ("kind", "claim")} | {
    (name,)
    for name in (
        "via", "request_headers", "cors", "max_body", "total_timeout", "concurrency", "breaker", "credential",
    )
}  # fmt: skip


@pytest.mark.parametrize(("where", "path"), MEMBERS)
def test_null_is_refused_where_it_means_nothing(where: str, path: tuple[Any, ...]) -> None:
    bundle = whole()
    at(bundle, path[:-1])[path[-1]] = None
    if path[-1:] in NULLABLE or path[-2:] in NULLABLE:
        load_bundle(canonical(bundle))
    else:
        assert complaint(bundle).startswith(f"{where}.{path[-1]}:")


REFUSED = [
    pytest.param(put("format", value=5.0), "bundle.format", id="a format with a point"),
    pytest.param(put("format", value=0), "bundle.format", id="format 0"),
    pytest.param(put("format", value=2**64), "bundle.format", id="a format past exact numbers"),
    pytest.param(
        company("dpop_replay", value="global"),
        "bundle.issuers.company.dpop_replay",
        id="proofs kept elsewhere",
    ),
    pytest.param(put("format", value=True), "bundle.format", id="a format that is true"),
    pytest.param(put("format", value="3"), "bundle.format", id="a format that is text"),
    pytest.param(
        put("issuers", "Company", value={}), "bundle.issuers.'Company'", id="an issuer in upper case"
    ),
    pytest.param(put("roles", "", value=[]), "bundle.roles.''", id="a role without a name"),
    pytest.param(put("roles", "a" * 64, value=[]), "bundle.roles.'aaa", id="a role with a long name"),
    pytest.param(
        put("upstreams", "-", value={}), "bundle.upstreams.'-'", id="an upstream named like the gate"
    ),
    pytest.param(put("upstreams", "a/b", value={}), "bundle.upstreams.'a/b'", id="an upstream with a slash"),
    pytest.param(
        put("upstreams", "a\n", value={}), "bundle.upstreams.'a\\n'", id="an upstream with a line feed"
    ),
    pytest.param(
        put("upstreams", "a", value=[]), "bundle.upstreams.a: not an object", id="an upstream as a list"
    ),
    pytest.param(second_issuer(), "bundle.issuers.partner: another entry", id="one issuer twice"),
    pytest.param(
        company("jwks_uri", value="http://keys.example.com/jwks"),
        "bundle.issuers.company.jwks_uri",
        id="keys fetched in the clear",
    ),
    pytest.param(
        lambda bundle: bundle["issuers"]["company"].update(jwks_uri=None, issuer="http://login.example.com"),
        "bundle.issuers.company.issuer",
        id="keys discovered in the clear",
    ),
    pytest.param(company("algorithms", value=["none"]), "bundle.issuers.company.algorithms", id="alg none"),
    pytest.param(company("algorithms", value=["HS256"]), "bundle.issuers.company.algorithms", id="alg HS256"),
    pytest.param(
        company("algorithms", value=["eddsa"]), "bundle.issuers.company.algorithms", id="alg in lower case"
    ),
    pytest.param(company("algorithms", value=[]), "bundle.issuers.company.algorithms", id="no algorithm"),
    pytest.param(company("audiences", value=[]), "bundle.issuers.company.audiences", id="no audience"),
    pytest.param(
        company("audiences", value=AUDIENCE), "bundle.issuers.company.audiences", id="a bare audience"
    ),
    pytest.param(
        company("role_tag", value=True), "bundle.issuers.company.role_tag", id="a role tag that is true"
    ),
    pytest.param(company("dpop", value="always"), "bundle.issuers.company.dpop", id="another way of binding"),
    pytest.param(
        company("require", value={}), "bundle.issuers.company.require", id="required claims as an object"
    ),
    pytest.param(
        company("require", value=[{"claim": ["hd"], "any": []}]),
        "bundle.issuers.company.require[0].any",
        id="a claim that must have no value",
    ),
    pytest.param(
        company("require", value=[{"claim": [], "any": ["a"]}]),
        "bundle.issuers.company.require[0].claim",
        id="a required claim without a name",
    ),
    pytest.param(
        company("require", value=[{"claim": ["hd"], "any": ["a"], "none": ["b"]}]),
        "bundle.issuers.company.require[0].none",
        id="a required claim in another way",
    ),
    *(
        pytest.param(
            company("truncates", value=[{"claim": ["groups"], "at": length}]),
            "bundle.issuers.company.truncates[0].at",
            id=f"a list that is cut at {length}",
        )
        for length in (0, 10_001, True, 1.5)
    ),
    pytest.param(
        company("truncates", value=[{"claim": ["groups"], "at": 1, "below": 2}]),
        "bundle.issuers.company.truncates[0].below",
        id="a list that is cut in another way",
    ),
    pytest.param(
        put("roles", "reader", 0, value=grant(kind="robot")),
        "bundle.roles.reader[0].kind",
        id="a grant by no kind",
    ),
    pytest.param(
        put("roles", "reader", 0, value=grant(scope="a", kind="agent")),
        "bundle.roles.reader[0].scope",
        id="a grant by scope and kind",
    ),
    pytest.param(company("type", value="JWT"), "bundle.issuers.company.type", id="another type"),
    pytest.param(company("max_lifetime", value=0), "bundle.issuers.company.max_lifetime", id="no lifetime"),
    pytest.param(
        company("max_lifetime", value=90_001), "bundle.issuers.company.max_lifetime", id="well over a day"
    ),
    pytest.param(
        company("max_lifetime", value=True), "bundle.issuers.company.max_lifetime", id="a lifetime of true"
    ),
    pytest.param(company("clock_skew", value=-1), "bundle.issuers.company.clock_skew", id="a negative skew"),
    pytest.param(company("clock_skew", value=301), "bundle.issuers.company.clock_skew", id="a large skew"),
    pytest.param(
        company("kind", "claim", value=[]), "bundle.issuers.company.kind.claim", id="an empty claim path"
    ),
    pytest.param(
        company("kind", "claim", value="k"), "bundle.issuers.company.kind.claim", id="a bare claim path"
    ),
    pytest.param(
        company("kind", "values", value={"app": "robot"}),
        "bundle.issuers.company.kind.values.app",
        id="a value of no kind",
    ),
    pytest.param(
        company("kind", "values", value=["app"]), "bundle.issuers.company.kind.values", id="values as a list"
    ),
    pytest.param(
        company("kind", "default", value="robot"), "bundle.issuers.company.kind.default", id="another kind"
    ),
    pytest.param(
        company("attested", "owner", value=["o"]), "bundle.issuers.company.attested.owner", id="another fact"
    ),
    pytest.param(
        company("attested", "dag", value=[]), "bundle.issuers.company.attested.dag", id="a fact from nowhere"
    ),
    pytest.param(
        put("roles", "reader", 0, "issuer", value="okta"),
        "bundle.roles.reader[0].issuer",
        id="a grant by a stranger",
    ),
    pytest.param(
        put("roles", "reader", 0, "subject", value="s"),
        "bundle.roles.reader[0].claim",
        id="a grant in two ways",
    ),
    pytest.param(
        put("roles", "reader", 0, "claim", value=[]),
        "bundle.roles.reader[0].claim",
        id="a grant by an empty path",
    ),
    pytest.param(
        put("roles", "reader", value={}), "bundle.roles.reader: expected a list", id="a role as an object"
    ),
    pytest.param(ledger("timeout", value=0), "bundle.upstreams.ledger.timeout", id="no time at all"),
    pytest.param(ledger("timeout", value=3601), "bundle.upstreams.ledger.timeout", id="more than an hour"),
    pytest.param(ledger("log_path", value=1), "bundle.upstreams.ledger.log_path", id="log_path 1"),
    *(
        pytest.param(ledger("base", value=base), "bundle.upstreams.ledger.base", id=f"base {base}")
        for base in (
            "",
            "ledger.example.com",
            "ftp://ledger.example.com",
            "https://",
            "https://a/",
            "https://a/b/",
            "https://a//b",
            "https://user@a",
            "https://user:password@a",
            "https://a?b",
            "https://a/b?c",
            "https://a#b",
            "https://a/../b",
            "https://a/./b",
            "https://a/.b",
            "https://a/%2e%2e",
            "https://a\\b",
            "https://a b",
            "https://a\n",
            "javascript:alert(1)",
        )
    ),
    pytest.param(put("claims", value=["email"]), "bundle.claims", id="a bare claim"),
    pytest.param(put("claims", value=[[]]), "bundle.claims", id="a claim of no names"),
    pytest.param(put("claims", value=[["org", 7]]), "bundle.claims", id="a claim by a number"),
    pytest.param(put("shards", "crm", value="0" * 63), "bundle.shards.crm", id="a short digest"),
    pytest.param(put("shards", "crm", value="A" * 64), "bundle.shards.crm", id="a digest in capitals"),
    pytest.param(put("shards", "crm", value=["0" * 64]), "bundle.shards.crm", id="a digest in a list"),
    pytest.param(
        put("shards", "crm", value="../" + "0" * 61), "bundle.shards.crm", id="a digest that is a path"
    ),
    pytest.param(
        put("shards", "nowhere", value="0" * 64), "bundle.shards.'nowhere'", id="a shard of no upstream"
    ),
    pytest.param(
        put("shards", "Resource:x", value="0" * 64), "bundle.shards.'Resource:x'", id="half a resource"
    ),
    pytest.param(put("shards", "", value="0" * 64), "bundle.shards.''", id="a shard of nothing"),
    pytest.param(put("zones_until", value=-1), "bundle.zones_until", id="zones that end before the epoch"),
    pytest.param(put("zones_until", value=2**53 + 1), "bundle.zones_until", id="zones that end too late"),
    pytest.param(put("zones_until", value=1.5), "bundle.zones_until", id="zones that end in half a second"),
    pytest.param(put("zones_until", value=True), "bundle.zones_until", id="zones until true"),
    pytest.param(
        put("policies", value=[]), "bundle.policies: not known", id="policies as in the older format"
    ),
]


@pytest.mark.parametrize(("change", "where"), REFUSED)
def test_refused(change: Change, where: str) -> None:
    bundle = document()
    change(bundle)
    assert complaint(bundle).startswith(where)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (1, "publish again"),
        (3, "publish again"),
        (6, "deploy the newer Worker first"),
        (99, "deploy the newer Worker first"),
    ],
)
def test_a_format_that_is_not_read_is_refused_with_what_to_do(number: int, advice: str) -> None:
    said = f"{number} is not read by this Worker, which reads 4 and 5; {advice}"
    assert complaint({**document(), "format": number}) == f"bundle.format: {said}"
    assert complaint({"format": number}) == f"bundle.format: {said}"  # whatever else is in it
    made = shards(rule())["ledger"]
    with pytest.raises(ValueError, match=f"^shard.format: {said}$"):
        load_shard(made.replace('"format":5', f'"format":{number}'), "ledger")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("[]", id="a list"),
        pytest.param(canonical(document())[:-1], id="a bundle cut short"),
        pytest.param(canonical(document()).replace('"format":5', '"format":5,"format":5'), id="a name twice"),
        pytest.param(
            canonical({**document(), "more": [[]] * 5}).replace("[]", "[" * 30 + "]" * 30), id="too deep"
        ),
        pytest.param(canonical(document()).replace("ledger@", "\ud800"), id="a lone surrogate"),
    ],
)
def test_text_that_is_no_bundle(text: str) -> None:
    assert complaint(text)


def test_a_text_that_is_pinned_is_the_one_whose_digest_is_given() -> None:
    text = canonical(document())
    assert pinned(text, digest(text), "the bundle") is text
    for other in (text + " ", text.replace("company", "partner"), ""):
        with pytest.raises(ValueError, match="the bundle is not the one"):
            pinned(other, digest(text), "the bundle")
    with pytest.raises(ValueError, match="surrogates"):
        pinned("\ud800", digest(text), "the bundle")


@given(st.binary(min_size=24, max_size=24))
@settings(max_examples=examples(1000))
def test_a_bundle_that_was_changed_is_read_or_refused(choices: bytes) -> None:
    dice = Dice(choices)
    bundle = document(rule(conditions=[["subject.claims.any", ["org", "unit"], ["x"]]]))
    for _ in range(dice.of([1, 1, 2, 3])):
        mutate(bundle, dice)
    try:
        load_bundle(json.dumps(bundle))
    except ValueError as error:
        assert str(error)  # noqa: PT017 - nothing else is raised
