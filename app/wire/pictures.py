"""What a picture looks like from outside."""

from __future__ import annotations

_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def starts_like_a_picture(data: bytes) -> bool:
    """JPEG, PNG, GIF, BMP, TIFF, WebP, or a file of the HEIF kind (AVIF, HEIC): whether it may be sent without saying
    so. Whether it is one, and can be served, the decoder tells."""
    if data.startswith((*_BEGINNINGS, *_TIFF)):
        return True
    return (data[:4] == b"RIFF" and data[8:12] == b"WEBP") or data[4:8] == b"ftyp"
