"""An upstream's health: when calls are held back, when one is let through to see, and that nothing is held for ever."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from language import examples

from breaker import ENOUGH, FEW, LONGEST, SHARE, SLOT, SLOTS, Health, Settings, Ticket
from model import Denied, Reason

NOW = 1_800_000_000.0
LEASE = 30.0
OPEN, OVERLOADED = Reason.UPSTREAM_CIRCUIT_OPEN, Reason.UPSTREAM_OVERLOADED
STRICT = Settings(failures=3, ratio=0.5, open=10.0)
LAX = Settings(failures=1000, ratio=0.5, open=10.0)
NO_BREAKER = Settings(failures=None)


def refusal(
    health: Health, settings: Settings, now: float, lease: float = LEASE
) -> tuple[Reason, int | None]:
    with pytest.raises(Denied) as caught:
        health.admit(settings, now, lease)
    return caught.value.reason, caught.value.retry_after


def call(health: Health, failed: bool | None, now: float, settings: Settings = STRICT) -> None:
    health.settle(health.admit(settings, now, LEASE), failed, now)


def opened(settings: Settings = STRICT) -> Health:
    """Whose circuit opened just now."""
    health = Health()
    for _ in range(3):
        call(health, True, NOW, settings)
    return health


@pytest.mark.parametrize(
    ("results", "opens"),
    [
        pytest.param([True] * 3, True, id="as many failures in a row as it takes"),
        pytest.param([True] * 2, False, id="one fewer"),
        pytest.param([True, True, False, True, True], False, id="one that worked between them"),
        pytest.param([True, True, None, True], True, id="one between them that says nothing"),
        pytest.param([None] * 10, False, id="nothing said at all"),
        pytest.param([False] * 100, False, id="all is well"),
    ],
)
def test_failures_in_a_row_open_the_circuit(results: list[bool | None], opens: bool) -> None:
    health = Health()
    for failed in results:
        call(health, failed, NOW)
    if opens:
        assert refusal(health, STRICT, NOW) == (OPEN, 10)
    else:
        health.admit(STRICT, NOW, LEASE)


def mixed(*runs: tuple[int, bool]) -> list[bool]:
    return [failed for count, failed in runs for _ in range(count)]


@pytest.mark.parametrize(
    ("results", "ratio", "opens"),
    [
        pytest.param(mixed((10, False), (10, True)), 0.5, True, id="half of twenty"),
        pytest.param(mixed((10, False), (9, True)), 0.5, False, id="half of too few"),
        pytest.param(mixed((11, False), (10, True)), 0.5, False, id="not quite half"),
        pytest.param(mixed((11, False), (11, True)), 0.5, True, id="half of more"),
        pytest.param(mixed((10, True), (10, False)), 0.5, False, id="the last ones worked: only a failure opens"),
        pytest.param(mixed((10, True), (10, False), (1, True)), 0.5, True, id="and then one failed"),
        pytest.param(mixed((18, False), (2, True)), 0.1, True, id="one in ten"),
        pytest.param(mixed((19, True),), 1.0, False, id="all, of too few"),
        pytest.param(mixed((20, True),), 1.0, True, id="all"),
    ],
)  # fmt: skip
def test_a_ratio_of_failures_opens_the_circuit(results: list[bool], ratio: float, opens: bool) -> None:
    health, settings = Health(), LAX._replace(ratio=ratio)
    for failed in results:
        call(health, failed, NOW, settings)
    if opens:
        assert refusal(health, settings, NOW) == (OPEN, 10)
    else:
        health.admit(settings, NOW, LEASE)


def test_only_recent_calls_count_for_the_ratio() -> None:
    health = Health()
    for _ in range(ENOUGH - 1):
        call(health, True, NOW, LAX)
    call(health, True, NOW + SLOT * SLOTS, LAX)
    call(health, True, NOW + SLOT * SLOTS, LAX)  # two of them are recent now
    health.admit(LAX, NOW + SLOT * SLOTS, LEASE)
    for _ in range(ENOUGH - 2):
        call(health, True, NOW + 2 * SLOT * SLOTS - SLOT, LAX)  # the two are recent still
    assert refusal(health, LAX, NOW + 2 * SLOT * SLOTS - SLOT)[0] is OPEN


def test_calls_count_anew_once_the_circuit_has_closed() -> None:
    health = Health()
    for _ in range(2):
        for _ in range(ENOUGH):
            call(health, True, NOW, LAX)
        assert refusal(health, LAX, NOW) == (OPEN, 10)
        call(health, False, NOW + 10, LAX)
        call(health, True, NOW + 10, LAX)
        for _ in range(ENOUGH - 2):
            call(health, True, NOW + 10, LAX)
        health.admit(LAX, NOW + 10, LEASE)
        call(health, True, NOW + 10, LAX)
        assert refusal(health, LAX, NOW + 10) == (OPEN, 10)
        call(health, False, NOW + 20, LAX)


def test_a_call_counts_in_the_slot_that_begins_with_it() -> None:
    health = Health()
    call(health, False, NOW, LAX)
    for _ in range(ENOUGH - 2):
        call(health, True, NOW + SLOT, LAX)
    call(health, False, NOW + SLOT * SLOTS, LAX)
    call(health, True, NOW + SLOT * SLOTS, LAX)
    assert refusal(health, LAX, NOW + SLOT * SLOTS)[0] is OPEN


def test_a_call_under_way_since_before_is_no_probe() -> None:
    health = Health()
    failing = [health.admit(STRICT, NOW, LEASE) for _ in range(3)]
    old = health.admit(STRICT, NOW, LEASE)
    for ticket in failing:
        health.settle(ticket, True, NOW)
    health.admit(STRICT, NOW + 10, LEASE)
    health.settle(old, False, NOW + 11)
    assert refusal(health, STRICT, NOW + 11)[0] is OPEN


def test_an_open_circuit_says_truly_when_to_come_back() -> None:
    health = opened()
    assert refusal(health, STRICT, NOW) == (OPEN, 10)
    assert refusal(health, STRICT, NOW + 0.5) == (OPEN, 10)
    assert refusal(health, STRICT, NOW + 9.999) == (OPEN, 1)
    health.admit(STRICT, NOW + 10, LEASE)


def test_one_probe_at_a_time_and_it_closes_the_circuit() -> None:
    health = opened()
    probe = health.admit(STRICT, NOW + 10, LEASE)
    assert refusal(health, STRICT, NOW + 10) == (OPEN, 10)  # no longer than it was open
    assert refusal(health, STRICT, NOW + 38) == (OPEN, 3)  # by then the probe's lease has ended
    health.settle(probe, False, NOW + 39)
    for _ in range(2):  # what failed before it closed is forgotten
        call(health, True, NOW + 39)
    health.admit(STRICT, NOW + 39, LEASE)


def test_a_probe_that_fails_opens_for_twice_as_long_up_to_a_minute() -> None:
    health, now, lengths = opened(), NOW, []
    for _ in range(5):
        _, wait = refusal(health, STRICT, now)
        assert wait is not None
        lengths.append(wait)
        now += wait
        call(health, True, now)
    assert lengths == [10, 20, 40, LONGEST, LONGEST]
    _, wait = refusal(health, STRICT, now)
    assert wait is not None
    call(health, False, now + wait)
    for _ in range(3):
        call(health, True, now + wait)
    assert refusal(health, STRICT, now + wait) == (OPEN, 10)  # and begins again once it has closed


def test_settings_that_ask_for_more_than_a_minute_get_it() -> None:
    settings = STRICT._replace(open=300.0)
    health = opened(settings)
    assert refusal(health, settings, NOW) == (OPEN, 300)
    call(health, True, NOW + 300, settings)
    assert refusal(health, settings, NOW + 300) == (OPEN, 300)


def test_a_probe_that_says_nothing_leaves_the_next_one_to_ask() -> None:
    health = opened()
    call(health, None, NOW + 10)
    probe = health.admit(STRICT, NOW + 10, LEASE)
    assert refusal(health, STRICT, NOW + 10)[0] is OPEN
    health.settle(probe, False, NOW + 10)
    health.admit(STRICT, NOW + 10, LEASE)


def test_a_probe_that_never_comes_back_does_not_hold_the_circuit() -> None:
    health = opened()
    lost = health.admit(STRICT, NOW + 10, 5.0)
    assert refusal(health, STRICT, NOW + 15) == (OPEN, 1)
    probe = health.admit(STRICT, NOW + 16, 5.0)
    assert refusal(health, STRICT, NOW + 16)[0] is OPEN
    health.settle(lost, False, NOW + 17)  # too late: it neither closes the circuit nor ends the other's lease
    assert refusal(health, STRICT, NOW + 17)[0] is OPEN
    health.settle(probe, False, NOW + 18)
    health.admit(STRICT, NOW + 18, LEASE)


@pytest.mark.parametrize("failed", [True, False])
def test_a_probe_that_comes_back_too_late_says_nothing(failed: bool) -> None:
    health = opened()
    late = health.admit(STRICT, NOW + 10, 5.0)
    health.settle(late, failed, NOW + 16)
    health.admit(STRICT, NOW + 16, LEASE)  # half-open as before
    assert refusal(health, STRICT, NOW + 16)[0] is OPEN


@pytest.mark.parametrize("failed", [True, False])
def test_what_was_sent_before_the_circuit_opened_or_closed_says_nothing_of_after(failed: bool) -> None:
    health = Health()
    old = [health.admit(STRICT, NOW, LEASE) for _ in range(10)]
    for _ in range(3):
        call(health, True, NOW)
    health.settle(old[0], failed, NOW + 1)
    health.settle(old[1], failed, NOW + 10)
    assert refusal(health, STRICT, NOW + 9)[0] is OPEN
    call(health, False, NOW + 10)
    for ticket in old[2:]:
        health.settle(ticket, failed, NOW + 11)
    for _ in range(2):
        call(health, True, NOW + 12)
    health.admit(STRICT, NOW + 12, LEASE)


def test_without_a_breaker_nothing_is_held_back() -> None:
    health = Health()
    for _ in range(1000):
        call(health, True, NOW, NO_BREAKER)
    health.admit(NO_BREAKER, NOW, LEASE)


def test_a_circuit_closes_when_policy_turns_the_breaker_off() -> None:
    health = opened()
    call(health, True, NOW, NO_BREAKER)
    for _ in range(2):
        call(health, True, NOW)
    assert refusal(health, STRICT, NOW)[0] is OPEN  # with what came since it was turned off


def test_a_clock_that_is_set_back_does_not_hold_the_circuit() -> None:
    health = opened()
    assert refusal(health, STRICT, NOW - 3600) == (OPEN, 10)
    health.admit(STRICT, NOW - 3590, LEASE)


CAPPED = STRICT._replace(concurrency=3)


def test_calls_above_the_cap_are_refused_at_once() -> None:
    health = Health()
    tickets = [health.admit(CAPPED, NOW, LEASE) for _ in range(3)]
    assert refusal(health, CAPPED, NOW) == (OVERLOADED, 1)
    health.admit(STRICT, NOW, LEASE)  # no cap, by another version of the policy; yet it is counted
    health.settle(tickets[0], False, NOW)
    assert refusal(health, CAPPED, NOW) == (OVERLOADED, 1)
    health.settle(tickets[1], False, NOW)
    health.admit(CAPPED, NOW, LEASE)


def test_calls_that_never_come_back_do_not_hold_their_places() -> None:
    health = Health()
    for lease in (5.0, 50.0, 500.0):
        health.admit(CAPPED, NOW, lease)
    assert refusal(health, CAPPED, NOW + 5) == (OVERLOADED, 1)
    health.admit(CAPPED, NOW + 6, 1000.0)
    assert refusal(health, CAPPED, NOW + 50) == (OVERLOADED, 1)
    health.admit(CAPPED, NOW + 51, 1000.0)
    assert refusal(health, CAPPED, NOW + 500) == (OVERLOADED, 1)
    health.admit(CAPPED, NOW + 501, 1000.0)


@pytest.mark.parametrize("late", [0, 1, 31, 1000])
def test_a_call_gives_its_place_back_once(late: int) -> None:
    health = Health()
    ticket = health.admit(CAPPED, NOW, LEASE)
    for _ in range(3):
        health.settle(ticket, False, NOW + late)
    for _ in range(3):
        health.admit(CAPPED, NOW + late, LEASE)
    health.settle(ticket, False, NOW + late)
    assert refusal(health, CAPPED, NOW + late)[0] is OVERLOADED


def test_a_result_counts_once() -> None:
    health = Health()
    ticket = health.admit(STRICT, NOW, LEASE)
    for _ in range(5):
        health.settle(ticket, True, NOW)
    health.admit(STRICT, NOW, LEASE)


def test_a_call_that_the_cap_refuses_is_no_probe() -> None:
    health = Health()
    busy = [health.admit(STRICT, NOW, LEASE) for _ in range(3)]
    for _ in range(3):
        call(health, True, NOW)
    assert refusal(health, CAPPED, NOW + 10)[0] is OVERLOADED
    health.settle(busy[0], None, NOW + 10)
    health.admit(CAPPED, NOW + 10, LEASE)
    assert refusal(health, CAPPED, NOW + 10)[0] is OPEN


def test_a_quiet_upstream_may_be_retried_a_few_times() -> None:
    health = Health()
    assert [health.may_retry(NOW) for _ in range(FEW + 5)] == [True] * FEW + [False] * 5
    assert not health.may_retry(NOW + SLOT * (SLOTS - 1))
    assert health.may_retry(NOW + SLOT * SLOTS)


def test_a_busy_upstream_may_be_retried_for_a_share_of_its_calls() -> None:
    health = Health()
    for _ in range(1000):
        call(health, False, NOW)
    allowed = 0
    while health.may_retry(NOW):
        allowed += 1
    assert allowed == 1000 // SHARE


def test_nothing_is_retried_while_the_circuit_is_open() -> None:
    health = opened()
    assert not health.may_retry(NOW)
    assert not health.may_retry(NOW + 10)
    call(health, True, NOW + 10)
    assert not health.may_retry(NOW + 10)
    call(health, False, NOW + 30)
    assert health.may_retry(NOW + 30)


def test_what_it_remembers_is_bounded() -> None:
    health = Health()
    assert (SLOT * SLOTS, ENOUGH, LONGEST, FEW, SHARE) == (30, 20, 60, 10, 5)
    for number in range(20_000):
        now = NOW + number / 10
        health.settle(health.admit(LAX, now, LEASE), number % 7 == 0, now)
        health.admit(LAX, now, LEASE)  # never settled
        health.may_retry(now)
        assert len(health._recent) <= SLOTS
        assert len(health._held) == len(health._ends) <= LEASE + 2
        assert health._count <= 10 * (LEASE + 1) + 2


class Naive:
    """The same, written down as the rules say: everything is kept, and counted anew each time."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.results: list[tuple[int, bool]] = []  # by slot
        self.retries: list[int] = []
        self.row = 0
        self.opened: tuple[float, float] | None = None  # until when, for how long
        self.probe: dict[str, Any] | None = None

    def recent(self, slots: Iterable[int], now: float) -> int:
        return sum(now // SLOT - SLOTS < slot for slot in slots)

    def admit(self, settings: Settings, now: float, lease: float) -> Reason | dict[str, Any]:
        if self.opened is not None and settings.failures is None:
            self.close()
        probing = self.opened is not None
        if probing:
            assert self.opened is not None
            if now < self.opened[0] or (self.probe is not None and now < self.probe["end"]):
                return OPEN
        busy = sum(not call["settled"] and now < call["end"] for call in self.calls)
        if settings.concurrency is not None and busy >= settings.concurrency:
            return OVERLOADED
        call = {"end": int(now + lease) + 1, "settings": settings, "settled": False, "stale": False}
        self.calls.append(call)
        if probing:
            self.probe = call
        return call

    def settle(self, call: dict[str, Any], failed: bool | None, now: float) -> None:
        if call["settled"]:
            return
        call["settled"] = True
        if self.opened is not None:
            if self.probe is call:
                self.probe = None
                if failed is not None and now < call["end"]:
                    if failed:
                        length = max(call["settings"].open, min(60, 2 * self.opened[1]))
                        self.change((now + length, length))
                    else:
                        self.close()
            return
        if failed is None or call["stale"]:
            return
        self.results.append((int(now // SLOT), failed))
        self.row = self.row + 1 if failed else 0
        settings = call["settings"]
        calls = self.recent((slot for slot, _ in self.results), now)
        failures = self.recent((slot for slot, bad in self.results if bad), now)
        if failed and settings.failures is not None:
            many = calls >= 20 and failures >= settings.ratio * calls
            if self.row >= settings.failures or many:
                self.change((now + settings.open, settings.open))

    def close(self) -> None:
        self.change(None)
        self.results, self.retries, self.row = [], [], 0

    def change(self, opened: tuple[float, float] | None) -> None:
        self.opened = opened
        for call in self.calls:
            call["stale"] = True

    def may_retry(self, now: float) -> bool:
        if self.opened is not None:
            return False
        calls = self.recent((slot for slot, _ in self.results), now)
        if self.recent(self.retries, now) >= max(10, calls // 5):
            return False
        self.retries.append(int(now // SLOT))
        return True


VARIANTS = st.builds(
    Settings,
    st.sampled_from([3, 3, 7, 1000, None]),
    st.sampled_from([0.3, 0.5, 1.0]),
    st.sampled_from([1.0, 10.0, 45.0, 90.0]),
    st.sampled_from([None, None, 1, 2, 5, 30]),
)
RESULTS = st.sampled_from([True, True, True, False, False, None])


class Comparison(RuleBasedStateMachine):
    """Both are told the same; they must say the same."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.health, self.naive = Health(), Naive()
        self.calls: list[tuple[Ticket, dict[str, Any]]] = []

    def begin(self, settings: Settings, lease: float) -> bool:
        expected = self.naive.admit(settings, self.now, lease)
        if isinstance(expected, Reason):
            reason, wait = refusal(self.health, settings, self.now, lease)
            assert reason is expected
            assert wait is not None
            assert 1 <= wait <= 90
            return False
        ticket = self.health.admit(settings, self.now, lease)
        self.calls.append((ticket, expected))
        return True

    def end(self, which: int, failed: bool | None) -> None:
        ticket, call = self.calls[which % len(self.calls)]
        self.health.settle(ticket, failed, self.now)
        self.naive.settle(call, failed, self.now)

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.9, 1.0, 2.5, 3.0, 10.0, 29.0, 31.0, 90.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(settings=VARIANTS, lease=st.sampled_from([0.5, 5.0, 30.0, 100.0]))
    def leave(self, settings: Settings, lease: float) -> None:
        """A call that is settled later, or never."""
        self.begin(settings, lease)

    @rule(settings=VARIANTS, failed=RESULTS, count=st.integers(1, 25))
    def several(self, settings: Settings, failed: bool | None, count: int) -> None:
        for _ in range(count):
            if self.begin(settings, 30.0):
                self.end(-1, failed)

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 1000), failed=RESULTS)
    def come_back(self, which: int, failed: bool | None) -> None:
        """Any call, whether its lease has ended or it was settled before."""
        self.end(which, failed)

    @rule(count=st.integers(1, 15))
    def retry(self, count: int) -> None:
        for _ in range(count):
            assert self.health.may_retry(self.now) is self.naive.may_retry(self.now)

    @invariant()
    def holds_no_more_than_is_under_way(self) -> None:
        # Leases that have ended are taken off with the next call.
        busy = sum(not call["settled"] for _, call in self.calls)
        assert 0 <= self.health._count <= busy


def test_it_does_what_the_rules_say() -> None:
    run: Callable[..., None] = run_state_machine_as_test
    run(
        Comparison,
        settings=hypothesis_settings(max_examples=examples(200), stateful_step_count=40, deadline=None),
    )


@pytest.mark.parametrize("lease", [0.5, 30.0, 299.5])
def test_whatever_was_claimed_is_free_once_its_lease_has_ended(lease: float) -> None:
    health = opened(CAPPED)
    now = NOW + 10
    for _ in range(50):  # each the probe of a client that left
        health.admit(CAPPED, now, lease)
        assert refusal(health, CAPPED, now)[0] is OPEN
        now = int(now + lease) + 1.0


def test_how_a_circuit_stands_is_told() -> None:
    health = Health()
    assert health.circuit(NOW) == "closed"
    health.settle(health.admit(Settings(failures=1), NOW, 30), True, NOW)
    assert (health.circuit(NOW), health.circuit(NOW + 9.9)) == ("open", "open")
    assert health.circuit(NOW + 10) == "half-open"
    probe = health.admit(Settings(failures=1), NOW + 10, 30)
    assert health.circuit(NOW + 10) == "half-open"
    health.settle(probe, False, NOW + 11)
    assert health.circuit(NOW + 11) == "closed"
