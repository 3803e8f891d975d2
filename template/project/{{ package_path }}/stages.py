"""The stages of dvc.yaml: each depends on every module that it imports, however deep."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml.error import MarkedYAMLError

from .paths import PIPELINE
from .settings import UserError, dump, editor, read_text

PACKAGE = Path(__file__).parent


@cache
def imported(module: Path) -> set[Path]:
    """The package's own modules that a module imports, at its top, inside a function or by `optional_module`."""
    return _imported(_parsed(module), module)


def _parsed(module: Path) -> ast.Module:
    try:
        return ast.parse(read_text(module))
    except SyntaxError as error:
        raise UserError(f"{module}:{error.lineno}: not valid Python: {error.msg}") from None


def _imported(tree: ast.AST, module: Path) -> set[Path]:
    modules, type_checked = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            type_checked |= {*node.body}  # never runs
        if not isinstance(node, ast.ImportFrom) or not node.level or node in type_checked:
            continue
        base = module.parents[node.level - 1] / (node.module or "").replace(".", "/")
        named = [base, *(base / name.name for name in node.names)]
        modules |= {path for target in named if (path := target.with_suffix(".py")).is_file()}
        packages = (target / "__init__.py" for target in (base.parent, *named))
        modules |= {path for path in packages if path.is_file() and _holds_code(path)}
    return modules | _asked_for(tree, module)


def _asked_for(tree: ast.AST, module: Path) -> set[Path]:
    """The modules that are here of those that a module asks `optional_module` for by name."""
    nodes = list(ast.walk(tree))
    packages = [
        module.parents[node.level - 1]
        for node in nodes
        if isinstance(node, ast.ImportFrom) and "optional_module" in {of.name for of in node.names}
    ]
    names = [
        str(node.args[0].value)
        for node in nodes
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "optional_module"
        and isinstance(node.args[0], ast.Constant)
    ]
    paths = (packages[0] / f"{name.replace('.', '/')}.py" for name in names)
    return {path for path in paths if path.is_file()}


@cache
def _holds_code(package: Path) -> bool:
    """Whether a folder's own module is more than a docstring."""
    return any(not isinstance(node, ast.Expr) for node in _parsed(package).body)


def closure(stage: str, package: Path = PACKAGE) -> list[str]:
    """Every module that the command of a stage imports, as paths from src/, sorted; none for no command."""
    modules, pending = set[Path](), set[Path]()
    for commands in package.rglob("commands.py"):
        for node in _parsed(commands).body:
            if isinstance(node, ast.FunctionDef) and node.name == stage:
                pending |= {package / "settings.py"} | _imported(node, commands)
    while pending:
        module = pending.pop()
        modules.add(module)
        pending |= imported(module) - modules
    return sorted(path.relative_to(package.parent).as_posix() for path in modules)


def names(root: Path) -> list[str]:
    """The stages of dvc.yaml, in its order."""
    return list(_pipeline(root)["stages"])


def _pipeline(root: Path) -> Any:
    path = root / PIPELINE
    if not path.is_file():
        raise UserError(f"{path} is not here: run the command from the project's folder")
    try:
        tree = editor().load(read_text(path))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("stages"), dict):
        raise UserError(f"{path}:1: has no stages; `git checkout {PIPELINE}` brings them back")
    return tree


def complete(root: Path, package: Path = PACKAGE) -> list[str]:
    """Add to each stage of dvc.yaml the modules that it imports and does not name, and take out what is gone.

    A stage whose command went with its part is taken out whole.

    Returns:
        one line for each stage that changed.

    Raises:
        UserError: when dvc.yaml is not here or broken, or a module is no Python.
    """
    path = root / PIPELINE
    tree, changes = _pipeline(root), []
    for name, stage in list(tree["stages"].items()):
        is_own = isinstance(stage, dict) and stage.get("cmd") == f"python -m {package.name} {name}"
        if is_own and not closure(name, package):
            del tree["stages"][name]
            changes.append(f"dvc.yaml: {name} is taken out: no command is called so")
            continue
        changes += _complete(root, package, name, stage)
    if changes:
        fresh = path.with_name(f"{path.name}.new")
        dump(path, tree, fresh)
        fresh.replace(path)
    return changes


def _complete(root: Path, package: Path, name: str, stage: Any) -> list[str]:
    modules = [f"src/{path}" for path in closure(name, package)]
    if not modules or not isinstance(stage, dict) or "deps" not in stage:
        return []  # a stage of the team's own, which runs something else
    deps = stage["deps"]
    missing = [path for path in modules if path not in deps]
    obsolete = [
        path
        for path in deps
        if str(path).startswith(f"src/{package.name}/") and not (root / str(path)).exists()
    ]
    for path in obsolete:
        deps.remove(path)
    for path in missing:
        later = [index for index, present in enumerate(deps) if str(present) > path]
        deps.insert(later[0] if later else len(deps), path)
    changes = [f"+ {path}" for path in missing] + [f"- {path}" for path in obsolete]
    return [f"dvc.yaml: {name} {', '.join(changes)}"] if changes else []
