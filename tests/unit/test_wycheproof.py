"""Wycheproof's 401 JWS cases, with `cryptography` for a verifier. What runs, and the judgement calls: vectors.py."""

import os
from collections import Counter
from pathlib import Path

import pytest
from vectors import JUDGED, Case, acceptable, disagreements, read, verdict
from verifier import verify
from world import run

from airgate.node import PROJECT
from keys import Key
from model import Reason

CORPORA = PROJECT / os.environ.get("AIRGATE_CORPORA", "../shared/corpora")
FILE = Path(CORPORA, "wycheproof", "json_web_signature_test.json")
TEXT = FILE.read_text("utf-8") if FILE.is_file() else ""
CASES = read(TEXT) if TEXT else []

published = pytest.mark.skipif(not TEXT, reason=f"{FILE} isn't there: published vectors, kept elsewhere")


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=f"{case.id} {case.about}") for case in CASES]
    or [pytest.param(None, marks=published, id="no vectors")],
)
def test_a_case(case: Case) -> None:
    reason = run(verdict(case, verify))
    assert (reason is None) is acceptable(case)
    if case.id in JUDGED:
        assert reason is JUDGED[case.id].reason


@published
def test_every_case_was_there() -> None:
    """And that they are told apart for the right reasons: most need their key, few are refused for want of one."""
    assert [case.id for case in CASES] == list(range(1, 402))
    assert Counter(run(verdict(case, verify)) for case in CASES) == {
        None: 16,
        Reason.TOKEN_MALFORMED: 47,
        Reason.TOKEN_ALGORITHM: 44,
        Reason.TOKEN_KEY: 10,
        Reason.TOKEN_SIGNATURE: 284,
    }


@published
@pytest.mark.parametrize("number", [pytest.param(id_, id=str(id_)) for id_ in JUDGED])
def test_a_judgement_call_is_needed(number: int) -> None:
    """Its mark says otherwise, or says nothing, or it takes a check that verifying alone does not make."""
    case, original = CASES[number - 1], CASES[357 - 1]
    if JUDGED[number].left_out:
        assert (case.jws, case.valid, original.valid) == (original.jws, False, True)
    elif case.valid:
        assert not acceptable(case)
    else:
        usable = case._replace(key={name: case.key[name] for name in case.key if name != "key_ops"})
        assert run(verdict(usable, verify)) is None


@published
def test_a_verifier_that_is_wrong_is_found_out() -> None:
    async def lax(key: Key, algorithm: str, signature: bytes, signed: bytes) -> bool:
        return True

    async def strict(key: Key, algorithm: str, signature: bytes, signed: bytes) -> bool:
        return False

    assert run(disagreements(TEXT, verify)) == []
    assert len(run(disagreements(TEXT, lax))) > 200
    assert len(run(disagreements(TEXT, strict))) == sum(acceptable(case) for case in CASES)
