"""Measures a reservoir over a stream of ten million rows: the time beside a plain read, and the memory as it grows.

    make bench-reservoir                    CSV, CSV with quote marks, JSON lines
    python benchmarks/reservoir.py ROWS     another number of rows

A plain read counts the lines of the same file in Python. Each run is a process of its own, whose peak memory the
system tells; the least of three times counts. Exit code 1 when a figure is missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from spine import Project

DRAWN = 10_000
MOST_TIME, MOST_GROWTH = 2.0, 1.1  # of a plain read; of a tenth of the rows
FORMS = {
    "CSV": ("id,user,amount,page\n", "{0},u{1},{2}.5,/shop/item/{1}\n"),
    "CSV with quote marks": ("id,user,amount,page\n", '{0},"u{1}",{2}.5,"/shop, item {1}"\n'),
    "JSON lines": (
        "",
        '{{"id": {0}, "user": "u{1}", "amount": {2}.5, "page": "/shop/item/{1}"}}\n',
    ),
}
RUN = """
import resource, sys, time
from pathlib import Path
from my_model.data.reservoir import draw_stream
start = time.perf_counter()
if sys.argv[2] == "read":
    with open(sys.argv[1], "rb") as stream:
        count = sum(1 for _ in stream)
else:
    draw_stream(sys.argv[1], Path(sys.argv[1] + ".drawn"), int(sys.argv[2]), 7)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def make(path: Path, form: str, rows: int) -> None:
    """Write a file of so many rows."""
    head, line = FORMS[form]
    with path.open("w", encoding="utf-8") as file:
        file.write(head)
        for start in range(0, rows, 100_000):
            numbers = range(start, min(start + 100_000, rows))
            file.write("".join(line.format(i, i * 7919 % 100_003, i % 97) for i in numbers))


def measured(project: Project, path: Path, task: str) -> tuple[float, float]:
    """Seconds, the least of three, and megabytes at the peak, the most of three."""
    command = [str(project.path / ".venv/bin/python"), "-c", RUN, str(path), task]
    runs = [
        subprocess.run(
            command, cwd=project.path / "src", check=True, capture_output=True, text=True
        ).stdout.split()
        for _ in range(3)
    ]
    return min(float(run[0]) for run in runs), max(float(run[1]) for run in runs)


def main() -> int:
    """Print the figures of each form; 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="?", type=int, default=10_000_000)
    rows, missed = parser.parse_args().rows, False
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder))
        for form in FORMS:
            large, small = Path(folder) / "large", Path(folder) / "small"
            make(large, form, rows)
            make(small, form, rows // 10)
            read, _ = measured(project, large, "read")
            seconds, peak = measured(project, large, str(DRAWN))
            _, small_peak = measured(project, small, str(DRAWN))
            ratio, growth = seconds / read, peak / small_peak
            missed |= ratio > MOST_TIME or growth > MOST_GROWTH
            print(
                f"{form}: {DRAWN:,} of {rows:,} rows in {seconds:.2f} s, a plain read {read:.2f} s: {ratio:.2f} x; "
                f"at most {peak:.0f} MB, of a tenth of the rows {small_peak:.0f} MB"
            )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
