"""Real text that is on every machine: the docstrings of the Python standard library."""

from __future__ import annotations

import ast
import inspect
import sysconfig
import warnings
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import msgspec

MIN_CHARS, MAX_CHARS = 40, 400
_LEFT_OUT = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "ensurepip",
    "turtledemo",
}


class Piece(msgspec.Struct, frozen=True):
    """A docstring's first paragraph and the dotted name of what it documents."""

    name: str
    text: str


def pieces(limit: int) -> list[Piece]:
    """Up to `limit` different docstrings, an even sample over the whole library, the same on every run of one Python."""
    found: dict[str, Piece] = {}
    for piece in _all(Path(sysconfig.get_path("stdlib"))):
        found.setdefault(piece.text, piece)
    sample = sorted(found.values(), key=lambda p: blake2b(p.text.encode(), digest_size=8).digest())[:limit]
    return sorted(sample, key=lambda p: p.name)


def _all(root: Path) -> Iterator[Piece]:
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if _LEFT_OUT.intersection(relative.parts):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # old syntax in library sources is not ours to report
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):
            continue
        module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        yield from _documented(tree, module)


def _documented(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Iterator[Piece]:
    text = ast.get_docstring(node, clean=False)
    if text is not None:
        paragraph = " ".join(inspect.cleandoc(text).split("\n\n")[0].split())
        if MIN_CHARS <= len(paragraph) <= MAX_CHARS and "\0" not in paragraph:
            yield Piece(name, paragraph)
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _documented(child, f"{name}.{child.name}")
