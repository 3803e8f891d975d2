"""What a tracker is sent of a run: parameters, metrics, where data and code are, pictures, cards, the model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import paths
from ..repository import git, recorded_stages
from ..settings import Settings, UserError, load, read_json

# Where the addresses of sources and webhooks stand, which may hold a password
PRIVATE = ("data.source.", "monitoring.alerts.", "tracking.")
MAX_TEXT = 500  # characters of a parameter


@dataclass(frozen=True)
class Run:
    """The last run. Its key is a digest of the manifest and the gate: a run that changed neither is the same."""

    key: str
    name: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    pictures: list[Path]
    documents: list[Path]  # cards and reports
    passed: bool  # the gate


def last_run(root: Path) -> Run | None:
    """The run that the gate judged; None where there is none, or a model was trained since.

    Raises:
        UserError: when a report cannot be read.
    """
    manifest_path, gate_path, metrics_path = (
        root / name for name in (paths.MANIFEST, paths.GATE, paths.METRICS_REPORT)
    )
    if not all(path.is_file() for path in (manifest_path, gate_path, metrics_path)):
        return None
    manifest, gate = read_json(manifest_path), read_json(gate_path)
    if gate["model"] != manifest["sha256"]:
        return None
    documents = (paths.MODEL_CARD, paths.DATA_CARD, paths.METRICS_REPORT, paths.GATE)
    return Run(
        key=hashlib.sha256(manifest_path.read_bytes() + gate_path.read_bytes()).hexdigest()[:32],
        name=f"{manifest['chosen']}-{manifest['sha256'][:8]}",
        params=parameters(load(root / paths.SETTINGS_FILE)),
        metrics=dict(_figures(read_json(metrics_path), gate)),
        tags=versions(root, manifest) | {"gate": "passed" if gate["passed"] else "failed"},
        pictures=sorted((root / paths.PLOTS).glob("*.png")),
        documents=[path for name in documents if (path := root / name).is_file()],
        passed=gate["passed"],
    )


def parameters(settings: Settings) -> dict[str, str]:
    """What params.yaml sets, as dotted names and short texts, without what may hold a password."""
    tree = settings.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {
        re.sub(r"[^\w.\- ]", "_", name)[:250]: value[:MAX_TEXT]
        for name, value in _leaves(tree, "")
        if not name.startswith(PRIVATE)
    }


def _leaves(tree: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, tree if isinstance(tree, str) else json.dumps(tree, ensure_ascii=False)


def _figures(metrics: Any, gate: Any) -> Iterator[tuple[str, float]]:
    """The metrics on the test rows, and what the gate measured of each target."""
    primary = metrics["primary"]
    ends = {f"{primary['name']}.{end}": primary[end] for end in ("low", "high")}
    for name, value in [
        *{primary["name"]: primary["value"], **ends, **metrics["also"]}.items(),
        *((f"gate.{row['target']}", row["measured"]) for row in gate["rows"]),
    ]:
        if isinstance(value, (int, float)):
            yield re.sub(r"[^\w.\- ]", "_", name), float(value)


def versions(root: Path, manifest: Any) -> dict[str, str]:
    """The model's checksum, and which data and code made it: DVC's hash of the events, the commit of git."""
    tags = {"sha256": manifest["sha256"], "data_version": manifest["data_version"]}
    for output in recorded_stages(root).get("collect", {}).get("outs", ()):
        if output["path"] == paths.EVENTS:
            tags["dvc_md5"] = str(output["md5"])
    with suppress(UserError):  # a copy without git
        tags["git_commit"] = git(root, "rev-parse", "HEAD").strip()
        edited = git(root, "status", "--porcelain", "--", "src", paths.SETTINGS_FILE)
        tags["git_edited"] = "yes" if edited else "no"  # code or settings, since that commit
    return tags
