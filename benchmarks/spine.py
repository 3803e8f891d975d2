"""Measures the figures that the template promises for itself, one line each.

    make bench                              all of them, about six minutes on two cores
    make bench ONLY=render,adopt            some of them

Where a figure is a ratio, both sides are timed in this one run, in turn, because machines are
noisy; the median of the pairs is shown. A project is generated into a scratch folder and installed
with uv, so the package cache should be warm (`make demo` once). Exit code 1 when a figure is missed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
INSIDE = Path(__file__).with_name("inside.py")
SMALL_ENV = {
    k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")
}


def timed(command: list[str], cwd: Path, **env: str) -> float:
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=cwd, env={**SMALL_ENV, **env}, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - start


def uv() -> str:
    return shutil.which("uv") or str(REPO / ".venv/bin/uv")


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


class Project:
    """A project, the default one where no parts are named, made once and shared by the figures that only read it."""

    def __init__(self, scratch: Path, parts: str | None = None) -> None:
        self.scratch = scratch
        self._answers = [] if parts is None else ["--data", f"parts=[{parts}]"]
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        if self._path is None:
            path = self.scratch / "my-model"
            timed([*copier(REPO, path), *self._answers], self.scratch)
            timed([uv(), "sync", "--quiet"], path)
            git(path, "init", "--quiet", "--initial-branch", "main")
            git(path, "add", ".")
            git(path, "commit", "--quiet", "--message", "generated")
            self._path = path
        return self._path

    def run(self, *arguments: str) -> float:
        path = f"{self.path / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"  # stages call `python`
        command = [str(self.path / ".venv/bin/python"), *arguments]
        return timed(command, self.path, PYTHONPATH="src", PATH=path)

    def inside(self, function: str, *arguments: str) -> list[float]:
        """Numbers that inside.py prints from within the project's own environment."""
        done = subprocess.run(
            [str(self.path / ".venv/bin/python"), str(INSIDE), function, *arguments],
            cwd=self.path,
            env={**SMALL_ENV, "PYTHONPATH": "src", "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        return [float(number) for number in done.stdout.split()]


def copier(source: Path, target: Path) -> list[str]:
    return [
        sys.executable, "-m", "copier", "copy", "--defaults", "--quiet", "--vcs-ref", "HEAD",
        str(source), str(target),
    ]  # fmt: skip


def render(project: Project) -> tuple[str, float, str, bool]:
    """`copier copy --defaults` against Copier on a template with one file."""
    scratch = project.scratch
    source, one_file, empty = (scratch / name for name in ("source", "one_file", "empty"))
    one_file.mkdir()
    (one_file / "copier.yml").write_text("name: {type: str, default: x}\n")
    (one_file / "README.md").write_text("nothing\n")
    git(one_file, "init", "--quiet")
    git(one_file, "add", ".")
    git(one_file, "commit", "--quiet", "--message", "one")
    for repository, packed in ((REPO, source), (one_file, empty)):  # packed, as a server sends it
        timed(["git", "clone", "--quiet", "--no-local", str(repository), str(packed)], scratch)
    ratios = []
    for turn in range(6):
        ours = timed(copier(source, scratch / f"ours{turn}"), scratch)
        theirs = timed(copier(empty, scratch / f"theirs{turn}"), scratch)
        ratios.append(ours / theirs)
    ratio = statistics.median(ratios[1:])  # the first pair warms up
    return "copier copy against an empty template", ratio, "<= 2.0 x", ratio <= 2.0


def demo(project: Project) -> tuple[str, float, str, bool]:
    """`make demo`, from command to gated, exported model, the package cache warm."""
    source = project.scratch / "fresh"
    timed(["git", "clone", "--quiet", str(REPO), str(source)], project.scratch)
    timed(["make", "demo"], source)  # warms the cache
    shutil.rmtree(source)
    timed(["git", "clone", "--quiet", str(REPO), str(source)], project.scratch)
    seconds = timed(["make", "demo"], source)
    return "make demo, package cache warm", seconds, "<= 30 s", seconds <= 30


def idle(project: Project) -> tuple[str, float, str, bool]:
    """`dvc repro` when nothing changed."""
    project.run("-m", "dvc", "repro", "--quiet")
    seconds = statistics.median(project.run("-m", "dvc", "repro", "--quiet") for _ in range(5))
    return "dvc repro with nothing to do", seconds, "<= 1.5 s", seconds <= 1.5


def size(project: Project) -> tuple[str, float, str, bool]:
    """The default environment, bytecode that Python adds later left out."""
    files = (project.path / ".venv").rglob("*")
    total = sum(
        f.stat().st_size for f in files if f.is_file() and not f.is_symlink() and f.suffix != ".pyc"
    )
    return "default environment installed", total / 1e6, "<= 700 MB", total <= 700e6


def overhead(project: Project) -> list[tuple[str, float, str, bool]]:
    """The whole `run` on 100,000 rows against the library calls that it is made of."""
    strict, imported = [], []
    for seed in (11, 12, 13):  # a new seed makes every stage run again
        change = ["--set", "data.source.rows=100000", "--set", f"project.seed={seed}"]
        whole = project.run("-m", "my_model", "run", *change)
        calls, with_imports = project.inside("calls")
        strict.append(whole / calls)
        imported.append(whole / with_imports)
    ratio, imported_ratio = statistics.median(strict), statistics.median(imported)
    return [
        ("run on 100,000 rows against its library calls", ratio, "<= 2.0 x", ratio <= 2.0),
        ("the same against the calls and their imports", imported_ratio, "-", True),
    ]


def explained(project: Project) -> tuple[str, float, str, bool]:
    """`explain` on 100,000 rows against one `train`, both as commands."""
    scratch = project.scratch / "explained"
    scratch.mkdir()
    analysed = Project(scratch, "analysis")
    settings = analysed.path / "params.yaml"
    text = settings.read_text("utf-8")
    changed_text = re.sub(r"(source:.*?\n\s+rows: )\S+", r"\g<1>100000", text, count=1, flags=re.S)
    assert changed_text != text
    settings.write_text(changed_text, "utf-8")
    analysed.run("-m", "my_model", "run")
    ratios = []
    for _ in range(3):
        trained = analysed.run("-m", "my_model", "train")
        ratios.append(analysed.run("-m", "my_model", "explain") / trained)
    ratio = statistics.median(ratios)
    return "explain on 100,000 rows against one training", ratio, "<= 2.0 x", ratio <= 2.0


def smaller(project: Project) -> list[tuple[str, float, str, bool]]:
    """`compress` on the sample: the size of the student that learnt from the model, and what of the metric it lost."""
    scratch = project.scratch / "compressed"
    scratch.mkdir()
    compressed = Project(scratch, "compression")
    lines = []
    for candidate in ("lightgbm", "stacked"):
        changes = (f"modelling.candidates=[{candidate}]", "compression.ways=[distillation]")
        compressed.run("-m", "my_model", "run", *(f"--set={change}" for change in changes))
        command = [str(compressed.path / ".venv/bin/my-model"), "compress"]
        # Exit code 1 where the student loses more than is allowed
        subprocess.run(command, cwd=compressed.path, env=SMALL_ENV, capture_output=True)
        way = json.loads((compressed.path / "reports/compression.json").read_text())["ways"][0]
        lost = -way["gain"]["gain"] if way["gain"] else float("nan")  # no copy was small enough
        size, keeps_metric = way["size"], not way["why"]
        lines.append((f"student of {candidate}: size", size, "<= 0.5 x", size <= 0.5))
        lines.append((f"student of {candidate}: metric lost", lost, "max_loss", keeps_metric))
    return lines


def large(project: Project) -> list[tuple[str, float, str, bool]]:
    """5 million rows of Parquet through collect, label and split."""
    files = [project.scratch / "half.parquet", project.scratch / "five.parquet"]
    for file, rows in zip(files, (500_000, 5_000_000), strict=True):
        project.inside("parquet", str(file), str(rows))
    half, _ = project.inside("stages", str(files[0]))
    five, peak = project.inside("stages", str(files[1]))
    growth = five / half / 10
    return [
        ("5 million rows: peak memory", peak / 1e9, "<= 2 GB", peak <= 2e9),
        ("5 million rows: time against 10 x that of 500,000", growth, "<= 1.2 x", growth <= 1.2),
    ]


def adopt(project: Project) -> tuple[str, float, str, bool]:
    """`adopt` on a CSV of 1 million rows."""
    file, rng = project.scratch / "customers.csv", random.Random(1)
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(
            [
                "Customer ID",
                "signup_date",
                "Age",
                "Plan",
                "City",
                "Spend",
                "Visits",
                "Note",
                "churned",
            ]
        )
        cities = [f"city {n}" for n in range(200)]
        for row in range(1_000_000):
            day = f"2026-{rng.randint(1, 9):02}-{rng.randint(1, 28):02}"
            age = rng.randint(18, 90) if rng.random() > 0.1 else ""
            spend, visits = round(rng.expovariate(0.02), 2), rng.randint(0, 40)
            churned = int(rng.random() < 0.1 + 0.3 * (visits < 5))
            city, plan = rng.choice(cities), rng.choice(["free", "basic", "pro"])
            writer.writerow(
                [f"c{row // 3}", day, age, plan, city, spend, visits, f"note {row}", churned]
            )
    before = (project.path / "params.yaml").read_bytes()
    arguments = [
        "adopt",
        str(file),
        "--label",
        "churned",
        "--time",
        "signup_date",
        "--group",
        "Customer ID",
    ]
    seconds = project.run("-m", "my_model", *arguments)
    (project.path / "params.yaml").write_bytes(before)
    return "adopt on a CSV of 1 million rows", seconds, "<= 15 s", seconds <= 15


def one_row(project: Project) -> tuple[str, float, str, bool]:
    """One row through model.onnx against scikit-learn's transformers and the same model."""
    project.run("-m", "dvc", "repro", "--quiet")
    (usual,) = project.inside("one_row")
    return "one row: scikit-learn's pipeline against ONNX", usual, ">= 100 x", usual >= 100


FIGURES: dict[str, Callable[[Project], object]] = {
    "render": render,
    "demo": demo,
    "size": size,
    "nothing": idle,
    "one_row": one_row,
    "overhead": overhead,
    "explain": explained,
    "compress": smaller,
    "adopt": adopt,
    "large": large,
}


def main(figures: dict[str, Callable[[Project], object]], about: str | None) -> int:
    """Print what `--only` names of the figures; 1 when one is missed."""
    parser = argparse.ArgumentParser(description=(about or "").split("\n")[0])
    parser.add_argument("--only", default=",".join(figures), help="names, separated by commas")
    names = parser.parse_args().only.split(",")
    if unknown := set(names) - set(figures):
        parser.error(f"no figure {', '.join(unknown)}; there are {', '.join(figures)}")
    missed = 0
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        project = Project(Path(scratch))
        for name in names:
            result = figures[name](project)
            for title, figure, target, reached in result if isinstance(result, list) else [result]:
                missed += not reached
                print(
                    f"{title:<52} {figure:8.2f}   {target:<10} {'ok' if reached else 'MISSED'}",
                    flush=True,
                )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(FIGURES, __doc__))
