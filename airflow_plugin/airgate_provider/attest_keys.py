"""What the section [airgate] of Airflow's configuration says of attesting: the issuer, and the keys that it signs with.

Keys are a JWK Set (RFC 7517 §5), newest first. The first private one signs; the public parts of all are published, so
what an older one has signed can still be checked. Whatever is set is read again while Airflow runs, and what can't be
used then leaves in force what was before.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import subprocess
import threading
import time
from configparser import ConfigParser
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
from jwt.algorithms import Algorithm, ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from airgate_provider import compat
from airgate_provider.settings import LOOPBACK, origin

SECTION = "airgate"
MOUNT = "/airgate"  # where the API server serves the issuer's two documents
LOOK_AGAIN_SECONDS = 30.0
LIFETIME, SHORTEST, LONGEST = 300, 60, 600  # seconds
MOST_KEYS, MOST_CHARACTERS = 16, 65_536
COMMAND_SECONDS = 10.0  # for attest_keys_cmd
RSA_BITS = 2048

# By kty and crv: the algorithm, who reads and writes such a key, and the public members.
KINDS: dict[tuple[str, str | None], tuple[str, type[Algorithm], tuple[str, ...]]] = {
    ("RSA", None): ("RS256", RSAAlgorithm, ("n", "e")),
    ("EC", "P-256"): ("ES256", ECAlgorithm, ("crv", "x", "y")),
    ("OKP", "Ed25519"): ("EdDSA", OKPAlgorithm, ("crv", "x")),
}

log = logging.getLogger(__name__)


class AttestInvalid(ValueError):
    """A setting is missing, or can't be used. The message names it, and never holds a key."""


@dataclass(frozen=True)
class Keys:
    """The key that signs, and the public part of each."""

    kid: str
    algorithm: str
    private: Any = field(repr=False)
    public: tuple[dict[str, str], ...]


@dataclass(frozen=True)
class Attest:
    """All that is set, checked."""

    issuer: str  # exactly as in the claim `iss`; no slash at the end
    audience: str  # empty: each gate's own address
    lifetime: int  # seconds
    environment: str  # empty: none
    gates: frozenset[str]  # the origins that tokens are made for; empty: all
    keys: Keys

    def audience_at(self, gate: str) -> str:
        """The claim `aud` of what a gate is sent. `gate`: scheme, host and port."""
        return self.audience or origin(gate) or gate


def on() -> bool:
    """Whether this Airflow attests its tasks. A switch that can't be read counts as on: settings() names it."""
    from airflow.providers.common.compat.sdk import conf

    said = str(conf.get(SECTION, "attest", fallback="") or "").strip().lower()
    if said in ("", "false", "f", "0", "n", "no", "off", "none"):
        return False
    if not compat.ATTESTS:
        log.error(
            "[%s] attest is on, but this is Airflow %s: tasks are attested from 3.3 on. What a task says of itself "
            "stays its own word here.",
            SECTION,
            compat.AIRFLOW,
        )
    return compat.ATTESTS


def settings() -> Attest:
    """What is set now: looked at again every 30 seconds, and at once when attest_keys_file changes.

    Raises AttestInvalid only while there has never been anything that could be used.
    """
    held, lock = _held, _lock
    if held.attest is None:
        with lock:
            return _look_again()
    # With something in hand, one thread looks, and the others need not wait for it.
    if not held.is_due() or not lock.acquire(blocking=False):
        return held.attest
    try:
        return _look_again()
    finally:
        lock.release()


def sign(claims: dict[str, Any], typ: str) -> str:
    """A JWT (RFC 7519) with those claims, signed by the newest key. Raises AttestInvalid."""
    keys = settings().keys
    return jwt.encode(claims, keys.private, algorithm=keys.algorithm, headers={"kid": keys.kid, "typ": typ})


def metadata() -> dict[str, Any]:
    """The issuer's discovery document (OpenID Connect Discovery 1.0 §3), as far as it means anything for one that
    nobody signs in at. Raises AttestInvalid."""
    attest = settings()
    return {
        "issuer": attest.issuer,
        "jwks_uri": f"{attest.issuer}/jwks.json",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": sorted({key["alg"] for key in attest.keys.public}),
    }


def jwks() -> dict[str, Any]:
    """The public keys (RFC 7517 §5). Raises AttestInvalid."""
    return {"keys": list(settings().keys.public)}


def read() -> Attest:
    """What is set at this moment. Raises AttestInvalid, naming the setting."""
    if (said := _value("attest").lower()) not in ("true", "t", "1", "y", "yes", "on"):
        raise _invalid("attest", f"is {said!r}. It is True or False.")
    return Attest(
        issuer=_issuer(_value("attest_issuer")),
        audience=_audience(_value("attest_audience")),
        lifetime=_lifetime(_value("attest_lifetime")),
        environment=_value("attest_environment"),
        gates=_gates(_value("attest_gates")),
        keys=_keys(),
    )


@dataclass
class _Held:
    """What was read last, and of what it was read."""

    attest: Attest | None = None
    looked: float = 0.0  # time.monotonic()
    path: str = ""
    file: tuple[int, ...] | None = None
    complaint: str = ""

    def is_due(self) -> bool:
        return time.monotonic() - self.looked >= LOOK_AGAIN_SECONDS or _file_state(self.path) != self.file


_held = _Held()
_lock = threading.Lock()


def forget() -> None:
    """Read all anew at the next call, as a process does that has just begun."""
    global _held, _lock
    _held, _lock = _Held(), threading.Lock()


os.register_at_fork(after_in_child=forget)


def _look_again() -> Attest:
    global _held
    held = _held
    if held.attest is not None and not held.is_due():  # somebody else has looked meanwhile
        return held.attest
    path = _value("attest_keys_file")
    # Taken before the file is read: one that changes in between is read again.
    file = _file_state(path)
    try:
        attest, complaint = read(), ""
    except AttestInvalid as error:
        if held.attest is None:
            raise
        attest, complaint = held.attest, str(error)
        if complaint != held.complaint:
            log.error("%s What was read before stays in force: key %s signs.", error, attest.keys.kid)
    if held.attest is not None and attest.keys.kid != held.attest.keys.kid:
        log.info("Key %s signs from now on, in place of %s.", attest.keys.kid, held.attest.keys.kid)
    _held = _Held(attest, time.monotonic(), path, file, complaint)
    return attest


def _file_state(path: str) -> tuple[int, ...] | None:
    if not path:
        return None
    try:
        found = Path(path).stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _value(name: str) -> str:
    from airflow.providers.common.compat.sdk import conf

    try:
        return str(conf.get(SECTION, name, fallback="") or "").strip()
    except Exception as error:  # a command or a secrets backend that fails
        raise _invalid(name, f"can't be read: {type(error).__name__}.") from None


def _invalid(name: str, problem: str) -> AttestInvalid:
    return AttestInvalid(f"[{SECTION}] {name} (AIRFLOW__AIRGATE__{name.upper()}) {problem}")


def _issuer(said: str) -> str:
    example = (
        "It is the address that the gate knows this Airflow by, such as https://airflow.example.com/airgate."
    )
    if not said:
        raise _invalid("attest_issuer", f"is missing. {example}")
    try:
        parts = urlsplit(said)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("https", "http") or parts.username is not None or not said.isascii():
        raise _invalid("attest_issuer", f"is no address. {example}")
    if parts.query or parts.fragment or "?" in said or "#" in said or not parts.path.endswith(MOUNT):
        raise _invalid("attest_issuer", f"is {said!r}, which doesn't end in {MOUNT}. {example}")
    if parts.scheme == "http" and host not in LOOPBACK:
        raise _invalid("attest_issuer", "begins with http://. Keys are fetched over https:// alone.")
    return said


def _audience(said: str) -> str:
    if len(said) > 512 or not said.isprintable() or " " in said:
        raise _invalid(
            "attest_audience",
            "is no audience. It is the one that the gate expects, such as https://gate.example.com. Leave it out where "
            "that is the gate's own address.",
        )
    return said


def _lifetime(said: str) -> int:
    if not said:
        return LIFETIME
    if not (said.isascii() and said.isdigit() and len(said) < 10 and SHORTEST <= int(said) <= LONGEST):
        raise _invalid("attest_lifetime", f"is {said!r}. It is a number of seconds, {SHORTEST} to {LONGEST}.")
    return int(said)


def _gates(said: str) -> frozenset[str]:
    listed = said.replace(",", " ").split()
    if said and not listed:
        raise _invalid("attest_gates", "names no gate. Leave it out where tasks are attested for every gate.")
    gates = set()
    for number, each in enumerate(listed, 1):
        found = origin(each)
        if found is None:
            raise _invalid(
                "attest_gates",
                f"can't be used: gate {number} is no origin. It has a scheme, a host, and a port where that isn't the "
                "usual one, with no path and no slash at the end, such as https://gate.example.com.",
            )
        if found.startswith("http://") and (urlsplit(found).hostname or "") not in LOOPBACK:
            raise _invalid(
                "attest_gates",
                f"can't be used: gate {number} begins with http://. Tokens go over https:// (http:// only to this "
                "machine).",
            )
        gates.add(found)
    return frozenset(gates)


def _keys() -> Keys:
    """From attest_keys, what it stands in for, or attest_keys_file, whichever is set."""
    path, command = _value("attest_keys_file"), _command()
    text = command or _value("attest_keys")
    make = "`airgate keys attest new` makes one; docs/attestation.md says how."
    if path and text:
        raise _invalid("attest_keys", "and attest_keys_file are both set. Leave one of them out.")
    name = "attest_keys_file" if path else "attest_keys"
    if path:
        try:
            with Path(path).open(encoding="utf-8") as file:
                text = file.read(MOST_CHARACTERS + 1)
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise _invalid(name, f"names {path}, which can't be read: {why}.") from None
    elif command:
        text = _output(command)
    elif not text:
        raise _invalid(
            name, f"is missing, and so is attest_keys_file: without a key nothing can be signed. {make}"
        )
    if len(text) > MOST_CHARACTERS:
        raise _invalid(name, f"has more than {MOST_CHARACTERS} characters. Take out keys that nobody needs.")
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not listed:
        raise _invalid(name, f'is no JSON of the form {{"keys": [JWK, …]}}. {make}')
    if len(listed) > MOST_KEYS:
        raise _invalid(
            name, f"has {len(listed)} keys, of {MOST_KEYS} at most. Take out those that nobody needs."
        )
    signing: tuple[str, str, Any] | None = None
    public: list[dict[str, str]] = []
    for number, member in enumerate(listed, 1):
        try:
            shown, private = _key(member)
            if any(shown["kid"] == other["kid"] for other in public):
                raise ValueError("has the kid of another one")
        except ValueError as error:
            raise _invalid(name, f"can't be used: key {number} {error}. {make}") from None
        public.append(shown)
        if private is not None and signing is None:
            signing = (shown["kid"], shown["alg"], private)
    if signing is None:
        raise _invalid(name, f"has public keys alone: without a private one nothing can be signed. {make}")
    return Keys(*signing, tuple(public))


def _command() -> str:
    """attest_keys_cmd, where Airflow would run it; empty where it would find the keys elsewhere before."""
    from airflow.providers.common.compat.sdk import conf

    variable = f"AIRFLOW__{SECTION.upper()}__ATTEST_KEYS"
    if variable in os.environ:
        return ""
    if f"{variable}_CMD" in os.environ:
        return os.environ[f"{variable}_CMD"].strip()
    # The parser's own methods: Airflow's has_option() runs the command to find out whether there is one.
    in_file = [ConfigParser.has_option(conf, SECTION, f"attest_keys{end}") for end in ("", "_cmd")]
    if f"{variable}_SECRET" in os.environ or in_file != [False, True]:
        return ""
    try:
        return ConfigParser.get(conf, SECTION, "attest_keys_cmd").strip()
    except Exception as error:  # a % that stands for nothing
        raise _invalid("attest_keys_cmd", f"can't be read: {type(error).__name__}.") from None


def _output(command: str) -> str:
    """What attest_keys_cmd prints. Airflow, which has no shell for it either, would wait for as long as it takes."""
    name, again = "attest_keys_cmd", "Run it as the user of the API server, to see why."
    try:
        process = subprocess.Popen(
            shlex.split(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a group of its own, which whatever it starts belongs to
        )
    except (OSError, ValueError) as error:
        raise _invalid(name, f"can't be run: {type(error).__name__}. {again}") from None
    try:
        output, _ = process.communicate(timeout=COMMAND_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(OSError):  # it has just ended, or belongs to somebody else (sudo)
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdout is not None:
            process.stdout.close()  # what has left the group may hold it for ever
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)
        raise _invalid(
            name, f"has not ended within {COMMAND_SECONDS:g} seconds, after which it is killed. {again}"
        ) from None
    if process.returncode:
        raise _invalid(name, f"has failed, with exit code {process.returncode}. {again}")
    if not (text := output.decode("utf-8", "replace").strip()):
        raise _invalid(name, f"prints nothing. {again}")
    return text


def _key(member: Any) -> tuple[dict[str, str], Any]:
    """The public JWK of a key, and its private part where there is one. ValueError: what is wrong, without the key."""
    if not isinstance(member, dict):
        raise ValueError("is no JSON object")
    kid, kty, crv = (member.get(name) for name in ("kid", "kty", "crv"))
    if not isinstance(kid, str) or not 0 < len(kid) <= 256:
        raise ValueError('has no "kid"')
    kind = KINDS.get((kty, None if kty == "RSA" else crv)) if isinstance(kty, str) else None
    if kind is None:
        raise ValueError("is none of RSA, EC with P-256 and OKP with Ed25519")
    algorithm, reader, names = kind
    if member.get("alg", algorithm) != algorithm or member.get("use", "sig") != "sig":
        raise ValueError(f"is not for {algorithm}")
    try:
        key: Any = reader.from_jwk(member)
        private = key if "d" in member else None
        public = key if private is None else key.public_key()
        told = reader.to_jwk(public, as_dict=True)
    except Exception:  # of several libraries, and some quote what they were given
        raise ValueError("can't be read") from None
    if kty == "RSA" and public.key_size < RSA_BITS:
        raise ValueError(f"has fewer than {RSA_BITS} bits")
    # Ed25519's public part is not read where there is a private one: the two must belong together.
    if any(told[name] != member.get(name) for name in names):
        raise ValueError("has a public part that is not its private one's")
    shown = {"kty": kty, "kid": kid, "alg": algorithm, "use": "sig", **{name: told[name] for name in names}}
    return shown, private
