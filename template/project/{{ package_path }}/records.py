"""The logs: their folders, their columns, and their one reader.

A log is a folder of Parquet files, and of `.wal` files that are still being written or not Parquet yet:
JSON lines, the first of which names the columns. What cannot be read is left out and named. A file that
nobody writes to any more is moved to `damaged/` in its folder, where `why.jsonl` says what is wrong.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .paths import FEEDBACK, MONITORING, PREDICTIONS, REVIEW
from .problem import DECISION_TYPE, WIDE

if TYPE_CHECKING:
    import duckdb
    import numpy as np

FOLDERS = (PREDICTIONS, FEEDBACK, REVIEW)
DAMAGED, WHY = "damaged", "why.jsonl"
# Column -> SQL type. Those of the answered row itself follow, as the schema types them
ANSWER = {
    **{"_id": "VARCHAR", "_time": "TIMESTAMP", "_arm": "VARCHAR", "_propensity": "DOUBLE"},
    **{"_assigned": "BOOLEAN", "_answered": "BOOLEAN", "_score": "DOUBLE", "_decision": "DOUBLE"},
    **{"_decision_propensity": "DOUBLE", "_explored": "BOOLEAN", "_confidence": "DOUBLE"},
    **{"_low": "DOUBLE", "_high": "DOUBLE", "_fallback": "VARCHAR", "_flags": "VARCHAR[]"},
    **{"_latency_ms": "DOUBLE", "_model": "VARCHAR", "_data": "VARCHAR", "_code": "VARCHAR"},
    **{"_experiment": "VARCHAR", "_request": "VARCHAR"},
    "_decision": DECISION_TYPE,
    **({"_scores": "DOUBLE[]"} if WIDE else {}),  # one for each class, `_score` is the decision's
}
SCORE_COLUMN = "_scores" if WIDE else "_score"  # the column that decisions are made from
LABEL = {"_id": "VARCHAR", "_time": "TIMESTAMP", "_label": "VARCHAR", "_reward": "DOUBLE"}
WHY_REVIEWED = {"_why": "VARCHAR"}  # what the queue for people has beside an answer's columns
KEYS = ("_id", "_time")  # every row of every log has them
NUMBERS = {"DOUBLE", "FLOAT", "BIGINT", "INTEGER", "SMALLINT", "TINYINT", "HUGEINT"}
NUMBERS |= {f"U{one}" for one in NUMBERS if one.endswith("INT") or one == "INTEGER"}
LONGEST = 16_000_000  # bytes of a line; a longer one is none of ours
TRIES = 5  # when files come and go while they are read


@dataclass(frozen=True)
class Unreadable:
    """A file of a log that is left out, or of which `lines` lines are (0: all of it)."""

    file: str
    why: str
    lines: int = 0

    def __str__(self) -> str:
        what = f"{self.lines:,} line{'s' * (self.lines != 1)}" if self.lines else "all"
        return f"{self.file}: {what} left out: {self.why}"


@contextmanager
def database(root: Path, **config: Any) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory, with a folder for what does not fit and for copies of open files."""
    import duckdb

    beside = root / MONITORING  # where there is room for the log, there is for this
    with (
        tempfile.TemporaryDirectory(
            prefix=".reading-", dir=beside if os.access(beside, os.W_OK) else None
        ) as scratch,
        duckdb.connect(config={**config, "temp_directory": scratch}) as sql,
    ):
        sql.execute("SET TimeZone = 'UTC'")
        yield sql


def settled(work: Callable[[], Any], *folders: Path) -> Any:
    """What `work` makes of logs, begun anew when a file turned out to be damaged or went away meanwhile.

    Raises:
        Exception: what `work` raised, when no file of these folders is the cause.
    """
    for place in range(TRIES):
        before = _there(folders)
        try:
            return work()
        except Exception:  # of a damaged page, the database has many kinds
            moved = [one for folder in folders for one in _checked(folder)]
            if place == TRIES - 1 or (not moved and _there(folders) == before):
                raise
    raise AssertionError  # the last turn returns or raises


def _there(folders: Sequence[Path]) -> list[Path]:
    return sorted(path for folder in folders for path in folder.glob("*.*"))


def view(
    sql: duckdb.DuckDBPyConnection,
    name: str,
    folder: Path,
    columns: Mapping[str, str],
    unreadable: list[Unreadable],
    others: bool = False,
) -> bool:
    """Create a view of a log in which each row that was written stands once, while others write on.

    Args:
        sql: from `database`.
        columns: column -> type, which the view has whatever the files hold: NULL where a file has
            no such column, or a value that is of another type.
        unreadable: takes what is left out, now and before.
        others: also every other column; of several types, numbers are DOUBLE, all else is VARCHAR.

    Returns:
        whether the log has a file.
    """
    unreadable.extend(_known(folder))
    try:
        opened = _listed(folder, ".wal")  # first: what is gone by the next line is Parquet then
        closed = _listed(folder, ".parquet")
    except OSError as error:
        unreadable.append(Unreadable(folder.name, _line(error)))
        opened, closed = [], []
    fresh = []
    for path in opened:
        done = path.with_suffix(".parquet")
        if done in closed:
            continue
        try:
            fresh.append(_snapshot(sql, path, unreadable))
        except FileNotFoundError:
            closed += [done] if done.exists() else []
        except Exception as error:
            if not _of_file(error):
                raise
            unreadable.append(_left_out(path, _line(error)))
    groups = [*_groups(sql, folder, closed, unreadable), *_groups(sql, folder, fresh, unreadable)]
    types = _types([found for found, _ in groups], columns) if others else dict(columns)
    # Gives its type to each column that no file has
    empty = ", ".join(f"CAST(NULL AS {kind}) AS {_quoted(one)}" for one, kind in types.items())
    parts = [f"SELECT {empty} WHERE false"]
    for found, files in groups:
        picked = ", ".join(
            f"{_as(one, found[one], kind)} AS {_quoted(one)}"
            for one, kind in types.items()
            if one in found
        )
        parts.append(f"SELECT {picked} FROM {_parquet(files)}")
    sql.execute(f"CREATE OR REPLACE VIEW {name} AS {' UNION ALL BY NAME '.join(parts)}")
    return bool(groups)


def score_array(values: Any) -> np.ndarray:
    """Logged scores, as a column of `SCORE_COLUMN` holds them, NaN where one is missing: shape (n,), or (n,
    classes)."""
    import numpy as np

    if not WIDE:
        return np.asarray(values, np.float64)
    known = [row for row in values if isinstance(row, (list, np.ndarray))]
    width = max(map(len, known), default=1)
    nothing = np.full(width, np.nan)
    rows = [
        row if isinstance(row, (list, np.ndarray)) and len(row) == width else nothing
        for row in values
    ]
    return np.array(rows, np.float64).reshape(-1, width)


class Damaged(Exception):
    """A file that is not what its name says; its text is one line."""


def _types(groups: Sequence[Mapping[str, str]], columns: Mapping[str, str]) -> dict[str, str]:
    """One type for each column of all files."""
    kinds: dict[str, set[str]] = {}
    for found in groups:
        for one, kind in found.items():
            kinds.setdefault(one, set()).add(kind)
    types = dict(columns)
    for one, given in kinds.items():
        same = given.pop() if len(given) == 1 else "DOUBLE" if given <= NUMBERS else "VARCHAR"
        types.setdefault(one, same)
    return types


def _as(column: str, found: str, wanted: str) -> str:
    """SQL for a column of a file as the type that is wanted."""
    return _quoted(column) if found == wanted else f"TRY_CAST({_quoted(column)} AS {wanted})"


def _groups(
    sql: duckdb.DuckDBPyConnection,
    folder: Path,
    files: Sequence[Path],
    unreadable: list[Unreadable],
) -> list[tuple[dict[str, str], list[str]]]:
    """Parquet files with the same columns, and these; others are set aside."""
    import duckdb

    whole = []
    for path in files:
        try:
            _looks_whole(path)
            whole.append(str(path))
        except Exception as error:
            unreadable.extend(_set_aside(path, error))
    if not whole:
        return []
    try:
        groups = _by_columns(sql, whole)
    except duckdb.Error:  # which of them it is, the database does not always say
        groups = []
        for file in whole:
            try:
                groups += _by_columns(sql, [file])
            except Exception as error:
                unreadable.extend(_set_aside(Path(file), error))
    kept = []
    for columns, names in groups:
        if lacks := [key for key in KEYS if key not in columns]:
            for file in names:
                unreadable.extend(_set_aside(Path(file), Damaged(f"it has no {lacks[0]}")))
        elif names := _keyed(sql, columns, names, unreadable):
            kept.append((columns, names))
    return kept


def _looks_whole(path: Path) -> None:
    """Look at both ends of a Parquet file, which costs less than its footer.

    Raises:
        Damaged: when one of them is not what it should be; OSError: when it cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(4)
        file.seek(max(0, size - 4))
        if size < 12 or head != b"PAR1" or file.read(4) != b"PAR1":
            raise Damaged("it is empty" if not size else "it is not Parquet, or only a part of it")


def _by_columns(
    sql: duckdb.DuckDBPyConnection, files: list[str]
) -> list[tuple[dict[str, str], list[str]]]:
    found = sql.execute(
        "SELECT shape, list(file_name ORDER BY file_name) FROM (SELECT file_name, list(one ORDER BY place) AS "
        "shape FROM (SELECT file_name, row_number() OVER () AS place, struct_pack(name := name, kind := "
        "duckdb_type, below := coalesce(num_children, 0)) AS one FROM parquet_schema(?)) GROUP BY "
        "file_name) GROUP BY shape ORDER BY 2",
        [files],
    ).fetchall()
    groups = []
    for shape, names in found:
        columns, at = (
            {},
            1,
        )  # the first entry is the table itself; a column is followed by its parts
        while at < len(shape):
            columns[shape[at]["name"]] = shape[at]["kind"]
            left = 1
            while left and at < len(shape):
                left += shape[at]["below"] - 1
                at += 1
        groups.append((columns, names))
    return groups


def _keyed(
    sql: duckdb.DuckDBPyConnection,
    columns: Mapping[str, str],
    files: list[str],
    unreadable: list[Unreadable],
) -> list[str]:
    """Those of the files whose rows have a moment that is one; the others are set aside."""
    if columns["_time"] == ANSWER["_time"]:
        return files
    moment = _as("_time", columns["_time"], ANSWER["_time"])
    kept = []
    for file in files:
        ((rows, wrong),) = sql.execute(
            f"SELECT count(*), count_if({moment} IS NULL) FROM {_parquet([file])}"
        ).fetchall()
        if wrong and wrong == rows:
            unreadable.extend(_set_aside(Path(file), Damaged("its _time is no time")))
            continue
        if wrong:
            unreadable.append(_left_out(Path(file), "their _time is no time", wrong))
        kept.append(file)
    return kept


# Files that are not Parquet yet


def _snapshot(sql: duckdb.DuckDBPyConnection, path: Path, unreadable: list[Unreadable]) -> Path:
    """A `.wal` file as it is now, as Parquet in the database's own folder.

    Raises:
        FileNotFoundError: when it became Parquet meanwhile; Damaged: when it is no log.
    """
    ((scratch,),) = sql.execute("SELECT current_setting('temp_directory')").fetchall()
    copy = Path(scratch) / f"{path.parent.name}-{path.name}"
    with path.open("rb") as source, copy.open("wb") as target:
        while block := source.read(1 << 20):
            target.write(block)
    done = copy.with_suffix(".parquet")
    lost = to_parquet(sql, copy, done)
    copy.unlink()
    if lost:
        unreadable.append(_left_out(path, "they are no records", lost))
    return done


def to_parquet(sql: duckdb.DuckDBPyConnection, source: Path, target: Path) -> int:
    """Write the records of a `.wal` file as Parquet; returns how many of its lines are none.

    A last line without an end is one that a crash, or the moment, cut short: no record was promised.

    Raises:
        Damaged: when its first line does not say what the others hold.
    """
    import duckdb

    with source.open("rb") as file:
        head = file.readline(LONGEST)
    try:
        columns = json.loads(head)["columns"]
        named = ", ".join(f"{_text(one)}: {_text(kind)}" for one, kind in columns.items())
        types = "{" + named + "}"
        key = _quoted(next(iter(columns)))
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError):
        raise Damaged("its first line does not name the columns") from None
    lines = _count(source)

    def write(file: Path) -> int:
        ((rows,),) = sql.execute(
            f"COPY (SELECT * FROM read_json({_text(str(file))}, columns = {types}, ignore_errors = "
            f"true, format = 'newline_delimited') WHERE {key} IS NOT NULL) TO {_text(str(target))} "
            "(FORMAT parquet, COMPRESSION zstd)"
        ).fetchall()
        return int(rows)

    try:
        return max(0, lines - write(source))
    except (duckdb.CatalogException, duckdb.ParserException, duckdb.BinderException):
        raise Damaged("its first line names columns of no known type") from None
    except duckdb.Error as error:  # a line that it does not get over: one without an end in sight
        if not _of_file(error):
            raise
        clean = target.with_name(f"{target.name}.clean")
        try:
            _clean(source, clean)
            return max(0, lines - write(clean))
        except duckdb.Error as error:
            if not _of_file(error):
                raise
            raise Damaged(_line(error)) from None
        finally:
            clean.unlink(missing_ok=True)


def _count(path: Path) -> int:
    """Lines behind the first one that should be records."""
    lines, tail = -1, b""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            lines += block.count(b"\n")
            tail = (b"" if b"\n" in block else tail[:LONGEST]) + block[block.rfind(b"\n") + 1 :]
    # What a power cut leaves is zeros
    return lines + (tail.startswith(b"\0") or _record(tail))


def _record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode()), dict)
    except (ValueError, RecursionError):
        return False


def _clean(source: Path, target: Path) -> None:
    """Copy the first line and those that are records."""
    with source.open("rb") as file, target.open("wb") as kept:
        kept.write(file.readline())
        while line := file.readline(LONGEST):
            if line.endswith(b"\n") and _record(line):
                kept.write(line)
            while not line.endswith(b"\n") and (line := file.readline(LONGEST)):
                pass  # the rest of one that is too long


# What is set aside


def _set_aside(path: Path, error: Exception) -> list[Unreadable]:
    """Move a file that nobody writes to out of its log; nothing to tell when it is gone.

    Raises:
        Exception: the error itself, when it is not the file's.
    """
    if not path.exists() and not path.is_symlink():
        return []
    if not _of_file(error):
        raise error
    why = _line(error)
    if not isinstance(error, OSError) or path.is_dir() or path.is_symlink():
        with suppress(OSError):
            set_aside(path, why)
    return [_left_out(path, why)]


def _of_file(error: Exception) -> bool:
    """Whether a file is what is wrong, and not the memory, the disk or the limits of this process."""
    import duckdb

    if isinstance(error, OSError):  # what may be whole is not moved: it may be another user's
        return error.errno in (
            errno.EACCES,
            errno.EPERM,
            errno.EISDIR,
            errno.ELOOP,
            errno.EIO,
            errno.ENOENT,
        )
    if isinstance(error, duckdb.IOException):
        return "enough bytes" in str(error)
    kinds = (
        duckdb.InvalidInputException,
        duckdb.ConversionException,
        duckdb.SerializationException,
    )
    # A damaged page is told as an error of no kind; a query that is wrong is not the file's fault
    return isinstance(error, (Damaged, UnicodeError, *kinds)) or type(error) is duckdb.Error


def set_aside(path: Path, why: str, lines: int = 0) -> None:
    """Move a file of a log, or what stands under its name, to `damaged/`, and write down why.

    Args:
        lines: of it that cannot be read; the others are kept elsewhere. 0: all of it.
    """
    folder = path.parent / DAMAGED
    folder.mkdir(exist_ok=True)
    target = folder / path.name
    if target.exists() or target.is_symlink():
        target = folder / f"{path.stem}-{time.time_ns()}{path.suffix}"
    path.rename(target)
    told = {"file": target.name, "why": why, "lines": lines, "at": time.time()}
    with (folder / WHY).open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(told) + "\n")


def _known(folder: Path) -> list[Unreadable]:
    """What was set aside before and is still there."""
    told = {}
    with (
        suppress(OSError),
        (folder / DAMAGED / WHY).open(encoding="utf-8", errors="replace") as file,
    ):
        for line in file:
            with suppress(ValueError, KeyError, TypeError):
                one = json.loads(line)
                told[one["file"]] = str(one["why"]), int(one["lines"])
    with suppress(OSError):
        there = sorted(one.name for one in (folder / DAMAGED).iterdir() if one.name != WHY)
        return [
            _left_out(folder / name, *told.get(name, ("it was set aside", 0))) for name in there
        ]
    return []


def _checked(folder: Path) -> list[Unreadable]:
    """Read every Parquet file to its last value, and set aside what cannot be."""
    import duckdb

    moved: list[Unreadable] = []
    for path in sorted(folder.glob("*.parquet")):
        try:
            _looks_whole(path)
            with duckdb.connect(config={"memory_limit": "600MB"}) as sql:
                rows = f"FROM read_parquet({_text(str(path))})"
                sql.execute(f"SELECT bit_xor(hash(COLUMNS(*))) {rows}").fetchall()
        except Exception as error:
            with suppress(Exception):  # not the file's: `settled` raises what began this
                moved += _set_aside(path, error)
    return [one for one in moved if (folder / DAMAGED / Path(one.file).name).exists()]


def _left_out(path: Path, why: str, lines: int = 0) -> Unreadable:
    return Unreadable(f"{path.parent.name}/{path.name}", why, lines)


def _listed(folder: Path, suffix: str) -> list[Path]:
    """The files of a log, which has none yet where its folder is not there.

    Raises:
        OSError: when the folder cannot be read; `Path.glob` would call it empty.
    """
    with suppress(FileNotFoundError):
        return sorted(folder / name for name in os.listdir(folder) if name.endswith(suffix))
    return []


def _line(error: Exception) -> str:
    """What an error says, in one line and without the words of a library."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, Damaged):
        return str(error)
    return "its content is damaged"


def _parquet(files: Sequence[str]) -> str:
    return f"read_parquet([{', '.join(map(_text, files))}])"


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
