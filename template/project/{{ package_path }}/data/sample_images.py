"""The images of the sample: a photo of what was offered, whose surface has the more spots the larger the label is.

The images behave like real ones where it hurts: the light differs, a spot is somewhere else each time, some photos are
far too bright, and some are missing.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..images import from_pixels

Array = np.ndarray
COLUMN = "object_photo"
SIDE = 16  # pixels
MISSING, BRIGHT = 0.05, 0.01  # shares of the rows
FEWEST_SPOTS, MOST_SPOTS = (
    1.0,
    6.0,
)  # spots that are expected of the lowest and of the highest label
SPOT, DEPTH = 2, 85  # pixels a side of a spot, and how much darker it is, of 255
LIGHT, LIGHT_SPREAD, GRAIN = 160, 18, 9


def add(events: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Put the column `object_photo` beside the other columns of the sample.

    Args:
        events: n rows as `sample.make` gives them; a row that was sent twice has the same image twice.
        seed: same seed, same images.

    Returns:
        the events with their images, grey, 16 pixels a side, as `images.stored` has them, None where there is none;
        20,000 rows in about five seconds.
    """
    rng = np.random.default_rng([seed, 2])  # the other columns stay as they are without images
    first = ~events["event_id"].str.removesuffix("r").duplicated()
    labels = events.loc[first, "label"]
    codes = (
        labels
        if pd.api.types.is_numeric_dtype(labels)
        else pd.Series(pd.factorize(labels, sort=True)[0])
    )
    rank = codes.where(labels.notna().to_numpy()).rank(pct=True).fillna(0.5).to_numpy()
    position = pd.factorize(events["event_id"].str.removesuffix("r"))[0]
    return events.assign(**{COLUMN: _images(rank, rng)[position]})


def _images(rank: Array, rng: np.random.Generator) -> Array:
    """An image for each row of `rank`, from 0 to 1, shape (n,); shape (n,)."""
    n = len(rank)
    values = rng.normal(LIGHT, LIGHT_SPREAD, (n, 1, 1)) + rng.normal(0, GRAIN, (n, SIDE, SIDE))
    row = np.repeat(np.arange(n), rng.poisson(FEWEST_SPOTS + (MOST_SPOTS - FEWEST_SPOTS) * rank))
    down, right = rng.integers(0, SIDE - SPOT + 1, (2, len(row)))
    for y in range(SPOT):
        for x in range(SPOT):
            np.subtract.at(values, (row, down + y, right + x), DEPTH)
    values[rng.random(n) < BRIGHT] += 150
    grey = values.clip(0, 255).astype(np.uint8)
    images = np.array([from_pixels(image[None]) for image in grey], dtype=object)
    images[rng.random(n) < MISSING] = None
    return images
