"""Ours against ten lines by a good engineer, on fifty public tables: `adopt`, `run`, no edit.

    make bench-tables                       all tables; about an hour the first time, on two cores
    make bench-tables ONLY=bikes,caravan    some of them
    make bench-tables ONLY=hog              is the same model chosen beside a processor hog?
    make bench-tables ONLY=binary           those of one kind
    python benchmarks/tables.py --template ../other      another clone of the template

The tables are written by `public.py` from packages in an environment of its own. Each table gets a
fresh project of its kind; `run` may exit with 1, as the gate is the user's. Then the default calls
of LightGBM, HistGradientBoosting and CatBoost (`defaults.py`) are fitted on train and valid of the
same split files, and all predict the test rows. The error is MAE, 1 - average precision for yes
or no, or the log loss of several classes (there also against logistic regression). Worse beyond noise: the 95 % interval of the difference over 2,000 paired resamples of the
test rows lies above 0. Everything stays in build/tables: tables, environments, and the peers'
predictions under the checksum of the split files, so that a rerun costs only our own runs.
Exit code 1 when a figure is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from public import LIBRARIES, PACKAGES, TABLES
from spine import REPO, SMALL_ENV, copier, git, timed, uv

BENCHMARKS = Path(__file__).parent
HOME = REPO / "build/tables"
CATBOOST = ["catboost", "duckdb", "pandas"]
PEERS = {"binary": ["lightgbm", "histgb"],
         "regression": ["lightgbm", "histgb", "lightgbm_l1", "histgb_l1"],
         "multiclass": ["lightgbm", "histgb", "logistic"]}  # fmt: skip
STRONGEST = {
    kind: ["catboost", *(["catboost_l1"] if kind == "regression" else [])] for kind in PEERS
}
PARITY = 1e-5  # of the exported model
RESAMPLES, SEED, LEVEL = 2000, 1, 0.95
HOGS = 4  # busy processes beside the run
MADE = {".venv", "data", "models", ".dvc/cache", ".dvc/tmp"}  # by a project, not copied
Array = np.ndarray


def environment(name: str, packages: list[str], alone: tuple[str, ...] = ()) -> Path:
    """The Python of an environment with these packages, and `alone` ones without what they need."""
    folder = HOME / name
    mark = folder / "packages.txt"
    listing = "\n".join([*packages, *alone])
    if not mark.exists() or mark.read_text() != listing:
        shutil.rmtree(folder, ignore_errors=True)
        install = [uv(), "pip", "install", "--quiet", "--python", str(folder)]
        timed([uv(), "venv", "--quiet", "--python", "3.11", str(folder)], REPO)
        timed([*install, *packages], REPO)
        if alone:
            timed([*install, "--no-deps", *alone], REPO)
        mark.write_text(listing)
    return folder / "bin/python"


def tables(names: list[str]) -> dict[str, Any]:
    """What `adopt` is told about each table; those that are not there yet are written."""
    folder = HOME / "csv"
    script = hashlib.sha256((BENCHMARKS / "public.py").read_bytes()).hexdigest()
    mark = folder / "script.sha256"
    if mark.exists() and mark.read_text() != script:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if missing := [name for name in names if not (folder / f"{name}.csv").exists()]:
        python = environment("data", LIBRARIES, tuple(PACKAGES))
        timed([str(python), str(BENCHMARKS / "public.py"), str(folder), ",".join(missing)], REPO)
    mark.write_text(script)
    about = json.loads((folder / "tables.json").read_text())
    return {name: about[name] for name in names}


class Projects:
    """A fresh project for each table, all run by one environment."""

    def __init__(self, template: Path, generated: list[Path], *answers: str) -> None:
        self.bases: dict[str, tuple[Path, Path]] = {}  # kind -> folder, its Python
        for path in generated:
            text = (path / "params.yaml").read_text()
            kind = next(problem for problem in PEERS if f"problem: {problem}" in text)
            self.bases[kind] = path, path / ".venv/bin/python"
        if generated:
            return
        for kind in PEERS:
            base = HOME / f"base-{kind}"
            shutil.rmtree(base, ignore_errors=True)
            data = [
                argument
                for answer in (f"problem_type={kind}", *answers)
                for argument in ("--data", answer)
            ]
            timed([*copier(template, base), *data], REPO)
            git(base, "init", "--quiet", "--initial-branch", "main")
            self.bases[kind] = base, HOME / "project/bin/python"
        timed([uv(), "sync", "--quiet"], base, UV_PROJECT_ENVIRONMENT=str(HOME / "project"))

    def fresh(self, kind: str, name: str) -> Path:
        """A copy of the project, committed, without what it has made."""
        folder = HOME / "runs" / name
        shutil.rmtree(folder, ignore_errors=True)
        base = self.bases[kind][0]
        made = {str(base / part) for part in MADE}
        shutil.copytree(
            base, folder, ignore=lambda at, names: [n for n in names if f"{at}/{n}" in made]
        )
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--allow-empty", "--message", "generated")
        return folder

    def call(self, kind: str, folder: Path, *arguments: str) -> tuple[int, str, float]:
        """Exit code, output and seconds of a command with the project's Python."""
        python = self.bases[kind][1]
        path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"  # stages call `python`
        start = time.perf_counter()
        done = subprocess.run(
            [str(python), *arguments],
            cwd=folder,
            env={**SMALL_ENV, "PYTHONPATH": "src", "PATH": path, "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr, time.perf_counter() - start


def trained(projects: Projects, name: str, about: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`adopt` and `run`; what came of them, or under `failed` the last line that was said."""
    adopt = ["adopt", str(HOME / "csv" / f"{name}.csv"), "--label", about["label"]]
    for option in ("positive", "time", "group"):
        adopt += [f"--{option}", about[option]] if about[option] else []
    kind, result = about["kind"], {}
    for step in (adopt, ["run"]):
        code, output, seconds = projects.call(kind, folder, "-m", "my_model", *step)
        (folder / f"{step[0]}.txt").write_text(output)
        result[f"{step[0]}_seconds"] = seconds
        if code > (step == ["run"]):
            lines = [line for line in output.splitlines() if line.strip()]
            return {**result, "failed": f"{step[0]}: {lines[-1] if lines else 'said nothing'}"}
    gate = json.loads((folder / "reports/gate.json").read_text())
    table = json.loads((folder / "reports/candidates.json").read_text())
    chosen = table["chosen"]
    parity = next(row["parity"] for row in table["rows"] if row["chosen"])
    missed = [row["target"] for row in gate["rows"] if row["passed"] is False]
    return {**result, "chosen": chosen, "parity": parity, "gate_missed": missed}


def predicted(projects: Projects, kind: str, folder: Path, unused: list[str]) -> dict[str, Array]:
    """The predictions of all on the test rows, the truth beside; the peers' from the cache."""
    project, script = projects.bases[kind][1], str(BENCHMARKS / "defaults.py")
    out = folder / "ours.npz"
    code, output, _ = projects.call(kind, folder, script, "ours", ".", str(out))
    if code:
        sys.exit(output[-3000:])
    key = hashlib.sha256(f"{kind} {sorted(unused)}".encode() + Path(script).read_bytes())
    for part in ("train", "valid", "test"):
        key.update((folder / f"data/split/{part}.parquet").read_bytes())
    cache = HOME / "peers" / f"{folder.name}-{key.hexdigest()[:16]}"
    cache.mkdir(parents=True, exist_ok=True)
    answers = dict(np.load(out))
    answers["seen"] = answers.pop("columns")
    for peers, python in ((PEERS, project), (STRONGEST, environment("catboost", CATBOOST))):
        archive = cache / f"{peers[kind][0]}.npz"
        if not archive.exists():
            fresh = cache / "fresh.npz"
            arguments = ["peers", str(folder), kind, ",".join(unused), str(fresh)]
            timed([str(python), script, *arguments, ",".join(peers[kind])], REPO)
            fresh.replace(archive)
        predictions = np.load(archive)
        answers |= {name: predictions[name] for name in peers[kind]}
    return answers


def errors(kind: str, truth: Array, score: Array, draws: Array | None = None) -> Array:
    """MAE, 1 - average precision or log loss of all rows, then of each resample (rows of counts)."""
    counts = np.ones((1, len(truth))) if draws is None else draws
    if kind == "multiclass":
        of_truth = score[np.arange(len(truth)), truth.astype(int)]
        return counts @ -np.log(np.clip(of_truth, 1e-7, 1)) / counts.sum(1)
    if kind == "regression":
        return counts @ np.abs(score - truth) / counts.sum(1)
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)  # equal scores as one
    hits = np.cumsum(counts[:, order] * truth[order], 1)[:, ends]
    ranked = np.maximum(np.cumsum(counts[:, order], 1)[:, ends], 1)
    gained = np.diff(hits, axis=1, prepend=0)
    return 1 - (gained * hits / ranked).sum(1) / np.maximum(hits[:, -1], 1)


def resampled(kind: str, truth: Array, scores: dict[str, Array]) -> dict[str, Array]:
    """The errors of each model on the same 2,000 resamples, in blocks that fit the memory."""
    rng, rows = np.random.default_rng(SEED), len(truth)
    blocks: dict[str, list[Array]] = {name: [] for name in scores}
    step = max(1, min(RESAMPLES, 4_000_000 // rows))
    for start in range(0, RESAMPLES, step):
        drawn = rng.integers(0, rows, (min(step, RESAMPLES - start), rows))
        counts = np.stack([np.bincount(row, minlength=rows) for row in drawn]).astype(float)
        for name, score in scores.items():
            blocks[name].append(errors(kind, truth, score, counts))
    return {name: np.concatenate(parts) for name, parts in blocks.items()}


def compared(kind: str, answers: dict[str, Array], parts: list[str]) -> dict[str, Any]:
    """Our error and the peers', and whether ours is worse than each beyond noise."""
    truth = answers["truth"]
    names = ["ours", *PEERS[kind], *STRONGEST[kind]]
    scores = {name: answers[name].astype(float) for name in names}
    whole = {name: float(errors(kind, truth, score)[0]) for name, score in scores.items()}
    drawn = resampled(kind, truth, scores)
    tail = 100 * (1 - LEVEL) / 2
    against = {}
    for name in names[1:]:
        low, high = np.percentile(drawn["ours"] - drawn[name], [tail, 100 - tail])
        against[name] = {"low": float(low), "high": float(high), "worse": bool(low > 0)}
    parts_seen = sorted(set(answers["seen"].tolist()) & set(parts))
    return {"error": whole, "against": against, "test_rows": len(truth), "parts_seen": parts_seen}


def measured(projects: Projects, name: str, about: dict[str, Any]) -> dict[str, Any]:
    """Everything about one table."""
    kind = about["kind"]
    folder = projects.fresh(kind, name)
    result = {"kind": kind, "rows": about["rows"], **trained(projects, name, about, folder)}
    if "failed" in result:
        return result
    code, output, _ = projects.call(kind, folder, "-c", (
        "from my_model.settings import load; s = load(); "
        "print(' '.join(s.modelling.evaluation.sensitive))"
    ))  # fmt: skip
    sensitive = output.split() if not code else []
    unused = [*about["ids"], *about["parts"], *sensitive]
    answers = predicted(projects, kind, folder, unused)
    return {**result, **compared(kind, answers, about["parts"])}


def better(result: dict[str, Any], names: tuple[str, ...]) -> str:
    """Of some peers the one with the smaller error."""
    return min(names, key=lambda name: result["error"][name])


def ratio(result: dict[str, Any], peer: str) -> float:
    ours, theirs = result["error"]["ours"], result["error"][peer]
    return ours / theirs if theirs > 1e-9 else 1.0 if ours <= 1e-9 else math.inf


HEADS = ("ours", "LightGBM", "HistGB", "CatBoost", "ratio", "L1", "cat", "run s")


def line(name: str, result: dict[str, Any]) -> str:
    """One table for the eye; `*` after a ratio: worse beyond noise."""
    start = f"{name:<15}{result['kind'][:6]:<7}{result['rows']:>8,} "
    if "failed" in result:
        return f"{start} FAILED  {result['failed']:.150}"
    error = result["error"]
    cells = [f"{error[model]:>10.4g}" for model in ("ours", "lightgbm", "histgb", "catboost")]
    for pair in (("lightgbm", "histgb"), ("lightgbm_l1", "histgb_l1"), ("catboost",)):
        if pair[0] not in error:
            cells.append(f"{'-':>8}")
            continue
        peer = better(result, pair)
        cells.append(
            f"{ratio(result, peer):>7.3f}{'*' if result['against'][peer]['worse'] else ' '}"
        )
    run_text = f"{result['run_seconds']:>6.0f}  {result['chosen']}"
    cheat = f"  SEES {', '.join(result['parts_seen'])}" if result["parts_seen"] else ""
    missed = f"  gate: {', '.join(result['gate_missed'])}" if result["gate_missed"] else ""
    return start + "".join(cells) + run_text + cheat + missed


def summary(results: dict[str, Any]) -> list[tuple[str, float, str, bool]]:
    """The figures of issue 11, their targets and whether each is reached."""
    stopped = [name for name, result in results.items() if "failed" in result]
    leaking = [name for name, result in results.items() if result.get("parts_seen")]
    ran = {name: result for name, result in results.items() if name not in (*stopped, *leaking)}
    classes = {
        name: ran.pop(name) for name, result in [*ran.items()] if result["kind"] == "multiclass"
    }
    lines = [
        (f"tables where {fault} ({', '.join(names) or 'none'})", len(names), "0", not names)
        for fault, names in (
            ("adopt or run stopped", stopped),
            ("the model sees parts that add up to the label, left out below", leaking),
        )
    ]
    pairs = {
        "the better of LightGBM's and HistGB's defaults": ("lightgbm", "histgb"),
        "the better of the two with the L1 loss": ("lightgbm_l1", "histgb_l1"),
        "CatBoost's defaults": ("catboost",),
        "CatBoost's defaults with the L1 loss": ("catboost_l1",),
    }
    for peer, reference in (
        ("lightgbm", "LightGBM's defaults"),
        ("logistic", "logistic regression"),
    ):
        worse = [name for name, result in classes.items() if result["against"][peer]["worse"]]
        title = (
            f"several classes: worse beyond noise than {reference} ({', '.join(worse) or 'none'})"
        )
        lines += [(title, len(worse), "0", not worse)] if classes else []
    if classes:
        parity = max(result["parity"] for result in classes.values())
        lines.append(("several classes: parity", 1e5 * parity, "<= 1 e-5", parity <= PARITY))
    for reference, names in pairs.items():
        peers = {
            name: better(result, names)
            for name, result in ran.items()
            if names[0] in result["error"]
        }
        if not peers:
            continue
        worse = [name for name, peer in peers.items() if ran[name]["against"][peer]["worse"]]
        ratios = [ratio(ran[name], peer) for name, peer in peers.items()]
        mean = float(np.mean(ratios))
        judged, least = "L1" not in reference, 1.0 if "CatBoost" in reference else 0.97
        target = f"<= {least}" if judged else "-"
        lines += [
            (f"worse beyond noise than {reference} ({', '.join(worse) or 'none'})", len(worse),
             "0" if judged and least < 1 else "-", not worse or not judged or least == 1),
            (f"mean ratio to {reference}, {len(peers)} tables", mean, target,
             mean <= least or not judged),
            (f"  its geometric mean; tables where ours is at least as good: "
             f"{sum(value <= 1 for value in ratios)}",
             float(np.exp(np.mean(np.log(np.clip(ratios, 1e-3, 1e3))))), "-", True),
        ]  # fmt: skip
    return lines


@contextmanager
def hogs(count: int) -> Iterator[None]:
    """So many processes that do nothing but keep a processor busy."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def hog(projects: Projects) -> list[tuple[str, float, str, bool]]:
    """Whether the default projects choose and export the same model beside a processor hog."""
    differing = 0
    for kind in projects.bases:
        made = []
        for count in (0, HOGS):
            folder = projects.fresh(kind, f"hog-{kind}-{count}")
            with hogs(count):
                code, output, seconds = projects.call(kind, folder, "-m", "my_model", "run")
            if code > 1:
                sys.exit(output[-2000:])
            rows = json.loads((folder / "reports/candidates.json").read_text())["rows"]
            model = hashlib.sha256((folder / "models/model.onnx").read_bytes()).hexdigest()
            made.append(([(row["name"], row["verdict"]) for row in rows], model, code))
            chosen = next(row["name"] for row in rows if row["chosen"])
            print(f"{kind}, {count} hogs: {chosen}, {model[:8]}, exit {code}, {seconds:.0f} s")
        differing += made[0] != made[1]
    return [("models or verdicts that differ beside a hog", differing, "0", differing == 0)]


def chosen(selection: str) -> list[str]:
    """The tables that `--only` names, by name or kind, and `hog`."""
    kinds = {kind: [name for name, table in TABLES.items() if table.kind == kind] for kind in PEERS}
    names = [name for selector in selection.split(",") for name in kinds.get(selector, [selector])]
    if unknown := set(names) - set(TABLES) - {"hog"}:
        sys.exit(f"no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}, hog")
    return names


def main() -> int:
    """Measure what `--only` names; 1 when a figure is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    everything = f"{','.join(TABLES)},hog"
    parser.add_argument("--only", default=everything, help="names, kinds or hog")
    parser.add_argument("--template", type=Path, default=REPO, help="another clone of it")
    parser.add_argument("--project", type=Path, action="append", default=[],
                        help="a generated project to copy instead; once for each kind")  # fmt: skip
    arguments = parser.parse_args()
    names = chosen(arguments.only)
    HOME.mkdir(parents=True, exist_ok=True)
    projects = Projects(
        arguments.template.resolve(), [path.resolve() for path in arguments.project]
    )
    about = tables([name for name in names if name != "hog"])
    about = {name: table for name, table in about.items() if table["kind"] in projects.bases}
    results_file, results = HOME / "results.json", {}
    if about:
        print(" " * 31 + "".join(f"{head:>10}" for head in HEADS[:4])
              + "".join(f"{head:>8}" for head in HEADS[4:7]) + f"{HEADS[7]:>6}")  # fmt: skip
    for name, table in about.items():
        results[name] = measured(projects, name, table)
        print(line(name, results[name]), flush=True)
        earlier = json.loads(results_file.read_text()) if results_file.exists() else {}
        results_file.write_text(json.dumps({**earlier, name: results[name]}, indent=1) + "\n")
    figures = summary(results) if results else []
    figures += hog(projects) if "hog" in names else []
    missed = 0
    for title, figure, target, reached in figures:
        missed += not reached
        print(f"{title:<100.200} {figure:8.3f}   {target:<8} {'ok' if reached else 'MISSED'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
