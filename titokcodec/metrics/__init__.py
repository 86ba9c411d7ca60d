"""Metrics of pictures, of sets of pictures and of tokens.

    psnr(a, b)                              # (B,) decibels, higher is better; 100 for equal pictures
    ssim(a, b), ms_ssim(a, b)               # (B,) structural similarities, 1 for equal pictures
    LPIPS("lpips.safetensors")(a, b)        # (B,) perceptual distances, lower is better; 0 for equal pictures
    grain(a, 16)                            # (B,) marks on a grid of 16 pixels, lower is better; needs no original
    frechet_distance(x, y)                  # of two sets of features (or x and a Gaussian); FID if they are Inception's
    precision_recall(real, generated)       # of two sets of features
    inception_score(logits)                 # mean and standard deviation
    codebook_usage(tokens, codes)           # share of codes in use, and entropy, over all positions and at each

Pictures are (B, 3, H, W) float tensors in [0, 1], features (N, d), tokens (N, K) integers. ``Inception``,
``EfficientNetLite`` (and ``Lite0``, its smallest variant alone) and ``ConvNeXt`` (ConvNeXt-S) are networks that give
features or logits. Weights are not included: networks take the path of a safetensors or PyTorch file. Importing this
package is instant; torch is loaded with the first metric.
"""

from titokcodec.lazy import importer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from titokcodec.metrics.artifacts import grain
    from titokcodec.metrics.codebook import codebook_usage
    from titokcodec.metrics.convnext import ConvNeXt
    from titokcodec.metrics.distortion import psnr
    from titokcodec.metrics.distributions import Gaussian, frechet_distance, inception_score, precision_recall
    from titokcodec.metrics.efficientnet import EfficientNetLite, Lite0
    from titokcodec.metrics.inception import Inception
    from titokcodec.metrics.lpips import LPIPS
    from titokcodec.metrics.similarity import ms_ssim, ssim

_HOMES = {
    "ConvNeXt": "convnext",
    "Gaussian": "distributions",
    "Inception": "inception",
    "LPIPS": "lpips",
    "EfficientNetLite": "efficientnet",
    "Lite0": "efficientnet",
    "codebook_usage": "codebook",
    "frechet_distance": "distributions",
    "grain": "artifacts",
    "inception_score": "distributions",
    "ms_ssim": "similarity",
    "precision_recall": "distributions",
    "psnr": "distortion",
    "ssim": "similarity",
}

__all__ = [
    "LPIPS",
    "ConvNeXt",
    "EfficientNetLite",
    "Gaussian",
    "Inception",
    "Lite0",
    "codebook_usage",
    "frechet_distance",
    "grain",
    "inception_score",
    "ms_ssim",
    "precision_recall",
    "psnr",
    "ssim",
]

__getattr__ = importer(__name__, _HOMES, globals())


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
