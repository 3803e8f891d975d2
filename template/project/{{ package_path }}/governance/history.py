"""Which models were promoted when, and by whom: what git has of the folder in production, and DVC's cache of its manifests."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..paths import MANIFEST_FILE, PRODUCTION
from ..repository import dvc, git, repository
from ..settings import UserError

SEPARATOR = "\x1f"
FORMAT = SEPARATOR.join(("%H", "%aI", "%an", "%s"))
FACTS = ("chosen", "sha256", "data_version", "code_version", "trained_rows", "promotion")


def promotions(root: Path) -> list[dict[str, Any]]:
    """Each commit that put another model into production, the newest first; none before the first, and without git.

    Returns:
        `commit`, `at` (ISO 8601), `author`, `subject`, and those of FACTS that the manifest of its model has: none where
        DVC's cache has not that model, as before `dvc fetch --all-commits`.

    Raises:
        UserError: when DVC cannot say where its cache is.
    """
    pointer = f"{PRODUCTION}.dvc"
    if repository(root) is None:
        return []
    try:
        lines = git(root, "log", f"--format={FORMAT}", "--", pointer).splitlines()
    except UserError:  # before the first commit
        return []
    cache = Path(dvc(root, "cache", "dir").strip()) if lines else Path()
    keys, entries = ("commit", "at", "author", "subject"), []
    for line in lines:
        entry = dict(zip(keys, line.split(SEPARATOR, 3), strict=True))
        manifest = _manifest(root, cache, entry["commit"])
        entries.append({**entry, **{key: manifest[key] for key in FACTS if key in manifest}})
    return entries


def _manifest(root: Path, cache: Path, commit: str) -> dict[str, Any]:
    """The manifest of the model that a commit put into production; empty where it is not to be had here."""
    with suppress(UserError, OSError, ValueError, KeyError, TypeError):
        text = git(root, "show", f"{commit}:./{PRODUCTION}.dvc")
        for md5 in re.findall(r"^- md5: ([0-9a-f]{32}\.dir)$", text, re.M):
            for file in json.loads(_cached(cache, md5)):
                if file["relpath"] == MANIFEST_FILE:
                    return dict(json.loads(_cached(cache, file["md5"])))
    return {}


def _cached(cache: Path, md5: str) -> bytes:
    return (cache / "files" / "md5" / md5[:2] / md5[2:]).read_bytes()
