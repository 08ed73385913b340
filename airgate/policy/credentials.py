"""What an upstream's credentials mean, checked: that secrets have places to go to, and that they go nowhere else."""

from collections.abc import Iterator
from typing import Any

from airgate.engine import sendable, settable
from airgate.policy.addresses import address, private_address
from airgate.policy.durations import is_duration, seconds
from airgate.policy.seed import Entry, Keys, Problem
from airgate.policy.upstreams import CONTACTS, header_of
from airgate.policy.words import nearest, quoted, several

LONGEST_FORMAT = 256  # characters
LIFETIME = "1m", "24h"

SIGNED = frozenset({"x-amz-date", "x-amz-content-sha256", "x-amz-security-token"})  # what sigv4 sets


def credential_problems(entry: Entry) -> Iterator[Problem]:
    """What is wrong with an upstream's credentials, apart from the structure."""
    credentials = entry.at("credentials")
    credentials = credentials if isinstance(credentials, dict) else {}
    for keys, name in entry.names("credential"):
        if name not in credentials:
            hint = nearest(name, credentials) or f"; known: {several(credentials)}"
            yield entry.problem(keys, f"{quoted(name)}: no such credential{hint}")
    for name, data in credentials.items():
        if isinstance(data, dict):
            yield from _credential_problems(entry, ("credentials", name), data)


def _credential_problems(entry: Entry, keys: Keys, data: dict[str, Any]) -> Iterator[Problem]:
    kind = data.get("kind")
    contact = CONTACTS.get(kind) if isinstance(kind, str) else None
    for place, url in entry.names(*keys, contact) if contact is not None else ():
        if wrong := address(url):
            yield entry.problem(place, wrong)
        elif entry.at("private") is not True and (inside := private_address(url)):
            text = f'{inside}, so a gate could be led inside by it; write "private: true" beside base if that is meant'
            yield entry.problem(place, text)
    yield from _header_problems(entry, keys, data)
    yield from _format_problems(entry, keys, data)
    for place, user in entry.names(*keys, "user") if kind == "basic" else ():
        if ":" in user:
            text = "a user's name has no colon (RFC 7617); leave user out where the secret is user:password"
            yield entry.problem(place, f"{quoted(user)}: {text}")
    if kind == "login":
        yield from _field_problems(entry, keys)
    if kind == "jwt_bearer":
        yield from _issuer_problems(entry, keys)
    for place, lifetime in entry.names(*keys, "lifetime"):
        least, most = LIFETIME
        if is_duration(lifetime) and not seconds(least) <= seconds(lifetime) <= seconds(most):
            yield entry.problem(place, f"{quoted(lifetime)}: must be from {least} to {most}")


def _header_problems(entry: Entry, keys: Keys, data: dict[str, Any]) -> Iterator[Problem]:
    for place, name in entry.names(*keys, "header"):
        if not settable(name.lower()):
            text = f"{quoted(name)}: no secret can go there: it belongs to the connection, or to the gate"
            yield entry.problem(place, text)
    values = entry.at("set_headers")
    takes = {header_of(data)} | (SIGNED if data.get("kind") == "sigv4" else frozenset())
    for name in values if isinstance(values, dict) else ():
        if name.lower() in takes - {"authorization"}:  # of that more is said elsewhere
            text = f"{quoted(name)}: the credential {keys[-1]} sets it; leave it out here"
            yield entry.source.problem((*entry.keys, "set_headers", name), text, at_key=True)


def _format_problems(entry: Entry, keys: Keys, data: dict[str, Any]) -> Iterator[Problem]:
    wanted = "{secret}" if data.get("kind") == "header" else "{token}"
    for place, text in entry.names(*keys, "format"):
        shown = quoted(text)
        if text.count(wanted) != 1 or "{" in text.replace(wanted, "") or "}" in text.replace(wanted, ""):
            yield entry.problem(place, f"{shown}: holds {wanted} once, and nothing else in braces")
        elif not sendable(text) or len(text) > LONGEST_FORMAT:
            advice = f"write at most {LONGEST_FORMAT} printable characters of ASCII"
            yield entry.problem(place, f"{shown}: no header can say this; {advice}")


def _field_problems(entry: Entry, keys: Keys) -> Iterator[Problem]:
    fields = entry.at(*keys, "fields")
    if not isinstance(fields, dict):
        return
    texts = [text for text in fields.values() if isinstance(text, str)]
    if sum(text.count("{secret}") for text in texts) != 1:
        text = 'one of the fields holds "{secret}", once; the secret\'s value is put there'
        yield entry.problem((*keys, "fields"), text)
    for name, text in fields.items():
        rest = text.replace("{secret}", "") if isinstance(text, str) else ""
        if "{" in rest or "}" in rest:
            said = f"{quoted(text)}: nothing but {{secret}} stands in braces"
            yield entry.problem((*keys, "fields", name), said)


def _issuer_problems(entry: Entry, keys: Keys) -> Iterator[Problem]:
    for place, issuer in entry.names(*keys, "issuer"):
        rest = issuer.replace("{fingerprint}", "", 1)
        if "{" in rest or "}" in rest:
            yield entry.problem(
                place, f"{quoted(issuer)}: nothing but {{fingerprint}} stands in braces, and that once"
            )
