"""What each text costs in tokens: the tokeniser's exact count where there is one, else an upper bound marked as an estimate."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Sequence

import msgspec

from domain.catalogue import Model
from domain.errors import GatewayError
from domain.ports.provider import Text
from domain.ports.tokenizer import Tokenizer

OFF_LOOP_CHARS = 32_768
"""Above this many characters a request is counted in a worker thread (about 2 ms of tokenising), so that others are not delayed."""
SPECIAL_TOKENS = 2
"""Added to an upper bound for the start and end marks that some models add."""


class Counted(msgspec.Struct, frozen=True):
    """The texts as they will be embedded (cut where that was allowed), the tokens of each, and which were cut."""

    texts: Sequence[Text]
    tokens: list[int]
    truncated: list[int]
    estimated: bool


def upper_bound(text: Text) -> int:
    """Tokens that no byte-level or subword tokeniser exceeds: the larger of its bytes as they are and after NFKC, plus marks."""
    if isinstance(text, list):
        return len(text)
    normal = unicodedata.normalize("NFKC", text)
    return max(len(text.encode()), len(normal.encode())) + SPECIAL_TOKENS


def count(texts: Sequence[Text], model: Model, tokenizer: Tokenizer | None, *, cut: bool) -> Counted:
    """Count every text. With `cut`, a text over the model's limit is cut to it; else `input_too_long` names the first one's index."""
    if tokenizer is None:
        # An estimate must not refuse a text that may well fit: the provider is the judge there.
        return Counted(texts, [upper_bound(t) for t in texts], [], True)
    tokens = [len(t) if isinstance(t, list) else tokenizer.count(t) for t in texts]
    if max(tokens) <= model.max_tokens:
        return Counted(texts, tokens, [], False)
    kept, truncated = list(texts), []
    for index, (text, number) in enumerate(zip(texts, tokens, strict=True)):
        if number <= model.max_tokens:
            continue
        if not cut:
            raise GatewayError(
                "input_too_long",
                f"input {index} has {number} tokens; {model.id} takes at most {model.max_tokens}: shorten it, or send truncate = 'end'",
                details={"field": "input", "index": index, "tokens": number, "max_tokens": model.max_tokens},
            )
        short = text[: model.max_tokens] if isinstance(text, list) else tokenizer.truncate(text, model.max_tokens)
        kept[index] = short
        tokens[index] = len(short) if isinstance(short, list) else tokenizer.count(short)
        truncated.append(index)
    return Counted(kept, tokens, truncated, False)


def small(texts: Sequence[Text]) -> bool:
    """Whether counting these on the loop delays nobody noticeably."""
    return sum(map(len, texts)) <= OFF_LOOP_CHARS


async def count_off_loop(texts: Sequence[Text], model: Model, tokenizer: Tokenizer | None, *, cut: bool) -> Counted:
    """`count` in a worker thread, a slice at a time: a tokeniser that holds the interpreter lock still lets the loop breathe."""
    parts: list[Counted] = []
    start = 0
    while start < len(texts):
        stop, chars = start, 0
        while stop < len(texts) and (stop == start or chars + len(texts[stop]) <= OFF_LOOP_CHARS):
            chars += len(texts[stop])
            stop += 1
        try:
            parts.append(await asyncio.to_thread(count, texts[start:stop], model, tokenizer, cut=cut))
        except GatewayError as error:
            if error.details is None or "index" not in error.details:
                raise
            index = error.details["index"] + start
            raise GatewayError(
                error.code,
                error.message.replace(f"input {error.details['index']} ", f"input {index} ", 1),
                details={**error.details, "index": index},
            ) from None
        start = stop
    truncated: list[int] = []
    offset = 0
    for part in parts:
        truncated += [offset + i for i in part.truncated]
        offset += len(part.texts)
    return Counted(
        [t for p in parts for t in p.texts], [n for p in parts for n in p.tokens], truncated, parts[0].estimated
    )
