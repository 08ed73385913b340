// Carries out inside.py's order in the embedded workerd: tables_worker.py, started as airgate/dev/gate.mjs starts the gate.
//
//   node embedded.mjs '{"root": "…", "main": FILE, "modules": {"name in the Worker": FILE, …}, "seconds": 900}' \
//     < order > result
import { readFileSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import { text } from "node:stream/consumers";

const { root, main, modules: files, seconds } = JSON.parse(process.argv[2]);
const wrangler = createRequire(path.join(root, "node_modules/wrangler-embedded/package.json"));
const { Miniflare, Log, LogLevel } = wrangler("miniflare");
const { unstable_getMiniflareWorkerOptions: workerOptions } = wrangler("./wrangler-dist/cli.js");

function module([name, file]) {
  const contents = readFileSync(file);
  return name.endsWith(".py")
    ? { type: "PythonModule", path: name, contents: contents.toString("utf8") }
    : { type: "Data", path: name, contents };
}

const { compatibilityDate, compatibilityFlags } = workerOptions(path.join(root, "wrangler.toml"), "local").workerOptions;
const tables = new Miniflare({
  compatibilityDate,
  compatibilityFlags,
  name: "tables",
  modules: [["tables_worker.py", main], ...Object.entries(files)].map(module), // Miniflare starts the first one
  host: "127.0.0.1",
  port: 0,
  cf: false,
  log: new Log(LogLevel.WARN),
  unsafeDirectSockets: [{ host: "127.0.0.1", port: 0 }],
  handleRuntimeStdio(out, err) {
    out.pipe(process.stderr);
    err.pipe(process.stderr);
  },
});

// Not fetch(): it waits no longer than five minutes for an answer.
function post(url, body) {
  return new Promise((resolve, reject) => {
    http.request(url, { method: "POST" }, resolve).on("error", reject).end(body);
  });
}

async function end(status) {
  await tables.dispose();
  process.exit(status);
}
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => end(1));
setTimeout(() => {
  console.error(`no answer within ${seconds} s`);
  end(1);
}, 1000 * seconds);

await tables.ready;
const answer = await post(await tables.unsafeGetDirectURL(), await text(process.stdin));
const good = answer.statusCode === 200;
const said = await text(answer);
(good ? process.stdout : process.stderr).write(said, () => end(good ? 0 : 1));
