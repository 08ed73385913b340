// Runs pytest inside a Pyodide: production's Python, without workerd.
//
//   node tables.mjs '{"pyodide": "pyodide-313", "project": "…", "packages": "site-packages", "out": "…", "arguments": [pytest's]}'
//
// The project is at /project there, and `out` at /out. Its exit status is pytest's.
const { pyodide: name, project, packages, out, arguments: given } = JSON.parse(process.argv[2]);
const { loadPyodide } = await import(name);

const pyodide = await loadPyodide({
  env: {
    HOME: "/home/pyodide",
    PYTHONDONTWRITEBYTECODE: "1", // the folders are this machine's
    PYTEST_DISABLE_PLUGIN_AUTOLOAD: "1", // plugins of the desk need what isn't here: threads, sockets
    HYPOTHESIS_STORAGE_DIRECTORY: "/home/pyodide/hypothesis",
  },
});
pyodide.mountNodeFS("/project", project);
pyodide.mountNodeFS("/packages", packages);
pyodide.mountNodeFS("/out", out);
try {
  process.exitCode = pyodide.runPython(`
import os, sys
sys.path.append("/packages")
os.chdir("/project")
import pytest
lambda arguments: int(pytest.main(arguments.to_py()))
`)(given);
} catch (error) {
  console.error(error.message); // without Pyodide's own source around it
  process.exitCode = 1;
}
