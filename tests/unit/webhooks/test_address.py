"""Addresses of webhooks: taken apart one way, refused with what was wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.webhook_url import Address, BadAddress, parse_address


def test_an_address_is_taken_apart() -> None:
    assert parse_address("https://Hooks.Example.com/a/b?c=d") == Address("https", "hooks.example.com", 443, "/a/b?c=d")
    assert parse_address("HTTPS://example.com:8443") == Address("https", "example.com", 8443, "/")
    assert parse_address("https://[2606:4700::1111]/x") == Address("https", "2606:4700::1111", 443, "/x")
    assert parse_address("https://192.0.2.1/") == Address("https", "192.0.2.1", 443, "/")
    assert parse_address("https://example.com?x") == Address("https", "example.com", 443, "/?x")


def test_the_host_header_has_a_port_only_where_it_is_not_the_schemes_own() -> None:
    assert parse_address("https://example.com:443/").authority == "example.com"
    assert parse_address("https://[2606:4700::1111]:8443/").authority == "[2606:4700::1111]:8443"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.com/", "https://"),
        ("ftp://example.com/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("example.com", "no URL"),
        ("https://", "names no host"),
        ("https:///x", "names no host"),
        ("https://user:pass@example.com/", "user or a password"),
        ("https://example.com@127.0.0.1/", "user or a password"),
        ("https://example.com/#x", "fragment"),
        ("https://example.com:22/", "port 22"),
        ("https://example.com:80/", "port 80"),
        ("https://example.com:0/", "port 0"),
        ("https://example.com:70000/", "port 70000"),
        ("https://example.com:x/", "no host, or a port"),
        ("https://exa mple.com/", "blank"),
        ("https://example.com/\r\nx: y", "control character"),
        ("https://exämple.com/", "outside ASCII"),
        ("https://example.com\\@127.0.0.1/", "no URL"),
        ("https://-example.com/", "names no host"),
        ("https://2130706433/", "uncommon way"),
        ("https://127.1/", "uncommon way"),
        ("https://0x7f.0.0.1/", "uncommon way"),
        ("https://0177.0.0.1/", "uncommon way"),
        ("https://127.0.0.1./", "uncommon way"),
        ("https://256.0.0.1/", "uncommon way"),
        ("https://example.1/", "uncommon way"),
        ("https://" + "a" * 2048, "2056 characters"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(url: str, why: str) -> None:
    with pytest.raises(BadAddress, match=why):
        parse_address(url)


def test_http_and_any_port_pass_where_private_addresses_are_allowed() -> None:
    assert parse_address("http://127.0.0.1:81/x", allow_private=True) == Address("http", "127.0.0.1", 81, "/x")


@given(st.text())
def test_any_text_is_taken_apart_or_refused(text: str) -> None:
    for url in (text, f"https://{text}", f"https://example.com/{text}"):
        try:
            address = parse_address(url)
        except BadAddress:
            continue
        assert address.scheme == "https"
        assert address.target.startswith("/")
        assert not set("@/?# \r\n") & set(address.host)
