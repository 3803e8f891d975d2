"""Bounds on the work that any request may cause: what is too much is refused before it is built.

The time and memory of refusing a request stay below those of answering the largest legal one.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

MAX_PROBLEMS = 100  # problems in an answer
MAX_ECHO = 80  # characters of what came that are sent back
MESSAGE_AND_PATH = re.compile(r"(.*?)(?: - at `\$([^`]*)`)?", re.DOTALL)
EXPECTED = re.compile(r"Expected `(.*)`, got `(.*)`", re.DOTALL)
UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
HALF_SURROGATE = re.compile(rb"\\u[dD][89abAB]")
SEARCHED_BYTES = 100_000  # bytes of a body, to say why it is no JSON
TOO_MANY = re.compile(r"Expected `array` of at most length ([0-9]+)")
NO_NAME = "no such name"


class Problem(msgspec.Struct):
    """One thing that is wrong with a request: which field, what came, what is allowed."""

    field: str
    got: Any
    allowed: str


class Refused(Exception):
    """A request that cannot be answered as it is."""

    def __init__(self, problems: list[Problem], status: int = 422) -> None:
        super().__init__(problems)
        self.problems, self.status = problems, status


def list_type(max_items: int, item: Any) -> Any:
    """A type for a JSON list of at most `max_items` items, which is left at the first one too many.

    A list type would build all of them before its length is looked at. `members` gives the items.
    """
    fields = [(f"i{i}", item, msgspec.UNSET) for i in range(max_items)]
    return msgspec.defstruct("List", fields, array_like=True, forbid_unknown_fields=True)


def list_decoder(max_items: int, item: Any) -> Callable[[bytes], Any]:
    """A decoder of a `list_type`, made when it is first needed: hardly any request is of this kind."""
    decoders: list[Callable[[bytes], Any]] = []

    def decode(body: bytes) -> Any:
        if not decoders:
            decoders.append(msgspec.json.Decoder(list_type(max_items, item)).decode)
        return decoders[0](body)

    return decode


def members(array: Any) -> list[Any]:
    """The items of a value that was decoded as a `list_type`."""
    return [item for item in msgspec.structs.astuple(array) if item is not msgspec.UNSET]


def echo(raw: bytes) -> Any:
    """A JSON value that came, short enough to send back."""
    if len(raw) > 4 * MAX_ECHO:
        return raw[: 4 * MAX_ECHO].decode("utf-8", "replace").removeprefix('"')[:MAX_ECHO]
    try:
        value = msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return raw.decode("utf-8", "replace")[:MAX_ECHO]
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    return (value if isinstance(value, str) else raw.decode())[:MAX_ECHO]


def clip(value: Any) -> Any:
    """A value that came, short enough to send back."""
    if isinstance(value, str):
        return value[:MAX_ECHO]
    return value if isinstance(value, int | float | None) else str(value)[:MAX_ECHO]


def first_problem(error: Exception, body: bytes, allowed: str) -> tuple[Problem, int | None]:
    """What a decoder stumbled over, and the index of the list's item that it stands in, if any.

    Args:
        error: of msgspec.
        body: what was decoded.
        allowed: what the whole body may be.
    """
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        reason = "nested too deeply" if isinstance(error, RecursionError) else text[:200]
        offset = re.search(r"\(byte ([0-9]{1,9})\)", text)
        start = max(0, int(offset[1]) - MAX_ECHO // 2) if offset else 0
        sent = body[start : start + MAX_ECHO].decode("utf-8", "replace")
        if "truncated" in text and HALF_SURROGATE.search(body, 0, SEARCHED_BYTES):
            reason = "half of a surrogate pair is no character"
        return Problem("body", sent, f"JSON in UTF-8{allowed and ': '}{allowed} ({reason})"), None
    match = MESSAGE_AND_PATH.fullmatch(text if len(text) < 1000 else text[:500] + text[-400:])
    assert match is not None  # of any text
    message, path = match[1], (match[2] or "").removeprefix("[...]").lstrip(".")[:MAX_ECHO]
    item = re.match(r"\[([0-9]{1,9})\]", path)
    index = int(item[1]) if item else None
    if unknown := UNKNOWN_FIELD.fullmatch(message):
        return Problem(path or "body", unknown[1][:MAX_ECHO], NO_NAME), index
    if expected := EXPECTED.fullmatch(message):
        types = expected[1].replace(" | ", " or ")
        return Problem(path or "body", expected[2][:MAX_ECHO], types[:200]), index
    if excess := TOO_MANY.fullmatch(message):
        return Problem(path or "body", f"more than {excess[1]}", allowed), index
    return Problem(path or "body", message[:200], allowed), index


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """A request's body as it was before the client packed it (gzip: RFC 1952).

    Args:
        encoding: of Content-Encoding, in small letters.
        limit: bytes that it may have.

    Raises:
        Refused: 415 for an encoding other than gzip, 413 for a body that is larger, 422 when it is
            no gzip.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise Refused([Problem("content-encoding", encoding[:MAX_ECHO], "gzip, or none")], 415)
    decompressor = zlib.decompressobj(wbits=31)
    try:
        content = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        reason = str(error)[:MAX_ECHO]
        raise Refused([Problem("body", reason, "gzip, as content-encoding says")]) from None
    if len(content) > limit:
        raise Refused(
            [Problem("body", f"over {limit:,} bytes unpacked", f"at most {limit:,}")], 413
        )
    if not decompressor.eof or decompressor.unused_data:
        reason = "more than one gzip member" if decompressor.eof else "cut short"
        raise Refused([Problem("body", reason, "one whole gzip member")])
    return content


def told_once(problems: Sequence[Problem]) -> list[Problem]:
    """What is wrong with the rows that were made, of each column once: all of them share it."""
    by_column: dict[str, Problem] = {}
    for problem in problems:
        name = problem.field.rpartition("].")[2]
        by_column.setdefault(name, Problem(name, problem.got, problem.allowed))
    return [*by_column.values()]
