"""The prediction log: appended off the request path, readable after any crash.

A writer holds one open `.wal` file: JSON lines, the first of which names the columns. It becomes a
Parquet file of the same name when it is rotated, when the service stops, or at the next start. The
system's lock on the `.lock` beside an open `.wal` goes with its process, however that ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock, Timeout

PREDICTIONS, FEEDBACK, REVIEW = "monitoring/predictions", "monitoring/feedback", "monitoring/review"
EARLY_BYTES = 2_000_000  # are written at once, so that many rows don't pile up in memory
MOST_WAITING = 100_000  # kept in memory while the disk refuses them; then the oldest go


class Log:
    """Appends JSON lines to a folder; `append` costs the caller a microsecond.

    Args:
        columns: the lines' keys -> their SQL types; the first is never null.
        flush_seconds: what a crash may lose.
        rotate_seconds: after which the lines become Parquet.
    """

    def __init__(
        self, folder: Path, columns: Mapping[str, str], flush_seconds: float, rotate_seconds: float
    ) -> None:
        self.folder, self.lost, self.error = folder, 0, ""
        self._head = json.dumps({"columns": columns}).encode()
        self._lines: deque[bytes] = deque()  # each one line, or several with breaks between them
        self._flush_seconds, self._rotate_seconds = flush_seconds, rotate_seconds
        self._file: int | None = None
        self._lock: FileLock | None = None
        self._opened = 0.0
        self._size = 0
        self._compacting: list[subprocess.Popen[bytes]] = []
        self._writing = threading.Lock()
        self._waiting_bytes = 0  # about: two threads may count at once
        self._wake = threading.Event()
        self._stopping = False
        folder.mkdir(parents=True, exist_ok=True)
        self._compact()
        self._thread = threading.Thread(target=self._run, name="prediction log", daemon=True)
        self._thread.start()

    def append(self, lines: bytes) -> None:
        """Take one line, or several with breaks between them."""
        self._lines.append(lines)
        self._waiting_bytes += len(lines)
        if self._waiting_bytes > EARLY_BYTES:
            self._wake.set()

    def waiting(self) -> int:
        """Calls of `append` whose lines are not written yet."""
        return len(self._lines)

    def flush(self) -> None:
        """Write what waits. When the disk refuses, the lines are kept and `error` says why."""
        with self._writing:
            self._waiting_bytes = 0
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if not lines:
                return
            try:
                if self._file is None:
                    self._open()
                assert self._file is not None
                _write(self._file, b"\n".join([*lines, b""]))
                self._size = os.fstat(self._file).st_size
                self.error = ""
            except OSError as error:
                self.error = f"{self.folder}: {error.strerror}"
                if self._file is not None:
                    os.ftruncate(self._file, self._size)  # not half a line in the middle
                spare = max(0, MOST_WAITING - len(self._lines))
                self.lost += max(0, len(lines) - spare)
                self._lines.extendleft(reversed(lines[-spare:] if spare else []))

    def close(self) -> None:
        """Write what waits and leave Parquet."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        self.flush()
        self._shut()
        for process in self._compacting:  # one that looks at this file already has it
            process.wait()
        self._compact()
        for process in self._compacting:
            process.wait()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self._flush_seconds)
            self._wake.clear()
            self.flush()
            if self._file is not None and time.monotonic() - self._opened > self._rotate_seconds:
                self._shut()
                self._compact()

    def _open(self) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        path = self.folder / f"{stamp}-{os.getpid()}-{time.monotonic_ns() % 10**9:09d}.wal"
        self._lock = _lock_of(path)
        self._lock.acquire()  # before there is a file that one who tidies up could take
        # Windows would write a line's end as two characters
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        try:
            self._file = os.open(path, flags, 0o644)
            _write(self._file, self._head + b"\n")
            self._size = os.fstat(self._file).st_size
        except OSError:  # a full disk is asked again in a moment, and need not fill up with these
            self._shut()
            for left in (path, path.with_suffix(".lock")):
                left.unlink(missing_ok=True)
            raise
        self._opened = time.monotonic()

    def _shut(self) -> None:
        if self._file is not None:
            os.close(self._file)
        if self._lock is not None:
            self._lock.release()
        self._file = self._lock = None

    def _compact(self) -> None:
        # A process of its own: neither its memory nor its work is the service's
        command = [sys.executable, "-m", __name__, str(self.folder)]
        running = [one for one in self._compacting if one.poll() is None]
        self._compacting = [*running, subprocess.Popen(command)]


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


def _lock_of(path: Path) -> FileLock:
    """Taken in one thread and given back in another; a `.wal`'s name is never used again."""
    return FileLock(path.with_suffix(".lock"), timeout=0, thread_local=False)


def compact(folder: Path) -> int:
    """Turn every `.wal` file that nobody writes to into Parquet; returns how many.

    A line that a crash cut short is left out: its answer was sent less than `flush_seconds` before.
    """
    done = 0
    for path in sorted(folder.glob("*.wal")):
        lock = _lock_of(path)
        try:
            with lock:
                done += path.exists() and _compacted(path)  # or another process was quicker
        except Timeout:
            continue
        Path(lock.lock_file).unlink(missing_ok=True)
    return done


def _compacted(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.readline()
    whole = head.endswith(b"\n")  # else nothing was written after it either
    if whole:
        _to_parquet(path, json.loads(head)["columns"])
    path.unlink()
    return whole


def _to_parquet(path: Path, columns: Mapping[str, str]) -> None:
    import duckdb

    target, fresh = path.with_suffix(".parquet"), path.with_suffix(".parquet.new")
    with duckdb.connect(config={"threads": 1, "memory_limit": "512MB"}) as sql:
        sql.execute(
            f"COPY (SELECT * FROM read_json(?, columns = ?, format = 'newline_delimited', "
            f'ignore_errors = true) WHERE "{next(iter(columns))}" IS NOT NULL) '
            f"TO '{str(fresh).replace(chr(39), chr(39) * 2)}' (FORMAT parquet, COMPRESSION zstd)",
            [str(path), dict(columns)],
        )
    fresh.replace(target)


if __name__ == "__main__":
    if sys.platform != "win32":
        os.nice(10)
    compact(Path(sys.argv[1]))
