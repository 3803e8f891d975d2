"""Which functions of a project each of its tests calls: a pytest plugin of `make mutants`.

What a test starts as a process of its own is seen as well: a `sitecustomize` in MUTANTS_FOLDER imports this there.
The lines that it writes, parted by tabs: `call`, a test or fixture, `module:line` of a function that it called;
`fixture`, its name, the seconds that it took; `test`, its name, the seconds of its own, the fixtures that it uses.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

FOLDER, PACKAGE, AT = (f"MUTANTS_{name}" for name in ("FOLDER", "PACKAGE", "AT"))
calls_noted: set[tuple[str, str, int]] = set()
modules: dict[str, str] = {}  # a file's path, and the module of the package that it is, if any


def write(*fields: str) -> None:
    with Path(os.environ[FOLDER], f"{os.getpid()}.tsv").open("a", encoding="utf-8") as file:
        file.write("\t".join(fields) + "\n")


def note(frame, event, arg) -> None:
    """Python calls this whenever a function is called."""
    path = frame.f_code.co_filename
    module = modules.get(path)
    if module is None:
        _, inside, below = path.partition(f"/src/{os.environ[PACKAGE]}/")
        module = modules[path] = below if inside else ""
    if module and (at := os.environ.get(AT)):
        call = (at, module, frame.f_code.co_firstlineno)
        if call not in calls_noted:
            calls_noted.add(call)
            write("call", at, f"{module}:{call[2]}")


def key(fixture) -> str:
    return f"{fixture.baseid}@{fixture.argname}"


def pytest_fixture_setup(fixturedef, request):
    before, began = os.environ.get(AT, ""), time.perf_counter()
    os.environ[AT] = key(fixturedef)
    yield
    os.environ[AT] = before
    write("fixture", key(fixturedef), f"{time.perf_counter() - began:.3f}")


def pytest_runtest_setup(item):
    os.environ[AT] = item.nodeid
    yield


def pytest_runtest_call(item):
    began = time.perf_counter()
    yield
    fixtures = [
        key(fixture) for same in item._fixtureinfo.name2fixturedefs.values() for fixture in same
    ]
    write("test", item.nodeid, f"{time.perf_counter() - began:.3f}", *fixtures)


class Popen(subprocess.Popen):
    """A process that notes its calls too, whatever variables it is given."""

    def __init__(self, *arguments, env=None, **options):
        env = dict(os.environ if env is None else env)
        env |= {name: os.environ[name] for name in (FOLDER, PACKAGE, AT) if name in os.environ}
        paths = (env.get("PYTHONPATH"), os.environ[FOLDER])
        env["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        super().__init__(*arguments, env=env, **options)


if os.environ.get(FOLDER):
    sys.settrace(note)
    threading.settrace(note)
    atexit.register(sys.settrace, None)
    subprocess.Popen = Popen
if "pytest" in sys.modules:
    import pytest

    for hook in (pytest_fixture_setup, pytest_runtest_setup, pytest_runtest_call):
        pytest.hookimpl(hookwrapper=True)(hook)
