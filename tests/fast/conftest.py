"""Renders the template in this process, each set of answers once.

Copier spends most of a rendering on reading and compiling what it read and compiled before, and on asking
git for a setting once a file; here the first is remembered and the second left out. The work tree is copied to a plain folder first.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import itertools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import copier
import jinja2
import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
COPIER_YML = yaml.safe_load((REPO / "copier.yml").read_text(encoding="utf-8"))
QUESTIONS: dict[str, dict[str, Any]] = {
    name: spec for name, spec in COPIER_YML.items() if not name.startswith("_")
}
COMPUTED = {name for name, spec in QUESTIONS.items() if spec.get("when") is False}
TYPES = sorted(path.name for path in (REPO / "template/problems").iterdir() if path.is_dir())
# What the answer machinery_tests brings: documents name these files in every project
MACHINERY = {
    path.relative_to(REPO / "template/project").as_posix().removesuffix(".jinja")
    for path in [
        REPO / "template/project/tests/machinery",
        *REPO.glob("template/project/tests/machinery/**/*"),
    ]
}
ANSWERS_FILE = ".copier-answers.yml"
# Choices that depend on another answer are Jinja in copier.yml; said here in plain words, for each type that is asked
COSTLY_ERROR = {
    "binary": ["false_negative", "false_positive", "equal"],
    "regression": ["under_prediction", "over_prediction", "equal"],
    "forecasting": ["under_prediction", "over_prediction", "equal"],
}

Generate = Callable[..., Path]
Answers = dict[str, Any]


def choices(name: str, problem_type: str = "binary") -> list[Any]:
    """What a question with a short list of answers allows; empty for free text and numbers."""
    if name == "costly_error":
        return COSTLY_ERROR.get(problem_type, ["equal"])
    spec = QUESTIONS[name]
    if spec["type"] == "bool":
        return [True, False]
    options = spec.get("choices", [])
    return list(options.values()) if isinstance(options, dict) else list(options)


# For a question without choices, other answers than the default
ALTERNATIVES: dict[str, list[Any]] = {
    "project_name": ["Churn"],
    "project_slug": ["churn-2"],
    "package_name": ["churn_model"],
    "owner": ["Search team"],
    "business_goal": ["Call the customers who are about to leave"],
    "description": ["Predicts who leaves"],
    "business_metric": ["customers kept per month"],
    "entity": ["household"],
    "object": ["tariff", ""],
    "alert_budget": [0.05],
    "cost_false_positive": [7],
    "cost_false_negative": [0.5],
    "cost_over_prediction": [7],
    "cost_under_prediction": [0.5],
    "label_delay_days": [0, 30],
    "latency_budget_ms": [20],
    "statements": [{"law": "Annex III", "frame": {"tried": "a rule"}, "use": {"wrong": "a *b*"}}],
    "data_remote_url": ["../../shared", "/srv/data"],
}
ALL_PARTS = list(QUESTIONS["parts"]["choices"].values())
# Sets of parts: none, all, each alone, and all but one
PART_SETS = [
    [], ALL_PARTS, *([part] for part in ALL_PARTS), *([p for p in ALL_PARTS if p != part] for part in ALL_PARTS),
]  # fmt: skip
# A free text and an image in the sample, and the tests of the machinery, which come with every part
WITH_INPUTS: Answers = {"inputs": ["text", "image"], "machinery_tests": True, "parts": ALL_PARTS}
# Names that appear under one answer only
NEEDS: dict[str, Answers] = {
    "alert_budget": {"problem_type": "anomaly"},
    "cost_over_prediction": {"problem_type": "regression"},
    "cost_under_prediction": {"problem_type": "regression"},
    "machinery_tests": {"parts": ALL_PARTS},
    "tracker": {"parts": ["tracking"]},
    "statements": {"parts": ["governance"]},
}


def sums() -> list[tuple[str, Answers, Answers]]:
    """One row per answer that is not the default: its question, what it needs, the whole set."""
    rows = []
    for name in QUESTIONS.keys() - COMPUTED:
        bases = (
            [{"problem_type": problem_type} for problem_type in COSTLY_ERROR]
            if name == "costly_error"
            else [NEEDS.get(name, {})]
        )
        for base in bases:
            kind = base.get("problem_type", "binary")
            default = (
                choices(name, kind)[0] if name == "costly_error" else QUESTIONS[name]["default"]
            )
            alternatives = [
                choice for choice in choices(name, kind) if choice != default
            ] or ALTERNATIVES[name]
            if QUESTIONS[name].get("multiselect"):
                alternatives = PART_SETS if name == "parts" else [[c] for c in choices(name)]
            rows += [(name, base, {**base, name: alternative}) for alternative in alternatives]
    return sorted(rows, key=str)


def pairs() -> list[Answers]:
    """Few sets of answers in which each two short-listed answers meet at least once (greedy)."""
    values: dict[str, list[Any]] = {
        name: choices(name)
        for name in (
            "problem_type", "label_source", "personal_data", "split_by", "prediction_mode",
            "interpretable", "ci", "data_remote", "license",
        )
    }  # fmt: skip
    values["object"] = ["offer", ""]
    values["label_delay_days"] = [7, 0]
    values["costly_error"] = [0, 1, 2]  # a place in the type's own list
    uncovered = {
        frozenset([(a, x), (b, y)])
        for a, b in itertools.combinations(values, 2)
        for x in values[a]
        for y in values[b]
    }
    rows = []
    while uncovered:
        # Begin with a pair that is still missing, then take the answer that meets most of the others
        row = dict(min(uncovered, key=lambda pair: sorted(map(str, pair))))
        for name, options in values.items():
            if name not in row:
                row[name] = max(
                    options,
                    key=lambda option: sum(
                        frozenset([(name, option), answer]) in uncovered for answer in row.items()
                    ),
                )
        uncovered -= {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}
        costly = choices("costly_error", row["problem_type"])
        rows.append({**row, "costly_error": costly[row["costly_error"] % len(costly)]})
    return rows


TEXTS = (
    "project_name", "owner", "business_goal", "description", "business_metric", "entity", "object",
)  # fmt: skip
AWKWARD = "\"50 %\" \\ $(touch x) `id` 🚀 # a: b | c <b> & &amp; 'q' {d} [e](f) ~g~ *h* _i_ ünï"


def presets() -> dict[str, Answers]:
    paths = sorted((REPO / "presets").glob("*.yml"))
    return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths}


def matrix() -> list[Answers]:
    return [
        {},
        *(
            {"problem_type": problem_type, "machinery_tests": True}
            for problem_type in TYPES
            if problem_type != "binary"  # the default
        ),
        {"problem_type": "regression"},
        *({**WITH_INPUTS, "problem_type": problem_type} for problem_type in TYPES),
        *(row for _, _, row in sums()),
        *pairs(),
        *presets().values(),
        dict.fromkeys(TEXTS, AWKWARD),
    ]


def copy_of_work_tree(path: Path) -> Path:
    """What Copier needs of the work tree, as a plain folder."""
    shutil.copy(REPO / "copier.yml", path)
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache")
    shutil.copytree(REPO / "template", path / "template", ignore=ignored)
    return path


def keep(made: Path, target: Path) -> Path:
    """Puts a folder in its place, unless another worker was there before with the same."""
    with contextlib.suppress(OSError):
        made.rename(target)
    return target


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder of this test run that its workers have in common."""
    base_folder = tmp_path_factory.getbasetemp()
    folder = (base_folder.parent if "PYTEST_XDIST_WORKER" in os.environ else base_folder) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def source(tmp_path_factory, shared) -> Path:
    return keep(copy_of_work_tree(tmp_path_factory.mktemp("source")), shared / "source")


def remember_compiled(patch: pytest.MonkeyPatch) -> None:
    """Compiles each template once."""
    compiled: dict[Any, Any] = {}
    original = jinja2.Environment.compile

    @functools.wraps(original)
    def compile_once(self, source, name=None, filename=None, raw=False, defer_init=False):
        if not isinstance(source, str):
            return original(self, source, name, filename, raw, defer_init)
        key = (source, name, filename, raw, defer_init, self.trim_blocks, self.lstrip_blocks)
        if key not in compiled:
            compiled[key] = original(self, source, name, filename, raw, defer_init)
        return compiled[key]

    patch.setattr(jinja2.Environment, "compile", compile_once)


def remember_context(patch: pytest.MonkeyPatch) -> None:
    """Gathers the answers once a rendering: when files are written, all questions are answered."""
    worker = copier._main.Worker
    render, context, answers_path = (
        worker._render_template,
        worker._render_context,
        worker.answers_relpath.fget,
    )
    contexts: dict[int, tuple[dict[str, Any], Path]] = {}

    def render_with_one_context(self):
        contexts[id(self)] = context(self), answers_path(self)
        try:
            render(self)
        finally:
            del contexts[id(self)]

    patch.setattr(worker, "_render_template", render_with_one_context)
    patch.setattr(
        worker,
        "_render_context",
        lambda self: dict(contexts[id(self)][0] if id(self) in contexts else context(self)),
    )
    patch.setattr(
        worker,
        "answers_relpath",
        property(
            lambda self: contexts[id(self)][1] if id(self) in contexts else answers_path(self)
        ),
    )


@contextlib.contextmanager
def compiled_once(scratch: Path):
    """No user settings, no git calls, and each template read and compiled once for all renderings."""
    (scratch / "settings.yml").write_text("{}\n")
    read = functools.cache(copier._template.load_template_config)

    def read_once(*args, **kwargs):
        return copy.deepcopy(read(*args, **kwargs))

    with pytest.MonkeyPatch.context() as patch:
        remember_compiled(patch)
        remember_context(patch)
        for module in ("_main", "_template"):
            patch.setattr(f"copier.{module}.is_git_available", lambda: False)
        patch.setattr("copier._template.load_template_config", read_once)
        patch.setenv("COPIER_SETTINGS_PATH", str(scratch / "settings.yml"))
        patch.setenv("COPIER_CACHE_DIR", str(scratch))
        yield


@pytest.fixture(scope="session", autouse=True)
def quick(tmp_path_factory):
    with compiled_once(tmp_path_factory.mktemp("copier")):
        yield


@pytest.fixture(scope="session")
def variants(shared) -> Path:
    """The folder that holds every rendering, one folder each."""
    (shared / "variants").mkdir(exist_ok=True)
    return shared / "variants"


@pytest.fixture(scope="session")
def generate(source, variants, tmp_path_factory) -> Generate:
    """generate(ci="none") is the folder of that rendering; read only, made once by whichever worker needs it first.

    Raises:
        KeyError: for an answer that no question asks for, which Copier would ignore in silence.
    """
    scratch = tmp_path_factory.mktemp("rendered")

    def render(**answers: Any) -> Path:
        if unknown := answers.keys() - (QUESTIONS.keys() - COMPUTED):
            raise KeyError(f"no question {', '.join(sorted(unknown))}")
        name = hashlib.sha256(repr(sorted(answers.items())).encode()).hexdigest()[:12]
        if not (variants / name).is_dir():
            copier.run_copy(
                str(source), scratch / name, data=answers, defaults=True, quiet=True, unsafe=False
            )
            keep(scratch / name, variants / name)
        return variants / name

    return render


@pytest.fixture(scope="session")
def all_variants(generate) -> list[tuple[Answers, Path]]:
    rows = matrix()
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") != "gw0":  # two workers meet in the middle
        rows = rows[::-1]
    return [(answers, generate(**answers)) for answers in rows]


@pytest.fixture(scope="session")
def distinct_files(all_variants) -> list[tuple[Answers, Path, bytes]]:
    """Each file of each rendering, but one that an earlier rendering has alike: answers, path, content."""
    contents, rows = set(), []
    for answers, root in all_variants:
        for name, content in files(root).items():
            if (name, content) not in contents:
                contents.add((name, content))
                rows.append((answers, root / name, content))
    return rows


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def tool(name: str) -> str:
    """A command of this Python's own environment."""
    program = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert program, f"{name} is missing: make test installs it"
    return program
