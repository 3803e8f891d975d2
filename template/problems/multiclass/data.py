"""YOURS: the label: how the sample makes one, how it is read, and which classes a new one has."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import MOST_CLASSES, LabelKeys

if TYPE_CHECKING:
    import pandas as pd  # not above: the service has no pandas

Array = np.ndarray
SAMPLE = ("account", "billing", "delivery", "sales", "technical")  # the classes of the sample
FEWEST_OF_A_CLASS = 10  # rows: each of the three parts needs some
RARE_CLASS = "(other)"  # the class of the values that are rarer than that

LIST_ROWS = 1  # of the sample, that are of one person at one moment
TRUTH = ("_y",)  # what a truth holds of each row: SQL on the labelled rows
# Rules that label rows of which nobody knows the label, for training alone (`labelling.functions`): SQL on the columns of a
# row that gives a class, or NULL, which says nothing. None of these is right always
LABELLING_FUNCTIONS: dict[str, str] = {
    "newcomer": "CASE WHEN entity_tenure_days < 200 THEN 'account' END",
    "web": "CASE WHEN context_channel = 'web' AND entity_tenure_days < 350 THEN 'account' END",
    "price": "CASE WHEN object_price > 40 THEN 'billing' WHEN object_price < 18 THEN 'delivery' END",
    "loyal": "CASE WHEN entity_tenure_days > 600 AND object_price > 25 THEN 'billing' END",
    "category": "CASE WHEN object_category IN ('games', 'sports', 'toys') THEN 'technical' "
    "WHEN object_category IN ('garden', 'home') THEN 'delivery' END",
    "interest": "CASE WHEN pair_past_views >= 3 AND context_channel = 'search' THEN 'sales' END",
}


def outcome(
    signal: Array, columns: Mapping[str, Array], rng: np.random.Generator
) -> dict[str, Array]:
    """The sample's label: which team a customer turns to after an offer.

    Args:
        signal: standardised, higher means more interest, shape (n,).
        columns: what else is known of each row, by name, each of shape (n,): category, channel,
            price (its logarithm, standardised), tenure (likewise) and progress (0 to 1 in time).
        rng: the sample's own generator.

    Returns:
        the column label: names of classes, shape (n,): five of them, from about 6 to 35 % of the rows.
    """
    channel, category = columns["channel"], columns["category"]
    price, tenure = columns["price"], columns["tenure"]
    likely = np.stack(
        [
            0.1 - 1.1 * tenure + 0.6 * (channel == 4),
            0.7 + 0.9 * price + 0.5 * tenure,
            0.9 + 0.8 * (category % 2) - 0.5 * price + 0.4 * (channel == 1),
            -0.9 + 1.2 * signal + 0.5 * (channel == 2),
            0.4 + 1.3 * np.isin(category, (1, 5, 6)) - 0.5 * signal + 0.4 * columns["progress"],
        ],
        axis=1,
    )
    # The class with the highest sum of both: a multinomial logit (McFadden, 1974)
    drawn = (2.3 * likely + rng.gumbel(size=likely.shape)).argmax(axis=1)
    return {"label": np.array(SAMPLE, dtype=object)[drawn]}


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
    """What is known by key, for the service: of a row by itself nothing."""
    return {}


def repeated(label: LabelKeys) -> list[str]:
    """The columns of a row that a file of answers repeats, beside its id: none."""
    return []


def truth(column: str, label: LabelKeys, has_label: str) -> str:
    """SQL for a label as a number: the index of its class, or NULL where it is none of them.

    Args:
        column: SQL of the label as it came; has_label: SQL for whether there is one.
    """
    cases = " ".join(
        f"WHEN {_same(column, name)} THEN {index}.0" for index, name in enumerate(label.classes)
    )
    default = "NULL" if label.other is None else f"{label.classes.index(label.other)}.0"
    return f"CASE WHEN NOT {has_label} THEN NULL {cases} ELSE {default} END::DOUBLE"


def _same(column: str, name: str) -> str:
    """SQL for whether a label is this class: 1 also means 1.0, as a column of numbers writes it."""
    value = "'" + name.replace("'", "''") + "'"
    same_text = f"lower(CAST({column} AS VARCHAR)) = lower({value})"
    try:
        float(name)
    except ValueError:
        return same_text
    return f"({same_text} OR TRY_CAST({column} AS DOUBLE) = TRY_CAST({value} AS DOUBLE))"


def circumstances(sql: Any, settings: Any) -> tuple[dict[str, str], str, dict[str, Any]]:
    """How labelled rows came about, beside `_y`: each stands by itself.

    Returns:
        no column, no order, and nothing that reports/label.json says of it.
    """
    return {}, "", {}


def list_columns(label: LabelKeys) -> tuple[str | None, str | None]:
    """The columns that tell lists apart, and what their items are about: none, rows stand by themselves."""
    return None, None


def bundle(label: LabelKeys) -> str | None:
    """The column of labelled rows by which they stay together however they are split: none, rows stand by themselves."""
    return None


def logged_inputs(settings: Any) -> list[str]:
    """The columns of a logged answer that `logged` reads: none that others do not read."""
    return []


def logged(settings: Any, facts: Mapping[str, Any], columns: Collection[str]) -> dict[str, str]:
    """What `TRUTH` needs of a logged answer beside `_y`: nothing."""
    return {}


def decided(column: str, label: LabelKeys) -> str:
    """SQL for a logged decision as a number: the index of its class."""
    return truth(column, label, f"{column} IS NOT NULL")


def named(label: LabelKeys) -> list[str]:
    """The values of the label that the settings name: its classes."""
    return list(label.classes)


def listed(label: LabelKeys, training_values: Sequence[str]) -> list[str]:
    """All values that a label may be; none where any will do.

    Args:
        training_values: those that training saw.
    """
    return list(label.classes) if label.other is None else []


def outlook(in_source: tuple[int, int], fed_back: tuple[int, int]) -> str:
    """What `design status` says of the labels: nothing, since all that is learnt is learnt from them."""
    return ""


def single(label: LabelKeys) -> str:
    """What a label that cannot be learnt has beside its one value, in words."""
    return ""


def lacking(training_labels: Array, other_labels: Array, label: LabelKeys) -> str:
    """Which classes stand in some parts and have no row to learn from, in words; "" where none is.

    Args:
        training_labels: of shape (n,); other_labels: of all other rows, shape (m,).
    """
    unseen = sorted({*other_labels.tolist()} - {*training_labels.tolist()})
    names = ", ".join(repr(label.classes[int(index)]) for index in unseen)
    message = (
        f"no training row has the class {names}, which other rows have: collect more of such rows, "
    )
    return message + "or count them as another class (data.label.other)" if unseen else ""


def reward(value: str, named_values: list[str]) -> float | None:
    """What a bandit learns from a label; None: whether a decision was right, the label alone does not say."""
    return None


def coded(values: pd.Series, keys: Mapping[str, Any], same: Callable[[str], str]) -> Array:
    """Labels of a new file as numbers, shape (n,).

    Args:
        values: n texts; keys: as `adopted` gives them; same: what two spellings are compared by.
    """
    indices = {same(name): index for index, name in enumerate(keys["classes"])}
    default = keys["classes"].index(keys["other"]) if keys["other"] else -1
    return values.map(lambda value: indices.get(same(value), default)).to_numpy(np.float64)


def adopted(
    header: str,
    name: str,
    counts: Mapping[str, int],
    spelt: Mapping[str, str],
    wish: tuple[str, str] | None,
    missing: str,
) -> tuple[dict[str, Any], str, str]:
    """Which classes a new label has: each value that is common enough; the rarer ones count as one.

    Args:
        header, name: the column's, as the file and as the project has it.
        counts: rows of each value, by what spellings are compared by; spelt: how each is written.
        wish: the value that --positive names, and what it is compared by.
        missing: words on the values that mean no label.

    Returns:
        the keys of `data.label`, and, with dots in their names, others of the settings that name
        classes; a line on what was decided; why it cannot be learnt, or "".

    Raises:
        ValueError: when a value is wished for as the yes.
    """
    if wish is not None:
        raise ValueError(
            "--positive is for a yes or no; this project tells classes apart: leave it out"
        )
    total = sum(counts.values())
    rare = [key for key, rows in counts.items() if rows < FEWEST_OF_A_CLASS]
    # One rare value needs a class to count as, and so does what goes beyond the most
    common = sorted((key for key in counts if key not in rare), key=lambda key: -counts[key])
    rare += common[MOST_CLASSES - 1 :] if len(common) + bool(rare) > MOST_CLASSES else []
    common = [key for key in common if key not in rare]
    rows_by_class = {spelt[key]: counts[key] for key in common}
    rare_rows = sum(counts[key] for key in rare)
    if rare:
        rows_by_class[RARE_CLASS] = rare_rows
    shares = [f"{value} {100 * rows / total:.3g}%" for value, rows in rows_by_class.items()]
    omitted = f" and {len(shares) - 10} more" if len(shares) > 10 else ""
    summary = f"label: {len(shares)} classes of {name}: {', '.join(shares[:10])}{omitted}{missing}"
    if rare:
        summary += f"; the {len(rare)} rarest values count as {RARE_CLASS}"
    fault = ""
    if len(common) < 2 or (rare and rare_rows < FEWEST_OF_A_CLASS):
        rarest = min(counts, key=counts.__getitem__)
        fault = (
            f"--label {header}: {spelt[rarest]!r} has {counts[rarest]} of {total:,} rows, and a class needs "
            f"{FEWEST_OF_A_CLASS}: collect more, or leave such rows out of the file"
        ) + ("" if common else "; an amount to predict is a project of the problem regression")
    keys: dict[str, Any] = {
        "classes": sorted(rows_by_class),
        "other": RARE_CLASS if rare else None,
        "goals.costs.pairs": {},
        "serving.fallback": max(rows_by_class, key=rows_by_class.__getitem__),
    }
    return keys, summary, fault


def adopted_lists(
    columns: Mapping[str, str], group: str | None
) -> tuple[dict[str, Any], list[str]]:
    """How the rows of a new file make lists: they stand by themselves.

    Returns:
        no keys of `data.label`, and nothing to say.
    """
    return {}, []


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
