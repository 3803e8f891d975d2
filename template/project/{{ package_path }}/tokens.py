"""Texts as the tokens that a given encoder reads, in training, service, batch and device alike.

Needs the library `tokenizers`, only where a model reads tokens; `export` puts the file beside the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Tokens(NamedTuple):
    """What a graph's input of tokens is made of.

    `column`: the raw column. `tokenizer`: the content of a tokenizer.json (Hugging Face `tokenizers`). `length`:
    tokens that are read at most.
    """

    column: str
    tokenizer: str
    length: int

    def to_ids(self) -> Callable[[str], list[int]]:
        """A function from a text to the numbers of its tokens, 1 to `length` of them.

        Where a text has none, and the tokenizer puts none around it, its token is number 0.

        Raises:
            ModuleNotFoundError: without `tokenizers`.
            ValueError: when it cannot read the content.
        """
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_str(self.tokenizer)
            tokenizer.enable_truncation(self.length)
        except Exception as error:  # the library's own has no class
            raise ValueError(f"not a tokenizer that can be read: {error}") from None
        tokenizer.no_padding()
        return lambda text: tokenizer.encode(text).ids or [0]
