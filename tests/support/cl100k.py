"""OpenAI's cl100k_base a second time, in plain Python, as the oracle of the tests. Shares only the vocabulary with the adapter."""

from __future__ import annotations

import base64
import gzip
import re
import unicodedata
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

WHITE_SPACE = frozenset("\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {
    chr(code) for code in range(0x2000, 0x200B)
}
_CONTRACTION = re.compile(r"'(?i:[sdmt]|ll|ve|re)")
# The published pattern over classes of characters: L letter, N number, n newline, b blank, w other white space, o anything else.
_PIECE = re.compile(r"[bwo]?L+|N{1,3}|b?o+n*|[bwn]+\Z|[bwn]*n|[bwn]+(?![^bwn])|[bwn]")


def count(text: str) -> int:
    """Tokens of a text: split by the pattern, then merge the pair of lowest rank until none is left."""
    classes = "".join(map(_class, text))
    tokens = at = 0
    while at < len(text):
        match = _CONTRACTION.match(text, at) or _PIECE.match(classes, at)
        assert match is not None
        tokens += _merged(text[at : match.end()].encode())
        at = match.end()
    return tokens


def _class(char: str) -> str:
    if char in WHITE_SPACE:
        return {" ": "b", "\r": "n", "\n": "n"}.get(char, "w")
    return {"L": "L", "N": "N"}.get(unicodedata.category(char)[0], "o")


@cache
def _ranks() -> dict[bytes, int]:
    package = find_spec("bpe_openai")
    assert package is not None
    assert package.origin is not None
    packed = Path(package.origin).parent / "data" / "cl100k_base.tiktoken.gz"
    lines = gzip.decompress(packed.read_bytes()).split(b"\n")
    return {base64.b64decode(token): int(rank) for token, _, rank in (line.partition(b" ") for line in lines) if rank}


def _merged(piece: bytes) -> int:
    parts = [bytes([byte]) for byte in piece]
    ranks = _ranks()
    while len(parts) > 1:
        pairs = [ranks.get(left + right, 1 << 30) for left, right in pairwise(parts)]
        best = min(range(len(pairs)), key=pairs.__getitem__)
        if pairs[best] == 1 << 30:
            break
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return len(parts)
