"""From a path as a user gives it to rows that the database reads."""

from __future__ import annotations

from glob import escape
from pathlib import Path

from ..settings import UserError

ENCODED = "it is not UTF-8 text; save it as UTF-8, e.g. `iconv -f {} -t UTF-8 FILE > utf8.csv`"


def checked(file: Path, root: Path) -> str:
    """The file as data.source.paths names it, if it can be a CSV or Parquet file."""
    if not file.is_file():
        raise UserError(
            f"{file} is not {'a file' if file.exists() else 'here'}: give a CSV or Parquet"
        )
    with file.open("rb") as start:
        head = start.read(4096)
    wrong = ""
    if not head.strip():
        wrong = "is empty; it needs a line of column names, and rows"
    elif head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        wrong = ENCODED.format("UTF-16")
    elif head[:2] == b"PK" or (file.suffix.lower() == ".parquet") != (head[:4] == b"PAR1"):
        wrong = "is not what its ending says; save it as .csv or .parquet"
    if wrong:
        raise UserError(f"{file}: {wrong}")
    full, base = file.resolve(), root.resolve()
    return escape((full.relative_to(base) if full.is_relative_to(base) else full).as_posix())
