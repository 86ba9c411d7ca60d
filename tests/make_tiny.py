"""Made tests/data/tiny.safetensors. Run once; its output is committed, since golden files depend on every bit of it.

    python -m tests.make_tiny

A few minutes of training on crops of the three photographs beside it: enough for tokens that answer to the picture,
pictures that answer to the tokens, and tables that are worth their while. Another run gives another model.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.conftest import DATA, TINY
from titokcodec.format.frequencies import FrequencyTables
from titokcodec.models.config import PRESETS, TiTokConfig, Tower
from titokcodec.weights import tokenizers
from training.data import Pictures
from training.single import main as train

CONFIG = TiTokConfig(
    Tower(32, 1, 2),
    Tower(32, 1, 2),
    tokens=16,
    codes=64,
    code_width=4,
    patch_size=32,
    pool=2,
    head_width=8,
    head_blocks=1,
    nested=True,
    min_tokens=8,
)
MINUTES = "4"


def main() -> None:
    """Cut crops of many sizes, train on them, count codes at every position."""
    PRESETS["tiny"] = CONFIG
    with tempfile.TemporaryDirectory() as folder:
        crops = Path(folder) / "crops"
        write_crops(crops, 600)
        model = train(
            [
                "--preset",
                "tiny",
                "--data",
                str(crops),
                "--out",
                folder,
                "--minutes",
                MINUTES,
                "--batch",
                "8",
                "--rate",
                "2e-3",
                "--muon-rate",
                "0.01",
                "--continuous",
                "0.3",
                "--log-every",
                "100",
                "--no-bf16",
            ]
        )
        pictures = Pictures([crops])
    with torch.no_grad():
        tokens = torch.cat([model.encode(pictures.centre_crops(w)) for w in torch.arange(len(pictures)).split(50)])
    counts = [np.bincount(column, minlength=CONFIG.codes) for column in tokens.T.numpy()]
    print(tokenizers.save(TINY, model, "tiny", FrequencyTables.from_counts(np.stack(counts))))


def write_crops(folder: Path, count: int) -> None:
    """Random parts of the photographs, each scaled to 280 x 280 pixels."""
    folder.mkdir()
    photos = [Image.open(path).convert("RGB") for path in sorted(DATA.glob("*.jpg"))]
    random = np.random.default_rng(0)
    for number in range(count):
        photo = photos[number % len(photos)]
        side = int(random.integers(120, min(photo.size) + 1))
        left, top = (int(random.integers(0, spare - side + 1)) for spare in photo.size)
        crop = photo.resize((280, 280), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
        crop.save(folder / f"{number:03}.png")


if __name__ == "__main__":
    main()
