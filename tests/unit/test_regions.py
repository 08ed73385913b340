"""Regions: what is said of all calls at once agrees with what the gate decides, call by call."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from language import MOMENTS, RESOURCE, Scene, load, scene
from world import ZONES

from airgate.engine import KIND, KINDS, SCOPE, Call, Denied, Grant, Mapping, Zone, act, identify
from airgate.policy.callers import Callers, Tokens, claims_read
from airgate.policy.index import Rule
from airgate.policy.regions import Region, Unknown, Witness, covers, empty, intersect, witness

TABLES = {
    name: Zone(name, tuple(zone["starts"]), tuple(zone["offsets"]), zone["until"])
    for name, zone in ZONES.items()
}
ON_FRIDAY = ["when.time", "Europe/Berlin", ["fri"], 480, 1080]
AT_NIGHT = ["when.time", "Europe/Berlin", ["fri"], 1320, 120]


def month(*days: int, zone: str = "Europe/Berlin", start: int = 0, end: int = 1440) -> list[Any]:
    return ["when.time", zone, ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], start, end, sorted(days)]


def rule(*conditions: list[Any], **changes: Any) -> Rule:
    """A permit to read all of /v1, with conditions and changes."""
    return replace(
        Rule("p", "o@example.com", "permit", False, ["GET"], ["/v1/**"], list(conditions)), **changes
    )


def region(*conditions: list[Any], upstream: str = "ledger", **changes: Any) -> Region:
    return Region.of(rule(*conditions, **changes), upstream, TABLES)


def roles(quantifier: str, *names: str) -> list[Any]:
    return [f"subject.roles.{quantifier}", sorted(names)]


def dag(*patterns: str, attested: bool = False) -> list[Any]:
    return ["workload.dag", list(patterns), attested]


def tags(quantifier: str, *names: str) -> list[Any]:
    return [f"workload.tags.{quantifier}", sorted(names), False]


def claim(quantifier: str, *values: str) -> list[Any]:
    return [f"subject.claims.{quantifier}", ["dep"], sorted(values)]


def query(quantifier: str, *values: str) -> list[Any]:
    return [f"target.query.{quantifier}", "format", sorted(values)]


def same(left: str, right: str) -> list[Any]:
    return ["when.equals", left, right, False]


DPOP, BEARER = ["subject.dpop", True], ["subject.dpop", False]
DELEGATED, OWN = ["subject.delegated", True], ["subject.delegated", False]


def actor(quantifier: str, *names: str) -> list[Any]:
    return [f"subject.claims.{quantifier}", ["act", "sub"], sorted(names)]


def scopes(quantifier: str, *names: str, claim: str = "scope") -> list[Any]:
    return [f"subject.claims.{quantifier}", [claim], sorted(names)]


PERMIT, FORBID = {"effect": "permit"}, {"effect": "forbid"}
HUMAN, ISSUER = ["subject.kind", ["human"]], ["subject.issuer", ["company"]]
ALL: dict[str, Any] = {"methods": ["*"]}
EVERY: dict[str, Any] = {"methods": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]}

COVERED: list[tuple[str, Region, Region, bool | None]] = [
    # what, the one, the other, whether every call of the other is one of the one
    ("a policy itself", region(), region(), True),
    ("a longer path", region(), region(paths=["/v1/x/{id}"]), True),
    ("a shorter path", region(paths=["/v1/x/{id}"]), region(), False),
    ("two paths that are one together", region(paths=["/v1", "/v1/{a}/**"]), region(), True),
    ("fewer methods", region(**ALL), region(), True),
    ("more methods", region(), region(**ALL), False),
    ("every method named", region(**EVERY), region(**ALL), True),
    ("other actions on a resource, of which there is no end",
     region(methods=["read", "write"], paths=["/*"], upstream=RESOURCE),
     region(methods=["*"], paths=["/*"], upstream=RESOURCE), False),
    ("a condition more", region(), region(ISSUER), True),
    ("a condition less", region(ISSUER), region(), False),
    ("fewer roles of any", region(roles("any", "a", "b")), region(roles("any", "a")), True),
    ("more roles of any", region(roles("any", "a")), region(roles("any", "a", "b")), False),
    ("all of more roles", region(roles("all", "a")), region(roles("all", "a", "b")), True),
    ("all for any", region(roles("any", "a", "x")), region(roles("all", "a", "b")), True),
    ("none of more roles", region(roles("none", "a")), region(roles("none", "a", "b")), True),
    ("none of fewer roles", region(roles("none", "a", "b")), region(roles("none", "a")), False),
    ("a narrowed role: a forbid reads those that are granted",
     region(roles("any", "a"), **FORBID), region(roles("any", "b")), False),
    ("a role in use, which is granted too", region(roles("any", "a"), **FORBID), region(roles("any", "a")), True),
    ("a role granted, which may not be in use", region(roles("any", "a")), region(roles("any", "a"), **FORBID), False),
    ("another pattern inside it", region(dag("fin*")), region(dag("finance_*")), True),
    ("a pattern across it", region(dag("*_daily")), region(dag("finance_*")), False),
    ("patterns that leave nothing out", region(dag("a*", "*")), region(dag("b*")), True),
    ("what is attested only", region(dag("x")), region(dag("x", attested=True)), True),
    ("what a header may say", region(dag("x", attested=True)), region(dag("x")), False),
    ("a forbid where nothing is known", region(dag("x"), **FORBID), region(), False),
    ("a forbid of what is not known, for machines",
     region(dag("*"), **FORBID), region(["subject.kind", ["workload", "agent"]]), True),
    ("a forbid of what is not known, for people", region(dag("*"), **FORBID), region(HUMAN), False),
    ("a permit where nothing is known", region(dag("*")), region(), False),
    ("one tag for another", region(tags("any", "a")), region(tags("any", "b")), False),
    ("all tags for any", region(tags("any", "a", "b")), region(tags("all", "a", "b")), True),
    ("any tag but one", region(tags("any", "a", "b")), region(tags("any", "a", "b", "c"), tags("none", "c")), True),
    ("a claim among more", region(claim("any", "x", "y")), region(claim("any", "x")), True),
    ("a claim that is there", region(claim("any", "x")), region(claim("none", "y")), False),
    ("the claim sub, which is the subject", region(["subject.claims.any", ["sub"], ["x", "y"]]),
     region(["subject.id", ["x"]]), True),
    ("the subject, which is the claim sub", region(["subject.id", ["x"]]),
     region(["subject.claims.none", ["sub"], ["y"]]), False),
    ("tokens that are bound to a key, and are not", region(DPOP), region(BEARER), False),
    ("tokens that are bound to a key, of more", region(), region(DPOP), True),
    ("a flag is never unknown", region(OWN, **FORBID), region(DELEGATED), False),
    ("the claim that says who acts, and that somebody does", region(DELEGATED), region(actor("none", "x")), True),
    ("who acts, and that anybody does", region(actor("any", "x")), region(DELEGATED), False),
    ("nobody who acts, and not knowing who", region(actor("any", "x"), **FORBID), region(OWN), True),
    ("not knowing who acts is that nobody does",
     region(OWN), region(actor("any", "x"), actor("none", "x"), **FORBID), True),
    ("one who acts is not two", region(roles("any", "zz")), region(actor("all", "x", "y")), True),
    ("the claim that says the key, and that there is one", region(DPOP),
     region(["subject.claims.none", ["cnf", "jkt"], ["K" * 43]]), True),
    ("a key that no token is bound to", region(roles("any", "zz")),
     region(["subject.claims.any", ["cnf", "jkt"], ["short"]]), True),
    ("scopes by one name of the claim for the other", region(scopes("any", "x")),
     region(scopes("any", "x", claim="scp")), True),
    ("other scopes", region(scopes("any", "x")), region(scopes("any", "y")), False),
    ("a scope beside another", region(scopes("any", "x")), region(scopes("all", "x", "y")), True),
    ("a parameter that is not there", region(query("none", "csv")), region(query("any", "json")), True),
    ("one value is not all of two", region(query("all", "csv", "json")), region(query("any", "csv")), False),
    ("smaller networks",
     region(["when.ip", ["10.0.0.0/8"]]), region(["when.ip", ["10.1.0.0/16", "10.2.0.0/16"]]), True),
    ("a network beside it", region(["when.ip", ["10.0.0.0/9"]]), region(["when.ip", ["10.0.0.0/8"]]), False),
    ("networks that are one together",
     region(["when.ip", ["10.0.0.0/9", "10.128.0.0/9"]]), region(["when.ip", ["10.0.0.0/8"]]), True),
    ("fewer countries", region(["when.country", ["DE", "FR"]]), region(["when.country", ["DE"]]), True),
    ("hours inside it", region(ON_FRIDAY), region(["when.time", "Europe/Berlin", ["fri"], 540, 600]), True),
    ("the same hours in another zone", region(ON_FRIDAY), region(["when.time", "Etc/UTC", ["fri"], 480, 1080]), False),
    ("hours inside it, whatever the offset",
     region(["when.time", "Etc/UTC", ["fri"], 360, 1080]), region(ON_FRIDAY), True),
    ("hours that a summer moves out of it",
     region(["when.time", "Etc/UTC", ["fri"], 420, 1080]), region(ON_FRIDAY), False),
    ("hours after midnight", region(AT_NIGHT), region(["when.time", "Europe/Berlin", ["sat"], 0, 120]), True),
    ("hours before midnight", region(AT_NIGHT), region(["when.time", "Europe/Berlin", ["sat"], 1320, 1440]), False),
    ("the last three days for the last", region(month(-3, -2, -1)), region(month(-1)), True),
    ("the 31st for the last day", region(month(31)), region(month(-1)), False),
    ("the days on which months end", region(month(28, 29, 30, 31)), region(month(-1)), True),
    ("one day of these less", region(month(28, 30, 31)), region(month(-1)), False),
    ("the last day for the 31st", region(month(-1)), region(month(31)), True),
    ("the last three days for the 29th to the 31st", region(month(-3, -2, -1)), region(month(29, 30, 31)), True),
    ("the last three days for the 28th", region(month(-3, -2, -1)), region(month(28)), False),
    ("the first hours after a month's last night", region(month(-1, start=1320, end=120)),
     region(month(1, end=120)), True),
    ("its evening", region(month(-1, start=1320, end=120)), region(month(-1, start=1320)), True),
    ("hours before a month's last evening", region(month(-1, start=1320, end=120)), region(month(-1, end=120)), False),
    ("Fridays for a Friday the 13th", region(["when.time", "Etc/UTC", ["fri"], 0, 1440]),
     region(["when.time", "Etc/UTC", ["fri"], 0, 1440, [13]]), True),
    ("a Friday the 13th for Fridays", region(["when.time", "Etc/UTC", ["fri"], 0, 1440, [13]]),
     region(["when.time", "Etc/UTC", ["fri"], 0, 1440]), False),
    ("the last day on the clocks of another zone", region(month(-1, zone="Etc/UTC")), region(month(-1)), False),
    ("the last two days on the clocks of another zone", region(month(-2, -1, zone="Etc/UTC")), region(month(-1)), True),
    ("every other day", region(month(*range(1, 31))), region(month(-1, 31)), False),
    ("a run's type that no header says", region(["workload.run_type", ["x"], True]),
     region(["workload.run_type", ["x"], False]), True),
    ("a user that no header says", region(["workload.triggered_by", ["x"], True]),
     region(["workload.triggered_by", ["x"], False]), True),
    ("a forbid of a type that isn't known", region(["workload.run_type", ["x"], True], **FORBID),
     region(["subject.kind", ["workload"]]), False),
    ("earlier dates", region(["when.dates", None, 200]), region(["when.dates", 50, 100]), True),
    ("later dates", region(["when.dates", None, 200]), region(["when.dates", 50, None]), False),
    ("the same comparison", region(same("resource.id", "subject.id"), paths=["/v1/{id}"]),
     region(same("resource.id", "subject.id"), paths=["/v1/{id}"]), True),
    ("the same comparison, said the other way round", region(same("subject.id", "query.owner")),
     region(same("query.owner", "subject.id")), True),
    ("a comparison with another segment", region(same("resource.id", "subject.id"), paths=["/v1/{id}/{x}"]),
     region(same("resource.id", "subject.id"), paths=["/v1/{x}/{id}"]), False),
    ("a placeholder that the path has not", region(), region(same("resource.nobody", "subject.id")), True),
    ("what is never so", region(roles("any", "zz")), region(roles("any", "a"), roles("none", "a")), True),
    ("another upstream", region(), region(upstream="crm"), False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other", "whole"), [pytest.param(*row, id=f"{name}: {row[-1]}") for name, *row in COVERED]
)
def test_covers(one: Region, other: Region, whole: bool | None) -> None:
    assert covers(one, other) is whole


EMPTY: list[tuple[str, Rule, str]] = [
    # what, the policy, why no call can ever match
    ("nothing", rule(), ""),
    ("a role asked for and kept out", rule(roles("any", "a"), roles("none", "a")),
     "subject.roles.any [a] and subject.roles.none [a] are never true together"),
    ("one of two roles asked for and kept out", rule(roles("any", "a", "b"), roles("none", "a")), ""),
    ("only what matters is named", rule(ISSUER, roles("all", "a", "b"), dag("x"), roles("none", "b")),
     "subject.roles.all [a, b] and subject.roles.none [b] are never true together"),
    ("a forbid is read the same", rule(roles("any", "a"), roles("none", "a"), **FORBID),
     "subject.roles.any [a] and subject.roles.none [a] are never true together"),
    ("bound and not bound", rule(DPOP, BEARER), "subject.dpop true and subject.dpop false are never true together"),
    ("who acts where nobody does", rule(OWN, actor("any", "x")),
     "subject.delegated false and subject.claims.any (act.sub) [x] are never true together"),
    ("a person's DAG", rule(HUMAN, dag("x")), "subject.kind [human] and workload.dag [x] are never true together"),
    ("a date before itself", rule(["when.dates", 100, 50]), "when.dates: it ends before it begins"),
    ("a Friday that is a Monday", rule(ON_FRIDAY, ["when.time", "Europe/Berlin", ["mon"], 0, 1440]),
     "when.time (Europe/Berlin [fri] 08:00-18:00) and when.time (Europe/Berlin [mon] 00:00-24:00) "
     "are never true together"),
    ("a 31st that isn't the last", rule(month(31), month(-2)),
     "when.time (Europe/Berlin [mon, tue, wed, thu, fri, sat, sun] month_days [31] 00:00-24:00) and "
     "when.time (Europe/Berlin [mon, tue, wed, thu, fri, sat, sun] month_days [-2] 00:00-24:00) "
     "are never true together"),
    ("a 29th of February, once in four years", rule(month(29), month(-1)), ""),
    ("a night that reaches into the next day", rule(AT_NIGHT, ["when.time", "Europe/Berlin", ["sat"], 0, 1440]), ""),
    ("two networks that share nothing", rule(["when.ip", ["10.0.0.0/8"]], ["when.ip", ["192.0.2.0/24"]]),
     "when.ip [10.0.0.0/8] and when.ip [192.0.2.0/24] are never true together"),
    ("a value of one parameter that would be two", rule(query("all", "csv", "json")),
     "target.query.all (format) [csv, json]: never true"),
    ("a claim that holds two values", rule(claim("all", "x", "y")), ""),
    ("a path that no request has", rule(paths=["/v1/.."]), "no path that the gate lets through matches [/v1/..]"),
    ("a placeholder that the path has not", rule(same("resource.nobody", "subject.id")),
     "when.equals [resource.nobody, subject.id]: never true"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "why"), [pytest.param(*row, id=f"{name}: {row[-1] or 'possible'}") for name, *row in EMPTY]
)
def test_a_policy_that_contradicts_itself(policy: Rule, why: str) -> None:
    assert empty(policy, "ledger", TABLES) == why


COMPANY = Mapping(
    id="company",
    kind_claim=None,
    kind_default="workload",
    attested=(("task", ("task",)),),
    grants=(
        Grant("a", ("groups",), "a"),
        Grant("b", None, "svc-b"),
        Grant("c", None, "svc-c"),
        Grant("batch", KIND, "workload"),
        Grant("bot", KIND, "agent"),
        Grant("writer", SCOPE, "write"),
        Grant("assistant", ("act", "sub"), "assistant"),
    ),
)
KNOWN = Callers({"company": Tokens(COMPANY, "https://login.example.com")})
BOUND = Callers({"company": Tokens(COMPANY, "https://login.example.com", bound=True)})

IMPOSSIBLE: list[tuple[str, Rule, str]] = [
    ("a role that its issuer grants", rule(ISSUER, roles("any", "a")), ""),
    ("a role that nobody grants", rule(roles("any", "z")), "subject.roles.any [z]: no issuer grants z"),
    ("roles that nobody grants", rule(roles("any", "y", "z")),
     "subject.roles.any [y, z]: no issuer grants y or z"),
    ("a role among others that nobody grants", rule(roles("all", "a", "z")),
     "subject.roles.all [a, z]: no issuer grants z"),
    ("a role by kind", rule(roles("any", "batch")), ""),
    ("a role by a kind that no token says", rule(roles("any", "bot")), "subject.roles.any [bot]: nobody can hold it"),
    ("a role by scope", rule(roles("any", "writer")), ""),
    ("a role by who acts", rule(roles("any", "assistant")), ""),
    ("a role by who acts, where nobody does", rule(OWN, roles("any", "assistant")),
     "subject.delegated false and subject.roles.any [assistant] are never true together"),
    ("roles of two subjects", rule(roles("all", "b", "c")),
     "subject.roles.all [b, c]: nobody can hold them all"),
    ("a role of another subject", rule(["subject.id", ["svc-c"]], roles("any", "b")),
     "subject.id [svc-c] and subject.roles.any [b] are never true together"),
    ("a kind that no token says", rule(HUMAN), "subject.kind [human]: no issuer's tokens are of that kind"),
    ("an issuer that isn't there", rule(["subject.issuer", ["partner"]]), "subject.issuer [partner]: no such issuer"),
    ("context that is attested", rule(["workload.task", ["x"], True]), ""),
    ("context that nobody attests", rule(dag("x", attested=True)),
     "workload.dag [x], attested: no issuer attests it"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "why"),
    [pytest.param(*row, id=f"{name}: {row[-1] or 'possible'}") for name, *row in IMPOSSIBLE],
)
def test_a_policy_that_nobody_can_meet(policy: Rule, why: str) -> None:
    assert empty(policy, "ledger", TABLES, KNOWN) == why


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        pytest.param(DPOP, "", id="a token that is bound"),
        pytest.param(
            BEARER, "subject.dpop false: every issuer's tokens have to be bound to a key", id="one that isn't"
        ),
    ],
)
def test_where_tokens_have_to_be_bound(condition: list[Any], why: str) -> None:
    assert empty(rule(condition), "ledger", TABLES, BOUND) == why
    found = witness(Region.of(rule(), "ledger", TABLES, BOUND))
    assert isinstance(found, Witness)
    call = found.call(BOUND)
    assert call is not None
    assert call.caller.identity.jkt is not None
    assert replace(found, claims={}).call(BOUND) is None


WITNESSES: list[tuple[str, list[list[Any]], dict[str, Any]]] = [
    # what is asked for, the conditions, and claims of the token that is made up
    ("a key", [DPOP], {"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}),
    ("somebody who acts", [DELEGATED], {"act": {"sub": "deputy"}}),
    ("a certain one", [actor("any", "bot", "cat"), actor("none", "bot")], {"act": {"sub": "cat"}}),
    ("another one", [actor("none", "deputy")], {"act": {"sub": "deputy-1"}}),
    ("one who acts for one who acts", [["subject.claims.any", ["act", "act", "sub"], ["x"]]],
     {"act": {"act": {"sub": "x"}, "sub": "deputy"}}),
    ("a role by scope", [roles("all", "writer")], {"scope": "write"}),
    ("a role by scope, and another scope", [roles("all", "writer"), scopes("all", "read", claim="scp")],
     {"scope": "read write"}),
    ("a scope with a space in it, which only a list can hold", [scopes("all", "a b")], {"scope": ["a b"]}),
    ("a role by kind, where no claim says the kind", [roles("all", "batch")], {}),
    ("a role by who acts", [roles("all", "assistant")], {"act": {"sub": "assistant"}}),
    ("no role by who acts, and somebody else does", [DELEGATED, actor("none", "deputy"), roles("none", "assistant")],
     {"act": {"sub": "deputy-1"}}),
]  # fmt: skip


@pytest.mark.parametrize(("conditions", "claims"), [pytest.param(*row[1:], id=row[0]) for row in WITNESSES])
def test_a_token_is_made_up_as_issuers_write_it(conditions: list[list[Any]], claims: dict[str, Any]) -> None:
    policy = rule(*conditions)
    reading = Mapping(**COMPANY._asdict() | {"claims": tuple(claims_read([policy]))})
    callers = Callers({"company": Tokens(reading, "https://login.example.com")})
    found = witness(Region.of(policy, "ledger", TABLES, callers))
    assert isinstance(found, Witness)
    # Claims that grant roles are there, though they grant none.
    assert found.claims == {"groups": [], "scope": ""} | claims


KINDS_OF_ITS_OWN = {"app": "workload", "svc": "workload", "bot": "agent"}


@pytest.mark.parametrize(
    ("kinds", "claim"),
    [
        pytest.param(["workload"], "app", id="a value that means the kind"),
        pytest.param(["agent", "workload"], "app", id="one of several"),
        pytest.param(["agent"], "bot", id="the only one"),
        pytest.param(["human"], None, id="the kind without the claim"),
    ],
)
def test_a_kind_is_said_as_its_issuer_says_it(kinds: list[str], claim: str | None) -> None:
    own = COMPANY._replace(kind_claim=("idtyp",), kind_default="human", kind_values=KINDS_OF_ITS_OWN)
    callers = Callers({"company": Tokens(own, "https://login.example.com")})
    found = witness(Region.of(rule(["subject.kind", kinds]), "ledger", callers=callers))
    assert isinstance(found, Witness)
    assert found.claims.get("idtyp") == claim
    machines = own._replace(kind_default="workload")
    callers = Callers({"company": Tokens(machines, "https://login.example.com")})
    assert empty(rule(HUMAN), "ledger", callers=callers) == (
        "subject.kind [human]: no issuer's tokens are of that kind"
    )


def test_where_roles_have_to_be_named_one_is_and_without_any_there_is_no_call() -> None:
    tagging = Callers({"company": Tokens(COMPANY._replace(must_tag=True), "https://login.example.com")})
    found = witness(Region.of(rule(), "ledger", callers=tagging))
    assert isinstance(found, Witness)
    assert found.tag == ("batch",)
    assert found.call(tagging) is not None
    assert replace(found, tag=None).call(tagging) is None
    found = witness(Region.of(rule(roles("all", "writer")), "ledger", callers=tagging))
    assert isinstance(found, Witness)
    assert found.tag == ("writer",)
    nobody = COMPANY._replace(must_tag=True, grants=())
    without = Callers({"company": Tokens(nobody, "https://login.example.com")})
    assert witness(Region.of(rule(), "ledger", callers=without)) is None


def test_a_role_by_kind_is_never_unknown() -> None:
    neither = [roles("any", "bot"), roles("none", "bot")]
    assert witness(Region.of(rule(*neither, **FORBID), "ledger", callers=KNOWN)) is None
    neither = [roles("any", "writer"), roles("none", "writer")]
    assert isinstance(witness(Region.of(rule(*neither, **FORBID), "ledger", callers=KNOWN)), Witness)


BY_HAND = COMPANY._replace(
    attested=(("run_type", ("airflow", "run_type")), ("triggered_by", ("airflow", "triggered_by"))),
    grants=(Grant("starter", ("airflow", "triggered_by"), "ada"),),
)
STARTED = Callers({"company": Tokens(BY_HAND, "https://airflow.example.com")})


def test_a_claim_that_grants_a_role_and_is_attested_is_one_text() -> None:
    by_role = Region.of(rule(roles("any", "starter")), "ledger", TABLES, STARTED)
    by_name = Region.of(rule(["workload.triggered_by", ["ada"], True]), "ledger", TABLES, STARTED)
    found = witness(by_role)
    assert isinstance(found, Witness)
    assert found.claims == {"airflow": {"triggered_by": "ada"}}
    assert covers(by_role, by_name) is True
    assert covers(by_name, by_role) is True
    without = Region.of(rule(roles("none", "starter")), "ledger", TABLES, STARTED)
    other = witness(without)
    assert isinstance(other, Witness)
    assert other.claims["airflow"]["triggered_by"] != "ada"
    nobody = Region.of(rule(roles("none", "starter"), **FORBID), "ledger", TABLES, STARTED)
    somebody = Region.of(rule(["workload.triggered_by", ["*"], True]), "ledger", TABLES, STARTED)
    unknown = witness(nobody, [somebody])
    assert isinstance(unknown, Witness)
    assert unknown.claims == {}
    assert empty(
        rule(roles("any", "starter"), ["workload.triggered_by", ["bob"], True]), "ledger", TABLES, STARTED
    ) == ("subject.roles.any [starter] and workload.triggered_by [bob] are never true together")


OWN_RUN = ["when.equals", "workload.triggered_by", "subject.id", True]


def test_a_run_that_is_compared_with_its_caller() -> None:
    own = Region.of(rule(OWN_RUN), "ledger", TABLES, STARTED)
    found = witness(own)
    assert isinstance(found, Witness)
    assert found.claims == {"airflow": {"triggered_by": found.subject}}
    by_ada = rule(OWN_RUN, ["workload.triggered_by", ["ada"], True], ["subject.id", ["bob"]])
    assert isinstance(witness(Region.of(by_ada, "ledger", TABLES, STARTED)), Unknown | None)
    by_role = Region.of(rule(OWN_RUN, roles("any", "starter")), "ledger", TABLES, STARTED)
    starter = witness(by_role)
    assert isinstance(starter, Witness)
    assert starter.subject == "ada"
    assert covers(own, by_role) is True


@pytest.mark.parametrize("effect", [{}, FORBID], ids=["a permit", "a forbid"])
def test_a_run_that_no_token_tells_of_is_equal_to_nothing(effect: dict[str, Any]) -> None:
    """Of a permit no call; of a forbid every call but people's, for it is unknown."""
    callers = Callers({"company": Tokens(COMPANY, "https://login.example.com")})
    found = witness(Region.of(rule(OWN_RUN, **effect), "ledger", TABLES, callers))
    assert isinstance(found, Witness) if effect else found is None
    human = rule(OWN_RUN, ["subject.kind", ["human"]], **effect)
    assert witness(Region.of(human, "ledger", TABLES, callers)) is None


def test_two_regions_meet_where_a_call_is_in_both() -> None:
    both = intersect(region(paths=["/v1/{id}"]), region(roles("any", "a"), paths=["/*/x"]))
    assert both is not None
    found = witness(both)
    assert isinstance(found, Witness)
    assert found.segments == ("v1", "x")
    assert intersect(region(paths=["/v1/{id}"]), region(paths=["/v2/{id}"])) is None
    assert intersect(region(), region(upstream="crm")) is None


def test_a_witness_may_have_to_act_under_fewer_roles_than_it_holds() -> None:
    """What a role opens can be closed by another one that is in use, and a tag takes that out of use."""
    both = Callers(
        {"company": Tokens(COMPANY._replace(grants=tuple(Grant(role, ("groups",), "g") for role in "ab")))}
    )
    found = witness(
        Region.of(rule(roles("any", "a")), "ledger", callers=both),
        [Region.of(rule(roles("any", "b")), "ledger", callers=both)],
    )
    assert isinstance(found, Witness)
    assert found.tag == ("a",)


HOLDING_B = [
    # who is granted what by which group, and the role to act under; None: there is no such call
    ("another role of the same group", {"a": "g", "b": "g"}, ("a",)),
    ("another group's role", {"a": "h", "b": "g"}, ("a",)),
    ("no other role", {"b": "g"}, None),
]


@pytest.mark.parametrize(
    ("groups", "tag"), [pytest.param(*row[1:], id=f"{row[0]}: {row[2]}") for row in HOLDING_B]
)
def test_a_role_is_out_of_use_only_while_another_one_is_in_use(
    groups: dict[str, str], tag: tuple[str, ...] | None
) -> None:
    grants = tuple(Grant(role, ("groups",), group) for role, group in groups.items())
    callers = Callers({"company": Tokens(COMPANY._replace(grants=grants))})
    holding = intersect(
        Region.of(rule(), "ledger", callers=callers),
        Region.of(rule(roles("all", "b"), **FORBID), "ledger", callers=callers),
    )
    assert holding is not None
    using = Region.of(rule(roles("any", "b")), "ledger", callers=callers)
    not_surely = Region.of(rule(roles("none", "b"), **FORBID), "ledger", callers=callers)
    found = witness(holding, [using, not_surely])
    assert (found.tag if isinstance(found, Witness) else found) == tag


def test_a_comparison_is_met_by_a_value_that_both_sides_can_have() -> None:
    found = witness(
        region(same("resource.owner", "subject.dep"), claim("any", "x", "y"), paths=["/v1/{owner}/z"])
    )
    assert isinstance(found, Witness)
    assert found.segments[1] == found.claims["dep"]


def test_no_more_work_is_done_than_is_allowed() -> None:
    wanted = region(*[roles("any", *(f"r{number}-{each}" for each in range(3))) for number in range(4)])
    others = [region(roles("all", f"r0-{one}", f"r1-{other}")) for one in range(3) for other in range(3)]
    assert isinstance(witness(wanted, others, most=3), Unknown)
    assert witness(wanted, others) is None


def test_calls_before_the_beginning_do_not_count() -> None:
    old = region(["when.dates", None, 1000])
    assert isinstance(witness(old, since=999), Witness)
    assert witness(old, since=1000) is None


# From here on: whatever is claimed is held against the gate, on policies and calls that nobody chose.


def as_rule(policy: dict[str, Any]) -> Rule:
    """The policy as it would be enforced."""
    target = policy["target"]
    return Rule(
        policy["id"],
        policy["owner"],
        policy["effect"],
        False,
        target["methods"],
        target["paths"],
        policy["conditions"],
        policy["obligations"],
    )  # fmt: skip


def matches(upstream: str, policy: dict[str, Any], call: Call) -> bool:
    decision = load(upstream, policy | {"mode": "enforce"}).decide(call)
    return bool(decision.permits or decision.forbids)


def compares(*policies: dict[str, Any]) -> bool:
    """Whether values are compared with each other: of that the analysis knows little."""
    return any(row[0] == "when.equals" for policy in policies for row in policy["conditions"])


SCENES = st.binary(min_size=160, max_size=160).map(scene)


@given(SCENES)
@settings(max_examples=400)
def test_what_is_claimed_of_all_calls_holds_for_any(scene: Scene) -> None:
    """Nobody says who there is: a claim is about everybody."""
    others = [Region.of(as_rule(policy), scene.upstream, TABLES) for policy in scene.policies]
    own = Region.of(as_rule(scene.more), scene.upstream, TABLES)
    inside = matches(scene.upstream, scene.more, scene.call)
    matching = [matches(scene.upstream, policy, scene.call) for policy in scene.policies]
    found = witness(own, others)
    if found is None:
        assert not inside or any(matching)
    if isinstance(found, Unknown):
        assert compares(scene.more, *scene.policies), found.why
    for other, matched in zip(others, matching, strict=True):
        if covers(other, own):
            assert matched or not inside
    if empty(as_rule(scene.more), scene.upstream, TABLES) and scene.more["effect"] == "permit":
        assert not inside


KIND_VALUES: list[dict[str, str]] = [
    {},
    {},
    {"app": "workload", "user": "human", "bot": "agent"},
    {"app": "workload", "human": "agent", "daemon": "workload"},
]


def mapping(random: Random, name: str, claims: set[tuple[str, ...]]) -> Mapping:
    """An issuer that grants a, b and c in some ways, or not at all."""
    ways: dict[tuple[str, ...] | None, Sequence[str]] = {
        ("dep",): "xy",
        ("groups",): "gh",
        ("org", "unit"): "gh",
        ("act", "sub"): "xy",
        ("run_type",): "xy",  # which may be attested, too
        None: "xy",
        KIND: KINDS,
        SCOPE: ["x", "ledger.read"],
    }
    grants = [
        Grant(role, claim, random.choice(ways[claim]))
        for role in "abc"
        for claim in random.sample([*ways], random.choice([0, 1, 1, 2, 3]))
    ]
    attested = [(field, (field,)) for field in ("dag", "run_type", "tags") if random.random() < 0.5]
    return Mapping(
        name,
        random.choice([None, ("kind",)]),
        random.choice(KINDS),
        tuple(attested),
        tuple(grants),
        tuple(sorted(claims)),
        random.choice(KIND_VALUES),
        random.random() < 0.2,
    )


def token(random: Random) -> tuple[dict[str, Any], dict[str, str]]:
    """Claims and headers of a request."""
    known: dict[str, list[Any]] = {
        "dep": ["x", "y", [], ["x", "y"], ["x", "z"], "1"],
        "groups": ["g", [], ["g", "h"], ["h"]],
        "org": [{"unit": "x"}, {"unit": "g"}, {"unit": []}],
        "kind": [*KINDS, *KINDS, "app", "user", "bot", "daemon"],
        "dag": ["x", "xyz", "y"],
        "run_type": ["x", "xyz", "y"],
        "tags": [[], ["x"], ["x", "y"]],
        "scope": ["x", "", "ledger.read x", ["ledger.read"], [], "y z"],
        "scp": ["x", ["ledger.read", "y"]],
        "cnf": [{"jkt": "J" * 43}, {"jkt": "K" * 43}],
        "act": [{"sub": "x"}, {"sub": "y", "act": {"sub": "x"}}, {"sub": "x" * 300}],
    }
    said = {
        "airgate-dag-id": ["x", "y"],
        "airgate-task-id": ["x", "xyz"],
        "airgate-dag-tags": ["x", "x,y", "z"],
    }
    claims = {name: random.choice(values) for name, values in known.items() if random.random() < 0.5}
    return claims, {name: random.choice(values) for name, values in said.items() if random.random() < 0.4}


@given(SCENES, st.integers(0, 2**32))
@settings(max_examples=250)
def test_what_is_claimed_of_the_callers_there_are_holds_for_their_tokens(scene: Scene, seed: int) -> None:
    random = Random(seed)
    policies = [policy for policy in scene.policies if not compares(policy)]
    rules = [as_rule(policy) for policy in policies]
    own = as_rule(scene.more)
    claims = claims_read([*rules, own])
    callers = Callers(
        {
            name: Tokens(
                mapping(random, name, claims),
                f"https://{name}.example.com",
                bound=random.random() < 0.3,
            )
            for name in ("company", "partner")
        }
    )
    others = [Region.of(each, scene.upstream, TABLES, callers) for each in rules]
    region = Region.of(own, scene.upstream, TABLES, callers)
    found = witness(region, others)
    covered = [covers(other, region) for other in others]
    never = empty(own, scene.upstream, TABLES, callers)
    if isinstance(found, Unknown):
        assert compares(scene.more), found.why
    if isinstance(found, Witness):
        call = found.call(callers)
        assert call is not None
        assert matches(scene.upstream, scene.more, call)
        assert not any(matches(scene.upstream, policy, call) for policy in policies)
    for _ in range(8):
        asked, headers = token(random)
        issuer, subject = random.choice(["company", "partner"]), random.choice("xyz")
        try:
            identity = identify(asked, subject, callers.tokens[issuer].mapping)
            if identity.jkt is None and callers.tokens[issuer].bound:
                continue
            if identity.granted and random.random() < 0.5:
                headers["airgate-role"] = random.choice(sorted(identity.granted))
            caller = act(identity, headers)
        except Denied:
            continue
        if caller.tagged is None and identity.must_tag:
            continue
        call = Call(caller, scene.target, random.choice(MOMENTS), scene.client, scene.country)
        inside = matches(scene.upstream, scene.more, call)
        matching = [matches(scene.upstream, policy, call) for policy in policies]
        assert not (found is None and inside and not any(matching))
        assert not any(
            whole and inside and not matched for whole, matched in zip(covered, matching, strict=True)
        )
        assert not (never and inside and scene.more["effect"] == "permit")
