"""Cutting a text to a number of tokens, for any tokeniser."""

from __future__ import annotations

from collections.abc import Callable


def settle(count: Callable[[str], int], text: str, end: int, max_tokens: int) -> str:
    """The prefix of `text` nearest to `text[:end]` that fits in `max_tokens` and that one more character would overflow.

    `end` is a tokeniser's own proposal and nearly always right. It is checked because counts are not monotone: the text "ab" may be
    one token where "a" + "b" were two, so a cut can cost a token more than the whole did, and a longer prefix one less. The steps
    back double, so that a proposal far off costs a logarithm of counts. Empty when nothing fits.
    """
    step = 1
    while end > 0 and count(text[:end]) > max_tokens:
        end = max(0, end - step)
        step *= 2
    if end == 0 and count("") > max_tokens:
        return ""
    while end < len(text) and count(text[: end + 1]) <= max_tokens:
        end += 1
    return text[:end]
