"""Setting rate limits, which buckets a request draws on, and the arithmetic of a bucket."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import rate_buckets
from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import KeyCreated, RateLimitRemoved, RateLimitSet, TenantCreated, TenantShredded
from domain.plane import ControlPlane
from domain.rate_buckets import MAX_PER_MINUTE, SCALE, Claim, drained, fits, remaining, reset_ms, wait_ms
from domain.rate_limits import MAX_LIMITS, buckets_of, decide_remove_rate_limit, decide_set_rate_limit

KEY, FOREIGN = "0123456789abcdef", "fedcba9876543210"
BY: dict[str, Any] = {"operator": True, "actor": "key:one"}


def fold(plane: ControlPlane, decisions: list[Decision]) -> None:
    for decision in decisions:
        version = plane.versions.get(decision.stream, 0) + 1
        plane.apply(plane.position + 1, decision.tenant, decision.stream, version, decision.data)


@pytest.fixture
def plane() -> ControlPlane:
    made = ControlPlane()
    for tenant in ("acme", "globex"):
        fold(made, [Decision(tenant, f"tenant/{tenant}", TenantCreated(tenant=tenant))])
    for tenant, key in (("acme", KEY), ("globex", FOREIGN)):
        fold(
            made, [Decision(tenant, f"tenant/{tenant}", KeyCreated(key=key, hash="", scopes=["agent"], tenant=tenant))]
        )
    return made


def put(plane: ControlPlane, scope: str, subject: str | None = None, **figures: Any) -> None:
    fold(plane, decide_set_rate_limit(plane, "acme", scope=scope, subject=subject, **figures, **BY))


def names(plane: ControlPlane, key: str = "k", agent: str = "a", thread: str | None = "t") -> dict[str, int]:
    limits = plane.rate_limits.of("acme")
    assert limits is not None
    return {bucket.name: bucket.limit for bucket in buckets_of(limits, "acme", key, agent, thread)}


def test_a_tenant_without_limits_has_none_to_look_through(plane: ControlPlane) -> None:
    assert plane.rate_limits.of("acme") is None
    put(plane, "tenant", requests_per_minute=5)
    assert plane.rate_limits.of("acme") is not None
    assert plane.rate_limits.of("globex") is None
    fold(plane, decide_remove_rate_limit(plane, "acme", scope="tenant", **BY))
    assert plane.rate_limits.of("acme") is None


def test_a_request_draws_on_a_bucket_for_each_figure_of_each_scope(plane: ControlPlane) -> None:
    put(plane, "tenant", requests_per_minute=1, tokens_per_minute=2)
    put(plane, "key", requests_per_minute=3)
    put(plane, "agent", tokens_per_minute=4)
    put(plane, "thread", requests_per_minute=5)
    assert names(plane) == {
        "{acme}tenant/requests/": 1,
        "{acme}tenant/tokens/": 2,
        "{acme}key/requests/k": 3,
        "{acme}agent/tokens/a": 4,
        "{acme}thread/requests/t": 5,
    }
    assert "{acme}thread/requests/t" not in names(plane, thread=None)


def test_a_limit_of_its_own_replaces_the_one_for_everybody_whole(plane: ControlPlane) -> None:
    put(plane, "agent", requests_per_minute=10, tokens_per_minute=1000)
    put(plane, "agent", "busy", requests_per_minute=99)
    assert names(plane, agent="busy") == {"{acme}agent/requests/busy": 99}
    assert names(plane, agent="other") == {"{acme}agent/requests/other": 10, "{acme}agent/tokens/other": 1000}
    fold(plane, decide_remove_rate_limit(plane, "acme", scope="agent", subject="busy", **BY))
    assert names(plane, agent="busy") == {"{acme}agent/requests/busy": 10, "{acme}agent/tokens/busy": 1000}


def test_subjects_that_look_like_other_buckets_have_buckets_of_their_own(plane: ControlPlane) -> None:
    for scope in ("key", "agent", "thread"):
        put(plane, scope, requests_per_minute=1, tokens_per_minute=1)
    parts = ["a", "a/tokens/a", "tokens/a", "}a", "{acme}key/requests/a"]
    seen = [name for part in parts for name in names(plane, key=part, agent=part, thread=part)]
    assert len(seen) == len(set(seen)) == 6 * len(parts)


def test_setting_what_is_set_already_and_removing_what_is_not_changes_nothing(plane: ControlPlane) -> None:
    wanted: dict[str, Any] = {"scope": "key", "subject": KEY, "requests_per_minute": 5}
    [decision] = decide_set_rate_limit(plane, "acme", **wanted, **BY)
    assert decision.stream == "tenant/acme"
    assert decision.data == RateLimitSet(scope="key", subject=KEY, requests_per_minute=5, actor="key:one")
    fold(plane, [decision])
    assert decide_set_rate_limit(plane, "acme", **wanted, **{**BY, "actor": "key:two"}) == []
    assert decide_set_rate_limit(plane, "acme", **{**wanted, "requests_per_minute": 6}, **BY) != []
    assert decide_remove_rate_limit(plane, "acme", scope="key", **BY) == []
    [removal] = decide_remove_rate_limit(plane, "acme", scope="key", subject=KEY, **BY)
    assert removal.data == RateLimitRemoved(scope="key", subject=KEY, actor="key:one")


@pytest.mark.parametrize(
    ("wanted", "fields"),
    [
        ({"scope": "team", "requests_per_minute": 1}, ["scope"]),
        ({"scope": "tenant", "subject": "acme", "requests_per_minute": 1}, ["subject"]),
        ({"scope": "agent", "subject": "", "requests_per_minute": 1}, ["subject"]),
        ({"scope": "agent", "subject": "x" * 513, "requests_per_minute": 1}, ["subject"]),
        ({"scope": "thread", "subject": "a\0b", "requests_per_minute": 1}, ["subject"]),
        ({"scope": "thread", "subject": "a\ud800", "requests_per_minute": 1}, ["subject"]),
        ({"scope": "key", "subject": FOREIGN, "requests_per_minute": 1}, ["subject"]),
        ({"scope": "key", "subject": "0" * 16, "requests_per_minute": 1}, ["subject"]),
        ({"scope": "key"}, ["requests_per_minute"]),
        ({"scope": "key", "requests_per_minute": 0}, ["requests_per_minute"]),
        ({"scope": "key", "requests_per_minute": -1}, ["requests_per_minute"]),
        ({"scope": "key", "requests_per_minute": True}, ["requests_per_minute"]),
        ({"scope": "key", "requests_per_minute": float("nan")}, ["requests_per_minute"]),
        ({"scope": "key", "requests_per_minute": 1.0}, ["requests_per_minute"]),
        ({"scope": "key", "requests_per_minute": 10**30}, ["requests_per_minute"]),
        ({"scope": "key", "tokens_per_minute": MAX_PER_MINUTE + 1}, ["tokens_per_minute"]),
        (
            {"scope": "?", "subject": "", "requests_per_minute": 0, "tokens_per_minute": 0},
            ["scope", "subject", "requests_per_minute", "tokens_per_minute"],
        ),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_naming_every_field(
    plane: ControlPlane, wanted: dict[str, Any], fields: list[str]
) -> None:
    with pytest.raises(GatewayError) as refused:
        decide_set_rate_limit(plane, "acme", **wanted, **BY)
    assert refused.value.code == "invalid_config"
    assert refused.value.details is not None
    assert [field["field"] for field in refused.value.details["fields"]] == fields


def test_a_foreign_key_is_told_from_none_by_nobody(plane: ControlPlane) -> None:
    told = []
    for key in (FOREIGN, "0" * 16):
        with pytest.raises(GatewayError) as refused:
            decide_set_rate_limit(plane, "acme", scope="key", subject=key, requests_per_minute=1, **BY)
        told.append(refused.value.message.replace(key, "?"))
    assert told[0] == told[1]


def test_limits_of_no_tenant_or_a_shredded_one_are_refused(plane: ControlPlane) -> None:
    fold(plane, [Decision("globex", "tenant/globex", TenantShredded(tenant="globex"))])
    for tenant in ("nobody", "globex"):
        with pytest.raises(GatewayError) as refused:
            decide_set_rate_limit(plane, tenant, scope="tenant", requests_per_minute=1, **BY)
        assert refused.value.code == "not_found"
        with pytest.raises(GatewayError) as refused:
            decide_remove_rate_limit(plane, tenant, scope="tenant", **BY)
        assert refused.value.code == "not_found"


def test_the_limit_of_a_tenant_is_the_operators_to_set_and_to_remove(plane: ControlPlane) -> None:
    put(plane, "tenant", requests_per_minute=5)
    admin: dict[str, Any] = {"operator": False, "actor": "key:admin"}
    for attempt in (
        lambda: decide_set_rate_limit(plane, "acme", scope="tenant", requests_per_minute=500, **admin),
        lambda: decide_remove_rate_limit(plane, "acme", scope="tenant", **admin),
    ):
        with pytest.raises(GatewayError) as refused:
            attempt()
        assert refused.value.code == "forbidden"
    assert decide_set_rate_limit(plane, "acme", scope="key", requests_per_minute=1, **admin) != []


def test_a_tenant_has_a_bounded_number_of_limits_and_may_change_them_all(plane: ControlPlane) -> None:
    for number in range(MAX_LIMITS):
        data = RateLimitSet(scope="agent", subject=str(number), requests_per_minute=1)
        plane.rate_limits.apply("acme", data)
    with pytest.raises(GatewayError) as refused:
        decide_set_rate_limit(plane, "acme", scope="agent", subject="one more", requests_per_minute=1, **BY)
    assert refused.value.code == "resource_constraint"
    assert decide_set_rate_limit(plane, "acme", scope="agent", subject="7", requests_per_minute=2, **BY) != []


LIMITS = st.integers(1, MAX_PER_MINUTE) | st.integers(1, 100)


@given(LIMITS, st.data())
def test_the_wait_is_the_first_millisecond_at_which_the_claim_fits(limit: int, data: st.DataObject) -> None:
    lacking = data.draw(st.integers(0, limit * SCALE))
    claim = Claim("b", limit, data.draw(st.integers(0, limit)))
    wait = wait_ms(claim, lacking)
    assert fits(claim, drained(lacking, 0, limit, wait))
    assert wait == 0 or not fits(claim, drained(lacking, 0, limit, wait - 1))
    assert wait <= 60_000


@given(LIMITS, st.data())
def test_a_bucket_is_full_when_it_says_and_no_earlier(limit: int, data: st.DataObject) -> None:
    lacking = data.draw(st.integers(0, limit * SCALE))
    reset = reset_ms(limit, lacking)
    assert drained(lacking, 0, limit, reset) == 0
    assert reset == 0 or drained(lacking, 0, limit, reset - 1) > 0
    assert 0 <= remaining(limit, lacking) <= limit


@given(LIMITS, st.lists(st.tuples(st.integers(0, 70_000), st.floats(0, 1)), max_size=40))
def test_over_any_stretch_no_more_is_given_than_a_bucket_and_its_refill(
    limit: int, steps: list[tuple[int, float]]
) -> None:
    lacking = now = given_out = 0
    for pause, share in steps:
        lacking, now = drained(lacking, now, limit, now + pause), now + pause
        claim = Claim("b", limit, int(share * limit))
        if fits(claim, lacking):
            lacking += claim.amount * SCALE
            given_out += claim.amount
        assert 0 <= lacking <= limit * SCALE
        assert given_out * SCALE <= limit * (SCALE + now)


def test_the_bound_above_can_be_broken() -> None:
    """A refill counted twice gives out more than there is."""
    lacking, given_out = 5 * SCALE, 5
    for now in (12_000, 24_000):
        lacking = drained(lacking, 0, 5, now)  # and `at` is not moved on
        while fits(Claim("b", 5, 1), lacking):
            lacking += SCALE
            given_out += 1
    assert given_out * SCALE > 5 * (SCALE + 24_000)


def test_every_part_of_the_largest_bucket_is_a_whole_number_to_lua() -> None:
    largest = rate_buckets.MAX_PER_MINUTE * SCALE
    assert largest < 2**53
    assert float(largest - 1) < float(largest) < float(largest + 1)
