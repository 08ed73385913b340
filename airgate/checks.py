"""What must be so before a gate is deployed, and while it runs: one check for each, and what to do where it isn't.

A check that couldn't be made says so: it is never taken for one that went well.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import httpx

from airgate.account import Account, migrations, refused, why
from airgate.configuration import (
    DATABASE,
    NAMESPACE,
    PRODUCTION,
    Configuration,
    environments,
    read_configuration,
)
from airgate.engine import AUDIT_KEY, BUNDLE, MAY_GRANT, MAY_PUBLISH, load_bundle, pinned, read_trusted
from airgate.environment import EnvironmentMissing, open_environment
from airgate.node import PROJECT, NodeMissing, WranglerFailed, node, wrangler
from airgate.policy.check import counted, summary
from airgate.policy.compile import Compiled, compile_folder
from airgate.policy.findings import findings
from airgate.policy.index import FORMAT
from airgate.policy.ledger import Ledger, read_ledger
from airgate.policy.limits import LADDER
from airgate.policy.seed import SeedError, label
from airgate.version import Version
from assertion import SECRET as ASSERTION_KEYS
from view import read_ages

AT_ONCE = 4  # wrangler processes side by side
NO_DATABASE = "[code: 7404]"  # Cloudflare's answer for an id that isn't there
PATIENCE = 10.0  # seconds that the gate's address has to answer

NOT_LOGGED_IN = "Set CLOUDFLARE_API_TOKEN, or run `npx wrangler login`."
PERMISSIONS = (
    "Make a token with the permissions Workers Scripts: Edit, Workers KV Storage: Edit, D1: Edit and Account Settings: "
    "Read, and set CLOUDFLARE_API_TOKEN to it."
)


class Outcome(StrEnum):
    """What came of a check. TO_DO: a failure that a deployment is about to put right, or can go on without."""

    OK = "ok"
    TO_DO = "to do"
    WARNING = "warning"
    UNKNOWN = "not checked"
    FAILED = "failed"


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    outcome: Outcome
    said: str
    next: str = ""  # what to do
    passable: bool = False  # a deployment sets it right, or can go on without it


@dataclass
class Facts:
    """What the checks have learnt, for `airgate deploy`. None: it couldn't be learnt."""

    compiled: Compiled | None = None
    namespaces: Mapping[str, str] | None = None  # titles by id
    databases: Mapping[str, str] | None = None  # names by id; asked for only while wrangler.toml has no id
    pending: list[str] | None = None  # migrations that the database hasn't had
    lacking: list[str] = field(default_factory=list)  # secrets
    ledger: Ledger | None = None


class _Reader(NamedTuple):
    """A check that asks somebody else, and what it is called when nobody answers."""

    name: str
    look: Callable[[], Iterator[Check]]
    passable: bool = False


class Examination:
    """All checks of one environment. `checks` has them in the order in which they are told."""

    def __init__(self, configuration: Configuration, seed: Path) -> None:
        self.configuration = configuration
        self.facts = Facts()
        self.checks: list[Check] = []
        self._account = Account(configuration)
        self._seed = seed

    def run(self) -> list[Check]:
        """Look at everything. Takes seconds: wrangler is started once for each question."""
        self.checks = [*self._tools(), *self._settings(), *self._variables(), *self._policy()]
        if any(check.name == "wrangler" and check.outcome is Outcome.FAILED for check in self.checks):
            return self.checks
        readers = [
            _Reader("account", self._login),
            _Reader(f"KV {NAMESPACE}", self._namespace),
            _Reader(f"D1 {DATABASE}", self._database),
            _Reader("secrets", self._secrets, passable=True),
            _Reader("ledger", self._in_force),
            _Reader("gate", self._gate, passable=True),
        ]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for found in pool.map(_looked, readers):
                self.checks += found
        return self.checks

    # On this machine

    def _tools(self) -> Iterator[Check]:
        try:
            node()
            wrangler([])
        except NodeMissing as error:
            yield Check("wrangler", Outcome.FAILED, "It isn't installed.", str(error))
            return
        package = json.loads((PROJECT / "node_modules" / "wrangler" / "package.json").read_text("utf-8"))
        yield Check("wrangler", Outcome.OK, f"wrangler {package['version']}, with a Node of its own")

    def _settings(self) -> Iterator[Check]:
        this = self.configuration
        name = this.file.name
        if this.database is None:
            yield Check(
                name,
                Outcome.FAILED,
                f"At {this.table} of {this.label} nothing is bound to {DATABASE}.",
                "Copy [[d1_databases]] from the wrangler.toml that came with this version.",
            )
        limits = {f"LIMIT_{limit}_PER_{period}S" for period, steps in LADDER.items() for limit in steps}
        if lacking := sorted(limits - this.bindings):
            yield Check(
                name,
                Outcome.FAILED,
                f"Rate limits that policy may name have no binding: {', '.join(lacking)}.",
                "Copy [[ratelimits]] from the wrangler.toml that came with this version.",
            )
        others = [read_configuration(each) for each in environments() if each != this.env]
        shared = [
            f"{what} {value} is also that of {other.env}"
            for other in others
            for what, value, theirs in (
                ("GATE", this.gate, other.gate),
                ("the Worker's name", this.worker, other.worker),
                ("the KV namespace", this.namespace, other.namespace),
                ("the database", this.database_id, other.database_id),
            )
            if value is not None and value == theirs
        ]
        shared += [
            f"rate limits count where {other.env} does too: {', '.join(sorted(same))}"
            for other in others
            if (same := this.counters & other.counters)
        ]
        if shared:
            yield Check(
                name,
                Outcome.FAILED,
                "; ".join(shared) + ".",
                "Give each environment its own: what is signed for one, or stored there, must mean nothing to another.",
            )
        if this.database is not None and not lacking and not shared:
            yield Check(name, Outcome.OK, f"Worker {this.worker}, gate {this.gate}")

    def _variables(self) -> Iterator[Check]:
        this = self.configuration
        odd = sorted(name for name, value in this.vars.items() if not isinstance(value, str))
        if odd:
            yield Check(
                "variables",
                Outcome.FAILED,
                f"The gate reads text, and {', '.join(odd)} is none.",
                'Put the values in quotes, such as VIEW_WAIT = "10".',
            )
            return
        if not this.vars.get("GATE"):
            yield Check(
                "GATE", Outcome.FAILED, "The gate has no name.", f"Write GATE under the vars of {this.table}."
            )
        yield self._trusted_keys()
        try:
            ages = read_ages(self._variable)
        except ValueError as error:
            yield Check("variables", Outcome.FAILED, f"{error}.", "Correct them, or leave them out.")
        else:
            yield Check("variables", Outcome.OK, f"revocations count within {ages.wait:g} s at the latest")

    def _variable(self, name: str) -> str:
        return str(self.configuration.vars[name])

    def _trusted_keys(self) -> Check:
        name = "TRUSTED_KEYS"
        if not self.configuration.trusted_keys.strip():
            return Check(
                name,
                Outcome.WARNING,
                "Nobody is trusted: what is in force need not be signed, and nobody can grant access.",
                "Make a key with `airgate keys new`, and print the variable with `airgate keys trust`.",
            )
        try:
            trusted = read_trusted(self.configuration.trusted_keys)
        except ValueError as error:
            return Check(
                name, Outcome.FAILED, f"The gate could not read it: {error}.", "See `airgate keys trust`."
            )
        publishers, granters = (
            sorted({each.name for each in trusted.values() if right in each.may})
            for right in (MAY_PUBLISH, MAY_GRANT)
        )
        if not publishers:
            return Check(
                name,
                Outcome.FAILED,
                f"None of {counted(len(trusted), 'key')} may publish, so nothing could come into force any more.",
                'Add one whose `may` says "publish".',
            )
        grant = f"{', '.join(granters)} may grant" if granters else "nobody may grant"
        return Check(name, Outcome.OK, f"{', '.join(publishers)} may publish; {grant}")

    def _policy(self) -> Iterator[Check]:
        look = f"Run `airgate policy check {label(self._seed)}`."
        try:
            compiled = compile_folder(self._seed)
        except SeedError as error:
            said = f"{label(self._seed)} is invalid: {counted(len(error.problems), 'problem')}."
            yield Check("policy", Outcome.FAILED, said, look, passable=True)
            return
        self.facts.compiled = compiled
        serious = [finding for finding in findings(compiled) if not finding.note]
        if serious:
            yield Check("policy", Outcome.WARNING, f"{counted(len(serious), 'finding')}.", look)
        else:
            yield Check("policy", Outcome.OK, summary(compiled.seed))
        vias = {each["via"] for each in compiled.bundle["upstreams"].values() if each.get("via")}
        if lacking := sorted(vias - self.configuration.bindings):
            yield Check(
                "bindings",
                Outcome.FAILED,
                f"Upstreams are reached by way of {', '.join(lacking)}, which nothing is bound to.",
                f"Write [[vpc_services]] or [[services]] at {self.configuration.table} of {self.configuration.label}.",
                passable=True,
            )

    # In the account

    def _login(self) -> Iterator[Check]:
        try:
            names = self._account.names()
        except WranglerFailed as error:
            if not refused(error):
                raise
            yield Check("account", Outcome.FAILED, "Cloudflare turns the login down.", PERMISSIONS)
            return
        if not names:
            yield Check("account", Outcome.FAILED, "wrangler isn't logged in.", NOT_LOGGED_IN)
        else:
            yield Check("account", Outcome.OK, ", ".join(names))

    def _namespace(self) -> Iterator[Check]:
        name, this = f"KV {NAMESPACE}", self.configuration
        self.facts.namespaces = there = self._account.namespaces()
        if this.namespace is None:
            yield _not_created(name, this)
        elif this.namespace not in there:
            yield _foreign(name, this.namespace, this)
        else:
            yield Check(name, Outcome.OK, f"{there[this.namespace]}, {this.namespace}")

    def _database(self) -> Iterator[Check]:
        name, this = f"D1 {DATABASE}", self.configuration
        if this.database_id is None:
            self.facts.databases = self._account.databases()
            yield _not_created(name, this)
            return
        try:
            had = self._account.migrated()
        except WranglerFailed as error:
            if NO_DATABASE not in str(error):
                raise
            yield _foreign(name, this.database_id, this)
            return
        self.facts.pending = [each for each in migrations(this.migrations) if each not in had]
        if self.facts.pending:
            yield Check(
                name,
                Outcome.FAILED,
                f"{this.database} lacks the migrations {', '.join(self.facts.pending)}.",
                f"`airgate deploy {this.option()}` applies them.",
                passable=True,
            )
        else:
            yield Check(name, Outcome.OK, f"{this.database}, {this.database_id}, all migrations applied")

    def _secrets(self) -> Iterator[Check]:
        this, compiled = self.configuration, self.facts.compiled
        held = self._account.secrets()
        env = "" if this.env == PRODUCTION else f" --env {this.env}"
        if AUDIT_KEY in (held or set()):
            yield Check(AUDIT_KEY, Outcome.OK, "the audit log is signed")
        else:
            yield Check(
                AUDIT_KEY,
                Outcome.WARNING,
                "The Worker lacks it, so nothing proves that its audit log is whole.",
                f"`airgate keys audit new`, then `npx wrangler secret put {AUDIT_KEY}{env}`",
            )
        if compiled is None:
            yield Check(
                "secrets",
                Outcome.UNKNOWN,
                "An invalid policy doesn't say which ones it needs.",
                "Mend it first.",
                passable=True,
            )
            return
        wanted = secrets(compiled)
        self.facts.lacking = sorted(wanted - (held or set()))
        if not self.facts.lacking:
            yield Check("secrets", Outcome.OK, ", ".join(sorted(wanted)) or "policy needs none")
            return
        yield Check(
            "secrets",
            Outcome.FAILED,
            f"Policy names {', '.join(self.facts.lacking)}, which the Worker lacks: calls that need them are refused.",
            "; ".join(f"`npx wrangler secret put {name}{env}`" for name in self.facts.lacking),
            passable=True,
        )

    def _in_force(self) -> Iterator[Check]:
        this = self.configuration
        if this.namespace is None or this.database_id is None:
            return
        publish = f"`airgate policy publish --env {this.env}`"
        try:
            env = open_environment(this.env)
            ledger = self.facts.ledger = read_ledger(env)
        except EnvironmentMissing as error:
            yield Check("ledger", Outcome.UNKNOWN, str(error), passable=True)
            return
        if ledger.entries and not ledger.entries[0].counts and not ledger.lost:
            head = ledger.entries[0]
            yield Check(
                "ledger",
                Outcome.FAILED,
                f"Number {head.number}, the newest, does not count: {head.doubt}.",
                f"A gate that begins now decides nothing. Run {publish} with a key that it trusts.",
            )
            return
        entry = ledger.in_force
        if entry is None:
            yield Check(
                "ledger",
                Outcome.WARNING,
                "Nothing has been published yet.",
                f"{publish}, once the gate is deployed.",
            )
            return
        if ledger.lost or not ledger.copied:
            said = "D1 lacks its row" if ledger.lost else "KV's copy of its row is not there, or older"
            yield Check(
                "ledger", Outcome.WARNING, f"Number {entry.number} is in force; {said}.", f"Run {publish}."
            )
        elif entry.verified:
            yield Check("ledger", Outcome.OK, f"number {entry.number}, signed by {entry.by}")
        else:
            yield Check("ledger", Outcome.OK, f"number {entry.number}, not signed")
        try:
            text = (env.kv_get(BUNDLE + entry.bundle) or "").strip()
            load_bundle(pinned(text, entry.bundle, "the bundle"))
        except ValueError as error:
            yield Check(
                "bundle",
                Outcome.FAILED,
                f"The Worker of this version would refuse what is in force: {error}.",
                f"Where it is too old, deploy the version in between first, and publish with that; else run {publish}.",
            )
        else:
            yield Check("bundle", Outcome.OK, f"{entry.bundle[:12]}, which the Worker of this version reads")

    def _gate(self) -> Iterator[Check]:
        this = self.configuration
        if this.address is None:
            said = "ADDRESS is empty, so nobody knows where the gate answers."
            yield Check(
                "gate", Outcome.WARNING, said, f"`airgate deploy {this.option()}` fills it in.", passable=True
            )
            return
        report = health(this.address)
        if report is None:
            said = f"{this.address}/-/health gives no answer of a gate's."
            yield Check("gate", Outcome.UNKNOWN, said, "Is ADDRESS right, and deployed?", passable=True)
            return
        version = Version.read(report.get("version"))
        if version is None:
            yield Check(
                "gate",
                Outcome.WARNING,
                f"{this.address} doesn't say which formats it reads.",
                f"Deploy it with `airgate deploy {this.option()}`.",
                passable=True,
            )
        elif not version.reads(FORMAT):
            yield Check(
                "gate",
                Outcome.FAILED,
                f"It is {version}; a policy published now has format {FORMAT}, and would be refused.",
                f"Run `airgate deploy {this.option()}` before publishing.",
                passable=True,
            )
        elif report.get("status") != "ok":
            yield Check(
                "gate",
                Outcome.FAILED,
                f"It is {version}, and is failing: it decides nothing.",
                "Publish a policy; else look at its log: `npx wrangler tail`.",
                passable=True,
            )
        else:
            yield Check("gate", Outcome.OK, str(version))


def secrets(compiled: Compiled) -> set[str]:
    """The names of the Worker's secrets that a policy set needs."""
    upstreams = compiled.bundle["upstreams"].values()
    named = {
        credential["secret"]
        for upstream in upstreams
        for credential in upstream["credentials"].values()
        if credential.get("secret")
    }
    return named | ({ASSERTION_KEYS} if any(upstream["assertion"] for upstream in upstreams) else set())


def health(address: str) -> dict[str, object] | None:
    """What a gate's health page says; None when nothing answers there that looks like one."""
    try:
        answer = httpx.get(f"{address}/-/health", timeout=PATIENCE)
        report = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None
    return report if isinstance(report, dict) and "status" in report else None


def _looked(reader: _Reader) -> list[Check]:
    try:
        return list(reader.look())
    except (WranglerFailed, NodeMissing, json.JSONDecodeError) as error:
        said = f"Cloudflare could not be asked: {why(error)}."
        return [Check(reader.name, Outcome.UNKNOWN, said, passable=reader.passable)]


def _not_created(name: str, configuration: Configuration) -> Check:
    next_step = f"`airgate deploy {configuration.option()}` creates it."
    return Check(name, Outcome.FAILED, "It hasn't been created yet.", next_step, passable=True)


def _foreign(name: str, number: str, configuration: Configuration) -> Check:
    return Check(
        name,
        Outcome.FAILED,
        f"The account has none with the id {number}.",
        f"Is this the right account? If it was deleted, put zeros at {configuration.table} of {configuration.label}: "
        f"`airgate deploy {configuration.option()}` creates another.",
    )
