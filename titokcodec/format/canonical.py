"""Which of the ways to write a picture's tokens is the canonical one; :mod:`titokcodec.format.bitstream` says it in
words.

Writers make the header canonical here, and :func:`judge` finds whether a file's is. A reader takes every spelling.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from titokcodec.format.header import Header
from titokcodec.format.limits import TILE
from titokcodec.weights import releases

_WHY = {  # by the header's field, what is wrong where it is not the canonical one
    "layout": f"a picture of {TILE}x{TILE} on one tile is fitted, not tiled",
    "model_id": "a released model is named by its id, not by its fingerprint",
    "nested": "the nested bit is not its model's",
    "mode": "its model's tables make the tokens shorter than packing",
}


@dataclass(frozen=True)
class Spelling:
    """How a file is written.

    Attributes:
        canonical: It is as this library writes the picture that it holds; None if that is unknown without its model.
        why: One line on what is not canonical, or why that is unknown; empty if it is.
    """

    canonical: bool | None
    why: str = ""


def canonical(header: Header, fingerprint: bytes, nested: bool | None = None) -> Header:
    """The header that stands for the same picture as ``header``, in its canonical spelling.

    Args:
        header: What is to be written; its entropy mode is that of :func:`titokcodec.format.entropy.encode`.
        fingerprint: The model's full fingerprint, 8 bytes.
        nested: Whether the model is nested; None leaves the header's bit as it is.
    """
    model_id = releases.id_of(fingerprint)
    return replace(
        header,
        # Only at this size do both layouts of version 1 scale nothing and blend nothing.
        layout="fit" if header.grid is None and header.width == header.height == TILE else header.layout,
        nested=header.nested if nested is None else nested,
        model_id=model_id,
        fingerprint=None if model_id else fingerprint,
    )


def judge(header: Header, fingerprint: bytes, nested: bool | None = None, mode: int | None = None) -> Spelling:
    """How a file with this header is written.

    Args:
        header: The file's.
        fingerprint: The model's full fingerprint, 8 bytes.
        nested: Whether the model is nested; None if the model is not at hand.
        mode: The entropy mode that :func:`titokcodec.format.entropy.encode` chooses for the tokens; None likewise.
    """
    best = canonical(header if mode is None else replace(header, mode=mode), fingerprint, nested)
    why = "; ".join(text for field, text in _WHY.items() if getattr(header, field) != getattr(best, field))
    if why:
        return Spelling(False, why)
    if nested is None or mode is None:
        return Spelling(None, "only the weight file of its model can settle whether it is canonical")
    return Spelling(True)
