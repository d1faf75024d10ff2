"""Which hosts and ports a URL may name, and what an operator may write."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from app.settings import Settings
from app.urls.hosts import Hosts

ALLOWED: dict[str, Any] = {
    "image_urls": "allowed",
    "image_url_hosts": "cdn.example, *.Images.example,store.example:9000,[2606:4700:4700::1111]:8080",
    "image_url_private_hosts": "minio.internal:9000,10.0.0.5,[fd00::5]",
}


def may(host: str, port: int, **settings: Any) -> bool:
    return Hosts(Settings(**(settings or ALLOWED))).why_not(host, port) is None


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("cdn.example", 80),
        ("cdn.example", 443),
        ("cdn.example.", 443),
        ("a.images.example", 443),
        ("a.b.images.example", 443),
        ("store.example", 9000),
        ("2606:4700:4700::1111", 8080),
        ("minio.internal", 9000),
        ("10.0.0.5", 80),
        ("fd00::5", 443),
    ],
)
def test_what_is_listed_is_allowed(host: str, port: int) -> None:
    assert may(host, port)


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("example.org", 443),
        ("cdn.example", 8080),
        ("cdn.example.evil.org", 443),
        ("evilcdn.example", 443),
        ("images.example", 443),
        ("evilimages.example", 443),
        ("store.example", 443),
        ("minio.internal", 80),
        ("10.0.0.6", 80),
        ("93.184.215.14", 443),
    ],
)
def test_others_are_not(host: str, port: int) -> None:
    assert not may(host, port)


def test_any_public_host_at_the_usual_ports() -> None:
    public = {"image_urls": "public", "image_url_hosts": "store.example:9000"}
    assert may("anything.example", 443, **public)
    assert may("93.184.215.14", 80, **public)
    assert may("store.example", 9000, **public)
    assert may("store.example", 443, **public)
    assert not may("anything.example", 9000, **public)
    assert not may("10.0.0.5", 80, **public)
    assert not may("127.1", 80, **public)
    assert not may("a%41.example", 80, **public)
    assert not may("a." * 130 + "example", 80, **public)


def test_a_private_host_is_private_at_its_port_alone() -> None:
    hosts = Hosts(Settings(**(ALLOWED | {"image_urls": "public"})))
    assert hosts.may_be_private("minio.internal", 9000)
    assert not hosts.may_be_private("minio.internal", 80)
    assert not hosts.may_be_private("cdn.example", 80)


@pytest.mark.parametrize(
    "values",
    [
        {"image_urls": "allowed"},
        {"image_urls": "on"},
        {"image_url_hosts": "*"},
        {"image_url_hosts": "*example.org"},
        {"image_url_hosts": "https://example.org"},
        {"image_url_hosts": "example.org/pictures"},
        {"image_url_hosts": "exämple.org"},
        {"image_url_hosts": "example.org:0"},
        {"image_url_hosts": "::1"},
        {"image_url_private_hosts": "*.internal"},
        {"image_url_timeout_seconds": 0},
        {"image_urls": "public", "image_url_proxy": "http://proxy:3128"},
        {"image_urls": "allowed", "image_url_hosts": "a.example", "image_url_proxy": "http://user:secret@proxy:3128"},
        {"image_urls": "allowed", "image_url_hosts": "a.example", "image_url_proxy": "socks5://proxy:1080"},
    ],
)
def test_what_an_operator_may_not_write(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**values)
