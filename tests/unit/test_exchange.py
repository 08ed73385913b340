"""Token exchange, from the request to the answer, and what the token that comes of it may be used for."""

import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_assertion import NEW, secret
from test_gateway import Gate, asking
from world import (
    ABSENT,
    CLAIMS,
    ISSUER,
    JWKS_URI,
    KEY,
    NOW,
    P256,
    World,
    compact,
    document,
    inbound,
    jwks,
    revocation,
    rule,
    token,
    without,
)

import admission
import dpop
import exchange
from document import read_base64url
from keys import Key
from model import ANSWERS, Denied, Inbound, Reason, Refusal, Relay

OWN = "https://gate.example.com"
URL = "https://gate/-/token"
TYPE = "urn:ietf:params:oauth:token-type:access_token"
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ENTRIES = "https://gate/ledger/v1/entries"
PARTNER = "https://partner.example.com"
FORM = "application/x-www-form-urlencoded"
THUMBPRINT = dpop.thumbprint(P256)


def offer(**changes: Any) -> dict[str, Any]:
    """What a permit lets tokens be exchanged for, with changes."""
    return {"upstreams": ["ledger"], "roles": None, "lifetime": 300, "bound": False, **changes}


def may_exchange(name: str = "exchange", conditions: Any = (), **changes: Any) -> dict[str, Any]:
    """A permit to exchange tokens, for everybody."""
    return rule(
        id=name,
        target={"upstreams": ["-"], "methods": ["POST"], "paths": ["/token"]},
        conditions=[*conditions],
        obligations={"exchange": offer(**changes)},
    )


def bundle(*policies: dict[str, Any], **company: Any) -> dict[str, Any]:
    """A bundle with two issuers that map alike. `company`: what is different about the first."""
    made = document(*(policies or (rule(), may_exchange())))
    first = made["issuers"]["company"]
    made["issuers"]["partner"] = {**first, "issuer": PARTNER, "jwks_uri": PARTNER + "/keys"}
    made["issuers"]["company"] = {**first, **company}
    by_partner = [
        {**grant, "issuer": "partner"} for grant in made["roles"]["publisher"] + made["roles"]["reader"][:1]
    ]
    made["roles"]["publisher"].append(by_partner[0])
    made["roles"]["reader"].append(by_partner[1])
    made["roles"]["admin"] = [{"issuer": "company", "claim": ["groups"], "value": "admins"}]
    return made


class Exchanging(Gate):
    """A gate that signs tokens."""

    def __init__(self, *policies: dict[str, Any], **company: Any) -> None:
        super().__init__(bundle(*policies, **company))
        self.world.secrets["ASSERTION_KEYS"] = secret(NEW)
        self.world.pages[PARTNER + "/keys"] = jwks({**KEY, "kid": "theirs"})

    def ask(
        self, subject: str | None = None, headers: dict[str, str] | None = None, **changes: Any
    ) -> Refusal:
        """Ask for a token. A parameter that is ABSENT is left out."""
        self.asked = getattr(self, "asked", 0) + 1
        form = {
            "grant_type": GRANT,
            "subject_token": token() if subject is None else subject,
            "subject_token_type": TYPE,
            "audience": "ledger",
        }
        if "actor_token" in changes:
            form["actor_token_type"] = TYPE
        return self.post(urlencode(without(form, **changes)), headers)

    def post(self, body: str | bytes, headers: dict[str, str] | None = None, url: str = URL) -> Refusal:
        self.world.sent = body.encode() if isinstance(body, str) else body
        self.numbered = getattr(self, "numbered", 0) + 1
        request = inbound(url, "POST", body=True, **{"content_type": FORM, **(headers or {})})
        answer = self.answer(request._replace(request_id=f"{self.numbered:032x}"))
        assert isinstance(answer, Refusal)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/json"
        line = self.line
        assert (line["page"], line["decision"] == "permit") == ("token", answer.status == 200)
        assert ("issued" in line) is (answer.status == 200)
        return answer

    def get(self, subject: str | None = None, headers: dict[str, str] | None = None, **changes: Any) -> str:
        """A gate token."""
        answer = self.ask(subject, headers, **changes)
        assert answer.status == 200, self.line
        given: str = json.loads(answer.body)["access_token"]
        return given

    def turn_down(self, answer: Refusal, error: str, reason: Reason) -> dict[str, Any]:
        """An exchange was refused: with this error, and with this reason on record. Returns the line."""
        line = self.line
        assert (line["decision"], line["reason"]) == ("deny", reason), line
        assert answer.status == (503 if error == "temporarily_unavailable" else 400)
        assert json.loads(answer.body) == {"error": error, "request_id": line["request_id"]}
        assert "www-authenticate" not in answer.headers
        return line

    @property
    def line(self) -> dict[str, Any]:
        return self.world.lines("decision")[-1]


def told(gate_token: str) -> dict[str, Any]:
    """The claims of a token."""
    claims: dict[str, Any] = json.loads(read_base64url(gate_token.split(".")[1]))
    return claims


def of_partner(**claims: Any) -> str:
    """A token of the other issuer."""
    changed = without(
        CLAIMS, **{"iss": PARTNER, "sub": "assistant", "client_id": "assistant", "jti": "p-1", **claims}
    )
    return compact({"alg": "EdDSA", "kid": "theirs", "typ": "at+jwt"}, changed, "theirs")


def forged(claims: dict[str, Any], kid: str = "new", **header: Any) -> str:
    """A token signed by the gate's key, whatever it says."""
    return compact(without({"alg": "ES256", "kid": kid, "typ": "at+jwt"}, **header), claims, kid)


def proof(url: str = URL, method: str = "POST", signed_by: str = "key", **changes: Any) -> str:
    claims = {"jti": "1", "htm": method, "htu": url, "iat": NOW}
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": {**P256, "kid": signed_by}}
    return compact(header, without(claims, **changes), "key")


# A good exchange.


def test_what_is_answered_and_what_the_token_says() -> None:
    gate = Exchanging()
    answer = gate.ask(token(sid="s-1", airflow={"dag": "close"}, secret="x"), airgate_role=ABSENT)
    document = json.loads(answer.body)
    given = document.pop("access_token")
    assert document == {
        "issued_token_type": TYPE,
        "token_type": "Bearer",
        "expires_in": 300,
        "scope": "publisher reader",
    }
    header = json.loads(read_base64url(given.split(".")[0]))
    assert header == {"alg": "ES256", "kid": "new", "typ": "at+jwt"}
    claims = told(given)
    reads = claims["airgate"].pop("reads")
    assert claims == {
        "iss": OWN,
        "aud": f"{OWN}/ledger",
        "sub": "finance-etl",
        "client_id": "finance-etl",
        "iat": NOW,
        "exp": NOW + 300,
        "jti": gate.line["request_id"],
        "scope": "publisher reader",
        "airgate": {
            "issuer": "company",
            "upstream": "ledger",
            "subject": {
                "iss": ISSUER,
                "sub": "finance-etl",
                "jti": "1",
                "sid": "s-1",
                "groups": ["finance-publishers", "finance-readers"],
                "airflow": {"dag": "close"},
            },
            "actor": None,
            "most": None,
            "workload": {},
            "parents": [],
        },
    }
    assert len(reads) == 16
    assert gate.line["issued"] == {
        "token_id": claims["jti"],
        "upstream": "ledger",
        "roles": ["publisher", "reader"],
        "expires_in": 300,
    }
    assert (gate.line["token_id"], gate.line["permits"]) == ("1", ["exchange"])


def test_a_token_is_used_as_any_other_and_is_on_record_with_what_it_comes_from() -> None:
    gate = Exchanging()
    given = gate.get(scope="publisher")
    for request in (asking(given), inbound(ENTRIES, airgate_token=given)):
        gate.relay(request)
        assert given not in str(gate.world.of("send")[-1])
        line = gate.line
        assert (line["issuer"], line["subject"], line["kind"]) == ("company", "finance-etl", "workload")
        assert line["token_id"] == told(given)["jti"]
        assert line["exchanged"] == {"upstream": "ledger", "parents": ["1"], "delegated": False}
        assert line["roles"] == {
            "granted": ["publisher", "reader"],
            "tagged": ["publisher"],
            "effective": ["publisher"],
        }
    assert gate.world.of("verify") == ["one", "new"]  # remembered, as any other


def test_no_token_and_no_proof_is_ever_in_the_log() -> None:
    gate = Exchanging()
    actor = of_partner()
    shown = proof()
    given = gate.get(actor_token=actor, headers={"dpop": shown})
    gate.refuse(asking(given), Reason.TOKEN_SCHEME)
    log = "".join(gate.world.of("log"))
    for text in (given, actor, token(), shown):
        assert text not in log
        assert text.rpartition(".")[2] not in log


SECRET = "v1.MjM0NTY3ODkwYWJjZGVmZ2hpamtsbW5vcA"


@pytest.mark.parametrize(
    "changes",
    [
        *[
            {name: SECRET}
            for name in (
                *("grant_type", "subject_token", "subject_token_type", "requested_token_type", "actor_token"),
                *("audience", "scope", "secret"),
            )
        ],
        {"actor_token": token(), "actor_token_type": SECRET},
        {"audience": ABSENT, "resource": f"https://user:{SECRET}@gate.example.com/ledger"},
        {"audience": ABSENT, "resource": f"{OWN}/{SECRET}"},
        {SECRET: "x"},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_a_secret_in_the_wrong_place_is_not_in_the_log(changes: dict[str, Any]) -> None:
    gate = Exchanging()
    answer = gate.ask(**changes)
    assert (answer.status == 200) is (changes.keys() <= {"secret", SECRET})
    assert SECRET[:16] not in "".join(gate.world.of("log"))


def test_a_gate_without_keys_answers_that_it_cannot_now() -> None:
    gate = Exchanging()
    del gate.world.secrets["ASSERTION_KEYS"]
    gate.turn_down(gate.ask(), "temporarily_unavailable", Reason.UPSTREAM_CREDENTIAL)


def test_metadata_of_the_authorization_server() -> None:
    gate = Exchanging()
    url = "https://gate/.well-known/oauth-authorization-server"
    answer = gate.answer(inbound(url))
    assert isinstance(answer, Refusal)
    assert json.loads(answer.body) == {
        "issuer": OWN,
        "token_endpoint": f"{OWN}/-/token",
        "jwks_uri": f"{OWN}/-/jwks.json",
        "grant_types_supported": [GRANT],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["none"],
        "dpop_signing_alg_values_supported": list(dpop.ALGORITHMS),
    }
    answer = gate.answer(inbound("https://gate/.well-known/oauth-protected-resource"))
    assert isinstance(answer, Refusal)
    assert json.loads(answer.body)["authorization_servers"] == sorted([OWN, ISSUER, PARTNER])
    bare = Exchanging()
    del bare.world.secrets["ASSERTION_KEYS"]
    bare.refuse(inbound(url), Reason.ROUTE_UNKNOWN_UPSTREAM)


# Requests.


def body(**changes: Any) -> str:
    form = {"grant_type": GRANT, "subject_token": token(), "subject_token_type": TYPE, "audience": "ledger"}
    return urlencode(without(form, **changes))


GOOD = [
    pytest.param(body(), id="as it should be"),
    pytest.param(body(requested_token_type=TYPE), id="an access token asked for"),
    pytest.param(body(subject_token_type=TYPE.replace("access_token", "jwt")), id="a JWT"),
    pytest.param(body(audience=ABSENT, resource=f"{OWN}/ledger"), id="by the resource"),
    pytest.param(body(resource=f"{OWN}/ledger"), id="by both"),
    pytest.param(body(audience="") + "&resource=" + quote(f"{OWN}/ledger", ""), id="an empty one is none"),
    pytest.param(body() + "&scope=", id="an empty scope is none"),
    pytest.param(body() + "&", id="an ampersand too many"),
    pytest.param(body(scope="reader publisher reader"), id="a role twice"),
    pytest.param(body() + "&color=%C3%BC&x", id="parameters that nobody knows"),
    pytest.param(body() + "&x=" + "%41" * (512 - body().count("%")), id="as many escapes as there may be"),
]


@pytest.mark.parametrize("text", GOOD)
def test_requests_that_are_understood(text: str) -> None:
    gate = Exchanging()
    assert gate.post(text).status == 200
    assert gate.post(text, {"content_type": "Application/x-www-form-urlencoded; charset=UTF-8"}).status == 200


I_R, I_T, I_S = "invalid_request", "invalid_target", "invalid_scope"
BODY, UNSUPPORTED = Reason.REQUEST_BODY_INVALID, Reason.EXCHANGE_GRANT_TYPE
TARGET, SCOPE = Reason.EXCHANGE_TARGET, Reason.EXCHANGE_SCOPE
BAD = [
    pytest.param("", I_R, BODY, id="nothing"),
    pytest.param(body(grant_type=ABSENT), I_R, BODY, id="no grant type"),
    pytest.param(body(grant_type="password"), "unsupported_grant_type", UNSUPPORTED, id="another grant"),
    pytest.param(body(grant_type=GRANT.upper()), "unsupported_grant_type", UNSUPPORTED, id="in capitals"),
    pytest.param(body() + f"&grant_type={quote(GRANT)}", I_R, BODY, id="a parameter twice"),
    pytest.param(body() + "&audience=ledger", I_R, BODY, id="the audience twice"),
    pytest.param(body() + "&x=1&x=1", I_R, BODY, id="an unknown parameter twice"),
    pytest.param(body() + "&x=&x=", I_R, BODY, id="an empty parameter twice"),
    pytest.param(body() + "&aud%69ence=crm", I_R, BODY, id="a parameter twice, once encoded"),
    pytest.param(body() + "&x" * 40, I_R, BODY, id="a parameter without a value, forty times"),
    pytest.param(body() + "".join([f"&x{number}=1" for number in range(29)]), I_R, BODY, id="too many parameters"),
    pytest.param(body(subject_token=ABSENT), I_R, BODY, id="a type without a token"),
    pytest.param(body(subject_token=ABSENT, subject_token_type=ABSENT), I_R, BODY, id="no subject"),
    pytest.param(body(subject_token=""), I_R, BODY, id="an empty subject"),
    pytest.param(body(subject_token_type=ABSENT), I_R, BODY, id="a token without a type"),
    pytest.param(body(actor_token=token()), I_R, BODY, id="an actor without a type"),
    pytest.param(body(actor_token_type=TYPE), I_R, BODY, id="a type without an actor"),
    *[
        pytest.param(body(**{name: TYPE.replace("access_token", kind)}), I_R, BODY, id=f"{name} {kind}")
        for name in ("subject_token_type", "requested_token_type")
        for kind in ("refresh_token", "id_token", "saml2", "Access_Token")
    ],
    pytest.param(body(audience=ABSENT), I_T, TARGET, id="no target"),
    pytest.param(body(audience="crm"), I_T, TARGET, id="an upstream that no permit names"),
    pytest.param(body(audience="nowhere"), I_T, TARGET, id="an upstream that there isn't"),
    pytest.param(body(audience="-"), I_T, TARGET, id="the gate's own pages"),
    pytest.param(body(resource=f"{OWN}/crm"), I_T, TARGET, id="two targets"),
    pytest.param(body(audience=ABSENT, resource=f"{OWN}/ledger/v1"), I_T, TARGET, id="a path of an upstream"),
    pytest.param(body(audience=ABSENT, resource=f"{OWN}/ledger/"), I_T, TARGET, id="a slash too many"),
    pytest.param(body(audience=ABSENT, resource=f"{OWN}.evil.example/ledger"), I_T, TARGET, id="elsewhere"),
    pytest.param(body(audience=ABSENT, resource="ledger"), I_T, TARGET, id="no address"),
    pytest.param(body(scope="admin"), I_S, SCOPE, id="a role that isn't granted"),
    pytest.param(body(scope="reader admin"), I_S, SCOPE, id="one of two isn't"),
    pytest.param(body(scope="Reader"), I_S, SCOPE, id="no role's name"),
    pytest.param(body(scope="reader  publisher"), I_S, SCOPE, id="two spaces"),
    pytest.param(body(scope="reader,publisher"), I_S, SCOPE, id="a comma"),
    pytest.param(body(scope=" ".join(f"r{number}" for number in range(33))), I_S, SCOPE, id="too many roles"),
    pytest.param(body() + "&x=%", I_R, BODY, id="a percent sign"),
    pytest.param(body() + "&x=%zz", I_R, BODY, id="no hex digits"),
    pytest.param(body() + "&x=%ff", I_R, BODY, id="not UTF-8"),
    pytest.param(body() + "&x=%C0%80", I_R, BODY, id="an overlong form"),
    pytest.param(body() + "&x=%00", I_R, BODY, id="a NUL"),
    pytest.param(body() + "&x=%0A", I_R, BODY, id="a line feed"),
    pytest.param(body() + "&x=\xfc", I_R, BODY, id="an octet that isn't encoded"),
    pytest.param(body() + "&x=" + "%41" * (513 - body().count("%")), I_R, BODY, id="too many escapes"),
    pytest.param(body() + "&x=" + "1" * 20_480, I_R, Reason.REQUEST_BODY_TOO_LARGE, id="too long"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "error", "reason"), BAD)
def test_requests_that_are_turned_down(text: str, error: str, reason: Reason) -> None:
    gate = Exchanging()
    gate.turn_down(gate.post(text.encode("latin-1")), error, reason)


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "application/json",
        "multipart/form-data",
        f"{FORM}; charset=latin-1",
        f"{FORM}, {FORM}",
        f"{FORM};x=1",
    ],
)
def test_another_content_type(kind: str) -> None:
    gate = Exchanging()
    gate.turn_down(gate.post(body(), {"content_type": kind}), I_R, BODY)


def test_no_content_type() -> None:
    gate = Exchanging()
    gate.world.sent = body().encode()
    answer = gate.answer(inbound(URL, "POST", body=True))
    assert isinstance(answer, Refusal)
    assert gate.turn_down(answer, I_R, BODY)["detail"] == "not application/x-www-form-urlencoded"


DULL = [
    pytest.param("x", Reason.TOKEN_MALFORMED, id="no token"),
    pytest.param("x" * 8193, Reason.TOKEN_MALFORMED, id="too long"),
    pytest.param(token(exp=NOW - 100), Reason.TOKEN_EXPIRED, id="expired"),
    pytest.param(token(exp=NOW - 10), Reason.TOKEN_EXPIRED, id="alive by the clock's skew alone"),
    pytest.param(token(nbf=NOW + 100), Reason.TOKEN_NOT_YET_VALID, id="not yet valid"),
    pytest.param(token(aud="https://other.example.com"), Reason.TOKEN_AUDIENCE, id="for somebody else"),
    pytest.param(token(iss="https://evil.example.com"), Reason.TOKEN_ISSUER, id="of nobody known"),
    pytest.param(token()[:-2] + "AA", Reason.TOKEN_SIGNATURE, id="another signature"),
    pytest.param(token({"typ": "JWT"}), Reason.TOKEN_TYPE, id="another type"),
    pytest.param(token({"alg": "none"}), Reason.TOKEN_ALGORITHM, id="no algorithm"),
    pytest.param(token({"kid": "other"}), Reason.TOKEN_KEY, id="another key"),
    pytest.param(token(groups=7), Reason.TOKEN_CLAIMS, id="claims that can't be read"),
    pytest.param(token(_claim_names={"groups": "s"}), Reason.TOKEN_INCOMPLETE, id="groups left out"),
    pytest.param(token(exp=NOW + 90_000), Reason.TOKEN_LIFETIME, id="too long a life"),
]


@pytest.mark.parametrize(("bad", "reason"), DULL)
@pytest.mark.parametrize("party", ["subject_token", "actor_token"])
def test_whatever_is_wrong_with_a_token_the_answer_is_the_same(party: str, bad: str, reason: Reason) -> None:
    gate = Exchanging()
    line = gate.turn_down(gate.ask(**{party: bad}), I_R, reason)
    if "skew" not in (line["detail"] or ""):
        assert line["detail"].startswith(f"{party}: ")


def test_every_reason_has_an_error_of_oauth_and_no_status_of_401() -> None:
    known = {
        *(
            "invalid_request",
            "unsupported_grant_type",
            "invalid_scope",
            "invalid_target",
            "unauthorized_client",
        ),
        *("invalid_dpop_proof", "temporarily_unavailable"),
    }
    for reason in Reason:
        page = Refusal(ANSWERS[reason].status, {"airgate-request-id": "f"}, "")
        refused = exchange.refused(Denied(reason, "in full"), page)
        assert refused.status in (400, 429, 503, 502, 504, 501)
        assert json.loads(refused.body)["error"] in known
        assert "full" not in refused.body


def test_when_the_issuers_keys_are_away() -> None:
    gate = Exchanging()
    gate.world.pages[JWKS_URI] = OSError("down")
    gate.turn_down(gate.ask(), "temporarily_unavailable", Reason.ISSUER_UNAVAILABLE)


def test_when_there_is_no_policy() -> None:
    gate = Exchanging()
    gate.world.values.clear()
    gate.world.d1.pointers.clear()
    gate.turn_down(gate.ask(), "temporarily_unavailable", Reason.POLICY_UNAVAILABLE)


# Who may exchange what.


@pytest.mark.parametrize(
    ("policies", "reason"),
    [
        pytest.param([rule()], Reason.POLICY_NO_MATCH, id="no permit"),
        pytest.param(
            [rule(), may_exchange(conditions=[["subject.roles.any", ["admin"]]])], Reason.POLICY_NO_MATCH, id="others'"
        ),
        pytest.param(
            [
                may_exchange(),
                rule(id="no", effect="forbid", conditions=[["subject.roles.any", ["reader"]]],
                     target={"upstreams": ["-"], "methods": ["POST"], "paths": ["/token"]}),
            ],
            Reason.POLICY_FORBIDDEN,
            id="forbidden",
        ),
    ],
)  # fmt: skip
def test_policy_says_who_may_exchange(policies: list[dict[str, Any]], reason: Reason) -> None:
    gate = Exchanging(*policies)
    gate.turn_down(gate.ask(), "unauthorized_client", reason)
    assert gate.line["subject"] == "finance-etl"


def test_a_permit_that_offers_nothing_gives_nothing() -> None:
    gate = Exchanging(rule(), {**may_exchange(), "obligations": None})
    gate.turn_down(gate.ask(), I_T, Reason.EXCHANGE_TARGET)


def test_an_offer_that_is_not_known_to_this_version_is_not_guessed() -> None:
    gate = Exchanging(rule(), may_exchange(renewable=True))
    gate.turn_down(gate.ask(), "unauthorized_client", Reason.POLICY_OBLIGATION)


def test_of_several_permits_for_an_upstream_the_strictest_counts() -> None:
    gate = Exchanging(
        may_exchange("a", roles=["reader", "publisher"], lifetime=60),
        may_exchange("b", roles=["reader"]),
        may_exchange("c", upstreams=["crm"], lifetime=5, roles=[], bound=True),
    )
    assert (told(gate.get())["scope"], told(gate.get())["exp"]) == ("reader", NOW + 60)
    gate.turn_down(gate.ask(scope="publisher"), I_S, Reason.EXCHANGE_SCOPE)
    gate.turn_down(gate.ask(audience="crm"), "invalid_dpop_proof", Reason.TOKEN_PROOF_MISSING)


def test_a_permit_none_of_whose_roles_the_caller_has() -> None:
    gate = Exchanging(rule(), may_exchange(roles=["admin"]))
    gate.turn_down(gate.ask(), I_S, Reason.EXCHANGE_SCOPE)


def test_a_caller_that_needs_no_roles_gets_a_token_without() -> None:
    gate = Exchanging(rule(conditions=[["subject.id", ["finance-etl"]]]), may_exchange(roles=["admin"]))
    given = gate.get(token(groups=[]))
    assert told(given)["scope"] == ""
    gate.relay(asking(given))
    assert gate.line["roles"]["tagged"] == []


def test_what_else_a_permit_asks_for_is_seen_to() -> None:
    permit = may_exchange()
    permit["obligations"] |= {
        "rate_limit": [{"limit": 600, "per": 60, "by": ["subject"]}],
        "require": {"headers": ["X-Change-Id"], "justification": False},
    }
    gate = Exchanging(rule(), permit)
    gate.turn_down(gate.ask(), I_R, Reason.REQUEST_HEADER_REQUIRED)
    gate.world.limits["LIMIT_600_PER_60S"] = 1
    gate.get(headers={"x_change_id": "1"})
    answer = gate.ask(headers={"x_change_id": "1"})
    assert (answer.status, answer.headers["retry-after"]) == (429, "60")
    assert json.loads(answer.body)["error"] == "temporarily_unavailable"


def test_an_issuer_that_asks_for_a_tag_takes_the_scope_for_one() -> None:
    gate = Exchanging(role_tag="required")
    gate.turn_down(gate.ask(), I_S, Reason.ROLE_REQUIRED)
    gate.relay(asking(gate.get(scope="publisher")))
    assert told(gate.get(headers={"airgate_role": "reader"}))["scope"] == "reader"
    gate.turn_down(gate.ask(actor_token=of_partner()), I_S, Reason.ROLE_REQUIRED)
    given = gate.get(actor_token=of_partner(), scope="publisher")
    assert told(given)["scope"] == "publisher"
    first = gate.get(scope="publisher")
    assert told(gate.get(first))["scope"] == "publisher"  # it has its roles named already
    assert told(gate.get(first, actor_token=of_partner()))["scope"] == "publisher"


# Narrower in every respect.


def refused_at(gate: Gate, request: Inbound) -> Reason | None:
    """Why a request is refused; None: it is forwarded."""
    answer = gate.answer(request)
    return None if isinstance(answer, Relay) else Reason(gate.world.lines("decision")[-1]["reason"])


READ = rule(id="read", conditions=[["subject.roles.any", ["reader"]]],
            target={"upstreams": ["ledger", "crm"], "methods": ["GET"], "paths": ["/**"]})  # fmt: skip
WRITE = rule(id="write", target={"upstreams": ["ledger"], "methods": ["POST"], "paths": ["/v1/**"]})


@pytest.mark.parametrize(
    ("changes", "headers", "method", "reason"),
    [
        pytest.param({}, {}, "POST", None, id="all roles"),
        pytest.param({"scope": "reader"}, {}, "GET", None, id="the role that was asked for"),
        pytest.param({"scope": "reader"}, {}, "POST", Reason.POLICY_NO_MATCH, id="not the other"),
        pytest.param(
            {"scope": "reader"},
            {"airgate_role": "publisher"},
            "POST",
            Reason.ROLE_NOT_GRANTED,
            id="nor by a tag",
        ),
        pytest.param(
            {}, {"airgate_role": "reader"}, "POST", Reason.POLICY_NO_MATCH, id="a tag narrows further"
        ),
        pytest.param({}, {"airgate_role": "reader"}, "GET", None, id="to what it leaves"),
        pytest.param(
            {"headers": {"airgate_role": "reader"}},
            {},
            "POST",
            Reason.POLICY_NO_MATCH,
            id="a tag at the exchange",
        ),
    ],
)
def test_roles(changes: dict[str, Any], headers: dict[str, str], method: str, reason: Reason | None) -> None:
    gate = Exchanging(READ, WRITE, may_exchange())
    assert refused_at(gate, asking(gate.get(**changes), method=method, **headers)) == reason


def test_a_scope_beyond_the_tag_at_the_exchange() -> None:
    gate = Exchanging()
    answer = gate.ask(headers={"airgate_role": "reader"}, scope="publisher")
    gate.turn_down(answer, I_S, Reason.EXCHANGE_SCOPE)
    gate.turn_down(gate.ask(headers={"airgate_role": "admin"}), I_S, Reason.ROLE_NOT_GRANTED)


def test_forbids_look_at_the_roles_that_were_put_down() -> None:
    forbid = rule(id="no", effect="forbid", conditions=[["subject.roles.any", ["publisher"]]])
    gate = Exchanging(READ, forbid, may_exchange())
    given = gate.get(scope="reader")
    assert refused_at(gate, asking(given)) == Reason.POLICY_FORBIDDEN
    gate = Exchanging(rule(conditions=[["subject.roles.none", ["publisher"]]]), may_exchange())
    assert refused_at(gate, asking(gate.get(scope="reader"))) == Reason.POLICY_NO_MATCH


def test_roles_that_a_missing_claim_could_grant_stay_unknown() -> None:
    by_name = rule(conditions=[["subject.id", ["finance-etl"]]])
    forbid = rule(id="no", effect="forbid", conditions=[["subject.roles.any", ["admin"]]])
    gate = Exchanging(by_name, forbid, may_exchange())
    assert refused_at(gate, asking(gate.get(token(groups=ABSENT)))) == Reason.POLICY_FORBIDDEN
    assert refused_at(gate, asking(gate.get(token(groups=[])))) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://gate/crm/v1/entries", "https://gate/nowhere/v1", "https://gate/-/health2", "https://gate/-/v1",
        "https://gate/access/v1/evaluationz",
    ],
)  # fmt: skip
def test_another_upstream(url: str) -> None:
    gate = Exchanging(READ, may_exchange())
    assert refused_at(gate, asking(gate.get(), url=url)) == Reason.TOKEN_AUDIENCE


def test_the_gates_own_pages_take_no_gate_token() -> None:
    pages = rule(id="pages", target={"upstreams": ["-"], "methods": ["*"], "paths": ["/**"]}, conditions=[])
    gate = Exchanging(READ, pages, may_exchange())
    given = gate.get()
    answer = gate.answer(asking(given, url="https://gate/-/health"))
    assert isinstance(answer, Refusal)
    assert "bundle" not in json.loads(answer.body)
    gate.world.sent = (
        b'{"subject":{"type":"user","id":"x"},"action":{"name":"x"},"resource":{"type":"x","id":"x"}}'
    )
    request = asking(
        given, url="https://gate/access/v1/evaluation", method="POST", content_type="application/json"
    )
    assert refused_at(gate, request._replace(has_body=True)) == Reason.TOKEN_AUDIENCE


def test_a_proxys_client_may_present_one_for_its_upstream() -> None:
    made = bundle(READ, may_exchange())
    made["upstreams"]["ledger"]["hosts"] = ["ledger.internal"]
    made["upstreams"]["crm"]["hosts"] = ["crm.internal"]
    gate = Exchanging()
    gate.world.publish(made)
    gate.world.secrets["PROXY_SECRETS"] = "s" * 32
    given = gate.get()
    for host, status in (("ledger.internal", 200), ("crm.internal", 401)):
        answer = gate.answer(
            inbound(
                "https://gate/-/authz/envoy/v1/entries", authorization=f"Bearer {given}", airgate_proxy="s" * 32,
                x_original_host=host, x_original_proto="https", airgate_client="198.51.100.1",
            )
        )  # fmt: skip
        assert isinstance(answer, Refusal)
        assert answer.status == status, gate.line
    assert gate.line["reason"] == "token.audience"


BY_DAG = rule(conditions=[["workload.dag", ["close"], False]])
ATTESTED = rule(conditions=[["workload.dag", ["close"], True]])


@pytest.mark.parametrize(
    ("policy", "claims", "then", "now", "reason"),
    [
        pytest.param(BY_DAG, {}, "close", None, None, id="what was asserted then"),
        pytest.param(BY_DAG, {}, "close", "other", None, id="and not what is now"),
        pytest.param(BY_DAG, {}, "other", "close", Reason.POLICY_NO_MATCH, id="nothing else can be asserted"),
        pytest.param(BY_DAG, {}, None, "close", Reason.POLICY_NO_MATCH, id="nor something where nothing was"),
        pytest.param(ATTESTED, {}, "close", None, Reason.POLICY_NO_MATCH, id="asserted is never attested"),
        pytest.param(ATTESTED, {"dag": "close"}, None, None, None, id="attested stays attested"),
        pytest.param(
            ATTESTED, {"dag": "other"}, "close", "close", Reason.POLICY_NO_MATCH, id="against any header"
        ),
        pytest.param(ATTESTED, {"dag": "close"}, "other", "other", None, id="attested wins"),
    ],
)
def test_workload_context(
    policy: dict[str, Any], claims: dict[str, str], then: str | None, now: str | None, reason: Reason | None
) -> None:
    gate = Exchanging(policy, may_exchange())
    given = gate.get(token(airflow=claims), headers={"airgate_dag_id": then} if then else {})
    headers = {"airgate_dag_id": now} if now else {}
    assert refused_at(gate, asking(given, **headers)) == reason
    assert refused_at(gate, asking(given)) == reason


def test_context_headers_that_cannot_be_read() -> None:
    gate = Exchanging()
    gate.turn_down(gate.ask(headers={"airgate_dag_id": "a,b"}), I_R, Reason.REQUEST_HEADER_INVALID)


@pytest.mark.parametrize(
    ("subject", "actor", "lifetime", "expected"),
    [
        (300, None, 300, 300), (90, None, 300, 90), (3000, None, 600, 600), (3000, None, 60, 60), (300, 45, 300, 45),
        (20, 300, 300, 20), (300.9, None, 600, 300),
    ],
)  # fmt: skip
def test_lifetime(subject: float, actor: float | None, lifetime: int, expected: int) -> None:
    gate = Exchanging(rule(), may_exchange(lifetime=lifetime))
    changes = {} if actor is None else {"actor_token": of_partner(exp=NOW + actor)}
    given = gate.get(token(exp=NOW + subject), **changes)
    assert told(given)["exp"] == NOW + expected
    assert gate.line["issued"]["expires_in"] == expected
    gate.later(expected - 1)
    gate.relay(asking(given))
    gate.later(expected)  # to the second: it is the gate's own clock
    assert refused_at(gate, asking(given)) == Reason.TOKEN_EXPIRED


def test_a_session_survives() -> None:
    gate = Exchanging()
    given = gate.get(token(sid="s-1"))
    gate.relay(asking(given))
    seen = gate.state.verified.recall(given, NOW)
    assert seen is not None
    assert seen.identity.session == "s-1"
    both = gate.get(token(sid="s-1"), actor_token=of_partner(sid="s-2"))
    gate.relay(asking(both))
    seen = gate.state.verified.recall(both, NOW)
    assert seen is not None
    assert seen.identity.exchanged is not None
    assert [one.identity.session for _, one in seen.identity.exchanged.alone] == ["s-1", "s-2"]


def test_a_policy_published_meanwhile_decides() -> None:
    """Keys had to be waited for, and the policy that came into force in the meantime gives no such tokens."""
    gate = Exchanging(rule(), may_exchange())
    state, later = gate.state, bundle(rule(), may_exchange(roles=["reader"]))

    class Publishing(World):
        async def verify(self, key: Key, algorithm: str, given: bytes, signed: bytes) -> bool:
            if key.kid == "one" and state.sequence == 1:
                self.publish(later, 2)
                await state.refresh(self, 1)
            return await super().verify(key, algorithm, given, signed)

    world = Publishing(bundle(rule(), may_exchange()))
    world.secrets = gate.world.secrets
    gate.world = world
    assert told(gate.get(headers={"dpop": proof()}))["scope"] == "reader"
    assert (gate.line["sequence"], gate.world.of("verify")) == (2, ["one", "one", "key"])


@pytest.mark.parametrize(
    ("what", "reason"), [("policy", Reason.POLICY_NO_MATCH), ("revocation", Reason.POLICY_REVOKED)]
)
def test_what_comes_into_force_while_a_proof_is_checked_counts(what: str, reason: Reason) -> None:
    gate = Exchanging()
    state, later = gate.state, bundle(rule())

    class Meanwhile(World):
        async def verify(self, key: Key, algorithm: str, given: bytes, signed: bytes) -> bool:
            if key.kid == "key":
                if what == "policy":
                    self.publish(later, 2)
                else:
                    self.act(revocation())
                await state.refresh(self, 1)
            return await super().verify(key, algorithm, given, signed)

    world = Meanwhile(bundle())
    world.secrets = gate.world.secrets
    gate.world = world
    gate.turn_down(gate.ask(headers={"dpop": proof()}), "unauthorized_client", reason)
    assert gate.line["sequence"] == state.sequence
    assert gate.world.of("verify").count("key") == 1  # a proof is used once, however often policy is asked


def test_an_issuer_that_a_policy_brings_meanwhile() -> None:
    """And whose token another request has shown by then, so that it is known before this one knows the issuer."""
    gate = Exchanging()
    state, older = gate.state, bundle()
    del older["issuers"]["partner"]
    for grants in older["roles"].values():
        grants[:] = [grant for grant in grants if grant["issuer"] != "partner"]

    class Publishing(World):
        async def verify(self, key: Key, algorithm: str, given: bytes, signed: bytes) -> bool:
            if key.kid == "one" and state.sequence == 1:
                self.publish(bundle(), 2)
                await state.refresh(self, 1)
                assert state.bundle is not None
                await admission.recognise(of_partner(), state.bundle, state, self, NOW)
            return await super().verify(key, algorithm, given, signed)

    world = Publishing(older)
    world.secrets, world.pages = gate.world.secrets, gate.world.pages
    gate.world = world
    gate.get(actor_token=of_partner())
    assert (gate.line["sequence"], gate.line["actor"]) == (2, "assistant")


def test_a_body_that_takes_its_time_has_no_old_view_of_revocations() -> None:
    gate = Exchanging()
    gate.get()

    class Slow(World):
        async def body(self, limit: int) -> bytes:
            self.clock += 12
            return await super().body(limit)

    world = Slow(bundle())
    world.secrets, world.d1, world.clock = gate.world.secrets, gate.world.d1, gate.world.clock
    world.act(revocation())
    gate.world = world
    gate.turn_down(gate.ask(), "unauthorized_client", Reason.POLICY_REVOKED)


@given(
    st.binary(max_size=200) | st.text("grant_type=&%+0aF\xfc", max_size=60).map(str.encode),
    st.text(max_size=30),
)
def test_any_form_is_read_or_turned_down(text: bytes, kind: str) -> None:
    for content_type in (FORM, kind):
        with pytest.raises(Denied) as caught:
            exchange.read(content_type, text)
        assert ANSWERS[caught.value.reason].status == 400


TEXTS = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=20)


@given(st.dictionaries(TEXTS, TEXTS, max_size=5))
def test_a_form_says_what_its_sender_meant(members: dict[str, str]) -> None:
    meant = {"grant_type": GRANT, "subject_token": "s", "subject_token_type": TYPE, "audience": "ä ö+&=%"}
    others = {name: value for name, value in members.items() if name not in READ_BY_NAME}
    request = exchange.read(FORM, urlencode({**others, **meant}).encode())
    assert request == exchange.Request("s", None, None, "ä ö+&=%", None, TYPE)


READ_BY_NAME = frozenset(
    {
        *("grant_type", "subject_token", "subject_token_type", "actor_token", "actor_token_type"),
        *("resource", "audience", "scope", "requested_token_type"),
    }
)
