"""Arrays to the device and back without the host waiting for either way.

To a CUDA device everything goes through pinned memory, and results come back on a stream of their own, so that copying
overlaps with the next batch. Other devices copy as they are asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor


def to_device(given: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """An array or a tensor as a tensor on the device."""
    tensor = torch.from_numpy(given) if isinstance(given, np.ndarray) else given
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Arriving:
    """A tensor on its way from the device to the host."""

    def __init__(self, tensor: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if tensor.device.type != "cuda":
            self._here = tensor.cpu()
            return
        side = _side_stream(tensor.device)
        side.wait_stream(torch.cuda.current_stream(tensor.device))
        self._here = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
        with torch.cuda.stream(side):
            self._here.copy_(tensor, non_blocking=True)
            self._event = side.record_event()
        tensor.record_stream(side)  # its memory is not to be given away before the copy is done

    def numpy(self) -> np.ndarray:
        """The array, waited for."""
        if self._event is not None:
            self._event.synchronize()
        return self._here.numpy()


def one_ahead(tensors: Iterable[Tensor]) -> Iterator[np.ndarray]:
    """Each tensor as an array, handed on when the next one has been asked for: the device makes that one meanwhile."""
    last: Arriving | None = None
    for tensor in tensors:
        coming = Arriving(tensor)
        if last is not None:
            yield last.numpy()
        last = coming
    if last is not None:
        yield last.numpy()


_streams: dict[torch.device, torch.cuda.Stream] = {}


def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream for copies to the host, one a device."""
    if device not in _streams:
        _streams[device] = torch.cuda.Stream(device)
    return _streams[device]
