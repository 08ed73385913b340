"""`airgate revoke`: what is written, what the gate then refuses, what is asked for, said and kept on record."""

import asyncio
import json
import re
import shlex
import shutil
import sqlite3
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner
from world import b64

from access import MOST, Access, Act
from airgate import act_command, acts, grant, revoke
from airgate.environment import Conflict
from airgate.issuer.signature import verify
from airgate.node import WranglerFailed
from airgate.policy.compile import Compiled, compile_folder
from airgate.policy.ledger import append, draft
from airgate.policy.seed import STARTER
from airgate.signing_key import SigningKey
from model import Caller, Fact, Identity
from trust import Trusted, read_trusted
from view import View

MIGRATIONS = sorted((Path(__file__).resolve().parents[2] / "migrations").glob("*.sql"))
GATE = "airgate-staging"
REASON = ("--reason", "a laptop was stolen")
SECOND_ISSUER = """
issuers:
  airflow:
    issuer: https://airflow.example.com
    jwks_uri: https://airflow.example.com/jwks.json
    audiences: [https://gate.example.com]
    algorithms: [RS256]
    type: any
    max_lifetime: 10m
    kind: {default: workload}
    attested: {dag: dag_id, task: task_id, run: run_id}
"""
MORE_POLICIES = """
policies:
  - id: reports-by-night
    description: Reports are read by night, and not by contractors
    owner: finance-data@example.com
    effect: permit
    subject: {issuer: company, roles: {any: [finance-reader], none: [assistant]}}
    target: {upstream: ledger, methods: [GET], paths: ["/v1/reports/**"]}
    when: {time: {zone: Europe/Berlin, days: mon-fri, from: "20:00", to: "06:00"}}
    obligations: {rate_limit: {limit: 60, per: minute, by: subject}}

  - id: reports-for-all
    description: Is being tried
    owner: finance-data@example.com
    effect: permit
    mode: shadow
    subject: {issuer: company}
    target: {upstream: ledger, methods: [GET], paths: ["/v1/reports/**"]}
"""


def database() -> sqlite3.Connection:
    made = sqlite3.connect(":memory:", check_same_thread=False)
    made.row_factory = sqlite3.Row
    for migration in MIGRATIONS:
        made.executescript(migration.read_text("utf-8"))
    return made


class Gate:
    """An environment whose D1 is SQLite, and whose KV is a dict; and the gate that reads both."""

    name = "staging"
    gate = GATE
    address = None

    def __init__(self, keys: Iterable[SigningKey]) -> None:
        self.keys = {"keys": [key.public for key in keys]}
        self.kv: dict[str, str] = {}
        self.broken: set[str] = set()
        self.written: list[str] = []
        self.database, self.emptied = database(), database()

    @property
    def trusted(self) -> Trusted | None:
        return read_trusted(json.dumps(self.keys)) if self.keys["keys"] else None

    def kv_get(self, key: str) -> str | None:
        self._reach("kv_get")
        return self.kv.get(key)

    def kv_put(self, values: Mapping[str, str]) -> None:
        self._reach("kv_put")
        self.kv.update(values)
        self.written += values

    def kv_names(self, prefix: str) -> set[str]:
        return {key for key in self.kv if key.startswith(prefix)}

    def d1(self, sql: str) -> list[dict[str, Any]]:
        self._reach("d1")
        try:
            return [dict(row) for row in self.database.execute(sql).fetchall()]
        except sqlite3.IntegrityError as error:
            raise Conflict(str(error)) from None

    def _reach(self, what: str) -> None:
        if what in self.broken:
            raise WranglerFailed(f"wrangler {what} failed:\nfetch failed")

    @property
    def acts(self) -> list[dict[str, Any]]:
        """The documents in D1."""
        return [json.loads(row["document"]) for row in self.rows]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.d1("SELECT * FROM acts ORDER BY number")

    def access(self, *, remembering: bool = False) -> Access:
        """What a gate that has just begun goes by. `remembering`: D1 has lost its rows."""
        store = Reading(self, remembering)
        view = View()
        asyncio.run(view.read(store, 1.0))
        return view.access


class Reading:
    """The gate's ports to its stores."""

    def __init__(self, gate: Gate, remembering: bool) -> None:
        self.gate, self.remembering = gate, remembering
        self.lines: list[str] = []
        self.verify = verify

    def now(self) -> float:
        return time.time()

    def log(self, line: str) -> None:
        self.lines.append(line)

    def secret(self, name: str) -> str:
        keys = json.dumps(self.gate.keys) if self.gate.trusted else ""
        return {"GATE": self.gate.gate, "TRUSTED_KEYS": keys}[name]

    async def database(self, sql: str, values: tuple[int | str, ...], timeout: float) -> str | None:
        asked = self.gate.emptied if self.remembering else self.gate.database
        (row,) = asked.execute(sql, values).fetchall()
        return str(row["value"])

    async def kv(self, key: str, timeout: float) -> str | None:
        return self.gate.kv.get(key) if self.remembering else None


@pytest.fixture
def granting() -> SigningKey:
    return SigningKey.new("security on call", ["grant"])


@pytest.fixture
def key_file(granting: SigningKey, tmp_path: Path) -> Path:
    return written(granting, tmp_path / "granting.json")


def written(key: SigningKey, file: Path) -> Path:
    file.write_text(key.text, "utf-8")
    file.chmod(0o600)
    return file


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The starter policy, more policies, and a second issuer whose tokens say DAG and run."""
    folder = tmp_path_factory.mktemp("access") / "seed"
    shutil.copytree(STARTER, folder)
    (folder / "issuers" / "airflow.yaml").write_text(SECOND_ISSUER, "utf-8")
    (folder / "policies" / "more.yaml").write_text(MORE_POLICIES, "utf-8")
    return compile_folder(folder)


@pytest.fixture
def gate(granting: SigningKey, compiled: Compiled, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """One that runs under the policy above, and believes the key `granting`."""
    publishing = SigningKey.new("release pipeline", ["publish"])
    made = Gate([granting, publishing])
    for name in ("AIRGATE_KEY", "AIRGATE_KEY_JSON", "AIRGATE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    made.kv |= {f"policy/shard/{digest}": text for digest, text in compiled.stored.items()}
    made.kv[f"policy/bundle/{compiled.sha256}"] = compiled.text
    counts = {"policies": 1, "added": 1, "changed": 0, "removed": 0, "of": None}
    members = {"bundle": compiled.sha256, "published_at": 1, "note": "", "commit": "", **counts}
    assert append(made, 0, 1, draft(made, 1, publishing, members))
    for module in (revoke, grant, act_command):
        monkeypatch.setattr(module, "open_environment", lambda _: made)
    return made


def command(*arguments: str | Path, stdin: str = "", yes: bool = True) -> tuple[int, str]:
    """`airgate revoke` with these arguments."""
    return run(revoke.app, arguments, stdin, yes=yes)


def run(app: Any, arguments: Iterable[str | Path], stdin: str = "", *, yes: bool = True) -> tuple[int, str]:
    asked = [str(argument) for argument in arguments]
    asked += ["--yes"] if yes and not {"list", "--help"} & set(asked) else []
    done = CliRunner().invoke(app, asked, input=stdin, env={"COLUMNS": "200"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def caller(
    subject: str = "finance-etl",
    issuer: str = "company",
    token_id: str | None = None,
    session: str | None = None,
    **workload: Fact,
) -> Caller:
    roles = frozenset(["finance-reader"])
    identity = Identity(issuer, subject, "workload", roles, {}, token_id=token_id, session=session)
    return Caller(identity, None, identity.granted, workload)


def hits(gate: Gate, who: Caller) -> Act | None:
    return gate.access().revoked(who, time.time())


def said(dag: str) -> Fact:
    return Fact(dag, False)


def attested(dag: str) -> Fact:
    return Fact(dag, True)


MATCHES = [
    pytest.param(["--subject", "finance-etl"], caller(), caller("other"), id="a subject"),
    pytest.param(
        ["--subject", "finance-etl"], caller(issuer="airflow"), caller("other"), id="a subject of any issuer"
    ),
    pytest.param(
        ["--subject", "finance-etl", "--issuer", "company"],
        caller(),
        caller(issuer="airflow"),
        id="a subject of one issuer",
    ),
    pytest.param(
        ["--issuer", "https://airflow.example.com"],
        caller(issuer="airflow"),
        caller(),
        id="an issuer, by its iss",
    ),
    pytest.param(["--token-id", "j1"], caller(token_id="j1"), caller(token_id="j2"), id="a token"),
    pytest.param(["--session", "s1"], caller(session="s1"), caller(session="s2"), id="a session"),
    pytest.param(
        ["--session", "s1", "--issuer", "airflow"],
        caller(issuer="airflow", session="s1"),
        caller(session="s1"),
        id="a session of one issuer",
    ),
    pytest.param(
        ["--dag", "daily", "--task", "load"],
        caller(dag=attested("daily"), task=attested("load")),
        caller(dag=attested("daily"), task=attested("extract")),
        id="a task of a DAG",
    ),
    pytest.param(
        ["--task", "load"], caller(task=attested("load")), caller(task=said("load")), id="a task of any DAG"
    ),
    pytest.param(
        ["--dag", "daily"],
        caller(dag=attested("daily")),
        caller(dag=said("daily")),
        id="a DAG that is attested",
    ),
    pytest.param(
        ["--dag", "daily", "--subject", "finance-etl"],
        caller(dag=said("daily")),
        caller("other", dag=said("daily")),
        id="a DAG that its subject says",
    ),
    pytest.param(
        ["--run", "r1", "--issuer", "airflow"],
        caller(issuer="airflow", run=attested("r1")),
        caller(issuer="airflow", run=attested("r2")),
        id="a run",
    ),
    pytest.param(
        ["--dag", "daily", "--run", "r1"],
        caller(dag=attested("daily"), run=attested("r1")),
        caller(dag=attested("daily"), run=attested("r2")),
        id="all that is given has to match",
    ),
]


@pytest.mark.parametrize(("options", "hit", "spared"), MATCHES)
def test_the_gate_refuses_whom_it_says_and_nobody_else(
    gate: Gate, options: list[str], hit: Caller, spared: Caller
) -> None:
    code, output = command(*options, "--for", "4h", *REASON)
    assert code == 0, output
    found = hits(gate, hit)
    assert found is not None
    assert found.reason == "a laptop was stolen"
    assert hits(gate, spared) is None
    assert f"Done: {found.id[:12]}." in output
    assert gate.access().revoked(hit, time.time() + 4 * 3600 + 2) is None


def test_a_gate_that_begins_while_d1_has_lost_its_rows_remembers(gate: Gate) -> None:
    assert command("--subject", "finance-etl", "--for", "4h", *REASON)[0] == 0
    assert gate.access(remembering=True).revoked(caller(), time.time()) is not None


def test_what_it_does_is_said_before_it_is_done(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    said_then: list[int] = []
    monkeypatch.setattr(act_command, "confirm", lambda *_: said_then.append(len(gate.rows)))
    code, output = command("--subject", "finance-etl", "--issuer", "company", "--for", "4h", *REASON)
    assert (code, said_then) == (0, [0])
    plan, _, done = output.partition("Done: ")
    for word in (
        "airgate-staging (staging)",
        "finance-etl (issuer company)",
        "in 4 h",
        "a laptop was stolen",
    ):
        assert word in plan
    assert "within 2 s" in done
    assert "within 10 s" in done
    assert "airgate revoke lift" in done


def test_elsewhere_than_here_it_asks_first(gate: Gate) -> None:
    code, output = command("--subject", "finance-etl", "--for", "4h", *REASON, yes=False)
    assert code == 3
    assert "--yes" in output
    assert gate.rows == []


def test_who_did_it_is_on_record(gate: Gate, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    command("--subject", "a", "--for", "1h", *REASON)
    command("--subject", "b", "--for", "1h", *REASON, "--by", "the CISO")
    command("--subject", "c", "--for", "1h", *REASON, "--by", "the CISO", "--key", key_file)
    assert [act["by"] for act in gate.acts] == [
        "alice",
        "alice for the CISO",
        "security on call for the CISO",
    ]
    assert [bool(row["signature"]) for row in gate.rows] == [False, False, True]
    listed = command("list")[1]
    assert "alice (not signed)" in listed
    assert "security on call for the CISO" in listed


def test_a_lift_opens_again_and_both_stay_on_record(gate: Gate, key_file: Path) -> None:
    command("--subject", "finance-etl", "--for", "4h", *REASON)
    name = gate.rows[0]["id"]
    code, output = command("lift", name[:6], "--reason", "it was found", "--key", key_file)
    assert code == 0, output
    assert "calls of finance-etl" in output
    assert hits(gate, caller()) is None
    assert gate.acts[1]["until"] == gate.acts[0]["until"]
    assert command("list")[1] == "No revocation is in force.\n"
    every = command("list", "--all")[1]
    assert "lifted" in every
    assert "security on call: it was found" in every
    assert "a laptop was stolen" in every
    code, output = command("lift", name, "--reason", "again", "--key", key_file)
    assert code == 2
    assert "was taken back already" in output


def test_what_is_over_stays_on_record(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    command("--subject", "finance-etl", "--for", "1h", *REASON)
    later = time.time() + 3601
    monkeypatch.setattr(time, "time", lambda: later)
    assert command("list")[1] == "No revocation is in force.\n"
    assert "over" in command("list", "--all")[1]
    code, _ = command("lift", gate.rows[0]["id"], "--reason", "x", "--key", "nowhere.json")
    assert code == 2


def test_for_programs(gate: Gate, key_file: Path) -> None:
    command("--subject", "finance-etl", "--for", "4h", *REASON)
    command("--dag", "daily", "--for", "4h", *REASON, "--key", key_file)
    command("lift", gate.rows[0]["id"], "--reason", "found", "--key", key_file)
    second, first = json.loads(command("list", "--all", "--json")[1])
    assert (second["standing"], second["signed_by"], second["taken_back"]) == (
        "in force",
        "security on call",
        None,
    )
    assert second["document"]["match"] == {"dag": "daily"}
    assert (first["standing"], first["signed_by"]) == ("taken back", None)
    assert (first["taken_back"]["reason"], first["id"]) == ("found", gate.rows[0]["id"])
    assert [each["document"]["match"] for each in json.loads(command("list", "--json")[1])] == [
        {"dag": "daily"}
    ]


def test_only_a_key_that_may_grant_lifts(gate: Gate, tmp_path: Path) -> None:
    command("--subject", "finance-etl", "--for", "4h", *REASON)
    name = gate.rows[0]["id"]
    strangers = written(SigningKey.new("stranger", ["grant"]), tmp_path / "stranger.json")
    code, output = command("lift", name, "--reason", "x", "--key", strangers)
    assert code == 3
    assert "doesn't trust the key" in output
    assert "(security on call)" in output
    publishing = SigningKey.new("a pipeline", ["publish"])
    gate.keys["keys"].append(publishing.public)
    code, output = command("lift", name, "--reason", "x", "--key", written(publishing, tmp_path / "p.json"))
    assert code == 3
    assert "doesn't let grant" in output
    code, output = command("lift", name, "--reason", "x")
    assert code == 2
    assert "AIRGATE_KEY" in output
    assert len(gate.rows) == 1


def test_a_gate_that_trusts_nobody_is_told_so(gate: Gate, key_file: Path) -> None:
    gate.keys["keys"].clear()
    code, output = command("--subject", "finance-etl", "--for", "4h", *REASON)
    assert code == 0
    assert "nothing can lift it" in output
    assert hits(gate, caller()) is not None
    code, output = command("lift", gate.rows[0]["id"], "--reason", "x", "--key", key_file)
    assert code == 3
    assert "airgate keys new" in output


INVALID = [
    pytest.param(["--for", "4h", *REASON], "Say what: --subject", id="nothing to match"),
    pytest.param(["--subject", "a", *REASON], "Say for how long", id="no end"),
    pytest.param(["--subject", "a", "--for", "4h"], "Say why", id="no reason"),
    pytest.param(["--subject", "a", "--for", "4h", "--reason", " "], "Say why", id="a blank reason"),
    pytest.param(
        ["--subject", "a", "--for", "4h", "--until", "2099-01-01T00:00Z", *REASON],
        "one too many",
        id="two ends",
    ),
    pytest.param(["--subject", "a", "--for", "4", *REASON], "write it as 90s, 30m, 4h or 2d", id="no unit"),
    pytest.param(
        ["--subject", "a", "--until", "2099-01-01T08:00", *REASON], "says no zone; add one", id="no zone"
    ),
    pytest.param(
        ["--subject", "a", "--until", "2099-01-01", *REASON], "says no time of day, nor its zone", id="a day"
    ),
    pytest.param(["--subject", "a", "--until", "tomorrow", *REASON], "is no moment", id="a word"),
    pytest.param(
        ["--subject", "a", "--until", "2099-02-30T08:00Z", *REASON], "no such day or time", id="no such day"
    ),
    pytest.param(["--subject", "a", "--until", "2020-01-01T08:00Z", *REASON], "over already", id="past"),
    pytest.param(
        ["--subject", "a", "--for", "4h", "--reason", "x" * 513],
        "reason: expected 1 to 512",
        id="a long reason",
    ),
    pytest.param(
        ["--subject", "x" * 513, "--for", "4h", *REASON], "subject: expected 1 to 512", id="a long subject"
    ),
    pytest.param(
        ["--issuer", "compny", "--for", "4h", *REASON], 'did you mean "company"?', id="a misspelt issuer"
    ),
    pytest.param(
        ["--dag", "daily", "--issuer", "company", "--for", "4h", *REASON],
        "This would match nothing: no token of company says its DAG",
        id="a DAG that nobody attests",
    ),
    pytest.param(
        ["--task", "load", "--issuer", "company", "--for", "4h", *REASON],
        "This would match nothing: no token of company says its task",
        id="a task that nobody attests",
    ),
    pytest.param(
        ["--session", "x" * 513, "--for", "4h", *REASON], "session: expected 1 to 512", id="a long session"
    ),
    pytest.param(["--token", "ey.ey.ey", "--for", "4h", *REASON], "standard input", id="a token as argument"),
    pytest.param(["--request-id", "r", "--for", "4h", *REASON], "--log FILE", id="no log"),
    pytest.param(["lift", "abcdef", *REASON, "--key", "{key}"], "There is no revocation", id="an unknown id"),
    pytest.param(["lift", "", *REASON, "--key", "{key}"], "Give more of its id", id="a short id"),
]


@pytest.mark.parametrize(("arguments", "expected"), INVALID)
def test_what_is_not_clear_is_not_done(
    gate: Gate, key_file: Path, arguments: list[str], expected: str
) -> None:
    code, output = command(*[argument.format(key=key_file) for argument in arguments])
    assert (code, gate.rows, gate.written) == (2, [], [])
    assert expected in output


def test_a_time_with_its_zone(gate: Gate) -> None:
    assert command("--subject", "a", "--until", "2099-01-01T08:00+01:00", *REASON)[0] == 0
    assert gate.acts[0]["until"] == 4_070_934_000  # 07:00 in UTC


def test_context_that_a_caller_merely_says_can_be_evaded(gate: Gate) -> None:
    output = command("--subject", "a", "--issuer", "company", "--dag", "daily", "--for", "4h", *REASON)[1]
    assert "whoever holds the token can say another" in output
    output = command("--subject", "a", "--issuer", "airflow", "--dag", "daily", "--for", "4h", *REASON)[1]
    assert "can say another" not in output
    output = command("--dag", "daily", "--for", "4h", *REASON)[1]
    assert "those of airflow. Calls of company go on" in output


def test_what_goes_on_by_another_name_is_told(gate: Gate) -> None:
    output = command("--session", "s1", "--for", "4h", *REASON)[1]
    assert "calls for the session s1" in output
    assert "the next try has another" in output
    output = command("--session", "s1", "--issuer", "airflow", "--for", "4h", *REASON)[1]
    assert "calls for the session s1 (issuer airflow)" in output
    assert "the next try has another" in output
    output = command("--task", "load", "--for", "4h", *REASON)[1]
    assert "calls in task load" in output
    assert "Other DAGs may have a task of that name" in output
    assert "those of airflow. Calls of company go on" in output
    output = command("--dag", "daily", "--task", "load", "--run", "r1", "--for", "4h", *REASON)[1]
    assert "calls in DAG daily in task load in run r1" in output
    assert "Other DAGs" not in output
    listed = command("list")[1]
    for words in (
        "calls for the session s1",
        "calls in task load",
        "calls in DAG daily in task load in run r1",
    ):
        assert words in listed


def test_a_policy_that_cannot_be_read_stops_no_revocation(gate: Gate) -> None:
    gate.kv.clear()
    code, output = command("--dag", "daily", "--issuer", "company", "--for", "4h", *REASON)
    assert code == 0
    assert "nothing was looked up" in output
    assert gate.acts[0]["match"] == {"dag": "daily", "issuer": "company"}


def test_an_issuer_that_cannot_be_looked_up(gate: Gate) -> None:
    gate.kv.clear()
    code, output = command("--issuer", "https://login.example.com", "--for", "4h", *REASON)
    assert (code, gate.rows) == (2, [])
    assert "Give its id there" in output
    assert command("--token", "-", *REASON, stdin=token(**CLAIMS))[0] == 0  # the id and the subject will do
    assert gate.acts[0]["match"] == {"subject": "finance-etl", "token_id": "j1"}


def test_a_key_that_is_named_and_not_there_is_no_silent_step_down(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRGATE_KEY", "nowhere.json")
    code, output = command("--subject", "a", "--for", "4h", *REASON)
    assert (code, gate.rows) == (2, [])
    assert "nowhere.json: no such file" in output
    assert "It needs no signature" in output


def test_for_so_long_policy_is_the_better_place(gate: Gate) -> None:
    assert "a forbid in policy" in command("--subject", "a", "--for", "31d", *REASON)[1]
    assert "a forbid in policy" not in command("--subject", "a", "--for", "29d", *REASON)[1]


def token(**claims: Any) -> str:
    header = b64(json.dumps({"alg": "RS256", "typ": "JWT"}).encode())
    return f"{header}.{b64(json.dumps(claims).encode())}.{b64(b'signature')}"


CLAIMS = {"iss": "https://login.example.com", "sub": "finance-etl", "jti": "j1", "exp": time.time() + 1800}


def test_a_token_is_taken_whole_and_never_shown(gate: Gate) -> None:
    text = token(**CLAIMS)
    code, output = command("--token", "-", *REASON, stdin=f"Bearer {text}\n")
    assert code == 0, output
    assert gate.acts[0]["match"] == {"issuer": "company", "subject": "finance-etl", "token_id": "j1"}
    assert gate.acts[0]["until"] == int(CLAIMS["exp"]) + 300
    assert text not in output
    assert text.split(".")[1] not in output
    assert "Whoever can get a token can get another" in output
    assert hits(gate, caller(token_id="j1")) is not None
    assert hits(gate, caller(token_id="j2")) is None


TOKENS = [
    pytest.param(
        {"jti": None}, "--subject finance-etl --issuer https://login.example.com", id="without an id"
    ),
    pytest.param(
        {"jti": None, "sub": "x; rm -rf ~\x1b[2J", "iss": "a b"},
        "--subject 'x; rm -rf ~\ufffd[2J' --issuer 'a b'",
        id="that a shell and a terminal would obey",
    ),
    pytest.param({"exp": time.time() - 400}, "This token is over", id="that is over"),
    pytest.param({"iss": "https://nobody.example.com"}, "knows no issuer", id="of an unknown issuer"),
]


@pytest.mark.parametrize(("changes", "expected"), TOKENS)
def test_a_token_that_cannot_be_told_from_others(gate: Gate, changes: dict[str, Any], expected: str) -> None:
    text = token(**{name: value for name, value in {**CLAIMS, **changes}.items() if value is not None})
    code, output = command("--token", "-", "--for", "1h", *REASON, stdin=text)
    assert (code, gate.rows) == (2, [])
    assert expected in output
    assert text not in output


def test_at_a_terminal_the_token_is_not_shown(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal is asked in a way in which it shows nothing."""
    text, asked = token(**CLAIMS), []

    def without_echo(prompt: str) -> str:
        asked.append(prompt)
        return text

    monkeypatch.setattr("airgate.revoke.getpass", without_echo)
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(revoke, "sys", SimpleNamespace(stdin=terminal))
    code, output = command("--token", "-", *REASON)
    assert code == 0, output
    assert len(asked) == 1
    assert text not in output
    assert gate.acts[0]["match"]["token_id"] == "j1"
    text += "x" * 4096
    code, output = command("--token", "-", *REASON)
    assert code == 2
    assert "airgate revoke --token - < FILE" in output
    assert len(gate.rows) == 1


def test_what_is_no_token(gate: Gate) -> None:
    code, output = command("--token", "-", "--for", "1h", *REASON, stdin="hunter2")
    assert (code, gate.rows) == (2, [])
    assert "no token that a gate would read" in output
    assert "hunter2" not in output


def test_the_token_of_a_request_in_the_log(gate: Gate, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    decision = {"event": "decision", "schema": 2}
    known = {**decision, "issuer": "company", "subject": "finance-etl"}
    unnamed = {**known, "subject": f"pseudonym:{'5' * 32}"}
    events = [
        {**known, "request_id": "r1", "token_id": "j1"},
        {**known, "request_id": "r2"},
        {**decision, "request_id": "r3", "reason": "token.\x1b[2Jsignature"},
        {**known, "request_id": "r5", "subject": "$(id)\x1b[2J"},
        {**unnamed, "request_id": "r6"},
        {**unnamed, "request_id": "r7", "token_id": "j7"},
    ]
    log.write_text("\n".join(map(json.dumps, events)), "utf-8")
    asked = ("--log", log, "--for", "1h", *REASON)
    assert command("--request-id", "r1", *asked)[0] == 0
    assert gate.acts[0]["match"] == {"issuer": "company", "subject": "finance-etl", "token_id": "j1"}
    for request, expected in {
        "r2": "Shut out its subject: --subject finance-etl --issuer company",
        "r3": "Nobody was known when that request was refused (token.\ufffd[2Jsignature)",
        "r5": "Shut out its subject: --subject '$(id)\ufffd[2J' --issuer company",
        "r4": "holds no decision",
        "r6": "the log holds a pseudonym of the subject, which no token carries",
    }.items():
        code, output = command("--request-id", request, *asked)
        assert code == 2
        assert expected in output
    code, output = command("--request-id", "r1", "--subject", "other", *asked)
    assert code == 2
    assert "another subject" in output
    assert len(gate.rows) == 1
    assert command("--request-id", "r7", *asked)[0] == 0
    assert gate.acts[-1]["match"] == {"issuer": "company", "token_id": "j7"}  # a pseudonym would hit nobody


def test_kv_failing_after_d1_is_in_force_and_says_how_to_go_on(gate: Gate) -> None:
    gate.broken.add("kv_put")
    code, output = command("--subject", "finance-etl", "--for", "4h", *REASON)
    assert code == 1
    assert f"Done: {gate.rows[0]['id'][:12]}" in output
    assert "It is in D1, which is what gates read, and stays in force" in output
    assert "airgate revoke list --repair --env staging" in output
    assert hits(gate, caller()) is not None
    gate.broken.clear()
    assert gate.access(remembering=True).revoked(caller(), time.time()) is None
    code, output = command("list", "--repair", "--yes")
    assert code == 0
    assert "KV's copy lacks 1." in output
    assert gate.access(remembering=True).revoked(caller(), time.time()) is not None


def test_d1_failing_leaves_nothing(gate: Gate) -> None:
    gate.broken.add("d1")
    code, output = command("--subject", "finance-etl", "--for", "4h", *REASON)
    assert (code, gate.kv.get("state/acts")) == (1, None)
    assert "fetch failed" in output
    assert "Whether it is in force isn't known. Look first: airgate revoke list --all --env staging" in output
    assert "Done" not in output


LOST = [
    pytest.param(WranglerFailed("wrangler d1 did not end within 180 s."), id="no answer"),
    pytest.param(KeyboardInterrupt(), id="interrupted"),
]


@pytest.mark.parametrize("error", LOST)
@pytest.mark.parametrize("written", [False, True])
def test_an_act_whose_answer_is_lost_is_looked_for_before_anybody_does_it_again(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, error: BaseException, written: bool
) -> None:
    d1 = gate.d1

    def lost(sql: str) -> list[dict[str, Any]]:
        if not sql.startswith("INSERT"):
            return d1(sql)
        if written:
            d1(sql)
        raise error

    monkeypatch.setattr(gate, "d1", lost)
    code, output = command("--subject", "finance-etl", "--for", "4h", *REASON)
    if written and isinstance(error, WranglerFailed):
        assert (code, "Done: " in output) == (0, True)
    else:
        assert code == 1
        assert "Look first: airgate revoke list --all --env staging\nIt would be " in output
        assert "Only if that isn't there, do it again." in output
    assert len(gate.rows) == written


def test_an_interruption_between_d1_and_kv_says_that_it_is_in_force(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(values: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gate, "kv_put", interrupt)
    code, output = command("--subject", "finance-etl", "--for", "4h", *REASON)
    assert code == 1
    assert "It is in D1, which is what gates read, and stays in force" in output
    assert "airgate revoke list --repair --env staging" in output


def test_there_are_never_more_acts_than_a_gate_reads(
    gate: Gate, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acts, "MANY", 2)
    monkeypatch.setattr(acts, "MOST", 3)
    monkeypatch.setattr(acts, "RESERVE", 1)
    outputs = [command("--subject", f"s{each}", "--for", "4h", *REASON) for each in range(4)]
    assert [code for code, _ in outputs] == [0, 0, 0, 3]
    assert ["acts that aren't over; from 3 on" in output for _, output in outputs] == [
        False,
        True,
        True,
        False,
    ]
    assert "Nothing was written.\nShut out a subject or an issuer in place of single tokens" in outputs[3][1]
    assert len(gate.rows) == 3
    name = gate.rows[0]["id"]
    assert command("lift", name, "--reason", "found", "--key", key_file)[0] == 0  # what takes back is let in
    assert hits(gate, caller("s0")) is None
    later = time.time() + 4 * 3600 + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert command("--subject", "s5", "--for", "4h", *REASON)[0] == 0


def test_the_most_that_is_written_is_less_than_a_gate_reads() -> None:
    assert acts.MANY < acts.MOST < acts.MOST + acts.RESERVE < MOST


ALTERED = [
    pytest.param("until = 1", "until", id="its end"),
    pytest.param("document = document || ' '", "document", id="its text"),
    pytest.param("act = 'lift', until = 1", "act, until", id="its kind and its end"),
]


@pytest.mark.parametrize(("change", "said"), ALTERED)
def test_a_row_that_was_altered_is_told_and_how_to_put_it_right(gate: Gate, change: str, said: str) -> None:
    command("--subject", "finance-etl", "--for", "4h", *REASON)
    command("--subject", "other", "--for", "4h", *REASON)
    name = gate.rows[0]["id"]
    gate.database.execute(f"UPDATE acts SET {change} WHERE number = 1")
    gate.database.execute("DELETE FROM acts WHERE number = 2")
    code, output = command("list", "--repair", "--yes")
    assert code == 1
    assert f"D1's row of {name[:12]} was altered ({said}), by nobody who used these commands" in output
    assert "find out who writes to D1" in output
    assert len(gate.rows) == 2  # the other one is back
    [statement] = re.findall(r"--command (.*)", output)
    gate.database.execute(shlex.split(statement)[0])
    assert command("list", "--repair", "--yes")[0] == 0
    assert hits(gate, caller()) is not None


def test_a_text_that_is_none_is_refused(gate: Gate) -> None:
    code, output = command("--subject", "a", "--for", "4h", "--reason", "\udcff")
    assert (code, gate.rows) == (2, [])
    assert "Not all of it is UTF-8" in output


def test_what_somebody_else_wrote_does_nothing_to_the_terminal(gate: Gate, key_file: Path) -> None:
    command("--subject", "finance-etl", "--for", "4h", *REASON)
    name = gate.rows[0]["id"]
    now = int(time.time())
    grant_ = {"act": "grant", "gate": GATE, "at": now, "from": now, "until": now + 600, "by": "b", "reason": "r",
              "to": {"role": "finance-reader"}, "gives": {"role": "oncall"}}  # fmt: skip
    text = json.dumps(grant_)
    key = SigningKey.read(key_file)
    acts.write(gate, text, key)
    end = {"act": "end", "gate": GATE, "at": now, "until": now + 600, "by": "\x1b[2J", "reason": "a\nb\x07"}
    acts.write(gate, json.dumps(end | {"of": gate.rows[1]["id"]}), None)
    code, output = run(grant.app, ["end", gate.rows[1]["id"], "--reason", "done"])
    assert code == 2
    assert "by \ufffd[2J, a b\ufffd" in output
    foreign = {"act": "revoke", "gate": "\x1b[2J", "at": now, "until": now + 600, "by": "b", "reason": "r"}
    acts.write(gate, json.dumps(foreign | {"match": {"subject": "c"}}), None)
    code, output = command("lift", gate.rows[3]["id"], "--reason", "x", "--key", key_file)
    assert code == 2
    assert "it is for another gate, \ufffd[2J" in output
    assert name[:12] in command("list")[1]


def test_rows_that_d1_has_lost_come_back_from_the_copy(gate: Gate) -> None:
    command("--subject", "finance-etl", "--for", "4h", *REASON)
    gate.database.execute("DELETE FROM acts")
    command("--subject", "other", "--for", "4h", *REASON)  # must not make KV forget the first
    assert gate.access(remembering=True).revoked(caller(), time.time()) is not None
    code, output = command("list", "--repair", yes=False)
    assert (code, hits(gate, caller())) == (3, None)
    output = command("list", "--repair", "--yes")[1]
    assert re.search(r"D1 lacks \w+: revoke, by .*: a laptop was stolen", output)
    assert "Not all of them are signed" in output
    assert hits(gate, caller()) is not None
    assert "nothing to repair" in command("list", "--repair", yes=False)[1]


def test_what_others_have_written_into_d1_is_shown_as_the_gate_sees_it(
    gate: Gate, granting: SigningKey
) -> None:
    def insert(document: str, signature: str = "", key: str = "") -> None:
        values = (document[:8] + str(len(gate.rows)), "revoke", 2**40, document, key, signature)
        gate.database.execute(
            "INSERT INTO acts (id, act, until, document, key, signature) VALUES (?, ?, ?, ?, ?, ?)", values
        )

    shared = {"gate": GATE, "at": 1, "until": 2**40, "by": "\x1b[31mroot", "reason": "[bold]x[/bold]"}
    insert(json.dumps({"act": "revoke", "match": {"subject": "finance-etl"}, **shared}))
    insert(json.dumps({"act": "revoke", "match": {"subject": "b"}, **shared, "gate": "airgate"}))
    insert("not JSON")
    name = re.search(r"^(\w+)\s.*of finance-etl", command("list")[1], re.MULTILINE)
    assert name is not None
    lift = json.dumps({"act": "lift", "of": gate.access().listed()[0].id, **shared})
    insert(lift)
    insert(lift + " ", granting.sign("application/vnd.airgate.pointer+json", lift), granting.kid)
    code, output = command("list")
    assert code == 0
    assert "\x1b" not in output
    assert "[bold]x[/bold]" in output
    assert "refused: it is for another gate" in output
    assert re.search(r"in force .*of finance-etl", output)
    assert hits(gate, caller()) is not None
    assert "refused: can't be read" in command("list", "--all")[1]


def test_options_of_one_command_before_another(gate: Gate) -> None:
    assert run(revoke.app, ["--session", "s1", "list"])[0] == run(revoke.app, ["--task", "t", "list"])[0] == 2
    for before in (["--subject", "a"], ["--env", "production"], ["--yes"]):
        for app in (revoke.app, grant.app):
            code, output = run(app, [*before, "list"])
            assert code == 2
            assert "options go behind" in output
