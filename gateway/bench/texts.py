"""Texts to embed: each one new, unless a share of repeats is asked for, and of ordinary words, since tokens are counted."""

from __future__ import annotations

import itertools
import os
import random

_SENTENCE = (
    "the agent reads a page of notes about rivers and harbours before it answers the question of the user in plain words and keeps "
    "what it found for later because another agent may ask the same thing tomorrow morning when the ships leave the old port again"
)
_WORDS = _SENTENCE.split()
_POOL = 1000
_FILLERS = 64


class TextSource:
    """Gives texts of about `chars` characters. No two are alike but for the share `repeat`, which comes from a pool of 1,000.

    No other source gives the same texts, whatever its seed: what one run left in the caches must not flatter the next.
    """

    def __init__(self, chars: int, repeat: float, seed: int) -> None:
        self._random = random.Random(seed)
        self._repeat = repeat
        self._serial = itertools.count()
        run = os.urandom(5).hex()
        self._prefix = f"note {run}"
        self._fillers = [self._filler(max(0, chars - 22)) for _ in range(_FILLERS)]
        self._pool = [f"shared note {run} {i} {self._fillers[i % _FILLERS]}" for i in range(_POOL)]

    def take(self, count: int) -> list[str]:
        """The next `count` texts."""
        if self._repeat:
            return [self._any() for _ in range(count)]
        prefix, serial, fillers = self._prefix, self._serial, self._fillers
        return [f"{prefix} {(n := next(serial))} {fillers[n % _FILLERS]}" for _ in range(count)]

    def _any(self) -> str:
        if self._random.random() < self._repeat:
            return self._random.choice(self._pool)
        n = next(self._serial)
        return f"{self._prefix} {n} {self._fillers[n % _FILLERS]}"

    def _filler(self, chars: int) -> str:
        words: list[str] = []
        size = 0
        while size < chars:
            word = self._random.choice(_WORDS)
            words.append(word)
            size += len(word) + 1
        return " ".join(words)[:chars].rstrip()
