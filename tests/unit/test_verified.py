"""Tokens that were verified: when they are known again, when they are forgotten, and what room they take."""

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from world import ED25519, ISSUER, JWKS_URI, KEY, NOW, World, document, jwks, number, run

from dpop import Binding, Proof
from identity import Grant, Mapping, identify
from keys import FRESH, USABLE, Key, Keyring
from model import Caller, Denied, Exchanged, Reason
from state import State
from verified import GENERATION, LONGEST, MOST, MOST_ACTING, Seen, Verified

MAPPING = Mapping(
    "company",
    None,
    "workload",
    (("dag", ("airflow", "dag")), ("tags", ("airflow", "tags"))),
    (Grant("reader", ("groups",), "readers"),),
    (("department",),),
)


@pytest.fixture
def world() -> World:
    return World(document())


@pytest.fixture
def ring(world: World) -> Keyring:
    """The issuer's keyring, with its key in it."""
    state = State()
    ring = state.keyring(run(state.current(world)).issuers[ISSUER])
    assert run(ring.refresh(world.fetch, NOW))
    return ring


Make = Callable[..., Seen]


@pytest.fixture
def seen(ring: Keyring) -> Make:
    """seen(token="", until=NOW + 300, claims={}): a verified token."""

    def make(
        token: str = "",
        until: float = NOW + 300,
        claims: dict[str, Any] | None = None,
        binding: Binding | None = None,
        mapping: Mapping = MAPPING,
    ) -> Seen:
        return Seen(token, identify(claims or {}, "etl", mapping), until, ring.keys[0], ring, binding)

    return make


@pytest.fixture
def verified() -> Verified:
    return Verified()


def test_a_token_is_recalled_while_it_is_valid(verified: Verified, seen: Make) -> None:
    known = seen()
    assert verified.recall("a", NOW) is None
    verified.keep("a", known)
    assert verified.recall("a", NOW) is known
    assert verified.recall("a", NOW + 299.9) is known
    assert verified.recall("b", NOW) is None
    assert verified.recall("a", NOW + 300) is None
    assert verified.recall("a", NOW) is None  # it was forgotten, not only hidden
    assert len(verified) == 0


def test_a_token_is_forgotten_with_its_key(
    verified: Verified, seen: Make, ring: Keyring, world: World
) -> None:
    known = seen()
    verified.keep("a", known)
    world.pages[JWKS_URI] = jwks({**KEY, "use": "sig"})
    assert run(ring.refresh(world.fetch, NOW + FRESH))
    assert verified.recall("a", NOW) is known
    world.pages[JWKS_URI] = jwks({**ED25519, "kid": "one", "x": number(7, 32)})
    assert run(ring.refresh(world.fetch, NOW + FRESH))
    assert verified.recall("a", NOW) is None


def test_a_token_is_not_recalled_by_keys_that_are_too_old(verified: Verified, seen: Make) -> None:
    verified.keep("a", seen(until=NOW + 2 * USABLE))
    assert verified.recall("a", NOW + USABLE - 1) is not None
    assert verified.recall("a", NOW + USABLE) is None


def test_tokens_are_bounded_in_number_and_the_oldest_go_first(verified: Verified, seen: Make) -> None:
    tokens = [f"t{number_}" for number_ in range(5 * GENERATION)]
    known = seen()
    for each in tokens:
        verified.keep(each, known)
        assert len(verified) <= 2 * GENERATION <= 2048
    assert verified.recall(tokens[-2 * GENERATION - 1], NOW) is None
    assert verified.recall(tokens[-2 * GENERATION], NOW) is known
    assert verified.recall(tokens[-1], NOW) is known


def test_a_token_in_use_is_kept_while_others_come_and_go(verified: Verified, seen: Make) -> None:
    known = seen()
    verified.keep("mine", known)
    for number_ in range(5 * GENERATION):
        verified.keep(f"t{number_}", known)
        if number_ % 100 == 0:
            assert verified.recall("mine", NOW) is known
    assert len(verified) <= 2 * GENERATION


def test_an_expired_token_in_the_old_generation_is_forgotten(verified: Verified, seen: Make) -> None:
    for number_ in range(GENERATION + 1):
        verified.keep(f"t{number_}", seen())
    assert len(verified) == GENERATION + 1
    assert verified.recall("t0", NOW + 300) is None
    assert len(verified) == GENERATION


def proof(header: str, key: Key) -> Proof:
    return Proof(header, "ES256", key, b"", b"", b"", b"", NOW)


def plain(number_: int, seen: Make) -> tuple[str, Seen]:
    token = f"{number_:08}" * 100
    return token, seen(token)


def longest(number_: int, seen: Make) -> tuple[str, Seen]:
    token = f"{number_:08}" * 1024
    return token, seen(token)


def wordy(number_: int, seen: Make) -> tuple[str, Seen]:
    """Whose claims are many texts, of characters that take four bytes."""
    token = f"{number_:08}" * 1000
    claims = {
        "department": [f"{number_}\U0001f600{each}" for each in range(200)],
        "airflow": {"dag": "\U0001f600" * 255, "tags": [f"{number_}\U0001f600{each}" for each in range(200)]},
    }
    return token, seen(token, claims=claims)


def busy(number_: int, seen: Make) -> tuple[str, Seen]:
    """A token that acts in many ways, each described at length."""
    token = f"{number_:08}" * 100
    return token, seen(token, claims={"groups": ["readers"]})


def bound(number_: int, seen: Make) -> tuple[str, Seen]:
    """A token that is bound to a key."""
    token = f"{number_:08}" * 100
    return token, seen(token, binding=Binding("k" * 43, token, b"12345678"))


MANY = MAPPING._replace(
    grants=tuple(
        Grant(f"role-{number_}", ("groups",) if number_ % 2 else ("teams",), str(number_ % 40))
        for number_ in range(2_000)
    )
)


def without_groups(number_: int, seen: Make) -> tuple[str, Seen]:
    """A token that many roles are unknown to: its claims could grant them, and are not there."""
    token = f"{number_:08}" * 100
    return token, seen(token, mapping=MANY)


def in_some_teams(number_: int, seen: Make) -> tuple[str, Seen]:
    """A token that grants some of many roles, each token others; of all the rest many are unknown."""
    token = f"{number_:08}" * 100
    grants = (*MANY.grants, *(Grant(f"role-{2 * each + 1}", ("teams",), str(each)) for each in range(1_000)))
    claims = {"teams": [str(number_), str(number_ + 2)]}
    return token, seen(token, claims=claims, mapping=MANY._replace(grants=grants))


@pytest.mark.parametrize(
    ("token_of", "count"),  # enough of them to fill more than two generations
    [
        pytest.param(plain, 2_600, id="tokens of 800 characters"),
        pytest.param(longest, 550, id="tokens as long as they may be"),
        pytest.param(wordy, 90, id="tokens with many texts in them"),
        pytest.param(busy, 250, id="tokens that act in many ways"),
        pytest.param(bound, 430, id="tokens that are bound to a key"),
        pytest.param(without_groups, 2_600, id="tokens that grant none of many roles, and don't say so"),
        pytest.param(
            in_some_teams, 450, id="tokens that grant some of many roles, and say little of the rest"
        ),
    ],
)
def test_tokens_are_bounded_in_what_they_take(
    token_of: Callable[[int, Make], tuple[str, Seen]],
    count: int,
    verified: Verified,
    seen: Make,
    ring: Keyring,
) -> None:
    gc.collect()
    tracemalloc.start()
    try:
        for number_ in range(count):
            token, known = token_of(number_, seen)
            verified.keep(token, known)
            if token_of is busy:
                for run_ in range(MOST_ACTING):
                    said = {
                        "airgate-run-id": f"{run_:0200}",
                        "airgate-dag-tags": f"\u00fc{number_}," * 16 + "x",
                    }
                    assert len(verified.acts(known, said)[1]) <= LONGEST
            if token_of is bound:
                jwk = {"kty": "EC", "x": f"{number_:043}", "y": f"{number_:043}"}
                verified.proved(known, proof(f"{number_:08}" * 500, Key(None, frozenset({"ES256"}), jwk, 64)))
        del token, known
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(verified) < count
    assert MOST / 4 < taken <= 2 * MOST <= 4_000_000  # objects take about half of it on 32 bits


def test_each_of_the_two_in_a_delegated_token_weighs_once(seen: Make) -> None:
    one = seen(claims={"groups": ["readers"], "department": ["finance"]})
    acting = Caller(one.identity, None, one.identity.granted, {})
    both = Exchanged("ledger", frozenset(), {}, (), (("subject", acting), ("actor", acting)))
    delegated = Seen("", one.identity._replace(exchanged=both), one.until, one.key, one.keyring, None)
    assert delegated.weight == 3 * one.weight


def test_the_same_headers_give_the_same_caller(seen: Make) -> None:
    known = seen()
    first = known.acts({"airgate-task-id": "a", "accept": "x"})
    assert known.acts({"airgate-task-id": "a", "accept": "y"}) is first
    assert known.acts({"airgate-task-id": "b"})[0].workload["task"].value == "b"
    assert known.acts({"airgate-run-id": "a"})[0].workload.keys() == {"run"}
    assert known.acts({})[0].workload == {}
    assert '"task":{"value":"a","attested":false}' in first[1]


def test_callers_remembered_for_one_token_are_bounded(verified: Verified, seen: Make) -> None:
    known = seen()
    weights = set()
    for number_ in range(10 * MOST_ACTING):
        caller, described = verified.acts(known, {"airgate-run-id": f"{number_:03}"})
        assert caller.workload["run"].value == f"{number_:03}"
        assert f'"run":{{"value":"{number_:03}"' in described
        assert len(known.acting) <= MOST_ACTING
        weights.add(known.weight)
    assert len(weights) == MOST_ACTING  # what was forgotten does not count any more


def test_a_caller_who_says_much_is_not_remembered(verified: Verified, seen: Make) -> None:
    known = seen()
    weight = known.weight
    caller, _ = verified.acts(known, {"airgate-dag-tags": ",".join(["\u00e4" * 100] * 5)})
    assert len(caller.workload["tags"].value) == 5
    assert (known.acting, known.weight) == ({}, weight)


def test_a_role_tag_that_is_refused_is_refused_every_time(verified: Verified, seen: Make) -> None:
    known = seen()
    for _ in range(2):
        with pytest.raises(Denied) as caught:
            verified.acts(known, {"airgate-role": "admin"})
        assert caught.value.reason is Reason.ROLE_NOT_GRANTED


def test_the_header_of_a_good_proof_is_kept_for_the_next(
    verified: Verified, seen: Make, ring: Keyring
) -> None:
    binding = Binding("k" * 43, "token", b"12345678")
    known = seen(binding=binding)
    weight, key = known.weight, ring.keys[0]
    for _ in range(2):
        verified.proved(known, proof("header", key))
        assert (binding.header, binding.known) == ("header", ("ES256", key))
        assert known.weight == weight + 2 * len("header")
    verified.proved(known, proof("another", key))
    assert (binding.header, known.weight) == ("another", weight + 2 * len("another"))


def test_a_proof_beside_a_token_that_is_bound_to_nothing_is_not_kept(seen: Make, ring: Keyring) -> None:
    known = seen()
    weight = known.weight
    known.proved(proof("header", ring.keys[0]))
    assert (known.binding, known.weight) == (None, weight)
