"""The event schema: as SQL, how a raw value becomes a typed one and which rows are refused why; in words, what a value may be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from ..images import FAULTS, FORMATS, Form
from ..settings import STRINGS, ColumnSettings, Settings, missing_library
from .numerals import SPREADSHEET_ERROR
from .parsing import canonical_sql, number_sql, part_sql
from .times import time_sql

PERSONAL_KEY = "PERSONAL_KEY"  # the environment variable with the key of personal values' hashes
WEIGHT = "_row_weight"  # the column with how much a row counts, where not all count alike
# Columns of labelled rows, where young ones are weighed: when a label came, and of a young row its age in days
CAME_AT, AGE = "_came_at", "_young_age"
TYPES = {
    "number": "DOUBLE",
    "category": "VARCHAR",
    "text": "VARCHAR",
    "image": "VARCHAR",
    "history": "VARCHAR",  # its numbers as JSON has them: [12, null, 7.5]
    "time": "TIMESTAMP",
    "bool": "BOOLEAN",
}
VALUE_PHRASES = {
    "number": "a number or null",
    "bool": "true, false or null",
    "category": "a text or null",
    "text": "a text or null",
    "image": f"an image in base64 ({', '.join(FORMATS)}) or null",
    "history": "a list of numbers and nulls, the latest last, or null",
    "time": "a time such as 2026-01-31T12:00:00Z, seconds since 1970, or null",
}
TYPE_PHRASES = {
    "number": "a number",
    "time": "a time",
    "bool": "yes or no",
    "image": "an image",
    "history": "a list of finite numbers",
}
# What files write for "nothing". Not for category and text, where NA may be Namibia
MISSING_WORDS = ("-", "?", "n/a", "na", "nan", "nat", "none", "null")


def form(column: ColumnSettings) -> Form:
    """What the images of a column are brought into."""
    usual = Form()
    channels = 1 if column.colours == "grey" else usual.channels
    return Form(column.size or usual.size, channels, column.fit or usual.fit)


def other_form(settings: Settings, forms: Mapping[str, Form]) -> str:
    """What is wrong where the settings bring images into another form than a model reads; empty where all is well.

    Args:
        forms: of the columns that the model reads as images.
    """
    for name, trained in forms.items():
        if (present := form(settings.data.schema_.columns[name])) != trained:
            return f"data.schema.columns.{name}: the model was trained on {trained}, the settings say {present}; train again"
    return ""


def require_pillow(settings: Settings) -> None:
    """Let a command begin whose columns it can read.

    Raises:
        UserError: with the command that brings what reads images, where that is not installed.
    """
    if any(column.type == "image" for column in settings.data.schema_.columns.values()):
        _require("PIL.Image", "pillow")


def require_tokenizers(settings: Settings) -> None:
    """Let a command begin whose texts an encoder can read.

    Raises:
        UserError: with the command that brings what makes their tokens, where that is not installed.
    """
    columns, catalogue = settings.data.schema_.columns, settings.features.catalogue
    encoded = {
        columns[feature.column or name].type
        for name, feature in catalogue.items()
        if feature.encode in ("given", "network") and feature.use and feature.known
    }
    if "text" in encoded:
        _require("tokenizers", "tokenizers")


def _require(module: str, library: str) -> None:
    try:
        import_module(module)
    except ModuleNotFoundError:
        raise missing_library(library) from None


def stored(settings: Settings) -> dict[str, ColumnSettings]:
    """The columns that are kept: all but personal ones that `data.personal` drops."""
    columns = settings.data.schema_.columns
    drop = settings.data.personal == "drop"
    return {name: column for name, column in columns.items() if not (drop and column.personal)}


def masks(settings: Settings) -> dict[str, tuple[str, ...]]:
    """What is masked in each free text, as `parsing.masked` takes it; personal columns are treated whole."""
    kinds, columns = settings.data.mask, settings.data.schema_.columns
    free = [name for name, rule in columns.items() if rule.type == "text" and not rule.personal]
    return dict.fromkeys(free, kinds) if kinds else {}


def name(column: str) -> str:
    """A column's name in SQL."""
    return '"' + column.replace('"', '""') + '"'


def text(value: str) -> str:
    """A string in SQL."""
    return "'" + value.replace("'", "''") + "'"


def no_label(settings: Settings) -> str:
    """The pattern of whole texts that mean no label: the label column's `missing`, else the usual ones."""
    return missing_pattern(settings.data.schema_.columns[settings.data.label.column].missing)


def missing_pattern(values: Sequence[str] | None = None) -> str:
    """A pattern of whole texts that mean nothing, in any case: these, and blanks.

    Args:
        values: a column's own; without any, `MISSING_WORDS` and the errors of spreadsheets.
    """
    alternatives = "|".join(map(re.escape, MISSING_WORDS if values is None else values))
    return rf"(?i)\s*({alternatives}{f'|{SPREADSHEET_ERROR}' if values is None else ''}|)\s*"


def has_label(value: str, pattern: str) -> str:
    """SQL: whether a label is there, and not a text that means none."""
    same = f"regexp_full_match(CAST({value} AS VARCHAR), {text(pattern)})"
    return f"({value} IS NOT NULL AND NOT {same})"


def rounded(value: str, digits: int) -> str:
    """SQL for a number rounded to `digits` significant digits."""
    size = f"CAST(floor(log10(abs({value}))) AS INTEGER)"
    return f"CASE WHEN {value} = 0 THEN 0.0 ELSE round({value}, {digits - 1} - {size}) END"


def none_of(value: str, excluded: Iterable[str]) -> str:
    """SQL: a value is there and is none of `excluded`. A long `IN` becomes a join, which mixes rows up."""
    listed = ", ".join(map(text, excluded))
    return f"({value} IS NOT NULL AND coalesce(list_position([{listed}], {value}), 0) = 0)"


def cleaned(raw: str, raw_type: str, column: ColumnSettings) -> str:
    """SQL for a raw value without what only looks like one: NULL where nothing was given."""
    cell = raw
    if raw_type in ("FLOAT", "DOUBLE"):
        cell = f"CASE WHEN isnan({raw}) THEN NULL ELSE {raw} END"
    elif column.part:
        cell = part_sql(f"nullif(trim(CAST({raw} AS VARCHAR)), '')", column.part)
    elif raw_type == "VARCHAR" or raw_type.startswith("ENUM"):
        cell = f"nullif(trim(CAST({raw} AS VARCHAR)), '')"
        if column.type not in STRINGS:
            cell = f"CASE WHEN {none_of(f'lower({cell})', MISSING_WORDS)} THEN {cell} END"
    if not column.missing:
        return cell
    lowered = f"lower(CAST({cell} AS VARCHAR))"
    present = none_of(lowered, [code.lower() for code in column.missing])
    if codes := [code for code in missing(column) if isinstance(code, float)]:
        value = typed(cell, raw_type, column)
        present = f"{present} AND coalesce({value} NOT IN ({', '.join(map(repr, codes))}), true)"
    return f"CASE WHEN {present} THEN {cell} END"


def missing(column: ColumnSettings) -> frozenset[float | str]:
    """The values that mean none in a column: numbers of a number, else texts in lower case."""
    lowered = [code.lower() for code in column.missing or ()]
    if column.type != "number":
        return frozenset(lowered)
    return frozenset(value for value in map(_number, lowered) if value is not None)


def _number(code: str) -> float | None:
    try:
        value = float(code)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def typed(raw: str, raw_type: str, column: ColumnSettings) -> str:
    """SQL for a cleaned value in the type of its column, NULL where it does not fit."""
    raw_type = "VARCHAR" if column.part else raw_type
    if column.type == "time":
        return time_sql(raw, raw_type, column.formats)
    if column.type == "bool" and raw_type == "VARCHAR":
        return (
            f"CASE WHEN lower({raw}) IN ('true', 't', '1', '1.0', 'yes', 'y') THEN true "
            f"WHEN lower({raw}) IN ('false', 'f', '0', '0.0', 'no', 'n') THEN false END"
        )
    if column.type == "category" and (column.decimal or raw_type in ("FLOAT", "DOUBLE", "DECIMAL")):
        return canonical_sql(raw)
    if column.type == "image":
        size, channels, fit = form(column)
        return f"stored_image({raw}, {size}, {channels}, {text(fit)})"
    if column.type == "history":
        return history_sql(raw)
    value = f"TRY_CAST({raw} AS {TYPES[column.type]})"
    if column.type == "number" and raw_type == "VARCHAR" and (column.decimal or column.units):
        value = number_sql(raw, column.decimal or ".", column.units or {})
    return (
        f"CASE WHEN isnan({value}) THEN NULL ELSE {value} END" if column.type == "number" else value
    )


def history_sql(raw: str) -> str:
    """SQL for a list of numbers, or a text that holds one, as JSON; NULL where it is none, or one is infinite."""
    values = f"TRY_CAST({raw} AS DOUBLE[])"
    whole = f"list_transform({values}, lambda x: CASE WHEN isnan(x) THEN NULL ELSE x END)"
    is_finite = f"len(list_filter({values}, lambda x: isinf(x))) = 0"
    return f"CASE WHEN {is_finite} THEN CAST(to_json({whole}) AS VARCHAR) END"


def checks(rule: ColumnSettings, raw: str, value: str) -> Iterator[tuple[str, str]]:
    """The rules of one column, all but `unique`, which needs every row at once.

    Args:
        raw, value: SQL of the cleaned and of the typed value.

    Yields:
        each rule in words, and the SQL condition under which a row breaks it and is refused.
    """
    misfit = f"{raw} IS NOT NULL AND {value} IS NULL"
    if rule.type == "image":
        for fault in FAULTS:
            yield fault, f"CASE WHEN {misfit} THEN image_fault({raw}) = {text(fault)} END"
    elif rule.type in TYPE_PHRASES:
        yield f"is not {TYPE_PHRASES[rule.type]}", misfit
    if rule.type == "number":
        yield "is not finite", f"isinf({value})"
    if rule.required:
        yield "is missing", f"{raw} IS NULL"
    if rule.min is not None:
        yield f"is below {rule.min:g}", f"{value} < {rule.min!r}"
    if rule.max is not None:
        yield f"is above {rule.max:g}", f"{value} > {rule.max!r}"
    if rule.allowed is not None:
        reason = f"is not one of {', '.join(rule.allowed)}"
        yield reason, none_of(f"CAST({value} AS VARCHAR)", rule.allowed)


def _rounded_end(end: float | None, side: float) -> float | None:
    """An end of what training saw, moved outwards to include all that the end's 32 bits stand for."""
    near = np.float32(end or 0.0)
    if not end or not np.isfinite(near):
        return end
    return (float(near) + float(np.nextafter(near, np.float32(side)))) / 2


def value_range(
    column: ColumnSettings, model_input: Mapping[str, Any]
) -> tuple[float, float, frozenset[str] | None] | None:
    """(least, most, allowed) of a column, by the schema or else by what training saw; None: anything.

    Args:
        model_input: of the manifest, with "min" and "max" of a number, "categories" of a category.
    """
    if column.type == "number":
        bounds = [
            _rounded_end(model_input.get(key), side) if limit is None else limit
            for key, limit, side in (("min", column.min, -np.inf), ("max", column.max, np.inf))
        ]
        return None if None in bounds else (*bounds, None)  # type: ignore[return-value]
    if column.type == "category":
        allowed = column.allowed or model_input.get("categories")
        return (0.0, 0.0, frozenset((*allowed, ""))) if allowed else None
    return None


NO_VALUE = "no value in any column that may be missing"
NO_GAP = "no value, and the model learnt from no such row (features.delete_rows)"


def value_phrase(column: ColumnSettings, bounds: Sequence[Any] | None, required: bool) -> str:
    """What a column may hold, in words.

    Args:
        bounds: as `value_range` gives them.
        required: a value has to be there.
    """
    if bounds is not None:
        low, high, allowed = bounds
        if allowed is None:
            return f"between {low:g} and {high:g}"
        names = sorted(allowed - {""})
        suffix = f" and {len(names) - 10} more" if len(names) > 10 else ""
        return f"one of {', '.join(names[:10])}{suffix}"
    phrase = VALUE_PHRASES[column.type]
    return phrase.replace(" or null", "").replace(", or null", "") if required else phrase
