"""Acts: every member of one, that order means nothing, whom a revocation hits, what a grant lends and what never."""

import json
from itertools import permutations
from random import Random
from typing import Any

import pytest
from world import NOW, canonical, digest, grant, revocation, rule, shards, undoing

from access import (
    LIMIT,
    LONGEST,
    LONGEST_GRANT,
    MOST,
    Access,
    Act,
    act_id,
    decide,
    load_act,
    with_roles,
)
from conditions import Call
from identity import Grant, Mapping, act, identify
from model import Caller, Decision, Denied, Fact, Identity, Reason, Target
from shard import Shard, load_shard

LIFT = undoing("lift", "{}")
END = undoing("end", "{}")
HEX = digest("{}")[:32]


def read(document: dict[str, Any]) -> Act:
    return load_act(canonical(document))


# One act.


def test_an_act_is_known_by_the_hash_of_its_text() -> None:
    text = canonical(revocation())
    assert act_id(text) == load_act(text).id == digest(text)[:32]
    assert load_act(" " + text).id != load_act(text).id  # another text is another act


def test_what_is_read_of_a_revocation() -> None:
    one = read(revocation(match={"subject": "etl", "dag": "close", "issuer": "company"}))
    assert one[1:] == (
        "revoke",
        "airgate",
        NOW - 5,
        NOW - 5,
        NOW + 3600,
        "oncall",
        "its token leaked",
        "",
        (("dag", "close"), ("issuer", "company"), ("subject", "etl")),
        (),
        "",
        "",
    )
    assert not one.opens


def test_what_is_read_of_a_grant() -> None:
    one = read(grant(**{"from": int(NOW) + 60}))
    assert (one.act, one.at, one.begins, one.until) == ("grant", NOW - 5, NOW + 60, NOW + 3600)
    assert (one.to, one.role, one.policy, one.opens) == (
        (("issuer", "company"), ("subject", "finance-etl")),
        "closer",
        "",
        True,
    )
    named = read(grant(to={"subject": "a b/c", "issuer": "company"}, gives={"policy": "publish"}))
    assert named.to == (("issuer", "company"), ("subject", "a b/c"))
    assert (named.role, named.policy) == ("", "publish")
    assert read(grant(to={"role": "publisher"})).to == (("role", "publisher"),)


def test_what_is_read_of_a_lift_and_of_an_end() -> None:
    lift, end = read(LIFT), read(END)
    assert (lift.act, lift.of, lift.opens) == ("lift", HEX, True)
    assert (end.act, end.of, end.opens) == ("end", HEX, False)
    assert lift.match == lift.to == end.match == end.to == ()


ACCEPTED = [
    *[
        pytest.param(revocation(match={name: "x"}), id=f"a revocation of a {name} alone")
        for name in ("token_id", "session", "issuer", "subject", "dag", "task", "run")
    ],
    pytest.param(
        revocation(
            match=dict.fromkeys(("token_id", "session", "issuer", "subject", "dag", "task", "run"), "x")
        ),
        id="a revocation of all of them together",
    ),
    pytest.param(revocation(match={"subject": "x" * LONGEST}), id="the longest subject"),
    pytest.param(revocation(match={"subject": "auth0|6Ω \U0001f600"}), id="a subject in any language"),
    pytest.param(revocation(reason="x" * LONGEST), id="the longest reason"),
    pytest.param(revocation(until=2**53), id="for ever"),
    pytest.param(revocation(at=0, until=0), id="long over"),
    pytest.param(grant(until=int(NOW) - 5 + LONGEST_GRANT), id="a grant for seven days"),
    pytest.param(grant(until=int(NOW) - 4), id="a grant for a second"),
    pytest.param(grant(at=int(NOW) + 99), id="a grant that begins before it was made"),
    pytest.param(grant(to={"role": "a" * 63}), id="the longest role"),
    pytest.param(undoing("lift", "{}", until=2**53), id="a lift for ever"),
]


@pytest.mark.parametrize("document", ACCEPTED)
def test_an_act_that_can_be_read(document: dict[str, Any]) -> None:
    one = read(document)
    assert (one.act, one.until, one.by, one.reason) == tuple(
        document[name] for name in ("act", "until", "by", "reason")
    )


EVERY = {"revoke": revocation(), "grant": grant(), "lift": LIFT, "end": END}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, document in EVERY.items() for name in document]
)
def test_every_member_of_an_act_is_required(kind: str, name: str) -> None:
    document = {member: value for member, value in EVERY[kind].items() if member != name}
    with pytest.raises(ValueError, match=rf"^act\.{name}: missing"):
        read(document)


TIMES = [-1, 2**53 + 1, 1.5, "1", True, None]
TEXTS = ["", "x" * (LONGEST + 1), 7, None, ["x"]]
NAMES = ["", "A", "-a", "a b", "a" * 64, "é", 7, None]


def wrong() -> list[Any]:
    rows: list[tuple[str, dict[str, Any], list[tuple[str, list[Any]]]]] = [
        ("revoke", revocation(), [("match", [None, [], "subject", 7])]),
        (
            "grant",
            grant(),
            [
                ("from", [*TIMES, int(NOW) + 3600, int(NOW) + 3601, int(NOW) + 3599 - LONGEST_GRANT]),
                ("to", [None, [], "etl", {}]),
                ("gives", [None, [], "closer", {}]),
            ],
        ),
        ("lift", LIFT, [("of", TEXTS)]),
        ("end", END, [("of", TEXTS)]),
    ]
    found = []
    for kind, document, own in rows:
        common = [
            ("act", ["", "Revoke", "delete", None, 7, ["revoke"]]),
            ("at", TIMES),
            ("until", TIMES),
            ("gate", TEXTS),
            ("by", TEXTS),
            ("reason", TEXTS),
        ]
        for name, values in [*common, *own]:
            for value in values:
                changed = {**document, name: value}
                found.append(pytest.param(changed, id=f"{kind}: {name} {json.dumps(value):.12}"))
        found.append(pytest.param({**document, "more": 1}, id=f"{kind}: a member more"))
    inside: list[tuple[str, dict[str, Any], str, list[dict[str, Any]]]] = [
        (
            "revoke",
            revocation(),
            "match",
            [{}, {"role": "x"}, {"subject": "x", "try": "y"}, *[{"subject": value} for value in TEXTS]],
        ),
        ("revoke", revocation(), "match", [{"token_id": value} for value in TEXTS]),
        ("revoke", revocation(), "match", [{"session": value} for value in TEXTS]),
        ("revoke", revocation(), "match", [{"dag": "x", "task": value} for value in TEXTS]),
        ("revoke", revocation(), "match", [{"subject": "x", "dag": value} for value in TEXTS]),
        (
            "grant",
            grant(),
            "to",
            [
                {"issuer": "company"},
                {"subject": "a"},
                {"role": "a", "subject": "b"},
                {"role": "a", "issuer": "b"},
                {"issuer": "company", "subject": "a", "more": 1},
                *[{"role": value} for value in NAMES],
                *[{"issuer": "company", "subject": value} for value in TEXTS],
                *[{"subject": "a", "issuer": value} for value in NAMES],
            ],
        ),
        (
            "grant",
            grant(),
            "gives",
            [
                {"role": "a", "policy": "b"},
                {"role": "a", "more": 1},
                {"policy": "a", "more": 1},
                {"more": 1},
                *[{"role": value} for value in NAMES],
                *[{"policy": value} for value in TEXTS],
            ],
        ),
    ]
    found += [
        pytest.param({**document, name: value}, id=f"{kind}: {name} {json.dumps(value):.40}")
        for kind, document, name, values in inside
        for value in values
    ]
    # What belongs to another kind of act.
    for kind, document in EVERY.items():
        for other, its in EVERY.items():
            extra = its.keys() - document.keys()
            found += [
                pytest.param({**document, name: its[name]}, id=f"{kind}: {name}, which is {other}'s")
                for name in sorted(extra)
            ]
    return found


@pytest.mark.parametrize("document", wrong())
def test_an_act_that_cannot_be_read(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^act"):
        read(document)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("[]", id="a list"),
        pytest.param("{}", id="an empty object"),
        pytest.param(canonical(grant())[:-1], id="cut short"),
        pytest.param(canonical(grant()) * 2, id="two of them"),
        pytest.param(canonical(grant()).replace('"until"', '"until":1,"until"'), id="a name twice"),
        pytest.param(canonical(grant()).replace("oncall", "\\ud800"), id="a lone surrogate"),
        pytest.param(canonical(revocation()) + " " * LIMIT, id="too long"),
        pytest.param(canonical(revocation(match={"subject": [[]]})), id="too deep"),
    ],
)
def test_a_text_that_is_no_act(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        load_act(text)


# Sets of acts.


def known(*documents: dict[str, Any], now: float = NOW) -> Access:
    access = Access()
    access.add([read(document) for document in documents], now)
    return access


def identity(
    subject: str = "finance-etl",
    roles: str = "",
    *,
    issuer: str = "company",
    token_id: str | None = None,
    session: str | None = None,
    actor: str | None = None,
    unknown: str = "",
) -> Identity:
    """An identity; roles are single letters here, or words with spaces in between."""
    return Identity(
        issuer,
        subject,
        "workload",
        frozenset(roles.split()),
        {},
        frozenset(unknown.split()),
        actor=actor,
        token_id=token_id,
        session=session,
    )


def caller(who: Identity | None = None, **workload: tuple[str, bool]) -> Caller:
    who = who or identity()
    return Caller(who, None, who.granted, {name: Fact(*fact) for name, fact in workload.items()})


REVOKED = revocation()
LIFTED = undoing("lift", canonical(REVOKED))
GRANTED = grant()
ENDED = undoing("end", canonical(GRANTED))


def effect(access: Access, now: float = NOW) -> tuple[bool, bool, int, int]:
    """Whether the usual subject is refused, whether it is lent anything, and how many of each there are."""
    return (
        access.revoked(caller(), now) is not None,
        access.lent(identity(), now) is not None,
        access.revocations,
        access.grants,
    )


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        pytest.param([], (False, False, 0, 0), id="nothing"),
        pytest.param([REVOKED], (True, False, 1, 0), id="revoked"),
        pytest.param([REVOKED, LIFTED], (False, False, 0, 0), id="revoked and lifted"),
        pytest.param([LIFTED], (False, False, 0, 0), id="lifted, and never revoked"),
        pytest.param(
            [REVOKED, LIFTED, revocation(reason="again")], (True, False, 1, 0), id="lifted, and revoked again"
        ),
        pytest.param(
            [REVOKED, undoing("lift", canonical(revocation(reason="another")))],
            (True, False, 1, 0),
            id="another one lifted",
        ),
        pytest.param([REVOKED, undoing("end", canonical(REVOKED))], (True, False, 1, 0), id="an end lifts nothing"),
        pytest.param(
            [REVOKED, LIFTED, undoing("lift", canonical(LIFTED))], (False, False, 0, 0), id="a lift is not lifted"
        ),
        pytest.param([GRANTED], (False, True, 0, 1), id="granted"),
        pytest.param([GRANTED, ENDED], (False, False, 0, 0), id="granted and ended"),
        pytest.param([GRANTED, undoing("lift", canonical(GRANTED))], (False, True, 0, 1), id="a lift ends no grant"),
        pytest.param([GRANTED, ENDED, grant(reason="again")], (False, True, 0, 1), id="ended, and granted again"),
        pytest.param([GRANTED, grant(gives={"role": "other"})], (False, True, 0, 2), id="granted twice"),
        pytest.param([REVOKED, GRANTED], (True, True, 1, 1), id="granted and revoked"),
    ],
)  # fmt: skip
def test_acts_are_sets(documents: list[dict[str, Any]], expected: tuple[bool, bool, int, int]) -> None:
    """Whatever the order in which they come, and however many come at once."""
    for order in permutations(documents):
        assert effect(known(*order)) == expected
        one_by_one = Access()
        for document in order:
            one_by_one.add([read(document)], NOW)
        assert effect(one_by_one) == expected
        one_by_one.add([read(document) for document in documents], NOW)  # the same again
        assert effect(one_by_one) == expected


def test_many_acts_in_any_order_say_the_same() -> None:
    documents = [revocation(match={"subject": f"s-{number}"}) for number in range(12)]
    documents += [grant(to={"issuer": "company", "subject": f"s-{number}"}) for number in range(12)]
    documents += [undoing("lift", canonical(documents[number])) for number in range(0, 12, 2)]
    documents += [undoing("end", canonical(documents[number])) for number in range(12, 24, 3)]

    def said(access: Access) -> list[tuple[bool, bool]]:
        return [
            (
                access.revoked(caller(identity(f"s-{number}")), NOW) is not None,
                access.lent(identity(f"s-{number}"), NOW) is not None,
            )
            for number in range(12)
        ]

    expected = [(number % 2 == 1, number % 3 != 0) for number in range(12)]
    for seed in range(50):
        Random(seed).shuffle(documents)
        access, rest = Access(), list(documents)
        while rest:
            some, rest = rest[: 1 + seed % 7], rest[1 + seed % 7 :]
            access.add([read(document) for document in some], NOW)
        assert said(access) == expected
        assert (access.revocations, access.grants) == (6, 8)


@pytest.mark.parametrize(
    ("later", "refused", "lent"),
    [
        pytest.param(0, True, False, id="now: the grant has not begun"),
        pytest.param(59.9, True, False, id="just before it begins"),
        pytest.param(60, True, True, id="it begins"),
        pytest.param(99.9, True, True, id="just before both are over"),
        pytest.param(100, False, False, id="over"),
        pytest.param(1e6, False, False, id="long over"),
    ],
)
def test_an_act_counts_in_its_time(later: float, refused: bool, lent: bool) -> None:
    """And only in its time, though nobody has told of anything new since."""
    access = known(revocation(until=int(NOW) + 100), grant(**{"from": int(NOW) + 60}, until=int(NOW) + 100))
    assert effect(access, NOW + later)[:2] == (refused, lent)


def test_what_is_over_is_forgotten() -> None:
    access = known(revocation(until=int(NOW) + 100), grant(until=int(NOW) + 200), GRANTED)
    assert len(access.listed()) == 3
    access.add([], NOW + 100)
    assert (len(access.listed()), access.revocations, access.grants) == (2, 0, 2)
    access.add([], NOW + 4000)
    assert (access.listed(), access.revocations, access.grants) == ([], 0, 0)
    access.add([read(revocation(until=int(NOW) + 100))], NOW + 4000)
    assert access.listed() == []


def test_a_revocation_comes_back_when_its_lift_is_over_before_it() -> None:
    """So a lift says for as long as the revocation: commands see to it."""
    access = known(REVOKED, undoing("lift", canonical(REVOKED), until=int(NOW) + 60))
    assert effect(access)[0] is False
    access.add([], NOW + 60)
    assert effect(access, NOW + 60)[0] is True


def test_too_many_acts_are_an_error_and_change_nothing() -> None:
    """To leave one out could open something."""
    one = read(revocation(match={"token_id": "t"}))
    many = [one._replace(id=f"{number}", match=(("token_id", f"{number}"),)) for number in range(MOST)]
    access = Access()
    access.add(many, NOW)
    assert access.revocations == MOST
    with pytest.raises(ValueError, match="more than 10000 acts"):
        access.add([one], NOW)
    assert access.revocations == len(access.listed()) == MOST
    assert not access.knows(one.id)
    access.add([many[0], many[1]], NOW)  # those that are known are no more
    later = many[0].until
    access.add([one._replace(until=later + 9)], later)  # room has been made
    assert [each.id for each in access.listed()] == [one.id]


def test_what_is_known_is_known_by_its_id() -> None:
    access = known(REVOKED, GRANTED)
    for document in (REVOKED, GRANTED):
        assert access.knows(act_id(canonical(document)))
    assert not access.knows(HEX)


# Whom a revocation hits.

WHO = identity("etl", token_id="t-1", session="s-1")
TASK_SAID, TASK_PROVED = ("publish", False), ("publish", True)
SAID, PROVED = ("close", False), ("close", True)
RUN_SAID, RUN_PROVED = ("run-1", False), ("run-1", True)


@pytest.mark.parametrize(
    ("match", "who", "hit"),
    [
        pytest.param({"token_id": "t-1"}, caller(WHO), True, id="a token by its id"),
        pytest.param({"token_id": "t-2"}, caller(WHO), False, id="another token"),
        pytest.param({"token_id": "t-1"}, caller(identity("etl")), False, id="a token without an id"),
        pytest.param({"token_id": "etl"}, caller(WHO), False, id="a token's id is no subject"),
        pytest.param({"session": "s-1"}, caller(WHO), True, id="a session: all tokens of it"),
        pytest.param({"session": "s-2"}, caller(WHO), False, id="another session"),
        pytest.param({"session": "t-1"}, caller(WHO), False, id="a token's id is no session's"),
        pytest.param({"session": "s-1"}, caller(identity("etl")), False, id="a token for no session"),
        pytest.param({"session": "s-1", "issuer": "partner"}, caller(WHO), False, id="another issuer's session"),
        pytest.param({"session": "s-1", "issuer": "company"}, caller(WHO), True, id="an issuer's session"),
        pytest.param({"session": "s-1", "dag": "close"}, caller(WHO, dag=SAID), False, id="a session, and a DAG said"),
        pytest.param({"task": "publish"}, caller(WHO, task=TASK_PROVED), True, id="a task, attested"),
        pytest.param({"task": "publish"}, caller(WHO, task=TASK_SAID), False, id="a task that the caller only says"),
        pytest.param(
            {"task": "publish", "subject": "etl"}, caller(WHO, task=TASK_SAID), True, id="a task said by the subject"
        ),
        pytest.param(
            {"task": "publish", "dag": "close"}, caller(WHO, task=TASK_PROVED, dag=PROVED), True, id="a DAG's task"
        ),
        pytest.param(
            {"task": "publish", "dag": "open"}, caller(WHO, task=TASK_PROVED, dag=PROVED), False, id="of another DAG"
        ),
        pytest.param(
            {"task": "publish", "dag": "close"}, caller(WHO, task=TASK_SAID, dag=PROVED), False, id="a task only said"
        ),
        pytest.param({"subject": "etl"}, caller(WHO), True, id="a subject"),
        pytest.param({"subject": "ETL"}, caller(WHO), False, id="a subject in capitals"),
        pytest.param({"subject": "et"}, caller(WHO), False, id="the beginning of a subject"),
        pytest.param({"subject": "*"}, caller(WHO), False, id="a star is a name like any other"),
        pytest.param({"issuer": "company"}, caller(WHO), True, id="an issuer: all of its tokens"),
        pytest.param({"issuer": "partner"}, caller(WHO), False, id="another issuer"),
        pytest.param({"issuer": "company", "subject": "etl"}, caller(WHO), True, id="an issuer's subject"),
        pytest.param({"issuer": "partner", "subject": "etl"}, caller(WHO), False, id="another issuer's subject"),
        pytest.param({"issuer": "company", "subject": "x"}, caller(WHO), False, id="another subject of it"),
        pytest.param({"token_id": "t-1", "subject": "x"}, caller(WHO), False, id="the token of another subject"),
        pytest.param(
            {"token_id": "t-1", "subject": "etl", "issuer": "company"}, caller(WHO), True, id="all three"
        ),
        pytest.param({"dag": "close"}, caller(WHO, dag=PROVED), True, id="a DAG, attested"),
        pytest.param({"dag": "close"}, caller(WHO, dag=SAID), False, id="a DAG that the caller only says"),
        pytest.param({"dag": "close"}, caller(WHO), False, id="no DAG at all"),
        pytest.param({"dag": "open"}, caller(WHO, dag=PROVED), False, id="another DAG"),
        pytest.param({"run": "run-1"}, caller(WHO, run=RUN_PROVED), True, id="a run, attested"),
        pytest.param({"run": "run-1"}, caller(WHO, run=RUN_SAID), False, id="a run that the caller only says"),
        pytest.param({"run": "close"}, caller(WHO, dag=PROVED), False, id="a DAG's name is no run's"),
        pytest.param(
            {"dag": "close", "subject": "etl"}, caller(WHO, dag=SAID), True, id="said by the subject that is named"
        ),
        pytest.param(
            {"dag": "close", "subject": "x"}, caller(WHO, dag=SAID), False, id="said by another subject"
        ),
        pytest.param({"dag": "close", "subject": "etl"}, caller(WHO), False, id="not said by the subject"),
        pytest.param(
            {"run": "run-1", "subject": "etl"}, caller(WHO, run=RUN_SAID), True, id="a run said by the subject"
        ),
        pytest.param(
            {"dag": "close", "run": "run-1"}, caller(WHO, dag=PROVED, run=RUN_PROVED), True, id="DAG and run, attested"
        ),
        pytest.param(
            {"dag": "close", "run": "run-1"}, caller(WHO, dag=PROVED, run=RUN_SAID), False, id="one of both attested"
        ),
        pytest.param(
            {"dag": "close", "run": "run-1"}, caller(WHO, dag=SAID, run=RUN_PROVED), False, id="the other one attested"
        ),
        pytest.param(
            {"dag": "close", "run": "run-1", "subject": "etl"}, caller(WHO, dag=PROVED, run=RUN_SAID), True,
            id="one of both attested, and the subject",
        ),
        pytest.param({"dag": "close", "run": "run-2"}, caller(WHO, dag=PROVED, run=RUN_PROVED), False, id="run 2"),
        pytest.param(
            {"dag": "close", "token_id": "t-1"}, caller(WHO, dag=SAID), False, id="said, and no subject is named"
        ),
        pytest.param(
            {"dag": "close", "issuer": "company"}, caller(WHO, dag=SAID), False, id="said, of an issuer: nor here"
        ),
        pytest.param({"dag": "close", "issuer": "company"}, caller(WHO, dag=PROVED), True, id="attested, of an issuer"),
        pytest.param({"subject": "etl"}, caller(identity("etl", actor="bot")), True, id="for whom somebody acts"),
        pytest.param({"subject": "bot"}, caller(identity("etl", actor="bot")), True, id="who acts for somebody"),
        pytest.param({"subject": "bot"}, caller(identity("etl")), False, id="who acts for somebody else"),
        pytest.param(
            {"subject": "bot", "token_id": "t-1"}, caller(identity("etl", actor="bot", token_id="t-1")), True,
            id="who acts for somebody, in this token",
        ),
    ],
)  # fmt: skip
def test_whom_a_revocation_hits(match: dict[str, str], who: Caller, hit: bool) -> None:
    others = [revocation(match={"subject": "somebody"}), revocation(match={"token_id": "t-9"})]
    one = read(revocation(match=match))
    access = known(*others, revocation(match=match))
    assert access.revoked(who, NOW) == (one if hit else None)


def test_of_several_the_one_that_says_most_is_named() -> None:
    """Whatever the isolate: or a caller would be told now that its token is revoked, and now that it is itself."""
    sharp = ["token_id", "session", "run", "subject", "task", "dag", "issuer"]
    held = {"token_id": "t-1", "run": "run-1", "subject": "etl", "dag": "close", "issuer": "company"}
    held |= {"session": "s-1", "task": "publish"}
    who = caller(WHO, dag=PROVED, run=RUN_PROVED, task=TASK_PROVED)
    for number in range(len(sharp)):
        documents = [revocation(match={name: held[name]}) for name in sharp[number:]]
        for order in (documents, documents[::-1]):
            one = known(*order).revoked(who, NOW)
            assert one is not None
            assert dict(one.match).keys() == {sharp[number]}


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ({"dag": "close"}, True),
        ({"dag": "close", "issuer": "company"}, True),
        ({"dag": "close", "run": "run-1"}, False),
        ({"dag": "open"}, False),
        ({"dag": "close", "subject": "other"}, False),
    ],
)
def test_what_somebody_says_who_is_trusted_with_it_is_enough_to_refuse(
    match: dict[str, str], hit: bool
) -> None:
    access, who = known(revocation(match=match)), caller(WHO, dag=SAID)
    assert access.revoked(who, NOW) is None
    assert (access.revoked(who, NOW, told=True) is not None) is hit


# What a grant lends.


def lent_roles(access: Access, who: Identity, now: float = NOW) -> set[str] | None:
    lent = access.lent(who, now)
    return None if lent is None else set(lent.roles)


@pytest.mark.parametrize(
    ("to", "who", "gets"),
    [
        pytest.param({"issuer": "company", "subject": "etl"}, identity("other"), False, id="another subject"),
        pytest.param({"subject": "etl", "issuer": "company"}, identity("etl"), True, id="an issuer's subject"),
        pytest.param(
            {"subject": "etl", "issuer": "company"}, identity("etl", issuer="partner"), False,
            id="another issuer's subject of that name",
        ),
        pytest.param({"role": "oncall"}, identity("x", "oncall"), True, id="whoever holds a role"),
        pytest.param({"role": "oncall"}, identity("x", "other"), False, id="not whoever holds another"),
        pytest.param({"role": "oncall"}, identity("oncall"), False, id="a role is no subject"),
        pytest.param(
            {"issuer": "company", "subject": "oncall"}, identity("x", "oncall"), False, id="nor a subject a role"
        ),
        pytest.param(
            {"role": "oncall"}, identity("x", unknown="oncall"), False, id="who may hold the role, and may not"
        ),
        pytest.param(
            {"issuer": "company", "subject": "etl"}, identity("etl", actor="bot"), False,
            id="not to one who acts for the subject",
        ),
        pytest.param({"role": "oncall"}, identity("x", "oncall", actor="bot"), False, id="nor to one with the role"),
    ],
)  # fmt: skip
def test_to_whom_a_grant_lends(to: dict[str, str], who: Identity, gets: bool) -> None:
    assert lent_roles(known(grant(to=to)), who) == ({"closer"} if gets else None)


def test_nothing_is_lent_to_one_for_whom_somebody_may_act() -> None:
    """In questions about somebody whose token is not at hand."""
    who = identity("finance-etl")
    assert lent_roles(known(grant()), who._replace(untold=frozenset({"subject.dpop"}))) == {"closer"}
    assert lent_roles(known(grant()), who._replace(untold=frozenset({"subject.delegated"}))) is None


def test_what_several_grants_lend_together() -> None:
    documents = [
        grant(),
        grant(gives={"role": "auditor"}),
        grant(gives={"policy": "publish"}),
        grant(to={"role": "publisher"}, gives={"policy": "health"}),
        grant(to={"issuer": "company", "subject": "somebody else"}, gives={"role": "admin"}),
    ]
    who = identity(roles="publisher")
    lent = known(*documents).lent(who, NOW)
    assert lent is not None
    assert lent.roles == {"closer", "auditor"}
    assert lent.policies == {("publish", ""), ("health", "publisher")}
    assert lent.grants == tuple(sorted(act_id(canonical(document)) for document in documents[:4]))
    assert lent.own is who


def test_a_role_that_is_lent_lends_no_other() -> None:
    """Or a chain of grants could be longer than anybody has looked at."""
    access = known(grant(), grant(to={"role": "closer"}, gives={"role": "admin"}))
    assert lent_roles(access, identity()) == {"closer"}
    once = access.lend(caller(), NOW)
    assert access.lend(once, NOW).identity.granted == once.identity.granted == {"closer"}


def test_a_role_that_the_token_grants_anyway_is_not_lent() -> None:
    who = identity(roles="closer")
    lent = known(grant()).lent(who, NOW)
    assert lent is not None
    assert lent.roles == set()
    assert with_roles(who, lent) is who


def test_a_role_that_is_lent_is_not_unknown_any_more() -> None:
    who = identity(roles="reader", unknown="closer writer")
    lent = known(grant()).lent(who, NOW)
    assert lent is not None
    mixed = with_roles(who, lent)
    assert (mixed.granted, mixed.unknown) == ({"reader", "closer"}, {"writer"})
    assert (who.granted, who.unknown) == ({"reader"}, {"closer", "writer"})


def test_lending_twice_is_lending_once() -> None:
    """What the token alone has is never forgotten: a forbid is asked by that too."""
    access = known(grant())
    once = access.lend(caller(identity(roles="reader")), NOW)
    twice = access.lend(once, NOW)
    for each in (once, twice):
        assert each.lent is not None
        assert (each.lent.roles, each.lent.own.granted) == ({"closer"}, {"reader"})
        assert each.effective == each.identity.granted == {"reader", "closer"}


@pytest.mark.parametrize(
    ("tag", "effective"),
    [
        pytest.param(None, {"reader", "closer"}, id="no tag: all"),
        pytest.param("reader", {"reader"}, id="a tag without it: not the one that is lent"),
        pytest.param("closer", {"closer"}, id="a tag that names the one that is lent"),
        pytest.param("reader, closer", {"reader", "closer"}, id="a tag that names both"),
        pytest.param("admin", None, id="a tag that names one that nobody granted"),
        pytest.param("closer,admin", None, id="and beside the one that is lent"),
    ],
)
def test_a_role_tag_may_name_what_is_lent(tag: str | None, effective: set[str] | None) -> None:
    who = identify(
        {"groups": ["r"]}, "finance-etl", Mapping("company", None, "workload", (), (Grant("reader", ("groups",), "r"),))
    )  # fmt: skip
    lent = known(grant()).lent(who, NOW)
    assert lent is not None
    headers = {} if tag is None else {"airgate-role": tag}
    if effective is None:
        with pytest.raises(Denied) as caught:
            act(with_roles(who, lent), headers)
        assert caught.value.reason is Reason.ROLE_NOT_GRANTED
    else:
        assert act(with_roles(who, lent), headers).effective == effective


# What policy says of it.

TARGET = Target("GET", "ledger", ("v1", "a"), "/v1/a", "")


def shard(*policies: dict[str, Any]) -> Shard:
    return load_shard(shards(*policies)["ledger"], "ledger")


def policy(name: str, *conditions: list[Any], **changes: Any) -> dict[str, Any]:
    return rule(id=name, conditions=list(conditions), **changes)


def forbid(name: str, *conditions: list[Any], **changes: Any) -> dict[str, Any]:
    return policy(name, *conditions, effect="forbid", **changes)


def decided(
    documents: list[dict[str, Any]],
    *policies: dict[str, Any],
    who: Identity | None = None,
    tag: str | None = None,
    target: Target = TARGET,
    **workload: tuple[str, bool],
) -> tuple[Decision, tuple[str, ...]]:
    """What policy says of the usual subject, who holds the role reader, under the grants, and which of them it took."""
    access, who = known(*documents), who or identity(roles="reader")
    lent = access.lent(who, NOW)
    mixed = who if lent is None else with_roles(who, lent)
    headers = {} if tag is None else {"airgate-role": tag}
    made = act(mixed, headers)._replace(lent=lent)
    made = made._replace(workload={name: Fact(*fact) for name, fact in workload.items()})
    return decide(shard(*policies), Call(made, target, NOW, "192.0.2.1", "DE"))


CLOSER = ["subject.roles.any", ["closer"]]
READER = ["subject.roles.any", ["reader"]]
ROLE = grant()
LENDS = grant(gives={"policy": "special"})


def names(*documents: dict[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(act_id(canonical(document)) for document in documents))


@pytest.mark.parametrize(
    ("policies", "permits", "forbids", "reason"),
    [
        pytest.param([policy("p", CLOSER)], ("p",), (), None, id="a lent role opens what is for it"),
        pytest.param([policy("p", READER)], ("p",), (), None, id="and takes nothing of the token's own"),
        pytest.param([policy("p", READER), policy("q", CLOSER)], ("p", "q"), (), None, id="both apply"),
        pytest.param(
            [policy("p", ["subject.roles.all", ["closer", "reader"]])], ("p",), (), None, id="with one of its own"
        ),
        pytest.param([policy("p", ["subject.roles.any", ["other"]])], (), (), Reason.POLICY_NO_MATCH, id="not another"),
        pytest.param(
            [policy("p", CLOSER), forbid("f")], (), ("f",), Reason.POLICY_FORBIDDEN, id="a forbid for everyone"
        ),
        pytest.param(
            [policy("p", CLOSER), forbid("f", READER)], (), ("f",), Reason.POLICY_FORBIDDEN,
            id="a forbid on a role of the token's",
        ),
        pytest.param(
            [policy("p", READER), forbid("f", CLOSER)], ("p",), ("f",), Reason.POLICY_FORBIDDEN,
            id="a forbid on the role that is lent",
        ),
        pytest.param(
            [policy("p", CLOSER), policy("q", READER), forbid("f", ["subject.roles.none", ["closer"]])],
            ("q",), ("f",), Reason.POLICY_FORBIDDEN, id="a forbid for whoever lacks the role: lending it opens nothing",
        ),
        pytest.param(
            [policy("p", READER, ["subject.roles.none", ["closer"]])], (), (), Reason.POLICY_NO_MATCH,
            id="a permit for whoever lacks the role",
        ),
        pytest.param(
            [policy("p", CLOSER), forbid("f", CLOSER, mode="shadow")], ("p",), (), None, id="a forbid that is tried"
        ),
        pytest.param(
            [policy("p", CLOSER, obligations={"credential": "x"}),
             policy("q", READER, obligations={"credential": "y"})],
            ("p", "q"), (), Reason.POLICY_OBLIGATION, id="two permits that exclude each other",
        ),
    ],
)  # fmt: skip
def test_what_a_lent_role_does(
    policies: list[dict[str, Any]],
    permits: tuple[str, ...],
    forbids: tuple[str, ...],
    reason: Reason | None,
) -> None:
    decision, _ = decided([ROLE], *policies)
    assert (decision.permits, decision.forbids, decision.reason) == (permits, forbids, reason)


def test_a_tag_that_leaves_a_lent_role_out_leaves_its_permits_out() -> None:
    policies = [policy("p", CLOSER), policy("q", READER)]
    for tag, permits in ((None, ("p", "q")), ("closer", ("p",)), ("reader", ("q",))):
        assert decided([ROLE], *policies, tag=tag)[0].permits == permits
    # But no forbid is escaped by it: neither one on the role that is lent nor one on the token's own.
    for held in (CLOSER, READER):
        for tag in ("closer", "reader"):
            assert decided([ROLE], *policies, forbid("f", held), tag=tag)[0].forbids == ("f",)


SPECIAL = policy("special", ["subject.id", ["somebody-else"]])


@pytest.mark.parametrize(
    "who_for",
    [
        ["subject.issuer", ["partner"]],
        ["subject.id", ["somebody-else"]],
        ["subject.kind", ["human"]],
        ["subject.roles.any", ["admin"]],
        ["subject.roles.all", ["admin", "reader"]],
        ["subject.claims.any", ["department"], ["finance"]],
        ["subject.claims.all", ["department"], ["finance"]],
    ],
    ids=lambda row: row[0],
)
def test_a_policy_that_is_lent_applies_whoever_it_is_for(who_for: list[Any]) -> None:
    assert decided([], policy("special", who_for))[0].reason is Reason.POLICY_NO_MATCH
    decision, grants = decided([LENDS], policy("special", who_for))
    assert (decision.permits, decision.permit, decision.route) == (("special",), True, "/v1/**")
    assert grants == names(LENDS)


HUMAN = identity(roles="reader")._replace(kind="human")
HOLDS = [
    pytest.param(["subject.roles.none", ["reader"]], id="who is shut out by a role"),
    pytest.param(["subject.claims.none", ["department"], ["finance"]], id="who could be shut out by a claim"),
    pytest.param(["subject.dpop", True], id="how the token must be bound"),
    pytest.param(["subject.delegated", True], id="whether somebody acts for the subject"),
    pytest.param(["workload.dag", ["open*"], False], id="another DAG"),
    pytest.param(["workload.dag", ["close"], True], id="a DAG that is only said"),
    pytest.param(["workload.task", ["*"], False], id="no task"),
    pytest.param(["target.query.any", "period", ["q4"]], id="the query"),
    pytest.param(["when.ip", ["198.51.100.0/24"]], id="the address"),
    pytest.param(["when.country", ["FR"]], id="the country"),
    pytest.param(["when.time", "Etc/UTC", ["mon"], 0, 1], id="the time"),
    pytest.param(["when.equals", "subject.id", "query.owner", False], id="what is compared with the subject"),
]


@pytest.mark.parametrize("row", HOLDS)
def test_a_policy_that_is_lent_keeps_its_other_conditions(row: list[Any]) -> None:
    decision, grants = decided(
        [LENDS], policy("special", ["subject.id", ["somebody-else"]], row), dag=("close", False)
    )
    assert (decision.reason, decision.permits, grants) == (Reason.POLICY_NO_MATCH, (), ())


@pytest.mark.parametrize(
    "changes",
    [
        {"target": {"upstreams": ["ledger"], "methods": ["POST"], "paths": ["/v1/**"]}},
        {"target": {"upstreams": ["ledger"], "methods": ["GET"], "paths": ["/v2/**"]}},
        {"mode": "shadow"},
        {"effect": "forbid", "mode": "shadow"},
        {"id": "special-2"},
    ],
    ids=[
        "another method",
        "another path",
        "a policy that is only tried",
        "a forbid that is tried",
        "another id",
    ],
)
def test_a_policy_that_cannot_be_lent_here(changes: dict[str, Any]) -> None:
    lends = policy("special", ["subject.id", ["somebody-else"]]) | changes
    decision, grants = decided([LENDS], lends)
    assert (decision.permit, decision.permits, grants) == (False, (), ())


def test_a_forbid_cannot_be_lent() -> None:
    """Nor does a grant of it lift it."""
    plain = policy("p", READER)
    assert decided([LENDS], plain, forbid("special", ["subject.id", ["somebody-else"]]))[0].permits == ("p",)
    assert decided([LENDS], plain, forbid("special"))[0].reason is Reason.POLICY_FORBIDDEN


def test_a_lent_policy_is_no_way_around_a_forbid() -> None:
    for row in ([], [READER], [["subject.roles.none", ["admin"]]], [["subject.id", ["finance-etl"]]]):
        decision, grants = decided([LENDS], SPECIAL, forbid("f", *row))
        assert (decision.reason, decision.forbids) == (Reason.POLICY_FORBIDDEN, ("f",))
        assert grants == ()


def test_a_lent_policy_asks_for_what_it_always_asks_for() -> None:
    strict = policy("special", ["subject.id", ["x"]], obligations={"max_body": 9})
    lax = policy("q", READER, obligations={"max_body": 10})
    decision, _ = decided([LENDS], strict, lax)
    assert (decision.permits, decision.obligations.max_body) == (("q", "special"), 9)
    decision, _ = decided([LENDS], strict)
    assert decision.obligations.max_body == 9
    assert decision.owner == "finance@example.com"


@pytest.mark.parametrize(
    ("to", "tag", "permits"),
    [
        pytest.param({"role": "publisher"}, None, True, id="to a role, no tag"),
        pytest.param({"role": "publisher"}, "publisher", True, id="to a role that the tag names"),
        pytest.param({"role": "publisher"}, "reader", False, id="to a role that the tag leaves out"),
        pytest.param({"role": "publisher"}, "reader,publisher", True, id="to one of two that it names"),
        pytest.param(
            {"issuer": "company", "subject": "finance-etl"},
            "reader",
            True,
            id="to the subject, whatever the tag",
        ),
    ],
)
def test_a_role_that_is_put_down_brings_no_policy(to: dict[str, str], tag: str | None, permits: bool) -> None:
    """A tag narrows: it leaves out what the role would bring, too."""
    who = identity(roles="reader publisher")
    decision, grants = decided([grant(to=to, gives={"policy": "special"})], SPECIAL, who=who, tag=tag)
    assert (decision.permit, bool(grants)) == (permits, permits)


def test_a_lent_policy_that_applies_anyway_is_named_once() -> None:
    lent = grant(gives={"policy": "q"})
    decision, grants = decided([lent], policy("q", READER), policy("r", READER))
    assert (decision.permits, grants) == (("q", "r"), ())


def test_a_policy_that_is_lent_may_have_a_route_of_several() -> None:
    several = {"upstreams": ["ledger"], "methods": ["*"], "paths": ["/v1/a", "/v1/{id}", "/v2"]}
    equal = ["when.equals", "subject.id", "resource.id", False]
    lends = policy("special", ["subject.kind", ["human"]], equal, target=several)
    target = Target("GET", "ledger", ("v1", "finance-etl"), "/v1/finance-etl", "")
    decision, _ = decided([LENDS], lends, target=target)
    assert (decision.permits, decision.route) == (("special",), "/v1/{id}")
    assert decided([LENDS], lends)[0].permits == ()


def test_role_and_policy_can_be_lent_together() -> None:
    needs = policy("special", ["subject.id", ["x"]], ["subject.roles.none", ["admin"]])
    decision, grants = decided([ROLE, LENDS], needs, policy("q", CLOSER))
    assert (decision.permits, grants) == (("q", "special"), names(ROLE, LENDS))


def test_unknown_roles_forbid_as_before() -> None:
    """What a token doesn't say of a role can't open a forbid, whatever is lent beside it."""
    who = identity(unknown="closer admin")
    assert decided([ROLE], policy("p", CLOSER), who=who)[0].permit
    assert not decided([], policy("p", CLOSER), who=who)[0].permit
    for row in (["subject.roles.any", ["admin"]], CLOSER):
        decision, _ = decided([ROLE], policy("p", CLOSER), forbid("f", row), who=who)
        assert (decision.reason, decision.forbids) == (Reason.POLICY_FORBIDDEN, ("f",))


@pytest.mark.parametrize(
    ("policies", "named"),
    [
        pytest.param([policy("p", CLOSER)], True, id="it opens"),
        pytest.param([policy("p", READER)], False, id="the token's own role opened it"),
        pytest.param([policy("p", READER), policy("q", CLOSER)], True, id="a permit more"),
        pytest.param([policy("p", ["subject.roles.any", ["x"]])], False, id="it did not help"),
        pytest.param([policy("p", READER), forbid("f", CLOSER)], True, id="it is why the call is refused"),
        pytest.param(
            [policy("p", READER, ["subject.roles.none", ["closer"]])], True, id="it took a permit away"
        ),
        pytest.param([policy("p", READER), forbid("f", READER)], False, id="refused anyway"),
    ],
)
def test_grants_are_on_record_when_the_decision_would_be_another_without_them(
    policies: list[dict[str, Any]], named: bool
) -> None:
    assert decided([ROLE], *policies)[1] == (names(ROLE) if named else ())


def test_nothing_is_lent_and_nothing_is_asked_twice() -> None:
    assert decided([], policy("p", READER)) == (
        shard(policy("p", READER)).decide(Call(caller(identity(roles="reader")), TARGET, NOW)),
        (),
    )


def test_grants_only_ever_add_permits_that_somebody_could_have() -> None:
    """Against every set of a few policies: what is forbidden without grants is forbidden with them."""
    rows = [
        [],
        [READER],
        [CLOSER],
        [["subject.roles.none", ["closer"]]],
        [["subject.roles.none", ["reader"]]],
        [["subject.id", ["x"]]],
    ]
    dice = Random(7)
    for _ in range(300):
        policies = [
            policy(
                f"p{number}" if number else "special",
                *dice.choice(rows),
                effect=dice.choice(["permit", "forbid"]),
                mode=dice.choice(["enforce", "enforce", "shadow"]),
            )
            for number in range(4)
        ]
        before, _ = decided([], *policies)
        after, grants = decided([ROLE, LENDS], *policies)
        assert set(before.forbids) <= set(after.forbids) or after == before
        if before.reason is Reason.POLICY_FORBIDDEN:
            assert (after, grants) == (before, ())
        if after.permits != before.permits or after.reason != before.reason:
            assert grants == names(ROLE, LENDS)
