"""Each preset beside tokens of its provider's documented shape, signed by real keys: added to a seed, compiled, and
judged by the gate's own code from the first character to the roles."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from world import ABSENT, NOW, run, without

from airgate.engine import Denied, Fact, Identity, Issuer, Keyring, Reason, identify, load_bundle
from airgate.engine import parse_token as parse
from airgate.engine import validate_token as validate
from airgate.issuer.add import add
from airgate.issuer.preset import preset, presets
from airgate.issuer.signature import verify
from airgate.policy.compile import compile_folder
from identity import WORKLOAD

GATE = "https://gate.example.com"
TENANT, OTHER = "11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555"
API = "66666666-7777-8888-9999-000000000000"
GUID = "aaaaaaaa-0000-0000-0000-000000000001"
AWS = "https://sts.amazonaws.com/"
KIND = "https://airgate/kind"
ROLE_ARN = "arn:aws:iam::123456789012:role/finance-etl"
WORKFLOW = "octo-org/jobs/.github/workflows/etl.yml@refs/heads/main"
ACCOUNT = "103547991597142817347"
TASK = "01991e54-7d3c-7c1c-8a54-6b1d1f6f6a11"

KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
STRANGER = rsa.generate_private_key(65537, 2048)

SEED = """\
roles:
{roles}
upstreams:
  ledger: {{base: "https://ledger.example.com", owner: o@example.com}}
policies:
  - id: read
    description: d
    owner: o@example.com
    effect: permit
    subject: {{issuer: theirs}}
    target: {{upstream: ledger, methods: [GET], paths: ["/**"]}}
"""


class Shape(NamedTuple):
    """A provider's documented token, and what its preset is told."""

    options: dict[str, list[str]]
    grants: dict[str, str]  # by role
    claims: dict[str, Any]
    roles: set[str]
    kind: str
    header: dict[str, Any]
    algorithm: str = "RS256"
    published: dict[str, Any] = {}  # noqa: RUF012  members that the provider's JWKs have beside the numbers
    lives: int = 3600  # seconds


JWT = {"typ": "JWT"}
NO_TYP = {"typ": None}  # PyJWT writes JWT unless told otherwise
ENTRA = {"use": "sig", "x5t": "c3R1dg", "x5c": ["MIIC"], "cloud_instance_name": "microsoftonline.com"}
FOR_ALL = "https://login.microsoftonline.com/{tenantid}/v2.0"  # as Entra writes it into a key of every tenant

ATTESTED_TASK: dict[str, Any] = {
    "dag": "finance_close",
    "task": "publish",
    "run": "manual__2027-01-15T06:00:00+00:00",
    "try": 2,
    "map_index": 0,
    "tags": ["finance", "monthly"],
    "owners": ["finance-data"],
    "run_type": "manual",
    "triggered_by": "ada",
    "dag_bundle": "dags@4f1c2e9",
    "environment": "production",
}

SHAPES: dict[str, Shape] = {
    "okta": Shape(
        {"domain": ["example.okta.com"], "audience": [GATE]},
        {"publisher": "claim: groups, value: publishers", "writer": "scope: ledger.write"},
        {
            "ver": 1,
            "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
            "iss": "https://example.okta.com/oauth2/default",
            "aud": GATE,
            "sub": "0oab8eb55Kb9jdMIr5d6",
            "cid": "0oab8eb55Kb9jdMIr5d6",
            "scp": ["ledger.read", "ledger.write"],
            "groups": ["publishers", "everyone"],
            "airgate_kind": "workload",
        },
        {"publisher", "writer"},
        "workload",
        NO_TYP,
        published={"alg": "RS256", "use": "sig"},
    ),
    "entra-v2": Shape(
        {"tenant": [TENANT], "audience": [API]},
        {"publisher": "claim: roles, value: Ledger.Publish", "grouped": f"claim: groups, value: {GUID}"},
        {
            "aud": API,
            "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0",
            "azp": "cccccccc-0000-0000-0000-000000000001",
            "azpacr": "1",
            "oid": GUID,
            "rh": "I",
            "roles": ["Ledger.Publish"],
            "groups": [GUID],
            "sub": GUID,
            "tid": TENANT,
            "uti": "u",
            "ver": "2.0",
            "idtyp": "app",
        },
        {"publisher", "grouped"},
        "workload",
        JWT,
        published={**ENTRA, "issuer": FOR_ALL},
        lives=5400 + 300,
    ),
    "entra-v1": Shape(
        {"tenant": [TENANT], "audience": ["api://gate"]},
        {"publisher": "claim: roles, value: Ledger.Publish", "grouped": f"claim: groups, value: {GUID}"},
        {
            "aud": "api://gate",
            "iss": f"https://sts.windows.net/{TENANT}/",
            "appid": "cccccccc-0000-0000-0000-000000000001",
            "appidacr": "2",
            "idp": f"https://sts.windows.net/{TENANT}/",
            "oid": GUID,
            "roles": ["Ledger.Publish"],
            "groups": [],
            "sub": GUID,
            "tid": TENANT,
            "ver": "1.0",
            "idtyp": "app",
        },
        {"publisher"},
        "workload",
        {**JWT, "x5t": "c3R1dg"},
        published=ENTRA,
        lives=3900,
    ),
    "google": Shape(
        {"hosted-domain": ["example.com"], "audience": ["1234-gate.apps.googleusercontent.com"]},
        {"reader": 'subject: "110169484474386276334"'},
        {
            "iss": "https://accounts.google.com",
            "azp": "1234-gate.apps.googleusercontent.com",
            "aud": "1234-gate.apps.googleusercontent.com",
            "sub": "110169484474386276334",
            "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q",
            "hd": "example.com",
            "email": "finance-lead@example.com",
            "email_verified": True,
        },
        {"reader"},
        "human",
        JWT,
        published={"alg": "RS256", "use": "sig"},
    ),
    "google-service-accounts": Shape(
        {"service-account": [ACCOUNT], "audience": [GATE]},
        {"etl": f'subject: "{ACCOUNT}"'},
        {
            "iss": "https://accounts.google.com",
            "aud": GATE,
            "azp": ACCOUNT,
            "sub": ACCOUNT,
            "email": "etl@data.iam.gserviceaccount.com",
            "email_verified": True,
        },
        {"etl"},
        "workload",
        JWT,
        published={"alg": "RS256", "use": "sig"},
    ),
    "keycloak": Shape(
        {"url": ["https://sso.example.com"], "realm": ["data"], "audience": [GATE], "party": ["airflow"]},
        {
            "publisher": "claim: [realm_access, roles], value: finance-publisher",
            "reader": "claim: [resource_access, gate, roles], value: reader",
        },
        {
            "jti": "trrtcc:0b2c",
            "iss": "https://sso.example.com/realms/data",
            "aud": GATE,
            "sub": "f:2b9d",
            "typ": "Bearer",
            "azp": "airflow",
            "acr": "1",
            "realm_access": {"roles": ["finance-publisher", "offline_access"]},
            "resource_access": {"gate": {"roles": ["reader"]}, "account": {"roles": ["view-profile"]}},
            "scope": "profile email",
            "clientHost": "10.0.0.1",
            "preferred_username": "service-account-airflow",
            "airgate_kind": "workload",
        },
        {"publisher", "reader"},
        "workload",
        JWT,
        published={"alg": "RS256", "use": "sig", "x5c": ["MIIC"]},
        lives=300,
    ),
    "auth0": Shape(
        {"domain": ["example.eu.auth0.com"], "audience": [GATE], "party": ["K1AUPhZq8mRi"]},
        {"writer": 'claim: permissions, value: "write:ledger"', "reader": 'scope: "read:ledger"'},
        {
            "iss": "https://example.eu.auth0.com/",
            "sub": "K1AUPhZq8mRi@clients",
            "aud": GATE,
            "azp": "K1AUPhZq8mRi",
            "scope": "read:ledger",
            "gty": "client-credentials",
            "permissions": ["write:ledger"],
            KIND: "workload",
        },
        {"writer", "reader"},
        "workload",
        JWT,
        published={"alg": "RS256", "use": "sig", "x5c": ["MIIC"], "x5t": "c3R1dg"},
    ),
    "aws-sts": Shape(
        {"issuer-id": ["a1b2c3d4-1111"], "account": ["123456789012"], "audience": [GATE]},
        {
            "etl": f'subject: "{ROLE_ARN}"',
            "finance": f'claim: ["{AWS}", principal_tags, team], value: finance',
        },
        {
            "iss": "https://a1b2c3d4-1111.tokens.sts.global.api.aws",
            "aud": GATE,
            "sub": ROLE_ARN,
            "jti": "xyz",
            AWS: {
                "aws_account": "123456789012",
                "source_region": "eu-central-1",
                "org_id": "o-abc1234567",
                "principal_tags": {"environment": "production", "team": "finance"},
                "request_tags": {"team": "anything"},
            },
        },
        {"etl", "finance"},
        "workload",
        JWT,
        "ES384",
        published={"alg": "ES384", "use": "sig"},
        lives=300,
    ),
    "kubernetes": Shape(
        {
            "issuer": ["https://oidc.example.com/clusters/data"],
            "jwks-uri": ["https://keys.example.com/data.json"],
            "namespace": ["airflow"],
            "audience": [GATE],
        },
        {"etl": 'subject: "system:serviceaccount:airflow:finance-etl"'},
        {
            "aud": [GATE],
            "iss": "https://oidc.example.com/clusters/data",
            "jti": "aed34954-b33a-4142-b1ec-389d6bbb4936",
            "kubernetes.io": {
                "namespace": "airflow",
                "node": {"name": "node-1", "uid": "646e7c5e"},
                "pod": {"name": "finance-close-7", "uid": "5e0bd49b"},
                "serviceaccount": {"name": "finance-etl", "uid": "14ee3fa4"},
                "warnafter": NOW + 3000,
            },
            "nbf": NOW - 10,
            "sub": "system:serviceaccount:airflow:finance-etl",
        },
        {"etl"},
        "workload",
        NO_TYP,
        published={"alg": "RS256", "use": "sig"},
    ),
    "github-actions": Shape(
        {"owner-id": ["65"], "repository-id": ["74"], "workflow": [WORKFLOW], "audience": [GATE]},
        {"deployer": f"claim: job_workflow_ref, value: {WORKFLOW}"},
        {
            "jti": "example-id",
            "iss": "https://token.actions.githubusercontent.com",
            "aud": GATE,
            "sub": "repo:octo-org/etl:ref:refs/heads/main",
            "ref": "refs/heads/main",
            "repository": "octo-org/etl",
            "repository_id": "74",
            "repository_owner": "octo-org",
            "repository_owner_id": "65",
            "job_workflow_ref": WORKFLOW,
            "event_name": "schedule",
            "run_id": "22259804324",
            "nbf": NOW - 610,
        },
        {"deployer"},
        "workload",
        {**JWT, "x5t": "c3R1dg"},
        published={"alg": "RS256", "use": "sig", "x5t": "c3R1dg", "x5c": ["MIIC"]},
        lives=300,
    ),
    "airflow": Shape(
        {"base": ["https://airflow.example.com"], "audience": [GATE]},
        {
            "trigger": "claim: [airflow, triggered_by], value: ada",
            "close": "claim: [airflow, dag], value: finance_close",
        },
        {
            "iss": "https://airflow.example.com/airgate",
            "aud": GATE,
            "sub": "finance_close/publish",
            "client_id": "airflow",
            "jti": "0191b2c3d4e5f60718293a4b5c6d7e8f",
            "sid": TASK,
            "airflow": ATTESTED_TASK,
        },
        {"trigger", "close"},
        "workload",
        {"typ": "at+jwt"},
        "ES256",
        published={"use": "sig", "alg": "ES256"},
        lives=300,
    ),
    "airflow-execution": Shape(
        {"issuer": ["https://airflow.example.com"], "jwks-uri": ["https://airflow.example.com/jwks.json"]},
        {"task": "kind: workload"},
        {
            "jti": "0191b2c3d4e5f60718293a4b5c6d7e8f",
            "iss": "https://airflow.example.com",
            "aud": "urn:airflow.apache.org:task",
            "sub": TASK,
            "scope": "execution",
            "nbf": NOW - 10,
        },
        {"task"},
        "workload",
        JWT,
        published={},
        lives=600,
    ),
}


def jwk(private: Any, **members: Any) -> dict[str, Any]:
    public = private.public_key()
    of = (
        RSAAlgorithm
        if isinstance(private, rsa.RSAPrivateKey)
        else ECAlgorithm
        if isinstance(private, ec.EllipticCurvePrivateKey)
        else OKPAlgorithm
    )
    numbers = {name: value for name, value in of.to_jwk(public, as_dict=True).items() if name != "key_ops"}
    return {**numbers, **members}


class Provider:
    """One provider's keys, served to the gate's Keyring, and the issuer that its preset makes."""

    def __init__(
        self, name: str, folder: Path, options: Mapping[str, list[str]], edit: tuple[str, str] | None
    ) -> None:
        self.shape = SHAPES[name]
        roles = "\n".join(
            f"  {role}: {{description: d, granted_to: [{{issuer: theirs, {grant}}}]}}"
            for role, grant in self.shape.grants.items()
        )
        (folder / "seed.yaml").write_text(SEED.format(roles=roles))
        add(preset(name), "theirs", {**self.shape.options, **options}, folder)
        if edit is not None:
            file = folder / "issuers" / "theirs.yaml"
            text = file.read_text()
            assert edit[0] in text
            file.write_text(text.replace(*edit))
        [self.issuer] = load_bundle(compile_folder(folder, now=NOW).text).issuers.values()
        self.keyring = Keyring(self.issuer.source)

    async def fetch(self, url: str, timeout: float, limit: int) -> bytes:
        issuer: Issuer = self.issuer
        if url == issuer.source.issuer.rstrip("/") + "/.well-known/openid-configuration":
            return json.dumps(
                {"issuer": issuer.source.issuer, "jwks_uri": "https://keys.example.com/k"}
            ).encode()
        assert url in (issuer.source.jwks_uri, "https://keys.example.com/k")
        keys = [
            jwk(KEYS[self.shape.algorithm], kid="one", **self.shape.published),
            jwk(STRANGER, kid="enc", use="enc", alg="RSA-OAEP"),  # as Keycloak has one
            jwk(STRANGER, kid="personal", issuer=FOR_ALL.replace("{tenantid}", OTHER)),  # as Entra has some
        ]
        return json.dumps({"keys": keys}).encode()

    def token(self, header: Mapping[str, Any], algorithm: str | None, key: Any = None, **claims: Any) -> str:
        """The documented token, with changes."""
        usual = {**self.shape.claims, "iat": NOW - 10, "exp": NOW - 10 + self.shape.lives}
        algorithm = algorithm or self.shape.algorithm
        headers = {"kid": "one", **self.shape.header, **header}
        return jwt.encode(without(usual, **claims), key or KEYS[self.shape.algorithm], algorithm, headers)

    def present(self, token: str) -> Identity:
        """What the gate does with a token, in the order in which it does it. Raises Denied."""
        unverified = parse(token)
        if unverified.issuer != self.issuer.source.issuer:
            raise Denied(Reason.TOKEN_ISSUER)
        algorithms = self.issuer.rules.algorithms
        run(self.keyring.verify(unverified, algorithms, self.fetch, verify, NOW))
        subject, _ = validate(unverified, self.issuer.rules, NOW)
        return identify(unverified.claims, subject, self.issuer.mapping)


@pytest.mark.parametrize("name", presets())
def test_the_documented_token_is_accepted(name: str, tmp_path: Path) -> None:
    provider = Provider(name, tmp_path, {}, None)
    who = provider.present(provider.token({}, None))
    assert (who.issuer, who.subject, who.kind) == (
        "theirs",
        provider.shape.claims["sub"],
        provider.shape.kind,
    )
    assert who.granted == provider.shape.roles
    assert who.unknown == frozenset()
    assert bool(who.attested) is (name == "airflow")


def groups(count: int) -> list[str]:
    return ["publishers", *[f"group-{number}" for number in range(count - 1)]]


OVERAGE = {
    "_claim_names": {"groups": "src1"},
    "_claim_sources": {"src1": {"endpoint": "https://graph.example.com"}},
}
# People's tokens as these providers write them, where nobody has set up what says that it is a person.
OKTA_PERSON = {
    "airgate_kind": ABSENT,
    "sub": "ada@example.com",
    "uid": "00uid4BxXw6I6TV4m0g3",
    "auth_time": NOW - 20,
}
KEYCLOAK_PERSON = {"airgate_kind": ABSENT, "clientHost": ABSENT, "preferred_username": "ada", "sid": "5e0b"}
AUTH0_PERSON = {KIND: ABSENT, "gty": ABSENT, "sub": "auth0|6553da60", "scope": "openid read:ledger"}
TWO = ["https://gate.example.com", "https://example.eu.auth0.com/userinfo"]
SECRET = "s" * 64

REFUSED = [
    # preset, changes to the claims; the reason
    ("okta", {"groups": groups(100)}, Reason.TOKEN_INCOMPLETE, "100 groups: there may be more"),
    ("okta", {"groups": groups(300)}, Reason.TOKEN_INCOMPLETE, "more groups than Okta's expressions return"),
    ("okta", {"iss": "https://example.okta.com"}, Reason.TOKEN_ISSUER, "a token of the organisation's own server"),
    ("okta", {"aud": "0oab8eb55Kb9jdMIr5d6", "nonce": "n"}, Reason.TOKEN_TYPE, "an ID token"),
    ("okta", {"aud": "0oab8eb55Kb9jdMIr5d6"}, Reason.TOKEN_AUDIENCE, "an ID token that nothing gives away"),
    ("okta", {"exp": NOW + 86_390}, Reason.TOKEN_LIFETIME, "a day's token"),
    ("okta", {"airgate_kind": "robot"}, Reason.TOKEN_CLAIMS, "a kind that there isn't"),
    ("okta", OKTA_PERSON, Reason.TOKEN_CLAIMS, "a person whose client says nothing"),
    ("okta", {"airgate_kind": ABSENT}, Reason.TOKEN_CLAIMS, "an application whose profile says nothing"),
    ("okta", {"airgate_kind": None}, Reason.TOKEN_CLAIMS, "a kind that is null"),
    ("okta", {"groups": [{"name": "publishers"}]}, Reason.TOKEN_CLAIMS, "groups that aren't text"),
    ("entra-v2", {"tid": OTHER}, Reason.TOKEN_CLAIMS, "another tenant's id"),
    ("entra-v2", {"tid": ABSENT}, Reason.TOKEN_CLAIMS, "no tenant's id"),
    (
        "entra-v2",
        {"iss": f"https://login.microsoftonline.com/{OTHER}/v2.0", "tid": OTHER},
        Reason.TOKEN_ISSUER,
        "another tenant",
    ),
    ("entra-v2", {"iss": f"https://sts.windows.net/{TENANT}/"}, Reason.TOKEN_ISSUER, "version 1.0 of the tenant"),
    ("entra-v2", {"ver": "1.0"}, Reason.TOKEN_CLAIMS, "another version"),
    ("entra-v2", {"azpacr": ABSENT, "azp": ABSENT}, Reason.TOKEN_CLAIMS, "an ID token of the same client"),
    ("entra-v2", {"nonce": "n", "azpacr": ABSENT}, Reason.TOKEN_TYPE, "an ID token with a nonce"),
    ("entra-v2", {"idtyp": "user", "scp": "Ledger.Write"}, Reason.TOKEN_CLAIMS, "a person"),
    ("entra-v2", {"idtyp": ABSENT}, Reason.TOKEN_CLAIMS, "nobody can tell an application from a person"),
    ("entra-v2", {"groups": ABSENT, **OVERAGE}, Reason.TOKEN_INCOMPLETE, "more than 200 groups"),
    ("entra-v2", {"groups": ABSENT, "hasgroups": True}, Reason.TOKEN_INCOMPLETE, "groups by the implicit grant"),
    ("entra-v2", {"aud": GUID}, Reason.TOKEN_AUDIENCE, "another API's token"),
    ("entra-v1", {"tid": OTHER}, Reason.TOKEN_CLAIMS, "another tenant's id"),
    ("entra-v1", {"iss": f"https://sts.windows.net/{TENANT}"}, Reason.TOKEN_ISSUER, "no slash at the end"),
    ("entra-v1", {"appidacr": ABSENT}, Reason.TOKEN_CLAIMS, "an ID token of the same client"),
    ("entra-v1", {"groups": ABSENT, **OVERAGE}, Reason.TOKEN_INCOMPLETE, "more than 200 groups"),
    ("google", {"hd": "other.example"}, Reason.TOKEN_CLAIMS, "another Workspace domain"),
    ("google", {"hd": ABSENT}, Reason.TOKEN_CLAIMS, "a private account with an address of the domain"),
    ("google", {"email_verified": False}, Reason.TOKEN_CLAIMS, "an address that isn't verified"),
    ("google", {"email_verified": "yes"}, Reason.TOKEN_CLAIMS, "an address that is said to be verified in text"),
    ("google", {"aud": "32555940559.apps.googleusercontent.com"}, Reason.TOKEN_AUDIENCE, "another client's token"),
    ("google", {"iss": "accounts.google.com"}, Reason.TOKEN_ISSUER, "Google's bare host as iss"),
    ("google-service-accounts", {"sub": "1" * 21}, Reason.TOKEN_CLAIMS, "a service account of anybody else"),
    (
        "google-service-accounts",
        {"sub": "2" * 21, "email": "etl@data.iam.gserviceaccount.com"},
        Reason.TOKEN_CLAIMS,
        "an account made again under the old address",
    ),
    ("google-service-accounts", {"sub": "110169484474386276334", "hd": "example.com"}, Reason.TOKEN_CLAIMS, "a person"),
    ("keycloak", KEYCLOAK_PERSON, Reason.TOKEN_CLAIMS, "a person whose client has no mapper"),
    ("keycloak", {"airgate_kind": ""}, Reason.TOKEN_CLAIMS, "a mapper without a value"),
    ("keycloak", {"typ": "ID"}, Reason.TOKEN_TYPE, "an ID token"),
    ("keycloak", {"typ": "Refresh"}, Reason.TOKEN_TYPE, "a refresh token"),
    ("keycloak", {"typ": "Logout", "events": {}}, Reason.TOKEN_TYPE, "a logout token"),
    ("keycloak", {"aud": ABSENT}, Reason.TOKEN_AUDIENCE, "no audience mapper"),
    ("keycloak", {"aud": "account"}, Reason.TOKEN_AUDIENCE, "only account, by Audience Resolve"),
    ("keycloak", {"aud": [GATE, "account"], "azp": "wiki"}, Reason.TOKEN_AUDIENCE, "account too, for a stranger"),
    ("keycloak", {"iss": "https://sso.example.com/realms/master"}, Reason.TOKEN_ISSUER, "another realm"),
    ("auth0", AUTH0_PERSON, Reason.TOKEN_CLAIMS, "a person, and no Action"),
    ("auth0", {**AUTH0_PERSON, "gty": "password"}, Reason.TOKEN_CLAIMS, "a person by password, and no Action"),
    ("auth0", {**AUTH0_PERSON, "airgate_kind": "workload"}, Reason.TOKEN_CLAIMS, "the kind under another name"),
    ("auth0", {"aud": TWO, "azp": "another"}, Reason.TOKEN_AUDIENCE, "userinfo beside the gate, from another client"),
    ("auth0", {"aud": TWO[1]}, Reason.TOKEN_AUDIENCE, "userinfo alone"),
    ("auth0", {"iss": "https://example.eu.auth0.com"}, Reason.TOKEN_ISSUER, "no slash at the end"),
    ("auth0", {"exp": NOW - 10 + 86_400}, Reason.TOKEN_LIFETIME, "an API's default of 24 hours"),
    ("auth0", {"nonce": "n", "aud": "K1AUPhZq8mRi"}, Reason.TOKEN_TYPE, "an ID token"),
    ("aws-sts", {AWS: {"aws_account": "210987654321"}}, Reason.TOKEN_CLAIMS, "another account"),
    ("aws-sts", {AWS: ABSENT}, Reason.TOKEN_CLAIMS, "no account"),
    ("aws-sts", {"aws_account": "123456789012", AWS: {}}, Reason.TOKEN_CLAIMS, "the account at another place"),
    ("aws-sts", {"aud": [GATE, "https://bank.example.com"]}, Reason.TOKEN_AUDIENCE, "two audiences"),
    ("aws-sts", {"exp": NOW + 3500}, Reason.TOKEN_LIFETIME, "an hour's token"),
    ("kubernetes", {"aud": ["https://kubernetes.default.svc"]}, Reason.TOKEN_AUDIENCE, "the API server's own token"),
    (
        "kubernetes",
        {"aud": ["https://kubernetes.default.svc", GATE]},
        Reason.TOKEN_AUDIENCE,
        "a token that could act in the cluster too",
    ),
    ("kubernetes", {"kubernetes.io": {"namespace": "default"}}, Reason.TOKEN_CLAIMS, "another namespace"),
    ("kubernetes", {"kubernetes.io": ABSENT}, Reason.TOKEN_CLAIMS, "no namespace"),
    ("kubernetes", {"exp": NOW + 31_536_000}, Reason.TOKEN_LIFETIME, "a token that was extended to a year"),
    ("github-actions", {"repository_owner_id": "66"}, Reason.TOKEN_CLAIMS, "an owner who took the old name"),
    ("github-actions", {"repository_id": "75"}, Reason.TOKEN_CLAIMS, "another repository of that name"),
    ("github-actions", {"job_workflow_ref": WORKFLOW[:-4] + "dev"}, Reason.TOKEN_CLAIMS, "another branch's workflow"),
    ("github-actions", {"event_name": "pull_request_target", "actor": "stranger"}, Reason.TOKEN_CLAIMS,
     "a fork's pull request on main, by pull_request_target"),
    ("github-actions", {"event_name": "workflow_run"}, Reason.TOKEN_CLAIMS, "what follows on a fork's workflow"),
    ("github-actions", {"event_name": "issue_comment"}, Reason.TOKEN_CLAIMS, "a stranger's comment"),
    ("github-actions", {"event_name": "pull_request", "ref": "refs/pull/7/merge"}, Reason.TOKEN_CLAIMS,
     "a pull request that nobody has reviewed"),
    ("github-actions", {"event_name": ABSENT}, Reason.TOKEN_CLAIMS, "no event"),
    ("github-actions", {"aud": "https://github.com/octo-org"}, Reason.TOKEN_AUDIENCE, "the default audience"),
    ("airflow-execution", {"aud": "urn:airflow.apache.org:api"}, Reason.TOKEN_AUDIENCE, "a token of the REST API"),
    ("airflow-execution", {"iss": ABSENT}, Reason.TOKEN_ISSUER, "jwt_issuer isn't set"),
    ("airflow-execution", {"exp": NOW + 86_390}, Reason.TOKEN_LIFETIME, "a token for a day in the queue"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "claims", "reason"), [pytest.param(*row[:3], id=f"{row[0]}: {row[3]}") for row in REFUSED]
)
def test_a_quirk_is_refused(name: str, claims: dict[str, Any], reason: Reason, tmp_path: Path) -> None:
    provider = Provider(name, tmp_path, {}, None)
    with pytest.raises(Denied) as caught:
        provider.present(provider.token({}, None, **claims))
    assert caught.value.reason is reason


SIGNED = [
    # preset, header, algorithm, key, options; the reason
    ("airflow-execution", {}, "HS512", SECRET, {}, Reason.TOKEN_ALGORITHM, "Airflow's default, HS512"),
    ("airflow-execution", {}, "RS512", None, {}, Reason.TOKEN_ALGORITHM, "an RSA key whose algorithm Airflow guesses"),
    ("airflow-execution", {"kid": "not-used"}, None, None, {}, Reason.TOKEN_KEY, "a kid that isn't published"),
    ("auth0", {}, "HS256", SECRET, {}, Reason.TOKEN_ALGORITHM, "an API that is set to HS256"),
    ("keycloak", {}, "HS512", SECRET, {}, Reason.TOKEN_ALGORITHM, "Keycloak's refresh tokens"),
    ("keycloak", {"kid": "enc"}, None, STRANGER, {}, Reason.TOKEN_KEY, "a signature by the encryption key"),
    ("keycloak", {"typ": "logout+jwt"}, None, None, {}, Reason.TOKEN_TYPE, "a logout token by its header"),
    ("entra-v2", {"kid": "personal"}, None, STRANGER, {}, Reason.TOKEN_KEY, "a key of another tenant in the same set"),
    ("entra-v1", {"kid": "personal"}, None, STRANGER, {}, Reason.TOKEN_KEY, "a key of another tenant in the same set"),
    ("aws-sts", {}, None, None, {"algorithm": ["RS256"]}, Reason.TOKEN_ALGORITHM, "ES384 where RS256 is asked for"),
    *[(name, {}, None, STRANGER, {}, Reason.TOKEN_SIGNATURE, "signed by a stranger")
      for name in presets() if name not in ("airflow", "aws-sts")],
    ("airflow", {}, None, ec.generate_private_key(ec.SECP256R1()), {}, Reason.TOKEN_SIGNATURE, "signed by a stranger"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "header", "algorithm", "key", "options", "reason"),
    [pytest.param(*row[:6], id=f"{row[0]}: {row[6]}") for row in SIGNED],
)
def test_a_signature_is_refused(
    name: str,
    header: dict[str, Any],
    algorithm: str | None,
    key: Any,
    options: dict[str, list[str]],
    reason: Reason,
    tmp_path: Path,
) -> None:
    provider = Provider(name, tmp_path, options, None)
    with pytest.raises(Denied) as caught:
        provider.present(provider.token(header, algorithm, key))
    assert caught.value.reason is reason


SCOPED = {"scope": ["execution"]}
BOTH = {"idtyp": ["app", "user"]}
ATTESTED = ("    # attested:\n    #   environment:", "    attested:\n      environment:")
ACCEPTED = [
    # preset, options, an edit of the file, header, claims; roles, kind, attested environment
    ("okta", {}, None, {}, {"groups": groups(99)}, {"publisher", "writer"}, "workload", None, "99 groups"),
    (
        "okta",
        {"groups-limit": ["400"]},
        None,
        {},
        {"groups": groups(150)},
        {"publisher", "writer"},
        "workload",
        None,
        "150 groups of an expression that returns 400",
    ),
    ("okta", {}, None, {}, {"airgate_kind": "human"}, {"publisher", "writer"}, "human", None, "a person, by the claim"),
    ("okta", {}, None, {}, {"scp": "ledger.write", "groups": []}, {"writer"}, "workload", None, "one scope as text"),
    (
        "okta",
        {},
        ("      - {claim: airgate_kind, any: [workload, human, agent]}", "      - {claim: ver, any: [1]}"),
        {},
        {"airgate_kind": ABSENT},
        {"publisher", "writer"},
        "workload",
        None,
        "the line for the kind taken out, where only machines get tokens",
    ),
    (
        "entra-v2",
        {"idtyp": ["user"]},
        None,
        {},
        {"idtyp": "user", "azpacr": "0", "scp": "Ledger.Write"},
        {"publisher", "grouped"},
        "human",
        None,
        "people, where that is asked for",
    ),
    ("entra-v2", BOTH, None, {}, {"idtyp": "user"}, {"publisher", "grouped"}, "human", None, "a person"),
    ("entra-v2", BOTH, None, {}, {}, {"publisher", "grouped"}, "workload", None, "beside an application"),
    ("entra-v1", {}, None, {}, {"groups": [GUID]}, {"publisher", "grouped"}, "workload", None, "a group"),
    ("google", {}, None, {}, {"at_hash": ABSENT}, {"reader"}, "human", None, "an ID token that nothing gives away"),
    (
        "keycloak",
        {},
        None,
        {},
        {"aud": [GATE, "account"]},
        {"publisher", "reader"},
        "workload",
        None,
        "account beside the gate, from a client that may",
    ),
    ("keycloak", {}, None, {"typ": "at+jwt"}, {}, {"publisher", "reader"}, "workload", None, "typ at+jwt switched on"),
    ("keycloak", {}, None, {}, {"airgate_kind": "agent"}, {"publisher", "reader"}, "agent", None, "an agent"),
    ("auth0", {}, None, {}, {"aud": TWO}, {"writer", "reader"}, "workload", None, "userinfo beside the gate"),
    (
        "auth0",
        {},
        ("type: any", "type: at+jwt"),
        {"typ": "at+jwt"},
        {"azp": ABSENT, "client_id": "K1AUPhZq8mRi", "jti": "73Wa", "aud": TWO},
        {"writer", "reader"},
        "workload",
        None,
        "the RFC 9068 profile",
    ),
    (
        "auth0",
        {"max-lifetime": ["24h"]},
        None,
        {},
        {"exp": NOW - 10 + 86_400},
        {"writer", "reader"},
        "workload",
        None,
        "24 hours, where that is said",
    ),
    ("auth0", {}, None, {}, {**AUTH0_PERSON, KIND: "human"}, {"writer", "reader"}, "human", None, "a person"),
    ("aws-sts", {}, ATTESTED, {}, {}, {"etl", "finance"}, "workload", "production", "an attested environment"),
    ("kubernetes", {}, ATTESTED, {}, {}, {"etl"}, "workload", "airflow", "the namespace as environment"),
    (
        "github-actions",
        {"event": ["release"]},
        None,
        {},
        {"event_name": "release"},
        {"deployer"},
        "workload",
        None,
        "another event, where that is asked for",
    ),
    ("github-actions", {}, None, {}, {"event_name": "push"}, {"deployer"}, "workload", None, "a push"),
    ("github-actions", {}, None, {}, {"event_name": "workflow_dispatch"}, {"deployer"}, "workload", None, "by hand"),
    ("github-actions", {"ref": ["refs/heads/main"]}, None, {}, {}, {"deployer"}, "workload", None, "one ref"),
    ("airflow-execution", SCOPED, None, {}, {}, {"task"}, "workload", None, "the scope that is asked for"),
    ("airflow-execution", {}, None, {}, {"scope": ABSENT}, {"task"}, "workload", None, "an older Airflow"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "edit", "header", "claims", "roles", "kind", "environment"),
    [pytest.param(*row[:8], id=f"{row[0]}: {row[8]}") for row in ACCEPTED],
)
def test_a_quirk_is_understood(
    name: str,
    options: dict[str, list[str]],
    edit: tuple[str, str] | None,
    header: dict[str, Any],
    claims: dict[str, Any],
    roles: set[str],
    kind: str,
    environment: str | None,
    tmp_path: Path,
) -> None:
    provider = Provider(name, tmp_path, options, edit)
    who = provider.present(provider.token(header, None, **claims))
    assert who.granted == roles
    assert who.kind == kind
    assert who.attested == ({} if environment is None else {"environment": Fact(environment, True)})


# What a caller can have put into a token by asking for it.
PERSON = {
    "idtyp": "user",
    "azpacr": "0",
    "appidacr": "0",
    "roles": ABSENT,
    "groups": ABSENT,
    "scp": "Ledger.Write",
}
ASKED = [
    # preset, options, claims
    ("okta", {}, {**OKTA_PERSON, "airgate_kind": "human", "scp": ["ledger.write"], "groups": ABSENT}),
    ("entra-v2", {"idtyp": ["user"]}, PERSON),
    ("entra-v1", {"idtyp": ["app", "user"]}, PERSON),
    ("auth0", {}, {**AUTH0_PERSON, KIND: "human", "scope": "write:ledger", "permissions": ABSENT}),
    ("keycloak", {}, {**KEYCLOAK_PERSON, "airgate_kind": "human", "scope": "finance-publisher", "realm_access": ABSENT,
                      "resource_access": ABSENT}),
    ("aws-sts", {}, {"sub": ROLE_ARN + "-2", AWS: {"aws_account": "123456789012",
                                                  "principal_tags": {"team": "finance", "environment": "production"}}}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "claims"), ASKED, ids=[row[0] for row in ASKED])
def test_the_grants_that_are_printed_give_no_role_for_what_a_caller_asks_for(
    name: str,
    options: dict[str, list[str]],
    claims: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    printed = [grant.strip("{}").partition(", ")[2] for grant in preset(name).grants]
    shape = SHAPES[name]._replace(grants={f"role-{number}": grant for number, grant in enumerate(printed)})
    monkeypatch.setitem(SHAPES, name, shape)
    provider = Provider(name, tmp_path, options, None)
    who = provider.present(provider.token({}, None, **claims))
    assert (who.granted, who.attested) == (frozenset(), {})


def test_a_task_token_that_waits_in_a_queue_is_refused_where_the_scope_is_asked_for(tmp_path: Path) -> None:
    provider = Provider("airflow-execution", tmp_path, SCOPED, None)
    for claims in ({"scope": "workload"}, {"scope": ABSENT}):
        with pytest.raises(Denied) as caught:
            provider.present(provider.token({}, None, **claims))
        assert caught.value.reason is Reason.TOKEN_CLAIMS


REF = ["refs/heads/main"]
MAIN = [
    # options, claims; is it accepted?
    (
        {},
        {"job_workflow_ref": "octo-org/etl/.github/workflows/x.yml@refs/heads/main"},
        True,
        "the repository's own",
    ),
    ({}, {"repository_id": "75", "repository": "octo-org/mine"}, False, "main of a member's new repository"),
    ({}, {"ref": "refs/heads/mine"}, False, "another branch of the repository"),
    ({}, {"event_name": "pull_request_target"}, False, "a fork's pull request on main"),
    ({"event": ["push"]}, {}, False, "a schedule, where pushes are asked for"),
]


@pytest.mark.parametrize(
    ("options", "claims", "accepted"), [pytest.param(*row[:3], id=row[3]) for row in MAIN]
)
def test_a_ref_is_one_of_the_repositories(
    options: dict[str, list[str]], claims: dict[str, Any], accepted: bool, tmp_path: Path
) -> None:
    provider = Provider("github-actions", tmp_path, {"workflow": [], "ref": REF, **options}, None)
    token = provider.token({}, None, **claims)
    if accepted:
        assert provider.present(token).kind == "workload"
        return
    with pytest.raises(Denied) as caught:
        provider.present(token)
    assert caught.value.reason is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize("name", ["entra-v1", "entra-v2"])
@pytest.mark.parametrize("marked", [FOR_ALL, FOR_ALL.replace("{tenantid}", TENANT)], ids=["every", "this"])
def test_a_key_of_entra_that_is_marked_for_this_tenant_is_used(
    name: str, marked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For tokens of 1.0 too keys are marked as 2.0 writes issuers."""
    monkeypatch.setitem(SHAPES, name, SHAPES[name]._replace(published={**ENTRA, "issuer": marked}))
    provider = Provider(name, tmp_path, {}, None)
    assert "publisher" in provider.present(provider.token({}, None)).granted


def test_groups_that_no_grant_reads_may_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_app_roles = {"publisher": SHAPES["entra-v2"].grants["publisher"]}
    monkeypatch.setitem(SHAPES, "entra-v2", SHAPES["entra-v2"]._replace(grants=by_app_roles))
    provider = Provider("entra-v2", tmp_path, {}, None)
    assert provider.present(provider.token({}, None, groups=ABSENT, **OVERAGE)).granted == {"publisher"}


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
def test_airflow_attests_all_that_its_token_says(algorithm: str, tmp_path: Path) -> None:
    provider = Provider("airflow", tmp_path, {"algorithm": ["ES256", "EdDSA", "RS256"]}, None)
    provider.shape = provider.shape._replace(algorithm=algorithm, published={})
    who = provider.present(provider.token({}, None))
    said = {name: value if isinstance(value, list) else str(value) for name, value in ATTESTED_TASK.items()}
    assert {name: fact.value for name, fact in who.attested.items()} == {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in {**said, "session": TASK}.items()
    }
    assert all(fact.attested for fact in who.attested.values())
    assert set(who.attested) == set(WORKLOAD)


def test_a_scheduled_run_has_no_user_so_the_role_by_one_is_unknown(tmp_path: Path) -> None:
    provider = Provider("airflow", tmp_path, {}, None)
    scheduled = {name: value for name, value in ATTESTED_TASK.items() if name != "triggered_by"}
    who = provider.present(provider.token({}, None, airflow=scheduled | {"run_type": "scheduled"}))
    assert (who.granted, who.unknown) == ({"close"}, {"trigger"})
    assert "triggered_by" not in who.attested


@pytest.mark.parametrize("value", [["ada"], "", "a" * 257, True, {"name": "ada"}])
def test_a_user_that_is_no_short_text_is_refused(value: object, tmp_path: Path) -> None:
    provider = Provider("airflow", tmp_path, {}, None)
    with pytest.raises(Denied) as caught:
        provider.present(provider.token({}, None, airflow={**ATTESTED_TASK, "triggered_by": value}))
    assert caught.value.reason is Reason.TOKEN_CLAIMS


def test_a_task_of_airflow_says_nothing_of_its_dag(tmp_path: Path) -> None:
    provider = Provider("airflow-execution", tmp_path, {"algorithm": ["EdDSA"]}, None)
    provider.shape = provider.shape._replace(algorithm="EdDSA")
    who = provider.present(provider.token({}, None))
    assert (who.subject, who.attested) == (TASK, {})


def test_every_preset_has_a_shape_here_and_a_part_in_the_docs() -> None:
    docs = (Path(__file__).resolve().parents[2] / "docs" / "issuers.md").read_text("utf-8")
    assert presets() == sorted(SHAPES)
    for name in presets():
        assert f"airgate issuer add {name} " in docs
        assert f"`{name}`" in docs
