"""What a seed means, checked: that names exist, that addresses are ones the gate may call, that conditions can hold.

Structure has been checked before, and what is wrong with it has been said. So a value that is not of the right type is
passed over here.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from airgate.engine import NAMED, OWN, QUANTIFIERS, ROUTE
from airgate.policy import former, limits, when
from airgate.policy.addresses import address, identifier, path_pattern, placeholders
from airgate.policy.former import REWRITTEN
from airgate.policy.rules import NEVER_ASSERTED
from airgate.policy.seed import Entry, Keys, Problem, Seed
from airgate.policy.settings import credential_known, shared_hosts, upstream_problems, within
from airgate.policy.words import either, listed, nearest, quoted, several

OWN_PAGES = {
    "/health": "GET",
    "/token": "POST",
    "/access/v1/evaluation": "POST",
    "/access/v1/evaluations": "POST",
}
TOKEN = "/token"
_OPEN_PAGES = {"/events": "only issuers of this seed are heard there, and only about their own tokens"}
QUESTIONS = frozenset(path for path in OWN_PAGES if path.startswith("/access/"))
RESERVED = "access"  # where the gate answers AuthZEN questions

_RESOURCE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_ESCAPED = re.compile(r"%[0-9A-Fa-f]{2}")


def meaning(seed: Seed) -> Iterator[Problem]:
    """What is wrong apart from the structure. Entries may have any structure here."""
    for entry in seed.issuers.values():
        yield from _issuer_problems(entry)
    for entry in seed.roles.values():
        grants = entry.at("granted_to")
        for number in range(len(grants) if isinstance(grants, list) else 0):
            yield from _grant_problems(seed, entry, ("granted_to", number))
    for name, entry in seed.upstreams.items():
        if name == RESERVED:
            text = f'"{RESERVED}": is where the gate answers AuthZEN questions; choose another name'
            yield entry.source.problem(entry.keys, text, at_key=True)
        yield from upstream_problems(entry)
    yield from shared_hosts(seed)
    for entry in seed.policies.values():
        yield from _policy_problems(seed, entry)
    # Two issuers with one URL: whose rules would a token follow?
    for member in ("issuer", "local"):
        first: dict[str, Entry] = {}
        for entry in seed.issuers.values():
            for keys, value in entry.names(member):
                if first.setdefault(value, entry) is not entry:
                    yield entry.problem(
                        keys, f"{quoted(value)}: only one issuer may have it; {first[value].place} does"
                    )


def _grant_problems(seed: Seed, entry: Entry, keys: Keys) -> Iterator[Problem]:
    yield from _known(seed, "issuer", seed.issuers, entry, (*keys, "issuer"))
    claim, value = entry.at(*keys, "claim"), entry.at(*keys, "value")
    name = claim[0] if isinstance(claim, list) and len(claim) == 1 else claim
    if name in ("scope", "scp"):
        scope = value if isinstance(value, str) and " " not in value else "…"
        text = f"may be one text that holds many scopes; write scope: {scope} in place of claim and value"
        text += REWRITTEN if former.scope(entry.at(*keys)) is not None else ""
        yield entry.problem((*keys, "claim"), f"{quoted(name)}: {text}")


def _issuer_problems(entry: Entry) -> Iterator[Problem]:
    # Some issuers' names are no addresses: Google's has no scheme. Then policy has to say where the keys are.
    for member in ("issuer", "jwks_uri") if entry.at("jwks_uri") is None else ("jwks_uri",):
        for keys, url in entry.names(member):
            if wrong := address(url):
                advice = "; or write jwks_uri, where the keys are" if member == "issuer" else ""
                yield entry.problem(keys, wrong + advice)
    yield from within(entry, ("max_lifetime",), "1s", "25h")
    yield from within(entry, ("clock_skew",), "1s", "5m")
    if entry.at("kind", "values") is not None and entry.at("kind", "claim") is None:
        yield entry.problem(("kind", "values"), "says what a claim's values mean; write which: claim")


def _policy_problems(seed: Seed, entry: Entry) -> Iterator[Problem]:
    yield from _known(seed, "issuer", seed.issuers, entry, ("subject", "issuer"))
    for quantifier in QUANTIFIERS:
        yield from _known(seed, "role", seed.roles, entry, ("subject", "roles", quantifier))
    yield from _twice(entry, ("subject", "claims"), "claim", lambda name: name)
    yield from _workload_problems(entry)
    yield from _target_problems(seed, entry)
    yield from _time_problems(entry)
    yield from _dates_problems(entry)
    yield from _each(entry, ("when", "ip"), when.network)
    yield from _each(entry, ("when", "country"), when.country)
    yield from _equals_problems(entry)
    yield from _obligation_problems(entry)
    yield from _asking_problems(entry)
    yield from _exchange_problems(seed, entry)


def _workload_problems(entry: Entry) -> Iterator[Problem]:
    for quantifier in QUANTIFIERS:
        for keys, tag in entry.names("workload", "tags", quantifier):
            if "," in tag or tag != tag.strip():
                text = "can't match; a tag has no comma and no space around it"
                yield entry.problem(keys, f"{quoted(tag)}: {text}")
    for member in ("dag", "task"):
        for keys, pattern in entry.names("workload", member):
            if wrong := identifier(pattern):
                yield entry.problem(keys, wrong)
    for keys, pattern in entry.names("workload", "environment"):
        if "," in pattern or pattern != pattern.strip():
            text = "can't match; an environment's name has no comma and no space around it"
            yield entry.problem(keys, f"{quoted(pattern)}: {text}")
    workload, compared = entry.at("workload"), _compares_workload(entry)
    if isinstance(workload, dict) and workload.keys() == {"attested"} and not compared:
        yield entry.problem(("workload",), f"says nothing; write {either([*NAMED, 'tags'])}")
    for member in NEVER_ASSERTED:
        if entry.at("workload", member) is not None and entry.at("workload", "attested") is not True:
            text = "only a token says this, no header can; write attested: true, which then holds for all of workload"
            yield entry.problem(("workload", member), text)
    vouched = [name for name in map("workload.".__add__, NEVER_ASSERTED) if name in compared]
    if vouched and entry.at("workload", "attested") is not True:
        text = f"only a token says {either(vouched)}, no header can; write attested: true under workload"
        yield entry.problem(("when", "equals"), text + ", which then holds for all of it")
    elif compared and entry.at("effect") == "permit" and entry.at("workload", "attested") is None:
        yield entry.problem(
            ("when", "equals"),
            'looks at the workload, so the permit says who vouches for it; write "workload: {attested: true}" '
            "(the token's claims) or false (also headers, which the client can write as it likes)",
        )


def _compares_workload(entry: Entry) -> set[str]:
    """What `equals` reads of the workload."""
    return {name for _, pair in _pairs(entry) for name in pair if name.startswith("workload.")}


def _target_problems(seed: Seed, entry: Entry) -> Iterator[Problem]:
    for keys, name in entry.names("target", "resource"):
        if not _RESOURCE.fullmatch(name):
            text = "a resource's type is 1 to 64 letters, digits and _ . : -"
            yield entry.problem(keys, f"{quoted(name)}: {text}")
        elif name == ROUTE:
            text = (
                "stands for a call in questions, and policies for that call's upstream decide; write upstream"
            )
            yield entry.problem(keys, f"{quoted(name)}: {text}")
    yield from _twice(entry, ("target", "properties"), "property", lambda name: name)
    # To some servers the case of a parameter's name counts, to others not: the gate takes both for one.
    yield from _twice(entry, ("target", "query"), "parameter", str.lower)
    for keys, item in _items(entry, "target", "query"):
        parameter = item.get("parameter")
        if isinstance(parameter, str) and (wrong := _parameter(parameter)):
            yield entry.problem((*keys, "parameter"), f"{quoted(parameter)}: {wrong}")
    upstreams = [name for _, name in entry.names("target", "upstream")]
    if OWN in upstreams:
        if len(upstreams) > 1:
            text = f'"{OWN}" is the gate itself; give it a policy of its own'
            yield entry.problem(("target", "upstream"), text)
        yield from _own_pages(entry)
        return
    yield from _known(seed, "upstream", seed.upstreams, entry, ("target", "upstream"))
    refuse = (
        name
        for name in upstreams
        if name in seed.upstreams and seed.upstreams[name].at("encoded_slash") != "segment"
    )
    refused = next(refuse, "")
    for keys, pattern in entry.names("target", "paths"):
        if wrong := path_pattern(pattern, refused):
            yield entry.problem(keys, wrong)
    yield from credential_known(seed, entry)


def _parameter(name: str) -> str:
    """What keeps a query's parameter from ever having that name; empty when nothing does."""
    if "+" in name or ";" in name:
        return "holds + or ;, and the gate takes a query with these for unknown"
    return (
        "is percent-encoded; names are compared decoded, so write the character"
        if _ESCAPED.search(name)
        else ""
    )


def _own_pages(entry: Entry) -> Iterator[Problem]:
    """The gate's own pages are few, so a policy for them can be checked to the letter."""
    answered = set()
    for keys, path in entry.names("target", "paths"):
        if path in _OPEN_PAGES:
            text = f"{quoted(path)}: policy isn't asked; {_OPEN_PAGES[path]}"
            yield entry.problem(keys, text)
        elif path not in OWN_PAGES:
            hint = nearest(path, OWN_PAGES) or f"; it has {either(list(OWN_PAGES))}"
            yield entry.problem(keys, f"{quoted(path)}: the gate has no such page{hint}")
        else:
            answered.add(OWN_PAGES[path])
    answers = answered or set(OWN_PAGES.values())
    methods = [method for _, method in entry.names("target", "methods")]
    for keys, method in entry.names("target", "methods"):
        if method not in answers:
            yield entry.problem(keys, f"{quoted(method)}: these pages answer {either(sorted(answers))} only")
    for keys, path in entry.names("target", "paths") if answers.issuperset(methods) else ():
        if methods and OWN_PAGES.get(path, methods[0]) not in methods:
            yield entry.problem(keys, f"{quoted(path)}: answers {OWN_PAGES[path]} only")
    if entry.at("obligations", "credential") is not None:
        text = "the gate's own pages are no upstream, so there is no credential to use; leave it out"
        yield entry.problem(("obligations", "credential"), text)


def _time_problems(entry: Entry) -> Iterator[Problem]:
    keys = ("when", "time")
    yield from _each(entry, (*keys, "zone"), when.zone)
    yield from _each(entry, (*keys, "days"), when.days)
    yield from _month_problems(entry, (*keys, "month_days"))
    yield from _each(entry, (*keys, "from"), when.minute)
    yield from _each(entry, (*keys, "to"), lambda time: when.minute(time, ends=True))
    begins, ends = entry.at(*keys, "from"), entry.at(*keys, "to")
    if isinstance(begins, str) and begins == ends:
        text = f"{quoted(ends)}: ends when it begins; for whole days leave from and to out"
        yield entry.problem((*keys, "to"), text)


def _month_problems(entry: Entry, keys: Keys) -> Iterator[Problem]:
    said = entry.at(*keys)
    words = (
        [(keys, said)] if not isinstance(said, list) else [((*keys, n), word) for n, word in enumerate(said)]
    )
    wrong = False
    for place, word in words:
        if isinstance(word, str | int) and not isinstance(word, bool):
            try:
                when.month_days(word)
            except ValueError as error:
                wrong = True
                yield entry.problem(place, str(error))
        else:
            wrong = True
    if not wrong and isinstance(said, list):
        try:
            when.month_days(said)
        except ValueError as error:
            yield entry.problem(keys, str(error))


def _dates_problems(entry: Entry) -> Iterator[Problem]:
    keys = ("when", "dates")
    unknown = list(_each(entry, (*keys, "zone"), when.zone))
    yield from unknown
    given = entry.at(*keys, "zone")
    zone = given if isinstance(given, str) and not unknown else "UTC"
    moments: dict[str, int] = {}
    for member in ("from", "until"):
        for place, text in entry.names(*keys, member):
            try:
                moments[member] = when.moment(text, zone, ends=member == "until")
            except ValueError as error:
                yield entry.problem(place, str(error))
    begins, ends = entry.at(*keys, "from"), entry.at(*keys, "until")
    if len(moments) == 2 and moments["from"] >= moments["until"]:
        text = f"{quoted(ends)}: is not after from, {quoted(begins)}; nothing lies between them"
        yield entry.problem((*keys, "until"), text)
    written = [text for text in (begins, ends) if isinstance(text, str)]
    if given is not None and written and not any(map(when.is_date, written)):
        text = "is not used, since moments say their offset themselves; leave it out, or write days"
        yield entry.problem((*keys, "zone"), f"{quoted(given)}: {text}")


def _pairs(entry: Entry) -> Iterator[tuple[Keys, list[str]]]:
    """Each pair of `equals` that is one, with its place."""
    value = entry.at("when", "equals")
    several = isinstance(value, list) and any(isinstance(item, list) for item in value)
    for number, pair in enumerate(value if several else [value]):
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(name, str) for name in pair):
            yield ("when", "equals", number) if several else ("when", "equals"), pair


def _equals_problems(entry: Entry) -> Iterator[Problem]:
    seen: set[frozenset[str]] = set()
    for keys, pair in _pairs(entry):
        for number, name in enumerate(pair):
            try:
                when.attribute(name)
                _of_target(entry, name)
            except ValueError as error:
                yield entry.problem((*keys, number), str(error))
        if pair[0] == pair[1]:
            yield entry.problem(keys, f"{quoted(pair[0])}: is compared with itself")
        elif frozenset(pair) in seen:
            yield entry.problem(keys, f"{quoted(pair)}: stands here twice")
        seen.add(frozenset(pair))


def _of_target(entry: Entry, attribute: str) -> None:
    """Whether the target has what `resource.NAME` and `query.NAME` name. Raises ValueError."""
    space, _, name = attribute.partition(".")
    asks = entry.at("target", "resource") is not None
    if space == "query":
        if asks:
            raise ValueError(
                f"{quoted(attribute)}: an AuthZEN resource has no query; its properties are resource.NAME"
            )
        if wrong := _parameter(name):
            raise ValueError(f"{quoted(attribute)}: {wrong}")
    if space != "resource" or asks:
        return
    paths = [path for _, path in entry.names("target", "paths")]
    for path in paths:
        if name not in (known := placeholders(path)):
            common = set(known).intersection(*map(placeholders, paths))
            hint = nearest(name, common) or f'; write "{{{name}}}" for the segment that is meant'
            raise ValueError(f"{quoted(attribute)}: the path {quoted(path)} has no {{{name}}}{hint}")


def _obligation_problems(entry: Entry) -> Iterator[Problem]:
    keys: Keys = ("obligations", "rate_limit")
    seen: set[tuple[str, frozenset[str]]] = set()
    for place, item in _items(entry, *keys):
        limit, per, by = item.get("limit"), item.get("per"), item.get("by")
        known = isinstance(per, str) and per in limits.PERIODS
        if known and isinstance(limit, int | float) and not isinstance(limit, bool) and limit > 0:
            try:
                limits.rate(int(limit), str(per))
            except ValueError as error:
                yield entry.problem((*place, "limit"), str(error))
        names = frozenset(name for name in (by if isinstance(by, list) else [by]) if isinstance(name, str))
        if not names.isdisjoint({"dag", "task", "role"}) and "subject" not in names:
            shown = quoted(by if isinstance(by, str) else sorted(names))
            text = "callers can choose these as they like; put subject beside them"
            yield entry.problem((*place, "by"), f"{shown}: {text}")
        if known and (str(per), names) in seen:
            text = "another limit counts the same calls; write the lower one only"
            yield entry.problem(place, text)
        seen.add((str(per), names))
    yield from _each(entry, ("obligations", "max_body"), limits.size)
    headers: set[str] = set()
    for place, name in entry.names("obligations", "require", "headers"):
        if name.lower() == "airgate-justification":
            yield entry.problem(
                place, f'{quoted(name)}: write "justification: true"; then its length counts too'
            )
        elif name.lower() in headers:
            yield entry.problem(place, f"{quoted(name)}: stands here twice; letters' case means nothing")
        headers.add(name.lower())
    require = entry.at("obligations", "require")
    if isinstance(require, dict) and require == {"justification": False}:
        yield entry.problem(("obligations", "require"), "asks for nothing; leave it out")


def _asking_problems(entry: Entry) -> Iterator[Problem]:
    asking = entry.at("asking")
    if not isinstance(asking, dict):
        return
    upstreams = {name for _, name in entry.names("target", "upstream")}
    paths = {path for _, path in entry.names("target", "paths")}
    if upstreams != {OWN} or not paths or not paths <= QUESTIONS:
        text = f'goes with the upstream "{OWN}" and the paths {either(sorted(QUESTIONS))}, and nothing else'
        yield entry.problem(("asking",), text)
    if "trust" in asking and asking.get("about", "self") == "self":
        text = "about self the caller's own token says it all; write about: any, or leave trust out"
        yield entry.problem(("asking", "trust"), text)


def _exchange_problems(seed: Seed, entry: Entry) -> Iterator[Problem]:
    paths = {path for _, path in entry.names("target", "paths")}
    exchange = entry.at("exchange")
    own = {name for _, name in entry.names("target", "upstream")} == {OWN}
    if own and TOKEN in paths and len(paths) > 1:
        text = f'"{TOKEN}" stands alone, since only a permit for it says what may be exchanged; write two policies'
        yield entry.problem(("target", "paths"), text)
    elif own and paths == {TOKEN} and entry.at("effect") == "permit" and exchange is None:
        text = f'a permit for "{TOKEN}" says for which upstreams; write "exchange: {{upstreams: [...]}}" beside target'
        yield entry.problem(("target", "paths"), text)
    if not isinstance(exchange, dict):
        return
    if not own or paths != {TOKEN}:
        text = f'goes with the upstream "{OWN}" and the path {TOKEN}, and nothing else'
        yield entry.problem(("exchange",), text)
    yield from _known(seed, "upstream", seed.upstreams, entry, ("exchange", "upstreams"))
    yield from _known(seed, "role", seed.roles, entry, ("exchange", "roles"))
    yield from within(entry, ("exchange", "lifetime"), "1s", "10m")


def _items(entry: Entry, *keys: str | int) -> Iterator[tuple[Keys, dict[str, Any]]]:
    """Each mapping at `keys` with its place, whether it stands alone or in a list."""
    value = entry.at(*keys)
    if isinstance(value, dict):
        yield keys, value
    for number, item in enumerate(value if isinstance(value, list) else ()):
        if isinstance(item, dict):
            yield (*keys, number), item


def _each(entry: Entry, keys: Keys, read: Callable[[str], object]) -> Iterator[Problem]:
    """What `read` has against the words at `keys`."""
    for place, word in entry.names(*keys):
        try:
            read(word)
        except ValueError as error:
            yield entry.problem(place, str(error))


def _twice(
    entry: Entry, keys: tuple[str, ...], member: str, plain: Callable[[str], str]
) -> Iterator[Problem]:
    """Items of a list that are about what an earlier one is about."""
    seen: set[tuple[str, ...]] = set()
    for place, item in _items(entry, *keys):
        name = item.get(member)
        parts = listed(name) if isinstance(name, str | list) else []
        if not parts or not all(isinstance(part, str) for part in parts):
            continue
        key = tuple(map(plain, parts))
        if key in seen:
            text = "stands here twice; write its any, all and none side by side"
            yield entry.problem((*place, member), f"{quoted(name)}: {text}")
        seen.add(key)


def _known(seed: Seed, noun: str, known: dict[str, Entry], entry: Entry, keys: Keys) -> Iterator[Problem]:
    """Names at `keys` that nothing defines. A file that can't be read may define them: no word then."""
    for place, name in entry.names(*keys) if seed.complete else ():
        if name not in known:
            hint = nearest(name, known) or f"; known: {several(known)}"
            yield entry.problem(place, f"{quoted(name)}: no such {noun}{hint}")
