"""Where answers point to: into the gate's own addresses, elsewhere as it was, and never to another upstream."""

from urllib.parse import unquote, urljoin, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from language import examples

from location import LONGEST, rewrite
from model import Target

GATE = "https://gate.example.com"
BASE = "https://ledger.example.com/api"


def answer(
    location: str, base: str = BASE, path: str = "/v1/entries", gate: str = GATE, upstream: str = "ledger"
) -> str | None:
    return rewrite(location, Target("GET", upstream, (), path, ""), base, gate)


@pytest.mark.parametrize(
    ("location", "becomes"),
    [
        pytest.param("https://ledger.example.com/api/v1/entries/7", "/ledger/v1/entries/7", id="an address"),
        pytest.param("//ledger.example.com/api/x?a[]=/../#c?d", "/ledger/x?a[]=/../#c?d", id="query and fragment"),
        pytest.param("https://ledger.example.com/api?a=1", "/ledger?a=1", id="the base itself"),
        pytest.param("https://ledger.example.com/api/", "/ledger/", id="the base with a slash"),
        pytest.param("HTTPS://Ledger.Example.COM:443/api/x", "/ledger/x", id="in another spelling"),
        pytest.param("https://ledger.example.com./api/x", "/ledger/x", id="with a dot at the end"),
        pytest.param("https://ledger.example.com:/api/x", "/ledger/x", id="with an empty port"),
        pytest.param("//ledger.example.com/api/x", "/ledger/x", id="without a scheme"),
        pytest.param("/api/x/", "/ledger/x/", id="a path"),
        pytest.param("/api", "/ledger", id="the base's path"),
        pytest.param("/api//x", "/ledger//x", id="an empty segment"),
        pytest.param("/api/a%2fb/%c3%a9/%7e", "/ledger/a%2Fb/%C3%A9/~", id="percent-encoded octets"),
        pytest.param("/api/./a/../b/.", "/ledger/b/", id="dot segments that stay"),
        pytest.param("/api/a/%2E%2e/b", "/ledger/b", id="encoded dot segments that stay"),
        pytest.param("https://gate.example.com/ledger/x?y", "/ledger/x?y", id="as the gate has it"),
        pytest.param("https://other.example.com/api/x", "https://other.example.com/api/x", id="another host"),
        pytest.param("https://a:b@other.example.com", "https://a:b@other.example.com", id="another host, with a user"),
        pytest.param("//other.example.com/ledger", "//other.example.com/ledger", id="another host, without a scheme"),
        pytest.param("//ledger.example.com.example.net", "//ledger.example.com.example.net", id="a longer name"),
        pytest.param("http://[2001:db8::1]:8080/x", "http://[2001:db8::1]:8080/x", id="an address of IPv6"),
        pytest.param("//other.example.com:65535", "//other.example.com:65535", id="the highest port"),
        pytest.param("mailto:finance@example.com", "mailto:finance@example.com", id="another scheme"),
        pytest.param("com.example.app:/callback?code=1", "com.example.app:/callback?code=1", id="an app's scheme"),
        pytest.param("app:///callback", "app:///callback", id="an app's scheme, with slashes"),
        pytest.param("7", "7", id="a name beside"),
        pytest.param("./7?x", "./7?x", id="a name beside, with a dot"),
        pytest.param("../reports/7#x", "../reports/7#x", id="one level up"),
        pytest.param("?page=2", "?page=2", id="a query"),
        pytest.param("#part", "#part", id="a fragment"),
        pytest.param("7:8/9", None, id="what could be a scheme"),
        pytest.param("a/b:c", "a/b:c", id="a colon after a slash"),
    ],
)  # fmt: skip
def test_where_it_points_to(location: str, becomes: str | None) -> None:
    assert answer(location) == becomes


@pytest.mark.parametrize(
    "location",
    [
        pytest.param("https://ledger.example.com/", id="outside of the base"),
        pytest.param("https://ledger.example.com", id="no path at all"),
        pytest.param("https://ledger.example.com/apis/x", id="a path that begins like the base's"),
        pytest.param("https://ledger.example.com/API/x", id="a path in upper case"),
        pytest.param("http://ledger.example.com/api/x", id="another scheme"),
        pytest.param("ftp://ledger.example.com/api/x", id="a scheme of its own"),
        pytest.param("https://ledger.example.com:8443/api/x", id="another port"),
        pytest.param("https://ledger.example.com:80/api/x", id="another scheme's port"),
        pytest.param("https://user@ledger.example.com/api/x", id="a user"),
        pytest.param("https://@ledger.example.com/api/x", id="an empty user"),
        pytest.param("https://ledger.example.com@other.example.com@x.example.com/", id="two users"),
        pytest.param("https://gate.example.com/other/x", id="another upstream, by the gate's name"),
        pytest.param("https://gate.example.com/ledger/../other", id="another upstream, behind dots"),
        pytest.param("https://gate.example.com/ledgers", id="another upstream, whose name begins like it"),
        pytest.param("http://gate.example.com/ledger/x", id="the gate by another scheme"),
        pytest.param("https://gate.example.com:8443/ledger/x", id="another port of the gate"),
        pytest.param("//gate.example.com/other", id="another upstream, without a scheme"),
        pytest.param("/other/x", id="another path"),
        pytest.param("/", id="the root"),
        pytest.param("/ledger/x", id="the gate's own path, which is none of the upstream's"),
        pytest.param("/api/..", id="dots that leave"),
        pytest.param("/api/../other/x", id="dots that leave to another upstream"),
        pytest.param("/api/a/../../api/x", id="dots that leave and come back"),
        pytest.param("/api/%2e%2E/other", id="encoded dots that leave"),
        pytest.param("/api/.%2e/other", id="half-encoded dots that leave"),
        pytest.param("/x/../api/y", id="dots in front of the base"),
        pytest.param("../../x", id="relative dots that leave"),
        pytest.param("../../ledger/x", id="relative dots that leave and come back"),
        pytest.param("a/../../../other", id="relative dots that leave later"),
        pytest.param("%2e%2e/%2e%2e/other", id="relative, encoded dots that leave"),
        pytest.param("x//..", id="relative dots after an empty segment"),
        pytest.param("..//../other", id="relative dots that leave where empty segments don't count"),
        pytest.param("///other.example.com/x", id="three slashes"),
        pytest.param("https:///other.example.com/x", id="a scheme and three slashes"),
        pytest.param("https:other/x", id="a scheme without slashes"),
        pytest.param("http:/ledger/x", id="a scheme with one slash"),
        pytest.param("\\\\other.example.com/x", id="backslashes"),
        pytest.param("/\\other.example.com/x", id="a slash and a backslash"),
        pytest.param("https://other.example.com\\@ledger.example.com/", id="a backslash in front of a user"),
        pytest.param("/api/x?a\\b", id="a backslash in a query"),
        pytest.param("", id="nothing"),
        pytest.param(" ", id="white space"),
        pytest.param(" /api/x", id="white space in front"),
        pytest.param("/api/a b", id="white space in a path"),
        pytest.param("/a\tpi/x", id="a tab"),
        pytest.param("/api/x\r\nSet-Cookie: a=b", id="a line break"),
        pytest.param("/api/x\n", id="a line feed at the end"),
        pytest.param("/api/\x00", id="a null"),
        pytest.param("/api/\u00e9", id="a character outside of ASCII"),
        pytest.param("https://ledger\uff0eexample.com/api/x", id="another dot"),
        pytest.param("https://ledger%2eexample.com/api/x", id="an encoded host"),
        pytest.param("/api/%zz", id="a percent sign that encodes nothing"),
        pytest.param("/api/%", id="a percent sign alone"),
        pytest.param("/api/{x}", id="a character that paths have not"),
        pytest.param("https://ledger.example.com/api/{x}", id="such a character in an address"),
        pytest.param("https://other.example.com/{x}", id="such a character in another's address"),
        pytest.param("https://other.example.com:65536/", id="a port that there is not"),
        pytest.param("https://other.example.com:x/", id="a port that is no number"),
        pytest.param("https://[::1/x", id="half a bracket"),
        pytest.param("https://[::g]/x", id="a bracket with something else in it"),
        pytest.param("https://2130706433/", id="an address as one number"),
        pytest.param("https://0x7f.0.0.1/", id="an address in hex"),
        pytest.param("https://127.1/", id="half an address"),
        pytest.param("https:///", id="no host"),
        pytest.param("//", id="nothing but slashes"),
        pytest.param("https://", id="nothing but a scheme"),
        pytest.param("https://other.example.com/" + "x" * LONGEST, id="endless"),
        pytest.param("/api/" + "%41" * 600, id="endlessly encoded"),
        pytest.param("a" + "%41" * 600, id="relative, endlessly encoded"),
    ],
)  # fmt: skip
def test_what_is_left_out(location: str) -> None:
    assert answer(location) is None


@pytest.mark.parametrize(
    ("base", "location", "becomes"),
    [
        ("https://ledger.example.com", "/anything/at/all", "/ledger/anything/at/all"),
        ("https://ledger.example.com", "/ledger/x", "/ledger/ledger/x"),
        ("https://ledger.example.com", "https://ledger.example.com?x", "/ledger?x"),
        ("https://ledger.example.com", "/../x", None),
        ("https://Ledger.Example.com:443/a/b", "//ledger.example.com/a/b/c", "/ledger/c"),
        ("https://ledger.example.com/a/b", "/a/bc", None),
        ("https://ledger.example.com/a/b", "/a", None),
        ("http://127.0.0.1:8000/base", "http://127.0.0.1:8000/base/x", "/ledger/x"),
        ("http://127.0.0.1:8000/base", "http://127.0.0.1:8787/other", None),
        ("http://127.0.0.1:8000/base", "http://127.0.0.1/base", None),
        ("http://ledger.internal", "http://ledger.internal:80/x", "/ledger/x"),
        ("http://[::1]:8000", "http://[0:0::0:1]:8000/x", "/ledger/x"),
        ("http://[::1]:8000", "http://[::1]/x", None),
    ],
)
def test_bases(base: str, location: str, becomes: str | None) -> None:
    assert answer(location, base) == becomes


def test_a_gate_and_an_upstream_on_one_machine() -> None:
    base, gate = "http://127.0.0.1:8000/base", "http://127.0.0.1:8787"
    assert answer("http://127.0.0.1:8000/base/x", base, gate=gate) == "/ledger/x"
    assert answer("http://127.0.0.1:8787/ledger/x", base, gate=gate) == "/ledger/x"
    assert answer("http://127.0.0.1:8787/other/x", base, gate=gate) is None
    # As an upstream says it that goes by X-Forwarded-Host, and not by X-Forwarded-Prefix.
    assert answer("http://127.0.0.1:8787/base/x", base, gate=gate) == "/ledger/x"
    assert answer("http://127.0.0.1:8787/crm/x", "http://127.0.0.1:8000", gate=gate) == "/ledger/crm/x"


@pytest.mark.parametrize(
    ("path", "location", "may"),
    [
        pytest.param("", "x", False, id="the upstream's name without a slash: it would be another's"),
        pytest.param("", "?x", True, id="a query to it"),
        pytest.param("/", "x", True, id="with a slash"),
        pytest.param("/", "..", False, id="and up"),
        pytest.param("/a", "..", False, id="up from the first level"),
        pytest.param("/a/", "..", True, id="up to the first level"),
        pytest.param("/a/b", ".", True, id="the same level"),
        pytest.param("/a/b/", "../../x", True, id="as far up as it goes"),
        pytest.param("/a/b/", "../../../x", False, id="further up than it goes"),
    ],
)
def test_relative_references_go_by_the_path_that_was_asked_for(path: str, location: str, may: bool) -> None:
    assert answer(location, path=path) == (location if may else None)


# What redirects are made of, the dangerous pieces often.
_PIECES = st.sampled_from([
    "/", "//", "\\", ".", "..", "%2e", "%2E%2e", "%2f", "%5c", "@", ":", "?", "#", "api", "ledger", "other", "x", "",
    "https:", "http:", "mailto:", "ledger.example.com", "gate.example.com", "evil.example.net", "[::1]", ":443", ":80",
    " ", "\t", "\u00e9", "%", "/api", "/api/", "/ledger/", "https://ledger.example.com/api", "https://gate.example.com/ledger",
])  # fmt: skip


@given(
    st.lists(_PIECES, max_size=8).map("".join),
    st.sampled_from(["", "/", "/v1", "/v1/", "/v1/entries/7"]),
    st.sampled_from([BASE, "https://ledger.example.com", "https://ledger.example.com/ledger", "https://ledger.example.com/a/b"]),
)  # fmt: skip
@settings(max_examples=examples(2000))
def test_no_answer_leads_to_another_upstream(location: str, path: str, base: str) -> None:
    """Whoever follows it comes back to the upstream that it is from, or leaves the gate altogether."""
    result = answer(location, base, path)
    if result is None:
        return
    assert result.isascii()
    assert result.isprintable()
    assert not set(result) & set("\\ ")
    # As RFC 3986 resolves it, and as browsers do, which read encoded dots as dots.
    for written in (result, result.lower().replace("%2e", ".")):
        reached = urlsplit(urljoin(f"{GATE}/ledger{path}", written))
        assert reached.hostname != "ledger.example.com"
        if reached.hostname == "gate.example.com":
            assert reached.netloc == "gate.example.com"
            assert unquote(reached.path).split("/")[1] == "ledger"
        else:
            assert result == location
            assert reached.hostname or reached.scheme not in ("", "http", "https")


@given(
    st.lists(st.sampled_from(["/a", "/b%20c", "/~", "/", "/d;e=f"]), max_size=4).map("".join),
    st.sampled_from(["", "?", "?a=/../b", "#c", "?a#b?c"]),
    st.sampled_from(["https://ledger.example.com", "//LEDGER.example.com:443", ""]),
)  # fmt: skip
@settings(max_examples=examples(1000))
def test_what_is_under_the_base_is_found_again_under_the_upstreams_name(
    path: str, after: str, host: str
) -> None:
    assert answer(f"{host}/api{path}{after}") == f"/ledger{path}{after}"
