"""The template's own files: no dead branch, no Jinja in Python, the same vocabulary for each type."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
from jinja2 import nodes

from .conftest import COMPUTED, COPIER_YML, COSTLY_ERROR, QUESTIONS, REPO, TYPES, choices

TEMPLATE = REPO / "template"
ENVIRONMENT = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, extensions=[])
# Jinja checks that a filter exists when it parses; these are the ones that Copier adds
for name in ("to_json", "to_nice_yaml", "regex_replace", "regex_search", "quote"):
    ENVIRONMENT.filters[name] = str
ENVIRONMENT.globals["pathjoin"] = lambda *parts: "/".join(parts)


def texts() -> Iterator[tuple[str, str]]:
    """Everything that Copier renders: contents, file names and the strings of copier.yml."""
    for path in sorted(TEMPLATE.rglob("*")):
        name = path.relative_to(TEMPLATE).as_posix()
        if "__pycache__" in name or "_cache/" in name:
            continue
        yield f"name {name}", path.name
        rendered = path.suffix == ".jinja" or name.startswith(("problems/", "licenses/"))
        if rendered and path.is_file() and path.suffix != ".py":
            yield name, path.read_text(encoding="utf-8")

    def strings(value: Any, where: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, str):
            yield where, value
        elif isinstance(value, (dict, list)):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                yield from strings(item, f"{where}.{key}")

    yield from strings(COPIER_YML, "copier.yml")


def allowed(name: str) -> set[Any] | None:
    """What an answer with a short list can be; None for all others."""
    if name == "costly_error":
        return {error for errors in COSTLY_ERROR.values() for error in errors}
    if name not in QUESTIONS or name in COMPUTED:
        return None
    return set(choices(name)) or None


def literals(node: nodes.Node) -> list[Any]:
    if isinstance(node, nodes.Const):
        return [node.value]
    if isinstance(node, (nodes.Tuple, nodes.List)):
        return [value for item in node.items for value in literals(item)]
    return []


def dead_branches(text: str) -> list[str]:
    """Comparisons of an answer with something that it can't be, and tables with a key too many."""
    faults = []
    tree = ENVIRONMENT.parse(text)
    for compare in tree.find_all(nodes.Compare):
        sides = [compare.expr, *(operand.expr for operand in compare.ops)]
        for side in sides:
            can_be = allowed(side.name) if isinstance(side, nodes.Name) else None
            if can_be is None:
                continue
            values = [
                value for opposite in sides if opposite is not side for value in literals(opposite)
            ]
            faults += [f"{side.name}: {value!r}" for value in values if value not in can_be]
    for item in tree.find_all(nodes.Getitem):
        if isinstance(item.arg, nodes.Name) and isinstance(item.node, nodes.Dict):
            can_be = allowed(item.arg.name)
            keys = [value for pair in item.node.items for value in literals(pair.key)]
            if can_be is not None:
                faults += [f"{item.arg.name}: {value!r}" for value in keys if value not in can_be]
    return faults


def test_no_branch_is_dead():
    branches = {where: dead for where, text in texts() if (dead := dead_branches(text))}
    assert branches == {}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("{% if ci == 'jenkins' %}x{% endif %}", 1),
        ("{% if 'spark' == data_remote %}x{% endif %}", 1),
        ("{% if label_source in ('natural', 'crowd') %}x{% endif %}", 1),
        ("{{ 'a' if costly_error != 'false_alarm' else 'b' }}", 1),
        ("{{ {'binary': 1, 'clustering': 2}[problem_type] }}", 1),
        ("{% if ci == 'none' and data_remote == 's3' or costly_error == 'equal' %}x{% endif %}", 0),
        ("{% if owner == 'anybody' %}x{% endif %}", 0),
    ],
)
def test_a_planted_dead_branch_is_found(text, count):
    assert len(dead_branches(text)) == count


def test_there_is_something_to_look_at():
    """The walk above sees the files that branch: it would pass on nothing."""
    branching = {
        where for where, text in texts() if list(ENVIRONMENT.parse(text).find_all(nodes.Compare))
    }
    assert {
        "project/README.md.jinja",
        "project/pyproject.toml.jinja",
        "copier.yml._exclude.3",
    } <= branching


def test_no_jinja_in_python():
    for path in TEMPLATE.rglob("*.py"):
        assert not re.search(r"\{\{|\{%|\{#", path.read_text(encoding="utf-8")), path
    for path in TEMPLATE.rglob("*.py.jinja"):
        text = path.read_text(encoding="utf-8")
        plain = re.sub(r"^\{% include .* %\}\n$", "", text)
        # A generated test names the package where it imports it, and where it looks for its folder
        plain = re.sub(r"(?m)^( *(from|import) )\{\{ package_name \}\}", r"\1", plain)
        plain = re.sub(r'"\{\{ package_name \}\}"', "", plain)
        assert not re.search(r"\{\{|\{%|\{#", plain), path


def test_imports_inside_the_package_are_relative():
    for path in TEMPLATE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?m)^\s*(from|import) (my_model|src)\b", text), path


def test_tags_stand_alone_and_have_no_dashes():
    for path in TEMPLATE.rglob("*.jinja"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\{[%{#]-|-[%}#]\}", text), path


def test_names_are_legal_everywhere():
    for path in TEMPLATE.rglob("*"):
        assert not re.search(r'[<>:"|?*\\]', path.name), path
        assert "{%" not in path.name, f"{path}: use _exclude"


def test_each_problem_type_has_the_same_files():
    names = {
        problem_type: {
            path.name for path in (TEMPLATE / "problems" / problem_type).iterdir() if path.is_file()
        }
        for problem_type in TYPES
    }
    assert len(set(map(frozenset, names.values()))) == 1, names
    assert names.keys() == set(choices("problem_type"))


def test_each_problem_type_has_the_same_vocabulary():
    vocabulary: dict[str, dict[str, set[str]]] = {}
    for problem_type in TYPES:
        for path in (TEMPLATE / "problems" / problem_type).glob("words*.jinja"):
            tree = ENVIRONMENT.parse(path.read_text(encoding="utf-8"))
            macros = {
                f"{m.name}({', '.join(a.name for a in m.args)})" for m in tree.find_all(nodes.Macro)
            }
            sets = {s.target.name for s in tree.body if isinstance(s, nodes.Assign)}
            vocabulary.setdefault(path.name, {})[problem_type] = macros | sets
    assert vocabulary
    for name, by_type in vocabulary.items():
        all_terms = set().union(*by_type.values())
        missing = {
            problem_type: all_terms - terms
            for problem_type, terms in by_type.items()
            if all_terms - terms
        }
        assert missing == {}, name
        used = " ".join(path.read_text("utf-8") for path in (TEMPLATE / "project").rglob("*.jinja"))
        unused = {term for term in all_terms if f"words.{term.split('(')[0]}" not in used}
        vocabulary_text = " ".join(
            (TEMPLATE / "problems" / problem_type / name).read_text("utf-8")
            for problem_type in TYPES
        )
        assert {
            term
            for term in unused
            if len(re.findall(rf"\b{term.split('(')[0]}\b", vocabulary_text)) <= len(TYPES)
        } == set()


def test_git_keeps_every_file_of_the_template():
    """template/project/.gitignore is the project's, but git obeys it here too."""
    names = [str(path.relative_to(REPO)) for path in TEMPLATE.rglob("*") if path.is_file()]
    sources = [name for name in names if "__pycache__" not in name and "_cache/" not in name]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin", "-z"],
        cwd=REPO, input="\0".join(sources), capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert [name for name in done.stdout.split("\0") if name] == []


def test_nothing_that_must_not_be_shipped_is_there():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO, capture_output=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    paths = [Path(name) for name in listed if name and (REPO / name).is_file()]
    assert paths
    assert [name for name in paths if name.name == "uv.lock"] == []
    assert [name for name in paths if (REPO / name).stat().st_size > 1_000_000] == []
    machine = re.compile(rb"/root/|/home/\w+/|/work/|/opt/(pypi|wheels|cop|dev)")
    this_file = Path(__file__).relative_to(REPO)
    assert [n for n in paths if n != this_file and machine.search((REPO / n).read_bytes())] == []
