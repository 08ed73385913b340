"""The results as a bar chart in SVG, readable on a light page and on a dark one."""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

WIDTH = 700
LABEL = 258  # x where bars begin
LONGEST = 232  # length of the longest bar
VALUE = 504  # x where figures begin
ROW = 46
TOP = 62

STYLE = """
  text { font-family: ui-sans-serif, system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
  .note, .unit { fill: #59636e; font-size: 12.5px; }
  .title { font-size: 16px; font-weight: 600; }
  .name { font-size: 14px; }
  .value { font-size: 14px; font-weight: 600; }
  .other { fill: #8c959f; }
  .ceiling { fill: #59636e; }
  .gate { fill: #1f7fd4; }
  .mark { stroke: #59636e; stroke-width: 1; stroke-dasharray: 3 3; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .note, .unit { fill: #9198a1; }
    .other { fill: #656c76; }
    .ceiling { fill: #9198a1; }
    .gate { fill: #4493f8; }
    .mark { stroke: #9198a1; }
  }
"""


def draw(workers: Sequence[Mapping[str, Any]], note: str) -> str:
    """A chart of `cpu_ms` and `ratio` for each Worker, in the order given. `note` is the line below the title."""
    longest = max(worker["cpu_ms"] for worker in workers)
    height = TOP + ROW * len(workers) + 10
    mark = next(worker["cpu_ms"] for worker in workers if worker["name"] == "ceiling")
    x = LABEL + mark / longest * LONGEST
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' role="img" aria-label="CPU milliseconds a request">',
        f"<style>{STYLE}</style>",
        '<text class="title" x="4" y="20">CPU time a request: shorter is better</text>',
        f'<text class="note" x="4" y="41">{escape(note)}</text>',
        f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{height - 6}"/>',
    ]
    for number, worker in enumerate(workers):
        y = TOP + ROW * number
        length = worker["cpu_ms"] / longest * LONGEST
        name = worker["name"]
        kind = "gate" if name.startswith("gate") else "ceiling" if name == "ceiling" else "other"
        parts += [
            f'<text class="name" x="4" y="{y + 15}">{escape(worker["title"])}</text>',
            f'<text class="unit" x="4" y="{y + 31}">{escape(worker["does"])}</text>',
            f'<rect class="{kind}" x="{LABEL}" y="{y + 4}" width="{length:.1f}" height="24" rx="3"/>',
            f'<text class="value" x="{VALUE}" y="{y + 21}">{worker["cpu_ms"]:.2f} ms'
            f'<tspan class="unit" dx="8" font-weight="400">{worker["ratio"]:.2f} of ceiling</tspan></text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
