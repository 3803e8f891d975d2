"""Bounds on the work that any request may cause: what is too much is refused before it is built.

The time and memory of refusing a request stay below those of answering the largest legal one.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Any

import msgspec

MOST_TOLD = 100  # problems in an answer
SHOWN = 80  # characters of what came that are sent back
ERROR = re.compile(r"(.*?)(?: - at `\$([^`]*)`)?", re.DOTALL)
EXPECTED = re.compile(r"Expected `(.*)`, got `(.*)`", re.DOTALL)
UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
HALF = re.compile(rb"\\u[dD][89abAB]")
LOOKED_AT = 100_000  # bytes of a body, to say why it is no JSON
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


def listed(most: int, item: Any) -> Any:
    """A type for a JSON list of at most `most` items, which is left at the first one too many.

    A list type would build all of them before its length is looked at. `members` gives the items.
    """
    fields = [(f"i{place}", item, msgspec.UNSET) for place in range(most)]
    return msgspec.defstruct("List", fields, array_like=True, forbid_unknown_fields=True)


def up_to(most: int, item: Any) -> Callable[[bytes], Any]:
    """A decoder of such a list, made when it is first needed: hardly any request is of this kind."""
    made: list[Callable[[bytes], Any]] = []

    def decode(body: bytes) -> Any:
        if not made:
            made.append(msgspec.json.Decoder(listed(most, item)).decode)
        return made[0](body)

    return decode


def members(found: Any) -> list[Any]:
    """The items of a `listed`."""
    return [one for one in msgspec.structs.astuple(found) if one is not msgspec.UNSET]


def shown(raw: bytes) -> Any:
    """A JSON value that came, short enough to send back."""
    if len(raw) > 4 * SHOWN:
        return raw[: 4 * SHOWN].decode("utf-8", "replace").removeprefix('"')[:SHOWN]
    try:
        value = msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return raw.decode("utf-8", "replace")[:SHOWN]
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    return (value if isinstance(value, str) else raw.decode())[:SHOWN]


def short(value: Any) -> Any:
    """A value that came, short enough to send back."""
    if isinstance(value, str):
        return value[:SHOWN]
    return value if value is None or isinstance(value, bool | int | float) else str(value)[:SHOWN]


def first_problem(error: Exception, body: bytes, allowed: str) -> tuple[Problem, int | None]:
    """What a decoder stumbled over, and in which item of a list.

    Args:
        allowed: what the whole body may be.
    """
    words = str(error)
    if not isinstance(error, msgspec.ValidationError):
        reason = "nested too deeply" if isinstance(error, RecursionError) else words[:200]
        where = re.search(r"\(byte ([0-9]{1,9})\)", words)
        start = max(0, int(where[1]) - SHOWN // 2) if where else 0
        came = body[start : start + SHOWN].decode("utf-8", "replace")
        if "truncated" in words and HALF.search(body, 0, LOOKED_AT):
            reason = "half of a surrogate pair is no character"
        return Problem("body", came, f"JSON in UTF-8{allowed and ': '}{allowed} ({reason})"), None
    match = ERROR.fullmatch(words if len(words) < 1000 else words[:500] + words[-400:])
    assert match is not None  # of any text
    message, path = match[1], (match[2] or "").removeprefix("[...]").lstrip(".")[:SHOWN]
    place = re.match(r"\[([0-9]{1,9})\]", path)
    at = int(place[1]) if place else None
    if unknown := UNKNOWN.fullmatch(message):
        return Problem(path or "body", unknown[1][:SHOWN], NO_NAME), at
    if expected := EXPECTED.fullmatch(message):
        wanted = expected[1].replace(" | ", " or ")
        return Problem(path or "body", expected[2][:SHOWN], wanted[:200]), at
    if long := TOO_MANY.fullmatch(message):
        return Problem(path or "body", f"more than {long[1]}", allowed), at
    return Problem(path or "body", message[:200], allowed), at


def inflated(body: bytes, encoding: str, most: int) -> bytes:
    """A request's body as it was before the client packed it.

    Args:
        encoding: of Content-Encoding, in small letters.
        most: bytes that it may have.

    Raises:
        Refused: 415 for an encoding other than gzip, 413 for a body that is larger, 422 when it is
            no gzip.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise Refused([Problem("content-encoding", encoding[:SHOWN], "gzip, or none")], 415)
    unpack = zlib.decompressobj(wbits=31)
    try:
        found = unpack.decompress(body, most + 1)
    except zlib.error as error:
        raise Refused(
            [Problem("body", str(error)[:SHOWN], "gzip, as content-encoding says")]
        ) from None
    if len(found) > most:
        raise Refused([Problem("body", f"over {most:,} bytes unpacked", f"at most {most:,}")], 413)
    if not unpack.eof or unpack.unused_data:
        came = "more than one gzip member" if unpack.eof else "cut short"
        raise Refused([Problem("body", came, "one whole gzip member")])
    return found
