"""What an isolate remembers: when policy is read again, what it keeps when that fails, and which tokens it knows."""

from typing import Any

import pytest
from world import (
    BUNDLE,
    ISSUER,
    JWKS_URI,
    NOW,
    POINTER,
    SHARD,
    UTC,
    World,
    canonical,
    digest,
    document,
    pointer,
    rule,
    run,
)

from bundle import Bundle
from identity import Mapping, identify
from keys import Keyring
from model import Denied, Reason
from shard import EMPTY, Shard
from state import AGAIN, PATIENCE, REFRESH, SLOW, WAIT, WARN, State
from verified import GENERATION, Seen

OLD, NEW = document(), document(rule(id="another"))


@pytest.fixture
def world() -> World:
    return World(OLD)


@pytest.fixture
def state(world: World) -> State:
    """A state that has read its policy just now."""
    state = State()
    run(state.current(world))
    world.happened.clear()
    return state


def version(bundle: dict[str, Any]) -> str:
    return digest(canonical(bundle))[:12]


def current(state: State, world: World) -> str:
    """The version in force for one request, its background work not done yet."""
    bundle = run(state.current(world))
    assert isinstance(bundle, Bundle)
    return bundle.version


def unavailable(state: State, world: World) -> Denied:
    with pytest.raises(Denied) as caught:
        run(state.current(world))
    assert caught.value.reason is Reason.POLICY_UNAVAILABLE
    return caught.value


def reads(world: World) -> int:
    """How often the pointer was read."""
    return len([key for key, _ in world.of("kv") if key == POINTER])


def test_the_first_request_waits_for_the_policy(world: World) -> None:
    state = State()
    assert (state.version, state.sequence) == (None, None)
    assert current(state, world) == version(OLD)
    assert world.of("kv") == [(POINTER, SLOW), (BUNDLE + digest(canonical(OLD)), SLOW)]
    assert (state.version, state.sequence, state.error) == (version(OLD), 1, "")
    (line,) = world.lines()
    assert (line["event"], line["result"], line["bundle"], line["sequence"]) == (
        "bundle",
        "loaded",
        version(OLD),
        1,
    )


@pytest.mark.parametrize(
    ("age", "deferred", "read"),
    [
        pytest.param(0, 0, 0, id="at once: nothing"),
        pytest.param(REFRESH, 0, 0, id="at two seconds: nothing"),
        pytest.param(REFRESH + 0.01, 1, 0, id="just after: in the background"),
        pytest.param(WAIT, 1, 0, id="at ten seconds: in the background"),
        pytest.param(WAIT + 0.01, 0, 1, id="just after: before deciding"),
        pytest.param(86_400, 0, 1, id="a day later: before deciding"),
    ],
)
def test_the_pointer_is_read_again(state: State, world: World, age: float, deferred: int, read: int) -> None:
    world.clock += age
    assert state.fresh(world.clock) is (deferred == read == 0)
    assert current(state, world) == version(OLD)
    assert (len(world.deferred), reads(world)) == (deferred, read)
    assert world.settle() == deferred
    assert reads(world) == deferred + read
    assert [timeout for _, timeout in world.of("kv")] == [SLOW] * deferred + [PATIENCE] * read
    assert current(state, world) == version(OLD)
    assert reads(world) == deferred + read
    assert world.lines() == []


def test_one_request_reads_in_the_background_and_others_use_what_is_there(state: State, world: World) -> None:
    world.clock += REFRESH + 1
    for _ in range(5):
        current(state, world)
    assert world.settle() == 1


def test_a_background_read_that_was_lost_is_begun_again(state: State, world: World) -> None:
    """The runtime may drop work that was put off."""
    world.clock += REFRESH + 0.1
    current(state, world)
    world.deferred.pop().close()
    world.clock += REFRESH + 0.1
    current(state, world)
    assert world.settle() == 1
    assert reads(world) == 1


def test_a_new_policy_is_in_force_after_the_background_read(state: State, world: World) -> None:
    world.publish(NEW, 2)
    world.clock += REFRESH + 0.1
    assert current(state, world) == version(OLD)
    world.settle()
    assert current(state, world) == version(NEW)
    assert state.sequence == 2
    assert [line["result"] for line in world.lines()] == ["loaded"]


def test_a_new_policy_is_in_force_at_once_after_a_pause(state: State, world: World) -> None:
    world.publish(NEW, 2)
    world.clock += WAIT + 0.1
    assert current(state, world) == version(NEW)


@pytest.mark.parametrize("sequence", [1, 2, 3], ids=["older by two", "older by one", "the same"])
def test_a_sequence_that_does_not_rise_is_ignored(world: World, sequence: int) -> None:
    """KV may show an older value after a newer one."""
    world.publish(OLD, 3)
    state = State()
    current(state, world)
    world.publish(NEW, sequence)
    world.happened.clear()
    world.clock += WAIT + 0.1
    assert current(state, world) == version(OLD)
    assert (state.sequence, state.error) == (3, "")
    assert reads(world) == len(world.of("kv")) == 1
    assert world.lines() == []


def test_a_rollback_is_an_old_bundle_under_a_new_number(state: State, world: World) -> None:
    for sequence, bundle in ((2, NEW), (3, OLD)):
        world.publish(bundle, sequence)
        world.clock += WAIT + 0.1
        assert current(state, world) == version(bundle)
        assert state.sequence == sequence


def bad_pointers() -> list[Any]:
    new = canonical(NEW)
    return [
        pytest.param(None, None, id="the pointer is gone"),
        pytest.param("", None, id="the pointer is empty"),
        pytest.param("{", None, id="the pointer is cut short"),
        pytest.param(canonical(pointer(new, 2, format=4)), new, id="the pointer has a newer format"),
        pytest.param(canonical(pointer(new, 2, more=1)), new, id="the pointer has a member more"),
        pytest.param(OSError("away"), None, id="KV is away"),
        pytest.param(TimeoutError(), None, id="KV does not answer"),
        pytest.param(canonical(pointer(new, 2)), None, id="the bundle is not there yet"),
        pytest.param(canonical(pointer(new, 2)), OSError("away"), id="KV goes away in between"),
        pytest.param(canonical(pointer(new, 2)), new + " ", id="the bundle is not the one named"),
        pytest.param(canonical(pointer(new, 2)), canonical(OLD), id="the bundle is another one"),
        pytest.param(canonical(pointer(new, 2)), "", id="the bundle is empty"),
        pytest.param(canonical(pointer("[" * 9999, 2)), "[" * 9999, id="the bundle is 9,999 brackets"),
        pytest.param(
            canonical(pointer('{"format":4}', 2)), '{"format":4}', id="the bundle has a newer format"
        ),
    ]


def break_(world: World, named: str | Exception | None, bundle: str | Exception | None) -> None:
    world.values.clear()
    if named is not None:
        world.values[POINTER] = named
    if bundle is not None and isinstance(named, str):
        world.values[BUNDLE + digest(canonical(NEW))] = bundle
        if isinstance(bundle, str):
            for text in ("[" * 9999, '{"format":4}'):
                world.values.setdefault(BUNDLE + digest(text), text)


@pytest.mark.parametrize(("named", "bundle"), bad_pointers())
def test_the_last_good_policy_stays_in_force(
    state: State, world: World, named: str | Exception | None, bundle: str | Exception | None
) -> None:
    break_(world, named, bundle)
    for _ in range(3):
        world.clock += WAIT + 0.1
        assert current(state, world) == version(OLD)
    assert (state.sequence, state.version) == (1, version(OLD))
    assert state.error
    (line,) = world.lines()  # said once, not with every request
    assert (line["event"], line["result"], line["bundle"], line["sequence"]) == (
        "bundle",
        "refused",
        version(OLD),
        1,
    )
    world.publish(NEW, 2)
    world.clock += WAIT + 0.1
    assert current(state, world) == version(NEW)
    assert state.error == ""


@pytest.mark.parametrize(("named", "bundle"), bad_pointers())
def test_without_any_policy_the_gate_is_closed(
    world: World, named: str | Exception | None, bundle: str | Exception | None
) -> None:
    break_(world, named, bundle)
    state = State()
    assert unavailable(state, world).detail == state.error != ""
    assert not state.fresh(world.clock)
    assert len(world.lines()) == 1


def test_a_request_that_comes_during_the_first_read_reads_for_itself() -> None:
    """None may wait for another's read, and the pause after a failure is not for those that have not failed."""
    state, versions = State(), []

    class Busy(World):
        async def kv(self, key: str, timeout: float) -> str | None:
            value = await super().kv(key, timeout)
            if len(self.of("kv")) == 1:
                versions.append((await state.current(self)).version)
            return value

    world = Busy()
    assert [current(state, world), *versions] == [version(OLD)] * 2


def test_a_read_that_takes_too_long_for_a_request_goes_on_behind_it(state: State, world: World) -> None:
    """Or a bundle that takes longer than a request waits would never come into force."""
    world.publish(NEW, 2)
    world.broken["kv"] = TimeoutError()
    world.clock += WAIT + 0.1
    assert current(state, world) == version(OLD)
    world.broken.clear()
    assert world.settle() == 1
    assert current(state, world) == version(NEW)


def test_requests_do_not_wait_for_a_store_that_fails(state: State, world: World) -> None:
    world.broken["kv"] = OSError("away")
    world.clock += WAIT + 0.1
    for _ in range(10):
        current(state, world)
    assert world.of("kv") == [(POINTER, PATIENCE)]
    assert world.deferred == []


def test_without_any_policy_the_store_is_asked_once_a_second(world: World) -> None:
    world.broken["kv"] = OSError("away")
    state = State()
    for step in range(5):
        world.clock = NOW + step * AGAIN / 5
        unavailable(state, world)
    assert reads(world) == 1
    world.clock = NOW + AGAIN
    unavailable(state, world)
    assert reads(world) == 2
    world.broken.clear()
    world.clock += AGAIN
    assert current(state, world) == version(OLD)


def seen(state: State, world: World, until: float = NOW + 300) -> Seen:
    """A verified token, with its issuer's keys fetched."""
    bundle = state.bundle
    assert bundle is not None
    ring = state.keyring(bundle.issuers[ISSUER])
    if not ring.keys:
        assert run(ring.refresh(world.fetch, NOW))
    identity = identify({}, "etl", Mapping("company", None, "workload", (), ()))
    return Seen("", identity, until, ring.keys[0], ring, None)


def remember(state: State, token: str, known: Seen) -> None:
    """Keep a token that was verified under the bundle in force."""
    assert state.bundle is not None
    state.remember(token, known, state.bundle)


def test_a_new_policy_forgets_every_token(state: State, world: World) -> None:
    known = seen(state, world)
    for number_ in range(GENERATION + 1):
        remember(state, f"t{number_}", known)
    world.publish(NEW, 2)
    world.clock += WAIT + 0.1
    current(state, world)
    assert [state.verified.recall(f"t{number_}", NOW) for number_ in range(GENERATION + 1)] == [None] * (
        GENERATION + 1
    )


def test_a_token_verified_under_the_policy_before_is_not_remembered(state: State, world: World) -> None:
    """A new policy may come while a signature is checked; the roles were read by the old one."""
    known, before = seen(state, world), state.bundle
    world.publish(NEW, 2)
    world.clock += WAIT + 0.1
    current(state, world)
    assert before is not None
    state.remember("a", known, before)
    assert state.verified.recall("a", NOW) is None


@pytest.mark.parametrize(("mine", "other"), [(2, 3), (3, 2), (2, 2)])
def test_of_two_reads_at_once_the_newer_policy_stays(state: State, mine: int, other: int) -> None:
    """While one request reads a bundle, another reads a pointer and a bundle."""

    class Slow(World):
        async def kv(self, key: str, timeout: float) -> str | None:
            value = await super().kv(key, timeout)
            if key.startswith(BUNDLE) and len(self.of("kv")) == 2:
                self.publish(document(rule(id="other")), other)
                await state.refresh(self, SLOW)
            return value

    world = Slow()
    world.publish(NEW, mine)
    run(state.refresh(world, SLOW))
    assert len(world.of("kv")) == 4
    assert state.sequence == max(mine, other)
    assert state.version == version(NEW if mine > other else document(rule(id="other")))
    assert len(world.lines()) == (2 if mine > other else 1)
    assert world.lines()[-1]["bundle"] == state.version


def test_the_same_policy_read_again_forgets_nothing(state: State, world: World) -> None:
    known = seen(state, world)
    remember(state, "a", known)
    world.clock += WAIT + 0.1
    current(state, world)
    assert state.verified.recall("a", NOW) is known


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        pytest.param({}, True, id="nothing about the issuer changed"),
        pytest.param({"max_lifetime": 60}, True, id="its rules changed"),
        pytest.param({"jwks_uri": None}, False, id="its keys come from elsewhere"),
        pytest.param({"issuer": ISSUER + "/"}, False, id="its name changed"),
    ],
)
def test_keys_survive_a_new_policy_that_does_not_touch_them(
    state: State, world: World, changes: dict[str, Any], kept: bool
) -> None:
    before = seen(state, world).keyring
    bundle = document(rule(id="another"))
    bundle["issuers"]["company"] |= changes
    world.publish(bundle, 2)
    world.clock += WAIT + 0.1
    (issuer,) = run(state.current(world)).issuers.values()
    assert (state.keyring(issuer) is before) is kept
    assert state.keyring(issuer) is state.keyring(issuer)
    assert state.keyring(issuer).source == issuer.source


def test_a_keyring_of_another_source_is_never_handed_out(state: State, world: World) -> None:
    assert state.bundle is not None
    issuer = state.bundle.issuers[ISSUER]
    ring = state.keyring(issuer)
    moved = issuer._replace(source=issuer.source._replace(jwks_uri="https://login.example.com/moved"))
    assert state.keyring(moved) is not ring
    assert state.keyring(moved).source == moved.source


def test_the_report_of_a_state_that_has_nothing() -> None:
    assert State().report(NOW) == {
        "bundle": {
            "version": None,
            "sequence": None,
            "age": None,
            "read": NOW,
            "error": None,
            "zones_until": None,
        },
        "shards": {},
        "circuits": {},
        "warnings": [],
        "issuers": {},
    }


def test_the_report(state: State, world: World) -> None:
    keys = {"keys": 0, "age": None, "error": None}
    bundle = {
        "version": version(OLD),
        "sequence": 1,
        "age": 65,
        "read": 5.0,
        "error": None,
        "zones_until": None,
    }
    unread = {"policies": None, "error": None}
    assert state.report(NOW + 5) == {
        "bundle": bundle,
        "shards": {"-": unread, "ledger": unread},
        "circuits": {},
        "warnings": [],
        "issuers": {"company": keys},
    }
    shard(state, world)
    assert state.report(NOW + 5)["shards"]["ledger"] == {"policies": 1, "error": None}
    seen(state, world)
    assert state.report(NOW + 5)["issuers"]["company"] == {"keys": 1, "age": 5, "error": None}
    world.pages[JWKS_URI] = OSError("answered 500")
    assert state.bundle is not None
    ring = state.keyring(state.bundle.issuers[ISSUER])
    assert isinstance(ring, Keyring)
    run(ring.refresh(world.fetch, NOW + 1))
    assert state.report(NOW + 5)["issuers"]["company"] == {
        "keys": 1,
        "age": 5,
        "error": "OSError: answered 500",
    }
    world.broken["kv"] = OSError("away")
    run(state.refresh(world, SLOW))
    assert state.report(NOW + 5)["bundle"]["error"] == "OSError: away"


HOURS = rule(id="hours", conditions=[["when.time", "Etc/UTC", ["mon"], 0, 60]])


@pytest.mark.parametrize(
    ("before", "warned"),
    [
        pytest.param(WARN + 1, False, id="not before the last 90 days"),
        pytest.param(WARN - 1, True, id="within the last 90 days"),
        pytest.param(-1, True, id="after the end"),
    ],
)
def test_the_report_warns_before_the_time_zones_end(before: float, warned: bool) -> None:
    world, state = World(document(HOURS)), State()
    run(state.current(world))
    assert bool(state.report(UTC["until"] - before)["warnings"]) is warned


def shard(state: State, world: World, upstream: str = "ledger") -> Shard:
    """The shard of an upstream, read if need be."""
    assert state.bundle is not None
    found = run(state.shard(state.bundle, upstream, world))
    assert isinstance(found, Shard)
    return found


def shard_reads(world: World) -> list[str]:
    return [key for key, _ in world.of("kv") if key.startswith(SHARD)]


def no_shard(state: State, world: World, upstream: str = "ledger") -> Denied:
    with pytest.raises(Denied) as caught:
        shard(state, world, upstream)
    assert caught.value.reason is Reason.POLICY_UNAVAILABLE
    return caught.value


def test_a_shard_is_read_when_it_is_asked_for_and_then_kept(state: State, world: World) -> None:
    assert state.bundle is not None
    assert state.held(state.bundle, "ledger") is None
    first = shard(state, world)
    assert shard_reads(world) == [SHARD + OLD["shards"]["ledger"]]
    assert shard(state, world) is first
    assert state.held(state.bundle, "ledger") is first
    assert len(shard_reads(world)) == 1


def test_an_upstream_that_no_policy_names_has_nothing_to_be_read(state: State, world: World) -> None:
    assert shard(state, world, "crm") is EMPTY
    assert shard(state, world, "no-such") is EMPTY
    assert world.happened == []


BROKEN_SHARDS = [
    pytest.param(None, id="it is not there yet"),
    pytest.param("{}", id="it has another hash"),
    pytest.param(OSError("away"), id="KV is away"),
    pytest.param(TimeoutError(), id="KV does not answer"),
]


@pytest.mark.parametrize("value", BROKEN_SHARDS)
def test_a_shard_that_cannot_be_read_closes_its_upstream_only(state: State, world: World, value: Any) -> None:
    good = shard(state, world, "-")
    key = SHARD + OLD["shards"]["ledger"]
    text = world.values.pop(key)
    if value is not None:
        world.values[key] = value
    no_shard(state, world)
    (line,) = world.lines("bundle")
    assert (line["result"], line["bundle"]) == ("refused", version(OLD))
    assert shard(state, world, "-") is good
    assert state.report(NOW)["shards"]["ledger"]["error"] == line["detail"]
    # Within a second it is not asked for again, whoever asks.
    no_shard(state, world)
    assert len(shard_reads(world)) == 2
    world.values[key] = text
    world.clock += AGAIN
    assert shard(state, world).policies == 1
    assert state.report(NOW)["shards"]["ledger"]["error"] is None


def published(state: State, world: World, bundle: dict[str, Any]) -> None:
    world.publish(bundle, 2)
    world.clock += WAIT + 1
    run(state.refresh(world, SLOW))


def test_a_shard_that_did_not_change_is_kept_across_bundles(state: State, world: World) -> None:
    kept = shard(state, world)
    world.happened.clear()
    published(state, world, {**OLD, "roles": {**OLD["roles"], "another": []}})
    assert state.sequence == 2
    assert shard(state, world) is kept
    assert shard_reads(world) == []


def test_a_new_bundle_brings_the_successors_of_the_shards_in_use(state: State, world: World) -> None:
    before = shard(state, world)
    world.happened.clear()
    published(state, world, NEW)
    assert shard_reads(world) == [SHARD + NEW["shards"]["ledger"]]
    assert shard(state, world) is not before
    assert len(shard_reads(world)) == 1


def test_an_upstream_that_loses_all_its_policies_denies(state: State, world: World) -> None:
    shard(state, world)
    published(state, world, {**OLD, "shards": {"-": OLD["shards"]["-"]}})
    assert shard(state, world) is EMPTY


@pytest.mark.parametrize("value", BROKEN_SHARDS)
def test_a_bundle_is_refused_whole_when_a_successor_cannot_be_read(
    state: State, world: World, value: Any
) -> None:
    before = shard(state, world)
    world.happened.clear()
    world.publish(NEW, 2)
    key = SHARD + NEW["shards"]["ledger"]
    del world.values[key]
    if value is not None:
        world.values[key] = value
    run(state.refresh(world, SLOW))
    assert (state.version, state.sequence) == (version(OLD), 1)
    assert shard(state, world) is before
    (line,) = world.lines("bundle")
    assert (line["result"], line["bundle"]) == ("refused", version(OLD))


def test_the_shards_loaded_first_go_when_there_are_too_many(
    state: State, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("state.MOST_KEPT", 10)
    shard(state, world, "-")
    assert state.bundle is not None
    assert state.held(state.bundle, "-") is not None  # one is always kept
    shard(state, world, "ledger")
    assert state.held(state.bundle, "-") is None
    assert state.held(state.bundle, "ledger") is not None


def test_a_shard_of_a_bundle_that_is_no_longer_in_force_is_used_once(state: State, world: World) -> None:
    old = state.bundle
    assert old is not None
    published(state, world, NEW)
    found = run(state.shard(old, "ledger", world))
    assert isinstance(found, Shard)
    assert state.held(old, "ledger") is None


def test_what_is_known_of_an_upstream_ends_when_it_moves() -> None:
    world, state = World(), State()
    run(state.refresh(world, 1))
    ledger, crm = state.health("ledger"), state.health("crm")
    world.publish(document(ledger={"owner": "another@example.com"}), 2)
    run(state.refresh(world, 1))
    assert (state.health("ledger"), state.health("crm")) == (ledger, crm)
    world.publish(document(ledger={"via": "VIA_LEDGER"}), 3)
    run(state.refresh(world, 1))
    assert state.health("ledger") is not ledger
    assert state.health("crm") is crm
