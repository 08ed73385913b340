"""Cases: what they expect is compared with the gate's answer, mistakes in them are named, and coverage is counted."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from airgate.policy import testing
from airgate.policy.cases import differences, read
from airgate.policy.compile import compile_folder
from airgate.policy.coverage import Coverage
from airgate.policy.gate import Gate
from airgate.policy.seed import SeedError

SEED = """\
issuers:
  company:
    {issuer: https://login.example.com, audiences: [https://gate.example.com], algorithms: [RS256],
     kind: {claim: kind}}
roles:
  publisher: {description: d, granted_to: [{issuer: company, claim: groups, value: publishers}]}
upstreams:
  ledger: {base: https://ledger.example.com, owner: ledger@example.com}
policies:
  - id: publish
    description: d
    owner: finance@example.com
    effect: permit
    subject: {issuer: company, roles: {any: [publisher]}}
    target: {upstream: ledger, methods: [GET, POST], paths: ["/v1/entries", "/v1/entries/{id}"]}
    obligations: {rate_limit: {limit: 60, per: minute, by: subject}, max_body: 1KB}
  - id: no-agents
    description: d
    owner: audit@example.com
    effect: forbid
    subject: {kind: agent}
    target: {upstream: ledger, methods: [POST], paths: ["/**"]}
  - id: tagged
    description: d
    owner: finance@example.com
    effect: forbid
    mode: shadow
    workload: {tags: {none: [finance]}}
    target: {upstream: ledger, methods: [POST], paths: ["/**"]}
"""
# Three policies; paths: 2 + 1 + 1; conditions: issuer (never false here), roles, kind, tags.
POINTS = 3 + 4 + 1 + 2 + 2 + 2

CASES = """\
defaults: {roles: [publisher], method: POST, path: /ledger/v1/entries}
cases:
  - name: one
    request: {workload: {tags: [finance]}}
    expect: {decision: permit, policies: [publish]}
"""


def write(folder: Path, monkeypatch: pytest.MonkeyPatch, cases: str) -> Path:
    monkeypatch.chdir(folder)
    (folder / "seed").mkdir()
    (folder / "seed" / "a.yaml").write_text(SEED, "utf-8")
    (folder / "seed" / "a.cases.yaml").write_text(cases, "utf-8")
    return folder / "seed"


def case(request: str, expect: str) -> str:
    start = CASES[: CASES.index("    request")]
    return f"{start}    request: {request}\n    expect: {expect}\n"


PERMITTED = "{workload: {tags: [finance]}}"
UNTAGGED = "{workload: {tags: [other]}}"
AGENT = "{kind: agent, workload: {tags: [finance]}}"
LIMITED = "rate_limit: {limit: 60, per: minute, by: [subject]}"

# what the case is about, request, expectation, and where the answer differs: what, expected, came
DIFFERENCES: list[tuple[str, str, str, list[tuple[str, str, str]]]] = [
    ("a permit by its policy", PERMITTED, "{decision: permit, policies: [publish]}", []),
    (
        "a permit by another policy",
        PERMITTED,
        "{decision: permit, policies: [publish, tagged]}",
        [("decision", "permit by publish, tagged", "permit by publish")],
    ),
    (
        "a permit instead of a denial",
        PERMITTED,
        "{decision: deny, reason: policy.no_match}",
        [("decision", "deny policy.no_match", "permit by publish")],
    ),
    ("a denial by its reason", "{roles: []}", "{decision: deny, reason: policy.no_match}", []),
    (
        "a denial for another reason",
        AGENT,
        "{decision: deny, reason: policy.no_match}",
        [("decision", "deny policy.no_match", "deny policy.forbidden by no-agents")],
    ),
    (
        "a forbid by its policy",
        AGENT,
        "{decision: deny, reason: policy.forbidden, policies: [no-agents]}",
        [],
    ),
    (
        "a forbid by another policy",
        AGENT,
        "{decision: deny, reason: policy.forbidden, policies: [tagged]}",
        [("decision", "deny policy.forbidden by tagged", "deny policy.forbidden by no-agents")],
    ),
    (
        "a denial instead of a permit",
        "{roles: []}",
        "{decision: permit, policies: [publish]}",
        [("decision", "permit by publish", "deny policy.no_match")],
    ),
    (
        "a refusal before policy",
        "{tag: other-role, path: /ledger/v1/entries}",
        "{decision: deny, reason: role.not_granted, shadow: [], would: deny}",
        [],
    ),
    (
        "an obligation in the way",
        "{body: 1001}",
        "{decision: deny, reason: request.body_too_large, policies: [publish], would: deny}",
        [],
    ),
    (
        "policies in shadow",
        UNTAGGED,
        "{decision: permit, policies: [publish], shadow: [tagged], would: deny}",
        [],
    ),
    (
        "policies in shadow that nobody expected",
        UNTAGGED,
        "{decision: permit, policies: [publish], shadow: [], would: permit}",
        [("shadow", "none", "tagged"), ("would", "permit", "deny")],
    ),
    (
        "all obligations",
        PERMITTED,
        f"{{decision: permit, policies: [publish], obligations: {{{LIMITED}, max_body: 1KB}}}}",
        [],
    ),
    (
        "some of the obligations",
        PERMITTED,
        "{decision: permit, policies: [publish], obligations: {max_body: 1000B}}",
        [
            (
                "obligations",
                '[{"id":"max_body","properties":{"bytes":1000},"type":"max_body"}]',
                '[{"id":"max_body","properties":{"bytes":1000},"type":"max_body"},{"id":"rate_limit",'
                '"properties":{"by":["subject"],"limit":60,"per":60},"type":"rate_limit"}]',
            )
        ],
    ),
]


@pytest.mark.parametrize(
    ("request_", "expect", "expected"), [row[1:] for row in DIFFERENCES], ids=[row[0] for row in DIFFERENCES]
)
def test_what_differs(
    request_: str,
    expect: str,
    expected: list[tuple[str, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled = compile_folder(write(tmp_path, monkeypatch, case(request_, expect)))
    gate = Gate(compiled.engine)
    [one] = read(compiled, gate)
    found = differences(one.expected, gate.answer(one.request))
    assert [(each.what, each.expected, each.came) for each in found] == expected


# what is wrong, what to replace, with what, the problem
MISTAKES: list[tuple[str, str, str, str]] = [
    ("a key misspelt", "expect:", "expects:", '5:5: cases.expects: "expects": no such key here; did you mean'),
    ("a permit without policies", ", policies: [publish]", "", '5:13: cases.expect: "policies" is missing; a permit'),
    (
        "a denial without a reason",
        "permit, policies: [publish]",
        "deny",
        '5:13: cases.expect: "reason" is missing; a denial says why',
    ),
    ("a permit with a reason", "{decision: permit,", "{decision: permit, reason: x,", "only a denial has a reason"),
    (
        "a denial with obligations",
        "permit, policies: [publish]",
        "deny, reason: policy.no_match, obligations: {}",
        "5:68: cases.expect.obligations: only a permit has obligations",
    ),
    (
        "an obligation misspelt",
        "[publish]}",
        "[publish], obligations: {max_body: much}}",
        '5:77: cases.expect.obligations.max_body: "much": how long the body may be',
    ),
    (
        "an unknown policy",
        "[publish]",
        "[publsh]",
        '5:43: expect.policies: "publsh": no such policy; did you mean "publish"? (case "one")',
    ),
    (
        "an unknown reason",
        "permit, policies: [publish]",
        "deny, reason: policy.nomatch",
        '5:38: expect.reason: "policy.nomatch": no such reason; did you mean "policy.no_match"? (case "one")',
    ),
    (
        "an unknown role",
        "{workload:",
        "{roles: [publsher], workload:",
        '4:23: request.roles: "publsher": no such role; did you mean "publisher"? (case "one")',
    ),
    (
        "an unknown role in the defaults",
        "roles: [publisher]",
        "roles: [publsher]",
        '1:20: request.roles: "publsher": no such role; did you mean "publisher"? (case "one")',
    ),
    (
        "an unknown upstream",
        "path: /ledger",
        "path: /legder",
        '1:52: request.path: "legder": no such upstream; did you mean "ledger"? (case "one")',
    ),
    ("a path that is missing", ", path: /ledger/v1/entries", "", "4:14: request.path: is missing; write what is sent"),
    ("a time without offset", "{workload:", "{at: 2026-01-01T00:00:00, workload:", "4:19: request.at: "),
    ("an empty list of cases", CASES[CASES.index("cases:") :], "cases: []\n", "2:8: cases: is empty"),
    ("an anchor", "name: one", "name: &a one", "3:11: cases.name: &a: no anchors"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "expected"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES]
)
def test_a_mistake_is_named_with_its_place(
    old: str, new: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert old in CASES
    compiled = compile_folder(write(tmp_path, monkeypatch, CASES.replace(old, new, 1)))
    with pytest.raises(SeedError) as caught:
        read(compiled, Gate(compiled.engine))
    assert expected in str(caught.value)


def test_names_that_do_not_exist_may_be_what_a_case_is_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = case("{path: /legder/x}", "{decision: deny, reason: route.unknown_upstream}")
    text += (
        case("{tag: nobody}", "{decision: deny, reason: role.not_granted}")
        .partition("cases:\n")[2]
        .replace("one", "two")
    )
    compiled = compile_folder(write(tmp_path, monkeypatch, text))
    gate = Gate(compiled.engine)
    assert [differences(each.expected, gate.answer(each.request)) for each in read(compiled, gate)] == [
        [],
        [],
    ]


def test_a_name_stands_for_one_case_in_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, monkeypatch, CASES)
    (folder / "b.cases.yaml").write_text(CASES, "utf-8")
    compiled = compile_folder(folder)
    with pytest.raises(
        SeedError, match=r"b.cases.yaml:3:11: name: \"one\": this name is taken, by seed/a.cases.yaml:3:11"
    ):
        read(compiled, Gate(compiled.engine))


def test_a_question_takes_no_address_from_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = case(
        "{action: read, resource: {type: todo, id: '1'}}", "{decision: deny, reason: policy.no_match}"
    )
    compiled = compile_folder(write(tmp_path, monkeypatch, text))
    with pytest.raises(
        SeedError, match=r'request\.resource\.type: "todo": no such type of a resource; known: none'
    ):
        read(compiled, Gate(compiled.engine))


# what is tried, points that are touched, what is said to be missing of each policy
COVERED: list[tuple[str, list[str], int, dict[str, list[str]]]] = [
    (
        "nothing",
        [],
        0,
        {"publish": ["no case calls it"], "no-agents": ["no case calls it"], "tagged": ["no case calls it"]},
    ),
    (
        "one call that is permitted",
        [PERMITTED],
        # publish: matched, a path, issuer, roles true; the others: their path and one half of their condition
        4 + 2 + 2,
        {
            "publish": [
                "/v1/entries/{id}: not called",
                "subject.roles.any (publisher): never false",
            ],
            "no-agents": ["doesn't match in any case", "subject.kind (agent): never true"],
            "tagged": ["doesn't match in any case", "workload.tags.none (finance): never true"],
        },
    ),
    (
        "a forbid that matches for what isn't known",
        ["{}"],
        4 + 2 + 2,
        {
            "publish": [
                "/v1/entries/{id}: not called",
                "subject.roles.any (publisher): never false",
            ],
            "no-agents": ["doesn't match in any case", "subject.kind (agent): never true"],
            "tagged": ["workload.tags.none (finance): never true or false"],
        },
    ),
    (
        "everything",
        [PERMITTED, AGENT, UNTAGGED, "{roles: [], path: /ledger/v1/entries/7}"],
        POINTS,
        {"publish": [], "no-agents": [], "tagged": []},
    ),
]


@pytest.mark.parametrize(
    ("requests", "touched", "gaps"), [row[1:] for row in COVERED], ids=[row[0] for row in COVERED]
)
def test_coverage(
    requests: list[str],
    touched: int,
    gaps: dict[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "".join(
        [CASES[: CASES.index("  - name")]]
        + [
            f"  - name: case {number}\n    request: {each}\n    expect: {{decision: deny, reason: policy.no_match}}\n"
            for number, each in enumerate(requests)
        ]
    )
    compiled = compile_folder(write(tmp_path, monkeypatch, text))
    gate = Gate(compiled.engine)
    coverage = Coverage(compiled, gate)
    for each in read(compiled, gate) if requests else ():
        coverage.add(gate.answer(each.request))
    assert coverage.total == POINTS
    assert coverage.total - coverage.missed == touched
    assert {name: each.gaps for name, each in coverage.policies.items()} == gaps


# a condition, and whether callers of the seed's issuer can make it true, and false
POSSIBLE: list[tuple[str, str, tuple[bool, bool]]] = [
    ("the only issuer", "subject: {issuer: company}", (True, False)),
    ("one of the kinds", "subject: {kind: human}", (True, True)),
    ("every kind", "subject: {kind: [human, workload, agent]}", (True, False)),
    ("a token that is bound to a key", "subject: {dpop: true}", (True, True)),
    ("a token that is bound to none", "subject: {dpop: false}", (True, True)),
    ("somebody who acts for the subject", "subject: {delegated: true}", (True, True)),
    ("nobody who does", "subject: {delegated: false}", (True, True)),
    ("any DAG, which people don't have", 'workload: {dag: "*"}', (True, True)),
    (
        "tags that the token would have to attest",
        "workload: {tags: {any: [x]}, attested: true}",
        (False, True),
    ),
    ("a role", "subject: {roles: {any: [publisher]}}", (True, True)),
]


@pytest.mark.parametrize(
    ("condition", "expected"), [row[1:] for row in POSSIBLE], ids=[row[0] for row in POSSIBLE]
)
def test_what_no_caller_can_do_is_not_counted(
    condition: str, expected: tuple[bool, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, monkeypatch, CASES)
    forbid = SEED[SEED.index("  - id: no-agents") : SEED.index("  - id: tagged")]
    more = forbid.replace("no-agents", "more").replace("subject: {kind: agent}", condition)
    (folder / "b.yaml").write_text(f"policies:\n{more}", "utf-8")
    compiled = compile_folder(folder)
    assert Coverage(compiled, Gate(compiled.engine)).policies["more"].possible == [expected]


@pytest.mark.parametrize(
    ("dpop", "expected"),
    [
        pytest.param("true", (True, False), id="no token is unbound"),
        pytest.param("false", (False, True), id="every token is bound"),
    ],
)
def test_where_tokens_have_to_be_bound_others_are_not_counted(
    dpop: str, expected: tuple[bool, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, monkeypatch, CASES)
    text = SEED.replace("algorithms:", "dpop: required, algorithms:")
    (folder / "a.yaml").write_text(text.replace("{kind: agent}", f"{{dpop: {dpop}}}"), "utf-8")
    compiled = compile_folder(folder)
    assert Coverage(compiled, Gate(compiled.engine)).policies["no-agents"].possible == [expected]


APP = typer.Typer()
APP.command("test")(testing.run)

# what is tried, cases, options, exit status, lines that must be there
RUNS: list[tuple[str, str, list[str], int, list[str]]] = [
    ("cases that pass", CASES, [], 0, ["seed: 1 case in 1 file, all passed", "Coverage 57.1 %: 8 of 14 points"]),
    (
        "a case that fails",
        CASES.replace("[publish]", "[no-agents]"),
        [],
        1,
        ["seed/a.cases.yaml:3:11: one", "  decision  permit by no-agents  permit by publish", "--case one",
         "seed: 0 of 1 cases passed, 1 failed"],
    ),
    ("enough coverage", CASES, ["--coverage-min", "57"], 0, ["all passed"]),
    ("too little coverage", CASES, ["--coverage-min", "60"], 1, ["all passed", "Coverage is below 60 %"]),
    ("an invalid case", CASES.replace("[publish]", "[nobody]"), [], 2, ["no such policy", "No case was tried."]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("cases", "options", "status", "said"), [row[1:] for row in RUNS], ids=[row[0] for row in RUNS]
)
def test_the_command(
    cases: str,
    options: list[str],
    status: int,
    said: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = write(tmp_path, monkeypatch, cases)
    result = CliRunner().invoke(APP, [str(folder), *options])
    assert result.exit_code == status
    assert [text for text in said if text not in result.output] == []


def test_without_cases_nothing_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, monkeypatch, CASES)
    (folder / "a.cases.yaml").unlink()
    result = CliRunner().invoke(APP, [str(folder)])
    assert result.exit_code == 2
    assert "holds no *.cases.yaml" in result.output


def test_an_invalid_seed_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, monkeypatch, CASES)
    (folder / "b.yaml").write_text("roles: {publisher: {}}", "utf-8")
    result = CliRunner().invoke(APP, [str(folder)])
    assert result.exit_code == 2
    assert "seed/b.yaml:1:9: roles.publisher" in result.output


def test_the_starter_seed_passes_its_cases_and_they_touch_all_of_it() -> None:
    result = CliRunner().invoke(APP, ["--coverage-min", "100"])
    assert result.exit_code == 0, result.output
    assert "Coverage 100 %" in result.output
