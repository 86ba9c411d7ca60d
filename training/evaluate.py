"""Score a tokenizer on held-out pictures: its reconstructions at several numbers of tokens, and use of the codebook.

    python -m training.evaluate weights.safetensors --data DIR|TAR ... [--json OUT]
        [--lpips FILE] [--lite0 FILE] [--inception FILE]

PSNR and SSIM need no weights; a metric whose weights are not given is left out. File sizes are left out if no files can
be written, with a warning on stderr. ``python -m bench.sheet`` shows the reconstructions.

``rfid/K`` and ``inception_score/K`` are the figures of TiTok's own evaluation: the same crops, rounding and network.
``lpips/K`` is of SqueezeNet; papers mostly quote VGG's or AlexNet's, which are not comparable with it.
"""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from titokcodec import Codec, TitokError
from titokcodec.cli.script import Parser, UsageError, start
from titokcodec.metrics import LPIPS, codebook_usage, frechet_distance, inception_score, psnr, ssim
from titokcodec.metrics.efficientnet import Lite0
from titokcodec.metrics.inception import Inception, reference_dtype
from titokcodec.models.tokenizer import TiTok
from titokcodec.search import default_steps

from . import progress
from .argtypes import whole
from .data import Pictures

Scores = dict[str, float | int | list]


def score(
    model: TiTok, pictures: Pictures, counts: tuple[int, ...], lpips: LPIPS | None = None, batch: int = 16
) -> dict[str, float]:
    """The few figures that a training run reports.

    Returns:
        ``psnr/K``, ``ssim/K`` and ``lpips/K`` for every K of ``counts``, ``usage`` and ``entropy``, as ``all_scores``
        gives them.
    """
    found = all_scores(model, pictures, counts, lpips, batch=batch)
    return {name: value for name, value in found.items() if "/" in name or name in ("usage", "entropy")}


@torch.no_grad()
def all_scores(
    model: TiTok,
    pictures: Pictures,
    counts: tuple[int, ...],
    lpips: LPIPS | None = None,
    lite0: Lite0 | None = None,
    inception: Inception | None = None,
    batch: int = 16,
    tokens: Tensor | None = None,
) -> Scores:
    """Every score over the centre crops of ``pictures``, with pixels rounded to 8 bits as a file would hold them.

    Args:
        tokens: (pictures, K) that stand for them, see ``tokens_of``; by default the encoder's own.

    Returns:
        For every K of ``counts``: ``psnr/K`` in dB, ``ssim/K`` and ``lpips/K``, means of each picture's. With Lite0,
        ``fd_lite0/K``, the Frechet distance of its features of all pictures, and ``top1_agreement/K``, the share of
        pictures that it takes for the same class as the original. With Inception, ``rfid/K``, the same distance of
        its features, and ``inception_score/K`` of all pictures. Besides, what ``titokcodec.metrics.codebook_usage``
        reports of the tokens.
    """
    total = len(pictures)
    sums: dict[str, float] = {}
    features: dict[str, list[Tensor]] = {}
    seen_tokens = []
    for which in progress.batches("scoring", total, batch):
        pixels = pictures.centre_crops(which)
        rows = model.encode(pixels) if tokens is None else tokens[which]
        seen_tokens.append(rows)
        seen = lite0.pooled(pixels) if lite0 else None
        if lite0:
            features.setdefault("fd_lite0", []).append(seen.cpu())
        if inception:
            features.setdefault("rfid", []).append(inception.pooled(pixels).float().cpu())
        for count in counts:
            decoded = (model.decode(rows[:, :count]) * 255).round() / 255
            _add(sums, f"psnr/{count}", psnr(decoded, pixels))
            _add(sums, f"ssim/{count}", ssim(decoded, pixels))
            if lpips:
                _add(sums, f"lpips/{count}", lpips(decoded, pixels))
            if lite0:
                found = lite0.pooled(decoded)
                features.setdefault(f"fd_lite0/{count}", []).append(found.cpu())
                _add(sums, f"top1_agreement/{count}", lite0.classify(found).argmax(1) == lite0.classify(seen).argmax(1))
            if inception:
                features.setdefault(f"rfid/{count}", []).append(inception.pooled(decoded).float().cpu())
    scores: Scores = {name: value / total for name, value in sums.items()}
    sets = {name: torch.cat(parts) for name, parts in features.items()}
    for name in (name for name in sets if "/" in name):
        metric, count = name.split("/")
        scores[name] = frechet_distance(sets[name], sets[metric])
        if metric == "rfid":
            logits = inception.classify(sets[name].to(inception.fc.weight))
            scores[f"inception_score/{count}"] = inception_score(logits)[0]
    return scores | codebook_usage(torch.cat(seen_tokens).cpu(), model.config.codes)


def token_counts(model: TiTok) -> tuple[int, ...]:
    """The token counts that reports show: the usual ones inside what the model takes."""
    config = model.config
    usual = [k for k in (32, 64, 96, 128, 256) if config.min_tokens <= k <= config.tokens]
    return tuple(sorted({*usual, config.min_tokens, config.tokens}))


def effort_of(codec: Codec, asked: int | None) -> int:
    """Steps of the search for tokens: as many as asked for or, if None, as when compressing one picture."""
    return default_steps(codec.weights.config, 1) if asked is None else asked


def tokens_of(codec: Codec, pictures: Pictures, effort: int, batch: int = 16) -> Tensor:
    """(pictures, K) tokens of the centre crops, as files hold them that are made with this effort."""
    parts = progress.batches("searching tokens" if effort else "encoding", len(pictures), batch)
    return torch.cat([codec.encode(pictures.centre_crops(which), effort=effort) for which in parts])


def file_sizes(codec: Codec, tokens: Tensor, counts: tuple[int, ...]) -> dict[int, list[int]]:
    """For every K of ``counts`` the bytes of each picture's whole file."""
    sizes: dict[int, list[int]] = {count: [] for count in counts}
    for which in progress.batches("writing files", len(tokens), 1):
        for count, found in sizes.items():
            found.append(len(codec.write(tokens[which, :count])))
    return sizes


def summary(sizes: dict[int, list[int]]) -> dict[str, float]:
    """``bytes/K``, the longest file, and ``mean_bytes/K`` for every K."""
    longest = {f"bytes/{count}": max(found) for count, found in sizes.items()}
    return longest | {f"mean_bytes/{count}": sum(found) / len(found) for count, found in sizes.items()}


def _add(sums: dict[str, float], name: str, values: Tensor) -> None:
    sums[name] = sums.get(name, 0.0) + float(values.double().sum())


def _rounded(value: float | int | list | str) -> float | int | list | str:
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def _json(found: dict) -> str:
    """Indented, but with each list on one line."""
    text = json.dumps({name: _rounded(value) for name, value in found.items()}, indent=2)
    return re.sub(r"\[[^][]*\]", lambda numbers: " ".join(numbers[0].split()), text)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("weights", type=Path, nargs="?", help="weight file (default: the bundled one)")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders, pictures or tar shards")
    parser.add_argument("--lpips", type=Path, help="LPIPS weights (safetensors)")
    parser.add_argument("--lite0", type=Path, help="EfficientNet-Lite0 weights (safetensors)")
    parser.add_argument("--inception", type=Path, help="Inception weights: pytorch-fid's .pth, or as safetensors")
    parser.add_argument("--device", default="auto", help="default: %(default)s")
    parser.add_argument("--dtype", default="fp32", help="fp32 or bf16 (default: %(default)s)")
    parser.add_argument("--effort", type=int, help="steps of the search for tokens (default: as when compressing)")
    parser.add_argument("--limit", type=whole(1), help="score the first pictures only")
    parser.add_argument("--json", type=Path, help="write the scores here as well")
    options = parser.parse_args(arguments)
    if options.effort is not None and options.effort < 0:
        raise UsageError(f"effort is {options.effort}: give 0 or more")
    if options.json and not options.json.parent.is_dir():
        raise TitokError(f"there is no folder {options.json.parent} to write {options.json.name} to: make it first")
    codec = Codec.from_pretrained(options.weights, device=options.device, dtype=options.dtype)
    inception_of = partial(Inception, dtype=reference_dtype(codec.device))
    lpips, lite0, inception = (
        network(path).to(codec.device) if path else None
        for network, path in ((LPIPS, options.lpips), (Lite0, options.lite0), (inception_of, options.inception))
    )
    pictures = Pictures(options.data, codec.weights.config.image_size, options.limit, codec.device)
    for problem in pictures.damaged:
        print(f"warning: {problem}", file=sys.stderr)
    if len(pictures) < 2 and (lite0 or inception):
        raise TitokError("a Frechet distance needs two pictures or more")
    counts = token_counts(codec.model)
    effort = effort_of(codec, options.effort)
    tokens = tokens_of(codec, pictures, effort)
    about = {
        "model": codec.weights.name,
        "fingerprint": codec.weights.fingerprint.hex(),
        "pictures": len(pictures),
        "skipped": pictures.skipped,
        "effort": effort,
        "dtype": str(codec.dtype).removeprefix("torch."),
    }
    found = all_scores(codec.model, pictures, counts, lpips, lite0, inception, tokens=tokens)
    try:
        sizes = file_sizes(codec, tokens, counts)
    except Exception as error:  # whatever it is, the scores took minutes and stand without
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"warning: no sizes of files: {reason}", file=sys.stderr)
        sizes = {}
    text = _json(about | found | summary(sizes))
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    start(main)
