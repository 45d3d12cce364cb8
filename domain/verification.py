"""What is wrong with a log, and where: pure checks of its events and seals, wherever these were read from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum

import msgspec
import numpy as np

from domain.content_hash import content_hash
from domain.ports.event_log import StoredEvent
from domain.seals import MARK_BYTES, Seal, SealedRange

HASH_BYTES = 32


class Damage(StrEnum):
    """The kinds of things a log can have wrong."""

    EVENT_CHANGED = "event_changed"
    """An event differs from its content hash."""
    EVENT_REPLACED = "event_replaced"
    """An event agrees with its content hash, but it is not the one that was sealed."""
    EVENT_MISSING = "event_missing"
    """A position without an event, or one that cannot be read."""
    TIME_BACKWARDS = "time_backwards"
    """An event has an earlier time than the one before it."""
    SEAL_CHANGED = "seal_changed"
    """A seal differs from its hash or from its events."""
    CHAIN_BROKEN = "chain_broken"
    """A seal does not follow from the one before it, or is missing."""
    CHAIN_CUT = "chain_cut"
    """A seal that was noted elsewhere does not occur."""


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first thing found wrong. `position` is the event's, or the first of the events in doubt up to `last_position`."""

    damage: Damage
    message: str
    position: int | None = None
    last_position: int | None = None
    seal: int | None = None


class Verdict(msgspec.Struct, frozen=True):
    """What a verification came to: `events` and `seals` were looked at, up to `head`; `unsealed` events have no seal yet."""

    intact: bool
    finding: Finding | None
    head: int
    events: int
    seals: int
    unsealed: int
    newest_seal: SealedRange | None


class Digest(msgspec.Struct, frozen=True):
    """What the checks need to know of the events of a range. Positions are those of the first event at fault.

    `hashes` are the stored content hashes back to back, in the order of positions; times are microseconds since 1970 UTC.
    """

    count: int
    missing: int | None
    changed: int | None
    earlier: int | None
    hashes: bytes
    first_at: int | None
    last_at: int | None


def digest(events: Sequence[StoredEvent], first: int) -> Digest:
    """The digest of events read from `first` on, in the order of their positions."""
    missing = changed = earlier = None
    before: int | None = None
    for at, event in enumerate(events, first):
        if missing is None and event.position != at:
            missing = at
        if changed is None and content_hash(event) != event.content_hash:
            changed = event.position
        if earlier is None and before is not None and event.recorded_at < before:
            earlier = event.position
        before = event.recorded_at
    return Digest(
        count=len(events),
        missing=missing,
        changed=changed,
        earlier=earlier,
        hashes=b"".join([event.content_hash for event in events]),
        first_at=events[0].recorded_at if events else None,
        last_at=before,
    )


def check_seal(seal: Seal, before: Seal | None, start: bytes) -> Finding | None:
    """Whether a seal is whole and follows from `before`, or from the chain's `start` where it is the first."""
    number = 1 if before is None else before.number + 1
    if seal.number != number:
        return Finding(
            Damage.CHAIN_BROKEN, f"seal {number} is missing: the next one is seal {seal.number}", seal=number
        )
    if seal.computed_hash() != seal.hash:
        return Finding(
            Damage.SEAL_CHANGED,
            f"seal {number} does not agree with its own hash: it was changed",
            seal.first_position,
            seal.last_position,
            number,
        )
    if before is None:
        if seal.previous != start or seal.first_position != 1:
            return Finding(
                Damage.CHAIN_BROKEN,
                "seal 1 does not begin this installation's chain: it was replaced, or the installation's id was changed",
                seal.first_position,
                seal.last_position,
                1,
            )
    elif seal.previous != before.hash or seal.first_position != before.last_position + 1:
        return Finding(
            Damage.CHAIN_BROKEN,
            f"seal {number} does not follow from seal {before.number}: one of them was replaced, and with it perhaps events",
            before.first_position,
            seal.last_position,
            number,
        )
    return None


def check_events(found: Digest, first: int, last: int, at_least: int | None, seal: Seal | None) -> Finding | None:
    """The first thing wrong with the events `first` to `last`, none of which may be older than `at_least`.

    With `seal`, they are exactly the events of that seal, which itself is whole.
    """
    missing = found.missing
    if missing is None and found.count < last - first + 1:
        missing = first + found.count
    earlier = found.earlier
    if at_least is not None and found.first_at is not None and found.first_at < at_least:
        earlier = first
    # Up to the first event that is missing or changed, hashes lie where they belong.
    sound = min([last + 1, *(p for p in (missing, found.changed) if p is not None)]) - first
    replaced = None if seal is None else _first_other(found.hashes, seal.marks, sound)
    whole = seal is not None and hashlib.sha256(found.hashes).digest() == seal.events_hash
    findings: list[Finding] = []
    if found.changed is not None:
        findings.append(
            Finding(
                Damage.EVENT_CHANGED,
                f"the event at position {found.changed} does not agree with its content hash: it was changed",
                found.changed,
            )
        )
    if missing is not None:
        findings.append(Finding(Damage.EVENT_MISSING, f"there is no event at position {missing}", missing))
    if seal is not None and replaced is not None and not whole:
        position = first + replaced
        findings.append(
            Finding(
                Damage.EVENT_REPLACED,
                f"the event at position {position} is not the one that was sealed: it was rewritten together with its content hash",
                position,
                seal=seal.number,
            )
        )
    if earlier is not None:
        findings.append(
            Finding(
                Damage.TIME_BACKWARDS,
                f"the event at position {earlier} has an earlier time than the one before it: one of the two was rewritten",
                earlier,
            )
        )
    if findings:
        return min(findings, key=_position)
    if seal is None or (whole and replaced is None):
        return None
    if replaced is not None:
        message = (
            f"the marks of seal {seal.number} do not fit the event at position {first + replaced}: they were changed, or that event "
            "was rewritten and the seal after it"
        )
        return Finding(Damage.SEAL_CHANGED, message, first + replaced, seal=seal.number)
    message = f"the events {first} to {last} are not those of seal {seal.number}: it was replaced, or one of them was and its mark too"
    return Finding(Damage.SEAL_CHANGED, message, first, last, seal.number)


def _first_other(hashes: bytes, marks: bytes, count: int) -> int | None:
    """The index of the first of `count` hashes that does not begin with its mark."""
    own = np.frombuffer(hashes, np.uint8, count * HASH_BYTES).reshape(-1, HASH_BYTES)[:, :MARK_BYTES]
    if len(marks) < count * MARK_BYTES:
        return len(marks) // MARK_BYTES
    differs = (own != np.frombuffer(marks, np.uint8, count * MARK_BYTES).reshape(-1, MARK_BYTES)).any(axis=1)
    return int(differs.argmax()) if differs.any() else None


def _position(finding: Finding) -> int:
    assert finding.position is not None
    return finding.position
