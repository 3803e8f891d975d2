"""Slices that nobody named: single levels and pairs of levels on which the model does badly.

After Slice Finder (Chung et al., 2019): every cell is tested, the many tests are corrected for, and
a pair is only told where it says more than its parts. Badly means worse than the model itself
claims: rows that are hard, and of which the score says so, are no finding.
"""

from __future__ import annotations

from typing import NamedTuple, TypedDict

import numpy as np
from scipy.special import ndtr

from .. import problem
from ..problem import monitoring as problem_monitoring
from .reference import SCORE, Outcomes, Profile
from .windows import Windows

MAX_FINDINGS = 10
MAX_ROWS = 60_000  # looked at
MIN_RATIO = 1.3  # of a pair's effect to that of each of its parts
MIN_SHARE_OF_ROWS = 0.01  # that a cell has of the labelled rows
# Of the mean loss, or of the residuals' spread: below, a cell is as good as the rows beside it
MIN_EFFECT = 0.3

Array = np.ndarray


class Cell(NamedTuple):
    """The labelled rows at one level of a column, or at one level of each of two."""

    levels: dict[str, int]  # coarse level by column
    rows: int
    excess: float  # mean loss beyond what the scores claim, less that of all rows
    residual: float  # how far outcomes lie above the scores, less that of all rows
    p: float
    z: float


class BadSlice(TypedDict):
    """A slice on which the model does badly, as the report has it."""

    slice: str
    rows: int
    excess_loss: float  # as a share of the mean loss
    outcome_less_score: (
        float  # where scores mean a quantile: by how much the share above it differs
    )
    p: float


def search(windows: Windows, profile: Profile, share: float, min_rows: int) -> list[BadSlice]:
    """Find where the model is worse than it claims, or its scores are off, over all labelled rows.

    Args:
        share: of false discoveries that is borne (Benjamini and Hochberg, 1995).
        min_rows: below which a cell is not judged.

    Returns:
        at most MAX_FINDINGS slices, the surest first; none where there are too few labelled rows.
    """
    rows = np.flatnonzero(~np.isnan(windows.y))
    if len(rows) < 2 * min_rows or not problem.CLAIMS:
        return []
    if len(rows) > MAX_ROWS:
        rows = np.random.default_rng(0).choice(rows, MAX_ROWS, replace=False)
    min_rows = max(min_rows, int(MIN_SHARE_OF_ROWS * len(rows)))
    unit = problem_monitoring.sizes(windows.truth[rows])
    y = windows.y[rows] / unit
    outcomes = Outcomes.of(y, windows.score[rows] / unit, profile.facts["decision"])
    by_bin = profile.tables[SCORE].sum(axis=1)
    bin_rows, bin_loss = by_bin[:, 0], by_bin[:, 4]
    mean_loss = bin_loss.sum() / bin_rows.sum()
    claimed = np.where(bin_rows >= 5, bin_loss / np.maximum(bin_rows, 1), mean_loss)
    excess = outcomes.loss - claimed[windows.codes[SCORE][rows]]
    # A score that means a quantile is off where another share of the outcomes lies above it
    above = y > outcomes.claimed
    residual = outcomes.residual if profile.quantile is None else above - (1 - profile.quantile)
    # What is the same everywhere is no slice's fault
    measures = {"excess": excess - excess.mean(), "residual": residual - residual.mean()}
    coarse = {
        name: np.asarray(profile.columns[name].coarse, dtype=np.int64)[codes[rows]]
        for name, codes in windows.codes.items()
        if profile.columns[name].kind not in ("score", "time")
    }
    cells: list[Cell] = []
    for name, levels in coarse.items():
        size = max(profile.columns[name].coarse) + 1
        cells += _test_cells([name], levels, (size,), measures, min_rows)
    for a, b in profile.pairs:
        if a in coarse and b in coarse:
            sizes = max(profile.columns[a].coarse) + 1, max(profile.columns[b].coarse) + 1
            levels = coarse[a] * sizes[1] + coarse[b]
            cells += _test_cells([a, b], levels, sizes, measures, min_rows)
    if not cells:
        return []
    cells.sort(key=lambda cell: (cell.p, -cell.z))  # the surest p-values are all 0
    passed = [i for i, cell in enumerate(cells, 1) if cell.p <= share * i / len(cells)]
    cells = cells[: passed[-1]] if passed else []
    return _findings(cells, profile, mean_loss, float(np.std(measures["residual"])))


def _test_cells(
    names: list[str], cell: Array, sizes: tuple[int, ...], measures: dict[str, Array], min_rows: int
) -> list[Cell]:
    """Both tests of every cell that is large enough; z against the mean over all rows.

    Args:
        cell: of each row, shape (rows,): its level, or the levels of two columns, flattened.
        sizes: how many levels each column has; measures: by name, shape (rows,), of mean 0.
    """
    total = int(np.prod(sizes))
    n = np.bincount(cell, minlength=total).astype(np.float64)
    cells = []
    used = np.flatnonzero((n >= min_rows) & (n <= 0.5 * len(cell)))
    means, z = {}, {}
    for key, values in measures.items():
        sums = np.bincount(cell, weights=values, minlength=total)
        squares = np.bincount(cell, weights=values**2, minlength=total)
        means[key] = sums / np.maximum(n, 1)
        spread = np.maximum(squares / np.maximum(n, 1) - means[key] ** 2, np.mean(values**2) / 4)
        z[key] = means[key] / np.sqrt(spread / np.maximum(n, 1))
    for at in used:
        levels = dict(zip(names, map(int, np.unravel_index(at, sizes)), strict=True))
        excess, residual = float(means["excess"][at]), float(means["residual"][at])
        z_excess, z_residual = float(z["excess"][at]), abs(float(z["residual"][at]))
        p = min(1.0, 2 * min(float(ndtr(-z_excess)), float(2 * ndtr(-z_residual))))
        cells.append(Cell(levels, int(n[at]), excess, residual, p, max(z_excess, z_residual)))
    return cells


def _findings(
    cells: list[Cell], profile: Profile, mean_loss: float, spread: float
) -> list[BadSlice]:
    """The findings in words, without cells that overlap with a surer one and are hardly worse."""

    def size(cell: Cell) -> float:
        return float(max(cell.excess / mean_loss, abs(cell.residual) / spread))

    findings: list[Cell] = []
    # Strongest evidence first: the planted slice itself is surer than what overlaps with it
    for cell in cells:
        levels = cell.levels.items()
        bars = [
            MIN_RATIO * size(finding) for finding in findings if levels & finding.levels.items()
        ]
        if any(size(cell) < bar for bar in (MIN_EFFECT, *bars)):
            continue
        findings.append(cell)
        if len(findings) == MAX_FINDINGS:
            break
    return [
        {
            "slice": " and ".join(
                f"{name} is {profile.columns[name].level_names[level]}"
                for name, level in finding.levels.items()
            ),
            "rows": finding.rows,
            "excess_loss": round(finding.excess / mean_loss, 4),
            "outcome_less_score": round(finding.residual, 4),
            "p": float(f"{finding.p:.3g}"),
        }
        for finding in findings
    ]
