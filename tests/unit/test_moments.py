"""Moments and lengths of time, as commands take and tell them."""

import pytest

from airgate.moments import ahead, clock, length, moment, span

LENGTHS = {"90s": 90, "30m": 1800, "4h": 14_400, "2d": 172_800}
NO_LENGTHS = ["", "4", "h", "0h", "-1h", "1.5h", "4 h", "4H", "1h30m", "٤h", "1000000d"]
MOMENTS = {
    "2026-11-22T08:00+01:00": 1_795_330_800,
    "2026-11-22T07:00:00Z": 1_795_330_800,
    "2026-11-22t07:00z": 1_795_330_800,
    "2026-11-22 07:00Z": 1_795_330_800,
}
NO_MOMENTS = {
    "2026-11-22": "no time of day",
    "2026-11-22T08:00": "no zone",
    "2026-11-31T08:00Z": "no such day",
    "2026-11-22T25:00Z": "no such day or time",
    "tomorrow": "is no moment",
    "1795330800": "is no moment",
    "2026-11-22T08:00+0100": "is no moment",
}
SPANS = {0: "0 s", 59: "59 s", 60: "1 min", 61: "2 min", 3599: "1 h", 3600: "1 h", 3900: "1 h 5 min"}
LONG_SPANS = {14_399: "4 h", 86_400: "1 day", 93_600: "1 day 2 h", 604_800: "7 days", -5: "0 s"}


@pytest.mark.parametrize(("text", "seconds"), LENGTHS.items())
def test_a_length(text: str, seconds: int) -> None:
    assert length(text) == seconds


@pytest.mark.parametrize("text", NO_LENGTHS)
def test_no_length(text: str) -> None:
    with pytest.raises(ValueError, match="90s, 30m, 4h or 2d"):
        length(text)


@pytest.mark.parametrize(("text", "seconds"), MOMENTS.items())
def test_a_moment(text: str, seconds: int) -> None:
    assert moment(text) == seconds


@pytest.mark.parametrize(("text", "said"), NO_MOMENTS.items())
def test_no_moment(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        moment(text)


@pytest.mark.parametrize(("seconds", "said"), (SPANS | LONG_SPANS).items())
def test_a_span(seconds: int, said: str) -> None:
    assert span(seconds) == said


def test_how_far_it_is() -> None:
    assert ahead(1_795_330_800, 1_795_316_400.5) == "2026-11-22 07:00 UTC (in 4 h)"
    assert ahead(1_795_330_800, 1_795_330_920) == "2026-11-22 07:00 UTC (2 min ago)"
    assert clock(2**53) == "9007199254740992 s after 1970"
