"""What a value of a column may be, by the schema or else by what training saw, and how that is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..images import FORMATS
from ..settings import ColumnSettings

VALUE_PHRASES = {
    "number": "a number or null",
    "bool": "true, false or null",
    "category": "a text or null",
    "text": "a text or null",
    "image": f"an image in base64 ({', '.join(FORMATS)}) or null",
    "time": "a time such as 2026-01-31T12:00:00Z, seconds since 1970, or null",
}


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
