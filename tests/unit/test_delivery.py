"""The call to the upstream: which credential it carries, when it is made again, and when it isn't made at all."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import NOW, World, run

from breaker import Health, Settings
from credential import Basic, ClientCredentials, Credential, Header, Own, SigV4
from delivery import HELD, LONGEST_WAIT, SMALL, Delivery, declared
from minted import Minted
from model import Denied, Inbound, Outbound, Reason, UpstreamAnswer
from upstream import Upstream

UPSTREAM = Upstream("https://ledger.example.com", "o@example.com", 30, False)
CLIENT = ClientCredentials(
    "UPSTREAM_A", "https://login.example.com/token", "gate", "post", None, None, None, "authorization",
    "Bearer {token}",
)  # fmt: skip
UNREACHABLE = Denied(Reason.UPSTREAM_UNREACHABLE)
TIMEOUT = Denied(Reason.UPSTREAM_TIMEOUT)


def said(status: int, **headers: str) -> UpstreamAnswer:
    return UpstreamAnswer(status, {name.replace("_", "-"): value for name, value in headers.items()})


class Sender:
    """An upstream's answers in turn, and what was sent to it."""

    def __init__(self, *answers: UpstreamAnswer | Exception, **settings: Any) -> None:
        self.world = World()
        self.world.answers = list(answers)
        self.world.secrets = {"UPSTREAM_A": "sesame"}
        self.upstream = UPSTREAM._replace(**settings)
        self.health = Health()
        self.minted = Minted()
        self.vouch: Callable[[], Awaitable[str]] | None = None

    def send(
        self,
        method: str = "GET",
        body: bytes | None = None,
        credential: Credential | None = None,
        length: int | None = None,
        **headers: str,
    ) -> tuple[UpstreamAnswer, int]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            self.world.sent = body
            if length is None:
                length = len(body)
        if length is not None and length >= 0:
            named["content-length"] = str(length)
        inbound = Inbound("f" * 32, NOW, method, "https://gate/ledger/v1", named, body is not None)
        sent = {"accept": "a/b"} | {name: named[name] for name in named if name == "idempotency-key"}
        call = Outbound(method, "https://ledger.example.com/v1", sent, 30)
        delivery = Delivery(call, self.upstream, credential, inbound, self.health, self.minted, self.vouch)
        self.delivery = delivery
        answer: UpstreamAnswer = run(delivery.send(self.world))
        return answer, delivery.sent

    def refuse(self, *arguments: Any, **more: Any) -> Denied:
        with pytest.raises(Denied) as caught:
            self.send(*arguments, **more)
        return caught.value

    @property
    def sent(self) -> list[Outbound]:
        return self.world.of("send")

    def grants(self, *tokens: str) -> None:
        self.world.posted = [
            (200, f'{{"access_token":"{token}","token_type":"Bearer","expires_in":3600}}'.encode())
            for token in tokens
        ]


def test_a_call_is_made_once() -> None:
    sender = Sender(said(200))
    assert sender.send() == (said(200), 1)
    assert [port for port, _ in sender.world.happened] == ["send"]


@pytest.mark.parametrize(
    ("credential", "headers"),
    [
        pytest.param(None, {}, id="none"),
        pytest.param(Header("UPSTREAM_A", "x-api-key", "{secret}"), {"x-api-key": "sesame"}, id="a header"),
        pytest.param(
            Basic("svc", "UPSTREAM_A"), {"authorization": "Basic c3ZjOnNlc2FtZQ=="}, id="a password"
        ),
        pytest.param(CLIENT, {"authorization": "Bearer one"}, id="a token"),
        pytest.param(Own(), {}, id="the caller's own, which is there already"),
    ],
)
def test_the_gates_credential_is_shown(credential: Credential | None, headers: dict[str, str]) -> None:
    sender = Sender(said(200))
    sender.grants("one")
    sender.send(credential=credential)
    assert sender.sent[0].headers == {"accept": "a/b", **headers}


@pytest.mark.parametrize(
    "credential",
    [
        Header("UPSTREAM_B", "x-api-key", "{secret}"),
        Basic("svc", "UPSTREAM_B"),
        CLIENT._replace(secret="UPSTREAM_B"),
        SigV4("UPSTREAM_B", "eu-central-1", "s3", "unsigned"),
        SigV4("UPSTREAM_A", "eu-central-1", "s3", "unsigned"),
    ],
    ids=["a header", "a password", "a token", "a signature", "a signature with another kind of secret"],
)
def test_without_the_secret_nothing_is_sent(credential: Credential) -> None:
    sender = Sender()
    refused = sender.refuse(credential=credential)
    assert refused.reason is Reason.UPSTREAM_CREDENTIAL
    assert "UPSTREAM_" in refused.detail  # the binding
    assert "sesame" not in refused.detail
    assert sender.sent == []
    for _ in range(20):  # which says nothing about the upstream
        sender.refuse(credential=credential)
    sender.world.answers = [said(200)]
    assert sender.send()[0].status == 200


def test_a_signature_covers_the_body_and_nothing_else_is_read() -> None:
    sender = Sender(said(200))
    sender.world.secrets["UPSTREAM_A"] = '{"access_key_id":"AKIDEXAMPLE","secret_access_key":"wJalrXUtnFEMI"}'
    sender.send("POST", b"a", SigV4("UPSTREAM_A", "eu-central-1", "execute-api", "signed"))
    (call,) = sender.sent
    assert call.headers["x-amz-content-sha256"].startswith("ca978112ca1bbdcafac231b39a23dc4d")
    assert "Signature=" in call.headers["authorization"]
    assert [port for port, _ in sender.world.happened] == ["hold", "send"]


def test_a_body_too_long_to_be_signed_is_refused() -> None:
    sender = Sender()
    sender.world.secrets["UPSTREAM_A"] = '{"access_key_id":"AKIDEXAMPLE","secret_access_key":"wJalrXUtnFEMI"}'
    signed = SigV4("UPSTREAM_A", "eu-central-1", "execute-api", "signed")
    for length in (None, -1):  # whether or not its length is declared
        refused = sender.refuse("POST", b"a" * (HELD + 1), signed, length)
        assert refused.reason is Reason.REQUEST_BODY_TOO_LARGE
    assert sender.sent == []


# When a call is made again.

IDEMPOTENT = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]
FAILURES = [UNREACHABLE, said(502), said(503), said(504)]


@pytest.mark.parametrize("failure", FAILURES, ids=str)
@pytest.mark.parametrize("method", IDEMPOTENT)
def test_an_idempotent_call_is_made_again(method: str, failure: UpstreamAnswer | Exception) -> None:
    sender = Sender(failure, failure, said(200), retries=2)
    assert sender.send(method) == (said(200), 3)
    assert len(sender.sent) == 3
    assert sender.world.of("sleep") == [pytest.approx(0.075), pytest.approx(0.15)]


@pytest.mark.parametrize("failure", FAILURES, ids=str)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_any_other_is_not(method: str, failure: UpstreamAnswer | Exception) -> None:
    sender = Sender(failure, said(200), retries=5)
    if isinstance(failure, Denied):
        assert sender.refuse(method) is failure
    else:
        assert sender.send(method) == (failure, 1)
    assert len(sender.sent) == 1
    sender = Sender(failure, said(200), retries=5)
    assert sender.send(method, idempotency_key="a") == (said(200), 2)


@pytest.mark.parametrize(
    "answer", [TIMEOUT, said(200), said(404), said(408), said(429), said(500), said(501)], ids=str
)
def test_after_these_nothing_is_made_again(answer: UpstreamAnswer | Exception) -> None:
    sender = Sender(answer, said(200), retries=5)
    if isinstance(answer, Denied):
        assert sender.refuse() is answer
    else:
        assert sender.send() == (answer, 1)
    assert len(sender.sent) == 1


def test_the_last_failure_is_what_the_caller_gets() -> None:
    sender = Sender(said(502), said(503), retries=1)
    assert sender.send() == (said(503), 2)
    assert sender.world.of("discard") == [502]
    sender = Sender(said(502), UNREACHABLE, retries=1)
    assert sender.refuse() is UNREACHABLE


@pytest.mark.parametrize(
    ("asked", "again"),
    [("0", True), ("1", True), ("2", True), ("3", False), ("3600", False), ("soon", False), ("-1", False)],
)
def test_an_upstream_that_wants_to_be_left_alone_is(asked: str, again: bool) -> None:
    sender = Sender(said(503, retry_after=asked), said(200), retries=1)
    answer, tries = sender.send()
    assert (answer.status, tries) == ((200, 2) if again else (503, 1))
    if again:
        assert sender.world.of("sleep") == [pytest.approx(max(0.075, float(asked)))]


@given(st.integers(1, 5), st.floats(0, 1, exclude_max=True))
def test_waits_grow_and_are_bounded(retries: int, drawn: float) -> None:
    sender = Sender(*[UNREACHABLE] * 6, retries=retries, limits=Settings(failures=None))
    sender.world.drawn = drawn
    sender.refuse()
    waits = sender.world.of("sleep")
    assert len(waits) == retries
    assert all(0 < wait <= LONGEST_WAIT for wait in waits)


NO_BREAKER = Settings(failures=None)


@pytest.mark.parametrize(
    ("method", "length", "settings", "kept"),
    [
        pytest.param("PUT", HELD, {"retries": 1}, True, id="it may be sent again"),
        pytest.param("PUT", HELD, {"retries": 1, "limits": NO_BREAKER}, True, id="and there is no breaker"),
        pytest.param("POST", HELD, {"retries": 1}, False, id="it may not be"),
        pytest.param("PUT", HELD, {"retries": 0}, False, id="nothing is"),
        pytest.param("POST", SMALL, {}, True, id="a small one, so that failures are the upstream's"),
        pytest.param("POST", SMALL + 1, {}, False, id="one that is not"),
        pytest.param(
            "POST", SMALL, {"limits": NO_BREAKER}, False, id="a small one, and nobody counts failures"
        ),
    ],
)
def test_a_body_is_kept_where_that_is_of_use(
    method: str, length: int, settings: dict[str, Any], kept: bool
) -> None:
    sender = Sender(said(200), **settings)
    sender.send(method, b"abc", length=length)
    assert bool(sender.world.of("hold")) is kept


@pytest.mark.parametrize("length", [HELD + 1, -1], ids=["too long to be kept", "of no declared length"])
def test_a_body_that_flows_by_is_sent_once(length: int) -> None:
    sender = Sender(said(503), said(200), retries=5)
    assert sender.send("PUT", b"abc", length=length) == (said(503), 1)
    assert sender.world.of("hold") == []


def test_retries_have_a_budget() -> None:
    sender = Sender(retries=5)
    sender.upstream = sender.upstream._replace(limits=Settings(failures=None))
    sender.world.answer = said(503)
    for _ in range(200):
        sender.send()
    assert len(sender.sent) <= 200 * 1.25 + 10  # and not 1,200


# A token that the upstream refuses.


def test_a_refused_token_is_replaced_once() -> None:
    sender = Sender(said(401), said(200))
    sender.grants("old", "new")
    assert sender.send("POST", b"{}", CLIENT) == (said(200), 2)
    assert [call.headers["authorization"] for call in sender.sent] == ["Bearer old", "Bearer new"]
    assert sender.world.of("discard") == [401]


def test_a_second_refusal_is_the_callers() -> None:
    sender = Sender(said(401), said(401), said(200))
    sender.grants("old", "new", "newer")
    assert sender.send(credential=CLIENT) == (said(401), 2)
    assert len(sender.sent) == 2


def test_without_another_token_the_refusal_is_the_callers() -> None:
    sender = Sender(said(401), said(200))
    sender.grants("old")
    sender.world.posted.append(OSError("away"))
    assert sender.send(credential=CLIENT) == (said(401), 1)
    sender = Sender(said(401), said(200))
    sender.grants("same", "same")
    assert sender.send(credential=CLIENT) == (said(401), 1)


def test_an_upstream_that_refuses_every_token_does_not_storm_the_issuer() -> None:
    sender = Sender()
    sender.world.answer = said(401)
    sender.grants(*"abcdefghij")
    for _ in range(20):
        sender.send(credential=CLIENT)
    assert len(sender.world.of("post")) <= 3


def test_a_body_that_cannot_be_sent_again_gets_the_refusal_and_the_next_call_a_new_token() -> None:
    sender = Sender(said(401), said(200))
    sender.grants("old", "new")
    assert sender.send("POST", b"{}", CLIENT, HELD + 1) == (said(401), 1)
    assert sender.send("POST", b"{}", CLIENT) == (said(200), 1)
    assert sender.sent[-1].headers["authorization"] == "Bearer new"


@pytest.mark.parametrize(
    "credential", [None, Header("UPSTREAM_A", "x-api-key", "{secret}"), Own()], ids=["none", "fixed", "own"]
)
def test_a_credential_that_cannot_be_renewed_is_not_tried_again(credential: Credential | None) -> None:
    sender = Sender(said(401), said(200))
    assert sender.send(credential=credential) == (said(401), 1)


# Trouble stays small.


def test_an_upstream_that_fails_is_left_alone_for_a_while() -> None:
    sender = Sender()
    for failure in (UNREACHABLE, TIMEOUT, said(502), said(503), said(504)):
        sender.world.answers.append(failure)
        if isinstance(failure, Denied):
            sender.refuse()
        else:
            sender.send()
    refused = sender.refuse()
    assert (refused.reason, refused.retry_after) == (Reason.UPSTREAM_CIRCUIT_OPEN, 10)
    assert len(sender.sent) == 5
    sender.world.clock += 10
    assert sender.send() == (said(200) if sender.world.answers else sender.world.answer, 1)
    assert sender.send()[0].status == 200


def test_a_circuit_that_opens_ends_the_retries() -> None:
    sender = Sender(retries=5, limits=Settings(failures=2))
    sender.world.answer = said(503)
    assert sender.send() == (said(503), 2)
    assert sender.refuse().reason is Reason.UPSTREAM_CIRCUIT_OPEN


def test_an_upstreams_own_errors_are_no_failures() -> None:
    sender = Sender(limits=Settings(failures=1))
    for status in (400, 401, 403, 404, 409, 422, 429, 500, 501):
        sender.world.answers = [said(status)]
        assert sender.send()[0].status == status


@pytest.mark.parametrize("failure", [UNREACHABLE, TIMEOUT], ids=str)
def test_a_caller_whose_body_does_not_come_opens_no_circuit(failure: Denied) -> None:
    """While a body flows by, nobody can tell a slow caller from a slow upstream."""
    for length in (SMALL + 1, -1):
        sender = Sender(limits=Settings(failures=1))
        sender.world.answers = [failure, said(200)]
        sender.refuse("POST", b"abc", length=length)
        assert sender.send("POST", b"abc", length=length)[0].status == 200


@pytest.mark.parametrize("failure", [UNREACHABLE, TIMEOUT], ids=str)
def test_a_body_that_was_here_and_whole_is_the_upstreams_to_answer(failure: Denied) -> None:
    sender = Sender(limits=Settings(failures=1))
    sender.world.answers = [failure]
    sender.refuse("POST", b"abc")
    assert sender.refuse("POST", b"abc").reason is Reason.UPSTREAM_CIRCUIT_OPEN


def test_every_try_is_vouched_for_anew() -> None:
    sender = Sender(said(503), said(200), retries=1)
    statements = iter(["first", "second"])

    async def vouch() -> str:
        return next(statements)

    sender.vouch = vouch
    sender.send()
    assert [call.headers["airgate-assertion"] for call in sender.sent] == ["first", "second"]


def test_a_cap_answers_at_once() -> None:
    sender = Sender(limits=Settings(concurrency=1))
    sender.health.admit(sender.upstream.limits, NOW, 30)
    assert sender.refuse().reason is Reason.UPSTREAM_OVERLOADED
    assert sender.sent == []


def test_whatever_happens_the_place_is_given_back() -> None:
    sender = Sender(limits=Settings(failures=None, concurrency=1))
    for failure in (UNREACHABLE, ValueError("a mistake of ours"), said(503)):
        sender.world.answers = [failure]
        if isinstance(failure, Exception):
            with pytest.raises(type(failure)):
                sender.send()
        else:
            sender.send()
    sender.world.answers = [said(200)]
    assert sender.send()[0].status == 200


@pytest.mark.parametrize(
    ("length", "read"),
    [("0", 0), ("12", 12), ("", -1), ("-1", -1), ("1e3", -1), ("٣", -1), ("1" * 16, -1), ("1, 1", -1), (" 1", -1)],
)  # fmt: skip
def test_the_declared_length(length: str, read: int) -> None:
    assert declared(Inbound("f" * 32, NOW, "POST", "", {"content-length": length}, True)) == read
