"""YOURS: the label: how the sample's lists come about, how clicks are read and weighted, and what `adopt` says."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import LabelKeys

if TYPE_CHECKING:
    import pandas as pd  # not above: the service has no pandas

    from ..settings import Settings

Array = np.ndarray
LIST_ROWS = 8  # that one list of the sample shows
RANDOM_SHARE = 0.2  # of the sample's lists, in random order
# A place looked at less often weighs no more: few clicks must not decide (clipping)
MIN_EXAMINED = 0.05
# Rows at each place that a curve of 1 / place is worth beside the clicks of random lists
PRIOR_SHOWN = 20.0
MOST_GRADE = 30  # gains double with each grade
NEW_DAYS = 14  # after an item was first shown, that it is new
MAX_ITEMS = 20_000  # whose first moment is kept beside the model; of more, the log tells no new one
# What a truth holds of each row, in this order: SQL on the labelled rows. The first is what a row is worth, with the
# weight of its place; the second its list, as a number
LABELLING_FUNCTIONS: dict[str, str] = {}  # this kind takes none
TRUTH = (
    "(pow(2, CASE WHEN _y > 30 THEN 30 ELSE _y END) - 1) * _weight",  # least() would pass over a missing label
    "_list",
    "_y",
    "_position",
    "_item",
    "_topic",
    "_new",
)
GAIN, LIST, RAW, POSITION, ITEM, TOPIC, NEW = range(len(TRUTH))


def outcome(
    signal: Array, columns: Mapping[str, Array], rng: np.random.Generator
) -> dict[str, Array]:
    """The sample's label from its hidden signal, and how each row was shown.

    The old order puts what is dear first, whatever a person wants; a share of lists comes in random order.
    A row is clicked when it is looked at, the seldomer the further down, and wanted.

    Args:
        signal: standardised, higher means more, shape (n,), the rows of a list one after the other.
        columns: what else is known of each row, by name.
        rng: the sample's own generator.

    Returns:
        columns of shape (n,) by name: label, list_id, position, shown_at_random.
    """
    n = len(signal)
    lists = np.arange(n) // LIST_ROWS
    at_random = (rng.random(lists[-1] + 1) < RANDOM_SHARE)[lists]
    noise = rng.standard_normal(n)
    old = np.where(at_random, noise, columns["price"] + 0.5 * noise)
    order = np.lexsort((-old, lists))
    position = np.empty(n)
    position[order] = np.arange(n) % LIST_ROWS + 1
    relevance = 1 / (1 + np.exp(-(1.8 * signal - 0.7)))
    clicked = rng.random(n) < relevance / position
    return {
        "label": clicked.astype(np.float64),
        "list_id": np.array([f"l{i:07}" for i in range(lists[-1] + 1)], object)[lists],
        "position": position,
        "shown_at_random": at_random,
    }


def planted(events: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The sample's events as they are: their label came of them, and not they of it."""
    return events


def made(label: LabelKeys) -> set[str]:
    """The columns that the stage `label` makes, and no source needs to have: none."""
    return set()


def examples(sql: Any, settings: Any, known_at: str) -> tuple[str, str]:
    """What is learnt from, of a database with the view `events`: the events as they are.

    Args:
        known_at: SQL for when the label of an event was known.

    Returns:
        the name of the table or view, and SQL on it for when a label was known.
    """
    return "events", known_at


def future(sql: Any, settings: Any) -> str:
    """The rows that a table of series makes for a forecast: none, rows are answered as they are."""
    return "events"


def steps_after(origin: Any, label: LabelKeys) -> list[Any]:
    """The moments of the steps ahead of a forecast: none is made."""
    return []


def known_by_key(sql: Any, settings: Any) -> dict[str, str]:
    """What is known of each item, for the service: its topic and the columns of the family `object`, as last seen.

    Args:
        sql: a database with the view `events`.

    Returns:
        column -> SQL of a row for each of its values, the most clicked first; nothing where no column names items.
    """
    label, schema = settings.data.label, settings.data.schema_
    if label.item is None:
        return {}
    features = settings.features.catalogue.items()
    of_item = {feature.column or name for name, feature in features if feature.family == "object"}
    columns = [row[0] for row in sql.execute("DESCRIBE events").fetchall()]
    names = [name for name in columns if name in {*of_item, label.topic} - {label.item}]
    order = f"({_quoted(schema.time)})" if schema.time else "0"
    latest = ", ".join(f"arg_max({_quoted(name)}, {order}) AS {_quoted(name)}" for name in names)
    item, clicks = _quoted(label.item), f"sum(TRY_CAST({_quoted(label.column)} AS DOUBLE))"
    selected = f"{item}{', ' + latest if latest else ''}"
    return {
        label.item: f"SELECT {selected} FROM events WHERE {item} IS NOT NULL GROUP BY {item} "
        f"ORDER BY {clicks} DESC NULLS LAST, {item}"
    }


def repeated(label: LabelKeys) -> list[str]:
    """The columns of a row that a file of answers repeats, beside its id: none."""
    return []


def truth(column: str, label: LabelKeys, has_label: str) -> str:
    """SQL for a label as a number: itself; a yes counts as a click.

    Args:
        column: SQL of the label as it came; has_label: SQL for whether there is one.
    """
    value = f"TRY_CAST({column} AS DOUBLE)"
    return f"coalesce({value}, CAST(TRY_CAST({column} AS BOOLEAN) AS DOUBLE))"


def list_key(settings: Settings, logged: bool = False) -> str:
    """SQL for what the rows of a list share, as a number: of the list's column; without one each row is by itself.

    Args:
        logged: of answers, whose lists are requests where they have no column.
    """
    shared = settings.data.label.list or ("_request" if logged else None)
    return _number(_quoted(shared)) if shared else "CAST(row_number() OVER () AS DOUBLE)"


def circumstances(sql: Any, settings: Settings) -> tuple[dict[str, str], str, dict[str, Any]]:
    """How labelled rows were shown, beside `_y`.

    Args:
        sql: a database with the view `judged`: the events, and `_y`, what was clicked.

    Returns:
        columns, name -> SQL on that view: `_list`, `_item` and `_topic` as numbers that stand for them; `_position` from
        1; `_new`: 1 for an item first shown less than `NEW_DAYS` ago; `_weight`: 1 / the chance that the place was
        looked at · SQL for the order of the rows: those of a list together, lists by their first moment · what
        reports/label.json says of it.
    """
    label, time = settings.data.label, settings.data.schema_.time
    new = "0.0"
    if label.item and time:
        first = f"min({_quoted(time)}) OVER (PARTITION BY {_quoted(label.item)})"
        start = f"min({_quoted(time)}) OVER ()"
        young = f"{_quoted(time)} < {first} + INTERVAL {NEW_DAYS} DAY"
        new = f"CAST({young} AND {first} > {start} + INTERVAL {NEW_DAYS} DAY AS DOUBLE)"
    position = (
        f"greatest(1.0, coalesce({_quoted(label.position)}, 1.0))" if label.position else "1.0"
    )
    weight, report = _weighed(sql, settings, position)
    columns = {
        "_list": list_key(settings),
        "_item": _number(_quoted(label.item)) if label.item else "0.0",
        "_topic": _number(_quoted(label.topic)) if label.topic else "0.0",
        "_position": position,
        "_new": new,
        "_weight": weight,
    }
    if not label.list:
        return columns, "", report
    start = f"min({_quoted(time)}) OVER (PARTITION BY {columns['_list']}), " if time else ""
    row_id = settings.data.schema_.id
    last = (
        f", {_quoted(row_id)}" if row_id else ""
    )  # where a place is not told: the same order at each run
    return columns, f" ORDER BY {start}_list, _position, _item{last}", report


def examination(impressions: Array, clicked: Array) -> Array:
    """How likely each place is looked at, against the first, from lists in random order; shape (places,).

    There, what is wanted is spread evenly, so clicks fall with looking alone. Smoothed towards 1 / place where
    rows are few, and never rising from one place to the next.

    Args:
        impressions, clicked: rows and clicks at each place, from the first, shape (places,).
    """
    from sklearn.isotonic import isotonic_regression

    slots = np.arange(1, len(impressions) + 1)
    if not clicked.any():
        return np.clip(1 / slots, MIN_EXAMINED, 1.0)
    rate = clicked.sum() / max(
        1e-9, (impressions / slots).sum()
    )  # of clicks at the first place, by that curve
    share = (clicked + PRIOR_SHOWN * rate / slots) / (impressions + PRIOR_SHOWN)
    falling = isotonic_regression(share, sample_weight=impressions + PRIOR_SHOWN, increasing=False)
    return np.clip(falling / max(falling[0], 1e-9), MIN_EXAMINED, 1.0)


def _weighed(sql: Any, settings: Settings, position: str) -> tuple[str, dict[str, Any]]:
    """SQL for the weight of a row, and what reports/label.json says of it; position: SQL, from 1."""
    label = settings.data.label
    if label.position is None:
        return "1.0", {}
    if label.propensity:
        chance = f"greatest({MIN_EXAMINED}, {_quoted(label.propensity)})"
        return f"1 / coalesce({chance}, 1.0)", {}
    is_random = f"CAST({_quoted(label.random)} AS BOOLEAN)"
    rows = sql.execute(
        f"SELECT CAST({position} AS INTEGER), count(*), sum(pow(2, _y) - 1) FROM judged "
        f"WHERE _y IS NOT NULL AND {is_random} GROUP BY 1 ORDER BY 1"
    ).fetchall()
    slots = max((row[0] for row in rows), default=1)
    impressions, clicked = np.zeros(slots), np.zeros(slots)
    for slot, count, gain in rows:
        impressions[slot - 1], clicked[slot - 1] = count, gain
    examined = examination(impressions, clicked).round(4).tolist()
    chance = f"list_extract({examined}, least(CAST({position} AS INTEGER), {slots}))"
    return f"1 / {chance}", {"examination": examined, "random_rows": int(impressions.sum())}


def list_columns(label: LabelKeys) -> tuple[str | None, str | None]:
    """The columns that tell the lists of a request apart, and what their items are about; None for none."""
    return label.list, label.topic


def bundle(label: LabelKeys) -> str | None:
    """The column of labelled rows by which they stay together however they are split: its list, where a column tells it."""
    return "_list" if label.list else None


def logged_inputs(settings: Any) -> list[str]:
    """The columns of a logged answer that `logged` reads: none that others do not read."""
    return []


def logged(
    settings: Settings, facts: Mapping[str, Any], columns: Collection[str]
) -> dict[str, str]:
    """What `TRUTH` needs of a logged answer beside `_y`: name -> SQL on the log's columns.

    Args:
        facts: of the reference: `examination`, how likely each place is looked at, from the first; `first_shown`, as
            `first_shown` below gives it. Without the one it does not matter, without the other no item is known as new.
        columns: that the log has; it need not hold items and their topics.
    """
    label, examined = settings.data.label, facts.get("examination", [])
    item, topic = (
        _number(_quoted(name)) if name in columns else "0.0" for name in (label.item, label.topic)
    )
    slot = f"least(CAST(greatest(1, _decision) AS INTEGER), {max(1, len(examined))})"
    return {
        "_list": list_key(settings, logged=True),
        "_item": item,
        "_topic": topic,
        "_position": "CAST(_decision AS DOUBLE)",
        "_new": _new_in_log(settings, facts.get("first_shown"), columns),
        "_weight": f"1 / list_extract({[*examined]}, {slot})" if examined else "1.0",
    }


def first_shown(sql: Any, settings: Settings) -> dict[str, Any]:
    """When each item was first shown to training, for a log to tell which items are new.

    Args:
        sql: a database with the view `events`.

    Returns:
        `first_shown`: two lists, the items as numbers and seconds since 1970, 0 for an item that was there from the
        beginning; nothing where no column tells items or moments, or of more than MAX_ITEMS.
    """
    item, time = settings.data.label.item, settings.data.schema_.time
    if not (item and time):
        return {}
    first = f"min({_quoted(time)})"
    is_dated = f"{first} > min({first}) OVER () + INTERVAL {NEW_DAYS} DAY"
    rows = sql.execute(
        f"SELECT {_number(_quoted(item))} AS item, CASE WHEN {is_dated} THEN epoch({first}) ELSE 0 END "
        f"FROM events GROUP BY 1 ORDER BY 1 LIMIT {MAX_ITEMS + 1}"
    ).fetchall()
    if len(rows) > MAX_ITEMS:
        return {}
    return {"first_shown": [[int(number) for number, _ in rows], [int(since) for _, since in rows]]}


def _new_in_log(
    settings: Settings, dated: Sequence[Sequence[int]] | None, columns: Collection[str]
) -> str:
    """SQL for whether an item was first shown less than `NEW_DAYS` before a logged answer; NULL where nothing tells.

    What training knows of an item counts; of another one the log's own first moment does.

    Args:
        dated: as `first_shown` gives it.
    """
    item, time = settings.data.label.item, settings.data.schema_.time
    if not dated or item not in columns:
        return "CAST(NULL AS DOUBLE)"
    moment = (
        f"coalesce(TRY_CAST({_quoted(time)} AS TIMESTAMP), _time)" if time in columns else "_time"
    )
    numbers, moments = ([*values] for values in dated)
    trained = (
        f"SELECT _since FROM (SELECT unnest({numbers}::DOUBLE[]) AS _known, unnest({moments}) AS _since) "
        f"WHERE _known = {_number(_quoted(item))}"
    )
    logged_first = (
        f"SELECT _since FROM (SELECT {_quoted(item)} AS _known, min(epoch({moment})) AS _since FROM predictions "
        f"WHERE _answered GROUP BY _known) WHERE _known = {_quoted(item)}"
    )
    since = f"coalesce(({trained}), ({logged_first}))"
    return f"CAST(epoch({moment}) < {since} + {NEW_DAYS * 86_400} AS DOUBLE)"


def _number(column: str) -> str:
    """SQL for a number that stands for a value: 52 bits of its hash, which a float holds exactly."""
    return f"CAST(md5_number_lower(coalesce(CAST({column} AS VARCHAR), '')) >> 12 AS DOUBLE)"


def _quoted(column: str | None) -> str:
    return '"' + (column or "").replace('"', '""') + '"'


def decided(column: str, label: LabelKeys) -> str:
    """SQL for a logged decision as a number, more for what stands further up."""
    return f"-{column}"


def named(label: LabelKeys) -> list[str]:
    """The values of the label that the settings name: none."""
    return []


def listed(label: LabelKeys, training_values: Sequence[str]) -> list[str]:
    """All values that a label may be: any number, so none is listed."""
    return []


def outlook(in_source: tuple[int, int], fed_back: tuple[int, int]) -> str:
    """What `design status` says of the labels: nothing, since all that is learnt is learnt from them."""
    return ""


def single(label: LabelKeys) -> str:
    """What a label that cannot be learnt has beside its one value, in words."""
    return ""


def lacking(training_labels: Array, other_labels: Array, label: LabelKeys) -> str:
    """What is wrong with labels as grades, in words; "" where nothing is."""
    highest = max(np.max(training_labels, initial=0), np.max(other_labels, initial=0))
    if highest > MOST_GRADE:
        return f"{label.column} has {highest:g}; a click is 0 or 1, a grade a number up to {MOST_GRADE}"
    return ""


def reward(value: str, named_values: list[str]) -> float | None:
    """What a bandit learns from a label: whether there was a click; None: of a grade nothing."""
    return {"0": 0.0, "1": 1.0}.get(value)


def coded(values: pd.Series, keys: Mapping[str, Any], same: Callable[[str], str]) -> Array:
    """Labels of a new file as numbers, shape (n,)."""
    return values.to_numpy(np.float64)


def adopted(
    header: str,
    name: str,
    counts: Mapping[str, int],
    spelt: Mapping[str, str],
    wish: tuple[str, str] | None,
    missing: str,
) -> tuple[dict[str, Any], str, str]:
    """What a new label's values mean: nothing has to be chosen of a click or a grade.

    Returns:
        the keys of `data.label`, a line on what was decided, and why it cannot be learnt, or "".

    Raises:
        ValueError: when a value is wished for as the yes.
    """
    if wish is not None:
        raise ValueError(
            "--positive is for a yes or no; this project orders by clicks or grades: leave it out"
        )
    return {}, "", ""


# Names by which columns of a new file are known, the plainer ones first: key of `data.label` -> patterns, types
SIGNS = {
    "position": ((r"position|(^|_)(pos|rank|place|slot)($|_)",), ("number",)),
    "random": ((r"random|shuffl|explor",), ("bool", "number")),
    "propensity": ((r"propensity|exam(ined|ination)",), ("number",)),
    "topic": ((r"topic|category|categories|genre|department", "brand"), ("category",)),
    "item": (
        (r"(^|_)(item|doc|document|product|object|article|offer|hotel|movie|track|url|asin|sku)",),
        ("category", "number"),
    ),
}


def adopted_lists(
    columns: Mapping[str, str], group: str | None
) -> tuple[dict[str, Any], list[str]]:
    """How the rows of a new file make lists, told by the names of its columns.

    Args:
        columns: name -> type; group: the column that the rows of a list share.

    Returns:
        the keys of `data.label` that say it, and a line on each.
    """
    if group is None:
        note = "lists: none told; --group names the column that the rows of one list share, such as query_id"
        return dict.fromkeys(("list", *SIGNS)), [note]
    keys: dict[str, Any] = {"list": group, **dict.fromkeys(SIGNS)}
    for key, (patterns, types) in SIGNS.items():
        names = [
            name
            for pattern in patterns
            for name, kind in columns.items()
            if kind in types and re.search(pattern, name) and name not in keys.values()
        ]
        keys[key] = names[0] if names else None
    lines = [f"lists: rows that share {group}"]
    if keys["position"] and not (keys["random"] or keys["propensity"]):
        lines.append(
            f"position: {keys['position']}, but no column says which lists were shown in random order, or how likely "
            f"a place is looked at; labels count as they came, which judges clicks wrongly (data.label.position)"
        )
        keys["shown"], keys["position"] = keys["position"], None
    named = [
        f"{key}: {name}" for key, name in keys.items() if name and key not in ("list", "shown")
    ]
    return keys, [*lines, *([", ".join(named)] if named else [])]


def long_rows(
    query: str, columns: Mapping[str, tuple[str, str]], settings: Any
) -> tuple[str, Mapping[str, tuple[str, str]]]:
    """A source's rows, whatever its layout is: as they come."""
    return query, columns


def adopted_layout(
    sql: Any,
    query: str,
    columns: Mapping[str, tuple[str, str]],
    label: str,
    time: str | None,
    group: str | None,
) -> dict[str, Any]:
    """How a new file stands: a row for each example, and nothing is decided."""
    return {}


def adopted_series(
    sql: Any,
    values: Mapping[str, str],
    kinds: Mapping[str, str],
    time: str | None,
    group: str | None,
) -> dict[str, Any]:
    """How the rows of a new file make series: they make none, and nothing is decided."""
    return {}
