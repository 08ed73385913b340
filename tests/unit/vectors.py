"""Wycheproof's JWS cases, judged by the gate's own code: reading a JWS, choosing its key, checking its signature.

Only the standard library and src/ are needed. The verifier is a port (`keys.Verify`), so the same table runs wherever
Python runs, with whatever cryptography there is:

    assert await disagreements(text, verify) == []

`text` is the file's. The cases' payloads are no claims, so what comes after the signature has no part in this.
"""

import json
from typing import Any, NamedTuple

from keys import ALGORITHMS, Keyring, Source, Verify
from model import Denied, Reason
from tokens import read_jws

ISSUER = "https://wycheproof.example.com"
NOW = 1_800_000_000.0
# Beside each case's key in its JWKS, so that a key which must not be used is one key less, not an issuer without keys.
BYSTANDER = {
    "kty": "OKP",
    "crv": "Ed25519",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    "kid": "bystander",
}


class Case(NamedTuple):
    id: int  # the file's tcId
    about: str  # the comments of its group and of its own
    jws: str
    key: dict[str, Any]  # a JWK; the secret one where there is no public one
    valid: bool  # as the file marks it


class Judgement(NamedTuple):
    """What is done where the mark alone will not do."""

    reason: Reason
    why: str
    left_out: bool = False  # the mark is of no use, so it is not compared


JUDGED = {
    346: Judgement(Reason.TOKEN_ALGORITHM, "marked valid; it says PS384, its key PS256"),
    347: Judgement(Reason.TOKEN_KEY, "marked valid; it says ES512, its key ES521, which there is not"),
    350: Judgement(Reason.TOKEN_ALGORITHM, "marked valid; it says PS384, its key PS256"),
    351: Judgement(Reason.TOKEN_KEY, "marked valid; it says ES512, its key ES521, which there is not"),
    355: Judgement(Reason.TOKEN_KEY, "marked invalid; only a check of key_ops finds it (RSA, encrypt)"),
    356: Judgement(Reason.TOKEN_KEY, "marked invalid; only a check of key_ops finds it (EC, encrypt)"),
    367: Judgement(Reason.TOKEN_ALGORITHM, "marked invalid; byte for byte the valid 357", left_out=True),
    370: Judgement(Reason.TOKEN_ALGORITHM, "marked invalid; byte for byte the valid 357", left_out=True),
    372: Judgement(Reason.TOKEN_MALFORMED, "marked valid; a question mark stands in its header"),
    373: Judgement(Reason.TOKEN_MALFORMED, "marked valid; a question mark stands in its payload"),
}


def read(text: str) -> list[Case]:
    """The cases of json_web_signature_test.json."""
    return [
        Case(
            test["tcId"],
            f"{group['comment']}: {test['comment']}",
            test["jws"],
            group.get("public") or group["private"],
            test["result"] == "valid",
        )
        for group in json.loads(text)["testGroups"]
        for test in group["tests"]
    ]


def acceptable(case: Case) -> bool:
    """What the gate has to say: as marked for the algorithms that it accepts, no to every other, but see JUDGED."""
    return case.valid and case.key.get("alg") in ALGORITHMS and case.id not in JUDGED


async def verdict(case: Case, verify: Verify) -> Reason | None:
    """Why the gate refuses a case. None: it accepts."""

    async def fetch(url: str, timeout: float, limit: int) -> bytes:
        return json.dumps({"keys": [case.key, BYSTANDER]}).encode()

    ring = Keyring(Source(ISSUER, ISSUER + "/keys"))
    try:
        await ring.verify(read_jws(case.jws), ALGORITHMS, fetch, verify, NOW)
    except Denied as denied:
        return denied.reason
    return None


async def disagreements(text: str, verify: Verify) -> list[str]:
    """One line for each case that the gate judges otherwise than it has to."""
    found = []
    for case in read(text):
        reason = await verdict(case, verify)
        expected = JUDGED[case.id].reason if case.id in JUDGED else None
        if (reason is None) != acceptable(case) or (expected is not None and reason is not expected):
            found.append(f"{case.id} ({case.about}): {reason or 'accepted'}")
    return found
