"""The bill of materials: which model this is, of which data, and which parts of others it came about with and runs with.

A document of CycloneDX 1.6 (ECMA-424), whose parts for machine learning it uses: the model is a component with its card. The
same lock file, model, settings and environment give the same bytes: two bills that differ are of different materials.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_OID, uuid5

from .. import problem
from ..cards import report, write
from ..data.fingerprint import LOCK
from ..paths import BOM, GATE, MANIFEST, METRICS_REPORT, MODEL, SETTINGS_FILE
from ..repository import git, repository
from ..settings import Settings, UserError, read_json, read_text, require_file

VERSION = "1.6"  # of CycloneDX
SOURCES = (LOCK, SETTINGS_FILE, "src")  # the last commit of these dates the bill
MAX_LICENCE = 80  # characters beyond which metadata hold a licence's text, and not its name
Tree = dict[str, Any]


def write_bom(settings: Settings, root: Path) -> Tree:
    """Write the bill of materials; returns it.

    Raises:
        UserError: when there is no trained model, or the lock file cannot be read.
    """
    document = bill(settings, root)
    write(root / BOM, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return document


def bill(settings: Settings, root: Path) -> Tree:
    """The bill of materials, as a tree for JSON.

    Raises:
        UserError: as `write_bom`.
    """
    project, packages, needs = _packages(settings, root)
    model, data = _model(settings, root), _data(settings, root)
    encoders = [*_encoders(settings, root)]
    parts = [data["bom-ref"], *(encoder["bom-ref"] for encoder in encoders)]
    direct = [model["bom-ref"], *needs.pop(project["bom-ref"], [])]
    depends = {project["bom-ref"]: direct, model["bom-ref"]: parts, **needs}
    content = {
        "components": [model, data, *encoders, *packages],
        "dependencies": [
            {"ref": ref, "dependsOn": sorted(set(refs))} for ref, refs in depends.items() if refs
        ],
    }
    serial = uuid5(NAMESPACE_OID, json.dumps([project, content], sort_keys=True))
    moment = _committed(root)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": VERSION,
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": ({"timestamp": moment} if moment else {}) | {"component": project},
        **content,
    }


def _committed(root: Path) -> str:
    """When what the bill is made from was committed last; empty without a commit."""
    try:
        seconds = git(root, "log", "-1", "--format=%ct", "--", *SOURCES) if repository(root) else ""
    except UserError:  # before the first commit
        return ""
    return f"{datetime.fromtimestamp(int(seconds), UTC):%Y-%m-%dT%H:%M:%SZ}" if seconds else ""


# The model, its data, and the networks that it begins with


def _model(settings: Settings, root: Path) -> Tree:
    manifest, sha256 = read_json(root / MANIFEST), _sha256(require_file(root / MODEL))
    use, name = settings.governance.use, settings.project.slug
    judged = (report(root / GATE) or {}).get("model") == sha256
    metrics = report(root / METRICS_REPORT) if judged else None
    considered: dict[str, list[Any]] = {
        "users": [use.users],
        "useCases": [use.intended],
        "technicalLimitations": [use.wrong],
        "performanceTradeoffs": [use.trade_offs],
        "ethicalConsiderations": [use.misuse and {"name": use.misuse}],
    }
    card: Tree = {
        "modelParameters": {
            "approach": {"type": "supervised" if problem.UNLABELLED is None else "unsupervised"},
            "task": problem.NAME,
            "modelArchitecture": manifest["chosen"],
            "datasets": [{"ref": "data"}],
            "inputs": [{"format": f"{c['name']}: {c['type']}"} for c in manifest["inputs"]],
            "outputs": [{"format": "score and decision"}],
        },
        "considerations": {key: texts for key, texts in considered.items() if texts[0]},
    }
    if metrics:
        card["quantitativeAnalysis"] = {"performanceMetrics": [*_figures(metrics)]}
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": name,
        "version": sha256[:12],
        "hashes": [{"alg": "SHA-256", "content": sha256}],
        "modelCard": {key: value for key, value in card.items() if value},
    }


def _figures(metrics: Tree) -> Iterator[Tree]:
    """The figures of the last evaluation, as CycloneDX has them: the primary metric with its interval, others, slices."""
    primary = metrics["primary"]
    figure: Tree = {"type": primary["name"], "value": f"{primary['value']:.6g}"}
    if primary["low"] is not None:
        ends = ("lowerBound", primary["low"]), ("upperBound", primary["high"])
        figure["confidenceInterval"] = {key: f"{end:.6g}" for key, end in ends}
    yield figure
    for name, value in metrics["also"].items():
        if value is not None:
            yield {"type": name, "value": f"{value:.6g}"}
    for column, rows in metrics["slices"].items():
        for name, row in rows.items():
            if row["metric"] is not None:
                part = {"slice": f"{column} = {name}"}
                yield {"type": primary["name"], "value": f"{row['metric']:.6g}", **part}


def _data(settings: Settings, root: Path) -> Tree:
    rights, version = settings.governance.source, read_json(root / MANIFEST).get("data_version")
    entry: Tree = {"type": "dataset", "name": settings.data.source.kind}
    if rights.owner:
        entry["governance"] = {"owners": [{"organization": {"name": rights.owner}}]}
    component: Tree = {"type": "data", "bom-ref": "data", "name": f"{settings.project.slug}-data"}
    if version:
        component["version"] = version[:12]
    if rights.licence:
        component["licenses"] = [{"license": {"name": rights.licence}}]
    return component | {"data": [entry]}


def _encoders(settings: Settings, root: Path) -> Iterator[Tree]:
    """The networks of others that features begin with, each file with its hash."""
    named = {
        feature.encoder
        for feature in settings.features.catalogue.values()
        if feature.use and feature.encoder
    }
    for name in sorted(named):
        path = root / name
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        yield {
            "type": "machine-learning-model",
            "bom-ref": f"encoder/{name}",
            "name": path.name,
            "components": [
                {
                    "type": "file",
                    "bom-ref": f"encoder/{name}/{file.relative_to(path).as_posix()}",
                    "name": file.name,
                    "hashes": [{"alg": "SHA-256", "content": _sha256(file)}],
                }
                for file in files
            ],
        }


# The packages


def _packages(settings: Settings, root: Path) -> tuple[Tree, list[Tree], dict[str, list[str]]]:
    """The project itself, each package, and what each of them needs, by reference.

    They are those of the lock file, whether installed here or not; without one, what is installed here.
    """
    licences = {
        (_normal(d.metadata["Name"]), d.version): licence
        for d in distributions()
        if (licence := _licence(d.metadata))
    }
    project = {"type": "application", "bom-ref": "project", "name": settings.project.slug}
    if not (root / LOCK).is_file():
        pairs = sorted({(_normal(d.metadata["Name"]), d.version) for d in distributions()})
        pairs = [pair for pair in pairs if pair[0] != _normal(settings.project.slug)]
        return project, [_package(*pair, licences.get(pair)) for pair in pairs], {}
    try:
        locked = tomllib.loads(read_text(root / LOCK))["package"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise UserError(f"{LOCK}: not a lock file of uv: {error}; `uv lock` writes it") from None
    roots = [entry for entry in locked if {"editable", "virtual"} & {*entry["source"]}]
    published = [entry for entry in locked if entry not in roots]
    needs = {_ref(entry): _refs(entry.get("dependencies", []), published) for entry in published}
    direct = _refs([need for entry in roots for need in entry.get("dependencies", [])], published)
    for entry in roots:
        project["version"] = entry.get("version", "0")
    lock = {"name": f"{LOCK}:sha256", "value": _sha256(root / LOCK)}
    project["properties"] = [lock]  # type: ignore[assignment]  # where each file's hash stands
    required = _closure(direct, needs)
    packages = []
    for entry in published:
        package = _package(
            entry["name"], entry["version"], licences.get((entry["name"], entry["version"])),
            "registry" in entry["source"],
        )  # fmt: skip
        files = [entry["sdist"]] if "sdist" in entry else entry.get("wheels", [])
        hashes = sorted(f["hash"].removeprefix("sha256:") for f in files if "hash" in f)
        if hashes:
            package["hashes"] = [{"alg": "SHA-256", "content": sha256} for sha256 in hashes]
        package["scope"] = "required" if package["bom-ref"] in required else "optional"
        packages.append(package)
    return project, packages, {"project": direct, **needs}


def _package(name: str, version: str, licence: Tree | None, published: bool = True) -> Tree:
    package = {"type": "library", "bom-ref": f"{name}@{version}", "name": name, "version": version}
    if published:
        package["purl"] = f"pkg:pypi/{name}@{quote(version)}"
    return package | ({"licenses": [licence]} if licence else {})


def _refs(requirements: list[Tree], locked: list[Tree]) -> list[str]:
    """The references of what a package needs: a name may be locked in several versions, for several Pythons."""
    return [
        _ref(entry)
        for need in requirements
        for entry in locked
        if entry["name"] == need["name"] and need.get("version") in (None, entry["version"])
    ]


def _closure(refs: list[str], needs: dict[str, list[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = [*refs]
    while waiting:
        if (ref := waiting.pop()) not in reached:
            reached.add(ref)
            waiting += needs[ref]
    return reached


def _ref(entry: Tree) -> str:
    return f"{entry['name']}@{entry['version']}"


def _normal(name: str) -> str:
    """A package's name as a registry has it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _licence(metadata: Any) -> Tree | None:
    """The licence that a package's metadata name; None where they name none."""
    if expression := metadata.get("License-Expression"):
        return {"expression": expression}
    named = metadata.get("License") or ""
    if not named or len(named) > MAX_LICENCE or "\n" in named or named == "UNKNOWN":
        listed = metadata.get_all("Classifier", [])
        named = ", ".join(c.rpartition(" :: ")[2] for c in listed if c.startswith("License :: "))
    return {"license": {"name": named}} if named else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
