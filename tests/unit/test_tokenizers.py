"""Counts equal those of independent implementations; a truncated text is a prefix that fits and could not be longer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapters.providers.local.files import default_store
from adapters.tokenizers.prefix import settle
from adapters.tokenizers.registry import tokenizer
from domain.ports.tokenizer import Tokenizer
from tests.support import cl100k, minilm


def bpe() -> Tokenizer:
    found = tokenizer("cl100k_base", Path("unused"))
    assert found is not None
    return found


def wordpiece() -> Tokenizer:
    minilm.published()
    found = tokenizer("all-MiniLM-L6-v2", default_store())
    assert found is not None
    return found


UNHURRIED = settings(deadline=None)  # the cores are shared, and the first example loads a vocabulary
BOTH = pytest.mark.parametrize("make", [bpe, wordpiece])

# Letters of several scripts, digits, blanks of every kind, joiners, accents, quotes, emoji: what pre-tokenisers trip over.
AWKWARD = st.text(
    st.sampled_from(
        "aebsdtmlvreAIS'ſ éß\u0301\u0130漢한ไ09٣²\t\n\r\x0b\x1c\x85\xa0\u2003\u200b\u3000.,!-_/<|>🙂👩\u200d"
    )
)
PLAIN = st.text(st.characters(codec="utf-8", max_codepoint=0x2FFF, exclude_categories=["Cn", "Co"]))
PIECES = ["the", " embedding", "gateway's", " 2024", "\n\n", " [SEP]", "<|endoftext|>", "y" * 101]
TEXTS = st.one_of(AWKWARD, PLAIN, st.lists(st.sampled_from(PIECES), max_size=12).map("".join))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("hello world", 2),  # these from the tests of OpenAI's own library
        ("rer", 1),
        ("'rer", 2),
        ("today\n ", 3),
        ("today\n \n", 2),
        ("today\n  \n", 2),
        (" \x850", 4),
        ("👍", 3),
        ("hello <|endoftext|>", 7),
        ("", 0),
    ],
)
def test_openai_counts_are_the_published_ones(text: str, tokens: int) -> None:
    assert bpe().count(text) == tokens


@UNHURRIED
@given(TEXTS)
@example("  \n  \n x")
@example("don'T we'VE 'ſ")
def test_openai_counts_equal_a_plain_implementation_of_the_published_pattern_and_ranks(text: str) -> None:
    assert bpe().count(text) == cl100k.count(text)


@pytest.mark.parametrize("special", ["<|endoftext|>", "<|fim_prefix|>", "<|endofprompt|>"])
def test_the_text_of_a_special_token_is_counted_as_ordinary_text(special: str) -> None:
    assert bpe().count(special) == cl100k.count(special) > 1


@UNHURRIED
@given(st.text(st.characters(codec="utf-8", max_codepoint=0x24F, exclude_categories=["Cn", "Co"]), max_size=60))
@example("naïve café_x don't")
@example("x" * 100 + " " + "x" * 101)
@example("漢字 mixed かな")
def test_wordpiece_counts_equal_a_plain_implementation_over_the_published_vocabulary(text: str) -> None:
    assert wordpiece().count(text) == len(minilm.token_ids(text))


def test_wordpiece_neither_pads_nor_cuts() -> None:
    assert [wordpiece().count(text) for text in ("", "hello", "word " * 1000)] == [2, 3, 1002]


@BOTH
@UNHURRIED
@given(texts=st.lists(TEXTS, max_size=70))
def test_counting_many_is_counting_each(make: Callable[[], Tokenizer], texts: list[str]) -> None:
    assert make().count_many(texts) == [make().count(text) for text in texts]


@BOTH
@UNHURRIED
@given(text=TEXTS, max_tokens=st.integers(0, 40))
@example(text="한국어 텍스트", max_tokens=4)
@example(text="漢字🙂漢字", max_tokens=3)
@example(text=" " * 20_000 + "x y", max_tokens=2)
@example(text="a" * 20 + " \n \n b", max_tokens=5)
def test_a_truncated_text_is_a_prefix_that_fits_and_one_more_character_would_not(
    make: Callable[[], Tokenizer], text: str, max_tokens: int
) -> None:
    subject = make()
    cut = subject.truncate(text, max_tokens)
    assert text.startswith(cut)
    if subject.count("") > max_tokens:
        assert cut == ""
        return
    assert subject.count(cut) <= max_tokens
    assert (cut == text) == (subject.count(text) <= max_tokens)
    if cut != text:
        assert subject.count(text[: len(cut) + 1]) > max_tokens


@BOTH
def test_a_text_at_the_limit_of_the_wire_is_cut_near_its_tokens_end(make: Callable[[], Tokenizer]) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 4444
    cut = make().truncate(text, 250)
    assert make().count(cut) == 250
    assert len(cut) > 1000


@UNHURRIED
@given(st.integers(4500, 5000), st.integers(0, 500))
def test_a_proposal_too_long_is_settled_in_few_counts(proposal: int, limit: int) -> None:
    asked: list[int] = []

    def count(text: str) -> int:  # tokens of ten characters
        asked.append(len(text))
        return -(-len(text) // 10)

    settled = settle(count, "x" * 5000, proposal, limit)
    assert -(-len(settled) // 10) <= limit
    assert sum(-(-end // 10) > limit for end in asked) <= 14


def test_a_count_that_falls_as_the_text_grows_still_gives_a_prefix_that_fits() -> None:
    """Not monotone: "ab" is one token, "a" is two."""
    counts = {"": 0, "a": 2, "ab": 1, "abc": 3}
    assert settle(counts.__getitem__, "abc", 1, 1) == ""
    assert settle(counts.__getitem__, "abc", 2, 1) == "ab"


@BOTH
def test_threads_share_a_tokeniser(make: Callable[[], Tokenizer]) -> None:
    texts = [f"text {n} " * (n % 50) for n in range(400)]
    expected = make().count_many(texts)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(make().count, texts)) == expected


def test_a_tokeniser_is_made_once() -> None:
    assert bpe() is bpe()
    assert wordpiece() is wordpiece()


def test_what_is_not_at_hand_is_none_and_looked_for_again(tmp_path: Path) -> None:
    assert tokenizer("no-such-tokeniser", tmp_path) is None
    assert tokenizer("all-MiniLM-L6-v2", tmp_path) is None
    folder = tmp_path / "all-MiniLM-L6-v2"
    folder.mkdir()
    minilm.copy_to(folder)
    assert tokenizer("all-MiniLM-L6-v2", tmp_path) is not None


@BOTH
def test_a_lone_surrogate_is_an_error_and_never_a_count(make: Callable[[], Tokenizer]) -> None:
    with pytest.raises((UnicodeEncodeError, TypeError)):
        make().count("\ud800")
