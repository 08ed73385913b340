// gate.py in a Pyodide in Node, with its WebCrypto: each step's microseconds of processor time, JSON on standard output.
//
//   node pyodide.mjs '{"pyodide": "pyodide-313", "project": "…", "given": FILE, "rounds": 15}'
import { readFileSync } from "node:fs";

const { pyodide: name, project, given, rounds } = JSON.parse(process.argv[2]);
const { loadPyodide, version } = await import(name);

const pyodide = await loadPyodide({ env: { HOME: "/home/pyodide", PYTHONDONTWRITEBYTECODE: "1" } });
pyodide.mountNodeFS("/project", project);
const inTurn = pyodide.runPython(`
import json, platform, sys
sys.path[:0] = ["/project/src", "/project/bench/tokens_speed"]
import gate

async def in_turn(given, rounds, spent):
    steps = await gate.in_turn(json.loads(given), rounds, spent)
    return json.dumps({"python": platform.python_version(), "steps": steps})

in_turn
`);
function spent() {
  const { user, system } = process.cpuUsage();
  return user + system;
}
const found = JSON.parse(await inTurn(readFileSync(given, "utf8"), rounds, spent));
console.log(JSON.stringify({ ...found, version }));
process.exit(0);
