"""What the simulated provider can be told to do wrong, by flags for the whole run or call by call through its control route."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Literal

import msgspec

FaultKind = Literal[
    "status",  # answer with `status` (and `code`, `type`, `message`, `retry_after`, `headers`, `body`)
    "hang",  # never answer; the connection stays open
    "slow",  # answer rightly after `delay_ms` more
    "drop",  # close the connection before a byte of the answer
    "reset",  # reset the connection in the middle of the body
    "stall",  # send half of the body and then nothing; the connection stays open
    "truncated",  # a whole HTTP answer whose JSON stops half-way
    "html",  # 200 with a web page
    "wrong_count",  # one vector too few
    "too_many",  # one vector too many
    "wrong_dimensions",  # every vector one component short
    "ragged",  # the last vector one component short
    "nan",  # a NaN in the last vector
    "infinity",  # an infinity in the last vector
    "bad_base64",  # the last vector is not base64
    "shuffled",  # right vectors, last first, each with its own index
    "same_index",  # every index is 0
    "float",  # floats although base64 was asked for
    "no_usage",  # no usage in the answer
    "drifted",  # the vectors that another model would give
]


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """One fault for the next `count` calls (-1: every call until cleared); `marker` limits it to calls with a text that holds it."""

    kind: FaultKind
    count: int = 1
    marker: str | None = None
    status: int = 500
    code: str | None = None
    type: str | None = None
    param: str | None = None
    message: str | None = None
    retry_after: str | None = None
    retry_after_ms: str | None = None
    body: str | None = None
    headers: dict[str, str] = {}
    delay_ms: float = 0.0


class Control(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /control`. Absent fields leave things as they are.

    `clear` forgets the faults and rates before the others are set; `hold` keeps answers back until `hold` is false again; `rates`
    gives each fault kind a probability per call; `reset` zeroes the statistics.
    """

    clear: bool = False
    reset: bool = False
    hold: bool | None = None
    latency_ms: float | None = None
    latency_per_text_us: float | None = None
    max_inputs: int | None = None
    max_tokens: int | None = None
    faults: list[Fault] = []
    rates: dict[FaultKind, float] | None = None


class FaultPlan:
    """The faults that are due, oldest first, and the rates. `take` says what happens to a call, using up one count."""

    def __init__(self, rates: dict[FaultKind, float] | None = None, seed: int = 1) -> None:
        self._faults: deque[Fault] = deque()
        self._rates = dict(rates or {})
        self._random = random.Random(seed)

    def apply(self, control: Control) -> None:
        """Take up what a control message says of faults."""
        if control.clear:
            self._faults.clear()
            self._rates = {}
        self._faults.extend(control.faults)
        if control.rates is not None:
            self._rates = dict(control.rates)

    def take(self, texts: Sequence[str] | Sequence[list[int]]) -> Fault | None:
        """The fault of this call, or None."""
        for fault in self._faults:
            if fault.marker is not None and not _holds(texts, fault.marker):
                continue
            if fault.count > 0:
                fault.count -= 1
                if fault.count == 0:
                    self._faults.remove(fault)
            return fault
        for kind, rate in self._rates.items():
            if self._random.random() < rate:
                return Fault(kind=kind, status=503 if kind == "status" else 500)
        return None


def _holds(texts: Sequence[str] | Sequence[list[int]], marker: str) -> bool:
    return any(isinstance(text, str) and marker in text for text in texts)
