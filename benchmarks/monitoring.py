"""Measures what the monitor promises, beside Evidently and NannyML on the same rows, in one run.

    make bench-monitoring                        everything, about half an hour on two cores
    make bench-monitoring ONLY=speed,naming      some of it

The peers come from PyPI into environments of their own, which need a network once. Sizes of the
shifts stand in watched.py, the rows in shifts.py. Exit code 1 when a figure is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from spine import REPO, SMALL_ENV, Project, copier, git, timed, uv

BENCHMARKS = Path(__file__).resolve().parent
PEERS = {
    "evidently": ["evidently>=0.7,<0.8", "pandas<3", "pyarrow"],  # 0.7 breaks with pandas 3
    "nannyml": [
        "nannyml>=0.13,<0.14",
        "pandas<3",
        "pyarrow",
        "statsmodels",
    ],  # it forgets to ask for it
}
ROUNDS = 3  # timings of each, in turn
FALSE_ALARMS = 0.05  # at which the powers are compared


class Bench:
    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.project = Project(scratch)
        self.other_projects: dict[str, Path] = {}
        self.missed = False

    def ready(self) -> None:
        """A project on rows of 20 columns, and the peers beside it."""
        self.project.path  # noqa: B018  (it is made when first asked for)
        for name, packages in PEERS.items():
            timed([uv(), "venv", "--quiet", str(self.scratch / name)], self.scratch)
            python = str(self.scratch / name / "bin/python")
            timed([uv(), "pip", "install", "--quiet", "--python", python, *packages], self.scratch)
        rows = self.scratch / "rows.parquet"
        code = f"from shifts import draw; draw(40_000, 1).to_parquet({str(rows)!r})"
        timed([str(self.scratch / "evidently/bin/python"), "-c", code], BENCHMARKS)
        adopt = ["adopt", str(rows), "--label", "y", "--positive", "1"]
        self.project.run("-m", "my_model", *adopt)
        self.project.run("-m", "my_model", "run", "--set", "modelling.candidates=[lightgbm]")

    def other_project(self, name: str, rows: str, kind: str, *adopt: str) -> Path:
        """Another project, on other rows, with the environment of the first."""
        if name not in self.other_projects:
            path = self.scratch / name
            made = copier(REPO, path)
            timed([*made[:-2], "--data", f"problem_type={kind}", *made[-2:]], self.scratch)
            git(path, "init", "--quiet", "--initial-branch", "main")
            drawn = f"from shifts import *; {rows}.to_parquet({str(path / 'rows.parquet')!r})"
            timed([str(self.scratch / "evidently/bin/python"), "-c", drawn], BENCHMARKS)
            run = "run", "--set", "modelling.candidates=[lightgbm]"
            for command in (("adopt", "rows.parquet", "--label", "y", *adopt), run):
                python = self.project.path / ".venv/bin/python"
                search = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
                timed(
                    [str(python), "-m", "my_model", *command], path, PYTHONPATH="src", PATH=search
                )
            self.other_projects[name] = path
        return self.other_projects[name]

    def watched(self, *arguments: str, at: Path | None = None) -> Any:
        return self._ask(self.project.path / ".venv/bin/python", "watched.py", *arguments, at=at)

    def peer(self, name: str, *arguments: str) -> Any:
        return self._ask(self.scratch / name / "bin/python", "peers.py", *arguments)

    def _ask(self, python: Path, script: str, *arguments: str, at: Path | None = None) -> Any:
        folder = at or self.project.path
        done = subprocess.run(
            [str(python), str(BENCHMARKS / script), *arguments],
            cwd=folder,
            env={
                **SMALL_ENV,
                "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{BENCHMARKS}",
                "NML_DISABLE_USAGE_LOGGING": "1",
            },
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"{script} {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def say(self, text: str, held: bool | None = None) -> None:
        mark = {None: "", True: "  ok", False: "  MISSED"}[held]
        self.missed |= held is False
        print(f"{text}{mark}", flush=True)

    def speed(self) -> None:
        folder = str(self.scratch / "speed")
        rows = self.watched("speed_rows", folder, "1000000")["rows"]
        spent: dict[str, list[float]] = {}
        peak = 0
        for _ in range(ROUNDS):
            for labels in ("without", "with"):
                ours = self.watched("speed", folder, labels)
                theirs = self.peer("nannyml", "nannyml_speed", folder, labels)
                spent.setdefault(f"ours {labels}", []).append(ours["seconds"])
                spent.setdefault(f"nannyml {labels}", []).append(theirs["seconds"])
                peak = max(peak, ours["peak"])
        spent["evidently without"] = [self.peer("evidently", "evidently_speed", folder)["seconds"]]
        middle = {key: statistics.median(values) for key, values in spent.items()}
        for key, value in middle.items():
            self.say(f"speed, {rows:,} rows x 20, {key} labels: {value:.2f} s")
        for peer, labels in (("evidently", "without"), ("nannyml", "without"), ("nannyml", "with")):
            pairs = zip(spent[f"{peer} {labels}"], spent[f"ours {labels}"], strict=False)
            ratio = statistics.median(a / b for a, b in pairs)
            held = ratio >= 10 if labels == "without" else None
            self.say(f"speed against {peer}, {labels} labels: {ratio:.1f} x (to reach: 10)", held)
        self.say(f"memory: {peak / 1e9:.2f} GB (at most 1)", peak <= 1e9)

    def alarms(self) -> None:
        results = self.watched("false_alarms", "200", "2000")
        share = results["alarmed"] / results["windows"]
        self.say(
            f"false alarms: {share:.1%} of {results['windows']} windows (at most 5 %), "
            f"{results['reports']} of 4 reports {results['kinds']}",
            share <= 0.05 and results["reports"] == 0,
        )

    def course(self) -> None:
        rows = "draw_course(56 * 700, 1, '2026-01-05', 56 * 24)"
        path = self.other_project("course", rows, "binary", "--positive", "1", "--time", "at")
        results = self.watched("course", "100", "1500", at=path)["found"]
        usual = [counts for name, counts in results.items() if name != "shifted day"]
        windows, alarmed = (sum(counts[key] for counts in usual) for key in ("windows", "alarmed"))
        self.say(
            f"false alarms under a course of day and week: {alarmed / windows:.1%} of {windows} windows (at most 5 %)",
            alarmed <= 0.05 * windows,
        )
        shifted = results["shifted day"]
        self.say(f"  a tenth of the spread beyond it: {shifted['alarmed']} of {shifted['windows']}")

    def estimates(self) -> None:
        """Before labels: error of the estimate, and how often its interval holds what came later."""
        numbers = self.other_project("numbers", "draw_numbers(40_000, 1)", "regression")
        for estimator, path, binary in (("CBPE", self.project.path, "1"), ("DLE", numbers, "0")):
            folder = str(self.scratch / f"estimates-{estimator}")
            results = self.watched("estimate_rows", folder, "40", "2000", at=path)
            theirs = self.peer(
                "nannyml", "nannyml_estimates", folder, str(results["decision"]), binary
            )
            ours = results["estimates"]
            for metric in (key for key in ours[0] if key != "plan"):
                errors, by_plan = [], {}
                for our_estimate, peer_estimate in zip(ours, theirs, strict=True):
                    truth = our_estimate[metric]["truth"]
                    pair = [
                        abs(estimate[metric]["value"] - truth)
                        for estimate in (our_estimate, peer_estimate)
                    ]
                    held = [
                        estimate[metric]["low"] <= truth <= estimate[metric]["high"]
                        for estimate in (our_estimate, peer_estimate)
                    ]
                    errors.append(pair)
                    by_plan.setdefault(our_estimate["plan"], []).append([*pair, *held])
                mean = np.mean(errors, axis=0)
                self.say(
                    f"error of the estimated {metric}: ours {mean[0]:.4f}, {estimator} {mean[1]:.4f} (no more)",
                    bool(mean[0] <= mean[1]),
                )
                for plan, rows in by_plan.items():
                    a, b, held, other_held = np.mean(rows, axis=0)
                    self.say(
                        f"  {plan}: ours {a:.4f} and {held:.0%} within, {estimator} {b:.4f} and {other_held:.0%}"
                    )

    def naming(self) -> None:
        results = self.watched("naming", "20", "5000")
        self.say(
            f"right kind: {results['right']:.1%} of 7 kinds x 20 seeds (at least 90 %)",
            results["right"] >= 0.9,
        )
        for kind, names in results["said"].items():
            self.say(f"  {kind}: {names}")

    def power(self) -> None:
        folder = str(self.scratch / "power")
        ours = self.watched("power_rows", folder, "300", "100", "2000")
        plan = np.array(ours["plan"])
        null = plan == "none 0"
        # Its p-values are on one scale already: the smallest one, by the weights that an alarm takes
        loudest = np.array([window["loudest"] for window in ours["statistics"]])
        powers = {"ours": _detected_shares(plan, loudest)}
        alarmed = np.array([window["alarm"] for window in ours["statistics"]])
        for name in PEERS:
            figures = self.peer(name, f"{name}_power", folder)
            powers[name] = _detected_shares(plan, _loudest(figures, null))
        for shift in dict.fromkeys(plan):
            if shift == "none 0":
                continue
            shares = {name: shares[shift] for name, shares in powers.items()}
            listing = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
            usual = alarmed[plan == shift].mean()
            self.say(
                f"power at {FALSE_ALARMS:.0%} false alarms, {shift}: {listing} (ours as set: {usual:.0%})",
                shares["ours"] >= max(shares[name] for name in PEERS),
            )


def _loudest(figures: list[dict[str, float]], null: np.ndarray) -> np.ndarray:
    """A peer's statistic of each window: its figure that stands out most from windows without a shift.

    Kinder than the peers' own thresholds, which never or nearly always ring, and than life: nobody has
    windows of which it is known that nothing shifted.
    """
    names = sorted(set.intersection(*(set(window) for window in figures)))
    table = np.array([[window[name] for name in names] for window in figures])
    spread = table[null].std(axis=0)
    used = spread > 0
    return np.nanmax(np.abs(table - table[null].mean(axis=0))[:, used] / spread[used], axis=1)


def _detected_shares(plan: np.ndarray, statistic: np.ndarray) -> dict[str, float]:
    """The share of each shift's windows above what the loudest windows without a shift say."""
    bar = np.quantile(statistic[plan == "none 0"], 1 - FALSE_ALARMS)
    return {shift: float((statistic[plan == shift] > bar).mean()) for shift in dict.fromkeys(plan)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="speed,alarms,course,estimates,naming,power")
    names = parser.parse_args().only.split(",")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        bench = Bench(Path(scratch))
        bench.ready()
        for name in names:
            getattr(bench, name)()
    return int(bench.missed)


if __name__ == "__main__":
    sys.exit(main())
