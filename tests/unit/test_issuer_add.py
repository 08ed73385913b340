"""`airgate issuer add` and `presets`: what is written, what is refused, and what presets are made of."""

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from airgate.cli import app
from airgate.issuer import preset as module
from airgate.issuer.preset import FOLDER, FORMS, PresetError, preset, presets
from airgate.policy.compile import compile_folder
from airgate.policy.seed import STARTER, SeedError, read

OKTA = ["--domain", "example.okta.com", "--audience", "https://gate.example.com"]


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    """The starter seed, to be changed."""
    return Path(shutil.copytree(STARTER, tmp_path / "seed"))


def issuer(*arguments: str, seed: Path | None = None) -> tuple[int, str]:
    where = [] if seed is None else ["--seed", str(seed)]
    done = CliRunner().invoke(app, ["issuer", *arguments, *where])
    return done.exit_code, done.output


def test_a_file_is_written_checked_and_explained(seed: Path) -> None:
    code, output = issuer("add", "okta", "staff", *OKTA, seed=seed)
    assert code == 0
    assert output.startswith("Written: ")
    for said in (
        "issuers/staff.yaml",
        "airgate issuer check staff --seed ",
        "- {issuer: staff, claim: groups, value: finance-publishers}",
        "airgate policy check ",
    ):
        assert said in output
    compiled = compile_folder(seed)
    assert compiled.bundle["issuers"]["staff"]["issuer"] == "https://example.okta.com/oauth2/default"
    assert (seed / "issuers" / "staff.yaml").read_text().count("#") > 5  # it teaches


def test_the_name_is_the_preset_s_when_left_out(seed: Path) -> None:
    assert issuer("add", "okta", *OKTA, seed=seed)[0] == 0
    assert "okta" in compile_folder(seed).bundle["issuers"]


def test_nothing_is_overwritten(seed: Path) -> None:
    file = seed / "issuers" / "okta.yaml"
    file.write_text("# mine\n")
    code, output = issuer("add", "okta", *OKTA, seed=seed)
    assert code == 2
    assert "is there already, and is left as it is" in output
    assert file.read_text() == "# mine\n"


def test_what_makes_the_seed_invalid_is_not_left_there(seed: Path) -> None:
    assert issuer("add", "okta", *OKTA, seed=seed)[0] == 0
    code, output = issuer("add", "okta", "again", *OKTA, seed=seed)
    assert code == 2
    assert '"https://example.okta.com/oauth2/default": only one issuer may have it' in output
    assert output.endswith("Nothing is written.\n")
    assert not (seed / "issuers" / "again.yaml").exists()


def test_a_name_that_another_file_has_already_taken(seed: Path) -> None:
    """The later file of the two is the one that is complained of, and it isn't the new one here."""
    (seed / "z.yaml").write_text(
        (seed / "issuers" / "company.yaml").read_text().replace("company:", "okta:", 1)
    )
    (seed / "issuers" / "company.yaml").unlink()
    code, output = issuer("add", "okta", *OKTA, seed=seed)
    assert code == 2
    assert "this name is taken" in output
    assert not (seed / "issuers" / "okta.yaml").exists()


def test_what_was_wrong_before_is_said_and_stays(seed: Path) -> None:
    (seed / "broken.yaml").write_text("policy: []\n")
    code, output = issuer("add", "okta", *OKTA, seed=seed)
    assert code == 1
    assert "broken.yaml" in output
    assert "That was so before." in output
    assert (seed / "issuers" / "okta.yaml").exists()


def test_permits_that_ask_for_no_role_are_named(seed: Path) -> None:
    (seed / "open.yaml").write_text(
        "policies:\n  - {id: open-to-people, description: d, owner: o@example.com, effect: permit,\n"
        '     subject: {kind: human}, target: {upstream: ledger, methods: [GET], paths: ["/x"]}}\n'
    )
    _, output = issuer("add", "okta", *OKTA, seed=seed)
    assert "they may hold for its callers: open-to-people\n" in output


MISSING = [
    (
        ["okta"],
        ["--domain ", "--audience ", "airgate issuer add okta --domain example.okta.com --audience https://"],
    ),
    (
        ["okta", "--domain", "me.okta.com"],
        ["--audience ", "airgate issuer add okta --domain me.okta.com --audience"],
    ),
    (["kubernetes"], ["--issuer ", "--namespace ", "--audience "]),
]


@pytest.mark.parametrize(("arguments", "said"), MISSING)
def test_all_that_is_missing_is_said_at_once(seed: Path, arguments: list[str], said: list[str]) -> None:
    code, output = issuer("add", *arguments, seed=seed)
    assert code == 2
    assert "also needs to know:" in output
    for words in said:
        assert words in output


WRONG = [
    # preset, option, value; what is said
    ("okta", "domain", "https://me.okta.com/", "did you mean me.okta.com?"),
    ("okta", "domain", "me.okta.com\nissuers: {}", "expected a host's name alone"),
    ("okta", "domain", "me.okta.com#", "expected a host's name alone"),
    ("okta", "server", "a/../b", "expected a word"),
    ("okta", "groups-limit", "many", "expected a whole number"),
    ("okta", "max-lifetime", "1 day", "expected a whole number and a unit"),
    ("google", "kind", "robot", "expected one of workload, human, agent"),
    ("entra-v2", "tenant", "common", "expected an id"),
    ("entra-v2", "audience", "api://gate", "expected an id"),
    ("entra-v2", "tenant", TENANT := "11111111-AAAA-3333-4444-555555555555", f"did you mean {TENANT.lower()}?"),
    ("google-service-accounts", "service-account", "etl@data.iam.gserviceaccount.com", "expected a number, not a name"),
    ("github-actions", "owner-id", "octo-org", "expected a number, not a name"),
    ("aws-sts", "algorithm", "HS256", "expected one of ES256"),
    ("keycloak", "url", "https://sso.example.com/", "did you mean https://sso.example.com?"),
    ("keycloak", "url", "http://sso.example.com", "expected an https address"),
    ("kubernetes", "jwks-uri", "http://10.0.0.1/openid/v1/jwks", "expected an https address"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "option", "value", "said"), WRONG, ids=[f"{row[1]} {row[2]!r}" for row in WRONG]
)
def test_a_value_of_another_form_is_refused(name: str, option: str, value: str, said: str) -> None:
    known = preset(name)
    values = {each.name: [each.example] for each in known.options}
    with pytest.raises(PresetError) as caught:
        known.fill("theirs", {**values, option: [value]})
    assert f"--{option} " in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "value", ['a"b', "a: b", "a\\b", "no", "1e3", "*a", "a # b", "{x}", "[a]", "'", "é", "12", ""]
)
def test_text_stands_in_yaml_as_it_was_given(seed: Path, value: str) -> None:
    known = preset("auth0")
    values = {"domain": ["t.auth0.com"], "audience": ["https://gate.example.com"], "party": [value]}
    if not value:
        with pytest.raises(PresetError):
            known.fill("theirs", values)
        return
    (seed / "issuers" / "theirs.yaml").write_text(known.fill("theirs", values), "utf-8")
    assert compile_folder(seed).bundle["issuers"]["theirs"]["authorized_parties"] == [value]


def test_a_ref_needs_its_repository(seed: Path) -> None:
    given = ["--owner-id", "65", "--audience", "https://gate.example.com", "--ref", "refs/heads/main"]
    code, output = issuer("add", "github-actions", *given, seed=seed)
    assert code == 2
    problem, example = output.split("For example:\n")
    assert problem == (
        "--ref: give --repository-id too: whoever can create a repository has a branch of that name in it\n"
    )
    assert " --repository-id 74 " in example
    assert not (seed / "issuers" / "github-actions.yaml").exists()
    assert issuer("add", "github-actions", *given, "--repository-id", "74", seed=seed)[0] == 0


def test_several_values_stand_where_none_is_given(seed: Path) -> None:
    known, values = preset("github-actions"), {"owner-id": ["65"], "audience": ["https://gate.example.com"]}
    assert "{claim: event_name, any: [push, schedule, workflow_dispatch]}" in known.fill("theirs", values)
    only = known.fill("theirs", {**values, "event": ["release"]})
    assert "{claim: event_name, any: [release]}" in only


def test_a_warning_stands_before_what_it_warns_of() -> None:
    body = preset("aws-sts").body
    assert 0 < body.index("sts:TagSession") < body.index("# attested:")


@pytest.mark.parametrize("name", presets())
def test_no_grant_by_scope_is_printed(name: str) -> None:
    """A scope is what the client asked for."""
    assert not [grant for grant in preset(name).grants if "scope:" in grant]


def test_an_option_is_given_once_unless_it_may_be_more(seed: Path) -> None:
    values = {"domain": ["a.okta.com", "b.okta.com"], "audience": ["x"]}
    with pytest.raises(PresetError, match="--domain: has one value, and 2 are given"):
        preset("okta").fill("okta", values)


@pytest.mark.parametrize("name", ["Okta", "-a", "a/b", "../a", "", "a" * 64])
def test_a_name_that_policy_could_not_have(seed: Path, name: str) -> None:
    with pytest.raises(PresetError, match="a name is 1 to 63 of"):
        preset("okta").fill(name, {"domain": ["a.okta.com"], "audience": ["x"]})


def test_a_preset_that_there_is_not() -> None:
    with pytest.raises(PresetError, match='"ocktad": no such preset; did you mean "okta"'):
        preset("ocktad")


def test_all_presets_are_listed_with_a_line_that_adds_them() -> None:
    code, output = issuer("presets")
    assert code == 0
    for name in presets():
        assert f"airgate issuer add {name} --" in output


def test_each_preset_says_what_it_needs() -> None:
    for name in presets():
        done = CliRunner().invoke(app, ["issuer", "add", name, "--help"], env={"COLUMNS": "200"})
        assert done.exit_code == 0
        for option in preset(name).options:
            assert f"--{option.name}" in done.output


@pytest.mark.parametrize("name", presets())
def test_a_preset_is_no_live_issuer_and_its_example_is_one(name: str, seed: Path) -> None:
    assert set(read(STARTER).issuers) == {"airflow", "company"}
    known = preset(name)
    every = {option.name: [option.example] for option in known.options}
    for values in (every, {key: value for key, value in every.items() if not _left_out(known, key)}):
        text = known.fill("theirs", values)
        assert not re.search(r"\{[a-z-]+\}", text)
        assert max(map(len, text.splitlines())) <= 120
        (seed / "issuers" / "theirs.yaml").write_text(text, "utf-8")
        assert "theirs" in compile_folder(seed).bundle["issuers"]
    roles = "\n".join(f"      - {grant.replace('{name}', 'theirs')}" for grant in known.grants)
    (seed / "more.yaml").write_text(f"roles:\n  theirs:\n    description: d\n    granted_to:\n{roles}\n")
    assert len(compile_folder(seed).bundle["roles"]["theirs"]) == len(known.grants)


def _left_out(known: module.Preset, name: str) -> bool:
    return any(option.name == name and not option.required for option in known.options)


@pytest.mark.parametrize("name", presets())
def test_what_is_commented_out_works_too(name: str, seed: Path) -> None:
    """Lines such as `# attested:` are for people to switch on."""
    known = preset(name)
    text = known.fill(
        "theirs", {option.name: [option.example] for option in known.options if option.required}
    )
    live = re.sub(
        r"^( +)# (- \{|attested:|  environment:|authorized_parties:|jwks_uri:|require:)",
        r"\1\2",
        text,
        flags=re.M,
    )
    (seed / "issuers" / "theirs.yaml").write_text(live, "utf-8")
    try:
        compile_folder(seed)
    except SeedError as error:
        pytest.fail(str(error))


BROKEN = [
    ("title: x\noptions: {}\ngrants: []\nissuers: {}\n", "a line of three dashes is missing"),
    ("title: x\ngrants: []\n---\n", "isn't that of a preset"),
    ("- x\n---\n", "isn't that of a preset"),
    ("title: [\n---\n", "isn't that of a preset"),
    ("title: x\noptions: {a: {help: h, form: odd, example: e}}\ngrants: []\n---\n", "its form or its example is"),
    ("title: x\noptions: {a: {help: h, example: e, needs: {b: why}}}\ngrants: []\n---\n", "needs b, which is none of"),
    ("title: x\noptions: {}\ngrants: []\n---\nissuers: {a: {issuer: {unknown}}}\n", "{unknown} is none of its options"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), BROKEN)
def test_a_preset_that_is_broken_says_where(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "odd.yaml.example").write_text(text)
    with pytest.raises(PresetError) as caught:
        preset("odd", tmp_path)
    assert "odd.yaml.example" in str(caught.value)
    assert said in str(caught.value)


def test_every_form_is_used() -> None:
    used = {option.form for name in presets() for option in preset(name).options}
    assert used == set(FORMS)


def test_presets_stand_where_a_seed_s_reader_does_not_look() -> None:
    assert FOLDER.is_relative_to(STARTER)
    assert not [path for path in FOLDER.iterdir() if path.suffix in (".yaml", ".yml")]
