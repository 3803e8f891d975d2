"""Labels, joined as they were known at one moment: no label from the future trains a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import problem
from ..paths import EVENTS, LABELLED
from ..problem import data as problem_data
from ..settings import Settings, UserError, require_file
from .schema import has_label, name, no_label, stored, text
from .source import PARQUET, database, report
from .times import time_sql

Array = np.ndarray
MOST_KINDS = 100  # values of a label that are listed
FEWEST = 50  # rows below which nearly unique, or a sum, says nothing


def label(settings: Settings, root: Path) -> dict[str, Any]:
    """Write the events whose label was known at `data.label.as_of`, without the label's own columns.

    Added are `_y` (the label as a number) and `_known_at`: the later of the time at which the label
    came and the event's time plus `delay_days`. Without a time, every label counts as known, and
    without a delay, one counts as known when it came.

    Returns:
        what reports/label.json holds.

    Raises:
        UserError: when no label is left, or the label has a single value.
    """
    data = settings.data
    with database(settings, root) as sql:
        sql.execute(
            f"CREATE VIEW events AS FROM read_parquet({text(str(require_file(root / EVENTS)))})"
        )
        until = _as_of(settings)
        known = _known_at(settings)
        label_, time = data.label, data.schema_.time
        own = {label_.column, label_.time} - {time}
        kept = ", ".join(name(column) for column in stored(settings) if column not in own)
        old = f"(_known_at <= {until})" if time else "true"
        if time and not label_.delay_days:
            old = f"(_known_at IS NULL OR _known_at <= {until})"  # no time: nothing was waited for
        sql.execute(
            f"CREATE VIEW judged AS SELECT *, {_y(settings)} AS _y, {known} AS _known_at FROM events"
        )
        target = root / LABELLED
        query = f"SELECT {kept}, _y, _known_at FROM judged WHERE _y IS NOT NULL AND coalesce({old}, false)"
        sql.execute(f"COPY ({query}) TO {text(f'{target}.new')} {PARQUET}")
        (counts,) = sql.execute(
            f"SELECT count(*), count(*) FILTER (_y IS NULL), "
            f"count(*) FILTER (_y IS NOT NULL AND coalesce({old}, false)), "
            f"count(DISTINCT _y), {until} FROM judged"
        ).fetchall()
        ((figure,),) = sql.execute(
            f"SELECT {problem.FIGURE[2]} FROM judged WHERE _y IS NOT NULL AND coalesce({old}, false)"
        ).fetchall()
        unnamed = sql.execute(
            f"SELECT CAST({name(label_.column)} AS VARCHAR), count(*) FROM judged WHERE _y IS NULL AND "
            f"{has_label(name(label_.column), no_label(settings))} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 4"
        ).fetchall()
        kinds = sql.execute(
            f"SELECT DISTINCT CAST({name(label_.column)} AS VARCHAR) FROM judged WHERE _y IS NOT NULL "
            f"ORDER BY 1 LIMIT {MOST_KINDS + 1}"
        ).fetchall()
    rows, unlabelled, labelled, values, moment = counts
    key = f"params.yaml: data.label.column: {label_.column}"
    if unnamed:
        shown = ", ".join(f"{value!r:.80} ({count:,} rows)" for value, count in unnamed[:3])
        raise UserError(
            f"{key}: has {shown}{', …' if len(unnamed) > 3 else ''}, which data.label does not name: add it "
            f"there, or let it count as another (data.label.other)"
        )
    if not labelled:
        raise UserError(
            f"{key}: of {rows:,} events none has a label yet as of {moment}; see delay_days"
        )
    if values < 2:
        raise UserError(
            f"{key} has a single value{problem_data.single(label_)} in {labelled:,} rows; nothing can be learnt"
        )
    os.replace(f"{target}.new", target)
    found = {
        "rows_in": rows,
        "rows_labelled": labelled,
        "unlabelled": unlabelled,
        "too_young": rows - unlabelled - labelled,
        "as_of": moment.isoformat() if moment else None,
        "delay_days": label_.delay_days,
        problem.FIGURE[0]: round(figure, 6),
    }
    if problem.CLASSES and len(kinds) <= MOST_KINDS:
        found["values"] = [value for (value,) in kinds]
    return report(root, "label", found)


def _y(settings: Settings) -> str:
    return truth(name(settings.data.label.column), settings)


def truth(label_: str, settings: Settings) -> str:
    """SQL for a label as a number, NULL where there is none."""
    return problem_data.truth(label_, settings.data.label, has_label(label_, no_label(settings)))


def _known_at(settings: Settings) -> str:
    label_, time = settings.data.label, settings.data.schema_.time
    if time is None:
        return "CAST(NULL AS TIMESTAMP)"
    waited = f"{name(time)} + to_seconds({86_400 * (label_.delay_days or 0.0)!r})"
    if label_.time is None:
        return waited
    return f"greatest({name(label_.time)}, {waited})"


def _as_of(settings: Settings) -> str:
    """SQL for the moment that the training set is made for."""
    as_of, time = settings.data.label.as_of, settings.data.schema_.time
    if time is None:
        return "CAST(NULL AS TIMESTAMP)"
    if as_of == "latest":
        return f"(SELECT max({name(time)}) FROM events)"
    return time_sql(text(as_of), "VARCHAR", None)


def numbers_rows(low: float, high: float, distinct: int, n: int) -> bool:
    """Whether n whole numbers count or number their rows.

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
        for classes ROC AUC, folded so that 0.5 is chance and 1 perfect, of more than two the mean; for
        a number R2 of its ranks, at least 0: an amount's few largest values would decide the plain one.
    """
    classes = np.unique(y)
    number = len(classes) > 2 and not problem.CLASSES
    if len(classes) > 2 and problem.CLASSES:  # each against all others, weighted by its rows
        alone = [predictiveness(values, (y == one).astype(np.float64), seed) for one in classes]
        return float(np.average(alone, weights=[(y == one).sum() for one in classes]))
    if number:
        y = np.unique(y, return_inverse=True)[1].astype(np.float64)
    order = np.random.default_rng(seed).permutation(len(y))
    fit, test = order[::2], order[1::2]
    if len(test) < 2 or np.ptp(y[fit]) == 0 or np.ptp(y[test]) == 0:
        return 0.0
    guess = np.full(len(test), y[fit].mean())
    if values.dtype == object:
        codes, place = np.unique(values.astype(str), return_inverse=True)
        sums = np.bincount(place[fit], y[fit], len(codes))
        counts = np.bincount(place[fit], minlength=len(codes))
        means = np.where(counts, sums / np.maximum(counts, 1), y[fit].mean())
        guess = means[place[test]]
    else:
        whole = np.isfinite(values)
        known, missing = fit[whole[fit]], fit[~whole[fit]]
        if len(known):
            bins = np.array_split(
                known[np.argsort(values[known], kind="stable")], min(100, len(known))
            )
            x = np.array([values[one].mean() for one in bins])
            guess = np.interp(values[test], x, [y[one].mean() for one in bins])
        guess = np.where(whole[test], guess, y[missing].mean() if len(missing) else y[fit].mean())
    truth = y[test]
    if number:
        return max(0.0, float(1 - np.mean((truth - guess) ** 2) / np.var(truth)))
    _, place, counts = np.unique(guess, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]
    yes = truth == truth.max()
    wins = rank[yes].sum() - yes.sum() * (yes.sum() + 1) / 2
    area = float(wins / (yes.sum() * (~yes).sum()))
    return max(area, 1 - area)


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
    read = {}
    for name_, given in columns.items():
        values = pd.to_numeric(given, errors="coerce").to_numpy(np.float64)
        if not (np.isnan(values) & given.notna() & (given != "")).any():
            read[name_] = values
    names, x = list(read), np.array([*read.values()]).reshape(len(read), len(y)).T
    if places := _sum(x, y):
        return [names[place] for place in places], "sum"
    if np.nanmin(y, initial=np.inf) > 0 and names:
        with np.errstate(divide="ignore", invalid="ignore"):
            places = _sum(np.where(x > 0, np.log(x), np.nan), np.log(y))
        return [names[place] for place in places], "product"
    return [], ""


def _sum(x: Array, y: Array) -> list[int]:
    most = np.flatnonzero(np.isfinite(x).mean(axis=0) > 0.5) if len(x) else np.zeros(0, int)
    whole = np.isfinite(x[:, most]).all(axis=1) & np.isfinite(y)
    x, y = x[np.ix_(whole, most)], y[whole]
    if len(most) == 0 or len(y) < max(FEWEST, 10 * len(most)) or y.std() == 0:
        return []
    spread = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1)
    y = (y - y.mean()) / y.std()
    weights = np.linalg.lstsq(x.T @ x, x.T @ y, rcond=None)[0]
    if np.mean((y - x @ weights) ** 2) > 1e-4:
        return []
    return [int(place) for place in most[np.abs(weights) > 1e-2]]
