"""Client for the Emberlog embedding gateway.

    async with Client("http://127.0.0.1:8080", key) as c:
        result = await c.generate(["a text", "another"])
        result.vectors  # numpy, shape (2, dimensions)

`SyncClient` is the same without an event loop. `emberlog_client.errors` draws the tree of errors.
"""

from .client import Client, Options
from .errors import (
    Cancelled,
    ConnectionFailed,
    DeadlineExceeded,
    EmberlogError,
    Forbidden,
    IdReused,
    InputTooLong,
    InvalidRequest,
    ModelNotFound,
    ProtocolViolation,
    ProviderRefused,
    QuotaExceeded,
    RateLimited,
    RequestRefused,
    SpaceChanged,
    Unauthorized,
    Unavailable,
)
from .results import Chunk, Cost, Estimate, Failover, Place, Reason, Result, Timings, Usage
from .streams import EmbeddingStream
from .sync import SyncClient, SyncStream
from .types import (
    CacheMode,
    Encoding,
    FailoverMode,
    InputType,
    Limits,
    Optimize,
    Preferences,
    Registration,
    Session,
    Store,
    Strategy,
    Truncate,
)

__version__ = "0.1.0"

__all__ = [
    "CacheMode",
    "Cancelled",
    "Chunk",
    "Client",
    "ConnectionFailed",
    "Cost",
    "DeadlineExceeded",
    "EmbeddingStream",
    "EmberlogError",
    "Encoding",
    "Estimate",
    "Failover",
    "FailoverMode",
    "Forbidden",
    "IdReused",
    "InputTooLong",
    "InputType",
    "InvalidRequest",
    "Limits",
    "ModelNotFound",
    "Optimize",
    "Options",
    "Place",
    "Preferences",
    "ProtocolViolation",
    "ProviderRefused",
    "QuotaExceeded",
    "RateLimited",
    "Reason",
    "Registration",
    "RequestRefused",
    "Result",
    "Session",
    "SpaceChanged",
    "Store",
    "Strategy",
    "SyncClient",
    "SyncStream",
    "Timings",
    "Truncate",
    "Unauthorized",
    "Unavailable",
    "Usage",
]
