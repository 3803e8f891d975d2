"""Who answers: how many rows get a label, by what that can be told, and what those without one would change.

Rows are the project's, and answers of the service where it has logged some. A label that is missing by chance, as far as
the inputs tell, biases no mean (Rubin, 1976); else each label counts by 1 / (its chance of being given). What moves the
answer itself and no input, only users who were asked at random show (`data.label.solicited`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, cast

import duckdb
import numpy as np
import pandas as pd
from rich.console import Console

from .. import problem
from ..data.label import known_from, predictiveness, truth
from ..data.point_in_time import join_histories
from ..data.schema import TYPES, name, stored, text
from ..data.source import PARQUET, database
from ..data.source import report as write_report
from ..features.catalogue import as_numbers, inputs, load
from ..goals.gate import Figure, effective_rows
from ..modelling.folds import RowKeys
from ..paths import (
    EVENTS,
    FEEDBACK,
    LABEL_REPORT,
    PREDICTIONS,
    RESPONSES,
    RESPONSES_PICTURE,
    SCRATCH,
)
from ..problem import data as problem_data
from ..records import ANSWER, LABEL, Unreadable, retry_reading, view
from ..records import database as log_database
from ..settings import Settings, UserError, read_json, require_file
from .agreement import difference
from .rows import source

FEWEST = 50  # rows with an answer, and without, below which no model says who answers
FOLDS = 5
TREES = {"n_estimators": 100, "num_leaves": 7, "learning_rate": 0.05, "min_child_samples": 50}
MAX_VALUES = 20  # of a category, that are told apart
BINS = 5  # of a number, of about as many rows each
TRUNCATED = 0.99  # quantile at which weights are cut (Cole and Hernán, 2008)
SCORE = "_score"  # what the service answered, by which answering back may go as well
COLUMNS_IN_PICTURE = 2

Array = np.ndarray


class ResponseRate(TypedDict):
    """Of rows, how many have an answer, with Wilson's interval; of a value of a column, or of all."""

    value: str
    rows: int
    responses: int
    rate: float
    low: float
    high: float


class ColumnResponse(TypedDict):
    """How far one column alone tells who answers, and the response rate along it."""

    column: str
    auc: float  # of its bins, on rows that they were not made of; 0.5: not at all
    differs: bool  # beyond what chance gives the best of all columns
    rates: list[ResponseRate]


class LabelMean(TypedDict):
    """The mean of the labels, or the share of one class: of the answers as they are, and weighted to all rows."""

    label: str
    mean: float
    low: float
    high: float
    weighted: float
    weighted_low: float
    weighted_high: float
    shift: float  # weighted less plain
    shift_low: float
    shift_high: float


class SolicitedMean(TypedDict):
    """The mean of the labels, or the share of one class: of users who were asked at random, and of those who came."""

    label: str
    solicited: float
    unsolicited: float
    difference: float  # unsolicited less solicited
    low: float
    high: float


class Solicited(TypedDict):
    """Users who were asked at random beside those who were not."""

    solicited: ResponseRate
    unsolicited: ResponseRate
    labels: list[SolicitedMean]  # of two answers of each kind or more


class Responses(TypedDict):
    """Who answers, of the project's rows or of the service's answers."""

    overall: ResponseRate
    too_young: int  # rows to which an answer may still come, which are not counted
    columns: list[ColumnResponse]  # the most telling first
    auc: (
        dict[str, float] | None
    )  # of a model of who answers: value, low, high; None of too few rows
    labels: list[LabelMean]  # where there is such a model
    effective_rows: float | None  # of the weighted answers (Kish, 1965)
    solicited: Solicited | None


class Population(NamedTuple):
    """Rows of which each could have an answer by now, n of them.

    Attributes:
        rows: the inputs, as `features.catalogue.load` gives them; kinds: their types.
        labels: as numbers, NaN where there is no answer, shape (n,).
        solicited: bool, shape (n,); None where no column tells it.
        group: what rows of one user share, shape (n,); None where rows stand by themselves.
        too_young: how many rows are not among them.
    """

    rows: pd.DataFrame
    kinds: dict[str, str]
    labels: Array
    solicited: Array | None
    group: Array | None
    too_young: int

    @property
    def responded(self) -> Array:
        """Whether each row has an answer, bool, shape (n,)."""
        return np.isfinite(self.labels)


# --- the rows ---


def read_project(settings: Settings, root: Path) -> Population:
    """The collected rows that are old enough to have a label at the moment that the stage `label` took.

    Raises:
        UserError: when `collect` or `label` has not run.
    """
    label, time = settings.data.label, settings.data.schema_.time
    as_of = read_json(require_file(root / LABEL_REPORT))["as_of"]
    with database(settings, root) as sql:
        sql.execute(f"CREATE VIEW collected AS FROM {source(root)}")
        y = truth(name(label.column), settings)
        join_histories(sql, settings, y, known_from(settings))
        is_due, is_known = "true", "true"
        if time and as_of:
            cutoff, delay = f"TIMESTAMP {text(as_of)}", 86_400 * (label.delay_days or 0.0)
            is_due = f"{name(time)} + to_seconds({delay!r}) <= {cutoff}"
            is_known = f"coalesce({known_from(settings)} <= {cutoff}, true)"
        answer = f"CASE WHEN {is_known} THEN {y} END"
        return _population(sql, settings, root, "events", answer, is_due, inputs(settings))


def read_service(
    settings: Settings, root: Path, unreadable: list[Unreadable] | None = None
) -> Population | None:
    """The answers of the service that are old enough to have feedback by now; None where none is logged.

    Args:
        unreadable: takes the files and lines of the logs that are left out.
    """
    losses = [] if unreadable is None else unreadable
    types = ANSWER | {column: TYPES[rule.type] for column, rule in stored(settings).items()}
    columns = {key: kind for key, kind in inputs(settings).items() if key in types}
    delay = 86_400 * (settings.data.label.delay_days or 0.0)

    def read() -> Population | None:
        losses.clear()
        with log_database(root, memory_limit=settings.data.source.memory_limit) as sql:
            if not view(sql, "logged", root / PREDICTIONS, types, losses):
                return None
            view(sql, "sent", root / FEEDBACK, LABEL, losses)
            y = truth("_label", settings)
            sql.execute(
                f"CREATE VIEW served AS SELECT logged.*, _y FROM logged LEFT JOIN (SELECT _id, max_by({y}, _time) "
                f"FILTER ({y} IS NOT NULL) AS _y FROM sent GROUP BY _id) USING (_id) "
                f"WHERE coalesce(_answered, true) AND _fallback IS NULL"
            )
            is_due = f"_time + to_seconds({delay!r}) <= now() AT TIME ZONE 'UTC'"
            return _population(
                sql, settings, root, "served", "_y", is_due, columns | {SCORE: "number"}
            )

    return retry_reading(read, root / PREDICTIONS, root / FEEDBACK)


def _population(
    sql: duckdb.DuckDBPyConnection,
    settings: Settings,
    root: Path,
    table: str,
    answer: str,
    is_due: str,
    columns: dict[str, str],
) -> Population:
    """The rows of a table that are due; columns without any value are left out.

    Args:
        answer: SQL of the label as a number, NULL where there is none; is_due: SQL for whether one could be there.
        columns: name -> type of those by which answering may be told.
    """
    label, group = settings.data.label, settings.data.split.group
    solicited = f"coalesce({name(label.solicited)}, false)" if label.solicited else "NULL::BOOLEAN"
    groups = f"CAST({name(group) if group else 'NULL'} AS VARCHAR)"
    described = sql.execute(f"DESCRIBE FROM {table}").fetchall()
    if label.solicited and label.solicited not in {column for column, *_ in described}:
        raise UserError(
            f"data.label.solicited: the rows of {EVENTS} have no column {label.solicited!r} yet; run `collect`"
        )
    path = root / SCRATCH / "responses.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        sql.execute(
            f"COPY (SELECT *, {answer} AS _answer, {solicited} AS _solicited, {groups} AS _group_of FROM {table} "
            f"WHERE coalesce({is_due}, false)) TO {text(str(path))} {PARQUET}"
        )
        ((rows,),) = sql.execute(f"SELECT count(*) FROM {table}").fetchall()
        frame = load(path, columns)
        query = "SELECT _answer, _solicited, _group_of FROM read_parquet(?)"
        added = duckdb.execute(query, [str(path)]).df()
    finally:
        path.unlink(missing_ok=True)
    present = [column for column in columns if not frame[column].isin([""]).all()]
    present = [column for column in present if frame[column].notna().any()]
    return Population(
        frame[present],
        {column: columns[column] for column in present},
        added["_answer"].to_numpy(np.float64),
        added["_solicited"].to_numpy(bool) if label.solicited else None,
        added["_group_of"].fillna("").to_numpy(str) if group else None,
        rows - len(frame),
    )


# --- what is told of them ---


def responses(settings: Settings, root: Path) -> dict[str, Responses]:
    """Write reports/responses.json and its picture: who answers, of the project's rows and of the service's answers.

    Raises:
        UserError: when a stage has not run, or no row is old enough to have a label.
    """
    populations = {"project": read_project(settings, root), "service": read_service(settings, root)}
    report = {
        key: analyse(population, settings)
        for key, population in populations.items()
        if population is not None and len(population.rows)
    }
    if not report:
        raise UserError(
            "label responses: no row is old enough to have a label, see data.label.delay_days"
        )
    _draw(root, report)
    return write_report(root, Path(RESPONSES).stem, report)


def analyse(population: Population, settings: Settings) -> Responses:
    """Who answers of these rows, and what that does to the labels."""
    responded, level = population.responded, settings.goals.interval.level
    auc, labels, effective = None, [], None
    columns = column_responses(population, settings)
    if min(responded.sum(), (~responded).sum()) >= FEWEST and population.kinds:
        chances = propensities(population, settings.project.seed)
        auc = response_auc(population, settings.project.seed)
        weight = response_weights(chances[responded])
        effective = round(effective_rows(weight), 1)
        labels = [
            weighted_mean(label, values, weight)
            for label, values in label_values(population.labels[responded], settings).items()
        ]
    return {
        "overall": response_rate("all", responded, level),
        "too_young": population.too_young,
        "columns": columns,
        "auc": auc,
        "labels": labels,
        "effective_rows": effective,
        "solicited": compare_solicited(population, settings),
    }


def response_rate(value: str, responded: Array, level: float) -> ResponseRate:
    """Of n rows, bool, shape (n,), how many have an answer, with Wilson's interval."""
    figure = Figure.of_mean(responded, level)
    numbers = (figure.value, figure.low or 0.0, figure.high or 0.0)
    rate, low, high = (round(number, 6) for number in numbers)
    counts = {"rows": len(responded), "responses": int(responded.sum())}
    line = {"value": value, **counts, "rate": rate, "low": low, "high": high}
    return cast(ResponseRate, line)


def label_values(labels: Array, settings: Settings) -> dict[str, Array]:
    """What means are taken of, by name, each of shape (n,): numbers, whether it is yes, or whether it is each class."""
    if not problem.CLASSES:
        return {settings.data.label.column: labels}
    names = problem_data.named(settings.data.label)
    if not problem.WIDE:
        return {names[0]: (labels == 1).astype(np.float64)}
    return {label: (labels == code).astype(np.float64) for code, label in enumerate(names)}


def column_responses(population: Population, settings: Settings) -> list[ColumnResponse]:
    """Each column by how far it tells who answers (its ROC AUC), the most telling first, with the rates along it.

    A column differs where chance would give not even one of all columns such an AUC, in one of twenty cases.
    """
    responded, seed = population.responded, settings.project.seed
    numbers = as_numbers(population.rows, population.kinds)
    chance = difference_by_chance(responded, len(population.kinds))
    lines: list[ColumnResponse] = []
    for column, kind in population.kinds.items():
        values = numbers[column].to_numpy(object if kind == "category" else np.float64)
        auc = predictiveness(values, responded.astype(np.float64), seed)
        rates = [
            response_rate(value, responded[chosen], settings.goals.interval.level)
            for value, chosen in _values(values, kind).items()
        ]
        differs = bool(auc > 0.5 + chance)
        lines.append({"column": column, "auc": round(auc, 4), "differs": differs, "rates": rates})
    return sorted(lines, key=lambda line: -line["auc"])


def difference_by_chance(responded: Array, columns: int) -> float:
    """How far from 0.5 the AUC of the most telling of columns that tell nothing is at most, in nineteen of twenty cases;
    each is judged on half of the n rows (Mann and Whitney, 1947)."""
    from statistics import NormalDist

    n, yes = len(responded) / 2, float(responded.sum()) / 2
    spread = np.sqrt((n + 1) / (12 * max(yes, 1) * max(n - yes, 1)))
    return float(NormalDist().inv_cdf(1 - 0.025 / max(1, columns)) * spread)


def _values(values: Array, kind: str) -> dict[str, Array]:
    """Which rows have each value of a category, or lie in each part of a number: bool, shape (n,)."""
    if kind == "category":
        common = pd.Series(values).value_counts().index[:MAX_VALUES]
        return {str(value) or "missing": values == value for value in common}
    present = np.isfinite(values)
    parts = {}
    if present.any():
        edges = np.unique(np.quantile(values[present], np.linspace(0, 1, BINS + 1)))
        position = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
        for i in range(max(1, len(edges) - 1)):
            ends = [_format(edges[min(j, len(edges) - 1)], kind) for j in (i, i + 1)]
            value = ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
            parts[value] = present & (position == max(i, 0) if len(edges) > 1 else True)
    if (~present).any():
        parts["missing"] = ~present
    return {value: chosen for value, chosen in parts.items() if chosen.any()}


def _format(number: float, kind: str) -> str:
    if kind == "time":
        return str(pd.Timestamp(number, unit="s").date())
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def propensities(population: Population, seed: int) -> Array:
    """The chance that each row has an answer, by boosted trees on the inputs that have not seen the row, shape (n,).

    Rows of one user are in one fold, where `data.split.group` names users.
    """
    table, responded = _table(population), population.responded
    chances = np.zeros(len(table))
    for fit, held in _keys(population).folds(FOLDS, seed):
        chances[held] = _chances(table, responded, fit, held, seed)
    return chances


def response_auc(population: Population, seed: int) -> dict[str, float]:
    """How well trees that were fitted on one half of the rows tell who answers in the other: ROC AUC with its interval.

    One half alone judges, and of a user one row: folds that judge each other's rows in turn, and rows that go together,
    would make an interval too narrow.
    """
    table, responded = _table(population), population.responded
    fit, held = _keys(population).folds(2, seed)[0]
    if population.group is not None:
        held = np.random.default_rng(seed).permutation(held)
        held = held[np.unique(population.group[held], return_index=True)[1]]
    return auc_interval(_chances(table, responded, fit, held, seed), responded[held])


def _keys(population: Population) -> RowKeys:
    by: Literal["random", "group"] = "random" if population.group is None else "group"
    return RowKeys(by, population.responded.astype(np.float64), group=population.group)


def _table(population: Population) -> pd.DataFrame:
    """The inputs as the trees take them: numbers, and categories of the commonest values."""
    table = as_numbers(population.rows, population.kinds).copy()
    for column, kind in population.kinds.items():
        if kind == "category":
            common = table[column].value_counts().index[:MAX_VALUES]
            told_apart = table[column].where(table[column].isin(common))
            table[column] = pd.Categorical(told_apart, categories=sorted(common))
    table.columns = pd.Index([f"_{i}" for i in range(table.shape[1])])  # any name will do
    return table


def _chances(table: pd.DataFrame, responded: Array, fit: Array, held: Array, seed: int) -> Array:
    from lightgbm import LGBMClassifier

    options: dict[str, Any] = {**TREES, "random_state": seed, "verbose": -1}
    options |= {"deterministic": True, "force_row_wise": True}  # equal rows, equal trees
    model = LGBMClassifier(**options).fit(table.iloc[fit], responded[fit])
    return np.asarray(model.predict_proba(table.iloc[held]))[:, 1]


def auc_interval(chances: Array, responded: Array) -> dict[str, float]:
    """The ROC AUC of chances, shape (n,), with the 95 % interval of Hanley and McNeil (1982)."""
    from sklearn.metrics import roc_auc_score

    auc = float(roc_auc_score(responded, chances))
    yes, no = float(responded.sum()), float((~responded).sum())
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (yes - 1) * (first - auc**2) + (no - 1) * (second - auc**2)
    half = 1.96 * float(np.sqrt(variance / (yes * no)))
    figures = {"value": auc, "low": max(0.0, auc - half), "high": min(1.0, auc + half)}
    return {key: round(figure, 4) for key, figure in figures.items()}


def response_weights(chances: Array) -> Array:
    """How many rows each answer stands for, of mean 1, shape (n,): 1 / (its chance of being given; Horvitz and Thompson,
    1952), cut at their 99th percentile, above which a few answers would decide."""
    weight = 1 / np.maximum(chances, 1e-6)
    weight = np.minimum(weight, np.quantile(weight, TRUNCATED))
    return np.asarray(weight / weight.mean())


def weighted_mean(label: str, values: Array, weight: Array) -> LabelMean:
    """The mean of n answers as they are, and weighted (Hájek, 1971), with 95 % intervals by the linearised variance.

    Args:
        values: shape (n,); weight: of mean 1, shape (n,).
    """
    n, mean = len(values), float(values.mean())
    weighted = float(np.average(values, weights=weight))
    # What each answer adds to the error of a mean
    plain_part, weighted_part = (values - mean) / n, weight * (values - weighted) / n
    parts = (plain_part, weighted_part, weighted_part - plain_part)
    errors = [1.96 * float(np.sqrt((part**2).sum())) for part in parts]
    figures = (mean, weighted, weighted - mean)
    bounds = [(f, f - e, f + e) for f, e in zip(figures, errors, strict=True)]
    numbers = [round(number, 6) for triple in bounds for number in triple]
    keys = [*LabelMean.__annotations__][1:]
    return cast(LabelMean, {"label": label, **dict(zip(keys, numbers, strict=True))})


def compare_solicited(population: Population, settings: Settings) -> Solicited | None:
    """The answers of users who were asked at random beside those of users who came by themselves; None where no column
    tells them apart, or no row is of one of the two."""
    solicited, responded = population.solicited, population.responded
    if solicited is None or solicited.all() or not solicited.any():
        return None
    level, lines = settings.goals.interval.level, list[SolicitedMean]()
    sides = [
        label_values(population.labels[chosen & responded], settings)
        for chosen in (solicited, ~solicited)
    ]
    for label in sides[0]:
        first, second = (side[label] for side in sides)
        if min(len(first), len(second)) < 2:
            continue
        low, high = difference(first, second, times=len(sides[0]))
        means = float(first.mean()), float(second.mean())
        figures = (*means, means[1] - means[0], low, high)
        values = (label, *(round(figure, 6) for figure in figures))
        line = dict(zip(SolicitedMean.__annotations__, values, strict=True))
        lines.append(cast(SolicitedMean, line))
    return {
        "solicited": response_rate("solicited", responded[solicited], level),
        "unsolicited": response_rate("unsolicited", responded[~solicited], level),
        "labels": lines,
    }


# --- what is seen of it ---


def _draw(root: Path, report: dict[str, Responses]) -> None:
    """reports/responses.png: the response rate along the most telling columns, and the labels as they are, weighted to
    all rows, and of users who were asked."""
    from matplotlib.figure import Figure as Picture

    path = root / RESPONSES_PICTURE
    path.parent.mkdir(parents=True, exist_ok=True)
    size = (4.2 * (COLUMNS_IN_PICTURE + 1), 3.6 * len(report))
    picture = Picture(figsize=size, layout="constrained")
    grid = picture.subplots(len(report), COLUMNS_IN_PICTURE + 1, squeeze=False)
    for line, (key, part) in zip(grid, report.items(), strict=True):
        overall = part["overall"]
        for axes, column in zip(line[:-1], part["columns"], strict=False):
            rates = column["rates"][::-1]
            at = np.array([entry["rate"] for entry in rates])
            ends = np.array([[entry["low"], entry["high"]] for entry in rates])
            names = [entry["value"][:24].replace("$", r"\$") for entry in rates]
            spread = np.abs(ends - at[:, None]).T
            axes.errorbar(at, range(len(rates)), xerr=spread, fmt="o")
            axes.set_yticks(range(len(rates)), names)
            axes.axvline(overall["rate"], linestyle="--", color="#666666")
            title = column["column"].removeprefix("_").replace("$", r"\$")
            axes.set(title=f"{title}, AUC {column['auc']:.2f}", xlabel="share that answers")
        for axes in line[len(part["columns"]) : -1]:
            axes.set_axis_off()
        _draw_labels(line[-1], part)
        line[0].set_ylabel(f"{key}: {overall['rate']:.0%} of {overall['rows']:,} rows")
    fresh = path.with_name(f"{path.name}.new")
    picture.savefig(fresh, dpi=100, format="png")
    os.replace(fresh, path)


def _draw_labels(axes: Any, part: Responses) -> None:
    solicited = {
        line["label"]: line["solicited"] for line in (part["solicited"] or {"labels": []})["labels"]
    }
    lines = part["labels"][:9][::-1]
    if not lines:
        axes.set_axis_off()
        return
    at = np.arange(len(lines))
    for offset, key, legend in ((0.12, "", "answers"), (-0.12, "weighted", "weighted to all rows")):
        low, high = (f"{key}_{end}".removeprefix("_") for end in ("low", "high"))
        values = np.array([[line[k] for k in (key or "mean", low, high)] for line in lines])  # type: ignore[literal-required]
        spread = np.abs(values[:, 1:] - values[:, :1]).T
        axes.errorbar(values[:, 0], at + offset, xerr=spread, fmt="o", label=legend)
    if solicited:
        values = np.array([solicited.get(line["label"], np.nan) for line in lines])
        axes.plot(values, at, "k|", markersize=18, label="asked at random")
    axes.set_yticks(at, [line["label"][:24].replace("$", r"\$") for line in lines])
    axes.set_ylim(-0.7, len(lines) - 0.3)
    axes.set(title="labels", xlabel="share" if problem.CLASSES else "mean")
    axes.legend(fontsize="small")


def show(report: dict[str, Responses], console: Console) -> None:
    """Print what the report says, in sentences."""
    subjects = {"project": "the project's rows", "service": "the service's answers"}
    for key, part in report.items():
        overall = part["overall"]
        young = f"; {part['too_young']:,} are too young" if part["too_young"] else ""
        console.print(
            f"{subjects[key]}: {overall['responses']:,} of {overall['rows']:,} have a label, {_interval(overall)}{young}"
        )
        for sentence in (*_who(part), *_bias(part), *_solicited(part)):
            console.print(f"  {sentence}", markup=False)
    console.print(f"label responses: {RESPONSES} and {RESPONSES_PICTURE} say more")


def _interval(rate: ResponseRate) -> str:
    return f"{rate['rate']:.1%} ({rate['low']:.1%} to {rate['high']:.1%})"


def _who(part: Responses) -> list[str]:
    """Sentences on whether, and along what, those who answer differ from those who do not."""
    auc = part["auc"]
    if auc is None:
        return [
            f"too few rows with a label, or without, to say who answers: {FEWEST} of each are needed"
        ]
    figures = f"AUC {auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})"
    if auc["low"] <= 0.5:
        return [f"the inputs do not tell who answers: {figures}, where 0.5 is chance"]
    sentences = [f"the inputs tell who answers: {figures}, where 0.5 is chance"]
    for column in part["columns"][:3]:
        if column["differs"]:
            rates = [rate for rate in column["rates"] if rate["rows"] >= FEWEST]
            ends = sorted(rates or column["rates"], key=lambda rate: rate["rate"])
            title = "the score" if column["column"] == SCORE else column["column"]
            extremes = [
                f"{rate['rate']:.0%} answer at {rate['value']}" for rate in (ends[0], ends[-1])
            ]
            sentences.append(f"{title} (AUC {column['auc']:.2f}): {', '.join(extremes)}")
    return sentences


def _bias(part: Responses) -> list[str]:
    """A sentence on the label that the silent would move most, as far as the inputs tell."""
    if not part["labels"] or part["auc"] is None or part["auc"]["low"] <= 0.5:
        return []
    line = max(part["labels"], key=lambda entry: abs(entry["shift"]))
    is_beyond = line["shift_low"] > 0 or line["shift_high"] < 0
    verdict = (
        "so the answers alone mislead" if is_beyond else "which is no more than chance may give"
    )
    of = "of" if problem.CLASSES else "among"
    weighted = f"{_mean(line['weighted'])} ({_mean(line['weighted_low'])} to {_mean(line['weighted_high'])})"
    return [
        f"{_says(line['label'])} {_mean(line['mean'])} {of} the answers, {weighted} when each counts for all rows like it "
        f"({part['effective_rows']:,.0f} effective rows), {verdict}"
    ]


def _solicited(part: Responses) -> list[str]:
    """Sentences on users who were asked beside those who came by themselves."""
    if part["solicited"] is None:
        return []
    solicited, unsolicited = (
        _interval(part["solicited"]["solicited"]),
        _interval(part["solicited"]["unsolicited"]),
    )
    sentences = [
        f"{solicited} of those asked at random and {unsolicited} of those not asked answer"
    ]
    if part["solicited"]["labels"]:
        of = "of" if problem.CLASSES else "among"
        line = max(part["solicited"]["labels"], key=lambda entry: abs(entry["difference"]))
        is_beyond = line["low"] > 0 or line["high"] < 0
        gap = f"a difference of {_mean(line['difference'], '+')} ({_mean(line['low'], '+')} to {_mean(line['high'], '+')})"
        verdict = (
            "who comes by themselves biases it" if is_beyond else "no more than chance may give"
        )
        sentences.append(
            f"{_says(line['label'])} {_mean(line['solicited'])} {of} those asked, {_mean(line['unsolicited'])} {of} those not asked, "
            f"{gap}: {verdict}"
        )
    return sentences


def _says(label: str) -> str:
    return f"the label is {label} in" if problem.CLASSES else f"the mean of {label} is"


def _mean(value: float, sign: str = "") -> str:
    return format(value, f"{sign}.1%" if problem.CLASSES else f"{sign}.4g")
