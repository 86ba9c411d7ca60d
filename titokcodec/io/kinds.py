"""The type of a file by its first bytes, so that an error can name it and say what to do with it.

Names alone: whether such a file is whole, or may be read, is up to those who open it. Nothing here needs a library.
"""

from __future__ import annotations

from typing import NamedTuple

HEAD = 512  # first bytes, enough to distinguish all kinds

_TITOK = b"\x9eT"  # as in titokcodec.format.bitstream, which imports this
_LARGEST_JSON = 100_000_000  # bytes that safetensors allows its header


class Kind(NamedTuple):
    """What a file seems to be.

    Attributes:
        text: As a sentence has it, with its article.
        format: What Pillow calls it, for pictures; None for anything else.
    """

    text: str
    format: str | None = None


TITOK = Kind("a .titok file")
PYTORCH = Kind("a PyTorch file")
SAFETENSORS = Kind("a safetensors file")

ALREADY = "is a .titok file already: titok-decompress decodes it, titok-truncate makes it smaller"

_STARTS = (
    (b"\xff\xd8\xff", Kind("a JPEG picture", "JPEG")),
    (b"\x89PNG\r\n\x1a\n", Kind("a PNG picture", "PNG")),
    (b"GIF87a", Kind("a GIF picture", "GIF")),
    (b"GIF89a", Kind("a GIF picture", "GIF")),
    (b"II*\0", Kind("a TIFF picture", "TIFF")),
    (b"MM\0*", Kind("a TIFF picture", "TIFF")),
    (b"\0\0\0\x0cjP  \r\n\x87\n", Kind("a JPEG 2000 picture", "JPEG2000")),
    (b"\xff\x4f\xff\x51", Kind("a JPEG 2000 picture", "JPEG2000")),
    (b"\0\0\0\x0cJXL \r\n\x87\n", Kind("a JPEG XL picture", "JXL")),
    (b"\xff\x0a", Kind("a JPEG XL picture", "JXL")),
    (b"qoif", Kind("a QOI picture", "QOI")),
    (b"8BPS", Kind("a Photoshop (PSD) picture", "PSD")),
    (b"%!PS", Kind("a PostScript (EPS) picture", "EPS")),
    (b"\xc5\xd0\xd3\xc6", Kind("a PostScript (EPS) picture", "EPS")),
    (b"%PDF", Kind("a PDF document")),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", PYTORCH),  # as torch wrote them before it took to zip archives
    (b"\x1f\x8b", Kind("a gzip archive")),
    (b"\x28\xb5\x2f\xfd", Kind("a Zstandard archive")),
    (b"\x93NUMPY", Kind("a NumPy array")),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1"), "HEIF")


def kind_of(head: bytes) -> Kind | None:
    """What a file is that begins with ``head`` (``HEAD`` bytes of it, or all if it has fewer); None if unknown."""
    if head.startswith(_TITOK):
        return TITOK
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Kind("a WebP picture", "WEBP")
    if head[4:8] == b"ftyp":
        brand = _BRANDS.get(head[8:12])
        return Kind(f"a picture in {brand}", brand) if brand else Kind("a video")
    if head.startswith(b"PK\x03\x04"):
        return PYTORCH if b"/data.pkl" in head else Kind("a zip archive")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LARGEST_JSON:
        return SAFETENSORS
    return Kind("a tar archive") if head[257:262] == b"ustar" else None


def otherwise(head: bytes) -> str:
    """What a file is that begins like this and is no .titok file, for an error."""
    kind = kind_of(head)
    if kind is None:
        return f"it begins with {head[:2].hex() or 'nothing'}, not {_TITOK.hex()}"
    return f"it is {kind.text}" + ("; titok-compress makes .titok files of pictures" if kind.format else "")
