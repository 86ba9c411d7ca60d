"""The Inception network of published FIDs and Inception Scores, weights given by path.

InceptionV3 (Szegedy et al. 2015) as the TensorFlow graph of 2015-12-05 has it, which differs from later ones: average
pools leave the padding out, the last block takes the maximum instead, and there are 1008 classes. The port that
everybody compares with is pytorch-fid's ``pt_inception-2015-12-05-6726825d.pth``; its names are torchvision's.

What comes before the network is the graph's too: a resize that puts pixel i of 299 at i length / 299 of the picture,
not at the middle of what it covers, and (x - 128) / 128 of 8-bit values x. So do the evaluations that published figures
come from: ADM's suite and TF-GAN, which run the graph itself, torch-fidelity, and with it TiTok's evaluator. The class
that pytorch-fid wraps around the same weights resizes with centred pixels and takes x / 127.5 - 1: its figures are
near, and not comparable.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.metrics.folding import PARTS, fold
from titokcodec.weights.state_dicts import open_state_dict

SIDE = 299  # pixels that the network was trained at
FEATURES, CLASSES = 2048, 1008

_EPSILON = 1e-3  # of every BatchNorm

Conv = tuple[str, int, int | tuple[int, int]]  # name, channels, kernel
Branch = tuple[Conv | tuple[Conv, ...], ...]  # a tuple among the convolutions: all read the same, and are stacked


def _seven(name: str, inner: int, *kernels: tuple[int, int]) -> Branch:
    """A 1x1 convolution, then long thin ones; the last has 192 channels."""
    thin = [(f"{name}_{n}", inner, kernel) for n, kernel in enumerate(kernels, 2)]
    return ((f"{name}_1", inner, 1), *thin[:-1], (thin[-1][0], 192, kernels[-1]))


def _a(pool: int) -> tuple[Branch, ...]:
    return (
        (("branch1x1", 64, 1),),
        (("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
        (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)),
        (("branch_pool", pool, 1),),
    )


def _c(inner: int) -> tuple[Branch, ...]:
    across, down = (1, 7), (7, 1)
    return (
        (("branch1x1", 192, 1),),
        _seven("branch7x7", inner, across, down),
        _seven("branch7x7dbl", inner, down, across, down, across),
        (("branch_pool", 192, 1),),
    )


def _fork(name: str) -> tuple[Conv, ...]:
    return (f"{name}a", 384, (1, 3)), (f"{name}b", 384, (3, 1))


_B = ((("branch3x3", 384, 3),), (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)))
_D = (
    (("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3)),
    (*_seven("branch7x7x3", 192, (1, 7), (7, 1)), ("branch7x7x3_4", 192, 3)),
)
_E = (
    (("branch1x1", 320, 1),),
    (("branch3x3_1", 384, 1), _fork("branch3x3_2")),
    (("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3), _fork("branch3x3dbl_3")),
    (("branch_pool", 192, 1),),
)
_STEM = (  # name, channels, kernel, stride, padding; None is a max pooling
    ("Conv2d_1a_3x3", 32, 3, 2, 0),
    ("Conv2d_2a_3x3", 32, 3, 1, 0),
    ("Conv2d_2b_3x3", 64, 3, 1, 1),
    None,
    ("Conv2d_3b_1x1", 80, 1, 1, 0),
    ("Conv2d_4a_3x3", 192, 3, 1, 0),
    None,
)
_BLOCKS = (  # name, branches, pooling
    ("Mixed_5b", _a(32), "mean"),
    ("Mixed_5c", _a(64), "mean"),
    ("Mixed_5d", _a(64), "mean"),
    ("Mixed_6a", _B, "halve"),
    ("Mixed_6b", _c(128), "mean"),
    ("Mixed_6c", _c(160), "mean"),
    ("Mixed_6d", _c(160), "mean"),
    ("Mixed_6e", _c(192), "mean"),
    ("Mixed_7a", _D, "halve"),
    ("Mixed_7b", _E, "mean"),
    ("Mixed_7c", _E, "max"),
)


def reference_dtype(device: torch.device) -> torch.dtype:
    """What ``Inception`` computes in for figures that compare with published ones: float32 does on a CPU, but on GPUs
    its convolutions round to TF32, so there it is the published evaluator's float64."""
    return torch.float64 if device.type == "cuda" else torch.float32


class Inception(nn.Module):
    """The network, frozen, BatchNorm folded; differentiable in its input.

    All methods take (B, 3, H, W) RGB in [0, 1] and resize it to 299 x 299 themselves, as the graph does. For figures
    that can be compared with published ones, round pixels to 8 bits first, as pictures on disk are.

    Args:
        path: ``.pth`` state dict or ``.safetensors`` with torchvision's names: ``NAME.conv.weight``,
            ``NAME.bn.{weight,bias,running_mean,running_var}``, ``fc.{weight,bias}``. An auxiliary classifier and
            counters of batches are passed over.
        dtype: What the network computes in, see ``reference_dtype``. On a CPU float32 gives features within 1e-6 of
            float64's.

    Raises:
        WeightsError: the file is not of this network.
    """

    def __init__(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        with torch.device("meta"):  # no random start: it would take time and move the caller's generator
            width = 3
            for layer in _STEM:
                if layer:
                    name, channels, kernel, stride, padding = layer
                    self.add_module(name, nn.Conv2d(width, channels, kernel, stride, padding))
                    width = channels
            for name, branches, pooling in _BLOCKS:
                block = _Mixed(width, branches, pooling)
                self.add_module(name, block)
                width = block.channels
            self.fc = nn.Linear(width, CLASSES)
        self.load_state_dict({name: value.to(dtype) for name, value in _folded(path, self).items()}, assign=True)
        self.eval().requires_grad_(False)

    def pooled(self, pixels: Tensor) -> Tensor:
        """(B, 2048): the features that FID compares."""
        x = (_resized(_resized(pixels.to(self.fc.weight.dtype) * 255, 3), 2) - 128) / 128
        for layer in _STEM:
            x = self.get_submodule(layer[0])(x).relu() if layer else F.max_pool2d(x, 3, 2)
        for name, _, _ in _BLOCKS:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))

    def classify(self, features: Tensor, bias: bool = False) -> Tensor:
        """(B, 2048) pooled features -> (B, 1008) logits.

        Without ``bias`` unless asked for: the code that Inception Scores were first computed with leaves it out
        (Salimans et al. 2016), and so do all that compare with it.
        """
        return F.linear(features, self.fc.weight, self.fc.bias if bias else None)

    def logits(self, pixels: Tensor, bias: bool = False) -> Tensor:
        """(B, 1008) logits, see ``classify``."""
        return self.classify(self.pooled(pixels), bias)


class _Mixed(nn.Module):
    """Branches side by side, their outputs stacked; with "halve", all their last steps halve the picture."""

    def __init__(self, width: int, branches: tuple[Branch, ...], pooling: str) -> None:
        super().__init__()
        self.branches, self.pooling = branches, pooling
        self.channels = width if pooling == "halve" else 0
        for branch in branches:
            inside = width
            for step in branch:
                convs = step if isinstance(step[0], tuple) else (step,)
                last = pooling == "halve" and step is branch[-1]
                for name, channels, kernel in convs:
                    across = (kernel, kernel) if isinstance(kernel, int) else kernel
                    padding = (0, 0) if last else (across[0] // 2, across[1] // 2)
                    self.add_module(name, nn.Conv2d(inside, channels, across, 2 if last else 1, padding))
                inside = sum(channels for _, channels, _ in convs)
            self.channels += inside

    def forward(self, x: Tensor) -> Tensor:
        outputs = [self._branch(x, branch) for branch in self.branches]
        if self.pooling == "halve":
            outputs.append(F.max_pool2d(x, 3, 2))
        return torch.cat(outputs, dim=1)

    def _branch(self, x: Tensor, branch: Branch) -> Tensor:
        if branch[0][0] == "branch_pool":
            highest = self.pooling == "max"
            x = F.max_pool2d(x, 3, 1, 1) if highest else F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        for step in branch:
            convs = step if isinstance(step[0], tuple) else (step,)
            x = torch.cat([self.get_submodule(name)(x).relu() for name, _, _ in convs], dim=1)
        return x


def _resized(x: Tensor, axis: int) -> Tensor:
    """One axis of length n to 299, as TensorFlow 1 does: value i is interpolated linearly at i n / 299.

    If n < 299 the last ones lie beyond the last pixel, and repeat it.
    """
    length = x.shape[axis]
    if length == SIDE:
        return x
    places = torch.arange(SIDE, device=x.device, dtype=torch.float64) * length / SIDE
    before = places.long()
    after = (before + 1).clamp_max(length - 1)
    share = (places - before).to(x.dtype).view(-1, *[1] * (x.ndim - 1 - axis))
    return torch.lerp(x.index_select(axis, before), x.index_select(axis, after), share)


def _folded(path: Path, network: Inception) -> dict[str, Tensor]:
    """The file's tensors under the network's names, each BatchNorm multiplied, in float64, into the convolution before
    it."""
    file = open_state_dict(path)
    unused = {name for name in file.shapes if name.startswith("AuxLogits.") or name.endswith(".num_batches_tracked")}
    convs = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    shapes: dict[str, tuple[int, ...]] = {"fc.weight": (CLASSES, FEATURES), "fc.bias": (CLASSES,)}
    for name, conv in convs.items():
        shapes[f"{name}.conv.weight"] = tuple(conv.weight.shape)
        shapes |= {f"{name}.bn.{part}": (conv.out_channels,) for part in PARTS}
    file.check(shapes, unused)
    state = {name: file.tensor(name) for name in ("fc.weight", "fc.bias")}
    for name in convs:
        state[f"{name}.weight"], state[f"{name}.bias"] = fold(file, f"{name}.conv", f"{name}.bn", _EPSILON)
    return state
