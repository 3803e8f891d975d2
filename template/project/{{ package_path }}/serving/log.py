"""The prediction log: appended off the request path, readable after any crash.

A writer holds one open `.wal` file: JSON lines, the first of which names the columns. It becomes a
Parquet file of the same name when it is rotated, when the service stops, or at the next start. The
system's lock on the `.lock` beside an open `.wal` goes with its process, however that ends.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from ..records import STAMP_FORMAT, Damaged, set_aside, to_parquet

EARLY_BYTES = 2_000_000  # are written at once, so that many rows don't pile up in memory
MAX_QUEUED_BYTES = 24_000_000  # kept in memory while the disk refuses them; then the oldest go
# What `Log` and `score --log` call their files: when, the process, and a number or a word
FILE_NAME = re.compile(r"(\d{8}T\d{6})-\d+-\w+\.parquet")
TIDY_SECONDS = 3600  # between looks for what is too old, where nothing is written
LEFTOVER_SECONDS = 3600  # after which a half-written Parquet file is one that a crash left

log = logging.getLogger("serving")


class Log:
    """Appends JSON lines to a folder; `append` costs the caller a microsecond.

    Args:
        columns: the lines' keys -> their SQL types; the first is never null.
        flush_seconds: what a crash may lose.
        rotate_seconds: after which the lines become Parquet.
        keep_days: after which the folder's own Parquet files are deleted; None: never.

    Attributes:
        lost: rows that were dropped, because the disk refused them for too long.
        error: why the disk refuses rows now; empty while it takes them.
    """

    def __init__(
        self,
        folder: Path,
        columns: Mapping[str, str],
        flush_seconds: float,
        rotate_seconds: float,
        keep_days: float | None = None,
    ) -> None:
        self.folder, self.lost, self.error = folder, 0, ""
        self._header_line = json.dumps({"columns": columns}).encode()
        self._flush_seconds, self._rotate_seconds = flush_seconds, rotate_seconds
        self._keep_days = [] if keep_days is None else [str(keep_days)]
        self._queue: deque[tuple[int, bytes]] = deque()  # rows, and their lines with breaks between
        self._rows = self._bytes = 0  # of the queue, and of what is being written
        self._count_lock = threading.Lock()
        self._file: int | None = None
        self._lock: FileLock | None = None
        self._opened_at = 0.0
        self._size = 0
        # Whether there is something to compact, and the last time
        self._must_compact, self._compacted_at = True, 0.0
        self._compactors: list[subprocess.Popen[bytes]] = []
        self._write_lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._reported = ""
        with suppress(OSError):  # `flush` tries again, and says why it cannot
            folder.mkdir(parents=True, exist_ok=True)
        self._compact()
        self._thread = threading.Thread(target=self._run, name="prediction log", daemon=True)
        self._thread.start()

    def append(self, lines: bytes) -> None:
        """Take one JSON line, or several with breaks between them; beyond 24 MB the oldest rows go."""
        rows = lines.count(b"\n") + 1
        with self._count_lock:
            self._queue.append((rows, lines))
            self._rows += rows
            self._bytes += len(lines)
            if self._bytes > MAX_QUEUED_BYTES:
                self._drop()
        if self._bytes > EARLY_BYTES:
            self._wake.set()

    def waiting(self) -> int:
        """Rows that are not written yet."""
        return self._rows

    def flush(self) -> None:
        """Write what waits. When the disk refuses, the rows are kept and `error` says why."""
        with self._write_lock:
            while True:
                with self._count_lock:
                    batch = self._take_batch()
                if not batch:
                    return
                try:
                    self._append_lines([lines for _, lines in batch])
                except Exception as error:  # whatever it is, the rows are not written
                    with self._count_lock:
                        self._queue.extendleft(reversed(batch))
                    self._report(error)
                    return
                with self._count_lock:
                    self._rows -= sum(rows for rows, _ in batch)
                    self._bytes -= sum(len(lines) for _, lines in batch)
                self._report(None)

    def stop(self) -> None:
        """Write what waits and begin to leave Parquet; `close` waits for it."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        self.flush()
        with self._write_lock:
            self._close_file()
        if self._rows:
            lost = {"folder": str(self.folder), "rows": self._rows, "reason": self.error}
            log.error("log rows lost: the service stopped before they could be written", extra=lost)
        for process in self._compactors:  # one that looks at this file already has it
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
        self._compact()

    def close(self, seconds: float = 10.0) -> None:
        """Write what waits and leave Parquet; what takes longer goes on by itself."""
        if not self._stopping:
            self.stop()
        deadline = time.monotonic() + seconds
        for process in self._compactors:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))

    def _drop(self) -> None:
        """Let the oldest rows go until the others have room; some may be on their way to the disk."""
        while self._bytes > MAX_QUEUED_BYTES and self._queue:
            rows, lines = self._queue.popleft()
            self._rows -= rows
            self._bytes -= len(lines)
            self.lost += rows

    def _take_batch(self) -> list[tuple[int, bytes]]:
        """The oldest rows of the queue, few enough to be copied."""
        batch, size = [], 0
        while self._queue and size <= EARLY_BYTES:
            batch.append(self._queue.popleft())
            size += len(batch[-1][1])
        return batch

    def _append_lines(self, lines: list[bytes]) -> None:
        """Append to the open file all of these, or nothing.

        Raises:
            OSError: as the disk, or the system, has it.
        """
        if self._file is None:
            self._open_file()
        assert self._file is not None
        try:
            _write_whole(self._file, b"\n".join([*lines, b""]))
            self._size = os.fstat(self._file).st_size
        except BaseException:
            try:
                os.ftruncate(self._file, self._size)  # not half a line in the middle
            except OSError:
                self._close_file()  # the next rows go to another file
            raise

    def _report(self, error: Exception | None) -> None:
        """Keep what is wrong, and log it when it is something else than before."""
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        self.error = f"{self.folder}: {reason}" if error else ""
        if self.error == self._reported:
            return
        self._reported = self.error
        if error:
            details = {"folder": str(self.folder), "reason": reason}
            log.error("log not written, its rows wait", extra=details)
        else:
            log.info("log written again", extra={"folder": str(self.folder), "lost": self.lost})

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self._flush_seconds)
            self._wake.clear()
            try:
                self.flush()
                full = time.monotonic() - self._opened_at > self._rotate_seconds
                if self._file is not None and full:
                    with self._write_lock:
                        self._close_file()
                    self._must_compact = True
                if self._must_compact or time.monotonic() - self._compacted_at > TIDY_SECONDS:
                    self._compact()
            except Exception:  # a thread that dies would end the log
                log.exception("the log's thread failed, and goes on")
            if self.error:  # many rows wake it at once; a full disk need not be asked that often
                threading.Event().wait(min(self._flush_seconds, 0.5))

    def _open_file(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime(STAMP_FORMAT, time.gmtime())
        path = self.folder / f"{stamp}-{os.getpid()}-{time.monotonic_ns() % 10**9:09d}.wal"
        lock = _lock_of(path)
        # Windows would write a line's end as two characters
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        file = None
        try:
            lock.acquire()  # before there is a file that one who tidies up could take
            file = os.open(path, flags, 0o644)
            _write_whole(file, self._header_line + b"\n")
            self._size = os.fstat(file).st_size
        except BaseException:  # a full disk is asked again soon, and need not fill up with these
            if file is not None:
                os.close(file)
            for leftover in (path, path.with_suffix(".lock")):
                with suppress(OSError):
                    leftover.unlink(missing_ok=True)
            lock.release(force=True)
            raise
        self._file, self._lock, self._opened_at = file, lock, time.monotonic()

    def _close_file(self) -> None:
        file, self._file = self._file, None
        lock, self._lock = self._lock, None
        try:
            if file is not None:
                os.close(file)
        finally:
            if lock is not None:
                lock.release(force=True)

    def _compact(self) -> None:
        """Start a process that turns closed files into Parquet; it is tried again when there is none."""
        self._compactors = [process for process in self._compactors if process.poll() is None]
        self._must_compact = True
        if self._compactors and not self._stopping:  # one at a time; the last one looks at all
            return
        # A process of its own: neither its memory nor its work is the service's
        command = [sys.executable, "-m", __name__, str(self.folder), *self._keep_days]
        try:
            self._compactors.append(subprocess.Popen(command))
            self._must_compact, self._compacted_at = False, time.monotonic()
        except Exception as error:  # no process, memory or descriptor to be had
            self._report(error)


def _write_whole(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


def _lock_of(path: Path) -> FileLock:
    """Taken in one thread and given back in another; a `.wal`'s name is never used again."""
    return FileLock(path.with_suffix(".lock"), timeout=0, thread_local=False)


def compact(folder: Path, keep_days: float | None = None) -> int:
    """Turn every `.wal` file that nobody writes to into Parquet; returns how many.

    A line that a crash cut short is left out: its answer was sent less than `flush_seconds` before.
    What else cannot be read is set aside. Older files than `keep_days` are deleted.
    """
    files = 0
    for path in sorted(folder.glob("*.wal")):
        lock = _lock_of(path)
        try:
            with lock:
                if path.exists():  # or another process was quicker
                    files += _compact_file(path)
                with suppress(PermissionError):  # as Windows says of a file that is open
                    Path(lock.lock_file).unlink(missing_ok=True)
        except Timeout:
            continue
        except Exception as error:  # of this file; the next turn tries it again
            reason = " ".join(str(error).split())[:200]
            _print_error(path, "log file not made Parquet yet", reason)
    _delete_old(folder, keep_days)
    return files


def _compact_file(path: Path) -> bool:
    """Turn one file into Parquet, or set it aside; returns whether it had rows."""
    import duckdb

    fresh = path.with_name(f"{path.stem}.{os.getpid()}.new")  # two never write the same one
    if path.is_dir():
        set_aside(path, "it is a folder")
        return False
    with path.open("rb") as file:
        head = file.read(1 << 16)
    if b"\n" not in head and b'{"columns": '.startswith(head[:12]):
        path.unlink()  # cut short before its first row
        return False
    lost = 0
    try:
        with duckdb.connect(config={"threads": 1, "memory_limit": "512MB"}) as sql:
            lost = to_parquet(sql, path, fresh)
        fresh.replace(path.with_suffix(".parquet"))
    except Damaged as error:
        fresh.unlink(missing_ok=True)
        _print_error(path, "log file set aside", str(error))
        set_aside(path, str(error))
        return False
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    if lost:
        reason = f"{lost} lines are no records; the others are kept as Parquet"
        _print_error(path, "log file set aside", reason)
        set_aside(path, "they are no records", lost)
    else:
        path.unlink()
    return True


def _print_error(path: Path, message: str, reason: str) -> None:
    """A line beside the service's own, of the same form."""
    line = {"level": "error", "message": message, "file": str(path), "reason": reason}
    print(json.dumps(line), file=sys.stderr)


def _delete_old(folder: Path, keep_days: float | None) -> None:
    """Delete what crashes left, and what is older than it is to be kept."""
    now = datetime.now(UTC).replace(tzinfo=None)
    for path in folder.glob("*.new"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                path.unlink()
    for path in folder.glob("*.lock"):
        _delete_lock(path)
    for path in folder.glob("*.parquet") if keep_days is not None else ():
        if (match := FILE_NAME.fullmatch(path.name)) and keep_days is not None:
            with suppress(OSError, ValueError):
                if now - datetime.strptime(match[1], STAMP_FORMAT) > timedelta(days=keep_days):
                    path.unlink()


def _delete_lock(path: Path) -> None:
    """Delete a lock that belongs to no file, unless its owner is about to make the file."""
    if path.with_suffix(".wal").exists():
        return
    with suppress(OSError, Timeout), _lock_of(path):
        if not path.with_suffix(".wal").exists():
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    if sys.platform != "win32":
        os.nice(10)
    compact(Path(sys.argv[1]), float(sys.argv[2]) if sys.argv[2:] else None)
