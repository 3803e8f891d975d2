"""`adopt`: point the project at the user's own file. Profile it, decide on every column, say why.

Here is the order of the steps, what each role of a column needs, and what is written.
"""

from __future__ import annotations

import csv
import math
import os
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection as SQL
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from .. import problem
from ..parts import part_hint, parts_here
from ..paths import SETTINGS_FILE
from ..problem import data as problem_data
from ..settings import MIN_PART_ROWS, STRINGS, Settings, UserError, editor, load, read_text, write
from . import column_rules, profile
from .column_rules import (
    FEW_CATEGORIES,
    ID_NAME,
    LIST_NAME,
    QUASI_NAME,
    SENSITIVE_NAME,
    decide_feature,
    mark_codes,
)
from .files import FOLDER_COLUMNS, NOT_UTF8, FileRows, open_files, relative
from .label import adds_up, predictiveness
from .numerals import FITS
from .profile import Profile, row, typed_rows
from .rewriting import change, in_quotes, on_one_line, refill
from .schema import has_label, missing_pattern, rounded, text
from .schema_versions import check_version, newest
from .source import first_line, limit_threads

LATIN = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "Ae", "ø": "o", "Ø": "O", "œ": "oe", "ł": "l", "Ł": "L"}
)
EMPTY_LABEL = "_label"  # what the column of labels that are still to come is called in SQL
MIN_LABELLED_ROWS = 20  # rows with a label that can be trained, chosen and tested on
DELAY_SHARE = 0.95  # share of the measured delays that data.label.delay_days covers
WINDOWS = {"1d": 1, "1w": 7, "4w": 28}  # of the monitor, in days
MAX_NAMES = 12  # columns that a line lists by name
MAX_FOLDERS = 100  # beside a table, in which its images are looked for
BASELINE_NOTE = "images: patches are a baseline; where whole shapes or small defects decide, a network sees more"
FOLDER_NOTE = "the class is the sub-folder's name; what is put in later is read by the next `run`"


@dataclass(frozen=True)
class AdoptOptions:
    """What the user says of the file, as it was typed.

    Attributes:
        time, group, label_time: columns, named as the file or the project spells them.
        yes_value: the label's value that counts as yes.
        delay: days that a label takes.
        category, number, drop: columns that are codes, amounts, or left out.
        values: that people will give as a label, where no row has one yet.
    """

    time: str | None = None
    group: str | None = None
    yes_value: str | None = None
    label_time: str | None = None
    delay: float | None = None
    category: tuple[str, ...] = ()
    number: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


@dataclass
class Roles:
    """The columns that are more than features."""

    label: Profile
    time: Profile | None
    group: Profile | None
    label_time: Profile | None

    def all(self) -> list[Profile]:
        """The columns that have a role, the label first."""
        return [c for c in (self.label, self.time, self.group, self.label_time) if c]


def adopt(file: str | Path, label: str | None, options: AdoptOptions, root: Path) -> list[str]:
    """Profile a file and rewrite params.yaml for it, keeping its comments.

    Args:
        file: one that `files.open_files` reads, or a folder or a glob of such; one row an event.
        label: the column to predict, as the file or the project spells it; columns in options likewise. None:
            there is none yet, where models learn without labels.

    Returns:
        what was decided and why, a line each.

    Raises:
        UserError: when the file or a column cannot be used; params.yaml is then as it was.
    """
    file = str(file)
    settings = load(root / SETTINGS_FILE)
    if label is None and problem.UNLABELLED is None:
        raise UserError("--label is missing: say which column is to be predicted")
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as sql:
        sql.execute("SET memory_limit = ?", [settings.data.source.memory_limit])
        sql.execute("SET temp_directory = ?", [scratch])
        sql.execute("SET TimeZone = 'UTC'")
        try:
            rows = open_files(sql, [file], Path())
            if label is None:
                rows, label = _with_empty_label(rows)
            awaited = _awaits_labels(sql, rows, label, options, settings)
            if awaited:
                rows = _with_awaited_label(rows, label, options.values)
            rows, options, layout = _long(sql, rows, label, options)
            limit_threads(sql, len(rows.columns))
            path = relative(file, root)
            columns = _open(sql, file, rows, settings.project.seed)
            is_folder = Path(rows.files[0]).is_dir()
            if is_folder:
                _name_folder_columns(columns, label, file)
            roles = _roles(columns, label, options, file)
            if problem.LISTED and roles.group is None:
                roles.group = _list_column(sql, columns, roles)
            free = [c for c in columns if c not in roles.all() and not c.user_kind]
            free = [c for c in free if not c.exclusion]
            profile.find_images(sql, free, _image_folders(rows, root))
            lines = _decide(
                sql, settings, columns, roles, options, path, root / SETTINGS_FILE, layout
            )
            if awaited:
                by_people = "has no value yet: `label next` and `label serve` ask people"
                lines = [line for line in lines if not line.startswith("label: ")]
                lines.insert(1, f"label: {roles.label.name} {by_people}")
            notes = [*rows.notes, *([FOLDER_NOTE] if is_folder else [])]
            return [lines[0], *(f"source: {note}" for note in notes), *lines[1:]]
        except duckdb.Error as error:
            reason = f"cannot be read: {first_line(error)}"
            if re.search("unicode|utf-8", str(error), re.IGNORECASE):
                reason = NOT_UTF8.format("LATIN1")
            raise UserError(f"{file}: {reason}") from None


def _with_empty_label(rows: FileRows) -> tuple[FileRows, str]:
    """Rows of files with a column more, for labels that are still to come, and its name: `label`, or one like it."""
    name = "label"
    while name in rows.columns:
        name += "_"
    query = f"SELECT *, CAST(NULL AS VARCHAR) AS {EMPTY_LABEL} FROM ({rows.query})"
    columns = {**rows.columns, name: (EMPTY_LABEL, "VARCHAR")}
    return replace(rows, query=query, columns=columns, headers=[*rows.headers, name]), name


def _awaits_labels(
    sql: SQL, rows: FileRows, label: str, options: AdoptOptions, settings: Settings
) -> bool:
    """Whether no row has a label and people will give them.

    Raises:
        UserError: when nobody says what they may give, and when values are named of a label that rows have.
    """
    by_people = "labelling" in parts_here() and not (problem.LISTED or problem.HISTORIES)
    if not by_people or problem.UNLABELLED is not None:
        if options.values:
            raise UserError(f"--values: people label nothing here; it {part_hint('labelling')}")
        return False
    column = rows.columns.get(label)
    if column is not None:
        value = f"trim(CAST({column[0]} AS VARCHAR))"
        query = f"SELECT count(*), count(*) FILTER ({value} <> '') FROM ({rows.query})"
        ((row_count, present),) = sql.execute(query).fetchall()
        if not row_count:
            return False  # a fault of its own
        if present:
            if options.values:
                raise UserError(f"--values: {label} has {present:,} values; leave --values out")
            return False
    elif not options.values:
        return False  # a name that is spelt otherwise, or wrong
    if problem.CLASSES and len({*options.values}) < 2:
        raise UserError(
            f"--label {label}: has no value; name those that people are to give: --values yes,no"
        )
    if not problem.CLASSES and settings.data.label.source == "natural":
        raise UserError(
            f"--label {label}: has no value; where people are to give them, set data.label.source to team first"
        )
    return True


def _with_awaited_label(rows: FileRows, label: str, values: Sequence[str]) -> FileRows:
    """Rows whose label is drawn by chance, so that all else is told of them as of rows with a label.

    Args:
        values: that it can be; none of a number.
    """
    draw = "hash(row_number() OVER ())"
    value = f"CAST({draw} % 1000 AS VARCHAR)"
    if values:
        listed = ", ".join(map(text, values))
        value = f"list_extract([{listed}], CAST(1 + {draw} % {len(values)} AS BIGINT))"
    replaced = [rows.columns[label][0]] if label in rows.columns else []
    remaining = f"* EXCLUDE ({replaced[0]})" if replaced else "*"
    query = f"SELECT {remaining}, {value} AS {EMPTY_LABEL} FROM ({rows.query})"
    columns = {**rows.columns, label: (EMPTY_LABEL, "VARCHAR")}
    headers = rows.headers if replaced else [*rows.headers, label]
    return replace(rows, query=query, columns=columns, headers=headers)


def _long(
    sql: SQL, rows: FileRows, label: str, options: AdoptOptions
) -> tuple[FileRows, AdoptOptions, dict[str, Any]]:
    """Rows with one for each series and step, where the project forecasts, what their columns are called, and how the
    file stands, as `problem.data.adopted_layout` tells."""
    columns = rows.columns if rows.named else {}
    layout = problem_data.adopted_layout(
        sql, rows.query, columns, label, options.time, options.group
    )
    if not layout:
        return rows, options, {}
    made_columns = dict(layout["columns"])
    rows = replace(rows, query=layout["query"], columns=made_columns, headers=[*made_columns])
    return rows, replace(options, time=layout["time"], group=layout["group"]), layout


def _name_folder_columns(columns: list[Profile], label: str, file: str) -> None:
    """Say of a folder of images which column is which: its sub-folders are the label, whatever that is called."""
    if len(columns) < len(FOLDER_COLUMNS):
        raise UserError(
            f"{file}: its images have no label: put them into a folder for each class, or give a table "
            f"with their paths and a column {label!r}"
        )
    path, _, class_ = columns
    path.unique, path.exclusion = True, "the identifier of a row: its image's path"
    class_.name, class_.header = _snake(label) or class_.name, label


def _image_folders(rows: FileRows, root: Path) -> list[Path]:
    """The folders that the paths in these files may start from: theirs, the project's, then those in theirs."""
    files = [Path(os.path.abspath(file)) for file in rows.files if "://" not in file]
    folders = dict.fromkeys(file if file.is_dir() else file.parent for file in files)
    shared = [Path(os.path.commonpath(folders))] if folders else []
    below = [
        path for at in dict.fromkeys([*folders, *shared]) for path in sorted(at.glob("[!.]*/"))
    ]
    return [*folders, *shared, root.resolve(), *below[:MAX_FOLDERS]]


def _roles(columns: list[Profile], label: str, options: AdoptOptions, file: str) -> Roles:
    """The columns that the user names; sets `user_kind` of those under --category, --number, --drop.

    Raises:
        UserError: for a name that no column has, and a column that is named twice.
    """
    names = (label, options.time, options.group, options.label_time)
    flags = ("label", "time", "group", "label-time")
    roles = Roles(*(  # type: ignore[arg-type]
        None if name is None else _find_column(columns, name, file, flag)
        for flag, name in zip(flags, names, strict=True)
    ))  # fmt: skip
    if len(set(roles.all())) < len(roles.all()):
        raise UserError("--label, --time, --label-time and --group must be different columns")
    for kind in ("category", "number", "drop"):
        for name in _split_list(getattr(options, kind), columns):
            column = _find_column(columns, name, file, kind)
            if column in roles.all():
                raise UserError(f"--{kind} {name}: is the label, the time or the group already")
            if column.user_kind not in ("", kind):
                raise UserError(f"--{kind} {name}: stands under --{column.user_kind} too; choose")
            column.user_kind = kind
    return roles


def _split_list(texts: Sequence[str], columns: list[Profile]) -> list[str]:
    """Column names, of which several may stand in a text with commas; a name may have some itself."""
    headers = {column.header for column in columns}
    lists = [
        [text] if text in headers else next(csv.reader([text], skipinitialspace=True), [])
        for text in texts
    ]
    return [name.strip() for names in lists for name in names if name.strip()]


def _decide(
    sql: SQL, settings: Settings, columns: list[Profile], roles: Roles, options: AdoptOptions, path: str,
    params: Path, layout: dict[str, Any],
) -> list[str]:  # fmt: skip
    label, time = roles.label, roles.time
    texts = [label, roles.group] if problem.CLASSES else [roles.group]
    texts += [c for c in columns if c.user_kind == "category" and c.sql_type == "VARCHAR"]
    texts += [c for c in columns if c.images or c.exclusion]
    notes = profile.infer_types(sql, columns, texts, (time, roles.label_time))
    rows, lines = profile.count_values(sql, columns)
    notes += profile.mark_missing(sql, [c for c in columns if c not in texts])
    _check_types(sql, columns, roles)
    cut = settings.data.split
    min_rows = math.ceil(MIN_PART_ROWS / min(cut.valid, cut.test, 1 - cut.valid - cut.test))
    check_label = _check_classes if problem.CLASSES else _check_number
    keys, label_lines = check_label(sql, label, options.yes_value, rows, min_rows)
    delay, delay_lines = _label_delay(sql, roles, options)
    list_keys, list_lines = _lists(columns, roles, options.group)
    series = _series(sql, columns, roles)
    if (series_keys := series.get("keys", {})).get("series"):  # what is forecast comes later
        by, split_group, split_lines = "time", None, list[str]()
    else:
        by, split_group, split_lines = _split(sql, roles, cut.test, rows)
    if list_keys.get("list"):  # whole lists stay on one side however rows are split
        by, split_group, split_lines = ("time" if time else "random"), None, split_lines[1:]
    keys |= list_keys | series_keys | layout.get("keys", {})
    _decide_features(sql, settings, columns, roles, keys, rows)
    features = [c for c in columns if c.feature and not c.exclusion]
    exclusions = _group_reasons("left out", [(c.name, c.exclusion) for c in columns if c.exclusion])
    if not features:
        raise UserError("; ".join([f"{path}: no column is left to learn from", *exclusions]))
    row_id = _row_id(columns)
    candidates = [c for c in columns if c not in roles.all() and c is not row_id and not c.personal]
    compared = [*candidates, *filter(None, (time, roles.group))]
    digits, duplicate_lines = _duplicate_digits(sql, settings, by, compared, rows)
    if series_keys.get("series"):  # a series that stays as it is repeats itself
        digits, duplicate_lines = None, []
    visible = [c for c in candidates if not c.exclusion or c.exclusion.startswith("sensitive")]
    sensitive = [c.name for c in visible if SENSITIVE_NAME.search(c.name)]
    visible.sort(key=lambda c: c.name not in sensitive)  # whom the answer must not hang on first
    slices = [c.name for c in visible if c.type == "category" and c.distinct <= FEW_CATEGORIES][:5]
    slices += [c.name for c in features if _differs_in_size(c)]

    tree = editor().load(read_text(params).replace("\r\n", "\n"))
    _rewrite(tree, columns, roles, row_id, path, rows, series)
    folder = next((c.images.folder for c in columns if c.images and c.images.folder), None)
    images = relative(str(folder), params.parent, is_glob=False) if folder else None
    change(tree["data"]["source"], images=images)
    quasi = [c.name for c in columns if c is not label and _is_quasi_identifier(c)]
    change(tree["data"], quasi_identifiers=on_one_line(quasi))
    if tree["data"].get("histories"):  # of columns of another file
        tree["data"]["histories"] = {}
    label_time_name = roles.label_time and roles.label_time.name
    change(tree["data"]["label"], column=label.name, time=label_time_name, delay_days=delay)
    _name_values(tree, keys)
    group_name = split_group and split_group.name
    change(tree["data"]["split"], by=by, group=group_name, near_duplicate_digits=digits)
    lists = {"slices": on_one_line(slices), "sensitive": on_one_line(sensitive)}
    change(tree["modelling"]["evaluation"], **lists)
    if "rollout" in tree:
        change(
            tree["rollout"]["router"],
            unit=list_keys.get("list", group_name) or series_keys.get("series"),
        )
    window_lines: list[str] = []
    if "monitoring" in tree:
        categories = {c.name for c in columns if c.type == "category"}
        if list_keys.get("item") in categories:
            change(tree["monitoring"], popularity=list_keys["item"])
        if time:
            window, window_lines = _window(sql, time, settings.monitoring.min_rows)
            change(tree["monitoring"], window=window)
    write(params, tree)
    try:
        check_version(load(params), params.parent)
    except UserError:  # other columns than those that were recorded
        change(tree["data"]["schema"], version=newest(params.parent) + 1)
        write(params, tree)
    period = f"{time.name}, {time.low} to {time.high}" if time else "none; --time names it"
    lines += [*layout.get("lines", ()), *label_lines, *list_lines, *series.get("lines", ())]
    lines += [*delay_lines, f"time: {period}"]
    lines += [*split_lines, *window_lines, *duplicate_lines, *_history_lines(roles, rows), *notes]
    source_columns = len([c for c in columns if not c.part])
    return [
        f"source: {path}, {rows:,} rows of {source_columns} columns",
        *lines,
        *_column_lines(columns, features),
        *_text_lines(features, settings.data.mask, settings.data.personal != "keep"),
        *_image_lines(features, images, settings.data.personal != "keep"),
        *exclusions,
        f"sensitive: {_list_names(sensitive) or 'none'}, guessed by name (modelling.evaluation.sensitive)",
        f"may point at one person together: {_list_names(quasi) or 'none'}, guessed by name (data.quasi_identifiers)",
        _feature_line(features, source_columns),
        "goals.targets: metric and worst_slice are not promised yet; set them after the first run",
    ]


def _is_quasi_identifier(column: Profile) -> bool:
    """Whether a column that is kept may help to tell who somebody is, by its name."""
    is_kept = not column.personal and column.type not in ("text", "image", "history")
    return is_kept and QUASI_NAME.search(column.name) is not None


def _history_lines(roles: Roles, rows: int) -> list[str]:
    """Where what came before a row could be learnt from."""
    if problem.HISTORIES or not (roles.group and roles.time) or rows < 2 * roles.group.distinct:
        return []
    of_each = rows / max(1, roles.group.distinct)
    return [
        f"histories: {of_each:.1f} rows a value of {roles.group.name}; data.histories brings what came before each of them: "
        f"README, Your own data"
    ]


def _differs_in_size(column: Profile) -> bool:
    """Whether a column holds free texts, or images of several sizes: a model may do worse on the long or the small."""
    if column.images:
        return len(column.images.sizes) > 1
    return (column.feature or {}).get("encode") in profile.MIN_LENGTH


def _list_column(sql: SQL, columns: list[Profile], roles: Roles) -> Profile | None:
    """The column whose name is that of a list, with two rows a value or more on average; of several, the one with the
    most values, an identifier before its text. None without."""
    best, column = (0, False), None
    for c in columns:
        if c in roles.all() or c.user_kind or c.part or not LIST_NAME.search(c.name):
            continue
        value = c.sql()[0]
        present, distinct = row(sql, f"SELECT count({value}), count(DISTINCT {value}) FROM source")
        if present >= 2 * distinct and (distinct, bool(ID_NAME.search(c.name))) > best:
            best, column = (distinct, bool(ID_NAME.search(c.name))), c
    return column


def _lists(
    columns: list[Profile], roles: Roles, named_group: str | None
) -> tuple[dict[str, Any], list[str]]:
    """How rows make lists, where the project answers lists; columns that say how a list was shown are no features."""
    types = {c.name: c.type for c in columns if c not in roles.all() and not c.user_kind}
    group = roles.group.name if roles.group else None
    keys, lines = problem_data.adopted_lists(types, group)
    if group and not named_group:
        lines[0] += ", as the column's name says; --group names another one"
    impressions = {keys.get(key) for key in ("position", "random", "propensity", "shown")}
    for column in columns:
        if column.name in impressions:
            column.exclusion = "says how the list was shown, which nobody knows before"
            column.user_kind = column.user_kind or ("number" if column.type == "number" else "")
    keys.pop("shown", None)
    return keys, lines


def _series(sql: SQL, columns: list[Profile], roles: Roles) -> dict[str, Any]:
    """How rows make series, where the project forecasts; numbers that nobody may know ahead are no features."""
    values = {c.name: c.sql()[1] for c in columns}
    free = [c for c in columns if c not in roles.all() and not c.exclusion and not c.personal]
    free = [c for c in free if c.user_kind in ("", "category")]
    kinds = {c.name: c.type for c in free}
    time, group = (role.name if role else None for role in (roles.time, roles.group))
    series = problem_data.adopted_series(sql, values, kinds, time, group)
    for column in free:
        if column.name in series.get("unknown", ()):
            column.exclusion = "changes within a series; --number names it where it is known ahead"
    return series


def _window(sql: SQL, time: Profile, min_rows: int) -> tuple[str | int, list[str]]:
    """The shortest window of the monitor that has enough rows at the file's pace, and why, where it is no day.

    The pace is that of the middle nine tenths of the rows: a few moments far away are mistakes.
    """
    moment = f"epoch({time.sql()[1]})"
    tails = f"quantile_cont({moment}, 0.95) - quantile_cont({moment}, 0.05)"
    count, seconds = row(sql, f"SELECT count({moment}), {tails} FROM source")
    daily = 0.9 * count / max(1.0, seconds / 86_400)
    window = next((name for name, days in WINDOWS.items() if daily * days >= min_rows), min_rows)
    reason = f"windows: {window}, since a day has {daily:,.3g} rows and {min_rows:,} are asked (monitoring.window)"
    return window, [] if window == "1d" else [reason]


def _name_values(tree: CommentedMap, keys: dict[str, Any]) -> None:
    """Write what the label's values mean.

    Args:
        keys: keys of `data.label`, or dotted paths to those of other blocks -> their values.
    """
    for path, value in keys.items():
        *blocks, key = path.split(".") if "." in path else ("data", "label", path)
        block = tree
        for name in blocks:
            block = block.get(name, {})
        if key in block:  # the block of a part is there with the part
            change(block, **{key: _quoted(value)})


def _quoted(value: Any) -> Any:
    """A text, a list of texts, nothing or an empty block as the settings write it."""
    if isinstance(value, list):
        return in_quotes(value)
    return DoubleQuotedScalarString(value) if isinstance(value, str) else value


def _column_lines(columns: list[Profile], features: list[Profile]) -> list[str]:
    """What does not fit its column, and which numbers are taken for categories."""
    coded = [(c.name, c.code_reason) for c in features if c.code_reason]
    invalid = [
        f"{c.name}: {c.invalid:,} of {c.present:,} values are no {c.type}; their rows go to quarantine"
        for c in columns
        if c.invalid
    ]
    return [*invalid, *_group_reasons("categories, not numbers", coded)]


def _text_lines(features: list[Profile], mask: Sequence[str], has_persons: bool) -> list[str]:
    """Which columns are read as free text, and what to think of where rows are about people."""
    lines = []
    for unit in profile.MIN_LENGTH:
        texts = [c.name for c in features if (c.feature or {}).get("encode") == unit]
        if texts:
            lines.append(f"free text, read by its {unit}: {_list_names(texts)}")
    if lines and mask:
        lines[-1] += f"; masked in texts: {', '.join(mask)}"
    if lines and has_persons:
        unmasked = "names" if mask else "names and addresses"
        lines[-1] += f"; texts may hold {unmasked}, --drop COLUMN leaves one out"
    return lines


def _image_lines(features: list[Profile], folder: str | None, has_persons: bool) -> list[str]:
    """Which columns are read as images, and what they are brought to."""
    described = []
    for column in features:
        if images := column.images:
            at = f"files below {folder}" if images.folder else "in base64"
            sizes = images.sizes[0] + (" and other sizes" if len(images.sizes) > 1 else "")
            colours = "grey" if images.colours == "grey" else "colours"
            form = f"as {images.size} × {images.size} in {colours}"
            described.append(f"{column.name} ({column.distinct:,} {at}, {sizes}, {form})")
    lines = [f"images, read by their patches: {_list_names(described)}"] if described else []
    if lines and has_persons:
        lines[-1] += "; images may show people, --drop COLUMN leaves one out"
    return lines + [BASELINE_NOTE] * len(lines)


def _decide_features(
    sql: SQL,
    settings: Settings,
    columns: list[Profile],
    roles: Roles,
    keys: dict[str, Any],
    rows: int,
) -> None:
    """Decide on every column, leave out what gives the label away, and sort them by name."""
    mark_codes([c for c in columns if c not in roles.all()])
    profile.order_codes(sql, columns, column_rules.MAX_ORDERED_CODES)
    for column in columns:
        if column not in (roles.label, roles.group, roles.label_time):
            decide_feature(column, rows, column is roles.time)
    if roles.group:
        roles.group.feature = column_rules.HASH_ENCODING
        tells = "what tells series apart" if keys.get("series") else "the group that --group names"
        roles.group.exclusion = tells
    features = [c for c in columns if c.feature and not c.exclusion and not c.images]
    _exclude_leaks(sql, settings, features, roles.label, keys)
    columns.sort(key=lambda c: c.name)


def _row_id(columns: list[Profile]) -> Profile | None:
    """The identifier of a row: one that is called so before others."""
    unique = [c for c in columns if c.unique]
    return min(unique, key=lambda c: not ID_NAME.search(c.name), default=None)


def _rewrite(
    tree: Any,
    columns: list[Profile],
    roles: Roles,
    row_id: Profile | None,
    path: str,
    rows: int,
    series: dict[str, Any],
) -> None:
    """Set the source, the schema and the features; `series`: of `problem.data.adopted_series`."""
    data, time = tree["data"], roles.time
    change(data["source"], kind="files", paths=on_one_line([path]), rows=None)
    # What was said of other files
    change(data["source"], versions=on_one_line({}), refresh_days=None, expected=None)
    change(data["schema"], id=row_id and row_id.name, time=time and time.name)
    complete = time is not None and time.present == rows
    entries = {c.name: (_schema_entry(c, c is row_id, c is time and complete), "") for c in columns}
    entries |= {n: (on_one_line(entry), "") for n, entry in series.get("columns", {}).items()}
    refill(data["schema"]["columns"], entries)
    lines = {c.name: (_catalogue_entry(c, c is time), c.exclusion) for c in columns if c.feature}
    # Rows are split by it, so that later ones are met: what went on rising is worth a feature, but for what
    # looks for what is odd, to which all that is later would be, and for series, whose levels say it already
    if time and problem.UNLABELLED is None and not series.get("columns"):
        trend = f"{time.name}_trend"
        while trend in {c.name for c in columns}:
            trend += "_"
        line = {"family": "context", "column": time.name, "scale": "standard", "encode": "number"}
        lines[trend] = (on_one_line(line), "")
    lines |= {n: (on_one_line(entry), "") for n, entry in series.get("features", {}).items()}
    refill(tree["features"]["catalogue"], lines)
    # What belongs to the rows that were there before
    change(data["label"], as_of="latest")
    change(tree["modelling"]["evaluation"], expectations=on_one_line({}))
    change(tree["features"], hypotheses=on_one_line({}), delete_rows=on_one_line({}))
    change(tree["goals"]["targets"], metric=None, worst_slice=None)
    if "monitoring" in tree:
        change(tree["monitoring"], popularity=None, statistics=on_one_line({}))
    if rules := tree.get("labelling", {}).get("functions"):
        change(rules, combine="none", labels=1.0)


def _group_reasons(verdict: str, reasons: Sequence[tuple[str, str]]) -> list[str]:
    """A line for each reason: of one column, or of all columns that share it.

    Args:
        verdict: what is said of the columns.
        reasons: (column, its reason).
    """
    lines: dict[str, list[str]] = {}
    shared: dict[str, list[tuple[str, str]]] = {}
    for column, reason in reasons:
        shared.setdefault(re.split(r": | \(", reason)[0], []).append((column, reason))
    for prefix, members in shared.items():
        if len(members) == 1:
            ((column, reason),) = members
            alone = verdict.replace("categories, not numbers", "a category, not a number")
            lines[f"{column}: {alone}, {reason}"] = []
            continue
        details = [r[len(prefix) :].strip(": ()").removesuffix(" values") for _, r in members]
        same = len(set(details)) == 1
        names = [
            c if same or not d else f"{c} ({d})" for (c, _), d in zip(members, details, strict=True)
        ]
        lines[f"{verdict}, {members[0][1] if same else prefix}: {_list_names(names)}"] = []
    return [*lines]


def _list_names(names: Sequence[str]) -> str:
    """Names in a row, the first of many."""
    remainder = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + remainder


def _feature_line(features: list[Profile], columns: int) -> str:
    counts = Counter(c.type for c in features)
    breakdown = ", ".join(f"{kind} {n}" for kind, n in sorted(counts.items()))
    names = _list_names([c.name for c in features])
    return (
        f"features: {len(features)} from {columns} columns ({breakdown}): {names}; "
        f"that all but the time belong to the entity is a guess"
    )


def _open(sql: SQL, file: str, rows: FileRows, seed: int) -> list[Profile]:
    """The columns. Makes the view `source` of all rows and the table `sample` of some."""
    if not rows.named and rows.columns:
        first = sql.execute(f"FROM ({rows.query}) LIMIT 1").fetchone() or ()
        first_values = ", ".join(str(value) for value in first)
        raise UserError(f"{file}: starts with {first_values:.60}, not with column names; add them")
    (row_count,) = row(sql, f"SELECT count(*) FROM ({rows.query})")
    if not row_count:
        raise UserError(f"{file}: has column names but no rows")
    # Chance decides row by row, which needs no memory; on one thread it decides alike each time
    n_sample = max(1_000, min(profile.SAMPLE_ROWS, profile.MAX_SAMPLE_CELLS // len(rows.columns)))
    percent = 100 * n_sample / row_count
    sampling = f"USING SAMPLE {percent}% (bernoulli, {seed})" if percent < 100 else ""
    sql.execute("SET threads = 1")
    sql.execute(f"CREATE TEMP TABLE drawn AS FROM ({rows.query}) {sampling}")
    sql.execute("RESET threads")
    sql.execute("CREATE TEMP VIEW sample AS FROM drawn")
    # What is looked at many times, some columns at once, is read from the file only once
    relation = "TABLE" if sampling and len(rows.columns) > 10 * profile.COLUMNS_PER_PASS else "VIEW"
    sql.execute(f"CREATE TEMP {relation} source AS {rows.query if sampling else 'FROM sample'}")
    columns: dict[str, Profile] = {}
    for position, ((source, (column, kind)), header) in enumerate(
        zip(rows.columns.items(), rows.headers, strict=True), start=1
    ):
        base = (_snake(source) if header.strip() else "") or f"column_{position}"
        candidates = (f"{base}_{i}" if i else base for i in range(len(rows.columns)))
        name = next(candidate for candidate in candidates if candidate not in columns)
        columns[name] = Profile(name, source, header, kind, column)
    return list(columns.values())


def _snake(header: str) -> str:
    name = unicodedata.normalize("NFKD", header.translate(LATIN))
    name = name.encode("ascii", "ignore").decode()
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    name = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return f"c_{name}" if name[:1].isdigit() else name


def _find_column(columns: list[Profile], name: str, file: str, flag: str) -> Profile:
    """The column of a name: spelt so, else but for its case, else in snake_case.

    Raises:
        UserError: when no column is called so, or several are.
    """
    for form in (str, str.casefold, _snake):
        for spelling in ("header", "source", "name"):
            matches = [c for c in columns if form(getattr(c, spelling)) == form(name) != ""]
            if len(matches) == 1:
                return matches[0]
            if form is str and spelling == "header" and len(matches) > 1:
                positions = " and ".join(str(columns.index(c) + 1) for c in matches)
                raise UserError(
                    f"{file}: has {len(matches)} columns {name!r}, the columns {positions}: rename one, or "
                    f"write --{flag} {matches[-1].name} for the last"
                )
    headers = [" ".join(c.header.split()) or "(no name)" for c in columns]
    lower = [header.casefold() for header in headers]
    near = get_close_matches(name.casefold(), lower, 1, 0.5)
    hint = f"is it {headers[lower.index(near[0])]!r}? " if near else ""
    raise UserError(f"{file}: has no column {name!r}; {hint}it has {', '.join(headers):.500}")


def _check_types(sql: SQL, columns: list[Profile], roles: Roles) -> None:
    """Refuse a time that is none, and a number that the user wants where there is none."""
    for flag, c in (("time", roles.time), ("label-time", roles.label_time)):
        if c and (c.type != "time" or not c.present or c.invalid > (1 - FITS) * c.present):
            values = profile.examples(sql, c, "time")
            reason = f"{values} cannot be read as times; write them as 2026-01-31 12:00"
            raise UserError(f"--{flag} {c.header}: {reason}")
    if (time := roles.time) and time.distinct < 3:
        raise UserError(
            f"--time {time.header}: has {time.distinct} different times; a split by time needs more: "
            f"leave --time out, or name another column"
        )
    divides = not (problem.HISTORIES and roles.time)  # else series go on, and are divided by time
    if (group := roles.group) and divides and group.distinct < 3:
        raise UserError(
            f"--group {group.header}: has {group.distinct} different values, which cannot be divided "
            f"into training, validation and test: leave --group out, or name another column"
        )
    for c in columns:
        if c.user_kind == "number" and c.type != "number":
            values = profile.examples(sql, c, "number")
            raise UserError(f"--number {c.header}: {values} are no numbers")


def _check_number(
    sql: SQL, label: Profile, yes_value: str | None, rows: int, min_rows: int
) -> tuple[dict[str, Any], list[str]]:
    """Check a label that must be a number."""
    keys = _label_keys(label, {}, {}, yes_value, "")[0]
    if label.type != "number" or label.invalid > (1 - FITS) * label.present:
        values = profile.examples(sql, label, "number")
        raise UserError(
            f"--label {label.header}: {values} are no number (1234.5), which this project predicts"
        )
    if label.distinct < 2:
        raise UserError(
            f"--label {label.header}: has a single value, {label.low:g}; nothing can be learnt"
        )
    lines = [f"label: {label.name}, a number from {label.low:g} to {label.high:g}"]
    return keys, lines + _check_row_count(label, label.present - label.invalid, rows, min_rows)


def _check_row_count(label: Profile, labelled: int, rows: int, min_rows: int) -> list[str]:
    """What to say of rows without a label; refuses what is too little to train and test with.

    Args:
        min_rows: what the split stage takes to fill each part.
    """
    if problem.UNLABELLED is not None:
        labelled = rows  # all of them are learnt from
    if labelled < MIN_LABELLED_ROWS:
        raise UserError(
            f"--label {label.header}: {labelled:,} of {rows:,} rows have a label; training, validation "
            f"and test need at least {MIN_LABELLED_ROWS} together: collect more"
        )
    lines = []
    if labelled <= 0.5 * rows:
        unlabelled_rows = f"{rows - labelled:,} of {rows:,} rows"
        lines.append(f"label: missing in {unlabelled_rows}; nothing is learnt from them")
    if labelled < min_rows:
        lines.append(
            f"rows: {labelled:,} with a label are too few to run with: {MIN_PART_ROWS} in each of training, "
            f"validation and test take {min_rows:,}; collect more, or change data.split"
        )
    return lines


def _check_classes(
    sql: SQL, label: Profile, yes_value: str | None, rows: int, min_rows: int
) -> tuple[dict[str, Any], list[str]]:
    """Check a label that must be one of a few values, and say what these mean."""
    value = label.sql()[1]
    query = (
        f"SELECT v, count(*) FROM (SELECT {value} AS v FROM source) WHERE v IS NOT NULL "
        f"GROUP BY v ORDER BY 2 DESC, v"
    )
    spelt: dict[str, str] = {}
    counts: dict[str, int] = {}
    missing_values = []
    for value, number in sql.execute(query).fetchall():
        if re.fullmatch(missing_pattern(), value):
            missing_values.append(value)
            continue
        spelt.setdefault(_comparable(value), value)
        counts[_comparable(value)] = counts.get(_comparable(value), 0) + number
    note = f"; {', '.join(map(repr, missing_values))} means missing" if missing_values else ""
    if not counts and problem.UNLABELLED is not None:
        line = f"label: no row has one yet; {label.name} is the column for those that will come"
        return {}, [line, *_check_row_count(label, 0, rows, min_rows)]
    if len(counts) < 2 and problem.UNLABELLED is None:
        content = "".join(f"a single value, {x!r}" for x in spelt.values()) or "no value"
        raise UserError(f"--label {label.header}: has {content}{note}; nothing can be learnt")
    keys, line, fault = _label_keys(label, counts, spelt, yes_value, note)
    lines = [line, *_check_row_count(label, sum(counts.values()), rows, min_rows)]
    if fault:
        raise UserError(fault)
    return keys, lines


def _label_keys(
    label: Profile, counts: dict[str, int], spelt: dict[str, str], yes_value: str | None, note: str
) -> tuple[dict[str, Any], str, str]:
    """What the problem makes of the label's values: keys of the settings, a line, and a fault or "".

    Args:
        counts: value as `_comparable` writes it -> its rows; spelt: the same -> as the file has it.
        note: which values are taken for missing, for a message.
    """
    yes_pair = None if yes_value is None else (yes_value, _comparable(yes_value))
    try:
        return problem_data.adopted(label.header, label.name, counts, spelt, yes_pair, note)
    except ValueError as error:
        raise UserError(str(error)) from None


def _label_delay(sql: SQL, roles: Roles, options: AdoptOptions) -> tuple[float | None, list[str]]:
    """How many days a label takes: as the user says, as measured, else left open."""
    if options.delay is not None:
        if not 0 <= options.delay < math.inf:
            raise UserError(
                f"--delay {options.delay:g}: write the days that a label takes, 0 or more"
            )
        return options.delay, [f"delay: a label takes {options.delay:g} days, as --delay says"]
    if roles.time and roles.label_time:
        delay_sql = f"epoch({roles.label_time.sql()[1]}) - epoch({roles.time.sql()[1]})"
        wait_days, n, n_early = row(
            sql,
            f"SELECT quantile_cont(d, {DELAY_SHARE}), count(d), count_if(d < 0) FROM "
            f"(SELECT ({delay_sql}) / 86400 AS d FROM source)",
        )
        if n:
            digits = 2 - math.floor(math.log10(wait_days)) if wait_days > 0 else 0
            delay = max(0.0, round(wait_days, max(0, min(6, digits))))
            lines = [f"delay: {100 * DELAY_SHARE:.0f}% of {n:,} labels came within {delay:g} days"]
            if n_early:
                warning = f"{n_early:,} labels came before their rows: is --time {roles.time.header} right?"
                lines.append(f"delay: {warning}")
            return delay, lines
    return None, [
        "delay: how long a label takes is left open (data.label.delay_days: null); every label counts "
        "as known and none as overdue; --delay DAYS or --label-time COLUMN settles that"
    ]


def _comparable(value: str) -> str:
    """What label values are compared by, as in the label stage: no case, and 1.0 is 1."""
    try:
        return f"{float(value):.15g}"
    except ValueError:
        return value.lower().strip()


def _split(sql: SQL, roles: Roles, test: float, rows: int) -> tuple[str, Profile | None, list[str]]:
    """How to split, the group to keep on one side, and why."""
    time, group = roles.time, roles.group
    gaps = [
        f"{role}: {rows - c.present:,} of {rows:,} rows have no {c.name}{effect}"
        for role, c, effect in (
            ("time", time, "; a split by time leaves them out"),
            ("group", group, ""),
        )
        if c and c.present < rows
    ]
    if time and group:
        (lost_share,) = row(
            sql,
            f"WITH rows AS (SELECT {time.sql()[1]} AS t, {group.sql()[0]} AS g FROM source), "
            f"seen AS (SELECT t, g, min(t) OVER (PARTITION BY g) AS first FROM rows), "
            f"cut AS (SELECT quantile_disc(t, {1 - test}) AS start FROM rows) "
            f"SELECT avg(CAST(g IS NOT NULL AND first < start AS INT)) FROM seen, cut WHERE t >= start",
        )
        cost = f"{100 * (lost_share or 0):.0f}% of the test rows, whose {group.name} came before"
        if lost_share > 0.5:
            line = f"split: by time alone; {group.name} on one side would cost {cost}"
            return "time", None, [line, *gaps]
        line = f"split: by time, {group.name} on one side, which costs {cost}"
        return "time", group, [line, *gaps]
    if time:
        line = "split: by time, as the model will meet rows later than those it learnt from"
        return "time", None, [line, *gaps]
    if group:
        line = f"split: by {group.name}, whose rows stay on one side"
        return "group", group, [line, *gaps]
    return "random", None, ["split: random, as neither --time nor --group was given"]


def _exclude_leaks(
    sql: SQL, settings: Settings, columns: list[Profile], label: Profile, keys: dict[str, Any]
) -> None:
    """Leave out what gives the label away: a column by itself, or numbers that make it up together.

    Sets how codes are prepared too: in their order where the label follows it.
    """
    frame = pd.concat(
        [
            _sample_values(sql, columns[start : start + profile.COLUMNS_PER_PASS], label, start)
            for start in range(0, max(1, len(columns)), profile.COLUMNS_PER_PASS)
        ],
        axis=1,
    )
    labels = frame.pop("y0")
    if not len(labels):
        return  # nobody knows what gives the label away
    y = problem_data.coded(labels, keys, _comparable)
    for position, column in enumerate(columns):
        values = frame[f"c{position}"].to_numpy(object if column.type in STRINGS else np.float64)
        score = predictiveness(values, y, settings.project.seed)
        if score >= settings.features.leak_score and column.user_kind in ("", "drop"):
            column.exclusion = (
                f"it predicts the label by itself ({score:.4f}): is it known only after the fact?"
            )
        elif column.order and (
            len(column.order) == 2
            or len(column.order) > 8
            or (not problem.WIDE and _is_monotonic(values, y, column.order))
        ):
            column.feature = {"encode": "ordinal", "order": column.order}
    if not problem.CLASSES:
        is_term = [c.type not in ("time", "text") for c in columns]
        terms = {c.name: frame[f"c{p}"] for p, c in enumerate(columns) if is_term[p]}
        names, operation = adds_up(terms, y)
        for column in columns:
            if column.name in names and not column.exclusion:
                column.exclusion = f"the label is a {operation} of {', '.join(names)}"


def _sample_values(sql: SQL, columns: list[Profile], label: Profile, start: int) -> pd.DataFrame:
    """Some columns of the labelled rows of the sample: c and their place; with the first, the label, y0."""
    string = "coalesce(CAST({} AS VARCHAR), '')"
    casts = {"time": "epoch({})", "category": string, "text": string}
    target = f"v{len(columns)}"
    selected = [
        f"{casts.get(c.type, 'CAST({} AS DOUBLE)').format(f'v{position}')} AS c{start + position}"
        for position, c in enumerate(columns)
    ]
    selected += [] if start else [f"{target} AS y0"]
    where = f"{target} IS NOT NULL" if not problem.CLASSES else has_label(target, missing_pattern())
    rows = typed_rows([*columns, label], "sample")
    return sql.execute(f"SELECT {', '.join(selected)} FROM {rows} WHERE {where}").df()


def _is_monotonic(values: np.ndarray, y: np.ndarray, order: list[str]) -> bool:
    """Whether the mean label only rises, or only falls, along at least three codes."""
    means = [y[values == code].mean() for code in order if (values == code).any()]
    steps = np.diff(means)
    return len(steps) > 1 and bool((steps > 0).all() or (steps < 0).all())


def _duplicate_digits(
    sql: SQL, settings: Settings, by: str, columns: list[Profile], rows: int
) -> tuple[int | None, list[str]]:
    """How exactly near-duplicates are told: not at all where more than a tenth of the rows would be some.

    About as the split stage tells them.
    """
    digits = settings.data.split.near_duplicate_digits
    if not digits or by == "random":
        return digits, []
    if any(c.distinct > 0.9 * rows and c.type in STRINGS for c in columns):
        return digits, []
    casts = {"number": rounded("{0}", digits), "time": "CAST({0} AS DATE)"}
    keys = [casts.get(c.type, "{0}").format(f"v{position}") for position, c in enumerate(columns)]
    width = 0
    while width < len(columns):  # rows that differ in some columns differ in all
        width = 2 * width or profile.COLUMNS_PER_PASS
        rows_ = typed_rows(columns[:width], "source")
        query = f"SELECT count(DISTINCT hash({', '.join(keys[:width])})) FROM {rows_}"
        if row(sql, query)[0] >= 0.9 * rows:
            return digits, []
    return None, ["near-duplicates: not looked for, as too many rows are alike in all columns"]


def _schema_entry(column: Profile, is_id: bool, complete: bool) -> CommentedMap:
    """The column's line in data.schema.columns."""
    entries = {
        "source": (column.source != column.name or column.part) and column.source,
        "part": column.part,
        "formats": column.formats and on_one_line(list(column.formats)),
        "decimal": column.decimal and DoubleQuotedScalarString(column.decimal),
        "units": column.units and on_one_line(
            {DoubleQuotedScalarString(unit): size for unit, size in column.units.items()}
        ),
        "missing": column.missing and in_quotes(list(column.missing)),
        "required": is_id or complete,
        "unique": is_id,
        "personal": column.personal,
        "size": column.images and column.images.size,
        "colours": column.images and column.images.colours,
    }  # fmt: skip
    return on_one_line(
        {"type": column.type, **{key: value for key, value in entries.items() if value}}
    )


def _catalogue_entry(column: Profile, event: bool) -> CommentedMap:
    """The column's line in features.catalogue."""
    switch = {"use": False} if column.exclusion else {}
    feature = dict(column.feature or {})
    if "order" in feature:
        feature["order"] = in_quotes(feature["order"])
    return on_one_line({"family": "context" if event else "entity", **switch, **feature})
