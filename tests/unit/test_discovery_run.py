"""A run of discovery over several providers: each by itself, whatever becomes of the others, and told in the log and in numbers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from domain.catalogue import Endpoint
from domain.discovery import decide_entry
from domain.errors import GatewayError
from domain.events import DiscoveryRan, ModelRegistered, ModelSpec, OfferingSpec
from domain.ports.lists_models import ListedModel, Listing
from domain.ports.provider import Provider, ProviderError, ProviderFault
from gateway.decisions import decision_event
from gateway.discovery.run import Discovery, DiscoveryFailed, discovery_task
from gateway.discovery.source import serving, source_of
from gateway.telemetry.discovery import DiscoveryMetrics
from tests.support.api import ApiSite, api_site
from tests.support.listing import Listed, Unlisted
from tests.unit.wire.fake_service import ADMIN_KEY, OPERATOR_KEY

SPEC = ModelSpec(version="1", dimensions=8, max_tokens=100)


class Site:
    """The providers `a` and `b`, each with an endpoint and two models; more are put into `endpoints` and `providers`."""

    def __init__(self, api: ApiSite) -> None:
        self.api = api
        self.endpoints = [Endpoint("at-a", "a", {"a-0": ""}), Endpoint("at-b", "b", {"b-0": ""})]
        self.a, self.b = Listed("a-0", "a-1"), Listed("b-0", "b-1")
        self.providers: dict[str, Provider] = {"at-a": self.a, "at-b": self.b}
        self.metrics = DiscoveryMetrics()
        self.state = "draft"
        self.discovery = Discovery(
            api.service.control,
            lambda: self.endpoints,
            lambda endpoint: self.providers[endpoint.name],
            lambda: self.state,
            self.metrics,
            list_seconds=0.05,
        )

    async def run(self, **more: Any) -> dict[str, DiscoveryRan]:
        return {ran.source: ran for ran in await self.discovery.run(**more)}

    def samples(self) -> dict[tuple[str, ...], float]:
        return {
            (s.name, *s.labels.values()): s.value
            for family in self.metrics.collect()
            for s in family.samples
            if s.value
        }


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with api_site() as api:
        for provider in "ab":
            for n in range(2):
                name = f"{provider}-{n}"
                made = ModelRegistered(name, SPEC, [OfferingSpec(provider, name, 16, 1000)], state="available")
                await api.given("_system", f"model/{name}", made)
        yield Site(api)


async def test_one_failing_provider_fails_no_other(site: Site) -> None:
    site.a.fault = ProviderError(ProviderFault.TIMEOUT, "no answer within 30 s")
    site.b.says("b-0", "b-1", "b-2", "b-2", garbled=1)
    assert await site.discovery.task() == {
        "providers": 2, "failed": 1, "found": 3, "added": 1, "changed": 0, "deprecated": 0, "skipped": 1,
    }  # fmt: skip
    plane = site.api.plane
    assert plane.models.models["b-2"].state == "draft"
    known = plane.discoveries.sources
    assert known["a"].last.error == "endpoint 'at-a': timeout: no answer within 30 s"
    assert (known["b"].last.error, known["b"].listed) == (None, frozenset({"b-0", "b-1", "b-2"}))
    assert site.samples() == {
        ("emberlog_discovery_runs_total", "a", "failure"): 1,
        ("emberlog_discovery_runs_total", "b", "success"): 1,
        ("emberlog_discovery_models_total", "b", "found"): 3,
        ("emberlog_discovery_models_total", "b", "added"): 1,
        ("emberlog_discovery_models_total", "b", "skipped"): 1,
    }


async def test_a_run_in_which_every_provider_fails_has_failed(site: Site) -> None:
    site.a.fault = ProviderError(ProviderFault.AUTHENTICATION, "401")
    site.b.fault = RuntimeError("the key is sk-secret")
    with pytest.raises(
        DiscoveryFailed, match=r"a: endpoint 'at-a': authentication: 401; b: endpoint 'at-b': RuntimeError$"
    ):
        await site.discovery.task()


async def test_a_provider_that_hangs_or_answers_what_is_no_list_fails_no_other(site: Site) -> None:
    site.a.go.clear()
    site.b.says("b-0", "b-1")
    ran = await site.run()
    assert (ran["a"].error, ran["b"].error) == ("endpoint 'at-a': no list within 0.05 s", None)
    site.a.go.set()
    site.a.listing = Listing([ListedModel("a-0", embeds=True, aliases=None)])  # type: ignore[arg-type]
    ran = await site.run()
    assert (ran["a"].error, ran["b"].error) == ("endpoint 'at-a': TypeError", None)


async def test_providers_without_a_list_are_no_part_of_a_run(site: Site) -> None:
    site.endpoints.append(Endpoint("at-c", "c", {}))
    site.providers["at-c"] = Unlisted()
    site.b.listing = None
    assert set(await site.run()) == {"a"}
    site.endpoints = site.endpoints[1:]
    assert (await site.discovery.task())["providers"] == 0


async def test_one_provider_can_be_asked_alone(site: Site) -> None:
    assert set(await site.run(provider="b", actor="cli:t")) == {"b"}
    assert (site.a.asked, site.api.plane.discoveries.sources["b"].last.actor) == (0, "cli:t")


async def test_endpoints_of_tenants_are_not_asked(site: Site) -> None:
    site.endpoints.append(Endpoint("theirs", "c", {"a-0": ""}, tenant="acme"))
    site.providers["theirs"] = Listed("secret-embed")
    assert set(await site.run()) == {"a", "b"}
    assert serving(site.endpoints)["a-0"] == {"a", "c"}, "what they serve counts"


async def test_two_endpoints_at_one_address_are_one_source_and_need_both_lists(site: Site) -> None:
    site.endpoints.append(Endpoint("too", "a", {}))
    site.providers["too"] = too = Listed("a-1", "a-2")
    ran = await site.run()
    assert (ran["a"].found, ran["a"].added) == (3, 1)
    too.fault = ProviderError(ProviderFault.SERVER, "503")
    ran = await site.run()
    assert ran["a"].error == "endpoint 'too': server: 503"
    assert site.api.plane.discoveries.sources["a"].absent == {}


@pytest.mark.parametrize(
    ("endpoint", "source"),
    [
        (Endpoint("e", "openai", {}), "openai"),
        (Endpoint("e", "openai", {}, base_url="https://user:word@h.test:8/v1?key=x"), "openai@h.test:8"),
        (Endpoint("e", "openai", {}, base_url="no address"), "openai@unknown"),
        (Endpoint("e", "openai", {}, base_url="http://h.test:99999/"), "openai@h.test"),
        (Endpoint("e", "bedrock", {}, options={"region": "eu-west-1"}), "bedrock/eu-west-1"),
    ],
)
def test_a_source_is_a_provider_at_an_address_without_what_is_secret_in_it(endpoint: Endpoint, source: str) -> None:
    assert source_of(endpoint) == source


async def test_the_same_lists_again_write_nothing_but_that_they_were_read(site: Site) -> None:
    site.a.says("a-0", "a-1", "a-embed-2")
    await site.run()
    head = await site.api.log.head()
    await site.run()
    assert [e.type for e in await site.api.log.read(head, 100)] == [DiscoveryRan.TYPE] * 2


async def test_the_setting_says_in_which_state_new_models_start(site: Site) -> None:
    site.state = "testing"
    site.a.says("a-0", "a-1", "a-2")
    await site.run()
    assert site.api.plane.models.models["a-2"].state == "testing"


async def test_a_race_with_another_process_is_decided_anew(site: Site) -> None:
    [theirs] = decide_entry(site.api.plane, "a", ListedModel("a-2"))
    site.api.backing.before = [decision_event(theirs.tenant, theirs.stream, theirs.data, 0)]
    site.a.says("a-0", "a-1", "a-2")
    ran = await site.run(provider="a")
    assert (ran["a"].added, ran["a"].error) == (0, None)
    assert site.api.plane.versions["model/a-2"] == 1


async def test_while_the_log_is_away_a_run_ends_with_that(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(events: object) -> None:
        raise GatewayError("unavailable", "the log is away")

    site.a.says("a-0", "a-1", "a-2")
    monkeypatch.setattr(site.api.backing, "append", away)
    with pytest.raises(GatewayError, match="away"):
        await site.discovery.task()


def test_the_task_has_the_period_of_the_setting_or_none(site: Site) -> None:
    hours = 24
    task = discovery_task(site.discovery, lambda: hours)
    assert task.every is not None
    assert (task.name, task.every.total_seconds()) == ("discovery", 86400)
    hours = 0
    assert task.every is None


async def test_operators_see_over_http_what_the_lists_showed(site: Site) -> None:
    site.a.says("a-1", "a-embed-2")
    site.b.fault = ProviderError(ProviderFault.SERVER, "503")
    await site.run()
    site.a.says("a-1", "a-embed-2", "a-embed-2")
    refused = await site.api.ask("GET", "/api/v1/discovery", ADMIN_KEY)
    assert refused.status_code == 403
    shown = (await site.api.ask("GET", "/api/v1/discovery", OPERATOR_KEY)).json()["sources"]
    assert [(s["source"], s["found"], s["added"], s["listed"], s["error"]) for s in shown] == [
        ("a", 2, 1, ["a-1", "a-embed-2"], None),
        ("b", 0, 0, [], "endpoint 'at-b': server: 503"),
    ]
    assert shown[0]["succeeded_at"] == shown[0]["ran_at"]
    assert shown[1]["succeeded_at"] is None
