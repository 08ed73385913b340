// What the measured Workers call: a fast upstream with a small answer, and the issuer whose keys they verify with.
//
//   node upstream.mjs '{"port": 9500, "jwks": {"keys": [public JWKs]}}'
//
// It ends when its standard input closes.
import http from "node:http";

const { port, jwks } = JSON.parse(process.argv[2]);
const origin = `http://127.0.0.1:${port}`;
const documents = new Map([
  ["/.well-known/openid-configuration", JSON.stringify({ issuer: origin, jwks_uri: `${origin}/jwks` })],
  ["/jwks", JSON.stringify(jwks)],
]);
const answer = Buffer.from(JSON.stringify({ id: "2026-10", status: "open", entries: 42, currency: "EUR" }));

const server = http.createServer((request, response) => {
  const body = documents.get(request.url) ?? answer;
  request.resume();
  response.writeHead(200, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    "cache-control": "no-store",
    etag: '"7d21"',
    "x-ratelimit-remaining": "971",
  });
  response.end(body);
});
server.keepAliveTimeout = 0;
server.listen(port, "127.0.0.1");
process.stdin.on("end", () => process.exit(0)).resume();
