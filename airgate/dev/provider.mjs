// A real OpenID provider for this machine: client credentials in, signed access tokens (RFC 9068) out.
//
//   node provider.mjs CONFIG
//
// CONFIG is a JSON file that only its owner can read:
//   {"port": 9400, "issuer": "http://127.0.0.1:9400", "audience": "https://gate.example.com", "token_seconds": 3600,
//    "jwks": {"keys": [private JWKs, each with kid and alg]},
//    "clients": {"finance-etl": {"client_id": "…", "client_secret": "…", "groups": ["…"], "kind": "workload"}}}
//
// A client may say in the header `Sign-With` which of the provider's algorithms signs its token (RS256 when it doesn't).
// One that sends a DPoP proof (RFC 9449) gets a token that is bound to the proof's key: `cnf.jkt`, token_type DPoP.
// It ends when its standard input closes, so it never outlives whoever started it.
import { readFileSync } from "node:fs";
import Provider from "oidc-provider";

const config = JSON.parse(readFileSync(process.argv[2], "utf8"));
const clients = new Map(Object.values(config.clients).map((client) => [client.client_id, client]));
const algorithms = new Set(config.jwks.keys.map((key) => key.alg));

const provider = new Provider(config.issuer, {
  jwks: config.jwks,
  clients: [...clients.values()].map(({ client_id, client_secret }) => ({
    client_id,
    client_secret,
    grant_types: ["client_credentials"],
    redirect_uris: [],
    response_types: [],
    token_endpoint_auth_method: "client_secret_basic",
  })),
  scopes: [],
  ttl: { ClientCredentials: config.token_seconds },
  extraTokenClaims(ctx, token) {
    const { groups, kind } = clients.get(token.clientId);
    return { groups, airgate_kind: kind };
  },
  features: {
    clientCredentials: { enabled: true },
    dPoP: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => config.audience,
      getResourceServerInfo(ctx, resource) {
        if (resource !== config.audience) ctx.throw(400, "invalid_target");
        const alg = ctx.get("Sign-With") || "RS256";
        if (!algorithms.has(alg)) ctx.throw(400, `no key for ${alg}`);
        return { scope: "", audience: resource, accessTokenFormat: "jwt", jwt: { sign: { alg } } };
      },
    },
  },
});

provider.on("server_error", (ctx, error) => console.error(error));
provider.listen(config.port, "127.0.0.1", () => console.log(`listening on ${config.issuer}`));
process.stdin.on("end", () => process.exit(0)).resume();
