"""Who could call: what the tokens of each issuer can say, and which roles follow from it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from airgate.engine import (
    EMPTY_SEGMENT,
    ENCODED_SLASH,
    KIND,
    KINDS,
    LISTS,
    METHODS,
    SCOPE,
    SCOPES,
    Bundle,
    Grant,
    Mapping,
    Upstream,
)
from airgate.policy import bounds
from airgate.policy.bounds import MISSING, THERE, UNREADABLE, Demand, Key
from airgate.policy.index import Row, Rule
from airgate.policy.patterns import Pieced, exactly
from airgate.policy.rules import NEVER_ASSERTED

Path = tuple[str, ...]
Atom = tuple[Key, Demand]
Alternative = tuple[Atom, ...]  # all of them
Clause = tuple[Alternative, ...]  # one of them

CONTEXT = ("dag", "task", "run", "environment", "tags", *NEVER_ASSERTED)
SUBJECT: Key = ("subject",)
USED: Key = ("used",)
METHOD: Key = ("method",)
ID: Key = ("id",)
ACTION: Key = ("action",)  # on an AuthZEN resource
JKT: Key = ("jkt",)  # thumbprint of the key that the token is bound to
ACTOR: Key = ("actor",)  # who acts for the subject

# Claims that are one text each, in every token that the gate accepts (RFC 7800 §3.1, RFC 8693 §4.1).
PLACES: dict[Key, Path] = {JKT: ("cnf", "jkt"), ACTOR: ("act", "sub")}
_SINGLE = {path: key for key, path in PLACES.items()}

SOMEBODY = "another-issuer"  # for callers of whom no policy names the issuer


@dataclass(frozen=True)
class Tokens:
    """The tokens of one issuer."""

    mapping: Mapping
    url: str = ""  # the exact `iss`
    others: frozenset[Path] = frozenset()  # claims that grant roles elsewhere: in the set to compare with
    bound: bool = False  # those that are bound to no key are refused

    @cached_property
    def grants(self) -> dict[str, list[Grant]]:
        grants: dict[str, list[Grant]] = {}
        for grant in self.mapping.grants:
            grants.setdefault(grant.role, []).append(grant)
        return grants

    @cached_property
    def groups(self) -> frozenset[Path]:
        """The claims that grant roles and may hold several values."""
        paths = {_plain(grant.claim) for grant in self.mapping.grants if grant.claim}
        return (self.others | paths) - _SINGLE.keys() - self._facts.keys()

    @cached_property
    def _facts(self) -> dict[Path, Key]:
        """The claims that attest one text: the same key, whoever asks for them."""
        return {
            path: ("claimed", field, *path) for field, path in self.mapping.attested if field not in LISTS
        }

    def claim(self, path: Path) -> Key:
        path = _plain(path)
        known = _SINGLE.get(path) or self._facts.get(path)
        return known or ("groups" if path in self.groups else "claim", *path)

    def kinds(self, kinds: Iterable[str]) -> tuple[Key, Pieced]:
        """Where the caller's kind stands, and the values there that mean one of these. An empty one: it isn't there."""
        mapping, wanted = self.mapping, set(kinds)
        values = {value for value, kind in mapping.kind_values.items() if kind in wanted}
        values |= {""} if mapping.kind_default in wanted else set()
        values |= wanted if not mapping.kind_values else set()
        return ("kind", *(mapping.kind_claim or ())), frozenset(map(exactly, values))

    def kind(self, value: str) -> str:
        """What a value that stands there means."""
        mapping = self.mapping
        return mapping.kind_values.get(value, value) if value else mapping.kind_default

    @cached_property
    def accepted(self) -> tuple[Atom, ...]:
        """What the gate asks of these tokens before policy, of what policy may ask for too."""
        key, values = self.kinds(KINDS)
        known: tuple[Atom, ...] = ((key, bounds.one_of(values)),) if self.mapping.kind_claim else ()
        return (*known, (JKT, bounds.state(THERE))) if self.bound else known

    @cached_property
    def refused(self) -> tuple[Atom, ...]:
        """The opposite: any one of these is enough."""
        key, values = self.kinds(KINDS)
        unknown: tuple[Atom, ...] = ((key, bounds.none_of(values)),) if self.mapping.kind_claim else ()
        return (*unknown, (JKT, bounds.state(MISSING))) if self.bound else unknown

    def sources(self, field: str, attested: bool) -> list[tuple[Key, Alternative]]:
        """Where a value of the workload context can stand, and what holds if it does.

        The claim that attests it comes first; a header counts where that is missing, unless `attested` is asked for.
        """
        claim, header = self._claimed(field), ("header", field)
        unsaid: Alternative = ((claim, bounds.state(MISSING)),) if claim else ()
        sources: list[tuple[Key, Alternative]] = [(claim, ((claim, bounds.state(THERE)),))] if claim else []
        if attested or field in NEVER_ASSERTED:
            return sources
        return [*sources, (header, (*unsaid, (header, bounds.state(THERE))))]

    def missing(self, field: str, attested: bool) -> Alternative:
        """No such value counts."""
        header = () if attested or field in NEVER_ASSERTED else ("header", field)
        keys = [key for key in (self._claimed(field), header) if key]
        return tuple((key, bounds.state(MISSING)) for key in keys)

    def _claimed(self, field: str) -> Key:
        path = dict(self.mapping.attested).get(field)
        return () if path is None else ("claimed", field, *path)

    def granted(self, role: str) -> Clause:
        """The ways to a role."""
        return tuple(self._gives(grant) for grant in self.grants.get(role, ()))

    def not_granted(self, role: str) -> Alternative:
        """The role is not held, or unknown."""
        return tuple(self._gives_not(grant) for grant in self.grants.get(role, ()))

    def _gives(self, grant: Grant) -> Alternative:
        if not grant.claim:
            key, values = self._whole(grant)
            return ((key, bounds.one_of(values)),)
        key = self.claim(grant.claim)
        holds = bounds.one_of([exactly(grant.value)]) if single(key) else ("has", grant.value)
        return ((key, _SAID), (key, holds))

    def _gives_not(self, grant: Grant) -> Atom:
        if not grant.claim:
            key, values = self._whole(grant)
            return key, bounds.none_of(values)
        key = self.claim(grant.claim)
        return key, bounds.none_of([exactly(grant.value)]) if single(key) else ("lacks", grant.value)

    def _whole(self, grant: Grant) -> tuple[Key, Pieced]:
        """By what the caller is as a whole, and every token says: its kind, or its subject."""
        return (
            self.kinds([grant.value]) if grant.claim == KIND else (SUBJECT, frozenset({exactly(grant.value)}))
        )

    def not_held(self, role: str) -> Alternative:
        """The role is known not to be held."""
        return (*self.not_granted(role), *((key, _SAID) for key in self._claims(role)))

    def not_unheld(self, role: str) -> Clause:
        """The ways in which the role is held, or unknown."""
        return (
            *self.granted(role),
            *(((key, bounds.state(MISSING)),) for key in self._claims(role)),
        )

    def _claims(self, role: str) -> list[Key]:
        return sorted({self.claim(grant.claim) for grant in self.grants.get(role, ()) if grant.claim})

    def used(self, role: str) -> Clause:
        """The ways in which the role is granted and in use."""
        return tuple((*way, (USED, ("in", role))) for way in self.granted(role))

    def unused(self, role: str) -> Clause:
        """It isn't granted, or the caller named others to act under."""
        return (self.not_granted(role), ((USED, ("out", role)),))


_SAID = bounds.state(THERE, UNREADABLE)


def single(key: Key) -> bool:
    """Whether a claim is one text in every token that the gate accepts."""
    return key in PLACES or (key[0] == "claimed" and key[1] not in LISTS)


def odd(upstream: Upstream) -> int:
    """What `forward.fits` lets pass for it."""
    slash = ENCODED_SLASH if upstream.encoded_slash else 0
    return slash | (EMPTY_SEGMENT if upstream.empty_segments else 0)


def _plain(path: Path) -> Path:
    """One spelling of a claim: the gate takes `scp` for `scope`."""
    return SCOPE if path in SCOPES else path


@lru_cache(4_096)
def base(key: Key) -> frozenset[Demand]:
    """What holds for an attribute whatever policy says."""
    if key == METHOD:
        return frozenset({bounds.one_of(map(exactly, METHODS))})
    if key == ("kind",):  # without a claim that says it, it isn't said
        return frozenset({bounds.one_of([exactly("")])})
    if key[0] == "claim":  # one that can't be compared is as good as none
        return frozenset({bounds.state(MISSING, THERE)})
    if key[0] == "claimed" and key[1] not in LISTS:
        return frozenset({bounds.none_of([exactly("")])})
    return frozenset()


@dataclass(frozen=True, eq=False)
class Callers:
    """All who could call, by the issuer's name, and what they could call: segments as each upstream takes them."""

    tokens: dict[str, Tokens]
    segments: dict[str, int] = field(
        default_factory=dict
    )  # ENCODED_SLASH, EMPTY_SEGMENT; nothing when left out

    def odd(self, upstream: str) -> int:
        """What segments of that upstream's paths may hold beside what all may."""
        return self.segments.get(upstream, 0)

    @classmethod
    def of(cls, bundle: Bundle, reading: Iterable[Rule] = (), beside: Bundle | None = None) -> "Callers":
        """Those of a bundle. `reading`: rules that are not in it. `beside`: another bundle to compare with."""
        claims = claims_read(reading)
        others: dict[str, frozenset[Path]] = {}
        for issuer in beside.issuers.values() if beside is not None else ():
            claims.update(issuer.mapping.claims)
            others[issuer.mapping.id] = Tokens(issuer.mapping).groups
        return cls(
            {
                issuer.mapping.id: Tokens(
                    issuer.mapping._replace(claims=tuple(sorted({*issuer.mapping.claims, *claims}))),
                    url,
                    others.get(issuer.mapping.id, frozenset()),
                    issuer.dpop == "required",
                )
                for url, issuer in bundle.issuers.items()
            },
            {name: odd(upstream) for name, upstream in bundle.upstreams.items()},
        )

    @classmethod
    def anybody(cls, rules: Iterable[Rule]) -> "Callers":
        """Whoever the rules could mean, when nobody says who there is: any issuer vouches for anything."""
        rules = list(rules)
        roles = {name for row in _rows(rules) if row[0].startswith("subject.roles.") for name in row[1]}
        issuers = {name for row in _rows(rules) if row[0] == "subject.issuer" for name in row[1]}
        return cls(
            {
                issuer: Tokens(
                    Mapping(
                        id=issuer,
                        kind_claim=("kind",),
                        kind_default=KINDS[0],
                        attested=tuple((field, ("attested", field)) for field in CONTEXT),
                        grants=tuple(Grant(role, ("roles", role), "held") for role in sorted(roles)),
                        claims=tuple(sorted(claims_read(rules))),
                    ),
                    f"https://{issuer}.example.com",
                )
                for issuer in [*sorted(issuers), SOMEBODY]
            }
        )


ANYBODY = Callers({})  # in place of `Callers.anybody` of rules that are not all known yet


def _rows(rules: Iterable[Rule]) -> Iterable[Row]:
    return (row for rule in rules for row in rule.conditions)


def claims_read(rules: Iterable[Rule]) -> set[Path]:
    """The claims that conditions of the rules look at."""
    paths: set[Path] = set()
    for row in _rows(rules):
        if row[0].startswith("subject.claims."):
            paths.add(tuple(row[1]))
        elif row[0] == "when.equals":
            for attribute in row[1:3]:
                space, _, name = attribute.partition(".")
                if space == "subject" and name not in ("id", "issuer", "kind"):
                    paths.add((name,))
    return paths
