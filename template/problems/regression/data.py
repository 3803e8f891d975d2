"""YOURS: the label: how the sample makes one, how it is read, and what `adopt` says of a new one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import LabelKeys

if TYPE_CHECKING:
    import pandas as pd  # not above: the service has no pandas

Array = np.ndarray

LIST_ROWS = 1  # of the sample, that are of one person at one moment
TRUTH = ("_y",)  # what a truth holds of each row: SQL on the labelled rows
LABELLING_FUNCTIONS: dict[str, str] = {}  # this kind takes none


def outcome(
    signal: Array, columns: Mapping[str, Array], rng: np.random.Generator
) -> dict[str, Array]:
    """The sample's label from its hidden signal.

    Args:
        signal: standardised, higher means more, shape (n,).
        columns: what else is known of each row, by name.
        rng: the sample's own generator.

    Returns:
        the column label: a positive, right-skewed amount by row, shape (n,).
    """
    amount = np.exp(3.4 + 0.55 * signal + 0.35 * rng.standard_normal(len(signal)))
    return {"label": np.round(amount, 2)}


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
    """SQL for a label as a number: itself.

    Args:
        column: SQL of the label as it came; has_label: SQL for whether there is one.
    """
    return f"TRY_CAST({column} AS DOUBLE)"


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
    """Which classes stand in some parts and have no row to learn from, in words; of a number ""."""
    return ""


def reward(value: str, named_values: list[str]) -> float | None:
    """What a bandit learns from a label; None: of a number it does not."""
    return None


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
    """What a new label's values mean: nothing has to be chosen of a number.

    Returns:
        the keys of `data.label`, a line on what was decided, and why it cannot be learnt, or "".

    Raises:
        ValueError: when a value is wished for as the yes.
    """
    if wish is not None:
        raise ValueError(
            "--positive is for a yes or no; this project predicts a number: leave it out"
        )
    return {}, "", ""


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
