"""Who changes: on which rows the new model decides otherwise than the one in production, before any traffic."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

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
from ..goals.gate import Figure
from ..paths import COMPARE, COMPARE_PAGE, MANIFEST, MODEL, MODEL_FILE, PRODUCTION, SPLITS
from ..problem import Costs
from ..problem import data as problem_data
from ..problem.goals import changes, claim, decide, distance, spread, value, way
from ..settings import Settings
from .evaluate import beside, in_production, manifest_at
from .scorer import load_scorer

LEAST = 0.1  # of the label's spread: a number that moves by less is no other decision
LARGEST = 100  # rows that are shown one by one
MOST_SLICES, MOST_COLUMNS, WIDEST = 20, 12, 24  # of the page, so that a pull request can hold it
NOTHING = f"{PRODUCTION} is not here: nothing is in production that could be compared"
Array = np.ndarray


@dataclass(frozen=True)
class Changes:
    """Two models' decisions on the same n rows, side by side; each of shape (n,).

    `way` is 1 where a decision changes upwards, -1 downwards, 0 where it stays; `gained` is what the
    new decision is worth beyond the old one.
    """

    way: Array
    gained: Array

    @classmethod
    def of(cls, y: Array, old: Array, new: Array, costs: Costs) -> Changes:
        """A number changes when it moves by more than `LEAST` standard deviations of the label."""
        changed = way(y, old, new, LEAST * spread(y))
        return cls(changed, value(y, new, costs) - value(y, old, costs))

    def tally(self, rows: Array, level: float) -> dict[str, Any] | None:
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
        gained, share = self.gained[rows], Figure.of_mean(self.way[rows] != 0, level)
        reach = NormalDist().inv_cdf((1 + level) / 2) * float(gained.std()) / math.sqrt(len(gained))
        up, down = (self._direction(rows & (self.way == way)) for way in (1, -1))
        wins, losses = (up[key] + down[key] for key in ("wins", "losses"))
        return {
            "rows": len(gained),
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
            "per_row": {
                "gain": float(gained.mean()),
                "low": float(gained.mean()) - reach,
                "high": float(gained.mean()) + reach,
            },
        }

    def _direction(self, rows: Array) -> dict[str, Any]:
        gained = self.gained[rows]
        wins, losses = int((gained > 0).sum()), int((gained < 0).sum())
        return {
            "rows": len(gained),
            "wins": wins,
            "losses": losses,
            "gain": float(gained.sum()),
        }


def mcnemar(wins: int, losses: int) -> float:
    """The chance of so uneven a split, or a more uneven one, where both sides are as likely."""
    return min(1.0, 2 * float(bdtr(min(wins, losses), wins + losses, 0.5)))


def compare(settings: Settings, root: Path) -> dict[str, Any] | None:
    """Write reports/compare.json and compare.md: whose decision changes on the test rows.

    The figures are of rows that neither model was fitted on; those that the model in production was
    fitted on, where it looks better than it is, are told apart under `fitted`.

    Returns:
        the report: what `Changes.tally` gives, with the words for it, `fitted` and `slices` of the same,
        how far scores move, and the rows whose score moves most. None, and neither file is
        there, when nothing is in production.

    Raises:
        UserError: when no model was trained, or production's takes a column that is gone.
    """
    manifest, test, goals = manifest_at(root / MANIFEST), root / SPLITS["test"], settings.goals
    rows = load(test, inputs(settings))
    there = in_production(settings, root, rows)
    if there is None:
        for path in (COMPARE, COMPARE_PAGE):
            (root / path).unlink(missing_ok=True)
        return None
    old, old_rows, fitted = there
    y, extra = beside(test, settings.modelling.evaluation.slices)
    scores = (
        load_scorer(root / PRODUCTION / MODEL_FILE).score(old_rows),
        load_scorer(root / MODEL).score(rows),
    )
    decided = decide(scores[0], old["decision"]), decide(scores[1], manifest["decision"])
    told, level = Changes.of(y, *decided, goals.costs), goals.interval.level
    moved = distance(*scores)
    words, up, down = changes(LEAST * spread(y))
    claimed = [claim(*side) for side in zip(scores, decided, strict=True)]
    answers = {
        **{
            "fitted": fitted.tolist(),
            "old_score": claimed[0].tolist(),
            "new_score": claimed[1].tolist(),
        },
        "old_decision": _named(settings, decided[0]),
        "new_decision": _named(settings, decided[1]),
        "label": _named(settings, y),
    }
    found: dict[str, Any] = {
        "production": old["sha256"],
        "model": manifest["sha256"],
        "words": {"changed": words, "up": up, "down": down},
        "rows": 0,
        **(told.tally(~fitted, level) or {}),
        "fitted": told.tally(fitted, level),
        "moved": {"mean": float(moved.mean()), "largest": float(moved.max())},
        "slices": {name: _slices(told, ~fitted, extra[name], level) for name in extra},
        "largest": _largest(settings, test, moved, answers),
    }
    (root / COMPARE_PAGE).parent.mkdir(parents=True, exist_ok=True)
    (root / COMPARE_PAGE).write_text(_page(settings, found), encoding="utf-8", newline="\n")
    return report(root, "compare", found)


def _named(settings: Settings, values: Array) -> list[Any]:
    """Decisions, or labels, as a reader knows them: the names of classes, or numbers."""
    classes = problem_data.named(settings.data.label)
    return [classes[int(one)] for one in values] if problem.WIDE else values.tolist()


def _largest(
    settings: Settings, test: Path, moved: Array, answers: dict[str, list[Any]]
) -> list[dict[str, Any]]:
    """The rows whose score moves most: place in the test part, both answers, and what may be shown of them."""
    most = [int(at) for at in np.argsort(-moved, kind="stable")[:LARGEST] if moved[at]]
    names = _shown(settings)
    columns = [f"{quoted(name)} AS _{place}" for place, name in enumerate(names)]
    numbered = ", ".join(["row_number() OVER () - 1 AS _at", *columns])
    query = f"FROM (SELECT {numbered} FROM read_parquet(?)) WHERE _at IN ?"
    shown = duckdb.execute(query, [str(test), most]).fetchall() if most else []
    by_place = {at: dict(zip(names, map(_plain, values), strict=True)) for at, *values in shown}
    return [
        {"row": at}
        | {key: values[at] for key, values in answers.items()}
        | {"columns": by_place[at]}
        for at in most
    ]


def _shown(settings: Settings) -> list[str]:
    """A row's id, slices, features and other columns, in this order; none that is personal, nor the label."""
    columns, data = stored(settings), settings.data
    order = [data.schema_.id, *settings.modelling.evaluation.slices, *inputs(settings), *columns]
    kept = {name for name, one in columns.items() if not one.personal} - {data.label.column}
    return [name for name in dict.fromkeys(order) if name in kept][:MOST_COLUMNS]


def _slices(told: Changes, rows: Array, values: pd.Series, level: float) -> dict[str, Any]:
    names = values.astype(str).fillna("missing").replace("", "missing")
    parts = {str(name): rows & (names == name).to_numpy() for name in sorted(names.unique())}
    return {name: told.tally(part, level) for name, part in parts.items() if part.any()}


def _plain(one: Any) -> Any:
    """A value of a table as JSON can hold it."""
    if (
        one is None
        or isinstance(one, bool | int)
        or (isinstance(one, float) and math.isfinite(one))
    ):
        return one
    return str(one)[:200]


def sentences(found: dict[str, Any]) -> str:
    """The report in at most three sentences."""
    words, seen, said = found["words"], found["fitted"], []
    if found["production"] == found["model"]:
        return "The trained model is the one in production: nothing changes."
    if found["rows"]:
        said += [
            f"On {found['rows']:,} test rows that neither model was fitted on, {found['changed']:,} "
            f"{words['changed']} ({found['share']:.2%}, {found['low']:.2%} to {found['high']:.2%}) when the "
            f"new model takes over from the one in production: {found['up']['rows']:,} {words['up']}, "
            f"{found['down']['rows']:,} {words['down']}."
        ]
    if found.get("changed"):
        row = found["per_row"]
        said += [
            f"By the costs {found['wins']:,} of them are worth more than before and {found['losses']:,} "
            f"less (McNemar's exact test: p = {found['p_value']:.2g}); a row is worth {row['gain']:+.3g} "
            f"({row['low']:.3g} to {row['high']:.3g})."
        ]
    if seen:
        said += [
            f"On {seen['rows']:,} test rows that the model in production was fitted on, "
            f"{seen['changed']:,} {words['changed']} ({seen['share']:.2%})."
        ]
    return " ".join(said)


def ranked(found: dict[str, Any], least: int) -> list[tuple[str, dict[str, Any]]]:
    """The slices of at least so many rows in which something changes, the most changed first."""
    parts = [
        (f"{column} = {name}", one)
        for column, entries in found["slices"].items()
        for name, one in entries.items()
        if one["rows"] >= least and one["changed"]
    ]
    return sorted(parts, key=lambda part: -part[1]["share"])[:MOST_SLICES]


def _page(settings: Settings, found: dict[str, Any]) -> str:
    words, lines = found["words"], ["# Who changes", "", sentences(found), ""]
    if found.get("changed"):
        lines += _table(
            ("way", "rows", "worth more", "worth less", "gain"),
            [(words[way], *found[way].values()) for way in ("up", "down")],
        )
    if parts := ranked(found, settings.modelling.evaluation.min_slice_rows):
        shares = [[f"{one[key]:.2%}" for key in ("share", "low", "high")] for _, one in parts]
        lines += ["## By slice, the most changed first", ""]
        lines += _table(
            ("slice", "rows", "change", "low", "high", words["up"], words["down"], "gain"),
            [
                (
                    _cell(name),
                    one["rows"],
                    *share,
                    *(one[way]["rows"] for way in ("up", "down")),
                    one["gain"],
                )
                for (name, one), share in zip(parts, shares, strict=True)
            ],
        )
    if not (largest := found["largest"]):
        return "\n".join(lines)
    moved = found["moved"]
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
        [[*list(one.values())[:-1], *map(_cell, one["columns"].values())] for one in largest],
    )
    return "\n".join(lines)


def _table(heads: Any, rows: list[Any]) -> list[str]:
    """Lines of a Markdown table."""
    body = [[f"{one:.4g}" if isinstance(one, float) else str(one) for one in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *body)] + [""]


def _cell(one: Any) -> Any:
    """Texts of the data as code, so that nothing in them is taken for markup, a mention or an end of the cell."""
    if not isinstance(one, str):
        return "" if one is None else one
    text = re.sub(r"[\s`|\\]+", " ", one)
    return f"`{text if len(text) <= WIDEST else text[: WIDEST - 1] + '…'}`"


def show(found: dict[str, Any], least: int, console: Console) -> None:
    """The sentences, and the changes by way and by slice."""
    console.print(sentences(found), markup=False)
    if not found.get("changed"):
        return
    rows = [(found["words"][way], found[way]) for way in ("up", "down")]
    table = Table("", "rows", "changed", "better", "worse", "gain", box=SIMPLE_HEAD)
    for name, one in [*rows, *ranked(found, least)[:5]]:
        share = f"{one['changed']:,} ({one['share']:.1%})" if "share" in one else ""
        figures = (share, f"{one['wins']:,}", f"{one['losses']:,}", f"{one['gain']:+.4g}")
        table.add_row(escape(name), f"{one['rows']:,}", *figures)
    console.print(table)
    many = len(found["largest"])
    console.print(f"{COMPARE_PAGE} has the slices, and the {many} rows whose score changes most.")
