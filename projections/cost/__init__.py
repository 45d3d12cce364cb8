"""The cost view: what each tenant, agent, model and provider was charged, by hour, day and month in UTC. Kept for ever."""

from domain.events import EmbeddingFailed, EmbeddingGenerated, EmbeddingReembedded
from projections.projection import Projection
from projections.statements import statement

COST = Projection(
    name="cost",
    reads=(EmbeddingGenerated, EmbeddingFailed, EmbeddingReembedded),
    key=("grain", "bucket", "tenant", "agent", "model", "provider"),
    table=statement("projections.cost", "table"),
    delta=statement("projections.cost", "delta"),
    merge=statement("projections.cost", "merge"),
    rest=0.5,
)
