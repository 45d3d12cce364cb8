"""Real text pieces that every machine has: docstrings and comments of the standard library and of what is installed."""

from __future__ import annotations

import ast
import io
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

SHORTEST = 24


def real_texts(count: int, *, longest: int = 240, installed: bool = False) -> list[str]:
    """So many different pieces of at most `longest` characters, the same on every run with the same Python.

    `installed`: comments, and installed packages, too. Raises ValueError where there are too few.
    """
    places = [Path(sysconfig.get_paths()["stdlib"])]
    if installed:
        places.append(Path(sysconfig.get_paths()["purelib"]))
    found: dict[str, None] = {}
    for place in places:
        for path in sorted(place.rglob("*.py")):
            if "test" in str(path.relative_to(place)) or (place == places[0] and "site-packages" in path.parts):
                continue
            for text in _pieces(path, comments=installed):
                if len(text) >= SHORTEST:
                    found[text[:longest]] = None
            if len(found) >= count:
                return list(found)[:count]
    raise ValueError(f"there are {len(found)} pieces of text here, not {count}")


def _pieces(path: Path, *, comments: bool) -> Iterator[str]:
    try:
        source = path.read_text("utf-8")
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef | ast.Module):
            continue
        if (text := ast.get_docstring(node)) is not None:
            yield from (" ".join(part.split()) for part in text.split("\n\n"))
    if comments:
        try:
            for token in tokenize.generate_tokens(io.StringIO(source).readline):
                if token.type == tokenize.COMMENT:
                    yield token.string.lstrip("#:! ").strip()
        except (tokenize.TokenError, SyntaxError):
            return
