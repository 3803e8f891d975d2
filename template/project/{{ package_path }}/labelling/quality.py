"""How good the labels are: what people agree on, how each of them errs, which rows nobody has labelled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid

from .. import problem
from ..data.source import report as write
from ..paths import CONSENSUS, LABELLERS_PICTURE
from ..settings import Settings
from .aggregation import (
    FEWEST_GOLD,
    METHODS,
    Table,
    aggregate,
    choose,
    deciding,
    median,
    methods,
    read_scores,
    skills,
)
from .agreement import cohen, drift, fleiss, krippendorff, specific_agreement
from .queue import RANDOM, chance
from .rows import read_labels, slice_columns
from .votes import Vote, current, gold, moment, spelling

MAX_SLICES = 20  # values of a column whose coverage is told

Array = np.ndarray


class Quality(TypedDict):
    """What reports/labelling.json holds."""

    votes: int
    rows: int  # with votes
    repeated: int  # with two votes or more
    without_agreement: int
    cannot_tell: int
    alpha: float | None
    alpha_error: float | None  # its standard error
    kappa: float | None  # Fleiss', of classes
    pairs: list[dict[str, Any]]  # Cohen's kappa of every two people, the lowest first
    within_tolerance: (
        float | None
    )  # share of the votes on numbers that lie within `labelling.tolerance` of the median
    agreement: dict[str, float]  # on each value apart
    labellers: list[dict[str, Any]]
    aggregation: dict[str, float]  # share that is right on gold rows, by method
    method: str  # that joins the votes
    gold_rows: int
    random_rows: int  # with votes, that a draw at random has reached
    random_shares: dict[str, float]  # of each value among them: what the queue did not pick
    coverage: float  # share of all rows with a label
    slices: dict[str, dict[str, float]]  # coverage by column and value


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


def _drift(
    votes: list[Vote], truth: dict[str, str], settings: Settings, people: int
) -> dict[str, Any] | None:
    """How a person's errors change over time, against what is taken for true."""
    judged = [vote for vote in votes if vote.label is not None and vote.id in truth]
    pairs = [
        (spelling(str(vote.label), settings), truth[vote.id])
        for vote in sorted(judged, key=lambda vote: moment(vote.at))
    ]
    if problem.CLASSES:
        return drift(np.array([label != true for label, true in pairs], dtype=float), people)
    return drift(np.array([abs(float(label) - float(true)) for label, true in pairs]), people)


def _labellers(
    votes: list[Vote],
    table: Table,
    certain: dict[str, str],
    consensus: dict[str, str],
    settings: Settings,
) -> list[dict[str, Any]]:
    """A line for each person: how much, how quick, how often right, what is taken for what, and what changes.

    Args:
        consensus: what several agree on, which stands in for a certain label where a change over time is looked for.
    """
    several = problem.CLASSES and len(table.labels) > 1
    skill = dict(zip(table.names, skills(table), strict=True)) if several else {}
    lines, people = [], {vote.who for vote in votes}
    for who in sorted(people):
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
            "drift": _drift(theirs, consensus | certain, settings, len(people)),
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
    for method in methods(table) if problem.CLASSES else ("median",):
        chosen = METHODS[method](table).label if problem.CLASSES else median(table, None).label
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
    columns = slice_columns(settings)
    rows = read_labels(settings, root, columns)
    brought = rows.dropna(subset="_label").set_index("_id")["_label"].to_dict()
    certain = brought | gold(settings, root)
    votes = current(root)
    table = Table.of(votes, settings, read_scores(root))
    method = choose(table, deciding(votes, settings, root), settings)
    labels = aggregate(table, settings, method)
    agreed = labels["label"].dropna()
    several = labels["label"][labels["votes"] > 1].dropna().to_dict()
    lines = _labellers(votes, table, certain, several, settings)
    answered = {vote.id for vote in votes}
    has_label = rows["_id"].isin(agreed.index) | rows["_id"].isin(certain.keys()) & ~rows[
        "_id"
    ].isin(answered)
    seed = settings.project.seed
    frontier = max((chance(v.id, seed) for v in votes if v.drawn == RANDOM), default=-1.0)
    at_random = agreed[[chance(id_, seed) <= frontier for id_ in agreed.index]]
    alpha, alpha_error = (len(table.rows) and krippendorff(table)) or (None, None)
    kappa = fleiss(table) if problem.CLASSES and len(table.rows) else None
    shares = at_random.value_counts(normalize=True) if problem.CLASSES else pd.Series(dtype=float)
    report = Quality(
        votes=len(votes),
        rows=len(answered),
        repeated=int((labels["votes"] > 1).sum()),
        without_agreement=int(labels["label"].isna().sum()),
        cannot_tell=sum(vote.answer == "cannot_tell" for vote in votes),
        alpha=None if alpha is None else round(alpha, 4),
        alpha_error=None if alpha_error is None else round(alpha_error, 4),
        kappa=None if kappa is None else round(kappa, 4),
        pairs=cohen(table) if problem.CLASSES else [],
        within_tolerance=_within_tolerance(labels, settings),
        agreement={k: round(v, 4) for k, v in specific_agreement(table).items()}
        if problem.CLASSES
        else {},
        labellers=lines,
        aggregation=_compare_methods(table, certain, settings),
        method=method,
        gold_rows=len(answered & {*certain}),
        random_rows=len(at_random),
        random_shares={str(value): round(float(share), 4) for value, share in shares.items()},
        coverage=round(float(has_label.mean()), 4),
        slices=_slices(rows, has_label, columns),
    )
    _write_consensus(root, labels, certain)
    _draw(root, table, labels, report)
    return write(root, "labelling", report)


def _within_tolerance(labels: pd.DataFrame, settings: Settings) -> float | None:
    """The share of votes, of rows with several, that lie within the tolerance of their median."""
    several = labels[labels["votes"] > 1]
    if problem.CLASSES or settings.labelling.tolerance is None or several.empty:
        return None
    share = np.average(several["confidence"].astype(float), weights=several["votes"].astype(float))
    return round(float(share), 4)


def _write_consensus(root: Path, labels: pd.DataFrame, certain: dict[str, str]) -> None:
    """reports/consensus.csv: each row's label by its votes, how sure it is, the least sure first."""
    path = root / CONSENSUS
    path.parent.mkdir(parents=True, exist_ok=True)
    table = labels.assign(certain=[certain.get(i) for i in labels.index])
    table["confidence"] = table["confidence"].astype(float).round(6)
    table = table.sort_values("confidence", kind="stable")
    fresh = path.with_name(f"{path.name}.new")
    table.to_csv(fresh, index_label="id", lineterminator="\n")
    os.replace(fresh, path)


def _draw(root: Path, table: Table, labels: pd.DataFrame, report: Quality) -> None:
    """reports/labellers.png: of classes how often each person says what the votes came to, on each value apart; of numbers
    how far each lies from it."""
    path = root / LABELLERS_PICTURE
    path.unlink(missing_ok=True)
    agreed = labels["label"].reindex(table.ids).to_numpy(object)
    judged = pd.DataFrame(
        {
            "who": np.array(table.names, dtype=object)[table.labellers],
            "said": np.array(table.labels, dtype=object)[table.values],
            "true": agreed[table.rows],
            "several": labels["votes"].reindex(table.ids).to_numpy()[table.rows] > 1,
        }
    )
    judged = judged[judged["several"]].dropna(subset="true")
    if judged.empty:
        return
    from matplotlib.figure import Figure

    people = len({*judged["who"]})
    figure = Figure(figsize=(7, 1.6 + 0.28 * people), layout="constrained")
    axes = figure.subplots()
    if problem.CLASSES:
        right = judged.assign(right=judged["said"] == judged["true"])
        shares = right.pivot_table(index="who", columns="true", values="right", aggfunc="mean")
        image = axes.imshow(shares.to_numpy(float), vmin=0, vmax=1, aspect="auto", cmap="Blues")
        figure.colorbar(image, ax=axes, label="share that agrees")
        axes.set_xticks(range(shares.shape[1]), [str(c) for c in shares.columns])
        axes.set_yticks(range(people), [str(who) for who in shares.index])
        axes.set(title="Who says what the votes came to", xlabel="what the votes came to")
    else:
        far = (judged["said"].astype(float) - judged["true"].astype(float)).abs()
        means = far.groupby(judged["who"]).mean()
        axes.barh([str(who) for who in means.index], means.to_numpy())
        axes.set(title="How far each lies from the median", xlabel="mean absolute difference")
    figure.savefig(path, dpi=100)


def show(report: Quality, settings: Settings, console: Console) -> None:
    """Print what the report says, and which setting it speaks for."""
    alpha = "no alpha: no row has two votes, or all votes are equal"
    if report["alpha"] is not None:
        alpha = f"alpha {report['alpha']:.2f} (standard error {report['alpha_error']:.2f})"
    if report["kappa"] is not None:
        alpha += f", kappa {report['kappa']:.2f}"
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
        for line in report["pairs"][:1]:
            alike = f"of two people the lowest kappa is {line['kappa']:.2f}"
            console.print(f"  {alike}: {' and '.join(line['people'])}", markup=False)
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
        for line in report["labellers"]:
            if (change := line["drift"]) and change["drifts"]:
                console.print(f"drift: {_in_words(line['who'], change)}", markup=False)
    if len(figures := report["aggregation"]) > 1:
        on = f"on {report['gold_rows']:,} gold rows " + ", ".join(
            f"{m} {f:.3f}" for m, f in figures.items()
        )
        advice = (
            "too few to choose by"
            if report["gold_rows"] < FEWEST_GOLD
            else f"the votes are joined by {report['method']}"
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


def _in_words(who: str, change: dict[str, Any]) -> str:
    worse = "more" if change["change"] > 0 else "less"
    if problem.CLASSES:
        before, after = f"{change['first']:.0%}", f"{change['second']:.0%}"
    else:
        before, after = f"{change['first']:.4g}", f"{change['second']:.4g}"
    return (
        f"{who} errs {worse} than before: {before} in the first half of the votes, {after} in the second "
        f"(a change of {change['low']:+.3g} to {change['high']:+.3g}); look at the guidelines together"
    )
