"""ConvNeXt-S, with random weights under the names of its three publishers."""

import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from titokcodec.errors import WeightsError
from titokcodec.metrics import ConvNeXt
from titokcodec.metrics.convnext import _AUTHORS, _TIMM, _TORCHVISION, _modules

DEPTHS, WIDTHS = (1, 2, 2, 1), (4, 6, 8, 10)


class Tiny(ConvNeXt):
    """The same network, with few blocks and channels."""

    depths, widths = DEPTHS, WIDTHS


def published_by_timm():
    """Names and shapes of timm's ``convnext_*``, written out; random values."""
    shapes = {"stem.0.weight": (4, 3, 4, 4), "stem.0.bias": (4,), "stem.1.weight": (4,), "stem.1.bias": (4,)}
    for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
        if stage:
            name, before = f"stages.{stage}.downsample", WIDTHS[stage - 1]
            shapes |= {f"{name}.0.weight": (before,), f"{name}.0.bias": (before,)}
            shapes |= {f"{name}.1.weight": (width, before, 2, 2), f"{name}.1.bias": (width,)}
        for block in range(depth):
            name = f"stages.{stage}.blocks.{block}"
            shapes |= {f"{name}.gamma": (width,), f"{name}.conv_dw.weight": (width, 1, 7, 7)}
            shapes |= {f"{name}.conv_dw.bias": (width,), f"{name}.norm.weight": (width,), f"{name}.norm.bias": (width,)}
            shapes |= {f"{name}.mlp.fc1.weight": (4 * width, width), f"{name}.mlp.fc1.bias": (4 * width,)}
            shapes |= {f"{name}.mlp.fc2.weight": (width, 4 * width), f"{name}.mlp.fc2.bias": (width,)}
    shapes |= {
        "head.norm.weight": (10,),
        "head.norm.bias": (10,),
        "head.fc.weight": (1000, 10),
        "head.fc.bias": (1000,),
    }
    torch.manual_seed(0)
    return {name: torch.randn(shape) / math.sqrt(math.prod(shape[1:])) for name, shape in shapes.items()}


TORCHVISION = {  # beginnings of timm's names, and torchvision's
    "stem.0": "features.0.0",
    "stem.1": "features.0.1",
    "stages.0.blocks": "features.1",
    "stages.1.downsample": "features.2",
    "stages.1.blocks": "features.3",
    "stages.2.downsample": "features.4",
    "stages.2.blocks": "features.5",
    "stages.3.downsample": "features.6",
    "stages.3.blocks": "features.7",
    "head.norm": "classifier.0",
    "head.fc": "classifier.2",
    "conv_dw": "block.0",
    "norm": "block.2",
    "mlp.fc1": "block.3",
    "mlp.fc2": "block.5",
    "gamma": "layer_scale",
}
AUTHORS = {
    "stem": "downsample_layers.0",
    "stages.1.downsample": "downsample_layers.1",
    "stages.2.downsample": "downsample_layers.2",
    "stages.3.downsample": "downsample_layers.3",
    ".blocks.": ".",
    "conv_dw": "dwconv",
    "mlp.fc": "pwconv",
    "head.norm": "norm",
    "head.fc": "head",
}


def renamed(state, changes):
    found = {}
    for name, value in state.items():
        for old, new in changes.items():
            name = name.replace(old, new)
        found[name] = value[:, None, None] if name.endswith("layer_scale") else value
    return found


@pytest.fixture(scope="module")
def state():
    return published_by_timm()


@pytest.fixture(scope="module")
def network(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("convnext") / "timm.safetensors"
    save_file(state, path)
    return Tiny(path)


def by_formula(state, pixels):
    """The network of section 2 and appendix A, from timm's tensors, with sums in place of torch's layers."""

    def norm(x, name):  # x is (B, H, W, C)
        x = x - x.mean(-1, keepdim=True)
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]

    def patches(x, name, side):
        batch, height, width, channels = x.shape
        x = x.view(batch, height // side, side, width // side, side, channels).permute(0, 1, 3, 5, 2, 4).flatten(3)
        return x @ state[f"{name}.weight"].flatten(1).T + state[f"{name}.bias"]

    def gelu(x):
        return x * (1 + torch.erf(x / math.sqrt(2))) / 2

    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = norm(patches((pixels.permute(0, 2, 3, 1) - mean) / deviation, "stem.0", 4), "stem.1")
    for stage, depth in enumerate(DEPTHS):
        if stage:
            x = patches(norm(x, f"stages.{stage}.downsample.0"), f"stages.{stage}.downsample.1", 2)
        for name in (f"stages.{stage}.blocks.{block}" for block in range(depth)):
            kernel, (height, width) = state[f"{name}.conv_dw.weight"][:, 0], x.shape[1:3]
            wide = F.pad(x, (0, 0, 3, 3, 3, 3))
            shifted = (wide[:, i : i + height, j : j + width] * kernel[:, i, j] for i in range(7) for j in range(7))
            y = norm(sum(shifted) + state[f"{name}.conv_dw.bias"], f"{name}.norm")
            y = gelu(y @ state[f"{name}.mlp.fc1.weight"].T + state[f"{name}.mlp.fc1.bias"])
            x = x + state[f"{name}.gamma"] * (y @ state[f"{name}.mlp.fc2.weight"].T + state[f"{name}.mlp.fc2.bias"])
    return norm(x.mean((1, 2)), "head.norm") @ state["head.fc.weight"].T + state["head.fc.bias"]


def test_convnext_is_the_network_of_its_paper(network, state):
    pixels = 2 * torch.rand(2, 3, 224, 224) - 0.5  # beyond [0, 1], as a decoder's are
    torch.testing.assert_close(network.logits(pixels), by_formula(state, pixels), rtol=1e-4, atol=1e-4)
    assert not any(p.requires_grad for p in network.parameters()) and not network.training


def test_convnext_resizes_bilinearly_and_clamps_nothing(network):
    pixels = 4 * torch.rand(1, 3, 448, 448) - 0.5
    # At half the size a triangle of four pixels' reach each way weighs 1 3 3 1 eighths; less at the border.
    weights = torch.zeros(224, 448)
    for row in range(224):
        for place, weight in zip(range(2 * row - 1, 2 * row + 3), (1, 3, 3, 1), strict=True):
            if 0 <= place < 448:
                weights[row, place] = weight
    weights = weights / weights.sum(1, keepdim=True)
    resized = weights @ pixels @ weights.T
    torch.testing.assert_close(network.logits(pixels), network.logits(resized), rtol=1e-3, atol=1e-4)
    assert not network.logits(pixels).allclose(network.logits(pixels.clamp(0, 1)), rtol=0, atol=1e-2)


def test_convnext_reads_the_names_of_three_publishers(network, state, tmp_path):
    torch.save({"model": renamed(state, AUTHORS)}, tmp_path / "authors.pth")
    torch.save(renamed(state, TORCHVISION), tmp_path / "torchvision.bin")
    for name in ("authors.pth", "torchvision.bin"):
        other = Tiny(tmp_path / name)
        assert all(a.equal(b) for a, b in zip(network.parameters(), other.parameters(), strict=True)), name


@pytest.mark.parametrize(
    ("layout", "count", "examples"),
    [  # each of the small network's 344 tensors, of which 36 are scales and 154 pairs of a weight and a bias
        (_TORCHVISION, 190, {"features.5.26.layer_scale", "features.6.1", "features.7.2.block.5", "classifier.2"}),
        (_TIMM, 190, {"stages.2.blocks.26.gamma", "stages.3.downsample.1", "stages.3.blocks.2.mlp.fc2", "head.fc"}),
        (_AUTHORS, 190, {"stages.2.26.gamma", "downsample_layers.3.1", "stages.3.2.pwconv2", "head"}),
    ],
)
def test_convnext_is_of_the_published_size(layout, count, examples):
    names = dict(_modules(layout, ConvNeXt.depths))
    assert len(names) == len(set(names.values())) == count and examples <= {*names.values()}
    assert (ConvNeXt.depths, ConvNeXt.widths) == ((3, 3, 27, 3), (96, 192, 384, 768))


def test_convnext_passes_gradients_to_pictures(network):
    pixels = torch.rand(1, 3, 64, 96, requires_grad=True)
    network.logits(pixels).square().mean().backward()
    assert pixels.grad.abs().sum() > 0


def test_convnext_in_bfloat16(state, tmp_path):
    save_file(state, tmp_path / "timm.safetensors")
    before = torch.get_rng_state()
    half = Tiny(tmp_path / "timm.safetensors", torch.bfloat16)
    assert torch.get_rng_state().equal(before), "no random start"
    assert half.logits(torch.rand(1, 3, 64, 64)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head.fc.bias": None}, r"it lacks head\.fc\.bias; ConvNeXt-S is needed, torchvision's convnext_small, say$"),
        (
            {"stages.2.blocks.2.gamma": torch.zeros(8)},
            r"it has unknown tensors stages\.2\.blocks\.2\.gamma; ConvNeXt-S",
        ),
        ({"stem.0.weight": torch.zeros(5, 3, 4, 4)}, r"stem\.0\.weight \(5x3x4x4 instead of 4x3x4x4\); ConvNeXt-S"),
        ({"stem.0.weight": None}, r"it has no features\.0\.0\.weight; ConvNeXt-S is needed, with torchvision's names"),
    ],
)
def test_convnext_takes_no_other_weights(changes, message, state, tmp_path):
    path = tmp_path / "other.pth"
    torch.save({name: value for name, value in (state | changes).items() if value is not None}, path)
    with pytest.raises(WeightsError, match=message) as caught:
        Tiny(path)
    assert str(caught.value).startswith(f"{path} is of another network: ") and "\n" not in str(caught.value)
