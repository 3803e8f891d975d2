"""How well the model does: measured where labels are there, estimated where they are not yet.

The estimate knows how often each score came true in the reference, and how often each score is given
now. For a yes or no that is confidence-based performance estimation (Guo et al., 2017; Garg et al.,
2022), for a number the error that goes with each prediction. It holds while P(y | score) does: what
labels say later beyond its interval is a change of concept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..goals.gate import gain, measure
from ..goals.value import decide
from ..settings import Monitoring, Settings
from .drift import homogeneities
from .reference import SCORE, Column, Profile, table
from .windows import Windows

FEWEST = 50  # labels, below which nothing is measured
RESAMPLES = 200
CALIBRATION_BINS = 10

Array = np.ndarray


def performance(
    windows: Windows, profile: Profile, settings: Settings, window: int
) -> dict[str, Any]:
    """Figures of one window.

    Returns:
        metric, estimated and realised, each {"value", "low", "high"} or None; `outside`: whether
        what was realised lies beyond the estimate's interval; calibration; labels.
    """
    metric, level = settings.goals.metric, settings.goals.interval.level
    rng = np.random.default_rng(settings.project.seed)
    known = profile.tables[SCORE]
    counts = windows.counts[SCORE][window].astype(np.float64)
    estimated = _estimate(metric, profile, known, counts, level, rng)
    mine = (windows.window == window) & ~np.isnan(windows.y)
    realised = calibration = None
    y, score = windows.y[mine], windows.score[mine]
    if len(y) >= FEWEST and (not profile.binary or 0 < y.mean() < 1):
        decided = decide(score, profile.facts["decision"])
        value = measure(metric, y, score, decided)
        sizes = known.shape[0], known.shape[1]
        cells = table(windows.codes[SCORE][mine], profile.label_bins(y), score, y, sizes)
        drawn = _cells(metric, profile, cells, rng.poisson(cells[..., 0], (RESAMPLES, *sizes)))
        realised = _interval(value, drawn - np.median(drawn) + value, level)
        calibration = gap(y, score, profile)
    outside = None
    if estimated and realised:
        # The estimate's interval is that of as many labels as there are
        few = _estimate(
            metric, profile, known, counts * min(1.0, len(y) / max(1.0, counts.sum())), level, rng
        )
        outside = bool(few and not few["low"] <= realised["value"] <= few["high"])
    return {
        "metric": metric,
        "estimated": estimated,
        "realised": realised,
        "outside": outside,
        "calibration_gap": calibration,
        "labels": len(y),
    }


def gap(y: Array, score: Array, profile: Profile) -> float:
    """Mean |outcome - score| over bins of equal size, less what chance alone would show.

    In the label's spread for a number, and of a score that means a quantile by the share of outcomes
    below, as `goals.gate.calibration_error`.
    """
    groups = np.array_split(np.argsort(score, kind="stable"), min(CALIBRATION_BINS, len(y)))
    share = profile.quantile
    unit = 1.0 if profile.binary or share is not None else profile.facts["spread"]
    total = 0.0
    for rows in groups:
        rest = y[rows] - score[rows] if share is None else (y[rows] <= score[rows]) - share
        noise = rest.var() / max(1, len(rows) - 1)
        total += len(rows) * np.sqrt(max(0.0, rest.mean() ** 2 - noise))
    return float(total / len(y) / unit)


def _estimate(
    metric: str,
    profile: Profile,
    known: Array,
    counts: Array,
    level: float,
    rng: np.random.Generator,
) -> dict[str, float] | None:
    if counts.sum() < FEWEST:
        return None
    rows = known[..., 0]
    # Bins that the reference never saw borrow its overall shares
    prior = rows.sum(axis=0) / rows.sum()
    # The reference is a sample too, and so are the labels to come
    drawn = rng.gamma(rows + prior / 2, size=(RESAMPLES, *rows.shape))
    shares = drawn / drawn.sum(axis=2, keepdims=True)
    weights = rng.poisson(counts[:, None] * shares).astype(np.float64)
    value = _cells(metric, profile, known, (counts[:, None] * _shares(rows, prior))[None])[0]
    found = _cells(metric, profile, known, weights)
    # What the cells' means lose, they lose in the reference as well
    whole = _cells(metric, profile, known, rows[None])[0]
    lost = profile.facts["metrics"][metric] - whole
    return _interval(value + lost, found + lost, level)


def _shares(rows: Array, prior: Array) -> Array:
    smooth = rows + prior / 2
    return smooth / smooth.sum(axis=1, keepdims=True)


def _cells(metric: str, profile: Profile, cells: Array, weights: Array) -> Array:
    """A metric of rows that are known as cells: means of score and label, and how often each counts.

    Args:
        cells: by score bin and label bin, shape (bins, labels, 5).
        weights: shape (resamples, bins, labels).
    """
    rows = cells[..., 0]
    filled = rows > 0
    count = np.maximum(rows, 1)
    by_bin = cells.sum(axis=1)
    middle = (by_bin[:, 1] / np.maximum(by_bin[:, 0], 1))[:, None]
    score = np.where(filled, cells[..., 1] / count, middle)
    by_label = cells.sum(axis=0)
    usual = by_label[:, 2] / np.maximum(by_label[:, 0], 1)
    y = np.where(filled, cells[..., 2] / count, usual[None, :])
    if profile.binary:
        y = np.broadcast_to([0.0, 1.0], rows.shape)
    used = (by_bin[:, 0] > 0)[:, None] & np.ones_like(filled)
    decided = decide(score, profile.facts["decision"])
    flat = used.ravel()
    found = measure(
        metric, y.ravel()[flat], score.ravel()[flat], decided.ravel()[flat],
        weights.reshape(len(weights), -1)[:, flat],
    )  # fmt: skip
    return np.asarray(found, dtype=np.float64)


def _interval(value: float, drawn: Array, level: float) -> dict[str, float]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return {"value": float(value), "low": float(low), "high": float(high)}


def popularity(windows: Windows, profile: Profile, settings: Settings) -> dict[str, Any] | None:
    """How well common and rare objects are served, and whether the common ones take over.

    Returns:
        by fifth of the training rows, the commonest objects first: its share of the rows then and
        now, mean decision, accuracy and calibration; and by window the share of its rows that its
        commonest tenth of the objects has. None where no column was named, or it is no input.
    """
    name = settings.monitoring.popularity
    column = profile.columns.get(name or "")
    if column is None or not column.popularity or name not in windows.codes:
        return None
    fifths = np.asarray(column.popularity)
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
                "calibration_gap": gap(y, score, profile) if enough else None,
            }
        )
    return {"column": name, "fifths": rows, "top_share": [_top(one, column) for one in counts]}


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
    least = settings.modelling.evaluation.min_slice_rows
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
            entry["calibration_gap"] = gap(y, score, profile) if enough else None
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
