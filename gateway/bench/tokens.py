"""Token counting for the simulator: OpenAI's own vocabulary, or words where speed matters more than exactness."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

TokenRule = Literal["cl100k", "words"]

Counter = Callable[[str], int]


def token_counter(rule: TokenRule) -> Counter:
    """How many tokens a text costs. `cl100k` is what OpenAI bills for its embedding models; `words` counts between blanks."""
    if rule == "words":
        return lambda text: text.count(" ") + 1
    import bpe_openai

    encode = bpe_openai.get_encoding("cl100k_base").encode_ordinary
    return lru_cache(maxsize=65_536)(lambda text: len(encode(text)))


@lru_cache(maxsize=1)
def _decoder() -> Callable[[list[int]], bytes] | None:
    try:
        import bpe_openai
    except ImportError:
        return None
    decode: Callable[[list[int]], bytes] = bpe_openai.get_encoding("cl100k_base").decode_bytes
    return decode


def bytes_of_tokens(tokens: list[int]) -> bytes:
    """The bytes that a token array stands for, so that tokens and text have one vector; the numbers themselves without a vocabulary."""
    decode = _decoder()
    if decode is None:
        return b",".join(b"%d" % token for token in tokens)
    return decode(tokens)
