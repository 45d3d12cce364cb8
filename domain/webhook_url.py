"""The address of a webhook, taken apart once: what is checked here is what is connected to, so nothing can be read in two ways."""

from __future__ import annotations

import re

import msgspec

MAX_LENGTH = 2048
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#\\\s]*)(?P<path>/[^?#\s]*)?(?P<query>\?[^#\s]*)?(?P<fragment>#.*)?"
)
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:@]+)(?::(?P<port>[0-9]{1,5}))?")
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?")
_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)\.?")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")
_PRINTABLE = re.compile(r"[!-~]*")
_DEFAULT_PORTS = {"https": 443, "http": 80}


class Address(msgspec.Struct, frozen=True):
    """Where a webhook's events go. `host` is a name in lower case or an address (IPv6 without brackets), `target` path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The `Host` header: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


class BadAddress(ValueError):
    """The address cannot be used; the message says what was wrong and what was expected."""


def parse_address(url: str, *, allow_private: bool = False) -> Address:
    """Take `url` apart. Raises `BadAddress`.

    Only https, on port 443 or one from 1024 on; with `allow_private` also http (for loopback: that is checked when the name is
    resolved), on any port. No user or password, no fragment.
    """
    if len(url) > MAX_LENGTH:
        raise BadAddress(f"has {len(url)} characters: expected at most {MAX_LENGTH}")
    if not _PRINTABLE.fullmatch(url):
        raise BadAddress(
            "holds a blank, a control character or a letter outside ASCII: write them percent-encoded, or the name in punycode"
        )
    found = _URL.fullmatch(url)
    if found is None:
        raise BadAddress("is no URL: expected one such as https://example.com/hooks")
    scheme = found["scheme"].lower()
    if scheme != "https" and not (scheme == "http" and allow_private):
        raise BadAddress("must begin with https://")
    if "@" in found["authority"]:
        raise BadAddress("holds a user or a password, which would stand in the log: leave them out")
    if found["fragment"] is not None:
        raise BadAddress("has a fragment (#...), which is never sent: leave it out")
    parts = _AUTHORITY.fullmatch(found["authority"])
    if parts is None:
        raise BadAddress("names no host, or a port that is no number")
    host = parts["host"].strip("[]").lower()
    if not parts["host"].startswith("[") and not _NAME.fullmatch(host):
        raise BadAddress("names no host: expected a name such as example.com, or an address")
    if _NUMBER.fullmatch(host) and not _IPV4.fullmatch(host):
        # 2130706433, 127.1 and 0x7f.1 are 127.0.0.1 to some, and names to others.
        raise BadAddress(
            "writes an IPv4 address in an uncommon way: expected four numbers from 0 to 255, such as 192.0.2.1"
        )
    port = _DEFAULT_PORTS[scheme] if parts["port"] is None else int(parts["port"])
    if not 0 < port < 65536 or not (allow_private or port == 443 or port >= 1024):
        raise BadAddress(f"names port {port}: expected 443, or one from 1024 to 65535")
    return Address(scheme, host, port, (found["path"] or "/") + (found["query"] or ""))
