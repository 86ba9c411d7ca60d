"""Networks compute as they always do, whatever the caller's torch is set to, and leave nothing of that behind.

Every public function that runs a network does it inside ``isolated``. Default types and devices are left alone: they
belong to the whole process, other threads included, so whatever makes a tensor here names its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from titokcodec.errors import TitokError

_used: set[str] = set()  # types of devices that networks have run on in this process
_lost: set[str] = set()  # those that a fork has taken from it


@contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """A context without gradients, autocast or inference mode, to run a network on the device in.

    What is made in it are plain tensors, which anybody may train with or change in place, even where the caller is in
    inference mode. Not recording gradients is as fast as inference mode at the lengths of our passes.

    Raises:
        TitokError: the process was forked from one that had used this device, and it is no CPU.
    """
    if device.type in _lost:
        raise TitokError(
            f"this process was forked after its parent had used {device.type}, which no fork survives: "
            "start it by multiprocessing.get_context('spawn')"
        )
    _used.add(device.type)
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def _after_fork() -> None:
    """Only the thread that forked lives on in the child, but OpenMP would wait for the others for ever."""
    if _used:
        torch.set_num_threads(1)
        _lost.update(_used - {"cpu"})


if hasattr(os, "register_at_fork"):  # Windows knows no fork
    os.register_at_fork(after_in_child=_after_fork)
