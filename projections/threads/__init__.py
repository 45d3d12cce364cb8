"""The threads view: the requests of each conversation or job and what became of them, for 30 days."""

from domain.events import EmbeddingAbandoned, EmbeddingFailed, EmbeddingGenerated, EmbeddingRequested
from projections.projection import Projection
from projections.statements import statement

THREADS = Projection(
    name="threads",
    reads=(EmbeddingRequested, EmbeddingGenerated, EmbeddingFailed, EmbeddingAbandoned),
    key=("tenant", "thread", "position"),
    table=statement("projections.threads", "table"),
    delta=statement("projections.threads", "delta"),
    merge=statement("projections.threads", "merge"),
    kept="recorded_at >= {time} - interval '30 days'",
    halts=False,
    rest=0.5,
)
