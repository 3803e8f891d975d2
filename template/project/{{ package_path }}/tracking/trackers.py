"""MLflow and Weights & Biases: each is sent what it has not yet of the last run and of the model in production."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from .. import paths
from ..cards import report, write
from ..settings import Settings, TrackingSettings, UserError, read_json
from .record import Run, last_run, versions

ALIAS = "production"
# Both would tell their makers who uses them, and MLflow would ask a dead server seven times for two minutes each
QUIET = {
    **{"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"},
    **{"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"},
    "MLFLOW_UV_AUTO_DETECT": "false",  # what a model takes is said below
    **{"WANDB_ERROR_REPORTING": "false", "WANDB_CONSOLE": "off", "WANDB_DISABLE_GIT": "true"},
}
Sent = dict[str, str | None]  # tracker, run, production: what the file of the last call to it holds


def track(settings: Settings, root: Path) -> list[str]:
    """Send the last run, unless it was sent, and say which model is in production.

    Returns:
        what was sent, a line each.

    Raises:
        UserError: when there is no run, or the tracker is off, not installed, or not to be reached.
    """
    if settings.tracking.tracker == "none":
        raise UserError("tracking.tracker: none: name mlflow or wandb first")
    run, production = last_run(root), report(root / paths.PRODUCTION / paths.MANIFEST_FILE)
    if run is None and production is None:
        raise UserError("no run to send: `run` first, to the end")
    state, before = _state(settings, root), report(root / paths.TRACKED_RUN) or {}
    if before.get("tracker") != state["tracker"]:
        before = {}
    write(root / paths.TRACKING / ".gitignore", "*\n")
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    send = to_mlflow if settings.tracking.tracker == "mlflow" else to_wandb
    with _failing_in_a_line(settings.tracking.tracker):
        lines = send(settings, root, run, production, before)
    write(root / paths.TRACKED_RUN, json.dumps(state))
    return lines or [f"track: {settings.tracking.tracker} has the last run already"]


def track_in_background(settings: Settings, root: Path) -> str:
    """`track` in a process of its own, which may take `tracking.seconds`; whatever comes of it, one text.

    Returns:
        what was sent, or why nothing was; empty where there is nothing to send.
    """
    if settings.tracking.tracker == "none":
        return ""
    with suppress(UserError, LookupError, TypeError):  # of a report, which `track` then says
        if _state(settings, root) == report(root / paths.TRACKED_RUN):
            return ""
    command = [sys.executable, "-m", str(__package__).partition(".")[0], "track"]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, cwd=root, stdout=output, stderr=errors, start_new_session=True
        )
        try:
            code = process.wait(settings.tracking.seconds)
        except subprocess.TimeoutExpired:
            return f"not tracked: no end within {settings.tracking.seconds:g} seconds (tracking.seconds)"
        finally:
            _end(process)
        lines = [_text(stream).strip() for stream in (output, errors)]
    if code:
        why = lines[1].rpartition("error: ")[2] or f"exit code {code}"
        return f"not tracked: {' '.join(why.split())}; `track` tries again"
    return lines[0]


def _text(stream: Any) -> str:
    stream.seek(0)
    return str(stream.read().decode("utf-8", "replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and, where the system can, all that it started."""
    with suppress(OSError):
        os.killpg(process.pid, 9) if hasattr(os, "killpg") else process.kill()
    process.wait()


def _state(settings: Settings, root: Path) -> Sent:
    run, production = last_run(root), report(root / paths.PRODUCTION / paths.MANIFEST_FILE)
    block = settings.tracking
    return {
        "tracker": f"{block.tracker} {block.uri if block.tracker == 'mlflow' else block.offline}",
        "run": run.key if run else None,
        "production": production["sha256"] if production else None,
    }


@contextmanager
def _failing_in_a_line(tracker: str) -> Iterator[None]:
    """Whatever a tracker's library raises as a `UserError`, and what it prints nowhere."""
    logging.disable(logging.ERROR)
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield
    except (UserError, ModuleNotFoundError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()).partition(" with url")[0] or type(error).__name__
        raise UserError(f"{tracker}: {reason[:200]}") from None
    finally:
        logging.disable(logging.NOTSET)


def to_mlflow(
    settings: Settings, root: Path, run: Run | None, production: Any, _: Sent
) -> list[str]:
    """Send to MLflow what it has not; a model that passed the gate becomes a version in its registry."""
    lines = []
    mlflow = _connected(settings.tracking, settings.project.slug, root)
    if run and not mlflow.search_runs(
        filter_string=f"tags.key = '{run.key}' and attributes.status = 'FINISHED'",
        output_format="list",
        max_results=1,
    ):
        commit = {"mlflow.source.git.commit": run.tags.get("git_commit", "")}
        with mlflow.start_run(run_name=run.name, tags={**run.tags, **commit, "key": run.key}):
            mlflow.log_params(run.params)
            mlflow.log_metrics(run.metrics)
            for folder, files in (("pictures", run.pictures), ("documents", run.documents)):
                for path in files:
                    mlflow.log_artifact(str(path), folder)
            version = _version(mlflow, settings, root / paths.TRAINED, register=run.passed)
        lines.append(f"track: {run.name} is sent{f', version {version}' * bool(version)}")
    if production:
        version = _registered(mlflow, settings, production)
        if version is None:  # promoted before there was a tracker, or the smaller copy
            with mlflow.start_run(run_name=ALIAS, tags=versions(root, production)):
                version = _version(mlflow, settings, root / paths.PRODUCTION, register=True)
        client = mlflow.MlflowClient()
        client.set_registered_model_alias(settings.project.slug, ALIAS, version)
        lines.append(f"track: {ALIAS} is version {version}")
    return lines


def _connected(block: TrackingSettings, name: str, root: Path) -> Any:
    """MLflow's module, which keeps the experiment `name` in a file here or on a server."""
    location = None
    if block.uri.startswith("sqlite:"):
        for library in ("alembic", "sqlalchemy", "sqlparse"):  # of whose lack MLflow says too much
            import_module(library)
        location = (root / paths.TRACKING / "artifacts").resolve().as_uri()
    import mlflow

    mlflow.set_tracking_uri(block.uri)
    client = mlflow.MlflowClient()
    if client.get_experiment_by_name(name) is None:
        client.create_experiment(name, artifact_location=location)
    mlflow.set_experiment(name)
    return mlflow


def _registered(mlflow: Any, settings: Settings, manifest: Any) -> str | None:
    """The newest version of a model in the registry, by its checksum."""
    named = f"name = '{settings.project.slug}' and tags.sha256 = '{manifest['sha256']}'"
    versions_of_it = mlflow.MlflowClient().search_model_versions(named)
    return max((str(version.version) for version in versions_of_it), key=int, default=None)


def _version(mlflow: Any, settings: Settings, folder: Path, register: bool) -> str | None:
    """Log a folder's model with its signature to the run that is open; its version where it is registered."""
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.onnx import log_model
    from mlflow.types import Schema, TensorSpec

    manifest, model = read_json(folder / paths.MANIFEST_FILE), onnx.load(folder / paths.MODEL_FILE)

    def schema(values: Any) -> Any:
        specs: list[Any] = []
        for value in values:
            tensor = value.type.tensor_type
            shape = [size.dim_value or -1 for size in tensor.shape.dim]
            kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            specs.append(TensorSpec(kind, shape, value.name))
        return Schema(specs)

    version = _registered(mlflow, settings, manifest) if register else None
    logged = log_model(
        model,
        name="model",
        signature=ModelSignature(schema(model.graph.input), schema(model.graph.output)),
        save_as_external_data=False,  # in one file, which has the manifest's checksum
        pip_requirements=[f"onnxruntime=={manifest['versions']['onnxruntime']}", "numpy"],
        metadata={"sha256": manifest["sha256"], "threshold": manifest.get("threshold")},
        registered_model_name=settings.project.slug if register and version is None else None,
    )
    if register and version is None:
        version = str(logged.registered_model_version)
        mlflow.MlflowClient().set_model_version_tag(
            settings.project.slug, version, "sha256", manifest["sha256"]
        )
    return version


def to_wandb(
    settings: Settings, root: Path, run: Run | None, production: Any, before: Sent
) -> list[str]:
    """Send to W&B what was not sent from here; offline, `wandb sync` sends it on."""
    import wandb

    slug, lines = settings.project.slug, []
    options = {
        "project": slug,
        "dir": str(root / paths.TRACKING),
        "mode": "offline" if settings.tracking.offline else "online",
        "settings": {"silent": True, "init_timeout": 15, "disable_git": True},
    }

    def model(folder: Path) -> Any:
        manifest = read_json(folder / paths.MANIFEST_FILE)
        artifact = wandb.Artifact(slug, type="model", metadata=versions(root, manifest))
        for name in (paths.MODEL_FILE, paths.MANIFEST_FILE):
            artifact.add_file(str(folder / name))
        return artifact

    if run and before.get("run") != run.key:
        config = run.params | run.tags
        with wandb.init(
            id=run.key, name=run.name, job_type="run", config=config, **options
        ) as sent:
            pictures = {path.stem: wandb.Image(str(path)) for path in run.pictures}
            sent.log(run.metrics | pictures)
            documents = wandb.Artifact(f"{slug}-documents", type="documents")
            for path in run.documents:
                documents.add_file(str(path))
            sent.log_artifact(documents)
            if run.passed:
                sent.log_artifact(model(root / paths.TRAINED))
        lines.append(f"track: {run.name} is sent")
    if production and before.get("production") != production["sha256"]:
        name = f"{ALIAS}-{production['sha256'][:8]}"
        with wandb.init(name=name, job_type="promote", **options) as sent:
            sent.log_artifact(model(root / paths.PRODUCTION), aliases=[ALIAS])
        lines.append(f"track: {ALIAS} is {production['sha256'][:8]}")
    return lines
