"""How a page is made: a Jinja template beside the code that fills it in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from .settings import read_text


def render(template: Path, facts: dict[str, Any], **filters: Any) -> str:
    """A template with its facts filled in; in a page of HTML every value is escaped.

    Args:
        filters: functions that the template may pipe a value through.
    """
    environment = Environment(
        autoescape=".html" in template.suffixes,
        keep_trailing_newline=True,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= filters
    return environment.from_string(read_text(template).replace("\r\n", "\n")).render(facts)
