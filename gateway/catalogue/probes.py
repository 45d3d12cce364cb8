"""The texts that models are tried on: ours, fixed, of several languages and kinds. Another text is another probe, with references of its own."""

from __future__ import annotations

from hashlib import blake2b

PROBES = (
    "The lighthouse keeper wrote down every ship that passed in the night.",
    "def mean(values): return sum(values) / len(values)",
    "Quel temps fera-t-il demain sur la côte?",
    "Die Rechnung wird am Ende des Monats gestellt.",
    "数据库的事务要么全部完成，要么全部不做。",
    "invoice 2043: 12 units at 7.50 each, paid",
    "x",
    "Bread needs flour, water, salt and time; of these, time is the one most often left out.",
)


def probe_id(text: str) -> bytes:
    """What names a probe where references are kept."""
    return blake2b(text.encode(), digest_size=16, person=b"probe").digest()
