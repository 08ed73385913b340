"""What an upstream's settings mean, checked: where the gate may call, what it says there, and for how long it waits.

As in `meaning`, what is not of the right type is passed over: that has been said.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

from airgate.engine import passes, settable
from airgate.policy import former, hosts, limits
from airgate.policy.addresses import address, authority, private_address
from airgate.policy.credentials import credential_problems
from airgate.policy.durations import is_duration, seconds
from airgate.policy.seed import Entry, Keys, Problem, Seed
from airgate.policy.upstreams import CONTACTS, binding
from airgate.policy.words import either, nearest, quoted, several

BOUNDS: dict[Keys, tuple[str, str]] = {
    ("timeout",): ("1s", "1h"),
    ("total_timeout",): ("1s", "24h"),
    ("breaker", "open"): ("1s", "10m"),
    ("cors", "max_age"): ("1s", "24h"),
}
TIMEOUT = "30s"  # when nothing is written

_PORTS = {"80", "443"}  # which clients leave out


def upstream_problems(entry: Entry) -> Iterator[Problem]:
    """What is wrong with one upstream, apart from the structure."""
    yield from _base_problems(entry)
    yield from _host_problems(entry)
    yield from _header_problems(entry)
    yield from _cors_problems(entry)
    yield from _time_problems(entry)
    for keys, size in entry.names("max_body"):
        try:
            limits.size(size)
        except ValueError as error:
            yield entry.problem(keys, str(error))
    yield from credential_problems(entry)


def shared_hosts(seed: Seed) -> Iterator[Problem]:
    """Hosts that two upstreams claim: whose policies would decide about a call to one?"""
    first: dict[str, tuple[Entry, Keys]] = {}
    for entry in seed.upstreams.values():
        for keys, host in entry.names("hosts"):
            other, place = first.setdefault(host.lower(), (entry, keys))
            if other is not entry:
                text = f"{quoted(host)}: only one upstream may have it; {other.place} does"
                yield entry.problem(keys, text)
            elif place != keys:
                yield entry.problem(keys, f"{quoted(host)}: stands here twice; letters' case means nothing")


def credential_known(seed: Seed, entry: Entry) -> Iterator[Problem]:
    """A policy's credential has to be there, at every upstream of the policy."""
    for place, name in entry.names("obligations", "credential"):
        for _, upstream in entry.names("target", "upstream"):
            of = seed.upstreams.get(upstream)
            known = {} if of is None else of.data.get("credentials", {})
            if of is None or not isinstance(known, dict) or name in known:
                continue
            has = nearest(name, known) or f"; it has {several(known)}" if known else "; it has none"
            yield entry.problem(
                place, f"{quoted(name)}: the upstream {upstream} ({of.place}) has no such credential{has}"
            )


def _base_problems(entry: Entry) -> Iterator[Problem]:
    via, private = binding(entry.at("via")), entry.at("private") is True
    for keys, base in entry.names("base"):
        if wrong := address(base, clear=via is not None):
            yield entry.problem(keys, wrong)
        elif base.endswith("/"):
            yield entry.problem(keys, f"{quoted(base)}: ends with a slash; write {quoted(base.rstrip('/'))}")
        elif not private and via is None and (inside := private_address(base)):
            yield entry.problem(
                keys,
                f'{inside}, so a gate could be led inside by it; write "private: true" if that is meant, '
                "or via with the binding that leads there"
                + (former.REWRITTEN if former.inside(entry.data) else ""),
            )
    contacts = entry.at("credentials")
    asks = isinstance(contacts, dict) and any(
        isinstance(each, dict) and each.get(member) is not None
        for each in contacts.values()
        for member in CONTACTS.values()
    )
    if private and via is not None and not asks:
        text = "says nothing beside via, which leads there whatever the address is; leave it out"
        yield entry.problem(("private",), text)


def _host_problems(entry: Entry) -> Iterator[Problem]:
    for keys, text in entry.names("hosts"):
        host, colon, port = text.rpartition(":")
        if text.endswith("]") or not colon:
            host, port = text, ""
        if "/" in text or "@" in text:
            yield entry.problem(
                keys, f"{quoted(text)}: is no host; write it as in Host, such as api.example.com"
            )
        elif wrong := hosts.host(host.lower()):
            yield entry.problem(keys, f"{quoted(text)}: {wrong}")
        elif port in _PORTS:
            text = f"{quoted(text)}: clients leave this port out; write {quoted(host)}"
            yield entry.problem(keys, text)
        elif (colon and text != host) and not (
            port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65_536
        ):
            yield entry.problem(keys, f"{quoted(text)}: {quoted(port)} is no port")


def _header_problems(entry: Entry) -> Iterator[Problem]:
    for keys, name in entry.names("request_headers"):
        if not passes(name.lower().removesuffix("*")):
            shown = quoted(name)
            yield entry.problem(
                keys, f"{shown}: never passes: it is the gate's, or a proxy's, to say; {_OUT}"
            )
    values = entry.at("set_headers")
    seen: set[str] = set()
    for name in values if isinstance(values, dict) else ():
        place = (*entry.keys, "set_headers", name)
        if name.lower() == "authorization":
            text = f"{quoted(name)}: is a secret's place; write it under credentials"
        elif not settable(name.lower()):
            text = f"{quoted(name)}: is not for settings to say: it belongs to the connection, or to the gate; {_OUT}"
        elif name.lower() in seen:
            text = f"{quoted(name)}: stands here twice; letters' case means nothing"
        else:
            seen.add(name.lower())
            continue
        yield entry.source.problem(place, text, at_key=True)


_OUT = "leave it out"


def _cors_problems(entry: Entry) -> Iterator[Problem]:
    for keys, origin in entry.names("cors", "origins"):
        if wrong := _origin(origin):
            yield entry.problem(keys, f"{quoted(origin)}: {wrong}")
    for member in ("headers", "expose"):
        for keys, name in entry.names("cors", member):
            if "*" in name:
                yield entry.problem(keys, f"{quoted(name)}: no wildcards; write each header's name")


def _origin(origin: str) -> str:
    """What keeps a browser from ever sending this origin, or a gate from taking it; empty when nothing does."""
    if origin in ("*", "null") or "*" in origin:
        return "would let pages in that nobody has named; write each origin, such as https://app.example.com"
    if wrong := address(origin):
        return wrong.partition(": ")[2] or wrong
    if origin != f"{urlsplit(origin).scheme}://{authority(origin)}":
        return f"has a path; write {quoted(f'{urlsplit(origin).scheme}://{authority(origin)}')}"
    if (urlsplit(origin).scheme, urlsplit(origin).port) in (("https", 443), ("http", 80)):
        return f"browsers leave this port out; write {quoted(origin.rpartition(':')[0])}"
    return ""


def _time_problems(entry: Entry) -> Iterator[Problem]:
    for place, (least, most) in BOUNDS.items():
        yield from within(entry, place, least, most)
    timeout, total = entry.at("timeout") or TIMEOUT, entry.at("total_timeout")
    if is_duration(timeout) and is_duration(total) and seconds(total) < seconds(timeout):
        text = (
            f"{quoted(total)}: is over before timeout, {quoted(timeout)}; write {either([timeout, 'more'])}"
        )
        yield entry.problem(("total_timeout",), text)


def within(entry: Entry, place: Keys, least: str, most: str) -> Iterator[Problem]:
    """That a duration is too short, or too long."""
    for keys, value in entry.names(*place):
        if is_duration(value) and not seconds(least) <= seconds(value) <= seconds(most):
            yield entry.problem(keys, f"{quoted(value)}: must be from {least} to {most}")
