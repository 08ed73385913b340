"""An upstream with every setting and every kind of credential, as it is written and as a bundle holds it."""

from typing import Any

WRITTEN = """\
base: https://ledger.example.com/api
local: sample
owner: o@example.com
log_path: true
private: true
hosts: [Ledger.internal.example.com, "ledger.example.com:8443", "[2001:db8::1]:8443", 198.51.100.7]
encoded_slash: segment
empty_segments: true
request_headers: [Accept, x-*]
set_headers: {X-Api-Version: "2", accept: application/json}
forwarded: false
cors:
  origins: [https://b.example.com, "http://localhost:3000", "https://a.example.com:8443"]
  headers: [X-Custom]
  expose: [ETag]
  credentials: true
  max_age: 1h
assertion: true
max_body: 1MB
timeout: 20s
total_timeout: 5m
retries: 2
concurrency: 50
breaker: {failures: 3, ratio: 0.25, open: 20s}
credential: plain
credentials:
  plain: {kind: header, secret: UPSTREAM_PLAIN}
  key: {kind: header, secret: UPSTREAM_KEY, header: X-Api-Key, format: "{secret}"}
  login: {kind: basic, user: svc, secret: UPSTREAM_PASSWORD}
  pair: {kind: basic, secret: UPSTREAM_PAIR}
  client: {kind: client_credentials, token_url: https://login.example.com/token, client_id: gate,
           secret: UPSTREAM_CLIENT}
  oauth: {kind: client_credentials, token_url: https://login.example.com/token, client_id: gate,
          secret: UPSTREAM_CLIENT, authentication: post, scope: [a, b], audience: x, resource: https://y.example.com,
          header: x-token, format: "Token {token}"}
  bearer: {kind: jwt_bearer, secret: UPSTREAM_SIGNER}
  google: {kind: jwt_bearer, secret: UPSTREAM_GOOGLE, algorithm: ES256, issuer: "a.{fingerprint}", subject: c,
           audience: https://oauth2.example.com/token, scope: one, lifetime: 30m, key_id: k,
           token_url: https://oauth2.example.com/token, header: x-token, format: "{token}"}
  airflow: {kind: login, url: https://airflow.example.com/auth/token, secret: UPSTREAM_AIRFLOW,
            fields: {username: gate, password: "{secret}"}}
  form: {kind: login, url: https://airflow.example.com/token, secret: UPSTREAM_AIRFLOW, fields: {key: "x{secret}"},
         encoding: form, token: [data, token], lifetime: 30m, header: X-Token, format: "{token}"}
  aws: {kind: sigv4, secret: UPSTREAM_AWS, region: eu-central-1, service: execute-api}
  bucket: {kind: sigv4, secret: UPSTREAM_AWS, region: eu-central-1, service: s3, payload: unsigned}
  own: {kind: caller}
"""

_BEARER = {"header": "authorization", "format": "Bearer {token}"}

COMPILED: dict[str, Any] = {
    "base": "https://ledger.example.com/api",
    "owner": "o@example.com",
    "log_path": True,
    "via": None,
    "private": True,
    "hosts": ["198.51.100.7", "[2001:db8::1]:8443", "ledger.example.com:8443", "ledger.internal.example.com"],
    "encoded_slash": "segment",
    "empty_segments": True,
    "request_headers": ["accept", "x-*"],
    "set_headers": {"x-api-version": "2", "accept": "application/json"},
    "forwarded": False,
    "cors": {
        "origins": ["http://localhost:3000", "https://a.example.com:8443", "https://b.example.com"],
        "headers": ["x-custom"],
        "expose": ["etag"],
        "credentials": True,
        "max_age": 3600,
    },
    "assertion": True,
    "max_body": 1_000_000,
    "timeout": 20,
    "total_timeout": 300,
    "retries": 2,
    "concurrency": 50,
    "breaker": {"failures": 3, "ratio": 0.25, "open": 20},
    "credential": "plain",
    "credentials": {
        "plain": {
            "kind": "header",
            "secret": "UPSTREAM_PLAIN",
            "header": "authorization",
            "format": "Bearer {secret}",
        },
        "key": {"kind": "header", "secret": "UPSTREAM_KEY", "header": "x-api-key", "format": "{secret}"},
        "login": {"kind": "basic", "user": "svc", "secret": "UPSTREAM_PASSWORD"},
        "pair": {"kind": "basic", "user": None, "secret": "UPSTREAM_PAIR"},
        "client": {
            "kind": "client_credentials",
            "secret": "UPSTREAM_CLIENT",
            "token_url": "https://login.example.com/token",
            "client_id": "gate",
            "authentication": "basic",
            "scope": None,
            "audience": None,
            "resource": None,
            **_BEARER,
        },
        "oauth": {
            "kind": "client_credentials",
            "secret": "UPSTREAM_CLIENT",
            "token_url": "https://login.example.com/token",
            "client_id": "gate",
            "authentication": "post",
            "scope": "a b",
            "audience": "x",
            "resource": "https://y.example.com",
            "header": "x-token",
            "format": "Token {token}",
        },
        "bearer": {
            "kind": "jwt_bearer",
            "secret": "UPSTREAM_SIGNER",
            "algorithm": "RS256",
            "issuer": None,
            "subject": None,
            "audience": None,
            "scope": None,
            "lifetime": 3600,
            "key_id": None,
            "token_url": None,
            **_BEARER,
        },
        "google": {
            "kind": "jwt_bearer",
            "secret": "UPSTREAM_GOOGLE",
            "algorithm": "ES256",
            "issuer": "a.{fingerprint}",
            "subject": "c",
            "audience": "https://oauth2.example.com/token",
            "scope": "one",
            "lifetime": 1800,
            "key_id": "k",
            "token_url": "https://oauth2.example.com/token",
            "header": "x-token",
            "format": "{token}",
        },
        "airflow": {
            "kind": "login",
            "secret": "UPSTREAM_AIRFLOW",
            "url": "https://airflow.example.com/auth/token",
            "fields": {"username": "gate", "password": "{secret}"},
            "encoding": "json",
            "token": ["access_token"],
            "lifetime": None,
            **_BEARER,
        },
        "form": {
            "kind": "login",
            "secret": "UPSTREAM_AIRFLOW",
            "url": "https://airflow.example.com/token",
            "fields": {"key": "x{secret}"},
            "encoding": "form",
            "token": ["data", "token"],
            "lifetime": 1800,
            "header": "x-token",
            "format": "{token}",
        },
        "aws": {
            "kind": "sigv4",
            "secret": "UPSTREAM_AWS",
            "region": "eu-central-1",
            "service": "execute-api",
            "payload": "signed",
        },
        "bucket": {
            "kind": "sigv4",
            "secret": "UPSTREAM_AWS",
            "region": "eu-central-1",
            "service": "s3",
            "payload": "unsigned",
        },
        "own": {"kind": "caller"},
    },
}

# Of an upstream that says no more than base and owner.
USUAL: dict[str, Any] = {
    "log_path": False,
    "via": None,
    "private": False,
    "hosts": [],
    "encoded_slash": "refuse",
    "empty_segments": False,
    "request_headers": None,
    "set_headers": {},
    "forwarded": True,
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


def indented(by: int) -> str:
    """The settings, to stand under a name."""
    return "".join(" " * by + line + "\n" for line in WRITTEN.splitlines())
