"""The alerts view: what was raised, and whether it goes on, was seen by somebody, or is silenced."""

from domain.events import AlertAcknowledged, AlertRaised, AlertResolved, AlertSilenced
from projections.projection import Projection
from projections.statements import statement

ALERTS = Projection(
    name="alerts",
    reads=(AlertRaised, AlertResolved, AlertAcknowledged, AlertSilenced),
    key=("tenant", "alert"),
    table=statement("projections.alerts", "table"),
    delta=statement("projections.alerts", "delta"),
    merge=statement("projections.alerts", "merge"),
    halts=False,
)
