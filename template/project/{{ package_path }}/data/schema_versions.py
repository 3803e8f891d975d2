"""Versions of the schema: what each said of the columns is kept in git, and old files are read by their own version.

A version is settled once git holds its file: until then the schema is still being written, and its file follows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..paths import SCHEMAS
from ..repository import git
from ..settings import ColumnSettings, Settings, UserError, read_json
from .files import find_files

# What the schema of today says of a column, whatever an earlier one said
OF_TODAY = ("type", "personal", "size", "colours", "fit", "length")


def described(settings: Settings) -> dict[str, Any]:
    """What the file of a version holds: the id, the time, and each column's rules that are not the usual ones."""
    schema = settings.data.schema_
    rules = {name: rule.model_dump(exclude_defaults=True) for name, rule in schema.columns.items()}
    whole = {"id": schema.id, "time": schema.time, "columns": rules}
    return dict(json.loads(json.dumps(whole)))


def check_version(settings: Settings, root: Path) -> None:
    """Refuse a schema that changed since its version was settled; the built-in sample's has no versions.

    Raises:
        UserError: naming what changed.
    """
    path = root / SCHEMAS / f"{settings.data.schema_.version}.json"
    if settings.data.source.kind == "sample" or not path.is_file():
        return
    before, now = read_json(path), described(settings)
    columns = [before.get("columns", {}), now["columns"]]
    changed = [key for key in ("id", "time") if before.get(key) != now[key]]
    changed += [c for c in {**columns[0], **columns[1]} if columns[0].get(c) != columns[1].get(c)]
    if changed and _is_settled(root, path):
        remainder = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        version, path_text = settings.data.schema_.version, path.relative_to(root).as_posix()
        raise UserError(
            f"params.yaml: data.schema.version: {', '.join(changed[:3])}{remainder} changed since version {version} was "
            f"committed; set version: {newest(root) + 1} (data.source.versions then reads old files by {version}), or "
            f"delete {path_text} if nothing was made of it"
        )


def record_version(settings: Settings, root: Path) -> None:
    """Write what the schema of this version says, for git."""
    path = root / SCHEMAS / f"{settings.data.schema_.version}.json"
    if settings.data.source.kind == "sample":
        return
    path.parent.mkdir(exist_ok=True)
    content = json.dumps(described(settings), indent=2, ensure_ascii=False) + "\n"
    path.write_text(content, encoding="utf-8", newline="\n")


def _is_settled(root: Path, path: Path) -> bool:
    try:
        git(root, "ls-files", "--error-unmatch", path.relative_to(root).as_posix())
    except UserError:  # no such file in git, or no git
        return False
    return True


def newest(root: Path) -> int:
    """The highest version that is recorded; 0 without any."""
    names = (path.stem for path in (root / SCHEMAS).glob("*.json"))
    return max((int(name) for name in names if name.isdecimal()), default=0)


def by_version(settings: Settings, root: Path) -> Iterator[tuple[Settings, set[str]]]:
    """The settings that the files of each version of the schema are read by, the earliest first, the current last.

    Yields:
        the settings, whose source is the files of that version alone, and the columns that it did not have.

    Raises:
        UserError: for a version that is not recorded, or whose rules do not fit today's types.
    """
    source, older_files = settings.data.source, set[str]()
    for version, paths in sorted(source.versions.items()):
        files = [file for path in paths for file in find_files(path, root)]
        older_files.update(files)
        schema = settings.data.schema_
        columns, absent = _columns_of(settings, root, version)
        schema = schema.model_copy(update={"columns": columns, "version": version})
        yield _with(settings, schema_=schema, paths=tuple(files)), absent
    if source.versions:
        listed = (file for path in source.paths for file in find_files(path, root))
        files = [file for file in listed if file not in older_files]
        if files:
            yield _with(settings, schema_=settings.data.schema_, paths=tuple(files)), set()
    else:
        yield settings, set()


def _columns_of(
    settings: Settings, root: Path, version: int
) -> tuple[dict[str, ColumnSettings], set[str]]:
    """Today's columns as a version's files write them, and which of them that version did not have."""
    path = root / SCHEMAS / f"{version}.json"
    key = f"params.yaml: data.source.versions.{version}"
    if not path.is_file():
        raise UserError(f"{key}: {SCHEMAS}/{version}.json is not there, which says how to read it")
    before, columns, absent = read_json(path)["columns"], dict[str, ColumnSettings](), set()
    for name, rule in settings.data.schema_.columns.items():
        if name not in before:
            absent.add(name)
            columns[name] = rule.model_copy(update={"required": False})
            continue
        today = rule.model_dump(include={*OF_TODAY}, exclude_defaults=True)
        earlier = {rule_key: v for rule_key, v in before[name].items() if rule_key not in OF_TODAY}
        try:
            columns[name] = ColumnSettings(**earlier, **today)
        except ValidationError as error:
            fault = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise UserError(f"{key}: {name} is another kind of column today: {fault}") from None
    return columns, absent


def _with(settings: Settings, schema_: Any, paths: tuple[str, ...]) -> Settings:
    source = settings.data.source.model_copy(update={"paths": paths})
    data = settings.data.model_copy(update={"schema_": schema_, "source": source})
    return settings.model_copy(update={"data": data})
