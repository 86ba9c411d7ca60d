"""The refiner: nothing but the sketch at first, then detail out of noise that is the same everywhere."""

import hashlib
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.models.test_linear import CONFIG
from titokcodec.errors import WeightsError
from titokcodec.models.refiner import ALIGNMENT, NOISE, Refiner, aligned_convolution, enlargement, fixed_noise

FIRST = {
    64: [1.3306310176849365, 0.11800960451364517, -0.6083682775497437, -0.2933982014656067],
    128: [-1.477467656135559, -0.3634043037891388, -0.07029823958873749, -0.7383726835250854],
    256: [-0.5095407366752625, -1.291254997253418, 1.3493601083755493, -0.3767957389354706],
}
DIGEST = "c877ee92fbe3663d"


@pytest.fixture
def head():
    torch.manual_seed(0)
    return Refiner(CONFIG).eval()


@pytest.fixture
def given():
    torch.manual_seed(1)
    return torch.randn(2, CONFIG.decoder.width, 8, 8), torch.rand(2, 3, 64, 64)


def test_noise_is_the_same_on_every_machine():
    first = {side: fixed_noise(side).ravel()[:4].tolist() for side in NOISE}
    assert first == FIRST
    digest = hashlib.sha256(b"".join(fixed_noise(side).astype("<f4").tobytes() for side in NOISE)).hexdigest()
    assert digest[:16] == DIGEST


@pytest.mark.parametrize("side", NOISE)
def test_noise_has_unit_variance_and_no_pattern(side):
    noise = torch.from_numpy(fixed_noise(side))[0]
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    flat = noise.flatten(1)
    between = torch.corrcoef(torch.cat([flat, flat.roll(1, 1), flat.roll(side, 1)])) - torch.eye(3 * len(flat))
    assert between.abs().max() < 0.06


def test_a_silent_head_decodes_the_enlarged_sketch_exactly(head, given):
    head.silence()
    expected = F.interpolate(given[1], size=256, mode="bicubic")
    with torch.no_grad():
        assert head(*given).equal(expected)
        assert head.train()(*given).equal(expected)
    assert (head(*given) - expected).abs().max() < 1e-5, "and by another way where there are gradients"


@pytest.mark.parametrize("size", [64, 128, 256])
def test_enlargement_is_what_pytorch_does(size):
    torch.manual_seed(0)
    sketch, grads = torch.rand(2, 3, 64, 64, requires_grad=True), []
    rows = torch.from_numpy(enlargement(64, size))
    expected, found = F.interpolate(sketch, size=size, mode="bicubic"), rows @ (sketch @ rows.T)
    assert rows.dtype == torch.float32 and (found - expected).abs().max() < 1e-5
    for decoded in (expected, found):
        grads += torch.autograd.grad(decoded.square().sum(), sketch)
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


def test_gradients_are_float32_under_autocast(head, given):
    head.silence()
    sketch = given[1].requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        decoded = head(given[0], sketch)
    assert decoded.dtype == torch.float32
    assert (decoded - F.interpolate(sketch, size=256, mode="bicubic")).abs().max() < 1e-5


def test_noise_is_fresh_in_training_and_fixed_afterwards(head, given):
    assert head(*given).equal(head(*given))
    head.train()
    assert (head(*given) - head(*given)).abs().max() > 1e-3


def test_detail_can_be_left_out(head, given):
    whole = head(*given)
    head.detailed = False
    plain = head(*given)
    assert plain.shape == whole.shape == (2, 3, 256, 256) and not plain.equal(whole)
    head.train()
    assert head(*given).equal(plain), "there is no noise in it"
    plain.square().mean().backward()
    assert all(value.grad is None for value in head.detail.parameters())
    assert all(value.grad.any() for name, value in head.named_parameters() if not name.startswith("detail"))


def test_noise_is_no_part_of_a_weight_file(head):
    assert not any("noise" in name for name in head.state_dict())


@pytest.mark.parametrize("size", [64, 128, 256])
def test_other_sizes(size):
    head = Refiner(replace(CONFIG, image_size=size, patch_size=size // 8))
    assert head(torch.randn(1, 32, 8, 8), torch.rand(1, 3, 64, 64)).shape == (1, 3, size, size)


def test_blocks_on_finer_grids_are_heard_and_leave_other_models_alone(given):
    wide = replace(CONFIG, detail_width=12)
    assert not any(".finer." in name for name in Refiner(wide).state_dict()), "files from before still load"
    for blocks, sides in ((2, {6}), (3, {6, 4})):
        torch.manual_seed(0)
        head = Refiner(replace(wide, detail_blocks=blocks)).eval()
        assert {block.norm.num_channels for block in head.detail.finer} == sides
        with torch.no_grad():
            decoded = head(*given)
            for block in head.detail.finer:
                before, block.conv_2.weight.data = block.conv_2.weight.data, torch.zeros_like(block.conv_2.weight)
                assert (head(*given) - decoded).abs().max() > 1e-6
                block.conv_2.weight.data = before


def test_no_more_blocks_than_there_are_grids():
    for changes in ({"detail_blocks": 2}, {"detail_width": 12, "detail_blocks": 4}, {"detail_blocks": 0}):
        with pytest.raises(WeightsError, match="detail_blocks is"):
            replace(CONFIG, **changes)


@pytest.mark.parametrize("before, after", [(67, 64), (21, 3), (ALIGNMENT, ALIGNMENT)])
@pytest.mark.parametrize("biased", [True, False])
def test_padding_channels_changes_neither_a_convolution_nor_its_gradients(before, after, biased):
    torch.manual_seed(0)
    x, weight = torch.randn(2, before, 8, 8, requires_grad=True), torch.randn(after, before, 3, 3, requires_grad=True)
    bias = torch.randn(after, requires_grad=True) if biased else None
    aim, wanted = torch.randn(2, after, 8, 8), [x, weight, *([bias] if biased else [])]
    results = []
    for convolved in (F.conv2d, aligned_convolution):
        decoded = convolved(x, weight, bias, padding=1)
        results.append([decoded, *torch.autograd.grad((decoded * aim).sum(), wanted)])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-3)


@pytest.mark.cuda
def test_a_gpu_in_training_decodes_what_it_decodes_otherwise(monkeypatch):
    torch.manual_seed(0)
    head = Refiner(replace(CONFIG, detail_width=16, detail_blocks=2)).cuda()
    cells = torch.randn(2, CONFIG.decoder.width, CONFIG.grid, CONFIG.grid, device="cuda")
    sketch = torch.rand(2, 3, 64, 64, device="cuda")
    monkeypatch.setattr(head.detail, "_noise", lambda x: getattr(head.detail, f"noise_{x.shape[-1]}").to(x.dtype))
    with torch.no_grad():
        expected, found = (head.train(training)(cells, sketch) for training in (False, True))
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.01)
