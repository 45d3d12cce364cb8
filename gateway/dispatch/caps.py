"""What a model's calls at an endpoint may hold, as configured and as learnt from refusals; all its lanes there share it.

Learnt downwards only, and never below what the endpoint has taken. What configuration allows holds where nothing is learnt.
"""

from __future__ import annotations

from domain.catalogue import Candidate


class Caps:
    """`inputs` and `tokens` of a call, None where nothing is learnt. `alone` is the token count of the smallest text that was too long:
    texts as long as that go alone. `revision` changes with them.
    """

    __slots__ = ("_most_inputs", "_most_tokens", "alone", "inputs", "revision", "tokens")

    def __init__(self) -> None:
        self.inputs: int | None = None
        self.tokens: int | None = None
        self.alone: int | None = None
        self.revision = 0
        self._most_inputs = 0
        self._most_tokens = 0

    def of(self, candidate: Candidate) -> tuple[int, int]:
        """The caps that bind: texts and tokens."""
        inputs, tokens = candidate.max_inputs, candidate.max_tokens_per_call
        return (
            inputs if self.inputs is None else min(inputs, self.inputs),
            tokens if self.tokens is None else min(tokens, self.tokens),
        )

    def taken(self, inputs: int, tokens: int) -> None:
        """A call of this size was answered."""
        if inputs > self._most_inputs:
            self._most_inputs = inputs
        if tokens > self._most_tokens:
            self._most_tokens = tokens

    def refused(self, inputs: int, tokens: int) -> None:
        """A call of this size, of several texts, was too large: half of it is the most from now on, in what it was larger in than any
        that was answered.
        """
        larger = inputs > self._most_inputs, tokens > self._most_tokens
        if larger[0] or not larger[1]:
            self.inputs = _less(self.inputs, max(inputs // 2, 1))
        if larger[1] or not larger[0]:
            self.tokens = _less(self.tokens, max(tokens // 2, 1))
        if larger[0] and self.inputs is not None:
            self.inputs = max(self.inputs, self._most_inputs)
        if larger[1] and self.tokens is not None:
            self.tokens = max(self.tokens, self._most_tokens)
        self.revision += 1

    def too_long(self, tokens: int) -> None:
        """A text of so many tokens was too long, though we let it through."""
        if self.alone is None or tokens < self.alone:
            self.alone = max(tokens, 1)
            self.revision += 1


def _less(known: int | None, new: int) -> int:
    return new if known is None else min(known, new)
