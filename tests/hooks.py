"""The pre-commit hooks of a generated project without GitHub, where pre-commit would clone them from.

The programs are those of the same release from the package registry; which files each hook looks at is
still what the project's own file says.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

BIN = Path(sys.executable).parent
KINDS = {"check-toml": "toml", "check-yaml": "yaml", "check-added-large-files": "file"}  # else text


def program(hook: str) -> str:
    """The command of a hook of pre-commit/pre-commit-hooks."""
    command = shutil.which(hook, path=BIN) or shutil.which(f"{hook}-fixer", path=BIN)
    assert command, f"pre-commit-hooks has no program for {hook}"
    return command


def local(config: Path) -> dict[str, Any]:
    """The same configuration with every program on this machine."""
    made: dict[str, Any] = yaml.safe_load(config.read_text(encoding="utf-8"))
    for repo in made["repos"]:
        if repo["repo"] == "local":
            continue
        assert repo["repo"] == "https://github.com/pre-commit/pre-commit-hooks"
        repo["repo"] = "local"
        del repo["rev"]
        for hook in repo["hooks"]:
            kinds = [KINDS.get(hook["id"], "text")]
            fields = {"name": hook["id"], "language": "system", "types": kinds}
            hook |= fields | {"entry": program(hook["id"])}
    return made
