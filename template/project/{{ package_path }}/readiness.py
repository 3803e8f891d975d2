"""How ready the project is for production: the 28 items of the ML Test Score (Breck et al., 2017).

readiness.yaml names the items and their proofs. A proof is what a check left behind: a report of the
pipeline, tests in the last test run, an alert with a test of its own; a claim counts for nothing. As
in the paper, an item gives a point when something checks it by itself, half a point when somebody has
to, and the score is the least of the four sections.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any, NotRequired, TypedDict
from xml.etree import ElementTree

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from ruamel.yaml import YAML

from . import paths
from .data.source import report as write
from .parts import part_module
from .repository import git
from .settings import Settings, UserError

TESTS = ".pytest_cache/report.xml"  # where pyproject.toml lets pytest write it
CI = (".gitlab-ci.yml", ".circleci/config.yml", *paths.JOB_FILES)
ITEMS: dict[str, list[dict[str, Any]]] = YAML(typ="safe").load(
    Path(__file__).with_name("readiness.yaml").read_text("utf-8")
)


class Item(TypedDict):
    """One of the 28: its points (1, 0.5 or 0), and what shows it or what it still needs."""

    section: str
    question: str
    points: float
    because: str


class Readiness(TypedDict):
    """How many items are shown, in full or in half; the least section's points; all sections' points."""

    shown: int
    score: float
    sections: dict[str, float]
    items: list[Item]
    governance: NotRequired[
        list[Any]
    ]  # what `governance.checklist` says of the entries for those who sign


def readiness(settings: Settings, root: Path) -> Readiness:
    """Write reports/readiness.json: what each of the 28 items is shown by, or what it still needs."""
    proofs = Proofs(settings, root)
    items: list[Item] = []
    for section, items_of_section in ITEMS.items():
        for item in items_of_section:
            points, because = _judge(item, proofs)
            judged = Item(section=section, question=item["item"], points=points, because=because)
            items.append(judged)
    sections = {
        name: sum(item["points"] for item in items if item["section"] == name) for name in ITEMS
    }
    count = sum(item["points"] > 0 for item in items)
    report = Readiness(shown=count, score=min(sections.values()), sections=sections, items=items)
    if signed := part_module("governance.checklist"):
        report["governance"] = signed.entries(settings, root)
    return write(root, "readiness", report)


def _judge(item: dict[str, Any], proofs: Proofs) -> tuple[float, str]:
    needs = [need for proof in item["full"] if (need := proofs.need(proof))]
    if not needs:
        return 1.0, proofs.describe(item["full"])
    if "half" in item and not any(proofs.need(proof) for proof in item["half"]):
        return 0.5, f"{proofs.describe(item['half'])}. For the rest: {'; '.join(needs)}"
    return 0.0, "; ".join(needs)


class Proofs:
    """What the project's checks left behind, read once; each proof is a method that says yes or no."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self.settings, self.root = settings, root

    def need(self, proof: str) -> str:
        """What a proof of readiness.yaml still needs; empty when it holds."""
        call, _, advice = proof.partition(" | ")
        name, *arguments = call.split(" ")
        if getattr(self, name)(*arguments):
            return ""
        return advice or {
            "tests": f"{' '.join(arguments)}: not all passed in a test run since the last change; `uv run pytest`",
            "alerts": f"no tested alert {' and '.join(arguments)} in {paths.ALERT_RULES} and {paths.ALERT_RULE_TESTS}",
        }.get(name, f"{call} is missing")

    def describe(self, proofs: list[str]) -> str:
        """Proofs of readiness.yaml as a text: each one's call, or its docstring when it takes nothing."""
        calls = [proof.split(" | ")[0] for proof in proofs]
        texts = (call if " " in call else str(getattr(self, call).__doc__)[:-1] for call in calls)
        return "; ".join(texts)

    def tests(self, *names: str) -> bool:
        """All tests with such a beginning of their path passed in the last run, and none was skipped."""
        runs = [[ok for test, ok in self._results if test.startswith(f"tests/{n}")] for n in names]
        return all(passed and all(passed) for passed in runs)

    def report(self, path: str) -> bool:
        """A report says something: at a key of it (name.key), or at all (name)."""
        name, _, key = path.partition(".")
        content = self._json(paths.report_path(name))
        return key in content and content[key] not in (None, False, []) if key else bool(content)

    def gate(self, target: str) -> bool:
        """The gate measured this target, and it holds."""
        rows = self._json(paths.GATE).get("rows", [])
        return any(row["target"] == target and row["passed"] is True for row in rows)

    def alerts(self, *names: str) -> bool:
        """Each of these alerts is there, and a test expects it to fire."""
        loud = r"alertname: *(\w+)(?!.*exp_alerts: *\[\])"
        tested = set(re.findall(loud, self._text(paths.ALERT_RULE_TESTS)))
        return set(names) <= tested & set(
            re.findall(r"alert: *(\w+)", self._text(paths.ALERT_RULES))
        )

    def ci(self, *command: str) -> bool:
        """Continuous integration, or a timer of it, runs a command with these words."""
        files = [*self.root.glob(".github/workflows/*.yml"), *map(self.root.joinpath, CI)]
        return any(" ".join(command) in path.read_text("utf-8") for path in files if path.is_file())

    def alike(self) -> bool:
        """The gate holds for each group of each sensitive column, and none moves an answer: the model reads none, or was tested."""
        sensitive = {*self.settings.modelling.evaluation.sensitive}
        judged = sensitive & self._json(paths.METRICS_REPORT).get("slices", {}).keys()
        if not sensitive or judged < sensitive or not self.gate("worst_slice"):
            return False
        return not sensitive & {*self._inputs} or self.gate("invariance")

    def chosen(self) -> bool:
        """A candidate keeps every limit of latency, size and fitting time."""
        rows = self._json(paths.CANDIDATES).get("rows", [])
        return any(row["verdict"] == "chosen" for row in rows)

    def no_personal_input(self) -> bool:
        """No column that the model reads is marked personal."""
        columns = self.settings.data.schema_.columns
        names = self._inputs
        return bool(names) and not any(columns[name].personal for name in names if name in columns)

    def not_kept(self) -> bool:
        """Personal columns were dropped or hashed when the data was collected, or there are none."""
        collected = self._json(paths.COLLECT_REPORT)
        stored = collected.get("personal") == "keep" and collected.get("personal_columns")
        return bool(collected) and not stored

    def committed(self) -> bool:
        """Code, settings and the lock are in git as they stand."""
        files = (
            "src",
            paths.SETTINGS_FILE,
            paths.PIPELINE,
            paths.PIPELINE_LOCK,
            paths.PROJECT_FILE,
        )
        tracked, changed = (self._git(c, "--", *files) for c in ("ls-files", "status -s"))
        return paths.PIPELINE_LOCK in tracked and not changed

    def decided(self) -> bool:
        """An online experiment came to a verdict."""
        experiment = self._json(paths.EXPERIMENT)
        return experiment.get("state") == "decided" and experiment.get("mode") != "backtest"

    def every_stage(self) -> bool:
        """The pipeline ran from the first stage to the last."""
        stages, ran = (
            set(re.findall(r"(?m)^  (\w+):", self._text(name)))
            for name in (paths.PIPELINE, paths.PIPELINE_LOCK)
        )
        return bool(stages) and stages <= ran

    def first_to_few(self) -> bool:
        """The router shows a new model to nobody, or to few, before all get it."""
        rollout = self.settings.rollout
        return bool(rollout) and rollout.router.mode in ("shadow", "canary", "ab", "bandit")

    @cached_property
    def _results(self) -> list[tuple[str, bool]]:
        """Each test of the last run as file::name, and whether it passed; none when code is newer."""
        path = self.root / TESTS
        code = [file for folder in ("src", "tests") for file in (self.root / folder).rglob("*.py")]
        if not path.is_file() or any(file.stat().st_mtime > path.stat().st_mtime for file in code):
            return []
        return [
            (f"{case.get('classname', '').replace('.', '/')}::{case.get('name')}", not list(case))
            for case in ElementTree.parse(path).iter("testcase")
        ]

    @property
    def _inputs(self) -> list[str]:
        """The columns that the trained model reads; none where there is no model."""
        return [column["name"] for column in self._json(paths.MANIFEST).get("inputs", [])]

    def _text(self, name: str) -> str:
        path = self.root / name
        return path.read_text("utf-8") if path.is_file() else ""

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return dict(json.loads(self._text(name) or "{}"))
        except ValueError:
            return {}

    def _git(self, command: str, *arguments: str) -> str:
        try:
            return git(self.root, *command.split(), *arguments)
        except UserError:
            return ""


def show(report: Readiness, console: Console) -> None:
    """Print a table a section, then the score."""
    for section, points in report["sections"].items():
        table = Table("", "item", "shown by, or still needed", box=SIMPLE_HEAD)
        table.title, table.title_justify = f"{section}: {points:g} of 7", "left"
        for item in report["items"]:
            if item["section"] == section:
                mark = {1.0: "[green]1", 0.5: "[yellow]½"}.get(item["points"], "[bold red]0")
                table.add_row(mark, item["question"], escape(item["because"]))
        console.print(table)
    entries = report.get("governance", [])
    if entries:
        table = Table("", "entry", "shown by, or still needed", box=SIMPLE_HEAD)
        table.title, table.title_justify = "for those who sign", "left"
        for entry in entries:
            mark = "[green]1" if entry["is_shown"] else "[bold red]0"
            table.add_row(mark, f"{entry['id']} {entry['question']}", escape(entry["because"]))
        console.print(table)
    console.print(
        f"{report['shown']} of 28 are shown; ML Test Score (the least of the four): {report['score']:g}"
    )
    if entries:
        count = sum(entry["is_shown"] for entry in entries)
        console.print(
            f"{count} of {len(entries)} entries for those who sign are shown, apart from these"
        )
