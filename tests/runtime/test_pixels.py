"""What ``encode`` takes for pixels, and what it says of everything else."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import titokcodec.runtime.pixels as pixels_module
from titokcodec import TitokError
from titokcodec.runtime.pixels import OVERSHOOT, RangeCheck


@pytest.fixture(scope="module")
def pixels(photo):
    """(1, 3, 256, 256) float in [0, 1]."""
    return torch.from_numpy(np.array(photo.resize((256, 256)))).permute(2, 0, 1)[None] / 255


MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda x: (x - MEAN) / STD, r"go from -2\..* undo the normalisation"),
        (lambda x: 2 * x - 1, r"go from -1 to 1, .* undo the normalisation"),
        (lambda x: 255 * x, "go from 0 to 255, .* divide them by 255"),
        (lambda x: (255 * x).half(), "divide them by 255"),
        (lambda x: torch.where(x > 0.999, torch.nan, x), "infinite or NaN"),
        (lambda x: torch.where(x > 0.999, torch.inf, x), "infinite or NaN"),
        (lambda x: torch.where(x > 0.999, -torch.inf, x), "infinite or NaN"),
    ],
    ids=["ImageNet", "-1 to 1", "0 to 255", "0 to 255 in halves", "NaN", "infinity", "minus infinity"],
)
@pytest.mark.parametrize("effort", [0, 1])
def test_what_is_no_picture_in_0_to_1_is_refused_with_the_remedy(codec, pixels, spoil, said, effort):
    with pytest.raises(TitokError, match=said):
        codec.encode(torch.cat([pixels, spoil(pixels)]), effort=effort)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_every_floating_point_type_is_welcome(codec, pixels, dtype):
    assert (codec.encode(pixels.to(dtype)) == codec.encode(pixels)).float().mean() >= 0.75


def test_the_overshoot_of_resampling_is_clamped(codec, pixels):
    """Corners of black on white are the worst there is in pictures."""
    board = torch.zeros(1, 3, 64, 64)
    board[..., 20:41, 20:41] = 1
    large = F.interpolate(board, size=256, mode="bicubic")
    assert large.max() > 1.1 and large.min() < -0.05
    for given in (large, 1 - large, (pixels - 0.5) * 1.05 + 0.5):
        assert codec.encode(given).equal(codec.encode(given.clamp(0, 1)))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda x: x[0], r"\(3, 256, 256\): pixels\[None\]"),
        (lambda x: x.permute(0, 2, 3, 1), r"pixels\.permute\(0, 3, 1, 2\)"),
        (lambda x: x[..., :128], r"\(1, 3, 256, 128\): scale or crop"),
        (lambda x: x.numpy(), r"not ndarray: .*codec\.read\(codec\.compress\(picture\)\)"),
        (lambda x: "photo.jpg", r"not str: .*codec\.read\(codec\.compress\(picture\)\)"),
        (lambda x: x.long(), "float pixels .* or uint8"),
    ],
    ids=["one", "colours last", "narrow", "array", "path", "integers"],
)
def test_other_things_than_pixels_are_named(codec, pixels, given, said):
    with pytest.raises(TitokError, match=said):
        codec.encode(given(pixels))


def test_a_picture_is_told_the_way_that_works(codec, photo):
    small = photo.resize((256, 256))
    with pytest.raises(TitokError, match=r"not Image: .*codec\.read\(codec\.compress\(picture\)\)"):
        codec.encode(small)
    assert codec.read(codec.compress(small, effort=0)).shape == (1, 16)


class OnDevice:
    """Pixels in the memory of a device that is slow to answer; asking for anything at once is an error."""

    device, dtype = torch.device("cuda"), torch.float32

    def __init__(self, least, largest):
        self.answer = torch.tensor([least, largest])

    def numel(self):
        return 2


class Slow:
    """On its way: nobody may wait before something else has been given to the device."""

    last = None

    def __init__(self, answer):
        self._answer, Slow.last = answer, self

    def numpy(self):
        assert Slow.last is not self, "waited for what has only just begun"
        return self._answer.numpy()


def test_pixels_on_cuda_are_judged_at_the_first_call_and_then_one_call_later(monkeypatch):
    monkeypatch.setattr(pixels_module, "_extremes", lambda pixels: pixels.answer)
    monkeypatch.setattr(pixels_module, "Arriving", Slow)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    with pytest.raises(TitokError, match="pixels go from 0 to 255"):
        RangeCheck()(OnDevice(0, 255))
    check = RangeCheck()
    for _ in range(3):
        check(OnDevice(0, 1 + OVERSHOOT))
    check(OnDevice(0, float("nan")))
    with pytest.raises(TitokError, match="pixels of the call before are infinite or NaN"):
        check(OnDevice(0, 1))
    check(OnDevice(0, 1))


@pytest.mark.cuda
def test_nobody_waits_for_cuda_after_the_first_call():
    from titokcodec import Codec

    codec = Codec.from_pretrained(device="cuda")
    pixels = torch.rand(2, 3, 256, 256, device="cuda")
    for mode in ("default", "default", "error"):
        torch.cuda.set_sync_debug_mode(mode)
        try:
            codec.encode(pixels)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    codec.encode(pixels * 255)
    with pytest.raises(TitokError, match="of the call before go from"):
        codec.encode(pixels)


def test_tensors_without_memory_are_refused(codec):
    with pytest.raises(TitokError, match="meta device"):
        codec.encode(torch.empty(1, 3, 256, 256, device="meta"))
    with pytest.raises(TitokError, match="meta device"):
        codec.decode(torch.empty(1, 16, dtype=torch.long, device="meta"))
