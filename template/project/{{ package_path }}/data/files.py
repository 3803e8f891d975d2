"""From a path as a user gives it to rows that the database reads: text, Parquet, JSON and sheets.

Parquet is read as it is. All else becomes delimited text first, if it is not, and is read as text,
so that the schema alone decides on types. No heading of a file ever stands in SQL: columns are `_0`,
`_1`, … by place, and `Rows.columns` says which heading is which.
"""

from __future__ import annotations

import bz2
import csv
import glob
import gzip
import json
import lzma
import os
import re
import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection as SQL

from ..settings import UserError, missing
from .schema import text

KINDS = "CSV, Parquet, JSON or Excel"
ENCODED = "it is not UTF-8 text; save it as UTF-8, e.g. `iconv -f {} -t UTF-8 FILE > utf8.csv`"
PACKED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
ZIP, OLE, PARQUET = b"PK", b"\xd0\xcf\x11\xe0", b"PAR1"
ENDINGS = {".csv", ".tsv", ".txt", ".psv", ".dat", ".parquet", ".json", ".jsonl", ".ndjson", ".xlsx",
           ".xlsm", ".xlsb", ".xls", ".ods", ".gz", ".bz2", ".xz", ".zip"}  # fmt: skip
# How files begin that hold no rows to read -> what they are, and the way out
OTHERS = {
    b"%PDF": "is a PDF; export the table that it shows as CSV",
    b"\x80\x03": "is a pickle, which may run code when it is opened; write it as Parquet",
    b"\x80\x04": "is a pickle, which may run code when it is opened; write it as Parquet",
    b"\x80\x05": "is a pickle, which may run code when it is opened; write it as Parquet",
    b"\x89PNG": "is a picture; give the table as CSV",
    b"\xff\xd8\xff": "is a picture; give the table as CSV",
    b"SQLite format 3": "is a SQLite database; set data.source.kind: sql, with attach and query",
    b"ARROW1": "is an Arrow file; write it as Parquet",
    b"FEA1": "is a Feather file; write it as Parquet",
    b"ORC": "is an ORC file; write it as Parquet",
    b"Obj\x01": "is an Avro file; write it as Parquet",
    b"\x89HDF": "is an HDF5 file; write it as Parquet",
    b"$FL2": "is an SPSS file; export it as CSV",
    b"<stata_dta>": "is a Stata file; export it as CSV",
    b"7z\xbc\xaf": "is packed by 7-Zip; unpack it first",
    b"Rar!": "is packed by RAR; unpack it first",
    b"\x28\xb5\x2f\xfd": "is packed by Zstandard; unpack it first: `zstd -d FILE`",
    b"{\\rtf": "is a document of a word processor; save the table as CSV",
    b"<!doctype": "is a web page, perhaps of a login, and no table; download the data itself",
    b"<html": "is a web page, perhaps of a login, and no table; download the data itself",
    b"<?xml": "is XML; export the table as CSV",
}
HEAD, MOST_HEAD = 2**18, 2**24  # bytes that a layout is told from: so many lines at least
FEWEST_LINES, MOST_LINES = 3, 200
DELIMITERS, REWRITTEN = ",;\t|^", ".rows.csv"
VALUE = re.compile(
    r"[-+]?[.,]?[0-9][0-9.,' ]*(e[-+]?[0-9]+)?%?|[0-9]{1,4}[-/.][0-9A-Za-z]{1,9}[-/.].*"
)
csv.field_size_limit(2**27)


@dataclass(frozen=True)
class Layout:
    """How a delimited text stands in its file.

    Attributes:
        skip: lines above the column names, or above the rows where there are none.
        headers: the names as the file has them; names: the same, each of them once.
    """

    delimiter: str
    quote: str
    escape: str
    skip: int
    header: bool
    headers: tuple[str, ...]
    names: tuple[str, ...] = ()
    strict: bool = True


@dataclass
class Rows:
    """What was opened.

    Attributes:
        query: SQL of the rows; their columns are named by place.
        columns: name -> (SQL name, type) in the order of the file.
        headers: the names as the file has them: empty ones and repeated ones too.
        named: whether the file has column names.
        notes: what its user should know.
    """

    query: str
    columns: dict[str, tuple[str, str]]
    headers: list[str]
    named: bool = True
    notes: list[str] = field(default_factory=list)
    files: int = 1


def opened(sql: SQL, paths: Iterable[str], root: Path, wanted: Collection[str] = ()) -> Rows:
    """The rows of files, directories and globs, one below the other; columns go together by name.

    What has to be unpacked or rewritten goes into the database's temporary directory.

    Args:
        root: what relative paths start from; a path with :// is the database's to fetch.
        wanted: columns that are looked for, by which a line of names is told from a title.

    Raises:
        UserError: for a path that is not there, and a file that cannot be read, with the way out.
    """
    ((folder,),) = sql.execute("SELECT current_setting('temp_directory')").fetchall()
    scratch, notes = Path(folder) / "files", []
    shutil.rmtree(scratch, ignore_errors=True)
    parquet: list[str] = []
    layouts: dict[Layout | None, list[str]] = {}
    listed = [file for path in paths for file in located(path, root)]
    for position, file in enumerate(listed):
        if "://" in file:
            plain, layout = file, None
            is_parquet = file.lower().split("?")[0].endswith(".parquet")
        else:
            ready, note = _plain(Path(file), scratch / str(position))
            notes += [f"{file}: {note}"] if note else []
            is_parquet = _begins(ready) == PARQUET
            layout = None if is_parquet else _layout(ready, file, wanted)
            plain = glob.escape(str(ready))
        (parquet if is_parquet else layouts.setdefault(layout, [])).append(plain)
    if parquet and layouts:
        raise UserError(f"{', '.join(listed):.200}: Parquet and other files together; use one kind")
    rows = _parquet(sql, parquet) if parquet else _texts(sql, layouts)
    return replace(rows, notes=notes, files=len(listed))


def located(path: str, root: Path) -> list[str]:
    """The files that a path, a directory or a glob means, in the order of their names.

    Raises:
        UserError: when there is none.
    """
    if "://" in path:
        return [path]
    whole = root / path
    if whole.is_dir():
        inside = sorted(path for path in whole.iterdir() if _given(path))
        if not inside:
            raise UserError(f"{path}: no file in this folder is {KINDS}")
        return [str(path) for path in inside]
    if whole.is_file():
        return [str(whole)]
    there = [file for file in sorted(glob.glob(str(whole), recursive=True)) if Path(file).is_file()]
    if not there:
        raise UserError(f"{path} is not here: give a {KINDS} file, a folder or a glob of them")
    return there


def _given(file: Path) -> bool:
    return (
        file.is_file() and file.suffix.lower() in ENDINGS and not file.name.startswith((".", "~"))
    )


def relative(path: str, root: Path) -> str:
    """A path as data.source.paths names it: from the project's folder where it lies in there.

    A link keeps its name, since what it leads to may change.
    """
    if "://" in path:
        return path
    full, base = Path(os.path.abspath(path)), root.resolve()
    if not full.is_relative_to(base) and full.resolve().is_relative_to(base):
        full = full.resolve()
    shown = (full.relative_to(base) if full.is_relative_to(base) else full).as_posix()
    return glob.escape(shown) if full.exists() else shown


def _begins(file: Path) -> bytes:
    with file.open("rb") as start:
        return start.read(4)


def _plain(file: Path, scratch: Path) -> tuple[Path, str]:
    """A file that is Parquet or UTF-8 text: this one, or what is made of it; and a note.

    What was rewritten from another kind ends in .rows.csv and is delimited by commas.
    """
    try:
        with file.open("rb") as start:
            head = start.read(4096)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    if not head.strip():
        raise UserError(f"{file}: is empty; it needs a line of column names, and rows")
    for sign, what in OTHERS.items():
        if head.lstrip(b"\xef\xbb\xbf \r\n\t")[: len(sign)].lower() == sign.lower():
            raise UserError(f"{file}: {what}")
    scratch.mkdir(parents=True, exist_ok=True)
    if inner := _unpacked(file, head, scratch):
        return _plain(inner, scratch / "in")
    if head.startswith((ZIP, OLE)):
        return _sheet(file, scratch / f"{file.stem}{REWRITTEN}")
    if head.startswith(PARQUET):
        with file.open("rb") as whole:
            whole.seek(-4, 2)
            if whole.read() != PARQUET:
                raise UserError(f"{file}: is damaged or cut short; get it again")
        return file, ""
    if file.suffix.lower() == ".parquet":
        raise UserError(
            f"{file}: is not what its ending says: no Parquet; name it .csv if it is text"
        )
    if coding := _coding(head):
        inner = scratch / file.name
        _recode(file, coding, inner)
        file, head = inner, inner.read_bytes()[:4096]
    begins = head.lstrip(b"\xef\xbb\xbf \r\n\t")
    ending = file.suffix.lower() in (".json", ".jsonl", ".ndjson")
    if ending or re.match(rb'\{\s*"|\[\s*[{\[]', begins):
        return _json(file, scratch / f"{file.stem}{REWRITTEN}"), ""
    return file, ""


def _unpacked(file: Path, head: bytes, scratch: Path) -> Path | None:
    """The one file that a packed file holds, unpacked; None where the file is none."""
    for sign, opener in PACKED.items():
        if head.startswith(sign):
            inner = scratch / (file.stem or "rows.csv")
            _copy(partial(opener, file), inner, file)
            return inner
    if head.startswith(ZIP) and (inner_name := _in_zip(file)):
        inner = scratch / Path(inner_name).name
        _copy(zipfile.Path(file, inner_name).open, inner, file)
        return inner
    return None


def _copy(source: Callable[..., Any], target: Path, file: Path) -> None:
    try:
        with source("rb") as packed, target.open("wb") as out:
            shutil.copyfileobj(packed, out)
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, lzma.LZMAError, zlib.error):
        raise UserError(f"{file}: is damaged or cut short; get it again") from None


def _in_zip(file: Path) -> str:
    """The name of the one file in an archive; empty when the archive is a spreadsheet itself."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if any(name in names for name in ("[Content_Types].xml", "content.xml")):
                return ""
            inside = [
                entry
                for entry in archive.infolist()
                if not entry.is_dir() and not re.search(r"(^|/)(__MACOSX/|\.)", entry.filename)
            ]
    except (zipfile.BadZipFile, OSError, ValueError):
        raise UserError(f"{file}: is damaged or cut short; get it again") from None
    if len(inside) != 1:
        listed = ", ".join(entry.filename for entry in inside)
        reason = f"holds {len(inside)} files ({listed:.100}); unpack it, and give the one to read"
        raise UserError(f"{file}: {reason if inside else 'is an empty archive'}")
    if inside[0].flag_bits & 1:
        raise UserError(f"{file}: is protected by a password; unpack it first")
    return inside[0].filename


def _coding(head: bytes) -> str:
    """How a text is encoded that is in UTF-16 or UTF-32, by its mark or by where its zeros lie."""
    marks = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32"}
    marks |= {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    for mark, coding in marks.items():
        if head.startswith(mark):
            return coding
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) > 0.3 * len(head) / 2 and min(even, odd) < 0.05 * len(head) / 2:
        return "utf-16-le" if odd > even else "utf-16-be"
    return ""


def _recode(file: Path, coding: str, target: Path) -> None:
    try:
        with (
            file.open(encoding=coding, newline="") as source,
            target.open("w", encoding="utf-8", newline="") as out,
        ):
            shutil.copyfileobj(source, out, 2**20)
    except UnicodeError:
        raise UserError(f"{file}: {ENCODED.format('UTF-16')}") from None


def _sheet(file: Path, target: Path) -> tuple[Path, str]:
    """The first sheet with rows, as text."""
    try:
        from python_calamine import CalamineError, PasswordError, load_workbook
    except ImportError:
        raise UserError(f"{file}: {missing('python_calamine')}") from None
    try:
        book = load_workbook(file)
        names = book.sheet_names
        rows: list[list[Any]] = []
        for name in names:
            if rows := book.get_sheet_by_name(name).to_python(skip_empty_area=True):
                break
    except PasswordError:
        raise UserError(f"{file}: is protected by a password; save it without one") from None
    except (CalamineError, OSError, ValueError) as error:
        raise UserError(
            f"{file}: no spreadsheet that can be read ({error}); save it as CSV"
        ) from None
    if not rows:
        raise UserError(f"{file}: its sheets are empty")
    _write_csv(target, ([_cell(value) for value in row] for row in rows))
    note = f"of its {len(names)} sheets {name!r} is read; move another to the front to have it"
    return target, note if len(names) > 1 else ""


def _json(file: Path, target: Path) -> Path:
    """Rows of JSON as text: a list of objects, or an object a line; what is nested gets dotted names."""
    names: dict[str, None] = {}
    for row in _objects(file):
        names.update(dict.fromkeys(row))
    rows = ([_cell(row.get(name)) for name in names] for row in _objects(file))
    _write_csv(target, (line for part in ([list(names)], rows) for line in part))
    return target


def _objects(file: Path) -> Iterator[dict[str, Any]]:
    """Flat rows, in the order of the file."""
    number = 0
    with file.open(encoding="utf-8-sig") as source:
        try:
            first = list(islice((line for line in source if line.strip()), 2))
            source.seek(0)
            if len(first) > 1 and _is_object(first[0]):
                listed: Iterable[Any] = (json.loads(line) for line in source if line.strip())
            else:
                listed = _listed(json.load(source))
            for number, row in enumerate(listed, start=1):
                if not isinstance(row, dict):
                    raise UserError(
                        f"{file}: row {number} is no object of column: value, but {row!r:.40}"
                    )
                yield dict(_flat(row))
        except (ValueError, RecursionError) as error:
            if isinstance(error, UnicodeError):
                raise UserError(f"{file}: {ENCODED.format('LATIN1')}") from None
            after = f" after row {number}" if number else ""
            raise UserError(f"{file}: is no valid JSON{after}: {error}") from None
    if not number:
        raise UserError(f"{file}: has no rows; give a list of objects, or an object a line")


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _listed(document: Any) -> list[Any]:
    """The rows of a document: itself, the one list of objects in it, or its only row."""
    if isinstance(document, list):
        return document
    if not isinstance(document, dict):
        return []
    inside = [
        value
        for value in document.values()
        if isinstance(value, list) and value and isinstance(value[0], dict)
    ]
    if len(inside) == 1:
        return list(inside[0])
    if document and all(isinstance(value, list | dict) for value in document.values()):
        raise ValueError("it goes by columns; write a list of rows, each an object")
    return [document]


def _flat(row: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _cell(value: Any) -> str:
    """A value as text, so that a number, a time, yes or no is read again as what it was."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, datetime):
        return value.isoformat(" ")
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def _write_csv(target: Path, rows: Iterable[list[str]]) -> None:
    with target.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows(rows)


def _layout(file: Path, shown: str, wanted: Collection[str]) -> Layout:
    """Tell delimiter, quotes and column names from the first lines.

    Raises:
        UserError: when it is no text in UTF-8, or its names do not go with its rows.
    """
    head, whole = _head(file)
    delimiters = "," if file.name.endswith(REWRITTEN) else DELIMITERS
    quotes = [('"', '"'), ('"', "\\"), ("", "")]
    tried = []
    for delimiter in (mark for mark in delimiters if mark in head or mark == ","):
        for turn, (quote, escape) in enumerate(quotes):
            if turn and ('\\"' if turn == 1 else '"') not in head:
                continue
            if records := _records(head, delimiter, quote, escape, whole):
                widths = Counter(len(record) for _, record in records if any(record))
                width, often = max(widths.items(), key=lambda w: (w[1], w[0]), default=(1, 0))
                alike = often / widths.total() if width > 1 else 0.0
                # Rows alike come first, then names that go with them, quotes that quote, many columns
                named = len(next(filter(any, (record for _, record in records)), [])) == width
                rank = round(alike, 1), named, -turn, width, alike
                layout = Layout(delimiter, quote, escape, 0, True, ("",) * width)
                tried.append((rank, layout, records))
    _, layout, records = max(tried, key=lambda entry: entry[0])
    skip, header, headers = _names(records, len(layout.headers), shown, wanted)
    return replace(
        layout,
        skip=skip,
        header=header,
        headers=headers,
        names=_once(headers),
        strict=_one_break(file),
    )


def _head(file: Path) -> tuple[str, bool]:
    """The first lines, and whether they are all."""
    with file.open("rb") as source:
        head = source.read(HEAD)
        while len(head.splitlines()) <= FEWEST_LINES and len(head) < MOST_HEAD:
            if not (more := source.read(HEAD)):
                break
            head += more
        whole = not source.read(1)
    head = head.removeprefix(b"\xef\xbb\xbf")
    lines = head.splitlines(keepends=True)
    if not whole or len(lines) > MOST_LINES:
        kept = lines[: min(MOST_LINES, max(1, len(lines) - 1))]
        whole, head = False, b"".join(kept)
    # A letter beyond ASCII that is no UTF-8 is found where the whole file is read
    return head.decode("utf-8", "replace"), whole


def _records(
    head: str, delimiter: str, quote: str, escape: str, whole: bool
) -> list[tuple[int, list[str]]] | None:
    """The records, each with the lines before it; None when quotes are not used so."""
    options: dict[str, Any] = {"delimiter": delimiter, "strict": True}
    if not quote:
        options["quoting"] = csv.QUOTE_NONE
    elif escape != quote:
        options |= {"escapechar": escape, "doublequote": False}
    reader = csv.reader(re.split(r"(?<=\n)|(?<=\r)(?!\n)", head), **options)
    records: list[tuple[int, list[str]]] = []
    before = 0
    try:
        for record in reader:
            records.append((before, record))
            before = reader.line_num
    except csv.Error as error:
        # The last quote may be closed below; one that was opened far above is none
        if whole or "unexpected end" not in str(error) or 2 * before < reader.line_num:
            return None
    return records or None


def _names(
    records: list[tuple[int, list[str]]], width: int, shown: str, wanted: Collection[str]
) -> tuple[int, bool, tuple[str, ...]]:
    """Where the column names stand: lines above them, whether there are any, and these."""
    below = [record for _, record in records if len(record) == width]
    for before, record in records:
        if wanted and set(wanted) <= set(record):
            return before, True, tuple(record)
    for position, (before, record) in enumerate(records):
        if len(record) != width or 2 * sum(map(bool, map(str.strip, record))) <= width - 1:
            continue
        above = [other for _, other in records[:position] if sum(map(bool, other)) > 1]
        if _is_row(record, [other for other in below if other is not record]):
            if above and len(above[-1]) == width - 1:
                raise UserError(
                    f"{shown}: has {width - 1} column names, but {width} values in a row; name them all"
                )
            return before, False, tuple("" for _ in record)
        return before, True, tuple(record)
    return 0, True, tuple(records[0][1])


def _is_row(first: list[str], below: list[list[str]]) -> bool:
    """Whether what stands above the rows is one of them, and not their names."""
    if not below:
        return False
    columns = list(zip(*below, strict=True))
    numbers = [
        position
        for position, column in enumerate(columns)
        if sum(map(_is_value, column)) > len(column) / 2
    ]
    heads = [first[position].strip() for position in numbers]
    if any(head and not VALUE.fullmatch(head) for head in heads):
        return False  # a word above numbers
    rest = [(first[p].strip(), columns[p]) for p in range(len(first)) if p not in numbers]
    again = sum(head in set(map(str.strip, column)) for head, column in rest if head)
    if rest and not again and (not heads or all(map(str.isdigit, heads))):
        return False  # years and the like beside a name
    return bool(heads) or 2 * again > len(rest)


def _is_value(cell: str) -> bool:
    return bool(VALUE.fullmatch(cell.strip()))


def _once(headers: tuple[str, ...]) -> tuple[str, ...]:
    """Names that are there once: empty and repeated ones get a number, whatever their case."""
    names: list[str] = []
    taken: set[str] = set()
    for position, header in enumerate(headers):
        base = header.strip() or f"column{position:0{len(str(len(headers) - 1))}}"
        turn, name = 0, base
        while name.lower() in taken:
            turn, name = turn + 1, f"{base}_{turn + 1}"
        taken.add(name.lower())
        names.append(name)
    return tuple(names)


def _one_break(file: Path) -> bool:
    """Whether lines end alike all through: where they do not, the strict reader gives up."""
    returns = both = breaks = 0
    with file.open("rb") as source:
        last = b""
        while block := source.read(2**22):
            block = last + block
            last = block[-1:] if block.endswith(b"\r") else b""
            block = block[: len(block) - len(last)]
            returns += block.count(b"\r")
            breaks += block.count(b"\n")
            both += block.count(b"\r\n")
    return sum(map(bool, (returns - both, breaks - both, both))) < 2


def _texts(sql: SQL, layouts: Mapping[Layout | None, list[str]]) -> Rows:
    parts: list[tuple[str, tuple[str, ...], tuple[str, ...], bool]] = []
    for layout, files in layouts.items():
        listed = ", ".join(map(text, files))
        if layout is None:  # elsewhere: the database fetches it and finds out
            source = f"read_csv([{listed}], all_varchar = true, store_rejects = true)"
            described = tuple(row[0] for row in sql.execute(f"DESCRIBE FROM {source}").fetchall())
            named = ", ".join(f"_{position}" for position in range(len(described)))
            parts.append((f"{source} AS _t({named})", described, described, True))
            continue
        types = ", ".join(f"'_{position}': 'VARCHAR'" for position in range(len(layout.names)))
        columns = "{" + types + "}"
        source = (
            f"read_csv([{listed}], auto_detect = false, columns = {columns}, "
            f"delim = {text(layout.delimiter)}, quote = {text(layout.quote)}, "
            f"escape = {text(layout.escape)}, skip = {layout.skip}, header = {layout.header}, "
            f"strict_mode = {layout.strict}, store_rejects = true, hive_partitioning = false)"
        )
        parts.append((source, layout.names, layout.headers, layout.header))
    names = list(dict.fromkeys(name for _, own, _, _ in parts for name in own))
    columns_ = {name: (f"_{position}", "VARCHAR") for position, name in enumerate(names)}
    headers = list(parts[0][2]) if len(parts) == 1 else names
    has_names = all(part[3] for part in parts)
    if len(parts) == 1:
        return Rows(f"SELECT * FROM {parts[0][0]}", columns_, headers, has_names)
    selects = []
    for source, own, _, _ in parts:
        own_names = {name: f"_{at}" for at, name in enumerate(own)}
        picked = (f"{own_names.get(name, 'NULL')} AS {columns_[name][0]}" for name in names)
        selects.append(f"SELECT {', '.join(picked)} FROM {source}")
    return Rows(" UNION ALL ".join(selects), columns_, headers, has_names)


def _parquet(sql: SQL, files: list[str]) -> Rows:
    source = f"read_parquet([{', '.join(map(text, files))}], union_by_name = true)"
    columns = {
        row[0]: (f"_{position}", row[1])
        for position, row in enumerate(sql.execute(f"DESCRIBE FROM {source}").fetchall())
    }
    named = ", ".join(work_name for work_name, _ in columns.values())
    return Rows(f"SELECT * FROM {source} AS _t({named})", columns, list(columns))
