"""Two sources of labels, held against each other on the rows that both have: which way they differ, where, and whom each
leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import NotRequired, TypedDict, cast

import duckdb
import numpy as np
import pandas as pd
from rich.console import Console

from .. import problem
from ..data.label import truth
from ..data.schema import TYPES, name, stored
from ..data.source import report as write_report
from ..goals.gate import Figure
from ..modelling.compare import mcnemar
from ..paths import FEEDBACK, LABEL_SOURCES, PREDICTIONS
from ..problem import data as problem_data
from ..records import ANSWER, LABEL, Unreadable, retry_reading, view
from ..records import database as log_database
from ..scoring.batch import read_label_file
from ..settings import Settings, UserError
from .agreement import difference, kappa
from .rows import id_column, slice_columns, source

FEWEST = 20  # rows below which a slice, or those that only one source has, say next to nothing
DATA, FEEDBACK_LOG = "the data", "the feedback"

Array = np.ndarray


class Direction(TypedDict):
    """A class that one source gives and the other does not: McNemar (1947)."""

    label: str
    only_first: int
    only_second: int
    difference: float  # share of the second less that of the first
    low: float
    high: float
    p_value: float  # of as many either way


class SliceAgreement(TypedDict):
    """Rows of one value of a column: agreement of classes, mean absolute difference of numbers."""

    column: str
    value: str
    rows: int
    figure: float
    low: float
    high: float
    differs: bool  # for the worse, beyond what chance gives the worst of all values


class Coverage(TypedDict):
    """Labels that one source has, of the collected rows: their mean, or share of one class, where the other has one too
    and where not."""

    source: str
    rows: int
    only: int  # that the other has not
    label: NotRequired[str]
    mean_of_both: NotRequired[float]
    mean_of_only: NotRequired[float]
    low: NotRequired[float]  # of the difference
    high: NotRequired[float]


class Sources(TypedDict):
    """What reports/label_sources.json holds."""

    rows: int  # collected
    shared: int  # rows with a label of each source
    unmatched: int  # ids of the second source that are none of the collected rows
    contradicting: int  # ids to which the second source gives several labels, which are left out
    coverage: list[Coverage]
    agreement: NotRequired[dict[str, float]]  # of classes: value, low, high
    kappa: NotRequired[float]
    confusion: NotRequired[list[tuple[str, str, int]]]  # first, second, rows
    directions: NotRequired[list[Direction]]
    mean_difference: NotRequired[
        dict[str, float]
    ]  # of numbers, second less first: value, low, high
    limits: NotRequired[
        tuple[float, float]
    ]  # between which 95 % of the differences are (Bland and Altman, 1986)
    correlation: NotRequired[float | None]
    within_tolerance: NotRequired[float]
    slices: list[SliceAgreement]  # where the sources differ most first


def compare_sources(
    settings: Settings, root: Path, file: str | None, key: str = "", label: str = ""
) -> Sources:
    """Write reports/label_sources.json: the labels of the collected rows against another source's.

    Args:
        file: with the other labels; None: what was sent to the service as feedback.
        key: the file's column with the ids of rows; "": `data.schema.id`.
        label: the file's column with the labels; "": `data.label.column`.

    Raises:
        UserError: when there are no such labels, a label is none, or no row has both.
    """
    id_ = id_column(settings)
    second = FEEDBACK_LOG if file is None else Path(file).name
    if file is None:
        second_labels = _read_feedback(settings, root, id_)
    else:
        with read_label_file(
            settings, root, file, key or id_, label or settings.data.label.column
        ) as sql:
            second_labels = _labels(sql, "labels", settings)
    column = name(settings.data.label.column)
    fields = {f"CAST({name(id_)} AS VARCHAR)": "_id", truth(column, settings): "_first"}
    fields |= {name(slice_): f"_slice{i}" for i, slice_ in enumerate(slice_columns(settings))}
    selected = ", ".join(f"{value} AS {alias}" for value, alias in fields.items())
    rows = duckdb.execute(f"SELECT {selected} FROM {source(root)}").df().drop_duplicates("_id")
    labels = second_labels.groupby("_id")["_y"].agg(["first", "nunique"])
    agreed = labels.loc[labels["nunique"] == 1, "first"]
    rows["_second"] = rows["_id"].map(agreed).to_numpy(np.float64)
    shared = rows.dropna(subset=["_first", "_second"])
    if shared.empty:
        raise UserError(
            f"label compare: of {len(labels):,} rows of {second} and {rows['_first'].notna().sum():,} of the data with a label "
            f"none is the same; rows go by {id_}"
        )
    report: dict[str, object] = {
        "rows": len(rows),
        "shared": len(shared),
        "unmatched": int((~labels.index.isin(rows["_id"])).sum()),
        "contradicting": len(labels) - len(agreed),
        "coverage": [
            _coverage(rows, *sides, settings)
            for sides in ((DATA, "_first", "_second"), (second, "_second", "_first"))
        ],
        "slices": _slices(shared, slice_columns(settings), settings),
    }
    first, other_labels = shared["_first"].to_numpy(float), shared["_second"].to_numpy(float)
    compared = compare_classes if problem.CLASSES else compare_numbers
    whole = cast(Sources, {**report, **compared(first, other_labels, settings)})
    return write_report(root, Path(LABEL_SOURCES).stem, whole)


def _labels(sql: duckdb.DuckDBPyConnection, table: str, settings: Settings) -> pd.DataFrame:
    """The labels of a table with `_id` and `_label`, as numbers."""
    y = truth("CAST(_label AS VARCHAR)", settings)
    return sql.execute(f"SELECT _id, {y} AS _y FROM {table} WHERE {y} IS NOT NULL").df()


def _read_feedback(settings: Settings, root: Path, id_: str) -> pd.DataFrame:
    """The last label that was sent of each answer, by the id that its row had.

    Raises:
        UserError: when nothing was answered, or nothing sent.
    """
    types = {**ANSWER, id_: TYPES[stored(settings)[id_].type]}
    losses: list[Unreadable] = []

    def read() -> pd.DataFrame:
        losses.clear()
        with log_database(root, memory_limit=settings.data.source.memory_limit) as sql:
            view(sql, "logged", root / PREDICTIONS, types, losses)
            view(sql, "sent", root / FEEDBACK, LABEL, losses)
            sql.execute(
                f"CREATE VIEW labels AS SELECT CAST({name(id_)} AS VARCHAR) AS _id, newest._label FROM logged JOIN (SELECT "
                f"_id, max_by(_label, _time) AS _label FROM sent WHERE _label IS NOT NULL GROUP BY _id) newest "
                f"USING (_id) WHERE {name(id_)} IS NOT NULL"
            )
            return _labels(sql, "labels", settings)

    labels = retry_reading(read, root / PREDICTIONS, root / FEEDBACK)
    if labels.empty:
        raise UserError(
            f"label compare: no feedback is on an answer whose row had its {id_}; send it with each row, or name a FILE of labels"
        )
    return labels


def class_names(settings: Settings) -> list[str]:
    """What each code of a class is called, in the order of the codes."""
    named = problem_data.named(settings.data.label)
    return named if problem.WIDE else [f"not {named[0]}", *named]


def compare_classes(first: Array, second: Array, settings: Settings) -> dict[str, object]:
    """How far two sources agree on the classes of n rows, codes of shape (n,), and which gives which more often."""
    names, n = class_names(settings), len(first)
    x, y = first.astype(int), second.astype(int)
    k = max(len(names), int(x.max()) + 1, int(y.max()) + 1)
    figure = Figure.of_mean(x == y, settings.goals.interval.level)
    tallies = pd.Series(list(zip(x.tolist(), y.tolist(), strict=True))).value_counts().sort_index()
    directions: list[Direction] = []
    for code in range(len(names)) if problem.WIDE else (1,):
        ours, theirs = (
            int(((x == code) & (y != code)).sum()),
            int(((x != code) & (y == code)).sum()),
        )
        change = (theirs - ours) / n
        half = 1.96 * float(np.sqrt(max(0.0, (ours + theirs) / n - change**2) / n))
        numbers = (round(number, 6) for number in (change, change - half, change + half))
        values = (names[code], ours, theirs, *numbers, mcnemar(ours, theirs))
        directions.append(
            cast(Direction, dict(zip(Direction.__annotations__, values, strict=True)))
        )
    return {
        "agreement": _interval(figure),
        "kappa": round(kappa(x, y, k), 4),
        "confusion": [(names[a], names[b], int(count)) for (a, b), count in tallies.items()],
        "directions": directions,
    }


def compare_numbers(first: Array, second: Array, settings: Settings) -> dict[str, object]:
    """How far two sources' numbers of n rows, each of shape (n,), lie apart, and in which direction."""
    gap = second - first
    mean, spread = float(gap.mean()), float(gap.std(ddof=1)) if len(gap) > 1 else 0.0
    half = 1.96 * spread / float(np.sqrt(len(gap)))
    varies = len(gap) > 2 and first.std() > 0 and second.std() > 0
    compared: dict[str, object] = {
        "mean_difference": _interval(Figure(mean, mean - half, mean + half)),
        "limits": (round(mean - 1.96 * spread, 6), round(mean + 1.96 * spread, 6)),
        "correlation": round(float(np.corrcoef(first, second)[0, 1]), 4) if varies else None,
    }
    if settings.labelling.tolerance is not None:
        near = np.abs(gap) <= settings.labelling.tolerance
        compared["within_tolerance"] = round(float(near.mean()), 4)
    return compared


def _interval(figure: Figure) -> dict[str, float]:
    numbers = {"value": figure.value, "low": figure.low or 0.0, "high": figure.high or 0.0}
    return {key: round(number, 6) for key, number in numbers.items()}


def _coverage(
    rows: pd.DataFrame, source_name: str, column: str, against: str, settings: Settings
) -> Coverage:
    """What one source has, and how its labels differ where the other has none: of classes the share that differs most."""
    has_both = rows[against].notna()
    shared, only = (
        rows.loc[chosen, column].dropna().to_numpy(float) for chosen in (has_both, ~has_both)
    )
    coverage = Coverage(source=source_name, rows=len(shared) + len(only), only=len(only))
    if min(len(shared), len(only)) < FEWEST:
        return coverage
    shares = {settings.data.label.column: (shared, only)}
    if problem.CLASSES:
        codes = range(len(class_names(settings))) if problem.WIDE else (1,)
        shares = {class_names(settings)[code]: (shared == code, only == code) for code in codes}
    gaps = {label: abs(np.mean(b) - np.mean(a)) for label, (a, b) in shares.items()}
    label = max(gaps, key=lambda key: gaps[key])
    first, second = (np.asarray(values, dtype=float) for values in shares[label])
    low, high = difference(first, second, times=len(shares))
    numbers = (first.mean(), second.mean(), low, high)
    keys = ("mean_of_both", "mean_of_only", "low", "high")
    values = {key: round(float(number), 6) for key, number in zip(keys, numbers, strict=True)}
    return cast(Coverage, {**coverage, "label": label, **values})


def _slices(shared: pd.DataFrame, columns: list[str], settings: Settings) -> list[SliceAgreement]:
    """Where the two sources differ most first: of classes the least agreement, of numbers the largest mean distance; with
    intervals of all values together (Bonferroni)."""
    first, second = shared["_first"], shared["_second"]
    figures = first == second if problem.CLASSES else (first - second).abs()
    groups = {
        (column, str(value)): rows.to_numpy()
        for i, column in enumerate(columns)
        for value, rows in figures.groupby(shared[f"_slice{i}"].astype(str))
        if len(rows) >= FEWEST
    }
    level, overall = settings.goals.interval.level, float(figures.mean())
    lines: list[SliceAgreement] = []
    for (column, value), rows in groups.items():
        figure = _interval(Figure.of_mean(rows, 1 - (1 - level) / len(groups)))
        low, high = figure["low"], figure["high"]
        differs = high < overall if problem.CLASSES else low > overall
        values = (column, value, len(rows), figure["value"], low, high, differs)
        named = dict(zip(SliceAgreement.__annotations__, values, strict=True))
        lines.append(cast(SliceAgreement, named))
    return sorted(lines, key=lambda line: line["figure"] * (1 if problem.CLASSES else -1))


# --- what is said of it ---


def show(report: Sources, console: Console) -> None:
    """Print what the report says, in sentences."""
    second = report["coverage"][1]["source"]
    aside = (
        [f"{report['unmatched']:,} ids of {second} are no collected rows"]
        if report["unmatched"]
        else []
    )
    if report["contradicting"]:
        aside.append(f"{report['contradicting']:,} have several labels there and are left out")
    lines = [
        f"label compare: {report['shared']:,} rows have a label of both, the data and {second}"
    ]
    lines[0] += "".join(f"; {remark}" for remark in aside)
    lines += _classes(report, second) if problem.CLASSES else _numbers(report, second)
    lines += [_differs(line) for line in report["slices"][:3] if line["differs"]]
    lines += [_covers(entry, report["rows"]) for entry in report["coverage"]]
    for text in (*lines, f"label compare: {LABEL_SOURCES} says more"):
        console.print(text, markup=False)


def _differs(line: SliceAgreement) -> str:
    low, high = (_format(figure) for figure in (line["low"], line["high"]))
    figure = "agreement" if problem.CLASSES else "mean distance"
    return (
        f"  they differ more than elsewhere where {line['column']} is {line['value']}: {figure} {_format(line['figure'])} "
        f"({low} to {high}; {line['rows']:,} rows)"
    )


def _format(figure: float) -> str:
    return f"{figure:.1%}" if problem.CLASSES else f"{figure:.4g}"


def _classes(report: Sources, second: str) -> list[str]:
    agreement = report["agreement"]
    lines = [
        f"  they agree on {agreement['value']:.1%} ({agreement['low']:.1%} to {agreement['high']:.1%}), kappa {report['kappa']:.2f}"
    ]
    line = max(report["directions"], key=lambda entry: abs(entry["difference"]))
    counts = f"from the data alone on {line['only_first']:,} rows, from {second} alone on {line['only_second']:,}"
    verdict = "neither gives it more often beyond chance"
    if line["p_value"] < 0.05 / len(report["directions"]):
        leading = second if line["difference"] > 0 else "the data"
        verdict = (
            f"{leading} gives it more often, beyond chance (McNemar's p {line['p_value']:.2g})"
        )
    return [*lines, f"  the label {line['label']} comes {counts}; {verdict}"]


def _numbers(report: Sources, second: str) -> list[str]:
    gap, (low, high) = report["mean_difference"], report["limits"]
    figures = [f"95% of the differences from {low:.4g} to {high:.4g}"]
    if report["correlation"] is not None:
        figures.append(f"correlation {report['correlation']:.2f}")
    if "within_tolerance" in report:
        figures.append(f"{report['within_tolerance']:.1%} within labelling.tolerance")
    verdict = "no more than chance may give"
    if gap["low"] > 0 or gap["high"] < 0:
        verdict = f"{second} has {'higher' if gap['value'] > 0 else 'lower'} numbers, beyond chance"
    return [
        f"  mean difference {gap['value']:+.4g} ({gap['low']:+.4g} to {gap['high']:+.4g}): {verdict}",
        f"  {', '.join(figures)}",
    ]


def _covers(entry: Coverage, rows: int) -> str:
    text = f"  {entry['source']}: {entry['rows']:,} of {rows:,} rows have a label, {entry['only']:,} of which only here"
    if "label" not in entry:
        return text
    shared, only = _format(entry["mean_of_both"]), _format(entry["mean_of_only"])
    differs = entry["low"] > 0 or entry["high"] < 0
    verdict = "so the rows with both are not like those" if differs else "which may be chance"
    figure = (
        f"the label is {entry['label']} in"
        if problem.CLASSES
        else f"the mean of {entry['label']} is"
    )
    return f"{text}; {figure} {shared} with both, {only} only here, {verdict}"
