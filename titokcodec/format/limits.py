"""The numbers that the file format fixes, and the default limit of what is read."""

from __future__ import annotations

from typing import TypeAlias

BytesLike: TypeAlias = bytes | bytearray | memoryview

SIGNATURE = b"\x9eT"
VERSIONS = (1, 2)
LAYOUTS = ("tile", "fit")  # the index is the header's bit
TILE = 256  # pixels along a side
MAX_ACROSS = 256  # tiles in a row or a column of a grid: what a byte holds
MAX_SIDE = 2**21  # pixels: what three bytes of LEB128 hold
MAX_TOKENS = 256  # of a tile: what a byte holds
MAX_CODEBOOK_SIZE = 2**16
FREQUENCY_TOTAL = 2**24  # the range coder's probabilities have 24 bits
FINGERPRINT_BYTES = 8
LONGEST_HEADER = len(SIGNATURE) + 3 + FINGERPRINT_BYTES + 3 + 3 + 2 + 2

DEFAULT_MAX_PIXELS = 89_478_485  # Pillow's own Image.MAX_IMAGE_PIXELS: what a user of Pillow already expects
