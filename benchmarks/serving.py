"""Measures the figures that the template promises for what it serves, one line each.

    make bench-serving                      all of them
    make bench-serving ONLY=score           some of them

As in spine.py: both sides of a ratio are timed in this one run, in turn, and the median of the pairs
is shown. Exit code 1 when a figure is missed.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable

from attacked import refused
from online import http, image, reasons, single, text
from spine import Project, main


def score(project: Project) -> list[tuple[str, float, str, bool]]:
    """`score` on 5 million rows of Parquet against the pipeline that was trained, in chunks.

    The pipeline predicts in chunks of 100,000 rows, LightGBM on all cores. Both read the file, write
    their scores to Parquet and pay their imports; the second peer has scikit-learn's own transformers.
    """
    project.run("-m", "dvc", "repro", "--quiet")
    file = project.scratch / "five.parquet"
    project.inside("parquet", str(file), "5000000")
    ratios, usual, peaks = [], [], []
    for _ in range(3):
        ours, peak = project.inside("scored", str(file))
        peaks.append(peak)
        ratios.append(project.inside("predicted", str(file), "own")[0] / ours)
        usual.append(project.inside("predicted", str(file), "usual")[0] / ours)
    ratio, usual_ratio, peak = statistics.median(ratios), statistics.median(usual), max(peaks)
    return [
        ("score, 5 million rows: the trained pipeline's time", ratio, ">= 1.5 x", ratio >= 1.5),
        ("the same with scikit-learn's own transformers", usual_ratio, "-", True),
        ("score, 5 million rows: peak memory", peak / 1e9, "<= 1 GB", peak <= 1e9),
    ]


FIGURES: dict[str, Callable[[Project], object]] = {
    "score": score,
    "http": http,
    "single": single,
    "refused": refused,
    "reasons": reasons,
    "text": text,
    "image": image,
}

if __name__ == "__main__":
    sys.exit(main(FIGURES, __doc__))
