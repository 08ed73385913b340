"""What `airgate deploy` reads and writes on this machine: wrangler.toml, the version's label, and the plan."""

import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgate.account import REFUSED, why
from airgate.checks import Facts
from airgate.configuration import (
    Configuration,
    ConfigurationError,
    configuration_file,
    environments,
    read_configuration,
)
from airgate.deploy import Deployment
from airgate.node import PROJECT, WranglerFailed
from airgate.version import UNKNOWN, Version
from bundle import FORMATS

OWN = (PROJECT / "wrangler.toml").read_text("utf-8")
NAMESPACE = "0123456789abcdef0123456789abcdef"
DATABASE = "01234567-89ab-cdef-0123-456789abcdef"
VERSION = Version("0123456789ab", datetime(2026, 11, 21, 22, 25, 3, tzinfo=UTC), (3, 4))


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project's wrangler.toml, which commands read."""
    file = tmp_path / "wrangler.toml"
    file.write_text(OWN, "utf-8")
    monkeypatch.setenv("AIRGATE_CONFIG", str(file))
    return file


def lines_changed(file: Path) -> list[str]:
    before, after = OWN.splitlines(), file.read_text("utf-8").splitlines()
    assert len(before) == len(after)
    return [new for old, new in zip(before, after, strict=True) if old != new]


def test_without_the_variable_the_projects_own_file_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRGATE_CONFIG", raising=False)
    assert configuration_file() == PROJECT / "wrangler.toml"
    assert environments() == ["production", "staging", "local"]


def test_an_environment_is_read_as_wrangler_would(toml: Path) -> None:
    production, staging = read_configuration("production"), read_configuration("staging")
    assert (production.worker, production.gate, production.database) == ("airgate", "airgate", "airgate")
    assert (staging.worker, staging.gate, staging.database) == ("airgate-staging",) * 3
    for each in (production, staging):
        assert (each.namespace, each.database_id, each.address, each.trusted_keys) == (None, None, None, "")
        assert {"POLICY", "STATE", "LIMIT_5_PER_10S"} <= each.bindings
        assert each.migrations == toml.parent / "migrations"
    assert production.selected() == ["--config", str(toml), "--env", ""]
    assert staging.selected() == ["--config", str(toml), "--env", "staging"]


def test_an_environment_that_is_not_there_is_told_with_those_that_are(toml: Path) -> None:
    with pytest.raises(
        ConfigurationError, match="no environment stagging; there are local, production, staging"
    ):
        read_configuration("stagging")
    toml.unlink()
    with pytest.raises(ConfigurationError, match="AIRGATE_CONFIG"):
        read_configuration("production")
    toml.write_text("name = ", "utf-8")
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_configuration("production")


@pytest.mark.parametrize("env", ["production", "staging"])
def test_ids_and_address_are_written_where_they_belong_and_nothing_else_changes(toml: Path, env: str) -> None:
    written = (
        read_configuration(env)
        .write_namespace(NAMESPACE)
        .write_database(DATABASE)
        .write_address("https://gate.example.com")
    )
    assert (written.namespace, written.database_id) == (NAMESPACE, DATABASE)
    assert written.address == "https://gate.example.com"
    assert lines_changed(toml) == [
        'ADDRESS = "https://gate.example.com"',
        f'id = "{NAMESPACE}"',
        f'database_id = "{DATABASE}"',
    ]
    other = read_configuration({"production": "staging", "staging": "production"}[env])
    assert (other.namespace, other.database_id, other.address) == (None, None, None)


def test_what_else_stands_in_the_file_is_kept_to_the_byte(toml: Path) -> None:
    text = (
        "# a comment [[kv_namespaces]]\r\n"
        'name = "x" # another\r\n'
        "vars = { ADDRESS = '' }\r\n"
        "[[ kv_namespaces ]] # of somebody else\r\n"
        'binding = "OTHER"\r\n'
        'id = "00"\r\n'
        "\r\n"
        "[[kv_namespaces]]\r\n"
        "id='00'   # of ours\r\n"
        "\tbinding = 'POLICY'"
    )
    toml.write_text(text, "utf-8", newline="")
    toml.chmod(0o640)
    read_configuration("production").write_namespace(NAMESPACE)
    assert toml.read_bytes().decode() == text.replace("id='00'", f"id='{NAMESPACE}'")
    assert toml.stat().st_mode & 0o777 == 0o640
    with pytest.raises(
        ConfigurationError, match=r'Write ADDRESS = "https://a" there yourself, .* of \[vars\]'
    ):
        read_configuration("production").write_address("https://a")
    assert toml.read_bytes().decode() == text.replace("id='00'", f"id='{NAMESPACE}'")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('kv_namespaces = [{ binding = "POLICY", id = "00" }]', id="in one line"),
        pytest.param('[[kv_namespaces]]\nbinding = "POLICY"', id="no id"),
        pytest.param('[[kv_namespaces]]\nbinding = "POLICY"\nid = """\n00"""', id="over several lines"),
        pytest.param('a = """\n[[kv_namespaces]]\nbinding = "POLICY"\nid = "00"\n"""', id="in a text"),
        pytest.param("", id="nothing"),
    ],
)
def test_a_file_of_another_layout_is_left_alone(toml: Path, text: str) -> None:
    toml.write_text(text, "utf-8")
    with pytest.raises(ConfigurationError, match=r"Write id = .* yourself"):
        read_configuration("production").write_namespace(NAMESPACE)
    assert toml.read_text("utf-8") == text


def test_a_link_to_the_file_stays_one(toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(toml)
    monkeypatch.setenv("AIRGATE_CONFIG", str(link))
    read_configuration("production").write_namespace(NAMESPACE)
    assert link.is_symlink()
    assert f'id = "{NAMESPACE}"' in toml.read_text("utf-8")


@given(
    st.from_regex(r"[0-9a-f]{12}\+?", fullmatch=True) | st.just(UNKNOWN),
    st.integers(0, 253402300799),
    st.tuples(st.integers(0, 9999), st.integers(0, 9999)),
)
def test_a_version_is_read_back_from_its_label(commit: str, at: int, formats: tuple[int, int]) -> None:
    version = Version(commit, datetime.fromtimestamp(at, UTC), formats)
    assert Version.read(str(version)) == version


@pytest.mark.parametrize("label", [None, "", "1.0", 4, f"{VERSION} ", "0123456789ab, now, reads 3 to 4"])
def test_other_labels_tell_nothing(label: object) -> None:
    assert Version.read(label) is None


def test_a_version_says_which_formats_it_reads() -> None:
    assert [VERSION.reads(number) for number in (2, 3, 4, 5)] == [False, True, True, False]
    tree = Version.of_tree(datetime.now(UTC))
    assert tree.formats == (min(FORMATS), max(FORMATS))
    assert Version.read(str(tree)) == tree


def steps(configuration: Configuration, facts: Facts) -> list[str]:
    return [step.partition(":")[0] for step in Deployment(configuration, facts, VERSION, 0).plan()]


def test_a_plan_names_what_is_made_and_what_is_found(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toml.parent)
    new = read_configuration("production")
    assert steps(new, Facts(namespaces={}, databases={})) == [
        "create the KV namespace airgate-policy",
        "create the D1 database airgate",
        "write their ids into wrangler.toml",
        "apply the migrations that the database lacks",
        "upload the Worker airgate",
    ]
    there = Facts(
        namespaces={NAMESPACE: "airgate-policy", "f" * 32: "other"}, databases={DATABASE: "airgate"}
    )
    assert steps(new, there)[:2] == [
        f"use the KV namespace airgate-policy that is there, {NAMESPACE}",
        f"use the D1 database airgate that is there, {DATABASE}",
    ]
    deployed = replace(new, namespace=NAMESPACE, database_id=DATABASE)
    assert steps(deployed, Facts(pending=["0002_more.sql"])) == [
        "apply the migrations 0002_more.sql",
        "upload the Worker airgate",
    ]
    assert steps(deployed, Facts(pending=[])) == ["upload the Worker airgate"]


@pytest.mark.parametrize(
    ("said", "short"),
    [
        ("wrangler whoami failed:\n✘ [ERROR] fetch failed", "no connection"),
        ('wrangler d1 failed:\n{\n  "error": {\n    "text": "fetch failed"\n  }\n}', "no connection"),
        ("wrangler kv failed:\n✘ [ERROR] A request to the Cloudflare API failed.", "no connection"),
        ("wrangler kv failed:\n  Authentication error [code: 10000]", "it turns the login down"),
        ("wrangler kv failed:\n✘ [ERROR] A request failed.\n  Too many. [code: 971]", "Too many. [code: 971]"),
        ("wrangler kv did not end within 180 s.", "wrangler kv did not end within 180 s"),
    ],
)  # fmt: skip
def test_why_the_account_could_not_be_asked_is_said_in_a_few_words(said: str, short: str) -> None:
    assert why(WranglerFailed(said)) == short
    assert bool(REFUSED.search(said)) == (short == "it turns the login down")


def test_every_environment_has_a_state_and_a_name_of_its_own() -> None:
    settings = tomllib.loads(OWN)
    sections = [settings, *settings["env"].values()]
    assert len({section["vars"]["GATE"] for section in sections}) == len(sections)
    names = [
        section["d1_databases"][0]["database_name"]
        for section in sections
        if "TRUSTED_KEYS" in section["vars"]
    ]
    assert len(set(names)) == len(names) == 2
    for section in sections:
        assert [each["binding"] for each in section["kv_namespaces"]] == ["POLICY"]
        assert [each["binding"] for each in section["d1_databases"]] == ["STATE"]
