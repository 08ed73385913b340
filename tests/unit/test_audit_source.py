"""Logs as they come: every wrapping, and whatever else is in a file, is read, or counted and said."""

import gzip
import io
import json
import os
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from audit_logs import CARRIERS, Signer, crlf, isolate, pushed, raw, tailed, together
from hypothesis import given
from hypothesis import strategies as st

from airgate.audit import source
from airgate.audit.source import SourceError, Tally, boundary, events, pieces
from chain import Chain

SIGNER = Signer()
LINES = together([isolate(SIGNER, 1), isolate(SIGNER, 2)])
READ = [json.loads(line) for line in LINES]
OLD = '{"event":"decision","schema":1,"time":"2026-11-20T00:00:00.000Z","request_id":"1","decision":"permit"}'


def read(folder: Path, *logs: bytes) -> tuple[list[dict[str, Any]], Tally]:
    paths = []
    for number, log in enumerate(logs):
        paths.append(folder / f"{number}.any")
        paths[-1].write_bytes(log)
    tally = Tally()
    return list(events(paths, tally)), tally


@pytest.mark.parametrize("carrier", CARRIERS)
def test_every_wrapping_holds_the_same_events(tmp_path: Path, carrier: str) -> None:
    found, tally = read(tmp_path, CARRIERS[carrier](LINES))
    assert found == READ
    assert (tally.events, tally.broken, tally.doubled) == (len(LINES), 0, 0)


def test_wrappings_may_change_within_one_file(tmp_path: Path) -> None:
    found, _ = read(tmp_path, raw(LINES[:5]) + tailed(LINES[5:9]) + b"noise\n" + crlf(LINES[9:]))
    assert found == READ


def test_a_folder_is_all_files_below_it(tmp_path: Path) -> None:
    (tmp_path / "2026" / "11").mkdir(parents=True)
    (tmp_path / "2026" / "a").write_bytes(raw(LINES[10:]))
    (tmp_path / "2026" / "11" / "b.gz").write_bytes(gzip.compress(raw(LINES[:10])))
    (tmp_path / "2026" / ".hidden").write_bytes(raw(LINES))
    tally = Tally()
    assert list(events([tmp_path], tally)) == READ
    assert tally.files == 2


@pytest.mark.parametrize("carrier", ["raw", "gzip"])
def test_standard_input_is_read_whatever_it_is(monkeypatch: pytest.MonkeyPatch, carrier: str) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(CARRIERS[carrier](LINES))))
    assert list(events([Path("-")], Tally())) == READ


def test_a_pipe_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as writer:
        writer.submit((tmp_path / "pipe").write_bytes, raw(LINES))
        assert list(events([tmp_path / "pipe"], Tally())) == READ


COUNTED = {
    "a line of something else": (b"GET /index.html\n", "1 line of something else"),
    "JSON of something else": (b'{"level":"info","event":"started"}\n', "1 line of something else"),
    "an object of something else over many lines": (b'{\n  "a": 1\n}\n', "1 line of something else"),
    "an event that was cut off": (LINES[3].encode()[:-90] + b"\n", "1 broken or half-written event"),
    "the beginning of an event": (b'{"eve', "1 broken or half-written event"),
    "an event without a time": (b'{"event":"decision","schema":2}\n', "1 broken or half-written event"),
    "a tail that was ended halfway": (tailed(LINES[:3])[:-300] + b"\n", "lines of something else"),
    "bytes that are no text": (b"\xff\xfe\x00\n", "1 line of something else"),
    "a line too long for any log": (b"x" * (source.LONGEST + 9) + b"\n", "1 line of something else"),
    "an event of an older gate": (OLD.encode() + b"\n", "1 event of an older gate"),
    "nesting without end": (b'{"logs":' + b"[" * 200_000 + b"\n", "1 line of something else"),
    "an event nested without end": (
        b'{"event":"x","a":"\\ud800","b":' + b"[" * 50_000 + b"]" * 50_000 + b"}\n",
        "1 broken or half-written event",
    ),
    "a number without end": (b'{"event":"x","n":' + b"9" * 100_000 + b"}\n", "1 broken"),
    "an event twice": (LINES[0].encode() + b"\n", "1 event had been there before"),
}


@pytest.mark.parametrize("what", COUNTED)
def test_what_is_no_event_is_counted_and_the_events_behind_it_are_read(tmp_path: Path, what: str) -> None:
    log, said = COUNTED[what]
    first, rest = (raw(LINES[:1]), raw(LINES[1:]))
    found, tally = read(tmp_path, first, log, rest)
    assert [event for event in found if event["schema"] == 2] == READ
    assert any(said in sentence for sentence in tally.sentences()), tally.sentences()


def test_what_logpush_has_cut_is_told_apart(tmp_path: Path) -> None:
    cut = LINES[4][:60] + "<<<Logpush: message truncated>>>"
    _, tally = read(tmp_path, pushed([*LINES[:4], cut]))
    assert (tally.events, tally.broken, tally.cut) == (4, 1, 1)
    assert any("cut by Logpush" in sentence for sentence in tally.sentences())


def test_the_marker_of_logpush_inside_an_event_is_a_text_like_others(tmp_path: Path) -> None:
    event = Chain("ab" * 16).link('{"event":"x","schema":2,"time":"","detail":"<<<Logpush: truncated>>>"}')
    found, tally = read(tmp_path, raw([event]))
    assert (len(found), tally.broken) == (1, 0)


def test_two_events_on_one_line_are_two(tmp_path: Path) -> None:
    found, _ = read(tmp_path, ("".join(LINES[:3]) + "\n" + LINES[3] + " and " + LINES[4] + " end\n").encode())
    assert found == READ[:5]


def test_an_event_behind_one_that_was_cut_off_is_read(tmp_path: Path) -> None:
    found, tally = read(tmp_path, (LINES[0][:70] + LINES[1] + "\n").encode())
    assert (found, tally.broken) == (READ[1:2], 1)


def test_half_of_a_character_pair_is_read(tmp_path: Path) -> None:
    line = Chain("ab" * 16).link('{"event":"x","schema":2,"time":"","detail":"\\ud800"}')
    found, _ = read(tmp_path, raw([line]), tailed([line.replace('"position":0', '"position":1')]))
    assert [event["detail"] for event in found] == ["\ud800", "\ud800"]


@pytest.mark.parametrize("missing", [1, 12, 40])
def test_a_gzip_file_that_ends_too_early_is_read_as_far_as_it_goes(tmp_path: Path, missing: int) -> None:
    _, tally = read(tmp_path, gzip.compress(raw(LINES))[:-missing])
    assert tally.events > 0
    assert "ends in the middle" in tally.damaged[0]


def test_what_follows_a_gzip_file_is_said_to_be_damage(tmp_path: Path) -> None:
    found, tally = read(tmp_path, gzip.compress(raw(LINES)) + b"not packed")
    assert found == READ
    assert "is no gzip from some byte on" in tally.damaged[0]


def test_a_gzip_file_may_be_filled_up_with_zeros(tmp_path: Path) -> None:
    found, tally = read(tmp_path, gzip.compress(raw(LINES)) + b"\0" * 512)
    assert (found, tally.damaged) == (READ, [])


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    bomb = gzip.compress(b"\0" * (256 << 20), 1)
    tracemalloc.start()
    try:
        found, tally = read(tmp_path, bomb, raw(LINES))
        assert tracemalloc.get_traced_memory()[1] < 6 * source.LONGEST
    finally:
        tracemalloc.stop()
    assert (found, tally.foreign) == (READ, 1)


def test_an_objects_beginning_is_not_looked_for_without_end() -> None:
    inside = b" \n" * (source.MOST_LINES - 10)
    assert boundary(b"a\n{\n" + inside) == 2
    assert boundary(b"a\n{\n" + inside + b" \n" * 20) == 0
    blank = b" \n" * (6 << 20)
    found = list(pieces(iter([blank[at : at + (1 << 20)] for at in range(0, len(blank), 1 << 20)])))
    assert sum(len(piece) for piece in found) == len(blank)
    assert max(len(piece) for piece in found) <= source.LONGEST + (1 << 20)


def test_a_file_that_isnt_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        list(events([tmp_path / "none"], Tally()))


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no file"):
        list(events([tmp_path], Tally()))


@given(st.permutations(range(len(LINES))), st.integers(0, 3))
def test_each_place_in_a_chain_counts_once_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], doubles: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    lines = [LINES[at] for at in order]
    found, tally = read(folder, raw([*lines, *lines[:doubles]]))
    assert [event["hash"] for event in found] == [READ[at]["hash"] for at in order]
    assert tally.doubled == doubles


@given(
    st.lists(st.sampled_from([b"{\n", b" x\n", b"}\n", b"a\n", b"\n", b"longer line\n"])), st.integers(1, 40)
)
def test_pieces_are_the_same_bytes_cut_where_no_object_is_torn(lines: list[bytes], size: int) -> None:
    log = b"".join(lines)
    found = list(pieces(iter([log[at : at + 7] for at in range(0, len(log), 7)]), size))
    assert b"".join(found) == log
    for piece in found[1:]:
        assert piece[:1] not in (b" ", b"}")
    assert all(boundary(piece) <= len(piece) for piece in found)
