"""Batches that go again after a failed call. Tenants take turns, so that one tenant's many failures hold up nobody else's next try."""

from __future__ import annotations

from collections import OrderedDict, deque

from gateway.dispatch.flights import Batch


class Again:
    """Batches of several tenants together count as a tenant of their own: there are never more of them than any of these has texts."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[Batch]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def append(self, batch: Batch) -> None:
        """Behind the others of its tenant."""
        self._waiting.setdefault(_tenant(batch), deque()).append(batch)

    def next_of_its_tenant(self, batch: Batch) -> None:
        """Before the others of its tenant."""
        self._waiting.setdefault(_tenant(batch), deque()).appendleft(batch)

    def put_back(self, batch: Batch) -> None:
        """It was not sent after all: it is the next again."""
        name = _tenant(batch)
        self._waiting.setdefault(name, deque()).appendleft(batch)
        self._waiting.move_to_end(name, last=False)

    def pop(self) -> Batch:
        """The next one; its tenant's turn comes again after all others'. Call only where there is one."""
        name, batches = next(iter(self._waiting.items()))
        batch = batches.popleft()
        if batches:
            self._waiting.move_to_end(name)
        else:
            del self._waiting[name]
        return batch

    def clear(self) -> list[Batch]:
        """All of them."""
        batches = [b for of_tenant in self._waiting.values() for b in of_tenant]
        self._waiting.clear()
        return batches


def _tenant(batch: Batch) -> str:
    name = batch.flights[0].home.tenant.name if batch.flights else ""
    return name if all(f.home.tenant.name == name for f in batch.flights) else ""
