"""What is wrong with a configuration: every failing field, told at once."""

from __future__ import annotations

from domain.errors import GatewayError

MOST = 100
"""Problems that are told at once: an answer must not grow with what a client gets wrong."""


class Problems:
    """Collects problems; `check` refuses if there are any."""

    def __init__(self) -> None:
        self._found: list[tuple[str, str]] = []

    @property
    def full(self) -> bool:
        """Whether there are as many already as are told: there is no use in looking for more."""
        return len(self._found) >= MOST

    def add(self, field: str, problem: str) -> None:
        """`field` is a dotted path, `problem` says what was wrong and what was expected. Those after the first hundred are left out."""
        if not self.full:
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
