"""Which model serves a request: a pure function of the request, the agent's preferences and the tenant's menu, with its reasons.

Order: the model asked for, else the agent's task model, its ranked models, the tenant's default, any by strategy. The first that is
adequate and that nothing live (a quota, a budget, a breaker) blocks is chosen. Where another than the first in line may answer, the
first one's explicit fallbacks come before the rest of the line.
"""

from __future__ import annotations

from domain.choice import Choice
from domain.events import Preferences
from domain.menu import Menu, PassedOver
from domain.question import REASONS, STRATEGIES, Blocked, Explanation, Question, Selection, over_cap

__all__ = [
    "REASONS",
    "STRATEGIES",
    "Blocked",
    "Explanation",
    "Question",
    "Selection",
    "alternatives",
    "explain",
    "over_cap",
    "select",
]


def select(
    menu: Menu, question: Question, preferences: Preferences | None = None, blocked: Blocked | None = None
) -> Selection:
    """Choose.

    Raises `model_not_found`, `model_not_enabled`, `invalid_request` (dimensions the requested model lacks), `no_model_available`; what
    `blocked` gave for the first in line, with the `alternatives` there would have been; `budget_exceeded` where a model was named that
    would cost more than the agent allows for a request.
    """
    return Choice(menu, question, preferences, blocked).made()


def alternatives(
    menu: Menu, question: Question, preferences: Preferences | None, blocked: Blocked | None, model: str
) -> list[str]:
    """The models that would answer instead of `model`, if another might: best first."""
    return Choice(menu, question, preferences, blocked).instead_of(model)


def explain(
    menu: Menu, question: Question, preferences: Preferences | None = None, blocked: Blocked | None = None
) -> Explanation:
    """`select`, with one reason for every model of the catalogue. Raises as it does."""
    found = select(menu, question, preferences, blocked)
    reasons = [*found.passed_over, PassedOver(found.model.id, found.reason)]
    choice = Choice(menu, question, preferences, blocked)
    in_line = choice.instead_of(found.model.id)
    told = {r.model for r in reasons}  # what a soft budget passed over stands in line behind it, too
    reasons += [PassedOver(name, "in line behind it") for name in in_line if name not in told]
    return Explanation(found, in_line, reasons + choice.left_out({r.model for r in reasons}))
