"""Deployments as the log tells them: the steps that there are, claims, and what the fold keeps."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.catalogue import Endpoint
from domain.deployment_decisions import (
    MAX_OF_TENANT,
    check_share,
    decide_deploy,
    decide_step,
    decide_undeploy,
    find_deployment,
    may_step,
)
from domain.endpoints import (
    ALLOCATING,
    DRAINING,
    FAILED,
    KEEP_ENDED,
    LOADING,
    PREPARING,
    READY,
    STOPPED,
    Deployment,
    Endpoints,
    serving,
)
from domain.errors import GatewayError
from domain.events import (
    CredentialRemoved,
    CredentialSet,
    DeploymentChanged,
    EndpointAttested,
    EndpointSpec,
    ModelRegistered,
    ModelSpec,
    OfferingSpec,
    TenantShredded,
)
from domain.plane import ControlPlane

STATES = (PREPARING, ALLOCATING, LOADING, READY, FAILED, DRAINING, STOPPED)
STEPS = {
    (PREPARING, ALLOCATING), (ALLOCATING, LOADING), (LOADING, READY), (READY, DRAINING), (DRAINING, STOPPED),
    (PREPARING, FAILED), (ALLOCATING, FAILED), (LOADING, FAILED),
    (PREPARING, STOPPED), (ALLOCATING, STOPPED), (LOADING, STOPPED),
}  # fmt: skip
WAY = (PREPARING, ALLOCATING, LOADING, READY, DRAINING)


def plane_with(*offered: str) -> ControlPlane:
    plane = ControlPlane()
    offerings = [OfferingSpec(provider, "theirs", 16, 1000) for provider in offered]
    plane.models.apply(ModelRegistered("m", ModelSpec("1", 4, 100), offerings, state="available"))
    return plane


def step(
    plane: ControlPlane, name: str, state: str, *, calls: int = 1, id_: str = "d", owner: str | None = None
) -> Deployment:
    spec = EndpointSpec("p", {"m": ""}, max_concurrency=calls) if state == PREPARING else None
    data = DeploymentChanged(name, id_, "m", state, 1, spec=spec, owner=owner, instance="i")
    plane.endpoints.apply(owner or "_system", data)
    return plane.endpoints.deployments[name]


def walk(plane: ControlPlane, name: str, state: str, **more: Any) -> Deployment:
    way = WAY[: WAY.index(state) + 1] if state in WAY else (PREPARING, state)
    return [step(plane, name, one, **more) for one in way][-1]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("to", STATES[1:])
def test_a_deployment_takes_the_steps_there_are_and_no_others(state: str, to: str) -> None:
    plane = plane_with("p")
    found = walk(plane, "e", state)
    allowed = (state, to) in STEPS
    assert may_step(plane, found, to) is (allowed or state == to)
    if allowed:
        [decision] = decide_step(plane, found, to, at=2, actor="a", instance="i")
        assert isinstance(decision.data, DeploymentChanged)
        assert (decision.data.state, decision.stream, decision.tenant) == (to, "endpoint/e", "_system")
    elif state == to:
        assert decide_step(plane, found, to, at=2, actor="a") == []
    else:
        with pytest.raises(GatewayError) as caught:
            decide_step(plane, found, to, at=2, actor="a")
        assert caught.value.code == "version_conflict"


def test_a_step_of_a_deployment_that_was_replaced_is_refused() -> None:
    plane = plane_with("p")
    old = walk(plane, "e", LOADING, id_="old")
    step(plane, "e", FAILED, id_="old")
    walk(plane, "e", LOADING, id_="new")
    assert not may_step(plane, old, READY)
    with pytest.raises(GatewayError, match="was replaced"):
        decide_step(plane, old, READY, at=2, actor="a")
    assert decide_undeploy(plane, old, instance="i", at=2, actor="a") == []


def test_what_is_to_serve_a_model_that_its_provider_has_no_more_is_not_registered() -> None:
    plane = plane_with("another")
    with pytest.raises(GatewayError, match="taken from") as caught:
        decide_step(plane, walk(plane, "e", LOADING), READY, at=2, actor="a")
    assert caught.value.code == "resource_constraint"


@pytest.mark.parametrize("became", [CredentialRemoved("key"), CredentialSet("key", "another", 2)])
def test_what_has_lost_its_credential_on_the_way_is_not_registered(became: CredentialSet | CredentialRemoved) -> None:
    plane = plane_with("p")
    plane.endpoints.apply("acme", CredentialSet("key", "p", 1))
    spec = EndpointSpec("p", {"m": ""}, credential="key")
    for state in (PREPARING, ALLOCATING, LOADING):
        plane.endpoints.apply("acme", DeploymentChanged("acme:e", "d", "m", state, 1, spec=spec, owner="acme"))
    found = plane.endpoints.deployments["acme:e"]
    assert decide_step(plane, found, READY, at=2, actor="a") != []
    plane.endpoints.apply("acme", became)
    with pytest.raises(GatewayError, match="credential") as caught:
        decide_step(plane, found, READY, at=2, actor="a")
    assert caught.value.code == "resource_constraint"


@given(st.data())
def test_whatever_happens_in_whatever_order_no_more_is_given_than_there_is(data: st.DataObject) -> None:
    plane, most, configured = plane_with("p"), 10, 3
    names = ["a", "b", "c", "d"]
    for number in range(data.draw(st.integers(1, 30))):
        name = data.draw(st.sampled_from(names))
        now = plane.endpoints.deployments.get(name)
        if now is None or now.state in (FAILED, STOPPED):
            step(plane, name, PREPARING, calls=data.draw(st.integers(1, 8)), id_=f"d{number}")
            continue
        choices = [to for state, to in sorted(STEPS) if state == now.state]
        to = data.draw(st.sampled_from(choices))
        if to == LOADING:
            try:
                check_share(plane, now, configured, most)
            except GatewayError:
                to = FAILED
        step(plane, name, to, id_=now.id)
        given_out = [d for d in plane.endpoints.deployments.values() if d.state in (LOADING, READY, DRAINING)]
        assert configured + sum(d.spec.max_concurrency for d in given_out) <= most
        assert all(
            (d.claim is None) == (d.state in (PREPARING, FAILED, STOPPED)) for d in plane.endpoints.deployments.values()
        )


def test_a_share_that_nobody_counts_would_be_given_twice() -> None:
    """The control: a claim that did not see the one before it would be granted as well."""
    plane = plane_with("p")
    walk(plane, "a", ALLOCATING, calls=6)
    second = walk(plane, "b", ALLOCATING, calls=6)
    with pytest.raises(GatewayError, match="max_provider_calls"):
        check_share(plane, second, 0, 10)
    plane.endpoints.deployments["a"] = walk(ControlPlane(), "a", PREPARING)
    check_share(plane, second, 0, 10)


def test_a_tenant_finds_its_own_deployments_by_name_and_id_and_no_others() -> None:
    plane = plane_with("p")
    shared, own = walk(plane, "e", READY, id_="1"), walk(plane, "acme:e", READY, id_="2", owner="acme")
    walk(plane, "other:x", READY, id_="3", owner="other")
    assert [find_deployment(plane, key, "acme") for key in ("e", "acme:e", "2")] == [own] * 3
    assert [find_deployment(plane, key, None) for key in ("e", "1")] == [shared] * 2
    for key in ("1", "3", "x", "other:x"):
        with pytest.raises(GatewayError) as caught:
            find_deployment(plane, key, "acme")
        assert caught.value.code == "not_found"


def test_a_shredded_tenants_deployments_hold_nothing_and_serve_nobody() -> None:
    plane = plane_with("p")
    for name, owner in (("acme:e", "acme"), ("e", None)):
        walk(plane, name, READY, owner=owner)
        plane.endpoints.apply(owner or "_system", EndpointAttested(name, "m", "space", True, 1, "configuration"))
    plane.endpoints.apply("acme", TenantShredded("acme"))
    assert set(plane.endpoints.attested) == {("e", "space")}
    found = plane.endpoints.deployments["acme:e"]
    assert (found.state, found.claim, set(plane.endpoints.ready)) == (STOPPED, None, {"e"})


def test_what_serves_nobody_changes_nothing_that_menus_rest_on() -> None:
    plane = plane_with("p")
    walk(plane, "e", READY)
    version = plane.endpoints.version
    plane.endpoints.apply("acme", CredentialSet("key", "p", 1))
    plane.endpoints.apply("acme", CredentialRemoved("key"))
    walk(plane, "acme:e", LOADING, owner="acme")
    plane.endpoints.apply("acme", TenantShredded("acme"))
    assert plane.endpoints.version == version
    step(plane, "e", DRAINING)
    assert plane.endpoints.version > version


def test_a_deployed_endpoint_never_takes_the_name_of_a_configured_one() -> None:
    plane = plane_with("p")
    walk(plane, "e", READY)
    mine = Endpoint("e", "other", {})
    assert serving([mine], plane.endpoints) == (mine,)
    assert serving([], Endpoints()) == ()


def test_a_step_that_is_written_behind_its_tenants_shredding_changes_nothing() -> None:
    plane = plane_with("p")
    walk(plane, "acme:e", LOADING, owner="acme")
    plane.endpoints.apply("acme", TenantShredded("acme"))
    for state in (READY, PREPARING):
        step(plane, "acme:e", state, owner="acme", id_="d" if state == READY else "new")
    plane.endpoints.apply("acme", CredentialSet("key", "p", 1))
    found = plane.endpoints.deployments["acme:e"]
    assert (found.state, found.claim, plane.endpoints.ready, plane.endpoints.credentials) == (STOPPED, None, {}, {})


def test_models_that_are_named_by_an_alias_are_deployed_by_their_id() -> None:
    plane = plane_with("p")
    offerings = [OfferingSpec("p", "theirs", 16, 1000)]
    plane.models.apply(ModelRegistered("n", ModelSpec("1", 4, 100, aliases=["nick"]), offerings, state="available"))
    asked: dict[str, Any] = {"owner": None, "operator": True, "configured": (), "instance": "i", "at": 1, "actor": "a"}
    [made] = decide_deploy(plane, "e", "d", "m", EndpointSpec("p", {"m": "", "nick": "own"}), **asked)
    assert isinstance(made.data, DeploymentChanged)
    assert made.data.spec is not None
    assert made.data.spec.models == {"m": "", "n": "own"}
    for more in (made.data, *(msgspec.structs.replace(made.data, spec=None, state=s) for s in (ALLOCATING, LOADING))):
        plane.endpoints.apply("_system", more)
    assert decide_step(plane, plane.endpoints.deployments["e"], READY, at=2, actor="a") != []
    assert decide_deploy(plane, "e", "d2", "m", EndpointSpec("p", {"m": "", "nick": "own"}), **asked) == []


def test_of_those_that_ended_each_owner_keeps_the_latest_and_what_serves_is_never_forgotten() -> None:
    plane = plane_with("p")
    walk(plane, "acme:serves", READY, owner="acme")
    walk(plane, "shared", FAILED)
    attested = EndpointAttested("acme:e0", "m", "space", True, 1, "configuration", owner="acme")
    for number in range(KEEP_ENDED + 7):
        walk(plane, f"acme:e{number}", READY, owner="acme")
        if not number:
            plane.endpoints.apply("acme", attested)
        for state in (DRAINING, STOPPED):
            step(plane, f"acme:e{number}", state, owner="acme")
    latest = {f"acme:e{number}" for number in range(7, KEEP_ENDED + 7)}
    assert set(plane.endpoints.deployments) == latest | {"acme:serves", "shared"}
    assert plane.endpoints.attested == {}, "what it gave goes with it"
    walk(plane, "acme:e7", PREPARING, owner="acme", id_="again")  # not among the ended any more
    for number in range(KEEP_ENDED):
        walk(plane, f"acme:f{number}", FAILED, owner="acme")
    assert {"acme:serves", "acme:e7", "shared"} < set(plane.endpoints.deployments)
    assert len(plane.endpoints.deployments) == KEEP_ENDED + 3


def test_of_claims_that_were_made_at_once_no_more_of_a_tenants_are_granted_than_it_may_have() -> None:
    plane = plane_with("p")
    for number in range(MAX_OF_TENANT + 2):
        walk(plane, f"acme:e{number}", ALLOCATING, owner="acme")
    last = walk(plane, "other:e", ALLOCATING, owner="other")
    for number in range(MAX_OF_TENANT):
        check_share(plane, plane.endpoints.deployments[f"acme:e{number}"], 0, 1_000)
    for number in (MAX_OF_TENANT, MAX_OF_TENANT + 1):
        with pytest.raises(GatewayError, match="the tenant has") as caught:
            check_share(plane, plane.endpoints.deployments[f"acme:e{number}"], 0, 1_000)
        assert caught.value.code == "resource_constraint"
    check_share(plane, last, 0, 1_000)


def test_a_tenant_is_not_told_how_much_others_have_been_given() -> None:
    plane = plane_with("p")
    walk(plane, "theirs", ALLOCATING, calls=737)
    for owner, told in ((None, True), ("acme", False)):
        found = walk(plane, f"{owner}:e", ALLOCATING, calls=500, owner=owner, id_=str(owner))
        with pytest.raises(GatewayError) as caught:
            check_share(plane, found, 0, 1_000)
        assert ("737" in f"{caught.value.message} {caught.value.details}") is told
        assert ("263" in f"{caught.value.message} {caught.value.details}") is told
        step(plane, f"{owner}:e", FAILED, owner=owner, id_=str(owner))
