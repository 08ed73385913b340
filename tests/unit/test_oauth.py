"""The gate as an OAuth 2.0 protected resource: its metadata, and what a refused caller is told to bring."""

from typing import Any

import pytest
from world import ISSUER, canonical, document

from bundle import Issuer, load_bundle
from dpop import ALGORITHMS
from model import Reason
from oauth import METADATA, challenge, metadata, server

ORIGIN = "https://gate.example.com"
ABOUT = f', resource_metadata="{ORIGIN}/.well-known/oauth-protected-resource"'
ALGS = 'DPoP algs="ES256 ES384 ES512 Ed25519 EdDSA PS256 RS256"'


def issuers(*dpop: str) -> dict[str, Issuer]:
    """Issuers that bind their tokens to keys like this."""
    bundle = document()
    company = bundle["issuers"]["company"]
    bundle["issuers"] |= {
        f"company-{number}": {**company, "issuer": f"{ISSUER}/{number}", "dpop": each}
        for number, each in enumerate(dpop)
    }
    company["dpop"] = dpop[0]
    return load_bundle(canonical(bundle)).issuers


@pytest.mark.parametrize(
    ("dpop", "required"),
    [
        pytest.param(["optional"], False, id="no issuer must bind its tokens"),
        pytest.param(["required", "optional"], False, id="one of two must"),
        pytest.param(["required", "required"], True, id="all must"),
    ],
)
def test_the_metadata(dpop: list[str], required: bool) -> None:
    expected: dict[str, Any] = {
        "resource": ORIGIN,
        "resource_name": "Airgate",
        "authorization_servers": [ISSUER, *(f"{ISSUER}/{number}" for number in range(len(dpop)))],
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": list(ALGORITHMS),
        "dpop_bound_access_tokens_required": required,
    }
    assert metadata(ORIGIN, issuers(*dpop)) == expected


def test_a_gate_that_signs_tokens_is_an_authorization_server_too() -> None:
    told = metadata(ORIGIN, issuers("optional"), ORIGIN)
    assert told["authorization_servers"] == sorted([ORIGIN, ISSUER, f"{ISSUER}/0"])
    assert server(ORIGIN + "/")["token_endpoint"] == f"{ORIGIN}/-/token"
    assert server(ORIGIN + "/")["issuer"] == ORIGIN + "/"


def test_a_gate_without_issuers_asks_for_no_proof() -> None:
    assert metadata(ORIGIN, {})["dpop_bound_access_tokens_required"] is False


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (Reason.TOKEN_MISSING, f'Bearer realm="airgate"{ABOUT}, {ALGS}{ABOUT}'),
        *(
            (
                reason,
                f'Bearer realm="airgate", error="invalid_token"{ABOUT}, {ALGS}, error="invalid_token"{ABOUT}',
            )
            for reason in (Reason.TOKEN_EXPIRED, Reason.TOKEN_SCHEME, Reason.TOKEN_INCOMPLETE)
        ),
        (Reason.TOKEN_UNBOUND, f'{ALGS}, error="invalid_token"{ABOUT}'),
        (Reason.TOKEN_PROOF_MISSING, f'{ALGS}, error="invalid_dpop_proof"{ABOUT}'),
        (Reason.TOKEN_PROOF_INVALID, f'{ALGS}, error="invalid_dpop_proof"{ABOUT}'),
        (Reason.TOKEN_PROOF_REPLAYED, f'{ALGS}, error="invalid_dpop_proof"{ABOUT}'),
    ],
)
def test_what_a_refused_caller_is_told_to_bring(reason: Reason, expected: str) -> None:
    assert challenge(reason, ORIGIN) == expected


@pytest.mark.parametrize(
    ("origin", "written"),
    [
        pytest.param("http://127.0.0.1:8787", True, id="an address with a port"),
        pytest.param("http://[::1]:8787", True, id="an address of version 6"),
        pytest.param("", False, id="no origin"),
        pytest.param('https://a"b', False, id="a quote, which would end the text"),
        pytest.param("https://a\\b", False, id="a backslash"),
        pytest.param("https://a b", False, id="a space"),
        pytest.param("https://a\r\nset-cookie:x", False, id="a line break"),
        pytest.param("https://user@host", False, id="user information"),
        pytest.param("https://" + "a" * 301, False, id="a long host"),
    ],
)
def test_only_a_plain_host_is_written_back(origin: str, written: bool) -> None:
    told = challenge(Reason.TOKEN_MISSING, origin)
    assert (f'resource_metadata="{origin}{METADATA}"' in told) is written
    assert ("resource_metadata" in told) is written
