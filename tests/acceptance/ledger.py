"""What must be true of any log, whatever happened to the processes that wrote it. `audit` raises `AssertionError` where it is not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

REQUESTED = "embedding.requested"
GENERATED = "embedding.generated"
FAILED = "embedding.failed"
ABANDONED = "embedding.abandoned"
OUTCOMES = (GENERATED, FAILED, ABANDONED)


@dataclass(frozen=True)
class Event:
    """An event of the log."""

    position: int
    event_id: str
    tenant: str
    stream: str
    type: str
    data: Mapping[str, Any]


@dataclass
class Audit:
    """What the log says in sum. Requests are named (tenant, id)."""

    open: list[tuple[str, str]] = field(default_factory=list)
    """Requests whose last attempt has no outcome yet."""
    generated: dict[tuple[str, str], Event] = field(default_factory=dict)
    abandoned: int = 0
    nano_usd: int = 0
    tokens: int = 0
    billed_tokens: int = 0


def audit(events: Sequence[Event]) -> Audit:
    """Check a whole log: dense positions, unique event ids, attempts in order with one outcome each, one bill, priced as stated."""
    assert [e.position for e in events] == list(range(1, len(events) + 1)), "positions are not 1..N"
    assert len({e.event_id for e in events}) == len(events), "an event id occurs twice"
    by_request: defaultdict[tuple[str, str], list[Event]] = defaultdict(list)
    for event in events:
        if event.type == REQUESTED or event.type in OUTCOMES:
            name = (event.tenant, event.data["request_id"])
            assert event.stream == f"request/{name[0]}/{name[1]}", f"{event.position} lies on another request's stream"
            by_request[name].append(event)
    found = Audit()
    for name, history in by_request.items():
        _audit_request(name, history, found)
    return found


UNITS = ("tokens", "requests", "nano_usd")


def spent(events: Sequence[Event], tenant: str) -> dict[str, int]:
    """What a tenant was billed in all, in the units of quotas."""
    sums = dict.fromkeys(UNITS, 0)
    for event in events:
        if event.tenant == tenant and event.type in (GENERATED, FAILED):
            tokens = event.data.get("billed_tokens", 0)
            sums["tokens"] += tokens
            sums["requests"] += event.type == GENERATED or tokens > 0
            sums["nano_usd"] += event.data.get("nano_usd", 0) or 0
    return sums


def within(events: Sequence[Event], tenant: str, unit: str, limit: int) -> int:
    """Check that the tenant was billed no more than this, to the last unit; returns what is left."""
    used = spent(events, tenant)[unit]
    assert used <= limit, f"{tenant} has overspent: {used} {unit} of {limit}"
    return limit - used


def _audit_request(name: tuple[str, str], history: list[Event], found: Audit) -> None:
    attempt = 0
    requested: Event | None = None
    binding: Event | None = None
    bills = 0
    for event in history:
        assert binding is None, (
            f"{name}: {event.type} at {event.position} after the binding outcome at {binding.position}"
        )
        if event.type == REQUESTED:
            assert requested is None, f"{name}: attempt {attempt + 1} began before attempt {attempt} ended"
            attempt += 1
            assert event.data["attempt"] == attempt, f"{name}: attempts are not counted 1, 2, 3"
            requested = event
            continue
        assert requested is not None, f"{name}: {event.type} at {event.position} without a request before it"
        assert event.data["attempt"] == attempt, f"{name}: the outcome at {event.position} is of another attempt"
        assert event.data["at"] == requested.data["at"], f"{name}: the outcome at {event.position} is of another time"
        _audit_bill(name, requested, event)
        bills += event.data.get("billed_tokens", 0) > 0
        assert bills <= 1, f"{name}: two attempts are billed"
        found.nano_usd += event.data.get("nano_usd", 0) or 0
        found.tokens += event.data.get("tokens", 0)
        found.billed_tokens += event.data.get("billed_tokens", 0)
        if event.type == GENERATED:
            binding = found.generated[name] = event
        elif event.type == ABANDONED:
            found.abandoned += 1
        elif not event.data["retryable"]:
            binding = event
        requested = None
    if requested is not None:
        found.open.append(name)


def _audit_bill(name: tuple[str, str], requested: Event, outcome: Event) -> None:
    data = outcome.data
    billed = data.get("billed_tokens", 0)
    charged = data.get("nano_usd", 0) or 0
    if outcome.type == ABANDONED:
        assert not billed, f"{name}: an abandoned attempt is billed"
        assert not charged, f"{name}: an abandoned attempt is charged"
        return
    assert billed <= requested.data["reserved_tokens"], f"{name}: more tokens are billed than were reserved"
    assert charged <= requested.data["reserved_nano_usd"], f"{name}: more is charged than was reserved"
    unit = data.get("unit_pico_usd") or 0
    units = data.get("characters") or billed
    assert charged == -(-units * unit // 1000), (
        f"{name}: the charge is not tokens times the price (characters, where it is theirs), rounded up once"
    )
