"""Learning curves: what more rows gain, and what a bigger model gains, on the validation rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..data.source import report as write
from ..features.catalogue import inputs, load, load_truth, load_weight
from ..goals.gate import Gain, gain_interval, interval, measure, representatives, resample
from ..modelling.boosting import Size
from ..modelling.fitting import find_sizes, fit_features, fit_head, fit_model
from ..modelling.folds import RowKeys
from ..modelling.train import rows_to_fit
from ..paths import CURVES_PICTURE, SPLITS
from ..problem.goals import METRICS, decide, fit_decision, unit
from ..settings import Settings

SHARES = (0.125, 0.25, 0.5, 1.0)
SIZES = {"small": 0.25, "medium": 1.0, "large": 4.0}  # leaves of a tree against the candidate's
MAX_ROWS = 20_000  # of validation, that an interval is drawn from
Array = np.ndarray


class Staleness(Gain):
    """What a model loses whose training rows end earlier."""

    days: float  # how much earlier


def curves(settings: Settings, root: Path) -> dict[str, Any]:
    """Fit boosted trees of three sizes on an eighth to all of the training rows, and compare.

    A share below 1 is drawn twice, without common rows, and its figure is the mean of the two.

    Returns:
        what reports/curves.json holds: {"metric", "verdict", "data", "model", "newest", "staleness",
        "points"}. `data` is the gain of the last doubling of the rows, `model` that of the largest
        size over the medium one, `newest` that of all rows over the newest eighth (None where the
        rows have no time), and `staleness` what a model loses by age, each with its interval.
        `points` are the curves: {"size", "rows", "value", "low", "high"}.

    Raises:
        UserError: when the split is missing.
    """
    goals, seed = settings.goals, settings.project.seed
    rows, y, keys = rows_to_fit(root / SPLITS["train"], settings)
    valid, truth = (
        load(root / SPLITS["valid"], inputs(settings)),
        load_truth(root / SPLITS["valid"]),
    )
    rng = np.random.default_rng(seed)
    of_valid = _cases(truth)
    case_count = int(of_valid.max()) + 1
    picked = rng.permutation(case_count)[: max(1, MAX_ROWS * case_count // len(of_valid))]
    alike = representatives(len(of_valid), load_weight(root / SPLITS["valid"]))
    sample = alike[np.isin(of_valid[alike], picked)]
    valid, truth = valid.iloc[sample], truth[sample]
    weights = resample(len(sample), goals.interval.resamples, seed, unit(truth))

    def figure(drawn: Array, size: str) -> tuple[float, Array]:
        train = rows.iloc[drawn], y[drawn], keys.take(drawn)
        score = _score(*train, valid, truth, sizes[size], settings)
        decided = decide(score, fit_decision(truth, score, goals.costs, goals.decision))
        return (
            measure(goals.metric, truth, score, decided),
            measure(goals.metric, truth, score, decided, weights),
        )

    sizes = _sizes(rows, y, keys, settings)
    cases = _cases(y)
    order = rng.permutation(int(cases.max()) + 1)
    drawn: dict[tuple[str, float], Array] = {}
    points = []
    for size in SIZES:
        for share in SHARES:
            count = round(share * len(order))
            drawn_cases = [order[:count]] if share == 1 else [order[:count], order[-count:]]
            draws = [np.flatnonzero(np.isin(cases, part)) for part in drawn_cases]
            figures = [figure(draw, size) for draw in draws]
            drawn[size, share] = np.mean([resampled for _, resampled in figures], axis=0)
            low, high = interval(drawn[size, share], goals.interval.level)
            value = float(np.mean([point for point, _ in figures]))
            points.append(
                {"size": size, "rows": len(draws[0]), "value": value, "low": low, "high": high}
            )
    data = gain_interval(goals.metric, drawn["medium", 1.0], drawn["medium", 0.5], goals.interval)
    model = gain_interval(goals.metric, drawn["large", 1.0], drawn["medium", 1.0], goals.interval)
    newest, stale = None, []
    if (times := keys.time) is not None:
        oldest_first = np.argsort(times, kind="stable")
        last = oldest_first[-round(SHARES[0] * len(times)) :]
        newest = gain_interval(
            goals.metric, drawn["medium", 1.0], figure(np.sort(last), "medium")[1], goals.interval
        )
        stale = _staleness(oldest_first, times, lambda part: figure(part, "medium")[1], settings)
    report = {
        "metric": goals.metric,
        "verdict": verdict(data, model, newest),
        **{"data": data, "model": model, "newest": newest, "staleness": stale, "points": points},
    }
    write(root, "curves", report)
    _draw(root / CURVES_PICTURE, report)
    return report


def _cases(y: Array) -> Array:
    """The number of the case that each of n rows belongs to, shape (n,): its own, or that of its list."""
    units = unit(y)
    return np.arange(len(y)) if units is None else np.unique(units, return_inverse=True)[1]


def _staleness(
    oldest_first: Array, times: Array, resampled: Callable[[Array], Array], settings: Settings
) -> list[Staleness]:
    """What a model that learnt from half of the rows loses when that half ends earlier.

    Compared with the newest half, at the same number of rows; `days` is how much earlier it ends.
    """
    goals, half = settings.goals, len(oldest_first) // 2
    fresh = resampled(np.sort(oldest_first[-half:]))
    losses: list[Staleness] = []
    for share in (0.125, 0.25, 0.5):
        end = len(oldest_first) - round(share * len(oldest_first))
        rows = np.sort(oldest_first[end - half : end])
        days = (times[oldest_first[-1]] - times[oldest_first[end - 1]]) / 86400
        loss = gain_interval(goals.metric, fresh, resampled(rows), goals.interval)
        losses.append({"days": float(days), **loss})
    return losses


def verdict(data: Gain, model: Gain, newest: Gain | None) -> str:
    """Say whether more rows or a bigger model gains more, or neither when neither surely gains.

    Args:
        data: of the last doubling of the rows; model: of the largest size over the medium one.
        newest: of all rows over the newest eighth; None: the rows have no time.
    """
    gains = (
        f"Twice the rows gained {data['gain']:+.4g} ({data['low']:.4g} to {data['high']:.4g}), a "
        f"model four times as big {model['gain']:+.4g} ({model['low']:.4g} to {model['high']:.4g})"
    )
    if max(data["low"], model["low"]) <= 0:
        sentence = f"Neither: {gains}. Look at labels and features instead."
    elif data["gain"] >= model["gain"]:
        sentence = f"More data: {gains}."
    else:
        sentence = f"A bigger model: {gains}."
    if newest and newest["low"] <= 0:
        sentence += " The newest eighth alone does as well as all rows: older ones add nothing."
    return sentence


def _sizes(rows: pd.DataFrame, y: Array, keys: RowKeys, settings: Settings) -> dict[str, Size]:
    """The candidate's trees, and with fewer and more leaves as many as then are best."""
    _, table = fit_features(rows, y, keys, settings)

    def best_size(leaves: tuple[int, ...]) -> Size:
        boosting = settings.modelling.boosting.model_copy(update={"leaves": leaves})
        modelling = settings.modelling.model_copy(update={"boosting": boosting})
        changed = settings.model_copy(update={"modelling": modelling})
        return find_sizes(["lightgbm"], table, changed, use_folds=False)["boosted"]

    medium = best_size(settings.modelling.boosting.leaves)
    return {
        size: medium if share == 1 else best_size((max(2, round(share * medium.leaves)),))
        for size, share in SIZES.items()
    }


def _score(
    rows: pd.DataFrame, y: Array, keys: RowKeys, valid: pd.DataFrame, truth: Array, size: Size,
    settings: Settings,
) -> Array:  # fmt: skip
    """Fit and calibrate as `train` does; the score of the validation rows."""
    preparation, table = fit_features(rows, y, keys, settings)
    fitted = fit_model("lightgbm", table, size, settings)
    raw = fitted.raw(preparation.transform(valid))
    return fit_head(raw, truth, fitted.target, settings)(raw)


def _draw(path: Path, report: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    picture = Figure(figsize=(6, 4), layout="constrained")
    axes = picture.subplots()
    for size in SIZES:
        points = [point for point in report["points"] if point["size"] == size]
        rows = [point["rows"] for point in points]
        axes.plot(rows, [point["value"] for point in points], "o-", label=f"{size} model")
        if size == "medium":
            low, high = ([point[end] for point in points] for end in ("low", "high"))
            axes.fill_between(rows, low, high, alpha=0.15)
    better = "higher" if METRICS[report["metric"]].higher_is_better else "lower"
    axes.set(title="Learning curves", xlabel="training rows", xscale="log")
    axes.set_ylabel(f"{report['metric']} ({better} is better)")
    axes.legend()
    picture.savefig(path, dpi=100)


def show(report: dict[str, Any], console: Console) -> None:
    """Print the curves as a table, what age costs, and the verdict."""
    table = Table(report["metric"], *SIZES, box=SIMPLE_HEAD)
    for index in range(len(SHARES)):
        row = report["points"][index :: len(SHARES)]
        table.add_row(f"{row[0]['rows']:,} rows", *(f"{point['value']:.4g}" for point in row))
    console.print(table)
    for loss in report["staleness"]:
        cost = f"{loss['gain']:.4g} ({loss['low']:.4g} to {loss['high']:.4g})"
        console.print(f"· what it learnt from ends {loss['days']:.0f} days earlier: loses {cost}")
    console.print(f"{report['verdict']} ({CURVES_PICTURE})", markup=False)
