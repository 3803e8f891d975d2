"""Run inside a generated project: whatever params.yaml holds, `load` gives settings or one line.

What `load` gives, no stage refuses for its form: `used` does with it what each stage does first.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import hypothesis
import pytest
from hypothesis import strategies as st
from my_model.agreements import UNIT_SECONDS
from my_model.data.label import _as_of, known_from, truth
from my_model.data.source import _typed_part
from my_model.features.catalogue import inputs, selected
from my_model.scoring.batch import _limit
from my_model.serving.rows import Rows
from my_model.settings import Settings, UserError, load
from ruamel.yaml import YAML

SAMPLE = Path("tests/sample.yaml").read_text("utf-8")
TREE = YAML(typ="safe").load(SAMPLE)
TEXT = re.sub(r"(?m)\s*#.*$", "", SAMPLE)  # a wrong comment is no wrong setting
CASES = hypothesis.settings(
    max_examples=2500,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def keys(tree: Any, at: tuple[Any, ...] = ()) -> Any:
    """The path of every key, those of blocks included."""
    below = list(enumerate(tree)) if isinstance(tree, list) else []
    for name, value in tree.items() if isinstance(tree, dict) else below:
        yield (*at, name)
        yield from keys(value, (*at, name))


NUMBERS = st.sampled_from(
    [
        0,
        1,
        -1,
        7,
        0.0,
        -0.5,
        0.5,
        1e-320,
        1e308,
        -1e308,
        10**18,
        2**63,
        10**400,
        float("inf"),
        float("-inf"),
        float("nan"),
        True,
        False,
        None,
    ]
)
TEXTS = st.sampled_from(
    [
        "",
        " ",
        "null",
        "2026-13-45",
        "0000-00-00",
        "9999-12-31",
        "2026-02-30 25:61",
        "latest",
        "0d",
        "1d",
        "1w",
        "99999999d",
        "0MB",
        "0.0GB",
        "1GB",
        "9e9GB",
        "costs",
        "drop",
        "hash",
        "%",
        "%Q",
        "%Y-%",
        "%d.%m.%Y",
        "iso",
        "has x",
        "first",
        "number",
        "linear",
        "label",
        "entity_email",
        "entity_id",
        "event_time",
        "a\nb",
        "\x85",
        "\u2028",
        "�",
        "é日",
        "'",
        '"',
        "\\",
        "{{ x }}",
        "!!python/object:os.system",
        "; DROP TABLE x",
        "x" * 5000,
    ]
)
VALUES = st.recursive(
    NUMBERS | TEXTS | st.floats() | st.integers() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=5,
)
BITS = st.sampled_from(
    [
        "\t",
        "  ",
        "- ",
        "? ",
        "&a ",
        "*a",
        "*b ",
        "<<: *a",
        "!!int x",
        "!!timestamp 2026-13-45",
        "!!binary x",
        "!!set {a}",
        "!foo ",
        "2026-13-45",
        "0x",
        "0b2",
        "1e999",
        "---\n",
        "...\n",
        "%YAML 9\n",
        "{",
        "}",
        "[",
        "]",
        ":",
        "'",
        '"',
        "|\n",
        ">\n",
        "#",
        "\x00",
        "\x85",
        "\ufeff",
        "�",
        "\x7f",
        "[" * 3000,
        "\r",
        "\n\n",
        "<<<<<<< \n",
    ]
)


def loaded(path: Path) -> Settings | None:
    try:
        return load(path)
    except UserError as error:
        message = str(error)
        assert re.fullmatch(rf"{re.escape(str(path))}(:\d+)?: \S.{{1,900}}", message), message
        return None


def used(settings: Settings) -> None:
    """Go as far with settings as the stages do before they look at data."""
    data, window = settings.data, settings.monitoring.window
    assert selected(settings)
    columns = {column.source or name for name, column in data.schema_.columns.items()}
    source = {name: (f"c{position}", "VARCHAR") for position, name in enumerate(columns)}
    with duckdb.connect() as sql:
        sql.execute("SET TimeZone = 'UTC'; SET VARIABLE personal_key = 'key'")
        sql.create_function("masked", lambda value: value, ["VARCHAR"], "VARCHAR")
        _limit(sql, settings)
        expressions = ", ".join(f"'1' AS {column}" for column, _ in source.values())
        sql.execute(f"CREATE TABLE given AS SELECT {expressions}")
        sql.execute(_typed_part(settings, source, list(data.schema_.columns), "given")).fetchall()
        sql.execute(f"SELECT {truth('given.c0', settings)} FROM given").fetchall()
        if data.schema_.time:
            moments = {data.schema_.time, data.label.time} - {None}
            first = ", ".join(f"TIMESTAMP '2026-01-01' AS \"{name}\"" for name in moments)
            sql.execute(f"CREATE TABLE events AS SELECT {first}")
            query = f"SELECT {_as_of(settings)}, {known_from(settings)} FROM events"
            assert sql.execute(query).fetchall()[0][0] is not None
    if isinstance(window, str):
        step = timedelta(seconds=int(window[:-1]) * UNIT_SECONDS[window[-1]])
        assert datetime(2026, 1, 1) - step * settings.monitoring.windows
    statistics = {"min": 0.0, "max": 1.0, "median": 0.5, "categories": ["a"]}
    Rows(
        settings,
        [{"name": name, "type": kind, **statistics} for name, kind in inputs(settings).items()],
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("settings") / "params.yaml"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("PERSONAL_KEY", "key")


KEYS = st.sampled_from(sorted(keys(TREE), key=str))
OFFSETS = st.integers(0, len(TEXT))


@CASES
@hypothesis.given(st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=3))
def test_any_value(path, changes):
    tree = copy.deepcopy(TREE)
    for (*parents, last), value in changes:
        block = tree
        with contextlib.suppress(KeyError, TypeError, IndexError):  # an earlier change took it away
            for name in parents:
                block = block[name]
            block[last] = value
    text = json.dumps(tree)
    for ours, theirs in (("-Infinity", "-.inf"), ("Infinity", ".inf"), ("NaN", ".nan")):
        text = text.replace(ours, theirs)
    path.write_text(text, "utf-8")
    if settings := loaded(path):
        used(settings)


@CASES
@hypothesis.given(
    st.lists(
        st.tuples(OFFSETS, BITS | st.text(max_size=4), st.integers(0, 40)), min_size=1, max_size=3
    )
)
def test_any_structure(path, edits):
    text = TEXT
    for at, bit, gone in edits:
        text = text[:at] + bit + text[at + gone :]
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    if settings := loaded(path):
        used(settings)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"a: \x80", b"null", b"- 1", b"x", b"a: &a [*a]", b"\xef\xbb\xbf", b"--- \n---\n", b"? [a]\n: b", b"a: &a [x,x]\n" + b"".join(b"%c: &%c [*%c,*%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 120))],
)  # fmt: skip
def test_files_that_are_no_settings(path, content):
    path.write_bytes(content)
    assert loaded(path) is None
    path.write_bytes(content + b"\n" + TEXT.encode())
    loaded(path)
