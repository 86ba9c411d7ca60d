"""The old name of ``titokcodec.metrics.efficientnet``, for checkouts whose ``training`` is a few hours older."""

from titokcodec.metrics.efficientnet import SIDE, Conv, Lite0

__all__ = ["SIDE", "Conv", "Lite0"]
