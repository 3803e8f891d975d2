"""POST /forecast: one series, and an answer for each step ahead of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import msgspec

from ..data.schema import VALUE_PHRASES
from ..data.times import EPOCH, seconds
from ..problem import data as problem_data
from ..settings import Settings
from .bounded import Problem, Refused, clip
from .online import OnlineStore
from .rows import MAX_LENGTH

SERIES = "a series as one JSON object: the columns of a row, without those of a step"
encode = msgspec.json.encode
decode = msgspec.json.Decoder(dict[str, Any]).decode


def serves(settings: Settings) -> bool:
    """Whether there are steps ahead to ask for: where rows of series are made into examples."""
    return bool(problem_data.made(settings.data.label))


def columns_of_step(settings: Settings) -> set[str]:
    """The columns that differ by step, which a request for a series leaves out."""
    label: Any = settings.data.label
    return {name for name in (label.horizon, label.target_time) if name}


def steps_of(
    body: bytes, settings: Settings, now: float, max_body: int, store: OnlineStore | None = None
) -> bytes:
    """The rows of the steps ahead that a request asks for, in their order, as /predict takes them.

    A column that is known ahead may have a list, a value for each step; any other value holds for all of them. Of a
    long history the latest values count.

    Args:
        now: seconds since 1970, where the request does not say the moment that the history goes up to.
        max_body: bytes that the rows may have together.
        store: what is known of series; what the request says comes first.

    Raises:
        Refused: what is no series, names a step itself, has a list of another length, or makes too many rows.
    """
    label: Any = settings.data.label
    time, ahead = str(settings.data.schema_.time), label.ahead
    try:
        series = decode(body)
        encode(series)  # what cannot be written again makes no rows
    except (ValueError, RecursionError) as error:  # no JSON, or no text
        raise Refused([Problem("body", str(error), SERIES)]) from None
    if store is not None:
        series = _completed(series, label, store)
    problems = [
        Problem(name, clip(series[name]), "nothing: it differs by step")
        for name in sorted(columns_of_step(settings) & {*series})
    ]
    history, columns = series.get(label.history), settings.data.schema_.columns
    if isinstance(history, list):
        latest = history[-(columns[label.history].length or MAX_LENGTH["history"]) :]
        series[label.history] = encode(
            latest
        ).decode()  # as a text, which is read once for all steps
    elif history is not None:
        problems.append(Problem(label.history, clip(history), VALUE_PHRASES["history"]))
    lists = {name for name, value in series.items() if isinstance(value, list)} - {label.history}
    problems += [
        Problem(
            name, f"{len(series[name])} values", f"one value, or {ahead}: one for each step ahead"
        )
        for name in sorted(lists)
        if len(series[name]) != ahead
    ]
    try:
        value = series.get(time)
        moment = now if value is None else seconds(value, columns[time].formats)
        origin = EPOCH + timedelta(seconds=moment)
        moments = problem_data.steps_after(origin, label)
    except (ValueError, OverflowError, OSError, TypeError):
        problems.append(Problem(time, clip(value), VALUE_PHRASES["time"]))
    if problems:
        raise Refused(problems)
    if ahead * len(encode(series)) > max_body:
        raise Refused(
            [Problem("body", f"{ahead} steps of over {max_body // ahead:,} bytes", "less")], 413
        )
    rows = []
    for step, moment_ahead in enumerate(moments):
        row = {name: value[step] if name in lists else value for name, value in series.items()}
        row |= {time: origin.isoformat(), str(label.horizon): step + 1.0}
        if label.target_time:
            row[label.target_time] = moment_ahead.isoformat()
        rows.append(row)
    return encode(rows)


def described(settings: Settings) -> dict[str, Any]:
    """What the page has to know of a series: the columns that say which, since when and how it went, and how far ahead
    its path goes."""
    label: Any = settings.data.label
    return {
        "key": label.series,
        "history": label.history,
        "time": settings.data.schema_.time,
        "made": sorted(columns_of_step(settings)),
        "ahead": label.ahead,
        "value": label.column,
    }


def _completed(series: dict[str, Any], label: Any, store: OnlineStore) -> dict[str, Any]:
    """A series with what is known of it.

    Raises:
        Refused: one without a history of which nothing is known.
    """
    completed = store.completed(series)
    entries = store.entries.get(label.series, {})
    if entries and completed.get(label.history) is None:
        allowed = (
            f"one of {len(entries):,} that {store.path.name} holds, or {label.history} beside it"
        )
        raise Refused([Problem(label.series, clip(series.get(label.series)), allowed)])
    return completed


def schema(settings: Settings, row: dict[str, Any]) -> dict[str, Any]:
    """What a request for the steps ahead of a series may hold: the columns of a row, of each step where they are told."""
    made, label = columns_of_step(settings), cast(Any, settings.data.label)
    ahead = label.ahead
    fixed = {label.history, label.series, settings.data.schema_.time, settings.data.schema_.id}
    properties = {
        name: column
        if name in fixed
        else {
            "anyOf": [
                column,
                {"type": "array", "items": column, "minItems": ahead, "maxItems": ahead},
            ]
        }
        for name, column in row["properties"].items()
        if name not in made
    }
    example = {name: value for name, value in row["example"].items() if name not in made}
    required = [name for name in row["required"] if name not in made]
    return {"properties": properties, "required": required, "example": example}
