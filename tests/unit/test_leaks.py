"""The search for secrets finds each form in which one can hide, and nothing where there is none."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.leaks import leaks, of_keys, of_texts, of_vectors

TEXT = "quvex brolnik zatumar 'ffel"
KEY = bytes(range(100, 132))
VECTOR = np.linspace(-0.9, 0.9, 64, dtype=np.float32)
OTHERS = "the quick brown fox, 0.25, " + bytes(range(32)).hex() + b64encode(bytes(range(40, 80))).decode()


@pytest.mark.parametrize(
    "hidden",
    [
        f"input was {TEXT}!",
        TEXT.upper(),
        TEXT[7:19],
        TEXT.encode().hex(),
        b64encode(TEXT.encode()).decode(),
        json.dumps({"message": TEXT[:15]}),
    ],
)
def test_a_text_is_found(hidden: str) -> None:
    assert leaks({"a": OTHERS, "b": OTHERS + hidden}, of_texts({"the text": TEXT}))
    assert {leak.split(" is in ")[1][0] for leak in leaks({"a": OTHERS, "b": hidden}, of_texts({"t": TEXT}))} == {"b"}


def test_less_than_twelve_characters_and_other_content_are_no_leak() -> None:
    needles = [*of_texts({"t": TEXT}), *of_keys({"k": KEY}), *of_vectors({"v": VECTOR})]
    assert leaks({"a": OTHERS + TEXT[3:14]}, needles) == []


@given(
    before=st.binary(max_size=7), after=st.binary(max_size=7), encode=st.sampled_from([b64encode, urlsafe_b64encode])
)
def test_a_key_is_found_in_base64_wherever_it_begins(
    before: bytes, after: bytes, encode: Callable[[bytes], bytes]
) -> None:
    assert leaks({"a": encode(before + KEY + after).decode()}, of_keys({"k": KEY})) == ["k is in a (base64)"]


@pytest.mark.parametrize(
    "hidden",
    [
        VECTOR.tobytes().hex().upper(),
        b64encode(VECTOR.tobytes()).decode(),
        VECTOR.astype(">f4").tobytes().hex(),
        b64encode(VECTOR.astype("<f2").tobytes()).decode(),
        json.dumps(VECTOR.tolist()),
        str(VECTOR[:3]),
    ],
)
def test_a_vector_is_found(hidden: str) -> None:
    assert leaks({"a": hidden}, of_vectors({"v": VECTOR}))
