"""YOURS: features of your own, made from raw columns, and how a row is shaken to see whether answers hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import UNLABELLED
from .goals import MADE_ODD

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray
# Rows of a part that are known to be odd, and as many usual ones; below, rows that are made odd judge
ENOUGH_ODD = 5
MADE_SHARE, FEWEST_MADE = 0.05, 50  # odd rows that are made, of a part's rows, and at least so many
NOISE = (3.0, 6.0)  # in the column's robust standard deviations


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
    """The rows that a model is judged by: those with a label where enough are known to be odd, else all, with
    rows among them that were made odd.

    The threshold comes from a part's own rows either way. Half of the made rows have noise in one column, half
    have two columns of another row: the one is odd by itself, the other only beside the rest of its row. How
    well a model finds them says which of two models looks closer, and not how well it finds what really comes.

    Args:
        rows: n raw rows, as a model takes them; y: their labels, shape (n,).

    Returns:
        the rows, their labels, from which of the n each comes, and what figures rest on, in words.
    """
    labelled = int((y != UNLABELLED).sum())
    if min(int((y == 1).sum()), int((y == 0).sum())) >= ENOUGH_ODD:
        return rows, y, slice(None), f"judged by {labelled:,} labels"
    import pandas as pd

    rng, n = np.random.default_rng(seed), len(rows)
    count = max(FEWEST_MADE, round(MADE_SHARE * n))
    sources = rng.integers(0, n, count)
    half = count // 2
    made = pd.concat(
        [
            with_noise(rows.iloc[sources[:half]], rows, rng),
            with_swaps(rows.iloc[sources[half:]], rows, rng),
        ],
        ignore_index=True,
    )
    joined = pd.concat([rows, made], ignore_index=True)
    # Too few labels to go by: what is known to be odd is left out, and all else taken for usual
    real_y = np.where(y == 1, float(UNLABELLED or 2.0), 0.0)
    basis = f"judged by {count:,} rows that were made odd, since labels are too few"
    return joined, np.r_[real_y, np.full(count, MADE_ODD)], np.r_[np.arange(n), sources], basis


def may_choose(y: Array) -> bool:
    """Whether one of several models may be chosen by rows with these labels, shape (n,).

    Not by rows that were made odd: they flatter the method that looks for just what was done to them. Then the
    first of `modelling.candidates` ships that beats the baselines.
    """
    return bool((y != MADE_ODD).all())


def with_noise(made: pd.DataFrame, rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Rows of which each has one number moved by `NOISE` of its column's robust spread, up or down; where
    there are no numbers, `with_swaps`."""
    names = [name for name in rows.select_dtypes("float32") if rows[name].nunique() > 2]
    if not names:
        return with_swaps(made, rows, rng)
    made, chosen = made.copy(), rng.integers(0, len(names), len(made))
    for number, name in enumerate(names):
        values = rows[name].to_numpy(np.float64)
        low, middle, high = np.nanquantile(values, [0.16, 0.5, 0.84])
        unit = (high - low) / 2 or float(np.nanstd(values)) or 1.0
        moved = rng.uniform(*NOISE, len(made)) * rng.choice([-1.0, 1.0], len(made)) * unit
        start = made[name].to_numpy(np.float64)
        start = np.where(np.isnan(start), middle, start)
        values = np.where(chosen == number, start + moved, made[name]).astype(np.float32)
        made[name] = values
    return made


def with_swaps(made: pd.DataFrame, rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Rows of which each has the values of another row in two columns: each usual by itself. Of times none."""
    made = made.copy()
    names = [name for name in rows if rows[name].dtype != np.float64]  # a time tells when, not what
    if not names:
        return made
    donors = rows.iloc[rng.integers(0, len(rows), len(made))]
    first = rng.integers(0, len(names), len(made))
    second = (first + rng.integers(1, max(2, len(names)), len(made))) % len(names)
    for number, name in enumerate(names):
        swapped = (first == number) | (second == number)
        made[name] = made[name].where(~swapped, donors[name].to_numpy())
    return made
