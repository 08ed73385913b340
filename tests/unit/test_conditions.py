"""Conditions: what makes each of them true, false or unknown, and what that does to a permit and to a forbid."""

import ipaddress
from collections.abc import Callable
from itertools import permutations, product
from typing import Any

import pytest
from calls import F, T, U, asking, call, check, said, who
from hypothesis import given, settings
from hypothesis import strategies as st
from language import examples, load
from world import NOW, rule

from conditions import Call, Glob, Network, Truth, equated
from model import Caller, Fact, Target

GLOBS = [
    # pattern, matches, does not match
    ("", [""], ["a", "*"]),
    ("a", ["a"], ["", "A", "aa", "a*"]),
    ("*", ["", "a", "a/b", "*", "\n"], []),
    ("**", ["", "a"], []),
    ("a*", ["a", "ab", "a*"], ["", "ba", "A"]),
    ("*a", ["a", "ba"], ["", "ab"]),
    ("a*a", ["aa", "aba", "aaa"], ["a", "ab"]),
    ("a*b*c", ["abc", "axbxc", "abbc", "abcbc"], ["ac", "acb", "abcx", "cab"]),
    ("*a*", ["a", "xax"], ["", "b"]),
    ("ab*ba", ["abba", "abxba"], ["aba", "ab", "ba"]),
    ("a*ab*b", ["aabb", "aab" + "b", "axabxb"], ["aab", "abb"]),
    ("finance_*", ["finance_", "finance_close"], ["finance", "xfinance_"]),
    ("a?", ["a?"], ["ab"]),
    ("[ab]", ["[ab]"], ["a"]),
    ("a.c", ["a.c"], ["abc"]),
]


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        pytest.param(
            pattern, text, matches, id=f"{pattern!r} {'matches' if matches else 'does not match'} {text!r}"
        )
        for pattern, good, bad in GLOBS
        for matches, texts in ((True, good), (False, bad))
        for text in texts
    ],
)
def test_a_glob(pattern: str, text: str, matches: bool) -> None:
    assert Glob(pattern).matches(text) is matches


def like(pattern: str, text: str) -> bool:
    """What a glob means, said as plainly as it can be."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return like(pattern[1:], text) or (text != "" and like(pattern, text[1:]))
    return text != "" and text[0] == pattern[0] and like(pattern[1:], text[1:])


@given(st.text(alphabet="ab*", max_size=8), st.text(alphabet="ab*", max_size=10))
@settings(max_examples=examples(1000))
def test_a_glob_is_the_plain_meaning(pattern: str, text: str) -> None:
    assert Glob(pattern).matches(text) is like(pattern, text)


def test_a_hostile_glob_is_linear() -> None:
    assert not Glob("a*" * 2000 + "b").matches("a" * 200_000)


def test_globs_are_their_patterns() -> None:
    assert Glob("a*") == Glob("a*") != Glob("a")
    assert {Glob("a*"), Glob("a*")} == {Glob("a*")}
    assert Glob("a*") != "a*"
    assert repr(Glob("a*")) == "Glob('a*')"


SUBJECTS = [
    pytest.param(["subject.issuer", ["company", "partner"]], T, id="its issuer"),
    pytest.param(["subject.issuer", ["partner"]], F, id="another issuer"),
    pytest.param(["subject.issuer", ["COMPANY"]], F, id="its issuer in capitals"),
    pytest.param(["subject.id", ["etl", "x"]], T, id="its subject"),
    pytest.param(["subject.id", ["et", "etl2", "*", "etl*"]], F, id="other subjects: no patterns"),
    pytest.param(["subject.kind", ["workload"]], T, id="its kind"),
    pytest.param(["subject.kind", ["agent", "human"]], F, id="other kinds"),
]


@pytest.mark.parametrize(("row", "truth"), SUBJECTS)
def test_subjects(row: list[Any], truth: Truth) -> None:
    check(row, call(), truth)


BEARER, BOUND, DELEGATED = who(), who(jkt="k" * 43), who(actor="bot")
FLAGS = [
    # the row, of whom it is true, and of whom false: nobody is in doubt
    pytest.param(["subject.dpop", True], [BOUND], [BEARER, DELEGATED], id="a token bound to a key"),
    pytest.param(["subject.dpop", False], [BEARER, DELEGATED], [BOUND], id="a token that anybody can use"),
    pytest.param(["subject.delegated", True], [DELEGATED], [BEARER, BOUND], id="somebody acts for it"),
    pytest.param(["subject.delegated", False], [BEARER, BOUND], [DELEGATED], id="nobody acts for it"),
]


@pytest.mark.parametrize(("row", "good", "bad"), FLAGS)
def test_flags(row: list[Any], good: list[Caller], bad: list[Caller]) -> None:
    for caller in good:
        check(row, call(caller=caller), T)
    for caller in bad:
        check(row, call(caller=caller), F)


def test_flags_that_nobody_told_are_unknown() -> None:
    for caller in (BEARER, BOUND, DELEGATED):
        doubted = caller._replace(identity=caller.identity._replace(untold=frozenset({"subject.delegated"})))
        for expected in (True, False):
            check(["subject.delegated", expected], call(caller=doubted), U)
            check(["subject.dpop", expected], call(caller=doubted), (caller is BOUND) is expected)


ROLES = [
    # the row; granted, in use, unknown; what it is in a permit, and in a forbid
    pytest.param(["any", "ab"], ("b", "b", ""), T, T, id="one of any"),
    pytest.param(["any", "ab"], ("c", "c", ""), F, F, id="none of any"),
    pytest.param(["any", "ab"], ("", "", ""), F, F, id="any, and nothing granted"),
    pytest.param(["any", "a"], ("ab", "b", ""), F, T, id="any, and put aside by the tag"),
    pytest.param(["any", "a"], ("b", "b", "a"), U, U, id="any, and unknown"),
    pytest.param(["any", "ab"], ("b", "b", "a"), T, T, id="any: one unknown, one in use"),
    pytest.param(["any", "ab"], ("b", "", "a"), U, T, id="any: one unknown, one put aside"),
    pytest.param(["any", "ab"], ("c", "c", "d"), F, F, id="any, and another is unknown"),
    pytest.param(["all", "ab"], ("abc", "abc", ""), T, T, id="every one of all"),
    pytest.param(["all", "ab"], ("ac", "ac", ""), F, F, id="one of all is missing"),
    pytest.param(["all", "ab"], ("ab", "b", ""), F, T, id="one of all put aside by the tag"),
    pytest.param(["all", "ab"], ("a", "a", "b"), U, U, id="one of all is unknown"),
    pytest.param(["all", "ab"], ("", "", "ab"), U, U, id="all are unknown"),
    pytest.param(["all", "ab"], ("c", "c", "b"), F, F, id="one of all is unknown, one is missing"),
    pytest.param(["all", "ab"], ("a", "", "b"), F, U, id="one of all is unknown, one put aside"),
    pytest.param(["none", "x"], ("a", "a", ""), T, T, id="none of none"),
    pytest.param(["none", "x"], ("ax", "ax", ""), F, F, id="one of none"),
    pytest.param(["none", "x"], ("ax", "a", ""), F, F, id="none sees a role put aside"),
    pytest.param(["none", "xy"], ("a", "a", "y"), U, U, id="one of none is unknown"),
    pytest.param(["none", "xy"], ("x", "x", "y"), F, F, id="one of none is unknown, one granted"),
    pytest.param(["none", "x"], ("a", "a", "y"), T, T, id="none, and another is unknown"),
]


@pytest.mark.parametrize(("asked", "roles", "permit", "forbid"), ROLES)
def test_roles(asked: list[str], roles: tuple[str, str, str], permit: Truth, forbid: Truth) -> None:
    row = [f"subject.roles.{asked[0]}", list(asked[1])]
    made = call(caller=who("workload", *roles))
    assert said(row, made) is permit
    assert said(row, made, effect="forbid") is forbid


CLAIMS = [
    # quantifier and values; what the token's claim holds; true, false or unknown
    pytest.param(["any", ["x", "y"]], ("y", "z"), T, id="one of any"),
    pytest.param(["any", ["x", "y"]], ("z",), F, id="none of any"),
    pytest.param(["any", ["x"]], (), F, id="any of an empty list"),
    pytest.param(["any", ["x"]], None, U, id="any of a claim that is not there"),
    pytest.param(["all", ["x", "y"]], ("y", "x", "z"), T, id="every one of all"),
    pytest.param(["all", ["x", "y"]], ("x",), F, id="one of all is missing"),
    pytest.param(["all", ["x"]], (), F, id="all of an empty list"),
    pytest.param(["all", ["x"]], None, U, id="all of a claim that is not there"),
    pytest.param(["none", ["x", "y"]], ("z",), T, id="none of none"),
    pytest.param(["none", ["x", "y"]], ("z", "y"), F, id="one of none"),
    pytest.param(["none", ["x"]], (), T, id="none of an empty list"),
    pytest.param(["none", ["x"]], None, U, id="none of a claim that is not there"),
    pytest.param(["any", ["X"]], ("x",), F, id="another case is another value"),
    pytest.param(["any", ["x*"]], ("xy",), F, id="values are no patterns"),
    pytest.param(["any", ["7", "true"]], ("true",), T, id="as JSON writes it"),
]


@pytest.mark.parametrize(("asked", "held", "truth"), CLAIMS)
def test_claims(asked: list[Any], held: tuple[str, ...] | None, truth: Truth) -> None:
    quantifier, values = asked
    for path in (["dep"], ["org", "unit"]):
        claims = {} if held is None else {".".join(path): held}
        check([f"subject.claims.{quantifier}", path, values], call(caller=who(claims=claims)), truth)


def test_a_claim_is_found_by_its_whole_path() -> None:
    claims = {"org": ("x",), "unit": ("x",), "org.unit.name": ("x",)}
    check(["subject.claims.any", ["org", "unit"], ["x"]], call(caller=who(claims=claims)), U)


ATTESTED, ASSERTED = Fact("close_it", True), Fact("close_it", False)
NAMES = [
    # the patterns, whether attested is asked; what is known; true, false or unknown
    pytest.param([["close_*"], False], ATTESTED, T, id="attested, though it need not be"),
    pytest.param([["close_*"], False], ASSERTED, T, id="asserted, and that is enough"),
    pytest.param([["close_*"], True], ATTESTED, T, id="attested, as asked"),
    pytest.param([["close_*"], True], ASSERTED, U, id="true, but only asserted"),
    pytest.param([["other"], True], ASSERTED, U, id="false, but only asserted"),
    pytest.param([["other"], False], ASSERTED, F, id="another name asserted"),
    pytest.param([["other"], True], ATTESTED, F, id="another name attested"),
    pytest.param([["x", "*_it"], False], ATTESTED, T, id="one of two patterns"),
    pytest.param([["x", "y*"], False], ATTESTED, F, id="none of two patterns"),
    pytest.param([["*"], False], None, U, id="not said, though anything would do"),
    pytest.param([["*"], True], None, U, id="not attested, though anything would do"),
    pytest.param([["CLOSE_*"], False], ATTESTED, F, id="another case"),
]


@pytest.mark.parametrize("field", ["dag", "task", "environment"])
@pytest.mark.parametrize(("asked", "known", "truth"), NAMES)
def test_dags_tasks_and_environments(asked: list[Any], known: Fact | None, truth: Truth, field: str) -> None:
    row = [f"workload.{field}", *asked]
    facts = {} if known is None else {field: known}
    for kind in ("workload", "agent"):
        check(row, call(caller=who(kind, facts=facts)), truth)
    check(row, call(caller=who("human", facts=facts)), F)


TAGS = [
    pytest.param(["any", ["x", "y"], False], Fact(("y",), False), T, id="one of any"),
    pytest.param(["any", ["x"], False], Fact(("z",), False), F, id="none of any"),
    pytest.param(["any", ["x"], False], Fact((), True), F, id="no tags, and that is known"),
    pytest.param(["any", ["x"], False], None, U, id="any, and tags are not known"),
    pytest.param(["all", ["x", "y"], False], Fact(("y", "x"), False), T, id="every one of all"),
    pytest.param(["all", ["x", "y"], False], Fact(("x",), False), F, id="one of all is missing"),
    pytest.param(["all", ["x"], False], None, U, id="all, and tags are not known"),
    pytest.param(["none", ["x"], False], Fact(("y",), False), T, id="none of none"),
    pytest.param(["none", ["x"], False], Fact(("x", "y"), False), F, id="one of none"),
    pytest.param(["none", ["x"], False], Fact((), True), T, id="none, and no tags"),
    pytest.param(["none", ["x"], False], None, U, id="none, and tags are not known"),
    pytest.param(["any", ["x"], True], Fact(("x",), True), T, id="attested, as asked"),
    pytest.param(["any", ["x"], True], Fact(("x",), False), U, id="true, but only asserted"),
    pytest.param(["none", ["x"], True], Fact(("x",), False), U, id="false, but only asserted"),
    pytest.param(["any", ["x*"], False], Fact(("xy",), False), F, id="tags are no patterns"),
]


@pytest.mark.parametrize(("asked", "known", "truth"), TAGS)
def test_tags(asked: list[Any], known: Fact | None, truth: Truth) -> None:
    row = [f"workload.tags.{asked[0]}", *asked[1:]]
    facts = {} if known is None else {"tags": known}
    for kind in ("workload", "agent"):
        check(row, call(caller=who(kind, facts=facts)), truth)
    check(row, call(caller=who("human", facts=facts)), F)


QUERIES = [
    # the query; what "any", "all" and "none" of csv and json are, of the parameter named format
    pytest.param("", F, F, T, id="no query"),
    pytest.param("?", F, F, T, id="an empty query"),
    pytest.param("?&&", F, F, T, id="separators alone"),
    pytest.param("?x=csv", F, F, T, id="another parameter"),
    pytest.param("?xformat=csv&formatx=csv", F, F, T, id="longer names"),
    pytest.param("?format=csv", T, F, F, id="one of the values"),
    pytest.param("?x=1&format=csv&y", T, F, F, id="one among others"),
    pytest.param("?format=xml", F, F, T, id="another value"),
    pytest.param("?format=CSV", F, F, T, id="another case of the value"),
    pytest.param("?format=csv ", F, F, T, id="a space makes another value"),
    pytest.param("?format", F, F, T, id="without a value"),
    pytest.param("?format=", F, F, T, id="an empty value"),
    pytest.param("?format==csv", F, F, T, id="an equals sign in the value"),
    pytest.param("?format=csv,json", F, F, T, id="a comma separates nothing"),
    pytest.param("?format=csv%26", F, F, T, id="an encoded separator separates nothing"),
    pytest.param("?format=%63%73%76", T, F, F, id="an encoded value"),
    pytest.param("?%66ormat=csv", T, F, F, id="an encoded name"),
    pytest.param("?%2566ormat=csv", F, F, T, id="a name that is encoded twice"),
    pytest.param("?format=%2563sv", F, F, T, id="a value that is encoded twice"),
    pytest.param("?format=csv&format=csv", U, U, U, id="twice"),
    pytest.param("?format=csv&%66ormat=json", U, U, U, id="twice, once encoded"),
    pytest.param("?format=csv&format", U, U, U, id="twice, once without a value"),
    pytest.param("?Format=csv", U, U, U, id="the name in another case"),
    pytest.param("?%46ormat=csv", U, U, U, id="the name in another case, encoded"),
    pytest.param("?format=csv&FORMAT=csv", U, U, U, id="the name in both cases"),
    pytest.param("?format[]=csv", U, U, U, id="as a list"),
    pytest.param("?format%5B0%5d=csv", U, U, U, id="as a list with an index, encoded"),
    pytest.param("?format=csv&format[x]=csv", U, U, U, id="as an object beside"),
    pytest.param("?[format]=csv", F, F, T, id="brackets in front"),
    pytest.param("?format=csv;x", U, U, U, id="a semicolon"),
    pytest.param("?x=1;2&format=csv", U, U, U, id="a semicolon elsewhere"),
    pytest.param("?format=csv%3B", F, F, T, id="an encoded semicolon"),
    pytest.param("?format=csv+", U, U, U, id="a plus in the value"),
    pytest.param("?format=csv%2B", F, F, T, id="an encoded plus in the value"),
    pytest.param("?x=a+b&format=csv", T, F, F, id="a plus in another's value"),
    pytest.param("?form+at=1&format=csv", U, U, U, id="a plus in another's name"),
    pytest.param("?form%2Bat=1&format=csv", U, U, U, id="an encoded plus in another's name"),
    pytest.param("?format=%E4", U, U, U, id="a value that is no UTF-8"),
    pytest.param("?x=%E4&format=csv", U, U, U, id="another's value that is no UTF-8"),
    pytest.param("?%C3=1&format=csv", U, U, U, id="a name that is no UTF-8"),
    pytest.param("?format=%zz&x=%", F, F, T, id="percent signs that encode nothing"),
    pytest.param("??format=csv", F, F, T, id="a second question mark is part of the name"),
    pytest.param("?format=csv#x", F, F, T, id="a fragment would be part of the value"),
]


@pytest.mark.parametrize(("query", "any_", "all_", "none"), QUERIES)
def test_the_query(query: str, any_: Truth, all_: Truth, none: Truth) -> None:
    for quantifier, truth in (("any", any_), ("all", all_), ("none", none)):
        check([f"target.query.{quantifier}", "format", ["csv", "json"]], call(query=query), truth)


@pytest.mark.parametrize(
    ("parameter", "values", "query", "truth"),
    [
        pytest.param("format", ["csv"], "?format=csv", T, id="all of one"),
        pytest.param("Format", ["csv"], "?Format=csv", T, id="a name with a capital"),
        pytest.param("Format", ["csv"], "?format=csv", U, id="a name that should have a capital"),
        pytest.param("größe", ["ä b"], "?gr%C3%B6%C3%9Fe=%C3%A4%20b", T, id="letters outside ASCII, encoded"),
        pytest.param("größe", ["ä"], "?größe=ä", T, id="letters outside ASCII as they are"),
        pytest.param("filter[name]", ["x"], "?filter[name]=x&filter[age]=7", T, id="a name with brackets"),
        pytest.param("filter[name]", ["x"], "?filter=x", F, id="a name without its brackets"),
        pytest.param("filter", ["x"], "?filter[name]=x", U, id="a name with brackets too many"),
        pytest.param("a+b", ["x"], "?a%2Bb=x", U, id="a name with a plus is never known"),
        pytest.param("x", [""], "?x", T, id="no value is the empty value"),
        pytest.param("x", [""], "?x=", T, id="an empty value"),
        pytest.param("x", [""], "", F, id="no parameter is not the empty value"),
    ],
)
def test_names_of_parameters(parameter: str, values: list[str], query: str, truth: Truth) -> None:
    for quantifier in ("any", "all"):
        check([f"target.query.{quantifier}", parameter, values], call(query=query), truth)


PROPERTIES = [
    pytest.param("any", ("x",), T, id="one of any"),
    pytest.param("any", ("z",), F, id="none of any"),
    pytest.param("any", (), F, id="any of an empty list"),
    pytest.param("any", None, U, id="any of what is not there"),
    pytest.param("all", ("x", "y", "z"), T, id="every one of all"),
    pytest.param("all", ("x",), F, id="one of all is missing"),
    pytest.param("all", None, U, id="all of what is not there"),
    pytest.param("none", ("z",), T, id="none of none"),
    pytest.param("none", ("z", "x"), F, id="one of none"),
    pytest.param("none", None, U, id="none of what is not there"),
]


@pytest.mark.parametrize(("quantifier", "held", "truth"), PROPERTIES)
def test_properties_of_a_resource(quantifier: str, held: tuple[str, ...] | None, truth: Truth) -> None:
    asked = asking() if held is None else asking(owner=held)
    check([f"target.properties.{quantifier}", "owner", ["x", "y"]], asked, truth, "/*")


@pytest.mark.parametrize(
    ("globs", "name", "truth"),
    [
        pytest.param(["7"], "7", T, id="the id"),
        pytest.param(["8", "7*"], "77", T, id="one of two patterns"),
        pytest.param(["8", "7"], "77", F, id="none of two patterns"),
        pytest.param(["*"], "", T, id="anything, and it is empty"),
    ],
)
def test_ids_of_a_resource(globs: list[str], name: str, truth: Truth) -> None:
    check(["target.ids", globs], asking(name), truth, "/*")


def test_a_slash_in_an_id_separates_nothing() -> None:
    target = Target("read", "resource:todo", ("a/b",), "/", "")
    check(["target.ids", ["a/*"]], Call(who(), target, NOW), T, "/*")


ADDRESSES = [
    # ranges, the client's address, true, false or unknown
    pytest.param(["198.51.100.0/24"], "198.51.100.0", T, id="the lowest"),
    pytest.param(["198.51.100.0/24"], "198.51.100.255", T, id="the highest"),
    pytest.param(["198.51.100.0/24"], "198.51.99.255", F, id="one below"),
    pytest.param(["198.51.100.0/24"], "198.51.101.0", F, id="one above"),
    pytest.param(["198.51.100.7/32"], "198.51.100.7", T, id="a range of one"),
    pytest.param(["198.51.100.7/32"], "198.51.100.8", F, id="beside a range of one"),
    pytest.param(["0.0.0.0/0"], "255.255.255.255", T, id="all of IPv4"),
    pytest.param(["0.0.0.0/0"], "2001:db8::1", F, id="all of IPv4, by IPv6"),
    pytest.param(["::/0"], "2001:db8::1", T, id="all of IPv6"),
    pytest.param(["::/0"], "198.51.100.7", F, id="all of IPv6, by IPv4"),
    pytest.param(["::/0"], "::ffff:198.51.100.7", F, id="all of IPv6, by IPv4 written as IPv6"),
    pytest.param(["2001:db8::/32"], "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", T, id="the highest of IPv6"),
    pytest.param(["2001:db8::/32"], "2001:db9::", F, id="one above, of IPv6"),
    pytest.param(["2001:db8::/32"], "2001:0DB8:0:0:0:0:0:1", T, id="another spelling of IPv6"),
    pytest.param(["203.0.113.0/24", "198.51.100.0/24"], "198.51.100.7", T, id="the second of two ranges"),
    pytest.param(["198.51.100.0/24"], "::ffff:198.51.100.7", T, id="IPv4 written as IPv6"),
    pytest.param(["198.51.100.0/24"], "::ffff:c633:6407", T, id="IPv4 written as IPv6 in hex"),
    pytest.param(["198.51.100.0/24"], "::198.51.100.7", F, id="IPv6 that looks like IPv4"),
    pytest.param(["0.0.0.0/0"], None, U, id="no address"),
    *(
        pytest.param(["0.0.0.0/0", "::/0"], text, U, id=f"garbage: {text!r}")
        for text in ("", "localhost", "198.51.100", "198.51.100.7.1", "198.51.100.256", "198.51.100.07", "0x7f.1",
                     "2130706433", "198.51.100.7, 10.0.0.1", " 198.51.100.7", "198.51.100.7:443", "[2001:db8::1]",
                     "2001:db8::1::", "198.51.100.7/32", "¹.1.1.1", "1" * 10_000, "\x00")
    ),
]  # fmt: skip


@pytest.mark.parametrize(("ranges", "client", "truth"), ADDRESSES)
def test_addresses(ranges: list[str], client: str | None, truth: Truth) -> None:
    check(["when.ip", ranges], call(client=client), truth)


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 128))
@settings(max_examples=examples(500))
def test_a_range_is_its_first_bits(
    base: ipaddress.IPv4Address | ipaddress.IPv6Address,
    client: ipaddress.IPv4Address | ipaddress.IPv6Address,
    prefix: int,
) -> None:
    # IPv4 written as IPv6 is IPv4.
    base, client = (getattr(each, "ipv4_mapped", None) or each for each in (base, client))
    bits = base.max_prefixlen
    prefix = min(prefix, bits)
    low = type(base)(int(base) >> (bits - prefix) << (bits - prefix))
    network = Network.of((f"{low}/{prefix}",))
    assert network.truth(call(client=str(base)), frozenset()) is True
    same = client.version == base.version and int(client) >> (bits - prefix) == int(base) >> (bits - prefix)
    assert network.truth(call(client=str(client)), frozenset()) is same


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("198.51.100.7/24", id="bits behind the prefix"),
        pytest.param("198.51.100.0/33", id="a prefix that is too long"),
        pytest.param("198.51.100.0/-1", id="a negative prefix"),
        pytest.param("example.com", id="a name"),
        pytest.param("", id="nothing"),
        pytest.param("::ffff:198.51.100.0/120", id="IPv4 written as IPv6, which no address is in"),
        pytest.param("::ffff:0:0/96", id="all IPv4 written as IPv6"),
    ],
)
def test_ranges_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the standard library's own words
        Network.of((text,))


@pytest.mark.parametrize(
    ("country", "truth"),
    [
        pytest.param("DE", T, id="one of them"),
        pytest.param("CH", F, id="none of them"),
        pytest.param("de", F, id="in small letters, as nobody writes it"),
        pytest.param(None, U, id="not known"),
    ],
)
def test_countries(country: str | None, truth: Truth) -> None:
    check(["when.country", ["DE", "FR"]], call(country=country), truth)


def equal(left: str, right: str, attested: bool = False) -> list[Any]:
    return ["when.equals", left, right, attested]


CLOSE = {
    "dag": Fact("close", False),
    "task": Fact("close", True),
    "run": Fact("r", False),
    "environment": Fact("prod", True),
    "run_type": Fact("manual", True),
    "triggered_by": Fact("etl", True),
}
MAIL = {"email": ("m@x.example",), "mails": ("m@x.example", "n@x.example"), "none": ()}
ETL, CLOSING, MAILING = who(), who(facts=CLOSE), who(claims=MAIL)
HUMAN, AGENT = who("human", facts=CLOSE), who("agent", facts=CLOSE)
OWN, MAILED, NONE = (equal(f"subject.{name}", "resource.owner") for name in ("id", "email", "none"))
DAG, TASK = (["when.equals", f"workload.{name}", "resource.x"] for name in ("dag", "task"))
SENT = equal("query.owner", "subject.id")
EQUALS = [
    # the row, the caller, the path pattern, the path, the query; true, false or unknown
    pytest.param(OWN, ETL, "/v1/{owner}", "/v1/etl", "", T, id="the subject's own"),
    pytest.param(equal("resource.owner", "subject.id"), ETL, "/v1/{owner}", "/v1/etl", "", T, id="turned around"),
    pytest.param(OWN, ETL, "/v1/{owner}", "/v1/x", "", F, id="somebody else's"),
    pytest.param(OWN, ETL, "/v1/{owner}", "/v1/ETL", "", F, id="another case"),
    pytest.param(OWN, ETL, "/v1/{owner}/**", "/v1/etl/a/b", "", T, id="and all below"),
    pytest.param(OWN, ETL, "/*/{owner}", "/v1/etl", "", T, id="behind a star"),
    pytest.param(OWN, ETL, "/v1/{id}", "/v1/etl", "", U, id="another placeholder"),
    pytest.param(OWN, ETL, "/**", "/v1/etl", "", U, id="no placeholder"),
    pytest.param(OWN, ETL, "/v1/owner", "/v1/owner", "", U, id="a segment of that name"),
    pytest.param(equal("resource.a", "resource.b"), ETL, "/{a}/{b}", "/x/x", "", T, id="two placeholders alike"),
    pytest.param(equal("resource.a", "resource.b"), ETL, "/{a}/{b}", "/x/y", "", F, id="two placeholders apart"),
    pytest.param(equal("subject.issuer", "resource.x"), ETL, "/{x}", "/company", "", T, id="the issuer"),
    pytest.param(equal("subject.kind", "resource.x"), ETL, "/{x}", "/workload", "", T, id="the kind"),
    pytest.param(MAILED, MAILING, "/{owner}", "/m@x.example", "", T, id="a claim"),
    pytest.param(MAILED, MAILING, "/{owner}", "/n@x.example", "", F, id="a claim, and another value"),
    pytest.param(equal("subject.mails", "resource.owner"), MAILING, "/{owner}", "/m@x.example", "", U, id="two values"),
    pytest.param(NONE, MAILING, "/{owner}", "/m@x.example", "", F, id="a claim with none"),
    pytest.param(equal("subject.none", "subject.none"), MAILING, "/{x}", "/m", "", F, id="nothing equals nothing: no"),
    pytest.param(MAILED, ETL, "/{owner}", "/m@x.example", "", U, id="a claim that is not there"),
    pytest.param(equal("subject.email", "subject.email"), ETL, "/{x}", "/m", "", U, id="what is not there, twice"),
    pytest.param([*DAG, False], CLOSING, "/{x}", "/close", "", T, id="the dag, asserted"),
    pytest.param([*DAG, True], CLOSING, "/{x}", "/close", "", U, id="the dag, attested"),
    pytest.param([*TASK, True], CLOSING, "/{x}", "/close", "", T, id="the task, attested"),
    pytest.param(equal("workload.task", "workload.dag"), CLOSING, "/{x}", "/", "", T, id="task and dag"),
    pytest.param(equal("workload.task", "workload.dag", True), CLOSING, "/{x}", "/", "", U, id="task, dag attested"),
    pytest.param(equal("workload.run", "resource.x"), CLOSING, "/{x}", "/r", "", T, id="the run"),
    pytest.param(equal("workload.environment", "resource.x"), CLOSING, "/{x}", "/test", "", F, id="the environment"),
    pytest.param(equal("workload.run_type", "resource.x", True), CLOSING, "/{x}", "/manual", "", T, id="the run type"),
    pytest.param(equal("workload.triggered_by", "subject.id", True), CLOSING, "/**", "/", "", T, id="who started it"),
    pytest.param(equal("workload.triggered_by", "resource.x", True), CLOSING, "/{x}", "/bob", "", F, id="another did"),
    pytest.param(equal("workload.triggered_by", "subject.id", True), ETL, "/**", "/", "", U, id="nobody started it"),
    pytest.param(equal("workload.triggered_by", "subject.id", True), HUMAN, "/**", "/", "", F, id="a human, no run"),
    pytest.param([*DAG, False], ETL, "/{x}", "/close", "", U, id="no dag"),
    pytest.param([*DAG, False], HUMAN, "/{x}", "/close", "", F, id="a human has no dag"),
    pytest.param(equal("resource.x", "workload.dag"), HUMAN, "/{x}", "/close", "", F, id="a human, on the right"),
    pytest.param(equal("workload.dag", "subject.email"), HUMAN, "/{x}", "/close", "", F, id="a human, else unknown"),
    pytest.param([*DAG, False], AGENT, "/{x}", "/close", "", T, id="an agent may have a dag"),
    pytest.param(SENT, ETL, "/**", "/", "?owner=etl", T, id="a parameter"),
    pytest.param(SENT, ETL, "/**", "/", "?owner=%65tl", T, id="a parameter, encoded"),
    pytest.param(SENT, ETL, "/**", "/", "?owner=x", F, id="a parameter, and another value"),
    pytest.param(SENT, ETL, "/**", "/", "", F, id="a parameter that is not there"),
    pytest.param(SENT, ETL, "/**", "/", "?owner=etl&owner=etl", U, id="a parameter twice"),
    pytest.param(SENT, ETL, "/**", "/", "?Owner=etl", U, id="a parameter in another case"),
    pytest.param(SENT, ETL, "/**", "/", "?owner=etl;", U, id="a parameter and a semicolon"),
    pytest.param(SENT, ETL, "/**", "/", "?owner=et+l", U, id="a parameter with a plus"),
    pytest.param(equal("query.a", "query.b"), ETL, "/**", "/", "?a=1&b=1", T, id="two parameters"),
    pytest.param(equal("query.a", "query.b"), ETL, "/**", "/", "", F, id="two parameters that are not there"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "caller", "pattern", "path", "query", "truth"), EQUALS)
def test_equals(row: list[Any], caller: Caller, pattern: str, path: str, query: str, truth: Truth) -> None:
    check(row, call(path, query, caller), truth, pattern)


@pytest.mark.parametrize(
    ("row", "truth"),
    [
        pytest.param(equal("subject.id", "resource.owner"), T, id="a property"),
        pytest.param(equal("subject.kind", "resource.owner"), F, id="a property, and another value"),
        pytest.param(equal("subject.id", "resource.readers"), U, id="a property with two values"),
        pytest.param(equal("subject.id", "resource.more"), U, id="a property that is not there"),
        pytest.param(equal("subject.id", "resource.id"), F, id="the id"),
        pytest.param(equal("subject.kind", "resource.id"), T, id="the id, and it is that"),
        pytest.param(equal("subject.id", "resource.none"), F, id="a property that is an empty list"),
    ],
)
def test_equals_of_a_resource(row: list[Any], truth: Truth) -> None:
    asked = asking("workload", owner=("etl",), readers=("etl", "x"), none=())
    check(row, asked, truth, "/*")


def test_a_placeholder_is_read_by_the_pattern_that_matched() -> None:
    """Of a policy with several patterns, every one that matches is asked on its own."""
    paths = ["/{owner}/x", "/x/{owner}", "/**"]
    target = {"upstreams": ["ledger"], "methods": ["*"], "paths": paths}
    row = equal("subject.id", "resource.owner")
    shard = load("ledger", rule(conditions=[row], target=target))
    for path, routes in (
        ("/etl/x", {"/{owner}/x": T, "/**": U}),
        ("/x/etl", {"/x/{owner}": T, "/**": U}),
        ("/x/x", {"/{owner}/x": F, "/x/{owner}": F, "/**": U}),
        ("/y/etl", {"/**": U}),
    ):
        asked = call(path)
        found = {route: policy.truth(asked, route) for policy, route in shard.lookup.reachable(asked.target)}
        assert found == routes
        assert shard.decide(asked).permit is (T in routes.values())
    forbid = load("ledger", rule(conditions=[row], target=target | {"paths": paths[:2]}, effect="forbid"))
    assert forbid.decide(call("/x/x")).forbids == ()
    assert forbid.decide(call("/x/etl")).forbids == ("publish",)


@pytest.mark.parametrize(
    ("attribute", "known"),
    [
        ("subject.id", True),
        ("subject.email", True),
        ("workload.dag", True),
        ("workload.run", True),
        ("workload.tags", False),
        ("workload.try", False),
        ("workload", False),
        ("workload.", False),
        ("resource.owner", True),
        ("query.format", True),
        ("query.", False),
        ("query", False),
        ("header.x", False),
        ("", False),
        (".id", False),
        ("SUBJECT.id", False),
    ],
)
def test_what_can_be_compared(attribute: str, known: bool) -> None:
    assert equated(attribute) is known


KNOWN: dict[Truth, dict[str, tuple[str, ...]]] = {T: {"c": ("x",)}, F: {"c": ("y",)}, U: {}}


@pytest.mark.parametrize("truths", list(product((T, F, U), repeat=3)), ids=str)
def test_conditions_are_joined_by_kleenes_and(truths: tuple[Truth, Truth, Truth]) -> None:
    """All 27 combinations of three, in every order."""
    expected = F if F in truths else U if U in truths else T
    claims = {
        f"{name}.c": values
        for name, truth in zip("abc", truths, strict=True)
        for values in KNOWN[truth].values()
    }
    asked = call(caller=who(claims=claims))
    for order in permutations("abc"):
        rows = [["subject.claims.any", [name, "c"], ["x"]] for name in order]
        permit, forbid = (
            load("ledger", rule(conditions=rows)),
            load("ledger", rule(conditions=rows, effect="forbid")),
        )
        ((policy, route),) = permit.lookup.reachable(asked.target)
        assert policy.truth(asked, route) is expected
        assert policy.matches(asked, route) is permit.decide(asked).permit is (expected is T)
        assert bool(forbid.decide(asked).forbids) is (expected is not F)


def test_a_policy_without_conditions_is_true() -> None:
    shard = load("ledger", rule(conditions=[]))
    ((policy, route),) = shard.lookup.reachable(call().target)
    assert policy.truth(call(), route) is True


SEEN: list[Any] = [
    # the row, its name, what is seen of a call that has everything, and of one that has nothing
    (["subject.issuer", ["x"]], "subject.issuer", "company", "company"),
    (["subject.id", ["x"]], "subject.id", "etl", "etl"),
    (["subject.kind", ["human"]], "subject.kind", "workload", "workload"),
    (["subject.dpop", False], "subject.dpop", "k" * 43, None),
    (["subject.delegated", True], "subject.delegated", "bot", None),
    (["subject.roles.any", ["x"]], "subject.roles.any", ("a",), ()),
    (["subject.roles.all", ["x"]], "subject.roles.all", ("a",), ()),
    (["subject.roles.none", ["x"]], "subject.roles.none", ("a", "b"), ()),
    (["subject.claims.any", ["org", "unit"], ["x"]], "subject.claims.org.unit.any", ("u", "v"), None),
    (["workload.dag", ["x*"], False], "workload.dag", "close", None),
    (["workload.dag", ["x*"], True], "workload.dag", None, None),
    (["workload.tags.all", ["x"], False], "workload.tags.all", ("t",), None),
    (["workload.tags.all", ["x"], True], "workload.tags.all", None, None),
    (["target.query.none", "format", ["csv"]], "target.query.format.none", ("a", "b"), ()),
    (["when.time", "Europe/Berlin", ["mon"], 0, 60], "when.time", "fri 09:00 Europe/Berlin", None),
    (["when.dates", None, 5], "when.dates", "1800000000", "4000000000"),
    (["when.ip", ["198.51.100.0/24"]], "when.ip", "203.0.113.9", None),
    (["when.country", ["DE"]], "when.country", "FR", None),
    (equal("subject.id", "resource.x"), "when.equals.subject.id=resource.x", ("etl", "y"), ("etl", "y")),
    (equal("subject.id", "workload.dag"), "when.equals.subject.id=workload.dag", ("etl", "close"), None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "name", "full", "empty"), [pytest.param(*case, id=f"{case[1]} {case[0]}") for case in SEEN]
)
def test_conditions_say_what_they_are_and_what_they_saw(
    row: list[Any], name: str, full: Any, empty: Any
) -> None:
    facts = {"dag": Fact("close", False), "tags": Fact(("t",), False)}
    claims = {"org.unit": ("u", "v")}
    caller = who(granted="ab", used="a", claims=claims, facts=facts, jkt="k" * 43, actor="bot")
    everything = call("/y", "?format=a&format=b", caller, NOW, "203.0.113.9", "FR")
    target = {"upstreams": ["ledger"], "methods": ["*"], "paths": ["/{x}"]}
    shard = load("ledger", rule(conditions=[row], target=target))
    for asked, seen in ((everything, full), (call("/y", now=4e9), empty)):
        ((policy, route),) = shard.lookup.reachable(asked.target)
        policy.truth(asked, route)
        (condition,) = policy.conditions
        assert condition.name == name
        assert condition.seen(asked, asked.caller.effective) == seen


@pytest.mark.parametrize(
    ("row", "name", "seen"),
    [
        pytest.param(["target.ids", ["x"]], "target.ids", "7", id="target.ids"),
        pytest.param(
            ["target.properties.any", "owner", ["x"]],
            "target.properties.owner.any",
            ("y",),
            id="target.properties",
        ),
        pytest.param(
            ["target.properties.any", "more", ["x"]], "target.properties.more.any", None, id="not there"
        ),
    ],
)
def test_conditions_on_a_resource_say_what_they_saw(row: list[Any], name: str, seen: Any) -> None:
    target = {"upstreams": ["resource:todo"], "methods": ["*"], "paths": ["/*"]}
    ((policy, _),) = load("resource:todo", rule(conditions=[row], target=target)).lookup.reachable(
        asking().target
    )
    (condition,) = policy.conditions
    asked = asking(owner=("y",))
    assert (condition.name, condition.seen(asked, frozenset())) == (name, seen)


def test_a_condition_looks_at_the_query_and_the_address_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many policies ask."""
    looked: list[str] = []

    def watched(name: str) -> Callable[[Any], Any]:
        import conditions

        plain: Callable[[Any], Any] = getattr(conditions, name)

        def watching(given: Any) -> Any:
            looked.append(name)
            return plain(given)

        return watching

    for name in ("_parameters", "_address"):
        monkeypatch.setattr(f"conditions.{name}", watched(name))
    for query, client in (("?a=1", "198.51.100.7"), ("?a=1;", "garbage")):
        asked = call(query=query, client=client)
        rows = [["target.query.none", "x", ["x"]], ["when.ip", ["0.0.0.0/0"]]]
        policies = [rule(id=name, conditions=rows) for name in "abc"]
        load("ledger", *policies).decide(asked)
        assert sorted(looked) == ["_address", "_parameters"]
        looked.clear()
