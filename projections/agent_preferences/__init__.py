"""The agent_preferences view: what each agent states about itself and how its models are chosen."""

from domain.events import AgentRegistered
from projections.projection import Projection
from projections.statements import statement

AGENT_PREFERENCES = Projection(
    name="agent_preferences",
    reads=(AgentRegistered,),
    key=("tenant", "agent_id"),
    table=statement("projections.agent_preferences", "table"),
    delta=statement("projections.agent_preferences", "delta"),
    merge=statement("projections.agent_preferences", "merge"),
    halts=False,
    rest=0.5,
)
