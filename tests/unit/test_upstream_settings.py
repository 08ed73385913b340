"""What an upstream says of itself: how it is compiled, what is refused with words, and what deserves a second look."""

import json
import re
from ipaddress import IPv4Address, IPv6Address
from itertools import product
from pathlib import Path
from typing import Any

import every_setting
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from airgate.engine import Reason, load_bundle
from airgate.node import PROJECT
from airgate.policy import app, upstreams
from airgate.policy.addresses import address, path_pattern, private_address
from airgate.policy.changes import Comparison
from airgate.policy.compile import StandIns, compile_folder
from airgate.policy.exposure import looks_secret
from airgate.policy.finding import Finding
from airgate.policy.findings import findings
from airgate.policy.gate import Gate
from airgate.policy.request import Request
from airgate.policy.seed import SeedError

ISSUER = "{issuer: https://login.example.com, audiences: [https://gate.example.com], algorithms: [RS256]}"
HEAD = f"""\
issuers:
  company: {ISSUER}
roles:
  reader: {{description: d, granted_to: [{{issuer: company, claim: groups, value: readers}}]}}
"""
TAIL = """\
policies:
  - id: read
    description: d
    owner: o@example.com
    effect: permit
    subject: {issuer: company, roles: {any: [reader]}}
    target: {upstream: ledger, methods: [GET], paths: ["/v1/**"]}
"""
BASE = "base: https://ledger.example.com"


def seed(folder: Path, settings: str = BASE, tail: str = TAIL) -> Path:
    """A seed with one upstream, whose settings begin at 7:5."""
    folder.mkdir(exist_ok=True)
    lines = "".join(f"    {line}\n" for line in f"{settings}\nowner: o@example.com".splitlines())
    (folder / "a.yaml").write_text(f"{HEAD}upstreams:\n  ledger:\n{lines}{tail}", "utf-8")
    return folder


def problems(folder: Path, settings: str = BASE, tail: str = TAIL) -> list[str]:
    with pytest.raises(SeedError) as caught:
        compile_folder(seed(folder, settings, tail))
    return [str(problem).removeprefix(str(folder / "a.yaml") + ":") for problem in caught.value.problems]


def found(folder: Path, settings: str = BASE, tail: str = TAIL) -> list[Finding]:
    return findings(compile_folder(seed(folder, settings, tail)))


def test_every_setting_is_compiled(tmp_path: Path) -> None:
    written = every_setting.WRITTEN.replace("owner: o@example.com\n", "")
    compiled = compile_folder(seed(tmp_path, written))
    assert compiled.bundle["upstreams"]["ledger"] == every_setting.COMPILED
    assert load_bundle(compiled.text).upstreams["ledger"].base == "https://ledger.example.com/api"


def test_what_is_left_out_is_as_usual(tmp_path: Path) -> None:
    compiled = compile_folder(seed(tmp_path)).bundle["upstreams"]["ledger"]
    assert compiled == {
        "base": "https://ledger.example.com",
        "owner": "o@example.com",
        **every_setting.USUAL,
    }


def test_the_stand_in_is_reached_directly(tmp_path: Path) -> None:
    folder = seed(tmp_path, "base: http://ledger:8080\nvia: VIA_LEDGER\nlocal: sample")
    compiled = compile_folder(folder, StandIns("http://127.0.0.1:1", "http://127.0.0.1:2"))
    upstream = compiled.bundle["upstreams"]["ledger"]
    assert (upstream["base"], upstream["via"]) == ("http://127.0.0.1:2/ledger", None)


@pytest.mark.parametrize(
    ("said", "usual"),
    [
        ("credentials: {a: {kind: caller}}", "a"),
        ("credentials: {a: {kind: caller}, b: {kind: caller}}", None),
        ("credentials: {a: {kind: caller}, b: {kind: caller}}\ncredential: b", "b"),
        ("log_path: true", None),
    ],
)
def test_the_usual_credential(said: str, usual: str | None) -> None:
    assert upstreams.upstream({"base": "", "owner": "", **yaml.safe_load(said)})["credential"] == usual


HEADER = "credentials: {a: {kind: header, secret: UPSTREAM_A, %s}}"
LOGIN = "credentials: {a: {kind: login, url: %s, secret: UPSTREAM_A, fields: %s}}"
FIELDS = '{password: "{secret}"}'

# name, the settings, what is said: where, of what, and how it goes on
MISTAKES: list[tuple[str, str, str]] = [
    ("http", "base: http://ledger.example.com", "7:11: upstreams.ledger.base: .*write https"),
    ("a private network", "base: https://10.1.2.3", "7:11: upstreams.ledger.base: .*not a public one.*private: true"),
    ("the metadata service", "base: https://169.254.169.254", "base: .*not a public one"),
    ("a private name", "base: https://ledger.internal", "base: .*end with .internal are known in a private network"),
    ("a name of one word", "base: https://ledger", "base: .*a name of one word"),
    ("another spelling of this machine", "base: https://2130706433", "base: .*odd spelling.*write 127.0.0.1"),
    ("a private name, via a binding, oddly", "base: https://127.1\nvia: VIA_A", "base: .*odd spelling"),
    ("a way with another name", f"{BASE}\nvia: LEDGER", "8:10: upstreams.ledger.via: .*VIA_ and A-Z"),
    ("plain http by the public way", "base: http://ledger.example.com\nvia: public", "base: .*http would send"),
    ("private beside via", "base: https://ledger\nvia: VIA_A\nprivate: true", "9:14: upstreams.ledger.private: says "),
    ("a total that is shorter", f"{BASE}\ntotal_timeout: 20s", '8:20: .*is over before timeout, "30s"'),
    ("a total that is shorter than what is said", f"{BASE}\ntimeout: 2m\ntotal_timeout: 1m", "9:20: .*over before"),
    ("a total that is too long", f"{BASE}\ntotal_timeout: 25h", "must be from 1s to 24h"),
    ("too many retries", f"{BASE}\nretries: 6", "8:14: upstreams.ledger.retries: 6: more than 5"),
    ("half a retry", f"{BASE}\nretries: 1.5", "retries: 1.5: expected a whole number"),
    ("no room", f"{BASE}\nconcurrency: 0", "concurrency: 0: less than 1"),
    ("a breaker that is on", f"{BASE}\nbreaker: true", "8:14: .*false turns it off"),
    ("a breaker's ratio", f"{BASE}\nbreaker: {{ratio: 2}}", "breaker.ratio: 2: more than 1"),
    ("a breaker's ratio as text", f"{BASE}\nbreaker: {{ratio: half}}", 'ratio: "half": expected a number'),
    ("a breaker that stays open", f"{BASE}\nbreaker: {{open: 11m}}", "breaker.open: .*from 1s to 10m"),
    ("a breaker's word", f"{BASE}\nbreaker: {{failure: 3}}", 'did you mean "failures"'),
    ("a size", f"{BASE}\nmax_body: 10 MB", "max_body: .*a whole number with B, KB"),
    ("a word of encoded_slash", f"{BASE}\nencoded_slash: allow", "expected refuse or segment"),
    ("a host with a scheme", f"{BASE}\nhosts: [https://a.example.com]", "8:13: upstreams.ledger.hosts: .*is no host"),
    ("a host with the usual port", f'{BASE}\nhosts: ["a.example.com:443"]', 'write "a.example.com"'),
    ("a host with a wrong port", f'{BASE}\nhosts: ["a.example.com:x"]', '"x" is no port'),
    ("a host without a port", f'{BASE}\nhosts: ["a.example.com:"]', '"" is no port'),
    ("a host with too high a port", f'{BASE}\nhosts: ["a.example.com:70000"]', '"70000" is no port'),
    ("a wildcard for hosts", f'{BASE}\nhosts: ["*.example.com"]', "no wildcards"),
    ("a host twice", f"{BASE}\nhosts: [a.example.com, A.example.com]", "8:28: .*stands here twice"),
    ("a header that is kept back", f"{BASE}\nrequest_headers: [accept, Authorization]", "8:31: .*never passes"),
    ("headers that are kept back", f"{BASE}\nrequest_headers: [airgate-*]", "never passes"),
    ("a wildcard inside", f"{BASE}\nrequest_headers: [x-*-id]", "which may end with"),
    ("a secret's header, set", f"{BASE}\nset_headers: {{Authorization: x}}", "8:19: .*write it under credentials"),
    ("a connection's header, set", f"{BASE}\nset_headers: {{Connection: close}}", "belongs to the connection"),
    ("the gate's header, set", f"{BASE}\nset_headers: {{airgate-x: y}}", "or to the gate"),
    ("a header twice, set", f"{BASE}\nset_headers: {{x-a: b, X-A: c}}", "8:27: .*stands here twice"),
    ("a header that nobody can send", f"{BASE}\nset_headers: {{x-a: ü}}", "8:24: .*printable ASCII"),
    ("a number as a header", f"{BASE}\nset_headers: {{x-a: 2}}", 'Then quote it: "2"'),
    ("every page", f'{BASE}\ncors: {{origins: ["*"]}}', "8:22: upstreams.ledger.cors.origins: .*let pages in"),
    ("a page without an origin", f'{BASE}\ncors: {{origins: ["null"]}}', "let pages in"),
    ("a page's address", f"{BASE}\ncors: {{origins: [https://a.example.com/x]}}", 'write "https://a.example.com"'),
    ("an origin with a slash", f"{BASE}\ncors: {{origins: [https://a.example.com/]}}", 'write "https://a.example.com"'),
    ("an origin in the clear", f"{BASE}\ncors: {{origins: [http://a.example.com]}}", "write https"),
    ("an origin's usual port", f'{BASE}\ncors: {{origins: ["https://a.example.com:443"]}}', "leave this port out"),
    ("an origin in capitals", f"{BASE}\ncors: {{origins: [https://A.example.com]}}", "in small letters"),
    ("credentials without pages", f"{BASE}\ncors: {{credentials: true}}", '"origins" is missing'),
    ("every header of a page", f'{BASE}\ncors: {{origins: [https://a.example.com], headers: ["*"]}}', "no wildcards"),
    ("a credential that isn't there", f"{BASE}\ncredential: mian\ncredentials: {{main: {{kind: caller}}}}",
     '8:17: upstreams.ledger.credential: "mian": no such credential; did you mean "main"'),
    ("a credential of none", f"{BASE}\ncredential: main", "no such credential; known: none"),
    ("a kind misspelt", f"{BASE}\ncredentials: {{a: {{kind: heder}}}}", 'kind: .*did you mean "header"'),
    ("no kind", f"{BASE}\ncredentials: {{a: {{secret: UPSTREAM_A}}}}", '"kind" is missing'),
    ("another kind's member", f"{BASE}\n" + HEADER % "scope: x", '8:57: .*"scope": no such key here; known here: kind'),
    ("no secret", f"{BASE}\ncredentials: {{a: {{kind: basic}}}}", '"secret" is missing'),
    ("the secret itself", f"{BASE}\ncredentials: {{a: {{kind: header, secret: s3cr3t}}}}", "never the secret itself"),
    ("a secret's name that is too long", f"{BASE}\ncredentials: {{a: {{kind: header, secret: UPSTREAM_{'A' * 56}}}}}",
     "at most 64"),
    ("a secret's header", f"{BASE}\n" + HEADER % "header: Host", "no secret can go there"),
    ("a format without a place", f"{BASE}\n" + HEADER % "format: Bearer", "holds {secret} once"),
    ("a format with two places", f"{BASE}\n" + HEADER % 'format: "{secret}{secret}"', "holds {secret} once"),
    ("a format with another place", f"{BASE}\n" + HEADER % 'format: "{token} {secret}"', "holds {secret} once"),
    ("a token's format", f"{BASE}\n" + (LOGIN % ("https://a.example.com", FIELDS)).replace(
        "fields", 'format: "{secret}", fields'), "holds {token} once"),
    ("a format that nobody can send", f"{BASE}\n" + HEADER % 'format: "{secret} ü"', "no header can say this"),
    ("a credential's header that is set too", f"{BASE}\nset_headers: {{X-Key: a}}\n" + HEADER % "header: x-key",
     "8:19: .*the credential a sets it"),
    ("a signature's header that is set too", f"{BASE}\nset_headers: {{X-Amz-Date: a}}\ncredentials: {{a: {{kind: "
     "sigv4, secret: UPSTREAM_A, region: a, service: b}}", "the credential a sets it"),
    ("a user with a colon", f'{BASE}\ncredentials: {{a: {{kind: basic, user: "a:b", secret: UPSTREAM_A}}}}',
     "RFC 7617"),
    ("tokens in the clear", f"{BASE}\n" + LOGIN % ("http://a.example.com", FIELDS), "write https"),
    ("tokens from inside", f"{BASE}\n" + LOGIN % ("https://10.0.0.1", FIELDS), "not a public one"),
    ("tokens from inside, via a binding", "base: https://ledger\nvia: VIA_A\n" + LOGIN % ("https://login", FIELDS),
     "a name of one word.*private: true"),
    ("a login without its secret", f"{BASE}\n" + LOGIN % ("https://a.example.com", "{a: b}"), "8:[0-9]+: .*one of the"),
    ("a login with its secret twice", f"{BASE}\n" + LOGIN % (
        "https://a.example.com", '{a: "{secret}", b: "{secret}"}'), "one of the fields"),
    ("a login with another place", f"{BASE}\n" + LOGIN % (
        "https://a.example.com", '{a: "{secret}", b: "{user}"}'), "nothing but {secret}"),
    ("an issuer with another place", f"{BASE}\ncredentials: {{a: {{kind: jwt_bearer, secret: UPSTREAM_A, issuer: "
     '"{key}"}}', "nothing but {fingerprint}"),
    ("a token that is over at once", f"{BASE}\ncredentials: {{a: {{kind: jwt_bearer, secret: UPSTREAM_A, lifetime: "
     "30s}}", "lifetime: .*must be from 1m to 24h"),
    ("scopes as one text", f"{BASE}\ncredentials: {{a: {{kind: jwt_bearer, secret: UPSTREAM_A, scope: a b}}}}",
     "write several as a list"),
    ("a region", f"{BASE}\ncredentials: {{a: {{kind: sigv4, secret: UPSTREAM_A, region: EU, service: s3}}}}",
     "a name of AWS"),
    ("a caller's secret", f"{BASE}\ncredentials: {{a: {{kind: caller, secret: UPSTREAM_A}}}}", "no such key here"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "problem"), [pytest.param(*row[1:], id=row[0]) for row in MISTAKES])
def test_a_mistake_is_named_with_its_place(said: str, problem: str, tmp_path: Path) -> None:
    lines = problems(tmp_path, said)
    braced = problem.replace("{", r"\{").replace("}", r"\}")
    assert len(lines) == 1
    assert re.search(braced, lines[0]), lines


RIGHT: list[tuple[str, str]] = [
    ("this machine", "base: http://localhost:8080"),
    ("this machine, by IPv6", 'base: "http://[::1]:8080"'),
    ("a private network that is meant", "base: https://10.1.2.3\nprivate: true"),
    ("a private name that is meant", "base: https://ledger.internal\nprivate: true"),
    ("a private name, via a binding", "base: http://ledger:8080/api\nvia: VIA_LEDGER"),
    ("the public way, by its name", f"{BASE}\nvia: public"),
    ("a private name by the public way", "base: https://ledger\nvia: public\nprivate: true"),
    (
        "tokens from inside, via a binding",
        "base: http://ledger\nvia: VIA_A\nprivate: true\n" + LOGIN % ("https://login", FIELDS),
    ),
    ("a total as long as the timeout", f"{BASE}\ntotal_timeout: 30s"),
    ("a breaker by its ratio alone", f"{BASE}\nbreaker: {{ratio: 1}}"),
    ("no breaker", f"{BASE}\nbreaker: false"),
    ("a public address", "base: https://198.41.0.4"),
    ("a page on this machine", f'{BASE}\ncors: {{origins: ["http://localhost:3000"]}}'),
    ("an Access service token", f"{BASE}\nset_headers: {{CF-Access-Client-Id: a}}\n"
     + HEADER % 'header: CF-Access-Client-Secret, format: "{secret}"'),
    ("a secret in a cookie", f"{BASE}\n" + HEADER % 'header: cookie, format: "session={secret}"'),
]  # fmt: skip


@pytest.mark.parametrize("said", [pytest.param(row[1], id=row[0]) for row in RIGHT])
def test_what_is_right(said: str, tmp_path: Path) -> None:
    assert compile_folder(seed(tmp_path, said)).engine.bundle.upstreams.keys() == {"ledger"}


ADDRESSES: list[tuple[str, str]] = [
    # a host, and what it is: public, private, odd (another spelling of an address), wrong
    ("api.example.com", "public"),
    ("xn--bcher-kva.example", "public"),
    ("1.example.com", "public"),
    ("198.41.0.4", "public"),
    ("[2606:4700::1]", "public"),
    ("localhost", "here"),
    ("127.0.0.1", "here"),
    ("[::1]", "here"),
    ("127.0.0.2", "private"),
    ("10.0.0.1", "private"),
    ("172.16.0.1", "private"),
    ("172.32.0.1", "public"),
    ("192.168.1.1", "private"),
    ("100.64.0.1", "private"),
    ("169.254.169.254", "private"),
    ("0.0.0.0", "private"),
    ("224.0.0.1", "private"),
    ("240.0.0.1", "private"),
    ("255.255.255.255", "private"),
    ("192.0.2.1", "private"),
    ("198.18.0.1", "private"),
    ("[::]", "private"),
    ("[fc00::1]", "private"),
    ("[fd12:3456::1]", "private"),
    ("[fe80::1]", "private"),
    ("[ff02::1]", "private"),
    ("[2001:db8::1]", "private"),
    ("[::ffff:10.0.0.1]", "private"),
    ("[::ffff:7f00:1]", "private"),
    ("[::ffff:198.41.0.4]", "public"),
    ("[64:ff9b::10.0.0.1]", "private"),
    ("[64:ff9b::a9fe:a9fe]", "private"),
    ("[64:ff9b:1::1]", "private"),
    ("[2002:a00:1::]", "private"),
    ("[::7f00:1]", "private"),
    ("a.localhost", "private"),
    ("printer.local", "private"),
    ("metadata.google.internal", "private"),
    ("nas.lan", "private"),
    ("nas.home.arpa", "private"),
    ("ledger", "private"),
    ("2130706433", "odd"),
    ("0x7f000001", "odd"),
    ("0x7f.1", "odd"),
    ("127.1", "odd"),
    ("127.0.1", "odd"),
    ("0177.0.0.1", "odd"),
    ("127.0.0.01", "odd"),
    ("1.2.3.256", "odd"),
    ("1.2.3.4.5", "odd"),
    ("example.0x10", "odd and useless"),
    ("08.1", "odd"),
    ("[1::2::3]", "wrong"),
    ("[fe80::1%25eth0]", "wrong"),
    ("API.example.com", "wrong"),
    ("api.example.com.", "wrong"),
    ("api_1.example.com", "wrong"),
    ("*.example.com", "wrong"),
    ("-a.example.com", "wrong"),
    ("a..example.com", "wrong"),
    ("①②⑦.0.0.1", "wrong"),
    ("a" * 64 + ".example.com", "public"),
    ("a." * 130 + "com", "wrong"),
]


@pytest.mark.parametrize(("host", "kind"), ADDRESSES, ids=[row[0][:30] for row in ADDRESSES])
@pytest.mark.parametrize("port", ["", ":8443"], ids=["", "with a port"])
def test_hosts(host: str, kind: str, port: str) -> None:
    url = f"https://{host}{port}/api"
    said = address(url)
    assert bool(said) is (kind in ("odd", "odd and useless", "wrong"))
    assert ("odd spelling" in said) is kind.startswith("odd")
    if not said:
        assert bool(private_address(url)) is (kind == "private")


@pytest.mark.parametrize(("host", "kind"), ADDRESSES, ids=[row[0][:30] for row in ADDRESSES])
def test_the_gate_takes_no_host_that_policy_may_not_name(host: str, kind: str) -> None:
    """Its own check is the last word; it says what the command says."""
    usual = {"base": f"https://{host}", "owner": "o"}
    document = {
        "format": 5, "issuers": {}, "roles": {}, "claims": [], "shards": {}, "zones_until": None,
        "upstreams": {"x": upstreams.upstream(usual)},
    }  # fmt: skip
    if kind in ("private", "odd"):
        with pytest.raises(ValueError, match="base"):
            load_bundle(json.dumps(document))
    elif kind in ("public", "here"):
        assert load_bundle(json.dumps(document)).upstreams.keys() == {"x"}


@given(st.ip_addresses() | st.integers(0, 2**32 - 1).map(lambda low: IPv6Address((0xFFFF << 32) + low)))
def test_the_gate_takes_every_address_that_policy_may_name(ip: IPv4Address | IPv6Address) -> None:
    host = f"[{ip}]" if ip.version == 6 else str(ip)
    url = f"https://{host}"
    if not address(url) and not private_address(url):
        document = {
            "format": 5, "issuers": {}, "roles": {}, "claims": [], "shards": {}, "zones_until": None,
            "upstreams": {"x": upstreams.upstream({"base": url, "owner": "o"})},
        }  # fmt: skip
        assert load_bundle(json.dumps(document)).upstreams["x"].base == url


def test_two_upstreams_share_no_host(tmp_path: Path) -> None:
    other = "  crm: {base: https://crm.example.com, owner: o, hosts: [A.example.com]}\n"
    lines = problems(tmp_path, f"{BASE}\nhosts: [b.example.com, a.example.com]", other + TAIL)
    assert [line.partition(": upstreams.crm.hosts: ")[0] for line in lines] == ["10:58"]
    assert f"only one upstream may have it; {tmp_path}/a.yaml:6:3 does" in lines[0]


CREDENTIALS = "credentials: {main: {kind: caller}, key: {kind: header, secret: UPSTREAM_KEY}}"
OBLIGED = TAIL + "    obligations: {credential: %s}\n"


@pytest.mark.parametrize(
    ("said", "name", "problem"),
    [
        pytest.param(CREDENTIALS, "key", "", id="one that is there"),
        pytest.param(CREDENTIALS, "kye", '; did you mean "key"?', id="one misspelt"),
        pytest.param(CREDENTIALS, "other", "; it has key, main", id="another one"),
        pytest.param("log_path: true", "main", "; it has none", id="one of none"),
    ],
)
def test_the_credential_of_an_obligation_is_the_upstreams(
    said: str, name: str, problem: str, tmp_path: Path
) -> None:
    if problem:
        [line] = problems(tmp_path, f"{BASE}\n{said}", OBLIGED % name)
        assert line.startswith(f'17:31: obligations.credential: "{name}": the upstream ledger (')
        assert line.endswith("has no such credential" + problem)
    else:
        compiled = compile_folder(seed(tmp_path, f"{BASE}\n{said}", OBLIGED % name))
        assert compiled.rules["ledger"][0].obligations == {"credential": name}


def test_the_credential_of_an_obligation_is_at_all_of_its_upstreams(tmp_path: Path) -> None:
    other = "  crm: {base: https://crm.example.com, owner: o}\n"
    tail = other + (OBLIGED % "key").replace("upstream: ledger", "upstream: [ledger, crm]")
    [line] = problems(tmp_path, f"{BASE}\n{CREDENTIALS}", tail)
    assert "the upstream crm (" in line


# name, the settings, what is found: notes begin with a dash
FOUND: list[tuple[str, str, list[str]]] = [
    ("nothing", BASE, []),
    ("one credential", f"{BASE}\ncredentials: {{a: {{kind: header, secret: UPSTREAM_A}}}}", []),
    ("a secret that is set", f"{BASE}\nset_headers: {{x-api-key: 9f8b2c7d6e5a4b3c2d1e0f9a8b7c6d5e}}", ["secret"]),
    ("a bearer token that is set", f"{BASE}\nset_headers: {{x-auth: Bearer abc}}", ["secret"]),
    ("a secret in a format", f"{BASE}\n" + HEADER % 'format: "Key id=xoxb-17 {secret}"', ["secret"]),
    ("a secret in a field", f"{BASE}\n" + LOGIN % (
        "https://a.example.com", '{a: "{secret}", b: AKIAIOSFODNN7EXAMPLE}'), ["secret"]),
    ("a caller's own", f"{BASE}\ncredentials: {{a: {{kind: caller}}}}", ["-caller-credential"]),
    ("a credential that nobody uses", f"{BASE}\n{CREDENTIALS}\ncredential: key",
     ["-caller-credential", "-unused-credential"]),
    ("no usual credential", f"{BASE}\n{CREDENTIALS}",
     ["-caller-credential", "-no-credential", "-unused-credential", "-unused-credential"]),
    ("long bodies, signed", f"{BASE}\nmax_body: 2MB\ncredentials: {{a: {{kind: sigv4, secret: UPSTREAM_A, region: a, "
     "service: b}}", ["signed-body"]),
    ("bodies of any length, signed", f"{BASE}\ncredentials: {{a: {{kind: sigv4, secret: UPSTREAM_A, region: a, "
     "service: b}}", ["-signed-body"]),
    ("short bodies, signed", f"{BASE}\nmax_body: 1MB\ncredentials: {{a: {{kind: sigv4, secret: UPSTREAM_A, region: a, "
     "service: b}}", []),
    ("long bodies, not signed", f"{BASE}\ncredentials: {{a: {{kind: sigv4, secret: UPSTREAM_A, region: a, "
     "service: b, payload: unsigned}}", []),
]  # fmt: skip


@pytest.mark.parametrize(("said", "codes"), [pytest.param(*row[1:], id=row[0]) for row in FOUND])
def test_what_deserves_a_second_look(said: str, codes: list[str], tmp_path: Path) -> None:
    assert sorted("-" * each.note + each.code for each in found(tmp_path, said)) == codes


SECRETS = [
    ("9f8b2c7d6e5a4b3c2d1e0f9a8b7c6d5e", True),
    ("Bearer {secret}", False),
    ("Bearer {token}", False),
    ("Token {secret} v2", False),
    ("Bearer abc", True),
    ("bearer  x{secret}", True),
    ("eyJhbGciOiJub25lIn0", True),
    ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", True),
    ("AKIAIOSFODNN7EXAMPLE", True),
    ("application/vnd.example.v2+json; charset=utf-8", False),
    ("application/json, text/event-stream;q=0.9", False),
    ("KEYPAIR_JWT", False),
    ("2026-01-31T08:00:00Z", False),
    ("123e4567-e89b-42d3-a456-426614174000", False),
    ("https://ledger.example.com/a/very/long/address/of/some/page", False),
    ("the-finance-department-of-example-com", False),
    ("00000000000000000000000000000001", False),
]


@pytest.mark.parametrize(("text", "secret"), SECRETS, ids=[row[0] for row in SECRETS])
def test_what_looks_like_a_secret(text: str, secret: bool) -> None:
    assert looks_secret(text) is secret


A = "credentials: {a: {kind: header, secret: UPSTREAM_A}}"
B = "credentials: {b: {kind: %s, secret: UPSTREAM_A%s}}"


@pytest.mark.parametrize(
    ("base", "credentials", "shared"),
    [
        pytest.param("https://crm.example.com", B % ("basic", ""), True, id="another host"),
        pytest.param("https://ledger.example.com/crm", B % ("basic", ""), False, id="another path"),
        pytest.param("https://ledger.example.com:8443", B % ("basic", ""), True, id="another port"),
        pytest.param("https://crm.example.com", B % ("jwt_bearer", ""), False, id="a key that signs"),
        pytest.param(
            "https://crm.example.com",
            B % ("client_credentials", ", token_url: https://ledger.example.com/token, client_id: a"),
            False,
            id="another host that it doesn't go to",
        ),
        pytest.param(
            "https://ledger.example.com",
            B % ("client_credentials", ", token_url: https://login.example.com/token, client_id: a"),
            True,
            id="the same host, but for where tokens come from",
        ),
    ],
)
def test_a_secret_goes_to_one_host(base: str, credentials: str, shared: bool, tmp_path: Path) -> None:
    other = f"  crm: {{base: {base!r}, owner: o, {credentials}}}\n"
    tail = other + TAIL.replace("upstream: ledger", "upstream: [ledger, crm]")
    each = found(tmp_path, f"{BASE}\n{A}", tail)
    assert [finding.code for finding in each] == (["shared-secret"] if shared else [])
    for finding in each:
        assert '"UPSTREAM_A": goes to ' in finding.problem.text
        assert finding.problem.path == "upstreams.crm.credentials.b.secret"


PATHS = [
    ("/projects/{id}", "", ""),
    ("/projects/finance%2Fledger/**", "", ""),
    ("/projects/finance%2fledger", "", ""),
    ("/projects/finance%2F*", "", ""),
    (
        "/projects/finance%2F*",
        "ledger",
        'calls of ledger with one are refused; write "encoded_slash: segment"',
    ),
    ("/projects/a%2Fb%20c", "", "percent-encoded"),
    ("/projects/a%252Fb", "", "percent-encoded"),
    ("/projects/%2F", "", "holds nothing, or dots only, beside an encoded slash"),
    ("/projects/a%2F", "", "holds nothing, or dots only, beside an encoded slash"),
    ("/projects/a%2F..%2Fb", "", "holds nothing, or dots only, beside an encoded slash"),
    ("/projects/a%2F**", "", '"**" stands alone'),
    ("/projects/a%2F{id}", "", "not a whole {name}"),
    ("/projects//a", "", "empty segment"),
]


@pytest.mark.parametrize(("pattern", "refused", "wrong"), PATHS)
def test_patterns_with_encoded_slashes(pattern: str, refused: str, wrong: str) -> None:
    said = path_pattern(pattern, refused)
    assert wrong in said
    assert bool(said) is bool(wrong)


def test_all_upstreams_of_such_a_pattern_take_it(tmp_path: Path) -> None:
    other = "  crm: {base: https://crm.example.com, owner: o}\n"
    tail = other + TAIL.replace("upstream: ledger", "upstream: [ledger, crm]").replace("/v1/**", "/v1/a%2Fb")
    [line] = problems(tmp_path, f"{BASE}\nencoded_slash: segment", tail)
    assert line.startswith("17:75: target.paths: ") or ": target.paths: " in line
    assert "calls of crm with one are refused" in line


def asked(gate: Gate, path: str) -> bool | Reason:
    answer = gate.answer(Request.read({"path": path, "roles": ["reader"]}))
    return answer.reason or answer.permit


SLASHED = TAIL.replace("/v1/**", "/projects/finance%2F*/files/{file}")

CALLS: list[tuple[str, str, bool | Reason]] = [
    # settings, an address, and what the gate says
    ("encoded_slash: segment", "/ledger/projects/finance%2Fledger/files/a", True),
    ("encoded_slash: segment", "/ledger/projects/finance%2fledger/files/a%2Fb", True),
    ("encoded_slash: segment", "/ledger/projects/finance%2Fa%2Fb/files/a", True),
    ("encoded_slash: segment", "/ledger/projects/finance/ledger/files/a", Reason.POLICY_NO_MATCH),
    ("encoded_slash: segment", "/ledger/projects/sales%2Fledger/files/a", Reason.POLICY_NO_MATCH),
    ("encoded_slash: segment", "/ledger/projects/finance%2F..%2Fsales/files/a", Reason.ROUTE_PATH_AMBIGUOUS),
    ("encoded_slash: segment", "/ledger/projects/finance%252Fledger/files/a", Reason.ROUTE_PATH_AMBIGUOUS),
    ("encoded_slash: segment", "/ledger/projects/finance%2Fledger/files//", Reason.ROUTE_PATH_AMBIGUOUS),
    ("encoded_slash: segment\nempty_segments: true", "/ledger/projects/finance%2Fledger/files//", True),
    ("encoded_slash: segment\nempty_segments: true", "/ledger/projects/finance%2Fledger/files/",
     Reason.POLICY_NO_MATCH),
]  # fmt: skip


@pytest.mark.parametrize(("said", "path", "outcome"), CALLS)
def test_calls_with_odd_segments(said: str, path: str, outcome: bool | Reason, tmp_path: Path) -> None:
    assert asked(Gate(compile_folder(seed(tmp_path, f"{BASE}\n{said}", SLASHED)).engine), path) == outcome


@pytest.mark.parametrize(
    ("path", "outcome"),
    [
        ("/ledger/v1/a%2Fb", Reason.ROUTE_PATH_AMBIGUOUS),
        ("/ledger/v1//b", Reason.ROUTE_PATH_AMBIGUOUS),
        ("/ledger/v1/b/", True),
    ],
)
def test_what_an_upstream_does_not_take_is_refused(path: str, outcome: bool | Reason, tmp_path: Path) -> None:
    assert asked(Gate(compile_folder(seed(tmp_path)).engine), path) == outcome


def test_a_body_is_as_long_as_the_upstream_takes(tmp_path: Path) -> None:
    gate = Gate(compile_folder(seed(tmp_path, f"{BASE}\nmax_body: 10B", TAIL.replace("GET", "POST"))).engine)
    for body, reason in ((10, None), (11, Reason.REQUEST_BODY_TOO_LARGE)):
        asking = {"method": "POST", "path": "/ledger/v1/x", "roles": ["reader"], "body": body}
        assert gate.answer(Request.read(asking)).reason == reason


ODD = ("", "encoded_slash: segment", "empty_segments: true", "encoded_slash: segment\nempty_segments: true")
PATTERNS = ["/a", "/{x}", "/*b", "/a/*", "/a/{x}/b", "/**", "/a/**", "/{x}/a*"]
SLASHED_PATTERNS = [*PATTERNS, "/a%2Fb", "/a%2F*", "/*%2Fb/{x}", "/{x}/a%2Fb/**"]
PIECES = ["", "a", "b", "ab", "a%2Fb", "a%2Fa%2Fb", "x%2Fy"]
URLS = ["/ledger/" + "/".join(parts) for length in (1, 2, 3) for parts in product(PIECES, repeat=length)]
POLICY = """\
  - id: p%s
    description: d
    owner: o@example.com
    effect: %s
    subject: {issuer: company}
    target: {upstream: ledger, methods: [GET], paths: %s}
"""


@st.composite
def odd_seeds(draw: st.DrawFn) -> tuple[str, str]:
    said = draw(st.sampled_from(ODD))
    known = SLASHED_PATTERNS if "slash" in said else PATTERNS
    text = "policies:\n"
    for number in range(draw(st.integers(1, 3))):
        effect = draw(st.sampled_from(["permit", "permit", "forbid"]))
        paths = draw(st.lists(st.sampled_from(known), min_size=1, max_size=2, unique=True))
        text += POLICY % (number, effect, json.dumps(paths))
    return f"{BASE}\n{said}".rstrip(), text


@given(odd_seeds(), odd_seeds())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_call_with_odd_segments_is_missed_by_a_comparison(
    tmp_path: Path, old: tuple[str, str], new: tuple[str, str]
) -> None:
    before, after = (compile_folder(seed(tmp_path / name, *each)) for name, each in (("a", old), ("b", new)))
    changes = Comparison(before, after, 0).changes()
    gates = Gate(before.engine), Gate(after.engine)
    answers = [[asked(gate, url) is True for gate in gates] for url in URLS]
    for gained, kind in (([False, True], "gained"), ([True, False], "lost")):
        said = [change for change in changes if getattr(change, kind) is not None or change.unknown]
        if gained in answers:
            assert said, (kind, URLS[answers.index(gained)])
        for change in changes:
            difference = getattr(change, kind)
            if difference is not None:
                url = difference.request.url
                assert [asked(gate, url) is True for gate in gates] == gained


def test_where_a_call_goes_is_explained(tmp_path: Path) -> None:
    said = f"{BASE}\nvia: VIA_LEDGER\ncredentials: {{main: {{kind: header, secret: UPSTREAM_MAIN}}}}"
    folder = seed(tmp_path / "seed", said)
    arguments = ["explain", "/ledger/v1/x", "--role", "reader", "--seed", str(folder)]
    output = " ".join(CliRunner().invoke(app, arguments).output.split())
    way = (
        "Goes to https://ledger.example.com by way of VIA_LEDGER, with the credential main, from the secret "
    )
    assert way + "UPSTREAM_MAIN" in output


PAGE = (PROJECT / "docs" / "upstreams.md").read_text("utf-8")
BLOCKS = [part.partition("```")[0] for part in PAGE.split("```yaml\n")[1:]]


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_documented_settings_are_ones_that_can_be_published(number: int, tmp_path: Path) -> None:
    """docs/upstreams.md: every block is a file of a seed, complete but for issuers and roles."""
    roles = sorted(set(re.findall(r"any: \[([a-z-]+)\]", BLOCKS[number])))
    grant = "{description: d, granted_to: [{issuer: company, claim: groups, value: %s}]}"
    head = f"issuers:\n  company: {ISSUER}\nroles:\n" + "".join(
        f"  {role}: {grant % role}\n" for role in roles
    )
    (tmp_path / "head.yaml").write_text(head if roles else head.partition("roles")[0], "utf-8")
    (tmp_path / "page.yaml").write_text(BLOCKS[number], "utf-8")
    compiled = compile_folder(tmp_path)
    assert [finding for finding in findings(compiled) if not finding.note] == []
    data: dict[str, Any] = yaml.safe_load(BLOCKS[number])
    assert data["upstreams"].keys() == {name for name in compiled.rules if name != "-"}


def test_every_secret_of_the_page_is_put_and_every_one_that_is_put_is_used() -> None:
    put = set(re.findall(r"wrangler secret put (UPSTREAM_[A-Z0-9_]+)", PAGE))
    assert put == set(re.findall(r"secret: (UPSTREAM_[A-Z0-9_]+)", "".join(BLOCKS)))
