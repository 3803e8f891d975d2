"""What kind of problem it is stands in one folder: the common code has no word of it, and each folder is whole."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

import copier
import pytest

from .conftest import ALL_PARTS, REPO, TYPES, copy_of_work_tree, files

PROBLEMS = REPO / "template/problems"
COMMON = REPO / "template/project/{{ package_path }}"
FILES = ("__init__", "goals", "data", "features", "models", "monitoring", "decision", "texts")
KIND = re.compile(r"(?i)\b(binary|regression|multiclass|classifier|probabilit\w+|positives?)\b")
# What the words may stand for all the same: file -> what the line holds -> why
SPARED = {
    "data/commands.py": {
        "positive: Annotated": "the option --positive of `adopt`, by which a yes or no names its yes",
        "group, positive,": "its value, handed on",
    },
    "features/pipeline.py": {
        "positive=": "a flag of MurmurHash3, in scikit-learn and in ONNX: the sign of a hash",
    },
    "features/text.py": {"positive=": "the same flag"},
    "governance/bom.py": {"Classifier": "a key of the metadata of a package"},
    "modelling/imbalance.py": {"binary sigmoid:1": "the names of losses in LightGBM's files"},
    "monitoring/drift.py": {
        "linear domain classifier": "what Hotelling's test is, in the words of its source",
    },
    "serving/v2.py": {
        "the binary tensor data extension": "the name of an extension of the v2 protocol",
    },
}
# The names that the common code asks a problem for
INTERFACE = {
    "__init__": {
        "NAME", "CLASSES", "WIDE", "LISTED", "EXPLORES", "FIGURE", "TARGET_RANGE", "MetricName", "Loss", "CalibrationName",
        "Candidate", "Decision", "DECISION_TYPE", "Score", "Expectation", "Costs", "LabelKeys", "agreements",
        "answer_words", "CLAIMS", "HISTORIES", "REASONS", "UNLABELLED", "LEFT_OUT", "REBALANCED", "OwnTargets", "OwnServing", "OWN_RULES",
    },
    "goals": {
        "METRICS", "numeric", "unit", "spread", "outcome_variance", "confidence_gain", "turned", "curves", "value",
        "fit_decision", "fixed_score", "fixed_decision", "aimed_quantile", "changes", "way", "claim", "came",
        "constant_decisions", "decide", "distance", "rise", "together", "own_figures", "OWN_TABLES",
    },
    "data": {
        "LIST_ROWS", "TRUTH", "LABELLING_FUNCTIONS", "outcome", "planted", "outlook", "truth", "circumstances", "logged", "list_columns",
        "bundle", "future", "known_by_key", "repeated", "steps_after", "logged_inputs", "decided", "named", "listed", "single", "lacking", "reward", "coded", "adopted", "adopted_lists", "adopted_layout", "adopted_series", "long_rows", "made", "examples",
    },
    "features": {"OWN", "Own", "leading", "shaken", "judged", "may_choose"},
    "texts": {"PHRASES", "likely_topics"},
    "models": {
        "GRADIENTS", "INTERPRETABLE", "Trees", "SCALED", "OPTIONS", "OUTPUT", "STEPS", "width", "floor", "baseline", "candidate",
        "objectives", "shifts", "learnt", "fit_matrix", "fit_options", "matrix_nodes", "stopping_loss",
        "aims_at_mean", "held_out_loss", "predict",
        "register", "straighten", "bend", "straighten_nodes", "bend_nodes", "fit_line",
        "score_nodes", "around", "described", "SIZED", "SCALES", "RELATIVE", "own_nodes", "taught",
    },
    "monitoring": {
        "ERRORS", "FLAGGED", "OF_FLAGGED", "losses", "row_loss", "sizes", "label_edges", "score_cuts", "ranked", "written", "fed_back",
        "placed", "strange", "OWN_CHANGES", "OWN_SHIFTS", "OWN_FIGURES",
    },
    "decision": {
        "RULES", "judge", "arranged", "bands", "unsure", "unsure_sql", "headline", "by_class", "named", "choices", "table", "reasons",
    },
}  # fmt: skip


def telling(text: str, spared: dict[str, str]) -> list[str]:
    """The lines that name a kind of problem, without those that are spared."""
    lines = [line.strip() for line in text.split("\n") if KIND.search(line)]
    return [line for line in lines if not any(phrase in line for phrase in spared)]


def common() -> dict[str, str]:
    modules = (path for path in COMMON.rglob("*.py") if "__pycache__" not in path.parts)
    return {path.relative_to(COMMON).as_posix(): path.read_text("utf-8") for path in modules}


def test_the_common_code_names_no_kind_of_problem():
    mentions = {name: telling(text, SPARED.get(name, {})) for name, text in common().items()}
    assert {name: lines for name, lines in mentions.items() if lines} == {}


def test_every_exception_is_still_one():
    code = common()
    for name, lines in SPARED.items():
        for phrase in lines:
            assert any(phrase in line for line in telling(code[name], {})), (name, phrase)


def test_a_line_that_names_a_kind_is_found():
    text = "if settings.project.problem == 'regression':\nx = LogisticRegression()\n# CLASSIFIER"
    assert telling(text, {}) == ["if settings.project.problem == 'regression':", "# CLASSIFIER"]


def names(path: Path) -> set[str]:
    """What a module binds at its top."""
    bound: set[str] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.Assign(targets=targets):
                bound |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                bound.add(name)
            case ast.ImportFrom(names=aliases):
                bound |= {alias.asname or alias.name for alias in aliases}
    return bound


@pytest.mark.parametrize("problem_type", TYPES)
def test_each_problem_has_every_name_of_the_interface(problem_type):
    missing = {
        file: sorted(INTERFACE[file] - names(PROBLEMS / problem_type / f"{file}.py"))
        for file in FILES
    }
    assert {file: names_missing for file, names_missing in missing.items() if names_missing} == {}


def test_the_interface_is_what_the_common_code_asks_for():
    """A name that nobody asks for is no part of it, and one that is asked for belongs to it."""
    requested: dict[str, set[str]] = {file: set() for file in FILES}
    for text in common().values():
        tree, aliases = ast.parse(text), {}
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            module = node.module or ""
            for alias in node.names:
                bound = alias.asname or alias.name
                if alias.name == "problem" and not module:
                    aliases[bound] = "__init__"
                elif module == "problem" and alias.name in FILES:
                    aliases[bound] = alias.name
                elif module == "problem":
                    requested["__init__"].add(alias.name)
                elif module.startswith("problem."):
                    requested[module.split(".")[1]].add(alias.name)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
                continue
            if node.value.id in aliases and node.attr != "__file__":
                requested[aliases[node.value.id]].add(node.attr)
    assert requested == INTERFACE


@pytest.mark.parametrize("problem_type", TYPES)
def test_the_names_are_light_and_the_decision_is_plain_numpy(problem_type):
    """Every command reads the names, and the edge folder holds the decision without the package."""
    for file, allowed in (
        ("__init__", {"collections.abc", "pydantic", "typing"}),
        ("decision", {"collections.abc", "numpy", "typing"}),
    ):
        tree = ast.parse((PROBLEMS / problem_type / f"{file}.py").read_text("utf-8"))
        imports = {
            name
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
            )
        }
        assert imports - {"__future__"} <= allowed, file
        assert not any(isinstance(n, ast.ImportFrom) and n.level for n in ast.walk(tree)), file


@pytest.mark.parametrize("problem_type", TYPES)
def test_a_copied_folder_is_a_kind_of_its_own(generate, tmp_path, problem_type):
    """A new kind of problem needs its folder and its place among the choices, and no line elsewhere."""
    source = tmp_path / "source"
    source.mkdir()
    copy_of_work_tree(source)
    folder = source / "template/problems/another_kind"
    shutil.copytree(PROBLEMS / problem_type, folder)
    names = folder / "__init__.py"
    old_line, new_line = f'NAME = "{problem_type}"', 'NAME = "another_kind"'
    assert old_line in names.read_text("utf-8")
    names.write_text(names.read_text("utf-8").replace(old_line, new_line), encoding="utf-8")
    questions = (source / "copier.yml").read_text("utf-8")
    fresh = questions.replace(
        "    a number: regression\n", "    a number: regression\n    x: another_kind\n"
    )
    assert fresh != questions
    (source / "copier.yml").write_text(fresh, encoding="utf-8")
    # What its errors cost is asked per kind, and a kind without such a question has the same costs
    answers = {"problem_type": "another_kind", "costly_error": "equal"}
    copier.run_copy(str(source), tmp_path / "made", data=answers, defaults=True, quiet=True)
    expected = files(generate(problem_type=problem_type, costly_error="equal"))
    made = files(tmp_path / "made")
    del made[".copier-answers.yml"], expected[".copier-answers.yml"]
    differ = {
        name for name in made.keys() | expected.keys() if made.get(name) != expected.get(name)
    }
    assert {name.partition("/")[0] for name in differ} <= {"params.yaml", "docs", "src", "tests"}
    for name in differ:
        assert made[name].replace(b"another_kind", problem_type.encode()) == expected[name], name


def test_what_came_true_is_read_in_one_way():
    """Of a list it is more than a label: whoever reads `_y` alone judges all rows as one list."""
    reads_labels = {
        "data/split.py",
        "data/young.py",
        "labelling/functions.py",
        "modelling/compare.py",
    }  # whether there are any; those that are shown
    readers = {
        path.relative_to(COMMON).as_posix()
        for path in COMMON.rglob("*.py")
        if re.search(r"SELECT (DISTINCT )?_y\b|select\(\"_y\"\)", path.read_text("utf-8"))
    }
    assert readers == reads_labels


@pytest.mark.parametrize("problem_type", TYPES)
def test_the_pages_know_what_says_nothing_and_what_rings_here_alone(problem_type):
    """What words and alert rules are told of a kind is what its code says."""
    facts = (PROBLEMS / problem_type / "facts.jinja").read_text("utf-8")
    stated = {
        name: ast.literal_eval(re.search(rf"set {name} = (\[.*\]) %}}", facts)[1])  # type: ignore[index]
        for name in ("left_out", "own_alerts", "own_drills")
    }
    coded: dict[str, list[str]] = {}
    in_code = (
        ("__init__", "LEFT_OUT"),
        ("monitoring", "OWN_SHIFTS"),
        ("monitoring", "OWN_CHANGES"),
    )
    for file, name in in_code:
        for node in ast.parse((PROBLEMS / problem_type / f"{file}.py").read_text("utf-8")).body:
            target = (
                node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", node)
            )
            if isinstance(target, ast.Name) and target.id == name:
                coded[name] = [ast.literal_eval(key) for key in node.value.keys]  # type: ignore[union-attr]
    assert sorted(stated["left_out"]) == sorted(coded["LEFT_OUT"])
    assert [kind for _, kind, *_ in stated["own_alerts"]] == coded["OWN_SHIFTS"]
    assert [name for name, _ in stated["own_drills"]] == coded["OWN_CHANGES"]


def starts_with(package: Path, module: str) -> set[str]:
    """The libraries that a module brings when it is imported, by those that it imports then."""
    visited, waiting, libraries = set(), [module], set()
    while waiting:
        name = waiting.pop()
        path = package.joinpath(*name.split(".")) if name else package
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in visited or not path.is_file():
            continue
        visited.add(name)
        parts = name.split(".") if name else []
        parents = [*parts, ""] if path.name == "__init__.py" else parts
        waiting.append(".".join(parts[:-1]))
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                libraries |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                libraries.add(str(node.module).partition(".")[0])
            elif isinstance(node, ast.ImportFrom):
                base = [*parents[: len(parents) - node.level], *(node.module or "").split(".")]
                base = [part for part in base if part]
                waiting += [".".join(base), *(".".join([*base, a.name]) for a in node.names)]
    return libraries


@pytest.mark.parametrize("problem_type", TYPES)
@pytest.mark.parametrize(
    "module", ["serving.app", "serving.commands", "scoring.batch", "cluster.workers"]
)
def test_what_answers_starts_without_what_trains(generate, problem_type, module):
    package = next((generate(problem_type=problem_type, parts=ALL_PARTS) / "src").iterdir())
    libraries = starts_with(package, module)
    assert {"numpy", "onnxruntime"} <= libraries | starts_with(package, "model")
    training = {
        "lightgbm",
        "matplotlib",
        "onnx",
        "pandas",
        "scipy",
        "skl2onnx",
        "sklearn",
        "threadpoolctl",
    }
    assert libraries & training == set()
