"""The comparison as a line chart in SVG, both axes logarithmic, readable on a light page and on a dark one."""

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from bench.chart import STYLE

WIDTH, HEIGHT = 800, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 556, 66, 392  # the plot; engines' names are right of it
APART = 17  # between names, at least

LINES = """
  .grid { stroke: #d1d9e0; stroke-width: 1; }
  .axis { fill: #59636e; font-size: 12.5px; }
  .label { font-size: 13px; }
  .gate-line { stroke: #1f7fd4; fill: none; stroke-width: 2.5; }
  .gate-dot { fill: #1f7fd4; }
  .other-line { stroke: #8c959f; fill: none; stroke-width: 1.5; }
  .other-dot { fill: #8c959f; }
  .lead { stroke: #8c959f; stroke-width: 0.7; }
  @media (prefers-color-scheme: dark) {
    .grid { stroke: #30363d; }
    .axis { fill: #9198a1; }
    .gate-line { stroke: #4493f8; }
    .gate-dot { fill: #4493f8; }
    .other-line, .lead { stroke: #656c76; }
    .other-dot { fill: #656c76; }
  }
"""


def draw(rows: Sequence[Mapping[str, Any]], sizes: Sequence[int], note: str) -> str:
    """A line for each engine through its `us` at each number of `policies`; what was not measured is left out."""
    measured = [row for row in rows if row.get("us")]
    least = math.floor(math.log10(min(row["us"] for row in measured)))
    most = math.ceil(math.log10(max(row["us"] for row in measured)))
    low, high = math.log10(sizes[0]), math.log10(sizes[-1])

    def x(size: float) -> float:
        return LEFT + (math.log10(size) - low) / (high - low) * (RIGHT - LEFT)

    def y(us: float) -> float:
        return BOTTOM - (math.log10(us) - least) / (most - least) * (BOTTOM - TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        ' role="img" aria-label="CPU time of one decision, by the number of policies">',
        f"<style>{STYLE}{LINES}</style>",
        '<text class="title" x="4" y="20">CPU time of one decision, by the number of policies: lower is better</text>',
        f'<text class="note" x="4" y="41">{escape(note)}</text>',
    ]
    for power in range(least, most + 1):
        at = y(10.0**power)
        parts += [
            f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>',
            f'<text class="axis" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{_duration(power)}</text>',
        ]
    for size in sizes:
        parts.append(
            f'<text class="axis" x="{x(size):.1f}" y="{BOTTOM + 20}" text-anchor="middle">{size:,}</text>'
        )
    parts.append(
        f'<text class="axis" x="{(LEFT + RIGHT) / 2:.0f}" y="{BOTTOM + 40}" text-anchor="middle">policies</text>'
    )
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in measured:
        lines.setdefault(row["engine"], []).append(row)
    ends = sorted(lines.values(), key=lambda line: y(line[-1]["us"]))
    names = _apart([y(line[-1]["us"]) for line in ends])
    for line, name in zip(ends, names, strict=True):
        kind = "gate" if line[0]["engine"].startswith("airgate") else "other"
        points = [(x(row["policies"]), y(row["us"])) for row in line]
        path = " ".join([f"{across:.1f},{down:.1f}" for across, down in points])
        parts.append(f'<polyline class="{kind}-line" points="{path}"/>')
        parts += [
            f'<circle class="{kind}-dot" cx="{across:.1f}" cy="{down:.1f}" r="3"/>' for across, down in points
        ]
        across, down = points[-1]
        parts += [
            f'<line class="lead" x1="{across + 5:.1f}" y1="{down:.1f}" x2="{RIGHT + 14}" y2="{name:.1f}"/>',
            f'<text class="label" x="{RIGHT + 18}" y="{name + 4:.1f}">{escape(line[0]["title"])}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _duration(power: int) -> str:
    """10 to that power, of microseconds."""
    unit, step = ("µs", power) if power < 3 else ("ms", power - 3) if power < 6 else ("s", power - 6)
    return f"{10**step:g} {unit}"


def _apart(wanted: Sequence[float]) -> list[float]:
    """Heights near the wanted ones, which rise, with room for a line of text between them."""
    heights: list[float] = []
    for height in wanted:
        heights.append(max(height, heights[-1] + APART) if heights else height)
    beyond = max(0.0, heights[-1] - BOTTOM)
    for number in reversed(range(len(heights))):
        limit = heights[number + 1] - APART if number + 1 < len(heights) else heights[number] - beyond
        heights[number] = min(heights[number], limit)
    return heights
