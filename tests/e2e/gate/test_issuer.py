"""`airgate issuer check`: against the stack's own provider, and against servers that do what no provider should."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from typer.testing import CliRunner

from airgate.cli import app
from airgate.dev.stack import Stack

Token = Callable[..., str]


def check(*arguments: str, given: str | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["issuer", "check", *arguments], input=given)
    return done.exit_code, done.output


def judged(stack: Stack, token: str) -> tuple[int, dict[str, str], str]:
    """The exit code, what is said of each step, and all of it."""
    code, output = check("--local", "--dir", str(stack.directory), "--token", "-", given=token + "\n")
    lines = output.partition("the token\n")[2].splitlines()
    steps = [line.split(None, 2) for line in lines if line[:10].strip() in ("ok", "REFUSED", "-")]
    return code, {step[1]: f"{step[0]} {' '.join(step[2:])}" for step in steps}, output


def test_the_local_provider_is_fine(stack: Stack) -> None:
    code, output = check("--local", "--dir", str(stack.directory))
    assert code == 0
    for said in (
        f"company  {stack.provider}\n",
        "ok       discovery names this issuer: ",
        "ok       keys: 6 of 6 can be used: ",
        'kid "local-es384" for ES384',
        "DPoP is announced",
        "its clock and this machine's agree",
        "company: fine; 1 note\n",
    ):
        assert said in output


def test_a_token_of_the_local_provider_is_accepted(stack: Stack, token: Token) -> None:
    code, steps, output = judged(stack, token())
    assert code == 0
    assert output.endswith("the token is accepted\n")
    assert steps["roles"] == "ok workload; roles: finance-publisher, finance-reader"
    assert steps["audience"] == "ok https://gate.example.com"
    assert {each.split()[0] for each in steps.values()} == {"ok"}


REFUSED = [
    # what the token has; the step at which it is refused, and the words there
    ({"aud": "https://other.example.com"}, "audience", "token.audience", "The token is for https://other.example.com"),
    ({"aud": ["https://gate.example.com", "b"], "azp": "wiki"}, "audience", "token.audience", 'Its client is "wiki"'),
    ({"headers": {"typ": "JWT"}}, "type", "token.type", "write type: any"),
    ({"headers": {"typ": "JWT"}, "nonce": "n"}, "type", "token.type", "It is an ID token"),
    ({"headers": {"typ": "dpop+jwt"}}, "type", "token.type", "made for something else"),
    ({"headers": {"kid": "gone"}}, "key", "token.key", 'Keys for RS256: "local-rs256"'),
    ({"iat": -900, "exp": -500}, "claims", "token.expired", "Fetch a new one"),
    ({"exp": 86_400}, "claims", "token.lifetime", "It lives 24 h; max_lifetime is 1 h"),
    ({"iat": 600, "exp": 900}, "claims", "token.not_yet_valid", "clock is ahead"),
    ({"sub": None}, "claims", "token.claims", "It has the claims"),
    ({"airgate_kind": "robot"}, "claims", "token.claims", "required: "),
    ({"groups": [7]}, "roles", "token.claims", "not strings"),
    ({"_claim_names": {"groups": "src1"}, "groups": None}, "roles", "token.incomplete", "Grant by something short"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "at", "reason", "advice"), REFUSED, ids=[f"{row[1]}: {row[3]}" for row in REFUSED]
)
def test_a_token_is_refused_at_the_step_that_the_gate_refuses_it_at(
    stack: Stack, mint: Token, changes: dict[str, Any], at: str, reason: str, advice: str
) -> None:
    now = int(time.time())
    times = {name: now + value for name, value in changes.items() if name in ("iat", "exp")}
    token = mint(**{**changes, **times})
    code, steps, output = judged(stack, token)
    assert code == 1
    assert steps[at].startswith(f"REFUSED {reason}")
    assert advice in output
    assert output.endswith(f"the token is refused: {reason}\n")
    before, after = list(steps)[: list(steps).index(at)], list(steps)[list(steps).index(at) + 1 :]
    assert all(steps[step].startswith("ok") for step in before)
    assert all(steps[step] == "- not looked at" for step in after)


def test_a_token_that_is_none(stack: Stack) -> None:
    code, steps, output = judged(stack, "eyJhbGciOi.opaque")
    assert (code, steps["form"]) == (1, "REFUSED token.malformed: not three parts of base64url")
    assert "opaque" not in output.replace("An opaque token", "")


def test_a_token_of_somebody_else(stack: Stack, mint: Token) -> None:
    code, steps, output = judged(stack, mint(iss=stack.provider + "/"))
    assert (code, steps["issuer"].split()[0]) == (1, "REFUSED")
    assert "they differ by a slash at the end" in output


def test_a_signature_that_was_changed(stack: Stack, mint: Token) -> None:
    header, claims, signature = mint().split(".")
    changed = ("B" if signature[0] == "A" else "A") + signature[1:]
    _, steps, _ = judged(stack, f"{header}.{claims}.{changed}")
    assert steps["signature"] == "REFUSED token.signature"


def test_the_token_is_never_shown(stack: Stack, mint: Token, tmp_path: Path) -> None:
    token = mint(email="finance-lead@example.com")
    file = tmp_path / "token"
    file.write_text(f"Authorization: Bearer {token}\n")
    code, output = check("--local", "--dir", str(stack.directory), "--token", str(file))
    assert code == 0
    for part in token.split("."):
        assert part[:20] not in output
    assert "finance-lead" not in output


class Page(NamedTuple):
    """What a server answers at an address."""

    body: bytes | dict[str, Any] = b""
    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012
    seconds: float = 0.0  # before each tenth of the body


@contextmanager
def served(pages: dict[str, Page]) -> Iterator[str]:
    """A server with these pages. `ORIGIN` in them is its own address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path, Page(status=404))
            origin = f"http://127.0.0.1:{self.connection.getsockname()[1]}"
            body = page.body if isinstance(page.body, bytes) else json.dumps(page.body).encode()
            body = body.replace(b"ORIGIN", origin.encode())
            self.send_response_only(page.status)
            date = {"Date": self.date_time_string(), "Content-Type": "application/json"}
            for name, value in {**date, **page.headers}.items():
                self.send_header(name, value.replace("ORIGIN", origin))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            step = max(1, len(body) // 10)
            try:
                for start in range(0, len(body), step):
                    time.sleep(page.seconds)
                    self.wfile.write(body[start : start + step])
            except OSError:
                return  # whoever asked has gone

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


SECRET = rsa.generate_private_key(65537, 2048)
RSA = {**RSAAlgorithm.to_jwk(SECRET.public_key(), as_dict=True), "kid": "one"}
RSA.pop("key_ops")
P256 = {
    **ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True),
    "kid": "two",
}
WHERE = "/.well-known/openid-configuration"
GOOD = {"issuer": "ORIGIN", "jwks_uri": "ORIGIN/keys"}
FOUND = Page(GOOD)


def keys(*each: Any) -> Page:
    return Page({"keys": list(each)})


ANSWERS = [
    # what is served beside a good discovery document; exit code; what is said
    ({"/keys": keys(RSA)}, 0, ["keys: 1 of 1 can be used", "theirs: fine"], "all is well"),
    (
        {"/keys": Page(status=302, headers={"Location": "ORIGIN/elsewhere"}), "/elsewhere": keys(RSA)},
        1,
        ["keys: ORIGIN/keys answered 302 and leads to \"ORIGIN/elsewhere\"", "as jwks_uri"],
        "keys that redirect",
    ),
    (
        {WHERE: Page(status=301, headers={"Location": "ORIGIN/d"}), "/d": FOUND, "/keys": keys(RSA)},
        1,
        ["discovery: ORIGIN/.well-known/openid-configuration answered 301", "A gate follows no redirect"],
        "discovery that redirects",
    ),
    ({WHERE: Page(status=404)}, 1, ["answered 404", "write where its keys are: jwks_uri"], "no discovery"),
    ({"/keys": Page(status=403)}, 1, ["answered 403", "a gate sends no credentials"], "keys that are kept"),
    (
        {"/keys": Page(b'{"keys": [' + b" " * 300_000 + b"]}")},
        1,
        ["longer than 262144 bytes", "A gate reads 262.1 KB at most"],
        "keys that don't end",
    ),
    (
        {WHERE: Page(b"<html>Log in</html>", headers={"Content-Type": "text/html"})},
        1,
        ["can't be read", "It is a web page"],
        "a login page for discovery",
    ),
    (
        {"/keys": Page(b"<html>Log in</html>", headers={"Content-Type": "text/html"})},
        1,
        ["holds none that can be used", "It is a web page"],
        "a login page for keys",
    ),
    ({WHERE: Page(b'{"issuer": "ORIGIN", "issuer": "x"}')}, 1, ["a name appears twice"], "discovery with a name twice"),
    (
        {WHERE: Page({**GOOD, "issuer": "https://bank.example.com"}), "/keys": keys(RSA)},
        1,
        ['discovery names another issuer: "https://bank.example.com"'],
        "discovery of another issuer",
    ),
    (
        {WHERE: Page({**GOOD, "issuer": "ORIGIN/"}), "/keys": keys(RSA)},
        1,
        ["They differ by the slash at the end"],
        "an issuer with a slash at the end",
    ),
    (
        {WHERE: Page({**GOOD, "jwks_uri": "http://keys.example.com/k"})},
        1,
        ['jwks_uri "http://keys.example.com/k", which is not an https address'],
        "keys over http",
    ),
    (
        {WHERE: Page({**GOOD, "jwks_uri": "ORIGIN/\x1b[2J"})},
        1,
        [r'keys: "ORIGIN/\u001b[2J" can', "be had: not an address"],
        "an address that clears the screen",
    ),
    (
        {"/keys": Page({"keys": [RSA]}, seconds=1)},
        1,
        ["did not arrive within 3 s"],
        "keys that come drop by drop",
    ),
    ({"/keys": keys()}, 1, ["holds none that can be used: the JWKS holds no usable key"], "no keys"),
    ({"/keys": keys(*[{**RSA, "kid": str(n)} for n in range(65)])}, 1, ["keys is not a list of at most 64"], "65 keys"),
    (
        {"/keys": keys(RSA, {**RSAAlgorithm.to_jwk(SECRET, as_dict=True), "key_ops": ["verify"], "kid": "leak"})},
        1,
        ['kid "leak" is left out: a private key has been published', "Replace it at the provider, now."],
        "a private key",
    ),
    ({"/keys": keys(RSA, P256, {**P256, "kid": "one"})}, 1, ['kid "one" is left out: another key'], "one kid for two"),
    (
        {"/keys": keys(RSA, {**RSA, "kid": "enc", "use": "enc", "alg": "RSA-OAEP"})},
        0,
        ['note       kid "enc" is left out: not for verifying', "1 of 2 can be used"],
        "an encryption key beside, as Keycloak has",
    ),
    (
        {"/keys": keys(P256)},
        1,
        ['kid "two" is for ES256, which policy doesn\'t allow', "no key is for an algorithm that policy allows: PS256"],
        "another algorithm than policy's",
    ),
    ({"/keys": keys({**RSA, "alg": "RS256"})}, 0, ["allowed, and no key is for it: PS256"], "fewer algorithms"),
    (
        {"/keys": Page({"keys": [RSA]}, headers={"Date": "Sat, 01 Jan 2000 00:00:00 GMT"}),
         WHERE: Page(GOOD, headers={"Date": "Sat, 01 Jan 2000 00:00:00 GMT"})},
        1,
        ["s behind this machine's; policy bears 60 s (clock_skew)"],
        "a clock that stands still",
    ),
    (
        {"/keys": keys({**RSA, "kid": "\x1b[2J\u202e"})},
        0,
        [r'kid "\u001b[2J\u202e" for PS256 or RS256'],
        "a kid that clears the screen",
    ),
]  # fmt: skip

SEED = """\
issuers:
  theirs: {{issuer: "{origin}", audiences: [https://gate.example.com], algorithms: [RS256, PS256]{more}}}
"""


def seed(folder: Path, origin: str, more: str = "") -> str:
    (folder / "seed.yaml").write_text(SEED.format(origin=origin, more=more))
    return str(folder)


@pytest.mark.parametrize(("pages", "code", "said"), [pytest.param(*row[:3], id=row[3]) for row in ANSWERS])
def test_what_a_provider_answers(tmp_path: Path, pages: dict[str, Page], code: int, said: list[str]) -> None:
    with served({WHERE: FOUND, **pages}) as origin:
        begin = time.monotonic()
        found, output = check("--seed", seed(tmp_path, origin))
        assert time.monotonic() - begin < 10
    output = output.replace(origin, "ORIGIN")
    assert found == code, output
    for words in said:
        assert words in output
    assert "\x1b" not in output


def test_keys_that_policy_names_are_fetched_without_discovery(tmp_path: Path) -> None:
    with served({"/k": keys(RSA)}) as origin:
        code, output = check(
            "--seed", seed(tmp_path, "https://cluster.example.com", f', jwks_uri: "{origin}/k"')
        )
    assert code == 0
    assert "discovery isn't asked" in output


def test_nobody_answers(tmp_path: Path) -> None:
    with served({}) as origin:
        pass
    code, output = check("theirs", "--seed", seed(tmp_path, origin))
    assert code == 1
    assert "can't be had: ConnectError" in output
    assert "A gate asks from the edge" in output


def test_dpop_that_is_required_and_not_announced_is_noted(tmp_path: Path) -> None:
    with served({WHERE: FOUND, "/keys": keys(RSA)}) as origin:
        code, output = check("--seed", seed(tmp_path, origin, ", dpop: required"))
    assert code == 0
    assert "discovery doesn't announce DPoP" in output


UNUSABLE = [
    (["compny"], 'no such issuer; did you mean "company"?'),
    (["--token", "no-such-file"], "no-such-file: can't be read"),
    (["--seed", "no-such-folder"], "no such folder"),
    (["--local", "--dir", "no-such-folder"], "No local stack runs in no-such-folder"),
]


@pytest.mark.parametrize(("arguments", "said"), UNUSABLE, ids=[row[1] for row in UNUSABLE])
def test_a_question_that_cannot_be_answered(arguments: list[str], said: str) -> None:
    code, output = check(*arguments)
    assert code == 2
    assert said in output


def test_an_empty_token_is_no_answer_either() -> None:
    code, output = check("--token", "-", given="\n")
    assert (code, output) == (2, "standard input: is empty; expected one token\n")
