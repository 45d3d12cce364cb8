"""What the simulated server must know of a provider's API: how to read a call, how to answer it and how to refuse it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from gateway.bench.connection import Answer, Request
from gateway.bench.faults import Fault
from gateway.bench.tokens import Counter


class Limits(msgspec.Struct):
    """The caps of a call. OpenAI's own: 2,048 inputs, 8,192 tokens an input, 300,000 tokens a call."""

    max_inputs: int = 2048
    max_input_tokens: int = 8192
    max_tokens: int = 300_000


class Asked(NamedTuple):
    """An embedding call that the server takes. `counts` are the tokens of each text; `request` is the API's own form of the call."""

    texts: Sequence[str] | Sequence[list[int]]
    dimensions: int
    counts: list[int]
    input_type: object = None
    request: Any = None


class Refused(Exception):
    """The request is answered with an error, in the API's shape."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"HTTP {answer.status}")
        self.answer = answer


class WireApi(Protocol):
    """One provider's API. The server does what is everybody's: connections, keys, counts, delays, faults of the connection."""

    def embeds(self, target: bytes) -> bool:
        """Whether a request to this target is an embedding call."""
        ...

    def credential(self, request: Request) -> bytes:
        """The key that a request carries."""
        ...

    def unauthorised(self) -> Answer:
        """What a wrong key is told."""
        ...

    def read(self, request: Request, limits: Limits, count: Counter) -> Asked:
        """The call in a request. Raises `Refused` for one that is wrong or over a limit."""
        ...

    def answer(self, asked: Asked, fault: Fault | None) -> Answer:
        """The vectors, spoilt as `fault` says."""
        ...

    def fault_answer(self, fault: Fault) -> Answer:
        """The error that a fault of the kind `status` asks for."""
        ...

    def other(self, request: Request) -> Answer:
        """The answer to a request that is no embedding call and whose key is right."""
        ...


def fault_headers(fault: Fault) -> bytes:
    """The header lines that a fault asks for."""
    told = dict(fault.headers)
    if fault.retry_after is not None:
        told["retry-after"] = fault.retry_after
    if fault.retry_after_ms is not None:
        told["retry-after-ms"] = fault.retry_after_ms
    return b"".join(b"%b: %b\r\n" % (name.encode("ascii"), value.encode("latin-1")) for name, value in told.items())
