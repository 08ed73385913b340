// The gate on this machine: src/ on the embedded workerd, with the bindings that wrangler.toml gives [env.local].
//
//   node gate.mjs '{"root": "…", "port": 8787, "state": "…", "secrets": {"UPSTREAM_…": "…"}, "services": {"VIA_…": "host:port"}}'
//   node gate.mjs FILE
//
// FILE holds the same; others of this machine can read a command line. `secrets` are the Worker's secrets, `services` what its
// service bindings lead to, `buckets` its R2 buckets by binding; all three may be left out.
//
// The Worker listens on its own socket. `wrangler dev` and Miniflare's usual entry put a proxy in front that rewrites
// addresses ("/a/%2e%2e/b" becomes "/b"), so the gate would never see here what it sees at the edge.
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const given = process.argv[2];
const settings = JSON.parse(given.startsWith("{") ? given : readFileSync(given, "utf8"));
const { root, port, state, secrets = {}, services = {}, buckets = {} } = settings;
const wrangler = createRequire(path.join(root, "node_modules/wrangler-embedded/package.json"));
const { Miniflare, Log, LogLevel } = wrangler("miniflare");
const { unstable_getMiniflareWorkerOptions: workerOptions } = wrangler("./wrangler-dist/cli.js");

const main = "worker.py";
const source = path.join(root, "src");
const modules = readdirSync(source)
  .filter((name) => name.endsWith(".py"))
  .sort((a, b) => Number(b === main) - Number(a === main)) // Miniflare starts the first one
  .map((name) => ({ type: "PythonModule", path: name, contents: readFileSync(path.join(source, name), "utf8") }));

const options = workerOptions(path.join(root, "wrangler.toml"), "local").workerOptions;
const external = Object.entries(services).map(([name, address]) => [name, { external: { address, http: {} } }]);

const gate = new Miniflare({
  ...options,
  bindings: { ...options.bindings, ...secrets },
  serviceBindings: { ...options.serviceBindings, ...Object.fromEntries(external) },
  name: "airgate",
  modules,
  host: "127.0.0.1",
  port: 0,
  cf: false,
  kvPersist: path.join(state, "v3/kv"), // where `wrangler kv … --local --persist-to` writes
  d1Persist: path.join(state, "v3/d1"), // and `wrangler d1 … --local --persist-to`
  r2Buckets: { ...options.r2Buckets, ...buckets },
  r2Persist: path.join(state, "v3/r2"), // and `wrangler r2 … --local --persist-to`
  log: new Log(LogLevel.WARN),
  unsafeDirectSockets: [{ host: "127.0.0.1", port }],
  handleRuntimeStdio(out, err) {
    out.pipe(process.stdout);
    err.pipe(process.stderr);
  },
});

// Standard input ends when whoever started this does, however that happened.
process.stdin.on("end", () => gate.dispose().then(() => process.exit(0))).resume();
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => gate.dispose().then(() => process.exit(0)));
}
await gate.ready;
console.error(`listening on http://127.0.0.1:${port}`);
