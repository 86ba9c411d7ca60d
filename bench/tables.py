"""Every figure of README.md, MODEL_CARD.md and SECURITY.md, and curves of training, from the committed result files.

    python -m bench.tables            # rewrites the tables between the markers
    python -m bench.tables --check    # fails if they do not match
    python -m bench.tables --keep speed raw.json    # first keeps the medians of pytest-benchmark runs

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``. Tables of time also take another result file than
their usual one: ``<!-- table: network speed-cuda -->`` shows ``speed-cuda.json``, kept by ``--keep speed-cuda``; and
``<!-- table: targets kodak-targets -->`` shows one set of pictures, where ``<!-- table: targets -->`` shows all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from titokcodec.training import curve

from titokcodec.cli.script import Parser, start
from titokcodec.errors import TitokError

from . import equal, generators, timings
from .cells import duration, rows

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
PAGES = (
    *(ROOT / name for name in ("README.md", "MODEL_CARD.md", "SECURITY.md")),
    *(ROOT / "training" / name for name in ("README.md", "REPRODUCING.md")),
)
# Result folders of the headline and how their pictures are called; the plot is of the first.
SETS = {"kodak-256": "of Kodak", "val-256": "held out"}
WHOLE = "kodak-full"  # result folder of whole pictures
TARGETS = {"kodak-targets": "of Kodak, whole", "large-targets": "of 12 megapixels"}  # of files for numbers of bytes
GALLERY = "open-256"  # result folder of the worst and best pictures, which may be shown
_TABLE = re.compile(r"(<!-- table: (\w+)(?: ([\w-]+))? -->\n).*?(<!-- end -->)", re.DOTALL)


def _read(name: str) -> dict:
    return json.loads((RESULTS / name).read_text())


def scores() -> str:
    """Quality of the bundled model on held-out pictures."""
    found = _read("default-val.json")
    body = [
        [count, str(found[f"bytes/{count}"]), f"{found[f'psnr/{count}']:.2f} dB", f"{found[f'lpips/{count}']:.3f}"]
        for count in sorted((k.split("/")[1] for k in found if k.startswith("psnr/")), key=int)
    ]
    note = (
        f"\n{found['model']}, {found['pictures']} pictures of 256 x 256; {found['usage']:.0%} of the codes in use, "
        f"{found['entropy']:.2f} bits of entropy a token.\n"
    )
    return rows(["tokens", "bytes at most", "PSNR", "LPIPS (squeeze)"], body) + note


def headline() -> str:
    """The bundled model beside the best thumbnails of as many bytes, in words and figures."""
    found = {words: equal.rows(RESULTS / name) for name, words in SETS.items()}
    summary = "".join(f"{some[0].pictures} pictures {words}: {equal.reading(some)}.\n" for words, some in found.items())
    return f"{summary}\n{rows(*equal.table(found))}"


def whole() -> str:
    """The same of whole pictures, on one tile and on many."""
    return rows(*equal.table({"of Kodak, whole": equal.rows(RESULTS / WHOLE, (32, 128))}))


def targets(name: str | None = None) -> str:
    """titok's files for numbers of bytes beside thumbnails of as many, of one set of whole pictures or of all."""
    chosen = {name: TARGETS[name]} if name else TARGETS
    return rows(*equal.target_table({words: equal.target_rows(RESULTS / own) for own, words in chosen.items()}))


def extremes() -> str:
    """Which of the pictures that may be shown came out worst and best, and how many a thumbnail does better."""
    kept, wins = _read(f"{GALLERY}/gallery/gallery.json"), _read(f"{GALLERY}/wins.json")
    pictures = len(_read(f"{GALLERY}/protocol.json")["pictures"])
    chosen: dict[str, list[str]] = {"worst": [], "best": []}
    for row in (row for row in kept if row["why"] in chosen):
        last = [shown for shown in row["shown"] if shown["method"] == "titok"][-1]
        name = Path(row["name"]).stem.replace("_", " ")
        chosen[row["why"]].append(f"{name} ({last['lpips-squeeze']:.3f}, {last['psnr-rgb']:.2f} dB)")
    extremes = "; ".join(f"{why}: {' and '.join(names)}" for why, names in chosen.items())
    label = last["label"]
    beside = next(
        row for row in wins if (row["label"], row["rival"], row["metric"]) == (label, "webp-thumbnail", "psnr-rgb")
    )
    lost = round(2 * beside["pictures"] * (1 - beside["rate"])) / 2  # a tie is half a win, and rates are rounded
    return (
        f"Of {pictures} pictures under free licences by LPIPS at {label}, {extremes}. On {lost:g} of them a WebP "
        f"thumbnail of as many bytes has the higher PSNR.\n"
    )


def seams() -> str:
    """Contrast of tile borders."""
    found = _read("seams.json")
    counts = sorted((k.split("/")[1] for k in found if k.startswith("blended/")), key=int)
    body = [[count, f"{found[f'butted/{count}']:.2f}", f"{found[f'blended/{count}']:.2f}"] for count in counts]
    note = f"\nMeans over {found['pictures']} pictures; the originals themselves have {found['original']:.2f}.\n"
    return rows(["tokens a tile", "tiles laid edge to edge", "blended, as decoded"], body) + note


def elongated() -> str:
    """Ways to code elongated pictures with the tokens of one tile."""
    found = _read("elongated.json")
    ways = list(dict.fromkeys(row["way"] for row in found["rows"]))
    cells = {
        (row["aspect"], row["way"]): f"{row['psnr-rgb']:.2f} dB, {row['ssim-rgb']:.3f}, {row['lpips-squeeze']:.3f}"
        for row in found["rows"]
    }
    body = [
        [f"1 : {aspect:g}", *(cells[aspect, way] for way in ways)]
        for aspect in dict.fromkeys(row["aspect"] for row in found["rows"])
    ]
    note = (
        f"\n{found['model']}, {found['pictures']} pictures of Kodak cut to these aspects, {found['tokens']} tokens "
        "in all, those of the encoder: PSNR, SSIM and LPIPS (squeeze).\n"
    )
    return rows(["aspect", *ways], body) + note


def effort() -> str:
    """What the search for tokens buys and costs."""
    found = _read("effort.json")
    counts = (32, 64, 128)
    body = []
    for row in found["rows"]:
        quality = [f"{row[f'psnr/{k}']:.2f} dB" for k in counts] + [f"{row[f'lpips/{k}']:.3f}" for k in counts]
        body.append([str(row["effort"]), *quality, *(duration(row[f"seconds/{size}"]) for size in (1, 16))])
    quality = [f"PSNR, {k} tokens" for k in counts] + [f"LPIPS, {k}" for k in counts]
    head = ["effort", *quality, "one picture", "each of 16"]
    note = (
        f"\n{found['model']}, {found['pictures']} held-out pictures, {found['threads']} threads of a CPU in "
        f"{found['dtype']}.\n"
    )
    return rows(head, body) + note


def generation(found: dict) -> str:
    """Pictures of classes a second, beside a diffusion transformer."""
    short = {"bfloat16": "bf16", "float32": "fp32"}
    body = []
    for row in found["results"]:
        rate = f"{'≈ ' * row['extrapolated']}{row['images_per_second']:.3g}"
        times = "-" if row["times_dit"] is None else f"{row['times_dit']:.4g}"
        body.append([row["model"], str(row["steps"]), short[row["dtype"]], str(row["batch"]), rate, times])
    full = any(row["dtype"] == "float32" for row in found["results"])
    compiled, rough = (any(row[key] for row in found["results"]) for key in ("compiled", "extrapolated"))
    note = f"\n{found['device']}, torch {found['torch']}{', TF32 in fp32' * (found['tf32'] and full)}."
    note += " Nothing was compiled." * (not compiled)
    note += " ≈: not timed in whole, but from single steps times their number, and decoding." * rough
    return rows(["model", "steps", "precision", "batch", "images per second", "times DiT"], body) + f"{note}\n"


def training() -> str:
    """How the bundled model came to be."""
    return rows(["", ""], [[name, str(value)] for name, value in _read("default-training.json").items()])


def fuzz() -> str:
    """What was fuzzed, for how long, and what came of it."""
    found = _read("fuzz.json")
    body = []
    for name, row in found["targets"].items():
        counts = [f"{row['minutes']:g}", f"{row['inputs']:,}", duration(row["slowest"]), str(row["findings"])]
        body.append([name, row["engine"], *counts])
    head = ["target", "engine", "minutes", "inputs", "the slowest", "findings"]
    return rows(head, body) + f"\ntitokcodec {found['version']}, Python {found['python']}.\n"


def edits() -> str:
    """How far edits of pictures go, and how little around a region."""
    found = _read("edits.json")
    area, share, kept = found["region/area"], found["share"], found["varied"] // 4
    body = [
        [f"a region of {area:.0%} filled: around it, of a .titok file", f"{found['region/outside']:.1f} dB", "-"],
        ["around it, of a picture", "exact", "-"],
        ["inside it", f"{found['region/inside']:.1f} dB", "-"],
    ]
    for what, name in ((f"all but the first {kept} tokens anew", "fine"), (f"{share:.0%} of the tokens anew", "some")):
        figures = (found[f"variation/{name}{size}"] for size in ("", " coarse"))
        body.append([what, *(f"{value:.1f} dB" for value in figures)])
    note = (
        f"\n{found['generator']} on {found['model']}: {found['each']} edits of each of {found['pictures']} pictures of "
        f"{found['tokens']} tokens, or of {found['varied']} where tokens are sampled anew. PSNR is of the decoded "
        "picture after the edit beside that before it.\n"
    )
    return rows(["edit", "PSNR", "PSNR at 16 x 16"], body) + note


def _timed(maker: Callable[[dict], str], usual: str) -> Callable[..., str]:
    """A table that any result file of its kind can be shown in."""
    return lambda name=usual: maker(_read(f"{name}.json"))


TABLES: dict[str, Callable[..., str]] = {
    "scores": scores,
    "effort": effort,
    "headline": headline,
    "whole": whole,
    "targets": targets,
    "extremes": extremes,
    "seams": seams,
    "elongated": elongated,
    "generation": _timed(generation, "generation-speed"),
    "ablation": _timed(generators.ablation, "ablation"),
    "generators": lambda: generators.compared(_read("generators.json"), _read),
    "copies": _timed(generators.copies, "copies"),
    "classes": lambda: generators.classes(_read("generators.json")),
    "edits": edits,
    "training": training,
    "curves": _timed(curve.table, "default-curves"),
    "fuzz": fuzz,
    "speed": _timed(timings.codec, "speed"),
    "network": _timed(timings.network, "speed"),
    "cold": _timed(timings.cold, "speed"),
    "entropy": _timed(timings.entropy, "speed"),
    "scaling": _timed(timings.scaling, "scaling"),
    "pipeline": _timed(timings.pipeline, "pipeline"),
    "published": _timed(timings.medians, "published-speed"),
}


def render(text: str) -> str:
    """The page with every table made anew."""
    return _TABLE.sub(lambda found: found[1] + TABLES[found[2]](*filter(None, [found[3]])) + found[4], text)


def main() -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail if something would change")
    parser.add_argument("--keep", nargs="+", metavar=("NAME", "RAW"), help="pytest-benchmark JSONs to condense first")
    options = parser.parse_args()
    if options.keep:
        kept = timings.condensed([Path(raw) for raw in options.keep[1:]])
        (RESULTS / f"{options.keep[0]}.json").write_text(json.dumps(kept, indent=2) + "\n")
    stale = [page for page in PAGES if render(page.read_text()) != page.read_text()]
    if options.check and stale:
        names = ", ".join(page.name for page in stale)
        raise TitokError(f"{names} differ from bench/results: run python -m bench.tables")
    for page in stale:
        page.write_text(render(page.read_text()))


if __name__ == "__main__":
    start(main)
