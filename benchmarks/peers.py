"""The same windows and the same log, through Evidently or NannyML; runs in an environment of its own.

Each prints one line of JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

warnings.filterwarnings("ignore")


def _columns(frame: pd.DataFrame) -> list[str]:
    return [name for name in frame if not name.startswith("_") and name != "y"]


def _evidently(frame: pd.DataFrame, reference: pd.DataFrame, labels: bool) -> dict[str, float]:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    names = _columns(frame)
    categories = [name for name in names if name.startswith("c")]
    numbers = (
        [name for name in names if name not in categories] + ["_score"] + (["y"] if labels else [])
    )
    kinds = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
    report = (
        Report([DataDriftPreset()])
        .run(
            Dataset.from_pandas(frame[numbers + categories], kinds),
            Dataset.from_pandas(reference[numbers + categories], kinds),
        )
        .dict()
    )
    return {
        metric["metric_name"]: float(metric["value"])
        for metric in report["metrics"]
        if metric["metric_name"].startswith("ValueDrift")
    }


def evidently_power(folder: str) -> None:
    """Every window's drift of every column, the score and the label."""
    windows = pd.read_parquet(Path(folder) / "windows.parquet")
    reference = pd.read_parquet(Path(folder) / "reference.parquet")
    figures = [_evidently(part, reference, True) for _, part in windows.groupby("_window")]
    print(json.dumps(figures))


def evidently_speed(folder: str) -> None:
    import evidently.presets  # noqa: F401  (imports are not timed on either side)

    start = time.perf_counter()
    log = pd.read_parquet(Path(folder) / "monitoring/predictions")
    reference = pd.read_parquet(Path(folder) / "reference.parquet")
    log = log[[*_columns(reference), "_score"]]
    _evidently(log, reference, False)
    print(json.dumps({"seconds": time.perf_counter() - start, "peak": _peak()}))


def _nannyml(
    log: pd.DataFrame, reference: pd.DataFrame, labels: bool, **chunks: object
) -> dict[str, np.ndarray]:
    """Figures by chunk: univariate and multivariate drift, and with labels performance, both ways."""
    import nannyml as nml

    names = _columns(reference)
    for frame in (log, reference):
        for name in names:
            if name.startswith("c"):
                frame[name] = frame[name].astype("category")
    watched = [*names, "_score"]
    figures: dict[str, np.ndarray] = {}
    calculators = [
        nml.UnivariateDriftCalculator(column_names=watched + (["y"] if labels else []), **chunks),
        nml.DataReconstructionDriftCalculator(column_names=names, **chunks),
    ]
    if labels:
        for frame in (log, reference):
            frame["_decided"] = (frame["_score"] >= 0.5).astype(int)
        options = {
            "y_pred_proba": "_score",
            "y_pred": "_decided",
            "y_true": "y",
            "problem_type": "classification_binary",
            "metrics": ["roc_auc"],
        }
        calculators += [
            nml.CBPE(**options, **chunks),
            nml.PerformanceCalculator(**options, **chunks),
        ]
    for calculator in calculators:
        calculator.fit(reference)
        result = (
            calculator.estimate(log)
            if hasattr(calculator, "estimate")
            else calculator.calculate(log)
        )
        frame = result.filter(period="analysis").to_df()
        values = [column for column in frame.columns if column[-1] in ("value", "realized")]
        for column in values:
            figures[" ".join(map(str, (type(calculator).__name__, *column)))] = frame[
                column
            ].to_numpy(float)
    return figures


def nannyml_power(folder: str) -> None:
    windows = pd.read_parquet(Path(folder) / "windows.parquet")
    reference = pd.read_parquet(Path(folder) / "reference.parquet")
    windows = windows.sort_values("_window", kind="stable")
    size = int(windows["_window"].value_counts().min())
    figures = _nannyml(windows, reference, True, chunk_size=size)
    count = windows["_window"].nunique()
    print(json.dumps([{k: float(v[at]) for k, v in figures.items()} for at in range(count)]))


def nannyml_estimates(folder: str, decision: str, binary: str) -> None:
    """What CBPE or DLE estimate of each window, with their intervals, by metric."""
    import nannyml as nml

    windows = pd.read_parquet(Path(folder) / "windows.parquet")
    reference = pd.read_parquet(Path(folder) / "reference.parquet")
    windows = windows.sort_values("_window", kind="stable")
    names = _columns(reference)
    for frame in (windows, reference):
        frame["_decided"] = (frame["_score"] >= float(decision)).astype(int)
        for name in names:
            if name.startswith("c"):
                frame[name] = frame[name].astype("category")
    size = int(windows["_window"].value_counts().min())
    if binary == "1":
        metrics = ["roc_auc", "average_precision"]
        estimator = nml.CBPE(
            y_pred_proba="_score", y_pred="_decided", y_true="y", metrics=metrics,
            problem_type="classification_binary", chunk_size=size,
        )  # fmt: skip
    else:
        metrics = ["mae", "rmse"]
        estimator = nml.DLE(
            feature_column_names=names,
            y_pred="_score",
            y_true="y",
            metrics=metrics,
            chunk_size=size,
        )
    estimator.fit(reference)
    frame = estimator.estimate(windows).filter(period="analysis").to_df()
    ends = {
        "value": "value",
        "low": "lower_confidence_boundary",
        "high": "upper_confidence_boundary",
    }
    estimates = {
        metric: {end: frame[(metric, column)].to_numpy(float) for end, column in ends.items()}
        for metric in metrics
    }
    count = windows["_window"].nunique()
    print(
        json.dumps(
            [
                {
                    m: {end: float(v[at]) for end, v in series.items()}
                    for m, series in estimates.items()
                }
                for at in range(count)
            ]
        )
    )


def nannyml_speed(folder: str, labels: str) -> None:
    import nannyml  # noqa: F401  (imports are not timed on either side)

    start = time.perf_counter()
    log = pd.read_parquet(Path(folder) / "monitoring/predictions")
    reference = pd.read_parquet(Path(folder) / "reference.parquet")
    if labels == "with":
        feedback = pd.read_parquet(Path(folder) / "monitoring/feedback")
        log = log.merge(feedback[["_id", "_label"]], on="_id").rename(columns={"_label": "y"})
    names = [*_columns(reference), "_score", "_time", *(["y"] if labels == "with" else [])]
    chunks = {"timestamp_column_name": "_time", "chunk_period": "D"}
    _nannyml(log[names].copy(), reference, labels == "with", **chunks)
    print(json.dumps({"seconds": time.perf_counter() - start, "peak": _peak()}))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    import os

    os.environ["NML_DISABLE_USAGE_LOGGING"] = os.environ["DO_NOT_TRACK"] = "1"
    globals()[sys.argv[1]](*sys.argv[2:])
