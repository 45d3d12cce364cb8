"""Whether an endpoint may serve a space: what the last attestation of it says, as things stand now."""

from __future__ import annotations

from enum import StrEnum

from domain.endpoints import Endpoints
from domain.events import EndpointAttested


class AttestationState(StrEnum):
    """Where an endpoint stands with a space."""

    ATTESTED = "attested"
    UNATTESTED = "unattested"
    """Nobody knows: it was never held against the space's references, was configured otherwise then, or they were renewed since."""
    QUARANTINED = "quarantined"
    """Its vectors were found not to be of the space."""


def attestation_state(endpoints: Endpoints, endpoint: str, configuration: str, space: str) -> AttestationState:
    """The state of an endpoint of this configuration. How long ago it was attested does not bear on it."""
    told = endpoints.attested.get((endpoint, space))
    if told is None or told.configuration != configuration or outdated(endpoints, told):
        return AttestationState.UNATTESTED
    return AttestationState.ATTESTED if told.passed else AttestationState.QUARANTINED


def outdated(endpoints: Endpoints, told: EndpointAttested) -> bool:
    """Whether the references were renewed since, or a tenant's own were used and the space has the installation's by now."""
    epochs = endpoints.epochs
    if told.owner is not None and (told.space, None) in epochs:
        return True
    return told.epoch < epochs.get((told.space, told.owner), 0)


def quarantined(endpoints: Endpoints) -> list[EndpointAttested]:
    """The attestations that keep an endpoint out of a space, as things stand."""
    return [told for told in endpoints.attested.values() if not told.passed and not outdated(endpoints, told)]
