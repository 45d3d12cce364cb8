"""Keys at rest."""

import base64
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


def test_of_several_keys_the_first_one_wraps_and_each_unwraps(tmp_path: Path) -> None:
    old, new = os.urandom(32), os.urandom(32)
    path = tmp_path / "secret.key"
    path.write_bytes(base64.b64encode(new) + b"\r\n" + base64.b64encode(old))
    both, key = MasterKey.load(path, create=False), new_tenant_key()
    assert both.count == 2
    assert MasterKey(new).unwrap("acme", both.wrap("acme", key)) == key
    with pytest.raises(SecretKeyError):
        MasterKey(old).unwrap("acme", both.wrap("acme", key))
    of_before = {"acme": MasterKey(old).wrap("acme", key), "globex": MasterKey(new).wrap("globex", key)}
    assert [both.unwrap(tenant, wrapped) for tenant, wrapped in of_before.items()] == [key, key]
    anew = both.rewrap(of_before)
    assert list(anew) == ["acme"], "what the first key wrapped stays"
    assert MasterKey(new).unwrap("acme", anew["acme"]) == key


def test_a_rotated_file_keeps_its_mode_its_link_and_its_old_keys(tmp_path: Path) -> None:
    path, link = tmp_path / "secret.key", tmp_path / "link"
    first = MasterKey.load(path, create=True)
    link.symlink_to(path)
    second = MasterKey.load(link, create=False).with_new_first()
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == base64.b64encode(second._keys[0]) + b"\n" + base64.b64encode(first._keys[0]) + b"\n"
    assert second.id != first.id
    assert first.reread().count == 2
    assert second.without_older().count == 1
    assert first.reread().id == second.id


def test_a_file_whose_second_line_is_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    path.write_bytes(base64.b64encode(os.urandom(32)) + b"\n" + base64.b64encode(b"short"))
    with pytest.raises(SecretKeyError, match="a key of 5 bytes"):
        MasterKey.load(path, create=False)
