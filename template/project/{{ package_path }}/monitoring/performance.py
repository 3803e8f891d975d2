"""How well the model does: measured where labels are there, estimated where they are not yet.

The estimate knows how often each score came true in the reference, and how often each score is given
now. For a yes or no that is confidence-based performance estimation (Guo et al., 2017; Garg et al.,
2022), which follows the labels' shares where these are what moved (Saerens et al., 2002); for a number
the error that goes with each value of each column. It holds while P(y | x) does, but for these shares:
what labels say later beyond its interval is a change of concept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np

from .. import problem
from ..goals.gate import Figure, calibration, gain, interval, measure, sample_rows
from ..problem.goals import METRICS, came, claim, decide
from ..problem.monitoring import ERRORS
from ..settings import Monitoring, Settings
from .drift import as_shared, class_shares, homogeneities, label_shares, usual_shares
from .reference import SCORE, Column, Outcomes, Profile, expected, made_right, mixed, table
from .windows import Windows

FEWEST = 50  # labels, below which nothing is measured
RESAMPLES = 200
MOST_DRAWN = 4000  # rows that are resampled one by one
SHARE_DRAWS = 20  # of the classes' shares, where these moved

Array = np.ndarray


def performance(
    windows: Windows,
    profile: Profile,
    settings: Settings,
    window: int,
    label_shift: bool = False,
) -> dict[str, Any]:
    """Figures of one window.

    Args:
        label_shift: whether the window shows that the labels' shares moved; then the estimate follows.

    Returns:
        metric, estimated and realised, each {"value", "low", "high"} or None; `outside`: whether
        what was realised lies beyond the estimate's interval; `calibration`, a figure too; `limits`:
        what was promised, less what the reference's own course takes off at such hours; `beyond`:
        whether the figure surely breaks its limit, None where nothing can be said; labels.
    """
    metric, level = settings.goals.metric, settings.goals.interval.level
    rng = np.random.default_rng(settings.project.seed)
    like = profile.like(windows.mix[window])
    known = like.tables[SCORE]
    counts = windows.counts[SCORE][window].astype(np.float64)

    def estimate(rows: float) -> dict[str, float] | None:
        if problem.WIDE:
            return _estimate_by_class(windows, like, metric, window, rows, level, rng, label_shift)
        if metric in ERRORS:
            return _error(windows, profile, metric, window, rows, level)
        some = counts * rows / max(1.0, counts.sum())
        return _estimate(metric, profile, known, some, level, rng, label_shift)

    estimated = estimate(counts.sum())
    mine = (windows.window == window) & ~np.isnan(windows.y)
    realised = calibrated = None
    y, score = windows.y[mine], windows.score[mine]
    if len(y) >= FEWEST and (not problem.CLASSES or np.ptp(y) > 0):
        decided = decide(score, profile.facts["decision"])
        value = measure(metric, y, score, decided)
        if problem.WIDE:
            part = sample_rows(len(y), MOST_DRAWN, settings.project.seed)
            weights = rng.poisson(len(y) / len(part), (RESAMPLES, len(part))).astype(np.float64)
            drawn = measure(metric, y[part], score[part], decided[part], weights)
        else:
            sizes = known.shape[0], known.shape[1]
            outcomes = Outcomes.of(y, score, profile.facts["decision"])
            cells = table(windows.codes[SCORE][mine], profile.label_bins(y), outcomes, sizes)
            drawn = _cells(metric, profile, cells, rng.poisson(cells[..., 0], (RESAMPLES, *sizes)))
        realised = _interval(value, drawn - np.median(drawn) + value, level)
        calibrated = vars(gap(y, score, profile, level))
    outside = None
    if estimated and realised:
        # The estimate's interval is that of as many labels as there are
        few = estimate(min(len(y), counts.sum()))
        outside = bool(few and not few["low"] <= realised["value"] <= few["high"])
    limits = _limits(profile, windows.mix_labelled[window], settings)
    return {
        "metric": metric,
        "estimated": estimated,
        "realised": realised,
        "outside": outside,
        "calibration": calibrated,
        "limits": limits,
        "beyond": {
            "performance": is_beyond(
                realised, limits["performance"], not METRICS[metric].higher_is_better
            ),
            "calibration": is_beyond(calibrated, limits["calibration"], more_is_worse=True),
        },
        "labels": len(y),
    }


def is_beyond(
    figure: Mapping[str, float] | None, limit: float | None, more_is_worse: bool
) -> bool | None:
    """Whether all of a figure's interval is on the wrong side of its limit; None without either."""
    if figure is None or limit is None:
        return None
    return bool(figure["low"] > limit if more_is_worse else figure["high"] < limit)


def _limits(profile: Profile, mix: Array, settings: Settings) -> dict[str, float | None]:
    """What was promised over all hours, in the hours that a window's labels are of."""
    targets, metric = settings.goals.targets, settings.goals.metric
    limits = {"performance": targets.metric, "calibration": targets.calibration_error}
    if profile.course.phases < 2 or not mix.sum():
        return limits
    phased = profile.phased["tables"][SCORE][..., 0].sum(axis=(1, 2))
    if problem.WIDE:
        by_phase = np.asarray(profile.facts["claimed"][metric]["phases"])
        whole, here = (mixed(one, phased)[0] @ by_phase for one in (np.append(phased, 0.0), mix))
    else:
        rows = [one.tables[SCORE] for one in (profile, profile.like(mix))]
        whole, here = (_cells(metric, profile, one, one[..., 0][None])[0] for one in rows)
    lost = max(0.0, float(gain(metric, whole, here)))
    if targets.metric is not None:
        limits["performance"] = targets.metric - gain(metric, lost, 0.0)
    if targets.calibration_error is not None:
        usual = profile.facts["calibration_low"]
        share, _ = mixed(mix, phased)
        more = float(share @ np.asarray(usual["phases"])) - usual["whole"]
        limits["calibration"] = targets.calibration_error + max(0.0, more)
    return limits


def gap(y: Array, score: Array, profile: Profile, level: float) -> Figure:
    """How far scores and outcomes are apart, as the gate measures it; a number's in the unit of the
    reference."""
    unit = None if profile.quantile is not None else profile.facts["spread"]
    decided = decide(score, profile.facts["decision"])
    return calibration(came(y, decided), claim(score, decided), level, profile.quantile, unit)


def _error(
    windows: Windows, profile: Profile, metric: str, window: int, rows: float, level: float
) -> dict[str, float] | None:
    """A number's mean error: the reference's, moved by what its columns' values let expect now.

    Direct loss estimation (NannyML, 2022).

    Args:
        rows: how many labels are to come.
    """
    what = ERRORS[metric]
    told = profile.facts.get("errors", {}).get(what)
    if rows < FEWEST or told is None or what not in windows.errors:
        return None
    mean = float(windows.errors[what][window])
    m, apart = profile.rows, 0.0
    for name in told["columns"]:
        then = profile.tables[name][..., 0].sum(axis=1)
        now = windows.counts[name][window] / max(1, windows.counts[name][window].sum())
        then = then / then.sum()
        apart += float(((now - then)[then > 0] ** 2 / then[then > 0]).sum())
    # Errors vary the more the larger they are; and the less the reference has of such rows
    noise = told["noise"] * (mean / told["mean"] if told["mean"] else 1.0)
    reach = NormalDist().inv_cdf((1 + level) / 2) * noise * math.sqrt((1 + apart) / m + 1 / rows)
    ends = np.array([mean, mean - reach, mean + reach])
    value, low, high = np.sqrt(np.maximum(ends, 0.0)) if metric == "rmse" else ends
    return {"value": float(value), "low": float(low), "high": float(high)}


def _estimate_by_class(
    windows: Windows,
    profile: Profile,
    metric: str,
    window: int,
    rows: float,
    level: float,
    rng: np.random.Generator,
    label_shift: bool,
) -> dict[str, float] | None:
    """A metric that the scores of a window's rows let expect, where each class has a score.

    Args:
        profile: the reference of such hours; rows: how many labels are to come.
    """
    told = profile.facts["claimed"][metric]
    score = windows.score[(windows.window == window) & windows.drawn]
    score = score[np.isfinite(score).all(axis=1)]
    if rows < FEWEST or len(score) < FEWEST:
        return None
    score = score[sample_rows(len(score), MOST_DRAWN, 0)]
    decided = decide(score, profile.facts["decision"])
    weights = rng.poisson(rows / len(score), (RESAMPLES, len(score))).astype(np.float64)
    chance = chances = right = made_right(profile.facts, score)
    if label_shift:  # the classes are so much more common than they were, whatever the scores
        usual = np.maximum(usual_shares(profile), 1e-6)
        chance = as_shared(right, class_shares(profile, score) / usual)
        shares = [class_shares(profile, score, one) for one in weights[:SHARE_DRAWS]]
        each = [as_shared(right, one / usual) for one in shares]
        chances = np.stack([each[turn % SHARE_DRAWS] for turn in range(RESAMPLES)])
    value = expected(metric, score, decided, chance)[0]
    found = expected(metric, score, decided, chances, weights, rng)
    # What scores claim beyond the truth, they claimed of the reference as well, which is a sample too
    found = found + told["noise"] * rng.standard_normal(RESAMPLES)
    lost = profile.facts["metrics"][metric] - told["value"]
    return _interval(value + lost, found + lost, level)


def _estimate(
    metric: str,
    profile: Profile,
    known: Array,
    counts: Array,
    level: float,
    rng: np.random.Generator,
    label_shift: bool,
) -> dict[str, float] | None:
    if counts.sum() < FEWEST:
        return None
    rows = known[..., 0]
    # Bins that the reference never saw borrow its overall shares
    prior = rows.sum(axis=0) / rows.sum()
    # The reference is a sample too, and so are the labels to come
    drawn = rng.gamma(rows + prior / 2, size=(RESAMPLES, *rows.shape))
    usual = rows + prior / 2
    if label_shift:  # a label is so much likelier than it was, whatever the score
        usual = usual * _likelier(profile, rows, counts[None])
        drawn = drawn * _likelier(profile, rows, rng.poisson(counts, (RESAMPLES, len(counts))))
    shares = drawn / drawn.sum(axis=2, keepdims=True)
    usual = usual / usual.sum(axis=-1, keepdims=True)
    weights = rng.poisson(counts[:, None] * shares).astype(np.float64)
    value = _cells(metric, profile, known, (counts[:, None] * usual).reshape(1, *rows.shape))[0]
    found = _cells(metric, profile, known, weights)
    # What the cells' means lose, they lose in the reference as well
    tested = profile.tables[SCORE]
    whole = _cells(metric, profile, tested, tested[..., 0][None])[0]
    lost = profile.facts["metrics"][metric] - whole
    return _interval(value + lost, found + lost, level)


def _likelier(profile: Profile, rows: Array, counts: Array) -> Array:
    """By which factor each label is more common than in the reference, shape (draws, 1, labels).

    Args:
        rows: of the reference by score bin and label bin; counts: of the window, shape (draws, bins).
    """
    coarse = np.asarray(profile.columns[SCORE].coarse)
    known = np.zeros((coarse.max() + 1, rows.shape[1]))
    np.add.at(known, coarse, rows)
    then = known.sum(axis=0) / known.sum()
    now = [label_shares(np.bincount(coarse, one), known)[0] for one in counts]
    return (np.maximum(now, 1e-6) / np.maximum(then, 1e-6))[:, None, :]


def _cells(metric: str, profile: Profile, cells: Array, weights: Array) -> Array:
    """A metric of rows that are known as cells: means of score and label, and how often each counts.

    Args:
        cells: by score bin and label bin, shape (bins, labels, 5).
        weights: shape (resamples, bins, labels).
    """
    rows = cells[..., 0]
    filled = rows > 0
    count = np.where(filled, rows, 1)  # not whole numbers where phases were mixed
    by_bin = cells.sum(axis=1)
    middle = (by_bin[:, 1] / np.where(by_bin[:, 0] > 0, by_bin[:, 0], 1))[:, None]
    score = np.where(filled, cells[..., 1] / count, middle)
    by_label = cells.sum(axis=0)
    usual = by_label[:, 2] / np.where(by_label[:, 0] > 0, by_label[:, 0], 1)
    y = np.where(filled, cells[..., 2] / count, usual[None, :])
    if problem.CLASSES:
        y = np.broadcast_to(profile.labels, rows.shape)
    used = (by_bin[:, 0] > 0)[:, None] & np.ones_like(filled)
    decided = decide(score, profile.facts["decision"])
    flat = used.ravel()
    found = measure(
        metric, y.ravel()[flat], score.ravel()[flat], decided.ravel()[flat],
        weights.reshape(len(weights), -1)[:, flat],
    )  # fmt: skip
    return np.asarray(found, dtype=np.float64)


def _interval(value: float, drawn: Array, level: float) -> dict[str, float]:
    low, high = interval(drawn, level)
    return {"value": float(value), "low": low, "high": high}


def popularity(windows: Windows, profile: Profile, settings: Settings) -> dict[str, Any] | None:
    """How well common and rare objects are served, and whether the common ones take over.

    Returns:
        by fifth of the training rows, the commonest objects first: its share of the rows then and
        now, mean decision, accuracy and calibration; and by window the share of its rows that its
        commonest tenth of the objects has, and the share that such hours let expect. None where no column was named, or it is no input.
    """
    name = settings.monitoring.popularity
    column = profile.columns.get(name or "")
    if column is None or not column.popularity or name not in windows.codes:
        return None
    fifths, level = np.asarray(column.popularity), settings.goals.interval.level
    known = np.zeros(5)
    np.add.at(known, fifths, profile.tables[name][..., 0].sum(axis=1))
    counts = windows.counts[name]
    now = np.zeros((len(counts), 5))
    np.add.at(now.T, fifths, counts.T)
    code = fifths[windows.codes[name]]
    decided = decide(windows.score, profile.facts["decision"])
    rows = []
    for fifth in range(5):
        mine = code == fifth
        labelled = mine & ~np.isnan(windows.y)
        y, score = windows.y[labelled], windows.score[labelled]
        enough = len(y) >= FEWEST
        rows.append(
            {
                "fifth": fifth + 1,
                "share_then": float(known[fifth] / known.sum()),
                "share_now": float(now[:, fifth].sum() / max(1, now.sum())),
                "mean_decision": float(decided[mine].mean()) if mine.any() else None,
                "labels": len(y),
                "metric": measure(settings.goals.metric, y, score, decided[labelled])
                if enough and np.ptp(y) > 0
                else None,
                "calibration_gap": gap(y, score, profile, level).value if enough else None,
            }
        )
    usual = [_top(profile.like(one).seen[column.name], column) for one in windows.mix]
    shares = [_top(one, column) for one in counts]
    return {"column": name, "fifths": rows, "top_share": shares, "top_usual": usual}


def _top(counts: Array, column: Column) -> float:
    """The share of the rows that the commonest tenth of the objects of these very rows has."""
    objects = np.sort(counts[: len(column.categories)])[::-1]
    return float(objects[: max(1, len(objects) // 10)].sum() / max(1, counts.sum()))


def slices(windows: Windows, profile: Profile, settings: Settings) -> list[dict[str, Any]]:
    """The named slices over all labelled rows, worst first, and what moved in their newest rows.

    Returns:
        by slice: rows, labels, metric, calibration gap; score_p and score_effect; `moved`, the input
        that moved most beyond what all its tests here make likely, with `moved_effect`.
    """
    labelled = ~np.isnan(windows.y)
    decided = decide(windows.score, profile.facts["decision"])
    last = max((w for w in range(len(windows.health)) if windows.health[w]["rows"]), default=0)
    recent = (windows.window == last) & windows.drawn
    metric, found, given = settings.goals.metric, [], settings.monitoring
    least, level = settings.modelling.evaluation.min_slice_rows, settings.goals.interval.level
    profile = profile.like(windows.mix[last])
    for name in settings.modelling.evaluation.slices:
        column = profile.columns.get(name)
        if column is None or column.kind != "category" or name not in windows.codes:
            continue
        for code, value in enumerate(column.categories):
            mine = windows.codes[name] == code
            rows = mine & labelled
            entry: dict[str, Any] = {"slice": f"{name} = {value}", "rows": int(mine.sum())}
            y, score = windows.y[rows], windows.score[rows]
            enough = len(y) >= least and np.ptp(y) > 0
            entry["labels"] = len(y)
            entry["metric"] = measure(metric, y, score, decided[rows]) if enough else None
            entry["calibration_gap"] = gap(y, score, profile, level).value if enough else None
            here = column.coarse[code]
            alone = column.coarse.count(here) == 1  # else the reference has it with others
            if alone and (mine & recent).sum() >= least:
                entry |= _moved(windows, profile, name, here, mine & recent, given)
            found.append(entry)
    judged = [one for one in found if one["metric"] is not None]
    judged.sort(key=lambda one: gain(metric, one["metric"], 0.0))
    return judged + [one for one in found if one["metric"] is None]


def _moved(
    windows: Windows, profile: Profile, name: str, level: int, rows: Array, given: Monitoring
) -> dict[str, Any]:
    """How far the scores of a slice moved, and which of its inputs moved most."""
    others, now, then = [], [], []
    for (a, b), cells in profile.pairs.items():
        other = b if a == name else a
        if name in (a, b) and other in windows.codes:
            codes = np.asarray(profile.columns[other].coarse)[windows.codes[other][rows]]
            then.append(cells[level] if a == name else cells[:, level])
            now.append(np.bincount(codes, minlength=len(then[-1])).astype(np.float64))
            others.append(other)
    columns = [profile.columns[other] for other in others]
    segments = np.repeat(np.arange(len(others)), [len(one) for one in now])
    usual = np.array([1 + (one.dispersion - 1) * rows.sum() / one.block for one in columns])
    ordered = np.array([one.kind != "category" for one in columns])
    p, effect = homogeneities(np.concatenate(now), np.concatenate(then), segments, usual, ordered)
    score = others.index(SCORE)
    found: dict[str, Any] = {"score_p": float(p[score]), "score_effect": float(effect[score])}
    effect[(p * (len(others) - 1) > given.false_discovery) | (np.arange(len(p)) == score)] = 0.0
    most = int(np.argmax(effect))
    if effect[most] >= given.effect:
        found |= {"moved": others[most], "moved_effect": float(effect[most])}
    return found
