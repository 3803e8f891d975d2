"""Labels, joined as they were known at one moment: no label from the future trains a model."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from .. import problem
from ..parts import parts_here
from ..paths import EVENTS, LABELLED, UNLABELLED
from ..problem import data as problem_data
from ..settings import LabellingFunctions, Settings, UserError, require_file
from .point_in_time import join_histories
from .schema import AGE, CAME_AT, has_label, name, no_label, stored, text
from .source import PARQUET, database, report
from .times import time_sql

Array = np.ndarray
JoinVotes = Callable[[duckdb.DuckDBPyConnection, str], dict[str, Any]]
LEAST_SHARE = 0.01  # of a row's soft label, below which a class gets no copy of the row
MAX_LISTED_VALUES = 100  # values of a label that are listed
ARRIVED = (
    0.05,
    0.1,
    0.25,
    0.5,
    0.75,
    0.9,
    0.95,
    0.99,
)  # shares of the labels, told with their days
WAITED_FOR = 0.95  # of them, that a delay should wait for
MIN_ROWS_TO_JUDGE = 50  # rows below which nearly unique, or a sum, says nothing


def label(settings: Settings, root: Path, join_votes: JoinVotes | None = None) -> dict[str, Any]:
    """Write the events whose label was known at `data.label.as_of`, without the label's own columns.

    Where a problem learns from rows without a label too (`problem.UNLABELLED`), these stand there as well.

    Added are `_y` (the label as a number) and `_known_at`: the later of the time at which the label
    came and the event's time plus `delay_days`. Without a time, every label counts as known, and
    without a delay, one counts as known when it came.

    Args:
        join_votes: makes the table `collected` of the events (SQL of a source) and of what people said of them, if
            anything; gives what reports/label.json says of that. As `labelling.aggregation` does.

    Returns:
        what reports/label.json holds.

    Raises:
        UserError: when no label is left, or the label has a single value.
    """
    data = settings.data
    with database(settings, root) as sql:
        source = f"read_parquet({text(str(require_file(root / EVENTS)))})"
        votes = join_votes(sql, source) if join_votes else {}
        if not votes:
            sql.execute(f"CREATE VIEW collected AS FROM {source}")
        known_at = known_from(settings)
        written_at = f"coalesce(_voted_at, {known_at})" if votes else known_at
        join_histories(sql, settings, _y(settings), written_at)
        if votes:
            # Who labels a row judges it as it was: the label tells of the row's own moment
            moment_sql = name(data.schema_.time) if data.schema_.time else known_at
            known_at = f"CASE WHEN _is_voted THEN {moment_sql} ELSE {known_at} END"
        cutoff = _as_of(settings)
        label_, time = data.label, data.schema_.time
        label_columns = {label_.column, label_.time} - {time}
        selected = ", ".join(name(c) for c in stored(settings) if c not in label_columns)
        is_known = f"(_known_at <= {cutoff})" if time else "true"
        if time and not label_.delay_days:
            # No time: nothing was waited for
            is_known = f"(_known_at IS NULL OR _known_at <= {cutoff})"
        examples, known_at = problem_data.examples(sql, settings, known_at)
        rows_sql = f"SELECT *, {_y(settings)} AS _y, {known_at} AS _known_at FROM {examples}"
        if problem.UNLABELLED is not None:
            rows_sql = _with_unlabelled(rows_sql, settings, is_known)
        sql.execute(f"CREATE VIEW judged AS {rows_sql}")
        target = root / LABELLED
        added, order, circumstances = problem_data.circumstances(sql, settings)
        is_young, of_young = _young(settings, bool(votes))
        added |= of_young
        columns = ", ".join(
            [selected, "_y", "_known_at", *(f"{v} AS {n}" for n, v in added.items())]
        )
        is_written = f"_y IS NOT NULL AND (coalesce({is_known}, false) OR {is_young})"
        query = f"SELECT {columns} FROM judged WHERE {is_written}{order}"
        sql.execute(f"COPY ({query}) TO {text(f'{target}.new')} {PARQUET}")
        if _rules(settings):
            _write_unlabelled(sql, settings, root, selected, is_written)
        (counts,) = sql.execute(
            f"SELECT count(*), count(*) FILTER (_y IS NULL), "
            f"count(*) FILTER (_y IS NOT NULL AND coalesce({is_known}, false)), "
            f"count(DISTINCT _y), {cutoff}, count(*) FILTER ({_without_label()}) FROM judged"
        ).fetchall()
        ((figure,),) = sql.execute(
            f"SELECT {problem.FIGURE[2]} FROM judged WHERE _y IS NOT NULL AND coalesce({is_known}, false)"
        ).fetchall()
        arrivals = _arrivals(sql, settings)
        unnamed = sql.execute(
            f"SELECT CAST({name(label_.column)} AS VARCHAR), count(*) FROM judged WHERE _y IS NULL AND "
            f"{has_label(name(label_.column), no_label(settings))} AND {_is_used(settings)} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 4"
        ).fetchall()
        label_values = sql.execute(
            f"SELECT DISTINCT CAST({name(label_.column)} AS VARCHAR) FROM judged WHERE _y IS NOT NULL "
            f"AND NOT {_without_label()} ORDER BY 1 LIMIT {MAX_LISTED_VALUES + 1}"
        ).fetchall()
    rows, unlabelled, labelled, values, moment, unlabelled_kept = counts
    key = f"params.yaml: data.label.column: {label_.column}"
    if unnamed:
        examples = ", ".join(f"{value!r:.80} ({count:,} rows)" for value, count in unnamed[:3])
        raise UserError(
            f"{key}: has {examples}{', …' if len(unnamed) > 3 else ''}, which data.label does not name: add it "
            f"there, or let it count as another (data.label.other)"
        )
    if not labelled:
        hint = "see delay_days"
        if "labelling" in parts_here():
            hint += ", and `label next`, which queues rows for people"
        raise UserError(f"{key}: of {rows:,} events none has a label yet as of {moment}; {hint}")
    if values < 2 and problem.UNLABELLED is None:
        raise UserError(
            f"{key} has a single value{problem_data.single(label_)} in {labelled:,} rows; nothing can be learnt"
        )
    os.replace(f"{target}.new", target)
    summary = {
        "rows_in": rows,
        "rows_labelled": labelled - unlabelled_kept,
        "unlabelled": unlabelled + unlabelled_kept,
        "too_young": rows - unlabelled - labelled,
        "as_of": moment.isoformat() if moment else None,
        "delay_days": label_.delay_days,
        **arrivals,
        problem.FIGURE[0]: round(figure, 6),
        **circumstances,
        **votes,
    }
    if problem.CLASSES and len(label_values) <= MAX_LISTED_VALUES:
        summary["values"] = [value for (value,) in label_values]
    return report(root, "label", summary)


def _arrivals(sql: duckdb.DuckDBPyConnection, settings: Settings) -> dict[str, Any]:
    """After how many days labels came: of events of the earlier half of the time, whose late ones are there by now.

    Returns:
        `arrivals`: `rows`; `days`, a number for each of ARRIVED; `proposed_days`, in which all but one in twenty came.
        Nothing where no column tells when a label came, or of fewer than MIN_ROWS_TO_JUDGE labels.
    """
    label_, time = settings.data.label, settings.data.schema_.time
    if time is None or label_.time is None or label_.time == time:
        return {}
    middle = f"(SELECT min({name(time)}) + (max({name(time)}) - min({name(time)})) / 2 FROM events)"
    days = f"(epoch({name(label_.time)}) - epoch({name(time)})) / 86400"
    is_labelled = has_label(name(label_.column), no_label(settings))
    ((rows, quantiles),) = sql.execute(
        f"SELECT count(*), quantile_cont(greatest({days}, 0), {[*ARRIVED]}) FROM events "
        f"WHERE {name(label_.time)} IS NOT NULL AND {is_labelled} AND {name(time)} <= {middle}"
    ).fetchall()
    if rows < MIN_ROWS_TO_JUDGE:
        return {}
    by_share = {f"{share:g}": round(day, 3) for share, day in zip(ARRIVED, quantiles, strict=True)}
    proposed = math.ceil(quantiles[ARRIVED.index(WAITED_FOR)])
    return {"arrivals": {"rows": rows, "days": by_share, "proposed_days": proposed}}


def _y(settings: Settings) -> str:
    value = truth(name(settings.data.label.column), settings)
    return f"CASE WHEN {_is_used(settings)} THEN {value} END"


def _is_used(settings: Settings) -> str:
    """SQL for whether a row's label is looked at: it is, unless `labelling.functions.labels` is less than 1."""
    functions = _rules(settings)
    if functions is None or functions.labels == 1:
        return "true"
    id_, seed = name(str(settings.data.schema_.id)), settings.project.seed
    draw = f"md5_number_lower(concat(CAST({id_} AS VARCHAR), ' labels {seed}'))"
    return f"({draw} % 1000000 < {round(functions.labels * 1_000_000)})"


def _rules(settings: Settings) -> LabellingFunctions | None:
    """How rules label rows; None where the part or the kind of label has none."""
    if settings.labelling is None or "label functions" in problem.LEFT_OUT:
        return None
    return settings.labelling.functions


def _write_unlabelled(
    sql: duckdb.DuckDBPyConnection, settings: Settings, root: Path, selected: str, is_written: str
) -> None:
    """Write the rows without a label that is known by then, which functions may label (`labelling.functions`).

    Args:
        selected: SQL of their columns; is_written: SQL for whether a row stands among those with a label.
    """
    time = settings.data.schema_.time
    moment = name(time) if time else "CAST(NULL AS TIMESTAMP)"
    happened = f"{moment} <= {_as_of(settings)}" if time else "true"
    sql.execute(
        f"COPY (SELECT {selected}, {moment} AS _known_at FROM judged "
        f"WHERE NOT ({is_written}) AND {happened}) "
        f"TO {text(str(root / UNLABELLED))} {PARQUET}"
    )


def _with_unlabelled(rows: str, settings: Settings, is_known: str) -> str:
    """SQL that gives rows whose label is not there, or not known yet, the code for that, which is known at once.

    Args:
        rows: SQL of them, with `_y` and `_known_at`; is_known: SQL for whether a label is.
    """
    time = settings.data.schema_.time
    labelled = f"(_y IS NOT NULL AND coalesce({is_known}, false))"
    moment = name(time) if time else "NULL"
    return (
        f"SELECT * REPLACE (CASE WHEN {labelled} THEN _y ELSE {problem.UNLABELLED!r} END AS _y, CASE WHEN {labelled} "
        f"THEN _known_at WHEN {moment} <= {_as_of(settings)} THEN {moment} END AS _known_at) FROM ({rows})"
    )


def _without_label() -> str:
    """SQL for whether a row is kept though it has no label."""
    return "false" if problem.UNLABELLED is None else f"(_y = {problem.UNLABELLED!r})"


def truth(label_: str, settings: Settings) -> str:
    """SQL for a label as a number, NULL where there is none.

    Args:
        label_: SQL of the label as the column has it.
    """
    return problem_data.truth(label_, settings.data.label, has_label(label_, no_label(settings)))


def known_from(settings: Settings) -> str:
    """SQL of the moment from which on a row's label is known; NULL without times."""
    label_, time = settings.data.label, settings.data.schema_.time
    if time is None:
        return "CAST(NULL AS TIMESTAMP)"
    due = f"{name(time)} + to_seconds({86_400 * (label_.delay_days or 0.0)!r})"
    if label_.time is None:
        return due
    return f"greatest({name(label_.time)}, {due})"


def _young(settings: Settings, has_votes: bool) -> tuple[str, dict[str, str]]:
    """SQL for whether a row is younger than a label takes and has its label all the same, and the columns that
    `data.young` reads, by name; no row and no column where such rows are left out."""
    label_, time = settings.data.label, settings.data.schema_.time
    if label_.young == "leave_out" or time is None or label_.time is None:
        return "false", {}
    came, moment, cutoff = name(label_.time), name(time), _as_of(settings)
    is_young = (
        f"coalesce({came} <= {cutoff} AND {moment} <= {cutoff} AND _known_at > {cutoff}, false)"
    )
    came_at = f"coalesce({came}, {known_from(settings)})"
    if has_votes:  # a vote says nothing of when a label comes by itself
        came_at = f"CASE WHEN NOT _is_voted THEN {came_at} END"
    age = f"CASE WHEN {is_young} THEN (epoch({cutoff}) - epoch({moment})) / 86400 END"
    return is_young, {CAME_AT: came_at, AGE: age}


def _as_of(settings: Settings) -> str:
    """SQL for the moment that the training set is made for."""
    as_of, time = settings.data.label.as_of, settings.data.schema_.time
    if time is None:
        return "CAST(NULL AS TIMESTAMP)"
    if as_of == "latest":
        return f"(SELECT max({name(time)}) FROM events)"
    return time_sql(text(as_of), "VARCHAR", None)


def is_labelled(y: Array) -> Array:
    """Which of n rows of the labelled data have a label, bool, shape (n,): all, but where `problem.UNLABELLED` says
    what stands in its place."""
    return np.ones(len(y), dtype=bool) if problem.UNLABELLED is None else y != problem.UNLABELLED


def numbers_rows(low: float, high: float, distinct: int, n: int) -> bool:
    """Whether n whole numbers count or number their rows.

    Args:
        low, high: the smallest and the largest of them.
        distinct: how many different ones there are.

    Amounts in whole units can be nearly unique too, but not in a range this narrow: drawing n
    values from 4 n repeats more than a tenth of them, from 100 n one in two hundred.
    """
    width, share = high - low + 1, distinct / n
    return bool((width <= 4 * n and share > 0.9) or (width <= 100 * n and share > 0.999))


def predictiveness(values: Array, y: Array, seed: int) -> float:
    """How well one column predicts the label by itself, on rows that it was not fitted on.

    Numbers are cut into a hundred quantile bins, whose mean labels are joined by lines; categories
    and missing values have a mean each. Half of the rows fit, the other half score.

    Args:
        values: numbers (float, NaN missing) or texts (object), shape (n,).
        y: the label, shape (n,); a number, or the place of a class.

    Returns:
        for classes ROC AUC by ranks (Hanley and McNeil, 1982), folded so that 0.5 is chance and 1 perfect, of more than two the mean; for
        a number R2 of its ranks, at least 0: an amount's few largest values would decide the plain one.
    """
    classes = np.unique(y)
    number = len(classes) > 2 and not problem.CLASSES
    if len(classes) > 2 and problem.CLASSES:  # each against all others, weighted by its rows
        scores = [predictiveness(values, (y == k).astype(np.float64), seed) for k in classes]
        return float(np.average(scores, weights=[(y == k).sum() for k in classes]))
    if number:
        y = np.unique(y, return_inverse=True)[1].astype(np.float64)
    order = np.random.default_rng(seed).permutation(len(y))
    fit, test = order[::2], order[1::2]
    if len(test) < 2 or np.ptp(y[fit]) == 0 or np.ptp(y[test]) == 0:
        return 0.0
    prediction = np.full(len(test), y[fit].mean())
    if values.dtype == object:
        categories, codes = np.unique(values.astype(str), return_inverse=True)
        sums = np.bincount(codes[fit], y[fit], len(categories))
        counts = np.bincount(codes[fit], minlength=len(categories))
        means = np.where(counts, sums / np.maximum(counts, 1), y[fit].mean())
        prediction = means[codes[test]]
    else:
        present = np.isfinite(values)
        filled, missing = fit[present[fit]], fit[~present[fit]]
        if len(filled):
            by_value = filled[np.argsort(values[filled], kind="stable")]
            bins = np.array_split(by_value, min(100, len(filled)))
            x = np.array([values[rows].mean() for rows in bins])
            prediction = np.interp(values[test], x, [y[rows].mean() for rows in bins])
        default = y[missing].mean() if len(missing) else y[fit].mean()
        prediction = np.where(present[test], prediction, default)
    y_test = y[test]
    if number:
        return max(0.0, float(1 - np.mean((y_test - prediction) ** 2) / np.var(y_test)))
    _, codes, counts = np.unique(prediction, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[codes]
    upper = y_test == y_test.max()
    u_statistic = rank[upper].sum() - upper.sum() * (upper.sum() + 1) / 2
    auc = float(u_statistic / (upper.sum() * (~upper).sum()))
    return max(auc, 1 - auc)


def adds_up(columns: Mapping[str, pd.Series], y: Array) -> tuple[list[str], str]:
    """The columns that make up a label together, by least squares with R2 > 0.9999: what is
    rounded, or a sum of many rounded ones, still counts.

    Looked for are weighted sums, so differences too, and among numbers above 0 products of powers,
    so ratios too: their logarithms add up. Texts count as numbers where all of them are some: few
    whole numbers may be taken for categories.

    Args:
        columns: name -> n numbers, or texts; NaN or "" missing.
        y: the label, shape (n,).

    Returns:
        the names of these columns, empty where there are none, and "sum" or "product".
    """
    numeric = {}
    for name_, column in columns.items():
        values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
        if not (np.isnan(values) & column.notna() & (column != "")).any():
            numeric[name_] = values
    names, x = list(numeric), np.array([*numeric.values()]).reshape(len(numeric), len(y)).T
    if used := _linear_terms(x, y):
        return [names[position] for position in used], "sum"
    if np.nanmin(y, initial=np.inf) > 0 and names:
        with np.errstate(divide="ignore", invalid="ignore"):
            used = _linear_terms(np.where(x > 0, np.log(x), np.nan), np.log(y))
        return [names[position] for position in used], "product"
    return [], ""


def _linear_terms(x: Array, y: Array) -> list[int]:
    usable = np.flatnonzero(np.isfinite(x).mean(axis=0) > 0.5) if len(x) else np.zeros(0, int)
    complete = np.isfinite(x[:, usable]).all(axis=1) & np.isfinite(y)
    x, y = x[np.ix_(complete, usable)], y[complete]
    if len(usable) == 0 or len(y) < max(MIN_ROWS_TO_JUDGE, 10 * len(usable)) or y.std() == 0:
        return []
    spread = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1)
    y = (y - y.mean()) / y.std()
    weights = np.linalg.lstsq(x.T @ x, x.T @ y, rcond=None)[0]
    if np.mean((y - x @ weights) ** 2) > 1e-4:
        return []
    return [int(position) for position in usable[np.abs(weights) > 1e-2]]
