"""Whether rows of now differ from those of then: p-values and effects of a column, a table or means.

Every test gives a p-value and an effect in the unit of Cohen's w (1988): 0.1 is a mean that moves by
a tenth of its spread. diagnosis.py names a shift from them.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls
from scipy.special import chdtrc, fdtrc, kolmogorov, pdtrc, rel_entr

from .reference import LABEL, Moments, Profile, recalibrated

MIN_BIN_ROWS = 20  # rows of a bin that a mean is taken of
MIN_EXPECTED_ROWS = 3.0  # of a bin; bins of fewer are thrown together
MAX_EM_STEPS = 200

Array = np.ndarray


def chi_squares(a: Array, b: Array, segments: Array) -> tuple[Array, Array, Array]:
    """Whether two tables of counts come from one distribution, many columns at once.

    Pearson's chi-square (1900); bins too small for it are thrown together, and left out when they are
    too small even so.

    Args:
        a, b: rows by bin, the columns one behind the other, shape (bins,).
        segments: the column of each bin, from 0, shape (bins,).

    Returns:
        by column, each of shape (columns,): the statistic, its degrees of freedom (0: nothing to compare)
        and n m / (n + m), the effective number of rows of n and m.
    """
    size = int(segments[-1]) + 1

    def summed(values: Array) -> Array:
        return np.bincount(segments, weights=values, minlength=size)

    n, m = summed(a), summed(b)
    total = np.maximum(n + m, 1)
    bin_totals = a + b
    smaller = np.minimum(n, m) / total
    sparse = bin_totals * smaller[segments] < MIN_EXPECTED_ROWS
    left, right = np.sqrt(m / np.maximum(n, 1)), np.sqrt(n / np.maximum(m, 1))
    gap = (left[segments] * a - right[segments] * b) ** 2 / np.maximum(bin_totals, 1)
    pool_a, pool_b = summed(a * sparse), summed(b * sparse)
    has_pool = (pool_a + pool_b) * smaller >= MIN_EXPECTED_ROWS
    pool = has_pool * (left * pool_a - right * pool_b) ** 2 / np.maximum(pool_a + pool_b, 1)
    bins = summed((~sparse).astype(np.float64)) + has_pool
    # A column that either side has no rows of is not compared
    freedom = np.where((n > 0) & (m > 0), np.maximum(bins - 1, 0), 0)
    return summed(gap * ~sparse) + pool, freedom, n * m / total


def p_value_and_effect(statistic: Array, freedom: Array, n_eff: Array) -> tuple[Array, Array]:
    """p-values and effects of chi-squares, each of shape (columns,); 1 and 0 where freedom is 0.

    Args: as `chi_squares` returns them.
    """
    p = np.where(freedom > 0, chdtrc(np.maximum(freedom, 1), statistic), 1.0)
    effect = np.sqrt(np.maximum(0.0, statistic - freedom) / np.maximum(n_eff, 1))
    return p, np.where(freedom > 0, effect, 0.0)


def homogeneities(
    a: Array, b: Array, segments: Array, dispersion: Array, ordered: Array
) -> tuple[Array, Array]:
    """Whether two tables of counts come from one distribution: p-values and effects, each (columns,).

    By `chi_squares`. Where bins are ordered also by the rank sum (Wilcoxon, 1945), which is surer of a shift in one
    direction; the smaller p counts, doubled.

    Args:
        a, b: rows by bin, the columns one behind the other, shape (bins,).
        segments: the column of each bin, from 0, shape (bins,).
        dispersion: by how much such counts differ more than by chance, shape (columns,).
        ordered: whether the column's bins have an order, shape (columns,).
    """
    statistic, freedom, n_eff = chi_squares(a, b, segments)
    p, effect = p_value_and_effect(statistic / dispersion, freedom, n_eff)

    def summed(values: Array) -> Array:
        return np.bincount(segments, weights=values, minlength=len(p))

    n, m, bin_totals = summed(a), summed(b), a + b
    rank = np.cumsum(bin_totals) - bin_totals / 2
    rank -= (summed(bin_totals * rank) / np.maximum(n + m, 1))[segments]
    spread = summed(bin_totals * rank**2) / np.maximum(n + m, 1)
    gap = summed(a * rank) / np.maximum(n, 1) - summed(b * rank) / np.maximum(m, 1)
    z2 = gap**2 * n_eff / np.maximum(spread, 1e-300) / dispersion
    q, rank_effect = p_value_and_effect(z2, (freedom > 0).astype(np.float64), n_eff)
    ranked = ordered & (freedom > 1)
    p = np.where(ranked, np.minimum(1.0, 2 * np.minimum(p, q)), p)
    return p, np.where(ranked, np.maximum(effect, rank_effect), effect)


def homogeneity(
    a: Array, b: Array, dispersion: float = 1.0, ordered: bool = False
) -> tuple[float, float]:
    """Whether a column's counts, of shape (bins,), come from one distribution: p-value and effect.

    The test of `homogeneities`, of one column.
    """
    segments = np.zeros(len(a), dtype=np.int64)
    (p,), (effect,) = homogeneities(a, b, segments, np.array([dispersion]), np.array([ordered]))
    return float(p), float(effect)


def chi_square(a: Array, b: Array, dispersion: float) -> tuple[float, float]:
    """Pearson's chi-square (1900) of two rows of counts, shape (bins,): p-value and effect."""
    statistic, freedom, n_eff = chi_squares(a, b, np.zeros(len(a), np.int64))
    (p,), (effect,) = p_value_and_effect(statistic / dispersion, freedom, n_eff)
    return float(p), float(effect)


def jensen_shannon(a: Array, b: Array, dispersion: float) -> tuple[float, float]:
    """The divergence of Jensen and Shannon (Lin, 1991), weighted by the rows of both: p-value and effect.

    Times twice the rows it is the likelihood ratio (Wilks, 1938), which is distributed as chi-square.

    Args:
        a, b: counts, shape (bins,); dispersion: by how much such counts differ more than by chance.
    """
    a, b = _without_sparse(a, b)
    n, m = max(1.0, a.sum()), max(1.0, b.sum())
    pooled = (a + b) / (n + m)
    return _as_chi_square(
        2 * (rel_entr(a, n * pooled) + rel_entr(b, m * pooled)).sum(), a, b, dispersion
    )


def psi(a: Array, b: Array, dispersion: float) -> tuple[float, float]:
    """The population stability index: p-value, by its chi-square distribution (Yurdakul, 2018), and effect.

    Args: as `jensen_shannon`; half a row is added to each bin, so that none is empty.
    """
    a, b = _without_sparse(a, b)
    p, q = (a + 0.5) / (a + 0.5).sum(), (b + 0.5) / (b + 0.5).sum()
    n_eff = a.sum() * b.sum() / max(1.0, a.sum() + b.sum())
    return _as_chi_square(n_eff * ((p - q) * np.log(p / q)).sum(), a, b, dispersion)


def ks(a: Array, b: Array, dispersion: float) -> tuple[float, float]:
    """The test of Kolmogorov and Smirnov (1948), of counts in an order: p-value, on bins never too small, and effect.

    A mean that moves by a tenth of its spread opens a gap of 0.04 between two normal distributions: that is 0.1.

    Args: as `jensen_shannon`.
    """
    n, m = a.sum(), b.sum()
    if not n or not m:
        return 1.0, 0.0
    gap = float(np.abs(np.cumsum(a) / n - np.cumsum(b) / m).max())
    return float(kolmogorov(np.sqrt(n * m / (n + m) / dispersion) * gap)), gap * np.sqrt(2 * np.pi)


def _without_sparse(a: Array, b: Array) -> tuple[Array, Array]:
    """Counts with the bins that are too small for a chi-square thrown together."""
    n, m = a.sum(), b.sum()
    sparse = (a + b) * min(n, m) / max(1.0, n + m) < MIN_EXPECTED_ROWS
    return np.append(a[~sparse], a[sparse].sum()), np.append(b[~sparse], b[sparse].sum())


def _as_chi_square(statistic: float, a: Array, b: Array, dispersion: float) -> tuple[float, float]:
    """The p-value and effect of what is distributed as chi-square over the bins that have rows."""
    freedom = int(((a + b) > 0).sum()) - 1
    if freedom < 1 or not a.sum() or not b.sum():
        return 1.0, 0.0
    n_eff = a.sum() * b.sum() / (a.sum() + b.sum())
    scaled = statistic / dispersion
    return float(chdtrc(freedom, scaled)), float(np.sqrt(max(0.0, scaled - freedom) / n_eff))


# By which a column can be compared (monitoring.statistics)
STATISTICS = {"chi_square": chi_square, "jensen_shannon": jensen_shannon, "psi": psi, "ks": ks}


def excess_of_rare(k: int, n: int, k_then: int, m: int, extra: float = 0.0) -> tuple[float, float]:
    """Whether k of n is a larger share than k_then of m, for what is rare or absent: p-value and effect.

    Args:
        k, n: now, the rows of the kind and all rows; k_then, m: likewise in the reference.
        extra: added to k_then before they are compared, for what could have been seen and was not.
    """
    base = (k_then + extra) / max(1, m)
    if not n or k / n <= base:
        return 1.0, 0.0
    then = np.array([k_then + extra, max(m - k_then - extra, 0)], float)
    statistic = _chi_square(np.array([k, n - k], float), then)
    # The normal tail is too sure of few rows; the Poisson's is not
    p = max(float(chdtrc(1, statistic)), float(pdtrc(k - 1, n * base)))
    return p, float(np.sqrt(max(0.0, statistic - 1) / (n * m / (n + m))))


def _chi_square(a: Array, b: Array) -> float:
    n, m = a.sum(), b.sum()
    totals = np.maximum(a + b, 1e-12)
    return float(((np.sqrt(m / n) * a - np.sqrt(n / m) * b) ** 2 / totals).sum())


def means(now: Array, then: Array) -> tuple[float, float]:
    """Whether the mean of `label - score` differs in any bin: p-value and effect.

    Args:
        now, then: by bin and label bin, as `Profile.tables`, shape (bins, labels, 5).
    """
    a, b = now.sum(axis=1), then.sum(axis=1)
    filled = (a[:, 0] >= MIN_BIN_ROWS) & (b[:, 0] >= MIN_BIN_ROWS)
    if not filled.any():
        return 1.0, 0.0
    a, b = a[filled], b[filled]
    gap = (a[:, 2] - a[:, 1]) / a[:, 0] - (b[:, 2] - b[:, 1]) / b[:, 0]
    spread = [t[:, 3] / t[:, 0] - ((t[:, 2] - t[:, 1]) / t[:, 0]) ** 2 for t in (a, b)]
    variance = np.maximum(np.maximum(*spread), 1e-12)
    statistic = gap**2 / (variance * (1 / a[:, 0] + 1 / b[:, 0]))
    total, freedom = float(statistic.sum()), len(gap)
    n, m = a[:, 0].sum(), b[:, 0].sum()
    p = float(chdtrc(freedom, total))
    return p, float(np.sqrt(max(0.0, total - freedom) / (n * m / (n + m))))


def hotelling(now: Array, then: Moments, same_spread: bool = True) -> tuple[float, float, Array]:
    """Whether the means along several axes differ, all at once: p, effect, and z by axis.

    Hotelling's T squared (1931): the linear domain classifier (Fisher's discriminant) as a test. It
    finds what moves a little in many columns, or against the way in which they go together. The covariance
    of rows with long tails, such as those of a rare label, is known as well as one of fewer normal rows (Box, 1953).

    Args:
        now: rows along the axes, shape (rows, axes).
        then: the reference's means and covariances along the axes.
        same_spread: whether the rows spread as the reference does; else their own covariance counts too.
    """
    n, m, size = len(now), then.rows, now.shape[1]
    if n < 10 * size or m < 10 * size:
        return 1.0, 0.0, np.zeros(size)
    gap = now.mean(axis=0) - then.mean
    noise = then.covariance / m
    noise = noise + (then.covariance if same_spread else np.atleast_2d(np.cov(now.T))) / n
    dispersion = 1 + (then.dispersion - 1) * n / then.block
    statistic = float(gap @ np.linalg.pinv(noise, hermitian=True) @ gap) / dispersion
    rows = m if same_spread else _normal_rows(now)
    if rows <= 2 * size:
        return 1.0, 0.0, np.zeros(size)
    p = float(fdtrc(size, rows - size, statistic * (rows - size) / (size * (rows - 1))))
    effect = float(np.sqrt(max(0.0, statistic - size) / (n * m / (n + m))))
    return p, effect, gap / np.sqrt(np.maximum(np.diag(noise), 1e-300) * dispersion)


def _normal_rows(rows: Array) -> float:
    """How many normal rows would tell their variance as surely as these, at most as many; rows: shape (n, axes).

    The variance of a variance is (kurtosis - 1) / n in units of its square, and 2 / n of normal rows; the axis with the
    longest tail counts.
    """
    squares = (rows - rows.mean(axis=0)) ** 2
    kurtosis = (squares**2).mean(axis=0) / np.maximum(squares.mean(axis=0) ** 2, 1e-300)
    return len(rows) * min(1.0, 2 / max(1e-9, float(kurtosis.max()) - 1))


def label_shares(counts: Array, reference: Array) -> tuple[Array, Array]:
    """The shares of the labels that would best explain the scores, before any label is there.

    Black-box shift estimation (Lipton, Wang and Smola, 2018), with bins of the score in the place
    of the confusion matrix's two columns, and non-negative least squares weighted by the counts'
    spread: the minimum chi-square.

    Args:
        counts: rows by score bin, shape (bins,).
        reference: the reference's rows by score bin and label bin, shape (bins, labels).

    Returns:
        the shares, shape (labels,), and the score's expected distribution under them, (bins,).
    """
    likelihood = reference / np.maximum(reference.sum(axis=0), 1)
    observed = counts / max(1, counts.sum())
    weight = 1 / np.sqrt(np.maximum(observed, 1 / max(1, counts.sum())))
    shares, _ = nnls(likelihood * weight[:, None], observed * weight)
    shares = shares / (shares.sum() or 1.0)
    return shares, likelihood @ shares


def class_shares(profile: Profile, score: Array, weights: Array | None = None) -> Array:
    """The share of each class that would best explain the scores, before any label is there.

    The EM algorithm of Saerens, Latinne and Decaestecker (2002), on scores that were
    calibrated on the reference. The shares found there are told as a change of the reference's.

    Args:
        score: shape (n, classes).
        weights: how often each row counts, shape (n,); None: once.

    Returns:
        shape (classes,).
    """
    weights = np.ones(len(score)) if weights is None else weights
    shares = implied = np.maximum(profile.facts["implied"], 1e-6)
    chance = recalibrated(profile.facts, score)
    for _ in range(MAX_EM_STEPS):
        before, shares = shares, weights @ rescale_priors(chance, shares / implied) / weights.sum()
        if np.abs(shares - before).max() < 1e-5:
            break
    now = reference_shares(profile) * shares / implied
    return np.asarray(now / now.sum())


def reference_shares(profile: Profile) -> Array:
    """The share of each label bin in the reference, shape (labels,)."""
    return np.asarray(profile.counts[LABEL] / profile.counts[LABEL].sum())


def rescale_priors(score: Array, change: Array) -> Array:
    """Scores, shape (n, classes), as they would be if each class were `change` times as common, (classes,)."""
    after = score * change
    return after / np.maximum(after.sum(axis=1, keepdims=True), 1e-300)


def explained_by_labels(counts: Array, reference: Array, shares: Array) -> tuple[float, float]:
    """Whether a column's counts fit the mixture that shares of the labels ask for: p-value and effect.

    Pearson's chi-square (1900), with the noise of the reference's own counts.

    Args:
        counts: rows by bin, shape (bins,).
        reference: the reference's rows by bin and label bin, shape (bins, labels).
        shares: of each label bin, shape (labels,).
    """
    n = counts.sum()
    rows = np.maximum(reference.sum(axis=0), 1)
    likelihood = reference / rows
    expected = likelihood @ shares
    noise = (likelihood * (1 - likelihood) / rows) @ shares**2
    compared = expected * n >= MIN_EXPECTED_ROWS
    if compared.sum() < 2:
        return 1.0, 0.0
    gap = (counts - n * expected)[compared]
    statistic = float((gap**2 / (n * expected + n**2 * noise)[compared]).sum())
    freedom = int(compared.sum()) - 1
    m = rows.sum()
    effect = np.sqrt(max(0.0, statistic - freedom) / (n * m / (n + m)))
    return float(chdtrc(max(1, freedom), statistic)), float(effect)
