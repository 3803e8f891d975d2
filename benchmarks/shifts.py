"""Rows of 20 columns with a yes or no, and the same rows shifted on purpose in one known way.

P(x) and P(y | x) are written down here, so that a shift of one kind is that kind and no other.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

NUMBERS, CATEGORIES = 12, 8
KINDS = (
    "none",
    "covariate_shift",
    "label_shift",
    "concept_drift",
    "feature_drift",
    "prediction_shift",
    "label_schema_drift",
)
Array = np.ndarray
_mix = np.random.default_rng(11)
LOADINGS = _mix.normal(size=(4, NUMBERS)) * 0.6
CUTS = [np.sort(_mix.normal(size=2 + 1 + (category % 5) * 2)) for category in range(CATEGORIES)]
WEIGHTS = _mix.normal(size=NUMBERS) * 0.45
LEVELS = [_mix.normal(size=len(cut) + 1) * 0.5 for cut in CUTS]


def _inputs(n: int, rng: np.random.Generator, shift: Array | float) -> tuple[Array, list[Array]]:
    """Twelve numbers, some of which go together, and eight categories, as codes; `shift` by row or of all."""
    hidden = rng.normal(size=(n, 4))
    z = hidden @ LOADINGS + rng.normal(size=(n, NUMBERS))
    z /= np.sqrt(1 + (LOADINGS**2).sum(axis=0))
    z[:, :3] += np.reshape(shift, (-1, 1))  # three columns move by this part of their spread
    codes = [
        np.searchsorted(cut, 0.5 * hidden[:, category % 4] + 0.85 * rng.normal(size=n))
        for category, cut in enumerate(CUTS)
    ]
    return z, codes


def _signal(z: Array, codes: list[Array], concept: float) -> Array:
    """What speaks for a yes or a large number; `concept` takes that part of the first columns' effect away and gives it to others."""
    weights = WEIGHTS.copy()
    weights[:4] *= 1 - concept
    weights[4:8] += concept * WEIGHTS[:4][::-1]
    signal = z @ weights + 0.5 * z[:, 0] * (codes[0] == 1) + 0.3 * np.tanh(z[:, 5] * z[:, 6])
    return signal + sum(level[code] for level, code in zip(LEVELS, codes, strict=True))


def _chance(z: Array, codes: list[Array], concept: float) -> Array:
    """P(yes | x)."""
    return 1 / (1 + np.exp(-(1.2 * _signal(z, codes, concept) - 1.9)))


def draw(n: int, seed: int, kind: str = "none", size: float = 0.0) -> pd.DataFrame:
    """n rows with columns n00 to n11, c0 to c7 and y.

    Args:
        kind: one of KINDS; size: how much of it. Covariate: by which part of their spread three of the
            columns move. Label: what is added to the share of yes. Concept: the part of four
            columns' effect that moves to four others. The rest are made by `spoil`.
    """
    rng = np.random.default_rng(seed)
    pool_size = 4 * n if kind == "label_shift" else n
    z, codes = _inputs(pool_size, rng, size if kind == "covariate_shift" else 0.0)
    chance = _chance(z, codes, size if kind == "concept_drift" else 0.0)
    y = (rng.random(pool_size) < chance).astype(np.float64)
    if kind == "label_shift":
        yes, no = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
        share = len(yes) / pool_size + size
        k = rng.binomial(n, share)
        chosen = rng.permutation(np.concatenate([yes[:k], no[: n - k]]))
        z, codes, y = z[chosen], [code[chosen] for code in codes], y[chosen]
    return _frame(z, codes, y, rng)


def draw_numbers(n: int, seed: int, kind: str = "none", size: float = 0.0) -> pd.DataFrame:
    """The same with a number for y, which varies the more the larger n00 is.

    Args:
        kind, size: as for `draw`; a label shift takes rows in the proportion exp(size * rank of y).
    """
    rng = np.random.default_rng(seed)
    pool_size = 4 * n if kind == "label_shift" else n
    z, codes = _inputs(pool_size, rng, size if kind == "covariate_shift" else 0.0)
    signal = _signal(z, codes, size if kind == "concept_drift" else 0.0)
    y = 20 + 5 * signal + rng.normal(size=pool_size) * np.exp(0.4 * z[:, 0])
    if kind == "label_shift":
        chance = np.exp(size * np.argsort(np.argsort(y)) / pool_size)
        chosen = rng.choice(pool_size, n, replace=False, p=chance / chance.sum())
        z, codes, y = z[chosen], [code[chosen] for code in codes], y[chosen]
    return _frame(z, codes, y, rng)


def draw_course(n: int, seed: int, start: str, hours: int, shift: float = 0.0) -> pd.DataFrame:
    """Rows of so many hours from `start`, with a course of the day and of the week in inputs and outcomes.

    Args:
        shift: by which part of their spread three columns move beyond the course.
    """
    rng = np.random.default_rng(seed)
    at = pd.Timestamp(start) + pd.to_timedelta(np.sort(rng.uniform(0, hours * 3600, n)), unit="s")
    hour, weekend = at.hour + at.minute / 60, np.asarray(at.dayofweek >= 5)
    moved = 0.4 * weekend + 0.3 * np.sin(2 * np.pi * (hour - 6) / 24) + shift
    z, codes = _inputs(n, rng, np.asarray(moved))
    odds = np.log(1 / (1 / _chance(z, codes, 0.0) - 1)) + 0.4 * weekend
    y = (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(np.float64)
    return _frame(z, codes, y, rng).assign(at=at.floor("s"))


def _frame(z: Array, codes: list[Array], y: Array, rng: np.random.Generator) -> pd.DataFrame:
    n = len(y)
    columns: dict[str, object] = {
        f"n{position:02}": z[:, position].astype(np.float32) for position in range(NUMBERS)
    }
    columns["n03"] = np.exp(z[:, 3]).round(2)
    columns["n04"] = np.floor(np.exp(0.6 * z[:, 4])).astype(np.int64)
    columns["n07"] = np.where(rng.random(n) < 0.05, np.nan, z[:, 7])
    columns["n08"] = np.where(z[:, 8] > 1.3, np.nan, z[:, 8])
    for position, code in enumerate(codes):
        columns[f"c{position}"] = pd.Categorical.from_codes(
            code, [f"v{k}" for k in range(len(CUTS[position]) + 1)]
        )
    return pd.DataFrame({**columns, "y": y})


def spoil(
    rows: pd.DataFrame, score: Array, kind: str, seed: int
) -> tuple[pd.DataFrame, Array, Array]:
    """Break a column, the scores or the labels as a fault would: rows, scores, labels (as logged)."""
    rng = np.random.default_rng(seed)
    rows, label = rows.copy(), rows["y"].to_numpy().copy()
    if kind == "feature_drift":
        match seed % 3:
            case 0:  # a tenth of a column is gone
                rows.loc[rng.random(len(rows)) < 0.1, "n01"] = np.nan
            case 1:  # another unit
                rows["n03"] = rows["n03"] * 100
            case 2:  # a category is renamed
                rows["c2"] = rows["c2"].astype(str).replace("v1", "V1")
    if kind == "prediction_shift":  # another model answers, or its calibration was lost
        odds = score / (1 - score)
        score = odds**0.8 * 1.3 / (1 + odds**0.8 * 1.3)
    if kind == "label_schema_drift":
        label[rng.random(len(label)) < 0.03] = 2.0
    return rows, score, label
