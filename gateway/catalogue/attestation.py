"""Whether vectors are what the catalogue says of their model, and of the space that they claim to be of.

Probe texts are embedded twice, and once in another size where the model has several. Their size, length, finiteness, sameness and
distinctness are looked at, then they are held against the space's reference vectors, which the first that is found good become.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256

import asyncpg
import msgspec
import numpy as np
from numpy.typing import NDArray

from adapters.postgres.space_references import keep_references, references
from domain.catalogue import Model
from gateway.catalogue.probes import PROBES, probe_id

SAME = 0.999
"""The cosine from which on two vectors are of the same text in the same space: providers compute on varied hardware, in half precision."""
DISTINCT = 0.9999
"""The cosine from which on two texts have the same vector."""
UNIT_TOLERANCE = 1e-3
MAX_LATENCY_MS = 15_000
"""A call of a few short texts that takes longer is of no use to anybody."""

Rows = NDArray[np.float32]


class Answer(msgspec.Struct, frozen=True):
    """What the probes were answered with: vectors of (probes, dimensions), the endpoint, the space, the time it took."""

    rows: Rows
    endpoint: str
    space: str
    latency_ms: int


Ask = Callable[[Sequence[str], int | None], Awaitable[Answer]]
"""Embed these texts in this size (None: the model's default), at what is to be attested. Raises `GatewayError`."""


class Finding(msgspec.Struct, frozen=True):
    """What was found. Norms are in millionths; `digest` is of the space's references, None where something is wrong."""

    endpoint: str
    space: str
    dimensions: int
    norm_min: int
    norm_max: int
    latency_ms: int
    digest: str | None
    problems: list[str]


async def attest(pool: asyncpg.Pool[asyncpg.Record], model: Model, ask: Ask) -> Finding:
    """Ask and look. The references of the space are kept if it has none and nothing is wrong. Raises what `ask` raises."""
    first = await ask(PROBES, None)
    problems = examine(model, model.dimensions, first.rows)
    latency = first.latency_ms
    if not problems:
        again = await ask(PROBES, None)
        latency = max(latency, again.latency_ms)
        if unlike := differing(first.rows, again.rows):
            problems.append(f"the same text got another vector when it was sent again (probes {unlike})")
        if (size := other_size(model)) is not None:
            cut = await ask(PROBES[:1], size)
            problems += [f"asked for {size} dimensions: {p}" for p in examine(model, size, cut.rows)]
    if latency > MAX_LATENCY_MS:
        problems.append(f"a call of {len(PROBES)} short texts took {latency} ms; expected at most {MAX_LATENCY_MS}")
    digest = None if problems else await _against_references(pool, first, problems)
    lengths = _lengths(first.rows)
    return Finding(
        endpoint=first.endpoint,
        space=first.space,
        dimensions=int(first.rows.shape[1]),
        norm_min=_millionths(lengths.min()),
        norm_max=_millionths(lengths.max()),
        latency_ms=latency,
        digest=None if problems else digest,
        problems=problems,
    )


def examine(model: Model, dimensions: int, rows: Rows) -> list[str]:
    """What is wrong with vectors by themselves."""
    if rows.ndim != 2 or rows.shape[1] != dimensions:
        return [f"vectors of {rows.shape[-1]} dimensions; the catalogue says {dimensions}"]
    if not np.isfinite(rows).all():
        return ["vectors with values that are not finite"]
    lengths = _lengths(rows)
    if lengths.min() == 0:
        return ["vectors of zeros"]
    problems = []
    if model.unit and np.abs(lengths - 1).max() > UNIT_TOLERANCE:
        problems.append(
            f"vectors of the lengths {lengths.min():.6f} to {lengths.max():.6f}; the catalogue says that they have length 1 (unit)"
        )
    directions = rows / lengths[:, None]
    alike = np.triu(directions @ directions.T, 1)
    if len(rows) > 1 and alike.max() > DISTINCT:
        one, other = np.unravel_index(int(alike.argmax()), alike.shape)
        problems.append(f"different texts got the same vector (probes {one} and {other})")
    return problems


def differing(rows: Rows, others: Rows) -> list[int]:
    """The probes whose vectors are not the same in both."""
    if rows.shape != others.shape or not np.isfinite(others).all():
        return list(range(len(rows)))
    lengths = _lengths(rows) * _lengths(others)
    cosines = np.divide((rows * others).sum(axis=1), lengths, out=np.zeros(len(rows)), where=lengths > 0)
    return [int(i) for i in np.flatnonzero(cosines < SAME)]


def other_size(model: Model) -> int | None:
    """A size besides the default to try the model in; None where it has one only."""
    if model.dimensions_range is not None:
        low = model.dimensions_range[0]
        size = max(low, model.dimensions // 2)
        return size if size != model.dimensions else None
    others = [size for size in model.dimensions_allowed if size != model.dimensions]
    return min(others, default=None)


async def _against_references(pool: asyncpg.Pool[asyncpg.Record], answer: Answer, problems: list[str]) -> str | None:
    ids = [probe_id(text) for text in PROBES]
    mine = {p: row.astype("<f4").tobytes() for p, row in zip(ids, answer.rows, strict=True)}
    known = await references(pool, answer.space, ids)
    if len(known) < len(ids):
        await keep_references(pool, answer.space, mine)
        known = await references(pool, answer.space, ids)
    kept = [np.frombuffer(known[p], "<f4") for p in ids]
    if any(row.shape != answer.rows.shape[1:] for row in kept):
        unlike = list(range(len(ids)))
    else:
        unlike = differing(answer.rows, np.stack(kept))
    if unlike:
        problems.append(
            f"the vectors of probes {unlike} are not those of the space {answer.space}: what answers there is another model or version"
        )
        return None
    return sha256(b"".join(known[p] for p in ids)).hexdigest()


def _lengths(rows: Rows) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(rows.astype(np.float64), axis=1)
    return lengths


def _millionths(length: float) -> int:
    return round(float(length) * 1e6) if np.isfinite(length) and length < 1e12 else -1
