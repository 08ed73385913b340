"""Whose word counts: which keys can be trusted, what a signature covers, and every way in which one doesn't count."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import (
    ABSENT,
    ED25519,
    OPERATOR,
    P256,
    RSA,
    World,
    b64,
    canonical,
    entry,
    grant,
    number,
    run,
    signature,
    signed,
    trusting,
    without,
)

from model import Denied, Reason
from trust import (
    ACT,
    GRANT,
    LIMIT,
    LONGEST_KID,
    LONGEST_NAME,
    MOST_KEYS,
    POINTER,
    PUBLISH,
    Signed,
    Trusted,
    Untrusted,
    pae,
    read_trusted,
    signer,
)

OTHER = {**ED25519, "x": number(7, 32), "kid": "other", "name": "Release pipeline", "may": ["publish"]}
POINTS = canonical(entry("{}"))
GRANTS = canonical(grant())


def trusted(*keys: Any) -> Trusted:
    return read_trusted(trusting(*keys)["TRUSTED_KEYS"])


# What a signature covers.


@pytest.mark.parametrize(
    ("kind", "document", "covered"),
    [
        # The example of DSSE's own protocol.md.
        pytest.param(
            "http://example.com/HelloWorld",
            "hello world",
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world",
            id="DSSE's own example",
        ),
        pytest.param("", "", b"DSSEv1 0  0 ", id="nothing at all"),
        pytest.param("t", "é\U0001f600", b"DSSEv1 1 t 6 \xc3\xa9\xf0\x9f\x98\x80", id="lengths are of bytes"),
        pytest.param("t", "1 t 1 x", b"DSSEv1 1 t 7 1 t 1 x", id="a document like an encoding"),
    ],
)
def test_what_a_signature_covers(kind: str, document: str, covered: bytes) -> None:
    assert pae(kind, document) == covered


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text("1 t", max_size=8)


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_no_two_documents_have_the_same_encoding(kind: str, text: str, kind_2: str, text_2: str) -> None:
    assert (pae(kind, text) == pae(kind_2, text_2)) is ((kind, text) == (kind_2, text_2))


# Keys.


def test_the_keys_that_count() -> None:
    known = trusted(OPERATOR, OTHER)
    assert list(known) == ["operator", "other"]
    assert (known["operator"].name, known["operator"].may) == ("Operator", {PUBLISH, GRANT})
    assert (known["other"].kid, known["other"].name, known["other"].may) == (
        "other",
        "Release pipeline",
        {PUBLISH},
    )
    assert known["other"].key.jwk["x"] == OTHER["x"]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"may": ["grant"]}, id="it may grant only"),
        pytest.param({"may": ["publish", "publish"]}, id="it is said twice what it may"),
        pytest.param({"kid": "k" * LONGEST_KID}, id="the longest kid"),
        pytest.param({"name": "n" * LONGEST_NAME}, id="the longest name"),
        pytest.param({"name": "Zoë, on call"}, id="a name with a space, a comma and an accent"),
    ],
)
def test_a_key_that_can_be_trusted(changes: dict[str, Any]) -> None:
    (known,) = trusted({**OPERATOR, **changes}).values()
    assert (known.kid, known.name) == ({**OPERATOR, **changes}["kid"], {**OPERATOR, **changes}["name"])


def test_as_many_keys_as_there_may_be() -> None:
    keys = [{**OPERATOR, "kid": f"{each}"} for each in range(MOST_KEYS)]
    assert len(trusted(*keys)) == MOST_KEYS
    with pytest.raises(ValueError, match="1 to 16 keys"):
        trusted(*keys, OTHER)


BAD_KEYS = [
    pytest.param({"kty": ABSENT}, id="no kty"),
    pytest.param({"kty": "oct", "k": "c2VjcmV0"}, id="a shared secret"),
    pytest.param({**P256, "kid": "operator"}, id="a key of another curve"),
    pytest.param({**RSA, "crv": ABSENT, "x": ABSENT}, id="an RSA key"),
    pytest.param({"crv": "Ed448"}, id="a curve that is not known"),
    pytest.param({"crv": "X25519"}, id="a curve for agreeing on keys"),
    pytest.param({"crv": ABSENT}, id="no curve"),
    pytest.param({"x": ABSENT}, id="no public key"),
    pytest.param({"x": ""}, id="an empty public key"),
    pytest.param({"x": 7}, id="a public key that is a number"),
    pytest.param({"x": "!"}, id="a public key that is no base64url"),
    pytest.param({"x": ED25519["x"] + "AA"}, id="a public key that is too long"),
    pytest.param({"x": b64(bytes(32))}, id="a public key of small order"),
    pytest.param({"d": ED25519["x"]}, id="a private key"),
    pytest.param({"use": "sig"}, id="a member that has no place here"),
    pytest.param({"alg": "EdDSA"}, id="alg, too"),
    pytest.param({"iat": 1}, id="iat, as the private key's file has it"),
    pytest.param({"kid": ABSENT}, id="no kid"),
    pytest.param({"kid": ""}, id="an empty kid"),
    pytest.param({"kid": None}, id="a kid that is null"),
    pytest.param({"kid": 7}, id="a kid that is a number"),
    pytest.param({"kid": "k" * (LONGEST_KID + 1)}, id="a kid that is too long"),
    pytest.param({"name": ABSENT}, id="no name"),
    pytest.param({"name": ""}, id="an empty name"),
    pytest.param({"name": None}, id="a name that is null"),
    pytest.param({"name": 7}, id="a name that is a number"),
    pytest.param({"name": "n" * (LONGEST_NAME + 1)}, id="a name that is too long"),
    pytest.param({"name": "a\nb"}, id="a name of two lines"),
    pytest.param({"name": "a\x00"}, id="a name with a NUL"),
    pytest.param({"name": "\u202ea"}, id="a name that is turned around"),
    pytest.param({"may": ABSENT}, id="nothing about what it may"),
    pytest.param({"may": []}, id="it may do nothing"),
    pytest.param({"may": None}, id="may is null"),
    pytest.param({"may": "publish"}, id="may is a text"),
    pytest.param({"may": {"publish": True}}, id="may is an object"),
    pytest.param({"may": ["publish", "everything"]}, id="it may what nobody knows of"),
    pytest.param({"may": ["Publish"]}, id="in capitals"),
    pytest.param({"may": [["publish"]]}, id="a list in the list"),
    pytest.param({"may": [None]}, id="null in the list"),
]


@pytest.mark.parametrize("changes", BAD_KEYS)
def test_a_key_that_cannot_be_trusted_is_none_of_them(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^keys\[1\]: "):
        trusted(OTHER, without(OPERATOR, **changes))


@pytest.mark.parametrize("jwk", [None, "", [], 7, ["kty", "OKP"]], ids=repr)
def test_a_key_that_is_no_object(jwk: Any) -> None:
    with pytest.raises(ValueError, match=r"^keys\[0\]: "):
        read_trusted(json.dumps({"keys": [jwk]}))


def test_two_keys_have_two_kids() -> None:
    """Or which of them a signature is checked with would be up to their order."""
    with pytest.raises(ValueError, match=r"^keys\[1\]: another key has the same kid"):
        trusted(OPERATOR, {**OTHER, "kid": "operator"})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("{", id="cut short"),
        pytest.param("[]", id="a list"),
        pytest.param("{}", id="an empty object"),
        pytest.param(json.dumps({"keys": []}), id="no keys"),
        pytest.param(json.dumps({"keys": None}), id="keys that are null"),
        pytest.param(json.dumps({"keys": {"operator": OPERATOR}}), id="keys in an object"),
        pytest.param(json.dumps({"keys": [OPERATOR], "more": 1}), id="a member more"),
        pytest.param(json.dumps(OPERATOR), id="a key, bare"),
        pytest.param('{"keys":[],"keys":[]}', id="keys twice"),
        pytest.param(json.dumps({"keys": [OPERATOR]})[:-2] + ',{"kid":"a","kid":"b"}]}', id="a name twice in a key"),
        pytest.param(json.dumps({"keys": [OPERATOR]}) + "{}", id="two values"),
        pytest.param(json.dumps({"keys": [OPERATOR]}) + " " * LIMIT, id="too long"),
        pytest.param('{"keys":' + "[" * 3000 + "]" * 3000 + "}", id="nested deeply"),
        pytest.param(json.dumps({"keys": [OPERATOR]}).replace("Operator", "\\ud800"), id="a lone surrogate"),
    ],
)  # fmt: skip
def test_a_text_that_names_no_keys(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_trusted(text)


def test_a_long_name_of_a_member_is_cut_short_in_the_message() -> None:
    with pytest.raises(ValueError, match=r"^keys\[0\]: '") as caught:
        trusted({**OPERATOR, "x" * 5000: 1})
    assert len(str(caught.value)) < 100


# Signatures.

KNOWN = trusted(OPERATOR, OTHER)


def judged(given: Signed, kind: str, right: str, world: World | None = None) -> str:
    """Who has signed it, or why nobody counts."""
    world = world or World()
    try:
        return run(signer(given, kind, right, KNOWN, world.verify)).name  # type: ignore[no-any-return]
    except Untrusted as refused:
        return str(refused)


@pytest.mark.parametrize(
    ("given", "kind", "right", "name"),
    [
        pytest.param(signed("pointer", POINTS), POINTER, PUBLISH, "Operator", id="a pointer"),
        pytest.param(signed("act", GRANTS), ACT, GRANT, "Operator", id="a grant"),
        pytest.param(
            signed("pointer", POINTS, "other"), POINTER, PUBLISH, "Release pipeline", id="by the other key"
        ),
        pytest.param(signed("pointer", "\x00é"), POINTER, PUBLISH, "Operator", id="whatever the document is"),
        pytest.param(signed("pointer", ""), POINTER, PUBLISH, "Operator", id="an empty document"),
    ],
)
def test_a_signature_that_counts(given: tuple[str, str, str], kind: str, right: str, name: str) -> None:
    assert judged(Signed(*given), kind, right) == name


POINTED = Signed(*signed("pointer", POINTS))
WRONG = "the signature under the name of Operator is wrong"
UNTRUSTED = [
    pytest.param(Signed(POINTS, "", ""), POINTER, PUBLISH, "not signed", id="nobody has signed"),
    pytest.param(Signed(POINTS, "operator", ""), POINTER, PUBLISH, "not signed", id="a key and no signature"),
    pytest.param(
        POINTED._replace(key=""),
        POINTER,
        PUBLISH,
        "signed by a key that is not trusted here, ''",
        id="a signature and no key",
    ),
    pytest.param(
        Signed(*signed("pointer", POINTS, "mallory")),
        POINTER,
        PUBLISH,
        "signed by a key that is not trusted here, 'mallory'",
        id="a key that nobody trusts",
    ),
    pytest.param(
        Signed(*signed("act", GRANTS, "other")),
        ACT,
        GRANT,
        "signed by Release pipeline, who may not grant",
        id="a key that may only publish",
    ),
    pytest.param(POINTED._replace(document=POINTS + " "), POINTER, PUBLISH, WRONG, id="a document with a space more"),
    pytest.param(
        POINTED._replace(document=POINTS.replace('"sequence":1', '"sequence":2')),
        POINTER,
        PUBLISH,
        WRONG,
        id="a document with another number",
    ),
    pytest.param(
        POINTED._replace(document=POINTS.replace('"airgate"', '"airgate-staging"')),
        POINTER,
        PUBLISH,
        WRONG,
        id="a document with another gate",
    ),
    pytest.param(POINTED, ACT, GRANT, WRONG, id="a pointer shown as an act"),
    pytest.param(Signed(*signed("act", POINTS)), POINTER, PUBLISH, WRONG, id="an act shown as a pointer"),
    pytest.param(
        POINTED._replace(signature=signed("pointer", POINTS, "other")[2]),
        POINTER,
        PUBLISH,
        WRONG,
        id="another key's signature under this one's name",
    ),
    pytest.param(
        POINTED._replace(key="other"),
        POINTER,
        PUBLISH,
        "the signature under the name of Release pipeline is wrong",
        id="this key's signature under another's name",
    ),
    pytest.param(
        POINTED._replace(signature=b64(signature(POINTS.encode(), "operator"))),
        POINTER,
        PUBLISH,
        WRONG,
        id="a signature over the document alone",
    ),
    pytest.param(POINTED._replace(signature=b64(bytes(64))), POINTER, PUBLISH, WRONG, id="64 zeros"),
    pytest.param(POINTED._replace(signature=b64(bytes(63))), POINTER, PUBLISH, WRONG, id="63 bytes"),
    pytest.param(POINTED._replace(signature=b64(bytes(65))), POINTER, PUBLISH, WRONG, id="65 bytes"),
    pytest.param(POINTED._replace(signature="="), POINTER, PUBLISH, WRONG, id="padding alone"),
    pytest.param(
        POINTED._replace(signature=POINTED.signature + "=="), POINTER, PUBLISH, WRONG, id="with padding"
    ),
    pytest.param(
        POINTED._replace(signature=POINTED.signature[:-1] + "B"), POINTER, PUBLISH, WRONG, id="another last bit"
    ),
    pytest.param(POINTED._replace(signature=" " + POINTED.signature), POINTER, PUBLISH, WRONG, id="a space before"),
    pytest.param(POINTED._replace(signature="é"), POINTER, PUBLISH, WRONG, id="no base64url at all"),
    pytest.param(POINTED._replace(signature="A" * 10_000), POINTER, PUBLISH, WRONG, id="10 kB"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "kind", "right", "why"), UNTRUSTED)
def test_a_signature_that_does_not_count(given: Signed, kind: str, right: str, why: str) -> None:
    assert judged(given, kind, right) == why


def test_a_key_that_the_runtime_will_not_have_signs_nothing() -> None:
    world = World()
    world.broken["verify"] = Denied(Reason.TOKEN_KEY, "refused")
    assert judged(POINTED, POINTER, PUBLISH, world) == WRONG


def test_nothing_is_verified_that_could_not_count() -> None:
    """Not with a key that may not, nor a signature of another length."""
    world = World()
    for one, kind, right in (
        (Signed(POINTS, "operator", ""), POINTER, PUBLISH),
        (Signed(*signed("pointer", POINTS, "mallory")), POINTER, PUBLISH),
        (Signed(*signed("act", GRANTS, "other")), ACT, GRANT),
        (POINTED._replace(signature=b64(bytes(63))), POINTER, PUBLISH),
    ):
        judged(one, kind, right, world)
    assert world.of("verify") == []


def test_a_mistake_of_the_ports_is_no_wrong_signature() -> None:
    world = World()
    world.broken["verify"] = KeyError("mistake")
    with pytest.raises(KeyError):
        judged(POINTED, POINTER, PUBLISH, world)
