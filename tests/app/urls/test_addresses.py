"""Which addresses may be dialled."""

from __future__ import annotations

import pytest

from app.urls.addresses import may_be_dialled

PUBLIC = ("1.1.1.1", "93.184.215.14", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "223.255.255.255")
PUBLIC_6 = (
    "2606:4700:4700::1111",
    "2001:4860:4860::8888",
    "::ffff:1.1.1.1",
    "64:ff9b::101:101",
    "2002:101:101::1",
    "2001:0:101:101::fefe:fefe",  # Teredo: server and client 1.1.1.1
)
PRIVATE = ("10.0.0.1", "127.0.0.1", "127.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1")
PRIVATE_6 = ("::1", "fc00::1", "fd12:3456::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1")
NEVER = (
    "0.0.0.0",  # noqa: S104
    "0.1.2.3",
    "169.254.169.254",
    "169.254.0.1",
    "192.0.0.8",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "100.100.100.200",
    "fd00:ec2::254",
    "fd20:ce::254",
)
NEVER_6 = (
    "::",
    "::127.0.0.1",
    "::2",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",  # translated: RFC 2765
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",  # local NAT64: RFC 8215
    "100::1",
    "2001:1::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:a9fe:a9fe::1",
    "2001:0:a9fe:a9fe::fefe:fefe",  # Teredo by a server at 169.254.169.254
    "2001:0:101:101::5601:5601",  # Teredo's client 169.254.169.254
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700:4700::1111%1",
    "::1%1",
    "fec0::1",
    "ff02::1",
    "127.1",
    "0x7f000001",
    "2130706433",
    "",
    "localhost",
)


@pytest.mark.parametrize("address", [*PUBLIC, *PUBLIC_6])
def test_public_ones_may_be(address: str) -> None:
    assert may_be_dialled(address, may_be_private=False)
    assert may_be_dialled(address, may_be_private=True)


@pytest.mark.parametrize("address", [*PRIVATE, *PRIVATE_6])
def test_private_ones_for_a_host_that_may_be_private(address: str) -> None:
    assert not may_be_dialled(address, may_be_private=False)
    assert may_be_dialled(address, may_be_private=True)


@pytest.mark.parametrize("address", [*NEVER, *NEVER_6])
def test_others_never(address: str) -> None:
    assert not may_be_dialled(address, may_be_private=False)
    assert not may_be_dialled(address, may_be_private=True)
