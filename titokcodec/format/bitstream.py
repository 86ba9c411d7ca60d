"""The ``.titok`` container, versions 1 and 2: a header of at most 23 bytes, then the payload. No networks, no pictures.

====== ======================================================================================================
bytes  field
====== ======================================================================================================
2      signature ``9e 54``; the first byte is neither ASCII nor valid UTF-8, so no text file is taken for one
1      bits 7-5 version (1 or 2); bit 4 grey; bit 3 layout (0 tile, 1 fit); bits 2-1 entropy mode; bit 0 nested
1      model id: 1 to 255 names a released model; 0 is any other, and its 8-byte fingerprint follows here
1      tokens per tile, minus one (1 to 256)
1 to 3 width minus one, LEB128: 7 bits a byte, low bits first, bit 7 set on all bytes but the last
1 to 3 height minus one, the same
0 or 2 version 2 only: columns minus one and rows minus one of the grid of tiles, a byte each
2      CRC-16/IBM-3740 (polynomial 0x1021, start 0xffff), big-endian, over the model's 8-byte fingerprint and
       then every other byte of the file: the header before this field, then the payload
rest   the payload, up to the end of the file: the tokens as :mod:`titokcodec.format.entropy` writes them
====== ======================================================================================================

- Version 2 differs in one thing: its layout is always ``tile``, on the grid that it names, whose canvas is scaled to
  the picture's size (:mod:`titokcodec.format.layout`). The grid has two tiles or more, and at most 64 or four times as
  many as the picture's own resolution asks for, so that the work goes with the picture. In version 1 ``tile`` means
  tiles on the picture itself; such files stay readable, but are no longer written. Fitted pictures are files of version
  1, now as ever.
- A file for one 256x256 picture spends 11 bytes around its payload. There is no length field: the file system, the
  tar shard or the database column that holds the bytes knows it already. So nothing MAY follow the payload.
- The CRC covers the model's fingerprint although (for a released model) the file does not hold it: decoding with
  other weights is an error, not a wrong picture, and naming the model costs one byte.
- What the CRC catches. Its field lies inside what it covers, not at the end, and is the weaker for it at its borders.
  Of damage that leaves the payload's start where it was, a reader who has the model catches for certain: every odd
  number of wrong bits; every two wrong bits in a file of at most 4095 bytes; every burst of up to 16 bits that lies
  before the field, in it or behind it; and, in such a file, every burst of up to 4 bits. A longer burst across a
  border of the field, and any other damage, is missed about once in 65536 times. So is a flip
  of bit 7 in a byte of width or height, or a change of the version, which moves the payload's start. A changed model id
  or fingerprint names another model, and the reader refuses that whatever the CRC says.
- LEB128 MUST be canonical (no needless last byte of zero) and ends after 3 bytes, so a size has one spelling and
  a side is at most 2**21 pixels.
- One picture's tokens have up to 16 spellings that decode to the same pixels; :mod:`titokcodec.format.canonical`
  tells them apart. Writers MUST write the canonical one, so that equal tokens of one model are equal bytes: a picture
  of 256x256 on one tile has layout ``fit``; a released model is named by its id; ``nested`` is the model's own; the
  mode is the one with the shorter payload, packed at a tie. Readers MUST take the others too: they are not damaged,
  and a file written before its model was released is one of them. A payload has one spelling in its mode, and any
  other is refused.
- Entropy modes: 0 packed bits, 1 frequency tables, 2 integer prior, 3 not assigned. ``nested`` says that every prefix
  of a tile's tokens is a picture too, which is what makes truncation without a network possible.
- Readers MUST check the size against their limits (:func:`check_pixels`) before they make room for pixels or decode
  tiles: a header of a dozen bytes can claim 2**42 pixels, or 2**21 pixels on 9,363 tiles. Parsing itself allocates
  nothing in proportion to what the header claims.
- Files of both versions stay readable for ever. A reader that meets another version or mode 3 MUST refuse the file.
"""

from __future__ import annotations

import binascii

from titokcodec.checks import whole_or_none
from titokcodec.errors import CorruptFile, LimitExceeded, ModelMismatch, TitokError, UnsupportedFile
from titokcodec.format.header import Header, check_fingerprint
from titokcodec.format.layout import FIT, Grid, check_grid_of, check_tiles
from titokcodec.format.limits import (
    DEFAULT_MAX_PIXELS,
    FINGERPRINT_BYTES,
    LAYOUTS,
    LONGEST_HEADER,
    SIGNATURE,
    VERSIONS,
    BytesLike,
)
from titokcodec.io import kinds


def pack(header: Header, payload: BytesLike, fingerprint: bytes) -> bytes:
    """Write a file.

    Args:
        header: what the file says of itself.
        payload: the coded tokens.
        fingerprint: the model's full fingerprint, 8 bytes, whatever ``header.model_id`` is.

    Returns:
        The whole file.

    Raises:
        ModelMismatch: ``header.fingerprint`` is another model's.
        TitokError: the fingerprint is not 8 bytes long.
    """
    check_fingerprint(fingerprint)
    if header.fingerprint is not None and header.fingerprint != fingerprint:
        raise ModelMismatch(_other_model(header.fingerprint, fingerprint))
    flags = header.version << 5 | bool(header.grey) << 4 | LAYOUTS.index(header.layout) << 3 | header.mode << 1
    head = (
        SIGNATURE
        + bytes((flags | bool(header.nested), header.model_id))
        + (header.fingerprint or b"")
        + bytes((header.tokens - 1,))
        + _leb128(header.width - 1)
        + _leb128(header.height - 1)
        + bytes(count - 1 for count in header.grid or ())
    )
    payload = bytes(payload)
    return head + _checksum(fingerprint, head, payload).to_bytes(2, "big") + payload


def parse(data: BytesLike) -> tuple[Header, int]:
    """Read the header of a file, or of its first bytes. The checksum is not looked at: :func:`verify` does that.

    Args:
        data: the file, or a beginning of it that holds the whole header (23 bytes always do).

    Returns:
        The header, and the offset at which the payload begins.

    Raises:
        CorruptFile: this is no ``.titok`` file, or it ends inside its header, or the header is not canonical.
        UnsupportedFile: the file is of another version, or uses an entropy mode that this library does not know.
    """
    head = bytes(memoryview(data)[:LONGEST_HEADER])
    if head[:2] != SIGNATURE[: len(head)]:
        raise CorruptFile(f"not a .titok file: {kinds.otherwise(bytes(memoryview(data)[: kinds.HEAD]))}")
    try:
        return _parse_head(head)
    except IndexError:
        raise CorruptFile(f"file ends inside its header, after {len(head)} bytes; get the whole file") from None


def verify(data: BytesLike, header: Header, offset: int, fingerprint: bytes) -> None:
    """Check a whole file against its checksum and against the model at hand.

    Args:
        data: the whole file.
        header, offset: what :func:`parse` returned for it.
        fingerprint: the 8-byte fingerprint of the model that is to decode it.

    Raises:
        ModelMismatch: the file is whole, but holds the fingerprint of another model.
        CorruptFile: the checksum does not match.
    """
    check_fingerprint(fingerprint)
    view = memoryview(data)
    head, payload = view[: offset - 2], view[offset:]
    stored = int.from_bytes(view[offset - 2 : offset], "big")
    if header.fingerprint is not None and header.fingerprint != fingerprint:
        # The file names its model, so damage and a wrong model can be told apart.
        if _checksum(header.fingerprint, head, payload) == stored:
            raise ModelMismatch(_other_model(header.fingerprint, fingerprint))
    elif _checksum(fingerprint, head, payload) == stored:
        return
    model = f", or was made with other weights than released model {header.model_id}" if header.model_id else ""
    raise CorruptFile(f"checksum does not match: the file is damaged or cut short{model}; get it again")


def check_pixels(header: Header, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> None:
    """Refuse a picture that is too much work: more than ``max_pixels`` pixels, or more tiles than go with them.

    Args:
        header: What the file says of itself.
        max_pixels: The most pixels; :func:`titokcodec.format.layout.most_tiles` has the tiles that go with them. None
            for no limit.

    Raises:
        LimitExceeded: the header claims more.
        TitokError: ``max_pixels`` is no number.
    """
    limit = whole_or_none("max_pixels", max_pixels, 0)
    pixels = header.width * header.height
    if limit is not None and pixels > limit:
        raise LimitExceeded(
            f"picture of {header.width}x{header.height} = {pixels} pixels is over the limit of {limit}; "
            "if you trust the file, raise max_pixels= (--max-pixels on the command line)"
        )
    check_tiles(header.width, header.height, header.tiles, limit)


def _parse_head(head: bytes) -> tuple[Header, int]:
    """Parse the header's bytes; IndexError where they end too early."""
    flags = head[2]
    version, layout = flags >> 5, LAYOUTS[flags >> 3 & 1]
    if version not in VERSIONS:
        raise UnsupportedFile(
            f"file is of format version {version}, this library reads versions 1 and 2; upgrade titokcodec"
        )
    mode = flags >> 1 & 3
    if mode == 3:
        raise UnsupportedFile("entropy mode 3 is not known to this library; upgrade titokcodec, or get the file again")
    model_id, at, fingerprint = head[3], 4, None
    if model_id == 0:
        at += FINGERPRINT_BYTES
        fingerprint = head[4:at]
    tokens = head[at] + 1
    width, at = _read_leb128(head, at + 1)
    height, at = _read_leb128(head, at)
    grid = None
    if version == 2:
        grid, at = Grid(head[at] + 1, head[at + 1] + 1), at + 2
        if layout != "tile" or grid == FIT:
            raise CorruptFile("a file of version 2 has a grid of two tiles or more; the file is damaged")
        try:
            check_grid_of(width + 1, height + 1, grid)
        except TitokError as error:
            raise CorruptFile(f"{error}; the file is damaged") from None
    head[at + 1]  # the checksum belongs to the header: both of its bytes must be there
    header = Header(
        width + 1,
        height + 1,
        tokens,
        layout,
        bool(flags & 16),
        bool(flags & 1),
        mode,
        model_id,
        fingerprint,
        grid,
    )
    return header, at + 2


def _leb128(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_leb128(head: bytes, at: int) -> tuple[int, int]:
    """One canonical LEB128 number of at most 3 bytes, and the offset behind it."""
    value = 0
    for shift in (0, 7, 14):
        byte = head[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if byte == 0 and shift:
                break
            return value, at
    raise CorruptFile("width or height is not a canonical LEB128 number of 1 to 3 bytes; the file is damaged")


def _checksum(fingerprint: bytes, head: BytesLike, payload: BytesLike) -> int:
    return binascii.crc_hqx(payload, binascii.crc_hqx(head, binascii.crc_hqx(fingerprint, 0xFFFF)))


def _other_model(wanted: bytes, at_hand: bytes) -> str:
    return f"file needs the model with fingerprint {wanted.hex()}, the one at hand has {at_hand.hex()}; load that model"
