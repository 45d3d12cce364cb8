"""The guard: nothing but public addresses, however they are written, and the address judged is the one connected to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.webhooks.guard import Forbidden, allowed, public, reachable
from domain.webhook_url import Address

PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
INNER = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.0.9", "169.254.169.254", "172.31.0.1", "192.168.1.1", "192.0.0.192",
    "198.18.0.1", "203.0.113.5", "224.0.0.1", "239.255.255.250", "255.255.255.255", "100.100.100.200", "168.63.129.16",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "2002:7f00:1::",
    "2001::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1", "100::1", "3fff::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_passes(address: str) -> None:
    assert public(address)
    assert allowed(address)


@pytest.mark.parametrize("address", INNER)
def test_an_inner_address_does_not_pass(address: str) -> None:
    assert not public(address)
    assert not allowed(address)


@pytest.mark.parametrize("address", ["10.1.2.3", "127.0.0.1", "::1", "fd12::1", "192.168.1.1", "::ffff:10.0.0.1"])
def test_private_networks_pass_where_they_are_allowed(address: str) -> None:
    assert allowed(address, allow_private=True)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "fd00:ec2::254",
        "100.100.100.200",
        "fe80::1",
        "224.0.0.1",
        "0.0.0.0",
        "::ffff:169.254.169.254",
        "168.63.129.16",
    ],
)
def test_services_of_the_host_never_pass(address: str) -> None:
    assert not allowed(address, allow_private=True)


@pytest.mark.parametrize(
    ("address", "passes"), [("127.0.0.1", True), ("::1", True), ("10.0.0.1", False), ("8.8.8.8", False)]
)
def test_without_tls_only_this_machine_is_reached(address: str, passes: bool) -> None:
    assert allowed(address, scheme="http", allow_private=True) is passes
    assert not allowed(address, scheme="http")


@given(st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address))
def test_what_python_calls_inner_does_not_pass(address: IPv4Address | IPv6Address) -> None:
    if public(str(address)):
        inner = ip_address(str(address))
        mapped = getattr(inner, "ipv4_mapped", None)
        assert (mapped or inner).is_global or inner in ip_network("64:ff9b::/96")
        assert not (mapped or inner).is_multicast


async def resolving(*answers: str) -> list[str]:
    async def resolve(_: str, __: int) -> list[str]:
        return list(answers)

    return await reachable(Address("https", "example.com", 443, "/"), allow_private=False, resolve=resolve)


async def test_a_name_is_reached_at_all_its_addresses() -> None:
    assert await resolving("8.8.8.8", "1.1.1.1") == ["8.8.8.8", "1.1.1.1"]


async def test_one_inner_address_among_public_ones_is_enough_to_refuse() -> None:
    with pytest.raises(Forbidden, match="public addresses only"):
        await resolving("8.8.8.8", "127.0.0.1")


async def test_the_refusal_names_no_address() -> None:
    with pytest.raises(Forbidden) as caught:
        await resolving("10.20.30.40")
    assert "10.20" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "169.254.169.254"])
async def test_an_address_in_the_url_is_judged_without_a_resolver(host: str) -> None:
    with pytest.raises(Forbidden):
        await reachable(Address("https", host, 443, "/"), allow_private=False)


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f000001", "localhost"])
async def test_other_ways_to_write_an_address_are_judged_by_what_they_resolve_to(host: str) -> None:
    with pytest.raises((Forbidden, OSError)):
        await reachable(Address("https", host, 443, "/"), allow_private=False)
