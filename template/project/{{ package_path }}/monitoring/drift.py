"""Which kind of shift a window shows: tests with a known false-alarm rate, effects, and a diagnosis.

Every test gives a p-value and an effect in the unit of Cohen's w (1988): 0.1 is a mean that moves by
a tenth of its spread. An alarm takes both: significance after the correction for all tests of the
report, of which each detector has a share of its own however many columns it looks at (Benjamini and
Hochberg, 1995, with the weights of Genovese, Roeder and Wasserman, 2006), and an effect of the size
that the settings ask for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import nnls
from scipy.special import chdtrc, fdtrc, ndtr, pdtrc

from .. import problem
from .reference import LABEL, SCORE, Column, Moments, Outcomes, Profile, along, made_right, table
from .windows import Windows

KINDS = (
    *("feature_drift", "label_schema_drift", "prediction_shift"),
    *("label_shift", "covariate_shift", "concept_drift"),
)
# How much of the borne false alarms each detector has, and within it the tests of all columns together
BUDGET = {
    "covariate_shift": (5.0, {"numbers": 6, "categories": 1, "pairs": 1, "": 2}),
    "concept_drift": (3.0, {"outcomes": 1, "": 2}),
    "label_shift": (3.0, {"": 1}),
    "prediction_shift": (0.5, {"scores": 1, "": 1}),
    "feature_drift": (0.5, {"": 1}),  # faults are sure or none
    "label_schema_drift": (0.5, {"": 1}),
}
FEWEST = 20  # rows of a bin that a mean is taken of
EM_STEPS = 200  # at most
SMALL = 3.0  # expected rows, below which bins are thrown together
SURE = 0.01  # an explanation is dropped when it is this unlikely, after correction
GAPS = 0.01  # share of missing values beyond twice the usual one that no other rows explain
STRANGE_ROWS, STRANGE_SHARE = 3, 0.002  # labels that no label can be, above which it is no slip

Array = np.ndarray


@dataclass
class Evidence:
    """One test of one window: what was tested, how sure and how large the difference is."""

    detector: str
    what: str
    p: float
    effect: float
    alarm: bool = False
    words: str = ""
    joint: str = ""  # which columns were looked at together, else one by itself
    weight: float = 1.0  # of the borne false alarms


@dataclass
class Finding:
    """What a window shows."""

    tests: list[Evidence]
    kinds: dict[str, list[str]] = field(default_factory=dict)  # of shift, and what shows each
    label_mean: float | None = None  # estimated before labels came
    label_shares: dict[str, float] = field(
        default_factory=dict
    )  # likewise, where labels are classes
    explained: dict[str, float] = field(default_factory=dict)

    def alarms(self, detector: str) -> list[Evidence]:
        return [one for one in self.tests if one.detector == detector and one.alarm]


def chi_squares(a: Array, b: Array, segments: Array) -> tuple[Array, Array, Array]:
    """Whether two tables of counts come from one distribution, many columns at once.

    Pearson's chi-square (1900); bins too small for it are thrown together, and left out when they are
    too small even so.

    Args:
        a, b: rows by bin, the columns one behind the other, shape (bins,).
        segments: the column of each bin, from 0, shape (bins,).

    Returns:
        statistic, degrees of freedom and n m / (n + m) by column.
    """
    size = int(segments[-1]) + 1

    def summed(values: Array) -> Array:
        return np.bincount(segments, weights=values, minlength=size)

    n, m = summed(a), summed(b)
    total = np.maximum(n + m, 1)
    both = a + b
    smaller = np.minimum(n, m) / total
    few = both * smaller[segments] < SMALL
    left, right = np.sqrt(m / np.maximum(n, 1)), np.sqrt(n / np.maximum(m, 1))
    gap = (left[segments] * a - right[segments] * b) ** 2 / np.maximum(both, 1)
    rest_a, rest_b = summed(a * few), summed(b * few)
    enough = (rest_a + rest_b) * smaller >= SMALL
    rest = enough * (left * rest_a - right * rest_b) ** 2 / np.maximum(rest_a + rest_b, 1)
    bins = summed((~few).astype(np.float64)) + enough
    # A column that either side has no rows of is not compared
    freedom = np.where((n > 0) & (m > 0), np.maximum(bins - 1, 0), 0)
    return summed(gap * ~few) + rest, freedom, n * m / total


def p_value_and_effect(statistic: Array, freedom: Array, small: Array) -> tuple[Array, Array]:
    """p-values and effects of chi-squares; 1 and 0 where there was nothing to compare."""
    p = np.where(freedom > 0, chdtrc(np.maximum(freedom, 1), statistic), 1.0)
    effect = np.sqrt(np.maximum(0.0, statistic - freedom) / np.maximum(small, 1))
    return p, np.where(freedom > 0, effect, 0.0)


def homogeneities(
    a: Array, b: Array, segments: Array, dispersion: Array, ordered: Array
) -> tuple[Array, Array]:
    """p-values and effects of many columns at once, laid out as for `chi_squares`.

    Where bins are ordered also by the rank sum (Wilcoxon, 1945), which is surer of a shift in one
    direction; the smaller p counts, doubled.

    Args:
        dispersion: by how much such counts differ more than by chance, shape (columns,).
        ordered: whether the column's bins are, shape (columns,).
    """
    statistic, freedom, small = chi_squares(a, b, segments)
    p, effect = p_value_and_effect(statistic / dispersion, freedom, small)

    def summed(values: Array) -> Array:
        return np.bincount(segments, weights=values, minlength=len(p))

    n, m, both = summed(a), summed(b), a + b
    rank = np.cumsum(both) - both / 2
    rank -= (summed(both * rank) / np.maximum(n + m, 1))[segments]
    spread = summed(both * rank**2) / np.maximum(n + m, 1)
    gap = summed(a * rank) / np.maximum(n, 1) - summed(b * rank) / np.maximum(m, 1)
    z2 = gap**2 * small / np.maximum(spread, 1e-300) / dispersion
    q, other = p_value_and_effect(z2, (freedom > 0).astype(np.float64), small)
    used = ordered & (freedom > 1)
    p = np.where(used, np.minimum(1.0, 2 * np.minimum(p, q)), p)
    return p, np.where(used, np.maximum(effect, other), effect)


def homogeneity(
    a: Array, b: Array, dispersion: float = 1.0, ordered: bool = False
) -> tuple[float, float]:
    """The same of one column."""
    one = np.zeros(len(a), dtype=np.int64)
    (p,), (effect,) = homogeneities(a, b, one, np.array([dispersion]), np.array([ordered]))
    return float(p), float(effect)


def excess_of_rare(k: int, n: int, of: int, m: int, extra: float = 0.0) -> tuple[float, float]:
    """Whether k of n is more than `of` of m, for what is rare or absent: p-value and effect.

    Args:
        extra: added to `of` before they are compared, for what could have been seen and was not.
    """
    base = (of + extra) / max(1, m)
    if not n or k / n <= base:
        return 1.0, 0.0
    a, b = np.array([k, n - k], float), np.array([of + extra, max(m - of - extra, 0)], float)
    statistic = _two(a, b)
    # The normal tail is too sure of few rows; the Poisson's is not
    p = max(float(chdtrc(1, statistic)), float(pdtrc(k - 1, n * base)))
    small = n * m / (n + m)
    return p, float(np.sqrt(max(0.0, statistic - 1) / small))


def _two(a: Array, b: Array) -> float:
    n, m = a.sum(), b.sum()
    both = np.maximum(a + b, 1e-12)
    return float(((np.sqrt(m / n) * a - np.sqrt(n / m) * b) ** 2 / both).sum())


def means(now: Array, then: Array) -> tuple[float, float]:
    """Whether the mean of `label - score` differs in any bin: p-value and effect.

    Args:
        now, then: by bin and label bin, as `Profile.tables`, shape (bins, labels, 5).
    """
    a, b = now.sum(axis=1), then.sum(axis=1)
    used = (a[:, 0] >= FEWEST) & (b[:, 0] >= FEWEST)
    if not used.any():
        return 1.0, 0.0
    a, b = a[used], b[used]
    gap = (a[:, 2] - a[:, 1]) / a[:, 0] - (b[:, 2] - b[:, 1]) / b[:, 0]
    spread = [one[:, 3] / one[:, 0] - ((one[:, 2] - one[:, 1]) / one[:, 0]) ** 2 for one in (a, b)]
    variance = np.maximum(np.maximum(*spread), 1e-12)
    statistic = gap**2 / (variance * (1 / a[:, 0] + 1 / b[:, 0]))
    total, freedom = float(statistic.sum()), len(gap)
    n, m = a[:, 0].sum(), b[:, 0].sum()
    p = float(chdtrc(freedom, total))
    return p, float(np.sqrt(max(0.0, total - freedom) / (n * m / (n + m))))


def label_shares(counts: Array, known: Array) -> tuple[Array, Array]:
    """The shares of the labels that would best explain the scores, before any label is there.

    Black-box shift estimation (Lipton, Wang and Smola, 2018), with bins of the score in the place
    of the confusion matrix's two columns, and non-negative least squares weighted by the counts'
    spread: the minimum chi-square.

    Args:
        counts: rows by score bin, shape (bins,); known: the reference's by score bin and label bin.

    Returns:
        the shares, shape (labels,), and the score's expected distribution under them, (bins,).
    """
    given = known / np.maximum(known.sum(axis=0), 1)
    observed = counts / max(1, counts.sum())
    weight = 1 / np.sqrt(np.maximum(observed, 1 / max(1, counts.sum())))
    shares, _ = nnls(given * weight[:, None], observed * weight)
    shares = shares / (shares.sum() or 1.0)
    return shares, given @ shares


def class_shares(profile: Profile, score: Array, weights: Array | None = None) -> Array:
    """The share of each class that would best explain the scores, before any label is there.

    The EM algorithm of Saerens, Latinne and Decaestecker (2002), on scores made right by the
    reference. What it finds is told as a change of the shares that the reference has.

    Args:
        score: shape (n, classes).
        weights: how often each row counts, shape (n,); None: once.

    Returns:
        shape (classes,).
    """
    weights = np.ones(len(score)) if weights is None else weights
    shares = implied = np.maximum(profile.facts["implied"], 1e-6)
    chance = made_right(profile.facts, score)
    for _ in range(EM_STEPS):
        before, shares = shares, weights @ as_shared(chance, shares / implied) / weights.sum()
        if np.abs(shares - before).max() < 1e-5:
            break
    now = usual_shares(profile) * shares / implied
    return np.asarray(now / now.sum())


def usual_shares(profile: Profile) -> Array:
    """The share of each label bin in the reference, shape (labels,)."""
    return np.asarray(profile.seen[LABEL] / profile.seen[LABEL].sum())


def as_shared(score: Array, change: Array) -> Array:
    """Scores as they would be where each class is so many times as common, shape (n, classes)."""
    after = score * change
    return after / np.maximum(after.sum(axis=1, keepdims=True), 1e-300)


def explained_by_labels(counts: Array, known: Array, shares: Array) -> tuple[float, float]:
    """Whether a column's counts fit the mixture that these label shares ask for: p-value, effect."""
    n = counts.sum()
    rows = np.maximum(known.sum(axis=0), 1)
    given = known / rows
    expected = given @ shares
    noise = (given * (1 - given) / rows) @ shares**2
    used = expected * n >= SMALL
    if used.sum() < 2:
        return 1.0, 0.0
    gap = (counts - n * expected)[used]
    statistic = float((gap**2 / (n * expected + n**2 * noise)[used]).sum())
    freedom = int(used.sum()) - 1
    m = rows.sum()
    effect = np.sqrt(max(0.0, statistic - freedom) / (n * m / (n + m)))
    return float(chdtrc(max(1, freedom), statistic)), float(effect)


def test_window(windows: Windows, profile: Profile, window: int) -> Finding:
    """Every test of one window, uncorrected, against the reference's rows of the same phases."""
    found, whole = Finding([]), profile
    profile = whole.like(windows.mix[window])
    add = found.tests.append
    for one in windows.gone:
        add(Evidence("feature_drift", one, 0.0, 1.0, words=f"{one} is not in the log"))
    columns = [
        c for c in profile.columns.values() if c.kind != "time" and c.name not in windows.gone
    ]
    for column in columns:
        counts = windows.counts[column.name][window].astype(np.float64)
        known = profile.seen[column.name].astype(np.float64)
        if column.kind == "score":
            p, effect = homogeneity(counts[:-1], known[:-1], _dispersion(column, counts), True)
            whose = (
                ""
                if column.name == SCORE
                else f" of {column.name.strip('()').partition(' of ')[2]}"
            )
            words = f"the scores{whose} are distributed differently"
            add(Evidence("prediction_shift", column.name, p, effect, words=words))
            continue
        for test in _faults(column, counts, known, windows, window):
            add(test)
        usual = np.ones(len(counts), dtype=bool)
        if column.kind == "category":
            usual[column.odd["new"]] = False
        p, effect = homogeneity(
            counts[usual], known[usual], _dispersion(column, counts), column.kind != "category"
        )
        words = f"{column.name}: {_moved(column, counts, known)}"
        add(Evidence("covariate_shift", column.name, p, effect, words=words))
    mine = windows.window == window
    drawn = mine & windows.drawn
    found.tests += _pairs(windows, profile, drawn) + _together(windows, profile, drawn)
    n = int(windows.health[window]["labels"])
    strange = sum(windows.strange[window].values())
    # For a number the ends of the range are where some rows always fall
    expected = 0.0 if problem.CLASSES else 2 * n / profile.rows
    if strange >= max(STRANGE_ROWS, STRANGE_SHARE * n, 3 * expected) and (
        problem.CLASSES or strange > 0.05 * n
    ):
        shown = ", ".join(
            f"{label} ({rows:,} times)" for label, rows in [*windows.strange[window].items()][:3]
        )
        words = f"labels that were never there: {shown}"
        add(Evidence("label_schema_drift", "label", 0.0, 1.0, words=words))
    labelled = mine & ~np.isnan(windows.y)
    if labelled.sum() >= 50:
        found.tests += _labelled(windows, whole.like(windows.mix_labelled[window]), labelled)
    _weigh(found.tests)
    return found


def _weigh(tests: list[Evidence]) -> None:
    """Share the borne false alarms among the detectors that had something to test."""
    known = [one for one in tests if one.detector in KINDS]
    groups = Counter((one.detector, one.joint) for one in known)
    whole = sum(BUDGET[one][0] for one in {detector for detector, _ in groups})
    for one in known:
        share, parts = BUDGET[one.detector]
        there = sum(part for joint, part in parts.items() if (one.detector, joint) in groups)
        part = share / whole * parts[one.joint] / there
        one.weight = len(known) * part / groups[one.detector, one.joint]


def _dispersion(column: Column, counts: Array) -> float:
    """The column's dispersion, for a window of this size."""
    return 1 + (column.dispersion - 1) * counts.sum() / column.block


def _moved(column: Column, counts: Array, known: Array) -> str:
    """The bin whose share changed most, in words."""
    now, then = counts / max(1, counts.sum()), known / max(1, known.sum())
    at = int(np.argmax(np.abs(now - then)))
    return f"{column.names[at]} went from {then[at]:.1%} to {now[at]:.1%}"


def _faults(
    column: Column, counts: Array, known: Array, windows: Windows, window: int
) -> list[Evidence]:
    """What speaks of a fault in a column: gaps, values never seen, out of range, unreadable."""
    n, m = int(counts.sum()), int(known.sum())
    tests = []
    for what, codes in column.odd.items():
        if what == "new" and column.others is None:
            continue
        k, of = int(counts[codes].sum()), int(known[codes].sum())
        if what == "missing" and k / max(1, n) <= 2 * of / m + GAPS and 2 * k / max(1, n) >= of / m:
            continue  # as many as other rows may well have: a matter of which rows come
        if what == "missing":
            p, effect = homogeneity(
                np.array([k, n - k]), np.array([of, m - of]), _dispersion(column, counts)
            )
            # Too few to expect any: the chi-square would throw them together
            q, large = excess_of_rare(k, n, of, m, 1.0)
            p, effect = min(1.0, 2 * min(p, q)), max(effect, large)
        else:
            p, effect = excess_of_rare(k, n, of, m, 2.0 + column.singletons)
        words = {"new": "values never seen", "missing": "missing", "range": "out of range"}[what]
        told = f"{column.name}: {words} in {k / max(1, n):.1%}, was {of / max(1, m):.1%}"
        tests.append(Evidence("feature_drift", f"{column.name}: {what}", p, effect, words=told))
    if column.kind != "category" and len(column.edges) > 3 and n >= FEWEST:
        same = int(counts[1:-1].max() if len(counts) > 2 else 0)
        before = float(known[1:-1].max() / max(1, known[:-1].sum()))
        if same >= 0.99 * counts[:-1].sum() > 0 and before < 0.9:
            words = f"{column.name}: nearly all values are in one place"
            tests.append(
                Evidence("feature_drift", f"{column.name}: constant", 0.0, 1.0, words=words)
            )
    if column.name in windows.broken and (k := int(windows.broken[column.name][window])):
        p, effect = excess_of_rare(k, n, 0, m, 2.0)
        words = f"{column.name}: {k / max(1, n):.1%} are no {column.kind}"
        tests.append(Evidence("feature_drift", f"{column.name}: type", p, effect, words=words))
    return tests


def _pairs(windows: Windows, profile: Profile, mine: Array) -> list[Evidence]:
    """One test for all pairs of columns: together they may move where none does by itself."""
    coarse = {
        name: np.asarray(profile.columns[name].coarse, dtype=np.int32)[codes[mine]]
        for name, codes in windows.codes.items()
        if profile.columns[name].kind not in ("score", "time")
    }
    pairs = [one for one in profile.pairs if one[0] in coarse and one[1] in coarse]
    if not pairs or not mine.any():
        return []
    known = [profile.pairs[one] for one in pairs]
    counts = [
        np.bincount(coarse[a] * cells.shape[1] + coarse[b], minlength=cells.size)
        for (a, b), cells in zip(pairs, known, strict=True)
    ]
    segments = np.repeat(np.arange(len(pairs)), [cells.size for cells in known])
    then = np.concatenate([cells.ravel() for cells in known]).astype(np.float64)
    statistic, freedom, small = chi_squares(
        np.concatenate(counts).astype(np.float64), then, segments
    )
    rows = np.array([mine.sum()])
    alone = {name: _dispersion(profile.columns[name], rows) for name in coarse}
    statistic /= [max(alone[a], alone[b]) for a, b in pairs]
    p, effect = p_value_and_effect(statistic, freedom, small)
    best = int(np.argmin(p))
    a, b = pairs[best]
    words = f"{a} and {b} go together in another way"
    whole = min(1.0, float(p[best]) * len(pairs))
    what, size = f"{a} with {b}", float(effect[best])
    return [Evidence("covariate_shift", what, whole, size, words=words, joint="pairs")]


def hotelling(now: Array, then: Moments, known: bool = True) -> tuple[float, float, Array]:
    """Whether the means along several axes differ, all at once: p, effect, and z by axis.

    Hotelling's T squared (1931): the linear domain classifier (Fisher's discriminant) as a test. It
    finds what moves a little in many columns, or against the way in which they go together.

    Args:
        now: rows along the axes, shape (rows, axes).
        known: whether the rows spread as the reference does; else their own covariance counts too.
    """
    n, m, size = len(now), then.rows, now.shape[1]
    if n < 10 * size or m < 10 * size:
        return 1.0, 0.0, np.zeros(size)
    gap = now.mean(axis=0) - then.mean
    noise = then.covariance / m
    noise = noise + (then.covariance if known else np.atleast_2d(np.cov(now.T))) / n
    dispersion = 1 + (then.dispersion - 1) * n / then.block
    statistic = float(gap @ np.linalg.pinv(noise, hermitian=True) @ gap) / dispersion
    few = m if known else n
    p = float(fdtrc(size, few - size, statistic * (few - size) / (size * (few - 1))))
    effect = float(np.sqrt(max(0.0, statistic - size) / (n * m / (n + m))))
    return p, effect, gap / np.sqrt(np.maximum(np.diag(noise), 1e-300) * dispersion)


def _together(windows: Windows, profile: Profile, mine: Array) -> list[Evidence]:
    """All numbers at once, all categories, and the scores of all classes."""
    tests, kinds = [], {"numbers": "covariate_shift", "categories": "covariate_shift"}
    kinds["scores"] = "prediction_shift"
    for what, moments in profile.moments.items():
        if what not in kinds or {name for name, _ in moments.axes} & set(windows.gone):
            continue
        codes = {name: windows.codes[name][mine] for name, _ in moments.axes}
        p, effect, z = hotelling(along(profile, moments.axes, codes), moments)
        names = [moments.axes[at][0] for at in np.argsort(-np.abs(z))]
        most = ", ".join([*dict.fromkeys(names)][:3])
        # Two normal distributions so far apart
        auc = ndtr(effect / np.sqrt(2))
        words = f"{what} together, most of all {most}: their rows are told from the reference's with AUC {auc:.3f}"
        tests.append(Evidence(kinds[what], f"({what})", p, effect, words=words, joint=what))
    return tests


def _coarsened(cells: Array, column: Column) -> Array:
    """Cells by code, added up to coarse levels; missing and odd ones stay in their own."""
    out = np.zeros((max(column.coarse) + 1, *cells.shape[1:]))
    np.add.at(out, np.asarray(column.coarse), cells)
    return out


def _labelled(windows: Windows, profile: Profile, rows: Array) -> list[Evidence]:
    """Tests of what only labels can tell."""
    y = windows.y[rows]
    outcomes = Outcomes.of(y, windows.score[rows], profile.facts["decision"])
    label_bins = profile.label_bins(y)
    totals = np.bincount(label_bins, minlength=len(profile.labels)).astype(np.float64)
    then = profile.seen[LABEL].astype(np.float64)
    p, effect = homogeneity(totals, then, ordered=not problem.CLASSES)
    words = _label_words(profile, then, totals, float(y.mean()))
    tests = [Evidence("label_shift", "label", p, effect, words=words)]
    moments = profile.moments["outcomes"]
    mine = {name: some[rows] for name, some in windows.codes.items()}
    slope = {}
    if not set(windows.gone) & {name for name, _ in moments.axes}:
        values = along(profile, moments.axes, mine) * outcomes.rest[:, None]
        p, effect, z = hotelling(values, moments, known=False)
        words = "outcomes lie otherwise along all numbers together than the scores claim"
        joint = Evidence("concept_drift", "(outcomes)", p, effect, words=words, joint="outcomes")
        tests.append(joint)
        slope = {name: z[at] for at, (name, level) in enumerate(moments.axes) if level is None}
    for name, codes in windows.codes.items():
        column = profile.columns[name]
        if column.kind == "time":
            continue
        sizes = len(column.names), len(profile.labels)
        now = _coarsened(table(codes[rows], label_bins, outcomes, sizes), column)
        known = _coarsened(profile.tables[name], column)
        p, effect = means(now, known)
        if name in slope:  # surer of what grows or falls along the column
            p = min(1.0, 2 * min(p, float(chdtrc(1, slope[name] ** 2))))
        worst = _worst(column, now, known)
        tests.append(Evidence("concept_drift", name, p, effect, words=worst))
        a, b = now[..., 0], known[..., 0]
        usual = _dispersion(column, a)
        tests.append(Evidence("x given y", name, *_by_label(a, b, usual)))
        tests.append(Evidence("x", name, *homogeneity(a.sum(axis=1), b.sum(axis=1), usual)))
    return tests


def _by_label(now: Array, known: Array, dispersion: float) -> tuple[float, float]:
    """Whether a column differs among rows of the same label: the smallest p, corrected; effect."""
    segments = np.repeat(np.arange(now.shape[1]), now.shape[0])
    statistic, freedom, small = chi_squares(now.T.ravel(), known.T.ravel(), segments)
    p, effect = p_value_and_effect(statistic / dispersion, freedom, small)
    shares = now.sum(axis=0) / max(1, now.sum())
    return min(1.0, len(p) * float(p.min())), float(np.sqrt(shares @ effect**2))


def _worst(column: Column, now: Array, known: Array) -> str:
    a, b = now.sum(axis=1), known.sum(axis=1)
    gap = [
        (x[2] - x[1]) / x[0] - (z[2] - z[1]) / z[0] if min(x[0], z[0]) >= FEWEST else 0.0
        for x, z in zip(a, b, strict=True)
    ]
    at = int(np.argmax(np.abs(gap)))
    what = column.name.strip("()") if column.kind == "score" else column.name
    level = column.levels[at] if at < len(column.levels) else "(missing)"
    return f"where {what} is {level}, outcomes lie {gap[at]:+.3g} from what was to be expected"


def decide_alarms(findings: Sequence[Finding], share: float, effect: float) -> None:
    """Mark the alarms among all tests of a report, at this share of false discoveries."""
    tests = [t for f in findings for t in f.tests if t.detector in KINDS]
    if not tests:
        return
    p = np.array([one.p / one.weight for one in tests])
    order = np.argsort(p)
    passed = p[order] <= share * np.arange(1, len(p) + 1) / len(p)
    bar = p[order][np.flatnonzero(passed)[-1]] if passed.any() else -1.0
    for one, weighted in zip(tests, p, strict=True):
        one.alarm = bool(weighted <= bar and one.effect >= effect)


def diagnose(
    finding: Finding,
    windows: Windows,
    profile: Profile,
    window: int,
    effect: float,
    same_model: bool | None,
) -> None:
    """Name what the alarms of a window have in common, and say why.

    A shift leaves traces in several detectors. The name is the simplest explanation that the
    window's numbers do not contradict: of P(x), P(x | y) and P(y | x), the one that moved.

    Args:
        same_model: whether the model gives the logged scores to the logged inputs; None: not tried.
    """
    f, profile = finding, profile.like(windows.mix[window])
    faulty = {one.what.split(": ")[0] for one in f.alarms("feature_drift")}
    moved = [
        one for one in f.alarms("covariate_shift") if not faulty & set(one.what.split(" with "))
    ]
    if faulty:  # it would be among those that were looked at together
        moved = [one for one in moved if one.joint in ("", "pairs")]
    score, label, concept = (
        f.alarms(one) for one in ("prediction_shift", "label_shift", "concept_drift")
    )
    if faulty:
        f.kinds["feature_drift"] = [one.words for one in f.alarms("feature_drift")]
    if f.alarms("label_schema_drift"):
        f.kinds["label_schema_drift"] = [one.words for one in f.alarms("label_schema_drift")]
        label = concept = []
    if same_model is False or (same_model is None and score and not moved and not faulty):
        how = (
            "the model does not give these scores to these inputs"
            if same_model is False
            else score[0].words
        )
        f.kinds["prediction_shift"] = [how]
        score = label = concept = []
    shares, fit = _label_fit(windows, profile, window, faulty)
    if shares is not None and problem.WIDE:
        f.label_shares = dict(zip(profile.facts["classes"], shares.tolist(), strict=True))
    elif shares is not None:
        f.label_mean = float(shares @ _label_means(profile))
    if faulty:  # whatever else moved may be its doing
        if moved:
            f.kinds["covariate_shift"] = [one.words for one in _largest(moved)]
        return
    if not (moved or score or label or concept):
        return
    labelled = any(one.detector == "x given y" for one in f.tests)
    if (
        labelled
        and (label or concept or moved or score)
        and "label_schema_drift" not in f.kinds
        and "prediction_shift" not in f.kinds
    ):
        kinds = _by_fit(f, effect)
    elif (score or moved) and "prediction_shift" not in f.kinds:
        kinds = ["label_shift"] if fit else ["covariate_shift"]
    else:
        kinds = ["covariate_shift"] if moved else []
    told = {"covariate_shift": moved or score, "label_shift": label, "concept_drift": concept}
    _tell(f, {kind: told[kind] for kind in kinds}, profile)


def _tell(finding: Finding, kinds: dict[str, list[Evidence]], profile: Profile) -> None:
    """Name the kinds of shift of a window, each with what shows it."""
    for kind, told in kinds.items():
        shown = finding.kinds[kind] = [one.words for one in _largest(told)]
        shares, mean = np.array([*finding.label_shares.values()]), finding.label_mean
        if kind == "label_shift" and not told and (len(shares) or mean is not None):
            words = _label_words(profile, profile.seen[LABEL], shares, mean or 0.0)
            shown.append(f"the scores look as if {words}")


def _largest(tests: list[Evidence]) -> list[Evidence]:
    return sorted(tests, key=lambda one: -one.effect)[:3]


def _by_fit(f: Finding, effect: float) -> list[str]:
    """Which of the three stayed the same: P(y | x), P(x | y) or P(x)."""
    names = {"covariate_shift": "concept_drift", "label_shift": "x given y", "concept_drift": "x"}
    left: dict[str, tuple[float, float]] = {}
    for kind, detector in names.items():
        tests = [one for one in f.tests if one.detector == detector and not one.joint]
        p = min(1.0, len(tests) * min(one.p for one in tests))
        # An effect counts only where it is no chance
        sure = [one.effect for one in tests if one.p * len(tests) < SURE]
        left[kind] = max(sure, default=0.0), -p
        f.explained[kind] = left[kind][0]
    best = min(left, key=lambda kind: left[kind])
    if left[best][0] > effect:
        return ["covariate_shift", "concept_drift"]
    return [best]


def _label_words(profile: Profile, then: Array, now: Array, mean: float) -> str:
    """How labels moved: the class whose share did most where each has a score, else their mean.

    Args:
        then, now: rows or shares by label bin.
    """
    if not problem.WIDE:
        return f"the mean label went from {profile.facts['label_mean']:.4g} to {mean:.4g}"
    before, after = then / max(then.sum(), 1e-300), now / max(now.sum(), 1e-300)
    at = int(np.argmax(np.abs(after - before)))
    name = profile.facts["classes"][at]
    return f"the share of {name} went from {before[at]:.1%} to {after[at]:.1%}"


def _label_means(profile: Profile) -> Array:
    sums = profile.tables[SCORE].sum(axis=0)
    return sums[:, 2] / np.maximum(sums[:, 0], 1)


def _label_fit(
    windows: Windows, profile: Profile, window: int, faulty: set[str]
) -> tuple[Array | None, bool]:
    """The label shares that explain the scores best, and whether they explain all columns."""
    counts = windows.counts[SCORE][window].astype(np.float64)
    if counts.sum() < FEWEST or faulty:
        return None, False
    column = profile.columns[SCORE]
    if problem.WIDE:
        score = windows.score[(windows.window == window) & windows.drawn]
        score = score[np.isfinite(score).all(axis=1)]
        if len(score) < FEWEST:
            return None, False
        shares = class_shares(profile, score)
    else:
        known = _coarsened(profile.tables[SCORE], column)[..., 0]
        shares, _ = label_shares(_coarsened(counts, column), known)
    p, effects = [], []
    for name, column in profile.columns.items():
        if column.kind == "time" or name not in windows.counts:
            continue
        now = _coarsened(windows.counts[name][window].astype(np.float64), column)
        fit = explained_by_labels(now, _coarsened(profile.tables[name], column)[..., 0], shares)
        p.append(fit[0])
        effects.append(fit[1])
    sure = [e for one, e in zip(p, effects, strict=True) if one * len(p) < SURE]
    return shares, max(sure, default=0.0) < 0.05


def as_dict(test: Evidence) -> dict[str, Any]:
    return {**asdict(test), "p": float(f"{test.p:.3g}"), "effect": round(test.effect, 4)}
