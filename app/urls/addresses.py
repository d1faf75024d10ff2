"""Which addresses may be dialled.

`ipaddress.is_global` is not enough: Python 3.11 calls 2002::/16, 64:ff9b::/96, ::/96, fec0::/10, 192.0.0.8,
192.88.99.0/24 and multicast global. So: IANA's special-purpose registries, and what clouds serve their machines at.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

GLOBAL_UNICAST = IPv6Network("2000::/3")  # of IPv6, nothing else is anybody's
REFUSED = (
    IPv4Network("0.0.0.0/8"),  # this network
    IPv4Network("10.0.0.0/8"),
    IPv4Network("100.64.0.0/10"),  # shared by a provider's customers
    IPv4Network("127.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),  # link-local: clouds tell a machine its credentials here
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.0.0.0/24"),  # of protocols
    IPv4Network("192.0.2.0/24"),  # documentation
    IPv4Network("192.88.99.0/24"),  # relays of 6to4
    IPv4Network("192.168.0.0/16"),
    IPv4Network("198.18.0.0/15"),  # benchmarks
    IPv4Network("198.51.100.0/24"),  # documentation
    IPv4Network("203.0.113.0/24"),  # documentation
    IPv4Network("224.0.0.0/4"),  # multicast
    IPv4Network("240.0.0.0/4"),  # reserved, and the broadcast address
    IPv4Network("168.63.129.16/32"),  # public by its number, but inside of Azure
    IPv6Network("2001::/23"),  # of protocols; Teredo's are unwrapped
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("3fff::/20"),  # documentation
)
# What the host of an operator's own store may have, besides.
PRIVATE = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("100.64.0.0/10"),
    IPv4Network("127.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv6Network("::1/128"),
    IPv6Network("fc00::/7"),
)
METADATA = (  # of clouds, within those
    IPv4Address("100.100.100.200"),
    IPv6Address("fd00:ec2::254"),
    IPv6Address("fd20:ce::254"),
)
_SIX_TO_FOUR, _NAT64 = IPv6Network("2002::/16"), IPv6Network("64:ff9b::/96")
_TEREDO, _MAPPED = IPv6Network("2001::/32"), IPv6Network("::ffff:0:0/96")


def parsed(text: str) -> Address | None:
    """None: it is no address in the usual form. Those like 127.1 and 0x7f000001 are not usual."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def may_be_dialled(text: str, *, may_be_private: bool) -> bool:
    """Whether it leads to the public internet, or, for a host that may be private, into the operator's network.
    An address with a scope (`fe80::1%eth0`) never does."""
    address = parsed(text)
    if address is None or getattr(address, "scope_id", None) is not None:
        return False
    return all(_is_public(one) or (may_be_private and _is_private(one)) for one in _unwrapped(address))


def _unwrapped(address: Address) -> list[Address]:
    """The IPv4 addresses that one of IPv6 stands for: where packets to it end, or pass."""
    if isinstance(address, IPv4Address):
        return [address]
    number = int(address)
    if address in _MAPPED or address in _NAT64:
        return [IPv4Address(number & 0xFFFFFFFF)]
    if address in _SIX_TO_FOUR:
        return [IPv4Address(number >> 80 & 0xFFFFFFFF)]
    if address in _TEREDO:  # RFC 4380: the server, and the client with its bits turned
        return [IPv4Address(number >> 64 & 0xFFFFFFFF), IPv4Address(~number & 0xFFFFFFFF)]
    return [address]


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST:
        return False
    return not any(address in network for network in REFUSED)


def _is_private(address: Address) -> bool:
    return address not in METADATA and any(address in network for network in PRIVATE)
