"""Changing params.yaml with its comments kept: values, and whole blocks of lines."""

from __future__ import annotations

import re
from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark
from ruamel.yaml.scalarstring import DoubleQuotedScalarString
from ruamel.yaml.tokens import CommentToken

PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./ -]*(?<! )")


def on_one_line(value: Any) -> Any:
    """A list or mapping that stands on one line."""
    node: CommentedMap | CommentedSeq
    if isinstance(value, dict):
        node = CommentedMap((_quoted(key), _quoted(item)) for key, item in value.items())
    else:
        node = CommentedSeq(map(_quoted, value))
    node.fa.set_flow_style()
    return node


def _quoted(value: Any) -> Any:
    """A text in quotes, if it has a letter that means something on one line of YAML."""
    return (
        DoubleQuotedScalarString(value)
        if type(value) is str and not PLAIN.fullmatch(value)
        else value
    )


def in_quotes(values: list[str]) -> Any:
    """A list of texts on one line, each in quotes."""
    return on_one_line([DoubleQuotedScalarString(text) for text in values])


def change(block: CommentedMap, **values: Any) -> None:
    """Change values; their comments move up to them. A key that was not there comes before the last."""
    for key in values:
        if key not in block:
            block.insert(len(block) - 1, key, None)
    block.update(values)
    for key in values:
        if token := block.ca.items.get(key, [None] * 4)[2]:
            block.ca.items[key][2] = CommentToken(f" {token.value.lstrip(' ')}", CommentMark(0))


def refill(block: CommentedMap, lines: dict[str, tuple[CommentedMap, str]]) -> None:
    """Replace what a block holds, line by line, each with its comment.

    What stands below the block, such as the heading of the next one, may hang on its last line.
    """
    last = block.ca.items.get(next(reversed(block), None), [None] * 4)[2]
    tail_text = last.value.partition("\n")[2] if last else ""
    block.clear()
    block.ca.items.clear()
    for key, (line, comment_text) in lines.items():
        block[key] = line
        tail = tail_text if key == next(reversed(lines)) else ""
        if comment_text or tail:
            line_end = f" # {' '.join(comment_text.split())}\n" if comment_text else "\n"
            comment = CommentToken(f"{line_end}{tail}", CommentMark(0))
            block.ca.items[key] = [None, None, comment, None]
