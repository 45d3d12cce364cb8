"""The way in: from a request's first choice of a model, over its count of tokens and the gates, into the log.

Where that choice does not hold (a quota is used up, the request costs more than its agent allows, a text is too long for a model that
nobody named), another is made, counted anew, and goes on at the gate that refused; or the request is refused for good.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from domain.catalogue import Model
from domain.errors import GatewayError
from domain.ports.tokenizer import Tokenizer
from domain.prices import PriceBook
from domain.selection import REASONS, Question, over_cap
from gateway.service import admission, counting
from gateway.service.pending import Pending, State
from gateway.service.pricing import left_behind, pin, within
from gateway.service.selector import Selector

if TYPE_CHECKING:
    from gateway.service.service import RequestService

Gate = Callable[[Pending], Awaitable[None] | None]
"""Lets a request whose tokens are counted pass at once (None) or after a wait, or raises `GatewayError`."""


class Entry:
    """Brings requests in, through the `gates`; dry runs through the `dry_gates` alone, whose holds end with them. What it raises is told by whoever called; what comes later is told to the request's listeners."""

    def __init__(
        self,
        service: RequestService,
        selector: Selector,
        prices: PriceBook,
        tokenizer_of: Callable[[str], Tokenizer | None],
        gates: Sequence[Gate],
        dry_gates: Sequence[Gate],
    ) -> None:
        self._service = service
        self._selector = selector
        self._prices = prices
        self._tokenizer_of = tokenizer_of
        self._gates = gates
        self._dry_gates = dry_gates

    def begin(self, pending: Pending, gate: int = 0) -> None:
        """Count the texts for the chosen model, then pass the gates from number `gate` on. Raises `GatewayError` for a refusal."""
        tokenizer = self._tokenizer_of(pending.selection.model.id)
        if not counting.small(pending.asked):
            self._service.enter(pending)
            self._service.spawn(pending, self._count_off_loop(pending, tokenizer, gate))
            return
        try:
            counted = counting.count(pending.asked, pending.selection.model, tokenizer, cut=_cut(pending))
        except GatewayError as error:
            self._elsewhere(pending, error, gate)
        else:
            self._counted(pending, counted, gate)

    async def _count_off_loop(self, pending: Pending, tokenizer: Tokenizer | None, gate: int) -> None:
        try:
            try:
                counted = await counting.count_off_loop(
                    pending.asked, pending.selection.model, tokenizer, cut=_cut(pending)
                )
            except GatewayError as error:
                if pending.state is State.COUNTING:
                    self._elsewhere(pending, error, gate)
            else:
                if pending.state is State.COUNTING:
                    self._counted(pending, counted, gate)
        except GatewayError as error:
            self._tell(pending, error)

    def _counted(self, pending: Pending, counted: counting.Counted, gate: int) -> None:
        _take_count(pending, counted)
        refusal = self._service.sending.route(pending)
        if refusal is not None:
            try:
                self._choose_another(pending, refusal)
            except GatewayError:
                if pending.message.cache != "use" or pending.message.dry_run:
                    raise
                # Nothing can be sent now, but the caches may have it all.
            else:
                self.begin(pending, gate)
                return
        pin(pending, self._prices)
        stated = self._selector.preferences(pending.tenant, pending.agent)
        cap = None if stated is None else stated.max_cost_per_request_nano_usd
        if cap is not None and not within(pending, cap):
            self._elsewhere(pending, over_cap(pending.selection.model.id, cap), gate)
        else:
            if not pending.message.dry_run:
                self._service.check_log()
            self._pass(pending, gate)

    async def recount(self, pending: Pending, model: Model) -> None:
        """Count its texts, and cut them where that is allowed, as another model takes them. Raises `GatewayError`."""
        counted = await counting.count_off_loop(pending.asked, model, self._tokenizer_of(model.id), cut=_cut(pending))
        _take_count(pending, counted)

    # -- the gates ------------------------------------------------------------------------------------------------------

    def _pass(self, pending: Pending, start: int) -> None:
        gates = self._dry_gates if pending.message.dry_run else self._gates
        for number in range(start, len(gates)):
            try:
                wait = gates[number](pending)
            except GatewayError as error:
                self._elsewhere(pending, error, number)
                return
            if wait is not None:
                self._service.enter(pending)
                self._service.spawn(pending, self._wait(pending, wait, number))
                return
        self._admitted(pending)

    async def _wait(self, pending: Pending, wait: Awaitable[None], number: int) -> None:
        try:
            try:
                await wait
            except GatewayError as error:
                if pending.state is State.COUNTING:
                    self._elsewhere(pending, error, number)
            else:
                if pending.state is State.COUNTING:
                    self._pass(pending, number + 1)
                elif pending.hold is not None:
                    pending.hold.release()  # it was given up meanwhile
        except GatewayError as error:
            self._tell(pending, error)

    async def again(self, pending: Pending) -> bool:
        """Pass the gates for a further attempt, unless what the first one took is held still; whether it is wanted still.

        Raises `GatewayError`.
        """
        if pending.hold is None:
            for gate in self._gates:
                if (wait := gate(pending)) is not None:
                    await wait
        if pending.ended and pending.hold is not None:
            pending.hold.release()
        return not pending.ended

    def _admitted(self, pending: Pending) -> None:
        """Nothing keeps it out: into the log, or what a dry run found is told and nothing held."""
        if pending.message.store is not None:
            try:
                self._service.check_store(pending)  # of the model that was chosen at last
            except GatewayError:
                if pending.hold is not None:
                    pending.hold.release()
                raise
        if pending.message.dry_run:
            self._service.answer_dry_run(pending)
            return
        try:
            pending.keys = self._service.cache_keys(pending, pending.selection.space)
            self._service.commit_requested(pending)
        except GatewayError:
            if pending.hold is not None:
                pending.hold.release()
            raise
        self._service.enter(pending)

    # -- another model --------------------------------------------------------------------------------------------------

    def _elsewhere(self, pending: Pending, error: GatewayError, gate: int) -> None:
        """The chosen model refuses: go on with another. Raises `error`, or it with the alternatives, where there is none."""
        self._choose_another(pending, error)
        self.begin(pending, gate)

    def _choose_another(self, pending: Pending, error: GatewayError) -> None:
        too_long = error.code == "input_too_long" and pending.message.model is None
        if pending.pinned or (not too_long and error.code not in REASONS):
            raise error
        question = pending.question
        if too_long and error.details is not None:
            question = msgspec.structs.replace(question, longest=max(question.longest, error.details["tokens"]))
        else:
            question = _with_counts(pending)
            pending.refused = {**pending.refused, pending.selection.model.id: error}
        try:
            self._choose(pending, question)
        except GatewayError as none_left:
            raise (error if none_left.code == "no_model_available" else none_left) from None

    def _choose(self, pending: Pending, question: Question) -> None:
        """Choose anew, everything live looked at. Raises what selection raises, and `invalid_request` for an answer too large."""
        selection = self._selector.choose(pending.tenant, pending.agent, question, pending.refused)
        assert selection.candidate is not None
        admission.check_answer_size(pending.message, pending.count, selection.dimensions, self._service.limits)
        if pending.hold is not None:
            pending.hold.release()
            pending.hold = None
        pending.question = question
        pending.selection, pending.candidate = selection, selection.candidate
        pending.characters, pending.total_characters = None, 0
        pending.moved = None

    async def switch(self, pending: Pending, error: GatewayError) -> None:
        """Choose another model for a request that is in the log and has failed with `error`: counted, priced and held anew, what it held
        before given up. Raises `error` where there is no other, or none that lets it in; then it is as it was.
        """
        refused = {**pending.refused, pending.selection.model.id: error}
        question = _with_counts(pending)
        while True:
            try:
                selection = self._selector.choose(pending.tenant, pending.agent, question, refused)
            except GatewayError:
                raise error from None
            assert selection.candidate is not None
            other = pending.aside(selection, selection.candidate)
            try:
                admission.check_answer_size(other.message, other.count, selection.dimensions, self._service.limits)
                tokenizer = self._tokenizer_of(selection.model.id)
                counted = await counting.count_off_loop(other.asked, selection.model, tokenizer, cut=_cut(other))
                await self._hold(other, counted)
            except GatewayError as another:
                refused[selection.model.id] = another
                continue
            if pending.running:
                left_behind(pending)
                pending.become(other)
                pending.refused = refused
            elif other.hold is not None:
                other.hold.release()
            return

    async def _hold(self, other: Pending, counted: counting.Counted) -> None:
        """Count, route, price and hold what is to take the place of another."""
        _take_count(other, counted)
        if (refusal := self._service.sending.route(other)) is not None:
            raise refusal
        pin(other, self._prices)
        stated = self._selector.preferences(other.tenant, other.agent)
        cap = None if stated is None else stated.max_cost_per_request_nano_usd
        if cap is not None and not within(other, cap):
            raise over_cap(other.selection.model.id, cap)
        other.keys = self._service.cache_keys(other, other.selection.space)
        for gate in self._dry_gates:  # those that hold; what rate limits there are it has drawn on
            if (wait := gate(other)) is not None:
                await wait

    def _tell(self, pending: Pending, error: GatewayError) -> None:
        if not pending.ended:
            self._service.refused(pending.tenant, pending.message, error)
            self._service.leave(pending, error)


def _take_count(pending: Pending, counted: counting.Counted) -> None:
    pending.texts, pending.tokens, pending.truncated = counted.texts, counted.tokens, counted.truncated
    pending.estimated, pending.total_tokens = counted.estimated, sum(counted.tokens)
    pending.uncounted = len(counted.tokens) if counted.estimated else 0


def _cut(pending: Pending) -> bool:
    return pending.message.truncate == "end"


def _with_counts(pending: Pending) -> Question:
    """The question with what is known of the texts by now. An estimate rules no model out: its provider is the judge."""
    exact = not pending.estimated and not _cut(pending)
    return msgspec.structs.replace(
        pending.question,
        tokens=pending.total_tokens,
        characters=pending.total_characters or sum(map(len, pending.asked)),
        longest=max(pending.question.longest, max(pending.tokens)) if exact else pending.question.longest,
    )
