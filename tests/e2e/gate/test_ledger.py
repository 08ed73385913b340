"""What is in force: the ledger in D1, signatures, and what somebody can do who may write the stores but has no key.

Each test leaves the site as it found it: a policy in force that the gate believes, and nothing wrong.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airgate.engine import BUNDLE, SHARD
from airgate.policy.compile import Compiled, StandIns, compile_folder
from airgate.policy.seed import STARTER
from airgate.signing_key import SigningKey

Token = Callable[..., str]
SOON = 8.0  # seconds; how soon it is in force is measured elsewhere

EXTRA = """
policies:
  - id: extra-{name}
    description: Another policy about the ledger, so that its shard is another
    owner: ledger@example.com
    effect: permit
    subject: {{roles: {{any: [finance-reader]}}}}
    target: {{upstream: ledger, methods: [GET], paths: ["/v2/{name}"]}}
"""


@pytest.fixture(scope="module")
def reader(token: Token) -> str:
    return token("finance-etl")


@pytest.fixture(scope="module")
def oncall(token: Token) -> str:
    return token("oncall")


@pytest.fixture
def other(tmp_path: Path, site: Any) -> Callable[[str], tuple[Path, Compiled]]:
    """other(name): the starter set with one policy more, as a folder and compiled."""

    def make(name: str) -> tuple[Path, Compiled]:
        seed = tmp_path / name
        shutil.copytree(STARTER, seed)
        (seed / "extra.yaml").write_text(EXTRA.format(name=name))
        return seed, compile_folder(seed, StandIns(site.stack.provider, site.stack.sample))

    return make


def stored(compiled: Compiled, *, shards: bool = True) -> dict[str, str]:
    """What KV holds of a policy set."""
    held = {BUNDLE + compiled.sha256: compiled.text}
    return held | {SHARD + name: text for name, text in compiled.stored.items() if shards}


def refused(site: Any, oncall: str, words: str) -> None:
    """The gate says what is wrong, in health and in its log, while the policy of before answers."""
    site.until(lambda: words in str(site.report(oncall)["bundle"]["error"]), SOON)
    assert words in [line for line in site.told("bundle") if line["result"] == "refused"][-1]["detail"]


def recovers(site: Any, oncall: str) -> None:
    site.until(lambda: site.report(oncall)["bundle"]["error"] is None, SOON)


def test_what_is_published_is_in_force_and_the_log_says_by_whom(
    site: Any, publish: Any, other: Any, reader: str, oncall: str
) -> None:
    seed, compiled = other("published")
    before = site.version(reader)
    assert site.gate.call("/ledger/v2/published", token=reader).code == "policy.no_match"
    published = publish(seed, site.gate)
    site.until(lambda: site.version(reader) == compiled.sha256[:12], SOON)
    assert site.gate.call("/ledger/v2/published", token=reader).status == 200
    assert before != compiled.sha256[:12]
    bundle = site.report(oncall)["bundle"]
    assert (bundle["sequence"], bundle["by"], bundle["error"]) == (
        published.sequence,
        "local developer",
        None,
    )
    [loaded] = [line for line in site.told("bundle") if line["sequence"] == published.sequence]
    assert (loaded["result"], loaded["by"]) == ("loaded", "local developer")


def altered(site: Any, compiled: Compiled) -> dict[str, Any]:
    number, document, _, _ = site.head()
    return {**document, "sequence": number + 1, "bundle": compiled.sha256}


@pytest.mark.parametrize(
    "how", ["unsigned", "signature of another", "key not trusted", "name of a trusted key", "gate"]
)
def test_a_pointer_that_nobody_vouches_for_changes_nothing(
    site: Any, other: Any, reader: str, oncall: str, how: str
) -> None:
    _, compiled = other("forged")
    site.env.kv_put(stored(compiled))
    before = site.version(reader)
    _, _, kid, signature = site.head()
    document = altered(site, compiled)
    mallory = SigningKey.new("local developer", ("publish", "grant"))
    words = "does not count"
    if how == "unsigned":
        site.append(document, None)
    elif how == "signature of another":
        site.append(document, None, key=kid, signature=signature)
    elif how == "key not trusted":
        site.append(document, mallory)
    elif how == "name of a trusted key":
        site.append(document, mallory, key=kid)
    else:
        site.append({**document, "gate": "airgate"}, site.key)
        words = "another gate"
    refused(site, oncall, words)
    assert site.version(reader) == before
    # An isolate that has just begun believes KV's copy of the head before.
    fresh = site.another()
    assert site.version(reader, fresh) == before
    site.sql("DELETE FROM pointers WHERE sequence = ?", document["sequence"])
    recovers(site, oncall)


def test_an_old_pointer_under_a_new_number_changes_nothing(
    site: Any, publish: Any, other: Any, reader: str, oncall: str
) -> None:
    number, _, _, _ = site.head()
    seed, compiled = other("newer")
    publish(seed, site.gate)
    site.until(lambda: site.version(reader) == compiled.sha256[:12], SOON)
    site.sql(
        "INSERT INTO pointers SELECT sequence + 2, document, key, signature FROM pointers WHERE sequence = ?",
        number,
    )
    refused(site, oncall, f"it is the document of number {number}")
    assert site.version(reader) == compiled.sha256[:12]
    assert site.version(reader, site.another()) == compiled.sha256[:12]
    site.sql("DELETE FROM pointers WHERE sequence = ?", number + 2)
    recovers(site, oncall)


def test_a_head_that_is_deleted_stays_in_force(
    site: Any, publish: Any, other: Any, reader: str, oncall: str
) -> None:
    """A table that was restored to an older state looks the same."""
    seed, compiled = other("kept")
    publish(seed, site.gate)
    site.until(lambda: site.version(reader) == compiled.sha256[:12], SOON)
    number, _, _, _ = site.head()
    [row] = site.sql("SELECT * FROM pointers WHERE sequence = ?", number)
    site.sql("DELETE FROM pointers WHERE sequence = ?", number)
    refused(site, oncall, "rows of the ledger are missing")
    assert site.version(reader) == compiled.sha256[:12]
    assert site.version(reader, site.another()) == compiled.sha256[:12]
    site.sql("INSERT INTO pointers VALUES (?, ?, ?, ?)", *row)
    recovers(site, oncall)


def test_a_bundle_that_is_not_whole_is_not_taken_until_it_is(
    site: Any, other: Any, reader: str, oncall: str
) -> None:
    """KV shows a shard later than D1 shows the pointer."""
    _, compiled = other("late")
    before = site.version(reader)
    site.append(altered(site, compiled), site.key)
    refused(site, oncall, "the bundle that the pointer names is not there (yet)")
    fresh = site.another()
    answer = fresh.call("/ledger/v1/entries", token=reader)
    assert (answer.status, answer.code, answer.json()["retryable"]) == (503, "policy.unavailable", True)
    site.env.kv_put(stored(compiled, shards=False))
    refused(site, oncall, "the shard of ledger is not there (yet)")
    assert site.version(reader) == before
    site.env.kv_put(stored(compiled))
    site.until(lambda: site.version(reader) == compiled.sha256[:12], SOON)
    site.until(lambda: site.version(reader, fresh) == compiled.sha256[:12], SOON)
    site.copy_head()
    recovers(site, oncall)


def test_a_shard_that_was_altered_is_not_taken(site: Any, other: Any, reader: str, oncall: str) -> None:
    _, compiled = other("altered")
    before = site.version(reader)
    name = compiled.bundle["shards"]["ledger"]
    text = compiled.stored[name]
    site.env.kv_put(
        {**stored(compiled), SHARD + name: text.replace("finance-publisher", "finance-everybody")}
    )
    site.append(altered(site, compiled), site.key)
    refused(site, oncall, "its hash is another")
    assert site.version(reader) == before
    assert site.version(reader, site.another()) == "policy.unavailable"
    site.env.kv_put({SHARD + name: text})
    site.until(lambda: site.version(reader) == compiled.sha256[:12], SOON)
    site.copy_head()
    recovers(site, oncall)


def test_without_d1_the_view_is_used_until_it_is_stale(site: Any, reader: str, oncall: str) -> None:
    version = site.version(reader)
    site.sql("ALTER TABLE pointers RENAME TO away")
    begun = time.monotonic()
    codes: dict[str, float] = {}
    while time.monotonic() - begun < 6:
        codes.setdefault(site.version(reader), time.monotonic() - begun)
        time.sleep(0.1)
    assert list(codes) == [version, "state.stale"]
    assert codes["state.stale"] > 1.5  # what is left of 4 s, less what a busy machine takes
    answer = site.gate.call("/ledger/v1/entries", token=reader)
    assert (answer.status, answer.json()["retryable"]) == (503, True)
    assert site.gate.call("/-/health").json()["status"] == "failing"
    assert site.version(reader, site.another()) == "state.stale"
    site.sql("ALTER TABLE away RENAME TO pointers")
    site.until(lambda: site.version(reader) == version, SOON)


def test_trusted_keys_that_cannot_be_read_let_nothing_through(site: Any, reader: str) -> None:
    gate = site.another(TRUSTED_KEYS='{"keys": []}')
    assert site.version(reader, gate) == "state.stale"
    site.until(lambda: site.told("bundle", gate), SOON)
    assert "TRUSTED_KEYS" in site.told("bundle", gate)[0]["detail"]
