"""Which network addresses a setting may name: no link-local or metadata service, no plain http beyond this machine.

Here belongs judging an address as it is written, without asking the network: a name that a name server would turn into
such an address is not recognised. Messages never repeat an address: it may hold a password or a token.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import unicodedata
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote, urlsplit

from schemas.errors import ConfigError

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA_NAMES = {
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
}
_METADATA_ADDRESSES = {
    ipaddress.ip_address(text)
    for text in ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
}
_EMBEDDING = tuple(ipaddress.IPv6Network(text) for text in ("::/96", "64:ff9b::/96"))  # IPv4-compatible, NAT64
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*", re.IGNORECASE)
_ODD = re.compile(r"[\s\\/@\x00-\x1f\x7f]")
_LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")


def check_address(url: str, what: str) -> None:
    """Refuse a URL that names a link-local or metadata address, or goes beyond this machine by plain http.

    Parameters
    ----------
    url : str
        Any URL with an authority: https, s3 endpoint, SQLAlchemy. Addresses in its query (``?host=...``) count too.
    what : str
        The setting that it comes from; named in the message.

    Raises
    ------
    ConfigError
        If it is no URL or names such an address, in whatever notation.

    Examples
    --------
    >>> check_address("https://hooks.example.com/a", "FACTORCUBE_ALERT_WEBHOOK")
    >>> check_address("http://0xA9FEA9FE/latest", "FACTORCUBE_ALERT_WEBHOOK")
    Traceback (most recent call last):
    schemas.errors.ConfigError: FACTORCUBE_ALERT_WEBHOOK: names a link-local or metadata address; name a server instead
    """
    try:
        parts = urlsplit(url)
        hosts = list(_hosts(parts.netloc))
        secure = parts.scheme.lower() != "http"
    except ValueError:
        raise ConfigError(f"{what}: is not a URL; write scheme://host/path") from None
    if not parts.scheme or "://" not in url or any(_ODD.search(host) for host in hosts):
        raise ConfigError(f"{what}: is not a URL; write scheme://host/path")
    for host in hosts:
        if _is_metadata(host):
            raise ConfigError(f"{what}: names a link-local or metadata address; name a server instead")
        if _NUMBER.fullmatch(host) and not _is_canonical(host):
            raise ConfigError(f"{what}: names an address in an unusual notation; write it as four decimal numbers")
        if not secure and not is_loopback(host):
            raise ConfigError(f"{what}: sends over plain http to another machine; use https")
    for _, value in parse_qsl(parts.query):
        if any(_is_metadata(_plain(word)) for word in re.split(r"[^\w.:%-]+|:\d+$", value)):
            raise ConfigError(f"{what}: names a link-local or metadata address; name a server instead")


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine as it is written: ``localhost``, ``127.x.y.z`` or ``::1``.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("localhost.example.com"), is_loopback("0.0.0.0")
    (True, False, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return address in _LOOPBACK if address.version == 4 else str(address) == "::1"


def _hosts(netloc: str) -> Iterator[str]:
    """Give the hosts of an authority; databases may name several, separated by commas."""
    for one in netloc.rpartition("@")[2].split(","):
        host = urlsplit(f"//{one}").hostname
        if host:
            yield _plain(host)


def _plain(host: str) -> str:
    """Return a host as a resolver would see it: decoded, in plain digits, without zone or final dot."""
    text = unicodedata.normalize("NFKC", unquote(host)).replace("\u3002", ".")
    return text.lower().strip("[]").split("%", 1)[0].rstrip(".")


def _is_metadata(host: str) -> bool:
    return host in _METADATA_NAMES or any(
        address.is_link_local or address in _METADATA_ADDRESSES for address in _addresses(host)
    )


def _is_canonical(host: str) -> bool:
    try:
        return str(ipaddress.IPv4Address(host)) == host
    except ValueError:
        return False


def _addresses(host: str) -> Iterator[_Address]:
    """Give the address that a host is, and those that it carries inside."""
    if ":" not in host:
        if _NUMBER.fullmatch(host):
            try:
                yield ipaddress.IPv4Address(socket.inet_aton(host))
            except OSError:
                return
        return
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        yield from _addresses(host.rpartition(":")[0])
        return
    yield address
    inside = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in _EMBEDDING):
        inside.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    yield from (one for one in inside if one is not None)
