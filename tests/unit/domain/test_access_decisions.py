"""Who may make and revoke tenants and keys, and what is told to who may not."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from domain import access_decisions
from domain.access_decisions import decide_create_key, decide_create_tenant, decide_revoke_key
from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import EVENT_TYPES, KeyCreated, KeyRevoked, TenantCreated, TenantShredded
from domain.plane import ControlPlane
from domain.tenancy import SCOPES, IssuedKey, Principal, issue_key

NOW = 1_800_000_000.0
ACTOR = "cli:ada"


@pytest.fixture
def plane() -> ControlPlane:
    made = ControlPlane()
    for tenant in ("acme", "globex", "gone"):
        fold(made, decide_create_tenant(made, tenant, actor=ACTOR))
    fold(made, [Decision("gone", "tenant/gone", TenantShredded(tenant="gone"))])
    return made


def fold(plane: ControlPlane, decisions: list[Decision]) -> None:
    for decision in decisions:
        version = plane.versions.get(decision.stream, 0) + 1
        plane.apply(plane.position + 1, decision.tenant, decision.stream, version, decision.data, at=7)


def wanted(tenant: str | None = "acme", scopes: tuple[str, ...] = ("agent",), **others: Any) -> IssuedKey:
    return issue_key(tenant, list(scopes), actor=ACTOR, **others)


def principal(tenant: str | None, *scopes: str, agent: str | None = None) -> Principal:
    return Principal("k", tenant, frozenset(scopes), agent=agent)


def refusal(plane: ControlPlane, issued: IssuedKey, by: Principal | None = None) -> GatewayError:
    before = dict(plane.directory.keys)
    with pytest.raises(GatewayError) as failed:
        decide_create_key(plane, issued, by=by, now=NOW)
    assert plane.directory.keys == before
    return failed.value


def test_a_tenant_is_made_once_and_its_name_is_not_free_after_it_was_shredded(plane: ControlPlane) -> None:
    [decision] = decide_create_tenant(plane, "new", actor=ACTOR)
    assert decision == Decision("new", "tenant/new", TenantCreated(tenant="new", actor=ACTOR))
    assert decide_create_tenant(plane, "acme", actor=ACTOR) == []
    with pytest.raises(GatewayError, match="its name stays taken") as failed:
        decide_create_tenant(plane, "gone", actor=ACTOR)
    assert failed.value.code == "resource_constraint"
    with pytest.raises(GatewayError, match="tenant name"):
        decide_create_tenant(plane, "_system", actor=ACTOR)


@pytest.mark.parametrize(("tenant", "stream", "of"), [("acme", "tenant/acme", "acme"), (None, "system", "_system")])
def test_a_key_is_recorded_in_the_stream_of_whose_it_is(
    plane: ControlPlane, tenant: str | None, stream: str, of: str
) -> None:
    issued = wanted(tenant)
    assert decide_create_key(plane, issued, by=None, now=NOW) == [Decision(of, stream, issued.event)]
    assert issued.event.actor == ACTOR
    assert issued.token[-43:] not in str(issued.event)  # the secret, which may have a `_` itself


def test_no_credential_makes_a_key_with_a_scope_it_lacks(plane: ControlPlane) -> None:
    """Every set of scopes against every set of scopes, of a tenant's credential and of the installation's."""
    sets = [frozenset(c) for size in range(1, 5) for c in combinations(SCOPES, size)]
    tried = 0
    for tenant in ("acme", None):
        for has in sets:
            for asks in sets:
                if tenant is not None and "operator" in asks | has:
                    continue
                by, issued = principal(tenant, *has), wanted(tenant, tuple(asks))
                if asks <= has:
                    assert decide_create_key(plane, issued, by=by, now=NOW)
                else:
                    error = refusal(plane, issued, by)
                    assert (error.code, error.details) == (
                        "forbidden",
                        {"field": "scopes", "scope": min(asks - has)},
                    )
                    tried += 1
    assert tried > 100


def test_a_tenants_credential_makes_keys_of_its_tenant_alone(plane: ControlPlane) -> None:
    mine = principal("acme", "admin", "agent", "billing")
    assert refusal(plane, wanted("globex"), mine).code == "forbidden"
    assert refusal(plane, wanted(None), mine).code == "forbidden"
    assert refusal(plane, wanted("nobody"), mine).code == "forbidden", "whether a tenant exists is not for it to learn"
    installation = principal(None, "operator", "agent")
    assert decide_create_key(plane, wanted("globex"), by=installation, now=NOW)
    assert decide_create_key(plane, wanted(None), by=installation, now=NOW)


def test_a_credential_of_one_agent_makes_keys_of_that_agent_alone(plane: ControlPlane) -> None:
    bound = principal("acme", "admin", "agent", agent="a-1")
    assert decide_create_key(plane, wanted(agent="a-1"), by=bound, now=NOW)
    assert refusal(plane, wanted(), bound).details == {"field": "agent"}
    assert refusal(plane, wanted(agent="a-2"), bound).details == {"field": "agent"}
    assert decide_create_key(plane, wanted(agent="a-2"), by=principal("acme", "admin", "agent"), now=NOW)


@pytest.mark.parametrize(
    ("others", "field"),
    [
        ({"expires_at": int(NOW)}, "expires_at"),
        ({"expires_at": -1}, "expires_at"),
        ({"expires_at": 2**60}, "expires_at"),
        ({"name": ""}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"agent": ""}, "agent"),
        ({"agent": "\0"}, "agent"),
        ({"agent": "\ud800"}, "agent"),
        ({"tenant": None, "agent": "a"}, "agent"),
    ],
)
def test_a_key_that_cannot_be_is_refused_by_the_field(plane: ControlPlane, others: dict[str, Any], field: str) -> None:
    error = refusal(plane, wanted(**others))
    assert error.code == "invalid_config"
    assert error.details is not None
    assert error.details["field"] == field


def test_every_failing_field_is_told(plane: ControlPlane) -> None:
    error = refusal(plane, wanted(None, expires_at=1, name="", agent=""))
    assert error.details is not None
    assert {f["field"] for f in error.details["fields"]} == {"expires_at", "name", "agent"}


@pytest.mark.parametrize("tenant", ["nobody", "gone"])
def test_a_tenant_that_there_is_not_or_not_any_more_gets_no_key(plane: ControlPlane, tenant: str) -> None:
    assert refusal(plane, wanted(tenant)).code == "not_found"
    assert refusal(plane, wanted(tenant), principal(None, "operator", "agent")).code == "not_found"


def test_the_good_keys_of_a_tenant_are_bounded(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_decisions, "MAX_KEYS", 2)
    first, second = wanted(), wanted(expires_at=int(NOW) + 10)
    for issued in (first, second):
        fold(plane, decide_create_key(plane, issued, by=None, now=NOW))
    assert refusal(plane, wanted()).code == "resource_constraint"
    assert decide_create_key(plane, wanted("globex"), by=None, now=NOW), "each tenant for itself"
    assert decide_create_key(plane, wanted(), by=None, now=NOW + 10), "one has expired"
    fold(plane, decide_revoke_key(plane, first.event.key, by=None, actor=ACTOR))
    assert decide_create_key(plane, wanted(), by=None, now=NOW), "one is revoked"


def test_a_new_key_looks_neither_at_the_keys_of_others_nor_at_those_that_are_revoked(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [wanted() for _ in range(4)]
    for issued in (*own, *(wanted(tenant) for tenant in ("globex", "globex", None))):
        fold(plane, decide_create_key(plane, issued, by=None, now=NOW))
    fold(plane, decide_revoke_key(plane, own[0].event.key, by=None, actor=ACTOR))
    looked_at: list[str] = []

    def valid(key: str, now: float) -> bool:
        looked_at.append(key)
        return True

    monkeypatch.setattr(plane.directory, "valid", valid)
    decide_create_key(plane, wanted(), by=None, now=NOW)
    assert looked_at == [issued.event.key for issued in own[1:]]
    assert plane.directory.keys_of["acme"] == [issued.event.key for issued in own]


def test_a_key_is_revoked_once_and_by_its_own_tenant_or_the_installation(plane: ControlPlane) -> None:
    issued = wanted(scopes=("billing",))
    fold(plane, decide_create_key(plane, issued, by=None, now=NOW))
    key = issued.event.key
    for by in (None, principal("acme", "admin"), principal(None, "operator")):
        [decision] = decide_revoke_key(plane, key, by=by, actor=ACTOR)
        assert decision == Decision("acme", "tenant/acme", KeyRevoked(key=key, actor=ACTOR))
    fold(plane, [decision])
    assert decide_revoke_key(plane, key, by=principal("acme", "admin"), actor=ACTOR) == []


def test_another_tenants_key_is_as_unknown_as_one_that_never_was(plane: ControlPlane) -> None:
    theirs, installations = wanted("globex"), wanted(None)
    for issued in (theirs, installations):
        fold(plane, decide_create_key(plane, issued, by=None, now=NOW))
    told = []
    for key in (theirs.event.key, installations.event.key, "0" * 16, theirs.token):
        with pytest.raises(GatewayError) as failed:
            decide_revoke_key(plane, key, by=principal("acme", "admin"), actor=ACTOR)
        told.append((failed.value.code, failed.value.message, failed.value.details))
        assert key not in failed.value.message
    assert len(set(map(str, told))) == 1
    assert told[0][0] == "not_found"


def test_a_key_of_a_shredded_tenant_is_revoked_already(plane: ControlPlane) -> None:
    issued = wanted("globex")
    fold(plane, decide_create_key(plane, issued, by=None, now=NOW))
    fold(plane, [Decision("globex", "tenant/globex", TenantShredded(tenant="globex"))])
    assert decide_revoke_key(plane, issued.event.key, by=None, actor=ACTOR) == []


def test_every_decision_can_say_who_took_it() -> None:
    """What an agent states of itself says so too where somebody else stated it."""
    decisions = [data for data in EVENT_TYPES.values() if data.DECISION]
    assert KeyCreated in decisions
    assert [data.TYPE for data in decisions if "actor" not in data.__struct_fields__] == []
