"""What must hold (ratios of mimus's time to QEMU's; lower is better), and the table of what does."""

import math
import statistics
from dataclasses import dataclass

from .common import PROGRAMS


@dataclass(frozen=True)
class Promises:
    """What must hold and what is aimed at: (must, aim)."""

    # Of single rows,
    rows: dict
    # of each row of a kind,
    each: dict
    # of a kind's geometric mean,
    mean: dict
    # MB of host memory over the guest's RAM while booting,
    memory: tuple | None
    # and what whole runs take: (title, key).
    costs: dict

    def of_row(self, name, kind):
        return self.rows.get(name) or self.each.get(kind)


RATIOS = ("qemu_native", "mimus_native", "mimus_qemu")
# What is printed beside them where a newer QEMU was measured too.
BESIDE = "mimus_newer"
KINDS = ("boot", "integer", "calls", "sse", "float", "x87", "memory", "chase", "system", "code", "real", "devices")
# Not programs: not in the mean of all.
APART = ("boot", "devices")


def geometric_mean(values):
    values = [value for value in values if value]
    return math.exp(statistics.fmean(map(math.log, values))) if values else None


def divide(a, b):
    return a / b if a is not None and b else None


def verdict(ratio, must):
    """What is promised, and whether it holds."""
    if not must or ratio is None:
        return {"must": None, "aim": None, "holds": None}
    return {"must": must[0], "aim": must[1], "holds": ratio <= must[0]}


def is_of(kind, mean):
    """Whether rows of a kind are part of a mean."""
    return kind not in APART if mean == "all programs" else kind == mean != "boot"


def summarize(seconds, kinds, promises):
    """Rows and means from `seconds`, row -> program -> times, and `kinds`, row -> kind."""
    rows = []
    for name, times in seconds.items():
        medians = {program: statistics.median(values) for program, values in times.items() if values}
        native, qemu, mimus = (medians.get(program) for program in ("native", *PROGRAMS))
        ratio = divide(mimus, qemu)
        newer = divide(mimus, medians.get("newer"))
        rows.append(
            {
                "name": name,
                "kind": kinds[name],
                "seconds": times,
                "medians": medians,
                "qemu_native": divide(qemu, native),
                "mimus_native": divide(mimus, native),
                "mimus_qemu": ratio,
                BESIDE: newer,
                **verdict(ratio, promises.of_row(name, kinds[name])),
            }
        )
    rows.sort(key=lambda row: KINDS.index(row["kind"]))
    means = []
    for kind in (*KINDS, "all programs"):
        members = [row for row in rows if is_of(row["kind"], kind)]
        if len(members) > 1:
            mean = {key: geometric_mean(row[key] for row in members) for key in (*RATIOS, BESIDE)}
            means.append({"kind": kind, **mean, **verdict(mean["mimus_qemu"], promises.mean.get(kind))})
    return rows, means


def number(value):
    """A ratio in three digits or so."""
    if value is None:
        return ""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:.{decimals}f}"


def spread(values, decimals=3):
    if not values:
        return ""
    median, low, high = statistics.median(values), min(values), max(values)
    return f"{median:.{decimals}f} ({low:.{decimals}f}-{high:.{decimals}f})"


def judged(entry):
    if entry["must"] is None:
        return ""
    return f"{entry['must']:>6.2f}  {'yes' if entry['holds'] else 'NO'}"


HEAD = ("program", "native s", "QEMU s", "mimus s", "QEMU/native", "mimus/native", "mimus/QEMU", "must  holds")
LINE = "{:<26}{:>22}{:>25}{:>25}{:>13}{:>14}{:>12}  {:<11}{}"


def print_rows(rows, means):
    """Seconds are medians with their range."""
    print(LINE.format(*HEAD, "over newer" if any(row[BESIDE] for row in rows) else "").rstrip())
    kind = None
    for row in [*rows, None]:
        if kind and (row is None or row["kind"] != kind):
            for mean in means:
                if mean["kind"] == kind:
                    print_mean(mean, "  geometric mean")
        if row is None:
            break
        if row["kind"] != kind:
            kind = row["kind"]
            print(kind)
        cells = [spread(row["seconds"].get(program)) for program in ("native", *PROGRAMS)]
        ratios = [number(row[key]) for key in RATIOS]
        print(LINE.format(f"  {row['name']}", *cells, *ratios, judged(row), f"{number(row[BESIDE]):>10}").rstrip())
    for mean in means:
        if mean["kind"] == "all programs":
            print_mean(mean, "all programs, mean")


def print_mean(mean, title):
    ratios = [number(mean[key]) for key in RATIOS]
    print(LINE.format(title, "", "", "", *ratios, judged(mean), f"{number(mean[BESIDE]):>10}").rstrip())


# What a whole run took: key, title, unit, decimals. A run of programs also tells what its programs took without the boot.
COSTS = (
    ("power_off", "wall time", "s", 1),
    ("cpu", "host CPU time", "s", 1),
    ("work_cpu", "of it, programs", "s", 1),
    ("rss", "peak memory", "MiB", 0),
)


def summarize_costs(costs, promises):
    """What whole runs took; `costs`: title of a run -> program -> what each run measured."""
    rows = []
    for title, programs in costs.items():
        for key, what, unit, decimals in COSTS:
            values = [[run[key] for run in programs[program] if key in run] for program in PROGRAMS]
            if all(values):
                qemu, mimus = map(statistics.median, values)
                words = [f"{spread(of_one, decimals)} {unit}" for of_one in values]
                ratio = divide(mimus, qemu)
                promised = verdict(ratio, promises.costs.get((title, key)))
                rows.append({"name": f"{title}: {what}", "words": words, "mimus_qemu": ratio, **promised})
    return rows


def print_costs(rows):
    print(f"{'Whole runs':<44}{'QEMU':>28}{'mimus':>28}{'mimus/QEMU':>12}  must  holds")
    for row in rows:
        cells = "".join(f"{words:>28}" for words in row["words"])
        print(f"  {row['name']:<42}{cells}{number(row['mimus_qemu']):>12}  {judged(row)}".rstrip())


def summarize_memory(footprints, must):
    """`footprints`: program -> bytes; with what is promised of mimus's memory over the guest's RAM, in MB."""
    over = footprints["mimus"]["over_ram"] / 1e6
    return {**footprints, **verdict(over, must)}


def print_memory(memory, kernel):
    print(f"{f'While booting the {kernel} kernel':<44}{'QEMU':>28}{'mimus':>28}{'':>12}  must  holds")
    for key, title in (("over_ram", "peak memory over the guest's RAM"), ("code", "translations and their metadata")):
        cells = [memory[program].get(key) for program in PROGRAMS]
        words = [f"{cell / 1e6:.0f} MB" if cell is not None else "unknown" for cell in cells]
        promised = key == "over_ram" and memory["must"] is not None
        judged = f"{memory['must']:>6}  {'yes' if memory['holds'] else 'NO'}" if promised else ""
        print(f"  {title:<42}{words[0]:>28}{words[1]:>28}{'':>12}{judged}".rstrip())


def markdown(rows, means):
    """The ratios as a table for a document; seconds are medians."""
    columns = RATIOS + ((BESIDE,) if any(row[BESIDE] for row in rows) else ())
    beside = ["over the newer"] if BESIDE in columns else []
    head = ["program", "native", "QEMU / native", "mimus / native", "mimus / QEMU", *beside, "must", "aim", "holds"]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]

    def line(title, native, entry):
        ratios = [number(entry[key]) for key in columns]
        promised = ["", "", ""]
        if entry["must"] is not None:
            promised = [f"{entry['must']:g}", f"{entry['aim']:g}", "yes" if entry["holds"] else "no"]
        lines.append("| " + " | ".join([title, native, *ratios, *promised]) + " |")

    for kind in KINDS:
        for row in rows:
            if row["kind"] == kind:
                native = row["medians"].get("native")
                line(f"{kind}: `{row['name']}`", f"{native:.3f} s" if native else "", row)
        for mean in means:
            if mean["kind"] == kind:
                line(f"**{kind}, geometric mean**", "", mean)
    for mean in means:
        if mean["kind"] == "all programs":
            line("**all programs, geometric mean**", "", mean)
    return "\n".join(lines) + "\n"
