"""Differences: which calls a change lets through, which it stops, and when it is proved that it lets none through."""

import re
import shlex
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from language import MOMENTS, load, scene
from test_prove import PLAIN as SEED
from test_prove import seed as seed_of
from test_regions import KIND_VALUES, TABLES, as_rule, compares, mapping, token
from typer.testing import CliRunner

from airgate.engine import KINDS, Call, Denied, Mapping, act, identify
from airgate.policy.callers import Callers, Tokens, claims_read
from airgate.policy.changes import Change, Comparison, questions
from airgate.policy.compile import compile_folder
from airgate.policy.diff import diff
from airgate.policy.enforced import Enforced
from airgate.policy.explain import explain
from airgate.policy.search import Part, Unknown

NOW = 1_800_000_000

PAY = "    subject: {issuer: company, roles: {any: [treasurer]}}\n"
NEW = """\
  - id: new
    description: d
    owner: o@example.com
    effect: permit
    subject: {roles: {any: [clerk]}}
    target: {upstream: reports, methods: [%s], paths: [%s]}
"""
FORBID = NEW.replace("permit", "forbid")
OPENED = "base: https://payments.example.com, owner: o@example.com"

EDITS: list[tuple[str, str, str, dict[str, str]]] = [
    # what, the old text, the new text, and what it does by name: + permits more, - permits less, ! opens, = neither
    ("nothing", "", "", {}),
    ("another description", "description: d\n    owner: o@example.com\n    effect: permit\n" + PAY,
     "description: Pays\n    owner: o@example.com\n    effect: permit\n" + PAY, {"pay": "="}),
    ("another role", "{any: [treasurer]}", "{any: [treasurer, clerk]}", {"pay": "+"}),
    ("a role less", "{any: [clerk, treasurer, guest]}", "{any: [clerk, guest]}", {"look": "-"}),
    ("one role for another", "{any: [treasurer]}", "{any: [clerk]}", {"pay": "+-"}),
    ("all roles for any", "{any: [treasurer]}", "{all: [treasurer]}", {"pay": "="}),
    ("another method", "[POST], paths: [/v1/payments]", "[POST, PUT], paths: [/v1/payments]", {"pay": "+"}),
    ("a path more", "paths: [/v1/payments]", "paths: [/v1/payments, /v2/payments]", {"pay": "+"}),
    ("a path that another one holds", 'paths: ["/v1/**"]', 'paths: ["/v1/**", "/v1/x"]', {"look": "="}),
    ("a path written with another name", 'paths: ["/v1/{report}"]', 'paths: ["/v1/{name}"]', {"office-hours": "="}),
    ("an upstream less", "[payments, reports], methods: [GET]", "[payments], methods: [GET]", {"look": "-"}),
    ("longer hours", 'to: "18:00"', 'to: "18:01"', {"office-hours": "+"}),
    ("other hours", 'from: "08:00", to: "18:00"', 'from: "09:00", to: "19:00"', {"office-hours": "+-"}),
    ("a wider network", "198.51.100.0/24", "198.51.0.0/16", {"office-hours": "+"}),
    ("a narrower network", "198.51.100.0/24", "198.51.100.0/25", {"office-hours": "-"}),
    ("a forbid of less", '["/v1/secret*", "/v1/secret*/**"]', '["/v1/secret*"]', {"no-secrets": "+"}),
    ("a forbid of more", '["/v1/secret*", "/v1/secret*/**"]', '["/v1/s*", "/v1/s*/**"]', {"no-secrets": "-"}),
    ("a forbid by what is attested: a header that was believed is not any more",
     'workload: {dag: ["test_*"]}', 'workload: {dag: ["test_*"], attested: true}', {"no-tests": "-"}),
    ("a forbid of what nobody may do", "methods: [POST], paths: [\"/**\"]", "methods: [POST, DELETE], paths: [\"/**\"]",
     {"no-tests": "="}),
    ("a forbid in shadow", "effect: forbid\n    subject: {roles: {none: [treasurer]}}",
     "effect: forbid\n    mode: shadow\n    subject: {roles: {none: [treasurer]}}", {"no-secrets": "+"}),
    ("a forbid that was in shadow",
     "    mode: shadow\n", "", {"nothing-at-all": "-"}),
    ("a permit that another one makes needless", "policies:\n", "policies:\n" + NEW % ("GET", "/v1/x"), {"new": "="}),
    ("a permit of something new", "policies:\n", "policies:\n" + NEW % ("GET", "/v2/x"), {"new": "+"}),
    ("a permit of what is forbidden, but not to who has a second role",
     "policies:\n", "policies:\n" + NEW % ("PUT", "/v1/secret"), {"new": "+"}),
    ("a permit of what is forbidden, and a role that keeps the second one out", "policies:\n",
     "policies:\n" + NEW.replace("{any: [clerk]}", "{any: [clerk], none: [treasurer]}") % ("PUT", "/v1/secret"),
     {"new": "="}),
    ("a credential that excludes another one", 'paths: ["/v1/**"]}\n',
     'paths: ["/v1/**"]}\n    obligations: {credential: a}\n' + NEW % ("GET", "/v1/x")
     + "    obligations: {credential: b}\n", {"look": "-", "new": "="}),
    ("a forbid of something", "policies:\n", "policies:\n" + FORBID % ("GET", "/v1/x"), {"new": "-"}),
    ("a forbid of nothing that is permitted", "policies:\n", "policies:\n" + FORBID % ("PUT", "/v2/x"), {"new": "="}),
    ("a role for more", "claim: groups, value: clerks}", "claim: groups, value: clerks}, "
     "{issuer: company, claim: groups, value: temps}", {"clerk": "!", "look": "+", "office-hours": "+"}),
    ("a role for others", "claim: groups, value: clerks}", "claim: groups, value: staff}",
     {"clerk": "!", "look": "+-", "office-hours": "+-"}),
    ("a role that closes, for fewer: what it had closed opens",
     "{issuer: company, claim: groups, value: treasury}, {issuer: company, subject: svc-close}",
     "{issuer: company, claim: groups, value: treasury}",
     {"treasurer": "=", "pay": "-", "look": "-", "no-secrets": "-"}),
    ("another kind for those who don't say", "kind: {claim: kind}", "kind: {claim: kind, default: human}",
     {"company": "=", "no-tests": "+"}),
    ("context that is not attested any more: a header counts in its place",
     "attested: {dag: dag}", "attested: {task: dag}", {"company": "=", "no-tests": "+-"}),
    ("a token bound to a key", PAY, PAY.replace("company,", "company, dpop: true,"), {"pay": "-"}),
    ("whoever acts itself", PAY, PAY.replace("company,", "company, delegated: false,"), {"pay": "-"}),
    ("a role by scope", "claim: groups, value: clerks}", "claim: groups, value: clerks}, "
     "{issuer: company, scope: clerk}", {"clerk": "!", "look": "+", "office-hours": "+"}),
    ("a role by kind", "claim: groups, value: clerks}", "claim: groups, value: clerks}, "
     "{issuer: company, kind: human}", {"clerk": "!", "look": "+", "office-hours": "+"}),
    ("tokens have to be bound to a key", "    algorithms:", "    dpop: required\n    algorithms:", {"company": "="}),
    ("proofs are remembered for all isolates", "    algorithms:", "    dpop_replay: strict\n    algorithms:",
     {"company": "="}),
    ("kinds by other words", "{claim: kind}", "{claim: kind, values: {app: workload, human: human, bot: agent}}",
     {"company": "!"}),
    ("fewer words for kinds", "{claim: kind}", "{claim: kind, values: {human: human, agent: agent}}", {"company": "="}),
    ("another claim for kinds", "{claim: kind}", "{claim: typ}", {"company": "!", "no-tests": "+-"}),
    ("no claim for kinds", "{claim: kind}", "{default: workload}", {"company": "!", "no-tests": "-"}),
    ("roles have to be named", "    algorithms:", "    role_tag: required\n    algorithms:", {"company": "="}),
    ("an audience more", "[https://gate.example.com]\n", "[https://gate.example.com, https://x.example.com]\n",
     {"company": "!"}),
    ("shorter tokens", "    algorithms:", "    max_lifetime: 30m\n    algorithms:", {"company": "="}),
    ("longer tokens", "    algorithms:", "    max_lifetime: 2h\n    algorithms:", {"company": "!"}),
    ("an upstream elsewhere", "https://payments.example.com", "https://pay.example.com", {"payments": "!"}),
    ("slashes that are data, where only forbids and ** are about them", OPENED, OPENED + ", encoded_slash: segment",
     {"payments": "!", "look": "+"}),
    ("empty segments", OPENED, OPENED + ", empty_segments: true", {"payments": "!", "look": "+"}),
]  # fmt: skip


def seed(folder: Path, text: str = SEED) -> Path:
    return seed_of(folder, text)


def compared(folder: Path, old: str, new: str) -> list[Change]:
    before, after = (
        compile_folder(seed(folder / name, text), now=NOW) for name, text in (("old", old), ("new", new))
    )
    return Comparison(before, after, NOW).changes()


def effects(change: Change) -> str:
    signs = {
        "+": change.gained is not None,
        "-": change.lost is not None,
        "!": bool(change.opens),
        "?": bool(change.unknown),
    }
    return "".join(sign for sign, holds in signs.items() if holds) or "="


@pytest.mark.parametrize(("old", "new", "wanted"), [pytest.param(*row[1:], id=row[0]) for row in EDITS])
def test_a_change(old: str, new: str, wanted: dict[str, str], tmp_path: Path) -> None:
    assert old in SEED
    assert {
        change.name: effects(change) for change in compared(tmp_path, SEED, SEED.replace(old, new, 1))
    } == wanted


BACK = {"+": "-", "-": "+"}


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [pytest.param(*row[1:], id=row[0]) for row in EDITS if not set("".join(row[3].values())) & set("!?")],
)
def test_a_change_taken_back_does_the_opposite(
    old: str, new: str, wanted: dict[str, str], tmp_path: Path
) -> None:
    found = {
        change.name: set(effects(change)) for change in compared(tmp_path, SEED.replace(old, new, 1), SEED)
    }
    opposite = {name: {BACK.get(sign, sign) for sign in signs} for name, signs in wanted.items()}
    assert {name: signs - {"!"} or {"="} for name, signs in found.items()} == opposite


@pytest.mark.parametrize("usual", ["", "dpop_replay: isolate\n    "], ids=["left out", "said"])
def test_proofs_that_only_one_isolate_remembers_are_new_access(usual: str, tmp_path: Path) -> None:
    strict, isolate = (
        SEED.replace("algorithms:", f"{said}algorithms:", 1) for said in ("dpop_replay: strict\n    ", usual)
    )
    [change] = compared(tmp_path, strict, isolate)
    assert change.opens == ["dpop_replay: a proof that was used at one isolate was refused at all others"]
    assert change.gained is change.lost is None


OBLIGATIONS = [
    ("asked for first", "", "{require: {justification: true}}", False),
    ("asked for no more", "{require: {justification: true}}", "", True),
    ("asked for in another way", "{max_body: 1MB}", "{max_body: 2MB}", True),
    ("asked for beside another", "{max_body: 1MB}", "{max_body: 1MB, require: {justification: true}}", False),
]


@pytest.mark.parametrize(
    ("old", "new", "opens"), [pytest.param(*row[1:], id=f"an obligation {row[0]}") for row in OBLIGATIONS]
)
def test_an_obligation(old: str, new: str, opens: bool, tmp_path: Path) -> None:
    texts = [SEED.replace(PAY, PAY + (f"    obligations: {said}\n" if said else "")) for said in (old, new)]
    [change] = compared(tmp_path, *texts)
    assert effects(change) == ("!" if opens else "=")


EXCHANGE = """\
  - id: exchange
    description: d
    owner: o@example.com
    effect: permit
    subject: {roles: {any: [clerk]}}
    target: {upstream: "-", methods: [POST], paths: [/token]}
    exchange: %s
"""
ALL_MAY = EXCHANGE.replace("id: exchange", "id: all-may").replace(
    "    subject: {roles: {any: [clerk]}}", "    subject: {issuer: company}"
)
SAME = "{upstreams: [reports], roles: [clerk, guest], lifetime: 2m, bound: true}"

# how it is, what is said of it
EXCHANGES: list[tuple[str, str, list[str]]] = [
    ("nothing", SAME, []),
    ("in another order", "{upstreams: reports, roles: [guest, clerk], lifetime: 120s, bound: true}", []),
    ("less", "{upstreams: [reports], roles: [clerk], lifetime: 1m, bound: true}", []),
    (
        "an upstream more",
        SAME.replace("[reports]", "[payments, reports]"),
        ["exchange.upstreams: tokens for [payments] were not to be had"],
    ),
    (
        "a role more",
        SAME.replace("[clerk, guest]", "[clerk, guest, treasurer]"),
        ["exchange.roles: tokens with [treasurer] were not to be had"],
    ),
    (
        "all roles",
        SAME.replace("roles: [clerk, guest], ", ""),
        ["exchange.roles: tokens with [all others] were not to be had"],
    ),
    (
        "for longer",
        SAME.replace("2m", "3m"),
        ["exchange.lifetime: tokens were good for 120 seconds, and are for 180"],
    ),
    (
        "for longer, as it isn't said",
        SAME.replace(", lifetime: 2m", ""),
        ["exchange.lifetime: tokens were good for 120 seconds, and are for 300"],
    ),
    (
        "no key",
        SAME.replace(", bound: true", ""),
        ["exchange.bound: tokens were bound to a key, and needn't be any more"],
    ),
]


@pytest.mark.parametrize(("now", "opens"), [pytest.param(*row[1:], id=row[0]) for row in EXCHANGES])
def test_what_may_be_exchanged(now: str, opens: list[str], tmp_path: Path) -> None:
    changes = compared(tmp_path, SEED + EXCHANGE % SAME, SEED + EXCHANGE % now)
    assert [change.opens for change in changes if change.name == "exchange"] == (
        [opens] if now != SAME else []
    )


def test_an_exchange_for_more_callers_is_new_access_though_their_call_was_permitted(tmp_path: Path) -> None:
    """Another permit lets everybody call, for fewer upstreams."""
    before = SEED + ALL_MAY % "{upstreams: payments}" + EXCHANGE % SAME
    wider = before.replace(
        'any: [clerk]}}\n    target: {upstream: "-"', 'any: [clerk, guest]}}\n    target: {upstream: "-"'
    )
    assert wider != before
    [change] = compared(tmp_path, before, wider)
    assert change.opens == ["exchange: its callers may get tokens for [reports]"]


def test_a_new_exchange_is_new_access_and_one_in_shadow_is_none(tmp_path: Path) -> None:
    before = SEED + ALL_MAY % "{upstreams: payments}"
    [change] = compared(tmp_path, before, before + EXCHANGE % SAME)
    assert change.opens == ["exchange: its callers may get tokens for [reports]"]
    assert change.gained is None
    shadow = (EXCHANGE % SAME).replace("effect: permit", "effect: permit\n    mode: shadow")
    [change] = compared(tmp_path / "shadow", before, before + shadow)
    assert change.opens == []


def test_an_exchange_that_held_others_back_opens_when_it_is_gone(tmp_path: Path) -> None:
    """Of two permits for one upstream the strictest of each counts."""
    wide = ALL_MAY % "{upstreams: [reports, payments]}"
    before = SEED + wide + EXCHANGE % SAME
    released = ["exchange: it holds back nothing any more of tokens for [reports]"]
    for number, after in enumerate(
        (
            SEED + wide,
            SEED + wide + EXCHANGE % SAME.replace("[reports]", "[payments]"),
            SEED + wide + (EXCHANGE % SAME).replace("effect: permit", "effect: permit\n    mode: shadow"),
        )
    ):
        [change] = compared(tmp_path / str(number), before, after)
        assert change.opens[-1:] == released
    [change] = compared(tmp_path / "alone", SEED + EXCHANGE % SAME, SEED)
    assert change.opens == []


PLAIN = "a: {kind: header, secret: UPSTREAM_A}"

# what, how the upstream was, how it is, what is said of it
SETTINGS: list[tuple[str, str, str, list[str]]] = [
    ("nothing", "log_path: true", "log_path: true", []),
    ("a longer timeout", "timeout: 1m", "timeout: 2m", []),
    ("another way", "via: VIA_A", "via: VIA_B", ["via: calls, and the secrets that they carry, go another way"]),
    (
        "no special way",
        "via: VIA_A",
        "log_path: true",
        ["via: calls, and the secrets that they carry, go another way"],
    ),
    (
        "a private one",
        "log_path: false",
        "private: true",
        ["private: it may be an address inside of a private network"],
    ),
    ("a public one", "private: true", "private: false", []),
    ("a host more", "hosts: [a.example.com]", "hosts: [b.example.com, A.example.com]", [
        "hosts: calls to [b.example.com] are this upstream's"]),
    ("a host less", "hosts: [a.example.com, b.example.com]", "hosts: [a.example.com]", []),
    (
        "slashes that are data",
        "log_path: false",
        "encoded_slash: segment",
        ["encoded_slash: calls with an encoded slash were refused"],
    ),
    ("none any more", "encoded_slash: segment", "encoded_slash: refuse", []),
    ("headers for all", "request_headers: [accept]", "log_path: false", [
        "request_headers: [all others] of callers pass"]),
    ("a header more", "request_headers: [accept]", "request_headers: [Accept, x-*]", [
        "request_headers: [x-*] of callers pass"]),
    ("fewer headers", "log_path: false", "request_headers: [accept]", []),
    ("a page", "log_path: false", "cors: {origins: [https://a.example.com]}", [
        "cors: pages of [https://a.example.com] may read answers"]),
    ("an assertion", "log_path: false", "assertion: true", []),
    ("no assertion any more", "assertion: true", "assertion: false", [
        "assertion: calls don't say any more who calls, so the upstream can't tell"]),
    ("a first credential", "log_path: false", f"credentials: {{{PLAIN}}}", [
        "credential: calls carry header (secret: UPSTREAM_A, header: authorization, format: Bearer {secret}), "
        "and carried none"]),
    ("another credential", f"credentials: {{{PLAIN}}}", "credentials: {b: {kind: basic, secret: UPSTREAM_B}}", [
        "credential: calls carry basic (secret: UPSTREAM_B), and carried header (secret: UPSTREAM_A, header: "
        "authorization, format: Bearer {secret})"]),
    ("the same, said in full", f"credentials: {{{PLAIN}}}", "credential: a, credentials: {a: {kind: header, "
     "secret: UPSTREAM_A, header: Authorization}}", []),
    ("none any more, by default", f"credentials: {{{PLAIN}}}", f"credentials: {{{PLAIN}, b: {{kind: caller}}}}", []),
    ("another secret of one that policies name", f"credentials: {{{PLAIN}, b: {{kind: caller}}}}",
     "credentials: {a: {kind: basic, secret: UPSTREAM_A}, b: {kind: caller}}", [
        "credentials.a: calls carry basic (secret: UPSTREAM_A), and carried header (secret: UPSTREAM_A, header: "
        "authorization, format: Bearer {secret})"]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "said"), [pytest.param(*row[1:], id=row[0]) for row in SETTINGS])
def test_an_upstreams_settings(old: str, new: str, said: list[str], tmp_path: Path) -> None:
    upstream = "upstreams:\n  crm: {base: https://crm.example.com, owner: o, %s}\n"
    texts = [SEED.replace("upstreams:\n", upstream % each, 1) for each in (old, new)]
    changes = {change.name: change for change in compared(tmp_path, *texts)}
    assert changes.keys() == ({"crm"} if old != new else set())
    assert [line for change in changes.values() for line in change.opens] == said
    assert all(change.gained is change.lost is None for change in changes.values())


def test_an_upstream_that_is_elsewhere_is_pointed_out(app: typer.Typer, tmp_path: Path) -> None:
    old, new = folders(tmp_path, SEED.replace("https://payments.example.com", "https://pay.example.com"))
    code, output = run(app, "diff", old, new)
    assert code == 1
    assert "base: https://payments.example.com → https://pay.example.com" in output
    assert "+ base: calls, and the secrets that they carry, go to another place" in output
    assert "New access by 1 change beside the conditions of policies (+)." in output


def test_a_call_with_an_encoded_slash_is_shown_as_it_is_sent(app: typer.Typer, tmp_path: Path) -> None:
    old, new = folders(tmp_path, SEED.replace(OPENED, OPENED + ", encoded_slash: segment", 1))
    _, output = run(app, "diff", old, new)
    command = next(line for line in output.splitlines() if "policy explain" in line)
    assert "%2F" in command
    assert run(app, *shlex.split(command)[2:])[0] == 0
    assert run(app, *shlex.split(command.replace(new, old))[2:])[0] == 1


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    made.command("diff")(diff)
    made.command("explain")(explain)
    return made


def run(app: typer.Typer, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def folders(folder: Path, new: str) -> tuple[str, str]:
    return str(seed(folder / "old")), str(seed(folder / "new", new))


def test_what_a_change_lets_through_is_shown_and_repeated_by_explain(
    app: typer.Typer, tmp_path: Path
) -> None:
    old, new = folders(tmp_path, SEED.replace("{any: [treasurer]}", "{any: [treasurer, clerk]}", 1))
    code, output = run(app, "diff", old, new)
    assert code == 1
    lines = [line.strip() for line in output.splitlines()]
    assert lines[2:9] == [
        "changed  policy pay",
        "subject.roles.any: [treasurer] → [treasurer, clerk]",
        "+ permits more: POST /payments/v1/payments",
        "by somebody of issuer company, workload; roles: clerk",
        "dag: other (attested)",
        "was denied, for no policy permits it; is permitted by pay",
        "airgate policy explain POST /payments/v1/payments --issuer company --role clerk "
        f"--dag other --attested --seed {new}",
    ]
    assert lines[-1] == "New access: 1 policy lets calls through that were denied."
    assert run(app, *shlex.split(lines[8])[2:])[0] == 0
    assert run(app, *shlex.split(lines[8].replace(new, old))[2:])[0] == 1


def test_a_caller_who_is_not_the_same_any_more_is_shown_by_its_token(
    app: typer.Typer, tmp_path: Path
) -> None:
    """By roles, `explain` could take another of the groups that grant them."""
    old, new = folders(
        tmp_path,
        SEED.replace(
            "claim: groups, value: clerks}",
            "claim: groups, value: clerks}, {issuer: company, claim: groups, value: temps}",
        ),
    )
    code, output = run(app, "diff", old, new)
    assert code == 1
    assert 'token: {"groups": ["temps"]}' in output
    assert "the words are the same; roles or issuers give them another meaning" in output
    assert "+ granted to {issuer: company, claim: groups, value: temps}: new access" in output
    for command in re.findall(r"airgate policy (explain .*)", output):
        assert run(app, *shlex.split(command))[0] == 0
        assert run(app, *shlex.split(command.replace(new, old)))[0] == 1


def test_no_new_access_is_said_when_it_is_proved(app: typer.Typer, tmp_path: Path) -> None:
    old, new = folders(tmp_path, SEED.replace("{any: [clerk, treasurer, guest]}", "{any: [guest]}"))
    code, output = run(app, "diff", old, new)
    assert code == 0
    assert output.splitlines()[-1] == (
        "No new access: proved for every call there could be. Less access: by 1 policy."
    )


def test_what_cannot_be_told_is_no_proof(app: typer.Typer, tmp_path: Path) -> None:
    text = SEED.replace(PAY, PAY + "    when: {equals: [subject.kind, subject.issuer]}\n")
    old, new = (
        str(seed(tmp_path / "old", text)),
        str(
            seed(
                tmp_path / "new",
                text.replace("[POST], paths: [/v1/payments]", "[PUT], paths: [/v1/payments]"),
            )
        ),
    )
    code, output = run(app, "diff", old, new)
    assert code == 1
    assert "? whether it permits more is not known: no two values were found" in output
    assert output.splitlines()[-1].startswith("Not known of 1 policy")


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits of a folder `policy`: pay is for clerks in the second one, and for nobody in the folder."""
    git(tmp_path, "init", "-q")
    for text in (SEED, SEED.replace("{any: [treasurer]}", "{any: [treasurer, clerk]}", 1)):
        seed(tmp_path / "policy", text)
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-q", "-m", "policy")
    seed(tmp_path / "policy", SEED.replace("- id: pay\n", "- id: pay\n    mode: shadow\n"))
    return tmp_path / "policy"


def test_revisions_are_compared(repository: Path, app: typer.Typer) -> None:
    policy = str(repository)
    assert run(app, "diff", "HEAD~1", policy)[0] == 0
    assert run(app, "diff", "HEAD", policy)[0] == 0
    code, output = run(app, "diff", policy, "HEAD")
    assert code == 1
    assert "+ permits more: POST /payments/v1/payments" in output
    assert output.splitlines()[0] == f"{policy} → HEAD:{policy}"
    assert "airgate policy explain" not in output  # there is no folder to explain it by


def test_a_revision_that_is_invalid_is_named_with_its_files(repository: Path, app: typer.Typer) -> None:
    seed(repository, SEED.replace("effect: permit", "efect: permit", 1))
    git(repository, "commit", "-q", "-a", "-m", "broken")
    seed(repository)
    code, output = run(app, "diff", "HEAD", str(repository))
    assert code == 2
    assert f'HEAD:{repository}/seed.yaml:29:5: efect: "efect": no such key here' in output


@pytest.mark.parametrize(
    ("old", "words"),
    [
        pytest.param("nowhere", "neither a folder nor a git revision", id="a revision that isn't there"),
        pytest.param("--output=x", "neither a folder nor a git revision", id="an option of git's"),
        pytest.param("HEAD~9", "neither a folder nor a git revision", id="before the first commit"),
    ],
)
def test_what_is_no_policy_set(old: str, words: str, repository: Path, app: typer.Typer) -> None:
    code, output = run(app, "diff", "--", old, str(repository))
    assert code == 2
    assert words in output


def test_a_folder_in_no_repository(tmp_path: Path, app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    code, output = run(app, "diff", "HEAD", str(seed(tmp_path / "policy")))
    assert code == 2
    assert "is in no git repository" in output


# Policy sets, issuers and calls that nobody chose.


def changed(random: Random, one: Mapping, claims: set[tuple[str, ...]]) -> Mapping:
    """The issuer with other grants, another kind, or other context that is attested; or as it is."""
    which = random.random()
    if which < 0.3:
        return one
    if which < 0.5:
        return one._replace(attested=(("dag", ("other",)),))
    if which < 0.7:
        return one._replace(
            kind_claim=random.choice([None, ("kind",), ("typ",)]),
            kind_default=random.choice(KINDS),
            kind_values=random.choice(KIND_VALUES),
        )
    return mapping(random, one.id, claims)


def callers(one: dict[str, Mapping], other: dict[str, Mapping], bound: set[str]) -> Callers:
    """Callers of one policy set, to be compared with the other's. `bound`: whose tokens have to be bound to a key."""
    return Callers(
        {
            name: Tokens(
                issuer,
                f"https://{name}.example.com",
                Tokens(other.get(name, issuer)).groups,
                name in bound,
            )
            for name, issuer in one.items()
        }
    )


def enforced(upstream: str, policies: list[dict[str, Any]], who: Callers) -> Enforced:
    parts: dict[str, list[Part]] = {"permit": [], "forbid": []}
    for policy in policies:
        parts[policy["effect"]].append(Part(as_rule(policy), upstream, TABLES, who))
    compiled: Any = None  # questions are asked of the parts alone
    return Enforced(compiled, who, {upstream: parts["permit"]}, {upstream: parts["forbid"]})


@given(st.binary(min_size=160, max_size=160), st.integers(0, 2**32))
@settings(max_examples=250)
def test_where_no_new_access_is_proved_no_call_gets_any(text: bytes, number: int) -> None:
    random, made = Random(number), scene(text)
    upstream = made.upstream
    old = [policy | {"mode": "enforce"} for policy in made.policies]
    new = [policy for policy in old if random.random() < 0.8] + [made.more | {"mode": "enforce"}]
    claims = claims_read(map(as_rule, old + new))
    before = {name: mapping(random, name, claims) for name in ("company", "partner")}
    after = {name: changed(random, issuer, claims) for name, issuer in before.items()}
    # That roles need not be named any more is new access by itself, and said so.
    after = {
        name: issuer._replace(must_tag=before[name].must_tag or issuer.must_tag)
        for name, issuer in after.items()
    }
    if random.random() < 0.1:
        del before["partner"]
    # That tokens need not be bound any more is new access by itself, and said so.
    binding = {name for name in after if random.random() < 0.3}
    sides = (
        callers(before, after, {name for name in binding if random.random() < 0.5}),
        callers(after, before, binding),
    )
    asked = questions(enforced(upstream, old, sides[0]), enforced(upstream, new, sides[1]), gain=True)
    for found in (found for question in asked for found in question.found(0)):
        if isinstance(found, Unknown):
            assert compares(*old, *new) or before != after, found.why
            return
        calls = [found.call(side) for side in sides]
        assert calls[1] is not None
        assert load(upstream, *new).decide(calls[1]).permit
        assert calls[0] is None or not load(upstream, *old).decide(calls[0]).permit
        return
    for _ in range(10):
        said, headers = token(random)
        said |= {name: random.choice(["x", *KINDS]) for name in ("typ", "other") if random.random() < 0.2}
        issuer, subject = random.choice(["company", "partner"]), random.choice("xyz")
        now = random.choice(MOMENTS)
        try:
            who = [
                act(identify(said, subject, side[issuer]), headers) if issuer in side else None
                for side in (before, after)
            ]
        except Denied:
            continue
        permitted = [
            caller is not None
            and (caller.identity.jkt is not None or not side.tokens[issuer].bound)
            and (caller.tagged is not None or not caller.identity.must_tag)
            and load(upstream, *policies)
            .decide(Call(caller, made.target, now, made.client, made.country))
            .permit
            for policies, caller, side in zip((old, new), who, sides, strict=True)
        ]
        assert permitted != [False, True]
