"""POST /recommend: items for a query or a person, in two stages: candidates are retrieved, and ranked as one list."""

from __future__ import annotations

import logging
import random
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from ..data.parsing import canonical
from ..settings import Settings
from .bounded import Problem, Refused, clip, told_once
from .online import OnlineStore, WatchedFile, lookup_key

if TYPE_CHECKING:
    from .service import Service

CONTEXT = "one JSON object: the columns that all rows of a list share"
NO_ITEMS = "the online store, as `materialize` writes it, has none yet"
log = logging.getLogger("serving")
encode = msgspec.json.encode
decode = msgspec.json.Decoder(dict[str, Any]).decode
decode_items = msgspec.json.Decoder(list[str | int | float]).decode


class Neighbours(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A line of the file of nearest items: of which value, and which items, the nearest first."""

    value: str | int | float
    items: msgspec.Raw


read_neighbours = msgspec.json.Decoder(Neighbours).decode


class NearestItems(WatchedFile):
    """The items that lie nearest to each value of a column, as a job of the team wrote them.

    Attributes:
        entries: value -> its items, a JSON list as bytes.
    """

    CONTENT = "nearest items"
    entries: dict[str, bytes]

    def __init__(self, path: Path, is_hashed: bool) -> None:
        super().__init__(path)
        self._is_hashed = is_hashed
        self.refresh()
        if not self.entries:
            log.warning("no nearest items yet, popular ones are ranked", extra={"file": str(path)})

    def _read(self) -> dict[str, bytes]:
        entries = {}
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    neighbours = read_neighbours(line)
                    decode_items(neighbours.items)
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"line {number}: {error}") from None
                entries[canonical(neighbours.value)] = bytes(neighbours.items)
        return entries

    def items(self, value: Any) -> list[str]:
        """The items nearest to a value, the nearest first; none of a value that the file does not have."""
        raw = None if value is None else self.entries.get(lookup_key(value, self._is_hashed))
        return [] if raw is None else [canonical(item) for item in decode_items(raw)]


def serves(settings: Settings) -> bool:
    """Whether items can be retrieved: where a column names them, and in words that a row can have again."""
    item, data = cast(Any, settings.data.label).item, settings.data
    if settings.serving.retrieval is None or item is None:
        return False
    return not (data.schema_.columns[item].personal and data.personal == "hash")


def nearest_items(settings: Settings, root: Path) -> NearestItems | None:
    """The file of nearest items that the settings name; None where they name none."""
    retrieval: Any = settings.serving.retrieval
    if not serves(settings) or retrieval.source != "nearest":
        return None
    is_personal = settings.data.schema_.columns[retrieval.by].personal
    return NearestItems(root / retrieval.file, is_personal and settings.data.personal == "hash")


def columns_of_item(settings: Settings) -> set[str]:
    """The columns that differ by item, or by its place, which a request for items leaves out."""
    label, features = cast(Any, settings.data.label), settings.features.catalogue.items()
    of_item = {feature.column or name for name, feature in features if feature.family == "object"}
    of_row = {label.item, label.topic, label.position, label.propensity, settings.data.schema_.id}
    return of_item | of_row - {None}


async def recommend(
    body: bytes, settings: Settings, service: Service, request: str
) -> list[dict[str, Any]]:
    """The best items for a request, the first place first: each its `item`, and the usual answer.

    All candidates are answered as rows of one list, so that the log has them all, and the router, exploration and
    feedback do with them as with any list.

    Args:
        body: JSON, the columns that the rows of a list share; request: its id, as it is logged.

    Raises:
        Refused: what is no such object or names an item; 503 while no item is known.
    """
    context = _context(body, settings)
    items = candidates(context, settings, service.store, service.nearest)
    if not items:
        raise Refused([Problem("items", None, NO_ITEMS)], 503)
    size, max_body = len(items) * len(body), service.rows.max_body
    if size > max_body:
        allowed = f"at most {max_body // len(items):,} bytes: {len(items)} rows are made of it"
        raise Refused([Problem("body", f"{len(body):,} bytes", allowed)], 413)
    name, show = cast(Any, settings.data.label).item, cast(Any, settings.serving.retrieval).show
    try:
        rows, _ = service.rows.read(encode([{**context, name: item} for item in items]))
        answers = await service.answer(rows, request)
    except Refused as error:
        raise Refused(told_once(error.problems), error.status) from None
    ranked = sorted(zip(answers, items, strict=True), key=lambda pair: cast(int, pair[0].rank))
    return [{"item": item, **msgspec.to_builtins(answer)} for answer, item in ranked[:show]]


def candidates(
    context: dict[str, Any],
    settings: Settings,
    store: OnlineStore | None,
    nearest: NearestItems | None,
) -> list[str | float]:
    """The items that are ranked, each once: the nearest first, filled up with popular ones.

    Args:
        context: what a request says; store: whose items stand in the order of their popularity.
    """
    name, retrieval = cast(Any, settings.data.label).item, cast(Any, settings.serving.retrieval)
    near = nearest.items(context.get(retrieval.by)) if nearest is not None else []
    popular = store.entries.get(name, {}) if store is not None else {}
    items: dict[str, None] = {}
    for item in chain(near, popular):
        if len(items) == retrieval.count:
            break
        items.setdefault(item)
    is_number = settings.data.schema_.columns[name].type == "number"
    return [float(item) if is_number else item for item in items]


def _context(body: bytes, settings: Settings) -> dict[str, Any]:
    """What a request says of the list, with an id where it has none.

    Raises:
        Refused: what is no JSON object, or names what differs by item.
    """
    try:
        context = decode(body)
        encode(context)  # what cannot be written again makes no rows
    except (ValueError, RecursionError) as error:
        raise Refused([Problem("body", str(error), CONTEXT)]) from None
    columns, key = settings.data.schema_.columns, cast(Any, settings.data.label).list
    problems = [
        Problem(name, clip(context[name]), "nothing: it differs by item")
        for name in sorted(columns_of_item(settings) & {*context})
    ]
    if problems:
        raise Refused(problems)
    if key is not None and context.get(key) is None:
        number = random.SystemRandom().getrandbits(52)  # which a float holds exactly
        context[key] = float(number) if columns[key].type == "number" else f"{number:013x}"
    return context


def described(settings: Settings) -> dict[str, Any]:
    """What GET /model says: how items are retrieved, which column names them, and what a request leaves out."""
    return {
        **cast(Any, settings.serving.retrieval).model_dump(),
        "item": cast(Any, settings.data.label).item,
        "made": sorted(columns_of_item(settings)),
    }


def schema(settings: Settings, row: dict[str, Any]) -> dict[str, Any]:
    """What a request for items may hold: the columns of a row, without those that differ by item."""
    made = columns_of_item(settings)
    parts = {
        part: {name: value for name, value in row[part].items() if name not in made}
        for part in ("properties", "example")
    }
    return parts | {"required": [name for name in row["required"] if name not in made]}
