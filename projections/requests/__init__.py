"""The requests view: what became of each attempt at a request, for 30 days."""

from domain.events import EmbeddingAbandoned, EmbeddingFailed, EmbeddingGenerated, EmbeddingRequested
from projections.projection import Projection
from projections.statements import statement

REQUESTS = Projection(
    name="requests",
    reads=(EmbeddingRequested, EmbeddingGenerated, EmbeddingFailed, EmbeddingAbandoned),
    key=("tenant", "request_id", "attempt"),
    table=statement("projections.requests", "table"),
    delta=statement("projections.requests", "delta"),
    merge=statement("projections.requests", "merge"),
    # By the log's time and not the clock's, so that a rebuilt view equals the live one.
    kept="coalesce(outcome_at, requested_at) >= {time} - interval '30 days'",
    halts=False,
    rest=0.25,
)
