"""The rows that people label: their ids, the labels that they have already, and the values that a label can be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from .. import problem
from ..data.schema import has_label, name, no_label, stored, text
from ..paths import EVENTS
from ..problem import data as problem_data
from ..settings import Settings, UserError, require_file
from .votes import gold, spelling

MAX_VALUES = 9  # of a label, that a digit stands for
COMMANDS = "sxu"  # the keys that skip, cannot tell and undo


def id_column(settings: Settings) -> str:
    """The column that votes name rows by.

    Raises:
        UserError: when the project has none, or does not keep it.
    """
    column = settings.data.schema_.id
    if column is None:
        raise UserError(
            "data.schema.id: is null, and votes name rows by it; give the source a column with another value in each "
            "row, and name that column here"
        )
    if column not in stored(settings):
        raise UserError(
            f"data.schema.columns.{column}: is personal and dropped; votes name rows by it"
        )
    return column


def source(root: Path) -> str:
    """SQL of the collected events.

    Raises:
        UserError: when `collect` has not run.
    """
    return f"read_parquet({text(str(require_file(root / EVENTS)))})"


def read_labels(settings: Settings, root: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """All collected rows: `_id` and `_label`, as texts, None for no label; and columns as they are.

    Raises:
        UserError: as `id_column` and `source`.
    """
    label = name(settings.data.label.column)
    present = f"CASE WHEN {has_label(label, no_label(settings))} THEN CAST({label} AS VARCHAR) END"
    fields = [
        f"CAST({name(id_column(settings))} AS VARCHAR) AS _id",
        f"{present} AS _label",
        *map(name, columns),
    ]
    rows = duckdb.execute(f"SELECT {', '.join(fields)} FROM {source(root)}").df()
    labels = [
        spelling(value, settings) if isinstance(value, str) else None for value in rows["_label"]
    ]
    return rows.assign(_label=pd.Series(labels, rows.index, dtype=object))


def slice_columns(settings: Settings) -> list[str]:
    """The columns whose values are slices that labels should cover."""
    columns = settings.data.schema_.columns
    slices = settings.modelling.evaluation.slices
    return [column for column in slices if columns[column].type in ("category", "bool")]


def certain_labels(settings: Settings, root: Path) -> dict[str, str]:
    """The labels that are certain, by id: those that rows bring along, and before them those of labels/gold.jsonl.

    Raises:
        UserError: as `read_labels`, or when a line is no vote.
    """
    brought = read_labels(settings, root).dropna(subset="_label").set_index("_id")["_label"]
    return brought.to_dict() | gold(settings, root)


def read_fields(settings: Settings, root: Path, ids: Iterable[str]) -> dict[str, list[list[Any]]]:
    """What a labeller sees of rows, by their id: name, type and value of each column that has a value.

    Neither the label nor its time is among them, nor the id, nor a personal column that is not kept.
    """
    data = settings.data
    id_, hidden = id_column(settings), {data.label.column, data.label.time, data.schema_.id}
    columns = {
        column: rule.type for column, rule in stored(settings).items() if column not in hidden
    }
    requested = pd.DataFrame({"id": list(ids)}, dtype=object)
    with duckdb.connect() as sql:
        sql.register("requested", requested)
        selected = ", ".join(
            f"CAST({name(column)} AS VARCHAR) AS {name(column)}" for column in columns
        )
        rows = sql.execute(
            f"SELECT CAST({name(id_)} AS VARCHAR) AS _id, {selected} FROM {source(root)} "
            f"WHERE CAST({name(id_)} AS VARCHAR) IN (SELECT CAST(id AS VARCHAR) FROM requested)"
        ).fetchall()
    fields = {}
    for key, *values in rows:
        trimmed = [
            value.removesuffix(".0") if kind == "number" and value else value
            for kind, value in zip(columns.values(), values, strict=True)
        ]
        pairs = zip(columns.items(), trimmed, strict=True)
        fields[key] = [
            [column, kind, value] for (column, kind), value in pairs if value not in (None, "")
        ]
    return fields


def label_values(settings: Settings, existing: Iterable[str | None]) -> list[str]:
    """The values that a label can be, those that the settings name first; none of a number.

    Args:
        existing: labels that rows have already.
    """
    if not problem.CLASSES:
        return []
    values = [spelling(value, settings) for value in problem_data.named(settings.data.label)]
    present = sorted({value for value in existing if value is not None} - {*values})
    if len(values) == 1 and not present:  # nobody has said no yet
        present = [
            "0" if values[0] != "0" and spelling("0.0", settings) == "0" else f"not {values[0]}"
        ]
    return [*values, *present]


def keys(settings: Settings, existing: Iterable[str | None]) -> dict[str, str]:
    """The label that each key of the page gives: as `labelling.keys` says, else the label itself where all are of one
    character, else digits; none of a number.

    Raises:
        UserError: when there are more values than digits.
    """
    if settings.labelling.keys:
        return dict(settings.labelling.keys)
    values = label_values(settings, existing)
    if all(len(value) == 1 and value.isalnum() and value not in COMMANDS for value in values):
        return {value: value for value in values}  # the label 0 by the key 0
    if len(values) > MAX_VALUES:
        raise UserError(f"labelling.keys: the label has {len(values)} values; give each a key")
    return {str(digit): value for digit, value in enumerate(values, 1)}
