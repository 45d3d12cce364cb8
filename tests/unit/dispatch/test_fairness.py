from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.dispatch.again import Again
from gateway.dispatch.fairness import FairQueue
from gateway.dispatch.flights import Batch, Flight, Load


def put(
    queue: FairQueue,
    tenant: str,
    agent: str,
    count: int,
    *,
    tokens: int = 10,
    since: float = 0.0,
    deadline: float = 0.0,
) -> list[Flight]:
    loads = _loads.setdefault(id(queue), {})
    load = loads.setdefault(tenant, Load())
    made = []
    for _ in range(count):
        home = queue.queue_of(tenant, agent, load)
        flight = Flight(b"", "x", tokens, since, home, None, 0)
        queue.add(flight, deadline)
        made.append(flight)
    return made


_loads: dict[int, dict[str, Load]] = {}


def tenants(batch: list[Flight]) -> Counter[str]:
    return Counter(f.home.tenant.name for f in batch)


def test_a_single_text_goes_out_with_the_next_call_however_much_another_tenant_has_queued() -> None:
    queue = FairQueue(64, 64_000)
    put(queue, "big", "a", 10_000)
    queue.take()
    put(queue, "small", "a", 1)
    batch, _ = queue.take()
    assert tenants(batch) == {"big": 63, "small": 1}


def test_in_arrival_order_alone_the_single_text_would_wait_for_all_the_others() -> None:
    """Negative control: within one agent the order is arrival, and the same text is in the last call."""
    queue = FairQueue(64, 64_000)
    put(queue, "big", "a", 640)
    (last,) = put(queue, "big", "a", 1)
    calls = 0
    while last.queued:
        queue.take()
        calls += 1
    assert calls == 11


def test_an_agent_with_one_text_is_not_held_up_by_another_agent_of_its_tenant() -> None:
    queue = FairQueue(64, 64_000)
    put(queue, "t", "bulk", 10_000)
    (single,) = put(queue, "t", "single", 1)
    queue.take()
    assert not single.queued


def test_sixteen_busy_tenants_all_meet_in_every_call() -> None:
    queue = FairQueue(64, 64_000)
    for i in range(16):
        put(queue, f"t{i}", "a", 100)
    for _ in range(10):
        batch, _ = queue.take()
        assert len(batch) == 64
        assert len(tenants(batch)) == 16


def test_tenants_share_tokens_where_tokens_are_what_fills_a_call() -> None:
    queue = FairQueue(1000, 10_000)
    put(queue, "long", "a", 1000, tokens=500)
    put(queue, "short", "a", 10_000, tokens=50)
    tokens: Counter[str] = Counter()
    for _ in range(40):
        for flight in queue.take()[0]:
            tokens[flight.home.tenant.name] += flight.tokens
    assert 0.8 < tokens["long"] / tokens["short"] < 1.25


def test_tenants_share_places_where_tiny_texts_fill_a_call_by_their_number() -> None:
    queue = FairQueue(32, 1_000_000)
    put(queue, "tiny", "a", 2_000, tokens=1)
    put(queue, "other", "a", 2_000, tokens=1)
    places: Counter[str] = Counter()
    for _ in range(50):
        places += tenants(queue.take()[0])
    assert abs(places["tiny"] - places["other"]) <= 32


def test_a_call_holds_no_more_texts_or_tokens_than_its_caps_except_for_one_text_alone() -> None:
    queue = FairQueue(10, 100)
    put(queue, "t", "a", 25, tokens=1)
    put(queue, "t", "b", 10, tokens=60)
    put(queue, "u", "a", 3, tokens=101)
    seen = 0
    while queue.texts:
        batch, tokens = queue.take()
        assert batch
        assert len(batch) <= 10
        assert tokens == sum(f.tokens for f in batch)
        assert tokens <= 100 or len(batch) == 1
        seen += len(batch)
    assert seen == 38
    assert queue.tokens == 0


def test_a_text_that_two_agents_wait_for_goes_out_once_by_whichever_comes_first() -> None:
    queue = FairQueue(4, 1000)
    shared = put(queue, "t", "bulk", 100)[-1]
    other = queue.queue_of("t", "quick", Load())
    queue.also(shared, other, 0.0)
    queue.take()
    assert not shared.queued
    rest: list[Flight] = []
    while queue.texts:
        rest += queue.take()[0]
    assert shared not in rest
    assert len(rest) == 96


def test_removed_texts_leave_no_trace_in_the_counters() -> None:
    queue = FairQueue(4, 1000)
    gone = put(queue, "t", "a", 5, tokens=7)
    kept = put(queue, "t", "b", 2, tokens=7)
    for flight in gone:
        queue.remove(flight)
    assert (queue.texts, queue.tokens) == (2, 14)
    assert queue.take() == (kept, 14)
    assert _loads[id(queue)]["t"] == Load() or _loads[id(queue)]["t"].texts == 0


def test_the_oldest_text_is_found_whoever_it_belongs_to() -> None:
    queue = FairQueue(100, 1000)
    put(queue, "t", "a", 2, since=3.0)
    put(queue, "u", "a", 2, since=1.0)
    put(queue, "t", "b", 2, since=2.0)
    assert queue.oldest() == 1.0


@given(st.lists(st.tuples(st.sampled_from([1.0, 2.0, 3.0, 4.0]), st.integers(1, 3)), min_size=1, max_size=20))
def test_an_agents_earliest_deadline_goes_first_and_what_came_first_where_they_are_the_same(
    groups: list[tuple[float, int]],
) -> None:
    queue = FairQueue(4, 1000)
    made: list[tuple[float, Flight]] = []
    for deadline, count in groups:
        made += [(deadline, f) for f in put(queue, "t", "a", count, deadline=deadline)]
    taken: list[Flight] = []
    while queue.texts:
        taken += queue.take()[0]
    assert [id(f) for f in taken] == [id(f) for _, f in sorted(made, key=lambda one: one[0])]


def test_deadlines_in_the_order_of_arrival_need_no_heap() -> None:
    queue = FairQueue(64, 64_000)
    for n in range(1000):
        put(queue, "t", "a", 1, deadline=float(n // 3))
    (tenant,) = queue._tenants.values()
    (agent,) = tenant.agents.values()
    assert agent.early == []


def test_a_hurried_text_that_was_taken_out_is_not_sent() -> None:
    queue = FairQueue(64, 64_000)
    put(queue, "t", "a", 3, deadline=9.0)
    (hurried,) = put(queue, "t", "a", 1, deadline=1.0)
    queue.remove(hurried)
    batch, _ = queue.take()
    assert hurried not in batch
    assert len(batch) == 3


def test_deadlines_of_one_agent_do_not_move_it_ahead_of_others() -> None:
    queue = FairQueue(64, 64_000)
    put(queue, "hurried", "a", 1000, deadline=1.0)
    put(queue, "patient", "a", 1, deadline=99.0)
    assert tenants(queue.take()[0])["patient"] == 1


def test_texts_as_long_as_one_that_was_too_long_go_alone() -> None:
    queue = FairQueue(64, 64_000)
    queue.resize(64, 64_000, alone=50)
    put(queue, "t", "a", 3, tokens=49)
    put(queue, "t", "a", 2, tokens=50)
    put(queue, "t", "b", 2, tokens=1)
    sizes = []
    while queue.texts:
        batch, _ = queue.take()
        assert len(batch) == 1 or all(f.tokens < 50 for f in batch)
        sizes.append(len(batch))
    assert sum(sizes) == 7
    assert len(sizes) <= 5


def batch_of(tenant: str, count: int = 1) -> Batch:
    return Batch(put(FairQueue(64, 64_000), tenant, "a", count))


def test_batches_that_go_again_take_turns_by_tenant() -> None:
    again = Again()
    many = [batch_of("big") for _ in range(100)]
    single = batch_of("small")
    for batch in (*many, single):
        again.append(batch)
    assert [again.pop(), again.pop()] == [many[0], single]
    again.put_back(many[0])
    assert again.pop() is many[0]
    assert again.clear() == many[1:]
    assert not again
