"""Reading a seed: every mistake in text or structure is named with its place, and what would be right."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from airgate.policy import seed as seeds
from airgate.policy.seed import SCHEMA, STARTER, Seed

POLICY = """\
policies:
  - id: one
    description: d
    owner: o@example.com
    effect: permit
    subject: {issuer: company}
    target: {upstream: ledger, methods: [GET], paths: [/x]}
"""

# name, text of the file, the problems: line:column, path, and the words that matter
MISTAKES: list[tuple[str, str, list[str]]] = [
    ("an anchor", "roles: &all {}\n", ["1:8: roles: &all: no anchors"]),
    (
        "an alias",
        "roles: &all {}\nupstreams: *all\n",
        ["1:8: roles: &all", "2:12: upstreams: *all: no aliases"],
    ),
    ("a merge key", "roles:\n  <<: {}\n", ['2:3: roles.<<: "<<": a name is 1 to 63']),
    ("a tag", "roles: !!map {}\n", ["1:8: roles: !!map: no tags"]),
    ("a tag that would run code", "roles: !!python/object/apply:os.getcwd []\n", ["1:8: roles: !!python"]),
    ("a tag on a key", "!!str roles: {}\n", ["1:1: no anchors or tags on a key"]),
    ("a duplicate key", "roles: {}\nroles: {}\n", ['2:1: roles: "roles" stands here twice, first at 1:1']),
    ("a second document", "roles: {}\n---\nroles: {}\n", ["2:1: a second document"]),
    ("a tab", "roles:\n\tx: {}\n", ["2:1: not valid YAML", "indent with spaces"]),
    ("a bracket left open", "roles: [\n", ["2:1: not valid YAML"]),
    ("a key in braces", "? {a: b}\n: c\n", ["1:3: a key must be a word"]),
    ("deep nesting", "roles: " + "[" * 5000, ["1:24: roles: nested more than 16 levels deep"]),
    (
        "text that turns direction",
        "roles: {x\u202e: {}}\n",
        ["1:10: a character that can't be seen (U+202E)"],
    ),
    ("a zero byte", "roles: \0\n", ["1:8: a character that can't be seen (U+0000)"]),
    ("half a surrogate pair", 'roles: {"\\ud800": {}}\n', ["1:12: not valid YAML"]),
    ("text instead of sections", "hello\n", ['1:1: "hello": expected a mapping']),
    ("a list instead of a mapping", "roles: [a]\n", ['1:8: roles: ["a"]: expected a mapping']),
    (
        "a section misspelt",
        "polices: []\n",
        ['1:1: polices: "polices": no such key here; did you mean "policies"?'],
    ),
    ("a section left empty", "roles:\n", ["1:7: roles: is empty; expected a mapping"]),
    ("a policy that is only text", "policies:\n  - one\n", ['2:5: "one": expected a mapping']),
    (
        "a key misspelt",
        POLICY.replace("effect:", "efect:"),
        ['5:5: efect: "efect": no such key here; did you mean "effect"?', '2:5: "effect" is missing'],
    ),
    (
        "a condition of a later version",
        POLICY + "    when: {}\n",
        ['8:5: when: "when" is not supported by this'],
    ),
    ("an obligation", POLICY + "    obligations: {}\n", ['8:5: obligations: "obligations" is not supported']),
    (
        "a word for a list",
        POLICY.replace("[GET]", "GET"),
        ['7:41: target.methods: "GET": expected a list: [GET]'],
    ),
    (
        "a list left empty",
        POLICY.replace("[GET]", "[]"),
        ["7:41: target.methods: is empty; leave the key out"],
    ),
    (
        "a name twice in a list",
        POLICY.replace("[GET]", "[GET, GET]"),
        ['7:47: target.methods: "GET": stands here twice'],
    ),
    (
        "a method misspelt",
        POLICY.replace("[GET]", "[GTE]"),
        ['7:42: target.methods: "GTE": expected GET, HEAD'],
    ),
    (
        "a method in small letters",
        POLICY.replace("[GET]", "[get]"),
        ['7:42: target.methods: "get": expected GET'],
    ),
    (
        "an effect misspelt",
        POLICY.replace("permit", "permitt"),
        ['5:13: effect: "permitt"', 'did you mean "permit"?'],
    ),
    (
        "a number for text",
        POLICY.replace("description: d", "description: 12"),
        ["3:18: description: 12: expected text"],
    ),
    ("an id in capitals", POLICY.replace("id: one", "id: One"), ['2:9: id: "One": a name is 1 to 63 of a-z']),
    (
        "an id that ends its line",
        POLICY.replace("id: one", 'id: "one\\n"'),
        ["2:9: id: ", "a name is 1 to 63 of a-z"],
    ),
    (
        "a kind of caller misspelt",
        POLICY.replace("{issuer: company}", "{kind: robot}"),
        ['6:21: subject.kind: "robot"'],
    ),
    (
        "a subject's id without its issuer",
        POLICY.replace("{issuer: company}", "{id: bob}"),
        ['6:14: subject: "issuer" is missing; "id" is unique only together with it'],
    ),
    (
        "a permit for nobody in particular",
        POLICY.replace("    subject: {issuer: company}\n", ""),
        ['2:5: "subject" is missing; a permit says whom it permits'],
    ),
    ("a subject that says nothing", POLICY.replace("{issuer: company}", "{}"), ["6:14: subject: is empty"]),
    (
        "a permit by workload that hides who vouches for it",
        POLICY + "    workload: {dag: x}\n",
        ['8:15: workload: "attested" is missing; a permit that looks at the workload says "attested: true"'],
    ),
    (
        "a workload that says nothing",
        POLICY + "    workload: {attested: true}\n",
        ["8:15: workload: says nothing; write dag, task or tags"],
    ),
    (
        "a word for yes",
        POLICY + "    workload: {dag: x, attested: yes}\n",
        ['8:34: workload.attested: "yes": expected true or false'],
    ),
    (
        "a duration without a unit",
        "upstreams:\n  a: {base: https://a.example.com, owner: o, timeout: 30}\n",
        ["2:55: upstreams.a.timeout: 30: expected text (a whole number and a unit"],
    ),
    (
        "a duration in words",
        "upstreams:\n  a: {base: https://a.example.com, owner: o, timeout: 30 s}\n",
        ['2:55: upstreams.a.timeout: "30 s": a whole number and a unit'],
    ),
    (
        "an algorithm with a shared secret",
        "issuers:\n  a: {issuer: https://a.example.com, audiences: [b], algorithms: [HS256]}\n",
        ['2:67: issuers.a.algorithms: "HS256": refused, since it needs a secret', "use RS256, PS256, ES256"],
    ),
    (
        "no algorithm",
        "issuers:\n  a: {issuer: https://a.example.com, audiences: [b], algorithms: [none]}\n",
        ['2:67: issuers.a.algorithms: "none": refused, since it means no signature at all'],
    ),
    (
        "an algorithm misspelt",
        "issuers:\n  a: {issuer: https://a.example.com, audiences: [b], algorithms: [RS265]}\n",
        ['2:67: issuers.a.algorithms: "RS265": expected RS256', 'did you mean "RS256"?'],
    ),
    (
        "a grant by claim and subject at once",
        "roles:\n  a: {description: d, granted_to: [{issuer: b, claim: c, value: v, subject: s}]}\n",
        ["2:36: roles.a.granted_to: ", "either a claim with its value or a subject"],
    ),
    (
        "a grant by half a claim",
        "roles:\n  a: {description: d, granted_to: [{issuer: b, claim: c}]}\n",
        ["2:36: roles.a.granted_to: ", "either a claim with its value or a subject"],
    ),
    (
        "the upstream that is the gate",
        'upstreams:\n  "-": {}\n',
        ['2:3: upstreams.-: "-": a name is 1 to 63'],
    ),
]


def read(folder: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str | bytes]) -> Seed:
    monkeypatch.chdir(folder)
    for name, content in files.items():
        path = folder / "seed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return seeds.read(folder / "seed")


@pytest.mark.parametrize(
    ("text", "expected"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES]
)
def test_a_mistake_is_named_with_its_place(
    text: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = read(tmp_path, monkeypatch, {"a.yaml": text}).problems
    said = "\n".join(str(problem) for problem in problems)
    assert said
    assert all(line.startswith("seed/a.yaml:") for line in said.splitlines()), said
    for part in expected:
        assert part in said


def test_a_sound_file_has_no_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = read(tmp_path, monkeypatch, {"a.yaml": POLICY})
    assert seed.problems == []
    assert list(seed.policies) == ["one"]


def test_the_starter_seed_has_no_problems() -> None:
    seed = seeds.read(STARTER)
    assert seed.problems == []
    assert {"finance-data-publish", "agents-never-write-ledger", "gate-health-details"} <= set(seed.policies)


def test_a_name_taken_in_another_file_is_named_with_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = "roles:\n  r: {description: d, granted_to: [{issuer: a, subject: s}]}\n"
    seed = read(tmp_path, monkeypatch, {"a.yaml": POLICY + role, "b/c.yaml": POLICY + role})
    assert [str(problem) for problem in sorted(seed.problems)] == [
        'seed/b/c.yaml:2:9: id: "one": this name is taken, by seed/a.yaml:2:5; choose another',
        'seed/b/c.yaml:9:3: roles.r: "r": this name is taken, by seed/a.yaml:9:3; choose another',
    ]


FILES: list[tuple[str, str, str | bytes, str]] = [
    ("another suffix", "a.yml", "", "seed/a.yml: would not be read; name it .yaml"),
    ("too large", "a.yaml", "#" * 1_000_001, "seed/a.yaml: is larger than 1,000,000 bytes"),
    ("another encoding", "a.yaml", b"roles: \xff", "seed/a.yaml: is not UTF-8 (byte 7)"),
]


@pytest.mark.parametrize(
    ("name", "content", "expected"), [row[1:] for row in FILES], ids=[row[0] for row in FILES]
)
def test_a_file_that_cannot_be_read_is_named(
    name: str, content: str | bytes, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = read(tmp_path, monkeypatch, {name: content})
    assert [str(problem).startswith(expected) for problem in seed.problems] == [True]
    assert not seed.complete


def test_cases_and_the_schema_folder_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "a.yaml": POLICY,
        "a.cases.yaml": "no seed",
        "schema/x.yaml": "no seed",
        "empty.yaml": "# nothing yet\n",
    }
    assert read(tmp_path, monkeypatch, dict(files)).problems == []


def test_a_folder_without_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seed").mkdir()
    assert [str(problem) for problem in seeds.read(tmp_path / "seed").problems] == [
        "seed: holds no .yaml files; name the folder that holds the policy seed"
    ]
    assert [str(problem) for problem in seeds.read(tmp_path / "none").problems] == [
        "none: no such folder; name the folder that holds the policy seed"
    ]


WORDS: list[tuple[str, object]] = [
    ("no", "no"), ("on", "on"), ("12:30", "12:30"), ("2026-01-01", "2026-01-01"), ("0x10", "0x10"),
    ("true", True), ("12", 12), ("1.5", 1.5), ("~", None), ('"12"', "12"), ("1" * 5000, "1" * 5000),
]  # fmt: skip


@pytest.mark.parametrize(("word", "value"), WORDS, ids=[word[:12] for word, _ in WORDS])
def test_plain_words_mean_what_they_mean_in_yaml_1_2(
    word: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = read(tmp_path, monkeypatch, {"a.yaml": POLICY.replace("owner: o@example.com", f"owner: {word}")})
    assert seed.policies["one"].data["owner"] == value


def test_the_schema_is_sound_and_every_starter_file_leads_an_editor_to_it() -> None:
    Draft202012Validator.check_schema(json.loads(SCHEMA.read_text("utf-8")))
    for file in STARTER.rglob("*.yaml"):
        first = file.read_text("utf-8").splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema="), file
        assert (file.parent / first.partition("$schema=")[2]).resolve() == SCHEMA.resolve(), file
