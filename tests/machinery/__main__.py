"""`make machinery`: the tests of the machinery on files that are rendered and not installed.

    python -m tests.machinery                                  all, for one type by turns; EVERY=1 for each
    python -m tests.machinery serving/test_rows.py -k gap -x   some, for each type, with arguments of pytest

The projects are rendered anew into build/machinery/TYPE, within a second; what they need is installed beside them,
once. Exit code 1 when a test failed in one of them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import copier

from ..fast.conftest import ALL_PARTS, REPO, TYPES, compiled_once, copy_of_work_tree
from ..slow.conftest import EVERY_COMBINATION, OTHER_ANSWERS, TURN, by_turns

BUILD = REPO / "build/machinery"
TESTS = "tests/machinery"
WITHOUT_A_MODEL = "tests/test_metrics.py"  # the project's own, of what its kind of answer works out
# What networks are trained with, and the folder of their tests
TORCH, WITH_TORCH, NETWORKS = (
    "torch==2.13.0",
    ("transformers>=5.10,<6", "tokenizers>=0.22"),
    "networks",
)
CYCLONEDX = "cyclonedx-python-lib[json-validation]>=11,<12"
ENV = {
    key: value
    for key, value in os.environ.items()
    if key not in ("PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")
}


def main(arguments: list[str]) -> int:
    """Run pytest with these arguments in a project of each type; those that name a file begin in tests/machinery."""
    types = TYPES if arguments or EVERY_COMBINATION else by_turns(TYPES)
    # In every second round with answers that are all another
    turned = bool(TURN // len(TYPES) % 2) and not arguments
    projects = render(BUILD, dict.fromkeys(types, OTHER_ANSWERS if turned else {}))
    python = installed(projects[0], BUILD / "env")
    pytest_arguments = [
        f"{TESTS}/{argument}"
        if is_test(projects[0], argument) and previous not in ("-k", "-m")
        else argument
        for previous, argument in zip(["", *arguments], arguments, strict=False)
    ]
    if not any(argument.startswith(TESTS) for argument in pytest_arguments):
        pytest_arguments.append(TESTS)
    of_kind = [] if arguments else [WITHOUT_A_MODEL]
    codes = [run(project, python, [*pytest_arguments, *of_kind]) for project in projects]
    if not arguments or NETWORKS in " ".join(arguments):
        of_networks = [name for name in pytest_arguments if name != TESTS] or [
            f"{TESTS}/{NETWORKS}"
        ]
        if with_torch := torch_installed(python, BUILD / "torch"):
            # Of all, for one type by turns
            chosen = projects if arguments else projects[:1]
            codes += [run(project, with_torch, of_networks) for project in chosen]
    return max(codes)


def is_test(project: Path, argument: str) -> bool:
    return (project / TESTS / argument.partition("::")[0]).exists()


def render(folder: Path, types: dict[str, dict[str, str]]) -> list[Path]:
    """A project of each type with the machinery's tests in a folder; what stood there before is replaced.

    Args:
        types: each with its answers beside the defaults.
    """
    folder.mkdir(parents=True, exist_ok=True)
    projects = [folder / problem_type for problem_type in types]
    with tempfile.TemporaryDirectory() as scratch, compiled_once(Path(scratch)):
        source = Path(scratch, "source")
        source.mkdir()
        copy_of_work_tree(source)
        for project in projects:
            shutil.rmtree(project, ignore_errors=True)
            answers = {"problem_type": project.name, "machinery_tests": True, "parts": ALL_PARTS}
            answers |= types[project.name]
            copier.run_copy(str(source), project, data=answers, defaults=True, quiet=True)
            # Some tests ask git, and must not meet the template's own repository
            subprocess.run(["git", "init", "--quiet", project], check=True)
    return projects


def installed(project: Path, environment: Path) -> Path:
    """The Python of an environment with all that a project needs but the project itself."""
    groups = ["--group", "encoders", "--group", "imbalance", "--group", "tuning"]
    groups += ["--no-group", "mlflow-local"]  # whose lack a test tells
    command = ["uv", "sync", "--quiet", "--no-install-project", *groups]
    env = {**ENV, "UV_PROJECT_ENVIRONMENT": str(environment)}
    subprocess.run(command, cwd=project, env=env, check=True)
    # What a bill of materials is held against; no project ships it
    python = environment / "bin/python"
    subprocess.run(
        ["uv", "pip", "install", "--quiet", "--python", python, CYCLONEDX], env=ENV, check=True
    )
    return python


def torch_installed(python: Path, environment: Path) -> Path | None:
    """The Python of an environment with torch beside all that another one has; None, with the reason, without.

    Installed by pip, and only a build for processors: uv takes one for graphics cards, of several GB.
    """
    base = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    torch_python = environment / "bin/python"
    if not torch_python.exists():
        subprocess.run([python, "-m", "venv", environment], check=True)
    library = next((environment / "lib").glob("python*/site-packages"))
    (library / "base.pth").write_text(base + "\n", encoding="utf-8")
    if (library / "torch").is_dir():
        return torch_python
    pip = [torch_python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    report = [*pip, "--dry-run", "--no-deps", "--report", "-", TORCH]
    planned = subprocess.run(report, env=ENV, capture_output=True, text=True)
    if planned.returncode or not re.search(r"(\+|%2B)cpu-", planned.stdout):
        print(f"--- networks: skipped, pip finds no {TORCH} for processors here", flush=True)
        return None
    subprocess.run([*pip, TORCH, *WITH_TORCH], env=ENV, check=True)
    return torch_python


def run(project: Path, python: Path, arguments: list[str]) -> int:
    env = {
        **ENV,
        "PYTHONPATH": str(project / "src"),
        "PATH": f"{python.parent}:{ENV['PATH']}",
    }
    print(f"--- {project.name}", flush=True)
    return subprocess.run(
        [python, "-m", "pytest", "-q", *arguments], cwd=project, env=env
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
