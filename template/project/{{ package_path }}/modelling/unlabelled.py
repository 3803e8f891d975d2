"""Rows without a label that models label, for training alone: the project's own (self-training) or a given one.

Each way is tried beside the rows as they are. Such rows stand only among those that a model is fitted to, in
`modelling.fitting.fit_model`: none of them compares, calibrates or tests a model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np

from .. import problem
from ..data.label import LEAST_SHARE
from ..data.schema import stored
from ..model import Model, ModelError
from ..paths import FITTED_FILE, SPLITS
from ..problem import data as problem_data
from ..settings import Settings, UserError, require_file
from .folds import RowKeys

KEY = "labelling.unlabelled.given_model"

Array = np.ndarray


@dataclass(frozen=True)
class Unlabelled:
    """m rows without a label, prepared as the labelled ones, and how they get one.

    Args:
        matrix: shape (m, width); keys: what keeps them apart, as of rows with a label.
        scores: of a given model, shape (m,), or (m, classes); None: the model that is fitted labels them itself.
        sure: how likely its likeliest label is at least, for a row to be taken.
        weight: how much a row counts beside one with a label.
    """

    matrix: Array
    keys: RowKeys
    scores: Array | None
    sure: float
    weight: float

    def labelled(self, scores: Array) -> tuple[Array, Array, RowKeys]:
        """The rows that scores are sure of, with labels.

        Of a given model once for each likely label, weighed by how likely (distillation: Hinton et al., 2015). Of the
        model itself with the likeliest one (Lee, 2013): how likely it takes each to be, it knows already.

        Args:
            scores: calibrated, shape (m,), or (m, classes).

        Returns:
            the positions of the rows, the codes of their labels, each of shape (copies,), and their keys.
        """
        chances = scores if scores.ndim > 1 else np.column_stack([1 - scores, scores])
        is_sure = chances.max(axis=1) >= self.sure
        if self.scores is None:
            chances = np.eye(chances.shape[1])[chances.argmax(axis=1)]
        rows, codes = np.nonzero((chances >= LEAST_SHARE) & is_sure[:, None])
        keys, labels = self.keys.take(rows), codes.astype(np.float64)
        weight = self.weight * chances[rows, codes]
        return rows, labels, replace(keys, label=labels, unit=rows, weight=weight)


def given_model(settings: Settings, root: Path) -> Model | None:
    """The model that `labelling.unlabelled.given_model` names; None without one.

    Raises:
        UserError: when it is not there, takes columns that the data does not have, tells other labels apart, or was
            fitted to rows that judge models here.
    """
    if "unlabelled rows" in problem.LEFT_OUT or not settings.labelling:
        return None
    unlabelled = settings.labelling.unlabelled
    if unlabelled is None or unlabelled.given_model is None:
        return None
    folder, position = (
        root / unlabelled.given_model,
        f"params.yaml: {KEY}: {unlabelled.given_model}",
    )
    try:
        model = Model(folder)
    except ModelError as error:
        raise UserError(
            f"{position}: {error}; name a folder with model.onnx and manifest.json"
        ) from None
    types = {name: column.type for name, column in stored(settings).items()}
    missing = sorted(name for name, type_ in model.types.items() if types.get(name) != type_)
    if missing:
        raise UserError(
            f"{position}: reads {', '.join(missing[:3])}, which data.schema.columns has not in that type"
        )
    here = {
        "problem": settings.project.problem,
        "named_labels": problem_data.named(settings.data.label),
    }
    for key, value in here.items():
        if model.manifest.get(key) != value:
            raise UserError(
                f"{position}: its {key} is {model.manifest.get(key)}, here it is {value}; name a model of the same labels"
            )
    _require_unseen(folder, root, position)
    return model


def _require_unseen(folder: Path, root: Path, position: str) -> None:
    """Refuse a model that was fitted to rows of valid or test: it would hand on what it learnt of their labels."""
    fitted, judges = (
        folder / FITTED_FILE,
        [str(require_file(root / SPLITS[part])) for part in ("valid", "test")],
    )
    if not fitted.is_file():
        return
    query = "SELECT count(*) FROM read_parquet(?) WHERE _row_key IN (SELECT _row_key FROM read_parquet(?))"
    ((shared,),) = duckdb.execute(query, [judges, str(fitted)]).fetchall()
    if shared:
        raise UserError(
            f"{position}: was fitted to {shared:,} rows of valid and test here, and would hand on their labels; "
            f"name a model of other rows"
        )
