"""The messages of the WebSocket contract as typed structs: decoded straight from MessagePack, encoded straight to it.

Unknown fields are ignored. Values that only the catalogue or the limits can judge are judged in admission, not here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from domain.events import Preferences

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Texts = Annotated[list[str], msgspec.Meta(max_length=65_536)]
"""Not the limit on inputs, which admission knows: a bound on what a declared length can make the decoder build."""
Metadata = Annotated[dict[str, str], msgspec.Meta(max_length=256)]
RowMetadata = Annotated[dict[str, str | Int64 | float | bool | None], msgspec.Meta(max_length=64)]
"""What a row of a collection is described by: flat, so that a filter is plain equality."""
_Choices = Annotated[list[str | Int64 | float | bool | None], msgspec.Meta(max_length=100)]
RowFilter = Annotated[dict[str, str | Int64 | float | bool | _Choices | None], msgspec.Meta(max_length=100)]
"""For each field of the metadata the value that it must have, or a list of which one must be."""
InputType = Literal["query", "document", "classification", "clustering"]
Encoding = Literal["float32", "float16", "int8", "ubinary"]


class AgentInfo(msgspec.Struct, frozen=True):
    """Who speaks on a session."""

    id: Name
    name: str | None = None
    version: str | None = None


class SessionOpen(msgspec.Struct, tag="session.open", frozen=True):
    """First message of a session; carries the token where a browser could not send a header."""

    id: Id
    agent: AgentInfo
    token: str | None = None
    preferences: Preferences | None = None


class AgentRegister(msgspec.Struct, tag="agent.register", frozen=True):
    """The agent's preferences, stored as an event."""

    id: Id
    preferences: Preferences
    capabilities: list[str] = []
    metadata: Metadata | None = None


class Store(msgspec.Struct, frozen=True):
    """Where to keep the vectors of a request: an id for each of its texts, and metadata to filter searches by."""

    collection: Name
    ids: Texts
    metadata: Annotated[list[RowMetadata | None], msgspec.Meta(max_length=65_536)] | None = None


class EmbeddingGenerate(msgspec.Struct, tag="embedding.generate", gc=False):
    """Embed one or many texts."""

    id: Id
    input: str | Texts
    model: Name | None = None
    dimensions: Int64 | None = None
    input_type: InputType | None = None
    task: Name | None = None
    encoding: Encoding = "float32"
    failover: Literal["same_space", "any", "none"] | None = None
    optimize: Literal["cost", "latency", "quality"] | None = None
    truncate: Literal["error", "end"] = "error"
    stream: bool = False
    deadline_ms: Int64 | None = None
    thread: Name | None = None
    cache: Literal["use", "refresh", "off"] = "use"
    store: Store | None = None
    metadata: Metadata | None = None
    dry_run: bool = False


class SearchQuery(msgspec.Struct, tag="search.query", frozen=True):
    """Find the rows of a collection that are nearest to a text or a vector (float32, little-endian)."""

    id: Id
    collection: Name
    text: str | None = None
    vector: bytes | None = None
    k: Int64 = 10
    filter: RowFilter | None = None
    threshold: float | None = None


class RequestCancel(msgspec.Struct, tag="request.cancel", frozen=True):
    """Give up a request of this session."""

    id: Id


ClientMessage = SessionOpen | AgentRegister | EmbeddingGenerate | SearchQuery | RequestCancel


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What was counted and billed. `truncated` lists the indexes of inputs that were cut."""

    tokens: int
    billed_tokens: int
    cached_inputs: int
    truncated: list[int]
    estimated: bool


class Cost(msgspec.Struct, frozen=True, gc=False):
    """The charge; `nano_usd` nil when the price is unknown."""

    nano_usd: int | None
    price: str


class Timings(msgspec.Struct, frozen=True, gc=False):
    """Milliseconds: waiting before the (last) provider call was sent, inside provider calls, and from arrival to answer."""

    queue_ms: float
    provider_ms: float
    total_ms: float


class EmbeddingResult(msgspec.Struct, tag="embedding.result", gc=False, omit_defaults=True):
    """The answer to `embedding.generate`. `vectors`: `count` rows, row-major, little-endian; absent when streamed or on a dry run.

    `quota_remaining` is the tokens that the tightest hard quota of them has left, absent where there is none and in replays.
    """

    id: str
    event: str | None
    model: str
    provider: str | None
    endpoint: str | None
    space: str
    dimensions: int
    encoding: str
    count: int
    usage: Usage
    cost: Cost
    failover: dict[str, Any] | None
    timings: Timings
    replayed: bool
    vectors: bytes | msgspec.UnsetType = msgspec.UNSET
    scales: bytes | msgspec.UnsetType = msgspec.UNSET
    reasons: list[dict[str, str]] | msgspec.UnsetType = msgspec.UNSET
    notices: list[str] | msgspec.UnsetType = msgspec.UNSET
    quota_remaining: int | msgspec.UnsetType = msgspec.UNSET


class SearchResult(msgspec.Struct, tag="search.result", frozen=True):
    """The answer to `search.query`: what was found, nearest first, and the space that was searched in."""

    id: str
    space: str
    matches: list[dict[str, Any]]


class EmbeddingChunk(msgspec.Struct, tag="embedding.chunk", gc=False):
    """Rows `offset` to `offset + count` of a streamed answer; final only with the result."""

    id: str
    offset: int
    count: int
    vectors: bytes
    scales: bytes | msgspec.UnsetType = msgspec.UNSET


class Error(msgspec.Struct, tag="error", gc=False):
    """A refusal or failure. `id` is absent where the message had none that could be read."""

    code: str
    message: str
    retryable: bool
    id: str | msgspec.UnsetType = msgspec.UNSET
    retry_after_ms: int | msgspec.UnsetType = msgspec.UNSET
    details: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class Limits(msgspec.Struct, frozen=True):
    """What one connection may ask for."""

    max_message_bytes: int = 16 * 1024 * 1024
    max_inputs: int = 10_000
    max_input_chars: int = 200_000
    max_in_flight: int = 256
    max_in_flight_inputs: int = 20_000
    idempotency_seconds: int = 86_400


class SessionOpened(msgspec.Struct, tag="session.opened", frozen=True):
    """The session stands."""

    id: str
    session: str
    tenant: str | None
    agent: str
    server: dict[str, str]
    limits: Limits


class AgentRegistered(msgspec.Struct, tag="agent.registered", frozen=True):
    """The preferences are in the log; `version` counts the agent's statements."""

    id: str
    agent: str
    version: int


class ServerDraining(msgspec.Struct, tag="server.draining", frozen=True):
    """New requests are refused; those in flight finish, then the socket closes with 1012."""

    reconnect_after_ms: int
