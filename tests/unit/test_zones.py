"""Time zones: what is compiled for the gate is what the IANA's table says, to the second and all through a year."""

import random
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from pathlib import Path

import pytest

from airgate.engine import Zone
from airgate.policy import zones

YEAR = 2026
ZONES = [
    "Africa/Casablanca",  # puts clocks back for Ramadan, at another time each year
    "America/New_York",
    "Asia/Kolkata",  # half an hour off, all year
    "Australia/Lord_Howe",  # half an hour of daylight saving
    "Europe/Berlin",
    "Europe/Dublin",  # whose summer is standard time, and whose winter is minus one hour of saving
    "Pacific/Apia",
    "Pacific/Chatham",
    "UTC",
]


def zone(name: str, year: int = YEAR) -> Zone:
    table = zones.document(name, year)
    return Zone(name, tuple(table["starts"]), tuple(table["offsets"]), table["until"])


def truth(name: str) -> zoneinfo.ZoneInfo:
    """The zone as the package has it, read without this project's code."""
    with resources.files("tzdata.zoneinfo").joinpath(*name.split("/")).open("rb") as file:
        return zoneinfo.ZoneInfo.from_file(file, name)


def wall(name: str, moment: int) -> int:
    """What clocks there show, as seconds since the epoch."""
    shown = datetime.fromtimestamp(moment, truth(name)).replace(tzinfo=UTC)
    return int(shown.timestamp())


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def moments() -> Iterator[int]:
    """Every quarter of an hour of a year, and a minute of each at random."""
    chance = random.Random(YEAR)
    for quarter in range(seconds("2026-01-01T00:00:00Z"), seconds("2027-01-01T00:00:00Z"), 900):
        yield quarter
        yield quarter + 60 * chance.randrange(15)


@pytest.mark.parametrize("name", ZONES)
def test_every_quarter_of_a_year_is_as_the_table_says(name: str) -> None:
    compiled, table = zone(name), truth(name)
    for moment in moments():
        shown = datetime.fromtimestamp(moment, table).replace(tzinfo=UTC)
        assert compiled.local(moment) == int(shown.timestamp()), moment


@pytest.mark.parametrize("name", ZONES)
def test_every_change_is_exact_to_the_second(name: str) -> None:
    compiled = zone(name)
    for number, start in enumerate(compiled.starts[1:], 1):
        before, after = wall(name, start - 1) - (start - 1), wall(name, start) - start
        assert (before, after) == (compiled.offsets[number - 1], compiled.offsets[number])
        assert before != after


# zone, UTC, what clocks show then
CHANGES: list[tuple[str, str, str]] = [
    ("Europe/Berlin", "2026-03-29T00:59:59Z", "2026-03-29T01:59:59Z"),
    ("Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-29T03:00:00Z"),
    ("Europe/Berlin", "2026-10-25T00:59:59Z", "2026-10-25T02:59:59Z"),
    ("Europe/Berlin", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"),
    ("America/New_York", "2026-03-08T07:00:00Z", "2026-03-08T03:00:00Z"),
    ("America/New_York", "2026-11-01T06:00:00Z", "2026-11-01T01:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T14:59:59Z", "2026-04-05T01:59:59Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z", "2026-04-05T01:30:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30:00Z", "2026-10-04T02:30:00Z"),
    ("Africa/Casablanca", "2026-02-15T01:59:59Z", "2026-02-15T02:59:59Z"),
    ("Africa/Casablanca", "2026-02-15T02:00:00Z", "2026-02-15T02:00:00Z"),
    ("Asia/Kolkata", "2026-07-01T00:00:00Z", "2026-07-01T05:30:00Z"),
    ("Pacific/Apia", "2026-07-01T11:00:00Z", "2026-07-02T00:00:00Z"),
    ("UTC", "2026-07-01T11:00:00Z", "2026-07-01T11:00:00Z"),
]


@pytest.mark.parametrize(("name", "moment", "shown"), CHANGES, ids=[f"{row[0]} {row[1]}" for row in CHANGES])
def test_what_clocks_show(name: str, moment: str, shown: str) -> None:
    assert zone(name).local(seconds(moment)) == seconds(shown)


def test_it_is_known_from_a_year_before_until_ten_years_after() -> None:
    compiled = zone("Europe/Berlin")
    begin, end = seconds("2025-01-01T00:00:00Z"), seconds("2036-01-01T00:00:00Z")
    assert (compiled.starts[0], compiled.until) == (begin, end)
    assert compiled.local(begin - 1) is None
    assert compiled.local(begin) == begin + 3600
    assert compiled.local(end - 1) == end + 3599
    assert compiled.local(end) is None


def test_what_is_compiled_depends_on_the_year_only() -> None:
    assert zones.document("Europe/Berlin", YEAR) == zones.document("Europe/Berlin", YEAR)
    assert zones.document("Europe/Berlin", YEAR) != zones.document("Europe/Berlin", YEAR + 1)


def test_the_machines_own_table_is_not_looked_at(tmp_path: Path) -> None:
    other = resources.files("tzdata.zoneinfo").joinpath("Asia", "Tokyo").read_bytes()
    (tmp_path / "Europe").mkdir()
    (tmp_path / "Europe" / "Berlin").write_bytes(other)
    before = zones.document("Europe/Berlin", YEAR)
    zoneinfo.reset_tzpath([str(tmp_path)])
    zones._zone.cache_clear()
    try:
        misled = datetime(YEAR, 1, 1, tzinfo=zoneinfo.ZoneInfo.no_cache("Europe/Berlin"))
        assert misled.utcoffset() == timedelta(hours=9)
        assert zones.document("Europe/Berlin", YEAR) == before
    finally:
        zoneinfo.reset_tzpath()


# zone, day, its first moment
MIDNIGHTS: list[tuple[str, str, str]] = [
    ("UTC", "2026-01-01", "2026-01-01T00:00:00Z"),
    ("Europe/Berlin", "2026-01-01", "2025-12-31T23:00:00Z"),
    ("Europe/Berlin", "2026-07-01", "2026-06-30T22:00:00Z"),
    ("Asia/Kolkata", "2026-07-01", "2026-06-30T18:30:00Z"),
    # Clocks go from 23:59:59 to 01:00: the day has no midnight.
    ("Africa/Cairo", "2026-04-24", "2026-04-23T22:00:00Z"),
    ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00:00Z"),
    # Clocks go back from 24:00 to 23:00: the day begins an hour after they would have shown midnight first.
    ("America/Sao_Paulo", "2018-02-18", "2018-02-18T03:00:00Z"),
    # Clocks go back from 00:01 to 23:01: the day begins twice, and the first time counts.
    ("America/St_Johns", "2010-11-07", "2010-11-07T02:30:00Z"),
    # Samoa went over the date line and left a whole day out.
    ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00:00Z"),
    ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00Z"),
    ("Europe/Berlin", "2400-07-01", "2400-06-30T22:00:00Z"),
]


@pytest.mark.parametrize(("name", "day", "first"), MIDNIGHTS, ids=[f"{row[0]} {row[1]}" for row in MIDNIGHTS])
def test_a_day_begins_with_its_first_moment(name: str, day: str, first: str) -> None:
    assert zones.midnight(name, date.fromisoformat(day)) == seconds(first)


@pytest.mark.parametrize(
    "name", ["Europe/Berlin ", "../../etc/passwd", "zone.tab", "Factory", "", "europe/berlin"]
)
def test_what_is_no_zone_is_not_read(name: str) -> None:
    assert name not in zones.names()
    with pytest.raises(KeyError):
        zones.document(name, YEAR)


def test_every_zone_of_the_table_can_be_compiled() -> None:
    assert len(zones.names()) > 500
    for name in sorted(zones.names())[::10]:
        table = zones.document(name, YEAR)
        assert len(table["starts"]) == len(table["offsets"]) >= 1, name
        assert table["starts"] == sorted(set(table["starts"])), name


def test_countries_are_those_of_iso_3166() -> None:
    assert {"DE", "FR", "US", "XK"} <= zones.countries()
    assert not {"UK", "EU", "ZZ", "de"} & zones.countries()
    assert all(len(code) == 2 and code.isupper() for code in zones.countries())
