// The Worker, whole, on a Pyodide in Node: an HTTP server that hands each request to on_fetch as workerd does.
//
//   node --experimental-wasm-jspi serve.mjs '{"pyodide": "pyodide-313", "project": "…", "port": 8901, "kv": "FILE", "d1": "FILE", "variables": {}}'
//
// The first FILE is the KV namespace: a JSON object of keys and values, read again for every get. The other one is D1: an
// SQLite database. It ends when its standard input closes. What workerd does and this does not: Node's Request makes an
// address normal before the Worker sees it.
import { readFile } from "node:fs/promises";
import http from "node:http";
import { DatabaseSync } from "node:sqlite";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

// Streams that workerd has and Node has not; the second also holds a body to its length there.
globalThis.IdentityTransformStream = class extends TransformStream {};
globalThis.FixedLengthStream = class extends TransformStream {};

const { pyodide: name, project, port, kv, d1, variables } = JSON.parse(process.argv[2]);
const { loadPyodide } = await import(name);
const pyodide = await loadPyodide({ env: { HOME: "/home/pyodide", PYTHONDONTWRITEBYTECODE: "1" } });
pyodide.mountNodeFS("/project", project);
pyodide.runPython('import sys; sys.path.append("/project/src")');
const worker = pyodide.pyimport("worker");

const database = new DatabaseSync(d1, { timeout: 5000 });
const env = {
  ...variables,
  UPSTREAM_LEDGER_TOKEN: "of-a-test",
  POLICY: {
    async get(key) {
      return JSON.parse(await readFile(kv, "utf8"))[key] ?? null;
    },
  },
  STATE: {
    prepare: (sql) => ({
      bind: (...values) => ({
        async first(column) {
          return database.prepare(sql).get(...values)?.[column] ?? null;
        },
      }),
    }),
  },
};
const context = {
  waitUntil(work) {
    Promise.resolve(work).catch((error) => console.error("waitUntil:", error));
  },
};

function webRequest(incoming) {
  const headers = new Headers();
  for (let i = 0; i < incoming.rawHeaders.length; i += 2) {
    headers.append(incoming.rawHeaders[i], incoming.rawHeaders[i + 1]);
  }
  const { method } = incoming;
  const bodied = "content-length" in incoming.headers || "transfer-encoding" in incoming.headers;
  const body = bodied ? { body: Readable.toWeb(incoming), duplex: "half" } : {};
  return new Request(`http://127.0.0.1:${port}${incoming.url}`, { method, headers, ...body });
}

const server = http.createServer(async (incoming, outgoing) => {
  try {
    // As workerd calls it: on a stack of its own, which takes Node's flag.
    const call = worker.on_fetch.callWithOptions({ relaxed: true, promising: true }, webRequest(incoming), env, context);
    const response = await call;
    outgoing.writeHead(response.status, [...response.headers].flat());
    if (response.body) await pipeline(Readable.fromWeb(response.body), outgoing);
    else outgoing.end();
  } catch (error) {
    console.error(error);
    outgoing.destroy();
  }
});
const version = pyodide.runPython('import platform; platform.python_version()');
server.listen(port, "127.0.0.1", () => console.log(JSON.stringify({ event: "ready", python: version })));
process.stdin.on("end", () => process.exit(0)).resume();
