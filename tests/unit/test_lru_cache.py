"""The process's vector cache: bounded, oldest out, forgetful after a while."""

from hypothesis import given
from hypothesis import strategies as st

from adapters.memory.vector_cache import OVERHEAD, LruVectorCache


def test_the_least_recently_used_leave_first() -> None:
    cache = LruVectorCache(2 * (4 + OVERHEAD), 60, lambda: 0.0)
    cache.put(b"a", b"aaaa")
    cache.put(b"b", b"bbbb")
    assert cache.get(b"a") == b"aaaa"
    cache.put(b"c", b"cccc")
    assert (cache.get(b"a"), cache.get(b"b"), cache.get(b"c")) == (b"aaaa", None, b"cccc")


def test_entries_are_gone_after_their_time_to_live() -> None:
    now = [0.0]
    cache = LruVectorCache(1000, 10, lambda: now[0])
    cache.put(b"a", b"x")
    now[0] = 10.0
    assert cache.get(b"a") == b"x"
    now[0] = 10.1
    assert cache.get(b"a") is None
    assert (len(cache), cache.bytes) == (0, 0)


def test_a_vector_larger_than_the_cache_is_not_kept_and_evicts_nothing() -> None:
    cache = LruVectorCache(500, 10, lambda: 0.0)
    cache.put(b"a", b"x")
    cache.put(b"b", b"y" * 500)
    assert cache.get(b"a") == b"x"


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 300))), st.integers(0, 2000))
def test_its_bytes_never_pass_the_bound_and_are_counted_exactly(puts: list[tuple[int, int]], bound: int) -> None:
    cache = LruVectorCache(bound, 10, lambda: 0.0)
    for key, size in puts:
        cache.put(bytes([key]), b"v" * size)
        assert cache.bytes <= bound
    held = [value for key in range(21) if (value := cache.get(bytes([key]))) is not None]
    assert cache.bytes == sum(len(v) + OVERHEAD for v in held)


def test_a_purge_drops_what_has_the_tag_and_nothing_else() -> None:
    cache = LruVectorCache(10_000, 10, lambda: 0.0)
    for key in (b"tag-1", b"tag-2", b"other", b"ta"):
        cache.put(key, b"x")
    cache.purge(b"tag-")
    assert [cache.get(k) for k in (b"tag-1", b"tag-2", b"other", b"ta")] == [None, None, b"x", b"x"]
    assert cache.bytes == 2 * (1 + OVERHEAD)
