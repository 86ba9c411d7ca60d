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
from titokcodec.metrics.lite0 import Lite0
from titokcodec.metrics.similarity import gaussian_blur

from .hyper import PixelTerms

JITTER = 16  # pixels that a pair is shifted by, at most
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
        lpips, classifier: Weight files of the two networks.
        dtype: What the networks are kept in and compute in. All else is float32.
        compiled: For example ``torch.compile``. LPIPS has a shape for each of ``scales``, the classifier one.

    Attributes:
        blur: Pixels of the strongest random blur of what LPIPS compares, so that no single dot satisfies it; 0: none.
        scales: What pairs are shrunk to, one of them at random.
    """

    blur = 0.0
    scales = SCALES

    def __init__(
        self,
        hyper: PixelTerms,
        lpips: Path | None,
        classifier: Path | None,
        dtype: torch.dtype = torch.float32,
        compiled: Callable[[Callable], Callable] = lambda function: function,
    ) -> None:
        super().__init__()
        self.hyper = hyper
        self.lpips = LPIPS(lpips, dtype) if lpips else None
        self.classifier = Lite0(classifier, dtype) if classifier else None
        self.to(memory_format=torch.channels_last)
        if self.lpips:
            self.lpips.forward = compiled(self.lpips.forward)
        if self.classifier:
            self.classifier.maps = compiled(self.classifier.maps)
        marks = {"grain": excess_grain, "texture": texture_distance}
        self.marks = {name: compiled(distance) for name, distance in marks.items() if getattr(hyper, name)}

    def forward(self, decoded: Tensor, target: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, 3, H, W) twice, RGB nominally in [0, 1], and the share of the run that is over -> loss and its parts."""
        hyper = self.hyper
        parts = {"mse": F.mse_loss(decoded, target)}
        loss = hyper.pixels * parts["mse"]
        fade = min(max((progress - hyper.lpips_start) / 0.1, 0.0), 1.0) if hyper.lpips_start else 1.0
        some = torch.randperm(len(target), device=target.device)[: max(1, round(len(target) * hyper.lpips_share))]
        if self.lpips and hyper.lpips_weight * fade:
            pair = jittered(decoded[some].clamp(-0.5, 1.5), target[some], self.blur, self.scales)
            parts["lpips"] = self.lpips(*pair).mean()
            loss = loss + fade * hyper.lpips_weight * parts["lpips"]
        if self.classifier and hyper.logits * fade:
            pair = (x[some].clamp(0, 1).contiguous(memory_format=torch.channels_last) for x in (decoded, target))
            parts["logits"] = F.mse_loss(*(self.classifier.logits(x).float() for x in pair))
            loss = loss + fade * hyper.logits * parts["logits"]
        if self.classifier and hyper.features * fade:
            pair = jittered(decoded[some].clamp(0, 1), target[some], scales=self.scales)
            parts["features"] = self._feature_distance(*pair)
            loss = loss + fade * hyper.features * parts["features"]
        for name, distance in self.marks.items():
            if fade:
                parts[name] = distance(decoded[some].clamp(0, 1), target[some])
                loss = loss + fade * getattr(hyper, name) * parts[name]
        return loss, parts

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

    def _feature_distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean squared distance of the directions of a classifier's features, over its stages and positions, 0 to 4.

        A second network, trained otherwise than LPIPS's, so that exploiting one alone does not pay.
        """
        maps = zip(self.classifier.stages(a), self.classifier.stages(b), strict=True)
        apart = [F.normalize(f.float(), dim=1) - F.normalize(g.float(), dim=1) for f, g in maps]
        return torch.stack([difference.square().sum(1).mean() for difference in apart]).mean()


def jittered(a: Tensor, b: Tensor, blur: float = 0.0, scales: tuple[float, ...] = SCALES) -> tuple[Tensor, Tensor]:
    """Both of a pair of (B, 3, H, W) batches cropped, mirrored, shrunk and blurred by the same random amounts.

    A fixed network on a fixed lattice rewards a fine grain that only it can see; over random transformations there is
    less of it to find (E-LPIPS, Kettunen et al. 2019). Results have one of ``len(scales)`` shapes.

    Args:
        blur: Pixels of the Gaussian's deviation, at most.
        scales: What they are shrunk to, one of them at random.
    """
    top, left = torch.randint(JITTER + 1, (2,)).tolist()
    scale = scales[int(torch.randint(len(scales), ()))]
    mirrored, strength = torch.rand(2).tolist()

    def changed(pixels: Tensor) -> Tensor:
        height, width = (side - JITTER for side in pixels.shape[-2:])
        pixels = pixels[..., top : top + height, left : left + width]
        if mirrored < 0.5:
            pixels = pixels.flip(3)
        if scale < 1:
            pixels = shrunk(pixels, round(height * scale), round(width * scale))
        if blur:
            padded = F.pad(pixels, (BLUR_WINDOW // 2,) * 4, mode="reflect")
            pixels = gaussian_blur(padded, BLUR_WINDOW, max(blur * strength, 0.1))
        return pixels.contiguous(memory_format=torch.channels_last)

    return changed(a), changed(b)


def shrunk(pixels: Tensor, height: int, width: int) -> Tensor:
    """(B, C, H, W) -> (B, C, height, width), bilinear with antialiasing. By two products with matrices: on a GPU, the
    gradient of PyTorch's own kernel takes atomic additions."""
    rows, columns = (reduction(*sides, pixels.device) for sides in zip(pixels.shape[-2:], (height, width), strict=True))
    return rows @ (pixels.float() @ columns.T)


@lru_cache(maxsize=16)
def reduction(large: int, small: int, device: torch.device) -> Tensor:
    """(small, large) float32 weights: each pixel of a smaller row as the mean of larger ones under a triangle."""
    scale = large / small
    centres = (torch.arange(small, dtype=torch.float64) + 0.5) * scale
    apart = (torch.arange(large, dtype=torch.float64) + 0.5 - centres[:, None]).abs() / scale
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
