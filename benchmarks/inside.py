"""The parts of spine.py that run inside a generated project, with its environment and package.

Each prints plain numbers: seconds, bytes or a ratio.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import duckdb
from my_model.settings import Settings, load


def changed(settings: Settings, **changes: object) -> Settings:
    """The settings with dotted keys changed (dots written as double underscores)."""
    tree = settings.model_dump(by_alias=True, mode="json")
    for key, value in changes.items():
        *parents, last = key.split("__")
        block = tree
        for name in parents:
            block = block[name]
        block[last] = value
    return Settings.model_validate(tree)


def parquet(file: str, rows: str) -> None:
    """Write that many of the sample's events (20 columns and more) to one Parquet file."""
    from my_model.data.sample import make

    database = duckdb.connect()
    with tempfile.TemporaryDirectory() as folder:
        for chunk in range(int(rows) // 250_000):
            events = make(250_000, chunk, 7.0)  # noqa: F841  (DuckDB reads it by its name)
            database.execute(
                f"COPY (SELECT * REPLACE ('{chunk}-' || event_id AS event_id, "
                f"'{chunk}-' || entity_id AS entity_id) FROM events) "
                f"TO '{folder}/{chunk:03}.parquet' (FORMAT parquet)"
            )
        database.execute(
            f"COPY (SELECT * FROM read_parquet('{folder}/*.parquet')) TO '{file}' (FORMAT parquet)"
        )


def stages(file: str) -> None:
    """Seconds and peak memory (bytes) of collect, label and split on a file."""
    from my_model.data.label import label
    from my_model.data.source import collect
    from my_model.data.split import split

    settings = changed(
        load(), data__source__kind="files", data__source__paths=[file], data__source__rows=None
    )
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for stage in (collect, label, split):
            stage(settings, Path(folder))
        seconds = time.perf_counter() - start
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
