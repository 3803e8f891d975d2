"""Why one row has its score, told by a file beside the model: what each raw column adds.

Exactly for trees (Shapley values along their paths; Lundberg et al., 2020) and for a linear model; of any other by a
local surrogate, a weighted linear model of its answers around the row (LIME; Ribeiro et al., 2016), with its fit.
Needs numpy and onnxruntime only: the service imports it.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..model import TEXTS_AT_ONCE, Array, Columns, Model, ModelError, Scorer
from ..paths import REASONS_FILE
from ..problem import WIDE

LEAVES = ("feature", "low", "high", "missing", "cover", "value")  # of those with as many bounds
KERNEL = 0.5  # share of replaced columns at which a row around the one in question counts 1/e
LOWEST = 1e-7  # of a score, where a surrogate tells of log-odds
PENALTY = 1e-3  # of the surrogate's ridge, beside weights that add up to 1


class Reasons(NamedTuple):
    """What each raw column adds to a row's score beside `base`, the most first.

    `way`: how that was told. `unit`: of all amounts. `class_`: whose score it is, where each class has one. `sum`:
    of base and amounts. `fit`: None where that is the raw score; else the surrogate's weighted R², and the sum is what
    the surrogate says.
    """

    way: str
    unit: str
    class_: str | None
    base: float
    sum: float
    fit: float | None
    columns: list[tuple[str, float]]


class Explainer:
    """What tells why a model says what it says.

    Args:
        folder: of the model; holds `paths.REASONS_FILE`.
        model: the one of that folder.

    Raises:
        ModelError: when the file is missing, damaged, of another model, or cannot tell of one like this.
    """

    def __init__(self, folder: Path, model: Model) -> None:
        file, sha256 = folder / REASONS_FILE, model.manifest.get("reasons")
        if not sha256:
            raise ModelError(f"{folder}: this model came without reasons; train it anew")
        try:
            content = file.read_bytes()
            if hashlib.sha256(content).hexdigest() != sha256:
                raise ModelError(f"{file}: its checksum is not the manifest's")
            arrays: dict[str, Array] = dict(np.load(io.BytesIO(content)))
            about = json.loads(str(arrays.pop("about")))
            self.model, self.names = model, list(about["columns"])
            self.way, self.unit = str(about["way"]), str(about["unit"])
            tells = {"trees": Trees, "linear": Linear, "surrogate": Surrogate}[about["kind"]]
            self._tell: Any = tells(arrays, model)
        except OSError as error:
            raise ModelError(f"{error.filename}: {error.strerror}") from None
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ModelError(f"{file}: no reasons that can be read: {error!r}") from None

    def explain(self, columns: Columns, column: int = 0) -> Reasons:
        """Why one row has its score.

        Args:
            columns: a single row, as `Scorer.run` takes it.
            column: the score that is meant, where a row has several.
        """
        base, amounts, fit = self._tell.amounts(columns, column)
        listed = sorted(zip(self.names, amounts.tolist(), strict=True), key=lambda c: -abs(c[1]))
        class_ = self.model.classes[column] if WIDE else None
        total = float(base + amounts.sum())
        return Reasons(self.way, self.unit, class_, float(base), total, fit, listed)


class Linear:
    """A linear model: each feature's weight by its distance from the mean."""

    def __init__(self, arrays: dict[str, Array], model: Model) -> None:
        self.matrix = Scorer(arrays["graph"].tobytes())
        self.shares, self.base = arrays["shares"], arrays["base"]
        self.weights, self.mean = arrays["weights"], arrays["mean"]

    def amounts(self, columns: Columns, column: int) -> tuple[float, Array, float | None]:
        """The base, what each raw column adds, and None: the sum is exact."""
        row = self.matrix.run(columns)[0].astype(np.float64)
        return self.base[column], ((row - self.mean) * self.weights[column]) @ self.shares, None


class Trees:
    """A sum of trees, whose leaves are bounds on d features each; those of like d are summed together.

    Of a leaf of value v with covers z and met bounds o, each of d features, feature i gets v (o_i - z_i) times
    the integral over t from 0 to 1 of the product over the other features of z (1 - t) + o t: a polynomial, which
    Gauss's rule of d / 2 points sums without error.
    """

    def __init__(self, arrays: dict[str, Array], model: Model) -> None:
        self.matrix = Scorer(arrays["graph"].tobytes())
        self.shares, self.base = arrays["shares"], arrays["base"]
        self.blocks = []
        for d in arrays["bounds"].tolist():
            feature, low, high, missing, cover, value = (arrays[f"{name} {d}"] for name in LEAVES)
            points, weights = np.polynomial.legendre.leggauss((d + 1) // 2)
            rule = [
                ((p + 1) / 2, w / 2, cover * (1 - p) / 2)
                for p, w in zip(points, weights, strict=True)
            ]
            self.blocks.append((feature.astype(np.intp), low, high, missing, cover, value, rule))

    def amounts(self, columns: Columns, column: int) -> tuple[float, Array, float | None]:
        """The base, what each raw column adds, and None: the sum is exact."""
        row = self.matrix.run(columns)[0]
        absent, added = np.isnan(row), np.zeros(len(row))
        for feature, low, high, missing, cover, value, rule in self.blocks:
            x = row.take(feature)
            is_met = (x > low) & (x <= high)
            if absent.any():
                is_met = np.where(absent.take(feature), missing, is_met)
            met = is_met.astype(np.float64)
            total = np.zeros_like(met)
            for t, weight, unmet in rule:
                factors = met * t
                factors += unmet
                product = np.multiply.reduce(factors, axis=0) * weight
                total += np.divide(product, factors, out=factors)
            met -= cover
            total *= met
            total *= value[column]
            added += np.bincount(feature.ravel(), total.ravel(), len(row))
        return self.base[column], added @ self.shares, None


class Surrogate:
    """A ridge of the model's answers to copies of the row, in which some columns have usual values instead.

    Which columns, and which values, stands in the file: equal rows get equal reasons.
    """

    def __init__(self, arrays: dict[str, Array], model: Model) -> None:
        if model.images or model.tokens:
            raise ModelError("this model takes too long for the copies of a row that would tell")
        keeps = arrays["kept"]  # (copies, columns), bool: whether a copy keeps the row's value
        self.model, (n, width) = model, keeps.shape
        self.by_odds = bool(arrays["by_odds"])
        drawn = {name: arrays[f"drawn {i}"] for i, name in enumerate(model.types)}
        usual = {
            n: values.astype(object) if values.dtype.kind == "U" else values
            for n, values in drawn.items()
        }
        self.usual = model.feed(usual)
        self.taken = {name: np.flatnonzero(keeps[:, i]) for i, name in enumerate(model.types)}
        self.features = np.column_stack([np.ones(n), keeps])
        near = np.exp(-(((1 - keeps.mean(axis=1)) / KERNEL) ** 2))
        self.weights = near / near.sum()
        weighed = self.features.T * self.weights
        ridge = PENALTY * np.diag([0.0, *np.ones(width)])
        self.solution = np.linalg.solve(weighed @ self.features + ridge, weighed)
        self.step = TEXTS_AT_ONCE if model.texts else n

    def amounts(self, columns: Columns, column: int) -> tuple[float, Array, float | None]:
        """The base, what each raw column adds, and how well that tells the answers around the row: R²."""
        row, feed, parts = self.model.feed(columns, slice(1)), {}, []
        for name, values in self.usual.items():
            feed[name] = values.copy()
            feed[name][self.taken[name]] = row[name]
        for start in range(0, len(self.weights), self.step):
            part = {name: values[start : start + self.step] for name, values in feed.items()}
            parts.append(self.model.session.run(None, part)[0][:, column])
        scores = np.concatenate(parts).astype(np.float64)
        if self.by_odds:
            scores = np.clip(scores, LOWEST, 1 - LOWEST)
            scores = np.log(scores / (1 - scores))
        fitted = self.solution @ scores
        left, around = scores - self.features @ fitted, scores - self.weights @ scores
        spread = self.weights @ around**2
        return fitted[0], fitted[1:], float(1 - self.weights @ left**2 / spread) if spread else 1.0
