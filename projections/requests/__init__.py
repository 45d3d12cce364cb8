"""The requests view: what became of each attempt at a request, for 30 days."""

from domain.events import EmbeddingAbandoned, EmbeddingFailed, EmbeddingGenerated, EmbeddingRequested
from projections.projection import Projection
from projections.statements import statement

REQUESTS = Projection(
    name="requests",
    reads=(EmbeddingRequested, EmbeddingGenerated, EmbeddingFailed, EmbeddingAbandoned),
    apply=(statement("projections.requests", "apply"),),
    prune=statement("projections.requests", "prune"),
)
