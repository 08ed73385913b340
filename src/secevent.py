"""Security events: an issuer tells that a session of its own has ended (`POST /-/events`).

A security event token (RFC 8417), pushed as RFC 8935 has it, with the one event `session-revoked` of CAEP about a
session that is named by its id (RFC 9493). It proves itself: a key has signed it of an issuer whose tokens are accepted
here, and it ends nobody's sessions but that issuer's. Whoever sends it need not be known, so what is cheap is looked
at before keys are. It is answered once D1 has it; told again, it changes nothing. D1's answer and the decision line go
together: a sender that hangs up must not leave the one without the other.
"""

import json
import math
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import admission
import audit
import tokens
from bundle import Issuer
from model import ANSWERS, Denied, Inbound, Reason, Refusal
from sessions import AGAIN, ENDED, LONGEST, SUPERSEDED, Sessions
from sessions import Ended as Row
from state import State
from tokens import Unverified

TYPE = "application/secevent+jwt"
REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
LIMIT = tokens.MAX_TOKEN  # characters of a body
PAST = 600.0  # seconds for which an event may be under way, its sender's tries again included
LONGEST_ISSUER = 512  # bytes; what the view reads (ledger.py)
TIMEOUT = 2.0  # seconds for D1 to take it
KEPT = 3600  # seconds that D1 keeps a row which is over: a clock that was ahead has cleared up nothing then

# RFC 8935 §2.4: what a sender is told. Every other refusal is a status that says when to try again.
_ERRORS = {
    Reason.REQUEST_BODY_INVALID: "invalid_request",
    Reason.REQUEST_BODY_TOO_LARGE: "invalid_request",
    Reason.TOKEN_MALFORMED: "invalid_request",
    Reason.TOKEN_TYPE: "invalid_request",
    Reason.TOKEN_CLAIMS: "invalid_request",
    Reason.TOKEN_EXPIRED: "invalid_request",
    Reason.TOKEN_NOT_YET_VALID: "invalid_request",
    Reason.TOKEN_ALGORITHM: "invalid_key",
    Reason.TOKEN_KEY: "invalid_key",
    Reason.TOKEN_ISSUER: "invalid_issuer",
    Reason.TOKEN_AUDIENCE: "invalid_audience",
    Reason.TOKEN_SIGNATURE: "authentication_failed",
}

# A number is given anew where the row is, so that everybody reads it. Told twice within a short time it stays as it is.
_INSERT = """
INSERT OR REPLACE INTO sessions (issuer, session, result, until)
SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS (SELECT 1 FROM sessions WHERE issuer = ?1 AND session = ?2 AND until > ?5)
RETURNING 'new' AS value
"""
_FORGET = "DELETE FROM sessions WHERE until < ?1"


class Ended(NamedTuple):
    """A session's end, as its issuer tells it."""

    session: str
    result: str  # ended | superseded
    id: str  # of the event, its `jti`


class Database(Protocol):
    """Where all isolates look: D1."""

    async def database(self, sql: str, values: tuple[int | str, ...], timeout: float) -> str | None:
        """The text `value` of the first row that is returned, None without a row. Raises OSError."""


class Ports(admission.Ports, Protocol):
    """What an event needs of the outside world."""

    async def body(self, limit: int) -> bytes:
        """The request's body. Raises Denied."""


def read(inbound: Inbound, body: bytes) -> tuple[Unverified, Ended]:
    """The token in a request's body, and what it tells. Nothing of it is believed yet. Raises Denied."""
    media = inbound.headers.get("content-type", "").partition(";")[0].strip(" \t").lower()
    if media != TYPE:
        raise Denied(Reason.REQUEST_BODY_INVALID, f"of type {media!r:.80}", f"send it as {TYPE}")
    try:
        token = tokens.parse(body.decode("ascii").strip(" \t\r\n"))
    except UnicodeDecodeError:
        raise Denied(Reason.TOKEN_MALFORMED, "not ASCII") from None
    # RFC 8417 §2.3: or a token that was made for something else would end sessions.
    if token.type not in ("secevent+jwt", TYPE):
        raise Denied(Reason.TOKEN_TYPE, f"typ {token.type!r:.40} is not secevent+jwt")
    return token, _ended(token.claims)


def _ended(claims: dict[str, Any]) -> Ended:
    if not {"sub", "exp"}.isdisjoint(claims):
        # OpenID Shared Signals Framework §4.1: nobody who takes it for another kind of token shall find a subject.
        raise _wrong("it has sub or exp")
    id_, events, named = claims.get("jti"), claims.get("events"), claims.get("sub_id")
    if not isinstance(id_, str) or not 0 < len(id_) <= LONGEST:
        raise _wrong("jti is missing or not a short string")
    if not isinstance(events, dict) or list(events) != [REVOKED] or not isinstance(events[REVOKED], dict):
        raise _wrong("not the one event session-revoked")
    # RFC 9493 §3.2: a complex subject with more members is less than the session alone.
    if not isinstance(named, dict) or named.keys() != {"format", "session"} or named["format"] != "complex":
        raise _wrong("sub_id is not a session alone")
    session = named["session"]
    if not isinstance(session, dict) or session.keys() != {"format", "id"} or session["format"] != "opaque":
        raise _wrong("sub_id.session is not an opaque id")
    name = session["id"]
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST or not name.isprintable():
        raise _wrong(f"the session's id is not 1 to {LONGEST} printable characters")
    reasons = events[REVOKED].get("reason_admin")
    reason = reasons.get("en") if isinstance(reasons, dict) else None
    return Ended(name, SUPERSEDED if reason == SUPERSEDED else ENDED, id_)


def _wrong(what: str) -> Denied:
    return Denied(Reason.TOKEN_CLAIMS, what)


def validate(token: Unverified, issuer: Issuer, now: float) -> None:
    """Whether it is for this gate, and of these minutes. Raises Denied."""
    rules = issuer.rules
    audience = token.claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if not any([item in rules.audiences for item in audiences if isinstance(item, str)]):
        raise Denied(Reason.TOKEN_AUDIENCE, "meant for somebody else")
    if len(token.issuer.encode("utf-8")) > LONGEST_ISSUER:
        raise _wrong(f"iss is longer than {LONGEST_ISSUER} bytes")
    made = token.claims.get("iat")
    if isinstance(made, bool) or not isinstance(made, int | float) or not 0 <= made < tokens.MAX_TIME:
        raise _wrong("iat is missing or not a NumericDate")
    if made > now + rules.clock_skew:
        raise Denied(Reason.TOKEN_NOT_YET_VALID, f"made in {made - now:.0f} s")
    if made < now - PAST - rules.clock_skew:
        raise Denied(Reason.TOKEN_EXPIRED, f"made {now - made:.0f} s ago")


async def note(
    ended: Ended, iss: str, issuer: Issuer, sessions: Sessions, now: float, database: Database
) -> None:
    """See that no isolate accepts a token of the session any more, this one from now on.

    Raises Denied `state.unavailable` when D1 does not take it, and `limit.rate` while the issuer has ended more
    sessions than are remembered: all of its sessions are refused meanwhile.
    """
    # The longest that a token can be accepted which its issuer has signed by now, and time for those on the way. The
    # issuer's clock may be ahead by the skew, and the token is good for as much again when it has expired.
    until = math.ceil(now) + issuer.rules.max_lifetime + 2 * issuer.rules.clock_skew + AGAIN
    if sessions.knows(iss, ended.session, until):
        return
    if sessions.full(iss, now):
        raise Denied(Reason.LIMIT_RATE, "more sessions of this issuer have ended than are remembered")
    values = (iss, ended.session, ended.result, until, until - AGAIN)
    try:
        await database.database(_INSERT, values, TIMEOUT)
    except OSError as error:
        raise Denied(Reason.STATE_UNAVAILABLE, f"{error}"[:200]) from None
    sessions.add([Row(0, iss, ended.session, ended.result, until)], now)


async def receive(record: audit.Record, state: State, ports: Ports) -> Refusal:
    """Take an event in. Raises Denied."""
    token, ended = read(record.inbound, await ports.body(LIMIT))
    bundle, now = await state.current(ports), ports.now()
    record.bundle, record.sequence = bundle.version, state.sequence
    issuer = bundle.issuers.get(token.issuer)
    if issuer is None:
        raise Denied(Reason.TOKEN_ISSUER, f"{token.issuer!r:.200}")
    validate(token, issuer, now)
    await admission.signed_by(token, issuer, state, ports, now)
    record.described = audit.ended(issuer.mapping.id, ended.session, ended.result, ended.id)
    if state.view.sessions.due(now):
        ports.defer(forget(now, ports))
    failed: list[Denied] = []

    async def take() -> bool:
        try:
            await note(ended, token.issuer, issuer, state.view.sessions, ports.now(), ports)
        except Denied as refused:
            failed.append(refused)
        except Exception as error:
            failed.append(Denied(Reason.INTERNAL, audit.where(error)))
        ports.log(record.decided(failed[0] if failed else None, ports.now()))
        record.logged = True
        return True

    await ports.last(take())
    if failed:
        raise failed[0]
    return Refusal(202, {"cache-control": "no-store", **record.headers()}, "")


async def forget(now: float, database: Database) -> None:
    """Take away what D1 need not remember any more. Never raises: the next one will."""
    with suppress(OSError):
        await database.database(_FORGET, (int(now) - KEPT,), TIMEOUT)


def refused(denied: Denied, page: Refusal) -> Refusal:
    """A refusal as RFC 8935 §2.3 has it, where the event itself is refused and not only its time."""
    error = _ERRORS.get(denied.reason)
    if error is None:
        return page
    headers = {name: value for name, value in page.headers.items() if name != "www-authenticate"}
    headers |= {"content-type": "application/json", "content-language": "en"}
    told = {"err": error, "description": denied.hint or ANSWERS[denied.reason].title}
    return Refusal(400, headers, json.dumps(told) + "\n")
