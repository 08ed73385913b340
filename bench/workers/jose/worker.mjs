// What a team without the gate would write: verify the token with npm `jose`, then forward. It decides nothing by
// policy and logs nothing.
import { createRemoteJWKSet, jwtVerify } from "jose";

const rules = { issuer: UPSTREAM, audience: "https://gate.example.com", algorithms: ["RS256"], typ: "at+jwt" };
let keys;

export default {
  async fetch(request) {
    keys ??= createRemoteJWKSet(new URL(`${UPSTREAM}/jwks`));
    const [scheme, token] = (request.headers.get("authorization") ?? "").split(" ");
    if (scheme !== "Bearer" || !token) return new Response("a token is required", { status: 401 });
    try {
      await jwtVerify(token, keys, rules);
    } catch (error) {
      return new Response(error.code, { status: 401 });
    }
    const url = new URL(request.url);
    const headers = new Headers(request.headers);
    headers.delete("authorization");
    const call = new Request(UPSTREAM + url.pathname + url.search, request);
    return fetch(new Request(call, { headers, redirect: "manual" }));
  },
};
