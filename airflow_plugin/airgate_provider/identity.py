"""How a task gets its token: one function for each identity, told apart by name and never by a class path.

Each raises TokenRefused when asking again changes nothing, and TokenUnavailable when it may. A message names the host,
never what it answered and never a secret.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlsplit

import requests

from airgate_provider.dpop import ProofKey
from airgate_provider.errors import TokenRefused, TokenUnavailable
from airgate_provider.settings import Settings, claims, read, sendable

CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 15.0
LONGEST_ANSWER = 64 * 1024
METADATA_HOST = "metadata.google.internal"
METADATA_PATH = "/computeMetadata/v1/instance/service-accounts/default/identity"
AWS_SECONDS = 900

# RFC 6749 §5.2, RFC 8707 §2, RFC 9449 §5. Only these are repeated to a person: they are fixed words.
OAUTH_ERRORS = frozenset(
    {
        "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
        "invalid_scope", "invalid_target", "invalid_dpop_proof", "use_dpop_nonce", "access_denied",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Token:
    """A token, and how long it may be used.

    `expires` and `refresh` are seconds on this machine's clock (time.time()); both None: nobody said how long it lives.
    """

    value: str = field(repr=False)
    expires: float | None = None
    refresh: float | None = None  # from then on a new one is asked for, while this one still holds
    key: ProofKey | None = field(default=None, repr=False)  # bound to it (RFC 9449)

    @classmethod
    def living(
        cls, value: str, seconds: float | None, key: ProofKey | None = None, since: float | None = None
    ) -> Token:
        """A token that holds for so many seconds, from now when `since` is left out."""
        if seconds is None:
            return cls(value, key=key)
        now = time.time() if since is None else since
        # Early enough for a long request, and not so early that a short token is never used.
        return cls(value, now + seconds, now + seconds - min(300.0, seconds * 0.2), key)

    @property
    def fresh(self) -> bool:
        """Whether it is too early to ask for another one."""
        return self.refresh is None or time.time() < self.refresh

    @property
    def holds(self) -> bool:
        """Whether it may still be used."""
        return self.expires is None or time.time() < self.expires


def fetch(settings: Settings) -> Token:
    """A new token by the connection's identity."""
    return _SOURCES[settings.identity](settings)


def host_of(url: str) -> str:
    """What a message may say of an address."""
    return urlsplit(url).netloc.rpartition("@")[2] or "?"


def _client_credentials(settings: Settings) -> Token:
    """RFC 6749 §4.4, with a proof of possession where the connection asks for it (RFC 9449 §5)."""
    key = ProofKey() if settings.dpop else None
    form = {"grant_type": "client_credentials"}
    form |= {name: value for name in ("scope", "audience", "resource") if (value := getattr(settings, name))}
    headers = {"Accept": "application/json"}
    if settings.client_authentication == "basic":
        # §2.3.1: both are form-urlencoded before they are joined.
        pair = f"{quote_plus(settings.client_id)}:{quote_plus(settings.secret)}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
    else:
        form |= {"client_id": settings.client_id, "client_secret": settings.secret}
    nonce: str | None = None
    for again in (True, True, False):  # once for a nonce, once for a clock
        proof = {} if key is None else {"DPoP": key.proof("POST", settings.token_url, nonce=nonce)}
        asked = time.time()
        answer, document = _post(settings.token_url, form, {**headers, **proof})
        error = document.get("error") if document is not None else None
        if key is not None and again and error == "use_dpop_nonce" and "DPoP-Nonce" in answer.headers:
            nonce = answer.headers["DPoP-Nonce"]  # RFC 9449 §8
        elif not (
            key is not None
            and again
            and error == "invalid_dpop_proof"
            and key.correct(answer.headers.get("Date"))
        ):
            break
    return _granted(settings, answer, document, key, time.time() - asked)


def _granted(
    settings: Settings,
    answer: requests.Response,
    document: dict[str, Any] | None,
    key: ProofKey | None,
    took: float,
) -> Token:
    where = f"The token endpoint at {host_of(settings.token_url)}"
    if answer.status_code != 200:
        raise _refusal(where, answer, document)
    if document is None:
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip() or "something"
        kind = kind if len(kind) < 40 and kind.isprintable() else "something"
        raise TokenUnavailable(
            f'{where} answered {kind}, not JSON. Is "Token URL" the token endpoint itself?'
        )
    value, scheme = document.get("access_token"), document.get("token_type")
    if not isinstance(value, str) or not sendable(value):
        raise TokenUnavailable(f"{where} answered without an access_token.")
    bound = isinstance(scheme, str) and scheme.lower() == "dpop"
    if key is not None and not bound:
        raise TokenRefused(f'{where} does not bind tokens to keys. Switch "DPoP" off, or on at the provider.')
    if key is None and bound:
        raise TokenRefused(f'{where} binds tokens to keys. Switch "DPoP" on.')
    seconds = document.get("expires_in")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0:
        seconds = _lifetime(value)
    # From when it was asked for, on our own clock: it does not matter what the provider's clock says.
    return Token.living(value, None if seconds is None else max(seconds - took, 1.0), key)


def _refusal(
    where: str, answer: requests.Response, document: dict[str, Any] | None
) -> TokenRefused | TokenUnavailable:
    status = answer.status_code
    error = document.get("error") if document is not None else None
    if isinstance(error, str) and error in OAUTH_ERRORS:
        return TokenRefused(f"{where} refused: {error} ({status}). {_ADVICE.get(error, _ASK)}")
    if status >= 500 or status in (408, 429):
        return TokenUnavailable(f"{where} failed with status {status}. Try again later; ask who runs it.")
    if 300 <= status < 400:
        return TokenRefused(f'{where} redirects ({status}). "Token URL" has to be the token endpoint itself.')
    if status in (401, 403):
        return TokenRefused(f"{where} refused ({status}). {_ADVICE['invalid_client']}")
    return TokenRefused(f'{where} answered with status {status}. Is "Token URL" the token endpoint itself?')


_ASK = "Ask who runs the identity provider."
_ADVICE = {
    "invalid_client": 'Check "Client id" and "Client secret or token", and "Client authentication".',
    "invalid_scope": 'Check "Scope".',
    "invalid_target": 'Check "Resource" and "Audience".',
    "invalid_dpop_proof": "Check this machine's clock.",
}


def _post(
    url: str, form: dict[str, str], headers: dict[str, str]
) -> tuple[requests.Response, dict[str, Any] | None]:
    """The answer, and the JSON object in it if it is one."""
    host = host_of(url)
    try:
        # A callable for auth: without one, requests would look for a password in ~/.netrc and replace ours.
        with requests.post(
            url,
            data=form,
            headers=headers,
            auth=_as_it_is,
            timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
            allow_redirects=False,
            stream=True,
        ) as answer:
            return answer, _document(_body(answer))
    except requests.RequestException as error:
        raise TokenUnavailable(f"The token endpoint at {host} {_failure(error)}") from None


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _body(answer: requests.Response) -> bytes:
    body = b""
    for part in answer.iter_content(8192):
        body += part
        if len(body) > LONGEST_ANSWER:
            return b""
    return body


def _document(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _failure(error: requests.RequestException) -> str:
    """What went wrong on the way, without the texts of other libraries: they quote addresses and headers."""
    if isinstance(error, requests.exceptions.SSLError):
        return "has a certificate that does not check out."
    if isinstance(error, requests.exceptions.ConnectTimeout | requests.exceptions.ReadTimeout):
        return f"did not answer within {ANSWER_SECONDS:.0f} s."
    if isinstance(error, requests.exceptions.ConnectionError):
        return "cannot be reached, or closes the connection without an answer."
    return "gave an answer that cannot be read."


def _token_file(settings: Settings) -> Token:
    """A file that somebody else keeps fresh; Kubernetes renews a projected one at 80 % of its life."""
    path = Path(settings.token_file)
    try:
        with path.open("rb") as file:
            value = file.read(LONGEST_ANSWER).decode("ascii").strip()
    except FileNotFoundError:
        where = "Mount a projected service account token there." if settings.identity == "kubernetes" else ""
        raise TokenUnavailable(f'There is no file {path} ("Token file"). {where}'.rstrip()) from None
    except (OSError, UnicodeDecodeError) as error:
        raise TokenUnavailable(f'{path} ("Token file") cannot be read: {type(error).__name__}.') from None
    if not sendable(value):
        raise TokenUnavailable(f'{path} ("Token file") holds no token.')
    said = claims(value)
    if settings.identity == "kubernetes" and settings.audience and said is not None:
        audience = said.get("aud")
        named = [audience] if isinstance(audience, str) else audience
        if isinstance(named, list) and settings.audience not in named:
            raise TokenRefused(
                f'{path} is a token for another audience than {settings.audience} ("Audience"). Set the audience '
                "of the projected volume."
            )
    expires = said.get("exp") if said is not None else None
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        return Token(value, refresh=time.time() + 60)
    # Read again soon: the file is the truth, and reading it costs nothing.
    return Token(value, float(expires), min(time.time() + 60, float(expires)))


def _aws(settings: Settings) -> Token:
    """sts:GetWebIdentityToken: AWS itself signs a token that says who the role is."""
    try:
        import botocore.exceptions
        import botocore.parsers
        import botocore.session
        from botocore.config import Config
    except ImportError:
        raise TokenRefused(
            "Identity aws needs botocore: pip install 'airflow-provider-airgate[aws]'"
        ) from None
    config = Config(
        connect_timeout=CONNECT_SECONDS, read_timeout=ANSWER_SECONDS, retries={"total_max_attempts": 2}
    )
    try:
        client = botocore.session.Session().create_client(
            "sts", region_name=settings.region or None, config=config
        )
        answer = client.get_web_identity_token(
            Audience=[settings.audience], SigningAlgorithm="ES384", DurationSeconds=AWS_SECONDS
        )
        value = answer["WebIdentityToken"]
    except botocore.exceptions.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        named = f": {code}" if code.isalnum() and len(code) < 60 else ""
        kind = TokenUnavailable if status >= 500 or code in ("Throttling", "RequestExpired") else TokenRefused
        raise kind(
            f"AWS STS refused a web identity token{named} ({status}). The task's role needs "
            "sts:GetWebIdentityToken, and the account outbound identity federation."
        ) from None
    except botocore.exceptions.BotoCoreError as error:
        raise TokenUnavailable(
            f'AWS STS gave no token: {type(error).__name__}. Check "AWS region", and that the task has a role.'
        ) from None
    except AttributeError:
        raise TokenRefused("Identity aws needs botocore 1.44 or newer: this one is older.") from None
    except (KeyError, botocore.parsers.ResponseParserError):  # which quotes what it could not read
        raise TokenUnavailable(
            "AWS STS gave an answer that cannot be read, or no WebIdentityToken."
        ) from None
    if not isinstance(value, str) or not sendable(value):
        raise TokenUnavailable("AWS STS gave an answer without a token that can be sent.")
    return Token.living(value, _lifetime(value) or AWS_SECONDS)


def _gcp(settings: Settings) -> Token:
    """The metadata server's identity token for an audience; its host may be set by GCE_METADATA_HOST."""
    host = os.environ.get("GCE_METADATA_HOST") or METADATA_HOST
    where = f"The GCP metadata server at {host}"
    with requests.Session() as session:
        session.trust_env = False  # never through a proxy: it is this machine's own
        try:
            answer = session.get(
                f"http://{host}{METADATA_PATH}",
                params={"audience": settings.audience, "format": "full"},
                headers={"Metadata-Flavor": "Google"},
                timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
                allow_redirects=False,
                stream=True,
            )
            body = _body(answer)
        except requests.RequestException as error:
            raise TokenUnavailable(
                f"{where} {_failure(error)} Does this run on Google Cloud, with a service account?"
            ) from None
    if answer.headers.get("Metadata-Flavor") != "Google":
        raise TokenUnavailable(f"{where} is none: its answer lacks Metadata-Flavor.")
    if answer.status_code != 200:
        kind = TokenUnavailable if answer.status_code >= 500 or answer.status_code == 429 else TokenRefused
        raise kind(f"{where} answered with status {answer.status_code}. Has this machine a service account?")
    value = body.decode("ascii", errors="replace").strip()
    if claims(value) is None or not sendable(value):
        raise TokenUnavailable(f"{where} answered without a token.")
    return Token.living(value, _lifetime(value))


def _fixed(settings: Settings) -> Token:
    return Token(settings.secret)


def handed(settings: Settings) -> Token | None:
    """The token that came with an attested connection. None for any other connection."""
    if settings.identity != "attested":
        return None
    return Token.living(settings.secret, _lifetime(settings.secret) or 0.0, since=settings.received)


def denied(conn_id: str) -> TokenUnavailable:
    """What to say where Airflow's API server does not hand out a connection. Its reason stays in its own log."""
    return TokenUnavailable(
        f'Airflow\'s API server does not hand out the connection "{conn_id}" to this task. For identity attested its '
        "log says why: attest.not_running (this try is over), attest.no_session (another one has taken its place), "
        "attest.too_long (the DAG has too many tags or owners), attest.misconfigured (its [airgate] settings or keys), "
        "attest.gate_not_listed (the connection's gate is none of its [airgate] attest_gates), attest.gate_unverified "
        "(the connection's extra has verify off, or a proxy that could read along)."
    )


def _attested(settings: Settings) -> Token:
    """The connection read again: Airflow's API server puts a new token in, while the task is at work."""
    from airflow.providers.common.compat.sdk import BaseHook

    try:
        connection = BaseHook.get_connection(settings.conn_id)
    except PermissionError:
        raise denied(settings.conn_id) from None
    except Exception as error:
        raise TokenUnavailable(
            f'The connection "{settings.conn_id}" cannot be read again for a new token: {type(error).__name__}. Is '
            "Airflow's API server there?"
        ) from None
    said = read(connection, connection.extra_dejson, settings.upstream)
    token = handed(said)
    if token is None or said.session != settings.session:
        raise TokenRefused(
            f'The connection "{settings.conn_id}" has changed as the task ran: its token is another task\'s, or its '
            "identity is not attested any more. The next try takes it as it is then."
        )
    return token


def _lifetime(token: str) -> float | None:
    """Seconds from `iat` to `exp` of a token that was just made: both by its issuer's clock, so ours need not agree."""
    said = claims(token) or {}
    issued, expires = said.get("iat"), said.get("exp")
    if isinstance(issued, int | float) and isinstance(expires, int | float) and expires > issued:
        return float(expires - issued)
    return None


_SOURCES: dict[str, Callable[[Settings], Token]] = {
    "client_credentials": _client_credentials,
    "attested": _attested,
    "kubernetes": _token_file,
    "token_file": _token_file,
    "aws": _aws,
    "gcp": _gcp,
    "token": _fixed,
}
