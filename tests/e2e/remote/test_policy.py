"""Publishing to a deployed gate with the real wrangler, while Cloudflare fails, and while others publish too.

After each step the Worker's own code reads what is stored: it must find one whole policy, the former or the new one.
"""

import json
import signal
from collections.abc import Callable

import pytest
from cloudflare import PASSES, Effect, Fault
from project import Isolate, Site, interrupt

KEY = "signing-key.json"
FORBID = """
policies:
  - id: {name}
    description: Shut for maintenance
    owner: platform@example.com
    effect: forbid
    target: {{upstream: ledger, methods: [GET], paths: ["/{name}"]}}
"""


class Publisher:
    """Who publishes to one gate, step by step."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.cloudflare = site.cloudflare
        site.provide()
        self.ask("keys", "new", "--name", "release pipeline", "--may", "publish", "--may", "grant")
        self.ask("keys", "trust", KEY, "--write")

    def ask(self, *arguments: str, status: int = 0) -> str:
        """Run a command that ends with a status; what it has printed."""
        done = self.site.airgate(*arguments, AIRGATE_KEY=KEY)
        assert done.returncode == status, done.stdout + done.stderr
        self.cloudflare.mend()
        return done.stdout + done.stderr

    def publish(self, *, status: int = 0) -> str:
        return self.ask("policy", "publish", "kv-seed", "--env", "production", "--yes", status=status)

    def change(self, name: str) -> None:
        """Add a policy to the seed."""
        file = self.site.seed / "policies" / f"{name}.yaml"
        file.write_text(FORBID.format(name=name), "utf-8")

    def fail_kv(self, body: str, effect: Effect = Effect.NONE) -> Fault:
        return self.cloudflare.fail("PUT", "/bulk$", body=body, times=3, effect=effect)

    def fail_append(self, effect: Effect = Effect.NONE, status: int = 500) -> Fault:
        return self.cloudflare.fail(
            "POST", "/query$", body="INSERT INTO pointers", effect=effect, status=status
        )

    @property
    def believed(self) -> tuple[int, str]:
        return Isolate(self.site).believes()

    @property
    def copied(self) -> int:
        """The number of KV's copy."""
        head = json.loads(self.cloudflare.namespace("airgate-policy").values["policy/head"])
        number: int = json.loads(head["document"])["sequence"]
        return number


@pytest.fixture(scope="module")
def publisher(make_site: Callable[[], Site]) -> Publisher:
    """One for the module: a test goes on from what the one before it has published."""
    return Publisher(make_site())


def test_a_first_publication_goes_on_where_it_broke_off(publisher: Publisher) -> None:
    publisher.fail_kv("policy/bundle/", Effect.HALF)
    said = publisher.publish(status=1)
    assert "Nothing has changed on production" in said
    assert publisher.believed == (0, "")

    publisher.fail_append(Effect.ALL, status=0)  # it's there, and nobody is told
    said = publisher.publish(status=1)
    assert "is not known. Run the same command again" in said
    number, bundle = publisher.believed
    assert number == 1

    said = publisher.publish()
    assert publisher.believed == (1, bundle)
    assert publisher.copied == 1


def test_a_change_that_fails_leaves_the_former_policy_and_then_counts(publisher: Publisher) -> None:
    before = publisher.believed
    publisher.change("audit-week")
    publisher.fail_append()
    publisher.publish(status=1)
    assert publisher.believed == before

    publisher.fail_kv("policy/head")
    said = publisher.publish(status=1)
    assert "Number 2 is in force on production; KV's copy of its row could not be written" in said
    number, bundle = publisher.believed
    assert (number, publisher.copied) == (2, 1)
    assert bundle != before[1]

    publisher.publish()
    assert publisher.believed == (2, bundle)
    assert publisher.copied == 2


def test_who_comes_second_is_told_and_changes_nothing(publisher: Publisher) -> None:
    """Somebody goes back to number 1 while this command is about to add number 3."""
    publisher.change("audit-month")
    held = publisher.cloudflare.fail("POST", "/query$", body="INSERT INTO pointers", status=PASSES, held=True)
    second = publisher.site.start(
        "policy", "publish", "kv-seed", "--env", "production", "--yes", AIRGATE_KEY=KEY
    )
    assert held.reached.wait(120)
    publisher.site.airgate("policy", "rollback", "1", "--env", "production", "--yes", AIRGATE_KEY=KEY)
    third = publisher.believed
    held.released.set()
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 3, output
    assert third[0] == 3
    assert publisher.believed == third

    history = publisher.ask("policy", "history", "--env", "production", "--json")
    entries = [json.loads(line) for line in history.splitlines() if line.startswith("{")]
    assert [entry["sequence"] for entry in entries] == [3, 2, 1]
    assert [entry["of"] for entry in entries] == [1, None, None]


def test_a_publication_that_is_broken_off_has_changed_nothing(publisher: Publisher) -> None:
    before = publisher.believed
    held = publisher.cloudflare.fail("PUT", "/bulk$", effect=Effect.HALF, held=True)
    process = publisher.site.start(
        "policy", "publish", "kv-seed", "--env", "production", "--yes", AIRGATE_KEY=KEY
    )
    assert held.reached.wait(120)
    interrupt(process, signal.SIGINT)
    publisher.cloudflare.mend()
    assert process.returncode not in (0, 3)
    assert publisher.believed == before


def test_a_revocation_is_written_once_whatever_fails(publisher: Publisher) -> None:
    revoke = (
        "revoke",
        "--subject",
        "sales-sync",
        "--for",
        "1h",
        "--reason",
        "lost laptop",
        "--env",
        "production",
    )
    publisher.cloudflare.fail("POST", "/query$", body="INSERT INTO acts")
    publisher.ask(*revoke, "--yes", status=1)
    isolate = Isolate(publisher.site)
    isolate.believes()
    assert isolate.view.access.revocations == 0

    publisher.fail_kv("state/acts")
    publisher.ask(*revoke, "--yes", status=1)  # it counts, and the copy is to be written
    isolate.believes()
    assert isolate.view.access.revocations == 1
    assert "state/acts" not in publisher.cloudflare.namespace("airgate-policy").values


def test_a_grant_reaches_the_gate_signed_and_mends_the_copy(publisher: Publisher) -> None:
    publisher.ask(
        *("grant", "--subject", "feature-builder", "--issuer", "company", "--role", "sales-reader"),
        *("--for", "2h", "--reason", "month end", "--env", "production", "--yes"),
    )
    isolate = Isolate(publisher.site)
    isolate.believes()
    access = isolate.view.access
    assert (access.revocations, access.grants) == (1, 1)
    assert any("signed by release pipeline" in line for line in isolate.lines)
    copy = json.loads(publisher.cloudflare.namespace("airgate-policy").values["state/acts"])
    assert len(copy["acts"]) == 2
