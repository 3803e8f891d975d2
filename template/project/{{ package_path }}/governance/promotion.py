"""Who may promote a model: not the person who trained it, where the settings ask for a second one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from .. import paths
from ..repository import git
from ..settings import Settings, UserError


class Promotion(TypedDict):
    """Who trained a model, who promoted it and when, as the manifest of the model in production has it."""

    built_by: str
    promoted_by: str
    promoted_at: str  # ISO 8601, UTC


def approve(settings: Settings, root: Path, by: str | None, challenger: bool = False) -> Promotion:
    """Who signs for a model that is about to answer.

    Args:
        by: the name that `--by` gives; None: git's `user.name`.
        challenger: whether the model is the challenger, and not the one that was trained last.

    Raises:
        UserError: when a second person has to sign and none does, or when this name may not promote.
    """
    roles, built_by = settings.governance.roles, builder(root, challenger)
    signer = " ".join((by or _user(root)).split())
    if settings.governance.second_person and (by is None or _same(signer, built_by)):
        who = f"{built_by} trained it" + (f", and {signer} is the same name" if by else "")
        raise UserError(
            f"governance.second_person asks for a second name, and {who}: `--by NAME` of somebody else who looked "
            "at the gate and the card"
        )
    if roles.promotes and not any(_same(signer, name) for name in roles.promotes):
        allowed = ", ".join(roles.promotes)
        raise UserError(
            f"{signer or 'nobody'} is not among those who may promote (governance.roles.promotes: {allowed}); `--by NAME`"
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Promotion(built_by=built_by, promoted_by=signer, promoted_at=now)


def builder(root: Path, challenger: bool = False) -> str:
    """Who trained a model: the author of the commit that brought it, or git's user where none did yet.

    Args:
        challenger: of the challenger, and not of the model that was trained last.
    """
    record = f"{paths.CHALLENGER}.dvc" if challenger else paths.PIPELINE_LOCK
    try:
        if not git(root, "status", "--porcelain", "--", record).strip():
            return git(root, "log", "-1", "--format=%an", "--", record).strip() or _user(root)
    except UserError:  # no repository, or one without a commit
        pass
    return _user(root)


def _user(root: Path) -> str:
    """Git's `user.name`, or GIT_AUTHOR_NAME where a job sets it; empty where neither is set."""
    try:
        return git(root, "var", "GIT_AUTHOR_IDENT").partition("<")[0].strip()
    except UserError:
        return ""


def _same(a: str, b: str) -> bool:
    """Whether two names are one, but for their case and blanks."""
    return " ".join(a.split()).casefold() == " ".join(b.split()).casefold()
