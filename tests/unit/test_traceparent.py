"""A caller's trace goes on, whole and harmless, or a new one begins that has the request's id."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from language import examples

from traceparent import LONG, MOST, Trace, client_span, read, sampled_from, server_span, written

REQUEST = "0af7651916cd43dd8448eb211c80319c"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PARENT}-01"
NEW = {"traceparent": f"00-{REQUEST}-8448eb211c80319c-00"}
EVERY = sampled_from(1)  # new traces are recorded
VALID = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def context(headers: dict[str, str], request_id: str) -> dict[str, str]:
    """What the upstream gets while no spans are exported."""
    return written(read(headers, request_id), request_id)


def exporting(headers: dict[str, str], request_id: str = REQUEST) -> dict[str, str]:
    """What it gets while they are."""
    return written(read(headers, request_id, EVERY), request_id)


@pytest.mark.parametrize(
    ("sent", "goes_on"),
    [
        pytest.param(GOOD, GOOD, id="as the standard shows it"),
        pytest.param(GOOD[:-2] + "00", GOOD[:-2] + "00", id="not sampled"),
        pytest.param(GOOD[:-2] + "ff", GOOD[:-2] + "ff", id="flags that are not known yet"),
        pytest.param("cc" + GOOD[2:], GOOD, id="a later version"),
        pytest.param("cc" + GOOD[2:] + "-more", GOOD, id="a later version that says more"),
        pytest.param("cc" + GOOD[2:] + "-", GOOD, id="a later version that ends with a dash"),
        pytest.param("01" + GOOD[2:-2] + "fe", GOOD[:-2] + "00", id="a later version's flags, less those unknown"),
    ],
)  # fmt: skip
def test_a_trace_that_goes_on(sent: str, goes_on: str) -> None:
    assert context({"traceparent": sent}, REQUEST) == {"traceparent": goes_on}
    both = context({"traceparent": sent, "tracestate": "a=1"}, REQUEST)
    assert both == {"traceparent": goes_on, "tracestate": "a=1"}


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param("", id="nothing"),
        pytest.param("ff" + GOOD[2:], id="the version that is none"),
        pytest.param(f"00-{'0' * 32}-{PARENT}-01", id="no trace"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", id="no parent"),
        pytest.param(f"cc-{'0' * 32}-{PARENT}-01", id="no trace, of a later version"),
        pytest.param(GOOD.upper(), id="upper case"),
        pytest.param(GOOD[:-1], id="too short"),
        pytest.param(GOOD + "0", id="too long"),
        pytest.param(GOOD + "-", id="version 00 that ends with a dash"),
        pytest.param(GOOD + "-more", id="version 00 that says more"),
        pytest.param("cc" + GOOD[2:] + ".more", id="a later version that goes on without a dash"),
        pytest.param("cc" + GOOD[2:-1], id="a later version that is too short"),
        pytest.param("cc" + GOOD[2:] + "-\n", id="a later version with a line feed"),
        pytest.param(GOOD + "\n", id="a line feed"),
        pytest.param(" " + GOOD, id="white space"),
        pytest.param(f"{GOOD}, {GOOD}", id="two of them"),
        pytest.param(GOOD.replace("-", "_"), id="other dashes"),
        pytest.param(GOOD.replace("4", "\u0664"), id="digits of another script"),
        pytest.param("00" + GOOD, id="a longer version"),
        pytest.param("0g" + GOOD[2:], id="a version that is no number"),
    ],
)
def test_a_trace_that_is_none_begins_anew(sent: str) -> None:
    assert context({"traceparent": sent, "tracestate": "a=1"}, REQUEST) == NEW


def test_the_standards_numbers() -> None:
    assert (MOST, LONG) == (512, 128)


def test_a_call_without_a_trace_begins_one() -> None:
    assert context({}, REQUEST) == NEW
    assert context({"tracestate": "a=1"}, REQUEST) == NEW
    assert (
        context({}, TRACE[:16] + "0" * 16)["traceparent"] == f"00-{TRACE[:16]}{'0' * 16}-0000000000000001-00"
    )


def of(length: int) -> str:
    """A member of so many characters."""
    return "o=" + "x" * (length - 2)


LONG_ONE = "long=" + "x" * LONG
FITTING = ",".join([of(127), of(127), of(127), of(125)])  # 509 characters
SHORT = [f"m{number}={'x' * 60}" for number in range(12)]


@pytest.mark.parametrize(
    ("sent", "goes_on"),
    [
        pytest.param("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", id="two"),
        pytest.param("a=1 , b=2", "a=1 , b=2", id="white space between"),
        pytest.param(" a=1\t", "a=1", id="white space around"),
        pytest.param("a=" + "x" * (MOST - 2), "a=" + "x" * (MOST - 2), id="as long as may be"),
        pytest.param("a=" + "x" * (MOST - 1), "", id="one member that is too long"),
        pytest.param(",".join(SHORT), ",".join(SHORT[:8]), id="many members: the last ones go"),
        pytest.param(
            ",".join([SHORT[0], LONG_ONE, *SHORT[1:7]]), ",".join(SHORT[:7]), id="long members go before others"
        ),
        pytest.param(
            ",".join([LONG_ONE, *SHORT[:3], LONG_ONE, LONG_ONE, "z=1"]),
            ",".join([LONG_ONE, *SHORT[:3], LONG_ONE, "z=1"]),
            id="and of these the last, and no more than must",
        ),
        pytest.param(f"{FITTING},b=1,c=1", FITTING, id="as many members as must go, to the character"),
        pytest.param(",".join([*SHORT[:7], LONG_ONE]), ",".join(SHORT[:7]), id="a long one at the end"),
        pytest.param(",".join([LONG_ONE, *SHORT[:7]]), ",".join(SHORT[:7]), id="a long one at the beginning"),
        pytest.param(",".join([of(129), *SHORT[:6], "z=1"]), ",".join([*SHORT[:6], "z=1"]), id="just long"),
        pytest.param(",".join([of(128), *SHORT[:6], "z=1"]), ",".join([of(128), *SHORT[:6]]), id="not quite long"),
        pytest.param(
            ",".join([of(129), of(129), *SHORT[:5], of(62)]),
            ",".join([of(129), *SHORT[:5], of(62)]),
            id="one long one, when that is just enough",
        ),
        pytest.param("", "", id="nothing"),
        pytest.param("  ", "", id="white space only"),
        pytest.param("a=1\nx: y", "", id="a line feed"),
        pytest.param("a=\u00fc", "", id="a character that it cannot have"),
        pytest.param("a=1," * 100_000, "", id="endless"),
    ],
)  # fmt: skip
def test_state(sent: str, goes_on: str) -> None:
    expected = {"traceparent": GOOD, "tracestate": goes_on} if goes_on else {"traceparent": GOOD}
    assert context({"traceparent": GOOD, "tracestate": sent}, REQUEST) == expected


_HEX = st.text("0af", min_size=1, max_size=1)


def _id(digits: int) -> st.SearchStrategy[str]:
    return st.builds(lambda first, last: first * (digits - 1) + last, _HEX, _HEX | st.sampled_from("gF-"))


def test_a_trace_that_somebody_records_goes_on_through_the_gates_own_span() -> None:
    trace = read({"traceparent": GOOD, "tracestate": "a=1"}, REQUEST, EVERY)
    assert trace == Trace(TRACE, PARENT, 1, "a=1", True)
    sent = {"traceparent": f"00-{TRACE}-{client_span(REQUEST)}-01", "tracestate": "a=1"}
    assert written(trace, REQUEST) == sent


@pytest.mark.parametrize(
    ("flags", "written_flags"),
    [
        pytest.param("01", "01", id="sampled"),
        pytest.param("03", "03", id="sampled, and the id is random"),
        pytest.param("ff", "03", id="flags that are not known yet are set to zero by whoever is the parent"),
    ],
)
def test_flags_of_a_trace_that_is_recorded(flags: str, written_flags: str) -> None:
    sent = exporting({"traceparent": GOOD[:-2] + flags})
    assert sent == {"traceparent": f"00-{TRACE}-8448eb211c80319c-{written_flags}"}


@pytest.mark.parametrize("flags", ["00", "02", "fe"])
def test_a_trace_that_nobody_records_is_not_recorded_here_either(flags: str) -> None:
    headers = {"traceparent": GOOD[:-2] + flags, "tracestate": "a=1"}
    assert not read(headers, REQUEST, EVERY).recorded
    assert exporting(headers) == context(headers, REQUEST) == headers


def test_a_new_trace_is_the_requests_own() -> None:
    assert read({}, REQUEST, EVERY) == Trace(REQUEST, None, 1, "", True)
    assert exporting({}) == {"traceparent": f"00-{REQUEST}-8448eb211c80319c-01"}
    assert exporting({"traceparent": "rubbish", "tracestate": "a=1"}) == exporting({})
    assert read({}, REQUEST) == Trace(REQUEST, None, 0, "", False)


@pytest.mark.parametrize("ratio", [0.0, 1e-12, 0.1, 0.5, 0.999, 1.0])
def test_of_new_traces_as_many_are_recorded_as_asked_for(ratio: float) -> None:
    least = sampled_from(ratio)
    # Ids whose last 56 bits are spread evenly.
    ids = [f"{'a' * 18}{number * 2**56 // 1000:014x}" for number in range(1000)]
    recorded = [each for each in ids if read({}, each, least).recorded]
    assert abs(len(recorded) - 1000 * ratio) <= 1
    assert recorded == ids[len(ids) - len(recorded) :]
    # And those of the others say so, for whoever comes next.
    assert {written(read({}, each, least), each)["traceparent"][-2:] for each in ids} == {
        *(["01"] if recorded else []),
        *(["00"] if len(recorded) < 1000 else []),
    }


@pytest.mark.parametrize(
    "sent", [{}, {"traceparent": GOOD}, {"traceparent": GOOD[:-1] + "0"}], ids=["new", "sampled", "unsampled"]
)
def test_nothing_is_recorded_while_nothing_is_exported(sent: dict[str, str]) -> None:
    assert not read(sent, REQUEST).recorded


def test_a_caller_decides_whether_its_trace_is_recorded_whatever_the_ratio() -> None:
    assert read({"traceparent": GOOD}, REQUEST, sampled_from(0)).recorded
    assert not read({}, REQUEST, sampled_from(0)).recorded


@pytest.mark.parametrize("request_id", ["0" * 32, "0" * 16 + "1" * 16, "1" * 16 + "0" * 16, REQUEST])
def test_spans_have_ids_that_are_none_of_them_zero_nor_the_same(request_id: str) -> None:
    server, client = server_span(request_id), client_span(request_id)
    assert re.fullmatch(r"(?!0{16})[0-9a-f]{16}", server)
    assert re.fullmatch(r"(?!0{16})[0-9a-f]{16}", client)
    assert server != client


@given(
    st.text(max_size=70)
    | st.builds(
        "{}-{}-{}-{}{}".format,
        st.sampled_from(["00", "01", "cc", "ff", "0", "000", "0G"]),
        _id(32),
        _id(16),
        _id(2),
        st.sampled_from(["", "-", "-x", "x", "\n", ", 00"]),
    ),
    st.text(max_size=20)
    | st.lists(st.builds(str.__mul__, st.text("a=\t ,\n\u00fc", max_size=4), st.integers(0, 60))).map(
        ",".join
    ),
    st.sampled_from([REQUEST, TRACE[:16] + "0" * 16]),
)
@settings(max_examples=examples(1000))
def test_whatever_is_sent_a_trace_goes_out_that_can_be_read(parent: str, state: str, request_id: str) -> None:
    out = context({"traceparent": parent, "tracestate": state}, request_id)
    assert VALID.fullmatch(out["traceparent"])
    kept = out.get("tracestate", "x")
    assert 0 < len(kept) <= MOST
    assert re.fullmatch(r"[\t -~]+", kept)
    assert VALID.fullmatch(exporting({"traceparent": parent, "tracestate": state}, request_id)["traceparent"])
    members = [member.strip() for member in state.split(",")]
    assert kept == "x" or all(member.strip() in members for member in kept.split(","))
