"""Writes docs/commands.md and docs/settings.md from what the template renders with every part.

python scripts/reference.py           (a part of `make sync`)
python scripts/reference.py --check   fails when a page is not what it would write
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import copier
import yaml

REPO = Path(__file__).resolve().parents[1]
DOCS = REPO / "docs"
GENERATED = "<!-- Written by `make sync` from the template; edit that -->\n"
COMMANDS = """# The commands

`uv run my-model COMMAND --help` prints the same. A command of a part that a project has not says so, and how to bring it. Exit codes: 0 done, 1 the gate or a
check failed, 2 wrong use or bad input, 3 the command broke.
"""
SETTINGS = """# The settings

Each key of `params.yaml` with its default, as the project for a yes or no has them; other kinds of answer have keys of their own. In brackets, the decision that
explains a choice. `uv run my-model run --set modelling.candidates='[linear]'` changes one for a single run.
"""


def every_part() -> list[str]:
    """The parts that the question offers."""
    question = yaml.safe_load((REPO / "copier.yml").read_text(encoding="utf-8"))["parts"]
    return [*question["choices"].values()]


def generate(path: Path) -> Path:
    """The default project of the work tree, with every part."""
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copy(REPO / "copier.yml", scratch)
        shutil.copytree(REPO / "template", Path(scratch) / "template")
        copier.run_copy(scratch, path, data={"parts": every_part()}, defaults=True, quiet=True)
    return path


def commands(root: Path) -> str:
    """docs/commands.md: each command's parameters and the first line of its docstring."""
    (package,) = (path.parent for path in root.glob("src/*/__main__.py"))
    lines = [GENERATED, COMMANDS, "| command | does |", "|---|---|"]
    rows = {}
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in package.rglob("commands.py")]
    groups = dict(pair for tree in trees for pair in _groups(tree))
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and (name := _command(node, groups)):
                summary = (ast.get_docstring(node) or "").split("\n\n")[0]
                summary = " ".join(summary.split()).replace("|", "\\|")
                usage = " ".join([name, *_parameters(node, ast.unparse(tree))])
                rows[name] = f"| `{usage}` | {summary} |"
    return "\n".join([*lines, *(rows[name] for name in sorted(rows))]) + "\n"


def _groups(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Variable -> the name under which a group of commands is added to the program."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".add_typer"):
            names = [k.value.value for k in node.keywords if k.arg == "name"]  # type: ignore[attr-defined]
            yield ast.unparse(node.args[0]), str(names[0])


def _command(node: ast.FunctionDef, groups: dict[str, str]) -> str | None:
    """The name of the command that a function is, with its group's; None for another function."""
    for decorator in node.decorator_list:
        if not isinstance(decorator, ast.Call):
            continue
        owner, _, kind = ast.unparse(decorator.func).rpartition(".")
        if kind == "command":
            names = [a.value for a in decorator.args if isinstance(a, ast.Constant)]
            name = str(names[0]) if names else node.name.strip("_").replace("_", "-")
            return f"{groups[owner]} {name}" if owner in groups else name
        if kind == "callback" and owner in groups:
            return groups[owner]
    return None


def _parameters(node: ast.FunctionDef, module: str) -> Iterator[str]:
    """A command's arguments and options, as its usage shows them."""
    defaults = [None] * (len(node.args.args) - len(node.args.defaults)) + node.args.defaults  # type: ignore[list-item]
    for argument, default in zip(node.args.args, defaults, strict=True):
        text = ast.unparse(argument.annotation) if argument.annotation else ""
        if shared := re.search(r"Annotated\[[^,]*, ([A-Z]+)\]", text):  # a constant of the module
            text += " ".join(re.findall(rf"(?m)^{shared[1]} = (.*)$", module))
        metavar = re.search(r"metavar='([^']*)'", text)
        name = argument.arg.strip("_")
        if "typer.Argument" in text:
            usage = (metavar[1] if metavar else name.upper()).strip("[].")
            yield usage if default is None else f"[{usage}]"
        elif "typer.Option" in text:
            flag = re.search(r"'(--[\w-]+)'", text)
            option = flag[1] if flag else f"--{name.replace('_', '-')}"
            switch = "bool" in text.split("typer.Option")[0]
            yield f"[{option}]" if switch else f"[{option} {name.upper()}]"


def settings(root: Path) -> str:
    """docs/settings.md: each key, its default, and the comment beside it."""
    lines, path = [GENERATED, SETTINGS], []
    for line in (root / "params.yaml").read_text(encoding="utf-8").splitlines():
        heading = re.fullmatch(r"# (\d .*)", line)
        if heading or line == "project:":
            title = heading[1] if heading else "Project"
            lines += [f"\n## {title}\n", "| key | default | means |", "|---|---|---|"]
        key = re.fullmatch(r"( *)([\w.]+):(?: ((?:\"[^\"]*\"|[^#\"])*?))?(?:  # (.*))?", line)
        if not key:
            continue
        depth = len(key[1]) // 2
        path = [*path[:depth], key[2]]
        if key[4]:
            default = f"`{key[3]}`" if key[3] else ""
            meaning = re.sub(r"[|<>]", lambda mark: f"\\{mark[0]}", key[4])
            lines.append(
                f"| `{'.'.join(path)}` | {default.replace('|', chr(92) + '|')} | {meaning} |"
            )
    return "\n".join(lines) + "\n"


def stale(root: Path, write: bool = False) -> list[str]:
    """The pages that are not what a project with every part has; with `write` they are then."""
    pages: dict[str, Any] = {"commands.md": commands(root), "settings.md": settings(root)}
    behind = [
        name
        for name, text in pages.items()
        if not (DOCS / name).is_file() or (DOCS / name).read_text(encoding="utf-8") != text
    ]
    for name in behind if write else []:
        (DOCS / name).write_text(pages[name], encoding="utf-8", newline="\n")
    return behind


def main() -> None:
    check = "--check" in sys.argv
    with tempfile.TemporaryDirectory() as scratch:
        behind = stale(generate(Path(scratch) / "project"), write=not check)
    if check and behind:
        sys.exit(f"{', '.join(behind)}: use `make sync`")


if __name__ == "__main__":
    main()
