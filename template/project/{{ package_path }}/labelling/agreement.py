"""How far people agree: alpha with its standard error, kappa, each value apart, and who drifts over time."""

from __future__ import annotations

from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np

from .. import problem
from .aggregation import Table

FEWEST_SHARED = 20  # rows below which a kappa of two, or half a labeller's time, says little
LEVEL = 0.95  # of the intervals of drift, of all labellers together

Array = np.ndarray


def krippendorff(table: Table) -> tuple[float, float] | None:
    """Krippendorff's alpha (2004) and its standard error: 1 is full agreement, 0 what chance gives; None where no row has
    two votes, or all are equal.

    Of classes by whether two votes are equal, of numbers by the square of their difference. The error is that of the
    jackknife (Efron and Stein, 1981), which leaves out each row in its turn.
    """
    counts = table.counts()
    paired = counts.sum(axis=1) > 1
    counts = counts[paired].astype(float)
    size = counts.sum(axis=1)
    if not len(size):
        return None
    if problem.CLASSES:
        observed = size - (counts * (counts - 1)).sum(axis=1) / (size - 1)
    else:
        values = table.numbers()
        values = values - values.mean()
        first, second = (np.bincount(table.rows, values**p)[paired] for p in (1, 2))
        observed = 2 * (size * second - first**2) / (size - 1)

    def differences(n: Array, totals: Any) -> Any:
        if problem.CLASSES:
            return n - (totals * (totals - 1)).sum(axis=-1) / (n - 1)
        return 2 * (n * totals[1] - totals[0] ** 2) / (n - 1)

    def alpha(o: Array, n: Array, totals: Any) -> Array:
        expected = differences(n, totals)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(1 - o / expected)

    parts = counts if problem.CLASSES else np.stack([first, second])
    whole = counts.sum(axis=0) if problem.CLASSES else parts.sum(axis=1)
    value = float(alpha(observed.sum(), size.sum(), whole))
    left = whole - parts if problem.CLASSES else whole[:, None] - parts
    without = alpha(observed.sum() - observed, size.sum() - size, left)
    without = without[np.isfinite(without)]
    error = np.sqrt((len(size) - 1) * np.var(without)) if len(without) else 0.0
    return (value, float(error)) if np.isfinite(value) else None


def fleiss(table: Table) -> float | None:
    """Fleiss' kappa (1971) of classes, of rows with different numbers of votes (Fleiss, Levin and Paik, 2003); None where
    no row has two votes, or all are equal."""
    counts = table.counts()
    size = counts.sum(axis=1)
    counts, size = counts[size > 1], size[size > 1]
    if not len(size):
        return None
    observed = ((counts * (counts - 1)).sum(axis=1) / (size * (size - 1))).mean()
    expected = float(((counts.sum(axis=0) / size.sum()) ** 2).sum())
    return None if expected == 1 else float((observed - expected) / (1 - expected))


def cohen(table: Table) -> list[dict[str, Any]]:
    """Cohen's kappa (1960) of every two people who share at least FEWEST_SHARED rows, the lowest first."""
    answers: list[dict[int, int]] = [{} for _ in table.names]
    for who, row, value in zip(table.labellers, table.rows, table.values, strict=True):
        answers[who][int(row)] = int(value)
    pairs = []
    for a, b in combinations(range(len(table.names)), 2):
        shared = sorted(answers[a].keys() & answers[b].keys())
        if len(shared) < FEWEST_SHARED:
            continue
        x, y = (np.array([answers[who][row] for row in shared]) for who in (a, b))
        people = [table.names[a], table.names[b]]
        alike = round(kappa(x, y, len(table.labels)), 4)
        pairs.append({"people": people, "rows": len(shared), "kappa": alike})
    return sorted(pairs, key=lambda pair: pair["kappa"])


def kappa(x: Array, y: Array, k: int) -> float:
    """Cohen's kappa (1960) of two who labelled the same n rows: codes of k classes, each of shape (n,)."""
    shares = (np.bincount(values, minlength=k) / len(x) for values in (x, y))
    expected = float(np.prod([*shares], axis=0).sum())
    return 1.0 if expected == 1 else (float(np.mean(x == y)) - expected) / (1 - expected)


def specific_agreement(table: Table) -> dict[str, float]:
    """On each value apart: of two people, where the first says it, how often the second does too.

    Of a yes and a no these are the two indices of Cicchetti and Feinstein (1990): one figure for both
    hides a rare yes that nobody agrees on.
    """
    counts = table.counts()
    per_row = counts.sum(axis=1, keepdims=True)
    agreed, possible = (counts * (counts - 1)).sum(axis=0), (counts * (per_row - 1)).sum(axis=0)
    return {
        label: float(agreed[i] / possible[i]) for i, label in enumerate(table.labels) if possible[i]
    }


def drift(errors: Array, labellers: int = 1) -> dict[str, Any] | None:
    """How much more a labeller errs in the second half of the votes than in the first, with an interval.

    Args:
        errors: of n votes in the order of their time, against what is taken for true, shape (n,): 0 or 1, or a distance.
        labellers: how many are looked at, which widens the interval (Bonferroni), so that one false alarm of all is rare.

    Returns:
        first, second (means of the halves); change, low, high; and whether the interval leaves out 0. None of too few.
    """
    halves = np.array_split(np.asarray(errors, dtype=float), 2)
    if len(halves[1]) < FEWEST_SHARED:
        return None
    first, second = (float(half.mean()) for half in halves)
    low, high = difference(halves[0], halves[1], labellers)
    figures = {"first": first, "second": second, "change": second - first, "low": low, "high": high}
    rounded = {name: round(float(figure), 4) for name, figure in figures.items()}
    return {**rounded, "drifts": bool(low > 0 or high < 0)}


def difference(first: Array, second: Array, times: int = 1) -> tuple[float, float]:
    """Between which numbers the mean of n independent values lies above that of m others: of shares by Newcombe's method
    10 (1998), of numbers by the normal distribution with two variances.

    Args:
        first: shape (m,); second: shape (n,).
        times: how many differences are looked at, which widens the interval (Bonferroni).
    """
    z = NormalDist().inv_cdf(1 - (1 - LEVEL) / 2 / max(1, times))
    before, after = float(np.mean(first)), float(np.mean(second))
    if {*np.unique(first), *np.unique(second)} <= {0, 1}:
        return _newcombe(before, after, len(first), len(second), z)
    spread = z * np.sqrt(sum(np.var(values, ddof=1) / len(values) for values in (first, second)))
    return after - before - float(spread), after - before + float(spread)


def _newcombe(first: float, second: float, n: int, m: int, z: float) -> tuple[float, float]:
    """The interval of a difference of two shares by their Wilson scores (Newcombe, 1998, method 10)."""
    bounds = []
    for share, count in ((first, n), (second, m)):
        middle = (share + z * z / (2 * count)) / (1 + z * z / count)
        half = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count**2))
        half /= 1 + z * z / count
        bounds.append((middle - half, middle + half))
    (low1, high1), (low2, high2) = bounds
    below, above = np.hypot(second - low2, high1 - first), np.hypot(high2 - second, first - low1)
    return float(second - first - below), float(second - first + above)
