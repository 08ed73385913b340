"""The pipeline: one decision line for every request and nothing sent before it, whatever fails, and dull refusals."""

import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import (
    ABSENT,
    AUDIENCE,
    CLAIMS,
    ED25519,
    HEADER,
    ISSUER,
    JWKS_URI,
    KEY,
    NOW,
    P256,
    RSA,
    SHARD,
    World,
    b64,
    bearing,
    canonical,
    compact,
    digest,
    document,
    grant,
    inbound,
    jwks,
    number,
    revocation,
    rule,
    run,
    token,
    trusting,
)

import audit
import gateway
from breaker import Settings
from keys import COOL_DOWN, FRESH, RETRY, TIMEOUT, USABLE, Key
from model import ANSWERS, Denied, Inbound, Outbound, Reason, Refusal, Relay, UpstreamAnswer
from state import State
from view import Ages

WAIT, STALE = Ages().wait, Ages().stale
SECRET = "hunter2"
URL = "https://gate/ledger/v1/entries"
HEALTH = "https://gate/-/health"
PARTNER = "https://partner.example.com"


class Gate:
    """A gate in its world: answers requests, and checks after each what must hold of every one."""

    def __init__(self, bundle: dict[str, Any] | None = None) -> None:
        self.world = World(bundle)
        self.state = State()

    def answer(self, request: Inbound) -> Refusal | Relay:
        # The clock and a request's arrival are one, and time only goes forward.
        self.world.clock = max(self.world.clock, request.received_at)
        request = request._replace(received_at=self.world.clock)
        before = len(self.world.happened)
        result = run(gateway.handle(request, self.state, self.world))
        assert isinstance(result, Refusal | Relay)
        happened = self.world.happened[before:]
        lines = [(port, json.loads(what)["event"] if port == "log" else "") for port, what in happened]
        decisions = [place for place, line in enumerate(lines) if line == ("log", "decision")]
        sends = [place for place, (port, _) in enumerate(lines) if port == "send"]
        outcomes = [place for place, line in enumerate(lines) if line == ("log", "outcome")]
        assert len(decisions) == 1
        assert len(outcomes) <= 1
        assert outcomes or not sends
        assert decisions + sends + outcomes == sorted(decisions + sends + outcomes)
        decision = self.world.lines("decision")[-1]
        assert decision["request_id"] == result.headers["airgate-request-id"] == request.request_id
        if sends:
            assert decision["decision"] == "permit"
        return result

    def later(self, seconds: float) -> None:
        """Let time pass, from the start of the test."""
        self.world.clock = NOW + seconds

    def refuse(self, request: Inbound, reason: Reason) -> dict[str, Any]:
        """Refuse a request before anything was sent. Returns the decision line."""
        sent = len(self.world.of("send"))
        result = self.answer(request)
        assert isinstance(result, Refusal)
        line = self.world.lines("decision")[-1]
        assert (line["decision"], line["reason"]) == ("deny", reason), line
        assert json.loads(result.body)["code"] == reason
        assert result.status == ANSWERS[reason].status
        assert len(self.world.of("send")) == sent
        return line

    def relay(self, request: Inbound) -> Relay:
        result = self.answer(request)
        assert isinstance(result, Relay), self.world.lines("decision")[-1]
        return result


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.world.settle()


def asking(credential: str | None = None, url: str = URL, method: str = "GET", **headers: str) -> Inbound:
    return inbound(url, method, **bearing(credential, **headers))


def version() -> str:
    return digest(canonical(document()))[:12]


def test_an_approved_call_is_forwarded_and_on_record(gate: Gate) -> None:
    request = asking(
        None, URL + "?q=secret", "POST", accept="a/b", airgate_role="publisher", airgate_dag_id="close"
    )
    relay = gate.relay(request._replace(has_body=True))
    headers = {"accept": "a/b", "traceparent": f"00-{'f' * 32}-{'f' * 16}-00"}
    url = "https://ledger.example.com/api/v1/entries?q=secret"
    assert gate.world.of("send") == [Outbound("POST", url, headers, 30)]
    assert relay.answer == UpstreamAnswer(200, {})
    assert relay.headers == {
        "airgate-request-id": "f" * 32,
        "airgate-decision": "permit",
        "airgate-policy": f"publish@{version()}",
    }
    (decision,) = gate.world.lines("decision")
    assert decision["reason"] is None
    assert (decision["permits"], decision["forbids"]) == (["publish"], [])
    assert decision["route"] == "/v1/**"
    assert (decision["issuer"], decision["subject"], decision["kind"]) == (
        "company",
        "finance-etl",
        "workload",
    )
    assert decision["roles"] == {
        "granted": ["publisher", "reader"],
        "tagged": ["publisher"],
        "effective": ["publisher"],
    }
    assert decision["workload"] == {"dag": {"value": "close", "attested": False}}
    assert (decision["bundle"], decision["sequence"], decision["path"]) == (version(), 1, "/v1/entries")
    (outcome,) = gate.world.lines("outcome")
    assert (outcome["result"], outcome["status"], outcome["upstream"]) == ("answered", 200, "ledger")


@pytest.mark.parametrize("status", [200, 204, 302, 401, 404, 500])
def test_an_upstreams_answer_is_passed_on_whatever_it_says(gate: Gate, status: int) -> None:
    gate.world.answer = UpstreamAnswer(status, {})
    assert gate.relay(asking()).answer.status == status
    assert gate.world.lines("outcome")[-1]["status"] == status


def test_the_time_an_upstream_took_is_in_the_outcome(gate: Gate) -> None:
    class Slow(World):
        async def send(self, call: Outbound) -> UpstreamAnswer:
            self.clock += 1.5
            return await super().send(call)

    gate.world = Slow()
    gate.relay(asking())
    assert gate.world.lines("outcome")[0]["upstream_ms"] == 1500


def test_a_path_is_on_record_only_where_its_upstream_opted_in() -> None:
    gate = Gate(document(rule(target={"upstreams": ["crm", "ledger"], "methods": ["*"], "paths": ["/**"]})))
    gate.relay(asking(url="https://gate/crm/people/jane"))
    gate.relay(asking(url="https://gate/ledger/people/jane"))
    crm, ledger = gate.world.lines("decision")
    assert "path" not in crm
    assert ledger["path"] == "/people/jane"


REQUESTS = [
    pytest.param(inbound(URL, "TRACE"), Reason.REQUEST_METHOD, id="method TRACE"),
    pytest.param(inbound(URL, "CONNECT"), Reason.REQUEST_METHOD, id="method CONNECT"),
    pytest.param(inbound(URL, body=True), Reason.REQUEST_BODY_NOT_ALLOWED, id="GET with a body"),
    pytest.param(
        inbound("https://gate/ledger/../crm"), Reason.ROUTE_PATH_AMBIGUOUS, id="a path with two readings"
    ),
    pytest.param(inbound("https://gate/l#x"), Reason.ROUTE_MALFORMED, id="an address that cannot be read"),
    pytest.param(inbound(URL), Reason.TOKEN_MISSING, id="no token"),
    pytest.param(inbound(URL, "OPTIONS", origin="https://evil"), Reason.TOKEN_MISSING, id="a CORS preflight"),
    pytest.param(
        inbound(URL, user_agent="GoogleHC/1.0"), Reason.TOKEN_MISSING, id="oauth2-proxy CVE-2026-34457"
    ),
    pytest.param(
        inbound("https://gate/ledger/-/health"), Reason.TOKEN_MISSING, id="a path like the health page's"
    ),
    pytest.param(inbound("https://gate/-/health/x"), Reason.TOKEN_MISSING, id="a path below the health page"),
    pytest.param(inbound("https://gate/"), Reason.TOKEN_MISSING, id="no upstream, no token"),
    pytest.param(inbound("https://gate/nowhere"), Reason.TOKEN_MISSING, id="unknown upstream, no token"),
    pytest.param(inbound(HEALTH, "POST", body=True), Reason.TOKEN_MISSING, id="POST to the health page"),
    pytest.param(
        asking(None, HEALTH, "DELETE"), Reason.ROUTE_UNKNOWN_UPSTREAM, id="DELETE of the health page"
    ),
    pytest.param(asking("x.y"), Reason.TOKEN_MALFORMED, id="not a token"),
    pytest.param(asking(f"{token()}, Bearer {token()}"), Reason.TOKEN_MALFORMED, id="two tokens"),
    pytest.param(
        asking(None, airgate_token=""), Reason.TOKEN_MALFORMED, id="an empty Airgate-Token beside a token"
    ),
    pytest.param(asking(token({"alg": "none"})), Reason.TOKEN_ALGORITHM, id="alg none"),
    pytest.param(asking(token({"alg": "NoNe"})), Reason.TOKEN_ALGORITHM, id="alg NoNe"),
    pytest.param(asking(token({"alg": "HS256"})), Reason.TOKEN_ALGORITHM, id="alg HS256"),
    pytest.param(
        asking(token({"alg": "ES256"})), Reason.TOKEN_ALGORITHM, id="an algorithm that this issuer has not"
    ),
    pytest.param(asking(token({"alg": "eddsa"})), Reason.TOKEN_ALGORITHM, id="alg in lower case"),
    pytest.param(asking(token(iss="https://evil.example")), Reason.TOKEN_ISSUER, id="a strange issuer"),
    pytest.param(asking(token(iss=ISSUER + "/")), Reason.TOKEN_ISSUER, id="iss with a slash more"),
    pytest.param(asking(token(iss=ISSUER.upper())), Reason.TOKEN_ISSUER, id="iss in upper case"),
    pytest.param(asking(token({"kid": "two"})), Reason.TOKEN_KEY, id="a kid that the issuer has not"),
    pytest.param(asking(compact(HEADER, CLAIMS, "two")), Reason.TOKEN_SIGNATURE, id="signed by another key"),
    pytest.param(
        asking(token().rpartition(".")[0] + ".AAAA"), Reason.TOKEN_SIGNATURE, id="a short signature"
    ),
    pytest.param(
        asking(token().rpartition(".")[0] + "." + b64(bytes(64))),
        Reason.TOKEN_SIGNATURE,
        id="a signature of zeros",
    ),
    pytest.param(asking(token({"typ": "JWT"})), Reason.TOKEN_TYPE, id="an ID token"),
    pytest.param(asking(token(sub=ABSENT)), Reason.TOKEN_CLAIMS, id="no sub"),
    pytest.param(asking(token(groups=[1])), Reason.TOKEN_CLAIMS, id="groups that are numbers"),
    pytest.param(asking(token(airgate_kind="robot")), Reason.TOKEN_CLAIMS, id="a strange kind"),
    pytest.param(asking(token(aud="https://other")), Reason.TOKEN_AUDIENCE, id="another audience"),
    pytest.param(asking(token(exp=NOW - 60)), Reason.TOKEN_EXPIRED, id="expired"),
    pytest.param(asking(token(nbf=NOW + 61)), Reason.TOKEN_NOT_YET_VALID, id="not valid yet"),
    pytest.param(asking(token(exp=NOW + 4000)), Reason.TOKEN_LIFETIME, id="a long lifetime"),
    pytest.param(asking(airgate_role="admin"), Reason.ROLE_NOT_GRANTED, id="a role that is not granted"),
    pytest.param(asking(airgate_role="*"), Reason.ROLE_MALFORMED, id="a role tag that cannot be read"),
    pytest.param(
        asking(airgate_dag_id="\x00"), Reason.REQUEST_HEADER_INVALID, id="context that cannot be read"
    ),
    pytest.param(
        asking(url="https://gate/nowhere/x"), Reason.ROUTE_UNKNOWN_UPSTREAM, id="an unknown upstream"
    ),
    pytest.param(asking(url="https://gate/-/nothing"), Reason.ROUTE_UNKNOWN_UPSTREAM, id="an unknown page"),
    pytest.param(
        asking(url="https://gate//health"), Reason.ROUTE_UNKNOWN_UPSTREAM, id="no name for an upstream"
    ),
    pytest.param(asking(url="https://gate/ledger/v2"), Reason.POLICY_NO_MATCH, id="no policy for it"),
    pytest.param(asking(airgate_role="reader"), Reason.POLICY_NO_MATCH, id="the role put aside"),
    pytest.param(asking(token(groups=[])), Reason.POLICY_NO_MATCH, id="no role"),
]


@pytest.mark.parametrize(("request_", "reason"), REQUESTS)
def test_refused(gate: Gate, request_: Inbound, reason: Reason) -> None:
    gate.refuse(request_, reason)
    gate.refuse(request_, reason)


def test_a_policy_may_forbid() -> None:
    gate = Gate(document(rule(), rule(id="stop", effect="forbid", owner="risk@example.com")))
    result = gate.answer(asking())
    assert isinstance(result, Refusal)
    assert result.status == 403
    assert result.headers["airgate-policy"] == f"stop@{gate.state.version}"
    assert json.loads(result.body)["contact"] == "risk@example.com"
    assert gate.world.lines("decision")[-1]["forbids"] == ["stop"]


def partner_gate() -> Gate:
    """Two issuers, each with a key under the same id."""
    bundle = document()
    bundle["issuers"]["partner"] = {
        **bundle["issuers"]["company"],
        "issuer": PARTNER,
        "jwks_uri": PARTNER + "/keys",
    }
    gate = Gate(bundle)
    gate.world.pages[PARTNER + "/keys"] = jwks({**KEY, "x": number(7, 32)})
    return gate


def test_each_issuers_tokens_are_verified_by_its_own_keys() -> None:
    """Also where two issuers have a key under the same id."""
    gate, verified = partner_gate(), []

    class Watching(World):
        async def verify(self, key: Key, algorithm: str, given: bytes, signed: bytes) -> bool:
            verified.append(key.jwk["x"])
            return await super().verify(key, algorithm, given, signed)

    watching = Watching()
    watching.values, watching.pages, watching.d1 = gate.world.values, gate.world.pages, gate.world.d1
    gate.world = watching
    gate.relay(asking())
    gate.refuse(asking(token(iss=PARTNER)), Reason.POLICY_NO_MATCH)
    assert verified == [KEY["x"], number(7, 32)]


def test_a_role_granted_by_one_issuer_is_not_granted_by_another() -> None:
    line = partner_gate().refuse(asking(token(iss=PARTNER)), Reason.POLICY_NO_MATCH)
    assert (line["issuer"], line["roles"]["granted"]) == ("partner", [])


def test_a_key_is_only_used_for_its_own_algorithm() -> None:
    bundle = document()
    bundle["issuers"]["company"]["algorithms"] = ["EdDSA", "ES256", "RS256", "PS256"]
    gate = Gate(bundle)
    gate.world.pages[JWKS_URI] = jwks({**P256, "kid": "ec"}, {**RSA, "kid": "rsa", "alg": "PS256"}, KEY)
    gate.refuse(asking(token({"alg": "ES256", "kid": "one"})), Reason.TOKEN_KEY)
    gate.refuse(asking(token({"alg": "EdDSA", "kid": "ec"})), Reason.TOKEN_KEY)
    gate.refuse(asking(token({"alg": "RS256", "kid": "rsa"})), Reason.TOKEN_KEY)
    assert gate.world.of("verify") == []


@pytest.mark.parametrize(
    "url", ["https://gate/ledger/v1", "https://gate/nowhere/v1", "https://gate/-/nothing"]
)
@pytest.mark.parametrize("credential", ["", "x.y.z", token(exp=1), token(iss="https://evil.example")])
def test_without_a_good_token_upstreams_cannot_be_told_apart(gate: Gate, url: str, credential: str) -> None:
    known, asked = (gate.answer(asking(credential, each)) for each in (URL, url))
    assert known == asked
    assert isinstance(known, Refusal)
    assert known.status == 401


@pytest.mark.parametrize(
    ("request_", "contact"),
    [
        pytest.param(
            asking(url="https://gate/ledger/v2"), "ledger@example.com", id="no policy: the upstream's owner"
        ),
        pytest.param(asking(url="https://gate/nowhere"), None, id="no upstream: nobody"),
        pytest.param(inbound(URL), None, id="nobody that the gate knows is told nothing"),
    ],
)
def test_whom_to_ask(gate: Gate, request_: Inbound, contact: str | None) -> None:
    result = gate.answer(request_)
    assert isinstance(result, Refusal)
    assert json.loads(result.body).get("contact") == contact


@pytest.mark.parametrize(
    ("failure", "reason", "result"),
    [
        pytest.param(
            Denied(Reason.UPSTREAM_UNREACHABLE), Reason.UPSTREAM_UNREACHABLE, "unreachable", id="unreachable"
        ),
        pytest.param(Denied(Reason.UPSTREAM_TIMEOUT), Reason.UPSTREAM_TIMEOUT, "timeout", id="too slow"),
        pytest.param(ValueError(SECRET), Reason.INTERNAL, "internal", id="a mistake of ours"),
        pytest.param(RecursionError(SECRET), Reason.INTERNAL, "internal", id="too deep"),
    ],
)
def test_a_call_that_fails_has_an_outcome(
    gate: Gate, failure: Exception, reason: Reason, result: str
) -> None:
    gate.world.answer = failure
    refused = gate.answer(asking())
    assert isinstance(refused, Refusal)
    assert (refused.status, json.loads(refused.body)["code"]) == (ANSWERS[reason].status, reason)
    assert refused.headers["airgate-decision"] == "permit"  # policy did permit it
    (outcome,) = gate.world.lines("outcome")
    assert (outcome["result"], outcome["status"]) == (result, None)
    assert (outcome["detail"] or "").startswith("" if isinstance(failure, Denied) else type(failure).__name__)
    assert SECRET not in str(gate.world.happened) + refused.body


@pytest.mark.parametrize("reason", [Reason.UPSTREAM_UNREACHABLE, Reason.UPSTREAM_TIMEOUT])
@pytest.mark.parametrize(
    ("method", "again"),
    [("GET", True), ("PUT", True), ("DELETE", True), ("POST", False), ("PATCH", False)],
)
def test_what_may_have_been_done_is_not_said_to_be_retryable(
    gate: Gate, reason: Reason, method: str, again: bool
) -> None:
    gate.world.answer = Denied(reason)
    refused = gate.answer(asking(method=method))
    assert isinstance(refused, Refusal)
    assert json.loads(refused.body)["retryable"] is again
    assert ("retry-after" in refused.headers) is again


CRASHES = [
    pytest.param("database", OSError("away"), Reason.STATE_STALE, id="D1 is away"),
    pytest.param("database", TimeoutError(), Reason.STATE_STALE, id="D1 does not answer"),
    pytest.param("database", KeyError(SECRET), Reason.INTERNAL, id="the D1 port has a mistake"),
    pytest.param("kv", OSError("away"), Reason.STATE_STALE, id="KV is away"),
    pytest.param("kv", KeyError(SECRET), Reason.INTERNAL, id="the KV port has a mistake"),
    pytest.param("fetch", OSError("away"), Reason.ISSUER_UNAVAILABLE, id="the issuer is away"),
    pytest.param("fetch", KeyError(SECRET), Reason.INTERNAL, id="the fetch port has a mistake"),
    pytest.param(
        "verify", Denied(Reason.TOKEN_KEY, "refused"), Reason.TOKEN_KEY, id="the runtime refuses the key"
    ),
    pytest.param("verify", KeyError(SECRET), Reason.INTERNAL, id="the verify port has a mistake"),
    pytest.param("now", KeyError(SECRET), Reason.INTERNAL, id="the clock has a mistake"),
]


@pytest.mark.parametrize(("port", "failure", "reason"), CRASHES)
def test_a_port_that_fails_refuses_and_is_on_record(
    gate: Gate, port: str, failure: Exception, reason: Reason
) -> None:
    gate.world.broken[port] = failure
    line = gate.refuse(asking(), reason)
    if reason is Reason.INTERNAL:
        assert line["detail"].startswith("KeyError at ")
        assert SECRET not in str(gate.world.happened)
    gate.world.broken.clear()
    gate.later(WAIT + 1)
    gate.relay(asking())


def test_a_mistake_without_a_trace_is_on_record_by_its_kind() -> None:
    assert audit.where(ValueError(SECRET)) == "ValueError"


def test_a_bundle_that_cannot_decide_refuses(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr("policy.Policy.matches", fails)
    assert gate.refuse(asking(), Reason.INTERNAL)["detail"].startswith("ZeroDivisionError at fails:")
    assert SECRET not in str(gate.world.happened)


ANY_HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "authorization",
            "airgate-token",
            "airgate-role",
            "airgate-dag-id",
            "airgate-dag-tags",
            "connection",
            "x-a",
        ]
    ),
    st.sampled_from([f"Bearer {token()}", token(), "publisher", "reader", "a,b", "", "Bearer", "\x00", "é"])
    | st.text(max_size=20),
)


@given(
    st.sampled_from([URL, HEALTH, "https://gate/", "https://gate/crm/a"])
    | st.text(max_size=20).map(URL.__add__),
    st.sampled_from(["GET", "POST", "HEAD", "TRACE", ""]),
    ANY_HEADERS,
    st.booleans(),
)
@settings(max_examples=200)
def test_any_request_has_one_decision_line(
    url: str, method: str, headers: dict[str, str], body: bool
) -> None:
    """What must hold of every request is checked by Gate.answer."""
    gate = SHARED
    gate.answer(Inbound("e" * 32, NOW, method, url, headers, body))
    gate.world.settle()


SHARED = Gate()


def test_nothing_secret_is_logged_or_answered() -> None:
    """Tokens, signatures, query strings, headers, bodies and exceptions' texts stay inside."""
    secrets = ["hush-query", "hush-cookie", "hush-error", "hush-key", "hush-claim"]
    for answer in (UpstreamAnswer(200, {}), KeyError("hush-error"), Denied(Reason.UPSTREAM_TIMEOUT)):
        for credential in (
            token(password="hush-claim"),
            token(iss="https://evil.example", password="hush-claim"),
            token(exp=NOW - 100, password="hush-claim"),
            compact({**HEADER, "x": "hush-key"}, {**CLAIMS, "password": "hush-claim"}, "other"),
            "hush-claim",
        ):
            for broken in (None, "verify", "fetch", "kv", "database"):
                gate = Gate()
                gate.world.answer = answer
                if broken is not None:
                    gate.world.broken[broken] = KeyError("hush-error")
                request = asking(
                    credential, URL + "?q=hush-query", cookie="hush-cookie", x_api_key="hush-key"
                )
                result = gate.answer(request)
                told = "".join(gate.world.of("log")) + str(result.headers)
                told += result.body if isinstance(result, Refusal) else ""
                for part in (*secrets, credential, *credential.split(".")):
                    assert part not in told


def test_a_verified_token_is_not_verified_again(gate: Gate) -> None:
    for _ in range(3):
        gate.relay(asking())
    assert gate.world.of("verify") == ["one"]
    assert gate.world.of("fetch") == [JWKS_URI]


def test_a_remembered_token_still_expires(gate: Gate) -> None:
    gate.relay(asking())
    gate.later(359.9)
    gate.relay(asking())
    gate.later(360)
    gate.refuse(asking(), Reason.TOKEN_EXPIRED)


def test_a_refused_token_is_not_remembered(gate: Gate) -> None:
    forged = compact(HEADER, CLAIMS, "other")
    for _ in range(2):
        gate.refuse(asking(forged), Reason.TOKEN_SIGNATURE)
    assert len(gate.world.of("verify")) == 2


def test_a_remembered_token_follows_the_policy(gate: Gate) -> None:
    gate.relay(asking())
    bundle = document()
    bundle["roles"]["publisher"] = []
    gate.world.publish(bundle, 2)
    gate.world.clock += WAIT + 1
    line = gate.refuse(asking(), Reason.POLICY_NO_MATCH)
    assert (line["roles"]["granted"], line["sequence"]) == (["reader"], 2)


def test_a_policy_published_while_a_token_is_verified_applies_to_that_request(gate: Gate) -> None:
    state = gate.state

    class Publishing(World):
        async def verify(self, key: Key, algorithm: str, given: bytes, signed: bytes) -> bool:
            bundle = document()
            bundle["roles"]["publisher"] = []
            self.publish(bundle, 2)
            await state.refresh(self, 1)
            return await super().verify(key, algorithm, given, signed)

    gate.world = Publishing()
    gate.refuse(asking(), Reason.POLICY_NO_MATCH)
    gate.refuse(asking(), Reason.POLICY_NO_MATCH)
    assert [line["sequence"] for line in gate.world.lines("decision")] == [2, 2]


def test_stale_keys_are_fetched_in_the_background(gate: Gate) -> None:
    gate.relay(asking())
    late = asking(token(iat=NOW, exp=NOW + 3600))
    gate.later(FRESH + 1)
    gate.relay(late)  # a token that is new
    gate.relay(late)
    assert gate.world.of("fetch") == [JWKS_URI]
    assert gate.world.settle() == 1
    assert gate.world.of("fetch") == [JWKS_URI] * 2
    gate.later(2 * FRESH + 2)
    gate.relay(late)  # a token that is remembered
    gate.relay(late)
    assert gate.world.settle() == 1
    assert gate.world.of("fetch") == [JWKS_URI] * 3


def test_a_withdrawn_key_ends_the_tokens_it_signed(gate: Gate) -> None:
    old = asking(token(iat=NOW, exp=NOW + 3600))
    gate.relay(old)
    gate.world.pages[JWKS_URI] = jwks({**KEY, "kid": "two"})
    gate.later(FRESH + 1)
    gate.relay(old)
    gate.world.settle()
    gate.refuse(old, Reason.TOKEN_KEY)


def test_a_rotated_key_is_found_at_once_but_made_up_ones_are_not_looked_for(gate: Gate) -> None:
    gate.relay(asking())
    gate.world.pages[JWKS_URI] = jwks(KEY, {**KEY, "kid": "two", "x": number(7, 32)})
    rotated = compact({**HEADER, "kid": "two"}, CLAIMS, "two")
    gate.later(COOL_DOWN + 1)
    gate.relay(asking(rotated))
    for made_up in range(100):
        gate.refuse(asking(token({"kid": f"k{made_up}"})), Reason.TOKEN_KEY)
    assert gate.world.of("fetch") == [JWKS_URI] * 2


def test_an_issuer_that_is_away_does_not_stop_tokens_whose_keys_are_held(gate: Gate) -> None:
    gate.relay(asking())
    gate.world.pages[JWKS_URI] = OSError("answered 429")
    late = token(iat=NOW + USABLE - 60, exp=NOW + USABLE)
    for age in (USABLE - 60, USABLE - 1):
        gate.later(age)
        gate.relay(asking(late))
        gate.world.settle()
    gate.later(USABLE)
    line = gate.refuse(asking(late), Reason.ISSUER_UNAVAILABLE)
    assert line["detail"] == "OSError: answered 429"  # 503, never 401: the caller is not at fault


def test_an_issuer_that_is_away_from_the_start_answers_503_with_a_time(gate: Gate) -> None:
    gate.world.broken["fetch"] = TimeoutError()
    gate.refuse(asking(), Reason.ISSUER_UNAVAILABLE)
    gate.refuse(asking(), Reason.ISSUER_UNAVAILABLE)
    assert gate.world.of("fetch") == [JWKS_URI]
    gate.world.broken.clear()
    gate.later(TIMEOUT + RETRY)
    gate.relay(asking())


def health(gate: Gate, request: Inbound) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Status, body and decision line of the health page."""
    result = gate.answer(request)
    assert isinstance(result, Refusal)
    assert result.headers["content-type"] == "application/json"
    assert result.headers["cache-control"] == "no-store"
    assert gate.world.of("send") == []
    return result.status, json.loads(result.body), gate.world.lines("decision")[-1]


@pytest.mark.parametrize(
    ("request_", "detail"),
    [
        pytest.param(inbound(HEALTH), "token.missing", id="no token"),
        pytest.param(inbound(HEALTH + "/"), "token.missing", id="a slash at the end"),
        pytest.param(inbound(HEALTH + "?x"), "token.missing", id="a query"),
        pytest.param(inbound(HEALTH, "HEAD"), "token.missing", id="HEAD"),
        pytest.param(
            asking("x", HEALTH), "token.malformed: not three parts of base64url", id="a token like none"
        ),
        pytest.param(asking(token(exp=NOW - 100), HEALTH), "token.expired: 100 s ago", id="an expired token"),
        pytest.param(asking(token(groups=[]), HEALTH), None, id="a caller whom policy does not let see more"),
        pytest.param(
            asking(None, HEALTH, airgate_role="admin"), "role.not_granted: admin", id="a role not granted"
        ),
    ],
)
def test_health_says_ok_to_anyone_and_no_more(gate: Gate, request_: Inbound, detail: str | None) -> None:
    status, body, line = health(gate, request_)
    assert (status, body) == (200, {"status": "ok"})
    assert (line["decision"], line["reason"], line["detail"]) == ("permit", None, detail)
    assert (line["upstream"], line["bundle"], line["sequence"]) == ("-", version(), 1)


def test_health_shows_details_to_a_caller_whom_policy_lets_see_them(gate: Gate) -> None:
    status, body, line = health(gate, asking(None, HEALTH))
    assert status == 200
    assert body["status"] == "ok"
    assert body["bundle"] == {
        "version": version(),
        "sequence": 1,
        "age": 60,
        "by": "ci",
        "error": None,
        "zones_until": None,
    }
    counts = {"revocations": 0, "grants": 0, "refused": 0, "sessions": {"ended": 0, "full": []}}
    assert body["view"] == {"age": 0.0, "signed": False, **counts}
    assert body["shards"] == {
        "-": {"policies": 1, "error": None},
        "ledger": {"policies": None, "error": None},
    }
    assert body["warnings"] == ["no TRUSTED_KEYS: whoever can write D1 can change policy"]
    assert body["circuits"] == {}
    gate.state.health("crm").settle(gate.state.health("crm").admit(Settings(failures=1), NOW, 1), True, NOW)
    assert json.loads(gate.answer(asking(url=HEALTH)).body)["circuits"] == {"crm": "open"}
    assert body["issuers"] == {"company": {"keys": 1, "age": 0, "error": None}}
    assert (line["permits"], line["subject"]) == (["health"], "finance-etl")


def test_health_tells_what_is_known_of_d1_and_whose_word_counts() -> None:
    gate = Gate()
    gate.world.secrets = trusting()
    for act in (revocation(match={"subject": "mallory"}), grant(), grant(gate="airgate-staging")):
        gate.world.act(act)
    gate.world.act(grant(by="nobody"), kid="unheard-of")
    _, body, _ = health(gate, asking(None, HEALTH))
    assert body["bundle"]["by"] == "Operator"
    counts = {"revocations": 1, "grants": 1, "refused": 2, "sessions": {"ended": 0, "full": []}}
    assert body["view"] == {"age": 0.0, "signed": True, **counts}
    assert body["warnings"] == []
    gate.later(5.3)
    _, body, _ = health(gate, asking(None, HEALTH))
    assert body["view"]["age"] == 5.3


def test_health_tells_everyone_which_worker_it_is(gate: Gate) -> None:
    gate.world.secrets["VERSION"] = "0.2.0+3f2a"
    assert health(gate, inbound(HEALTH))[1] == {"status": "ok", "version": "0.2.0+3f2a"}
    gate.world.broken["database"] = OSError("away")
    gate.later(STALE + 1)
    assert health(gate, asking(None, HEALTH))[:2] == (503, {"status": "failing", "version": "0.2.0+3f2a"})


@pytest.mark.parametrize("port", ["kv", "database", "now"])
@pytest.mark.parametrize("failure", [OSError("away"), KeyError(SECRET)])
def test_health_fails_without_a_policy(gate: Gate, port: str, failure: Exception) -> None:
    gate.world.broken[port] = failure
    status, body, line = health(gate, asking(None, HEALTH))
    assert (status, body) == (503, {"status": "failing"})
    assert line["bundle"] is None
    assert SECRET not in str(gate.world.happened)


@pytest.mark.parametrize("port", ["fetch", "verify"])
def test_health_is_ok_while_an_issuer_is_not(gate: Gate, port: str) -> None:
    gate.world.broken[port] = KeyError(SECRET)
    status, body, line = health(gate, asking(None, HEALTH))
    assert (status, body) == (200, {"status": "ok"})
    assert line["detail"].startswith("KeyError at ")
    assert SECRET not in str(gate.world.happened)


def test_health_is_ok_while_the_store_is_away_and_a_policy_is_held(gate: Gate) -> None:
    health(gate, asking(None, HEALTH))
    gate.world.broken["kv"] = OSError("away")
    gate.later(200)
    status, body, _ = health(gate, asking(None, HEALTH))
    assert (status, body["bundle"]["error"]) == (200, None)  # no new policy, so nothing to be read there
    gate.world.publish(document(rule(id="another")), 2)
    gate.later(211)
    status, body, _ = health(gate, asking(None, HEALTH))
    assert (status, body["bundle"]["error"], body["bundle"]["sequence"]) == (200, "OSError: away", 1)


def test_health_is_ok_while_d1_is_away_until_the_view_is_too_old(gate: Gate) -> None:
    health(gate, asking(None, HEALTH))
    gate.world.broken["database"] = OSError("away")
    gate.later(STALE)
    status, body, _ = health(gate, asking(None, HEALTH))
    assert (status, body["bundle"]["error"], body["view"]["age"]) == (200, "OSError: away", 60)
    gate.later(STALE + 1)
    status, body, line = health(gate, asking(None, HEALTH))
    assert (status, body) == (503, {"status": "failing"})
    assert line["detail"] == "state.stale: OSError: away"


def test_a_gate_that_cannot_tell_what_is_revoked_says_so_and_when_to_come_back(gate: Gate) -> None:
    gate.relay(asking())
    gate.world.broken["database"] = OSError("away")
    gate.later(STALE)
    gate.relay(asking())
    gate.later(STALE + 0.1)
    for request in (asking(), inbound(URL), asking("x.y.z")):  # nobody's token is looked at
        assert gate.refuse(request, Reason.STATE_STALE)["detail"] == "OSError: away"
    result = gate.answer(asking())
    assert isinstance(result, Refusal)
    assert (result.status, result.headers["retry-after"], "away" in result.body) == (503, "5", False)
    gate.world.broken.clear()
    gate.later(STALE + 3)
    gate.relay(asking())


def test_a_refused_caller_who_is_known_is_named(gate: Gate) -> None:
    line = gate.refuse(asking(airgate_role="admin"), Reason.ROLE_NOT_GRANTED)
    assert line["detail"] == "admin"
    assert (line.get("issuer"), line.get("subject")) == ("company", "finance-etl")


def test_airgate_token_alone_is_the_identity(gate: Gate) -> None:
    gate.refuse(asking(None, airgate_token=token(exp=NOW - 100)), Reason.TOKEN_EXPIRED)
    gate.relay(inbound(URL, authorization="Basic abc", airgate_token=token()))
    (call,) = gate.world.of("send")
    assert set(call.headers) == {"traceparent"}


def test_the_token_never_reaches_the_upstream(gate: Gate) -> None:
    gate.relay(asking())
    gate.relay(inbound(URL, airgate_token=token()))
    assert token() not in str(gate.world.of("send"))


def test_an_audience_may_be_one_of_several(gate: Gate) -> None:
    gate.relay(asking(token(aud=["https://other", AUDIENCE])))
    gate.refuse(asking(token(aud=["https://other", AUDIENCE], client_id="x")), Reason.TOKEN_AUDIENCE)


def obliging(*obligations: dict[str, Any]) -> Gate:
    """A gate whose permits ask for something."""
    policies = [rule(id=f"permit-{n}", obligations=asked) for n, asked in enumerate(obligations)]
    return Gate(document(*policies))


REQUIRE = {"require": {"headers": ["X-Change-Id"], "justification": False}}
WHY = {"require": {"headers": [], "justification": True}}


@pytest.mark.parametrize(
    ("obligations", "request_", "reason", "told"),
    [
        pytest.param([{"watermark": 1}], {}, Reason.POLICY_OBLIGATION, None, id="one that nobody knows"),
        pytest.param([{"credential": "x"}], {}, Reason.POLICY_OBLIGATION, None, id="a credential: none are held"),
        pytest.param(
            [{"credential": "x"}, {"credential": "y"}], {}, Reason.POLICY_OBLIGATION, None, id="two credentials"
        ),
        pytest.param([REQUIRE], {}, Reason.REQUEST_HEADER_REQUIRED, "send the header x-change-id", id="a header"),
        pytest.param(
            [REQUIRE], {"x_change_id": " "}, Reason.REQUEST_HEADER_REQUIRED, "send the header x-change-id",
            id="a header that says nothing",
        ),
        pytest.param([REQUIRE], {"x_change_id": "C-1"}, None, None, id="a header that is there"),
        pytest.param([WHY], {}, Reason.REQUEST_JUSTIFICATION_REQUIRED, "send Airgate-Justification", id="why"),
        pytest.param(
            [WHY], {"airgate_justification": "x" * 9}, Reason.REQUEST_JUSTIFICATION_REQUIRED,
            "send Airgate-Justification", id="too short a reason",
        ),
        pytest.param(
            [WHY], {"airgate_justification": "x" * 501}, Reason.REQUEST_JUSTIFICATION_REQUIRED,
            "send Airgate-Justification", id="too long a reason",
        ),
        pytest.param(
            [WHY], {"airgate_justification": "x" * 10 + "\x07"}, Reason.REQUEST_JUSTIFICATION_REQUIRED,
            "send Airgate-Justification", id="a reason that rings a bell",
        ),
        pytest.param([WHY], {"airgate_justification": "month-end close"}, None, None, id="a reason"),
        pytest.param([{"max_body": 9}], {}, None, None, id="no body under a limit"),
        pytest.param(
            [{"max_body": 9}], {"body": True, "content_length": "9"}, None, None, id="a body at the limit"
        ),
        pytest.param(
            [{"max_body": 9}, {"max_body": 10}], {"body": True, "content_length": "10"},
            Reason.REQUEST_BODY_TOO_LARGE, "at most 9 bytes", id="a body over the lower of two limits",
        ),
        pytest.param(
            [{"max_body": 9}], {"body": True}, Reason.REQUEST_LENGTH_REQUIRED, "send Content-Length",
            id="a body of no declared length",
        ),
        pytest.param(
            [{"max_body": 9}], {"body": True, "content_length": "1, 1"}, Reason.REQUEST_LENGTH_REQUIRED,
            "send Content-Length", id="a body of two lengths",
        ),
        pytest.param(
            [{"max_body": 9}], {"body": True, "content_length": "\u00b2"}, Reason.REQUEST_LENGTH_REQUIRED,
            "send Content-Length", id="a length that is no number",
        ),
        pytest.param(
            [{"max_body": 9}], {"body": True, "content_length": "1" * 5000}, Reason.REQUEST_LENGTH_REQUIRED,
            "send Content-Length", id="an endless length",
        ),
        pytest.param(
            [{"asking": {"about": "any", "trust": []}}], {}, None, None, id="what only AuthZEN is asked about"
        ),
    ],
)  # fmt: skip
def test_obligations(
    obligations: list[dict[str, Any]], request_: dict[str, Any], reason: Reason | None, told: str | None
) -> None:
    gate = obliging(*obligations)
    sent = inbound(URL, method="POST", **{**bearing(), **request_})
    if reason is None:
        gate.relay(sent)
        return
    gate.refuse(sent, reason)
    body = json.loads(gate.answer(sent).body)
    assert body.get("detail", "").startswith(told or "")
    assert body["contact"] == "finance@example.com"
    assert gate.world.of("send") == []


def test_the_justification_is_on_record() -> None:
    gate = obliging(WHY)
    gate.relay(asking(airgate_justification="month-end close"))
    assert gate.world.lines("decision")[0]["justification"] == "month-end close"


def per_minute(limit: int, *by: str) -> dict[str, Any]:
    return {"rate_limit": [{"limit": limit, "per": 60, "by": list(by)}]}


def test_a_rate_limit_refuses_when_it_is_used_up() -> None:
    gate = obliging(per_minute(10, "subject"))
    gate.world.limits["LIMIT_10_PER_60S"] = 2
    gate.relay(asking())
    gate.relay(asking())
    line = gate.refuse(asking(), Reason.LIMIT_RATE)
    assert line["detail"] == "more than 10 in 60 s by subject"
    assert len(set(gate.world.of("allow"))) == 1
    refused = gate.answer(asking())
    assert (refused.status, refused.headers["retry-after"]) == (429, "60")


def test_a_limit_that_the_gate_cannot_count_refuses() -> None:
    gate = obliging(per_minute(7, "subject"))
    line = gate.refuse(asking(), Reason.POLICY_OBLIGATION)
    assert line["detail"] == "no rate-limiting binding LIMIT_7_PER_60S"


@pytest.mark.parametrize(
    ("by", "one", "other", "same"),
    [
        (["subject"], {"airgate_dag_id": "a"}, {"airgate_dag_id": "b"}, True),
        (["subject", "dag"], {"airgate_dag_id": "a"}, {"airgate_dag_id": "b"}, False),
        (["subject", "dag"], {"airgate_dag_id": "a"}, {}, False),
        (["subject", "task"], {"airgate_task_id": "a"}, {"airgate_task_id": "b"}, False),
        (["subject", "role"], {"airgate_role": "publisher"}, {}, False),
        (["policy"], {"airgate_role": "publisher"}, {"airgate_dag_id": "b"}, True),
    ],
)
def test_calls_are_counted_by_what_the_limit_says(
    by: list[str], one: dict[str, str], other: dict[str, str], same: bool
) -> None:
    gate = obliging(per_minute(600, *by))
    gate.relay(asking(**one))
    gate.relay(asking(**other))
    first, second = gate.world.of("allow")
    assert (first == second) is same


def test_limits_of_several_permits_are_all_counted() -> None:
    gate = obliging(per_minute(600, "subject"), per_minute(300, "subject"), per_minute(600, "policy"))
    gate.world.limits["LIMIT_300_PER_60S"] = 5
    gate.relay(asking())
    assert [binding for binding, _ in gate.world.of("allow")] == ["LIMIT_600_PER_60S", "LIMIT_300_PER_60S"]


def test_a_call_that_is_refused_for_another_reason_is_not_counted() -> None:
    gate = obliging(per_minute(600, "subject"), REQUIRE)
    gate.refuse(asking(), Reason.REQUEST_HEADER_REQUIRED)
    assert gate.world.of("allow") == []


def test_the_country_is_asked_for_only_where_policy_asks() -> None:
    gate = Gate()
    gate.relay(asking())
    assert gate.world.of("country") == []
    gate = Gate(document(rule(conditions=[["when.country", ["DE"]]])))
    gate.refuse(asking(), Reason.POLICY_NO_MATCH)
    gate.world.from_country = "DE"
    gate.relay(asking())
    assert gate.world.lines("decision")[-1]["country"] == "DE"


def test_the_clients_address_is_the_edges() -> None:
    gate = Gate(document(rule(conditions=[["when.ip", ["192.0.2.0/24"]]])))
    gate.refuse(asking(), Reason.POLICY_NO_MATCH)
    gate.refuse(asking(x_forwarded_for="192.0.2.7"), Reason.POLICY_NO_MATCH)
    gate.relay(asking(cf_connecting_ip="192.0.2.7"))


def test_a_shard_that_cannot_be_read_refuses_its_upstream() -> None:
    gate = Gate()
    key = SHARD + document()["shards"]["ledger"]
    gate.world.values[key] = OSError("away")
    line = gate.refuse(asking(), Reason.POLICY_UNAVAILABLE)
    assert line["subject"] == "finance-etl"


def test_nobody_unknown_makes_the_gate_read_a_shard() -> None:
    gate = Gate()
    gate.refuse(inbound(URL), Reason.TOKEN_MISSING)
    assert [key for key, _ in gate.world.of("kv") if key.startswith(SHARD)] == []


QUESTION = "https://gate/access/v1/evaluation"
QUESTIONS = "https://gate/access/v1/evaluations"
MAY_ASK = rule(
    id="ask",
    owner="gate@example.com",
    target={
        "upstreams": ["-"],
        "methods": ["POST"],
        "paths": ["/access/v1/evaluation", "/access/v1/evaluations"],
    },
    obligations={"asking": {"about": "any", "trust": ["roles"]}},
)
MAY_DO = rule(
    id="edit",
    target={"upstreams": ["resource:todo"], "methods": ["edit"], "paths": ["/*"]},
    conditions=[["subject.roles.any", ["editor"]]],
    obligations={"watermark": "blue"},
)


def question(subject: str, *, roles: list[str]) -> dict[str, Any]:
    return {
        "subject": {"type": "user", "id": subject, "properties": {"roles": roles}},
        "action": {"name": "edit"},
        "resource": {"type": "todo", "id": "7"},
    }


def evaluating(gate: Gate, body: Any, url: str = QUESTION, **headers: str) -> Any:
    gate.world.sent = json.dumps(body).encode()
    named = {"content_type": "application/json", **headers}
    return gate.answer(inbound(url, method="POST", body=True, **bearing(None, **named)))


def test_a_question_is_answered_and_both_the_asker_and_the_subject_are_on_record() -> None:
    gate = Gate(document(MAY_ASK, MAY_DO))
    answer = evaluating(gate, question("mallory", roles=["editor"]), x_request_id="abc.7")
    assert (answer.status, answer.headers["x-request-id"]) == (200, "abc.7")
    body = json.loads(answer.body)
    assert body["decision"] is True
    assert body["context"]["obligations"][0]["type"] == "watermark"
    (asked,) = gate.world.lines("evaluation")
    assert (asked["number"], asked["subject"], asked["permits"]) == (0, "mallory", ["edit"])
    (line,) = gate.world.lines("decision")
    assert (line["page"], line["subject"], line["permits"]) == ("evaluation", "finance-etl", ["ask"])
    assert gate.world.lines()[-2:] == [line, asked]  # a runtime may cut what is logged last
    assert gate.world.of("send") == []


def test_several_questions_are_one_request_and_each_is_counted() -> None:
    gate = Gate(document(MAY_ASK, MAY_DO))
    items = [question("a", roles=["editor"]), question("b", roles=[]), {"resource": 7}]
    answer = evaluating(gate, {**question("x", roles=[]), "evaluations": items}, QUESTIONS)
    found = json.loads(answer.body)["evaluations"]
    assert [one["decision"] for one in found] == [True, False, False]
    assert found[2]["context"]["error"]["status"] == 400
    assert [line["number"] for line in gate.world.lines("evaluation")] == [0, 1]
    assert len(gate.world.lines("decision")) == 1
    assert len(gate.world.of("allow")) == 3


def test_questions_are_limited_without_the_permits_asking_for_it() -> None:
    gate = Gate(document(MAY_ASK, MAY_DO))
    gate.world.limits["LIMIT_600_PER_60S"] = 0
    assert evaluating(gate, question("a", roles=[])).status == 429
    assert gate.world.lines("evaluation") == []


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        pytest.param([], {}, 400, "request.body_invalid", id="a list"),
        pytest.param({}, {}, 400, "request.body_invalid", id="nothing"),
        pytest.param({}, {"content_type": "text/plain"}, 400, "request.body_invalid", id="another medium"),
        pytest.param("x" * 70_000, {}, 413, "request.body_too_large", id="a book"),
    ],
)
def test_a_question_that_is_none(body: Any, headers: dict[str, str], status: int, code: str) -> None:
    gate = Gate(document(MAY_ASK, MAY_DO))
    answer = evaluating(gate, body, x_request_id="7", **headers)
    problem = json.loads(answer.body)
    assert (answer.status, problem["code"], answer.headers["x-request-id"]) == (status, code, "7")
    assert status == 413 or problem["detail"]
    (line,) = gate.world.lines("decision")
    assert (line["decision"], line["reason"]) == ("deny", code)


def test_who_may_not_ask_is_told_nothing() -> None:
    gate = Gate(document(rule(), MAY_DO))
    answer = evaluating(gate, question("a", roles=[]))
    assert (answer.status, json.loads(answer.body)["code"]) == (403, "policy.no_match")
    assert gate.world.of("body") == []


def test_the_address_of_a_question_has_no_other_method() -> None:
    gate = Gate(document(MAY_ASK))
    gate.refuse(asking(url=QUESTION), Reason.ROUTE_UNKNOWN_UPSTREAM)


def test_a_question_about_an_upstream_whose_policy_is_away_is_not_answered() -> None:
    bundle = document(MAY_ASK, MAY_DO)
    gate = Gate(bundle)
    gate.world.values[SHARD + bundle["shards"]["resource:todo"]] = OSError("away")
    assert evaluating(gate, question("a", roles=["editor"])).status == 503


def test_an_issuers_callers_may_have_to_name_their_roles() -> None:
    bundle = document()
    bundle["issuers"]["company"]["role_tag"] = "required"
    gate = Gate(bundle)
    for _ in range(2):
        line = gate.refuse(asking(), Reason.ROLE_REQUIRED)
        assert (line["subject"], line["roles"]["tagged"]) == ("finance-etl", None)
        gate.relay(asking(airgate_role="publisher"))


def test_a_delegated_call_names_both_on_record(gate: Gate) -> None:
    gate.relay(asking(token(act={"sub": "assistant"})))
    line = gate.world.lines("decision")[-1]
    assert (line["subject"], line["actor"]) == ("finance-etl", "assistant")
    gate.relay(asking())
    assert "actor" not in gate.world.lines("decision")[-1]


def test_what_others_wait_for_too_is_seen_through_when_a_caller_hangs_up(gate: Gate) -> None:
    """Or whoever hangs up in time could keep yesterday's policy in force."""
    gate.relay(asking())
    assert gate.world.of("last") == [None, None]  # the policy, and the issuer's keys
    gate.later(60)
    gate.relay(asking())
    assert gate.world.of("last") == [None, None, None]  # the policy is too old to be used at once


def test_a_refused_caller_learns_where_to_look_for_issuers(gate: Gate) -> None:
    answer = gate.answer(asking("x.y.z"))
    about = 'resource_metadata="https://gate/.well-known/oauth-protected-resource"'
    assert answer.headers["www-authenticate"].count(about) == 2
    answer = gate.answer(inbound("https://gate/.well-known/oauth-protected-resource"))
    assert answer.status == 200
    assert json.loads(answer.body)["authorization_servers"] == [ISSUER]
    line = gate.world.lines("decision")[-1]
    assert (line["decision"], line["page"]) == ("permit", "oauth-protected-resource")
    assert line["sequence"] == 1


def test_a_gate_without_policy_knows_no_issuers() -> None:
    gate = Gate()
    gate.world.d1.pointers.clear()
    gate.refuse(inbound("https://gate/.well-known/oauth-protected-resource"), Reason.POLICY_UNAVAILABLE)


@pytest.mark.parametrize(
    "url",
    [
        "https://gate/.well-known/oauth-protected-resource/ledger",
        "https://gate/.well-known/openid-configuration",
    ],
)
def test_other_well_known_pages_are_not_there(gate: Gate, url: str) -> None:
    gate.refuse(asking(url=url), Reason.ROUTE_UNKNOWN_UPSTREAM)


def test_the_metadata_is_for_everyone() -> None:
    gate = Gate()
    answer = gate.answer(inbound("https://gate.example.com/.well-known/authzen-configuration"))
    assert answer.status == 200
    assert json.loads(answer.body)["policy_decision_point"] == "https://gate.example.com"
    (line,) = gate.world.lines("decision")
    assert (line["decision"], line["page"]) == ("permit", "authzen-configuration")


# Forwarding: what the upstream gets, and what its answer becomes.


def through(**ledger: Any) -> Gate:
    """A gate whose ledger has other settings."""
    gate = Gate(document(ledger=ledger))
    gate.world.secrets = {"UPSTREAM_LEDGER": "sesame"}
    return gate


KEY_CREDENTIAL = {"kind": "header", "secret": "UPSTREAM_LEDGER", "header": "x-api-key", "format": "{secret}"}


def test_the_gate_shows_its_own_credential_and_never_the_callers() -> None:
    gate = through(credential="main", credentials={"main": KEY_CREDENTIAL})
    gate.relay(asking(None, x_api_key="forged"))
    (call,) = gate.world.of("send")
    assert call.headers["x-api-key"] == "sesame"
    assert "forged" not in str(call)
    assert gate.world.lines("decision")[-1]["credential"] == "main"
    assert "sesame" not in str(gate.world.of("log"))


def test_policy_chooses_among_the_credentials() -> None:
    other = {**KEY_CREDENTIAL, "secret": "UPSTREAM_OTHER"}
    for asked, value in (("main", "sesame"), ("other", "open")):
        policy = rule(obligations={"credential": asked})
        ledger = {"credential": "main", "credentials": {"main": KEY_CREDENTIAL, "other": other}}
        gate = Gate(document(policy, ledger=ledger))
        gate.world.secrets = {"UPSTREAM_LEDGER": "sesame", "UPSTREAM_OTHER": "open"}
        gate.relay(asking())
        assert gate.world.of("send")[0].headers["x-api-key"] == value


def test_a_credential_that_the_upstream_does_not_have_denies() -> None:
    gate = obliging({"credential": "main"})
    line = gate.refuse(asking(), Reason.POLICY_OBLIGATION)
    assert line["detail"] == "the upstream has no credential main"


def test_a_call_that_the_gate_cannot_make_is_not_counted() -> None:
    gate = obliging({"credential": "main", "rate_limit": [{"limit": 600, "per": 60, "by": ["subject"]}]})
    gate.refuse(asking(), Reason.POLICY_OBLIGATION)
    assert gate.world.of("allow") == []


def test_a_secret_that_is_missing_is_named_in_the_log_and_not_to_the_caller() -> None:
    gate = through(credential="main", credentials={"main": KEY_CREDENTIAL})
    gate.world.secrets = {}
    result = gate.answer(asking())
    assert isinstance(result, Refusal)
    assert (result.status, json.loads(result.body)["code"]) == (503, "upstream.credential")
    assert "UPSTREAM_LEDGER" not in str(result)
    (outcome,) = gate.world.lines("outcome")
    assert (outcome["result"], outcome["detail"]) == ("credential", "no secret UPSTREAM_LEDGER")
    assert gate.world.of("send") == []


def test_the_callers_own_authorization_goes_where_it_was_opted_in() -> None:
    for ledger, passed in (
        ({}, None),
        ({"credential": "own", "credentials": {"own": {"kind": "caller"}}}, "Basic abc"),
    ):
        gate = through(**ledger)
        gate.relay(inbound(URL, authorization="Basic abc", airgate_token=token()))
        gate.relay(asking())  # its Authorization is the gate's, and goes nowhere
        first, second = gate.world.of("send")
        assert first.headers.get("authorization") == passed
        assert "authorization" not in second.headers


@pytest.mark.parametrize(
    "form", ["Bearer {}", "bearer  {}", "Bearer a, Bearer {}", "{}", "DPoP {}", 'Token "{}"', "Bearer\t{}"]
)
def test_a_token_for_this_gate_is_never_the_callers_own(form: str) -> None:
    gate = through(credential="own", credentials={"own": {"kind": "caller"}})
    for held in (token(), token(exp=NOW - 100), token(sub="somebody-else")):
        request = inbound(URL, authorization=form.format(held), airgate_token=token())
        gate.refuse(request, Reason.REQUEST_HEADER_INVALID)
    other = token(aud="https://other.example.com")
    gate.relay(inbound(URL, authorization=form.format(other), airgate_token=token()))


def test_the_gates_errors_and_the_upstreams_are_told_apart() -> None:
    gate = through()
    for status, told in ((200, None), (302, None), (400, "upstream"), (503, "upstream")):
        gate.world.answer = UpstreamAnswer(status, {})
        assert gate.relay(asking()).headers.get("airgate-error") == told
    refused = gate.answer(asking(url="https://gate/nowhere"))
    assert refused.headers["airgate-error"] == "gate"


@pytest.mark.parametrize(
    ("place", "moved"),
    [
        ("https://ledger.example.com/api/v1/7?a=b", "/ledger/v1/7?a=b"),
        ("/api/v1/7", "/ledger/v1/7"),
        ("/other", None),
        ("https://ledger.example.com/other", None),
        ("http://ledger.example.com/api/v1", None),
        ("https://login.example.com/x", "https://login.example.com/x"),
        ("7", "7"),
    ],
)
def test_places_are_told_as_callers_know_them(place: str, moved: str | None) -> None:
    relay = through().relay(asking())
    assert relay.passed("location", place) == relay.passed("content-location", place) == moved


def test_what_holds_for_all_upstreams_none_of_them_says() -> None:
    relay = through().relay(asking())
    assert relay.passed("set-cookie", "a=b; Path=/; Domain=example.com") == "a=b; Path=/ledger"
    for name in ("airgate-decision", "access-control-allow-origin", "strict-transport-security", "alt-svc"):
        assert relay.passed(name, "anything") is None


def test_an_upstreams_limit_holds_where_policy_says_nothing_or_more() -> None:
    for asked in (None, {"max_body": 100}):
        policy = rule(obligations=asked) if asked else rule()
        gate = Gate(document(policy, ledger={"max_body": 10}))
        gate.relay(asking(None, method="POST", content_length="10")._replace(has_body=True))
        long = asking(None, method="POST", content_length="11")._replace(has_body=True)
        gate.refuse(long, Reason.REQUEST_BODY_TOO_LARGE)
        gate.refuse(asking(None, method="POST")._replace(has_body=True), Reason.REQUEST_LENGTH_REQUIRED)


def test_how_often_a_call_was_tried_is_on_record() -> None:
    gate = through(retries=2)
    gate.world.answers = [UpstreamAnswer(503, {}), UpstreamAnswer(200, {})]
    gate.relay(asking())
    (outcome,) = gate.world.lines("outcome")
    assert (outcome["status"], outcome["tries"]) == (200, 2)
    gate.world.answers = [
        UpstreamAnswer(503, {}),
        Denied(Reason.UPSTREAM_UNREACHABLE),
        Denied(Reason.UPSTREAM_TIMEOUT),
    ]
    gate.answer(asking())
    outcome = gate.world.lines("outcome")[-1]
    assert (outcome["result"], outcome["tries"]) == ("timeout", 3)


def test_an_open_circuit_says_when_to_come_back() -> None:
    gate = through(breaker={"failures": 1, "ratio": 0.5, "open": 20})
    gate.world.answer = Denied(Reason.UPSTREAM_UNREACHABLE)
    gate.answer(asking())
    for request in (
        asking(),
        asking(None, method="POST"),
    ):  # nothing was sent, so a POST may be tried again too
        result = gate.answer(request)
        problem = json.loads(result.body) if isinstance(result, Refusal) else {}
        assert (problem["code"], problem["retryable"], problem["retry_after"]) == (
            "upstream.circuit_open",
            True,
            20,
        )
        assert (result.headers["retry-after"], result.headers["airgate-decision"]) == ("20", "permit")


@pytest.mark.parametrize("reason", [Reason.UPSTREAM_TIMEOUT, Reason.UPSTREAM_UNREACHABLE])
def test_a_post_that_may_have_acted_is_the_callers_to_repeat(reason: Reason) -> None:
    gate = through()
    gate.world.answer = Denied(reason)
    for headers, retryable in (
        ({}, False),
        ({"idempotency_key": "a"}, True),
        ({"idempotency_key": ""}, False),
        ({"idempotency_key": "a", "connection": "idempotency-key"}, False),  # which the upstream never sees
    ):
        result = gate.answer(asking(None, method="POST", **headers))
        assert isinstance(result, Refusal)
        assert json.loads(result.body)["retryable"] is retryable


def test_a_key_that_the_upstream_never_sees_makes_nothing_repeatable() -> None:
    for ledger, headers in (({}, {"connection": "Idempotency-Key"}), ({"request_headers": ["accept"]}, {})):
        gate = through(retries=5, **ledger)
        gate.world.answer = UpstreamAnswer(503, {})
        gate.relay(asking(None, method="POST", idempotency_key="a", **headers))
        assert len(gate.world.of("send")) == 1


def test_odd_paths_go_where_they_mean_something() -> None:
    gate = Gate()
    gate.refuse(asking(url="https://gate/ledger/v1/a%2Fb"), Reason.ROUTE_PATH_AMBIGUOUS)
    gate.refuse(asking(url="https://gate/ledger/v1//b"), Reason.ROUTE_PATH_AMBIGUOUS)
    gate.refuse(asking(url="https://gate/nowhere/a%2Fb"), Reason.ROUTE_UNKNOWN_UPSTREAM)
    gate.refuse(inbound("https://gate/ledger/a%2Fb"), Reason.TOKEN_MISSING)
    gate = through(encoded_slash="segment", empty_segments=True)
    gate.relay(asking(url="https://gate/ledger/v1/a%2fb//c"))
    assert gate.world.of("send")[0].url == "https://ledger.example.com/api/v1/a%2Fb//c"


# Pages of other origins.

CORS = {
    "origins": ["https://app.example.com"],
    "headers": ["x-team"],
    "expose": ["etag"],
    "credentials": False,
    "max_age": 600,
}


def test_a_preflight_is_answered_before_anybody_is_known() -> None:
    gate = through(cors=CORS)
    result = gate.answer(
        inbound(URL, "OPTIONS", origin="https://app.example.com", access_control_request_method="POST")
    )
    assert isinstance(result, Refusal)
    assert (result.status, result.body) == (204, "")
    assert result.headers["access-control-allow-origin"] == "https://app.example.com"
    (decision,) = gate.world.lines("decision")
    assert (decision["decision"], decision["page"]) == ("permit", "preflight")
    assert gate.world.of("send") == []


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        pytest.param(URL, "https://evil.example", id="another origin"),
        pytest.param(URL, "null", id="no origin"),
        pytest.param("https://gate/crm/v1", "https://app.example.com", id="an upstream without pages"),
        pytest.param("https://gate/nowhere", "https://app.example.com", id="no upstream"),
    ],
)
def test_any_other_preflight_is_refused_as_all_are_without_a_token(url: str, origin: str) -> None:
    gate = through(cors=CORS)
    request = inbound(url, "OPTIONS", origin=origin, access_control_request_method="POST")
    gate.refuse(request, Reason.TOKEN_MISSING)
    stranger = gate.answer(request).headers
    known = gate.answer(inbound("https://gate/nowhere", "OPTIONS")).headers
    assert stranger.keys() == known.keys()  # nothing tells upstreams apart


def test_a_preflight_that_asks_for_more_than_there_is_is_refused() -> None:
    gate = through(cors=CORS)
    asked = {"access_control_request_method": "POST", "access_control_request_headers": "x-other"}
    gate.refuse(inbound(URL, "OPTIONS", origin="https://app.example.com", **asked), Reason.TOKEN_MISSING)


def test_a_page_may_read_what_its_call_got_refusals_too() -> None:
    gate = through(cors=CORS)
    for result in (
        gate.relay(asking(None, origin="https://app.example.com")),
        gate.answer(inbound(URL, origin="https://app.example.com")),
        gate.answer(asking(None, "https://gate/ledger/elsewhere", origin="https://app.example.com")),
    ):
        assert result.headers["access-control-allow-origin"] == "https://app.example.com"
        assert "etag" in result.headers["access-control-expose-headers"]
    other = gate.relay(asking(None, origin="https://evil.example"))
    assert "access-control-allow-origin" not in other.headers


# What a proxy asks.

PROXY = "p" * 32
ORIGINAL = {"x_original_host": "ledger.internal", "x_original_proto": "https", "airgate_client": "192.0.2.1"}


def proxied(path: str = "/v1/entries", method: str = "GET", **headers: str) -> Inbound:
    usual = {"airgate_proxy": PROXY, **ORIGINAL, **headers}
    return inbound(f"https://gate/-/authz/envoy{path}", method, **usual)


@pytest.fixture
def checked() -> Gate:
    gate = through(hosts=["ledger.internal"])
    gate.world.secrets["PROXY_SECRETS"] = PROXY
    return gate


def test_a_proxy_is_told_who_calls_and_forwards_itself(checked: Gate) -> None:
    result = checked.answer(proxied(**bearing()))
    assert isinstance(result, Refusal)
    assert (result.status, result.body) == (200, "")
    assert result.headers["airgate-subject"] == "finance-etl"
    assert result.headers["airgate-roles"] == "publisher,reader"
    assert result.headers["airgate-decision"] == "permit"
    (decision,) = checked.world.lines("decision")
    assert (decision["page"], decision["upstream"], decision["client"]) == ("authz", "ledger", "192.0.2.1")
    assert (checked.world.of("send"), checked.world.lines("outcome")) == ([], [])


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        pytest.param(proxied(airgate_proxy="q" * 32, **bearing()), Reason.PROXY_UNKNOWN, id="another secret"),
        pytest.param(proxied(airgate_proxy="", **bearing()), Reason.PROXY_UNKNOWN, id="an empty secret"),
        pytest.param(proxied(), Reason.TOKEN_MISSING, id="no token"),
        pytest.param(proxied("/elsewhere", **bearing()), Reason.POLICY_NO_MATCH, id="no permit"),
        pytest.param(proxied("/v1/%2e%2e", **bearing()), Reason.ROUTE_PATH_AMBIGUOUS, id="a dot segment"),
        pytest.param(proxied("/v1/a%2Fb", **bearing()), Reason.ROUTE_PATH_AMBIGUOUS, id="an encoded slash"),
        pytest.param(
            proxied(**{**bearing(), "x_original_host": "other"}), Reason.ROUTE_UNKNOWN_UPSTREAM, id="another host"
        ),
        pytest.param(proxied(**{"x_original_host": "other"}), Reason.TOKEN_MISSING, id="nobody at another host"),
        pytest.param(
            inbound("https://gate/-/health", airgate_proxy=PROXY), Reason.PROXY_UNKNOWN, id="a page that is no check"
        ),
    ],
)  # fmt: skip
def test_a_check_that_is_refused(checked: Gate, request_: Inbound, reason: Reason) -> None:
    checked.refuse(request_, reason)


def test_without_the_worker_knowing_a_proxy_there_is_none(checked: Gate) -> None:
    del checked.world.secrets["PROXY_SECRETS"]
    checked.refuse(proxied(**bearing()), Reason.PROXY_UNKNOWN)


@pytest.mark.parametrize("asked", [{"credential": "main"}, {"max_body": 10}], ids=["credential", "max_body"])
def test_what_only_a_gate_that_forwards_can_do_denies_a_check(asked: dict[str, Any]) -> None:
    ledger = {"hosts": ["ledger.internal"], "credentials": {"main": KEY_CREDENTIAL}}
    gate = Gate(document(rule(obligations=asked), ledger=ledger))
    gate.world.secrets["PROXY_SECRETS"] = PROXY
    gate.refuse(proxied(**bearing()), Reason.POLICY_OBLIGATION)


# Who called, signed.

ASSERTION_KEYS = json.dumps(
    {
        "issuer": "https://gate.example.com",
        "keys": [{**ED25519, "kid": "a1", "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}],
    }
)


def test_an_upstream_that_wants_it_gets_a_statement_of_who_called() -> None:
    gate = through(assertion=True)
    gate.world.secrets["ASSERTION_KEYS"] = ASSERTION_KEYS
    gate.relay(asking(None, airgate_dag_id="close", airgate_assertion="forged"))
    (call,) = gate.world.of("send")
    head, body, _ = call.headers["airgate-assertion"].split(".")
    header, claims = (json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in (head, body))
    assert (header["alg"], header["kid"]) == ("EdDSA", "a1")
    assert (claims["iss"], claims["aud"], claims["sub"]) == (
        "https://gate.example.com",
        "ledger",
        "finance-etl",
    )
    assert (claims["jti"], claims["exp"] - claims["iat"]) == ("f" * 32, 60)
    assert claims["airgate"]["dag"] == {"value": "close", "attested": False}
    assert (claims["airgate"]["policy"], claims["airgate"]["bundle"]) == (["publish"], gate.state.version)


def test_a_proxy_gets_such_a_statement_to_pass_on() -> None:
    gate = through(assertion=True, hosts=["ledger.internal"])
    gate.world.secrets |= {"ASSERTION_KEYS": ASSERTION_KEYS, "PROXY_SECRETS": PROXY}
    result = gate.answer(proxied(**bearing()))
    assert isinstance(result, Refusal)
    assert (result.status, result.headers["airgate-assertion"].count(".")) == (200, 2)


def test_without_a_key_such_an_upstream_is_not_called() -> None:
    gate = through(assertion=True)
    result = gate.answer(asking())
    assert isinstance(result, Refusal)
    assert (json.loads(result.body)["code"], gate.world.of("send")) == ("upstream.credential", [])
    assert gate.world.lines("outcome")[0]["detail"] == "no secret ASSERTION_KEYS"


def test_keys_that_cannot_be_read_are_read_once() -> None:
    gate = through(assertion=True)
    gate.world.secrets["ASSERTION_KEYS"] = '{"issuer": "https://gate.example.com", "keys": []}'
    for _ in range(2):
        result = gate.answer(asking())
        assert isinstance(result, Refusal)
        assert json.loads(result.body)["code"] == "upstream.credential"
    assert gate.world.lines("outcome")[1]["detail"] == "ASSERTION_KEYS: keys is not a list of 1 to 8"
    assert json.loads(gate.answer(inbound("https://gate/-/jwks.json")).body) == {"keys": []}


def test_the_keys_are_published_without_their_private_parts() -> None:
    gate = through()
    page = inbound("https://gate/-/jwks.json")
    assert json.loads(gate.answer(page).body) == {"keys": []}
    gate.world.secrets["ASSERTION_KEYS"] = ASSERTION_KEYS
    result = gate.answer(page)
    assert isinstance(result, Refusal)
    assert result.headers["content-type"] == "application/jwk-set+json"
    (key,) = json.loads(result.body)["keys"]
    assert (key["kid"], key["x"], "d" in key) == ("a1", ED25519["x"], False)


# What is on record of a request as a whole.


def test_bytes_both_ways_are_on_record_where_a_length_says_so(gate: Gate) -> None:
    gate.world.answer = UpstreamAnswer(200, {"content-length": "4096"})
    gate.relay(asking(method="POST", content_length="12")._replace(has_body=True))
    assert gate.world.lines("decision")[-1]["request_bytes"] == 12
    assert gate.world.lines("outcome")[-1]["response_bytes"] == 4096
    gate.world.answer = UpstreamAnswer(200, {})
    gate.relay(asking())
    assert "request_bytes" not in gate.world.lines("decision")[-1]
    assert "response_bytes" not in gate.world.lines("outcome")[-1]


def test_an_answer_whose_headers_cannot_be_read_has_an_outcome(gate: Gate) -> None:
    gate.world.answer = UpstreamAnswer(200, SECRET)
    refused = gate.answer(asking())
    assert isinstance(refused, Refusal)
    assert gate.world.lines("outcome")[-1]["result"] == "internal"
    assert SECRET not in str(gate.world.of("log"))


def test_the_time_spent_in_the_gate_is_on_record_of_a_permit_and_of_a_denial(gate: Gate) -> None:
    class Slow(World):
        async def fetch(self, url: str, timeout: float, limit: int) -> bytes:
            self.clock += 0.25
            return await super().fetch(url, timeout, limit)

    gate.world = Slow()
    gate.relay(asking())
    gate.later(1000)
    gate.refuse(asking(token(exp=NOW - 1000)), Reason.TOKEN_EXPIRED)
    assert [line["gate_ms"] for line in gate.world.lines("decision")] == [250, 0]


def test_values_of_a_query_are_on_record_only_where_the_upstream_lists_their_names() -> None:
    query = URL + "?limit=10&q=hush&hush-word&limit=20"
    plain = Gate()
    plain.relay(asking(url=query))
    assert plain.world.lines("decision")[-1]["query"] == {"limit": None, "q": None, "?": None}
    listed = Gate(document(ledger={"log_query": ["limit"]}))
    listed.relay(asking(url=query))
    listed.refuse(asking(token(groups=[]), query), Reason.POLICY_NO_MATCH)
    for line in listed.world.lines("decision"):
        assert line["query"] == {"limit": ["10", "20"], "q": None, "?": None}
    listed.refuse(
        asking("none", query), Reason.TOKEN_MALFORMED
    )  # by whom nobody knows: then nothing is shown
    assert listed.world.lines("decision")[-1]["query"] == {"limit": None, "q": None, "?": None}
    assert "hush" not in "".join(plain.world.of("log") + listed.world.of("log"))


def test_keys_that_an_issuer_changes_are_on_record_once(gate: Gate) -> None:
    gate.relay(asking())
    assert gate.world.lines("keys") == []
    gate.world.pages[JWKS_URI] = jwks({**KEY, "kid": "two"}, {**P256, "kid": "three"})
    gate.later(FRESH + 1)
    fresh = {"iat": NOW + FRESH, "exp": NOW + FRESH + 300}
    for _ in range(2):
        gate.relay(asking(compact({**HEADER, "kid": "two"}, {**CLAIMS, **fresh}, "two")))
    (line,) = gate.world.lines("keys")
    assert (line["of"], line["issuer"]) == ("issuer", CLAIMS["iss"])
    assert (line["added"], line["removed"]) == (["three", "two"], ["one"])


PERSON = "alice.liddell@example.com"
OTHERS = "mock.turtle@example.com"


def private(secret: str | None = "k" * 32) -> Gate:
    """A gate whose log has pseudonyms, in which something of everything has happened to one person."""
    gate = Gate(document(rule(), MAY_ASK, MAY_DO))
    gate.world.secrets = {**trusting(), "AUDIT_SUBJECTS": "pseudonym"}
    if secret is not None:
        gate.world.secrets["AUDIT_PSEUDONYM_KEY"] = secret
    gate.state.begin(gate.world)
    gate.answer(inbound(HEALTH))  # from here on it tells of acts that don't count, too
    gate.later(WAIT + 1)
    to = {"issuer": "company", "subject": PERSON}
    gate.world.act(grant(to=to))
    gate.world.act(revocation(match={"subject": PERSON, "token_id": "stolen"}))
    gate.world.act(grant(to=to, at=int(NOW) - 6), kid="nobody")  # which does not count
    gate.world.act(revocation(match={"subject": [PERSON]}))
    return gate


def all_that_happens(gate: Gate) -> None:
    for claims in (
        {},
        {"act": {"sub": OTHERS}},
        {"jti": "stolen"},
        {"exp": NOW - 900},
        {"aud": "https://elsewhere.example"},
        {"groups": ["hidden"]},
    ):
        for headers in (
            {},
            {"airgate_role": "publisher"},
            {"airgate_role": "nobody"},
            {"airgate_dag_id": "a,b"},
        ):
            gate.answer(asking(token(sub=PERSON, **claims), **headers))
            gate.answer(asking(token(sub=PERSON, **claims), HEALTH, **headers))
    gate.world.answer = Denied(Reason.UPSTREAM_TIMEOUT)
    gate.answer(asking(token(sub=PERSON)))
    evaluating(gate, question(PERSON, roles=["editor"]))


def test_with_pseudonyms_no_line_says_who_somebody_is() -> None:
    gate = private()
    all_that_happens(gate)
    told = "".join(gate.world.of("log"))
    assert PERSON not in told
    assert OTHERS not in told
    name = gate.state.journal.names.of("company", PERSON)
    decisions = gate.world.lines("decision")
    asker = gate.state.journal.names.of("company", "finance-etl")
    assert {line["subject"] for line in decisions if "subject" in line} == {name, asker}
    assert [line["subject"] for line in gate.world.lines("evaluation")] == [name]
    assert {line["actor"] for line in decisions if "actor" in line} == {
        gate.state.journal.names.of("company", OTHERS)
    }
    assert {"permit", "deny"} == {line["decision"] for line in decisions}
    assert {line["result"] for line in gate.world.lines("act")} == {"known", "refused"}
    assert [line for line in gate.world.lines("act") if name in line["act"]]


@pytest.mark.parametrize("secret", [None, "", "k" * 31])
def test_without_a_key_for_pseudonyms_nobody_passes_and_nobody_is_named(secret: str | None) -> None:
    gate = private(secret)
    gate.refuse(asking(token(sub=PERSON)), Reason.INTERNAL)
    all_that_happens(gate)
    told = "".join(gate.world.of("log"))
    assert PERSON not in told
    assert OTHERS not in told
    assert gate.world.of("send") == []
    assert not any("subject" in line for line in gate.world.lines("decision"))
    assert any("AUDIT_PSEUDONYM_KEY" in warning for warning in gate.state.report(NOW)["warnings"])
    gate.world.settle()  # and what is read behind answers is read
    assert gate.state.view.access.revocations == 1
