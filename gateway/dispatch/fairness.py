"""Deficit round robin over tenants and, within a tenant, over its agents; within an agent the earliest deadline first, then first in, first
out.

A text costs the share of a call that it uses up: its tokens, but at least the tokens that one of the call's places stands for. A
tenant with many tiny texts therefore pays for the places it takes, one with long texts for the tokens. One visit is worth a
sixteenth of a call to a tenant and a quarter of that to an agent, so that up to sixteen tenants meet in every call: a text of a
tenant with nothing else queued goes out with the next call, however much another tenant has queued. Requests of one agent mostly share
one deadline length, so that arrival order is deadline order: only texts that come out of that order cost a heap.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from heapq import heappop, heappush

from gateway.dispatch.flights import Flight, Load

_VISITS_PER_CALL = 16
_AGENTS_PER_VISIT = 4


class AgentQueue:
    """The queued texts of one agent with the deadlines by which it asked for them, in the order they came. Those whose deadline is before that
    of a text that came earlier stand in a heap too.
    """

    __slots__ = ("_latest", "_serial", "deficit", "early", "flights", "name", "tenant", "visited")

    def __init__(self, name: str, tenant: TenantQueue) -> None:
        self.name = name
        self.tenant = tenant
        self.flights: OrderedDict[Flight, float] = OrderedDict()
        self.deficit = 0
        self.visited = False
        self._latest = float("-inf")
        self.early: list[tuple[float, int, Flight]] = []
        self._serial = 0

    def put(self, flight: Flight, deadline: float) -> None:
        """Queue a text."""
        if not self.flights:
            self.early.clear()
            self._latest = deadline
        elif deadline >= self._latest:
            self._latest = deadline
        else:
            self._serial += 1
            heappush(self.early, (deadline, self._serial, flight))
        self.flights[flight] = deadline

    def first(self) -> Flight:
        """The text that goes out next. Call only while there are `flights`."""
        flights, early = self.flights, self.early
        flight = next(iter(flights))
        while early and early[0][2] not in flights:
            heappop(early)
        return early[0][2] if early and early[0][0] < flights[flight] else flight


class TenantQueue:
    """The agents of one tenant that have texts queued in a lane. `load` is the tenant's in all lanes together."""

    __slots__ = ("agents", "deficit", "load", "name", "ring", "visited")

    def __init__(self, name: str, load: Load) -> None:
        self.name = name
        self.load = load
        self.agents: dict[str, AgentQueue] = {}
        self.ring: deque[AgentQueue] = deque()
        self.deficit = 0
        self.visited = False


class FairQueue:
    """The queue of a lane. `texts` and `tokens` count what is in it; a text that several agents wait for counts once."""

    def __init__(self, max_inputs: int, max_tokens: int) -> None:
        self.texts = 0
        self.tokens = 0
        self._tenants: dict[str, TenantQueue] = {}
        self._ring: deque[TenantQueue] = deque()
        self.resize(max_inputs, max_tokens)

    def resize(self, max_inputs: int, max_tokens: int, *, alone: int | None = None) -> None:
        """Set the caps of a call, texts and tokens, and from how many tokens on a text goes alone."""
        self.max_inputs = max_inputs
        self.max_tokens = max_tokens
        self.alone = max_tokens + 1 if alone is None else alone
        self._floor = max(1, max_tokens // max_inputs)
        self._quantum = max(max_tokens // _VISITS_PER_CALL, self._floor)
        self._agent_quantum = max(self._quantum // _AGENTS_PER_VISIT, self._floor)

    @property
    def full(self) -> bool:
        """Whether there is enough for a full call."""
        return self.texts >= self.max_inputs or self.tokens >= self.max_tokens

    def queue_of(self, tenant: str, agent: str, load: Load) -> AgentQueue:
        """The agent's queue, ready for `add` (made where there is none)."""
        of_tenant = self._tenants.get(tenant)
        if of_tenant is None:
            of_tenant = self._tenants[tenant] = TenantQueue(tenant, load)
            self._ring.append(of_tenant)
        queue = of_tenant.agents.get(agent)
        if queue is None:
            queue = of_tenant.agents[agent] = AgentQueue(agent, of_tenant)
            of_tenant.ring.append(queue)
        return queue

    def add(self, flight: Flight, deadline: float) -> None:
        """Queue a new text in its home queue."""
        flight.home.put(flight, deadline)
        self.texts += 1
        self.tokens += flight.tokens
        load = flight.home.tenant.load
        load.texts += 1
        load.tokens += flight.tokens

    @staticmethod
    def also(flight: Flight, queue: AgentQueue, deadline: float) -> None:
        """Let a queued text stand in another agent's queue too: it goes out by whichever comes first."""
        if flight not in queue.flights:
            queue.put(flight, deadline)
            if flight.also is None:
                flight.also = []
            flight.also.append(queue)

    def remove(self, flight: Flight) -> None:
        """Take a text out that nobody wants any more."""
        flight.queued = False
        flight.home.flights.pop(flight, None)
        for queue in flight.also or ():
            queue.flights.pop(flight, None)
        self.texts -= 1
        self.tokens -= flight.tokens
        load = flight.home.tenant.load
        load.texts -= 1
        load.tokens -= flight.tokens
        if not self.texts:
            self._tenants.clear()
            self._ring.clear()

    def oldest(self) -> float:
        """When the oldest text was queued. Takes time in proportion to the agents listed: ask while not `full`."""
        return min(next(iter(a.flights)).since for t in self._ring for a in t.ring if a.flights)

    def take(self) -> tuple[list[Flight], int]:
        """The texts of the next call and their tokens, fairly, within the caps; one text over the token cap goes alone."""
        batch: list[Flight] = []
        taken = 0
        ring = self._ring
        full = False
        while ring and not full:
            tenant = ring[0]
            if not tenant.visited:
                tenant.visited = True
                tenant.deficit += self._quantum
            before, before_tokens = len(batch), taken
            taken, full = self._visit(tenant, batch, taken)
            tenant.load.texts -= len(batch) - before
            tenant.load.tokens -= taken - before_tokens
            if not tenant.ring:
                ring.popleft()
                del self._tenants[tenant.name]
            elif not full:
                tenant.visited = False
                ring.rotate(-1)
        self.texts -= len(batch)
        self.tokens -= taken
        return batch, taken

    def _visit(self, tenant: TenantQueue, batch: list[Flight], taken: int) -> tuple[int, bool]:
        """Move texts of a tenant into `batch` until its deficit is used up, it has none left, or the call is full."""
        ring = tenant.ring
        floor, max_inputs, max_tokens, alone = self._floor, self.max_inputs, self.max_tokens, self.alone
        while ring:
            queue = ring[0]
            if not queue.visited:
                queue.visited = True
                queue.deficit += self._agent_quantum
            flights = queue.flights
            while flights:
                flight = queue.first() if queue.early else next(iter(flights))
                tokens = flight.tokens
                cost = floor if tokens < floor else min(tokens, max_tokens)
                over = batch and (len(batch) >= max_inputs or taken + tokens > max_tokens or tokens >= alone)
                if over or cost > tenant.deficit or cost > queue.deficit:
                    if over:
                        return taken, True
                    if cost > tenant.deficit:
                        return taken, False
                    break
                del flights[flight]
                tenant.deficit -= cost
                queue.deficit -= cost
                taken += tokens
                batch.append(flight)
                flight.queued = False
                if flight.also is not None:
                    _leave_others(flight)
                if tokens >= alone:
                    return taken, True
            if flights:
                queue.visited = False
                ring.rotate(-1)
            else:
                ring.popleft()
                del tenant.agents[queue.name]
        return taken, False


def _leave_others(flight: Flight) -> None:
    """A text that was taken from one agent's queue stands in no other any more."""
    flight.home.flights.pop(flight, None)
    for queue in flight.also or ():
        queue.flights.pop(flight, None)
    flight.also = None
