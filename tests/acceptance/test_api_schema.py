"""The management API answers whatever it is sent as its OpenAPI document says, and never with a server's error."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.http.openapi import document
from tests.acceptance.provider import Simulator
from tests.acceptance.site import Site, endpoints_toml
from tests.support.folders import temporary_data_dir, temporary_folder

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
schema = schemathesis.openapi.from_dict(document("test")).include(path_regex=r"^/api/v1/")
_seldom = settings(
    max_examples=8,
    phases=[Phase.generate],
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fuzzed(simulator: Simulator) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """A gateway of its own, whatever becomes of its settings, and a key of each kind."""
    with temporary_folder() as parent, temporary_data_dir(parent):
        site = Site(parent, endpoints_toml(simulator))
        gateway = site.gateway()
        await gateway.start()
        operator = await site.create_key(None, "operator", url=gateway.url)
        assert gateway.key is not None
        yield gateway.url, {"operator": operator.token, "admin": gateway.key}
        assert "Traceback" not in site.log.read_text()
        assert await gateway.stop() == 0


@pytest.mark.parametrize("who", ["admin", "operator"])
@schema.parametrize()
@_seldom
def test_every_answer_is_one_that_is_documented(
    case: schemathesis.Case, who: str, fuzzed: tuple[str, dict[str, str]]
) -> None:
    url, keys = fuzzed
    if who == "operator" and case.query is not None and "tenant" in case.query and len(str(case.query)) % 2:
        case.query["tenant"] = "default"
    answer = case.call(base_url=url, headers={"authorization": f"Bearer {keys[who]}"}, timeout=30)
    case.validate_response(answer, checks=CHECKS)


def test_an_undocumented_answer_is_found() -> None:
    """The control: no operation of the management API documents `default`, which would let everything pass."""
    paths = document("test")["paths"]
    for path, item in paths.items():
        if path.startswith("/api/v1/"):
            for operation in item.values():
                assert "default" not in operation["responses"], path
