"""Runs and the model in production in a real MLflow server, in a file and in W&B's records; the catalogue read by DataHub's
and OpenLineage's own packages; what starts the jobs, held against Kubernetes' schema and loaded by Airflow."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import ENV, Project, await_answer

pytestmark = pytest.mark.at_turn(1)
MLFLOW = "mlflow==3.17.2"
DATAHUB, OPENLINEAGE = "acryl-datahub==1.7.0.17", "openlineage-python==1.54.0"
KUBERNETES, AIRFLOW = "kubernetes-validate==1.37.0", "apache-airflow>=3.1,<4"
START_SECONDS = 240
UV = ["uv", "run", "--quiet", "--no-project", "--python", sys.executable]
# A model as a registry gives it back is the file that the gate judged, and answers as it does
LOADED = """
import mlflow, numpy as np, onnxruntime
from pathlib import Path
folder = Path(mlflow.artifacts.download_artifacts("models:/my-model@production"))
assert (folder / "model.onnx").read_bytes() == Path("models/production/model.onnx").read_bytes()
model = mlflow.pyfunc.load_model("models:/my-model@production")
row = {
    tensor.name: np.full([max(1, size) for size in tensor.shape], "a" if tensor.type == object else 1.5, tensor.type)
    for tensor in model.metadata.get_input_schema()
}
session = onnxruntime.InferenceSession("models/production/model.onnx")
for output, values in zip(session.get_outputs(), session.run(None, row)):
    assert np.array_equal(model.predict(row)[output.name], values, equal_nan=True), output.name
"""
# The records of a W&B run lie in LevelDB's log format: blocks of 32 KB, chunks with a header of seven bytes
RECORDS = """
import json, struct, sys
from wandb.proto.wandb_internal_pb2 import Record
for name in sys.argv[1:]:
    data, at, whole = open(name, "rb").read(), 7, b""
    run = {"artifacts": {}, "figures": {}}
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind not in (1, 4):
            continue
        record, whole = Record.FromString(whole), b""
        if record.HasField("run"):
            run |= {"id": record.run.run_id, "job": record.run.job_type}
            run["config"] = {item.key: json.loads(item.value_json) for item in record.run.config.update}
        for item in record.history.item:
            run["figures"][item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        if record.HasField("artifact"):
            run["artifacts"][record.artifact.name] = [*record.artifact.aliases]
    print(json.dumps(run))
"""
DATAHUB_READS = """
import sys
from datahub.emitter.mcp import MetadataChangeProposalWrapper
from datahub.ingestion.source.file import read_metadata_file
from pathlib import Path
for entry in read_metadata_file(Path(sys.argv[1])):
    assert isinstance(entry, MetadataChangeProposalWrapper), entry
    assert entry.validate(), entry
    print(entry.entityUrn, entry.aspectName)
"""
OPENLINEAGE_READS = """
import json, sys
from openlineage.client import event_v2 as v2
from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet
from openlineage.client.generated.schema_dataset import SchemaDatasetFacet, SchemaDatasetFacetFields
from openlineage.client.serde import Serde
def facet(cls, url, _producer, _schemaURL, **values):
    made = cls(**values, producer=_producer)
    assert _schemaURL.split("/")[-1] == made._schemaURL.split("/")[-1]
    return made
def dataset(cls, item):
    facets = dict(item["facets"])
    made = {"version": facet(DatasetVersionDatasetFacet, "", **facets.pop("version"))}
    if schema := facets.pop("schema", None):
        fields = [SchemaDatasetFacetFields(**field) for field in schema.pop("fields")]
        made["schema"] = facet(SchemaDatasetFacet, "", **schema, fields=fields)
    assert not facets
    return cls(namespace=item["namespace"], name=item["name"], facets=made)
for line in open(sys.argv[1]):
    event = json.loads(line)
    rest = {key: event.pop(key) for key in ("eventTime", "eventType", "producer")}
    made = v2.RunEvent(
        **{**rest, "eventType": v2.RunState[rest["eventType"]]},
        run=v2.Run(**event.pop("run")), job=v2.Job(**event.pop("job")),
        inputs=[dataset(v2.InputDataset, item) for item in event.pop("inputs")],
        outputs=[dataset(v2.OutputDataset, item) for item in event.pop("outputs")],
    )
    assert event.pop("schemaURL") == made.schemaURL and not event
    Serde.to_json(made)
    print(made.job.name)
"""
DAGS = """
import json
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(".")
assert not bag.import_errors, bag.import_errors
print(json.dumps({name: [task.bash_command for task in dag.tasks] for name, dag in bag.dags.items()}))
"""


class Server:
    """An MLflow server, asked as any program asks it."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"

    def ask(self, path: str, content: Any = None) -> Any:
        body = None if content is None else json.dumps(content).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.address}/api/2.0/mlflow/{path}", body, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def runs(self) -> list[Any]:
        experiment = self.ask("experiments/get-by-name?experiment_name=my-model")["experiment"]
        content = {"experiment_ids": [experiment["experiment_id"]]}
        return self.ask("runs/search", content).get("runs", [])

    def production(self) -> str | None:
        """The version that has the alias."""
        model = self.ask("registered-models/get?name=my-model")["registered_model"]
        return {item["alias"]: item["version"] for item in model.get("aliases", [])}.get("production")  # fmt: skip


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = ["uvx", "--quiet", "--python", sys.executable, "--from", MLFLOW, "mlflow", "server", "--port", str(port)]  # fmt: skip
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/store.db", "--artifacts-destination", str(tmp_path / "files"), "--workers", "1"]  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, env={**ENV, "MLFLOW_DISABLE_TELEMETRY": "true"}, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )  # fmt: skip
    made = Server(port)
    try:
        search = "experiments/search", {"max_results": 1}
        await_answer(lambda: made.ask(*search), process, tmp_path / "log", START_SECONDS)
        yield made
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def to(uri: str) -> tuple[str, ...]:
    return ("--set", "tracking.tracker=mlflow", "--set", f"tracking.uri={uri}")


def warnings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("not tracked")]


def test_runs_and_the_model_in_production_reach_a_server_once_and_a_dead_one_costs_a_line(
    ran, server, tmp_path
):
    (line,) = warnings(ran.cli("run", *to(server.address)).stdout)
    assert "`uv sync --group mlflow`" in line
    assert "`uv sync --group mlflow`" in ran.cli("track", code=2).stderr
    ran.call("uv", "sync", "--quiet", "--group", "mlflow")

    assert "is sent, version 1" in ran.cli("run").stdout
    (run,) = server.runs()
    manifest, gate = (json.loads(ran.read(f"{name}.json")) for name in ("models/manifest", "reports/gate"))  # fmt: skip
    tags, figures, params = (
        {item["key"]: item["value"] for item in run["data"][kind]}
        for kind in ("tags", "metrics", "params")
    )
    assert (run["info"]["status"], tags["sha256"], tags["gate"]) == ("FINISHED", manifest["sha256"], "passed")  # fmt: skip
    assert tags["mlflow.source.git.commit"] == ran.git("rev-parse", "HEAD").strip()
    assert f"md5: {tags['dvc_md5']}" in ran.read("dvc.lock")
    assert {f"gate.{row['target']}" for row in gate["rows"] if row["measured"] is not None} <= figures.keys()  # fmt: skip
    assert params["project.seed"] == "7"
    listing = f"artifacts/list?run_id={run['info']['run_id']}&path="
    folders = [server.ask(f"{listing}{name}")["files"] for name in ("pictures", "documents")]
    listed = {item["path"] for files in folders for item in files}
    pictures = {f"pictures/{path.name}" for path in (ran.path / "reports/plots").glob("*.png")}
    assert listed == pictures | {f"documents/{name}" for name in ("model_card.md", "data_card.md", "metrics.json", "gate.json")}  # fmt: skip

    assert server.production() is None
    assert "production is version 1" in ran.cli("promote").stdout
    assert server.production() == "1"
    ran.call("uv", "run", "--quiet", "python", "-c", LOADED, MLFLOW_TRACKING_URI=server.address)
    (ran.path / "tracking/sent.json").unlink()  # as on another machine
    assert ran.cli("track").stdout == "track: production is version 1\n"
    assert ran.cli("run").stdout.count("track") == 0
    assert len(server.runs()) == 1

    ran.cli("run", "--set", "project.seed=8")
    assert len(server.runs()) == 2
    ran.cli("promote")
    assert server.production() == "2"
    ran.cli("rollback")
    assert server.production() == "1"

    done = ran.cli("run", *to("http://127.0.0.1:9"))
    (line,) = warnings(done.stdout)
    assert "127.0.0.1:9" in line
    assert "Next:" in done.stdout
    assert "no end within" not in line  # it gives up by itself
    assert len(warnings(ran.cli("rollback").stdout)) == 1


def test_a_file_and_offline_records_hold_the_same(ran):
    ran.call("uv", "sync", "--quiet", "--group", "mlflow-local", "--group", "wandb")
    ran.cli("promote")
    printed = ran.cli("run", *to("sqlite:///tracking/mlflow.db")).stdout
    assert "is sent, version 1" in printed
    assert "production is version 1" in printed
    ran.call("uv", "run", "--quiet", "python", "-c", LOADED, MLFLOW_TRACKING_URI="sqlite:///tracking/mlflow.db")  # fmt: skip
    ran.cli("run", "--set", "tracking.tracker=wandb")
    ran.cli("run")
    dead = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    online = ("--set", "tracking.offline=false", "--set", "tracking.seconds=20")
    assert len(warnings(ran.cli("run", *online, **dead).stdout)) == 1
    files = sorted((ran.path / "tracking/wandb").glob("offline-run-*/*.wandb"))
    printed = ran.call("uv", "run", "--quiet", "python", "-c", RECORDS, *map(str, files)).stdout
    run, promotion = map(json.loads, printed.splitlines())
    metrics = json.loads(ran.read("reports/metrics.json"))["primary"]
    assert run["figures"][metrics["name"]] == metrics["value"]
    seed = yaml.safe_load(ran.read("params.yaml"))["project"]["seed"]
    assert run["config"]["project.seed"] == str(seed)
    assert {path.stem for path in (ran.path / "reports/plots").glob("*.png")} <= {name.partition(".")[0] for name in run["figures"]}  # fmt: skip
    assert run["artifacts"].keys() == {"my-model", "my-model-documents"}
    assert promotion["job"] == "promote"
    assert "production" in promotion["artifacts"]["my-model"]
    assert promotion["id"] != run["id"]
    assert ran.git("status", "--porcelain", "--", "tracking") == ""


def test_datahub_and_openlineage_read_the_catalogue(ran):
    ran.cli("catalogue", "export", "build/catalogue")
    datahub, openlineage = (str(ran.path / "build/catalogue" / name) for name in ("datahub.json", "openlineage.jsonl"))  # fmt: skip
    entries = ran.call(*UV, "--with", DATAHUB, "python", "-c", DATAHUB_READS, datahub).stdout
    aspects = {line.split(" ")[1] for line in entries.splitlines()}
    assert aspects == {
        "datasetProperties", "schemaMetadata", "upstreamLineage", "mlFeatureProperties", "mlFeatureTableProperties",
        "mlModelProperties", "mlModelTrainingData",
    }  # fmt: skip
    checked = ran.call("uvx", "--quiet", "--python", sys.executable, "--from", DATAHUB, "datahub", "check", "metadata-file", datahub)  # fmt: skip
    assert "all valid" in checked.stdout + checked.stderr
    jobs = ran.call(*UV, "--with", OPENLINEAGE, "python", "-c", OPENLINEAGE_READS, openlineage).stdout  # fmt: skip
    assert jobs.split() == [*yaml.safe_load(ran.read("dvc.lock"))["stages"]]


def made(template: Path, folder: Path, **answers: str) -> Project:
    """A project that is only rendered."""
    data = [part for name, value in answers.items() for part in ("--data", f"{name}={value}")]
    command = [sys.executable, "-m", "copier", "copy", "--defaults", "--quiet", *data]
    subprocess.run([*command, str(template), str(folder)], check=True, env=ENV)
    return Project(folder)


def test_kubernetes_takes_the_jobs(template, tmp_path):
    project = made(template, tmp_path / "project", scheduler="kubernetes")
    items = yaml.safe_load(project.read("ops/cronjobs.yaml"))["items"]
    assert [item["metadata"]["name"] for item in items] == ["my-model-score", "my-model-monitor", "my-model-retrain"]  # fmt: skip
    for number, item in enumerate(items):
        (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump(item))
    command = ["uvx", "--quiet", "--python", sys.executable, "--from", KUBERNETES, "kubernetes-validate", "--strict"]  # fmt: skip
    project.call(*command, *(str(tmp_path / f"{number}.yaml") for number in range(len(items))))


def test_airflow_loads_the_jobs(template, tmp_path):
    project = made(template, tmp_path / "project", scheduler="airflow", prediction_mode="batch")
    env = {"AIRFLOW_HOME": str(tmp_path / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "PROJECT_FOLDER": "/srv/clone"}  # fmt: skip
    dags = Project(project.path / "ops")
    printed = dags.call(*UV, "--with", AIRFLOW, "python", "-c", DAGS, **env).stdout
    tasks = json.loads(printed.splitlines()[-1])
    start = "docker run --rm --volume /srv/clone:/project my-model-jobs"
    assert tasks["my-model-retrain"] == [f"{start} retrain"]
    assert tasks["my-model-score"] == [f"{start} score 'incoming/*.parquet' --out data/answers.parquet --log"]  # fmt: skip
    assert tasks.keys() == {f"my-model-{name}" for name in ("score", "monitor", "retrain")}
