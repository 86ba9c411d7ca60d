"""Batches on their way: in order, none lost, and one asked for ahead."""

import numpy as np
import pytest
import torch

from titokcodec.transfer import one_ahead, to_device

DEVICES = [torch.device("cpu"), pytest.param(torch.device("cuda"), marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs CUDA"))]  # fmt: skip


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_all_arrive_in_order(device, count):
    arrays = [np.full((2, 3), number, np.uint8) for number in range(count)]
    found = list(one_ahead(to_device(array, device) * 2 for array in arrays))
    assert [array.tolist() for array in found] == [(array * 2).tolist() for array in arrays]


def test_the_next_is_made_before_the_last_is_handed_on():
    events = []

    def batches():
        for number in range(3):
            events.append(f"made {number}")
            yield torch.tensor([number])

    for array in one_ahead(batches()):
        events.append(f"used {array[0]}")
    assert events == ["made 0", "made 1", "used 0", "made 2", "used 1", "used 2"]
