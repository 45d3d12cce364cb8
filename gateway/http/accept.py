"""Which of several media types to answer with."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.http.answers import HttpError

JSON = "application/json"
NDJSON = "application/x-ndjson"


def negotiate(accept: str | None, offered: Sequence[str]) -> str:
    """The offered type that `Accept` prefers, the first of equals; the first one where it says nothing. Raises a 406."""
    if not accept:
        return offered[0]
    best, best_quality = None, 0.0
    for kind in offered:
        quality = _quality(accept, kind)
        if quality > best_quality:
            best, best_quality = kind, quality
    if best is None:
        raise HttpError(
            406, f"there is no such form of this answer: accept one of {', '.join(offered)}", field="accept"
        )
    return best


def _quality(accept: str, kind: str) -> float:
    """How welcome a type is, 0 to 1, by the most specific range that holds it."""
    found = (-1, 0.0)
    for part in accept.split(","):
        wanted, *parameters = (piece.strip().lower() for piece in part.split(";"))
        ranges = ("*/*", kind.partition("/")[0] + "/*", kind)
        if wanted in ranges and ranges.index(wanted) > found[0]:
            quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
            try:
                found = (ranges.index(wanted), min(1.0, max(0.0, float(quality))))
            except ValueError:
                found = (ranges.index(wanted), 0.0)
    return found[1]
