"""What is wrong with a log, and where: pure checks of its events and seals, wherever these were read from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from domain.content_hash import content_hash
from domain.ports.event_log import StoredEvent
from domain.seals import MARK_BYTES, SEAL_EVENTS, Seal, SealedRange


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


def check_seal(seal: Seal, before: Seal | None, start: bytes) -> Finding | None:
    """Whether a seal is whole and follows from `before`, or from the chain's `start` where it is the first."""
    number = 1 if before is None else before.number + 1
    if seal.number != number:
        return Finding(
            Damage.CHAIN_BROKEN, f"seal {number} is missing: the next one is seal {seal.number}", seal=number
        )
    if seal.computed_hash() != seal.hash or seal.last_position - seal.first_position >= SEAL_EVENTS:
        return Finding(
            Damage.SEAL_CHANGED,
            f"seal {number} does not agree with its own hash, or covers more than any seal does: it was changed",
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


def check_events(
    events: Sequence[StoredEvent], first: int, last: int, at_least: int | None, seal: Seal | None
) -> Finding | None:
    """The first thing wrong with the events read from `first` to `last`, none of which may be older than `at_least`.

    With `seal`, which itself is whole, they must be exactly its events.
    """
    hashes = b"".join([event.content_hash for event in events])
    other = seal is not None and hashlib.sha256(hashes).digest() != seal.events_hash
    before = at_least
    for position, event in enumerate(events, first):
        if event.position != position:
            return _missing(position)
        if content_hash(event) != event.content_hash:
            message = f"the event at position {position} does not agree with its content hash: it was changed"
            return Finding(Damage.EVENT_CHANGED, message, position)
        if seal is not None and other and _differs(event, seal):
            message = f"the event at position {position} is not the one that was sealed: it was rewritten together with its content hash"
            return Finding(Damage.EVENT_REPLACED, message, position, seal=seal.number)
        if before is not None and event.recorded_at < before:
            message = f"the event at position {position} has an earlier time than the one before it: one of the two was rewritten"
            return Finding(Damage.TIME_BACKWARDS, message, position)
        before = event.recorded_at
    if len(events) < last - first + 1:
        return _missing(first + len(events))
    if seal is None:
        return None
    if other:
        message = f"the events {first} to {last} are not those of seal {seal.number}: it was replaced, or one of them was and its mark too"
        return Finding(Damage.SEAL_CHANGED, message, first, last, seal.number)
    for event in events:
        if _differs(event, seal):
            message = (
                f"the mark of seal {seal.number} does not fit the event at position {event.position}: the mark was changed, or that event "
                "was rewritten and the seal made anew"
            )
            return Finding(Damage.SEAL_CHANGED, message, event.position, seal=seal.number)
    return None


def _differs(event: StoredEvent, seal: Seal) -> bool:
    """Whether the event is not the one that the seal has marked at its position."""
    at = (event.position - seal.first_position) * MARK_BYTES
    return event.content_hash[:MARK_BYTES] != seal.marks[at : at + MARK_BYTES]


def _missing(position: int) -> Finding:
    return Finding(Damage.EVENT_MISSING, f"there is no event at position {position}", position)
