"""The usage view: what each tenant, agent, model and provider used and was charged, by minute, hour and day."""

from domain.events import EmbeddingAbandoned, EmbeddingFailed, EmbeddingGenerated, EmbeddingReembedded
from projections.projection import Projection
from projections.statements import statement

USAGE = Projection(
    name="usage",
    reads=(EmbeddingGenerated, EmbeddingFailed, EmbeddingAbandoned, EmbeddingReembedded),
    key=("grain", "bucket", "tenant", "agent", "model", "provider"),
    table=statement("projections.usage", "table"),
    delta=statement("projections.usage", "delta"),
    merge=statement("projections.usage", "merge"),
)
