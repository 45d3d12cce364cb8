"""How a model is chosen: the line of those that may answer, what each is passed over for, and what is left where none answers."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from domain.errors import GatewayError, invalid_request
from domain.events import Failover, Preferences
from domain.menu import Closed, Entry, Menu, PassedOver
from domain.question import REASONS, Blocked, Question, Selection, over_cap

TOLD = 3
"""How many models the message of a refusal tells of; its details have all."""


class Choice:
    """One choice in the making: what was passed over so far, and what the first in line was kept back by."""

    __slots__ = (
        "blocked", "cap", "first", "menu", "passed", "preferences", "question", "refusal", "size", "slowest",
    )  # fmt: skip

    def __init__(
        self, menu: Menu, question: Question, preferences: Preferences | None, blocked: Blocked | None
    ) -> None:
        self.menu = menu
        self.question = question
        self.preferences = preferences
        self.blocked = blocked
        self.passed: list[PassedOver] = []
        self.first: Failover | None = None
        self.refusal: GatewayError | None = None
        self.size = question.dimensions
        self.cap: int | None = None
        self.slowest: int | None = None
        if preferences is not None:
            if question.tokens:
                self.cap = preferences.max_cost_per_request_nano_usd
            if question.model is None:
                self.slowest = preferences.max_latency_ms
                if self.size is None:
                    self.size = preferences.required_dimensions

    def made(self) -> Selection:
        name = self.question.model
        found = self._named(name) if name is not None else self._unnamed()
        if found is not None:
            return found
        raise self._refused()

    # -- a model was named ----------------------------------------------------------------------------------------------

    def _named(self, name: str) -> Selection | None:
        entry = self.menu.names.get(name)
        if entry is None or (entry.testing and not self.question.admin):
            return self._closed(name, entry)
        size = self.size
        if size is not None and not _has_size(entry, size):
            raise invalid_request(
                f"model {entry.id!r} has no vectors of {size} dimensions: it supports {entry.model.dimensions_text()}",
                "dimensions",
            )
        why = self._unaffordable(entry)
        if why is not None:
            self.passed.append(why)
            self._keep_back(entry, over_cap(entry.id, self.cap))
        elif not self._kept_back(entry):
            if self.question.ceiling and self.question.another and (cheaper := self._under_ceiling(entry)) is not None:
                return cheaper
            return self._chosen(entry, "requested")
        return self._instead(entry.id, entry.fallbacks) if self.question.another else None

    def _closed(self, name: str, entry: Entry | None) -> Selection | None:
        """The model that was named is not to be had."""
        menu = self.menu
        closed = menu.closed.get(name)
        if entry is not None:
            raise GatewayError(
                "model_not_enabled",
                f"model {entry.id!r} is being tested: only keys with the scope 'admin' may use it",
                details={"model": entry.id},
            )
        if closed is None:
            raise GatewayError(
                "model_not_found", f"there is no model {name[:128]!r}: {_choices(menu)}", details={"field": "model"}
            )
        refusal = GatewayError(
            closed.code, f"model {closed.model!r}: {closed.reason}; {_choices(menu)}", details={"model": closed.model}
        )
        if closed.code != "no_model_available" or not self.question.another:
            raise refusal
        self.passed.append(PassedOver(closed.model, closed.reason))
        self.refusal = refusal
        self.first = Failover(closed.model, "", "deprecated" if closed.gone else "provider_error")
        return self._instead(closed.model, closed.fallbacks)

    def _instead(self, model: str, fallbacks: tuple[str, ...]) -> Selection | None:
        """Another model than the one that was named: its explicit fallbacks, then any by strategy."""
        seen = {model}
        found = self._first_of(self._names(fallbacks, seen), "fallback", seen)
        return found or self._first_of(*self._any(seen), seen)

    # -- none was named -------------------------------------------------------------------------------------------------

    def _unnamed(self) -> Selection | None:
        found = self._first_in_line()
        if found is not None and self.question.ceiling and self.question.another:
            return self._under_ceiling(self.menu.names[found.model.id]) or found
        return found

    def _first_in_line(self) -> Selection | None:
        seen: set[str] = set()
        for entries, reason in self._line(seen):
            found = self._first_of(entries, reason, seen)
            if found is not None or (self.first is not None and not self.question.another):
                return found
        return None

    def _line(self, seen: set[str]) -> Iterator[tuple[Iterable[Entry], str]]:
        """What may answer a request that names no model, in order, and why."""
        question, preferences, default = self.question, self.preferences, self.menu.default
        strategy = question.optimize or "tenant_default"
        if preferences is not None:
            strategy = question.optimize or preferences.strategy
            if question.task is not None and (task_model := preferences.task_models.get(question.task)) is not None:
                yield self._names((task_model,), seen), "task_model"
            if preferences.models:
                yield self._names(preferences.models, seen), "agent_model"
            if strategy == "fixed":
                return
        if strategy == "tenant_default" and default is not None:
            yield self._names((default,), seen), "tenant_default"
        yield self._any(seen)

    def _any(self, seen: set[str]) -> tuple[Iterable[Entry], str]:
        """The menu's own order, without those that were looked at already."""
        order = self._order()
        entries = self.menu.orders[order]
        rest: Iterable[Entry] = entries if not seen else (e for e in entries if e.id not in seen)
        return rest, "any" if order == "any" else f"any_{order}"

    def _order(self) -> str:
        order = self.question.optimize or (self.preferences.strategy if self.preferences is not None else "any")
        return order if order in self.menu.orders else "any"

    def _names(self, names: Iterable[str], seen: set[str]) -> Iterator[Entry]:
        """The models of these names that are on the menu, those not seen before; of the others, why they are not."""
        for name in names:
            entry = self.menu.names.get(name)
            if entry is None or (entry.testing and not self.question.admin):
                model, why = _not_on_menu(self.menu, name, entry)
                if model not in seen:
                    seen.add(model)
                    self.passed.append(PassedOver(model, why))
            elif entry.id not in seen:
                seen.add(entry.id)
                yield entry

    # -- adequate? blocked? -----------------------------------------------------------------------------------------------

    def _first_of(self, line: Iterable[Entry], reason: str, seen: set[str]) -> Selection | None:
        """The first of the line that is adequate and not blocked; the fallbacks of one that is blocked come right behind it."""
        size, passed = self.size, self.passed
        for entry in line:
            # The size is what most models of a long line are passed over for: looked at here, ahead of `_inadequate`.
            if size is not None and size not in entry.sizes and not entry.low <= size <= entry.high:
                passed.append(entry.wrong_size)
            elif (why := self._inadequate(entry)) is not None:
                passed.append(why)
            elif not self._kept_back(entry):
                return self._chosen(entry, reason)
            elif not self.question.another:
                return None
            elif entry.fallbacks:
                found = self._first_of(self._names(entry.fallbacks, seen), "fallback", seen)
                if found is not None:
                    return found
        return None

    def _inadequate(self, entry: Entry) -> PassedOver | None:
        """Why the model does not suit, whatever its endpoints and quotas say; None where it does."""
        size = self.size
        if size is not None and not _has_size(entry, size):
            return entry.wrong_size
        if self.question.longest > entry.max_tokens:
            return entry.too_long
        if self.slowest is not None and entry.latency_ms is not None and entry.latency_ms > self.slowest:
            return entry.too_slow
        if self.cap is not None or self.question.priced:
            return self._unaffordable(entry)
        return None

    def _unaffordable(self, entry: Entry) -> PassedOver | None:
        question = self.question
        if entry.price.unit_pico_usd is None:
            return entry.unpriced if question.priced or self.cap is not None else None
        if self.cap is not None:
            charge = entry.charge_nano_usd(question.tokens, question.characters)
            if charge is not None and charge > self.cap:
                return entry.too_dear
        return None

    def _kept_back(self, entry: Entry) -> bool:
        if self.blocked is None:
            return False
        refusal = self.blocked(entry)
        if refusal is None:
            return False
        self.passed.append(PassedOver(entry.id, refusal.message))
        self._keep_back(entry, refusal)
        return True

    def _keep_back(self, entry: Entry, refusal: GatewayError) -> None:
        if self.first is None:
            reason = REASONS.get(refusal.code, "circuit_open")
            self.first = Failover(entry.id, entry.candidate.endpoint.name, reason)
            self.refusal = refusal

    def _under_ceiling(self, wanted: Entry) -> Selection | None:
        """The cheapest adequate model instead of `wanted`; None where no other that is cheaper can be had."""
        for entry in self.menu.orders["cost"]:
            if entry.cost < wanted.cost and self._inadequate(entry) is None and self._refusal(entry) is None:
                self.passed.append(wanted.over_ceiling)
                if self.first is None:
                    self.first = Failover(wanted.id, wanted.candidate.endpoint.name, "budget")
                return self._chosen(entry, "price_ceiling")
        return None

    def _chosen(self, entry: Entry, reason: str) -> Selection:
        size, input_type = self.size, self.question.input_type
        model = entry.model
        if size is None:
            size = model.dimensions
        if size == model.dimensions and (input_type is None or input_type == "document" or input_type == "query"):
            space = entry.space
        else:
            space = model.space(size, input_type)
        return Selection(
            model, size, space, reason, tuple(self.passed), entry.candidate, entry.notices, self.first
        )  # fmt: skip

    # -- nothing is left ------------------------------------------------------------------------------------------------

    def _refused(self) -> GatewayError:
        refusal = self.refusal
        if refusal is None:
            why = self._why_nothing()
            told = [f"{p.model}: {p.reason}" for p in why[:TOLD]]
            if len(why) > TOLD:
                told.append(f"and {len(why) - TOLD} more, each with its reason in `details.reasons`")
            return GatewayError(
                "no_model_available",
                f"configuration leaves no model for this request: {'; '.join(told) or 'no endpoint is configured'}",
                details={"reasons": [{"model": p.model, "reason": p.reason} for p in why]},
            )
        if refusal.code not in REASONS or self.first is None:
            return refusal
        instead = [] if self.question.another else self._again().instead_of(self.first.model)
        details = {**(refusal.details or {}), "alternatives": instead}
        return GatewayError(refusal.code, refusal.message, details=details, retry_after_ms=refusal.retry_after_ms)

    def _why_nothing(self) -> list[PassedOver]:
        known = {p.model for p in self.passed}
        closed = sorted(
            self.menu.closed_models(), key=lambda c: c.code == "model_not_enabled"
        )  # not the tenant's: last
        return self.passed + [PassedOver(c.model, c.reason) for c in closed if c.model not in known]

    # -- what else there would have been -----------------------------------------------------------------------------------

    def _again(self) -> Choice:
        """The same choice, from its beginning."""
        return Choice(self.menu, self.question, self.preferences, self.blocked)

    def instead_of(self, model: str) -> list[str]:
        """The models that would answer instead of `model`, if another might: best first."""
        seen = {model}
        entry = self.menu.names.get(model)
        line = list(self._names(entry.fallbacks if entry is not None else (), seen))
        rest = self._line(seen) if self.question.model is None else iter([self._any(seen)])
        line += [e for entries, _ in rest for e in entries]
        return [e.id for e in line if self._inadequate(e) is None and self._refusal(e) is None]

    def left_out(self, known: Container[str]) -> list[PassedOver]:
        """Why every model of the catalogue is left out that is not `known`."""
        found = []
        for entry in self.menu.orders["any"]:
            if entry.id not in known:
                refusal = self._refusal(entry)
                why = refusal.message if refusal is not None else "not among those that were named"
                found.append(self._inadequate(entry) or PassedOver(entry.id, why))
        testing = {e.id: e for e in self.menu.names.values() if e.testing and e.id not in known}
        found += [PassedOver(name, "it is being tested") for name in testing]
        return found + [PassedOver(c.model, c.reason) for c in self.menu.closed_models() if c.model not in known]

    def _refusal(self, entry: Entry) -> GatewayError | None:
        return None if self.blocked is None else self.blocked(entry)


def _has_size(entry: Entry, size: int) -> bool:
    return size in entry.sizes or entry.low <= size <= entry.high


def _not_on_menu(menu: Menu, name: str, entry: Entry | None) -> tuple[str, str]:
    if entry is not None:
        return entry.id, "it is being tested"
    closed: Closed | None = menu.closed.get(name)
    return (name, "not in the catalogue") if closed is None else (closed.model, closed.reason)


def _choices(menu: Menu) -> str:
    ids = [e.id for e in menu.orders["any"]]
    return (
        f"choose one of {', '.join(ids[:20])}{' and others' if len(ids) > 20 else ''}"
        if ids
        else "there is none to choose"
    )
