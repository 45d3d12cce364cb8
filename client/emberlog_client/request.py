"""One call of the caller, cut into the requests that the gateway's limits allow."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .errors import InvalidRequest
from .types import CacheMode, Encoding, FailoverMode, InputType, Limits, Optimize, Store, Truncate
from .vectors import row_bytes

ASSUMED_DIMENSIONS = 8192
"""Where the caller leaves the dimensions open, answers are taken to be at most this wide when deciding whether to stream."""
ENVELOPE_BYTES = 64 * 1024
"""Room kept in a message for everything but texts and vectors; `metadata` is at most 2 KiB."""
MAX_ID = 64


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of a call, as given. None leaves a choice to the gateway."""

    texts: Sequence[str]
    model: str | None = None
    dimensions: int | None = None
    input_type: InputType | None = None
    task: str | None = None
    encoding: Encoding = "float32"
    failover: FailoverMode | None = None
    optimize: Optimize | None = None
    truncate: Truncate | None = None
    deadline: float | None = None
    thread: str | None = None
    cache: CacheMode | None = None
    metadata: Mapping[str, str] | None = None
    store: Store | None = None
    dry_run: bool = False

    @property
    def one_space(self) -> bool:
        """Whether parts of this call, sent at once, are sure to be answered in one space."""
        return self.model is not None and self.failover in ("same_space", "none")

    def pinned(self, answer: Mapping[str, Any]) -> Request:
        """The call for the remaining parts, bound to the space that answered the first."""
        dimensions = answer.get("dimensions")
        return replace(
            self,
            model=answer.get("model") or self.model,
            dimensions=dimensions if isinstance(dimensions, int) else self.dimensions,
            failover="none" if self.failover == "none" else "same_space",
        )

    def as_dry_run(self) -> Request:
        """The same call, estimated only."""
        return replace(self, dry_run=True)

    def streams(self, count: int, limits: Limits) -> bool:
        """Whether the answer to `count` texts could be more than one message may hold."""
        width = row_bytes(self.dimensions or ASSUMED_DIMENSIONS, self.encoding) + 5  # 5: an int8 row's scale
        return count * width + ENVELOPE_BYTES > limits.max_message_bytes

    def message(self, id: str, start: int, stop: int, *, stream: bool) -> dict[str, Any]:  # noqa: A002 - the contract's name
        """The map for texts `start` to `stop`. The same arguments give the same bytes, so that a resend is a resend."""
        message: dict[str, Any] = {"type": "embedding.generate", "id": id, "input": self.texts[start:stop]}
        if self.encoding != "float32":
            message["encoding"] = self.encoding
        if stream and not self.dry_run:
            message["stream"] = True
        if self.dry_run:
            message["dry_run"] = True
        if self.deadline is not None:
            message["deadline_ms"] = max(1, round(self.deadline * 1000))
        if self.metadata is not None:
            message["metadata"] = dict(self.metadata)
        if self.store is not None:
            message["store"] = self.store.to_wire(start, stop)
        for name in (
            "model",
            "dimensions",
            "input_type",
            "task",
            "failover",
            "optimize",
            "truncate",
            "thread",
            "cache",
        ):
            if (value := getattr(self, name)) is not None:
                message[name] = value
        return message


def check_texts(texts: Sequence[str]) -> None:
    """Refuse here what could never be sent. Raises `InvalidRequest` naming the index, `TypeError` for what is no string."""
    if not texts:
        raise InvalidRequest(
            "`texts` is empty; give at least one text", code="invalid_request", details={"field": "input"}
        )
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{index}] is {type(text).__name__}, not str")
        if text.isascii() and "\0" not in text:
            continue
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _unsendable(index, "a lone surrogate") from None
        if "\0" in text:
            raise _unsendable(index, "a NUL character")


def _unsendable(index: int, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"texts[{index}] has {what}, which the gateway does not take; remove it",
        code="invalid_message",
        details={"field": "input", "index": index},
    )


def split(texts: Sequence[str], limits: Limits) -> list[tuple[int, int]]:
    """Cut `texts` into runs (start, stop), each within the gateway's limits. Raises `InvalidRequest` for a text beyond them."""
    room = limits.max_message_bytes - ENVELOPE_BYTES
    at_once = max(1, min(limits.max_inputs, limits.max_in_flight_inputs))
    runs: list[tuple[int, int]] = []
    start = size = 0
    for index, text in enumerate(texts):
        length = len(text)
        if length > limits.max_input_chars:
            raise InvalidRequest(
                f"texts[{index}] has {length} characters; the gateway takes at most {limits.max_input_chars}: cut it up",
                code="invalid_request",
                details={"field": "input", "index": index},
            )
        size_here = 5 + (length if text.isascii() else len(text.encode()))
        if index - start == at_once or (size + size_here > room and index > start):
            runs.append((start, index))
            start, size = index, 0
        size += size_here
    runs.append((start, len(texts)))
    return runs


def part_id(id: str, part: int, parts: int) -> str:  # noqa: A002 - the contract's name
    """The id of one part: the caller's own where there is one part, else derived from it, the same each time."""
    if parts == 1:
        return id
    suffix = f".{part}"
    if len(id) + len(suffix) > MAX_ID:
        id = hashlib.blake2b(id.encode(), digest_size=24).hexdigest()  # noqa: A001 - the shortened form of the same
    return id + suffix
