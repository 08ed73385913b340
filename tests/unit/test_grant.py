"""`airgate grant`: what is lent by it at the gate, to whom and for how long; what is refused, and what is said."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from test_revoke import (
    CLAIMS,
    Gate,
    SigningKey,
    caller,
    compiled,
    gate,
    granting,
    key_file,
    run,
    token,
    written,
)

from airgate import grant, revoke
from airgate.policy.compile import Compiled
from model import Caller

__all__ = ["compiled", "gate", "granting", "key_file"]  # fixtures

REASON = ("--reason", "the quarter closes tonight")
FOUR_HOURS = ("--for", "4h")


@pytest.fixture
def key(key_file: Path, monkeypatch: pytest.MonkeyPatch, gate: Gate) -> Path:
    """Named by AIRGATE_KEY."""
    monkeypatch.setenv("AIRGATE_KEY", str(key_file))
    return key_file


def command(*arguments: str | Path, yes: bool = True) -> tuple[int, str]:
    """`airgate grant` with these arguments."""
    return run(grant.app, arguments, yes=yes)


def lent(gate: Gate, who: Caller, after: float = 0) -> tuple[set[str], set[str]]:
    """The roles and the permits that the gate lends somebody."""
    found = gate.access().lent(who.identity, time.time() + after)
    return (set(), set()) if found is None else (set(found.roles), {policy for policy, _ in found.policies})


TO = ("--subject", "ann", "--issuer", "company")
ROLE = ("--role", "finance-publisher")
POLICY = ("--policy", "finance-data-publish")
GIVEN = [
    pytest.param(
        ["--subject", "ann", "--issuer", "company", *ROLE],
        caller("ann"),
        caller("ann", "airflow"),
        ({"finance-publisher"}, set()),
        id="a role to a subject",
    ),
    pytest.param(
        ["--subject", "ann", "--issuer", "https://login.example.com", *POLICY],
        caller("ann"),
        caller("bob"),
        (set(), {"finance-data-publish"}),
        id="a permit to a subject, its issuer by iss",
    ),
    pytest.param(
        ["--role", "finance-reader", *POLICY],
        caller("ann"),
        caller("ann")._replace(identity=caller("ann").identity._replace(granted=frozenset(["oncall"]))),
        (set(), {"finance-data-publish"}),
        id="a permit to a role",
    ),
    pytest.param(
        ["--to-role", "finance-reader", *ROLE],
        caller("ann"),
        caller("ann")._replace(identity=caller("ann").identity._replace(granted=frozenset())),
        ({"finance-publisher"}, set()),
        id="a role to a role",
    ),
]


@pytest.mark.parametrize(("options", "holder", "other", "expected"), GIVEN)
def test_the_gate_lends_what_it_says_to_whom_it_says_while_it_says(
    gate: Gate,
    key: Path,
    options: list[str],
    holder: Caller,
    other: Caller,
    expected: tuple[set[str], set[str]],
) -> None:
    code, output = command(*options, *FOUR_HOURS, *REASON)
    assert code == 0, output
    assert lent(gate, holder) == expected
    assert lent(gate, other) == (set(), set())
    assert lent(gate, holder, 4 * 3600 + 2) == (set(), set())
    assert gate.acts[0]["by"] == "security on call"


def test_a_grant_for_later(gate: Gate, key: Path) -> None:
    begins = time.strftime("%Y-%m-%dT%H:%M:00Z", time.gmtime(time.time() + 2 * 3600))
    asked = ("--subject", "ann", "--issuer", "company", *ROLE, "--from", begins, *FOUR_HOURS, *REASON)
    assert command(*asked)[0] == 0
    assert lent(gate, caller("ann")) == (set(), set())
    assert lent(gate, caller("ann"), 3 * 3600)[0] == {"finance-publisher"}
    assert "from 20" in command("list")[1]


def test_what_it_opens_is_said_before_it_is_done(
    gate: Gate, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said_then: list[int] = []
    monkeypatch.setattr("airgate.act_command.confirm", lambda *_: said_then.append(len(gate.rows)))
    plan = command(*TO, "--policy", "reports-by-night", *FOUR_HOURS, *REASON)[1]
    assert said_then == [0]
    for word in (
        "ann (issuer company)",
        "GET on ledger: /v1/reports/**",
        "when: {time: {zone: Europe/Berlin, days: mon-fri, from: 20:00, to: 06:00}}",
        "rate_limit: {limit: 60",
        "{roles: {none: [assistant]}}",
        "in 4 h",
        "the quarter closes tonight",
    ):
        assert word in plan
    assert "finance-reader" not in plan  # the role that the permit asks for isn't asked of the holder
    plan = command("--subject", "ann", "--issuer", "company", *ROLE, *FOUR_HOURS, *REASON)[1]
    assert "finance-data-publish: POST on ledger: /v1/entries" in plan


def test_it_ends_before_its_time_without_a_key(
    gate: Gate, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("--subject", "ann", "--issuer", "company", *ROLE, *FOUR_HOURS, *REASON)
    monkeypatch.delenv("AIRGATE_KEY")
    name = gate.rows[0]["id"]
    assert "airgate grant list" in command("end", "ffffff", "--reason", "done")[1]
    code, output = command("end", name[:8], "--reason", "it is done", "--by", "ann")
    assert code == 0, output
    assert lent(gate, caller("ann")) == (set(), set())
    assert command("list")[1] == "No grant is in force.\n"
    every = command("list", "--all")[1]
    for word in ("ended", "for ann", "it is done", "the quarter closes tonight", "security on call"):
        assert word in every


def test_elsewhere_than_here_it_asks_first(gate: Gate, key: Path) -> None:
    asked = ("--subject", "ann", "--issuer", "company", *ROLE, *FOUR_HOURS, *REASON)
    assert command(*asked, yes=False)[0] == 3
    assert gate.rows == []


INVALID = [
    pytest.param([*ROLE, *FOUR_HOURS, *REASON], "Say to whom", id="nobody"),
    pytest.param([*TO, *FOUR_HOURS, *REASON], "Say what", id="nothing"),
    pytest.param([*TO, *ROLE, *POLICY, *FOUR_HOURS, *REASON], "one of them", id="a role and a permit"),
    pytest.param([*TO, "--to-role", "oncall", *ROLE, *FOUR_HOURS, *REASON], "one too many", id="two holders"),
    pytest.param(
        ["--to-role", "oncall", "--issuer", "company", *ROLE, *FOUR_HOURS, *REASON],
        "--issuer goes with --subject",
        id="the issuer of a role",
    ),
    pytest.param([*TO, *ROLE, *FOUR_HOURS], "Say why", id="no reason"),
    pytest.param([*TO, *ROLE, *REASON], "Say for how long", id="no end"),
    pytest.param([*TO, *ROLE, "--for", "8d", *REASON], "7 days at most", id="eight days"),
    pytest.param([*TO, *ROLE, "--until", "2099-01-01T00:00Z", *REASON], "too long", id="for years"),
    pytest.param(
        [*TO, *ROLE, "--from", "2020-01-01T00:00Z", *FOUR_HOURS, *REASON], "over since 2020", id="long ago"
    ),
    pytest.param([*TO, *ROLE, "--from", "2099-01-01", *FOUR_HOURS, *REASON], "--from: 2099", id="a day"),
    pytest.param(
        [*TO, "--role", "finance-publishr", *FOUR_HOURS, *REASON],
        'did you mean "finance-publisher"?',
        id="a misspelt role",
    ),
    pytest.param(
        ["--to-role", "onkall", *ROLE, *FOUR_HOURS, *REASON], 'did you mean "oncall"?', id="a misspelt holder"
    ),
    pytest.param(
        [*TO, "--policy", "finance-data", *FOUR_HOURS, *REASON], "has no policy", id="an unknown policy"
    ),
    pytest.param(
        [*TO, "--policy", "agents-never-write-ledger", *FOUR_HOURS, *REASON], "is a forbid", id="a forbid"
    ),
    pytest.param(
        ["--subject", "ann", *ROLE, *FOUR_HOURS, *REASON], "--issuer airflow or company", id="of which issuer"
    ),
    pytest.param(
        ["--subject", "ann", "--issuer", "compny", *ROLE, *FOUR_HOURS, *REASON],
        'did you mean "company"?',
        id="a misspelt issuer",
    ),
]


@pytest.mark.parametrize(("arguments", "expected"), INVALID)
def test_what_is_not_clear_is_not_done(gate: Gate, key: Path, arguments: list[str], expected: str) -> None:
    code, output = command(*arguments)
    assert (code, gate.rows, gate.written) == (2, [], [])
    assert expected in output


def test_a_policy_in_shadow_can_not_be_given(gate: Gate, key: Path) -> None:
    code, output = command(*TO, "--policy", "reports-for-all", *FOUR_HOURS, *REASON)
    assert (code, gate.rows) == (2, [])
    assert "is in shadow" in output


def test_a_permit_keeps_all_it_asks_but_whom(gate: Gate, key: Path, compiled: Compiled) -> None:
    """Every permit of the starter policy can be lent, and what stays is said."""
    permits = {
        rule.id
        for rules in compiled.rules.values()
        for rule in rules
        if rule.effect == "permit" and not rule.shadow
    }
    for name in permits:
        code, output = command(*TO, "--policy", name, *FOUR_HOURS, *REASON)
        assert code == 0, output
        assert "opens:" in output


def test_without_a_key_or_with_one_that_may_not(gate: Gate, tmp_path: Path) -> None:
    asked = (*TO, *ROLE, *FOUR_HOURS, *REASON)
    code, output = command(*asked)
    assert (code, gate.rows) == (2, [])
    assert "AIRGATE_KEY" in output
    publishing = SigningKey.new("a pipeline", ["publish"])
    gate.keys["keys"].append(publishing.public)
    code, output = command(*asked, "--key", written(publishing, tmp_path / "p.json"))
    assert (code, gate.rows) == (3, [])
    assert "doesn't let grant" in output
    gate.keys["keys"].clear()
    code, output = command(*asked, "--key", tmp_path / "p.json")
    assert (code, gate.rows) == (3, [])
    assert "trusts no keys yet" in output


def test_what_a_key_says_of_itself_counts_for_nothing(
    gate: Gate, key_file: Path, granting: SigningKey
) -> None:
    """A holder may write another name and another purpose into its file."""
    members: dict[str, Any] = json.loads(granting.text) | {"name": "the CISO", "may": ["publish"]}
    key_file.write_text(json.dumps(members), "utf-8")
    assert command(*TO, *ROLE, *FOUR_HOURS, *REASON, "--key", key_file)[0] == 0
    assert gate.acts[0]["by"] == "security on call"


def test_a_policy_that_can_not_be_read(gate: Gate, key: Path) -> None:
    gate.kv.clear()
    code, output = command("--subject", "ann", *ROLE, *FOUR_HOURS, *REASON)
    assert (code, gate.rows) == (2, [])
    assert "--issuer ID" in output
    code, output = command(*TO, *ROLE, *FOUR_HOURS, *REASON)
    assert code == 0
    assert "nothing was looked up in it" in output
    assert lent(gate, caller("ann"))[0] == {"finance-publisher"}


def test_a_grant_signed_for_another_gate_lends_nothing_here(gate: Gate, key: Path) -> None:
    gate.gate = "airgate"
    command(*TO, *ROLE, *FOUR_HOURS, *REASON)
    gate.gate = "airgate-staging"
    assert lent(gate, caller("ann")) == (set(), set())
    assert "refused: it is for another gate" in command("list")[1]


def test_a_grant_that_was_altered_lends_nothing(gate: Gate, key: Path) -> None:
    command(*TO, *ROLE, *FOUR_HOURS, *REASON)
    gate.database.execute("UPDATE acts SET document = replace(document, '\"ann\"', '\"bob\"')")
    assert lent(gate, caller("bob")) == (set(), set())
    output = command("list")[1]
    assert "refused" in output
    assert "the signature under the name of security on call is wrong" in output


def test_nothing_of_a_grant_is_read_of_a_token_that_is_shut_out(gate: Gate, key: Path) -> None:
    """A revocation stands beside a grant: neither takes the other back."""
    command(*TO, *ROLE, *FOUR_HOURS, *REASON)
    assert run(revoke.app, ["--token", "-", *REASON], token(**CLAIMS, client="x"))[0] == 0
    assert gate.access().revoked(caller(token_id="j1"), time.time()) is not None
    assert lent(gate, caller("ann"))[0] == {"finance-publisher"}
