"""Endpoints and their circuits by the management API: what is shown to whom, and the reset."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, cast

from domain.catalogue import Endpoint
from domain.events import BreakerChanged, DeploymentChanged, EndpointAttested, EndpointSpec
from domain.ports.provider import Provider, ProviderError, ProviderFault
from gateway.dispatch.context import CallOutcome
from gateway.dispatch.dispatcher import LaneGauge
from gateway.endpoints.documents import shown_address
from gateway.telemetry.metrics import Gauges
from tests.support.api import ApiSite
from tests.unit.wire.fake_service import ADMIN_KEY, OPERATOR_KEY

OWN = DeploymentChanged(
    endpoint="own",
    deployment="d1",
    model="tiny",
    state="ready",
    at=1,
    spec=EndpointSpec(provider="fake", models={"tiny": "tiny-1"}, credential="mine"),
    owner="acme",
)


async def _open(site: ApiSite, endpoint: Endpoint) -> None:
    async def fails() -> None:
        raise ProviderError(ProviderFault.SERVER, "no")

    breaker = site.service.endpoint_desk.breakers.of(endpoint)
    for _ in range(5):
        permit = breaker.admit()
        assert permit is not None
        with suppress(ProviderError):
            await permit.run(fails)


async def _get(site: ApiSite, path: str, key: str = OPERATOR_KEY, **query: Any) -> Any:
    answer = await site.ask("GET", path, key, **query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_an_endpoint_is_shown_with_its_circuit_its_health_and_its_spaces_and_without_secrets(
    site: ApiSite,
) -> None:
    [main] = site.endpoints
    site.lanes = [LaneGauge(name, "tiny", 3, 1, 32, 4, 8192, None, 2.5) for name in ("main", "other")]
    await site.given(
        "_system",
        "endpoint/main",
        EndpointAttested(
            endpoint="main",
            model="tiny",
            space="tiny@1/4/unit",
            passed=False,
            at=0,
            configuration=main.configuration,
            problems=["p"],
        ),
    )
    answer = await site.ask("GET", "/api/v1/endpoints", OPERATOR_KEY)
    assert "secret" not in answer.text
    assert "word" not in answer.text
    [shown] = answer.json()["endpoints"]
    assert shown == {
        "name": "main",
        "provider": "fake",
        "origin": "settings",
        "owner": None,
        "base_url": "https://main.test/v1",
        "weight": 1,
        "max_concurrency": 8,
        "max_inputs": None,
        "max_tokens_per_call": None,
        "timeout_ms": 30000,
        "models": [
            {
                "model_id": "tiny",
                "provider_model": None,
                "spaces": [
                    {
                        "space": "tiny@1/4/unit",
                        "state": "quarantined",
                        "at": "1970-01-01T00:00:00Z",
                        "problems": ["p"],
                    }
                ],
            }
        ],
        "circuit": {
            "endpoint": "main",
            "state": "closed",
            "failure_count": 0,
            "until": None,
            "reason": None,
            "changed_at": None,
            "adopted": False,
        },
        "health": {"status": "unknown", "reason": "nothing is known yet", "since": None},
        "lanes": [
            {
                "model_id": "tiny",
                "calls": 1,
                "queued_texts": 3,
                "max_inputs": 32,
                "max_calls": 4,
                "max_tokens": 8192,
                "alone_from": None,
                "calls_per_second": 2.5,
            }
        ],
    }
    assert await _get(site, "/api/v1/endpoints/main") == shown
    assert (await _get(site, "/api/v1/endpoints", model="huge"))["endpoints"] == []


async def test_a_tenant_sees_and_resets_its_own_endpoints_and_cannot_tell_that_there_are_others(site: ApiSite) -> None:
    await site.given("acme", "endpoint/own", OWN)
    await _open(site, site.plane.endpoints.ready["own"])
    await _open(site, site.endpoints[0])
    [shown] = (await _get(site, "/api/v1/endpoints", ADMIN_KEY))["endpoints"]
    assert (shown["name"], shown["origin"], shown["owner"]) == ("own", "deployed", "acme")
    assert shown["models"] == [{"model_id": "tiny", "provider_model": "tiny-1", "spaces": []}]
    assert [b["endpoint"] for b in (await _get(site, "/api/v1/breakers", ADMIN_KEY))["breakers"]] == ["own"]
    assert len((await _get(site, "/api/v1/breakers"))["breakers"]) == 2
    answers = [
        (await site.ask(method, f"/api/v1/endpoints/{name}{rest}", ADMIN_KEY)).json()["error"]
        for name in ("main", "nope")
        for method, rest in (("GET", ""), ("POST", "/breaker/reset"))
    ]
    assert {a["code"] for a in answers} == {"not_found"}
    assert {a["message"].replace("main", "nope") for a in answers} == {answers[2]["message"]}
    reset = await site.ask("POST", "/api/v1/endpoints/own/breaker/reset", ADMIN_KEY)
    assert (reset.status_code, reset.json()["state"]) == (200, "closed")
    states = {b["endpoint"]: b["state"] for b in (await _get(site, "/api/v1/breakers"))["breakers"]}
    assert states == {"main": "open", "own": "closed"}


async def test_an_open_circuit_is_shown_with_its_end_and_closed_by_a_reset_which_is_logged(site: ApiSite) -> None:
    await _open(site, site.endpoints[0])
    [shown] = (await _get(site, "/api/v1/breakers"))["breakers"]
    assert (shown["state"], shown["failure_count"]) == ("open", 5)
    assert shown["until"].endswith("Z")
    reset = await site.ask("POST", "/api/v1/endpoints/main/breaker/reset", OPERATOR_KEY)
    assert reset.status_code == 200, reset.text
    assert (reset.json()["state"], reset.json()["reason"], reset.json()["failure_count"]) == ("closed", "reset", 0)
    last = site.plane.endpoints.breakers["main"]
    assert (last.previous, last.actor) == ("open", "key:k5")
    position = site.plane.position
    again = await site.ask("POST", "/api/v1/endpoints/main/breaker/reset", OPERATOR_KEY)
    assert again.status_code == 200
    assert site.plane.position == position


async def test_a_reset_closes_what_another_gateway_opened(site: ApiSite) -> None:
    site.service.endpoint_desk.breakers.of(site.endpoints[0])
    word = BreakerChanged(
        endpoint="main",
        state="open",
        previous="closed",
        reason="failures",
        at=2**51,
        failures=5,
        until=2**51 + 30_000_000,
        instance="elsewhere",
    )
    await site.given("_system", "endpoint/main", word)
    [shown] = (await _get(site, "/api/v1/breakers"))["breakers"]
    assert (shown["state"], shown["adopted"], shown["reason"]) == ("open", True, "failures")
    await site.ask("POST", "/api/v1/endpoints/main/breaker/reset", OPERATOR_KEY)
    [shown] = (await _get(site, "/api/v1/breakers"))["breakers"]
    assert (shown["state"], shown["adopted"]) == ("closed", False)


class _Alive:
    """A provider of which only a sign of life is asked."""

    async def check(self, timeout: float) -> None:
        pass


async def test_health_and_metrics_follow_calls_and_circuits(site: ApiSite) -> None:
    desk, gauges = site.service.endpoint_desk, Gauges()
    desk.watch(gauges)
    site.providers["main"] = cast("Provider", _Alive())
    desk.health.look()
    for _ in range(3):
        await asyncio.sleep(0)
    desk.health.on_call(CallOutcome("main", "fake", "tiny", 1, 1, 0.1, 1))
    shown = (await _get(site, "/api/v1/endpoints/main"))["health"]
    assert (shown["status"], shown["reason"]) == ("healthy", "it answers")
    await _open(site, site.endpoints[0])
    shown = (await _get(site, "/api/v1/endpoints/main"))["health"]
    assert (shown["status"], shown["reason"]) == ("unhealthy", "its circuit is open")
    samples = {
        (sample.name, *sample.labels.values()): sample.value for metric in gauges.collect() for sample in metric.samples
    }
    assert samples == {
        ("circuit_breaker_state", "main"): 2.0,
        ("circuit_breaker_state_changes_total", "main", "closed", "open"): 1.0,
        ("emberlog_endpoint_health", "main"): 0.0,
    }


def test_an_address_is_shown_without_user_password_and_query() -> None:
    assert shown_address("http://u:p@[::1]:8080/v1?key=k#f") == "http://[::1]:8080/v1"
    assert shown_address(None) is None
