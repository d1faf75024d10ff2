"""Which type of answer a client would rather have."""

from __future__ import annotations


def quality(accept: str, media: str) -> float:
    """How welcome a media type is, 0 to 1, by an Accept header (RFC 9110, 12.5.1): what the most specific range says
    that it is in; 0: it is in none."""
    ranges: dict[str, float] = {}
    for one in accept.lower().split(","):
        name, *parameters = (part.strip() for part in one.split(";"))
        ranges.setdefault(name, next((_number(part[2:]) for part in parameters if part.startswith("q=")), 1.0))
    return next((ranges[name] for name in (media, f"{media.partition('/')[0]}/*", "*/*") if name in ranges), 0.0)


def _number(text: str) -> float:
    """0 where it is none."""
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0
