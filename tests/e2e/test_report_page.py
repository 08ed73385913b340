"""The report's page in real headless Chromium: it fits a desk and a phone, in the light and in the dark, and on paper.

Only where this machine has a Chromium. Pictures of it are kept in tests/.artefacts/.
"""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from airgate.audit.figures import Origin, figures
from airgate.audit.page import page
from airgate.audit.report import of_seed
from airgate.audit.source import Tally, events
from airgate.audit.summary import Summary
from airgate.dev.stack import Stack

CHROMIUM = next(
    filter(
        None,
        map(
            shutil.which, (os.environ.get("CHROMIUM") or "", "chromium", "chromium-browser", "google-chrome")
        ),
    ),
    None,
)
ARTEFACTS = Path(__file__).resolve().parent.parent / ".artefacts"
DESK, TABLET, PHONE = 1280, 820, 390
DARK = "--blink-settings=preferredColorScheme=0"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")

# Looks at the report from outside, for the report itself lets no script run: what is wider than the page, whose colours
# are too close to what is behind them (WCAG 2.2, 1.4.3), and what it has loaded.
PROBE = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe src="REPORT" style="border:0;width:WIDTHpx;height:900px"></iframe>
<pre id="found"></pre>
<script>
const channel = (value) => value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
const light = ([r, g, b]) => .2126 * channel(r / 255) + .7152 * channel(g / 255) + .0722 * channel(b / 255);
onload = () => {
  const view = document.querySelector("iframe").contentWindow, seen = view.document;
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = numbers(view.getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const wide = [], faint = [], tiny = [];
  for (const node of seen.body.querySelectorAll("*")) {
    const box = node.getBoundingClientRect(), style = view.getComputedStyle(node);
    if (!box.width || node.closest("thead, details:not([open]) > :not(summary)")) continue;
    if (box.right > WIDTH + .5 || box.left < -.5) wide.push(node.tagName + " " + node.textContent.slice(0, 40));
    if (![...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())) continue;
    const ink = light(numbers(style.color)), ground = light(behind(node));
    const contrast = (Math.max(ink, ground) + .05) / (Math.min(ink, ground) + .05);
    if (contrast < 4.5) faint.push(contrast.toFixed(2) + " " + node.textContent.slice(0, 40));
    if (parseFloat(style.fontSize) < 11.5) tiny.push(style.fontSize + " " + node.textContent.slice(0, 40));
  }
  document.getElementById("found").textContent = JSON.stringify({
    scroll: seen.documentElement.scrollWidth,
    height: seen.documentElement.scrollHeight,
    ground: view.getComputedStyle(seen.body).backgroundColor,
    rows: seen.querySelectorAll("tbody tr").length,
    bars: [...seen.querySelectorAll(".bars rect")].filter((one) => one.getBoundingClientRect().height > 0).length,
    loaded: view.performance.getEntriesByType("resource").map((one) => one.name),
    ran: typeof view.ran, title: seen.title, wide, faint, tiny,
  });
};
</script>"""

# Had the page no policy of its own, this would run.
SMUGGLED = '<script>window.ran = 1</script><img src="/smuggled.png" onerror="window.ran = 1">'


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, and remembers what was asked for."""

    asked: list[str] = []  # noqa: RUF012

    def log_message(self, *_: object) -> None:
        self.asked.append(self.path)


@pytest.fixture(scope="module")
def folder(
    stack: Stack,
    gate: httpx.Client,
    token: Any,
    mint: Any,
    audit: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with the report of a log of the running gate: calls of several kinds, with hostile names among them."""
    below = tmp_path_factory.mktemp("page")
    finance, sales = token("finance-etl"), token("sales-sync")

    def call(method: str, path: str, bearer: str | None, **headers: str) -> None:
        sent = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        gate.request(
            method, path, headers={**sent, **{f"Airgate-{name}": text for name, text in headers.items()}}
        )

    for number in range(12):
        call("GET", f"/ledger/v1/entries/{number}", finance, **{"Dag-Id": "finance_close"})
        call("POST", "/ledger/v1/entries", finance, **{"Dag-Id": "finance_close", "Dag-Tags": "finance"})
        call("GET", f"/crm/v1/accounts/{number}", sales, **{"Dag-Id": "sales_sync"})
    for number in range(6):
        call("POST", "/ledger/v1/entries", sales, **{"Dag-Id": "sales_sync"})
        call("GET", f"/ledger/v1/entries/{number}", None)
        call("GET", f"/ledger/v1/entries/{number}", mint(exp=1))
    long = "a-very-long-name-without-any-place-to-break-it-" * 8
    for subject in ("<script>window.ran=1</script>", "<img src=/smuggled.png onerror=window.ran=1>", long):
        call("GET", "/ledger/v1/entries", mint(sub=subject), **{"Dag-Id": long[:200]})
        call("GET", f"/{long[:60]}/v1", mint(sub=subject))
    assert audit(gate.get("/-/health"))  # the log comes through a pipe, and this is its last line
    tally, found = Tally(), Summary()
    found.add_all(events([stack.audit], tally))
    told = figures(
        found, Origin(["audit.ndjson"], tally.sentences(), 1_795_245_261.0, "0.1.0"), of_seed(None)
    )
    assert told["totals"]["decisions"] >= 61
    assert told["gaps"]["open"] == 0
    text = page(told)
    (below / "report.html").write_text(text, "utf-8")
    (below / "smuggled.html").write_text(text.replace("</main>", SMUGGLED + "</main>"), "utf-8")
    return below


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def chromium(profile: Path, *options: str) -> str:
    """Run Chromium without a window, once. What it prints to standard output."""
    assert CHROMIUM is not None
    result = subprocess.run(
        [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",  # in a container, as root; it sees nothing but this machine's own page
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
            f"--user-data-dir={profile}",
            "--virtual-time-budget=5000",
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return result.stdout


def looked_at(site: str, folder: Path, name: str, width: int, *options: str) -> dict[str, Any]:
    """What a browser makes of a page at a width."""
    probe = folder / f"probe-{name}-{width}.html"
    probe.write_text(PROBE.replace("REPORT", f"/{name}.html").replace("WIDTH", str(width)), "utf-8")
    window = f"--window-size={width + 40},1000"
    printed = chromium(folder / "profile", window, "--dump-dom", *options, f"{site}/{probe.name}")
    text = printed.split('<pre id="found">', 1)[1].split("</pre>", 1)[0]
    found: dict[str, Any] = json.loads(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    return found


def kept(site: str, folder: Path, name: str, width: int, height: int, *options: str) -> Path:
    """A picture of the report, kept as an artefact."""
    ARTEFACTS.mkdir(exist_ok=True)
    file = ARTEFACTS / f"report-{name}.png"
    window = f"--window-size={width},{min(height, 12_000)}"
    chromium(folder / "profile", window, f"--screenshot={file}", *options, f"{site}/report.html")
    return file


def size(picture: Path) -> tuple[int, int]:
    """Of a PNG, in pixels: its header says."""
    header = picture.read_bytes()[:24]
    assert header.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


@pytest.mark.parametrize("width", [DESK, TABLET, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_can_be_read(site: str, folder: Path, width: int, scheme: str) -> None:
    options = [DARK] if scheme == "dark" else []
    found = looked_at(site, folder, "report", width, *options)
    assert found["title"].startswith("Audit report, ")
    assert found["rows"] > 20
    assert found["bars"] >= 2
    assert (found["ground"] == "rgb(244, 246, 249)") is (scheme == "light")
    assert (found["wide"], found["scroll"]) == ([], width)
    assert found["faint"] == []
    assert found["tiny"] == []
    picture = kept(site, folder, f"{width}-{scheme}", width, found["height"], *options)
    assert size(picture) == (width, min(found["height"], 12_000))


def test_the_page_runs_nothing_and_loads_nothing(site: str, folder: Path) -> None:
    Quiet.asked.clear()
    assert looked_at(site, folder, "report", DESK)["loaded"] == []
    assert looked_at(site, folder, "smuggled", DESK)["ran"] == "undefined"  # the browser kept it from running
    assert Quiet.asked
    assert not [line for line in Quiet.asked if "smuggled.png" in line]


def test_the_probe_finds_what_is_wrong(site: str, folder: Path) -> None:
    text = (folder / "report.html").read_text("utf-8")
    start = text.index('<meta http-equiv="Content-Security-Policy"')
    open_to_all = text[:start] + text[text.index("\n", start) :]
    bad = '<p style="width:3000px;color:#999;font-size:8px">x</p>'
    (folder / "bad.html").write_text(open_to_all.replace("</main>", SMUGGLED + bad + "</main>"), "utf-8")
    Quiet.asked.clear()
    found = looked_at(site, folder, "bad", DESK)
    assert found["wide"]
    assert found["faint"]
    assert found["tiny"]
    assert found["scroll"] > DESK
    assert found["ran"] == "number"
    assert found["loaded"]
    assert [line for line in Quiet.asked if "smuggled.png" in line]


def test_the_page_can_be_printed(site: str, folder: Path) -> None:
    ARTEFACTS.mkdir(exist_ok=True)
    file = ARTEFACTS / "report.pdf"
    chromium(folder / "profile", f"--print-to-pdf={file}", "--no-pdf-header-footer", f"{site}/report.html")
    printed = file.read_bytes()
    assert printed.startswith(b"%PDF-")
    assert 2 <= printed.count(b"/Type /Page\n") <= 30
