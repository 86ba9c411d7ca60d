"""What one must know to repeat the rate-distortion benchmark: ``protocol.json``."""

from __future__ import annotations

import argparse
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from PIL import features

from titokcodec.metrics.scores import METRICS, Judge
from titokcodec.search import default_steps

from . import intervals, rivals
from .originals import CROPS, Original
from .ours import TARGET, Entrant
from .thumbnails import PATIENCE

PACKAGES = ("titokcodec", "torch", "numpy", "pillow", "pillow-jxl-plugin", "ssimulacra2", "scipy")
LIBRARIES = ("libjpeg_turbo", "webp", "avif")  # of Pillow's


def protocol(
    pictures: Sequence[Original],
    models: Sequence[Entrant],
    methods: Sequence[str],
    judge: Judge,
    skipped: dict[str, str],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """What one must know to repeat it."""
    measured = {name: metric for name, metric in METRICS.items() if name not in skipped}
    return {
        "pictures": [
            {"name": original.name, "sha256": original.sha256, "width": original.size[0], "height": original.size[1]}
            for original in pictures
        ],
        "size": options.size,
        "crop": CROPS[options.size],
        **_compared(options.score_side),
        "budgets": sorted(set(options.budgets)),
        "models": [described(entrant) for entrant in models],
        "weights": "a model's weights are not part of the rate",
        "formats": rivals.settings(methods),
        "methods": list(methods),
        "thumbnails": "down with Lanczos, up with bicubic; of each side the highest quality that fits, and for each "
        "picture, budget and metric the best side, looked for from the last budget's both ways until "
        f"{PATIENCE} sides in a row were best by no metric",
        "chooser": f"set metrics take the thumbnails that are best by {judge.chooser}, the gallery those that are best "
        f"by {judge.display_metric}; its worst and best pictures are those of titok by {judge.chooser}",
        "bytes": "of a thumbnail's point those of the longest file that is best by any metric; mean_bytes has each",
        "payload": "whole files less the format's fixed_bytes; of titok's less their header",
        "metrics": {
            name: {"higher_is_better": metric.higher, "about": metric.about} for name, metric in measured.items()
        },
        "intervals": f"95 %: of means by bootstrap over pictures ({intervals.RESAMPLES} resamples, seed "
        f"{intervals.SEED}), of win rates by Wilson's score",
        "skipped": skipped,
        "versions": versions(),
        "commit": commit(),
        "machine": platform.machine(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _compared(side: int | None) -> dict[str, str]:
    """How a protocol describes it where pictures are not compared at their own size."""
    if side is None:
        return {}
    about = (
        f"pictures of more than {side} pixels on their longer side as Lanczos reduces them to {side}: metrics, the "
        "gallery, and rivals, whose files are made from the reduced picture; titok compresses the whole picture "
        f"and decompresses it with max_side={side}; bits per pixel are those of the whole picture"
    )
    return {"compared": about}


def described(entrant: Entrant) -> dict[str, Any]:
    """How a protocol describes a model."""
    codec = entrant.codec
    opened = codec.weights
    points = {way: list(entrant.points(way)) for way in entrant.ways}
    return {
        "name": opened.name,
        "fingerprint": opened.fingerprint.hex(),
        "weights_bytes": opened.path.stat().st_size,
        "methods": [entrant.method(way) for way in entrant.ways],
        "tokens": next((points[layout] for layout in entrant.layouts), []),
        "target_bytes": points.get(TARGET, []),
        "effort": {way: _effort(entrant, way) for way in entrant.ways},
        "device": str(codec.device),
        "dtype": str(codec.dtype).removeprefix("torch."),
    }


def _effort(entrant: Entrant, way: str) -> int | str:
    """Steps of the search for tokens; where the number of tiles decides and differs by picture, that in words."""
    if entrant.effort is not None:
        return entrant.effort
    if way == TARGET:
        return "as when compressing"
    return default_steps(entrant.codec.weights.config, 2 if way == "tile" else 1)


def versions() -> dict[str, str]:
    """Of Python, packages, and the libraries inside Pillow."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | {name: str(features.version(name)) for name in LIBRARIES if features.version(name)}


def commit() -> str:
    """Of the repository that this file lies in, with ``-dirty`` where something is not committed."""
    line = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(line, cwd=Path(__file__).parent, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
