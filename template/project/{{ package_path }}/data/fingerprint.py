"""What a run reads besides the repository: a fingerprint of the source, and one of the libraries.

DVC watches files whose paths stand in dvc.yaml; a glob, a query or a file that only one machine has
cannot stand there. `run` takes their fingerprints before it lets DVC decide what to do, in
reports/inputs.json, whose keys are settings to DVC.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..images import ImageError, located, read
from ..paths import FORGOTTEN, IMAGES_SEEN, INPUTS, PROJECT_FILE
from ..settings import Settings, Source, UserError, read_json, read_text

LOCK = "uv.lock"


class Unreachable(Exception):
    """A source that is not to be had from here; `of` says which."""

    def __init__(self, message: str, of: Any) -> None:
        super().__init__(message)
        self.of = of


def take(settings: Settings, root: Path) -> list[str]:
    """Write reports/inputs.json, if it changed.

    Returns:
        what its reader has to know: a source that is not here, or one that changed.

    Raises:
        UserError: when reports/inputs.json is broken.
    """
    path = root / INPUTS
    before = read_json(path) if path.is_file() else {}
    earlier = before.get("source") or {}
    notes = []
    try:
        current = _source(settings, root)
    except Unreachable as error:
        current = {"of": error.of}
        if earlier.get("of") == error.of and len(earlier) > 1:  # else `collect` says so
            current = earlier
            notes.append(
                f"The source cannot be read on this machine ({error}): the rows stay those of the "
                "last `collect`."
            )
    notes += _changes(earlier, current)
    encoders, missing = _encoders(settings, root)
    if missing:
        encoders = before.get("encoders", encoders)
        notes.append(
            f"{', '.join(missing)}: an encoder or a given model that is not on this machine (`dvc pull {' '.join(missing)}` brings "
            "what `dvc add` keeps): the model stays that of the last `train`."
        )
    inputs = {"encoders": encoders, "libraries": _libraries(root), "source": current}
    if inputs != before:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = path.with_name(f"{path.name}.new")
        staging.write_text(json.dumps(inputs, indent=2) + "\n", encoding="utf-8", newline="\n")
        staging.replace(path)
    return notes


def _changes(earlier: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """What is said of a source that is the same one and yet another than at the last run."""
    if not earlier or current == earlier or current.get("of") != earlier.get("of"):
        return []
    before, now = ({**source, "forgotten": None} for source in (earlier, current))
    if before == now:
        return [f"Somebody was forgotten since the last run ({FORGOTTEN})."]
    return [f"The source changed since the last run: {_size(current)}."]


def _source(settings: Settings, root: Path) -> dict[str, Any]:
    """What the source is, what is in it, and who is left out."""
    source, path = settings.data.source, root / FORGOTTEN
    left_out = {"forgotten": _md5(path)} if path.is_file() else {}
    if source.kind == "sample":
        return {"of": source.kind, **left_out}
    rows = _of_paths(source, root) if source.kind == "files" else _of_query(settings, root)
    images = _of_images(settings, root, rows["of"])
    return rows | ({"images": images} if images else {}) | left_out


def _of_images(settings: Settings, root: Path, of: Any) -> dict[str, Any]:
    """Number and hash of the image files that the rows name.

    Files are read only when one of them has another size or time than it had on this machine.

    Args:
        of: what the source is.
    """
    from .source import image_files, images_folder

    folder, names = images_folder(settings, root), image_files(settings, root)
    if folder is None or not names:
        return {}
    state, absent = hashlib.md5(), 0
    for name in names:
        try:
            file = os.stat(located(name, folder))
            state.update(f"{name}\0{file.st_size} {file.st_mtime_ns}\0".encode())
        except (OSError, ValueError):
            state.update(f"{name}\0\0".encode())
            absent += 1
    if absent == len(names):
        raise Unreachable(f"none of its {absent:,} images is in {folder}", of)
    memory = root / IMAGES_SEEN
    remembered = read_json(memory) if memory.is_file() else {}
    if remembered.get("state") != state.hexdigest():
        remembered = {"state": state.hexdigest(), "md5": _content(folder, names)}
        memory.parent.mkdir(parents=True, exist_ok=True)
        memory.write_text(json.dumps(remembered), encoding="utf-8", newline="\n")
    return {"files": len(names), "md5": remembered["md5"]}


def _content(folder: Path, names: list[str]) -> str:
    """The hash of what image files hold, and of why one cannot be read."""
    digest = hashlib.md5()
    for name in names:
        try:
            content = hashlib.md5(read(name, folder)).hexdigest()
        except ImageError as error:
            content = str(error)
        digest.update(f"{name}\0{content}\0".encode())
    return digest.hexdigest()


def _of_paths(source: Source, root: Path) -> dict[str, Any]:
    """Number, bytes and hash of the files; what an address outside of a bucket holds is never taken for unchanged."""
    from .files import find_files, in_bucket, version_in_bucket

    paths = [*source.paths, *(path for listed in source.versions.values() for path in listed)]
    of = list(source.paths)
    try:
        names = [name for path in paths for name in find_files(path, root)]
    except UserError as error:
        raise Unreachable(str(error), of) from None
    digest, size = hashlib.md5(), 0
    for name in names:
        path = Path(name)
        if path.is_file():
            size += path.stat().st_size
            inside = path.resolve().is_relative_to(root.resolve())
            label = path.resolve().relative_to(root.resolve()).as_posix() if inside else path.name
            digest.update(f"{label}\0{_md5(path)}\0".encode())
        elif in_bucket(name):
            length, key = version_in_bucket(name)
            size += length
            digest.update(f"{name}\0{key}\0".encode())
        elif not path.is_dir():  # one of images, which are looked at by their names
            digest.update(f"{name}\0{time.time_ns()}\0".encode())
    return {"of": of, "files": len(names), "bytes": size, "md5": digest.hexdigest()}


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _of_query(settings: Settings, root: Path) -> dict[str, Any]:
    """Rows of the query's answer and a hash of them that does not depend on their order."""
    import duckdb

    from .source import database, first_line

    source = settings.data.source
    query = (source.query or "").strip().rstrip(";")
    with database(settings, root) as sql:
        try:
            for statement in source.attach:
                sql.execute(statement)
            ((rows, total),) = sql.execute(
                f"SELECT count(*), sum(hash(_t)::HUGEINT) FROM ({query}\n) AS _t"
            ).fetchall()
        except duckdb.Error as error:
            raise Unreachable(first_line(error), query) from None
    return {"of": query, "rows": rows, "hash": str(total)}


def _encoders(settings: Settings, root: Path) -> tuple[str, list[str]]:
    """The hash of the files of all encoders that features name and of a given model, and which of them are not here."""
    catalogue = settings.features.catalogue.values()
    paths = sorted({feature.encoder for feature in catalogue if feature.encoder and feature.use})
    unlabelled = settings.labelling.unlabelled if settings.labelling else None
    if unlabelled and unlabelled.given_model:
        paths.append(unlabelled.given_model)
    digest, missing = hashlib.md5(), []
    for path in paths:
        whole = root / path
        files = [file for file in sorted(whole.rglob("*")) or [whole] if file.is_file()]
        if not files:
            missing.append(path)
        for file in files:
            digest.update(f"{path}\0{file.relative_to(whole).as_posix()}\0{_md5(file)}\0".encode())
    return digest.hexdigest(), missing


def _libraries(root: Path) -> str:
    """The hash of the lock file; without one, of the installed versions of what pyproject.toml names."""
    lock = root / LOCK
    if lock.is_file():
        text = read_text(lock).replace("\r\n", "\n")
    else:
        requirements = tomllib.loads(read_text(root / PROJECT_FILE))["project"]["dependencies"]
        names = sorted(re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requirements)
        text = "\n".join(f"{name} {_version(name)}" for name in names)
    return hashlib.md5(text.encode()).hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _size(source: dict[str, Any]) -> str:
    images = f", {source['images']['files']:,} images" if "images" in source else ""
    if "rows" in source:
        return f"its query gives {source['rows']:,} rows{images}"
    files, size = source["files"], source["bytes"]
    rows = f"{files:,} file{'s' if files != 1 else ''}, {size:,} bytes"
    return f"{rows}{images}" if size or not images else images.removeprefix(", ")
