"""The catalogue that requests get: replaced whole when the log changes it, rehearsed before it is changed, seeded once."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from adapters.catalogue import Shipped, shipped
from adapters.memory.event_log import MemoryEventLog
from adapters.providers.local.files import MODEL
from domain.catalogue import Endpoint
from domain.errors import GatewayError
from domain.events import ModelStateChanged, ModelUpdated, PriceSet
from domain.model_catalog import changed
from domain.plane import ControlPlane
from domain.ports.event_log import AppendStatus
from gateway.catalogue.live import LiveCatalogue, rehearse
from gateway.catalogue.seeding import assume, owed

SMALL = "text-embedding-3-small"
ENDPOINTS = [Endpoint("main", "openai", {SMALL: ""}), Endpoint("local", "local", {MODEL: ""})]


@pytest.fixture(scope="module")
def release() -> Shipped:
    return shipped()


@pytest.fixture
def plane(release: Shipped) -> ControlPlane:
    made = ControlPlane()
    assume(made, release)
    return made


def test_it_stays_the_same_until_a_model_or_a_price_changes(plane: ControlPlane) -> None:
    live = LiveCatalogue(plane, ENDPOINTS)
    first = live.current()
    assert live.current() is first
    plane.models.apply(ModelStateChanged(model=SMALL, state="unavailable", previous="available"))
    second = live.current()
    assert second is not first
    assert ([m.id for m in first.served()], [m.id for m in second.served()]) == ([MODEL, SMALL], [MODEL])
    plane.prices.apply(PriceSet(price="new", model=SMALL, provider="openai", effective_from=1, unit_pico_usd=7))
    (candidate,) = live.current().candidates(SMALL)
    assert (candidate.offering.price.id, second.candidates(SMALL)[0].offering.price.unit_pico_usd) == ("new", 20_000)


def test_of_one_alias_that_two_models_have_the_first_keeps_it(plane: ControlPlane) -> None:
    other = plane.models.models["mistral-embed"]
    spec = msgspec.structs.replace(other.spec, aliases=["sentence-transformers/all-MiniLM-L6-v2"])
    plane.models.apply(ModelUpdated(model=other.id, spec=spec, offerings=other.offerings))
    resolved = LiveCatalogue(plane, ENDPOINTS).current().resolve("sentence-transformers/all-MiniLM-L6-v2")
    assert resolved is not None
    assert resolved.id == MODEL
    assert plane.models.resolve("sentence-transformers/all-MiniLM-L6-v2") is plane.models.models[MODEL]


@pytest.mark.parametrize(
    ("fault", "why"),
    [(None, "the tokenizer 'o200k_base' is not at hand"), (OSError("disk"), r"\(OSError\)")],
)
async def test_a_change_that_cannot_be_loaded_is_found_out_aside(
    plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception | None, why: str
) -> None:
    def broken(name: str, store: Path) -> None:
        if fault is not None:
            raise fault

    live = LiveCatalogue(plane, ENDPOINTS)
    before = live.current()
    model = plane.models.models[SMALL]
    spec = msgspec.structs.replace(model.spec, tokenizer="o200k_base")
    wanted = changed(model, ModelUpdated(model=SMALL, spec=spec, offerings=model.offerings))
    await rehearse(live, plane, wanted, tmp_path)
    monkeypatch.setattr("gateway.catalogue.live.tokenizer", broken)
    with pytest.raises(GatewayError, match=why) as caught:
        await rehearse(live, plane, wanted, tmp_path)
    assert (caught.value.code, caught.value.status) == ("reload_failed", 502)
    assert live.current() is before


def test_an_endpoint_that_serves_nobody_yet_is_seen_as_it_would(plane: ControlPlane) -> None:
    live = LiveCatalogue(plane, ENDPOINTS)
    for tenant in (None, "acme"):
        found = live.aside(Endpoint("new", "openai", {SMALL: "theirs"}, tenant=tenant), SMALL)
        assert (found.endpoint.name, found.provider_model, found.model.id) == ("new", "theirs", SMALL)
    assert "new" not in live.current().endpoints
    with pytest.raises(GatewayError, match="the catalogue has no model") as caught:
        live.aside(Endpoint("new", "cohere", {SMALL: ""}), SMALL)
    assert caught.value.code == "resource_constraint"


def test_what_is_deployed_and_cannot_serve_does_not_stop_a_start(plane: ControlPlane) -> None:
    live = LiveCatalogue(plane, ENDPOINTS)
    plane.endpoints.ready["e"] = Endpoint("e", "openai", {"gone": ""})
    plane.endpoints.version += 1
    live.check()
    assert [u.model for u in live.current().unserved] == ["gone"]
    with pytest.raises(ValueError, match="'gone'"):
        LiveCatalogue(plane, [Endpoint("mine", "openai", {"gone": ""})]).check()


async def test_two_who_seed_from_the_same_empty_log_write_each_event_once(release: Shipped) -> None:
    log = MemoryEventLog()
    instance = await log.register_instance("test", 60)
    first, second = owed(ControlPlane(), release), owed(ControlPlane(), release)
    assert {a.status for a in await log.append(instance, first)} == {AppendStatus.APPENDED}
    assert {a.status for a in await log.append(instance, second)} == {AppendStatus.DUPLICATE}
    assert await log.head() == len(first) == len(release.models) + len(release.prices)
    # Under ids of chance the prices would be there twice: a model's first event alone expects an empty stream.
    by_chance = [msgspec.structs.replace(event, key=uuid4().bytes, event_id=uuid4().bytes) for event in second]
    statuses = [a.status for a in await log.append(instance, by_chance)]
    assert statuses.count(AppendStatus.CONFLICT) == len(release.models)
    assert statuses.count(AppendStatus.APPENDED) == len(release.prices)
