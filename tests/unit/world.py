"""The small world that the tests of the core play in: one issuer, its keys and tokens, a policy set, and the ports.

Nothing here is cryptography: a signature is a hash of what it covers and the key's id, and `World.verify` checks
just that. Ports are plain coroutines that never suspend.
"""

import hashlib
import json
import sys
from base64 import urlsafe_b64encode
from collections.abc import Coroutine
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import journal
import ledger
from ledger import FEW, MANY, PAGE
from model import Denied, Inbound, Outbound, Reason, UpstreamAnswer

if TYPE_CHECKING:
    from airgate.policy import index
else:
    # By its file: it needs the standard library only, but its package the whole command, which isn't in a Worker.
    _file = Path(__file__).resolve().parents[2] / "airgate" / "policy" / "index.py"
    _spec = spec_from_file_location("index", _file)
    index = sys.modules["index"] = module_from_spec(_spec)
    _spec.loader.exec_module(index)

NOW = 1_800_000_000.0
ISSUER = "https://login.example.com"
JWKS_URI = "https://login.example.com/keys"
AUDIENCE = "https://gate.example.com"
HEAD = "policy/head"
ACTS = "state/acts"
BUNDLE = "policy/bundle/"
SHARD = "policy/shard/"
ABSENT: Any = object()  # as a member's value: leave that member out


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    work.close()
    raise AssertionError("it waits for something that nobody will bring")


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def number(value: int, size: int | None = None) -> str:
    """An integer as JWKs write it (RFC 7518 §2, Base64urlUInt), or as long as a coordinate of its curve."""
    return b64(value.to_bytes(size or max(1, (value.bit_length() + 7) // 8), "big"))


def without(members: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The members with the changes, and without those that are ABSENT."""
    return {name: value for name, value in {**members, **changes}.items() if value is not ABSENT}


# The curves' own base points (SEC 2 §2) stand for EC keys; the Ed25519 key is RFC 8037's example.
ED25519 = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
P256 = {
    "kty": "EC",
    "crv": "P-256",
    "x": number(0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296, 32),
    "y": number(0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5, 32),
}
P384 = {
    "kty": "EC",
    "crv": "P-384",
    "x": number(
        0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7, 48
    ),
    "y": number(
        0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F, 48
    ),
}
P521 = {
    "kty": "EC",
    "crv": "P-521",
    "x": number(
        0xC6858E06B70404E9CD9E3ECB662395B4429C648139053FB521F828AF606B4D3DBAA14B5E77EFE75928FE1DC127A2FFA8DE3348B3C1856A429BF97E7E31C2E5BD66,
        66,
    ),
    "y": number(
        0x11839296A789A3BC0045C8A5FB42C7D1BD998F54449579B446817AFBD17273E662C97EE72995EF42640C550B9013FAD0761353C7086A272C24088BE94769FD16650,
        66,
    ),
}
RSA = {"kty": "RSA", "n": number(2**2047 + 1), "e": "AQAB"}

KEY = {**ED25519, "kid": "one"}


def jwks(*keys: Any) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def signature(signed: bytes, kid: str | None) -> bytes:
    return hashlib.sha512(f"{kid}".encode() + signed).digest()


HEADER = {"alg": "EdDSA", "kid": "one", "typ": "at+jwt"}
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "finance-etl",
    "client_id": "finance-etl",
    "jti": "1",
    "iat": NOW - 10,
    "exp": NOW + 300,
    "groups": ["finance-publishers", "finance-readers"],
}


def compact(header: Any, claims: Any, kid: str | None = "one") -> str:
    """A compact JWS (RFC 7515 §3.1). Header and claims are values, or bytes to be used as they are."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    signed = ".".join(b64(part) for part in parts)
    return f"{signed}.{b64(signature(signed.encode(), kid))}"


def token(header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A good access token, with changes."""
    return compact(without(HEADER, **(header or {})), without(CLAIMS, **claims))


UTC: dict[str, Any] = {"starts": [0], "offsets": [0], "until": 1_893_456_000}  # 2030-01-01
BERLIN: dict[str, Any] = {  # on the last Sundays of March and October, at 01:00 UTC, until 2029-01-01
    "starts": [1_761_440_400, 1_774_746_000, 1_792_890_000, 1_806_195_600, 1_824_944_400, 1_837_645_200,
               1_856_394_000],
    "offsets": [3600, 7200, 3600, 7200, 3600, 7200, 3600],
    "until": 1_861_916_400,
}  # fmt: skip
ZONES = {"Etc/UTC": UTC, "Europe/Berlin": BERLIN}


def rule(**changes: Any) -> dict[str, Any]:
    """A policy, with changes: finance publishers may do anything below /v1 of the ledger.

    Conditions are rows as shards hold them. Obligations, too.
    """
    policy: dict[str, Any] = {
        "id": "publish",
        "owner": "finance@example.com",
        "effect": "permit",
        "mode": "enforce",
        "target": {"upstreams": ["ledger"], "methods": ["*"], "paths": ["/v1/**"]},
        "conditions": [["subject.roles.any", ["publisher"]]],
        "obligations": None,
    }
    assert policy.keys() >= changes.keys(), f"a policy has no {', '.join(changes.keys() - policy.keys())}"
    return policy | changes


def shards(*policies: dict[str, Any]) -> dict[str, str]:
    """The text of the shard of every upstream that the policies name."""
    upstreams = sorted({name for each in policies for name in each["target"]["upstreams"]})
    return {
        upstream: canonical(
            index.shard(
                upstream,
                [
                    index.Rule(
                        each["id"],
                        each["owner"],
                        each["effect"],
                        each["mode"] == "shadow",
                        each["target"]["methods"],
                        each["target"]["paths"],
                        each["conditions"],
                        each["obligations"],
                    )
                    for each in policies
                    if upstream in each["target"]["upstreams"]
                ],
                ZONES,
            )
        )
        for upstream in upstreams
    }


def asked(*policies: dict[str, Any]) -> list[list[str]]:
    """The paths of the claims that the policies' conditions read."""
    rows = [row for each in policies for row in each["conditions"]]
    compared = {name for row in rows if row[0] == "when.equals" for name in row[1:3]}
    paths = {tuple(row[1]) for row in rows if row[0].startswith("subject.claims.")}
    paths |= {(name.removeprefix("subject."),) for name in compared if name.startswith("subject.")}
    return [list(path) for path in sorted(paths - {("id",), ("issuer",), ("kind",)})]


MADE: dict[str, str] = {}  # every shard that document() has made, by its SHA-256


def upstream(**changes: Any) -> dict[str, Any]:
    """An upstream's JSON, with changes: nothing beside the plain call."""
    plain: dict[str, Any] = {
        "base": "https://upstream.example.com",
        "owner": "ledger@example.com",
        "log_path": False,
        "via": None,
        "private": False,
        "hosts": [],
        "encoded_slash": "refuse",
        "empty_segments": False,
        "request_headers": None,
        "set_headers": {},
        "forwarded": False,
        "cors": None,
        "assertion": False,
        "max_body": None,
        "timeout": 30,
        "total_timeout": None,
        "retries": 0,
        "concurrency": None,
        "breaker": {"failures": 5, "ratio": 0.5, "open": 10},
        "credential": None,
        "credentials": {},
    }
    return {**plain, **changes}


def document(*policies: dict[str, Any], ledger: dict[str, Any] | None = None) -> dict[str, Any]:
    """A bundle's JSON: with the given policies, or with rule() and a health page for publishers.

    `ledger`: what is different about that upstream.
    """
    health = rule(
        id="health",
        target={"upstreams": ["-"], "methods": ["GET"], "paths": ["/health"]},
        owner="gate@example.com",
    )
    policies = policies or (rule(), health)
    texts = shards(*policies)
    MADE.update({digest(text): text for text in texts.values()})
    zones = {row[1] for each in policies for row in each["conditions"] if row[0] == "when.time"}
    return {
        "format": 5,
        "issuers": {
            "company": {
                "issuer": ISSUER,
                "jwks_uri": JWKS_URI,
                "audiences": [AUDIENCE],
                "algorithms": ["EdDSA"],
                "type": "at+jwt",
                "max_lifetime": 3600,
                "clock_skew": 60,
                "dpop": "optional",
                "dpop_replay": "isolate",
                "role_tag": "optional",
                "require": [],
                "truncates": [],
                "authorized_parties": ["finance-etl"],
                "kind": {"claim": ["airgate_kind"], "default": "workload", "values": {}},
                "attested": {"dag": ["airflow", "dag"]},
            }
        },
        "roles": {
            "publisher": [{"issuer": "company", "claim": ["groups"], "value": "finance-publishers"}],
            "reader": [
                {"issuer": "company", "claim": ["groups"], "value": "finance-readers"},
                {"issuer": "company", "subject": "auditor"},
            ],
        },
        "upstreams": {
            "ledger": upstream(base="https://ledger.example.com/api", log_path=True, **(ledger or {})),
            "crm": upstream(base="https://crm.example.com", owner="crm@example.com", timeout=2.5),
        },
        "claims": asked(*policies),
        "shards": {upstream: digest(text) for upstream, text in texts.items()},
        "zones_until": min([ZONES[zone]["until"] for zone in zones], default=None),
    }


def contents(*policies: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """What KV holds of the policies: the bundle's text, and the shards' by their SHA-256."""
    bundle = document(*policies)
    return canonical(bundle), {name: MADE[name] for name in bundle["shards"].values()}


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def entry(text: str, sequence: int = 1, **changes: Any) -> dict[str, Any]:
    """The ledger's pointer to a bundle's text, with changes."""
    return without(
        {
            "format": 4,
            "gate": "airgate",
            "sequence": sequence,
            "bundle": digest(text),
            "published_at": int(NOW) - 60,
            "published_by": "ci",
            "note": "",
            "commit": "",
            "policies": 2,
            "added": 0,
            "changed": 0,
            "removed": 0,
            "of": None,
        },
        **changes,
    )


def revocation(**changes: Any) -> dict[str, Any]:
    """A revocation of the subject that token() names, with changes."""
    return without(
        {
            "act": "revoke",
            "gate": "airgate",
            "at": int(NOW) - 5,
            "until": int(NOW) + 3600,
            "by": "oncall",
            "reason": "its token leaked",
            "match": {"subject": "finance-etl"},
        },
        **changes,
    )


def grant(**changes: Any) -> dict[str, Any]:
    """A grant of the role `closer` to the subject that token() names, with changes."""
    return without(
        {
            "act": "grant",
            "gate": "airgate",
            "at": int(NOW) - 5,
            "from": int(NOW) - 5,
            "until": int(NOW) + 3600,
            "by": "oncall",
            "reason": "to close the books",
            "to": {"issuer": "company", "subject": "finance-etl"},
            "gives": {"role": "closer"},
        },
        **changes,
    )


def undoing(act: str, text: str, **changes: Any) -> dict[str, Any]:
    """What takes an act back, by the text of that: a lift or an end, with changes."""
    return without(
        {
            "act": act,
            "gate": "airgate",
            "at": int(NOW),
            "until": int(NOW) + 3600,
            "by": "oncall",
            "reason": "it was a mistake",
            "of": digest(text)[:32],
        },
        **changes,
    )


OPERATOR = {**ED25519, "kid": "operator", "name": "Operator", "may": ["publish", "grant"]}
ROWS = tuple[str, str, str]  # a document, its key and its signature


def trusting(*keys: dict[str, Any]) -> dict[str, str]:
    """The Worker's variables that make these keys count, OPERATOR when none is given."""
    return {"TRUSTED_KEYS": json.dumps({"keys": list(keys or [OPERATOR])})}


def signed(kind: str, text: str, kid: str = "operator") -> ROWS:
    """A document with its signature. `kind`: pointer or act."""
    payload = f"application/vnd.airgate.{kind}+json"
    covered = b"DSSEv1 %d %s %d %s" % (len(payload), payload.encode(), len(text.encode()), text.encode())
    return text, kid, b64(signature(covered, kid))


class Database:
    """D1, as far as the core asks it: what SQL says of the five tables is tested with SQLite elsewhere."""

    def __init__(self) -> None:
        self.pointers: dict[int, ROWS] = {}
        self.acts: list[tuple[int, ROWS]] = []  # by rising number
        self.proofs: dict[str, int] = {}
        self.sessions: list[list[Any]] | None = []  # by rising number, as rows; None: there is no such table
        self.chains: dict[int, dict[str, Any]] = {}  # by their number
        self._numbers = 0  # of chains, so far
        self.given = 0  # numbers of sessions, so far
        self.says: Any = ABSENT  # instead of what there is to tell

    def answer(self, sql: str, values: tuple[Any, ...]) -> str | None:
        if "chains" in sql:
            return self._register(sql, values)
        verb = sql.split()[0]
        if "sessions" in sql and self.sessions is None and sql != ledger.WITHOUT_SESSIONS:
            raise OSError("D1: D1_ERROR: no such table: sessions: SQLITE_ERROR")
        if verb != "SELECT" and "sessions" in sql:
            return self._end(verb, values)
        if verb == "INSERT":
            known = values[0] in self.proofs
            self.proofs.setdefault(values[0], values[1])
            return None if known else "new"
        if verb == "DELETE":
            gone = [name for name, until in self.proofs.items() if until < values[0]]
            for name in gone:
                del self.proofs[name]
            return "gone" if gone else None
        assert verb == "SELECT", sql
        if self.says is not ABSENT:
            return self.says  # type: ignore[no-any-return]
        if sql == ledger.MORE:
            return json.dumps(self._ended(values, MANY))
        after, now = values[:2]
        page = [
            [number, *row]
            for number, row in self.acts
            if number > after and json.loads(row[0]).get("until", 0) > now
        ]
        names = {number: digest(row[0])[:32] for number, row in self.acts}
        return json.dumps(
            {
                "heads": [
                    [number, *self.pointers[number]] for number in sorted(self.pointers, reverse=True)[:3]
                ],
                "acts": page[:PAGE],
                "at": names.get(after),
                "last": list(max(names.items())) if names else None,
                "sessions": self._ended(values, FEW) if sql == ledger.VIEW else None,
            }
        )

    def _ended(self, values: tuple[Any, ...], most: int) -> dict[str, Any]:
        rows, (_, now, after) = self.sessions or [], values
        last = max(rows, default=None)
        return {
            "rows": [row for row in rows if row[0] > after and row[4] > now][:most],
            "at": next((row[2] for row in rows if row[0] == after), None),
            "last": None if last is None else [last[0], last[2], last[4]],
        }

    def _end(self, verb: str, values: tuple[Any, ...]) -> str | None:
        assert self.sessions is not None
        if verb == "DELETE":
            self.sessions = [row for row in self.sessions if row[4] >= values[0]]
            return None
        issuer, session, result, until, enough = values
        known = [row for row in self.sessions if row[1:3] == [issuer, session]]
        if any(row[4] > enough for row in known):
            return None
        self.sessions = [row for row in self.sessions if row not in known]
        self.given += 1
        self.sessions.append([self.given, issuer, session, result, until])
        return "new"

    def _register(self, sql: str, values: tuple[Any, ...]) -> str | None:
        numbers = {row["chain"]: number for number, row in self.chains.items()}
        if sql == journal.REGISTER:
            chain, opened_at, keys = values
            if chain in numbers:
                return None
            self._numbers += 1
            unsigned = {"position": -1, "document": "", "key": "", "signature": ""}
            self.chains[self._numbers] = {"chain": chain, "opened_at": opened_at, "keys": keys, **unsigned}
            return str(self._numbers)
        if sql == journal.REGISTERED:
            return str(numbers[values[0]]) if values[0] in numbers else None
        if sql == journal.FORMER:
            before = [number for number in self.chains if number < values[0]]
            return self.chains[max(before)]["keys"] if before else None
        row = self.chains.get(values[1])
        if row is None or row["chain"] != values[0]:
            return None
        if sql == journal.MARKED:
            return str(row["position"])
        assert sql == journal.MARK, sql
        if row["position"] >= values[2]:
            return None
        row |= dict(zip(("position", "document", "key", "signature"), values[2:], strict=True))
        return str(values[1])


def inbound(
    url: str = "https://gate/ledger/v1/entries",
    method: str = "GET",
    *,
    body: bool = False,
    at: float = NOW,
    **headers: str,
) -> Inbound:
    """A request. Header names are written with "_" for "-"."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Inbound("f" * 32, at, method, url, named, body)


def bearing(credential: str | None = None, **headers: str) -> dict[str, str]:
    """Headers with a good token, or with this one."""
    return {"authorization": f"Bearer {token() if credential is None else credential}", **headers}


class World:
    """The ports, with a clock to set and everything that happened, in order."""

    def __init__(self, bundle: dict[str, Any] | None = None) -> None:
        self.clock = NOW
        self.d1 = Database()
        self.values: dict[str, str | Exception] = {}
        self.pages: dict[str, bytes | Exception] = {JWKS_URI: jwks(KEY)}
        self.answer: UpstreamAnswer | Exception = UpstreamAnswer(200, {})
        self.answers: list[UpstreamAnswer | Exception] = []  # of the upstream, in turn, before `answer`
        self.secrets: dict[str, Any] = {}
        self.drawn = 0.5  # at random, from 0 up to 1
        self.posted: list[tuple[int, bytes] | Exception] = []  # what token endpoints answer, in turn
        self.from_country: str | None = None
        self.at: str | None = None  # the location that the runtime tells
        self.bucket: dict[str, str] | None = None  # R2; None: there is none
        self.limits = {"LIMIT_600_PER_60S": 1000}  # calls that each rate-limiting binding still allows
        self.sent = b""  # the request's body
        self.broken: dict[str, Exception] = {}  # ports that fail, by name
        self.happened: list[tuple[str, Any]] = []
        self.deferred: list[Coroutine[Any, Any, Any]] = []
        self.publish(bundle or document())

    def publish(self, bundle: dict[str, Any], sequence: int = 1) -> str:
        """Put a bundle and its shards into KV, and the pointer to it into the ledger. Returns its digest."""
        text = canonical(bundle)
        self.values |= {SHARD + name: MADE[name] for name in bundle["shards"].values()}
        self.values[BUNDLE + digest(text)] = text
        self.d1.pointers[sequence] = signed("pointer", canonical(entry(text, sequence)))
        return digest(text)

    def act(self, document: dict[str, Any], kid: str = "operator") -> str:
        """Add an act to D1, signed. Returns its text."""
        text = canonical(document)
        self.d1.acts.append((len(self.d1.acts) + 1, signed("act", text, kid)))
        return text

    def _enter(self, port: str, what: Any) -> None:
        self.happened.append((port, what))
        if port in self.broken:
            raise self.broken[port]

    def of(self, port: str) -> list[Any]:
        """What a port was asked, in order."""
        return [what for name, what in self.happened if name == port]

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """The audit lines, read back."""
        read = [json.loads(line) for line in self.of("log")]
        return [line for line in read if event in (None, line["event"])]

    def settle(self) -> int:
        """Do the work that was put off. Returns how much there was."""
        works, self.deferred = self.deferred, []
        for work in works:
            run(work)
        return len(works)

    def now(self) -> float:
        if "now" in self.broken:
            raise self.broken["now"]
        return self.clock

    def log(self, line: str) -> None:
        self.happened.append(("log", line))

    async def last(self, work: Coroutine[Any, Any, bool]) -> bool:
        self._enter("last", None)
        return await work

    def defer(self, work: Coroutine[Any, Any, Any]) -> None:
        self.deferred.append(work)

    def country(self) -> str | None:
        self._enter("country", None)
        return self.from_country

    def location(self) -> str | None:
        return self.at

    def stores(self) -> bool:
        return self.bucket is not None

    async def store(self, name: str, text: str, timeout: float) -> None:
        self._enter("store", (name, text, timeout))
        assert self.bucket is not None
        self.bucket[name] = text

    async def allow(self, binding: str, key: str) -> bool:
        self._enter("allow", (binding, key))
        if binding not in self.limits:
            raise LookupError(binding)
        self.limits[binding] -= 1
        return self.limits[binding] >= 0

    async def body(self, limit: int) -> bytes:
        self._enter("body", limit)
        if len(self.sent) > limit:
            raise Denied(Reason.REQUEST_BODY_TOO_LARGE)
        return self.sent

    async def kv(self, key: str, timeout: float) -> str | None:
        self._enter("kv", (key, timeout))
        value = self.values.get(key)
        if isinstance(value, Exception):
            raise value
        return value

    async def database(self, sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
        self._enter("database", (sql.split()[0], values, timeout))
        return self.d1.answer(sql, values)

    async def fetch(self, url: str, timeout: float, limit: int) -> bytes:
        self._enter("fetch", url)
        page = self.pages.get(url, OSError("answered 404"))
        if isinstance(page, Exception):
            raise page
        return page

    async def verify(self, key: Any, algorithm: str, given: bytes, signed: bytes) -> bool:
        self._enter("verify", key.kid)
        return given == signature(signed, key.kid)

    def secret(self, name: str) -> str:
        held = self.secrets.get(name)
        if held is None:
            raise LookupError(name)
        if not isinstance(held, str):
            raise ValueError(f"{name} is not a text")
        return held

    def random(self) -> float:
        return self.drawn

    async def sleep(self, seconds: float) -> None:
        self._enter("sleep", seconds)
        self.clock += seconds

    async def post(
        self, url: str, headers: dict[str, str], body: bytes, timeout: float, limit: int
    ) -> tuple[int, bytes]:
        self._enter("post", (url, headers, body))
        posted = self.posted.pop(0)
        if isinstance(posted, Exception):
            raise posted
        return posted

    async def sign(self, key: Any, signed: bytes) -> bytes:
        self._enter("sign", key.kid)
        return signature(signed, key.kid)

    async def hold(self, limit: int, timeout: float) -> None:
        self._enter("hold", limit)
        if len(self.sent) > limit:
            raise Denied(Reason.REQUEST_BODY_TOO_LARGE)

    def held(self) -> bytes:
        return self.sent

    async def send(self, call: Outbound) -> UpstreamAnswer:
        self._enter("send", call._replace(headers=dict(call.headers)))
        answer = self.answers.pop(0) if self.answers else self.answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    def header(self, answer: UpstreamAnswer, name: str) -> str | None:
        """An answer's native object is a dictionary of its headers here."""
        value: str | None = answer.native.get(name)
        return value

    async def discard(self, answer: UpstreamAnswer) -> None:
        self._enter("discard", answer.status)
