"""The model_catalog view: the catalogue's models with their facts, their place in the lifecycle and what their validation found."""

from domain.events import ModelRegistered, ModelStateChanged, ModelUpdated, ModelValidated
from projections.projection import Projection
from projections.statements import statement

MODEL_CATALOG = Projection(
    name="model_catalog",
    reads=(ModelRegistered, ModelUpdated, ModelStateChanged, ModelValidated),
    key=("model",),
    table=statement("projections.model_catalog", "table"),
    delta=statement("projections.model_catalog", "delta"),
    merge=statement("projections.model_catalog", "merge"),
    halts=False,
    rest=0.5,
)
