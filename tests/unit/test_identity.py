"""From claims and headers to a caller: kinds, roles, role tags, and the task it speaks for."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from language import examples, load
from world import NOW, rule

from claims import MOST_VALUES
from conditions import Call
from identity import (
    KIND,
    LONGEST,
    LONGEST_HEADER,
    LONGEST_SUBJECT,
    MOST_ROLES,
    MOST_TAGS,
    SAID,
    SCOPE,
    Grant,
    Mapping,
    act,
    identify,
)
from model import Decision, Denied, Fact, Identity, Reason, Target

GROUPS = ("groups",)
NESTED = ("realm", "access", "roles")
MAPPING = Mapping(
    id="company",
    kind_claim=("airgate_kind",),
    kind_default="workload",
    attested=tuple((field, ("airflow", field)) for field in ("dag", "try", "tags", "environment")),
    grants=(
        Grant("publisher", GROUPS, "publishers"),
        Grant("reader", GROUPS, "readers"),
        Grant("reader", NESTED, "read"),
        Grant("auditor", None, "svc-audit"),
    ),
)


def refused(work: Any, *arguments: Any) -> Reason:
    with pytest.raises(Denied) as caught:
        work(*arguments)
    return caught.value.reason


NESTS: dict[str, Any] = {"realm": {"access": {"roles": []}}}  # the nested claim is there, and grants nothing
BOTH, READER = {"publisher", "reader"}, {"reader"}
ROLES = [
    # claims, subject; roles granted, and those that a claim could grant which is not there
    pytest.param({}, "etl", set(), BOTH, id="no claim, no role, but who knows"),
    pytest.param({"groups": []}, "etl", set(), READER, id="an empty claim"),
    pytest.param({"groups": [], **NESTS}, "etl", set(), set(), id="two empty claims"),
    pytest.param({"groups": None}, "etl", set(), BOTH, id="a null claim is not there"),
    pytest.param(NESTS, "etl", set(), BOTH, id="one claim of two"),
    pytest.param({"groups": ["publishers"]}, "etl", {"publisher"}, READER, id="a claim that holds the value"),
    pytest.param({"groups": "publishers"}, "etl", {"publisher"}, READER, id="a claim that is the value"),
    pytest.param({"groups": ["x", "publishers", "readers"]}, "etl", BOTH, set(), id="two values"),
    pytest.param({"groups": ["Publishers"]}, "etl", set(), READER, id="another case is another value"),
    pytest.param({"groups": ["publishers "]}, "etl", set(), READER, id="a space makes another value"),
    pytest.param(
        {"groups": "publishers readers"}, "etl", set(), READER, id="a string is one value, never a list"
    ),
    pytest.param(
        {"realm": {"access": {"roles": ["read"]}}}, "etl", READER, {"publisher"}, id="a nested claim"
    ),
    pytest.param({"realm": {"access": ["roles"]}}, "etl", set(), BOTH, id="a list on the way"),
    pytest.param({"realm": "access"}, "etl", set(), BOTH, id="a string on the way"),
    pytest.param({"realm.access.roles": ["read"]}, "etl", set(), BOTH, id="dots in a name are no path"),
    pytest.param({"roles": ["read"]}, "etl", set(), BOTH, id="the last name alone is no path"),
    pytest.param({}, "svc-audit", {"auditor"}, BOTH, id="the exact subject"),
    pytest.param({}, "svc-audit-2", set(), BOTH, id="a longer subject"),
    pytest.param({}, "SVC-AUDIT", set(), BOTH, id="the subject in upper case"),
    pytest.param({"groups": ["svc-audit"]}, "etl", set(), READER, id="the subject in a claim"),
    pytest.param({"groups": ["g"] * MOST_VALUES}, "etl", set(), READER, id="as many groups as allowed"),
]


@pytest.mark.parametrize(("claims", "subject", "granted", "unknown"), ROLES)
def test_roles_granted_and_unknown(
    claims: dict[str, Any], subject: str, granted: set[str], unknown: set[str]
) -> None:
    assert identify(claims, subject, MAPPING) == Identity(
        "company", subject, "workload", frozenset(granted), {}, frozenset(unknown)
    )


ASKED = [
    # the claim, and how conditions see it; None: they don't
    pytest.param("finance", ("finance",), id="a text"),
    pytest.param("", ("",), id="an empty text"),
    pytest.param(["x", "y"], ("x", "y"), id="texts"),
    pytest.param([], (), id="an empty list is known to hold nothing"),
    pytest.param(7, ("7",), id="a whole number"),
    pytest.param(-7, ("-7",), id="a negative number"),
    pytest.param(10**200, ("1" + "0" * 200,), id="a large number"),
    pytest.param(True, ("true",), id="true"),
    pytest.param([False, 0, "0"], ("false", "0", "0"), id="false and zero"),
    pytest.param("x" * LONGEST_SUBJECT, ("x" * LONGEST_SUBJECT,), id="the longest text"),
    pytest.param(["x"] * MOST_VALUES, ("x",) * MOST_VALUES, id="as many as allowed"),
    pytest.param(None, None, id="null"),
    pytest.param(1.5, None, id="a fraction"),
    pytest.param(1.0, None, id="a number with a point"),
    pytest.param({"a": "x"}, None, id="an object"),
    pytest.param([["x"]], None, id="a list in the list"),
    pytest.param(["x", None], None, id="null among texts"),
    pytest.param(["x", {}], None, id="an object among texts"),
    pytest.param("x" * (LONGEST_SUBJECT + 1), None, id="a long text"),
    pytest.param(10**LONGEST_SUBJECT, None, id="a number as long"),
    pytest.param(["x", "x" * (LONGEST_SUBJECT + 1)], None, id="a long text among others"),
    pytest.param(["x"] * (MOST_VALUES + 1), None, id="too many, so perhaps cut off"),
]


@pytest.mark.parametrize(("value", "seen"), ASKED)
def test_claims_that_policies_ask_for(value: Any, seen: tuple[str, ...] | None) -> None:
    mapping = MAPPING._replace(claims=(("dep",), ("org", "unit"), ("more",)))
    for claims, path in (({"dep": value}, ("dep",)), ({"org": {"unit": value}}, ("org", "unit"))):
        asked = identify(claims | {"other": "x"}, "etl", mapping).claims
        assert asked == ({} if seen is None else {path: seen})


def test_a_claim_that_is_elsewhere_is_unknown_even_where_a_part_of_it_is_here() -> None:
    mapping = MAPPING._replace(claims=(("dep",), ("org", "unit")))
    claims = {"dep": ["x"], "org": {"unit": "u"}, "_claim_names": {"org": "src1"}}
    assert identify(claims, "etl", mapping).claims == {("dep",): ("x",)}


@pytest.mark.parametrize(
    "groups",
    [
        pytest.param(["publishers", 1], id="a number among strings"),
        pytest.param(["publishers", None], id="null among strings"),
        pytest.param(["publishers", ["readers"]], id="a list in the list"),
        pytest.param({"publishers": True}, id="an object"),
        pytest.param(True, id="a boolean"),
        pytest.param(7, id="a number"),
        pytest.param(["publishers"] * (MOST_VALUES + 1), id="too many, so perhaps cut off"),
    ],
)
def test_groups_that_are_not_strings_grant_nothing_at_all(groups: Any) -> None:
    assert refused(identify, {"groups": groups}, "svc-audit", MAPPING) is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"hasgroups": True}, id="groups that were left out"),
        pytest.param({"_claim_names": {"groups": "src1"}}, id="groups that are elsewhere"),
        pytest.param(
            {"_claim_names": {"groups": "src1"}, "groups": ["readers"]}, id="some groups, and more elsewhere"
        ),
    ],
)
def test_a_token_that_does_not_hold_all_of_its_groups_is_refused(claims: dict[str, Any]) -> None:
    assert refused(identify, claims, "etl", MAPPING) is Reason.TOKEN_INCOMPLETE


@pytest.mark.parametrize(
    ("name", "complete"),
    [
        pytest.param("groups", False, id="a claim that grants"),
        pytest.param("realm", False, id="a claim around one that grants"),
        pytest.param("airgate_kind", False, id="the claim that says the kind"),
        pytest.param("airflow", False, id="a claim that attests context"),
        pytest.param("address", True, id="a claim that nobody reads"),
    ],
)
def test_only_what_is_read_must_be_in_the_token(name: str, complete: bool) -> None:
    claims = {"_claim_names": {name: "src1"}}
    if complete:
        assert identify(claims, "etl", MAPPING).granted == frozenset()
    else:
        assert refused(identify, claims, "etl", MAPPING) is Reason.TOKEN_INCOMPLETE


def test_groups_that_were_left_out_are_no_matter_where_no_group_grants() -> None:
    mapping = MAPPING._replace(grants=(Grant("reader", ("roles",), "read"),), claims=(GROUPS,))
    identity = identify({"hasgroups": True, "groups": ["x"], "roles": ["read"]}, "etl", mapping)
    assert (identity.granted, identity.claims) == ({"reader"}, {})


WORDED = MAPPING._replace(
    kind_claim=("idtyp",), kind_values={"app": "workload", "user": "human"}, kind_default="agent"
)


@pytest.mark.parametrize(
    ("claims", "kind"),
    [
        pytest.param({"idtyp": "app"}, "workload", id="a value with a meaning"),
        pytest.param({"idtyp": "user"}, "human", id="another one"),
        pytest.param({}, "agent", id="none said: the default"),
        pytest.param({"idtyp": None}, "agent", id="null is not said"),
        pytest.param({"idtyp": "workload"}, None, id="the kind itself is no value then"),
        pytest.param({"idtyp": "App"}, None, id="another case"),
        pytest.param({"idtyp": ["app"]}, None, id="a list"),
        pytest.param({"idtyp": True}, None, id="true"),
    ],
)
def test_kinds_in_an_issuers_own_words(claims: dict[str, Any], kind: str | None) -> None:
    if kind is None:
        assert refused(identify, claims, "etl", WORDED) is Reason.TOKEN_CLAIMS
    else:
        assert identify(claims, "etl", WORDED).kind == kind


def test_what_many_tokens_do_not_say_is_held_once() -> None:
    one, other = identify({}, "a", MAPPING), identify({}, "b", MAPPING)
    assert one.unknown is other.unknown
    assert one.unknown == {"publisher", "reader"}
    assert identify({"groups": ["readers"]}, "c", MAPPING).unknown == frozenset()


CUT = MAPPING._replace(truncates=((GROUPS, 3), (NESTED, 2)))


@pytest.mark.parametrize(
    ("claims", "complete"),
    [
        pytest.param({"groups": ["a", "b"]}, True, id="one less than the issuer's most"),
        pytest.param({"groups": ["a", "b", "c"]}, False, id="the issuer's most: perhaps there were more"),
        pytest.param({"groups": ["a", "b", "c", "d"]}, False, id="more than that"),
        pytest.param(
            {"groups": ["a"], "realm": {"access": {"roles": ["r", "s"]}}}, False, id="a nested list"
        ),
        pytest.param({"groups": "a"}, True, id="a text is no list"),
        pytest.param({}, True, id="no list"),
    ],
)
def test_a_list_as_long_as_the_issuer_makes_them_may_have_been_cut(
    claims: dict[str, Any], complete: bool
) -> None:
    if complete:
        assert identify(claims, "etl", CUT).subject == "etl"
    else:
        assert refused(identify, claims, "etl", CUT) is Reason.TOKEN_INCOMPLETE


BY_SCOPE_AND_KIND = MAPPING._replace(
    grants=(
        Grant("reader", SCOPE, "ledger.read"),
        Grant("assistant", KIND, "agent"),
        Grant("batch", KIND, "workload"),
    )
)


@pytest.mark.parametrize(
    ("claims", "granted", "unknown"),
    [
        pytest.param({}, {"batch"}, {"reader"}, id="the default kind, and no scopes said"),
        pytest.param({"scope": ""}, {"batch"}, set(), id="scopes said, and none"),
        pytest.param({"scope": "x ledger.read"}, {"batch", "reader"}, set(), id="a scope among others"),
        pytest.param({"scp": ["ledger.read"]}, {"batch", "reader"}, set(), id="a scope under its other name"),
        pytest.param({"scope": "ledger.reader"}, {"batch"}, set(), id="a scope that begins alike"),
        pytest.param({"scope": "", "airgate_kind": "agent"}, {"assistant"}, set(), id="another kind"),
        pytest.param({"scope": "", "airgate_kind": "human"}, set(), set(), id="a kind that grants nothing"),
    ],
)
def test_roles_by_scope_and_by_kind(claims: dict[str, Any], granted: set[str], unknown: set[str]) -> None:
    identity = identify(claims, "etl", BY_SCOPE_AND_KIND)
    assert (identity.granted, identity.unknown) == (granted, unknown)


def test_scopes_that_are_no_strings_grant_nothing_at_all() -> None:
    assert (
        refused(identify, {"scope": {"ledger.read": True}}, "etl", BY_SCOPE_AND_KIND) is Reason.TOKEN_CLAIMS
    )


def test_policies_may_ask_for_scopes() -> None:
    mapping = MAPPING._replace(claims=(("scope",),))
    assert identify({"scp": "a b"}, "etl", mapping).claims == {("scope",): ("a", "b")}


@pytest.mark.parametrize(
    ("claims", "actor"),
    [
        pytest.param({}, None, id="nobody acts for the subject"),
        pytest.param({"act": {"sub": "assistant"}}, "assistant", id="somebody does"),
        pytest.param({"act": {"sub": "a", "iss": "https://other.example.com"}}, "a", id="of another issuer"),
        pytest.param({"act": {"sub": "a", "act": {"sub": "b"}}}, "a", id="the last of several"),
        pytest.param({"may_act": {"sub": "a"}}, None, id="somebody may, and does not"),
        pytest.param({"act": {"sub": "x" * LONGEST_SUBJECT}}, "x" * LONGEST_SUBJECT, id="the longest name"),
    ],
)
def test_who_acts_for_the_subject(claims: dict[str, Any], actor: str | None) -> None:
    assert identify(claims, "etl", MAPPING).actor == actor


@pytest.mark.parametrize(
    ("claims", "issuer"),
    [
        pytest.param({}, None, id="nobody acts"),
        pytest.param({"act": {"sub": "a"}}, "https://own.example.com", id="the token's own"),
        pytest.param({"act": {"sub": "a", "iss": None}}, "https://own.example.com", id="null says nothing"),
        pytest.param({"act": {"sub": "a", "iss": "https://b.example.com"}}, "https://b.example.com", id="another"),
        pytest.param(
            {"act": {"sub": "a", "act": {"sub": "b", "iss": "https://b.example.com"}}},
            "https://own.example.com",
            id="not that of an earlier one",
        ),
    ],
)  # fmt: skip
def test_whose_name_the_actor_has(claims: dict[str, Any], issuer: str | None) -> None:
    assert identify({"iss": "https://own.example.com", **claims}, "etl", MAPPING).actor_issuer == issuer


def test_an_actor_of_whom_nobody_says_whose_it_is() -> None:
    identity = identify({"act": {"sub": "a"}}, "etl", MAPPING)
    assert (identity.actor, identity.actor_issuer) == ("a", None)


@pytest.mark.parametrize(
    "act_claim",
    [
        pytest.param(None, id="null"),
        pytest.param("assistant", id="a text"),
        pytest.param([{"sub": "assistant"}], id="a list"),
        pytest.param({}, id="nobody"),
        pytest.param({"sub": ""}, id="an empty name"),
        pytest.param({"sub": 7}, id="a number"),
        pytest.param({"client_id": "assistant"}, id="a client's id alone"),
        pytest.param({"sub": "x" * (LONGEST_SUBJECT + 1)}, id="a long name"),
        pytest.param({"sub": "assistant", "iss": ""}, id="an empty issuer"),
        pytest.param({"sub": "assistant", "iss": ["https://b.example.com"]}, id="a list of issuers"),
        pytest.param({"sub": "assistant", "iss": "x" * (LONGEST_SUBJECT + 1)}, id="a long issuer"),
    ],
)
def test_an_actor_without_a_name_is_refused(act_claim: Any) -> None:
    assert refused(identify, {"act": act_claim}, "etl", MAPPING) is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        pytest.param({}, None, id="it has none"),
        pytest.param({"jti": "t-1"}, "t-1", id="it has one"),
        pytest.param({"jti": "x" * LONGEST_SUBJECT}, "x" * LONGEST_SUBJECT, id="the longest one"),
        pytest.param({"jti": "x" * (LONGEST_SUBJECT + 1)}, None, id="longer than any revocation can say"),
        pytest.param({"jti": ""}, None, id="an empty one"),
        pytest.param({"jti": 7}, None, id="a number"),
        pytest.param({"jti": None}, None, id="null"),
        pytest.param({"jti": ["t-1"]}, None, id="a list"),
    ],
)
def test_what_a_token_is_known_by(claims: dict[str, Any], name: str | None) -> None:
    """Nothing is refused for its jti: that is up to the issuer's `require`."""
    assert identify(claims, "etl", MAPPING).token_id == name


def test_the_key_that_a_token_is_bound_to() -> None:
    assert identify({"cnf": {"jkt": "k" * 43}}, "etl", MAPPING).jkt == "k" * 43
    assert refused(identify, {"cnf": {"x5t#S256": "k" * 43}}, "etl", MAPPING) is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"hasgroups": False}, id="none were left out"),
        pytest.param({"_claim_names": {"address": "src1"}}, id="something else is elsewhere"),
        pytest.param({"_claim_names": "groups"}, id="names that are none"),
    ],
)
def test_a_token_that_holds_its_groups_is_read(claims: dict[str, Any]) -> None:
    assert identify({"groups": ["readers"], **claims}, "etl", MAPPING).granted == {"reader"}


@pytest.mark.parametrize(
    ("claims", "kind"),
    [
        pytest.param({}, "workload", id="none said: the issuer's default"),
        pytest.param({"airgate_kind": None}, "workload", id="null: the issuer's default"),
        pytest.param({"airgate_kind": "human"}, "human", id="human"),
        pytest.param({"airgate_kind": "agent"}, "agent", id="agent"),
        pytest.param({"airgate_kind": "workload"}, "workload", id="workload"),
    ],
)
def test_kinds(claims: dict[str, Any], kind: str) -> None:
    assert identify(claims, "etl", MAPPING).kind == kind


@pytest.mark.parametrize(
    "kind", ["", "Human", "robot", "human ", 1, True, False, 0, ["human"], [], {}, {"human": 1}]
)
def test_a_kind_that_is_not_known_is_refused(kind: Any) -> None:
    assert refused(identify, {"airgate_kind": kind}, "etl", MAPPING) is Reason.TOKEN_CLAIMS


def test_without_a_claim_for_it_the_kind_is_the_default() -> None:
    mapping = MAPPING._replace(kind_claim=None, kind_default="agent")
    assert identify({"airgate_kind": "human"}, "etl", mapping).kind == "agent"


@pytest.mark.parametrize(
    ("airflow", "attested"),
    [
        pytest.param({"dag": "close"}, {"dag": Fact("close", True)}, id="a dag"),
        pytest.param({"try": 2}, {"try": Fact("2", True)}, id="a number is written out"),
        pytest.param({"environment": "prod"}, {"environment": Fact("prod", True)}, id="an environment"),
        pytest.param({"try": 0}, {"try": Fact("0", True)}, id="zero is a number too"),
        pytest.param({"tags": ["a", "b"]}, {"tags": Fact(("a", "b"), True)}, id="tags"),
        pytest.param({"tags": "a,b"}, {"tags": Fact(("a,b",), True)}, id="one tag, with a comma in it"),
        pytest.param({"tags": []}, {"tags": Fact((), True)}, id="no tags, and that is known"),
        pytest.param({"dag": None}, {}, id="null is not there"),
        pytest.param({"run": "r"}, {}, id="what the issuer is not said to attest"),
        pytest.param({"dag": "d" * LONGEST}, {"dag": Fact("d" * LONGEST, True)}, id="the longest value"),
    ],
)
def test_attested_context(airflow: dict[str, Any], attested: dict[str, Fact]) -> None:
    assert identify({"airflow": airflow}, "etl", MAPPING).attested == attested


@pytest.mark.parametrize(
    "airflow",
    [
        pytest.param({"dag": ""}, id="an empty dag"),
        pytest.param({"dag": "d" * (LONGEST + 1)}, id="a long dag"),
        pytest.param({"dag": ["close"]}, id="a list of dags"),
        pytest.param({"dag": True}, id="a boolean"),
        pytest.param({"try": 1.5}, id="half a try"),
        pytest.param({"tags": [1]}, id="a tag that is a number"),
        pytest.param({"tags": {"a": 1}}, id="tags in an object"),
    ],
)
def test_attested_context_that_cannot_be_read(airflow: dict[str, Any]) -> None:
    assert refused(identify, {"airflow": airflow}, "etl", MAPPING) is Reason.TOKEN_CLAIMS


IDENTITY = Identity("company", "etl", "workload", frozenset({"publisher", "reader"}), {})


@pytest.mark.parametrize(
    ("tag", "tagged", "effective"),
    [
        pytest.param(None, None, {"publisher", "reader"}, id="no tag: every role granted"),
        pytest.param("reader", ("reader",), {"reader"}, id="one role"),
        pytest.param("reader, publisher", ("reader", "publisher"), {"publisher", "reader"}, id="two roles"),
        pytest.param(
            "reader,publisher", ("reader", "publisher"), {"publisher", "reader"}, id="two without a space"
        ),
        pytest.param(" reader ", ("reader",), {"reader"}, id="spaces around it"),
        pytest.param("reader".ljust(LONGEST_HEADER), ("reader",), {"reader"}, id="as long as allowed"),
        pytest.param("reader, reader", ("reader", "reader"), {"reader"}, id="one role twice"),
        pytest.param(
            ",".join(["reader"] * MOST_ROLES), ("reader",) * MOST_ROLES, {"reader"}, id="as many as allowed"
        ),
    ],
)
def test_a_role_tag_narrows(tag: str | None, tagged: tuple[str, ...] | None, effective: set[str]) -> None:
    caller = act(IDENTITY, {} if tag is None else {"airgate-role": tag})
    assert (caller.tagged, caller.effective, caller.identity) == (tagged, frozenset(effective), IDENTITY)


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        pytest.param("admin", Reason.ROLE_NOT_GRANTED, id="a role that is not granted"),
        pytest.param("reader, admin", Reason.ROLE_NOT_GRANTED, id="one granted, one not"),
        pytest.param("", Reason.ROLE_MALFORMED, id="an empty tag"),
        pytest.param("reader,", Reason.ROLE_MALFORMED, id="a comma at the end"),
        pytest.param(",", Reason.ROLE_MALFORMED, id="a comma alone"),
        pytest.param("reader publisher", Reason.ROLE_MALFORMED, id="a space between"),
        pytest.param("reader;publisher", Reason.ROLE_MALFORMED, id="a semicolon between"),
        pytest.param("Reader", Reason.ROLE_MALFORMED, id="upper case"),
        pytest.param("*", Reason.ROLE_MALFORMED, id="a wildcard"),
        pytest.param("-reader", Reason.ROLE_MALFORMED, id="a hyphen first"),
        pytest.param("reader\n", Reason.ROLE_MALFORMED, id="a line feed"),
        pytest.param("reader\t", Reason.ROLE_MALFORMED, id="a tab"),
        pytest.param(
            "reader" + " " * 1024 + ",reader", Reason.ROLE_MALFORMED, id="a tag blown up with spaces"
        ),
        pytest.param("r" * 64, Reason.ROLE_MALFORMED, id="a role of 64 characters"),
        pytest.param(",".join(["reader"] * (MOST_ROLES + 1)), Reason.ROLE_MALFORMED, id="one role too many"),
    ],
)
def test_a_role_tag_that_is_refused(tag: str, reason: Reason) -> None:
    assert refused(act, IDENTITY, {"airgate-role": tag}) is reason


@pytest.mark.parametrize(
    ("headers", "workload"),
    [
        pytest.param({}, {}, id="nothing said"),
        pytest.param({"airgate-dag-id": "close"}, {"dag": Fact("close", False)}, id="the dag"),
        pytest.param({"airgate-task-id": "post"}, {"task": Fact("post", False)}, id="the task"),
        pytest.param({"airgate-run-id": "manual__1"}, {"run": Fact("manual__1", False)}, id="the run"),
        pytest.param({"airgate-try-number": "1"}, {"try": Fact("1", False)}, id="the try"),
        pytest.param({"airgate-map-index": "-1"}, {"map_index": Fact("-1", False)}, id="the map index"),
        pytest.param(
            {"airgate-environment": "prod"}, {"environment": Fact("prod", False)}, id="the environment"
        ),
        pytest.param({"airgate-dag-tags": "a, b,c"}, {"tags": Fact(("a", "b", "c"), False)}, id="tags"),
        pytest.param({"airgate-run-id": "a,b"}, {"run": Fact("a,b", False)}, id="a run with a comma"),
        pytest.param(
            {"airgate-dag-id": "Größe 4"}, {"dag": Fact("Größe 4", False)}, id="letters outside ASCII"
        ),
        pytest.param(
            {"airgate-dag-id": "d" * LONGEST}, {"dag": Fact("d" * LONGEST, False)}, id="the longest dag"
        ),
        pytest.param(
            {"airgate-dag-tags": ",".join("t" * MOST_TAGS)},
            {"tags": Fact(("t",) * MOST_TAGS, False)},
            id="as many tags as allowed",
        ),
        pytest.param(
            {"airgate-dag-tags": f"{'t' * 200}," * 5 + "t" * (LONGEST_HEADER - 1005)},
            {"tags": Fact(("t" * 200,) * 5 + ("t" * (LONGEST_HEADER - 1005),), False)},
            id="the longest list of tags",
        ),
        pytest.param({"airgate-task": "x", "x-dag-id": "y"}, {}, id="headers that say nothing to the gate"),
    ],
)
def test_asserted_context(headers: dict[str, str], workload: dict[str, Fact]) -> None:
    assert act(IDENTITY, headers).workload == workload


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"airgate-dag-id": ""}, id="an empty dag"),
        pytest.param({"airgate-dag-id": "a, b"}, id="two dag headers joined"),
        pytest.param({"airgate-task-id": "a, b"}, id="two task headers joined"),
        pytest.param({"airgate-environment": "prod, test"}, id="two environments joined"),
        pytest.param({"airgate-try-number": "1, 2"}, id="two try headers joined"),
        pytest.param({"airgate-map-index": "1, 2"}, id="two map index headers joined"),
        pytest.param({"airgate-dag-id": "d" * (LONGEST + 1)}, id="a long dag"),
        pytest.param({"airgate-dag-id": "a\x00b"}, id="a NUL"),
        pytest.param({"airgate-dag-id": "a\tb"}, id="a tab"),
        pytest.param({"airgate-task-id": "a\x7f"}, id="a DEL"),
        pytest.param({"airgate-run-id": "a\u202eb"}, id="a character that turns the text around"),
        pytest.param({"airgate-try-number": "\x85"}, id="a C1 control character"),
        pytest.param({"airgate-dag-tags": ""}, id="no tag at all"),
        pytest.param({"airgate-dag-tags": "a,,b"}, id="an empty tag"),
        pytest.param({"airgate-dag-tags": "a,"}, id="a comma at the end"),
        pytest.param({"airgate-dag-tags": "a," + "t" * (LONGEST + 1)}, id="a long tag"),
        pytest.param(
            {"airgate-dag-tags": f"{'t' * 200}," * 5 + "t" * (LONGEST_HEADER - 1004)},
            id="a long list of tags",
        ),
        pytest.param({"airgate-dag-tags": ",".join("t" * (MOST_TAGS + 1))}, id="one tag too many"),
    ],
)
def test_asserted_context_that_cannot_be_read(headers: dict[str, str]) -> None:
    assert refused(act, IDENTITY, headers) is Reason.REQUEST_HEADER_INVALID


def test_attested_context_wins_over_the_header_of_the_same_name() -> None:
    identity = IDENTITY._replace(attested={"dag": Fact("close", True), "tags": Fact((), True)})
    said = {"airgate-dag-id": "other", "airgate-dag-tags": "finance", "airgate-task-id": "post"}
    caller = act(identity, said)
    assert caller.workload == {
        "dag": Fact("close", True),
        "tags": Fact((), True),
        "task": Fact("post", False),
    }
    assert identity.attested == {"dag": Fact("close", True), "tags": Fact((), True)}


NAMES = st.sampled_from(["publisher", "reader", "auditor", "admin"])


@given(st.frozensets(NAMES), st.lists(NAMES, max_size=4) | st.text(max_size=20))
def test_roles_in_use_are_always_among_those_granted(granted: frozenset[str], tag: list[str] | str) -> None:
    identity = IDENTITY._replace(granted=granted)
    said = tag if isinstance(tag, str) else ", ".join(tag)
    try:
        caller = act(identity, {"airgate-role": said})
    except Denied as denied:
        assert denied.reason in (Reason.ROLE_NOT_GRANTED, Reason.ROLE_MALFORMED)  # noqa: PT017 - or it is narrowed
    else:
        assert caller.effective <= granted
        assert caller.identity.granted == granted


def test_headers_that_are_read_are_the_ones_named() -> None:
    """What is remembered of a token goes by them."""
    assert set(SAID) == {
        "airgate-role", "airgate-dag-id", "airgate-task-id", "airgate-run-id", "airgate-try-number",
        "airgate-map-index", "airgate-dag-tags", "airgate-environment",
    }  # fmt: skip


CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "groups": st.lists(st.sampled_from(["publishers", "readers", "x"]), max_size=2),
        "realm": st.sampled_from([{"access": {"roles": ["read"]}}, {"access": {}}, {}]),
        "dep": st.sampled_from(["x", "y", ["x", "y"], []]),
    },
)
POLICIES = [
    rule(id=f"{effect}-{number}-{second}", effect=effect, conditions=rows)
    for effect in ("permit", "forbid")
    for number, first in enumerate(
        [
            *(
                ["subject.roles." + each, values]
                for each in ("any", "all", "none")
                for values in (["reader"], ["auditor", "publisher"])
            ),
            *(["subject.claims." + each, ["dep"], ["x"]] for each in ("any", "all", "none")),
        ]
    )
    for second, rows in enumerate([[first], [first, ["subject.id", ["etl"]]]])
]


@given(
    CLAIMS,
    st.sampled_from(["groups", "realm", "dep"]),
    st.sampled_from(["etl", "svc-audit"]),
    st.lists(st.sampled_from(POLICIES), max_size=3, unique_by=lambda each: str(each["id"])),
)
@settings(max_examples=examples(500))
def test_a_token_with_a_claim_less_never_opens_the_gate(
    claims: dict[str, Any], name: str, subject: str, policies: list[dict[str, Any]]
) -> None:
    mapping = MAPPING._replace(claims=(("dep",),))
    shard = load("ledger", *policies)

    def decide(held: dict[str, Any]) -> Decision:
        who = act(identify(held, subject, mapping), {})
        return shard.decide(Call(who, Target("GET", "ledger", ("v1",), "/v1", ""), NOW))

    before, after = decide(claims), decide({key: value for key, value in claims.items() if key != name})
    assert before.permit or not after.permit
    assert set(before.forbids) <= set(after.forbids)
