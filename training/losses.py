"""What a decoded picture is compared by: squared error, LPIPS, a classifier's logits and features, marks on a grid, and
texture. Weights are given by path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.metrics import LPIPS
from titokcodec.metrics.artifacts import PERIODS, detail_energy, fine_detail, unevenness
from titokcodec.metrics.convnext import ConvNeXt
from titokcodec.metrics.efficientnet import SIDE, Lite0
from titokcodec.metrics.similarity import gaussian_blur

from .hyper import PixelTerms

SCALES = (1.0, 0.85, 0.75, 0.6)  # that a pair is shrunk to; few, so that convolutions are planned once for each
BLUR_WINDOW = 7  # pixels
TILE = 8  # cells of a grid, in each direction, over which marks are looked for
AXES = ((3**-0.5,) * 3, (2**-0.5, -(2**-0.5), 0.0), (6**-0.5, 6**-0.5, -2 * 6**-0.5))  # grey and two colours
LAGS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0), (2, 2), (2, -2))  # pixels down and to the right
REACH = 2  # pixels: the longest of these
TEXTURE_WINDOW = 32  # pixels


class PixelLoss(nn.Module):
    """All of the losses, weighted as ``hyper`` says; a term without weight or network is left out.

    To be called outside of autocast, which would cast weights that are not trained at every use.

    Args:
        hyper: Weights of the terms.
        lpips, lite0, convnext: Weight files of the networks. Logits are ConvNeXt's or, without it, Lite0's; features
            are Lite0's.
        dtype: What the networks are kept in and compute in. All else is float32.
        compiled: For example ``torch.compile``. LPIPS has a shape for each of ``scales``, the classifiers one.

    Attributes:
        blur: Pixels of the strongest random blur of what LPIPS compares, so that no single dot satisfies it; 0: none.
        scales: What pairs are shrunk to, one of them at random.
    """

    blur = 0.0
    scales = SCALES

    def __init__(
        self,
        hyper: PixelTerms,
        lpips: Path | None = None,
        lite0: Path | None = None,
        convnext: Path | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        compiled: Callable[[Callable], Callable] = lambda function: function,
    ) -> None:
        super().__init__()
        self.hyper = hyper
        self.lpips = LPIPS(lpips, dtype) if lpips else None
        self.lite0 = Lite0(lite0, dtype) if lite0 else None
        self.convnext = ConvNeXt(convnext, dtype) if convnext else None
        self.to(memory_format=torch.channels_last)
        if self.lpips:
            self.lpips.forward = compiled(self.lpips.forward)
        if self.lite0:
            self.lite0.maps = compiled(self.lite0.maps)
        if self.convnext:
            self.convnext.logits = compiled(self.convnext.logits)
        marks = {"grain": excess_grain, "texture": texture_distance}
        self.marks = {name: compiled(distance) for name, distance in marks.items() if getattr(hyper, name)}

    def forward(self, decoded: Tensor, target: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, 3, H, W) twice, RGB nominally in [0, 1], and the share of the run that is over -> loss and its parts."""
        hyper = self.hyper
        parts = {"mse": F.mse_loss(decoded, target)}
        loss = hyper.pixels * parts["mse"]
        fade = min(max((progress - hyper.lpips_start) / 0.1, 0.0), 1.0) if hyper.lpips_start else 1.0
        if not fade:
            return loss, parts
        some: Tensor | slice = slice(None)
        if hyper.lpips_share < 1:
            count = max(1, round(len(target) * hyper.lpips_share))
            some = torch.randperm(len(target), device=target.device)[:count]
        for name, weight, distance in self._terms():
            parts[name] = distance(decoded[some], target[some])
            loss = loss + fade * weight * parts[name]
        return loss, parts

    def _terms(self) -> Iterator[tuple[str, float, Callable[[Tensor, Tensor], Tensor]]]:
        """Names, weights and distances of all terms but the squared error."""
        hyper = self.hyper
        if self.lpips and hyper.lpips_weight:
            yield "lpips", hyper.lpips_weight, self._lpips_distance
        if self.classifier and hyper.logits:
            yield "logits", hyper.logits, self._logit_distance
        if self.lite0 and hyper.features:
            yield "features", hyper.features, self._feature_distance
        for name, distance in self.marks.items():
            yield name, getattr(hyper, name), lambda a, b, distance=distance: distance(a.clamp(0, 1), b)

    @property
    def classifier(self) -> ConvNeXt | Lite0 | None:
        """The network whose logits are compared."""
        return self.convnext or self.lite0

    def each_scale(self) -> Iterator[AbstractContextManager]:
        """A context for each scale that LPIPS may compare pictures at, in which it is the only one."""
        compared = self.scales if self.lpips and self.hyper.lpips_weight else self.scales[:1]
        return (self._only(scale) for scale in compared)

    @contextmanager
    def _only(self, scale: float) -> Iterator[None]:
        before, self.scales = self.scales, (scale,)
        try:
            yield
        finally:
            self.scales = before

    def _lpips_distance(self, decoded: Tensor, target: Tensor) -> Tensor:
        if not self.hyper.jitter:
            return self.lpips(decoded, target).mean()
        pair = jittered(decoded.clamp(-0.5, 1.5), target, self.hyper.jitter, self.blur, self.scales)
        return self.lpips(*pair).mean()

    def _logit_distance(self, decoded: Tensor, target: Tensor) -> Tensor:
        """Of whole pictures, not clamped, at 224 x 224 (bilinear with antialiasing), as published."""
        pair = (resized(x, SIDE, SIDE).contiguous(memory_format=torch.channels_last) for x in (decoded, target))
        return F.mse_loss(*(self.classifier.logits(x).float() for x in pair))

    def _feature_distance(self, decoded: Tensor, target: Tensor) -> Tensor:
        """Mean squared distance of the directions of a classifier's features, over its stages and positions, 0 to 4.

        A second network, trained otherwise than LPIPS's, so that exploiting one alone does not pay.
        """
        pair = decoded.clamp(0, 1), target
        if self.hyper.jitter:
            pair = jittered(*pair, self.hyper.jitter, scales=self.scales)
        maps = zip(*map(self.lite0.stages, pair), strict=True)
        apart = [F.normalize(f.float(), dim=1) - F.normalize(g.float(), dim=1) for f, g in maps]
        return torch.stack([difference.square().sum(1).mean() for difference in apart]).mean()


def jittered(
    a: Tensor, b: Tensor, most: int, blur: float = 0.0, scales: tuple[float, ...] = SCALES
) -> tuple[Tensor, Tensor]:
    """Both of a pair of (B, 3, H, W) batches cropped, mirrored, shrunk and blurred by the same random amounts.

    A fixed network on a fixed lattice rewards a fine grain that only it can see; over random transformations there is
    less of it to find (E-LPIPS, Kettunen et al. 2019). Results have one of ``len(scales)`` shapes.

    Args:
        most: Pixels that crops are shifted by, at most; they are smaller than the pictures by as many.
        blur: Pixels of the Gaussian's deviation, at most.
        scales: What they are shrunk to, one of them at random.
    """
    top, left = torch.randint(most + 1, (2,)).tolist()
    scale = scales[int(torch.randint(len(scales), ()))]
    mirrored, strength = torch.rand(2).tolist()

    def changed(pixels: Tensor) -> Tensor:
        height, width = (side - most for side in pixels.shape[-2:])
        pixels = pixels[..., top : top + height, left : left + width]
        if mirrored < 0.5:
            pixels = pixels.flip(3)
        if scale < 1:
            pixels = resized(pixels, round(height * scale), round(width * scale))
        if blur:
            padded = F.pad(pixels, (BLUR_WINDOW // 2,) * 4, mode="reflect")
            pixels = gaussian_blur(padded, BLUR_WINDOW, max(blur * strength, 0.1))
        return pixels.contiguous(memory_format=torch.channels_last)

    return changed(a), changed(b)


def resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """(B, C, H, W) -> (B, C, height, width), bilinear, with antialiasing where it gets smaller.

    By two products with matrices: on a GPU, the gradient of PyTorch's own kernel takes atomic additions.
    """
    rows, columns = (
        resampling(*sides, pixels.device) for sides in zip(pixels.shape[-2:], (height, width), strict=True)
    )
    return rows @ (pixels.float() @ columns.T)


@lru_cache(maxsize=16)
def resampling(before: int, after: int, device: torch.device) -> Tensor:
    """(after, before) float32 weights: each pixel of one row as the mean of another's under a triangle."""
    scale = before / after
    centres = (torch.arange(after, dtype=torch.float64) + 0.5) * scale
    apart = (torch.arange(before, dtype=torch.float64) + 0.5 - centres[:, None]).abs() / max(scale, 1.0)
    weights = (1 - apart).clamp_min(0)
    return (weights / weights.sum(1, keepdim=True)).float().to(device)


def excess_grain(decoded: Tensor, target: Tensor) -> Tensor:
    """By how much marks on a grid in (B, 3, H, W) decoded pictures exceed those in the originals; differentiable.

    The mean over tiles of 8 x 8 cells, so that marks in a small part of a picture count, and over all ``PERIODS`` of
    which two cells fit into a picture.
    """
    energies, shortest = (detail_energy(decoded), detail_energy(target)), min(target.shape[-2:])
    found = []
    for period in PERIODS:
        if 2 * period <= shortest:
            a, b = (unevenness(_tiles(energy, min(TILE, shortest // period) * period), period) for energy in energies)
            found.append((a - b.detach()).relu().mean())
    return torch.stack(found).mean()


def _tiles(planes: Tensor, side: int) -> Tensor:
    """All whole squares of (B, H, W) planes: (n, side, side)."""
    rows, columns = (length // side for length in planes.shape[-2:])
    planes = planes[:, : rows * side, : columns * side]
    return planes.unflatten(1, (rows, side)).unflatten(3, (columns, side)).transpose(2, 3).flatten(0, 2)


def texture_distance(decoded: Tensor, target: Tensor) -> Tensor:
    """How unlike the fine detail of (B, 3, H, W) decoded pictures is to that of the originals: direction, colour, dots.

    The mean absolute difference of ``texture``. It asks neither for an amount of detail nor for its position.
    """
    return (texture(decoded) - texture(target).detach()).abs().mean()


def texture(pixels: Tensor) -> Tensor:
    """(B, 14, h, w) shares of the energy of fine detail, in windows of 32 pixels of which each overlaps half the next.

    Grey detail times itself at a distance (``LAGS``): its direction and coarseness. Two colours squared and times grey:
    how colourful it is. Its size with its sign, and its mean size squared: whether it is made of dark or bright dots.
    All of these as shares of the whole energy, nearly 0 where there is hardly any.
    """
    channels = fine_detail(pixels).unbind(1)
    planes = [sum(share * channel for share, channel in zip(axis, channels, strict=True)) for axis in AXES]
    grey, *colours = (plane[:, REACH:-REACH, REACH:-REACH] for plane in planes)
    height, width = grey.shape[1:]
    products = [sum(plane.square() for plane in (grey, *colours))]
    for down, right in LAGS:
        products.append(grey * planes[0][:, REACH + down :, REACH + right :][:, :height, :width])
    products += [colour * other for colour in colours for other in (colour, grey)]
    products += [grey * grey.abs(), grey.abs()]
    means = F.avg_pool2d(torch.stack(products, 1), TEXTURE_WINDOW, TEXTURE_WINDOW // 2)
    energy, *shares, size = means.unbind(1)
    return torch.stack([*shares, size.square()], 1) / (energy.unsqueeze(1) + 1)
