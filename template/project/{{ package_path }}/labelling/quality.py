"""How good the labels are: what people agree on, how each of them errs, which rows nobody has labelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid

from .. import problem
from ..data.source import report as write
from ..settings import Settings
from .aggregation import METHODS, Table, aggregate, median, skills
from .queue import RANDOM, chance
from .rows import read_labels
from .votes import Vote, current, gold

MAX_SLICES = 20  # values of a column whose coverage is told
FEWEST_GOLD = 20  # rows below which an accuracy says next to nothing

Array = np.ndarray


class Quality(TypedDict):
    """What reports/labelling.json holds."""

    votes: int
    rows: int  # with votes
    repeated: int  # with two votes or more
    without_agreement: int
    cannot_tell: int
    alpha: float | None
    agreement: dict[str, float]  # on each value apart
    labellers: list[dict[str, Any]]
    aggregation: dict[str, float]  # share that is right on gold rows, by method
    gold_rows: int
    random_rows: int  # with votes, that a draw at random has reached
    random_shares: dict[str, float]  # of each value among them: what the queue did not pick
    coverage: float  # share of all rows with a label
    slices: dict[str, dict[str, float]]  # coverage by column and value


def krippendorff(table: Table) -> float | None:
    """Krippendorff's alpha (2004): 1 is full agreement, 0 what chance gives; None where no row has two votes, or all are equal.

    Of classes by whether two votes are equal, of numbers by the square of their difference.
    """
    counts = table.counts()
    per_row = counts.sum(axis=1)
    paired = per_row > 1
    n = int(per_row[paired].sum())
    if not n:
        return None
    if problem.CLASSES:
        pairs, size = counts[paired], per_row[paired]
        observed = 1 - (pairs * (pairs - 1) / (size - 1)[:, None]).sum() / n
        totals = pairs.sum(axis=0)
        expected = 1 - (totals * (totals - 1)).sum() / (n * (n - 1))
    else:
        numbers = pd.Series(table.numbers())[paired[table.rows]]
        groups = numbers.groupby(table.rows[paired[table.rows]])
        size, variance = groups.size(), groups.var(ddof=0)
        observed = float((2 * size**2 * variance / (size - 1)).sum() / n)
        expected = 2 * n * float(numbers.var(ddof=0)) / (n - 1)
    return None if expected == 0 else float(1 - observed / expected)


def specific_agreement(table: Table) -> dict[str, float]:
    """On each value apart: of two people, where the first says it, how often the second does too.

    Of a yes and a no these are the two indices of Cicchetti and Feinstein (1990): one figure for both
    hides a rare yes that nobody agrees on.
    """
    counts = table.counts()
    per_row = counts.sum(axis=1, keepdims=True)
    agreed, possible = (counts * (counts - 1)).sum(axis=0), (counts * (per_row - 1)).sum(axis=0)
    return {
        label: float(agreed[i] / possible[i]) for i, label in enumerate(table.labels) if possible[i]
    }


def accuracy(estimates: dict[str, str | None], certain: dict[str, str]) -> tuple[int, float]:
    """On how many rows an estimate meets a certain label, and the share of them on which it is right: of numbers, the
    mean absolute error."""
    shared = [id_ for id_ in estimates if id_ in certain and estimates[id_] is not None]
    if not shared:
        return 0, float("nan")
    if problem.CLASSES:
        return len(shared), float(np.mean([estimates[id_] == certain[id_] for id_ in shared]))
    return len(shared), float(
        np.mean([abs(float(str(estimates[i])) - float(certain[i])) for i in shared])
    )


def _labellers(
    votes: list[Vote], table: Table, certain: dict[str, str], settings: Settings
) -> list[dict[str, Any]]:
    """A line for each person: how much, how quick, how often right, and what is taken for what."""
    several = problem.CLASSES and len(table.labels) > 1
    skill = dict(zip(table.names, skills(table), strict=True)) if several else {}
    lines = []
    for who in sorted({vote.who for vote in votes}):
        theirs = [vote for vote in votes if vote.who == who]
        labels = Table.of(theirs, settings)
        answers = {
            labels.ids[row]: labels.labels[value]
            for row, value in zip(labels.rows, labels.values, strict=True)
        }
        rows, right = accuracy(dict(answers), certain)
        seconds = [vote.seconds for vote in theirs if vote.seconds is not None]
        line: dict[str, Any] = {
            "who": who,
            "votes": len(theirs),
            "cannot_tell": len(theirs) - len(answers),
            "median_seconds": round(float(np.median(seconds)), 2) if seconds else None,
            "gold_rows": rows,
            "accuracy" if problem.CLASSES else "mean_absolute_error": round(right, 4)
            if rows
            else None,
        }
        if problem.CLASSES:
            pairs = pd.DataFrame(
                [(certain[i], answers[i]) for i in answers if i in certain],
                columns=["true", "answers"],
            )
            tallies = pairs.value_counts().items()
            line["skill"] = round(float(skill[who]), 4) if who in skill else None
            line["confusion"] = [
                [true, label, int(count)] for (true, label), count in sorted(tallies)
            ]
        lines.append(line)
    return lines


def _compare_methods(table: Table, certain: dict[str, str], settings: Settings) -> dict[str, float]:
    """How each way to aggregate does on rows whose label is certain; of a share that agrees on nothing it says so."""
    if not len(table.rows):
        return {}
    figures = {}
    for method in METHODS if problem.CLASSES else ("median",):
        chosen = METHODS[method](table).label if problem.CLASSES else median(table).label
        texts = (
            [table.labels[i] for i in chosen]
            if problem.CLASSES
            else [repr(float(v)) for v in chosen]
        )
        rows, right = accuracy(dict(zip(table.ids, texts, strict=True)), certain)
        if rows:
            figures[method] = round(right, 4)
    return figures


def _slices(
    rows: pd.DataFrame, labelled: pd.Series, columns: list[str]
) -> dict[str, dict[str, float]]:
    """The share of labelled rows by column and value, of the commonest values."""
    shares = {}
    for column in columns:
        values = rows[column].astype(str)
        common = values.value_counts().index[:MAX_SLICES]
        means = labelled[values.isin(common)].groupby(values[values.isin(common)]).mean()
        shares[column] = {value: round(float(share), 4) for value, share in means.items()}
    return shares


def quality(settings: Settings, root: Path) -> Quality:
    """Write reports/labelling.json: agreement, the labellers, the methods on gold rows, coverage.

    Certain are the labels of labels/gold.jsonl, and those that a row brings along.

    Raises:
        UserError: when `collect` has not run, or a line is no vote.
    """
    categories = {
        n for n, rule in settings.data.schema_.columns.items() if rule.type in ("category", "bool")
    }
    columns = [column for column in settings.modelling.evaluation.slices if column in categories]
    rows = read_labels(settings, root, columns)
    brought = rows.dropna(subset="_label").set_index("_id")["_label"].to_dict()
    certain = brought | gold(settings, root)
    votes = current(root)
    table = Table.of(votes, settings)
    labels = aggregate(table, settings)
    agreed = labels["label"].dropna()
    answered = {vote.id for vote in votes}
    has_label = rows["_id"].isin(agreed.index) | rows["_id"].isin(certain.keys()) & ~rows[
        "_id"
    ].isin(answered)
    seed = settings.project.seed
    frontier = max((chance(v.id, seed) for v in votes if v.drawn == RANDOM), default=-1.0)
    at_random = agreed[[chance(id_, seed) <= frontier for id_ in agreed.index]]
    alpha = krippendorff(table) if len(table.rows) else None
    shares = at_random.value_counts(normalize=True) if problem.CLASSES else pd.Series(dtype=float)
    report = Quality(
        votes=len(votes),
        rows=len(answered),
        repeated=int((labels["votes"] > 1).sum()),
        without_agreement=int(labels["label"].isna().sum()),
        cannot_tell=sum(vote.answer == "cannot_tell" for vote in votes),
        alpha=None if alpha is None else round(alpha, 4),
        agreement={k: round(v, 4) for k, v in specific_agreement(table).items()}
        if problem.CLASSES
        else {},
        labellers=_labellers(votes, table, certain, settings),
        aggregation=_compare_methods(table, certain, settings),
        gold_rows=len(answered & {*certain}),
        random_rows=len(at_random),
        random_shares={str(value): round(float(share), 4) for value, share in shares.items()},
        coverage=round(float(has_label.mean()), 4),
        slices=_slices(rows, has_label, columns),
    )
    return write(root, "labelling", report)


def show(report: Quality, settings: Settings, console: Console) -> None:
    """Print what the report says, and which setting it speaks for."""
    alpha = "no alpha: no row has two votes, or all votes are equal"
    if report["alpha"] is not None:
        alpha = f"alpha {report['alpha']:.2f}"
    console.print(
        f"quality: {report['votes']:,} votes on {report['rows']:,} rows, {report['repeated']:,} of them by several; "
        f"{report['without_agreement']:,} without agreement; {alpha}"
    )
    for label, share in report["agreement"].items():
        console.print(
            f"  of two people, where the first says {label}, the second does in {share:.0%}",
            markup=False,
        )
    if report["labellers"]:
        figure = "accuracy" if problem.CLASSES else "mean_absolute_error"
        grid = Grid(
            "labeller",
            "votes",
            "cannot tell",
            "seconds",
            "gold",
            figure.replace("_", " "),
            box=SIMPLE_HEAD,
        )
        for line in report["labellers"]:
            cells = (
                line["votes"],
                line["cannot_tell"],
                line["median_seconds"],
                line["gold_rows"],
                line[figure],
            )
            grid.add_row(line["who"], *("–" if cell is None else f"{cell:,}" for cell in cells))
        console.print(grid)
    if len(figures := report["aggregation"]) > 1:
        best = max(figures, key=lambda method: figures[method])
        on = f"on {report['gold_rows']:,} gold rows " + ", ".join(
            f"{m} {f:.3f}" for m, f in figures.items()
        )
        advice = (
            "too few to choose by"
            if report["gold_rows"] < FEWEST_GOLD
            else f"labelling.aggregation: {best}"
        )
        same = len({*figures.values()}) == 1
        console.print(f"aggregation: {on}; {'they are equal' if same else advice}", markup=False)
    if report["random_shares"]:
        shares = ", ".join(
            f"{value} {share:.1%}" for value, share in report["random_shares"].items()
        )
        console.print(f"drawn at random, {report['random_rows']:,} rows: {shares}", markup=False)
    console.print(
        f"coverage: {report['coverage']:.1%} of the rows have a label; reports/labelling.json says more"
    )
