"""The end of a system: a mark in git that nothing answers any more, and an archive of what it was.

The service reads the mark (`governance.retired`) with its models, and answers requests for predictions with 410 and the reason.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ..cards import refresh_model_card, write
from ..data.fingerprint import LOCK
from ..paths import (
    ARCHIVE,
    DOCUMENTS_HOME,
    INCIDENTS,
    MANIFEST_FILE,
    PIPELINE_LOCK,
    PRODUCTION,
    PROJECT_FILE,
    README,
    REPORTS,
    RETIRED,
    ROUTER_STATE,
    SETTINGS_FILE,
)
from ..scoring.batch import answering_folder
from ..scoring.state import bump
from ..settings import Settings, UserError, read_json, read_text
from .bom import write_bom
from .history import promotions
from .retired import refuse, retired

ARCHIVED = (  # beside the model, each a file or a folder
    README,
    PROJECT_FILE,
    SETTINGS_FILE,
    PIPELINE_LOCK,
    LOCK,
    Path(DOCUMENTS_HOME).parts[0],
    Path(INCIDENTS).parts[0],
    REPORTS,
)
ROWS = ("*.csv", "*.prom")  # among the reports, what git does not keep either
SUMS, HISTORY = "SHA256SUMS", "promotions.json"


def retire(
    settings: Settings, root: Path, reason: str, by: str, track: Callable[[list[str]], object]
) -> dict[str, str]:
    """Mark the system as retired, write its cards a last time, and archive what it was.

    Args:
        track: lets DVC keep the folder of the archive; when it fails, nothing is retired.

    Returns:
        the mark, as `retired` gives it.

    Raises:
        UserError: when it is retired already, or there is no model.
    """
    refuse(root)
    model = answering_folder(root)
    if not (model / MANIFEST_FILE).is_file():
        raise UserError(f"{PRODUCTION} is not here: no model answers, so there is none to retire")
    reason, by = " ".join(reason.split()), " ".join(by.split())
    if not (reason and by):
        raise UserError("--reason, --by: are empty: say why, and who says so")
    sha256 = str(read_json(model / MANIFEST_FILE)["sha256"])
    mark = {"at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "by": by, "reason": reason}
    write(root / RETIRED, json.dumps(mark | {"model": sha256}, indent=1, ensure_ascii=False) + "\n")
    try:
        refresh_model_card(root)
        write_bom(settings, root)
        _archive(root, model)
        track([ARCHIVE])
    except BaseException:
        (root / RETIRED).unlink()
        raise
    bump(root / ROUTER_STATE)
    return retired(root)


def reinstate(root: Path) -> None:
    """Let the system answer again; its archive stays.

    Raises:
        UserError: when it is not retired.
    """
    if not (root / RETIRED).is_file():
        raise UserError(f"{RETIRED} is not here: nothing is retired")
    (root / RETIRED).unlink()
    refresh_model_card(root)
    bump(root / ROUTER_STATE)


def _archive(root: Path, model: Path) -> None:
    """Write the folder of the archive anew: the model, and what `gather` finds of the project."""
    folder = root / ARCHIVE
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        shutil.copytree(model, fresh / PRODUCTION)
        gather(root, fresh)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def gather(root: Path, folder: Path) -> None:
    """Copy pages, cards, reports, settings and records into a folder, with the history of promotions and the hash of each file."""
    for name in ARCHIVED:
        source, target = root / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(*ROWS))
        elif source.is_file():
            write(target, read_text(source))
    text = json.dumps(promotions(root), indent=1, ensure_ascii=False)
    write(folder / HISTORY, f"{text}\n")
    write(folder / SUMS, check_sums(folder))


def check_sums(folder: Path) -> str:
    """The SHA-256 of each file of a folder but the list itself, as `sha256sum --check` takes them."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / SUMS)
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n"
        for path in files
    ]
    return "".join(lines)
