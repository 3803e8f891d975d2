"""The parts that a project can have: which are here, and the command that brings another.

A part is a folder with commands of its own. Parts import from the core and never from each other: what
one gives another that is there goes through `part_module`.
"""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
PARTS = {  # each with its commands, which are named where the part is not here
    "serving": ("serve",),
    "rollout": ("challenge", "rollout", "experiment", "learn"),
    "monitoring": ("reference", "monitor", "drill", "retrain"),
    "edge": ("export",),
    "compression": ("compress",),
    "analysis": ("curves", "explain", "assumptions", "trace", "bench"),
    "tuning": ("tune",),
    "networks": ("pretrain",),
    "labelling": tuple(
        f"label {name}"
        for name in (
            *("next", "serve", "quality", "audit", "functions", "import", "export"),
            *("responses", "compare"),
        )
    ),
    "tracking": ("track", "catalogue export"),
    "cluster": (),  # the same commands on several machines
    "governance": (
        *("bom", "design dossier", "retire"),
        *(f"incident {name}" for name in ("open", "close", "list", "drill")),
        *(
            f"oversight {name}"
            for name in (
                *("stop", "resume", "exclude", "include", "list"),
                *("appeal", "appeals", "answer"),
            )
        ),
    ),
}


def parts_here() -> list[str]:
    """The parts of this project, in the order in which the question `parts` lists them."""
    return [name for name in PARTS if (PACKAGE / name / "__init__.py").is_file()]


def part_module(name: str) -> Any:
    """A module of a part, such as `monitoring.reference`; None where the project has not that part."""
    if name.partition(".")[0] not in parts_here():
        return None
    return import_module(f".{name}", __package__)


def executor(settings: Any, threads: int) -> Executor:
    """What runs tasks side by side: threads of this process, or the workers of the cluster that the settings name.

    Raises:
        UserError: when no cluster answers.
    """
    cluster = part_module("cluster.workers")
    return (cluster and cluster.connect(settings)) or ThreadPoolExecutor(threads)


def optional_module(name: str) -> Any:
    """A module that an answer brings, such as `data.sample_texts`; None where the project has not that module."""
    path = PACKAGE.joinpath(*name.split(".")).with_suffix(".py")
    return import_module(f".{name}", __package__) if path.is_file() else None


def part_hint(part: str) -> str:
    """The end of a sentence about what a part would do: the command that adds the part."""
    names = [name for name in PARTS if name in (part, *parts_here())]
    return f"comes with the part {part}: `uvx copier update --data 'parts=[{', '.join(names)}]'`"


def absent_part(command: str) -> str | None:
    """The part that would bring a command; None for a command that is here, and for one that no part has."""
    return next((p for p in PARTS if command in PARTS[p] and p not in parts_here()), None)
