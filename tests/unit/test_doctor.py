"""What the checks say: of wrangler.toml and a seed, of a ledger and of what a gate answers; and how it ends."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import Stores
from typer.testing import CliRunner

from airgate.checks import Check, Examination, Outcome, secrets
from airgate.cli import app
from airgate.configuration import read_configuration
from airgate.engine import BUNDLE, HEAD
from airgate.node import PROJECT, NodeMissing, WranglerFailed
from airgate.policy.compile import Compiled, compile_folder
from airgate.policy.index import FORMAT
from airgate.policy.release import Release, plan, put_in_force
from airgate.policy.seed import STARTER
from airgate.signing_key import SigningKey

OWN = (PROJECT / "wrangler.toml").read_text("utf-8")
JWK = {
    "kty": "OKP",
    "crv": "Ed25519",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
}  # RFC 8037, appendix A

KEY = SigningKey.new("release pipeline", ["publish"])
OTHER = SigningKey.new("somebody", ["publish"])
DEPLOYED = (
    ("0" * 32, "a" * 32),
    ("00000000-0000-0000-0000-000000000000", "aaaaaaaa-0000-0000-0000-000000000000"),
    ('ADDRESS = ""', 'ADDRESS = "https://gate.example.com/"'),
)

Settings = Callable[..., dict[str, Check]]


def keys(*may: str, **more: object) -> str:
    """The text of TRUSTED_KEYS, with a key for each name of a right."""
    jwks = [
        {**JWK, "kid": f"k{number}", "name": f"{right}er", "may": [right], **more}
        for number, right in enumerate(may)
    ]
    return json.dumps({"keys": jwks})


def no_wrangler(*_: object, **__: object) -> str:
    raise WranglerFailed("wrangler whoami failed:\n✘ [ERROR] fetch failed")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """settings((old, new), …): the checks by name, with texts of wrangler.toml replaced; `times`: only so often."""
    file = tmp_path / "wrangler.toml"
    monkeypatch.setenv("AIRGATE_CONFIG", str(file))
    monkeypatch.setattr("airgate.configuration.run_wrangler", no_wrangler)

    def examine(
        *changes: tuple[str, str], env: str = "production", seed: Path = STARTER, times: int = -1
    ) -> dict[str, Check]:
        text = OWN
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, times)
        file.write_text(text, "utf-8")
        return {check.name: check for check in Examination(read_configuration(env), seed).run()}

    return examine


def trusting(text: str) -> tuple[str, str]:
    return 'TRUSTED_KEYS = ""', f"TRUSTED_KEYS = '{text}'"


def test_the_file_as_it_comes_is_well_but_for_keys_and_what_only_the_account_knows(
    settings: Settings,
) -> None:
    checks = settings()
    assert {name: check.outcome for name, check in checks.items()} == {
        "wrangler": Outcome.OK,
        "wrangler.toml": Outcome.OK,
        "TRUSTED_KEYS": Outcome.WARNING,
        "variables": Outcome.OK,
        "policy": Outcome.OK,
        "account": Outcome.UNKNOWN,
        "KV POLICY": Outcome.UNKNOWN,
        "D1 STATE": Outcome.UNKNOWN,
        "secrets": Outcome.UNKNOWN,
        "gate": Outcome.WARNING,
    }
    assert checks["account"].said == "Cloudflare could not be asked: no connection."


@pytest.mark.parametrize(
    ("text", "outcome", "said"),
    [
        pytest.param(
            keys("publish"), Outcome.OK, "publisher may publish; nobody may grant", id="one may publish"
        ),
        pytest.param(keys("publish", "grant"), Outcome.OK, "granter may grant", id="and one may grant"),
        pytest.param(
            keys("grant"), Outcome.FAILED, "may publish, so nothing could come into force", id="no publisher"
        ),
        pytest.param("{}", Outcome.FAILED, "The gate could not read it: ", id="no keys"),
        pytest.param(keys("publish", d="secret"), Outcome.FAILED, "could not read it", id="a private key"),
        pytest.param(keys("publish", crv="P-256"), Outcome.FAILED, "could not read it", id="another curve"),
        pytest.param(" ", Outcome.WARNING, "Nobody is trusted", id="blank"),
    ],
)
def test_trusted_keys_are_read_as_the_gate_reads_them(
    settings: Settings, text: str, outcome: Outcome, said: str
) -> None:
    check = settings(trusting(text))["TRUSTED_KEYS"]
    assert check.outcome is outcome
    assert said in check.said
    assert check.outcome is Outcome.OK or check.next


@pytest.mark.parametrize(
    ("written", "name", "said"),
    [
        pytest.param('GATE = "airgate"\nVIEW_WAIT = 10', "variables", "VIEW_WAIT is none", id="a number"),
        pytest.param(
            'GATE = "airgate"\nVIEW_WAIT = "soon"', "variables", "VIEW_WAIT: expected seconds", id="no number"
        ),
        pytest.param('GATE = "airgate"\nVIEW_WAIT = "1"', "variables", "expected to rise", id="wrong order"),
        pytest.param('GATE = ""', "GATE", "has no name", id="no name"),
        pytest.param(
            'GATE = "airgate-staging"', "wrangler.toml", "is also that of staging", id="the name of another"
        ),
    ],
)
def test_variables_that_the_gate_could_not_use_are_told(
    settings: Settings, written: str, name: str, said: str
) -> None:
    check = settings(('GATE = "airgate"\n', written + "\n"))[name]
    assert (check.outcome, check.passable) == (Outcome.FAILED, False)
    assert said in check.said
    assert check.next


@pytest.mark.parametrize("zeros", ["0" * 32, "00000000-0000-0000-0000-000000000000"], ids=["KV", "D1"])
def test_two_environments_with_the_same_store_are_told(settings: Settings, zeros: str) -> None:
    check = settings((zeros, zeros.replace("0", "a")), env="staging")["wrangler.toml"]
    assert check.outcome is Outcome.FAILED
    assert "is also that of production" in check.said


def test_rate_limits_that_count_in_the_same_place_are_told(settings: Settings) -> None:
    check = settings(('namespace_id = "7103"', 'namespace_id = "7003"'))["wrangler.toml"]
    assert check.outcome is Outcome.FAILED
    assert "rate limits count where staging does too: 7003" in check.said


def test_a_binding_that_is_missing_is_told(settings: Settings) -> None:
    check = settings(
        ('name = "LIMIT_20_PER_10S"\nnamespace_id = "7003"', 'name = "L"\nnamespace_id = "7003"')
    )
    assert "LIMIT_20_PER_10S" in check["wrangler.toml"].said
    check = settings(('binding = "STATE"\ndatabase_name = "airgate-staging"', 'binding = "X"'), env="staging")
    assert "nothing is bound to STATE" in check["wrangler.toml"].said


SEED = """
issuers:
  company: {issuer: https://login.example.com, audiences: [https://gate.example.com], algorithms: [RS256]}
upstreams:
  ledger:
    base: http://ledger.internal
    via: VIA_LEDGER
    owner: o@example.com
    assertion: true
    credentials:
      main: {kind: header, secret: UPSTREAM_LEDGER}
      other: {kind: basic, secret: UPSTREAM_OTHER, user: a}
  open: {base: https://open.example.com, owner: o@example.com}
policies: []
"""


def test_secrets_and_bindings_are_those_that_policy_names(settings: Settings, tmp_path: Path) -> None:
    seed = tmp_path / "seed"
    seed.mkdir()
    (seed / "a.yaml").write_text(SEED, "utf-8")
    assert secrets(compile_folder(seed)) == {"UPSTREAM_LEDGER", "UPSTREAM_OTHER", "ASSERTION_KEYS"}
    assert "VIA_LEDGER" in settings(seed=seed)["bindings"].said
    bound = (
        "[[d1_databases]]",
        '[[vpc_services]]\nbinding = "VIA_LEDGER"\nservice_id = "0"\n\n[[d1_databases]]',
    )
    assert "bindings" not in settings(bound, seed=seed)


def test_an_invalid_policy_fails_and_leaves_the_secrets_unknown(settings: Settings, tmp_path: Path) -> None:
    seed = tmp_path / "seed"
    seed.mkdir()
    (seed / "a.yaml").write_text("policies: [{id: a}]", "utf-8")
    checks = settings(seed=seed)
    assert checks["policy"].outcome is Outcome.FAILED
    assert "policy check" in checks["policy"].next
    assert checks["secrets"].outcome is Outcome.UNKNOWN


def test_without_wrangler_the_account_is_not_asked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Path:
        raise NodeMissing("Run `make setup`.")

    monkeypatch.setattr("airgate.checks.node", missing)
    checks = settings()
    assert checks["wrangler"] == Check("wrangler", Outcome.FAILED, "It isn't installed.", "Run `make setup`.")
    assert "account" not in checks


@pytest.fixture(scope="module")
def starter() -> Compiled:
    return compile_folder(STARTER)


@pytest.fixture
def deployed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Check]]:
    """deployed(stores, **health): the checks of a gate with these stores, whose health page says this."""

    def examine(stores: Stores, **health: object) -> dict[str, Check]:
        monkeypatch.setattr("airgate.checks.open_environment", lambda name: stores)
        monkeypatch.setattr("airgate.checks.health", lambda address: health or None)
        return settings(*DEPLOYED, times=1)

    return examine


def published(compiled: Compiled, *trusted: SigningKey, key: SigningKey | None) -> Stores:
    """The stores of a gate to which this was published with a key, and which trusts these now."""
    stores = Stores(*([key] if key else []), name="production", gate="airgate")
    put_in_force(stores, plan(stores, Release(compiled)), key)
    stores.trust(trusted)
    return stores


def lost_row(stores: Stores) -> None:
    stores.database.execute("DELETE FROM pointers")


def lost_copy(stores: Stores) -> None:
    del stores.kv[HEAD]


def nothing(stores: Stores) -> None:
    pass


@pytest.mark.parametrize(
    ("key", "trusted", "change", "outcome", "said"),
    [
        pytest.param(KEY, [KEY], nothing, Outcome.OK, "number 1, signed by release pipeline", id="signed"),
        pytest.param(
            None, [], nothing, Outcome.OK, "number 1, not signed", id="unsigned, and nobody is trusted"
        ),
        pytest.param(None, [KEY], nothing, Outcome.FAILED, "does not count: it is not signed", id="unsigned"),
        pytest.param(KEY, [OTHER], nothing, Outcome.FAILED, "a key that is not trusted", id="another's key"),
        pytest.param(KEY, [KEY], lost_row, Outcome.WARNING, "D1 lacks its row", id="a row was lost"),
        pytest.param(
            KEY, [KEY], lost_copy, Outcome.WARNING, "KV's copy of its row is not there", id="no copy"
        ),
    ],
)
def test_the_ledger_is_judged_as_the_gate_judges_it(
    deployed: Callable[..., dict[str, Check]],
    starter: Compiled,
    key: SigningKey | None,
    trusted: list[SigningKey],
    change: Callable[[Stores], None],
    outcome: Outcome,
    said: str,
) -> None:
    stores = published(starter, *trusted, key=key)
    change(stores)
    checks = deployed(stores)
    assert checks["ledger"].outcome is outcome
    assert said in checks["ledger"].said
    assert not checks["ledger"].passable
    if outcome is not Outcome.FAILED:
        assert checks["bundle"].outcome is Outcome.OK


def test_before_anything_is_published_that_is_what_is_to_be_done(
    deployed: Callable[..., dict[str, Check]],
) -> None:
    check = deployed(Stores(KEY, name="production", gate="airgate"))["ledger"]
    assert (check.outcome, check.said) == (Outcome.WARNING, "Nothing has been published yet.")
    assert "airgate policy publish --env production" in check.next


@pytest.mark.parametrize("text", [None, "{}"], ids=["it isn't there", "it isn't what its hash says"])
def test_a_bundle_that_the_worker_would_refuse_stands_in_the_way(
    deployed: Callable[..., dict[str, Check]], starter: Compiled, text: str | None
) -> None:
    stores = published(starter, KEY, key=KEY)
    key = BUNDLE + starter.sha256
    stores.kv = {name: value for name, value in stores.kv.items() if name != key}
    if text is not None:
        stores.kv[key] = text
    check = deployed(stores)["bundle"]
    assert (check.outcome, check.passable) == (Outcome.FAILED, False)


@pytest.mark.parametrize(
    ("health", "outcome", "said"),
    [
        pytest.param({}, Outcome.UNKNOWN, "gives no answer", id="no answer"),
        pytest.param({"status": "ok"}, Outcome.WARNING, "doesn't say which formats", id="no version"),
        pytest.param(
            {"status": "ok", "version": "0123456789ab, 2026-11-21T22:25:03Z, reads 4 to 5"},
            Outcome.OK, "0123456789ab", id="well",
        ),
        pytest.param(
            {"status": "failing", "version": "0123456789ab, 2026-11-21T22:25:03Z, reads 4 to 5"},
            Outcome.FAILED, "it decides nothing", id="failing",
        ),
        pytest.param(
            {"status": "ok", "version": "0123456789ab, 2026-11-21T22:25:03Z, reads 3 to 4"},
            Outcome.FAILED, f"has format {FORMAT}, and would be refused", id="too old for what is published now",
        ),
    ],
)  # fmt: skip
def test_what_the_gate_answers_is_told(
    deployed: Callable[..., dict[str, Check]],
    starter: Compiled,
    health: dict[str, object],
    outcome: Outcome,
    said: str,
) -> None:
    check = deployed(published(starter, KEY, key=KEY), **health)["gate"]
    assert check.outcome is outcome
    assert said in check.said
    assert check.passable or outcome is Outcome.OK


@pytest.mark.parametrize(
    ("change", "status"),
    [((), 1), ((('GATE = "airgate"\n', 'GATE = ""\n'),), 2)],
    ids=["not all was checked", "something failed"],
)
def test_the_exit_code_tells_the_worst(
    settings: Settings, change: tuple[tuple[str, str], ...], status: int
) -> None:
    settings(*change)
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == status, done.output
    assert "not checked" in done.output


@pytest.mark.parametrize("command", ["doctor", "deploy"])
def test_this_machine_is_neither_deployed_nor_looked_at(settings: Settings, command: str) -> None:
    settings()
    done = CliRunner().invoke(app, [command, "--env", "local"])
    assert done.exit_code == 2
    assert "make dev" in done.output
