"""The models that this project has published. A file names one of them with a single byte."""

from __future__ import annotations

from dataclasses import dataclass

from titokcodec.errors import ModelMismatch
from titokcodec.format.header import Header


@dataclass(frozen=True)
class Release:
    """One published model.

    Attributes:
        id: 1 to 255, what stands in the file's header.
        name: What people call it.
        fingerprint: 8 bytes over its config and tensors, see ``titokcodec.weights.tokenizers.fingerprint_of``.
        file: Its weights inside the package, or None once they are no longer shipped.
    """

    id: int
    name: str
    fingerprint: bytes
    file: str | None


# An id is never used twice: a replaced model stays here, without its file, so that its pictures get a helpful error.
RELEASES: tuple[Release, ...] = (
    Release(1, "default-1", bytes.fromhex("ac3f876cac82ee3f"), None),
    Release(2, "default-2", bytes.fromhex("1cfcde4c83c85927"), None),
    Release(3, "default-3", bytes.fromhex("bbd6572c068c4f04"), None),
    Release(4, "default-4", bytes.fromhex("db677418eb3a6f11"), None),
    Release(5, "default-5", bytes.fromhex("bc1c4407e591df58"), "default-5.safetensors"),
)

# Generators inside the package, as files, the newest last. No picture's file names its generator: older ones may go.
GENERATORS: tuple[str, ...] = ("classes-7.safetensors",)


def by_id(model_id: int) -> Release:
    """The published model with this id. Raises ``ModelMismatch`` if this version does not know it."""
    for release in RELEASES:
        if release.id == model_id:
            return release
    raise ModelMismatch(
        f"the file needs released model {model_id}, which this version does not know: upgrade titokcodec"
    )


def name_of(header: Header) -> str:
    """What people call the model that a file was made with."""
    if not header.model_id:
        return "custom"
    try:
        return by_id(header.model_id).name
    except ModelMismatch:
        return f"unknown model {header.model_id}"


def id_of(fingerprint: bytes) -> int:
    """Id of the published model with this fingerprint, 0 if it is none of them."""
    return next((release.id for release in RELEASES if release.fingerprint == fingerprint), 0)


def fingerprint_for(header: Header) -> bytes:
    """The full fingerprint of the model that a file was made with."""
    return header.fingerprint or by_id(header.model_id).fingerprint
