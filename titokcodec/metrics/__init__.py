"""How like its original a picture is.

    psnr(a, b)                              # (B,) decibels, the higher the better; 100 for equal pictures
    LPIPS(Path("lpips.safetensors"))(a, b)  # (B,) distances, the lower the better; 0 for equal pictures

Pictures are (B, 3, H, W) tensors in [0, 1]. Importing this package is instant; torch is loaded with the first metric.
"""

from titokcodec.lazy import importer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from titokcodec.metrics.distortion import psnr
    from titokcodec.metrics.lpips import LPIPS

_HOMES = {"LPIPS": "lpips", "psnr": "distortion"}

__all__ = ["LPIPS", "psnr"]

__getattr__ = importer(__name__, _HOMES, globals())


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
