"""What callers set in torch does not reach the networks, and what these hand out is fit for anybody's training."""

import os
import subprocess
import sys
from contextlib import contextmanager, nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import titokcodec.runtime.isolation as isolation
from tests.conftest import TINY
from titokcodec import Codec, Generator, TitokError
from titokcodec.generator import Card
from titokcodec.models.generator_config import GeneratorConfig
from titokcodec.models.maskgit import make
from titokcodec.runtime.isolation import isolated

CPU = torch.device("cpu")


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


CALLERS = {
    "plain": nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "bfloat16 autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float16 autocast": lambda: torch.autocast("cpu", torch.float16),
    "float64 by default": lambda: default_dtype(torch.float64),
    "float16 by default": lambda: default_dtype(torch.float16),
    "another device by default": lambda: torch.device("meta"),
}


@pytest.fixture(params=CALLERS)
def caller(request):
    return CALLERS[request.param]


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    config = GeneratorConfig("bert", 16, codes=64, classes=3, width=64, layers=2, heads=2, mlp=64)
    model = make(config)
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(8)  # so that close calls are rare, and a changed one is no surprise
    return Generator(model, Card("g", config), CPU, torch.float32)


@pytest.fixture(scope="module")
def calls(codec, generator, photo):
    """Every public function that a network runs in or that hands out tensors, with a tensor for an answer."""
    small = photo.resize((256, 256))
    pixels = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(2))
    tokens, file = codec.encode(pixels), codec.compress(small, effort=0)
    keep = torch.arange(16).expand(2, -1) % 2 == 0
    return {
        "encode": lambda: codec.encode(pixels),
        "search": lambda: codec.encode(pixels[:1], 8, effort=1),
        "decode": lambda: codec.decode(tokens),
        "read": lambda: codec.read(file),
        "compress": lambda: torch.frombuffer(bytearray(codec.compress(small, effort=0)), dtype=torch.uint8),
        "decompress": lambda: torch.frombuffer(bytearray(codec.decompress(file).tobytes()), dtype=torch.uint8),
        "sample": lambda: generator.sample([0, None], seed=1),
        "inpaint": lambda: generator.inpaint(tokens, keep, [1, 2], seed=1),
        "logits": lambda: generator.logits(tokens, [1, None]),
    }


@pytest.fixture(scope="module")
def answers(calls):
    return {name: call() for name, call in calls.items()}


@pytest.mark.parametrize(
    "name", ["encode", "search", "decode", "read", "compress", "decompress", "sample", "inpaint", "logits"]
)
def test_every_caller_gets_the_same_answer_in_a_tensor_to_train_with(calls, answers, caller, name):
    with caller():
        found = calls[name]()
    assert found.dtype == answers[name].dtype and found.equal(answers[name])
    if name in ("compress", "decompress"):
        return
    if found.is_floating_point():
        layer = nn.Linear(found.shape[-1], 1)
        layer(found).sum().backward()
        assert layer.weight.grad is not None
    else:
        table = nn.Embedding(64, 64)
        F.cross_entropy(table(found).flatten(0, 1), found.flatten()).backward()
        assert table.weight.grad is not None
    found += 1
    assert not found.requires_grad


def test_compiled_or_not_tokens_train_alike(tiny_path):
    codec = Codec.from_pretrained(tiny_path, device="cpu", dtype="fp32")
    codec.compile(kernels=False)
    with torch.inference_mode():
        tokens = codec.encode(torch.rand(3, 3, 256, 256))
        pixels = codec.decode(tokens)
    nn.Embedding(64, 2)(tokens).sum().backward()
    nn.Conv2d(3, 1, 3)(pixels).sum().backward()


def test_pixels_with_gradients_are_encoded_and_nothing_is_trained(codec):
    before = {name: value.clone() for name, value in codec.model.state_dict().items()}
    pixels = torch.rand(1, 3, 256, 256, requires_grad=True)
    for effort in (0, 2):
        assert not codec.decode(codec.encode(pixels, effort=effort)).requires_grad
    assert pixels.grad is None
    assert not any(value.requires_grad for value in codec.model.parameters())
    assert all(value.equal(before[name]) for name, value in codec.model.state_dict().items())


def test_a_model_is_loaded_alike_whoever_loads_it(codec, caller, tiny_path):
    with caller():
        loaded = Codec.from_pretrained(tiny_path, device="cpu", dtype="fp32")
    ours, theirs = loaded.model.state_dict(), codec.model.state_dict()
    assert all(value.dtype == theirs[name].dtype and value.equal(theirs[name]) for name, value in ours.items())


FORKING = f"""
import os, torch
from titokcodec import Codec
torch.set_num_threads(2)
codec = Codec.from_pretrained({str(TINY)!r}, device="cpu", dtype="fp32")
pixels = torch.rand(2, 3, 256, 256)
tokens = codec.encode(pixels)
shown = codec.decode(tokens)
child = os.fork()
if not child:
    alike = (codec.encode(pixels) == tokens).float().mean() > 0.9 and (codec.decode(tokens) - shown).abs().max() < 1e-3
    codec.encode(pixels, effort=1)
    os._exit(0 if alike else 1)
assert os.waitpid(child, 0)[1] == 0
assert torch.get_num_threads() == 2
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_that_was_forked_after_use_goes_on_with_one_thread():
    """It waited for ever for OpenMP's other threads."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    worker = subprocess.Popen([sys.executable, "-c", FORKING], env=environment, start_new_session=True)
    try:
        assert worker.wait(120) == 0
    finally:
        if worker.poll() is None:
            os.killpg(worker.pid, 9)


def test_a_gpu_that_a_fork_has_taken_is_said_to_be_lost(monkeypatch):
    monkeypatch.setattr(isolation, "_used", {"cpu", "cuda"})
    monkeypatch.setattr(isolation, "_lost", set())
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    isolation._after_fork()
    with isolated(CPU):
        pass
    with pytest.raises(TitokError, match=r"forked.*spawn"), isolated(torch.device("cuda")):
        pass


FORKED_FROM_A_GPU = """
import os, torch
from titokcodec import Codec, TitokError
codec = Codec.from_pretrained(device="cuda")
codec.encode(torch.rand(1, 3, 256, 256))
child = os.fork()
if not child:
    try:
        codec.encode(torch.rand(1, 3, 256, 256))
    except TitokError as error:
        os._exit(7 if "forked" in str(error) and "spawn" in str(error) else 1)
    os._exit(2)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
codec.encode(torch.rand(1, 3, 256, 256))
"""


@pytest.mark.cuda
def test_a_child_of_a_process_that_uses_a_gpu_gets_told():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", FORKED_FROM_A_GPU], env=environment, check=True, timeout=120)


@pytest.mark.cuda
def test_callers_settings_do_not_reach_a_gpu():
    codec = Codec.from_pretrained(device="cuda", dtype="fp32")
    pixels = torch.rand(2, 3, 256, 256, device="cuda")
    tokens, decoded = codec.encode(pixels), codec.decode(codec.encode(pixels))
    casts = (torch.autocast("cuda", dtype) for dtype in (torch.float16, torch.bfloat16))
    for caller in (torch.inference_mode(), *casts):
        with caller:
            assert codec.encode(pixels).equal(tokens)
            torch.testing.assert_close(codec.decode(tokens), decoded, atol=1e-3, rtol=0)
            assert not codec.decode(tokens).is_inference()
