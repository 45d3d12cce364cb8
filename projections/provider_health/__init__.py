"""The provider_health view: how endpoints do, as the log tells of them."""

from domain.events import (
    BreakerChanged,
    DeploymentChanged,
    EmbeddingFailed,
    EmbeddingGenerated,
    EndpointAttested,
    EndpointHealthChanged,
)
from projections.projection import Projection
from projections.statements import statement

PROVIDER_HEALTH = Projection(
    name="provider_health",
    reads=(
        EmbeddingGenerated,
        EmbeddingFailed,
        BreakerChanged,
        EndpointHealthChanged,
        DeploymentChanged,
        EndpointAttested,
    ),
    key=("endpoint", "model", "space"),
    table=statement("projections.provider_health", "table"),
    delta=statement("projections.provider_health", "delta"),
    merge=statement("projections.provider_health", "merge"),
    halts=False,
    rest=0.5,
)
