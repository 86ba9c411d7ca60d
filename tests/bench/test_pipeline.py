"""The benchmark of the path through a device: one optimisation more at a time, the same pictures with every one."""

import copy
import json
from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
import torch

from bench import pipeline, timings
from bench.pipeline import Pipeline, Variant, variants
from tests.models import test_linear as small
from titokcodec.weights import tokenizers

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_each_variant_adds_one_optimisation(device, monkeypatch):
    monkeypatch.setattr(pipeline, "choose_dtype", lambda device: torch.bfloat16)
    found = variants(device)
    switches = [field.name for field in fields(Variant) if field.name != "name"]
    for before, after in pairwise(found):
        assert sum(getattr(before, name) != getattr(after, name) for name in switches) == 1
    assert (len(found) == 7) == (device is CUDA)
    assert not any(variant.graphs or variant.ahead for variant in found) or device is CUDA


def test_all_variants_give_the_same_tokens_and_pixels(codec, tiny_path, photo, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **how: function)
    opened = tokenizers.read(tiny_path)
    batches = [np.stack([np.array(photo.resize((256, 256)))] * 3), np.array(photo.crop((0, 0, 256, 256)))[None]]
    for variant in variants(CPU):
        if variant.dtype is not torch.float32:
            continue
        tested = Pipeline(variant, tokenizers.build(opened), CPU)
        encoded = tested.encode(batches)
        for tokens, pixels, given in zip(encoded, tested.decode(encoded), batches, strict=True):
            expected = codec.encode(torch.from_numpy(given).permute(0, 3, 1, 2))
            assert (torch.from_numpy(tokens) == expected).float().mean() > 0.95
            assert pixels.shape == given.shape and pixels.dtype == np.uint8
            again = (codec.decode(torch.from_numpy(tokens)) * 255).round().permute(0, 2, 3, 1).numpy()
            assert np.abs(pixels - again).max() <= 1


def test_from_the_command_line(tmp_path, tiny_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **how: function)
    out = tmp_path / "pipeline.json"
    pipeline.main([*f"--device cpu --batch 1 2 --rounds 1 --pictures 2 --model {tiny_path} --out {out}".split()])
    found = json.loads(out.read_text())
    names = [variant.name for variant in variants(CPU)]
    kinds = [("decode", 1), ("decode", 2), ("encode", 1), ("encode", 2)]
    assert [(row["direction"], row["batch"], row["way"]) for row in found["results"]] == [
        (*kind, name) for kind in kinds for name in names
    ]
    assert all(row["times_first"] == 1 for row in found["results"] if row["way"] == names[0])
    assert found["model"] == tokenizers.read(tiny_path).name
    head, _, *body = timings.pipeline(found).splitlines()
    assert head == "| pictures a second | encode, batch 1 | encode, batch 2 | decode, batch 1 | decode, batch 2 |"
    assert [line.split(" | ")[0] for line in body[: len(names)]] == [f"| {name}" for name in names]
    assert body[0].count("(1.00 times)") == 4 and found["machine"] in body[-1]


def test_linear_paths_stay_exact_in_less_precision():
    model = small.started()
    tested = Pipeline(Variant("bf16", dtype=torch.bfloat16, uint8=True), copy.deepcopy(model), CPU)
    batch = (small.fields(2, 256, seed=2).permute(0, 2, 3, 1) * 255).byte().numpy()
    expected = model.encode(torch.from_numpy(batch).permute(0, 3, 1, 2) / 255)
    (tokens,) = tested.encode([batch])
    assert (torch.from_numpy(tokens) == expected).float().mean() > 0.7
    (decoded,) = tested.decode([tokens])
    assert decoded.shape == (2, 256, 256, 3)
