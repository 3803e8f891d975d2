"""Whether `tune` makes models worse: 60 seconds of it on three public tables, tuned against untuned on the test rows.

    make bench-tune                      the tables of TABLES, `adopt` and no other edit than the candidate; about ten minutes on two free cores
    make bench-tune ONLY=caravan
    make bench-tune ALL=1                what ships of all candidates that `adopt` leaves, of two seeds; about half an hour

Of each table the candidate lightgbm is trained as `adopt` leaves it, after `tune`, and, beside that, with the best
hyper-parameters of the search whether `tune` wrote them or not. With all candidates a seed draws the rows anew, unless by time. The error is that of tables.py; its difference has a 95 %
interval over 2,000 paired resamples of the test rows. Exit code 1 when what `tune` leaves is worse than the untuned model
beyond noise.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from spine import REPO, timed, uv
from tables import BENCHMARKS, HOME, LEVEL, Projects, errors, resampled, tables

TABLES = ["caravan", "bikes", "diamonds"]
SECONDS = 60
SEEDS = (7, 8)  # of a project as it comes, and another


def call(projects: Projects, kind: str, folder: Path, *arguments: str) -> float:
    """Run a command of a project that has to work; its seconds."""
    code, output, seconds = projects.call(kind, folder, *arguments)
    if code:
        sys.exit(f"{folder.name}, {' '.join(arguments)}: exit code {code}: {output[-2000:]}")
    return seconds


def scores(projects: Projects, kind: str, folder: Path) -> dict[str, Any]:
    """Train with the settings as they are; the truth and the scores of the test rows."""
    call(projects, kind, folder, "-m", "my_model", "train")
    out = str(folder / "ours.npz")
    call(projects, kind, folder, str(BENCHMARKS / "defaults.py"), "ours", ".", out)
    return dict(np.load(out))


def measured(
    projects: Projects, name: str, about: dict[str, Any], seed: int | None
) -> dict[str, Any]:
    """The errors of a table's models, and the intervals of how much larger they are than the untuned one's.

    Args:
        seed: of the project, with all candidates; None: its own, with lightgbm alone.
    """
    kind, folder = about["kind"], projects.fresh(about["kind"], f"tuning-{name}-{seed or 0}")
    adopt = ["adopt", str(HOME / "csv" / f"{name}.csv"), "--label", about["label"]]
    for option in ("positive", "time", "group"):
        adopt += [f"--{option}", about[option]] if about[option] else []
    call(projects, kind, folder, "-m", "my_model", *adopt)
    params = folder / "params.yaml"
    text = params.read_text()
    alone = r"candidates:(.*)\n(    - \w+\n)+", r"candidates: [lightgbm] \1\n"
    params.write_text(re.sub(*(alone if seed is None else (r"seed: \d+", f"seed: {seed}")), text))
    for command in ("collect", "label", "split"):
        call(projects, kind, folder, "-m", "my_model", command)
    before = scores(projects, kind, folder)
    seconds = call(projects, kind, folder, "-m", "my_model", "tune", "--seconds", str(SECONDS))
    report = json.loads((folder / "reports/tuning.json").read_text())
    applied = [key for key, row in report["candidates"].items() if row["applied"]]
    tuned = scores(projects, kind, folder)["ours"] if applied else before["ours"]
    models = {"untuned": before["ours"], "tuned": tuned}
    if seed is None:
        call(projects, kind, folder, "-c", (
            "import json; from pathlib import Path; from my_model.tuning.tune import write_settings; "
            "rows = json.loads(Path('reports/tuning.json').read_text())['candidates']; "
            "write_settings(Path('params.yaml'), {n: r['best']['values'] for n, r in rows.items()})"
        ))  # fmt: skip
        models["best on the folds"] = scores(projects, kind, folder)["ours"]
    truth, tail = before["truth"], 100 * (1 - LEVEL) / 2
    drawn = resampled(kind, truth, models)
    result: dict[str, Any] = {"applied": applied, "verdict": report["verdict"], "seconds": seconds}
    for model, score in models.items():
        low, high = np.percentile(drawn[model] - drawn["untuned"], [tail, 100 - tail])
        error = float(errors(kind, truth, score)[0])
        result[model] = {"error": error, "low": float(low), "high": float(high)}
    return result


def main() -> int:
    """Measure what `--only` names; 1 when a tuned model is worse."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default=",".join(TABLES), help="names of tables")
    parser.add_argument("--all", action="store_true", help="all candidates, of two seeds")
    arguments = parser.parse_args()
    seeds, names = SEEDS if arguments.all else (None,), arguments.only.split(",")
    HOME.mkdir(parents=True, exist_ok=True)
    projects = Projects(REPO, [], "parts=[serving, monitoring, tuning]")
    with_group = [uv(), "sync", "--quiet", "--group", "tuning"]
    base = projects.bases["binary"][0]
    timed(with_group, base, UV_PROJECT_ENVIRONMENT=str(HOME / "project"))
    results, worse = {}, []
    for (name, about), seed in itertools.product(tables(names).items(), seeds):
        results[f"{name} {seed or ''}"] = result = measured(projects, name, about, seed)
        print(f"{name}: {result['verdict']} ({result['seconds']:.0f} s)", flush=True)
        for model in ("untuned", "tuned", *(["best on the folds"] if seed is None else [])):
            row = result[model]
            interval = f"{row['low']:+.4g} to {row['high']:+.4g}"
            print(
                f"  {model:<20} error {row['error']:.4g}, {interval} more than untuned", flush=True
            )
        worse += [name] * (result["tuned"]["low"] > 0)
    (HOME / "tuning.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"tables where tuning made it worse beyond noise: {', '.join(worse) or 'none'}")
    return int(bool(worse))


if __name__ == "__main__":
    sys.exit(main())
