"""Decisions about the installation: decided on against the control plane, appended to the log, in force before they are answered.

Used by the management API (through the gateway's appender) and by the management commands (with a log of their own) alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from domain.decision import Decision
from domain.errors import GatewayError
from domain.plane import ControlPlane
from domain.ports.event_log import ANY_VERSION, Appended, AppendStatus, NewEvent
from gateway.decisions import check_appended, decision_event

Decide = Callable[[ControlPlane], Sequence[Decision]]
"""What somebody wants, as events; none where it is so already. Raises `GatewayError` where it cannot be. Called again after a race."""

TRIES = 5
"""How often a decision is made anew because its stream was changed meanwhile."""


class Written(msgspec.Struct, frozen=True):
    """What became of a decision: the position that a reader has to reach to see it, its stream's version, whether anything was written."""

    position: int
    version: int
    changed: bool


class Backing(Protocol):
    """Where decisions go: the log, and the fold that follows it."""

    async def append(self, events: Sequence[NewEvent]) -> list[Appended]:
        """Append in order. Raises `GatewayError` (`unavailable`)."""
        ...

    async def reach(self, position: int) -> None:
        """Return once the control plane has folded everything up to `position`."""
        ...

    async def catch_up(self) -> None:
        """Return once the control plane has folded what is in the log by now."""
        ...


class Control:
    """Takes decisions for one installation."""

    def __init__(self, plane: ControlPlane, backing: Backing) -> None:
        self.plane = plane
        self._backing = backing

    async def append(self, events: Sequence[NewEvent]) -> list[Appended]:
        """Append facts, which need no decision. Raises `GatewayError` (`unavailable`)."""
        return await self._backing.append(events)

    async def run(self, decide: Decide, *, stream: str, expected_version: int | None = None) -> Written:
        """Decide and append. Every decision is made against the version of its stream that it is appended to.

        With `expected_version` (of `stream`) another version is refused as `version_conflict`; without it a race is decided anew. Of
        several events the first is appended alone, so that a lost race writes nothing at all; where it is of another stream than
        `stream`, what was written of it stands, and the rest is decided anew.
        """
        for _ in range(TRIES):
            if expected_version is not None and self.plane.versions.get(stream, 0) != expected_version:
                await self._backing.catch_up()
                if (found := self.plane.versions.get(stream, 0)) != expected_version:
                    raise _conflict(stream, expected_version, found)
            decisions = decide(self.plane)
            if not decisions:
                return Written(self.plane.position, self.plane.versions.get(stream, 0), changed=False)
            # The audit of the installation: nothing is decided that nobody decided on.
            assert all(getattr(decision.data, "actor", None) for decision in decisions), decisions
            first, *rest = decisions
            event = decision_event(
                first.tenant, first.stream, first.data, self.plane.versions.get(first.stream, 0)
            )  # fmt: skip
            [appended] = await self._backing.append([event])
            if appended.status is AppendStatus.CONFLICT:
                await self._backing.catch_up()
                continue
            last = check_appended(appended, first.stream)
            if rest:
                guarded = {} if first.stream == stream else {stream: self.plane.versions.get(stream, 0)}
                events = [decision_event(d.tenant, d.stream, d.data, guarded.pop(d.stream, ANY_VERSION)) for d in rest]
                outcomes = await self._backing.append(events)
                if any(outcome.status is AppendStatus.CONFLICT for outcome in outcomes):
                    await self._backing.catch_up()
                    continue
                for decision, outcome in zip(rest, outcomes, strict=True):
                    last = check_appended(outcome, decision.stream)
            assert last.position is not None
            await self._backing.reach(last.position)
            return Written(last.position, self.plane.versions.get(stream, 0), changed=True)
        raise GatewayError("version_conflict", f"{stream} is being changed by others again and again: try again later")


def _conflict(stream: str, expected: int, found: int) -> GatewayError:
    return GatewayError(
        "version_conflict",
        f"{stream} is at version {found}, not {expected}: it was changed meanwhile; read it again and decide anew",
        details={"expected_version": expected, "version": found},
    )
