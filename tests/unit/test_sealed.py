"""Sealed metadata as it is shown."""

import pytest

from gateway.sealed import SHREDDED, open_metadata
from gateway.secrets import SecretKeyError, new_tenant_key, seal_metadata

KEY = new_tenant_key()
DATA = b'{"request_id":"r","metadata":"%s"}' % seal_metadata(KEY, b'{"project":"apollo"}').encode()


def test_metadata_is_opened_with_its_tenants_key() -> None:
    assert open_metadata("acme", DATA, {"acme": KEY}) == {"project": "apollo"}
    assert open_metadata("acme", b'{"request_id":"r"}', {"acme": KEY}) is None


def test_metadata_of_a_tenant_without_a_key_is_said_to_be_shredded() -> None:
    assert open_metadata("acme", DATA, {"globex": KEY}) == SHREDDED
    assert open_metadata("acme", b'{"request_id":"r"}', {}) is None


def test_metadata_sealed_with_another_key_is_refused() -> None:
    with pytest.raises(SecretKeyError):
        open_metadata("acme", DATA, {"acme": new_tenant_key()})
