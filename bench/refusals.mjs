// What each way through the gate costs on one of production's Pythons, with its WebCrypto, in microseconds of processor
// time: JSON on standard output.
//
//   node refusals.mjs '{"pyodide": "pyodide-313", "project": "…", "folder": "…", "rounds": 5, "repeats": 150}'
//
// `folder` holds paths.json, which refusals.py has written.
const { pyodide: name, project, folder, rounds, repeats } = JSON.parse(process.argv[2]);
const { loadPyodide } = await import(name);

const pyodide = await loadPyodide({ env: { PYTHONDONTWRITEBYTECODE: "1" } });
pyodide.mountNodeFS("/project", project);
pyodide.mountNodeFS("/paths", folder);
globalThis.spent = () => {
  const { user, system } = process.cpuUsage();
  return user + system;
};
const measure = await pyodide.runPythonAsync(`
import json, sys
from itertools import cycle
from js import spent
sys.path[:0] = ["/project/src", "/project/tests/unit"]
import gateway, world
from state import State
from worker import Runtime

class Real(world.World):
    async def verify(self, key, algorithm, given, signed):
        return await Runtime.verify(self, key, algorithm, given, signed)

def gate(given):
    bundle = world.document()
    bundle["issuers"]["company"]["algorithms"] = given["algorithms"]
    here, away = Real(bundle), Real(bundle)
    here.pages[world.JWKS_URI] = world.jwks(*given["jwks"])
    away.pages[world.JWKS_URI] = OSError("answered 500")
    return (here, State()), (away, State())

async def measure(rounds, repeats):
    with open("/paths/paths.json") as file:
        given = json.load(file)
    here, away = gate(given)
    paths = [(path, cycle(path["headers"])) for path in given["paths"]]
    least = {}
    for number in range(rounds + 1):
        for path, headers in paths:
            gate_, state = away if path["away"] else here
            requests = [world.inbound(path["url"], "GET", **next(headers)) for _ in range(repeats)]
            began = spent()
            for request in requests:
                gate_.happened.clear()
                await gateway.handle(request, state, gate_)
            took = (spent() - began) / repeats
            if bool(gate_.of("send")) is not path["accepts"]:
                raise SystemExit(path["name"] + ": not as it should be")
            if number:  # the first time nothing is compiled yet
                least[path["name"]] = min(least.get(path["name"], took), took)
    return json.dumps(least)
measure
`);
console.log(await measure(rounds, repeats));
process.exit(0);
