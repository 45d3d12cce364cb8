"""Query parameters: each known, of its type, within its bounds. A misspelt filter must not answer with what it was to leave out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

from starlette.requests import Request

from domain.errors import GatewayError, invalid_request

LONGEST = 256
"""Characters of one value."""
MOST = 100
"""Values of a list."""


class Query:
    """The parameters of one request. Raises `invalid_request` naming the parameter at fault."""

    def __init__(self, request: Request, known: Collection[str]) -> None:
        values: dict[str, list[str]] = {}
        for name, value in request.query_params.multi_items():
            values.setdefault(name, []).append(value)
        self._values: Mapping[str, Sequence[str]] = values
        for name in self._values:
            if name not in known:
                expected = f"some of {', '.join(known)}" if known else "none"
                raise invalid_request(f"there is no parameter {name[:40]!r} here: expected {expected}", name[:40])

    def text(self, name: str) -> str | None:
        """One value; None where it is absent or empty."""
        values = self._values.get(name, ())
        if len(values) > 1:
            raise invalid_request(f"`{name}` is given {len(values)} times: give it once", name)
        if not values or not values[0]:
            return None
        return _checked(name, values[0])

    def choice(self, name: str, options: Collection[str], default: str) -> str:
        """One of `options`."""
        value = self.text(name) or default
        if value not in options:
            raise invalid_request(f"`{name}`: expected one of {', '.join(options)}", name)
        return value

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number from `least` to `most`."""
        value = self.text(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and len(value) < 19 and least <= int(value) <= most):
            raise invalid_request(f"`{name}`: expected a whole number from {least} to {most}", name)
        return int(value)

    def names(self, name: str) -> frozenset[str] | None:
        """Values separated by commas; None where there is none."""
        parts = [part for value in self._values.get(name, ()) for part in value.split(",") if part]
        if len(parts) > MOST:
            raise invalid_request(f"`{name}`: expected at most {MOST} values", name)
        return frozenset(_checked(name, part) for part in parts) or None

    def time(self, name: str) -> datetime | None:
        """A point in time from ISO 8601, UTC where no offset is given."""
        value = self.text(name)
        if value is None:
            return None
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            time = None
        if time is None or not 1970 <= time.year <= 9000:
            raise invalid_request(
                f"`{name}`: expected ISO 8601, for example 2026-01-31 or 2026-01-31T12:00:00Z (a + as %2B)", name
            )
        return time if time.tzinfo else time.replace(tzinfo=UTC)


def _checked(name: str, value: str) -> str:
    if len(value) > LONGEST:
        raise invalid_request(f"`{name}`: expected at most {LONGEST} characters a value", name)
    if "\0" in value:
        raise GatewayError(
            "invalid_message", f"`{name}` holds a NUL character, which no string may", details={"field": name}
        )
    return value
