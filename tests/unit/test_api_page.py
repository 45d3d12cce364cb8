"""The page of the management API says what its table of routes says."""

from __future__ import annotations

from pathlib import Path

import gateway.api_page
from gateway.http.api.table import ROUTES

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_the_page_in_the_repository_is_the_one_that_the_code_makes() -> None:
    assert PAGE.read_text() == gateway.api_page.page(), "run `make docs`"


def test_no_two_routes_share_a_method_and_path_or_a_name() -> None:
    places = [(r.method, path) for r in ROUTES for path in (r.path, *r.aliases)]
    assert len(places) == len(set(places))
    assert len({r.name for r in ROUTES}) == len(ROUTES)
