"""Whether vectors are what the catalogue says of their model, and of the space that they claim to be of.

Of a model in testing probe texts are embedded twice, and once in another size where it has several. Their size, length, finiteness,
sameness and distinctness are looked at, then they are held against the space's reference vectors, which the first that is found good
become. Of an endpoint they are embedded once, where the space has references; and twice where it is the first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256

import asyncpg
import msgspec
import numpy as np
from numpy.typing import NDArray

from adapters.postgres.space_references import ReferenceSet, keep_references, latest_epoch, references
from domain.catalogue import Candidate, Model
from domain.errors import GatewayError
from gateway.catalogue.probes import PROBES, probe_id

SAME = 0.999
"""The cosine from which on two vectors are of the same text in the same space: providers compute on varied hardware, in half precision."""
DISTINCT = 0.9999
"""The cosine from which on two texts have the same vector."""
UNIT_TOLERANCE = 1e-3
MAX_LATENCY_MS = 15_000
"""A call of a few short texts that takes longer is of no use to anybody."""

Rows = NDArray[np.float32]
_IDS = [probe_id(text) for text in PROBES]


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


class EndpointFinding(msgspec.Struct, frozen=True):
    """What was found of an endpoint. `against` are the references that it was held against, or gave; `cosine_min` is in millionths.

    Where something is wrong by itself there is no cosine, and `digest` is None.
    """

    against: ReferenceSet
    latency_ms: int
    cosine_min: int | None
    digest: str | None
    problems: list[str]


Epoch = Callable[[str, str], int]
"""The epoch of the references in force, of a space and an owner ('': the installation)."""


async def attest(pool: asyncpg.Pool[asyncpg.Record], model: Model, ask: Ask, epoch: Epoch) -> Finding:
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
    digest = None
    if not problems:
        of = ReferenceSet(first.space, epoch=epoch(first.space, ""))
        digest = await _become_or_compare(pool, of, first.rows, problems)
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


async def attest_endpoint(
    pool: asyncpg.Pool[asyncpg.Record],
    candidate: Candidate,
    size: int,
    space: str,
    ask: Ask,
    epoch: Epoch,
    *,
    renew: bool = False,
) -> EndpointFinding:
    """Ask the endpoint for the probes in this size, and hold its vectors against the references of the space. Raises what `ask` raises, and
    `resource_constraint` for new references from an endpoint that may not give them.

    A space without references takes them from its first endpoint, where a second answer is the same; with `renew` it takes new ones, in
    an epoch that is in force once the log says so. An endpoint of a tenant never gives those of the installation: it is held against
    them, and only where the space has none against what the tenant's own endpoints have given.
    """
    owner = candidate.endpoint.tenant or ""
    of = ReferenceSet(space, epoch=epoch(space, ""))
    known = await references(pool, of, _IDS)
    shared = bool(owner and known)
    if shared and renew:
        raise GatewayError(
            "resource_constraint",
            f"the space {space} has the installation's references: a tenant's endpoint gives it no others, and is held against them",
            details={"field": "endpoint"},
        )
    if owner and not shared:
        of = ReferenceSet(space, owner, epoch(space, owner))
        known = await references(pool, of, _IDS)
    if renew:
        before = of.epoch if known or of.epoch else -1
        of = ReferenceSet(space, owner, max(before, await latest_epoch(pool, space, owner)) + 1)
        known = {}
    first = await ask(PROBES, size)
    problems = examine(candidate.model, size, first.rows)
    if problems:
        return EndpointFinding(of, first.latency_ms, None, None, problems)
    compared = _compare(of, known, first.rows, problems)
    if not problems and not shared and len(known) < len(_IDS):  # when probes are new, some are known
        again = await ask(PROBES, size)
        if unlike := differing(first.rows, again.rows):
            problems.append(f"the same text got another vector when it was sent again (probes {unlike})")
            return EndpointFinding(of, first.latency_ms, None, None, problems)
        await keep_references(pool, of, _stored(first.rows))
        compared = _compare(of, await references(pool, of, _IDS), first.rows, problems)
    return _finding(of, first, compared, problems)


def _finding(
    of: ReferenceSet, answer: Answer, compared: tuple[float, str | None], problems: list[str]
) -> EndpointFinding:
    lowest, digest = compared
    return EndpointFinding(of, answer.latency_ms, round(lowest * 1_000_000), digest, problems)


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


async def _become_or_compare(
    pool: asyncpg.Pool[asyncpg.Record], of: ReferenceSet, rows: Rows, problems: list[str]
) -> str | None:
    """Let these become the references if there are none, and hold them against what is kept. The digest, None where they are unlike."""
    await keep_references(pool, of, _stored(rows))
    return _compare(of, await references(pool, of, _IDS), rows, problems)[1]


def _compare(of: ReferenceSet, known: dict[bytes, bytes], rows: Rows, problems: list[str]) -> tuple[float, str | None]:
    """The lowest cosine with those references that are known (1 where none is), and their digest where none is unlike."""
    places = [i for i, probe in enumerate(_IDS) if probe in known]
    kept = [np.frombuffer(known[_IDS[i]], "<f4") for i in places]
    found = np.array(
        [_cosine(rows[i], row) if row.shape == rows.shape[1:] else 0.0 for i, row in zip(places, kept, strict=True)]
    )
    lowest = float(found.min()) if len(found) else 1.0
    if unlike := [i for i, cosine in zip(places, found, strict=True) if not cosine >= SAME]:
        problems.append(
            f"the vectors of probes {unlike} are not those of the space {of.space} (lowest cosine {lowest:.6f}, expected at least {SAME}): "
            "what answers there is another model or version"
        )
        return lowest, None
    return lowest, sha256(b"".join(known[_IDS[i]] for i in places)).hexdigest()


def _stored(rows: Rows) -> dict[bytes, bytes]:
    return {p: row.astype("<f4").tobytes() for p, row in zip(_IDS, rows, strict=True)}


def _cosine(one: Rows, other: Rows) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length > 0 and np.isfinite(length) else 0.0


def _lengths(rows: Rows) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(rows.astype(np.float64), axis=1)
    return lengths


def _millionths(length: float) -> int:
    return round(float(length) * 1e6) if np.isfinite(length) and length < 1e12 else -1
