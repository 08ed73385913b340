"""The gate's statement to an upstream: its keys, what it says, and that nothing in it can be made to say more."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_signing import ED25519, P256, RSA
from world import ABSENT, NOW, b64, run, without

from assertion import (
    FACTS,
    LIFE,
    LIMIT,
    LONGEST,
    LONGEST_FACT,
    MOST_KEYS,
    MOST_POLICIES,
    MOST_ROLES,
    TYPE,
    AssertionKeys,
    assertion,
    claims,
    read_keys,
)
from document import read_base64url, read_object
from model import Caller, Decision, Denied, Exchanged, Fact, Identity, Reason
from signing import SigningKey

ISSUER = "https://gate.example.com"
NEW = {**P256, "kid": "new"}
OLD = {**ED25519, "kid": "old"}
OLDEST = {name: value for name, value in {**P256, "kid": "oldest"}.items() if name != "d"}


def secret(*keys: Any, **changes: Any) -> str:
    return json.dumps(without({"issuer": ISSUER, "keys": list(keys or (NEW, OLD, OLDEST))}, **changes))


KEYS = read_keys(secret())


def caller(
    subject: str = "etl",
    roles: frozenset[str] = frozenset({"publisher", "reader"}),
    actor: str | None = None,
    actor_issuer: str | None = None,
    **facts: Fact,
) -> Caller:
    identity = Identity(
        "company",
        subject,
        "workload",
        frozenset({*roles, "unused"}),
        {},
        actor=actor,
        actor_issuer=actor_issuer,
    )
    return Caller(identity, None, roles, facts)


DECISION = Decision(True, None, ("publish", "read"), bundle="b" * 64)


def said(
    who: Caller | None = None, decision: Decision = DECISION, keys: AssertionKeys = KEYS, now: float = NOW
) -> dict[str, Any]:
    """The claims, read strictly."""
    text = claims(keys, who or caller(), decision, "ledger", "f" * 32, now)
    assert text.isascii()
    return read_object(text, limit=100_000)


# Keys.


def test_the_first_private_key_signs_and_all_are_published() -> None:
    assert (KEYS.issuer, KEYS.key.kid, KEYS.key.algorithm) == (ISSUER, "new", "ES256")
    public = ("kty", "crv", "x", "y")
    assert json.loads(KEYS.jwks) == {
        "keys": [
            {**{name: NEW[name] for name in public}, "kid": "new", "alg": "ES256", "use": "sig"},
            {**{name: OLD[name] for name in public[:3]}, "kid": "old", "alg": "EdDSA", "use": "sig"},
            {**{name: NEW[name] for name in public}, "kid": "oldest", "alg": "ES256", "use": "sig"},
        ]
    }
    for jwk in (NEW, OLD):
        assert jwk["d"] not in KEYS.jwks
        assert jwk["d"] not in repr(KEYS)


def test_a_key_that_is_published_before_it_signs() -> None:
    keys = read_keys(secret(OLDEST, OLD))
    assert (keys.key.kid, keys.key.algorithm) == ("old", "EdDSA")
    assert [jwk["kid"] for jwk in json.loads(keys.jwks)["keys"]] == ["oldest", "old"]


def test_members_of_a_key_that_are_for_people_are_not_published() -> None:
    keys = read_keys(secret({**NEW, "iat": 1_800_000_000, "note": "by hand"}))
    assert json.loads(keys.jwks)["keys"][0].keys() == {"kty", "crv", "x", "y", "kid", "alg", "use"}
    assert keys.key.jwk.keys() == {"kty", "crv", "x", "y", "d"}


WRONG = [
    pytest.param("", id="nothing"),
    pytest.param("[]", id="a list"),
    pytest.param(json.dumps(NEW), id="a single key"),
    pytest.param(secret(issuer=ABSENT), id="no issuer"),
    pytest.param(secret(issuer="http://gate.example.com"), id="an issuer over plain http"),
    pytest.param(secret(issuer=["https://gate.example.com"]), id="an issuer that is a list"),
    pytest.param(secret(keys=ABSENT), id="no keys"),
    pytest.param(secret(keys=[]), id="an empty list of keys"),
    pytest.param(secret(keys=NEW), id="keys that are one key"),
    pytest.param(secret(*[NEW] * (MOST_KEYS + 1)), id="too many keys"),
    pytest.param(secret(OLDEST), id="no private key"),
    pytest.param(secret(NEW, {**OLD, "kid": "new"}), id="two keys under one id"),
    pytest.param(secret(P256), id="a key without an id"),
    pytest.param(secret({**NEW, "kid": ""}), id="a key with an empty id"),
    pytest.param(secret({**NEW, "kid": "k" * 257}), id="a key with a long id"),
    pytest.param(secret({**NEW, "kid": 1}), id="a key whose id is a number"),
    pytest.param(secret("new"), id="a key that is a text"),
    pytest.param(secret({**RSA, "kid": "rsa"}), id="an RSA key"),
    pytest.param(secret(NEW, {"kty": "RSA", "n": RSA["n"], "e": RSA["e"], "kid": "rsa"}), id="a public RSA key"),
    pytest.param(secret({**NEW, "d": OLD["d"]}), id="a private key that is another's"),
    pytest.param(secret(NEW, {**OLDEST, "y": OLDEST["x"]}), id="a public key that is none"),
    pytest.param(secret(NEW, {**without(ED25519, d=ABSENT), "kid": "k", "q": "AQ"}), id="another private member"),
    pytest.param(secret({**NEW, "use": "enc"}), id="a key for encryption"),
    pytest.param(secret(note="x" * LIMIT), id="too long"),
    pytest.param('{"keys":[],"keys":[]}', id="a name twice"),
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_keys_that_cannot_be_used(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what it says is for people
        read_keys(text)
    assert type(caught.value) is ValueError  # others quote what they could not read
    for key in (NEW, OLD):
        assert key["d"] not in str(caught.value)


# What is said.


def test_what_an_assertion_says() -> None:
    who = caller(
        dag=Fact("daily", True), task=Fact("load", False), run=Fact("r1", False), environment=Fact("p", True)
    )
    assert said(who, now=NOW + 0.9) == {
        "iss": ISSUER,
        "aud": "ledger",
        "sub": "etl",
        "iat": int(NOW),
        "exp": int(NOW) + LIFE,
        "jti": "f" * 32,
        "airgate": {
            "issuer": "company",
            "kind": "workload",
            "roles": ["publisher", "reader"],
            "dag": {"value": "daily", "attested": True},
            "task": {"value": "load", "attested": False},
            "run": {"value": "r1", "attested": False},
            "policy": ["publish", "read"],
            "bundle": "b" * 64,
        },
    }


def test_it_lives_for_a_minute_at_most() -> None:
    assert LIFE <= 60


def test_what_is_not_known_is_not_said() -> None:
    assert said()["airgate"].keys() == {"issuer", "kind", "roles", "policy", "bundle"}


def test_somebody_who_acts_for_the_subject_is_named_with_who_gave_the_name() -> None:
    one, other = (
        said(caller(actor="agent-7", actor_issuer=f"https://{name}.example.com"))["act"]
        for name in ("company", "partner")
    )
    assert one == {"iss": "https://company.example.com", "sub": "agent-7"}
    assert other == {"iss": "https://partner.example.com", "sub": "agent-7"}
    assert said(caller(actor="agent-7"))["act"] == {"sub": "agent-7"}
    assert "act" not in said()


def test_who_acted_before_is_named_inside() -> None:
    """The subject's issuer says that bob acts for it; the assistant acts for both."""
    own = caller(actor="bob", actor_issuer="https://company.example.com")
    alone = (("subject", own), ("actor", caller("assistant")))
    both = caller(actor="assistant", actor_issuer="https://partner.example.com")
    exchanged = Exchanged("ledger", both.effective, {}, (), alone)
    acting = said(both._replace(identity=both.identity._replace(exchanged=exchanged)))["act"]
    earlier = {"iss": "https://company.example.com", "sub": "bob"}
    assert acting == {"iss": "https://partner.example.com", "sub": "assistant", "act": earlier}


def test_a_gate_token_that_nobody_acts_in_names_nobody() -> None:
    exchanged = Exchanged("ledger", frozenset(), {}, ())
    who = caller()
    assert "act" not in said(who._replace(identity=who.identity._replace(exchanged=exchanged)))


def test_no_role_is_said_that_is_not_in_use() -> None:
    assert said(caller(roles=frozenset()))["airgate"]["roles"] == []


def test_many_roles() -> None:
    roles = [f"role-{number:03}" for number in range(MOST_ROLES + 1)]
    some = said(caller(roles=frozenset(roles[:MOST_ROLES])))["airgate"]
    assert (some["roles"], "more_roles" in some) == (roles[:MOST_ROLES], False)
    more = said(caller(roles=frozenset(roles)))["airgate"]
    assert (more["roles"], more["more_roles"]) == (roles[:MOST_ROLES], True)


def test_many_policies() -> None:
    ids = tuple(f"p{number}" for number in range(MOST_POLICIES + 5))
    assert said(decision=DECISION._replace(permits=ids))["airgate"]["policy"] == list(ids[:MOST_POLICIES])


TOO_LONG = [
    pytest.param(caller("s" * (LONGEST + 1)), id="a subject"),
    pytest.param(caller(actor="s" * (LONGEST + 1)), id="an actor"),
    pytest.param(caller(actor="s", actor_issuer="s" * (LONGEST + 1)), id="an actor's issuer"),
    *[pytest.param(caller(**{name: Fact("s" * (LONGEST_FACT + 1), True)}), id=f"a {name}") for name in FACTS],
]


@pytest.mark.parametrize("who", TOO_LONG)
def test_what_names_somebody_is_never_cut(who: Caller) -> None:
    """Two that begin alike would have one name."""
    with pytest.raises(Denied) as caught:
        said(who)
    assert caught.value.reason is Reason.UPSTREAM_CREDENTIAL


def test_the_longest_names_are_whole() -> None:
    who = caller("s" * LONGEST, dag=Fact("d" * LONGEST_FACT, True))
    assert said(who)["sub"] == "s" * LONGEST
    assert said(who)["airgate"]["dag"]["value"] == "d" * LONGEST_FACT


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(
    subject=TEXT,
    actor=st.one_of(st.none(), st.tuples(TEXT, TEXT)),
    roles=st.frozensets(TEXT, max_size=5),
    facts=st.dictionaries(st.sampled_from(FACTS), st.tuples(TEXT, st.booleans())),
)
def test_no_name_can_say_more_than_itself(
    subject: str, actor: tuple[str, str] | None, roles: frozenset[str], facts: dict[str, tuple[str, bool]]
) -> None:
    name, issuer = actor or (None, None)
    who = caller(subject, roles, name, issuer, **{name: Fact(*fact) for name, fact in facts.items()})
    read = said(who)
    acting = None if actor is None else {"iss": issuer, "sub": name}
    assert (read["sub"], read.get("act")) == (subject, acting)
    assert read["airgate"]["roles"] == sorted(roles)
    for name in FACTS:
        value, attested = facts.get(name, (None, None))
        assert read["airgate"].get(name) == (
            None if value is None else {"value": value, "attested": attested}
        )
    assert read.keys() <= {"iss", "aud", "sub", "act", "iat", "exp", "jti", "airgate"}


def test_a_fact_of_several_values() -> None:
    assert said(caller(dag=Fact(("a", "b"), True)))["airgate"]["dag"] == {
        "value": ["a", "b"],
        "attested": True,
    }


# How it is signed.


@pytest.mark.parametrize(("key", "algorithm"), [(NEW, "ES256"), (OLD, "EdDSA")], ids=["ES256", "EdDSA"])
def test_a_signed_assertion(key: dict[str, str], algorithm: str) -> None:
    keys, asked = read_keys(secret(key)), []

    async def sign(with_key: SigningKey, data: bytes) -> bytes:
        asked.append((with_key, data))
        return b"\xfe" * 64

    text = run(assertion(keys, caller(), DECISION, "ledger", "f" * 32, NOW, sign))
    header, middle, signature = text.split(".")
    assert json.loads(read_base64url(header)) == {"alg": algorithm, "kid": key["kid"], "typ": TYPE}
    assert json.loads(read_base64url(middle)) == said(keys=keys)
    assert signature == b64(b"\xfe" * 64)
    assert asked == [(keys.key, f"{header}.{middle}".encode())]


def test_a_key_that_the_runtime_refuses() -> None:
    async def sign(key: SigningKey, data: bytes) -> bytes:
        raise Denied(Reason.UPSTREAM_CREDENTIAL, "DataError")

    with pytest.raises(Denied):
        run(assertion(KEYS, caller(), DECISION, "ledger", "f" * 32, NOW, sign))
