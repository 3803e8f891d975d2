"""What becomes of a merge in which two people trained: the pipeline's own records are settled, no other file."""

from __future__ import annotations

import re
from pathlib import Path

from .paths import PIPELINE_LOCK, REPORTS
from .repository import dvc, git, repository
from .settings import UserError

# What `run`, `promote` and the other commands write, and nobody by hand; by what belongs together
GROUPS = {
    "the run's records": rf"{re.escape(PIPELINE_LOCK)}|{REPORTS}/.*",
    "the models in use": r".*\.dvc",
}


def resolve(root: Path) -> tuple[list[str], list[str]]:
    """Settle the conflicts of a merge or a rebase in what the pipeline writes: the other side's state is taken.

    The other side is what was pulled: everybody has it, and the next `run` works out again what
    follows from both. Files that people write are left as they are.

    Returns:
        what was settled, and what is left to mend by hand, as paths from the project's folder.

    Raises:
        UserError: outside of a merge.
    """
    if repository(root) is None:
        raise UserError("not a git repository: there is no merge to settle")
    unmerged = git(root, "diff", "--name-only", "--diff-filter=U", "--relative", "-z")
    conflicts = sorted(set(filter(None, unmerged.split("\0"))))
    if not conflicts:
        return [], []
    commit, settled = _other_side(root), []
    for pattern in GROUPS.values():
        if any(re.fullmatch(pattern, name) for name in conflicts):
            settled += _check_out(root, commit, pattern, conflicts)
    unsettled = [name for name in conflicts if name not in settled]
    return sorted(settled), unsettled


def pull(root: Path) -> str:
    """Bring the data and models that the records name, where they can be had.

    Returns:
        why some could not be brought; empty when all are here.
    """
    try:
        dvc(root, "pull", force=True)
    except UserError as error:
        return str(error)
    return ""


def _other_side(root: Path) -> str:
    """The commit that was pulled."""
    for state in ("rebase-merge", "rebase-apply"):
        folder = git(root, "rev-parse", "--git-path", state).strip()
        if (root / folder).is_dir():
            return "HEAD"  # a rebase puts one's own commits on top of it
    try:
        return git(root, "rev-parse", "--verify", "--quiet", "MERGE_HEAD").strip()
    except UserError:
        return "HEAD"  # one's own changes come from the stash


def _check_out(root: Path, commit: str, pattern: str, conflicts: list[str]) -> list[str]:
    """Bring all files of a group to what they are in a commit; those of one's own alone stay."""
    listed = git(root, "ls-tree", "-r", "-z", "--name-only", commit, "--", ".").split("\0")
    recorded = [name for name in listed if re.fullmatch(pattern, name)]
    gone = [path for path in conflicts if re.fullmatch(pattern, path) and path not in recorded]
    for start in range(0, len(recorded), 100):
        git(root, "checkout", "--quiet", commit, "--", *recorded[start : start + 100])
    if gone:
        git(root, "rm", "--quiet", "--force", "--", *gone)
    return [name for name in conflicts if re.fullmatch(pattern, name)]
