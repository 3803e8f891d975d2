"""The linear model that goes on learning: how it begins, its weights inside its own ONNX graph, what its folder holds."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import onnx
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit, logsumexp, softmax
from sklearn.utils.class_weight import compute_class_weight

from .. import paths
from ..data.schema import text
from ..features.catalogue import inputs, load
from ..modelling.boosting import LINEAR_NODES, Target
from ..modelling.scorer import load_scorer
from ..modelling.train import held_apart, read_parts, trial_apart
from ..parts import part_module
from ..problem import models
from ..settings import Settings, UserError

SMOOTHED = 0.1  # of the label's spread: within so much of a quantile, its loss is round
Array = np.ndarray
Loss = Callable[[Array, Array], tuple[Array, Array, Array]]


def first_model(
    settings: Settings, root: Path, champion: dict[str, Any]
) -> tuple[bytes, dict[str, Any]]:
    """The linear candidate fitted to the training rows, as ONNX, and its manifest."""
    data = held_apart(settings, read_parts(settings, root)[0])
    trial = trial_apart("linear", data, settings)
    assert trial.file is not None
    assert trial.head is not None
    classes: dict[str, float] = {}
    if (weight := models.objectives(settings)[0].get("class_weight")) is not None:
        labels = models.learnt(data.fit.label)
        present = np.unique(labels)
        shares = compute_class_weight(weight, classes=present, y=labels)
        classes = dict(zip(map(str, present.tolist()), shares.tolist(), strict=True))
    fields = asdict(trial.head.target).items()
    alike, row = data.representatives, {**trial.row}
    level, values = settings.goals.interval.level, champion.get("label_values", [])
    figures = ("metric_name", "metric", "low", "high", "value")
    gone = ("reasons", "compressed_from", "stability")
    return trial.file, {
        **{key: value for key, value in champion.items() if key not in gone},
        **models.described(trial.decision, values, settings, data.rows["fit"]),
        "chosen": "linear",
        "decision": trial.decision,
        "interval": models.around(data.judged[alike], trial.score[alike], level),
        "validation": {figure: row[figure] for figure in figures},
        "trained_rows": len(data.rows["fit"]),
        "learning": {
            "rows": 0,
            "target": {key: value for key, value in fields if value not in (None, np.inf)},
            "class_weight": classes,
        },
    }


class LinearGraph:
    """An exported linear model whose weights can be changed; what stands before and behind them stays.

    Args:
        model: the ONNX file's content.
        quantile: that a number is predicted at; None: the mean.

    Raises:
        UserError: when the graph has not one linear node.
    """

    def __init__(self, model: bytes, quantile: float | None) -> None:
        self._graph = onnx.load_from_string(model)
        nodes = [node for node in self._graph.graph.node if node.op_type in LINEAR_NODES]
        if len(nodes) != 1:
            raise UserError(
                "problem/models.py: the candidate linear is no linear model once exported"
            )
        self._node = {attribute.name: attribute for attribute in nodes[0].attribute}
        read = {k: onnx.helper.get_attribute_value(v) for k, v in self._node.items()}
        rows = np.reshape(read["coefficients"], (len(read["intercepts"]), -1))
        beta = np.vstack([rows.T, read["intercepts"]])
        self._classes = np.asarray(read.get("classlabels_ints", ()))
        # Of two classes the first column is the second's negative
        self._is_pair = len(self._classes) == 2
        self.beta = beta[:, 1:] if self._is_pair else beta
        self._loss = _of_number(quantile)
        if len(self._classes):
            self._loss = _of_two if self._is_pair else _of_classes
        prepared = onnx.ModelProto()
        prepared.CopyFrom(self._graph)
        form = onnx.TensorProto.FLOAT, [None, len(beta) - 1]
        matrix = onnx.helper.make_tensor_value_info(nodes[0].input[0], *form)
        prepared.graph.output.pop()
        prepared.graph.output.append(matrix)
        self._matrix = load_scorer(prepared.SerializeToString(deterministic=True))

    def content(self) -> bytes:
        """The file with the weights of now; equal weights give equal bytes."""
        columns = np.hstack([-self.beta, self.beta]) if self._is_pair else self.beta
        self._node["coefficients"].floats[:] = columns[:-1].T.ravel()
        self._node["intercepts"].floats[:] = columns[-1]
        return bytes(self._graph.SerializeToString(deterministic=True))

    def learn(
        self, rows: pd.DataFrame, y: Array, weight: Array, target: Target, memory_rows: float
    ) -> None:
        """Change the weights by a block of n rows.

        Args:
            y: labels, those of no known class are left out; weight: how much each row counts, each of shape (n,).
            target: of a number.
            memory_rows: as `updated` takes it.
        """
        if len(self._classes):
            usable, aims = np.isin(y, self._classes), np.searchsorted(self._classes, y)
        else:
            aims = target.forward(y)
            usable = np.isfinite(aims)
        if not usable.any():
            return
        x = np.column_stack([self._matrix.run(rows)[usable], np.ones(usable.sum())])
        x = x.astype(np.float64)
        self.beta = updated(self.beta, x, aims[usable], weight[usable], self._loss, memory_rows)


def updated(
    beta: Array, x: Array, y: Array, weight: Array, loss: Loss, memory_rows: float
) -> Array:
    """The weights that are best for a block of n rows and near to the old ones (Chapelle and Li, 2011, algorithm 3).

    What was learnt before holds each weight as firmly as `memory_rows` rows like these would, so what is older counts
    for less and less; a weight whose column is 0 in all rows stays.

    Args:
        beta: shape (features + 1, outputs), the intercepts last; x: shape (n, features + 1), its last column 1; y:
            labels; weight: how much each row counts, each of shape (n,).
        loss: of raw scores, shape (n, outputs), and labels: that of each row, shape (n,), and by each score its
            gradient and second derivative.
    """
    curvature = loss(x @ beta, y)[2] * weight[:, None]
    firmness = memory_rows * (x**2).T @ curvature / weight.sum()
    step = np.where(firmness > 0, 1 / np.sqrt(np.maximum(firmness, 1e-12)), 0.0)

    def aim(flat: Array) -> tuple[float, Array]:
        moved = flat.reshape(beta.shape)
        value, gradient, _ = loss(x @ (beta + step * moved), y)
        slope = step * (x.T @ (gradient * weight[:, None])) + moved
        return float(weight @ value + (flat**2).sum() / 2), slope.ravel()

    best = minimize(aim, np.zeros(beta.size), jac=True, method="L-BFGS-B").x
    return np.asarray(beta + step * best.reshape(beta.shape))


def _of_classes(score: Array, y: Array) -> tuple[Array, Array, Array]:
    chance, rows = softmax(score, axis=1), np.arange(len(y))
    gradient = chance.copy()
    gradient[rows, y] -= 1
    return logsumexp(score, axis=1) - score[rows, y], gradient, chance * (1 - chance)


def _of_two(score: Array, y: Array) -> tuple[Array, Array, Array]:
    chance, truth = expit(score), y[:, None]
    loss = np.logaddexp(0, score) - truth * score
    return loss[:, 0], chance - truth, chance * (1 - chance)


def _of_number(quantile: float | None) -> Loss:
    """Squared error, or a quantile's loss, rounded where it has a corner (Zheng, 2011)."""

    def loss(score: Array, y: Array) -> tuple[Array, Array, Array]:
        error = score - y[:, None]
        if quantile is None:
            return error[:, 0] ** 2 / 2, error, np.ones_like(error)
        over = expit(error / SMOOTHED)
        value = SMOOTHED * np.logaddexp(0, error / SMOOTHED) - quantile * error
        return value[:, 0], over - quantile, over * (1 - over) / SMOOTHED

    return loss


def write_folder(
    folder: Path,
    model: bytes,
    manifest: dict[str, Any],
    rows: pd.DataFrame,
    basis: Path,
    settings: Settings,
    root: Path,
) -> None:
    """Fill a new folder with the model and all that belongs to it.

    Args:
        rows: that were learnt from now; basis: the folder of the model before, or of the one in production.
    """
    (folder / paths.MODEL_FILE).write_bytes(model)
    manifest["sha256"] = hashlib.sha256(model).hexdigest()
    shutil.copyfile(basis / paths.BASELINE_FILE, folder / paths.BASELINE_FILE)
    train = root / paths.SPLITS["train"]
    with duckdb.connect() as sql:
        sql.register("rows", rows[["_row_key", "_digest"]])
        for column, file, before in (
            ("_row_key", paths.FITTED_FILE, [train, basis / paths.FITTED_FILE]),
            ("_digest", paths.LEARNT_FILE, [basis / paths.LEARNT_FILE]),
        ):
            present = [text(str(path)) for path in before if path.is_file()]
            union = "".join(f" UNION SELECT {column} FROM read_parquet({p})" for p in present)
            target = text(str(folder / file))
            sql.execute(f"COPY (SELECT {column} FROM rows{union} ORDER BY 1) TO {target}")
    if attribution := part_module("analysis.attribution"):
        kinds = inputs(settings)
        parts = load(train, kinds), kinds, Target(**manifest["learning"]["target"])
        reasons = attribution.reasons_file(model, *parts, settings.project.seed)
        (folder / paths.REASONS_FILE).write_bytes(reasons)
        manifest["reasons"] = hashlib.sha256(reasons).hexdigest()
    (folder / paths.MANIFEST_FILE).write_text(
        json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8", newline="\n"
    )
    reference = part_module("monitoring.reference")
    if reference and (basis / paths.REFERENCE_FILE).is_file():
        reference.reference(settings, root, folder.relative_to(root).as_posix())
