"""Turn a checkpoint into the weight file that users get: averaged weights, int8 matrices, entropy tables.

    python -m training.export runs/a/state.pt titok.safetensors --name my-model --data train/

The tables count how often the model uses each code on the given pictures. One table for all positions and one for each
(of a model with several codebooks, one for each of these) are both measured on pictures that were not counted, and the
better one is kept if it saves anything. Where there is CUDA, pictures are encoded there.

    python -m training.export early.safetensors titok.safetensors --name my-model --data train/

takes a weight file instead of a checkpoint: one written by --fp16, say, gets tables and int8 matrices later.

    python -m training.export runs/stage2/state.pt titok.safetensors --name my-model --blend runs/single/state.pt 0.35

takes a share of 0.35 of another checkpoint's decoder, here of the one before perceptual losses: all but fine detail,
which stays as it is (network interpolation, Wang et al. 2018, "ESRGAN", section 3.4). Less squared error, less invented
texture.

    python -m training.export runs/critic/state.pt titok.safetensors --name my-model --average runs/stage2/state.pt

takes the mean of decoders that were tuned from one another; with --blend as well, that mean is blended.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from titokcodec.cli.script import Parser, UsageError, start
from titokcodec.errors import TitokError, WeightsError
from titokcodec.format.frequencies import FrequencyTables
from titokcodec.models.tokenizer import TiTok
from titokcodec.runtime.devices import choose_device
from titokcodec.weights import tokenizers

from . import folder, progress
from .argtypes import whole
from .checkpoint import load_checkpoint, predicts_proxies, tokenizer_of
from .compute import default_device
from .data import Pictures

BACKING = 64  # weight, in tokens, of the shared distribution inside each position's own
WORTH = 0.01  # bits a token that a table must save to be stored


def load_averaged(path: Path) -> TiTok:
    """The averaged model of a checkpoint, in evaluation mode. Raises ``WeightsError`` if it decodes no pixels."""
    state = load_checkpoint(path, torch.device("cpu"))
    if state["stage"] == "vqgan":
        raise WeightsError(f"{path} is a 2D tokenizer's: training.stage1 reads the vqgan.safetensors beside it")
    if predicts_proxies(state):
        raise WeightsError(f"{path} predicts proxy codes, not pixels: run training.stage2 --init {path} first")
    return tokenizer_of(path, state).eval().requires_grad_(False)


@torch.no_grad()
def tokenize(model: TiTok, pictures: Pictures, batch: int = 32) -> np.ndarray:
    """(pictures, K) tokens of the centre crops. Model and pictures are on one device."""
    parts = progress.batches("counting codes", len(pictures), batch)
    return torch.cat([model.encode(pictures.centre_crops(which)).cpu() for which in parts]).numpy()


def candidates(tokens: np.ndarray, codes: int, codebooks: int = 1) -> dict[str, FrequencyTables]:
    """Tables from (pictures, K) tokens: ``shared`` by all positions, and one ``each``, backed by the shared one.

    Of several codebooks, positions that share one have the same.
    """
    shared = np.bincount(tokens.ravel(), minlength=codes)
    if codebooks > 1:
        books = np.stack([np.bincount(part.ravel(), minlength=codes) for part in np.split(tokens, codebooks, axis=1)])
        few = FrequencyTables.from_counts(books).frequencies
        each = FrequencyTables(np.repeat(few, tokens.shape[1] // codebooks, 0))
        return {"shared": FrequencyTables.from_counts(shared[None]), "each": each}
    own = np.stack([np.bincount(column, minlength=codes) for column in tokens.T])
    backed = own * 1000 + (BACKING * 1000 * shared[None] // max(shared.sum(), 1))
    return {"shared": FrequencyTables.from_counts(shared[None]), "each": FrequencyTables.from_counts(backed)}


def bits(tables: FrequencyTables, tokens: np.ndarray) -> float:
    """Mean bits a token that the tables give (pictures, K) tokens."""
    coded = tables.frequencies.astype(np.int64) + 1
    rows = np.zeros(tokens.shape[1], np.int64) if tables.shared else np.arange(tokens.shape[1])
    return float(-np.log2(coded[rows[None], tokens] / 2**24).mean())


def choose_tables(
    tokens: np.ndarray, codes: int, codebooks: int = 1
) -> tuple[FrequencyTables | None, dict[str, float]]:
    """The tables that code unseen pictures best, made from all tokens, and the bits each kind was measured at."""
    split = len(tokens) * 4 // 5
    counted = candidates(tokens[:split], codes, codebooks)
    measured = {kind: bits(tables, tokens[split:]) for kind, tables in counted.items()}
    best = min(measured, key=measured.get)
    measured["packed"] = float(np.ceil(np.log2(codes)))
    if measured[best] > measured["packed"] - WORTH:
        return None, measured
    if measured["shared"] - measured[best] < WORTH:
        best = "shared"  # a hundred times smaller, and faster
    return candidates(tokens, codes, codebooks)[best], measured


def blended(model: TiTok, other: TiTok, share: float) -> TiTok:
    """The model with a share of the other's decoder in its own, fine detail left alone. Changed in place.

    Raises:
        TitokError: they are of two architectures, or do not share their tokens.
    """
    for name, mine, theirs in _decoders(model, other, "--blend"):
        if ".ffn.detail." not in name:
            mine.lerp_(theirs, share)
    return model


def mean_of(model: TiTok, others: Sequence[TiTok]) -> TiTok:
    """The model with the mean of all their decoders as its own, fine detail included. Changed in place.

    Decoders that were tuned from one another lie in one basin, and their mean reconstructs better than each of them
    (Wortsman et al. 2022, "Model soups").

    Raises:
        TitokError: they are of several architectures, or do not share their tokens.
    """
    for number, other in enumerate(others, 2):
        for _, mine, theirs in _decoders(model, other, "--average"):
            mine.lerp_(theirs, 1 / number)
    return model


def _decoders(model: TiTok, other: TiTok, option: str) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Names and values of both decoders, of two models that take the same tokens."""
    mine, theirs = model.state_dict(), other.state_dict()
    if model.config != other.config:
        raise TitokError(f"{option} takes a model of the same architecture")
    for name, value in mine.items():
        if not name.startswith("decoder.") and not torch.equal(value, theirs[name]):
            raise TitokError(
                f"{option} takes a model with the same tokens, but {name} differs: give one that "
                "was tuned from the same weights, or these"
            )
    for name, value in mine.items():
        if name.startswith("decoder.") and value.is_floating_point():
            yield name, value, theirs[name]


def _averaged(path: Path) -> TiTok:
    return tokenizers.load_model(path) if path.suffix == ".safetensors" else load_averaged(path)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise UsageError(f"the share to blend is {text}: give a number from 0 to 1")
    return share


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("state", type=Path, help="checkpoint of a training run, or a weight file")
    parser.add_argument("out", type=Path, help="weight file to write")
    parser.add_argument("--name", required=True, help="name of the model")
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        help="pictures to count codes on; without, no tables, not even those of a weight file that has some",
    )
    parser.add_argument("--limit", type=whole(1), help="count on the first pictures only")
    parser.add_argument(
        "--device",
        default=default_device(),
        help="where pictures are encoded to count their codes (default: %(default)s)",
    )
    parser.add_argument(
        "--blend",
        nargs=2,
        metavar=("OTHER", "SHARE"),
        help="take a share, 0 to 1, of the decoder of another checkpoint or weight file with the same tokens",
    )
    parser.add_argument(
        "--average",
        nargs="+",
        metavar="OTHER",
        type=Path,
        default=[],
        help="take the mean of its decoder and those of other checkpoints or weight files with the same tokens",
    )
    parser.add_argument("--fp16", action="store_true", help="store matrices as float16 instead of int8")
    parser.add_argument("--force", action="store_true", help="replace the weight file if it exists")
    options = parser.parse_args(arguments)
    folder.check_file(options.out, options.force)
    device = choose_device(options.device)
    model = mean_of(_averaged(options.state), [_averaged(other) for other in options.average])
    if options.blend:
        model = blended(model, _averaged(Path(options.blend[0])), _share(options.blend[1]))
    tables, measured = None, {}
    if options.data:
        pictures = Pictures(options.data, model.config.image_size, options.limit, device)
        tokens = tokenize(model.to(device), pictures)
        tables, measured = choose_tables(tokens, model.config.codes, model.config.codebooks)
    saved = tokenizers.save(options.out, model, options.name, tables, int8=not options.fp16)
    about = {"fingerprint": saved.fingerprint.hex(), "bytes": options.out.stat().st_size, "bits": measured}
    print(json.dumps(about, indent=2))


if __name__ == "__main__":
    start(main)
