"""Conditions on the time: hours of the week, with zones and their changes, and dates."""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from calls import F, T, U, call, check
from hypothesis import given, settings
from hypothesis import strategies as st
from language import DAY, examples
from world import BERLIN

from clock import Dates, Window, Zone
from conditions import Truth


def at(text: str, offset: int = 0) -> float:
    """Seconds since the epoch of a local time, so many hours east of UTC."""
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - timedelta(hours=offset)).timestamp()


DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
CLOSING = ["Europe/Berlin", DAYS, 0, 1440, [-3, -2, -1]]
PAYDAY = ["Etc/UTC", DAYS[:5], 540, 1020, [1, 15]]
NEW_MONTH = ["Etc/UTC", DAYS, 1320, 120, [-1]]  # 22:00 to 02:00, from the last day on
WORK = ["Etc/UTC", DAYS[:5], 360, 1200]  # 06:00 to 20:00
SUNDAY = ["Etc/UTC", ["sun"], 0, 1440]
NIGHT = ["Etc/UTC", ["fri"], 1320, 360]  # 22:00 to 06:00
NINE = ["Europe/Berlin", ["fri"], 540, 600]
ALWAYS = ["Europe/Berlin", DAYS, 0, 1440]


def small(hours: int) -> list[Any]:
    """The hour of a Sunday in Berlin that begins so many hours after midnight."""
    return ["Europe/Berlin", ["sun"], hours * 60, hours * 60 + 60]


TIMES = [
    # zone, days, from, to; the moment; true, false or unknown. 2027-01-15 is a Friday, Berlin one hour east.
    pytest.param(WORK, at("2027-01-15 06:00"), T, id="as it begins"),
    pytest.param(WORK, at("2027-01-15 06:00") - 0.001, F, id="just before"),
    pytest.param(WORK, at("2027-01-15 20:00") - 0.001, T, id="just in time"),
    pytest.param(WORK, at("2027-01-15 20:00"), F, id="as it has ended"),
    pytest.param(WORK, at("2027-01-16 12:00"), F, id="on another day"),
    pytest.param(SUNDAY, at("2027-01-17 00:00"), T, id="a whole day, from its midnight"),
    pytest.param(SUNDAY, at("2027-01-17 23:59:59.999"), T, id="a whole day, to its last second"),
    pytest.param(SUNDAY, at("2027-01-18 00:00"), F, id="a whole day, and the next midnight"),
    pytest.param(SUNDAY, at("2027-01-16 23:59:59.999"), F, id="a whole day, and just before"),
    pytest.param(NIGHT, at("2027-01-15 22:00"), T, id="over midnight: the evening"),
    pytest.param(NIGHT, at("2027-01-16 00:00"), T, id="over midnight: midnight"),
    pytest.param(NIGHT, at("2027-01-16 05:59:59"), T, id="over midnight: the morning"),
    pytest.param(NIGHT, at("2027-01-16 06:00"), F, id="over midnight: as it has ended"),
    pytest.param(NIGHT, at("2027-01-15 05:00"), F, id="over midnight: the morning before"),
    pytest.param(NIGHT, at("2027-01-16 22:00"), F, id="over midnight: the evening after"),
    pytest.param(["Etc/UTC", ["sun"], 1320, 360], at("2027-01-18 05:00"), T, id="over midnight: Sunday to Monday"),
    pytest.param(["Etc/UTC", ["mon"], 1320, 360], at("2027-01-18 05:00"), F, id="over midnight: Monday's own morning"),
    pytest.param(["Etc/UTC", DAYS, 1439, 1440], at("2027-01-15 23:59"), T, id="the last minute"),
    pytest.param(["Etc/UTC", DAYS, 0, 1], at("2027-01-15 00:00:59"), T, id="the first minute"),
    pytest.param(["Etc/UTC", DAYS, 1439, 1], at("2027-01-16 00:00:30"), T, id="two minutes around midnight"),
    pytest.param(NINE, at("2027-01-15 09:00", 1), T, id="in winter"),
    pytest.param(NINE, at("2027-01-15 09:00"), F, id="in winter, by UTC"),
    pytest.param(NINE, at("2027-07-16 09:00", 2), T, id="in summer"),
    pytest.param(NINE, at("2027-07-16 09:00", 1), F, id="in summer, by winter's clock"),
    pytest.param(["Europe/Berlin", ["sat"], 0, 60], at("2027-01-15 23:30"), T, id="Friday in UTC, Saturday there"),
    pytest.param(small(1), at("2027-03-28 01:59:59", 1), T, id="before clocks go forward"),
    pytest.param(small(2), at("2027-03-28 02:00", 1), F, id="the hour left out: never"),
    pytest.param(small(3), at("2027-03-28 03:00", 2), T, id="after clocks went forward"),
    pytest.param(small(2), at("2027-10-31 02:30", 2), T, id="the hour that comes twice: once"),
    pytest.param(small(2), at("2027-10-31 02:30", 1), T, id="the hour that comes twice: again"),
    pytest.param(small(3), at("2027-10-31 03:00", 1), T, id="after clocks went back"),
    pytest.param(ALWAYS, float(BERLIN["starts"][0]), T, id="the zone's first second"),
    pytest.param(ALWAYS, BERLIN["starts"][0] - 0.001, U, id="before the zone's first second"),
    pytest.param(ALWAYS, BERLIN["until"] - 0.001, T, id="the zone's last second"),
    pytest.param(ALWAYS, float(BERLIN["until"]), U, id="after the zone's last second"),
    pytest.param(["Europe/Berlin", ["mon"], 0, 1], 4e9, U, id="a hundred years on"),
    pytest.param(["Etc/UTC", ["thu"], 0, 1], 0.0, T, id="the epoch, a Thursday"),
    pytest.param(CLOSING, at("2027-01-29 00:00", 1), T, id="the third last of 31 days"),
    pytest.param(CLOSING, at("2027-01-28 23:59:59", 1), F, id="the fourth last"),
    pytest.param(CLOSING, at("2027-01-28 23:30"), T, id="the fourth last in UTC, the third last there"),
    pytest.param(CLOSING, at("2027-02-26 12:00", 1), T, id="the third last of 28 days"),
    pytest.param(CLOSING, at("2027-02-25 12:00", 1), F, id="the fourth last of 28 days"),
    pytest.param(CLOSING, at("2028-02-26 12:00", 1), F, id="the fourth last of 29 days"),
    pytest.param(CLOSING, at("2028-02-29 12:00", 1), T, id="a leap day, the last"),
    pytest.param(CLOSING, at("2027-04-30 23:59", 2), T, id="the last of 30 days"),
    pytest.param(CLOSING, at("2027-05-01 00:00", 2), F, id="the first"),
    pytest.param(CLOSING, at("2027-03-28 12:00", 2), F, id="the fourth last, as clocks go forward"),
    pytest.param(CLOSING, BERLIN["starts"][0] - 1.0, U, id="a month that is not known"),
    pytest.param(PAYDAY, at("2027-01-15 09:00"), T, id="a working day that is the 15th"),
    pytest.param(PAYDAY, at("2027-01-15 08:59"), F, id="the 15th, too early"),
    pytest.param(PAYDAY, at("2027-05-15 12:00"), F, id="the 15th, a Saturday"),
    pytest.param(PAYDAY, at("2027-01-14 12:00"), F, id="a working day that is the 14th"),
    pytest.param(NEW_MONTH, at("2027-01-31 22:00"), T, id="a month's last evening"),
    pytest.param(NEW_MONTH, at("2027-02-01 01:59"), T, id="the first hours after it"),
    pytest.param(NEW_MONTH, at("2027-02-01 02:00"), F, id="as that night has ended"),
    pytest.param(NEW_MONTH, at("2027-01-31 01:00"), F, id="the last day's own first hours"),
    pytest.param(NEW_MONTH, at("2027-02-01 22:00"), F, id="the evening after"),
]  # fmt: skip


@pytest.mark.parametrize(("window", "now", "truth"), TIMES)
def test_times(window: list[Any], now: float, truth: Truth) -> None:
    check(["when.time", *window], call(now=now), truth)


@given(
    st.integers(0, 1_893_456_000 - 1),
    st.integers(-DAY, DAY),
    st.frozensets(st.integers(0, 6), min_size=1),
    st.integers(0, 1439),
    st.integers(1, 1440),
    st.frozensets(st.integers(-31, 31).filter(bool), max_size=8),
)
@settings(max_examples=examples(1000))
def test_a_window_is_what_a_calendar_says(
    now: int, offset: int, days: frozenset[int], start: int, end: int, month_days: frozenset[int]
) -> None:
    wall = datetime(1970, 1, 1) + timedelta(seconds=now + offset)  # noqa: DTZ001 - as a clock on the wall shows it
    minute = wall.hour * 60 + wall.minute

    def begins(day: datetime) -> bool:
        last = monthrange(day.year, day.month)[1]
        return day.weekday() in days and (
            not month_days or day.day in month_days or day.day - last - 1 in month_days
        )

    if start < end:
        expected = begins(wall) and start <= minute < end
    else:
        evening, morning = begins(wall), begins(wall - timedelta(days=1))
        expected = (evening and minute >= start) or (morning and minute < end)
    window = Window(Zone("Somewhere", (0,), (offset,), 1_893_456_000), days, start, end, month_days)
    assert window.truth(call(now=float(now)), frozenset()) is expected
    date = f" {wall.day} {wall:%b}" if month_days else ""
    shown = f"{wall.strftime('%a').lower()}{date} {wall:%H:%M} Somewhere"
    assert window.seen(call(now=float(now)), frozenset()) == shown


@pytest.mark.parametrize(
    ("dates", "now", "truth"),
    [
        pytest.param([1000, 2000], 1000.0, T, id="as it begins"),
        pytest.param([1000, 2000], 999.999, F, id="just before"),
        pytest.param([1000, 2000], 1999.999, T, id="the last moment"),
        pytest.param([1000, 2000], 2000.0, F, id="as it has ended"),
        pytest.param([1000, None], 4e9, T, id="no end"),
        pytest.param([1000, None], 999.0, F, id="no end, and before it"),
        pytest.param([None, 2000], 0.0, T, id="no beginning"),
        pytest.param([None, 2000], 2000.0, F, id="no beginning, and after it"),
        pytest.param([None, None], 0.0, T, id="open on both sides"),
        pytest.param([2000, 1000], 1500.0, F, id="ending before it begins: never"),
    ],
)
def test_dates(dates: list[int | None], now: float, truth: Truth) -> None:
    check(["when.dates", *dates], call(now=now), truth)


def test_dates_are_compared_as_they_are() -> None:
    assert Dates(1, None).truth(call(now=1.0), frozenset()) is True
