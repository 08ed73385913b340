"""What it costs to refuse a token, beside accepting one that was not seen before: a part of `make bench-tokens`.

The whole gate on production's Pythons with WebCrypto, and on this one with `cryptography`; the key is held and nothing
to be fetched. An attacker chooses what is refused, so no refusal may cost more than twice an acceptance by the same
algorithm where the gate runs. Figures are the least of interleaved rounds, so that a busy machine does not count.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "unit"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from verifier import verify
from world import ABSENT, CLAIMS, HEADER, JWKS_URI, NOW, World, b64, document, inbound, jwks, run, without

import escapes
import gateway
from airgate.dev.signing import ALGORITHMS, new_keys, sign
from airgate.node import PROJECT, node
from bench.tokens import public
from keys import Key
from state import State
from tokens import WORK
from verified import GENERATION

MOST = 2.0
POOL = 2 * GENERATION + 100  # more tokens than the gate remembers
HERE = Path(__file__).resolve().parent
URL = "https://gate/ledger/v1/entries"
PYODIDES = {"pyodide-313": "on 3.13", "pyodide-314": "on 3.14"}
DESK = "desk"
TITLES = {
    "on 3.13": "Pyodide, Python 3.13",
    "on 3.14": "Pyodide, Python 3.14",
    DESK: "CPython with cryptography",
}


class Route(NamedTuple):
    """One way through the gate, and headers that take it."""

    name: str
    algorithm: str  # the acceptance it is compared with
    headers: list[dict[str, str]]  # used in turn
    accepts: bool = False
    away: bool = False  # from an issuer whose keys cannot be had
    url: str = URL


class Real(World):
    async def verify(self, key: Key, algorithm: str, given: bytes, signed: bytes) -> bool:
        return await verify(key, algorithm, given, signed)


class Signer:
    """Signs tokens as the issuer."""

    def __init__(self, folder: Path) -> None:
        self.jwks = new_keys()
        self._file = folder / "keys.json"
        self._file.write_text(json.dumps(self.jwks), encoding="utf-8")

    def token(self, algorithm: str = "RS256", header: dict[str, Any] | None = None, **claims: Any) -> str:
        return sign(self._file, without(CLAIMS, **claims), algorithm=algorithm, headers=header)


def _bearing(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def _raw(header: bytes, claims: bytes, signature: bytes = b"\1" * 256) -> str:
    return ".".join(map(b64, (header, claims, signature)))


def _filled(unit: bytes) -> bytes:
    """Claims of an 8 KB token, filled up with one thing, but with no more strings than there may be."""
    head, room = b'{"iss":"https://login.example.com","a":[', 5600
    amount = (room - len(head)) // len(unit)
    if unit[:1] == b'"' and unit != b'"",':
        amount = min(amount, WORK.strings - 4)
    return (head + unit * amount + b"0").ljust(room) + b"]}"


def refusals(signer: Signer) -> dict[str, tuple[str, str]]:
    """Tokens to be refused, by name, each with its algorithm."""
    good = signer.token()
    head = json.dumps({**HEADER, "alg": "RS256", "kid": "local-rs256"}).encode()
    signed, _, _ = good.rpartition(".")
    hostile = {
        "numbers": b"0,",
        "floats": b"1e1,",
        "lists": b"[],",
        "objects": b"{},",
        "objects with a name": b'{"":0},',
        "strings": b'"",',
        "short strings": b'"a",',
        "brackets in short strings": b'"[",',
        "brackets in longer strings": b'"[{[{",',
        "escapes in strings": b'"\\u0041",',
        "short escapes in strings": b'"\\n\\n\\n",',
        "two escapes in each string": b'"\\u0041\\"",',
        "surrogates in strings": b'"\\ud83d\\ude00",',
        "digits": b"9" * 4000 + b",",
        "white space": b" " * 100,
        "brackets": b"[" * 1000,
    }
    found = {
        "no token": "",
        "100 KB of letters": "A" * 100_000,
        "8 KB of letters": "A" * 8192,
        "8 KB, one bad character": "A" * 8191 + "?",
        "two parts": signed,
        "alg none": _raw(b'{"alg":"none"}', json.dumps(CLAIMS).encode()),
        "crit": _raw(b'{"alg":"RS256","crit":["exp"]}', json.dumps(CLAIMS).encode()),
        "alg HS256": signer.token(header={"kid": "local-rs256"}).replace(
            good.partition(".")[0], b64(json.dumps({**HEADER, "alg": "HS256"}).encode()), 1
        ),
        "a strange issuer": signer.token(iss="https://evil.example"),
        "a made-up kid": signer.token(header={"kid": "made up"}),
        "a signature of another length": f"{signed}.AAAA",
        **{f"8 KB of {name}": _raw(head, _filled(unit)) for name, unit in hostile.items()},
        "8 KB, well formed, a wrong signature": _raw(
            head, json.dumps({**CLAIMS, "groups": ["finance-publishers"] * 240}).encode()
        ),
        "typ JWT": signer.token(header={"typ": "JWT"}),
        "another audience": signer.token(aud="https://other.example.com"),
        "several audiences": signer.token(aud=[CLAIMS["aud"], "https://other.example.com"], azp="stranger"),
        "200 audiences": signer.token(aud=[f"https://{n}.example.com" for n in range(200)]),
        "no exp": signer.token(exp=ABSENT),
        "expired": signer.token(exp=NOW - 100),
        "not yet valid": signer.token(nbf=NOW + 100),
        "too long a life": signer.token(exp=NOW + 9000),
        "no sub": signer.token(sub=ABSENT),
        "a strange kind": signer.token(airgate_kind="robot"),
        "groups that are no strings": signer.token(groups=[1]),
    }
    of_rs256 = {name: (text, "RS256") for name, text in found.items()}
    wrong = {}
    for algorithm in ALGORITHMS:
        signed, _, last = signer.token(algorithm).rpartition(".")
        changed = ("B" if last[9] == "A" else "A").join((last[:9], last[10:]))
        wrong[f"a wrong signature, {algorithm}"] = (f"{signed}.{changed}", algorithm)
    return of_rs256 | wrong


def paths(signer: Signer) -> list[Route]:
    """Acceptances first, one for each algorithm."""
    accepted = [
        Route(
            f"accepted, {algorithm}",
            algorithm,
            [_bearing(signer.token(algorithm, jti=f"{n}")) for n in range(POOL)],
            accepts=True,
        )
        for algorithm in track(ALGORITHMS, "Signing tokens", transient=True)
    ]
    refused = [
        Route(name, algorithm, [_bearing(text) if text else {}])
        for name, (text, algorithm) in refusals(signer).items()
    ]
    full = Route(
        "no token, at an address as full of escapes as it may be",
        "RS256",
        [{}],
        url=URL + "%C3%A9" * (escapes.MOST // 2),
    )
    fuller = Route("no token, at an address of 8 KB of escapes", "RS256", [{}], url=URL + "%C3%A9" * 1350)
    away = Route("keys that cannot be had", "RS256", [_bearing(signer.token())], away=True)
    return [*accepted, *refused, full, fuller, away]


def on_this_python(routes: list[Route], jwks_: list[Any], rounds: int) -> dict[str, float]:
    """Microseconds of each route."""
    bundle = document()
    bundle["issuers"]["company"]["algorithms"] = list(ALGORITHMS)
    here, away = (Real(bundle), State()), (Real(bundle), State())
    here[0].pages[JWKS_URI] = jwks(*jwks_)
    away[0].pages[JWKS_URI] = OSError("answered 500")
    turns = [(route, cycle(route.headers)) for route in routes]
    least = dict.fromkeys([route.name for route in routes], 1e9)
    for _ in range(rounds * 10):
        # Ten at a time: the first of them finds the processor's caches full of another route.
        for route, headers in [turn for turn in turns for _ in range(10)]:
            world, state = away if route.away else here
            world.happened.clear()
            request = inbound(route.url, "GET", **next(headers))
            began = time.perf_counter()
            run(gateway.handle(request, state, world))
            least[route.name] = min(least[route.name], 1e6 * (time.perf_counter() - began))
            if bool(world.of("send")) is not route.accepts:
                raise SystemExit(f"{route.name}: not as it should be")
    return least


def on_pyodide(name: str, folder: Path, rounds: int) -> dict[str, float]:
    """Microseconds of each route in the folder's paths.json."""
    settings = {
        "pyodide": name,
        "project": str(PROJECT),
        "folder": str(folder),
        "rounds": rounds,
        "repeats": 150,
    }
    done = subprocess.run(
        [str(node()), str(HERE / "refusals.mjs"), json.dumps(settings)],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(signer: Signer, folder: Path, rounds: int) -> tuple[list[Route], dict[str, dict[str, float]]]:
    """Every way through the gate, and the microseconds it takes on each Python."""
    keys, routes = public(signer.jwks)["keys"], paths(signer)
    given = {"jwks": keys, "algorithms": ALGORITHMS, "paths": [route._asdict() for route in routes]}
    (folder / "paths.json").write_text(json.dumps(given), encoding="utf-8")
    measures: dict[str, Callable[[], dict[str, float]]] = {
        title: partial(on_pyodide, pyodide, folder, rounds) for pyodide, title in PYODIDES.items()
    }
    measures[DESK] = partial(on_this_python, routes, keys, rounds)
    return routes, {title: measures[title]() for title in track(measures, "Refusing", transient=True)}


def _ratio(route: Route, least: dict[str, float]) -> float:
    return least[route.name] / least[f"accepted, {route.algorithm}"]


def dearest(routes: list[Route], figures: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """The refusal on each Python that costs the most times an acceptance by the same algorithm."""
    found = []
    for title, least in figures.items():
        worst = max([route for route in routes if not route.accepts], key=lambda route: _ratio(route, least))
        ratio = round(_ratio(worst, least), 2)
        found.append({"runtime": title, "title": TITLES[title], "name": worst.name, "ratio": ratio})
    return found


def show(console: Console, routes: list[Route], figures: dict[str, dict[str, float]]) -> None:
    """Print each route's microseconds and its share of an acceptance."""
    table = Table("path", *figures, box=SIMPLE_HEAD)
    for column in table.columns:
        column.no_wrap = True
        column.justify = "right" if column.header in figures else "left"
    for route in routes:
        cells = []
        for least in figures.values():
            ratio = _ratio(route, least)
            cells.append(f"{least[route.name]:.0f}  [{'red' if ratio > MOST else 'none'}]{ratio:.2f}[/]")
        table.add_row(route.name, *cells)
    console.print("Microseconds, and times an acceptance by the same algorithm:")
    console.print(table)
