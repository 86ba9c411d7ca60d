"""Makes tests/data/tiny.safetensors, which is committed: golden files depend on its every bit."""

import numpy as np
import torch

from tests.conftest import TINY
from titokcodec import weights
from titokcodec.entropy import FrequencyTables
from titokcodec.models.config import TiTokConfig, Tower
from titokcodec.models.tokenizer import TiTok
from training.starts import start_in_2d

CONFIG = TiTokConfig(
    Tower(32, 1, 2), Tower(32, 1, 2), tokens=16, codes=64, code_width=4, patch_size=32, pool=2, head_width=8,
    head_blocks=1, nested=True, min_tokens=8,
)


def main() -> None:
    """Random weights that still react to the picture, and tables that favour the low codes."""
    torch.manual_seed(0)
    model = TiTok(CONFIG)
    start_in_2d(model)
    model.quantize.embedding.weight.data.normal_()
    model.decoder.ffn.spread[0].weight.data.mul_(10)
    tables = FrequencyTables.from_counts(1000 // np.arange(1, 65)[None])
    print(weights.save(TINY, model, "tiny", tables))


if __name__ == "__main__":
    main()
