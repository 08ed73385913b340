"""The ledger: which bundle is in force, as a row of documents in D1 under rising numbers. The highest number counts.

A number is a primary key, so of two publishers one wins. What an isolate reads of D1 is one text, from one statement:
the newest rows of the ledger, and the acts (access.py) and ended sessions (sessions.py) that are new to it. All of it
is input like any other.

KV holds a copy of the head and of the acts. D1 tells what is new; the copy is there for an isolate that has just begun,
should rows be missing in D1: of two heads that are rightly signed the higher counts, and acts of both count.
"""

from typing import Any, NamedTuple

from bundle import Pointer, load_digest
from document import Reader, read_object
from sessions import Ended
from trust import Signed

FORMAT = 4
LIMIT = 4096  # characters of a pointer
HEAD = "policy/head"  # in KV, and the next too
ACTS = "state/acts"
HEAD_LIMIT = 32_768  # characters of the copy of the head: each of its own may be written as six
ACTS_LIMIT = 20_000_000  # characters of the copy of the acts; a KV value holds 25 MiB
VIEW_LIMIT = 2_000_000  # characters of what D1 tells at once; it has no longer texts
PAGE = 400  # acts that D1 tells at once
FEW, MANY = 64, 1000  # ended sessions that it tells beside all else, and by themselves
NO_SESSIONS = "no such table: sessions"  # how D1 says so

# ?1: the number of the last act that is known; ?2: now. `value` is the one text. `at` is the id of that last act:
# another one, or none, when rows were lost and others took their numbers. {SESSIONS}: as in MORE.
_VIEW = f"""
SELECT json_object(
  'heads', json((SELECT json_group_array(json_array(sequence, document, key, signature)) FROM (
    SELECT sequence, document, key, signature FROM pointers
    WHERE length(CAST(document AS BLOB)) <= 16384 AND length(key) <= 128 AND length(signature) <= 128
    ORDER BY sequence DESC LIMIT 3))),
  'acts', json((SELECT json_group_array(json_array(number, document, key, signature)) FROM (
    SELECT number, document, key, signature FROM acts
    WHERE number > ?1 AND until > ?2 AND length(CAST(document AS BLOB)) <= 2048 AND length(key) <= 128
      AND length(signature) <= 128 ORDER BY number LIMIT {PAGE}))),
  'at', (SELECT id FROM acts WHERE number = ?1),
  'last', json((SELECT json_array(number, id) FROM acts ORDER BY number DESC LIMIT 1)),
  'sessions', {{SESSIONS}}
) AS value
"""


def _sessions(most: int) -> str:
    """The ended sessions above number ?3 as JSON. Of the row with that number, `at` is the session."""
    return f"""json_object(
    'rows', json((SELECT json_group_array(json_array(number, issuer, session, result, until)) FROM (
      SELECT number, issuer, session, result, until FROM sessions
      WHERE number > ?3 AND until > ?2 AND length(CAST(session AS BLOB)) <= 1024
        AND length(CAST(issuer AS BLOB)) <= 512 ORDER BY number LIMIT {most}))),
    'at', (SELECT session FROM sessions WHERE number = ?3),
    'last', json((SELECT json_array(number, session, until) FROM sessions ORDER BY number DESC LIMIT 1)))"""


VIEW = _VIEW.format(SESSIONS=_sessions(FEW))
WITHOUT_SESSIONS = _VIEW.format(SESSIONS="NULL")  # of a database that lacks the table; ?3 is no part of it
MORE = f"SELECT {_sessions(MANY)} AS value"  # sessions alone; ?1 is no part of it


class Sessions(NamedTuple):
    """What D1 holds of ended sessions, as far as it is new."""

    rows: list[Ended]  # by rising number; as many as were asked for: there may be more
    at: str | None  # the session of the row whose number was asked for
    last: tuple[int, str, int]  # number, session and end of the newest row; (0, "", 0) when there is none


class View(NamedTuple):
    """What D1 holds, as far as it is new."""

    heads: list[tuple[int, Signed]]  # the newest rows of the ledger, the highest number first
    acts: list[tuple[int, Signed]]  # by rising number; PAGE of them: there may be more
    at: str | None  # id of the act whose number was asked for
    last: tuple[int, str]  # number and id of the newest act; (0, "") when there is none
    sessions: Sessions | None  # None: D1 lacks the table


def load_pointer(text: str) -> Pointer:
    """Read a pointer's JSON (docs/d1-schema.md). Raises ValueError."""
    reader = Reader(read_object(text, limit=LIMIT, depth=2), "pointer")
    reader.whole("format", FORMAT, FORMAT)
    pointer = Pointer(
        reader.whole("sequence", 1, 2**53),
        load_digest(reader, "bundle"),
        reader.number("published_at", 0, 2**53),
        reader.text("gate"),
        reader.text("published_by"),
    )
    for name in ("note", "commit"):
        reader.text(name)
    for name in ("policies", "added", "changed", "removed"):
        reader.whole(name, 0, 2**31)
    of = None if reader.null("of") else reader.whole("of", 1, 2**53)
    reader.done()
    return pointer._replace(of=of)


def _numbered(row: Any, where: str) -> tuple[int, Signed]:
    if not isinstance(row, list) or not row or type(row[0]) is not int:
        raise ValueError(f"{where}: a row without its number")
    return row[0], _signed(row[1:])


def _signed(value: Any) -> Signed:
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(part, str) for part in value):
        raise ValueError("view: a document is three texts: itself, its key, its signature")
    return Signed(*value)


def read_view(text: str | None) -> View:
    """What D1 has told. Raises ValueError."""
    reader = Reader(read_object(text or "", limit=VIEW_LIMIT, depth=5), "view")
    heads = [_numbered(row, "view.heads") for row in reader.array("heads")]
    acts = [_numbered(row, "view.acts") for row in reader.array("acts")]
    at = None if reader.null("at") else reader.text("at")
    last: list[Any] = [0, ""] if reader.null("last") else reader.array("last")
    if list(map(type, last)) != [int, str]:
        raise ValueError("view.last: expected a number and an id")
    sessions = None if reader.null("sessions") else _read_sessions(reader.within("sessions"))
    reader.done()
    return View(heads, acts, at, (last[0], last[1]), sessions)


def read_more(text: str | None) -> Sessions:
    """What D1 has told of ended sessions alone. Raises ValueError."""
    return _read_sessions(Reader(read_object(text or "", limit=VIEW_LIMIT, depth=4), "view.sessions"))


def _read_sessions(reader: Reader) -> Sessions:
    rows = [_ended(row) for row in reader.array("rows")]
    at = None if reader.null("at") else reader.text("at")
    last: list[Any] = [0, "", 0] if reader.null("last") else reader.array("last")
    if list(map(type, last)) != [int, str, int]:
        raise reader.wrong("last", "a number, a session and its end")
    reader.done()
    return Sessions(rows, at, (last[0], last[1], last[2]))


def _ended(row: Any) -> Ended:
    if not isinstance(row, list) or list(map(type, row)) != [int, str, str, str, int]:
        raise ValueError("view.sessions.rows: expected number, issuer, session, result and until")
    return Ended(*row)


def read_head(text: str | None) -> Signed | None:
    """The copy of the head in KV; None when there is none, or none that can be read."""
    try:
        reader = Reader(read_object(text or "", limit=HEAD_LIMIT, depth=2), "head")
        signed = Signed(reader.text("document"), reader.text("key"), reader.text("signature"))
        reader.done()
    except ValueError:
        return None
    return signed


def read_acts(text: str | None) -> list[Signed]:
    """The copy of the acts in KV, as far as it can be read."""
    try:
        reader = Reader(read_object(text or "", limit=ACTS_LIMIT, depth=4), "acts")
        signed = [_signed(row) for row in reader.array("acts")]
        reader.done()
    except ValueError:
        return []
    return signed
