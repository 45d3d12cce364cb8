"""Collections: one space each, a tenant's own, and what is refused in whose words."""

from __future__ import annotations

from typing import Any

import pytest

from domain.collections import (
    MAX_COLLECTIONS,
    asked_in,
    check_space,
    decide_create_collection,
    decide_delete_collection,
    space_of,
)
from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import CollectionCreated, CollectionDeleted, ModelUpdated, TenantShredded
from domain.plane import ControlPlane
from tests.support.planes import fold, plane_of, registered

ACTOR = "key:1"
SPACE = "tiny@1/8/unit"


def plane() -> ControlPlane:
    return plane_of(
        registered("tiny", unit=True, dimensions_allowed=[4], aliases=["t"]),
        registered("huge", dimensions=5000, unit=True, dimensions_range=(1, 5000)),
        registered("draft", state="draft"),
        registered("talk", type="language_model"),
        tenants=("acme", "other"),
    )


def create(
    at: ControlPlane, name: str = "docs", space: str = SPACE, table: str = "a" * 32, tenant: str = "acme"
) -> Any:
    decisions = decide_create_collection(at, tenant, name, table=table, space=space, actor=ACTOR)
    fold(at, decisions)
    return decisions


def test_a_collection_is_made_once_and_pinned_to_its_space() -> None:
    at = plane()
    assert create(at) == [Decision("acme", "tenant/acme", CollectionCreated("docs", "a" * 32, SPACE, ACTOR))]
    assert create(at, table="b" * 32) == []
    assert at.collections.find("acme", "docs").table == "a" * 32
    assert at.collections.find("acme", "docs").dimensions == 8
    with pytest.raises(GatewayError) as refused:
        create(at, space="tiny@1/4/unit")
    assert refused.value.code == "resource_constraint"
    assert SPACE in refused.value.message
    assert "tiny@1/4/unit" in refused.value.message


@pytest.mark.parametrize(
    ("name", "space", "field"),
    [
        ("Docs", SPACE, "name"),
        ("", SPACE, "name"),
        ("x" * 64, SPACE, "name"),
        ("docs", "tiny", "space"),
        ("docs", "tiny@1/x/unit", "space"),
        ("docs", "tiny@2/8/unit", "space"),
        ("docs", "tiny@1/8/raw", "space"),
        ("docs", "tiny@1/7/unit", "space"),
        ("docs", "nobody@1/8/unit", "space"),
        ("docs", "draft@1/8/raw", "space"),
        ("docs", "talk@1/8/raw", "space"),
        ("docs", "huge@1/5000/unit", "space"),
        ("docs", "huge@1/0/unit", "space"),
    ],
)
def test_what_cannot_be_a_collection_is_refused_by_field(name: str, space: str, field: str) -> None:
    with pytest.raises(GatewayError) as refused:
        create(plane(), name, space)
    assert (refused.value.code, (refused.value.details or {})["field"]) == ("invalid_config", field)


def test_long_vectors_can_be_kept_short_and_types_with_a_space_of_their_own() -> None:
    at = plane()
    assert create(at, "a", "huge@1/4000/unit")
    assert create(at, "b", "tiny@1/8/unit/clustering")
    assert at.collections.find("acme", "b").dimensions == 8


def test_a_model_stands_for_the_space_of_its_vectors() -> None:
    at = plane()
    assert space_of(at, "t", None, None) == space_of(at, "tiny", 8, "query") == SPACE
    assert space_of(at, "tiny", 4, "clustering") == "tiny@1/4/unit/clustering"
    for model in ("nobody", "draft", "talk"):
        with pytest.raises(GatewayError) as refused:
            space_of(at, model, None, None)
        assert refused.value.code == "model_not_found"
    for size, kind in ((7, None), (8, "poem")):
        with pytest.raises(GatewayError) as refused:
            space_of(at, "tiny", size, kind)
        assert refused.value.code == "invalid_config"


def test_a_tenant_finds_its_own_collections_only() -> None:
    at = plane()
    create(at)
    create(at, space="tiny@1/4/unit", table="b" * 32, tenant="other")
    assert [c.space for c in at.collections.of("acme")] == [SPACE]
    create(at, "more", table="c" * 32)
    with pytest.raises(GatewayError) as theirs:
        at.collections.find("other", "more")
    with pytest.raises(GatewayError) as nobodys:
        at.collections.find("other", "less")
    assert theirs.value.message.replace("more", "less") == nobodys.value.message
    fold(at, [Decision("acme", "tenant/acme", TenantShredded("acme"))])
    assert at.collections.of("acme") == []
    assert [c.tenant for c in at.collections] == ["other"]


def test_one_made_again_is_another_whose_end_is_not_that_of_the_first() -> None:
    at = plane()
    create(at)
    [deleted] = decide_delete_collection(at, "acme", "docs", actor=ACTOR)
    assert deleted.data == CollectionDeleted("docs", "a" * 32, ACTOR)
    fold(at, [deleted])
    with pytest.raises(GatewayError):
        decide_delete_collection(at, "acme", "docs", actor=ACTOR)
    create(at, table="b" * 32)
    fold(at, [deleted])
    assert at.collections.find("acme", "docs").table == "b" * 32


def test_a_tenant_has_so_many_and_no_more() -> None:
    at = plane()
    for n in range(MAX_COLLECTIONS):
        at.collections.apply("acme", CollectionCreated(f"c{n}", f"{n:032x}", SPACE))
    with pytest.raises(GatewayError) as refused:
        create(at)
    assert refused.value.code == "resource_constraint"
    assert create(at, "c7") == [], "what is there already is no more"
    assert create(at, tenant="other")


def test_texts_are_embedded_by_the_model_of_the_collection_and_another_version_is_refused_with_both_spaces() -> None:
    at = plane()
    create(at)
    create(at, "groups", "tiny@1/8/unit/clustering", "b" * 32)
    docs = at.collections.find("acme", "docs")
    assert asked_in(at, docs) == ("tiny", "query")
    assert asked_in(at, at.collections.find("acme", "groups")) == ("tiny", "clustering")
    check_space(docs, SPACE, "this", "store.collection")
    newer = registered("tiny", unit=True, version="2")
    fold(at, [Decision("_system", "model/tiny", ModelUpdated("tiny", newer.spec, newer.offerings, origin="shipped"))])
    with pytest.raises(GatewayError) as refused:
        asked_in(at, docs)
    assert refused.value.code == "invalid_request"
    assert SPACE in refused.value.message
    assert "tiny@2/8/unit" in refused.value.message
