"""Slices that nobody named: single levels and pairs of levels on which the model does badly.

After Slice Finder (Chung et al., 2019): every cell is tested, the many tests are corrected for, and
a pair is only told where it says more than its parts. Badly means worse than the model itself
claims: rows that are hard, and of which the score says so, are no finding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtr

from .reference import SCORE, Outcomes, Profile
from .windows import Windows

MOST = 10  # told
MOST_ROWS = 60_000  # looked at
MORE = 1.3  # a pair must be this much worse than each of its parts
SMALLEST = 0.01  # share of the labelled rows
LEAST = (
    0.3  # of the usual loss, or of the residuals' spread, below which a cell is as good as the rest
)

Array = np.ndarray


def search(windows: Windows, profile: Profile, share: float, least: int) -> list[dict[str, Any]]:
    """Find where the model is worse than it claims, or its scores are off, over all labelled rows.

    Args:
        share: of false discoveries that is borne; least: rows, below which a cell is not judged.

    Returns:
        worst first: slice, rows, how much larger its loss is than it should be (as a share of the
        usual loss), how far outcomes lie from the scores (where these mean a quantile: by how much the
        share of outcomes above them differs), p-value.
    """
    rows = np.flatnonzero(~np.isnan(windows.y))
    if len(rows) < 2 * least:
        return []
    if len(rows) > MOST_ROWS:
        rows = np.random.default_rng(0).choice(rows, MOST_ROWS, replace=False)
    least = max(least, int(SMALLEST * len(rows)))
    y = windows.y[rows]
    outcomes = Outcomes.of(y, windows.score[rows], profile.facts["decision"])
    known = profile.tables[SCORE].sum(axis=1)
    usual = known[:, 4].sum() / known[:, 0].sum()
    claimed = np.where(known[:, 0] >= 5, known[:, 4] / np.maximum(known[:, 0], 1), usual)
    excess = outcomes.loss - claimed[windows.codes[SCORE][rows]]
    # A score that means a quantile is off where another share of the outcomes lies above it
    above = y > outcomes.claimed
    rest = outcomes.rest if profile.quantile is None else above - (1 - profile.quantile)
    # What is the same everywhere is no slice's fault
    excess, rest = excess - excess.mean(), rest - rest.mean()
    coarse = {
        name: np.asarray(profile.columns[name].coarse, dtype=np.int64)[codes[rows]]
        for name, codes in windows.codes.items()
        if profile.columns[name].kind not in ("score", "time")
    }
    cells: list[dict[str, Any]] = []
    for name, place in coarse.items():
        size = max(profile.columns[name].coarse) + 1
        cells += _cells([name], place, (size,), excess, rest, least)
    for a, b in profile.pairs:
        if a in coarse and b in coarse:
            sizes = max(profile.columns[a].coarse) + 1, max(profile.columns[b].coarse) + 1
            cells += _cells([a, b], coarse[a] * sizes[1] + coarse[b], sizes, excess, rest, least)
    if not cells:
        return []
    cells.sort(key=lambda one: (one["p"], -one["z"]))  # the surest p-values are all 0
    passed = [i for i, c in enumerate(cells, 1) if c["p"] <= share * i / len(cells)]
    cells = cells[: passed[-1]] if passed else []
    return _told(cells, profile, usual, float(np.std(rest)))


def _cells(
    names: list[str], place: Array, sizes: tuple[int, ...], excess: Array, rest: Array, least: int
) -> list[dict[str, Any]]:
    """Both tests of every cell that is large enough; z against the rest of the rows."""
    total = int(np.prod(sizes))
    n = np.bincount(place, minlength=total).astype(np.float64)
    found = []
    used = np.flatnonzero((n >= least) & (n <= 0.5 * len(place)))
    z = {}
    for key, values in (("excess", excess), ("rest", rest)):
        sums = np.bincount(place, weights=values, minlength=total)
        squares = np.bincount(place, weights=values**2, minlength=total)
        mean = sums / np.maximum(n, 1)
        spread = np.maximum(squares / np.maximum(n, 1) - mean**2, np.mean(values**2) / 4)
        z[key] = mean, mean / np.sqrt(spread / np.maximum(n, 1))
    for at in used:
        levels = np.unravel_index(at, sizes)
        worse = float(ndtr(-z["excess"][1][at]))
        off = float(2 * ndtr(-abs(z["rest"][1][at])))
        found.append(
            {
                "levels": {name: int(level) for name, level in zip(names, levels, strict=True)},
                "rows": int(n[at]),
                "excess": float(z["excess"][0][at]),
                "off": float(z["rest"][0][at]),
                "p": min(1.0, 2 * min(worse, off)),
                "z": max(float(z["excess"][1][at]), abs(float(z["rest"][1][at]))),
            }
        )
    return found


def _told(
    cells: list[dict[str, Any]], profile: Profile, usual: float, spread: float
) -> list[dict[str, Any]]:
    """The findings in words, without those that another one says already."""

    def size(cell: dict[str, Any]) -> float:
        return float(max(cell["excess"] / usual, abs(cell["off"]) / spread))

    told: list[dict[str, Any]] = []
    # Strongest evidence first: the planted slice itself is surer than what overlaps with it
    for cell in cells:
        mine = set(cell["levels"].items())
        shared = [one for one in told if mine & set(one["levels"].items())]
        if any(size(cell) < MORE * size(one) for one in shared) or size(cell) < LEAST:
            continue
        told.append(cell)
        if len(told) == MOST:
            break
    return [
        {
            "slice": " and ".join(
                f"{name} is {profile.columns[name].levels[level]}"
                for name, level in cell["levels"].items()
            ),
            "rows": cell["rows"],
            "excess_loss": round(cell["excess"] / usual, 4),
            "outcome_less_score": round(cell["off"], 4),
            "p": float(f"{cell['p']:.3g}"),
        }
        for cell in told
    ]
