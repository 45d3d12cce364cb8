"""Where the local model's files lie, and how to tell the right ones.

A *model store* is a folder that holds one folder per model. Ours:

    <store>/all-MiniLM-L6-v2/model.safetensors   the published weights, 90.9 MB
    <store>/all-MiniLM-L6-v2/tokenizer.json      the published WordPiece tokeniser
    <store>/all-MiniLM-L6-v2/graph-1.onnx        our graph over those weights
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

MODEL = "all-MiniLM-L6-v2"
DIMENSIONS = 384
MAX_TOKENS = 256
"""The longest input the model was published for (`max_seq_length`), special tokens included."""

WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
SHA256 = {
    WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
GRAPH = "graph-1.onnx"
"""The number is the graph's own version: a changed `graph.py` takes the next one and builds anew."""


class ModelError(Exception):
    """The local model cannot be had. The message says what to run or where to put which file."""


class ModelFiles(NamedTuple):
    """The three files that make the model run."""

    weights: Path
    tokenizer: Path
    graph: Path


def model_files(store: Path) -> ModelFiles:
    """The paths of the model's files in a store, there or not."""
    folder = store / MODEL
    return ModelFiles(folder / WEIGHTS, folder / TOKENIZER, folder / GRAPH)


def default_store() -> Path:
    """`$MODEL_STORAGE_DIR`, else `emberlog/models` in the user's cache folder (`$XDG_CACHE_HOME` or `~/.cache`)."""
    named = os.environ.get("MODEL_STORAGE_DIR")
    if named:
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "emberlog" / "models"


def mismatch(path: Path) -> str | None:
    """Why this is not the published file of that name; None when it is. Reads the whole file (0.2 s for the weights)."""
    expected = SHA256[path.name]
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return f"{path} is not there"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return None if found == expected else f"{path} has sha256 {found}, expected {expected}"


def sync(path: Path) -> None:
    """Bring a file's bytes to the disk, so that a rename never publishes an empty file after a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
