"""What an attestation is worth as the log goes on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from domain.attestations import AttestationState, attestation_state
from domain.endpoints import Endpoints
from domain.events import (
    DeploymentChanged,
    EndpointAttested,
    EndpointSpec,
    ModelRegistered,
    ModelSpec,
    ModelUpdated,
    OfferingSpec,
)

SPEC = ModelSpec("1", 4, 100)
OURS, THEIRS = OfferingSpec("p", "pm", 16, 1000, config={"task": "a"}), OfferingSpec("other", "om", 16, 1000)


def endpoints(passed: bool = True) -> Endpoints:
    found = Endpoints()
    found.apply("_system", ModelRegistered("m", SPEC, [OURS, THEIRS], state="available"))
    for endpoint, model in (("e", "m"), ("of another model", "another")):
        found.apply("_system", EndpointAttested(endpoint, model, "space", passed, 1, "configuration"))
    return found


@pytest.mark.parametrize("passed", [True, False])
@pytest.mark.parametrize(
    "change", [{"provider_model": "another"}, {"config": {"task": "b"}}, {"sends_dimensions": True}], ids=str
)
def test_another_model_behind_an_offering_is_to_be_attested_anew(change: dict[str, Any], passed: bool) -> None:
    known = endpoints(passed)
    update = ModelUpdated("m", SPEC, [THEIRS, msgspec.structs.replace(OURS, **change)])
    known.apply("_system", update)
    assert attestation_state(known, "e", "configuration", "space") is AttestationState.UNATTESTED
    stays = AttestationState.ATTESTED if passed else AttestationState.QUARANTINED
    assert attestation_state(known, "of another model", "configuration", "space") is stays
    known.apply("_system", EndpointAttested("e", "m", "space", True, 2, "configuration"))
    known.apply("_system", update)
    assert attestation_state(known, "e", "configuration", "space") is AttestationState.ATTESTED


@pytest.mark.parametrize("passed", [True, False])
def test_what_is_deployed_anew_is_attested_anew_though_it_is_configured_as_before(passed: bool) -> None:
    known = endpoints(passed)
    spec = EndpointSpec("p", {"m": ""})
    deployed = DeploymentChanged("e", "d", "m", "preparing", 1, spec=spec)
    known.apply("_system", deployed)
    assert attestation_state(known, "e", "configuration", "space") is AttestationState.UNATTESTED
    known.apply("_system", EndpointAttested("e", "m", "space", True, 2, "configuration"))
    known.apply("_system", msgspec.structs.replace(deployed, state="allocating", spec=None))
    assert attestation_state(known, "e", "configuration", "space") is AttestationState.ATTESTED
    assert ("of another model", "space") in known.attested


SPACES = ("m@1:4:unit", "m@1:2:unit/clustering")


def told(passed: bool, endpoint: str = "e", **more: Any) -> EndpointAttested:
    return EndpointAttested(endpoint, "m", SPACES[0], passed, 1, "configuration", **more)


def test_what_an_endpoint_gave_before_it_was_found_to_drift_is_not_cached_under_its_space_any_more() -> None:
    known = Endpoints()
    known.apply("_system", told(True))
    assert [known.cached_as(space, "acme") for space in SPACES] == list(SPACES)
    seen = {known.cached_as(SPACES[0], "acme")}
    for passed in (False, False, True, False):
        known.apply("_system", told(passed))
        seen.add(known.cached_as(SPACES[0], "acme"))
    assert len(seen) == 3, "as often as it began to drift"
    assert known.cached_as(SPACES[1], "acme") != SPACES[1], "whatever size of the model"
    assert known.cached_as("another@1:4:unit", "acme") == "another@1:4:unit"
    before = known.cached_as(SPACES[0], "acme")
    known.apply("_system", told(False, "never served"))
    assert known.cached_as(SPACES[0], "acme") == before
    known.apply("_system", told(True, epoch=1))
    assert known.cached_as(SPACES[0], "acme") != before, "new references: other vectors are right by now"


def test_a_tenants_endpoint_that_drifts_takes_nothing_from_the_caches_of_others() -> None:
    known = Endpoints()
    for passed in (True, False):
        known.apply("acme", told(passed, "acme:e"))
    assert known.cached_as(SPACES[0], "other") == SPACES[0] != known.cached_as(SPACES[0], "acme")


def test_what_bears_on_no_vector_leaves_attestations_as_they_are() -> None:
    known = endpoints()
    fewer = msgspec.structs.replace(OURS, max_inputs=2, max_tokens_per_call=3)
    spec = msgspec.structs.replace(SPEC, rank=7)
    known.apply("_system", ModelUpdated("m", spec, [fewer, THEIRS, OfferingSpec("new", "pm", 1, 1)]))
    assert attestation_state(known, "e", "configuration", "space") is AttestationState.ATTESTED
