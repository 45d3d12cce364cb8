"""Fingerprints tell nothing to whoever has not the tenant's key."""

from __future__ import annotations

import pytest

from domain.fingerprint import DIGEST_SIZE, body_fingerprint, printable, text_fingerprint
from tests.support.dictionary import attack, keys_in, unprinted

KEY = bytes(range(7, 39))
OTHER_KEY = bytes(range(8, 40))
TEXT = "password"
DICTIONARY = ["123456", TEXT, "qwerty", "the patient has diabetes"]
OPTIONS = b'["m",null]'
SPACE = "m@1/64/unit"
DATABASE = {
    "emberlog.events": '(1,018f2e6b-7c1f-7e54-9f3b-6a0e4c1d2b3a,acme,"{""agent"": ""indexer""}","\\\\x00ff00ff")',
    "emberlog.tenant_keys": f"(acme,\\x{bytes(60).hex()})",
}


def _fingerprints(key: bytes) -> set[bytes]:
    return {body_fingerprint(key, OPTIONS, [TEXT]), text_fingerprint(key, SPACE, None, TEXT)}


def _found(fingerprints: set[bytes], keys: set[bytes]) -> set[str]:
    return attack(fingerprints, DICTIONARY, [OPTIONS], [SPACE], keys)


def test_a_dictionary_with_the_right_text_finds_nothing_without_the_tenants_key() -> None:
    keys = keys_in(DATABASE, ["acme", "default"])
    assert {b"acme", b"", bytes(32), bytes.fromhex("018f2e6b7c1f7e549f3b6a0e4c1d2b3a")} <= keys
    assert _found(_fingerprints(KEY), keys) == set()
    assert _found(_fingerprints(KEY), {OTHER_KEY}) == set()


def test_the_same_dictionary_finds_it_with_the_key() -> None:
    assert _found(_fingerprints(KEY), {KEY}) == {TEXT}
    for fingerprint in _fingerprints(KEY):
        assert _found({fingerprint}, {KEY}) == {TEXT}


@pytest.mark.parametrize("bad", [b"", bytes(32), b"acme", b"acme".ljust(32, b"\0"), bytes(60)])
def test_a_key_that_can_be_guessed_is_guessed(bad: bytes) -> None:
    assert _found(_fingerprints(bad), keys_in(DATABASE)) == {TEXT}


def test_a_fingerprint_as_printed_is_the_fingerprint() -> None:
    fingerprint = body_fingerprint(KEY, OPTIONS, [TEXT])
    assert len(fingerprint) == DIGEST_SIZE
    assert unprinted(printable(fingerprint)) == fingerprint
