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
from .problem import DECISION_TYPE, REASONS, WIDE

if TYPE_CHECKING:
    import duckdb
    import numpy as np

FOLDERS = (PREDICTIONS, FEEDBACK, REVIEW)
DAMAGED, REASONS_FILE = "damaged", "why.jsonl"
# Column -> SQL type. Those of the answered row itself follow, as the schema types them
ANSWER = {
    **{"_id": "VARCHAR", "_time": "TIMESTAMP", "_arm": "VARCHAR", "_propensity": "DOUBLE"},
    **{"_assigned": "BOOLEAN", "_answered": "BOOLEAN", "_score": "DOUBLE", "_decision": "DOUBLE"},
    **{"_decision_propensity": "DOUBLE", "_explored": "BOOLEAN", "_confidence": "DOUBLE"},
    **{"_low": "DOUBLE", "_high": "DOUBLE", "_fallback": "VARCHAR", "_flags": "VARCHAR[]"},
    **{"_latency_ms": "DOUBLE", "_model": "VARCHAR", "_data": "VARCHAR", "_code": "VARCHAR"},
    **{"_experiment": "VARCHAR", "_request": "VARCHAR", "_rule": "VARCHAR"},
    "_decision": DECISION_TYPE,
    **({"_scores": "DOUBLE[]"} if WIDE else {}),  # one for each class, `_score` is the decision's
    **({"_reasons": "VARCHAR[]"} if REASONS else {}),  # the columns that stand out
}
STAMP_FORMAT = "%Y%m%dT%H%M%S"  # with which the name of a batch of records begins
SCORE_COLUMN = "_scores" if WIDE else "_score"  # the column that decisions are made from
LABEL = {"_id": "VARCHAR", "_time": "TIMESTAMP", "_label": "VARCHAR", "_reward": "DOUBLE"}
WHY_REVIEWED = {"_why": "VARCHAR"}  # what the queue for people has beside an answer's columns
# In `_fallback`, where no model failed: people took the row out of the models' hands
STOPPED, EXCLUDED = WITHHELD = ("stopped", "excluded")
KEY_COLUMNS = ("_id", "_time")  # every row of every log has them
NUMERIC_TYPES = {"DOUBLE", "FLOAT", "BIGINT", "INTEGER", "SMALLINT", "TINYINT", "HUGEINT"}
NUMERIC_TYPES |= {f"U{n}" for n in NUMERIC_TYPES if n.endswith("INT") or n == "INTEGER"}
MAX_LINE = 16_000_000  # bytes of a line; a longer one is none of ours
MAX_TRIES = 5  # when files come and go while they are read
FILE_ERRNOS = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.EIO, errno.ENOENT)


@dataclass(frozen=True)
class Unreadable:
    """A file of a log that is left out, or of which `lines` lines are (0: all of it)."""

    file: str
    why: str
    lines: int = 0

    def __str__(self) -> str:
        amount = f"{self.lines:,} line{'s' * (self.lines != 1)}" if self.lines else "all"
        return f"{self.file}: {amount} left out: {self.why}"


@contextmanager
def database(root: Path, **config: Any) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory, with a folder for what does not fit and for copies of open files."""
    import duckdb

    folder = root / MONITORING  # where there is room for the log, there is for this
    with (
        tempfile.TemporaryDirectory(
            prefix=".reading-", dir=folder if os.access(folder, os.W_OK) else None
        ) as scratch,
        duckdb.connect(config={**config, "temp_directory": scratch}) as sql,
    ):
        sql.execute("SET TimeZone = 'UTC'")
        yield sql


def retry_reading(work: Callable[[], Any], *folders: Path) -> Any:
    """What `work` makes of logs, begun anew when a file turned out to be damaged or went away meanwhile.

    Args:
        folders: of the logs that `work` reads.

    Raises:
        Exception: what `work` raised, when no file of these folders is the cause.
    """
    for attempt in range(MAX_TRIES):
        files_before = _files(folders)
        try:
            return work()
        except Exception:  # of a damaged page, the database has many kinds
            damaged = [file for folder in folders for file in _set_aside_unreadable(folder)]
            if attempt == MAX_TRIES - 1 or (not damaged and _files(folders) == files_before):
                raise
    raise AssertionError  # the last turn returns or raises


def _files(folders: Sequence[Path]) -> list[Path]:
    return sorted(path for folder in folders for path in folder.glob("*.*"))


def view(
    sql: duckdb.DuckDBPyConnection,
    name: str,
    folder: Path,
    columns: Mapping[str, str],
    unreadable: list[Unreadable],
    all_columns: bool = False,
) -> bool:
    """Create a view of a log in which each row that was written stands once, while others write on.

    Args:
        sql: from `database`.
        columns: column -> type, which the view has whatever the files hold: NULL where a file has
            no such column, or a value that is of another type.
        unreadable: takes what is left out, now and before.
        all_columns: also every other column; of several types, numbers are DOUBLE, all else is VARCHAR.

    Returns:
        whether the log has a file.
    """
    unreadable.extend(_already_set_aside(folder))
    try:
        opened = _list_files(folder, ".wal")  # first: what is gone by the next line is Parquet then
        closed = _list_files(folder, ".parquet")
    except OSError as error:
        unreadable.append(Unreadable(folder.name, _reason(error)))
        opened, closed = [], []
    fresh = []
    for path in opened:
        parquet = path.with_suffix(".parquet")
        if parquet in closed:
            continue
        try:
            fresh.append(_snapshot(sql, path, unreadable))
        except FileNotFoundError:
            closed += [parquet] if parquet.exists() else []
        except Exception as error:
            if not _blames_file(error):
                raise
            unreadable.append(_left_out(path, _reason(error)))
    groups = [*_groups(sql, folder, closed, unreadable), *_groups(sql, folder, fresh, unreadable)]
    types = _types([group[0] for group in groups], columns) if all_columns else dict(columns)
    # Gives its type to each column that no file has
    nulls = ", ".join(f"CAST(NULL AS {kind}) AS {_quoted(name)}" for name, kind in types.items())
    parts = [f"SELECT {nulls} WHERE false"]
    for file_columns, files in groups:
        selected = ", ".join(
            f"{_cast(column, file_columns[column], kind)} AS {_quoted(column)}"
            for column, kind in types.items()
            if column in file_columns
        )
        parts.append(f"SELECT {selected} FROM {_read_parquet(files)}")
    sql.execute(f"CREATE OR REPLACE VIEW {name} AS {' UNION ALL BY NAME '.join(parts)}")
    return bool(groups)


def score_array(values: Any) -> np.ndarray:
    """Logged scores, as a column of `SCORE_COLUMN` holds them, NaN where one is missing: shape (n,), or (n,
    classes)."""
    import numpy as np

    if not WIDE:
        return np.asarray(values, np.float64)
    present = [row for row in values if isinstance(row, (list, np.ndarray))]
    width = max(map(len, present), default=1)
    missing = np.full(width, np.nan)
    rows = [
        row if isinstance(row, (list, np.ndarray)) and len(row) == width else missing
        for row in values
    ]
    return np.array(rows, np.float64).reshape(-1, width)


class Damaged(Exception):
    """A file that is not what its name says; its text is one line."""


def _types(groups: Sequence[Mapping[str, str]], columns: Mapping[str, str]) -> dict[str, str]:
    """One type for each column of all files."""
    kinds: dict[str, set[str]] = {}
    for file_columns in groups:
        for column, kind in file_columns.items():
            kinds.setdefault(column, set()).add(kind)
    types = dict(columns)
    for column, types_ in kinds.items():
        wider = "DOUBLE" if types_ <= NUMERIC_TYPES else "VARCHAR"
        types.setdefault(column, types_.pop() if len(types_) == 1 else wider)
    return types


def _cast(column: str, kind: str, target: str) -> str:
    """SQL for a column of a file as the type that is wanted."""
    return _quoted(column) if kind == target else f"TRY_CAST({_quoted(column)} AS {target})"


def _groups(
    sql: duckdb.DuckDBPyConnection,
    folder: Path,
    files: Sequence[Path],
    unreadable: list[Unreadable],
) -> list[tuple[dict[str, str], list[str]]]:
    """Parquet files with the same columns, and these; others are set aside."""
    import duckdb

    intact = []
    for path in files:
        try:
            _check_ends(path)
            intact.append(str(path))
        except Exception as error:
            unreadable.extend(_quarantine(path, error))
    if not intact:
        return []
    try:
        groups = _group_by_columns(sql, intact)
    except duckdb.Error:  # which of them it is, the database does not always say
        groups = []
        for file in intact:
            try:
                groups += _group_by_columns(sql, [file])
            except Exception as error:
                unreadable.extend(_quarantine(Path(file), error))
    keyed = []
    for columns, names in groups:
        if missing := [key for key in KEY_COLUMNS if key not in columns]:
            for file in names:
                unreadable.extend(_quarantine(Path(file), Damaged(f"it has no {missing[0]}")))
        elif names := _with_time(sql, columns, names, unreadable):
            keyed.append((columns, names))
    return keyed


def _check_ends(path: Path) -> None:
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


def _group_by_columns(
    sql: duckdb.DuckDBPyConnection, files: list[str]
) -> list[tuple[dict[str, str], list[str]]]:
    shapes = sql.execute(
        "SELECT shape, list(file_name ORDER BY file_name) FROM (SELECT file_name, list(entry ORDER BY position) AS "
        "shape FROM (SELECT file_name, row_number() OVER () AS position, struct_pack(name := name, kind := "
        "duckdb_type, below := coalesce(num_children, 0)) AS entry FROM parquet_schema(?)) GROUP BY "
        "file_name) GROUP BY shape ORDER BY 2",
        [files],
    ).fetchall()
    groups = []
    for shape, names in shapes:
        # The first entry is the table itself; a column is followed by its parts
        columns, position = {}, 1
        while position < len(shape):
            columns[shape[position]["name"]] = shape[position]["kind"]
            pending = 1
            while pending and position < len(shape):
                pending += shape[position]["below"] - 1
                position += 1
        groups.append((columns, names))
    return groups


def _with_time(
    sql: duckdb.DuckDBPyConnection,
    columns: Mapping[str, str],
    files: list[str],
    unreadable: list[Unreadable],
) -> list[str]:
    """Those of the files whose rows have a moment that is one; the others are set aside."""
    if columns["_time"] == ANSWER["_time"]:
        return files
    moment = _cast("_time", columns["_time"], ANSWER["_time"])
    usable = []
    for file in files:
        ((rows, bad_rows),) = sql.execute(
            f"SELECT count(*), count_if({moment} IS NULL) FROM {_read_parquet([file])}"
        ).fetchall()
        if bad_rows and bad_rows == rows:
            unreadable.extend(_quarantine(Path(file), Damaged("its _time is no time")))
            continue
        if bad_rows:
            unreadable.append(_left_out(Path(file), "their _time is no time", bad_rows))
        usable.append(file)
    return usable


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
    parquet = copy.with_suffix(".parquet")
    lost = to_parquet(sql, copy, parquet)
    copy.unlink()
    if lost:
        unreadable.append(_left_out(path, "they are no records", lost))
    return parquet


def to_parquet(sql: duckdb.DuckDBPyConnection, source: Path, target: Path) -> int:
    """Write the records of a `.wal` file as Parquet; returns how many of its lines are none.

    A last line without an end is one that a crash, or the moment, cut short: no record was promised.

    Raises:
        Damaged: when its first line does not say what the others hold.
    """
    import duckdb

    with source.open("rb") as file:
        head = file.readline(MAX_LINE)
    try:
        columns = json.loads(head)["columns"]
        fields = ", ".join(f"{_text(name)}: {_text(kind)}" for name, kind in columns.items())
        types = "{" + fields + "}"
        key = _quoted(next(iter(columns)))
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError):
        raise Damaged("its first line does not name the columns") from None
    lines = _count_lines(source)

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
        if not _blames_file(error):
            raise
        clean = target.with_name(f"{target.name}.clean")
        try:
            _copy_records(source, clean)
            return max(0, lines - write(clean))
        except duckdb.Error as error:
            if not _blames_file(error):
                raise
            raise Damaged(_reason(error)) from None
        finally:
            clean.unlink(missing_ok=True)


def _count_lines(path: Path) -> int:
    """Lines behind the first one that should be records."""
    lines, tail = -1, b""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            lines += block.count(b"\n")
            tail = (b"" if b"\n" in block else tail[:MAX_LINE]) + block[block.rfind(b"\n") + 1 :]
    # What a power cut leaves is zeros
    return lines + (tail.startswith(b"\0") or _is_record(tail))


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode()), dict)
    except (ValueError, RecursionError):
        return False


def _copy_records(source: Path, target: Path) -> None:
    """Copy the first line and those that are records."""
    with source.open("rb") as file, target.open("wb") as output:
        output.write(file.readline())
        while line := file.readline(MAX_LINE):
            if line.endswith(b"\n") and _is_record(line):
                output.write(line)
            while not line.endswith(b"\n") and (line := file.readline(MAX_LINE)):
                pass  # the rest of one that is too long


# What is set aside


def _quarantine(path: Path, error: Exception) -> list[Unreadable]:
    """Move a file that nobody writes to out of its log; nothing to tell when it is gone.

    Raises:
        Exception: the error itself, when it is not the file's.
    """
    if not path.exists() and not path.is_symlink():
        return []
    if not _blames_file(error):
        raise error
    why = _reason(error)
    if not isinstance(error, OSError) or path.is_dir() or path.is_symlink():
        with suppress(OSError):
            set_aside(path, why)
    return [_left_out(path, why)]


def _blames_file(error: Exception) -> bool:
    """Whether a file is what is wrong, and not the memory, the disk or the limits of this process."""
    import duckdb

    if isinstance(error, OSError):  # what may be whole is not moved: it may be another user's
        return error.errno in FILE_ERRNOS
    if isinstance(error, duckdb.IOException):
        return "enough bytes" in str(error)
    damage = (
        duckdb.InvalidInputException,
        duckdb.ConversionException,
        duckdb.SerializationException,
    )
    # A damaged page is told as an error of no kind; a query that is wrong is not the file's fault
    return isinstance(error, (Damaged, UnicodeError, *damage)) or type(error) is duckdb.Error


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
    record = {"file": target.name, "why": why, "lines": lines, "at": time.time()}
    with (folder / REASONS_FILE).open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(record) + "\n")


def _already_set_aside(folder: Path) -> list[Unreadable]:
    """What was set aside before and is still there."""
    reasons = {}
    path = folder / DAMAGED / REASONS_FILE
    with suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with suppress(ValueError, KeyError, TypeError):
                record = json.loads(line)
                reasons[record["file"]] = str(record["why"]), int(record["lines"])
    with suppress(OSError):
        names = sorted({path.name for path in (folder / DAMAGED).iterdir()} - {REASONS_FILE})
        unknown = ("it was set aside", 0)
        return [_left_out(folder / name, *reasons.get(name, unknown)) for name in names]
    return []


def _set_aside_unreadable(folder: Path) -> list[Unreadable]:
    """Read every Parquet file to its last value, and set aside what cannot be."""
    import duckdb

    moved: list[Unreadable] = []
    for path in sorted(folder.glob("*.parquet")):
        try:
            _check_ends(path)
            with duckdb.connect(config={"memory_limit": "600MB"}) as sql:
                rows = f"FROM read_parquet({_text(str(path))})"
                sql.execute(f"SELECT bit_xor(hash(COLUMNS(*))) {rows}").fetchall()
        except Exception as error:
            with suppress(Exception):  # not the file's: `retry_reading` raises what began this
                moved += _quarantine(path, error)
    return [item for item in moved if (folder / DAMAGED / Path(item.file).name).exists()]


def _left_out(path: Path, why: str, lines: int = 0) -> Unreadable:
    return Unreadable(f"{path.parent.name}/{path.name}", why, lines)


def _list_files(folder: Path, suffix: str) -> list[Path]:
    """The files of a log, which has none yet where its folder is not there.

    Raises:
        OSError: when the folder cannot be read; `Path.glob` would call it empty.
    """
    with suppress(FileNotFoundError):
        return sorted(folder / name for name in os.listdir(folder) if name.endswith(suffix))
    return []


def _reason(error: Exception) -> str:
    """What an error says, in one line and without the words of a library."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, Damaged):
        return str(error)
    return "its content is damaged"


def _read_parquet(files: Sequence[str]) -> str:
    return f"read_parquet([{', '.join(map(_text, files))}])"


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
