"""The benchmark of generation: DiT as published, its diffusion, and the whole measurement on tiny models."""

import json
import math
from dataclasses import replace
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from bench import generation, tables
from bench.dit import Decoder, DecoderConfig, Diffusion, DiT, DiTBlock, DiTConfig, Step, respaced, waves
from bench.generation import SIZES, DiTSize, Effort, Ours, Theirs, TiTokSize, build, measure, with_random_weights
from titokcodec.models.config import Tower, preset
from titokcodec.models.maskgit import GeneratorConfig, make
from titokcodec.models.meta import on_meta
from titokcodec.models.tokenizer import TiTok

CPU = torch.device("cpu")
DIT = DiTSize("tiny DiT", DiTConfig(32, 2, 2, side=4, classes=3), DecoderConfig(channels=(32, 64), blocks=1), steps=4)
TOWER = Tower(32, 1, 1)
TOKENIZER = preset("titok_bl64", encoder=TOWER, decoder=TOWER, tokens=4, min_tokens=4, codes=8, patch_size=64)
UVIT = GeneratorConfig("uvit", 4, codes=8, classes=3, width=32, layers=2, heads=2, mlp=32)
TITOK = TiTokSize("tiny TiTok", TOKENIZER, UVIT, {"steps": 3, "guidance": "power-cosine", "temperature": 2.0})
TINY = (DIT, TITOK)
KEYS = {
    "model",
    "parameters",
    "steps",
    "dtype",
    "batch",
    "seconds",
    "images_per_second",
    "times_dit",
    "extrapolated",
    "compiled",
}


def count(model, learned=False):
    return sum(value.numel() for value in model.parameters() if value.requires_grad or not learned)


# ---- DiT and its decoder ----------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_published_models():
    model = on_meta(lambda: DiT(DiTConfig()))
    assert count(model) == 675_129_632  # the checkpoint; 675M in the paper
    assert count(model, learned=True) == 674_834_720  # positions are fixed
    scale = 4 * 4 + 4  # a convolution of its own in front, by the autoencoder's count
    assert count(on_meta(lambda: Decoder(DecoderConfig()))) == 49_490_179 + scale


def test_shapes():
    dit = Theirs(DIT, CPU, torch.float32).diffusion
    found = dit.model(torch.randn(2, 4, 4, 4), torch.tensor([0, 999]), torch.tensor([0, 3]))
    assert found.shape == (2, 8, 4, 4) and found.dtype == torch.float32
    assert dit.decode(torch.randn(2, 4, 4, 4)).shape == (2, 3, 8, 8)
    assert Decoder(DecoderConfig(channels=(32, 32, 32, 32), blocks=1))(torch.randn(1, 4, 2, 2)).shape == (1, 3, 16, 16)


def test_cells_are_where_their_latents_were():
    model = Theirs(DIT, CPU, torch.float32).diffusion.model
    model.modulate.weight.zero_(), model.modulate.bias.zero_()
    for block in model.blocks:
        block.modulate.weight.zero_(), block.modulate.bias.zero_()  # the gates too: every position on its own
    latents, times, labels = torch.randn(1, 4, 4, 4), torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    changed = latents.clone()
    changed[:, :, 2:, :2] += 1
    moved = (model(changed, times, labels) - model(latents, times, labels)).abs().sum(1)[0] > 0
    assert moved[2:, :2].all() and moved.sum() == 4


def test_a_block_of_closed_gates_does_nothing():
    block = DiTBlock(32, 2)
    x, condition = torch.randn(2, 5, 32), torch.randn(2, 32)
    assert not block(x, condition).allclose(x)
    torch.nn.init.zeros_(block.modulate.weight), torch.nn.init.zeros_(block.modulate.bias)
    assert block(x, condition).equal(x)


def test_positions_and_times_are_waves():
    assert waves(torch.tensor([0, 3]), 4)[1].tolist() == pytest.approx(
        [math.cos(3), math.cos(0.03), math.sin(3), math.sin(0.03)], abs=1e-6
    )
    model = Theirs(DIT, CPU, torch.float32).diffusion.model
    places = model.positions.view(2, 2, 2, 16)  # row, column, of the row or of the column, wave
    assert places[1, 0, 0].equal(places[1, 1, 0]) and places[0, 1, 1].equal(places[1, 1, 1])
    assert not places[0, 0, 0].equal(places[1, 0, 0]) and places[0, 0, 0].equal(places[0, 0, 1])


# ---- diffusion --------------------------------------------------------------------------------------------------


def test_all_steps_are_those_of_training():
    steps, betas = respaced(1000), torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    assert [step.time for step in steps] == list(range(999, -1, -1))
    assert [math.exp(step.most) for step in steps] == pytest.approx(betas.flip(0).tolist())
    assert all(step.least < step.most for step in steps)


def test_respaced_steps_span_them():
    times = [step.time for step in respaced(250)]
    assert len(times) == 250 and times[0] == 999 and times[-1] == 0
    assert all(before - after in (4, 5) for before, after in pairwise(times))


class Oracle(torch.nn.Module):
    """Knows the picture of every class, 0 without one, and so the noise."""

    def __init__(self, pictures):
        super().__init__()
        self.config, self.pictures = DIT.model, pictures
        self.positions = torch.zeros(1)
        self.seen = []

    def forward(self, latents, times, labels):
        self.seen.append((latents.shape, labels.tolist()))
        step = next(step for step in respaced(25) if step.time == times[0])
        noise = (latents * step.x - self.pictures[labels]) / step.noise
        return torch.cat([noise, torch.zeros_like(noise)], dim=1)


def test_true_noise_leads_to_the_picture():
    oracle = Oracle(torch.randn(4, 4, 4, 4))
    *_, found = Diffusion(oracle, torch.nn.Identity(), steps=25, guidance=1.0).walk(torch.tensor([1, 0]))
    torch.testing.assert_close(found, oracle.pictures[[1, 0]], rtol=0, atol=1e-4)
    assert oracle.seen == [((4, 4, 4, 4), [1, 0, 3, 3])] * 25  # both branches in one batch


def test_guidance_goes_beyond_the_class():
    oracle, step = Oracle(torch.randn(4, 4, 4, 4)), respaced(25)[-1]
    x, labels = torch.randn(1, 4, 4, 4), torch.tensor([2])
    found = Diffusion(oracle, torch.nn.Identity(), guidance=3.0).step(x, labels, step)
    expected = oracle.pictures[3] + 3.0 * (oracle.pictures[2] - oracle.pictures[3])
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-3)


def test_variance_lies_where_the_network_says():
    for share, deviation in ((-1.0, 1.0), (0.0, 2.0), (1.0, 4.0)):
        step = Step(5, 1.0, 0.0, 0.0, 0.0, math.log(1.0), math.log(16.0))

        def model(latents, times, labels, share=share):
            return torch.full((len(latents), 8, 64, 64), share)

        model.config, model.positions = DIT.model, torch.zeros(1)
        found = Diffusion(model, None).step(torch.zeros(1, 4, 64, 64), torch.tensor([0]), step)
        assert found.std().item() == pytest.approx(deviation, rel=0.05)


# ---- the measurement --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", TINY, ids=["DiT", "TiTok"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_contenders_make_pictures(size, dtype):
    contender = build(size, CPU, dtype)
    side = 8 if size is DIT else 256
    for pictures in (contender.draw(2), contender.finish(2)):
        assert pictures.shape == (2, 3, side, side) and pictures.dtype == torch.uint8
    with torch.inference_mode():
        assert len(list(contender.walk(2))) == contender.steps == (4 if size is DIT else 3)


def test_random_weights_are_made_in_their_precision():
    model = with_random_weights(lambda: make(UVIT), CPU, torch.bfloat16)
    for name, value in model.named_parameters():
        assert value.dtype == torch.bfloat16 and not value.is_meta and not value.requires_grad
        assert value.std() > 0.005 if value.ndim > 1 else value.equal(torch.full_like(value, name.endswith("weight")))
    assert count(with_random_weights(lambda: TiTok(TOKENIZER), CPU, torch.float32)) == count(TiTok(TOKENIZER))


def test_what_does_not_draw_is_not_counted():
    found = Ours(TITOK, CPU, torch.float32)
    model = found.codec.model
    assert found.parameters == count(found.generator.model) + count(model) - count(model.encoder)


def test_impatience_extrapolates(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(generation, "seconds_of", lambda work, device: (work(), 1.0 + next(clock) / 8)[1])
    row = measure(build(replace(DIT, steps=50), CPU, torch.float32), Effort(rounds=3, patience=1.0, most=1))
    assert row["extrapolated"] and row["seconds"] == 1.0 + 49 * 1.25 + 1.625  # a first step, others, decoding
    whole = measure(build(DIT, CPU, torch.float32), Effort(rounds=3, most=1))
    assert not whole["extrapolated"] and whole["steps"] == 4


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 1.0, 2: 1.5, 4: 2.0, 8: 4.0, 16: 0.1}, (4, 2.0)),  # no gain from 8
        ({1: 1.0, 2: 1.99, 4: 0.1}, (2, 1.99)),  # hardly any from 2
        ({1: 1.0, 2: 3.0, 4: 0.1}, (1, 1.0)),
        ({1: 1.0, 2: 1.0, 4: None}, (2, 1.0)),  # None: it does not fit
        ({1: None}, None),
        (dict.fromkeys((1, 2, 4, 8, 16), 1.0), (16, 1.0)),
    ],
)
def test_the_search_stops_without_gain_or_memory(monkeypatch, seconds, expected):
    def likely(contender, batch, rounds):
        if seconds[batch] is None:
            raise torch.cuda.OutOfMemoryError
        return seconds[batch]

    monkeypatch.setattr(generation, "likely", likely)
    assert generation.search(SimpleNamespace(device=CPU), Effort(most=16)) == expected


def test_a_batch_that_no_kernel_can_count_is_one_too_many(monkeypatch):
    def likely(contender, batch, rounds):
        if batch > most:
            raise RuntimeError("only supports output tensors with less than INT_MAX elements")
        return 1.0

    monkeypatch.setattr(generation, "likely", likely)
    most = 4
    assert generation.search(SimpleNamespace(device=CPU), Effort()) == (4, 1.0)
    most = 0  # then it is no matter of size
    with pytest.raises(RuntimeError, match="INT_MAX"):
        generation.search(SimpleNamespace(device=CPU), Effort())


@pytest.mark.parametrize("size", TINY, ids=["DiT", "TiTok"])
def test_compiled_networks_are_the_ones_that_draw(size, monkeypatch, capsys):
    calls, contender = [], build(size, CPU, torch.float32)

    def compiled(network, **options):
        assert options == (generation.COMPILED if size is TINY[0] else {"dynamic": False})
        return lambda *given: (calls.append(network), network(*given))[1]

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(torch.compiler, "reset", lambda: calls.append("reset"))
    whole = partial(generation.whole, effort=Effort(rounds=1))
    with torch.inference_mode():
        assert generation.with_graphs(contender, 2, whole) < math.inf
    decodings = 4  # three of them to warm up
    assert len(calls) == 3 * 2 + contender.steps + decodings + 1 and calls[-1] == "reset"

    def fails(contender, batch):
        raise RuntimeError("no\ncompiler")

    assert generation.with_graphs(build(size, CPU, torch.float32), 1, fails) == math.inf
    assert capsys.readouterr().err == f"{size.name} does not compile: no compiler\n"


def test_the_sizes_are_the_published_ones():
    assert [(size.name, size.settings["steps"]) for size in SIZES[1:]] == [
        ("TiTok-L-32", 8),
        ("TiTok-S-128", 8),
        ("TiTok-S-128", 64),
    ]
    assert SIZES[0] == DiTSize("DiT-XL/2") and SIZES[0].steps == 250


def test_from_the_command_line_to_the_table(tmp_path, monkeypatch, capsys):
    path, threads = tmp_path / "generation-speed.json", torch.get_num_threads()
    generation.main(["--out", str(path), "--device", "cpu", "--quick"], sizes=TINY)
    found = json.loads(path.read_text())
    assert set(found) == {"device", "torch", "tf32", "results"} and torch.get_num_threads() == threads
    assert [(row["model"], row["dtype"]) for row in found["results"]] == [
        (size.name, dtype) for dtype in ("bfloat16", "float32") for size in TINY
    ]
    for row in found["results"]:
        assert set(row) == KEYS and row["batch"] in (1, 2) and not row["extrapolated"] and not row["compiled"]
        assert row["images_per_second"] == pytest.approx(row["batch"] / row["seconds"], rel=1e-3)
        assert (row["times_dit"] == 1) == (row["model"] == "tiny DiT")
    assert len(capsys.readouterr().out.splitlines()) == 4

    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    head, _, *body = tables.TABLES["generation"]().splitlines()
    assert head == "| model | steps | precision | batch | images per second | times DiT |"
    assert body[0].startswith("| tiny DiT | 4 | bf16 | ") and body[0].endswith(" | 1 |")
    assert found["device"] in body[-1] and "≈" not in "".join(body)


def test_the_table_of_another_machine_says_what_was_not_done(tmp_path, monkeypatch):
    row = {
        "model": "DiT-XL/2",
        "steps": 250,
        "dtype": "bfloat16",
        "batch": 128,
        "images_per_second": 2.556,
        "extrapolated": True,
        "compiled": False,
        "times_dit": 1.0,
    }
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


def test_how_much_time_to_spend_is_said_on_the_command_line(tmp_path, monkeypatch):
    seen, path = [], tmp_path / "x.json"

    def measured(contender, effort):
        seen.append((contender.name, effort))
        if len(seen) > 1:
            raise KeyboardInterrupt
        return {
            "model": contender.name,
            "steps": 3,
            "dtype": "float32",
            "batch": 1,
            "images_per_second": 2.0,
            "extrapolated": False,
        }

    monkeypatch.setattr(generation, "measure", measured)
    line = f"--out {path} --device cpu --precision fp32 --patience 9 --most 64 --rounds 2 --no-compile"
    with pytest.raises(KeyboardInterrupt):
        generation.main([*line.split(), "--models", "tiny DiT"], sizes=(DIT, DIT, TITOK))
    assert seen == [("tiny DiT", Effort(2, 9.0, 64, compiled=False))] * 2
    assert len(json.loads(path.read_text())["results"]) == 1  # what was done is kept


def test_without_a_dit_there_is_no_comparison(tmp_path):
    path = tmp_path / "x.json"
    generation.main(["--out", str(path), "--device", "cpu", "--precision", "fp32", "--quick"], sizes=TINY[1:])
    (row,) = json.loads(path.read_text())["results"]
    assert row["times_dit"] is None and row["dtype"] == "float32"
