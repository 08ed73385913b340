"""Acts of a gate, written and read: revocations, grants, and what takes them back before their time.

They are rows of D1's table `acts`: that is where gates read them, and where they stay on record when they are over.
`state/acts` in KV is a copy of those that aren't over, for gates that begin while rows are missing in D1. No act is
ever changed or deleted, so what only one of the two has can be written to the other.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

import typer

from airgate.configuration import ConfigurationError, read_configuration
from airgate.engine import (
    ACT_LIMIT,
    ACT_TYPE,
    ACTS,
    MAY_GRANT,
    Act,
    Signed,
    act_id,
    load_act,
    read_copy,
    signer,
)
from airgate.environment import (
    FAILED,
    INVALID,
    REFUSED,
    Conflict,
    Environment,
    EnvironmentMissing,
    LocalEnvironment,
    by_hand,
    quote,
)
from airgate.issuer.signature import verify
from airgate.moments import clock
from airgate.node import NodeMissing, WranglerFailed
from airgate.policy.index import canonical
from airgate.policy.ledger import user
from airgate.policy.output import printable, shown
from airgate.signing_key import KeyMissing, SigningKey

REFRESH, WAIT, STALE = 2.0, 10.0, 60.0  # seconds; what a gate takes when no variable says otherwise
MANY, MOST, RESERVE = (
    5_000,
    9_000,
    900,
)  # acts that aren't over; a gate refuses all calls with more than 10,000
SHORTEST_ID = 4  # characters of an id that are enough, where they name one act only
SHOWN_ID = 12


class ActInvalid(Exception):
    """What was asked for can't be an act, or names one that isn't there. Nothing was written; says what to do."""


class NotAllowed(Exception):
    """The gate would not believe it. Nothing was written; the message says what to do."""


class NotKnown(Exception):
    """Whether D1 has the act can't be told. The message says how to find out."""


class CopyFailed(Exception):
    """D1 has the act, and it is in force; KV's copy lacks it. The message says how to go on."""


class RowAltered(Exception):
    """D1 holds something else under an act's id. The message says what to do."""


class Standing(StrEnum):
    """Whether an act counts at the moment."""

    IN_FORCE = "in force"
    TO_COME = "to come"
    TAKEN_BACK = "taken back"
    OVER = "over"
    REFUSED = "refused"  # the gate doesn't believe it


@dataclass(frozen=True)
class Stored:
    """An act as it is stored, and what of it counts."""

    signed: Signed
    act: Act | None  # None when it can't be read
    id: str
    refused: str = ""  # why the gate doesn't believe it
    by_key: str = ""  # the name of the key, where the signature is right
    undone: "Stored | None" = None  # the lift, or the end

    def standing(self, now: float) -> Standing:
        if self.act is None or self.refused:
            return Standing.REFUSED
        if now >= self.act.until:
            return Standing.OVER
        if self.undone is not None and self.undone.act is not None and now < self.undone.act.until:
            return Standing.TAKEN_BACK
        return Standing.IN_FORCE if self.act.begins <= now else Standing.TO_COME

    @property
    def document(self) -> dict[str, Any]:
        members: dict[str, Any] = json.loads(self.signed.document) if self.act is not None else {}
        return members


@dataclass(frozen=True)
class Difference:
    """Between D1 and KV's copy, of the acts that are not over."""

    rows: list[Signed]  # all of D1
    lost: list[Stored]  # what only the copy has
    lacking: int  # how many the copy lacks


def author(env: Environment, key: SigningKey | None, for_whom: str) -> str:
    """Who does it: the key's name as the gate has it, else the user's; and for whom, where somebody said so."""
    known = env.trusted.get(key.kid) if env.trusted is not None and key is not None else None
    name = known.name if known is not None else key.name if key is not None else user()
    return f"{name} for {for_whom}" if for_whom else name


def signing_key(env: Environment, path: Path | None, *, opens: bool) -> SigningKey | None:
    """The key for an act; the local stack has its own. `opens`: it must be signed by one that the gate lets grant.

    Raises KeyMissing and NotAllowed. None: a revocation or an end needs no signature.
    """
    if path is None and isinstance(env, LocalEnvironment):
        path = env.stack.signing_key
    if not opens:
        try:
            return SigningKey.given(path)
        except KeyMissing as error:
            raise KeyMissing(f"{error}\nIt needs no signature: to do it without a key, name none.") from None
    if env.trusted is None:
        raise NotAllowed(
            f"{env.gate} trusts no keys yet, so nobody may open anything there: no grant, no lift of a revocation. "
            "Make a key, and let the gate trust it:\n"
            '  airgate keys new --name "security on call" --may grant\n'
            f"  airgate keys trust signing-key.json --write --env {env.name}, then airgate deploy --env {env.name}"
        )
    key = SigningKey.read(path)
    known = env.trusted.get(key.kid)
    if known is None or MAY_GRANT not in known.may:
        lacks = "doesn't trust" if known is None else "doesn't let grant"
        raise NotAllowed(
            f"{env.gate} {lacks} the key {key.kid} ({key.name}). It does: "
            + (
                ", ".join(f"{one.kid} ({one.name})" for one in env.trusted.values() if MAY_GRANT in one.may)
                or "nobody"
            )
            + ".\nUse one of those, or let it trust yours: "
            f"airgate keys trust FILE --write --env {env.name}, then airgate deploy --env {env.name}"
        )
    return key


def compose(env: Environment, act: str, now: float, members: Mapping[str, Any]) -> str:
    """The document of an act, read by the gate's own code. Raises ActInvalid."""
    text = canonical({"act": act, "gate": env.gate, "at": int(now), **members})
    try:
        load_act(text)
    except UnicodeEncodeError:
        raise ActInvalid("Not all of it is UTF-8. Write it anew. Nothing was written.") from None
    except ValueError as error:
        what = str(error).removeprefix("act.")
        raise ActInvalid(f"The gate would not read this: {what}. Nothing was written.") from None
    return text


def write(env: Environment, document: str, key: SigningKey | None) -> str:
    """Write an act to D1: from then on it is in force. Returns its id.

    Raises NotAllowed when there are too many, NotKnown, and as Environment.d1 does.
    """
    signed = Signed(document, key.kid if key else "", key.sign(ACT_TYPE, document) if key else "")
    act = load_act(document)
    # What takes an act back may go beyond what refuses another one.
    most = MOST + (RESERVE if act.of else 0)
    try:
        try:
            added = _insert(env, signed, most, act.at)
        except WranglerFailed:
            if not _there(env, act):  # what was lost may be the answer only
                raise
            added = True
    except KeyboardInterrupt:
        raise NotKnown(f"Interrupted. {_look_first(env, act)}") from None
    except WranglerFailed as error:
        raise NotKnown(f"{error}\n{_look_first(env, act)}") from None
    if not added:
        raise NotAllowed(
            f"{env.gate} has {most} acts that aren't over, and with more than 10,000 it refuses every call. "
            "Nothing was written.\nShut out a subject or an issuer in place of single tokens, or write a forbid into "
            "policy: airgate policy publish"
        )
    return act.id


def write_copy(env: Environment, now: float) -> str:
    """Write KV's copy of the acts that are not over. Returns a warning when there are many. Raises CopyFailed."""
    try:
        known = _known(env, now)
        env.kv_put({ACTS: _copy(known)})
    except (WranglerFailed, NodeMissing, EnvironmentMissing) as error:
        raise CopyFailed(without_copy(env, str(error))) from None
    if len(known) < MANY:
        return ""
    return (
        f"{env.gate} has {len(known)} acts that aren't over; from {MOST} on no more are taken. "
        "Shut out subjects in place of single tokens, or write a forbid into policy."
    )


def without_copy(env: Environment, why: str) -> str:
    """What to do about an act that D1 has, and KV's copy lacks."""
    return (
        "It is in D1, which is what gates read, and stays in force. The copy in KV, for gates that begin while\n"
        f"rows are missing in D1, could not be written: {why}\n"
        f"Write it when KV can be reached again: airgate revoke list --repair --env {env.name}"
    )


def compare(env: Environment, now: float) -> Difference:
    """What D1 and KV's copy lack of each other. Raises as Environment does."""
    rows, copied = _both(env, now)
    documents = {one.document for one in rows}
    return Difference(
        rows=rows,
        lost=[_stored(env, one) for one in copied if one.document not in documents],
        lacking=len(documents - {one.document for one in copied}),
    )


def repair(env: Environment, difference: Difference, now: float) -> None:
    """Give D1 and KV's copy what each lacks. Raises RowAltered, NotAllowed when there are too many, and as Environment
    does; doing it again goes on.
    """
    lost = [one.signed for one in difference.lost]
    altered = []
    for signed in lost:
        try:
            if not _insert(env, signed, MOST + RESERVE, int(now)):
                raise NotAllowed(
                    f"{env.gate} has {MOST + RESERVE} acts that aren't over: no more are written."
                )
        except RowAltered as error:
            altered.append(str(error))
    if difference.lacking:
        env.kv_put({ACTS: _copy([*difference.rows, *lost])})
    if altered:
        raise RowAltered("\n".join(altered))


def read(env: Environment, now: float, *, over: bool = False) -> list[Stored]:
    """The acts of a gate by rising number, with what takes them back. `over`: those whose time has passed, too.

    Raises WranglerFailed, NodeMissing and EnvironmentMissing.
    """
    stored = [_stored(env, signed) for signed in _rows(env, None if over else now)]
    undone = {(one.act.act, one.act.of): one for one in stored if one.act and one.act.of and not one.refused}
    by = {"revoke": "lift", "grant": "end"}
    return [
        Stored(
            one.signed,
            one.act,
            one.id,
            one.refused,
            one.by_key,
            undone.get((by.get(one.act.act, ""), one.id)) if one.act else None,
        )
        for one in stored
    ]


def named(stored: Sequence[Stored], beginning: str, kind: str, now: float) -> Act:
    """The act of a kind whose id begins so, and which is not over. Raises ActInvalid."""
    noun, command = ("revocation", "revoke") if kind == "revoke" else ("grant", "grant")
    found = [
        (one, one.act) for one in stored if one.act and one.act.act == kind and one.id.startswith(beginning)
    ]
    if len(beginning) < SHORTEST_ID or len(found) > 1:
        raise ActInvalid(
            f"{beginning!r:.80} may be more than one {noun}. Give more of its id: airgate {command} list"
        )
    if not found:
        raise ActInvalid(
            f"There is no {noun} {beginning!r:.80} that isn't over: airgate {command} list --all"
        )
    ((one, act),) = found
    if one.refused:
        raise ActInvalid(f"{one.id[:SHOWN_ID]}: the gate doesn't believe it anyway: {one.refused}")
    if one.undone is not None and one.undone.act is not None and now < one.undone.act.until:
        by = one.undone.act
        what = f"{clock(by.at)} by {printable(by.by)}, {printable(by.reason)}"
        raise ActInvalid(f"{one.id[:SHOWN_ID]} was taken back already: {what}")
    return act


def soon(env: Environment) -> str:
    """When gates go by what was written just now."""
    ages = {"VIEW_REFRESH": REFRESH, "VIEW_WAIT": WAIT, "VIEW_STALE": STALE}
    try:
        variables = read_configuration(env.name).vars
        ages = {name: float(variables.get(name) or usual) for name, usual in ages.items()}
    except (ConfigurationError, ValueError):
        pass
    return (
        f"In force within {ages['VIEW_REFRESH']:g} s where there is traffic, within {ages['VIEW_WAIT']:g} s "
        "everywhere.\nA gate that can't reach D1 doesn't learn of it, and refuses all calls "
        f"after {ages['VIEW_STALE']:g} s."
    )


def fail(error: Exception) -> NoReturn:
    """Say what went wrong, and end with the exit code that it has."""
    typer.echo(shown(str(error)), err=True)
    if isinstance(error, ActInvalid | KeyMissing | ValueError):
        raise typer.Exit(INVALID) from None
    raise typer.Exit(REFUSED if isinstance(error, NotAllowed) else FAILED) from None


def _stored(env: Environment, signed: Signed) -> Stored:
    """An act as the gate judges it (view.py)."""
    name = act_id(signed.document)
    try:
        act = load_act(signed.document)
    except ValueError as error:
        return Stored(signed, None, name, printable(str(error)))
    by_key, refused = "", ""
    try:
        if signed.signature and env.trusted is not None:
            by = asyncio.run(signer(signed, ACT_TYPE, MAY_GRANT, env.trusted, verify))
            by_key = by.name
        elif act.opens:
            refused = "not signed" if env.trusted is not None else "this gate trusts no keys"
    except ValueError as error:
        refused = str(error) if act.opens else ""
    if act.gate != env.gate:
        refused = f"it is for another gate, {act.gate}"
    return Stored(signed, act, name, printable(refused), by_key)


def _insert(env: Environment, signed: Signed, most: int, now: int) -> bool:
    """Write a row, unless it is there: an act is known by its text. False: `most` acts aren't over already.

    Raises RowAltered, and as Environment.d1 does.
    """
    act = load_act(signed.document)
    values = ", ".join(
        [
            quote(act.id),
            quote(act.act),
            str(act.until),
            quote(signed.document),
            quote(signed.key),
            quote(signed.signature),
        ]
    )
    try:
        added = env.d1(
            f"INSERT INTO acts (id, act, until, document, key, signature) SELECT {values} "
            f"WHERE (SELECT count(*) FROM acts WHERE until > {now}) < {most} RETURNING id"
        )
    except Conflict:
        if not _there(env, act):
            raise
        return True
    return bool(added)


def _there(env: Environment, act: Act) -> bool:
    """Whether D1 has an act. Raises RowAltered, and as Environment.d1 does."""
    rows = env.d1(f"SELECT act, until, document FROM acts WHERE id = {quote(act.id)}")
    if not rows:
        return False
    row = rows[0]
    altered = [name for name, value in (("act", act.act), ("until", act.until)) if row[name] != value]
    altered += ["document"] if act_id(str(row["document"])) != act.id else []
    if altered:
        raise RowAltered(
            f"D1's row of {act.id[:SHOWN_ID]} was altered ({', '.join(altered)}), by nobody who used these commands: "
            "find out who writes to D1. To have it put right, take the row away, then run "
            f"airgate revoke list --repair --env {env.name} again:\n  "
            + by_hand(env, f"DELETE FROM acts WHERE id = '{act.id}'")
        )
    return True


def _look_first(env: Environment, act: Act) -> str:
    command = "grant" if act.act in ("grant", "end") else "revoke"
    return (
        f"Whether it is in force isn't known. Look first: airgate {command} list --all --env {env.name}\n"
        f"It would be {act.id[:SHOWN_ID]}. Only if that isn't there, do it again."
    )


def _rows(env: Environment, now: float | None) -> list[Signed]:
    """The rows that are not over, all of them when `now` is None: those that are short enough for a gate to read."""
    where = (
        f"length(CAST(document AS BLOB)) <= {ACT_LIMIT} AND length(key) <= 128 AND length(signature) <= 128"
    )
    where += "" if now is None else f" AND until > {int(now)}"
    rows = env.d1(f"SELECT document, key, signature FROM acts WHERE {where} ORDER BY number")
    return [Signed(str(row["document"]), str(row["key"]), str(row["signature"])) for row in rows]


def _both(env: Environment, now: float) -> tuple[list[Signed], list[Signed]]:
    """What D1 and KV's copy hold that is not over; read side by side, for each takes a second."""
    with ThreadPoolExecutor(2) as pool:
        rows, copied = pool.submit(_rows, env, now), pool.submit(_copied, env, now)
        return rows.result(), copied.result()


def _copied(env: Environment, now: float) -> list[Signed]:
    """What KV's copy holds that is not over, and that this gate would read."""
    return [one for one in read_copy(env.kv_get(ACTS)) if _lasts(env, one, now)]


def _lasts(env: Environment, signed: Signed, now: float) -> bool:
    try:
        act = load_act(signed.document)
    except ValueError:
        return False
    return act.gate == env.gate and now < act.until


def _known(env: Environment, now: float) -> list[Signed]:
    """D1's acts, and those that only KV's copy has: of an act that D1 has lost that is the memory."""
    rows, copied = _both(env, now)
    documents = {one.document for one in rows}
    return [*rows, *[one for one in copied if one.document not in documents]]


def _copy(acts: Iterable[Signed]) -> str:
    return canonical({"acts": [list(one) for one in acts]})


EXPECTED = (
    ActInvalid,
    NotAllowed,
    KeyMissing,
    NotKnown,
    CopyFailed,
    RowAltered,
    EnvironmentMissing,
    Conflict,
    NodeMissing,
    WranglerFailed,
)
