"""Compiled codecs and generators: the same answers, few shapes, and recordings that are kept straight."""

import copy
import pickle
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from inspect import signature

import pytest
import torch

from titokcodec import Codec, Generator
from titokcodec.generator import Card
from titokcodec.models.generator_config import GeneratorConfig
from titokcodec.models.maskgit import make
from titokcodec.runtime import acceleration
from titokcodec.runtime.acceleration import MOST_RECORDINGS, Accelerated, Recorded, padded

CPU = torch.device("cpu")


def doubled(x):
    return 2 * x


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8, 9])
def test_rows_come_in_powers_of_two(count):
    seen = []

    def plus(x, y):
        seen.append(len(x))
        return x + y

    x = torch.arange(count * 3.0).view(count, 3)
    assert padded(plus)(x, x).equal(x + x)
    assert seen == [{0: 0, 1: 1, 2: 2, 3: 4, 5: 8, 8: 8, 9: 16}[count]]


class Replayed:
    """What a CUDA graph is to its recording, without CUDA: replaying runs the function on the recording's tensors."""

    def __init__(self, function, places, output):
        self.again = lambda: output.copy_(function(*places))

    def replay(self):
        self.again()


@pytest.fixture
def recordings(monkeypatch):
    """How often anything was recorded, with what stands for CUDA here."""
    made = []

    def record(self, inputs):
        places = [x.clone() for x in inputs]
        output = self.function(*places)
        made.append(places)
        return Replayed(self.function, places, output), places, output

    monkeypatch.setattr(Recorded, "_record", record)
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.inference_mode())
    return made


def test_a_recording_serves_one_shape_and_later_answers_leave_earlier_ones_alone(recordings):
    fast = Recorded(doubled)
    first, second = fast(torch.ones(2)), fast(torch.full((2,), 5.0))
    assert first.tolist() == [2, 2] and second.tolist() == [10, 10] and len(recordings) == 1
    assert fast(torch.ones(3)).tolist() == [2, 2, 2] and fast(torch.ones(3, dtype=torch.long)).dtype == torch.long
    assert len(recordings) == 3


def test_the_recording_unused_for_longest_makes_room(recordings):
    fast = Recorded(doubled)
    for length in range(1, MOST_RECORDINGS + 1):
        fast(torch.ones(length))
    fast(torch.ones(1))  # used again
    fast(torch.ones(MOST_RECORDINGS + 1))
    assert len(recordings) == MOST_RECORDINGS + 1
    fast(torch.ones(1))
    assert len(recordings) == MOST_RECORDINGS + 1
    fast(torch.ones(2))  # the one that had to go
    assert len(recordings) == MOST_RECORDINGS + 2


def test_threads_take_turns(recordings, monkeypatch):
    replay = Replayed.replay
    monkeypatch.setattr(Replayed, "replay", lambda self: (time.sleep(0.01), replay(self)))
    fast = Recorded(doubled)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: fast(torch.tensor([number])).item(), range(8)))
    assert found == [2 * number for number in range(8)]


def test_graphs_share_the_memory_of_one_that_lives_and_a_stream_of_their_own(monkeypatch):
    """Else one of them could take along, when it goes, what cuBLAS works in for the others."""
    captured = []

    class Graph:
        pool = replay = lambda self: self

    def capture(graph, pool, stream, capture_error_mode):
        captured.append((graph, pool, stream))
        return nullcontext()

    monkeypatch.setattr(acceleration, "MOST_RECORDINGS", 2)
    for name, stands in (("device", nullcontext), ("Stream", object), ("CUDAGraph", Graph), ("graph", capture)):
        monkeypatch.setattr(torch.cuda, name, stands)
    fast, other = Recorded(doubled), Recorded(doubled)
    for length in range(1, 5):  # the fourth is recorded when the first is gone
        fast(torch.ones(length))
    other(torch.ones(1))
    graphs, pools, streams = zip(*captured, strict=True)
    assert pools == (None, graphs[0], graphs[0], graphs[1], None)
    assert len(set(streams[:4])) == 1 and streams[4] is not streams[0]


@pytest.mark.cuda
def test_cuda_graphs_outlive_each_other(monkeypatch):
    monkeypatch.setattr(acceleration, "MOST_RECORDINGS", 3)
    weight = torch.randn(512, 512, device="cuda", dtype=torch.bfloat16)
    with torch.inference_mode():
        fast, gone = (Recorded(lambda x: x @ weight @ weight) for _ in range(2))
        gone(weight[:1])
        del gone
        for rows in (1, 2, 4, 8, 1, 16, 4, 1, 2, 16):
            x = torch.randn(rows, 512, device="cuda", dtype=torch.bfloat16)
            torch.testing.assert_close(fast(x), x @ weight @ weight, atol=8.0, rtol=0.05)
            torch.cuda.empty_cache()


@pytest.mark.cuda
def test_cuda_replays_what_the_network_gives(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # another batch may mean another kernel
    codec = Codec.from_pretrained(device="cuda", dtype="fp32")
    pixels = torch.rand(3, 3, 256, 256)
    tokens = codec.encode(pixels)
    plain = codec.decode(tokens[:, :48])
    codec.compile(kernels=False)
    for _ in range(2):
        assert (codec.encode(pixels) == tokens).float().mean() > 0.99
        torch.testing.assert_close(codec.decode(tokens[:, :48]), plain, atol=1e-3, rtol=0)


@pytest.fixture
def compilers(monkeypatch):
    """What ``torch.compile`` was given."""
    given = []
    monkeypatch.setattr(torch, "compile", lambda function, **how: given.append((function, how["dynamic"])) or function)
    return given


def test_a_compiled_codec_gives_the_same_files_and_pictures(codec, photo, compilers):
    fast = Codec(codec.weights, copy.deepcopy(codec.model), codec.device, codec.dtype)
    fast.compile()
    assert [dynamic for _, dynamic in compilers] == [False, False]
    pictures = [photo.resize((300, 260)), photo, photo.resize((64, 64))]
    files = codec.compress_batch(pictures, tokens=9, effort=0)
    assert fast.compress_batch(pictures, tokens=9, effort=0) == files
    for ours, theirs in zip(fast.decompress_batch(files), codec.decompress_batch(files), strict=True):
        assert ours.tobytes() == theirs.tobytes()


@pytest.fixture(params=[copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))], ids=["copied", "pickled"])
def again(request):
    """A copy of a thing."""
    return request.param


@pytest.mark.parametrize("kernels", [False, True])
def test_a_compiled_codec_can_be_copied_and_pickled(codec, again, kernels, compilers):
    fast = again(codec)
    assert fast.model is not codec.model
    pixels = torch.rand(3, 3, 256, 256)
    tokens = codec.encode(pixels)
    fast.compile(kernels=kernels)
    assert fast.encode(pixels).equal(tokens) and fast.encode(pixels, 9).equal(tokens[:, :9])
    other = again(fast)
    assert (other.encoder, other.decoder) == (other.model.encode, other.model.decode)
    assert other.encode(pixels).equal(tokens) and other.encode(pixels, 9).equal(tokens[:, :9])
    assert other.encode(pixels[:1], 8, effort=1).equal(codec.encode(pixels[:1], 8, effort=1))
    assert other.decode(tokens).equal(codec.decode(tokens))
    other.compile(kernels=kernels)
    assert other.decode(tokens).equal(codec.decode(tokens))


def test_a_compiled_generator_can_be_copied_and_pickled(again, compilers):
    torch.manual_seed(0)
    config = GeneratorConfig("bert", 8, codes=32, classes=3, width=64, layers=2, heads=2, mlp=64)
    fast = Generator(make(config), Card("g", config), CPU, torch.float32)
    fast.compile()
    other = again(fast)
    assert other.network is other.model is not fast.model
    assert other.sample([0, None], seed=3).equal(fast.sample([0, None], seed=3))


def test_a_compiled_generator_samples_the_same_tokens(compilers):
    torch.manual_seed(0)
    config = GeneratorConfig("bert", 8, codes=32, classes=3, width=64, layers=2, heads=2, mlp=64)
    model = make(config)
    plain, fast = (Generator(model, Card("g", config), CPU, torch.float32) for _ in range(2))
    fast.compile()
    assert len(compilers) == 1
    for labels in ([0, 1, None], [2]):
        assert fast.sample(labels, seed=3, steps=4).equal(plain.sample(labels, seed=3, steps=4))


def test_every_shape_that_may_be_recorded_is_compiled(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=lambda graph, _: compiled.append(0) or graph))
    torch.compiler.reset()
    fast = Accelerated(doubled, CPU)
    for length in range(1, 13):
        assert fast(torch.ones(1, length)).equal(torch.full((1, length), 2.0))
    assert len(compiled) == 12


def test_older_compilers_may_take_as_many_shapes_too(monkeypatch):
    import torch._dynamo.config as limits

    monkeypatch.setattr(acceleration, "signature", lambda function: signature(doubled))
    for before, after in ((8, MOST_RECORDINGS), (1000, 1000)):
        with limits.patch(cache_size_limit=before):
            assert acceleration._limit() == {} and limits.cache_size_limit == after


def test_without_kernels_nothing_is_compiled(compilers):
    assert Accelerated(doubled, CPU, kernels=False)(torch.ones(3)).tolist() == [2, 2, 2]
    assert not compilers


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU")
def test_the_real_compiler_keeps_the_numbers():
    torch.manual_seed(0)
    config = GeneratorConfig("bert", 8, codes=32, classes=3, width=32, layers=1, heads=2, mlp=32)
    generator = Generator(make(config), Card("g", config), CPU, torch.float32)
    tokens = torch.randint(0, 33, (3, 8))
    plain = generator.logits(tokens, [0, 1, None])
    generator.compile()
    torch.testing.assert_close(generator.logits(tokens, [0, 1, None]), plain, atol=1e-4, rtol=1e-4)


def test_networks_are_traced_whole(codec, monkeypatch):
    """Nothing in them sends the compiler back to Python, in the default's architecture or in the generators'."""
    real = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, **how: real(function, **how, fullgraph=True, backend="eager")
    )
    fast = Codec(codec.weights, copy.deepcopy(codec.model), codec.device, codec.dtype)
    fast.compile()
    pixels = torch.rand(2, 3, 256, 256)
    assert fast.encode(pixels).equal(codec.encode(pixels))
    assert fast.decode(fast.encode(pixels, 9)).equal(codec.decode(codec.encode(pixels, 9)))
    small = {"codes": 32, "classes": 3, "width": 32, "layers": 2, "heads": 2, "mlp": 32}
    coarse_to_fine = GeneratorConfig("codes", 8, **small, prefixes=(2, 8), codebooks=2, code_width=4, hidden=8)
    for config in (GeneratorConfig("bert", 8, **small), GeneratorConfig("uvit", 8, **small), coarse_to_fine):
        generator = Generator(make(config), Card("g", config), CPU, torch.float32)
        plain = generator.sample([1, None], seed=5)
        generator.compile()
        assert generator.sample([1, None], seed=5).equal(plain)
