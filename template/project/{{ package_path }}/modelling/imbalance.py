"""What may be done about rare classes where a model is fitted: other weights, other rows, another loss.

Each way of `modelling.imbalance` is tried beside the rows as they are. It changes what a model is fitted to, in
`modelling.fitting.fit_model` and nowhere else: rows that judge or calibrate a model keep their mix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..agreements import BOOSTED_WAYS
from ..settings import Settings, missing_library

Array = np.ndarray
LOSSES = {"class_weights": "balanced", "costs": "costs"}  # way -> the `goals.loss` that does it
NEED_LIBRARY = ("smote", "tomek_links")
NEIGHBOURS = 5  # of a row, among which another is taken to stand between; the paper's number
GAMMA = 2.0  # how little a row counts that is decided rightly already; the paper's number
# Columns of the matrix that are one category or flag together: `plan = basic`, `shop hash 3`, `age > 30`
OF_CATEGORY = re.compile(r" (= |hash \d+$|> |missing$).*")


def require_library(ways: Iterable[str]) -> None:
    """Raise a UserError where a way needs imbalanced-learn and it is not installed; import it before threads do."""
    if set(ways) & set(NEED_LIBRARY):
        if find_spec("imblearn") is None:
            raise missing_library("imbalanced-learn")
        import_module("imblearn")  # two threads at once would each meet the half of it


def takes(way: str, candidate: str) -> bool:
    """Whether a candidate can be fitted in this way.

    A stack learns from scores of held-out rows: one that SMOTE put between two rows, or that a model of all rows
    labelled, would stand on both sides.
    """
    if way in ("smote", "self_training"):
        return candidate != "stacked"
    return way not in BOOSTED_WAYS or candidate in BOOSTED_WAYS[way]


def weighed(settings: Settings, way: str | None) -> Settings:
    """The settings with the loss that a way stands for; for all other ways as they are."""
    if way not in LOSSES:
        return settings
    goals = settings.goals.model_copy(update={"loss": LOSSES[way]})
    return settings.model_copy(update={"goals": goals})


def resampled(
    way: str | None, matrix: Array, y: Array, names: Sequence[str], seed: int
) -> tuple[Array, Array]:
    """The training rows in another mix of classes.

    under_sampling, and the first phase of two_phase (Lee et al., 2016): of each class as many rows as the rarest
    has · tomek_links: without the rows of larger classes that are the nearest neighbours of another class's
    (Tomek, 1976) · smote: with rows between neighbours of a class, until each has as many as the largest (Chawla
    et al., 2002). Any other way leaves the rows as they are.

    Args:
        matrix: the prepared rows, shape (n, width); y: codes of classes, shape (n,); names: of the columns.

    Returns:
        the new matrix, shape (m, width), and for each of its rows the position of the one whose label, keys and
        weight it has, shape (m,).
    """
    rows = np.arange(len(y))
    if way in ("under_sampling", "two_phase"):
        rows = _under_sampled(y, seed)
    elif way == "tomek_links":
        from imblearn.under_sampling import TomekLinks

        links = TomekLinks()
        links.fit_resample(_scaled(matrix)[0], y)
        rows = np.sort(links.sample_indices_)
    elif way == "smote":
        return _over_sampled(matrix, y, names, seed)
    return matrix[rows], rows


def _under_sampled(y: Array, seed: int) -> Array:
    rng, (classes, counts) = np.random.default_rng(seed), np.unique(y, return_counts=True)
    drawn = [rng.choice(np.flatnonzero(y == c), counts.min(), replace=False) for c in classes]
    return np.sort(np.concatenate(drawn))


def _scaled(matrix: Array) -> tuple[Array, Array, Array]:
    """Columns of like spread, since distances add them up; with what they were divided by, and their means."""
    values = matrix.astype(np.float64)
    spread, middle = values.std(axis=0), values.mean(axis=0)
    spread[spread == 0] = 1.0
    return (values - middle) / spread, spread, middle


def _over_sampled(matrix: Array, y: Array, names: Sequence[str], seed: int) -> tuple[Array, Array]:
    """SMOTE on the prepared matrix, where texts, images, gaps and moments are numbers already.

    Numbers are taken between two neighbours. The columns of a category are one value together, taken as the most
    neighbours have it (SMOTE-NC), so that no row stands half way between two categories or in none.
    """
    classes, counts = np.unique(y, return_counts=True)
    rare = (counts > 1) & (counts < counts.max())
    rows = np.arange(len(y))
    if not rare.any():
        return matrix, rows
    near = min(NEIGHBOURS, int(counts[rare].min()) - 1)
    aims = dict.fromkeys(classes[rare].tolist(), int(counts.max()))
    blocks = _blocks(names)
    numbers = np.setdiff1d(np.arange(matrix.shape[1]), np.concatenate([*blocks, []]).astype(int))
    values, spread, middle = _scaled(matrix[:, numbers])
    pairs = [np.unique(matrix[:, block], axis=0, return_inverse=True) for block in blocks]
    coded = np.column_stack([values, *(codes.ravel() for _, codes in pairs)])
    sampler = _smote(len(numbers), len(blocks))
    sampler.set_params(sampling_strategy=aims, k_neighbors=near, random_state=seed)
    result, labels = sampler.fit_resample(coded, y)
    made, labels = result[len(y) :], labels[len(y) :]
    new = np.empty((len(made), matrix.shape[1]), matrix.dtype)
    new[:, numbers] = made[:, : len(numbers)] * spread + middle
    for i, (block, (patterns, _)) in enumerate(zip(blocks, pairs, strict=True)):
        new[:, block] = patterns[made[:, len(numbers) + i].astype(int)]
    sources = np.empty(len(made), int)
    for c in aims:  # in turn, so that weights are met as often as in the class
        sources[labels == c] = np.resize(np.flatnonzero(y == c), int((labels == c).sum()))
    return np.vstack([matrix, new]), np.concatenate([rows, sources])


def _smote(numbers: int, categories: int) -> Any:
    """The kind of SMOTE for so many columns of numbers, and of codes of categories behind them."""
    from imblearn.over_sampling import SMOTE, SMOTEN, SMOTENC

    if not categories:
        return SMOTE()
    return SMOTENC(list(range(numbers, numbers + categories))) if numbers else SMOTEN()


def _blocks(names: Sequence[str]) -> list[Array]:
    """The positions of the columns that are one category together, by category."""
    blocks: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        if match := OF_CATEGORY.search(name):
            of = name if match[1] == "missing" else name[: match.start()]
            blocks.setdefault(of, []).append(i)
    return [np.array(block) for block in blocks.values()]


def focal(y: Array, score: Array, weight: Array | None) -> tuple[Array, Array]:
    """The focal loss (Lin et al., 2017) as LightGBM takes it: rows that are decided rightly count little.

    Args:
        y: codes of classes, shape (n,); score: raw, shape (n,) of a yes or no, or (n, classes); weight: (n,).

    Returns:
        the gradient and the diagonal of the Hessian by raw score, each of the shape of `score`, times one factor.
    """
    if score.ndim == 1:
        share = 1 / (1 + np.exp(-score))
        hit, true = y.astype(float), np.where(y == 1, share, 1 - share)
        factor = 1.0
    else:
        raised = np.exp(score - score.max(axis=1, keepdims=True))
        share = raised / raised.sum(axis=1, keepdims=True)
        hit = np.zeros_like(share)
        hit[np.arange(len(y)), y.astype(int)] = 1.0
        true = (share * hit).sum(axis=1, keepdims=True)
        factor = share.shape[1] / (share.shape[1] - 1)  # as LightGBM's own loss of classes has it
    true = np.clip(true, 1e-7, 1 - 1e-7)
    log, left = np.log(true), 1 - true
    slope = left**GAMMA - GAMMA * true * left ** (GAMMA - 1) * log
    bend = (
        GAMMA * left ** (GAMMA - 1) * (2 + log)
        - GAMMA * (GAMMA - 1) * true * left ** (GAMMA - 2) * log
    )
    gradient = slope * (share - hit)
    plain = factor * share * (1 - share)
    hessian = factor * (slope * share * (1 - share) + bend * true * (share - hit) ** 2)
    hessian = np.maximum(hessian, 1e-6)
    # As large as of the log loss: for that the penalty of a leaf's size (`boosting.l2`) is set
    scale = plain.sum() / hessian.sum()
    gradient, hessian = scale * gradient, scale * hessian
    if weight is not None:
        weight = weight if score.ndim == 1 else weight[:, None]
        gradient, hessian = gradient * weight, hessian * weight
    return gradient, hessian


def log_odds(y: Array, weight: Array | None = None) -> Array:
    """Where raw scores start: of a yes or no its log-odds, shape (1,), else each class's log share, (classes,)."""
    shares = np.bincount(np.unique(y, return_inverse=True)[1], weight) / (
        len(y) if weight is None else weight.sum()
    )
    logs = np.log(np.maximum(shares, 1e-7))
    return logs[1:] - logs[:1] if len(logs) == 2 else logs


def as_built_in(lines: list[str], start: Array) -> list[str]:
    """The lines of a model's text as if LightGBM's own loss had been minimised, whose scores any reader turns right.

    Args:
        start: what each class's first tree has to add, since a loss of one's own starts at 0; zeros: nothing. Empty of
            numbers.
    """
    classes = len(start)
    name = ["regression", "binary sigmoid:1", f"multiclass num_class:{classes}"][min(classes, 2)]
    trees, result = 0, []
    for line in lines:
        if line.startswith("feature_names="):
            result.append(f"objective={name}")
        if line.startswith("leaf_value=") and trees < classes:
            values = np.array(line.removeprefix("leaf_value=").split(), float) + start[trees]
            line = "leaf_value=" + " ".join(repr(float(value)) for value in values)
            trees += 1
        result.append(line)
    return result
