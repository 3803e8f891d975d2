"""Which models are in use: folders under models/, each with all that serving needs.

production answers; challenger wants its place and gets what the router gives it; previous is what
production was before, kept whole for `rollback`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from ..settings import UserError, needed
from .compress import COMPRESSED
from .evaluate import GATE, PRODUCTION
from .export import BASELINE, FITTED, MANIFEST, MODEL, Scorer

CHALLENGER = "models/challenger"
PREVIOUS = "models/previous"
REFERENCE = "monitoring/reference.parquet"


def promote(root: Path, challenger: bool = False, compressed: bool = False) -> Path:
    """Make the model that passed the gate, the challenger or the smaller copy that did, the one in production.

    Raises:
        UserError: when there is none, it has not passed, or it is not the one that the gate saw.
    """
    target, previous, second = root / PRODUCTION, root / PREVIOUS, root / CHALLENGER
    if challenger and not second.is_dir():
        raise UserError(f"{CHALLENGER} is not here: use `challenge` first")
    if compressed:
        fresh = _smaller(root)
    elif challenger:
        fresh = _copy(root, second)
    else:
        fresh = _passed(root)
    if target.is_dir():
        shutil.rmtree(previous, ignore_errors=True)
        target.rename(previous)
    fresh.rename(target)
    if second.is_dir() and _sha256(second) == _sha256(target):
        shutil.rmtree(second)
    return target


def challenge(root: Path) -> Path:
    """Put the model that passed the gate beside the one in production.

    Raises:
        UserError: as `promote`, or when nothing is in production, or it is that very model.
    """
    production, target = root / PRODUCTION, root / CHALLENGER
    if not production.is_dir():
        raise UserError(f"{PRODUCTION} is not here: there is nothing to challenge, use `promote`")
    fresh = _passed(root)
    if _sha256(fresh) == _sha256(production):
        shutil.rmtree(fresh)
        raise UserError(f"{MODEL} is the one in production already")
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return target


def rollback(root: Path) -> Path:
    """Put the previous model back into production; a second call undoes the first.

    Raises:
        UserError: when there is none, or it is damaged.
    """
    target, previous = root / PRODUCTION, root / PREVIOUS
    if not previous.is_dir():
        raise UserError(f"{PREVIOUS} is not here: only one model was ever promoted")
    fresh = _copy(root, previous)
    if Scorer(fresh / "model.onnx").sha256 != _sha256(fresh):
        shutil.rmtree(fresh)
        raise UserError(f"{PREVIOUS}/model.onnx: its checksum is not the manifest's")
    shutil.rmtree(previous)
    target.rename(previous)
    fresh.rename(target)
    return target


def _passed(root: Path) -> Path:
    """A copy, under another name, of the model that passed the gate."""
    needed(root / MANIFEST)
    gate = json.loads((root / GATE).read_text("utf-8")) if (root / GATE).is_file() else {}
    if not gate.get("passed"):
        raise UserError(f"{GATE}: no model has passed the gate; nothing was promoted")
    if not gate["model"] == _sha256(root / "models") == Scorer(root / MODEL).sha256:
        raise UserError(f"{GATE} speaks of another model than {MODEL}; run the pipeline again")
    fresh = _folder(root)
    for name in (MODEL, BASELINE, FITTED, MANIFEST):
        shutil.copy2(root / name, fresh / Path(name).name)
    if (root / REFERENCE).is_file():  # what monitoring compares this model's answers with
        shutil.copy2(root / REFERENCE, fresh / Path(REFERENCE).name)
    return fresh


def _smaller(root: Path) -> Path:
    """A copy of the smaller model, if it was made of the one that is there and is whole."""
    folder = root / COMPRESSED
    if not folder.is_dir():
        raise UserError(f"{COMPRESSED} is not here: use `export --quantize`, which has to pass")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    if manifest["compressed_from"] != _sha256(root / "models"):
        raise UserError(
            f"{COMPRESSED} is of another model than {MODEL}; use `export --quantize` again"
        )
    if Scorer(folder / "model.onnx").sha256 != manifest["sha256"]:
        raise UserError(f"{COMPRESSED}/model.onnx: its checksum is not the manifest's")
    return _copy(root, folder)


def _copy(root: Path, folder: Path) -> Path:
    return Path(shutil.copytree(folder, _folder(root), dirs_exist_ok=True))


def _folder(root: Path) -> Path:
    """Beside the others, so that it takes its place by a rename."""
    fresh = Path(tempfile.mkdtemp(dir=root / "models", prefix="fresh-"))
    fresh.chmod(0o755)
    return fresh


def _sha256(folder: Path) -> str:
    return str(json.loads((folder / "manifest.json").read_text("utf-8"))["sha256"])
