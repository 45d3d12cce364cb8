"""The route that attests a model's endpoints: for operators, and as it was ordered."""

from __future__ import annotations

from tests.support.api import ApiSite
from tests.unit.wire.fake_service import ADMIN_KEY, OPERATOR_KEY

PATH = "/api/v1/models/m/attest"


async def test_an_operator_has_a_models_endpoints_attested_and_is_told_what_was_found(site: ApiSite) -> None:
    answer = await site.ask("POST", PATH, OPERATOR_KEY, {})
    assert answer.status_code == 200
    [found] = answer.json()["attestations"]
    assert (found["endpoint"], found["space"], found["passed"], found["failure"]) == ("main", "m@1/8/unit", True, None)
    await site.ask("POST", PATH, OPERATOR_KEY, {"endpoint": "eu", "new_references": True})
    assert [(m, e, new) for m, _, e, new in site.service.attested] == [("m", None, False), ("m", "eu", True)]
    assert all(actor.startswith("key:") for _, actor, _, _ in site.service.attested)


async def test_nobody_else_has_anything_attested(site: ApiSite) -> None:
    assert (await site.ask("POST", PATH, ADMIN_KEY, {})).status_code == 403
    assert (await site.ask("POST", PATH, OPERATOR_KEY, {"new_reference": True})).status_code == 400
    assert site.service.attested == []
