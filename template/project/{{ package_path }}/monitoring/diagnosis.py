"""Which kind of shift a window shows: all its tests, which of them are alarms, and a name with its reasons.

An alarm takes both: significance after the correction for all tests of the report, of which each
detector has a share of its own however many columns it looks at (Benjamini and Hochberg, 1995, with
the weights of Genovese, Roeder and Wasserman, 2006), and an effect of the size that the settings ask
for. Alarms are named by the rules of `RULES`, the simplest explanation first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import chdtrc, ndtr

from .. import problem
from ..problem import monitoring as problem_monitoring
from ..problem.monitoring import FLAGGED, OWN_SHIFTS
from . import drift
from .reference import LABEL, SCORE, Column, Outcomes, Profile, table
from .watched import GAPS, SECONDARY
from .windows import Windows

KINDS = (
    *("feature_drift", "label_schema_drift", "prediction_shift"),
    *("label_shift", "covariate_shift", "concept_drift", *OWN_SHIFTS),
)
# How much of the borne false alarms each detector has, and within it the tests of all columns together
BUDGET = {
    "covariate_shift": (5.0, {"numbers": 6, "categories": 1, "pairs": 1, "": 2}),
    "concept_drift": (3.0, {"outcomes": 1, "": 2}),
    "label_shift": (3.0, {"": 1}),
    "prediction_shift": (0.5, {"scores": 1, "": 1}),
    "feature_drift": (0.5, {"": 1}),  # faults are sure or none
    "label_schema_drift": (0.5, {"": 1}),
} | dict.fromkeys(OWN_SHIFTS, (0.5, {"": 1}))
# What is wrong with a value beyond the range of training
BEYOND = {
    "text": "of a length never seen",
    "image": "of a brightness never seen",
    "history": "of a course never seen",
}
SIGNIFICANCE = 0.01  # an explanation is dropped when it is this unlikely, after correction
MAX_EXTRA_MISSING = 0.01  # share of gaps beyond twice the reference's that no other rows explain
GAPPY_TENTH = 0.1  # of the reference's histories, those with the most gaps
STRANGE_ROWS, STRANGE_SHARE = 3, 0.002  # labels that no label can be, above which it is no slip

Array = np.ndarray


@dataclass
class Evidence:
    """One test of one window: what was tested, how sure and how large the difference is."""

    detector: str  # of `KINDS`, or "x" and "x given y": P(x) and P(x | y) of rows with a label
    what: str  # a column, "column: fault", "column with column", or "(those looked at together)"
    p: float
    effect: float  # in Cohen's w
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
    label_shares: dict[str, float] = field(default_factory=dict)  # likewise, of classes
    explained: dict[str, float] = field(default_factory=dict)  # kind -> effect that it leaves

    def alarms(self, detector: str) -> list[Evidence]:
        """The tests of a detector that are alarms."""
        return [test for test in self.tests if test.detector == detector and test.alarm]


def test_window(
    windows: Windows, profile: Profile, window: int, statistics: Mapping[str, str]
) -> Finding:
    """Every test of one window, uncorrected, against the reference's rows of the same phases.

    Args:
        window: its number in `windows`, from 0.
        statistics: column -> by which one it is compared, where that is told (monitoring.statistics).

    Returns:
        the tests with their weights; `decide_alarms` and `diagnose` fill in the rest.
    """
    finding, whole = Finding([]), profile
    profile = whole.reweighted(windows.mix[window])
    add = finding.tests.append
    for name in windows.gone:
        if profile.columns[name].source != name:
            continue  # its text is told of
        add(Evidence("feature_drift", name, 0.0, 1.0, words=f"{name} is not in the log"))
    for column in profile.columns.values():
        if column.kind == "time" or column.name in windows.gone:
            continue
        counts = windows.counts[column.name][window].astype(np.float64)
        reference = profile.counts[column.name].astype(np.float64)
        dispersion = _dispersion(column, counts)
        if column.kind == "score":
            p, effect = drift.homogeneity(counts[:-1], reference[:-1], dispersion, True)
            of_class = "".join(column.name.strip("()").partition(" of ")[1:])
            message = f"the scores{of_class} are distributed differently"
            add(Evidence("prediction_shift", column.name, p, effect, words=message))
            if FLAGGED:
                add(_flagged(column, counts[:-1], reference[:-1], profile.facts["decision"]))
            continue
        finding.tests += _faults(column, counts, reference, windows, window)
        compared, ordered = np.ones(len(counts), dtype=bool), column.kind != "category"
        compared[column.fault_codes.get("new", [])] = False
        now, then, statistic = counts[compared], reference[compared], statistics.get(column.name)
        if statistic is None:
            p, effect = drift.homogeneity(now, then, dispersion, ordered)
        else:
            present = len(now) - 1 if statistic == "ks" else len(now)  # a gap has no place
            p, effect = drift.STATISTICS[statistic](now[:present], then[:present], dispersion)
        message = f"{column.name}: {_largest_move(column, counts, reference)}"
        add(Evidence("covariate_shift", column.name, p, effect, words=message))
    in_window = windows.window == window
    drawn = in_window & windows.drawn
    finding.tests += _pairs(windows, profile, drawn) + _together(windows, profile, drawn)
    n = int(windows.health[window]["labels"])
    strange_rows = sum(windows.strange[window].values())
    # For a number the ends of the range are where some rows always fall
    expected = 0.0 if problem.CLASSES else 2 * n / profile.rows
    if strange_rows >= max(STRANGE_ROWS, STRANGE_SHARE * n, 3 * expected) and (
        problem.CLASSES or strange_rows > 0.05 * n
    ):
        commonest = [*windows.strange[window].items()][:3]
        examples = ", ".join(f"{label} ({rows:,} times)" for label, rows in commonest)
        message = f"labels that were never there: {examples}"
        add(Evidence("label_schema_drift", "label", 0.0, 1.0, words=message))
    labelled = in_window & ~np.isnan(windows.y)
    # Labels of rows that were chosen to be looked at say nothing of all rows
    if labelled.sum() >= 50 and problem.UNLABELLED is None:
        profile = whole.reweighted(windows.mix_labelled[window])
        finding.tests += _labelled(windows, profile, labelled)
    _weigh(finding.tests)
    return finding


def _flagged(column: Column, counts: Array, reference: Array, decision: Any) -> Evidence:
    """Whether more rows than usual reach the decision, or fewer: in Cohen's h (1988), since the shares are small.

    Args:
        counts, reference: rows by bin of the score, of which one begins where the decision does.
    """
    reached = column.codes(pd.Series([decision]))[0]
    shares, tails = [], []
    for rows in (counts, reference):
        flagged, total = float(rows[reached:].sum()), max(1.0, float(rows.sum()))
        shares.append(flagged / total)
        tails.append(np.array([flagged, total - flagged]))
    p, _ = drift.homogeneity(tails[0], tails[1], _dispersion(column, counts))
    now, then = shares
    effect = abs(2 * (np.arcsin(np.sqrt(now)) - np.arcsin(np.sqrt(then))))
    way = "more than people reckon with" if now > then else "too quiet"
    message = f"{FLAGGED}: {now:.2%} of the rows, usual are {then:.2%}: {way}"
    return Evidence("prediction_shift", f"({FLAGGED})", p, float(effect), words=message)


def _weigh(tests: list[Evidence]) -> None:
    """Share the borne false alarms among the detectors that had something to test."""
    tests = [test for test in tests if test.detector in KINDS]
    groups = Counter((test.detector, test.joint) for test in tests)
    total_share = sum(BUDGET[detector][0] for detector in {detector for detector, _ in groups})
    for test in tests:
        share, parts = BUDGET[test.detector]
        tested = sum(part for joint, part in parts.items() if (test.detector, joint) in groups)
        part = share / total_share * parts[test.joint] / tested
        test.weight = len(tests) * part / groups[test.detector, test.joint]


def _dispersion(column: Column, counts: Array) -> float:
    """The column's dispersion, for a window of this size."""
    return 1 + (column.dispersion - 1) * counts.sum() / column.block


def _largest_move(column: Column, counts: Array, reference: Array) -> str:
    """The bin whose share changed most, in words."""
    now, then = counts / max(1, counts.sum()), reference / max(1, reference.sum())
    code = int(np.argmax(np.abs(now - then)))
    return f"{column.names[code]} went from {then[code]:.1%} to {now[code]:.1%}"


def _faults(
    column: Column, counts: Array, reference: Array, windows: Windows, window: int
) -> list[Evidence]:
    """What speaks of a fault in a column: gaps, values never seen, out of range, unreadable."""
    n, m = int(counts.sum()), int(reference.sum())
    tests = []

    def add(fault: str, p: float, effect: float, message: str) -> None:
        name, sentence = f"{column.name}: {fault}", f"{column.name}: {message}"
        tests.append(Evidence("feature_drift", name, p, effect, words=sentence))

    for fault, codes in column.fault_codes.items():
        if fault == "new" and column.others is None:
            continue
        k, k_then = int(counts[codes].sum()), int(reference[codes].sum())
        share, share_then = k / max(1, n), k_then / max(1, m)
        if fault == "missing" and share_then / 2 <= share <= 2 * share_then + MAX_EXTRA_MISSING:
            continue  # as many as other rows may well have: a matter of which rows come
        if fault == "missing":
            now, then = np.array([k, n - k]), np.array([k_then, m - k_then])
            p, effect = drift.homogeneity(now, then, _dispersion(column, counts))
            # Too few to expect any: the chi-square would throw them together
            q, rare_effect = drift.excess_of_rare(k, n, k_then, m, 1.0)
            p, effect = min(1.0, 2 * min(p, q)), max(effect, rare_effect)
        else:
            p, effect = drift.excess_of_rare(k, n, k_then, m, 2.0 + column.singletons)
        out = BEYOND.get(column.kind, "out of range")
        phrase = {"new": "values never seen", "missing": "missing", "range": out}[fault]
        add(fault, p, effect, f"{phrase} in {share:.1%}, was {share_then:.1%}")
    has_range = column.kind not in {"category", *SECONDARY}
    if has_range and len(column.edges) > 3 and n >= drift.MIN_BIN_ROWS:
        peak = int(counts[1:-1].max() if len(counts) > 2 else 0)
        peak_share = float(reference[1:-1].max() / max(1, reference[:-1].sum()))
        if peak >= 0.99 * counts[:-1].sum() > 0 and peak_share < 0.9:
            add("constant", 0.0, 1.0, "nearly all values are in one place")
    if column.name in windows.broken and (k := int(windows.broken[column.name][window])):
        p, effect = drift.excess_of_rare(k, n, 0, m, 2.0)
        add("type", p, effect, f"{k / max(1, n):.1%} are no {column.kind}")
    if column.kind == GAPS:
        tests += _more_gaps(column, counts, reference)
    return tests


def _more_gaps(column: Column, counts: Array, reference: Array) -> list[Evidence]:
    """Whether histories lack more of their values than the reference's do: values that never arrived.

    Args:
        counts, reference: rows by bin of the share that is missing in a history.
    """
    n, m = max(1.0, counts[:-1].sum()), max(1.0, reference[:-1].sum())
    # Rows by what is missing in them or more: the upper tail that at most a tenth of the reference is in
    tail = np.cumsum(reference[-2::-1])[::-1] / m
    first = int(np.argmax(tail <= GAPPY_TENTH))
    share, share_then = float(counts[first:-1].sum() / n), float(tail[first])
    if first == 0 or share <= 2 * share_then + MAX_EXTRA_MISSING:
        return []
    p, effect = drift.homogeneity(
        counts[:-1], reference[:-1], _dispersion(column, counts), ordered=True
    )
    lacking = f"{column.edges[first - 1]:.1%} of their values"
    message = f"{column.source}: {share:.1%} lack more than {lacking}, were {share_then:.1%}"
    return [Evidence("feature_drift", f"{column.source}: gaps", p, effect, words=message)]


def _pairs(windows: Windows, profile: Profile, rows: Array) -> list[Evidence]:
    """One test for all pairs of columns: together they may move where none does by itself."""
    coarse = {
        name: np.asarray(profile.columns[name].coarse, dtype=np.int32)[codes[rows]]
        for name, codes in windows.codes.items()
        if profile.columns[name].kind not in ("score", "time")
    }
    pairs = [pair for pair in profile.pairs if pair[0] in coarse and pair[1] in coarse]
    if not pairs or not rows.any():
        return []
    tables = [profile.pairs[pair] for pair in pairs]
    counts = [
        np.bincount(coarse[a] * cells.shape[1] + coarse[b], minlength=cells.size)
        for (a, b), cells in zip(pairs, tables, strict=True)
    ]
    segments = np.repeat(np.arange(len(pairs)), [cells.size for cells in tables])
    now = np.concatenate(counts).astype(np.float64)
    then = np.concatenate([cells.ravel() for cells in tables]).astype(np.float64)
    statistic, freedom, n_eff = drift.chi_squares(now, then, segments)
    n = np.array([rows.sum()])
    dispersions = {name: _dispersion(profile.columns[name], n) for name in coarse}
    statistic /= [max(dispersions[a], dispersions[b]) for a, b in pairs]
    p_values, effects = drift.p_value_and_effect(statistic, freedom, n_eff)
    best = int(np.argmin(p_values))
    a, b = pairs[best]
    message = f"{a} and {b} go together in another way"
    p, effect = min(1.0, float(p_values[best]) * len(pairs)), float(effects[best])
    return [Evidence("covariate_shift", f"{a} with {b}", p, effect, words=message, joint="pairs")]


def _together(windows: Windows, profile: Profile, rows: Array) -> list[Evidence]:
    """All numbers at once, all categories, and the scores of all classes."""
    tests, detectors = [], {"numbers": "covariate_shift", "categories": "covariate_shift"}
    detectors["scores"] = "prediction_shift"
    for kind, moments in profile.moments.items():
        if kind not in detectors or {name for name, _ in moments.axes} & set(windows.gone):
            continue
        codes = {name: windows.codes[name][rows] for name, _ in moments.axes}
        p, effect, z = drift.hotelling(profile.axis_values(moments.axes, codes), moments)
        names = [moments.axes[axis][0] for axis in np.argsort(-np.abs(z))]
        strongest = ", ".join([*dict.fromkeys(names)][:3])
        # Two normal distributions so far apart
        auc = ndtr(effect / np.sqrt(2))
        message = f"{kind} together, most of all {strongest}: their rows are told from the reference's with AUC {auc:.3f}"
        tests.append(Evidence(detectors[kind], f"({kind})", p, effect, words=message, joint=kind))
    return tests


def _coarsened(cells: Array, column: Column) -> Array:
    """Cells by code, added up to coarse levels; missing and odd ones stay in their own."""
    levels = np.zeros((max(column.coarse) + 1, *cells.shape[1:]))
    np.add.at(levels, np.asarray(column.coarse), cells)
    return levels


def _labelled(windows: Windows, profile: Profile, rows: Array) -> list[Evidence]:
    """Tests of what only labels can tell."""
    unit = problem_monitoring.sizes(windows.truth[rows])
    y = windows.y[rows] / unit
    outcomes = Outcomes.of(y, windows.score[rows] / unit, profile.facts["decision"])
    label_bins = profile.label_bins(y)
    totals = np.bincount(label_bins, minlength=len(profile.labels)).astype(np.float64)
    then = profile.counts[LABEL].astype(np.float64)
    p, effect = drift.homogeneity(totals, then, ordered=not problem.CLASSES)
    message = _label_move(profile, then, totals, float(y.mean()))
    tests = [Evidence("label_shift", "label", p, effect, words=message)]
    for kind, (_, _, own_test, *_) in OWN_SHIFTS.items():
        if tested := own_test(windows.truth[rows], windows.score[rows], profile.facts):
            tests.append(Evidence(kind, kind, tested[0], tested[1], words=tested[2]))
    moments = profile.moments["outcomes"]
    row_codes = {name: column_codes[rows] for name, column_codes in windows.codes.items()}
    slope = {}
    if not set(windows.gone) & {name for name, _ in moments.axes}:
        values = profile.axis_values(moments.axes, row_codes) * outcomes.residual[:, None]
        p, effect, z = drift.hotelling(values, moments, same_spread=False)
        message = "outcomes lie otherwise along all numbers together than the scores claim"
        joint = Evidence("concept_drift", "(outcomes)", p, effect, words=message, joint="outcomes")
        tests.append(joint)
        slope = {name: z[axis] for axis, (name, level) in enumerate(moments.axes) if level is None}
    for name, codes in windows.codes.items():
        column = profile.columns[name]
        if column.kind == "time":
            continue
        sizes = len(column.names), len(profile.labels)
        now = _coarsened(table(codes[rows], label_bins, outcomes, sizes), column)
        reference = _coarsened(profile.tables[name], column)
        p, effect = drift.means(now, reference)
        if name in slope:  # surer of what grows or falls along the column
            p = min(1.0, 2 * min(p, float(chdtrc(1, slope[name] ** 2))))
        message = _largest_gap(column, now, reference)
        tests.append(Evidence("concept_drift", name, p, effect, words=message))
        a, b = now[..., 0], reference[..., 0]
        dispersion = _dispersion(column, a)
        tests.append(Evidence("x given y", name, *_by_label(a, b, dispersion)))
        p, effect = drift.homogeneity(a.sum(axis=1), b.sum(axis=1), dispersion)
        tests.append(Evidence("x", name, p, effect))
    return tests


def _by_label(now: Array, reference: Array, dispersion: float) -> tuple[float, float]:
    """Whether a column differs among rows of the same label: the smallest p, corrected; effect."""
    segments = np.repeat(np.arange(now.shape[1]), now.shape[0])
    statistic, freedom, n_eff = drift.chi_squares(now.T.ravel(), reference.T.ravel(), segments)
    p, effect = drift.p_value_and_effect(statistic / dispersion, freedom, n_eff)
    shares = now.sum(axis=0) / max(1, now.sum())
    return min(1.0, len(p) * float(p.min())), float(np.sqrt(shares @ effect**2))


def _largest_gap(column: Column, now: Array, reference: Array) -> str:
    """The coarse level whose outcomes lie furthest from the scores, in words."""
    a, b = now.sum(axis=1), reference.sum(axis=1)
    filled = np.minimum(a[:, 0], b[:, 0]) >= drift.MIN_BIN_ROWS
    gap = [
        (x[2] - x[1]) / x[0] - (z[2] - z[1]) / z[0] if is_filled else 0.0
        for x, z, is_filled in zip(a, b, filled, strict=True)
    ]
    index = int(np.argmax(np.abs(gap)))
    column_name = column.name.strip("()") if column.kind == "score" else column.name
    level = column.level_names[index] if index < len(column.level_names) else "(missing)"
    return f"where {column_name} is {level}, outcomes lie {gap[index]:+.3g} from what was to be expected"


def decide_alarms(findings: Sequence[Finding], share: float, effect: float) -> None:
    """Mark the alarms among all tests of a report: Benjamini and Hochberg (1995), p-values by weight.

    Args:
        share: of false discoveries that is borne among the alarms (monitoring.false_discovery).
        effect: the least that an alarm takes, in Cohen's w (monitoring.effect).
    """
    tests = [t for f in findings for t in f.tests if t.detector in KINDS]
    if not tests:
        return
    p = np.array([test.p / test.weight for test in tests])
    order = np.argsort(p)
    passed = p[order] <= share * np.arange(1, len(p) + 1) / len(p)
    threshold = p[order][np.flatnonzero(passed)[-1]] if passed.any() else -1.0
    for test, weighted in zip(tests, p, strict=True):
        test.alarm = bool(weighted <= threshold and test.effect >= effect)


class Traces(NamedTuple):
    """What speaks of a shift in a window, and which kinds were named."""

    alarms: dict[str, list[Evidence]]  # by detector, not explained yet; without faulty columns
    kinds: dict[str, list[str]]  # as of a finding
    same_model: bool | None  # gives the logged scores to the logged inputs; None: not tried
    labelled: bool
    fit: bool  # other shares of the labels would explain all columns


def _moved(traces: Traces) -> list[Evidence]:
    """The alarms of the inputs, or else of the scores, which inputs move."""
    return traces.alarms["covariate_shift"] or traces.alarms["prediction_shift"]


def _is_other_model(traces: Traces) -> bool:
    """Whether the model does not give the scores, or, untried, scores moved and no input did."""
    alarms, untried = traces.alarms, traces.same_model is None
    moved = alarms["covariate_shift"] or alarms["feature_drift"]
    return traces.same_model is False or bool(untried and alarms["prediction_shift"] and not moved)


def _rings(traces: Traces, kind: str) -> list[Evidence]:
    """The alarms of a detector."""
    return traces.alarms[kind]


# What follows from the inputs
DOWNSTREAM = ("prediction_shift", "label_shift", "concept_drift", *OWN_SHIFTS)
# In their order, above each its reason: the kind that is named ("": those that `_by_fit` finds), when,
# and the detectors whose alarms it explains, so that they are no traces for later rules
RULES: tuple[tuple[str, Callable[[Traces], object], tuple[str, ...]], ...] = (
    # A fault moves the scores and what labels tell of them, but not the columns beside it
    ("feature_drift", lambda t: t.alarms["feature_drift"], DOWNSTREAM),
    # Labels that never were have nothing to be compared with
    ("label_schema_drift", lambda t: t.alarms["label_schema_drift"], DOWNSTREAM[1:]),
    # What only this kind of problem has moves what labels tell
    *((kind, partial(_rings, kind=kind), DOWNSTREAM[1:]) for kind in OWN_SHIFTS),
    # Scores move with the inputs: where none moved, or the model gives others, another one answered
    ("prediction_shift", _is_other_model, DOWNSTREAM),
    # Labels show which of P(y | x), P(x | y) and P(x) stayed the same, where none of the above moved all
    ("", lambda t: t.labelled and not t.kinds and any(t.alarms.values()), KINDS),
    # Before labels: if other shares of them explain every column, they are one cause for all
    ("label_shift", lambda t: t.fit and "prediction_shift" not in t.kinds and _moved(t), KINDS),
    # Else the inputs moved, or what moves the scores alone
    ("covariate_shift", _moved, KINDS),
)


def diagnose(
    finding: Finding,
    windows: Windows,
    profile: Profile,
    window: int,
    effect: float,
    same_model: bool | None,
) -> None:
    """Name what the alarms of a window have in common, and say why, by the rules of `RULES`.

    A shift leaves traces in several detectors. The name is the simplest explanation that the
    window's numbers do not contradict: of P(x), P(x | y) and P(y | x), the one that moved.

    Args:
        finding: the window's tests after `decide_alarms`; gets the kinds and the estimated labels.
        effect: the least that an alarm takes (monitoring.effect).
        same_model: whether the model gives the logged scores to the logged inputs; None: not tried.
    """
    profile = profile.reweighted(windows.mix[window])
    alarms = {kind: finding.alarms(kind) for kind in KINDS}
    faulty = {test.what.split(": ")[0] for test in alarms["feature_drift"]}
    faulty |= {name for name, column in profile.columns.items() if column.source in faulty}
    alarms["covariate_shift"] = [
        test
        for test in alarms["covariate_shift"]
        if not faulty & set(test.what.split(" with "))
        # A faulty column would be among those that were looked at together
        and (not faulty or test.joint in ("", "pairs"))
    ]
    shares, fit = _label_fit(windows, profile, window, faulty)
    if shares is not None and problem.WIDE:
        finding.label_shares = dict(zip(profile.facts["classes"], shares.tolist(), strict=True))
    elif shares is not None:
        sums = profile.tables[SCORE].sum(axis=0)
        finding.label_mean = float(shares @ (sums[:, 2] / np.maximum(sums[:, 0], 1)))
    labelled = any(test.detector == "x given y" for test in finding.tests)
    traces = Traces(alarms, finding.kinds, same_model, labelled, fit)
    for named, holds, explains in RULES:
        if holds(traces):
            for kind in [named] if named else _by_fit(finding, effect):
                finding.kinds[kind] = _reasons(kind, traces, finding, profile)
            alarms |= {detector: [] for detector in explains}


def _reasons(kind: str, traces: Traces, finding: Finding, profile: Profile) -> list[str]:
    """What shows a kind of shift, in words."""
    tests = _moved(traces) if kind == "covariate_shift" else traces.alarms[kind]
    if kind == "prediction_shift" and traces.same_model is False:
        return ["the model does not give these scores to these inputs"]
    if kind == "prediction_shift":
        tests = tests[:1]
    elif kind != "label_schema_drift":
        tests = sorted(tests, key=lambda test: -test.effect)
        tests = tests if kind == "feature_drift" else tests[:3]
    shares, mean = np.array([*finding.label_shares.values()]), finding.label_mean
    if kind == "label_shift" and not tests and (len(shares) or mean is not None):
        move = _label_move(profile, profile.counts[LABEL], shares, mean or 0.0)
        return [f"the scores look as if {move}"]
    return [test.words for test in tests]


def _by_fit(f: Finding, effect: float) -> list[str]:
    """The kinds that labels show, by what stayed the same: P(y | x), P(x | y) or P(x); if none, two."""
    against = {"covariate_shift": "concept_drift", "label_shift": "x given y", "concept_drift": "x"}
    misfits: dict[str, tuple[float, float]] = {}
    for kind, detector in against.items():
        tests = [test for test in f.tests if test.detector == detector and not test.joint]
        p = min(1.0, len(tests) * min(test.p for test in tests))
        # An effect counts only where it is no chance
        effects = [test.effect for test in tests if test.p * len(tests) < SIGNIFICANCE]
        misfits[kind] = max(effects, default=0.0), -p
        f.explained[kind] = misfits[kind][0]
    best = min(misfits, key=lambda kind: misfits[kind])
    if misfits[best][0] > effect:
        return ["covariate_shift", "concept_drift"]
    return [best]


def _label_move(profile: Profile, then: Array, now: Array, mean: float) -> str:
    """How labels moved: the class whose share did most where each has a score, else their mean.

    Args:
        then, now: rows or shares by label bin.
    """
    if not problem.WIDE:
        of_level = ", in levels of its series" if problem.HISTORIES else ""
        return f"the mean label went from {profile.facts['label_mean']:.4g} to {mean:.4g}{of_level}"
    before, after = then / max(then.sum(), 1e-300), now / max(now.sum(), 1e-300)
    index = int(np.argmax(np.abs(after - before)))
    name = profile.facts["classes"][index]
    return f"the share of {name} went from {before[index]:.1%} to {after[index]:.1%}"


def _label_fit(
    windows: Windows, profile: Profile, window: int, faulty: set[str]
) -> tuple[Array | None, bool]:
    """The label shares that explain the scores best, and whether they explain all columns."""
    counts = windows.counts[SCORE][window].astype(np.float64)
    if counts.sum() < drift.MIN_BIN_ROWS or faulty or not problem.CLAIMS:
        return None, False
    column = profile.columns[SCORE]
    if problem.WIDE:
        score = windows.score[(windows.window == window) & windows.drawn]
        score = score[np.isfinite(score).all(axis=1)]
        if len(score) < drift.MIN_BIN_ROWS:
            return None, False
        shares = drift.class_shares(profile, score)
    else:
        reference = _coarsened(profile.tables[SCORE], column)[..., 0]
        shares, _ = drift.label_shares(_coarsened(counts, column), reference)
    fits = []
    for name, column in profile.columns.items():
        if column.kind == "time" or name not in windows.counts:
            continue
        now = _coarsened(windows.counts[name][window].astype(np.float64), column)
        then = _coarsened(profile.tables[name], column)[..., 0]
        fits.append(drift.explained_by_labels(now, then, shares))
    significant = [effect for p, effect in fits if p * len(fits) < SIGNIFICANCE]
    return shares, max(significant, default=0.0) < 0.05


def as_dict(test: Evidence) -> dict[str, Any]:
    """A test as the report has it: p with three digits, the effect with four decimals."""
    return {**asdict(test), "p": float(f"{test.p:.3g}"), "effect": round(test.effect, 4)}
