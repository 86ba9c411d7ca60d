"""Networks that are called over and over: kernels fused by ``torch.compile``, whole passes recorded as CUDA graphs.

At small batches a GPU is done with a kernel before the next one is launched; a graph launches all of a pass at once. A
recording serves one shape, so batches are padded to powers of two, and few shapes remain.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Function = Callable[..., Tensor]
"""From tensors to one tensor, all with a row for each picture, and no row having a say in another's."""

MOST_RECORDINGS = 64  # of a function; each keeps its memory
WARMUPS = 3  # calls before a recording: compilation, the choice of kernels and their workspaces must not be in it


def accelerated(function: Function, device: torch.device, kernels: bool = True) -> Function:
    """The function, quicker from its second call at a shape on.

    Args:
        function: Waits for nothing and does the same at every call, as a network does.
        device: Where its tensors are. On CUDA its passes are recorded.
        kernels: Fuse kernels by ``torch.compile``, which takes tens of seconds at each new shape. Sums may then be
            taken in another order.
    """
    fast = torch.compile(function, dynamic=False) if kernels else function
    return padded(Recorded(fast) if device.type == "cuda" else fast)


def padded(function: Function) -> Function:
    """The function for any number of rows, called with powers of two of them: the last row is repeated."""

    def call(*inputs: Tensor) -> Tensor:
        count = len(inputs[0])
        missing = (1 << (count - 1).bit_length()) - count if count else 0
        if not missing:
            return function(*inputs)
        return function(*(torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) for x in inputs))[:count]

    return call


class Recorded:
    """A function of CUDA tensors that is replayed from a graph, one for each set of shapes."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self._recordings: dict[tuple, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        with torch.cuda.device(inputs[0].device):
            return self._replayed(inputs)

    def _replayed(self, inputs: tuple[Tensor, ...]) -> Tensor:
        key = tuple((x.shape, x.dtype) for x in inputs)
        # Taken out and put in again: the first one is always the one that was used longest ago.
        recording = self._recordings.pop(key, None) or self._record(inputs)
        self._recordings[key] = recording
        if len(self._recordings) > MOST_RECORDINGS:
            del self._recordings[next(iter(self._recordings))]
        graph, places, output = recording
        for place, given in zip(places, inputs, strict=True):
            place.copy_(given)
        graph.replay()
        return output.clone()  # the next replay overwrites it

    def _record(self, inputs: tuple[Tensor, ...]) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        places = [x.clone() for x in inputs]
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARMUPS):
                self.function(*places)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may use the device meanwhile
            output = self.function(*places)
        return graph, places, output
