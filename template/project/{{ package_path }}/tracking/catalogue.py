"""Data sets, features, the model and what each is made of, in two catalogues' forms, as dvc.lock and the reports say.

DataHub reads a file of metadata change proposals, Marquez and others OpenLineage events. Both are plain JSON,
so that neither's library, which would bring a hundred more, is needed.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import paths
from ..cards import write
from ..repository import recorded_stages
from ..settings import Settings, UserError
from .record import Run, last_run

PLATFORM = "urn:li:dataPlatform:file"
PRODUCER = "https://dvc.org"
SPEC = "https://openlineage.io/spec"
SCHEMA_FACET = f"{SPEC}/facets/1-2-0/SchemaDatasetFacet.json#/$defs/SchemaDatasetFacet"
VERSION_FACET = (
    f"{SPEC}/facets/1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet"
)
# How DataHub calls DuckDB's types of columns, and the settings' types of features
FIELD_TYPES = {
    **{"VARCHAR": "String", "BOOLEAN": "Boolean", "TIMESTAMP": "Time", "DATE": "Date"},
    "BLOB": "Bytes",
}
RESERVED = {ord(letter): f"%{ord(letter):02X}" for letter in "%,()"}  # in DataHub's names
FEATURE_TYPES = {"number": "CONTINUOUS", "category": "NOMINAL", "text": "TEXT", "time": "TIME"}


def export(settings: Settings, root: Path, folder: Path) -> dict[Path, int]:
    """Write datahub.json and openlineage.jsonl.

    Returns:
        how many entries each file holds.

    Raises:
        UserError: when no run has come to its end yet, or `folder` is a file.
    """
    stages, run = recorded_stages(root), last_run(root)
    if not stages or run is None:
        raise UserError("there is nothing to export: `run` first, to the end")
    if folder.is_file():
        raise UserError(f"{folder} is a file: name a folder")
    slug, moment = settings.project.slug, (root / paths.PIPELINE_LOCK).stat().st_mtime
    versions = {
        str(item["path"]): str(item.get("md5", ""))
        for stage in stages.values()
        for item in (*stage.get("deps", ()), *stage.get("outs", ()))
        if not str(item["path"]).startswith("src/")
    }
    columns = {name: _columns(root / name) for name in versions if name.endswith(".parquet")}
    proposals = [
        {"entityType": urn.split(":")[2], "entityUrn": urn, "changeType": "UPSERT"}
        | {"aspectName": name, "aspect": {"json": aspect}}
        for urn, name, aspect in [
            *_datasets(slug, stages, versions, columns, int(moment * 1000)),
            *_model(settings, run),
        ]
    ]
    events = [*_events(slug, stages, versions, columns, datetime.fromtimestamp(moment, UTC))]
    datahub, openlineage = folder / "datahub.json", folder / "openlineage.jsonl"
    write(datahub, json.dumps(proposals, indent=1, ensure_ascii=False) + "\n")
    write(openlineage, "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in events))
    return {datahub: len(proposals), openlineage: len(events)}


def _columns(path: Path) -> list[tuple[str, str]]:
    """Name and SQL type of each column of a file; none where it was not pulled."""
    import duckdb

    if not path.is_file():
        return []
    described = duckdb.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
    return [(name, kind) for name, kind, *_ in described]


def _datasets(
    slug: str, stages: Any, versions: Any, columns: Any, milliseconds: int
) -> Iterator[tuple[str, str, Any]]:
    """Each data set of DVC's with its columns, and the data sets that its stage made it of."""
    stamp = {"time": milliseconds, "actor": "urn:li:corpuser:dvc"}
    for name, md5 in versions.items():
        if not name.startswith(f"{paths.DATA}/"):
            continue
        urn = _dataset(slug, name)
        yield urn, "datasetProperties", {"name": name, "customProperties": {"dvc_md5": md5}}
        if fields := columns.get(name):
            yield urn, "schemaMetadata", {
                **{"schemaName": name, "platform": PLATFORM, "version": 0, "hash": md5},
                "platformSchema": {"com.linkedin.schema.OtherSchema": {"rawSchema": ""}},
                "fields": [
                    {
                        **{"fieldPath": field, "nativeDataType": kind, "nullable": True},
                        "type": {"type": {f"com.linkedin.schema.{_field_type(kind)}Type": {}}},
                    }
                    for field, kind in fields
                ],
            }  # fmt: skip
        sources = [
            str(source["path"])
            for stage in stages.values()
            if name in {str(made["path"]) for made in stage.get("outs", ())}
            for source in stage.get("deps", ())
            if str(source["path"]).startswith(f"{paths.DATA}/")
        ]
        if sources:
            upstream = {"type": "TRANSFORMED", "auditStamp": stamp}
            yield urn, "upstreamLineage", {
                "upstreams": [{"dataset": _dataset(slug, source), **upstream} for source in sources]
            }  # fmt: skip


def _field_type(kind: str) -> str:
    if kind.endswith("]"):
        return "Array"
    return next((name for start, name in FIELD_TYPES.items() if kind.startswith(start)), "Number")


def _model(settings: Settings, run: Run) -> Iterator[tuple[str, str, Any]]:
    """The features, each with the data set that its column is in, and the model with what it was trained on."""
    slug, columns = settings.project.slug, settings.data.schema_.columns
    catalogue = settings.features.catalogue
    urns = {name: f"urn:li:mlFeature:({slug},{name.translate(RESERVED)})" for name in catalogue}
    for name, feature in catalogue.items():
        kind = FEATURE_TYPES.get(columns[name].type if name in columns else "", "UNKNOWN")
        properties = {
            key: str(value) for key in ("owner", "cost") if (value := getattr(feature, key))
        }
        yield urns[name], "mlFeatureProperties", {
            **{"description": f"family {feature.family}", "dataType": kind},
            **{"sources": [_dataset(slug, paths.LABELLED)], "customProperties": properties},
        }  # fmt: skip
    features = {"mlFeatures": [*urns.values()]}
    yield f"urn:li:mlFeatureTable:({PLATFORM},{slug})", "mlFeatureTableProperties", features
    model = f"urn:li:mlModel:({PLATFORM},{slug},PROD)"
    yield model, "mlModelProperties", {
        **{"description": run.name, "version": {"versionTag": run.tags["sha256"][:12]}},
        "hyperParams": [
            {"name": name, "value": value}
            for name, value in run.params.items()
            if name.startswith("modelling.")
        ],
        "trainingMetrics": [{"name": n, "value": f"{v:.6g}"} for n, v in run.metrics.items()],
        **features,
        "customProperties": run.tags,
    }  # fmt: skip
    training = [{"dataset": _dataset(slug, paths.SPLIT)}]
    yield model, "mlModelTrainingData", {"trainingData": training}


def _dataset(slug: str, name: str) -> str:
    return f"urn:li:dataset:({PLATFORM},{slug}/{name},PROD)"


def _events(
    slug: str, stages: Any, versions: Any, columns: Any, moment: datetime
) -> Iterator[dict[str, Any]]:
    """A COMPLETE event for each stage. The same results have the same run, so that it is told once."""

    def datasets(items: Any) -> list[dict[str, Any]]:
        return [
            {"namespace": slug, "name": name, "facets": facets(name)}
            for name in (str(item["path"]) for item in items)
            if name in versions
        ]

    def facets(name: str) -> dict[str, Any]:
        version = {"_producer": PRODUCER, "_schemaURL": VERSION_FACET, "datasetVersion": versions[name]}  # fmt: skip
        fields = [{"name": field, "type": kind} for field, kind in columns.get(name, ())]
        schema = {"_producer": PRODUCER, "_schemaURL": SCHEMA_FACET, "fields": fields}
        return {"version": version, **({"schema": schema} if fields else {})}

    for name, stage in stages.items():
        results = json.dumps(
            [slug, name, [versions.get(str(out["path"])) for out in stage.get("outs", ())]]
        )
        yield {
            **{"eventTime": moment.isoformat(), "eventType": "COMPLETE", "producer": PRODUCER},
            "schemaURL": f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent",
            "run": {"runId": str(uuid.uuid5(uuid.NAMESPACE_URL, results))},
            "job": {"namespace": slug, "name": name},
            "inputs": datasets(stage.get("deps", ())),
            "outputs": datasets(stage.get("outs", ())),
        }
