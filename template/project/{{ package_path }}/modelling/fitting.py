"""How one model is fitted: the size of its trees, the scale of its label, and its scores of rows that it
was not fitted on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from joblib import parallel_config
from lightgbm import early_stopping

from .. import problem
from ..features.pipeline import Preparation, build
from ..goals.gate import representatives
from ..parts import executor
from ..problem import models
from ..settings import Settings
from .boosting import (
    PLAIN,
    Boosted,
    Size,
    Target,
    boosted_within,
    lightgbm_params,
    monotone_signs,
)
from .calibration import Calibration, fit_calibration
from .folds import Fold, RowKeys
from .imbalance import focal, resampled, weighed
from .unlabelled import Unlabelled

AT_ONCE = 2  # models that are fitted side by side
STACK_FOLDS = 3
BASELINES = ("random", "heuristic", "simple")
ADDITIVE = ((2, 1), (4, 2))  # leaves and depth
MAX_CELLS_REPEATED = 100_000  # of a matrix; beyond, cross-validation is run once: more takes long
DEFAULT_SHAPE = (31, 100)  # leaves and trees, LightGBM's own

Array = np.ndarray


@dataclass(frozen=True)
class TrainingTable:
    """Rows as models are fitted to them: the matrix (n, width), the truth (n,) or (n, columns), what keeps rows apart,
    the names of the matrix's columns, the way of `modelling.imbalance` in which a fit takes them, and rows without a
    label that a fit learns from too."""

    matrix: Array
    label: Array
    keys: RowKeys
    names: tuple[str, ...] = ()
    imbalance: str | None = None
    unlabelled: Unlabelled | None = None

    def fit_options(self, model: Any) -> dict[str, Any]:
        """What `model` takes to be fitted to these rows, beside their matrix and labels."""
        options = models.fit_options(model, self.label)
        weight = self.keys.weight
        return options if weight is None else {**options, "sample_weight": weight}

    def take(self, rows: Array) -> TrainingTable:
        """The table of some rows, given by their positions."""
        label, keys = self.label[rows], self.keys.take(rows)
        return replace(self, matrix=self.matrix[rows], label=label, keys=keys)

    def resampled(self, seed: int) -> TrainingTable:
        """The rows in the mix of classes that a fit is to see."""
        y = models.learnt(self.label)
        matrix, rows = resampled(self.imbalance, self.matrix, y, self.names, seed)
        return replace(self.take(rows), matrix=matrix)


def fit_features(
    rows: pd.DataFrame, y: Array, keys: RowKeys, settings: Settings
) -> tuple[Preparation, TrainingTable]:
    """The preparation fitted to n training rows, and these rows as models are fitted to them.

    Raises:
        UserError: when a free text has nothing to learn from.
    """
    preparation = build(settings)
    folds = keys.folds(settings.modelling.few_rows.folds, settings.project.seed)
    matrix = preparation.fit_transform(rows, models.taught(y), folds)
    return preparation, TrainingTable(matrix, y, keys, tuple(preparation.names))


@dataclass
class Fitted:
    """A fitted model, and the target that its label was turned into."""

    model: Any
    target: Target
    width: int = 1  # how many scores a row has
    labelled_rows: int | None = None  # that a model labelled for it; None: none were to be had

    def raw(self, matrix: Array) -> Array:
        """Scores in the unit of training, before any calibration, shape (n,), or (n, width)."""
        return models.predict(self.model, matrix, self.width)


def fitting_executor(settings: Settings) -> Executor:
    """What fits whole models side by side: threads, also where the workers of a cluster grow each model's trees together, or
    these workers, a model each."""
    pool = executor(settings, AT_ONCE)
    Boosted.grow_together = getattr(pool, "grow", None)
    return pool if Boosted.grow_together is None else ThreadPoolExecutor(AT_ONCE)


def find_sizes(
    names: Iterable[str], table: TrainingTable, settings: Settings, use_folds: bool
) -> dict[str, Size]:
    """The size of the trees that each kind of candidate takes, and the scale of its label.

    Found by early stopping on a part of the training rows, or on each of several folds, whose
    figures are averaged.

    Args:
        use_folds: whether on folds, as where rows are few.

    Returns:
        a size for each kind of `problem.models.SIZED` that `names` ask for.
    """
    boosting, seed = settings.modelling.boosting, settings.project.seed
    max_trees = boosting.max_trees
    folds = [table.keys.held_out(boosting.held_out, seed)]
    if use_folds:
        folds = table.keys.folds(settings.modelling.few_rows.folds, seed)
    attempts = Attempts(table, settings, folds)
    scales = models.shifts(table.label, settings)
    aims = [(shift, loss) for shift in scales for loss in models.objectives(settings)]
    sizes = {}
    for kind in dict.fromkeys(models.SIZED[name] for name in names):
        if kind not in ("boosted", "additive"):
            lines = [Size(2, -1, 1, 0.0, shift) for shift in scales]
            sizes[kind] = attempts.best(lines, attempt_linear) if len(lines) > 1 else lines[0]
            continue
        shapes = [(leaves, -1) for leaves in boosting.leaves] if kind == "boosted" else [*ADDITIVE]
        middle = shapes.pop(len(shapes) // 2)
        # What the trees are fitted to first, in one shape; then the other shapes
        options = [Size(*middle, max_trees, 0.0, *aim) for aim in aims]
        best = attempts.best(options, attempt_trees)
        if shapes:
            options = [replace(best, leaves=n, depth=d, trees=max_trees) for n, d in shapes]
            reshaped = attempts.best(options, attempt_trees)
            best = min(best, reshaped, key=lambda size: size.loss)
        sizes[kind] = best
    return sizes


def alternatives(early_stopped: Size, settings: Settings) -> list[Size]:
    """Sizes that may serve better than the one that was best in one stretch of time.

    The best one first; then LightGBM's default size; both also for the label as it is and the loss that the
    settings ask for.
    """
    default = replace(early_stopped, leaves=DEFAULT_SHAPE[0], depth=-1, trees=DEFAULT_SHAPE[1])
    first_objective = models.objectives(settings)[0]
    sizes = [early_stopped, default]
    sizes += [replace(size, shift=None, objective=first_objective) for size in sizes]
    return [size for i, size in enumerate(sizes) if size not in sizes[:i]]


@dataclass(frozen=True)
class Attempts:
    """Sizes compared by early stopping (Prechelt, 1998) on one held-out part, or on several."""

    table: TrainingTable
    settings: Settings
    folds: Sequence[Fold]

    def best(
        self,
        options: Sequence[Size],
        attempt: Callable[[Size, Fold, TrainingTable, Settings], tuple[int, float]],
    ) -> Size:
        """The option with the least loss, the first of equal ones, with as many trees as were best.

        Args:
            options: `trees` is the most that each may have.
            attempt: fits one to a fold; returns its best number of trees, and the loss with these.
        """
        data = self.table, self.settings
        pairs = [(option, fold) for option in options for fold in self.folds]
        with executor(self.settings, AT_ONCE) as pool:
            runs = [pool.submit(attempt, *pair, *data) for pair in pairs]
            results = [run.result() for run in runs]
        n, sizes = len(self.folds), []
        for i, option in enumerate(options):
            trees, losses = zip(*results[i * n : (i + 1) * n], strict=True)
            mean_trees = max(1, round(float(np.mean(trees))))
            sizes.append(replace(option, trees=mean_trees, loss=float(np.mean(losses))))
        return min(sizes, key=lambda size: size.loss)


def attempt_trees(
    size: Size, fold: Fold, table: TrainingTable, settings: Settings
) -> tuple[int, float]:
    """Fit to one side of a fold, stop on the other; the best number of trees, and their loss."""
    fit, held = (table.take(rows) for rows in fold)
    if problem.CLASSES:  # of a class that stands on one side only, a fit knows nothing
        held = held.take(np.flatnonzero(np.isin(held.label, fit.label)))
    target = _target(fit.label, size.shift)
    fit_y, held_y = (_training_label(target, part.label) for part in (fit, held))
    modelling, size = settings.modelling, _weighing(size, fit_y)
    trees = models.Trees(**lightgbm_params(modelling, size, settings.project.seed))
    weight = size.objective.get("class_weight")
    weights: dict[str, Any] = {} if weight is None else {"eval_class_weight": [weight]}
    if fit.keys.weight is not None:
        weights |= {"sample_weight": fit.keys.weight, "eval_sample_weight": [held.keys.weight]}
    trees.fit(
        models.fit_matrix(fit.matrix, fit.label),
        fit_y,
        eval_X=(models.fit_matrix(held.matrix, held.label),),
        eval_y=(held_y,),
        **weights,
        **models.fit_options(trees, fit.label, held.label),
        callbacks=[early_stopping(modelling.boosting.patience, verbose=False)],
    )
    loss = models.stopping_loss(trees)
    if loss is None:
        loss = _loss(Fitted(trees, target, models.width(settings)), held, settings)
    return trees.best_iteration_, loss


def attempt_linear(
    size: Size, fold: Fold, table: TrainingTable, settings: Settings
) -> tuple[int, float]:
    """Fit the linear candidate to one side of a fold; 1, and its loss on the other."""
    fit, held = (table.take(rows) for rows in fold)
    return 1, _loss(fit_model("linear", fit, size, settings), held, settings)


def _loss(fitted: Fitted, held: TrainingTable, settings: Settings) -> float:
    """The loss on held-out rows, in the label's own unit: only so can scales be compared."""
    held = held.take(representatives(len(held.label), held.keys.weight))
    raw = fitted.raw(held.matrix)
    plain = Calibration(target=fitted.target)
    head = replace(plain, factor=_factor(plain(raw), held.label, fitted.target, settings))
    return models.held_out_loss(held.label, head(raw), settings)


def _target(y: Array, shift: float | None) -> Target:
    return Target.of(y, shift) if models.SCALED else PLAIN


def _training_label(target: Target, y: Array) -> Array:
    return models.learnt(target.forward(y))


def _factor(value: Array, y: Array, target: Target, settings: Settings) -> float:
    """What the mean of a number learnt on the log scale has to be multiplied with."""
    if target.shift is None or not models.aims_at_mean(settings):
        return 1.0
    return float((y + target.shift).mean() / (value + target.shift).mean())


def fit_model(
    name: str,
    table: TrainingTable,
    size: Size | None,
    settings: Settings,
    newest: Array | None = None,
) -> Fitted:
    """Fit a baseline or a candidate.

    Args:
        name: of the baseline or candidate, as `modelling.candidates` and `BASELINES` have it.
        size: as `find_sizes` found it; None for a baseline.
        newest: positions of the rows that boosted trees go on with; None: no warm start.
    """
    if table.unlabelled is not None:
        taught, count = _with_labelled(name, table, table.unlabelled, size, settings)
        return replace(fit_model(name, taught, size, settings, newest), labelled_rows=count)
    seed, way = settings.project.seed, table.imbalance
    settings, rows = weighed(settings, way), table if way is None else table.resampled(seed)
    target = _target(table.label, size.shift if size else None)
    if size is None:
        model = models.baseline(name, len(table.label), settings, seed, table.names)
    else:
        if way is not None:
            size = replace(size, objective=models.objectives(settings)[0])
        if loss := {**models.GRADIENTS, "focal": focal}.get(way or settings.goals.loss):
            size = replace(size, objective={"objective": loss})
        if name == "monotone":
            signs = {"monotone_constraints": monotone_signs(table.names, settings)}
            size = replace(size, objective={**size.objective, **signs})
        size = _weighing(size, models.learnt(table.label))
        folds = rows.keys.folds(STACK_FOLDS, seed) if name == "stacked" else []
        model = models.candidate(name, settings, seed, Boosted.of(settings, size, seed), folds)
    with parallel_config("threading"):  # other processes than this one would need the rows copied
        model.fit(*_matrix_and_label(rows, target), **rows.fit_options(model))
    if way == "two_phase" and isinstance(model, Boosted):  # the second, on the original rows
        model.continue_training(*_matrix_and_label(table, target), **table.fit_options(model))
    if newest is not None:
        part = table.take(newest)
        for trees in boosted_within(model):
            trees.continue_training(*_matrix_and_label(part, target), **part.fit_options(trees))
    return Fitted(model, target, models.width(settings))


def _with_labelled(
    name: str, table: TrainingTable, unlabelled: Unlabelled, size: Size | None, settings: Settings
) -> tuple[TrainingTable, int]:
    """The rows of a table, and behind them those that a model labels: a given one, or the same model fitted to the
    table alone, where it is sure (self-training: Scudder, 1965; Yarowsky, 1995), in one round.

    How sure it is comes of scores of rows that it was not fitted on, calibrated as what ships is.

    Returns:
        the table, and how many rows were labelled.
    """
    plain, scores = replace(table, unlabelled=None), unlabelled.scores
    if scores is None:
        label, width = table.label, models.width(settings)
        raw = np.zeros(len(label) if width == 1 else (len(label), width))
        for fit, held in table.keys.folds(STACK_FOLDS, settings.project.seed):
            raw[held] = fit_model(name, plain.take(fit), size, settings).raw(table.matrix[held])
        alike, teacher = (
            representatives(len(label), table.keys.weight),
            fit_model(name, plain, size, settings),
        )
        head = fit_head(raw[alike], label[alike], teacher.target, settings)
        scores = head(teacher.raw(unlabelled.matrix))
    rows, labels, keys = unlabelled.labelled(scores)
    added = replace(
        plain,
        matrix=np.concatenate([table.matrix, unlabelled.matrix[rows]]),
        label=np.concatenate([table.label, labels]),
        keys=table.keys.followed_by(keys),
    )
    return added, len(np.unique(rows))


def _weighing(size: Size, y: Array) -> Size:
    """The size, with weights of no classes but those of the rows: at any other, LightGBM stops."""
    if not isinstance(weights := size.objective.get("class_weight"), dict):
        return size
    weights = {name: weights[name] for name in weights if name in y}
    return replace(size, objective={**size.objective, "class_weight": weights})


def _matrix_and_label(table: TrainingTable, target: Target) -> tuple[Array, Array]:
    return models.fit_matrix(table.matrix, table.label), _training_label(target, table.label)


def out_of_fold(name: str, table: TrainingTable, size: Size | None, settings: Settings) -> Array:
    """Each row's raw score by models that were not fitted on it: cross-validation, the mean of its repeats.

    Of shape (n,), or (n, width) where a row has several scores.

    In the unit of a target fitted on all rows, so that the scores fit the model that is shipped.
    """
    few_rows = settings.modelling.few_rows
    target = _target(table.label, size.shift if size else None)
    width = models.width(settings)
    total = np.zeros(len(table.label) if width == 1 else (len(table.label), width))
    repeats = few_rows.repeats if table.matrix.size <= MAX_CELLS_REPEATED else 1
    for repeat in range(repeats):
        for fit, held in table.keys.folds(few_rows.folds, settings.project.seed, repeat):
            fitted = fit_model(name, table.take(fit), size, settings)
            raw = fitted.raw(table.matrix[held])
            if target is not PLAIN:  # from the unit of this fold's labels to that of all
                unit = fitted.target
                raw = (raw * unit.spread + unit.middle - target.middle) / target.spread
            total[held] += raw
    return total / repeats


def fit_head(
    raw: Array, y: Array, target: Target, settings: Settings, always: bool = False
) -> Calibration:
    """The calibration that held-out rows ask for, and the way back to the label's unit.

    Args:
        raw: scores of rows that the model was not fitted on, as `Fitted.raw` gives them; y: their
            labels, shape (n,).
        always: whether the scores are known to be off, as where rare classes counted more in the fit.
    """
    training_y = target.forward(y)

    def loss(truth: Array, score: Array) -> float:
        return models.held_out_loss(truth, score, settings)

    kind = settings.modelling.calibration
    head = fit_calibration(kind, training_y, raw, loss, target, always)
    return replace(head, factor=_factor(head(raw), y, target, settings))
