"""Turn a checkpoint into the weight file that users get: averaged weights, int8 matrices, entropy tables.

    python -m training.export runs/a/state.pt titok.safetensors --name my-model --data train/

The tables count how often the model uses each code on the given pictures. One table for all positions and one for each
are both measured on pictures that were not counted, and the better one is kept if it saves anything.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from titokcodec import weights
from titokcodec.models.config import TiTokConfig
from titokcodec.models.tokenizer import TiTok
from titokcodec.tables import FrequencyTables
from training.data import Pictures
from training.engine import load_state

BACKING = 64  # weight, in tokens, of the shared distribution inside each position's own
WORTH = 0.01  # bits a token that a table must save to be stored


def load_averaged(path: Path) -> TiTok:
    """The averaged model of a training checkpoint, in evaluation mode. Raises ``SystemExit`` if it draws no pixels."""
    state = load_state(path, torch.device("cpu"))
    if state["stage"] == "vqgan":
        raise SystemExit(f"{path} is a 2D tokenizer's: what training.stage1 reads lies beside it, vqgan.safetensors")
    if state["stage"] == "stage1" and "decoder.ffn.layers.0.weight" in state["ema"]:
        raise SystemExit(f"{path} draws proxy codes, not pixels: run training.stage2 --init {path} first")
    model = TiTok(TiTokConfig.from_json(state["config"]))
    model.load_state_dict(state["ema"])
    return model.eval().requires_grad_(False)


@torch.no_grad()
def tokenize(model: TiTok, pictures: Pictures, batch: int = 32) -> np.ndarray:
    """(pictures, K) tokens of the centre crops."""
    parts = torch.arange(len(pictures)).split(batch)
    return torch.cat([model.encode(pictures.centre_crops(which)).cpu() for which in parts]).numpy()


def candidates(tokens: np.ndarray, codes: int) -> dict[str, FrequencyTables]:
    """Tables from (pictures, K) tokens: ``shared`` by all positions, and one ``each``, backed by the shared one."""
    shared = np.bincount(tokens.ravel(), minlength=codes)
    own = np.stack([np.bincount(column, minlength=codes) for column in tokens.T])
    backed = own * 1000 + (BACKING * 1000 * shared[None] // max(shared.sum(), 1))
    return {"shared": FrequencyTables.from_counts(shared[None]), "each": FrequencyTables.from_counts(backed)}


def bits(tables: FrequencyTables, tokens: np.ndarray) -> float:
    """Mean bits a token that the tables give (pictures, K) tokens."""
    coded = tables.frequencies.astype(np.int64) + 1
    rows = np.zeros(tokens.shape[1], np.int64) if tables.shared else np.arange(tokens.shape[1])
    return float(-np.log2(coded[rows[None], tokens] / 2**24).mean())


def choose_tables(tokens: np.ndarray, codes: int) -> tuple[FrequencyTables | None, dict[str, float]]:
    """The tables that code unseen pictures best, made from all tokens, and the bits each kind was measured at."""
    split = len(tokens) * 4 // 5
    measured = {kind: bits(tables, tokens[split:]) for kind, tables in candidates(tokens[:split], codes).items()}
    best = min(measured, key=measured.get)
    measured["packed"] = float(np.ceil(np.log2(codes)))
    if measured[best] > measured["packed"] - WORTH:
        return None, measured
    if measured["shared"] - measured[best] < WORTH:
        best = "shared"  # a hundred times smaller, and faster
    return candidates(tokens, codes)[best], measured


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state", type=Path, help="checkpoint of a training run")
    parser.add_argument("out", type=Path, help="weight file to write")
    parser.add_argument("--name", required=True, help="what the model is to be called")
    parser.add_argument("--data", type=Path, nargs="+", help="pictures to count codes on; without, no tables")
    parser.add_argument("--limit", type=int, help="count on the first pictures only")
    parser.add_argument("--fp16", action="store_true", help="store matrices as float16 instead of int8")
    options = parser.parse_args(arguments)
    model = load_averaged(options.state)
    tables, measured = None, {}
    if options.data:
        pictures = Pictures(options.data, model.config.image_size, options.limit)
        tables, measured = choose_tables(tokenize(model, pictures), model.config.codes)
    saved = weights.save(options.out, model, options.name, tables, int8=not options.fp16)
    about = {"fingerprint": saved.fingerprint.hex(), "bytes": options.out.stat().st_size, "bits": measured}
    print(json.dumps(about, indent=2))


if __name__ == "__main__":
    main()
