"""Networks that are called over and over: kernels fused by ``torch.compile``, whole passes recorded as CUDA graphs.

At small batches a GPU is done with a kernel before the next one is launched; a graph launches all of a pass at once. A
recording serves one shape, so batches are padded to powers of two, and few shapes remain.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from threading import Lock
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Tensor]
"""From tensors to one tensor, all with a row for each picture, and no row having a say in another's."""

MOST_RECORDINGS = 64  # of a function; each keeps its inputs and its output, and all share what lies between
WARMUPS = 3  # calls before a recording: compilation and the choice of kernels must not be in it
_turn = Lock()  # of a thread: recordings are written to and read from, and only one can be made at a time


class Accelerated:
    """A function, quicker from its second call at a shape on.

    Pickled or copied, it is the function alone again: neither compiled code nor a graph can be taken elsewhere.

    Args:
        function: Waits for nothing and does the same at every call, as a network does.
        device: Where its tensors are. On CUDA its passes are recorded.
        kernels: Fuse kernels by ``torch.compile``, which takes tens of seconds at each new shape. Sums may then be
            taken in another order.
    """

    def __init__(self, function: Function, device: torch.device, kernels: bool = True) -> None:
        self.function = function
        fast = torch.compile(function, dynamic=False, **_limit()) if kernels else function
        self._fast = padded(Recorded(fast) if device.type == "cuda" else fast)

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self._fast(*inputs)

    def __reduce__(self) -> tuple[Callable[[Function], Function], tuple[Function]]:
        return _itself, (self.function,)


class AcceleratedEncoder(Accelerated):
    """``TiTok.encode``, with one compilation and one recording for all numbers of tokens."""

    def __call__(self, pixels: Tensor, tokens: int | None = None) -> Tensor:  # type: ignore[override]
        return super().__call__(pixels)[:, :tokens]


def _itself(function: Function) -> Function:
    return function


def _limit() -> dict[str, Any]:
    """As many shapes for the compiler as there are recordings: after eight it would go back to slow kernels.

    Older PyTorch has one limit for all that is compiled; there it is raised, never lowered.
    """
    if "recompile_limit" in signature(torch.compile).parameters:
        return {"recompile_limit": MOST_RECORDINGS}
    import torch._dynamo.config as limits  # takes as long as torch itself

    limits.cache_size_limit = max(limits.cache_size_limit, MOST_RECORDINGS)
    return {}


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
    """A function of CUDA tensors that is replayed from a graph, one for each set of shapes.

    All graphs are captured on one stream of their own into one pool of memory. PyTorch keeps a workspace of cuBLAS for
    each stream, which lies in the pool of the graph that was captured first, and throws it away with any graph of that
    stream (pytorch/pytorch#193402): the pool has to outlive each of them, and nothing else may be captured there.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        self._stream: torch.cuda.Stream | None = None
        self._recordings: dict[tuple, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        with _turn, torch.cuda.device(inputs[0].device):
            return self._replayed(inputs)

    def _replayed(self, inputs: tuple[Tensor, ...]) -> Tensor:
        key = tuple((x.shape, x.dtype) for x in inputs)
        # Taken out and put in again: the first one is always the one that was used longest ago.
        recording = self._recordings.pop(key, None) or self._record(inputs)
        self._recordings[key] = recording
        if len(self._recordings) > MOST_RECORDINGS:
            del self._recordings[next(iter(self._recordings))]
        graph, buffers, output = recording
        for buffer, given in zip(buffers, inputs, strict=True):
            buffer.copy_(given)
        graph.replay()
        return output.clone()  # the next replay overwrites it, even one of another graph, as they share memory

    def _record(self, inputs: tuple[Tensor, ...]) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        buffers = [x.clone() for x in inputs]
        for _ in range(WARMUPS):  # on the stream of every day: the other one's workspace must come from the pool
            self.function(*buffers)
        self._stream = self._stream or torch.cuda.Stream()
        pool = next((graph.pool() for graph, _, _ in self._recordings.values()), None)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile.
        with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
            output = self.function(*buffers)
        return graph, buffers, output
