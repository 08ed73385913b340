"""Reading a seed: every mistake in text or structure is named with its place, and what would be right."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import every_setting
import pytest
from jsonschema import Draft202012Validator

from airgate.policy import seed as seeds
from airgate.policy.seed import SCHEMA, STARTER, Seed, Source, structure
from airgate.policy.structure import holds, seed_validator

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
        "a condition that says nothing",
        POLICY + "    when: {}\n",
        ["8:11: when: is empty; leave the key out, or write"],
    ),
    (
        "a condition misspelt",
        POLICY + "    when: {tme: {}}\n",
        ['8:12: when.tme: "tme": no such key here; did you mean "time"?'],
    ),
    (
        "a condition that there isn't",
        POLICY + "    when: {weather: sunny}\n",
        ['"weather": no such key here; known here: time, dates, ip, country, equals'],
    ),
    ("no obligation", POLICY + "    obligations: {}\n", ["8:18: obligations: is empty; leave the key out"]),
    (
        "a limit without whose calls it counts",
        POLICY + "    obligations: {rate_limit: {limit: 60, per: minute}}\n",
        ['8:31: obligations.rate_limit: "by" is missing; at most limit calls per minute or 10s'],
    ),
    (
        "a value that can't be compared",
        POLICY.replace("{issuer: company}", "{claims: [{claim: a, any: [1.5]}]}"),
        ["6:41: subject.claims.any: 1.5: expected text, a whole number or true or false"],
    ),
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
        "a word for all methods that isn't the one",
        POLICY.replace("[GET]", "ALL"),
        ['7:41: target.methods: "ALL": expected a list: [ALL], or "*"'],
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
        POLICY + "    workload: {}\n",
        [
            "8:15: workload: says nothing; write dag, task, run_type, triggered_by, environment, tags or attested"
        ],
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
        [
            "2:77: roles.a.granted_to.subject: ",
            "by claim and value, by scope, by subject or by kind; write two",
        ],
    ),
    (
        "a grant by half a claim",
        "roles:\n  a: {description: d, granted_to: [{issuer: b, claim: c}]}\n",
        ['2:36: roles.a.granted_to: "value" is missing; a grant by a claim says which claim, and the value'],
    ),
    (
        "a grant by the other half of a claim, and a kind",
        "roles:\n  a: {description: d, granted_to: [{issuer: b, value: v, kind: agent}]}\n",
        [
            '2:36: roles.a.granted_to: "claim" is missing',
            "2:64: roles.a.granted_to.kind: a grant is by claim and",
        ],
    ),
    (
        "a grant by scope and kind at once",
        "roles:\n  a: {description: d, granted_to: [{issuer: b, scope: s, kind: agent}]}\n",
        ["2:64: roles.a.granted_to.kind: a grant is by claim and value, by scope, by subject or by kind"],
    ),
    (
        "a grant by subject and kind at once",
        "roles:\n  a: {description: d, granted_to: [{issuer: b, subject: s, kind: agent}]}\n",
        ["2:66: roles.a.granted_to.kind: a grant is by claim and value, by scope, by subject or by kind"],
    ),
    (
        "a grant by scope and subject at once",
        "roles:\n  a: {description: d, granted_to: [{issuer: b, scope: s, subject: t}]}\n",
        ["2:67: roles.a.granted_to.subject: a grant is by claim and value, by scope, by subject or by kind"],
    ),
    (
        "a grant to nobody",
        "roles:\n  a: {description: d, granted_to: [{issuer: b}]}\n",
        ["2:36: roles.a.granted_to: says nothing; write claim, scope, subject or kind"],
    ),
    (
        "two scopes in one",
        'roles:\n  a: {description: d, granted_to: [{issuer: b, scope: "s t"}]}\n',
        ['2:55: roles.a.granted_to.scope: "s t": one scope of the token, as its claim scope or scp has it'],
    ),
    (
        "a scope and a line's end",
        'roles:\n  a: {description: d, granted_to: [{issuer: b, scope: "s\\n"}]}\n',
        ["2:55: roles.a.granted_to.scope: ", "one scope of the token, as its claim scope or scp has it"],
    ),
    (
        "a kind that nobody is of",
        "roles:\n  a: {description: d, granted_to: [{issuer: b, kind: bot}]}\n",
        ['2:54: roles.a.granted_to.kind: "bot": expected workload, human or agent'],
    ),
    (
        "a flag by another word",
        "policies:\n  - {id: a, description: d, owner: o, effect: forbid, subject: {dpop: yes},\n"
        "     target: {upstream: u, methods: [GET], paths: [/x]}}\n",
        ['2:71: subject.dpop: "yes": expected true or false'],
    ),
    (
        "a list cut too late",
        "issuers:\n  a: {issuer: https://a.example.com, audiences: [b], algorithms: [RS256],\n"
        "      truncates: [{claim: groups, at: 10001}]}\n",
        ["3:39: issuers.a.truncates.at: 10001: more than 10000"],
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


LIMITS: list[tuple[str, str, int, str]] = [
    ("files", "MOST_FILES", 2, "seed: holds more than 2 files; is it the folder of the policy seed?"),
    (
        "bytes",
        "MOST_BYTES",
        400,
        "seed: its files hold more than 400 bytes; is it the folder of the policy seed?",
    ),
    ("policies", "MOST_POLICIES", 2, "seed: holds more than 2 policies; a gate reads no more"),
]


@pytest.mark.parametrize(
    ("limit", "most", "expected"), [row[1:] for row in LIMITS], ids=[row[0] for row in LIMITS]
)
def test_there_is_an_end_to_what_is_read(
    limit: str, most: int, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: dict[str, str | bytes] = {
        f"{name}.yaml": POLICY.replace("id: one", f"id: {name}") for name in ("a", "b", "c")
    }
    assert read(tmp_path, monkeypatch, files).problems == []
    monkeypatch.setattr(seeds, limit, most)
    seed = read(tmp_path, monkeypatch, files)
    assert [str(problem) for problem in seed.problems] == [expected]
    assert not seed.complete


def test_there_is_an_end_to_what_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: dict[str, str | bytes] = {
        f"{name}.yaml": "policies: [" + "{}, " * 200 + "]" for name in ("a", "b", "c")
    }
    seed = read(tmp_path, monkeypatch, files)
    assert str(seed.problems[-1]) == "seed: 500 problems and more; the rest is not looked at"
    assert {problem.file for problem in seed.problems} == {"seed", "seed/a.yaml"}
    assert not seed.complete


SIZE = 200_000  # characters
HUGE: list[tuple[str, str, str]] = [
    ("nesting in brackets", "roles: " + "[" * SIZE, "nested more than 16 levels deep"),
    ("nesting in braces", "roles: " + "{a: " * (SIZE // 4), "nested more than 16 levels deep"),
    ("nesting in dashes", "roles:\n " + "- " * (SIZE // 2), "nested more than 16 levels deep"),
    ("anchors", "roles: [" + "&a x, " * (SIZE // 6) + "]", "&a: no anchors"),
    ("a tag", "roles: !" + "a" * SIZE + " {}", "no tags; write the plain value"),
    ("one word", POLICY.replace("id: one", "id: " + "a" * SIZE), "a name is 1 to 63"),
    ("one text", POLICY.replace("description: d", "description: " + "a " * SIZE), "longer than 2000"),
    ("one pattern", POLICY.replace("/x", '"/' + "[" * SIZE + '"'), "longer than 1000"),
    (
        "one name again and again",
        POLICY.replace("[GET]", "[" + "GET, " * (SIZE // 5) + "]"),
        '"GET": stands here twice',
    ),
    (
        "a list of mappings",
        POLICY.replace("{issuer: company}", "{claims: [" + "{}, " * (SIZE // 4) + "]}"),
        '"claim" is missing',
    ),
    (
        "keys that there aren't",
        "{" + "".join(f"k{number}: 1, " for number in range(SIZE // 10)) + "}",
        "no such key",
    ),
    ("one key again and again", "a: 1\n" * (SIZE // 5), '"a" stands here twice, first at 1:1'),
    ("one policy again and again", POLICY + POLICY[10:] * 1000, "this name is taken, by seed/a.yaml:2:5"),
    ("policies that say nothing", "policies:\n" + "- {}\n" * (SIZE // 5), "are missing"),
]


@pytest.mark.parametrize(("text", "expected"), [row[1:] for row in HUGE], ids=[row[0] for row in HUGE])
def test_what_is_made_to_be_slow_is_refused_soon(
    text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = time.process_time()
    problems = read(tmp_path, monkeypatch, {"a.yaml": text}).problems
    assert [problem for problem in problems if expected in problem.text]
    assert all(len(str(problem)) < 1000 for problem in problems)
    assert time.process_time() - begun < 20  # anything quadratic takes minutes


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


def test_the_schema_is_sound_and_every_starter_file_leads_an_editor_to_one() -> None:
    Draft202012Validator.check_schema(json.loads(SCHEMA.read_text("utf-8")))
    led: dict[str, set[str]] = {}
    for file in STARTER.rglob("*.yaml"):
        first = file.read_text("utf-8").splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema="), file
        schema = (file.parent / first.partition("$schema=")[2]).resolve()
        assert schema.is_file(), file
        led.setdefault(schema.name, set()).add(str(file.relative_to(STARTER)))
    assert {"upstreams.yaml", "roles.yaml", "policies/finance.yaml"} <= led[SCHEMA.name]


def members(schema: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Every member that a schema knows, with the way to it."""
    for name, member in schema.get("properties", {}).items():
        yield f"{where}.{name}", member
        yield from members(member, f"{where}.{name}")
    for key in {"items", "then", "else"} & schema.keys():
        yield from members(schema[key], where)


def test_the_schema_tells_an_editor_what_each_member_means() -> None:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    parts = [(name, part) for name, part in schema["$defs"].items()] + [("", schema)]
    silent = []
    for where, member in [found for name, part in parts for found in members(part, name)]:
        referred = schema["$defs"].get(member.get("$ref", "").removeprefix("#/$defs/"), {})
        if not {"description", "enum", "required"} & (member.keys() | referred.keys()):
            silent.append(where)
    assert silent == []


WHOLE = """\
issuers:
  company: {issuer: https://a.example.com, audiences: [b], algorithms: [RS256], kind: {claim: k, default: human},
            attested: {dag: [a, b], environment: c}, max_lifetime: 1h, dpop: required,
            require: [{claim: t, any: [x]}], truncates: [{claim: g, at: 100}]}
roles:
  r: {description: d, granted_to: [{issuer: company, claim: c, value: v}, {issuer: company, subject: s},
                                  {issuer: company, scope: s}, {issuer: company, kind: agent}]}
upstreams:
  ledger:
EVERY
  crm: {base: https://crm.example.com, owner: o, via: VIA_CRM, breaker: false}
policies:
  - id: one
    description: d
    owner: o
    effect: permit
    mode: shadow
    subject: {issuer: company, id: [s], kind: [human], dpop: true, delegated: false, roles: {any: [r]},
              claims: [{claim: [a, b], any: [1, x, true]}]}
    workload: {dag: x, tags: {none: [t]}, attested: true}
    target: {upstream: [ledger], methods: [GET], paths: [/x], query: [{parameter: p, all: [1]}]}
    when:
      time: {zone: UTC, days: [mon-fri, sun], from: "06:00", to: "24:00"}
      dates: {from: 2026-01-01, until: 2026-03-31, zone: UTC}
      ip: ["::/0"]
      country: DE
      equals: [[query.p, subject.p], [subject.id, workload.dag]]
    obligations:
      rate_limit: [{limit: 60, per: minute, by: [subject, dag]}]
      credential: c
      max_body: 1MB
      require: {headers: [X-Id], justification: true}
      other: {a: [null, 1.5]}
  - {id: two, description: d, owner: o, effect: forbid, target: {resource: t, actions: "*", ids: "*",
     properties: [{property: p, none: [x]}]}, when: {equals: [resource.p, subject.id]}}
  - {id: three, description: d, owner: o, effect: permit, subject: {kind: agent}, asking: {about: any, trust: [roles]},
     target: {upstream: "-", methods: "*", paths: [/x]}}
""".replace("EVERY\n", every_setting.indented(4))
WRONG: list[Any] = [
    None, True, False, 0, 1, 1.0, 1.5, 0.25, 2000, "", "x", "*", "GET", "2026-01-01", "no name!", [], ["x"],
    ["x", "x"], [1, True], [[]], {}, {"any": ["x"]}, {"x": 1}, {"resource": "t"}, [{"claim": "c"}], "x" * 3000,
    ["a", "b", "c"], [["a", "b"]],
]  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a document that holds a value: its container and its key or index."""
    for key, inner in list(
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield value, key
        yield from places(inner)


def test_the_quick_check_says_what_the_schemas_own_library_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file that holds the whole language, and on those with one value replaced or left out."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    quick, slow = holds(schema), Draft202012Validator(schema)
    data = json.loads(json.dumps(read(tmp_path, monkeypatch, {"a.yaml": WHOLE}).policies["one"].source.data))
    assert quick(data)
    assert slow.is_valid(data)
    verdicts = Counter()
    for number, (container, key) in enumerate(places(data)):
        before = container[key]
        for wrong in WRONG[number % 6 :: 6]:
            container[key] = wrong
            assert quick(data) == slow.is_valid(data), (container, key, wrong)
            verdicts[quick(data)] += 1
            container[key] = before
        if isinstance(container, dict):
            del container[key]
            assert quick(data) == slow.is_valid(data), (container, key)
            container[key] = before
    assert min(verdicts[True], verdicts[False]) > 100


def test_there_is_a_word_for_every_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No message of the schema's library reaches a person, whatever stands anywhere."""
    data = json.loads(json.dumps(read(tmp_path, monkeypatch, {"a.yaml": WHOLE}).policies["one"].source.data))
    for number, (container, key) in enumerate(places(data)):
        before = container[key]
        for wrong in WRONG[number % 6 :: 6]:
            container[key] = wrong
            for error in seed_validator().iter_errors(data):
                source = Source("a.yaml", data)
                texts = [problem.text for problem in structure(source)]
                assert texts
                assert error.message not in texts
                break
            container[key] = before
