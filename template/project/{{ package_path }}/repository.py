"""What git and DVC know of this project: its repository, its stages, the models that they name, what the team edited,
and what becomes of a merge in which two people trained."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ruamel.yaml import YAMLError

from .paths import (
    DVC_RECORDS,
    MODEL_POINTERS,
    PIPELINE,
    PIPELINE_LOCK,
    REPORTS,
    STAGE_JOURNAL,
    TEMPLATE_ANSWERS,
    TRACKED,
)
from .settings import UserError, editor, missing_library, read_text

DVC = (sys.executable, "-m", "dvc")
INTERRUPTED = 252  # DVC's exit code after Ctrl-C

# Files of the template, where an update can conflict with what the team edited
MACHINERY = (
    "src", "tests", "ops", PIPELINE, "Makefile",
    ".github", ".gitlab-ci.yml", ".circleci", ".pre-commit-config.yaml",
)  # fmt: skip
# Of these, files that a team is meant to edit, or a command rewrites
TEAM_FILES = ("cards.md.j2", "/data/sample.py", "prometheus/rules.yml")
# What `run`, `promote` and the other commands write, and nobody by hand; by what belongs together
RECORD_GROUPS = {
    "the run's records": rf"{re.escape(PIPELINE_LOCK)}|{REPORTS}/.*",
    "the models in use": r".*\.dvc",
}


def repository(root: Path) -> Path | None:
    """The folder of the git repository that a project is in, which may be a parent's; None without."""
    start = root.resolve()
    return next((folder for folder in (start, *start.parents) if (folder / ".git").exists()), None)


def needs_repository(root: Path) -> None:
    """Refuse, before anything is done, what DVC would refuse later.

    Raises:
        UserError: without git; where a folder that DVC keeps is a link; where a record of DVC holds
            the marks of a merge; when DVC is not installed.
    """
    if repository(root) is None:
        raise UserError(
            "not a git repository yet: `git init -b main` in the project's folder first; "
            "in a folder of a larger repository, nothing is to be done"
        )
    for folder in (inner for name in TRACKED for inner in (root / name, *(root / name).glob("*"))):
        if folder.is_symlink() and folder.is_dir():
            raise UserError(
                f"{folder} is a link, which DVC does not follow: mount the other disk there, or make "
                "it a plain folder and move DVC's cache instead (`dvc cache dir PATH`, then "
                "`dvc config cache.type symlink`)"
            )
    for path in (*(root / name for name in DVC_RECORDS), *root.glob(MODEL_POINTERS)):
        if path.is_file():
            read_text(path)
    if find_spec("dvc") is None:
        raise missing_library("dvc")


def verified(root: Path, folder: str) -> Path:
    """A model's folder, if it is the one that git names: its files have the hash in FOLDER.dvc.

    Without a FOLDER.dvc, as in an image, whatever is there is meant.

    Raises:
        UserError: when the folder is not here or holds another model than the file names.
    """
    path, pointer = root / folder, root / f"{folder}.dvc"
    if not pointer.is_file():
        return path
    recorded_md5 = re.search(r"^- md5: ([0-9a-f]{32}\.dir)$", read_text(pointer), re.M)
    if not recorded_md5:
        raise UserError(f"{pointer}: names no folder; `git checkout {folder}.dvc` brings it back")
    if not path.is_dir():
        raise UserError(f"{path} is not here, only {folder}.dvc: `dvc pull {folder}.dvc` first")
    if directory_md5(path) != recorded_md5[1]:
        raise UserError(
            f"{path} is not the model that {folder}.dvc names: `dvc pull --force {folder}.dvc` "
            f"brings that one, `dvc add {folder}` keeps the one that is here"
        )
    return path


def directory_md5(folder: Path) -> str:
    """The hash that DVC 3 gives a folder: the MD5 of the JSON list of its files' own, by path."""
    files = {
        path.relative_to(folder).as_posix(): hashlib.md5(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
    listed = [{"md5": md5, "relpath": name} for name, md5 in sorted(files.items())]
    return f"{hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest()}.dir"


def dvc(root: Path, *arguments: str, timeout: float | None = None) -> str:
    """What DVC's command prints; analytics and chatter are left out.

    Args:
        timeout: seconds after which the command is stopped; None: however long.

    Raises:
        UserError: with DVC's own line when it refuses, or with the library that it lacks.
        subprocess.TimeoutExpired: when it takes longer than `timeout`.
    """
    process = subprocess.run(
        [*DVC, *arguments],
        cwd=root,
        env=_environment(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
    )
    if not process.returncode:
        return process.stdout
    reason = " ".join(
        process.stderr.partition("ERROR: ")[2].partition("Having any troubles?")[0].split()
    )
    kind_of_remote = re.search(r"requires 'dvc-(\w+)'|filesystem for '(\w+)'", reason)
    if kind_of_remote:
        raise missing_library(f"dvc[{kind_of_remote[1] or kind_of_remote[2]}]")
    raise UserError(f"dvc: {reason or f'`dvc {arguments[0]}` ended with {process.returncode}'}")


def reproduce(root: Path, *arguments: str) -> list[str] | None:
    """Let DVC run the stages whose inputs changed (`dvc repro`); they print to this terminal, and DVC does not.

    Args:
        arguments: of `dvc repro`.

    Returns:
        the stages that ran; None when one of them failed, which has then said why.

    Raises:
        UserError: for all else that DVC refuses.
    """
    recorded = recorded_stages(root)
    with tempfile.TemporaryDirectory() as scratch:
        journal = Path(scratch, "stages")
        with _interrupt_left_to_child():
            code = subprocess.run(
                [*DVC, "repro", "--quiet", *arguments],
                cwd=root,
                env=_environment() | {STAGE_JOURNAL: str(journal)},
            ).returncode
        entries = journal.read_text("utf-8").split() if journal.is_file() else []
    codes = dict(entry.split("=") for entry in entries)  # a stage's end stands below its start
    if any(end != "0" for end in codes.values()):
        return None
    if code < 0 or code == INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        dvc(root, "repro", *arguments)  # is refused again, and says why
    now = recorded_stages(root)
    return [
        *codes,
        *(name for name in now if now[name] != recorded.get(name) and name not in codes),
    ]


def recorded_stages(root: Path) -> dict[str, Any]:
    """What dvc.lock holds of each stage, by its name."""
    path = root / PIPELINE_LOCK
    try:
        recorded = editor().load(read_text(path)) if path.is_file() else None
    except YAMLError:  # DVC says so
        return {}
    return dict((recorded or {}).get("stages") or {})


@contextmanager
def _interrupt_left_to_child() -> Iterator[None]:
    """Leave Ctrl-C to the command that runs: the terminal sends it there as well, and it has records to put in order."""
    try:
        # A function, since what is ignored would be ignored in the child too
        before = signal.signal(signal.SIGINT, lambda *_: None)
    except ValueError:  # not in the main thread, which no interrupt reaches
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _environment() -> dict[str, str]:
    """That of DVC's command, whose stages call `python`, which has to be this one."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PYTHONWARNINGS": "ignore", "PATH": path, "DVC_NO_ANALYTICS": "1"}


def default_remote(root: Path) -> tuple[str, str]:
    """Name and address of DVC's remote, as .dvc/config has them; both empty where none is set."""
    lines = dvc(root, "config", "--list").splitlines()
    config = dict(line.partition("=")[::2] for line in lines)
    name = config.get("core.remote", "")
    url = config.get(f"remote.{name}.url", "")
    return (name, url) if url else ("", "")


def exposed_remote(root: Path) -> str:
    """The folder of DVC's remote, if it lies in the repository and git would take its data in; else empty."""
    url, top = default_remote(root)[1], repository(root)
    if not url or "://" in url or top is None or not Path(url).resolve().is_relative_to(top):
        return ""
    try:
        git(root, "check-ignore", "--quiet", f"{url}/files")
    except UserError:
        return url
    return ""


def git(root: Path, *arguments: str) -> str:
    """What git prints.

    Raises:
        UserError: with git's own line when it refuses, or when it is not installed.
    """
    try:
        process = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError:
        raise UserError("git is not installed") from None
    if process.returncode:
        raise UserError(f"git: {' '.join(process.stderr.split())}")
    return process.stdout


def edited(root: Path) -> dict[str, int]:
    """The machinery's files that differ from what generating and updating left, with the lines changed.

    Each stretch between two commits of the answers file counts, since an update carries edits along. What the
    team added is no file of the template. Edits that were committed together with the first answers cannot be seen,
    nor can those that an update which is not committed yet stands beside.

    Returns:
        {path: lines added and removed}; empty without git, where nothing was committed yet, and for a
        project that left the template.
    """
    is_shallow = _git_lines(root, "rev-parse", "--is-shallow-repository")
    if is_shallow != ["false"] or not (root / TEMPLATE_ANSWERS).is_file():
        return {}
    updating = _git_lines(root, "diff", "--name-only", "HEAD", "--", TEMPLATE_ANSWERS)
    commits = _git_lines(root, "log", "--format=%H", "--", TEMPLATE_ANSWERS)  # the newest first
    ends = ["HEAD" if updating else "", *(f"{commit}^" for commit in commits[:-1])]
    lines, added_files = Counter[str](), set[str]()
    for start, end in zip(commits, ends, strict=False):
        span = ["--relative", "--no-renames", start, *([end] if end else []), "--", *MACHINERY]
        added_files.update(_git_lines(root, "diff", "--name-only", "--diff-filter=A", *span))
        for row in _git_lines(root, "diff", "--numstat", "--diff-filter=M", *span):
            added, removed, name = row.split("\t")
            if not (name.endswith(TEAM_FILES) or "/problem/" in name) and (root / name).is_file():
                lines[name] += sum(int(count) for count in (added, removed) if count.isdigit())
    return {name: count for name, count in sorted(lines.items()) if name not in added_files}


def _git_lines(root: Path, *arguments: str) -> list[str]:
    """The lines that git prints; none where it refuses or is not installed."""
    try:
        return git(root, "-c", "core.quotePath=false", *arguments).splitlines()
    except UserError:
        return []


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
    for pattern in RECORD_GROUPS.values():
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
        dvc(root, "pull", "--force")
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
