"""YOURS: the label: how the sample makes one, how it is read, and which value of a new one counts as yes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

from . import LabelKeys

if TYPE_CHECKING:
    import pandas as pd  # not above: the service has no pandas

Array = np.ndarray
YES = {"1", "yes", "y", "true", "t", "positive", "churned", "fraud", "bought", "won", "accepted"}
NO = {"0", "-1", "no", "n", "false", "f", "negative", "stayed", "retained", "lost", "rejected"}
FEWEST_OF_A_KIND = 6  # yes and no: each of the three parts needs some

LIST_ROWS = 1  # of the sample, that are of one person at one moment
TRUTH = ("_y",)  # what a truth holds of each row: SQL on the labelled rows
# Rules that label rows of which nobody knows the label, for training alone (`labelling.functions`): SQL on the columns of a
# row that gives a value of the label, or NULL, which says nothing. None of these is right always
LABELLING_FUNCTIONS: dict[str, str] = {
    "price": "CASE WHEN object_price > CASE entity_plan WHEN 'free' THEN 25 WHEN 'basic' THEN 35 ELSE 70 END THEN 0 "
    "WHEN object_price < 14 THEN 1 END",
    "looked_before": "CASE WHEN pair_past_views >= 3 THEN 1 WHEN pair_past_views = 0 THEN 0 END",
    "looked_lately": "CASE WHEN pair_days_since_last < 4 THEN 1 END",
    "push": "CASE WHEN context_channel = 'push' THEN CASE WHEN context_device = 'phone' THEN 1 ELSE 0 END END",
    "tenure": "CASE WHEN entity_tenure_days < 120 THEN 0 WHEN entity_tenure_days > 900 THEN 1 END",
    "rating": "CASE WHEN object_rating < 3 THEN 0 WHEN object_rating >= 4.6 THEN 1 END",
    "basket": "CASE WHEN context_basket_size >= 4 THEN 1 WHEN context_basket_size = 0 THEN 0 END",
    "age": "CASE WHEN entity_age > 65 THEN 0 WHEN entity_age BETWEEN 32 AND 48 THEN 1 END",
    "taste": "CASE WHEN object_category IN ('garden', 'toys') THEN 0 WHEN object_category = 'books' THEN 1 END",
}


def outcome(
    signal: Array, columns: Mapping[str, Array], rng: np.random.Generator
) -> dict[str, Array]:
    """The sample's label from its hidden signal.

    Args:
        signal: standardised, higher means likelier, shape (n,).
        columns: what else is known of each row, by name.
        rng: the sample's own generator.

    Returns:
        the column label: 0.0 or 1.0 by row, about 15 % ones, shape (n,).
    """
    chance = 1 / (1 + np.exp(-(1.6 * signal - 2.3)))
    return {"label": (rng.random(len(signal)) < chance).astype(np.float64)}


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
    """SQL for a label as a number: 1 where it is the value that counts as yes, else 0.

    Args:
        column: SQL of the label as it came; has_label: SQL for whether there is one.
    """
    value = "'" + str(label.positive).replace("'", "''") + "'"
    # 1 also means 1.0, as a column of numbers writes it
    same = (
        f"lower(CAST({column} AS VARCHAR)) = lower({value}) "
        f"OR TRY_CAST({column} AS DOUBLE) = TRY_CAST({value} AS DOUBLE)"
    )
    return f"CASE WHEN NOT {has_label} THEN NULL WHEN {same} THEN 1.0 ELSE 0.0 END::DOUBLE"


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
    """SQL for a logged decision as a number."""
    return column


def named(label: LabelKeys) -> list[str]:
    """The values of the label that the settings name."""
    return [str(label.positive)]


def listed(label: LabelKeys, training_values: Sequence[str]) -> list[str]:
    """All values that a label may be: those that training saw."""
    return list(training_values)


def outlook(in_source: tuple[int, int], fed_back: tuple[int, int]) -> str:
    """What `design status` says of the labels: nothing, since all that is learnt is learnt from them."""
    return ""


def single(label: LabelKeys) -> str:
    """What a label that cannot be learnt has beside its one value, in words."""
    return f" other than {label.positive!r} or none"


def lacking(training_labels: Array, other_labels: Array, label: LabelKeys) -> str:
    """Which classes stand in some parts and have no row to learn from, in words; "" where none is."""
    return ""


def reward(value: str, named_values: list[str]) -> float | None:
    """What a bandit learns from a label: 1 for a yes, 0 for a no; `named_values`: as `named` gives them."""
    return float(value.lower() == named_values[0].lower())


def coded(values: pd.Series, keys: Mapping[str, Any], same: Callable[[str], str]) -> Array:
    """Labels of a new file as numbers, shape (n,).

    Args:
        values: n texts; keys: as `adopted` gives them; same: what two spellings are compared by.
    """
    return (values.map(same) == same(keys["positive"])).to_numpy(np.float64)


def adopted(
    header: str,
    name: str,
    counts: Mapping[str, int],
    spelt: Mapping[str, str],
    wish: tuple[str, str] | None,
    missing: str,
) -> tuple[dict[str, Any], str, str]:
    """Which value of a new label counts as yes: the one wished for, else a guess between two.

    Args:
        header, name: the column's, as the file and as the project has it.
        counts: rows of each value, by what spellings are compared by; spelt: how each is written.
        wish: the value that --positive names, and what it is compared by.
        missing: words on the values that mean no label.

    Returns:
        the keys of `data.label`, a line on what was decided, and why it cannot be learnt, or "".

    Raises:
        ValueError: when no value, or more than one, may be the yes.
    """
    values = ", ".join([*map(repr, list(spelt.values())[:6]), *(["…"] if len(spelt) > 6 else [])])
    if wish is not None:
        key, basis = wish[1], "as --positive says; every other value is no"
        if key not in counts:
            matches = get_close_matches(key, counts, 1, 0.5)
            matches = matches or [option for option in counts if key in YES and option in YES]
            hint = f"is it {spelt[matches[0]]!r}? " if matches else ""
            raise ValueError(
                f"--positive {wish[0]}: {header} has no such value; {hint}it has {values}{missing}"
            )
    elif len(counts) > 2:
        raise ValueError(
            f"--label {header}: has {len(counts):,} values ({values}) where a yes or no has two; "
            f"say which one counts as yes: --positive VALUE"
        )
    else:
        likely = [key for key in counts if key in YES] or [key for key in counts if key not in NO]
        likely = likely or list(counts)
        key, basis = likely[0], "a guess by the word; --positive names another"
        if len(likely) == 2:
            key = min(counts, key=counts.__getitem__)
            basis = "the rarer one, a guess; see --positive"
    total, yes = sum(counts.values()), f"{spelt[key]!r}"
    summary = (
        f"label: {yes} of {name} counts as yes ({100 * counts[key] / total:.2f}%), {basis}{missing}"
    )
    rarer, rows = ("yes", counts[key]) if 2 * counts[key] < total else ("no", total - counts[key])
    fault = (
        f"--label {header}: {rows} of {total:,} rows are {rarer} ({yes} counts as yes); "
        f"training, validation and test need at least {FEWEST_OF_A_KIND} together: collect more, "
        f"or choose another --positive"
    )
    return {"positive": spelt[key]}, summary, fault if rows < FEWEST_OF_A_KIND else ""


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
