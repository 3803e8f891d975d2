"""How a page is made: a Jinja template beside the code that fills it in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Undefined

from .settings import read_text


def render(
    template: Path,
    facts: dict[str, Any],
    undefined: type[Undefined] = StrictUndefined,
    finalize: Callable[[Any], Any] | None = None,
    **filters: Any,
) -> str:
    """A template with its facts filled in; every value is escaped for HTML.

    Args:
        undefined: what a fact is that is not there.
        finalize: applied to every value before it is escaped; for another language than HTML, it gives Markup.
        filters: functions that the template may pipe a value through.
    """
    environment = Environment(
        autoescape=True,
        finalize=finalize,
        keep_trailing_newline=True,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=undefined,
    )
    environment.filters |= filters
    return environment.from_string(read_text(template).replace("\r\n", "\n")).render(facts)
