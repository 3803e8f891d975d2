"""Names say what they are, and a test can fail: what a reader of the code counts on, in all Python of the template."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .conftest import REPO

# Words that stand for anything, bound to a value they say nothing of it
VAGUE = {
    "one", "ones", "found", "known", "place", "places", "word", "words", "given", "told", "few", "some", "needed",
    "said", "thing", "things", "it", "what", "which", "those", "these", "own", "other", "others", "rest", "kept",
    "got", "asked", "wanted", "seen", "there", "both", "each", "many", "much", "more", "most", "any",
    "every", "shown", "written", "nothing", "enough",
}  # fmt: skip
# Fields that are keys of reports and settings, or names that problem/ shares with the machinery
FIXED = {
    **{
        f"{kind}/features.py": {"OWN", "Own"}
        for kind in ("anomaly", "binary", "forecasting", "multiclass", "ranking", "regression")
    },
    "commands.py": {"what"},  # `propose WHAT`, on the command line
    "goals/gate.py": {"words"},
    "modelling/compare.py": {"words"},
    "monitoring/diagnosis.py": {"what", "words"},
    "monitoring/drill.py": {"words"},
    "monitoring/reference.py": {"others", "place"},
    "readiness.py": {"shown"},
    "serving/bounded.py": {"got"},
    "settings.py": {"known", "every"},
    "anomaly/monitoring.py": {"written"},
    "binary/monitoring.py": {"written"},
    "multiclass/monitoring.py": {"written"},
    "ranking/monitoring.py": {"written"},
    "forecasting/monitoring.py": {"written"},
    "regression/monitoring.py": {"written"},
    "multiclass/__init__.py": {"other"},
}
PACKAGE = REPO / "template/project/{{ package_path }}"
HOUSES = (PACKAGE, REPO / "template/problems")
OURS = [REPO / name for name in ("tests", "benchmarks", "scripts", "hooks")]


def bound(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each name that is bound to a value, a function or a class, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno


def vague(source: str, fixed: frozenset[str] | set[str] = frozenset()) -> list[str]:
    """Bound names that say nothing, as `line: name`."""
    return [
        f"{line}: {name}"
        for name, line in bound(ast.parse(source))
        if name.strip("_").lower() in VAGUE and name not in fixed
    ]


def always_true(source: str) -> list[int]:
    """Lines that assert a list, a tuple or a set that is written out: true whatever it holds."""
    shapes = (ast.List, ast.ListComp, ast.Tuple, ast.Set, ast.SetComp, ast.Dict, ast.GeneratorExp)
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assert)
        and isinstance(node.test, shapes)
        and not any(part.ifs for part in getattr(node.test, "generators", ()))
    ]


def project_tests() -> dict[str, str]:
    """The tests that a project gets, with a name in place of the package's; those that vary by answer are left out."""
    sources = {
        path.relative_to(REPO).as_posix(): path.read_text("utf-8").replace("{{ package_name }}", "package")
        for folder in (REPO / "template/project/tests", REPO / "template/problems")
        for path in folder.rglob("*.py.jinja")
    }  # fmt: skip
    return {
        name: source
        for name, source in sources.items()
        if "{{" not in source and "{%" not in source
    }


def files(folders: list[Path] | tuple[Path, ...]) -> dict[str, Path]:
    """Every Python file below the folders, by its path in them."""
    return {
        path.relative_to(folder).as_posix(): path
        for folder in folders
        for path in folder.rglob("*.py")
    }


def test_a_name_in_a_project_says_what_it_is():
    named = {
        name: vague(path.read_text("utf-8"), FIXED.get(name, set()))
        for name, path in files(HOUSES).items()
    }
    assert len(named) > 100
    assert {name: lines for name, lines in named.items() if lines} == {}


def test_every_exception_is_still_bound():
    sources = files(HOUSES)
    for name, fixed in FIXED.items():
        assert fixed <= {held for held, _ in bound(ast.parse(sources[name].read_text("utf-8")))}, (
            name
        )


def test_a_name_in_the_template_says_what_it_is():
    named = {name: vague(path.read_text("utf-8")) for name, path in files(OURS).items()}
    named |= {name: vague(source) for name, source in project_tests().items()}
    assert len(named) > 60
    assert {name: lines for name, lines in named.items() if lines} == {}


def test_no_assertion_is_true_whatever_it_holds():
    sources = project_tests() | {
        name: path.read_text("utf-8") for name, path in files(OURS).items()
    }
    lines = {name: always_true(source) for name, source in sources.items()}
    assert {name: numbers for name, numbers in lines.items() if numbers} == {}


def test_no_two_tests_of_a_project_share_a_file_name():
    """Else pytest, which takes a file's name for the module's, collects one of them alone and ends in an error."""
    names = Counter(
        path.name for path in (REPO / "template/project/tests").rglob("test_*.py.jinja")
    )
    assert len(names) > 60
    assert [name for name, count in names.items() if count > 1] == []


def test_a_vague_name_and_an_empty_assertion_are_seen():
    assert vague("for one in range(3):\n    _words = row = one") == ["1: one", "2: _words"]
    assert vague("def few(it):\n    MOST = 3") == ["1: few", "1: it", "2: MOST"]
    source = "assert [x == 1 for x in y]\nassert all(x == 1 for x in y)\nassert [x for x in y if x]"
    assert always_true(source) == [1]
