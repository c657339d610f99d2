"""The table's ratios as a picture: a bar for each program, on a logarithmic scale around "as fast as QEMU"."""

import math
from xml.sax.saxutils import escape

from .table import number

WIDTH = 760
LEFT, RIGHT = 190, 70
ROW, HEADER = 18, 30
TOP, BOTTOM = 64, 34

# Readable on white and on black: the text's colour follows the reader's mode, the bars are between.
STYLE = """
  text { font: 12px sans-serif; fill: #24292f }
  .title { font-size: 15px; font-weight: bold }
  .kind { font-weight: bold }
  .small { font-size: 11px }
  .faster { fill: #2f9e63 }
  .slower { fill: #d9683a }
  .mean { fill: #5b7fd6 }
  .grid { stroke: #8c959f; stroke-opacity: 0.35 }
  .one { stroke: #8c959f }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }
"""


class Scale:
    """Ratios to x, from the power of two below the least to that above the greatest."""

    def __init__(self, ratios):
        self.low = math.floor(min(-1, *(math.log2(ratio) for ratio in ratios)))
        self.high = math.ceil(max(1, *(math.log2(ratio) for ratio in ratios)))

    def x(self, ratio):
        return LEFT + (math.log2(ratio) - self.low) / (self.high - self.low) * (WIDTH - LEFT - RIGHT)

    def ticks(self):
        step = max(1, (self.high - self.low) // 9)
        return [2.0**power for power in range(self.low, self.high + 1) if power % step == 0]


def label(ratio):
    return f"{ratio:g}" if ratio >= 1 else f"1/{1 / ratio:g}"


def text(x, y, content, style="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{escape(content)}</text>'


def bar(scale, y, name, ratio, style):
    one, at = scale.x(1), scale.x(ratio)
    left, width = min(one, at), max(abs(at - one), 1)
    return [
        text(LEFT - 8, y + 13, name, anchor="end"),
        f'<rect x="{left:.1f}" y="{y + 3}" width="{width:.1f}" height="{ROW - 5}" rx="2" class="{style}"/>',
        text(max(one, at) + 5, y + 13, number(ratio), "small"),
    ]


def draw(rows, means, subtitle):
    """The picture, as SVG."""
    rows = [row for row in rows if row["mimus_qemu"]]
    if not rows:
        return None
    scale = Scale([row["mimus_qemu"] for row in rows])
    body, y, kind = [], TOP, None
    for row in rows:
        if row["kind"] != kind:
            kind = row["kind"]
            body.append(text(LEFT - 8, y + 22, kind, "kind", "end"))
            y += HEADER
            for mean in means:
                if mean["kind"] == kind:
                    body += bar(scale, y, "geometric mean", mean["mimus_qemu"], "mean")
                    y += ROW
        body += bar(scale, y, row["name"], row["mimus_qemu"], "faster" if row["mimus_qemu"] <= 1 else "slower")
        y += ROW
    grid = []
    for tick in scale.ticks():
        x, style = scale.x(tick), "one" if tick == 1 else "grid"
        grid.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{y + 4}" class="{style}"/>')
        grid.append(text(x, y + 18, label(tick), "small", "middle"))
    title = "Time under mimus / time under QEMU's TCG (left of 1: mimus is faster)"
    head = [text(12, 24, title, "title"), text(12, 44, subtitle, "small")]
    size = f'width="{WIDTH}" height="{y + BOTTOM}" viewBox="0 0 {WIDTH} {y + BOTTOM}"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">', f"<title>{escape(title)}</title>"]
    return "\n".join([*lines, f"<style>{STYLE}</style>", *head, *grid, *body, "</svg>\n"])
