"""Texts a second of the local model: `python -m tests.benchmarks.bench_local_model`."""

from __future__ import annotations

import os
import time

from adapters.providers.local.fetch import ensure
from adapters.providers.local.files import default_store
from adapters.providers.local.model import LocalModel

CALLS, TEXTS = 4, 128
SENTENCE = "the gateway keeps every request in an append only log before any money is spent on it "


def main() -> None:
    """Best of a few calls, for short and for longer texts."""
    model = LocalModel(ensure(default_store()), os.cpu_count() or 1)
    for repeats in (2, 7):
        texts = [f"{number} " + SENTENCE * repeats for number in range(TEXTS)]
        best, tokens = 0.0, 0
        for _ in range(CALLS):
            started = time.perf_counter()
            _, counts = model.embed(texts, lambda: False)
            best = max(best, TEXTS / (time.perf_counter() - started))
            tokens = sum(counts) // TEXTS
        print(f"{tokens} tokens a text: {best:.0f} texts/s")


if __name__ == "__main__":
    main()
