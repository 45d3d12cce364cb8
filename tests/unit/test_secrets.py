"""Keys at rest."""

import os
import stat
from pathlib import Path

import pytest

from gateway.secrets import MasterKey, SecretKeyError, new_tenant_key, open_metadata, seal_metadata


def test_a_made_key_file_is_private_and_is_read_back_the_same(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "secret.key"
    first = MasterKey.load(path, create=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    wrapped = first.wrap("acme", key := new_tenant_key())
    assert MasterKey.load(path, create=True).unwrap("acme", wrapped) == key


def test_without_create_a_missing_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SecretKeyError, match="EMBERLOG_SECRET_KEY_FILE"):
        MasterKey.load(tmp_path / "absent", create=False)


@pytest.mark.parametrize("content", [b"not base64!", b"c2hvcnQ=", b""])
def test_a_damaged_key_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret.key"
    path.write_bytes(content)
    with pytest.raises(SecretKeyError, match="32"):
        MasterKey.load(path, create=False)


def test_a_tenant_key_opens_neither_for_another_tenant_nor_with_another_installation_key() -> None:
    one, other = MasterKey(os.urandom(32)), MasterKey(os.urandom(32))
    wrapped = one.wrap("acme", new_tenant_key())
    with pytest.raises(SecretKeyError):
        one.unwrap("globex", wrapped)
    with pytest.raises(SecretKeyError):
        other.unwrap("acme", wrapped)


def test_metadata_survives_sealing_and_says_nothing_without_the_key() -> None:
    key = new_tenant_key()
    sealed = seal_metadata(key, b'{"project":"apollo"}')
    assert "apollo" not in sealed
    assert open_metadata(key, sealed) == b'{"project":"apollo"}'
    with pytest.raises(SecretKeyError):
        open_metadata(new_tenant_key(), sealed)


def test_the_key_is_masked_in_repr() -> None:
    assert repr(MasterKey(b"k" * 32)) == "MasterKey(***)"
