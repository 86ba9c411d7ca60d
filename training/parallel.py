"""One process or many, with the same code: what ranks have to agree on. All of it is free in a single process.

``torchrun --nproc-per-node 8 -m training.single ...`` starts eight of them. Every rank draws the same random numbers
and reads its own slice of each batch, so that N ranks take the steps that one would have taken with the whole batch.
"""

from __future__ import annotations

import inspect
import os
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from titokcodec.runtime.devices import choose_device

PATIENCE = timedelta(days=3)  # how long ranks wait for one that does long work; NCCL itself gives up after ten minutes

# What torch 2.13 calls it, and what earlier ones did.
_PARAMETERS = inspect.signature(DistributedDataParallel.__init__).parameters
SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _PARAMETERS else "broadcast_buffers"

T = TypeVar("T")


def start(device: str) -> torch.device:
    """Join the other ranks if ``torchrun`` started this process; returns the device to use."""
    if "RANK" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        return choose_device(device)
    chosen = torch.device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return chosen


def finish() -> None:
    """Leave the other ranks."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def wait() -> None:
    """Until all ranks are here."""
    if dist.is_initialized():
        dist.barrier()


def rank() -> int:
    """This process among ``count()``."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wrapped(objective: nn.Module) -> nn.Module:
    """The module, with its gradients averaged over ranks in ``backward``."""
    if count() == 1 or not any(p.requires_grad for p in objective.parameters()):
        return objective
    return DistributedDataParallel(objective, **{SYNC_BUFFERS: False})


def gathered(tensor: Tensor) -> Tensor:
    """(n, ...) on each rank -> (ranks * n, ...) on all, in the order of ranks; no gradients."""
    tensor = tensor.detach()
    if count() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(count())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def anywhere(mask: Tensor) -> Tensor:
    """Where a bool tensor is true on some rank."""
    if count() == 1:
        return mask
    found = mask.to(torch.uint8)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.bool()


def mean(tensor: Tensor) -> Tensor:
    """The average over ranks; no gradients."""
    tensor = tensor.detach().clone()
    if count() > 1:
        dist.all_reduce(tensor)
        tensor /= count()
    return tensor


class Exchange:
    """Plain data between ranks by way of the CPU, for work that takes minutes or hours, and some ranks longer than
    others: they wait for each other as long as that may last. All ranks make one at once, before that work."""

    def __init__(self) -> None:
        self.group = dist.new_group(backend="gloo", timeout=PATIENCE) if count() > 1 else None

    def of_first(self, value: T) -> T:
        """What rank 0 gives, on all ranks."""
        if self.group is None:
            return value
        shared: list[Any] = [value if rank() == 0 else None]
        dist.broadcast_object_list(shared, src=0, group=self.group)
        return shared[0]

    def of_all(self, value: T) -> list[T]:
        """What each rank gives, in their order, on all ranks."""
        if self.group is None:
            return [value]
        found: list[Any] = [None] * count()
        dist.all_gather_object(found, value, group=self.group)
        return found


def agreed(first: float, most: float, device: torch.device) -> tuple[float, float]:
    """Numbers that are not negative: of ``first`` that of rank 0, as clocks differ and a schedule must not; of
    ``most`` the largest that a rank has."""
    if count() == 1:
        return first, most
    shared = torch.tensor([0.0 if rank() else first, most], dtype=torch.float64, device=device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    first, most = shared.tolist()
    return first, most
