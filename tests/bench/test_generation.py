"""The benchmark of generation: DiT as published, its diffusion, and the whole command on tiny models."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from bench import generation, tables
from bench.dit import Decoder, Diffusion, DiT, DiTBlock, DiTConfig, Step, respaced, sinusoids
from bench.generation import Limits, time_model
from bench.generation_models import (
    COMPILED,
    SIZES,
    DiTModel,
    DiTSize,
    TiTokModel,
    TiTokSize,
    build,
    with_random_weights,
)
from titokcodec.models.config import Tower, preset
from titokcodec.models.generator_config import GeneratorConfig
from titokcodec.models.maskgit import make
from titokcodec.models.meta import on_meta

CPU = torch.device("cpu")
DIT = DiTSize("tiny DiT", DiTConfig(32, 2, 2, side=4, classes=3), {"channels": (32, 64), "blocks": 1}, steps=4)
TOWER = Tower(32, 1, 1)
TOKENIZER = preset("titok_bl64", encoder=TOWER, decoder=TOWER, tokens=4, min_tokens=4, codes=8, patch_size=64)
UVIT = GeneratorConfig("uvit", 4, codes=8, classes=3, width=32, layers=2, heads=2, mlp=32)
TITOK = TiTokSize("tiny TiTok", TOKENIZER, UVIT, {"steps": 3, "guidance": "power-cosine", "temperature": 2.0})
TINY = (DIT, TITOK)
ROW = ("model", "parameters", "steps", "dtype", "batch", "seconds", "images_per_second", "extrapolated", "compiled")
ROW = (*ROW, "times_dit")


def count(model, learned=False):
    return sum(value.numel() for value in model.parameters() if value.requires_grad or not learned)


@pytest.fixture
def dit():
    return DiTModel(DIT, CPU, torch.float32).diffusion


# ---- DiT and its decoder ----------------------------------------------------------------------------------------


def test_parameters_and_shapes_are_the_published_ones(dit):
    model = on_meta(lambda: DiT(DiTConfig()))
    assert count(model) == 675_129_632  # the checkpoint; 675M in the paper
    assert count(model, learned=True) == 674_834_720  # positions are fixed
    first = 4 * 4 + 4  # the convolution in front, which the autoencoder does not count
    assert count(on_meta(Decoder)) == 49_490_179 + first
    found = dit.model(torch.randn(2, 4, 4, 4), torch.tensor([0, 999]), torch.tensor([0, 3]))
    assert found.shape == (2, 8, 4, 4) and found.dtype == torch.float32
    assert dit.decode(torch.randn(2, 4, 4, 4)).shape == (2, 3, 8, 8)
    assert Decoder((32, 32, 32, 32), blocks=1)(torch.randn(1, 4, 2, 2)).shape == (1, 3, 16, 16)


def test_patches_keep_their_positions(dit):
    for part in (dit.model, *dit.model.blocks):
        part.modulate.weight.zero_(), part.modulate.bias.zero_()  # closes the gates: no position sees another
    latents, times, labels = torch.randn(1, 4, 4, 4), torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    changed = latents.clone()
    changed[:, :, 2:, :2] += 1
    moved = (dit.model(changed, times, labels) - dit.model(latents, times, labels)).abs().sum(1)[0] > 0
    assert moved[2:, :2].all() and moved.sum() == 4


def test_a_block_with_closed_gates_is_the_identity():
    block, x, condition = DiTBlock(32, 2), torch.randn(2, 5, 32), torch.randn(2, 32)
    assert not block(x, condition).allclose(x)
    torch.nn.init.zeros_(block.modulate.weight), torch.nn.init.zeros_(block.modulate.bias)
    assert block(x, condition).equal(x)


def test_positions_and_times_are_sinusoids(dit):
    expected = [math.cos(3), math.cos(0.03), math.sin(3), math.sin(0.03)]
    assert sinusoids(torch.tensor([0, 3]), 4)[1].tolist() == pytest.approx(expected, abs=1e-6)
    found = dit.model.positions.view(2, 2, 2, 16)  # row, column, encoding of the row or of the column
    assert found[1, 0, 0].equal(found[1, 1, 0]) and found[0, 1, 1].equal(found[1, 1, 1])
    assert not found[0, 0, 0].equal(found[1, 0, 0]) and found[0, 0, 0].equal(found[0, 0, 1])


# ---- diffusion --------------------------------------------------------------------------------------------------


def test_steps_are_those_of_training_or_span_them():
    steps, betas = respaced(1000), torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    assert [step.time for step in steps] == list(range(999, -1, -1))
    assert [math.exp(step.most) for step in steps] == pytest.approx(betas.flip(0).tolist())
    assert all(step.least < step.most for step in steps)
    times = [step.time for step in respaced(250)]
    assert len(times) == 250 and times[0] == 999 and times[-1] == 0
    assert all(before - after in (4, 5) for before, after in pairwise(times))


class Oracle(torch.nn.Module):
    """Knows the latents of every class, and so the noise."""

    def __init__(self, truth):
        super().__init__()
        self.config, self.truth, self.positions, self.calls = DIT.model, truth, torch.zeros(1), []

    def forward(self, latents, times, labels):
        self.calls.append((latents.shape, labels.tolist()))
        step = next(step for step in respaced(25) if step.time == times[0])
        noise = (latents * step.x - self.truth[labels]) / step.noise
        return torch.cat([noise, torch.zeros_like(noise)], dim=1)


def test_true_noise_leads_to_the_truth_and_guidance_beyond():
    oracle = Oracle(torch.randn(4, 4, 4, 4))
    found = Diffusion(oracle, torch.nn.Identity(), steps=25, guidance=1.0).sample(torch.tensor([1, 0]))
    torch.testing.assert_close(found, oracle.truth[[1, 0]], rtol=0, atol=1e-4)
    assert oracle.calls == [((4, 4, 4, 4), [1, 0, 3, 3])] * 25  # both branches in one batch
    guided = Diffusion(oracle, torch.nn.Identity(), guidance=3.0)
    found = guided.step(torch.randn(1, 4, 4, 4), torch.tensor([2]), respaced(25)[-1])
    expected = oracle.truth[3] + 3.0 * (oracle.truth[2] - oracle.truth[3])
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("share", "deviation"), [(-1.0, 1.0), (0.0, 2.0), (1.0, 4.0)])
def test_the_network_interpolates_the_variance(share, deviation):
    step = Step(5, 1.0, 0.0, 0.0, 0.0, math.log(1.0), math.log(16.0))

    def model(latents, times, labels):
        return torch.full((len(latents), 8, 64, 64), share)

    model.config, model.positions = DIT.model, torch.zeros(1)
    found = Diffusion(model, None).step(torch.zeros(1, 4, 64, 64), torch.tensor([0]), step)
    assert found.std().item() == pytest.approx(deviation, rel=0.05)


# ---- the measurement --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", TINY, ids=["DiT", "TiTok"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_models_generate_pictures(size, dtype):
    model, side = build(size, CPU, dtype), 8 if size is DIT else 256
    for steps in (None, 1):
        pictures = model.generate(2, steps)
        assert pictures.shape == (2, 3, side, side) and pictures.dtype == torch.uint8


def test_random_weights_are_created_in_their_precision_and_the_encoder_is_not_counted():
    network = with_random_weights(lambda: make(UVIT), CPU, torch.bfloat16)
    for name, value in network.named_parameters():
        assert value.dtype == torch.bfloat16 and not value.is_meta and not value.requires_grad
        assert value.std() > 0.005 if value.ndim > 1 else value.equal(torch.full_like(value, name.endswith("weight")))
    found = TiTokModel(TITOK, CPU, torch.float32)
    tokenizer = found.codec.model
    assert found.parameters == count(found.generator.model) + count(tokenizer) - count(tokenizer.encoder)


def test_long_batches_are_extrapolated(monkeypatch):
    calls = []
    times = {1: 1.5, 3: 4.0, None: 9.0}  # with so many steps
    monkeypatch.setattr(
        generation, "timed", lambda model, batch, steps=None, seconds=0: (calls.append(seconds), times[steps])[1]
    )
    row = time_model(build(replace(DIT, steps=50), CPU, torch.float32), Limits(patience=1.0, most=1))
    assert row["extrapolated"] and row["seconds"] == 1.5 + 49 * 1.25 and calls == [0, 0]
    row = time_model(build(DIT, CPU, torch.float32), Limits(rounds=3, patience=12.0, most=1))
    assert not row["extrapolated"] and row["seconds"] == 9.0 and calls[-1] == 12.0  # of 3 x 5.25 seconds


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 1.0, 2: 1.5, 4: 2.0, 8: 4.0, 16: 0.1}, (4, 2.0)),  # no gain from 8
        ({1: 1.0, 2: 1.99, 4: 0.1}, (2, 1.99)),  # hardly any from 2
        ({1: 1.0, 2: 3.0, 4: 0.1}, (1, 1.0)),
        ({1: 1.0, 2: 1.0, 4: torch.cuda.OutOfMemoryError()}, (2, 1.0)),
        ({1: 1.0, 2: 1.0, 4: RuntimeError("output tensors with less than INT_MAX elements")}, (2, 1.0)),
        ({1: torch.cuda.OutOfMemoryError()}, None),
        (dict.fromkeys((1, 2, 4, 8, 16), 1.0), (16, 1.0)),
    ],
)
def test_the_search_stops_without_gain_or_memory(monkeypatch, seconds, expected):
    def estimated(model, batch):
        if isinstance(seconds[batch], Exception):
            raise seconds[batch]
        return seconds[batch]

    monkeypatch.setattr(generation, "estimated", estimated)
    assert generation.search(SimpleNamespace(device=CPU), Limits(most=16)) == expected
    seconds = {1: RuntimeError("another mistake")}  # one picture is not too many
    with pytest.raises(RuntimeError, match="another"):
        generation.search(SimpleNamespace(device=CPU), Limits())


@pytest.mark.parametrize("size", TINY, ids=["DiT", "TiTok"])
def test_compiled_networks_are_the_ones_that_generate(size, monkeypatch, capsys):
    calls, model = [], build(size, CPU, torch.float32)

    def compiled(network, **options):
        assert options == (COMPILED if size is DIT else {"dynamic": False})
        return lambda *given: (calls.append(network), network(*given))[1]

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(torch.compiler, "reset", lambda: calls.append("reset"))
    with torch.inference_mode():
        assert generation.with_graphs(model, 2, lambda: len(model.generate(2))) == 2
    assert len(calls) == 3 * (2 + 1) + model.steps + 1 + 1 and calls[-1] == "reset"

    def fails():
        raise RuntimeError("no\ncompiler")

    assert generation.with_graphs(build(size, CPU, torch.float32), 1, fails) == math.inf
    assert capsys.readouterr().err == f"{size.name} does not compile: no compiler\n"


# ---- the command ------------------------------------------------------------------------------------------------


def test_the_sizes_are_the_published_ones():
    expected = [("TiTok-L-32", 8), ("TiTok-S-128", 8), ("TiTok-S-128", 64)]
    assert [(size.name, size.settings["steps"]) for size in SIZES[1:]] == expected
    assert SIZES[0] == DiTSize("DiT-XL/2") and SIZES[0].steps == 250


def test_from_the_command_line_to_the_table(tmp_path, monkeypatch, capsys):
    path, threads = tmp_path / "generation-speed.json", torch.get_num_threads()
    generation.main(["--out", str(path), "--device", "cpu", "--quick", "--most", "1"], sizes=TINY)
    found = json.loads(path.read_text())
    assert set(found) == {"device", "torch", "tf32", "results"} and torch.get_num_threads() == threads
    assert [(row["model"], row["dtype"]) for row in found["results"]] == [
        (size.name, dtype) for dtype in ("bfloat16", "float32") for size in TINY
    ]
    for row in found["results"]:
        assert tuple(row) == ROW and row["batch"] == 1 and not row["extrapolated"] and not row["compiled"]
        assert row["images_per_second"] == pytest.approx(row["batch"] / row["seconds"], rel=1e-3)
        assert (row["times_dit"] == 1) == (row["model"] == "tiny DiT")
    assert len(capsys.readouterr().out.splitlines()) == 4

    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    head, _, *body = tables.TABLES["generation"]().splitlines()
    assert head == "| model | steps | precision | batch | images per second | times DiT |"
    assert body[0].startswith("| tiny DiT | 4 | bf16 | ") and body[0].endswith(" | 1 |")
    assert found["device"] in body[-1] and "≈" not in "".join(body)


def test_the_table_of_another_machine_says_what_was_not_done(tmp_path, monkeypatch):
    row = dict(zip(ROW, ["DiT-XL/2", 1, 250, "bfloat16", 128, 50.1, 2.556, True, False, 1.0], strict=True))
    fast = row | {"model": "TiTok-L-32", "steps": 8, "images_per_second": 421.1, "extrapolated": False}
    fast["times_dit"] = 164.8
    monkeypatch.setattr(tables, "RESULTS", tmp_path)

    def shown(*results):
        found = {"device": "a GPU", "torch": "2.11.0", "tf32": True, "results": results}
        (tmp_path / "speed-gpu.json").write_text(json.dumps(found))
        return tables.render("<!-- table: generation speed-gpu -->\n<!-- end -->").splitlines()

    *_, second, _, note, _ = shown(row, fast)
    assert second == "| TiTok-L-32 | 8 | bf16 | 128 | 421 | 164.8 |"
    assert note.startswith("a GPU, torch 2.11.0. Nothing was compiled. ≈: not timed in whole")
    assert shown(fast | {"dtype": "float32", "compiled": True})[-2] == "a GPU, torch 2.11.0, TF32 in fp32."


def test_options_limit_the_time_and_finished_rows_are_kept(tmp_path, monkeypatch):
    seen, path = [], tmp_path / "x.json"

    def measured(model, limits):
        seen.append((model.name, limits))
        if len(seen) > 1:
            raise KeyboardInterrupt
        return dict(zip(ROW[:-1], [model.name, 1, 3, "float32", 1, 0.5, 2.0, False, False], strict=True))

    monkeypatch.setattr(generation, "time_model", measured)
    line = f"--out {path} --device cpu --precision fp32 --patience 9 --most 64 --rounds 2 --no-compile"
    with pytest.raises(KeyboardInterrupt):
        generation.main([*line.split(), "--models", "tiny TiTok"], sizes=(DIT, TITOK, TITOK))
    assert seen == [("tiny TiTok", Limits(2, 9.0, 64, compiled=False))] * 2
    (row,) = json.loads(path.read_text())["results"]
    assert row["times_dit"] is None and row["dtype"] == "float32"  # without a DiT there is no comparison
