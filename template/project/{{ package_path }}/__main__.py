"""Runs a command: each folder has its own in `commands.py`, and those of the folders that are here are found.

Stages are imported by the command that runs them, so that none pays for another's libraries.
Exit codes: 0 done; 1 the gate or a check failed; 2 wrong use or bad input; 3 the command broke.
"""

from __future__ import annotations

import gc
import io
import os
import re
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from typer import Typer, rich_utils

from .cli import ROOT, app
from .parts import PACKAGE, absent_part, part_hint
from .paths import SETTINGS_FILE, STAGE_JOURNAL
from .problem import LEFT_OUT
from .settings import UserError, located, missing_library

SEGMENTS = ("goals", "data", "features", "modelling", "scoring")  # the core; then the parts


def find_commands() -> Typer:
    """The application with the commands of every folder that is here, in the order in which data flows."""
    parts = {path.parent.name for path in PACKAGE.glob("*/commands.py")}
    import_module(".commands", __package__)
    for name in [*filter(parts.__contains__, SEGMENTS), *sorted(parts - {*SEGMENTS})]:
        import_module(f".{name}.commands", __package__)
    return app


def main() -> None:
    """Run a command; what the user can mend is one line and exit code 2."""
    # A command ends too soon for collecting garbage, or for taking pandas and scikit-learn down piece
    # by piece, to pay: together they would be a third of a stage's start
    gc.set_threshold(100_000, 50, 100)
    # numpy's library starts a thread for each core; training sets its own number
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # What a terminal or a log cannot show is replaced; the work is not lost to one character
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    code = 3
    _note_stage("started")
    try:
        code = _run_command()
    except BaseException as error:  # SystemExit too: a library's 1 is not a check that failed
        with suppress(Exception):  # rich ends with SystemExit where the pipe is closed
            _report_crash(error.__context__ or error if isinstance(error, SystemExit) else error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # nobody reads it any more
            stream.flush()
    _note_stage(str(code))
    _leave(code)


def _note_stage(state: str) -> None:
    """Tell `run`, which let DVC start this command, that a stage began or how it ended."""
    if journal := os.environ.get(STAGE_JOURNAL):
        with suppress(OSError), open(journal, "a", encoding="utf-8") as file:
            file.write(f"{sys.argv[1]}={state}\n")


def _leave(code: int) -> None:
    """End the process: at once, or in order where coverage, a profiler or a debugger writes at its end."""
    tools = getattr(sys, "monitoring", None)  # from Python 3.12
    watched = bool(tools and any(map(tools.get_tool, range(6))))
    if watched or sys.gettrace() or sys.getprofile():
        sys.exit(code)
    os._exit(code)


def _run_command() -> int:
    """Run the command that this process was given; its exit code."""
    try:
        if re.search("[\ud800-\udfff]", str(Path.cwd())):  # DVC and DuckDB take paths as UTF-8
            raise UserError("this locale cannot write the project's path: set PYTHONUTF8=1")
        for command in (
            "".join(sys.argv[1:2]),
            " ".join(sys.argv[1:3]),
        ):  # or of a group: `label next`
            if reason := LEFT_OUT.get(command):
                raise UserError(f"{command}: {reason}")
            if part := absent_part(command):
                raise UserError(f"`{command}` {part_hint(part)}")
        # In standalone mode an interrupt or a closed pipe would be a 1
        code = find_commands()(standalone_mode=False)
        return code if isinstance(code, int) else 0
    except UserError as error:
        print(f"error: {located(str(error), ROOT / SETTINGS_FILE)}", file=sys.stderr)
    except ModuleNotFoundError as error:
        name = str(error.name).partition(".")[0]
        if name == __package__:
            raise
        print(f"error: {missing_library(name)}", file=sys.stderr)
    except Exception as error:
        if not hasattr(error, "exit_code"):
            raise
        rich_utils.rich_format_error(error)  # type: ignore[arg-type]  # wrong use
        return int(error.exit_code)
    return 2


def _report_crash(error: BaseException) -> None:
    """Say why a command did not come to its end."""
    message = "this command broke (exit code 3)"
    if isinstance(error, OSError) and error.strerror:  # the machine's fault: where says nothing
        file_name = f": {error.filename}" if error.filename else ""
        print(f"error: {message}: {error.strerror}{file_name}", file=sys.stderr)
        return
    if isinstance(error, Exception):
        traceback.print_exception(error)
    print(f"error: {message}: {type(error).__name__}", file=sys.stderr)


if __name__ == "__main__":
    main()
