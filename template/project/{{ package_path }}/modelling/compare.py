"""Who changes: on which rows the new model decides otherwise than the one in production, before any traffic."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, TypedDict

import duckdb
import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from scipy.special import bdtr

from .. import problem
from ..data.schema import name as quoted
from ..data.schema import stored
from ..data.source import report
from ..features.catalogue import inputs, load
from ..goals.gate import Figure, Gain
from ..paths import COMPARE, COMPARE_PAGE, MANIFEST, MODEL, MODEL_FILE, PRODUCTION, SPLITS
from ..problem import Costs
from ..problem import data as problem_data
from ..problem.decision import arranged
from ..problem.goals import changes, claim, decide, distance, spread, unit, value, way
from ..settings import Settings
from .evaluate import in_production, label_and_slices, read_manifest, slice_kinds
from .scorer import load_scorer

MIN_MOVE = 0.1  # of the label's spread: a number that moves by less is no other decision
MAX_LISTED_ROWS = 100  # rows that are shown one by one
# Of the page, so that a pull request can hold it
MAX_SLICES, MAX_COLUMNS, MAX_CELL_WIDTH = 20, 12, 24
NO_PRODUCTION = f"{PRODUCTION} is not here: nothing is in production that could be compared"
Array = np.ndarray


class Side(TypedDict):
    """The rows whose decision changes one way: how many, worth more, worth less, and what all gain."""

    rows: int
    wins: int
    losses: int
    gain: float


class Tally(TypedDict):
    """How many of some rows change, as `Changes.tally` counts them."""

    rows: int
    changed: int
    share: float
    low: float | None
    high: float | None
    up: Side
    down: Side
    wins: int
    losses: int
    p_value: float
    gain: float
    per_row: Gain


class Comparison(Tally):
    """reports/compare.json; where no row is left to compare, `rows` is 0 and the tally ends there."""

    production: str  # sha256, as `model`
    model: str
    words: dict[str, str]
    fitted: Tally | None
    moved: dict[str, float]
    slices: dict[str, dict[str, Tally]]
    largest: list[dict[str, Any]]


@dataclass(frozen=True)
class Changes:
    """Two models' decisions on the same n rows, side by side; each of shape (n,).

    `direction` is 1 where a decision changes upwards, -1 downwards, 0 where it stays; `gains` is what
    the new decision is worth beyond the old one.
    """

    direction: Array
    gains: Array

    @classmethod
    def of(cls, y: Array, old: Array, new: Array, costs: Costs) -> Changes:
        """The changes from old to new decisions on rows with labels y, each of shape (n,).

        A number changes when it moves by more than `MIN_MOVE` standard deviations of the label, a row of a list when
        its place does.
        """
        changed = way(y, old, new, MIN_MOVE * spread(y))
        return cls(changed, value(y, new, costs) - value(y, old, costs))

    def tally(self, rows: Array, level: float) -> Tally | None:
        """How many of some rows change, which way, and whether for the better; None without rows.

        `share` is the churn of Milani Fard et al. (2016), with Wilson's interval. Wins and losses are
        the changed rows whose decision is worth more than before and less, which with yes and no are
        those that only the new model has right and only the old one; `p_value` is that of
        McNemar's exact test (1947), that they are as many: the sign test.

        Args:
            rows: which of them, bool, shape (n,).
        """
        if not rows.any():
            return None
        gains, share = self.gains[rows], Figure.of_mean(self.direction[rows] != 0, level)
        margin = NormalDist().inv_cdf((1 + level) / 2) * float(gains.std()) / math.sqrt(len(gains))
        up, down = (self._wins_and_losses(rows & (self.direction == sign)) for sign in (1, -1))
        wins, losses = up["wins"] + down["wins"], up["losses"] + down["losses"]
        mean = float(gains.mean())
        return {
            "rows": len(gains),
            "changed": up["rows"] + down["rows"],
            "share": share.value,
            "low": share.low,
            "high": share.high,
            "up": up,
            "down": down,
            "wins": wins,
            "losses": losses,
            "p_value": mcnemar(wins, losses),
            "gain": up["gain"] + down["gain"],
            "per_row": {"gain": mean, "low": mean - margin, "high": mean + margin},
        }

    def _wins_and_losses(self, rows: Array) -> Side:
        gains = self.gains[rows]
        wins, losses = int((gains > 0).sum()), int((gains < 0).sum())
        return {"rows": len(gains), "wins": wins, "losses": losses, "gain": float(gains.sum())}


def mcnemar(wins: int, losses: int) -> float:
    """The p-value of McNemar's exact test (1947): wins and losses are as likely, and split so unevenly or more."""
    return min(1.0, 2 * float(bdtr(min(wins, losses), wins + losses, 0.5)))


def compare(settings: Settings, root: Path) -> Comparison | None:
    """Write reports/compare.json and compare.md: whose decision changes on the test rows.

    The figures are of rows that neither model was fitted on; those that the model in production was
    fitted on, where it looks better than it is, are told apart under `fitted`.

    Returns:
        what compare.json holds; None when nothing is in production: then both files are removed.

    Raises:
        UserError: when no model was trained, or production's takes a column that is gone.
    """
    manifest, test, goals = read_manifest(root / MANIFEST), root / SPLITS["test"], settings.goals
    rows = load(test, inputs(settings))
    production = in_production(settings, root, rows)
    if production is None:
        for path in (COMPARE, COMPARE_PAGE):
            (root / path).unlink(missing_ok=True)
        return None
    old, old_rows, fitted = production
    y, extra = label_and_slices(test, slice_kinds(settings))
    labels = duckdb.read_parquet(str(test)).select("_y").fetchnumpy()["_y"]
    old_score = load_scorer(root / PRODUCTION / MODEL_FILE).score(old_rows)
    scores = old_score, load_scorer(root / MODEL).score(rows)
    decided = decide(scores[0], old["decision"]), decide(scores[1], manifest["decision"])
    decisions, level = Changes.of(y, *decided, goals.costs), goals.interval.level
    distances = distance(*scores)
    changed, up, down = changes(MIN_MOVE * spread(y))
    claims = [claim(*side) for side in zip(scores, decided, strict=True)]
    answers = {
        "fitted": fitted.tolist(),
        "old_score": claims[0].tolist(),
        "new_score": claims[1].tolist(),
        "old_decision": _display_values(settings, _as_answered(y, decided[0])),
        "new_decision": _display_values(settings, _as_answered(y, decided[1])),
        "label": _display_values(settings, labels),
    }
    comparison: Any = {
        "production": old["sha256"],
        "model": manifest["sha256"],
        "words": {"changed": changed, "up": up, "down": down},
        "rows": 0,
        **(decisions.tally(~fitted, level) or {}),
        "fitted": decisions.tally(fitted, level),
        "moved": {"mean": float(distances.mean()), "largest": float(distances.max())},
        "slices": {name: _slices(decisions, ~fitted, extra[name], level) for name in extra},
        "largest": _largest(settings, test, distances, answers),
    }
    (root / COMPARE_PAGE).parent.mkdir(parents=True, exist_ok=True)
    (root / COMPARE_PAGE).write_text(_page(settings, comparison), encoding="utf-8", newline="\n")
    return report(root, "compare", comparison)


def _as_answered(y: Array, decided: Array) -> Array:
    """Decisions as an answer has them, shape (n,): of a list, the place of each row."""
    lists = unit(y)
    return decided if lists is None else arranged(decided, 0.0, lists.tolist(), lists.tolist())[0]


def _display_values(settings: Settings, values: Array) -> list[Any]:
    """Decisions, or labels, as a reader knows them: the names of classes, or numbers."""
    classes = problem_data.named(settings.data.label)
    return [classes[int(code)] for code in values] if problem.WIDE else values.tolist()


def _largest(
    settings: Settings, test: Path, distances: Array, answers: dict[str, list[Any]]
) -> list[dict[str, Any]]:
    """The rows whose score moves most: position in the test part, both answers, and what may be shown of them."""
    ranking = np.argsort(-distances, kind="stable")[:MAX_LISTED_ROWS]
    positions = [int(position) for position in ranking if distances[position]]
    names = _listed_columns(settings)
    columns = [f"{quoted(name)} AS _{i}" for i, name in enumerate(names)]
    numbered = ", ".join(["row_number() OVER () - 1 AS _at", *columns])
    query = f"FROM (SELECT {numbered} FROM read_parquet(?)) WHERE _at IN ?"
    rows = duckdb.execute(query, [str(test), positions]).fetchall() if positions else []
    listed = {at: dict(zip(names, map(_json_value, row), strict=True)) for at, *row in rows}
    return [
        {"row": position}
        | {key: values[position] for key, values in answers.items()}
        | {"columns": listed[position]}
        for position in positions
    ]


def _listed_columns(settings: Settings) -> list[str]:
    """A row's id, slices, features and other columns, in this order; none that is personal, nor the label."""
    columns, data = stored(settings), settings.data
    order = [data.schema_.id, *settings.modelling.evaluation.slices, *inputs(settings), *columns]
    public = {name for name, column in columns.items() if not column.personal} - {data.label.column}
    return [name for name in dict.fromkeys(order) if name in public][:MAX_COLUMNS]


def _slices(decisions: Changes, rows: Array, values: pd.Series, level: float) -> dict[str, Tally]:
    names = values.astype(str).fillna("missing").replace("", "missing")
    parts = {str(name): rows & (names == name).to_numpy() for name in sorted(names.unique())}
    tallies = {name: decisions.tally(part, level) for name, part in parts.items()}
    return {name: tally for name, tally in tallies.items() if tally}


def _json_value(cell: Any) -> Any:
    """A value of a table as JSON can hold it."""
    finite = isinstance(cell, float) and math.isfinite(cell)
    return cell if finite or cell is None or isinstance(cell, bool | int) else str(cell)[:200]


def sentences(comparison: Comparison) -> str:
    """The comparison in at most three sentences."""
    tally, terms, fitted = comparison, comparison["words"], comparison["fitted"]
    texts = []
    if comparison["production"] == comparison["model"]:
        return "The trained model is the one in production: nothing changes."
    if tally["rows"]:
        texts += [
            f"On {tally['rows']:,} test rows that neither model was fitted on, {tally['changed']:,} "
            f"{terms['changed']} ({tally['share']:.2%}, {tally['low']:.2%} to {tally['high']:.2%}) when the "
            f"new model takes over from the one in production: {tally['up']['rows']:,} {terms['up']}, "
            f"{tally['down']['rows']:,} {terms['down']}."
        ]
    if tally.get("changed"):
        row = tally["per_row"]
        texts += [
            f"By the costs {tally['wins']:,} of them are worth more than before and {tally['losses']:,} "
            f"less (McNemar's exact test: p = {tally['p_value']:.2g}); a row is worth {row['gain']:+.3g} "
            f"({row['low']:.3g} to {row['high']:.3g})."
        ]
    if fitted:
        texts += [
            f"On {fitted['rows']:,} test rows that the model in production was fitted on, "
            f"{fitted['changed']:,} {terms['changed']} ({fitted['share']:.2%})."
        ]
    return " ".join(texts)


def most_changed_slices(comparison: Comparison, min_rows: int) -> list[tuple[str, Tally]]:
    """The slices of at least `min_rows` rows in which a decision changes, the most changed first."""
    tallies = [
        (f"{column} = {name}", tally)
        for column, entries in comparison["slices"].items()
        for name, tally in entries.items()
        if tally["rows"] >= min_rows and tally["changed"]
    ]
    return sorted(tallies, key=lambda item: -item[1]["share"])[:MAX_SLICES]


def _page(settings: Settings, comparison: Comparison) -> str:
    terms, lines = comparison["words"], ["# Who changes", "", sentences(comparison), ""]
    if comparison.get("changed"):
        lines += _table(
            ("way", "rows", "worth more", "worth less", "gain"),
            [
                (terms["up"], *comparison["up"].values()),
                (terms["down"], *comparison["down"].values()),
            ],
        )
    if parts := most_changed_slices(comparison, settings.modelling.evaluation.min_slice_rows):
        header = ("slice", "rows", "change", "low", "high", terms["up"], terms["down"], "gain")
        rows = []
        for name, tally in parts:
            shares = [f"{share:.2%}" for share in (tally["share"], tally["low"], tally["high"])]
            sides = tally["up"]["rows"], tally["down"]["rows"]
            rows.append((_cell(name), tally["rows"], *shares, *sides, tally["gain"]))
        lines += ["## By slice, the most changed first", "", *_table(header, rows)]
    if not (largest := comparison["largest"]):
        return "\n".join(lines)
    moved = comparison["moved"]
    lines += [
        f"## The {len(largest)} rows whose score changes most",
        "",
        f"Scores move by {moved['mean']:.3g} on average, by {moved['largest']:.3g} at most. The first column "
        f"is the row's place in the test part, for `trace`; columns that are personal are not shown.",
        "",
    ]
    names = map(_cell, largest[0]["columns"])
    lines += _table(
        ("row", "fitted", "score", "new", "decision", "new", "label", *names),
        [[*list(row.values())[:-1], *map(_cell, row["columns"].values())] for row in largest],
    )
    return "\n".join(lines)


def _table(header: Any, rows: list[Any]) -> list[str]:
    """Lines of a Markdown table."""
    body = [[f"{x:.4g}" if isinstance(x, float) else str(x) for x in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *body)] + [""]


def _cell(content: Any) -> Any:
    """Texts of the data as code, so that nothing in them is taken for markup, a mention or an end of the cell."""
    if not isinstance(content, str):
        return "" if content is None else content
    text = re.sub(r"[\s`|\\]+", " ", content)
    return f"`{text if len(text) <= MAX_CELL_WIDTH else text[: MAX_CELL_WIDTH - 1] + '…'}`"


def show(comparison: Comparison, min_rows: int, console: Console) -> None:
    """Print a comparison: its sentences, and the changes by direction and by slice."""
    console.print(sentences(comparison), markup=False)
    if not comparison.get("changed"):
        return
    up, down = comparison["words"]["up"], comparison["words"]["down"]
    rows: list[tuple[str, Any]] = [(up, comparison["up"]), (down, comparison["down"])]
    table = Table("", "rows", "changed", "better", "worse", "gain", box=SIMPLE_HEAD)
    for name, tally in [*rows, *most_changed_slices(comparison, min_rows)[:5]]:
        share = f"{tally['changed']:,} ({tally['share']:.1%})" if "share" in tally else ""
        figures = (share, f"{tally['wins']:,}", f"{tally['losses']:,}", f"{tally['gain']:+.4g}")
        table.add_row(escape(name), f"{tally['rows']:,}", *figures)
    console.print(table)
    n = len(comparison["largest"])
    console.print(f"{COMPARE_PAGE} has the slices, and the {n} rows whose score changes most.")
