"""For Airflow 3: a DAG for each job of jobs.yaml, which runs in the image of jobs.Dockerfile.

Both files lie in Airflow's DAG folder, or it holds the project's clone. PROJECT_FOLDER names the clone that
the worker mounts; without it, the one that this file is in. A task that failed is an alarm or a fault.
"""

from __future__ import annotations

import os
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

HERE = Path(__file__).resolve().parent
PLAN = yaml.safe_load((HERE / "jobs.yaml").read_text("utf-8"))
FOLDER = os.environ.get("PROJECT_FOLDER", str(HERE.parent))

for name, job in PLAN["jobs"].items():
    command = ["docker", "run", "--rm", "--volume", f"{FOLDER}:/project", PLAN["image"]]
    with DAG(
        f"{PLAN['project']}-{name}",
        schedule=job["schedule"],
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(hours=2),
    ):
        BashOperator(task_id=name, bash_command=shlex.join([*command, *job["arguments"]]))
