"""A random sample of a stream of rows, in one pass and fixed memory, however long the stream is."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, BinaryIO

import numpy as np

from ..settings import UserError

BATCH_BYTES = 1 << 19
MAX_RECORD_BYTES = 1 << 24  # of one row; beyond, a quote mark of CSV was left open
NEWLINE, RETURN, QUOTE = b'\n\r"'
TINY = 2.0**-53


class Reservoir:
    """A simple random sample of `size` items of a stream: each has the same chance, and so has each set of them.

    Vitter's reservoir (1985) by algorithm L (Li, 1994): how many items come before the next one that is taken is
    drawn, and they are never looked at. Of m items about size * (1 + log(m / size)) are.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.count = size, 0  # count: of the items that came by
        self._random, self._items = Random(seed), list[tuple[int, Any]]()
        self._threshold, self._next = 1.0, 0

    def extend(self, batch: Sequence[Any]) -> None:
        """Let the next items of the stream come by."""
        end = self.count + len(batch)
        while self._next < end:
            entry = self._next, batch[self._next - self.count]
            if len(self._items) < self.size:
                self._items.append(entry)
            else:
                self._items[self._random.randrange(self.size)] = entry
            self._next += 1 + (self._skipped() if len(self._items) == self.size else 0)
        self.count = end

    def _skipped(self) -> int:
        """How many items pass by before the next one that is taken."""
        self._threshold *= self._uniform() ** (1 / self.size)
        return int(math.log(self._uniform()) / math.log1p(-self._threshold))

    def _uniform(self) -> float:
        return max(self._random.random(), TINY)

    def items(self) -> list[Any]:
        """The sample, in the order of the stream."""
        return [item for _, item in sorted(self._items, key=lambda entry: entry[0])]


def draw_stream(source: str, target: Path, rows: int, seed: int) -> tuple[int, int]:
    """Write a simple random sample of a stream of CSV or JSON lines to a file, in the order of the stream.

    Args:
        source: a file's path, or - for what is piped in; CSV begins with the names of its columns.

    Returns:
        how many rows were taken, and how many came by.

    Raises:
        UserError: when the stream cannot be read, or is neither.
    """
    reservoir, fresh = Reservoir(rows, seed), target.with_name(f"{target.name}.new")
    try:
        piped: Any = sys.stdin.buffer
        with piped if source == "-" else Path(source).open("rb") as stream:
            start = stream.peek(1024).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
            if start in (b"", b"["):
                fault = "is one JSON document" if start else "is empty"
                raise UserError(f"{source}: {fault}: give CSV, or JSON with a line for each row")
            header = b""
            for batch in records(stream, source, is_csv=start != b"{"):
                if start != b"{" and not header:
                    header, *batch = batch
                reservoir.extend(batch)
        taken = reservoir.items()
        target.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            file.writelines(line.rstrip(b"\r\n") + b"\n" for line in (header, *taken) if line)
        os.replace(fresh, target)
    except OSError as error:
        raise UserError(f"{error.filename or source}: {error.strerror}") from None
    finally:
        fresh.unlink(missing_ok=True)
    return len(taken), reservoir.count


class Batch(Sequence[bytes]):
    """The whole rows of a piece of a stream, which are cut out of it only where they are asked for.

    Blank lines are no rows; lines of CSV that a quote mark holds together are one. `end`: where the last row ends.
    """

    def __init__(self, text: bytes, is_csv: bool) -> None:
        values = np.frombuffer(text, np.uint8)
        ends = np.flatnonzero(values == NEWLINE) + 1
        if is_csv and len(ends) and b'"' in text:  # after an odd number of marks the row goes on
            is_mark = (values == QUOTE).view(np.uint8)
            marks = np.add.reduceat(is_mark, np.append(0, ends[:-1]))
            ends = ends[np.cumsum(marks) % 2 == 0]
        starts = np.append(0, ends)[:-1]
        sizes = ends - starts
        is_blank = (sizes == 1) | ((sizes == 2) & (values[starts] == RETURN))
        self.text, self.end = text, int(ends[-1]) if len(ends) else 0
        self._starts, self._ends = starts[~is_blank], ends[~is_blank]

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, position: Any) -> Any:
        return self.text[self._starts[position] : self._ends[position]]


def records(stream: BinaryIO, name: str, is_csv: bool) -> Iterator[Sequence[bytes]]:
    """The rows of a stream, some thousand at once.

    Args:
        name: of the stream, for the message.

    Raises:
        UserError: when a quote mark of CSV is never closed.
    """
    unfinished = b""
    while piece := stream.read(BATCH_BYTES):
        batch = Batch(unfinished + piece, is_csv)
        unfinished = batch.text[batch.end :]
        if len(unfinished) > MAX_RECORD_BYTES:
            break
        if len(batch):
            yield batch
    if len(unfinished) > MAX_RECORD_BYTES or (is_csv and unfinished.count(b'"') % 2):
        raise UserError(f"{name}: a quote mark is never closed: {unfinished[:80]!r}")
    if unfinished.strip():
        yield [unfinished]
