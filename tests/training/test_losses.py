"""The losses of drawn pictures: what a pair goes through before networks compare it, and marks on a grid."""

from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from tests.metrics.test_lite0 import lite0_state
from tests.metrics.test_lpips import lpips_file
from titokcodec.metrics import grain
from training.hyper import PixelTerms
from training.losses import SCALES, PixelLoss, excess_grain, jittered, resized, texture, texture_distance


def hyper(**changes):
    """No loss but those that are asked for."""
    return PixelTerms(**{item.name: 0 for item in fields(PixelTerms)} | {"lpips_share": 1.0, "jitter": 16} | changes)


def dented(pictures, period=8):
    marked = pictures.clone()
    marked[..., period // 2 :: period, period // 2 :: period] += 0.5
    return marked


def test_a_pair_is_changed_alike_and_has_one_of_four_shapes():
    torch.manual_seed(0)
    a, shapes = torch.rand(2, 3, 64, 96), set()
    for _ in range(60):
        x, y = jittered(a, a.clone(), 16, blur=1.0)
        assert torch.equal(x, y) and x.is_contiguous(memory_format=torch.channels_last)
        shapes.add(tuple(x.shape[2:]))
    assert shapes == {(48, 80), (41, 68), (36, 60), (29, 48)}


def test_without_blur_a_pair_at_full_scale_is_a_crop_or_its_mirror_image():
    torch.manual_seed(0)
    a, places = torch.arange(3 * 20 * 20.0).view(1, 3, 20, 20), set()
    crops = {
        tuple(crop.flatten().tolist()): (top, left, mirrored)
        for top in range(17)
        for left in range(17)
        for mirrored in (False, True)
        for whole in (a[..., top : top + 4, left : left + 4],)
        for crop in (whole.flip(3) if mirrored else whole,)
    }
    for _ in range(2000):
        x, _ = jittered(a, a, 16)
        if x.shape[-1] == 4:
            places.add(crops[tuple(x.flatten().tolist())])
    assert {0, 16} <= {top for top, _, _ in places} and {0, 16} <= {left for _, left, _ in places}
    assert {mirrored for _, _, mirrored in places} == {False, True}


def test_blur_weakens_dots_and_keeps_means():
    torch.manual_seed(0)
    dot = torch.zeros(1, 3, 64, 64)
    dot[..., 32, 32] = 1
    peaks = []
    for _ in range(60):
        x, _ = jittered(dot, dot, 16, blur=1.0)
        if x.shape[-1] == 48:
            peaks.append(x.amax().item())
            assert x.sum().item() == pytest.approx(3, abs=1e-3)
    assert min(peaks) < 0.25 and max(peaks) > 0.5


def test_truth_is_left_out_of_the_gradient():
    a, b = torch.rand(1, 3, 64, 64, requires_grad=True), torch.rand(1, 3, 64, 64)
    x, y = jittered(a, b, 16, 1.0)
    assert x.requires_grad and not y.requires_grad, "or its features would go through the backward pass too"


def test_only_marks_that_the_truth_lacks_count():
    torch.manual_seed(0)
    truth = torch.rand(2, 3, 96, 96) * 0.1 + 0.4
    assert excess_grain(truth, truth) == 0 and excess_grain(truth, dented(truth)) == 0
    small = truth[..., :40, :40]  # no room for two cells of 32
    expected = [(grain(dented(small), period) - grain(small, period)).relu().mean() for period in (8, 16)]
    assert excess_grain(dented(small), small).item() == pytest.approx(sum(expected).item() / 2, rel=1e-5)


def test_marks_in_a_corner_count():
    torch.manual_seed(0)
    truth = torch.rand(1, 3, 256, 256) * 0.1 + 0.4
    decoded = truth.clone()
    decoded[..., :64, :64] = dented(truth[..., :64, :64])
    corner, whole = excess_grain(decoded, truth).item(), excess_grain(dented(truth), truth).item()
    assert grain(decoded, 8) < 0.005 * grain(dented(truth), 8) and corner > 0.02 * whole


def test_descent_removes_marks():
    torch.manual_seed(0)
    truth = torch.rand(1, 3, 64, 64) * 0.1 + 0.4
    decoded = dented(truth).requires_grad_()
    before = excess_grain(decoded, truth).item()
    for _ in range(60):
        (gradient,) = torch.autograd.grad(excess_grain(decoded, truth), decoded)
        assert gradient.isfinite().all()
        decoded = (decoded - 0.02 * gradient / gradient.abs().amax().clamp_min(1e-9)).detach().requires_grad_()
    assert excess_grain(decoded, truth).item() < 0.2 * before


def strokes(direction, size=(2, 64, 64)):
    """Grey noise blurred along one direction."""
    noise = torch.randn(size)
    noise = sum(noise.roll((distance * direction[0], distance * direction[1]), (1, 2)) for distance in range(4))
    return (0.5 + 0.05 * noise)[:, None].expand(-1, 3, -1, -1).contiguous()


def test_texture_knows_direction_and_colour_but_neither_place_nor_amount():
    torch.manual_seed(0)
    across, down, falling, rising = (strokes(direction) for direction in ((0, 1), (1, 0), (1, 1), (1, -1)))
    coloured = across * torch.tensor([1.0, 1.0, -1.0]).view(3, 1, 1)
    again, weak = strokes((0, 1)), 0.5 + 0.5 * (across - 0.5)
    same = max(texture_distance(again, across), texture_distance(weak, across))
    others = [texture_distance(other, across) for other in (down, falling, rising, coloured)]
    assert texture_distance(across, across) == 0 and same < 0.4 * min([*others, texture_distance(falling, rising)])


def test_texture_of_known_pictures():
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    rows = (0.25 + 0.5 * (y % 2)).expand(1, 3, 64, 64)
    found = texture(rows)
    assert found.shape == (1, 14, 2, 2)  # of (0, 1), (1, 0), ...: a shift by an odd number of rows turns the sign
    expected = torch.tensor([1.0, -1, -1, -1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1])
    torch.testing.assert_close(found, expected.view(1, 14, 1, 1).expand_as(found), atol=2e-3, rtol=0)
    red = torch.full((1, 3, 64, 64), 0.5)
    red[:, 0] += 0.25 * (-1.0) ** (x + y)
    found = texture(red)[0, 8:, 0, 0].tolist()  # a third grey, half and a sixth of the two colours
    assert found == pytest.approx([1 / 2, 6**-0.5, 1 / 6, 18**-0.5, 0, 1 / 3], abs=2e-3)
    dots = torch.full((1, 3, 64, 64), 0.5)
    dots[..., ::8, ::8] = 0
    assert texture(dots)[0, -2, 0, 0] < -0.7 and texture(dots)[0, -1, 0, 0] < 0.2, "dark and sparse"
    assert texture(1 - dots)[0, -2, 0, 0] > 0.7


def test_texture_of_flat_pictures_has_a_gradient():
    flat = torch.full((1, 3, 64, 64), 0.5, requires_grad=True)
    loss = texture_distance(flat, strokes((0, 1))[:1])
    loss.backward()
    assert loss > 0 and flat.grad.isfinite().all()


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Weight files of LPIPS and Lite0."""
    folder = tmp_path_factory.mktemp("networks")
    save_file(lite0_state(), folder / "lite0.safetensors")
    return lpips_file(folder), folder / "lite0.safetensors"


def test_parts_of_the_loss_add_up(networks):
    weights = hyper(pixels=10.0, lpips_weight=0.5, features=0.25, grain=0.1, texture=0.2)
    loss = PixelLoss(weights, *networks)
    truth = torch.rand(2, 3, 64, 64)
    decoded = dented(truth).requires_grad_()
    total, parts = loss(decoded, truth, 0.5)
    share = {"mse": 10.0, "lpips": 0.5, "features": 0.25, "grain": 0.1, "texture": 0.2}
    assert parts.keys() == share.keys() and all(part > 0 for part in parts.values())
    assert total.item() == pytest.approx(sum(share[name] * part.item() for name, part in parts.items()), rel=1e-5)
    total.backward()
    assert decoded.grad.isfinite().all() and decoded.grad.abs().sum() > 0


def test_terms_without_weight_are_not_computed(tmp_path):
    late = hyper(pixels=1.0, lpips_weight=0.5, lpips_start=0.5, grain=0.1, texture=0.1)
    loss, truth = PixelLoss(late, lpips_file(tmp_path)), torch.rand(2, 3, 64, 64)
    assert loss(dented(truth), truth, 0.2)[1].keys() == {"mse"}
    assert PixelLoss(hyper(pixels=1.0))(truth, truth, 1.0)[1].keys() == {"mse"}


def test_weights_lie_as_convolutions_like_them(tmp_path):
    loss = PixelLoss(hyper(), lpips_file(tmp_path))
    assert loss.lpips.features_0_weight.is_contiguous(memory_format=torch.channels_last)


# ---- networks at speed ----------------------------------------------------------------------------------------

PERCEPTUAL = hyper(lpips_weight=1.0, features=1.0, logits=1.0)


def judged(loss, decoded, truth, scale=1.0):
    """The loss of a pair at one scale, its parts, and the gradient of what was decoded."""
    torch.manual_seed(0)
    loss.scales, decoded = (scale,), decoded.clone().requires_grad_()
    total, parts = loss(decoded, truth, 0.5)
    total.backward()
    return total.detach(), parts, decoded.grad


def a_pair():
    torch.manual_seed(1)
    truth = torch.rand(2, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    return (truth + 0.2 * torch.randn_like(truth)).clamp(0, 1), truth


def test_networks_in_bfloat16_say_nearly_the_same(networks):
    plain, half = (PixelLoss(PERCEPTUAL, *networks, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    trunk = [value for name, value in half.lpips.named_buffers() if name.startswith("features")]
    assert {value.dtype for value in (*trunk, *half.classifier.parameters())} == {torch.bfloat16}
    pair = a_pair()
    for scale in SCALES:
        (_, ours, gradient), (_, theirs, expected) = (judged(loss, *pair, scale) for loss in (half, plain))
        for name in ("lpips", "features", "logits"):
            assert ours[name].dtype == torch.float32 and ours[name] != theirs[name], "or nothing was rounded"
            close = 0.3 if name == "lpips" else 0.03  # which divides by norms of features that may be nearly nothing
            assert ours[name].item() == pytest.approx(theirs[name].item(), rel=close)
        along = torch.cosine_similarity(gradient.flatten(), expected.flatten(), 0)
        assert along > 0.5, "random networks are rough, so less than of trained ones"


def test_in_bfloat16_weights_are_cast_once(networks):
    """What a step casts is pictures and their features."""
    loss, pair = PixelLoss(PERCEPTUAL, *networks, dtype=torch.bfloat16), a_pair()
    weights = {tuple(value.shape) for value in (*loss.lpips.buffers(), *loss.classifier.parameters())}
    with torch.profiler.profile(record_shapes=True) as profile:
        judged(loss, *pair)
    cast = {tuple(event.input_shapes[0]) for event in profile.events() if event.name == "aten::_to_copy"}
    assert cast and not cast & weights


def test_each_shape_is_compiled_once_and_by_no_stage_again(networks, graphs):
    pair, counts, plain = a_pair(), [], PixelLoss(PERCEPTUAL, *networks)
    expected = {scale: judged(plain, *pair, scale) for scale in SCALES}
    for scales in (SCALES * 2, SCALES):  # as two stages of a recipe have losses of their own
        loss = PixelLoss(PERCEPTUAL, *networks, compiled=torch.compile)
        for scale in scales:
            torch.testing.assert_close(judged(loss, *pair, scale), expected[scale])
        counts.append(len(graphs))
    assert counts == [6, 6], "LPIPS at four scales; Lite0 at its one, with gradients and without"


@pytest.mark.parametrize("height, width", [(204, 204), (144, 180), (1, 240), (300, 251)])
def test_resizing_is_bilinear_with_antialiasing_and_so_is_its_gradient(height, width):
    a = torch.rand(2, 3, 240, 240, requires_grad=True)
    weights = torch.rand(2, 3, height, width)
    found, expected = resized(a, height, width), F.interpolate(a, (height, width), mode="bilinear", antialias=True)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    gradients = [torch.autograd.grad((x * weights).sum(), a)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)
