"""The adversarial loss: published size, hand-computed values, and a discriminator that learns."""

import pytest
import torch
import torch.nn.functional as F

from training.adversarial import Blur, Discriminator, LeCam, hinge_discriminator, hinge_generator

# ---- the network ----------------------------------------------------------------------------------------------


def test_published_width_has_the_published_size():
    with torch.device("meta"):
        model = Discriminator()
    shapes = [tuple(p.shape) for p in model.parameters()]
    stages = [(128, 128), (128, 256), (256, 512)]
    expected = [(128, 3, 5, 5), (128,)]
    for inputs, outputs in stages:
        expected += [(outputs, inputs, 3, 3), (outputs,), (outputs,), (outputs,)]
    expected += [(512, 512, 1, 1), (512,), (1, 512, 5, 5), (1,)]
    assert shapes == expected
    assert sum(p.numel() for p in model.parameters()) == 1_909_889
    assert not any("kernel" in name for name in model.state_dict())


def test_channels_stop_at_most():
    with torch.device("meta"):
        model = Discriminator(32, stages=4, most=64)
    assert [stage[0].out_channels for stage in model.stages] == [32, 64, 64, 64]


@pytest.mark.parametrize("sizes", [(16, 3, 512), (32, 0, 512), (32, 3, 100), (0, 3, 512)])
def test_bad_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="multiples of 32"):
        Discriminator(*sizes)


@pytest.mark.parametrize(
    ("stages", "height", "width", "logits"),
    [(3, 64, 64, (8, 8)), (1, 64, 40, (16, 16)), (2, 96, 20, (16, 5)), (3, 8, 8, (1, 1)), (2, 33, 30, (9, 8))],
)
@torch.no_grad()
def test_logits_are_a_map_of_16_at_most(stages, height, width, logits):
    model = Discriminator(32, stages, most=32)
    assert model(torch.rand(2, 3, height, width))[0].shape == (2, 1, *logits)


@torch.no_grad()
def test_forward_agrees_with_the_plain_one():
    """Everything by hand: blur as a sum of shifts, zeros beyond the borders, maxima over blocks."""
    torch.manual_seed(0)
    model, pixels = Discriminator(32, stages=1, most=32), torch.rand(2, 3, 64, 64)
    p = list(model.parameters())
    for value in p:
        value.add_(torch.randn(value.shape) * 0.05)

    def leaky(x):
        return torch.where(x > 0, x, x * 0.1)

    x = leaky(F.conv2d(pixels, p[0], p[1], padding=2))
    x = F.conv2d(x, p[2], p[3], padding=1)
    columns, rows = torch.zeros(2, 32, 64, 1), torch.zeros(2, 32, 1, 66)
    x = torch.cat([rows, torch.cat([columns, x, columns], dim=3), rows], dim=2)
    x = sum(weight * x[..., i : i + 63 : 2] for i, weight in enumerate((1, 3, 3, 1))) / 8
    x = sum(weight * x[..., i : i + 63 : 2, :] for i, weight in enumerate((1, 3, 3, 1))) / 8
    variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)  # 32 groups of one channel
    x = leaky((x - mean) / (variance + 1e-5).sqrt() * p[4].view(-1, 1, 1) + p[5].view(-1, 1, 1))
    x = x.view(2, 32, 16, 2, 16, 2).amax((3, 5))
    x = leaky(torch.einsum("bihw,oi->bohw", x, p[6][:, :, 0, 0]) + p[7].view(-1, 1, 1))
    torch.testing.assert_close(model(pixels)[0], F.conv2d(x, p[8], p[9], padding=2), rtol=0, atol=1e-4)


# ---- the blur -------------------------------------------------------------------------------------------------


def test_blur_sees_zeros_beyond_the_borders():
    blur = Blur()
    found = blur(torch.full((1, 2, 10, 6), 64.0))
    assert found[0, 0, 2].tolist() == [56, 64, 56] and found[0, 1, 0].tolist() == [49, 56, 49]
    assert not list(blur.parameters())
    row = blur(torch.full((1, 1, 4, 5), 64.0))[0, 0, 0]  # one zero in front, two behind
    assert row.tolist() == [49, 56, 28]


def test_blur_weighs_1_3_3_1_and_halves():
    ramp = torch.zeros(1, 1, 2, 8)
    ramp[..., 3] = 64.0
    expected = [0, 18, 6, 0]  # column 3 is third of window 1..4 and first of 3..6; of four rows two are zeros
    assert Blur()(ramp).flatten().tolist() == expected
    stripes = torch.tensor([0.0, 1.0]).repeat(8).expand(1, 1, 16, 16)
    assert Blur()(stripes)[..., 1:-1, 1:-1].unique().tolist() == [0.5]  # the finest pattern leaves no alias


# ---- losses ---------------------------------------------------------------------------------------------------


def test_hinge_values():
    real, fake = torch.tensor([[2.0, 0.5], [-1.0, 1.0]]), torch.tensor([-3.0, 0.5])
    assert hinge_discriminator(real, fake).item() == pytest.approx(((0 + 0.5 + 2 + 0) / 4 + (0 + 1.5) / 2) / 2)
    assert hinge_generator(fake).item() == pytest.approx(1.25)
    assert hinge_discriminator(torch.tensor([1.5]), torch.tensor([-1.5])).item() == 0


def test_hinge_moves_logits_the_right_way():
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    hinge_discriminator(real, fake).backward()
    assert (real.grad < 0).all() and (fake.grad > 0).all()  # descent raises real and lowers drawn ones
    fake.grad = None
    hinge_generator(fake).backward()
    assert (fake.grad < 0).all()


def test_losses_are_computed_in_float32():
    logits = torch.full((3,), 1 / 3, dtype=torch.bfloat16)
    one = logits.mean()
    for value in (hinge_discriminator(logits, logits), hinge_generator(logits), LeCam()(one, one)):
        assert value.dtype == torch.float32


def test_lecam_values():
    lecam = LeCam()
    assert (lecam.real.item(), lecam.fake.item()) == (0, 0)
    lecam.update(torch.tensor(2.0), torch.tensor(-1.0))
    assert lecam.real.item() == pytest.approx(0.002) and lecam.fake.item() == pytest.approx(-0.001)
    lecam.update(torch.tensor(2.0), torch.tensor(-1.0))
    assert lecam.real.item() == pytest.approx(0.002 * 0.999 + 0.002)

    lecam.real.fill_(0.5)
    lecam.fake.fill_(-0.25)
    real, fake = (torch.tensor(value, requires_grad=True) for value in (0.75, 0.25))
    loss = lecam(real, fake)
    assert loss.item() == pytest.approx(1.0**2 + 0.25**2)
    loss.backward()
    assert (real.grad.item(), fake.grad.item()) == pytest.approx((2.0, -0.5))
    assert lecam(torch.tensor(-0.5), torch.tensor(0.75)).item() == 0, "on the right side of each other's means"
    assert set(lecam.state_dict()) == {"real", "fake"} and not list(lecam.parameters())


def test_lecam_follows_without_gradients():
    lecam, logit = LeCam(decay=0.5), torch.ones((), requires_grad=True)
    loss = lecam(logit, -logit)
    lecam.update(logit, -logit)
    loss.backward()  # the update in between spoils nothing
    assert not lecam.real.requires_grad
    assert (lecam.real.item(), lecam.fake.item()) == (0.5, -0.5)


def test_a_discriminator_learns_to_tell_stripes_from_noise():
    torch.manual_seed(0)
    model, lecam = Discriminator(32, stages=2, most=32), LeCam()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    def draw():
        stripes = (torch.arange(16) // 2 % 2).float().expand(8, 3, 16, 16)
        return stripes * torch.rand(8, 3, 1, 1), torch.rand(8, 3, 16, 16)

    losses = []
    for _ in range(20):
        real, fake = (model(pixels)[0] for pixels in draw())
        loss = hinge_discriminator(real, fake) + 0.001 * lecam(real.mean(), fake.mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lecam.update(real.detach().mean(), fake.detach().mean())
        losses.append(loss.item())
    assert losses[0] > 0.75 and losses[-1] < 0.25
    with torch.no_grad():
        real, fake = (model(pixels)[0].mean((1, 2, 3)) for pixels in draw())
    assert real.min() > fake.max()
    assert lecam.real > 0 > lecam.fake
