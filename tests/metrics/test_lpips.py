"""LPIPS, with random weights in the layout of the published ones."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from titokcodec.errors import WeightsError
from titokcodec.metrics import LPIPS
from titokcodec.metrics.lpips import LPIPS_SIDE


def lpips_file(folder):
    """Weights in the layout of SqueezeNet 1.1, four channels wide."""
    torch.manual_seed(0)
    state = {"features.0.weight": torch.randn(4, 3, 3, 3), "features.0.bias": torch.randn(4) * 0.1}
    width = 4
    for number in (3, 4, 6, 7, 9, 10, 11, 12):
        for part, shape in (("squeeze", (2, width, 1, 1)), ("expand1x1", (3, 2, 1, 1)), ("expand3x3", (3, 2, 3, 3))):
            state[f"features.{number}.{part}.weight"] = torch.randn(shape)
            state[f"features.{number}.{part}.bias"] = 0.3 * torch.rand(shape[0])
        width = 6
    state |= {f"lin.{tap}": torch.rand(1, channels, 1, 1) for tap, channels in enumerate((4, 6, 6, 6, 6, 6, 6))}
    path = folder / "lpips.safetensors"
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def lpips(tmp_path_factory):
    return LPIPS(lpips_file(tmp_path_factory.mktemp("lpips")))


def test_lpips_is_a_distance_one_for_each_picture(lpips):
    torch.manual_seed(1)
    a, b = torch.rand(2, 3, 3, 64, 64)
    assert lpips(a, a).tolist() == [0, 0, 0]
    assert lpips(a, b).shape == (3,) and (lpips(a, b) > 0).all()
    torch.testing.assert_close(lpips(a, b), lpips(b, a))
    torch.testing.assert_close(lpips(a, b)[1:2], lpips(a[1:2], b[1:2]))
    assert (lpips(a, a + 0.01 * (b - a)) < lpips(a, b)).all()


def test_lpips_has_a_tap_after_each_stage(lpips):
    sides = [tuple(tap.shape[1:]) for tap in lpips.taps(torch.rand(1, 3, 64, 64))]
    assert sides == [(4, 31, 31), (6, 15, 15), (6, 7, 7), (6, 3, 3), (6, 3, 3), (6, 3, 3), (6, 3, 3)]


def test_lpips_passes_gradients_to_pictures_and_has_no_parameters(lpips):
    a = torch.rand(1, 3, 64, 64, requires_grad=True)
    lpips(a, torch.rand(1, 3, 64, 64)).sum().backward()
    assert a.grad.abs().sum() > 0
    assert not list(lpips.parameters()) and not lpips.state_dict()


def test_lpips_refuses_pictures_in_0_to_255(lpips):
    with pytest.raises(ValueError, match=r"takes pictures in \[0, 1\]"):
        lpips(torch.full((1, 3, 64, 64), 100.0), torch.zeros(1, 3, 64, 64))


def test_lpips_has_a_smallest_picture(lpips):
    a, b = torch.rand(2, 1, 3, LPIPS_SIDE, LPIPS_SIDE)
    assert lpips(a, b) > 0
    with pytest.raises(RuntimeError):
        lpips(a[..., 1:, :], b[..., 1:, :])


def test_lpips_passes_over_what_else_a_file_holds(lpips, tmp_path):
    more = {"classifier.1.bias": torch.ones(3), "training": torch.ones(1)}
    save_file(load_file(lpips_file(tmp_path)) | more, tmp_path / "more.safetensors")
    a, b = torch.rand(2, 1, 3, 64, 64)
    assert LPIPS(str(tmp_path / "more.safetensors"))(a, b) == LPIPS(lpips_file(tmp_path))(a, b)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lin.6": None}, r"is not of LPIPS with SqueezeNet: it lacks lin\.6$"),
        ({"features.9.squeeze.bias": torch.tensor([0.5, torch.nan])}, "features.9.squeeze.bias does not hold finite"),
        ({"features.0.weight": torch.ones(4, 3, 3, 3, dtype=torch.int64)}, "features.0.weight does not hold finite"),
        ({"lin.3": torch.ones(7)}, "shapes of its tensors do not go together"),
        ({"features.3.squeeze.weight": torch.ones(4, 5, 1, 1)}, "shapes of its tensors do not go together"),
    ],
)
def test_lpips_takes_no_other_weights(changes, message, tmp_path):
    state = load_file(lpips_file(tmp_path)) | changes
    path = tmp_path / "other.safetensors"
    save_file({name: value for name, value in state.items() if value is not None}, path)
    with pytest.raises(WeightsError, match=message) as caught:
        LPIPS(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
