"""What a value of a column may be, by the schema or else by what training saw, and how that is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..settings import Column

WORDS = {
    "number": "a number or null",
    "bool": "true, false or null",
    "category": "a text or null",
    "text": "a text or null",
    "time": "a time such as 2026-01-31T12:00:00Z, seconds since 1970, or null",
}


def _beyond(end: float | None, side: float) -> float | None:
    """An end of what training saw, moved to include all that its 32 bits stand for."""
    near = np.float32(end or 0.0)
    if not end or not np.isfinite(near):
        return end
    return (float(near) + float(np.nextafter(near, np.float32(side)))) / 2


def value_range(
    column: Column, seen: Mapping[str, Any]
) -> tuple[float, float, frozenset[str] | None] | None:
    """(least, most, allowed) of a column: what the schema says, else what training saw."""
    if column.type == "number":
        bounds = [
            _beyond(seen.get(key), side) if given is None else given
            for key, given, side in (("min", column.min, -np.inf), ("max", column.max, np.inf))
        ]
        return None if None in bounds else (*bounds, None)  # type: ignore[return-value]
    if column.type == "category":
        allowed = column.allowed or seen.get("categories")
        return (0.0, 0.0, frozenset((*allowed, ""))) if allowed else None
    return None


def value_words(column: Column, bounds: Sequence[Any] | None, required: bool) -> str:
    """What a column may hold, in words.

    Args:
        bounds: as `value_range` gives them.
        required: a value has to be there.
    """
    if bounds is not None:
        low, high, allowed = bounds
        if allowed is None:
            return f"between {low:g} and {high:g}"
        shown = sorted(allowed - {""})
        more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
        return f"one of {', '.join(shown[:10])}{more}"
    words = WORDS[column.type]
    return words.replace(" or null", "").replace(", or null", "") if required else words
