"""A critic that learns from few pictures: small heads on the features of a frozen classifier (Sauer et al. 2021,
"Projected GANs Converge Faster"), and one on pixels.

A discriminator trained from nothing memorises its 20,000 pictures within minutes. Here features are given, and the
heads have little to learn; fixed random projections mix channels and strides, lest a head rely on a few features alone.
The head on pixels sees what the classifier does not: grain, and marks that repeat.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from titokcodec.metrics.efficientnet import Lite0

SLOPE = 0.2  # of every LeakyReLU
TAPS = ((2, 40), (4, 112), (6, 320))  # stage of the classifier and its channels: strides 8, 16 and 32
WIDTH = 64  # channels after the projections, and of the heads
MARGIN = 32  # pixels that a random crop leaves out in each direction, at most
GAIN, OFFSET = 0.2, 0.1  # strongest changes of contrast, saturation and brightness
HOLE = 0.35  # side of the hole in a picture, as a share of the picture's


class FeatureCritic(nn.Module):
    """(B, 3, H, W) RGB in [0, 1] -> four maps (B, 1, h, w) of logits, high where the picture looks real.

    At 256 x 256 pixels, three maps of 28, 14 and 7 cells across see the classifier's features at strides 8, 16 and
    32; the fourth, of 56, patches of 26 pixels. Sides must be multiples of 32. Pictures are clamped, then changed at
    random, decoded ones and originals alike (Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN
    Training"). Lite0 is no part of the state dict.

    Args:
        lite0: The classifier, which stays where it is when this module is moved. In bfloat16 it needs autocast.
    """

    def __init__(self, lite0: Lite0) -> None:
        super().__init__()
        self.networks = (lite0,)  # a tuple, so that it is neither trained nor saved
        self.mixes = nn.ModuleList(nn.Conv2d(channels, WIDTH, 1, bias=False) for _, channels in TAPS)
        self.descents = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False) for _ in TAPS[1:])
        for projection in (*self.mixes, *self.descents):
            nn.init.kaiming_normal_(projection.weight, nonlinearity="linear")
            projection.requires_grad_(False)
        self.heads = nn.ModuleList(nn.Sequential(*_head(WIDTH)) for _ in TAPS)
        self.patches = nn.Sequential(*_halved(3, 32), *_halved(32, WIDTH), *_head(WIDTH))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        pixels = augmented(pixels.clamp(0, 1))
        found = self.projected(pixels)
        with torch.autocast(pixels.device.type, enabled=False):  # spectral norms want one precision, and cost little
            logits = [head(x.float()) for head, x in zip(self.heads, found, strict=True)]
            return [*logits, self.patches(pixels.float() - 0.5)]

    def projected(self, pixels: Tensor) -> list[Tensor]:
        """The classifier's features, from fine to coarse, each mixed with the coarser ones: (B, WIDTH, h, w)."""
        maps = self.networks[0].maps(pixels, TAPS[-1][0] + 1)
        mixed = [mix(_level(maps[stage])) for mix, (stage, _) in zip(self.mixes, TAPS, strict=True)]
        for finer in range(len(mixed) - 2, -1, -1):
            above = F.interpolate(mixed[finer + 1], mixed[finer].shape[-2:], mode="nearest")
            mixed[finer] = mixed[finer] + self.descents[finer](above)
        return mixed


def _level(x: Tensor) -> Tensor:
    """Of unit mean square in each picture, whatever the stage: no stage dominates the projections."""
    return x * x.float().square().mean((1, 2, 3), keepdim=True).add(1e-6).rsqrt().to(x.dtype)


def _head(width: int) -> list[nn.Module]:
    first, last = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)
    return [spectral_norm(first), nn.LeakyReLU(SLOPE), spectral_norm(last)]


def _halved(width: int, after: int) -> list[nn.Module]:
    return [spectral_norm(nn.Conv2d(width, after, 4, stride=2, padding=1)), nn.LeakyReLU(SLOPE)]


def augmented(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) pictures cropped and mirrored, the same way for the whole batch, each with other colours and a hole.

    Differentiable; results may lie slightly outside of [0, 1]. The crop leaves out 32 pixels in each direction if there
    are more than 64, so that a classifier's strides divide what is left.
    """
    height, width = pixels.shape[-2:]
    margin = MARGIN if min(height, width) > 2 * MARGIN else 0
    top, left = torch.randint(margin + 1, (2,)).tolist()
    pixels = pixels[..., top : top + height - margin, left : left + width - margin]
    if torch.rand(()).item() < 0.5:
        pixels = pixels.flip(3)
    contrast, saturation, brightness = torch.rand(3, len(pixels), 1, 1, 1, device=pixels.device) * 2 - 1
    grey, mean = pixels.mean(1, keepdim=True), pixels.mean((1, 2, 3), keepdim=True)
    pixels = grey + (pixels - grey) * (1 + GAIN * saturation)
    pixels = mean + (pixels - mean) * (1 + GAIN * contrast) + OFFSET * brightness
    return (pixels * _holes(pixels)).contiguous(memory_format=torch.channels_last)


def _holes(pixels: Tensor) -> Tensor:
    """(B, 1, H, W) ones, with a square of zeros at a random position of each picture."""
    kept = 1.0
    for axis in (2, 3):
        side = pixels.shape[axis]
        positions = torch.arange(side, device=pixels.device).view(*([1] * axis), side, *([1] * (3 - axis)))
        first = torch.rand(len(pixels), 1, 1, 1, device=pixels.device) * (1 + HOLE) * side - HOLE * side
        inside = ((positions >= first) & (positions < first + HOLE * side)).to(pixels.dtype)
        kept = kept * inside
    return 1 - kept
