"""What an isolate remembers: when policy is read again, what it keeps when that fails, and which tokens it knows."""

from typing import Any

import pytest
from world import (
    ABSENT,
    ACTS,
    BUNDLE,
    HEAD,
    ISSUER,
    JWKS_URI,
    NOW,
    SHARD,
    UTC,
    World,
    canonical,
    digest,
    document,
    entry,
    revocation,
    rule,
    run,
    signed,
    trusting,
)

from bundle import Bundle
from identity import Mapping, identify
from keys import Keyring
from model import Denied, Reason
from shard import EMPTY, Shard
from state import AGAIN, SLOW, WARN, State
from verified import GENERATION, Seen
from view import Ages

REFRESH, WAIT, PATIENCE, STALE = Ages()
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


def refusal(state: State, world: World) -> Denied:
    with pytest.raises(Denied) as caught:
        run(state.current(world))
    return caught.value


def unavailable(state: State, world: World) -> Denied:
    denied = refusal(state, world)
    assert denied.reason is Reason.POLICY_UNAVAILABLE
    return denied


def reads(world: World) -> int:
    """How often D1 was asked for what is new."""
    return len([verb for verb, _, _ in world.of("database") if verb == "SELECT"])


def test_the_first_request_waits_for_the_policy(world: World) -> None:
    state = State()
    assert (state.version, state.sequence) == (None, None)
    assert current(state, world) == version(OLD)
    assert world.of("database") == [("SELECT", (0, int(NOW), 0), SLOW)]
    assert world.of("kv") == [(ACTS, SLOW), (BUNDLE + digest(canonical(OLD)), SLOW)]
    assert (state.version, state.sequence, state.error) == (version(OLD), 1, "")
    (line,) = world.lines()
    assert (line["event"], line["result"], line["bundle"], line["sequence"], line["by"]) == (
        "bundle",
        "loaded",
        version(OLD),
        1,
        "ci",
    )


def test_who_has_published_is_on_record_by_the_keys_name() -> None:
    """What the pointer says of its publisher anybody could write; whose key it was is proved."""
    world, state = World(), State()
    world.secrets = trusting()
    current(state, world)
    assert [line["by"] for line in world.lines("bundle")] == ["Operator"]
    assert state.report(NOW)["bundle"]["by"] == "Operator"


@pytest.mark.parametrize(
    ("age", "deferred", "read"),
    [
        pytest.param(0, 0, 0, id="at once: nothing"),
        pytest.param(REFRESH, 0, 0, id="at two seconds: nothing"),
        pytest.param(REFRESH + 0.01, 1, 0, id="just after: in the background"),
        pytest.param(WAIT, 1, 0, id="at ten seconds: in the background"),
        pytest.param(WAIT + 0.01, 0, 1, id="just after: before deciding"),
        pytest.param(STALE + 0.01, 0, 1, id="when it would be too old: before deciding"),
        pytest.param(86_400, 0, 1, id="a day later: before deciding"),
    ],
)
def test_the_view_is_read_again(state: State, world: World, age: float, deferred: int, read: int) -> None:
    world.clock += age
    assert state.fresh(world.clock) is (deferred == read == 0)
    assert current(state, world) == version(OLD)
    assert (len(world.deferred), reads(world)) == (deferred, read)
    assert world.settle() == deferred
    assert reads(world) == deferred + read
    assert [timeout for _, _, timeout in world.of("database")] == [SLOW] * deferred + [
        PATIENCE if age <= STALE else SLOW  # when nothing can be decided without it, it may take its time
    ] * read
    assert world.of("kv") == []  # the bundle is here, and its copies are for those that have just begun
    assert current(state, world) == version(OLD)
    assert reads(world) == deferred + read
    assert world.lines() == []


def test_the_ages_are_the_workers_variables(world: World) -> None:
    world.secrets = {"VIEW_REFRESH": "1", "VIEW_WAIT": "3", "VIEW_PATIENCE": "0.2", "VIEW_STALE": "5"}
    state = State()
    current(state, world)
    world.happened.clear()
    for age, deferred, read in ((1, 0, 0), (1.1, 1, 0), (4.2, 0, 1)):
        world.clock = NOW + age
        current(state, world)
        assert (len(world.deferred), reads(world)) == (deferred, read)
        for work in world.deferred:
            work.close()
        world.deferred.clear()
    assert round(world.of("database")[0][2], 3) == 0.2
    world.broken["database"] = OSError("away")
    world.clock += 5
    current(state, world)
    world.clock += 0.1
    assert refusal(state, world).reason is Reason.STATE_STALE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VIEW_STALE", "never"),
        ("VIEW_STALE", "1"),
        ("VIEW_WAIT", "nan"),
        ("VIEW_STALE", 30),
        ("TRUSTED_KEYS", "{}"),
        ("TRUSTED_KEYS", {"keys": []}),
        ("GATE", 7),
    ],
)
def test_a_variable_that_cannot_be_closes_the_gate(world: World, name: str, value: Any) -> None:
    world.secrets = {name: value}
    state = State()
    for _ in range(2):
        denied = refusal(state, world)
        assert denied.reason is Reason.STATE_STALE
        assert name in denied.detail == state.error
        world.clock += AGAIN
    assert world.of("database") == world.of("kv") == []
    assert [line["result"] for line in world.lines()] == ["refused"]


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


def test_two_requests_at_an_idle_isolate_each_read_for_themselves(state: State) -> None:
    """None waits for another's reading, and none decides by what was there before."""
    versions = []

    class Busy(World):
        async def database(self, sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
            value = await super().database(sql, values, timeout)
            if reads(self) == 1:
                assert not state.fresh(self.clock)
                versions.append((await state.current(self)).version)
            return value

    world = Busy()
    world.publish(NEW, 2)
    world.clock += WAIT + 0.1
    assert [current(state, world), *versions] == [version(NEW)] * 2
    assert reads(world) == 2
    assert len(world.lines()) == 1


def test_the_background_reading_of_one_request_holds_no_other_up(state: State) -> None:
    """While it is under way others use what is here, and from ten seconds on they read for themselves."""
    during = []

    class Slow(World):
        async def database(self, sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
            value = await super().database(sql, values, timeout)
            if reads(self) == 1:
                during.append((await state.current(self)).version)  # at once, reading nothing
                self.clock = NOW + WAIT + 0.1
                self.publish(NEW, 2)
                during.append((await state.current(self)).version)
            return value

    world = Slow()
    world.clock += REFRESH + 0.1
    current(state, world)
    assert world.settle() == 1
    assert during == [version(OLD), version(NEW)]
    assert (reads(world), state.sequence) == (2, 2)


@pytest.mark.parametrize("sequence", [1, 2, 3], ids=["older by two", "older by one", "the same"])
def test_a_sequence_that_does_not_rise_is_ignored(world: World, sequence: int) -> None:
    """Rows of the ledger may be taken away, or put in its place; but what was in force stays."""
    world.publish(OLD, 3)
    state = State()
    current(state, world)
    world.d1.pointers.clear()
    world.publish(NEW, sequence)
    world.happened.clear()
    world.clock += WAIT + 0.1
    assert current(state, world) == version(OLD)
    assert (state.sequence, reads(world), world.of("kv")) == (3, 1, [])
    (line,) = world.lines()
    assert (line["result"], line["sequence"]) == ("refused", 3)
    assert line["detail"] == state.error
    assert "stays in force" in state.error


def test_a_rollback_is_an_old_bundle_under_a_new_number(state: State, world: World) -> None:
    for sequence, bundle in ((2, NEW), (3, OLD)):
        world.publish(bundle, sequence)
        world.clock += WAIT + 0.1
        assert current(state, world) == version(bundle)
        assert state.sequence == sequence


def told(head: Any) -> str:
    """What D1 tells, with that head under number 2."""
    heads = [[2, *head]] if head else []
    return canonical({"heads": heads, "acts": [], "at": None, "last": None, "sessions": None})


def bad_heads() -> list[Any]:
    """What D1 tells (a head, its whole text, or how it fails), what KV holds of the new bundle, whether D1 has told."""
    new = canonical(NEW)
    named = canonical(entry(new, 2))
    return [
        pytest.param(told(None), None, True, id="the ledger is empty"),
        pytest.param(None, None, False, id="D1 returns no row"),
        pytest.param("{", None, False, id="what D1 tells is cut short"),
        pytest.param('{"heads":[]}', None, False, id="D1 does not tell of acts"),
        pytest.param(OSError("away"), None, False, id="D1 is away"),
        pytest.param(TimeoutError(), None, False, id="D1 does not answer"),
        pytest.param(told(["", "", ""]), None, True, id="the pointer is empty"),
        pytest.param(told(["{", "", ""]), None, True, id="the pointer is cut short"),
        pytest.param(
            told([canonical(entry(new, 2, format=5)), "", ""]), new, True, id="the pointer has a newer format"
        ),
        pytest.param(
            told([canonical(entry(new, 2, format=3)), "", ""]), new, True, id="the pointer has an older format"
        ),
        pytest.param(
            told([canonical(entry(new, 2, more=1)), "", ""]), new, True, id="the pointer has a member more"
        ),
        pytest.param(
            told([canonical(entry(new, 2, gate="airgate-staging")), "", ""]), new, True, id="it is another gate's"
        ),
        pytest.param(told([named, "", ""]), None, True, id="the bundle is not there yet"),
        pytest.param(told([named, "", ""]), OSError("away"), True, id="KV goes away in between"),
        pytest.param(told([named, "", ""]), new + " ", True, id="the bundle is not the one named"),
        pytest.param(told([named, "", ""]), canonical(OLD), True, id="the bundle is another one"),
        pytest.param(told([named, "", ""]), "", True, id="the bundle is empty"),
        pytest.param(
            told([canonical(entry("[" * 9999, 2)), "", ""]), "[" * 9999, True, id="the bundle is 9,999 brackets"
        ),
        pytest.param(
            told([canonical(entry('{"format":5}', 2)), "", ""]),
            '{"format":5}',
            True,
            id="the bundle has a newer format",
        ),
    ]  # fmt: skip


def break_(world: World, says: str | Exception | None, bundle: str | Exception | None) -> None:
    world.values.clear()
    if isinstance(says, Exception):
        world.broken["database"] = says
    else:
        world.d1.says = says
    if bundle is not None:
        world.values[BUNDLE + digest(canonical(NEW))] = bundle
        for text in ("[" * 9999, '{"format":5}'):
            world.values.setdefault(BUNDLE + digest(text), text)


def mend(world: World) -> None:
    world.broken.clear()
    world.d1.says = ABSENT
    world.publish(NEW, 3)  # a number is never used twice


@pytest.mark.parametrize(("says", "bundle", "has_told"), bad_heads())
def test_the_last_good_policy_stays_in_force(
    state: State,
    world: World,
    says: str | Exception | None,
    bundle: str | Exception | None,
    has_told: bool,
) -> None:
    break_(world, says, bundle)
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
    world.clock += STALE
    if has_told:  # what has been revoked is known, so that an old policy can be decided by
        assert current(state, world) == version(OLD)
    else:
        assert refusal(state, world).reason is Reason.STATE_STALE
    mend(world)
    world.clock += WAIT + 0.1
    assert current(state, world) == version(NEW)
    assert state.error == ""
    assert [line["result"] for line in world.lines()] == ["refused", "loaded"]


@pytest.mark.parametrize(("says", "bundle", "has_told"), bad_heads())
def test_without_any_policy_the_gate_is_closed(
    world: World, says: str | Exception | None, bundle: str | Exception | None, has_told: bool
) -> None:
    break_(world, says, bundle)
    state = State()
    denied = refusal(state, world)
    assert denied.reason is (Reason.POLICY_UNAVAILABLE if has_told else Reason.STATE_STALE)
    assert denied.detail == state.error != ""
    assert not state.fresh(world.clock)
    assert len(world.lines()) == 1
    mend(world)
    world.clock += AGAIN
    assert current(state, world) == version(NEW)


def test_a_bundle_that_comes_later_than_its_pointer_comes_into_force(state: State, world: World) -> None:
    """KV may show what was written a minute after it was."""
    world.publish(NEW, 2)
    key = BUNDLE + digest(canonical(NEW))
    text = world.values.pop(key)
    for _ in range(2):
        world.clock += WAIT + 0.1
        assert current(state, world) == version(OLD)
    world.values[key] = text
    world.clock += WAIT + 0.1
    assert (current(state, world), state.error) == (version(NEW), "")
    assert [line["result"] for line in world.lines()] == ["refused", "loaded"]


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        pytest.param(WAIT + 0.1, None, id="a little old: used"),
        pytest.param(STALE, None, id="at sixty seconds: used"),
        pytest.param(STALE + 0.01, Reason.STATE_STALE, id="just after: not any more"),
        pytest.param(86_400, Reason.STATE_STALE, id="a day later: not any more"),
    ],
)
@pytest.mark.parametrize("failure", [OSError("away"), TimeoutError()])
def test_while_d1_is_away_the_view_is_used_until_it_is_too_old(
    state: State, world: World, age: float, reason: Reason | None, failure: OSError
) -> None:
    world.broken["database"] = failure
    world.clock += age
    if reason is None:
        assert current(state, world) == version(OLD)
    else:
        denied = refusal(state, world)
        assert (denied.reason, denied.detail) == (reason, state.error)
    for work in world.deferred:
        work.close()
    world.broken.clear()
    world.clock += WAIT + 0.1
    assert current(state, world) == version(OLD)


def test_a_view_that_is_too_old_by_the_end_of_waiting_is_not_used(state: State) -> None:
    class Late(World):
        async def database(self, sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
            self.clock += timeout
            raise TimeoutError

    world = Late()
    world.clock += STALE - PATIENCE / 2
    assert refusal(state, world).reason is Reason.STATE_STALE
    assert len(world.deferred) == 1
    world.deferred.pop().close()


def test_a_request_that_comes_during_the_first_read_reads_for_itself() -> None:
    """None may wait for another's read, and the pause after a failure is not for those that have not failed."""
    state, versions = State(), []

    class Busy(World):
        async def database(self, sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
            value = await super().database(sql, values, timeout)
            if reads(self) == 1:
                versions.append((await state.current(self)).version)
            return value

    world = Busy()
    assert [current(state, world), *versions] == [version(OLD)] * 2


@pytest.mark.parametrize("port", ["database", "kv"])
def test_a_read_that_takes_too_long_for_a_request_goes_on_behind_it(
    state: State, world: World, port: str
) -> None:
    """Or a bundle that takes longer than a request waits would never come into force."""
    world.publish(NEW, 2)
    world.broken[port] = TimeoutError()
    world.clock += WAIT + 0.1
    assert current(state, world) == version(OLD)
    world.broken.clear()
    assert world.settle() == 1
    assert current(state, world) == version(NEW)


def test_requests_do_not_wait_for_a_store_that_fails(state: State, world: World) -> None:
    world.broken["database"] = OSError("away")
    world.clock += WAIT + 0.1
    for _ in range(10):
        current(state, world)
    assert [timeout for _, _, timeout in world.of("database")] == [PATIENCE]
    assert world.settle() == 1  # behind one of the answers it is tried once more
    for _ in range(10):
        current(state, world)
    assert (reads(world), world.deferred) == (2, [])
    world.clock += REFRESH + 0.1
    current(state, world)
    assert (reads(world), world.settle()) == (3, 1)


def test_a_store_that_hangs_is_not_asked_by_every_request_twice(state: State) -> None:
    """Nor by requests of nobody in particular: the view comes before the token."""

    class Hanging(World):
        async def database(self, sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
            self._enter("database", (sql.split()[0], values, timeout))
            raise TimeoutError

    world = Hanging()
    world.clock += WAIT + 0.1
    for _ in range(200):
        state.view.failed_at = -1e9  # as if all of them had come at once
        current(state, world)
    assert len(world.deferred) == 1
    assert world.settle() == 1
    assert reads(world) == 201


def test_an_isolate_that_was_idle_for_long_waits_longer_for_its_first_view(state: State) -> None:
    """Nothing can be decided without it, and D1 may be far away."""

    class Far(World):
        async def database(self, sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
            value = await super().database(sql, values, timeout)
            self.clock += min(timeout, 1.5)
            if timeout < 1.5:
                raise TimeoutError
            return value

    world = Far()
    world.publish(NEW, 2)
    world.clock += STALE + 1
    assert current(state, world) == version(NEW)
    world.clock += WAIT + 1  # where the view can be used, patience ends sooner
    assert current(state, world) == version(NEW)
    assert [timeout for _, _, timeout in world.of("database")] == [SLOW, PATIENCE]
    assert world.settle() == 1


def test_without_any_policy_the_store_is_asked_once_a_second(world: World) -> None:
    world.broken["database"] = OSError("away")
    state = State()
    for step in range(5):
        world.clock = NOW + step * AGAIN / 5
        assert refusal(state, world).reason is Reason.STATE_STALE
    assert reads(world) == 1
    world.clock = NOW + AGAIN
    refusal(state, world)
    assert reads(world) == 2
    world.broken.clear()
    world.clock += AGAIN
    assert current(state, world) == version(OLD)


@pytest.mark.parametrize(
    ("secrets", "values"),
    [
        pytest.param({}, {}, id="nothing was published"),
        pytest.param(trusting(), {}, id="nothing was published, and the gate takes signed policy only"),
        pytest.param(
            {},
            {HEAD: canonical({"document": canonical(entry(canonical(OLD))), "key": "", "signature": ""})},
            id="there was a ledger once, whose copy nobody has signed",
        ),
    ],
)
def test_an_empty_ledger_is_no_policy(world: World, secrets: dict[str, str], values: dict[str, Any]) -> None:
    world.d1.pointers.clear()
    world.secrets = secrets
    world.values |= values
    state = State()
    assert unavailable(state, world).detail == state.error == "ValueError: no policy has been published"


def test_a_ledger_whose_head_does_not_count_is_no_policy(world: World) -> None:
    world.d1.pointers[1] = ("{", "", "")
    assert "number 1 of the ledger does not count" in unavailable(State(), world).detail


def test_acts_hold_without_any_new_policy(state: State, world: World) -> None:
    world.act(revocation())
    world.clock += WAIT + 0.1
    current(state, world)
    assert state.view.access.revocations == 1
    assert world.of("kv") == []


def test_an_act_is_not_lost_with_a_bundle_that_cannot_be_read(state: State, world: World) -> None:
    world.d1.pointers[2] = signed("pointer", canonical(entry("{}", 2)))
    world.act(revocation())
    world.clock += WAIT + 0.1
    assert current(state, world) == version(OLD)
    assert (state.view.access.revocations, bool(state.error)) == (1, True)


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
            if key.startswith(BUNDLE) and reads(self) == 1:
                self.d1.pointers.clear()
                self.publish(document(rule(id="other")), other)
                await state.refresh(self, SLOW)
            return value

    world = Slow()
    world.publish(NEW, mine)
    run(state.refresh(world, SLOW))
    assert (reads(world), len([key for key, _ in world.of("kv") if key.startswith(BUNDLE)])) == (2, 2)
    assert state.sequence == max(mine, other)
    assert state.version == version(document(rule(id="other")) if mine < other else NEW)
    assert [line["result"] for line in world.lines()] == ["loaded"] + ["refused"] * (mine >= other)
    assert world.lines()[0]["bundle"] == state.version


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


UNSIGNED = "no TRUSTED_KEYS: whoever can write D1 can change policy"
UNOPENED = {
    "chain": None,
    "lines": 0,
    "number": None,
    "signed": False,
    "unsigned": 0,
    "checkpoint": None,
    "failed": {"sign": 0, "register": 0, "r2": 0},
    "r2": None,
    "error": None,
}
NONE = {"hits": 0, "misses": 0}
NO_SESSIONS = {"ended": 0, "full": []}
UNTOLD = {
    "since": "1970-01-01T00:00:00.000Z",
    "decisions": {"permit": 0, "deny": 0},
    "reasons": {},
    "upstreams": {},
    "caches": {"tokens": NONE, "credentials": NONE, "shards": NONE},
    "sinks": {"logs": {"lines": 0, "lost": 0}},
    "export": None,
}


def test_the_report_of_a_state_that_has_nothing() -> None:
    assert State().report(NOW) == {
        "bundle": {
            "version": None,
            "sequence": None,
            "age": None,
            "by": None,
            "error": None,
            "zones_until": None,
        },
        "view": {
            "age": None,
            "signed": False,
            "revocations": 0,
            "grants": 0,
            "refused": 0,
            "sessions": NO_SESSIONS,
        },
        "audit": UNOPENED,
        "telemetry": UNTOLD,
        "shards": {},
        "circuits": {},
        "warnings": [UNSIGNED],
        "issuers": {},
    }


def test_the_report(state: State, world: World) -> None:
    keys = {"keys": 0, "age": None, "error": None}
    bundle = {
        "version": version(OLD),
        "sequence": 1,
        "age": 65,
        "by": "ci",
        "error": None,
        "zones_until": None,
    }
    unread = {"policies": None, "error": None}
    assert state.report(NOW + 5) == {
        "bundle": bundle,
        "view": {
            "age": 5.0,
            "signed": False,
            "revocations": 0,
            "grants": 0,
            "refused": 0,
            "sessions": NO_SESSIONS,
        },
        "audit": UNOPENED,
        "telemetry": UNTOLD,
        "shards": {"-": unread, "ledger": unread},
        "circuits": {},
        "warnings": [UNSIGNED],
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
    world.broken["database"] = OSError("away")
    run(state.refresh(world, SLOW))
    assert state.report(NOW + 5)["bundle"]["error"] == "OSError: away"


def test_a_gate_that_takes_signed_policy_only_has_nothing_to_warn_of() -> None:
    world, state = World(), State()
    world.secrets = trusting()
    run(state.current(world))
    assert (state.report(NOW)["view"]["signed"], state.report(NOW)["warnings"]) == (True, [])


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
    world.secrets = trusting()
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


def test_two_requests_that_ask_for_a_shard_at_once_get_the_same(state: State) -> None:
    found = []

    class Busy(World):
        async def kv(self, key: str, timeout: float) -> str | None:
            value = await super().kv(key, timeout)
            if len(shard_reads(self)) == 1:
                assert state.bundle is not None
                found.append(await state.shard(state.bundle, "ledger", self))
            return value

    world = Busy(OLD)
    assert shard(state, world) is found[0]
    assert len(shard_reads(world)) == 2


def test_a_newer_policy_that_comes_while_shards_are_read_stays(state: State, world: World) -> None:
    other = document(rule(id="other"))

    class Busy(World):
        async def kv(self, key: str, timeout: float) -> str | None:
            value = await super().kv(key, timeout)
            if len(shard_reads(self)) == 1 and 3 not in self.d1.pointers:
                self.publish(other, 3)
                await state.refresh(self, SLOW)
            return value

    shard(state, world)
    busy = Busy(OLD)
    busy.publish(NEW, 2)
    run(state.refresh(busy, SLOW))
    assert (state.sequence, state.version) == (3, version(other))
    assert [line["sequence"] for line in busy.lines("bundle")] == [3]
