"""Credentials over HTTP: secrets go in and never come out, and each tenant has its own."""

from __future__ import annotations

import pytest

from domain.credential_decisions import MAX_CREDENTIALS
from domain.errors import GatewayError
from domain.events import CredentialSet, DeploymentChanged, EndpointSpec
from gateway.http.api.credentials import CredentialBody
from tests.support.api import ApiSite
from tests.unit.wire.fake_service import ADMIN_KEY, KEY, OPERATOR_KEY

URL = "/api/v1/credentials"
SECRET = "sk-very-secret-0123456789"
BODY = {"provider": "openai", "secret": SECRET}


async def logged(site: ApiSite) -> str:
    return str([(e.type, e.data) for e in await site.log.read(0, 1000)])


async def test_a_secret_goes_in_and_never_comes_out(site: ApiSite) -> None:
    made = await site.ask("PUT", f"{URL}/mine", ADMIN_KEY, BODY)
    again = await site.ask("PUT", f"{URL}/mine", ADMIN_KEY, {**BODY, "secret": SECRET + "2"})
    shown = await site.ask("GET", f"{URL}/mine", ADMIN_KEY)
    listed = await site.ask("GET", URL, ADMIN_KEY)
    assert (made.status_code, again.status_code) == (201, 200)
    assert shown.json() == again.json() == listed.json()["credentials"][0]
    assert shown.json() == {"name": "mine", "tenant": "acme", "provider": "openai", "revision": 2, "endpoints": []}
    assert site.secrets.kept == {("acme", "mine", 2): SECRET + "2"}
    told = "".join(answer.text for answer in (made, again, shown, listed)) + await logged(site)
    assert SECRET not in told
    assert "credential.set" in told
    assert SECRET not in repr(CredentialBody("openai", SECRET)) + str(CredentialBody("openai", SECRET))


@pytest.mark.parametrize(
    ("name", "body", "field"),
    [
        ("Mine", BODY, "name"),
        ("mine", {"provider": "Open AI", "secret": SECRET}, "provider"),
        ("mine", {"provider": "openai", "secret": "  "}, "secret"),
        ("mine", {"provider": "openai", "secret": SECRET * 1000}, "secret"),
        ("mine", {"provider": "openai", "secret": [SECRET]}, "secret"),
        ("mine", {"provider": "openai", "secret": SECRET, "note": SECRET}, "note"),
    ],
)
async def test_what_is_wrong_is_told_without_the_secret(
    site: ApiSite, name: str, body: dict[str, object], field: str
) -> None:
    answer = await site.ask("PUT", f"{URL}/{name}", ADMIN_KEY, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == field
    assert SECRET not in answer.text
    assert site.secrets.kept == {}


async def test_each_has_its_own_and_operators_those_of_the_installation(site: ApiSite) -> None:
    await site.ask("PUT", f"{URL}/mine", ADMIN_KEY, BODY)
    await site.ask("PUT", f"{URL}/mine", OPERATOR_KEY, {**BODY, "secret": "installation"})
    await site.ask("PUT", f"{URL}/theirs", OPERATOR_KEY, BODY, tenant="other")
    assert set(site.secrets.kept) == {("acme", "mine", 1), ("_system", "mine", 1), ("other", "theirs", 1)}
    assert (await site.ask("GET", f"{URL}/theirs", ADMIN_KEY)).status_code == 404
    assert (await site.ask("DELETE", f"{URL}/theirs", ADMIN_KEY)).status_code == 404
    assert (await site.ask("GET", URL, ADMIN_KEY, tenant="other")).status_code == 403
    assert (await site.ask("PUT", f"{URL}/mine", KEY, BODY)).status_code == 403
    names = [c["name"] for c in (await site.ask("GET", URL, OPERATOR_KEY, tenant="other")).json()["credentials"]]
    assert names == ["theirs"]


async def test_a_credential_in_use_is_neither_removed_nor_given_to_another_provider(site: ApiSite) -> None:
    await site.ask("PUT", f"{URL}/mine", ADMIN_KEY, BODY)
    spec = EndpointSpec("openai", {"m": ""}, credential="mine")
    step = DeploymentChanged(
        endpoint="acme:e", deployment="d1", model="m", state="preparing", at=1, spec=spec, owner="acme"
    )
    await site.given("acme", "endpoint/acme:e", step)
    removed = await site.ask("DELETE", f"{URL}/mine", ADMIN_KEY)
    assert (removed.status_code, removed.json()["error"]["details"]["endpoints"]) == (409, ["acme:e"])
    other = await site.ask("PUT", f"{URL}/mine", ADMIN_KEY, {**BODY, "provider": "cohere"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "resource_constraint")
    assert (await site.ask("PUT", f"{URL}/mine", ADMIN_KEY, {**BODY, "secret": "anew"})).status_code == 200
    ended = DeploymentChanged(endpoint="acme:e", deployment="d1", model="m", state="stopped", at=2)
    await site.given("acme", "endpoint/acme:e", ended)
    assert (await site.ask("DELETE", f"{URL}/mine", ADMIN_KEY)).status_code == 204
    assert site.secrets.kept == {}
    await site.ask("PUT", f"{URL}/mine", ADMIN_KEY, BODY)
    assert set(site.secrets.kept) == {("acme", "mine", 3)}, "a revision is never given again"


async def test_a_secret_whose_event_was_refused_is_forgotten_and_the_one_in_use_stays(site: ApiSite) -> None:
    await site.ask("PUT", f"{URL}/mine", ADMIN_KEY, BODY)
    stale = await site.ask("PUT", f"{URL}/mine", ADMIN_KEY, {**BODY, "secret": "anew"}, expected_version=1)
    assert (stale.status_code, stale.json()["error"]["code"]) == (409, "version_conflict")
    assert site.secrets.kept == {("acme", "mine", 1): SECRET}


async def test_there_are_only_so_many(site: ApiSite) -> None:
    events = [CredentialSet(f"c{i}", "openai", 1) for i in range(MAX_CREDENTIALS)]
    await site.given("acme", "tenant/acme", *events)
    assert (await site.ask("PUT", f"{URL}/more", ADMIN_KEY, BODY)).status_code == 409
    assert (await site.ask("PUT", f"{URL}/c1", ADMIN_KEY, BODY)).status_code == 200


async def test_a_tenant_that_was_shredded_meanwhile_keeps_nothing(
    site: ApiSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object) -> int:
        raise GatewayError("not_found", "there is no tenant 'acme', or it was shredded")

    monkeypatch.setattr(site.secrets, "keep", gone)
    assert (await site.ask("PUT", f"{URL}/mine", ADMIN_KEY, BODY)).status_code == 404
    assert "credential.set" not in await logged(site)
