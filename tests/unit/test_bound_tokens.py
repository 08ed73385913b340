"""Bound tokens, from the request to the answer (RFC 9449). What a proof must be is in test_dpop.py."""

import hashlib
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from test_gateway import URL, Gate, asking
from world import NOW, P256, World, b64, compact, document, inbound, rule, run, token

import dpop
import gateway
from keys import Key
from model import Denied, Inbound, Reason, Refusal, Relay

KEY = {**P256, "kid": "the caller's"}
BOUND = token(cnf={"jkt": dpop.thumbprint(P256)})


def proof(credential: str = BOUND, *, signed_by: str = "the caller's", **changes: Any) -> str:
    """A proof of a GET of URL beside that token, with changed claims."""
    claims = {
        "jti": "1",
        "htm": "GET",
        "htu": URL,
        "iat": NOW,
        "ath": b64(hashlib.sha256(credential.encode()).digest()),
    }
    return compact({"typ": "dpop+jwt", "alg": "ES256", "jwk": KEY}, claims | changes, signed_by)


def proving(credential: str = BOUND, url: str = URL, method: str = "GET", **headers: str) -> Inbound:
    """A request with a bound token, and with a proof unless another is given."""
    return inbound(
        url, method, **{"authorization": f"DPoP {credential}", "dpop": proof(credential), **headers}
    )


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.world.settle()


class Pause:
    """Hands control back once, as waiting for the runtime does."""

    def __await__(self) -> Iterator[None]:
        yield


def test_a_proven_call_is_forwarded_without_token_and_proof(gate: Gate) -> None:
    gate.relay(proving(x_a="1"))
    assert set(gate.world.of("send")[0].headers) == {"traceparent", "x-a"}
    assert gate.world.of("verify") == ["one", "the caller's"]
    line = gate.world.lines("decision")[-1]
    assert (line["subject"], line["jkt"]) == ("finance-etl", dpop.thumbprint(P256))


def test_every_request_needs_a_proof_of_its_own(gate: Gate) -> None:
    gate.relay(proving())
    gate.refuse(proving(), Reason.TOKEN_PROOF_REPLAYED)
    gate.relay(proving(dpop=proof(jti="2")))
    assert gate.world.of("verify") == ["one", *["the caller's"] * 3]
    gate.later(61)
    gate.refuse(proving(dpop=proof(jti="3")), Reason.TOKEN_PROOF_INVALID)
    gate.relay(proving(dpop=proof(jti="3", iat=NOW + 61)))


def test_a_token_in_a_header_of_its_own_needs_a_proof_too(gate: Gate) -> None:
    gate.relay(inbound(URL, airgate_token=BOUND, dpop=proof()))
    gate.refuse(inbound(URL, airgate_token=BOUND), Reason.TOKEN_PROOF_MISSING)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        pytest.param(asking(BOUND), Reason.TOKEN_SCHEME, id="Bearer"),
        pytest.param(asking(BOUND, dpop=proof()), Reason.TOKEN_SCHEME, id="Bearer, and a good proof"),
        pytest.param(
            inbound(URL, authorization=f"DPoP {BOUND}"), Reason.TOKEN_PROOF_MISSING, id="DPoP, no proof"
        ),
        pytest.param(inbound(URL, authorization=f"DPoP {token()}"), Reason.TOKEN_SCHEME, id="DPoP, unbound"),
        pytest.param(
            proving(token(), dpop=proof(token())), Reason.TOKEN_SCHEME, id="DPoP, unbound, a good proof"
        ),
        pytest.param(asking(dpop=proof()), Reason.TOKEN_PROOF_INVALID, id="Bearer, unbound, with a proof"),
        pytest.param(
            inbound(URL, authorization=f"Bearer {BOUND}, DPoP {BOUND}", dpop=proof()),
            Reason.TOKEN_MALFORMED,
            id="both schemes",
        ),
        pytest.param(proving(dpop=f"{proof()}, {proof()}"), Reason.TOKEN_PROOF_INVALID, id="two proofs"),
        pytest.param(
            proving(dpop=proof(signed_by="another")),
            Reason.TOKEN_PROOF_INVALID,
            id="somebody's signature",
        ),
        pytest.param(proving(method="POST"), Reason.TOKEN_PROOF_INVALID, id="another method's proof"),
        pytest.param(proving(url=URL + "/1"), Reason.TOKEN_PROOF_INVALID, id="another path's proof"),
        pytest.param(
            proving(url="https://other/ledger/v1/entries"),
            Reason.TOKEN_PROOF_INVALID,
            id="another host's",
        ),
        pytest.param(
            proving(token(cnf={"x5t#S256": "a" * 43})), Reason.TOKEN_CLAIMS, id="bound to a certificate"
        ),
    ],
)
def test_refused_first_and_again(gate: Gate, request_: Inbound, reason: Reason) -> None:
    """Also where the token has been verified, and the key's proof believed, before."""
    gate.refuse(request_, reason)
    gate.relay(proving(dpop=proof(jti="between")))
    gate.relay(asking())
    line = gate.refuse(request_, reason)
    if reason not in (Reason.TOKEN_MALFORMED, Reason.TOKEN_CLAIMS):
        assert line["subject"] == "finance-etl"  # whose token somebody tries


def test_nobody_without_the_key_uses_a_proof_up_or_is_remembered(gate: Gate) -> None:
    gate.refuse(proving(dpop=proof(signed_by="another")), Reason.TOKEN_PROOF_INVALID)
    gate.refuse(proving(method="POST"), Reason.TOKEN_PROOF_INVALID)
    assert len(gate.state.proofs) == 0
    gate.relay(proving())
    assert len(gate.state.proofs) == 1


def test_a_proof_that_policy_turns_down_is_used_up_all_the_same(gate: Gate) -> None:
    turned_down = proving(airgate_role="reader")
    gate.refuse(turned_down, Reason.POLICY_NO_MATCH)
    gate.refuse(turned_down, Reason.TOKEN_PROOF_REPLAYED)


def test_a_policy_published_meanwhile_asks_for_no_second_proof(gate: Gate) -> None:
    state = gate.state

    class Publishing(World):
        async def verify(self, key: Key, algorithm: str, given: bytes, signed: bytes) -> bool:
            if algorithm == "ES256":
                self.publish(document(rule()), 2)
                await state.refresh(self, 1)
            return await super().verify(key, algorithm, given, signed)

    gate.world = Publishing()
    gate.relay(proving())
    assert gate.world.lines("decision")[-1]["sequence"] == 2
    assert gate.world.of("verify") == ["one", "the caller's", "one"]
    gate.refuse(proving(), Reason.TOKEN_PROOF_REPLAYED)


def test_a_key_that_the_runtime_will_not_have_is_the_proofs_fault(gate: Gate) -> None:
    class Strict(World):
        async def verify(self, key: Key, algorithm: str, given: bytes, signed: bytes) -> bool:
            if algorithm == "ES256":
                raise Denied(Reason.TOKEN_KEY, "the runtime refused the key: DataError")
            return await super().verify(key, algorithm, given, signed)

    gate.world = Strict()
    line = gate.refuse(proving(), Reason.TOKEN_PROOF_INVALID)
    assert (line["subject"], line["detail"]) == ("finance-etl", "the runtime refused the key: DataError")


def test_two_at_once_with_one_proof_are_not_both_forwarded(gate: Gate) -> None:
    """Each is at the point where its signature is being verified before either has used the proof up."""
    waiting: list[Coroutine[Any, Any, Any]] = []

    class Pausing(World):
        async def verify(self, key: Key, algorithm: str, given: bytes, signed: bytes) -> bool:
            if algorithm == "ES256":
                await Pause()
            return await super().verify(key, algorithm, given, signed)

    gate.world = Pausing()
    for _ in range(2):
        waiting.append(gateway.handle(proving(), gate.state, gate.world))
        waiting[-1].send(None)
    results = [run(work) for work in waiting]
    assert [type(result) for result in results] == [Relay, Refusal]
    assert len(gate.world.of("send")) == 1


def test_a_flood_of_one_caller_is_refused_and_others_are_not(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpop, "SHARE", 2)
    for number_ in range(2):
        gate.relay(proving(dpop=proof(jti=f"{number_}")))
    gate.refuse(proving(dpop=proof(jti="more")), Reason.LIMIT_PROOFS)
    other = token(cnf={"jkt": dpop.thumbprint(P256)}, sub="other")
    gate.relay(proving(other, dpop=proof(other, jti="more")))


def test_an_issuer_may_have_to_bind_its_tokens() -> None:
    bundle = document()
    bundle["issuers"]["company"]["dpop"] = "required"
    gate = Gate(bundle)
    for _ in range(2):
        gate.refuse(asking(), Reason.TOKEN_UNBOUND)
    gate.relay(proving())
    gate.refuse(proving(), Reason.TOKEN_PROOF_REPLAYED)


def test_tokens_that_were_not_bound_end_when_their_issuer_must_bind_them(gate: Gate) -> None:
    gate.relay(asking())
    bundle = document()
    bundle["issuers"]["company"]["dpop"] = "required"
    gate.world.publish(bundle, 2)
    gate.later(11)
    gate.refuse(asking(), Reason.TOKEN_UNBOUND)
