"""What a real provider is asked: the questions of the conformance suite that a service on the internet can answer.

A class of tests subclasses `LiveSuite` and has fixtures `place` and `provider`.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from adapters.providers.local.files import default_store
from adapters.providers.registry import PROVIDERS
from adapters.tokenizers.registry import tokenizer
from domain.ports.provider import EmbedAnswer, Provider, ProviderError, ProviderFault
from tests.live.places import Place

TEXTS = (
    "The lighthouse keeper counts ships at dusk.",
    "Sourdough needs flour, water, salt and patience.",
    "A hash table trades memory for constant look-ups.",
    "The referee added four minutes of injury time.",
)
WRONG_KEY = "sk-wrong-0123456789abcdef"


class LiveSuite:
    async def test_a_check_finds_the_provider_alive_and_our_key_good(self, provider: Provider) -> None:
        await provider.check(30.0)

    async def test_texts_get_in_a_batch_the_vectors_that_they_get_alone_in_the_order_asked(
        self, place: Place, provider: Provider
    ) -> None:
        alone = np.concatenate([await vectors_of(place, provider, text) for text in TEXTS])
        most = min(place.offering.max_inputs, len(TEXTS))
        together = await vectors_of(place, provider, *TEXTS[:most])
        cosines = together @ alone.T
        assert (np.diag(cosines[:, :most]) > 0.999).all()
        assert cosines.argmax(axis=1).tolist() == list(range(most))

    async def test_the_size_is_the_models_own_and_another_where_it_can_be_asked(
        self, place: Place, provider: Provider
    ) -> None:
        answer = await provider.embed(place.call(TEXTS[0]))
        assert answer.vectors.shape == (1, place.spec.dimensions)
        span = place.spec.dimensions_range
        others = list(place.spec.dimensions_allowed) or ([max(256, span[0])] if span else [])
        if place.offering.sends_dimensions:
            for size in others:
                answer = await provider.embed(place.call(TEXTS[0], dimensions=size))
                assert answer.vectors.shape == (1, size)

    async def test_tokens_add_up_and_are_those_that_we_count(self, place: Place, provider: Provider) -> None:
        answer = await provider.embed(place.call(*TEXTS[: place.offering.max_inputs]))
        check_tokens(place, answer)

    async def test_each_input_type_is_taken(self, place: Place, provider: Provider) -> None:
        for input_type in ("query", "document", "classification", "clustering"):
            answer = await provider.embed(place.call(TEXTS[0], input_type=input_type))
            assert answer.vectors.shape == (1, place.spec.dimensions)

    async def test_a_text_over_the_models_limit_is_too_long(self, place: Place, provider: Provider) -> None:
        long = "keeper " * int(
            1.3 * place.spec.max_tokens
        )  # a token each, or two: over one text's limit, within a call's
        with pytest.raises(ProviderError) as caught:
            await provider.embed(place.call(*("short", long)[-place.offering.max_inputs :]))
        assert caught.value.fault is ProviderFault.TOO_LONG, caught.value.detail
        assert caught.value.index in (None, min(place.offering.max_inputs, 2) - 1)
        assert "keeper" not in str(caught.value)
        assert caught.value.__context__ is None

    async def test_a_wrong_key_is_told(self, place: Place) -> None:
        facts = PROVIDERS[place.endpoint.provider]
        if facts.key in ("chain", "none"):
            pytest.skip(f"{place.endpoint.provider} is called without a key of ours")
        provider = place.open(WRONG_KEY)
        try:
            with pytest.raises(ProviderError) as caught:
                await provider.embed(place.call(TEXTS[0]))
            assert caught.value.fault is ProviderFault.AUTHENTICATION, caught.value.detail
            assert WRONG_KEY not in str(caught.value)
        finally:
            await provider.close()


async def vectors_of(place: Place, provider: Provider, *texts: str) -> NDArray[np.float32]:
    """The texts' vectors, brought to length 1."""
    vectors = (await provider.embed(place.call(*texts))).vectors
    assert np.isfinite(vectors).all()
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def check_tokens(place: Place, answer: EmbedAnswer) -> None:
    """Tokens are none, or positive, and add up; they are ours exactly where the model's tokeniser is."""
    count = len(answer.vectors)
    if answer.text_tokens is not None:
        assert len(answer.text_tokens) == count
        assert answer.tokens == sum(answer.text_tokens)
    if answer.tokens is None:
        return
    assert answer.tokens >= count
    ours = tokenizer(place.spec.tokenizer or "", default_store())
    if ours is not None:
        assert answer.tokens == sum(ours.count(text) for text in TEXTS[:count])
