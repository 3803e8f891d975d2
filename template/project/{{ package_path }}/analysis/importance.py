"""Which columns matter: what the figure loses without each of them, what each adds to the scores, and which could go.

A column's values are shuffled under the model that ships (permutation importance; Breiman, 2001), on the test rows.
Families are left out and the model is fitted again without them, compared on the validation rows. What each column adds to
scores: contributions.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..data.source import report as write
from ..features.catalogue import inputs, load, load_truth, load_weight, selected, sources
from ..goals.gate import Gain, gain_interval, measure, representatives, resample, sample_rows
from ..model import Scorer
from ..modelling.behaviour import direction
from ..modelling.evaluate import read_manifest
from ..modelling.fitting import (
    BASELINES,
    Fitted,
    find_sizes,
    fit_features,
    fit_head,
    fit_model,
)
from ..modelling.scorer import load_scorer
from ..modelling.train import rows_to_fit
from ..paths import IMPORTANCE_PICTURE, MANIFEST, MODEL, SPLITS
from ..problem import models
from ..problem.features import judged, leading
from ..problem.goals import decide, fit_decision, unit
from ..settings import Settings
from .attribution import reached
from .contributions import exact_contributions, sampled_contributions

MAX_ROWS, MAX_SLOW_ROWS = (
    20_000,
    1_000,
)  # of test and of validation; of a model that reads texts or images
EXPLAINED, ORDERS = (
    100,
    5,
)  # rows whose Shapley values are sampled, and orders of the columns, each both ways
SHUFFLES = 3  # of each column, whose figures are averaged
PENALTY = 1e-3  # ridge, of a feature's fit to those of other columns, a share of their spread
REPEATED = 0.9  # R² from which on the other columns say what a column says
AGAINST = 0.1  # share of rows whose score moves against a hypothesis that still holds

Array = np.ndarray


class ColumnRow(TypedDict):
    """What is told of a raw column."""

    permutation: Gain  # what the metric loses when its values are shuffled
    contribution: float  # its share of all contributions to the scores
    repeated: float | None  # R² of its features by those of the other columns; None: a constant
    like: str | None  # the column that it goes along with the most


class FamilyRow(TypedDict):
    """What is told of a family of features, or of several columns: what the metric loses without them."""

    features: list[str]
    loss: Gain | None  # None: nothing would be left to learn from


class HypothesisRow(TypedDict):
    """A belief about a column, and whether the model bears it out."""

    expected: str
    against: float  # share of rows whose score moves the other way
    verdict: str  # held, not held or open


class Importance(TypedDict):
    """reports/importance.json."""

    metric: str
    verdict: str
    model: str
    rows: int
    columns: dict[str, ColumnRow]
    families: dict[str, FamilyRow]
    could_go: dict[str, Any]
    hypotheses: dict[str, HypothesisRow]
    contributions: dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """Rows that a figure is taken of: raw, their truth, and how often each counts in each resample."""

    raw: pd.DataFrame
    truth: Array
    weights: Array

    @classmethod
    def of(cls, settings: Settings, root: Path, part: str) -> Rows:
        """Some rows of a part of the split, each as often as it counts."""
        raw, y = load(root / SPLITS[part], inputs(settings)), load_truth(root / SPLITS[part])
        alike = representatives(len(y), load_weight(root / SPLITS[part]))
        raw, y, _, _ = judged(raw.iloc[alike], y[alike], settings.project.seed)
        is_slow = {"text", "image"} & {*inputs(settings).values()}
        max_rows = MAX_SLOW_ROWS if is_slow else MAX_ROWS
        drawn = sample_rows(len(y), max_rows, settings.project.seed, unit(y))
        raw, y = raw.iloc[drawn].reset_index(drop=True), y[drawn]
        goals, seed = settings.goals, settings.project.seed
        return cls(raw, y, resample(len(y), goals.interval.resamples, seed, unit(y)))

    def draws(self, metric: str, score: Array, decision: Any) -> Array:
        """The metric of these rows' scores by resample, shape (resamples,)."""
        return np.asarray(measure(metric, self.truth, score, decide(score, decision), self.weights))


def importance(settings: Settings, root: Path) -> Importance:
    """Write reports/importance.json and its picture.

    Raises:
        UserError: when the split or the model is missing.
    """
    manifest, scorer = read_manifest(root / MANIFEST), load_scorer(root / MODEL)
    test, metric = Rows.of(settings, root, "test"), settings.goals.metric
    shuffled = _shuffled(scorer, test, manifest["decision"], settings)
    judge = Judge.of(settings, root, str(manifest["chosen"]).partition(" ")[0])
    contributions = judge.contributions() or _sampled_shares(scorer, test, settings)
    repeated = judge.repeated()
    columns: dict[str, ColumnRow] = {}
    for name in inputs(settings):
        repetition, like = repeated.get(name, (None, None))
        columns[name] = {
            "permutation": shuffled[name],
            "contribution": contributions["shares"][name],
            "repeated": repetition,
            "like": like,
        }
    families: dict[str, list[str]] = {}
    for name, feature in selected(settings).items():
        families.setdefault(feature.family, []).append(name)
    could_go = _could_go(settings, judge, shuffled)
    result: Importance = {
        "metric": metric,
        "verdict": _verdict(metric, could_go, settings),
        "model": manifest["chosen"],
        "rows": len(test.truth),
        "columns": columns,
        "families": {
            family: {"features": names, "loss": judge.loss_without(names)}
            for family, names in sorted(families.items())
        },
        "could_go": could_go,
        "hypotheses": _hypotheses(settings, scorer, test, shuffled),
        "contributions": {key: contributions[key] for key in ("by", "gap")},
    }
    write(root, "importance", result)
    _draw(root / IMPORTANCE_PICTURE, result)
    return result


def _shuffled(scorer: Scorer, test: Rows, decision: Any, settings: Settings) -> dict[str, Gain]:
    """What the metric loses, column by column, when its values are shuffled among the rows."""
    goals, rng = settings.goals, np.random.default_rng(settings.project.seed)
    before = test.draws(goals.metric, scorer.score(test.raw), decision)
    losses = {}
    for name in inputs(settings):
        draws = []
        for _ in range(SHUFFLES):
            values = shuffle(test.raw[name].to_numpy(), unit(test.truth), rng)
            score = scorer.score(test.raw.assign(**{name: values}))
            draws.append(test.draws(goals.metric, score, decision))
        losses[name] = gain_interval(goals.metric, before, np.mean(draws, axis=0), goals.interval)
    return losses


def shuffle(values: Array, units: Array | None, rng: np.random.Generator) -> Array:
    """Values of n rows in random order; where each list or series has one value, lists change theirs with one another.

    A value that is the same for all rows of a list places none of them, and among rows of other lists it would seem to.

    Args:
        units: what rows belong together in, shape (n,), as `problem.goals.unit` tells it; None: each is by itself.
    """
    if units is not None:
        _, first, codes = np.unique(units, return_index=True, return_inverse=True)
        if pd.Series(values).groupby(codes).nunique(dropna=False).max() == 1:
            return np.asarray(values[first][rng.permutation(len(first))][codes])
    return np.asarray(values[rng.permutation(len(values))])


@dataclass(frozen=True)
class Judge:
    """The chosen model fitted to the training rows, and what the validation rows say of it."""

    settings: Settings
    train: tuple[pd.DataFrame, Array, Any]
    valid: Rows
    method: str
    size: Any
    fitted: Fitted
    preparation: Any
    draws: Array

    @classmethod
    def of(cls, settings: Settings, root: Path, method: str) -> Judge:
        """Fit a model of a baseline's or candidate's name, with the size of its trees that is best on these rows."""
        train = rows_to_fit(root / SPLITS["train"], settings)
        valid = Rows.of(settings, root, "valid")
        preparation, table = fit_features(*train, settings)
        sizes = (
            {} if method in BASELINES else find_sizes([method], table, settings, use_folds=False)
        )
        size = sizes.get(models.SIZED.get(method, ""))
        fitted = fit_model(method, table, size, settings)
        draws = _valid_draws(fitted, preparation, valid, settings)
        return cls(settings, train, valid, method, size, fitted, preparation, draws)

    def loss_without(self, features: Collection[str]) -> Gain | None:
        """What the metric loses when the model is fitted without some features, but those that it cannot be without.

        None: nothing would be left out, or nothing left.
        """
        removed = {*features} - essential(self.settings)
        catalogue = self.settings.features.catalogue
        left = {name: feature for name, feature in catalogue.items() if name not in removed}
        block = self.settings.features.model_copy(update={"catalogue": left})
        settings = self.settings.model_copy(update={"features": block})
        if not removed or not inputs(settings):
            return None
        rows, y, keys = self.train
        preparation, table = fit_features(rows[[*inputs(settings)]], y, keys, settings)
        fitted = fit_model(self.method, table, self.size, settings)
        without = _valid_draws(fitted, preparation, self.valid, settings)
        goals = self.settings.goals
        return gain_interval(goals.metric, self.draws, without, goals.interval)

    def contributions(self) -> dict[str, Any] | None:
        """What each column adds to the scores of the validation rows; None where the model has no exact way to tell.

        Returns:
            `by`: the way; `shares`: of the mean of all absolute contributions by column, a feature of two columns
            counting half for each; `gap`: the largest difference between the sum of a row's contributions and its
            score before calibration.
        """
        matrix = self.preparation.transform(self.valid.raw)
        exact = exact_contributions(self.fitted.model, matrix)
        if exact is None:
            return None
        by, values, gap = exact
        reached = self._reached
        total = np.abs(values).mean(axis=(0, 2))  # (width,)
        columns_of = np.maximum(1, np.sum([*reached.values()], axis=0))
        shares = {name: float((total / columns_of)[mask].sum()) for name, mask in reached.items()}
        return {"by": by, "shares": _to_shares(shares), "gap": gap}

    def repeated(self) -> dict[str, tuple[float, str | None]]:
        """How well the features of each column follow from those of the others: R², and the column that is most like it."""
        matrix = np.asarray(self.preparation.transform(self.valid.raw), np.float64)
        spread = matrix.std(axis=0)
        scaled = (matrix - matrix.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        reached = {name: mask & (spread > 0) for name, mask in self._reached.items()}
        alike = np.abs(scaled.T @ scaled) / len(scaled)
        result: dict[str, tuple[float, str | None]] = {}
        for name, mask in reached.items():
            if not mask.any():
                continue
            outer = {n: m & ~mask for n, m in reached.items() if n != name}
            outside = np.any([*outer.values(), np.zeros_like(mask)], axis=0)
            x, y = scaled[:, outside], scaled[:, mask]
            left = y - x @ np.linalg.solve(x.T @ x + PENALTY * len(x) * np.eye(x.shape[1]), x.T @ y)
            likeness = {n: alike[np.ix_(mask, m)].max() for n, m in outer.items() if m.any()}
            like = max(likeness, key=lambda n: likeness[n], default=None)
            result[name] = max(0.0, 1 - float((left**2).mean())), like
        return result

    @cached_property
    def _reached(self) -> dict[str, Array]:
        return reached(self.preparation.transform, self.valid.raw, inputs(self.settings))


def essential(settings: Settings) -> set[str]:
    """The features without which there is no model of this kind: those of the columns that a history is read by."""
    features = selected(settings)
    if not any(feature.encode == "course" for feature in features.values()):
        return set()
    read = {raw for _, columns in leading(settings, inputs(settings)) for raw in columns}
    return {name for name, feature in features.items() if {*sources(name, feature)} <= read}


def _valid_draws(fitted: Fitted, preparation: Any, valid: Rows, settings: Settings) -> Array:
    """The metric of a fitted model on the validation rows by resample, calibrated and decided as `train` does."""
    raw = fitted.raw(preparation.transform(valid.raw))
    score = fit_head(raw, valid.truth, fitted.target, settings)(raw)
    goals = settings.goals
    decision = fit_decision(valid.truth, score, goals.costs, goals.decision)
    return valid.draws(goals.metric, score, decision)


def _sampled_shares(scorer: Scorer, test: Rows, settings: Settings) -> dict[str, Any]:
    """As `Judge.contributions`, of any model: its answers to some test rows beside others."""
    rows, seed = test.raw.head(EXPLAINED), settings.project.seed
    values = sampled_contributions(scorer.score, rows, test.raw, ORDERS, seed)
    means = dict(zip(rows, np.abs(values).mean(axis=(0, 2)).tolist(), strict=True))
    by = f"sampled Shapley values of {len(rows)} test rows"
    return {"by": by, "shares": _to_shares(means), "gap": None}


def _to_shares(amounts: Mapping[str, float]) -> dict[str, float]:
    return {name: amount / (sum(amounts.values()) or 1.0) for name, amount in amounts.items()}


def _could_go(settings: Settings, judge: Judge, shuffled: Mapping[str, Gain]) -> dict[str, Any]:
    """The columns without which the metric loses nothing that is beyond noise, and what it loses without all of them."""
    columns = [
        name
        for name, loss in shuffled.items()
        if loss["low"] <= 0 and name not in settings.features.hypotheses
    ]
    features = [
        name
        for name, feature in selected(settings).items()
        if {*sources(name, feature)} & {*columns}
    ]
    cost = sum(settings.features.catalogue[name].cost for name in features)
    loss = judge.loss_without(features) if features else None
    return {"columns": columns, "features": features, "loss": loss, "cost": cost}


def _hypotheses(
    settings: Settings, scorer: Scorer, test: Rows, shuffled: Mapping[str, Gain]
) -> dict[str, HypothesisRow]:
    """Whether the model bears out what was believed of columns: that they matter, and which way they move the score."""
    expected, level = settings.features.hypotheses, settings.goals.interval.level
    before = scorer.score(test.raw)
    moves = direction(
        scorer.score, test.raw, before, test.truth, expected, settings.data.label, level
    )
    rows: dict[str, HypothesisRow] = {}
    for name, against in moves.items():
        verdict = "open"
        if shuffled[name]["low"] > 0 and against.value <= AGAINST:
            verdict = "held"
        elif shuffled[name]["low"] > 0 and against.value >= 1 - AGAINST:
            verdict = "not held"
        rows[name] = {"expected": expected[name], "against": against.value, "verdict": verdict}
    return rows


def _draw(path: Path, result: Importance) -> None:
    from matplotlib.figure import Figure

    rows = {name: row["permutation"] for name, row in result["columns"].items()}
    families = {name: row["loss"] for name, row in result["families"].items() if row["loss"]}
    height = 1.5 + 0.28 * (len(rows) + len(families))
    picture = Figure(figsize=(7, height), layout="constrained")
    upper, lower = picture.subplots(2, 1, height_ratios=[len(rows), max(1, len(families))])
    for axes, losses, title in (
        (upper, rows, "Values shuffled (test rows)"),
        (lower, families, "Family left out, fitted again (validation rows)"),
    ):
        ordered = sorted(losses, key=lambda name: losses[name]["gain"])
        for position, name in enumerate(ordered):
            loss = losses[name]
            axes.plot([loss["low"], loss["high"]], [position, position], color="tab:blue", lw=2)
            axes.plot(loss["gain"], position, "o", color="tab:blue")
        axes.axvline(0, color="grey", lw=0.8)
        axes.set_yticks(range(len(ordered)), [name.replace("$", r"\$")[:40] for name in ordered])
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(f"{result['metric']} lost")
        axes.set_ylim(-0.6, len(ordered) - 0.4)
    picture.savefig(path, dpi=100)


def _loss_text(loss: Gain | None) -> str:
    if loss is None:
        return "–"
    # What floats leave of nothing is nothing
    gain, low, high = (round(loss[key], 12) + 0.0 for key in ("gain", "low", "high"))
    return f"{gain:+.3g} ({low:+.2g} to {high:+.2g})"


def show(result: Importance, console: Console) -> None:
    """Print the columns, the dearest loss first, the families, the hypotheses, and what could go."""
    metric = result["metric"]
    table = Table(
        "column",
        f"{metric} lost, shuffled",
        "adds to scores",
        "follows from others",
        box=SIMPLE_HEAD,
    )
    ordered = sorted(result["columns"].items(), key=lambda item: -item[1]["permutation"]["gain"])
    for name, row in ordered:
        share, repeated = row["contribution"], row["repeated"]
        repeats = "–" if repeated is None else f"{repeated:.0%}"
        if repeated is not None and repeated >= REPEATED and row["like"]:
            repeats += f", most like {row['like']}"
        table.add_row(escape(name), _loss_text(row["permutation"]), f"{share:.0%}", escape(repeats))
    console.print(table)
    for family, entry in result["families"].items():
        console.print(
            f"· without the family {family} ({len(entry['features'])} features) {metric} loses {_loss_text(entry['loss'])}"
        )
    for name, hypothesis in result["hypotheses"].items():
        against = f"{hypothesis['against']:.0%} of the rows move against it"
        console.print(
            f"· {name}: {hypothesis['expected']}: {hypothesis['verdict']} ({against})", markup=False
        )
    console.print(f"{result['verdict']} ({IMPORTANCE_PICTURE})", markup=False)


def _verdict(metric: str, gone: Mapping[str, Any], settings: Settings) -> str:
    """What could go, in a sentence."""
    if not gone["columns"]:
        return f"Each column earns its keep: without any of them {metric} loses beyond noise."
    names = ", ".join(gone["columns"])
    if gone["loss"] is None:
        return f"Nothing would be left without {names}, none of which counts beyond noise."
    loss = f"without all of them {metric} loses {_loss_text(gone['loss'])}"
    if gone["loss"]["low"] > 0:
        return f"None of {names} is missed by itself, but {loss}."
    saving = f", and {gone['cost']:g} a month are saved" if gone["cost"] else ""
    catalogue = settings.features.catalogue
    owners = sorted({owner for name in gone["features"] if (owner := catalogue[name].owner)})
    note = f"; ask {', '.join(owners)}" if owners else ""
    return f"These could go: {names}: {loss}{saving}{note}."
