"""Token counting for the simulator: OpenAI's own vocabulary, or words where speed matters more than exactness."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

from adapters.tokenizers.bpe import BpeTokenizer

TokenRule = Literal["cl100k", "words"]

Counter = Callable[[str], int]


def token_counter(rule: TokenRule) -> Counter:
    """How many tokens a text costs. `cl100k` is what OpenAI bills for its embedding models; `words` counts between blanks."""
    if rule == "words":
        return lambda text: text.count(" ") + 1
    return _cl100k().count


def bytes_of_tokens(tokens: list[int]) -> bytes:
    """The bytes that a token array stands for, so that tokens and text have one vector; the ids themselves where they spell no text."""
    try:
        text = _cl100k().decode(tokens)
    except ModuleNotFoundError:
        text = None
    return b"tokens %r" % tokens if text is None else text.encode()


@cache
def _cl100k() -> BpeTokenizer:
    return BpeTokenizer("cl100k_base")
