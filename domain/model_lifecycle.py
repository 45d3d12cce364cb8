"""The lifecycle of a catalogue's model: which steps lead from which state to which, and who may use a model in which state.

Draft -> Testing (enabled for testing) -> Available (validation passed) or Draft again (failed); Available <-> Unavailable (a provider's
trouble); both -> Deprecated, which goes on being used, last in order, until its grace period ends -> Removed. A draft or a model in
testing, which no tenant ever had, is removed at once. Whether a model can be had is apart from its deprecation: a deprecated one can be
down too (`available`).
"""

from __future__ import annotations

from typing import Protocol

from domain.errors import GatewayError

DRAFT, TESTING, AVAILABLE, UNAVAILABLE, DEPRECATED, REMOVED = (
    "draft",
    "testing",
    "available",
    "unavailable",
    "deprecated",
    "removed",
)
STATES = (DRAFT, TESTING, AVAILABLE, UNAVAILABLE, DEPRECATED, REMOVED)

GRACE_DAYS = 90
"""How long a deprecated model can still be used, where nothing else is said."""

EDGES: dict[tuple[str, str], str] = {
    (DRAFT, "test"): TESTING,
    (DRAFT, "update"): DRAFT,
    (DRAFT, "remove"): REMOVED,
    (TESTING, "pass"): AVAILABLE,
    (TESTING, "fail"): DRAFT,
    (TESTING, "update"): TESTING,
    (TESTING, "remove"): REMOVED,
    (AVAILABLE, "update"): AVAILABLE,
    (AVAILABLE, "unavailable"): UNAVAILABLE,
    (AVAILABLE, "deprecate"): DEPRECATED,
    (UNAVAILABLE, "available"): AVAILABLE,
    (UNAVAILABLE, "deprecate"): DEPRECATED,
    (DEPRECATED, "unavailable"): DEPRECATED,
    (DEPRECATED, "available"): DEPRECATED,
    (DEPRECATED, "remove"): REMOVED,
}
"""(state, step) -> the state after it. What is not here is refused."""


class Placed(Protocol):
    """A model with its place in the lifecycle: one of the catalogue's, as the log tells it or as requests see it."""

    @property
    def state(self) -> str:
        """Its place in the lifecycle."""
        ...

    @property
    def available(self) -> bool:
        """Whether a deprecated one can be had."""
        ...


def usable(model: Placed, admin: bool) -> bool:
    """Whether its place in the lifecycle lets a request have it: one in testing is for admins (and our own probes) only."""
    if model.state == DEPRECATED:
        return model.available
    return model.state == AVAILABLE or (admin and model.state == TESTING)


def deprecated(model: Placed) -> bool:
    """Whether it goes away: it comes last, answers carry a notice, and no tenant may add it any more."""
    return model.state == DEPRECATED


def after(model: str, state: str, step: str) -> str:
    """The state after a step. Raises `resource_constraint`, naming the state and the steps that it allows."""
    found = EDGES.get((state, step))
    if found is None:
        allowed = [s for (at, s) in EDGES if at == state]
        raise GatewayError(
            "resource_constraint",
            f"model {model!r} is {state}: that takes no {step!r}; "
            + (f"what it takes is {', '.join(allowed)}" if allowed else "nothing leads out of that state"),
            details={"field": "state", "state": state, "allowed": allowed},
        )
    return found
