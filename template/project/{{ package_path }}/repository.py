"""What git and DVC know of this project: its repository, its stages, and the models that they name."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from .paths import DVC_RECORDS, MODEL_POINTERS, TRACKED
from .settings import UserError, missing_library, read_text


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
    try:
        import dvc.repo  # noqa: F401
    except ModuleNotFoundError:
        raise missing_library("dvc") from None


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


def plug_in(error: Exception) -> UserError:
    """What to say when DVC lacks what a kind of remote needs, which it names in its own words.

    Raises:
        Exception: the error itself, when it is another.
    """
    kind_of_remote = re.search(r"requires 'dvc-(\w+)'|filesystem for '(\w+)'", str(error))
    if not kind_of_remote:
        raise error
    return missing_library(f"dvc[{kind_of_remote[1] or kind_of_remote[2]}]")


def dvc(root: Path, method: str, **options: Any) -> Any:
    """Let DVC do something without its chatter and analytics.

    Its stages call `python`, which has to be this one.

    Returns:
        what DVC's own method returns; None when a stage failed, which has then said why.

    Raises:
        UserError: for all else that DVC refuses.
    """
    from dvc.exceptions import DvcException
    from dvc.logger import set_loggers_level
    from dvc.repo import Repo
    from dvc.stage.exceptions import StageCmdFailedError
    from dvc_objects.fs.errors import RemoteMissingDepsError

    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.environ.update(PYTHONWARNINGS="ignore", PATH=path)
    try:
        with set_loggers_level(logging.CRITICAL), Repo(root) as repo:
            return getattr(repo, method)(**options)
    except (ImportError, RemoteMissingDepsError) as error:
        raise plug_in(error) from None
    except (DvcException, OSError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, StageCmdFailedError):
            return None
        raise UserError(f"dvc: {' '.join(str(cause).split())}") from None


def exposed_remote(root: Path) -> str:
    """The folder of DVC's remote, if it lies in the repository and git would take its data in; else empty."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        name = repo.config["core"].get("remote", "")
        url = str(repo.config["remote"].get(name, {}).get("url", "://"))
    top = repository(root)
    if "://" in url or top is None or not Path(url).resolve().is_relative_to(top):
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
