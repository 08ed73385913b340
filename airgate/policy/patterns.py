"""What patterns have in common: a text or a path that some of them match and others don't, or that there is none.

Two small languages: a glob, in which `*` is any run of characters; a path pattern, whose segments are globs, with `**`
for all that follows. Each can be searched to the end, so an answer of "none" is a proof.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, wraps
from typing import Any, NamedTuple, TypeVar

from airgate.engine import EMPTY_SEGMENT, ENCODED_SLASH, Glob
from airgate.policy.index import segments

MOST_STATES = 5_000  # of one search; only patterns with many stars, meant to, come near it

Pieces = tuple[str, ...]  # a glob split at its stars; of one piece: that text alone
Pieced = frozenset[Pieces]

ANYTHING: Pieces = ("", "")

# What a text may not hold. A segment is what `forward.parse_target` lets through, a header what `identity.act` does.
TEXT, HEADER = "text", "header"
# By what an upstream takes (`forward.fits`): nothing odd, slashes that are data, empty segments, both.
SEGMENTS = ("segment", "segment or slash", "segment or nothing", "segment, slash or nothing")
ODD = ENCODED_SLASH | EMPTY_SEGMENT
_REFUSED = {TEXT: "", HEADER: ","} | {
    sort: "\\;%" if odd & ENCODED_SLASH else "/\\;%" for odd, sort in enumerate(SEGMENTS)
}

_FILL = "x1yzwvutqk023456789abcdefghijlmnoprsABCDEFGHIJKLMNOPQRSTUVWXYZ_-"


class ExhaustedError(Exception):
    """A search was given up: it would have taken too long."""


Result = TypeVar("Result")


def _remembered(search: Callable[..., Result]) -> Callable[..., Result]:
    """Answers are kept, and so is that a search was given up."""

    @lru_cache(32_768)
    def kept(*question: Any) -> Result | ExhaustedError:
        try:
            return search(*question)
        except ExhaustedError as error:
            return error

    @wraps(search)
    def remembered(*question: Any) -> Result:
        answer = kept(*question)
        if isinstance(answer, ExhaustedError):
            raise answer
        return answer

    return remembered


class PathPattern(NamedTuple):
    """A path pattern taken apart."""

    segments: tuple[Pieces, ...]
    deep: bool  # `**` follows


def glob(pattern: str) -> Pieces:
    return tuple(pattern.split("*"))


def exactly(text: str) -> Pieces:
    return (text,)


@lru_cache(65_536)
def path_pattern(pattern: str) -> PathPattern:
    """Read a pattern as the shard's index does."""
    parts = segments(pattern)
    deep = bool(parts) and parts[-1] == "**"
    return PathPattern(
        tuple(ANYTHING if part.startswith("{") else glob(part) for part in parts[: len(parts) - deep]), deep
    )


def matches(pieces: Pieces, text: str) -> bool:
    return text == pieces[0] if len(pieces) == 1 else _glob(pieces).matches(text)


@lru_cache(65_536)
def _glob(pieces: Pieces) -> Glob:
    return Glob("*".join(pieces))


class _Automaton:
    """A glob as positions between its characters; a set of positions is the bits of a number."""

    def __init__(self, pieces: Pieces) -> None:
        at = 0
        self.stars = 0
        self.moves: dict[str, int] = {}
        for number, piece in enumerate(pieces):
            if number:
                self.stars |= 1 << at
                at += 1
            for character in piece:
                self.moves[character] = self.moves.get(character, 0) | 1 << at
                at += 1
        self.end = 1 << at
        self.start = self._past_stars(1)
        # In this position whatever follows matches.
        self.forever = 1 << (at - 1) if len(pieces) > 1 and not pieces[-1] else 0

    def _past_stars(self, at: int) -> int:
        while more := (at & self.stars) << 1 & ~at:
            at |= more
        return at

    def step(self, at: int, character: str) -> int:
        return self._past_stars((at & self.moves.get(character, 0)) << 1 | at & self.stars)


@lru_cache(65_536)
def _automaton(pieces: Pieces) -> _Automaton:
    return _Automaton(pieces)


def _allowed(character: str, sort: str) -> bool:
    if character in _REFUSED[sort]:
        return False
    if sort == HEADER:
        return character.isprintable()
    return sort == TEXT or not (character < " " or "\x7f" <= character <= "\x9f")


def _alphabet(patterns: Iterable[Pieces], sort: str) -> list[str]:
    """One character that none of them names, then those that they do. More would tell nothing new."""
    named = {character for pieces in patterns for piece in pieces for character in piece}
    fill = next((character for character in _FILL if character not in named), None)
    if fill is None:
        fill = next(chr(code) for code in range(0xC0, 0x10000) if chr(code) not in named)
    return [fill, *sorted(character for character in named if _allowed(character, sort))]


def _plain(text: str, sort: str) -> bool:
    """Whether a text that passed character by character is acceptable as a whole."""
    if sort in (TEXT, HEADER):
        return sort == TEXT or bool(text)
    if not text:
        return bool(SEGMENTS.index(sort) & EMPTY_SEGMENT)
    return all(part.strip(". ") for part in text.split("/"))


def _marked(before: bool, character: str, sort: str) -> bool | None:
    """Whether something makes it plain so far, since a segment's last slash. None: it never will be."""
    if character == "/" and sort in SEGMENTS:
        return False if before else None
    return before or character not in ". "


@_remembered
def text(any_of: frozenset[Pieced], none_of: Pieced, sort: str = TEXT) -> str | None:
    """A shortest text that matches one of each group, and nothing of `none_of`. None: there is none.

    Raises ExhaustedError.
    """
    fixed = [group for group in any_of if all(len(pieces) == 1 for pieces in group)]
    if fixed:
        smallest = min(fixed, key=lambda group: (len(group), sorted(group)))
        for (candidate,) in sorted(smallest):
            if (
                all(any(matches(pieces, candidate) for pieces in group) for group in any_of)
                and not any(matches(pieces, candidate) for pieces in none_of)
                and all(_allowed(character, sort) for character in candidate)
                and _plain(candidate, sort)
            ):
                return candidate
        return None
    patterns = sorted({pieces for group in any_of for pieces in group} | none_of)
    numbers = {pieces: number for number, pieces in enumerate(patterns)}
    groups = [[numbers[pieces] for pieces in group] for group in any_of]
    nots = [numbers[pieces] for pieces in none_of]
    machines = [_automaton(pieces) for pieces in patterns]
    alphabet = _alphabet(patterns, sort)
    start = (tuple(machine.start for machine in machines), False)
    seen = {start}
    queue = deque([(start, "")])
    while queue:
        (at, marked), found = queue.popleft()
        if (
            _plain(found, sort)
            and all(any(at[number] & machines[number].end for number in group) for group in groups)
            and not any(at[number] & machines[number].end for number in nots)
        ):
            return found
        for character in alphabet:
            after = tuple(machine.step(state, character) for machine, state in zip(machines, at, strict=True))
            # What decides about a text of dots and blanks.
            mark = _marked(marked, character, sort)
            if mark is None:
                continue
            state = (after, mark)
            if (
                state in seen
                or any(not any(after[number] for number in group) for group in groups)
                or any(after[number] & machines[number].forever for number in nots)
            ):
                continue
            if len(seen) >= MOST_STATES:
                raise ExhaustedError
            seen.add(state)
            queue.append((state, found + character))
    return None


@_remembered
def _outcomes(patterns: Pieced, sort: str) -> tuple[tuple[Pieced, str], ...]:
    """Every set of these patterns that some one segment matches (and matches no other of them), with the segment."""
    found: dict[Pieced, str] = {}
    texts = sorted(pieces[0] for pieces in patterns if len(pieces) == 1)
    stars = sorted(pieces for pieces in patterns if len(pieces) > 1 and pieces != ANYTHING)
    always = frozenset({ANYTHING}) & patterns
    fill = _alphabet(patterns, sort)[0]
    if not any(matches(pieces, fill) for pieces in stars):
        found[always] = fill
    for candidate in texts:
        if _plain(candidate, sort) and all(_allowed(character, sort) for character in candidate):
            found.setdefault(
                frozenset(pieces for pieces in patterns if matches(pieces, candidate)), candidate
            )
    if stars:
        for matched, segment in _combinations(stars, texts, sort):
            found.setdefault(matched | always, segment)
    return tuple(found.items())


def _combinations(stars: list[Pieces], texts: list[str], sort: str) -> Iterable[tuple[Pieced, str]]:
    machines = [_automaton(pieces) for pieces in stars]
    alphabet = _alphabet([*stars, *((candidate,) for candidate in texts)], sort)
    start = (tuple(machine.start for machine in machines), "", False)
    seen = {start}
    queue = deque([(start, "")])
    while queue:
        (at, _, marked), segment = queue.popleft()
        if marked and segment not in texts:
            yield (
                frozenset(
                    pieces
                    for pieces, machine, state in zip(stars, machines, at, strict=True)
                    if state & machine.end
                ),
                segment,
            )
        for character in alphabet:
            after = tuple(machine.step(state, character) for machine, state in zip(machines, at, strict=True))
            longer = segment + character
            # As long as it may become one of the texts it is a state of its own.
            begun = longer if any(candidate.startswith(longer) for candidate in texts) else ""
            mark = _marked(marked, character, sort)
            if mark is None or (state := (after, begun, mark)) in seen:
                continue
            if len(seen) >= MOST_STATES:
                raise ExhaustedError
            seen.add(state)
            queue.append((state, longer))


@_remembered
def path(
    any_of: frozenset[frozenset[PathPattern]],
    none_of: frozenset[PathPattern],
    odd: int = 0,
    needed: frozenset[int] = frozenset(),
) -> tuple[str, ...] | None:
    """The segments of a path that matches one of each group, and nothing of `none_of`. None: there is none.

    `odd`: what segments may hold (ENCODED_SLASH, EMPTY_SEGMENT). `needed`: for each of these, some segment has to hold
    one of it. Raises ExhaustedError.
    """
    if needed:
        deepest = max((len(pattern.segments) for group in (*any_of, none_of) for pattern in group), default=0)
        any_of |= {frozenset(_having(each & odd, deepest + len(needed))) for each in needed}
    groups = tuple(any_of)
    longest = max((len(pattern.segments) for group in (*groups, none_of) for pattern in group), default=0)
    dead: set[tuple[int, tuple[frozenset[PathPattern], ...], frozenset[PathPattern]]] = set()

    def walk(
        depth: int, live: tuple[frozenset[PathPattern], ...], nots: frozenset[PathPattern]
    ) -> tuple[str, ...] | None:
        if any(_ends(pattern, depth) for pattern in nots):
            if any(pattern.deep and _ends(pattern, depth) for pattern in nots):
                return None
        elif all(any(_ends(pattern, depth) for pattern in group) for group in live):
            return ()
        # One segment more than any pattern has shows all that could be shown below.
        if depth > longest or (depth, live, nots) in dead:
            return None
        here = frozenset(
            pattern.segments[depth]
            for group in (*live, nots)
            for pattern in group
            if depth < len(pattern.segments)
        )
        for matched, segment in _outcomes(here, SEGMENTS[odd]):
            further = tuple(_onwards(group, depth, matched) for group in live)
            if all(further):
                rest = walk(depth + 1, further, _onwards(nots, depth, matched))
                if rest is not None:
                    return (segment, *rest)
        if len(dead) >= MOST_STATES:
            raise ExhaustedError
        dead.add((depth, live, nots))
        return None

    return walk(0, groups, none_of) if all(groups) else None


def _having(odd: int, segments: int) -> Iterator[PathPattern]:
    """Patterns for paths with such a segment among the first ones: as many as others look at, and one for each need."""
    for depth in range(segments):
        before = (ANYTHING,) * depth
        if odd & ENCODED_SLASH:
            yield PathPattern((*before, ("", "/", "")), True)
        if odd & EMPTY_SEGMENT:
            yield PathPattern((*before, exactly("")), True)


def _ends(pattern: PathPattern, depth: int) -> bool:
    """Whether a path of that many segments, which it has matched so far, matches it as a whole."""
    return len(pattern.segments) <= depth if pattern.deep else len(pattern.segments) == depth


def _onwards(patterns: frozenset[PathPattern], depth: int, matched: Pieced) -> frozenset[PathPattern]:
    return frozenset(
        pattern
        for pattern in patterns
        if (pattern.segments[depth] in matched if depth < len(pattern.segments) else pattern.deep)
    )


def meet(one: str, other: str, odd: int = 0) -> bool:
    """Whether some path matches both path patterns. Raises ExhaustedError."""
    groups = frozenset({frozenset({path_pattern(one)}), frozenset({path_pattern(other)})})
    return path(groups, frozenset(), odd) is not None


def within(inner: Iterable[str], outer: Iterable[str], odd: int = 0) -> bool:
    """Whether every path that one of `inner` matches is matched by one of `outer`. Raises ExhaustedError."""
    asked = frozenset(path_pattern(pattern) for pattern in inner)
    return path(frozenset({asked}), frozenset(path_pattern(pattern) for pattern in outer), odd) is None
