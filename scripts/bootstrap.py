"""Makes the environment FOLDER and installs uv into it: python3 scripts/bootstrap.py FOLDER

Needs Python alone. With uv on the path nothing is installed but the environment. Without, pip installs
it; where Debian leaves ensurepip out of python3, the system's pip does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

UV = "uv>=0.11,<1"


def quiet(*command: str | Path) -> bool:
    return (
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
        == 0
    )


def main(folder: Path) -> int:
    if sys.version_info < (3, 11):
        print(f"Python 3.11 or later is needed; this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    if uv := shutil.which("uv"):
        return subprocess.run([uv, "venv", "--quiet", "--clear", folder]).returncode
    shutil.rmtree(folder, ignore_errors=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = ["install", "--quiet", "--disable-pip-version-check", UV]
    if quiet(sys.executable, "-m", "venv", folder):
        return subprocess.run([python, "-m", "pip", *install]).returncode
    if not quiet(sys.executable, "-m", "venv", "--clear", "--without-pip", folder):
        print(
            "Python cannot make an environment; install its venv module (Debian, Ubuntu: "
            "apt install python3-venv) or uv (https://docs.astral.sh/uv), then try again",
            file=sys.stderr,
        )
        return 2
    if find_spec("pip"):
        return subprocess.run(
            [sys.executable, "-m", "pip", "--python", python, *install]
        ).returncode
    print(
        "neither ensurepip nor pip is here; install pip (Debian, Ubuntu: apt install python3-venv) "
        "or uv (https://docs.astral.sh/uv), then try again",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
