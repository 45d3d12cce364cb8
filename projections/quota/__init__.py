"""The quota view: what was used of each day's quotas, by tenant, agent, model and gateway instance, for 62 days."""

from domain.events import EmbeddingFailed, EmbeddingGenerated
from projections.projection import Projection
from projections.statements import statement

QUOTA = Projection(
    name="quota",
    reads=(EmbeddingGenerated, EmbeddingFailed),
    key=("tenant", "day", "agent", "model", "instance"),
    table=statement("projections.quota", "table"),
    delta=statement("projections.quota", "delta"),
    merge=statement("projections.quota", "merge"),
    # By the log's time and not the clock's, so that a rebuilt view equals the live one.
    kept="day >= ({time} AT TIME ZONE 'UTC')::date - 62",
)
