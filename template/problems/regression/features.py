"""YOURS: features of your own, made from raw columns, and how a row is shaken to see whether answers hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray


class Own(NamedTuple):
    """A number of your own, made by ONNX nodes: training and service then compute it alike, to the last bit.

    Attributes:
        columns: the raw columns that it is made from.
        nodes: takes the graph (features/graph.py) and the name of each column there, all of shape
            (n, 1): numbers, yes and no as 32-bit floats, missing NaN; texts; times as 64-bit seconds.
            Returns the name of a 32-bit output of that shape, NaN where it is missing.
    """

    columns: tuple[str, ...]
    nodes: Callable[..., str]


# name -> Own. What is missing gets the median, and all is scaled, as in the catalogue. For example:
#   def age_at_start(graph, age, days):
#       return graph.add("Sub", age, graph.add("Div", days, graph.constant([[365.25]])))
#   OWN = {"age_at_start": Own(("entity_age", "entity_tenure_days"), age_at_start)}
OWN: dict[str, Own] = {}


def leading(settings: Any, columns: Mapping[str, str]) -> list[Any]:
    """Encoders whose columns stand first, each with the raw columns that it reads: none.

    Args:
        columns: the model's inputs, with their types.
    """
    return []


def shaken(rows: pd.DataFrame, names: Sequence[str], share: float, seed: int) -> pd.DataFrame:
    """Rows whose numbers got noise of `share` of each column's spread; `names`: of these columns."""
    rng, noisy = np.random.default_rng(seed), rows.copy()
    for name in names:
        noise = share * rows[name].std() * rng.standard_normal(len(rows))
        noisy[name] = (rows[name] + noise).astype(np.float32)
    return noisy


def judged(
    rows: pd.DataFrame, y: Array, seed: int
) -> tuple[pd.DataFrame, Array, Array | slice, str]:
    """The rows that a model is judged by: those of the part as they are.

    Args:
        rows: n raw rows, as a model takes them; y: their labels, shape (n,).

    Returns:
        the rows, their labels, from which of the n each comes, and what figures rest on, in words, or "".
    """
    return rows, y, slice(None), ""


def may_choose(y: Array) -> bool:
    """Whether one of several models may be chosen by rows with these labels, shape (n,): by what came of them."""
    return True
