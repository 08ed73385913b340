"""A request in a person's words becomes what would arrive at the gate, and the gate's own code answers it."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgate.policy.compile import compile_folder
from airgate.policy.gate import Gate
from airgate.policy.request import HEADERS, InvalidRequest, Request
from airgate.policy.rules import NEVER_ASSERTED
from conditions import NAMED
from identity import SAID, WORKLOAD

SEED = """\
issuers:
  company:
    {issuer: https://login.example.com, audiences: [https://gate.example.com], algorithms: [RS256],
     kind: {claim: [airgate, kind]}, attested: {dag: [airflow, dag], tags: [airflow, tags]}}
  vault:
    {issuer: https://vault.example.com, audiences: [https://gate.example.com], algorithms: [RS256], dpop: required,
     kind: {claim: kind}}
  tenant:
    {issuer: https://tenant.example.com, audiences: [https://gate.example.com], algorithms: [RS256],
     role_tag: required, kind: {claim: idtyp, values: {app: workload, user: human}, default: human}}
  partner:
    {issuer: https://partner.example.com, audiences: [https://gate.example.com], algorithms: [RS256]}
roles:
  publisher: {description: d, granted_to: [{issuer: company, claim: groups, value: publishers}]}
  reader:
    description: d
    granted_to:
      - {issuer: company, claim: groups, value: everyone}
      - {issuer: company, claim: groups, value: readers}
      - {issuer: partner, claim: [realm, roles], value: reader}
      - {issuer: tenant, kind: workload}
  lister: {description: d, granted_to: [{issuer: company, claim: groups, value: everyone}]}
  robot: {description: d, granted_to: [{issuer: company, subject: svc-robot}]}
  writer: {description: d, granted_to: [{issuer: vault, scope: ledger.write}]}
  searcher: {description: d, granted_to: [{issuer: vault, scope: search}]}
  machine: {description: d, granted_to: [{issuer: vault, kind: workload}]}
  aide: {description: d, granted_to: [{issuer: vault, kind: agent}, {issuer: vault, subject: svc-aide}]}
  assistant: {description: d, granted_to: [{issuer: vault, claim: [act, sub], value: helper}]}
upstreams:
  ledger: {base: https://ledger.example.com, owner: ledger@example.com}
policies:
  - id: publish
    description: d
    owner: finance@example.com
    effect: permit
    subject: {roles: {any: [publisher]}}
    workload: {dag: ["fin_*"], attested: true}
    target: {upstream: ledger, methods: [POST], paths: ["/v1/entries"]}
    obligations: {require: {headers: [X-Change-Id]}, max_body: 10B}
  - id: read
    description: d
    owner: finance@example.com
    effect: permit
    subject: {roles: {any: [reader]}}
    target: {upstream: ledger, methods: [GET], paths: ["/v1/entries"]}
  - id: by-department
    description: d
    owner: finance@example.com
    effect: permit
    subject: {claims: [{claim: department, any: [audit]}]}
    target: {upstream: ledger, methods: [GET], paths: ["/v1/audit"]}
  - id: proven
    description: d
    owner: finance@example.com
    effect: permit
    subject: {dpop: true, delegated: true}
    target: {upstream: ledger, methods: [GET], paths: ["/v1/proven"]}
  - id: office-hours
    description: d
    owner: finance@example.com
    effect: permit
    subject: {roles: {any: [reader, robot]}}
    target: {upstream: ledger, methods: [GET], paths: ["/v1/hours"]}
    when: {time: {zone: UTC, from: "08:00", to: "16:00"}, ip: [198.51.100.0/24], country: [DE]}
  - id: asks-too-much
    description: d
    owner: finance@example.com
    effect: permit
    subject: {issuer: company}
    target: {upstream: ledger, methods: [GET], paths: ["/v1/vault"]}
    obligations: {four-eyes: true}
  - id: todo-update
    description: d
    owner: todo@example.com
    effect: permit
    subject: {kind: human}
    target: {resource: todo, actions: [can_update], properties: [{property: done, any: [false]}]}
    when: {equals: [resource.owner, subject.id]}
  - id: health
    description: d
    owner: gate@example.com
    effect: permit
    subject: {kind: human}
    target: {upstream: "-", methods: [GET], paths: ["/health"]}
  - id: ask
    description: d
    owner: gate@example.com
    effect: permit
    subject: {kind: human}
    target: {upstream: "-", methods: [POST], paths: ["/access/v1/evaluation"]}
"""


@functools.cache
def built() -> Gate:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "seed.yaml").write_text(SEED, "utf-8")
        return Gate(compile_folder(Path(folder)).engine)


@pytest.fixture
def gate() -> Gate:
    return built()


AIRFLOW = """\
issuers:
  company: {issuer: https://login.example.com, audiences: [https://gate.example.com], algorithms: [RS256]}
  airflow:
    issuer: https://airflow.example.com
    audiences: [https://gate.example.com]
    algorithms: [ES256]
    attested: {dag: [airflow, dag], run_type: [airflow, run_type], triggered_by: [airflow, triggered_by], tags: tags}
roles:
  clerk: {description: d, granted_to: [{issuer: company, claim: groups, value: clerks}]}
  starter:
    description: d
    granted_to:
      - {issuer: airflow, claim: [airflow, triggered_by], value: ada}
      - {issuer: airflow, claim: [airflow, triggered_by], value: bob}
upstreams:
  ledger: {base: https://ledger.example.com, owner: o@example.com}
policies:
  - id: by-hand
    description: d
    owner: o@example.com
    effect: permit
    subject: {roles: {any: [starter]}}
    workload: {run_type: manual, attested: true}
    target: {upstream: ledger, methods: [GET], paths: ["/x"]}
"""
MANUAL = {"run_type": "manual", "attested": True}

# what the request says beside its path; who it is then: issuer, roles, those that aren't known
WHO: list[tuple[str, dict[str, Any], str, set[str], set[str]]] = [
    ("a role that one issuer grants", {"roles": ["clerk"]}, "company", {"clerk"}, set()),
    ("what one issuer attests", {"workload": MANUAL}, "airflow", set(), {"starter"}),
    ("a user who may", {"workload": {**MANUAL, "triggered_by": "ada"}}, "airflow", {"starter"}, set()),
    ("another one who may", {"workload": {**MANUAL, "triggered_by": "bob"}}, "airflow", {"starter"}, set()),
    ("a user who may not", {"workload": {**MANUAL, "triggered_by": "eve"}}, "airflow", set(), set()),
    (
        "a role, and some user who has it",
        {"roles": ["starter"], "workload": MANUAL},
        "airflow",
        {"starter"},
        set(),
    ),
    (
        "a role, and the user who has it",
        {"roles": ["starter"], "workload": {**MANUAL, "triggered_by": "bob"}},
        "airflow",
        {"starter"},
        set(),
    ),
]


@pytest.mark.parametrize(
    ("said", "issuer", "roles", "unknown"), [pytest.param(*row[1:], id=row[0]) for row in WHO]
)
def test_an_issuer_is_found_by_what_only_its_tokens_say(
    said: dict[str, Any], issuer: str, roles: set[str], unknown: set[str], tmp_path: Path
) -> None:
    (tmp_path / "seed.yaml").write_text(AIRFLOW, "utf-8")
    gate = Gate(compile_folder(tmp_path).engine)
    request = Request.read({"path": "/ledger/x", **said})
    who = gate.identity(request)
    assert (who.issuer, who.granted, who.unknown) == (issuer, roles, unknown)
    for name, value in said.get("workload", {}).items():
        if name != "attested":
            assert who.attested[name].value == value
    assert gate.answer(request).permit is ("starter" in roles)


def test_roles_of_two_issuers_are_nobodys(tmp_path: Path) -> None:
    (tmp_path / "seed.yaml").write_text(AIRFLOW, "utf-8")
    gate = Gate(compile_folder(tmp_path).engine)
    with pytest.raises(InvalidRequest, match="issuer: say which: airflow or company"):
        gate.identity(Request.read({"path": "/ledger/x", "roles": ["clerk", "starter"]}))


@pytest.mark.parametrize("name", ["run_type", "triggered_by", "owners", "dag_bundle", "session"])
@pytest.mark.parametrize("attested", [False, ["dag"]])
def test_what_no_header_says_has_to_be_attested(name: str, attested: object) -> None:
    workload = {"dag": "x", name: ["x"] if name == "owners" else "x", "attested": attested}
    with pytest.raises(InvalidRequest, match=rf"workload\.{name}: only a token says this"):
        Request.read({"path": "/ledger/x", "workload": workload})


def post(**changes: Any) -> dict[str, Any]:
    return {
        "issuer": "company",
        "roles": ["publisher"],
        "workload": {"dag": "fin_close", "attested": True},
        "method": "POST",
        "path": "/ledger/v1/entries",
        "headers": {"X-Change-Id": "7"},
        **changes,
    }


def get(path: str, **changes: Any) -> dict[str, Any]:
    return {"issuer": "company", "path": path, **changes}


TODO = {"type": "todo", "id": "1", "properties": {"owner": "alice", "done": False}}
ASKED = {"issuer": "company", "kind": "human", "subject": "alice", "action": "can_update"}
NOON = {"at": "2026-03-02T12:00:00Z", "from": "198.51.100.7", "country": "DE"}

APP = {"issuer": "tenant", "kind": "workload", "roles": ["reader"]}

# what the case is about, the request, what the gate says: its policies when it permits, else its reason
ANSWERS: list[tuple[str, dict[str, Any], str]] = [
    ("roles become claims", post(), "publish"),
    ("a body within bounds", post(body=10), "publish"),
    ("a body out of bounds", post(body=11), "request.body_too_large"),
    ("a header that is required and not sent", post(headers={}), "request.header_required"),
    ("a body that a GET can't have", get("/ledger/v1/entries", body=1), "request.body_not_allowed"),
    ("a DAG that only a header names", post(workload={"dag": "fin_close"}), "policy.no_match"),
    (
        "a DAG of which the token says another than the header",
        post(workload={"dag": "other", "tags": ["a", "b"], "attested": ["dag", "tags"]}),
        "policy.no_match",
    ),
    ("no roles", get("/ledger/v1/entries", roles=[]), "policy.no_match"),
    ("no word about roles", get("/ledger/v1/entries"), "policy.no_match"),
    ("a role by nested claims", get("/ledger/v1/entries", issuer="partner", roles=["reader"]), "read"),
    ("claims as they are", get("/ledger/v1/entries", claims={"groups": "readers"}), "read"),
    (
        "a claim that can't be read",
        get("/ledger/v1/entries", claims={"groups": [7]}),
        "token.claims",
    ),
    (
        "claims beside roles",
        get("/ledger/v1/audit", roles=["reader"], claims={"department": "audit"}),
        "by-department",
    ),
    ("a tag that is granted", get("/ledger/v1/entries", roles=["reader", "publisher"], tag="reader"), "read"),
    (
        "a tag that leaves the role out",
        get("/ledger/v1/entries", roles=["reader", "publisher"], tag=["publisher"]),
        "policy.no_match",
    ),
    ("a tag that isn't granted", get("/ledger/v1/entries", tag="reader"), "role.not_granted"),
    ("a tag that is no name", get("/ledger/v1/entries", tag="Reader!"), "role.malformed"),
    ("no time, where the policy that asks for it can't match", get("/ledger/v1/hours"), "policy.no_match"),
    ("within hours and network", get("/ledger/v1/hours", roles=["reader"], **NOON), "office-hours"),
    (
        "before hours",
        get("/ledger/v1/hours", roles=["reader"], **(NOON | {"at": "2026-03-02T08:59:59+01:00"})),
        "policy.no_match",
    ),
    (
        "from elsewhere",
        get("/ledger/v1/hours", roles=["reader"], **(NOON | {"from": "203.0.113.7"})),
        "policy.no_match",
    ),
    (
        "a role by name alone finds its subject",
        get("/ledger/v1/hours", roles=["robot"], **NOON),
        "office-hours",
    ),
    ("a bound token, delegated", get("/ledger/v1/proven", dpop=True, actor="helper"), "proven"),
    ("a bearer token, delegated", get("/ledger/v1/proven", actor="helper"), "policy.no_match"),
    ("a bearer token, and said so", get("/ledger/v1/proven", dpop=False, actor="helper"), "policy.no_match"),
    ("a bound token, not delegated", get("/ledger/v1/proven", dpop=True), "policy.no_match"),
    (
        "a token of an issuer that binds them all",
        get("/ledger/v1/proven", issuer="vault", actor="helper"),
        "proven",
    ),
    (
        "one that isn't bound, of such an issuer",
        get("/ledger/v1/proven", issuer="vault", dpop=False),
        "token.unbound",
    ),
    ("a kind by its issuer's words", get("/ledger/v1/entries", **APP, tag="reader"), "read"),
    ("no tag, where there has to be one", get("/ledger/v1/entries", **APP), "role.required"),
    ("an actor without a name", get("/ledger/v1/proven", claims={"act": {}}), "token.claims"),
    ("an obligation that can't be met", get("/ledger/v1/vault"), "policy.obligation"),
    ("an upstream that nobody knows", get("/nowhere/x"), "route.unknown_upstream"),
    ("a path with two readings", get("/ledger/v1/../entries"), "route.path_ambiguous"),
    ("a whole address", get("https://gate.example.com/ledger/v1/entries", roles=["reader"]), "read"),
    ("a page of the gate's own", get("/-/health", kind="human"), "health"),
    ("a page of the gate's own that isn't there", get("/-/other", kind="human"), "route.unknown_upstream"),
    ("the page for questions", get("/access/v1/evaluation", kind="human", method="POST"), "ask"),
    (
        "the page for questions, not asked",
        get("/access/v1/evaluation", kind="human"),
        "route.unknown_upstream",
    ),
    ("a resource", ASKED | {"resource": TODO}, "todo-update"),
    ("a resource of somebody else", ASKED | {"subject": "bob", "resource": TODO}, "policy.no_match"),
    ("a resource without the property", ASKED | {"resource": {"type": "todo", "id": "1"}}, "policy.no_match"),
    ("another action", ASKED | {"action": "can_delete", "resource": TODO}, "policy.no_match"),
]


@pytest.mark.parametrize(("data", "expected"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_the_gate_answers(data: dict[str, Any], expected: str, gate: Gate) -> None:
    answer = gate.answer(Request.read(data))
    assert answer.decision is not None or not answer.permit
    came = answer.reason or ", ".join(answer.decision.policies if answer.decision else ())
    assert came == expected
    assert answer.permit is (answer.reason is None)


# what is wrong, the request, at which key, what is said
MISTAKES: list[tuple[str, dict[str, Any], tuple[str | int, ...], str]] = [
    ("no path", {"issuer": "company"}, ("path",), "is missing"),
    ("a path without a slash", get("ledger/x"), ("path",), 'write "/ledger/x"'),
    ("a method in small letters", get("/ledger/x", method="post"), ("method",), 'write "POST"'),
    ("another method", get("/ledger/x", method="TRACE"), ("method",), "not a method of the gate"),
    ("a time without offset", get("/ledger/x", at="2026-03-02T09:30:00"), ("at",), "with an offset"),
    ("a day that isn't there", get("/ledger/x", at="2026-02-30T09:30:00Z"), ("at",), "day is out of range"),
    (
        "no time, where policy asks",
        get("/ledger/v1/hours", roles=["reader"]),
        ("at",),
        "policy office-hours asks for the time",
    ),
    ("half an address", get("/ledger/x", **{"from": "198.51.100"}), ("from",), "not an IP address"),
    ("a country in small letters", get("/ledger/x", country="de"), ("country",), "write DE"),
    ("an unknown issuer", get("/ledger/x", issuer="compny"), ("issuer",), 'did you mean "company"?'),
    (
        "no issuer of several",
        {"path": "/ledger/x"},
        ("issuer",),
        "say which: company, partner, tenant or vault",
    ),
    ("an unknown role", get("/ledger/x", roles=["reder"]), ("roles", 0), 'did you mean "reader"?'),
    (
        "a role that the issuer doesn't grant",
        get("/ledger/x", issuer="partner", roles=["reader", "publisher"]),
        ("roles", 1),
        "issuer partner grants it to nobody; it grants reader",
    ),
    (
        "a role of another subject",
        get("/ledger/x", subject="svc-other", roles=["robot"]),
        ("roles", 0),
        "grants it to the subject svc-robot only",
    ),
    (
        "a role of another kind",
        get("/ledger/x", issuer="vault", roles=["machine"], kind="agent"),
        ("roles", 0),
        "issuer vault grants it to callers of kind workload only",
    ),
    (
        "a role of another kind or subject",
        get("/ledger/x", issuer="vault", roles=["writer", "aide"]),
        ("roles", 1),
        "issuer vault grants it to the subject svc-aide and callers of kind agent only",
    ),
    (
        "a kind that the issuer doesn't know",
        get("/ledger/x", issuer="partner", kind="human"),
        ("kind",),
        "every caller of issuer partner is of kind workload",
    ),
    (
        "a role of those for whom somebody else acts",
        get("/ledger/x", issuer="vault", roles=["assistant"], actor="x"),
        ("roles", 0),
        "issuer vault grants it to those for whom helper acts only",
    ),
    (
        "a kind for which the issuer has no word",
        get("/ledger/x", issuer="tenant", kind="agent"),
        ("kind",),
        "every caller of issuer tenant is of kind human or workload",
    ),
    (
        "context that the issuer doesn't attest",
        get("/ledger/x", workload={"task": "t", "attested": True}),
        ("workload", "task"),
        "no claim of issuer company attests it; it attests dag, tags",
    ),
    (
        "attested context without a value",
        get("/ledger/x", workload={"dag": "d", "attested": ["dag", "tags"]}),
        ("workload", "attested", 1),
        "has no value here",
    ),
    (
        "a header of the gate's own",
        get("/ledger/x", headers={"Airgate-Dag-Id": "d"}),
        ("headers", "Airgate-Dag-Id"),
        "workload: {dag: …}",
    ),
    (
        "a tag as a header",
        get("/ledger/x", headers={"airgate-role": "r"}),
        ("headers", "airgate-role"),
        '"tag"',
    ),
    ("an action without a resource", get("/ledger/x", action="read"), ("action",), "without a resource"),
    ("a resource without an action", {"issuer": "company", "resource": TODO}, ("action",), "is missing"),
    ("a resource and a path", ASKED | {"resource": TODO, "path": "/x"}, ("path",), "beside a resource"),
]


@pytest.mark.parametrize(
    ("data", "keys", "said"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES]
)
def test_a_mistake_is_named_with_its_key(
    data: dict[str, Any], keys: tuple[str | int, ...], said: str, gate: Gate
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        gate.answer(Request.read(data))
    assert [flaw.keys for flaw in caught.value.flaws] == [keys]
    assert said in caught.value.flaws[0].text


# what is unknown, the request, at which key
UNKNOWN: list[tuple[str, dict[str, Any], list[tuple[str | int, ...]]]] = [
    ("nothing", post(), []),
    ("a role in the tag", get("/ledger/x", tag=["reader", "reeder"]), [("tag", 1)]),
    ("an upstream", get("/legder/x"), [("path",)]),
    ("a page", get("/-/helth"), [("path",)]),
    ("a page that policy isn't asked about", get("/.well-known/authzen-configuration"), [("path",)]),
    ("a type of resource", ASKED | {"resource": {"type": "tood", "id": "1"}}, [("resource", "type")]),
    ("a role and an upstream", get("/legder/x", roles=["reder"]), [("roles", 0), ("path",)]),
    ("what is refused before anybody looks", get("/ledger//x"), []),
]


@pytest.mark.parametrize(("data", "keys"), [row[1:] for row in UNKNOWN], ids=[row[0] for row in UNKNOWN])
def test_unknown_names(data: dict[str, Any], keys: list[tuple[str | int, ...]], gate: Gate) -> None:
    assert [flaw.keys for flaw in gate.unknown_names(Request.read(data))] == keys


# roles that are wanted, roles that the token then grants, roles that are unknown
VAULT = {"issuer": "vault"}
GRANTED: list[tuple[str, dict[str, Any], set[str], set[str]]] = [
    ("one that comes alone", {"roles": ["publisher"]}, {"publisher"}, set()),
    ("one that could come with others", {"roles": ["reader"]}, {"reader"}, set()),
    ("one that always brings another", {"roles": ["lister"]}, {"lister", "reader"}, set()),
    ("none", {"roles": []}, set(), set()),
    ("none said", {}, set(), set()),
    ("a token without groups", {"claims": {}}, set(), {"publisher", "reader", "lister"}),
    ("a subject that holds one by name", {"subject": "svc-robot"}, {"robot"}, set()),
    (
        "by scopes, which are one text",
        VAULT | {"actor": "x", "roles": ["writer", "machine", "searcher"]},
        {"writer", "machine", "searcher"},
        set(),
    ),
    (
        "a kind by its word",
        {"issuer": "tenant", "claims": {"idtyp": "app"}, "roles": ["reader"]},
        {"reader"},
        set(),
    ),
    ("no scopes", VAULT | {"actor": "x", "roles": []}, {"machine"}, set()),
    ("a token without scopes", VAULT | {"claims": {}}, {"machine"}, {"writer", "searcher", "assistant"}),
    ("one by another kind", VAULT | {"kind": "agent", "roles": ["aide"]}, {"aide"}, {"assistant"}),
    (
        "one by another kind, as a claim says",
        VAULT | {"claims": {"kind": "agent"}, "roles": ["aide"]},
        {"aide"},
        {"assistant"},
    ),
    (
        "a kind's, by a subject",
        VAULT | {"subject": "svc-aide", "roles": ["aide"]},
        {"aide", "machine"},
        {"assistant"},
    ),
    ("one by who acts", VAULT | {"roles": ["assistant"]}, {"assistant", "machine"}, set()),
    ("not that, for somebody else acts", VAULT | {"actor": "x"}, {"machine"}, set()),
]


@pytest.mark.parametrize(
    ("said", "granted", "unknown"), [row[1:] for row in GRANTED], ids=[row[0] for row in GRANTED]
)
def test_the_roles_of_a_token(said: dict[str, Any], granted: set[str], unknown: set[str], gate: Gate) -> None:
    identity = gate.identity(Request.read(get("/ledger/x", **said)))
    assert identity.granted == granted
    assert identity.unknown == unknown


@given(st.lists(st.sampled_from(["publisher", "reader", "lister"]), unique=True))
def test_every_set_of_roles_has_a_token(roles: list[str]) -> None:
    identity = built().identity(Request.read(get("/ledger/x", roles=roles)))
    assert identity.granted == {*roles} | ({"reader"} if "lister" in roles else set())
    assert not identity.unknown


def test_claims_that_are_said_win_over_those_made_up(gate: Gate) -> None:
    said = {"airgate": {"kind": "human", "more": 1}, "groups": ["readers"]}
    identity = gate.identity(Request.read(get("/ledger/x", kind="agent", roles=["publisher"], claims=said)))
    assert (identity.kind, identity.granted) == ("human", {"reader"})


def test_what_no_header_says_is_the_same_everywhere() -> None:
    """To the gate, to requests, and to conditions."""
    assert set(HEADERS.values()) | {"airgate-role"} == set(SAID)
    assert set(HEADERS) < set(WORKLOAD)
    assert set(NEVER_ASSERTED) == set(NAMED) - set(HEADERS)
