// gate.py inside a Pyodide: orders come in by standard input, answers go out by standard output.
//
//   node pyodide.mjs '{"pyodide": "pyodide-313", "project": "/…", "scratch": "/…"}'
//
// The project is at /project there; the folder with the shards is where it is here.
import { createInterface } from "node:readline";

const { pyodide: name, project, scratch } = JSON.parse(process.argv[2]);
const { loadPyodide, version } = await import(name);

const pyodide = await loadPyodide({ env: { HOME: "/home/pyodide", PYTHONDONTWRITEBYTECODE: "1" } });
pyodide.mountNodeFS("/project", project);
pyodide.mountNodeFS(scratch, scratch);
const gate = pyodide.runPython(`
import sys
sys.path.insert(0, "/project/bench/decisions")
import gate
gate
`);
console.log(JSON.stringify({ ...JSON.parse(gate.hello()), pyodide: version }));
for await (const line of createInterface({ input: process.stdin })) console.log(gate.obey(line));
