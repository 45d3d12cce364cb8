"""API keys and tenants over the management API: who may make what, and what the log says of who did."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from domain.decision import Decision
from domain.events import KeyRevoked, TenantShredded
from domain.tenancy import SCOPES, Principal
from tests.support.api import ApiSite
from tests.unit.wire.fake_service import ADMIN_KEY, BILLING_KEY, KEY, OPERATOR_KEY

KEYS, TENANTS = "/api/v1/keys", "/api/v1/tenants"
ROOT = "em_root"
NOW = 1_800_000_000


@pytest.fixture(autouse=True)
def _root(site: ApiSite) -> None:
    site.service.keys[ROOT] = Principal("root", None, frozenset(SCOPES))


async def made(site: ApiSite, key: str = ROOT, tenant: str | None = "acme", **wanted: Any) -> dict[str, Any]:
    query = {} if tenant is None else {"tenant": tenant}
    answer = await site.ask("POST", KEYS, key, {"scopes": ["agent"], **wanted}, **query)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_key_is_shown_once_works_at_once_and_is_listed_without_its_secret(site: ApiSite) -> None:
    site.service.keys["em_mine"] = Principal("k7", "acme", frozenset({"admin", "agent"}))
    answer = await site.ask(
        "POST", KEYS, "em_mine", {"scopes": ["agent"], "name": "ci", "agent": "a-1", "expires_at": "2100-01-01"}
    )
    new = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    principal = site.plane.directory.authenticate(new["key"], NOW)
    assert (principal.key, principal.tenant, principal.agent) == (new["id"], "acme", "a-1")
    listed = await site.ask("GET", KEYS, ADMIN_KEY, after_position=answer.headers["x-emberlog-position"])
    secret = new.pop("key")
    assert listed.json()["keys"] == [new]
    assert secret[-43:] not in listed.text
    assert new["expires_at"] == "2100-01-01T00:00:00Z"
    assert (new["created_by"], new["revoked"]) == ("key:k7", False)
    assert new["created_at"] > "2020"


async def test_a_revoked_key_is_refused_at_once_and_revoking_it_again_changes_nothing(site: ApiSite) -> None:
    new = await made(site)
    for _ in range(2):
        answer = await site.ask("DELETE", f"{KEYS}/{new['id']}", ADMIN_KEY)
        assert (answer.status_code, answer.content) == (204, b"")
    assert not site.plane.directory.valid(new["id"], NOW)
    [listed] = (await site.ask("GET", KEYS, ADMIN_KEY)).json()["keys"]
    assert listed["revoked"] is True
    assert [event.type for event in await site.log.read(0, 10)][-2:] == ["key.created", "key.revoked"]


async def test_no_key_is_made_with_a_scope_its_maker_lacks(site: ApiSite) -> None:
    answer = await site.ask("POST", KEYS, ADMIN_KEY, {"scopes": ["admin", "billing"]})
    assert (answer.status_code, answer.json()["error"]["details"]) == (403, {"field": "scopes", "scope": "billing"})
    operator = await site.ask("POST", KEYS, OPERATOR_KEY, {"scopes": ["agent"]}, tenant="acme")
    assert operator.status_code == 403
    assert site.plane.directory.keys == {}
    assert (await site.ask("POST", KEYS, ADMIN_KEY, {"scopes": ["admin"]})).status_code == 201
    assert (await site.ask("POST", KEYS, OPERATOR_KEY, {"scopes": ["operator"]})).status_code == 201


@pytest.mark.parametrize(
    ("key", "query", "status"),
    [
        (KEY, {}, 403),
        (BILLING_KEY, {}, 403),
        (ADMIN_KEY, {"tenant": "other"}, 403),
        (ADMIN_KEY, {"tenant": "nobody"}, 403),
        (ROOT, {"tenant": "nobody"}, 404),
        ("em_wrong", {}, 401),
    ],
)
async def test_keys_are_for_admins_of_their_tenant(site: ApiSite, key: str, query: dict[str, str], status: int) -> None:
    await made(site)
    assert (await site.ask("GET", KEYS, key, **query)).status_code == status
    assert (await site.ask("POST", KEYS, key, {"scopes": ["agent"]}, **query)).status_code == status
    assert len(site.plane.directory.keys) == 1


async def test_a_tenant_lists_its_own_keys_and_an_operator_whose_it_asks_for(site: ApiSite) -> None:
    mine, theirs, installations = await made(site), await made(site, tenant="other"), await made(site, tenant=None)

    async def ids(key: str, **query: str) -> list[str]:
        return [found["id"] for found in (await site.ask("GET", KEYS, key, **query)).json()["keys"]]

    assert await ids(ADMIN_KEY) == await ids(ADMIN_KEY, tenant="acme") == await ids(ROOT, tenant="acme") == [mine["id"]]
    assert await ids(ROOT) == [mine["id"], theirs["id"], installations["id"]]
    assert await ids(ROOT, page="2", limit="2") == [installations["id"]]


async def test_another_tenants_key_is_as_unknown_as_one_that_never_was(site: ApiSite) -> None:
    theirs = await made(site, tenant="other")
    told = []
    for key_id in (theirs["id"], "0" * 16, "no id at all"):
        for query in ({}, {"expected_version": "7"}):
            answer = await site.ask("DELETE", f"{KEYS}/{key_id}", ADMIN_KEY, **query)
            error = answer.json()["error"]
            told.append((answer.status_code, error["code"], error["message"]))
    assert len(set(told)) == 1
    assert told[0][:2] == (404, "not_found")
    assert site.plane.directory.valid(theirs["id"], NOW)


@pytest.mark.parametrize(
    ("wanted", "fields"),
    [
        ({}, ["scopes"]),
        ({"scopes": []}, ["scopes"]),
        ({"scopes": ["root"]}, ["scopes"]),
        ({"scopes": ["operator"]}, ["scopes"]),
        ({"scopes": "agent"}, ["scopes"]),
        ({"scopes": ["agent"], "name": "", "agent": "x" * 129}, ["name", "agent"]),
        ({"scopes": ["agent"], "expires_at": "2001-01-01"}, ["expires_at"]),
        ({"scopes": ["agent"], "expires_at": "soon"}, ["expires_at"]),
        ({"scopes": ["agent"], "expires_at": "9999-12-31T23:59:59-10:00"}, ["expires_at"]),
        ({"scopes": ["agent"], "expires_at": 7}, ["expires_at"]),
        ({"scopes": ["agent"], "scope": "admin"}, ["scope"]),
    ],
)
async def test_a_key_that_cannot_be_is_refused_by_its_fields(
    site: ApiSite, wanted: dict[str, Any], fields: list[str]
) -> None:
    answer = await site.ask("POST", KEYS, ROOT, wanted, tenant="acme")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_config")
    details = error["details"]
    assert [f["field"] for f in details.get("fields", [details])] == fields
    assert site.plane.directory.keys == {}


async def test_a_decision_that_nobody_took_is_not_written(site: ApiSite) -> None:
    revoked = Decision("acme", "tenant/acme", KeyRevoked(key="0" * 16))
    head = await site.log.head()
    with pytest.raises(AssertionError):
        await site.service.control.run(lambda plane: [revoked], stream=revoked.stream)
    assert await site.log.head() == head


# -- tenants ------------------------------------------------------------------------------------------------------------


async def test_a_tenant_is_made_with_its_key_before_it_and_made_again_is_as_it_was(site: ApiSite) -> None:
    answer = await site.ask("POST", TENANTS, OPERATOR_KEY, {"id": "fresh"})
    assert answer.status_code == 201
    again = await site.ask("POST", TENANTS, OPERATOR_KEY, {"id": "fresh"})
    assert (again.status_code, again.json()) == (200, answer.json())
    assert site.service.tenant_keys == ["fresh"]
    assert (answer.json()["created_by"], answer.json()["shredded_at"]) == ("key:k5", None)
    *_, event = await site.log.read(0, 10)
    assert msgspec.json.decode(event.data) == {"tenant": "fresh", "actor": "key:k5"}
    listed = (await site.ask("GET", TENANTS, OPERATOR_KEY)).json()
    assert [tenant["id"] for tenant in listed["tenants"]] == ["acme", "other", "fresh"]
    assert listed["pagination"]["total"] == 3


async def test_a_shredded_tenant_is_listed_as_such_and_its_name_stays_taken(site: ApiSite) -> None:
    await site.given("other", "tenant/other", TenantShredded(tenant="other"))
    answer = await site.ask("POST", TENANTS, OPERATOR_KEY, {"id": "other"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "resource_constraint")
    assert site.service.tenant_keys == []
    shredded = [t["shredded_at"] is not None for t in (await site.ask("GET", TENANTS, OPERATOR_KEY)).json()["tenants"]]
    assert shredded == [False, True]
    assert (await site.ask("POST", KEYS, ROOT, {"scopes": ["agent"]}, tenant="other")).status_code == 404


@pytest.mark.parametrize("name", ["", "Acme", "_system", "a b", "x" * 64, "ä", "../x", 7, None])
async def test_a_name_that_no_tenant_can_have_is_refused(site: ApiSite, name: object) -> None:
    answer = await site.ask("POST", TENANTS, OPERATOR_KEY, {"id": name})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_config")
    assert site.service.tenant_keys == []


@pytest.mark.parametrize("key", [KEY, ADMIN_KEY, BILLING_KEY])
async def test_tenants_are_for_operators(site: ApiSite, key: str) -> None:
    assert (await site.ask("GET", TENANTS, key)).status_code == 403
    assert (await site.ask("POST", TENANTS, key, {"id": "mine"})).status_code == 403
