"""How many reads are under way: a bound for all of them, and one for each tenant, so that no tenant takes all there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from domain.errors import GatewayError

MAX_READS = 32
MAX_READS_OF_A_TENANT = 8


class Turns:
    """Reads under way by tenant; None is the installation's."""

    def __init__(self, most: int = MAX_READS, most_of_a_tenant: int = MAX_READS_OF_A_TENANT) -> None:
        self._most = most
        self._most_of_a_tenant = most_of_a_tenant
        self._under_way: Counter[str | None] = Counter()

    @contextmanager
    def take(self, tenant: str | None) -> Iterator[None]:
        """A read of this tenant, from entering to leaving. Raises `too_many_in_flight` or `overloaded`."""
        if self._under_way[tenant] >= self._most_of_a_tenant:
            raise GatewayError(
                "too_many_in_flight",
                f"{self._most_of_a_tenant} reads of this key's tenant are under way, the most there can be: wait for one of them",
                retry_after_ms=200,
            )
        if self._under_way.total() >= self._most:
            raise GatewayError("overloaded", "too many reads are under way: try again shortly", retry_after_ms=500)
        self._under_way[tenant] += 1
        try:
            yield
        finally:
            self._under_way[tenant] -= 1
            if not self._under_way[tenant]:
                del self._under_way[tenant]
