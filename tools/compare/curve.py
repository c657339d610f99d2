"""Memory over time as a picture: a line, and a scale that begins at nothing."""

from .chart import STYLE, WIDTH, text

HEIGHT = 300
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 44, 40
LINE = "  .line { fill: none; stroke: #5b7fd6; stroke-width: 1.5 }\n"


def step(most, lines):
    """The least of 1, 2, 5, 10 ... that divides `most` into at most so many parts."""
    size = 1
    while True:
        for factor in (1, 2, 5):
            if most <= size * factor * lines:
                return size * factor
        size *= 10


def draw(rows, title):
    """The picture of rows that begin with minutes and MiB, as SVG."""
    end, most = max(row[0] for row in rows), max(row[1] for row in rows)
    across, up = step(end, 12), step(most, 6)
    top = -(-most // up) * up
    x = lambda minutes: LEFT + minutes / end * (WIDTH - LEFT - RIGHT)
    y = lambda size: HEIGHT - BOTTOM - size / top * (HEIGHT - TOP - BOTTOM)
    body = []
    for size in range(0, int(top) + 1, up):
        body.append(f'<line x1="{LEFT}" y1="{y(size):.1f}" x2="{WIDTH - RIGHT}" y2="{y(size):.1f}" class="grid"/>')
        body.append(text(LEFT - 8, y(size) + 4, str(size), "small", "end"))
    for minutes in range(0, int(end) + 1, across):
        body.append(text(x(minutes), HEIGHT - BOTTOM + 18, f"{minutes} min", "small", "middle"))
    points = " ".join(f"{x(row[0]):.1f},{y(row[1]):.1f}" for row in rows)
    body.append(f'<polyline points="{points}" class="line"/>')
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    head = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">', f"<title>{title}</title>"]
    return "\n".join([*head, f"<style>{STYLE}{LINE}</style>", text(12, 24, title, "title"), *body, "</svg>\n"])
