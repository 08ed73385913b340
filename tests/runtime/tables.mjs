// Carries out inside.py's order in a Pyodide in Node: production's Python with a WebCrypto, without workerd.
//
//   node tables.mjs '{"pyodide": "pyodide-313", "project": "…", "packages": "site-packages"}' < order > result
//
// The project is at /project there.
import { text } from "node:stream/consumers";

const { pyodide: name, project, packages } = JSON.parse(process.argv[2]);
const { loadPyodide } = await import(name);

const pyodide = await loadPyodide({
  env: { HOME: "/home/pyodide", PYTHONDONTWRITEBYTECODE: "1" }, // the folders are this machine's
  stdout: console.error,
});
pyodide.mountNodeFS("/project", project);
pyodide.mountNodeFS("/packages", packages);
// Streams that workerd has and Node has not: worker.py looks them up.
globalThis.IdentityTransformStream = globalThis.FixedLengthStream = TransformStream;
globalThis.cpuSeconds = () => process.cpuUsage().user / 1e6;
try {
  const carryOut = pyodide.runPython(`
import sys, time
from js import cpuSeconds
time.process_time = cpuSeconds  # Emscripten's own is the clock on the wall, which runs while others compute, too
sys.path[:0] = ["/project/src", "/project/tests/unit", "/project/tests/runtime"]
sys.path.append("/packages")
import inside

def verify():
    from worker import Runtime
    return Runtime(None, None, None).verify

import promise

lambda order: promise.run(inside.run(order, verify, promises=True))
`);
  process.stdout.write(await carryOut(await text(process.stdin)));
} catch (error) {
  console.error(error.message); // without Pyodide's own source around it
  process.exitCode = 1;
}
