"""What each way of `modelling.imbalance` gains on public tables with a rare yes, over several splits.

    make bench-imbalance                 the tables of TABLES, `adopt` and no other edit than the setting
    make bench-imbalance ONLY=caravan

A gain is LightGBM's average precision on the validation rows minus that of the plain rows, by `train`, for each seed
of SEEDS, which splits the rows anew; its mean has a standard error over the seeds. Exit code 1 when an exported model
differs from the trained one.
"""

from __future__ import annotations

import argparse
import json
import re
import sys

import numpy as np
from spine import REPO, timed, uv
from tables import HOME, PARITY, Projects, tables

TABLES = ["caravan", "default", "attrition"]
WAYS = ["class_weights", "costs", "under_sampling", "tomek_links", "smote", "two_phase", "focal"]
SEEDS = (1, 2, 3, 4, 5)
STAGES = ("collect", "label", "split", "train")


def gains(projects: Projects, name: str, about: dict) -> tuple[dict[str, list[float]], float]:
    """LightGBM's metric by variant and seed, and the largest difference of an exported model."""
    folder, csv = projects.fresh("binary", f"imbalance-{name}"), HOME / "csv" / f"{name}.csv"
    call = ["-m", "my_model"]
    adopt = ["adopt", str(csv), "--label", about["label"], "--positive", about["positive"]]
    code, output, _ = projects.call("binary", folder, *call, *adopt)
    if code:
        sys.exit(output[-2000:])
    params = folder / "params.yaml"
    text = params.read_text().replace("imbalance: []", f"imbalance: [{', '.join(WAYS)}]")
    text = re.sub(r"candidates:(.*)\n(    - \w+\n)+", r"candidates: [lightgbm] \1\n", text)
    metrics: dict[str, list[float]] = {}
    parity = 0.0
    for seed in SEEDS:
        params.write_text(re.sub(r"(?m)^  seed: \d+", f"  seed: {seed}", text))
        for stage in STAGES:
            code, output, _ = projects.call("binary", folder, *call, stage)
            if code:
                sys.exit(f"{name}, seed {seed}, {stage}: {output[-2000:]}")
        for row in json.loads((folder / "reports/candidates.json").read_text())["rows"]:
            parity = max(parity, row["parity"] or 0.0)
            if row["name"].startswith("lightgbm"):
                metrics.setdefault(row["name"].partition(" ")[2], []).append(row["metric"])
    return metrics, parity


def main() -> int:
    """Measure what `--only` names; 1 when a figure is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default=",".join(TABLES), help="names of tables")
    names = parser.parse_args().only.split(",")
    HOME.mkdir(parents=True, exist_ok=True)
    projects, largest = Projects(REPO, []), 0.0
    base = projects.bases["binary"][0]
    with_group = [uv(), "sync", "--quiet", "--group", "imbalance"]
    timed(with_group, base, UV_PROJECT_ENVIRONMENT=str(HOME / "project"))
    for name, about in tables(names).items():
        metrics, parity = gains(projects, name, about)
        largest = max(largest, parity)
        plain = np.array(metrics.pop(""))
        print(f"{name:<12}{'plain':<16}{plain.mean():.3f}", flush=True)
        for way, values in metrics.items():
            gain = np.array(values) - plain
            error = gain.std(ddof=1) / np.sqrt(len(gain))
            print(f"{'':<12}{way:<16}{np.mean(values):.3f}  {gain.mean():+.3f} ± {error:.3f}")
    print(f"largest difference of an exported model: {largest:.1e} (at most {PARITY:g})")
    return int(largest > PARITY)


if __name__ == "__main__":
    sys.exit(main())
