"""Which models are in use: folders under models/, each with all that serving needs.

production answers; challenger wants its place and gets what the router gives it; previous is what
production was before, kept whole for `rollback`. git keeps FOLDER.dvc of each, DVC its content.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from .. import paths
from ..repository import verified
from ..settings import UserError, read_json, require_file
from .scorer import load_scorer

Track = Callable[[list[str]], object]


def promote(
    root: Path,
    challenger: bool = False,
    compressed: bool = False,
    track: Track = list,
    ungated: bool = False,
    signed: Mapping[str, str] | None = None,
) -> Path:
    """Make the model that passed the gate, the challenger or the smaller copy that did, the one in production.

    Args:
        track: lets DVC keep the folders that it is given; when it fails, all is as it was. Without it, nothing
            is kept.
        ungated: also a challenger of `learn` that is not shown to be better.
        signed: who built and promotes the model, which its manifest in production keeps; None: nobody signs.

    Raises:
        UserError: when the model to promote is missing, has not passed the gate or is another one than
            the gate judged, when a folder on disk is not the one that git names, or when the challenger goes on
            learning and is not shown to be better than the model in production.
    """
    target, challenger_folder = verified(root, paths.PRODUCTION), verified(root, paths.CHALLENGER)
    if challenger and not challenger_folder.is_dir():
        raise UserError(f"{paths.CHALLENGER} is not here: use `challenge` first")
    if challenger and not ungated:
        _require_gain(challenger_folder, target)
    if compressed:
        fresh = _copy(root, smaller_model(root))
    elif challenger:
        fresh = _copy(root, challenger_folder)
    else:
        fresh = _copy_passed(root)
    if signed:
        _sign(fresh, signed)
    replacements: dict[str, Path | None] = {paths.PRODUCTION: fresh}
    if target.is_dir() and _sha256(fresh) != _sha256(target):  # twice leaves `rollback` its model
        replacements[paths.PREVIOUS] = _copy(root, target)
    if challenger_folder.is_dir() and _sha256(challenger_folder) == _sha256(fresh):
        replacements[paths.CHALLENGER] = None
    _exchange(root, replacements, track)
    return target


def challenge(root: Path, track: Track = list, signed: Mapping[str, str] | None = None) -> Path:
    """Put the model that passed the gate beside the one in production.

    Args:
        signed: as in `promote`.

    Raises:
        UserError: as `promote`, or when nothing is in production, or the very same model is.
    """
    production = verified(root, paths.PRODUCTION)
    if not production.is_dir():
        raise UserError(
            f"{paths.PRODUCTION} is not here: there is nothing to challenge, use `promote`"
        )
    fresh = _copy_passed(root)
    if _sha256(fresh) == _sha256(production):
        shutil.rmtree(fresh)
        raise UserError(f"{paths.MODEL} is the one in production already")
    if signed:
        _sign(fresh, signed)
    _exchange(root, {paths.CHALLENGER: fresh}, track)
    return root / paths.CHALLENGER


def challenge_by(root: Path, fill: Callable[[Path], object], track: Track = list) -> Path:
    """Put a model beside the one in production that `fill` writes into a new folder; all of it, or nothing."""
    fresh = _new_folder(root)
    try:
        fill(fresh)
        _exchange(root, {paths.CHALLENGER: fresh}, track)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return root / paths.CHALLENGER


def rollback(root: Path, track: Track = list) -> Path:
    """Put the previous model back into production; a second call undoes the first.

    Raises:
        UserError: when there is no previous model, or its file is damaged.
    """
    target, previous = verified(root, paths.PRODUCTION), verified(root, paths.PREVIOUS)
    if not previous.is_dir() or not target.is_dir():
        raise UserError(f"{paths.PREVIOUS} is not here: only one model was ever promoted")
    if load_scorer(previous / paths.MODEL_FILE).sha256 != _sha256(previous):
        raise UserError(f"{paths.PREVIOUS}/{paths.MODEL_FILE}: its checksum is not the manifest's")
    swapped = {paths.PRODUCTION: _copy(root, previous), paths.PREVIOUS: _copy(root, target)}
    _exchange(root, swapped, track)
    return target


def _exchange(root: Path, replacements: Mapping[str, Path | None], track: Track) -> None:
    """Give folders new content (None: none) and let DVC track them; all of it, or nothing."""
    backups: dict[str, Path] = {}
    placed = []
    records = {name: root / f"{name}.dvc" for name in replacements}
    contents = {name: path.read_bytes() for name, path in records.items() if path.is_file()}
    try:
        for name, fresh in replacements.items():
            if (root / name).is_dir():
                backups[name] = _new_folder(root) / "before"
                (root / name).rename(backups[name])
            if fresh:
                fresh.rename(root / name)
                placed.append(name)
            else:
                records[name].unlink(missing_ok=True)
        track(placed)
    except BaseException:
        for name in placed:
            shutil.rmtree(root / name)
            records[name].unlink(missing_ok=True)
        for name, folder in backups.items():
            folder.rename(root / name)
        for name, text in contents.items():
            records[name].write_bytes(text)
        raise
    finally:
        emptied = [folder.parent for folder in backups.values()]
        for folder in (*emptied, *filter(None, replacements.values())):
            shutil.rmtree(folder, ignore_errors=True)


def _require_gain(challenger: Path, production: Path) -> None:
    """Refuse a model that goes on learning, and has been through no gate, unless the last `learn` that changed it found
    it better than the model in production: the interval of the gain lies above zero."""
    learning = read_json(challenger / paths.MANIFEST_FILE).get("learning")
    if learning is None:
        return
    gain = learning.get("gain")
    if learning.get("champion") != _sha256(production):
        reason = "was never compared with the model in production now"
    elif gain is None:
        reason = "learnt from too few answers at last to compare it"
    elif gain["low"] > 0:
        return
    else:
        interval = f"between {gain['low']:+.4g} and {gain['high']:+.4g}"
        reason = f"is not shown to be better: gain {gain['gain']:+.4g} ({interval})"
    raise UserError(
        f"{paths.CHALLENGER} {reason}; `learn` when more labels came, or `promote --challenger --ungated`"
    )


def _copy_passed(root: Path) -> Path:
    """A copy, under another name, of the model that passed the gate."""
    require_file(root / paths.MANIFEST)
    gate = read_json(root / paths.GATE) if (root / paths.GATE).is_file() else {}
    if not gate.get("passed"):
        raise UserError(f"{paths.GATE}: no model has passed the gate; nothing was promoted")
    if not gate["model"] == _sha256(root / paths.TRAINED) == load_scorer(root / paths.MODEL).sha256:
        raise UserError(
            f"{paths.GATE} speaks of another model than {paths.MODEL}: `dvc checkout` or `dvc pull` brings that "
            "one, `run` trains anew"
        )
    files = [root / name for name in (paths.MODEL, paths.BASELINE, paths.FITTED, paths.MANIFEST)]
    if "reasons" in read_json(root / paths.MANIFEST):
        files.append(root / paths.REASONS)
    if (root / paths.REFERENCE).is_file():  # what monitoring compares this model's answers with
        files.append(root / paths.REFERENCE)
    return _copy_files(root, files)


def smaller_model(root: Path) -> Path:
    """The folder of the smaller model, which was made of the trained one and is whole.

    Raises:
        UserError: when the smaller model is not here, is of another model than the trained one, or is damaged.
    """
    folder = root / paths.COMPRESSED
    if not folder.is_dir():
        raise UserError(f"{paths.COMPRESSED} is not here: use `compress`, which has to pass")
    manifest = read_json(folder / paths.MANIFEST_FILE)
    if manifest["compressed_from"] != _sha256(root / paths.TRAINED):
        raise UserError(
            f"{paths.COMPRESSED} is of another model than {paths.MODEL}; use `compress` again"
        )
    if load_scorer(folder / paths.MODEL_FILE).sha256 != manifest["sha256"]:
        raise UserError(
            f"{paths.COMPRESSED}/{paths.MODEL_FILE}: its checksum is not the manifest's"
        )
    return folder


def _copy(root: Path, folder: Path) -> Path:
    return _copy_files(root, sorted(folder.iterdir()))


def _copy_files(root: Path, files: Iterable[Path]) -> Path:
    """Copies in a folder of their own, writable: DVC may have made the originals links to its cache."""
    fresh = _new_folder(root)
    for file in files:
        shutil.copyfile(file, fresh / file.name)
    return fresh


def _sign(fresh: Path, signed: Mapping[str, str]) -> None:
    """Write into a copied manifest who built and promotes the model."""
    path = fresh / paths.MANIFEST_FILE
    manifest = {**read_json(path), "promotion": dict(signed)}
    path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8", newline="\n")


def _new_folder(root: Path) -> Path:
    """A new folder beside the models in use, so that a rename puts it in its place."""
    fresh = Path(tempfile.mkdtemp(dir=root / paths.TRAINED, prefix="fresh-"))
    fresh.chmod(0o755)
    return fresh


def _sha256(folder: Path) -> str:
    return str(read_json(folder / paths.MANIFEST_FILE)["sha256"])
