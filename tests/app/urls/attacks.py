"""URLs that must not be fetched, or not to their end, and what each is answered: for `tests` and `make prove-urls`."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote

REFUSED, FAILED, SLOW = (422, "image-url"), (502, "image-host"), (504, "image-slow")
TOO_LARGE, UNSUPPORTED, SERVED = (413, "image-too-large"), (415, "unsupported-media"), (200, "")


class Attack(NamedTuple):
    name: str
    url: str
    answers: tuple[tuple[int, str], ...]  # any of them


def _to(url: str) -> str:
    return f"http://good.example/to?{quote(url, safe='')}"


def _attacks(*lines: tuple[str, str], answer: tuple[int, str] = REFUSED) -> list[Attack]:
    return [Attack(name, url, (answer,)) for name, url in lines]


ADDRESSES = _attacks(
    ("loopback", "http://127.0.0.1/"),
    ("loopback, short", "http://127.1/"),
    ("loopback, decimal", "http://2130706433/"),
    ("loopback, hexadecimal", "http://0x7f.1/"),
    ("loopback, octal", "http://0177.0.0.1/"),
    ("loopback, wide dots", "http://127。0。0。1/"),
    ("loopback, percent-encoded", "http://%31%32%37.0.0.1/"),
    ("this host", "http://0.0.0.0/"),
    ("this host, short", "http://0/"),
    ("loopback of IPv6", "http://[::1]/"),
    ("metadata", "http://169.254.169.254/latest/meta-data/"),
    ("metadata, mapped", "http://[::ffff:169.254.169.254]/"),
    ("metadata, mapped in hexadecimal", "http://[::ffff:a9fe:a9fe]/"),
    ("metadata of IPv6", "http://[fd00:ec2::254]/"),
    ("loopback, compatible", "http://[::127.0.0.1]/"),
    ("loopback by 6to4", "http://[2002:7f00:1::]/"),
    ("loopback by NAT64", "http://[64:ff9b::7f00:1]/"),
    ("loopback by Teredo", "http://[2001:0:5db8:d70e::80ff:fffe]/"),
    ("shared addresses", "http://100.64.0.1/"),
    ("site-local of IPv6", "http://[fec0::1]/"),
    ("link-local with a scope", "http://[fe80::1%25eth0]/"),
    ("multicast", "http://224.0.0.1/"),
    ("broadcast", "http://255.255.255.255/"),
    ("relays of 6to4", "http://192.88.99.1/"),
    ("of protocols", "http://192.0.0.8/"),
    ("Azure's own", "http://168.63.129.16/"),
)
NAMES = _attacks(
    ("a name that has none", "http://nothing.invalid/"),
    ("a name of loopback", "http://loopback.example/"),
    ("a name of the inner network", "http://inner.example/"),
    ("a name of the inner network, IPv6", "http://inner6.example/"),
    ("a name of a mapped address", "http://mapped.example/"),
    ("a name of an address with a scope", "http://scoped.example/"),
    ("a name of metadata", "https://metadata.example/"),
    ("a name with a good address and a bad one", "http://mixed.example/red.png"),
    ("a name with a good address and ::1", "http://mixed6.example/red.png"),
    ("a label too long", f"http://{'a' * 64}.example/"),
    ("an empty label", "http://good..example/"),
)
REDIRECTS = [
    *_attacks(
        ("302 to loopback", _to("http://127.0.0.1/")),
        ("302 to a name of the inner network", _to("http://inner.example/")),
        ("302 to metadata, mapped", _to("http://[::ffff:169.254.169.254]/")),
        ("302 to a file", _to("file:///etc/passwd")),
        ("302 to an odd port", _to("http://good.example:22/")),
        ("302 with a user", _to("http://user@good.example/red.png")),
        ("302 to what is no URL", _to("http://[")),
        ("302 from https to http", "https://good.example/to?http%3A%2F%2Fgood.example%2Fred.png"),
    ),
    *_attacks(
        ("a redirect loop", "http://good.example/loop"),
        ("a redirect to nowhere", "http://good.example/nowhere"),
        answer=FAILED,
    ),
]
SPELLINGS = _attacks(
    ("a backslash before @", "http://good.example\\@127.0.0.1/"),
    ("a backslash, and a private name", "http://good.example\\@inner.example/"),
    ("a user and a password", "http://user:password@good.example/red.png"),
    ("a host as the user", "http://good.example:80@127.0.0.1/"),
    ("an odd port", "http://good.example:22/"),
    ("no port at all", "http://good.example:0/"),
    ("no host", "http:///red.png"),
    ("a line break", "http://good.example/\r\nX-Injected: 1"),
    ("a file", "file:///etc/passwd"),
    ("gopher", "gopher://127.0.0.1:6379/_INFO"),
    ("ftp", "ftp://good.example/red.png"),
    ("a URL of 10,000 characters", "http://good.example/" + 10_000 * "a"),
)
FLIPPING = [Attack("a name that flips after the first look", "http://flipping.example/once.png", (SERVED, REFUSED))]
BODIES = [
    *_attacks(
        ("an endless body", "http://good.example/endless"),
        ("a length of 1 TB", "http://good.example/larger"),
        answer=TOO_LARGE,
    ),
    *_attacks(
        ("a gzip bomb", "http://good.example/gzip"),
        ("a page", "http://good.example/page"),
        ("text", "http://good.example/text"),
        answer=UNSUPPORTED,
    ),
    *_attacks(("a length that is too small", "http://good.example/shorter"), answer=(422, "bad-image")),
    *_attacks(
        ("404", "http://good.example/missing"),
        ("403", "http://good.example/forbidden"),
        ("500", "http://good.example/broken"),
        ("a length that is too large", "http://good.example/longer"),
        ("a head without an end", "http://good.example/head"),
        ("endless hints before the answer", "http://good.example/informing"),
        ("endless chunks of a byte", "http://good.example/chunks"),
        ("no HTTP", "http://good.example/no-http"),
        ("another host's certificate", "https://other.example/red.png"),
        answer=FAILED,
    ),
]
SLOWNESS = _attacks(
    ("1 byte a second", "http://good.example/trickle"), ("no answer", "http://good.example/silent"), answer=SLOW
)
ATTACKS = [*ADDRESSES, *NAMES, *REDIRECTS, *SPELLINGS, *FLIPPING, *BODIES, *SLOWNESS]
