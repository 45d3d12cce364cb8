"""OpenAI's byte-pair encodings, exactly as OpenAI counts them, with vocabularies that come inside a wheel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

# The wheel's compiled module itself: the class around it refuses a million characters or 200,000 tokens, both of which a caller
# may send within our limits, builds a list per count, and holds the whole vocabulary a second time.
from bpe_openai import _bindings

from adapters.tokenizers.prefix import settle


class BpeTokenizer:
    """One encoding, such as `cl100k_base`. Adds no special tokens; the text of one ("<|endoftext|>") counts as any other text.

    Counting takes about 2 microseconds per 100 characters and holds the GIL; it is cheap enough for the event loop. The object is
    immutable: threads may share it. A lone surrogate raises `UnicodeEncodeError`; the wire refuses those.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._encoding = _bindings.tokenizer_for_encoding(name)

    def count(self, text: str) -> int:
        """Tokens of one text."""
        counted: int = self._encoding.count(text)
        return counted

    def count_many(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, in order."""
        return list(map(self._encoding.count, texts))

    def truncate(self, text: str, max_tokens: int) -> str:
        """A prefix that counts at most `max_tokens` and that one more character would overflow. Linear in the text's length."""
        if self._encoding.count_till_limit(text, max(max_tokens, 0)) is not None:
            return text
        tokens: list[int] = self._encoding.encode(text)
        end = self._characters(tokens[: max(max_tokens, 0)])
        return settle(partial(self._encoding.count), text, end, max_tokens)

    def _characters(self, tokens: list[int]) -> int:
        """How many characters these tokens spell whole. A token may end inside a character; four bytes are the longest."""
        for dropped in range(4):
            try:
                return len(self._encoding.decode(tokens[: len(tokens) - dropped]))
            except ValueError:
                continue
        return 0
