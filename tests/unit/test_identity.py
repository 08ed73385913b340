"""From claims and headers to a caller: kinds, roles, role tags, and the task it speaks for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import (
    LONGEST,
    LONGEST_HEADER,
    MOST_GROUPS,
    MOST_ROLES,
    MOST_TAGS,
    Grant,
    Mapping,
    act,
    identify,
)
from model import Denied, Fact, Identity, Reason

GROUPS = ("groups",)
NESTED = ("realm", "access", "roles")
MAPPING = Mapping(
    id="company",
    kind_claim=("airgate_kind",),
    kind_default="workload",
    attested=(("dag", ("airflow", "dag")), ("try", ("airflow", "try")), ("tags", ("airflow", "tags"))),
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


ROLES = [
    pytest.param({}, "etl", set(), id="no claim, no role"),
    pytest.param({"groups": []}, "etl", set(), id="an empty claim"),
    pytest.param({"groups": None}, "etl", set(), id="a null claim"),
    pytest.param({"groups": ["publishers"]}, "etl", {"publisher"}, id="a claim that holds the value"),
    pytest.param({"groups": "publishers"}, "etl", {"publisher"}, id="a claim that is the value"),
    pytest.param({"groups": ["x", "publishers", "readers"]}, "etl", {"publisher", "reader"}, id="two values"),
    pytest.param({"groups": ["Publishers"]}, "etl", set(), id="another case is another value"),
    pytest.param({"groups": ["publishers "]}, "etl", set(), id="a space makes another value"),
    pytest.param({"groups": "publishers readers"}, "etl", set(), id="a string is one value, never a list"),
    pytest.param({"realm": {"access": {"roles": ["read"]}}}, "etl", {"reader"}, id="a nested claim"),
    pytest.param({"realm": {"access": ["roles"]}}, "etl", set(), id="a list on the way"),
    pytest.param({"realm": "access"}, "etl", set(), id="a string on the way"),
    pytest.param({"realm.access.roles": ["read"]}, "etl", set(), id="dots in a name are no path"),
    pytest.param({"roles": ["read"]}, "etl", set(), id="the last name alone is no path"),
    pytest.param({}, "svc-audit", {"auditor"}, id="the exact subject"),
    pytest.param({}, "svc-audit-2", set(), id="a longer subject"),
    pytest.param({}, "SVC-AUDIT", set(), id="the subject in upper case"),
    pytest.param({"groups": ["svc-audit"]}, "etl", set(), id="the subject in a claim"),
    pytest.param({"groups": ["g"] * MOST_GROUPS}, "etl", set(), id="as many groups as allowed"),
]


@pytest.mark.parametrize(("claims", "subject", "granted"), ROLES)
def test_roles_granted(claims: dict[str, Any], subject: str, granted: set[str]) -> None:
    assert identify(claims, subject, MAPPING) == Identity(
        "company", subject, "workload", frozenset(granted), {}
    )


@pytest.mark.parametrize(
    "groups",
    [
        pytest.param(["publishers", 1], id="a number among strings"),
        pytest.param(["publishers", None], id="null among strings"),
        pytest.param(["publishers", ["readers"]], id="a list in the list"),
        pytest.param({"publishers": True}, id="an object"),
        pytest.param(True, id="a boolean"),
        pytest.param(7, id="a number"),
        pytest.param(["publishers"] * (MOST_GROUPS + 1), id="too many, so perhaps cut off"),
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
    assert refused(identify, claims, "etl", MAPPING) is Reason.TOKEN_CLAIMS


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
        pytest.param("reader, reader", ("reader", "reader"), {"reader"}, id="one role twice"),
        pytest.param(
            ",".join(["reader"] * MOST_ROLES), ("reader",) * MOST_ROLES, {"reader"}, id="as many as allowed"
        ),
    ],
)
def test_a_role_tag_narrows(tag: str | None, tagged: tuple[str, ...] | None, effective: set[str]) -> None:
    caller = act(IDENTITY, {} if tag is None else {"airgate-role": tag})
    assert (caller.tagged, caller.effective, caller.identity) == (tagged, effective, IDENTITY)


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
