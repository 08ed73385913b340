"""What there is to say about a provider's answers, and what to do about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from airgate.engine import KEYS_LIMIT, KEYS_TIMEOUT
from airgate.issuer.document import Document
from airgate.issuer.provider import TWICE, Provider
from airgate.issuer.words import listing, shown, shown_plain, size

SLOW = 1.0  # seconds after which a document is worth a word
CLOCKS = 2.0  # seconds: the Date header says no more than whole ones


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"
    PROBLEM = "PROBLEM"


@dataclass(frozen=True)
class Advice:
    """One thing that was found. `to_do` is empty where nothing is to be done."""

    level: Level
    text: str
    to_do: str = ""


def advise(provider: Provider) -> list[Advice]:
    """Everything there is to say, in the order in which a gate would come to it."""
    return [
        *_http(provider),
        *_discovery(provider),
        *_keys(provider),
        *_algorithms(provider),
        *_dpop(provider),
        *_times(provider),
    ]


def _problem(text: str, to_do: str = "") -> Advice:
    return Advice(Level.PROBLEM, text, to_do)


def _http(provider: Provider) -> Iterator[Advice]:
    if any(document.url.startswith("http://") for document in provider.documents):
        yield Advice(Level.NOTE, "it speaks plain http, which a gate accepts on its own machine only")


def _discovery(provider: Provider) -> Iterator[Advice]:
    document, issuer = provider.discovery, provider.issuer.source.issuer
    if document is None:
        yield Advice(Level.OK, "discovery isn't asked: policy says where the keys are (jwks_uri)")
        return
    yield from _arrived("discovery", document)
    if document.error:
        return
    if not provider.metadata:
        yield _problem(f"discovery: {document.address} can't be read: {provider.unreadable}", _page(document))
    elif provider.metadata.get("issuer") != issuer:
        named = provider.metadata.get("issuer")
        to_do = "The gate compares letter by letter. Write what the tokens say as iss."
        if isinstance(named, str) and named.rstrip("/") == issuer.rstrip("/"):
            to_do = f"They differ by the slash at the end. Write issuer: {named}, if the tokens say so too."
        yield _problem(f"discovery names another issuer: {shown(named)}; policy says {shown(issuer)}", to_do)
    elif provider.keys is None:
        named = provider.metadata.get("jwks_uri")
        yield _problem(f"discovery says jwks_uri {shown(named)}, which is not an https address")
    else:
        yield Advice(Level.OK, f"discovery names this issuer: {_measured(document)}")


def _keys(provider: Provider) -> Iterator[Advice]:
    document = provider.keys
    if document is None:
        return
    yield from _arrived("keys", document)
    if document.error:
        return
    used = [member for member in provider.members if not member.why_not]
    left_out = [member for member in provider.members if member.why_not]
    if provider.keyring.error:
        # The gate's words begin with the name of an exception.
        why = provider.keyring.error.partition(": ")[2]
        yield _problem(f"keys: {document.address} holds none that can be used: {why}", _page(document))
    else:
        count = f"{len(used)} of {len(provider.members)} can be used"
        yield Advice(Level.OK, f"keys: {count}: {_measured(document)}")
    for member in used:
        yield Advice(Level.OK, f"  kid {shown(member.kid)} for {' or '.join(member.algorithms)}")
    for member in left_out:
        text = f"  kid {shown(member.kid)} is left out: {member.why_not}"
        if "private" in member.why_not:
            yield _problem(text, "Whoever has read it can sign tokens. Replace it at the provider, now.")
        elif member.why_not == TWICE:
            yield _problem(text, "The provider has to give its keys ids of their own.")
        else:
            yield Advice(Level.NOTE, text)
    if len(used) > 1 and any(member.kid is None for member in used):
        text = "a key has no kid: of several for one algorithm, nobody can say which signed a token"
        yield Advice(Level.NOTE, text, "Tokens are refused then, as token.key. Let the provider set kid.")


def _algorithms(provider: Provider) -> Iterator[Advice]:
    allowed, held = provider.issuer.rules.algorithms, provider.keyring.keys
    for key in held:
        if allowed.isdisjoint(key.algorithms):
            names = " or ".join(sorted(key.algorithms))
            yield Advice(
                Level.NOTE,
                f"kid {shown(key.kid)} is for {names}, which policy doesn't allow: its tokens are refused",
                "Add it to algorithms, if the provider's tokens for the gate are signed so.",
            )
    unused = sorted(allowed.difference(*[key.algorithms for key in held]))
    if held and len(unused) == len(allowed):
        yield _problem(
            f"no key is for an algorithm that policy allows: {', '.join(unused)}", "Every token is refused."
        )
    elif held and unused:
        to_do = "Take it out of algorithms: allow what is used, and no more."
        yield Advice(Level.NOTE, f"allowed, and no key is for it: {', '.join(unused)}", to_do)
    announced = provider.metadata.get("id_token_signing_alg_values_supported")
    if announced is not None:
        text = f"ID tokens are signed with {listing(announced)}"
        if provider.issuer.rules.type == "id_token" and allowed.isdisjoint(
            announced if isinstance(announced, list) else []
        ):
            yield _problem(f"{text}; policy allows {', '.join(sorted(allowed))}", "Change algorithms.")
        else:
            yield Advice(Level.OK, text)


def _dpop(provider: Provider) -> Iterator[Advice]:
    announced = provider.metadata.get("dpop_signing_alg_values_supported")
    required = provider.issuer.dpop == "required"
    if announced is not None:
        text = f"DPoP is announced, with {listing(announced)}; policy says dpop: {provider.issuer.dpop}"
        yield Advice(Level.OK, text)
    elif required:
        text = "policy says dpop: required, and discovery doesn't announce DPoP"
        if provider.discovery is None:
            text = "policy says dpop: required; without discovery, nobody says whether there is any"
        yield Advice(Level.NOTE, text, "Tokens that are bound to no key are refused: try one with --token.")


def _times(provider: Provider) -> Iterator[Advice]:
    for document in provider.documents:
        if document.seconds > SLOW and not document.error:
            text = f"{document.address} took {document.seconds:.1f} s; a gate waits {KEYS_TIMEOUT} s at most"
            yield Advice(Level.NOTE, text)
        if 2 * len(document.body) > KEYS_LIMIT and not document.error:
            text = (
                f"{document.address} has {size(len(document.body))}; a gate reads {size(KEYS_LIMIT)} at most"
            )
            yield Advice(Level.NOTE, text)
    clocks = [document.clock for document in provider.documents if document.clock is not None]
    if not clocks:
        return
    apart = min(clocks, key=abs)
    skew = provider.issuer.rules.clock_skew
    ahead = (
        f"the provider's clock is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} this machine's"
    )
    if abs(apart) <= CLOCKS:
        yield Advice(Level.OK, "its clock and this machine's agree")
    elif abs(apart) <= skew:
        yield Advice(Level.NOTE, f"{ahead}; policy bears {skew} s (clock_skew)")
    else:
        to_do = "If it isn't this machine's that is wrong, its tokens are refused as not valid yet, or expire early."
        yield _problem(f"{ahead}; policy bears {skew} s (clock_skew)", to_do)


def _arrived(what: str, document: Document) -> Iterator[Advice]:
    """Why a document can't be had."""
    if document.error:
        yield _problem(f"{what}: {document.address} {_failed(document)}", _remedy(what, document))


def _failed(document: Document) -> str:
    if document.status is None:
        return f"can't be had: {shown_plain(document.error)}"
    where = f" and leads to {shown(document.location)}" if document.location else ""
    return shown_plain(document.error) + where


def _remedy(what: str, document: Document) -> str:
    status = document.status or 0
    write = "write where its keys are: jwks_uri"
    if 300 <= status < 400:
        elsewhere = f": {shown(document.location)}" if document.location and what == "keys" else ""
        instead = f"write the last address{elsewhere} as jwks_uri" if what == "keys" else write
        return (
            f"A gate follows no redirect. Is issuer the exact text of the tokens' iss? If it is, {instead}."
        )
    if status in (401, 403):
        return "Keys are public: a gate sends no credentials. Let everybody read them, or publish them elsewhere."
    if status == 404 and what == "discovery":
        return f"Is issuer the exact text of the tokens' iss? If it is, the provider has no discovery there: {write}."
    if "longer" in document.error:
        return f"A gate reads {size(KEYS_LIMIT)} at most."
    if "arrive" in document.error:
        return f"A gate waits {KEYS_TIMEOUT} s, and uses the keys that it has for a day meanwhile."
    if "certificate" in document.error.lower():
        return "The edge trusts public authorities only, as this check does."
    if document.status is None and "not an address" not in document.error:
        host = document.url.partition("://")[2].partition("/")[0]
        return (
            f"Is {host} right, and can the world reach it? A gate asks from the edge, not from your network."
        )
    return ""


def _page(document: Document) -> str:
    if "html" in document.media:
        return "It is a web page. A login may stand in front, or the address is wrong."
    return ""


def _measured(document: Document) -> str:
    return f"{document.address} ({size(len(document.body))}, {document.seconds * 1000:.0f} ms)"
