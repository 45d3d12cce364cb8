"""all-MiniLM-L6-v2 a second time, in plain Python and numpy (float64), as the oracle of the tests. Shares no code with the adapter."""

from __future__ import annotations

import json
import math
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.providers.local.fetch import ensure
from adapters.providers.local.files import ModelFiles, default_store

Array = NDArray[np.float64]


@cache
def published() -> ModelFiles:
    """The model's files in this machine's store, fetched the first time as a user's would be."""
    return ensure(default_store())


@cache
def vocabulary() -> dict[str, int]:
    vocab: dict[str, int] = json.loads(published().tokenizer.read_text("utf-8"))["model"]["vocab"]
    return vocab


def words(text: str) -> list[str]:
    """BERT's basic tokenisation: cleaned, lower case, without accents, split at spaces, punctuation and CJK characters."""
    out = [""]
    for char in unicodedata.normalize("NFD", text):
        kind, code = unicodedata.category(char), ord(char)
        if kind == "Mn" or char == "\ufffd" or (kind.startswith("C") and char not in "\t\n\r"):
            continue
        if char.isspace():
            out.append("")
        elif 0x4E00 <= code <= 0x9FFF or kind.startswith("P") or (code < 128 and not char.isalnum()):
            out += [char, ""]
        else:
            out[-1] += char.lower()
    return [word for word in out if word]


def token_ids(text: str) -> list[int]:
    """The ids of a text, [CLS] and [SEP] included."""
    vocab = vocabulary()
    ids = [vocab["[CLS]"]]
    for word in words(text):
        ids += _pieces(word, vocab)
    return [*ids, vocab["[SEP]"]]


def _pieces(word: str, vocab: dict[str, int]) -> list[int]:
    ids, start = [], 0
    if len(word) > 100:
        return [vocab["[UNK]"]]
    while start < len(word):
        prefix = "##" if start else ""
        end = next((e for e in range(len(word), start, -1) if prefix + word[start:e] in vocab), None)
        if end is None:
            return [vocab["[UNK]"]]
        ids.append(vocab[prefix + word[start:end]])
        start = end
    return ids


@cache
def weights() -> dict[str, Array]:
    raw = published().weights.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header: dict[str, Any] = json.loads(raw[8 : 8 + size])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = entry["data_offsets"]
            flat = np.frombuffer(raw[8 + size + begin : 8 + size + end], "<f4")
            found[name] = flat.reshape(entry["shape"]).astype(np.float64)
    return found


def vector(text: str) -> Array:
    """The text's vector, by the model's published definition, one text at a time."""
    w, ids = weights(), token_ids(text)
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = _norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(6):
        name = f"encoder.layer.{layer}"
        attended = _linear(_attention(x, f"{name}.attention.self"), f"{name}.attention.output.dense")
        x = _norm(x + attended, f"{name}.attention.output.LayerNorm")
        hidden = _linear(x, f"{name}.intermediate.dense")
        hidden = hidden * 0.5 * (1.0 + _erf(hidden / math.sqrt(2.0)))
        x = _norm(x + _linear(hidden, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    mean: Array = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


def _attention(x: Array, name: str) -> Array:
    q, k, v = (_linear(x, f"{name}.{part}").reshape(-1, 12, 32).swapaxes(0, 1) for part in ("query", "key", "value"))
    scores = q @ k.swapaxes(1, 2) / math.sqrt(32)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (shares / shares.sum(axis=-1, keepdims=True)) @ v
    return np.asarray(mixed.swapaxes(0, 1).reshape(-1, 384))


def _linear(x: Array, name: str) -> Array:
    return np.asarray(x @ weights()[f"{name}.weight"].T + weights()[f"{name}.bias"])


def _norm(x: Array, name: str) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
    return np.asarray(scaled * weights()[f"{name}.weight"] + weights()[f"{name}.bias"])


_erf = np.vectorize(math.erf, otypes=[np.float64])


def copy_to(folder: Path) -> None:
    """Both published files into a folder, as a source of `ensure` does."""
    for path in (published().tokenizer, published().weights):
        (folder / path.name).write_bytes(path.read_bytes())
