"""Batches on their way: in order, none lost, and one asked for ahead."""

import numpy as np
import pytest
import torch

from titokcodec import Codec
from titokcodec.pictures.batches import TileChunk
from titokcodec.runtime.transfer import one_ahead, to_device

DEVICES = [torch.device("cpu"), pytest.param(torch.device("cuda"), marks=pytest.mark.cuda)]


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_all_arrive_in_order(device, count):
    arrays = [np.full((2, 3), number, np.uint8) for number in range(count)]
    found = list(one_ahead(to_device(array, device) * 2 for array in arrays))
    assert [array.tolist() for array in found] == [(array * 2).tolist() for array in arrays]


def test_tensors_travel_too():
    tensor = torch.arange(3)
    assert to_device(tensor, torch.device("cpu")) is tensor


@pytest.mark.cuda
@pytest.mark.parametrize("counts", [[9], [9, 12]], ids=str)
def test_the_host_waits_for_nothing_on_the_way(counts, tiny_path):
    codec = Codec.from_pretrained(tiny_path, device="cuda", dtype="fp32")
    chunk = TileChunk(np.zeros((4, 256, 256, 3), np.uint8), np.array(counts * (4 // len(counts))), np.zeros(4, int))
    tokens = np.zeros((4, 9), np.int64)
    for mode in ("default", "error"):  # the first time, libraries are loaded
        torch.cuda.set_sync_debug_mode(mode)
        try:
            codec.encode_chunk(chunk)
            list(codec._decode_rows([tokens]))
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_the_next_is_made_before_the_last_is_handed_on():
    events = []

    def batches():
        for number in range(3):
            events.append(f"made {number}")
            yield torch.tensor([number])

    for array in one_ahead(batches()):
        events.append(f"used {array[0]}")
    assert events == ["made 0", "made 1", "used 0", "made 2", "used 1", "used 2"]
