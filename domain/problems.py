"""What is wrong with a configuration: every failing field, told at once."""

from __future__ import annotations

from domain.errors import GatewayError


class Problems:
    """Collects problems; `check` refuses if there are any."""

    def __init__(self) -> None:
        self._found: list[tuple[str, str]] = []

    def add(self, field: str, problem: str) -> None:
        """`field` is a dotted path, `problem` says what was wrong and what was expected."""
        self._found.append((field, problem))

    def check(self, what: str) -> None:
        """Raise `invalid_config` about `what`, listing every field in `details.fields`; nothing where all is well."""
        if self._found:
            raise GatewayError(
                "invalid_config",
                f"{what}: " + "; ".join(f"{field}: {problem}" for field, problem in self._found),
                details={
                    "field": self._found[0][0],
                    "fields": [{"field": field, "problem": problem} for field, problem in self._found],
                },
            )
