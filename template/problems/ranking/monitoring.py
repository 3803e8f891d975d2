"""YOURS: what the monitor watches of orders, and what its drills break."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import erfc, sqrt
from typing import Any

import numpy as np

from . import LabelKeys
from .data import GAIN, ITEM, LIST, MOST_GRADE, NEW, POSITION, RAW, TOPIC, first_shown
from .decision import ranks
from .goals import TOP

Array = np.ndarray
# Metrics that are estimated from what the inputs tell of the error: none of an order
ERRORS: dict[str, str] = {}
# Decisions of 1 whose share is watched by itself, as a reader calls them
FLAGGED: str | None = None
# Metrics that labels of such rows alone can tell
OF_FLAGGED: frozenset[str] = frozenset()
LABEL_BINS = 10
MIN_CLICKS = 50  # of a window, that are tested
STRATA = 10  # groups of rows with like scores, within which clicks are compared by place


def row_loss(y: Array, score: Array) -> Array:
    """What a row adds to the figure that is watched, shape (n,): the squared error of its expected gain."""
    return (score - y) ** 2


def sizes(truth: Array) -> Array | float:
    """In which units labels and scores of n rows are watched: their own."""
    return 1.0


def losses(truth: Array, score: Array) -> dict[str, Array]:
    """What `ERRORS` names of each of n rows: nothing."""
    return {}


def label_edges(y: Array, label: LabelKeys) -> list[float]:
    """The upper ends of the bins that gains are counted in; nothing gained is one of its own."""
    gains = y[y > 0] if (y > 0).any() else np.ones(1)
    inner = np.unique(np.quantile(gains, np.linspace(0, 1, LABEL_BINS)[1:-1]))
    # A little above each value: what a log gives back may differ in its last bits
    return [0.0, *(inner * (1 + 1e-6)).tolist(), float("inf")]


def score_cuts(decision: float) -> list[float]:
    """Where the bins of the score must end: anywhere."""
    return []


def ranked(y: Array) -> Array:
    """1 for a row that is wanted, shape (n,), for the drill that draws these more often, at whatever place they were."""
    return (y > 0).astype(np.float64)


def written(label: LabelKeys, values: Sequence[str]) -> list[str]:
    """How the labels 0 and 1 are written; nothing of a number."""
    return []


def fed_back(y: Array, truth: Array) -> Array:
    """Labels as they come back from where a row was shown, shape (n,): gains less the weight of the place."""
    if truth.ndim == 1:
        return y
    import pandas as pd

    weight = np.divide(
        truth[:, GAIN], np.exp2(truth[:, RAW]) - 1, out=np.ones(len(y)), where=truth[:, RAW] > 0
    )
    usual = (
        pd.Series(np.where(truth[:, RAW] > 0, weight, np.nan))
        .groupby(truth[:, POSITION])
        .transform("mean")
    )
    return np.log2(1 + y / usual.fillna(1.0).to_numpy())


def placed(truth: Array, decisions: Any) -> Any:
    """The logged decisions of rows that are drawn one by one, shape (n,): where they were shown."""
    return decisions if truth.ndim == 1 else truth[:, POSITION]


def strange(y: Array, label: LabelKeys, values: Sequence[str], rng: np.random.Generator) -> Array:
    """Labels in another unit, shape (n,)."""
    return y * 100


def position_bias(
    truth: Array, score: Array, facts: Mapping[str, Any]
) -> tuple[float, float, str] | None:
    """Whether clicks fall with the place as fast as in the lists in random order that `label` learnt from.

    Mantel's test (1963) of clicks with the logarithm of their place, among rows of like scores: scores that no longer
    hold are another matter. More or fewer clicks in all change either their rates alike or their odds, so both are
    tried, and the milder counts.

    Args:
        truth: of n labelled rows, shape (n, columns); score: shape (n,).
        facts: of the reference, with `examination` and `examined_rows`.

    Returns:
        p-value, effect in Cohen's w, and words; None where no curve is known, or too few clicks.
    """
    examined, examined_rows = np.asarray(facts.get("examination", ())), facts.get("examined_rows")
    if truth.ndim == 1 or len(examined) < 2 or not examined_rows:
        return None
    gain = np.exp2(np.minimum(truth[:, RAW], MOST_GRADE)) - 1
    # Of clicks 1, and of grades what as many clicks would gain
    of_click = (gain**2).sum() / max(gain.sum(), 1e-300)
    clicks = gain / max(of_click, 1e-300)
    if clicks.sum() < MIN_CLICKS:
        return None
    slot = np.clip(truth[:, POSITION], 1, len(examined)).astype(np.int64)
    chance = np.clip(score * examined[slot - 1] / of_click, 1e-6, 0.999)
    gaps, variances, means = np.zeros((3, 2))  # by rates, by odds
    for rows in np.array_split(np.argsort(score, kind="stable"), STRATA):
        total = clicks[rows].sum()
        rates = chance[rows] * total / chance[rows].sum()
        odds = _with_total(chance[rows], total)
        for form, (usual, spread) in enumerate(((rates, rates), (odds, odds * (1 - odds)))):
            depth = np.log(slot[rows])
            depth -= (spread @ depth) / max(spread.sum(), 1e-300)
            gaps[form] += (clicks[rows] - usual) @ depth
            means[form] += usual @ slot[rows] / clicks.sum()
            variances[form] += spread @ depth**2
    z = gaps / np.sqrt(np.maximum(variances, 1e-300) * (1 + len(score) / examined_rows))
    form = int(np.argmin(np.abs(z)))
    z2 = float(z[form] ** 2) if z.min() * z.max() > 0 else 0.0
    message = (
        f"clicks are at place {clicks @ slot / clicks.sum():.2f} on average, lists in random order let expect {means[form]:.2f}: "
        f"people look {'further down' if gaps[form] > 0 else 'less far down'}"
    )
    effect = float(np.sqrt(max(0.0, z2 - 1) / clicks.sum()))
    return erfc(sqrt(z2 / 2)), effect, message


def _with_total(chance: Array, total: float) -> Array:
    """Chances with the odds of all changed by one factor, so that they sum to a total; shape (n,)."""
    low, high = -20.0, 20.0  # of the factor's logarithm
    for _ in range(50):
        middle = (low + high) / 2
        changed = 1 / (1 + (1 / chance - 1) * np.exp(-middle))
        low, high = (middle, high) if changed.sum() < total else (low, middle)
    return changed


def shown_figures(
    truth: Array,
    score: Array,
    slots: Array | None,
    logged: Array | None = None,
    interval: Any = None,
) -> dict[str, float]:
    """What lists show: figures of n rows, which need no label.

    Args:
        truth: shape (n, columns); score: shape (n,).
        slots: the place of each row in its list, shape (n,); None: that of its score.
        logged, interval: as for other kinds; lists need neither.
    """
    if truth.ndim == 1 or not len(score):
        return {}
    slots = ranks(score, truth[:, LIST]) if slots is None else slots
    first, top = slots == 1, slots <= TOP
    figures = {"score of the first place": float(score[first].mean())} if first.any() else {}
    for name, column in (("items", ITEM), ("topics", TOPIC)):
        values = truth[:, column]
        if not np.ptp(values):  # no such column, or none in the log
            continue
        if column == ITEM:
            share = len(np.unique(values[top])) / len(np.unique(values))
            figures[f"share of all {name} among the first {TOP}"] = share
            if np.isfinite(new := truth[top, NEW]).any():  # NaN where the log cannot tell
                figures[f"share of new {name} among the first {TOP}"] = float(np.nanmean(new))
        else:
            pairs = np.unique(truth[top][:, [LIST, column]], axis=0)
            lists = len(np.unique(pairs[:, 0]))
            figures[f"{name} among the first {TOP}"] = len(pairs) / max(1, lists)
    return figures


def _looked_less_far(y: Array, truth: Array, rng: np.random.Generator) -> Array:
    """Labels where places further down are looked at as much less again, shape (n,), for the drill position-bias."""
    if truth.ndim == 1:
        return y
    return np.where(rng.random(len(y)) < 1 / np.maximum(truth[:, POSITION], 1), y, 0.0)


def _curve_missing(label: LabelKeys) -> str:
    """Why a change of where people look cannot be told; nothing where it can."""
    if label.position and label.random and not label.propensity:
        return ""
    return "no curve of looks is learnt: data.label names no position and random, or a propensity"


# Shifts that only this kind of problem has: kind -> what it means, what to do, its test, labels of its drill, why it
# cannot be told
OWN_SHIFTS: dict[str, tuple[Any, ...]] = {
    "position_bias": (
        "People look at the places of a list otherwise than they did.",
        "Show a share of lists in random order again, then `label` and retrain: the weights of all clicks hang on it.",
        position_bias,
        _looked_less_far,
        _curve_missing,
    )
}
# Figures of a window that only this kind of problem has: their title, what works them out, the log's columns of numbers
# that it needs, and which facts of the training data it needs of the reference
OWN_FIGURES: tuple[str, Any, tuple[str, ...], Any] | None = (
    "What was shown",
    shown_figures,
    (),
    first_shown,
)
# Drills that only this kind of problem has: none
OWN_CHANGES: dict[str, tuple[Any, set[str]]] = {}
