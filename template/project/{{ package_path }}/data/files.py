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
from pathlib import Path, PurePath
from typing import Any, TypeVar

from duckdb import DuckDBPyConnection as SQL

from ..images import FORMATS, SUFFIXES
from ..settings import UserError, missing_library
from .schema import text

FILE_KINDS = "CSV, Parquet, JSON or Excel"
# The columns of a folder of images: the path in it, as the row's name and as its image, and the sub-folder
FOLDER_COLUMNS = ("file", "image", "class")
NOT_UTF8 = "it is not UTF-8 text; save it as UTF-8, e.g. `iconv -f {} -t UTF-8 FILE > utf8.csv`"
OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
ZIP, OLE, PARQUET = b"PK", b"\xd0\xcf\x11\xe0", b"PAR1"
# How an address in a bucket begins -> the extra of DVC whose library reads there (fsspec). Who one is, and where the store
# is, stands where that library looks: AWS_PROFILE, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_CONNECTION_STRING
STORES = {"s3": "s3", "gs": "gs", "gcs": "gs", "az": "azure", "abfs": "azure", "abfss": "azure"}
ENDINGS = {".csv", ".tsv", ".txt", ".psv", ".dat", ".parquet", ".json", ".jsonl", ".ndjson", ".xlsx",
           ".xlsm", ".xlsb", ".xls", ".ods", ".gz", ".bz2", ".xz", ".zip"}  # fmt: skip
# How files begin that hold no rows to read -> what they are, and the way out
UNSUPPORTED = {
    b"%PDF": "is a PDF; export the table that it shows as CSV",
    b"\x80\x03": "is a pickle, which may run code when it is opened; write it as Parquet",
    b"\x80\x04": "is a pickle, which may run code when it is opened; write it as Parquet",
    b"\x80\x05": "is a pickle, which may run code when it is opened; write it as Parquet",
    b"\x89PNG": "is a picture; give the table as CSV, or the folder of pictures",
    b"\xff\xd8\xff": "is a picture; give the table as CSV, or the folder of pictures",
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
_IMAGE_KINDS = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
# What a layout is told from: so many lines at least
HEAD_BYTES, MAX_HEAD_BYTES = 2**18, 2**24
MIN_LINES, MAX_LINES = 3, 200
DELIMITERS, REWRITTEN = ",;\t|^", ".rows.csv"
DATE = re.compile(r"[0-9]{1,4}[-/.][0-9A-Za-z]{1,9}[-/.].*")
VALUE = re.compile(rf"[-+]?[.,]?[0-9][0-9.,' ]*(e[-+]?[0-9]+)?%?|{DATE.pattern}")
csv.field_size_limit(2**27)

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Layout:
    """How a delimited text stands in its file.

    Attributes:
        skip: lines above the column names, or above the rows where there are none.
        header: whether there are column names.
        headers: the names as the file has them; names: these, made unique by a number.
        strict: whether the database's strict reader takes it.
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
class FileRows:
    """The rows of one or more files, as SQL that reads them.

    Attributes:
        query: SQL of the rows; their columns are named by place.
        columns: name -> (SQL name, type) in the order of the file.
        headers: the names as the file has them: empty ones and repeated ones too.
        named: whether the file has column names.
        notes: what its user should know; files: those of rows that were read.
    """

    query: str
    columns: dict[str, tuple[str, str]]
    headers: list[str]
    named: bool = True
    notes: list[str] = field(default_factory=list)
    files: tuple[str, ...] = ()


def open_files(
    sql: SQL, paths: Iterable[str], root: Path, expected: Collection[str] = ()
) -> FileRows:
    """The rows of files, directories and globs, one below the other; columns go together by name.

    What has to be unpacked or rewritten goes into the database's temporary directory.

    Args:
        root: what relative paths start from; a path with :// lies in a bucket, or is the database's to fetch.
        expected: columns that are looked for, by which a line of names is told from a title.

    Raises:
        UserError: for a path that is not there, and a file that cannot be read, with the way out.
    """
    ((folder,),) = sql.execute("SELECT current_setting('temp_directory')").fetchall()
    scratch, notes = Path(folder) / "files", []
    shutil.rmtree(scratch, ignore_errors=True)
    parquet: list[str] = []
    layouts: dict[Layout | None, list[str]] = {}
    listed = [file for path in paths for file in find_files(path, root)]
    for position, file in enumerate(listed):
        if "://" in file and (file.endswith(".parquet") or not in_bucket(file)):
            plain, layout = file, None
            is_parquet = file.lower().split("?")[0].endswith(".parquet")
            if in_bucket(file):
                _teach(sql, file)
        else:
            ready, note = _made_plain(file, scratch / str(position))
            notes += [f"{file}: {note}"] if note else []
            is_parquet = _magic_bytes(ready) == PARQUET
            layout = None if is_parquet else _layout(ready, file, expected)
            plain = glob.escape(str(ready))
        (parquet if is_parquet else layouts.setdefault(layout, [])).append(plain)
    if parquet and layouts:
        raise UserError(f"{', '.join(listed):.200}: Parquet and other files together; use one kind")
    rows = _parquet_rows(sql, parquet) if parquet else _text_rows(sql, layouts)
    return replace(rows, notes=notes, files=tuple(listed))


def _made_plain(file: str, scratch: Path) -> tuple[Path, str]:
    """`_to_plain` of a file here, or of a copy of a file in a bucket."""
    if not in_bucket(file):
        return _to_plain(Path(file), scratch)
    copy = _fetch(file, scratch / "bucket")
    try:
        return _to_plain(copy, scratch)
    except UserError as error:
        raise UserError(str(error).replace(str(copy), file)) from None


def find_files(path: str, root: Path) -> list[str]:
    """The files that a path, a directory or a glob means, in the order of their names.

    A directory of images stands for itself: `open_files` gives a row for each image in it.

    Raises:
        UserError: when there is none.
    """
    if in_bucket(path):
        return _files_in_bucket(path)
    if "://" in path:
        return [path]
    full_path = root / path
    if full_path.is_file():
        return [str(full_path)]
    matches = sorted(glob.glob(str(full_path), recursive=True))
    folder = full_path if full_path.is_dir() else Path(matches[0]) if len(matches) == 1 else None
    if folder and folder.is_dir():  # with a bracket in its name, a glob alone names it
        members = sorted(path for path in folder.iterdir() if _is_data_file(path))
        if not members and not _list_images(folder)[0]:
            raise UserError(f"{path}: no file in this folder is {FILE_KINDS}, or an image")
        return list(map(str, members or [folder]))
    files = [match for match in matches if Path(match).is_file()]
    if not files:
        raise UserError(f"{path} is not here: give a {FILE_KINDS} file, a folder or a glob of them")
    return files


def in_bucket(path: str) -> bool:
    """Whether a path is an address in a bucket."""
    return path.partition("://")[0] in STORES and "://" in path


def _files_in_bucket(path: str) -> list[str]:
    """The files that an address, one of a folder or a glob means, in the order of their names.

    Raises:
        UserError: when there is none, when the store refuses, or without its library.
    """
    scheme = path.partition("://")[0]

    def find(store: Any) -> list[str]:
        if any(sign in path for sign in "*?["):
            names = [name for name in store.glob(path) if store.isfile(name)]
        elif store.isfile(path):
            names = [path]
        else:
            names = [name for name in store.ls(path, detail=False) if _has_rows(PurePath(name))]
        return sorted(f"{scheme}://{name.partition('://')[2] or name}" for name in names)

    files = _ask_store(path, find)
    if not files:
        raise UserError(f"{path}: no file there has rows to read")
    return files


def _fetch(path: str, folder: Path) -> Path:
    """A copy of a file in a folder, which is made.

    Raises:
        UserError: as `_files_in_bucket`.
    """
    target = folder / PurePath(path).name
    folder.mkdir(parents=True, exist_ok=True)
    _ask_store(path, lambda store: store.get_file(path, str(target)))
    return target


def version_in_bucket(path: str) -> tuple[int, str]:
    """A file's bytes, and what changes when the file does.

    Raises:
        UserError: as `_files_in_bucket`.
    """
    return _ask_store(path, lambda store: (int(store.size(path)), str(store.ukey(path))))


def _teach(sql: SQL, path: str) -> None:
    """Let a database read where a file lies."""
    if path.partition("://")[0] not in sql.list_filesystems():
        _ask_store(path, sql.register_filesystem)


def _ask_store(path: str, question: Callable[[Any], Answer]) -> Answer:
    """What a store answers.

    Raises:
        UserError: as `_files_in_bucket`.
    """
    import fsspec

    scheme = path.partition("://")[0]
    try:
        return question(fsspec.filesystem(scheme, use_listings_cache=False))
    except ImportError:
        raise missing_library(f"dvc[{STORES[scheme]}]") from None
    except FileNotFoundError:
        raise UserError(f"{path} is not there") from None
    except Exception as error:  # each provider's library has its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: the store does not let us read there: {reason}") from None


def _list_images(folder: Path) -> tuple[list[tuple[str, str]], str]:
    """The images in a folder, each with its class, in the order of their paths; and what is passed over.

    The class is the sub-folder, however deep the image lies in it; empty where no image lies in a sub-folder.

    Raises:
        UserError: when sub-folders hold images in sub-folders of their own alone, such as train/cat.
    """
    paths, unreadable, subfolders = [], 0, list[str]()
    for directory, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        subfolders = subfolders or [*folders]
        at = Path(directory).relative_to(folder)
        visible = [name for name in names if not name.startswith(".")]
        images = [at / name for name in visible if name.lower().endswith(SUFFIXES)]
        paths += images
        unreadable += len(visible) - len(images)
    classes = {path.parts[0] for path in paths if len(path.parts) > 1}
    if nested := sorted(classes - {path.parts[0] for path in paths if len(path.parts) == 2}):
        deep = next(path for path in paths if path.parts[0] == nested[0])
        raise UserError(
            f"{folder}: {deep.parent.as_posix()} is a folder in a folder; give one folder that has a folder for "
            f"each class, and no other: the project makes training, validation and test itself"
        )
    listed = [path for path in paths if not classes or len(path.parts) > 1]
    counts = {
        "lie beside the sub-folders": len(paths) - len(listed),
        f"are no {_IMAGE_KINDS}": unreadable,
    }
    notes = [f"{count:,} files {reason}" for reason, count in counts.items() if count]
    notes = [f"{' and '.join(notes)}: they are not read"] if notes else []
    empty = [name for name in subfolders if name not in classes] if classes else []
    notes += (
        [f"no image lies in {', '.join(empty[:5])}{', …' if len(empty) > 5 else ''}"]
        if empty
        else []
    )
    note = "; ".join(notes) if listed else ""
    return [(p.as_posix(), p.parts[0] if classes else "") for p in sorted(listed)], note


def _image_rows(folder: Path, target: Path) -> tuple[Path, str]:
    """Rows of a folder of images, as text."""
    images, note = _list_images(folder)
    rows = [FOLDER_COLUMNS, *((path, path, class_) for path, class_ in images)]
    columns = slice(None) if images[0][1] else slice(2)
    try:
        _write_csv(target, (list(row[columns]) for row in rows))
    except UnicodeEncodeError as error:
        raise UserError(
            f"{folder}: {error.object!a:.100}: a name that is no UTF-8; rename it"
        ) from None
    return target, note


def _is_data_file(file: Path) -> bool:
    return file.is_file() and _has_rows(file)


def _has_rows(file: PurePath) -> bool:
    return file.suffix.lower() in ENDINGS and not file.name.startswith((".", "~"))


def relative(path: str, root: Path, is_glob: bool = True) -> str:
    """A path as data.source.paths names it: from the project's folder where it lies in there.

    A link keeps its name, since what it leads to may change.

    Args:
        is_glob: whether what is read there may be a glob, so that brackets have to be escaped.
    """
    if "://" in path:
        return path
    full, base = Path(os.path.abspath(path)), root.resolve()
    if not full.is_relative_to(base) and full.resolve().is_relative_to(base):
        full = full.resolve()
    path_text = (full.relative_to(base) if full.is_relative_to(base) else full).as_posix()
    return glob.escape(path_text) if is_glob and full.exists() else path_text


def _magic_bytes(file: Path) -> bytes:
    with file.open("rb") as start:
        return start.read(4)


def _to_plain(file: Path, scratch: Path) -> tuple[Path, str]:
    """A file that is Parquet or UTF-8 text: this one, or what is made of it; and a note.

    What was rewritten from another kind ends in .rows.csv and is delimited by commas.
    """
    if file.is_dir():
        scratch.mkdir(parents=True, exist_ok=True)
        return _image_rows(file, scratch / f"images{REWRITTEN}")
    try:
        with file.open("rb") as start:
            head = start.read(4096)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    _refuse_unsupported(file, head)
    scratch.mkdir(parents=True, exist_ok=True)
    if inner := _unpacked(file, head, scratch):
        return _to_plain(inner, scratch / "in")
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
    if codec := _codec(head):
        inner = scratch / file.name
        _recode(file, codec, inner)
        file, head = inner, inner.read_bytes()[:4096]
    text_start = head.lstrip(b"\xef\xbb\xbf \r\n\t")
    ending = file.suffix.lower() in (".json", ".jsonl", ".ndjson")
    if ending or re.match(rb'\{\s*"|\[\s*[{\[]', text_start):
        return _json(file, scratch / f"{file.stem}{REWRITTEN}"), ""
    return file, ""


def _refuse_unsupported(file: Path, head: bytes) -> None:
    """Say what an empty file needs, and what to give instead of a file of a kind that is not read."""
    if not head.strip():
        raise UserError(f"{file}: is empty; it needs a line of column names, and rows")
    for sign, message in UNSUPPORTED.items():
        if head.lstrip(b"\xef\xbb\xbf \r\n\t")[: len(sign)].lower() == sign.lower():
            raise UserError(f"{file}: {message}")


def _unpacked(file: Path, head: bytes, scratch: Path) -> Path | None:
    """The one file that a packed file holds, unpacked; None where the file is none."""
    for sign, opener in OPENERS.items():
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
            entries = [
                entry
                for entry in archive.infolist()
                if not entry.is_dir() and not re.search(r"(^|/)(__MACOSX/|\.)", entry.filename)
            ]
    except (zipfile.BadZipFile, OSError, ValueError):
        raise UserError(f"{file}: is damaged or cut short; get it again") from None
    if len(entries) != 1:
        listed = ", ".join(entry.filename for entry in entries)
        reason = f"holds {len(entries)} files ({listed:.100}); unpack it, and give the one to read"
        raise UserError(f"{file}: {reason if entries else 'is an empty archive'}")
    if entries[0].flag_bits & 1:
        raise UserError(f"{file}: is protected by a password; unpack it first")
    return entries[0].filename


def _codec(head: bytes) -> str:
    """How a text is encoded that is in UTF-16 or UTF-32, by its mark or by where its zeros lie."""
    marks = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32"}
    marks |= {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    for mark, codec in marks.items():
        if head.startswith(mark):
            return codec
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) > 0.3 * len(head) / 2 and min(even, odd) < 0.05 * len(head) / 2:
        return "utf-16-le" if odd > even else "utf-16-be"
    return ""


def _recode(file: Path, codec: str, target: Path) -> None:
    try:
        with (
            file.open(encoding=codec, newline="") as source,
            target.open("w", encoding="utf-8", newline="") as out,
        ):
            shutil.copyfileobj(source, out, 2**20)
    except UnicodeError:
        raise UserError(f"{file}: {NOT_UTF8.format('UTF-16')}") from None


def _sheet(file: Path, target: Path) -> tuple[Path, str]:
    """The first sheet with rows, as text."""
    try:
        from python_calamine import CalamineError, PasswordError, load_workbook
    except ImportError:
        raise UserError(f"{file}: {missing_library('python_calamine')}") from None
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
                objects: Iterable[Any] = (json.loads(line) for line in source if line.strip())
            else:
                objects = _json_rows(json.load(source))
            for number, row in enumerate(objects, start=1):
                if not isinstance(row, dict):
                    raise UserError(
                        f"{file}: row {number} is no object of column: value, but {row!r:.40}"
                    )
                yield dict(_flat(row))
        except (ValueError, RecursionError) as error:
            if isinstance(error, UnicodeError):
                raise UserError(f"{file}: {NOT_UTF8.format('LATIN1')}") from None
            after = f" after row {number}" if number else ""
            raise UserError(f"{file}: is no valid JSON{after}: {error}") from None
    if not number:
        raise UserError(f"{file}: has no rows; give a list of objects, or an object a line")


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _json_rows(document: Any) -> list[Any]:
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


def _layout(file: Path, file_name: str, expected: Collection[str]) -> Layout:
    """Tell delimiter, quotes and column names from the first lines.

    Raises:
        UserError: when it is no text in UTF-8, or its names do not go with its rows.
    """
    head, whole = _head(file)
    delimiters = "," if file.name.endswith(REWRITTEN) else DELIMITERS
    quotes = [('"', '"'), ('"', "\\"), ("", "")]
    candidates = []
    for delimiter in (mark for mark in delimiters if mark in head or mark == ","):
        for turn, (quote, escape) in enumerate(quotes):
            if turn and ('\\"' if turn == 1 else '"') not in head:
                continue
            if records := _records(head, delimiter, quote, escape, whole):
                widths = Counter(len(record) for _, record in records if any(record))
                width, count = max(widths.items(), key=lambda w: (w[1], w[0]), default=(1, 0))
                alike = count / widths.total() if width > 1 else 0.0
                # Rows alike come first, then names that go with them, quotes that quote, many columns
                named = len(next(filter(any, (record for _, record in records)), [])) == width
                rank = round(alike, 1), named, -turn, width, alike
                layout = Layout(delimiter, quote, escape, 0, True, ("",) * width)
                candidates.append((rank, layout, records))
    _, layout, records = max(candidates, key=lambda entry: entry[0])
    skip, header, headers = _names(records, len(layout.headers), file_name, expected)
    names, strict = _unique_names(headers), _same_line_breaks(file)
    return replace(layout, skip=skip, header=header, headers=headers, names=names, strict=strict)


def _head(file: Path) -> tuple[str, bool]:
    """The first lines, and whether they are all."""
    with file.open("rb") as source:
        head = source.read(HEAD_BYTES)
        while len(head.splitlines()) <= MIN_LINES and len(head) < MAX_HEAD_BYTES:
            if not (block := source.read(HEAD_BYTES)):
                break
            head += block
        whole = not source.read(1)
    head = head.removeprefix(b"\xef\xbb\xbf")
    lines = head.splitlines(keepends=True)
    if not whole or len(lines) > MAX_LINES:
        head_lines = lines[: min(MAX_LINES, max(1, len(lines) - 1))]
        whole, head = False, b"".join(head_lines)
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
    records: list[tuple[int, list[str]]], width: int, file_name: str, expected: Collection[str]
) -> tuple[int, bool, tuple[str, ...]]:
    """Where the column names stand: lines above them, whether there are any, and these."""
    below = [record for _, record in records if len(record) == width]
    for before, record in records:
        if expected and set(expected) <= set(record):
            return before, True, tuple(record)
    for position, (before, record) in enumerate(records):
        if len(record) != width or 2 * sum(map(bool, map(str.strip, record))) <= width - 1:
            continue
        above = [cells for _, cells in records[:position] if sum(map(bool, cells)) > 1]
        if _is_row(record, [cells for cells in below if cells is not record]):
            if above and len(above[-1]) == width - 1:
                raise UserError(
                    f"{file_name}: has {width - 1} column names, but {width} values in a row; name them all"
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
    dated = [position for position in numbers if DATE.fullmatch(first[position].strip())]
    cells = (cell.strip() for position in dated for cell in columns[position])
    if len(dated) > 1 and not any(map(DATE.fullmatch, cells)):
        return False  # moments above what was counted at each
    text_columns = [(first[p].strip(), columns[p]) for p in range(len(first)) if p not in numbers]
    repeats = sum(head in set(map(str.strip, column)) for head, column in text_columns if head)
    if text_columns and not repeats and (not heads or all(map(str.isdigit, heads))):
        return False  # years and the like beside a name
    return bool(heads) or 2 * repeats > len(text_columns)


def _is_value(cell: str) -> bool:
    return bool(VALUE.fullmatch(cell.strip()))


def _unique_names(headers: tuple[str, ...]) -> tuple[str, ...]:
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


def _same_line_breaks(file: Path) -> bool:
    """Whether lines end alike all through: where they do not, the strict reader gives up."""
    returns = pairs = breaks = 0
    with file.open("rb") as source:
        last = b""
        while block := source.read(2**22):
            block = last + block
            last = block[-1:] if block.endswith(b"\r") else b""
            block = block[: len(block) - len(last)]
            returns += block.count(b"\r")
            breaks += block.count(b"\n")
            pairs += block.count(b"\r\n")
    return sum(map(bool, (returns - pairs, breaks - pairs, pairs))) < 2


def _text_rows(sql: SQL, layouts: Mapping[Layout | None, list[str]]) -> FileRows:
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
    names = list(dict.fromkeys(name for _, part_names, _, _ in parts for name in part_names))
    columns_ = {name: (f"_{position}", "VARCHAR") for position, name in enumerate(names)}
    headers = list(parts[0][2]) if len(parts) == 1 else names
    has_names = all(part[3] for part in parts)
    if len(parts) == 1:
        return FileRows(f"SELECT * FROM {parts[0][0]}", columns_, headers, has_names)
    selects = []
    for source, part_names, _, _ in parts:
        sql_names = {name: f"_{at}" for at, name in enumerate(part_names)}
        picked = (f"{sql_names.get(name, 'NULL')} AS {columns_[name][0]}" for name in names)
        selects.append(f"SELECT {', '.join(picked)} FROM {source}")
    return FileRows(" UNION ALL ".join(selects), columns_, headers, has_names)


def _parquet_rows(sql: SQL, files: list[str]) -> FileRows:
    source = f"read_parquet([{', '.join(map(text, files))}], union_by_name = true)"
    columns = {
        row[0]: (f"_{position}", row[1])
        for position, row in enumerate(sql.execute(f"DESCRIBE FROM {source}").fetchall())
    }
    named = ", ".join(work_name for work_name, _ in columns.values())
    return FileRows(f"SELECT * FROM {source} AS _t({named})", columns, list(columns))
