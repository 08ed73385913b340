// One of the Workers that the gate is compared with, on the same embedded workerd and the same kind of raw socket.
//
//   node serve.mjs '{"root": "…", "worker": "bare", "port": 8801, "upstream": "http://127.0.0.1:9500"}'
//
// The upstream's address is a constant in the Worker's code, so none of them pays for reading a setting. It ends when
// its standard input closes.
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const { root, worker, port, upstream } = JSON.parse(process.argv[2]);
const require = createRequire(path.join(root, "package.json"));
const { Miniflare, Log, LogLevel } = createRequire(path.join(root, "node_modules/wrangler-embedded/package.json"))(
  "miniflare",
);
const folder = path.join(root, "bench/workers", worker);

// The gate's own modules, for the one Worker that uses some of them.
const source = readdirSync(path.join(root, "src")).filter((name) => name.endsWith(".py") && name !== "worker.py");
const shared = worker === "lean" ? source : [];

function python() {
  return {
    compatibilityFlags: ["python_workers"],
    modules: [
      { type: "PythonModule", path: "worker.py", contents: readFileSync(path.join(folder, "src/worker.py"), "utf8") },
      ...shared.map((name) => ({
        type: "PythonModule",
        path: name,
        contents: readFileSync(path.join(root, "src", name), "utf8"),
      })),
      { type: "PythonModule", path: "upstream.py", contents: `ORIGIN = ${JSON.stringify(upstream)}\n` },
    ],
  };
}

function javascript() {
  const { outputFiles } = require("esbuild").buildSync({
    entryPoints: [path.join(folder, "worker.mjs")],
    bundle: true,
    format: "esm",
    conditions: ["workerd", "worker", "browser"],
    define: { UPSTREAM: JSON.stringify(upstream) },
    write: false,
  });
  return { modules: [{ type: "ESModule", path: "worker.mjs", contents: outputFiles[0].text }] };
}

const server = new Miniflare({
  ...(worker === "jose" ? javascript() : python()),
  name: worker,
  compatibilityDate: "2024-11-06",
  host: "127.0.0.1",
  port: 0,
  cf: false,
  log: new Log(LogLevel.WARN),
  unsafeDirectSockets: [{ host: "127.0.0.1", port }],
});
const stop = () => server.dispose().then(() => process.exit(0));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, stop);
process.stdin.on("end", stop).resume();
await server.ready;
