"""The mark that a system is retired, which git keeps beside the models: whatever answers looks for it first."""

from __future__ import annotations

from pathlib import Path

from ..paths import RETIRED
from ..settings import UserError, read_json


def retired(root: Path) -> dict[str, str]:
    """When the system was retired, by whom and why, as `at`, `by`, `reason` and `model`; empty while it is in use.

    Raises:
        UserError: when the mark cannot be read.
    """
    path = root / RETIRED
    return dict(read_json(path)) if path.is_file() else {}


def sentence(root: Path) -> str:
    """That the system is retired, and why, in words; empty while it is in use.

    Raises:
        UserError: as `retired`.
    """
    if not (mark := retired(root)):
        return ""
    try:
        return f"retired on {mark['at'][:10]} by {mark['by']}: {mark['reason']}"
    except KeyError as error:
        raise UserError(f"{RETIRED}: has no {error}; `retire` writes it") from None


def refuse(root: Path) -> None:
    """Let nothing answer in place of a system that is retired.

    Raises:
        UserError: when it is.
    """
    if reason := sentence(root):
        raise UserError(f"{RETIRED}: {reason}; `retire --undo` takes that back")
