"""Whatever is presented as a token is accepted or refused with a reason. `make fuzz` is the same at length."""

from contextlib import suppress
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from odd_tokens import Subject, mutated

from model import Denied, Reason
from tokens import parse

ANY, PROMISED = Subject(), Subject("at+jwt")


@settings(max_examples=300)
@given(st.randoms(use_true_random=False))
def test_every_input_is_accepted_or_refused(random: Random) -> None:
    text = mutated(random)
    with suppress(Denied):
        parse(text)
    wide, narrow = ANY.judge(text), PROMISED.judge(text)
    assert narrow is not None or wide is None, "the stricter type accepts more"


def test_the_inputs_come_to_every_check() -> None:
    """Or the mutations would all end at the first of them."""
    random = Random(7)
    reasons = {subject.judge(mutated(random)) for _ in range(2000) for subject in (ANY, PROMISED)}
    # Not the signature: every one that fits is good here, and changes leave few that do not.
    assert reasons >= {
        None,
        Reason.TOKEN_MALFORMED,
        Reason.TOKEN_ALGORITHM,
        Reason.TOKEN_ISSUER,
        Reason.TOKEN_KEY,
        Reason.TOKEN_TYPE,
        Reason.TOKEN_CLAIMS,
        Reason.TOKEN_AUDIENCE,
        Reason.TOKEN_EXPIRED,
        Reason.TOKEN_NOT_YET_VALID,
        Reason.TOKEN_LIFETIME,
    }
