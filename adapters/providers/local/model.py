"""The local model loaded: texts to vectors, blocking, in one thread at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from adapters.providers.local.files import DIMENSIONS, MAX_TOKENS, MODEL, ModelFiles
from adapters.tokenizers.wordpiece import WordPieceTokenizer

# The runtime's own telemetry, on by default, keeps a device id and an event store in the user's cache from its import on.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

TOKENS_PER_RUN = 1024
"""Padded tokens of one run. Measured on two cores: 512 to 2,048 embed alike, 4,096 about 15 % fewer texts a second (the caches); fewer
leave a cancelled call sooner (a run takes some 70 ms)."""


class TooLongError(Exception):
    """A text is over the model's limit. `index` is its place among the texts, `tokens` its length."""

    def __init__(self, index: int, tokens: int) -> None:
        super().__init__(f"text {index} has {tokens} tokens, {MODEL} takes at most {MAX_TOKENS}")
        self.index = index
        self.tokens = tokens


class LocalModel:
    """The session and the tokeniser. `threads` is how many cores one run uses."""

    def __init__(self, files: ModelFiles, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that wait must not spin: they would take the event loop's core. Measured: no slower in batches.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            os.fspath(files.graph), options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = WordPieceTokenizer(MODEL, files.tokenizer)

    def embed(
        self, texts: Sequence[str], stopped: Callable[[], bool] = lambda: False
    ) -> tuple[NDArray[np.float32], list[int]]:
        """The vectors, shape (texts, 384), of length 1, in the order of the texts, and the tokens of each text.

        Raises `TooLongError`; texts are never cut. `stopped` is asked before each run: once it says yes, the answer is
        worthless to the caller and what it holds is unspecified.
        """
        encodings = self._tokenizer.encode_many(texts)
        counts = [len(encoding) for encoding in encodings]
        for index, count in enumerate(counts):
            if count > MAX_TOKENS:
                raise TooLongError(index, count)
        vectors = np.empty((len(texts), DIMENSIONS), np.float32)
        for rows in runs(counts):
            if stopped():
                break
            vectors[rows] = self._run([encodings[row] for row in rows])
        return vectors, counts

    def _run(self, encodings: list[Encoding]) -> NDArray[np.float32]:
        width = max(map(len, encodings))
        ids = np.zeros((len(encodings), width), np.int64)
        mask = np.zeros_like(ids)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding)] = encoding.ids
            mask[row, : len(encoding)] = 1
        vectors: NDArray[np.float32] = self._session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return vectors


def runs(counts: Sequence[int], limit: int = TOKENS_PER_RUN) -> Iterator[list[int]]:
    """The rows of each run: shortest first, so that little is padding, and at most `limit` padded tokens (or one row)."""
    rows: list[int] = []
    for row in sorted(range(len(counts)), key=counts.__getitem__):
        if rows and (len(rows) + 1) * counts[row] > limit:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows
