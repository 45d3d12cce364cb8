"""The tenant_models view: which models each tenant has configured, and how."""

from domain.events import TenantModelConfigured, TenantModelRemoved
from projections.projection import Projection
from projections.statements import statement

TENANT_MODELS = Projection(
    name="tenant_models",
    reads=(TenantModelConfigured, TenantModelRemoved),
    key=("tenant", "model_id"),
    table=statement("projections.tenant_models", "table"),
    delta=statement("projections.tenant_models", "delta"),
    merge=statement("projections.tenant_models", "merge"),
    halts=False,
    rest=0.5,
)
