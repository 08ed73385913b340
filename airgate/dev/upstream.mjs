// A sample upstream: it answers every request with what reached it.
//
//   node upstream.mjs PORT
//
//   {"method", "path", "query", "headers": {name: value}, "body": text of the first 64 KB, "body_bytes": length}
//
// The end of a path asks for something else, whatever comes before it:
//   …/status/503       that status            …/slow?ms=500    the answer begins that much later
//   …/bytes?n=1000000  that many bytes        …/echo           the request's body, streamed back
//   …/headers          headers a gate must not pass on          …/gzip   a compressed answer
//   …/redirect         302 to another origin          …/ready?ms=500   404 until so long after it was first asked for
//
// It ends when its standard input closes, so it never outlives whoever started it.
import { createServer } from "node:http";
import { gzipSync } from "node:zlib";

const PORT = Number(process.argv[2]);
const SHOWN = 64 * 1024;
const CHUNK = Buffer.alloc(64 * 1024, "a");

function number(query, name, most) {
  const value = Number(new URLSearchParams(query).get(name));
  return Number.isFinite(value) ? Math.min(Math.max(Math.trunc(value), 0), most) : 0;
}

function json(response, status, value, headers = {}) {
  const body = Buffer.from(JSON.stringify(value));
  response.writeHead(status, { "Content-Type": "application/json", "Content-Length": body.length, ...headers });
  response.end(body);
}

async function received(request) {
  const shown = [];
  let length = 0;
  for await (const chunk of request) {
    if (length < SHOWN) shown.push(chunk.subarray(0, SHOWN - length));
    length += chunk.length;
  }
  return { body: Buffer.concat(shown).toString("utf8"), body_bytes: length };
}

async function seen(request, path, query) {
  const headers = {};
  for (const [name, values] of Object.entries(request.headersDistinct)) headers[name] = values.join(", ");
  return { method: request.method, path, query, headers, ...(await received(request)) };
}

async function stream(response, length) {
  response.writeHead(200, { "Content-Type": "application/octet-stream", "Content-Length": length });
  for (let left = length; left > 0 && !response.destroyed; left -= CHUNK.length) {
    if (!response.write(left < CHUNK.length ? CHUNK.subarray(0, left) : CHUNK)) {
      await new Promise((resume) => response.once("drain", resume).once("close", resume));
      response.removeAllListeners("drain");
    }
  }
  response.end();
}

const asked = new Map();  // when each address that gets ready was first asked for

const answers = {
  async ready(request, response, path, query) {
    const address = path + query;
    if (!asked.has(address)) asked.set(address, Date.now());
    const ready = Date.now() - asked.get(address) >= number(query, "ms", 600_000);
    json(response, ready ? 200 : 404, await seen(request, path, query));
  },
  async slow(request, response, path, query) {
    await new Promise((resume) => setTimeout(resume, number(query, "ms", 600_000)));
    json(response, 200, await seen(request, path, query));
  },
  async bytes(request, response, path, query) {
    request.resume();
    await stream(response, number(query, "n", 8 * 1024 ** 3));
  },
  async echo(request, response) {
    response.writeHead(200, { "Content-Type": request.headers["content-type"] ?? "application/octet-stream" });
    request.pipe(response);
  },
  async headers(request, response, path, query) {
    const odd = {
      "Set-Cookie": ["first=1; Path=/", "second=2; Path=/; HttpOnly"],
      "Airgate-Decision": "spoofed",
      "Airgate-Custom": "spoofed",
      "Airgate-Request-Id": "spoofed",
      "X-Sample": "kept",
    };
    json(response, 200, await seen(request, path, query), odd);
  },
  async gzip(request, response, path, query) {
    const body = gzipSync(JSON.stringify(await seen(request, path, query)));
    response.writeHead(200, { "Content-Type": "application/json", "Content-Encoding": "gzip", "Content-Length": body.length });
    response.end(body);
  },
  async redirect(request, response) {
    request.resume();
    response.writeHead(302, { Location: "https://elsewhere.example.com/landing", "Content-Length": 0 });
    response.end();
  },
};

async function answer(request, response) {
  const mark = request.url.indexOf("?");
  const path = mark < 0 ? request.url : request.url.slice(0, mark);
  const query = mark < 0 ? "" : request.url.slice(mark + 1);
  const last = path.slice(path.lastIndexOf("/") + 1);
  if (Object.hasOwn(answers, last)) return answers[last](request, response, path, query);
  const status = /\/status\/([2-5]\d\d)$/.exec(path);
  return json(response, status ? Number(status[1]) : 200, await seen(request, path, query));
}

const server = createServer((request, response) => {
  response.on("error", () => response.destroy());
  // A client that leaves in the middle of its body ends its own call, not the server.
  answer(request, response).catch(() => response.destroy());
});
server.keepAliveTimeout = 120_000;
server.requestTimeout = 0;
server.listen(PORT, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${PORT}`));
process.stdin.on("end", () => process.exit(0)).resume();
