"""How well the model does: measured where labels are there, estimated where they are not yet.

The estimate knows how often each score came true in the reference, and how often each score is given
now. For a yes or no that is confidence-based performance estimation (Guo et al., 2017; Garg et al.,
2022), which follows the labels' shares where these are what moved (Saerens et al., 2002); for a number
the error that goes with each value of each column. It holds while P(y | x) does, but for these shares:
what labels say later beyond its interval is a change of concept.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import NormalDist
from typing import Any, TypedDict

import numpy as np

from .. import problem
from ..goals.gate import Figure, calibration, gain, interval, measure, resample, sample_rows
from ..problem.goals import METRICS, came, claim, decide, unit
from ..problem.monitoring import ERRORS, OF_FLAGGED, placed
from ..settings import Monitoring, Settings
from .drift import class_shares, homogeneities, label_shares, reference_shares, rescale_priors
from .reference import SCORE, Column, Outcomes, Profile, expected, phase_shares, recalibrated, table
from .windows import Windows

MIN_LABELS = 50  # labels, below which nothing is measured
RESAMPLES = 200
MIN_OF_DECISION = 10  # labels of rows with each decision, where these were chosen by it
MAX_RESAMPLED = 4000  # rows that are resampled one by one
TOP_PLACES = 5  # of a list, which people look at
SHARE_DRAWS = 20  # of the classes' shares, where these moved

Array = np.ndarray


class Interval(TypedDict):
    """A value of a metric, and the ends of its interval with the level of `goals.interval`."""

    value: float
    low: float
    high: float


class Performance(TypedDict):
    """Figures of one window; None where too few rows or labels are there."""

    metric: str
    estimated: Interval | None
    realised: Interval | None
    outside: bool | None  # whether `realised` lies beyond the interval of `estimated`
    calibration: dict[str, Any] | None  # the fields of a `goals.gate.Figure`
    # What was promised, less what the reference's own course takes off at such hours
    limits: dict[str, float | None]
    beyond: dict[str, bool | None]  # whether the figure surely breaks its limit
    labels: int


def performance(
    windows: Windows, profile: Profile, settings: Settings, window: int, label_shift: bool = False
) -> Performance:
    """Measure one window where it has labels, and estimate the metric whether it has or not.

    Args:
        window: index of the window in `windows`.
        label_shift: whether the window shows that the labels' shares moved; then the estimate follows.
    """
    metric, level = settings.goals.metric, settings.goals.interval.level
    rng = np.random.default_rng(settings.project.seed)
    mixed = profile.reweighted(windows.mix[window])
    reference_cells = mixed.tables[SCORE]
    counts = windows.counts[SCORE][window].astype(np.float64)

    def estimate(rows: float) -> Interval | None:
        if not problem.CLAIMS or problem.LISTED:
            # What a score does not claim it does not let expect, nor one of a row what an order gains
            return None
        if problem.WIDE:
            return _estimate_by_class(windows, mixed, metric, window, rows, level, rng, label_shift)
        if metric in ERRORS:
            return _estimate_error(windows, profile, metric, window, rows, level)
        if problem.HISTORIES:  # a figure of whole series is no mean of its scores
            return None
        label_counts = counts * rows / max(1.0, counts.sum())
        return _estimate(metric, profile, reference_cells, label_counts, level, rng, label_shift)

    estimated = estimate(counts.sum())
    labelled = (windows.window == window) & ~np.isnan(windows.y)
    realised = calibration_gap = None
    y, score = windows.y[labelled], windows.score[labelled]
    if len(y) >= MIN_LABELS and (not problem.CLASSES or np.ptp(y) > 0):
        realised = _realised(windows, profile, settings, labelled, reference_cells.shape, rng)
        figure = gap(y, score, profile, level)
        calibration_gap = None if figure is None else vars(figure)
    outside = None
    if estimated and realised:
        # The estimate's interval is that of as many labels as there are
        bounds = estimate(min(len(y), counts.sum()))
        outside = bool(bounds and not bounds["low"] <= realised["value"] <= bounds["high"])
    limits = _limits(profile, windows.mix_labelled[window], settings)
    more_is_worse = not METRICS[metric].higher_is_better
    return {
        "metric": metric,
        "estimated": estimated,
        "realised": realised,
        "outside": outside,
        "calibration": calibration_gap,
        "limits": limits,
        "beyond": {
            "performance": is_beyond(realised, limits["performance"], more_is_worse),
            "calibration": is_beyond(calibration_gap, limits["calibration"], more_is_worse=True),
        },
        "labels": len(y),
    }


def _realised(
    windows: Windows,
    profile: Profile,
    settings: Settings,
    labelled: Array,
    sizes: Sequence[int],
    rng: np.random.Generator,
) -> Interval | None:
    """The metric of one window from its labels, with its interval; None where those with one say nothing of the others.

    Args:
        labelled: which rows have a label, bool, shape (n,).
        sizes: of the reference's table of the score, whose first two are its bins and those of labels.
    """
    metric, level = settings.goals.metric, settings.goals.interval.level
    decision = profile.facts["decision"]
    y, score, truth = (values[labelled] for values in (windows.y, windows.score, windows.truth))
    decided = decide(score, decision)
    if problem.UNLABELLED is not None:
        in_window = windows.window == windows.window[labelled][0]
        all_decided = decide(windows.score[in_window & windows.drawn], decision)
        return _of_chosen((y, score, decided), all_decided, metric, level, rng)
    value = measure(metric, truth, score, decided)
    if problem.LISTED or problem.HISTORIES:
        weights = resample(len(y), RESAMPLES, settings.project.seed, unit(truth))
        drawn = measure(metric, truth, score, decided, weights)
    elif problem.WIDE:
        sample = sample_rows(len(y), MAX_RESAMPLED, settings.project.seed)
        weights = rng.poisson(len(y) / len(sample), (RESAMPLES, len(sample))).astype(np.float64)
        drawn = measure(metric, y[sample], score[sample], decided[sample], weights)
    else:
        bins = sizes[0], sizes[1]
        outcomes = Outcomes.of(y, score, decision)
        cells = table(windows.codes[SCORE][labelled], profile.label_bins(y), outcomes, bins)
        draws = rng.poisson(cells[..., 0], (RESAMPLES, *bins))
        drawn = _cell_metric(metric, profile, cells, draws)
    return _interval(metric, value, *interval(drawn - np.median(drawn) + value, level))


def is_beyond(
    figure: Mapping[str, Any] | None, limit: float | None, more_is_worse: bool
) -> bool | None:
    """Whether all of a figure's interval is on the wrong side of its limit; None without either.

    Args:
        figure: {"low", "high"}, in the unit of `limit`.
        more_is_worse: whether a value above the limit is the wrong one.
    """
    if figure is None or limit is None:
        return None
    return bool(figure["low"] > limit if more_is_worse else figure["high"] < limit)


def _limits(profile: Profile, mix: Array, settings: Settings) -> dict[str, float | None]:
    """What was promised over all hours, in the hours that a window's labels are of."""
    targets, metric = settings.goals.targets, settings.goals.metric
    limits = {"performance": targets.metric, "calibration": targets.calibration_error}
    if profile.course.phases < 2 or not mix.sum() or problem.LISTED or problem.HISTORIES:
        return limits
    phased = profile.phased["tables"][SCORE][..., 0].sum(axis=(1, 2))
    if problem.WIDE:
        by_phase = np.asarray(profile.facts["claimed"][metric]["phases"])
        whole, now = (phase_shares(m, phased)[0] @ by_phase for m in (np.append(phased, 0.0), mix))
    else:
        tables = [profile.tables[SCORE], profile.reweighted(mix).tables[SCORE]]
        whole, now = (_cell_metric(metric, profile, t, t[..., 0][None])[0] for t in tables)
    lost = max(0.0, float(gain(metric, whole, now)))
    if targets.metric is not None:
        limits["performance"] = targets.metric - gain(metric, lost, 0.0)
    if targets.calibration_error is not None:
        gaps = profile.facts["calibration_low"]
        share, _ = phase_shares(mix, phased)
        excess = float(share @ np.asarray(gaps["phases"])) - gaps["whole"]
        limits["calibration"] = targets.calibration_error + max(0.0, excess)
    return limits


def gap(y: Array, score: Array, profile: Profile, level: float) -> Figure | None:
    """How far scores and outcomes are apart on average, as the gate measures the calibration error; None where scores
    claim no outcome.

    Args:
        y: labels, shape (n,); score: of the same rows, shape (n,) or (n, classes).
        profile: says how scores are decided; its spread is the unit where labels are numbers.
        level: of the interval.
    """
    if not problem.CLAIMS:
        return None
    unit = None if profile.quantile is not None else profile.facts["spread"]
    decided = decide(score, profile.facts["decision"])
    return calibration(came(y, decided), claim(score, decided), level, profile.quantile, unit)


def _of_chosen(
    answers: tuple[Array, Array, Array],
    all_decided: Array,
    metric: str,
    level: float,
    rng: np.random.Generator,
) -> Interval | None:
    """A metric of all rows from labels of rows that were chosen to be looked at.

    People look at what is flagged, and at few other rows. So each label stands for the rows of its decision that
    have none: it is weighted by how many of them there are for each label (post-stratification; Holt and Smith,
    1979). None where one of the decisions has next to no labels: then nobody knows.

    Args:
        answers: label, score and decision of the rows with a label, each of shape (labels,).
        all_decided: decisions of all rows, shape (n,).
    """
    decided, weights = answers[2], np.zeros(len(answers[2]))
    for option in (0.0, 1.0):
        labels = decided == option
        if labels.sum() < MIN_OF_DECISION and not (metric in OF_FLAGGED and option == 0.0):
            return None
        weights[labels] = (all_decided == option).mean() / max(float(labels.mean()), 1e-9)
    value = float(measure(metric, *answers, weights[None])[0])
    drawn = measure(metric, *answers, weights * rng.poisson(1.0, (RESAMPLES, len(weights))))
    return _interval(metric, value, *interval(drawn, level))


def _gap_value(y: Array, score: Array, profile: Profile, level: float) -> float | None:
    figure = gap(y, score, profile, level)
    return None if figure is None else figure.value


def _estimate_error(
    windows: Windows, profile: Profile, metric: str, window: int, rows: float, level: float
) -> Interval | None:
    """A number's mean error: the reference's, moved by what its columns' values let expect now.

    Direct loss estimation (NannyML, 2022).

    Args:
        rows: how many labels are to come.
    """
    error = ERRORS[metric]
    reference = profile.facts.get("errors", {}).get(error)
    if rows < MIN_LABELS or reference is None or error not in windows.errors:
        return None
    mean = float(windows.errors[error][window])
    m, shift = profile.rows, 0.0
    for name in reference["columns"]:
        then = profile.tables[name][..., 0].sum(axis=1)
        now = windows.counts[name][window] / max(1, windows.counts[name][window].sum())
        then = then / then.sum()
        shift += float(((now - then)[then > 0] ** 2 / then[then > 0]).sum())
    # Errors vary the more the larger they are; and the less the reference has of such rows
    noise = reference["noise"] * (mean / reference["mean"] if reference["mean"] else 1.0)
    reach = NormalDist().inv_cdf((1 + level) / 2) * noise * math.sqrt((1 + shift) / m + 1 / rows)
    ends = np.array([mean, mean - reach, mean + reach])
    value, low, high = np.sqrt(np.maximum(ends, 0.0)) if metric == "rmse" else ends
    return _interval(metric, value, low, high)


def _estimate_by_class(
    windows: Windows,
    profile: Profile,
    metric: str,
    window: int,
    rows: float,
    level: float,
    rng: np.random.Generator,
    label_shift: bool,
) -> Interval | None:
    """A metric that the scores of a window's rows let expect, where each class has a score.

    Args:
        profile: the reference of such hours; rows: how many labels are to come.
    """
    claimed = profile.facts["claimed"][metric]
    score = windows.score[(windows.window == window) & windows.drawn]
    score = score[np.isfinite(score).all(axis=1)]
    if rows < MIN_LABELS or len(score) < MIN_LABELS:
        return None
    score = score[sample_rows(len(score), MAX_RESAMPLED, 0)]
    decided = decide(score, profile.facts["decision"])
    weights = rng.poisson(rows / len(score), (RESAMPLES, len(score))).astype(np.float64)
    chance = chances = right = recalibrated(profile.facts, score)
    if label_shift:  # the classes are so much more common than they were, whatever the scores
        base_shares = np.maximum(reference_shares(profile), 1e-6)
        chance = rescale_priors(right, class_shares(profile, score) / base_shares)
        shares = [class_shares(profile, score, draw) for draw in weights[:SHARE_DRAWS]]
        shifted = [rescale_priors(right, share / base_shares) for share in shares]
        chances = np.stack([shifted[turn % SHARE_DRAWS] for turn in range(RESAMPLES)])
    value = expected(metric, score, decided, chance)[0]
    resampled = expected(metric, score, decided, chances, weights, rng)
    # What scores claim beyond the truth, they claimed of the reference as well, which is a sample too
    resampled = resampled + claimed["noise"] * rng.standard_normal(RESAMPLES)
    offset = profile.facts["metrics"][metric] - claimed["value"]
    return _interval(metric, value + offset, *interval(resampled + offset, level))


def _estimate(
    metric: str,
    profile: Profile,
    cells: Array,
    counts: Array,
    level: float,
    rng: np.random.Generator,
    label_shift: bool,
) -> Interval | None:
    """A metric that the scores of a window's rows let expect, where a row has one score.

    Confidence-based (Guo et al., 2017; Garg et al., 2022): each score comes true as often as it did
    in the reference, but for the labels' shares where these moved (Saerens et al., 2002).

    Args:
        cells: of the reference of such hours, as `_cell_metric` takes them.
        counts: labels to come by score bin, shape (bins,).
    """
    if counts.sum() < MIN_LABELS:
        return None
    rows = cells[..., 0]
    # Bins that the reference never saw borrow its overall shares
    prior = rows.sum(axis=0) / rows.sum()
    # The reference is a sample too, and so are the labels to come
    drawn = rng.gamma(rows + prior / 2, size=(RESAMPLES, *rows.shape))
    posterior = rows + prior / 2
    if label_shift:  # a label is so much likelier than it was, whatever the score
        posterior = posterior * _label_ratios(profile, rows, counts[None])
        drawn = drawn * _label_ratios(profile, rows, rng.poisson(counts, (RESAMPLES, len(counts))))
    shares = drawn / drawn.sum(axis=2, keepdims=True)
    posterior = posterior / posterior.sum(axis=-1, keepdims=True)
    weights = rng.poisson(counts[:, None] * shares).astype(np.float64)
    mean_weights = (counts[:, None] * posterior).reshape(1, *rows.shape)
    value = _cell_metric(metric, profile, cells, mean_weights)[0]
    resampled = _cell_metric(metric, profile, cells, weights)
    # What the cells' means lose, they lose in the reference as well
    tested = profile.tables[SCORE]
    whole = _cell_metric(metric, profile, tested, tested[..., 0][None])[0]
    offset = profile.facts["metrics"][metric] - whole
    return _interval(metric, value + offset, *interval(resampled + offset, level))


def _label_ratios(profile: Profile, rows: Array, counts: Array) -> Array:
    """By which factor each label is more common than in the reference, shape (draws, 1, labels).

    Args:
        rows: of the reference by score bin and label bin; counts: of the window, shape (draws, bins).
    """
    coarse = np.asarray(profile.columns[SCORE].coarse)
    coarse_rows = np.zeros((coarse.max() + 1, rows.shape[1]))
    np.add.at(coarse_rows, coarse, rows)
    then = coarse_rows.sum(axis=0) / coarse_rows.sum()
    now = [label_shares(np.bincount(coarse, draw), coarse_rows)[0] for draw in counts]
    return (np.maximum(now, 1e-6) / np.maximum(then, 1e-6))[:, None, :]


def _cell_metric(metric: str, profile: Profile, cells: Array, weights: Array) -> Array:
    """A metric of rows that are known as cells: means of score and label, and how often each counts.

    Args:
        cells: by score bin and label bin, shape (bins, labels, 5).
        weights: shape (resamples, bins, labels).
    """
    rows = cells[..., 0]
    filled = rows > 0
    count = np.where(filled, rows, 1)  # not whole numbers where phases were mixed
    by_bin = cells.sum(axis=1)
    mean_score = (by_bin[:, 1] / np.where(by_bin[:, 0] > 0, by_bin[:, 0], 1))[:, None]
    score = np.where(filled, cells[..., 1] / count, mean_score)
    by_label = cells.sum(axis=0)
    mean_label = by_label[:, 2] / np.where(by_label[:, 0] > 0, by_label[:, 0], 1)
    y = np.where(filled, cells[..., 2] / count, mean_label[None, :])
    if problem.CLASSES:
        y = np.broadcast_to(profile.labels, rows.shape)
    used = (by_bin[:, 0] > 0)[:, None] & np.ones_like(filled)
    decided = decide(score, profile.facts["decision"])
    flat = used.ravel()
    values = measure(
        metric, y.ravel()[flat], score.ravel()[flat], decided.ravel()[flat],
        weights.reshape(len(weights), -1)[:, flat],
    )  # fmt: skip
    return np.asarray(values, dtype=np.float64)


def _interval(metric: str, value: float, low: float, high: float) -> Interval:
    """A figure and the ends of its interval, none of which lies beyond what the metric can be."""
    value, low, high = np.clip((value, low, high), *problem.TARGET_RANGE[metric]).tolist()
    return {"value": value, "low": low, "high": high}


def popularity(windows: Windows, profile: Profile, settings: Settings) -> dict[str, Any] | None:
    """How well common and rare objects are served, and whether the common ones take over.

    Returns:
        {"column", "fifths", "top_share", "top_usual"}: by fifth of the training rows, the commonest
        objects first, its share of the rows then and now, mean decision, metric and calibration gap;
        by window the share of its rows that its commonest tenth of the objects has, and the share
        that such hours let expect. None where no column was named, or it is no input.
    """
    name = settings.monitoring.popularity
    column = profile.columns.get(name or "")
    if column is None or not column.popularity or name not in windows.codes:
        return None
    fifths, level = np.asarray(column.popularity), settings.goals.interval.level
    reference_rows = np.zeros(5)
    np.add.at(reference_rows, fifths, profile.tables[name][..., 0].sum(axis=1))
    counts = _looked_at(windows, name) if problem.LISTED else windows.counts[name]
    now = np.zeros((len(counts), 5))
    np.add.at(now.T, fifths, counts.T)
    code = fifths[windows.codes[name]]
    decided = decide(windows.score, profile.facts["decision"])
    rows = []
    for fifth in range(5):
        in_fifth = code == fifth
        labelled = in_fifth & ~np.isnan(windows.y)
        y, score = windows.y[labelled], windows.score[labelled]
        truth, measurable = windows.truth[labelled], len(y) >= MIN_LABELS
        rows.append(
            {
                "fifth": fifth + 1,
                "share_then": float(reference_rows[fifth] / reference_rows.sum()),
                "share_now": float(now[:, fifth].sum() / max(1, now.sum())),
                "mean_decision": float(decided[in_fifth].mean()) if in_fifth.any() else None,
                "labels": len(y),
                "metric": measure(settings.goals.metric, truth, score, decided[labelled])
                if measurable and np.ptp(y) > 0
                else None,
                "calibration_gap": _gap_value(y, score, profile, level) if measurable else None,
            }
        )
    expected_counts = [profile.reweighted(mix).counts[column.name] for mix in windows.mix]
    expected_shares = [_top_share(c, column) for c in expected_counts]
    shares = [_top_share(c, column) for c in counts]
    return {"column": name, "fifths": rows, "top_share": shares, "top_usual": expected_shares}


def _looked_at(windows: Windows, name: str) -> Array:
    """Drawn rows among the first places of a list by window and code of a column, shape (windows, codes)."""
    drawn, shape = windows.drawn, windows.counts[name].shape
    top = placed(windows.truth[drawn], np.ones(drawn.sum())) <= TOP_PLACES
    cell = np.ravel_multi_index(
        (windows.window[drawn][top], windows.codes[name][drawn][top]), shape
    )
    return np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)


def _top_share(counts: Array, column: Column) -> float:
    """The share of the rows that the commonest tenth of the objects of these very rows has."""
    objects = np.sort(counts[: len(column.categories)])[::-1]
    return float(objects[: max(1, len(objects) // 10)].sum() / max(1, counts.sum()))


def slices(
    windows: Windows, profile: Profile, settings: Settings, moved: Collection[str] = ()
) -> list[dict[str, Any]]:
    """The named slices over all labelled rows, worst first, and what moved in their newest rows.

    Args:
        moved: columns that moved in all rows, which a slice's alarm says nothing of.

    Returns:
        by slice: rows, labels, metric, calibration gap; score_p and score_effect; `moved`, the input
        that moved most beyond what all its tests here make likely, with `moved_effect`; `alone`, what moved
        in the slice alone by the least effect or more, with its p-value for all columns of the slice.
    """
    labelled = ~np.isnan(windows.y)
    decided = decide(windows.score, profile.facts["decision"])
    last = max((w for w in range(len(windows.health)) if windows.health[w]["rows"]), default=0)
    recent = (windows.window == last) & windows.drawn
    metric, entries, monitoring = settings.goals.metric, [], settings.monitoring
    min_rows, level = settings.modelling.evaluation.min_slice_rows, settings.goals.interval.level
    profile = profile.reweighted(windows.mix[last])
    for name in settings.modelling.evaluation.slices:
        column = profile.columns.get(name)
        if column is None or column.kind != "category" or name not in windows.codes:
            continue
        for code, value in enumerate(column.categories):
            in_slice = windows.codes[name] == code
            rows = in_slice & labelled
            entry: dict[str, Any] = {"slice": f"{name} = {value}", "rows": int(in_slice.sum())}
            y, score = windows.y[rows], windows.score[rows]
            measurable = len(y) >= min_rows and np.ptp(y) > 0
            entry["labels"] = len(y)
            answers = windows.truth[rows], score, decided[rows]
            entry["metric"] = measure(metric, *answers) if measurable else None
            entry["calibration_gap"] = _gap_value(y, score, profile, level) if measurable else None
            newest, coarse = in_slice & recent, column.coarse[code]
            single = column.coarse.count(coarse) == 1  # else the reference has it with others
            if single and newest.sum() >= min_rows:
                entry |= _slice_shift(windows, profile, name, coarse, newest, monitoring, moved)
            entries.append(entry)
    measured = [entry for entry in entries if entry["metric"] is not None]
    measured.sort(key=lambda entry: gain(metric, entry["metric"], 0.0))
    return measured + [entry for entry in entries if entry["metric"] is None]


def _slice_shift(
    windows: Windows,
    profile: Profile,
    name: str,
    code: int,
    rows: Array,
    monitoring: Monitoring,
    moved: Collection[str],
) -> dict[str, Any]:
    """How far the scores of a slice moved, and which of its inputs moved most.

    Args:
        name, code: the slice's column, and its coarse level there.
        rows: the newest rows of the slice, as a mask of the windows' rows.
    """
    partners, now, then = [], [], []
    for (a, b), cells in profile.pairs.items():
        partner = b if a == name else a
        if name in (a, b) and partner in windows.codes:
            codes = np.asarray(profile.columns[partner].coarse)[windows.codes[partner][rows]]
            then.append(cells[code] if a == name else cells[:, code])
            now.append(np.bincount(codes, minlength=len(then[-1])).astype(np.float64))
            partners.append(partner)
    columns = [profile.columns[partner] for partner in partners]
    segments = np.repeat(np.arange(len(partners)), [len(row) for row in now])
    factors = np.array([1 + (c.dispersion - 1) * rows.sum() / c.block for c in columns])
    ordered = np.array([c.kind != "category" for c in columns])
    p, effect = homogeneities(np.concatenate(now), np.concatenate(then), segments, factors, ordered)
    score = partners.index(SCORE)
    shift: dict[str, Any] = {"score_p": float(p[score]), "score_effect": float(effect[score])}
    alone = [i for i, partner in enumerate(partners) if partner not in moved]
    if alone := [i for i in alone if effect[i] >= monitoring.effect]:
        first = min(alone, key=lambda i: p[i])
        sure = min(1.0, float(p[first]) * len(p))
        shift["alone"] = {"column": partners[first], "p": sure, "effect": float(effect[first])}
    effect[(p * (len(p) - 1) > monitoring.false_discovery) | (np.arange(len(p)) == score)] = 0.0
    strongest = int(np.argmax(effect))
    if effect[strongest] >= monitoring.effect:
        shift |= {"moved": partners[strongest], "moved_effect": float(effect[strongest])}
    return shift
