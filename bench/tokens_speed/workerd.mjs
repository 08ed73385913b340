// steps.py on the embedded workerd, on a socket of its own. It ends when its standard input closes.
//
//   node workerd.mjs '{"root": "…", "port": 8801}'
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const { root, port } = JSON.parse(process.argv[2]);
const { Miniflare, Log, LogLevel } = createRequire(path.join(root, "node_modules/wrangler-embedded/package.json"))(
  "miniflare",
);
const source = path.join(root, "src");
const own = path.join(root, "bench/tokens_speed");
const files = [
  path.join(own, "steps.py"), // Miniflare starts the first one
  path.join(own, "gate.py"),
  ...readdirSync(source)
    .filter((name) => name.endsWith(".py"))
    .map((name) => path.join(source, name)),
];

const server = new Miniflare({
  compatibilityDate: "2024-11-06",
  compatibilityFlags: ["python_workers"],
  name: "steps",
  modules: files.map((file) => ({
    type: "PythonModule",
    path: path.basename(file),
    contents: readFileSync(file, "utf8"),
  })),
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
